/* Positions of maps taken from elsewhere: S2-MLP's quarters, Hire-MLP's turned and repeated rows, AS-MLP's groups. */
#include "common.h"

/* Whether all numbers of `index` are places of an axis of this length. */
static inline int all_inside(const int64_t *index, int64_t count, int64_t length) {
    for (int64_t i = 0; i < count; i++)
        if (index[i] < 0 || index[i] >= length) return 0;
    return 1;
}

/* y [outer, count, inner] = x [outer, length, inner] at index[0..count) of the middle axis. */
int take(const float *x, const int64_t *index, float *y, int64_t outer, int64_t length, int64_t count, int64_t inner) {
    if (!all_inside(index, count, length)) return BAD_SIZES;
#pragma omp parallel for collapse(2) schedule(static) if (outer * count * inner > SMALL)
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < count; i++)
            memcpy(y + (o * count + i) * inner, x + (o * length + index[i]) * inner, (size_t)inner * sizeof(float));
    return DONE;
}

/* dx of the same from dy: what was taken twice gets the sum. */
int take_gradient(const float *dy, const int64_t *index, float *dx, int64_t outer, int64_t length, int64_t count,
                  int64_t inner) {
    if (!all_inside(index, count, length)) return BAD_SIZES;
#pragma omp parallel for schedule(static) if (outer * count * inner > SMALL)
    for (int64_t o = 0; o < outer; o++) {
        memset(dx + o * length * inner, 0, (size_t)(length * inner) * sizeof(float));
        for (int64_t i = 0; i < count; i++) {
            const float *from = dy + (o * count + i) * inner;
            float *to = dx + (o * length + index[i]) * inner;
            for (int64_t k = 0; k < inner; k++) to[k] += from[k];
        }
    }
    return DONE;
}

/* Regions of an axis, their positions side by side: y [outer, groups, inner, size, chans] has in position p of region g
 * the position place[g * size + p] of x [outer, length, inner, chans]; zeros where that is -1. */
int gather_regions(const float *x, const int64_t *place, float *y, int64_t outer, int64_t length, int64_t inner,
                   int64_t groups, int64_t size, int64_t chans) {
    for (int64_t i = 0; i < groups * size; i++)
        if (place[i] < -1 || place[i] >= length) return BAD_SIZES;
#pragma omp parallel for collapse(3) schedule(static) if (outer * groups * inner * size * chans > SMALL)
    for (int64_t o = 0; o < outer; o++)
        for (int64_t g = 0; g < groups; g++)
            for (int64_t i = 0; i < inner; i++)
                for (int64_t p = 0; p < size; p++) {
                    int64_t from = place[g * size + p];
                    float *to = y + (((o * groups + g) * inner + i) * size + p) * chans;
                    if (from < 0) memset(to, 0, (size_t)chans * sizeof(float));
                    else memcpy(to, x + ((o * length + from) * inner + i) * chans, (size_t)chans * sizeof(float));
                }
    return DONE;
}

/* The gradient: every position of x gets the sum of what was gathered from it in y. */
int scatter_regions(const float *y, const int64_t *place, float *x, int64_t outer, int64_t length, int64_t inner,
                    int64_t groups, int64_t size, int64_t chans) {
    uint8_t *written = zeros(outer * length, 1);
    if (!written) return NO_MEMORY;
    for (int64_t i = 0; i < groups * size; i++)
        if (place[i] < -1 || place[i] >= length) return free(written), BAD_SIZES;
#pragma omp parallel for schedule(static) if (outer * groups * inner * size * chans > SMALL)
    for (int64_t o = 0; o < outer; o++) {
        for (int64_t s = 0; s < groups * size; s++) {
            if (place[s] < 0) continue;
            uint8_t *again = written + o * length + place[s];
            for (int64_t i = 0; i < inner; i++) {
                const float *from = y + (((o * groups + s / size) * inner + i) * size + s % size) * chans;
                float *to = x + ((o * length + place[s]) * inner + i) * chans;
                if (*again) for (int64_t c = 0; c < chans; c++) to[c] += from[c];
                else memcpy(to, from, (size_t)chans * sizeof(float));
            }
            *again = 1;
        }
        for (int64_t h = 0; h < length; h++)
            if (!written[o * length + h])
                memset(x + (o * length + h) * inner * chans, 0, (size_t)(inner * chans) * sizeof(float));
    }
    free(written);
    return DONE;
}

/* The axis that quarter q moves along, where the first two move along `first`: 1 or 2, 0 for none. */
static inline int64_t axis_of(int64_t first, int64_t q) { return !first || q < 2 ? first : 3 - first; }

/* Every share of the channels of x [batch, height, width, shares * chans] moves one position, quarter by quarter: by
 * +1, -1 along the axis `first` and then along the other, where first is 1 (height), 2 (width) or 0 (none moves); rows
 * that nothing moves into keep their value. y [shares, batch, height, width, chans], chans a multiple of 4. */
int shift_quarters(const float *x, float *y, const int64_t *first, int64_t shares, int64_t batch, int64_t height,
                   int64_t width, int64_t chans) {
    int64_t quarter = chans / 4, row = shares * chans;
    if (chans % 4 || !all_inside(first, shares, 3)) return BAD_SIZES;
#pragma omp parallel for collapse(3) schedule(static) if (batch * height * width * row > SMALL)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < height; h++)
            for (int64_t w = 0; w < width; w++)
                for (int64_t s = 0; s < shares; s++)
                    for (int64_t q = 0; q < 4; q++) {
                        int64_t along = axis_of(first[s], q), step = q % 2 ? 1 : -1;
                        int64_t hh = h + (along == 1 ? step : 0), ww = w + (along == 2 ? step : 0);
                        hh = min_of(max_of(hh, 0), height - 1);
                        ww = min_of(max_of(ww, 0), width - 1);
                        memcpy(y + (((s * batch + b) * height + h) * width + w) * chans + q * quarter,
                               x + ((b * height + hh) * width + ww) * row + s * chans + q * quarter,
                               (size_t)quarter * sizeof(float));
                    }
    return DONE;
}

/* dx of the same from the gradients of the shares, each [batch, height, width, chans]. */
int shift_quarters_gradient(const float *const *dy, float *dx, const int64_t *first, int64_t shares, int64_t batch,
                            int64_t height, int64_t width, int64_t chans) {
    int64_t quarter = chans / 4, row = shares * chans;
    if (chans % 4 || !all_inside(first, shares, 3)) return BAD_SIZES;
#pragma omp parallel for collapse(3) schedule(static) if (batch * height * width * row > SMALL)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < height; h++)
            for (int64_t w = 0; w < width; w++)
                for (int64_t s = 0; s < shares; s++)
                    for (int64_t q = 0; q < 4; q++) {
                        int64_t along = axis_of(first[s], q), step = q % 2 ? -1 : 1;
                        int64_t here = ((b * height + h) * width + w) * chans + q * quarter;
                        int64_t place = along == 1 ? h : w, end = along == 1 ? height : width;
                        int64_t far = (along == 1 ? width : 1) * chans * step;
                        float *to = dx + ((b * height + h) * width + w) * row + s * chans + q * quarter;
                        const float *from = dy[s] + here;
                        int read = !along || (place + step >= 0 && place + step < end);
                        int kept = along && (step > 0 ? place == 0 : place == end - 1);
                        if (along) from += far;
                        for (int64_t k = 0; k < quarter; k++)
                            to[k] = (read ? from[k] : 0.0f) + (kept ? dy[s][here + k] : 0.0f);
                    }
    return DONE;
}

/* y, x [batch, height, width, chans]: position p of group g of the channels is position p - offset[g] along the height
 * (along 1) or the width (along 2), or 0 outside; a group has `size` > 0 channels, the last one what is left. */
int move_groups(const float *x, float *y, const int64_t *offset, int64_t size, int64_t batch, int64_t height,
                int64_t width, int64_t chans, int64_t along) {
    int64_t step = (along == 1 ? width : 1) * chans, end = along == 1 ? height : width;
    if (size < 1) return BAD_SIZES;
#pragma omp parallel for collapse(3) schedule(static) if (batch * height * width * chans > SMALL)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < height; h++)
            for (int64_t w = 0; w < width; w++) {
                int64_t at = ((b * height + h) * width + w) * chans, place = along == 1 ? h : w;
                for (int64_t c = 0, g = 0; c < chans; c += size, g++) {
                    int64_t from = place - offset[g], count = min_of(size, chans - c);
                    if (from < 0 || from >= end) memset(y + at + c, 0, (size_t)count * sizeof(float));
                    else memcpy(y + at + c, x + at + c - offset[g] * step, (size_t)count * sizeof(float));
                }
            }
    return DONE;
}
