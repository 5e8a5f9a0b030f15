/* clients.c - what each client does, over all workers. Layer: engine. Interface: clients.h.
 *
 * Connections: a table of sets of a few places each, as in limits.c; a place is free when its count is 0.
 * Rates: token buckets of their own (limits.h), so that a flood does not push out those of policies.
 */
#include "engine/clients.h"

#include <pthread.h>

#include "base/hash.h"
#include "engine/limits.h"

enum { SETS = 8192, WAYS = 8, LOCKS = 64 };

struct place {
    uint64_t key;
    uint32_t connections; /* 0: the place is free */
};

struct clients {
    struct limits *rates;
    pthread_mutex_t lock[LOCKS];
    struct place place[SETS][WAYS];
};

struct clients *clients_new(void)
{
    struct clients *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    for (size_t i = 0; i < LOCKS; i++)
        pthread_mutex_init(&c->lock[i], NULL);
    c->rates = limits_new();
    return c->rates ? c : clients_free(c);
}

struct clients *clients_free(struct clients *c)
{
    if (!c)
        return NULL;
    for (size_t i = 0; i < LOCKS; i++)
        pthread_mutex_destroy(&c->lock[i]);
    limits_free(c->rates);
    free(c);
    return NULL;
}

uint64_t clients_key(const struct settings *set, const struct net_addr *addr)
{
    bool v6 = addr->family == NET_IPV6;
    uint32_t bits = v6 ? set->clients.ipv6_prefix : set->clients.ipv4_prefix;
    uint8_t network[1 + sizeof(addr->ip)] = { addr->family };

    if ((addr->family != NET_IPV4 && !v6) ||
        net_cidrs_contain(set->clients.exempt, set->clients.n_exempt, addr))
        return 0;
    bits = MIN(bits, v6 ? 128u : 32u);
    memcpy(network + 1, addr->ip, bits / 8);
    if (bits % 8)
        network[1 + bits / 8] = (uint8_t)(addr->ip[bits / 8] & (0xff00u >> bits % 8));
    uint64_t key = hash_bytes(network, sizeof(network));
    return key ? key : 1;
}

/* Where it stands, else (if any is free) a free place, else NULL. */
static struct place *find(struct place *set, uint64_t key)
{
    struct place *empty = NULL;

    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].connections && set[i].key == key)
            return &set[i];
        if (!set[i].connections)
            empty = &set[i];
    }
    return empty;
}

bool clients_enter(struct clients *c, uint64_t key, uint32_t limit)
{
    bool may = true;

    if (!c || !key)
        return true;
    size_t set = key % SETS;
    pthread_mutex_lock(&c->lock[set % LOCKS]);
    struct place *p = find(c->place[set], key);
    if (p && limit && p->connections >= limit)
        may = false;
    else if (p)
        *p = (struct place){ key, p->connections + 1 };
    pthread_mutex_unlock(&c->lock[set % LOCKS]);
    return may;
}

void clients_leave(struct clients *c, uint64_t key)
{
    if (!c || !key)
        return;
    size_t set = key % SETS;
    pthread_mutex_lock(&c->lock[set % LOCKS]);
    struct place *p = find(c->place[set], key);
    if (p && p->connections)
        p->connections--;
    pthread_mutex_unlock(&c->lock[set % LOCKS]);
}

uint32_t clients_connections(struct clients *c, uint64_t key)
{
    size_t set = key % SETS;

    pthread_mutex_lock(&c->lock[set % LOCKS]);
    const struct place *p = find(c->place[set], key);
    uint32_t n = p ? p->connections : 0;
    pthread_mutex_unlock(&c->lock[set % LOCKS]);
    return n;
}

bool clients_may(struct clients *c, uint64_t key, const struct settings *set, enum clients_use use,
                 int64_t now_ms)
{
    const struct rate *rate = use == CLIENTS_CONNECTION ? &set->clients.connection_rate
                              : use == CLIENTS_MESSAGE  ? &set->clients.message_rate
                                                        : &set->clients.recipient_rate;
    const uint8_t name = (uint8_t)use;

    if (!c || !key || !rate->count)
        return true;
    return limits_take(c->rates, str_make(&name, 1), str_make(&key, sizeof(key)), rate, 1,
                       now_ms) == 0;
}
