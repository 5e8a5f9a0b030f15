/* sink_dns.h - a name server for demonstrations: answers by UDP from a small zone file, and nothing else.
 *
 * Layer: daemon. Beside `tern sink` it makes a world on the loopback interface in which MX point somewhere.
 * The zone's form is that of the tests (sim/dns.h); a name that it does not have is NXDOMAIN.
 */
#ifndef TERN_DAEMON_SINK_DNS_H
#define TERN_DAEMON_SINK_DNS_H

#include "daemon/failure.h"
#include "io/loop.h"

struct sink_dns;

/* Listens at once. -1 with *f: the zone cannot be read (file and line), the address is not to be had. */
int sink_dns_new(struct io_loop *loop, const struct net_addr *addr, const char *zone,
                 struct sink_dns **ret, struct failure *f) MUST_USE;
struct sink_dns *sink_dns_free(struct sink_dns *d);

#endif
