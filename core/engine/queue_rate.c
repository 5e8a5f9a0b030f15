/* queue_rate.c - what the terms of a queue's routes allow: `concurrency`, `rate`, and the limits of their sources.
 * See queue.h.
 *
 * Before an attempt begins the gate is asked. What it lets through is counted here until the attempt ends; a
 * message that may not go stays ready, and the gate says when to look again: at a time, or as soon as
 * something ends. Nothing is polled, written or counted as a failure. */
#include "engine/queue_impl.h"
#include "engine/sources.h"

enum {
    WOKEN_AT_ONCE = 4,     /* of those that wait for a source, whichever */
    REMEMBERED = 100000,   /* queues: beyond, one is forgotten though its bucket is not full */
    DISAGREEMENT_MS = 1000 /* routes of one queue that allow different things */
};

/* ---- terms ------------------------------------------------------------------------------------ */

static struct queue_terms terms_of(const struct route *r)
{
    return (struct queue_terms){ .concurrency = r->concurrency, .rate = r->rate };
}

/* Its route is to be asked for again: the policy has changed since. */
static bool is_stale(const struct queue *q, const struct job *j)
{
    return j->class_ != SPOOL_WAITING && j->n &&
           j->recipients[0].policy != snapshot_fingerprint(q->all->engine->snapshot);
}

/* What another message of the queue was told by the present policy. */
static bool terms_are_known(const struct queue *q)
{
    return q->terms_known && q->terms_policy == snapshot_fingerprint(q->all->engine->snapshot);
}

/* One at a time finds out what the present policy says, whatever the old one said. */
static bool one_is_asking(const struct queue *q)
{
    LIST_FOREACH(it, &q->under_way)
    {
        if (LIST_ENTRY(it, struct job, way)->asking)
            return true;
    }
    return false;
}

/* How many are under way, and the least that any of them allows (with `most`, what is wanted besides; 0: any
 * number). going: only those that are past their route. */
static bool fits(const struct queue *q, const struct job *but, uint32_t most, bool going)
{
    uint32_t n = 0;
    LIST_FOREACH(it, &q->under_way)
    {
        const struct job *j = LIST_ENTRY(it, struct job, way);
        if (j == but || j->mode != JOB_DELIVER || (going && !j->going))
            continue;
        n++;
        if (j->concurrency && (!most || j->concurrency < most))
            most = j->concurrency;
    }
    return !most || n < most;
}

/* A slow rate without a burst: the next begins when the one before has gone. */
static bool one_is_on_its_way(const struct queue *q)
{
    LIST_FOREACH(it, &q->under_way)
    {
        if (LIST_ENTRY(it, struct job, way)->ticket.rate.count)
            return true;
    }
    return false;
}

/* ---- the gate --------------------------------------------------------------------------------- */

const char *queue_gate_name(enum queue_gate g)
{
    static const char *const names[] = { NULL, "concurrency", "rate", "source" };
    return names[g];
}

static bool closed(struct queue *q, enum queue_gate why, int64_t wait_ms)
{
    q->gate = why;
    q->gate_at = wait_ms == INT64_MAX ? INT64_MAX : engine_now(q->all->engine) + wait_ms;
    return false;
}

void queue_wait_for_source(struct queue *q, int64_t wait_ms)
{
    struct queues *all = q->all;
    int64_t at = engine_now(all->engine) + wait_ms;
    if (list_empty(&q->source_wait))
        list_push(&all->source_waiters, &q->source_wait);
    if (!timer_armed(&all->source_timer) || all->source_timer.at > at)
        all->engine->ports.clock->timer_set(all->engine->ports.clock, &all->source_timer, at);
}

/* Jobs of one pump that have the same sources have the same answer. */
static int64_t wait_of_sources(struct queues *all, const struct job *j, size_t *ret_place)
{
    if (all->refused && str_eq(all->refused->source, j->route->source))
        return all->refused_ms;
    int64_t wait = sources_wait(all->engine, j->route, all->source_expected, ret_place);
    if (wait > 0) { /* the job may be called off for that, and its route is perhaps its own */
        route_unref(all->refused);
        all->refused = route_ref(j->route);
        all->refused_ms = wait;
    }
    return wait;
}

/* others: the terms are not those of the job's own route. */
static bool passes(struct queue *q, struct job *j, const struct queue_terms *wanted, bool others)
{
    struct engine *e = q->all->engine;
    const struct settings *set = e->snapshot->settings;
    struct queue_terms terms = *wanted;
    size_t place = SOURCES_PLACES;
    uint32_t most = terms.concurrency ? terms.concurrency : set->queue.max_concurrency;
    if (!fits(q, NULL, most, false))
        return closed(q, GATE_CONCURRENCY, INT64_MAX);
    if (terms.rate.count && throttle_is_strict(&terms.rate) && one_is_on_its_way(q))
        return closed(q, GATE_RATE, INT64_MAX);
    /* What its old route says of sources says nothing of the one that the present policy will choose. */
    int64_t wait = others ? 0 : wait_of_sources(q->all, j, &place);
    if (wait > 0)
        return closed(q, GATE_SOURCE, wait);
    if (terms.rate.count)
        wait = throttle_admit(&q->throttle, &terms.rate, engine_now(e), &j->ticket);
    if (wait > 0)
        return closed(q, GATE_RATE, wait);
    j->concurrency = terms.concurrency;
    j->expects_source = place < SOURCES_PLACES;
    j->source_place = place;
    if (j->expects_source)
        q->all->source_expected[place]++;
    return true;
}

bool queue_gate_passes(struct queue *q, struct job *j)
{
    bool stale = is_stale(q, j), known = terms_are_known(q);
    struct queue_terms terms = stale && known ? q->terms : terms_of(j->route);
    q->gate = GATE_OPEN;
    j->asking = false;
    if (passes(q, j, &terms, stale && known))
        return true;
    if (!stale || known || one_is_asking(q))
        return false;
    q->gate = GATE_OPEN;
    j->asking = true;
    return true;
}

/* ---- an attempt ------------------------------------------------------------------------------- */

void queue_way_begun(struct queue *q, struct job *j)
{
    list_push(&q->under_way, &j->way);
}

void queue_way_ended(struct queue *q, struct job *j)
{
    list_remove(&j->way);
    throttle_cancel(&q->throttle, &j->ticket);
    queue_source_is_chosen(j);
}

static bool rate_is(const struct rate *a, const struct rate *b)
{
    return a->count == b->count && a->period_ms == b->period_ms && a->burst == b->burst;
}

bool queue_route_is_known(struct job *j, const struct snapshot *asked, int64_t *ret_wait_ms)
{
    struct queue *q = j->queue;
    struct engine *e = q->all->engine;
    if (j->mode != JOB_DELIVER)
        return true;
    if (asked && j->class_ != SPOOL_WAITING) {
        q->terms = terms_of(j->route);
        q->terms_policy = snapshot_fingerprint(asked);
        q->terms_known = true;
    }
    if (j->asking) {
        queue_unpark_all(q); /* by what their old routes said */
        queue_run_soon(q);
    }
    j->asking = false;
    *ret_wait_ms = DISAGREEMENT_MS;
    if (!fits(q, j, j->route->concurrency, true))
        return false;
    if (!rate_is(&j->ticket.rate, &j->route->rate)) /* it paid by a former rate */
        throttle_cancel(&q->throttle, &j->ticket);
    if (j->route->rate.count && !j->ticket.rate.count)
        *ret_wait_ms = throttle_admit(&q->throttle, &j->route->rate, engine_now(e), &j->ticket);
    else
        *ret_wait_ms = 0;
    if (*ret_wait_ms > 0)
        return false;
    j->concurrency = j->route->concurrency;
    j->going = true;
    return true;
}

void queue_transaction_begins(struct job *j)
{
    struct queue *q = j->queue;
    int64_t now = engine_now(q->all->engine);
    const struct rate *rate = &j->route->rate;
    if (!j->ticket.rate.count && rate->count) /* a second one of the same attempt */
        throttle_charge(&q->throttle, rate, now);
    else if (rate->count && throttle_is_strict(rate))
        throttle_went(&q->throttle, rate, now);
    if (j->ticket.rate.count)
        queue_run_soon(q);
    j->ticket = (struct throttle_ticket){ 0 };
}

void queue_source_is_chosen(struct job *j)
{
    struct queues *all = j->queue->all;
    if (!j->expects_source)
        return;
    j->expects_source = false;
    all->source_expected[j->source_place]--;
    queues_source_freed(all);
}

/* ---- who waits for a source ------------------------------------------------------------------- */

static void wake_waiters(struct queues *all)
{
    for (size_t i = 0; i < WOKEN_AT_ONCE; i++) {
        struct list *it = list_pop(&all->source_waiters);
        if (!it)
            return;
        queue_run_soon(LIST_ENTRY(it, struct queue, source_wait));
    }
}

/* Those that were not woken are when the next one is. */
static void on_source_timer(struct timer *t)
{
    struct queues *all = CONTAINER_OF(t, struct queues, source_timer);
    wake_waiters(all);
    if (!list_empty(&all->source_waiters))
        engine_timer(all->engine, &all->source_timer, DISAGREEMENT_MS);
}

void queues_source_freed(struct queues *all)
{
    if (all && !all->stopping)
        wake_waiters(all);
}

void queues_terms_changed(struct queues *all)
{
    struct queue *q, *tmp;
    HASH_ITER(hh, all->by_name, q, tmp) {
        q->pause_until = q->read_again = 0; /* perhaps it was by the old ones */
        queue_unpark_all(q);
        if (q->gate || queue_has_work(q))
            queue_run_soon(q);
    }
}

void queue_rates_init(struct queues *all)
{
    list_init(&all->source_waiters);
    timer_init(&all->source_timer, on_source_timer);
}

void queue_rates_done(struct queues *all)
{
    engine_timer_stop(all->engine, &all->source_timer);
}

/* ---- how long it is remembered ---------------------------------------------------------------- */

int64_t queue_rate_known_until(const struct queue *q)
{
    int64_t now = engine_now(q->all->engine);
    if (HASH_COUNT(q->all->by_name) > REMEMBERED)
        return 0;
    int64_t left = throttle_known_for(&q->throttle, now);
    return left ? now + left : 0;
}
