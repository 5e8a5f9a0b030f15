/* queue_clock.c - the clock on the wall is set, while mail waits. See queue.h.
 *
 * Pauses, limits and time-outs are on the monotonic clock, which is never set. Due times in the spool, lifetimes, the
 * hours of routes, FUTURERELEASE and DELIVERBY are on the wall's, since they hold over a restart.
 *
 * Set back: what was deferred by the former clock would wait for that much longer. When this process sees it (wall and
 * monotonic clock disagree), all that is due later than in a minute is looked at; at each start, what is due later than
 * the longest pause of `queue.retry` from now. One whose last attempt lies in the future, or that came then and was
 * never tried, was written by a clock that was ahead: it is due by as much earlier as the clock was set back if that
 * was seen; if not, or when that does not explain it, after the pause it was given, or the longest one of its schedule
 * if that is shorter, from now. What an operator made due is due now. Nothing else is touched: FUTURERELEASE and
 * DELIVERBY name moments of the wall's clock, and a policy may defer for longer than the schedule does. Waiting mail
 * stands in the order in which it came, or failed last: what stands in the future is put where it is now, else no
 * release would take it.
 *
 * Set forward: what is deferred is due sooner, as it must be where the clock was wrong before. But nothing is returned
 * for its age because of that: lifetimes follow a jump of more than JUMP_MS only when it has stood for BELIEVE_MS. */
#include "engine/queue_impl.h"

enum {
    SET_BACK_MS = 60 * 1000,
    JUMP_MS = 60 * 60 * 1000,
    BELIEVE_MS = 24 * 60 * 60 * 1000,
    CLOCK_AT_ONCE = 16, /* queues that are mended: each has buffers for a batch */
};

static int64_t ahead_now(const struct queues *all)
{
    return engine_wall(all->engine) - engine_now(all->engine);
}

void queue_clock_init(struct queues *all)
{
    all->ahead = all->age_ahead = ahead_now(all);
    all->doubted_since = -1;
}

int64_t queues_age_wall(struct queues *all)
{
    int64_t now = engine_now(all->engine), ahead = ahead_now(all);
    if (ahead > all->age_ahead + JUMP_MS) {
        if (all->doubted_since < 0)
            all->doubted_since = now;
        if (now - all->doubted_since < BELIEVE_MS)
            return now + all->age_ahead;
    }
    all->age_ahead = ahead;
    all->doubted_since = -1;
    return now + ahead;
}

void queues_mind_clock(struct queues *all)
{
    int64_t ahead = ahead_now(all), by = all->ahead - ahead;
    queues_age_wall(all);
    if (by >= 0 && by < SET_BACK_MS)
        return; /* many small steps are a big one */
    all->ahead = ahead;
    if (by < 0 || all->stopping)
        return;
    engine_event(all->engine, EVENT(EVENT_WARN, "clock_set_back", F_INT("by_ms", by)));
    all->set_back_ms += by;
    all->scan_clock = true;
    struct queue *q, *tmp;
    HASH_ITER(hh, all->by_name, q, tmp) { /* what fails in this pass stands behind it still */
        q->release_upto = MIN(q->release_upto, engine_wall(all->engine));
    }
    queues_scan(all, false);
}

/* ---- what was written by a clock that was ahead -------------------------------------------------- */

static int64_t longest(const struct queues *all)
{
    return schedule_longest(&all->engine->snapshot->settings->queue.retry);
}

struct spool_due queue_clock_from(const struct queues *all, enum spool_class c, int64_t set_back_ms)
{
    int64_t grace = c == SPOOL_SCHEDULED && set_back_ms <= 0 ? longest(all) : SET_BACK_MS;
    struct spool_due from = { .due_ms = engine_wall(all->engine) + grace, .n = UINT32_MAX };
    memset(from.id.b, 0xff, sizeof from.id.b);
    return from;
}

/* When it is due by the clock as it is now; entry->due_ms: as it stands. */
static int64_t due_now(const struct queues *all, const struct spool_entry *entry,
                       const struct recipient *r, int64_t set_back_ms)
{
    int64_t now = engine_wall(all->engine);
    int64_t written = r->last_ms ? r->last_ms : msgid_time(&entry->id);
    if (entry->class_ == SPOOL_WAITING) /* a place in an order, no time to wait for */
        return now;
    if (r->due_ms != entry->due_ms) /* changed since by an operator, to that moment */
        return now;
    if (written <= now)
        return entry->due_ms;
    /* By the former clock that was not in the future: the step is all that is wrong, however long the pause. */
    if (set_back_ms > 0 && written - set_back_ms <= now + SET_BACK_MS)
        return MAX(entry->due_ms - set_back_ms, now);
    int64_t most =
        r->route && r->route->retry.n ? schedule_longest(&r->route->retry) : longest(all);
    return now + MIN(MAX(entry->due_ms - written, INT64_C(0)), most);
}

int queue_clock_mend(struct queue *q, const struct spool_entry *entry, int64_t set_back_ms,
                     struct buf *record, int64_t *ret_due)
{
    struct recipient r = { 0 };
    struct arena a;
    if (queue_message_is_held(q->all, &entry->id))
        return 1;
    arena_init(&a, 0);
    int e = recipient_decode(&a, entry->n, buf_str(record), &r);
    if (e == 0) {
        *ret_due = due_now(q->all, entry, &r, set_back_ms);
        e = *ret_due >= entry->due_ms;
    }
    if (e == 0) {
        r.due_ms = *ret_due;
        r.last_ms = MIN(r.last_ms, engine_wall(q->all->engine));
        buf_clear(record);
        e = recipient_encode(&r, record);
    }
    recipient_done(&r);
    arena_done(&a);
    return e;
}

/* ---- a queue ------------------------------------------------------------------------------------- */

/* By the next scan, as this one did: it may be under way, and has been there, or it has ended. */
static void once_more(struct queues *all, int64_t set_back_ms)
{
    all->set_back_ms = MAX(all->set_back_ms, set_back_ms);
    all->clock_missed = true;
    queues_look_again(all, false);
}

bool queues_clock_is_busy(struct queues *all)
{
    all->scan_waits = all->clock_mending >= CLOCK_AT_ONCE;
    return all->scan_waits;
}

static void on_mended(struct queue_command *c)
{
    struct queues *all = c->sender;
    all->clock_mending--;
    if (all->scan_waits && !all->stopping && all->clock_mending < CLOCK_AT_ONCE) {
        all->scan_waits = false;
        engine_later(all->engine, &all->scan);
    }
    if (c->affected)
        engine_event(all->engine, EVENT(EVENT_INFO, "queue_times_mended", F_STRZ("queue", c->queue),
                                        F_INT("recipients", (int64_t)c->affected)));
    if (c->result != 0 && c->result != -ESHUTDOWN) /* some were under way, or the disk fails */
        once_more(all, c->set_back_ms);
    free(c);
}

static bool has_some(struct queues *all, struct str name, enum spool_class c)
{
    struct port_spool *spool = all->engine->ports.spool;
    struct spool_due from = queue_clock_from(all, c, all->set_back_ms), any;
    return spool->scan_due(spool, name, c, &from, INT64_MAX, &any, 1) > 0;
}

void queue_mind_clock(struct queues *all, const struct spool_queue *row)
{
    struct str name = str_of(row->name);
    if (!(row->scheduled && has_some(all, name, SPOOL_SCHEDULED)) &&
        !(row->waiting && has_some(all, name, SPOOL_WAITING)))
        return;
    struct queue_command *c = calloc(1, sizeof *c);
    if (!c) {
        once_more(all, all->set_back_ms);
        return;
    }
    c->type = QUEUE_CLOCK;
    c->set_back_ms = all->set_back_ms;
    c->sender = all;
    c->done = on_mended;
    str_copy(name, c->queue, sizeof c->queue);
    all->clock_mending++;
    queue_command_here(all->engine, c);
}
