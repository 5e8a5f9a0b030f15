/* str.c - slices of bytes: compare, search, cut, convert.
 *
 * Layer: base. Interface: str.h. Nothing here but str_dup allocates. A slice of length 0 may have
 * a NULL pointer, which the mem* functions and pointer arithmetic do not allow: each use of them
 * is guarded by the length.
 */
#include "base/str.h"

#include <errno.h>
#include <stdlib.h>

#include "base/err.h"

static int compare_length(struct str a, struct str b)
{
    return (a.n > b.n) - (a.n < b.n);
}

int str_cmp(struct str a, struct str b)
{
    size_t n = MIN(a.n, b.n);
    int d = n ? memcmp(a.p, b.p, n) : 0;

    return d ? d : compare_length(a, b);
}

int str_casecmp(struct str a, struct str b)
{
    size_t n = MIN(a.n, b.n);

    for (size_t i = 0; i < n; i++) {
        int d = (unsigned char)ascii_lower(a.p[i]) - (unsigned char)ascii_lower(b.p[i]);
        if (d)
            return d;
    }
    return compare_length(a, b);
}

bool str_caseeq(struct str a, struct str b)
{
    return a.n == b.n && str_casecmp(a, b) == 0;
}

struct str str_from(struct str s, size_t from)
{
    if (from == 0 || !s.p)
        return s;
    from = MIN(from, s.n);
    return (struct str){ s.p + from, s.n - from };
}

struct str str_first(struct str s, size_t n)
{
    return (struct str){ s.p, MIN(n, s.n) };
}

/* The last n bytes, or all. */
static struct str str_last(struct str s, size_t n)
{
    return str_from(s, s.n - MIN(n, s.n));
}

bool str_starts(struct str s, struct str prefix)
{
    return str_eq(str_first(s, prefix.n), prefix);
}

bool str_casestarts(struct str s, struct str prefix)
{
    return str_caseeq(str_first(s, prefix.n), prefix);
}

bool str_ends(struct str s, struct str suffix)
{
    return str_eq(str_last(s, suffix.n), suffix);
}

bool str_caseends(struct str s, struct str suffix)
{
    return str_caseeq(str_last(s, suffix.n), suffix);
}

ptrdiff_t str_chr(struct str s, char c)
{
    const char *at = s.n ? memchr(s.p, c, s.n) : NULL;

    return at ? at - s.p : -1;
}

ptrdiff_t str_rchr(struct str s, char c)
{
    for (size_t i = s.n; i > 0; i--)
        if (s.p[i - 1] == c)
            return (ptrdiff_t)(i - 1);
    return -1;
}

ptrdiff_t str_find(struct str s, struct str needle)
{
    if (needle.n == 0)
        return 0;
    if (needle.n > s.n)
        return -1;
    const char *at = memmem(s.p, s.n, needle.p, needle.n);
    return at ? at - s.p : -1;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct str str_trim(struct str s)
{
    while (s.n && is_blank(s.p[s.n - 1]))
        s.n--;
    while (s.n && is_blank(*s.p)) {
        s.p++;
        s.n--;
    }
    return s;
}

bool str_cut(struct str *s, char sep, struct str *ret_head)
{
    if (!s->p)
        return false;

    ptrdiff_t at = str_chr(*s, sep);
    if (at < 0) {
        *ret_head = *s;
        *s = STR_NONE;
    } else {
        *ret_head = str_first(*s, (size_t)at);
        *s = str_from(*s, (size_t)at + 1);
    }
    return true;
}

int str_to_u64(struct str s, uint64_t *ret)
{
    uint64_t v = 0;
    bool overflow = false;

    if (s.n == 0)
        return -EINVAL;
    for (size_t i = 0; i < s.n; i++) {
        if (!ascii_digit(s.p[i]))
            return -EINVAL; /* wins over -ERANGE: it is no number at all */
        overflow |= __builtin_mul_overflow(v, (uint64_t)10, &v);
        overflow |= __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v);
    }
    if (overflow)
        return -ERANGE;
    *ret = v;
    return 0;
}

int str_to_i64(struct str s, int64_t *ret)
{
    bool negative = s.n && *s.p == '-';
    uint64_t v;
    int r = str_to_u64(negative ? str_from(s, 1) : s, &v);

    if (r < 0)
        return r;
    if (v > (uint64_t)INT64_MAX + negative)
        return -ERANGE;
    /* Negated without ever holding -INT64_MIN. */
    *ret = !negative ? (int64_t)v : v == 0 ? 0 : -(int64_t)(v - 1) - 1;
    return 0;
}

char *str_dup(struct str s)
{
    char *copy = malloc(s.n + 1);

    if (!copy)
        return NULL;
    if (s.n)
        memcpy(copy, s.p, s.n);
    copy[s.n] = '\0';
    return copy;
}

bool str_copy(struct str s, char *dst, size_t size)
{
    if (size == 0)
        return false;

    size_t n = MIN(s.n, size - 1);
    if (n)
        memcpy(dst, s.p, n);
    dst[n] = '\0';
    return n == s.n;
}

static bool is_continuation(unsigned char c)
{
    return (c & 0xc0) == 0x80;
}

/* RFC 3629 section 4. The second byte is the one whose range depends on the first: that is where
 * overlong forms, surrogates and what is past U+10FFFF show. */
size_t str_utf8_len(struct str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    unsigned char low = 0x80, high = 0xbf;
    size_t len;

    if (s.n == 0)
        return 0;
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        len = 2;
    else if (p[0] >= 0xe0 && p[0] <= 0xef)
        len = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        len = 4;
    else
        return 0;
    if (s.n < len)
        return 0;

    if (p[0] == 0xe0)
        low = 0xa0;
    else if (p[0] == 0xed)
        high = 0x9f;
    else if (p[0] == 0xf0)
        low = 0x90;
    else if (p[0] == 0xf4)
        high = 0x8f;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++)
        if (!is_continuation(p[i]))
            return 0;
    return len;
}

/* How many of the first bytes are ASCII, eight at a time while whole words are. */
static size_t ascii_run(const char *p, size_t n)
{
    const uint64_t high_bits = 0x8080808080808080u;
    size_t i = 0;

    for (uint64_t word; n - i >= sizeof(word); i += sizeof(word)) {
        memcpy(&word, p + i, sizeof(word));
        if (word & high_bits)
            break;
    }
    while (i < n && (unsigned char)p[i] < 0x80)
        i++;
    return i;
}

bool str_is_ascii(struct str s)
{
    return s.n == 0 || ascii_run(s.p, s.n) == s.n;
}

bool str_is_utf8(struct str s)
{
    while (s.n) {
        s = str_from(s, ascii_run(s.p, s.n));
        if (s.n == 0)
            break;
        size_t len = str_utf8_len(s);
        if (len == 0)
            return false;
        s = str_from(s, len);
    }
    return true;
}
