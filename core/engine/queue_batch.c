/* queue_batch.c - a verb on a handful of recipients, carried out by the owner of their queues.
 *
 * Layer: engine. Interface: queue_batch.h. As in queue_command.c, what is being changed is locked in
 * memory until it is on disk. BOUNCE and REROUTE go through deliveries, some at a time; recipients of one
 * message that do not fit into one job (they have different routes, or stand in different indexes) take
 * turns. EDIT is a change in the spool, then a REROUTE: should that not come to its end, the record
 * still says that its route must be asked for.
 */
#include "engine/queue_batch.h"

#include "engine/queue_impl.h"

enum { JOBS_AT_ONCE = 32 };

enum item_phase {
    ITEM_TO_DO,   /* a job is to be made for it */
    ITEM_IN_JOB,  /* `job` */
    ITEM_IN_UNIT, /* its change is on the way to the spool */
    ITEM_SETTLED,
};

/* Owns its buffers; the batch belongs to who sent it, and is not looked at by the spool, which may
 * outlast it. */
struct batch_run {
    struct spool_op op;
    struct list link; /* queues.batches */
    struct later step;
    struct queues *all; /* NULL: gone, only the spool still has it */
    struct queue_batch *batch;
    struct arena arena; /* names of queues, the new address, decoded records */
    struct address address;
    bool at_spool;
    size_t n_jobs; /* deliveries under way */
    enum item_phase phase[QUEUE_BATCH];
    struct job *locked[QUEUE_BATCH];
    size_t n_locked;
    struct spool_change changes[QUEUE_BATCH];
    struct buf records[QUEUE_BATCH];
    size_t item_of[QUEUE_BATCH]; /* of each change */
    size_t n_changes;
    size_t alone; /* after -ENOENT: the change, from 1, that is made by itself; 0: all at once */
};

static void run_free(struct batch_run *r)
{
    for (size_t i = 0; i < QUEUE_BATCH; i++)
        buf_done(&r->records[i]);
    arena_done(&r->arena);
    list_remove(&r->step.link);
    list_remove(&r->link);
    free(r);
}

static void unlock(struct batch_run *r)
{
    for (size_t i = 0; i < r->n_locked; i++)
        queue_unlock_job(r->locked[i]);
    r->n_locked = 0;
}

static void settle(struct batch_run *r, size_t i, enum queue_batch_result result)
{
    r->phase[i] = ITEM_SETTLED;
    r->batch->item[i].result = result;
}

/* What is wrong with one recipient does not hide what is wrong with the spool. */
static void note_error(struct batch_run *r, int error)
{
    if (r->batch->result == 0 || !queue_batch_is_of_one(error))
        r->batch->result = error;
}

static void settle_failed(struct batch_run *r, size_t i, int error)
{
    note_error(r, error);
    settle(r, i, BATCH_FAILED);
}

static void finish(struct batch_run *r)
{
    struct queue_batch *b = r->batch;

    unlock(r);
    run_free(r);
    b->done(b);
}

/* ---- changes in the spool --------------------------------------------------------------------- */

static bool applies(enum queue_batch_type type, enum spool_class c)
{
    switch (type) {
    case BATCH_HOLD: return c != SPOOL_HELD;
    case BATCH_RELEASE: return c == SPOOL_HELD;
    case BATCH_RETRY: return c == SPOOL_SCHEDULED;
    case BATCH_REROUTE:
    case BATCH_REMOVE:
    case BATCH_BOUNCE:
    case BATCH_EDIT:
    case BATCH_LOOK: return true;
    }
    return false;
}

/* 0, -EBUSY, -ENOMEM. */
static int lock(struct batch_run *r, struct queue *q, const struct msgid *id)
{
    struct job *j = job_find(r->all, q, id);

    if (j && j->batch == r)
        return 0;
    int e = queue_lock_job(q, id, &j);
    if (e < 0)
        return e;
    j->batch = r;
    r->locked[r->n_locked++] = j;
    return 0;
}

/* "rfc822;a@b": addresses that are not ASCII have a type of their own (RFC 6533 section 3). */
static struct str original(struct arena *a, struct str address)
{
    return arena_printf(a, "%s;" STR_FMT, str_is_ascii(address) ? "rfc822" : "utf-8",
                        STR_ARG(address));
}

/* Makes the record that goes to the new address. 1: it goes there already. */
static int edit_record(struct batch_run *r, uint32_t n, struct buf *record)
{
    struct recipient rcpt = { 0 };
    int e = recipient_decode(&r->arena, n, buf_str(record), &rcpt);

    if (e < 0)
        return e;
    if (str_eq(rcpt.address.text, r->address.text)) {
        recipient_done(&rcpt);
        return 1;
    }
    if (rcpt.orcpt.n == 0 && rcpt.address.text.n)
        rcpt.orcpt = original(&r->arena, rcpt.address.text);
    rcpt.address = r->address;
    rcpt.policy = 0;
    rcpt.attempts = 0;
    rcpt.host_failure = false;
    if (rcpt.state == RECIPIENT_DEFERRED)
        rcpt.state = RECIPIENT_READY;
    buf_clear(record);
    e = rcpt.orcpt.p || !rcpt.address.text.n ? recipient_encode(&rcpt, record) : -ENOMEM;
    recipient_done(&rcpt);
    return e;
}

/* The change of one recipient, at the end of the unit. `entry` is as it stands in the spool now. 1: it has
 * that address already. */
static int add_change(struct batch_run *r, const struct spool_entry *entry, struct buf *record)
{
    enum queue_batch_type type = r->batch->type;
    int64_t now = engine_wall(r->all->engine);
    struct spool_change *c = &r->changes[r->n_changes];

    if (type == BATCH_EDIT) {
        int e = edit_record(r, entry->n, record);
        if (e)
            return e;
    }
    *c = (struct spool_change){ .type = SPOOL_PUT_RECIPIENT, .id = entry->id };
    c->recipient = (struct spool_recipient){ .n = entry->n,
                                             .queue = arena_str(&r->arena, str_of(entry->queue)),
                                             .class_ = SPOOL_SCHEDULED,
                                             .due_ms = now,
                                             .size = entry->size,
                                             .record = buf_str(record) };
    if (!c->recipient.queue.p)
        return -ENOMEM;
    if (type == BATCH_REMOVE)
        c->type = SPOOL_DELETE_RECIPIENT;
    else if (type == BATCH_HOLD)
        c->recipient.class_ = SPOOL_HELD;
    else if (type == BATCH_EDIT)
        c->recipient.class_ = entry->class_;
    if (type == BATCH_EDIT && entry->class_ != SPOOL_SCHEDULED)
        c->recipient.due_ms = entry->due_ms; /* it keeps its place */
    return 0;
}

/* Does the verb apply to it? */
static bool means(struct batch_run *r, const struct spool_entry *entry)
{
    const struct queue_batch *b = r->batch;
    bool waits = (b->type == BATCH_RETRY && !b->named) || (b->type == BATCH_RELEASE && b->named);

    waits = waits && queue_sender_holds(r->all, entry);
    return b->type == BATCH_RETRY ? applies(b->type, entry->class_) && !waits
                                  : applies(b->type, entry->class_) || waits;
}

/* The entry, when the item is where the batch says and the verb applies. */
static int read_item(struct batch_run *r, size_t i, struct spool_entry *entry, struct buf *record)
{
    const struct queue_batch_item *item = &r->batch->item[i];
    struct port_spool *spool = r->all->engine->ports.spool;
    int e = spool->read_recipient(spool, &item->id, item->n, entry, record);

    if (e == 0 && (strcmp(entry->queue, item->queue) != 0 || !means(r, entry)))
        e = -ENOENT;
    return e;
}

/* NULL: out of memory. One that has nothing to do is forgotten at the end of the turn. */
static struct queue *queue_of(struct batch_run *r, const struct queue_batch_item *item)
{
    struct queue *q = queue_get(r->all, str_of(item->queue));

    if (q)
        queue_run_soon(q);
    return q;
}

static void add_item(struct batch_run *r, size_t i)
{
    struct queue_batch *b = r->batch;
    struct queue_batch_item *item = &b->item[i];
    struct queue *q = queue_of(r, item);
    struct buf *record = &r->records[r->n_changes];
    struct spool_entry entry;
    int e = q ? read_item(r, i, &entry, record) : -ENOMEM;

    /* What is due already only waits for its queue. */
    if (e == 0 && b->type == BATCH_RETRY && entry.due_ms <= engine_wall(r->all->engine))
        e = 1;
    if (e == 0)
        e = lock(r, q, &item->id);
    if (e == 0)
        e = add_change(r, &entry, record);
    if (e >= 0 && b->type == BATCH_RETRY && q->overridden_by != b->operation) {
        q->overridden_by = b->operation;
        queue_override_back_off(q);
        queue_run_soon(q);
    }
    if (e == 0) {
        r->item_of[r->n_changes++] = i;
        r->phase[i] = ITEM_IN_UNIT;
    } else if (e == 1)
        settle(r, i, b->type == BATCH_RETRY ? BATCH_CHANGED : BATCH_UNCHANGED);
    else if (e == -EBUSY)
        settle(r, i, BATCH_BUSY);
    else if (e == -ENOENT)
        settle(r, i, BATCH_UNCHANGED);
    else
        settle_failed(r, i, e);
}

static void settle_change(struct batch_run *r, size_t change, int result)
{
    size_t i = r->item_of[change];

    if (result == -ENOENT)
        settle(r, i, BATCH_UNCHANGED);
    else if (result < 0)
        settle_failed(r, i, result);
    else
        settle(r, i, BATCH_CHANGED);
    if (result == 0 && r->batch->type == BATCH_EDIT)
        r->phase[i] = ITEM_TO_DO; /* now its route */
}

static void submit(struct batch_run *r);

static void committed(struct spool_op *op)
{
    struct batch_run *r = CONTAINER_OF(op, struct batch_run, op);

    r->at_spool = false;
    if (!r->all) {
        run_free(r);
        return;
    }
    /* -ENOENT: one has gone meanwhile, and nothing of the unit was done. The others are changed alone. */
    bool redo = op->result == -ENOENT && r->alone == 0 && r->n_changes > 1;
    if (r->alone)
        settle_change(r, r->alone - 1, op->result);
    for (size_t k = 0; !redo && r->alone == 0 && k < r->n_changes; k++)
        settle_change(r, k, op->result);
    if (redo || (r->alone && r->alone < r->n_changes)) {
        r->alone++;
        submit(r);
        return;
    }
    unlock(r);
    engine_later(r->all->engine, &r->step);
}

static void submit(struct batch_run *r)
{
    struct port_spool *spool = r->all->engine->ports.spool;

    r->op.changes = r->alone ? &r->changes[r->alone - 1] : r->changes;
    r->op.n_changes = r->alone ? 1 : r->n_changes;
    r->op.done = committed;
    r->at_spool = true;
    spool->submit(spool, &r->op);
}

static void change_all(struct batch_run *r)
{
    for (size_t i = 0; i < r->batch->n; i++)
        if (r->phase[i] == ITEM_TO_DO)
            add_item(r, i);
    if (r->n_changes == 0)
        finish(r);
    else
        submit(r);
}

/* ---- deliveries without a host ----------------------------------------------------------------- */

/* What an edit has done stands, also when its route could not be asked for now. */
static enum queue_batch_result of_job(const struct batch_run *r, enum attempt_end how)
{
    if (how == ATTEMPT_NOT_MADE && r->batch->type != BATCH_EDIT)
        return BATCH_FAILED;
    return BATCH_CHANGED;
}

void queue_batch_job_ended(struct job *j, enum attempt_end how)
{
    struct batch_run *r = j->batch;
    enum queue_batch_result result = of_job(r, how);

    CHECK(r->n_jobs > 0);
    r->n_jobs--;
    if (result == BATCH_FAILED)
        note_error(r, r->all->stopping ? -ESHUTDOWN : -EAGAIN);
    for (size_t i = 0; i < r->batch->n; i++) {
        const struct queue_batch_item *item = &r->batch->item[i];
        if (r->phase[i] == ITEM_IN_JOB && !msgid_cmp(&item->id, &j->id) &&
            str_eq(str_of(item->queue), queue_name(j->queue)))
            settle(r, i, result);
    }
    j->queue->on_disk = true;
    j->queue->waiting_left |= j->queue->released;
    engine_later(r->all->engine, &r->step);
}

static void set_reason(struct batch_run *r, struct job *j)
{
    if (r->batch->reason[0])
        j->reason = arena_str(&j->arena, str_of(r->batch->reason));
}

/* Those of the same message, queue and index as item i, from it on, that wait for a job. */
static size_t gather(struct batch_run *r, struct queue *q, size_t i, enum spool_class c,
                     struct spool_due *ret)
{
    const struct queue_batch_item *first = &r->batch->item[i];
    bool any_class = r->batch->type == BATCH_BOUNCE;
    size_t n = 0;

    for (size_t k = i; k < r->batch->n; k++) {
        const struct queue_batch_item *item = &r->batch->item[k];
        struct spool_entry entry;
        if (r->phase[k] != ITEM_TO_DO || msgid_cmp(&item->id, &first->id) ||
            strcmp(item->queue, first->queue) != 0)
            continue;
        int e = read_item(r, k, &entry, &r->all->bytes);
        if (e == 0 && entry.class_ != c && !any_class)
            continue; /* in its turn */
        if (e < 0) {
            if (e == -ENOENT)
                settle(r, k, r->batch->type == BATCH_EDIT ? BATCH_CHANGED : BATCH_UNCHANGED);
            else
                settle_failed(r, k, e);
            continue;
        }
        ret[n++] = (struct spool_due){ .id = item->id, .n = item->n };
        r->phase[k] = ITEM_IN_JOB;
    }
    return n;
}

/* Recipients that the job does not have take their turn when it has ended. Without a job: they are settled. */
static void not_in_job(struct batch_run *r, size_t first, const struct job *j, int error)
{
    const struct queue_batch_item *one = &r->batch->item[first];

    for (size_t k = first; k < r->batch->n; k++) {
        const struct queue_batch_item *item = &r->batch->item[k];
        bool taken = false;
        if (r->phase[k] != ITEM_IN_JOB || msgid_cmp(&item->id, &one->id) ||
            strcmp(item->queue, one->queue) != 0)
            continue;
        for (size_t i = 0; j && i < j->n; i++)
            taken |= j->recipients[i].n == item->n;
        if (taken)
            continue;
        if (j)
            r->phase[k] = ITEM_TO_DO;
        else if (r->batch->type == BATCH_EDIT)
            settle(r, k, BATCH_CHANGED);
        else if (error == -ENOENT)
            settle(r, k, BATCH_UNCHANGED);
        else
            settle_failed(r, k, error);
    }
}

/* Loads the job and starts it. */
static void start(struct batch_run *r, struct queue *q, size_t i, struct job *j)
{
    bool bounce = r->batch->type == BATCH_BOUNCE;

    j->mode = bounce ? JOB_BOUNCE : JOB_REROUTE;
    int e = queue_load_job(q, j);
    if (e < 0) {
        job_drop(r->all, j);
        not_in_job(r, i, NULL, e);
        return;
    }
    not_in_job(r, i, j, 0);
    for (size_t k = 0; !bounce && k < j->n; k++) /* asked anew, whichever policy it was */
        j->recipients[k].policy = snapshot_fingerprint(r->all->engine->snapshot) + 1;
    set_reason(r, j);
    j->batch = r;
    r->n_jobs++;
    queue_start_job(q, j);
}

/* A job for item i and its like. Leaves it to do when an own job of that message is under way. */
static void make_job(struct batch_run *r, size_t i)
{
    const struct queue_batch_item *item = &r->batch->item[i];
    struct queue *q = queue_of(r, item);
    struct job *j = q ? job_find(r->all, q, &item->id) : NULL;
    struct spool_due same[QUEUE_BATCH];
    struct spool_entry entry;

    if (j && j->batch == r)
        return;
    if (j && list_empty(&j->link)) {
        settle(r, i, r->batch->type == BATCH_EDIT ? BATCH_CHANGED : BATCH_BUSY);
        return;
    }
    int e = q ? read_item(r, i, &entry, &r->all->bytes) : -ENOMEM;
    size_t n = e == 0 ? gather(r, q, i, entry.class_, same) : 0;
    if (n == 0) {
        if (r->phase[i] == ITEM_TO_DO && r->batch->type == BATCH_EDIT)
            settle(r, i, BATCH_CHANGED);
        else if (r->phase[i] == ITEM_TO_DO && (e == 0 || e == -ENOENT))
            settle(r, i, BATCH_UNCHANGED);
        else if (r->phase[i] == ITEM_TO_DO)
            settle_failed(r, i, e);
        return;
    }
    if (j) /* ready, not begun: the disk has it */
        queue_call_off(q, j);
    j = queue_job_of(q, same, n, r->batch->type == BATCH_BOUNCE ? SPOOL_SCHEDULED : entry.class_);
    if (j)
        start(r, q, i, j);
    else
        not_in_job(r, i, NULL, -ENOMEM);
}

/* One look at what is left. */
static void step(struct later *l)
{
    struct batch_run *r = CONTAINER_OF(l, struct batch_run, step);
    size_t left = 0;

    for (size_t i = 0; i < r->batch->n; i++) {
        if (r->phase[i] == ITEM_TO_DO && r->all->stopping)
            settle_failed(r, i, -ESHUTDOWN);
        if (r->phase[i] == ITEM_TO_DO && r->n_jobs < JOBS_AT_ONCE)
            make_job(r, i);
        left += r->phase[i] != ITEM_SETTLED;
    }
    if (left == 0)
        finish(r);
    else if (r->n_jobs == 0)
        engine_later(r->all->engine, &r->step);
}

/* ---- life ------------------------------------------------------------------------------------- */

static void look(struct queues *all, struct queue_batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        struct queue_batch_item *item = &b->item[i];
        enum job_place place = queue_job_place(all, str_of(item->queue), &item->id, item->n);
        item->result = place == JOB_UNDER_WAY ? BATCH_BUSY : BATCH_UNCHANGED;
    }
    b->done(b);
}

static void refuse(struct queue_batch *b, int error)
{
    for (size_t i = 0; i < b->n; i++)
        b->item[i].result = BATCH_FAILED;
    b->result = error;
    b->done(b);
}

static bool same_item(const struct queue_batch_item *a, const struct queue_batch_item *b)
{
    return a->n == b->n && msgid_cmp(&a->id, &b->id) == 0 && strcmp(a->queue, b->queue) == 0;
}

/* What the batch has twice (an index brings again what has moved forward in it) is done once. */
static void settle_repeated(struct batch_run *r)
{
    const struct queue_batch_item *item = r->batch->item;

    for (size_t i = 1; i < r->batch->n; i++)
        for (size_t k = 0; k < i; k++)
            if (same_item(&item[i], &item[k])) {
                settle(r, i, BATCH_UNCHANGED);
                break;
            }
}

static struct batch_run *run_new(struct queues *all, struct queue_batch *b, int *ret_error)
{
    struct batch_run *r = calloc(1, sizeof *r);
    int e = 0;

    if (!r) {
        *ret_error = -ENOMEM;
        return NULL;
    }
    r->all = all;
    r->batch = b;
    list_init(&r->link);
    list_init(&r->op.link);
    later_init(&r->step, step);
    arena_init(&r->arena, 0);
    for (size_t i = 0; i < QUEUE_BATCH; i++)
        buf_init(&r->records[i], 0);
    settle_repeated(r);
    if (b->type == BATCH_EDIT)
        e = address_parse(&r->arena, str_of(b->address), &r->address);
    if (e == 0)
        return r;
    run_free(r);
    *ret_error = e;
    return NULL;
}

static void run(struct engine *e, struct worker_message *m)
{
    struct queue_batch *b = CONTAINER_OF(m, struct queue_batch, wm);
    struct queues *all = e->queues;
    int error = 0;

    b->result = 0;
    if (b->type == BATCH_LOOK) {
        look(all, b);
        return;
    }
    struct batch_run *r = all->stopping ? NULL : run_new(all, b, &error);
    if (!r) {
        refuse(b, all->stopping ? -ESHUTDOWN : error);
        return;
    }
    list_push(&all->batches, &r->link);
    if (b->type == BATCH_REROUTE || b->type == BATCH_BOUNCE)
        engine_later(e, &r->step);
    else
        change_all(r);
}

void queue_batch_send(struct port_workers *workers, int worker, struct queue_batch *b)
{
    CHECK(b->n <= QUEUE_BATCH);
    b->wm.run = run;
    workers->post(workers, worker, &b->wm);
}

/* Deliveries and outcomes have gone before: no job is under way. What is at the spool ends there on its own. */
void queue_batches_free(struct queues *all)
{
    LIST_FOREACH(it, &all->batches)
    {
        struct batch_run *r = LIST_ENTRY(it, struct batch_run, link);
        struct queue_batch *b = r->batch;
        CHECK(r->n_jobs == 0);
        unlock(r);
        for (size_t i = 0; i < b->n; i++)
            if (r->phase[i] != ITEM_SETTLED)
                settle_failed(r, i, -ESHUTDOWN);
        list_remove(&r->link);
        list_remove(&r->step.link);
        r->all = NULL;
        r->batch = NULL;
        if (!r->at_spool)
            run_free(r);
        b->done(b);
    }
}
