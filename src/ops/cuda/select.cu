// Elements above a bound, the best of runs, and rows filled with a value.

// found[0] counts the elements above `bound` in columns from `first` on; behind it stand the place and the bits of as
// many as there is room for, in no order.
KERNEL above(int count, const float* x, int columns, int first, float bound, int room, int* found) {
    FOR_EACH(i, count) {
        if (!(x[i] > bound) || (int)(i % columns) < first) continue;
        int slot = atomicAdd(found, 1);
        if (slot >= room) continue;
        found[1 + 2 * slot] = i;
        found[2 + 2 * slot] = __float_as_int(x[i]);
    }
}

// Where an element stands in its run, the best lowest: by value, then by place. Order 0 is that of a top-k, where zeros
// are equal and NaN comes last; order 1 is that of hard negatives, where NaN comes first; order 2 is that of bits,
// whatever the place.
__device__ inline unsigned long long rank_of(float value, int place, int order) {
    unsigned key;
    if (order == 2) return (unsigned long long)(unsigned)__float_as_int(value) << 32;
    if (value != value) {
        key = order == 0 ? 0xffffffffu : 0u;
    } else {
        unsigned bits = order == 0 && value == 0.0f ? 0u : (unsigned)__float_as_int(value);
        key = bits >> 31 ? bits : ~(bits | 0x80000000u);
    }
    return ((unsigned long long)key << 32) | (unsigned)place;
}

// The run that element i lies in. A run is its start, its length, how many are wanted, and where these go.
__device__ inline int run_of(int i, const int* runs, int n) {
    for (int run = 0; run < n; ++run) {
        if (i >= runs[4 * run] && i - runs[4 * run] < runs[4 * run + 1]) return run;
    }
    return -1;
}

// The bound of a run: its two halves, followed by how many are still wanted among the ranks that begin like it.
__device__ inline unsigned long long bound_of(const int* bounds, int run) {
    return ((unsigned long long)(unsigned)bounds[3 * run] << 32) | (unsigned)bounds[3 * run + 1];
}

// A step of radix selection, for byte `digit` of the ranks, 0 being the highest: how often each of its values occurs in
// each run, among the ranks that begin like the run's bound. counts: [copies, n, 256], which start as zeros; the copies
// keep threads out of each other's way.
KERNEL count_digits(int count, const float* x, const int* runs, int n, int order, int digit, int copies,
                    const int* bounds, int* counts) {
    FOR_EACH(i, count) {
        int run = run_of(i, runs, n);
        if (run < 0) continue;
        unsigned long long rank = rank_of(x[i], i - runs[4 * run], order);
        if (digit > 0 && ((rank ^ bound_of(bounds, run)) >> (64 - 8 * digit)) != 0) continue;
        int value = (int)(rank >> (56 - 8 * digit)) & 255;
        atomicAdd(counts + ((int)(i % copies) * n + run) * 256 + value, 1);
    }
}

// next: the bounds with the value of the digit at which the wanted number is reached. One thread a run and value.
KERNEL choose_digit(int count, const int* counts, int n, int digit, int copies, const int* bounds, int* next) {
    FOR_EACH(i, count) {
        int run = i / 256, value = i % 256, before = 0, own = 0;
        if (bounds[3 * run + 2] == 0) {
            if (value < 3) next[3 * run + value] = 0;
            continue;
        }
        for (int copy = 0; copy < copies; ++copy) {
            const int* of_run = counts + (copy * n + run) * 256;
            for (int k = 0; k < value; ++k) before += of_run[k];
            own += of_run[value];
        }
        int wanted = bounds[3 * run + 2];
        if (wanted <= before || wanted > before + own) continue;
        unsigned long long bound = bound_of(bounds, run) | ((unsigned long long)value << (56 - 8 * digit));
        next[3 * run] = (int)(unsigned)(bound >> 32);
        next[3 * run + 1] = (int)(unsigned)bound;
        next[3 * run + 2] = wanted - before;
    }
}

// found[run] counts the elements of rank up to the run's bound; behind all counts stand place in the run and bits of
// each, in no order.
KERNEL take_best(int count, const float* x, const int* runs, int n, int order, const int* bounds, int* found) {
    FOR_EACH(i, count) {
        int run = run_of(i, runs, n);
        if (run < 0) continue;
        int place = i - runs[4 * run];
        if (rank_of(x[i], place, order) > bound_of(bounds, run)) continue;
        int slot = runs[4 * run + 3] + atomicAdd(found + run, 1);
        found[n + 2 * slot] = place;
        found[n + 2 * slot + 1] = __float_as_int(x[i]);
    }
}

KERNEL fill_rows(int count, const int* rows, int width, float value, float* y) {
    FOR_EACH(i, count) y[rows[i / width] * width + i % width] = value;
}
