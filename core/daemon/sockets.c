/* sockets.c - the listening sockets of all workers. Layer: daemon. Interface: sockets.h. */
#include "daemon/sockets.h"

#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <sysexits.h>
#include <unistd.h>

#include "io/sockaddr.h"

static const char *how_to_mend(int error, const struct net_addr *addr, bool reload)
{
    switch (-error) {
    case EADDRINUSE:
        return addr->family == NET_UNIX
                   ? "; another process listens there, or it is a file and no socket: stop it, "
                     "remove it, or change 'listen'"
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
    case ENOENT:
        return addr->family == NET_UNIX ? "; make the folder first, for the user of the router"
                                        : "";
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

/* ---- files of Unix sockets -------------------------------------------------------------------- */

static int find_file(const struct socket_files *files, const struct net_addr *addr)
{
    for (size_t i = 0; i < files->n; i++)
        if (net_addr_eq(&files->v[i].addr, addr))
            return (int)i;
    return -1;
}

static void forget_file(struct socket_files *files, size_t i)
{
    io_socket_file_remove(files->v[i].addr.path, &files->v[i].file);
    files->v[i] = files->v[--files->n];
}

static bool listens_on(const struct settings *settings, const struct net_addr *addr)
{
    for (size_t i = 0; settings && i < settings->n_listen; i++)
        if (net_addr_eq(&settings->listen[i].addr, addr))
            return true;
    return false;
}

void socket_files_keep(struct socket_files *files, const struct settings *settings)
{
    for (size_t i = files->n; i > 0; i--)
        if (!listens_on(settings, &files->v[i - 1].addr))
            forget_file(files, i - 1);
}

/* Who may connect, as the configuration says. */
static int wanted_file(const struct listen_settings *l, const struct sockets_from *from,
                       struct io_socket_file *ret, struct failure *f)
{
    AUTO_FREE char *name = l->group.n ? str_dup(l->group) : NULL;
    const struct group *group = name ? getgrnam(name) : NULL;

    if (l->group.n && !name)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    if (name && !group)
        return failure_set(
            f, EX_CONFIG,
            "there is no group '%s' for the socket %s: make it, or correct 'group' in "
            "'listen'%s",
            name, l->addr.path,
            from->present ? " (one that was made since the router started it sees "
                            "when it is restarted)"
                          : "");
    *ret = (struct io_socket_file){
        .mode = (mode_t)l->mode,
        .uid = geteuid() == 0 ? from->id->uid : (uid_t)-1,
        .gid = group ? group->gr_gid : from->id->gid,
    };
    return 0;
}

static int not_permitted(const struct listen_settings *l, int error, const struct identity *id,
                         struct failure *f)
{
    if (error == -EPERM && l->group.n)
        return failure_set(f, EX_NOPERM,
                           "cannot give the socket %s to the group '" STR_FMT "': the user %s is "
                           "not in it (usermod -aG, then restart the router)",
                           l->addr.path, STR_ARG(l->group), id->name);
    return failure_set(f, exit_code_of(error), "cannot set who may connect to %s: %s", l->addr.path,
                       strerror(-error));
}

/* The descriptor, or -1 with *f. */
static int open_file(const struct listen_settings *l, const struct sockets_from *from,
                     struct failure *f)
{
    struct socket_files *files = from->files;
    struct io_socket_file file;
    char error[LISTEN_ERROR_TEXT];

    if (files->n == SOCKET_FILES_MAX)
        return failure_set(f, EX_CONFIG, "more than %d Unix sockets to listen on",
                           SOCKET_FILES_MAX);
    if (wanted_file(l, from, &file, f) < 0)
        return -1;
    int fd = io_listen_open_file(&l->addr, &file, error);
    if (fd == -EPERM && l->group.n)
        return not_permitted(l, fd, from->id, f);
    if (fd < 0)
        return failure_set(f, exit_code_of(fd), "%s%s", error,
                           how_to_mend(fd, &l->addr, from->present));
    int i = find_file(files, &l->addr);
    if (i < 0)
        i = (int)files->n++;
    files->v[i].addr = l->addr;
    files->v[i].file = file;
    return fd;
}

/* A reload may say anew who may connect. */
static int permit_anew(const struct listen_settings *l, const struct sockets_from *from,
                       struct failure *f)
{
    int i = find_file(from->files, &l->addr);
    struct io_socket_file file;

    if (i < 0) /* the service manager's */
        return 0;
    if (wanted_file(l, from, &file, f) < 0)
        return -1;
    int r = io_socket_file_apply(l->addr.path, &file);
    if (r < 0)
        return not_permitted(l, r, from->id, f);
    from->files->v[i].file = file;
    return 0;
}

void socket_files_restore(struct socket_files *files, const struct settings *settings,
                          const struct identity *id)
{
    const struct sockets_from from = { .id = id, .files = files };
    struct failure ignored; /* so it was, and nothing better is known */

    socket_files_keep(files, settings);
    for (size_t i = 0; i < settings->n_listen; i++)
        if (settings->listen[i].addr.family == NET_UNIX)
            (void)permit_anew(&settings->listen[i], &from, &ignored);
}

/* ---- opening ---------------------------------------------------------------------------------- */

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
static int open_address(struct sockets *s, size_t i, const struct listen_settings *l,
                        const struct sockets_from *from, struct failure *f)
{
    struct net_addr addr = l->addr;
    bool reload = from->present;

    int first = addr.family == NET_UNIX ? open_file(l, from, f) : open_one(&addr, reload, f);
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
static int open_all(struct sockets *s, const struct settings *settings,
                    const struct sockets_from *from, const int *assigned, struct failure *f)
{
    const struct worker *present = from->present;

    for (size_t i = 0; i < s->n_listen; i++) {
        const struct listen_settings *l = &settings->listen[i];
        int r = 0;
        if (present && worker_listener_for(present, &l->addr))
            r = l->addr.family == NET_UNIX ? permit_anew(l, from, f) : 0;
        else if (assigned[i] >= 0)
            r = share(s, i, from->in->v[assigned[i]].fd, f);
        else if (check_free(&l->addr, present, f) < 0 || open_address(s, i, l, from, f) < 0)
            r = -1;
        if (r < 0)
            return -1;
    }
    return 0;
}

int sockets_open(const struct settings *settings, int n_workers, const struct sockets_from *from,
                 struct sockets *ret, struct failure *f)
{
    struct sockets s = { .n_listen = settings->n_listen, .n_workers = n_workers };
    size_t files = from->files->n;
    size_t n = s.n_listen * (size_t)n_workers;
    AUTO_FREE int *assigned = calloc(s.n_listen + 1, sizeof(*assigned));

    s.fd = calloc(n + 1, sizeof(*s.fd));
    if (!s.fd || !assigned) {
        free(s.fd);
        return failure_set(f, EX_SOFTWARE, "out of memory");
    }
    for (size_t i = 0; i < n; i++)
        s.fd[i] = -1;
    if (inherited_assign(from->in, settings, assigned, f) < 0 ||
        open_all(&s, settings, from, assigned, f) < 0) {
        while (from->files->n > files)
            forget_file(from->files, from->files->n - 1);
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
