/* Recoding: whatever the message is, what is written can be sent to the host it is for, is the same
 * however the message is cut, and needs no recoding any more.
 *
 * Input: a byte (odd: the host takes 8-bit text), then the message.
 */
#include "mail/recode.h"

/* The error of the first pass, or what was written. */
static int convert(bool eight_bit, struct str in, size_t n, struct buf *out)
{
    struct recode *r = recode_new(eight_bit);
    int err = 0;

    CHECK(r);
    for (struct str s = in; s.n && !err; s = str_from(s, n))
        err = recode_look(r, str_first(s, n));
    if (!err)
        err = recode_looked(r);
    CHECK(err == 0 || (err == -EILSEQ && *recode_why(r)));
    for (struct str s = in; s.n && !err; s = str_from(s, n))
        CHECK(recode_write(r, str_first(s, n), out) == 0);
    if (!err)
        CHECK(recode_written(r, out) == 0);
    recode_free(r);
    return err;
}

static void check(struct str s, bool eight_bit)
{
    size_t line = 0;

    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\r' && i + 1 < s.n && s.p[i + 1] == '\n') {
            line = 0;
            i++;
            continue;
        }
        CHECK(s.p[i] != '\0' && s.p[i] != '\r' && s.p[i] != '\n' && ++line <= 998);
        CHECK(eight_bit || (unsigned char)s.p[i] < 128);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole, bytewise, again;

    if (size < 1)
        return 0;
    bool eight_bit = data[0] & 1;
    struct str in = str_make(data + 1, size - 1);
    buf_init(&whole, 0);
    buf_init(&bytewise, 0);
    buf_init(&again, 0);
    int err = convert(eight_bit, in, MAX(in.n, (size_t)1), &whole);
    CHECK(convert(eight_bit, in, 1, &bytewise) == err);
    if (err == 0) {
        struct str out = buf_str(&whole);
        CHECK(str_eq(out, buf_str(&bytewise)));
        check(out, eight_bit);
        CHECK(convert(eight_bit, out, 5, &again) == 0 && str_eq(buf_str(&again), out));
    }
    buf_done(&whole);
    buf_done(&bytewise);
    buf_done(&again);
    return 0;
}
