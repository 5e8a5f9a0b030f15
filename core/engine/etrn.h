/* etrn.h - requests to let go of waiting mail: ETRN (RFC 1985), ATRN (RFC 2645), the operator's, the
 * schedule's (ROUTING.md E1-E14).
 *
 * Layer: engine. Asks the `etrn` hook what may be let go, finds the queues (etrn.c), then tells their
 * owners and words the reply from what they say (etrn_release.c). The answer does not wait for any
 * delivery (E4). Used by session_in, by the operator's commands and by held.c.
 *
 * One request may let several queues go: those that the policy names, and, when it grants that, the queues
 * of all subdomains (`@domain`), of a group (`#name`), or all that an identity owns (ATRN without an
 * argument). Of those each is put before its own domain's policy, and goes only if that agrees.
 */
#ifndef TERN_ENGINE_ETRN_H
#define TERN_ENGINE_ETRN_H

#include "engine/context.h"

struct etrn; /* one request under way */
struct turn; /* turn.h */

struct etrn_request {
    char option;     /* '@', '#' or 0 */
    struct str node; /* the argument without the option; ATRN: domains with commas, or empty */
    bool atrn;
    enum etrn_origin origin;
};

/* ETRN: 250..253 when something was started or nothing waits; 458, 459, 501, 530 or the policy's refusal.
 * ATRN: 250 with `turn`, the queues that will go over this connection, now the owner's (turn_begin or
 * turn_free); else 450, 451, 453 or the policy's. Nothing is reserved: of two clients that ask in the same
 * moment one finds a queue taken when its turn has begun, and passes it over. The reply and its text live
 * during the call. */
typedef void etrn_done(void *owner, const struct smtp_reply *reply, struct turn *turn);

/* session: NULL but for a client's; else it lives until done, like the snapshot, of which a reference is
 * taken. Done is called once, on a later turn. NULL: out of memory. */
struct etrn *etrn_start(struct engine *e, struct snapshot *snapshot,
                        const struct session_view *session, const struct etrn_request *request,
                        etrn_done *done, void *owner);
/* Done is not called any more. What has been released stays so. NULL is fine. */
void etrn_cancel(struct etrn *r);

struct etrns *etrns_new(struct engine *e);
struct etrns *etrns_free(struct etrns *all);

/* E10: one more request of that client; false: it has made limits.etrn_per_client in this hour. The memory for
 * it is bounded: clients that nobody has heard of for longest are forgotten. IPv6: by /64. */
bool etrn_client_may(struct engine *e, const struct net_addr *client);

#endif
