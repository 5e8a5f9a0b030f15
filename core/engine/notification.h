/* notification.h - of which recipients of an outcome the sender is told, and the message that tells it
 * (RFC 3461 §5.2, 6.1; never for a null sender, RFC 5321 §4.5.5).
 *
 * Layer: engine. Used by outcome, which sends what is written here as its own mail.
 */
#ifndef TERN_ENGINE_NOTIFICATION_H
#define TERN_ENGINE_NOTIFICATION_H

#include "engine/outcome.h"

/* When (wall) the sender of m is to be told that it is delayed for r; INT64_MAX: never, or told already. */
int64_t notification_warn_at(const struct settings *set, const struct message *m,
                             const struct recipient *r);
/* Somebody is to be told of something. */
bool notification_due(const struct outcome *o);
/* The whole message; id: its own. -EINVAL, -EMSGSIZE: it cannot be written; -ENOMEM. */
int notification_write(struct engine *e, const struct settings *set, struct outcome *o,
                       const struct msgid *id, struct buf *out);

#endif
