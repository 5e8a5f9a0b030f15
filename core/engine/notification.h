/* notification.h - of which recipients of an outcome the sender is told, and the message that tells it
 * (RFC 3461 §5.2, 6.1; never for a null sender, RFC 5321 §4.5.5).
 *
 * Layer: engine. Used by outcome, which sends what is written here as its own mail.
 */
#ifndef TERN_ENGINE_NOTIFICATION_H
#define TERN_ENGINE_NOTIFICATION_H

#include "engine/outcome.h"

/* Somebody is to be told of something. */
bool notification_due(const struct outcome *o);
/* The whole message; id: its own. -EINVAL, -EMSGSIZE: it cannot be written; -ENOMEM. */
int notification_write(struct engine *e, const struct settings *set, struct outcome *o,
                       const struct msgid *id, struct buf *out);

#endif
