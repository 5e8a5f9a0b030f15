/* queue_age.c - what has waited long in a queue: its sender is told of the delay once (ROUTING.md Q9), and in
 * the end it is returned. See queue.h.
 *
 * Mail whose host is down is not touched at each attempt, so somebody has to look at it: after a failed
 * probe, from the oldest on, a batch a turn. Where a cursor has been, it does not look again. */
#include "engine/notification.h"
#include "engine/queue_impl.h"

enum { EXPIRE_BATCH = 32, EXPIRE_LOOK = 32, WARN_BATCH = 32 };

/* ---- too old ---------------------------------------------------------------------------------- */

int64_t route_lifetime(const struct settings *set, const struct route *r, bool host_failure)
{
    if (r && r->lifetime_ms)
        return r->lifetime_ms;
    if (r && r->kind == ROUTE_HOLD)
        return INT64_MAX;
    if (r && host_failure && r->host_failure_forever)
        return INT64_MAX;
    return set->queue.lifetime_ms;
}

int64_t queue_expires(const struct settings *set, const struct message *m, const struct route *r,
                      bool host_failure)
{
    int64_t lifetime = route_lifetime(set, r, host_failure);
    int64_t at = lifetime == INT64_MAX ? INT64_MAX : message_start(m) + lifetime;
    return MIN(at, message_return_at(m));
}

bool queue_is_expired(const struct settings *set, const struct message *m, const struct route *r,
                      bool host_failure, int64_t wall_ms, int64_t age_wall_ms)
{
    int64_t lifetime = route_lifetime(set, r, host_failure);
    return wall_ms >= message_return_at(m) ||
           (lifetime != INT64_MAX && age_wall_ms - message_start(m) > lifetime);
}

static bool too_old(struct queue *q, const struct job *j)
{
    struct engine *e = q->all->engine;
    return queue_is_expired(e->snapshot->settings, j->message, j->recipients[0].route, true,
                            engine_wall(e), queues_age_wall(q->all));
}

/* 1: begun; 0: not too old, or not to be read now; -ENOENT: in memory already, or gone. */
static int expire_one(struct queue *q, const struct spool_due *from, size_t n, enum spool_class c)
{
    struct job *j = job_find(q->all, q, &from->id);
    if (j && (!j->parked || queue_load_job(q, j) < 0))
        return -ENOENT;
    if (j && !too_old(q, j))
        return 0;
    if (j)
        queue_call_off(q, j);
    j = queue_job_of(q, from, n, c);
    if (!j)
        return 0;
    j->mode = JOB_EXPIRE;
    int r = queue_load_job(q, j);
    if (r == 0 && too_old(q, j)) {
        queue_start_job(q, j);
        return 1;
    }
    job_drop(q->all, j);
    return r == -ENOENT ? r : 0;
}

/* From the start (the oldest, as a rule) as long as they are too old; or, when `all_of_them`, on from where the
 * last look ended, since others may stand behind some that never expire. */
static size_t expire_from(struct queue *q, bool all_of_them)
{
    struct spool_due *d = q->all->dues;
    size_t most = queue_most_recipients(q), begun = 0;
    int n = queue_spool(q)->scan_due(queue_spool(q), queue_name(q), SPOOL_SCHEDULED,
                                     all_of_them && q->expire_begun ? &q->expire_after : NULL,
                                     INT64_MAX, d, all_of_them ? EXPIRE_LOOK : QUEUE_WINDOW);
    if (all_of_them) {
        q->expire_begun = n == EXPIRE_LOOK;
        if (n > 0)
            q->expire_after = d[n - 1];
    }
    for (int i = 0, k; i < n && begun < EXPIRE_BATCH; i = k) {
        for (k = i + 1; k < n && (size_t)(k - i) < most && !msgid_cmp(&d[k].id, &d[i].id);)
            k++;
        int r = expire_one(q, &d[i], (size_t)(k - i), SPOOL_SCHEDULED);
        begun += r == 1;
        if (r == 0 && !all_of_them)
            break;
    }
    return begun;
}

/* Waiting mail stands in the order in which it came, or was tried last: the first ones are looked at. */
static size_t expire_waiting(struct queue *q)
{
    struct spool_due *d = q->all->dues;
    size_t most = queue_most_recipients(q), begun = 0;
    int n = queue_spool(q)->scan_due(queue_spool(q), queue_name(q), SPOOL_WAITING, NULL, INT64_MAX,
                                     d, QUEUE_WINDOW);
    for (int i = 0, k; i < n && begun < EXPIRE_BATCH; i = k) {
        for (k = i + 1; k < n && (size_t)(k - i) < most && !msgid_cmp(&d[k].id, &d[i].id);)
            k++;
        begun += expire_one(q, &d[i], (size_t)(k - i), SPOOL_WAITING) == 1;
    }
    return begun;
}

size_t queue_load_expired(struct queue *q, enum spool_class c)
{
    if (c == SPOOL_WAITING)
        return expire_waiting(q);
    size_t begun = expire_from(q, false);
    return begun ? begun : expire_from(q, true);
}

/* ---- delayed ---------------------------------------------------------------------------------- */

int64_t queue_warn_at(const struct queue *q, const struct job *j)
{
    const struct settings *set = q->all->engine->snapshot->settings;
    int64_t at = INT64_MAX;
    for (size_t i = 0; i < j->n; i++)
        at = MIN(at, notification_warn_at(set, j->message, &j->recipients[i]));
    return at;
}

/* 1: begun; 0: not now, so what is behind it need not be looked at; -ENOENT: nothing is to be said of it, and
 * it can be passed over. One that is being tried must not be: it may wait longer than those behind it. */
static int warn_one(struct queue *q, const struct spool_due *from, size_t n)
{
    struct job *known = job_find(q->all, q, &from->id);
    if (known && known->parked && queue_load_job(q, known) == 0) {
        int64_t when = queue_warn_at(q, known);
        if (when > engine_wall(q->all->engine))
            return when == INT64_MAX ? -ENOENT : 0;
        queue_call_off(q, known);
    } else if (known) {
        return known->mode == JOB_DAMAGED ? -ENOENT : 0;
    }
    struct job *j = queue_job_of(q, from, n, SPOOL_SCHEDULED);
    if (!j)
        return 0;
    j->mode = JOB_WARN;
    int r = queue_load_job(q, j);
    bool gone = r == -ENOENT || r == -EBADMSG;
    int64_t at = r == 0 ? queue_warn_at(q, j) : INT64_MAX;
    if (at <= engine_wall(q->all->engine)) {
        uint32_t before = q->warning++;
        queue_start_job(q, j);
        return q->warning > before; /* else it has ended already, and comes again with the others */
    }
    job_drop(q->all, j);
    return at == INT64_MAX && (r == 0 || gone) ? -ENOENT : 0;
}

/* What is due later than now is told of when it is deferred again, or when its time has come: behind it
 * would be no place for what comes before. */
void queue_load_warnings(struct queue *q)
{
    if (!queue_may_do_chores(q))
        return;
    int64_t now = engine_wall(q->all->engine);
    struct spool_due *d = q->all->dues;
    size_t most = queue_most_recipients(q), begun = 0;
    int n = queue_spool(q)->scan_due(queue_spool(q), queue_name(q), SPOOL_SCHEDULED,
                                     q->warn_begun ? &q->warn_after : NULL, now, d, QUEUE_WINDOW);
    bool reached = false; /* one that is not to be told of yet */
    for (int i = 0, k; i < n && begun < WARN_BATCH; i = k) {
        for (k = i + 1; k < n && (size_t)(k - i) < most && !msgid_cmp(&d[k].id, &d[i].id);)
            k++;
        int r = warn_one(q, &d[i], (size_t)(k - i));
        reached = r == 0;
        if (reached)
            break;
        begun += r == 1;
        q->warn_begun = true;
        q->warn_after = d[k - 1];
    }
    q->warn_more = begun > 0 || (!reached && n == QUEUE_WINDOW);
    if (q->warn_more && begun == 0)
        queue_run_soon(q); /* all of these have been told of: on */
}
