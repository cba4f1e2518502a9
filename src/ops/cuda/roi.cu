// RoIAlign and RoIPool; positions are rounded as in ops/roi.rs, whose f32 arithmetic decides the cell of a sample.

// The samples of one bin along one axis: region holds the start, the length of a bin, and samples in a bin.
struct Samples {
    float base, bin, samples;
    long long first, end;
};

__device__ inline long long whole(double v) { return v < 0.0 ? 0 : v > 4e18 ? (long long)4e18 : (long long)v; }

// All samples that can lie in [-1, input]: a region far larger than the map costs no more than one as large as it.
__device__ inline Samples samples_of(const float* region, int p, int input) {
    Samples s = {region[0] + p * region[1], region[1], region[2], 0, 0};
    double step = (double)s.bin / (double)s.samples;
    if (!isfinite(step)) return s;
    s.end = whole((double)s.samples);
    if (step > 0.0) {
        s.first = whole((-1.0 - (double)s.base) / step - 2.0);
        s.end = min(s.end, whole(((double)input - (double)s.base) / step + 2.0));
    }
    return s;
}

// The two cells that sample i lies between and their weights; false outside the map.
struct Cells {
    int low, high;
    float of_low, of_high;
};

__device__ inline bool cells_of(const Samples& s, long long i, int input, Cells* cells) {
    float position = s.base + ((float)i + 0.5f) * s.bin / s.samples;
    if (position < -1.0f || position > (float)input) return false;
    position = fmaxf(position, 0.0f);
    int low = (int)position;
    if (low >= input - 1) {
        *cells = Cells{input - 1, input - 1, 1.0f / s.samples, 0.0f};
    } else {
        float fraction = position - (float)low;
        *cells = Cells{low, low + 1, (1.0f - fraction) / s.samples, fraction / s.samples};
    }
    return true;
}

// regions: [R, 7] with the image, then start, bin and samples of the rows and of the columns.
KERNEL roi_align(int count, const float* x, const float* regions, int channels, int h, int w, int ph, int pw,
                 float* y) {
    FOR_EACH(i, count) {
        const float* region = regions + i / (channels * ph * pw) * 7;
        const float* plane = x + ((int)region[0] * channels + i / (ph * pw) % channels) * h * w;
        Samples rows = samples_of(region + 1, i / pw % ph, h), columns = samples_of(region + 4, i % pw, w);
        Cells row, column;
        float sum = 0.0f;
        for (long long j = rows.first; j < rows.end; ++j) {
            if (!cells_of(rows, j, h, &row)) continue;
            const float *top = plane + row.low * w, *bottom = plane + row.high * w;
            for (long long k = columns.first; k < columns.end; ++k) {
                if (!cells_of(columns, k, w, &column)) continue;
                float above = column.of_low * top[column.low] + column.of_high * top[column.high];
                float below = column.of_low * bottom[column.low] + column.of_high * bottom[column.high];
                sum += row.of_low * above + row.of_high * below;
            }
        }
        y[i] = sum;
    }
}

// Adds to gx, which starts as zeros. Regions overlap, so the order of the sums is not fixed.
KERNEL roi_align_gradient(int count, const float* g, const float* regions, int channels, int h, int w, int ph, int pw,
                          float* gx) {
    FOR_EACH(i, count) {
        const float* region = regions + i / (channels * ph * pw) * 7;
        float* plane = gx + ((int)region[0] * channels + i / (ph * pw) % channels) * h * w;
        Samples rows = samples_of(region + 1, i / pw % ph, h), columns = samples_of(region + 4, i % pw, w);
        Cells row, column;
        for (long long j = rows.first; j < rows.end; ++j) {
            if (!cells_of(rows, j, h, &row)) continue;
            for (long long k = columns.first; k < columns.end; ++k) {
                if (!cells_of(columns, k, w, &column)) continue;
                atomicAdd(plane + row.low * w + column.low, g[i] * row.of_low * column.of_low);
                atomicAdd(plane + row.low * w + column.high, g[i] * row.of_low * column.of_high);
                atomicAdd(plane + row.high * w + column.low, g[i] * row.of_high * column.of_low);
                atomicAdd(plane + row.high * w + column.high, g[i] * row.of_high * column.of_high);
            }
        }
    }
}

// regions: [R, 1 + 2 ph + 2 pw] with the image, then first and one past the last cell of the rows and of the columns.
__device__ inline int roi_maximum(const float* plane, const int* region, int bin, int w, int ph, int pw) {
    const int *rows = region + 1 + bin / pw * 2, *columns = region + 1 + ph * 2 + bin % pw * 2;
    int best = -1;
    for (int row = rows[0]; row < rows[1]; ++row) {
        for (int column = columns[0]; column < columns[1]; ++column) {
            int place = row * w + column;
            if (best < 0 || plane[place] > plane[best]) best = place;
        }
    }
    return best;
}

KERNEL roi_pool(int count, const float* x, const int* regions, int channels, int h, int w, int ph, int pw, float* y) {
    FOR_EACH(i, count) {
        const int* region = regions + i / (channels * ph * pw) * (1 + 2 * ph + 2 * pw);
        const float* plane = x + (region[0] * channels + i / (ph * pw) % channels) * h * w;
        int best = roi_maximum(plane, region, i % (ph * pw), w, ph, pw);
        y[i] = best < 0 ? 0.0f : plane[best];
    }
}

// Adds to gx, which starts as zeros.
KERNEL roi_pool_gradient(int count, const float* x, const float* g, const int* regions, int channels, int h, int w,
                         int ph, int pw, float* gx) {
    FOR_EACH(i, count) {
        const int* region = regions + i / (channels * ph * pw) * (1 + 2 * ph + 2 * pw);
        int start = (region[0] * channels + i / (ph * pw) % channels) * h * w;
        int best = roi_maximum(x + start, region, i % (ph * pw), w, ph, pw);
        if (best >= 0) atomicAdd(gx + start + best, g[i]);
    }
}
