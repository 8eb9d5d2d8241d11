/* GELU and its slope, of one element. */
#include "common.h"
#include "functions.h"

#define ROOT_HALF 0.70710678118654752f
#define ROOT_2_OVER_PI 0.79788456080286536f
#define CUBIC 0.044715f

/* x within [-reach, reach], for products with a factor that vanishes beyond; NaN stays NaN. */
static inline float near_of(float x, float reach) {
    x = x > reach ? reach : x;
    return x < -reach ? -reach : x;
}

static inline float gelu_erf(float x) {
    float y = 0.5f * x * (1.0f + erf_of(x * ROOT_HALF));
    return x < -6.0f ? 0.0f : y; /* -6e-9 there; a rounding error of erf would grow with x */
}

static inline float gelu_erf_slope(float x) {
    float t = near_of(x, 14.0f);
    return 0.5f * (1.0f + erf_of(x * ROOT_HALF)) + t * 0.39894228040143268f * exp_of(-0.5f * t * t);
}

/* 0.5 (1 + tanh u) = 1 / (1 + exp(-2u)) */
static inline float gelu_tanh(float x) {
    float t = x < -14.0f ? -14.0f : x;
    return t / (1.0f + exp_of(-2.0f * ROOT_2_OVER_PI * (x + CUBIC * x * x * x)));
}

static inline float gelu_tanh_slope(float x) {
    float u = -2.0f * ROOT_2_OVER_PI * (x + CUBIC * x * x * x), t = near_of(x, 14.0f);
    float e = exp_of(u > 30.0f ? 30.0f : u); /* the slope is 0 there; larger would overflow in the products below */
    float gate = 1.0f / (1.0f + e); /* 1 - gate = e gate, which keeps its digits where gate is nearly 1 */
    return gate + t * gate * (e * gate) * 2.0f * ROOT_2_OVER_PI * (1.0f + 3.0f * CUBIC * t * t);
}
