/* headers_make.c - a field out of a name and a value: checked, encoded where it must be, folded.
 *
 * Layer: mail. Interface: headers.h (headers_add).
 */
#include <stdlib.h>

#include "mail/encoded_word.h"
#include "mail/headers_internal.h"

enum {
    MAX_NAME = 255,
    FOLD_COLUMN = 78, /* RFC 5322 §2.1.1 */
    MAX_LINE = 998,
};

/* ---- what may stand in it ---- */

/* Fields with a grammar of their own (RFC 5322 §3.6, RFC 2045, RFC 8601...): encoded words may stand in
 * phrases and comments of some of them only (RFC 2047 §5), which is not for us to find. */
static bool is_structured(struct str name)
{
    static const char *const exact[] = {
        "Authentication-Results",
        "Auto-Submitted",
        "Bcc",
        "Cc",
        "Date",
        "Delivered-To",
        "DKIM-Signature",
        "From",
        "In-Reply-To",
        "Message-ID",
        "MIME-Version",
        "Received",
        "References",
        "Received-SPF",
        "Reply-To",
        "Return-Path",
        "Sender",
        "To",
        "Disposition-Notification-To",
    };
    static const char *const beginning[] = { "ARC-", "Content-", "List-", "Resent-" };

    if (str_caseeq(name, STR("Content-Description")))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(exact); i++)
        if (str_caseeq(name, str_of(exact[i])))
            return true;
    for (size_t i = 0; i < ARRAY_LEN(beginning); i++)
        if (str_casestarts(name, str_of(beginning[i])))
            return true;
    return false;
}

static int check_name(struct headers *h, struct str name)
{
    bool good = name.n > 0 && name.n <= MAX_NAME;

    for (size_t i = 0; i < name.n && good; i++)
        good = headers_name_char(name.p[i]);
    return good ? 0
                : headers_refuse(
                      h, -EINVAL,
                      "a header's name must be printable ASCII without ':' and blanks, at most 255 "
                      "characters");
}

static int check_value(struct headers *h, struct str name, struct str value)
{
    if (value.n > HEADERS_MAX_ADDED)
        return headers_refuse(h, -E2BIG, "a header's value must have at most 64 KiB");
    for (size_t i = 0; i < value.n; i++)
        if (value.p[i] == '\r' || value.p[i] == '\n' || value.p[i] == '\0')
            return headers_refuse(
                h, -EINVAL,
                "a header's value must not contain CR, LF or NUL (long ones are folded by "
                "themselves)");
    if (str_is_ascii(value))
        return 0;
    if (!str_is_utf8(value))
        return headers_refuse(h, -EINVAL, "a header's value must be UTF-8");
    if (!h->utf8 && is_structured(name))
        return headers_refuse(
            h, -EINVAL,
            "the value of this header may be beyond ASCII only in mail that came with "
            "SMTPUTF8; write the words as tern.mime.encode gives them");
    return 0;
}

/* ---- folding ---- */

/* Where a line that has `column` octets before s should be cut: the index of the first of some white
 * space with something visible on both sides (s is visible up to `end`), the last that keeps within
 * FOLD_COLUMN, else the first there is; s.n: nowhere. */
static size_t fold_point(struct str s, size_t end, size_t column)
{
    size_t best = s.n;

    if (column + s.n <= FOLD_COLUMN)
        return s.n;
    for (size_t i = 1; i < end; i++) {
        if (!headers_is_wsp(s.p[i]) || headers_is_wsp(s.p[i - 1]))
            continue;
        if (column + i > FOLD_COLUMN)
            return best < s.n ? best : i;
        best = i;
    }
    return best;
}

/* Octets of "Name: value" when folded into dst (NULL: only counted); -EINVAL when a line would be
 * too long for SMTP. */
static ptrdiff_t fold_field(struct str name, struct str value, char *dst)
{
    size_t column = name.n + 2, n = column, end = value.n;

    while (end && headers_is_wsp(value.p[end - 1]))
        end--; /* white space at the end stays with what it follows */
    if (dst) {
        memcpy(dst, name.p, name.n);
        memcpy(dst + name.n, ": ", 2);
    }
    for (;;) {
        size_t cut = fold_point(value, end, column);
        if (column + cut > MAX_LINE)
            return -EINVAL;
        if (dst && cut)
            memcpy(dst + n, value.p, cut);
        n += cut;
        if (dst)
            memcpy(dst + n, "\r\n", 2);
        n += 2;
        if (cut == value.n)
            return (ptrdiff_t)n;
        value = str_from(value, cut);
        end -= cut;
        column = 0;
    }
}

static int fold(struct headers *h, struct str name, struct str value, struct header_field *ret)
{
    ptrdiff_t n = fold_field(name, value, NULL);

    if (n < 0)
        return headers_refuse(
            h, -EINVAL,
            "a header's line has at most 998 octets, and this value has no white space where "
            "it could be folded");
    char *raw = arena_alloc(h->arena, (size_t)n);
    if (!raw)
        return -ENOMEM;
    fold_field(name, value, raw);
    ret->raw = str_make(raw, (size_t)n);
    CHECK(headers_split(ret));
    return 0;
}

int headers_make(struct headers *h, struct str name, struct str value, struct header_field *ret)
{
    int r = check_name(h, name);

    if (r == 0)
        r = check_value(h, name, value);
    if (r < 0)
        return r;
    if (h->utf8 || str_is_ascii(value))
        return fold(h, name, value, ret);
    char *encoded = malloc(ENCODED_WORD_ROOM(value.n));
    if (!encoded)
        return -ENOMEM;
    size_t n = encoded_word_encode(value, name.n + 2, encoded);
    r = fold(h, name, str_make(encoded, n), ret);
    free(encoded);
    return r;
}
