/* listener.c - listening sockets and what they accept.
 *
 * Layer: io. Interface: listener.h. Options that accepted sockets inherit from the listening one
 * (TCP_NODELAY) are set there, once.
 */
#include "io/listener.h"

#include <ev.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/sockaddr.h"
#include "io/stream.h"

enum { BACKLOG = 4096, ACCEPT_PER_TURN = 64, PAUSE_MS = 100, DRAIN_MAX = 4096 };

struct io_listener {
    struct io_net *net;
    const struct listen_settings *settings;
    io_accepted_cb *accepted;
    void *owner;
    struct net_addr addr;
    bool any; /* bound to all addresses: the local one is asked for each connection */
    ev_io watcher;
    struct timer pause;
    struct later drain;
};

/* ---- opening --------------------------------------------------------------------------------- */

/* The file of a Unix socket that nobody listens on: left behind by a process that died. A file that is no socket
 * refuses connections as well, and is somebody's. */
static bool is_stale(const struct net_addr *path, const struct sockaddr_storage *addr, int len)
{
    struct stat sb;
    bool stale = false;

    if (lstat(path->path, &sb) < 0 || !S_ISSOCK(sb.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    stale = connect(fd, (const struct sockaddr *)addr, (socklen_t)len) < 0 && errno == ECONNREFUSED;
    close(fd);
    return stale;
}

static int bind_unix(int fd, const struct net_addr *addr, const struct sockaddr_storage *to,
                     int len)
{
    if (bind(fd, (const struct sockaddr *)to, (socklen_t)len) == 0)
        return 0;
    if (errno != EADDRINUSE)
        return -errno;
    if (!is_stale(addr, to, len))
        return -EADDRINUSE;
    if (unlink(addr->path) < 0 || bind(fd, (const struct sockaddr *)to, (socklen_t)len) < 0)
        return -errno;
    return 0;
}

/* Held by a descriptor, so that what is looked at is what is changed. */
static int permit(int fd, struct io_socket_file *file)
{
    char self[32];
    struct stat sb;

    if (fstat(fd, &sb) < 0)
        return -errno;
    if (!S_ISSOCK(sb.st_mode) || sb.st_nlink != 1 || (sb.st_uid != geteuid() && geteuid() != 0))
        return -EPERM;
    if ((file->uid != (uid_t)-1 || file->gid != (gid_t)-1) &&
        fchownat(fd, "", file->uid, file->gid, AT_EMPTY_PATH) < 0)
        return -errno;
    /* There is no fchmod for such a descriptor. */
    snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    if (chmod(self, file->mode) < 0)
        return -errno;
    file->dev = sb.st_dev;
    file->ino = sb.st_ino;
    return 0;
}

int io_socket_file_apply(const char *path, struct io_socket_file *file)
{
    int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    int r = permit(fd, file);
    close(fd);
    return r;
}

void io_socket_file_remove(const char *path, const struct io_socket_file *file)
{
    struct stat sb;

    if (lstat(path, &sb) == 0 && sb.st_dev == file->dev && sb.st_ino == file->ino)
        unlink(path);
}

static int bind_and_listen(int fd, const struct net_addr *addr, struct io_socket_file *file,
                           const struct sockaddr_storage *to, int len)
{
    int on = 1, r = 0;

    if (addr->family == NET_UNIX) {
        r = bind_unix(fd, addr, to, len);
        if (r == 0 && file && (r = io_socket_file_apply(addr->path, file)) < 0)
            unlink(addr->path);
    } else {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (addr->family == NET_IPV6)
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
        if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0 ||
            bind(fd, (const struct sockaddr *)to, (socklen_t)len) < 0)
            r = -errno;
    }
    if (r == 0 && listen(fd, BACKLOG) < 0)
        r = -errno;
    return r;
}

int io_listen_open(const struct net_addr *addr, char *error)
{
    return io_listen_open_file(addr, NULL, error);
}

int io_listen_open_file(const struct net_addr *addr, struct io_socket_file *file, char *error)
{
    char where[NET_ADDR_TEXT], why[IO_ERROR_TEXT];
    struct sockaddr_storage to;
    int fd = -1, r = sockaddr_from_net(addr, &to);

    if (r >= 0) {
        fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        r = fd < 0 ? -errno : bind_and_listen(fd, addr, file, &to, r);
    }
    if (r == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    snprintf(error, LISTEN_ERROR_TEXT, "cannot listen on %s: %s", net_addr_text(addr, where),
             io_error_text(r, why));
    return r;
}

/* ---- accepting ------------------------------------------------------------------------------- */

static void hand_over(struct io_listener *l, int fd, const struct sockaddr_storage *from,
                      socklen_t len)
{
    struct net_addr local = l->addr, peer;
    struct stream *s;

    sockaddr_to_net(from, len, &peer);
    if (l->any)
        sockaddr_local(fd, &local);
    if (io_net_adopt(l->net, fd, &local, &peer, &s) < 0)
        return;
    const struct listen_settings *set = l->settings;
    /* Behind a load balancer TLS begins after its header: the session sees to it. */
    if (set->tls == LISTEN_TLS_IMPLICIT && !net_cidrs_contain(set->proxy, set->n_proxy, &peer)) {
        /* Without a certificate there is nothing to talk about. */
        const struct tls_request req = { .server = true,
                                         .clients = (enum tls_clients)set->clients,
                                         .client_ca = set->client_ca };
        if (stream_starttls(s, &req) < 0) {
            stream_abort(s);
            return;
        }
        s->tls = true;
    }
    l->accepted(l->owner, s, l->settings);
    if (!s->ev)
        stream_abort(s);
}

/* 0: go on; -EAGAIN: none waits; -EMFILE and such: no resources. */
static int accept_one(struct io_listener *l)
{
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    int fd = accept4(l->watcher.fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0) {
        hand_over(l, fd, &from, MIN(len, (socklen_t)sizeof(from)));
        return 0;
    }
    switch (errno) {
    case EAGAIN:
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case EINVAL:
    case EBADF:
    case ENOTSOCK: return -errno;
    default: /* what befell that one connection (accept(2)): the next */ return 0;
    }
}

static void on_acceptable(struct ev_loop *ev, ev_io *w, int revents)
{
    struct io_listener *l = CONTAINER_OF(w, struct io_listener, watcher);
    int r = 0;

    for (int i = 0; i < ACCEPT_PER_TURN && r == 0; i++)
        r = accept_one(l);
    if (r < 0 && r != -EAGAIN) {
        /* The waiting connection would wake us again at once, and again. */
        ev_io_stop(ev, &l->watcher);
        io_loop_timer_set(l->net->loop, &l->pause, io_loop_now(l->net->loop) + PAUSE_MS);
    }
}

static void on_pause_end(struct timer *t)
{
    struct io_listener *l = CONTAINER_OF(t, struct io_listener, pause);
    ev_io_start(l->net->ev, &l->watcher);
}

static void on_drain(struct later *later)
{
    struct io_listener *l = CONTAINER_OF(later, struct io_listener, drain);

    for (int i = 0; i < DRAIN_MAX && accept_one(l) == 0; i++)
        ;
    io_listener_free(l);
}

int io_listener_new(struct io_net *net, int fd, const struct listen_settings *settings,
                    io_accepted_cb *accepted, void *owner, struct io_listener **ret)
{
    struct io_listener *l = malloc(sizeof(*l));
    if (!l) {
        close(fd);
        return -ENOMEM;
    }
    *l = (struct io_listener){
        .net = net,
        .settings = settings,
        .accepted = accepted,
        .owner = owner,
    };
    sockaddr_local(fd, &l->addr);
    l->any = net_addr_is_any(&l->addr);
    timer_init(&l->pause, on_pause_end);
    later_init(&l->drain, on_drain);
    ev_io_init(&l->watcher, on_acceptable, fd, EV_READ);
    ev_io_start(net->ev, &l->watcher);
    *ret = l;
    return 0;
}

void io_listener_update(struct io_listener *l, const struct listen_settings *settings)
{
    l->settings = settings;
}

void io_listener_stop(struct io_listener *l)
{
    io_loop_timer_stop(l->net->loop, &l->pause);
    ev_io_stop(l->net->ev, &l->watcher);
    io_loop_later(l->net->loop, &l->drain);
}

struct io_listener *io_listener_free(struct io_listener *l)
{
    if (!l)
        return NULL;
    io_loop_timer_stop(l->net->loop, &l->pause);
    list_remove(&l->drain.link);
    ev_io_stop(l->net->ev, &l->watcher);
    close(l->watcher.fd);
    free(l);
    return NULL;
}

const struct net_addr *io_listener_addr(const struct io_listener *l)
{
    return &l->addr;
}
