/* spool.c - commits, reads and crashes of the simulated spool. Layer: sim. Interface: spool.h. */
#include "sim/spool.h"

#include "sim/spool_impl.h"

struct sim_spool {
    struct port_spool port;
    struct sim_clock *clock;
    struct tables tables;
    struct list waiting;    /* units for the next commit */
    struct list committing; /* units of the commit under way */
    struct list told;       /* committed (or refused), to be told */
    struct list dead;       /* lost in a crash */
    struct timer begin, sync, tell;
    int64_t latency_ms;
    uint64_t commits, number;
    uint32_t fail_commits, fail_reads;
    int commit_error, read_error;
    bool full, crashed, damaged;
    struct msgid damaged_id;
    uint32_t damaged_n;
    sim_spool_commit_cb *on_commit;
    void *on_commit_arg;
};

/* ---- commits ---------------------------------------------------------------------------------- */

static void arm_begin(struct sim_spool *s)
{
    if (!list_empty(&s->waiting) && list_empty(&s->committing) && !timer_armed(&s->begin))
        sim_timer_in(s->clock, &s->begin, 0);
}

static void begin(struct timer *t)
{
    struct sim_spool *s = CONTAINER_OF(t, struct sim_spool, begin);
    list_join(&s->committing, &s->waiting);
    sim_timer_in(s->clock, &s->sync, s->latency_ms);
}

static int outcome_of(struct sim_spool *s, struct spool_op *op, bool fails)
{
    int rc = sim_apply_validate(op);
    if (rc < 0)
        return rc;
    if (fails)
        return s->commit_error;
    if (s->full && sim_apply_brings_mail(op))
        return -ENOSPC;
    return sim_apply_op(&s->tables, op);
}

static void sync_done(struct timer *t)
{
    struct sim_spool *s = CONTAINER_OF(t, struct sim_spool, sync);
    bool fails = s->fail_commits > 0, changed = false;
    s->number++;
    if (s->on_commit)
        s->on_commit(s->on_commit_arg, s->number, false);
    if (s->clock->interrupted) {
        sim_timer_in(s->clock, &s->sync, 0);
        return;
    }
    for (struct list *it; (it = list_pop(&s->committing));) {
        struct spool_op *op = LIST_ENTRY(it, struct spool_op, link);
        op->result = outcome_of(s, op, fails);
        changed = changed || op->result == 0;
        list_push(&s->told, &op->link);
    }
    s->fail_commits -= fails;
    s->commits += changed;
    sim_timer_in(s->clock, &s->tell, 0);
    if (s->on_commit)
        s->on_commit(s->on_commit_arg, s->number, true);
    arm_begin(s);
}

static void tell(struct timer *t)
{
    struct sim_spool *s = CONTAINER_OF(t, struct sim_spool, tell);
    struct list batch;
    list_init(&batch);
    list_join(&batch, &s->told);
    for (struct list *it; (it = list_pop(&batch));) {
        struct spool_op *op = LIST_ENTRY(it, struct spool_op, link);
        op->done(op); /* may free it, and submit others */
    }
}

static void port_submit(struct port_spool *self, struct spool_op *op)
{
    struct sim_spool *s = CONTAINER_OF(self, struct sim_spool, port);
    list_init(&op->link);
    list_push(s->crashed ? &s->dead : &s->waiting, &op->link);
    if (!s->crashed)
        arm_begin(s);
}

/* ---- reads ------------------------------------------------------------------------------------ */

static int read_fails(struct sim_spool *s)
{
    if (SIM_STARVED())
        return -ENOMEM;
    if (s->fail_reads == 0)
        return 0;
    s->fail_reads--;
    return s->read_error;
}

static int give(struct str bytes, struct buf *ret)
{
    buf_clear(ret);
    return buf_add_str(ret, bytes);
}

static int port_read_message(struct port_spool *self, const struct msgid *id,
                             struct buf *ret_envelope)
{
    struct sim_spool *s = CONTAINER_OF(self, struct sim_spool, port);
    int rc = read_fails(s);
    if (rc < 0)
        return rc;
    const struct row *r = sim_find_by_id(&s->tables.message, id);
    return r ? give(r->text, ret_envelope) : -ENOENT;
}

static int port_read_chunk(struct port_spool *self, const struct msgid *id, uint32_t chunk,
                           struct buf *ret)
{
    struct sim_spool *s = CONTAINER_OF(self, struct sim_spool, port);
    int rc = read_fails(s);
    if (rc < 0)
        return rc;
    const struct row *r = sim_find_by_id(&s->tables.message, id);
    if (r && chunk < r->n_chunks)
        return give(str_make(r->chunks[chunk]->data, r->chunks[chunk]->n), ret);
    r = r ? NULL : sim_find_by_id(&s->tables.staging, id);
    if (r && chunk >= 1 && chunk <= r->n_chunks)
        return give(str_make(r->chunks[chunk - 1]->data, r->chunks[chunk - 1]->n), ret);
    return -ENOENT;
}

static void fill_entry(struct spool_entry *ret, const struct row *r)
{
    *ret = (struct spool_entry){
        .id = r->id, .n = r->r.n, .class_ = r->r.class_, .due_ms = r->r.due_ms, .size = r->r.size
    };
    CHECK(str_copy(r->r.queue, ret->queue, sizeof ret->queue));
}

static int port_read_recipient(struct port_spool *self, const struct msgid *id, uint32_t n,
                               struct spool_entry *ret, struct buf *ret_record)
{
    struct sim_spool *s = CONTAINER_OF(self, struct sim_spool, port);
    int rc = read_fails(s);
    if (rc < 0)
        return rc;
    const struct row *r = sim_find_recipient(&s->tables, id, n);
    if (!r)
        return -ENOENT;
    if (s->damaged && s->damaged_n == n && msgid_cmp(&s->damaged_id, id) == 0)
        return -EBADMSG;
    fill_entry(ret, r);
    return give(r->text, ret_record);
}

static int port_scan_due(struct port_spool *self, struct str queue, enum spool_class c,
                         const struct spool_due *after, int64_t until_ms, struct spool_due *ret,
                         size_t max)
{
    struct sim_spool *s = CONTAINER_OF(self, struct sim_spool, port);
    struct row key = { .r = { .queue = queue, .class_ = c, .due_ms = INT64_MIN } };
    size_t n = 0;
    int rc = read_fails(s);
    if (rc < 0)
        return rc;
    if (after) {
        key.id = after->id;
        key.r.n = after->n;
        key.r.due_ms = after->due_ms;
    }
    struct sim_walk walk;
    sim_walk_begin(&walk, &s->tables.due, &key.due);
    while (n < max) {
        const struct row *r = row_of_due(sim_walk_next(&walk));
        if (!r || !str_eq(r->r.queue, queue) || r->r.class_ != c || r->r.due_ms > until_ms)
            break;
        ret[n++] = (struct spool_due){ r->id, r->r.n, r->r.due_ms };
    }
    return (int)n;
}

static int port_scan_entries(struct port_spool *self, const struct msgid *after_id,
                             uint32_t after_n, struct spool_entry *ret, size_t max)
{
    struct sim_spool *s = CONTAINER_OF(self, struct sim_spool, port);
    struct row key = { .r.n = after_n };
    size_t n = 0;
    int rc = read_fails(s);
    if (rc < 0)
        return rc;
    if (after_id)
        key.id = *after_id;
    struct sim_walk walk;
    sim_walk_begin(&walk, &s->tables.recipient, after_id ? &key.node : NULL);
    while (n < max) {
        const struct row *r = row_of(sim_walk_next(&walk));
        if (!r)
            break;
        fill_entry(&ret[n++], r);
    }
    return (int)n;
}

static void fill_queue(const struct tables *t, struct str name, struct spool_queue *ret)
{
    const struct queue_row *q = sim_find_queue(t, name);
    const struct row *record = sim_find_record(t, name);
    *ret = (struct spool_queue){ .scheduled = q ? q->count[SPOOL_SCHEDULED] : 0,
                                 .waiting = q ? q->count[SPOOL_WAITING] : 0,
                                 .held = q ? q->count[SPOOL_HELD] : 0,
                                 .waiting_octets = q ? q->octets : 0,
                                 .record_n = record ? record->text.n : 0 };
    CHECK(str_copy(name, ret->name, sizeof ret->name));
    if (record)
        memcpy(ret->record, record->text.p, record->text.n);
}

static int port_scan_queues(struct port_spool *self, struct str after, struct spool_queue *ret,
                            size_t max)
{
    struct sim_spool *s = CONTAINER_OF(self, struct sim_spool, port);
    const struct tables *t = &s->tables;
    size_t n = 0;
    int rc = read_fails(s);
    if (rc < 0)
        return rc;
    for (; n < max; n++) {
        /* A queue is there for its recipients, its record, or both. */
        struct queue_row queue_key = { .name = after };
        struct row record_key = { .name = after };
        struct sim_node *qn = sim_tree_after(&t->queue, after.n ? &queue_key.node : NULL);
        const struct row *r = row_of(sim_tree_after(&t->record, after.n ? &record_key.node : NULL));
        const struct queue_row *q = qn ? CONTAINER_OF(qn, struct queue_row, node) : NULL;
        if (!q && !r)
            break;
        after = !r || (q && str_cmp(q->name, r->name) < 0) ? q->name : r->name;
        fill_queue(t, after, &ret[n]);
    }
    return (int)n;
}

static int port_read_queue(struct port_spool *self, struct str name, struct spool_queue *ret)
{
    struct sim_spool *s = CONTAINER_OF(self, struct sim_spool, port);
    int rc = read_fails(s);
    if (rc < 0)
        return rc;
    if (!sim_find_queue(&s->tables, name) && !sim_find_record(&s->tables, name))
        return -ENOENT;
    fill_queue(&s->tables, name, ret);
    return 0;
}

static int port_kv_read(struct port_spool *self, struct str name, struct str key,
                        int64_t *ret_expires, struct buf *ret_value)
{
    struct sim_spool *s = CONTAINER_OF(self, struct sim_spool, port);
    int rc = read_fails(s);
    if (rc < 0)
        return rc;
    const struct kv_row *r = sim_kv_find(&s->tables, name, key);
    if (!r)
        return -ENOENT;
    *ret_expires = r->expires_ms;
    return give(r->value, ret_value);
}

static int port_kv_scan(struct port_spool *self, struct str name, struct str prefix,
                        struct str after, struct buf *ret, size_t max)
{
    struct sim_spool *s = CONTAINER_OF(self, struct sim_spool, port);
    bool behind = after.n > 0 && str_cmp(after, prefix) >= 0;
    int n = 0, rc = read_fails(s);
    if (rc < 0)
        return rc;
    buf_clear(ret);
    for (const struct kv_row *r = sim_kv_next(&s->tables, name,
                                              behind     ? after
                                              : prefix.n ? prefix
                                                         : STR(""),
                                              !behind);
         r && str_starts(r->key, prefix) && (size_t)n < max;
         r = sim_kv_next(&s->tables, name, r->key, false), n++) {
        struct spool_kv_entry head = { r->expires_ms, (uint32_t)r->key.n, (uint32_t)r->value.n };
        buf_add(ret, &head, sizeof head);
        buf_add_str(ret, r->key);
        buf_add_str(ret, r->value);
    }
    return ret->failed ? -ENOMEM : n;
}

/* ---- life ------------------------------------------------------------------------------------- */

struct sim_spool *sim_spool_new(struct sim_clock *clock)
{
    struct sim_spool *s = sim_alloc(sizeof *s);
    s->port = (struct port_spool){
        .submit = port_submit,
        .read_message = port_read_message,
        .read_chunk = port_read_chunk,
        .read_recipient = port_read_recipient,
        .scan_due = port_scan_due,
        .scan_entries = port_scan_entries,
        .scan_queues = port_scan_queues,
        .read_queue = port_read_queue,
        .kv_read = port_kv_read,
        .kv_scan = port_kv_scan,
    };
    s->clock = clock;
    s->latency_ms = 2;
    sim_tables_init(&s->tables);
    list_init(&s->waiting);
    list_init(&s->committing);
    list_init(&s->told);
    list_init(&s->dead);
    timer_init(&s->begin, begin);
    timer_init(&s->sync, sync_done);
    timer_init(&s->tell, tell);
    return s;
}

static void stop_timers(struct sim_spool *s)
{
    sim_timer_stop(s->clock, &s->begin);
    sim_timer_stop(s->clock, &s->sync);
    sim_timer_stop(s->clock, &s->tell);
}

struct sim_spool *sim_spool_free(struct sim_spool *s)
{
    if (!s)
        return NULL;
    CHECK(sim_spool_open(s) == 0);
    stop_timers(s);
    sim_tables_done(&s->tables);
    free(s);
    return NULL;
}

struct port_spool *sim_spool_port(struct sim_spool *s)
{
    return &s->port;
}

void sim_spool_crash(struct sim_spool *s)
{
    stop_timers(s);
    s->crashed = true;
    list_join(&s->dead, &s->told);
    list_join(&s->dead, &s->committing);
    list_join(&s->dead, &s->waiting);
    sim_tables_sweep_staging(&s->tables);
}

void sim_spool_settle(struct sim_spool *s)
{
    for (struct list *it; (it = list_pop(&s->dead));) {
        struct spool_op *op = LIST_ENTRY(it, struct spool_op, link);
        op->result = -ESHUTDOWN;
        op->done(op);
    }
    s->crashed = false;
}

void sim_spool_set_latency(struct sim_spool *s, int64_t ms)
{
    s->latency_ms = ms;
}

void sim_spool_fail_commits(struct sim_spool *s, uint32_t n, int error)
{
    s->fail_commits = n;
    s->commit_error = error;
}

void sim_spool_fail_reads(struct sim_spool *s, uint32_t n, int error)
{
    s->fail_reads = n;
    s->read_error = error;
}

void sim_spool_damage(struct sim_spool *s, const struct msgid *id, uint32_t n)
{
    s->damaged = id != NULL;
    if (id)
        s->damaged_id = *id;
    s->damaged_n = n;
}

void sim_spool_set_full(struct sim_spool *s, bool full)
{
    s->full = full;
}

void sim_spool_on_commit(struct sim_spool *s, sim_spool_commit_cb *cb, void *arg)
{
    s->on_commit = cb;
    s->on_commit_arg = arg;
}

uint64_t sim_spool_commits(const struct sim_spool *s)
{
    return s->commits;
}

size_t sim_spool_messages(const struct sim_spool *s)
{
    return s->tables.message.n;
}

size_t sim_spool_recipients(const struct sim_spool *s)
{
    return s->tables.recipient.n;
}

size_t sim_spool_staged(const struct sim_spool *s)
{
    return s->tables.staging.n;
}

static size_t length(const struct list *head)
{
    size_t n = 0;
    for (const struct list *it = head->next; it != head; it = it->next)
        n++;
    return n;
}

size_t sim_spool_open(const struct sim_spool *s)
{
    return length(&s->waiting) + length(&s->committing) + length(&s->told) + length(&s->dead);
}

void sim_spool_check(const struct sim_spool *s)
{
    const struct tables *t = &s->tables;
    CHECK(t->due.n == t->recipient.n);
    const struct row *m = NULL;
    size_t owned = 0;
    uint64_t counted = 0;
    for (struct sim_node *at = NULL; (at = sim_tree_after(&t->recipient, at));) {
        const struct row *r = row_of(at);
        if (!m || msgid_cmp(&m->id, &r->id) != 0) {
            m = sim_find_by_id(&t->message, &r->id);
            owned++;
        }
        CHECK(m != NULL); /* a recipient without a message */
    }
    CHECK(owned == t->message.n); /* a message without a recipient */
    for (struct sim_node *at = NULL; (at = sim_tree_after(&t->queue, at));) {
        const struct queue_row *q = CONTAINER_OF(at, struct queue_row, node);
        counted += q->count[0] + q->count[1] + q->count[2];
    }
    CHECK(counted == t->recipient.n);
}
