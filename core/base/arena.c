/* arena.c - memory of one transaction.
 *
 * Layer: base. Interface: arena.h. Small pieces are cut from blocks of BLOCK bytes, at first from one of FIRST:
 * of the thousands that are there at once most need no more. A large piece
 * gets a block of its own, which is linked behind the one being cut, so that its rest is not lost.
 */
#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>

struct arena_block {
    struct arena_block *next;
    size_t used, size; /* of data */
    _Alignas(max_align_t) char data[];
};

enum {
    BLOCK = 4096 - sizeof(struct arena_block), /* with its header: one page */
    FIRST = 1024 - sizeof(struct arena_block),
    LARGE = BLOCK / 4,
};

void arena_init(struct arena *a, size_t max)
{
    *a = (struct arena){ .max = max };
}

static void free_blocks(struct arena_block *b)
{
    while (b) {
        struct arena_block *next = b->next;
        free(b);
        b = next;
    }
}

void arena_done(struct arena *a)
{
    free_blocks(a->blocks);
    a->blocks = NULL;
    a->used = 0;
    a->failed = false;
}

void arena_reset(struct arena *a)
{
    struct arena_block *keep = a->blocks;

    a->used = 0;
    a->failed = false;
    if (!keep || (keep->size != BLOCK && keep->size != FIRST)) {
        arena_done(a);
        return;
    }
    free_blocks(keep->next);
    keep->next = NULL;
    keep->used = 0;
}

static struct arena_block *new_block(size_t size)
{
    if (size > SIZE_MAX / 2)
        return NULL;
    struct arena_block *b = malloc(sizeof(*b) + size);
    if (b)
        *b = (struct arena_block){ .size = size };
    return b;
}

/* Links a block that holds at least n bytes: as the one to cut from, unless it is for one large
 * piece and there is one to cut from already. */
static struct arena_block *add_block(struct arena *a, size_t n)
{
    size_t usual = !a->blocks && n <= FIRST ? FIRST : BLOCK;
    struct arena_block *b = new_block(n > LARGE ? n : usual);
    struct arena_block **at = n > LARGE && a->blocks ? &a->blocks->next : &a->blocks;

    if (!b)
        return NULL;
    b->next = *at;
    *at = b;
    return b;
}

static void *refuse(struct arena *a)
{
    a->failed = true;
    return NULL;
}

/* n bytes, not zeroed. align is a power of two. */
static void *cut(struct arena *a, size_t n, size_t align)
{
    struct arena_block *b = a->blocks;
    size_t pad = b ? (0 - b->used) & (align - 1) : 0;
    size_t take;

    if (__builtin_add_overflow(n, pad, &take))
        return refuse(a);
    if (!b || take > b->size - b->used) {
        b = NULL; /* a fresh one, which starts aligned */
        pad = 0;
        take = n;
    }
    if (a->max && (a->used > a->max || take > a->max - a->used))
        return refuse(a);
    if (!b && !(b = add_block(a, n)))
        return refuse(a);
    char *p = b->data + b->used + pad;
    b->used += take;
    a->used += take;
    return p;
}

void *arena_alloc(struct arena *a, size_t n)
{
    /* At least one byte, so that no two live pieces have the same address. */
    void *p = cut(a, n ? n : 1, _Alignof(max_align_t));

    return p && n ? memset(p, 0, n) : p;
}

void *arena_alloc_array(struct arena *a, size_t size, size_t n)
{
    size_t total;

    return __builtin_mul_overflow(size, n, &total) ? refuse(a) : arena_alloc(a, total);
}

char *arena_strz(struct arena *a, struct str s)
{
    char *copy = s.n < SIZE_MAX ? cut(a, s.n + 1, 1) : NULL;

    if (!copy)
        return NULL;
    if (s.n)
        memcpy(copy, s.p, s.n);
    copy[s.n] = '\0';
    return copy;
}

struct str arena_str(struct arena *a, struct str s)
{
    if (s.n == 0)
        return s.p ? STR("") : STR_NONE;

    char *copy = arena_strz(a, s);
    return copy ? str_make(copy, s.n) : STR_NONE;
}

struct str arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *text = n >= 0 ? cut(a, (size_t)n + 1, 1) : NULL;
    if (!text)
        return STR_NONE;
    va_start(ap, fmt);
    vsnprintf(text, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return str_make(text, (size_t)n);
}
