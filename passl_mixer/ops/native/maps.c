/* Maps with the channels last: CycleFC's shift, weighted branches. */
#include "common.h"

/* ---- CycleFC: channel c reads position 0, +1, -1 along one axis for c % 3 = 0, 1, 2; zero outside the map ---- */

/* x, y [batch, height, width, chans]; along is 1 for the height, 2 for the width; direction -1 is the gradient. */
int cycle_shift(const int32_t *x, int32_t *y, int64_t batch, int64_t height, int64_t width, int64_t chans,
                int64_t along, int64_t direction) {
    /* bit masks instead of branches; the last row of the buffer is what lies outside */
    int32_t *masks = zeros(4 * chans, sizeof(int32_t));
    if (!masks) return NO_MEMORY;
    int32_t *stay = masks, *next = masks + chans, *before = masks + 2 * chans, *outside = masks + 3 * chans;
    for (int64_t c = 0; c < chans; c++) masks[(c % 3) * chans + c] = -1;
    int64_t step = (along == 1 ? width : 1) * chans, end = along == 1 ? height : width;
#pragma omp parallel for collapse(2) schedule(static) if (batch * height * width * chans > SMALL)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < height; h++)
            for (int64_t w = 0; w < width; w++) {
                int64_t at = ((b * height + h) * width + w) * chans, place = along == 1 ? h : w;
                const int32_t *here = x + at, *after = place + 1 < end ? here + step : outside,
                              *last = place > 0 ? here - step : outside;
                const int32_t *plus = direction > 0 ? after : last, *minus = direction > 0 ? last : after;
                int32_t *out = y + at;
                for (int64_t c = 0; c < chans; c++)
                    out[c] = (here[c] & stay[c]) | (plus[c] & next[c]) | (minus[c] & before[c]);
            }
    free(masks);
    return DONE;
}

/* ---- branches weighted per image and channel: ViP, CycleMLP, S2-MLP v2, Wave-MLP ---- */

/* mean [batch, chans] over places of x0 + x1 + x2. */
int branch_mean(const float *x0, const float *x1, const float *x2, float *mean, int64_t batch, int64_t places,
                int64_t chans) {
#pragma omp parallel for schedule(static) if (batch * places * chans > SMALL)
    for (int64_t b = 0; b < batch; b++) {
        float *own = mean + b * chans;
        for (int64_t c = 0; c < chans; c++) own[c] = 0.0f;
        for (int64_t p = 0; p < places; p++) {
            int64_t at = (b * places + p) * chans;
            for (int64_t c = 0; c < chans; c++) own[c] += x0[at + c] + x1[at + c] + x2[at + c];
        }
        for (int64_t c = 0; c < chans; c++) own[c] /= places;
    }
    return DONE;
}

/* Its gradient, one for all three: dx [batch, places, chans] = dmean / places. */
int branch_mean_gradient(const float *dmean, float *dx, int64_t batch, int64_t places, int64_t chans) {
#pragma omp parallel for collapse(2) schedule(static) if (batch * places * chans > SMALL)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t p = 0; p < places; p++)
            for (int64_t c = 0; c < chans; c++) dx[(b * places + p) * chans + c] = dmean[b * chans + c] / places;
    return DONE;
}

/* y [batch, places, chans] = sum over k of a_k [batch, chans] * x_k, three branches. */
int weigh_branches(const float *x0, const float *x1, const float *x2, const float *a0, const float *a1, const float *a2,
                   float *y, int64_t batch, int64_t places, int64_t chans) {
#pragma omp parallel for collapse(2) schedule(static) if (batch * places * chans > SMALL)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t p = 0; p < places; p++) {
            int64_t at = (b * places + p) * chans, w = b * chans;
            for (int64_t c = 0; c < chans; c++)
                y[at + c] = a0[w + c] * x0[at + c] + a1[w + c] * x1[at + c] + a2[w + c] * x2[at + c];
        }
    return DONE;
}

/* dx_k = a_k dy and da_k = sum over places of x_k dy. */
int weigh_branches_gradient(const float *x0, const float *x1, const float *x2, const float *a0, const float *a1,
                            const float *a2, const float *dy, float *dx0, float *dx1, float *dx2, float *da0,
                            float *da1, float *da2, int64_t batch, int64_t places, int64_t chans) {
#pragma omp parallel for schedule(static) if (batch * places * chans > SMALL)
    for (int64_t b = 0; b < batch; b++) {
        int64_t w = b * chans;
        for (int64_t c = 0; c < chans; c++) da0[w + c] = da1[w + c] = da2[w + c] = 0.0f;
        for (int64_t p = 0; p < places; p++) {
            int64_t at = (b * places + p) * chans;
            for (int64_t c = 0; c < chans; c++) {
                float g = dy[at + c];
                da0[w + c] += g * x0[at + c];
                da1[w + c] += g * x1[at + c];
                da2[w + c] += g * x2[at + c];
                dx0[at + c] = g * a0[w + c];
                dx1[at + c] = g * a1[w + c];
                dx2[at + c] = g * a2[w + c];
            }
        }
    }
    return DONE;
}
