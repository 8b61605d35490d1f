/* Integers of all widths, bit-fields, switches, jumps, variable arguments, calls by pointer. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct packed_fields {
    unsigned low : 3;
    signed middle : 11;
    uint64_t high : 37;
    _Bool flag : 1;
};

union overlay {
    uint8_t bytes[16];
    uint32_t words[4];
    uint64_t longs[2];
};

enum kind { NONE, SMALL = 7, LARGE = 1 << 20, NEGATIVE = -3 };

static const int64_t limits[] = {INT8_MIN, INT8_MAX, INT16_MIN, INT16_MAX, INT32_MIN, INT32_MAX,
                                 INT64_MIN, INT64_MAX, 0, -1};
static const char *const names[] = {"none", "small", "large", "a \"quoted\" name\n", "\x7f\x80\xff"};
uint32_t table[64] = {[3] = 0xdeadbeef, [17 ... 23] = 0x01020304};

int dispatch(enum kind kind, int value) {
    switch (kind) {
    case NONE: return value / 7;
    case SMALL: return value % 10;
    case LARGE: return value << 3;
    case NEGATIVE: return value >> 2;
    case 11: return value * 1000003;
    case 12: return value ^ 0x55555555;
    case 13: return ~value;
    case 14: return value & -value;
    default: return -1;
    }
}

long sum(int count, ...) {
    va_list list;
    long total = 0;
    va_start(list, count);
    for (int i = 0; i < count; i++)
        total += i % 2 ? va_arg(list, long) : (long)(va_arg(list, double) * 3.0);
    va_end(list);
    return total;
}

uint64_t mix(const union overlay *restrict in, struct packed_fields *out, size_t length) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ in->bytes[i & 15]) * 0x100000001b3u;
        hash = hash << 31 | hash >> 33;
    }
    out->low = hash;
    out->middle = hash >> 3;
    out->high = hash >> 14;
    out->flag = hash >> 63;
    return hash + (uint64_t)limits[length % 10] + (uint64_t)names[length % 5][0];
}

int interpreter(const unsigned char *code, int *stack) {
    static const void *const labels[] = {&&push, &&add, &&multiply, &&halt};
    int top = 0;
    goto *labels[*code & 3];
push:
    stack[top++] = code[1];
    code += 2;
    goto *labels[*code & 3];
add:
    top--;
    stack[top - 1] += stack[top];
    goto *labels[*++code & 3];
multiply:
    top--;
    stack[top - 1] *= stack[top];
    goto *labels[*++code & 3];
halt:
    return top ? stack[top - 1] : 0;
}

__attribute__((noinline, cold)) void never(void) { __builtin_trap(); }
__attribute__((weak, visibility("hidden"))) int weak_value = 42;
__attribute__((section(".corpus.data"), aligned(64), used)) static short placed[] = {1, 2, 3};
__attribute__((constructor)) static void early(void) { table[0] = __builtin_popcount(table[3]); }
int (*volatile pointer)(enum kind, int) = dispatch;
int alias_of_dispatch(enum kind, int) __attribute__((alias("dispatch")));
