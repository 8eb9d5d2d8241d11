/* Images resized by Pillow's filters: the same integers, hence the same pixels. Weights are whole numbers of 2^-22, a
 * pass is rounded to 8 bits, and the filter widens where the image shrinks. One thread: a loader has several.
 *
 * Source of the arithmetic: Pillow, src/libImaging/Resample.c. */
#include "common.h"

#define BITS 22
#define HALF (1 << (BITS - 1))
#define LONGEST (1 << 20) /* side, pixels */

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#define BESIDE (LANES / 4) /* rows that the pass across takes at once */

typedef int32_t Sums __attribute__((vector_size(4 * LANES)));
typedef uint16_t Shorts __attribute__((vector_size(2 * LANES)));
typedef uint8_t Bytes __attribute__((vector_size(LANES)));

/* The filter along one side: for output i, weights [i * width] of the inputs from start[i] on, count[i] of them. */
typedef struct {
    int64_t outputs, width;
    int32_t *start, *count, *weights;
    double *exact; /* of one output */
} Filter;

static double weight_at(double x, int cubic) {
    x = fabs(x);
    if (!cubic) return x < 1.0 ? 1.0 - x : 0.0;
    if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1.0; /* Keys 1981 with a = -0.5 */
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 : 0.0;
}

static void free_filter(Filter *f) {
    free(f->start);
    free(f->count);
    free(f->weights);
    free(f->exact);
}

/* The filter from `inputs` samples to `outputs`; false where there is no memory. */
static int make_filter(Filter *f, int64_t inputs, int64_t outputs, int cubic) {
    double scale = (double)inputs / (double)outputs, wide = scale < 1.0 ? 1.0 : scale;
    double support = (cubic ? 2.0 : 1.0) * wide;
    f->outputs = outputs;
    f->width = (int64_t)ceil(support) * 2 + 1;
    f->start = space(outputs, sizeof(int32_t));
    f->count = space(outputs, sizeof(int32_t));
    f->weights = zeros(outputs * f->width, sizeof(int32_t));
    f->exact = space(f->width, sizeof(double));
    if (!f->start || !f->count || !f->weights || !f->exact) return 0;
    for (int64_t i = 0; i < outputs; i++) {
        double centre = ((double)i + 0.5) * scale, sum = 0.0;
        int64_t first = max_of((int64_t)(centre - support + 0.5), 0);
        int64_t count = min_of((int64_t)(centre + support + 0.5), inputs) - first;
        for (int64_t j = 0; j < count; j++) {
            f->exact[j] = weight_at(((double)(j + first) - centre + 0.5) / wide, cubic);
            sum += f->exact[j];
        }
        for (int64_t j = 0; j < count; j++) {
            double share = f->exact[j] / sum;
            f->weights[i * f->width + j] = (int32_t)(share * (1 << BITS) + (share < 0.0 ? -0.5 : 0.5));
        }
        f->start[i] = (int32_t)first;
        f->count[i] = (int32_t)count;
    }
    return 1;
}

static inline uint8_t level(int32_t sum) {
    sum >>= BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* y = the levels of LANES sums. */
static inline void store_levels(Sums sums, uint8_t *y) {
    sums >>= BITS;
    sums &= ~(sums < 0);
    sums |= sums > 255; /* of -1, the lowest byte is 255 */
    Bytes levels = __builtin_convertvector(__builtin_convertvector(sums, Shorts), Bytes);
    memcpy(y, &levels, LANES);
}

/* LANES bytes as sums; GCC widens twice quicker than once by four. */
#define WIDENED(BYTES) __builtin_convertvector(__builtin_convertvector(BYTES, Shorts), Sums)

/* Rows: y [outputs, size] of x, rows of `size` bytes. */
static void down(const Filter *f, const uint8_t *restrict x, uint8_t *restrict y, int64_t size) {
    for (int64_t i = 0; i < f->outputs; i++, y += size) {
        const int32_t *weights = f->weights + i * f->width;
        const uint8_t *row = x + f->start[i] * size;
        int64_t at = 0, count = f->count[i];
        for (; at + 4 * LANES <= size; at += 4 * LANES) {
            Sums sums[4] = {{0}};
            for (int v = 0; v < 4; v++) sums[v] += HALF;
            for (int64_t t = 0; t < count; t++)
                for (int v = 0; v < 4; v++) {
                    Bytes bytes;
                    memcpy(&bytes, row + t * size + at + LANES * v, LANES);
                    sums[v] += WIDENED(bytes) * weights[t];
                }
            for (int v = 0; v < 4; v++) store_levels(sums[v], y + at + LANES * v);
        }
        for (; at < size; at++) {
            int32_t sum = HALF;
            for (int64_t t = 0; t < count; t++) sum += row[t * size + at] * weights[t];
            y[at] = level(sum);
        }
    }
}

/* BESIDE rows of pixels of 3 bytes beside each other: packed [inputs, BESIDE, 4]; the fourth byte of a pixel is any. */
static void pack(const uint8_t *const *rows, uint8_t *restrict packed, int64_t inputs) {
    for (int64_t i = 0; i + 1 < inputs; i++)
        for (int r = 0; r < BESIDE; r++) memcpy(packed + LANES * i + 4 * r, rows[r] + 3 * i, 4);
    for (int r = 0; r < BESIDE; r++) memcpy(packed + LANES * (inputs - 1) + 4 * r, rows[r] + 3 * (inputs - 1), 3);
}

/* Columns of pixels of 3 bytes: y [rows, outputs, 3] of x [rows, inputs, 3]; packed [inputs, LANES]. */
static void across(const Filter *f, const uint8_t *x, uint8_t *y, uint8_t *packed, int64_t rows, int64_t inputs) {
    for (int64_t r = 0; r < rows; r += BESIDE) {
        const uint8_t *from[BESIDE];
        for (int64_t g = 0; g < BESIDE; g++) from[g] = x + 3 * inputs * min_of(r + g, rows - 1);
        pack(from, packed, inputs);
        uint8_t *to = y + 3 * f->outputs * r;
        int64_t there = min_of(BESIDE, rows - r);
        for (int64_t i = 0; i < f->outputs; i++) {
            const int32_t *weights = f->weights + i * f->width;
            const uint8_t *pixels = packed + LANES * f->start[i];
            Sums sums = (Sums){0} + HALF;
            for (int64_t t = 0; t < f->count[i]; t++) {
                Bytes bytes;
                memcpy(&bytes, pixels + LANES * t, LANES);
                sums += WIDENED(bytes) * weights[t];
            }
            uint8_t levels[LANES];
            store_levels(sums, levels);
            if (there == BESIDE && i + 1 < f->outputs) /* the fourth byte is written over by the next pixel */
                for (int g = 0; g < BESIDE; g++) memcpy(to + 3 * (g * f->outputs + i), levels + 4 * g, 4);
            else
                for (int64_t g = 0; g < there; g++) memcpy(to + 3 * (g * f->outputs + i), levels + 4 * g, 3);
        }
    }
}

/* y [size, size, 3] is x [rows, cols, 3], resized. `rows_first`: the pass that makes rows comes first. */
int resize_pixels(const uint8_t *x, uint8_t *y, int64_t rows, int64_t cols, int64_t size, int64_t cubic,
                  int64_t rows_first) {
    if (rows < 1 || cols < 1 || size < 1 || rows > LONGEST || cols > LONGEST || size > LONGEST) return BAD_SIZES;
    Filter vertical = {0}, horizontal = {0};
    int made = make_filter(&vertical, rows, size, cubic != 0) && make_filter(&horizontal, cols, size, cubic != 0);
    uint8_t *packed = space(cols, LANES), *between = space(size * (rows_first ? cols : rows), 3);
    int failed = made && packed && between ? DONE : NO_MEMORY;
    if (!failed && rows_first) {
        down(&vertical, x, between, 3 * cols);
        across(&horizontal, between, y, packed, size, cols);
    } else if (!failed) {
        across(&horizontal, x, between, packed, rows, cols);
        down(&vertical, between, y, 3 * size);
    }
    free(packed);
    free(between);
    free_filter(&vertical);
    free_filter(&horizontal);
    return failed;
}
