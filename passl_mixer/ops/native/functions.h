/* Functions of one element, written without branches so that loops over them become vector code. */

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
