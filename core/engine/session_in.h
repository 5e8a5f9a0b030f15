/* session_in.h - a client's SMTP session: drives proto/smtp_server over a stream, asks the hooks, feeds
 * intakes.
 *
 * Layer: engine. Owns its stream from session_in_new on, its smtp_server and its intake; references the
 * snapshot that it began with. Deadlines: command and data timeouts (RFC 5321 §4.5.3.2.7), and the session's own.
 * Decides by itself only what no policy had an opinion on: relay is denied unless the client may relay
 * or the domain stands in `domains` (550 5.7.1); everything else is accepted.
 */
#ifndef TERN_ENGINE_SESSION_IN_H
#define TERN_ENGINE_SESSION_IN_H

#include "engine/context.h"

struct sessions_in *sessions_in_new(struct engine *e);
struct sessions_in *sessions_in_free(struct sessions_in *all); /* aborts what is open */
void sessions_in_accept(struct sessions_in *all, struct stream *s,
                        const struct listen_settings *listener);
/* 421 to sessions between transactions, now and as others get there. */
void sessions_in_stop(struct sessions_in *all);
size_t sessions_in_count(const struct sessions_in *all);

#endif
