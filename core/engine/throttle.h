/* throttle.h - how fast messages are handed over: a token bucket that can be paid back.
 *
 * Layer: engine. One word, which any thread may change without a lock. The bucket is a point in time (GCRA): when it
 * will be full again. In any period no more are admitted than count, and burst - 1 more; a rate that does not say
 * its burst means "evenly": one at a time, or what goes in ten milliseconds.
 *
 * Who is admitted has paid. An attempt that reaches nobody pays back: exactly what it has cost, which may be
 * nothing by then (the bucket has been full since).
 */
#ifndef TERN_ENGINE_THROTTLE_H
#define TERN_ENGINE_THROTTLE_H

#include <stdatomic.h>

#include "mail/rate.h"

struct throttle {
    atomic_ullong state; /* 0: full */
};

/* What was paid for one message; rate.count 0: nothing. */
struct throttle_ticket {
    struct rate rate;
    uint16_t epoch;
};

/* 0: admitted, and *ret is what it paid. Else milliseconds until one may go. now_ms: on the monotonic clock, the
 * same one for all callers. */
int64_t throttle_admit(struct throttle *t, const struct rate *rate, int64_t now_ms,
                       struct throttle_ticket *ret);
/* The same, and nothing is taken. */
int64_t throttle_wait(struct throttle *t, const struct rate *rate, int64_t now_ms);
/* Pays without asking: the next wait for it. */
void throttle_charge(struct throttle *t, const struct rate *rate, int64_t now_ms);
/* Who was admitted a while ago goes now: the next one is not before its time from now on. */
void throttle_went(struct throttle *t, const struct rate *rate, int64_t now_ms);
/* Pays back, and clears the ticket. */
void throttle_cancel(struct throttle *t, struct throttle_ticket *ticket);
/* How many may go at this moment. */
uint32_t throttle_left(const struct throttle *t, const struct rate *rate, int64_t now_ms);
/* Milliseconds until it knows nothing that a new one would not know. */
int64_t throttle_known_for(const struct throttle *t, int64_t now_ms);
/* They go one at a time, and slowly enough that each may wait until the one before has gone. */
bool throttle_is_strict(const struct rate *rate);

#endif
