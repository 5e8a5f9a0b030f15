/* upgrade.c - see upgrade.h. Layer: spool. */
#include "spool/upgrade.h"

enum {
    OLD_ITEM_KEY = SPOOL_ID_KEY + 4, /* id, number */
    ROWS_AT_ONCE = 512,
};
static const uint64_t BYTES_AT_ONCE = UINT64_C(4) << 20;

struct progress {
    upgrade_waiting *waiting;
    void *arg;
    uint64_t rows, of;
};

static const struct old_table {
    const char *name;
    enum store_table to;
    enum spool_row row;
} old_tables[] = {
    { "body", TABLE_MESSAGE, SPOOL_ROW_PIECE },
    { "recipient", TABLE_MESSAGE, SPOOL_ROW_RECIPIENT },
    { "queue", TABLE_DUE, SPOOL_ROW_QUEUE },
};

/* The key that the row has now; it may lie in *room. None: this is no key of that table. */
static struct str new_key(const struct old_table *t, struct str old, struct part_key *room)
{
    struct msgid id;

    if (t->row == SPOOL_ROW_QUEUE) /* a name, as it was */
        return queue_name_valid(old) ? old : STR_NONE;
    if (old.n != OLD_ITEM_KEY)
        return STR_NONE;
    memcpy(id.b, old.p, SPOOL_ID_KEY);
    uint32_t number = get_be32(old.p + SPOOL_ID_KEY);
    *room = t->row == SPOOL_ROW_PIECE ? piece_key(&id, number) : recipient_key(&id, number);
    return part_key_str(room);
}

/* Moves the row under the cursor. LMDB's code; MDB_NOTFOUND: its key is of no such table, it stays. */
static int move_row(struct apply *a, const struct old_table *t, MDB_cursor *from, struct str key,
                    struct str value)
{
    struct part_key room;
    struct str to = new_key(t, key, &room);
    MDB_val v;

    if (!to.n)
        return MDB_NOTFOUND;
    int rc = apply_reserve(a, t->to, to, value.n, MDB_NOOVERWRITE, &v);
    /* A key that is there is the other half of a move that LMDB never makes. */
    if (rc)
        return rc == MDB_KEYEXIST ? MDB_CORRUPTED : rc;
    /* The old value lies in a page of another table, which this one's write has not moved. */
    if (value.n)
        memcpy(v.mv_data, value.p, value.n);
    a->total[t->row]++;
    return mdb_cursor_del(from, 0);
}

/* Some rows of one table. *ret_more: there are others behind them. */
static int move_some(struct apply *a, const struct old_table *t, MDB_dbi old, bool *ret_more)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    int rc = mdb_cursor_open(a->txn, old, &cursor);

    *ret_more = false;
    for (int moved = 0; rc == 0 && (rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0;) {
        *ret_more = moved == ROWS_AT_ONCE || a->bytes > BYTES_AT_ONCE;
        if (*ret_more)
            break;
        rc = move_row(a, t, cursor, store_str(k), store_str(v));
        moved += rc == 0;
        if (rc == MDB_NOTFOUND)
            rc = 0;
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int move_from(struct apply *a, const struct old_table *t, bool *ret_more)
{
    MDB_stat st;
    MDB_dbi old;
    int rc = mdb_dbi_open(a->txn, t->name, 0, &old);

    if (rc) { /* it was empty, and dropped */
        *ret_more = false;
        return rc == MDB_NOTFOUND ? 0 : rc;
    }
    rc = move_some(a, t, old, ret_more);
    if (rc == 0 && !*ret_more)
        rc = mdb_stat(a->txn, old, &st);
    return rc || *ret_more || st.ms_entries ? rc : mdb_drop(a->txn, old, 1);
}

/* Before anything is moved, all rows of the table are messages. */
static int begin_totals(struct apply *a)
{
    uint64_t totals[SPOOL_TOTALS] = { 0 };
    MDB_val k = store_val(store_totals_key), v;
    MDB_stat st;
    int rc = mdb_get(a->txn, a->store->roots, &k, &v);

    if (rc != MDB_NOTFOUND)
        return rc;
    rc = mdb_stat(a->txn, a->store->table[TABLE_MESSAGE], &st);
    totals[SPOOL_ROW_MESSAGE] = rc == 0 ? st.ms_entries : 0;
    return rc ? rc : apply_set_totals(a, totals);
}

/* What one transaction does; *ret_more: there is more to do. */
static int do_some(struct apply *a, bool *ret_more)
{
    MDB_val k = store_val(store_upgrading_key), v;
    int rc = mdb_get(a->txn, a->store->table[TABLE_META], &k, &v);

    *ret_more = rc == 0;
    if (rc)
        return rc == MDB_NOTFOUND ? 0 : rc;
    rc = begin_totals(a);
    for (size_t i = 0; i < ARRAY_LEN(old_tables) && rc == 0; i++) {
        rc = move_from(a, &old_tables[i], ret_more);
        if (*ret_more)
            break;
    }
    return rc || *ret_more ? rc : mdb_del(a->txn, a->store->table[TABLE_META], &k, NULL);
}

static int upgrade_step(struct apply *a, void *arg, bool *ret_more)
{
    struct progress *p = arg;
    int rc = do_some(a, ret_more);

    if (rc == 0 && *ret_more && p->waiting) {
        p->rows += ROWS_AT_ONCE; /* about: one that is large may be fewer */
        p->waiting(p->arg, MIN(p->rows, p->of), p->of);
    }
    return rc;
}

/* The pages and rows of the old tables. */
static int old_size(MDB_txn *txn, uint64_t *ret_bytes, uint64_t *ret_rows)
{
    *ret_bytes = *ret_rows = 0;
    for (size_t i = 0; i < ARRAY_LEN(old_tables); i++) {
        MDB_stat st;
        MDB_dbi old;
        int rc = mdb_dbi_open(txn, old_tables[i].name, 0, &old);
        if (rc == 0)
            rc = mdb_stat(txn, old, &st);
        if (rc == MDB_NOTFOUND)
            continue;
        if (rc)
            return rc;
        *ret_rows += st.ms_entries;
        *ret_bytes +=
            (st.ms_branch_pages + st.ms_leaf_pages + st.ms_overflow_pages) * (uint64_t)st.ms_psize;
    }
    return 0;
}

int upgrade_needs(MDB_txn *txn, uint64_t *ret)
{
    uint64_t rows;

    return old_size(txn, ret, &rows);
}

static int count_rows(struct apply *a, void *arg, bool *ret_more)
{
    struct progress *p = arg;
    uint64_t bytes;

    *ret_more = false;
    return old_size(a->txn, &bytes, &p->of);
}

int upgrade_run(struct apply *a, upgrade_waiting *waiting, void *arg)
{
    struct progress p = { .waiting = waiting, .arg = arg };
    int rc = apply_steps(a, count_rows, &p);

    return store_error(rc ? rc : apply_steps(a, upgrade_step, &p));
}
