/* err.h - how Tern code fails, and how it lets go of what it owns.
 *
 * Layer: base. Conventions (all layers):
 *   - a function that can fail returns int: 0 (or a positive fact) or -errno;
 *   - outputs are ret_ parameters, untouched on failure;
 *   - an allocation that fails is -ENOMEM (or a NULL return), never an abort;
 *   - our own bug aborts (CHECK), the peer's mistake is a value.
 */
#ifndef TERN_BASE_ERR_H
#define TERN_BASE_ERR_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* Prints the failed condition with its place and aborts. */
_Noreturn void check_failed(const char *condition, const char *file, int line);

/* An invariant of ours: evaluated in release builds too. */
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0))                                                          \
            check_failed(#cond, __FILE__, __LINE__);                                               \
    } while (0)

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)                                                                                  \
    __extension__({                                                                                \
        __typeof__(a) min_a_ = (a);                                                                \
        __typeof__(b) min_b_ = (b);                                                                \
        min_a_ < min_b_ ? min_a_ : min_b_;                                                         \
    })
#define MAX(a, b)                                                                                  \
    __extension__({                                                                                \
        __typeof__(a) max_a_ = (a);                                                                \
        __typeof__(b) max_b_ = (b);                                                                \
        max_a_ > max_b_ ? max_a_ : max_b_;                                                         \
    })
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* Scope-bound ownership: the scope frees, TAKE moves out of it.
 *     AUTO_FREE char *out = malloc(n); ... return TAKE(out);
 * Note: cleanup does not run across longjmp (lua_error). */
static inline void auto_free_(void *p)
{
    free(*(void **)p);
}
#define AUTO_FREE     __attribute__((cleanup(auto_free_)))
#define AUTO_CALL(fn) __attribute__((cleanup(fn)))
#define TAKE(p)                                                                                    \
    __extension__({                                                                                \
        __typeof__(p) take_ = (p);                                                                 \
        (p) = NULL;                                                                                \
        take_;                                                                                     \
    })

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define MUST_USE               __attribute__((warn_unused_result))

#endif
