/* AdamW of one parameter, in one pass by every core: Paddle's kernel for CPUs runs on one. */
#include "common.h"

/* To the last bit what Paddle's kernel gives, so what it fuses to one rounding is fused here, and nothing else is. */
#if defined(__GNUC__) && !defined(__clang__)
#define AS_WRITTEN __attribute__((optimize("fp-contract=off", "no-associative-math", "no-reciprocal-math")))
#else
#define AS_WRITTEN
#pragma STDC FP_CONTRACT OFF
#endif

typedef struct {
    float rate, lost, beta1, beta2, small; /* rate: below 0; lost: the share that decays */
} Step;

AS_WRITTEN static void update(float *restrict p, const float *restrict g, float *restrict moment1,
                              float *restrict moment2, int64_t n, Step s) {
    float rest1 = 1.0f - s.beta1, rest2 = 1.0f - s.beta2;
    for (int64_t i = 0; i < n; i++) {
        float kept = fmaf(-s.lost, p[i], p[i]);
        float m = fmaf(s.beta1, moment1[i], rest1 * g[i]), v = fmaf(s.beta2, moment2[i], rest2 * (g[i] * g[i]));
        moment1[i] = m;
        moment2[i] = v;
        p[i] = fmaf(s.rate, m / (sqrtf(v) + s.small), kept);
    }
}

/* One step (Loshchilov & Hutter 2019, algorithm 2): p, moment1 and moment2 [n] are updated by the gradient g [n], and
 * power1, power2 [1], the powers of beta1 and beta2 of this step, become those of the next. decay: the weight decay. */
int adamw(float *p, const float *g, float *moment1, float *moment2, float *power1, float *power2, int64_t n, float lr,
          float decay, float beta1, float beta2, float epsilon) {
    float root = sqrtf(1.0f - *power2);
    Step s = {-(lr * (root / (1.0f - *power1))), lr * decay, beta1, beta2, epsilon * root};
#pragma omp parallel if (n > SMALL)
    {
        int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
        int64_t first = share_start(n, thread, threads), count = share_start(n, thread + 1, threads) - first;
        update(p + first, g + first, moment1 + first, moment2 + first, count, s);
    }
    *power1 *= beta1;
    *power2 *= beta2;
    return DONE;
}
