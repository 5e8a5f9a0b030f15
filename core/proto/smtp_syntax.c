/* smtp_syntax.c - the grammar of RFC 5321 §4.1.2.
 *
 * Layer: proto. Interface: smtp_syntax.h. Small recognisers that return how many bytes of the slice
 * they match (0: none); the public functions put them together and hold the limits against them.
 */
#include "proto/smtp_syntax.h"

#include "base/netaddr.h"

enum { MAX_LABEL = 63 };

enum { ATEXT = 1, QTEXT = 2, LABEL = 4, XCHAR = 8, VALUE = 16 };

/* What a byte may be part of. Bytes above 0x7f are in no class: UTF-8 is handled apart. */
static unsigned class_of(char c)
{
    unsigned char u = (unsigned char)c;
    unsigned r = 0;

    if (u < 32 || u > 126)
        return 0;
    if (u != '"' && u != '\\')
        r |= QTEXT;
    if (u == ' ')
        return r;
    if (u != '=')
        r |= VALUE | (u != '+' ? XCHAR : 0u);
    if (ascii_alnum(c))
        return r | ATEXT | LABEL;
    if (u == '-' || u == '_')
        r |= LABEL;
    if (strchr("!#$%&'*+-/=?^_`{|}~", u))
        r |= ATEXT;
    return r;
}

/* The length of the UTF-8 sequence at p (2-4), 0 when it is none. C1 controls are refused too. */
static size_t utf8_sequence(const char *p, const char *end)
{
    unsigned char lead = (unsigned char)*p;
    size_t n = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;

    if (lead < 0xc2 || n > (size_t)(end - p) || !str_is_utf8(str_make(p, n)))
        return 0;
    if (lead == 0xc2 && (unsigned char)p[1] < 0xa0)
        return 0;
    return n;
}

/* The longest run of bytes of the classes, and UTF-8 if that is allowed. */
static size_t span(struct str s, unsigned classes, bool utf8)
{
    const char *p = s.p, *end = s.p + s.n;

    while (p < end) {
        size_t n = class_of(*p) & classes ? 1 : utf8 ? utf8_sequence(p, end) : 0;
        if (n == 0)
            break;
        p += n;
    }
    return (size_t)(p - s.p);
}

static size_t match_dot_string(struct str s, bool utf8)
{
    size_t n = 0;

    for (;;) {
        size_t atom = span(str_from(s, n), ATEXT, utf8);
        if (atom == 0)
            return 0;
        n += atom;
        if (n == s.n || s.p[n] != '.')
            return n;
        n++;
    }
}

static size_t match_quoted_string(struct str s, bool utf8)
{
    size_t n = 1;

    for (;;) {
        n += span(str_from(s, n), QTEXT, utf8);
        if (n == s.n)
            return 0;
        if (s.p[n] == '"')
            return n + 1;
        if (s.p[n] != '\\' || n + 1 == s.n || s.p[n + 1] < 32 || s.p[n + 1] > 126)
            return 0;
        n += 2;
    }
}

static size_t match_local(struct str s, bool utf8)
{
    if (s.n == 0)
        return 0;
    return *s.p == '"' ? match_quoted_string(s, utf8) : match_dot_string(s, utf8);
}

/* The dots that IDNA2008 disallows but software likes to map to '.'. */
static bool has_foreign_dot(struct str s)
{
    return str_find(s, STR("\xe3\x80\x82")) >= 0 || str_find(s, STR("\xef\xbc\x8e")) >= 0 ||
           str_find(s, STR("\xef\xbd\xa1")) >= 0;
}

/* A U-label may be longer in UTF-8 than its A-label: that is for the conversion to judge. */
static bool valid_label(struct str label, bool utf8)
{
    if (label.n == 0 || label.p[0] == '-' || label.p[label.n - 1] == '-')
        return false;
    if (span(label, LABEL, utf8) != label.n)
        return false;
    return label.n <= MAX_LABEL || !str_is_ascii(label);
}

static bool all_digits(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!ascii_digit(s.p[i]))
            return false;
    return true;
}

int smtp_parse_domain(struct str s, bool utf8)
{
    struct str label, rest = s, last = STR_NONE;

    if (s.n == 0)
        return -EINVAL;
    if (s.n > SMTP_MAX_DOMAIN)
        return -E2BIG;
    while (str_cut(&rest, '.', &label)) {
        if (!valid_label(label, utf8))
            return -EINVAL;
        last = label;
    }
    if (all_digits(last) || (utf8 && has_foreign_dot(s)))
        return -EINVAL;
    return 0;
}

int smtp_parse_address_literal(struct str s)
{
    const struct str tag = STR("IPv6:");
    struct net_addr addr;

    if (s.n > SMTP_MAX_DOMAIN)
        return -E2BIG;
    if (s.n < 2 || s.p[0] != '[' || s.p[s.n - 1] != ']')
        return -EINVAL;

    struct str inner = str_make(s.p + 1, s.n - 2);
    bool v6 = str_casestarts(inner, tag);
    if (v6)
        inner = str_from(inner, tag.n);
    if ((str_chr(inner, ':') >= 0) != v6)
        return -EINVAL;
    return net_addr_parse_ip(inner, &addr);
}

int smtp_parse_helo(struct str s, bool utf8)
{
    return s.n > 0 && *s.p == '[' ? smtp_parse_address_literal(s) : smtp_parse_domain(s, utf8);
}

/* Local part, '@' and a domain that ends with the slice. */
int smtp_parse_mailbox(struct str s, bool utf8, struct smtp_mailbox *ret)
{
    size_t n = match_local(s, utf8);

    if (n == 0 || n == s.n || s.p[n] != '@')
        return -EINVAL;

    struct str domain = str_from(s, n + 1);
    int r = smtp_parse_helo(domain, utf8);
    if (r < 0)
        return r;
    if (n > SMTP_MAX_LOCAL)
        return -E2BIG;
    *ret = (struct smtp_mailbox){ .local = str_first(s, n), .domain = domain };
    return 0;
}

/* The index of the '>' that closes the path at the front of s: quoted strings may hold others. */
static ptrdiff_t find_path_end(struct str s)
{
    bool quoted = false;

    for (size_t i = 1; i < s.n; i++) {
        if (quoted && s.p[i] == '\\')
            i++;
        else if (s.p[i] == '"')
            quoted = !quoted;
        else if (!quoted && s.p[i] == '>')
            return (ptrdiff_t)i;
    }
    return -1;
}

int smtp_parse_path(struct str s, bool allow_null, bool allow_postmaster, bool utf8,
                    struct smtp_mailbox *ret, struct str *ret_rest)
{
    struct smtp_mailbox box = { STR_NONE, STR_NONE };
    ptrdiff_t end;

    if (s.n == 0 || *s.p != '<' || (end = find_path_end(s)) < 0)
        return -EINVAL;

    struct str inner = str_make(s.p + 1, (size_t)end - 1);
    if (inner.n == 0) {
        if (!allow_null)
            return -EINVAL;
    } else if (allow_postmaster && str_caseeq(inner, STR("postmaster"))) {
        box.local = inner;
    } else {
        int r = smtp_parse_mailbox(inner, utf8, &box);
        if (r < 0)
            return r;
        if (inner.n + 2 > SMTP_MAX_PATH)
            return -E2BIG;
    }
    *ret = box;
    *ret_rest = str_from(s, (size_t)end + 1);
    return 0;
}

static size_t match_keyword(struct str s)
{
    size_t n = 0;

    while (n < s.n && (ascii_alnum(s.p[n]) || (s.p[n] == '-' && n > 0)))
        n++;
    return n;
}

int smtp_next_param(struct str *s, struct str *ret_keyword, struct str *ret_value)
{
    struct str value = STR_NONE, rest = *s;

    if (rest.n == 0)
        return 0;
    if (*rest.p != ' ')
        return -EINVAL;
    while (rest.n > 0 && *rest.p == ' ')
        rest = str_from(rest, 1);
    if (rest.n == 0) {
        *s = rest;
        return 0;
    }

    struct str keyword = str_first(rest, match_keyword(rest));
    rest = str_from(rest, keyword.n);
    if (keyword.n > 0 && rest.n > 0 && *rest.p == '=') {
        rest = str_from(rest, 1);
        value = str_first(rest, span(rest, VALUE, false));
        if (value.n == 0)
            return -EINVAL;
        rest = str_from(rest, value.n);
    }
    if (keyword.n == 0 || (rest.n > 0 && *rest.p != ' '))
        return -EINVAL;
    *s = rest;
    *ret_keyword = keyword;
    *ret_value = value;
    return 1;
}

/* Upper case only (RFC 3461 §4), -1 for other bytes. */
static int hex_digit(char c)
{
    if (ascii_digit(c))
        return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

ptrdiff_t smtp_xtext_decode(struct str s, char *dst, size_t size)
{
    size_t out = 0;

    for (size_t i = 0; i < s.n; i++) {
        int c = (unsigned char)s.p[i];
        if (c == '+') {
            int high = i + 2 < s.n ? hex_digit(s.p[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(s.p[i + 2]) : -1;
            if (low < 0)
                return -EINVAL;
            c = high * 16 + low;
            if (c < 32 || c == 127)
                return -EINVAL;
            i += 2;
        } else if (!(class_of((char)c) & XCHAR)) {
            return -EINVAL;
        }
        if (out == size)
            return -E2BIG;
        dst[out++] = (char)c;
    }
    return (ptrdiff_t)out;
}

ptrdiff_t smtp_xtext_encode(struct str s, char *dst, size_t size)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t out = 0;

    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool plain = class_of(s.p[i]) & XCHAR;
        if (size - out < (plain ? 1 : 3))
            return -E2BIG;
        if (plain) {
            dst[out++] = (char)c;
        } else {
            dst[out++] = '+';
            dst[out++] = hex[c >> 4];
            dst[out++] = hex[c & 15];
        }
    }
    return (ptrdiff_t)out;
}

ptrdiff_t smtp_local_unquote(struct str local, char *dst, size_t size)
{
    size_t out = 0;

    if (local.n >= 2 && local.p[0] == '"' && local.p[local.n - 1] == '"')
        local = str_make(local.p + 1, local.n - 2);
    else if (local.n <= size) {
        if (local.n)
            memcpy(dst, local.p, local.n);
        return (ptrdiff_t)local.n;
    } else {
        return -E2BIG;
    }
    for (size_t i = 0; i < local.n; i++) {
        if (local.p[i] == '\\' && i + 1 < local.n)
            i++;
        if (out == size)
            return -E2BIG;
        dst[out++] = local.p[i];
    }
    return (ptrdiff_t)out;
}
