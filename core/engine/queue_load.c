/* queue_load.c - from the spool into a queue's window: due entries by cursor, records, what is too old,
 * what the policy routes anew. See queue.h. */
#include "engine/queue_impl.h"

enum { EXPIRE_BATCH = 32, REROUTE_BATCH = 32 };

static struct port_spool *spool_of(const struct queue *q)
{
    return q->all->engine->ports.spool;
}

static size_t recipients_of(const struct queue *q)
{
    return MAX(q->all->engine->snapshot->settings->queue.recipients, 1u);
}

/* A job of the entries [from, to) of one message; only their numbers are known. */
static struct job *job_from_entries(struct queue *q, const struct spool_due *from, size_t n,
                                    enum spool_class c)
{
    struct job *j = job_new(STR_NONE, n);
    if (!j)
        return NULL;
    j->id = from->id;
    j->class_ = c;
    for (size_t i = 0; i < n; i++)
        j->recipients[j->n++].n = from[i].n;
    if (!job_register(q->all, q, j))
        return job_free(j);
    return j;
}

/* Makes jobs of what is due in one class while there is room. True: all that is due was seen. */
static bool load_class(struct queue *q, enum spool_class c, int64_t until)
{
    struct spool_due *d = q->all->dues, last, *after = NULL;
    size_t most = recipients_of(q);
    for (;;) {
        int n = spool_of(q)->scan_due(spool_of(q), queue_name(q), c, after, until, d, QUEUE_WINDOW);
        if (n < 0)
            return false;
        for (int i = 0, k; i < n; i = k) {
            for (k = i + 1; k < n && (size_t)(k - i) < most && !msgid_cmp(&d[k].id, &d[i].id);)
                k++;
            struct job *j = job_find(q->all, q, &d[i].id);
            if (j) {
                j->more = true; /* perhaps: looked at again when it ends */
                continue;
            }
            if (q->n_jobs >= QUEUE_WINDOW)
                return false;
            j = job_from_entries(q, &d[i], (size_t)(k - i), c);
            if (!j)
                return false;
            list_push(&q->ready, &j->link);
        }
        if (n < QUEUE_WINDOW)
            return true;
        last = d[n - 1];
        after = &last;
    }
}

/* When does the next one become due? */
static void find_next_due(struct queue *q, int64_t now)
{
    struct spool_due after = { .due_ms = now, .n = UINT32_MAX }, next;
    memset(after.id.b, 0xff, sizeof after.id.b);
    int n = spool_of(q)->scan_due(spool_of(q), queue_name(q), SPOOL_SCHEDULED, &after, INT64_MAX,
                                  &next, 1);
    q->next_due = n == 1 ? next.due_ms : INT64_MAX;
}

void queue_load(struct queue *q)
{
    int64_t now = engine_wall(q->all->engine);
    if (q->on_disk && load_class(q, SPOOL_SCHEDULED, now)) {
        q->on_disk = false;
        find_next_due(q, now);
    }
    if (q->released && q->waiting_left && load_class(q, SPOOL_WAITING, INT64_MAX))
        q->waiting_left = false;
}

/* ---- one job ---------------------------------------------------------------------------------- */

static int load_message(struct queue *q, struct job *j)
{
    if (j->message)
        return 0;
    struct buf *b = &q->all->bytes;
    int r = spool_of(q)->read_message(spool_of(q), &j->id, b);
    if (r == 0)
        r = message_decode(&j->id, buf_str(b), &j->message);
    return r;
}

static int load_recipient(struct queue *q, struct job *j, uint32_t n, struct recipient *ret)
{
    struct buf *b = &q->all->bytes;
    struct spool_entry entry;
    int r = spool_of(q)->read_recipient(spool_of(q), &j->id, n, &entry, b);
    if (r < 0)
        return r;
    if (entry.class_ != j->class_ || !str_eq(str_of(entry.queue), queue_name(q)))
        return -ENOENT; /* moved meanwhile */
    r = recipient_decode(&j->arena, n, buf_str(b), ret);
    if (r == 0)
        ret->due_ms = entry.due_ms;
    return r;
}

/* Keeps the recipients that are still there and that share the first one's route. */
static int load_recipients(struct queue *q, struct job *j)
{
    size_t kept = 0;
    int failed = 0;
    for (size_t i = 0; i < j->n; i++) {
        struct recipient r = { 0 };
        int err = load_recipient(q, j, j->recipients[i].n, &r);
        if (err < 0) {
            if (err != -ENOENT)
                failed = err;
            continue;
        }
        if (kept && !route_same(r.route, j->recipients[0].route)) {
            recipient_done(&r);
            j->more = true;
            continue;
        }
        j->recipients[kept++] = r;
    }
    j->n = kept;
    return kept ? 0 : failed ? failed : -ENOENT;
}

static void report_unreadable(struct queue *q, const struct job *j, int err)
{
    char id[MSGID_TEXT];
    engine_event(q->all->engine,
                 EVENT(EVENT_ERROR, "spool_record_unreadable", F_STRZ("id", msgid_text(&j->id, id)),
                       F_STR("queue", queue_name(q)), F_STRZ("error", strerror(-err))));
}

bool queue_load_job(struct queue *q, struct job *j)
{
    if (!j->message || !j->route) {
        int r = load_message(q, j);
        if (r == 0)
            r = load_recipients(q, j);
        if (r < 0) {
            if (r != -ENOENT) {
                report_unreadable(q, j, r);
                q->retry_at = engine_now(q->all->engine) + 60000;
            }
            return false;
        }
        j->route = route_unref(j->route);
        j->route = route_ref(j->recipients[0].route);
    }
    if (j->class_ == SPOOL_WAITING && j->mode == JOB_DELIVER) {
        if (!q->released)
            return false;
        if (j->route != q->release_route) {
            route_unref(j->route);
            j->route = route_ref(q->release_route);
        }
    }
    return true;
}

/* ---- too old ---------------------------------------------------------------------------------- */

int64_t route_lifetime(const struct settings *set, const struct route *r, bool host_failure)
{
    if (r && r->lifetime_ms)
        return r->lifetime_ms;
    if (r && host_failure && r->host_failure_forever)
        return INT64_MAX;
    return set->queue.lifetime_ms;
}

static bool too_old(struct queue *q, const struct job *j)
{
    struct engine *e = q->all->engine;
    int64_t lifetime = route_lifetime(e->snapshot->settings, j->recipients[0].route, true);
    return lifetime != INT64_MAX && engine_wall(e) - msgid_time(&j->id) > lifetime;
}

/* Starts jobs of one mode from the head of a class; stops at the first that `wanted` refuses. */
void queue_load_expired(struct queue *q)
{
    struct spool_due *d = q->all->dues;
    size_t most = recipients_of(q), started = 0;
    int n = spool_of(q)->scan_due(spool_of(q), queue_name(q), SPOOL_SCHEDULED, NULL, INT64_MAX, d,
                                  QUEUE_WINDOW);
    for (int i = 0, k; i < n && started < EXPIRE_BATCH; i = k) {
        for (k = i + 1; k < n && (size_t)(k - i) < most && !msgid_cmp(&d[k].id, &d[i].id);)
            k++;
        if (job_find(q->all, q, &d[i].id))
            continue;
        struct job *j = job_from_entries(q, &d[i], (size_t)(k - i), SPOOL_SCHEDULED);
        if (!j)
            return;
        j->mode = JOB_EXPIRE;
        if (queue_load_job(q, j) && too_old(q, j)) {
            queue_start_job(q, j);
            started++;
        } else {
            job_forget(q->all, j);
            job_free(j);
            return;
        }
    }
}

/* ---- after a change of policy ----------------------------------------------------------------- */

static bool needs_reroute(struct queue *q, const struct job *j)
{
    uint64_t fingerprint = q->all->engine->snapshot->settings->fingerprint;
    for (size_t i = 0; i < j->n; i++)
        if (j->recipients[i].policy != fingerprint)
            return true;
    return false;
}

static void start_reroute(struct queue *q, const struct spool_due *from, size_t n)
{
    if (job_find(q->all, q, &from->id))
        return;
    struct job *j = job_from_entries(q, from, n, SPOOL_WAITING);
    if (!j)
        return;
    j->mode = JOB_REROUTE;
    if (queue_load_job(q, j) && needs_reroute(q, j)) {
        queue_start_job(q, j);
        return;
    }
    job_forget(q->all, j);
    job_free(j);
}

void queue_load_reroutes(struct queue *q)
{
    if (q->active >= REROUTE_BATCH || q->all->stopping)
        return;
    struct spool_due *d = q->all->dues;
    size_t most = recipients_of(q);
    int n = spool_of(q)->scan_due(spool_of(q), queue_name(q), SPOOL_WAITING,
                                  q->reroute_begun ? &q->reroute_after : NULL, INT64_MAX, d,
                                  REROUTE_BATCH);
    if (n <= 0) {
        q->reroute = q->reroute_begun = false;
        return;
    }
    q->reroute_begun = true;
    q->reroute_after = d[n - 1];
    for (int i = 0, k; i < n; i = k) {
        for (k = i + 1; k < n && (size_t)(k - i) < most && !msgid_cmp(&d[k].id, &d[i].id);)
            k++;
        start_reroute(q, &d[i], (size_t)(k - i));
    }
    queue_run_soon(q);
}

/* ---- own queues in the spool ------------------------------------------------------------------ */

bool queue_record_held(struct str record)
{
    return record.n >= 1 && record.p[0] == 'H';
}

static void scan_row(struct queues *all, const struct spool_queue *row)
{
    struct str name = str_of(row->name);
    if (engine_queue_owner(name, all->engine->ports.workers->count) !=
        all->engine->ports.workers->self)
        return;
    bool reroute = row->waiting > 0 && all->scan_reroute;
    if (!row->scheduled && !reroute && !queue_record_held(str_make(row->record, row->record_n)))
        return;
    struct queue *q = queue_get(all, name);
    if (!q)
        return;
    q->on_disk |= row->scheduled > 0;
    if (reroute) {
        q->reroute = true;
        q->reroute_begun = false;
    }
    queue_run_soon(q);
}

void queues_scan_step(struct later *l)
{
    struct queues *all = CONTAINER_OF(l, struct queues, scan);
    struct port_spool *spool = all->engine->ports.spool;
    int n = spool->scan_queues(spool, str_of(all->scan_after), all->rows, ARRAY_LEN(all->rows));
    for (int i = 0; i < n; i++)
        scan_row(all, &all->rows[i]);
    if (n == (int)ARRAY_LEN(all->rows)) {
        memcpy(all->scan_after, all->rows[n - 1].name, sizeof all->scan_after);
        engine_later(all->engine, &all->scan);
    }
}

/* At the start, too, waiting mail may have been routed by another policy: it is looked through once, and
 * only what an older policy routed is asked about again. */
void queues_start(struct queues *all)
{
    all->scan_after[0] = 0;
    all->scan_reroute = true;
    engine_later(all->engine, &all->scan);
}

void queues_policy_changed(struct queues *all)
{
    queues_start(all);
}
