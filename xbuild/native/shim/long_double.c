/* The long double of another architecture, for programs of x86-64 that read and print numbers.
 *
 * A program that passes what strtold(3) returns on to printf(3), and does nothing else with it,
 * prints what the target's own would. Scope: bash's printf and that of coreutils. Loaded before the
 * C library, this answers strtold with a NaN that stands for the number, which was read in the
 * target's format, and prints that number where the NaN comes to be printed. What does arithmetic
 * is not served.
 *
 * Reading and printing are the C library's own code for _Float128 and double: the very code that
 * it uses for long double where that has such a format. build.sh makes ARCH.bin of this, a library;
 * FORMAT is changed in it for targets whose long double is a double.
 */

#include <errno.h>
#include <langinfo.h>
#include <limits.h>
#include <printf.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANTISSA_DIGITS 28 /* hexadecimal ones of a _Float128, behind the point */
#define BOX 0xf1e2d3c4UL   /* the integer bit, the quiet bit, and what no calculation makes */

/* How x86-64 has a long double in memory. */
struct extended {
    uint64_t mantissa;
    uint16_t sign_and_exponent;
    uint16_t padding[3];
};

union number {
    _Float128 quad;
    double plain;
    struct {
        uint64_t low, high;
    } bits;
};

static const volatile char FORMAT[] = "target=binary128";

static union number last;
static uint32_t serial;

/* In libc.so.6 since 2.2.5, and in no header. */
extern int __printf_fp(FILE *stream, const struct printf_info *info, const void *const *arguments);

static int is_plain(void)
{
    return FORMAT[sizeof "target=binary" - 1] == '6';
}

__attribute__((visibility("default"))) long double strtold(const char *text, char **end)
{
    union {
        struct extended parts;
        long double value;
    } box = {.parts = {BOX << 32 | ++serial, 0x7fff, {0, 0, 0}}};

    if (is_plain())
        last.plain = strtod(text, end);
    else
        last.quad = strtof128(text, end);
    return box.value;
}

/* What a long double stands for, or that number itself, exactly: both exponents have 15 bits. */
static union number number_of(const struct extended *given)
{
    union number number;

    if (given->sign_and_exponent == 0x7fff && given->mantissa == (BOX << 32 | serial))
        return last;
    if (is_plain()) {
        number.plain = (double)*(const long double *)given;
        return number;
    }
    number.bits.high = (uint64_t)given->sign_and_exponent << 48 | (given->mantissa << 1) >> 16;
    number.bits.low = given->mantissa << 49;
    return number;
}

static int fill(FILE *stream, int character, int count)
{
    for (int i = 0; i < count; i++)
        if (putc(character, stream) < 0)
            return -1;
    return 0;
}

/* %a, whose function the C library does not export: its digits are those of strfromf128. */
static int print_hexadecimal(FILE *stream, const struct printf_info *info, _Float128 number)
{
    const int is_upper = info->spec == 'A';
    const int beyond = info->prec > MANTISSA_DIGITS ? info->prec - MANTISSA_DIGITS : 0;
    char format[] = {'%', '.', 0, 0, 0, 0}, text[64], sign[2] = "", *digits = text, *exponent;
    const char *point = "";

    if (info->prec < 0) {
        format[1] = is_upper ? 'A' : 'a';
    } else {
        format[2] = (char)('0' + (info->prec - beyond) / 10);
        format[3] = (char)('0' + (info->prec - beyond) % 10);
        format[4] = is_upper ? 'A' : 'a';
    }
    strfromf128(text, sizeof text, format, number);
    if (*digits == '-')
        sign[0] = *digits++;
    else if (info->showsign || info->space)
        sign[0] = info->showsign ? '+' : ' ';
    exponent = strchr(digits, is_upper ? 'P' : 'p');
    if (info->alt && exponent == digits + 3)
        point = nl_langinfo(RADIXCHAR);

    const int length = (int)(strlen(sign) + strlen(digits) + strlen(point)) + beyond;
    const int padding = info->width > length ? info->width - length : 0;
    const int has_zeros = info->pad == '0' && !info->left;
    if (fill(stream, ' ', info->left || has_zeros ? 0 : padding) < 0
        || fprintf(stream, "%s%.2s", sign, digits) < 0
        || fill(stream, '0', has_zeros ? padding : 0) < 0
        || fprintf(stream, "%.*s%s", (int)(exponent - digits - 2), digits + 2, point) < 0
        || fill(stream, '0', beyond) < 0 || fputs(exponent, stream) < 0
        || fill(stream, ' ', info->left ? padding : 0) < 0)
        return -1;
    return length + padding;
}

static int print_quad(FILE *stream, struct printf_info *info, _Float128 number)
{
    const union number parts = {.quad = number};
    const void *const arguments[] = {&parts};
    const int is_finite = (~parts.bits.high & 0x7fffUL << 48) != 0;

    if ((info->spec == 'a' || info->spec == 'A') && is_finite)
        return print_hexadecimal(stream, info, number);
    info->is_binary128 = 1;
    return __printf_fp(stream, info, arguments);
}

/* A number of a format, or the argument that it has for one; -1 where no int is as large. */
static int parse_number(const char **format, va_list *arguments)
{
    long value = 0;

    if (**format == '*') {
        ++*format;
        return va_arg(*arguments, int);
    }
    for (; **format >= '0' && **format <= '9'; ++*format)
        if ((value = 10 * value + (**format - '0')) > INT_MAX)
            value = 1L << 40;
    return value > INT_MAX ? -1 : (int)value;
}

/* Whether a format is one conversion of a long double and nothing else, as printf programs use. */
static int is_of_long_double(const char *format)
{
    const char *next = format + 1;

    if (*format != '%')
        return 0;
    next += strspn(next, "#'-+ 0");
    next += *next == '*' ? 1 : strspn(next, "0123456789");
    if (*next == '.') {
        next++;
        next += *next == '*' ? 1 : strspn(next, "0123456789");
    }
    return next[0] == 'L' && next[1] && strchr("aAeEfFgG", next[1]) && !next[2];
}

/* The number as the target prints it; the format was found to be of a long double. */
static int print(FILE *stream, const char *format, va_list *given)
{
    struct printf_info info = {.pad = ' ', .prec = -1};
    const char *next = format + 1;
    char plain[64];
    va_list arguments;
    long double value;
    int result = -1, is_too_large = 0;

    for (; strchr("#'-+ 0", *next); next++)
        switch (*next) {
        case '#': info.alt = 1; break;
        case '\'': info.group = 1; break;
        case '-': info.left = 1; break;
        case '+': info.showsign = 1; break;
        case ' ': info.space = 1; break;
        default: info.pad = '0';
        }
    va_copy(arguments, *given);
    const int has_width_argument = *next == '*';
    info.width = parse_number(&next, &arguments);
    if (info.width < 0 && has_width_argument) {
        info.left = 1;
        info.width = info.width == INT_MIN ? -1 : -info.width;
    }
    is_too_large = info.width < 0;
    if (*next == '.') {
        const int has_argument = *++next == '*';
        info.prec = parse_number(&next, &arguments);
        is_too_large |= info.prec < 0 && !has_argument;
        if (info.prec < 0)
            info.prec = -1;
    }
    if (info.left)
        info.pad = ' ';
    info.spec = next[1];
    value = va_arg(arguments, long double);
    va_end(arguments);

    const union number number = number_of((const struct extended *)&value);
    if (is_too_large)
        errno = EOVERFLOW;
    else if (!is_plain())
        result = print_quad(stream, &info, number.quad);
    else {
        snprintf(plain, sizeof plain, "%%%s%s%s%s%s%s*.*%c", info.alt ? "#" : "",
                 info.group ? "'" : "", info.left ? "-" : "", info.showsign ? "+" : "",
                 info.space ? " " : "", info.pad == '0' ? "0" : "", info.spec);
        result = fprintf(stream, plain, info.width, info.prec, number.plain);
    }
    return result;
}

/* What fortified programs call, before the C library's own. */
__attribute__((visibility("default"))) int __vfprintf_chk(FILE *stream, int flag,
                                                          const char *format, va_list arguments)
{
    va_list own;
    int result;

    (void)flag;
    va_copy(own, arguments);
    result = is_of_long_double(format) ? print(stream, format, &own)
                                       : vfprintf(stream, format, own);
    va_end(own);
    return result;
}

__attribute__((visibility("default"))) int __printf_chk(int flag, const char *format, ...)
{
    va_list arguments;
    int result;

    va_start(arguments, format);
    result = __vfprintf_chk(stdout, flag, format, arguments);
    va_end(arguments);
    return result;
}

__attribute__((visibility("default"))) int __vsnprintf_chk(char *buffer, size_t size, int flag,
                                                           size_t length, const char *format,
                                                           va_list arguments)
{
    char *made = NULL;
    size_t made_length = 0;
    va_list own;
    int result = -1;

    (void)flag;
    (void)length;
    va_copy(own, arguments);
    if (!is_of_long_double(format)) {
        result = vsnprintf(buffer, size, format, own);
    } else {
        FILE *stream = open_memstream(&made, &made_length);
        if (stream != NULL) {
            result = print(stream, format, &own);
            fclose(stream);
            if (result >= 0)
                snprintf(buffer, size, "%s", made);
            free(made);
        }
    }
    va_end(own);
    return result;
}
