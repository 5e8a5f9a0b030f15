/* walk.c - see walk.h. Layer: spool. */
#include "spool/walk.h"

#include "spool/guard.h"
#include "spool/record.h"

enum { LONGEST_KEY = 511 }; /* LMDB's */

/* Where the next slice begins: behind this key. */
struct place {
    bool begun;
    size_t n;
    char b[LONGEST_KEY];
};

static int first_behind(MDB_cursor *cursor, const struct place *at, MDB_val *k, MDB_val *v)
{
    if (!at->begun)
        return mdb_cursor_get(cursor, k, v, MDB_FIRST);
    struct str behind = str_make(at->b, at->n);
    *k = store_val(behind);
    int rc = mdb_cursor_get(cursor, k, v, MDB_SET_RANGE);
    return rc == 0 && str_eq(store_str(*k), behind) ? mdb_cursor_get(cursor, k, v, MDB_NEXT) : rc;
}

static int walk_slice(struct walk *w, enum store_table t, struct place *at)
{
    MDB_cursor *cursor; /* its own: rows are compared by the reader's */
    MDB_val k, v;
    int rc = mdb_cursor_open(w->reader->txn, w->reader->store->table[t], &cursor);

    if (rc)
        return rc;
    rc = first_behind(cursor, at, &k, &v);
    for (uint32_t i = 0; rc == 0; i++) {
        w->row(w->arg, store_str(k), store_str(v));
        w->rows++;
        if (i + 1 == w->slice || w->renew) {
            w->renew = false;
            at->begun = true;
            at->n = MIN(k.mv_size, sizeof(at->b));
            memcpy(at->b, k.mv_data, at->n);
            break;
        }
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return rc;
}

int walk_table(struct walk *w, enum store_table t)
{
    struct place at = { 0 };
    int rc = 0;

    w->rows = 0;
    if (!w->slice)
        w->slice = WALK_SLICE;
    while (rc == 0 && store_has(w->reader->store, t)) {
        int e = reader_begin(w->reader);
        if (e < 0)
            return e;
        rc = walk_slice(w, t, &at);
        reader_end(w->reader);
        if (w->slice_done)
            w->slice_done(w->arg);
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* ---- queues ----------------------------------------------------------------------------------- */

bool walk_fill_queue(struct spool_queue *ret, struct str name, struct str row)
{
    struct queue_row q;

    if (!queue_name_valid(name))
        return false;
    if (!queue_row_take(row, &q)) /* there may be some of each; whoever looks will see */
        q = (struct queue_row){ .count = { 1, 1, 1 }, .record = queue_row_record(row) };
    str_copy(name, ret->name, sizeof(ret->name));
    ret->scheduled = q.count[SPOOL_SCHEDULED];
    ret->waiting = q.count[SPOOL_WAITING];
    ret->held = q.count[SPOOL_HELD];
    ret->waiting_octets = q.octets;
    ret->record_n = q.record.n;
    if (q.record.n)
        memcpy(ret->record, q.record.p, q.record.n);
    return true;
}

/* Where the queue behind this key (of a queue, or of an entry) is looked for: no name has a NUL, all entries of a
 * queue have it behind the name. */
static struct str behind_queue(struct str key, char dst[SPOOL_MAX_QUEUE_NAME + 1])
{
    ptrdiff_t end = str_chr(key, '\0');
    struct str name =
        str_first(key, MIN(end < 0 ? key.n : (size_t)end, (size_t)SPOOL_MAX_QUEUE_NAME));

    memcpy(dst, name.p, name.n);
    dst[name.n] = '\1';
    return str_make(dst, name.n + 1);
}

struct queues_walk {
    struct reader *reader;
    struct str after;
    struct spool_queue *ret;
    size_t max;
};

static int walk_queues_guarded(void *arg)
{
    struct queues_walk *w = arg;
    char from[SPOOL_MAX_QUEUE_NAME + 1];
    MDB_cursor *cursor;
    MDB_val k, v;
    size_t n = 0;
    int rc = w->max ? reader_cursor(w->reader, TABLE_DUE, &cursor) : MDB_NOTFOUND;

    if (rc == 0 && w->after.n)
        k = store_val(behind_queue(w->after, from));
    if (rc == 0)
        rc = mdb_cursor_get(cursor, &k, &v, w->after.n ? MDB_SET_RANGE : MDB_FIRST);
    while (rc == 0 && n < w->max && n < INT32_MAX) {
        struct str key = store_str(k);
        /* entries without their queue: spool_check tells of it */
        n += walk_fill_queue(&w->ret[n], key, store_str(v));
        struct str behind = behind_queue(key, from);
        bool jump = str_cmp(behind, key) > 0; /* else the key is longer than any of this table */
        if (jump)
            k = store_val(behind);
        rc = mdb_cursor_get(cursor, &k, &v, jump ? MDB_SET_RANGE : MDB_NEXT);
    }
    return rc && rc != MDB_NOTFOUND ? store_error(rc) : (int)n;
}

int walk_queues(struct reader *r, struct str after, struct spool_queue *ret, size_t max)
{
    struct queues_walk w = { r, after, ret, max };
    int e = reader_begin(r);

    if (e < 0)
        return e;
    e = guard_run(walk_queues_guarded, &w);
    reader_end(r);
    return e;
}
