// Batch, group and L2 normalisation of [n, channels, inner].
//
// statistics holds the means of `statistics_count` sets of values, then 1 / sqrt(var + eps) of each. A set is a channel
// where block is 0 (batch norm), else `block` elements in a row (group norm).

__device__ inline int set_of(unsigned element, int channels, int inner, int block) {
    return block ? element / block : element / inner % channels;
}

// Sums of x and x^2 of every plane of `inner`, in `lanes` interleaved pairs.
KERNEL plane_moments(int count, const float* x, int inner, int lanes, double* parts) {
    FOR_EACH(i, count) {
        double plain = 0.0, squares = 0.0;
        for (int k = i % lanes; k < inner; k += lanes) {
            double v = x[i / lanes * inner + k];
            plain += v;
            squares += v * v;
        }
        parts[2 * i] = plain;
        parts[2 * i + 1] = squares;
    }
}

// From the planes of n images: mean, 1 / sqrt(biased variance + eps) and unbiased variance of `count` channels.
KERNEL batch_statistics(int count, const double* parts, int n, int lanes, int total, float eps, float* statistics) {
    FOR_EACH(c, count) {
        double plain = 0.0, squares = 0.0;
        for (int image = 0; image < n; ++image) {
            const double* from = parts + 2 * lanes * (image * count + c);
            for (int lane = 0; lane < lanes; ++lane) {
                plain += from[2 * lane];
                squares += from[2 * lane + 1];
            }
        }
        double mean = plain / total;
        double variance = fmax(squares / total - mean * mean, 0.0);
        statistics[c] = (float)mean;
        statistics[count + c] = (float)(1.0 / sqrt(variance + (double)eps));
        statistics[2 * count + c] = (float)(total > 1 ? variance * total / (total - 1) : 0.0);
    }
}

KERNEL running_statistics(int count, const float* mean, const float* var, float eps, float* statistics) {
    FOR_EACH(c, count) {
        statistics[c] = mean[c];
        statistics[count + c] = (float)(1.0 / sqrt((double)var[c] + (double)eps));
    }
}

// What batch norm multiplies each channel by and, after all of these, what it adds then.
KERNEL factor_and_shift(int count, const float* gamma, const float* beta, const float* mean, const float* var,
                        float eps, float* both) {
    FOR_EACH(c, count) {
        double factor = (double)gamma[c] * (1.0 / sqrt((double)var[c] + (double)eps));
        both[c] = (float)factor;
        both[count + c] = (float)((double)beta[c] - (double)mean[c] * factor);
    }
}

// What is normalised passes an activation that has this slope below zero.
KERNEL normalise(int count, const float* x, const float* statistics, const float* gamma, const float* beta,
                 int statistics_count, int channels, int inner, int block, float slope, float* y) {
    FOR_EACH(i, count) {
        int channel = i / inner % channels, set = set_of(i, channels, inner, block);
        float scale = gamma[channel] * statistics[statistics_count + set];
        float v = (x[i] - statistics[set]) * scale + beta[channel];
        y[i] = bent(v, v, slope);
    }
}

// Sums of g before the activation, and of that times the normalised input, of every plane, in `lanes` interleaved
// pairs.
KERNEL plane_gradient_sums(int count, const float* x, const float* g, const float* statistics, const float* gamma,
                           const float* beta, int statistics_count, int channels, int inner, int block, int lanes,
                           float slope, double* parts) {
    FOR_EACH(i, count) {
        unsigned plane = i / lanes;
        int channel = plane % channels, set = set_of(plane * inner, channels, inner, block);
        float scale = gamma[channel] * statistics[statistics_count + set], shift = beta[channel];
        double mean = statistics[set], plain = 0.0, weighted = 0.0;
        for (int k = i % lanes; k < inner; k += lanes) {
            float x_k = x[plane * inner + k], g_k = g[plane * inner + k];
            double v = x_k, gradient = (x_k - statistics[set]) * scale + shift <= 0.0f ? slope * g_k : g_k;
            plain += gradient;
            weighted += (v - mean) * gradient;
        }
        parts[2 * i] = plain;
        parts[2 * i + 1] = weighted * statistics[statistics_count + set];
    }
}

// The gradients of beta and, after them, of gamma: the pairs of `count` channels summed over n images.
KERNEL norm_vector_gradients(int count, const double* parts, int n, int lanes, float* sums) {
    FOR_EACH(c, count) {
        double plain = 0.0, weighted = 0.0;
        for (int image = 0; image < n; ++image) {
            const double* from = parts + 2 * lanes * (image * count + c);
            for (int lane = 0; lane < lanes; ++lane) {
                plain += from[2 * lane];
                weighted += from[2 * lane + 1];
            }
        }
        sums[c] = (float)plain;
        sums[count + c] = (float)weighted;
    }
}

// What the mean and the deviation of each set take from the gradient: gamma times the sums over `total`.
KERNEL batch_levels(int count, const float* sums, const float* gamma, const float* statistics, int total,
                    float* levels) {
    FOR_EACH(c, count) {
        levels[c] = gamma[c] * (sums[c] / total);
        levels[count + c] = gamma[c] * (sums[count + c] / total) * statistics[count + c];
    }
}

// The same of `count` groups, each with `members` planes in a row.
KERNEL group_levels(int count, const double* parts, const float* gamma, const float* statistics, int groups,
                    int members, int block, int lanes, float* levels) {
    FOR_EACH(s, count) {
        double plain = 0.0, weighted = 0.0;
        for (int k = 0; k < members; ++k) {
            const double* from = parts + 2 * lanes * (s * members + k);
            double scale = gamma[s % groups * members + k];
            for (int lane = 0; lane < lanes; ++lane) {
                plain += scale * from[2 * lane];
                weighted += scale * from[2 * lane + 1];
            }
        }
        levels[s] = (float)(plain / block);
        levels[count + s] = (float)(weighted / block * statistics[count + s]);
    }
}

KERNEL normalise_gradient(int count, const float* x, const float* g, const float* statistics, const float* gamma,
                          const float* beta, const float* levels, int statistics_count, int channels, int inner,
                          int block, float slope, float* gx) {
    FOR_EACH(i, count) {
        int channel = i / inner % channels, set = set_of(i, channels, inner, block);
        float centred = x[i] - statistics[set], inverse = statistics[statistics_count + set];
        float gradient = centred * (gamma[channel] * inverse) + beta[channel] <= 0.0f ? slope * g[i] : g[i];
        float tilted = centred * levels[statistics_count + set];
        gx[i] = inverse * (gamma[channel] * gradient - levels[set] - tilted);
    }
}

// The divisor of a vector of length root: root + eps, or with `floor` the larger of the two.
__device__ inline double l2_divisor(double root, int floor, float eps) {
    return floor ? fmax(root, (double)eps) : root + (double)eps;
}

// One thread a pixel of n * inner.
KERNEL l2_norm(int count, const float* x, const float* gamma, int channels, int inner, int floor, float eps, float* y) {
    FOR_EACH(i, count) {
        unsigned first = i / inner * channels * inner + i % inner;
        double squares = 0.0;
        for (int c = 0; c < channels; ++c) squares += (double)x[first + c * inner] * x[first + c * inner];
        float divisor = (float)l2_divisor(sqrt(squares), floor, eps);
        for (int c = 0; c < channels; ++c) y[first + c * inner] = gamma[c] * (x[first + c * inner] / divisor);
    }
}

// gx = gamma g / d - x S / (d^2 r), the second part only where the divisor d follows the length r; also writes 1 / d.
KERNEL l2_norm_gradient(int count, const float* x, const float* g, const float* gamma, int channels, int inner,
                        int floor, float eps, float* gx, float* inverses) {
    FOR_EACH(i, count) {
        unsigned first = i / inner * channels * inner + i % inner;
        double squares = 0.0, product = 0.0;
        for (int c = 0; c < channels; ++c) {
            double v = x[first + c * inner];
            squares += v * v;
            product += (double)gamma[c] * g[first + c * inner] * v;
        }
        double root = sqrt(squares), divisor = l2_divisor(root, floor, eps);
        bool follows = root > 0.0 && (!floor || root >= (double)eps);
        float inverse = (float)(1.0 / divisor), along = (float)(follows ? product / (divisor * divisor * root) : 0.0);
        for (int c = 0; c < channels; ++c) {
            gx[first + c * inner] = gamma[c] * g[first + c * inner] * inverse - x[first + c * inner] * along;
        }
        inverses[i] = inverse;
    }
}

// Sums of g x / d of every channel, in `lanes` interleaved parts; total is n * inner.
KERNEL l2_gamma_sums(int count, const float* x, const float* g, const float* inverses, int channels, int inner,
                     int total, int lanes, double* parts) {
    FOR_EACH(i, count) {
        int channel = i / lanes;
        double sum = 0.0;
        for (int k = i % lanes; k < total; k += lanes) {
            unsigned at = (k / inner * channels + channel) * inner + k % inner;
            sum += (double)g[at] * (x[at] * inverses[k]);
        }
        parts[i] = sum;
    }
}
