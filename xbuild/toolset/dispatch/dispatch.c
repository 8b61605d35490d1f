/* The first instructions of a qemu-user that xbuild gave to its binfmt_misc entry.
 *
 * They run before qemu's own, on the stack as the kernel made it (fs/binfmt_elf.c): if the program
 * to emulate is one of the files in TABLE, a native program is executed in its place, else control
 * goes on to qemu, with registers, stack, memory and descriptors as they were. A file is known by
 * its identity and not by its path: one that was replaced or changed is emulated. Whatever fails
 * here ends in emulation as well.
 *
 * build.sh makes ARCH.bin of this, a flat image that runs at any page-aligned address. It is
 * followed by one word, which dispatcher.py fills in: how far it is from there to qemu's own entry.
 * The table's format is written by sandbox/substitute.py.
 */

typedef unsigned int u32;
typedef unsigned long word;

#define TABLE "/run/xbuild/native.table"
#define TABLE_MAGIC 0x31656c6261746278UL /* "xbtable1" in memory */

/* linux/auxvec.h, linux/binfmts.h */
#define AT_EXECFD 2
#define AT_FLAGS 8
#define AT_SECURE 23
#define AT_FLAGS_PRESERVE_ARGV0 1

/* linux/fcntl.h, linux/stat.h, asm-generic/mman-common.h */
#define AT_FDCWD (-100)
#define AT_EMPTY_PATH 0x1000
#define O_CLOEXEC 02000000
#define F_SETFD 2
#define FD_CLOEXEC 1
#define STATX_BASIC_STATS 0x7ff
#define S_IFMT 0170000
#define S_IFREG 0100000
#define S_ISUID 04000
#define S_ISGID 02000
#define PROT_READ 1
#define MAP_PRIVATE 2

/* struct statx, linux/stat.h: what lies between is left out */
struct timestamp {
    long seconds;
    u32 nanoseconds;
    u32 reserved;
};

struct status {
    u32 mask, block_size;
    word attributes;
    u32 links, uid, gid;
    unsigned short mode, spare;
    word ino, size, blocks, attributes_mask;
    struct timestamp accessed, born, changed, modified;
    u32 rdev_major, rdev_minor, dev_major, dev_minor;
    word rest[14];
};

struct entry {
    word ino, size;
    long modified_s, changed_s;
    u32 modified_ns, changed_ns, dev_major, dev_minor;
    /* Offsets of texts from the table's beginning, 0 for none. */
    u32 path, arguments[2];
    u32 exceptions; /* several texts, the last one empty */
    u32 drops_preload, wants_plain_locale;
};

struct table {
    word magic;
    u32 count, spare;
    struct entry entries[];
};

#if defined __x86_64__
enum { NR_close = 3, NR_mmap = 9, NR_munmap = 11, NR_execve = 59, NR_fcntl = 72 };
enum { NR_openat = 257, NR_statx = 332 };

static long call(long number, word a, word b, word c, word d, word e, word f)
{
    long result;
    register word r10 __asm__("r10") = d;
    register word r8 __asm__("r8") = e;
    register word r9 __asm__("r9") = f;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* The ABI promises a program rdx and rsp; the kernel clears the others. */
__asm__(".pushsection .text.start, \"ax\"\n"
        ".globl _start\n"
        "_start:\n"
        "  mov %rsp, %rbx\n"
        "  mov %rsp, %rdi\n"
        "  and $-16, %rsp\n"
        "  call dispatch\n"
        "  mov %rbx, %rsp\n"
        "  lea original(%rip), %rax\n"
        "  add (%rax), %rax\n"
        "  xor %ebx, %ebx\n"
        "  xor %ecx, %ecx\n"
        "  xor %edx, %edx\n"
        "  xor %esi, %esi\n"
        "  xor %edi, %edi\n"
        "  xor %ebp, %ebp\n"
        "  xor %r8d, %r8d\n"
        "  xor %r9d, %r9d\n"
        "  xor %r10d, %r10d\n"
        "  xor %r11d, %r11d\n"
        "  jmp *%rax\n"
        ".popsection\n");
#elif defined __aarch64__
enum { NR_close = 57, NR_mmap = 222, NR_munmap = 215, NR_execve = 221, NR_fcntl = 25 };
enum { NR_openat = 56, NR_statx = 291 };

static long call(long number, word a, word b, word c, word d, word e, word f)
{
    register long x8 __asm__("x8") = number;
    register word x0 __asm__("x0") = a;
    register word x1 __asm__("x1") = b;
    register word x2 __asm__("x2") = c;
    register word x3 __asm__("x3") = d;
    register word x4 __asm__("x4") = e;
    register word x5 __asm__("x5") = f;

    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return (long)x0;
}

__asm__(".pushsection .text.start, \"ax\"\n"
        ".globl _start\n"
        "_start:\n"
        "  mov x19, sp\n"
        "  mov x0, sp\n"
        "  bl dispatch\n"
        "  mov sp, x19\n"
        "  adr x16, original\n"
        "  ldr x17, [x16]\n"
        "  add x16, x16, x17\n"
        "  mov x0, 0\n"
        "  mov x19, 0\n"
        "  mov x29, 0\n"
        "  mov x30, 0\n"
        "  br x16\n"
        ".popsection\n");
#else
#error "no system calls known for this machine"
#endif

/* Where in "LD_…" a variable that the dynamic loader obeys is given a value, else 0. */
static const char *value_of(const char *variable, const char *name)
{
    while (*name && *variable == *name) {
        variable++;
        name++;
    }
    return *name || !*variable ? 0 : variable;
}

static int is_wanted(const struct entry *entry, const struct status *file)
{
    return entry->ino == file->ino && entry->size == file->size
           && entry->changed_s == file->changed.seconds
           && entry->changed_ns == file->changed.nanoseconds
           && entry->modified_s == file->modified.seconds
           && entry->modified_ns == file->modified.nanoseconds
           && entry->dev_major == file->dev_major && entry->dev_minor == file->dev_minor;
}

static const struct entry *find(const struct table *table, word size, const struct status *file)
{
    if (size < sizeof *table || table->magic != TABLE_MAGIC
        || table->count > (size - sizeof *table) / sizeof table->entries[0])
        return 0;
    for (u32 i = 0; i < table->count; i++)
        if (is_wanted(&table->entries[i], file))
            return &table->entries[i];
    return 0;
}

static word length_of(const char *text)
{
    word length = 0;

    while (text[length])
        length++;
    return length;
}

/* Whether a pattern's next part stands for the character: "?", "[a-z]", "[!a-z]" or itself. */
static int stands_for(const char **pattern, char character)
{
    const char *part = *pattern;
    int is_negated, is_found = 0;

    if (!character || !*part)
        return 0;
    if (*part != '[') {
        *pattern = part + 1;
        return *part == '?' || *part == character;
    }
    is_negated = *++part == '!';
    part += is_negated;
    while (*part && *part != ']') {
        char first = *part++, last = first;
        if (part[0] == '-' && part[1] && part[1] != ']') {
            last = part[1];
            part += 2;
        }
        is_found |= first <= character && character <= last;
    }
    *pattern = *part ? part + 1 : part;
    return is_found != is_negated;
}

/* glob(7), without escapes: all of the text, which may have a "/" anywhere. */
static int is_like(const char *text, const char *pattern)
{
    const char *behind_star = 0, *next = 0;

    for (;;) {
        const char *part = pattern;
        if (*pattern == '*') {
            behind_star = ++pattern;
            next = text;
        } else if (stands_for(&part, *text)) {
            pattern = part;
            text++;
        } else if (!*text && !*pattern)
            return 1;
        else if (behind_star && *next) {
            pattern = behind_star;
            text = ++next;
        } else
            return 0;
    }
}

/* Whether an argument begins with the text; one that begins with "*" is a pattern for all of it. */
static int matches(const char *argument, const char *text)
{
    if (*text == '*')
        return is_like(argument, text);
    while (*text && *argument == *text) {
        argument++;
        text++;
    }
    return !*text;
}

static int is_exception(const char *texts, const char **arguments)
{
    for (; *arguments; arguments++)
        for (const char *text = texts; *text; text += length_of(text) + 1)
            if (matches(*arguments, text))
                return 1;
    return 0;
}

static int is_one_of(const char *value, const char *texts)
{
    for (const char *text = texts; *text; text += length_of(text) + 1)
        if (matches(value, text) && length_of(value) == length_of(text))
            return 1;
    return 0;
}

/* Whether nothing is read of the tree's locales (locale(7)), which are data of its C library. */
static int is_locale_plain(const char **environment)
{
    static const char plain[] = "C\0POSIX\0C.UTF-8\0C.utf8\0";
    int is_plain = 1;

    for (; *environment; environment++) {
        const char *variable = *environment, *value;
        if (variable[0] != 'L')
            continue;
        if ((value = value_of(variable, "LC_ALL=")))
            return is_one_of(value, plain);
        value = value_of(variable, "LANG=");
        if (!value && matches(variable, "LC_")) {
            for (value = variable; *value && *value != '='; value++)
                ;
            value = value[0] && value[1] ? value + 1 : 0;
        }
        if (value && !is_one_of(value, plain))
            is_plain = 0;
    }
    return is_plain;
}

/* Whether a list of libraries (ld.so(8)) has such alone as change no byte that a compiler writes. */
static int is_idle(const char *list)
{
    static const char idle[] = "libeatmydata\0libfakeroot\0libsandbox\0";

    while (*list) {
        const char *name[] = {list, 0};
        for (; *list && *list != ' ' && *list != ':'; list++)
            if (*list == '/')
                name[0] = list + 1;
        if (name[0] != list && !is_exception(idle, name))
            return 0;
        list += !!*list;
    }
    return 1;
}

/* The variable to leave out, where there is one; ``none`` stands for "emulate". */
static const char **preload_of(const char **environment, int drops_preload, const char **none)
{
    const char **found = 0;

    for (; *environment; environment++) {
        const char *variable = *environment, *value;
        if (variable[0] != 'L' || variable[1] != 'D' || variable[2] != '_')
            continue;
        if (value_of(variable, "LD_TRACE_LOADED_OBJECTS=") || value_of(variable, "LD_AUDIT=")
            || value_of(variable, "LD_DEBUG=") || value_of(variable, "LD_SHOW_AUXV="))
            return none;
        if ((value = value_of(variable, "LD_PRELOAD="))) {
            if (!drops_preload || found || !is_idle(value))
                return none;
            found = environment;
        }
    }
    return found;
}

/* Take a pointer out of a list that ends with 0, and put it back. */
static const char *take_out(const char **place)
{
    const char *taken = *place;

    for (; *place; place++)
        place[0] = place[1];
    return taken;
}

static void put_back(const char **place, const char *taken)
{
    while (taken) {
        const char *moved = *place;
        *place++ = taken;
        taken = moved;
    }
    *place = 0;
}

/* ``arguments`` are the interpreter, the program's path, its argv[0], and the others. */
static void execute(const char *table, const struct entry *entry, const char **arguments,
                    const char **environment, word execfd)
{
    const char *interpreter = arguments[0], *path = arguments[1], *name = arguments[2];
    const char **start = arguments + 2, **preload, *removed = 0, *none = 0;

    preload = preload_of(environment, entry->drops_preload, &none);
    if (preload == &none)
        return;
    if (entry->exceptions && is_exception(table + entry->exceptions, arguments + 3))
        return;
    if (entry->wants_plain_locale && !is_locale_plain(environment))
        return;
    /* What is inserted after argv[0] takes the two places before it. */
    for (int i = 1; i >= 0; i--)
        if (entry->arguments[i]) {
            *start-- = table + entry->arguments[i];
            *start = name;
        }
    if (preload)
        removed = take_out(preload);
    call(NR_fcntl, execfd, F_SETFD, FD_CLOEXEC, 0, 0, 0);
    call(NR_execve, (word)(table + entry->path), (word)start, (word)environment, 0, 0, 0);
    call(NR_fcntl, execfd, F_SETFD, 0, 0, 0, 0);
    if (preload)
        put_back(preload, removed);
    arguments[0] = interpreter;
    arguments[1] = path;
    arguments[2] = name;
}

static void look_up(const struct status *file, const char **arguments, const char **environment,
                    word execfd)
{
    struct status table;
    const struct entry *entry;
    long address, fd = call(NR_openat, AT_FDCWD, (word)TABLE, O_CLOEXEC, 0, 0, 0);

    if (fd < 0)
        return;
    if (call(NR_statx, fd, (word) "", AT_EMPTY_PATH, STATX_BASIC_STATS, (word)&table, 0) < 0)
        table.size = 0;
    address = call(NR_mmap, 0, table.size, PROT_READ, MAP_PRIVATE, fd, 0);
    call(NR_close, fd, 0, 0, 0, 0, 0);
    if (address < 0)
        return;
    entry = find((const struct table *)address, table.size, file);
    if (entry)
        execute((const char *)address, entry, arguments, environment, execfd);
    call(NR_munmap, address, table.size, 0, 0, 0, 0);
}

__attribute__((used)) void dispatch(word *stack)
{
    const char **arguments = (const char **)(stack + 1);
    const char **environment = arguments + stack[0] + 1, **end = environment;
    word execfd = 0, has_execfd = 0, flags = 0, is_secure = 0;
    struct status file;

    while (*end)
        end++;
    for (const word *aux = (const word *)(end + 1); aux[0]; aux += 2) {
        if (aux[0] == AT_EXECFD) {
            execfd = aux[1];
            has_execfd = 1;
        } else if (aux[0] == AT_FLAGS)
            flags = aux[1];
        else if (aux[0] == AT_SECURE)
            is_secure = aux[1];
    }
    if (stack[0] < 3 || !has_execfd || is_secure || !(flags & AT_FLAGS_PRESERVE_ARGV0))
        return;
    if (call(NR_statx, execfd, (word) "", AT_EMPTY_PATH, STATX_BASIC_STATS, (word)&file, 0) < 0)
        return;
    if ((file.mode & S_IFMT) != S_IFREG || (file.mode & (S_ISUID | S_ISGID)))
        return;
    look_up(&file, arguments, environment, execfd);
}
