/* Max-pooling of planes [outer, height, width, chans]: [B, C, H, W] with outer = B C and chans = 1, or [B, H, W, C]. */
#include "common.h"

typedef struct {
    int64_t outer, height, width, chans, kernel, stride, pad, out_h, out_w;
} Pool;

#define LARGEST 15 /* kernel whose places, row * kernel + column, are bytes */

/* The pooling of these sizes; false where there is none. A pad as large as the kernel would make empty windows. */
static int fill_pool(Pool *pool, const int64_t *sizes) {
    Pool p = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], 0, 0};
    if (p.outer < 0 || p.height < 1 || p.width < 1 || p.chans < 0 || p.kernel < 1 || p.kernel > LARGEST ||
        p.stride < 1 || p.pad < 0 || p.pad >= p.kernel)
        return 0;
    p.out_h = output_side(p.height, p.kernel, p.stride, p.pad);
    p.out_w = output_side(p.width, p.kernel, p.stride, p.pad);
    *pool = p;
    return p.out_h > 0 && p.out_w > 0;
}

/* A NaN is the largest of all. */
static inline int beats(float new, float old) { return new > old || new != new; }

/* The largest of each column of the lines [first, end) of a plane, and the line that has it; both [width * chans]. */
static void down(const float *restrict lines, int64_t first, int64_t end, int64_t size, float *restrict best,
                 int32_t *restrict line) {
    for (int64_t i = 0; i < size; i++) best[i] = lines[first * size + i], line[i] = 0;
    for (int64_t h = first + 1; h < end; h++)
        for (int64_t i = 0; i < size; i++) {
            int wins = beats(lines[h * size + i], best[i]);
            best[i] = wins ? lines[h * size + i] : best[i];
            line[i] = wins ? (int32_t)(h - first) : line[i];
        }
}

/* The largest of the columns that each output sees, and its place in the window, row by row; of equals the first. */
static inline void across(const Pool *p, const float *restrict best, const int32_t *restrict line, int32_t skipped,
                          int64_t chans, float *restrict y, uint8_t *restrict at) {
    for (int64_t i = 0; i < p->out_w * chans; i++) y[i] = -INFINITY, at[i] = UINT8_MAX;
    for (int64_t j = 0; j < p->kernel; j++) {
        int64_t first = ceil_div(max_of(p->pad - j, 0), p->stride);
        int64_t last = p->width - 1 + p->pad - j, end = last < 0 ? 0 : last / p->stride + 1;
        for (int64_t w = first; w < min_of(end, p->out_w); w++)
            for (int64_t c = 0; c < chans; c++) {
                int64_t from = (w * p->stride - p->pad + j) * chans + c, to = w * chans + c;
                uint8_t place = (line[from] + skipped) * (int32_t)p->kernel + (int32_t)j;
                int wins = beats(best[from], y[to]) | ((best[from] == y[to]) & (place < at[to]));
                y[to] = wins ? best[from] : y[to];
                at[to] = wins ? place : at[to];
            }
    }
}

/* y [outer, out_h, out_w, chans] and where in its window each came from, row * kernel + column, of the same shape.
 * sizes: outer, height, width, chans, kernel (at most LARGEST), stride, pad (less than the kernel). */
int max_pool(const float *x, float *y, uint8_t *at, const int64_t *sizes) {
    Pool p;
    if (!fill_pool(&p, sizes)) return BAD_SIZES;
    int64_t size = p.width * p.chans, row = p.out_w * p.chans;
    int failed = DONE;
#pragma omp parallel if (p.outer * p.height * size > SMALL)
    {
        float *best = space(size, sizeof(float) + sizeof(int32_t));
        int32_t *line = (int32_t *)(best + size);
        if (!best) {
#pragma omp atomic write
            failed = NO_MEMORY;
        }
#pragma omp barrier
#pragma omp for collapse(2) schedule(static)
        for (int64_t o = 0; o < p.outer; o++)
            for (int64_t h = 0; h < p.out_h; h++) {
                if (failed) continue;
                int64_t start = h * p.stride - p.pad, first = max_of(start, 0);
                int64_t to = (o * p.out_h + h) * row;
                down(x + o * p.height * size, first, min_of(start + p.kernel, p.height), size, best, line);
                if (p.chans == 1) across(&p, best, line, first - start, 1, y + to, at + to);
                else across(&p, best, line, first - start, p.chans, y + to, at + to);
            }
        free(best);
    }
    return failed;
}

/* Its gradient: dx [outer, height, width, chans] from dy and the places. */
int max_pool_gradient(const float *dy, const uint8_t *at, float *dx, const int64_t *sizes) {
    Pool p;
    if (!fill_pool(&p, sizes)) return BAD_SIZES;
    int64_t offsets[LARGEST * LARGEST];
    for (int64_t i = 0; i < p.kernel * p.kernel; i++)
        offsets[i] = (i / p.kernel * p.width + i % p.kernel) * p.chans;
#pragma omp parallel for schedule(static) if (p.outer * p.height * p.width * p.chans > SMALL)
    for (int64_t o = 0; o < p.outer; o++) {
        int64_t size = p.height * p.width * p.chans;
        memset(dx + o * size, 0, size * sizeof(float));
        for (int64_t h = 0; h < p.out_h; h++)
            for (int64_t w = 0; w < p.out_w; w++) {
                int64_t from = ((o * p.out_h + h) * p.out_w + w) * p.chans;
                float *window = dx + o * size + ((h * p.stride - p.pad) * p.width + w * p.stride - p.pad) * p.chans;
                for (int64_t c = 0; c < p.chans; c++) window[offsets[at[from + c]] + c] += dy[from + c];
            }
    }
    return DONE;
}
