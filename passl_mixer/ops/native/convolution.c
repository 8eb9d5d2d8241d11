/* Convolution of [batch, chans, height, width], by matrix products. */
#include "common.h"

/* ---- convolution: patches of a few output rows at a time, small enough for the cache, times the weights ---- */

/* Paddle's MKL; weak, because builds without MKL have none: has_products() tells. In a parallel region it uses one thread. */
extern void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                        const float *b, int ldb, float beta, float *c, int ldc) __attribute__((weak));
enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 };

int has_products(void) { return cblas_sgemm != 0; }

#define PATCH_BYTES 786432 /* of one thread's patches, to stay in its level-2 cache; more where the weights are larger */

/* What is multiplied at once is a unit: rows of one image or, of small ones, some whole images. */
typedef struct {
    int64_t batch, chans, height, width, out_chans, kernel_h, kernel_w, stride, pad, out_h, out_w;
    int64_t depth, area, pixels;  /* of a patch, of an image's output in one channel, of an image */
    int64_t images, rows, chunks; /* of a unit; units of one image (1 where a unit has several) */
    int plain;                    /* 1 x 1: an image is its own patches */
} Shape;

static inline int64_t low(int64_t a, int64_t b) { return a < b ? a : b; }

static inline int64_t parts_of(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

static Shape shape_of(const int64_t *sizes) {
    Shape s = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], sizes[8]};
    s.out_h = (s.height + 2 * s.pad - s.kernel_h) / s.stride + 1;
    s.out_w = (s.width + 2 * s.pad - s.kernel_w) / s.stride + 1;
    s.depth = s.chans * s.kernel_h * s.kernel_w;
    s.area = s.out_h * s.out_w;
    s.pixels = s.chans * s.height * s.width;
    s.plain = s.depth == s.chans && s.stride == 1 && s.pad == 0;
    int64_t columns = PATCH_BYTES / (s.depth * (int64_t)sizeof(float));
    if (columns < s.out_chans) columns = s.out_chans;
    int64_t share = parts_of(s.batch, omp_get_max_threads()), most = low(columns / s.area, share);
    s.images = most < 2 ? 1 : parts_of(share, parts_of(share, most)); /* as many units for each thread */
    s.rows = columns < s.out_w ? 1 : low(columns / s.out_w, s.out_h);
    s.chunks = parts_of(s.out_h, s.rows);
    s.rows = parts_of(s.out_h, s.chunks);
    return s;
}

typedef struct {
    int64_t first, images, top, rows, columns;
} Unit;

static Unit unit_of(const Shape *s, int64_t group, int64_t chunk) {
    Unit u = {group * s->images, low(s->images, s->batch - group * s->images), chunk * s->rows, 0, 0};
    u.rows = low(s->rows, s->out_h - u.top);
    u.columns = u.images * u.rows * s->out_w;
    return u;
}

/* The outputs [first, end) of one row whose input column ow * stride - pad + j lies inside the image. */
static inline void inside(const Shape *s, int64_t j, int64_t *first, int64_t *end) {
    int64_t start = s->pad - j, stop = s->width - 1 + s->pad - j;
    *first = start > 0 ? low((start + s->stride - 1) / s->stride, s->out_w) : 0;
    *end = stop < 0 ? 0 : low(stop / s->stride + 1, s->out_w);
    if (*end < *first) *end = *first;
}

/* cols [depth, columns]: of every output place of the unit the patch that it sees. */
static void gather(const Shape *s, const Unit *u, const float *x, float *cols) {
    for (int64_t b = 0; b < u->images; b++)
        for (int64_t c = 0; c < s->chans; c++)
            for (int64_t i = 0; i < s->kernel_h; i++)
                for (int64_t j = 0; j < s->kernel_w; j++) {
                    const float *plane = x + (u->first + b) * s->pixels + c * s->height * s->width;
                    float *to = cols + ((c * s->kernel_h + i) * s->kernel_w + j) * u->columns + b * s->area;
                    int64_t first, end;
                    if (s->plain) {
                        memcpy(to, plane, s->area * sizeof(float));
                        continue;
                    }
                    inside(s, j, &first, &end);
                    for (int64_t r = 0; r < u->rows; r++, to += s->out_w) {
                        int64_t h = (u->top + r) * s->stride - s->pad + i;
                        if (h < 0 || h >= s->height) {
                            memset(to, 0, s->out_w * sizeof(float));
                            continue;
                        }
                        const float *line = plane + h * s->width - s->pad + j;
                        for (int64_t w = 0; w < first; w++) to[w] = 0.0f;
                        if (s->stride == 1) memcpy(to + first, line + first, (end - first) * sizeof(float));
                        else for (int64_t w = first; w < end; w++) to[w] = line[w * s->stride];
                        for (int64_t w = end; w < s->out_w; w++) to[w] = 0.0f;
                    }
                }
}

/* The transpose of gather: adds cols to the images. */
static void scatter(const Shape *s, const Unit *u, float *x, const float *cols) {
    for (int64_t b = 0; b < u->images; b++)
        for (int64_t c = 0; c < s->chans; c++)
            for (int64_t i = 0; i < s->kernel_h; i++)
                for (int64_t j = 0; j < s->kernel_w; j++) {
                    float *plane = x + (u->first + b) * s->pixels + c * s->height * s->width;
                    const float *from = cols + ((c * s->kernel_h + i) * s->kernel_w + j) * u->columns + b * s->area;
                    int64_t first, end;
                    inside(s, j, &first, &end);
                    for (int64_t r = 0; r < u->rows; r++, from += s->out_w) {
                        int64_t h = (u->top + r) * s->stride - s->pad + i;
                        if (h < 0 || h >= s->height) continue;
                        float *line = plane + h * s->width - s->pad + j;
                        if (s->stride == 1) for (int64_t w = first; w < end; w++) line[w] += from[w];
                        else for (int64_t w = first; w < end; w++) line[w * s->stride] += from[w];
                    }
                }
}

/* y [batch, out_chans, out_h, out_w] = conv(x [batch, chans, height, width], weight [out_chans, chans, kh, kw]) + bias
 * (or null). sizes: batch, chans, height, width, out_chans, kernel_h, kernel_w, stride, pad. */
int convolution(const float *x, const float *weight, const float *bias, float *y, const int64_t *sizes) {
    Shape s = shape_of(sizes);
    int64_t groups = parts_of(s.batch, s.images), most = s.images * s.rows * s.out_w;
    int own = !s.plain || s.images > 1, failed = 0;
#pragma omp parallel
    {
        /* patches and, of several images, their outputs side by side */
        float *cols = own ? malloc((size_t)(s.depth + (s.images > 1 ? s.out_chans : 0)) * most * sizeof(float)) : 0;
        float *together = s.images > 1 ? cols + s.depth * most : 0;
        if (own && !cols) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp barrier
#pragma omp for collapse(2) schedule(static)
        for (int64_t g = 0; g < groups; g++)
            for (int64_t k = 0; k < s.chunks; k++) {
                if (failed) continue;
                Unit u = unit_of(&s, g, k);
                const float *image = x + u.first * s.pixels;
                float *place = y + u.first * s.out_chans * s.area + u.top * s.out_w, *out = together ? together : place;
                int64_t apart = together ? u.columns : s.area;
                if (own) gather(&s, &u, x, cols);
                if (bias)
                    for (int64_t o = 0; o < s.out_chans; o++)
                        for (int64_t i = 0; i < u.columns; i++) out[o * apart + i] = bias[o];
                cblas_sgemm(ROW_MAJOR, PLAIN, PLAIN, s.out_chans, u.columns, s.depth, 1.0f, weight, s.depth,
                            own ? cols : image + u.top * s.out_w, own ? u.columns : s.area, bias ? 1.0f : 0.0f, out,
                            apart);
                for (int64_t b = 0; together && b < u.images; b++)
                    for (int64_t o = 0; o < s.out_chans; o++)
                        memcpy(place + (b * s.out_chans + o) * s.area, out + o * apart + b * s.area,
                               s.area * sizeof(float));
            }
        free(cols);
    }
    return failed;
}

/* Gradients of the same: dx (or null), dweight, dbias (or null) from dy. */
int convolution_gradient(const float *x, const float *weight, const float *dy, float *dx, float *dweight, float *dbias,
                         const int64_t *sizes) {
    Shape s = shape_of(sizes);
    int64_t groups = parts_of(s.batch, s.images), most = s.images * s.rows * s.out_w;
    int64_t parts = low(omp_get_max_threads(), groups), one = s.out_chans * (s.depth + 1), used = 1;
    int own = !s.plain || s.images > 1, failed = 0;
    /* the first thread sums in place, every other one on its own until all are done */
    float *sums = parts > 1 ? malloc((size_t)(parts - 1) * one * sizeof(float)) : 0;
    if (parts > 1 && !sums) return 1;
#pragma omp parallel num_threads(parts)
    {
        int64_t thread = omp_get_thread_num();
        float *dw = thread ? sums + (thread - 1) * one : dweight, *db = thread ? dw + s.out_chans * s.depth : dbias;
        float *cols = own ? malloc((size_t)(s.depth + (s.images > 1 ? s.out_chans : 0)) * most * sizeof(float)) : 0;
        float *together = s.images > 1 ? cols + s.depth * most : 0, kept = 0.0f;
        if (own && !cols) {
#pragma omp atomic write
            failed = 1;
        }
        if (dbias) memset(db, 0, s.out_chans * sizeof(float));
#pragma omp master
        used = omp_get_num_threads();
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t g = 0; g < groups; g++)
            for (int64_t k = 0; k < (failed ? 0 : s.chunks); k++) {
                Unit u = unit_of(&s, g, k);
                const float *image = x + u.first * s.pixels;
                const float *place = dy + u.first * s.out_chans * s.area + u.top * s.out_w, *grad = place;
                float *found = dx ? dx + u.first * s.pixels : 0;
                int64_t apart = together ? u.columns : s.area;
                if (own) gather(&s, &u, x, cols);
                for (int64_t b = 0; together && b < u.images; b++)
                    for (int64_t o = 0; o < s.out_chans; o++)
                        memcpy(together + o * apart + b * s.area, place + (b * s.out_chans + o) * s.area,
                               s.area * sizeof(float));
                if (together) grad = together;
                cblas_sgemm(ROW_MAJOR, PLAIN, TRANSPOSED, s.out_chans, s.depth, u.columns, 1.0f, grad, apart,
                            own ? cols : image + u.top * s.out_w, own ? u.columns : s.area, kept, dw, s.depth);
                kept = 1.0f;
                for (int64_t o = 0; dbias && o < s.out_chans; o++) {
                    float total = 0.0f;
                    for (int64_t i = 0; i < u.columns; i++) total += grad[o * apart + i];
                    db[o] += total;
                }
                if (!found) continue;
                cblas_sgemm(ROW_MAJOR, TRANSPOSED, PLAIN, s.depth, u.columns, s.out_chans, 1.0f, weight, s.depth, grad,
                            apart, 0.0f, own ? cols : found + u.top * s.out_w, own ? u.columns : s.area);
                if (own && k == 0) memset(found, 0, u.images * s.pixels * sizeof(float));
                if (own) scatter(&s, &u, dx, cols);
            }
        if (kept == 0.0f) memset(dw, 0, s.out_chans * s.depth * sizeof(float));
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t o = 0; o < s.out_chans; o++)
            for (int64_t t = 0; t + 1 < used; t++) {
                const float *from = sums + t * one;
                for (int64_t j = o * s.depth; j < (o + 1) * s.depth; j++) dweight[j] += from[j];
                if (dbias) dbias[o] += from[s.out_chans * s.depth + o];
            }
        free(cols);
    }
    free(sums);
    return failed;
}
