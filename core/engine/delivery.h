/* delivery.h - one attempt to deliver a job: route (again if the policy has changed), next hops, up to five
 * addresses, one transaction, results to outcome.
 *
 * Layer: engine. Owns the job until queue_attempt_ended.
 */
#ifndef TERN_ENGINE_DELIVERY_H
#define TERN_ENGINE_DELIVERY_H

#include "engine/queue.h"

enum { DELIVERY_MAX_ADDRESSES = 5 }; /* tried in one attempt (Q5) */

struct deliveries *deliveries_new(struct engine *e);
/* Drops those under way: their recipients stay in the spool as they were. */
struct deliveries *deliveries_free(struct deliveries *d);
size_t deliveries_active(const struct deliveries *d);

/* Takes the job; gives it back by queue_attempt_ended, on a later turn unless memory is short. */
void delivery_start(struct engine *e, struct job *j);

#endif
