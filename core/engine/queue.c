/* queue.c - the queues of one worker: window, start and end of attempts, back-off. See queue.h.
 * New mail comes in by queue_arrive.c, commands by queue_command.c and queue_batch.c, what is read from the spool
 * by queue_load.c. */
#include "engine/queue.h"

#include "base/hash.h"
#include "engine/delivery.h"
#include "engine/queue_batch.h"
#include "engine/queue_impl.h"

enum {
    LOCAL_RETRY_MS = 5000,   /* after a failure of our own: memory, descriptors, disk */
    DROPPED_RETRY_MS = 1000, /* all that was read had gone */
    RESCAN_MS = 10000,
    JOBS_IN_MEMORY = 16384, /* beyond, queues have small windows */
    CHORES = 256,           /* jobs under way that need no connection */
};

/* ---- queues ----------------------------------------------------------------------------------- */

static void queue_wake(struct timer *t);
static void queue_called(struct host_place *p);
static void pump_all(struct later *l);
static void rescan(struct timer *t);

struct queues *queues_new(struct engine *e)
{
    struct queues *all = calloc(1, sizeof *all);
    if (!all)
        return NULL;
    all->engine = e;
    list_init(&all->runnable);
    list_init(&all->chore_waiters);
    list_init(&all->asides);
    list_init(&all->commands);
    list_init(&all->batches);
    timer_init(&all->rescan, rescan);
    queue_rates_init(all);
    queue_lines_init(all);
    queue_clock_init(all);
    buf_init(&all->bytes, 0);
    later_init(&all->pump, pump_all);
    later_init(&all->scan, queues_scan_step);
    return all;
}

static void queue_free(struct queues *all, struct queue *q)
{
    engine_timer_stop(all->engine, &q->wake);
    list_remove(&q->runnable);
    list_remove(&q->starving);
    list_remove(&q->source_wait);
    list_remove(&q->chore_wait);
    hosts_leave(all->engine->hosts, &q->place);
    list_join(&q->ready, &q->fresh);
    list_join(&q->ready, &q->parked);
    list_join(&q->ready, &q->damaged);
    LIST_FOREACH(it, &q->ready)
    {
        job_drop(all, LIST_ENTRY(it, struct job, link));
    }
    CHECK(q->n_jobs == 0);
    HASH_DELETE(hh, all->by_name, q);
    queue_answer_release(q, -ESHUTDOWN);
    route_unref(q->release_route);
    all->histories -= q->history_n;
    free(q->history);
    free(q);
}

struct queues *queues_free(struct queues *all)
{
    if (!all)
        return NULL;
    struct queue *q, *tmp;
    all->stopping = true;
    queue_commands_free(all); /* these ask for a pump, the last time */
    queue_batches_free(all);
    queue_asides_free(all);
    list_remove(&all->pump.link);
    list_remove(&all->scan.link);
    engine_timer_stop(all->engine, &all->rescan);
    queue_rates_done(all);
    queue_lines_done(all);
    HASH_ITER(hh, all->by_name, q, tmp) {
        queue_free(all, q);
    }
    buf_done(&all->bytes);
    free(all);
    return NULL;
}

/* Whether it is held, and whether there is anything. Until that is known nothing is attempted. */
static void read_state(struct queue *q)
{
    struct spool_queue *row = &q->all->row;
    struct port_spool *spool = q->all->engine->ports.spool;
    int r = spool->read_queue(spool, queue_name(q), row);
    q->unread = r < 0 && r != -ENOENT;
    if (q->unread)
        q->pause_until = engine_now(q->all->engine) + LOCAL_RETRY_MS;
    if (r < 0)
        *row = (struct spool_queue){ 0 };
    q->held = queue_record_held(str_make(row->record, row->record_n));
    q->on_disk = row->scheduled > 0 || q->unread;
}

struct queue *queue_find(struct queues *all, struct str name)
{
    struct queue *q = NULL;
    HASH_FIND(hh, all->by_name, name.p, name.n, q);
    return q;
}

struct queue *queue_get(struct queues *all, struct str name)
{
    struct queue *q = queue_find(all, name);
    if (q)
        return q;
    q = calloc(1, sizeof *q + name.n + 1);
    if (!q)
        return NULL;
    memcpy(q->name, name.p, name.n);
    q->name_n = name.n;
    q->all = all;
    list_init(&q->ready);
    list_init(&q->fresh);
    list_init(&q->damaged);
    list_init(&q->parked);
    hosts_place_init(&q->place, queue_called);
    list_init(&q->runnable);
    list_init(&q->starving);
    list_init(&q->under_way);
    list_init(&q->source_wait);
    list_init(&q->chore_wait);
    timer_init(&q->wake, queue_wake);
    pace_init(&q->pace, all->engine->snapshot->settings->queue.concurrency);
    q->next_due = q->by_next = q->parked_at = INT64_MAX;
    q->proven = queue_was_proven(all, name);
    HASH_ADD_KEYPTR(hh, all->by_name, q->name, q->name_n, q);
    if (!q->hh.tbl) {
        free(q);
        return NULL;
    }
    read_state(q);
    return q;
}

struct str queue_name(const struct queue *q)
{
    return str_make(q->name, q->name_n);
}

/* Asks for a look at this queue at the end of the turn. */
void queue_run_soon(struct queue *q)
{
    struct queues *all = q->all;
    if (list_empty(&q->runnable))
        list_push(&all->runnable, &q->runnable);
    engine_later(all->engine, &all->pump);
}

bool queue_has_work(const struct queue *q)
{
    bool room = list_empty(&q->parked) || queue_jobs(q) < queue_load_window(q);
    bool reads = room && q->on_disk && q->read_again <= engine_now(q->all->engine);
    return !list_empty(&q->ready) || !list_empty(&q->fresh) || q->unread || reads ||
           queue_has_released(q);
}

/* The wake timer follows from what is known of times: the end of the back-off, the next due time, what is parked, the
 * steps of a release or of routing anew, a gate that opens, and how long a rate is to be remembered. What can be done
 * now needs none: a pump follows from the end of an attempt. */
void queue_arm(struct queue *q)
{
    struct engine *e = q->all->engine;
    int64_t now = engine_now(e), at = INT64_MAX;
    if (q->next_due != INT64_MAX)
        at = now + MAX(q->next_due - engine_wall(e), (int64_t)0);
    int64_t waits_until = queue_waits_until(q);
    if (waits_until > now)
        at = queue_has_work(q) || at == INT64_MAX ? waits_until : MAX(at, waits_until);
    at = MIN(at, q->parked_at);
    if (q->on_disk && q->read_again > now)
        at = MIN(at, q->read_again);
    if (q->released)
        at = MIN(at, q->released_until);
    if (q->released && q->release_again)
        at = MIN(at, q->release_again);
    if (q->reroute && q->reroute_at > now)
        at = MIN(at, q->reroute_at);
    if (q->gate && queue_has_work(q))
        at = MIN(at, q->gate_at);
    at = MIN(at, queue_by_at(q));
    if (at == INT64_MAX && queue_rate_known_until(q))
        at = queue_rate_known_until(q);
    if (at == INT64_MAX)
        engine_timer_stop(e, &q->wake);
    else
        e->ports.clock->timer_set(e->ports.clock, &q->wake, MAX(at, now + 1));
}

static void queue_wake(struct timer *t)
{
    struct queue *q = CONTAINER_OF(t, struct queue, wake);
    if (q->next_due <= engine_wall(q->all->engine)) {
        q->next_due = INT64_MAX;
        q->on_disk = true;
    }
    queue_run_soon(q);
}

void queue_note_due(struct queue *q, int64_t due_ms)
{
    if (due_ms < q->next_due) {
        q->next_due = due_ms;
        queue_arm(q);
    }
}

/* ---- when something was lost sight of --------------------------------------------------------- */

static void rescan_run(struct engine *e, struct worker_message *m)
{
    free(m);
    queues_scan(e->queues, false);
}

static void rescan(struct timer *t)
{
    struct queues *all = CONTAINER_OF(t, struct queues, rescan);
    struct port_workers *workers = all->engine->ports.workers;
    queues_scan(all, false);
    for (int i = 0; all->rescan_others && i < workers->count; i++) {
        struct worker_message *m = i == workers->self ? NULL : calloc(1, sizeof *m);
        if (i == workers->self)
            continue;
        if (!m) {
            queues_look_again(all, true);
            return;
        }
        m->run = rescan_run;
        workers->post(workers, i, m);
    }
    all->rescan_others = false;
}

void queues_look_again(struct queues *all, bool others)
{
    all->rescan_others |= others;
    if (!timer_armed(&all->rescan))
        engine_timer(all->engine, &all->rescan, RESCAN_MS);
}

/* ---- attempts --------------------------------------------------------------------------------- */

bool queue_may_start(const struct queue *q)
{
    const struct queues *all = q->all;
    return !all->stopping && all->delivering < all->engine->snapshot->settings->queue.connections;
}

/* Thousands of queues may have something to expire, to warn of or to route anew in the same moment, and a hook may
 * wait for long. */
bool queue_may_do_chores(struct queue *q)
{
    struct queues *all = q->all;
    if (all->stopping || all->active - all->delivering < CHORES)
        return !all->stopping;
    list_remove(&q->chore_wait);
    list_push(&all->chore_waiters, &q->chore_wait);
    return false;
}

/* Many jobs in memory are many queues with a few each; fewer ones have a full window. */
size_t queue_window(const struct queue *q)
{
    return HASH_COUNT(q->all->jobs) < JOBS_IN_MEMORY
               ? QUEUE_WINDOW
               : MIN(q->pace.limit + 1, (uint32_t)QUEUE_WINDOW);
}

/* Of a destination that is not known to work a part of them is enough: most attempts show that it does not, and there
 * may be thousands of such queues. */
size_t queue_load_window(const struct queue *q)
{
    return q->proven ? queue_window(q) : MIN(queue_window(q), (size_t)QUEUE_WINDOW / 4);
}

void queue_start_job(struct queue *q, struct job *j)
{
    list_remove(&j->link);
    q->active++;
    q->all->active++;
    q->all->delivering += j->mode == JOB_DELIVER;
    q->expiring += j->mode == JOB_EXPIRE;
    q->releasing += j->mode == JOB_DELIVER && j->class_ == SPOOL_WAITING;
    q->delivering += j->mode == JOB_DELIVER;
    j->forced = q->forced;
    j->forced_at = q->forced_at;
    j->mark = q->pace.successes;
    j->whole = j->going = j->wants_source = false;
    j->hosts.n = 0;
    queue_way_begun(q, j);
    queue_line_begun(q, j);
    delivery_start(q->all->engine, j);
}

/* Mail that is to be there in time may be waiting mail; else there is none any more. */
static bool knows_times(struct queue *q)
{
    struct spool_queue *row = &q->all->row;
    if (q->by_next == INT64_MAX && !q->by_walking)
        return false;
    int r = queue_spool(q)->read_queue(queue_spool(q), queue_name(q), row);
    if (r == -ENOENT || (r == 0 && !row->scheduled && !row->waiting)) {
        q->by_next = INT64_MAX;
        q->by_walking = false;
    }
    return q->by_next != INT64_MAX || q->by_walking;
}

/* Nothing is known of it that the spool does not know too. */
static bool forgettable(struct queue *q)
{
    return q->n_jobs == 0 && !queue_has_work(q) && !q->on_disk && !q->held && !q->released &&
           !q->reroute && !queue_waits(q) && q->next_due == INT64_MAX && list_empty(&q->runnable) &&
           !queue_rate_known_until(q) && !knows_times(q);
}

/* ---- the pump --------------------------------------------------------------------------------- */

void queue_pause(struct queue *q, int64_t ms)
{
    q->pause_until = MAX(q->pause_until, engine_now(q->all->engine) + ms);
}

struct job *queue_first_job(const struct queue *q)
{
    struct list *it = list_first(&q->ready);
    struct job *first = it ? LIST_ENTRY(it, struct job, link) : NULL;
    struct job *fresh = !first || q->fresh_turn ? queue_next_fresh(q) : NULL;
    bool urgent = first && fresh && first->priority > fresh->priority &&
                  first->order <= fresh->order; /* a turn of theirs is not before that */
    return fresh && !urgent ? fresh : first;
}

/* The first job that can go; NULL: none can now. */
static struct job *next_ready(struct queue *q)
{
    bool dropped = false, fresh = q->fresh_turn && !list_empty(&q->fresh);
    bool released = queue_has_released(q) && !q->n_waiting; /* behind what is ready */
    if ((released || (!fresh && list_empty(&q->ready))) && queue_load(q) < 0) {
        queue_pause(q, LOCAL_RETRY_MS);
        return NULL;
    }
    for (struct job *j; (j = queue_first_job(q));) {
        int r = queue_load_job(q, j);
        if (r == 0)
            return j;
        list_remove(&j->link);
        dropped = true;
        if (r == -EBADMSG) {
            queue_set_aside(q, j);
            continue;
        }
        if (r != -ENOENT || j->more)
            queue_call_off(q, j);
        else
            job_drop(q->all, j);
        if (r != -ENOENT) {
            queue_pause(q, LOCAL_RETRY_MS);
            return NULL;
        }
    }
    if (dropped && queue_has_work(q)) /* there may be more behind, but never a turn for nothing */
        queue_pause(q, DROPPED_RETRY_MS);
    return NULL;
}

static void start_jobs(struct queue *q, bool turn)
{
    struct queues *all = q->all;
    bool started = false, called = q->place.state == PLACE_CALLED;
    q->gate = GATE_OPEN;
    queue_unpark(q);
    if (q->place.host && !called)
        return; /* it waits for a host */
    while (q->delivering < q->pace.limit && !queue_waits(q)) {
        if (!queue_has_work(q) || (called && started))
            break;
        if (!queue_gets_connection(q, turn, started))
            break;
        struct job *j = next_ready(q);
        bool passes = j && queue_gate_passes(q, j);
        if (j && !passes && q->gate == GATE_SOURCE) { /* another one may have another source */
            queue_park(q, j, q->gate_at - engine_now(all->engine));
            q->gate = GATE_OPEN;
            continue;
        }
        if (!passes)
            break;
        q->fresh_taken += q->fresh_turn && !list_empty(&q->fresh);
        q->fresh_turn = !q->fresh_turn;
        j->called = called;
        if (called)
            q->place.state = PLACE_COMING;
        queue_start_job(q, j);
        started = true;
    }
    all->refused = route_unref(all->refused);
    if (called && !started && list_empty(&q->starving)) /* else it goes when its turn comes */
        hosts_leave(all->engine->hosts, &q->place);     /* whoever is next */
}

static void pump(struct queue *q)
{
    struct queues *all = q->all;
    bool turn = q->its_turn;
    q->its_turn = false;
    if (all->stopping)
        return;
    if (q->unread && !queue_waits(q))
        read_state(q);
    if (q->reroute)
        queue_load_reroutes(q);
    if (q->released)
        queue_mind_release(q);
    if (q->held) {
        hosts_leave(all->engine->hosts, &q->place);
        if (q->released) /* which ends in time all the same */
            engine_timer(all->engine, &q->wake,
                         MAX(q->released_until - engine_now(all->engine), (int64_t)1));
        return;
    }
    if (q->warn_more && q->warning == 0)
        queue_load_warnings(q);
    queue_mind_by(q);
    start_jobs(q, turn);
    if (q->released)
        queue_mind_release(q);
    queue_arm(q);
    if (forgettable(q))
        queue_free(all, q);
}

static void pump_all(struct later *l)
{
    struct queues *all = CONTAINER_OF(l, struct queues, pump);
    struct list batch;
    queues_mind_clock(all);
    list_init(&batch);
    list_join(&batch, &all->runnable);
    struct list *it;
    while ((it = list_pop(&batch)))
        pump(LIST_ENTRY(it, struct queue, runnable));
    if (!all->stopping)
        queue_lines_feed(all);
}

/* Ready jobs of a queue that backs off go back to where they are kept anyway. */
void queue_drop_ready(struct queue *q)
{
    struct list *it;
    list_join(&q->ready, &q->fresh);
    list_join(&q->ready, &q->parked);
    q->parked_at = INT64_MAX;
    while ((it = list_pop(&q->ready)))
        queue_call_off(q, LIST_ENTRY(it, struct job, link));
}

/* retry_ms: when its hosts are left alone until then (nothing was tried), or the policy says so. */
static void back_off(struct queue *q, const struct schedule *schedule,
                     const struct queue_hosts *hosts, struct str why, int64_t retry_ms)
{
    struct engine *e = q->all->engine;
    const struct settings *set = e->snapshot->settings;
    int64_t now = engine_now(e), delay = retry_ms;
    q->on_disk = true;
    q->hosts = *hosts;
    queue_drop_ready(q);
    pace_down(&q->pace); /* the next one is a probe */
    queue_set_proven(q, false);
    if (delay > 0) /* many queues wait for the same host */
        delay = schedule_spread(delay, hash_bytes(q->name, q->name_n));
    if (q->failures && q->retry_at > now) { /* several attempts failed at once: one failure */
        q->retry_at = MAX(q->retry_at, now + delay);
        queue_arm(q);
        return;
    }
    if (!q->failures)
        q->failing_since_ms = engine_wall(e);
    if (retry_ms <= 0 || q->failures == 0)
        q->failures++;
    str_copy(why, q->last_error, sizeof q->last_error);
    if (delay <= 0)
        delay = schedule_delay_most(schedule, q->failures, set->queue.host_retry_max_ms,
                                    engine_random(e));
    q->retry_at = now + delay;
    engine_event(e, EVENT(EVENT_INFO, "queue_backoff", F_STR("queue", queue_name(q)),
                          F_INT("failures", q->failures), F_INT("retry_in_ms", delay),
                          F_STR("why", why)));
    queue_arm(q);
}

/* Success opens it up. */
static void ramp_up(struct queue *q, const struct route *route)
{
    const struct settings *set = q->all->engine->snapshot->settings;
    struct pace_bounds b = { .start = set->queue.concurrency, .most = set->queue.max_concurrency };
    if (route && route->concurrency)
        b.start = b.most = route->concurrency;
    if (q->failures) {
        q->failures = 0;
        q->failing_since_ms = 0;
        q->last_error[0] = 0;
        q->next_due =
            INT64_MAX; /* what waits for a later time because the host was down: look again */
        engine_event(q->all->engine,
                     EVENT(EVENT_INFO, "queue_recovered", F_STR("queue", queue_name(q))));
        q->on_disk = true;
    }
    q->retry_at = 0;
    queue_set_proven(q, true);
    pace_worked(&q->pace, &b, q->delivering + 1, engine_now(q->all->engine));
}

/* Nothing has failed: there is a reason of our own why it did not go. The others need not wait for what only wants a
 * source. */
static void held_back(struct queue *q, const struct job *j, struct str why, int64_t wait_ms)
{
    if (!q->failures)
        str_copy(why, q->last_error, sizeof q->last_error);
    if (!j->wants_source || !j->whole)
        queue_pause(q, wait_ms);
}

/* No host could be used for this one, or not for one more. True: there is nothing that works. */
static bool failed(struct queue *q, const struct job *j, enum attempt_end how, struct str why)
{
    struct engine *e = q->all->engine;
    bool worked = j->mark != q->pace.successes;
    if (how == ATTEMPT_CROWDED && !q->delivering)
        return false; /* it is others that have the host's connections */
    if (pace_failed(&q->pace, q->delivering, worked, engine_now(e)) == PACE_DOWN)
        return true;
    if (how == ATTEMPT_HOST_FAILED)
        engine_event(e, EVENT(EVENT_INFO, "queue_limit", F_STR("queue", queue_name(q)),
                              F_INT("connections", q->pace.limit), F_STR("why", why)));
    return false;
}

/* What the end of an attempt says about the destination. True: that it is down. */
static bool judge(struct queue *q, const struct job *j, enum attempt_end how, struct str why,
                  int64_t retry_ms)
{
    const struct settings *set = q->all->engine->snapshot->settings;
    bool asked = how == ATTEMPT_DONE || how == ATTEMPT_BROKEN || how == ATTEMPT_HOST_FAILED;
    if (j->forced && asked && j->forced_at == q->forced_at)
        q->forced = false;
    if (how == ATTEMPT_HOST_FAILED && q->release_once && j->class_ == SPOOL_WAITING) {
        queue_release_is_over(q); /* that connection has gone, which says nothing of the next one */
        return true;
    }
    if (how == ATTEMPT_DONE && !q->failures)
        q->last_error[0] = 0;
    if (how == ATTEMPT_DONE)
        ramp_up(q, j->route);
    else if (how == ATTEMPT_NOT_MADE)
        queue_pause(q, retry_ms > 0 ? retry_ms : LOCAL_RETRY_MS);
    else if (how == ATTEMPT_HELD_BACK || how == ATTEMPT_STUCK)
        held_back(q, j, why, retry_ms);
    if (how == ATTEMPT_BROKEN && (!q->failures || q->delivering))
        return false; /* it may have been the message; a probe that ends so shows nothing better */
    if (how != ATTEMPT_BROKEN && how != ATTEMPT_CROWDED && how != ATTEMPT_HOST_FAILED)
        return false;
    if (!failed(q, j, how, why))
        return false;
    back_off(q, j->route && j->route->retry.n ? &j->route->retry : &set->queue.retry, &j->hosts,
             why, retry_ms);
    return true;
}

/* Nothing more of it is tried: it waits on disk, as before the release. */
static bool release_is_over_for(const struct queue *q, const struct job *j)
{
    return q->release_over && j->class_ == SPOOL_WAITING;
}

/* What waits for room at a host, or was refused there, stays in memory when nothing of it has changed. */
static bool keep_job(struct queue *q, struct job *j, enum attempt_end how)
{
    if (j->parked)
        return true;
    if (!j->whole || q->all->stopping || queue_waits(q) || release_is_over_for(q, j) ||
        (how != ATTEMPT_FULL && how != ATTEMPT_CROWDED))
        return false;
    if (how == ATTEMPT_FULL)
        list_unshift(&q->ready, &j->link);
    else
        list_push(&q->ready, &j->link); /* others first: perhaps it is what the host minds */
    return true;
}

/* Its place in a host's line was for this attempt, which did not need it. */
static void give_up_place(struct queue *q, struct job *j)
{
    if (j->called && q->place.state == PLACE_COMING)
        hosts_leave(q->all->engine->hosts, &q->place);
    j->called = false;
}

/* For one that has ended another queue may go on. */
static void call_for_chores(struct queues *all, const struct job *ended)
{
    struct list *it = ended->mode == JOB_DELIVER ? NULL : list_pop(&all->chore_waiters);
    if (it && !all->stopping)
        queue_run_soon(LIST_ENTRY(it, struct queue, chore_wait));
}

/* Nothing goes: what is too old is to be found. One batch after another. */
static void mind_age(struct queue *q, bool look, enum spool_class class_)
{
    if (look && q->expiring == 0 && !q->held && !q->all->stopping)
        queue_load_expired(q, class_);
}

void queue_attempt_ended(struct job *j, enum attempt_end how, struct str why, int64_t retry_ms)
{
    struct queue *q = j->queue;
    struct queues *all = q->all;
    CHECK(q->active > 0 && all->active > 0);
    q->active--;
    all->active--;
    all->delivering -= j->mode == JOB_DELIVER;
    call_for_chores(all, j);
    queue_way_ended(q, j);
    q->expiring -= j->mode == JOB_EXPIRE;
    q->releasing -= j->mode == JOB_DELIVER && j->class_ == SPOOL_WAITING;
    q->warning -= j->mode == JOB_WARN;
    q->delivering -= j->mode == JOB_DELIVER;
    give_up_place(q, j);
    bool waits = j->wants_source && (how == ATTEMPT_HELD_BACK || how == ATTEMPT_STUCK);
    if (waits && j->whole && !all->stopping && !release_is_over_for(q, j))
        queue_park_tried(q, j, retry_ms);
    bool in_vain = j->mode == JOB_DELIVER && judge(q, j, how, why, retry_ms);
    queue_line_ended(q, j);
    in_vain |= j->mode == JOB_DELIVER && how == ATTEMPT_STUCK;
    q->warn_more |= in_vain;
    if (keep_job(q, j, how)) {
        mind_age(q, in_vain, SPOOL_SCHEDULED);
        queue_run_soon(q);
        return;
    }
    if (j->mode == JOB_WARN && how != ATTEMPT_DONE)
        q->warn_more = q->warn_begun = false; /* with the next failure, from the start */
    bool all_written = how == ATTEMPT_DONE || how == ATTEMPT_BROKEN || how == ATTEMPT_UNTRIED;
    if (!all_written || j->more) {
        /* Some of the message is still there. `more` may be of the other class. */
        q->on_disk |= j->more || j->class_ == SPOOL_SCHEDULED;
        q->waiting_left |= j->more || j->class_ == SPOOL_WAITING;
    }
    /* One batch of what is too old after another, but not when that could not be written. */
    bool expiring = in_vain || (j->mode == JOB_EXPIRE && how == ATTEMPT_DONE);
    enum spool_class class_ = j->mode == JOB_EXPIRE ? j->class_ : SPOOL_SCHEDULED;
    if (j->mode == JOB_REROUTE && !j->batch && how == ATTEMPT_NOT_MADE && !all->stopping)
        queue_reroute_again(q);
    if (j->batch)
        queue_batch_job_ended(j, how);
    job_drop(all, j);
    mind_age(q, expiring, class_);
    queue_run_soon(q);
}

/* ---- hosts without room ------------------------------------------------------------------------ */

static void queue_called(struct host_place *p)
{
    struct queue *q = CONTAINER_OF(p, struct queue, place);
    if (!q->all->stopping)
        queue_run_soon(q);
}

bool queue_host_room(const struct job *j, const struct net_addr *addr)
{
    struct queue *q = j->queue;
    return hosts_room(q->all->engine->hosts, addr, j->called ? &q->place : NULL, j->forced);
}

void queue_host_taken(struct job *j, const struct net_addr *addr)
{
    struct queue *q = j->queue;
    if (!j->called)
        return;
    hosts_served(q->all->engine->hosts, addr, &q->place);
    if (q->place.state == PLACE_COMING) /* it connects elsewhere: who is behind it may go */
        hosts_leave(q->all->engine->hosts, &q->place);
    j->called = false;
    queue_run_soon(q); /* its other jobs need no place any more, or stand anew */
}

void queue_stand_for_host(struct job *j, const struct net_addr *addr)
{
    hosts_stand(j->queue->all->engine->hosts, addr, &j->queue->place);
    j->called = false;
}

/* ---- signs of life ----------------------------------------------------------------------------- */

static bool backs_off_because_of(const struct queue *q, uint64_t ip)
{
    for (size_t i = 0; i < q->hosts.n; i++)
        if (q->hosts.ip[i] == ip)
            return q->failures && q->retry_at > engine_now(q->all->engine);
    return false;
}

void queues_heard_from(struct queues *all, const struct net_addr *ip)
{
    struct queue *q, *tmp;
    uint64_t hash = net_addr_hash_ip(ip);
    char text[NET_ADDR_TEXT];
    HASH_ITER(hh, all->by_name, q, tmp) {
        if (!backs_off_because_of(q, hash))
            continue;
        q->retry_at = 0;
        engine_event(all->engine, EVENT(EVENT_INFO, "queue_probe", F_STR("queue", queue_name(q)),
                                        F_STRZ("heard_from", net_addr_ip_text(ip, text))));
        queue_run_soon(q);
    }
}

bool queue_expire_waiting(struct queues *all, struct str name)
{
    struct queue *q = queue_get(all, name);
    if (!q || q->held || q->expiring || all->stopping)
        return false;
    size_t begun = queue_load_expired(q, SPOOL_WAITING);
    queue_run_soon(q);
    return begun > 0;
}

bool queues_busy(const struct queues *all)
{
    return !list_empty(&all->commands) || !list_empty(&all->batches) || !list_empty(&all->asides);
}

size_t queues_active(const struct queues *all)
{
    return all->active;
}

void queues_stop(struct queues *all)
{
    all->stopping = true;
}
