/* local_sources.h - the local addresses of `sources`, for people: are they there, what do they do.
 *
 * Layer: daemon, main thread. Counters are read while workers count.
 */
#ifndef TERN_DAEMON_LOCAL_SOURCES_H
#define TERN_DAEMON_LOCAL_SOURCES_H

#include <jansson.h>

#include "daemon/router.h"

/* Those of the configuration that are not on this machine, as sentences: into the list, or (NULL) to stderr. Not an
 * error: an address may come later. */
void local_sources_check(const struct settings *set, json_t *warnings);
/* The settings are in force: they have places from now on, and the log is told which are missing. */
void local_sources_note(struct router *r);
/* For `tern status`: those of the configuration, and others that routes have named. */
json_t *local_sources_json(struct router *r);
void local_sources_metrics(struct router *r, struct buf *out);

#endif
