// In-place arithmetic on parameters.

KERNEL blend(int count, float* d, const float* s, float keep, float add) {
    FOR_EACH(i, count) d[i] = keep * d[i] + add * s[i];
}

KERNEL blend_squares(int count, float* d, const float* s, float keep, float add) {
    FOR_EACH(i, count) d[i] = keep * d[i] + add * s[i] * s[i];
}

KERNEL velocity(int count, float* v, const float* g, const float* p, float momentum, float scale, float decay) {
    FOR_EACH(i, count) v[i] = momentum * v[i] + scale * g[i] + decay * p[i];
}

KERNEL adaptive_step(int count, float* p, const float* m, const float* v, float shrink, float rate, float correction) {
    FOR_EACH(i, count) p[i] = shrink * p[i] - rate * m[i] / (sqrtf(v[i] * correction) + 1e-8f);
}

// Sums of squares of `total` elements, in `count` interleaved parts, which stand in parts from `first` on.
KERNEL squares(int count, const float* x, int total, int first, double* parts) {
    FOR_EACH(i, count) {
        double sum = 0.0;
        for (int k = i; k < total; k += count) sum += (double)x[k] * x[k];
        parts[first + i] = sum;
    }
}

// Sums of `lanes` parts in a row each.
KERNEL sum_parts(int count, const double* parts, int lanes, double* sums) {
    FOR_EACH(i, count) {
        double sum = 0.0;
        for (int lane = 0; lane < lanes; ++lane) sum += parts[i * lanes + lane];
        sums[i] = sum;
    }
}
