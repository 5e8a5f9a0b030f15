/* intake.h - one message on its way into the spool: envelope, content, `data` and `route` hooks,
 * commit.
 *
 * Layer: engine. Made by session_in for a client's transaction, by outcome for a DSN, by import for a file. Owns its
 * arena, body and the message it makes. Ends in exactly one way: `done` is called (the message is on
 * disk, or was refused), or intake_abort. No callback comes from inside a call.
 *
 * Memory: a body up to INTAKE_STAGE_ABOVE waits in memory for the commit; what is beyond is staged
 * into the spool piece by piece, but for the first piece. The total over a worker's intakes of
 * clients is bounded by limits.memory.
 *
 * What the hooks decide:
 *   data   REJECT, BOUNCE, DEFER, FAILED refuse the message; DISCARD drops it, as accepted.
 *          Not asked for our own mail.
 *   route  nothing said: by MX of the recipient's domain. DISCARD drops the recipient. DEFER and
 *          FAILED refuse the whole message for now (4yz): nothing of it is accepted. REJECT, BOUNCE
 *          and a ROUTE_BOUNCE refuse the message when they are the fate of all recipients; when
 *          others are taken, the recipient is stored with a ROUTE_BOUNCE in the queue "bounce", due
 *          now: the delivery of that queue turns it into a DSN.
 *          LMTP (`each`): whoever is refused, for now or for good, gets that as its own reply, and the
 *          message is taken for the others. Nothing is stored for those that are refused.
 */
#ifndef TERN_ENGINE_INTAKE_H
#define TERN_ENGINE_INTAKE_H

#include "engine/context.h"

enum { INTAKE_STAGE_ABOVE = 1024 * 1024 };

struct intake;

/* Where a message that is imported came from at first. */
struct intake_origin {
    struct net_addr client;
    struct str helo, identity, service;
    struct str changes; /* of its header, by policies then: mail/changes.h */
    bool tls;
};

struct intake_source {
    const struct session_view
        *session; /* NULL: our own (DSN), or imported. Lives as long as the intake */
    const struct intake_origin
        *origin;               /* imported; copied. No Received is added, no `data` hook asked */
    struct snapshot *snapshot; /* the intake takes a reference */
    struct address sender;     /* copied */
    uint64_t declared_size;
    bool eight_bit, binary, smtputf8, requiretls;
    bool each;      /* LMTP: each recipient has a reply of its own */
    uint32_t flags; /* MESSAGE_DSN */
    struct smtp_dsn_mail dsn;
    struct message_times times; /* by the wall clock */
    bool prioritized;           /* the client said MT-PRIORITY */
    int8_t said_priority;       /* this, whatever holds in its place */
};

/* The reply for the client: 250 with the id, or the refusal. It lives during the call; the intake is
 * freed after it (it is not to be aborted any more). Queues are told after it. */
/* With `each` it is the reply of all but those for whom intake_reply_to, which may be called now, has another. */
typedef void intake_done(void *owner, const struct smtp_reply *reply);
/* Staged pieces are on disk: more body can be given. */
typedef void intake_ready(void *owner);

struct intake *intake_new(struct engine *e, const struct intake_source *src, void *owner);
/* No callback comes any more; staged pieces are dropped. A commit that is under way cannot be undone:
 * when it succeeds the message is delivered, though nobody was told (RFC 5321 §6.1 prefers a
 * duplicate to a loss). NULL is fine. */
void intake_abort(struct intake *in);
/* The engine goes away: commits that are under way on their own do not come back to it. */
void intakes_forget(struct engine *e);

/* Copies. decided: what the `rcpt` hook said, for the record. dsn: what its sender asks to be told; NULL:
 * nothing special. -ENOMEM. */
int intake_add_recipient(struct intake *in, const struct address *a,
                         const struct smtp_dsn_rcpt *dsn, struct str decided);
size_t intake_recipients(const struct intake *in);
/* A recipient was accepted for which nothing is to be done: it has its reply in its turn. -ENOMEM. */
int intake_pass_over(struct intake *in);
/* With `each`: the reply to the i-th of those that were added or passed over, where `common` is that of
 * `done`. */
struct smtp_reply intake_reply_to(const struct intake *in, size_t i,
                                  const struct smtp_reply *common);
/* What hooks see of the message before its content is there (mail, rcpt). */
const struct message_view *intake_view(struct intake *in);

/* 0: go on; 1: taken, but wait for `ready` (not NULL) before giving more; -ENOMEM (also past
 * limits.memory), -ENOSPC, -EIO: it takes no more; the caller drains the rest and calls intake_fail or
 * intake_abort. No recipients can be added behind the first call. */
int intake_body(struct intake *in, struct str bytes, intake_ready *ready);
/* The content is complete: counts hops, runs hooks, commits, and tells queues. */
void intake_finish(struct intake *in, intake_done *done);
/* The content could not be taken (what intake_body gave): done tells its reply on a later turn. */
void intake_fail(struct intake *in, int error, intake_done *done);
/* Changes that are committed in the same unit (a bounced recipient goes as its DSN comes). Of
 * recipients only; copied, since the commit may outlive the caller. They are not made when the message is dropped without a
 * commit (all recipients discarded). */
void intake_also(struct intake *in, const struct spool_change *changes, size_t n);
/* The message's id (for logs); fixed from the start. */
const struct msgid *intake_id(const struct intake *in);

/* 452 4.3.1 or 451 4.3.0 for what intake_body or a commit gave. */
struct smtp_reply intake_error_reply(int error);

#endif
