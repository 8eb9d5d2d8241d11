/* What the native kernels share. They are the passes over memory that Paddle's CPU kernels run on one thread, or in
 * several passes where one does.
 *
 * Called through ctypes (signatures.py declares every function); tensors are float32, dense, row-major, unless a
 * comment says otherwise, and sizes are int64. A size of 0 is allowed where no comment excludes it. Every function
 * returns DONE or the reason why it did nothing. Sums over rows are kept per thread and then added in the order of the
 * threads: the same result at every run with the same number of threads. The OpenMP runtime is the one that Paddle has
 * loaded, so there is one pool of threads.
 */
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SMALL 16384 /* elements under which waking the other threads costs more than it saves */

enum { DONE = 0, NO_MEMORY = 1, BAD_SIZES = 2, NO_PRODUCTS = 3, REFUSED = 4 }; /* checks.py has the exception of each */

static inline int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

static inline int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; } /* a >= 0, b > 0 */

/* Positions of a window of `kernel` along a padded side; floor division, so that 0 or less means that none fits. */
static inline int64_t output_side(int64_t side, int64_t kernel, int64_t stride, int64_t pad) {
    int64_t room = side + 2 * pad - kernel;
    return room < 0 ? -ceil_div(-room, stride) + 1 : room / stride + 1;
}

/* The first of `count` rows that part number `part` of `parts` has; it ends where the next part starts. */
static inline int64_t share_start(int64_t count, int64_t part, int64_t parts) { return count * part / parts; }

/* Memory for count * size bytes, as it is or zeroed; null only where there is none, also for 0 bytes. */
static inline void *space(int64_t count, size_t size) { return malloc(count > 0 ? (size_t)count * size : 1); }

static inline void *zeros(int64_t count, size_t size) { return calloc(count > 0 ? (size_t)count : 1, size); }

/* out [width] = the sum over parts of sums[part * apart ...], in the order of the parts. */
static inline void join_parts(float *out, const float *sums, int64_t parts, int64_t apart, int64_t width) {
    memset(out, 0, (size_t)width * sizeof(float));
    for (int64_t t = 0; t < parts; t++)
        for (int64_t j = 0; j < width; j++) out[j] += sums[t * apart + j];
}
