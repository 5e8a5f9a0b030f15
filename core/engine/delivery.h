/* delivery.h - one attempt to deliver a job: route (again if the policy has changed), next hops, up to five
 * addresses, one transaction, results to outcome.
 *
 * Layer: engine. Owns the job until queue_attempt_ended.
 */
#ifndef TERN_ENGINE_DELIVERY_H
#define TERN_ENGINE_DELIVERY_H

#include "engine/queue.h"

enum { DELIVERY_MAX_ADDRESSES = 5 }; /* tried in one attempt (Q5) */

/* Begins; ends with queue_attempt_ended on a later turn. */
void delivery_start(struct engine *e, struct job *j);
/* Drops all deliveries under way (engine_free). */
void delivery_abort_all(struct engine *e);

#endif
