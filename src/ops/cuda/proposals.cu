// From the answers about anchors to proposals. Candidates are `room` an image: the best of each of its runs.

// The box and the rank of every candidate; where it is no proper box of at least `least` pixels, the rank is all ones.
// found: as take_best leaves it, behind one count for each of the `runs`. levels: the number of a candidate's run.
KERNEL candidates(int count, const int* found, const int* runs, int images, int of_image, int room,
                  const float* anchors, const float* codes, const float* sizes, int anchors_of_image, float most,
                  float least, float* boxes, int* levels, int* ranks, int* counts) {
    FOR_EACH(i, count) {
        int image = i / room, first = image * of_image, level = 0;
        while (level + 1 < of_image && runs[4 * (first + level + 1) + 3] <= (int)i) ++level;
        const int* pair = found + images * of_image + 2 * i;
        int anchor = runs[4 * (first + level)] - image * anchors_of_image + pair[0];
        const float *from = anchors + 4 * anchor, *code = codes + 4 * (image * anchors_of_image + anchor);
        float* box = boxes + 4 * i;
        decode(from, code, Deviations{{1.0f, 1.0f, 1.0f, 1.0f}}, most, box);
        bool proper = is_finite(box);
        clip(sizes + 2 * image, box);
        float shorter = fminf(box[2] - box[0], box[3] - box[1]), logit = __int_as_float(pair[1]);
        proper = proper && shorter > 0.0f && shorter >= least && logit == logit;
        unsigned long long rank = proper ? rank_of(logit, anchor, 0) : ~0ull;
        levels[i] = level;
        ranks[2 * i] = (int)(unsigned)(rank >> 32);
        ranks[2 * i + 1] = (int)(unsigned)rank;
        if (proper) atomicAdd(counts + image, 1);
    }
}

// The candidates that are proper, those of each image by rank.
KERNEL sort_candidates(int count, const float* boxes, const int* levels, const int* ranks, int room, float* sorted_boxes,
                       int* sorted_levels, int* sorted_ranks) {
    FOR_EACH(i, count) {
        int first = i / room * room, place = first;
        unsigned high = (unsigned)ranks[2 * i], low = (unsigned)ranks[2 * i + 1];
        if (high == ~0u && low == ~0u) continue;
        for (int k = first; k < first + room; ++k) {
            unsigned other = (unsigned)ranks[2 * k];
            place += other < high || (other == high && (unsigned)ranks[2 * k + 1] < low);
        }
        for (int k = 0; k < 4; ++k) sorted_boxes[4 * place + k] = boxes[4 * i + k];
        for (int k = 0; k < 2; ++k) sorted_ranks[2 * place + k] = ranks[2 * i + k];
        sorted_levels[place] = levels[i];
    }
}

// The boxes that suppression keeps, at most `most` of an image and first how many: corners, and both halves of the rank.
KERNEL take_kept(int count, const int* kept, const float* boxes, const int* ranks, int room, int most, int* rows) {
    FOR_EACH(i, count) {
        int image = i / most, place = i % most;
        const int* own = kept + image * (1 + most);
        int* to = rows + image * (1 + 6 * most);
        if (place == 0) to[0] = own[0];
        if (place >= own[0]) continue;
        int from = image * room + own[1 + place];
        for (int k = 0; k < 4; ++k) to[1 + 6 * place + k] = __float_as_int(boxes[4 * from + k]);
        for (int k = 0; k < 2; ++k) to[5 + 6 * place + k] = ranks[2 * from + k];
    }
}
