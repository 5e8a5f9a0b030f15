/* What policies remember, on the disk: its meaning (kv_meaning.h), old spools, restarts, groups, figures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <lmdb.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "kv_meaning.h"
#include "spool_helper.h"

static char *path;
static struct spool *spool;
static struct worker w;

static void start(void)
{
    spool = open_spool(&(struct spool_options){ .path = path });
    worker_init(&w, 0, spool);
}

static void stop(void)
{
    spool_close(spool);
    worker_done(&w);
}

static int setup(void **state)
{
    path = spool_folder();
    start();
    return 0;
}

static int teardown(void **state)
{
    int64_t problems = check_spool(spool);
    stop();
    spool_folder_remove(path);
    return problems ? -1 : 0;
}

static int run(const struct spool_change *c)
{
    struct unit u;

    unit_init(&u);
    u.change[0] = *c;
    u.op.n_changes = 1;
    int r = unit_run(&u, &w);
    assert_int_equal(check_spool(spool), 0);
    return r;
}

#define MEANING(name)                                                                              \
    static void name(void **state)                                                                 \
    {                                                                                              \
        kv_##name(run, w.port);                                                                    \
    }
MEANING(puts_and_drops)
MEANING(refuses_what_is_too_large)
MEANING(full)
MEANING(scans_a_prefix)
MEANING(sweeps)

static void a_restart_keeps_it(void **state)
{
    struct spool_stats st;

    assert_int_equal(kv_do(run, SPOOL_KV_SET, "a", "1", 0, 100), 0);
    stop();
    start();
    kv_is(w.port, "n", "a", "1 100");
    assert_int_equal(spool_stats(spool, &st), 0);
    assert_int_equal(st.remembered, 1);
}

/* A name that nobody writes to any more is swept by the writes of others. */
static void other_names_are_swept(void **state)
{
    struct spool_change c = kv_change(SPOOL_KV_SET, "a", "1", 0, 10);
    static const char *const names[] = { "l", "m", "o" };
    struct spool_stats st;

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        c.kv.name = str_of(names[i]);
        assert_int_equal(run(&c), 0);
    }
    for (int i = 0; i < 5; i++)
        assert_int_equal(kv_do(run, SPOOL_KV_SET, "x", "2", 20, 30), 0);
    assert_int_equal(spool_stats(spool, &st), 0);
    assert_int_equal(st.remembered, 1);
}

/* Two who add the same in one group: one of them was first. */
static void only_one_adds(void **state)
{
    struct unit u[8];
    int added = 0;

    for (size_t i = 0; i < ARRAY_LEN(u); i++) {
        unit_init(&u[i]);
        u[i].change[0] = kv_change(SPOOL_KV_ADD, "a", "1", 0, 100);
        u[i].op.n_changes = 1;
        unit_submit(&u[i], &w);
    }
    for (size_t i = 0; i < ARRAY_LEN(u); i++) {
        while (!u[i].done)
            worker_turn(&w);
        added += u[i].op.result == 0;
        assert_true(u[i].op.result == 0 || u[i].op.result == -EEXIST);
    }
    assert_int_equal(added, 1);
}

/* Such a change stands alone in its unit. */
static void nothing_else_in_its_unit(void **state)
{
    struct unit u;

    unit_init(&u);
    u.change[0] = u.change[1] = kv_change(SPOOL_KV_SET, "a", "1", 0, 100);
    u.op.n_changes = 2;
    assert_int_equal(unit_run(&u, &w), -EINVAL);
}

/* Many entries at random against a table in memory; spool_check after each (in run). */
static void at_random(void **state)
{
    struct {
        bool there;
        int64_t expires;
    } model[8] = { { 0 } };
    uint64_t x = 88172645463325252u;

    for (int64_t now = 0; now < 400; now++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        size_t i = x % 8;
        char key[2] = { (char)('a' + i), 0 };
        struct spool_change c =
            kv_change(SPOOL_KV_SET + (x >> 8) % 3, key, "v", now, now + (int64_t)(x >> 16) % 40);
        c.kv.max = 100;
        bool there = model[i].there && model[i].expires > now;
        int r = run(&c), expected = c.type == SPOOL_KV_ADD && there       ? -EEXIST
                                    : c.type == SPOOL_KV_DELETE && !there ? -ENOENT
                                                                          : 0;
        assert_int_equal(r, expected);
        if (r == 0) {
            model[i].there = c.type != SPOOL_KV_DELETE;
            model[i].expires = c.kv.expires_ms;
        }
        int64_t says;
        struct buf value;
        buf_init(&value, 0);
        r = w.port->kv_read(w.port, STR("n"), str_of(key), &says, &value);
        buf_done(&value);
        assert_int_equal(r == 0 && says > now, model[i].there && model[i].expires > now);
    }
}

/* ---- spools of before ------------------------------------------------------------------------- */

static void drop_tables(void)
{
    static const char *const young[] = { "kv", "kv_end", "kv_name" };
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;

    assert_int_equal(mdb_env_create(&env), 0);
    mdb_env_set_maxdbs(env, 16);
    assert_int_equal(mdb_env_open(env, path, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    for (size_t i = 0; i < ARRAY_LEN(young); i++) {
        assert_int_equal(mdb_dbi_open(txn, young[i], 0, &dbi), 0);
        assert_int_equal(mdb_drop(txn, dbi, 1), 0);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static void a_spool_of_before_gets_the_tables(void **state)
{
    struct spool_stats st;
    char why[256];

    assert_int_equal(put_simple(&w, id_of(1), "q", 5, 100), 0);
    stop();
    drop_tables();
    /* a tool that only reads finds none, and says so by finding nothing */
    assert_int_equal(spool_open_readonly(path, &spool, why, sizeof(why)), 0);
    worker_init(&w, 0, spool);
    kv_is(w.port, "n", "a", "-");
    kv_keys_are(w.port, "n", "", 9, "");
    assert_int_equal(spool_stats(spool, &st), 0);
    assert_int_equal(st.remembered, 0);
    assert_int_equal(check_spool(spool), 0);
    stop();

    start();
    assert_int_equal(spool_stats(spool, &st), 0);
    assert_int_equal(st.messages, 1);
    assert_int_equal(kv_do(run, SPOOL_KV_SET, "a", "1", 0, 100), 0);
    kv_is(w.port, "n", "a", "1 100");
}

/* While the disk is nearly full, nothing is put; what is there can be dropped. */
static void a_full_disk(void **state)
{
    assert_int_equal(kv_do(run, SPOOL_KV_SET, "a", "1", 0, 100), 0);
    stop();
    spool = open_spool(&(struct spool_options){ .path = path, .min_free = UINT64_MAX / 2 });
    worker_init(&w, 0, spool);
    assert_int_equal(kv_do(run, SPOOL_KV_SET, "b", "1", 0, 100), -ENOSPC);
    assert_int_equal(kv_do(run, SPOOL_KV_DELETE, "a", "", 0, 0), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(puts_and_drops),
        T(refuses_what_is_too_large),
        T(full),
        T(scans_a_prefix),
        T(sweeps),
        T(a_restart_keeps_it),
        T(other_names_are_swept),
        T(only_one_adds),
        T(nothing_else_in_its_unit),
        T(at_random),
        T(a_spool_of_before_gets_the_tables),
        T(a_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
