#define TWICE(x) ((x) + (x))
static inline int twice(int x) { return TWICE(x); }
