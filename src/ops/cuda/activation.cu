// Activation functions and softmax; the formulas and their corners are those of ops/activation.rs.

// t = tanh(ln(1 + e^x)) and 1 - t^2.
__device__ inline void mish_gate(float x, float* gate, float* complement) {
    if (x > 20.0f) {
        *gate = 1.0f;
        *complement = 0.0f;
        return;
    }
    float e = expf(x);
    float n = e * (e + 2.0f);
    *gate = n / (n + 2.0f);
    *complement = 4.0f * (n + 1.0f) / ((n + 2.0f) * (n + 2.0f));
}

// curve: 0 relu, 1 leaky relu, 2 relu6, 3 sigmoid, 4 swish, 5 mish.
KERNEL activation(int count, const float* x, int curve, float slope, float* y) {
    FOR_EACH(i, count) {
        float v = x[i], gate, complement;
        switch (curve) {
        case 0: y[i] = v <= 0.0f ? 0.0f : v; break;
        case 1: y[i] = v > 0.0f ? v : slope * v; break;
        case 2: y[i] = v < 0.0f ? 0.0f : v > 6.0f ? 6.0f : v; break;
        case 3: y[i] = sigmoid_of(v); break;
        case 4: y[i] = v * sigmoid_of(v); break;
        default:
            mish_gate(v, &gate, &complement);
            y[i] = v * gate;
        }
    }
}

KERNEL activation_gradient(int count, const float* x, const float* g, int curve, float slope, float* gx) {
    FOR_EACH(i, count) {
        float v = x[i], s, gate, complement, derivative;
        switch (curve) {
        case 0: derivative = v <= 0.0f ? 0.0f : 1.0f; break;
        case 1: derivative = v > 0.0f ? 1.0f : slope; break;
        case 2: derivative = v > 0.0f && v < 6.0f ? 1.0f : 0.0f; break;
        case 3:
            s = sigmoid_of(v);
            derivative = s * (1.0f - s);
            break;
        case 4:
            s = sigmoid_of(v);
            derivative = s + v * s * (1.0f - s);
            break;
        default:
            mish_gate(v, &gate, &complement);
            derivative = gate + v * complement * sigmoid_of(v);
        }
        gx[i] = g[i] * derivative;
    }
}

// One thread a row of `width`; with `log` the logarithm of the softmax.
KERNEL softmax(int count, const float* x, int width, int log, float* y) {
    FOR_EACH(i, count) {
        const float* row = x + i * width;
        float* to = y + i * width;
        float largest = row[0];
        for (int k = 1; k < width; ++k) largest = fmaxf(largest, row[k]);
        double sum = 0.0;
        for (int k = 0; k < width; ++k) {
            to[k] = expf(row[k] - largest);
            sum += to[k];
        }
        float log_sum = (float)::log(sum), scale = (float)(1.0 / sum);
        for (int k = 0; k < width; ++k) to[k] = log ? row[k] - largest - log_sum : to[k] * scale;
    }
}

// From the result y.
KERNEL softmax_gradient(int count, const float* y, const float* g, int width, int log, float* gx) {
    FOR_EACH(i, count) {
        const float *row = y + i * width, *from = g + i * width;
        double sum = 0.0;
        for (int k = 0; k < width; ++k) sum += log ? (double)from[k] : (double)row[k] * from[k];
        for (int k = 0; k < width; ++k) {
            gx[i * width + k] = log ? from[k] - expf(row[k]) * (float)sum : row[k] * (from[k] - (float)sum);
        }
    }
}
