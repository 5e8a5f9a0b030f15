/* sources.h - the local addresses that connections are made from: what each may do in all, over all workers.
 *
 * Layer: engine. One table for the process, in memory. Addresses that a route names, or that the configuration
 * describes (`sources`), get a place when they are first met, and keep it; looking one up and taking a connection
 * need no lock. What is allowed stands in the settings of whoever asks, so a reload changes it at once and
 * drops nothing.
 *
 * A connection counts from the moment at which it is asked for until it is closed, idle or not.
 */
#ifndef TERN_ENGINE_SOURCES_H
#define TERN_ENGINE_SOURCES_H

#include "engine/context.h"
#include "engine/session_out.h"
#include "engine/throttle.h"
#include "mail/route.h"

enum { SOURCES_MAX = 512, SOURCES_PLACES = 2 * SOURCES_MAX };

struct source {
    struct net_addr addr; /* port 0; constant */
    struct throttle throttle;
    atomic_uint open;                    /* connections that stand or are being made */
    atomic_ullong connections, messages; /* so far */
    atomic_llong missing_until; /* monotonic: until then it counts as not on this machine */
    atomic_bool used;           /* this place is taken, and complete */
};

struct sources *sources_new(void); /* NULL: out of memory */
struct sources *sources_free(struct sources *s);
/* Its place; NULL: SOURCES_MAX others have one (then nothing is limited or counted). From any thread. */
struct source *sources_get(struct sources *s, const struct net_addr *addr);
/* Who has the place i of SOURCES_PLACES; NULL: nobody. From any thread. */
struct source *sources_at(struct sources *s, size_t i);

/* The place of s: below SOURCES_PLACES. */
size_t sources_place(const struct sources *s, const struct source *source);

/* One connection more, if so many may stand (0: any number). */
bool source_enter(struct source *s, uint32_t concurrency);
void source_leave(struct source *s);

/* What the settings allow that address; NULL: nothing is said of it. */
const struct source_settings *sources_allowed(const struct settings *set,
                                              const struct net_addr *addr);

/* ---- choosing, in one worker ------------------------------------------------------------------ */

/* A source for one attempt at one host. */
struct source_choice {
    struct net_addr addr;          /* NET_NONE: whatever the system takes */
    struct source *source;         /* NULL: nothing is limited or counted */
    struct throttle_ticket ticket; /* what was paid to its rate */
    bool entered;                  /* its connection is counted, and nobody's yet */
};

enum source_answer {
    SOURCE_CHOSEN,
    SOURCE_NONE_FITS, /* none of the host's family */
    SOURCE_ALL_BUSY,
    SOURCE_MISSING, /* those that fit are not on this machine: choice.addr is one of them */
};

/* Of the route's addresses that fit the host's family and may do more: one from which a connection with that key
 * is idle, else the one with the fewest connections, those with as many in turn. Fills in key->source and
 * key->place; what was taken is paid by source_spend, or given back by source_drop. A route without sources: the
 * system chooses. *ret_wait_ms: unless CHOSEN, when to ask again at the latest. */
enum source_answer source_choose(struct engine *e, struct snapshot *snapshot,
                                 const struct route *route, struct session_out_key *key,
                                 struct source_choice *ret, int64_t *ret_wait_ms);
/* A transaction begins from it. */
void source_spend(struct engine *e, const struct settings *set, struct source_choice *c);
/* What it still holds is given back. */
void source_drop(struct engine *e, struct source_choice *c);
/* It could not be used, because it is not on this machine. True: that is news. */
bool source_is_missing(struct engine *e, const struct source_choice *c);

/* Could one of the route's sources do one message more than are expected of it (by their places), as far as can
 * be seen? 0, and *ret_place is that of the one that can do most (SOURCES_PLACES: nothing is limited); else
 * milliseconds until it is worth asking again. */
int64_t sources_wait(struct engine *e, const struct route *route, const uint32_t *expected,
                     size_t *ret_place);

#endif
