/* maps.h - watches the files of maps (lua/maps.h) and brings their new versions to the workers.
 *
 * Layer: daemon, main thread. Once a second each file is looked at (stat); one that has changed, and then
 * rested for a second, is read and checked in a thread of its own. A good version is handed to each worker
 * by a message, which costs it the swap of a pointer; the old one comes back and is freed here. A bad
 * version changes nothing, and one event tells of it.
 */
#ifndef TERN_DAEMON_MAPS_H
#define TERN_DAEMON_MAPS_H

#include "lua/policy.h"

struct router;
struct maps;

/* Begins to watch what router->source has, whichever that is. NULL: out of memory. */
struct maps *maps_new(struct router *r);
/* When no worker runs any more. NULL is fine; returns NULL. */
struct maps *maps_free(struct maps *m);
/* Takes over a reference to the source of a former configuration, and lets it go here when nobody else has
 * it: its maps may be large, and no worker shall wait for their end. */
void maps_retire(struct maps *m, struct policy_source *s);

#endif
