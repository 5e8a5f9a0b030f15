/* operations.c - long work on the queue, step by step. Layer: daemon. Interface: operations.h. */
#include "daemon/operations.h"

#include <stdio.h>

#include "daemon/control_lookup.h"
#include "daemon/queue_walk.h"

enum {
    TICK_MS = 500,
    GATHER_STEPS = 64, /* a few matches wait so long for more: each batch is a commit */
};

enum state { STATE_RUNNING, STATE_DONE, STATE_CANCELLED, STATE_FAILED };

struct part {
    struct queue_batch batch;
    struct operation *op;
    int worker;
};

struct operation {
    struct list link; /* operations.all, newest first */
    struct operations *all;
    char id[MSGID_TEXT];
    uint64_t number;
    struct operation_order order;
    enum state state;
    bool cancelled;
    int error;
    int64_t started_ms, ended_ms; /* wall */

    struct queue_walk *walk; /* NULL: ended */
    struct timer step;
    struct queue_match *match; /* QUEUE_BATCH; of the batch that is being gathered */
    size_t n_match;
    unsigned gathered;              /* steps since the first of them */
    struct part *part[WORKERS_MAX]; /* made when a worker is first needed */
    unsigned out;                   /* parts that are not back */

    uint64_t scanned, matched, messages, octets, changed, busy, unchanged, failed;
    struct msgid last; /* message that was counted last */
    json_t *first;     /* of the matches */

    struct list waiters;
    struct timer tick;
};

struct operations {
    struct router *router;
    struct list all;
    struct msgid_source ids;
    uint64_t last_number;
    unsigned n_running, n_ended;
};

struct waiter {
    struct control_work work;
    struct operation *op; /* NULL: it is to be freed without an answer */
    struct list link;
};

/* ---- life ------------------------------------------------------------------------------------- */

void operation_order_done(struct operation_order *o)
{
    queue_filter_done(&o->filter);
    json_decref(o->told_filter);
    free(o->ids);
}

/* What is only needed while it runs. */
static void let_go(struct operation *op)
{
    io_loop_timer_stop(op->all->router->loop, &op->step);
    io_loop_timer_stop(op->all->router->loop, &op->tick);
    op->walk = queue_walk_free(op->walk);
    free(op->match);
    op->match = NULL;
    for (int i = 0; i < WORKERS_MAX; i++) {
        free(op->part[i]);
        op->part[i] = NULL;
    }
}

static void operation_free(struct operation *op)
{
    let_go(op);
    list_remove(&op->link);
    operation_order_done(&op->order);
    json_decref(op->first);
    free(op);
}

struct operations *operations_new(struct router *r)
{
    struct operations *all = calloc(1, sizeof(*all));

    if (!all)
        return NULL;
    all->router = r;
    list_init(&all->all);
    msgid_source_init(&all->ids, io_loop_random(r->loop));
    return all;
}

struct operations *operations_free(struct operations *all)
{
    if (!all)
        return NULL;
    LIST_FOREACH(it, &all->all)
    {
        struct operation *op = LIST_ENTRY(it, struct operation, link);
        LIST_FOREACH(w, &op->waiters)
        {
            LIST_ENTRY(w, struct waiter, link)->op = NULL; /* the control API frees it */
            list_remove(w);
        }
        operation_free(op);
    }
    free(all);
    return NULL;
}

struct operation *operation_find(struct operations *all, struct str id)
{
    LIST_FOREACH(it, &all->all)
    {
        struct operation *op = LIST_ENTRY(it, struct operation, link);
        if (str_caseeq(str_of(op->id), id))
            return op;
    }
    return NULL;
}

bool operation_ended(const struct operation *op)
{
    return op->state != STATE_RUNNING;
}

/* ---- telling ---------------------------------------------------------------------------------- */

static const char *state_name(enum state s)
{
    static const char *const names[] = { "running", "done", "cancelled", "failed" };

    return names[s];
}

static json_t *error_json(const struct operation *op)
{
    if (op->error == -ESHUTDOWN)
        return json_string("the router is stopping");
    return op->error ? json_string(strerror(-op->error)) : json_null();
}

json_t *operation_json(const struct operation *op)
{
    const struct operation_order *o = &op->order;
    uint64_t scanned = op->walk ? queue_walk_scanned(op->walk) : op->scanned;

    return json_pack(
        "{s:s, s:s, s:s, s:b, s:O, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:O}",
        "id", op->id, "action", o->action, "state", state_name(op->state), "dry_run", o->dry_run,
        "filter", o->told_filter, "ids", (json_int_t)o->n_ids, "scanned", (json_int_t)scanned,
        "matched", (json_int_t)op->matched, "messages", (json_int_t)op->messages, "octets",
        (json_int_t)op->octets, "changed", (json_int_t)op->changed, "busy", (json_int_t)op->busy,
        "unchanged", (json_int_t)op->unchanged, "failed", (json_int_t)op->failed, "started",
        control_time(op->started_ms), "ended", control_time(op->ended_ms), "error", error_json(op),
        "first", op->first);
}

json_t *operations_json(const struct operations *all)
{
    json_t *list = json_array();

    LIST_FOREACH(it, &((struct operations *)all)->all)
    {
        json_array_append_new(list, operation_json(LIST_ENTRY(it, struct operation, link)));
    }
    return json_pack("{s:o}", "operations", list);
}

static void tell(const struct operation *op, const char *what)
{
    AUTO_FREE char *filter = json_dumps(op->order.told_filter, JSON_COMPACT);

    journal_event(&op->all->router->journal,
                  EVENT(EVENT_INFO, what, F_STRZ("id", op->id), F_STRZ("action", op->order.action),
                        F_STRZ("filter", filter), F_INT("ids", (int64_t)op->order.n_ids),
                        F_BOOL("dry_run", op->order.dry_run),
                        F_STRZ("state", state_name(op->state)),
                        F_INT("matched", (int64_t)op->matched),
                        F_INT("changed", (int64_t)op->changed), F_INT("busy", (int64_t)op->busy),
                        F_INT("failed", (int64_t)op->failed), F_INT("error", -op->error)));
}

/* ---- waiters ---------------------------------------------------------------------------------- */

static void finish_waiter(struct control_work *work)
{
    struct waiter *w = CONTAINER_OF(work, struct waiter, work);

    if (work->call && w->op)
        control_answer(work->call, 200, operation_json(w->op));
    list_remove(&w->link);
    free(w);
}

static void answer_waiters(struct operation *op)
{
    struct list *it;

    while ((it = list_pop(&op->waiters)))
        control_work_done(&LIST_ENTRY(it, struct waiter, link)->work);
}

static void on_tick(struct timer *t)
{
    answer_waiters(CONTAINER_OF(t, struct operation, tick));
}

int operation_wait(struct operation *op, struct control_call *c)
{
    struct io_loop *loop = op->all->router->loop;
    struct waiter *w = calloc(1, sizeof(*w));

    if (!w)
        return -ENOMEM;
    w->op = op;
    w->work.left = 1;
    w->work.finish = finish_waiter;
    list_init(&w->link);
    list_push(&op->waiters, &w->link);
    control_wait(c, &w->work);
    if (!timer_armed(&op->tick))
        io_loop_timer_set(loop, &op->tick, io_loop_now(loop) + TICK_MS);
    return 0;
}

/* ---- the end ---------------------------------------------------------------------------------- */

/* The one that ended first makes room, never `kept`: who has ended it still tells about it. By the clock of
 * the machine, which may step, so that one is named; of equals the one that was started first. */
static void forget_one(struct operations *all, const struct operation *kept)
{
    struct operation *oldest = NULL;

    LIST_FOREACH(it, &all->all)
    {
        struct operation *op = LIST_ENTRY(it, struct operation, link);
        if (op->state != STATE_RUNNING && op != kept &&
            (!oldest || op->ended_ms <= oldest->ended_ms))
            oldest = op;
    }
    if (oldest)
        operation_free(oldest);
    all->n_ended -= oldest != NULL;
}

static void end(struct operation *op, enum state state, int error)
{
    struct operations *all = op->all;

    op->state = state;
    op->error = error;
    op->ended_ms = router_wall(all->router);
    op->scanned = queue_walk_scanned(op->walk);
    let_go(op);
    all->n_running--;
    all->n_ended++;
    tell(op, "queue_operation_ended");
    answer_waiters(op);
    if (all->n_ended > OPERATIONS_KEPT)
        forget_one(all, op);
}

/* On the next turn, after those who have waited for this one. */
static void go_on(struct operation *op)
{
    struct io_loop *loop = op->all->router->loop;

    io_loop_timer_set(loop, &op->step, io_loop_now(loop));
}

void operation_cancel(struct operation *op)
{
    if (op->state != STATE_RUNNING)
        return;
    op->cancelled = true;
    if (op->out == 0)
        end(op, STATE_CANCELLED, 0);
}

/* ---- what is found ---------------------------------------------------------------------------- */

/* Those under way are known to the owners only. */
static bool asks_owners(const struct operation *op)
{
    return op->order.filter.state == FILTER_ACTIVE;
}

static void show(struct operation *op, const struct msgid *id, uint32_t n)
{
    struct found f;

    if (json_array_size(op->first) >= OPERATION_FIRST)
        return;
    found_init(&f);
    json_t *entry = control_entry_json(op->all->router->ports.spool, id, n, &f);
    if (entry)
        json_array_append_new(op->first, entry);
    found_done(&f);
}

static void count(struct operation *op, const struct msgid *id, uint32_t n, uint64_t size)
{
    op->matched++;
    if (op->messages == 0 || msgid_cmp(&op->last, id) != 0) {
        op->messages++;
        op->octets += size;
        op->last = *id;
    }
    show(op, id, n);
}

/* ---- batches ---------------------------------------------------------------------------------- */

static void count_results(struct operation *op, const struct queue_batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        const struct queue_batch_item *item = &b->item[i];
        if (b->type == BATCH_LOOK) {
            if (item->result == BATCH_BUSY)
                count(op, &item->id, item->n, 0);
            continue;
        }
        switch (item->result) {
        case BATCH_CHANGED: op->changed++; break;
        case BATCH_BUSY: op->busy++; break;
        case BATCH_UNCHANGED: op->unchanged++; break;
        case BATCH_FAILED: op->failed++; break;
        }
    }
}

static void on_part_back(struct engine *none, struct worker_message *m)
{
    struct part *p = CONTAINER_OF(CONTAINER_OF(m, struct queue_batch, wm), struct part, batch);
    struct operation *op = p->op;

    count_results(op, &p->batch);
    /* What else went wrong will not be better with the next ones. */
    if (p->batch.result < 0 && !queue_batch_is_of_one(p->batch.result))
        op->error = p->batch.result;
    if (--op->out > 0)
        return;
    if (op->error)
        end(op, STATE_FAILED, op->error);
    else if (op->cancelled)
        end(op, STATE_CANCELLED, 0);
    else
        go_on(op);
}

/* In the owner's thread. */
static void on_part_done(struct queue_batch *b)
{
    struct part *p = CONTAINER_OF(b, struct part, batch);

    b->wm.run = on_part_back;
    router_tell(p->op->all->router, &b->wm);
}

static struct part *part_of(struct operation *op, int worker)
{
    struct part *p = op->part[worker];

    if (p)
        return p;
    p = op->part[worker] = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->op = op;
    p->worker = worker;
    p->batch.type = asks_owners(op) ? BATCH_LOOK : op->order.type;
    p->batch.operation = op->number;
    p->batch.named = op->order.n_ids > 0;
    p->batch.done = on_part_done;
    str_copy(str_of(op->order.reason), p->batch.reason, sizeof(p->batch.reason));
    str_copy(str_of(op->order.address), p->batch.address, sizeof(p->batch.address));
    return p;
}

/* Gives each owner its share. -ENOMEM: nothing was sent. */
static int send(struct operation *op)
{
    struct router *r = op->all->router;

    for (int i = 0; i < r->n_workers; i++)
        if (op->part[i])
            op->part[i]->batch.n = 0;
    for (size_t i = 0; i < op->n_match; i++) {
        const struct queue_match *m = &op->match[i];
        struct part *p = part_of(op, engine_queue_owner(str_of(m->queue), r->n_workers));
        if (!p)
            return -ENOMEM;
        struct queue_batch_item *item = &p->batch.item[p->batch.n++];
        item->id = m->id;
        item->n = m->n;
        item->result = BATCH_UNCHANGED;
        memcpy(item->queue, m->queue, sizeof(item->queue));
    }
    op->n_match = op->gathered = 0;
    for (int i = 0; i < r->n_workers; i++)
        op->out += op->part[i] && op->part[i]->batch.n > 0;
    for (int i = 0; i < r->n_workers; i++)
        if (op->part[i] && op->part[i]->batch.n > 0)
            queue_batch_send(r->workers[0]->ports.workers, i, &op->part[i]->batch);
    return 0;
}

/* Along an index a recipient that is moved forward is found again: of the n that were found just now,
 * those that this batch has are dropped. Returns how many are left. */
static size_t drop_repeated(struct operation *op, size_t n)
{
    struct queue_match *found = op->match + op->n_match;
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        bool again = false;
        for (const struct queue_match *m = op->match; !again && m < found + kept; m++)
            again = m->n == found[i].n && msgid_cmp(&m->id, &found[i].id) == 0 &&
                    strcmp(m->queue, found[i].queue) == 0;
        if (!again)
            found[kept++] = found[i];
    }
    return kept;
}

/* ---- steps ------------------------------------------------------------------------------------ */

static void step(struct timer *t)
{
    struct operation *op = CONTAINER_OF(t, struct operation, step);
    int n = queue_walk_next(op->walk, op->match + op->n_match, QUEUE_BATCH - op->n_match);

    if (n < 0) {
        end(op, STATE_FAILED, n);
        return;
    }
    n = (int)drop_repeated(op, (size_t)n);
    bool counts_only = op->order.dry_run && !asks_owners(op);
    for (int i = 0; i < n && !asks_owners(op); i++) {
        const struct queue_match *m = &op->match[op->n_match + (size_t)i];
        count(op, &m->id, m->n, m->size);
    }
    if (!counts_only)
        op->n_match += (size_t)n;
    op->gathered += op->n_match > 0;
    bool ended = queue_walk_ended(op->walk);
    if (op->n_match == 0 && ended) {
        end(op, STATE_DONE, 0);
    } else if (op->n_match == QUEUE_BATCH || op->gathered >= GATHER_STEPS ||
               (op->n_match && ended)) {
        int e = send(op);
        if (e < 0)
            end(op, STATE_FAILED, e);
    } else {
        go_on(op);
    }
}

/* Where a verb cannot apply nothing is looked at. */
static unsigned classes_of(enum queue_batch_type type, bool named)
{
    switch (type) {
    case BATCH_HOLD: return 1u << SPOOL_SCHEDULED | 1u << SPOOL_WAITING;
    case BATCH_RELEASE: /* the sender's hold of what is named, too */
        return 1u << SPOOL_HELD | (named ? 1u << SPOOL_SCHEDULED : 0u);
    case BATCH_RETRY: return 1u << SPOOL_SCHEDULED;
    default: return 1u << SPOOL_SCHEDULED | 1u << SPOOL_WAITING | 1u << SPOOL_HELD;
    }
}

int operation_start(struct operations *all, struct operation_order *o, struct operation **ret)
{
    struct router *r = all->router;
    struct operation *op = NULL;

    if (all->n_running >= OPERATIONS_RUNNING) {
        operation_order_done(o);
        return -EBUSY;
    }
    op = calloc(1, sizeof(*op));
    if (!op) {
        operation_order_done(o);
        return -ENOMEM;
    }
    op->all = all;
    op->order = *o;
    op->started_ms = router_wall(r);
    list_init(&op->link);
    list_init(&op->waiters);
    timer_init(&op->step, step);
    timer_init(&op->tick, on_tick);
    struct msgid id = msgid_next(&all->ids, op->started_ms);
    msgid_text(&id, op->id);
    op->match = calloc(QUEUE_BATCH, sizeof(*op->match));
    op->first = json_array();
    op->walk = queue_walk_new(r->ports.spool, &op->order.filter, op->order.ids, op->order.n_ids,
                              op->started_ms);
    if (!op->match || !op->first || !op->walk) {
        operation_free(op);
        return -ENOMEM;
    }
    queue_walk_classes(op->walk, classes_of(o->type, op->order.n_ids > 0));
    op->number = ++all->last_number;
    list_unshift(&all->all, &op->link);
    all->n_running++;
    tell(op, "queue_operation");
    go_on(op);
    *ret = op;
    return 0;
}
