/* arena.h - memory of one transaction: allocated piece by piece, freed at once.
 *
 * Layer: base. One owner; not for sharing between threads. Returned memory is aligned for any
 * type, zeroed, and lives until arena_reset or arena_done.
 */
#ifndef TERN_BASE_ARENA_H
#define TERN_BASE_ARENA_H

#include "base/err.h"
#include "base/str.h"

struct arena_block;
struct arena {
    struct arena_block *blocks; /* newest first */
    size_t used;                /* bytes handed out, for limits */
    size_t max;                 /* 0: none */
    bool failed; /* it refused something, since init, done or reset: what lies in it is not whole */
};

void arena_init(struct arena *a, size_t max);
void arena_done(struct arena *a);
/* Frees all but at most one small block. */
void arena_reset(struct arena *a);

void *arena_alloc(struct arena *a, size_t n); /* NULL: out of memory or past max */
/* Copies; the copy has a NUL after its end. {NULL,0} when out of memory and s is not empty. A
 * NULL-pointed s stays one (arena_strz makes "" of it: there NULL is out of memory only). */
struct str arena_str(struct arena *a, struct str s);
char *arena_strz(struct arena *a, struct str s);
struct str arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define ARENA_NEW(a, type)      ((type *)arena_alloc((a), sizeof(type)))
#define ARENA_ARRAY(a, type, n) ((type *)arena_alloc_array((a), sizeof(type), (n)))
void *arena_alloc_array(struct arena *a, size_t size, size_t n);

#endif
