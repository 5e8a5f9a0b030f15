/* queue_line.c - who gets the connections of the worker (queue.connections) when they are short. See queue.h.
 *
 * A destination is *proven* when it has worked and has not failed since. Of the others nobody knows whether an
 * attempt takes milliseconds or a time-out, and there may be thousands of them: after a restart, or when mail goes to
 * many silent hosts. So a quarter of the connections is never theirs. Half of all may be used for those that are
 * tried without an occasion: old mail, and probes of what has failed. Their limit begins small, grows by one with
 * each that works, and doubles each second in which fewer of them end than may be under way. When none of them waits
 * any more it is what it was in the beginning: a storm costs the memory of few attempts at once.
 *
 * Queues that have to wait stand in lines. A line that has no room does not hold up the others; of those that have,
 * who has waited longest is next. A queue that is not proven and has an attempt under way comes after all others. */
#include "base/hash.h"
#include "engine/queue_impl.h"

enum { OLD_START = 64, TICK_MS = 1000 };

/* ---- what is proven --------------------------------------------------------------------------- */

/* Queues come and go, what they have shown stays for a while: the newest of those that share a place. */
static uint32_t *place_of(struct queues *all, struct str name, uint32_t *ret_tag)
{
    uint64_t h = hash_bytes(name.p, name.n);
    *ret_tag = (uint32_t)(h >> 32) | 1;
    return &all->proven[h % QUEUES_PROVEN];
}

bool queue_was_proven(struct queues *all, struct str name)
{
    uint32_t tag;
    return *place_of(all, name, &tag) == tag;
}

void queue_set_proven(struct queue *q, bool proven)
{
    uint32_t tag, *place;
    if (q->proven == proven)
        return;
    q->proven = proven;
    place = place_of(q->all, queue_name(q), &tag);
    if (proven)
        *place = tag;
    else if (*place == tag)
        *place = 0;
}

/* ---- limits ----------------------------------------------------------------------------------- */

static uint32_t most_connections(const struct queues *all)
{
    return all->engine->snapshot->settings->queue.connections;
}

static uint32_t most_unproven(const struct queues *all)
{
    uint32_t most = most_connections(all);
    return MAX(most - most / 4, 1u);
}

static uint32_t most_old(const struct queues *all)
{
    uint32_t most = most_connections(all);
    return MAX(most - most / 2, 1u);
}

static uint32_t old_limit(const struct queues *all)
{
    return MIN(all->old_limit, most_old(all));
}

/* Attempts of unproven destinations that are under way, or about to be. */
struct counted {
    uint32_t unproven, old;
};

static struct counted counted_now(const struct queues *all)
{
    return (struct counted){ .unproven = all->unproven, .old = all->unproven_old };
}

static bool has_room(const struct queues *all, const struct counted *c, enum queue_line l)
{
    if (l == LINE_PROVEN)
        return true;
    return c->unproven < most_unproven(all) && (l == LINE_NEW || c->old < old_limit(all));
}

/* next: the job that is tried; NULL: it is to be read from the spool. */
static enum queue_line line_of(const struct queue *q, const struct job *next)
{
    if (q->proven)
        return LINE_PROVEN;
    bool has_occasion = q->forced || q->released || (next && next->is_new && !q->failures);
    return has_occasion ? LINE_NEW : LINE_OLD;
}

void queue_line_begun(struct queue *q, struct job *j)
{
    j->line = j->mode == JOB_DELIVER ? line_of(q, j) : LINE_PROVEN;
    q->all->unproven += j->line != LINE_PROVEN;
    q->all->unproven_old += j->line == LINE_OLD;
}

void queue_line_ended(struct queue *q, struct job *j)
{
    struct queues *all = q->all;
    all->unproven -= j->line != LINE_PROVEN;
    if (j->line == LINE_OLD) {
        all->unproven_old--;
        all->old_ended++;
        if (q->proven)
            all->old_limit = MIN(all->old_limit + 1, most_old(all));
    }
    j->line = LINE_PROVEN;
}

/* ---- lines ------------------------------------------------------------------------------------ */

/* Could anybody in that line, or in one that comes before it, go with a connection? */
static bool others_wait(const struct queues *all, enum queue_line last)
{
    struct counted now = counted_now(all);
    for (enum queue_line l = 0; l <= last; l++)
        if (!list_empty(&all->line[l]) && has_room(all, &now, l))
            return true;
    return false;
}

/* At its end, unless it stands there already: what is known of it may have changed. */
static void stand_in(struct queue *q, enum queue_line l)
{
    if (!list_empty(&q->starving) && q->line == l)
        return;
    list_remove(&q->starving);
    list_push(&q->all->line[l], &q->starving);
    q->line = l;
    q->stands = q->all->stood++;
}

bool queue_gets_connection(struct queue *q, bool turn, bool begun)
{
    struct queues *all = q->all;
    struct counted now = counted_now(all);
    enum queue_line mine = line_of(q, queue_first_job(q));
    enum queue_line stand = !q->proven && q->delivering ? LINE_LAST : mine;
    bool others = others_wait(all, stand == LINE_LAST ? LINE_LAST : LINE_OLD);
    /* While others wait, each gets one at a time, in turn. */
    if (queue_may_start(q) && has_room(all, &now, mine) && !(others && (begun || !turn)))
        return true;
    stand_in(q, stand);
    if (mine == LINE_OLD && !timer_armed(&all->old_timer))
        engine_timer(all->engine, &all->old_timer, TICK_MS);
    return false;
}

static uint64_t first_in(const struct queues *all, enum queue_line l)
{
    struct list *it = list_first(&all->line[l]);
    return it ? LIST_ENTRY(it, struct queue, starving)->stands : UINT64_MAX;
}

/* The line whose first one goes next; QUEUE_LINES: nobody can. */
static enum queue_line next_line(const struct queues *all, const struct counted *c)
{
    enum queue_line next = QUEUE_LINES;
    uint64_t since = UINT64_MAX;
    for (enum queue_line l = 0; l < LINE_LAST; l++)
        if (first_in(all, l) < since && has_room(all, c, l)) {
            since = first_in(all, l);
            next = l;
        }
    bool last = !list_empty(&all->line[LINE_LAST]) && has_room(all, c, LINE_LAST);
    return next == QUEUE_LINES && last ? LINE_LAST : next;
}

void queue_lines_feed(struct queues *all)
{
    uint32_t most = most_connections(all);
    struct counted c = counted_now(all);
    for (size_t free = all->delivering < most ? most - all->delivering : 0; free; free--) {
        enum queue_line l = next_line(all, &c);
        if (l == QUEUE_LINES)
            return;
        c.unproven += l != LINE_PROVEN;
        c.old += l == LINE_OLD || l == LINE_LAST;
        struct queue *q = LIST_ENTRY(list_pop(&all->line[l]), struct queue, starving);
        q->its_turn = true;
        queue_run_soon(q);
    }
}

/* Slow ones are no reason for those behind them to wait for long. */
static void on_tick(struct timer *t)
{
    struct queues *all = CONTAINER_OF(t, struct queues, old_timer);
    bool waiting = !list_empty(&all->line[LINE_OLD]) || !list_empty(&all->line[LINE_LAST]);
    if (!waiting)
        all->old_limit = OLD_START;
    else if (all->old_ended < old_limit(all))
        all->old_limit = MIN(all->old_limit * 2, most_old(all));
    all->old_ended = 0;
    if (!waiting)
        return;
    engine_timer(all->engine, &all->old_timer, TICK_MS);
    engine_later(all->engine, &all->pump);
}

void queue_lines_init(struct queues *all)
{
    for (enum queue_line l = 0; l < QUEUE_LINES; l++)
        list_init(&all->line[l]);
    all->old_limit = OLD_START;
    timer_init(&all->old_timer, on_tick);
}

void queue_lines_done(struct queues *all)
{
    engine_timer_stop(all->engine, &all->old_timer);
}
