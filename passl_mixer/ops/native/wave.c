/* Wave-MLP: the two parts of a wave from its amplitude and phase, and the mixing of pairs of parts along one axis. */
#include "common.h"

/* wave [rows, 2 chans] = [a cos, a sin] of a, cosine, sine [rows, chans]. */
int unfold_wave(const float *a, const float *cosine, const float *sine, float *wave, int64_t rows, int64_t chans) {
#pragma omp parallel for schedule(static) if (rows * chans > SMALL)
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = r * chans;
        for (int64_t c = 0; c < chans; c++) {
            wave[2 * at + c] = a[at + c] * cosine[at + c];
            wave[2 * at + chans + c] = a[at + c] * sine[at + c];
        }
    }
    return DONE;
}

/* da = g1 cos + g2 sin and dphase = g2 a cos - g1 a sin, where [g1, g2] is dwave and [a cos, a sin] is wave. */
int unfold_wave_gradient(const float *cosine, const float *sine, const float *wave, const float *dwave, float *da,
                         float *dphase, int64_t rows, int64_t chans) {
#pragma omp parallel for schedule(static) if (rows * chans > SMALL)
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = r * chans;
        const float *y1 = wave + 2 * at, *y2 = y1 + chans, *g1 = dwave + 2 * at, *g2 = g1 + chans;
        /* two loops: gcc vectorises neither where one has all eight rows */
        for (int64_t c = 0; c < chans; c++) da[at + c] = g1[c] * cosine[at + c] + g2[c] * sine[at + c];
        for (int64_t c = 0; c < chans; c++) dphase[at + c] = g2[c] * y1[c] - g1[c] * y2[c];
    }
    return DONE;
}

/* ---- y [batch, height, width, chans]: channel c is the sum of x's channels 2 c and 2 c + 1 over a window of `kernel`
 * positions along the height (along 1) or the width (along 2), weighted by [chans, 2, kernel]; zeros outside ---- */

/* The channels of a map at `offset` positions along the axis from (b, h, w), or null outside. */
static inline const float *beside(const float *map, int64_t b, int64_t h, int64_t w, int64_t height, int64_t width,
                                  int64_t chans, int64_t along, int64_t offset) {
    int64_t hh = along == 1 ? h + offset : h, ww = along == 1 ? w : w + offset;
    if (hh < 0 || hh >= height || ww < 0 || ww >= width) return NULL;
    return map + ((b * height + hh) * width + ww) * chans;
}

int pair_mix(const float *x, const float *weight, float *y, int64_t batch, int64_t height, int64_t width, int64_t chans,
             int64_t kernel, int64_t along) {
    int64_t both = 2 * chans, half = kernel / 2;
    float *taps = space((kernel + omp_get_max_threads()) * both, sizeof(float));
    if (!taps) return NO_MEMORY;
    for (int64_t k = 0; k < kernel; k++)
        for (int64_t c = 0; c < both; c++) taps[k * both + c] = weight[c * kernel + k];
#pragma omp parallel if (batch * height * width * chans > SMALL)
    {
        float *sum = taps + (kernel + omp_get_thread_num()) * both;
#pragma omp for collapse(2) schedule(static)
        for (int64_t b = 0; b < batch; b++)
            for (int64_t h = 0; h < height; h++)
                for (int64_t w = 0; w < width; w++) {
                    memset(sum, 0, both * sizeof(float));
                    for (int64_t k = 0; k < kernel; k++) {
                        const float *in = beside(x, b, h, w, height, width, both, along, k - half);
                        const float *tap = taps + k * both;
                        for (int64_t c = 0; in && c < both; c++) sum[c] += in[c] * tap[c];
                    }
                    float *out = y + ((b * height + h) * width + w) * chans;
                    for (int64_t c = 0; c < chans; c++) out[c] = sum[2 * c] + sum[2 * c + 1];
                }
    }
    free(taps);
    return DONE;
}

/* dx [batch, height, width, 2 chans] from dy. */
int pair_mix_gradient(const float *dy, const float *weight, float *dx, int64_t batch, int64_t height, int64_t width,
                      int64_t chans, int64_t kernel, int64_t along) {
    int64_t both = 2 * chans, half = kernel / 2;
    float *taps = space((kernel + omp_get_max_threads()) * both, sizeof(float)); /* [kernel, 2, chans] */
    if (!taps) return NO_MEMORY;
    for (int64_t k = 0; k < kernel; k++)
        for (int64_t c = 0; c < both; c++) taps[k * both + (c % 2) * chans + c / 2] = weight[c * kernel + k];
#pragma omp parallel if (batch * height * width * chans > SMALL)
    {
        float *first = taps + (kernel + omp_get_thread_num()) * both, *second = first + chans;
#pragma omp for collapse(2) schedule(static)
        for (int64_t b = 0; b < batch; b++)
            for (int64_t h = 0; h < height; h++)
                for (int64_t w = 0; w < width; w++) {
                    memset(first, 0, both * sizeof(float));
                    for (int64_t k = 0; k < kernel; k++) {
                        const float *g = beside(dy, b, h, w, height, width, chans, along, half - k);
                        const float *tap1 = taps + k * both, *tap2 = tap1 + chans;
                        for (int64_t c = 0; g && c < chans; c++) {
                            first[c] += g[c] * tap1[c];
                            second[c] += g[c] * tap2[c];
                        }
                    }
                    float *out = dx + ((b * height + h) * width + w) * both;
                    for (int64_t c = 0; c < chans; c++) {
                        out[2 * c] = first[c];
                        out[2 * c + 1] = second[c];
                    }
                }
    }
    free(taps);
    return DONE;
}

/* dweight [chans, 2, kernel]. Summed by rows of the map first: sums of many numbers one by one lose digits. */
int pair_mix_weight_gradient(const float *x, const float *dy, float *dweight, int64_t batch, int64_t height,
                             int64_t width, int64_t chans, int64_t kernel, int64_t along) {
    int64_t both = 2 * chans, half = kernel / 2, one = kernel * both;
    int parts = omp_get_max_threads();
    float *sums = zeros(parts * (2 * one + both), sizeof(float));
    if (!sums) return NO_MEMORY;
#pragma omp parallel if (batch * height * width * chans > SMALL)
    {
        float *own = sums + (size_t)omp_get_thread_num() * one;
        float *row = sums + (size_t)parts * one + (size_t)omp_get_thread_num() * (one + both), *twice = row + one;
#pragma omp for collapse(2) schedule(static)
        for (int64_t b = 0; b < batch; b++)
            for (int64_t h = 0; h < height; h++) {
                memset(row, 0, one * sizeof(float));
                for (int64_t w = 0; w < width; w++) {
                    const float *g = dy + ((b * height + h) * width + w) * chans;
                    for (int64_t c = 0; c < chans; c++) twice[2 * c] = twice[2 * c + 1] = g[c];
                    for (int64_t k = 0; k < kernel; k++) {
                        const float *in = beside(x, b, h, w, height, width, both, along, k - half);
                        float *sum = row + k * both;
                        for (int64_t c = 0; in && c < both; c++) sum[c] += in[c] * twice[c];
                    }
                }
                for (int64_t i = 0; i < one; i++) own[i] += row[i];
            }
    }
    for (int64_t k = 0; k < kernel; k++)
        for (int64_t c = 0; c < both; c++) {
            float total = 0.0f;
            for (int t = 0; t < parts; t++) total += sums[(size_t)t * one + k * both + c];
            dweight[c * kernel + k] = total;
        }
    free(sums);
    return DONE;
}
