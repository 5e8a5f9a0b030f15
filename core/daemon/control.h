/* control.h - the control API: HTTP and JSON on a Unix socket (docs/control-api.md).
 *
 * Layer: daemon, main thread. libmicrohttpd runs in the main thread's loop. Who may open the socket may
 * do everything: its mode is 0660. The map of the files:
 *   control.c           connections: MHD, bodies, replies, requests that wait
 *   control_request.c   what is asked, taken apart and decoded (no I/O)
 *   control_routes.c    which function serves what
 *   control_status.c    status and metrics
 *   control_queues.c    queues, and what operators do to them
 *   control_messages.c  messages
 *   control_import.c    messages that are handed in
 *   control_filtered.c  lists of what a filter means
 *   control_operations.c, operations.c  verbs on what a filter means
 */
#ifndef TERN_DAEMON_CONTROL_H
#define TERN_DAEMON_CONTROL_H

#include "daemon/failure.h"

struct router;
struct control;

/* Listens. -1 with *f. */
int control_new(struct router *r, struct control **ret, struct failure *f) MUST_USE;
/* Removes the socket. Requests that wait are dropped. After the workers have ended: they may hold parts of
 * a request. NULL is fine; returns NULL. */
struct control *control_free(struct control *c);

#endif
