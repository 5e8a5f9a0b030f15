/* apply.c - the changes of units, done inside one write transaction.
 *
 * Layer: spool. Interface: apply.h.
 *
 * The cost of a change is that of finding its page, so each table's cursor is kept through the
 * transaction: LMDB first looks whether the key lies in the cursor's page. Whatever is read points
 * into a page that the next write may move: what is needed later is copied first (into a due_key).
 */
#include "spool/apply.h"

#include "spool/kv.h"

void apply_init(struct apply *a, struct store *st)
{
    *a = (struct apply){ .store = st };
    counts_init(&a->counts);
}

void apply_done(struct apply *a)
{
    counts_done(&a->counts);
}

/* ---- what can be known beforehand ------------------------------------------------------------- */

static bool puts_recipient(const struct spool_op *op, size_t from, const struct msgid *id)
{
    for (size_t i = from; i < op->n_changes; i++)
        if (op->changes[i].type == SPOOL_PUT_RECIPIENT && msgid_cmp(&op->changes[i].id, id) == 0)
            return true;
    return false;
}

static bool change_valid(const struct spool_op *op, size_t i)
{
    const struct spool_change *c = &op->changes[i];

    switch (c->type) {
    case SPOOL_PUT_MESSAGE: return !c->message.body || puts_recipient(op, 0, &c->id);
    case SPOOL_STAGE: return c->stage.chunk > 0;
    case SPOOL_PUT_RECIPIENT:
        return queue_name_valid(c->recipient.queue) &&
               (unsigned)c->recipient.class_ < SPOOL_CLASSES;
    case SPOOL_SET_QUEUE:
        return queue_name_valid(c->queue.name) && c->queue.record.n <= SPOOL_MAX_QUEUE_RECORD;
    case SPOOL_UNSTAGE:
    case SPOOL_DELETE_RECIPIENT: return true;
    case SPOOL_KV_SET:
    case SPOOL_KV_ADD:
    case SPOOL_KV_DELETE: return op->n_changes == 1 && spool_kv_valid(&c->kv);
    }
    return false;
}

int apply_validate(const struct spool_op *op)
{
    for (size_t i = 0; i < op->n_changes; i++)
        if (!change_valid(op, i))
            return -EINVAL;
    return 0;
}

bool apply_brings_mail(const struct spool_op *op)
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

int apply_cursor(struct apply *a, enum store_table t, MDB_cursor **ret)
{
    if (!a->cursor[t]) {
        int rc = mdb_cursor_open(a->txn, a->store->table[t], &a->cursor[t]);
        if (rc)
            return rc;
    }
    *ret = a->cursor[t];
    return 0;
}

int apply_get(struct apply *a, enum store_table t, struct str key, struct str *ret)
{
    MDB_cursor *cursor;
    MDB_val k = store_val(key), v;
    int rc = apply_cursor(a, t, &cursor);

    if (rc == 0)
        rc = mdb_cursor_get(cursor, &k, &v, MDB_SET);
    if (rc == 0 && ret)
        *ret = store_str(v);
    return rc;
}

int apply_delete_found(struct apply *a, enum store_table t)
{
    a->changed = true;
    return mdb_cursor_del(a->cursor[t], 0);
}

int apply_reserve(struct apply *a, enum store_table t, struct str key, size_t n, unsigned flags,
                  MDB_val *ret)
{
    MDB_cursor *cursor;
    MDB_val k = store_val(key);
    int rc = apply_cursor(a, t, &cursor);

    *ret = (MDB_val){ .mv_size = n };
    if (rc == 0)
        rc = mdb_cursor_put(cursor, &k, ret, flags | MDB_RESERVE);
    if (rc == 0) {
        a->changed = true;
        a->bytes += n;
    }
    return rc;
}

/* A new row of the table of messages: appended when its key is the greatest so far. */
static int reserve_part(struct apply *a, const struct part_key *key, size_t n, MDB_val *ret)
{
    struct str k = part_key_str(key);
    bool append = str_cmp(k, part_key_str(&a->last)) > 0;
    int rc =
        apply_reserve(a, TABLE_MESSAGE, k, n, MDB_NOOVERWRITE | (append ? MDB_APPEND : 0), ret);

    if (append && rc == MDB_KEYEXIST) { /* an earlier process knew a greater one */
        MDB_val last, v;
        rc = mdb_cursor_get(a->cursor[TABLE_MESSAGE], &last, &v, MDB_LAST);
        if (rc)
            return rc;
        a->last.n = MIN(last.mv_size, sizeof(a->last.b));
        memcpy(a->last.b, last.mv_data, a->last.n);
        return apply_reserve(a, TABLE_MESSAGE, k, n, MDB_NOOVERWRITE, ret);
    }
    if (append && rc == 0)
        a->last = *key;
    return rc;
}

static int get_part(struct apply *a, struct part_key key, struct str *ret)
{
    return apply_get(a, TABLE_MESSAGE, part_key_str(&key), ret);
}

static struct str id_key(const struct msgid *id)
{
    return str_make(id->b, sizeof(id->b));
}

/* ---- bodies ----------------------------------------------------------------------------------- */

/* -EEXIST: that piece is there. */
static int put_chunk(struct apply *a, const struct msgid *id, uint32_t chunk, struct str bytes)
{
    struct part_key key = piece_key(id, chunk);
    MDB_val v;
    int rc = reserve_part(a, &key, bytes.n, &v);

    if (rc)
        return rc == MDB_KEYEXIST ? -EEXIST : rc;
    if (bytes.n)
        memcpy(v.mv_data, bytes.p, bytes.n);
    a->total[SPOOL_ROW_PIECE]++;
    return 0;
}

/* Pieces that are there: a count that is damaged may say four billions. */
static int drop_chunks(struct apply *a, const struct msgid *id, uint32_t from, uint32_t end)
{
    struct part_key key = piece_key(id, from);
    MDB_val k = store_val(part_key_str(&key)), v;
    enum spool_part part;
    struct msgid of;
    uint32_t chunk;
    MDB_cursor *cursor;
    int rc = apply_cursor(a, TABLE_MESSAGE, &cursor);

    for (uint32_t left = end > from ? end - from : 0; rc == 0 && left > 0; left--) {
        rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
        if (rc || !part_key_take(store_str(k), &of, &part, &chunk) || msgid_cmp(&of, id) != 0 ||
            part != PART_PIECE || chunk >= end)
            break;
        rc = apply_delete_found(a, TABLE_MESSAGE);
        a->total[SPOOL_ROW_PIECE]--;
        a->drops++;
        k = store_val(part_key_str(&key)); /* all before this one has gone */
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* How many pieces of the message are staged: 0 without a row. */
static int staged_count(struct apply *a, const struct msgid *id, uint32_t *ret)
{
    struct str row;
    int rc = apply_get(a, TABLE_STAGING, id_key(id), &row);

    if (rc == 0 && row.n != 4)
        return MDB_CORRUPTED;
    if (rc == 0)
        *ret = get_be32(row.p);
    else if (rc == MDB_NOTFOUND)
        *ret = 0;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int stage(struct apply *a, const struct spool_change *c)
{
    uint32_t n;
    MDB_val v;
    int rc = staged_count(a, &c->id, &n);

    if (rc)
        return rc;
    if (n == 0) {
        rc = get_part(a, message_key(&c->id), NULL);
        if (rc != MDB_NOTFOUND)
            return rc ? rc : -EEXIST;
    }
    if (c->stage.chunk != n + 1)
        return -ENOENT; /* the one before it was refused */
    rc = put_chunk(a, &c->id, c->stage.chunk, c->stage.bytes);
    if (rc == 0)
        rc = apply_reserve(a, TABLE_STAGING, id_key(&c->id), 4, 0, &v);
    if (rc == 0)
        put_be32(v.mv_data, n + 1);
    return rc;
}

static int unstage(struct apply *a, const struct msgid *id)
{
    uint32_t n;
    int rc = staged_count(a, id, &n);

    if (rc || n == 0)
        return rc;
    rc = apply_delete_found(a, TABLE_STAGING);
    return rc ? rc : drop_chunks(a, id, 1, n + 1);
}

/* ---- messages --------------------------------------------------------------------------------- */

static int update_envelope(struct apply *a, const struct spool_change *c)
{
    struct str row, old;
    uint32_t n_chunks;
    MDB_val v;
    struct part_key key = message_key(&c->id);
    int rc = get_part(a, key, &row);

    if (rc)
        return rc == MDB_NOTFOUND ? -ENOENT : rc;
    if (!message_row_take(row, &n_chunks, &old))
        return MDB_CORRUPTED;
    rc = apply_reserve(a, TABLE_MESSAGE, part_key_str(&key), message_row_size(c->message.envelope),
                       0, &v);
    if (rc == 0)
        message_row_make(n_chunks, c->message.envelope, v.mv_data);
    return rc;
}

/* The first piece, the staged ones, then what else is in memory. */
static int put_pieces(struct apply *a, const struct spool_change *c, uint32_t staged)
{
    uint32_t chunk = 0;
    int rc = 0;

    for (const struct body_chunk *p = c->message.body->first; p && rc == 0; p = p->next) {
        rc = put_chunk(a, &c->id, chunk, str_make(p->data, p->n));
        chunk += chunk == 0 ? 1 + staged : 1;
    }
    return rc;
}

static uint32_t pieces_in_memory(const struct body *b)
{
    uint32_t n = 0;

    for (const struct body_chunk *p = b->first; p; p = p->next)
        n++;
    return n;
}

static int put_message(struct apply *a, const struct spool_change *c)
{
    const struct body *body = c->message.body;
    struct part_key key = message_key(&c->id);
    uint32_t staged = 0;
    MDB_val v;
    int rc = body->staged ? staged_count(a, &c->id, &staged) : 0;

    if (rc)
        return rc;
    if (pieces_in_memory(body) + staged != body->n_chunks)
        return -ENOENT; /* a piece was refused, or never staged */
    rc = reserve_part(a, &key, message_row_size(c->message.envelope), &v);
    if (rc)
        return rc == MDB_KEYEXIST ? -EEXIST : rc;
    a->total[SPOOL_ROW_MESSAGE]++;
    message_row_make(body->n_chunks, c->message.envelope, v.mv_data);
    rc = put_pieces(a, c, staged);
    if (rc == 0 && staged)
        rc = apply_delete_found(a, TABLE_STAGING);
    a->known = c->id;
    a->known_is_there = rc == 0;
    return rc;
}

static int delete_message(struct apply *a, const struct msgid *id)
{
    struct str row, envelope;
    uint32_t n_chunks;
    int rc = get_part(a, message_key(id), &row);

    if (rc || !message_row_take(row, &n_chunks, &envelope))
        return rc && rc != MDB_NOTFOUND ? rc : MDB_CORRUPTED;
    rc = apply_delete_found(a, TABLE_MESSAGE);
    a->total[SPOOL_ROW_MESSAGE]--;
    return rc ? rc : drop_chunks(a, id, 0, n_chunks);
}

/* ---- recipients ------------------------------------------------------------------------------- */

static int count(struct apply *a, struct str queue, enum spool_class c, int delta, uint64_t size)
{
    struct count_entry *e = counts_of(&a->counts, queue);

    if (!e)
        return ENOMEM;
    e->delta[c] += delta;
    if (c == SPOOL_WAITING)
        e->octets += delta * (int64_t)size;
    return 0;
}

int apply_put_due(struct apply *a, const struct due_key *k, enum spool_class c, uint64_t size)
{
    MDB_val v;
    int rc = apply_reserve(a, TABLE_DUE, due_key_str(k), 0, 0, &v);

    return rc ? rc : count(a, due_key_queue(k), c, 1, size);
}

/* An entry that is missing is no reason to keep what was delivered: it would be delivered again. spool_check tells. */
static int drop_due(struct apply *a, const struct due_key *k, enum spool_class c, uint64_t size)
{
    int rc = apply_get(a, TABLE_DUE, due_key_str(k), NULL);

    if (rc)
        return rc == MDB_NOTFOUND ? 0 : rc;
    rc = apply_delete_found(a, TABLE_DUE);
    return rc ? rc : count(a, due_key_queue(k), c, -1, size);
}

/* The due entry that belongs to a recipient's row. */
static bool due_of_row(struct str row, const struct msgid *id, uint32_t n, struct due_key *ret_key,
                       enum spool_class *ret_class, uint64_t *ret_size)
{
    struct spool_recipient r;

    if (!recipient_row_take(row, &r))
        return false;
    due_key_make(ret_key, r.queue, r.class_, &(struct spool_due){ *id, n, r.due_ms });
    *ret_class = r.class_;
    *ret_size = r.size;
    return true;
}

static int message_is_there(struct apply *a, const struct msgid *id)
{
    if (a->known_is_there && msgid_cmp(&a->known, id) == 0)
        return 0;

    int rc = get_part(a, message_key(id), NULL);
    if (rc)
        return rc == MDB_NOTFOUND ? -ENOENT : rc;
    a->known = *id;
    a->known_is_there = true;
    return 0;
}

static int replace_recipient(struct apply *a, const struct spool_change *c, struct str old_row,
                             const struct due_key *due)
{
    const struct spool_recipient *r = &c->recipient;
    struct part_key key = recipient_key(&c->id, r->n);
    struct due_key old;
    enum spool_class old_class;
    uint64_t old_size;
    MDB_val v;

    if (!due_of_row(old_row, &c->id, r->n, &old, &old_class, &old_size))
        return MDB_CORRUPTED;
    int rc = apply_reserve(a, TABLE_MESSAGE, part_key_str(&key), recipient_row_size(r), 0, &v);
    if (rc)
        return rc;
    recipient_row_make(r, v.mv_data);
    if (str_eq(due_key_str(&old), due_key_str(due)) && old_size == r->size)
        return 0; /* the index tells class, queue and time */
    rc = drop_due(a, &old, old_class, old_size);
    return rc ? rc : apply_put_due(a, due, r->class_, r->size);
}

static int put_recipient(struct apply *a, const struct spool_change *c)
{
    const struct spool_recipient *r = &c->recipient;
    struct part_key key = recipient_key(&c->id, r->n);
    struct due_key due;
    MDB_val v;
    int rc = message_is_there(a, &c->id);

    if (rc)
        return rc;
    due_key_make(&due, r->queue, r->class_, &(struct spool_due){ c->id, r->n, r->due_ms });
    rc = reserve_part(a, &key, recipient_row_size(r), &v);
    if (rc == MDB_KEYEXIST)
        return replace_recipient(a, c, store_str(v), &due);
    if (rc)
        return rc;
    a->total[SPOOL_ROW_RECIPIENT]++;
    recipient_row_make(r, v.mv_data);
    return apply_put_due(a, &due, r->class_, r->size);
}

static int has_recipients(struct apply *a, const struct msgid *id, bool *ret)
{
    struct part_key key = recipient_key(id, 0);
    MDB_val k = store_val(part_key_str(&key)), v;
    int rc = mdb_cursor_get(a->cursor[TABLE_MESSAGE], &k, &v, MDB_SET_RANGE);

    *ret = rc == 0 && str_starts(store_str(k), str_first(part_key_str(&key), SPOOL_ID_KEY + 1));
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int delete_recipient(struct apply *a, const struct spool_op *op, size_t i)
{
    const struct spool_change *c = &op->changes[i];
    struct due_key due;
    enum spool_class class_;
    uint64_t size;
    struct str row;
    bool more;
    int rc = get_part(a, recipient_key(&c->id, c->recipient.n), &row);

    if (rc)
        return rc == MDB_NOTFOUND ? -ENOENT : rc;
    if (!due_of_row(row, &c->id, c->recipient.n, &due, &class_, &size))
        return MDB_CORRUPTED;
    rc = apply_delete_found(a, TABLE_MESSAGE);
    a->total[SPOOL_ROW_RECIPIENT]--;
    if (rc == 0)
        rc = drop_due(a, &due, class_, size);
    if (rc == 0)
        rc = has_recipients(a, &c->id, &more);
    if (rc || more || puts_recipient(op, i + 1, &c->id))
        return rc;
    a->known_is_there = false;
    return delete_message(a, &c->id);
}

/* ---- units and transactions ------------------------------------------------------------------- */

static int set_queue(struct apply *a, const struct spool_change *c)
{
    struct count_entry *e = counts_of(&a->counts, c->queue.name);

    if (!e)
        return ENOMEM;
    e->set = true;
    e->record = c->queue.record;
    a->changed = true;
    return 0;
}

static int apply_change(struct apply *a, const struct spool_op *op, size_t i)
{
    const struct spool_change *c = &op->changes[i];

    switch (c->type) {
    case SPOOL_PUT_MESSAGE: return c->message.body ? put_message(a, c) : update_envelope(a, c);
    case SPOOL_STAGE: return stage(a, c);
    case SPOOL_UNSTAGE: return unstage(a, &c->id);
    case SPOOL_PUT_RECIPIENT: return put_recipient(a, c);
    case SPOOL_DELETE_RECIPIENT: return delete_recipient(a, op, i);
    case SPOOL_SET_QUEUE: return set_queue(a, c);
    case SPOOL_KV_SET:
    case SPOOL_KV_ADD:
    case SPOOL_KV_DELETE: return apply_kv(a, c->type, &c->kv);
    }
    return -EINVAL;
}

int apply_op(struct apply *a, const struct spool_op *op)
{
    int rc = 0;

    a->changed = false;
    a->known_is_there = false;
    for (size_t i = 0; i < op->n_changes && rc == 0; i++)
        rc = apply_change(a, op, i);
    if (rc == MDB_CORRUPTED) {
        /* What is damaged fails the unit that touches it, not the others of the group. LMDB may have given
         * the transaction up. */
        a->changed = true;
        return -EIO;
    }
    return rc;
}

void apply_begin(struct apply *a, MDB_txn *txn)
{
    memset(a->cursor, 0, sizeof(a->cursor)); /* LMDB has closed those of the last transaction */
    counts_clear(&a->counts);
    a->txn = txn;
    a->bytes = a->drops = 0;
    memset(a->total, 0, sizeof(a->total));
}

void apply_abort(struct apply *a)
{
    mdb_txn_abort(a->txn);
    a->txn = NULL;
}

static int do_step(struct apply *a, apply_step *step, void *arg, bool *ret_more)
{
    MDB_txn *txn;
    int rc = store_write(a->store, &txn);

    if (rc)
        return rc;
    apply_begin(a, txn);
    rc = step(a, arg, ret_more);
    if (rc == 0)
        return apply_commit(a);
    apply_abort(a);
    return rc;
}

int apply_steps(struct apply *a, apply_step *step, void *arg)
{
    bool more = true;
    int rc = 0;

    while (more && rc == 0) {
        rc = do_step(a, step, arg, &more);
        if (rc == MDB_MAP_FULL && store_grow(a->store, true)) {
            more = true;
            rc = 0;
        }
    }
    return rc;
}

static uint64_t sum(uint64_t n, int64_t delta)
{
    return delta < 0 && (uint64_t)-delta > n ? 0 : n + (uint64_t)delta;
}

/* A row that cannot be read: its counts are made anew, as they were before this transaction; that of one queue
 * must not be the end of all others'. What the octets were nobody knows without reading each recipient. */
static int recount(struct apply *a, struct str name, const struct count_entry *e, struct str row,
                   struct queue_row *ret)
{
    char from[SPOOL_MAX_QUEUE_NAME + 1];
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(a->txn, a->store->table[TABLE_DUE], &cursor);

    if (rc)
        return rc;
    *ret = (struct queue_row){ .record = queue_row_record(row) };
    memcpy(from, name.p, name.n);
    from[name.n] = '\0';
    MDB_val k = store_val(str_make(from, name.n + 1)), v;
    for (rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
         rc == 0 && str_starts(store_str(k), str_make(from, name.n + 1));
         rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
        struct spool_due due;
        enum spool_class c;
        struct str queue;
        if (due_key_take(store_str(k), &queue, &c, &due))
            ret->count[c]++;
    }
    mdb_cursor_close(cursor);
    for (int c = 0; c < SPOOL_CLASSES; c++) /* which are added again by who asked */
        ret->count[c] = sum(ret->count[c], -e->delta[c]);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int write_counts(struct apply *a, const struct count_entry *e)
{
    struct str name = counts_name(&a->counts, e), row;
    struct queue_row q = { 0 };
    char record[SPOOL_MAX_QUEUE_RECORD];
    MDB_val v;

    if (!e->set && !e->delta[SPOOL_SCHEDULED] && !e->delta[SPOOL_WAITING] &&
        !e->delta[SPOOL_HELD] && !e->octets)
        return 0;
    int rc = apply_get(a, TABLE_DUE, name, &row);
    bool there = rc == 0;
    if (rc && rc != MDB_NOTFOUND)
        return rc;
    if (there && !queue_row_take(row, &q)) {
        rc = recount(a, name, e, row, &q);
        if (rc)
            return rc;
    }
    for (int c = 0; c < SPOOL_CLASSES; c++)
        q.count[c] = sum(q.count[c], e->delta[c]);
    q.octets = sum(q.octets, e->octets);
    if (e->set) {
        q.record = e->record;
    } else if (q.record.n) { /* the row itself is about to be written */
        memcpy(record, q.record.p, q.record.n);
        q.record.p = record;
    }
    if (queue_row_empty(&q)) {
        a->total[SPOOL_ROW_QUEUE] -= there;
        return there ? apply_delete_found(a, TABLE_DUE) : 0;
    }
    a->total[SPOOL_ROW_QUEUE] += !there;
    rc = apply_reserve(a, TABLE_DUE, name, queue_row_size(&q), 0, &v);
    if (rc == 0)
        queue_row_make(&q, v.mv_data);
    return rc;
}

int apply_set_totals(struct apply *a, const uint64_t totals[SPOOL_TOTALS])
{
    uint8_t row[SPOOL_TOTALS_ROW];
    MDB_val k = store_val(store_totals_key), v = { sizeof(row), row };

    memset(a->total, 0, sizeof(a->total));
    totals_row_make(totals, row);
    return mdb_put(a->txn, a->store->roots, &k, &v, 0);
}

/* A row that cannot be read counts from 0 again: spool_check tells of it. */
static int write_totals(struct apply *a)
{
    uint64_t totals[SPOOL_TOTALS] = { 0 };
    MDB_val k = store_val(store_totals_key), v;
    bool any = false;

    for (size_t i = 0; i < SPOOL_TOTALS; i++)
        any |= a->total[i] != 0;
    if (!any)
        return 0;
    int rc = mdb_get(a->txn, a->store->roots, &k, &v);
    if (rc && rc != MDB_NOTFOUND)
        return rc;
    if (rc == 0)
        totals_row_take(store_str(v), totals);
    for (size_t i = 0; i < SPOOL_TOTALS; i++)
        totals[i] = sum(totals[i], a->total[i]);
    return apply_set_totals(a, totals);
}

int apply_commit(struct apply *a)
{
    int rc = 0;

    for (size_t i = 0; i < a->counts.n && rc == 0; i++)
        rc = write_counts(a, &a->counts.entry[i]);
    if (rc == 0)
        rc = write_totals(a);
    if (rc) {
        apply_abort(a);
        return rc;
    }
    MDB_txn *txn = TAKE(a->txn);
    return mdb_txn_commit(txn);
}

int apply_sweep(struct apply *a, uint64_t max, bool *ret_more)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    int rc = apply_cursor(a, TABLE_STAGING, &cursor);

    while (rc == 0 && a->drops < max) {
        struct msgid id;
        rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST);
        if (rc == MDB_NOTFOUND)
            break;
        if (rc == 0 && k.mv_size != sizeof(id.b))
            return MDB_CORRUPTED;
        if (rc == 0) {
            memcpy(id.b, k.mv_data, sizeof(id.b));
            rc = unstage(a, &id);
        }
    }
    *ret_more = rc == 0;
    return rc == MDB_NOTFOUND ? 0 : rc;
}
