// SSD's matching, coding and mining. Priors are one image's for all, or each image's own.

// For every object its first best prior, as the number of priors behind it, its own included; 0 where none overlaps it.
// first starts as zeros.
KERNEL first_peaks(int count, const float* priors, int shared, int per_image, const float* objects, const int* starts,
                   const int* peaks, int* first) {
    FOR_EACH(i, count) {
        int image = i / per_image, prior = i % per_image;
        const float* own = priors + 4 * (shared ? prior : (int)i);
        for (int k = starts[image]; k < starts[image + 1]; ++k) {
            int bits = __float_as_int(overlap_of(objects + 4 * k, own));
            if (bits > 0 && bits == peaks[k]) atomicMax(first + k, per_image - prior);
        }
    }
}

// The variances of centres and of sides.
__device__ inline Deviations variances() { return Deviations{{0.1f, 0.1f, 0.2f, 0.2f}}; }

KERNEL decode_priors(int count, const float* priors, int per_image, const float* codes, float* boxes) {
    FOR_EACH(i, count) decode(priors + 4 * (i % per_image), codes + 4 * i, variances(), INFINITE, boxes + 4 * i);
}

// What every prior learns: a column, a code, and in states 1 for a positive, 0 for a negative that may be mined and -1
// for one that may not. positives counts those of each image and starts as zeros. filter 0: none; 1 drops negatives, 2
// positives, whose objectness is below `least`.
KERNEL prior_targets(int count, const float* priors, int shared, int per_image, const float* objects,
                     const int* classes, const int* starts, const float* iou, const int* best, const int* first,
                     const float* objectness, int filter, int binary, float least, float positive, float epsilon,
                     int* labels, float* codes, int* states, int* positives) {
    FOR_EACH(i, count) {
        int image = i / per_image, prior = i % per_image;
        int target = starts[image] < starts[image + 1] && iou[i] >= positive ? best[i] : -1;
        for (int k = starts[image]; k < starts[image + 1]; ++k) {
            if (first[k] == per_image - prior) target = k;
        }
        bool concerned = filter == 1 ? target < 0 : filter == 2 && target >= 0;
        bool dropped = concerned && objectness[i] < least, learns = target >= 0 && !dropped;
        labels[i] = target < 0 ? 0 : binary ? 1 : classes[target] + 1;
        states[i] = learns ? 1 : dropped && target < 0 ? -1 : 0;
        for (int k = 0; k < 4; ++k) codes[4 * i + k] = 0.0f;
        if (!learns) continue;
        const float* own = priors + 4 * (shared ? prior : (int)i);
        encode(own, objects + 4 * target, variances(), epsilon, codes + 4 * i);
        atomicAdd(positives + image, 1);
    }
}

KERNEL hardness(int count, const float* loss, const int* states, float* y) {
    FOR_EACH(i, count) y[i] = states[i] == 0 ? loss[i] : -INFINITE;
}

// Where the radix selection of each image's hardest negatives begins.
KERNEL wanted_negatives(int count, const int* positives, int most, float ratio, int* bounds) {
    FOR_EACH(i, count) {
        double wanted = (double)ratio * positives[i];
        bounds[3 * i] = bounds[3 * i + 1] = 0;
        bounds[3 * i + 2] = wanted >= most ? most : wanted > 0.0 ? (int)wanted : 0;
    }
}

// The weight of every row in the loss of classes and, four times, of boxes.
KERNEL row_weights(int count, const float* hard, const int* states, const int* positives, int images, int per_image,
                   const int* wanted, const int* bounds, float of_boxes, float* weights, float* box_weights) {
    FOR_EACH(i, count) {
        int image = i / per_image, total = 0;
        for (int k = 0; k < images; ++k) total += positives[k];
        float share = 1.0f / (float)max(total, 1);
        bool mined = states[i] == 0 && wanted[3 * image + 2] > 0 && hard[i] != -INFINITE &&
                     rank_of(hard[i], i % per_image, 1) <= bound_of(bounds, image);
        weights[i] = states[i] == 1 || mined ? share : 0.0f;
        for (int k = 0; k < 4; ++k) box_weights[4 * i + k] = states[i] == 1 ? of_boxes * share : 0.0f;
    }
}
