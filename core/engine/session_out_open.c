/* session_out_open.c - a connection for a user: one that is idle, or a new one. See session_out.h. */
#include "engine/session_out_impl.h"

#include "engine/hosts.h"
#include "engine/turn.h"

static void tell_ready(struct later *l)
{
    struct session_out *s = CONTAINER_OF(l, struct session_out, later);
    if (s->state != BUSY || !s->ev)
        return;
    s->working = true;
    s->ev->ready(s->owner);
    s->working = false;
    if (s->state == GONE)
        session_out_free(s);
    else
        session_out_work(s);
}

/* The name that belongs to the address, for those who compare the two. */
static struct str own_name(const struct settings *set, const struct net_addr *source)
{
    const struct source_settings *own =
        source->family == NET_NONE ? NULL : sources_allowed(set, source);
    return own && own->hostname.n ? own->hostname : set->hostname;
}

static enum smtp_client_tls starttls_of(enum route_tls tls)
{
    switch (tls) {
    case ROUTE_TLS_NONE: return SMTP_TLS_NEVER;
    case ROUTE_TLS_OPPORTUNISTIC: return SMTP_TLS_IF_OFFERED;
    case ROUTE_TLS_REQUIRE:
    case ROUTE_TLS_VERIFY:
    case ROUTE_TLS_DANE: return SMTP_TLS_REQUIRED;
    }
    return SMTP_TLS_REQUIRED;
}

/* Of SCRAM: 24 octets of chance, as text. */
static struct str make_nonce(struct session_out *s)
{
    const struct engine *e = s->all->engine;
    unsigned long long a = engine_random(e), b = engine_random(e), c = engine_random(e);
    return arena_printf(&s->arena, "%016llx%016llx%016llx", a, b, c);
}

static struct stream *dial(struct session_out *s)
{
    struct engine *e = s->all->engine;
    const struct session_out_key *key = &s->key;
    if (turn_is_address(&key->addr))
        return turn_dial(e, &key->addr, &session_out_stream_events, s);
    return e->ports.net->dial(e->ports.net, &key->addr,
                              key->source.family == NET_NONE ? NULL : &key->source,
                              &session_out_stream_events, s);
}

/* A key without its name, its records or its credentials would be that of another connection. False: out of
 * memory. */
static bool keep_key(struct session_out *s, const struct session_out_key *key)
{
    s->key = *key;
    s->key.name = arena_str(&s->arena, key->name);
    s->key.auth = arena_str(&s->arena, key->auth);
    s->key.dane = arena_str(&s->arena, key->dane);
    s->key.certificate = arena_str(&s->arena, key->certificate);
    s->key.domain = STR_NONE;
    return s->key.name.n == key->name.n && s->key.auth.n == key->auth.n &&
           s->key.dane.n == key->dane.n && s->key.certificate.n == key->certificate.n;
}

/* NULL: out of memory. */
static struct smtp_client *client_for(struct session_out *s, const struct settings *set)
{
    struct smtp_client_options opt = { .hostname = own_name(set, &s->key.source),
                                       .lmtp = s->key.lmtp,
                                       .starttls = starttls_of(s->key.tls) };
    if (s->credentials) {
        opt.user = s->credentials->user;
        opt.password = s->credentials->password;
        opt.auth_in_clear = s->credentials->allow_clear;
        opt.mechanisms = s->credentials->mechanisms;
        opt.nonce = make_nonce(s);
        if (!opt.nonce.p)
            return NULL;
    }
    return smtp_client_new(&opt);
}

static struct session_out *session_new(struct connections *all, const struct session_out_key *key,
                                       struct snapshot *snapshot)
{
    struct engine *e = all->engine;
    struct session_out *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->all = all;
    s->snapshot = snapshot_ref(snapshot);
    arena_init(&s->arena, 0);
    list_init(&s->bucket);
    later_init(&s->later, tell_ready);
    timer_init(&s->timer, session_out_on_timer);
    bool whole = keep_key(s, key);
    if (key->auth.n)
        s->credentials = credentials_ref(hooks_credentials(snapshot->hooks, key->auth));
    s->opened_ms = engine_now(e);
    s->host = hosts_opened(e->hosts, &key->addr);
    list_push(&all->open, &s->link);
    all->n++;
    COUNT(e, connections_out, 1);
    COUNT(e, connections_out_open, 1);
    if (whole && (!key->auth.n || s->credentials)) /* never as somebody else, or as nobody */
        s->client = client_for(s, snapshot->settings);
    if (s->client)
        s->stream = dial(s);
    if (s->stream)
        return s;
    session_out_free(s);
    return NULL;
}

struct session_out *session_out_open(struct engine *e, const struct session_out_key *key,
                                     struct snapshot *snapshot, const struct session_out_events *ev,
                                     void *owner)
{
    struct connections *all = e->connections;
    struct session_out *s = pool_find_idle(all, key, snapshot);
    if (s) {
        list_remove(&s->bucket);
        session_out_count(s, -1);
        s->state = BUSY;
        if (s->host)
            hosts_in_use(s->host);
        s->reused = true;
        s->done_told = false;
        COUNT(e, connections_out_reused, 1);
        engine_later(e, &s->later);
    } else {
        if (all->n >= snapshot->settings->queue.connections && !pool_make_room(all, NULL))
            return NULL;
        if (hosts_full(e->hosts, &key->addr))
            pool_make_room_at(all, &key->addr);
        s = session_new(all, key, snapshot);
        if (!s)
            return NULL;
        s->state = OPENING;
        s->source = key->place;
        session_out_set_deadline(s, true);
    }
    s->ev = ev;
    s->owner = owner;
    return s;
}
