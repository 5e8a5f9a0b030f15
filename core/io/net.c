/* net.c - the streams of one worker: dialling out, taking over accepted sockets, the whole's life.
 *
 * Layer: io. Interface: net.h.
 */
#include "io/net.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "io/sockaddr.h"
#include "io/stream.h"
#include "io/tls_sessions.h"

static int bind_source(int fd, const struct net_addr *source)
{
    struct sockaddr_storage to;
    struct net_addr from = *source;
    int on = 1;

    from.port = 0;
    int len = sockaddr_from_net(&from, &to);
    if (len < 0)
        return len;
    /* The port is chosen when the peer is known: more of them fit. */
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    /* Whatever the reason: we cannot be that address. */
    return bind(fd, (struct sockaddr *)&to, (socklen_t)len) < 0 ? -EADDRNOTAVAIL : 0;
}

bool io_net_is_here(const struct net_addr *addr)
{
    int family = addr->family == NET_IPV6 ? AF_INET6 : AF_INET;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return false;
    bool here = bind_source(fd, addr) == 0;
    close(fd);
    return here;
}

/* 0: connected; -EINPROGRESS; another -errno. */
static int start_connecting(int fd, const struct net_addr *to, const struct net_addr *source)
{
    struct sockaddr_storage addr;
    int r = 0, on = 1, len = sockaddr_from_net(to, &addr);

    if (len < 0)
        return len;
    if (to->family != NET_UNIX) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (source && source->family != NET_NONE)
            r = bind_source(fd, source);
    }
    if (r == 0 && connect(fd, (struct sockaddr *)&addr, (socklen_t)len) < 0)
        r = errno == EINTR ? -EINPROGRESS
            : errno == EADDRNOTAVAIL
                ? -EADDRINUSE /* of the source: each port to that peer is in use */
                : -errno;
    return r;
}

static struct stream *dial(struct port_net *self, const struct net_addr *to,
                           const struct net_addr *source, const struct stream_events *ev,
                           void *owner)
{
    struct io_net *n = CONTAINER_OF(self, struct io_net, port);
    int family = to->family == NET_IPV6 ? AF_INET6 : to->family == NET_UNIX ? AF_UNIX : AF_INET;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error = 0;

    if (fd < 0 && (errno == EAFNOSUPPORT || errno == EPROTONOSUPPORT)) {
        /* A host without IPv6: that is told, like all that is not about our own resources. */
        error = -errno;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    }
    if (fd < 0)
        return NULL;
    struct io_stream *s = io_stream_new(n, fd, STREAM_CONNECTING);
    if (!s)
        return NULL;
    s->base.ev = ev;
    s->base.owner = owner;
    s->base.peer = *to;
    if (!error)
        error = start_connecting(fd, to, source);
    if (error == -EINPROGRESS) {
        ev_io_set(&s->watcher, fd, EV_WRITE);
        ev_io_start(n->ev, &s->watcher);
    } else {
        s->error = error;
        io_stream_wake(s);
    }
    return &s->base;
}

static bool can_serve_tls(struct port_net *self)
{
    return tls_context_serves(CONTAINER_OF(self, struct io_net, port)->tls);
}

int io_net_adopt(struct io_net *n, int fd, const struct net_addr *local,
                 const struct net_addr *peer, struct stream **ret)
{
    struct io_stream *s = io_stream_new(n, fd, STREAM_OPEN);
    if (!s)
        return -ENOMEM;
    s->base.local = *local;
    s->base.peer = *peer;
    ev_io_set(&s->watcher, fd, EV_READ);
    ev_io_start(n->ev, &s->watcher);
    *ret = &s->base;
    return 0;
}

int io_net_new(struct io_loop *l, struct tls_context *tls, struct io_net **ret)
{
    struct io_net *n = malloc(sizeof(*n));
    if (!n)
        return -ENOMEM;
    *n = (struct io_net){
        .port = { .dial = dial, .can_serve_tls = can_serve_tls },
        .loop = l,
        .ev = io_loop_ev(l),
        .tls = tls_context_ref(tls),
        .sessions = tls_sessions_new(),
        .bio_method = tls_bio_method_new(),
        .read_buf = malloc(NET_READ_MAX),
        .plain_buf = malloc(TLS_PLAIN_MAX),
    };
    list_init(&n->streams);
    list_init(&n->dirty);
    list_init(&n->dead);
    later_init(&n->flush, io_net_flush);
    if (!n->sessions || !n->bio_method || !n->read_buf || !n->plain_buf) {
        io_net_free(n);
        return -ENOMEM;
    }
    *ret = n;
    return 0;
}

struct io_net *io_net_free(struct io_net *n)
{
    if (!n)
        return NULL;
    LIST_FOREACH(node, &n->streams)
    io_stream_kill(LIST_ENTRY(node, struct io_stream, link));
    list_remove(&n->flush.link);
    io_net_flush(&n->flush); /* frees them */
    tls_context_unref(n->tls);
    tls_sessions_free(n->sessions);
    tls_bio_method_free(n->bio_method);
    free(n->read_buf);
    free(n->plain_buf);
    free(n);
    return NULL;
}

struct port_net *io_net_port(struct io_net *n)
{
    return &n->port;
}

void io_net_set_tls(struct io_net *n, struct tls_context *tls)
{
    if (tls != n->tls)
        tls_sessions_clear(n->sessions);
    tls_context_ref(tls);
    tls_context_unref(n->tls);
    n->tls = tls;
}

size_t io_net_streams(const struct io_net *n)
{
    return n->n_streams;
}
