/* context.h - what the modules of one engine share: its ports, snapshot and one another.
 *
 * Layer: engine, internal. A module reaches another only through that one's header.
 */
#ifndef TERN_ENGINE_CONTEXT_H
#define TERN_ENGINE_CONTEXT_H

#include "engine/engine.h"

struct engine {
    struct ports ports;
    struct engine_shared *shared;
    struct snapshot *snapshot; /* the newest */
    struct msgid_source ids;
    uint32_t round_robin; /* turn of balanced targets */
    uint32_t source_turn; /* of source addresses that have as many connections */
    uint64_t keys;        /* given out by engine_new_key */
    struct sessions_in *sessions;
    struct queues *queues;
    struct hosts *hosts;
    struct connections *connections; /* the pool of session_out */
    struct deliveries *deliveries;
    struct outcomes *outcomes;
    struct etrns *etrns;
    struct probes *probes;
    struct stses *sts;
    struct tls_reports *tls_reports;
    struct held *held;
    struct turns *turns;
    uint64_t intake_memory;       /* octets of messages that are being received */
    unsigned intakes;             /* in progress, commits included */
    struct intake *intakes_alone; /* commits whose session has gone: intake.c */
    struct list imports;          /* open ones: import.c */
    bool stopping;
    bool freeing; /* nothing is posted any more */
};

static inline int64_t engine_now(const struct engine *e)
{
    return e->ports.clock->now(e->ports.clock);
}
static inline int64_t engine_wall(const struct engine *e)
{
    return e->ports.clock->wall(e->ports.clock);
}
/* The first moment from wall_ms on in which that route may be tried: hours are local time. */
int64_t engine_open_at(const struct engine *e, const struct route *r, int64_t wall_ms);
static inline int64_t engine_utc_offset(const struct engine *e, int64_t wall_ms)
{
    struct port_clock *clock = e->ports.clock;
    return clock->zone ? clock->zone(clock, wall_ms) : 0;
}
static inline uint64_t engine_random(const struct engine *e)
{
    return e->ports.random->next(e->ports.random);
}
static inline void engine_timer(struct engine *e, struct timer *t, int64_t in_ms)
{
    e->ports.clock->timer_set(e->ports.clock, t, engine_now(e) + in_ms);
}
static inline void engine_timer_stop(struct engine *e, struct timer *t)
{
    e->ports.clock->timer_stop(e->ports.clock, t);
}
static inline void engine_later(struct engine *e, struct later *l)
{
    e->ports.clock->later(e->ports.clock, l);
}
/* Of a session, or of message.data: no other in this process, whichever worker it is of, has it. */
static inline uint64_t engine_new_key(struct engine *e)
{
    const struct port_workers *w = e->ports.workers;

    return ++e->keys * (uint64_t)MAX(w->count, 1) + (uint64_t)w->self;
}
/* Tells the journal, and the `event` hook when there is one. */
void engine_event(struct engine *e, const struct event *ev);
#define COUNT(e, counter, n)                                                                       \
    atomic_fetch_add_explicit(&(e)->shared->counters.counter, (n), memory_order_relaxed)

/* The name or address is this router (B1): hostname, self names; listeners, interfaces, self addresses. */
bool engine_is_self_name(const struct engine *e, struct str name);
bool engine_is_self_address(const struct engine *e, const struct net_addr *ip);
/* One of our listeners would answer there (port compared too). */
bool engine_is_own_listener(const struct engine *e, const struct net_addr *addr);

#endif
