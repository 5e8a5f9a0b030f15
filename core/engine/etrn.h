/* etrn.h - the answer to ETRN (RFC 1985, ROUTING.md E1-E14).
 *
 * Layer: engine. Asks the `etrn` hook, counts what waits, tells the queue's owner to release it. The
 * answer does not wait for any delivery (E4). Used by session_in, and by the operator's commands.
 */
#ifndef TERN_ENGINE_ETRN_H
#define TERN_ENGINE_ETRN_H

#include "engine/context.h"

struct etrn; /* one request that waits for its hook */

/* 250..253 when something was started or nothing waits; 458, 459, 501 or the policy's refusal. The
 * reply and its text live during the call. */
typedef void etrn_done(void *owner, const struct smtp_reply *reply);

/* option: '@', '#' or 0. node: the argument without it, its syntax checked. session: NULL for an
 * operator's request; else it, like the snapshot (of which a reference is taken), lives until done.
 * Done is called once, on a later turn. NULL: out of memory. */
struct etrn *etrn_start(struct engine *e, struct snapshot *snapshot,
                        const struct session_view *session, char option, struct str node,
                        etrn_done *done, void *owner);
/* Done is not called any more. What has been released stays so. NULL is fine. */
void etrn_cancel(struct etrn *r);

#endif
