/* Units of change, reads and scans of the spool, as engine/ports.h promises them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "spool_helper.h"

#include <cmocka.h>

struct fixture {
    char *path;
    struct spool *spool;
    struct worker w;
    struct port_spool *port;
    struct buf buf;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->path = spool_folder();
    f->spool = open_spool(&(struct spool_options){ .path = f->path });
    worker_init(&f->w, 0, f->spool);
    f->port = f->w.port;
    buf_init(&f->buf, 0);
    *state = f;
    return 0;
}

/* Whatever a test did, the invariants hold. */
static int teardown(void **state)
{
    struct fixture *f = *state;
    int64_t problems = check_spool(f->spool);

    f->spool = spool_close(f->spool);
    worker_done(&f->w);
    buf_done(&f->buf);
    spool_folder_remove(f->path);
    free(f);
    return problems == 0 ? 0 : -1;
}

static struct spool_stats stats(struct fixture *f)
{
    struct spool_stats st;

    assert_int_equal(spool_stats(f->spool, &st), 0);
    return st;
}

static void assert_counts(struct fixture *f, const char *queue, uint64_t scheduled,
                          uint64_t waiting, uint64_t held)
{
    struct spool_queue q;
    int r = f->port->read_queue(f->port, str_of(queue), &q);

    if (!scheduled && !waiting && !held) {
        assert_int_equal(r, -ENOENT);
        return;
    }
    assert_int_equal(r, 0);
    assert_string_equal(q.name, queue);
    assert_int_equal(q.scheduled, scheduled);
    assert_int_equal(q.waiting, waiting);
    assert_int_equal(q.held, held);
    assert_int_equal(q.waiting_octets, waiting * UNIT_SIZE);
}

static void round_trip(void **state)
{
    static const size_t sizes[] = { 0, 1, 3000, 10240, BODY_CHUNK, BODY_CHUNK + 1, 200000 };
    struct fixture *f = *state;
    struct spool_entry entry;

    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        struct msgid id = id_of(100 + i);
        struct unit u;
        unit_init(&u);
        unit_message(&u, id, STR("the envelope"), body_of(sizes[i], i));
        unit_put(&u, id, 0, "example.org", SPOOL_SCHEDULED, 1000 + i, "first record");
        unit_put(&u, id, 7, "example.net", SPOOL_HELD, -5, "");
        assert_int_equal(unit_run(&u, &f->w), 0);

        assert_int_equal(f->port->read_message(f->port, &id, &f->buf), 0);
        assert_true(str_eq(buf_str(&f->buf), STR("the envelope")));
        assert_true(body_matches(f->port, id, sizes[i], i));
        assert_int_equal(f->port->read_recipient(f->port, &id, 0, &entry, &f->buf), 0);
        assert_string_equal(entry.queue, "example.org");
        assert_int_equal(entry.class_, SPOOL_SCHEDULED);
        assert_int_equal(entry.due_ms, 1000 + i);
        assert_true(str_eq(buf_str(&f->buf), STR("first record")));
        assert_int_equal(f->port->read_recipient(f->port, &id, 7, &entry, &f->buf), 0);
        assert_string_equal(entry.queue, "example.net");
        assert_int_equal(entry.class_, SPOOL_HELD);
        assert_int_equal(entry.due_ms, -5);
        assert_int_equal(buf_len(&f->buf), 0);
    }
    struct msgid none = id_of(1);
    assert_int_equal(f->port->read_message(f->port, &none, &f->buf), -ENOENT);
    assert_int_equal(f->port->read_chunk(f->port, &none, 0, &f->buf), -ENOENT);
    assert_int_equal(f->port->read_recipient(f->port, &none, 0, &entry, &f->buf), -ENOENT);
    assert_counts(f, "example.org", ARRAY_LEN(sizes), 0, 0);
    assert_counts(f, "example.net", 0, 0, ARRAY_LEN(sizes));
    assert_counts(f, "nowhere", 0, 0, 0);
}

static void envelope_update(void **state)
{
    struct fixture *f = *state;
    struct msgid id = id_of(1), none = id_of(2);
    struct unit u;

    assert_int_equal(put_simple(&f->w, id, "q", 1, 10000), 0);
    unit_init(&u);
    unit_message(&u, id, STR("a longer envelope than the one before"), NULL);
    assert_int_equal(unit_run(&u, &f->w), 0);
    assert_int_equal(f->port->read_message(f->port, &id, &f->buf), 0);
    assert_int_equal(buf_len(&f->buf), 37);
    assert_true(body_matches(f->port, id, 10000, 1));

    unit_init(&u);
    unit_message(&u, none, STR("x"), NULL);
    assert_int_equal(unit_run(&u, &f->w), -ENOENT);
    assert_int_equal(put_simple(&f->w, id, "q", 1, 10), -EEXIST);
}

static void due_order(void **state)
{
    static const int64_t times[] = { 5, -1, INT64_MAX, 0, INT64_MIN, 300, 256, 1 };
    static const int64_t sorted[] = { INT64_MIN, -1, 0, 1, 5, 256, 300 };
    struct fixture *f = *state;
    struct spool_due due[16];

    for (unsigned i = 0; i < ARRAY_LEN(times); i++) {
        struct unit u;
        struct msgid id = id_of(50 - i);
        unit_init(&u);
        unit_message(&u, id, STR("e"), body_of(10, 1));
        unit_put(&u, id, 0, "b.example", SPOOL_SCHEDULED, times[i], "");
        unit_put(&u, id, 1, "b.example", SPOOL_WAITING, times[i], "");
        unit_put(&u, id, 2, "b.exampl", SPOOL_SCHEDULED, times[i], "");
        unit_put(&u, id, 3, "b.example.org", SPOOL_SCHEDULED, times[i], "");
        assert_int_equal(unit_run(&u, &f->w), 0);
    }
    int n = f->port->scan_due(f->port, STR("b.example"), SPOOL_SCHEDULED, NULL, 300, due, 16);
    assert_int_equal(n, ARRAY_LEN(sorted));
    for (int i = 0; i < n; i++) {
        assert_true(due[i].due_ms == sorted[i]);
        assert_int_equal(due[i].n, 0);
    }
    /* in windows of two, each after the last of the one before */
    struct spool_due *after = NULL, window[2], last;
    int total = 0;
    while ((n = f->port->scan_due(f->port, STR("b.example"), SPOOL_SCHEDULED, after, INT64_MAX,
                                  window, 2)) > 0) {
        for (int i = 0; i < n; i++, total++)
            assert_true(window[i].due_ms == (total < 7 ? sorted[total] : INT64_MAX));
        last = window[n - 1];
        after = &last;
    }
    assert_int_equal(n, 0);
    assert_int_equal(total, 8);
    n = f->port->scan_due(f->port, STR("b.example"), SPOOL_WAITING, NULL, INT64_MAX, due, 16);
    assert_int_equal(n, 8);
    assert_int_equal(due[0].n, 1);
    assert_int_equal(
        f->port->scan_due(f->port, STR("b.example"), SPOOL_HELD, NULL, INT64_MAX, due, 16), 0);
    assert_int_equal(
        f->port->scan_due(f->port, STR("b.exam"), SPOOL_SCHEDULED, NULL, INT64_MAX, due, 16), 0);
    assert_int_equal(f->port->scan_due(f->port, STR(""), SPOOL_HELD, NULL, 1, due, 16), 0);
}

/* Same time: by message, then recipient; `after` need not be there any more. */
static void due_order_of_equals(void **state)
{
    struct fixture *f = *state;
    struct spool_due due[8];
    struct unit u;

    for (int i = 3; i > 0; i--) {
        unit_init(&u);
        unit_message(&u, id_of((uint64_t)i), STR("e"), body_of(1, 1));
        unit_put(&u, id_of((uint64_t)i), 1, "q", SPOOL_SCHEDULED, 9, "");
        unit_put(&u, id_of((uint64_t)i), 0, "q", SPOOL_SCHEDULED, 9, "");
        assert_int_equal(unit_run(&u, &f->w), 0);
    }
    assert_int_equal(f->port->scan_due(f->port, STR("q"), 0, NULL, 9, due, 8), 6);
    for (uint32_t i = 0; i < 6; i++) {
        struct msgid id = id_of(1 + i / 2);
        assert_int_equal(msgid_cmp(&due[i].id, &id), 0);
        assert_int_equal(due[i].n, i % 2);
    }
    struct spool_due after = due[1];
    assert_int_equal(delete_simple(&f->w, after.id, 1), 0);
    assert_int_equal(f->port->scan_due(f->port, STR("q"), 0, &after, 9, due, 8), 4);
}

static void moves(void **state)
{
    struct fixture *f = *state;
    struct msgid id = id_of(9);
    struct spool_entry entry;
    struct spool_due due;
    struct unit u;

    assert_int_equal(put_simple(&f->w, id, "a", 10, 10), 0);
    assert_counts(f, "a", 1, 0, 0);

    unit_init(&u); /* later in the same queue */
    unit_put(&u, id, 0, "a", SPOOL_SCHEDULED, 20, "r2");
    assert_int_equal(unit_run(&u, &f->w), 0);
    assert_counts(f, "a", 1, 0, 0);
    assert_int_equal(f->port->scan_due(f->port, STR("a"), 0, NULL, 19, &due, 1), 0);
    assert_int_equal(f->port->scan_due(f->port, STR("a"), 0, NULL, 20, &due, 1), 1);

    unit_init(&u); /* another class */
    unit_put(&u, id, 0, "a", SPOOL_HELD, 20, "r2");
    assert_int_equal(unit_run(&u, &f->w), 0);
    assert_counts(f, "a", 0, 0, 1);

    unit_init(&u); /* another queue, and back and away again within one unit */
    unit_put(&u, id, 0, "b", SPOOL_SCHEDULED, 20, "x");
    unit_put(&u, id, 0, "a", SPOOL_WAITING, 20, "y");
    unit_put(&u, id, 0, "c", SPOOL_WAITING, 30, "a record that is longer than before");
    assert_int_equal(unit_run(&u, &f->w), 0);
    assert_counts(f, "a", 0, 0, 0);
    assert_counts(f, "b", 0, 0, 0);
    assert_counts(f, "c", 0, 1, 0);

    unit_init(&u); /* only the record */
    unit_put(&u, id, 0, "c", SPOOL_WAITING, 30, "z");
    assert_int_equal(unit_run(&u, &f->w), 0);
    assert_counts(f, "c", 0, 1, 0);
    assert_int_equal(f->port->read_recipient(f->port, &id, 0, &entry, &f->buf), 0);
    assert_true(str_eq(buf_str(&f->buf), STR("z")));
    assert_string_equal(entry.queue, "c");

    unit_init(&u); /* no such message */
    unit_put(&u, id_of(10), 0, "c", SPOOL_WAITING, 30, "z");
    assert_int_equal(unit_run(&u, &f->w), -ENOENT);
}

static void last_recipient(void **state)
{
    struct fixture *f = *state;
    struct msgid id = id_of(4);
    struct unit u;

    assert_int_equal(put_simple(&f->w, id_of(3), "q", 1, 100), 0);
    assert_int_equal(put_simple(&f->w, id_of(5), "q", 1, 100), 0);
    unit_init(&u);
    unit_message(&u, id, STR("e"), body_of(150000, 3));
    for (uint32_t n = 0; n < 3; n++)
        unit_put(&u, id, n, "q", SPOOL_SCHEDULED, 1, "r");
    assert_int_equal(unit_run(&u, &f->w), 0);
    assert_int_equal(stats(f).chunks, 2 + 3);

    assert_int_equal(delete_simple(&f->w, id, 0), 0);
    assert_int_equal(delete_simple(&f->w, id, 2), 0);
    assert_int_equal(delete_simple(&f->w, id, 2), -ENOENT);
    assert_true(body_matches(f->port, id, 150000, 3));
    assert_counts(f, "q", 3, 0, 0);

    unit_init(&u); /* the last goes, another comes in the same unit: the message stays */
    unit_delete(&u, id, 1);
    unit_put(&u, id, 5, "r", SPOOL_SCHEDULED, 1, "r");
    assert_int_equal(unit_run(&u, &f->w), 0);
    assert_true(body_matches(f->port, id, 150000, 3));
    assert_counts(f, "q", 2, 0, 0);

    assert_int_equal(delete_simple(&f->w, id, 5), 0);
    assert_int_equal(f->port->read_message(f->port, &id, &f->buf), -ENOENT);
    assert_int_equal(f->port->read_chunk(f->port, &id, 0, &f->buf), -ENOENT);
    assert_int_equal(stats(f).messages, 2);
    assert_int_equal(stats(f).chunks, 2);
    assert_int_equal(delete_simple(&f->w, id_of(3), 0), 0);
    assert_int_equal(delete_simple(&f->w, id_of(5), 0), 0);
    assert_int_equal(stats(f).messages + stats(f).chunks + stats(f).recipients + stats(f).queues,
                     0);
}

static void queues(void **state)
{
    struct fixture *f = *state;
    struct spool_queue q[4];
    struct unit u;
    char big[1025];

    memset(big, 'x', sizeof(big));
    unit_init(&u);
    unit_queue(&u, "beta", STR("what is known"));
    unit_queue(&u, "alpha", str_make(big, 1024));
    assert_int_equal(unit_run(&u, &f->w), 0);
    assert_int_equal(put_simple(&f->w, id_of(1), "beta", 1, 1), 0);
    assert_int_equal(put_simple(&f->w, id_of(2), "gamma", 1, 1), 0);

    assert_int_equal(f->port->scan_queues(f->port, STR(""), q, 4), 3);
    assert_string_equal(q[0].name, "alpha");
    assert_int_equal(q[0].record_n, 1024);
    assert_memory_equal(q[0].record, big, 1024);
    assert_int_equal(q[0].scheduled, 0);
    assert_string_equal(q[1].name, "beta");
    assert_memory_equal(q[1].record, "what is known", 13);
    assert_int_equal(q[1].scheduled, 1);
    assert_string_equal(q[2].name, "gamma");
    assert_int_equal(f->port->scan_queues(f->port, STR("alpha"), q, 1), 1);
    assert_string_equal(q[0].name, "beta");
    assert_int_equal(f->port->scan_queues(f->port, STR("beta2"), q, 4), 1);
    assert_string_equal(q[0].name, "gamma");
    assert_int_equal(f->port->scan_queues(f->port, STR("gamma"), q, 4), 0);

    unit_init(&u); /* forget: the row goes when nothing else is in it */
    unit_queue(&u, "alpha", STR(""));
    unit_queue(&u, "beta", STR(""));
    unit_queue(&u, "never", STR(""));
    assert_int_equal(unit_run(&u, &f->w), 0);
    assert_int_equal(f->port->scan_queues(f->port, STR(""), q, 4), 2);
    assert_int_equal(delete_simple(&f->w, id_of(1), 0), 0);
    assert_int_equal(f->port->read_queue(f->port, STR("beta"), q), -ENOENT);

    unit_init(&u);
    unit_queue(&u, "alpha", str_make(big, 1025));
    assert_int_equal(unit_run(&u, &f->w), -EINVAL);
}

static void entries(void **state)
{
    struct fixture *f = *state;
    struct spool_entry e[8];

    for (uint64_t i = 1; i <= 3; i++) {
        struct unit u;
        unit_init(&u);
        unit_message(&u, id_of(i), STR("e"), body_of(1, 1));
        unit_put(&u, id_of(i), 300, "q", SPOOL_WAITING, 9, "");
        unit_put(&u, id_of(i), 2, "p", SPOOL_SCHEDULED, 8, "");
        assert_int_equal(unit_run(&u, &f->w), 0);
    }
    assert_int_equal(f->port->scan_entries(f->port, NULL, 0, e, 8), 6);
    for (uint32_t i = 0; i < 6; i++) {
        struct msgid id = id_of(1 + i / 2);
        assert_int_equal(msgid_cmp(&e[i].id, &id), 0);
        assert_int_equal(e[i].n, i % 2 ? 300 : 2);
        assert_string_equal(e[i].queue, i % 2 ? "q" : "p");
        assert_int_equal(e[i].class_, i % 2 ? SPOOL_WAITING : SPOOL_SCHEDULED);
    }
    struct msgid id = id_of(2);
    assert_int_equal(f->port->scan_entries(f->port, &id, 2, e, 1), 1);
    assert_int_equal(e[0].n, 300);
    assert_int_equal(f->port->scan_entries(f->port, &id, 300, e, 8), 2);
    assert_int_equal(f->port->scan_entries(f->port, &id, 0, e, 8), 4);
    assert_int_equal(f->port->scan_entries(f->port, &id, 0, e, 0), 0);
}

static char piece[BODY_CHUNK];

/* A body whose pieces from the second on are staged. */
static struct body *staged_body(uint32_t n_chunks)
{
    struct body *b = body_of(1000, 1);

    b->staged = true;
    b->n_chunks = n_chunks;
    return b;
}

static void staging(void **state)
{
    struct fixture *f = *state;
    struct msgid id = id_of(77);
    struct unit u;

    for (uint32_t chunk = 1; chunk <= 5; chunk++) {
        memset(piece, (int)chunk, sizeof(piece));
        unit_init(&u);
        unit_stage(&u, id, chunk, str_make(piece, sizeof(piece)));
        assert_int_equal(unit_run(&u, &f->w), 0);
    }
    assert_int_equal(stats(f).staging, 1);
    assert_int_equal(check_spool(f->spool), 0);

    unit_init(&u); /* a gap */
    unit_stage(&u, id, 7, STR("x"));
    assert_int_equal(unit_run(&u, &f->w), -ENOENT);
    unit_init(&u); /* a message that counts a piece more than there are */
    unit_message(&u, id, STR("e"), staged_body(7));
    unit_put(&u, id, 0, "q", SPOOL_SCHEDULED, 1, "r");
    assert_int_equal(unit_run(&u, &f->w), -ENOENT);
    assert_int_equal(f->port->read_message(f->port, &id, &f->buf), -ENOENT);

    unit_init(&u); /* the last piece in the unit of the message */
    unit_stage(&u, id, 6, STR("end"));
    unit_message(&u, id, STR("e"), staged_body(7));
    unit_put(&u, id, 0, "q", SPOOL_SCHEDULED, 1, "r");
    assert_int_equal(unit_run(&u, &f->w), 0);
    assert_int_equal(stats(f).staging, 0);
    assert_int_equal(stats(f).chunks, 7);
    for (uint32_t chunk = 1; chunk <= 5; chunk++) {
        assert_int_equal(f->port->read_chunk(f->port, &id, chunk, &f->buf), 0);
        assert_int_equal(buf_len(&f->buf), BODY_CHUNK);
        assert_int_equal(buf_str(&f->buf).p[BODY_CHUNK - 1], chunk);
    }
    assert_int_equal(f->port->read_chunk(f->port, &id, 6, &f->buf), 0);
    assert_true(str_eq(buf_str(&f->buf), STR("end")));
    assert_int_equal(f->port->read_chunk(f->port, &id, 0, &f->buf), 0);
    assert_int_equal(buf_len(&f->buf), 1000);

    unit_init(&u);
    unit_stage(&u, id, 1, STR("x"));
    assert_int_equal(unit_run(&u, &f->w), -EEXIST);
    assert_int_equal(delete_simple(&f->w, id, 0), 0);
    assert_int_equal(stats(f).chunks, 0);
}

/* Pieces in memory behind the first follow the staged ones. */
static void staging_with_tail_in_memory(void **state)
{
    struct fixture *f = *state;
    struct msgid id = id_of(78);
    struct body *b = body_of(BODY_CHUNK + 500, 2);
    struct unit u;

    unit_init(&u);
    unit_stage(&u, id, 1, STR("middle"));
    unit_stage(&u, id, 2, STR("middle2"));
    assert_int_equal(unit_run(&u, &f->w), 0);
    b->staged = true;
    b->n_chunks = 4;
    unit_init(&u);
    unit_message(&u, id, STR("e"), b);
    unit_put(&u, id, 0, "q", SPOOL_SCHEDULED, 1, "r");
    assert_int_equal(unit_run(&u, &f->w), 0);
    assert_int_equal(f->port->read_chunk(f->port, &id, 2, &f->buf), 0);
    assert_true(str_eq(buf_str(&f->buf), STR("middle2")));
    assert_int_equal(f->port->read_chunk(f->port, &id, 3, &f->buf), 0);
    assert_int_equal(buf_len(&f->buf), 500);
}

static void unstaging(void **state)
{
    struct fixture *f = *state;
    struct unit u;

    unit_init(&u);
    for (uint32_t chunk = 1; chunk <= 3; chunk++)
        unit_stage(&u, id_of(5), chunk, str_make(piece, sizeof(piece)));
    unit_stage(&u, id_of(6), 1, STR("other"));
    assert_int_equal(unit_run(&u, &f->w), 0);
    unit_init(&u);
    unit_unstage(&u, id_of(5));
    unit_unstage(&u, id_of(99)); /* nothing there: nothing to do */
    assert_int_equal(unit_run(&u, &f->w), 0);
    assert_int_equal(stats(f).chunks, 1);
    assert_int_equal(stats(f).staging, 1);
}

/* The unit fails at its end: nothing of it is done, and its neighbours in the group are. */
static void all_or_nothing(void **state)
{
    struct fixture *f = *state;
    struct unit before, bad, after, fence;

    assert_int_equal(put_simple(&f->w, id_of(1), "q", 1, 100), 0);
    for (int round = 0; round < 20; round++) {
        uint64_t base = 100 + 10 * (uint64_t)round;
        unit_init(&before);
        unit_message(&before, id_of(base), STR("e"), body_of(100, 1));
        unit_put(&before, id_of(base), 0, "before", SPOOL_SCHEDULED, 1, "r");
        unit_init(&bad);
        unit_message(&bad, id_of(base + 1), STR("e"), body_of(100, 1));
        unit_put(&bad, id_of(base + 1), 0, "bad", SPOOL_SCHEDULED, 1, "r");
        unit_queue(&bad, "bad", STR("set"));
        unit_put(&bad, id_of(1), 0, "moved", SPOOL_HELD, 5, "r");
        unit_stage(&bad, id_of(base + 2), 1, STR("staged"));
        unit_delete(&bad, id_of(base + 3), 0);
        unit_init(&after);
        unit_message(&after, id_of(base + 4), STR("e"), body_of(100, 1));
        unit_put(&after, id_of(base + 4), 0, "after", SPOOL_SCHEDULED, 1, "r");
        unit_init(&fence);
        unit_submit(&before, &f->w);
        unit_submit(&bad, &f->w);
        unit_submit(&after, &f->w);
        assert_int_equal(unit_run(&fence, &f->w), 0);
        assert_true(before.done && bad.done && after.done);
        assert_int_equal(before.op.result, 0);
        assert_int_equal(bad.op.result, -ENOENT);
        assert_int_equal(after.op.result, 0);
        unit_free(&before);
        unit_free(&bad);
        unit_free(&after);
    }
    assert_counts(f, "before", 20, 0, 0);
    assert_counts(f, "after", 20, 0, 0);
    assert_counts(f, "bad", 0, 0, 0);
    assert_counts(f, "moved", 0, 0, 0);
    assert_counts(f, "q", 1, 0, 0);
    assert_int_equal(stats(f).staging, 0);
    assert_int_equal(stats(f).failed_ops, 20);
    assert_true(stats(f).reruns >= 20);
}

static void malformed(void **state)
{
    struct fixture *f = *state;
    char name[SPOOL_MAX_QUEUE_NAME + 2];
    struct unit u;

    assert_int_equal(put_simple(&f->w, id_of(1), "q", 1, 100), 0);
    memset(name, 'n', sizeof(name));
    name[SPOOL_MAX_QUEUE_NAME + 1] = '\0';
    unit_init(&u); /* too long by one */
    unit_put(&u, id_of(1), 1, name, SPOOL_SCHEDULED, 1, "r");
    assert_int_equal(unit_run(&u, &f->w), -EINVAL);
    name[SPOOL_MAX_QUEUE_NAME] = '\0';
    unit_init(&u);
    unit_put(&u, id_of(1), 1, name, SPOOL_SCHEDULED, 1, "r");
    assert_int_equal(unit_run(&u, &f->w), 0);
    assert_counts(f, name, 1, 0, 0);
    unit_init(&u);
    unit_put(&u, id_of(1), 1, "", SPOOL_SCHEDULED, 1, "r");
    assert_int_equal(unit_run(&u, &f->w), -EINVAL);
    unit_init(&u);
    unit_put(&u, id_of(1), 1, "a", SPOOL_SCHEDULED, 1, "r");
    u.change[0].recipient.queue = STR("a\0b");
    assert_int_equal(unit_run(&u, &f->w), -EINVAL);
    unit_init(&u);
    unit_put(&u, id_of(1), 1, "a", (enum spool_class)3, 1, "r");
    assert_int_equal(unit_run(&u, &f->w), -EINVAL);
    unit_init(&u); /* a message without recipients would stay for ever */
    unit_message(&u, id_of(2), STR("e"), body_of(1, 1));
    assert_int_equal(unit_run(&u, &f->w), -EINVAL);
    unit_init(&u);
    unit_stage(&u, id_of(2), 0, STR("x"));
    assert_int_equal(unit_run(&u, &f->w), -EINVAL);
    unit_init(&u); /* nothing to do is done */
    assert_int_equal(unit_run(&u, &f->w), 0);
}

/* Ids of several generators do not come in order. */
static void ids_out_of_order(void **state)
{
    struct fixture *f = *state;
    uint64_t x = 12345;

    for (int i = 0; i < 300; i++) {
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
        assert_int_equal(put_simple(&f->w, id_of(x >> 40), "q", (int64_t)(x >> 50), 50), 0);
    }
    assert_counts(f, "q", 300, 0, 0);
    assert_int_equal(check_spool(f->spool), 0);
    struct spool_entry e[300];
    int n = f->port->scan_entries(f->port, NULL, 0, e, 300);
    assert_int_equal(n, 300);
    for (int i = 1; i < n; i++)
        assert_true(msgid_cmp(&e[i - 1].id, &e[i].id) < 0);
    for (int i = 0; i < n; i++)
        assert_int_equal(delete_simple(&f->w, e[i].id, 0), 0);
    assert_int_equal(stats(f).messages, 0);
}

struct chain {
    struct fixture *f;
    int left, order;
};

static void submit_next(struct unit *u)
{
    struct chain *c = u->owner;

    if (c->left-- > 0) {
        u->then = submit_next;
        unit_submit(u, &c->f->w);
    }
}

/* done may submit the unit again; many units of one worker are told in order, with few messages. */
static void completions(void **state)
{
    enum { UNITS = 3000 };
    struct fixture *f = *state;
    struct chain chain = { .f = f, .left = 50 };
    struct unit again;

    unit_init(&again);
    again.then = submit_next;
    again.owner = &chain;
    unit_submit(&again, &f->w);
    while (chain.left >= 0)
        worker_turn(&f->w);

    struct unit *u = calloc(UNITS, sizeof(*u));
    size_t posts = f->w.posts;
    uint64_t commits = stats(f).commits;
    for (int i = 0; i < UNITS; i++) {
        unit_init(&u[i]);
        unit_message(&u[i], id_of((uint64_t)i), STR("e"), body_of(10, 1));
        unit_put(&u[i], id_of((uint64_t)i), 0, "q", SPOOL_SCHEDULED, i, "r");
        unit_submit(&u[i], &f->w);
    }
    for (int i = 0; i < UNITS; i++) {
        while (!u[i].done)
            worker_turn(&f->w);
        assert_int_equal(u[i].op.result, 0);
        unit_free(&u[i]);
    }
    free(u);
    assert_counts(f, "q", UNITS, 0, 0);
    assert_true(stats(f).max_group > 1 && stats(f).max_group <= 1024);
    assert_true(f->w.posts - posts <= stats(f).commits - commits);
}

static void stopped(void **state)
{
    struct fixture *f = *state;
    struct unit u[10];

    for (int i = 0; i < 10; i++) {
        unit_init(&u[i]);
        unit_message(&u[i], id_of((uint64_t)i), STR("e"), body_of(10, 1));
        unit_put(&u[i], id_of((uint64_t)i), 0, "q", SPOOL_SCHEDULED, i, "r");
        unit_submit(&u[i], &f->w);
    }
    spool_stop(f->spool);
    spool_stop(f->spool);
    for (int i = 0; i < 10; i++) {
        while (!u[i].done)
            worker_turn(&f->w);
        assert_int_equal(u[i].op.result, 0);
        unit_free(&u[i]);
    }
    assert_counts(f, "q", 10, 0, 0);
    assert_int_equal(put_simple(&f->w, id_of(100), "q", 1, 1), -ESHUTDOWN);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(round_trip),  T(envelope_update),
        T(due_order),   T(due_order_of_equals),
        T(moves),       T(last_recipient),
        T(queues),      T(entries),
        T(staging),     T(staging_with_tail_in_memory),
        T(unstaging),   T(all_or_nothing),
        T(malformed),   T(ids_out_of_order),
        T(completions), T(stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
