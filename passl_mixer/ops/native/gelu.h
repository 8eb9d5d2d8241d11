/* GELU and its slope, of one element. */
#include "common.h"

/* Written without branches, so that loops over them become vector code. */

/* erf: x P(x^2) / Q(x^2), fitted on [-4, 4] (1.5e-8 from 1 there); error 3e-7 relative in float32. */
static inline float erf_of(float x) {
    x = x > 4.0f ? 4.0f : x;
    x = x < -4.0f ? -4.0f : x;
    float s = x * x;
    float p = 1.974529548e-06f;
    p = p * s + 2.880175489e-04f;
    p = p * s + 4.003613237e-03f;
    p = p * s + 5.346739928e-02f;
    p = p * s + 1.962514176e-01f;
    p = p * s + 1.128378977f;
    float q = 3.747644559e-05f;
    q = q * s + 1.216306425e-03f;
    q = q * s + 1.544441243e-02f;
    q = q * s + 1.16477059e-01f;
    q = q * s + 5.072544569e-01f;
    q = q * s + 1.0f;
    return x * p / q;
}

/* exp: 2^n times a polynomial of the rest, |rest| <= ln(2) / 2; below e^-87 it stays at e^-87. */
static inline float exp_of(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = rintf(x * 1.44269504089f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

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
