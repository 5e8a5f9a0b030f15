/* sockets.h - the listening sockets of all workers, opened before anything changes.
 *
 * Layer: daemon. One descriptor for each address and worker (SO_REUSEPORT), in one array:
 * fd[worker * n_listen + i]; -1 where the workers listen on that address already.
 */
#ifndef TERN_DAEMON_SOCKETS_H
#define TERN_DAEMON_SOCKETS_H

#include "daemon/failure.h"
#include "daemon/inherited.h"
#include "daemon/worker.h"

struct sockets {
    int *fd;
    size_t n_listen;
    int n_workers;
};

/* in: sockets of the service manager, which are taken (as duplicates) where a listener has one. present: a worker
 * that listens already, or NULL. 0, or -1 with *f. */
int sockets_open(const struct settings *settings, int n_workers, const struct inherited *in,
                 const struct worker *present, struct sockets *ret, struct failure *f) MUST_USE;
/* Of one worker; the caller takes the descriptors over. */
int *sockets_of(struct sockets *s, int worker);
/* Addresses of this machine: an MX that points to one of them is this router. The loopback ones are not
 * told: the resolver's answers about them are judged for themselves. */
void sockets_learn_self(struct engine_shared *shared);
/* Closes what has not been taken over: those that are not -1. */
void sockets_done(struct sockets *s);

#endif
