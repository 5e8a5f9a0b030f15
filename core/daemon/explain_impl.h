/* explain_impl.h - what explain.c and explain_plan.c share. Layer: daemon, internal. */
#ifndef TERN_DAEMON_EXPLAIN_IMPL_H
#define TERN_DAEMON_EXPLAIN_IMPL_H

#include "daemon/explain.h"
#include "daemon/explain_ports.h"
#include "engine/context.h"
#include "engine/hook.h"

struct explain {
    const struct explain_request *request;
    const struct settings *settings;
    struct explain_ports ports;
    struct engine_shared shared;
    struct hooks *hooks;
    struct snapshot *snapshot;
    struct engine *engine;
    struct policy_observer observer;
    struct arena arena;

    struct address from, to;
    const struct listen_settings *listener;
    struct net_addr client; /* session's */
    struct session_view session;
    struct message_view message;
    int8_t priority; /* that policies may set, and nobody looks at */
    struct recipient_view recipient;
    struct headers headers;
    struct buf content;  /* of the message, when it was given */
    size_t body_at;      /* where its body begins */
    size_t changes_told; /* of the headers, with the policies so far */
    struct etrn_view etrn;

    struct hook_result result; /* of the hook that was asked last */
    bool answered;             /* what is waited for is here */
    bool discard;              /* a policy drops the whole mail */

    json_t *answer;
    json_t *dns;         /* answers since it was last taken */
    json_t *steps;       /* policies of the hook that is being asked */
    json_t *connections; /* that something wanted to make */
};

/* Runs the loop until x->answered. */
void explain_wait(struct explain *x);
/* Takes the answers of the DNS so far, for who asked for them. */
json_t *explain_take_dns(struct explain *x);
json_t *explain_reply_json(const struct smtp_reply *r);
/* What becomes of the mail, once: "refused", "delivered"..., and a sentence for people. */
void explain_outcome(struct explain *x, const char *what, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Reads the message, and makes the view that hooks get of it. */
int explain_read_content(struct explain *x, struct failure *f);

/* The route and its fallbacks, with the hosts that each of them gives; sets the outcome. */
void explain_route(struct explain *x, const struct route *route, struct str decided_by);

#endif
