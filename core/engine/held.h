/* held.h - mail that waits for its release: how long (E11), how much before somebody is told (E11), and
 * releases by the clock (E14).
 *
 * Layer: engine. One for each worker; it minds the queues that this worker owns. What is to be minded stands
 * in the routes of the waiting recipients themselves (struct route_hold, lifetime_ms), so nothing here must
 * survive a restart or a reload. A walk over the worker's queues, a batch a turn, looks at the oldest waiting
 * recipient of each; it is made when the first of them is due, and once an hour.
 */
#ifndef TERN_ENGINE_HELD_H
#define TERN_ENGINE_HELD_H

#include "engine/context.h"
#include "mail/route.h"

struct held *held_new(struct engine *e);
struct held *held_free(struct held *h);
void held_start(struct held *h);
/* A recipient with that route has come into that queue of this worker's, to wait. received: wall. */
void held_arrived(struct held *h, struct str queue, const struct route *route, int64_t received);
/* A release of that queue has ended. */
void held_released(struct held *h, struct str queue);

/* The first release by the clock after `after`, or INT64_MAX. Wall; offset_ms: local time minus UTC. */
int64_t held_next_release(const struct route_hold *hold, int64_t after, int64_t offset_ms);

#endif
