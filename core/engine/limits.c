/* limits.c - token buckets shared by all workers. See limits.h.
 *
 * A table of sets of a few places each: a bucket can stand in any place of its set, so looking and making
 * room cost the same however many there are. Sets share locks, which are held for some nanoseconds. */
#include "engine/limits.h"

#include <pthread.h>

#include "base/hash.h"

enum { SETS = 8192, WAYS = 8, LOCKS = 64 };

struct bucket {
    uint64_t hash;   /* of name, key and rate: two that share one share their limit */
    int64_t full_ns; /* when it is full again; in the past: it is, and the place is free */
};

struct limits {
    pthread_mutex_t lock[LOCKS];
    struct bucket bucket[SETS][WAYS];
};

int limit_rate_parse(struct str text, struct rate *ret)
{
    int r = rate_parse(text, ret);

    if (r == 0 && !ret->burst)
        ret->burst = ret->count;
    return r;
}

/* ---- buckets ---------------------------------------------------------------------------------- */

struct limits *limits_new(void)
{
    struct limits *l = calloc(1, sizeof(*l));

    for (size_t i = 0; l && i < LOCKS; i++)
        pthread_mutex_init(&l->lock[i], NULL);
    return l;
}

struct limits *limits_free(struct limits *l)
{
    for (size_t i = 0; l && i < LOCKS; i++)
        pthread_mutex_destroy(&l->lock[i]);
    free(l);
    return NULL;
}

/* Its place: where it stands, else the one that is nearest to full. */
static struct bucket *place_of(struct bucket *set, uint64_t hash, int64_t now_ns)
{
    struct bucket *best = &set[0];

    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].hash == hash && set[i].full_ns)
            return &set[i];
        if (set[i].full_ns < best->full_ns)
            best = &set[i];
    }
    *best = (struct bucket){ .hash = hash, .full_ns = now_ns };
    return best;
}

int64_t limits_take(struct limits *l, struct str name, struct str key, const struct rate *rate,
                    uint32_t cost, int64_t now_ms)
{
    const uint64_t parts[] = { hash_bytes(name.p, name.n), hash_bytes(key.p, key.n), rate->count,
                               rate->burst, (uint64_t)rate->period_ms };
    uint64_t hash = hash_bytes(parts, sizeof(parts));
    size_t set = hash % SETS;
    int64_t now = now_ms * 1000000;
    /* Each unit delays "full" by this much; `capacity` ahead of now it is empty. */
    double unit = (double)rate->period_ms * 1e6 / rate->count;
    int64_t capacity = (int64_t)(unit * rate->burst);

    pthread_mutex_lock(&l->lock[set % LOCKS]);
    struct bucket *b = place_of(l->bucket[set], hash, now);
    int64_t full = MAX(b->full_ns, now) + (int64_t)(unit * cost);
    int64_t wait = full - now - capacity;
    if (wait <= 0)
        b->full_ns = full;
    pthread_mutex_unlock(&l->lock[set % LOCKS]);
    return wait <= 0 ? 0 : (wait + 999999) / 1000000;
}
