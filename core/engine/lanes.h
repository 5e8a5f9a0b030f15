/* lanes.h - how many deliveries follow a fallback at once, and how fast, over all workers and queues.
 *
 * Layer: engine. The `concurrency` and `rate` of a route hold for its queue, and are its owner's to keep
 * (queue_rate.c). A fallback is followed by deliveries of other queues, of any worker: these are counted here, under
 * the name of the fallback's queue. One table for the process, in memory, of fixed size; locks are held for
 * nanoseconds, and only fallbacks with such limits take them. With very many in use at once, those for which there is
 * no place are not limited.
 *
 * Who finds no room is told when to ask again, and keeps a place in a line (LANE_LINE of them; beyond, it takes
 * pot luck). What becomes free is for those who stand in front and have asked lately. Nobody is woken: workers do not
 * share queues. So the first ones are told to ask again soon.
 */
#ifndef TERN_ENGINE_LANES_H
#define TERN_ENGINE_LANES_H

#include "engine/throttle.h"
#include "mail/route.h"

enum { LANE_LINE = 32 };

struct lanes;

/* What one delivery holds. */
struct lane_pass {
    uint64_t name;                 /* 0: nothing */
    struct throttle_ticket ticket; /* until its transaction begins */
};

struct lanes *lanes_new(void); /* NULL: out of memory */
struct lanes *lanes_free(struct lanes *l);
/* 0: it may go on. Else milliseconds until it is worth asking again. who: the queue that asks, the same each time, not 0.
 * l NULL: nothing is limited. */
int64_t lanes_enter(struct lanes *l, const struct route *fallback, uint64_t who, int64_t now_ms,
                    struct lane_pass *ret);
/* Harmless when nothing is held. What was not used up of its rate is paid back. */
void lanes_leave(struct lanes *l, struct lane_pass *pass);

#endif
