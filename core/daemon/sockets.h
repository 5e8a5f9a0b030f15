/* sockets.h - the listening sockets of all workers, opened before anything changes.
 *
 * Layer: daemon. One descriptor for each address and worker (SO_REUSEPORT), in one array:
 * fd[worker * n_listen + i]; -1 where the workers listen on that address already. The files of Unix sockets that the
 * router has made are kept in mind, and removed when it does not listen on them any more: before that ends, so that no
 * other process can have put its own in their place.
 */
#ifndef TERN_DAEMON_SOCKETS_H
#define TERN_DAEMON_SOCKETS_H

#include "daemon/failure.h"
#include "daemon/inherited.h"
#include "daemon/privileges.h"
#include "daemon/worker.h"

enum { SOCKET_FILES_MAX = 64 };

struct socket_files {
    size_t n;
    struct {
        struct net_addr addr;
        struct io_socket_file file;
    } v[SOCKET_FILES_MAX];
};

struct sockets {
    int *fd;
    size_t n_listen;
    int n_workers;
};

/* Where sockets come from, and whose their files are. */
struct sockets_from {
    const struct inherited
        *in; /* of the service manager: taken (as duplicates) where a listener has one */
    const struct identity *id;    /* who the router is, or is about to be */
    const struct worker *present; /* one that listens already, or NULL */
    struct socket_files
        *files; /* gets those that are made; those that stay get the new permissions */
};

/* 0, or -1 with *f. */
int sockets_open(const struct settings *settings, int n_workers, const struct sockets_from *from,
                 struct sockets *ret, struct failure *f) MUST_USE;
/* Removes the files of which those settings (NULL: none) say nothing. Before the workers close their sockets. */
void socket_files_keep(struct socket_files *files, const struct settings *settings);
/* A reload failed: they are as those settings have it, again. */
void socket_files_restore(struct socket_files *files, const struct settings *settings,
                          const struct identity *id);
/* Of one worker; the caller takes the descriptors over. */
int *sockets_of(struct sockets *s, int worker);
/* Addresses of this machine: an MX that points to one of them is this router. The loopback ones are not
 * told: the resolver's answers about them are judged for themselves. */
void sockets_learn_self(struct engine_shared *shared);
/* Closes what has not been taken over: those that are not -1. */
void sockets_done(struct sockets *s);

#endif
