/* world_around.c - hosts, clients and names around the engines. Layer: sim. Interface: world.h. */
#include <stdio.h>

#include "sim/world_impl.h"

enum { FIRST_ADDR = 25 };
#define REPLY_MS (30 * SIM_MINUTE) /* longer than any deadline of a session */

struct net_addr sim_addr(const char *text)
{
    struct net_addr a;
    CHECK(net_addr_parse(str_of(text), 0, &a) == 0);
    return a;
}

/* ---- names and hosts -------------------------------------------------------------------------- */

void sim_world_zone_add(struct sim_world *w, const char *text)
{
    char why[256];
    if (sim_dns_add(w->around->dns, str_of(text), why, sizeof why) == 0)
        return;
    fprintf(stderr, "the zone of the test: %s\n", why);
    CHECK(!"the zone can be read");
}

void sim_world_zone(struct sim_world *w, const char *text)
{
    sim_dns_clear(w->around->dns);
    sim_world_zone_add(w, text);
}

static struct world_host *find_host(struct around *a, const struct net_addr *addr)
{
    LIST_FOREACH(it, &a->hosts)
    {
        struct world_host *h = LIST_ENTRY(it, struct world_host, link);
        const struct net_addr *at = sim_host_addr(h->host);
        if (net_addr_eq(at, addr) || (h->by_itself && net_addr_same_ip(at, addr)))
            return h;
    }
    return NULL;
}

static struct world_host *make_host(struct around *a, const struct net_addr *addr)
{
    char name[DNS_MAX_NAME + 1], ip[NET_ADDR_TEXT];
    if (!sim_dns_name_of(a->dns, addr, name, sizeof name)) {
        snprintf(name, sizeof name, "host-%s.example", net_addr_ip_text(addr, ip));
        for (char *c = name; *c; c++)
            if (*c == ':' || *c == '/')
                *c = '-';
    }
    struct world_host *h = sim_alloc(sizeof *h);
    h->host = sim_host_new(&a->clock, a->net, addr, str_of(name));
    list_init(&h->link);
    list_push(&a->hosts, &h->link);
    return h;
}

struct sim_host *sim_world_host(struct sim_world *w, const char *text)
{
    struct net_addr addr = sim_addr(text);
    struct world_host *h = find_host(w->around, &addr);
    return (h ? h : make_host(w->around, &addr))->host;
}

static bool is_a_router(const struct around *a, const struct net_addr *addr)
{
    LIST_FOREACH(it, &a->worlds)
    {
        const struct sim_world *w = LIST_ENTRY(it, struct sim_world, link);
        for (size_t i = 0; i < w->shared.n_self; i++)
            if (net_addr_same_ip(&w->shared.self[i], addr))
                return true;
    }
    return false;
}

static void on_unknown(void *arg, const struct net_addr *to)
{
    struct around *a = arg;
    struct net_addr addr = *to;
    if (is_a_router(a, to) || net_addr_is_loopback(to))
        return;
    addr.port = 0;
    make_host(a, &addr)->by_itself = true;
}

void sim_world_populate(struct sim_world *w)
{
    sim_net_on_unknown(w->around->net, on_unknown, w->around);
}

/* ---- what routers share ----------------------------------------------------------------------- */

struct around *around_new(uint64_t seed)
{
    struct around *a = sim_alloc(sizeof *a);
    sim_clock_init(&a->clock);
    a->net = sim_net_new(&a->clock, seed);
    a->dns = sim_dns_new(&a->clock);
    list_init(&a->worlds);
    list_init(&a->hosts);
    return a;
}

void around_join(struct around *a, struct sim_world *w)
{
    char v4[NET_ADDR_TEXT], v6[NET_ADDR_TEXT];
    unsigned last = FIRST_ADDR + a->made++;
    CHECK(last < 100); /* the same digits in both families */
    snprintf(v4, sizeof v4, "198.51.100.%u", last);
    snprintf(v6, sizeof v6, "2001:db8:25::%u", last);
    w->around = a;
    w->shared.self[0] = sim_addr(v4);
    w->shared.self[1] = sim_addr(v6);
    w->shared.n_self = 2;
    w->uplink = sim_uplink_new(a->net);
    sim_uplink_set_source(w->uplink, &w->shared.self[0]);
    sim_uplink_set_source(w->uplink, &w->shared.self[1]);
    list_init(&w->link);
    list_push(&a->worlds, &w->link);
}

static void around_free(struct around *a)
{
    for (struct list *it; (it = list_pop(&a->hosts));) {
        struct world_host *h = LIST_ENTRY(it, struct world_host, link);
        sim_host_free(h->host);
        free(h);
    }
    sim_net_free(a->net);
    sim_dns_free(a->dns);
    sim_clock_done(&a->clock);
    free(a);
}

void around_leave(struct sim_world *w)
{
    struct around *a = TAKE(w->around);
    for (struct list *it; (it = list_pop(&w->mails));) {
        struct world_mail *m = LIST_ENTRY(it, struct world_mail, link);
        sim_client_free(m->client);
        free(m);
    }
    w->uplink = sim_uplink_free(w->uplink);
    list_remove(&w->link);
    if (list_empty(&a->worlds))
        around_free(a);
}

/* ---- clients ---------------------------------------------------------------------------------- */

static bool speaks_lmtp(const struct sim_world *w, const struct net_addr *to)
{
    for (size_t i = 0; i < w->n_listening; i++)
        if (net_addr_eq(&w->listening[i].listener.addr, to))
            return str_eq(w->listening[i].settings->service, STR("lmtp"));
    return false;
}

const struct sim_outcome *sim_world_post(struct sim_world *w, const struct sim_mail *mail)
{
    struct sim_mail m = *mail;
    struct world_mail *wm = sim_alloc(sizeof *wm);
    if (m.to.family == NET_NONE)
        m.to = sim_world_listener(w, 0);
    if (m.from.family == NET_NONE)
        m.from = sim_addr(CLIENT_ADDR);
    m.lmtp = speaks_lmtp(w, &m.to);
    wm->client = sim_client_send(&w->around->clock, w->around->net, &m, NULL, NULL);
    list_init(&wm->link);
    list_push(&w->mails, &wm->link);
    return sim_client_outcome(wm->client);
}

static bool outcome_done(void *arg)
{
    return ((const struct sim_outcome *)arg)->done;
}

const struct sim_outcome *sim_world_send(struct sim_world *w, const struct sim_mail *mail)
{
    const struct sim_outcome *out = sim_world_post(w, mail);
    sim_world_until(w, outcome_done, (void *)out, SIM_DAY);
    return out;
}

int sim_world_mail(struct sim_world *w, const char *sender, const char *recipient, const char *text)
{
    struct str to = str_of(recipient);
    struct buf content;
    buf_init(&content, 0);
    buf_printf(&content, "From: <%s>\r\nTo: <%s>\r\nSubject: test\r\n\r\n%s\r\n", sender, recipient,
               text);
    CHECK(!content.failed);
    struct sim_mail m = {
        .sender = str_of(sender), .recipients = &to, .n_recipients = 1, .content = buf_str(&content)
    };
    const struct sim_outcome *out = sim_world_send(w, &m);
    buf_done(&content);
    return out->reply.code;
}

struct waiting {
    struct sim_session *session;
    struct smtp_reply reply;
};

static bool reply_came(void *arg)
{
    struct waiting *w = arg;
    return sim_session_reply(w->session, &w->reply) || sim_session_closed(w->session);
}

static struct smtp_reply next_reply(struct sim_world *w, struct sim_session *s)
{
    struct waiting wait = { .session = s };
    sim_world_until(w, reply_came, &wait, REPLY_MS);
    return wait.reply;
}

struct sim_session *sim_world_session(struct sim_world *w, const struct net_addr *from)
{
    return sim_world_session_to(w, NULL, from);
}

struct sim_session *sim_world_session_to(struct sim_world *w, const struct net_addr *listener,
                                         const struct net_addr *from)
{
    struct net_addr to =
        listener && listener->family != NET_NONE ? *listener : sim_world_listener(w, 0);
    struct net_addr own = from && from->family != NET_NONE ? *from : sim_addr(CLIENT_ADDR);
    struct sim_session *s = sim_session_open(&w->around->clock, w->around->net, &to, &own);
    next_reply(w, s);
    return s;
}

struct smtp_reply sim_world_reply(struct sim_world *w, struct sim_session *s)
{
    return next_reply(w, s);
}

struct smtp_reply sim_world_line(struct sim_world *w, struct sim_session *s, const char *line)
{
    sim_session_write(s, str_of(line));
    sim_session_write(s, STR("\r\n"));
    return next_reply(w, s);
}

/* ---- looking ---------------------------------------------------------------------------------- */

struct sim_clock *sim_world_clock(struct sim_world *w)
{
    return &w->around->clock;
}

struct sim_net *sim_world_net(struct sim_world *w)
{
    return w->around->net;
}

struct sim_dns *sim_world_dns(struct sim_world *w)
{
    return w->around->dns;
}

struct sim_spool *sim_world_spool(struct sim_world *w)
{
    return w->spool;
}

struct sim_journal *sim_world_journal(struct sim_world *w)
{
    return w->journal;
}

struct sim_random *sim_world_random(struct sim_world *w)
{
    return &w->random;
}

struct engine *sim_world_engine(struct sim_world *w, int worker)
{
    return w->worker[worker].engine;
}

struct sim_passwords *sim_world_passwords(struct sim_world *w)
{
    return &w->passwords;
}

struct sim_https *sim_world_https(struct sim_world *w)
{
    for (int i = 0; i < w->n_workers; i++)
        w->worker[i].ports.https = &w->https.port;
    return &w->https;
}

struct ports *sim_world_ports(struct sim_world *w, int worker)
{
    return &w->worker[worker].ports;
}

struct engine_shared *sim_world_shared(struct sim_world *w)
{
    return &w->shared;
}

int sim_world_workers(const struct sim_world *w)
{
    return w->n_workers;
}

struct net_addr sim_world_listener(const struct sim_world *w, size_t index)
{
    if (index < w->n_listening)
        return w->listening[index].listener.addr;
    struct net_addr own = w->shared.self[0];
    own.port = 25;
    return own; /* not running: refused there */
}

struct net_addr sim_world_address(const struct sim_world *w, int which)
{
    return w->shared.self[which];
}

size_t sim_world_listeners(const struct sim_world *w)
{
    return w->n_listening;
}

void sim_world_accept_by(struct sim_world *w, int worker)
{
    w->accept_by = worker;
}

size_t sim_world_queued(struct sim_world *w)
{
    return sim_spool_recipients(w->spool);
}

void sim_world_absent(struct sim_world *w, const struct net_addr *addr, bool absent)
{
    sim_uplink_set_absent(w->uplink, addr, absent);
}
