/* turn.h - ATRN (RFC 2645): a client's connection on which we become the client, and its waiting mail goes
 * out over it (E13).
 *
 * Layer: engine. The connection stays with the worker that accepted it (its home), as a struct turn. The mail
 * is delivered by the owners of its queues, one queue after another, by ordinary deliveries and with their
 * outcomes: a queue is released by a route to the address of the turn, and who dials that address gets a
 * stream whose bytes travel between the two workers as messages. Each side knows the other by number only, so
 * that either may go at any time.
 *
 * Over one connection there may be several dialogues, one after another, each with its own EHLO (RFC 5321
 * §4.1.4 allows that); the greeting of those after the first is ours to make up. QUIT is said once, at the end.
 */
#ifndef TERN_ENGINE_TURN_H
#define TERN_ENGINE_TURN_H

#include "engine/context.h"
#include "mail/route.h"

struct turn;

/* For that client. NULL: out of memory. */
struct turn *turn_new(struct engine *e, struct snapshot *snapshot, const struct net_addr *client);
/* A queue that is to go over it. -ENOMEM. */
int turn_add(struct turn *t, struct str queue);
/* Takes over the stream, on which the 250 to ATRN has been written, and itself: it frees itself when all is
 * done, or the client has gone. */
void turn_begin(struct turn *t, struct stream *s);
struct turn *turn_free(struct turn *t); /* one that has not begun; NULL is fine */

struct turns *turns_new(struct engine *e);
struct turns *turns_free(struct turns *all);
/* All queues that have begun may go on; no other begins (the engine stops). */
void turns_stop(struct turns *all);

/* ---- for session_out ---- */

bool turn_is_address(const struct net_addr *a);
/* The other end of the connection; opened or closed is told like that of port_net.dial. */
struct stream *turn_dial(struct engine *e, const struct net_addr *to,
                         const struct stream_events *ev, void *owner);
/* Between two transactions: the dialogue ends, and the connection is somebody else's. The stream is gone. */
void turn_leave(struct stream *s);
/* "192.0.2.7 by ATRN": for logs. dst: NET_ADDR_TEXT bytes. */
const char *turn_text(const struct net_addr *a, char *dst);

#endif
