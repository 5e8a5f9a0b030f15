/* sources.c - local addresses: what each may do, and which is taken. See sources.h. */
#include "engine/sources.h"

#include <pthread.h>

#include "engine/queue.h"

enum {
    MISSING_MS = 60000, /* so long it is not tried again */
    OTHERS_MS = 1000,   /* what other workers let go is looked for so often */
};

struct sources {
    pthread_mutex_t lock; /* of who takes a new place */
    size_t n;             /* under the lock */
    struct source place[SOURCES_PLACES];
};

/* ---- the table -------------------------------------------------------------------------------- */

struct sources *sources_new(void)
{
    struct sources *s = calloc(1, sizeof *s);
    if (s)
        pthread_mutex_init(&s->lock, NULL);
    return s;
}

struct sources *sources_free(struct sources *s)
{
    if (s)
        pthread_mutex_destroy(&s->lock);
    free(s);
    return NULL;
}

/* Its place, or the free one where it would stand. Places are never given up, and half of them stay free. */
static struct source *find(struct sources *s, const struct net_addr *addr)
{
    for (size_t i = net_addr_hash_ip(addr) % SOURCES_PLACES;; i = (i + 1) % SOURCES_PLACES) {
        struct source *p = &s->place[i];
        if (!atomic_load_explicit(&p->used, memory_order_acquire) ||
            net_addr_same_ip(&p->addr, addr))
            return p;
    }
}

struct source *sources_get(struct sources *s, const struct net_addr *addr)
{
    if (!s)
        return NULL;
    struct source *p = find(s, addr);
    if (atomic_load_explicit(&p->used, memory_order_acquire))
        return p;
    pthread_mutex_lock(&s->lock);
    p = find(s, addr);
    if (!atomic_load_explicit(&p->used, memory_order_relaxed) && s->n == SOURCES_MAX) {
        p = NULL;
    } else if (!atomic_load_explicit(&p->used, memory_order_relaxed)) {
        p->addr = *addr;
        p->addr.port = 0;
        s->n++;
        atomic_store_explicit(&p->used, true, memory_order_release);
    }
    pthread_mutex_unlock(&s->lock);
    return p;
}

struct source *sources_at(struct sources *s, size_t i)
{
    return atomic_load_explicit(&s->place[i].used, memory_order_acquire) ? &s->place[i] : NULL;
}

size_t sources_place(const struct sources *s, const struct source *source)
{
    return (size_t)(source - s->place);
}

bool source_enter(struct source *s, uint32_t concurrency)
{
    unsigned open = atomic_load(&s->open);
    do {
        if (concurrency && open >= concurrency)
            return false;
    } while (!atomic_compare_exchange_weak(&s->open, &open, open + 1));
    atomic_fetch_add_explicit(&s->connections, 1, memory_order_relaxed);
    return true;
}

void source_leave(struct source *s)
{
    atomic_fetch_sub(&s->open, 1);
}

const struct source_settings *sources_allowed(const struct settings *set,
                                              const struct net_addr *addr)
{
    for (size_t i = 0; i < set->n_sources; i++)
        if (net_addr_same_ip(&set->sources[i].addr, addr))
            return &set->sources[i];
    return NULL;
}

/* ---- choosing --------------------------------------------------------------------------------- */

/* One of the route's addresses, while one is chosen. */
struct candidate {
    struct source *source;
    const struct source_settings *allowed;
    struct net_addr addr;
    bool idle; /* a connection from it can be used */
};

static bool is_missing(const struct engine *e, const struct source *s)
{
    return s && atomic_load_explicit(&s->missing_until, memory_order_relaxed) > engine_now(e);
}

/* Those of the host's family. */
static size_t find_candidates(struct engine *e, struct snapshot *snapshot,
                              const struct route *route, struct session_out_key *key,
                              struct candidate *ret)
{
    struct net_addr all[ROUTE_MAX_SOURCES];
    size_t n_all = route_sources(route, all), n = 0;
    for (size_t i = 0; i < n_all; i++) {
        if (all[i].family != key->addr.family)
            continue;
        key->source = all[i];
        ret[n++] = (struct candidate){ .addr = all[i],
                                       .source = sources_get(e->shared->sources, &all[i]),
                                       .allowed = sources_allowed(snapshot->settings, &all[i]),
                                       .idle = session_out_is_idle(e, key, snapshot) };
    }
    key->source = (struct net_addr){ 0 };
    return n;
}

static unsigned connections_of(const struct candidate *c)
{
    return c->source ? atomic_load_explicit(&c->source->open, memory_order_relaxed) : 0;
}

/* Better ones first; `turn` decides among equals. */
static void sort_candidates(struct candidate *c, size_t n, size_t turn)
{
    for (size_t i = 0; i < turn % n; i++) { /* at most ROUTE_MAX_SOURCES of them */
        struct candidate first = c[0];
        memmove(c, c + 1, (n - 1) * sizeof *c);
        c[n - 1] = first;
    }
    for (size_t i = 1; i < n; i++)
        for (size_t k = i; k > 0; k--) {
            bool better = c[k].idle != c[k - 1].idle
                              ? c[k].idle
                              : connections_of(&c[k]) < connections_of(&c[k - 1]);
            if (!better)
                break;
            struct candidate other = c[k];
            c[k] = c[k - 1];
            c[k - 1] = other;
        }
}

/* 0: all that it needs is taken. Else when to ask again. */
static int64_t take(struct engine *e, const struct candidate *c, struct source_choice *ret)
{
    uint32_t most = c->allowed ? c->allowed->concurrency : 0;
    const struct rate *rate = c->allowed && c->allowed->rate.count ? &c->allowed->rate : NULL;
    *ret = (struct source_choice){ .addr = c->addr, .source = c->source };
    if (!c->source)
        return 0;
    int64_t wait =
        rate ? throttle_admit(&c->source->throttle, rate, engine_now(e), &ret->ticket) : 0;
    if (wait > 0)
        return wait;
    if (c->idle)
        return 0;
    ret->entered = source_enter(c->source, most);
    if (!ret->entered && session_out_make_room(e, &c->addr))
        ret->entered = source_enter(c->source, most);
    if (ret->entered)
        return 0;
    source_drop(e, ret);
    return OTHERS_MS;
}

enum source_answer source_choose(struct engine *e, struct snapshot *snapshot,
                                 const struct route *route, struct session_out_key *key,
                                 struct source_choice *ret, int64_t *ret_wait_ms)
{
    struct candidate c[ROUTE_MAX_SOURCES];
    size_t n, missing = 0;
    *ret = (struct source_choice){ 0 };
    *ret_wait_ms = INT64_MAX;
    if (!route->source.n || key->addr.family == NET_UNIX)
        return SOURCE_CHOSEN;
    n = find_candidates(e, snapshot, route, key, c);
    if (n == 0)
        return SOURCE_NONE_FITS;
    sort_candidates(c, n, e->source_turn++);
    for (size_t i = 0; i < n; i++) {
        if (!c[i].idle && is_missing(e, c[i].source)) {
            missing++;
            continue;
        }
        int64_t wait = take(e, &c[i], ret);
        if (wait == 0) {
            key->source = ret->addr;
            key->place = ret->entered ? ret->source : NULL;
            return SOURCE_CHOSEN;
        }
        *ret_wait_ms = MIN(*ret_wait_ms, wait);
    }
    if (missing < n)
        return SOURCE_ALL_BUSY;
    ret->addr = c[0].addr;
    *ret_wait_ms = MISSING_MS;
    return SOURCE_MISSING;
}

void source_spend(struct engine *e, const struct settings *set, struct source_choice *c)
{
    const struct source_settings *allowed = c->source ? sources_allowed(set, &c->addr) : NULL;
    if (!c->source)
        return;
    atomic_fetch_add_explicit(&c->source->messages, 1, memory_order_relaxed);
    if (!c->ticket.rate.count && allowed && allowed->rate.count)
        throttle_charge(&c->source->throttle, &allowed->rate, engine_now(e));
    c->ticket = (struct throttle_ticket){ 0 };
}

void source_drop(struct engine *e, struct source_choice *c)
{
    bool freed = c->entered || c->ticket.rate.count;
    if (c->ticket.rate.count)
        throttle_cancel(&c->source->throttle, &c->ticket);
    if (c->entered)
        source_leave(c->source);
    c->entered = false;
    if (freed)
        queues_source_freed(e->queues);
}

bool source_is_missing(struct engine *e, const struct source_choice *c)
{
    int64_t now = engine_now(e);
    if (!c->source)
        return true;
    return atomic_exchange(&c->source->missing_until, now + MISSING_MS) <= now;
}

/* How many messages more it could begin; UINT32_MAX: any number. */
static uint32_t room_of(struct engine *e, struct source *s, const struct source_settings *allowed,
                        int64_t *wait_ms)
{
    uint32_t room = UINT32_MAX;
    if (is_missing(e, s)) {
        *wait_ms = MIN(*wait_ms, MAX(atomic_load(&s->missing_until) - engine_now(e), INT64_C(1)));
        return 0;
    }
    if (!s || !allowed)
        return UINT32_MAX;
    if (allowed->concurrency) {
        unsigned open = atomic_load(&s->open),
                 idle = session_out_count_idle(e, sources_place(e->shared->sources, s));
        room = open < allowed->concurrency ? allowed->concurrency - open : 0;
        room += idle;
        if (room == 0)
            *wait_ms = MIN(*wait_ms, (int64_t)OTHERS_MS);
    }
    if (allowed->rate.count) {
        int64_t wait = throttle_wait(&s->throttle, &allowed->rate, engine_now(e));
        if (wait > 0)
            *wait_ms = MIN(*wait_ms, wait);
        room = MIN(room, wait > 0 ? 0 : throttle_left(&s->throttle, &allowed->rate, engine_now(e)));
    }
    return room;
}

int64_t sources_wait(struct engine *e, const struct route *route, const uint32_t *expected,
                     size_t *ret_place)
{
    const struct settings *set = e->snapshot->settings;
    struct net_addr all[ROUTE_MAX_SOURCES];
    size_t n = route->source.n ? route_sources(route, all) : 0;
    int64_t wait = OTHERS_MS; /* of what is expected, or let go elsewhere, nobody tells */
    uint32_t most = 0;
    *ret_place = SOURCES_PLACES;
    for (size_t i = 0; i < n; i++) {
        struct source *s = sources_get(e->shared->sources, &all[i]);
        uint32_t room = room_of(e, s, sources_allowed(set, &all[i]), &wait);
        if (room == UINT32_MAX) { /* one without a limit is enough */
            *ret_place = SOURCES_PLACES;
            return 0;
        }
        size_t place = sources_place(e->shared->sources, s);
        uint32_t left = room > expected[place] ? room - expected[place] : 0;
        if (left > most) {
            most = left;
            *ret_place = place;
        }
    }
    return n == 0 || most > 0 ? 0 : wait;
}
