/* Convolution of [batch, chans, height, width], by matrix products. */
#include "common.h"

/* ---- convolution: patches of a few output rows at a time, small enough for the cache, times the weights ---- */

/* Paddle's MKL, on one thread in a parallel region; weak, because builds without MKL have none: see has_products(). */
extern void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                        const float *b, int ldb, float beta, float *c, int ldc) __attribute__((weak));
enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 };

int has_products(void) { return cblas_sgemm != 0; }

#define PATCH_BYTES 786432 /* of one thread's patches, to stay in its level-2 cache; more where weights are larger */

/* What is multiplied at once is a unit: rows of one image or, of small ones, some whole images. */
typedef struct {
    int64_t batch, chans, height, width, out_chans, kernel_h, kernel_w, stride, pad, out_h, out_w;
    int64_t depth, area, pixels;  /* of a patch, of an image's output in one channel, of an image */
    int64_t images, rows, chunks; /* of a unit; units of one image (1 where a unit has several) */
    int plain;                    /* 1 x 1: an image is its own patches */
} Shape;

/* The shape of these sizes; false where there is no such convolution. Only the batch may be 0. */
static int fill_shape(Shape *shape, const int64_t *sizes) {
    Shape s = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], sizes[8]};
    if (s.batch < 0 || s.chans < 1 || s.height < 1 || s.width < 1 || s.out_chans < 1 || s.kernel_h < 1 ||
        s.kernel_w < 1 || s.stride < 1 || s.pad < 0)
        return 0;
    s.out_h = output_side(s.height, s.kernel_h, s.stride, s.pad);
    s.out_w = output_side(s.width, s.kernel_w, s.stride, s.pad);
    if (s.out_h < 1 || s.out_w < 1) return 0;
    s.depth = s.chans * s.kernel_h * s.kernel_w;
    s.area = s.out_h * s.out_w;
    s.pixels = s.chans * s.height * s.width;
    s.plain = s.depth == s.chans && s.stride == 1 && s.pad == 0;
    int64_t columns = PATCH_BYTES / (s.depth * (int64_t)sizeof(float));
    columns = max_of(columns, s.out_chans);
    int64_t share = ceil_div(s.batch, omp_get_max_threads()), most = min_of(columns / s.area, share);
    s.images = most < 2 ? 1 : ceil_div(share, ceil_div(share, most)); /* as many units for each thread */
    s.rows = columns < s.out_w ? 1 : min_of(columns / s.out_w, s.out_h);
    s.chunks = ceil_div(s.out_h, s.rows);
    s.rows = ceil_div(s.out_h, s.chunks);
    *shape = s;
    return 1;
}

typedef struct {
    int64_t first, images, top, rows, columns;
} Unit;

static Unit unit_of(const Shape *s, int64_t group, int64_t chunk) {
    Unit u = {group * s->images, min_of(s->images, s->batch - group * s->images), chunk * s->rows, 0, 0};
    u.rows = min_of(s->rows, s->out_h - u.top);
    u.columns = u.images * u.rows * s->out_w;
    return u;
}

/* The outputs [first, end) of one row whose input column ow * stride - pad + j lies inside the image. */
static inline void inside(const Shape *s, int64_t j, int64_t *first, int64_t *end) {
    int64_t start = s->pad - j, stop = s->width - 1 + s->pad - j;
    *first = min_of(ceil_div(max_of(start, 0), s->stride), s->out_w);
    *end = max_of(stop < 0 ? 0 : min_of(stop / s->stride + 1, s->out_w), *first);
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
    Shape s;
    if (!has_products()) return NO_PRODUCTS;
    if (!fill_shape(&s, sizes)) return BAD_SIZES;
    int64_t groups = ceil_div(s.batch, s.images), most = s.images * s.rows * s.out_w;
    int own = !s.plain || s.images > 1, failed = DONE;
#pragma omp parallel
    {
        /* patches and, of several images, their outputs side by side */
        float *cols = own ? space((s.depth + (s.images > 1 ? s.out_chans : 0)) * most, sizeof(float)) : 0;
        float *together = s.images > 1 ? cols + s.depth * most : 0;
        if (own && !cols) {
#pragma omp atomic write
            failed = NO_MEMORY;
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
    Shape s;
    if (!has_products()) return NO_PRODUCTS;
    if (!fill_shape(&s, sizes)) return BAD_SIZES;
    int64_t groups = ceil_div(s.batch, s.images), most = s.images * s.rows * s.out_w;
    int64_t parts = max_of(min_of(omp_get_max_threads(), groups), 1), one = s.out_chans * (s.depth + 1), used = 1;
    int own = !s.plain || s.images > 1, failed = DONE;
    /* the first thread sums in place, every other one on its own until all are done */
    float *sums = parts > 1 ? space((parts - 1) * one, sizeof(float)) : 0;
    if (parts > 1 && !sums) return NO_MEMORY;
#pragma omp parallel num_threads(parts)
    {
        int64_t thread = omp_get_thread_num();
        float *dw = thread ? sums + (thread - 1) * one : dweight, *db = thread ? dw + s.out_chans * s.depth : dbias;
        float *cols = own ? space((s.depth + (s.images > 1 ? s.out_chans : 0)) * most, sizeof(float)) : 0;
        float *together = s.images > 1 ? cols + s.depth * most : 0, kept = 0.0f;
        if (own && !cols) {
#pragma omp atomic write
            failed = NO_MEMORY;
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
                float *dimage = dx ? dx + u.first * s.pixels : 0;
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
                if (!dimage) continue;
                cblas_sgemm(ROW_MAJOR, TRANSPOSED, PLAIN, s.depth, u.columns, s.out_chans, 1.0f, weight, s.depth, grad,
                            apart, 0.0f, own ? cols : dimage + u.top * s.out_w, own ? u.columns : s.area);
                if (own && k == 0) memset(dimage, 0, u.images * s.pixels * sizeof(float));
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
