/* starve.c - memory that runs out: LD_PRELOAD before the daemon. Compiled by the tests (starve.py).
 *
 * $TERN_STARVE names a file that is mapped at the start, of the struct below: the test writes there what is to fail, and
 * reads what came. Only allocations count, and fail, that are asked for by the code of those in `who`: the program itself
 * (1), OpenSSL (2), c-ares (4), LMDB (8), libmicrohttpd, jansson, libcurl and libidn2 (16). Never those of libc, the loader and
 * libev, which ends the process when it gets no memory.
 *
 * An allocation is its caller's: the code that the call returns to.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct starve {
    _Atomic uint64_t who;
    _Atomic uint64_t at;     /* the at-th from now on fails; 0: none */
    _Atomic uint64_t more;   /* and so many after it */
    _Atomic uint64_t asked;  /* since the test set it to 0 */
    _Atomic uint64_t failed; /* the same */
};

enum { OF_PROGRAM = 1, MOST = 64 };

static struct {
    uintptr_t from, to;
    uint64_t who;
} code[MOST];
static unsigned n_code;
static struct starve *told;

static uint64_t who_is(const char *name)
{
    static const struct {
        const char *part;
        uint64_t who;
    } known[] = {
        { "/libssl.", 2 },         { "/libcrypto.", 2 },   { "/libcares.", 4 }, { "/liblmdb.", 8 },
        { "/libmicrohttpd.", 16 }, { "/libjansson.", 16 }, { "/libcurl", 16 },  { "/libidn2.", 16 },
    };

    if (!*name) /* of the program the name is empty */
        return OF_PROGRAM;
    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strstr(name, known[i].part))
            return known[i].who;
    return 0;
}

static int note_code(struct dl_phdr_info *info, size_t size, void *arg)
{
    uint64_t who = who_is(info->dlpi_name);

    (void)size;
    (void)arg;
    for (int i = 0; who && i < info->dlpi_phnum && n_code < MOST; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
            continue;
        code[n_code].from = info->dlpi_addr + p->p_vaddr;
        code[n_code].to = code[n_code].from + p->p_memsz;
        code[n_code++].who = who;
    }
    return 0;
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("TERN_STARVE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

    if (fd < 0)
        return;
    dl_iterate_phdr(note_code, NULL);
    void *p = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p != MAP_FAILED)
        told = p;
}

static uint64_t of(uintptr_t pc)
{
    for (unsigned i = 0; i < n_code; i++)
        if (pc >= code[i].from && pc < code[i].to)
            return code[i].who;
    return 0;
}

static bool fails(const void *caller)
{
    uint64_t at, n;

    if (!told || !(of((uintptr_t)caller) & told->who))
        return false;
    n = atomic_fetch_add(&told->asked, 1) + 1;
    at = told->at;
    if (!at || n < at || n - at > told->more)
        return false;
    atomic_fetch_add(&told->failed, 1);
    errno = ENOMEM;
    return true;
}

#define FAILS() fails(__builtin_return_address(0))

static void *next_of(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

void *malloc(size_t n)
{
    static void *(*real)(size_t);

    if (FAILS())
        return NULL;
    if (!real)
        *(void **)&real = next_of("malloc");
    return real(n);
}

void *calloc(size_t n, size_t size)
{
    static void *(*real)(size_t, size_t);

    if (FAILS())
        return NULL;
    if (!real)
        *(void **)&real = next_of("calloc");
    return real(n, size);
}

static void *real_realloc(void *p, size_t n)
{
    static void *(*real)(void *, size_t);

    if (!real)
        *(void **)&real = next_of("realloc");
    return real(p, n);
}

void *realloc(void *p, size_t n)
{
    return FAILS() ? NULL : real_realloc(p, n);
}

void *reallocarray(void *p, size_t n, size_t size)
{
    if (size && n > SIZE_MAX / size) {
        errno = ENOMEM;
        return NULL;
    }
    return FAILS() ? NULL : real_realloc(p, n * size);
}

char *strdup(const char *s)
{
    static char *(*real)(const char *);

    if (FAILS())
        return NULL;
    if (!real)
        *(void **)&real = next_of("strdup");
    return real(s);
}
