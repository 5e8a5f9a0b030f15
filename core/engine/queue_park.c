/* queue_park.c - jobs that wait for a source address, out of the way of the others of their queue. See queue.h.
 *
 * Why one cannot go is no fact about its host, nor about its queue: another job may have another source, or another
 * host. So it is put aside, in memory, and comes back where its order says
 *
 *  - when the gate has put it there, before an attempt: as soon as a source may do more (queue_rate.c wakes the
 *    queue), which costs next to nothing to find out;
 *  - when an attempt has: at the time that was said then, and not sooner, whatever the others of its queue do. The
 *    gate knew of no reason, so only another attempt can tell. At most PARKED_MOST of them, and never more than half
 *    of the window, are there. One more goes back to the disk, from which nothing is read until then, and what is in
 *    memory goes on slowly: of the next ones that begin, a second apart, some may have more luck.
 *
 * What is parked counts for the window, and is on disk as all that waits. Back-off, a hold and a change of the message
 * take it as they take what is ready. */
#include "engine/queue_impl.h"

enum { PARKED_MOST = 32, SLOWLY_MS = 1000 };

static size_t count(const struct queue *q, bool tried, bool fresh)
{
    size_t n = 0;
    LIST_FOREACH(it, &q->parked)
    {
        const struct job *j = LIST_ENTRY(it, struct job, link);
        n += (!tried || j->parked == PARKED_TRIED_IN_VAIN) && (!fresh || j->fresh);
    }
    return n;
}

void queue_call_off(struct queue *q, struct job *j)
{
    q->on_disk |= j->more || j->class_ == SPOOL_SCHEDULED; /* `more` may be of the other class */
    q->waiting_left |= j->more || j->class_ == SPOOL_WAITING;
    job_drop(q->all, j);
}

void queue_park(struct queue *q, struct job *j, int64_t wait_ms)
{
    list_remove(&j->link);
    queue_wait_for_source(q, wait_ms);
    if (j->fresh && count(q, false, true) >= QUEUE_FRESH) { /* they are not to fill the window */
        queue_call_off(q, j);
        return;
    }
    j->parked = PARKED_BY_GATE;
    list_push(&q->parked, &j->link);
}

void queue_park_tried(struct queue *q, struct job *j, int64_t wait_ms)
{
    int64_t now = engine_now(q->all->engine), until = now + MAX(wait_ms, INT64_C(1));
    if (count(q, true, false) >= MIN((size_t)PARKED_MOST, queue_window(q) / 2)) {
        if (q->read_again <= now) /* more and more of them do not put it off for ever */
            q->read_again = until;
        queue_pause(q, MIN(wait_ms, (int64_t)SLOWLY_MS));
        return;
    }
    j->parked = PARKED_TRIED_IN_VAIN;
    j->parked_until = until;
    q->parked_at = MIN(q->parked_at, until);
    list_push(&q->parked, &j->link);
}

/* What is parked is older than most that is ready, as a rule. A big job has its place behind the small ones (Q7). */
static void put_back(struct queue *q, struct job *j)
{
    size_t most = queue_most_recipients(q);
    struct list *at = q->ready.next;
    list_remove(&j->link);
    j->parked = NOT_PARKED;
    if (j->fresh) {
        list_unshift(&q->fresh, &j->link);
        return;
    }
    while (at != &q->ready && LIST_ENTRY(at, struct job, link)->order < j->order)
        at = at->next;
    list_push(j->n >= most && most > 1 ? &q->ready : at, &j->link);
}

/* all: whatever they wait for; else those of the gate, if the queue has been woken, and those whose time has come. The
 * last first, so that each stands before those that came later. */
static void unpark(struct queue *q, bool all)
{
    int64_t now = engine_now(q->all->engine);
    bool woken = all || list_empty(&q->source_wait);
    q->parked_at = INT64_MAX;
    for (struct list *it = q->parked.prev, *before; it != &q->parked; it = before) {
        struct job *j = LIST_ENTRY(it, struct job, link);
        before = it->prev;
        if (j->parked == PARKED_BY_GATE ? woken : all || j->parked_until <= now)
            put_back(q, j);
        else if (j->parked == PARKED_TRIED_IN_VAIN)
            q->parked_at = MIN(q->parked_at, j->parked_until);
    }
}

void queue_unpark(struct queue *q)
{
    if (!list_empty(&q->parked))
        unpark(q, false);
    else
        q->parked_at = INT64_MAX; /* the last one may have been called off */
}

void queue_unpark_all(struct queue *q)
{
    unpark(q, true);
}
