package main

/*
#include <string.h>
struct pair { int a; double b; };
static int twice(struct pair *p) { return 2 * p->a + (int)strlen("four"); }
*/
import "C"

func main() { println(C.twice(&C.struct_pair{a: 3, b: 0.5})) }
