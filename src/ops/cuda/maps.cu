// Maps put together.

KERNEL add(int count, const float* a, const float* b, float slope, float* y) {
    FOR_EACH(i, count) {
        float sum = a[i] + b[i];
        y[i] = bent(sum, sum, slope);
    }
}

// The 16 bits of a number: of f16, or else of bf16.
__device__ inline unsigned half_bits(float x, bool f16) {
    if (f16) {
        unsigned short bits;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
        return bits;
    }
    unsigned bits = (unsigned)__float_as_int(x);
    return x != x ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

__device__ inline float of_half_bits(unsigned bits, bool f16) {
    if (!f16) return __int_as_float((int)(bits << 16));
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"((unsigned short)bits));
    return x;
}

// Maps [n, 8 * blocks, pixels] as 16-bit numbers with the channels of a pixel side by side. One thread a pixel and block.
KERNEL to_channels_last(int count, const float* x, int blocks, int pixels, int f16, unsigned* y) {
    FOR_EACH(i, count) {
        int pixel = i % pixels, block = i / pixels % blocks, image = i / pixels / blocks;
        const float* from = x + (image * blocks + block) * 8 * pixels + pixel;
        unsigned packed[4];
        for (int k = 0; k < 4; ++k) {
            unsigned low = half_bits(from[2 * k * pixels], f16 != 0);
            packed[k] = low | half_bits(from[(2 * k + 1) * pixels], f16 != 0) << 16;
        }
        ((uint4*)y)[(image * pixels + pixel) * blocks + block] = make_uint4(packed[0], packed[1], packed[2], packed[3]);
    }
}

// The way back.
KERNEL from_channels_last(int count, const unsigned* x, int blocks, int pixels, int f16, float* y) {
    FOR_EACH(i, count) {
        int pixel = i % pixels, block = i / pixels % blocks, image = i / pixels / blocks;
        uint4 all = ((const uint4*)x)[(image * pixels + pixel) * blocks + block];
        unsigned packed[4] = {all.x, all.y, all.z, all.w};
        float* to = y + (image * blocks + block) * 8 * pixels + pixel;
        for (int k = 0; k < 4; ++k) {
            to[2 * k * pixels] = of_half_bits(packed[k] & 0xffffu, f16 != 0);
            to[(2 * k + 1) * pixels] = of_half_bits(packed[k] >> 16, f16 != 0);
        }
    }
}

// y [..., columns, rows] from x [..., rows, columns].
KERNEL transpose(int count, const float* x, int rows, int columns, float* y) {
    FOR_EACH(i, count) {
        int row = i % rows, column = i / rows % columns, matrix = i / rows / columns;
        y[i] = x[(matrix * rows + row) * columns + column];
    }
}

KERNEL take_rows(int count, const float* x, const int* index, int width, float* y) {
    FOR_EACH(i, count) y[i] = x[index[i / width] * width + i % width];
}

// Adds to gx, which starts as zeros; of a row that was taken twice in no fixed order.
KERNEL take_rows_gradient(int count, const float* g, const int* index, int width, float* gx) {
    FOR_EACH(i, count) atomicAdd(gx + index[i / width] * width + i % width, g[i]);
}
