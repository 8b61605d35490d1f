/* The tree's own headers, the way that programs use them. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static jmp_buf place;
static void handler(int number) { longjmp(place, number); }

struct entry {
    char name[32];
    double weight;
    struct entry *next;
};

static struct entry *insert(struct entry *list, const char *name, double weight) {
    struct entry *entry = malloc(sizeof *entry);
    if (!entry) {
        fprintf(stderr, "%s: %s\n", name, strerror(errno));
        exit(EXIT_FAILURE);
    }
    strncpy(entry->name, name, sizeof entry->name - 1);
    entry->name[sizeof entry->name - 1] = 0;
    entry->weight = sqrt(weight) + fabs(sin(weight));
    entry->next = list;
    return entry;
}

int main(int argc, char **argv) {
    struct entry *list = NULL;
    char line[256];
    signal(SIGUSR1, handler);
    if (setjmp(place)) return 2;
    for (int i = 1; i < argc; i++) list = insert(list, argv[i], atof(argv[i]));
    while (fgets(line, sizeof line, stdin)) {
        for (char *c = line; *c; c++) *c = (char)toupper((unsigned char)*c);
        memmove(line + 1, line, strlen(line));
        list = insert(list, line, (double)time(NULL));
    }
    for (struct entry *e = list; e; e = e->next) printf("%-32s %.17g %d\n", e->name, e->weight, getpid());
    return 0;
}
