/* Convolution of [batch, chans, height, width], by matrix products. */
#include "common.h"

/* ---- convolution: patches of a few output rows at a time, small enough for the cache, times the weights ---- */

/* Paddle's MKL; weak, because builds without MKL have none: has_products() tells. In a parallel region it uses one thread. */
extern void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                        const float *b, int ldb, float beta, float *c, int ldc) __attribute__((weak));
enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 };

int has_products(void) { return cblas_sgemm != 0; }

#define PATCH_BYTES 786432 /* of one thread's patches, to stay in its level-2 cache */

typedef struct {
    int64_t batch, chans, height, width, out_chans, kernel_h, kernel_w, stride, pad, out_h, out_w;
} Shape;

static inline int64_t low(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t rows_at_once(const Shape *s) {
    int64_t bytes = s->chans * s->kernel_h * s->kernel_w * s->out_w * (int64_t)sizeof(float);
    int64_t rows = PATCH_BYTES / bytes;
    return rows < 1 ? 1 : low(rows, s->out_h);
}

/* The outputs [first, end) of one row whose input column ow * stride - pad + j lies inside the image. */
static inline void inside(const Shape *s, int64_t j, int64_t *first, int64_t *end) {
    int64_t start = s->pad - j, stop = s->width - 1 + s->pad - j;
    *first = start > 0 ? low((start + s->stride - 1) / s->stride, s->out_w) : 0;
    *end = stop < 0 ? 0 : low(stop / s->stride + 1, s->out_w);
    if (*end < *first) *end = *first;
}

/* cols [chans * kernel_h * kernel_w, rows * out_w] of output rows top .. top + rows of one image. */
static void gather(const Shape *s, const float *image, int64_t top, int64_t rows, float *cols) {
    for (int64_t c = 0; c < s->chans; c++)
        for (int64_t i = 0; i < s->kernel_h; i++)
            for (int64_t j = 0; j < s->kernel_w; j++) {
                int64_t first, end;
                inside(s, j, &first, &end);
                for (int64_t r = 0; r < rows; r++, cols += s->out_w) {
                    int64_t h = (top + r) * s->stride - s->pad + i;
                    if (h < 0 || h >= s->height) {
                        memset(cols, 0, s->out_w * sizeof(float));
                        continue;
                    }
                    const float *line = image + (c * s->height + h) * s->width - s->pad + j;
                    for (int64_t w = 0; w < first; w++) cols[w] = 0.0f;
                    if (s->stride == 1) memcpy(cols + first, line + first, (end - first) * sizeof(float));
                    else for (int64_t w = first; w < end; w++) cols[w] = line[w * s->stride];
                    for (int64_t w = end; w < s->out_w; w++) cols[w] = 0.0f;
                }
            }
}

/* The transpose of gather: adds cols to the image. */
static void scatter(const Shape *s, float *image, int64_t top, int64_t rows, const float *cols) {
    for (int64_t c = 0; c < s->chans; c++)
        for (int64_t i = 0; i < s->kernel_h; i++)
            for (int64_t j = 0; j < s->kernel_w; j++) {
                int64_t first, end;
                inside(s, j, &first, &end);
                for (int64_t r = 0; r < rows; r++, cols += s->out_w) {
                    int64_t h = (top + r) * s->stride - s->pad + i;
                    if (h < 0 || h >= s->height) continue;
                    float *line = image + (c * s->height + h) * s->width - s->pad + j;
                    if (s->stride == 1) for (int64_t w = first; w < end; w++) line[w] += cols[w];
                    else for (int64_t w = first; w < end; w++) line[w * s->stride] += cols[w];
                }
            }
}

static Shape shape_of(const int64_t *sizes) {
    Shape s = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], sizes[8], 0, 0};
    s.out_h = (s.height + 2 * s.pad - s.kernel_h) / s.stride + 1;
    s.out_w = (s.width + 2 * s.pad - s.kernel_w) / s.stride + 1;
    return s;
}

/* y [batch, out_chans, out_h, out_w] = conv(x [batch, chans, height, width], weight [out_chans, chans, kh, kw]) + bias
 * (or null). sizes: batch, chans, height, width, out_chans, kernel_h, kernel_w, stride, pad. */
int convolution(const float *x, const float *weight, const float *bias, float *y, const int64_t *sizes) {
    Shape s = shape_of(sizes);
    int64_t depth = s.chans * s.kernel_h * s.kernel_w, step = rows_at_once(&s), area = s.out_h * s.out_w;
    int64_t chunks = (s.out_h + step - 1) / step;
    int plain = depth == s.chans && s.stride == 1 && s.pad == 0, failed = 0;
#pragma omp parallel
    {
        float *cols = plain ? 0 : malloc((size_t)depth * step * s.out_w * sizeof(float));
        if (!plain && !cols) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp barrier
#pragma omp for collapse(2) schedule(static)
        for (int64_t b = 0; b < s.batch; b++)
            for (int64_t k = 0; k < chunks; k++) {
                if (failed) continue;
                int64_t top = k * step, rows = low(step, s.out_h - top), n = rows * s.out_w;
                const float *image = x + b * s.chans * s.height * s.width;
                float *out = y + b * s.out_chans * area + top * s.out_w;
                if (!plain) gather(&s, image, top, rows, cols);
                if (bias)
                    for (int64_t o = 0; o < s.out_chans; o++)
                        for (int64_t i = 0; i < n; i++) out[o * area + i] = bias[o];
                cblas_sgemm(ROW_MAJOR, PLAIN, PLAIN, s.out_chans, n, depth, 1.0f, weight, depth,
                            plain ? image + top * s.out_w : cols, plain ? area : n, bias ? 1.0f : 0.0f, out, area);
            }
        free(cols);
    }
    return failed;
}

/* Gradients of the same: dx (or null), dweight, dbias (or null) from dy. */
int convolution_gradient(const float *x, const float *weight, const float *dy, float *dx, float *dweight, float *dbias,
                         const int64_t *sizes) {
    Shape s = shape_of(sizes);
    int64_t depth = s.chans * s.kernel_h * s.kernel_w, step = rows_at_once(&s), area = s.out_h * s.out_w;
    int64_t one = s.out_chans * (depth + 1);
    int plain = depth == s.chans && s.stride == 1 && s.pad == 0, parts = omp_get_max_threads(), failed = 0;
    float *sums = calloc((size_t)parts * one, sizeof(float));
    if (!sums) return 1;
#pragma omp parallel num_threads(parts)
    {
        float *dw = sums + (size_t)omp_get_thread_num() * one, *db = dw + s.out_chans * depth;
        float *cols = plain ? 0 : malloc((size_t)depth * step * s.out_w * sizeof(float));
        if (!plain && !cols) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t b = 0; b < s.batch; b++) {
            if (failed) continue;
            int64_t pixels = s.chans * s.height * s.width;
            const float *image = x + b * pixels;
            float *found = dx ? dx + b * pixels : 0;
            if (found && !plain) memset(found, 0, pixels * sizeof(float));
            for (int64_t top = 0; top < s.out_h; top += step) {
                int64_t rows = low(step, s.out_h - top), n = rows * s.out_w;
                const float *grad = dy + b * s.out_chans * area + top * s.out_w;
                if (!plain) gather(&s, image, top, rows, cols);
                cblas_sgemm(ROW_MAJOR, PLAIN, TRANSPOSED, s.out_chans, depth, n, 1.0f, grad, area,
                            plain ? image + top * s.out_w : cols, plain ? area : n, 1.0f, dw, depth);
                for (int64_t o = 0; dbias && o < s.out_chans; o++) {
                    float total = 0.0f;
                    for (int64_t i = 0; i < n; i++) total += grad[o * area + i];
                    db[o] += total;
                }
                if (!found) continue;
                cblas_sgemm(ROW_MAJOR, TRANSPOSED, PLAIN, depth, n, s.out_chans, 1.0f, weight, depth, grad, area, 0.0f,
                            plain ? found + top * s.out_w : cols, plain ? area : n);
                if (!plain) scatter(&s, found, top, rows, cols);
            }
        }
        free(cols);
    }
    memset(dweight, 0, s.out_chans * depth * sizeof(float));
    if (dbias) memset(dbias, 0, s.out_chans * sizeof(float));
    for (int t = 0; t < parts; t++) {
        const float *dw = sums + (size_t)t * one, *db = dw + s.out_chans * depth;
        for (int64_t j = 0; j < s.out_chans * depth; j++) dweight[j] += dw[j];
        for (int64_t o = 0; dbias && o < s.out_chans; o++) dbias[o] += db[o];
    }
    free(sums);
    return failed;
}
