/* gMLP's gate: the halves of the channels, and the product of one with what became of the other. */
#include "common.h"

/* u, v [rows, half] are the first and the second half of every row of x [rows, 2 * half]. */
int split_halves(const float *restrict x, float *restrict u, float *restrict v, int64_t rows, int64_t half) {
#pragma omp parallel for schedule(static) if (rows * half > SMALL)
    for (int64_t r = 0; r < rows; r++) {
        memcpy(u + r * half, x + 2 * r * half, half * sizeof(float));
        memcpy(v + r * half, x + (2 * r + 1) * half, half * sizeof(float));
    }
    return DONE;
}

/* The way back. */
int join_halves(const float *restrict u, const float *restrict v, float *restrict x, int64_t rows, int64_t half) {
#pragma omp parallel for schedule(static) if (rows * half > SMALL)
    for (int64_t r = 0; r < rows; r++) {
        memcpy(x + 2 * r * half, u + r * half, half * sizeof(float));
        memcpy(x + (2 * r + 1) * half, v + r * half, half * sizeof(float));
    }
    return DONE;
}

int product(const float *restrict a, const float *restrict b, float *restrict y, int64_t count) {
#pragma omp parallel for schedule(static) if (count > SMALL)
    for (int64_t i = 0; i < count; i++) y[i] = a[i] * b[i];
    return DONE;
}

/* da = dy b and db = dy a. */
int product_gradient(const float *restrict a, const float *restrict b, const float *restrict dy, float *restrict da,
                     float *restrict db, int64_t count) {
#pragma omp parallel for schedule(static) if (count > SMALL)
    for (int64_t i = 0; i < count; i++) {
        da[i] = dy[i] * b[i];
        db[i] = dy[i] * a[i];
    }
    return DONE;
}
