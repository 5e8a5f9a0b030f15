/* queue.c - the queues of one worker: arrival, window, start and end of attempts, back-off. See queue.h.
 * Commands are in queue_command.c, reading from the spool in queue_load.c. */
#include "engine/queue.h"

#include "engine/delivery.h"
#include "engine/queue_impl.h"

/* ---- jobs ------------------------------------------------------------------------------------- */

struct job *job_free(struct job *j)
{
    if (!j)
        return NULL;
    for (size_t i = 0; i < j->n; i++)
        recipient_done(&j->recipients[i]);
    route_unref(j->route);
    message_unref(j->message);
    arena_done(&j->arena);
    free(j);
    return NULL;
}

struct job *job_new(struct str name, size_t n)
{
    struct job *j = calloc(1, sizeof *j + name.n + 1);
    if (!j)
        return NULL;
    if (name.n)
        memcpy(j->name, name.p, name.n);
    list_init(&j->link);
    arena_init(&j->arena, 0);
    j->recipients = ARENA_ARRAY(&j->arena, struct recipient, n);
    if (!j->recipients)
        return job_free(j);
    return j;
}

static bool copy_recipient(struct arena *a, const struct recipient *from, struct recipient *to)
{
    *to = *from;
    to->route = NULL;
    to->address.text = arena_str(a, from->address.text);
    to->address.local = arena_str(a, from->address.local);
    to->address.domain = arena_str(a, from->address.domain);
    to->orcpt = arena_str(a, from->orcpt);
    to->decided_by = arena_str(a, from->decided_by);
    to->last_host = arena_str(a, from->last_host);
    to->last_reply = arena_str(a, from->last_reply);
    if (from->address.text.n && !to->address.text.p)
        return false;
    to->route = route_ref(from->route);
    return true;
}

/* Is it in memory already? Then what is on disk is known. */
struct job *job_find(struct queues *all, const struct queue *q, const struct msgid *id)
{
    struct job_key key;
    struct job *j = NULL;
    memset(&key, 0, sizeof key);
    key.queue = q;
    key.id = *id;
    HASH_FIND(hh, all->jobs, &key, sizeof key, j);
    return j;
}

bool job_register(struct queues *all, struct queue *q, struct job *j)
{
    memset(&j->key, 0, sizeof j->key);
    j->key.queue = q;
    j->key.id = j->id;
    HASH_ADD(hh, all->jobs, key, sizeof j->key, j);
    if (!j->hh.tbl)
        return false;
    j->queue = q;
    q->n_jobs++;
    return true;
}

void job_forget(struct queues *all, struct job *j)
{
    HASH_DELETE(hh, all->jobs, j);
    j->queue->n_jobs--;
    j->queue = NULL;
}

/* ---- queues ----------------------------------------------------------------------------------- */

static void queue_wake(struct timer *t);
static void pump_all(struct later *l);

struct queues *queues_new(struct engine *e)
{
    struct queues *all = calloc(1, sizeof *all);
    if (!all)
        return NULL;
    all->engine = e;
    list_init(&all->runnable);
    buf_init(&all->bytes, 0);
    later_init(&all->pump, pump_all);
    later_init(&all->scan, queues_scan_step);
    return all;
}

static void queue_free(struct queues *all, struct queue *q)
{
    engine_timer_stop(all->engine, &q->wake);
    list_remove(&q->runnable);
    LIST_FOREACH(it, &q->ready)
    {
        struct job *j = LIST_ENTRY(it, struct job, link);
        list_remove(&j->link);
        job_forget(all, j);
        job_free(j);
    }
    CHECK(q->n_jobs == 0);
    HASH_DELETE(hh, all->by_name, q);
    route_unref(q->release_route);
    free(q);
}

struct queues *queues_free(struct queues *all)
{
    if (!all)
        return NULL;
    struct queue *q, *tmp;
    list_remove(&all->pump.link);
    list_remove(&all->scan.link);
    HASH_ITER(hh, all->by_name, q, tmp) {
        queue_free(all, q);
    }
    buf_done(&all->bytes);
    free(all);
    return NULL;
}

static void read_state(struct queues *all, struct queue *q)
{
    struct spool_queue *row = &all->row;
    struct port_spool *spool = all->engine->ports.spool;
    if (spool->read_queue(spool, queue_name(q), row) != 0)
        return;
    q->held = queue_record_held(str_make(row->record, row->record_n));
    q->on_disk = row->scheduled > 0;
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
    list_init(&q->runnable);
    timer_init(&q->wake, queue_wake);
    q->limit = all->engine->snapshot->settings->queue.concurrency;
    q->next_due = INT64_MAX;
    HASH_ADD_KEYPTR(hh, all->by_name, q->name, q->name_n, q);
    if (!q->hh.tbl) {
        free(q);
        return NULL;
    }
    read_state(all, q);
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

/* The wake timer follows from two facts: the end of the back-off, and the next due time. */
void queue_arm(struct queue *q)
{
    struct engine *e = q->all->engine;
    int64_t now = engine_now(e), at = INT64_MAX;
    if (q->next_due != INT64_MAX)
        at = now + MAX(q->next_due - engine_wall(e), (int64_t)0);
    if (q->retry_at > now && (q->on_disk || at != INT64_MAX))
        at = MAX(q->retry_at, at == INT64_MAX ? q->retry_at : MIN(at, q->retry_at));
    if (q->released)
        at = MIN(at, q->released_until);
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

/* ---- arrival ---------------------------------------------------------------------------------- */

/* Takes the job into the window, or remembers that it is on disk. */
static void take_arrival(struct queues *all, struct job *j)
{
    struct queue *q = queue_get(all, str_of(j->name));
    if (!q) { /* out of memory: a look at the spool will find it, at the next start at the latest */
        job_free(j);
        return;
    }
    bool wanted = j->class_ == SPOOL_SCHEDULED || q->released;
    bool room = list_empty(&q->ready) ? true : q->n_jobs < QUEUE_WINDOW;
    /* What is on disk is older and goes first. An empty window takes it all the same. */
    if (wanted && room && !q->held && q->retry_at <= engine_now(all->engine) && !all->stopping &&
        !job_find(all, q, &j->id) && job_register(all, q, j)) {
        list_push(&q->ready, &j->link);
    } else {
        if (j->class_ == SPOOL_SCHEDULED)
            q->on_disk = true;
        job_free(j);
        if (q->retry_at > engine_now(all->engine))
            queue_arm(q);
    }
    queue_run_soon(q);
}

static void arrival_run(struct engine *e, struct worker_message *m)
{
    take_arrival(e->queues, CONTAINER_OF(m, struct job, wm));
}

static struct job *arrival_job(struct message *m, const struct recipient *const *group, size_t n)
{
    const struct route *route = group[0]->route;
    struct job *j = job_new(route->queue, n);
    if (!j)
        return NULL;
    j->id = m->id;
    j->message = message_ref(m);
    j->route = route_ref((struct route *)route);
    j->class_ = route->kind == ROUTE_HOLD ? SPOOL_WAITING : SPOOL_SCHEDULED;
    j->wm.run = arrival_run;
    for (size_t i = 0; i < n; i++, j->n++)
        if (!copy_recipient(&j->arena, group[i], &j->recipients[i]))
            return job_free(j);
    return j;
}

static int by_queue(const void *a, const void *b)
{
    const struct recipient *const *x = a, *const *y = b;
    int c = str_cmp((*x)->route->queue, (*y)->route->queue);
    return c ? c : ((*x)->n > (*y)->n) - ((*x)->n < (*y)->n);
}

static void send_group(struct engine *e, struct message *m, const struct recipient *const *group,
                       size_t n)
{
    struct port_workers *workers = e->ports.workers;
    int owner = engine_queue_owner(group[0]->route->queue, workers->count);
    struct job *j = arrival_job(m, group, n);
    if (!j)
        return; /* found on disk later */
    if (owner == workers->self)
        take_arrival(e->queues, j);
    else
        workers->post(workers, owner, &j->wm);
}

void queues_arrived(struct engine *e, struct message *m, const struct recipient *recipients,
                    size_t n)
{
    const struct recipient *few[16], **sorted = few;
    AUTO_FREE const struct recipient **many = NULL;
    size_t most = MAX(e->snapshot->settings->queue.recipients, 1u);
    if (n > ARRAY_LEN(few)) {
        sorted = many = malloc(n * sizeof *many);
        if (!many)
            return;
    }
    for (size_t i = 0; i < n; i++)
        sorted[i] = &recipients[i];
    if (n > 1)
        qsort(sorted, n, sizeof *sorted, by_queue);
    for (size_t i = 0, k; i < n; i = k) {
        for (k = i + 1; k < n && k - i < most; k++)
            if (!str_eq(sorted[k]->route->queue, sorted[i]->route->queue) ||
                !route_same(sorted[k]->route, sorted[i]->route))
                break;
        send_group(e, m, sorted + i, k - i);
    }
}

/* ---- attempts --------------------------------------------------------------------------------- */

bool queue_may_start(const struct queue *q)
{
    const struct queues *all = q->all;
    return !all->stopping && all->active < all->engine->snapshot->settings->queue.connections;
}

void queue_start_job(struct queue *q, struct job *j)
{
    list_remove(&j->link);
    q->active++;
    q->all->active++;
    delivery_start(q->all->engine, j);
}

/* Nothing is known of it that the spool does not know too. */
static bool forgettable(const struct queue *q)
{
    return q->n_jobs == 0 && !q->on_disk && !q->held && !q->released && !q->reroute &&
           q->failures == 0 && q->next_due == INT64_MAX && list_empty(&q->runnable);
}

static void end_release(struct queue *q)
{
    struct engine *e = q->all->engine;
    q->released = false;
    q->release_route = route_unref(q->release_route);
    engine_event(e, EVENT(EVENT_INFO, "queue_release_ended", F_STR("queue", queue_name(q))));
}

static struct job *next_ready(struct queue *q)
{
    if (list_empty(&q->ready))
        queue_load(q);
    for (;;) {
        struct list *it = list_first(&q->ready);
        if (!it)
            return NULL;
        struct job *j = LIST_ENTRY(it, struct job, link);
        if (queue_load_job(q, j))
            return j;
        list_remove(&j->link); /* it is gone from the spool */
        job_forget(q->all, j);
        job_free(j);
        if (list_empty(&q->ready) && q->on_disk)
            return NULL; /* another turn */
    }
}

static void pump(struct queue *q)
{
    struct engine *e = q->all->engine;
    if (q->reroute)
        queue_load_reroutes(q);
    if (q->released && engine_now(e) >= q->released_until)
        end_release(q);
    if (q->held || q->all->stopping)
        return;
    if (q->retry_at > engine_now(e)) {
        queue_arm(q);
        return;
    }
    while (q->active < q->limit && queue_may_start(q)) {
        struct job *j = next_ready(q);
        if (!j)
            break;
        queue_start_job(q, j);
    }
    if (q->released && q->n_jobs == 0 && list_empty(&q->ready) && !q->waiting_left)
        end_release(q);
    if (q->active < q->limit && !list_empty(&q->ready) && !queue_may_start(q))
        q->all->starved = true;
    else if (q->active < q->limit && list_empty(&q->ready) && q->on_disk)
        queue_run_soon(q); /* entries were dropped: there may be more behind them */
    queue_arm(q);
    if (forgettable(q))
        queue_free(q->all, q);
}

static void pump_all(struct later *l)
{
    struct queues *all = CONTAINER_OF(l, struct queues, pump);
    struct list batch;
    list_init(&batch);
    list_join(&batch, &all->runnable);
    struct list *it;
    while ((it = list_pop(&batch)))
        pump(LIST_ENTRY(it, struct queue, runnable));
}

/* Ready jobs of a queue that backs off go back to where they are kept anyway. */
void queue_drop_ready(struct queue *q)
{
    struct list *it;
    while ((it = list_pop(&q->ready))) {
        struct job *j = LIST_ENTRY(it, struct job, link);
        q->on_disk |= j->class_ == SPOOL_SCHEDULED;
        q->waiting_left |= j->class_ == SPOOL_WAITING;
        job_forget(q->all, j);
        job_free(j);
    }
}

static void back_off(struct queue *q, const struct schedule *schedule, struct str why,
                     int64_t retry_ms)
{
    struct engine *e = q->all->engine;
    const struct settings *set = e->snapshot->settings;
    int64_t delay = retry_ms;
    q->failures++;
    q->limit = 1; /* the next one is a probe */
    str_copy(why, q->last_error, sizeof q->last_error);
    if (delay <= 0) {
        delay = schedule_delay_jitter(schedule, q->failures, engine_random(e));
        delay = MIN(delay, set->queue.host_retry_max_ms);
    }
    q->retry_at = engine_now(e) + delay;
    q->on_disk = true;
    queue_drop_ready(q);
    engine_event(e, EVENT(EVENT_INFO, "queue_backoff", F_STR("queue", queue_name(q)),
                          F_INT("failures", q->failures), F_INT("retry_in_ms", delay),
                          F_STR("why", why)));
    queue_arm(q);
}

/* Success opens it up: from a probe by doubling to the configured start, then by one for each full round
 * of successes, up to the most allowed. */
static void ramp_up(struct queue *q, const struct route *route)
{
    const struct settings *set = q->all->engine->snapshot->settings;
    uint32_t start = route && route->concurrency ? route->concurrency : set->queue.concurrency;
    uint32_t most = route && route->concurrency ? route->concurrency : set->queue.max_concurrency;
    if (q->failures) {
        q->failures = 0;
        q->last_error[0] = 0;
        q->next_due =
            INT64_MAX; /* what waits for a later time because the host was down: look again */
        engine_event(q->all->engine,
                     EVENT(EVENT_INFO, "queue_recovered", F_STR("queue", queue_name(q))));
        q->on_disk = true;
    }
    q->retry_at = 0;
    if (q->limit < start) {
        q->limit = MIN(q->limit * 2, start);
    } else if (++q->successes >= q->limit && q->limit < most) {
        q->successes = 0;
        q->limit++;
    }
    q->limit = MIN(q->limit, MAX(most, 1u));
}

void queue_attempt_ended(struct job *j, enum attempt_end how, struct str why, int64_t retry_ms)
{
    struct queue *q = j->queue;
    struct queues *all = q->all;
    struct engine *e = all->engine;
    CHECK(q->active > 0 && all->active > 0);
    q->active--;
    all->active--;
    if (j->mode == JOB_DELIVER) {
        const struct schedule *schedule =
            j->route && j->route->retry.n ? &j->route->retry : &e->snapshot->settings->queue.retry;
        if (how == ATTEMPT_DONE) {
            ramp_up(q, j->route);
        } else if (how == ATTEMPT_HOST_FAILED) {
            q->waiting_left |= j->class_ == SPOOL_WAITING;
            back_off(q, schedule, why, retry_ms);
        } else if (how == ATTEMPT_NOT_MADE) {
            q->on_disk |= j->class_ == SPOOL_SCHEDULED;
            q->waiting_left |= j->class_ == SPOOL_WAITING;
            q->retry_at = engine_now(e) + (retry_ms > 0 ? retry_ms : 5000);
            queue_arm(q);
        }
    }
    q->on_disk |= j->more && j->class_ == SPOOL_SCHEDULED;
    q->waiting_left |= j->more && j->class_ == SPOOL_WAITING;
    bool expiring = how == ATTEMPT_HOST_FAILED || (j->mode == JOB_EXPIRE && q->active == 0);
    job_forget(all, j);
    job_free(j);
    if (expiring && !all->stopping)
        queue_load_expired(q);
    queue_run_soon(q);
    if (all->starved) {
        struct queue *other, *tmp;
        all->starved = false;
        HASH_ITER(hh, all->by_name, other, tmp) {
            if (!list_empty(&other->ready) || other->on_disk)
                queue_run_soon(other);
        }
    }
}

size_t queues_active(const struct queues *all)
{
    return all->active;
}

void queues_stop(struct queues *all)
{
    all->stopping = true;
}

bool queue_status(struct queues *all, struct str name, struct queue_status *ret)
{
    struct queue *q = queue_find(all, name);
    if (!q)
        return false;
    int64_t now = engine_now(all->engine);
    *ret = (struct queue_status){
        .active = q->active,
        .in_memory = (uint32_t)q->n_jobs,
        .concurrency = q->limit,
        .retry_in_ms = q->retry_at > now ? q->retry_at - now : -1,
        .failures = q->failures,
        .held = q->held,
        .released = q->released,
    };
    str_copy(str_of(q->last_error), ret->last_error, sizeof ret->last_error);
    return true;
}
