/* A spool that is damaged, while it is used: what is damaged fails alone, and nothing that is whole is lost, hidden or
 * sent twice because of it. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raw_spool.h"
#include "spool/record.h"
#include "spool_helper.h"

#include <cmocka.h>

enum { BODY = 150000, PIECES = 3 };

/* The thread sanitizer takes such signals for itself. */
#ifdef __SANITIZE_THREAD__
#define NEEDS_SIGBUS() skip()
#else
#define NEEDS_SIGBUS() ((void)0)
#endif

static char *path;
static struct spool *spool;
static struct worker w;

static void open_it(void)
{
    spool = open_spool(&(struct spool_options){ .path = path });
    worker_init(&w, 0, spool);
}

static void close_it(void)
{
    spool = spool_close(spool);
    worker_done(&w);
}

/* Message 1 with recipients in two queues, message 2 in a third one. */
static int setup(void **state)
{
    struct unit u;

    path = spool_folder();
    open_it();
    unit_init(&u);
    unit_message(&u, id_of(1), STR("e"), body_of(BODY, 1));
    unit_put(&u, id_of(1), 0, "q", SPOOL_SCHEDULED, 5, "r");
    unit_put(&u, id_of(1), 1, "w", SPOOL_WAITING, 6, "r");
    assert_int_equal(unit_run(&u, &w), 0);
    assert_int_equal(put_simple(&w, id_of(2), "z", 7, 100), 0);
    close_it();
    return 0;
}

static int teardown(void **state)
{
    if (spool)
        close_it();
    spool_folder_remove(path);
    return 0;
}

static struct str recipient(uint64_t number, uint32_t n)
{
    static struct part_key k;
    struct msgid m = id_of(number);

    k = recipient_key(&m, n);
    return part_key_str(&k);
}

static struct str due_of_first(void)
{
    static struct due_key k;

    due_key_make(&k, STR("q"), SPOOL_SCHEDULED, &(struct spool_due){ id_of(1), 0, 5 });
    return due_key_str(&k);
}

static void damage_row(const char *table, struct str key, struct str value)
{
    raw_begin(path);
    raw_put(table, key, value);
    raw_commit();
}

static void damage_delete(const char *table, struct str key)
{
    raw_begin(path);
    raw_delete(table, key);
    raw_commit();
}

/* In one group: deletes recipient 0 of message 1, between two new messages. Its result; the others must go. */
static int delete_among_others(void)
{
    struct unit u[3];
    int result = 1;

    for (uint64_t i = 0; i < 3; i++) {
        unit_init(&u[i]);
        if (i == 1) {
            unit_delete(&u[i], id_of(1), 0);
        } else {
            unit_message(&u[i], id_of(20 + i), STR("e"), body_of(100, 1));
            unit_put(&u[i], id_of(20 + i), 0, "q", SPOOL_SCHEDULED, 1, "r");
        }
        unit_submit(&u[i], &w);
    }
    for (int i = 0; i < 3; i++) {
        while (!u[i].done)
            worker_turn(&w);
        if (i == 1)
            result = u[i].op.result;
        else
            assert_int_equal(u[i].op.result, 0);
        unit_free(&u[i]);
    }
    return result;
}

static void a_damaged_row_fails_one_unit(void **state)
{
    damage_row("message", recipient(1, 0), STR("no row"));
    open_it();
    assert_int_equal(delete_among_others(), -EIO);
}

/* It has been delivered: to keep it would be to deliver it again. */
static void a_missing_index_entry_keeps_nothing(void **state)
{
    struct spool_entry entry;
    struct buf record;
    struct msgid one = id_of(1);

    damage_delete("due", due_of_first());
    open_it();
    assert_int_equal(delete_among_others(), 0);
    buf_init(&record, 0);
    assert_int_equal(w.port->read_recipient(w.port, &one, 0, &entry, &record), -ENOENT);
    assert_int_equal(w.port->read_recipient(w.port, &one, 1, &entry, &record), 0);
    buf_done(&record);
}

/* It hides nothing of what stands behind it. */
static void a_scan_passes_over_a_damaged_row(void **state)
{
    struct spool_entry entry[4];
    struct buf record;
    struct msgid one = id_of(1);

    damage_row("message", recipient(1, 0), STR("no row"));
    open_it();
    buf_init(&record, 0);
    assert_int_equal(w.port->scan_entries(w.port, NULL, 0, entry, ARRAY_LEN(entry)), 2);
    assert_int_equal(entry[0].n, 1);
    assert_string_equal(entry[0].queue, "w");
    assert_int_equal(w.port->scan_entries(w.port, NULL, 0, entry, 1), 1);
    assert_int_equal(w.port->read_recipient(w.port, &one, 0, entry, &record), -EBADMSG);
    assert_int_equal(w.port->read_recipient(w.port, &one, 1, entry, &record), 0);
    buf_done(&record);
}

/* ---- queues and counts ------------------------------------------------------------------------- */

static void a_damaged_queue_hides_no_other(void **state)
{
    struct spool_queue q[4];

    damage_row("due", STR("q"), STR("no row"));
    open_it();
    assert_int_equal(w.port->scan_queues(w.port, STR_NONE, q, ARRAY_LEN(q)), 3);
    assert_string_equal(q[0].name, "q");
    assert_true(q[0].scheduled && q[0].waiting); /* there may be: who looks will see */
    assert_string_equal(q[1].name, "w");
    assert_int_equal(q[1].waiting, 1);
    assert_string_equal(q[2].name, "z");
}

/* Whatever commits something for it makes its counts right, and is no failure for anybody. */
static void a_damaged_queue_is_counted_anew(void **state)
{
    struct spool_queue q;

    damage_row("due", STR("q"), STR("no row"));
    open_it();
    assert_int_equal(put_simple(&w, id_of(3), "q", 8, 100), 0);
    assert_int_equal(w.port->read_queue(w.port, STR("q"), &q), 0);
    assert_int_equal(q.scheduled, 2);
    assert_int_equal(q.waiting + q.held, 0);
    assert_int_equal(delete_simple(&w, id_of(3), 0), 0);
    assert_int_equal(delete_simple(&w, id_of(1), 0), 0);
    assert_int_equal(w.port->read_queue(w.port, STR("q"), &q), -ENOENT);
    assert_int_equal(check_spool(spool), 0);
}

static int remember(const char *key, enum spool_change_type type)
{
    struct unit u;

    unit_init(&u);
    u.change[0] = (struct spool_change){ .type = type };
    u.change[0].kv = (struct spool_kv_change){ .name = STR("n"),
                                               .key = str_of(key),
                                               .value = STR("v"),
                                               .now_ms = 1,
                                               .expires_ms = 100,
                                               .max = 10 };
    u.op.n_changes = 1;
    return unit_run(&u, &w);
}

static void a_missing_count_stops_nobody(void **state)
{
    open_it();
    assert_int_equal(remember("a", SPOOL_KV_SET), 0);
    assert_int_equal(remember("b", SPOOL_KV_SET), 0);
    close_it();
    damage_delete("kv_name", STR("n"));
    open_it();
    assert_int_equal(remember("a", SPOOL_KV_SET), 0);    /* over the old one */
    assert_int_equal(remember("c", SPOOL_KV_SET), 0);    /* one more: counted from none */
    assert_int_equal(remember("a", SPOOL_KV_DELETE), 0); /* and never below none */
    assert_int_equal(remember("b", SPOOL_KV_DELETE), 0);
    assert_int_equal(remember("c", SPOOL_KV_DELETE), 0);
    assert_int_equal(check_spool(spool), 0);
}

/* A count of four billions ends where the pieces do. */
static void a_damaged_number_of_pieces_is_no_loop(void **state)
{
    struct msgid one = id_of(1);
    char row[100];
    struct str old;

    raw_begin(path);
    old = raw_get("message", str_make(one.b, sizeof(one.b)));
    assert_in_range(old.n, SPOOL_MESSAGE_HEAD, sizeof(row));
    memcpy(row, old.p, old.n);
    memset(row, 0xff, SPOOL_MESSAGE_HEAD);
    raw_put("message", str_make(one.b, sizeof(one.b)), str_make(row, old.n));
    raw_commit();
    open_it();
    assert_int_equal(delete_simple(&w, one, 0), 0);
    assert_int_equal(delete_simple(&w, one, 1), 0);
    assert_int_equal(check_spool(spool), 0); /* its pieces have gone with it */
}

/* ---- the file ---------------------------------------------------------------------------------- */

static off_t file_size(char file[300])
{
    struct stat sb;

    snprintf(file, 300, "%s/data.mdb", path);
    assert_int_equal(stat(file, &sb), 0);
    return sb.st_size;
}

static uint64_t pages_end(void)
{
    struct spool_stats st;

    open_it();
    assert_int_equal(spool_stats(spool, &st), 0);
    close_it();
    return st.file_size;
}

/* What an idle writer would write behind the end must not take the place of what is missing. */
static void a_file_that_was_not_copied_whole_is_refused(void **state)
{
    char file[300], why[512] = "";
    struct spool *s;

    NEEDS_SIGBUS();
    uint64_t end = pages_end();
    file_size(file);
    assert_int_equal(truncate(file, (off_t)end - 100000), 0);
    assert_int_equal(spool_open(&(struct spool_options){ .path = path }, &s, why, sizeof(why)),
                     -EBADMSG);
    assert_non_null(strstr(why, "not copied whole"));
    assert_int_equal(file_size(file), (off_t)end - 100000); /* nothing was done to it */
}

/* As when a commit has taken pages at the end and given them back. */
static void a_file_without_its_last_free_pages_is_whole(void **state)
{
    char file[300];

    open_it();
    assert_int_equal(put_simple(&w, id_of(9), "q", 8, 300000), 0);
    assert_int_equal(delete_simple(&w, id_of(9), 0), 0);
    close_it();
    uint64_t end = pages_end();
    file_size(file);
    assert_int_equal(truncate(file, (off_t)end - 100000), 0);
    open_it();
    assert_int_equal(check_spool(spool), 0);
}

/* A sector that cannot be read is the signal SIGBUS to whoever reads through a map; here the file ends before it. */
static void a_page_that_cannot_be_read_is_an_error(void **state)
{
    char file[300];
    struct msgid one = id_of(1), two = id_of(2);
    struct spool_queue q[2];
    struct spool_due due;
    struct buf bytes;
    int bad = 0;

    NEEDS_SIGBUS();
    open_it();
    assert_int_equal(w.port->scan_queues(w.port, STR_NONE, q, 2), 2);
    off_t size = file_size(file);
    buf_init(&bytes, 0);
    for (uint32_t i = 0; i < PIECES; i++)
        assert_int_equal(w.port->read_chunk(w.port, &one, i, &bytes), 0);
    assert_int_equal(truncate(file, 12 * 4096), 0); /* the first piece is long */
    for (uint32_t i = 0; i < PIECES; i++)
        bad += w.port->read_chunk(w.port, &one, i, &bytes) == -EIO;
    assert_true(bad > 0);
    int r = w.port->read_message(w.port, &two, &bytes); /* and what can be read is read */
    assert_true(r == 0 || r == -EIO);
    assert_int_equal(truncate(file, 2 * 4096), 0); /* all but the roots */
    assert_int_equal(w.port->read_message(w.port, &two, &bytes), -EIO);
    assert_int_equal(w.port->scan_queues(w.port, STR_NONE, q, 2), -EIO);
    assert_int_equal(w.port->scan_due(w.port, STR("q"), SPOOL_SCHEDULED, NULL, 100, &due, 1), -EIO);
    assert_int_equal(truncate(file, size), 0);
    buf_done(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_damaged_row_fails_one_unit, setup, teardown),
        cmocka_unit_test_setup_teardown(a_missing_index_entry_keeps_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_scan_passes_over_a_damaged_row, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_queue_hides_no_other, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_queue_is_counted_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(a_missing_count_stops_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_number_of_pieces_is_no_loop, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_was_not_copied_whole_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_file_without_its_last_free_pages_is_whole, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_page_that_cannot_be_read_is_an_error, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
