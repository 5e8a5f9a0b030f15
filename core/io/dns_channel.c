/* dns_channel.c - c-ares 1.18 in the loop: its sockets, its timeouts.
 *
 * Layer: io. Interface: dns_channel.h. Each question carries EDNS (1232 octets: what fits in
 * every path without fragments) and asks for the AD bit. c-ares retries, goes on to the next
 * server, and to TCP for what was truncated.
 */
#include "io/dns_channel.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <ev.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/random.h>
#include <sys/time.h>

enum {
    EDNS_SIZE = 1232,
    TRIES = 3, /* of each server, each waiting twice as long: 1 + 2 + 4 times the first */
    TRIES_TIME = 7,
    FIRST_MIN_MS = 100,
    RCODE_FORMERR = 1,
    AD_BIT = 0x20,           /* of the fourth octet */
    SOCKET_BUFFER = 1 << 20, /* a burst of replies waits there; the system grants less */
};

struct dns_channel {
    struct io_loop *loop;
    ares_channel ares;
    struct list sockets;
    struct timer timer;
    struct later rearm; /* c-ares looks through all questions for the next timeout: once a turn */
    size_t open;
    bool ending;
    bool trusted;      /* the AD bit says something */
    uint16_t ids[128]; /* random, ahead */
    size_t n_ids;
};

struct dns_socket {
    struct list link;
    ev_io watcher;
    struct dns_channel *channel;
};

struct question {
    struct dns_channel *channel;
    dns_reply_cb *reply;
    void *arg;
    enum dns_type type;
    bool plain; /* without EDNS */
    char name[DNS_MAX_NAME + 1];
};

/* ---- sockets and timeouts -------------------------------------------------------------------- */

static void rearm_later(struct dns_channel *c)
{
    if (!c->ending)
        io_loop_later(c->loop, &c->rearm);
}

static void on_rearm(struct later *l)
{
    struct dns_channel *c = CONTAINER_OF(l, struct dns_channel, rearm);
    struct timeval tv;

    if (!ares_timeout(c->ares, NULL, &tv)) {
        io_loop_timer_stop(c->loop, &c->timer);
        return;
    }
    int64_t ms = (int64_t)tv.tv_sec * 1000 + (tv.tv_usec + 999) / 1000;
    io_loop_timer_set(c->loop, &c->timer, io_loop_now(c->loop) + MAX(ms, (int64_t)1));
}

static void on_timer(struct timer *t)
{
    struct dns_channel *c = CONTAINER_OF(t, struct dns_channel, timer);

    ares_process_fd(c->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    rearm_later(c);
}

static void on_ready(struct ev_loop *ev, ev_io *w, int revents)
{
    struct dns_channel *c = CONTAINER_OF(w, struct dns_socket, watcher)->channel;
    int fd = w->fd; /* w may go inside */

    ares_process_fd(c->ares, revents & EV_READ ? fd : ARES_SOCKET_BAD,
                    revents & EV_WRITE ? fd : ARES_SOCKET_BAD);
    rearm_later(c);
}

static struct dns_socket *find_socket(struct dns_channel *c, int fd)
{
    LIST_FOREACH(node, &c->sockets)
    {
        struct dns_socket *s = LIST_ENTRY(node, struct dns_socket, link);
        if (s->watcher.fd == fd)
            return s;
    }
    return NULL;
}

static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct dns_channel *c = arg;
    struct dns_socket *s = find_socket(c, fd);
    int events = (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0);

    if (s)
        ev_io_stop(io_loop_ev(c->loop), &s->watcher);
    if (!events) {
        if (s) {
            list_remove(&s->link);
            free(s);
        }
        return;
    }
    if (!s) {
        s = malloc(sizeof(*s));
        if (!s)
            return; /* not heard: the question times out */
        s->channel = c;
        list_push(&c->sockets, &s->link);
        ev_io_init(&s->watcher, on_ready, fd, events);
    }
    ev_io_set(&s->watcher, fd, events);
    ev_io_start(io_loop_ev(c->loop), &s->watcher);
}

/* ---- questions ------------------------------------------------------------------------------- */

/* Unpredictable: with the port, all that protects an answer from forgery. */
static uint16_t next_id(struct dns_channel *c)
{
    if (c->n_ids == 0) {
        c->n_ids = ARRAY_LEN(c->ids);
        if (getrandom(c->ids, sizeof(c->ids), 0) != sizeof(c->ids))
            for (size_t i = 0; i < c->n_ids; i++)
                c->ids[i] = (uint16_t)(io_loop_random(c->loop) >> 24);
    }
    return c->ids[--c->n_ids];
}

static void end_question(struct question *q, const void *bytes, size_t n, enum dns_status status)
{
    dns_reply_cb *reply = q->reply;
    void *arg = q->arg;

    q->channel->open--;
    free(q);
    reply(arg, bytes, n, status);
}

static void send_question(struct question *q);

static void on_reply(void *arg, int status, int timeouts, unsigned char *bytes, int n)
{
    struct question *q = arg;

    switch (status) {
    case ARES_SUCCESS:
        if (!q->plain && n >= NS_HFIXEDSZ && (bytes[3] & 0x0f) == RCODE_FORMERR) {
            q->plain = true; /* a server from before EDNS */
            send_question(q);
            return;
        }
        if (!q->channel->trusted && n >= NS_HFIXEDSZ)
            bytes[3] &= (unsigned char)~AD_BIT;
        end_question(q, bytes, (size_t)n, DNS_OK);
        break;
    case ARES_ETIMEOUT: end_question(q, NULL, 0, DNS_TIMEOUT); break;
    case ARES_EBADNAME:
    case ARES_ENOTFOUND: /* ".onion" */ end_question(q, NULL, 0, DNS_NXDOMAIN); break;
    default: end_question(q, NULL, 0, DNS_SERVFAIL);
    }
}

static void send_question(struct question *q)
{
    struct dns_channel *c = q->channel;
    unsigned char *bytes;
    int n, r;

    r = ares_create_query(q->name, ns_c_in, (int)q->type, next_id(c), 1, &bytes, &n,
                          q->plain ? 0 : EDNS_SIZE);
    if (r != ARES_SUCCESS) {
        on_reply(q, r, 0, NULL, 0);
        return;
    }
    bytes[3] |= AD_BIT; /* AD: tell whether it was validated (RFC 6840 section 5.7) */
    ares_send(c->ares, bytes, n, on_reply, q);
    ares_free_string(bytes);
    rearm_later(c);
}

void dns_channel_ask(struct dns_channel *c, const char *name, enum dns_type type,
                     dns_reply_cb *reply, void *arg)
{
    struct question *q = malloc(sizeof(*q));

    if (!q) {
        reply(arg, NULL, 0, DNS_SERVFAIL);
        return;
    }
    *q = (struct question){ .channel = c, .reply = reply, .arg = arg, .type = type };
    str_copy(str_of(name), q->name, sizeof(q->name));
    c->open++;
    send_question(q);
}

/* ---- life ------------------------------------------------------------------------------------ */

static int error_of(int status)
{
    return status == ARES_SUCCESS ? 0 : status == ARES_ENOMEM ? -ENOMEM : -EINVAL;
}

/* How many servers the system's configuration has. */
static int count_system_servers(size_t *ret)
{
    struct ares_addr_port_node *list = NULL;
    ares_channel probe;
    int r = ares_init(&probe);

    if (r != ARES_SUCCESS)
        return error_of(r);
    r = ares_get_servers_ports(probe, &list);
    *ret = 0;
    for (struct ares_addr_port_node *i = list; i; i = i->next)
        ++*ret;
    ares_free_data(list);
    ares_destroy(probe);
    return error_of(r);
}

static int set_servers(struct dns_channel *c, const struct net_addr *servers, size_t n)
{
    struct ares_addr_port_node *nodes = calloc(n, sizeof(*nodes));

    if (!nodes)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const struct net_addr *a = &servers[i];
        nodes[i].next = i + 1 < n ? &nodes[i + 1] : NULL;
        nodes[i].family = a->family == NET_IPV6 ? AF_INET6 : AF_INET;
        memcpy(&nodes[i].addr, a->ip, a->family == NET_IPV6 ? 16 : 4);
        nodes[i].udp_port = nodes[i].tcp_port = a->port ? a->port : NS_DEFAULTPORT;
    }
    int r = error_of(ares_set_servers_ports(c->ares, nodes));
    free(nodes);
    return r;
}

static int open_ares(struct dns_channel *c, size_t n_servers, int64_t timeout_ms)
{
    struct ares_options o = {
        /* The rcode of an answer comes to us as it is; but with several servers, c-ares shall go
         * on to the next one when one fails. */
        .flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_EDNS |
                 (n_servers > 1 ? 0 : ARES_FLAG_NOCHECKRESP),
        .tries = TRIES,
        .ednspsz = EDNS_SIZE,
        .socket_receive_buffer_size = SOCKET_BUFFER,
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = c,
    };
    int64_t first = timeout_ms / (TRIES_TIME * (int64_t)MAX(n_servers, (size_t)1));

    o.timeout = (int)MIN(MAX(first, (int64_t)FIRST_MIN_MS), (int64_t)60000);
    return error_of(ares_init_options(&c->ares, &o,
                                      ARES_OPT_FLAGS | ARES_OPT_TRIES | ARES_OPT_EDNSPSZ |
                                          ARES_OPT_SOCK_STATE_CB | ARES_OPT_TIMEOUTMS |
                                          ARES_OPT_SOCK_RCVBUF));
}

/* The servers as c-ares has them, be they given or the system's. */
static bool all_on_loopback(const struct dns_channel *c)
{
    struct ares_addr_port_node *list = NULL;
    bool all = true;

    if (ares_get_servers_ports(c->ares, &list) != ARES_SUCCESS || !list)
        return false;
    for (struct ares_addr_port_node *i = list; i; i = i->next) {
        struct net_addr a = { .family = i->family == AF_INET6 ? NET_IPV6 : NET_IPV4 };
        memcpy(a.ip, &i->addr, a.family == NET_IPV6 ? 16 : 4);
        all &= net_addr_is_loopback(&a);
    }
    ares_free_data(list);
    return all;
}

static void init_library(void)
{
    ares_library_init(ARES_LIB_INIT_ALL);
}

int dns_channel_new(struct io_loop *l, const struct net_addr *servers, size_t n, int64_t timeout_ms,
                    bool trust_ad, struct dns_channel **ret)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    size_t n_servers = n;
    int r = 0;

    pthread_once(&once, init_library);
    for (size_t i = 0; i < n; i++)
        if (servers[i].family != NET_IPV4 && servers[i].family != NET_IPV6)
            return -EINVAL;
    if (n == 0)
        r = count_system_servers(&n_servers);
    if (r < 0)
        return r;

    struct dns_channel *c = malloc(sizeof(*c));
    if (!c)
        return -ENOMEM;
    *c = (struct dns_channel){ .loop = l };
    list_init(&c->sockets);
    timer_init(&c->timer, on_timer);
    later_init(&c->rearm, on_rearm);
    r = open_ares(c, n_servers, timeout_ms);
    if (r < 0) {
        free(c);
        return r;
    }
    r = n ? set_servers(c, servers, n) : 0;
    if (r < 0) {
        dns_channel_free(c);
        return r;
    }
    c->trusted = trust_ad || all_on_loopback(c);
    *ret = c;
    return 0;
}

bool dns_channel_trusted(const struct dns_channel *c)
{
    return c->trusted;
}

struct dns_channel *dns_channel_free(struct dns_channel *c)
{
    if (!c)
        return NULL;
    c->ending = true;
    ares_destroy(c->ares);
    CHECK(c->open == 0);
    io_loop_timer_stop(c->loop, &c->timer);
    list_remove(&c->rearm.link);
    LIST_FOREACH(node, &c->sockets)
    {
        struct dns_socket *s = LIST_ENTRY(node, struct dns_socket, link);
        ev_io_stop(io_loop_ev(c->loop), &s->watcher);
        free(s);
    }
    free(c);
    return NULL;
}

size_t dns_channel_open(const struct dns_channel *c)
{
    return c->open;
}
