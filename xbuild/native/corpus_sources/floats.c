/* Floating constants: folded by the compiler's own arithmetic, never by the host's. */
#include <float.h>

#define ROW(x) {(float)(x), (double)(x), (long double)(x)}
struct row {
    float single;
    double twice;
    long double extended;
};

const struct row rows[] = {
    ROW(0.1L), ROW(1.0L / 3.0L), ROW(-2.0L / 7.0L), ROW(3.14159265358979323846264338327950288L),
    ROW(2.718281828459045235360287471352662498L), ROW(1e-45L), ROW(4.9406564584124654e-324L),
    ROW(1.7976931348623157e308L), ROW(0x1.fffffep-127L), ROW(0x1.00000100000001p0L), ROW(1e22L),
    ROW(9007199254740993.0L), ROW(5e-324L), ROW(123456789012345678901234567890.0L), ROW(-0.0L),
};
const double specials[] = {__builtin_inf(), -__builtin_inf(), __builtin_nan(""),
                           __builtin_nan("0x1234"), __builtin_nans("7"), DBL_EPSILON, DBL_MIN};
const double folded[] = {
    __builtin_sqrt(2.0), __builtin_sin(1.0), __builtin_cos(1e10), __builtin_exp(1.5),
    __builtin_log(10.0), __builtin_pow(1.1, 55.5), __builtin_tgamma(4.5), __builtin_atan2(1.0, -3.0),
    __builtin_cbrt(7.0), __builtin_erf(0.3), __builtin_fma(0.1, 10.0, -1.0), __builtin_hypot(3.1, 4.7),
    __builtin_round(-2.5), __builtin_ldexp(0.3, -1070), __builtin_log1p(1e-12), __builtin_sinh(0.7),
};
const float folded_single[] = {__builtin_sinf(0.5f), __builtin_expf(-80.0f), __builtin_powf(2.5f, 3.5f)};
const long double folded_extended[] = {__builtin_sinl(0.5L), __builtin_expl(1.0L), __builtin_logl(3.0L)};
const _Complex double rotated = (1.5 + 2.25i) * (0.3 - 7.1i) / (2.0 + 1.0i);

double polynomial(double x) {
    return ((((1.0 / 5040 * x - 1.0 / 720) * x + 1.0 / 120) * x - 1.0 / 24) * x + 1.0 / 6) * x;
}

int convert(double x, float y, long double z) {
    unsigned long long u = (unsigned long long)(x * 1e3);
    return (int)(y * 0.7f) + (int)z + (int)(u >> 7) + (x < y) + (x != x) + __builtin_signbit(z) +
           (int)__builtin_floor(x) + (int)__builtin_ceilf(y) + (int)__builtin_lrint(x);
}

_Complex double product(_Complex double a, _Complex double b) { return a * b + ~a; }
double constant_maths(void) { return __builtin_sin(0.25) + __builtin_lgamma(11.3) * 1e-7 + 1e300 * 1e10; }
