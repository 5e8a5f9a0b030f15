/* queue_release.c - waiting mail of a queue goes out for a while: ETRN, ATRN, `tern etrn`. See queue.h.
 *
 * A release makes passes over the waiting mail. A pass takes what stood there when it began, each message once: what
 * fails comes to stand behind it. It has ended when nothing of it is left to be read, ready or under way, whatever else
 * the queue does meanwhile; and so has the release when it was to be one pass, or no waiting mail is left. Else the next
 * pass follows by the schedule, until the window ends (E8). */
#include "engine/held.h"
#include "engine/queue_impl.h"

/* Whoever turned a connection for it is told that it has ended. */
void queue_answer_release(struct queue *q, int result)
{
    struct queue_command *cmd = TAKE(q->release_once);
    if (!cmd)
        return;
    cmd->result = result;
    cmd->done(cmd);
}

void queue_release_pass(struct queue *q)
{
    q->waiting_left = true;
    q->release_upto = engine_wall(q->all->engine);
    q->release_again = 0;
}

static void drop_waiting(struct queue *q, struct list *jobs)
{
    LIST_FOREACH(it, jobs)
    {
        struct job *j = LIST_ENTRY(it, struct job, link);
        if (j->class_ == SPOOL_WAITING)
            queue_call_off(q, j);
    }
}

/* Nothing more of it is begun. */
void queue_release_is_over(struct queue *q)
{
    q->release_over = true;
    drop_waiting(q, &q->ready);
    drop_waiting(q, &q->parked);
    q->waiting_left = false;
}

static void end_release(struct queue *q)
{
    struct engine *e = q->all->engine;
    queue_release_is_over(q);
    queue_answer_release(q, 0);
    q->released = q->release_over = false;
    q->release_route = route_unref(q->release_route);
    held_released(e->held, queue_name(q));
    engine_event(e, EVENT(EVENT_INFO, "queue_release_ended", F_STR("queue", queue_name(q))));
}

/* Passes over the waiting mail, until none is left or the window ends: then what failed is held again (E8). */
void queue_mind_release(struct queue *q)
{
    struct engine *e = q->all->engine;
    const struct settings *set = e->snapshot->settings;
    struct spool_due any;
    int64_t now = engine_now(e);
    if (now >= q->released_until || (q->release_over && !q->releasing)) {
        end_release(q);
        return;
    }
    if (q->release_again && now >= q->release_again)
        queue_release_pass(q);
    if (q->release_over || q->release_again || q->waiting_left || q->n_waiting)
        return;
    if (q->release_once || e->ports.spool->scan_due(e->ports.spool, queue_name(q), SPOOL_WAITING,
                                                    NULL, INT64_MAX, &any, 1) == 0) {
        end_release(q);
        return;
    }
    const struct route *route = q->release_route;
    const struct schedule *retry = route && route->retry.n ? &route->retry : &set->queue.retry;
    int64_t pause = schedule_delay_jitter(retry, ++q->release_passes, engine_random(e));
    q->release_again = now + MAX(pause, (int64_t)1);
    if (q->release_again >= q->released_until)
        end_release(q);
}
