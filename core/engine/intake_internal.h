/* intake_internal.h - what the files of intake share. Layer: engine, internal.
 *
 * intake.c: its life, the order of steps, the commit. intake_content.c: Received, counting hops,
 * staging, headers, the body as hooks read it. intake_route.c: what the route hooks say. intake_each.c: replies
 * to each recipient.
 */
#ifndef TERN_ENGINE_INTAKE_INTERNAL_H
#define TERN_ENGINE_INTAKE_INTERNAL_H

#include "engine/intake.h"
#include "engine/verdict.h"

enum {
    INTAKE_FEW = 4,          /* recipients that need no block of their own */
    INTAKE_STAGE_PIECES = 8, /* full pieces that make a unit */
    INTAKE_EACH_TEXT = 500,  /* octets of a reply to one of many recipients */
    INTAKE_STAGES = 2, /* units under way while the body comes; the last pieces may be a third */
};

/* Reads the header block as it comes, however it is cut: counts, keeps nothing. */
struct header_scan {
    uint32_t octets, fields, received;
    uint8_t state, matched;
    uint8_t name_n, tls_required; /* octets of the name so far; fields TLS-Required (at most 255) */
    bool tls_name;                /* these are the beginning of that name */
};

/* Pieces on their way into the spool. Freed by its completion, whether the intake still is or not. */
struct stage {
    struct spool_op op;
    struct intake *in; /* NULL: aborted */
    struct body_chunk *pieces;
    uint64_t octets;
    struct spool_change changes[];
};

enum intake_phase {
    INTAKE_OPEN,    /* takes recipients and body */
    INTAKE_STAGING, /* complete; the last pieces are on their way */
    INTAKE_DATA,    /* the data hook */
    INTAKE_ROUTE,   /* the route hooks, one after another */
    INTAKE_COMMIT,
    INTAKE_ENDED, /* a reply without a commit is on its way */
};

struct intake {
    struct engine *e;                   /* NULL: it went away while the commit was under way */
    const struct session_view *session; /* NULL: our own, or the session has gone */
    struct snapshot *snapshot;
    void *owner;
    uint64_t session_id;
    int64_t started_ms; /* monotonic */
    enum intake_phase phase;
    int error;  /* of a stage */
    bool own;   /* a DSN */
    bool as_is; /* no session brings it: a DSN, or imported */

    struct arena arena;
    struct message *m;
    struct recipient few[INTAKE_FEW], *recipients;
    size_t n, cap;

    /* LMTP: who was accepted, in that order: an index into `each`, or PASSED_OVER. */
    bool has_each;
    uint32_t *order;
    size_t n_order, cap_order;
    struct smtp_reply *each; /* by the routes; code 0: as the others */
    size_t n_refused;        /* with a reply of their own */

    /* content */
    struct header_scan scan;
    uint64_t in_memory;                    /* octets counted in engine.intake_memory */
    uint64_t content_at;                   /* where the body begins behind the headers */
    size_t trace_n;                        /* octets of our own Received at the start */
    bool prioritized;                      /* the client said MT-PRIORITY */
    int8_t said_priority, traced_priority; /* what it said; what our Received says */
    uint32_t next_piece;                   /* the first that is not staged */
    struct stage *stages[INTAKE_STAGES + 1];
    size_t n_stages;
    intake_ready *ready; /* set: the owner waits for it */
    struct headers headers;
    struct body *original; /* before headers were edited: they still point into it */
    struct buf piece;      /* a staged piece that a hook reads */

    /* hooks */
    struct message_view view;
    struct recipient_view recipient;
    struct hook_input input;
    struct hook_call *call;
    size_t routing;            /* the recipient whose route is asked for */
    struct route *bounce;      /* the last one that was made */
    struct smtp_reply refusal; /* of the first recipient that bounces */

    /* the end */
    struct spool_op op;
    struct spool_change *changes;
    const struct spool_change *also;
    size_t n_also;
    struct buf records; /* what the changes point to; before that, scratch */
    struct smtp_reply reply;
    struct later later;
    intake_done *done;
    struct intake *next_alone, **at_alone; /* in engine.intakes_alone */
};

/* intake.c. Ends the intake on a later turn; the text is copied. */
void intake_end(struct intake *in, struct smtp_reply reply);
void intake_commit(struct intake *in);
void intake_content_complete(struct intake *in); /* all staged pieces are on disk */
/* As accepted: 250, but nothing is stored. */
void intake_end_discarded(struct intake *in);
void intake_log_discarded(struct intake *in, const struct recipient *r, struct str policy);

/* intake_each.c: replies to each recipient (LMTP). 0, -ENOMEM. */
int intake_each_added(struct intake *in); /* before it is counted in n */
int intake_each_begin(struct intake *in); /* the routes of in->n recipients will be asked for */
/* The recipient whose route was asked for is refused; it goes no further. */
int intake_each_refuse(struct intake *in, const struct smtp_reply *reply, struct str policy);
static inline bool intake_all_refused(const struct intake *in)
{
    return in->n_refused > 0 && in->n_refused == in->n_order;
}

/* intake_content.c. 0, -ENOMEM. */
int intake_begin_content(struct intake *in, bool blank_line);
int intake_stage_rest(struct intake *in); /* 1: on its way, intake_content_complete follows */
void intake_detach_stages(struct intake *in);
void intake_drop_staged(struct intake *in);
int intake_read_headers(struct intake *in);
int intake_apply_edits(struct intake *in);
int intake_read_tls_required(struct intake *in); /* the flag of the message; behind all edits */

/* intake_route.c: those of a message with TLS-Required: No. 0, -ENOMEM. */
int intake_part_queues(struct intake *in);
/* intake_route.c: asks for routes from in->routing on, then commits or ends. */
void intake_route(struct intake *in);

#endif
