/* str.h - an immutable slice of bytes: pointer and length, no ownership, not NUL-terminated.
 *
 * Layer: base. A str is passed by value. Who makes one says how long the bytes live.
 */
#ifndef TERN_BASE_STR_H
#define TERN_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *p;
    size_t n;
};

#define STR(lit)   ((struct str){ "" lit, sizeof(lit) - 1 })
#define STR_NONE   ((struct str){ NULL, 0 })
#define STR_FMT    "%.*s"
#define STR_ARG(s) (int)(s).n, (s).p ? (s).p : ""

static inline struct str str_of(const char *z)
{
    return (struct str){ z, z ? strlen(z) : 0 };
}
static inline struct str str_make(const void *p, size_t n)
{
    return (struct str){ (const char *)p, n };
}
static inline bool str_empty(struct str s)
{
    return s.n == 0;
}
static inline bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || (a.p && b.p && memcmp(a.p, b.p, a.n) == 0));
}

/* ASCII case-insensitive; bytes above 0x7f compare as they are. */
bool str_caseeq(struct str a, struct str b);
int str_casecmp(struct str a, struct str b);
int str_cmp(struct str a, struct str b);
bool str_starts(struct str s, struct str prefix);
bool str_casestarts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
bool str_caseends(struct str s, struct str suffix);

/* The part from `from` on; empty when from is past the end. */
struct str str_from(struct str s, size_t from);
/* The first n bytes, or all. */
struct str str_first(struct str s, size_t n);
/* Index of the first / last c, or -1. */
ptrdiff_t str_chr(struct str s, char c);
ptrdiff_t str_rchr(struct str s, char c);
/* Index of the first needle, or -1. */
ptrdiff_t str_find(struct str s, struct str needle);
/* Without leading and trailing space, tab, CR and LF. */
struct str str_trim(struct str s);
/* Cuts at the first sep: *ret_head before it, *s after it. False when s is NULL-pointed (done).
 * "a,b" with ',' gives "a", then "b", then false. */
bool str_cut(struct str *s, char sep, struct str *ret_head);

/* Decimal digits only (i64: after an optional '-'), the whole slice: 0, -EINVAL (empty, other
 * bytes) or -ERANGE. */
int str_to_u64(struct str s, uint64_t *ret);
int str_to_i64(struct str s, int64_t *ret);

/* Heap copy with a NUL added; the caller frees. NULL when out of memory. */
char *str_dup(struct str s);
/* Copies what fits into dst (size bytes) with a NUL; true when all of it fitted. */
bool str_copy(struct str s, char *dst, size_t size);

static inline char ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}
static inline bool ascii_digit(char c)
{
    return c >= '0' && c <= '9';
}
static inline bool ascii_alpha(char c)
{
    c = ascii_lower(c);
    return c >= 'a' && c <= 'z';
}
static inline bool ascii_alnum(char c)
{
    return ascii_digit(c) || ascii_alpha(c);
}
/* Well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms, at most U+10FFFF). */
bool str_is_utf8(struct str s);
/* Length of the well-formed UTF-8 sequence at the front of s; 0 when there is none. */
size_t str_utf8_len(struct str s);
/* No byte above 0x7f. */
bool str_is_ascii(struct str s);

#endif
