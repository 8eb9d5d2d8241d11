/* The passes over memory that Paddle's CPU kernels run on one thread, or in several passes where one does.
 *
 * Compiled on demand by ops/native/__init__.py and called through ctypes; everything is float32, dense, row-major, and sizes
 * are int64. Every function returns 0, or 1 where there was no memory for its working rows. Sums over rows are kept per
 * thread and then added in the order of the threads: the same result at every run with the same number of threads. The
 * OpenMP runtime is the one that Paddle has loaded, so there is one pool of threads.
 */
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SMALL 16384 /* elements under which waking the other threads costs more than it saves */
