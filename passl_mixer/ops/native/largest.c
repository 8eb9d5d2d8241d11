/* The k largest numbers of every row, found block by block. Of equal ones the first ranks higher; NaN ranks last. */
#include "common.h"

#define CHUNK 64 /* numbers that are compared with the smallest of the k at once */

/* Whether the number a at place i ranks behind the number b at place j. */
static inline int behind(float a, int32_t i, float b, int32_t j) {
    if (a < b) return 1;
    if (a > b) return 0;
    if ((a != a) != (b != b)) return a != a;
    return i > j;
}

/* Put a number in the place of a heap's root, which is the one that ranks last, and move it down. */
static inline void sift(float *values, int32_t *index, int64_t size, float value, int32_t place) {
    int64_t node = 0;
    for (int64_t child = 1; child < size; child = 2 * node + 1) {
        if (child + 1 < size && behind(values[child + 1], index[child + 1], values[child], index[child])) child++;
        if (!behind(values[child], index[child], value, place)) break;
        values[node] = values[child];
        index[node] = index[child];
        node = child;
    }
    values[node] = value;
    index[node] = place;
}

/* Whether one of CHUNK numbers is larger than `last`, or one of them or `last` is NaN. */
static inline int may_enter(const float *x, float last) {
    int any = 0;
    for (int64_t i = 0; i < CHUNK; i++) any |= !(x[i] <= last);
    return any;
}

/* Keep the k largest of every row of a matrix that comes in blocks of columns, from left to right: x [rows, cols] are the
 * columns from `first` on. values and index [rows, k] are a heap of those kept so far, at the start NaN at INT32_MAX, whose
 * place every column takes. first + cols <= INT32_MAX. */
int keep_largest(const float *restrict x, float *restrict values, int32_t *restrict index, int64_t rows, int64_t cols,
                 int64_t k, int64_t first) {
    if (k < 1 || first < 0 || cols > INT32_MAX - first) return BAD_SIZES;
#pragma omp parallel for schedule(static) if (rows * cols > SMALL)
    for (int64_t r = 0; r < rows; r++) {
        const float *row = x + r * cols;
        float *best = values + r * k;
        int32_t *place = index + r * k;
        for (int64_t start = 0; start < cols; start += CHUNK) {
            int64_t end = min_of(start + CHUNK, cols);
            if (end - start == CHUNK && !may_enter(row + start, best[0])) continue;
            for (int64_t j = start; j < end; j++)
                if (behind(best[0], place[0], row[j], (int32_t)(first + j)))
                    sift(best, place, k, row[j], (int32_t)(first + j));
        }
    }
    return DONE;
}
