/* router.h - the running daemon: what its main thread owns, from the start to the end.
 *
 * Layer: daemon. Used in the main thread only. Workers are threads of their own (worker.h); the main
 * thread has a loop too, for signals, the control API and what workers tell it.
 */
#ifndef TERN_DAEMON_ROUTER_H
#define TERN_DAEMON_ROUTER_H

#include "daemon/failure.h"
#include "daemon/inherited.h"
#include "daemon/journal.h"
#include "daemon/load.h"
#include "daemon/privileges.h"
#include "daemon/sockets.h"
#include "daemon/worker.h"

struct control;
struct heartbeat;
struct maps;
struct operations;
struct reloads;
struct sandbox;

struct router_options {
    const char *config;
    const char *user; /* to run as, instead of the configuration's; or NULL */
    enum event_level level;
};

struct router {
    const char *config;
    enum event_level level;
    struct settings *settings;    /* in force */
    struct tls_context *tls;      /* the same */
    struct policy_source *source; /* the text of its policies, and their maps */
    uint64_t generation;          /* of the snapshot in force: 1, 2, ... */
    struct engine_shared shared;
    struct log_sink *log;
    struct io_loop *loop;
    struct journal journal;
    struct ports ports; /* of the main thread: clock, random, workers (itself), spool, journal */
    struct spool *spool;
    struct passwords *passwords;
    struct worker *workers[WORKERS_MAX];
    struct io_loop *loops[WORKERS_MAX];
    int n_workers;
    struct control *control;
    struct operations *operations; /* control.c makes and frees them */
    struct reloads *reloads;
    struct maps *maps;
    struct heartbeat *heartbeat;
    struct sandbox *sandbox;
    struct identity identity;
    struct inherited inherited; /* sockets of the service manager */
    struct socket_files socket_files;
    int64_t started_ms;   /* wall */
    int64_t started;      /* monotonic */
    int64_t upgrade_told; /* monotonic: of a spool of an older format; 0: not yet */
    struct buf listening; /* "127.0.0.1:2525, [::1]:2525": ports as they are */

    int signal_fd;
    struct io_watch *signal_watch;
    bool stopping;
    int n_idle; /* workers that have come to rest */
    struct timer stop_deadline;
};

/* Loads, opens everything, starts the workers. When it returns 0 the router listens. -1 with *f. */
int router_new(const struct router_options *o, struct router **ret, struct failure *f) MUST_USE;
/* Until a signal ends it; all that was begun has ended, or its time was over. */
void router_run(struct router *r);
struct router *router_free(struct router *r); /* NULL is fine; returns NULL */

static inline int64_t router_wall(const struct router *r)
{
    return r->ports.clock->wall(r->ports.clock);
}
static inline void router_post(struct router *r, int worker, struct worker_message *m)
{
    r->workers[0]->ports.workers->post(r->workers[0]->ports.workers, worker, m);
}
/* From a worker's thread: runs m in the main thread. */
static inline void router_tell(struct router *r, struct worker_message *m)
{
    r->ports.workers->post(r->ports.workers, 0, m);
}
/* Notes where the workers listen, in r->listening. Not while one of them changes that. */
void router_note_listeners(struct router *r);
/* Tells the log which certificates have expired, or are about to. */
void router_tell_certificates(struct router *r);
/* One VM and snapshot for each worker. 0 and as many references in ret[], or -1 with *f. */
int router_make_snapshots(struct router *r, const struct loaded *l, uint64_t generation,
                          struct snapshot **ret, struct failure *f) MUST_USE;

#endif
