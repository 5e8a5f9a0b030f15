/* reload.h - a new configuration takes the place of the running one, whole or not at all.
 *
 * Layer: daemon, main thread. Everything that can fail is made first, beside what runs: settings and
 * policies, certificates, a VM for each worker, new listening sockets, the log. Only then is each worker
 * told, and takes it all over in one step between two events. Sessions and attempts that have begun
 * end as they began. One reload at a time: those asked for meanwhile are served by one further.
 */
#ifndef TERN_DAEMON_RELOAD_H
#define TERN_DAEMON_RELOAD_H

#include "base/list.h"
#include "daemon/failure.h"

struct router;
struct reloads;

/* Who waits for a reload. Embedded in its owner. */
struct reload_waiter {
    struct list link;
    /* failure: NULL when the new configuration is in force. */
    void (*done)(struct reload_waiter *w, uint64_t generation, const struct failure *failure);
};

struct reload_status {
    int64_t at_ms; /* wall, of the last one that ended; 0: none yet */
    bool ok;
    struct failure failure;
};

/* -ENOMEM as NULL. */
struct reloads *reloads_new(struct router *r);
struct reloads *reloads_free(struct reloads *rs); /* waiters are told nothing */
/* Begins one, soon. why: "signal", "control". w may be NULL. */
void reload_ask(struct reloads *rs, const char *why, struct reload_waiter *w);
void reload_forget(struct reload_waiter *w);
const struct reload_status *reload_get_status(const struct reloads *rs);

#endif
