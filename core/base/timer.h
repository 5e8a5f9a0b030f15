/* timer.h - many deadlines in one heap.
 *
 * Layer: base. A timer is embedded in its owner, who stops it before freeing it. Times are
 * milliseconds of the caller's monotonic clock. Shared by the real loop and the simulated one:
 * both only ask for the next deadline and run what is due.
 *
 * Arming never fails: timers for which the heap gets no memory are kept in a list, and looked through one by one, until
 * there is room for them again.
 */
#ifndef TERN_BASE_TIMER_H
#define TERN_BASE_TIMER_H

#include "base/err.h"

struct timer;
typedef void timer_cb(struct timer *t);

struct timer {
    int64_t at;
    timer_cb *fire;
    size_t slot;           /* 1 + index in the heap; 0: not armed; SIZE_MAX: among the crowded */
    uint64_t seq;          /* equal deadlines fire in the order of arming */
    struct timer *crowded; /* the next of those */
};

struct timer_heap {
    struct timer **slots;
    size_t n, cap;
    struct timer *crowded; /* for whom there was no memory */
    uint64_t seq;
    int64_t running; /* `now` of the run in progress, else INT64_MIN */
};

void timer_heap_init(struct timer_heap *h);
void timer_heap_done(struct timer_heap *h);

static inline void timer_init(struct timer *t, timer_cb *fire)
{
    *t = (struct timer){ .fire = fire };
}
static inline bool timer_armed(const struct timer *t)
{
    return t->slot != 0;
}
/* Arms, or moves when armed already. */
void timer_heap_set(struct timer_heap *h, struct timer *t, int64_t at);
void timer_heap_stop(struct timer_heap *h, struct timer *t); /* harmless when not armed */
/* The one that fires next; NULL: none is armed. */
const struct timer *timer_heap_first(const struct timer_heap *h);
/* When that is; INT64_MAX when there is none. */
int64_t timer_heap_next(const struct timer_heap *h);
/* Fires what is due at `now`, each disarmed before its callback, at most `max` (0: all).
 * Timers armed during the call for a time <= now wait for the next call (and are armed for now).
 * Returns how many. */
size_t timer_heap_run(struct timer_heap *h, int64_t now, size_t max);

#endif
