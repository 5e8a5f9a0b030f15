/* held.c - mail that waits for its release. See held.h. */
#include "engine/held.h"

#include "engine/etrn.h"
#include "engine/queue.h"

enum {
    BATCH = 16,
    LONGEST_MS = 3600 * 1000, /* between two walks */
    SHORTEST_MS = 1000,       /* and a millisecond more for each ten queues */
    DAY_MS = 24 * 3600 * 1000,
    MINUTE_MS = 60 * 1000,
    AGAIN_MS = MINUTE_MS, /* after queues could not be read */
};

/* A queue whose warning has been given. */
struct warned {
    UT_hash_handle hh;
    struct route_hold hold; /* its thresholds */
    size_t n;
    char name[];
};

struct held {
    struct engine *e;
    struct timer timer;
    struct later step;
    struct arena arena; /* of the recipient at hand */
    struct buf record;
    struct spool_queue rows[BATCH];
    char after[SPOOL_MAX_QUEUE_NAME + 1];
    bool walking, started,
        first;          /* first: what is over its threshold was told of before the start */
    int64_t from, to;   /* wall: this walk makes the releases of (from, to] */
    int64_t next;       /* wall: when something is due */
    int64_t not_before; /* monotonic: the next walk */
    uint64_t seen;      /* queues in this walk */
    struct warned *warned;
};

/* ---- by the clock ----------------------------------------------------------------------------- */

static int64_t floor_to(int64_t v, int64_t unit)
{
    int64_t r = v % unit;

    return v - (r < 0 ? r + unit : r);
}

int64_t held_next_release(const struct route_hold *hold, int64_t after, int64_t offset_ms)
{
    int64_t every = hold->every_ms, local = after + offset_ms;
    int64_t from = hold->from * (int64_t)MINUTE_MS, to = hold->to * (int64_t)MINUTE_MS;
    int64_t length = (to - from + DAY_MS) % DAY_MS;

    if (every <= 0)
        return INT64_MAX;
    if (length == 0)
        length = DAY_MS;
    int64_t opened = floor_to(local - from, DAY_MS) + from; /* the window that opened last */
    int64_t at = opened + (local - opened) / every * every + every;
    if (at - opened >= length)
        at = opened + DAY_MS;
    return at - offset_ms;
}

static void released(void *owner, const struct smtp_reply *reply, struct turn *turn)
{
}

/* As if the domain's server had asked; a release that runs already goes on. */
static void release(struct held *h, struct str domain)
{
    const struct etrn_request request = { .node = domain, .origin = ETRN_SCHEDULE };

    etrn_start(h->e, h->e->snapshot, NULL, &request, released, NULL);
}

/* came: when the oldest did; what was due before does not count for it. */
static void mind_clock(struct held *h, const struct recipient *r, int64_t came)
{
    const struct route_hold *hold = &r->route->hold;

    if (hold->every_ms <= 0)
        return;
    int64_t offset = engine_utc_offset(h->e, h->to);
    if (held_next_release(hold, MAX(h->from, came), offset) <= h->to)
        release(h, r->address.domain);
    h->next = MIN(h->next, held_next_release(hold, h->to, offset));
}

/* ---- the warning ------------------------------------------------------------------------------ */

static struct warned *find_warned(struct held *h, struct str queue)
{
    struct warned *w = NULL;

    HASH_FIND(hh, h->warned, queue.p, queue.n, w);
    return w;
}

static bool note_warned(struct held *h, struct str queue, const struct route_hold *hold)
{
    struct warned *w = calloc(1, sizeof(*w) + queue.n + 1);

    if (!w)
        return false;
    w->hold = *hold;
    w->n = queue.n;
    memcpy(w->name, queue.p, queue.n);
    HASH_ADD_KEYPTR(hh, h->warned, w->name, w->n, w);
    if (!w->hh.tbl) {
        free(w);
        return false;
    }
    return true;
}

static void forget_warned(struct held *h, struct warned *w)
{
    HASH_DELETE(hh, h->warned, w);
    free(w);
}

static bool over(const struct route_hold *hold, const struct spool_queue *row)
{
    return (hold->warn_recipients && row->waiting >= hold->warn_recipients) ||
           (hold->warn_octets && row->waiting_octets >= hold->warn_octets);
}

/* Once when the threshold is crossed, and again when it was below in between. */
static void mind_amount(struct held *h, struct str queue, const struct route_hold *hold,
                        const struct spool_queue *row)
{
    struct warned *w = find_warned(h, queue);
    bool is_over = over(hold, row);

    if (w && !is_over)
        forget_warned(h, w);
    if (w || !is_over || !note_warned(h, queue, hold) || h->first)
        return;
    engine_event(h->e, EVENT(EVENT_WARN, "queue_filling", F_STR("queue", queue),
                             F_INT("waiting", (int64_t)row->waiting),
                             F_INT("octets", (int64_t)row->waiting_octets),
                             F_INT("warn_waiting", (int64_t)hold->warn_recipients),
                             F_INT("warn_octets", (int64_t)hold->warn_octets)));
}

void held_released(struct held *h, struct str queue)
{
    struct port_spool *spool = h->e->ports.spool;
    struct warned *w = find_warned(h, queue);
    struct spool_queue row;
    int r = w ? spool->read_queue(spool, queue, &row) : 0;

    if (w && (r == -ENOENT || (r == 0 && !over(&w->hold, &row))))
        forget_warned(h, w);
}

/* ---- walks ------------------------------------------------------------------------------------ */

static void arm(struct held *h)
{
    struct engine *e = h->e;
    int64_t now = engine_now(e),
            wait = h->next == INT64_MAX ? LONGEST_MS : h->next - engine_wall(e);

    wait = MAX(MIN(wait, (int64_t)LONGEST_MS), (int64_t)1);
    e->ports.clock->timer_set(e->ports.clock, &h->timer, MAX(now + wait, h->not_before));
}

/* Something will be due then. */
static void want(struct held *h, int64_t at)
{
    if (at >= h->next)
        return;
    h->next = at;
    if (h->started && !h->walking)
        arm(h);
}

static void mind_age(struct held *h, struct str queue, const struct spool_due *oldest,
                     const struct route *route)
{
    int64_t lifetime = route_lifetime(h->e->snapshot->settings, route, false);

    if (lifetime == INT64_MAX)
        return;
    /* Its start (message_start) is not later than its id, unless its sender had it held: near enough for a first look,
     * which is all that depends on this. */
    int64_t ends = msgid_time(&oldest->id) + lifetime + 1;
    int64_t doubted = engine_wall(h->e) - queues_age_wall(h->e->queues);
    if (ends <= h->to - doubted) {
        /* and others behind it; not now: it is under way, or an operator holds the queue */
        bool begun = queue_expire_waiting(h->e->queues, queue);
        ends = h->to + (begun ? SHORTEST_MS : AGAIN_MS);
    } else if (ends <= h->to) { /* only by a clock that is not believed yet */
        ends = h->to + LONGEST_MS;
    }
    h->next = MIN(h->next, ends);
}

static void look_at(struct held *h, const struct spool_queue *row)
{
    struct port_spool *spool = h->e->ports.spool;
    struct port_workers *workers = h->e->ports.workers;
    struct str queue = str_of(row->name);
    struct spool_entry entry;
    struct spool_due oldest;
    struct recipient r = { 0 };

    if (row->waiting == 0 || engine_queue_owner(queue, workers->count) != workers->self)
        return;
    if (spool->scan_due(spool, queue, SPOOL_WAITING, NULL, INT64_MAX, &oldest, 1) != 1 ||
        spool->read_recipient(spool, &oldest.id, oldest.n, &entry, &h->record) < 0)
        return;
    arena_reset(&h->arena);
    if (recipient_decode(&h->arena, oldest.n, buf_str(&h->record), &r) == 0 && r.route) {
        mind_amount(h, queue, &r.route->hold, row);
        mind_age(h, queue, &oldest, r.route);
        mind_clock(h, &r, oldest.due_ms);
    }
    recipient_done(&r);
}

static void end_walk(struct held *h, bool whole)
{
    h->walking = false;
    h->not_before = engine_now(h->e) + SHORTEST_MS + (int64_t)(h->seen / 10);
    if (whole) {
        h->first = false;
        h->from = h->to;
    } else {
        h->next = MIN(h->next, h->to + AGAIN_MS);
    }
    arm(h);
}

static void walk(struct later *l)
{
    struct held *h = CONTAINER_OF(l, struct held, step);
    struct port_spool *spool = h->e->ports.spool;
    int n = h->e->stopping ? 0 : spool->scan_queues(spool, str_of(h->after), h->rows, BATCH);

    for (int i = 0; i < n; i++)
        look_at(h, &h->rows[i]);
    h->seen += (uint64_t)MAX(n, 0);
    if (n == BATCH) {
        memcpy(h->after, h->rows[n - 1].name, sizeof(h->after));
        engine_later(h->e, &h->step);
    } else {
        end_walk(h, n >= 0);
    }
}

static void begin_walk(struct timer *t)
{
    struct held *h = CONTAINER_OF(t, struct held, timer);

    h->walking = true;
    h->to = engine_wall(h->e);
    h->next = INT64_MAX;
    h->seen = 0;
    h->after[0] = 0;
    engine_later(h->e, &h->step);
}

void held_arrived(struct held *h, struct str queue, const struct route *route, int64_t received)
{
    struct engine *e = h->e;
    const struct route_hold *hold = &route->hold;
    int64_t lifetime = route_lifetime(e->snapshot->settings, route, false);

    if (lifetime != INT64_MAX)
        want(h, received + lifetime + 1);
    if (hold->every_ms > 0) {
        int64_t now = engine_wall(e);
        want(h, held_next_release(hold, now, engine_utc_offset(e, now)));
    }
    struct spool_queue *row = &h->rows[0]; /* between two batches nobody looks at them */
    if ((hold->warn_recipients || hold->warn_octets) &&
        e->ports.spool->read_queue(e->ports.spool, queue, row) == 0)
        mind_amount(h, queue, hold, row);
}

/* ---- life ------------------------------------------------------------------------------------- */

struct held *held_new(struct engine *e)
{
    struct held *h = calloc(1, sizeof(*h));

    if (!h)
        return NULL;
    h->e = e;
    h->next = INT64_MAX;
    timer_init(&h->timer, begin_walk);
    later_init(&h->step, walk);
    arena_init(&h->arena, 0);
    buf_init(&h->record, 0);
    return h;
}

void held_start(struct held *h)
{
    h->started = h->first = true;
    h->from = engine_wall(h->e); /* what was due while we were down is not made up for */
    begin_walk(&h->timer);
}

struct held *held_free(struct held *h)
{
    struct warned *w, *next;

    if (!h)
        return NULL;
    engine_timer_stop(h->e, &h->timer);
    list_remove(&h->step.link);
    HASH_ITER(hh, h->warned, w, next) {
        forget_warned(h, w);
    }
    arena_done(&h->arena);
    buf_done(&h->record);
    free(h);
    return NULL;
}
