/* Wave-MLP's token mixing in one pass: the waves of amplitudes and phases, mixed in pairs of parts along one axis.
 *
 * y [batch, height, width, chans]: channel c is the sum of channels 2 c and 2 c + 1 of [a cos p, a sin p] over a window
 * of `kernel` positions along the height (along 1) or the width (along 2), weighted by [chans, 2, kernel]; zeros
 * outside. A unit of work is a strip of the map, as long as the axis. Its waves stay in the nearest caches, in two
 * parts, the first and the second of every pair. */
#include "common.h"
#include "vectors.h"

#define STRIP_FLOATS 16384 /* of one part of a strip where the axis is the height */
#define FAR 65536.0f      /* phases beyond are left to libm */

typedef struct {
    int64_t batch, height, width, chans, kernel, half, along;
    int64_t length, apart;           /* of the axis; elements between its positions */
    int64_t columns, across, strips; /* of a strip; strips of an image, of all */
    int64_t wide, row, part, taps;   /* channels in whole vectors; elements of a strip's row, of a part; of all taps */
} Sizes;

static Sizes sizes_of(int64_t batch, int64_t height, int64_t width, int64_t chans, int64_t kernel, int64_t along) {
    Sizes s = {batch, height, width, chans, kernel, kernel / 2, along, 0, 0, 1, 0, 0, 0, 0, 0, 0};
    s.length = along == 1 ? height : width;
    s.apart = along == 1 ? width * chans : chans;
    if (along == 1) s.columns = min_of(max_of(STRIP_FLOATS / max_of(height * chans, 1), 1), max_of(width, 1));
    s.across = along == 1 ? ceil_div(width, s.columns) : height;
    s.strips = batch * s.across;
    s.wide = ceil_div(chans, LANES) * LANES;
    s.row = s.columns * s.wide;
    s.part = s.length * s.row;
    s.taps = 2 * kernel * s.wide;
    return s;
}

/* A strip: its first element, and how many columns it has. */
typedef struct {
    int64_t first, columns;
} Strip;

static Strip strip_of(const Sizes *s, int64_t i) {
    int64_t image = i / s->across * s->height * s->width, part = i % s->across;
    if (s->along == 2) return (Strip){(image + part * s->width) * s->chans, 1};
    return (Strip){(image + part * s->columns) * s->chans, min_of(s->columns, s->width - part * s->columns)};
}

static inline int large(const Sizes *s) { return s->batch * s->height * s->width * s->chans > SMALL; }

static inline vector at(const float *x) { return *(const vector *)x; }

/* Taps of the first and of the second of a pair, [2, kernel, wide]; what lies beyond the channels stays as it is. */
static void order_taps(const Sizes *s, const float *weight, float *taps) {
    for (int64_t half = 0; half < 2; half++)
        for (int64_t k = 0; k < s->kernel; k++)
            for (int64_t c = 0; c < s->chans; c++)
                taps[(half * s->kernel + k) * s->wide + c] = weight[(2 * c + half) * s->kernel + k];
}

/* ---- waves ---- */

/* Cosine and sine of x, |x| <= FAR: the rest of a quarter turn, pi / 2 in two numbers, then polynomials on
 * [-pi / 4, pi / 4] (coefficients of Cephes, sinf.c). */
static inline void turn_of(float x, float *cosine, float *sine) {
    float quarters = rintf(x * 0.636619772f);
    float r = fmaf(-quarters, -4.37113883e-8f, fmaf(-quarters, 1.57079637f, x)), z = r * r;
    int32_t n = (int32_t)quarters;
    float s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
    float c = ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1.0f;
    float even = n & 1 ? s : c, odd = n & 1 ? c : s;
    *cosine = (n + 1) & 2 ? -even : even;
    *sine = n & 2 ? -odd : odd;
}

static void turns(const float *restrict phase, float *restrict cosine, float *restrict sine, int64_t count) {
    int far = 0;
    for (int64_t c = 0; c < count; c++) far |= !(fabsf(phase[c]) <= FAR);
    if (far)
        for (int64_t c = 0; c < count; c++) {
            cosine[c] = cosf(phase[c]);
            sine[c] = sinf(phase[c]);
        }
    else
        for (int64_t c = 0; c < count; c++) turn_of(phase[c], cosine + c, sine + c);
}

/* The parts of one position's wave, [chans] each; turned is [cosine, sine], wave is room for [2 chans]. */
static inline void parts_of(const float *restrict a, const float *restrict turned, float *restrict wave,
                            float *restrict first, float *restrict second, int64_t chans) {
    for (int64_t c = 0; c < chans; c++) wave[c] = a[c] * turned[c];
    for (int64_t c = 0; c < chans; c++) wave[chans + c] = a[c] * turned[chans + c];
    for (int64_t c = 0; c < chans; c++) {
        first[c] = wave[2 * c];
        second[c] = wave[2 * c + 1];
    }
}

/* da = g1 cos + g2 sin and dphase = a (g2 cos - g1 sin) of one position; g = [g1, g2], the wave's gradient, has the
 * parts first and second. */
static inline void wave_back(const float *restrict a, const float *restrict turned, const float *restrict first,
                             const float *restrict second, float *restrict g, float *restrict da,
                             float *restrict dphase, int64_t chans) {
    const float *sine = turned + chans, *imaginary = g + chans;
    for (int64_t c = 0; c < chans; c++) {
        g[2 * c] = first[c];
        g[2 * c + 1] = second[c];
    }
    for (int64_t c = 0; c < chans; c++) da[c] = g[c] * turned[c] + imaginary[c] * sine[c];
    for (int64_t c = 0; c < chans; c++) dphase[c] = a[c] * (imaginary[c] * turned[c] - g[c] * sine[c]);
}

/* ---- mixing ---- */

/* One position: the sums over the taps low .. high of both parts, `row` apart, times taps; out [chans]. */
static inline void mix(const Sizes *s, const float *first, const float *taps, int64_t low, int64_t high, float *out) {
    const float *second = first + s->part, *others = taps + s->kernel * s->wide;
    for (int64_t c = 0; c < s->chans; c += LANES) {
        vector sum1 = {0}, sum2 = {0};
        for (int64_t k = low; k < high; k++) {
            sum1 += at(first + k * s->row + c) * at(taps + k * s->wide + c);
            sum2 += at(second + k * s->row + c) * at(others + k * s->wide + c);
        }
        sum1 += sum2;
        if (c + LANES <= s->chans) *(vector *)(out + c) = sum1;
        else memcpy(out + c, &sum1, (s->chans - c) * sizeof(float));
    }
}

/* Gradients of one position's parts, [2, wide]: sums over the taps low .. high of dy's rows, backwards, times taps. */
static inline void spread(const Sizes *s, const float *dy, const float *taps, int64_t low, int64_t high, float *dparts) {
    const float *others = taps + s->kernel * s->wide;
    for (int64_t c = 0; c < s->wide; c += LANES) {
        vector sum1 = {0}, sum2 = {0};
        for (int64_t k = low; k < high; k++) {
            vector g = at(dy + c - k * s->row);
            sum1 += g * at(taps + k * s->wide + c);
            sum2 += g * at(others + k * s->wide + c);
        }
        *(vector *)(dparts + c) = sum1;
        *(vector *)(dparts + s->wide + c) = sum2;
    }
}

/* Sums over the strip of both parts times dy, added to the taps' gradients. */
static void add_taps(const Sizes *s, int64_t columns, const float *first, const float *dy, float *dtaps) {
    for (int64_t c = 0; c < s->wide; c += LANES)
        for (int64_t k = 0; k < s->kernel; k++) {
            vector sum1 = {0}, sum2 = {0};
            for (int64_t p = max_of(s->half - k, 0); p < min_of(s->length, s->length + s->half - k); p++)
                for (int64_t j = 0; j < columns; j++) {
                    int64_t here = p * s->row + j * s->wide + c, there = here + (k - s->half) * s->row;
                    vector g = at(dy + here);
                    sum1 += at(first + there) * g;
                    sum2 += at(first + s->part + there) * g;
                }
            *(vector *)(dtaps + k * s->wide + c) += sum1;
            *(vector *)(dtaps + (s->kernel + k) * s->wide + c) += sum2;
        }
}

int wave_mix(const float *a, const float *phase, const float *weight, float *y, int64_t batch, int64_t height,
             int64_t width, int64_t chans, int64_t kernel, int64_t along) {
    if (kernel % 2 == 0) return BAD_SIZES;
    Sizes s = sizes_of(batch, height, width, chans, kernel, along);
    int64_t own = 2 * s.part + 4 * chans;
    float *taps = zeros(s.taps + omp_get_max_threads() * own, sizeof(float));
    if (!taps) return NO_MEMORY;
    order_taps(&s, weight, taps);
#pragma omp parallel if (large(&s))
    {
        float *first = taps + s.taps + omp_get_thread_num() * own, *second = first + s.part;
        float *turned = second + s.part, *wave = turned + 2 * chans;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < s.strips; i++) {
            Strip strip = strip_of(&s, i);
            for (int64_t p = 0; p < s.length; p++)
                for (int64_t j = 0; j < strip.columns; j++) {
                    int64_t place = strip.first + p * s.apart + j * chans, in = p * s.row + j * s.wide;
                    turns(phase + place, turned, turned + chans, chans);
                    parts_of(a + place, turned, wave, first + in, second + in, chans);
                }
            for (int64_t p = 0; p < s.length; p++)
                for (int64_t j = 0; j < strip.columns; j++)
                    mix(&s, first + (p - s.half) * s.row + j * s.wide, taps, max_of(s.half - p, 0),
                        min_of(kernel, s.length + s.half - p), y + strip.first + p * s.apart + j * chans);
        }
    }
    free(taps);
    return DONE;
}

/* da, dphase [batch, height, width, chans] and dweight [chans, 2, kernel] from dy. */
int wave_mix_gradient(const float *a, const float *phase, const float *weight, const float *dy, float *da,
                      float *dphase, float *dweight, int64_t batch, int64_t height, int64_t width, int64_t chans,
                      int64_t kernel, int64_t along) {
    if (kernel % 2 == 0) return BAD_SIZES;
    Sizes s = sizes_of(batch, height, width, chans, kernel, along);
    int64_t own = 3 * s.part + 4 * chans + 2 * s.wide;
    int parts = omp_get_max_threads();
    float *sums = zeros(parts * s.taps, sizeof(float)), *taps = zeros(s.taps + parts * own, sizeof(float));
    if (!sums || !taps) return free(sums), free(taps), NO_MEMORY;
    order_taps(&s, weight, taps);
#pragma omp parallel if (large(&s))
    {
        float *first = taps + s.taps + omp_get_thread_num() * own, *second = first + s.part, *copy = second + s.part;
        float *turned = copy + s.part, *wave = turned + 2 * chans, *dparts = wave + 2 * chans;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < s.strips; i++) {
            Strip strip = strip_of(&s, i);
            for (int64_t p = 0; p < s.length; p++)
                for (int64_t j = 0; j < strip.columns; j++)
                    memcpy(copy + p * s.row + j * s.wide, dy + strip.first + p * s.apart + j * chans,
                           chans * sizeof(float));
            for (int64_t p = 0; p < s.length; p++)
                for (int64_t j = 0; j < strip.columns; j++) {
                    int64_t place = strip.first + p * s.apart + j * chans, in = p * s.row + j * s.wide;
                    turns(phase + place, turned, turned + chans, chans);
                    parts_of(a + place, turned, wave, first + in, second + in, chans);
                    spread(&s, copy + in + s.half * s.row, taps, max_of(s.half + p - s.length + 1, 0),
                           min_of(kernel, s.half + p + 1), dparts);
                    wave_back(a + place, turned, dparts, dparts + s.wide, wave, da + place, dphase + place, chans);
                }
            add_taps(&s, strip.columns, first, copy, sums + omp_get_thread_num() * s.taps);
        }
    }
    join_parts(taps, sums, parts, s.taps, s.taps);
    for (int64_t half = 0; half < 2; half++)
        for (int64_t k = 0; k < kernel; k++)
            for (int64_t c = 0; c < chans; c++)
                dweight[(2 * c + half) * kernel + k] = taps[(half * kernel + k) * s.wide + c];
    free(sums);
    free(taps);
    return DONE;
}
