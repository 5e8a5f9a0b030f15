/* msgid.c - identity of a message.
 *
 * Layer: mail. Interface: msgid.h. The 16 bytes are one big-endian number: 48 bits of time, 16 of
 * counter, 64 of node. A counter that is used up borrows the next millisecond, so that the order
 * holds however many ids one millisecond needs.
 */
#include "mail/msgid.h"

#define TIME_MASK ((UINT64_C(1) << 48) - 1)

static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

static void put_be64(uint8_t *dst, uint64_t v)
{
    v = __builtin_bswap64(v);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    memcpy(dst, &v, sizeof(v));
}

static uint64_t get_be64(const uint8_t *src)
{
    uint64_t v = 0;

    for (int i = 0; i < 8; i++)
        v = v << 8 | src[i];
    return v;
}

void msgid_source_init(struct msgid_source *s, uint64_t random)
{
    *s = (struct msgid_source){ .node = random };
}

struct msgid msgid_next(struct msgid_source *s, int64_t wall_ms)
{
    struct msgid id;

    if (wall_ms > s->last_ms) {
        s->last_ms = wall_ms;
        s->counter = 0;
    } else if (++s->counter == 0) {
        s->last_ms++;
    }
    put_be64(id.b, ((uint64_t)s->last_ms & TIME_MASK) << 16 | s->counter);
    put_be64(id.b + 8, s->node);
    return id;
}

int64_t msgid_time(const struct msgid *id)
{
    return (int64_t)(get_be64(id->b) >> 16);
}

struct msgid msgid_first(int64_t wall_ms)
{
    struct msgid id = { 0 };

    put_be64(id.b, ((uint64_t)MAX(wall_ms, (int64_t)0) & TIME_MASK) << 16);
    return id;
}

const char *msgid_text(const struct msgid *id, char *dst)
{
    unsigned __int128 v = (unsigned __int128)get_be64(id->b) << 64 | get_be64(id->b + 8);

    for (int i = MSGID_TEXT - 2; i >= 0; i--, v >>= 5)
        dst[i] = digits[(unsigned)v & 31];
    dst[MSGID_TEXT - 1] = '\0';
    return dst;
}

/* Value of a digit, or -1. Only the alphabet itself: one id has one text but for its case. */
static int digit_value(char c)
{
    static const signed char values[26] = {
        10, 11, 12, 13, 14, 15, 16, 17, -1, 18, 19, -1, 20, /* A to M */
        21, -1, 22, 23, 24, 25, 26, -1, 27, 28, 29, 30, 31, /* N to Z */
    };

    if (ascii_digit(c))
        return c - '0';
    return ascii_alpha(c) ? values[ascii_lower(c) - 'a'] : -1;
}

int msgid_parse(struct str s, struct msgid *ret)
{
    unsigned __int128 v = 0;

    if (s.n != MSGID_TEXT - 1)
        return -EINVAL;
    for (size_t i = 0; i < s.n; i++) {
        int d = digit_value(s.p[i]);
        if (d < 0 || (i == 0 && d > 7)) /* 26 digits hold 130 bits */
            return -EINVAL;
        v = v << 5 | (unsigned)d;
    }
    put_be64(ret->b, (uint64_t)(v >> 64));
    put_be64(ret->b + 8, (uint64_t)v);
    return 0;
}
