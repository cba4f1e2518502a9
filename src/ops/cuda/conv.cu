// Convolution without a library, one thread a result: for any stride, padding, dilation and groups. With cuDNN only
// the last three serve. ins and outs are the channels of one group.

#define CONV_SIZES                                                                                                 \
    int groups, int ins, int outs, int h, int w, int kh, int kw, int oh, int ow, int sh, int sw, int ph, int pw,   \
        int dh, int dw

KERNEL conv(int count, const float* x, const float* weight, CONV_SIZES, float* y) {
    FOR_EACH(i, count) {
        int ox = i % ow, oy = i / ow % oh, out = i / (oh * ow) % (groups * outs), image = i / (oh * ow * groups * outs);
        const float* from = x + (unsigned)((image * groups + out / outs) * ins) * (h * w);
        const float* kernel = weight + out * ins * kh * kw;
        float sum = 0.0f;
        for (int in = 0; in < ins; ++in) {
            for (int ky = 0; ky < kh; ++ky) {
                int row = oy * sh - ph + ky * dh;
                if (row < 0 || row >= h) continue;
                for (int kx = 0; kx < kw; ++kx) {
                    int column = ox * sw - pw + kx * dw;
                    if (column < 0 || column >= w) continue;
                    sum = fmaf(from[(in * h + row) * w + column], kernel[(in * kh + ky) * kw + kx], sum);
                }
            }
        }
        y[i] = sum;
    }
}

KERNEL conv_input_gradient(int count, const float* g, const float* weight, CONV_SIZES, float* gx) {
    FOR_EACH(i, count) {
        int column = i % w, row = i / w % h, channel = i / (h * w) % (groups * ins), image = i / (h * w * groups * ins);
        int group = channel / ins, in = channel % ins;
        float sum = 0.0f;
        for (int ky = 0; ky < kh; ++ky) {
            int down = row + ph - ky * dh, oy = down / sh;
            if (down < 0 || down % sh != 0 || oy >= oh) continue;
            for (int kx = 0; kx < kw; ++kx) {
                int across = column + pw - kx * dw, ox = across / sw;
                if (across < 0 || across % sw != 0 || ox >= ow) continue;
                for (int k = 0; k < outs; ++k) {
                    int out = group * outs + k;
                    float gradient = g[(unsigned)((image * groups * outs + out) * oh + oy) * ow + ox];
                    sum = fmaf(gradient, weight[((out * ins + in) * kh + ky) * kw + kx], sum);
                }
            }
        }
        gx[i] = sum;
    }
}

// In `lanes` interleaved parts of the n * oh * ow output pixels.
KERNEL conv_weight_gradient(int count, const float* x, const float* g, CONV_SIZES, int n, int lanes, double* parts) {
    FOR_EACH(i, count) {
        int tap = i / lanes, kx = tap % kw, ky = tap / kw % kh, in = tap / (kh * kw) % ins, out = tap / (kh * kw * ins);
        int group = out / outs;
        double sum = 0.0;
        for (int k = i % lanes; k < n * oh * ow; k += lanes) {
            int ox = k % ow, oy = k / ow % oh, image = k / (oh * ow);
            int row = oy * sh - ph + ky * dh, column = ox * sw - pw + kx * dw;
            if (row < 0 || row >= h || column < 0 || column >= w) continue;
            float gradient = g[(unsigned)((image * groups * outs + out) * oh + oy) * ow + ox];
            float value = x[(unsigned)(((image * groups + group) * ins + in) * h + row) * w + column];
            sum += (double)gradient * value;
        }
        parts[i] = sum;
    }
}

// To the nearest number with 10 bits of mantissa, of two as near the one farther from zero; what is not finite stays.
KERNEL round_tf32(int count, const int* x, float* y) {
    FOR_EACH(i, count) y[i] = __int_as_float((x[i] & 0x7f800000) == 0x7f800000 ? x[i] : (x[i] + 0x1000) & ~0x1fff);
}

// y becomes the activation of y + bias, in place.
KERNEL bias_activation(int count, float* y, const float* bias, int channels, int inner, float slope) {
    FOR_EACH(i, count) {
        float v = y[i] + bias[i / inner % channels];
        y[i] = bent(v, v, slope);
    }
}

KERNEL plain_activation(int count, float* y, float slope) {
    FOR_EACH(i, count) y[i] = bent(y[i], y[i], slope);
}

// The gradient before the activation, from its result y.
KERNEL before_activation(int count, const float* y, const float* g, float slope, float* before) {
    FOR_EACH(i, count) before[i] = bent(g[i], y[i], slope);
}
