/* Vectors of the processor's width, for kernels that hold sums and taps in registers. */
#ifdef __clang__
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 32")
#pragma GCC optimize("no-associative-math") /* regrouped sums would be products and sums instead of multiply-adds */
#endif

#ifdef __AVX512F__
#define LANES 16
#elif defined __AVX__
#define LANES 8
#else
#define LANES 4
#endif

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
