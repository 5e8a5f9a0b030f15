/* raw_spool.c - see raw_spool.h. */
#include "raw_spool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "spool/record.h"

#include <cmocka.h>

MDB_txn *raw;
static MDB_env *env;

void raw_begin(const char *path)
{
    assert_int_equal(mdb_env_create(&env), 0);
    mdb_env_set_maxdbs(env, 16);
    mdb_env_set_mapsize(env, 64 << 20);
    assert_int_equal(mdb_env_open(env, path, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &raw), 0);
}

void raw_commit(void)
{
    assert_int_equal(mdb_txn_commit(raw), 0);
    mdb_env_close(env);
}

MDB_dbi raw_table(const char *name)
{
    MDB_dbi dbi;

    assert_int_equal(mdb_dbi_open(raw, name, name ? MDB_CREATE : 0, &dbi), 0);
    return dbi;
}

void raw_put(const char *table, struct str key, struct str value)
{
    MDB_val k = { key.n, (void *)key.p }, v = { value.n, (void *)(value.p ? value.p : "") };

    assert_int_equal(mdb_put(raw, raw_table(table), &k, &v, 0), 0);
}

void raw_delete(const char *table, struct str key)
{
    MDB_val k = { key.n, (void *)key.p };

    assert_int_equal(mdb_del(raw, raw_table(table), &k, NULL), 0);
}

struct str raw_get(const char *table, struct str key)
{
    static char copy[70000];
    MDB_val k = { key.n, (void *)key.p }, v;

    assert_int_equal(mdb_get(raw, raw_table(table), &k, &v), 0);
    assert_true(v.mv_size <= sizeof(copy));
    memcpy(copy, v.mv_data, v.mv_size);
    return str_make(copy, v.mv_size);
}

void raw_count(void)
{
    uint64_t totals[SPOOL_TOTALS] = { 0 };
    char bytes[SPOOL_TOTALS_ROW];
    MDB_val k, v;
    MDB_cursor *c;

    assert_int_equal(mdb_cursor_open(raw, raw_table("message"), &c), 0);
    while (mdb_cursor_get(c, &k, &v, MDB_NEXT) == 0) {
        enum spool_part part;
        struct msgid m;
        uint32_t n;
        if (part_key_take(str_make(k.mv_data, k.mv_size), &m, &part, &n))
            totals[part_row_kind(part)]++;
    }
    mdb_cursor_close(c);
    assert_int_equal(mdb_cursor_open(raw, raw_table("due"), &c), 0);
    while (mdb_cursor_get(c, &k, &v, MDB_NEXT) == 0)
        totals[SPOOL_ROW_QUEUE] += queue_name_valid(str_make(k.mv_data, k.mv_size));
    mdb_cursor_close(c);
    totals_row_make(totals, bytes);
    raw_put(NULL, STR("totals"), str_make(bytes, sizeof(bytes)));
}
