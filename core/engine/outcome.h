/* outcome.h - what becomes of each recipient after an attempt: delivered, deferred, bounced, re-routed.
 *
 * Layer: engine. Asks the `result` hook for what did not succeed, then makes one atomic change of the
 * spool: recipients that are done are deleted, deferred ones get their new due time, and failed ones are
 * deleted as their DSN is put in (RFC 5321 §4.5.5: never for a null sender, then the failure is logged only).
 */
#ifndef TERN_ENGINE_OUTCOME_H
#define TERN_ENGINE_OUTCOME_H

#include "engine/queue.h"
#include "mail/history.h"
#include "proto/smtp_client.h"

enum fate {
    FATE_DELIVERED,
    FATE_DEFER,
    FATE_BOUNCE,
    FATE_REROUTE,
    FATE_DISCARD,
    FATE_KEEP, /* stays as it was: nothing is written */
    FATE_WAIT, /* was not tried, and waits for a better hour */
    FATE_WARN, /* stays as it was, and its sender has been told of the delay */
};

/* One recipient's result; texts live in the outcome's arena. */
struct result {
    enum fate fate; /* as the reply says; the hook may change it */
    enum failure_scope scope;
    enum smtp_stage stage;
    struct smtp_reply reply; /* code 0: none */
    struct str why;
    struct route *route;   /* REROUTE; one reference */
    struct str decided_by; /* the `result` hook, when it had an opinion */
    bool warn;             /* DEFER: its sender is told of the delay (outcome's own) */
    bool counted;          /* DEFER, REROUTE: the attempt is in the recipient (outcome's own) */
    int64_t retry_ms;      /* DEFER: at least; 0: by schedule. WAIT: not tried, for that long */
};

struct outcome {
    struct job *job;
    struct result *results; /* job->n */
    struct arena arena;
    struct str host;   /* "mx.example.com [192.0.2.1]:25" */
    struct str source; /* local address that it was given; empty: the system chose */
    struct net_addr addr;
    struct str tls_version;
    struct str verified; /* "dane", "mta-sts" or "authority"; empty: any certificate will do */
    bool told_further;   /* the host offers DSN: it tells what becomes of what it took */
    bool by_goes_on;     /* the host offers DELIVERBY: it minds the time of what it took */
    bool lmtp;           /* what it took is in its mailbox */
    const struct history_try *tries; /* hosts that could not be used, in order */
    size_t n_tries;
    struct history_plan plan; /* where it could go; no time: no host was looked for */
    int64_t started_ms;       /* monotonic */
    enum attempt_end end;
    struct str end_why;
};

/* Room for an outcome, made before the attempt: for want of memory at its end what was delivered would be
 * delivered again. NULL: out of memory. free() it when it is not needed. */
struct pending *outcome_room(void);
/* Takes over the room and the outcome's content (the struct is copied). When all is in the spool, the job goes
 * back by queue_attempt_ended(job, end, end_why, ...). */
void outcome_apply(struct engine *e, struct pending *room, const struct outcome *o);

struct outcomes *outcomes_new(struct engine *e);
/* Those that wait for a hook are dropped; those at the spool are let finish without a trace. */
struct outcomes *outcomes_free(struct outcomes *o);
size_t outcomes_pending(const struct outcomes *o);

#endif
