/* spool_apply.c - the tables of the simulated spool, and units of change done to them as a whole.
 *
 * Layer: sim. Interface: spool_impl.h. Each row that a unit takes out or puts in stands in the unit's undo
 * list; when a change fails the list is gone through backwards.
 */
#include "sim/spool_impl.h"

enum { MAX_QUEUE_RECORD = 1024 };

/* ---- order ------------------------------------------------------------------------------------ */

static int cmp_id(const struct sim_node *a, const struct sim_node *b)
{
    const struct row *x = CONTAINER_OF(a, const struct row, node);
    const struct row *y = CONTAINER_OF(b, const struct row, node);
    return msgid_cmp(&x->id, &y->id);
}

static int cmp_item(const struct row *x, const struct row *y)
{
    int c = msgid_cmp(&x->id, &y->id);
    return c ? c : (x->r.n > y->r.n) - (x->r.n < y->r.n);
}

static int cmp_recipient(const struct sim_node *a, const struct sim_node *b)
{
    return cmp_item(CONTAINER_OF(a, const struct row, node),
                    CONTAINER_OF(b, const struct row, node));
}

static int cmp_due(const struct sim_node *a, const struct sim_node *b)
{
    const struct row *x = CONTAINER_OF(a, const struct row, due);
    const struct row *y = CONTAINER_OF(b, const struct row, due);
    int c = str_cmp(x->r.queue, y->r.queue);
    if (c == 0)
        c = (x->r.class_ > y->r.class_) - (x->r.class_ < y->r.class_);
    if (c == 0)
        c = (x->r.due_ms > y->r.due_ms) - (x->r.due_ms < y->r.due_ms);
    return c ? c : cmp_item(x, y);
}

static int cmp_record(const struct sim_node *a, const struct sim_node *b)
{
    return str_cmp(CONTAINER_OF(a, const struct row, node)->name,
                   CONTAINER_OF(b, const struct row, node)->name);
}

static int cmp_queue(const struct sim_node *a, const struct sim_node *b)
{
    return str_cmp(CONTAINER_OF(a, const struct queue_row, node)->name,
                   CONTAINER_OF(b, const struct queue_row, node)->name);
}

/* ---- rows ------------------------------------------------------------------------------------- */

static struct str copy(struct str s)
{
    return str_make(sim_dup(s.p ? s : STR("")), s.n);
}

static struct row *row_new(enum row_kind kind, const struct msgid *id, struct str text)
{
    struct row *r = sim_alloc(sizeof *r);
    r->kind = kind;
    list_init(&r->undo);
    if (id)
        r->id = *id;
    r->text = copy(text);
    return r;
}

static struct blob *blob_new(struct str bytes)
{
    struct blob *b = sim_alloc(sizeof *b + bytes.n);
    b->refs = 1;
    b->n = bytes.n;
    if (bytes.n)
        memcpy(b->data, bytes.p, bytes.n);
    return b;
}

static void add_chunk(struct row *r, struct blob *b)
{
    r->chunks = reallocarray(r->chunks, r->n_chunks + 1, sizeof(struct blob *));
    CHECK(r->chunks != NULL);
    r->chunks[r->n_chunks++] = b;
}

static void share_chunks(struct row *to, const struct row *from)
{
    for (uint32_t i = 0; from && i < from->n_chunks; i++) {
        from->chunks[i]->refs++;
        add_chunk(to, from->chunks[i]);
    }
}

static void row_free(struct row *r)
{
    for (uint32_t i = 0; i < r->n_chunks; i++)
        if (--r->chunks[i]->refs == 0)
            free(r->chunks[i]);
    free(r->chunks);
    free((char *)r->text.p);
    free((char *)r->name.p);
    free((char *)r->r.queue.p);
    free(r);
}

static void count(struct tables *t, const struct row *r, int delta)
{
    struct queue_row *q = sim_find_queue(t, r->r.queue);
    if (!q) {
        q = sim_alloc(sizeof *q);
        q->name = copy(r->r.queue);
        sim_tree_add(&t->queue, &q->node);
    }
    q->count[r->r.class_] += (uint64_t)(int64_t)delta;
    if (r->r.class_ == SPOOL_WAITING)
        q->octets += (uint64_t)delta * r->r.size;
    if (q->count[0] || q->count[1] || q->count[2])
        return;
    sim_tree_remove(&t->queue, &q->node);
    free((char *)q->name.p);
    free(q);
}

static struct sim_tree *table_of(struct tables *t, const struct row *r)
{
    switch (r->kind) {
    case ROW_MESSAGE: return &t->message;
    case ROW_STAGING: return &t->staging;
    case ROW_RECIPIENT: return &t->recipient;
    case ROW_RECORD: break;
    }
    return &t->record;
}

static void insert(struct tables *t, struct row *r)
{
    sim_tree_add(table_of(t, r), &r->node);
    if (r->kind != ROW_RECIPIENT)
        return;
    sim_tree_add(&t->due, &r->due);
    count(t, r, 1);
}

static void take_out(struct tables *t, struct row *r)
{
    sim_tree_remove(table_of(t, r), &r->node);
    if (r->kind != ROW_RECIPIENT)
        return;
    sim_tree_remove(&t->due, &r->due);
    count(t, r, -1);
}

/* ---- looking up ------------------------------------------------------------------------------- */

struct row *sim_find_by_id(const struct sim_tree *t, const struct msgid *id)
{
    struct row key = { .id = *id };
    return row_of(sim_tree_find(t, &key.node));
}

struct row *sim_find_recipient(const struct tables *t, const struct msgid *id, uint32_t n)
{
    struct row key = { .id = *id, .r.n = n };
    return row_of(sim_tree_find(&t->recipient, &key.node));
}

struct row *sim_find_record(const struct tables *t, struct str name)
{
    struct row key = { .name = name };
    return row_of(sim_tree_find(&t->record, &key.node));
}

struct queue_row *sim_find_queue(const struct tables *t, struct str name)
{
    struct queue_row key = { .name = name };
    struct sim_node *n = sim_tree_find(&t->queue, &key.node);
    return n ? CONTAINER_OF(n, struct queue_row, node) : NULL;
}

static bool has_recipients(const struct tables *t, const struct msgid *id)
{
    struct row key = { .id = *id };
    struct row *first = sim_find_recipient(t, id, 0);
    if (!first)
        first = row_of(sim_tree_after(&t->recipient, &key.node));
    return first && msgid_cmp(&first->id, id) == 0;
}

/* ---- changes ---------------------------------------------------------------------------------- */

struct unit {
    struct tables *tables;
    struct list undo; /* the newest first */
};

static void put(struct unit *u, struct row *r)
{
    insert(u->tables, r);
    r->added = true;
    list_unshift(&u->undo, &r->undo);
}

static void drop(struct unit *u, struct row *r)
{
    take_out(u->tables, r);
    if (r->added) { /* by this same unit: it was never there */
        list_remove(&r->undo);
        row_free(r);
        return;
    }
    list_unshift(&u->undo, &r->undo);
}

static int update_envelope(struct unit *u, const struct spool_change *c)
{
    struct row *old = sim_find_by_id(&u->tables->message, &c->id);
    if (!old)
        return -ENOENT;
    struct row *r = row_new(ROW_MESSAGE, &c->id, c->message.envelope);
    share_chunks(r, old);
    drop(u, old);
    put(u, r);
    return 0;
}

static int put_message(struct unit *u, const struct spool_change *c)
{
    const struct body *body = c->message.body;
    struct tables *t = u->tables;
    struct row *staged = body->staged ? sim_find_by_id(&t->staging, &c->id) : NULL;
    if (sim_find_by_id(&t->message, &c->id))
        return -EEXIST;
    struct row *r = row_new(ROW_MESSAGE, &c->id, c->message.envelope);
    for (const struct body_chunk *p = body->first; p; p = p->next) {
        add_chunk(r, blob_new(str_make(p->data, p->n)));
        if (p == body->first)
            share_chunks(r, staged);
    }
    if (r->n_chunks != body->n_chunks) {
        row_free(r);
        return -ENOENT; /* a piece was refused, or never staged */
    }
    if (staged)
        drop(u, staged);
    put(u, r);
    return 0;
}

static int stage(struct unit *u, const struct spool_change *c)
{
    struct tables *t = u->tables;
    struct row *old = sim_find_by_id(&t->staging, &c->id);
    if (!old && sim_find_by_id(&t->message, &c->id))
        return -EEXIST;
    if (c->stage.chunk != (old ? old->n_chunks : 0) + 1)
        return -ENOENT; /* the one before it was refused */
    struct row *r = row_new(ROW_STAGING, &c->id, STR(""));
    share_chunks(r, old);
    add_chunk(r, blob_new(c->stage.bytes));
    if (old)
        drop(u, old);
    put(u, r);
    return 0;
}

static int put_recipient(struct unit *u, const struct spool_change *c)
{
    struct tables *t = u->tables;
    if (!sim_find_by_id(&t->message, &c->id))
        return -ENOENT;
    struct row *old = sim_find_recipient(t, &c->id, c->recipient.n);
    struct row *r = row_new(ROW_RECIPIENT, &c->id, c->recipient.record);
    r->r = c->recipient;
    r->r.queue = copy(c->recipient.queue);
    r->r.record = r->text;
    if (old)
        drop(u, old);
    put(u, r);
    return 0;
}

static bool puts_recipient(const struct spool_op *op, size_t from, const struct msgid *id)
{
    for (size_t i = from; i < op->n_changes; i++)
        if (op->changes[i].type == SPOOL_PUT_RECIPIENT && msgid_cmp(&op->changes[i].id, id) == 0)
            return true;
    return false;
}

static int delete_recipient(struct unit *u, const struct spool_op *op, size_t i)
{
    const struct spool_change *c = &op->changes[i];
    struct row *r = sim_find_recipient(u->tables, &c->id, c->recipient.n);
    if (!r)
        return -ENOENT;
    drop(u, r);
    if (!has_recipients(u->tables, &c->id) && !puts_recipient(op, i + 1, &c->id))
        drop(u, sim_find_by_id(&u->tables->message, &c->id));
    return 0;
}

static int unstage(struct unit *u, const struct msgid *id)
{
    struct row *r = sim_find_by_id(&u->tables->staging, id);
    if (r)
        drop(u, r);
    return 0;
}

static int set_queue(struct unit *u, const struct spool_change *c)
{
    struct row *old = sim_find_record(u->tables, c->queue.name);
    if (old)
        drop(u, old);
    if (c->queue.record.n == 0)
        return 0;
    struct row *r = row_new(ROW_RECORD, NULL, c->queue.record);
    r->name = copy(c->queue.name);
    put(u, r);
    return 0;
}

static int apply_change(struct unit *u, const struct spool_op *op, size_t i)
{
    const struct spool_change *c = &op->changes[i];
    switch (c->type) {
    case SPOOL_PUT_MESSAGE: return c->message.body ? put_message(u, c) : update_envelope(u, c);
    case SPOOL_STAGE: return stage(u, c);
    case SPOOL_UNSTAGE: return unstage(u, &c->id);
    case SPOOL_PUT_RECIPIENT: return put_recipient(u, c);
    case SPOOL_DELETE_RECIPIENT: return delete_recipient(u, op, i);
    case SPOOL_SET_QUEUE: return set_queue(u, c);
    case SPOOL_KV_SET:
    case SPOOL_KV_ADD:
    case SPOOL_KV_DELETE: return sim_kv_apply(u->tables, c->type, &c->kv);
    }
    return -EINVAL;
}

int sim_apply_op(struct tables *t, const struct spool_op *op)
{
    struct unit u = { .tables = t };
    int rc = 0;
    list_init(&u.undo);
    for (size_t i = 0; i < op->n_changes && rc == 0; i++)
        rc = apply_change(&u, op, i);
    for (struct list *it; (it = list_pop(&u.undo));) {
        struct row *r = LIST_ENTRY(it, struct row, undo);
        bool keep = r->added == (rc == 0);
        if (rc < 0 && r->added)
            take_out(t, r);
        else if (rc < 0)
            insert(t, r);
        r->added = false;
        if (!keep)
            row_free(r);
    }
    return rc;
}

/* ---- what can be known beforehand ------------------------------------------------------------- */

static bool name_valid(struct str name)
{
    return name.n > 0 && name.n <= SPOOL_MAX_QUEUE_NAME && str_chr(name, '\0') < 0;
}

static bool change_valid(const struct spool_op *op, size_t i)
{
    const struct spool_change *c = &op->changes[i];
    switch (c->type) {
    case SPOOL_PUT_MESSAGE: return !c->message.body || puts_recipient(op, 0, &c->id);
    case SPOOL_STAGE: return c->stage.chunk > 0;
    case SPOOL_PUT_RECIPIENT:
        return name_valid(c->recipient.queue) && (unsigned)c->recipient.class_ < SPOOL_CLASSES;
    case SPOOL_SET_QUEUE: return name_valid(c->queue.name) && c->queue.record.n <= MAX_QUEUE_RECORD;
    case SPOOL_UNSTAGE:
    case SPOOL_DELETE_RECIPIENT: return true;
    case SPOOL_KV_SET:
    case SPOOL_KV_ADD:
    case SPOOL_KV_DELETE: return op->n_changes == 1 && spool_kv_valid(&c->kv);
    }
    return false;
}

int sim_apply_validate(const struct spool_op *op)
{
    for (size_t i = 0; i < op->n_changes; i++)
        if (!change_valid(op, i))
            return -EINVAL;
    return 0;
}

bool sim_apply_brings_mail(const struct spool_op *op)
{
    for (size_t i = 0; i < op->n_changes; i++) {
        const struct spool_change *c = &op->changes[i];
        if (c->type == SPOOL_STAGE || (c->type == SPOOL_PUT_MESSAGE && c->message.body) ||
            c->type == SPOOL_KV_SET || c->type == SPOOL_KV_ADD)
            return true;
    }
    return false;
}

/* ---- tables ----------------------------------------------------------------------------------- */

void sim_tables_init(struct tables *t)
{
    sim_tree_init(&t->message, cmp_id);
    sim_tree_init(&t->staging, cmp_id);
    sim_tree_init(&t->recipient, cmp_recipient);
    sim_tree_init(&t->record, cmp_record);
    sim_tree_init(&t->due, cmp_due);
    sim_tree_init(&t->queue, cmp_queue);
    sim_kv_init(t);
}

static void empty(struct tables *t, struct sim_tree *tree)
{
    while (tree->root) {
        struct row *r = row_of(tree->root);
        take_out(t, r);
        row_free(r);
    }
}

void sim_tables_done(struct tables *t)
{
    empty(t, &t->message);
    empty(t, &t->staging);
    empty(t, &t->recipient);
    empty(t, &t->record);
    sim_kv_done(t);
    CHECK(t->due.n == 0 && t->queue.n == 0);
}

void sim_tables_sweep_staging(struct tables *t)
{
    empty(t, &t->staging);
}
