/* net.c - the virtual network: who can be reached where, and how connections come to stand.
 *
 * Layer: sim. Interface: net.h. The life of a stream is in net_stream.c.
 */
#include "sim/net.h"

#include "sim/net_impl.h"

enum { FIRST_PORT = 32768 };

/* Of who dials without a source of its own. */
#define SOURCE_4 "198.51.100.25"
#define SOURCE_6 "2001:db8:25::25"

/* ---- connecting ------------------------------------------------------------------------------- */

static struct sim_listener *registered(struct sim_net *n, const struct net_addr *to)
{
    struct sim_listener *any = NULL;
    LIST_FOREACH(it, &n->listeners)
    {
        struct sim_listener *l = LIST_ENTRY(it, struct sim_listener, link);
        if (net_addr_eq(&l->addr, to))
            return l;
        if (l->addr.port == 0 && l->addr.family != NET_UNIX && net_addr_same_ip(&l->addr, to))
            any = l;
    }
    return any;
}

static struct sim_listener *find_listener(struct sim_net *n, const struct net_addr *to)
{
    struct sim_listener *l = registered(n, to);
    if (l || !n->make)
        return l;
    n->make(n->make_arg, to);
    return registered(n, to);
}

static void connected(struct end *e, struct sim_listener *l)
{
    struct sim_net *n = e->net;
    struct end *other = end_new(n, e->latency_ms);
    other->state = e->state = END_OPEN;
    other->peer = e;
    e->peer = other;
    other->stream.local = e->stream.peer;
    other->stream.peer = e->stream.local;
    n->accepted++;
    l->accept(l, &other->stream);
    CHECK(other->state != END_OPEN || other->stream.ev); /* accept took it over, or aborted it */
    if (e->state == END_OPEN)
        e->stream.ev->opened(&e->stream, e->stream.owner);
}

static void connect_ended(struct timer *t)
{
    struct end *e = CONTAINER_OF(t, struct end, connect);
    if (e->no_source) {
        end_lose(e, -EADDRNOTAVAIL, "cannot assign requested address");
        return;
    }
    /* As it is now, not as it was when the first packet left. */
    struct sim_listener *l = find_listener(e->net, &e->stream.peer);
    enum sim_reach reach = l ? l->reach : e->net->unknown;
    if (e->reach == SIM_SILENT)
        end_lose(e, -ETIMEDOUT, "connection timed out");
    else if (l && reach == SIM_ACCEPTS)
        connected(e, l);
    else if (reach == SIM_REFUSES)
        end_lose(e, -ECONNREFUSED, "connection refused");
    else if (reach == SIM_UNREACHABLE)
        end_lose(e, -EHOSTUNREACH, "no route to host");
    else { /* it went silent just now */
        e->reach = SIM_SILENT;
        sim_timer_in(e->net->clock, &e->connect, SIM_CONNECT_MS);
    }
}

static void choose_source(struct sim_net *n, struct end *e, const struct net_addr *to,
                          const struct net_addr *source)
{
    struct net_addr local = { 0 };
    if (source && source->family != NET_NONE)
        local = *source;
    else if (to->family != NET_UNIX)
        CHECK(net_addr_parse_ip(to->family == NET_IPV6 ? STR(SOURCE_6) : STR(SOURCE_4), &local) ==
              0);
    if (to->family != NET_UNIX && local.port == 0) {
        local.port = n->next_port++;
        if (n->next_port < FIRST_PORT)
            n->next_port = FIRST_PORT;
    }
    e->stream.local = local;
    e->stream.peer = *to;
}

struct stream *sim_net_dial(struct sim_net *n, const struct net_addr *to,
                            const struct net_addr *source, const struct stream_events *ev,
                            void *owner)
{
    struct sim_listener *l = find_listener(n, to);
    struct end *e = end_new(n, l && l->latency_ms >= 0 ? l->latency_ms : n->latency_ms);
    choose_source(n, e, to, source);
    e->stream.ev = ev;
    e->stream.owner = owner;
    e->state = END_CONNECTING;
    e->reach = l ? l->reach : n->unknown;
    timer_init(&e->connect, connect_ended);
    sim_timer_in(n->clock, &e->connect,
                 e->reach == SIM_SILENT ? SIM_CONNECT_MS : 2 * e->latency_ms);
    n->dials++;
    return &e->stream;
}

/* ---- the network ------------------------------------------------------------------------------ */

static void reap(struct timer *t)
{
    struct sim_net *n = CONTAINER_OF(t, struct sim_net, reaper);
    for (struct list *it; (it = list_pop(&n->graveyard));)
        end_free(LIST_ENTRY(it, struct end, link));
}

struct sim_net *sim_net_new(struct sim_clock *clock, uint64_t seed)
{
    struct sim_net *n = sim_alloc(sizeof *n);
    n->clock = clock;
    n->latency_ms = 5;
    n->unknown = SIM_UNREACHABLE;
    n->next_port = FIRST_PORT;
    sim_random_init(&n->random, seed, 1);
    list_init(&n->listeners);
    list_init(&n->ends);
    list_init(&n->graveyard);
    timer_init(&n->reaper, reap);
    return n;
}

struct sim_net *sim_net_free(struct sim_net *n)
{
    if (!n)
        return NULL;
    sim_timer_stop(n->clock, &n->reaper);
    LIST_FOREACH(it, &n->ends)
    end_bury(LIST_ENTRY(it, struct end, link));
    sim_timer_stop(n->clock, &n->reaper);
    reap(&n->reaper);
    LIST_FOREACH(it, &n->listeners)
    list_remove(it);
    free(n);
    return NULL;
}

void sim_net_listen(struct sim_net *n, struct sim_listener *l)
{
    CHECK(l->accept != NULL);
    list_push(&n->listeners, &l->link);
}

void sim_net_unlisten(struct sim_net *n, struct sim_listener *l)
{
    list_remove(&l->link);
}

void sim_net_set_latency(struct sim_net *n, int64_t one_way_ms)
{
    n->latency_ms = one_way_ms;
}

void sim_net_set_faults(struct sim_net *n, const struct sim_net_faults *f)
{
    n->faults = *f;
}

void sim_net_set_unknown(struct sim_net *n, enum sim_reach reach)
{
    CHECK(reach != SIM_ACCEPTS); /* who would? */
    n->unknown = reach;
}

void sim_net_on_unknown(struct sim_net *n, void (*make)(void *arg, const struct net_addr *to),
                        void *arg)
{
    n->make = make;
    n->make_arg = arg;
}

void cert_copy(struct sim_certificate *to, const struct sim_certificate *from)
{
    struct sim_certificate copy = *from;
    copy.name = str_make(sim_dup(from->name), from->name.n);
    copy.fails = str_make(sim_dup(from->fails), from->fails.n);
    *to = copy;
}

void cert_done(struct sim_certificate *c)
{
    free((char *)c->name.p);
    free((char *)c->fails.p);
    *c = (struct sim_certificate){ 0 };
}

uint64_t sim_net_dials(const struct sim_net *n)
{
    return n->dials;
}

uint64_t sim_net_accepted(const struct sim_net *n)
{
    return n->accepted;
}

/* ---- uplinks ---------------------------------------------------------------------------------- */

static struct stream *port_dial(struct port_net *self, const struct net_addr *to,
                                const struct net_addr *source, const struct stream_events *ev,
                                void *owner)
{
    struct sim_uplink *u = CONTAINER_OF(self, struct sim_uplink, port);
    if (SIM_STARVED())
        return NULL;
    if (!source || source->family == NET_NONE)
        source = to->family == NET_IPV6 ? &u->source6 : to->family == NET_IPV4 ? &u->source4 : NULL;
    struct stream *s = sim_net_dial(u->net, to, source, ev, owner);
    sim_stream_set_engine(s, u);
    for (size_t i = 0; i < u->n_absent && source; i++)
        if (net_addr_same_ip(&u->absent[i], source)) {
            end_of(s)->no_source = true;
            sim_timer_in(u->net->clock, &end_of(s)->connect, 0);
        }
    return s;
}

static bool port_can_serve_tls(struct port_net *self)
{
    return CONTAINER_OF(self, struct sim_uplink, port)->has_cert;
}

struct sim_uplink *sim_uplink_new(struct sim_net *n)
{
    struct sim_uplink *u = sim_alloc(sizeof *u);
    u->port = (struct port_net){ port_dial, port_can_serve_tls };
    u->net = n;
    CHECK(net_addr_parse_ip(STR(SOURCE_4), &u->source4) == 0);
    CHECK(net_addr_parse_ip(STR(SOURCE_6), &u->source6) == 0);
    return u;
}

struct sim_uplink *sim_uplink_free(struct sim_uplink *u)
{
    if (!u)
        return NULL;
    cert_done(&u->cert);
    free(u);
    return NULL;
}

struct port_net *sim_uplink_port(struct sim_uplink *u)
{
    return &u->port;
}

void sim_uplink_set_source(struct sim_uplink *u, const struct net_addr *addr)
{
    if (addr->family == NET_IPV6)
        u->source6 = *addr;
    else
        u->source4 = *addr;
}

void sim_uplink_set_absent(struct sim_uplink *u, const struct net_addr *addr, bool absent)
{
    size_t i = 0;
    while (i < u->n_absent && !net_addr_same_ip(&u->absent[i], addr))
        i++;
    if (!absent && i < u->n_absent)
        u->absent[i] = u->absent[--u->n_absent];
    if (!absent || i < u->n_absent)
        return;
    CHECK(u->n_absent < SIM_MAX_ABSENT);
    u->absent[u->n_absent++] = *addr;
}

void sim_uplink_set_certificate(struct sim_uplink *u, const struct sim_certificate *c)
{
    cert_done(&u->cert);
    u->has_cert = c != NULL;
    if (c)
        cert_copy(&u->cert, c);
}

size_t sim_uplink_streams(const struct sim_uplink *u)
{
    size_t count = 0;
    LIST_FOREACH(it, &u->net->ends)
    {
        const struct end *e = LIST_ENTRY(it, struct end, link);
        count += e->uplink == u && (e->state == END_OPEN || e->state == END_CONNECTING);
    }
    return count;
}
