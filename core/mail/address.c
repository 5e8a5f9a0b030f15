/* address.c - domains in the one form that decisions are taken on, and addresses that carry it.
 *
 * Layer: mail. Interface: address.h. Whatever libidn2 makes of a name is checked again like a name
 * that came in ASCII, so that nothing but letters, digits, '-' and '_' in labels of 1 to 63 octets
 * gets through, whichever way it was written.
 */
#include "mail/address.h"

#include <idn2.h>

#include "base/netaddr.h"

enum {
    MAX_NAME = 253, /* octets of a name as text, so that DNS can carry it (RFC 1035 §2.3.4) */
    MAX_LABEL = 63,
    MAX_INPUT = 1020, /* a name of 253 characters may take four octets for each */
};

static bool label_char(char c)
{
    return (c >= 'a' && c <= 'z') || ascii_digit(c) || c == '-' || c == '_';
}

static bool valid_label(struct str label)
{
    if (label.n == 0 || label.n > MAX_LABEL || label.p[0] == '-' || label.p[label.n - 1] == '-')
        return false;
    for (size_t i = 0; i < label.n; i++)
        if (!label_char(label.p[i]))
            return false;
    return true;
}

static bool all_digits(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!ascii_digit(s.p[i]))
            return false;
    return true;
}

/* Normal form, but for "xn--" labels, which are not looked into. No name of the DNS ends in a label
 * of digits: those are addresses in disguise ("2130706433", "127.1"). */
static bool valid_name(struct str s)
{
    struct str label = STR_NONE, rest = s;

    if (s.n == 0 || s.n > MAX_NAME)
        return false;
    while (str_cut(&rest, '.', &label))
        if (!valid_label(label))
            return false;
    return !all_digits(label);
}

/* Whether a label begins with "xn--" or there is a byte above 0x7f. */
static bool needs_idn(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] >= 0x80)
            return true;
        if ((i == 0 || s.p[i - 1] == '.') && str_casestarts(str_from(s, i), STR("xn--")))
            return true;
    }
    return false;
}

/* Into dst without a final dot; length or -EINVAL. */
static ptrdiff_t put_lower(struct str s, char *dst, size_t size)
{
    if (s.n && s.p[s.n - 1] == '.')
        s.n--;
    if (s.n == 0 || s.n > MAX_NAME || s.n >= size)
        return -EINVAL;
    for (size_t i = 0; i < s.n; i++)
        dst[i] = ascii_lower(s.p[i]);
    dst[s.n] = '\0';
    return valid_name(str_make(dst, s.n)) ? (ptrdiff_t)s.n : -EINVAL;
}

static ptrdiff_t put_alabels(struct str s, char *dst, size_t size)
{
    char in[MAX_INPUT + 1];
    uint8_t *made = NULL;

    if (str_chr(s, '\0') >= 0 || !str_is_utf8(s) || !str_copy(s, in, sizeof(in)))
        return -EINVAL;
    int r = idn2_lookup_u8((const uint8_t *)in, &made, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
    if (r != IDN2_OK)
        return r == IDN2_MALLOC ? -ENOMEM : -EINVAL;
    ptrdiff_t n = put_lower(str_of((const char *)made), dst, size);
    idn2_free(made);
    return n;
}

static ptrdiff_t normalize_name(struct str s, char *dst, size_t size)
{
    return needs_idn(s) ? put_alabels(s, dst, size) : put_lower(s, dst, size);
}

ptrdiff_t domain_normalize(struct str s, char *dst, size_t size)
{
    size_t wild = str_starts(s, STR("*.")) ? 2 : str_starts(s, STR(".")) ? 1 : 0;

    if (str_eq(s, STR("*")))
        return str_copy(s, dst, size) ? 1 : -EINVAL;
    if (size <= wild)
        return -EINVAL;
    ptrdiff_t n = normalize_name(str_from(s, wild), dst + wild, size - wild);
    if (n < 0)
        return n;
    memcpy(dst, s.p, wild);
    return n + (ptrdiff_t)wild;
}

/* "[192.0.2.1]", "[IPv6:2001:DB8::1]" */
static ptrdiff_t normalize_literal(struct str s, char *dst, size_t size)
{
    const struct str tag = STR("ipv6:");
    char text[NET_ADDR_TEXT];
    struct net_addr addr;

    if (s.n < 2 || s.p[s.n - 1] != ']')
        return -EINVAL;
    struct str inner = str_make(s.p + 1, s.n - 2);
    bool tagged = str_casestarts(inner, tag);
    if (tagged != (str_chr(str_from(inner, tagged ? tag.n : 0), ':') >= 0))
        return -EINVAL;
    if (net_addr_parse_ip(str_from(inner, tagged ? tag.n : 0), &addr) < 0)
        return -EINVAL;
    struct str ip = str_of(net_addr_ip_text(&addr, text));
    size_t lead = addr.family == NET_IPV6 ? 1 + tag.n : 1;
    if (lead + ip.n + 2 > size)
        return -EINVAL;
    dst[0] = '[';
    if (lead > 1)
        memcpy(dst + 1, tag.p, tag.n);
    for (size_t i = 0; i < ip.n; i++)
        dst[lead + i] = ascii_lower(ip.p[i]);
    memcpy(dst + lead + ip.n, "]", 2);
    return (ptrdiff_t)(lead + ip.n + 1);
}

int address_make(struct arena *a, const struct smtp_mailbox *m, struct address *ret)
{
    char normal[DOMAIN_TEXT];
    struct str domain = m->domain;
    ptrdiff_t n = 0;

    if (str_empty(m->local) && str_empty(domain)) {
        *ret = (struct address){ STR(""), STR(""), STR("") };
        return 0;
    }
    if (domain.n)
        n = *domain.p == '[' ? normalize_literal(domain, normal, sizeof(normal))
                             : normalize_name(domain, normal, sizeof(normal));
    if (n < 0)
        return (int)n;
    bool same = str_eq(domain, str_make(normal, (size_t)n));
    size_t text_n = m->local.n + (domain.n ? 1 + domain.n : 0);
    char *p = arena_alloc(a, text_n + (same ? 0 : (size_t)n));
    if (!p)
        return -ENOMEM;
    if (m->local.n)
        memcpy(p, m->local.p, m->local.n);
    if (domain.n) {
        p[m->local.n] = '@';
        memcpy(p + m->local.n + 1, domain.p, domain.n);
    }
    if (!same)
        memcpy(p + text_n, normal, (size_t)n);
    ret->text = str_make(p, text_n);
    ret->local = str_first(ret->text, m->local.n);
    ret->domain = same ? str_from(ret->text, text_n - domain.n) : str_make(p + text_n, (size_t)n);
    return 0;
}

int address_parse(struct arena *a, struct str text, struct address *ret)
{
    struct smtp_mailbox m = { STR_NONE, STR_NONE };

    if (str_caseeq(text, STR("postmaster"))) {
        m.local = text;
    } else if (text.n) {
        int r = smtp_parse_mailbox(text, true, &m);
        if (r < 0)
            return r;
    }
    return address_make(a, &m, ret);
}
