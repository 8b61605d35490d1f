/* What clang computes itself when it knows the arguments, by the C library of where it runs. */
#include <math.h>

#define VALUES(F) F(0.1) F(0.37) F(0.83) F(1.57) F(6.9) F(17.3)
#define OF_ONE(x) \
    sin(x), cos(x), tan(x), atan(x), sinh(x), cosh(x), tanh(x), exp(x), exp2(x), log(x), log2(x), \
    log10(x), log1p(x), pow(x, 1.7), pow(1.3, x), fmod(x, 0.7), sqrt(x), floor(x), round(x), \
    asin(x / 40), acos(x / 40), erf(x), cbrt(x), atan2(x, 0.3), expm1(x),
#define OF_FLOAT(x) \
    sinf(x##f), cosf(x##f), tanf(x##f), atanf(x##f), sinhf(x##f), expf(x##f), exp2f(x##f), \
    logf(x##f), log2f(x##f), log10f(x##f), powf(x##f, 1.7f), tanhf(x##f), sqrtf(x##f),

void doubles(double *to)
{
    double all[] = { VALUES(OF_ONE) };
    for (unsigned i = 0; i < sizeof all / sizeof all[0]; i++)
        to[i] = all[i];
}

void floats(float *to)
{
    float all[] = { VALUES(OF_FLOAT) };
    for (unsigned i = 0; i < sizeof all / sizeof all[0]; i++)
        to[i] = all[i];
}
