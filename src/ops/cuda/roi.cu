// RoIAlign and RoIPool; positions are rounded as in ops/roi.rs, whose f32 arithmetic decides the cell of a sample.

// The bins of a region along one axis: where it starts and how long a bin is, both in cells, and samples in a bin.
struct Region {
    float start, bin, samples;
};

// A ratio of 0 takes as many samples as keep them a cell apart.
__device__ inline Region region_of(float start, float end, float scale, int output, int ratio, int shifted) {
    float offset = shifted ? 0.5f : 0.0f, from = start * scale - offset, length = (end * scale - offset) - from;
    if (!shifted) length = fmaxf(length, 1.0f);
    float bin = length / (float)output;
    return Region{from, bin, ratio > 0 ? (float)ratio : ceilf(bin)};
}

// The samples of one bin along one axis.
struct Samples {
    float base, bin, samples;
    long long first, end;
};

__device__ inline long long whole(double v) { return v < 0.0 ? 0 : v > 4e18 ? (long long)4e18 : (long long)v; }

// All samples that can lie in [-1, input]: a region far larger than the map costs no more than one as large as it.
__device__ inline Samples samples_of(const Region& region, int p, int input) {
    Samples s = {region.start + p * region.bin, region.bin, region.samples, 0, 0};
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

// Regions are boxes [R, 4] with an image and a level each; those of other levels are left alone.
KERNEL roi_align(int count, const float* x, const float* boxes, const int* images, const int* levels, int level,
                 int channels, int h, int w, int ph, int pw, int ratio, int shifted, float scale, float* y) {
    FOR_EACH(i, count) {
        int roi = i / (channels * ph * pw);
        if (levels[roi] != level) continue;
        const float *plane = x + (images[roi] * channels + i / (ph * pw) % channels) * h * w, *box = boxes + 4 * roi;
        Samples rows = samples_of(region_of(box[1], box[3], scale, ph, ratio, shifted), i / pw % ph, h);
        Samples columns = samples_of(region_of(box[0], box[2], scale, pw, ratio, shifted), i % pw, w);
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
KERNEL roi_align_gradient(int count, const float* g, const float* boxes, const int* images, const int* levels,
                          int level, int channels, int h, int w, int ph, int pw, int ratio, int shifted, float scale,
                          float* gx) {
    FOR_EACH(i, count) {
        int roi = i / (channels * ph * pw);
        if (levels[roi] != level) continue;
        float* plane = gx + (images[roi] * channels + i / (ph * pw) % channels) * h * w;
        const float* box = boxes + 4 * roi;
        Samples rows = samples_of(region_of(box[1], box[3], scale, ph, ratio, shifted), i / pw % ph, h);
        Samples columns = samples_of(region_of(box[0], box[2], scale, pw, ratio, shifted), i % pw, w);
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

// The cells of a bin along one axis: the first, and one past the last.
__device__ inline void bin_of(float start, float end, float scale, int p, int output, int input, int* cells) {
    float first = roundf(start * scale), length = fmaxf(roundf(end * scale) - first + 1.0f, 1.0f);
    float bin = length / (float)output;
    cells[0] = (int)fminf(fmaxf(floorf((float)p * bin) + first, 0.0f), (float)input);
    cells[1] = (int)fminf(fmaxf(ceilf((float)(p + 1) * bin) + first, 0.0f), (float)input);
}

// The place of the largest cell of a bin; -1 for an empty one.
__device__ inline int roi_maximum(const float* plane, const float* box, float scale, int bin, int h, int w, int ph,
                                  int pw) {
    int rows[2], columns[2], best = -1;
    bin_of(box[1], box[3], scale, bin / pw, ph, h, rows);
    bin_of(box[0], box[2], scale, bin % pw, pw, w, columns);
    for (int row = rows[0]; row < rows[1]; ++row) {
        for (int column = columns[0]; column < columns[1]; ++column) {
            int place = row * w + column;
            if (best < 0 || plane[place] > plane[best]) best = place;
        }
    }
    return best;
}

KERNEL roi_pool(int count, const float* x, const float* boxes, const int* images, const int* levels, int level,
                int channels, int h, int w, int ph, int pw, float scale, float* y) {
    FOR_EACH(i, count) {
        int roi = i / (channels * ph * pw);
        if (levels[roi] != level) continue;
        const float* plane = x + (images[roi] * channels + i / (ph * pw) % channels) * h * w;
        int best = roi_maximum(plane, boxes + 4 * roi, scale, i % (ph * pw), h, w, ph, pw);
        y[i] = best < 0 ? 0.0f : plane[best];
    }
}

// Adds to gx, which starts as zeros.
KERNEL roi_pool_gradient(int count, const float* x, const float* g, const float* boxes, const int* images,
                         const int* levels, int level, int channels, int h, int w, int ph, int pw, float scale,
                         float* gx) {
    FOR_EACH(i, count) {
        int roi = i / (channels * ph * pw);
        if (levels[roi] != level) continue;
        int start = (images[roi] * channels + i / (ph * pw) % channels) * h * w;
        int best = roi_maximum(x + start, boxes + 4 * roi, scale, i % (ph * pw), h, w, ph, pw);
        if (best >= 0) atomicAdd(gx + start + best, g[i]);
    }
}
