/* inherited.c - sockets of the service manager. Layer: daemon. Interface: inherited.h. */
#include "daemon/inherited.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "io/sockaddr.h"

enum { FIRST_FD = 3 };

/* A number of the environment; -1: it is not there, or none. */
static long number_of(const char *name)
{
    const char *text = getenv(name);
    char *end;

    if (!text || !*text)
        return -1;
    errno = 0;
    long n = strtol(text, &end, 10);
    return errno || *end || n < 0 ? -1 : n;
}

static int option_of(int fd, int level, int option)
{
    int value = -1;
    socklen_t len = sizeof(value);

    return getsockopt(fd, level, option, &value, &len) < 0 ? -1 : value;
}

static int take_one(struct inherited_socket *s, struct failure *f)
{
    char where[NET_ADDR_TEXT];
    int on = 1;

    if (option_of(s->fd, SOL_SOCKET, SO_TYPE) != SOCK_STREAM ||
        option_of(s->fd, SOL_SOCKET, SO_ACCEPTCONN) != 1)
        return failure_set(f, EX_CONFIG,
                           "the service manager hands over '%s', which is no listening stream "
                           "socket: use ListenStream= and Accept=no in its unit",
                           s->name);
    sockaddr_local(s->fd, &s->addr);
    if (s->addr.family == NET_IPV6 && net_addr_is_any(&s->addr) &&
        option_of(s->fd, IPPROTO_IPV6, IPV6_V6ONLY) == 0)
        return failure_set(
            f, EX_CONFIG,
            "the socket '%s' on %s, which the service manager hands over, takes IPv4, "
            "too: set BindIPv6Only=ipv6-only in its unit, and one ListenStream= for "
            "each of 0.0.0.0 and [::]",
            s->name, net_addr_text(&s->addr, where));
    if (fcntl(s->fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(s->fd, F_SETFL, O_NONBLOCK) < 0)
        return failure_set(f, EX_OSERR, "cannot take over the socket '%s': %s", s->name,
                           strerror(errno));
    if (s->addr.family != NET_UNIX)
        setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return 0;
}

int inherited_take(struct inherited *ret, struct failure *f)
{
    long n = number_of("LISTEN_FDS"), pid = number_of("LISTEN_PID");
    const char *text = getenv("LISTEN_FDNAMES");
    struct str names = str_of(text ? text : ""), name;

    ret->n = 0;
    if (n <= 0 || pid != getpid())
        return 0;
    if (n > INHERITED_MAX)
        return failure_set(f, EX_CONFIG, "the service manager hands over %ld sockets; %d at most",
                           n, INHERITED_MAX);
    for (long i = 0; i < n; i++) {
        struct inherited_socket *s = &ret->v[ret->n++];
        *s = (struct inherited_socket){ .fd = FIRST_FD + (int)i };
        str_cut(&names, ':', &name);
        str_copy(name, s->name, sizeof(s->name));
        if (take_one(s, f) < 0)
            return -1;
    }
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDNAMES");
    return 0;
}

/* ---- whose they are --------------------------------------------------------------------------- */

static int find(const struct inherited *in, const struct listen_settings *l, bool any_address,
                const bool *taken)
{
    for (size_t i = 0; i < in->n; i++)
        if (!taken[i] && (!l->socket.n || str_eq(l->socket, str_of(in->v[i].name))) &&
            (any_address || net_addr_eq(&l->addr, &in->v[i].addr)))
            return (int)i;
    return -1;
}

static int missing(const struct listen_settings *l, struct failure *f)
{
    return failure_set(f, EX_CONFIG,
                       "the service manager hands over no socket named '" STR_FMT
                       "' for the listener " STR_FMT
                       ": set FileDescriptorName= in its unit, or correct 'socket'",
                       STR_ARG(l->socket), STR_ARG(l->text));
}

static int left_over(const struct inherited_socket *s, struct failure *f)
{
    char where[NET_ADDR_TEXT];

    return failure_set(
        f, EX_CONFIG,
        "the service manager hands over the socket '%s' on %s, and no listener of the "
        "configuration takes it: its clients would wait for ever. Add it to 'listen', "
        "or stop it and take it out of the socket unit",
        s->name, net_addr_text(&s->addr, where));
}

int inherited_assign(const struct inherited *in, const struct settings *settings, int *ret_index,
                     struct failure *f)
{
    bool taken[INHERITED_MAX] = { false };

    for (size_t i = 0; i < settings->n_listen; i++)
        ret_index[i] = -1;
    if (!in->n)
        return 0;
    /* Where name and address agree, then by the name alone. */
    for (int any_address = 0; any_address <= 1; any_address++)
        for (size_t i = 0; i < settings->n_listen; i++) {
            const struct listen_settings *l = &settings->listen[i];
            if (ret_index[i] >= 0 || (any_address && !l->socket.n))
                continue;
            ret_index[i] = find(in, l, any_address, taken);
            if (ret_index[i] >= 0)
                taken[ret_index[i]] = true;
        }
    for (size_t i = 0; i < settings->n_listen; i++)
        if (settings->listen[i].socket.n && ret_index[i] < 0)
            return missing(&settings->listen[i], f);
    for (size_t i = 0; i < in->n; i++)
        if (!taken[i])
            return left_over(&in->v[i], f);
    return 0;
}
