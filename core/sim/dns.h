/* dns.h - the simulated DNS: one zone that holds all names of the world, and its faults.
 *
 * Layer: sim. Implements port_dns of engine/ports.h, without a cache: each question is asked. The zone is
 * written as master files are (RFC 1035 §5): one record a line,
 *
 *     example.com.      MX 10 mx1.example.com.      ; a comment
 *     example.com.      300 IN TXT "v=spf1 -all"    ; TTL and class may stand there
 *     dead.example.     MX 0 .                      ; null MX (RFC 7505)
 *     www.example.com.  CNAME example.com.
 *     *.wild.example.   A 192.0.2.9
 *
 * A, AAAA, MX, CNAME, NS, TXT, PTR, SRV, TLSA. All names are absolute, with or without the last dot.
 * CNAME chains are followed, DNS_MAX_CNAMES deep. A name that has no record, and none below it,
 * is NXDOMAIN. `localhost` is 127.0.0.1 and ::1. The zone can be changed at any time.
 */
#ifndef TERN_SIM_DNS_H
#define TERN_SIM_DNS_H

#include "sim/clock.h"

struct sim_dns;

struct sim_dns *sim_dns_new(struct sim_clock *clock);
struct sim_dns *sim_dns_free(struct sim_dns *d); /* open questions are dropped; NULL is fine */
struct port_dns *sim_dns_port(struct sim_dns *d);

/* Adds the records of the text. -EINVAL: ret_why (`size` bytes) says "line 3: ...", nothing is added. */
int sim_dns_add(struct sim_dns *d, struct str text, char *ret_why, size_t size);
/* All records go; faults and the log stay. */
void sim_dns_clear(struct sim_dns *d);
/* Records of that name and type (0: all types) go. */
void sim_dns_remove(struct sim_dns *d, struct str name, enum dns_type type);

/* From now on the answer to that question (type 0: of any type) is this: DNS_SERVFAIL, DNS_TIMEOUT (after
 * 10 s), DNS_NXDOMAIN, DNS_NODATA. DNS_OK: as the zone says. name "*": all. */
void sim_dns_fail(struct sim_dns *d, struct str name, enum dns_type type, enum dns_status status);
/* From now on answers about that name, and names below it, are secure (authenticated by DNSSEC) or not; "*": all.
 * The latest that holds for a name decides; at first none is. An answer by CNAMEs is when all on the way are. */
void sim_dns_set_secure(struct sim_dns *d, struct str name, bool secure);
void sim_dns_set_latency(struct sim_dns *d, int64_t ms); /* default 10 */

/* The first name that has that address, as text with NUL. False: none, or dst is too small. */
bool sim_dns_name_of(const struct sim_dns *d, const struct net_addr *addr, char *dst, size_t size);
/* How often that was asked. name "*": any; type 0: any. */
uint64_t sim_dns_asked(const struct sim_dns *d, struct str name, enum dns_type type);
void sim_dns_forget_log(struct sim_dns *d);

#endif
