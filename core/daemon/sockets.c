/* sockets.c - the listening sockets of all workers. Layer: daemon. Interface: sockets.h. */
#include "daemon/sockets.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sysexits.h>
#include <unistd.h>

#include "io/sockaddr.h"

static const char *how_to_mend(int error, const struct net_addr *addr, bool reload)
{
    switch (-error) {
    case EADDRINUSE:
        return addr->family == NET_UNIX
                   ? "; another process listens there: stop it, or change 'listen'"
                   : "; another process has that port ('ss -ltnp' says which): stop it, or change "
                     "'listen'";
    case EACCES:
    case EPERM:
        return addr->family == NET_UNIX ? "; this user may not make that file"
               : reload
                   ? "; ports below 1024 are taken when the router starts, before it gives up its "
                     "privileges: restart it"
                   : "; ports below 1024 need root or CAP_NET_BIND_SERVICE";
    case EADDRNOTAVAIL: return "; no interface of this machine has that address: correct 'listen'";
    case EAFNOSUPPORT:
        return "; this machine has no addresses of that kind: take it out of 'listen'";
    default: return "";
    }
}

/* SO_REUSEPORT lets every process of this user share a port that each of them meant to have alone: a
 * socket without it finds them. */
static int probe(const struct net_addr *addr)
{
    struct sockaddr_storage to;
    int on = 1, len = sockaddr_from_net(addr, &to), r = 0;
    int fd = len < 0 ? -1 : socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return 0; /* io_listen_open will say why */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (addr->family == NET_IPV6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    if (bind(fd, (const struct sockaddr *)&to, (socklen_t)len) < 0 && errno == EADDRINUSE)
        r = -EADDRINUSE;
    close(fd);
    return r;
}

/* Our own listeners have that port: a change from one address to all of them, say. */
static bool is_ours(const struct worker *present, const struct net_addr *addr)
{
    for (size_t i = 0; present && i < present->n_listeners; i++)
        if (io_listener_addr(present->listeners[i].io)->port == addr->port)
            return true;
    return false;
}

static int check_free(const struct net_addr *addr, const struct worker *present, struct failure *f)
{
    char where[NET_ADDR_TEXT];

    if (addr->family == NET_UNIX || addr->port == 0 || is_ours(present, addr) || probe(addr) == 0)
        return 0;
    return failure_set(f, EX_UNAVAILABLE, "cannot listen on %s: address already in use%s",
                       net_addr_text(addr, where), how_to_mend(-EADDRINUSE, addr, present));
}

/* The descriptor, or -1 with *f. */
static int open_one(const struct net_addr *addr, bool reload, struct failure *f)
{
    char error[LISTEN_ERROR_TEXT];
    int fd = io_listen_open(addr, error);

    if (fd < 0)
        return failure_set(f, exit_code_of(fd), "%s%s", error, how_to_mend(fd, addr, reload));
    return fd;
}

static int duplicate(int fd, struct failure *f)
{
    int r = fcntl(fd, F_DUPFD_CLOEXEC, 3);

    return r < 0 ? failure_set(f, EX_OSERR, "cannot share a socket: %s", strerror(errno)) : r;
}

/* One that the service manager has opened: all workers share it. */
static int share(struct sockets *s, size_t i, int fd, struct failure *f)
{
    for (int w = 0; w < s->n_workers; w++)
        if ((s->fd[(size_t)w * s->n_listen + i] = duplicate(fd, f)) < 0)
            return -1;
    return 0;
}

/* One address for all workers. Workers share the socket of a Unix path, and have one each for TCP; port 0
 * is chosen by the system for the first. */
static int open_address(struct sockets *s, size_t i, const struct net_addr *configured, bool reload,
                        struct failure *f)
{
    struct net_addr addr = *configured;

    int first = open_one(&addr, reload, f);
    if (first < 0)
        return -1;
    s->fd[i] = first;
    if (addr.family != NET_UNIX && addr.port == 0)
        sockaddr_local(first, &addr);
    for (int w = 1; w < s->n_workers; w++) {
        int *fd = &s->fd[(size_t)w * s->n_listen + i];
        *fd = addr.family == NET_UNIX ? duplicate(first, f) : open_one(&addr, reload, f);
        if (*fd < 0)
            return -1;
    }
    return 0;
}

/* assigned: an index into in->v for each listener, or -1. */
static int open_all(struct sockets *s, const struct settings *settings, const struct inherited *in,
                    const int *assigned, const struct worker *present, struct failure *f)
{
    for (size_t i = 0; i < s->n_listen; i++) {
        const struct net_addr *addr = &settings->listen[i].addr;
        int r = 0;
        if (present && worker_listener_for(present, addr))
            continue;
        if (assigned[i] >= 0)
            r = share(s, i, in->v[assigned[i]].fd, f);
        else if (check_free(addr, present, f) < 0 || open_address(s, i, addr, present, f) < 0)
            r = -1;
        if (r < 0)
            return -1;
    }
    return 0;
}

int sockets_open(const struct settings *settings, int n_workers, const struct inherited *in,
                 const struct worker *present, struct sockets *ret, struct failure *f)
{
    struct sockets s = { .n_listen = settings->n_listen, .n_workers = n_workers };
    size_t n = s.n_listen * (size_t)n_workers;
    AUTO_FREE int *assigned = calloc(s.n_listen + 1, sizeof(*assigned));

    s.fd = calloc(n + 1, sizeof(*s.fd));
    if (!s.fd || !assigned) {
        free(s.fd);
        return failure_set(f, EX_SOFTWARE, "out of memory");
    }
    for (size_t i = 0; i < n; i++)
        s.fd[i] = -1;
    if (inherited_assign(in, settings, assigned, f) < 0 ||
        open_all(&s, settings, in, assigned, present, f) < 0) {
        sockets_done(&s);
        return -1;
    }
    *ret = s;
    return 0;
}

int *sockets_of(struct sockets *s, int worker)
{
    return s->fd + (size_t)worker * s->n_listen;
}

void sockets_done(struct sockets *s)
{
    for (size_t i = 0; s->fd && i < s->n_listen * (size_t)s->n_workers; i++)
        if (s->fd[i] >= 0)
            close(s->fd[i]);
    free(s->fd);
    s->fd = NULL;
}

void sockets_learn_self(struct engine_shared *shared)
{
    struct net_addr found[256];
    int n = io_local_addresses(found, ARRAY_LEN(found));

    for (int i = 0; i < MIN(n, (int)ARRAY_LEN(found)); i++)
        if (!net_addr_is_loopback(&found[i]) && shared->n_self < ARRAY_LEN(shared->self))
            shared->self[shared->n_self++] = found[i];
}
