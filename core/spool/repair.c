/* repair.c - makes what is derived anew from what it is derived from, on a spool that nobody has open.
 *
 * Layer: spool. Interface: spool.h. One transaction: all of it is done, or nothing. Rows that cannot be read
 * are left where they are: the router sets them aside, and a newer version may know them. But the row of a
 * queue is made anew, for its counts must be right: its record (the hold) is kept if that can still be told.
 */
#include <stdio.h>

#include "spool/internal.h"
#include "spool/record.h"

struct repair {
    struct apply *a;
    struct store *store;
    MDB_txn *txn;
    struct spool_repaired done;
    uint64_t total[SPOOL_TOTALS]; /* rows that stay; queues that come again add themselves */
    /* the name of kv that is being counted */
    struct kv_name name;
    uint64_t named;
};

/* Looks at one row. *ret_drop: delete it. LMDB's code. */
typedef int repair_row(struct repair *r, MDB_cursor *at, struct str key, struct str value,
                       bool *ret_drop);

static int each(struct repair *r, enum store_table t, repair_row *row)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    int rc = mdb_cursor_open(r->txn, r->store->table[t], &cursor);

    if (rc)
        return rc;
    while ((rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
        bool drop = false;
        rc = row(r, cursor, store_str(k), store_str(v), &drop);
        if (rc == 0 && drop)
            rc = mdb_cursor_del(cursor, 0);
        if (rc)
            break;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* ---- queues ----------------------------------------------------------------------------------- */

/* Of a queue only its record is its own: rows that have one stay, with counts of 0, the others come again
 * when their recipients are counted. */
static int queue_row(struct repair *r, MDB_cursor *at, struct str key, struct str value,
                     bool *ret_drop)
{
    char row[SPOOL_QUEUE_HEAD + SPOOL_MAX_QUEUE_RECORD], name[SPOOL_MAX_QUEUE_NAME];
    struct queue_row q, keep = { 0 };
    MDB_val k = store_val(key), v = { .mv_data = row };

    bool readable = queue_row_take(value, &q);
    keep.record = readable ? q.record : queue_row_record(value);
    *ret_drop = keep.record.n == 0;
    r->done.queues += *ret_drop && !readable;
    if (*ret_drop)
        return 0;
    r->total[SPOOL_ROW_QUEUE]++;
    memcpy(name, key.p, key.n); /* the row itself is about to be written */
    k.mv_data = name;
    v.mv_size = queue_row_size(&keep);
    queue_row_make(&keep, row);
    return mdb_cursor_put(at, &k, &v, MDB_CURRENT);
}

/* Entries come again from the recipients. */
static int queue_or_due_row(struct repair *r, MDB_cursor *at, struct str key, struct str value,
                            bool *ret_drop)
{
    if (queue_name_valid(key))
        return queue_row(r, at, key, value, ret_drop);
    *ret_drop = true;
    return 0;
}

/* ---- messages --------------------------------------------------------------------------------- */

static int message_row(struct repair *r, const struct msgid *id, bool *ret_drop)
{
    struct part_key first = recipient_key(id, 0);
    struct str prefix = str_first(part_key_str(&first), SPOOL_ID_KEY + 1);
    MDB_val k = store_val(part_key_str(&first)), v;
    MDB_cursor *cursor;
    int rc = apply_cursor(r->a, TABLE_MESSAGE, &cursor);

    if (rc == 0)
        rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    *ret_drop = rc == MDB_NOTFOUND || (rc == 0 && !str_starts(store_str(k), prefix));
    r->done.messages += *ret_drop;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int get_message(struct repair *r, const struct msgid *id, bool *ret_there, struct str *ret)
{
    struct part_key key = message_key(id);
    int rc = apply_get(r->a, TABLE_MESSAGE, part_key_str(&key), ret);

    *ret_there = rc == 0;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int piece_row(struct repair *r, const struct msgid *id, uint32_t chunk, bool *ret_drop)
{
    struct str row, envelope;
    bool there;
    uint32_t end;
    int rc = get_message(r, id, &there, &row);

    if (rc)
        return rc;
    /* of a row that cannot be read nobody knows how many pieces there are */
    *ret_drop = !there || (message_row_take(row, &end, &envelope) && chunk >= end);
    r->done.pieces += *ret_drop;
    return 0;
}

static int recipient_row(struct repair *r, const struct msgid *id, uint32_t n, struct str value,
                         bool *ret_drop)
{
    struct spool_recipient row;
    struct str message;
    struct due_key due;
    bool there;

    if (!recipient_row_take(value, &row)) {
        r->done.unreadable++;
        return 0;
    }
    int rc = get_message(r, id, &there, &message);
    if (rc || !there) {
        *ret_drop = rc == 0;
        r->done.recipients += rc == 0;
        return rc;
    }
    due_key_make(&due, row.queue, row.class_, &(struct spool_due){ *id, n, row.due_ms });
    r->done.due++;
    return apply_put_due(r->a, &due, row.class_, row.size);
}

/* A message stands before its pieces and recipients: when it is dropped, these are found to be of none. */
static int part_row(struct repair *r, MDB_cursor *at, struct str key, struct str value,
                    bool *ret_drop)
{
    enum spool_part part;
    struct msgid id;
    uint32_t n;
    int rc;

    (void)at;
    if (!part_key_take(key, &id, &part, &n)) {
        r->done.unreadable++;
        return 0;
    }
    switch (part) {
    case PART_PIECE: rc = piece_row(r, &id, n, ret_drop); break;
    case PART_RECIPIENT: rc = recipient_row(r, &id, n, value, ret_drop); break;
    default: rc = message_row(r, &id, ret_drop); break;
    }
    r->total[part_row_kind(part)] += !*ret_drop;
    return rc;
}

/* Pieces in staging would be swept at the next start. */
static int mend_messages(struct repair *r)
{
    MDB_stat st;
    int rc = mdb_stat(r->txn, r->store->table[TABLE_STAGING], &st);

    if (rc == 0) {
        r->done.staging = st.ms_entries;
        rc = mdb_drop(r->txn, r->store->table[TABLE_STAGING], 0);
    }
    if (rc == 0)
        rc = each(r, TABLE_DUE, queue_or_due_row);
    if (rc == 0)
        rc = each(r, TABLE_MESSAGE, part_row);
    return rc ? rc : apply_set_totals(r->a, r->total);
}

/* ---- what policies remember ------------------------------------------------------------------- */

static int write_name(struct repair *r)
{
    MDB_val v;
    struct str name = str_make(r->name.b, r->name.n);
    int rc = name.n ? apply_reserve(r->a, TABLE_KV_NAME, name, 8, 0, &v) : 0;

    if (rc == 0 && name.n)
        put_be64(v.mv_data, r->named);
    return rc;
}

static int kv_row(struct repair *r, MDB_cursor *at, struct str key, struct str value,
                  bool *ret_drop)
{
    struct str name, of, v;
    struct kv_key end;
    int64_t expires;
    MDB_val empty;

    (void)at;
    (void)ret_drop;
    if (!kv_key_take(key, &name, &of) || !kv_row_take(value, &expires, &v)) {
        r->done.unreadable++;
        return 0;
    }
    if (!str_eq(name, str_make(r->name.b, r->name.n))) {
        int rc = write_name(r);
        if (rc)
            return rc;
        memcpy(r->name.b, name.p, name.n);
        r->name.n = name.n;
        r->named = 0;
    }
    r->named++;
    r->done.kv++;
    kv_end_make(&end, name, expires, of);
    return apply_reserve(r->a, TABLE_KV_END, kv_key_str(&end), 0, 0, &empty);
}

static int mend_kv(struct repair *r)
{
    int rc = mdb_drop(r->txn, r->store->table[TABLE_KV_END], 0);

    if (rc == 0)
        rc = mdb_drop(r->txn, r->store->table[TABLE_KV_NAME], 0);
    if (rc == 0)
        rc = each(r, TABLE_KV, kv_row);
    return rc ? rc : write_name(r);
}

/* ---- all -------------------------------------------------------------------------------------- */

/* In one transaction. */
static int mend(struct apply *a, void *ret, bool *ret_more)
{
    struct repair r = { .a = a, .store = a->store, .txn = a->txn };
    int rc = mend_messages(&r);

    if (rc == 0)
        rc = mend_kv(&r);
    *(struct spool_repaired *)ret = r.done;
    *ret_more = false;
    return rc;
}

int spool_repair(const char *path, struct spool_repaired *ret, char *ret_why, size_t why_size)
{
    struct spool *s;
    int r = spool_make(&(struct spool_options){ .path = path }, false, &s, ret_why, why_size);

    if (r < 0)
        return r;
    int rc = apply_steps(&s->apply, mend, ret);
    if (rc && why_size)
        snprintf(ret_why, why_size, "the spool %s cannot be repaired, and is as it was: %s", path,
                 mdb_strerror(rc));
    spool_close(s);
    return store_error(rc);
}
