/* kv.c - what policies remember, inside the writer's transaction. Layer: spool. Interface: kv.h.
 *
 * Each entry stands in `kv`, and in `kv_end` in the order in which entries of its name end: the first of
 * these is what is swept, and what makes room. Whatever is read lies in a page that the next write may
 * move, so keys are copied first.
 */
#include "spool/kv.h"

enum { SWEEP = 8 }; /* entries that one change drops, of its own name and of the next one each */

/* ---- one entry -------------------------------------------------------------------------------- */

/* The entry's end; MDB_NOTFOUND. */
static int find(struct apply *a, struct str name, struct str key, int64_t *ret_expires)
{
    struct kv_key k;
    struct str row, value;

    kv_key_make(&k, name, key);
    int rc = apply_get(a, TABLE_KV, kv_key_str(&k), &row);
    if (rc == 0 && !kv_row_take(row, ret_expires, &value))
        return MDB_CORRUPTED;
    return rc;
}

/* A count that is missing or cannot be read is 0: spool_check tells of it, and what policies remember goes on. */
static int count_of(struct apply *a, struct str name, uint64_t *ret)
{
    struct str row;
    int rc = apply_get(a, TABLE_KV_NAME, name, &row);

    *ret = rc == 0 && row.n == 8 ? get_be64(row.p) : 0;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int add_to_count(struct apply *a, struct str name, int delta)
{
    uint64_t n;
    MDB_val v;
    int rc = delta ? count_of(a, name, &n) : 0;

    if (rc || !delta)
        return rc;
    n = delta < 0 && n < (uint64_t)-delta ? 0 : n + (uint64_t)(int64_t)delta;
    if (n == 0) {
        rc = apply_get(a, TABLE_KV_NAME, name, NULL);
        return rc == 0 ? apply_delete_found(a, TABLE_KV_NAME) : rc == MDB_NOTFOUND ? 0 : rc;
    }
    rc = apply_reserve(a, TABLE_KV_NAME, name, 8, 0, &v);
    if (rc == 0)
        put_be64(v.mv_data, n);
    return rc;
}

static int drop_from(struct apply *a, enum store_table t, const struct kv_key *k)
{
    int rc = apply_get(a, t, kv_key_str(k), NULL);

    if (rc)
        return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
    return apply_delete_found(a, t);
}

/* Drops an entry that is there from both tables. The count is the caller's. */
static int drop(struct apply *a, struct str name, struct str key, int64_t expires_ms)
{
    struct kv_key k, end;

    kv_key_make(&k, name, key);
    kv_end_make(&end, name, expires_ms, key);
    int rc = drop_from(a, TABLE_KV, &k);
    return rc ? rc : drop_from(a, TABLE_KV_END, &end);
}

static int put(struct apply *a, const struct spool_kv_change *c)
{
    struct kv_key k, end;
    MDB_val v;

    kv_key_make(&k, c->name, c->key);
    kv_end_make(&end, c->name, c->expires_ms, c->key);
    int rc = apply_reserve(a, TABLE_KV, kv_key_str(&k), SPOOL_KV_HEAD + c->value.n, 0, &v);
    if (rc == 0) {
        kv_row_make(c->expires_ms, c->value, v.mv_data);
        rc = apply_reserve(a, TABLE_KV_END, kv_key_str(&end), 0, 0, &v);
    }
    return rc;
}

/* ---- what ends -------------------------------------------------------------------------------- */

/* The entry of the name that ends first; its key is copied. MDB_NOTFOUND: the name has none. */
static int first_to_end(struct apply *a, struct str name, struct kv_key *ret, int64_t *ret_expires,
                        struct str *ret_key)
{
    struct str found_name;
    struct kv_key from;
    MDB_cursor *cursor;
    int rc = apply_cursor(a, TABLE_KV_END, &cursor);

    kv_end_make(&from, name, INT64_MIN, STR_NONE);
    MDB_val k = store_val(kv_key_str(&from)), v;
    if (rc == 0)
        rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    if (rc)
        return rc;
    if (k.mv_size > sizeof(ret->b))
        return MDB_CORRUPTED;
    memcpy(ret->b, k.mv_data, k.mv_size);
    ret->n = k.mv_size;
    if (!kv_end_take(kv_key_str(ret), &found_name, ret_expires, ret_key))
        return MDB_CORRUPTED;
    return str_eq(found_name, name) ? 0 : MDB_NOTFOUND;
}

/* Drops up to `max` entries that have ended by now. The count of the name is written. */
static int sweep(struct apply *a, struct str name, int64_t now_ms, int max)
{
    int dropped = 0, rc = 0;

    while (rc == 0 && max-- > 0) {
        struct kv_key end;
        struct str key;
        int64_t expires;
        rc = first_to_end(a, name, &end, &expires, &key);
        if (rc || expires > now_ms)
            break;
        rc = drop(a, name, key, expires);
        dropped += rc == 0;
    }
    return rc && rc != MDB_NOTFOUND ? rc : add_to_count(a, name, -dropped);
}

/* Names that nobody writes to any more are swept by the writes of others: the next name in turn. */
static int sweep_another(struct apply *a, int64_t now_ms)
{
    struct kv_name *at = &a->swept;
    MDB_cursor *cursor;
    MDB_val k = store_val(str_make(at->b, at->n)), v;
    int rc = apply_cursor(a, TABLE_KV_NAME, &cursor);

    if (rc == 0)
        rc = mdb_cursor_get(cursor, &k, &v, at->n ? MDB_SET_RANGE : MDB_FIRST);
    if (rc == 0 && str_eq(store_str(k), str_make(at->b, at->n)))
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    at->n = 0; /* at the end: from the start again */
    if (rc)
        return rc == MDB_NOTFOUND ? 0 : rc;
    if (k.mv_size > sizeof(at->b))
        return MDB_CORRUPTED;
    memcpy(at->b, k.mv_data, k.mv_size);
    at->n = k.mv_size;
    return sweep(a, str_make(at->b, at->n), now_ms, SWEEP);
}

/* ---- changes ---------------------------------------------------------------------------------- */

/* Makes room for one more in a name that is full; *ret_dropped went for it. */
static int make_room(struct apply *a, const struct spool_kv_change *c, int *ret_dropped)
{
    uint64_t n;
    int rc = count_of(a, c->name, &n);

    *ret_dropped = 0;
    /* More than one when the limit has been lowered, a few at a time. */
    for (int i = 0; rc == 0 && n >= c->max && i < SWEEP; i++) {
        struct kv_key end;
        struct str key;
        int64_t expires;
        rc = first_to_end(a, c->name, &end, &expires, &key);
        if (rc == 0 && expires == INT64_MAX)
            return i ? 0 : -EDQUOT;
        if (rc == 0)
            rc = drop(a, c->name, key, expires);
        n--;
        *ret_dropped += rc == 0;
    }
    return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
}

static int set(struct apply *a, const struct spool_kv_change *c, bool add)
{
    int64_t expires;
    int dropped = 1, rc = find(a, c->name, c->key, &expires);
    bool there = rc == 0;

    if (rc && rc != MDB_NOTFOUND)
        return rc;
    if (add && there && expires > c->now_ms)
        return -EEXIST;
    rc = there ? drop(a, c->name, c->key, expires) : make_room(a, c, &dropped);
    if (rc == 0)
        rc = put(a, c);
    return rc ? rc : add_to_count(a, c->name, 1 - dropped);
}

static int delete (struct apply *a, const struct spool_kv_change *c)
{
    int64_t expires;
    int rc = find(a, c->name, c->key, &expires);

    if (rc || expires <= c->now_ms)
        return rc && rc != MDB_NOTFOUND ? rc : -ENOENT;
    rc = drop(a, c->name, c->key, expires);
    return rc ? rc : add_to_count(a, c->name, -1);
}

int apply_kv(struct apply *a, enum spool_change_type type, const struct spool_kv_change *c)
{
    int rc = type == SPOOL_KV_DELETE ? delete (a, c) : set(a, c, type == SPOOL_KV_ADD);

    if (rc == 0)
        rc = sweep(a, c->name, c->now_ms, SWEEP);
    if (rc == 0)
        rc = sweep_another(a, c->now_ms);
    return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc; /* which fails this unit, and no mail */
}
