/* queue_command.c - what operators and ETRN do to a queue, carried out by its owner. See queue.h.
 *
 * A command walks the spool in batches, one atomic operation each. What a batch holds is locked in memory
 * until it is on disk, so that no attempt begins with it meanwhile. Recipients that are being delivered at
 * this moment are never touched: those are -EBUSY for a single message and passed over for a whole queue. */
#include "engine/queue_impl.h"

enum { COMMAND_BATCH = 100, RELEASE_WINDOW_MS = 15 * 60 * 1000 };

/* One command under way. Owns its buffers; the queue_command belongs to who sent it, and is not looked at by
 * the spool, which may outlast it. */
struct command {
    struct spool_op op;
    struct list link; /* queues.commands */
    struct later step;
    struct engine *engine; /* NULL: gone, only the spool still has it */
    struct queue_command *cmd;
    bool at_spool;
    int class_; /* which index is being walked; all three for REMOVE */
    struct spool_due after;
    bool begun;
    uint32_t pending; /* recipients in the operation under way */
    int64_t due_ms;   /* CLOCK: of the entry at hand */
    struct spool_change changes[COMMAND_BATCH];
    struct buf records[COMMAND_BATCH];
    struct job *locked[COMMAND_BATCH];
    size_t n_locked;
    char flag;
    char name[SPOOL_MAX_QUEUE_NAME + 1]; /* of the queue */
};

static void command_free(struct command *c)
{
    for (size_t i = 0; i < ARRAY_LEN(c->records); i++)
        buf_done(&c->records[i]);
    list_remove(&c->step.link);
    list_remove(&c->link);
    free(c);
}

void queue_unlock_job(struct job *j)
{
    struct queue *q = j->queue;
    q->on_disk = true;
    q->waiting_left |= q->released;
    job_drop(q->all, j);
    queue_run_soon(q);
}

static void unlock(struct command *c)
{
    for (size_t i = 0; i < c->n_locked; i++)
        queue_unlock_job(c->locked[i]);
    c->n_locked = 0;
}

static void finish(struct command *c, int result)
{
    struct queue_command *cmd = c->cmd;
    struct engine *e = c->engine;
    unlock(c);
    struct queue *q = queue_get(e->queues, str_of(c->name));
    if (q) {
        q->on_disk = true;
        queue_run_soon(q);
    } else {
        queues_look_again(e->queues, false);
    }
    command_free(c);
    cmd->result = result;
    cmd->done(cmd);
}

/* The engine goes. What is at the spool ends there on its own. */
void queue_commands_free(struct queues *all)
{
    LIST_FOREACH(it, &all->commands)
    {
        struct command *c = LIST_ENTRY(it, struct command, link);
        struct queue_command *cmd = c->cmd;
        unlock(c);
        list_remove(&c->link);
        list_remove(&c->step.link);
        c->engine = NULL;
        c->cmd = NULL;
        if (!c->at_spool)
            command_free(c);
        cmd->result = -ESHUTDOWN;
        cmd->done(cmd);
    }
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
    case QUEUE_CLOCK: return c != SPOOL_HELD;
    }
    return false;
}

/* A single message may be held or tried by name wherever it stands, but for what an operator holds. */
static bool concerns(const struct queue_command *cmd, enum spool_class c)
{
    if (cmd->one_message && (cmd->type == QUEUE_HOLD || cmd->type == QUEUE_RETRY))
        return c != SPOOL_HELD;
    return walks(cmd, c);
}

static void change_of(struct command *c, const struct spool_entry *entry, struct str record,
                      struct spool_change *ret)
{
    int64_t now = engine_wall(c->engine);
    *ret = (struct spool_change){ .type = SPOOL_PUT_RECIPIENT, .id = entry->id };
    ret->recipient = (struct spool_recipient){ .n = entry->n,
                                               .queue = str_of(c->name),
                                               .class_ = SPOOL_SCHEDULED,
                                               .due_ms = now,
                                               .size = entry->size,
                                               .record = record };
    if (c->cmd->type == QUEUE_REMOVE)
        ret->type = SPOOL_DELETE_RECIPIENT;
    else if (c->cmd->type == QUEUE_HOLD)
        ret->recipient.class_ = SPOOL_HELD;
    if (c->cmd->type == QUEUE_CLOCK) {
        ret->recipient.class_ = entry->class_;
        ret->recipient.due_ms = c->due_ms;
    }
}

bool queue_message_is_held(struct queues *all, const struct msgid *id)
{
    struct port_spool *spool = all->engine->ports.spool;
    struct message *m = NULL;
    if (spool->read_message(spool, id, &all->bytes) < 0 ||
        !message_may_say_times(buf_str(&all->bytes)) ||
        message_decode(id, buf_str(&all->bytes), &m) < 0)
        return false;
    bool holds = m->times.hold_ms > engine_wall(all->engine);
    message_unref(m);
    return holds;
}

bool queue_sender_holds(struct queues *all, const struct spool_entry *entry)
{
    return entry->class_ == SPOOL_SCHEDULED && entry->due_ms > engine_wall(all->engine) &&
           queue_message_is_held(all, &entry->id);
}

/* Does the command mean it? */
static bool means(const struct command *c, struct queue *q, const struct spool_entry *entry)
{
    const struct queue_command *cmd = c->cmd;
    if (cmd->type == QUEUE_RETRY && !cmd->one_message && queue_sender_holds(q->all, entry))
        return false;
    return concerns(cmd, entry->class_) ||
           (cmd->type == QUEUE_UNHOLD && cmd->one_message && queue_sender_holds(q->all, entry));
}

static bool locked_by(const struct command *c, const struct job *j)
{
    for (size_t i = 0; i < c->n_locked; i++)
        if (c->locked[i] == j)
            return true;
    return false;
}

int queue_lock_job(struct queue *q, const struct msgid *id, struct job **ret)
{
    struct queues *all = q->all;
    struct job *j = job_find(all, q, id);
    if (j && list_empty(&j->link))
        return -EBUSY;
    if (j) { /* ready, not begun */
        list_remove(&j->link);
    } else {
        j = job_new(STR_NONE, 1);
        if (!j)
            return -ENOMEM;
        j->id = *id;
        if (!job_register(all, q, j)) {
            job_free(j);
            return -ENOMEM;
        }
    }
    j->mode = JOB_LOCKED;
    j->parked = NOT_PARKED;
    *ret = j;
    return 0;
}

/* Keeps others from the message until the batch is on disk. */
static int lock(struct command *c, struct queue *q, const struct msgid *id)
{
    struct job *j = job_find(q->all, q, id);
    if (j && locked_by(c, j))
        return 0;
    int r = queue_lock_job(q, id, &j);
    if (r == 0)
        c->locked[c->n_locked++] = j;
    return r;
}

/* Adds one recipient to the batch, unless it is under way. */
static void add(struct command *c, struct queue *q, const struct msgid *id, uint32_t n)
{
    struct port_spool *spool = c->engine->ports.spool;
    struct spool_entry entry;
    struct buf *record = &c->records[c->pending];
    int r = spool->read_recipient(spool, id, n, &entry, record);
    if (r == 0 && (!str_eq(str_of(entry.queue), queue_name(q)) || !means(c, q, &entry)))
        return;
    if (r == 0 && c->cmd->type == QUEUE_CLOCK)
        r = queue_clock_mend(q, &entry, c->cmd->set_back_ms, record, &c->due_ms);
    if (r > 0)
        return;
    if (r == 0)
        r = lock(c, q, id);
    if (r == 0) {
        change_of(c, &entry, buf_str(record), &c->changes[c->pending]);
        c->pending++;
    } else if (r != -ENOENT &&
               (r != -EBUSY || c->cmd->one_message || c->cmd->type == QUEUE_CLOCK)) {
        c->cmd->result = r;
    }
}

static void committed(struct spool_op *op)
{
    struct command *c = CONTAINER_OF(op, struct command, op);
    c->at_spool = false;
    if (!c->engine) {
        command_free(c);
        return;
    }
    unlock(c);
    if (op->result < 0 && op->result != -ENOENT) {
        finish(c, op->result);
        return;
    }
    if (op->result == 0)
        c->cmd->affected += c->pending;
    engine_later(c->engine, &c->step);
}

static void submit_n(struct command *c, size_t n, void (*done)(struct spool_op *))
{
    c->op.changes = c->changes;
    c->op.n_changes = n;
    c->op.done = done;
    c->at_spool = true;
    c->engine->ports.spool->submit(c->engine->ports.spool, &c->op);
}

static void submit(struct command *c)
{
    submit_n(c, c->pending, committed);
}

/* ---- one message fails now -------------------------------------------------------------------- */

/* The numbers of its recipients in this queue. */
static int recipients_here(struct command *c, struct queue *q, struct job **ret)
{
    struct port_spool *spool = c->engine->ports.spool;
    struct buf *b = &q->all->bytes;
    struct message *m = NULL;
    int r = spool->read_message(spool, &c->cmd->id, b);
    if (r == 0)
        r = message_decode(&c->cmd->id, buf_str(b), &m);
    if (r < 0)
        return r;
    uint32_t most = MAX(m->n_recipients, 1u);
    struct job *j = job_new(STR_NONE, most);
    message_unref(m);
    if (!j)
        return -ENOMEM;
    for (uint32_t n = 0; n < most; n++) {
        struct spool_entry entry;
        if (spool->read_recipient(spool, &c->cmd->id, n, &entry, b) == 0 &&
            str_eq(str_of(entry.queue), queue_name(q)))
            j->recipients[j->n++].n = n;
    }
    if (j->n == 0) {
        job_free(j);
        return -ENOENT;
    }
    *ret = j;
    return 0;
}

static int bounce_message(struct command *c, struct queue *q)
{
    struct job *j = job_find(q->all, q, &c->cmd->id);
    if (j && list_empty(&j->link))
        return -EBUSY;
    if (j) /* ready, not begun: it stays on disk, should this fail */
        queue_call_off(q, j);
    int r = recipients_here(c, q, &j);
    if (r < 0)
        return r;
    j->id = c->cmd->id;
    j->class_ = SPOOL_SCHEDULED;
    j->mode = JOB_BOUNCE;
    if (!job_register(q->all, q, j)) {
        job_free(j);
        return -ENOMEM;
    }
    r = queue_load_job(q, j);
    if (r < 0) {
        job_drop(q->all, j);
        return r;
    }
    c->cmd->affected = j->n;
    queue_start_job(q, j);
    return 0;
}

/* ---- batches ---------------------------------------------------------------------------------- */

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
            c->begun = c->cmd->type == QUEUE_CLOCK;
            c->after = queue_clock_from(c->engine->queues, (enum spool_class)c->class_,
                                        c->cmd->set_back_ms);
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
    finish(c, c->cmd->result);
}

/* One message: its recipients in this queue, at most a batch at a time. */
static void step_message(struct command *c, struct queue *q)
{
    struct port_spool *spool = c->engine->ports.spool;
    struct spool_entry entries[COMMAND_BATCH];
    int n = -1;
    c->pending = 0;
    if (!c->begun) { /* (id, 0) itself is not after (id, 0) */
        c->begun = true;
        c->after = (struct spool_due){ .id = c->cmd->id };
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
    struct queue *q = queue_get(c->engine->queues, str_of(c->name));
    if (!q)
        finish(c, -ENOMEM);
    else if (c->cmd->type == QUEUE_BOUNCE)
        finish(c, bounce_message(c, q));
    else if (c->cmd->one_message)
        step_message(c, q);
    else
        step_queue(c, q);
}

/* ---- the queue itself ------------------------------------------------------------------------- */

static void flag_written(struct spool_op *op)
{
    struct command *c = CONTAINER_OF(op, struct command, op);
    c->at_spool = false;
    if (!c->engine) {
        command_free(c);
        return;
    }
    struct queue *q = queue_get(c->engine->queues, str_of(c->name));
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
    c->changes[0].queue.name = str_of(c->name);
    c->changes[0].queue.record = hold ? str_make(&c->flag, 1) : STR_NONE;
    submit_n(c, 1, flag_written);
}

void queue_override_back_off(struct queue *q)
{
    q->retry_at = q->pause_until = q->read_again = 0;
    queue_unpark_all(q);
    q->forced = true;
    q->forced_at = engine_now(q->all->engine);
}

static void release(struct command *c, struct queue *q)
{
    struct engine *e = c->engine;
    struct queue_command *cmd = c->cmd;
    struct spool_queue *row = &e->queues->row;
    if (!cmd->route && !cmd->probe) {
        finish(c, -EINVAL);
        return;
    }
    cmd->merged = q->released && !q->release_once && !cmd->once && !cmd->probe &&
                  route_same(q->release_route, cmd->route);
    bool busy = q->released && !cmd->merged && (!cmd->replace || q->release_once);
    if (q->held || busy) {
        finish(c, q->held ? -EPERM : -EBUSY);
        return;
    }
    int r = e->ports.spool->read_queue(e->ports.spool, queue_name(q), row);
    cmd->affected = r == 0 ? row->waiting : 0;
    if (cmd->affected && !cmd->probe) {
        route_unref(q->release_route);
        q->release_route = route_ref(cmd->route);
        q->released = true;
        q->release_passes = 0;
        queue_release_pass(q);
        q->released_until =
            engine_now(e) + (cmd->window_ms > 0 ? cmd->window_ms : RELEASE_WINDOW_MS);
        queue_override_back_off(q);
        engine_event(e, EVENT(EVENT_INFO, "queue_released", F_STR("queue", queue_name(q)),
                              F_INT("recipients", (int64_t)cmd->affected)));
        if (cmd->once) { /* it is answered when the release ends */
            q->release_once = cmd;
            command_free(c);
            queue_run_soon(q);
            return;
        }
    }
    finish(c, r == -ENOENT ? 0 : r);
}

static void run(struct engine *e, struct worker_message *m)
{
    struct queue_command *cmd = CONTAINER_OF(m, struct queue_command, wm);
    struct queue *q = queue_get(e->queues, str_of(cmd->queue));
    struct command *c = calloc(1, sizeof *c);
    cmd->affected = 0;
    if (!c || !q) {
        free(c);
        cmd->result = -ENOMEM;
        cmd->done(cmd);
        return;
    }
    c->engine = e;
    c->cmd = cmd;
    cmd->result = 0;
    str_copy(str_of(cmd->queue), c->name, sizeof c->name);
    list_push(&e->queues->commands, &c->link);
    later_init(&c->step, step);
    list_init(&c->op.link);
    for (size_t i = 0; i < ARRAY_LEN(c->records); i++)
        buf_init(&c->records[i], 0);
    if (cmd->type == QUEUE_RETRY) {
        queue_override_back_off(q);
        if (!cmd->one_message) { /* only what is not due yet: what becomes due falls behind the cursor */
            c->begun = true;
            c->after = (struct spool_due){ .due_ms = engine_wall(e), .n = UINT32_MAX };
            memset(c->after.id.b, 0xff, sizeof c->after.id.b);
        }
    }
    if (cmd->type == QUEUE_CLOCK) {
        c->begun = true;
        c->after = queue_clock_from(e->queues, SPOOL_SCHEDULED, cmd->set_back_ms);
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

void queue_command_here(struct engine *e, struct queue_command *c)
{
    run(e, &c->wm);
}

void queue_command_send(struct port_workers *workers, struct queue_command *c)
{
    c->wm.run = run;
    workers->post(workers, engine_queue_owner(str_of(c->queue), workers->count), &c->wm);
}
