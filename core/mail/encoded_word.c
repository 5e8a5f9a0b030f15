/* encoded_word.c - encoded words. Layer: mail. Interface: encoded_word.h. */
#include "mail/encoded_word.h"

#include "base/base64.h"

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* ---- decoding ---- */

enum charset { CHARSET_UTF8, CHARSET_ASCII, CHARSET_LATIN1, CHARSET_UNKNOWN };

struct word {
    enum charset charset;
    bool base64;
    struct str text; /* between "?X?" and "?=" */
    size_t n;        /* octets in all */
};

/* The language behind a '*' (RFC 2231 §5) does not matter. */
static enum charset charset_of(struct str name)
{
    ptrdiff_t star = str_chr(name, '*');

    if (star >= 0)
        name = str_first(name, (size_t)star);
    if (str_caseeq(name, STR("utf-8")) || str_caseeq(name, STR("utf8")))
        return CHARSET_UTF8;
    if (str_caseeq(name, STR("us-ascii")) || str_caseeq(name, STR("ascii")))
        return CHARSET_ASCII;
    if (str_caseeq(name, STR("iso-8859-1")) || str_caseeq(name, STR("latin1")))
        return CHARSET_LATIN1;
    return CHARSET_UNKNOWN;
}

/* The part of s up to the next '?', which is taken too; without blanks. */
static bool take_part(struct str *s, struct str *ret)
{
    for (size_t i = 0; i < s->n && s->p[i] > ' ' && s->p[i] < 127; i++)
        if (s->p[i] == '?') {
            *ret = str_first(*s, i);
            *s = str_from(*s, i + 1);
            return true;
        }
    return false;
}

/* The encoded word at the front of s, if there is one that can be read. */
static bool parse_word(struct str s, struct word *ret)
{
    struct str rest = str_from(s, 2), charset, encoding;

    if (!str_starts(s, STR("=?")) || !take_part(&rest, &charset) || !take_part(&rest, &encoding) ||
        !take_part(&rest, &ret->text) || rest.n == 0 || *rest.p != '=' || encoding.n != 1)
        return false;
    ret->charset = charset_of(charset);
    ret->base64 = ascii_lower(*encoding.p) == 'b';
    ret->n = s.n - rest.n + 1;
    return ret->charset != CHARSET_UNKNOWN && (ret->base64 || ascii_lower(*encoding.p) == 'q');
}

static int hex_value(char c)
{
    if (ascii_digit(c))
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* -1: broken. */
static ptrdiff_t decode_q(struct str s, char *dst)
{
    size_t n = 0;

    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '=') {
            dst[n++] = s.p[i] == '_' ? ' ' : s.p[i];
            continue;
        }
        int high = i + 1 < s.n ? hex_value(s.p[i + 1]) : -1;
        int low = i + 2 < s.n ? hex_value(s.p[i + 2]) : -1;
        if (high < 0 || low < 0)
            return -1;
        dst[n++] = (char)(high * 16 + low);
        i += 2;
    }
    return (ptrdiff_t)n;
}

/* From the end. */
size_t latin1_to_utf8(char *p, size_t n)
{
    size_t more = 0;

    for (size_t i = 0; i < n; i++)
        more += (unsigned char)p[i] >> 7;
    for (size_t i = n, to = n + more; i-- > 0;) {
        unsigned char c = (unsigned char)p[i];
        if (c < 0x80) {
            p[--to] = (char)c;
        } else {
            p[--to] = (char)(0x80 | (c & 0x3f));
            p[--to] = (char)(0xc0 | (c >> 6));
        }
    }
    return n + more;
}

static ptrdiff_t decode_word(const struct word *w, char *dst)
{
    ptrdiff_t n;

    if (w->base64) {
        size_t length = 0;
        n = base64_decode(w->text, dst, w->text.n, &length) < 0 ? -1 : (ptrdiff_t)length;
    } else {
        n = decode_q(w->text, dst);
    }
    if (n > 0 && w->charset == CHARSET_ASCII && !str_is_ascii(str_make(dst, (size_t)n)))
        return -1;
    return n > 0 && w->charset == CHARSET_LATIN1 ? (ptrdiff_t)latin1_to_utf8(dst, (size_t)n) : n;
}

/* Words that have nothing but blanks between them, at the front of s, are decoded as one. Octets taken of
 * s; 0: there is none. */
static size_t decode_run(struct str s, char *dst, size_t *ret_n)
{
    size_t taken = 0, n = 0, at = 0;
    struct word w;

    while (parse_word(str_from(s, at), &w)) {
        ptrdiff_t k = decode_word(&w, dst + n);
        if (k < 0)
            break;
        n += (size_t)k;
        taken = at + w.n;
        for (at = taken; at < s.n && (is_blank(s.p[at]) || s.p[at] == '\r' || s.p[at] == '\n');)
            at++;
    }
    if (!str_is_utf8(str_make(dst, n))) {
        memcpy(dst, s.p, taken);
        n = taken;
    }
    *ret_n = n;
    return taken;
}

size_t encoded_word_decode(struct str value, char *dst)
{
    size_t n = 0, k = 0;

    while (value.n) {
        size_t taken = *value.p == '=' ? decode_run(value, dst + n, &k) : 0;
        if (taken) {
            n += k;
        } else {
            dst[n++] = *value.p;
            taken = 1;
        }
        value = str_from(value, taken);
    }
    return n;
}

/* ---- encoding ---- */

enum {
    WORD_MAX = 75, /* RFC 2047 §2 */
    LINE_MAX_ENCODED = 76,
    AROUND = 12, /* "=?utf-8?q?" and "?=" */
    LEAST = 12,  /* one character of four octets in Q, 8 of them in B */
};

/* May stand for itself in a phrase, too (RFC 2047 §5 (3)). */
static bool is_plain(char c)
{
    return ascii_alnum(c) || (c && strchr("!*+-/", c));
}

static size_t q_size(char c)
{
    return is_plain(c) || c == ' ' ? 1 : 3;
}

static size_t write_q(struct str s, char *dst)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t n = 0;

    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (q_size(s.p[i]) == 1) {
            dst[n++] = c == ' ' ? '_' : (char)c;
        } else {
            dst[n++] = '=';
            dst[n++] = digits[c >> 4];
            dst[n++] = digits[c & 15];
        }
    }
    return n;
}

/* Octets at the front of s, whole characters, that fit into `room` characters. */
static size_t fitting(struct str s, bool base64, size_t room)
{
    size_t n = 0, used = 0;

    while (n < s.n) {
        size_t k = str_utf8_len(str_from(s, n)), q = 0;
        k = k ? k : 1; /* the value is UTF-8, says the caller; never stand still */
        for (size_t i = 0; i < k; i++)
            q += q_size(s.p[n + i]);
        used = base64 ? BASE64_TEXT(n + k) : used + q;
        if (used > room && n)
            break;
        n += k;
    }
    return n;
}

static size_t encode_span(struct str s, size_t column, char *dst)
{
    size_t q = 0, n = 0;

    for (size_t i = 0; i < s.n; i++)
        q += q_size(s.p[i]);
    bool base64 = 3 * BASE64_TEXT(s.n) < 2 * q; /* people can read Q */
    size_t room = column + AROUND + LEAST <= LINE_MAX_ENCODED ? LINE_MAX_ENCODED - column - AROUND
                                                              : WORD_MAX - AROUND;
    room = room > WORD_MAX - AROUND ? WORD_MAX - AROUND : room;
    while (s.n) {
        struct str part = str_first(s, fitting(s, base64, room));
        memcpy(dst + n, base64 ? " =?utf-8?b?" : " =?utf-8?q?", 11);
        n += 11;
        n += base64 ? base64_encode(part, dst + n) : write_q(part, dst + n);
        memcpy(dst + n, "?=", 2);
        n += 2;
        s = str_from(s, part.n);
        room = WORD_MAX - AROUND;
    }
    memmove(dst, dst + 1, n - 1); /* no blank before the first */
    return n - 1;
}

size_t encoded_word_encode(struct str value, size_t column, char *dst)
{
    size_t from = 0, to, n;

    while (from < value.n && !((unsigned char)value.p[from] & 0x80))
        from++;
    for (to = value.n; to > from && !((unsigned char)value.p[to - 1] & 0x80);)
        to--;
    if (from == value.n) {
        memcpy(dst, value.p, value.n);
        return value.n;
    }
    while (from > 0 && !is_blank(value.p[from - 1]))
        from--;
    while (to < value.n && !is_blank(value.p[to]))
        to++;
    memcpy(dst, value.p, from);
    n = from + encode_span(str_make(value.p + from, to - from), from ? 0 : column, dst + from);
    memcpy(dst + n, value.p + to, value.n - to);
    return n + value.n - to;
}
