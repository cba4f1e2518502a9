// Boxes against boxes: which of them suppression leaves, and which objects anchors overlap.

__device__ inline float side_of(float low, float high) {
    float length = high - low;
    return length < 0.0f ? 0.0f : length;
}

__device__ inline float shared_side(float a_low, float a_high, float b_low, float b_high) {
    float high = a_high < b_high ? a_high : b_high, low = a_low > b_low ? a_low : b_low, length = high - low;
    return length > 0.0f ? length : 0.0f;
}

// IoU of two boxes with the operations of geometry/iou.rs, whose bits it has.
__device__ inline float overlap_of(const float* a, const float* b) {
    float inter = shared_side(a[0], a[2], b[0], b[2]) * shared_side(a[1], a[3], b[1], b[3]);
    float a_area = side_of(a[0], a[2]) * side_of(a[1], a[3]), b_area = side_of(b[0], b[2]) * side_of(b[1], b[3]);
    float ratio = inter / (a_area + b_area - inter);
    return ratio > 0.0f ? ratio : 0.0f;
}

// Boxes are best first, `counts` of each image and room for `room`. Bit j % 32 of word j / 32 in row i of mask: whether
// box j is better than box i, of its image and class, and overlaps it by more than the threshold.
KERNEL overlaps(int count, const float* boxes, const int* classes, const int* counts, int room, int words,
                float threshold, int* mask) {
    FOR_EACH(k, count) {
        int i = k / words, image = i / room, first = image * room + k % words * 32;
        unsigned bits = 0;
        if (i - image * room < counts[image]) {
            for (int j = first; j < first + 32 && j < i; ++j) {
                bool over = classes[j] == classes[i] && overlap_of(boxes + 4 * j, boxes + 4 * i) > threshold;
                bits |= (unsigned)over << (j - first);
            }
        }
        mask[k] = (int)bits;
    }
}

// What becomes of box i of an image: 2 once a better one that overlaps it is kept, 1 once all those are removed, else 0.
__device__ inline int verdict_on(int i, const int* mask, int words, volatile const int* states) {
    int verdict = 1;
    for (int word = 0; word <= i / 32; ++word) {
        for (unsigned bits = (unsigned)mask[i * words + word]; bits != 0; bits &= bits - 1) {
            int better = states[32 * word + __ffs((int)bits) - 1];
            if (better == 1) return 2;
            if (better == 0) verdict = 0;
        }
    }
    return verdict;
}

// A round of greedy suppression over states 0 open, 1 kept, 2 removed. The best open box is settled in every round.
// Reading a state just before another thread settles it only postpones the answer.
KERNEL settle(int count, const int* mask, const int* counts, int room, int words, int* states) {
    FOR_EACH(i, count) {
        int image = i / room, first = image * room, own = i - first;
        if (own >= counts[image] || states[i] != 0) continue;
        states[i] = verdict_on(own, mask + first * words, words, states + first);
    }
}

// Settles the boxes of an image that are open, best first, and lists the first `most` that are kept behind their number.
KERNEL list_kept(int count, const int* mask, const int* counts, int room, int words, int most, int* states,
                 int* kept) {
    FOR_EACH(image, count) {
        int first = image * room, listed = 0, *list = kept + image * (1 + most);
        for (int i = 0; i < counts[image] && listed < most; ++i) {
            if (states[first + i] == 0) states[first + i] = verdict_on(i, mask + first * words, words, states + first);
            if (states[first + i] == 1) list[1 + listed++] = i;
        }
        list[0] = listed;
    }
}

// Each anchor's best object among those of its image, the first of equals, and its IoU; and the bits of each object's
// best IoU in peaks, which start as zeros. The bits of numbers that are not negative rise with them. Anchors are shared
// by all images or each image's own; starts are where each image's objects begin, and the end.
KERNEL best_objects(int count, const float* anchors, int shared, int per_image, const float* objects, const int* starts,
                    float* iou, int* best, int* peaks) {
    volatile int* now = peaks;
    FOR_EACH(i, count) {
        int image = i / per_image, object = starts[image];
        const float* own = anchors + 4 * (shared ? i % per_image : i);
        float highest = 0.0f;
        for (int k = starts[image]; k < starts[image + 1]; ++k) {
            float overlap = overlap_of(objects + 4 * k, own);
            if (overlap > highest) highest = overlap, object = k;
            if (__float_as_int(overlap) > now[k]) atomicMax(peaks + k, __float_as_int(overlap));
        }
        iou[i] = highest;
        best[i] = object;
    }
}

// Boxes [P, 4] for each of the images; corners that are no numbers, which overlap nothing, for those that cross its
// border. sizes: height and width of each image.
KERNEL inside_boxes(int count, const float* boxes, const float* sizes, int per_image, float* y) {
    FOR_EACH(i, count) {
        const float *own = boxes + 4 * (i % per_image), *size = sizes + 2 * (i / per_image);
        bool inside = own[0] >= 0.0f && own[1] >= 0.0f && own[2] < size[1] && own[3] < size[0];
        for (int k = 0; k < 4; ++k) y[4 * i + k] = inside ? own[k] : NOT_A_NUMBER;
    }
}

// Which object every anchor learns, -1 for background, -2 for none of both, as for corners that are no numbers. From an
// IoU of `least` on, an anchor that no other one beats for some object learns its own best one if `ties` says so.
KERNEL match_objects(int count, const float* anchors, int shared, int per_image, const float* objects,
                     const int* starts, const float* iou, const int* best, const int* peaks, float positive,
                     float negative, int ties, float least, int* targets) {
    FOR_EACH(i, count) {
        int image = i / per_image, first = starts[image], end = starts[image + 1];
        const float* own = anchors + 4 * (shared ? i % per_image : i);
        int target = first == end || iou[i] < negative ? -1 : iou[i] < positive ? -2 : best[i];
        for (int k = first; k < end && ties && target < 0 && iou[i] >= least; ++k) {
            int bits = __float_as_int(overlap_of(objects + 4 * k, own));
            if (bits > 0 && bits == peaks[k]) target = best[i];
        }
        targets[i] = own[0] == own[0] ? target : -2;
    }
}

// Deviations of a box code, as geometry/coder.rs has them.
struct Deviations {
    float of[4];
};

// The code of a box relative to another; epsilon is added to the quotients of the sides.
__device__ inline void encode(const float* from, const float* to, const Deviations& std, float epsilon, float* code) {
    for (int axis = 0; axis < 2; ++axis) {
        float side = from[axis + 2] - from[axis], own = to[axis + 2] - to[axis];
        float start = (from[axis] + from[axis + 2]) / 2.0f, center = (to[axis] + to[axis + 2]) / 2.0f;
        code[axis] = (center - start) / side / std.of[axis];
        code[axis + 2] = logf(own / side + epsilon) / std.of[axis + 2];
    }
}

// The box that a code means; logarithms of sides are at most `most`.
__device__ inline void decode(const float* from, const float* code, const Deviations& std, float most, float* box) {
    for (int axis = 0; axis < 2; ++axis) {
        float side = from[axis + 2] - from[axis], log = code[axis + 2] * std.of[axis + 2];
        float center = code[axis] * std.of[axis] * side + (from[axis] + from[axis + 2]) / 2.0f;
        float half = expf(log > most ? most : log) * side / 2.0f;
        box[axis] = center - half;
        box[axis + 2] = center + half;
    }
}

__device__ inline bool is_finite(const float* box) {
    return isfinite(box[0]) && isfinite(box[1]) && isfinite(box[2]) && isfinite(box[3]);
}

// Cuts a box to a picture of this height and width.
__device__ inline void clip(const float* size, float* box) {
    for (int k = 0; k < 4; ++k) box[k] = fminf(fmaxf(box[k], 0.0f), size[1 - k % 2]);
}
