/* resolver.h - DNS look-ups of one worker: c-ares, one cache, one deadline for each look-up.
 *
 * Layer: io. Implements port_dns of engine/ports.h. Belongs to the thread of its loop.
 *
 * Answers are cached by type and name for their TTL: positive ones 5 s to 1 day, negative ones 5
 * s to 15 min, SERVFAIL and timeouts 5 s. The cache holds at most 20,000 answers and 64 MiB; the
 * oldest goes first. Equal questions that are open are asked once. At most 1000 questions are on
 * their way at once, others wait; the deadline counts from the call. A reply that ends with a CNAME, as
 * servers without recursion send it, is followed: at most DNS_MAX_CNAMES in all, then SERVFAIL. `localhost` and names below
 * it are answered here (RFC 6761 §6.3). What can be no name in the DNS (a label above 63 octets,
 * a space, a control byte) is NXDOMAIN without asking.
 */
#ifndef TERN_IO_RESOLVER_H
#define TERN_IO_RESOLVER_H

#include "engine/ports.h"
#include "io/loop.h"

struct io_resolver;

struct io_resolver_stats {
    uint64_t queries;          /* calls of the port */
    uint64_t hits;             /* answered from the cache */
    uint64_t merged;           /* joined a question that was open */
    uint64_t sent;             /* questions handed to c-ares (its retries do not count) */
    uint64_t timeouts;         /* look-ups that ended without an answer in time */
    uint64_t failures;         /* SERVFAIL, and answers that could not be read */
    size_t cached;             /* answers in the cache now */
    size_t in_flight, waiting; /* questions open now: asked, and not yet */
};

/* servers: with ports (0: 53); n 0: the system's. timeout_ms: of one look-up in all. trust_ad: see
 * dns_channel_new. The array is copied. -ENOMEM, -EINVAL (the system's configuration cannot be used). */
int io_resolver_new(struct io_loop *l, const struct net_addr *servers, size_t n, int64_t timeout_ms,
                    bool trust_ad, struct io_resolver **ret) MUST_USE;
/* No callback comes any more. Before io_loop_free. Returns NULL; NULL is fine. */
struct io_resolver *io_resolver_free(struct io_resolver *r);
struct port_dns *io_resolver_port(struct io_resolver *r);

/* After a reload: questions from now on go to these servers, open ones stay where they are. On
 * failure nothing changes. */
int io_resolver_configure(struct io_resolver *r, const struct net_addr *servers, size_t n,
                          int64_t timeout_ms, bool trust_ad) MUST_USE;
/* Empties the cache. */
void io_resolver_flush(struct io_resolver *r);
void io_resolver_get_stats(const struct io_resolver *r, struct io_resolver_stats *ret);

#endif
