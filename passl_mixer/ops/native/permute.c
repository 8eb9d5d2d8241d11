/* Axes in another order: copies that Paddle makes element by element on one thread. */
#include "common.h"

#define AXES 8
#define TILE 16
#define SHORT 16 /* elements under which a loop is quicker than memcpy */

/* Where a walk over some axes is: its place on each, and how far that is in x and in y. */
typedef struct {
    int64_t axes, size[AXES], x_step[AXES], y_step[AXES], place[AXES], x, y;
} Walk;

static void go_to(Walk *walk, int64_t index) {
    walk->x = walk->y = 0;
    for (int64_t a = walk->axes - 1; a >= 0; a--) {
        walk->place[a] = index % walk->size[a];
        walk->x += walk->place[a] * walk->x_step[a];
        walk->y += walk->place[a] * walk->y_step[a];
        index /= walk->size[a];
    }
}

static inline void go_on(Walk *walk) {
    for (int64_t a = walk->axes - 1; a >= 0; a--) {
        walk->x += walk->x_step[a];
        walk->y += walk->y_step[a];
        if (++walk->place[a] < walk->size[a]) return;
        walk->x -= walk->x_step[a] * walk->size[a];
        walk->y -= walk->y_step[a] * walk->size[a];
        walk->place[a] = 0;
    }
}

static int64_t steps_of(const Walk *walk) {
    int64_t count = 1;
    for (int64_t a = 0; a < walk->axes; a++) count *= walk->size[a];
    return count;
}

/* [rows, cols] of x, rows lying together, to y, columns lying together. */
static inline void turn(const int32_t *x, int32_t *y, int64_t rows, int64_t cols, int64_t x_step, int64_t y_step) {
    for (int64_t j0 = 0; j0 < cols; j0 += TILE)
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = j0; j < cols && j < j0 + TILE; j++) y[i * y_step + j] = x[i + j * x_step];
}

/* y, dense, has the sizes `sizes`; one position on along its axis a is steps[a] elements on in x, which is dense too.
 * At most AXES axes. */
int permute(const int32_t *x, int32_t *y, const int64_t *sizes, const int64_t *steps, int64_t axes) {
    int64_t size[AXES], step[AXES], joined = 0, total = 1, farthest = 0;
    if (axes < 0 || axes > AXES) return BAD_SIZES;
    for (int64_t a = 0; a < axes; a++) {
        if (sizes[a] < 0 || steps[a] < 0) return BAD_SIZES;
        total *= sizes[a];
        farthest += (sizes[a] - 1) * steps[a];
    }
    if (total == 0) return DONE;
    if (farthest >= total) return BAD_SIZES; /* outside x */
    for (int64_t a = 0; a < axes; a++) { /* neighbours in both are one axis */
        if (sizes[a] == 1) continue;
        if (joined && step[joined - 1] == steps[a] * sizes[a]) {
            size[joined - 1] *= sizes[a];
            step[joined - 1] = steps[a];
        } else {
            size[joined] = sizes[a];
            step[joined++] = steps[a];
        }
    }
    if (!joined) {
        size[0] = step[0] = 1;
        joined = 1;
    }
    int64_t last = joined - 1, dense = last;
    Walk walk = {0};
    for (int64_t a = 0; a < last; a++)
        if (step[a] == 1) dense = a; /* of x; where it is not y's last axis too, tiles are turned */
    int64_t below = total, y_step = 1, rows = 1, parts = 1;
    for (int64_t a = 0; a < last; a++) {
        below /= size[a];
        if (a == dense) {
            y_step = below;
            rows = size[a];
        } else {
            walk.size[walk.axes] = size[a];
            walk.x_step[walk.axes] = step[a];
            walk.y_step[walk.axes++] = below;
        }
    }
    if (dense != last) { /* the rows of a tile are a part of the walk, so that all threads have some */
        parts = ceil_div(rows, TILE);
        walk.size[walk.axes] = parts;
        walk.x_step[walk.axes] = TILE;
        walk.y_step[walk.axes++] = TILE * y_step;
    }
    int64_t count = steps_of(&walk), length = size[last];
#pragma omp parallel if (total > SMALL)
    {
        Walk own = walk;
        int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
        int64_t first = share_start(count, thread, threads), end = share_start(count, thread + 1, threads);
        go_to(&own, first);
        for (int64_t i = first; i < end; i++, go_on(&own)) {
            if (dense != last) {
                int64_t done = own.place[own.axes - 1] * TILE;
                turn(x + own.x, y + own.y, min_of(rows - done, TILE), length, step[last], y_step);
            } else if (length < SHORT) {
                for (int64_t j = 0; j < length; j++) y[own.y + j] = x[own.x + j];
            } else {
                memcpy(y + own.y, x + own.x, (size_t)length * sizeof(int32_t));
            }
        }
    }
    return DONE;
}
