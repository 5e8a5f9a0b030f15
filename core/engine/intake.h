/* intake.h - one message on its way into the spool: envelope, content, `data` and `route` hooks, commit.
 *
 * Layer: engine. Made by session_in for a client's transaction and by outcome for a DSN. Owns its arena,
 * body and the message it makes. Ends in exactly one way: `done` is called (the message is on disk, or
 * was refused), or intake_abort.
 *
 * Memory: a body up to INTAKE_STAGE_ABOVE waits in memory for the commit; what is beyond is staged into
 * the spool piece by piece. The total over a worker's intakes is bounded by limits.memory.
 */
#ifndef TERN_ENGINE_INTAKE_H
#define TERN_ENGINE_INTAKE_H

#include "engine/context.h"

enum { INTAKE_STAGE_ABOVE = 1024 * 1024 };

struct intake;

struct intake_source {
    const struct session_view *session; /* NULL: our own (DSN). Must live as long as the intake */
    struct snapshot *snapshot; /* borrowed while it is made; the intake takes a reference */
    struct address sender;     /* copied */
    uint64_t declared_size;
    bool eight_bit, smtputf8;
    uint32_t flags; /* MESSAGE_DSN */
};

/* The reply for the client: 250 with the id, or the refusal. Lives during the call; the intake is freed
 * after it. */
typedef void intake_done(void *owner, const struct smtp_reply *reply);
/* Staged pieces are on disk: more body can be given. */
typedef void intake_ready(void *owner);

struct intake *intake_new(struct engine *e, const struct intake_source *src, void *owner);
void intake_abort(struct intake *in); /* its staged pieces are dropped; NULL is fine */

/* decided: what the `rcpt` hook said, for the record. -ENOMEM. */
int intake_add_recipient(struct intake *in, const struct address *a, struct str decided);
size_t intake_recipients(const struct intake *in);
/* What hooks see of the message before its content is there (mail, rcpt). */
const struct message_view *intake_view(struct intake *in);

/* 0: go on; 1: taken, but wait for `ready` before giving more; -ENOMEM (also past limits.memory),
 * -ENOSPC, -EIO: the message is to be answered 452/451 (the rest is drained by the caller). */
int intake_body(struct intake *in, struct str bytes, intake_ready *ready);
/* The content is complete: adds Received, counts hops, runs hooks, commits, and tells queues. */
void intake_finish(struct intake *in, intake_done *done);
/* Changes that are committed in the same unit (a bounced recipient goes as its DSN comes). They and
 * what they point to must live until done. */
void intake_also(struct intake *in, const struct spool_change *changes, size_t n);
/* The message's id (for logs); fixed from the start. */
const struct msgid *intake_id(const struct intake *in);

#endif
