/* operations.h - verbs on all that a filter means: long work, with an id and its progress.
 *
 * Layer: daemon, main thread. An operation walks the spool in steps of a few hundred entries, one a turn of
 * the loop, and sends what it finds to the owners of the queues in batches (engine/queue_batch.h); the
 * next step is made when the batches before are in the spool. So its memory is bounded, no worker and not
 * the control API waits for it for more than a moment, and deliveries go on. It lives in the running
 * router only: after a restart it is gone, and what it has done stands.
 */
#ifndef TERN_DAEMON_OPERATIONS_H
#define TERN_DAEMON_OPERATIONS_H

#include "daemon/control_call.h"
#include "daemon/queue_filter.h"
#include "engine/queue_batch.h"

enum {
    OPERATIONS_RUNNING = 4, /* at once */
    OPERATIONS_KEPT = 32,   /* that have ended, to be asked about */
    OPERATION_IDS = 1000,   /* messages that are named */
    OPERATION_FIRST = 10,   /* matches that are shown */
};

/* What is asked for. operation_start takes all of it over. */
struct operation_order {
    const char *action;
    enum queue_batch_type type;
    struct queue_filter filter;
    json_t *told_filter; /* as it was given */
    struct msgid *ids;   /* heap; NULL: any */
    size_t n_ids;
    bool dry_run;
    char reason[QUEUE_BATCH_TEXT];
    char address[QUEUE_BATCH_TEXT];
};
void operation_order_done(struct operation_order *o);

struct operations;
struct operation;
struct operations *operations_new(struct router *r);
struct operations *operations_free(struct operations *all); /* NULL is fine */

/* 0; -EBUSY: OPERATIONS_RUNNING are there; -ENOMEM. The order is taken over in any case. */
int operation_start(struct operations *all, struct operation_order *o, struct operation **ret);
struct operation *operation_find(struct operations *all, struct str id);
/* Ends when the batches that are under way are back. */
void operation_cancel(struct operation *op);
bool operation_ended(const struct operation *op);
json_t *operation_json(const struct operation *op);
json_t *operations_json(const struct operations *all); /* newest first */
/* Answers the call when the operation has ended, or in half a second. -ENOMEM. */
int operation_wait(struct operation *op, struct control_call *c);

#endif
