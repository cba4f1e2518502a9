// What every kernel of this folder relies on. The files are joined into one program, this one first.
//
// A kernel's first parameter is the number of elements it works on. FOR_EACH hands them out to whatever grid it runs
// in: no kernel needs shared memory or a barrier, so one thread alone gives the same result. Indices have 32 bits.

#define KERNEL extern "C" __global__ void
#define FOR_EACH(i, count)                                                                                     \
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < (unsigned)(count); i += gridDim.x * blockDim.x)

// NVRTC has no header that names these two.
#define NOT_A_NUMBER __int_as_float(0x7fc00000)
#define INFINITE __int_as_float(0x7f800000)

__device__ inline float sigmoid_of(float x) {
    float e = expf(-fabsf(x));
    return x >= 0.0f ? 1.0f / (1.0f + e) : e / (1.0f + e);
}

// ln(1 + e^x) without overflow.
__device__ inline float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

// totals[i] is the sum of the `lanes` partial sums of row i, in their order.
KERNEL sum_lanes(int count, const double* parts, int lanes, float* totals) {
    FOR_EACH(i, count) {
        double sum = 0.0;
        for (int lane = 0; lane < lanes; ++lane) sum += parts[i * lanes + lane];
        totals[i] = (float)sum;
    }
}

// Sums of every channel of [n, channels, inner], in `lanes` interleaved parts; total is n * inner.
KERNEL channel_sums(int count, const float* x, int channels, int inner, int total, int lanes, double* parts) {
    FOR_EACH(i, count) {
        int channel = i / lanes;
        double sum = 0.0;
        for (int k = i % lanes; k < total; k += lanes) sum += x[(k / inner * channels + channel) * inner + k % inner];
        parts[i] = sum;
    }
}

// slope is 1 for no activation, 0 for relu, else that of the leaky one.
__device__ inline float bent(float v, float decides, float slope) {
    return decides <= 0.0f ? (slope == 0.0f ? 0.0f : slope * v) : v;
}
