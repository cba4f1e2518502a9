// The balanced sampler: of every row a random key, and of each kind the rows of lowest key.

// A bijection that mixes all bits (the finalizer of MurmurHash3).
__device__ inline unsigned mixed(unsigned z) {
    z = (z ^ (z >> 16)) * 0x85ebca6bu;
    z = (z ^ (z >> 13)) * 0xc2b2ae35u;
    return z ^ (z >> 16);
}

// Adds to two words what follows from the last `own` numbers of each image, in any order.
KERNEL digest(int count, const float* x, int per_image, int own, int* words) {
    FOR_EACH(i, count) {
        unsigned bits = (unsigned)__float_as_int(x[i / own * per_image + per_image - own + i % own]);
        unsigned word = mixed(bits ^ mixed(i));
        atomicAdd(words, (int)word);
        atomicAdd(words + 1, (int)mixed(word ^ 0x9e3779b9u));
    }
}

// Keys for positives and, behind all of those, for negatives, no two of which are the same; all ones where a row is not
// of the kind. The counts of each image's positives start as zeros.
KERNEL sample_keys(int count, const int* targets, const int* words, int first_salt, int second_salt, int per_image,
                   float* keys, int* counts) {
    FOR_EACH(i, count) {
        unsigned key = mixed(i ^ mixed((unsigned)words[0] ^ (unsigned)first_salt));
        key = mixed(key + mixed((unsigned)words[1] ^ (unsigned)second_salt));
        for (int kind = 0; kind < 2; ++kind) {
            bool own = kind == 0 ? targets[i] >= 0 : targets[i] == -1;
            keys[kind * count + i] = __int_as_float(own ? (int)key : -1);
        }
        if (targets[i] >= 0) atomicAdd(counts + i / per_image, 1);
    }
}

// Where the radix selection of each image's positives and, behind all of those, negatives begins. Where there are fewer
// negatives than are wanted, rows of no kind follow them.
KERNEL sample_sizes(int count, const int* counts, int most, int most_positive, int* wanted) {
    FOR_EACH(image, count) {
        int positives = min(counts[image], most_positive), negatives = most - positives;
        for (int kind = 0; kind < 2; ++kind) {
            int* own = wanted + 3 * (kind * count + image);
            own[0] = own[1] = 0;
            own[2] = kind == 0 ? positives : negatives;
        }
    }
}

// What the drawn rows learn, and -2 for all others. sizes, how many there are of each image, start as zeros.
KERNEL draw(int count, const float* keys, const int* targets, const int* wanted, const int* bounds, int per_image,
            int* drawn, int* sizes) {
    FOR_EACH(i, count) {
        int images = count / per_image, kind = targets[i] >= 0 ? 0 : 1, run = kind * images + i / per_image;
        bool chosen = targets[i] >= -1 && wanted[3 * run + 2] > 0 &&
                      rank_of(keys[kind * count + i], 0, 2) <= bound_of(bounds, run);
        drawn[i] = chosen ? targets[i] : -2;
        if (chosen) atomicAdd(sizes + i / per_image, 1);
    }
}
