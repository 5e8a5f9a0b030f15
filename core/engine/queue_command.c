/* queue_command.c - what operators and ETRN do to a queue, carried out by its owner. See queue.h.
 *
 * A command walks the spool in batches, one atomic operation each, and never touches recipients that are
 * being delivered at this moment: those are counted as -EBUSY for a single message and passed over for a
 * whole queue. */
#include "engine/hosts.h"
#include "engine/queue_impl.h"

enum { COMMAND_BATCH = 100, RELEASE_WINDOW_MS = 15 * 60 * 1000 };

/* One command under way. Owns its buffers; the queue_command belongs to who sent it. */
struct command {
    struct spool_op op;
    struct later step;
    struct engine *engine;
    struct queue_command *cmd;
    int class_; /* which index is being walked; all three for REMOVE */
    struct spool_due after;
    bool begun;
    uint32_t pending; /* recipients in the operation under way */
    struct spool_change changes[COMMAND_BATCH];
    struct buf records[COMMAND_BATCH];
    char flag;
};

static void finish(struct command *c, int result)
{
    struct queue_command *cmd = c->cmd;
    struct engine *e = c->engine;
    for (size_t i = 0; i < ARRAY_LEN(c->records); i++)
        buf_done(&c->records[i]);
    cmd->result = result;
    struct queue *q = queue_get(e->queues, str_of(cmd->queue));
    if (q) {
        q->on_disk = true;
        queue_run_soon(q);
    }
    list_remove(&c->step.link);
    free(c);
    cmd->done(cmd);
}

/* Which index does a command take its recipients from? */
static bool walks(const struct queue_command *cmd, enum spool_class c)
{
    switch (cmd->type) {
    case QUEUE_HOLD:
    case QUEUE_RETRY: return c == SPOOL_SCHEDULED;
    case QUEUE_UNHOLD: return c == SPOOL_HELD;
    case QUEUE_REMOVE:
    case QUEUE_BOUNCE: return true;
    case QUEUE_RELEASE: return false;
    }
    return false;
}

static void change_of(struct command *c, const struct spool_entry *entry, struct str record,
                      struct spool_change *ret)
{
    int64_t now = engine_wall(c->engine);
    *ret = (struct spool_change){ .type = SPOOL_PUT_RECIPIENT, .id = entry->id };
    ret->recipient = (struct spool_recipient){ .n = entry->n,
                                               .queue = str_of(c->cmd->queue),
                                               .class_ = SPOOL_SCHEDULED,
                                               .due_ms = now,
                                               .record = record };
    if (c->cmd->type == QUEUE_REMOVE)
        ret->type = SPOOL_DELETE_RECIPIENT;
    else if (c->cmd->type == QUEUE_HOLD)
        ret->recipient.class_ = SPOOL_HELD;
}

static void started_bounce(struct command *c, struct queue *q, const struct spool_entry *entry);

/* Adds one recipient to the batch, unless it is under way. */
static void add(struct command *c, struct queue *q, const struct msgid *id, uint32_t n)
{
    struct port_spool *spool = c->engine->ports.spool;
    struct spool_entry entry;
    struct job *j = job_find(c->engine->queues, q, id);
    if (j && list_empty(&j->link)) {
        if (c->cmd->one_message)
            c->cmd->result = -EBUSY;
        return;
    }
    if (j) { /* ready, not begun: it stays on disk */
        list_remove(&j->link);
        job_forget(c->engine->queues, j);
        job_free(j);
        q->on_disk = true;
    }
    struct buf *record = &c->records[c->pending];
    buf_clear(record);
    if (spool->read_recipient(spool, id, n, &entry, record) != 0 ||
        !str_eq(str_of(entry.queue), queue_name(q)))
        return;
    if (c->cmd->type == QUEUE_BOUNCE) {
        started_bounce(c, q, &entry);
        return;
    }
    change_of(c, &entry, buf_str(record), &c->changes[c->pending]);
    c->pending++;
}

static void started_bounce(struct command *c, struct queue *q, const struct spool_entry *entry)
{
    struct job *j = job_new(STR_NONE, 1);
    if (!j) {
        c->cmd->result = -ENOMEM;
        return;
    }
    j->id = entry->id;
    j->class_ = entry->class_;
    j->mode = JOB_BOUNCE;
    j->recipients[j->n++].n = entry->n;
    if (!job_register(c->engine->queues, q, j)) {
        job_free(j);
        return;
    }
    if (!queue_load_job(q, j)) {
        job_forget(c->engine->queues, j);
        job_free(j);
        return;
    }
    c->cmd->affected++;
    queue_start_job(q, j);
}

static void committed(struct spool_op *op)
{
    struct command *c = CONTAINER_OF(op, struct command, op);
    if (op->result < 0 && op->result != -ENOENT) {
        finish(c, op->result);
        return;
    }
    if (op->result == 0)
        c->cmd->affected += c->pending;
    engine_later(c->engine, &c->step);
}

static void submit(struct command *c)
{
    c->op.changes = c->changes;
    c->op.n_changes = c->pending;
    c->op.done = committed;
    c->engine->ports.spool->submit(c->engine->ports.spool, &c->op);
}

/* A whole queue: the next batch of the class that is being walked. */
static void step_queue(struct command *c, struct queue *q)
{
    struct port_spool *spool = c->engine->ports.spool;
    struct spool_due d[COMMAND_BATCH];
    c->pending = 0;
    while (c->class_ <= SPOOL_HELD) {
        int n = 0;
        if (walks(c->cmd, (enum spool_class)c->class_))
            n = spool->scan_due(spool, queue_name(q), (enum spool_class)c->class_,
                                c->begun ? &c->after : NULL, INT64_MAX, d, COMMAND_BATCH);
        if (n < 0) {
            finish(c, n);
            return;
        }
        if (n == 0) {
            c->class_++;
            c->begun = false;
            continue;
        }
        c->begun = true;
        c->after = d[n - 1];
        for (int i = 0; i < n; i++)
            add(c, q, &d[i].id, d[i].n);
        if (c->pending)
            submit(c);
        else
            engine_later(c->engine, &c->step);
        return;
    }
    finish(c, 0);
}

/* One message: its recipients in this queue, at most a batch at a time. */
static void step_message(struct command *c, struct queue *q)
{
    struct port_spool *spool = c->engine->ports.spool;
    struct spool_entry entries[COMMAND_BATCH];
    int n = -1;
    c->pending = 0;
    if (!c->begun) { /* (id, 0) itself is not after (id, 0) */
        struct buf *scratch = &c->records[0];
        buf_clear(scratch);
        c->begun = true;
        c->after = (struct spool_due){ .id = c->cmd->id };
        if (spool->read_recipient(spool, &c->cmd->id, 0, &entries[0], scratch) == 0)
            add(c, q, &c->cmd->id, 0);
    } else {
        n = spool->scan_entries(spool, &c->cmd->id, c->after.n, entries, COMMAND_BATCH);
        if (n < 0) {
            finish(c, n);
            return;
        }
        int i = 0;
        for (; i < n && !msgid_cmp(&entries[i].id, &c->cmd->id); i++) {
            c->after.n = entries[i].n;
            if (str_eq(str_of(entries[i].queue), queue_name(q)))
                add(c, q, &entries[i].id, entries[i].n);
        }
        n = i;
    }
    if (c->pending)
        submit(c);
    else if (n == 0)
        finish(c, c->cmd->result ? c->cmd->result : c->cmd->affected ? 0 : -ENOENT);
    else
        engine_later(c->engine, &c->step);
}

static void step(struct later *l)
{
    struct command *c = CONTAINER_OF(l, struct command, step);
    struct queue *q = queue_get(c->engine->queues, str_of(c->cmd->queue));
    if (!q)
        finish(c, -ENOMEM);
    else if (c->cmd->one_message)
        step_message(c, q);
    else
        step_queue(c, q);
}

/* ---- the queue itself ------------------------------------------------------------------------- */

static void flag_written(struct spool_op *op)
{
    struct command *c = CONTAINER_OF(op, struct command, op);
    struct queue *q = queue_get(c->engine->queues, str_of(c->cmd->queue));
    if (op->result == 0 && q) {
        q->held = c->flag == 'H';
        if (q->held)
            queue_drop_ready(q);
        c->cmd->affected = 1;
    }
    finish(c, op->result);
}

/* Holding a whole queue is one fact about it, not a change of each recipient. */
static void hold_queue(struct command *c, bool hold)
{
    c->flag = hold ? 'H' : 0;
    c->changes[0] = (struct spool_change){ .type = SPOOL_SET_QUEUE };
    c->changes[0].queue.name = str_of(c->cmd->queue);
    c->changes[0].queue.record = hold ? str_make(&c->flag, 1) : STR_NONE;
    c->op.changes = c->changes;
    c->op.n_changes = 1;
    c->op.done = flag_written;
    c->engine->ports.spool->submit(c->engine->ports.spool, &c->op);
}

static void release(struct command *c, struct queue *q)
{
    struct engine *e = c->engine;
    struct queue_command *cmd = c->cmd;
    struct spool_queue *row = &e->queues->row;
    int r = e->ports.spool->read_queue(e->ports.spool, queue_name(q), row);
    cmd->affected = r == 0 ? row->waiting : 0;
    if (cmd->affected) {
        route_unref(q->release_route);
        q->release_route = route_ref(cmd->route);
        q->released = q->waiting_left = true;
        q->released_until =
            engine_now(e) + (cmd->window_ms > 0 ? cmd->window_ms : RELEASE_WINDOW_MS);
        q->retry_at = 0; /* ETRN overrides the back-off (E8) */
        hosts_forget(e->hosts, NULL);
        engine_event(e, EVENT(EVENT_INFO, "queue_released", F_STR("queue", queue_name(q)),
                              F_INT("recipients", (int64_t)cmd->affected)));
    }
    finish(c, 0);
}

static void run(struct engine *e, struct worker_message *m)
{
    struct queue_command *cmd = CONTAINER_OF(m, struct queue_command, wm);
    struct queue *q = queue_get(e->queues, str_of(cmd->queue));
    struct command *c = calloc(1, sizeof *c);
    if (!c || !q) {
        free(c);
        cmd->result = -ENOMEM;
        cmd->done(cmd);
        return;
    }
    c->engine = e;
    c->cmd = cmd;
    cmd->affected = 0;
    cmd->result = 0;
    later_init(&c->step, step);
    list_init(&c->op.link);
    for (size_t i = 0; i < ARRAY_LEN(c->records); i++)
        buf_init(&c->records[i], 0);
    if (cmd->type == QUEUE_RETRY) {
        q->retry_at = 0;
        hosts_forget(e->hosts, NULL);
        if (!cmd->one_message) { /* only what is not due yet: what becomes due falls behind the cursor */
            c->begun = true;
            c->after = (struct spool_due){ .due_ms = engine_wall(e), .n = UINT32_MAX };
            memset(c->after.id.b, 0xff, sizeof c->after.id.b);
        }
    }
    if (cmd->type == QUEUE_RELEASE)
        release(c, q);
    else if (cmd->type == QUEUE_BOUNCE && !cmd->one_message)
        finish(c, -EOPNOTSUPP);
    else if (!cmd->one_message && (cmd->type == QUEUE_HOLD || cmd->type == QUEUE_UNHOLD))
        hold_queue(c, cmd->type == QUEUE_HOLD);
    else
        engine_later(e, &c->step);
}

void queue_command_send(struct port_workers *workers, struct queue_command *c)
{
    c->wm.run = run;
    workers->post(workers, engine_queue_owner(str_of(c->queue), workers->count), &c->wm);
}
