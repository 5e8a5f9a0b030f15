/* delivery_impl.h - what the files of deliveries share: delivery.c, delivery_*.c. Layer: engine, internal. */
#ifndef TERN_ENGINE_DELIVERY_IMPL_H
#define TERN_ENGINE_DELIVERY_IMPL_H

#include "engine/delivery.h"
#include "engine/lanes.h"
#include "engine/next_hop.h"
#include "engine/outcome.h"
#include "engine/session_out.h"
#include "engine/sources.h"
#include "engine/trail.h"

struct delivery {
    struct list link;
    struct deliveries *all;
    struct engine *engine;
    struct snapshot *snapshot;
    struct job *job;
    struct later begin;
    struct arena arena;     /* of the results; goes to the outcome */
    struct result *results; /* job->n */
    bool *decided;          /* results[i] is final */
    struct pending *room;   /* for the outcome */
    int64_t started_ms;
    enum attempt_end end;

    /* the route hook */
    size_t asked;
    struct hook_call *call;
    struct recipient_view recipient_view;
    struct message_view message_view;

    /* hosts */
    const struct route *route; /* followed now: the job's, or its fallback */
    struct next_hop_query *query;
    struct hop *hops;
    size_t n_hops, hop, tried;
    int64_t least_wait_ms; /* of hosts that were left alone */
    size_t in_clear;       /* hop (from 1) with which opportunistic TLS failed: that one only */
    struct {
        const struct mta_sts_policy *sts; /* of the route's domain, as in struct next_hops */
        enum sts_fault fault;
        struct str why;
    } policy;
    const struct hop *full; /* a host that works and has no room for one more: it is waited for */
    int64_t opened_ms;      /* monotonic: when the connection was asked for */
    size_t looped;          /* addresses that greeted as ourselves (B9) */
    struct session_out *session;
    struct source_choice source; /* of the session; what it still holds */
    struct lane_pass lane;       /* of the fallback that it follows */
    struct trail trail;          /* for the record */
    struct str host;             /* "mx.example.com [192.0.2.1]:25", the last one tried */
    struct net_addr addr;
    struct str tls_version;
    struct str verified; /* with TLS: what the certificate was held against; empty: nothing */
    struct smtp_reply host_reply; /* of the last host failure */
    struct str host_why;
    enum smtp_stage host_stage;
    bool told_further; /* that host offers DSN */
    bool by_goes_on;   /* that host offers DELIVERBY */
    bool crowded;      /* the host that is `full` said so itself */
    bool again;        /* the same host once more, over another connection */
    bool incomplete;   /* there are hosts whose addresses are not known now */
    /* Held back, and what waits grows old: no source is on this machine, or all hosts failed. */
    bool stuck;
    bool asked_anew;  /* some route was asked for again */
    bool unwelcome;   /* MAIL was refused until we authenticate */
    bool wants_told;  /* so was a RCPT of this transaction: told once */
    bool host_failed; /* the last try ended by a failure of the host (else of the transaction) */

    /* REQUIRETLS: delivery_guard.c */
    size_t unprotected; /* hosts of this route that will never be given the message */
    size_t unguarded;   /* hop (from 1) that is tried without it: a notification */
    bool guard_failed;  /* some host was good for other mail */
    bool guard_later;   /* this route may do later */
    bool guard_hope;    /* so may one before it */
    struct smtp_reply unprotected_reply; /* of the last one; code 0: there was none */

    /* the transaction */
    size_t *sent;           /* index in the job of each recipient sent */
    size_t n_sent, n_taken; /* taken: RCPT was answered 2yz */
};

/* ---- delivery.c ---- */

/* The result of recipient i; what is decided once stays. reply may be NULL. Texts are copied. */
void delivery_decide(struct delivery *d, size_t i, enum fate fate, enum failure_scope scope,
                     enum smtp_stage stage, const struct smtp_reply *reply, struct str why);
void delivery_decide_rest(struct delivery *d, enum fate fate, enum failure_scope scope,
                          enum smtp_stage stage, const struct smtp_reply *reply, struct str why);
size_t delivery_undecided(const struct delivery *d);
/* What is not decided stays as it is. The delivery is gone. */
void delivery_finish(struct delivery *d, enum attempt_end end);
/* Nothing of it is decided: the job goes back as it came. */
void delivery_give_back(struct delivery *d, enum attempt_end end, int64_t wait_ms);
/* As delivery_finish, before anything was tried: it may go in wait_ms, or when others have ended. */
void delivery_hold_back(struct delivery *d, struct str why, int64_t wait_ms);
/* The same for want of a source: this one waits, and not its queue. */
void delivery_wait_for_source(struct delivery *d, struct str why, int64_t wait_ms);
/* Of the host that was tried last: for the end, and for the record. reply may be NULL. Texts are copied. */
void delivery_set_failure(struct delivery *d, enum smtp_stage stage, const struct smtp_reply *reply,
                          struct str why);
void delivery_note_failure(struct delivery *d, enum smtp_stage stage,
                           const struct smtp_reply *reply, struct str why);
/* Something that the operator has to mend. */
void delivery_alarm(struct delivery *d, const char *what, const struct smtp_reply *reply);
void delivery_auth_alarm(struct delivery *d, const struct smtp_reply *reply, struct str why);

/* ---- delivery_hops.c ---- */

/* Finds the hosts of d->route, and goes on with them. */
void delivery_resolve(struct delivery *d);
/* The next host of which something can be hoped, or the end. */
void delivery_try_next(struct delivery *d);

/* ---- delivery_guard.c: REQUIRETLS ---- */

/* What its message asks of hosts. */
enum next_hop_wish delivery_wish(const struct delivery *d);
/* That host is to be spoken to by hop_guarded_tls, whatever the route says. */
bool delivery_guards(const struct delivery *d, const struct hop *h);
/* It is not even asked. */
bool delivery_leaves_out(struct delivery *d, const struct hop *h);
/* The look-up ended for that reason: the fallback is next, or delivery_end_unprotected. */
bool delivery_not_vouched(struct delivery *d, const struct next_hops *r);
/* In ready. True: it is not to be given the message; the session is to be released, and the next host is tried.
 * False: all is well, and MAIL says REQUIRETLS where it must. */
bool delivery_not_offered(struct delivery *d);
/* A connection failed, which is noted. True: for what REQUIRETLS demands, and the next host is tried. */
bool delivery_guard_failed(struct delivery *d, enum smtp_stage stage,
                           const struct smtp_reply *reply, int error, struct str why);
/* Before the fallback of d->route. */
void delivery_leave_route(struct delivery *d);
/* No host is left. True: because of REQUIRETLS, and the delivery is gone. */
bool delivery_end_unprotected(struct delivery *d);

/* ---- delivery_session.c ---- */

extern const struct session_out_events delivery_session_events;

/* ---- delivery_tls.c: what the domain's reports count (RFC 8460) ---- */

/* The hosts have been found, or none. */
void delivery_tls_found(struct delivery *d, const struct next_hops *r);
/* A session is ready; the host of d->hop. */
void delivery_tls_ready(struct delivery *d);
/* A session has failed; before d->session is forgotten. */
void delivery_tls_failed(struct delivery *d, enum smtp_stage stage, const struct smtp_reply *reply,
                         struct str why);

/* ---- delivery_source.c ---- */

/* What becomes of this hop: it can be dialled from key->source, it is left out, or all of the attempt waits. */
enum source_step { SOURCE_DIAL, SOURCE_LEAVE_OUT, SOURCE_WAIT };
enum source_step delivery_choose_source(struct delivery *d, const struct hop *h,
                                        struct session_out_key *key, int64_t *ret_wait_ms);
/* The connection could not be made because of its source. 0: another may be tried; else how long to wait. */
int64_t delivery_source_failed(struct delivery *d, enum session_out_fault fault);

/* ---- delivery_route.c ---- */

/* Asks for the routes that have to be chosen anew, then follows the job's. */
void delivery_ask_routes(struct delivery *d);
/* d->route names no host: it says itself what becomes of the mail. */
void delivery_end_without_host(struct delivery *d);

#endif
