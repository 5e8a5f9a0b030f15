/* etrn_internal.h - what etrn.c and etrn_release.c share. Layer: engine, internal. */
#ifndef TERN_ENGINE_ETRN_INTERNAL_H
#define TERN_ENGINE_ETRN_INTERNAL_H

#include "engine/etrn.h"
#include "engine/queue.h"

enum { ETRN_BATCH = 16, ETRN_NODE = 600 };

/* A queue with mail that may be let go. */
struct etrn_grant {
    char queue[SPOOL_MAX_QUEUE_NAME + 1];
    struct route *route; /* one reference; NULL: ATRN */
    int64_t window_ms;
    uint64_t waiting;
};

struct etrn {
    struct list link; /* etrns.active */
    uint64_t id;      /* what orders under way know it by */
    struct engine *e;
    struct snapshot *snapshot;
    const struct session_view *session;
    etrn_done *done;
    void *owner;
    struct etrn_request request; /* node is in `node` */
    struct hook_call *call;
    struct later step; /* the next batch of queues, or the end */
    struct etrn_view view;
    struct hook_input input;

    struct str rest;             /* ATRN: domains that are still to be asked about */
    bool subdomains, group, all; /* whose members are looked for */
    bool scanned;                /* all queues were seen */
    char after[SPOOL_MAX_QUEUE_NAME + 1];
    struct spool_queue *rows; /* ETRN_BATCH of them, while members are looked for */
    int n_rows, row;

    struct etrn_grant *grants;
    size_t n_grants, cap_grants;
    bool cut;    /* there were more queues than limits.etrn_queues */
    bool failed; /* an obstacle of our own on the way */

    /* what the owners said */
    size_t orders, started, merged, busy;
    uint64_t messages;
    struct turn *turn;

    struct smtp_reply reply; /* code 0: none yet */
    char domain[DOMAIN_TEXT];
    char argument[ETRN_NODE + 2]; /* as the client said it, with its option */
    char node[ETRN_NODE];
    char text[1024]; /* of the reply */
};

struct etrns {
    struct engine *e;
    struct list active;
    uint64_t ids;
    struct etrn_client *clients; /* made for the first one */
};

/* before + what the client said + after, as RFC 1985 §5.3 words its replies. */
void etrn_set_reply(struct etrn *r, uint16_t code, struct smtp_enhanced enhanced,
                    const char *before, const char *after);
/* The reply is there: tells, on a later turn. */
void etrn_end(struct etrn *r);
/* All grants are there: tells the owners, then etrn_end. */
void etrn_release(struct etrn *r);

#endif
