/* lanes.c - the limits of fallbacks. See lanes.h. A set of a few places for each hash, as in limits.c. */
#include "engine/lanes.h"

#include <pthread.h>

#include "base/hash.h"

enum { SETS = 1024, WAYS = 8, LOCKS = 16, BUSY_MS = 1000 };

struct lane {
    uint64_t name; /* a hash; 0: the place is free */
    uint32_t open;
    struct throttle throttle;
};

struct lanes {
    pthread_mutex_t lock[LOCKS];
    struct lane lane[SETS][WAYS];
};

struct lanes *lanes_new(void)
{
    struct lanes *l = calloc(1, sizeof *l);
    for (size_t i = 0; l && i < LOCKS; i++)
        pthread_mutex_init(&l->lock[i], NULL);
    return l;
}

struct lanes *lanes_free(struct lanes *l)
{
    for (size_t i = 0; l && i < LOCKS; i++)
        pthread_mutex_destroy(&l->lock[i]);
    free(l);
    return NULL;
}

/* Where it stands. make: else one that nobody needs to remember. NULL: there is none. */
static struct lane *find(struct lanes *l, uint64_t name, bool make, int64_t now_ms)
{
    struct lane *set = l->lane[name % SETS], *spare = NULL;
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].name == name)
            return &set[i];
        if (make && !set[i].open && !throttle_known_for(&set[i].throttle, now_ms))
            spare = &set[i];
    }
    if (spare) {
        spare->name = name;
        atomic_store(&spare->throttle.state, 0);
    }
    return spare;
}

static int64_t enter(struct lane *lane, const struct route *r, int64_t now_ms,
                     struct lane_pass *ret)
{
    if (r->concurrency && lane->open >= r->concurrency)
        return BUSY_MS;
    if (r->rate.count) {
        int64_t wait = throttle_admit(&lane->throttle, &r->rate, now_ms, &ret->ticket);
        if (wait > 0)
            return wait;
    }
    lane->open++;
    ret->name = lane->name;
    return 0;
}

int64_t lanes_enter(struct lanes *l, const struct route *fallback, int64_t now_ms,
                    struct lane_pass *ret)
{
    *ret = (struct lane_pass){ 0 };
    if (!l || (!fallback->concurrency && !fallback->rate.count))
        return 0;
    uint64_t name = hash_bytes(fallback->queue.p, fallback->queue.n) | 1;
    pthread_mutex_t *lock = &l->lock[name % SETS % LOCKS];
    pthread_mutex_lock(lock);
    struct lane *lane = find(l, name, true, now_ms);
    int64_t wait = lane ? enter(lane, fallback, now_ms, ret) : 0;
    pthread_mutex_unlock(lock);
    return wait;
}

void lanes_leave(struct lanes *l, struct lane_pass *pass)
{
    if (!pass->name)
        return;
    pthread_mutex_t *lock = &l->lock[pass->name % SETS % LOCKS];
    pthread_mutex_lock(lock);
    struct lane *lane = find(l, pass->name, false, 0);
    if (lane) {
        throttle_cancel(&lane->throttle, &pass->ticket);
        lane->open--;
    }
    pthread_mutex_unlock(lock);
    pass->name = 0;
}
