/* queue_load.c - from the spool into a queue's window: due entries by cursor, records, what the
 * policy routes anew. See queue.h. */
#include "engine/queue_impl.h"

enum { REROUTE_BATCH = 32, REROUTE_RETRY_MS = 5000 };

size_t queue_most_recipients(const struct queue *q)
{
    return MAX(q->all->engine->snapshot->settings->queue.recipients, 1u);
}

struct job *queue_job_of(struct queue *q, const struct spool_due *from, size_t n,
                         enum spool_class c)
{
    struct job *j = job_new(STR_NONE, n);
    if (!j)
        return NULL;
    j->id = from->id;
    j->class_ = c;
    j->order = from->due_ms;
    for (size_t i = 0; i < n; i++)
        j->recipients[j->n++].n = from[i].n;
    if (!job_register(q->all, q, j))
        return job_free(j);
    return j;
}

static bool has_all(const struct job *j, const struct spool_due *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        while (k < j->n && j->recipients[k].n != from[i].n)
            k++;
        if (k == j->n)
            return false;
    }
    return true;
}

/* All of these are its own, and are done with when it ends. */
static bool holds(const struct job *j, const struct spool_due *from, size_t n)
{
    return j->mode == JOB_DELIVER && has_all(j, from, n);
}

/* A batch that ends within a message that has its transaction: the next one begins behind it. */
static struct spool_due end_of_batch(struct queue *q, const struct spool_due *last, size_t most)
{
    struct spool_due at = *last;
    struct job *j = job_find(q->all, q, &last->id);
    if (j && j->n >= most) {
        j->more = true;
        at.n = UINT32_MAX;
    }
    return at;
}

/* What a release lets go has half of the window, whatever else there is: the release has an end. */
static bool has_enough(const struct queue *q, enum spool_class c)
{
    size_t most = queue_load_window(q);
    return c == SPOOL_WAITING ? q->n_waiting >= MAX(most / 2, (size_t)1) : queue_jobs(q) >= most;
}

/* Makes jobs of what is due in one class while there is room; those of messages that need more than one
 * transaction come into `big`. 1: all that is due was seen; 0: there is more; -errno: nothing was read. */
static int load_some(struct queue *q, enum spool_class c, int64_t until, struct list *big)
{
    struct spool_due *d = q->all->dues, last, *after = NULL;
    size_t most = queue_most_recipients(q);
    for (;;) {
        int n = queue_spool(q)->scan_due(queue_spool(q), queue_name(q), c, after, until, d,
                                         QUEUE_WINDOW);
        if (n < 0)
            return list_empty(&q->ready) && list_empty(big) ? n : 0;
        for (int i = 0, k; i < n; i = k) {
            for (k = i + 1; k < n && (size_t)(k - i) < most && !msgid_cmp(&d[k].id, &d[i].id);)
                k++;
            struct job *j = job_find(q->all, q, &d[i].id);
            if (j && j->mode == JOB_DAMAGED && !has_all(j, &d[i], (size_t)(k - i)))
                job_drop(q->all, TAKE(j)); /* others of that message have become due */
            if (j) {
                j->more |= !holds(j, &d[i], (size_t)(k - i)); /* looked at again when it ends */
                continue;
            }
            if (has_enough(q, c))
                return 0;
            j = queue_job_of(q, &d[i], (size_t)(k - i), c);
            if (!j)
                return list_empty(&q->ready) && list_empty(big) ? -ENOMEM : 0;
            list_push(j->n < most || most == 1 ? &q->ready : big, &j->link);
        }
        if (n < QUEUE_WINDOW)
            return 1;
        last = end_of_batch(q, &d[n - 1], most);
        after = &last;
    }
}

static int load_class(struct queue *q, enum spool_class c, int64_t until)
{
    struct list big;
    list_init(&big);
    int r = load_some(q, c, until, &big);
    list_join(&q->ready, &big);
    return r;
}

/* When does the next one become due? */
static int find_next_due(struct queue *q, int64_t now)
{
    struct spool_due after = { .due_ms = now, .n = UINT32_MAX }, next;
    memset(after.id.b, 0xff, sizeof after.id.b);
    int n = queue_spool(q)->scan_due(queue_spool(q), queue_name(q), SPOOL_SCHEDULED, &after,
                                     INT64_MAX, &next, 1);
    if (n >= 0)
        q->next_due = n == 1 ? next.due_ms : INT64_MAX;
    return n;
}

int queue_load(struct queue *q)
{
    int64_t now = engine_wall(q->all->engine);
    bool idle = list_empty(&q->ready);
    int r = 0;
    if (queue_has_released(q)) {
        r = load_class(q, SPOOL_WAITING, q->release_upto);
        if (r == 1)
            q->waiting_left = false;
    }
    if (r >= 0 && q->on_disk && idle && q->read_again <= engine_now(q->all->engine)) {
        r = load_class(q, SPOOL_SCHEDULED, now);
        if (r == 1) {
            r = find_next_due(q, now);
            q->on_disk = r < 0; /* without it nobody would look again */
        }
    }
    return list_empty(&q->ready) ? MIN(r, 0) : 0;
}

/* ---- one job ---------------------------------------------------------------------------------- */

static int load_message(struct queue *q, struct job *j)
{
    if (j->message)
        return 0;
    struct buf *b = &q->all->bytes;
    int r = queue_spool(q)->read_message(queue_spool(q), &j->id, b);
    if (r == 0)
        r = message_decode(&j->id, buf_str(b), &j->message);
    return r;
}

static int load_recipient(struct queue *q, struct job *j, uint32_t n, struct recipient *ret)
{
    struct buf *b = &q->all->bytes;
    struct spool_entry entry;
    int r = queue_spool(q)->read_recipient(queue_spool(q), &j->id, n, &entry, b);
    if (r < 0)
        return r;
    bool class_fits = entry.class_ == j->class_ || j->mode == JOB_BOUNCE;
    if (!class_fits || !str_eq(str_of(entry.queue), queue_name(q)))
        return -ENOENT; /* moved meanwhile */
    r = recipient_decode(&j->arena, n, buf_str(b), ret);
    if (r == 0)
        ret->due_ms = entry.due_ms;
    return r;
}

/* Keeps the recipients that are still there and that share the first one's route. What is to fail needs
 * no route. */
static int load_recipients(struct queue *q, struct job *j)
{
    size_t kept = 0;
    int failed = 0;
    for (size_t i = 0; i < j->n; i++) {
        struct recipient r = { 0 };
        int err = load_recipient(q, j, j->recipients[i].n, &r);
        if (err < 0) {
            if (err != -ENOENT && (failed == 0 || failed == -EBADMSG))
                failed = err; /* what passes comes before what does not */
            continue;
        }
        if (kept && j->mode != JOB_BOUNCE && !route_same(r.route, j->recipients[0].route)) {
            recipient_done(&r);
            j->more = true;
            continue;
        }
        j->recipients[kept++] = r;
    }
    if (kept == 0) /* their numbers are still known */
        return failed ? failed : -ENOENT;
    j->more |= failed != 0; /* looked at again when these have ended */
    j->n = kept;
    return 0;
}

/* A job that came from an intake: another may have loaded it from the disk meanwhile, and delivered, moved
 * or deferred it. What is no longer as it came is left to the disk. */
static int check_arrived(struct queue *q, struct job *j)
{
    size_t kept = 0;
    for (size_t i = 0; i < j->n; i++) {
        struct recipient *r = &j->recipients[i];
        struct spool_entry entry;
        int err =
            queue_spool(q)->read_recipient(queue_spool(q), &j->id, r->n, &entry, &q->all->bytes);
        bool same = err == 0 && entry.class_ == j->class_ && entry.due_ms == r->due_ms &&
                    str_eq(str_of(entry.queue), queue_name(q));
        if (err < 0 && err != -ENOENT)
            return err;
        struct recipient keep = *r;
        if (!same) {
            j->more |= err == 0; /* somewhere else, or at another time */
            recipient_done(&keep);
            r->route = NULL;
            continue;
        }
        r->route = NULL;
        j->recipients[kept++] = keep;
    }
    j->n = kept;
    j->arrived = false;
    return kept ? 0 : -ENOENT;
}

static void report_unreadable(struct queue *q, const struct job *j, int err)
{
    char id[MSGID_TEXT];
    engine_event(q->all->engine,
                 EVENT(EVENT_ERROR, "spool_record_unreadable", F_STRZ("id", msgid_text(&j->id, id)),
                       F_STR("queue", queue_name(q)), F_STRZ("error", strerror(-err))));
}

static int load_all(struct queue *q, struct job *j)
{
    int r = load_message(q, j);
    if (r == 0)
        r = load_recipients(q, j);
    if (r < 0)
        return r;
    route_unref(j->route);
    j->route = route_ref(j->recipients[0].route);
    return 0;
}

int queue_load_job(struct queue *q, struct job *j)
{
    int r = 0;
    if (j->arrived)
        r = check_arrived(q, j);
    else if (!j->message || !j->route)
        r = load_all(q, j);
    if (r < 0) {
        if (r != -ENOENT)
            report_unreadable(q, j, r);
        return r;
    }
    if (j->mode == JOB_DELIVER || j->mode == JOB_EXPIRE)
        queue_note_by(q, j->message);
    if (j->class_ == SPOOL_WAITING && j->mode == JOB_DELIVER) {
        if (!q->released)
            return -ENOENT;
        if (j->route != q->release_route) {
            route_unref(j->route);
            j->route = route_ref(q->release_route);
        }
    }
    return 0;
}

/* ---- out of the way --------------------------------------------------------------------------- */

enum { ASIDE_RETRY_MS = 60000, DAMAGED_MOST = 64 };

/* Recipients that nobody can read become held ones, with their records as they are. */
struct aside {
    struct spool_op op;
    struct list link; /* queues.asides */
    struct queues *all;
    struct job *job;
    struct spool_change *changes;
    struct buf *records;
    size_t n, cap;
    char name[SPOOL_MAX_QUEUE_NAME + 1];
};

static void aside_free(struct aside *a)
{
    for (size_t i = 0; i < a->cap && a->records; i++)
        buf_done(&a->records[i]);
    free(a->records);
    free(a->changes);
    list_remove(&a->link);
    free(a);
}

static void aside_failed(struct queue *q, struct job *j)
{
    q->on_disk |= j->class_ == SPOOL_SCHEDULED;
    queue_pause(q, ASIDE_RETRY_MS);
    job_drop(q->all, j);
    queue_run_soon(q);
}

static void aside_done(struct spool_op *op)
{
    struct aside *a = CONTAINER_OF(op, struct aside, op);
    if (a->all) {
        struct queue *q = a->job->queue;
        q->on_disk |= a->job->more;
        if (op->result < 0 && op->result != -ENOENT) {
            aside_failed(q, a->job);
        } else {
            job_drop(a->all, a->job);
            queue_run_soon(q);
        }
    }
    aside_free(a);
}

static struct aside *aside_new(struct queue *q, struct job *j)
{
    struct aside *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    list_init(&a->link);
    list_init(&a->op.link);
    a->cap = MAX(j->n, (size_t)1);
    a->changes = calloc(a->cap, sizeof *a->changes);
    a->records = calloc(a->cap, sizeof *a->records);
    str_copy(queue_name(q), a->name, sizeof a->name);
    for (size_t i = 0; a->records && i < a->cap; i++)
        buf_init(&a->records[i], 0);
    if (a->changes && a->records)
        return a;
    aside_free(a);
    return NULL;
}

/* Nothing can be done about it here: `tern spool repair` can. What is behind it goes on, and it is passed over for as
 * long as it is known. */
static void leave_damaged(struct queue *q, struct job *j)
{
    if (q->n_damaged >= DAMAGED_MOST) {
        aside_failed(q, j);
        return;
    }
    j->mode = JOB_DAMAGED;
    j->damaged = true;
    q->n_damaged++;
    q->n_waiting -= j->class_ == SPOOL_WAITING; /* no release waits for it */
    list_push(&q->damaged, &j->link);
    queue_run_soon(q);
}

/* What can be read of its rows. 0; -EBADMSG: they are damaged; -ENOENT: they have gone; others pass. */
static int aside_read(struct aside *a, struct queue *q, const struct job *j)
{
    int failed = -ENOENT;
    for (size_t i = 0; i < j->n; i++) {
        struct spool_entry entry;
        struct buf *record = &a->records[a->n];
        int err = queue_spool(q)->read_recipient(queue_spool(q), &j->id, j->recipients[i].n, &entry,
                                                 record);
        if (err < 0 && err != -ENOENT && (failed == -ENOENT || failed == -EBADMSG))
            failed = err;
        if (err < 0 || entry.class_ != j->class_ || !str_eq(str_of(entry.queue), queue_name(q)))
            continue;
        struct spool_change *c = &a->changes[a->n++];
        *c = (struct spool_change){ .type = SPOOL_PUT_RECIPIENT, .id = j->id };
        c->recipient = (struct spool_recipient){ .n = j->recipients[i].n,
                                                 .queue = str_of(a->name),
                                                 .class_ = SPOOL_HELD,
                                                 .due_ms = entry.due_ms,
                                                 .size = entry.size,
                                                 .record = buf_str(record) };
    }
    return a->n ? 0 : failed;
}

void queue_set_aside(struct queue *q, struct job *j)
{
    struct aside *a = aside_new(q, j);
    int err = a ? aside_read(a, q, j) : -ENOMEM;
    if (err < 0) {
        if (a)
            aside_free(a);
        if (err == -EBADMSG)
            leave_damaged(q, j);
        else
            aside_failed(q, j);
        return;
    }
    a->all = q->all;
    a->job = j;
    j->mode = JOB_LOCKED;
    list_push(&q->all->asides, &a->link);
    a->op.changes = a->changes;
    a->op.n_changes = a->n;
    a->op.done = aside_done;
    queue_spool(q)->submit(queue_spool(q), &a->op);
}

/* The engine goes: what is at the spool ends there on its own. */
void queue_asides_free(struct queues *all)
{
    LIST_FOREACH(it, &all->asides)
    {
        struct aside *a = LIST_ENTRY(it, struct aside, link);
        list_remove(&a->link);
        job_drop(all, a->job);
        a->all = NULL;
        a->job = NULL;
    }
}

/* ---- after a change of policy ----------------------------------------------------------------- */

static bool needs_reroute(struct queue *q, const struct job *j)
{
    uint64_t fingerprint = snapshot_fingerprint(q->all->engine->snapshot);
    for (size_t i = 0; i < j->n; i++)
        if (j->recipients[i].policy != fingerprint)
            return true;
    return false;
}

/* -ENOMEM: not now. What cannot be read is left as it is. */
static int start_reroute(struct queue *q, const struct spool_due *from, size_t n)
{
    if (job_find(q->all, q, &from->id))
        return 0;
    struct job *j = queue_job_of(q, from, n, SPOOL_WAITING);
    if (!j)
        return -ENOMEM;
    j->mode = JOB_REROUTE;
    int r = queue_load_job(q, j);
    if (r == 0 && needs_reroute(q, j))
        queue_start_job(q, j);
    else
        job_drop(q->all, j);
    return r == -ENOMEM ? r : 0;
}

static void reroute_later(struct queue *q)
{
    q->reroute_at = engine_now(q->all->engine) + REROUTE_RETRY_MS;
    queue_arm(q);
}

void queue_reroute_again(struct queue *q)
{
    q->reroute = true;
    q->reroute_begun = false;
    reroute_later(q);
}

void queue_load_reroutes(struct queue *q)
{
    if (q->active >= REROUTE_BATCH || q->reroute_at > engine_now(q->all->engine) ||
        !queue_may_do_chores(q))
        return;
    struct spool_due *d = q->all->dues;
    size_t most = queue_most_recipients(q);
    int n = queue_spool(q)->scan_due(queue_spool(q), queue_name(q), SPOOL_WAITING,
                                     q->reroute_begun ? &q->reroute_after : NULL, INT64_MAX, d,
                                     REROUTE_BATCH);
    if (n < 0) {
        reroute_later(q);
        return;
    }
    if (n == 0) {
        q->reroute = q->reroute_begun = false;
        return;
    }
    for (int i = 0, k; i < n; i = k) {
        for (k = i + 1; k < n && (size_t)(k - i) < most && !msgid_cmp(&d[k].id, &d[i].id);)
            k++;
        struct spool_due before = q->reroute_after;
        bool begun = q->reroute_begun;
        q->reroute_begun = true;
        q->reroute_after = d[k - 1];
        if (start_reroute(q, &d[i], (size_t)(k - i)) < 0) { /* from this one on */
            q->reroute_begun = begun;
            q->reroute_after = before;
            reroute_later(q);
        }
        if (q->reroute_at > engine_now(q->all->engine))
            return; /* also when its attempt could not begin */
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
    if (all->scan_clock)
        queue_mind_clock(all, row);
    if (!row->scheduled && !reroute && !queue_record_held(str_make(row->record, row->record_n)))
        return;
    struct queue *q = queue_get(all, name);
    if (!q) {
        all->reroute_missed |= reroute;
        queues_look_again(all, false);
        return;
    }
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
    if (queues_clock_is_busy(all))
        return;
    int n = spool->scan_queues(spool, str_of(all->scan_after), all->rows, ARRAY_LEN(all->rows));
    if (n < 0) { /* once more, from the start */
        queues_look_again(all, false);
        return;
    }
    for (int i = 0; i < n; i++)
        scan_row(all, &all->rows[i]);
    if (n == (int)ARRAY_LEN(all->rows)) {
        memcpy(all->scan_after, all->rows[n - 1].name, sizeof all->scan_after);
        engine_later(all->engine, &all->scan);
    } else {
        all->scan_clock = false;
        all->set_back_ms = all->clock_missed ? all->set_back_ms : 0;
        all->scan_reroute = all->reroute_missed; /* by the next scan */
        all->reroute_missed = false;
    }
}

void queues_scan(struct queues *all, bool reroute)
{
    all->scan_after[0] = 0;
    all->scan_reroute |= reroute;
    all->scan_clock |= all->clock_missed;
    all->clock_missed = false;
    engine_later(all->engine, &all->scan);
}

/* At the start, too, waiting mail may have been routed by another policy: it is looked through once, and
 * only what an older policy routed is asked about again. */
void queues_start(struct queues *all)
{
    all->scan_clock = true; /* it may have been set while nobody was there */
    queues_scan(all, true);
}

void queues_policy_changed(struct queues *all)
{
    queues_scan(all, true);
}
