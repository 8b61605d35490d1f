/* The preprocessor: pasting, strings, variadic macros, conditions, predefined names. */
#include "twice.h"
#define PASTE(a, b) a##b
#define TEXT(x) #x
#define EXPANDED(x) TEXT(x)
#define COUNT(...) COUNT_(__VA_ARGS__, 5, 4, 3, 2, 1, 0)
#define COUNT_(a, b, c, d, e, n, ...) n
#define EACH(f, x, ...) f(x) __VA_OPT__(f(__VA_ARGS__))
#if __SIZEOF_POINTER__ == 8 && defined __GNUC__ && __has_include("twice.h")
#define WIDTH 64
#elif __SIZEOF_POINTER__ == 4
#define WIDTH 32
#else
#error "neither 32 nor 64 bits"
#endif
const char *PASTE(na, mes)[] = {__FILE__, EXPANDED(WIDTH), TEXT("a\n\"b\""), EXPANDED(COUNT(1, 2, 3)),
                                __VERSION__, EXPANDED(__BYTE_ORDER__), EXPANDED(__CHAR_UNSIGNED__)};
const char *where(void) { return __func__; }
int line(void) { return __LINE__ + __COUNTER__ + __COUNTER__ + twice(WIDTH) + TWICE(3); }
int wide[] = {L'\u00e9', u'\u20ac', U'\U0001f600', 'abcd'};
const char utf8[] = u8"gr\u00fc\u00dfe \U0001f600";
EACH(int PASTE, first);
_Pragma("GCC diagnostic ignored \"-Wunused\"") static int unused;
