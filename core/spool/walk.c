/* walk.c - see walk.h. Layer: spool. */
#include "spool/walk.h"

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
