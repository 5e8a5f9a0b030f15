/* proxy_header.h - the PROXY protocol, versions 1 and 2: what a load balancer says in front of a
 * connection about whose it is. Without any I/O.
 *
 * Layer: proto. A value of fixed size, no memory of its own. Bytes go in by feed, which takes no
 * octet behind the header: those belong to the connection. The same bytes give the same result
 * however they are cut. Strict: what the specification (haproxy.org, proxy-protocol.txt 2.2, 2.3)
 * does not allow is bad, and so is what cannot be a connection of SMTP (datagrams).
 *
 * Bounds: version 1 has at most 107 octets, version 2 at most 16 and PROXY_REST_MAX behind them.
 * TLVs are passed over, and their checksum is not verified: TCP has one.
 */
#ifndef TERN_PROTO_PROXY_HEADER_H
#define TERN_PROTO_PROXY_HEADER_H

#include "base/netaddr.h"

enum {
    PROXY_V1_MAX = 107,      /* with CRLF */
    PROXY_V2_FIXED = 16,     /* signature, version, family, length */
    PROXY_REST_MAX = 4096,   /* addresses and TLVs of version 2 */
    PROXY_V2_ADDRESSES = 36, /* of IPv6, the longest that is looked at */
};

struct proxy_header {
    bool told; /* else LOCAL, UNKNOWN, UNSPEC or Unix: the connection's own addresses count */
    uint8_t version;
    struct net_addr client, server;
    const char *why; /* of a bad one: for the log */

    /* inside */
    char buf[PROXY_V1_MAX];
    uint32_t n;    /* octets in buf */
    uint32_t skip; /* version 2: octets behind the addresses that are still to come */
};

void proxy_header_init(struct proxy_header *h);
/* *ret_taken: how many of the bytes were taken. 1: the header is whole; 0: more is needed; -EBADMSG. To be
 * called no more after 1 or an error. */
int proxy_header_feed(struct proxy_header *h, struct str bytes, size_t *ret_taken);

#endif
