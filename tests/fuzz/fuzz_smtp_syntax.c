/* The grammar of SMTP on any bytes: what is accepted must be made of what was given, and must be
 * accepted again. The first byte holds the flags; the rest is the text. */
#include "base/buf.h"
#include "proto/smtp_syntax.h"

static bool within(struct str part, struct str whole)
{
    return part.n == 0 || (part.p >= whole.p && part.p + part.n <= whole.p + whole.n);
}

static bool has_control(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 32 || s.p[i] == 127)
            return true;
    return false;
}

static void check_box(const struct smtp_mailbox *box, bool utf8)
{
    char dst[SMTP_MAX_LOCAL];

    CHECK(box->local.n > 0 && box->local.n <= SMTP_MAX_LOCAL);
    CHECK(!has_control(box->local) && smtp_parse_helo(box->domain, utf8) == 0);
    CHECK(utf8 ? str_is_utf8(box->local) : str_is_ascii(box->local));
    ptrdiff_t n = smtp_local_unquote(box->local, dst, sizeof(dst));
    CHECK(n >= 0 && (size_t)n <= box->local.n && !has_control(str_make(dst, (size_t)n)));
}

static void try_mailbox(struct str s, bool utf8)
{
    struct smtp_mailbox box;

    if (smtp_parse_mailbox(s, utf8, &box) < 0)
        return;
    CHECK(box.local.n + 1 + box.domain.n == s.n && s.p[box.local.n] == '@');
    CHECK(box.local.p == s.p && within(box.domain, s));
    check_box(&box, utf8);
}

static void try_path(struct str s, bool null, bool postmaster, bool utf8)
{
    struct smtp_mailbox box, again;
    struct str rest;

    if (smtp_parse_path(s, null, postmaster, utf8, &box, &rest) < 0)
        return;
    CHECK(within(box.local, s) && within(box.domain, s) && within(rest, s));
    CHECK(s.n - rest.n <= SMTP_MAX_PATH);
    struct str inner = str_make(s.p + 1, s.n - rest.n - 2);
    if (box.domain.n == 0) {
        CHECK(inner.n == 0 ? null : postmaster && str_caseeq(inner, STR("postmaster")));
        return;
    }
    CHECK(smtp_parse_mailbox(inner, utf8, &again) == 0 && str_eq(again.local, box.local));
    check_box(&box, utf8);
}

static void try_params(struct str s)
{
    struct str key, value, rest = s;

    while (smtp_next_param(&rest, &key, &value) == 1) {
        CHECK(key.n > 0 && within(key, s) && within(value, s) && within(rest, s));
        CHECK(!has_control(key) && !has_control(value) && str_is_ascii(value));
    }
}

static void try_xtext(struct str s)
{
    char *decoded = malloc(s.n + 1), *encoded = malloc(3 * s.n + 1);

    CHECK(decoded && encoded);
    ptrdiff_t n = smtp_xtext_decode(s, decoded, s.n);
    if (n >= 0) {
        CHECK(!has_control(str_make(decoded, (size_t)n)));
        ptrdiff_t m = smtp_xtext_encode(str_make(decoded, (size_t)n), encoded, 3 * s.n);
        CHECK(m >= 0 && (size_t)m <= s.n);
    }
    n = smtp_xtext_encode(s, encoded, 3 * s.n);
    CHECK(n >= (ptrdiff_t)s.n);
    ptrdiff_t back = smtp_xtext_decode(str_make(encoded, (size_t)n), decoded, s.n);
    CHECK(has_control(s) ? back == -EINVAL
                         : back == (ptrdiff_t)s.n && (s.n == 0 || !memcmp(decoded, s.p, s.n)));
    free(decoded);
    free(encoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;

    /* A copy of its own size: the sanitizer sees each step beyond it. */
    char *copy = malloc(size - 1);
    struct str s = str_make(copy, size - 1);
    bool utf8 = data[0] & 1;
    char *unquoted = malloc(size);

    CHECK((copy || size == 1) && unquoted);
    if (s.n)
        memcpy(copy, data + 1, s.n);
    if (smtp_parse_domain(s, utf8) == 0)
        CHECK(s.n > 0 && s.n <= SMTP_MAX_DOMAIN && !has_control(s) && str_is_utf8(s));
    if (smtp_parse_address_literal(s) == 0)
        CHECK(s.p[0] == '[' && s.p[s.n - 1] == ']' && str_is_ascii(s) && !has_control(s));
    try_mailbox(s, utf8);
    try_path(s, data[0] & 2, data[0] & 4, utf8);
    try_params(s);
    try_xtext(s);
    CHECK(smtp_local_unquote(s, unquoted, s.n) >= 0);
    free(unquoted);
    free(copy);
    return 0;
}
