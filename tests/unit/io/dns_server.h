/* dns_server.h - a tiny DNS server in a thread, UDP and TCP on one port of 127.0.0.1, whose
 * answers depend on the first label of the name asked for:
 *
 *   ok, many, late    A 192.0.2.1 (ttl 60); MX 10 mail.<name>
 *   signed            as ok, with the AD bit
 *   nx                NXDOMAIN with a SOA of minimum 30
 *   empty             no data
 *   servfail          SERVFAIL
 *   big               truncated by UDP, 100 addresses by TCP
 *   edns              TXT of 1000 octets by UDP when EDNS allows it
 *   noedns            FORMERR to a question with EDNS, else as ok
 *   silent            nothing
 *   garbage           noise, an empty datagram, a foreign id, another question: never the answer
 *   loop              a compression loop
 *   hop3, tonx...     only a CNAME: to hop2, ..., hop0, ok; to nx; tofail: to servfail
 *   ping, pong        only a CNAME, each to the other
 *   late              as ok, after 300 ms
 */
#ifndef TERN_TESTS_IO_DNS_SERVER_H
#define TERN_TESTS_IO_DNS_SERVER_H

#include "base/netaddr.h"

struct dns_server;

struct dns_server *dns_server_start(void);
struct dns_server *dns_server_start_at(const struct net_addr *ip);
void dns_server_stop(struct dns_server *s);
const struct net_addr *dns_server_addr(const struct dns_server *s);
/* Questions that came, by UDP and by TCP. */
int dns_server_udp(struct dns_server *s);
int dns_server_tcp(struct dns_server *s);

#endif
