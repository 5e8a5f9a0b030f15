/* The simulated spool keeps the promises of ports.h: units, order, classes, crashes, faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sim/spool.h"

struct op {
    struct spool_op op;
    struct spool_change changes[8];
    bool done;
};

static struct sim_clock clk;
static struct sim_spool *spool;
static struct port_spool *port;

static void op_done(struct spool_op *op)
{
    CONTAINER_OF(op, struct op, op)->done = true;
}

static int setup(void **state)
{
    sim_clock_init(&clk);
    spool = sim_spool_new(&clk);
    port = sim_spool_port(spool);
    return 0;
}

static int teardown(void **state)
{
    sim_spool_check(spool);
    sim_spool_free(spool);
    sim_clock_done(&clk);
    return 0;
}

static void run(int64_t ms)
{
    int64_t until = clk.now + ms;
    while (sim_clock_turn(&clk, until))
        ;
    sim_clock_pass(&clk, until);
}

static struct msgid id(uint8_t n)
{
    struct msgid i = { { 0 } };
    i.b[15] = n;
    return i;
}

static struct spool_change *next(struct op *o, enum spool_change_type t, uint8_t msg)
{
    struct spool_change *c = &o->changes[o->op.n_changes++];
    c->type = t;
    c->id = id(msg);
    return c;
}

static void add_message(struct op *o, uint8_t msg, const struct body *body)
{
    struct spool_change *c = next(o, SPOOL_PUT_MESSAGE, msg);
    c->message.envelope = STR("envelope");
    c->message.body = body;
}

static void add_recipient(struct op *o, uint8_t msg, uint32_t n, struct str queue,
                          enum spool_class class_, int64_t due)
{
    next(o, SPOOL_PUT_RECIPIENT, msg)->recipient = (struct spool_recipient){
        .n = n, .queue = queue, .class_ = class_, .due_ms = due, .record = STR("record")
    };
}

static void add_delete(struct op *o, uint8_t msg, uint32_t n)
{
    next(o, SPOOL_DELETE_RECIPIENT, msg)->recipient.n = n;
}

static void submit(struct op *o)
{
    o->op.changes = o->changes;
    o->op.done = op_done;
    port->submit(port, &o->op);
    assert_false(o->done);
}

static int commit(struct op *o)
{
    submit(o);
    run(100);
    assert_true(o->done);
    return o->op.result;
}

static struct body *body_of(const char *text)
{
    struct body *b = body_new();
    assert_int_equal(body_append(b, str_of(text)), 0);
    return b;
}

/* Message `msg` with recipient 0 in the queue. */
static void store(uint8_t msg, struct str queue, enum spool_class class_, int64_t due)
{
    struct op o = { 0 };
    struct body *b = body_of("body");
    add_message(&o, msg, b);
    add_recipient(&o, msg, 0, queue, class_, due);
    assert_int_equal(commit(&o), 0);
    body_unref(b);
}

static void test_put_and_read(void **state)
{
    struct buf got;
    struct spool_entry entry;
    struct spool_queue q;
    struct msgid one = id(1), two = id(2);
    buf_init(&got, 0);
    store(1, STR("a"), SPOOL_SCHEDULED, 100);
    assert_int_equal(port->read_message(port, &one, &got), 0);
    assert_true(str_eq(buf_str(&got), STR("envelope")));
    assert_int_equal(port->read_chunk(port, &one, 0, &got), 0);
    assert_true(str_eq(buf_str(&got), STR("body")));
    assert_int_equal(port->read_chunk(port, &one, 1, &got), -ENOENT);
    assert_int_equal(port->read_message(port, &two, &got), -ENOENT);
    assert_int_equal(port->read_recipient(port, &one, 0, &entry, &got), 0);
    assert_string_equal(entry.queue, "a");
    assert_int_equal(entry.due_ms, 100);
    assert_int_equal(port->read_queue(port, STR("a"), &q), 0);
    assert_int_equal(q.scheduled, 1);
    assert_int_equal(port->read_queue(port, STR("b"), &q), -ENOENT);
    buf_done(&got);
}

static void test_units_are_atomic(void **state)
{
    struct op o = { 0 };
    store(1, STR("a"), SPOOL_SCHEDULED, 100);
    add_recipient(&o, 1, 1, STR("b"), SPOOL_SCHEDULED, 1);
    add_recipient(&o, 1, 0, STR("b"), SPOOL_HELD, 1);
    add_delete(&o, 9, 0); /* is not there */
    assert_int_equal(commit(&o), -ENOENT);
    struct spool_queue q;
    assert_int_equal(sim_spool_recipients(spool), 1);
    assert_int_equal(port->read_queue(port, STR("b"), &q), -ENOENT);
    assert_int_equal(port->read_queue(port, STR("a"), &q), 0);
    assert_int_equal(q.scheduled, 1);

    struct op nowhere = { 0 };
    add_recipient(&nowhere, 7, 0, STR("a"), SPOOL_SCHEDULED, 1);
    assert_int_equal(commit(&nowhere), -ENOENT);
    struct op twice = { 0 };
    add_delete(&twice, 1, 0);
    add_delete(&twice, 1, 0);
    assert_int_equal(commit(&twice), -ENOENT);
    assert_int_equal(sim_spool_messages(spool), 1);
}

static void test_last_recipient_takes_the_message(void **state)
{
    struct op o = { 0 }, last = { 0 }, swap = { 0 };
    store(1, STR("a"), SPOOL_SCHEDULED, 100);
    add_recipient(&o, 1, 1, STR("b"), SPOOL_WAITING, 5);
    add_delete(&o, 1, 0);
    assert_int_equal(commit(&o), 0);
    assert_int_equal(sim_spool_messages(spool), 1);
    add_delete(&swap, 1, 1);
    add_recipient(&swap, 1, 2, STR("c"), SPOOL_SCHEDULED, 5);
    assert_int_equal(commit(&swap), 0);
    assert_int_equal(sim_spool_messages(spool), 1);
    add_delete(&last, 1, 2);
    assert_int_equal(commit(&last), 0);
    assert_int_equal(sim_spool_messages(spool), 0);
    struct spool_queue q;
    assert_int_equal(port->scan_queues(port, STR(""), &q, 1), 0);
}

static void test_scans(void **state)
{
    struct spool_due due[8];
    struct spool_queue queues[8];
    struct spool_entry entries[8];
    struct op o = { 0 };
    store(3, STR("a"), SPOOL_SCHEDULED, 100);
    store(1, STR("a"), SPOOL_SCHEDULED, 200);
    store(2, STR("a"), SPOOL_SCHEDULED, 100);
    store(4, STR("a"), SPOOL_WAITING, 50);
    store(5, STR("b"), SPOOL_SCHEDULED, -7);
    next(&o, SPOOL_SET_QUEUE, 0)->queue.name = STR("aa");
    o.changes[0].queue.record = STR("held");
    assert_int_equal(commit(&o), 0);
    assert_int_equal(port->scan_due(port, STR("a"), SPOOL_SCHEDULED, NULL, INT64_MAX, due, 8), 3);
    assert_int_equal(due[0].id.b[15], 2);
    assert_int_equal(due[1].id.b[15], 3);
    assert_int_equal(due[2].id.b[15], 1);
    assert_int_equal(port->scan_due(port, STR("a"), SPOOL_SCHEDULED, &due[0], 150, due, 8), 1);
    assert_int_equal(due[0].id.b[15], 3);
    assert_int_equal(port->scan_due(port, STR("b"), SPOOL_SCHEDULED, NULL, 0, due, 8), 1);
    assert_int_equal(port->scan_queues(port, STR(""), queues, 2), 2);
    assert_string_equal(queues[0].name, "a");
    assert_int_equal(queues[0].waiting, 1);
    assert_string_equal(queues[1].name, "aa");
    assert_memory_equal(queues[1].record, "held", 4);
    assert_int_equal(port->scan_queues(port, STR("aa"), queues, 8), 1);
    assert_string_equal(queues[0].name, "b");
    assert_int_equal(port->scan_entries(port, NULL, 0, entries, 3), 3);
    assert_int_equal(entries[2].id.b[15], 3);
    assert_int_equal(port->scan_entries(port, &entries[2].id, 0, entries, 8), 2);
}

static void test_staging(void **state)
{
    struct buf got;
    struct msgid one = id(1);
    buf_init(&got, 0);
    for (uint32_t chunk = 1; chunk <= 2; chunk++) {
        struct op o = { 0 };
        struct spool_change *c = next(&o, SPOOL_STAGE, 1);
        c->stage.chunk = chunk;
        c->stage.bytes = chunk == 1 ? STR("one") : STR("two");
        assert_int_equal(commit(&o), 0);
    }
    assert_int_equal(sim_spool_staged(spool), 1);
    struct body *b = body_of("zero");
    b->staged = true;
    b->n_chunks = 3;
    struct op put = { 0 };
    add_message(&put, 1, b);
    add_recipient(&put, 1, 0, STR("a"), SPOOL_SCHEDULED, 0);
    assert_int_equal(commit(&put), 0);
    body_unref(b);
    assert_int_equal(sim_spool_staged(spool), 0);
    assert_int_equal(port->read_chunk(port, &one, 2, &got), 0);
    assert_true(str_eq(buf_str(&got), STR("two")));
    struct op gone = { 0 }, drop = { 0 };
    next(&gone, SPOOL_STAGE, 2)->stage.chunk = 1;
    assert_int_equal(commit(&gone), 0);
    next(&drop, SPOOL_UNSTAGE, 2);
    assert_int_equal(commit(&drop), 0);
    assert_int_equal(sim_spool_staged(spool), 0);
    buf_done(&got);
}

static bool crash_synced;
static void interrupt(void *arg, uint64_t n, bool synced)
{
    if (synced == crash_synced)
        sim_clock_interrupt(&clk);
}

static void test_crash(void **state)
{
    for (int synced = 0; synced < 2; synced++) {
        struct op o = { 0 }, other = { 0 };
        struct body *b = body_of("body");
        size_t before = sim_spool_messages(spool);
        add_message(&o, (uint8_t)(1 + synced), b);
        add_recipient(&o, (uint8_t)(1 + synced), 0, STR("a"), SPOOL_SCHEDULED, 0);
        crash_synced = synced;
        sim_spool_on_commit(spool, interrupt, NULL);
        submit(&o);
        while (sim_clock_turn(&clk, clk.now + 100) && !clk.interrupted)
            ;
        assert_true(clk.interrupted);
        sim_spool_crash(spool);
        next(&other, SPOOL_UNSTAGE, 1);
        submit(&other); /* too late */
        assert_false(o.done);
        sim_spool_settle(spool);
        assert_true(o.done && other.done);
        assert_int_equal(o.op.result, -ESHUTDOWN);
        assert_int_equal(sim_spool_messages(spool), before + (size_t)synced);
        sim_spool_on_commit(spool, NULL, NULL);
        body_unref(b);
    }
}

static void test_faults(void **state)
{
    struct buf got;
    struct msgid one = id(1);
    struct op a = { 0 }, b = { 0 }, c = { 0 };
    struct body *body = body_of("body");
    buf_init(&got, 0);
    store(1, STR("a"), SPOOL_SCHEDULED, 0);
    sim_spool_fail_commits(spool, 1, -EIO);
    add_recipient(&a, 1, 1, STR("a"), SPOOL_SCHEDULED, 0);
    assert_int_equal(commit(&a), -EIO);
    sim_spool_set_full(spool, true);
    add_message(&b, 2, body);
    add_recipient(&b, 2, 0, STR("a"), SPOOL_SCHEDULED, 0);
    assert_int_equal(commit(&b), -ENOSPC);
    add_recipient(&c, 1, 0, STR("b"), SPOOL_SCHEDULED, 9);
    assert_int_equal(commit(&c), 0);
    sim_spool_fail_reads(spool, 1, -EIO);
    assert_int_equal(port->read_message(port, &one, &got), -EIO);
    assert_int_equal(port->read_message(port, &one, &got), 0);
    buf_done(&got);
    body_unref(body);
}

static void test_one_commit_takes_all(void **state)
{
    struct op o[10] = { 0 };
    struct body *b = body_of("body");
    for (uint8_t i = 0; i < 10; i++) {
        add_message(&o[i], i, b);
        add_recipient(&o[i], i, 0, STR("a"), SPOOL_SCHEDULED, 0);
        submit(&o[i]);
    }
    run(100);
    assert_int_equal(sim_spool_commits(spool), 1);
    assert_int_equal(sim_spool_messages(spool), 10);
    body_unref(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_put_and_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_units_are_atomic, setup, teardown),
        cmocka_unit_test_setup_teardown(test_last_recipient_takes_the_message, setup, teardown),
        cmocka_unit_test_setup_teardown(test_scans, setup, teardown),
        cmocka_unit_test_setup_teardown(test_staging, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crash, setup, teardown),
        cmocka_unit_test_setup_teardown(test_faults, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_commit_takes_all, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
