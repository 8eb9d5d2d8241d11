/* Depth-wise convolution of [batch, height, width, chans] with [chans, kernel, kernel], odd kernel, same size.
 *
 * A unit of work is a band of rows (all of them, unless there are many threads) of one image in a few vectors of
 * channels. Its rows go into a ring of as many as the kernel has, dense and with zeros on both sides, so that a row of
 * taps meets every column alike; rows outside the map are left out. STRIP neighbouring columns are computed at once, in
 * registers. (Left and right of the map an infinite number meets those zeros and gives NaN.) */
#include "common.h"
#include "vectors.h"

#define STRIP 8  /* columns at once */
#define MOST 9   /* taps of a row in registers */
#define CHUNK 64 /* channels of a unit: long enough runs of memory, rows short enough for the nearest caches */
#define BUSY 4   /* units for each thread, below which images are cut into bands */
#define VECTORS (CHUNK / LANES)

typedef struct {
    int64_t batch, height, width, chans, kernel, half, square; /* kernel / 2, kernel * kernel */
    int64_t slots, columns, line;  /* of the ring: rows, width rounded up to strips, these columns with the zeros */
    int64_t groups, chunks, bands; /* vectors of channels, chunks of vectors, bands of rows */
} Sizes;

static Sizes sizes_of(int64_t batch, int64_t height, int64_t width, int64_t chans, int64_t kernel) {
    Sizes s = {batch, height, width, chans, kernel, kernel / 2, kernel * kernel, 0, 0, 0, 0, 0, 0};
    s.slots = min_of(kernel, height);
    s.columns = ceil_div(width, STRIP) * STRIP;
    s.line = s.columns + kernel - 1;
    s.groups = ceil_div(chans, LANES);
    s.chunks = ceil_div(s.groups, VECTORS);
    int64_t threads = omp_get_max_threads(), units = batch * s.chunks;
    s.bands = threads == 1 || units == 0 ? 1 : min_of(ceil_div(BUSY * threads, units), ceil_div(height, kernel));
    return s;
}

/* The rows top .. end of an image, of which `first` is the first one read, in `count` vectors of channels from c on. */
typedef struct {
    int64_t image, group, c, count, top, end, first; /* the image's place in x; the first vector's number */
} Unit;

static inline Unit unit_of(const Sizes *s, int64_t i) {
    int64_t band = i / s->chunks % s->bands, image = i / s->chunks / s->bands, group = i % s->chunks * VECTORS;
    int64_t top = share_start(s->height, band, s->bands), end = share_start(s->height, band + 1, s->bands);
    return (Unit){image * s->height * s->width * s->chans, group, group * LANES, min_of(VECTORS, s->groups - group),
                  top, end, max_of(top - s->half, 0)};
}

/* Zeros, from the start of a cache line. */
static vector *vectors(int64_t count) {
    size_t bytes = ceil_div(max_of(count, 1) * (int64_t)sizeof(vector), 64) * 64;
    void *memory = aligned_alloc(64, bytes);
    return memory ? memset(memory, 0, bytes) : 0;
}

/* One row [width, chans] from channel c on: `count` vectors of every column, [width] each, `apart` from the next. */
static inline void copy_row(const Sizes *s, const float *from, int64_t c, int64_t count, vector *to, int64_t apart) {
    for (int64_t w = 0; w < s->width; w++, from += s->chans, to++)
        for (int64_t v = 0; v < count; v++) {
            int64_t at = c + v * LANES;
            __builtin_prefetch(from + s->width * s->chans + at);
            if (at + LANES <= s->chans) to[v * apart] = *(const vector *)(from + at);
            else memcpy(to + v * apart, from + at, (s->chans - at) * sizeof(float));
        }
}

/* Copies rows of the image to their slots, row % slots, up to the last one that row h needs; the next row to read. */
static inline int64_t fill(const Sizes *s, const float *image, int64_t c, int64_t count, vector *ring, int64_t next,
                           int64_t h) {
    for (; next < min_of(h + s->half + 1, s->height); next++)
        copy_row(s, image + next * s->width * s->chans, c, count, ring + next % s->slots * s->line + s->half,
                 s->slots * s->line);
    return next;
}

/* out [STRIP] += x [STRIP + kernel - 1] * taps [kernel] of one row; at_once, a constant that divides the kernel, is how
 * many taps are held in registers. */
static inline __attribute__((always_inline)) void add_taps(vector *out, const vector *x, const vector *taps,
                                                           int64_t kernel, const int at_once) {
    for (int64_t k = 0; k < kernel; k += at_once) {
        vector tap[MOST];
        UNROLLED for (int j = 0; j < at_once; j++) tap[j] = taps[k + j];
        UNROLLED for (int q = 0; q < STRIP + at_once - 1; q++) {
            vector in = x[k + q];
            UNROLLED for (int j = 0; j < at_once; j++)
                if (q - j >= 0 && q - j < STRIP) out[q - j] += in * tap[j];
        }
    }
}

/* Row h, y [width, chans], in `count` vectors of channels from c on; taps and bias start there. */
static inline __attribute__((always_inline)) void output_row(const Sizes *s, const vector *ring, const vector *taps,
                                                             const vector *bias, float *y, int64_t h, int64_t c,
                                                             int64_t count, const int at_once) {
    int64_t first = h < s->half ? s->half - h : 0, end = min_of(s->kernel, s->height + s->half - h);
    int64_t start = (h + first - s->half) % s->slots;
    for (int64_t v = 0; v < count; v++, ring += s->slots * s->line, taps += s->square) {
        int64_t at = c + v * LANES, lanes = min_of(LANES, s->chans - at);
        for (int64_t w = 0; w < s->width; w += STRIP) {
            int64_t columns = min_of(STRIP, s->width - w), slot = start;
            vector out[STRIP];
            UNROLLED for (int p = 0; p < STRIP; p++) out[p] = bias[v];
            for (int64_t i = first; i < end; i++, slot = slot + 1 < s->slots ? slot + 1 : 0)
                add_taps(out, ring + slot * s->line + w, taps + i * s->kernel, s->kernel, at_once);
            float *to = y + w * s->chans + at;
            if (lanes == LANES) {
                UNROLLED for (int p = 0; p < STRIP; p++)
                    if (p < columns) {
                        *(vector *)(to + p * s->chans) = out[p];
                        __builtin_prefetch(to + (s->width + p) * s->chans, 1);
                    }
            } else {
                vector kept[STRIP]; /* out itself would have to leave its registers */
                UNROLLED for (int p = 0; p < STRIP; p++) kept[p] = out[p];
                for (int64_t p = 0; p < columns; p++) memcpy(to + p * s->chans, kept + p, lanes * sizeof(float));
            }
        }
    }
}

/* y = conv(x, weight) + bias (or null), or, flipped and without bias, dx from dy. */
int depthwise(const float *x, const float *weight, const float *bias, float *y, int64_t batch, int64_t height,
              int64_t width, int64_t chans, int64_t kernel, int64_t flipped) {
    if (kernel < 1 || kernel % 2 == 0) return BAD_SIZES;
    Sizes s = sizes_of(batch, height, width, chans, kernel);
    int64_t ring_size = VECTORS * s.slots * s.line;
    vector *taps = vectors(s.groups * (s.square + 1)), *biases = taps + s.groups * s.square;
    vector *rings = vectors(omp_get_max_threads() * ring_size);
    if (!taps || !rings) return free(taps), free(rings), NO_MEMORY;
    /* the weights with the channels last, turned by 180 degrees where flipped */
#pragma omp parallel for schedule(static) if (chans * s.square > SMALL)
    for (int64_t c = 0; c < chans; c++) {
        float *own = (float *)(taps + c / LANES * s.square) + c % LANES;
        for (int64_t k = 0; k < s.square; k++)
            own[k * LANES] = weight[c * s.square + (flipped ? s.square - 1 - k : k)];
        if (bias) ((float *)biases)[c] = bias[c];
    }
#pragma omp parallel if (batch * height * width * chans > SMALL)
    {
        vector *ring = rings + omp_get_thread_num() * ring_size;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < batch * s.bands * s.chunks; i++) {
            Unit u = unit_of(&s, i);
            const vector *own = taps + u.group * s.square, *start = biases + u.group;
            for (int64_t h = u.top, next = u.first; h < u.end; h++) {
                float *to = y + u.image + h * width * chans;
                next = fill(&s, x + u.image, u.c, u.count, ring, next, h);
                if (kernel == 3) output_row(&s, ring, own, start, to, h, u.c, u.count, 3);
                else if (kernel == 5) output_row(&s, ring, own, start, to, h, u.c, u.count, 5);
                else if (kernel == 7) output_row(&s, ring, own, start, to, h, u.c, u.count, 7);
                else if (kernel == 9) output_row(&s, ring, own, start, to, h, u.c, u.count, 9);
                else output_row(&s, ring, own, start, to, h, u.c, u.count, 1);
            }
        }
    }
    free(taps);
    free(rings);
    return DONE;
}

/* sums [kernel] += x [columns + kernel - 1] * dy [columns] of one row; two sums for each tap, for even and odd columns,
 * because one multiply-add waits for the one before. */
static inline __attribute__((always_inline)) void add_products(const Sizes *s, vector *sums, const vector *x,
                                                               const vector *dy, const int at_once) {
    for (int64_t k = 0; k < s->kernel; k += at_once) {
        vector sum[2][MOST];
        UNROLLED for (int j = 0; j < at_once; j++) sum[0][j] = sum[1][j] = (vector){0};
        for (int64_t w = 0; w < s->columns; w += STRIP)
            UNROLLED for (int q = 0; q < STRIP + at_once - 1; q++) {
                vector in = x[k + w + q];
                UNROLLED for (int j = 0; j < at_once; j++)
                    if (q - j >= 0 && q - j < STRIP) sum[(q - j) % 2][j] += in * dy[w + q - j];
            }
        UNROLLED for (int j = 0; j < at_once; j++) sums[k + j] += sum[0][j] + sum[1][j];
    }
}

/* Adds row h, dy [count, columns], to the sums [count, square + 1]: those of the taps and, last, of the bias. */
static inline __attribute__((always_inline)) void add_row(const Sizes *s, const vector *ring, const vector *dy,
                                                          vector *sums, int64_t h, int64_t count, const int at_once) {
    int64_t first = h < s->half ? s->half - h : 0, end = min_of(s->kernel, s->height + s->half - h);
    int64_t start = (h + first - s->half) % s->slots;
    for (int64_t v = 0; v < count; v++, ring += s->slots * s->line, dy += s->columns, sums += s->square + 1) {
        int64_t slot = start;
        for (int64_t i = first; i < end; i++, slot = slot + 1 < s->slots ? slot + 1 : 0)
            add_products(s, sums + i * s->kernel, ring + slot * s->line, dy, at_once);
        for (int64_t w = 0; w < s->columns; w += STRIP) {
            vector strip = dy[w];
            UNROLLED for (int p = 1; p < STRIP; p++) strip += dy[w + p];
            sums[s->square] += strip;
        }
    }
}

/* dweight [chans, kernel, kernel] and dbias (or null) of the same; summed over a unit, then over a thread's units. */
int depthwise_weights_gradient(const float *x, const float *dy, float *dweight, float *dbias, int64_t batch,
                               int64_t height, int64_t width, int64_t chans, int64_t kernel) {
    if (kernel < 1 || kernel % 2 == 0) return BAD_SIZES;
    Sizes s = sizes_of(batch, height, width, chans, kernel);
    int64_t each = s.square + 1, parts = omp_get_max_threads(), all = s.groups * each;
    int64_t ring_size = VECTORS * s.slots * s.line, row_size = VECTORS * s.columns;
    int64_t work_size = ring_size + row_size + VECTORS * each;
    vector *work = vectors(parts * work_size), *sums = vectors(parts * all);
    if (!work || !sums) return free(work), free(sums), NO_MEMORY;
#pragma omp parallel if (batch * height * width * chans > SMALL)
    {
        vector *ring = work + omp_get_thread_num() * work_size, *row = ring + ring_size, *part = row + row_size;
        vector *own = sums + omp_get_thread_num() * all;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < batch * s.bands * s.chunks; i++) {
            Unit u = unit_of(&s, i);
            memset(part, 0, u.count * each * sizeof(vector));
            for (int64_t h = u.top, next = u.first; h < u.end; h++) {
                next = fill(&s, x + u.image, u.c, u.count, ring, next, h);
                copy_row(&s, dy + u.image + h * width * chans, u.c, u.count, row, s.columns);
                if (kernel == 3) add_row(&s, ring, row, part, h, u.count, 3);
                else if (kernel == 5) add_row(&s, ring, row, part, h, u.count, 5);
                else if (kernel == 7) add_row(&s, ring, row, part, h, u.count, 7);
                else if (kernel == 9) add_row(&s, ring, row, part, h, u.count, 9);
                else add_row(&s, ring, row, part, h, u.count, 1);
            }
            for (int64_t j = 0; j < u.count * each; j++) own[u.group * each + j] += part[j];
        }
    }
#pragma omp parallel for schedule(static) if (chans * each > SMALL)
    for (int64_t c = 0; c < chans; c++)
        for (int64_t k = 0; k < each; k++) {
            const float *from = (const float *)(sums + c / LANES * each + k) + c % LANES;
            float total = 0.0f;
            for (int64_t t = 0; t < parts; t++) total += from[t * all * LANES];
            if (k < s.square) dweight[c * s.square + k] = total;
            else if (dbias) dbias[c] = total;
        }
    free(work);
    free(sums);
    return DONE;
}
