/* port.c - a worker's port: reads, and how it hears of what is done.
 *
 * Layer: spool.
 *
 * Each read renews the port's read transaction, copies, and resets it: between reads nothing is
 * pinned. A value is copied out before anything else happens: there is no callback in between.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "spool/guard.h"
#include "spool/internal.h"
#include "spool/record.h"
#include "spool/walk.h"

enum { PREFETCH_ABOVE = 16 * 1024 };

static struct spool_port *port_of(struct port_spool *self)
{
    return CONTAINER_OF(self, struct spool_port, ops);
}

/* ---- completions ------------------------------------------------------------------------------ */

static void run_told(struct engine *e, struct worker_message *m)
{
    struct spool_port *p = CONTAINER_OF(m, struct spool_port, message);
    struct list done;

    list_init(&done);
    pthread_mutex_lock(&p->lock);
    list_join(&done, &p->told);
    p->posted = false;
    pthread_mutex_unlock(&p->lock);
    for (struct list *it; (it = list_pop(&done));) {
        struct spool_op *op = LIST_ENTRY(it, struct spool_op, link);
        op->done(op); /* may free it, and submit others */
    }
}

void port_tell(struct spool_port *p, struct list *done)
{
    pthread_mutex_lock(&p->lock);
    list_join(&p->told, done);
    bool post = !p->posted;
    p->posted = true;
    pthread_mutex_unlock(&p->lock);
    if (post)
        p->workers->post(p->workers, p->workers->self, &p->message);
}

/* ---- reads of one value ----------------------------------------------------------------------- */

/* What is read of a row, within the guard: the copy of it that stays. 0 or -errno. */
typedef int take_row(void *arg, struct str row);

struct look_up {
    struct reader *reader;
    enum store_table table;
    struct str key;
    take_row *take;
    void *arg;
};

static int look_up_guarded(void *arg)
{
    struct look_up *l = arg;
    struct str row;
    int e = store_error(reader_get(l->reader, l->table, l->key, &row));

    return e < 0 ? e : l->take(l->arg, row);
}

static int look_up(struct port_spool *self, enum store_table t, struct str key, take_row *take,
                   void *arg)
{
    struct look_up l = { &port_of(self)->reader, t, key, take, arg };
    int e = reader_begin(l.reader);

    if (e < 0)
        return e;
    e = guard_run(look_up_guarded, &l);
    reader_end(l.reader);
    return e;
}

static int copy_out(struct buf *ret, struct str s)
{
    buf_clear(ret);
    return buf_add_str(ret, s);
}

static int take_envelope(void *arg, struct str row)
{
    struct str envelope;
    uint32_t n_chunks;

    return message_row_take(row, &n_chunks, &envelope) ? copy_out(arg, envelope) : -EIO;
}

static int read_message(struct port_spool *self, const struct msgid *id, struct buf *ret_envelope)
{
    struct part_key key = message_key(id);

    return look_up(self, TABLE_MESSAGE, part_key_str(&key), take_envelope, ret_envelope);
}

/* The kernel was told not to read ahead: a piece comes with one request, not one per page. */
static void prefetch(struct str s)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)s.p & ~(page - 1);

    if (s.n > PREFETCH_ABOVE)
        madvise((void *)from, (uintptr_t)s.p + s.n - from, MADV_WILLNEED);
}

static int take_chunk(void *arg, struct str row)
{
    prefetch(row);
    return copy_out(arg, row);
}

static int read_chunk(struct port_spool *self, const struct msgid *id, uint32_t chunk,
                      struct buf *ret)
{
    struct part_key key = piece_key(id, chunk);

    return look_up(self, TABLE_MESSAGE, part_key_str(&key), take_chunk, ret);
}

static void fill_entry(struct spool_entry *ret, const struct msgid *id, uint32_t n,
                       const struct spool_recipient *row)
{
    ret->id = *id;
    ret->n = n;
    ret->class_ = row->class_;
    ret->due_ms = row->due_ms;
    ret->size = row->size;
    str_copy(row->queue, ret->queue, sizeof(ret->queue));
}

struct recipient_read {
    const struct msgid *id;
    uint32_t n;
    struct spool_entry *entry;
    struct buf *record;
};

static int take_recipient(void *arg, struct str row)
{
    struct recipient_read *read = arg;
    struct spool_recipient recipient;

    if (!recipient_row_take(row, &recipient))
        return -EBADMSG;
    fill_entry(read->entry, read->id, read->n, &recipient);
    return copy_out(read->record, recipient.record);
}

static int read_recipient(struct port_spool *self, const struct msgid *id, uint32_t n,
                          struct spool_entry *ret, struct buf *ret_record)
{
    struct part_key key = recipient_key(id, n);
    struct recipient_read read = { id, n, ret, ret_record };

    return look_up(self, TABLE_MESSAGE, part_key_str(&key), take_recipient, &read);
}

struct queue_read {
    struct str name;
    struct spool_queue *ret;
};

static int take_queue(void *arg, struct str row)
{
    struct queue_read *read = arg;

    return walk_fill_queue(read->ret, read->name, row) ? 0 : -EIO;
}

static int read_queue(struct port_spool *self, struct str name, struct spool_queue *ret)
{
    struct queue_read read = { name, ret };

    return queue_name_valid(name) ? look_up(self, TABLE_DUE, name, take_queue, &read) : -ENOENT;
}

/* ---- scans ------------------------------------------------------------------------------------ */

/* Fills slot `i` from one entry: 1 filled, 0 the scan ends here, PASSED_OVER, -errno. */
enum { PASSED_OVER = 2 };
typedef int scan_fill(void *arg, size_t i, struct str key, struct str value);

struct scan {
    struct reader *reader;
    enum store_table table;
    struct str from;
    bool skip_equal;
    scan_fill *fill;
    void *arg;
    size_t max;
};

static int scan_guarded(void *arg)
{
    struct scan *s = arg;
    MDB_cursor *cursor;
    MDB_val k = store_val(s->from), v;
    size_t n = 0;
    int filled = 1;
    int rc = s->max ? reader_cursor(s->reader, s->table, &cursor) : MDB_NOTFOUND;

    if (rc == 0)
        rc = mdb_cursor_get(cursor, &k, &v, s->from.n ? MDB_SET_RANGE : MDB_FIRST);
    if (rc == 0 && s->skip_equal && str_eq(store_str(k), s->from))
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    while (rc == 0) {
        filled = s->fill(s->arg, n, store_str(k), store_str(v));
        n += filled == 1;
        if (filled <= 0 || n == s->max || n == INT32_MAX)
            break;
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    if (filled < 0)
        return filled;
    return rc && rc != MDB_NOTFOUND ? store_error(rc) : (int)n;
}

/* From the first key that is not smaller than `from` (empty: the first of all), and without the one
 * that is equal to it when skip_equal. Returns how many slots were filled, or -errno. */
static int scan(struct reader *r, enum store_table t, struct str from, bool skip_equal,
                scan_fill *fill, void *arg, size_t max)
{
    struct scan s = { r, t, from, skip_equal, fill, arg, max };
    int e = reader_begin(r);

    if (e < 0)
        return e;
    e = guard_run(scan_guarded, &s);
    reader_end(r);
    return e;
}

struct due_scan {
    struct due_key first;
    int64_t until_ms;
    struct spool_due *ret;
};

static int fill_due(void *arg, size_t i, struct str key, struct str value)
{
    struct due_scan *d = arg;
    struct str prefix = str_first(due_key_str(&d->first), due_key_prefix(&d->first));
    struct spool_due due;
    struct str queue;
    enum spool_class c;

    if (!str_starts(key, prefix))
        return 0;
    if (!due_key_take(key, &queue, &c, &due))
        return -EIO;
    if (due.due_ms > d->until_ms)
        return 0;
    d->ret[i] = due;
    return 1;
}

static int scan_due(struct port_spool *self, struct str queue, enum spool_class c,
                    const struct spool_due *after, int64_t until_ms, struct spool_due *ret,
                    size_t max)
{
    struct due_scan d = { .until_ms = until_ms, .ret = ret };
    struct spool_due start = { .due_ms = INT64_MIN };

    if (!queue_name_valid(queue))
        return 0;
    due_key_make(&d.first, queue, c, after ? after : &start);
    return scan(&port_of(self)->reader, TABLE_DUE, due_key_str(&d.first), after, fill_due, &d, max);
}

static int fill_scanned_entry(void *arg, size_t i, struct str key, struct str value)
{
    struct spool_entry *ret = arg;
    struct spool_recipient row;
    enum spool_part part;
    struct msgid id;
    uint32_t n;

    /* Of what cannot be read "tern spool check" tells; it must not hide what stands behind it. */
    if (!part_key_take(key, &id, &part, &n) || part != PART_RECIPIENT ||
        !recipient_row_take(value, &row))
        return PASSED_OVER;
    fill_entry(&ret[i], &id, n, &row);
    return 1;
}

static int scan_entries(struct port_spool *self, const struct msgid *after_id, uint32_t after_n,
                        struct spool_entry *ret, size_t max)
{
    struct part_key key;
    struct str from = STR_NONE;

    if (after_id) {
        key = recipient_key(after_id, after_n);
        from = part_key_str(&key);
    }
    return scan(&port_of(self)->reader, TABLE_MESSAGE, from, true, fill_scanned_entry, ret, max);
}

static int scan_queues(struct port_spool *self, struct str after, struct spool_queue *ret,
                       size_t max)
{
    return walk_queues(&port_of(self)->reader, after, ret, max);
}

/* ---- what policies remember ------------------------------------------------------------------- */

struct remembered_read {
    int64_t *expires_ms;
    struct buf *value;
};

static int take_remembered(void *arg, struct str row)
{
    struct remembered_read *read = arg;
    struct str value;

    return kv_row_take(row, read->expires_ms, &value) ? copy_out(read->value, value) : -EIO;
}

static int kv_read(struct port_spool *self, struct str name, struct str key, int64_t *ret_expires,
                   struct buf *ret_value)
{
    struct remembered_read read = { ret_expires, ret_value };
    struct kv_key k;

    if (!spool_kv_valid(&(struct spool_kv_change){ .name = name, .key = key, .max = 1 }))
        return -ENOENT;
    kv_key_make(&k, name, key);
    return look_up(self, TABLE_KV, kv_key_str(&k), take_remembered, &read);
}

enum { KV_SCAN_BYTES = 64 * 1024 };

struct kv_scan {
    struct str prefix; /* of the whole key */
    struct buf *ret;
};

static int fill_kv(void *arg, size_t i, struct str key, struct str value)
{
    struct kv_scan *scan = arg;
    struct str name, k, v;
    struct spool_kv_entry head;

    if (!str_starts(key, scan->prefix) || (i > 0 && buf_len(scan->ret) > KV_SCAN_BYTES))
        return 0;
    if (!kv_key_take(key, &name, &k) || !kv_row_take(value, &head.expires_ms, &v))
        return -EIO;
    head.key_n = (uint32_t)k.n;
    head.value_n = (uint32_t)v.n;
    buf_add(scan->ret, &head, sizeof(head));
    buf_add_str(scan->ret, k);
    buf_add_str(scan->ret, v);
    return scan->ret->failed ? -ENOMEM : 1;
}

static int kv_scan(struct port_spool *self, struct str name, struct str prefix, struct str after,
                   struct buf *ret, size_t max)
{
    struct kv_key first, from;
    struct kv_scan scan_kv = { .ret = ret };

    buf_clear(ret);
    if (name.n < 1 || name.n > SPOOL_KV_MAX_NAME || prefix.n > SPOOL_KV_MAX_KEY)
        return 0;
    after = str_first(after, SPOOL_KV_MAX_KEY);
    kv_key_make(&first, name, prefix);
    bool behind = after.n > 0 && str_cmp(after, prefix) >= 0;
    kv_key_make(&from, name, behind ? after : prefix);
    scan_kv.prefix = kv_key_str(&first);
    return scan(&port_of(self)->reader, TABLE_KV, kv_key_str(&from), behind, fill_kv, &scan_kv,
                max);
}

/* ---- life ------------------------------------------------------------------------------------- */

static const struct port_spool port_ops = {
    .submit = writer_submit,
    .read_message = read_message,
    .read_chunk = read_chunk,
    .read_recipient = read_recipient,
    .scan_due = scan_due,
    .scan_entries = scan_entries,
    .scan_queues = scan_queues,
    .read_queue = read_queue,
    .kv_read = kv_read,
    .kv_scan = kv_scan,
};

struct port_spool *spool_port(struct spool *s, struct port_workers *w)
{
    struct spool_port *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->ops = port_ops;
    p->spool = s;
    p->workers = w;
    p->message.run = run_told;
    list_init(&p->finished);
    list_init(&p->told);
    pthread_mutex_init(&p->lock, NULL);
    reader_init(&p->reader, &s->store);

    pthread_mutex_lock(&s->queue_lock);
    bool fits = s->n_ports < SPOOL_MAX_PORTS;
    if (fits) {
        p->number = s->n_ports;
        s->port[s->n_ports++] = p;
    }
    pthread_mutex_unlock(&s->queue_lock);
    if (!fits) {
        port_free(p);
        return NULL;
    }
    return &p->ops;
}

void port_free(struct spool_port *p)
{
    reader_done(&p->reader);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
