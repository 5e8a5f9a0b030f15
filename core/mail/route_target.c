/* route_target.c - one target of a route as an operator writes it (ROUTING S3, H8).
 *
 * Layer: mail. Interface: route.h.
 *
 *     host  host:port                      by MX first, where the caller says so
 *     [host]  [host]:port                  by address
 *     192.0.2.1  192.0.2.1:25  2001:db8::1 an address; IPv6 with a port needs brackets
 *     [2001:db8::1]  [2001:db8::1]:25      (also "[IPv6:2001:db8::1]")
 *     lmtp://any of these                  LMTP over TCP, port 24, never by MX
 *     lmtp:/path                           LMTP over a Unix socket
 */
#include "mail/address.h"
#include "mail/route.h"

enum { SMTP_PORT = 25, LMTP_PORT = 24, MAX_TEXT = 512 };

/* ":port" at the end, or nothing. */
static int parse_port(struct str s, uint16_t *port)
{
    uint64_t v;

    if (s.n == 0)
        return 0;
    if (s.p[0] != ':' || s.n > 6 || str_to_u64(str_from(s, 1), &v) < 0 || v < 1 || v > UINT16_MAX)
        return -EINVAL;
    *port = (uint16_t)v;
    return 0;
}

/* An address or a name, without brackets and port. */
static int parse_host(struct arena *a, struct str s, struct route_target *t)
{
    char normal[DOMAIN_TEXT];

    if (net_addr_parse_ip(s, &t->addr) == 0) {
        t->use_mx = false;
        return net_addr_is_any(&t->addr) ? -EINVAL : 0;
    }
    if (s.n == 0 || *s.p == '.' || *s.p == '*') /* patterns are for tables of domains */
        return -EINVAL;
    ptrdiff_t n = domain_normalize(s, normal, sizeof(normal));
    if (n < 0)
        return (int)n;
    t->host = arena_str(a, str_make(normal, (size_t)n));
    return t->host.n ? 0 : -ENOMEM;
}

/* "[...]" with or without a port */
static int parse_bracketed(struct arena *a, struct str s, struct route_target *t)
{
    const struct str tag = STR("IPv6:");
    ptrdiff_t close = str_chr(s, ']');

    if (close < 0 || parse_port(str_from(s, (size_t)close + 1), &t->port) < 0)
        return -EINVAL;
    t->use_mx = false;
    s = str_from(str_first(s, (size_t)close), 1);
    if (str_casestarts(s, tag)) {
        s = str_from(s, tag.n);
        if (str_chr(s, ':') < 0)
            return -EINVAL;
    }
    return parse_host(a, s, t);
}

static int parse_inet(struct arena *a, struct str s, struct route_target *t)
{
    ptrdiff_t colon = str_chr(s, ':');

    if (str_starts(s, STR("[")))
        return parse_bracketed(a, s, t);
    if (colon >= 0 && colon == str_rchr(s, ':')) { /* with more of them it is IPv6 */
        if (parse_port(str_from(s, (size_t)colon), &t->port) < 0)
            return -EINVAL;
        s = str_first(s, (size_t)colon);
    }
    return parse_host(a, s, t);
}

static int parse_path(struct str path, struct route_target *t)
{
    struct net_addr addr = { .family = NET_UNIX };

    if (str_chr(path, '\0') >= 0 || path.n < 2 || !str_copy(path, addr.path, sizeof(addr.path)))
        return -EINVAL;
    t->addr = addr;
    t->port = 0;
    return 0;
}

static bool has_blank_or_control(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= 0x20 || s.p[i] == 0x7f)
            return true;
    return false;
}

int route_target_parse(struct arena *a, struct str text, bool mx_first, struct route_target *ret)
{
    const struct str tcp = STR("lmtp://"), scheme = STR("lmtp:"), path = STR("lmtp:/");
    struct route_target t = { .port = SMTP_PORT, .use_mx = mx_first };
    int r;

    if (text.n > MAX_TEXT || has_blank_or_control(text))
        return -EINVAL;
    if (str_casestarts(text, scheme)) {
        t.lmtp = true;
        t.use_mx = false;
        t.port = LMTP_PORT;
    }
    if (str_casestarts(text, tcp))
        r = parse_inet(a, str_from(text, tcp.n), &t);
    else if (str_casestarts(text, path))
        r = parse_path(str_from(text, scheme.n), &t);
    else
        r = parse_inet(a, text, &t);
    if (r < 0)
        return r;
    t.addr.port = t.addr.family == NET_NONE ? 0 : t.port;
    t.text = arena_str(a, text);
    if (!t.text.n)
        return -ENOMEM;
    *ret = t;
    return 0;
}
