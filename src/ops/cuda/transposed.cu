// The sum of the patches of a transposed convolution, and its gradient.
// Patches are [channels, kh, kw, n, h, w], maps [n, channels, oh, ow].

KERNEL fold(int count, const float* patches, const float* bias, int n, int channels, int kh, int kw, int h, int w,
            int oh, int ow, int stride, int padding, float* y) {
    FOR_EACH(i, count) {
        int ox = i % ow, oy = i / ow % oh, channel = i / (oh * ow) % channels, image = i / (oh * ow * channels);
        float sum = bias[channel];
        for (int ky = 0; ky < kh; ++ky) {
            int down = oy + padding - ky, row = down / stride;
            if (down < 0 || down % stride != 0 || row >= h) continue;
            for (int kx = 0; kx < kw; ++kx) {
                int across = ox + padding - kx, column = across / stride;
                if (across < 0 || across % stride != 0 || column >= w) continue;
                unsigned tap = ((channel * kh + ky) * kw + kx) * n + image;
                sum += patches[(tap * h + row) * w + column];
            }
        }
        y[i] = sum;
    }
}

KERNEL unfold(int count, const float* g, int n, int channels, int kh, int kw, int h, int w, int oh, int ow, int stride,
              int padding, float* patches) {
    FOR_EACH(i, count) {
        int column = i % w, row = i / w % h, image = i / (h * w) % n, tap = i / (h * w * n);
        int kx = tap % kw, ky = tap / kw % kh, channel = tap / (kh * kw);
        int oy = row * stride + ky - padding, ox = column * stride + kx - padding;
        bool inside = oy >= 0 && oy < oh && ox >= 0 && ox < ow;
        patches[i] = inside ? g[((image * channels + channel) * oh + oy) * ow + ox] : 0.0f;
    }
}
