/* lanes.c - the limits of fallbacks. See lanes.h. A set of a few places for each hash, as in limits.c. */
#include "engine/lanes.h"

#include <pthread.h>

#include "base/hash.h"

enum {
    SETS = 1024,
    WAYS = 8,
    LOCKS = 16,
    BUSY_MS = 1000,
    STEP_MS = 50,   /* for each place in the line: then it asks again */
    LATE_MS = 3000, /* so late it is still waited for */
    GONE_MS = 10 * 60 * 1000,
    RATE_AT_ONCE = 8, /* of the line may try what the rate allows: one alone would use up less */
};

struct waiter {
    uint64_t who;
    int64_t back_ms; /* when it was told to ask again */
};

struct lane {
    uint64_t name; /* a hash; 0: the place is free */
    uint32_t open, n_line;
    struct throttle throttle;
    struct waiter line[LANE_LINE]; /* the first n_line, longest first */
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

/* ---- the line ---------------------------------------------------------------------------------- */

static void leave_line(struct lane *lane, size_t place)
{
    lane->n_line--;
    memmove(&lane->line[place], &lane->line[place + 1],
            (lane->n_line - place) * sizeof lane->line[0]);
}

static void forget_gone(struct lane *lane, int64_t now_ms)
{
    for (size_t i = lane->n_line; i-- > 0;)
        if (now_ms - lane->line[i].back_ms > GONE_MS)
            leave_line(lane, i);
}

/* The lane of that name. make: else one that nobody needs to remember. NULL: there is none. */
static struct lane *find(struct lanes *l, uint64_t name, bool make, int64_t now_ms)
{
    struct lane *set = l->lane[name % SETS], *spare = NULL;
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].name == name)
            return &set[i];
        if (make)
            forget_gone(&set[i], now_ms);
        if (make && !set[i].open && !set[i].n_line && !throttle_known_for(&set[i].throttle, now_ms))
            spare = &set[i];
    }
    if (spare) {
        spare->name = name;
        atomic_store(&spare->throttle.state, 0);
    }
    return spare;
}

/* Its place; lane->n_line: it has none. ahead: how many before it want to go now. */
static size_t look_up(const struct lane *lane, uint64_t who, int64_t now_ms, uint32_t *ret_ahead)
{
    size_t i = 0;
    *ret_ahead = 0;
    for (; i < lane->n_line && lane->line[i].who != who; i++)
        *ret_ahead += now_ms - lane->line[i].back_ms <= LATE_MS;
    return i;
}

/* It waits, for `least` at least. Returns when it is worth asking again. */
static int64_t stand(struct lane *lane, size_t place, uint64_t who, int64_t now_ms, int64_t least)
{
    int64_t wait = MAX(least, MIN((int64_t)(place + 1) * STEP_MS, (int64_t)BUSY_MS));
    if (place >= LANE_LINE)
        return wait;
    lane->line[place] = (struct waiter){ .who = who, .back_ms = now_ms + wait };
    lane->n_line = MAX(lane->n_line, (uint32_t)place + 1);
    return wait;
}

/* How many may begin now, as far as the number of them goes. */
static uint32_t free_places(const struct lane *lane, const struct route *r)
{
    uint32_t n = UINT32_MAX;
    if (r->concurrency)
        n = r->concurrency > lane->open ? r->concurrency - lane->open : 0;
    return r->rate.count ? MIN(n, (uint32_t)RATE_AT_ONCE) : n;
}

static int64_t enter(struct lane *lane, const struct route *r, uint64_t who, int64_t now_ms,
                     struct lane_pass *ret)
{
    uint32_t ahead;
    forget_gone(lane, now_ms);
    size_t place = look_up(lane, who, now_ms, &ahead);
    if (ahead >= free_places(lane, r))
        return stand(lane, place, who, now_ms, 0);
    int64_t wait = 0;
    if (r->rate.count)
        wait = throttle_admit(&lane->throttle, &r->rate, now_ms, &ret->ticket);
    if (wait > 0)
        return stand(lane, place, who, now_ms, wait);
    if (place < lane->n_line)
        leave_line(lane, place);
    lane->open++;
    ret->name = lane->name;
    return 0;
}

/* ---- to go in, and to leave -------------------------------------------------------------------- */

int64_t lanes_enter(struct lanes *l, const struct route *fallback, uint64_t who, int64_t now_ms,
                    struct lane_pass *ret)
{
    *ret = (struct lane_pass){ 0 };
    if (!l || (!fallback->concurrency && !fallback->rate.count))
        return 0;
    uint64_t name = hash_bytes(fallback->queue.p, fallback->queue.n) | 1;
    pthread_mutex_t *lock = &l->lock[name % SETS % LOCKS];
    pthread_mutex_lock(lock);
    struct lane *lane = find(l, name, true, now_ms);
    int64_t wait = lane ? enter(lane, fallback, who, now_ms, ret) : 0;
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
