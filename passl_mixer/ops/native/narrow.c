/* Passes over memory beside products in bfloat16: float32 to bfloat16, the sums of bias gradients, GELU. */
#include "gelu.h"

/* The nearest bfloat16, ties to even; NaN stays NaN. */
static inline uint16_t narrow_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded;
}

static inline float wide_of(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float wide;
    memcpy(&wide, &bits, 4);
    return wide;
}

/* y = x in bfloat16. */
int narrow(const float *restrict x, uint16_t *restrict y, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > SMALL)
    for (int64_t i = 0; i < n; i++) y[i] = narrow_of(x[i]);
    return DONE;
}

/* Bias gradients: sums of columns [cols] (units 0), or of the rows i with the same i % units [units]. Of so many rows
 * they are float, of all rows of a thread double. */
#define ROWS 64

/* `own` is zeroed; PASS computes row i, and gi[j] is what is summed. */
#define SUMS_OF_ROWS(PASS)                                                                              \
    int64_t width = units ? units : cols;                                                               \
    int parts = omp_get_max_threads();                                                                  \
    double *sums = zeros(parts * 2 * width, sizeof(double));                                            \
    if (!sums) return NO_MEMORY;                                                                        \
    _Pragma("omp parallel if (rows * cols > SMALL)") {                                                  \
        int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();                         \
        int64_t first = share_start(rows, thread, threads), stop = share_start(rows, thread + 1, threads); \
        double *restrict own = sums + (size_t)thread * 2 * width;                                       \
        float *restrict few = (float *)(own + width);                                                   \
        for (int64_t i = first; i < stop; i++) {                                                        \
            float total = 0.0f;                                                                         \
            PASS                                                                                        \
            if (units) own[i % units] += total;                                                         \
            else if ((i - first) % ROWS == ROWS - 1 || i == stop - 1)                                   \
                for (int64_t j = 0; j < cols; j++) {                                                    \
                    own[j] += few[j];                                                                   \
                    few[j] = 0.0f;                                                                      \
                }                                                                                       \
        }                                                                                               \
    }                                                                                                   \
    for (int64_t j = 0; j < width; j++) {                                                               \
        double all = 0.0;                                                                               \
        for (int t = 0; t < parts; t++) all += sums[(size_t)t * 2 * width + j];                         \
        dbias[j] = all;                                                                                 \
    }                                                                                                   \
    free(sums);                                                                                         \
    return DONE;

/* y = g in bfloat16, and the sums of g that are a bias gradient. */
int narrow_gradient(const float *restrict g, uint16_t *restrict y, float *restrict dbias, int64_t rows, int64_t cols,
                    int64_t units) {
    SUMS_OF_ROWS({
        const float *restrict gi = g + i * cols;
        uint16_t *restrict yi = y + i * cols;
        if (units)
            for (int64_t j = 0; j < cols; j++) {
                yi[j] = narrow_of(gi[j]);
                total += gi[j];
            }
        else
            for (int64_t j = 0; j < cols; j++) {
                yi[j] = narrow_of(gi[j]);
                few[j] += gi[j];
            }
    })
}

/* y = gelu(z). */
#define NARROW_GELU(NAME, GELU)                                                              \
    int NAME(const uint16_t *restrict z, uint16_t *restrict y, int64_t n) {                  \
        _Pragma("omp parallel for simd schedule(static) if (n > SMALL)")                     \
        for (int64_t i = 0; i < n; i++) y[i] = narrow_of(GELU(wide_of(z[i])));               \
        return DONE;                                                                         \
    }
NARROW_GELU(narrow_gelu_erf, gelu_erf)
NARROW_GELU(narrow_gelu_tanh, gelu_tanh)

/* dz = dy * gelu'(z), and the sums of dz that are the gradient of the bias. dz may be dy. */
#define NARROW_GELU_GRADIENT(NAME, SLOPE)                                                               \
    int NAME(const uint16_t *z, const uint16_t *dy, uint16_t *dz, float *dbias, int64_t rows, int64_t cols, \
             int64_t units) {                                                                           \
        SUMS_OF_ROWS({                                                                                  \
            const uint16_t *zi = z + i * cols;                                                          \
            const uint16_t *gi = dy + i * cols;                                                         \
            uint16_t *di = dz + i * cols;                                                               \
            if (units) {                                                                                \
                _Pragma("omp simd reduction(+ : total)")                                                \
                for (int64_t j = 0; j < cols; j++) {                                                    \
                    float d = wide_of(gi[j]) * SLOPE(wide_of(zi[j]));                                   \
                    di[j] = narrow_of(d);                                                               \
                    total += d;                                                                         \
                }                                                                                       \
            } else {                                                                                    \
                _Pragma("omp simd")                                                                     \
                for (int64_t j = 0; j < cols; j++) {                                                    \
                    float d = wide_of(gi[j]) * SLOPE(wide_of(zi[j]));                                   \
                    di[j] = narrow_of(d);                                                               \
                    few[j] += d;                                                                        \
                }                                                                                       \
            }                                                                                           \
        })                                                                                              \
    }
NARROW_GELU_GRADIENT(narrow_gelu_erf_gradient, gelu_erf_slope)
NARROW_GELU_GRADIENT(narrow_gelu_tanh_gradient, gelu_tanh_slope)
