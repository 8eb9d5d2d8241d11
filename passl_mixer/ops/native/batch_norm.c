/* BatchNorm of [outer, chans, inner], or of rows [outer, chans] where inner is 1, with a ReLU before it and a sum and a
 * ReLU after it. */
#include "common.h"

#define BLOCK 16384 /* elements of some rows, few enough to be read twice from a near cache */
#define ROWS 64     /* at most, which are summed in float */

/* Sums are over blocks, joined in double: the places of one image in one channel, or ``each`` rows. */
typedef struct {
    int64_t outer, chans, inner, each, blocks;
    float enter, leave; /* 0 with the ReLU there, minus infinity without: what comes in or goes out is at least that */
} Norm;

static Norm norm_of(int64_t outer, int64_t chans, int64_t inner, int64_t relu) {
    Norm n = {outer, chans, inner, 1, outer, relu & 1 ? 0.0f : -INFINITY, relu & 2 ? 0.0f : -INFINITY};
    if (inner == 1) {
        n.each = chans > BLOCK ? 1 : chans > BLOCK / ROWS ? BLOCK / chans : ROWS;
        n.blocks = ceil_div(outer, n.each);
    }
    return n;
}

static inline int64_t rows_in(const Norm *n, int64_t block) {
    return min_of(n->outer - block * n->each, n->each);
}

static inline int large(const Norm *n) { return n->outer * n->chans * n->inner > SMALL; }

/* NaN stays NaN. */
static inline float at_least(float x, float floor) { return x < floor ? floor : x; }

static inline float normal(float x, float mean, float scale, float shift) { return (x - mean) * scale + shift; }

/* ---- moments ---- */

/* Mean and squares around it of a block of rows; both [chans]. */
static void rows_moments(const float *restrict x, int64_t rows, int64_t chans, float enter, float *restrict mean,
                         float *restrict squares) {
    for (int64_t c = 0; c < chans; c++) mean[c] = squares[c] = 0.0f;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < chans; c++) mean[c] += at_least(x[r * chans + c], enter);
    for (int64_t c = 0; c < chans; c++) mean[c] /= rows;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < chans; c++) {
            float d = at_least(x[r * chans + c], enter) - mean[c];
            squares[c] += d * d;
        }
}

/* The same of one channel's places. */
static void places_moments(const float *x, int64_t count, float enter, float *mean, float *squares) {
    float sum = 0.0f, rest = 0.0f, total = 0.0f;
    for (int64_t i = 0; i < count; i++) sum += at_least(x[i], enter);
    sum /= count;
    for (int64_t i = 0; i < count; i++) {
        float d = at_least(x[i], enter) - sum;
        rest += d;
        total += d * d;
    }
    *mean = sum + rest / count;
    *squares = total - rest * rest / count;
}

/* Mean, rstd = 1 / deviation and scale = weight * rstd [chans] of x (of what its ReLU leaves, with bit 1 of relu). The
 * running mean and biased variance become momentum * running + (1 - momentum) * new. */
int batch_moments(const float *x, const float *weight, float *mean, float *rstd, float *scale, float *running_mean,
                  float *running_variance, float momentum, float epsilon, int64_t outer, int64_t chans, int64_t inner,
                  int64_t relu) {
    Norm n = norm_of(outer, chans, inner, relu);
    float *means = space(n.blocks * chans * 2, sizeof(float)), *squares = means + n.blocks * chans;
    if (!means) return NO_MEMORY;
    double count = (double)outer * inner;
#pragma omp parallel if (large(&n))
    {
#pragma omp for schedule(static)
        for (int64_t p = 0; p < (inner == 1 ? n.blocks : outer * chans); p++)
            if (inner == 1)
                rows_moments(x + p * n.each * chans, rows_in(&n, p), chans, n.enter, means + p * chans,
                             squares + p * chans);
            else places_moments(x + p * inner, inner, n.enter, means + p, squares + p);
#pragma omp for schedule(static)
        for (int64_t c = 0; c < chans; c++) {
            double total = 0.0, around = 0.0;
            for (int64_t b = 0; b < n.blocks; b++) total += (double)means[b * chans + c] * rows_in(&n, b) * inner;
            total /= count;
            for (int64_t b = 0; b < n.blocks; b++) {
                double d = means[b * chans + c] - total;
                around += squares[b * chans + c] + d * d * rows_in(&n, b) * inner;
            }
            mean[c] = total;
            rstd[c] = 1.0 / sqrt(around / count + epsilon);
            scale[c] = weight[c] * rstd[c];
            running_mean[c] = momentum * running_mean[c] + (1.0f - momentum) * (float)total;
            running_variance[c] = momentum * running_variance[c] + (1.0f - momentum) * (float)(around / count);
        }
    }
    free(means);
    return DONE;
}

/* ---- y = (x - mean) * scale + shift + other (or null), scale = weight * rstd; relu: bit 1 before, bit 2 after ---- */

int batch_normalise(const float *restrict x, const float *restrict mean, const float *restrict scale,
                    const float *restrict shift, const float *restrict other, float *restrict y, int64_t outer,
                    int64_t chans, int64_t inner, int64_t relu) {
    Norm n = norm_of(outer, chans, inner, relu);
#pragma omp parallel for schedule(static) if (large(&n))
    for (int64_t p = 0; p < (inner == 1 ? outer : outer * chans); p++)
        if (inner == 1) {
            const float *from = x + p * chans, *plus = other ? other + p * chans : 0;
            float *to = y + p * chans;
            for (int64_t c = 0; c < chans; c++) {
                float normed = normal(at_least(from[c], n.enter), mean[c], scale[c], shift[c]);
                to[c] = at_least(normed + (plus ? plus[c] : 0.0f), n.leave);
            }
        } else {
            const float *from = x + p * inner, *plus = other ? other + p * inner : 0;
            float *to = y + p * inner, m = mean[p % chans], f = scale[p % chans], t = shift[p % chans];
            for (int64_t i = 0; i < inner; i++)
                to[i] = at_least(normal(at_least(from[i], n.enter), m, f, t) + (plus ? plus[i] : 0.0f), n.leave);
        }
    return DONE;
}

/* ---- gradients ---- */

/* dy, or 0 where the ReLU after the norm and the sum made their output 0. */
static inline float passed(float dy, float v, float mean, float scale, float shift, float other, float leave) {
    return normal(v, mean, scale, shift) + other <= leave ? 0.0f : dy;
}

/* Sums of dy and of dy (x - mean) over a block of rows; both [chans]. */
static void rows_sums(const float *restrict x, const float *restrict dy, const float *restrict mean,
                      const float *restrict scale, const float *restrict shift, const float *restrict other,
                      int64_t rows, const Norm *n, float *restrict sums, float *restrict products) {
    int64_t chans = n->chans;
    float enter = n->enter, leave = n->leave;
    for (int64_t c = 0; c < chans; c++) sums[c] = products[c] = 0.0f;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < chans; c++) {
            int64_t i = r * chans + c;
            float v = at_least(x[i], enter);
            float g = passed(dy[i], v, mean[c], scale[c], shift[c], other ? other[i] : 0.0f, leave);
            sums[c] += g;
            products[c] += g * (v - mean[c]);
        }
}

/* The same of one channel's places. */
static void places_sums(const float *restrict x, const float *restrict dy, float mean, float scale, float shift,
                        const float *restrict other, const Norm *n, float *restrict sums, float *restrict products) {
    float sum = 0.0f, product = 0.0f, enter = n->enter, leave = n->leave;
    for (int64_t i = 0; i < n->inner; i++) {
        float v = at_least(x[i], enter), g = passed(dy[i], v, mean, scale, shift, other ? other[i] : 0.0f, leave);
        sum += g;
        product += g * (v - mean);
    }
    *sums = sum;
    *products = product;
}

/* scale * (dy - mean(dy) - (x - mean) * slope), slope = mean(dy (x - mean)) / variance; 0 where the ReLU before the
 * norm made its input 0. dy is what passes the ReLU after it. */
static inline float back(float x, float v, float dy, float mean, float scale, float dy_mean, float slope, float enter) {
    return x <= enter ? 0.0f : scale * (dy - dy_mean - (v - mean) * slope);
}

/* dx (or null) and the other's gradient (or null) in one row [chans]. */
static void row_back(const float *restrict x, const float *restrict dy, const float *restrict other,
                     const float *restrict mean, const float *restrict scale, const float *restrict shift,
                     const float *restrict dy_mean, const float *restrict slope, const Norm *n, float *restrict dx,
                     float *restrict dother) {
    float enter = n->enter, leave = n->leave;
    for (int64_t c = 0; c < n->chans; c++) {
        float v = at_least(x[c], enter);
        float g = passed(dy[c], v, mean[c], scale[c], shift[c], other ? other[c] : 0.0f, leave);
        if (dother) dother[c] = g;
        if (dx) dx[c] = back(x[c], v, g, mean[c], scale[c], dy_mean[c], slope[c], enter);
    }
}

/* The same of one channel's places. */
static void places_back(const float *restrict x, const float *restrict dy, const float *restrict other, float mean,
                        float scale, float shift, float dy_mean, float slope, const Norm *n, float *restrict dx,
                        float *restrict dother) {
    float enter = n->enter, leave = n->leave;
    for (int64_t i = 0; i < n->inner; i++) {
        float v = at_least(x[i], enter), g = passed(dy[i], v, mean, scale, shift, other ? other[i] : 0.0f, leave);
        if (dother) dother[i] = g;
        if (dx) dx[i] = back(x[i], v, g, mean, scale, dy_mean, slope, enter);
    }
}

/* dbias = sum of dy, dweight = sum of dy n with n = (x - mean) * rstd and, unless null, dother = dy and
 * dx = scale * (dy - mean(dy) - n mean(dy n)); dy is what passes the ReLU after the norm. rstd = 1 / deviation. */
int batch_norm_gradient(const float *restrict x, const float *restrict mean, const float *restrict rstd,
                        const float *restrict scale, const float *restrict shift, const float *restrict other,
                        const float *restrict dy, float *restrict dx, float *restrict dother, float *restrict dweight,
                        float *restrict dbias, int64_t outer, int64_t chans, int64_t inner, int64_t relu) {
    Norm n = norm_of(outer, chans, inner, relu);
    float *work = space((n.blocks + 1) * chans * 2, sizeof(float));
    if (!work) return NO_MEMORY;
    float *dy_mean = work, *slope = work + chans, *sums = work + 2 * chans, *products = sums + n.blocks * chans;
    double count = (double)outer * inner;
#pragma omp parallel if (large(&n))
    {
#pragma omp for schedule(static)
        for (int64_t p = 0; p < (inner == 1 ? n.blocks : outer * chans); p++) {
            int64_t at = p * (inner == 1 ? n.each * chans : inner);
            const float *plus = other ? other + at : 0;
            if (inner == 1)
                rows_sums(x + at, dy + at, mean, scale, shift, plus, rows_in(&n, p), &n, sums + p * chans,
                          products + p * chans);
            else
                places_sums(x + at, dy + at, mean[p % chans], scale[p % chans], shift[p % chans], plus, &n, sums + p,
                            products + p);
        }
#pragma omp for schedule(static)
        for (int64_t c = 0; c < chans; c++) {
            double sum = 0.0, product = 0.0;
            for (int64_t b = 0; b < n.blocks; b++) {
                sum += sums[b * chans + c];
                product += products[b * chans + c];
            }
            dbias[c] = sum;
            dweight[c] = product * rstd[c];
            dy_mean[c] = sum / count;
            slope[c] = product * rstd[c] * rstd[c] / count;
        }
        int64_t runs = inner == 1 ? outer : outer * chans, length = inner == 1 ? chans : inner;
#pragma omp for schedule(static)
        for (int64_t p = 0; p < (dx || dother ? runs : 0); p++) {
            int64_t at = p * length, c = p % chans;
            const float *plus = other ? other + at : 0;
            float *to = dx ? dx + at : 0, *beside = dother ? dother + at : 0;
            if (inner == 1) row_back(x + at, dy + at, plus, mean, scale, shift, dy_mean, slope, &n, to, beside);
            else places_back(x + at, dy + at, plus, mean[c], scale[c], shift[c], dy_mean[c], slope[c], &n, to, beside);
        }
    }
    free(work);
    return DONE;
}
