/* One factor and one summand per channel, over rows. */
#include "common.h"

/* Sums of so many rows are kept in float, those of all rows in double: a large batch of maps has 100 000 rows. */
#define ROWS 64

/* y = x * scale + shift + residual; x, y and residual [rows, cols], scale and shift [cols], the last two or null. */
int affine(const float *restrict x, const float *restrict scale, const float *restrict shift,
           const float *restrict residual, float *restrict y, int64_t rows, int64_t cols) {
#pragma omp parallel for schedule(static) if (rows * cols > SMALL)
    for (int64_t i = 0; i < rows; i++) {
        const float *xi = x + i * cols, *ri = residual + (residual ? i * cols : 0);
        float *yi = y + i * cols;
        if (residual) for (int64_t j = 0; j < cols; j++) yi[j] = ri[j] + xi[j] * scale[j];
        else if (shift) for (int64_t j = 0; j < cols; j++) yi[j] = xi[j] * scale[j] + shift[j];
        else for (int64_t j = 0; j < cols; j++) yi[j] = xi[j] * scale[j];
    }
    return DONE;
}

/* dx = dy * scale, dscale = sum over rows of dy * x, dshift = sum over rows of dy, dresidual = dy; each or null. */
int affine_gradient(const float *restrict x, const float *restrict scale, const float *restrict dy, float *restrict dx,
                    float *restrict dscale, float *restrict dshift, float *restrict dresidual, int64_t rows,
                    int64_t cols) {
    int parts = omp_get_max_threads();
    double *sums = zeros(parts * 3 * cols, sizeof(double)); /* of each thread: two in double, two in float */
    if (!sums) return NO_MEMORY;
#pragma omp parallel if (rows * cols > SMALL)
    {
        int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
        int64_t first = share_start(rows, thread, threads), end = share_start(rows, thread + 1, threads);
        double *restrict all = sums + (size_t)thread * 3 * cols;
        float *restrict dw = (float *)(all + 2 * cols), *restrict db = dw + cols;
        for (int64_t start = first; start < end; start += ROWS) {
            int64_t stop = min_of(start + ROWS, end);
            for (int64_t i = start; i < stop; i++) {
                const float *xi = x + i * cols, *gi = dy + i * cols;
                float *oi = dx + (dx ? i * cols : 0);
                if (dx) for (int64_t j = 0; j < cols; j++) oi[j] = gi[j] * scale[j];
                if (dscale) for (int64_t j = 0; j < cols; j++) dw[j] += gi[j] * xi[j];
                if (dshift) for (int64_t j = 0; j < cols; j++) db[j] += gi[j];
                if (dresidual) memcpy(dresidual + i * cols, gi, cols * sizeof(float));
            }
            for (int64_t j = 0; j < 2 * cols; j++) {
                all[j] += dw[j];
                dw[j] = 0.0f;
            }
        }
    }
    for (int64_t j = 0; j < cols; j++) {
        double w = 0.0, b = 0.0;
        for (int t = 0; t < parts; t++) {
            w += sums[(size_t)t * 3 * cols + j];
            b += sums[(size_t)t * 3 * cols + cols + j];
        }
        if (dscale) dscale[j] = w;
        if (dshift) dshift[j] = b;
    }
    free(sums);
    return DONE;
}
