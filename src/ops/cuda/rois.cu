// RoIs of training: candidates, the sample of them, what each learns, where its head moves it, and its piece of a mask.
// Candidates have room for the same number in each image; corners that are no numbers stand for nobody.

__device__ inline void put(const float* box, float* y) {
    for (int k = 0; k < 4; ++k) y[k] = box ? box[k] : NOT_A_NUMBER;
}

// Candidate `place` behind the others of an image: its object of that number, if that has an area.
__device__ inline void put_object(const float* objects, const int* starts, int image, int place, float* y) {
    const float* own = objects + 4 * (starts[image] + place);
    bool there = place < starts[image + 1] - starts[image] && is_finite(own) && own[2] > own[0] && own[3] > own[1];
    put(there ? own : nullptr, y);
}

// Proposals as take_kept lists them, `most` an image, and the objects behind them where there is room for more.
// origins: the proposal, or -1 for an object.
KERNEL proposed_candidates(int count, const int* rows, int most, int room, const float* objects, const int* starts,
                           float* boxes, int* origins) {
    FOR_EACH(i, count) {
        int image = i / room, place = i % room;
        const int* own = rows + image * (1 + 6 * most);
        if (place >= most) {
            put_object(objects, starts, image, place - most, boxes + 4 * i);
        } else {
            for (int k = 0; k < 4; ++k) {
                boxes[4 * i + k] = place < own[0] ? __int_as_float(own[1 + 6 * place + k]) : NOT_A_NUMBER;
            }
        }
        origins[i] = place < most ? place : -1;
    }
}

// The same from the boxes that a head moved the RoIs of images to, of which `firsts` says where they begin. What was an
// object goes if `drop` says so.
KERNEL refined_candidates(int count, const float* refined, const int* rows, const int* firsts, int most, int drop,
                          int room, const float* objects, const int* starts, float* boxes, int* origins) {
    FOR_EACH(i, count) {
        int image = i / room, place = i % room, row = firsts[image] + place;
        if (place >= most) {
            put_object(objects, starts, image, place - most, boxes + 4 * i);
        } else {
            bool there = row < firsts[image + 1] && !(drop && rows[4 * row + 1] == -1);
            put(there ? refined + 4 * row : nullptr, boxes + 4 * i);
        }
        origins[i] = place < most ? place : -1;
    }
}

// How many drawn candidates of each image are positive, negative, and positive with a mask; masks says where the runs
// of each object's begin. sizes start as zeros.
KERNEL sampled_sizes(int count, const int* drawn, const int* masks, int room, int* sizes) {
    FOR_EACH(i, count) {
        int target = drawn[i], *own = sizes + 3 * (i / room);
        if (target >= -1) atomicAdd(own + (target < 0), 1);
        if (target >= 0 && masks[target + 1] > masks[target]) atomicAdd(own + 2, 1);
    }
}

// The drawn candidates: image by image, positives first, each kind in order. rows: object or -1, origin, and number among
// all positives and among all positives with a mask, -1 for none.
KERNEL list_sampled(int count, const float* boxes, const int* origins, const int* drawn, const int* masks,
                    const int* sizes, int room, float* chosen, int* images, int* rows) {
    FOR_EACH(i, count) {
        if (drawn[i] < -1) continue;
        int image = i / room, row = 0, positive = 0, masked = 0;
        bool learns = drawn[i] >= 0, has_mask = learns && masks[drawn[i] + 1] > masks[drawn[i]];
        for (int k = 0; k < image; ++k) {
            row += sizes[3 * k] + sizes[3 * k + 1];
            positive += sizes[3 * k];
            masked += sizes[3 * k + 2];
        }
        for (int k = image * room; k < (int)i; ++k) {
            if (drawn[k] < -1 || (drawn[k] >= 0) != learns) continue;
            ++row;
            if (!learns) continue;
            ++positive;
            masked += masks[drawn[k] + 1] > masks[drawn[k]];
        }
        if (!learns) row += sizes[3 * image];
        put(boxes + 4 * i, chosen + 4 * row);
        images[row] = image;
        rows[4 * row] = drawn[i];
        rows[4 * row + 1] = origins[i];
        rows[4 * row + 2] = learns ? positive : -1;
        rows[4 * row + 3] = has_mask ? masked : -1;
    }
}

// The level that each box reads; rule 0 adds epsilon to the logarithm, rule 1 to the ratio of the sides.
KERNEL roi_levels(int count, const float* boxes, int rule, int most, float canonical, float epsilon, int* levels) {
    FOR_EACH(i, count) {
        const float* own = boxes + 4 * i;
        float side = sqrtf((own[2] - own[0]) * (own[3] - own[1]));
        float level = rule == 0 ? floorf(4.0f + log2f(side / canonical) + epsilon) - 2.0f
                                : floorf(log2f(side / (canonical / 4.0f) + epsilon));
        levels[i] = level >= 0.0f ? (int)fminf(level, (float)most) : 0;
    }
}

// Every RoI's column among `background` and classes from `first` on; of each positive its row among `regressed` boxes a
// RoI, of which `agnostic` is one for all classes, and its code.
KERNEL roi_targets(int count, const float* boxes, const int* rows, const float* objects, const int* classes, int first,
                   int background, int agnostic, int regressed, float of_x, float of_y, float of_width,
                   float of_height, int* columns, int* places, float* codes) {
    FOR_EACH(i, count) {
        int target = rows[4 * i], positive = rows[4 * i + 2], column = target < 0 ? background : classes[target] + first;
        columns[i] = column;
        if (positive < 0) continue;
        places[positive] = i * regressed + (agnostic ? 0 : column);
        Deviations std = {{of_x, of_y, of_width, of_height}};
        encode(boxes + 4 * i, objects + 4 * target, std, 0.0f, codes + 4 * positive);
    }
}

// Where a head moves each RoI as an object of its class, or for background of the likeliest one, cut to the picture; it
// stays where the answer is not finite.
KERNEL refine_rois(int count, const float* boxes, const int* images, const int* rows, const int* object_classes,
                   const float* logits, int columns, int first, int classes, const float* codes, int agnostic,
                   int regressed, const float* sizes, float of_x, float of_y, float of_width, float of_height,
                   float most, float* y) {
    FOR_EACH(i, count) {
        int target = rows[4 * i], best = 0;
        const float* own = logits + i * columns + first;
        for (int k = 1; k < classes; ++k) best = own[k] > own[best] ? k : best;
        int place = agnostic ? 0 : (target < 0 ? best : object_classes[target]) + first;
        Deviations std = {{of_x, of_y, of_width, of_height}};
        float moved[4];
        decode(boxes + 4 * i, codes + 4 * (i * regressed + place), std, most, moved);
        bool sound = is_finite(moved);
        if (sound) clip(sizes + 2 * images[i], moved);
        put(sound ? moved : boxes + 4 * i, y + 4 * i);
    }
}

// The positives with a mask: box, image and object, and the row of their class among `channels` of each.
KERNEL masked_rois(int count, const float* boxes, const int* images, const int* rows, const int* classes, int first,
                   int channels, float* chosen, int* chosen_images, int* objects, int* places) {
    FOR_EACH(i, count) {
        int target = rows[4 * i], masked = rows[4 * i + 3];
        if (masked < 0) continue;
        put(boxes + 4 * i, chosen + 4 * masked);
        chosen_images[masked] = images[i];
        objects[masked] = target;
        places[masked] = masked * channels + classes[target] + first;
    }
}

// Pixels `place` and `place` + `step` of a mask, down its columns, weighted: the number of the run that a pixel lies in is
// odd inside the object.
__device__ inline float inside(const int* ends, int runs, int place, int step, float weight, float of_next) {
    int low = 0, high = runs;
    while (low < high) {
        int middle = (low + high) / 2;
        if (ends[middle] > place) high = middle;
        else low = middle + 1;
    }
    float sum = (low & 1) ? weight : 0.0f;
    while (low < runs && ends[low] <= place + step) ++low;
    return sum + ((low & 1) ? of_next : 0.0f);
}

// Each RoI's piece of its object's mask by RoIAlign, side * side cells; if `majority` by the shifted one, and 1 from a half on. ends:
// where the runs of all masks end, those of an object from masks[object] on; extents: their heights and widths.
KERNEL mask_targets(int count, const float* boxes, const int* objects, const int* masks, const int* ends,
                    const int* extents, int side, int majority, float* y) {
    FOR_EACH(i, count) {
        int roi = i / (side * side), object = objects[roi];
        const float* box = boxes + 4 * roi;
        int h = extents[2 * object], w = extents[2 * object + 1], runs = masks[object + 1] - masks[object];
        const int* own = ends + masks[object];
        Samples rows = samples_of(region_of(box[1], box[3], 1.0f, side, 0, majority), i / side % side, h);
        Samples columns = samples_of(region_of(box[0], box[2], 1.0f, side, 0, majority), i % side, w);
        Cells row, column;
        float sum = 0.0f;
        for (long long j = rows.first; j < rows.end; ++j) {
            if (!cells_of(rows, j, h, &row)) continue;
            for (long long k = columns.first; k < columns.end; ++k) {
                if (!cells_of(columns, k, w, &column)) continue;
                int left = column.low * h + row.low, right = column.high * h + row.low, step = row.high - row.low;
                sum += column.of_low * inside(own, runs, left, step, row.of_low, row.of_high);
                if (column.of_high > 0.0f) {
                    sum += column.of_high * inside(own, runs, right, step, row.of_low, row.of_high);
                }
            }
        }
        y[i] = majority ? (sum >= 0.5f ? 1.0f : 0.0f) : sum;
    }
}
