/* What a compiler says of a faulty program belongs to its output too. */
#include <stdio.h>
int unused_parameter(int x, int y) { return x; }
int missing_return(int x) { if (x) return 1; }
void conversions(void) {
    int small = 3.75e10;
    char *text = 5;
    printf("%d %s\n", "text", 7L);
    undeclared(small, text);
    int array[3] = {1, 2, 3, 4};
    return array[7];
}
struct incomplete value;
