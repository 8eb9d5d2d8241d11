/* Bias and GELU over rows. */
#include "common.h"
#include "functions.h"

#define ROOT_HALF 0.70710678118654752f
#define ROOT_2_OVER_PI 0.79788456080286536f
#define CUBIC 0.044715f

/* x within [-reach, reach], for products with a factor that vanishes beyond; NaN stays NaN. */
static inline float near_of(float x, float reach) {
    x = x > reach ? reach : x;
    return x < -reach ? -reach : x;
}

static inline float gelu_erf(float x) {
    float y = 0.5f * x * (1.0f + erf_of(x * ROOT_HALF));
    return x < -6.0f ? 0.0f : y; /* -6e-9 there; a rounding error of erf would grow with x */
}

static inline float gelu_erf_slope(float x) {
    float t = near_of(x, 14.0f);
    return 0.5f * (1.0f + erf_of(x * ROOT_HALF)) + t * 0.39894228040143268f * exp_of(-0.5f * t * t);
}

/* 0.5 (1 + tanh u) = 1 / (1 + exp(-2u)) */
static inline float gelu_tanh(float x) {
    float t = x < -14.0f ? -14.0f : x;
    return t / (1.0f + exp_of(-2.0f * ROOT_2_OVER_PI * (x + CUBIC * x * x * x)));
}

static inline float gelu_tanh_slope(float x) {
    float u = -2.0f * ROOT_2_OVER_PI * (x + CUBIC * x * x * x), t = near_of(x, 14.0f);
    float e = exp_of(u > 30.0f ? 30.0f : u); /* the slope is 0 there; larger would overflow in the products below */
    float gate = 1.0f / (1.0f + e); /* 1 - gate = e gate, which keeps its digits where gate is nearly 1 */
    return gate + t * gate * (e * gate) * 2.0f * ROOT_2_OVER_PI * (1.0f + 3.0f * CUBIC * t * t);
}

/* ---- bias and GELU: one pass after a matrix product ---- */

/* z [rows, cols] += bias, y = gelu(z). The bias is one value a column (units 0), or one a row, row i taking
 * bias[i % units]. With y == z only the result is kept. */
#define BIAS_GELU(NAME, GELU)                                                                             \
    int NAME(float *z, const float *bias, float *y, int64_t rows, int64_t cols, int64_t units) {         \
        _Pragma("omp parallel for schedule(static) if (rows * cols > SMALL)")                              \
        for (int64_t i = 0; i < rows; i++) {                                                               \
            float *zi = z + i * cols, *yi = y + i * cols;                                                  \
            if (units) {                                                                                  \
                float b = bias[i % units];                                                                \
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
        return DONE;                                                                                       \
    }
BIAS_GELU(bias_gelu_erf, gelu_erf)
BIAS_GELU(bias_gelu_tanh, gelu_tanh)

/* dz = dy * gelu'(z), and the sums of dz that are the gradient of the bias: over rows (units 0, dbias [cols]) or
 * over columns and over the rows i with the same i % units (dbias [units]). */
#define BIAS_GELU_GRADIENT(NAME, SLOPE)                                                                    \
    int NAME(const float *z, const float *dy, float *dz, float *dbias, int64_t rows, int64_t cols,         \
             int64_t units) {                                                                             \
        int64_t width = units ? units : cols;                                                            \
        int parts = omp_get_max_threads();                                                                 \
        float *sums = zeros(parts * width, sizeof(float));                                                 \
        if (!sums) return NO_MEMORY;                                                                       \
        _Pragma("omp parallel if (rows * cols > SMALL)") {                                                 \
            float *own = sums + (size_t)omp_get_thread_num() * width;                                      \
            _Pragma("omp for schedule(static)")                                                            \
            for (int64_t i = 0; i < rows; i++) {                                                           \
                const float *zi = z + i * cols, *di = dy + i * cols;                                       \
                float *oi = dz + i * cols;                                                                 \
                for (int64_t j = 0; j < cols; j++) oi[j] = di[j] * SLOPE(zi[j]);                           \
                if (units) {                                                                              \
                    float total = 0.0f;                                                                    \
                    for (int64_t j = 0; j < cols; j++) total += oi[j];                                     \
                    own[i % units] += total;                                                              \
                } else {                                                                                   \
                    for (int64_t j = 0; j < cols; j++) own[j] += oi[j];                                    \
                }                                                                                          \
            }                                                                                              \
        }                                                                                                  \
        join_parts(dbias, sums, parts, width, width);                                                      \
        free(sums);                                                                                        \
        return DONE;                                                                                       \
    }
BIAS_GELU_GRADIENT(bias_gelu_erf_gradient, gelu_erf_slope)
BIAS_GELU_GRADIENT(bias_gelu_tanh_gradient, gelu_tanh_slope)

/* y = gelu(x) and dx = dy * gelu'(x) over n elements, for GELUs that follow no linear map. */
#define GELU_ALONE(NAME, GELU)                                                        \
    int NAME(const float *x, float *y, int64_t n) {                                  \
        _Pragma("omp parallel for simd schedule(static) if (n > SMALL)")              \
        for (int64_t i = 0; i < n; i++) y[i] = GELU(x[i]);                            \
        return DONE;                                                                  \
    }
GELU_ALONE(gelu_erf_forward, gelu_erf)
GELU_ALONE(gelu_tanh_forward, gelu_tanh)
#define GELU_ALONE_GRADIENT(NAME, SLOPE)                                              \
    int NAME(const float *x, const float *dy, float *dx, int64_t n) {                \
        _Pragma("omp parallel for simd schedule(static) if (n > SMALL)")              \
        for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * SLOPE(x[i]);                  \
        return DONE;                                                                  \
    }
GELU_ALONE_GRADIENT(gelu_erf_gradient, gelu_erf_slope)
GELU_ALONE_GRADIENT(gelu_tanh_gradient, gelu_tanh_slope)

/* z += bias, units as above: a linear map that no GELU follows. */
int bias_add(float *z, const float *bias, int64_t rows, int64_t cols, int64_t units) {
#pragma omp parallel for schedule(static) if (rows * cols > SMALL)
    for (int64_t i = 0; i < rows; i++) {
        float *zi = z + i * cols;
        float b = units ? bias[i % units] : 0.0f;
        if (units) for (int64_t j = 0; j < cols; j++) zi[j] += b;
        else for (int64_t j = 0; j < cols; j++) zi[j] += bias[j];
    }
    return DONE;
}

/* Sums that are a bias gradient: of the columns of g [rows, cols] (units 0), or as in the GELU gradient above. */
int bias_gradient(const float *g, float *dbias, int64_t rows, int64_t cols, int64_t units) {
    int64_t width = units ? units : cols;
    int parts = omp_get_max_threads();
    float *sums = zeros(parts * width, sizeof(float));
    if (!sums) return NO_MEMORY;
#pragma omp parallel if (rows * cols > SMALL)
    {
        float *own = sums + (size_t)omp_get_thread_num() * width;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            const float *gi = g + i * cols;
            if (units) {
                float total = 0.0f;
                for (int64_t j = 0; j < cols; j++) total += gi[j];
                own[i % units] += total;
            } else {
                for (int64_t j = 0; j < cols; j++) own[j] += gi[j];
            }
        }
    }
    join_parts(dbias, sums, parts, width, width);
    free(sums);
    return DONE;
}
