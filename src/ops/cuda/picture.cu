// A network's input [3, h, w] from a picture of 8-bit pixels, three channels in a row: one thread a pixel of the input.
//
// table holds, for each plane, its channel and the bits of mean, factor and padding; then for each of `rows` rows of the
// content two rows of the picture and the bits of the second one's weight; then the same for its `columns` columns.

__device__ inline float mix(float a, float b, float weight) { return a + (b - a) * weight; }

KERNEL picture_input(int count, const unsigned char* pixels, const int* table, int width, int w, int left, int top,
                     int columns, int rows, float* y) {
    FOR_EACH(i, count) {
        int column = (int)(i % w) - left, row = (int)(i / w) - top;
        bool inside = column >= 0 && column < columns && row >= 0 && row < rows;
        const int *down = table + 12 + 3 * row, *across = table + 12 + 3 * (rows + column);
        for (int plane = 0; plane < 3; ++plane) {
            const int* colour = table + 4 * plane;
            float value = __int_as_float(colour[3]);
            if (inside) {
                const unsigned char *upper = pixels + (size_t)down[0] * width * 3 + colour[0],
                                    *lower = pixels + (size_t)down[1] * width * 3 + colour[0];
                float weight = __int_as_float(down[2]);
                float low = mix(upper[3 * across[0]], lower[3 * across[0]], weight);
                float high = mix(upper[3 * across[1]], lower[3 * across[1]], weight);
                float mixed = mix(low, high, __int_as_float(across[2]));
                value = (mixed - __int_as_float(colour[1])) * __int_as_float(colour[2]);
            }
            y[(size_t)plane * count + i] = value;
        }
    }
}

// How many rows and columns of each image [planes, h, w] end with its last pixel that is not zero in some plane. extents
// start as zeros; from the end on, few pixels enlarge them.
KERNEL picture_extents(int count, const float* images, int planes, int h, int w, int* extents) {
    FOR_EACH(i, count) {
        int image = i / (h * w), place = h * w - 1 - i % (h * w), sides[2] = {place / w + 1, place % w + 1};
        const float* own = images + image * planes * h * w + place;
        bool coloured = false;
        for (int plane = 0; plane < planes; ++plane) coloured = coloured || own[plane * h * w] != 0.0f;
        for (int k = 0; k < 2 && coloured; ++k) {
            if (sides[k] > *(volatile int*)(extents + 2 * image + k)) atomicMax(extents + 2 * image + k, sides[k]);
        }
    }
}

// The same as numbers; an image of zeros is picture all over.
KERNEL whole_extents(int count, const int* extents, int h, int w, float* sizes) {
    FOR_EACH(i, count) sizes[i] = (float)(extents[i] > 0 ? extents[i] : i % 2 == 0 ? h : w);
}
