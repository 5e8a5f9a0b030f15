/* recode_encode.c - quoted-printable and base64 (RFC 2045 sections 6.7, 6.8) as streams.
 *
 * Layer: mail. See recode_internal.h. An error stays in the output buffer.
 */
#include "base/base64.h"
#include "mail/recode_internal.h"

enum { LONGEST = 75 }; /* and the "=" of a soft break */

static void put(struct recode_encoder *e, const char *s, size_t n)
{
    if (e->n + n > LONGEST) {
        buf_add(e->out, "=\r\n", 3);
        e->n = 0;
        e->soft = true;
    }
    buf_add(e->out, s, n);
    e->n += n;
}

static void put_coded(struct recode_encoder *e, char c)
{
    static const char hex[] = "0123456789ABCDEF";
    const char code[] = { '=', hex[(unsigned char)c >> 4], hex[(unsigned char)c & 15] };

    put(e, code, sizeof(code));
}

static void put_blank(struct recode_encoder *e, bool coded)
{
    char blank = e->blank;

    e->blank = 0;
    if (blank && coded)
        put_coded(e, blank);
    else if (blank)
        put(e, &blank, 1);
}

/* How many octets at the front go as they are. */
static size_t plain(struct str s)
{
    size_t n = 0;

    while (n < s.n && s.p[n] > ' ' && s.p[n] <= '~' && s.p[n] != '=')
        n++;
    return n;
}

void recode_qp_text(struct recode_encoder *e, struct str text)
{
    while (text.n) {
        char c = *text.p;
        size_t n = plain(text);

        put_blank(e, false);
        if (n == 0) {
            if (c == ' ' || c == '\t')
                e->blank = c; /* at the end of a line it must be coded */
            else
                put_coded(e, c);
            text = str_from(text, 1);
            continue;
        }
        n = MIN(n, (size_t)(LONGEST - (e->n < LONGEST ? e->n : 0)));
        /* A line of our making must not look like a boundary. */
        if (c == '-' && (e->n == LONGEST || (e->n == 0 && e->soft))) {
            put_coded(e, c);
            n = 1;
        } else {
            put(e, text.p, n);
        }
        text = str_from(text, n);
    }
}

void recode_qp_break(struct recode_encoder *e)
{
    put_blank(e, true);
    buf_add(e->out, "\r\n", 2);
    e->n = 0;
    e->soft = false;
}

void recode_qp_end(struct recode_encoder *e, bool open)
{
    put_blank(e, true);
    if (open && e->n)
        buf_add(e->out, "=\r\n", 3);
    e->n = 0;
    e->soft = false;
}

static void b64_line(struct recode_encoder *e)
{
    if (e->lines)
        buf_add(e->out, "\r\n", 2);
    base64_add(e->out, str_make(e->octets, e->n));
    e->lines = true;
    e->n = 0;
}

void recode_b64(struct recode_encoder *e, struct str octets)
{
    while (octets.n) {
        struct str part = str_first(octets, RECODE_B64_LINE - e->n);

        memcpy(e->octets + e->n, part.p, part.n);
        e->n += part.n;
        octets = str_from(octets, part.n);
        if (e->n == RECODE_B64_LINE)
            b64_line(e);
    }
}

void recode_b64_end(struct recode_encoder *e)
{
    if (e->n)
        b64_line(e);
    e->lines = false;
}
