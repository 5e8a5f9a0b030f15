/* inherited.h - listening sockets that the service manager hands over (LISTEN_FDS, sd_listen_fds(3)).
 *
 * Layer: daemon, main thread. A listener of the configuration that names its `socket` takes the one of that name,
 * another one that with its address; for what is left of the listeners the router makes sockets itself. What is left
 * of the sockets is an error: their clients would wait for ever. The sockets stay open until the end, so that no
 * client is turned away while the router restarts.
 */
#ifndef TERN_DAEMON_INHERITED_H
#define TERN_DAEMON_INHERITED_H

#include "daemon/failure.h"
#include "engine/settings.h"

enum { INHERITED_MAX = 64, INHERITED_NAME = 256 };

struct inherited {
    size_t n;
    struct inherited_socket {
        int fd;
        char name[INHERITED_NAME]; /* FileDescriptorName= */
        struct net_addr addr;      /* where it is bound */
    } v[INHERITED_MAX];
};

/* What there is, taken out of the environment. Once, at the start. -1 with *f: something is no listening stream
 * socket. */
int inherited_take(struct inherited *ret, struct failure *f) MUST_USE;
/* Which of them each listener takes: ret_index[i] of settings->listen[i], or -1. -1 with *f: one is left over, or a
 * name is not among them. */
int inherited_assign(const struct inherited *in, const struct settings *settings, int *ret_index,
                     struct failure *f) MUST_USE;

#endif
