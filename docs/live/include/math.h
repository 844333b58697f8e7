/* The functions of <math.h> that the live network needs: those of JavaScript. */
#define FROM_JAVASCRIPT(name) __attribute__((import_module("math"), import_name(#name)))

FROM_JAVASCRIPT(expf) float expf(float);
FROM_JAVASCRIPT(fabsf) float fabsf(float);
FROM_JAVASCRIPT(log1pf) float log1pf(float);
FROM_JAVASCRIPT(sqrtf) float sqrtf(float);
FROM_JAVASCRIPT(tanhf) float tanhf(float);
