// Maximum pooling: the maximum of every window and the place in its plane that it came from.

KERNEL max_pool(int count, const float* x, int h, int w, int oh, int ow, int kh, int kw, int sh, int sw, int ph, int pw,
                float* y, int* places) {
    FOR_EACH(i, count) {
        int ox = i % ow, oy = i / ow % oh;
        const float* plane = x + i / (oh * ow) * (h * w);
        int top = max(oy * sh - ph, 0), bottom = min(oy * sh - ph + kh, h);
        int left = max(ox * sw - pw, 0), right = min(ox * sw - pw + kw, w);
        int best = top * w + left;
        for (int row = top; row < bottom; ++row) {
            for (int column = left; column < right; ++column) {
                float value = plane[row * w + column];
                // The first of equals; NaN wins, as in PyTorch.
                if (value > plane[best] || value != value) best = row * w + column;
            }
        }
        y[i] = plane[best];
        places[i] = best;
    }
}

// One thread an input pixel: the sum over the windows whose maximum it is.
KERNEL max_pool_gradient(int count, const float* g, const int* places, int h, int w, int oh, int ow, int kh, int kw,
                         int sh, int sw, int ph, int pw, float* gx) {
    FOR_EACH(i, count) {
        int place = i % (h * w), row = place / w, column = place % w;
        unsigned plane = i / (h * w) * (oh * ow);
        int first_y = row + ph - kh < 0 ? 0 : (row + ph - kh) / sh + 1, last_y = min((row + ph) / sh, oh - 1);
        int first_x = column + pw - kw < 0 ? 0 : (column + pw - kw) / sw + 1, last_x = min((column + pw) / sw, ow - 1);
        float sum = 0.0f;
        for (int oy = first_y; oy <= last_y; ++oy) {
            for (int ox = first_x; ox <= last_x; ++ox) {
                unsigned at = plane + oy * ow + ox;
                if (places[at] == place) sum += g[at];
            }
        }
        gx[i] = sum;
    }
}
