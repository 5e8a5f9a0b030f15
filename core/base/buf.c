/* buf.c - the growable byte buffer.
 *
 * Layer: base. Interface: buf.h. The block grows by doubling from 256 bytes. Before it grows, the
 * content moves to the front; it moves without growing only when at least a quarter of the block
 * has been consumed, so that the bytes moved stay in proportion to the bytes consumed.
 */
#include "base/buf.h"

#include <stdio.h>

enum { FIRST_BLOCK = 256 };

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){ .max = max };
}

void buf_done(struct buf *b)
{
    free(b->data);
    *b = (struct buf){ .max = b->max };
}

static int set_failed(struct buf *b, int error)
{
    b->failed = error;
    return error;
}

static void compact(struct buf *b)
{
    if (b->start == 0 || !b->data)
        return;
    memmove(b->data, b->data + b->start, buf_len(b));
    b->end -= b->start;
    b->start = 0;
}

/* Makes the block hold n bytes past the end, whatever max says. */
static int grow(struct buf *b, size_t n)
{
    size_t need, cap = b->cap ? b->cap : FIRST_BLOCK;

    if (__builtin_add_overflow(buf_len(b), n, &need) || need > SIZE_MAX / 2)
        return set_failed(b, -ENOMEM);
    if (b->data && need <= b->cap && b->start >= b->cap / 4) {
        compact(b);
        return 0;
    }
    if (cap == b->cap) /* else this is the first block, which may be enough as it is */
        cap *= 2;
    while (cap < need)
        cap *= 2;
    compact(b);
    char *data = realloc(b->data, cap);
    if (!data)
        return set_failed(b, -ENOMEM);
    b->data = data;
    b->cap = cap;
    return 0;
}

static bool within_limit(const struct buf *b, size_t n)
{
    return b->max == 0 || (buf_len(b) <= b->max && n <= b->max - buf_len(b));
}

char *buf_room(struct buf *b, size_t n)
{
    if (b->failed)
        return NULL;
    if (!within_limit(b, n)) {
        set_failed(b, -EMSGSIZE);
        return NULL;
    }
    /* NULL means failure: also room for nothing is a place. */
    if ((n > b->cap - b->end || !b->data) && grow(b, MAX(n, (size_t)1)) < 0)
        return NULL;
    return b->data + b->end;
}

void buf_added(struct buf *b, size_t n)
{
    CHECK(n <= b->cap - b->end);
    b->end += n;
}

int buf_add(struct buf *b, const void *bytes, size_t n)
{
    if (n == 0)
        return b->failed;

    char *room = buf_room(b, n);
    if (!room)
        return b->failed;
    memcpy(room, bytes, n);
    b->end += n;
    return 0;
}

int buf_add_str(struct buf *b, struct str s)
{
    return buf_add(b, s.p, s.n);
}

int buf_add_char(struct buf *b, char c)
{
    return buf_add(b, &c, 1);
}

int buf_add_int(struct buf *b, int64_t v)
{
    char text[20], *p = text + sizeof(text);
    uint64_t left = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;

    do
        *--p = (char)('0' + left % 10);
    while (left /= 10);
    if (v < 0)
        *--p = '-';
    return buf_add(b, p, (size_t)(text + sizeof(text) - p));
}

int buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
    size_t room = b->cap - b->end;
    va_list again;

    if (b->failed)
        return b->failed;
    va_copy(again, ap);
    int n = vsnprintf(room ? b->data + b->end : NULL, room, fmt, ap);
    if (n < 0)
        set_failed(b, errno == ENOMEM ? -ENOMEM : -EINVAL);
    else if (!within_limit(b, (size_t)n))
        set_failed(b, -EMSGSIZE);
    else if ((size_t)n >= room && grow(b, (size_t)n + 1) == 0) /* the NUL is beside max */
        vsnprintf(b->data + b->end, b->cap - b->end, fmt, again);
    va_end(again);
    if (!b->failed)
        b->end += (size_t)n;
    return b->failed;
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int r = buf_vprintf(b, fmt, ap);
    va_end(ap);
    return r;
}

static void put_be(char *dst, uint64_t v, size_t bytes)
{
    for (size_t i = bytes; i > 0; i--, v >>= 8)
        dst[i - 1] = (char)(v & 0xff);
}

static int add_be(struct buf *b, uint64_t v, size_t bytes)
{
    char wire[8];

    put_be(wire, v, bytes);
    return buf_add(b, wire, bytes);
}

int buf_add_u8(struct buf *b, uint8_t v)
{
    return add_be(b, v, 1);
}

int buf_add_u16(struct buf *b, uint16_t v)
{
    return add_be(b, v, 2);
}

int buf_add_u32(struct buf *b, uint32_t v)
{
    return add_be(b, v, 4);
}

int buf_add_u64(struct buf *b, uint64_t v)
{
    return add_be(b, v, 8);
}

int buf_add_lstr(struct buf *b, struct str s)
{
    if (b->failed)
        return b->failed;
    if (s.n > UINT32_MAX - 4)
        return set_failed(b, -EMSGSIZE);

    char *room = buf_room(b, 4 + s.n);
    if (!room)
        return b->failed;
    put_be(room, s.n, 4);
    if (s.n)
        memcpy(room + 4, s.p, s.n);
    b->end += 4 + s.n;
    return 0;
}

void buf_consume(struct buf *b, size_t n)
{
    CHECK(n <= buf_len(b));
    b->start += n;
    if (b->start == b->end)
        b->start = b->end = 0;
}

void buf_clear(struct buf *b)
{
    b->start = b->end = 0;
    b->failed = 0;
}

void buf_shrink(struct buf *b)
{
    if (buf_len(b) > 0)
        return;
    free(b->data);
    b->data = NULL;
    b->start = b->end = b->cap = 0;
}

bool take_bytes(struct str *s, size_t n, struct str *ret)
{
    if (n > s->n) {
        *s = str_from(*s, s->n);
        return false;
    }
    *ret = str_first(*s, n);
    *s = str_from(*s, n);
    return true;
}

static bool take_be(struct str *s, size_t bytes, uint64_t *ret)
{
    struct str wire;
    uint64_t v = 0;

    if (!take_bytes(s, bytes, &wire))
        return false;
    for (size_t i = 0; i < bytes; i++)
        v = v << 8 | (unsigned char)wire.p[i];
    *ret = v;
    return true;
}

bool take_u8(struct str *s, uint8_t *ret)
{
    uint64_t v;

    if (!take_be(s, 1, &v))
        return false;
    *ret = (uint8_t)v;
    return true;
}

bool take_u16(struct str *s, uint16_t *ret)
{
    uint64_t v;

    if (!take_be(s, 2, &v))
        return false;
    *ret = (uint16_t)v;
    return true;
}

bool take_u32(struct str *s, uint32_t *ret)
{
    uint64_t v;

    if (!take_be(s, 4, &v))
        return false;
    *ret = (uint32_t)v;
    return true;
}

bool take_u64(struct str *s, uint64_t *ret)
{
    return take_be(s, 8, ret);
}

bool take_lstr(struct str *s, struct str *ret)
{
    uint32_t n;

    return take_u32(s, &n) && take_bytes(s, n, ret);
}
