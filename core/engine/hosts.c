/* hosts.c - back-off of remote addresses. See hosts.h. Only hosts that failed are kept. */
#include "engine/hosts.h"

#include "base/table.h"
#include "engine/queue.h"

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
    struct list link;
    struct peer *peer;
    struct host_key key;
    uint32_t failures;
    int64_t retry_at; /* monotonic */
    int64_t probed;   /* somebody tries it: until then the others do not */
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

static void forget(struct hosts *h, struct host *host)
{
    struct peer *peer = host->peer;
    list_remove(&host->link);
    if (list_empty(&peer->hosts)) {
        atomic_fetch_sub_explicit(failing(h, peer->ip), 1, memory_order_relaxed);
        HASH_DEL(h->peers, peer);
        free(peer);
    }
    HASH_DEL(h->table, host);
    free(host);
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
    if (h)
        forget_all(h);
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

static struct host *add(struct hosts *h, const struct net_addr *addr)
{
    if (HASH_COUNT(h->table) >= HOSTS_MAX)
        forget(h, h->table);
    struct host *host = calloc(1, sizeof *host);
    if (!host)
        return NULL;
    list_init(&host->link);
    host->key = key_of(addr);
    HASH_ADD(hh, h->table, key, sizeof host->key, host);
    if (!host->hh.tbl) {
        free(host);
        return NULL;
    }
    host->peer = get_peer(h, net_addr_hash_ip(addr));
    if (host->peer) {
        list_push(&host->peer->hosts, &host->link);
        return host;
    }
    HASH_DEL(h->table, host);
    free(host);
    return NULL;
}

int64_t hosts_wait(struct hosts *h, const struct net_addr *addr)
{
    const struct host *host = find(h, addr);
    int64_t now = engine_now(h->engine);
    return host && host->retry_at > now ? host->retry_at - now : 0;
}

int64_t hosts_try(struct hosts *h, const struct net_addr *addr)
{
    struct host *host = find(h, addr);
    int64_t now = engine_now(h->engine);
    if (!host)
        return 0;
    int64_t until = MAX(host->retry_at, host->probed);
    if (until > now)
        return until - now;
    host->probed = now + PROBE_MS;
    return 0;
}

void hosts_failed(struct hosts *h, const struct net_addr *addr, struct str why)
{
    const struct settings *set = h->engine->snapshot->settings;
    int64_t now = engine_now(h->engine);
    struct host *host = find(h, addr);
    if (!host)
        host = add(h, addr);
    if (!host)
        return;
    str_copy(why, host->why, sizeof host->why);
    host->probed = 0;
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
    if (!h->table || !find(h, addr))
        return;
    hosts_heard_from(h->engine, addr); /* while it is known here who waits */
    hosts_forget(h, addr);
}

struct str hosts_why(struct hosts *h, const struct net_addr *addr)
{
    const struct host *host = find(h, addr);
    return host ? str_of(host->why) : STR_NONE;
}
