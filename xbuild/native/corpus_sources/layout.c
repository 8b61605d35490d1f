/* Types and scopes for debug information. */
typedef unsigned long word_t;
struct forward;
struct node {
    struct node *left, *right;
    const volatile char *restrict label;
    union {
        int as_int;
        float as_float;
        struct { short x, y; } as_pair;
    };
    word_t flags : 5, : 3, more : 8;
    int (*compare)(const struct node *, const struct node *);
    char tail[];
};
enum colour { RED, GREEN = 10, BLUE };
typedef enum colour palette[3];
static palette paint = {RED, BLUE, GREEN};
extern struct forward *opaque;

static inline int depth(const struct node *node) {
    int left = node->left ? depth(node->left) : 0;
    int right = node->right ? depth(node->right) : 0;
    return 1 + (left > right ? left : right);
}

int walk(const struct node *root, int size) {
    int seen[size];
    {
        int inner = size * 2;
        for (int i = 0; i < size; i++) {
            register int squared = i * i;
            seen[i] = squared + inner;
        }
    }
    int nested(int by) { return seen[by % size] + (int)paint[by % 3]; }
    return depth(root) + nested(size / 2) + (opaque != 0);
}
#line 4000 "elsewhere/generated.y"
int from_another_file(int value) {
    return value ? value * from_another_file(value - 1) : 1;
}
