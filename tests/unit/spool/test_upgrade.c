/* Spools of formats 1 and 2: rows are where this version has them after the first start, all of them, however often
 * that start was cut off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "raw_spool.h"
#include "spool/record.h"
#include "spool_helper.h"

#include <cmocka.h>

enum { MESSAGES = 700, BIG = 150000, BIG_ID = 5000 };

/* What format 2 would have written: a message of three pieces, many small ones with two recipients in two queues,
 * a hold, a staged piece, something remembered. */
static char *new_spool(void)
{
    char *path = spool_folder();
    struct spool *s = open_spool(&(struct spool_options){ .path = path });
    struct worker w;
    struct unit u;

    worker_init(&w, 0, s);
    for (uint64_t i = 1; i <= MESSAGES; i++) {
        unit_init(&u);
        unit_message(&u, id_of(i), STR("envelope"), body_of(100 + i, (uint32_t)i));
        unit_put(&u, id_of(i), 0, "q", SPOOL_SCHEDULED, (int64_t)i, "r");
        unit_put(&u, id_of(i), 1, i % 7 ? "w" : "x", SPOOL_WAITING, (int64_t)i, "r");
        assert_int_equal(unit_run(&u, &w), 0);
    }
    assert_int_equal(put_simple(&w, id_of(BIG_ID), "q", 1, BIG), 0);
    unit_init(&u);
    unit_queue(&u, "h", STR("H"));
    unit_stage(&u, id_of(9999), 1, STR("a piece"));
    assert_int_equal(unit_run(&u, &w), 0);
    spool_close(s);
    worker_done(&w);
    return path;
}

static void set_format(uint8_t format)
{
    char bytes[4] = { 0, 0, 0, (char)format };

    raw_put("meta", STR("format"), str_make(bytes, sizeof(bytes)));
}

/* One row in `every` goes back to the table that it had in format 2. */
static void move_back(const char *from, unsigned every)
{
    char key[512], *value = malloc(100000);
    MDB_cursor *c;
    MDB_val k, v;

    assert_non_null(value);
    assert_int_equal(mdb_cursor_open(raw, raw_table(from), &c), 0);
    for (unsigned i = 0; mdb_cursor_get(c, &k, &v, MDB_NEXT) == 0; i++) {
        struct str at = str_make(k.mv_data, k.mv_size);
        enum spool_part part;
        struct msgid id;
        uint32_t n;
        const char *to = NULL;
        size_t key_n = k.mv_size;
        memcpy(key, k.mv_data, k.mv_size);
        if (strcmp(from, "due") == 0) {
            to = queue_name_valid(at) ? "queue" : NULL;
        } else if (part_key_take(at, &id, &part, &n) && part != PART_MESSAGE) {
            to = part == PART_PIECE ? "body" : "recipient";
            memmove(key + SPOOL_ID_KEY, key + SPOOL_ID_KEY + 1, 4);
            key_n = SPOOL_ID_KEY + 4;
        }
        if (!to || i % every)
            continue;
        memcpy(value, v.mv_data, v.mv_size);
        raw_put(to, str_make(key, key_n), str_make(value, v.mv_size));
        assert_int_equal(mdb_cursor_del(c, 0), 0);
    }
    mdb_cursor_close(c);
    free(value);
}

static uint64_t rows(const char *name)
{
    MDB_dbi dbi;
    MDB_stat st = { 0 };

    if (mdb_dbi_open(raw, name, 0, &dbi) == 0)
        assert_int_equal(mdb_stat(raw, dbi, &st), 0);
    return st.ms_entries;
}

static void make_old(const char *path, uint8_t format)
{
    MDB_val k = { 6, "totals" };

    raw_begin(path);
    move_back("message", 1);
    move_back("due", 1);
    assert_int_equal(mdb_del(raw, raw_table(NULL), &k, NULL), 0);
    assert_int_equal(rows("message"), MESSAGES + 1);
    assert_int_equal(rows("recipient"), 2 * MESSAGES + 1);
    assert_int_equal(rows("body"), MESSAGES + 3 + 1);
    assert_int_equal(rows("queue"), 4);
    set_format(format);
    raw_commit();
}

static void is_whole(const char *path)
{
    struct spool *s = open_spool(&(struct spool_options){ .path = path });
    struct spool_stats st;
    struct spool_queue q;
    struct worker w;

    worker_init(&w, 0, s);
    assert_int_equal(check_spool(s), 0);
    for (uint64_t i = 1; i <= MESSAGES; i++)
        assert_true(body_matches(w.port, id_of(i), 100 + i, (uint32_t)i));
    assert_true(body_matches(w.port, id_of(BIG_ID), BIG, 1));
    assert_int_equal(spool_stats(s, &st), 0);
    assert_int_equal(st.messages, MESSAGES + 1);
    assert_int_equal(st.recipients, 2 * MESSAGES + 1);
    assert_int_equal(st.chunks, MESSAGES + 3); /* the staged one is swept */
    assert_int_equal(st.queues, 4);
    assert_int_equal(spool_sum_queues(s, &q), 0);
    assert_int_equal(q.scheduled, MESSAGES + 1);
    assert_int_equal(q.waiting, MESSAGES);
    assert_int_equal(w.port->read_queue(w.port, STR("h"), &q), 0);
    assert_int_equal(q.record_n, 1);
    assert_int_equal(delete_simple(&w, id_of(BIG_ID), 0), 0);
    assert_int_equal(check_spool(s), 0);
    spool_close(s);
    worker_done(&w);
    raw_begin(path);
    assert_int_equal(rows("recipient") + rows("body") + rows("queue"), 0);
    raw_commit();
}

static void an_older_format_is_made_the_present_one(void **state)
{
    for (uint8_t format = 1; format <= 2; format++) {
        char *path = new_spool(), why[256] = "";
        struct spool *s;
        make_old(path, format);
        assert_int_equal(spool_open_readonly(path, &s, why, sizeof(why)), -EPROTONOSUPPORT);
        assert_non_null(strstr(why, "of an older version: start the router on it once"));
        is_whole(path);
        spool_folder_remove(path);
    }
}

/* As a crash between two transactions leaves it: the format is the present one, some rows are moved. */
static void a_start_that_was_cut_off_goes_on(void **state)
{
    for (unsigned every = 2; every <= 5; every++) {
        char *path = new_spool(), why[256] = "";
        struct spool *s;
        /* the sums of what is moved: those of the whole, as the rest is added to them */
        make_old(path, 2);
        s = open_spool(&(struct spool_options){ .path = path });
        spool_close(s);
        raw_begin(path);
        uint64_t before = rows("message");
        move_back("message", every);
        move_back("due", every);
        uint8_t bytes[SPOOL_TOTALS_ROW];
        uint64_t totals[SPOOL_TOTALS] = { MESSAGES + 1, MESSAGES + 3 - rows("body"),
                                          2 * MESSAGES + 1 - rows("recipient"), 4 - rows("queue") };
        assert_true(before > rows("message"));
        totals_row_make(totals, bytes);
        raw_put(NULL, STR("totals"), str_make(bytes, sizeof(bytes)));
        raw_put("meta", STR("upgrading"), STR_NONE);
        raw_commit();
        assert_int_equal(spool_open_readonly(path, &s, why, sizeof(why)), -EPROTONOSUPPORT);
        is_whole(path);
        spool_folder_remove(path);
    }
}

/* What is no row of the old table is left where it is, and in nobody's way. */
static void a_key_of_no_table_stays(void **state)
{
    char *path = new_spool();

    make_old(path, 2);
    raw_begin(path);
    raw_put("body", STR("short"), STR("x"));
    raw_put("recipient", STR("zzz"), STR("x"));
    raw_commit();
    struct spool *s = open_spool(&(struct spool_options){ .path = path });
    assert_int_equal(check_spool(s), 0);
    spool_close(s);
    raw_begin(path);
    assert_int_equal(rows("body"), 1);
    assert_int_equal(rows("recipient"), 1);
    raw_commit();
    spool_folder_remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_older_format_is_made_the_present_one),
        cmocka_unit_test(a_start_that_was_cut_off_goes_on),
        cmocka_unit_test(a_key_of_no_table_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
