/* Attention: heads and windows of a map, and the softmax of scaled scores with a bias. */
#include "common.h"
#include "functions.h"

/* ---- windows of [batch, height, width, parts * heads * depth], cut on a map that was rolled up and left ---- */

typedef struct {
    int64_t parts, batch, height, width, heads, depth, side_h, side_w, up, left;
} Windows;

static int fit(const Windows *s) {
    if (s->side_h < 1 || s->side_w < 1 || s->height % s->side_h || s->width % s->side_w) return 0;
    return s->up <= s->height && s->left <= s->width;
}

/* Copies between the map and the windows of each part, [batch, windows, heads, side_h * side_w, depth]. */
static int copy_windows(const Windows *s, float *map, float *const *windows, int to_map) {
    if (!fit(s)) return BAD_SIZES;
    int64_t rows = s->height / s->side_h, columns = s->width / s->side_w, chans = s->heads * s->depth;
    int64_t positions = s->side_h * s->side_w, all = s->batch * rows * columns;
#pragma omp parallel for schedule(static) if (s->parts * all * positions * chans > SMALL)
    for (int64_t window = 0; window < all; window++) {
        int64_t b = window / (rows * columns), top = window / columns % rows * s->side_h + s->up;
        int64_t start = window % columns * s->side_w + s->left;
        for (int64_t n = 0; n < positions; n++) {
            int64_t h = (top + n / s->side_w) % s->height, w = (start + n % s->side_w) % s->width;
            for (int64_t p = 0; p < s->parts; p++) {
                float *place = map + (((b * s->height + h) * s->width + w) * s->parts + p) * chans;
                float *head = windows[p] + (window * s->heads * positions + n) * s->depth;
                for (int64_t i = 0; i < s->heads; i++, place += s->depth, head += positions * s->depth) {
                    const float *from = to_map ? head : place;
                    float *to = to_map ? place : head;
                    for (int64_t d = 0; d < s->depth; d++) to[d] = from[d];
                }
            }
        }
    }
    return DONE;
}

/* Each of y [batch, windows, heads, side_h * side_w, depth] takes its part of the channels of x [batch, height, width,
 * parts * heads * depth]. Position (h, w) of the windows reads position (h + up, w + left) of x, going round. */
int split_windows(const float *x, float *const *y, int64_t parts, int64_t batch, int64_t height, int64_t width,
                  int64_t heads, int64_t depth, int64_t side_h, int64_t side_w, int64_t up, int64_t left) {
    Windows s = {parts, batch, height, width, heads, depth, side_h, side_w, up, left};
    return copy_windows(&s, (float *)x, y, 0);
}

/* The way back. */
int join_windows(const float *const *y, float *x, int64_t parts, int64_t batch, int64_t height, int64_t width,
                 int64_t heads, int64_t depth, int64_t side_h, int64_t side_w, int64_t up, int64_t left) {
    Windows s = {parts, batch, height, width, heads, depth, side_h, side_w, up, left};
    return copy_windows(&s, x, (float *const *)y, 1);
}

/* ---- softmax ---- */

#define LANES 16
#define TERMS 64 /* of a sum in float; such sums are added to one another */

/* The largest number; NaN counts for none. */
static inline float largest(const float *x, int64_t count) {
    float most[LANES], all = -INFINITY;
    int64_t j = 0;
    for (int64_t l = 0; l < LANES; l++) most[l] = -INFINITY;
    for (; j + LANES <= count; j += LANES)
        for (int64_t l = 0; l < LANES; l++) most[l] = x[j + l] > most[l] ? x[j + l] : most[l];
    for (; j < count; j++) all = x[j] > all ? x[j] : all;
    for (int64_t l = 0; l < LANES; l++) all = most[l] > all ? most[l] : all;
    return all;
}

/* y [outer, rows, cols] = softmax over the columns of scale * x + bias; bias [rows, cols] or null. */
int scaled_softmax(const float *x, const float *bias, float *y, int64_t outer, int64_t rows, int64_t cols,
                   float scale) {
#pragma omp parallel for schedule(static) if (outer * rows * cols > SMALL)
    for (int64_t r = 0; r < outer * rows; r++) {
        const float *from = x + r * cols, *plus = bias ? bias + r % rows * cols : 0;
        float *to = y + r * cols, sum = 0.0f;
        if (plus) for (int64_t j = 0; j < cols; j++) to[j] = scale * from[j] + plus[j];
        else for (int64_t j = 0; j < cols; j++) to[j] = scale * from[j];
        float top = largest(to, cols);
        for (int64_t j = 0; j < cols; j++) {
            float below = to[j] - top, e = exp_of(below);
            e = below < -87.0f ? 0.0f : e;
            to[j] = e;
            sum += e;
        }
        for (int64_t j = 0; j < cols; j++) to[j] /= sum;
    }
    return DONE;
}

/* With g = y (dy - sum over the columns of dy y): dx = scale * g and, unless null, dbias = sum over outer of g. */
int scaled_softmax_gradient(const float *y, const float *dy, float *dx, float *dbias, int64_t outer, int64_t rows,
                            int64_t cols, float scale) {
    float *parts = zeros(omp_get_max_threads() * cols, sizeof(float)); /* sums of at most TERMS rows */
    if (!parts) return NO_MEMORY;
#pragma omp parallel if (outer * rows * cols > SMALL)
    {
        float *restrict part = parts + omp_get_thread_num() * cols;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            float *restrict sums = dbias ? dbias + i * cols : 0;
            if (sums) memset(sums, 0, cols * sizeof(float));
            for (int64_t o = 0; o < outer; o++) {
                const float *restrict p = y + (o * rows + i) * cols, *restrict g = dy + (o * rows + i) * cols;
                float *restrict to = dx + (o * rows + i) * cols, dot = 0.0f;
                for (int64_t j = 0; j < cols; j++) dot += p[j] * g[j];
                if (!sums) {
                    for (int64_t j = 0; j < cols; j++) to[j] = scale * (p[j] * (g[j] - dot));
                    continue;
                }
                for (int64_t j = 0; j < cols; j++) {
                    float back = p[j] * (g[j] - dot);
                    part[j] += back;
                    to[j] = scale * back;
                }
                if ((o + 1) % TERMS && o + 1 < outer) continue;
                for (int64_t j = 0; j < cols; j++) {
                    sums[j] += part[j];
                    part[j] = 0.0f;
                }
            }
        }
    }
    free(parts);
    return DONE;
}
