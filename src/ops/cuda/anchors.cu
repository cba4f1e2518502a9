// What anchors learn and with which weights, from their objects: -1 for background, -2 for nothing.

KERNEL count_positives(int count, const int* targets, int per_image, int* positives) {
    FOR_EACH(i, count) {
        if (targets[i] >= 0) atomicAdd(positives + i / per_image, 1);
    }
}

// What divides each image's sum, inverted; `rule` as cuda/anchors.rs numbers them.
KERNEL loss_shares(int count, const int* numbers, int rule, float* shares) {
    FOR_EACH(image, count) {
        int all = 0, at_least_one = 0;
        for (int k = 0; k < count; ++k) {
            all += numbers[k];
            at_least_one += max(numbers[k], 1);
        }
        float divisor = rule == 0 ? (float)(max(numbers[image], 1) * count) : (float)(rule == 1 ? max(all, 1) : at_least_one);
        shares[image] = 1.0f / divisor;
    }
}

// Ones where a row's object has its column, which is that of its class behind the `first` or, if `binary`, column 0 for
// all; and the weight of every element.
KERNEL class_targets(int count, const int* targets, const int* classes, const float* shares, int per_image,
                     int columns, int first, int binary, float* ones, float* weights) {
    FOR_EACH(i, count) {
        int row = i / columns, target = targets[row];
        bool own = target >= 0 && (binary ? 0 : classes[target] + first) == (int)(i % columns);
        ones[i] = own ? 1.0f : 0.0f;
        weights[i] = target == -2 ? 0.0f : shares[row / per_image];
    }
}

// The code of every row's object, zeros without one, and the weights of its four numbers.
KERNEL code_targets(int count, const int* targets, const float* anchors, const float* objects, const float* shares,
                    int per_image, float weight, float of_x, float of_y, float of_width, float of_height, float* codes,
                    float* weights) {
    FOR_EACH(i, count) {
        bool learns = targets[i] >= 0;
        for (int k = 0; k < 4; ++k) {
            codes[4 * i + k] = 0.0f;
            weights[4 * i + k] = learns ? weight * shares[i / per_image] : 0.0f;
        }
        Deviations std = {{of_x, of_y, of_width, of_height}};
        if (learns) encode(anchors + 4 * (i % per_image), objects + 4 * targets[i], std, 0.0f, codes + 4 * i);
    }
}

// The box of every row's object, its anchor without one, and the weight of the row.
KERNEL box_targets(int count, const int* targets, const float* anchors, const float* objects, const float* shares,
                   int per_image, float weight, float* boxes, float* weights) {
    FOR_EACH(i, count) {
        bool learns = targets[i] >= 0;
        const float* box = learns ? objects + 4 * targets[i] : anchors + 4 * (i % per_image);
        for (int k = 0; k < 4; ++k) boxes[4 * i + k] = box[k];
        weights[i] = learns ? weight * shares[i / per_image] : 0.0f;
    }
}
