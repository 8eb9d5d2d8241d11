/* LayerNorm, and GroupNorm of one group. */
#include "common.h"

/* Elements summed in float: sums of the few hundred thousand numbers that a row or an image has would lose digits. So
 * few are also read twice from the nearest cache. */
#define BLOCK 4096

/* ---- LayerNorm over the last axis ---- */

/* y = (x - mean) * rstd * weight + bias; mean and rstd [rows] are kept for the gradient. */
int layer_norm(const float *x, const float *weight, const float *bias, float *y, float *mean, float *rstd,
               int64_t rows, int64_t cols, float epsilon) {
#pragma omp parallel for schedule(static) if (rows * cols > SMALL)
    for (int64_t i = 0; i < rows; i++) {
        const float *xi = x + i * cols;
        float *yi = y + i * cols;
        double sum = 0.0, squares = 0.0;
        for (int64_t start = 0; start < cols; start += BLOCK) {
            float part = 0.0f;
            for (int64_t j = start; j < min_of(start + BLOCK, cols); j++) part += xi[j];
            sum += part;
        }
        float m = sum / cols;
        for (int64_t start = 0; start < cols; start += BLOCK) {
            float part = 0.0f;
            for (int64_t j = start; j < min_of(start + BLOCK, cols); j++) part += (xi[j] - m) * (xi[j] - m);
            squares += part;
        }
        float r = 1.0f / sqrtf(squares / cols + epsilon);
        for (int64_t j = 0; j < cols; j++) yi[j] = (xi[j] - m) * r * weight[j] + bias[j];
        mean[i] = m;
        rstd[i] = r;
    }
    return DONE;
}

/* dx = rstd * (dy w - mean(dy w) - n mean(dy w n)), n = (x - mean) rstd; dweight = sum(dy n), dbias = sum(dy). */
int layer_norm_gradient(const float *x, const float *weight, const float *mean, const float *rstd, const float *dy,
                        float *dx, float *dweight, float *dbias, int64_t rows, int64_t cols) {
    int parts = omp_get_max_threads();
    float *sums = zeros(parts * 2 * cols, sizeof(float));
    if (!sums) return NO_MEMORY;
#pragma omp parallel if (rows * cols > SMALL)
    {
        float *dw = sums + (size_t)omp_get_thread_num() * 2 * cols, *db = dw + cols;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            const float *xi = x + i * cols, *gi = dy + i * cols;
            float *oi = dx + i * cols;
            float m = mean[i], r = rstd[i];
            double g_sum = 0.0, gn_sum = 0.0;
            for (int64_t start = 0; start < cols; start += BLOCK) {
                float g_part = 0.0f, gn_part = 0.0f;
                for (int64_t j = start; j < min_of(start + BLOCK, cols); j++) {
                    float n = (xi[j] - m) * r, gw = gi[j] * weight[j];
                    dw[j] += gi[j] * n;
                    db[j] += gi[j];
                    g_part += gw;
                    gn_part += gw * n;
                }
                g_sum += g_part;
                gn_sum += gn_part;
            }
            float g_mean = g_sum / cols, gn_mean = gn_sum / cols;
            for (int64_t j = 0; j < cols; j++)
                oi[j] = r * (gi[j] * weight[j] - g_mean - (xi[j] - m) * r * gn_mean);
        }
    }
    join_parts(dweight, sums, parts, 2 * cols, cols);
    join_parts(dbias, sums + cols, parts, 2 * cols, cols);
    free(sums);
    return DONE;
}

/* ---- GroupNorm of one group, channels last: all places and channels of an image together ---- */

static inline int64_t places_of(int64_t chans) { return chans < BLOCK ? BLOCK / max_of(chans, 1) : 1; }

/* y = (x - mean) * rstd * weight + bias; x, y [images, places, chans], weight and bias [chans]; mean and rstd [images]
 * are kept for the gradient. The mean and the squares of each block around its own mean are joined in double. */
int image_norm(const float *restrict x, const float *restrict weight, const float *restrict bias, float *restrict y,
               float *restrict mean, float *restrict rstd, int64_t images, int64_t places, int64_t chans,
               float epsilon) {
    int64_t each = places_of(chans), blocks = ceil_div(places, each), size = places * chans;
    double *sums = space(images * blocks * 2, sizeof(double));
    if (!sums) return NO_MEMORY;
#pragma omp parallel if (images * size > SMALL)
    {
#pragma omp for collapse(2) schedule(static)
        for (int64_t i = 0; i < images; i++)
            for (int64_t b = 0; b < blocks; b++) {
                const float *from = x + i * size + b * each * chans;
                int64_t count = min_of(each, places - b * each) * chans;
                float sum = 0.0f, squares = 0.0f;
                for (int64_t j = 0; j < count; j++) sum += from[j];
                float own = sum / count, rest = 0.0f;
                for (int64_t j = 0; j < count; j++) {
                    float d = from[j] - own;
                    rest += d;
                    squares += d * d;
                }
                sums[(i * blocks + b) * 2] = own + (double)rest / count;
                sums[(i * blocks + b) * 2 + 1] = squares - (double)rest * rest / count;
            }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < images; i++) {
            const double *own = sums + i * blocks * 2;
            double total = 0.0, squares = 0.0;
            for (int64_t b = 0; b < blocks; b++) total += own[b * 2] * min_of(each, places - b * each);
            total /= places;
            for (int64_t b = 0; b < blocks; b++) {
                double d = own[b * 2] - total;
                squares += own[b * 2 + 1] + d * d * min_of(each, places - b * each) * chans;
            }
            mean[i] = total;
            rstd[i] = 1.0 / sqrt(squares / size + epsilon);
        }
#pragma omp for collapse(2) schedule(static)
        for (int64_t i = 0; i < images; i++)
            for (int64_t p = 0; p < places; p++) {
                const float *from = x + i * size + p * chans;
                float *to = y + i * size + p * chans, m = mean[i], r = rstd[i];
                for (int64_t c = 0; c < chans; c++) to[c] = (from[c] - m) * r * weight[c] + bias[c];
            }
    }
    free(sums);
    return DONE;
}

/* dweight = sum over images and places of dy n with n = (x - mean) rstd, dbias = sum of dy, and, unless null,
 * dx = rstd * (dy w - mean(dy w) - n mean(dy w n)); the means follow from the sums over each block's places. */
int image_norm_gradient(const float *restrict x, const float *restrict weight, const float *restrict mean,
                        const float *restrict rstd, const float *restrict dy, float *restrict dx,
                        float *restrict dweight, float *restrict dbias, int64_t images, int64_t places,
                        int64_t chans) {
    int64_t each = places_of(chans), blocks = ceil_div(places, each), size = places * chans;
    int parts = omp_get_max_threads();
    double *sums = zeros(parts * 3 * chans, sizeof(double)); /* of each thread: two in double, two in float */
    double *means = space(images * blocks * 2, sizeof(double));
    if (!sums || !means) return free(sums), free(means), NO_MEMORY;
#pragma omp parallel if (images * size > SMALL)
    {
        double *restrict all = sums + (size_t)omp_get_thread_num() * 3 * chans;
        float *restrict dw = (float *)(all + 2 * chans), *restrict db = dw + chans;
#pragma omp for collapse(2) schedule(static)
        for (int64_t i = 0; i < images; i++)
            for (int64_t b = 0; b < blocks; b++) {
                float m = mean[i], r = rstd[i];
                memset(dw, 0, 2 * chans * sizeof(float));
                for (int64_t p = b * each; p < min_of((b + 1) * each, places); p++) {
                    const float *xp = x + i * size + p * chans, *gp = dy + i * size + p * chans;
                    for (int64_t c = 0; c < chans; c++) {
                        dw[c] += gp[c] * ((xp[c] - m) * r);
                        db[c] += gp[c];
                    }
                }
                double g = 0.0, gn = 0.0;
                for (int64_t c = 0; c < chans; c++) {
                    all[c] += dw[c];
                    all[chans + c] += db[c];
                    gn += (double)dw[c] * weight[c];
                    g += (double)db[c] * weight[c];
                }
                means[(i * blocks + b) * 2] = g;
                means[(i * blocks + b) * 2 + 1] = gn;
            }
#pragma omp for collapse(2) schedule(static)
        for (int64_t i = 0; i < images; i++)
            for (int64_t b = 0; b < (dx ? blocks : 0); b++) {
                double g_sum = 0.0, gn_sum = 0.0;
                for (int64_t k = 0; k < blocks; k++) {
                    g_sum += means[(i * blocks + k) * 2];
                    gn_sum += means[(i * blocks + k) * 2 + 1];
                }
                float m = mean[i], r = rstd[i], g_mean = g_sum / size, gn_mean = gn_sum / size;
                for (int64_t p = b * each; p < min_of((b + 1) * each, places); p++) {
                    int64_t at = i * size + p * chans;
                    for (int64_t c = 0; c < chans; c++)
                        dx[at + c] = r * (dy[at + c] * weight[c] - g_mean - (x[at + c] - m) * r * gn_mean);
                }
            }
    }
    for (int64_t c = 0; c < chans; c++) {
        double w = 0.0, b = 0.0;
        for (int t = 0; t < parts; t++) {
            w += sums[(size_t)t * 3 * chans + c];
            b += sums[(size_t)t * 3 * chans + chans + c];
        }
        dweight[c] = w;
        dbias[c] = b;
    }
    free(sums);
    free(means);
    return DONE;
}
