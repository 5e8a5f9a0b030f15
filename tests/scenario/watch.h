/* Watches a world while time passes: does the scheduler keep its promises?
 *
 * Each destination is one host with one queue, whose name is its domain. Time goes from event to event; when nothing
 * is left to be done at a moment, the watch looks:
 *
 *  - limits, at the hosts: how many connections are in use (not idle) at a destination, and at all those of one
 *    worker. Over the limit for longer than WATCH_GRACE_MS is a violation: shorter than that, what the
 *    router has ended is still on its way to the host.
 *  - work conserving: a worker with a free connection and a queue that may start have nothing that could start;
 *    and nothing that is due in the spool is out of sight, so that no timer and no turn will start it.
 *  - parked jobs wait for a source (queue_park.c): each source has at most the connections that it may have, and nothing
 *    is parked for long while one of its sources could take one more: no wake-up is lost.
 *  - no starvation: of what is due in a queue that is not held, not in back-off, and whose host works, an attempt is
 *    under way within watch_bound, and the oldest of it goes within watch_bound_of_oldest.
 *
 * A violation fails the test, and tells seed, time and queue. */
#ifndef TERN_TESTS_WATCH_H
#define TERN_TESTS_WATCH_H

#include "ledger.h"

enum { WATCH_QUEUES = 1200, WATCH_GRACE_MS = 200 };

struct watch_queue {
    char name[40];
    struct sim_host *host;
    int worker;
    uint32_t limit; /* connections in use at most; changes hold from limit_from on */
    uint32_t limit_next;
    int64_t limit_from;
    uint32_t concurrency; /* of its route; 0: none */
    bool works;           /* its host takes mail, as far as the test knows */
    int64_t over_since;   /* monotonic, as all below; <0: it is not */
    int64_t wasted_since; /* something could start, and does not; <0: it is not so */
    int64_t able_since;   /* not held, not in back-off, host works; <0: now it is not so */
    int64_t progress;     /* the last time that an attempt was seen */
    uint64_t seen;        /* what its host had seen then */
    unsigned sources;     /* bits: those of watch.source that its route names; 0: none */
    int64_t parked_since; /* something is parked, and one of these is free; <0: it is not so */
};

enum { WATCH_SOURCES = 3 };

struct watch_source {
    struct net_addr addr;
    uint32_t concurrency;
    int64_t over_since;
};

struct watch {
    struct fixture *f;
    uint64_t seed;
    struct watch_queue *q;
    size_t n;
    uint32_t connections; /* of a worker; changes hold from connections_from on */
    uint32_t connections_next;
    int64_t connections_from;
    int64_t over_since[SIM_MAX_WORKERS];
    int64_t attempt_ms;     /* how long an attempt lasts at most, whatever its host does */
    int64_t head_start_ms;  /* of the most urgent mail over the least urgent */
    int64_t transaction_ms; /* the same for a host that works */
    int64_t looked, conserved, scanned;
    uint64_t looks, found_due, found_parked; /* how much there was to see */
    struct watch_source source[WATCH_SOURCES];
    size_t most_busy;
};

/* connections: queue.connections of the settings. */
void watch_init(struct watch *w, struct fixture *f, uint64_t seed, uint32_t connections);
void watch_done(struct watch *w);
/* A destination: the domain in DNS, its host. concurrency: of its route, most: of the settings. */
struct watch_queue *watch_add(struct watch *w, const char *domain, const char *addr,
                              uint32_t concurrency, uint32_t most);
/* A local address: what the settings allow it. */
void watch_source(struct watch *w, size_t i, const char *addr, uint32_t concurrency);
/* Attempts that begin from now on keep to these. */
void watch_limits(struct watch *w, uint32_t most, uint32_t connections);
void watch_advance(struct watch *w, int64_t ms);
/* The engines are about to go (stop, crash): what was seen of them does not count any more. */
void watch_forget(struct watch *w);

int64_t watch_bound(const struct watch *w, const struct watch_queue *q);
int64_t watch_bound_of_oldest(const struct watch *w, const struct watch_queue *q);

#endif
