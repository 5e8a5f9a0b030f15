/* session_out_pool.c - the connections that are open, and those of them that are idle.
 *
 * Layer: engine. See session_out_impl.h.
 */
#include "base/hash.h"
#include "engine/session_out_impl.h"
#include "engine/turn.h"

struct connections *connections_new(struct engine *e)
{
    struct connections *all = calloc(1, sizeof *all);
    if (!all)
        return NULL;
    all->engine = e;
    list_init(&all->open);
    list_init(&all->quitting);
    for (size_t i = 0; i < SESSION_OUT_BUCKETS; i++)
        list_init(&all->idle[i]);
    buf_init(&all->bytes, 0);
    return all;
}

static size_t bucket_of(const struct net_addr *a)
{
    if (a->family == NET_UNIX)
        return hash_bytes(a->path, strlen(a->path)) % SESSION_OUT_BUCKETS;
    return (hash_bytes(a->ip, a->family == NET_IPV4 ? 4 : 16) ^ a->port) % SESSION_OUT_BUCKETS;
}

static bool same_key(const struct session_out_key *a, const struct session_out_key *b)
{
    return a->lmtp == b->lmtp && a->tls == b->tls && net_addr_eq(&a->addr, &b->addr) &&
           net_addr_eq(&a->source, &b->source) && str_eq(a->auth, b->auth) &&
           str_eq(a->dane, b->dane) && str_eq(a->certificate, b->certificate) &&
           (a->tls == ROUTE_TLS_NONE || str_caseeq(a->name, b->name));
}

static void free_all(struct list *l)
{
    LIST_FOREACH(it, l)
    {
        session_out_free(LIST_ENTRY(it, struct session_out, link));
    }
}

struct connections *connections_free(struct connections *all)
{
    if (!all)
        return NULL;
    free_all(&all->open);
    free_all(&all->quitting);
    buf_done(&all->bytes);
    free(all);
    return NULL;
}

size_t connections_open(const struct connections *all)
{
    return all->n;
}

struct session_out *pool_find_idle(struct connections *all, const struct session_out_key *key,
                                   struct snapshot *snapshot)
{
    int64_t now = engine_now(all->engine);
    LIST_FOREACH(it, &all->idle[bucket_of(&key->addr)])
    {
        struct session_out *s = LIST_ENTRY(it, struct session_out, bucket);
        if (s->state == IDLE && same_key(&s->key, key) && s->snapshot == snapshot &&
            (!key->domain.n || smtp_client_admits_domain(s->client, key->domain)) &&
            now - s->opened_ms < snapshot->settings->queue.connection_ms)
            return s;
    }
    return NULL;
}

void pool_add_idle(struct session_out *s)
{
    list_remove(&s->bucket);
    list_unshift(&s->all->idle[bucket_of(&s->key.addr)], &s->bucket);
}

bool session_out_is_idle(struct engine *e, const struct session_out_key *key,
                         struct snapshot *snapshot)
{
    return pool_find_idle(e->connections, key, snapshot) != NULL;
}

/* source: from that one, or NULL: from any. */
static bool can_be_closed(const struct session_out *s, const struct net_addr *source)
{
    return s->state == IDLE && !s->working && (!source || net_addr_same_ip(&s->key.source, source));
}

/* At once, so that what is opened in its place does not come before its end. */
static void close_idle(struct session_out *s)
{
    if (turn_is_address(&s->key.addr)) {
        session_out_quit(s);
        return;
    }
    smtp_client_quit(s->client);
    session_out_flush(s);
    session_out_close(s);
}

/* Makes room for another: what is kept in case it is of use must not keep anybody out. */
bool pool_make_room(struct connections *all, const struct net_addr *source)
{
    LIST_FOREACH(it, &all->open)
    {
        struct session_out *s = LIST_ENTRY(it, struct session_out, link);
        if (can_be_closed(s, source)) {
            close_idle(s);
            return true;
        }
    }
    return false;
}

/* The same at one host, which takes no more. */
void pool_make_room_at(struct connections *all, const struct net_addr *addr)
{
    LIST_FOREACH(it, &all->idle[bucket_of(addr)])
    {
        struct session_out *s = LIST_ENTRY(it, struct session_out, bucket);
        if (net_addr_eq(&s->key.addr, addr) && can_be_closed(s, NULL)) {
            close_idle(s);
            return;
        }
    }
}

unsigned session_out_count_idle(const struct engine *e, size_t place)
{
    return e->connections->idle_at[place];
}

bool session_out_make_room(struct engine *e, const struct net_addr *source)
{
    return pool_make_room(e->connections, source);
}

void connections_close_idle(struct connections *all)
{
    for (size_t i = 0; i < SESSION_OUT_BUCKETS; i++)
        LIST_FOREACH(it, &all->idle[i])
        {
            session_out_quit(LIST_ENTRY(it, struct session_out, bucket));
        }
}
