/* The passes over memory that Paddle's CPU kernels run on one thread, or in several passes where one does.
 *
 * Compiled on demand by native/__init__.py and called through ctypes; everything is float32, dense, row-major, and sizes
 * are int64. Every function returns 0, or 1 where there was no memory for its working rows. Sums over rows are kept per thread and then added in the order of the threads: the same result at every run
 * with the same number of threads. The OpenMP runtime is the one that Paddle has loaded, so there is one pool of threads.
 */
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SMALL 16384 /* elements under which waking the other threads costs more than it saves */

/* ---- functions of one element, written without branches so that loops over them become vector code ---- */

/* erf: x P(x^2) / Q(x^2), fitted on [-4, 4] (1.5e-8 from 1 there); error 3e-7 relative in float32. */
static inline float erf_of(float x) {
    x = x > 4.0f ? 4.0f : x;
    x = x < -4.0f ? -4.0f : x;
    float s = x * x;
    float p = 1.974529548e-06f;
    p = p * s + 2.880175489e-04f;
    p = p * s + 4.003613237e-03f;
    p = p * s + 5.346739928e-02f;
    p = p * s + 1.962514176e-01f;
    p = p * s + 1.128378977f;
    float q = 3.747644559e-05f;
    q = q * s + 1.216306425e-03f;
    q = q * s + 1.544441243e-02f;
    q = q * s + 1.16477059e-01f;
    q = q * s + 5.072544569e-01f;
    q = q * s + 1.0f;
    return x * p / q;
}

/* exp: 2^n times a polynomial of the rest, |rest| <= ln(2) / 2; below e^-87 it stays at e^-87. */
static inline float exp_of(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = rintf(x * 1.44269504089f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

#define ROOT_HALF 0.70710678118654752f
#define ROOT_2_OVER_PI 0.79788456080286536f
#define CUBIC 0.044715f

static inline float gelu_erf(float x) { return 0.5f * x * (1.0f + erf_of(x * ROOT_HALF)); }

static inline float gelu_erf_slope(float x) {
    return 0.5f * (1.0f + erf_of(x * ROOT_HALF)) + x * 0.39894228040143268f * exp_of(-0.5f * x * x);
}

/* 0.5 (1 + tanh u) = 1 / (1 + exp(-2u)) */
static inline float gelu_tanh(float x) {
    return x / (1.0f + exp_of(-2.0f * ROOT_2_OVER_PI * (x + CUBIC * x * x * x)));
}

static inline float gelu_tanh_slope(float x) {
    float u = -2.0f * ROOT_2_OVER_PI * (x + CUBIC * x * x * x);
    float e = exp_of(u > 30.0f ? 30.0f : u); /* the slope is 0 there; larger would overflow in the products below */
    float gate = 1.0f / (1.0f + e); /* 1 - gate = e gate, which keeps its digits where gate is nearly 1 */
    return gate + x * gate * (e * gate) * 2.0f * ROOT_2_OVER_PI * (1.0f + 3.0f * CUBIC * x * x);
}

/* ---- bias and GELU: one pass after a matrix product ---- */

/* z [rows, cols] += bias, y = gelu(z). The bias is one value a column (by_row 0), or one a row, row i taking
 * bias[i % by_row]. With y == z only the result is kept. */
#define BIAS_GELU(NAME, GELU)                                                                             \
    int NAME(float *z, const float *bias, float *y, int64_t rows, int64_t cols, int64_t by_row) {         \
        _Pragma("omp parallel for schedule(static) if (rows * cols > SMALL)")                              \
        for (int64_t i = 0; i < rows; i++) {                                                               \
            float *zi = z + i * cols, *yi = y + i * cols;                                                  \
            if (by_row) {                                                                                  \
                float b = bias[i % by_row];                                                                \
                for (int64_t j = 0; j < cols; j++) {                                                       \
                    float v = zi[j] + b;                                                                   \
                    zi[j] = v;                                                                             \
                    yi[j] = GELU(v);                                                                       \
                }                                                                                          \
            } else {                                                                                       \
                for (int64_t j = 0; j < cols; j++) {                                                       \
                    float v = zi[j] + bias[j];                                                             \
                    zi[j] = v;                                                                             \
                    yi[j] = GELU(v);                                                                       \
                }                                                                                          \
            }                                                                                              \
        }                                                                                                  \
        return 0;                                                                                          \
    }
BIAS_GELU(bias_gelu_erf, gelu_erf)
BIAS_GELU(bias_gelu_tanh, gelu_tanh)

/* dz = dy * gelu'(z), and the sums of dz that are the gradient of the bias: over rows (by_row 0, dbias [cols]) or
 * over columns and over the rows i with the same i % by_row (dbias [by_row]). */
#define BIAS_GELU_GRADIENT(NAME, SLOPE)                                                                    \
    int NAME(const float *z, const float *dy, float *dz, float *dbias, int64_t rows, int64_t cols,         \
             int64_t by_row) {                                                                             \
        int64_t width = by_row ? by_row : cols;                                                            \
        int parts = omp_get_max_threads();                                                                 \
        float *sums = calloc((size_t)parts * width, sizeof(float));                                        \
        if (!sums) return 1;                                                                               \
        _Pragma("omp parallel if (rows * cols > SMALL)") {                                                 \
            float *own = sums + (size_t)omp_get_thread_num() * width;                                      \
            _Pragma("omp for schedule(static)")                                                            \
            for (int64_t i = 0; i < rows; i++) {                                                           \
                const float *zi = z + i * cols, *di = dy + i * cols;                                       \
                float *oi = dz + i * cols;                                                                 \
                for (int64_t j = 0; j < cols; j++) oi[j] = di[j] * SLOPE(zi[j]);                           \
                if (by_row) {                                                                              \
                    float total = 0.0f;                                                                    \
                    for (int64_t j = 0; j < cols; j++) total += oi[j];                                     \
                    own[i % by_row] += total;                                                              \
                } else {                                                                                   \
                    for (int64_t j = 0; j < cols; j++) own[j] += oi[j];                                    \
                }                                                                                          \
            }                                                                                              \
        }                                                                                                  \
        memset(dbias, 0, width * sizeof(float));                                                           \
        for (int t = 0; t < parts; t++)                                                                    \
            for (int64_t j = 0; j < width; j++) dbias[j] += sums[(size_t)t * width + j];                   \
        free(sums);                                                                                        \
        return 0;                                                                                          \
    }
BIAS_GELU_GRADIENT(bias_gelu_erf_gradient, gelu_erf_slope)
BIAS_GELU_GRADIENT(bias_gelu_tanh_gradient, gelu_tanh_slope)

/* y = gelu(x) and dx = dy * gelu'(x) over n elements, for GELUs that follow no linear map. */
#define GELU_ALONE(NAME, GELU)                                                        \
    int NAME(const float *x, float *y, int64_t n) {                                  \
        _Pragma("omp parallel for simd schedule(static) if (n > SMALL)")              \
        for (int64_t i = 0; i < n; i++) y[i] = GELU(x[i]);                            \
        return 0;                                                                     \
    }
GELU_ALONE(gelu_erf_forward, gelu_erf)
GELU_ALONE(gelu_tanh_forward, gelu_tanh)
#define GELU_ALONE_GRADIENT(NAME, SLOPE)                                              \
    int NAME(const float *x, const float *dy, float *dx, int64_t n) {                \
        _Pragma("omp parallel for simd schedule(static) if (n > SMALL)")              \
        for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * SLOPE(x[i]);                  \
        return 0;                                                                     \
    }
GELU_ALONE_GRADIENT(gelu_erf_gradient, gelu_erf_slope)
GELU_ALONE_GRADIENT(gelu_tanh_gradient, gelu_tanh_slope)

/* z += bias, by_row as above: a linear map that no GELU follows. */
int bias_add(float *z, const float *bias, int64_t rows, int64_t cols, int64_t by_row) {
#pragma omp parallel for schedule(static) if (rows * cols > SMALL)
    for (int64_t i = 0; i < rows; i++) {
        float *zi = z + i * cols;
        float b = by_row ? bias[i % by_row] : 0.0f;
        if (by_row) for (int64_t j = 0; j < cols; j++) zi[j] += b;
        else for (int64_t j = 0; j < cols; j++) zi[j] += bias[j];
    }
    return 0;
}

/* Sums that are a bias gradient: of the columns of g [rows, cols] (by_row 0), or as in the GELU gradient above. */
int bias_gradient(const float *g, float *dbias, int64_t rows, int64_t cols, int64_t by_row) {
    int64_t width = by_row ? by_row : cols;
    int parts = omp_get_max_threads();
    float *sums = calloc((size_t)parts * width, sizeof(float));
    if (!sums) return 1;
#pragma omp parallel if (rows * cols > SMALL)
    {
        float *own = sums + (size_t)omp_get_thread_num() * width;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            const float *gi = g + i * cols;
            if (by_row) {
                float total = 0.0f;
                for (int64_t j = 0; j < cols; j++) total += gi[j];
                own[i % by_row] += total;
            } else {
                for (int64_t j = 0; j < cols; j++) own[j] += gi[j];
            }
        }
    }
    memset(dbias, 0, width * sizeof(float));
    for (int t = 0; t < parts; t++)
        for (int64_t j = 0; j < width; j++) dbias[j] += sums[(size_t)t * width + j];
    free(sums);
    return 0;
}

/* ---- LayerNorm over the last axis ---- */

/* y = (x - mean) * rstd * weight + bias; mean and rstd [rows] are kept for the gradient. */
int layer_norm(const float *x, const float *weight, const float *bias, float *y, float *mean, float *rstd,
                int64_t rows, int64_t cols, float epsilon) {
#pragma omp parallel for schedule(static) if (rows * cols > SMALL)
    for (int64_t i = 0; i < rows; i++) {
        const float *xi = x + i * cols;
        float *yi = y + i * cols;
        float sum = 0.0f, squares = 0.0f;
        for (int64_t j = 0; j < cols; j++) sum += xi[j];
        float m = sum / cols;
        for (int64_t j = 0; j < cols; j++) squares += (xi[j] - m) * (xi[j] - m);
        float r = 1.0f / sqrtf(squares / cols + epsilon);
        for (int64_t j = 0; j < cols; j++) yi[j] = (xi[j] - m) * r * weight[j] + bias[j];
        mean[i] = m;
        rstd[i] = r;
    }
    return 0;
}

/* dx = rstd * (dy w - mean(dy w) - n mean(dy w n)), n = (x - mean) rstd; dweight = sum(dy n), dbias = sum(dy). */
int layer_norm_gradient(const float *x, const float *weight, const float *mean, const float *rstd, const float *dy,
                        float *dx, float *dweight, float *dbias, int64_t rows, int64_t cols) {
    int parts = omp_get_max_threads();
    float *sums = calloc((size_t)parts * 2 * cols, sizeof(float));
    if (!sums) return 1;
#pragma omp parallel if (rows * cols > SMALL)
    {
        float *dw = sums + (size_t)omp_get_thread_num() * 2 * cols, *db = dw + cols;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            const float *xi = x + i * cols, *gi = dy + i * cols;
            float *oi = dx + i * cols;
            float m = mean[i], r = rstd[i], g_sum = 0.0f, gn_sum = 0.0f;
            for (int64_t j = 0; j < cols; j++) {
                float n = (xi[j] - m) * r, gw = gi[j] * weight[j];
                dw[j] += gi[j] * n;
                db[j] += gi[j];
                g_sum += gw;
                gn_sum += gw * n;
            }
            g_sum /= cols;
            gn_sum /= cols;
            for (int64_t j = 0; j < cols; j++)
                oi[j] = r * (gi[j] * weight[j] - g_sum - (xi[j] - m) * r * gn_sum);
        }
    }
    memset(dweight, 0, cols * sizeof(float));
    memset(dbias, 0, cols * sizeof(float));
    for (int t = 0; t < parts; t++)
        for (int64_t j = 0; j < cols; j++) {
            dweight[j] += sums[(size_t)t * 2 * cols + j];
            dbias[j] += sums[(size_t)t * 2 * cols + cols + j];
        }
    free(sums);
    return 0;
}

/* ---- CycleFC: channel c reads position 0, +1, -1 along one axis for c % 3 = 0, 1, 2; zero outside the map ---- */

/* x, y [batch, height, width, channels]; along is 1 for the height, 2 for the width; direction -1 is the gradient. */
int cycle_shift(const int32_t *x, int32_t *y, int64_t batch, int64_t height, int64_t width, int64_t channels,
                int64_t along, int64_t direction) {
    /* bit masks instead of branches; the last row of the buffer is what lies outside */
    int32_t *masks = calloc((size_t)4 * channels, sizeof(int32_t));
    if (!masks) return 1;
    int32_t *stay = masks, *next = masks + channels, *before = masks + 2 * channels, *outside = masks + 3 * channels;
    for (int64_t c = 0; c < channels; c++) masks[(c % 3) * channels + c] = -1;
    int64_t step = (along == 1 ? width : 1) * channels, end = along == 1 ? height : width;
#pragma omp parallel for collapse(2) schedule(static) if (batch * height * width * channels > SMALL)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < height; h++)
            for (int64_t w = 0; w < width; w++) {
                int64_t at = ((b * height + h) * width + w) * channels, place = along == 1 ? h : w;
                const int32_t *here = x + at, *after = place + 1 < end ? here + step : outside,
                              *last = place > 0 ? here - step : outside;
                const int32_t *plus = direction > 0 ? after : last, *minus = direction > 0 ? last : after;
                int32_t *out = y + at;
                for (int64_t c = 0; c < channels; c++)
                    out[c] = (here[c] & stay[c]) | (plus[c] & next[c]) | (minus[c] & before[c]);
            }
    free(masks);
    return 0;
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
    return 0;
}

/* Its gradient, one for all three: dx [batch, places, chans] = dmean / places. */
int branch_mean_gradient(const float *dmean, float *dx, int64_t batch, int64_t places, int64_t chans) {
#pragma omp parallel for collapse(2) schedule(static) if (batch * places * chans > SMALL)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t p = 0; p < places; p++)
            for (int64_t c = 0; c < chans; c++) dx[(b * places + p) * chans + c] = dmean[b * chans + c] / places;
    return 0;
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
    return 0;
}

/* dx_k = a_k dy and da_k = sum over places of x_k dy. */
int weigh_branches_gradient(const float *x0, const float *x1, const float *x2, const float *a0, const float *a1,
                            const float *a2, const float *dy, float *dx0, float *dx1, float *dx2, float *da0, float *da1,
                            float *da2, int64_t batch, int64_t places, int64_t chans) {
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
    return 0;
}

/* ---- depth-wise convolution of [batch, height, width, chans] with [chans, kernel, kernel], stride 1, same size ---- */

/* taps [kernel * kernel, chans]: the weights with the channels last, turned by 180 degrees where flipped. */
static float *taps_of(const float *weight, int64_t kernel, int64_t chans, int flipped) {
    int64_t count = kernel * kernel;
    float *taps = malloc((size_t)count * chans * sizeof(float));
    for (int64_t k = 0; taps && k < count; k++)
        for (int64_t c = 0; c < chans; c++) taps[k * chans + c] = weight[c * count + (flipped ? count - 1 - k : k)];
    return taps;
}

/* y = conv(x, weight) + bias (or null), or, flipped and without bias, dx from dy. */
int depthwise(const float *x, const float *weight, const float *bias, float *y, int64_t batch, int64_t height,
              int64_t width, int64_t chans, int64_t kernel, int64_t flipped) {
    float *taps = taps_of(weight, kernel, chans, flipped != 0);
    if (!taps) return 1;
    int64_t half = kernel / 2;
#pragma omp parallel for collapse(2) schedule(static) if (batch * height * width * chans > SMALL)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < height; h++)
            for (int64_t w = 0; w < width; w++) {
                float *out = y + ((b * height + h) * width + w) * chans;
                if (bias) memcpy(out, bias, chans * sizeof(float));
                else memset(out, 0, chans * sizeof(float));
                for (int64_t i = 0; i < kernel; i++)
                    for (int64_t j = 0; j < kernel; j++) {
                        int64_t hh = h + i - half, ww = w + j - half;
                        if (hh < 0 || hh >= height || ww < 0 || ww >= width) continue;
                        const float *in = x + ((b * height + hh) * width + ww) * chans;
                        const float *tap = taps + (i * kernel + j) * chans;
                        for (int64_t c = 0; c < chans; c++) out[c] += in[c] * tap[c];
                    }
            }
    free(taps);
    return 0;
}

/* dweight [chans, kernel, kernel] and dbias (or null) of the same. */
int depthwise_weights_gradient(const float *x, const float *dy, float *dweight, float *dbias, int64_t batch,
                               int64_t height, int64_t width, int64_t chans, int64_t kernel) {
    int64_t count = kernel * kernel, one = (count + 1) * chans, half = kernel / 2;
    int parts = omp_get_max_threads();
    float *sums = calloc((size_t)parts * one, sizeof(float));
    if (!sums) return 1;
#pragma omp parallel if (batch * height * width * chans > SMALL)
    {
        float *own = sums + (size_t)omp_get_thread_num() * one;
#pragma omp for collapse(2) schedule(static)
        for (int64_t b = 0; b < batch; b++)
            for (int64_t h = 0; h < height; h++)
                for (int64_t w = 0; w < width; w++) {
                    const float *g = dy + ((b * height + h) * width + w) * chans;
                    float *total = own + count * chans;
                    for (int64_t c = 0; c < chans; c++) total[c] += g[c];
                    for (int64_t i = 0; i < kernel; i++)
                        for (int64_t j = 0; j < kernel; j++) {
                            int64_t hh = h + i - half, ww = w + j - half;
                            if (hh < 0 || hh >= height || ww < 0 || ww >= width) continue;
                            const float *in = x + ((b * height + hh) * width + ww) * chans;
                            float *sum = own + (i * kernel + j) * chans;
                            for (int64_t c = 0; c < chans; c++) sum[c] += in[c] * g[c];
                        }
                }
    }
    for (int64_t c = 0; c < chans; c++) {
        for (int64_t k = 0; k < count; k++) {
            float total = 0.0f;
            for (int t = 0; t < parts; t++) total += sums[(size_t)t * one + k * chans + c];
            dweight[c * count + k] = total;
        }
        float total = 0.0f;
        for (int t = 0; dbias && t < parts; t++) total += sums[(size_t)t * one + count * chans + c];
        if (dbias) dbias[c] = total;
    }
    free(sums);
    return 0;
}

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
