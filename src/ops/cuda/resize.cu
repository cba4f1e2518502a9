// Separable resampling: every output is a weighted sum of rows of weighted sums across.
//
// axes holds where the taps of each of the h output rows start and where the last ends, the same for the w columns,
// and then the taps as pairs (source, bits of the weight). Starts count from the beginning of axes.

KERNEL resample(int count, const float* x, const int* axes, int height, int width, int h, int w, float* y) {
    FOR_EACH(i, count) {
        int column = i % w, row = i / w % h;
        const float* plane = x + i / (h * w) * (height * width);
        const int *rows = axes + row, *columns = axes + h + 1 + column;
        float sum = 0.0f;
        for (int r = rows[0]; r < rows[1]; r += 2) {
            const float* line = plane + axes[r] * width;
            float across = 0.0f;
            for (int c = columns[0]; c < columns[1]; c += 2) across += __int_as_float(axes[c + 1]) * line[axes[c]];
            sum += __int_as_float(axes[r + 1]) * across;
        }
        y[i] = sum;
    }
}
