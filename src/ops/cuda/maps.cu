// Maps put together.

KERNEL add(int count, const float* a, const float* b, float slope, float* y) {
    FOR_EACH(i, count) {
        float sum = a[i] + b[i];
        y[i] = bent(sum, sum, slope);
    }
}

// y [..., columns, rows] from x [..., rows, columns].
KERNEL transpose(int count, const float* x, int rows, int columns, float* y) {
    FOR_EACH(i, count) {
        int row = i % rows, column = i / rows % columns, matrix = i / rows / columns;
        y[i] = x[(matrix * rows + row) * columns + column];
    }
}
