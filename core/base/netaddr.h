/* netaddr.h - an IPv4 or IPv6 address with a port, or a Unix socket path; and networks of them.
 *
 * Layer: base. A value. IPv4-mapped IPv6 addresses (::ffff:a.b.c.d) are stored as IPv4.
 */
#ifndef TERN_BASE_NETADDR_H
#define TERN_BASE_NETADDR_H

#include "base/err.h"
#include "base/str.h"

enum net_family { NET_NONE, NET_IPV4, NET_IPV6, NET_UNIX };

struct net_addr {
    uint8_t family; /* enum net_family */
    uint8_t ip[16]; /* network order; IPv4 in the first four */
    uint16_t port;  /* host order; 0: none */
    char path[104]; /* NET_UNIX */
};

struct net_cidr {
    struct net_addr base;
    uint8_t bits;
};

enum { NET_ADDR_TEXT = 128 }; /* room for any text form with NUL */

/* "192.0.2.1", "2001:db8::1"; no brackets, no port. -EINVAL. */
int net_addr_parse_ip(struct str s, struct net_addr *ret);
/* "1.2.3.4", "1.2.3.4:25", "[::1]", "[::1]:25", "::1", "unix:/path" or "/path". The port is
 * default_port where none is written; 0 may be. -EINVAL. Names are not resolved. */
int net_addr_parse(struct str s, uint16_t default_port, struct net_addr *ret);
/* "10.0.0.0/8", "::1", "192.0.2.0/24". Host bits that are set: -EINVAL. IPv4-mapped networks
 * (::ffff:10.0.0.0/104) are stored as IPv4 too. */
int net_cidr_parse(struct str s, struct net_cidr *ret);
bool net_cidr_contains(const struct net_cidr *c, const struct net_addr *a);
/* Any of the n networks does. */
bool net_cidrs_contain(const struct net_cidr *nets, size_t n, const struct net_addr *a);

/* dst has NET_ADDR_TEXT bytes; NET_NONE is "". The ip form has no port ("::1"); the full form is
 * "1.2.3.4:25", "[::1]:25" or "unix:/path". Both return dst. */
const char *net_addr_ip_text(const struct net_addr *a, char *dst);
const char *net_addr_text(const struct net_addr *a, char *dst);

/* False when one of them has no IP address (NET_NONE, NET_UNIX). */
bool net_addr_same_ip(const struct net_addr *a, const struct net_addr *b);
/* Of the IP address alone (a Unix socket: of its path); not the same in another process. */
uint64_t net_addr_hash_ip(const struct net_addr *a);
bool net_addr_eq(const struct net_addr *a, const struct net_addr *b); /* port and path too */
/* 127.0.0.0/8, ::1; a Unix socket is none. */
bool net_addr_is_loopback(const struct net_addr *a);
bool net_addr_is_any(const struct net_addr *a); /* 0.0.0.0, :: */

#endif
