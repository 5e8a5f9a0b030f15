/* sink_dns.c - a name server for demonstrations. Layer: daemon. Interface: sink_dns.h.
 *
 * The zone, and how it is looked up, are the simulation's; its clock turns here only to have each answer. */
#include "daemon/sink_dns.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "io/sockaddr.h"
#include "proto/dns_reply.h"
#include "sim/dns.h"

enum { ZONE_MAX = 1 << 20, TURN_ANSWERS = 64 };

struct sink_dns {
    struct sim_clock clock;
    struct sim_dns *zone;
    int fd;
    struct io_watch *watch;
    struct dns_answer *answer; /* to the present question */
};

static void on_answer(void *owner, const struct dns_answer *answer)
{
    struct sink_dns *d = owner;

    d->answer = dns_answer_ref((struct dns_answer *)answer);
}

static void reply(struct sink_dns *d, const struct dns_question *q, const struct sockaddr *to,
                  socklen_t n)
{
    struct port_dns *port = sim_dns_port(d->zone);
    struct buf out;

    if (!port->query(port, str_of(q->name), q->type, on_answer, d))
        return;
    while (!d->answer && sim_clock_turn(&d->clock, d->clock.now))
        ;
    if (!d->answer)
        return;
    buf_init(&out, 0);
    /* Who gets no answer asks again, or says so: there is nobody else to tell. */
    if (dns_reply_write(q, d->answer, DNS_UDP_MAX, &out) == 0)
        (void)!sendto(d->fd, buf_str(&out).p, buf_len(&out), MSG_NOSIGNAL, to, n);
    buf_done(&out);
    d->answer = dns_answer_unref(d->answer);
    sim_dns_forget_log(d->zone); /* which would grow with each name that is asked for */
}

static void on_readable(void *owner)
{
    struct sink_dns *d = owner;
    char bytes[DNS_UDP_MAX + 1];
    struct sockaddr_storage from;
    struct dns_question q;

    for (int i = 0; i < TURN_ANSWERS; i++) {
        socklen_t size = sizeof(from);
        ssize_t n = recvfrom(d->fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &size);
        if (n < 0)
            return;
        if (dns_question_parse(bytes, (size_t)n, &q) == 0)
            reply(d, &q, (struct sockaddr *)&from, size);
    }
}

static int read_zone(struct sink_dns *d, const char *path, struct failure *f)
{
    AUTO_FREE char *text = malloc(ZONE_MAX);
    char why[160];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;

    if (fd >= 0 && text)
        n = read(fd, text, ZONE_MAX);
    int error = errno;
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return failure_set(f, EX_NOINPUT, "--zone %s: %s", path, strerror(error));
    if (n == ZONE_MAX)
        return failure_set(f, EX_DATAERR, "--zone %s: larger than 1 MiB", path);
    if (sim_dns_add(d->zone, str_make(text, (size_t)n), why, sizeof(why)) < 0)
        return failure_set(f, EX_DATAERR, "--zone %s: %s", path, why);
    return 0;
}

static int listen_on(struct sink_dns *d, const struct net_addr *addr, struct failure *f)
{
    struct sockaddr_storage sa;
    char text[NET_ADDR_TEXT];
    int n = sockaddr_from_net(addr, &sa);

    if (n < 0 || addr->family == NET_UNIX)
        return failure_set(f, EX_USAGE, "--dns %s: an IP address is needed",
                           net_addr_text(addr, text));
    d->fd = socket(sa.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (d->fd < 0 || bind(d->fd, (struct sockaddr *)&sa, (socklen_t)n) < 0)
        return failure_set(f, EX_UNAVAILABLE, "--dns %s: %s", net_addr_text(addr, text),
                           strerror(errno));
    return 0;
}

int sink_dns_new(struct io_loop *loop, const struct net_addr *addr, const char *zone,
                 struct sink_dns **ret, struct failure *f)
{
    struct sink_dns *d = calloc(1, sizeof(*d));

    if (!d)
        return failure_set(f, EX_OSERR, "out of memory");
    d->fd = -1;
    sim_clock_init(&d->clock);
    d->zone = sim_dns_new(&d->clock);
    sim_dns_set_latency(d->zone, 0);
    int r = read_zone(d, zone, f);
    if (r == 0)
        r = listen_on(d, addr, f);
    if (r == 0 && io_watch_new(loop, d->fd, on_readable, d, &d->watch) < 0)
        r = failure_set(f, EX_OSERR, "out of memory");
    if (r < 0)
        sink_dns_free(d);
    else
        *ret = d;
    return r;
}

struct sink_dns *sink_dns_free(struct sink_dns *d)
{
    if (!d)
        return NULL;
    io_watch_free(d->watch);
    if (d->fd >= 0)
        close(d->fd);
    dns_answer_unref(d->answer);
    sim_dns_free(d->zone);
    sim_clock_done(&d->clock);
    free(d);
    return NULL;
}
