/* netaddr.c - addresses and networks: text to value and back.
 *
 * Layer: base. Interface: netaddr.h. inet_pton and inet_ntop do the grammar of a bare address
 * (RFC 4291 section 2.2, RFC 5952); they touch no network and no locale.
 */
#include "base/netaddr.h"

#include <arpa/inet.h>
#include <stdio.h>

#include "base/hash.h"

static const uint8_t mapped_prefix[12] = { [10] = 0xff, [11] = 0xff };

static size_t ip_size(const struct net_addr *a)
{
    return a->family == NET_IPV4 ? 4 : a->family == NET_IPV6 ? 16 : 0;
}

int net_addr_parse_ip(struct str s, struct net_addr *ret)
{
    struct net_addr a = { 0 };
    char text[INET6_ADDRSTRLEN];

    if (!str_copy(s, text, sizeof(text)) || str_chr(s, '\0') >= 0)
        return -EINVAL;
    if (str_chr(s, ':') < 0) {
        if (inet_pton(AF_INET, text, a.ip) != 1)
            return -EINVAL;
        a.family = NET_IPV4;
    } else {
        if (inet_pton(AF_INET6, text, a.ip) != 1)
            return -EINVAL;
        a.family = NET_IPV6;
        if (memcmp(a.ip, mapped_prefix, sizeof(mapped_prefix)) == 0) {
            memmove(a.ip, a.ip + sizeof(mapped_prefix), 4);
            memset(a.ip + 4, 0, sizeof(a.ip) - 4);
            a.family = NET_IPV4;
        }
    }
    *ret = a;
    return 0;
}

static int parse_path(struct str path, struct net_addr *ret)
{
    struct net_addr a = { .family = NET_UNIX };

    if (!str_starts(path, STR("/")) || str_chr(path, '\0') >= 0 ||
        !str_copy(path, a.path, sizeof(a.path)))
        return -EINVAL;
    *ret = a;
    return 0;
}

/* ":25", or nothing, for which *ret stays. */
static int parse_port(struct str s, uint16_t *ret)
{
    uint64_t port;

    if (s.n == 0)
        return 0;
    if (*s.p != ':' || s.n > 6 || str_to_u64(str_from(s, 1), &port) < 0 || port > UINT16_MAX)
        return -EINVAL;
    *ret = (uint16_t)port;
    return 0;
}

/* Splits into address and ":port" (or nothing). A single colon is the port's; with more of them
 * it is an IPv6 address, which has a port only in brackets. */
static int split_port(struct str s, struct str *ret_ip, struct str *ret_port)
{
    ptrdiff_t colon = str_chr(s, ':');

    if (str_starts(s, STR("["))) {
        ptrdiff_t close = str_chr(s, ']');
        if (close < 0)
            return -EINVAL;
        *ret_ip = str_from(str_first(s, (size_t)close), 1);
        *ret_port = str_from(s, (size_t)close + 1);
        return str_chr(*ret_ip, ':') < 0 ? -EINVAL : 0; /* brackets are for IPv6 */
    }
    if (colon >= 0 && colon == str_rchr(s, ':')) {
        *ret_ip = str_first(s, (size_t)colon);
        *ret_port = str_from(s, (size_t)colon);
    } else {
        *ret_ip = s;
        *ret_port = STR_NONE;
    }
    return 0;
}

int net_addr_parse(struct str s, uint16_t default_port, struct net_addr *ret)
{
    const struct str scheme = STR("unix:");
    uint16_t port = default_port;
    struct str ip, port_text;
    struct net_addr a;

    if (str_starts(s, scheme))
        return parse_path(str_from(s, scheme.n), ret);
    if (str_starts(s, STR("/")))
        return parse_path(s, ret);
    if (split_port(s, &ip, &port_text) < 0 || net_addr_parse_ip(ip, &a) < 0 ||
        parse_port(port_text, &port) < 0)
        return -EINVAL;
    a.port = port;
    *ret = a;
    return 0;
}

/* Whether the first `bits` bits agree. */
static bool same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;

    return memcmp(a, b, whole) == 0 && (rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0);
}

static bool host_bits_set(const struct net_addr *a, unsigned bits)
{
    uint8_t network[16] = { 0 };
    unsigned whole = bits / 8, rest = bits % 8;

    memcpy(network, a->ip, whole);
    if (rest)
        network[whole] = (uint8_t)(a->ip[whole] & (0xff << (8 - rest)));
    return memcmp(network, a->ip, ip_size(a)) != 0;
}

int net_cidr_parse(struct str s, struct net_cidr *ret)
{
    ptrdiff_t slash = str_chr(s, '/');
    struct str ip = slash < 0 ? s : str_first(s, (size_t)slash);
    struct net_addr base;

    if (net_addr_parse_ip(ip, &base) < 0)
        return -EINVAL;

    uint64_t most = 8 * ip_size(&base), bits = most;
    if (slash >= 0) {
        if (str_to_u64(str_from(s, (size_t)slash + 1), &bits) < 0)
            return -EINVAL;
        if (base.family == NET_IPV4 && str_chr(ip, ':') >= 0) { /* was IPv4-mapped */
            if (bits < 96)
                return -EINVAL;
            bits -= 96;
        }
    }
    if (bits > most || host_bits_set(&base, (unsigned)bits))
        return -EINVAL;
    *ret = (struct net_cidr){ .base = base, .bits = (uint8_t)bits };
    return 0;
}

bool net_cidr_contains(const struct net_cidr *c, const struct net_addr *a)
{
    return ip_size(a) > 0 && c->base.family == a->family && same_prefix(c->base.ip, a->ip, c->bits);
}

bool net_cidrs_contain(const struct net_cidr *nets, size_t n, const struct net_addr *a)
{
    for (size_t i = 0; i < n; i++)
        if (net_cidr_contains(&nets[i], a))
            return true;
    return false;
}

/* Each line of the log has one: inet_ntop goes through printf. */
static void ipv4_text(const uint8_t ip[4], char *dst)
{
    for (int i = 0; i < 4; i++) {
        if (i)
            *dst++ = '.';
        if (ip[i] >= 100)
            *dst++ = (char)('0' + ip[i] / 100);
        if (ip[i] >= 10)
            *dst++ = (char)('0' + ip[i] / 10 % 10);
        *dst++ = (char)('0' + ip[i] % 10);
    }
    *dst = '\0';
}

const char *net_addr_ip_text(const struct net_addr *a, char *dst)
{
    *dst = '\0';
    if (a->family == NET_IPV4)
        ipv4_text(a->ip, dst);
    else if (a->family == NET_IPV6)
        inet_ntop(AF_INET6, a->ip, dst, NET_ADDR_TEXT);
    else if (a->family == NET_UNIX)
        snprintf(dst, NET_ADDR_TEXT, "unix:%.*s", (int)sizeof(a->path), a->path);
    return dst;
}

const char *net_addr_text(const struct net_addr *a, char *dst)
{
    char ip[NET_ADDR_TEXT];

    net_addr_ip_text(a, ip);
    if (a->family == NET_IPV4)
        snprintf(dst, NET_ADDR_TEXT, "%.45s:%u", ip, a->port);
    else if (a->family == NET_IPV6)
        snprintf(dst, NET_ADDR_TEXT, "[%.45s]:%u", ip, a->port);
    else
        memcpy(dst, ip, sizeof(ip));
    return dst;
}

bool net_addr_same_ip(const struct net_addr *a, const struct net_addr *b)
{
    return a->family == b->family && ip_size(a) > 0 && memcmp(a->ip, b->ip, ip_size(a)) == 0;
}

uint64_t net_addr_hash_ip(const struct net_addr *a)
{
    if (a->family == NET_UNIX)
        return hash_bytes(a->path, strnlen(a->path, sizeof(a->path)));
    return hash_bytes(a->ip, ip_size(a));
}

bool net_addr_eq(const struct net_addr *a, const struct net_addr *b)
{
    if (a->family != b->family)
        return false;
    if (a->family == NET_UNIX)
        return strncmp(a->path, b->path, sizeof(a->path)) == 0;
    return a->port == b->port && memcmp(a->ip, b->ip, ip_size(a)) == 0;
}

bool net_addr_is_loopback(const struct net_addr *a)
{
    static const uint8_t v6_loopback[16] = { [15] = 1 };

    if (a->family == NET_IPV4)
        return a->ip[0] == 127;
    return a->family == NET_IPV6 && memcmp(a->ip, v6_loopback, sizeof(v6_loopback)) == 0;
}

bool net_addr_is_any(const struct net_addr *a)
{
    static const uint8_t zero[16];

    return ip_size(a) > 0 && memcmp(a->ip, zero, ip_size(a)) == 0;
}
