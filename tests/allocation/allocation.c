/* See allocation.h. */
#include "allocation.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "engine/engine.h"
#include "sim/world.h"

/* Of the linker: the beginning and end of a section whose name is an identifier. */
extern const char __start_router_text, __stop_router_text, __start_world_text, __stop_world_text;

/* Of the sanitizers, when they are there. */
extern void __sanitizer_print_stack_trace(void) __attribute__((weak));

enum { MAX_FRAMES = 200 };

struct frame {
    const struct frame *up;
    const char *returns_to;
};

static struct {
    bool armed;
    struct allocation_faults faults;
    unsigned long asked, failed;
    unsigned show, shown;
    uint64_t random;
    const void *top; /* of the stack, as far as it is of interest */
} now;
static size_t live;

static bool of_router(const char *pc)
{
    return pc >= &__start_router_text && pc < &__stop_router_text;
}

static bool of_world(const char *pc)
{
    return pc >= &__start_world_text && pc < &__stop_world_text;
}

/* through_world: whoever else stands in between. */
__attribute__((no_sanitize("address", "undefined"))) static bool asked_by_router(
    const struct frame *f, bool through_world)
{
    for (int i = 0; i < MAX_FRAMES && (const void *)f < now.top; i++) {
        if (of_router(f->returns_to))
            return true;
        if (!through_world && of_world(f->returns_to))
            return false;
        if (f->up <= f)
            return false; /* a function of a library, without frame pointers */
        f = f->up;
    }
    return false;
}

/* splitmix64 */
static uint64_t next_random(void)
{
    uint64_t z = now.random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static bool chosen(void)
{
    const struct allocation_faults *f = &now.faults;
    unsigned long n = ++now.asked;
    bool unlucky = f->per_million && next_random() % 1000000 < f->per_million;

    return unlucky || (f->at && n >= f->at && n - f->at <= f->more);
}

static bool fails(const struct frame *f, bool through_world)
{
    if (!now.armed || !asked_by_router(f, through_world) || !chosen())
        return false;
    now.failed++;
    errno = ENOMEM;
    if (now.shown < now.show) {
        now.shown++;
        now.armed = false;
        fprintf(stderr, "allocation %lu fails:\n", now.asked);
        if (__sanitizer_print_stack_trace)
            __sanitizer_print_stack_trace();
        now.armed = true;
    }
    return true;
}

#define FAILS() fails(__builtin_frame_address(0), false)

static bool port_fails(void)
{
    return fails(__builtin_frame_address(0), true);
}

void allocation_init(void)
{
    now.top = __builtin_frame_address(0);
    sim_no_memory = port_fails;
    CHECK(of_router((const char *)(uintptr_t)engine_new));
    CHECK(of_world((const char *)(uintptr_t)sim_world_new));
    CHECK(!of_router((const char *)(uintptr_t)str_dup) &&
          !of_world((const char *)(uintptr_t)str_dup));
}

void allocation_arm(const struct allocation_faults *f)
{
    now.faults = *f;
    now.asked = now.failed = 0;
    now.shown = 0;
    now.random = f->seed;
    now.armed = true;
}

unsigned long allocation_disarm(void)
{
    now.armed = false;
    return now.asked;
}

unsigned long allocation_failed(void)
{
    return now.failed;
}

size_t allocation_live(void)
{
    return live;
}

void allocation_show(unsigned n)
{
    now.show = n;
}

/* ---- malloc and its like ---------------------------------------------------------------------- */

/* The one that would have been called. */
static void *next_of(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

static void *real_malloc(size_t n)
{
    static void *(*real)(size_t);
    if (!real)
        *(void **)&real = next_of("malloc");
    void *p = real(n);
    live += p != NULL;
    return p;
}

void *malloc(size_t n)
{
    return FAILS() ? NULL : real_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    static void *(*real)(size_t, size_t);
    if (FAILS())
        return NULL;
    if (!real)
        *(void **)&real = next_of("calloc");
    void *p = real(n, size);
    live += p != NULL;
    return p;
}

static void *real_realloc(void *p, size_t n)
{
    static void *(*real)(void *, size_t);
    if (!real)
        *(void **)&real = next_of("realloc");
    void *q = real(p, n);
    if (!p)
        live += q != NULL;
    else if (n == 0 && !q)
        live--;
    return q;
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
    size_t n = strlen(s) + 1;
    char *p = FAILS() ? NULL : real_malloc(n);
    return p ? memcpy(p, s, n) : NULL;
}

void free(void *p)
{
    static void (*real)(void *);
    static bool asking;
    if (asking)
        return; /* an old error text of dlsym's */
    if (!real) {
        asking = true;
        *(void **)&real = next_of("free");
        asking = false;
    }
    live -= p != NULL;
    real(p);
}
