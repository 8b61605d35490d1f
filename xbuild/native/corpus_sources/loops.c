/* Loops that vectorizers, unrollers and polyhedral passes like. */
#include <stdint.h>

#define N 1024
float a[N], b[N], c[N];
double m[32][32], n[32][32], p[32][32];
int8_t bytes[N];
int32_t words[N];

void saxpy(float k) {
    for (int i = 0; i < N; i++) c[i] = a[i] * k + b[i];
}

void multiply(void) {
    for (int i = 0; i < 32; i++)
        for (int j = 0; j < 32; j++) {
            double total = 0;
            for (int k = 0; k < 32; k++) total += m[i][k] * n[k][j];
            p[i][j] = total;
        }
}

int widen(int limit) {
    int total = 0;
    for (int i = 0; i < limit; i++) total += bytes[i] * words[i & (N - 1)] + (bytes[i] > 3 ? i : -i);
    return total;
}

unsigned reverse(unsigned x) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++, x >>= 1) r = r << 1 | (x & 1);
    return r;
}

void sort(int *values, int count) {
    for (int gap = count / 2; gap > 0; gap /= 2)
        for (int i = gap; i < count; i++) {
            int v = values[i], j = i;
            for (; j >= gap && values[j - gap] > v; j -= gap) values[j] = values[j - gap];
            values[j] = v;
        }
}

typedef float v4 __attribute__((vector_size(16)));
v4 blend(v4 x, v4 y) { return __builtin_shuffle(x, y, (__typeof__(x > y)){0, 5, 2, 7}) * 2.0f + y; }

#ifdef _OPENMP
double reduce(const double *values, int count) {
    double total = 0;
#pragma omp parallel for reduction(+ : total) schedule(dynamic, 16)
    for (int i = 0; i < count; i++) total += values[i];
    return total;
}
#endif
