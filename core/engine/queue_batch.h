/* queue_batch.h - one verb on a handful of recipients, whichever queues they wait in.
 *
 * Layer: engine. What an operator means may be millions of recipients in thousands of queues. Whoever finds
 * them (the control API, by a filter) sends them to the owner of their queues in batches, and the next one
 * when `done` has told that the one before is in the spool: so nothing grows with their number, and
 * deliveries go on in between.
 *
 * An owner takes its batch as one atomic unit of the spool (HOLD, RELEASE, RETRY, REMOVE, EDIT), or as
 * deliveries without a host (REROUTE: the `route` hook is asked; BOUNCE: a notification is made). What is
 * being delivered at this moment is never touched: it is told as BUSY.
 *
 *   HOLD     no attempts until it is released; of scheduled and waiting mail
 *   RELEASE  held mail is due now; when it is `named`, also what its sender wants to wait (FUTURERELEASE)
 *   RETRY    scheduled mail is due now, and the back-off of its queue is over. What its sender wants to wait is so only
 *            when it is `named`
 *   REROUTE  the route is asked for anew, whatever the policy it was chosen by, and followed at once when
 *            it is another one. Held mail stays held, by its new route
 *   REMOVE   without telling anybody
 *   BOUNCE   returned to the sender now, with `reason`
 *   EDIT     goes to `address` instead, and is routed anew. What it was sent to becomes its ORCPT
 *            (RFC 3461 section 4.2), where it has none
 *   LOOK     changes nothing: BUSY or UNCHANGED
 */
#ifndef TERN_ENGINE_QUEUE_BATCH_H
#define TERN_ENGINE_QUEUE_BATCH_H

#include "engine/queue.h"

enum {
    QUEUE_BATCH = 128, /* recipients: larger ones hold up the commits of others */
    QUEUE_BATCH_TEXT = 512,
};

enum queue_batch_type {
    BATCH_HOLD,
    BATCH_RELEASE,
    BATCH_RETRY,
    BATCH_REROUTE,
    BATCH_REMOVE,
    BATCH_BOUNCE,
    BATCH_EDIT,
    BATCH_LOOK,
};

enum queue_batch_result {
    BATCH_UNCHANGED, /* it has gone, or the verb does not apply to it */
    BATCH_CHANGED,
    BATCH_BUSY,   /* under way */
    BATCH_FAILED, /* memory, the spool, a damaged record; `result` says why */
};

/* What stands in a batch twice is done once: the second one is UNCHANGED (not for LOOK). */
struct queue_batch_item {
    struct msgid id;
    uint32_t n;
    char queue[SPOOL_MAX_QUEUE_NAME + 1];
    enum queue_batch_result result; /* out */
};

struct queue_batch {
    struct worker_message wm;
    enum queue_batch_type type;
    bool named;                     /* the operator gave the ids of these messages */
    uint64_t operation;             /* RETRY: a queue's back-off is ended once by each; not 0 */
    char reason[QUEUE_BATCH_TEXT];  /* BOUNCE: what the sender is told; "": the usual */
    char address[QUEUE_BATCH_TEXT]; /* EDIT: valid (address_parse), ASCII */
    size_t n;
    struct queue_batch_item item[QUEUE_BATCH];
    /* Out: 0, or the last error: -ENOMEM, -ENOSPC, -EIO, -ESHUTDOWN ...; one that concerns some recipients
     * only (queue_batch_is_of_one) when there was no other. */
    int result;
    /* In the owner's thread. The batch is the sender's again. */
    void (*done)(struct queue_batch *b);
};
/* "Not now", or a record that cannot be read: the next recipients may fare better. */
static inline bool queue_batch_is_of_one(int error)
{
    return error == -EAGAIN || error == -EBADMSG;
}
/* From any thread. All its queues must belong to that worker (engine_queue_owner). */
void queue_batch_send(struct port_workers *workers, int worker, struct queue_batch *b);

/* ---- for queue.c ------------------------------------------------------------------------------ */

struct batch_run;
/* A job of a batch has ended; it is dropped after this. */
void queue_batch_job_ended(struct job *j, enum attempt_end how);
/* The engine goes. */
void queue_batches_free(struct queues *all);

#endif
