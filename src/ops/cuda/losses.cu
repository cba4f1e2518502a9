// Losses and their derivatives, as in ops/losses.rs.

__device__ inline float power(float base, float exponent) {
    return exponent == 2.0f ? base * base : powf(base, exponent);
}

// Focal loss of one logit and its derivative.
__device__ inline void focal(float x, float t, float alpha, float gamma, float* value, float* derivative) {
    float balance = alpha < 0.0f ? 1.0f : alpha * t + (1.0f - alpha) * (1.0f - t);
    if (t == 0.0f || t == 1.0f) {
        float sign = 1.0f - 2.0f * t;
        float miss = sigmoid_of(sign * x), entropy = softplus(sign * x);
        float focus = balance * power(miss, gamma);
        *value = focus * entropy;
        *derivative = sign * focus * (gamma * sigmoid_of(-sign * x) * entropy + miss);
        return;
    }
    float p = sigmoid_of(x), entropy = softplus(x) - x * t;
    float miss = p + t - 2.0f * p * t;
    float focus = balance * power(miss, gamma);
    float pull = miss > 0.0f ? gamma * focus / miss * p * (1.0f - p) * (1.0f - 2.0f * t) * entropy : 0.0f;
    *value = focus * entropy;
    *derivative = pull + focus * (p - t);
}

// kind: 0 binary cross-entropy, 1 focal with alpha = a and gamma = b, 2 smooth L1 with beta = a.
KERNEL pair_loss(int count, const float* x, const float* t, int kind, float a, float b, float* y) {
    FOR_EACH(i, count) {
        float derivative, d = fabsf(x[i] - t[i]);
        if (kind == 0) {
            y[i] = softplus(x[i]) - x[i] * t[i];
        } else if (kind == 1) {
            focal(x[i], t[i], a, b, y + i, &derivative);
        } else {
            y[i] = d < a ? 0.5f * d * d / a : d - 0.5f * a;
        }
    }
}

KERNEL pair_loss_gradient(int count, const float* x, const float* t, const float* g, int kind, float a, float b,
                          float* gx) {
    FOR_EACH(i, count) {
        float value, derivative, d = x[i] - t[i];
        if (kind == 0) {
            derivative = sigmoid_of(x[i]) - t[i];
        } else if (kind == 1) {
            focal(x[i], t[i], a, b, &value, &derivative);
        } else {
            derivative = fabsf(d) < a ? d / a : d == 0.0f ? 0.0f : copysignf(1.0f, d);
        }
        gx[i] = g[i] == 0.0f ? 0.0f : g[i] * derivative;
    }
}

// Maximum of a row, and the sum of e^(x - maximum).
__device__ inline double log_sum_parts(const float* row, int classes, float* largest) {
    *largest = row[0];
    for (int k = 1; k < classes; ++k) *largest = fmaxf(*largest, row[k]);
    double sum = 0.0;
    for (int k = 0; k < classes; ++k) sum += expf(row[k] - *largest);
    return sum;
}

// One thread a row; a column below 0 is ignored.
KERNEL cross_entropy(int count, const float* x, const int* columns, int classes, float* y) {
    FOR_EACH(i, count) {
        y[i] = 0.0f;
        if (columns[i] < 0) continue;
        float largest;
        double sum = log_sum_parts(x + i * classes, classes, &largest);
        y[i] = (float)(log(sum) - (double)(x[i * classes + columns[i]] - largest));
    }
}

KERNEL cross_entropy_gradient(int count, const float* x, const float* g, const int* columns, int classes, float* gx) {
    FOR_EACH(i, count) {
        float* to = gx + i * classes;
        if (columns[i] < 0 || g[i] == 0.0f) {
            for (int k = 0; k < classes; ++k) to[k] = 0.0f;
            continue;
        }
        float largest;
        double sum = log_sum_parts(x + i * classes, classes, &largest);
        float scale = (float)((double)g[i] / sum);
        for (int k = 0; k < classes; ++k) to[k] = scale * expf(x[i * classes + k] - largest);
        to[columns[i]] -= g[i];
    }
}

// A number with its partial derivatives by the four corners of a box.
struct Dual {
    double value, partial[4];
};

__device__ inline Dual constant(double value) { return Dual{value, {0.0, 0.0, 0.0, 0.0}}; }

// value, with the partials of both scaled and added.
__device__ inline Dual mixed(const Dual& a, const Dual& b, double value, double of_a, double of_b) {
    Dual out;
    out.value = value;
    for (int k = 0; k < 4; ++k) out.partial[k] = of_a * a.partial[k] + of_b * b.partial[k];
    return out;
}

__device__ inline Dual operator+(const Dual& a, const Dual& b) { return mixed(a, b, a.value + b.value, 1.0, 1.0); }
__device__ inline Dual operator-(const Dual& a, const Dual& b) { return mixed(a, b, a.value - b.value, 1.0, -1.0); }
__device__ inline Dual operator*(const Dual& a, const Dual& b) {
    return mixed(a, b, a.value * b.value, b.value, a.value);
}
__device__ inline Dual operator/(const Dual& a, const Dual& b) {
    return mixed(a, b, a.value / b.value, 1.0 / b.value, -a.value / (b.value * b.value));
}

// Equals share the gradient, as in PyTorch.
__device__ inline Dual larger(const Dual& a, const Dual& b) {
    if (a.value == b.value) return mixed(a, b, a.value, 0.5, 0.5);
    return a.value > b.value ? a : b;
}
__device__ inline Dual smaller(const Dual& a, const Dual& b) {
    if (a.value == b.value) return mixed(a, b, a.value, 0.5, 0.5);
    return a.value < b.value ? a : b;
}

// The angle of (b, a); constant at the origin.
__device__ inline Dual angle(const Dual& a, const Dual& b) {
    double square = a.value * a.value + b.value * b.value, scale = square > 0.0 ? 1.0 / square : 0.0;
    return mixed(a, b, atan2(a.value, b.value), b.value * scale, -a.value * scale);
}

// kind: 0 -ln IoU, 1 1 - IoU, 2 GIoU, 3 DIoU, 4 CIoU.
__device__ inline Dual box_loss_of(const float* corners, const float* target, int kind, double least) {
    Dual p[4], t[4], eps = constant(least), one = constant(1.0), half = constant(0.5);
    for (int k = 0; k < 4; ++k) {
        p[k] = constant(corners[k]);
        p[k].partial[k] = 1.0;
        t[k] = constant(target[k]);
    }
    Dual w = p[2] - p[0], h = p[3] - p[1], tw = t[2] - t[0], th = t[3] - t[1];
    Dual shared_w = smaller(p[2], t[2]) - larger(p[0], t[0]), shared_h = smaller(p[3], t[3]) - larger(p[1], t[1]);
    bool overlaps = shared_w.value > 0.0 && shared_h.value > 0.0;
    Dual meet = overlaps ? shared_w * shared_h : constant(0.0);
    Dual joined = w * h + tw * th - meet;
    // An inverted box can make the union negative: hold the denominator at eps.
    Dual iou = meet / larger(joined + eps, eps);
    Dual around_w = larger(p[2], t[2]) - smaller(p[0], t[0]), around_h = larger(p[3], t[3]) - smaller(p[1], t[1]);
    if (kind == 0) {
        if (iou.value < least) return constant(-log(least));
        return mixed(iou, iou, -log(iou.value), -1.0 / iou.value, 0.0);
    }
    if (kind == 1) return one - iou;
    if (kind == 2) {
        Dual around = around_w * around_h;
        return one - iou + (around - joined) / larger(around + eps, eps);
    }
    Dual dx = (p[0] + p[2] - t[0] - t[2]) * half, dy = (p[1] + p[3] - t[1] - t[3]) * half;
    Dual diagonal = around_w * around_w + around_h * around_h + eps;
    Dual distance = one - iou + (dx * dx + dy * dy) / diagonal;
    if (kind == 3) return distance;
    const double pi = 3.14159265358979323846;
    Dual difference = angle(tw, th) - angle(w, h);
    Dual v = difference * difference * constant(4.0 / (pi * pi));
    return distance + v * constant(v.value / (1.0 - iou.value + v.value + least));
}

KERNEL box_loss(int count, const float* boxes, const float* targets, int kind, float eps, float* y) {
    FOR_EACH(i, count) y[i] = (float)box_loss_of(boxes + 4 * i, targets + 4 * i, kind, eps).value;
}

KERNEL box_loss_gradient(int count, const float* boxes, const float* targets, const float* g, int kind, float eps,
                         float* gx) {
    FOR_EACH(i, count) {
        Dual loss = box_loss_of(boxes + 4 * i, targets + 4 * i, kind, eps);
        for (int k = 0; k < 4; ++k) gx[4 * i + k] = g[i] == 0.0f ? 0.0f : (float)(loss.partial[k] * g[i]);
    }
}

// Sums of interleaved elements times their weights; an element of weight 0 is not looked at.
KERNEL weighted_parts(int count, const float* x, const float* weights, int total, double* parts) {
    FOR_EACH(i, count) {
        double sum = 0.0;
        for (int k = i; k < total; k += count) {
            if (weights[k] != 0.0f) sum += (double)x[k] * (double)weights[k];
        }
        parts[i] = sum;
    }
}

// Sums of interleaved parts.
KERNEL fewer_parts(int count, const double* parts, int total, double* sums) {
    FOR_EACH(i, count) {
        double sum = 0.0;
        for (int k = i; k < total; k += count) sum += parts[k];
        sums[i] = sum;
    }
}

KERNEL weighted_sum_gradient(int count, const float* weights, const float* g, float* gx) {
    FOR_EACH(i, count) gx[i] = weights[i] * g[0];
}
