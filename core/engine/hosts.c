/* hosts.c - back-off and limits of remote addresses. See hosts.h. Kept are hosts that failed, whose limit is not
 * the usual one, or that have connections. */
#include "engine/hosts.h"

#include "base/table.h"
#include "engine/pace.h"
#include "engine/queue.h"
#include "engine/turn.h"

enum { HOSTS_MAX = 50000, WHY_MAX = 120, PROBE_MS = 60000 };

struct host_key {
    uint8_t family;
    uint8_t pad;
    uint16_t port;
    uint8_t ip[16];
};

/* All failing hosts (ports) of one address. */
struct peer {
    UT_hash_handle hh;
    uint64_t ip; /* net_addr_hash_ip */
    struct list hosts;
    bool heard; /* mail came from it, at heard_at */
    int64_t heard_at;
};

struct host {
    UT_hash_handle hh;
    struct list link;  /* peer.hosts, while it fails */
    struct peer *peer; /* NULL: it works, as far as known */
    struct host_key key;
    struct net_addr addr;
    uint32_t failures;
    int64_t failed_at;   /* monotonic */
    int64_t retry_at;    /* monotonic */
    int64_t probed;      /* somebody tries it: until then the others do not */
    struct pace pace;    /* of its connections */
    uint32_t open, used; /* connections, and those that are not idle */
    int64_t worked_at;   /* monotonic */
    struct list line;    /* of host_place */
    char why[WHY_MAX];
};

struct hosts {
    struct engine *engine;
    struct peer *peers;
    struct host *table; /* uthash keeps the order of insertion: the oldest is the head */
};

struct hosts *hosts_new(struct engine *e)
{
    struct hosts *h = calloc(1, sizeof *h);
    if (h)
        h->engine = e;
    return h;
}

static atomic_ushort *failing(struct hosts *h, uint64_t ip)
{
    return &h->engine->shared->failing[ip % FAILING_SLOTS];
}

/* It is not counted among those that fail any more. */
static void leave_peer(struct hosts *h, struct host *host)
{
    struct peer *peer = TAKE(host->peer);
    if (!peer)
        return;
    list_remove(&host->link);
    if (list_empty(&peer->hosts)) {
        atomic_fetch_sub_explicit(failing(h, peer->ip), 1, memory_order_relaxed);
        HASH_DEL(h->peers, peer);
        free(peer);
    }
}

static void host_free(struct hosts *h, struct host *host)
{
    leave_peer(h, host);
    LIST_FOREACH(it, &host->line)
    {
        struct host_place *p = LIST_ENTRY(it, struct host_place, link);
        list_remove(&p->link);
        p->host = NULL;
    }
    HASH_DEL(h->table, host);
    free(host);
}

static bool needed(const struct host *host)
{
    return host->open || !list_empty(&host->line);
}

static uint32_t most_of(const struct hosts *h)
{
    return MAX(h->engine->snapshot->settings->queue.host_connections, 1u);
}

static uint32_t limit_of(const struct hosts *h, const struct host *host)
{
    return MIN(host->pace.limit, most_of(h));
}

/* Nothing is known of it that is not so of any other. */
static void settle(struct hosts *h, struct host *host)
{
    bool usual = !host->peer && !host->pace.ceiling && host->pace.limit >= most_of(h);
    if (usual && !needed(host))
        host_free(h, host);
}

static void call(struct hosts *h, struct host *host);

static void forget(struct hosts *h, struct host *host)
{
    leave_peer(h, host);
    host->failures = 0;
    host->retry_at = host->probed = 0;
    host->why[0] = 0;
    pace_init(&host->pace, most_of(h));
    call(h, host);
    settle(h, host);
}

static void forget_all(struct hosts *h)
{
    struct host *host, *tmp;
    HASH_ITER(hh, h->table, host, tmp) {
        forget(h, host);
    }
}

struct hosts *hosts_free(struct hosts *h)
{
    struct host *host, *tmp;
    if (!h)
        return NULL;
    HASH_ITER(hh, h->table, host, tmp) {
        host_free(h, host);
    }
    free(h);
    return NULL;
}

static struct host_key key_of(const struct net_addr *a)
{
    struct host_key k;
    memset(&k, 0, sizeof k);
    k.family = a->family;
    k.port = a->port;
    if (a->family == NET_UNIX) {
        uint64_t hash = hash_bytes(a->path, strlen(a->path));
        memcpy(k.ip, &hash, sizeof hash);
    } else {
        memcpy(k.ip, a->ip, a->family == NET_IPV4 ? 4 : 16);
    }
    return k;
}

static struct host *find(struct hosts *h, const struct net_addr *addr)
{
    struct host_key k = key_of(addr);
    struct host *host = NULL;
    HASH_FIND(hh, h->table, &k, sizeof k, host);
    return host;
}

static struct peer *find_peer(struct hosts *h, uint64_t ip)
{
    struct peer *peer = NULL;
    HASH_FIND(hh, h->peers, &ip, sizeof ip, peer);
    return peer;
}

static struct peer *get_peer(struct hosts *h, uint64_t ip)
{
    struct peer *peer = find_peer(h, ip);
    if (peer)
        return peer;
    peer = calloc(1, sizeof *peer);
    if (!peer)
        return NULL;
    peer->ip = ip;
    list_init(&peer->hosts);
    HASH_ADD(hh, h->peers, ip, sizeof peer->ip, peer);
    if (!peer->hh.tbl) {
        free(peer);
        return NULL;
    }
    atomic_fetch_add_explicit(failing(h, ip), 1, memory_order_relaxed);
    return peer;
}

/* Room for another one. Those that are needed go to the end: they are few. */
static void forget_oldest(struct hosts *h)
{
    for (unsigned n = HASH_COUNT(h->table); n && HASH_COUNT(h->table) >= HOSTS_MAX; n--) {
        struct host *oldest = h->table;
        if (!needed(oldest)) {
            host_free(h, oldest);
            continue;
        }
        HASH_DEL(h->table, oldest);
        HASH_ADD(hh, h->table, key, sizeof oldest->key, oldest);
        CHECK(oldest->hh.tbl != NULL); /* nothing grows */
    }
}

static struct host *add(struct hosts *h, const struct net_addr *addr)
{
    forget_oldest(h);
    struct host *host = calloc(1, sizeof *host);
    if (!host)
        return NULL;
    list_init(&host->link);
    list_init(&host->line);
    host->key = key_of(addr);
    host->addr = *addr;
    host->worked_at = INT64_MIN;
    pace_init(&host->pace, most_of(h));
    HASH_ADD(hh, h->table, key, sizeof host->key, host);
    if (host->hh.tbl)
        return host;
    free(host);
    return NULL;
}

static bool join_peer(struct hosts *h, struct host *host)
{
    if (!host->peer) {
        host->peer = get_peer(h, net_addr_hash_ip(&host->addr));
        if (host->peer)
            list_push(&host->peer->hosts, &host->link);
    }
    return host->peer != NULL;
}

int64_t hosts_wait(struct hosts *h, const struct net_addr *addr)
{
    const struct host *host = find(h, addr);
    int64_t now = engine_now(h->engine);
    return host && host->retry_at > now ? host->retry_at - now : 0;
}

int64_t hosts_failed_at(struct hosts *h, const struct net_addr *addr)
{
    const struct host *host = find(h, addr);
    return host && host->peer ? host->failed_at : INT64_MIN;
}

int64_t hosts_try(struct hosts *h, const struct net_addr *addr)
{
    struct host *host = find(h, addr);
    int64_t now = engine_now(h->engine);
    if (!host || !host->peer)
        return 0;
    int64_t until = MAX(host->retry_at, host->probed);
    if (until > now)
        return until - now;
    host->probed = now + PROBE_MS;
    return 0;
}

static void call_all(struct host *host);

static void went_down(struct hosts *h, struct host *host, struct str why)
{
    const struct settings *set = h->engine->snapshot->settings;
    int64_t now = engine_now(h->engine);
    pace_down(&host->pace);
    call_all(host); /* they go elsewhere, or back off */
    if (!join_peer(h, host)) {
        settle(h, host);
        return;
    }
    str_copy(why, host->why, sizeof host->why);
    host->probed = 0;
    host->failed_at = now;
    if (host->retry_at > now)
        return; /* several connections failed at once: one failure */
    int64_t delay = set->queue.host_retry_ms;
    for (uint32_t i = 0; i < host->failures && delay < set->queue.host_retry_max_ms; i++)
        delay *= 2;
    delay = MIN(delay, set->queue.host_retry_max_ms);
    delay -= (int64_t)(engine_random(h->engine) % (uint64_t)(delay / 10 + 1));
    host->failures++;
    host->retry_at = now + delay;
}

void hosts_failed(struct hosts *h, const struct net_addr *addr, struct str why)
{
    struct host *host = find(h, addr);
    if (turn_is_address(
            addr)) /* that connection has gone for good; the next one has another address */
        return;
    if (!host)
        host = add(h, addr);
    if (host)
        went_down(h, host, why);
}

bool hosts_refused(struct hosts *h, const struct net_addr *addr, int64_t since_ms, struct str why)
{
    struct host *host = find(h, addr);
    uint32_t others = host && host->open ? host->open - 1 : 0;
    /* One connection that was turned is all there is: nothing to be shared. */
    bool alone = !host || host->peer || turn_is_address(addr);
    if (alone || pace_failed(&host->pace, others, host->worked_at > since_ms,
                             engine_now(h->engine)) == PACE_DOWN) {
        hosts_failed(h, addr, why);
        return true;
    }
    char text[NET_ADDR_TEXT];
    engine_event(h->engine,
                 EVENT(EVENT_INFO, "host_limit", F_STRZ("host", net_addr_text(addr, text)),
                       F_INT("connections", limit_of(h, host)), F_STR("why", why)));
    return false;
}

void hosts_forget(struct hosts *h, const struct net_addr *addr)
{
    struct host *host = addr && h->table ? find(h, addr) : NULL;
    if (!addr)
        forget_all(h);
    else if (host)
        forget(h, host);
}

/* ---- signs of life ---------------------------------------------------------------------------- */

static void heard_from(struct engine *e, const struct net_addr *ip)
{
    struct peer *peer = find_peer(e->hosts, net_addr_hash_ip(ip));
    int64_t now = engine_now(e);
    if (!peer || (peer->heard && now - peer->heard_at < e->snapshot->settings->queue.host_retry_ms))
        return;
    peer->heard = true;
    peer->heard_at = now;
    LIST_FOREACH(it, &peer->hosts)
    {
        struct host *host = LIST_ENTRY(it, struct host, link);
        host->retry_at = host->probed = 0;
    }
    queues_heard_from(e->queues, ip);
}

struct sign_of_life {
    struct worker_message wm;
    struct net_addr ip;
};

static void sign_run(struct engine *e, struct worker_message *m)
{
    struct sign_of_life *sign = CONTAINER_OF(m, struct sign_of_life, wm);
    heard_from(e, &sign->ip);
    free(sign);
}

void hosts_heard_from(struct engine *e, const struct net_addr *ip)
{
    struct port_workers *workers = e->ports.workers;
    if (atomic_load_explicit(failing(e->hosts, net_addr_hash_ip(ip)), memory_order_relaxed) == 0)
        return;
    for (int i = 0; i < workers->count; i++) {
        struct sign_of_life *sign = i == workers->self ? NULL : calloc(1, sizeof *sign);
        if (i == workers->self)
            heard_from(e, ip);
        if (!sign)
            continue; /* without memory the next probe comes by itself */
        sign->wm.run = sign_run;
        sign->ip = *ip;
        workers->post(workers, i, &sign->wm);
    }
}

void hosts_worked(struct hosts *h, const struct net_addr *addr)
{
    struct host *host = find(h, addr);
    if (!host)
        return;
    if (host->peer) {
        hosts_heard_from(h->engine, addr); /* while it is known here who waits */
        leave_peer(h, host);
        host->failures = 0;
        host->retry_at = host->probed = 0;
        host->why[0] = 0;
    }
    const struct settings *set = h->engine->snapshot->settings;
    struct pace_bounds b = { .start = MIN(set->queue.concurrency, most_of(h)), .most = most_of(h) };
    host->worked_at = engine_now(h->engine);
    pace_worked(&host->pace, &b, host->used, host->worked_at);
    if (!list_empty(&host->line))
        call(h, host);
    settle(h, host);
}

struct str hosts_why(struct hosts *h, const struct net_addr *addr)
{
    const struct host *host = find(h, addr);
    return host ? str_of(host->why) : STR_NONE;
}

/* ---- connections ------------------------------------------------------------------------------ */

struct host *hosts_opened(struct hosts *h, const struct net_addr *addr)
{
    struct host *host = find(h, addr);
    if (!host)
        host = add(h, addr);
    if (host) {
        host->open++;
        host->used++;
    }
    return host;
}

void hosts_in_use(struct host *host)
{
    host->used++;
}

void hosts_idle(struct hosts *h, struct host *host)
{
    CHECK(host->used > 0);
    host->used--;
    if (!list_empty(&host->line))
        call(h, host);
}

void hosts_closed(struct hosts *h, struct host *host, bool was_in_use)
{
    CHECK(host->open > 0 && (!was_in_use || host->used > 0));
    host->open--;
    host->used -= was_in_use;
    if (!list_empty(&host->line))
        call(h, host);
    settle(h, host);
}

bool hosts_full(struct hosts *h, const struct net_addr *addr)
{
    const struct host *host = find(h, addr);
    return host && host->open >= limit_of(h, host);
}

/* ---- the line --------------------------------------------------------------------------------- */

static void call_one(struct host_place *p)
{
    if (p->state != PLACE_WAITS)
        return;
    p->state = PLACE_CALLED;
    p->wake(p);
}

static void call_all(struct host *host)
{
    LIST_FOREACH(it, &host->line)
    {
        call_one(LIST_ENTRY(it, struct host_place, link));
    }
}

/* As many as there is room for, from the front. Who was called keeps its place until it has been served. */
static void call(struct hosts *h, struct host *host)
{
    uint32_t limit = limit_of(h, host), free = host->used < limit ? limit - host->used : 0;
    LIST_FOREACH(it, &host->line)
    {
        if (free-- == 0)
            return;
        call_one(LIST_ENTRY(it, struct host_place, link));
    }
}

void hosts_place_init(struct host_place *p, void (*wake)(struct host_place *p))
{
    *p = (struct host_place){ .wake = wake };
    list_init(&p->link);
}

bool hosts_room(struct hosts *h, const struct net_addr *addr, const struct host_place *mine,
                bool forced)
{
    const struct host *host = find(h, addr);
    if (!host || (host->peer && !forced)) /* one that fails is tried by one at a time: hosts_try */
        return true;
    if (host->used >= limit_of(h, host))
        return false;
    return list_empty(&host->line) || (mine && mine->host == host);
}

static void unlink_place(struct host_place *p)
{
    list_remove(&p->link);
    p->host = NULL;
    p->state = PLACE_WAITS;
}

void hosts_stand(struct hosts *h, const struct net_addr *addr, struct host_place *p)
{
    struct host *host = find(h, addr);
    bool first = false;
    if (p->host && p->host == host) {
        if (p->state != PLACE_COMING)
            return;
        first = true;
        unlink_place(p);
    }
    hosts_leave(h, p);
    if (!host)
        host = add(h, addr);
    if (!host) { /* without memory it is not waited for, but tried again */
        p->wake(p);
        return;
    }
    p->host = host;
    if (first)
        list_unshift(&host->line, &p->link);
    else
        list_push(&host->line, &p->link);
    call(h, host);
}

void hosts_served(struct hosts *h, const struct net_addr *addr, struct host_place *p)
{
    struct host *host = p->host;
    if (!host || host != find(h, addr))
        return;
    unlink_place(p);
    if (list_empty(&host->line))
        return;
    p->host = host;
    list_push(&host->line, &p->link);
    call(h, host);
}

void hosts_leave(struct hosts *h, struct host_place *p)
{
    struct host *host = p->host;
    if (!host)
        return;
    unlink_place(p);
    call(h, host);
    settle(h, host);
}

bool hosts_place_status(struct hosts *h, const struct host_place *p, struct host_limit *ret)
{
    if (!p->host)
        return false;
    *ret = (struct host_limit){ .in_use = p->host->used, .limit = limit_of(h, p->host) };
    ret->addr = p->host->addr;
    LIST_FOREACH(it, &p->host->line)
    {
        ret->line++;
    }
    return true;
}
