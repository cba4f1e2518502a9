// In-place arithmetic on parameters.

// Changes n tensors by one rule. table holds for each the number of elements up to its end, and the addresses of what
// changes and of two sources; factors holds three numbers for each. The rules are those of ops/update.rs.
KERNEL update(int count, const long long* table, const float* factors, int n, int rule) {
    FOR_EACH(i, count) {
        int low = 0;
        for (int high = n - 1; low < high;) {
            int middle = (low + high) / 2;
            if ((long long)i < table[4 * middle]) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        unsigned k = i - (low > 0 ? (unsigned)table[4 * (low - 1)] : 0u);
        float* d = (float*)table[4 * low + 1] + k;
        float a = ((const float*)table[4 * low + 2])[k], b = ((const float*)table[4 * low + 3])[k];
        const float* by = factors + 3 * low;
        if (rule == 0) {
            *d = by[0] * *d + by[1] * a;
        } else if (rule == 1) {
            *d = by[0] * *d + by[1] * a * a;
        } else if (rule == 2) {
            *d = by[0] * *d + by[1] * a + by[2] * b;
        } else {
            *d = by[0] * *d - by[1] * a / (sqrtf(b * by[2]) + 1e-8f);
        }
    }
}

// Sums of squares of several tensors, each in `each` interleaved parts. table holds for each tensor the number of its
// elements and its address.
KERNEL squares(int count, const long long* table, int each, double* parts) {
    FOR_EACH(i, count) {
        const long long* own = table + 2 * (i / each);
        const float* x = (const float*)own[1];
        double sum = 0.0;
        for (long long k = i % each; k < own[0]; k += each) sum += (double)x[k] * x[k];
        parts[i] = sum;
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
