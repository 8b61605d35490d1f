/* Thread-local storage in every model, atomics of every width and order. */
#include <stdint.h>

_Thread_local int common;
static _Thread_local uint64_t local_value = 0x1122334455667788u;
extern _Thread_local int elsewhere;
__attribute__((tls_model("initial-exec"))) _Thread_local int initial = 3;
__attribute__((tls_model("local-exec"))) static _Thread_local char buffer[100];

int read_all(void) { return common + (int)local_value + elsewhere + initial + buffer[7]; }
int *address(int which) { return which ? &common : &elsewhere; }
void fill(char c) {
    for (unsigned i = 0; i < sizeof buffer; i++) buffer[i] = (char)(c + i);
}

uint8_t narrow;
uint32_t word;
uint64_t wide;

uint64_t atomics(uint32_t add) {
    __atomic_fetch_add(&word, add, __ATOMIC_RELAXED);
    __atomic_fetch_or(&narrow, 4, __ATOMIC_ACQ_REL);
    uint32_t expected = 5;
    while (!__atomic_compare_exchange_n(&word, &expected, expected * 2, 1, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED))
        ;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(&narrow, 1, __ATOMIC_RELEASE);
    return __atomic_load_n(&word, __ATOMIC_ACQUIRE) + __sync_bool_compare_and_swap(&word, 1, 2);
}

#ifdef __LP64__
uint64_t atomics_wide(uint64_t v) {
    return __atomic_exchange_n(&wide, v, __ATOMIC_ACQ_REL) + __atomic_nand_fetch(&wide, v, __ATOMIC_SEQ_CST);
}
#endif
