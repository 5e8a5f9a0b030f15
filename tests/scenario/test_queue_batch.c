/* One verb on a handful of recipients in several queues: what an operator's filter has found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine/context.h"
#include "engine/queue_batch.h"
#include "fixture.h"

static struct fixture f;
static struct queue_batch *b;
static bool done;

static int setup(void **state)
{
    fixture_init(&f, 1, 2);
    b = calloc(1, sizeof *b);
    assert_non_null(b);
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    free(b);
    return 0;
}

static void on_done(struct queue_batch *batch)
{
    done = true;
}

static bool is_done(void *arg)
{
    return done;
}

/* All that the spool has and that belongs to that worker. */
static size_t gather(int worker)
{
    struct port_spool *spool = sim_world_ports(f.w, 0)->spool;
    struct spool_entry e[QUEUE_BATCH];
    int n = spool->scan_entries(spool, NULL, 0, e, QUEUE_BATCH);
    b->n = 0;
    for (int i = 0; i < n; i++) {
        if (engine_queue_owner(str_of(e[i].queue), 2) != worker)
            continue;
        struct queue_batch_item *item = &b->item[b->n++];
        item->id = e[i].id;
        item->n = e[i].n;
        memcpy(item->queue, e[i].queue, sizeof item->queue);
    }
    return b->n;
}

static void send(enum queue_batch_type type, int worker)
{
    static uint64_t operation;
    b->type = type;
    b->operation = ++operation;
    b->done = on_done;
    done = false;
    queue_batch_send(sim_world_ports(f.w, 0)->workers, worker, b);
}

static size_t changed, busy;

/* The verb on everything. */
static void all(enum queue_batch_type type)
{
    changed = busy = 0;
    for (int worker = 0; worker < 2; worker++) {
        gather(worker);
        send(type, worker);
        assert_true(sim_world_until(f.w, is_done, NULL, SIM_MINUTE));
        assert_int_equal(b->result, 0);
        for (size_t i = 0; i < b->n; i++) {
            changed += b->item[i].result == BATCH_CHANGED;
            busy += b->item[i].result == BATCH_BUSY;
        }
    }
}

static struct spool_entry entry(size_t i)
{
    struct port_spool *spool = sim_world_ports(f.w, 0)->spool;
    struct spool_entry e[QUEUE_BATCH];
    int n = spool->scan_entries(spool, NULL, 0, e, QUEUE_BATCH);
    assert_true((size_t)n > i);
    return e[i];
}

/* Three messages for each of two dead hosts. */
static void fill(struct sim_host **one, struct sim_host **two)
{
    *one = sim_world_host(f.w, "192.0.2.10");
    *two = sim_world_host(f.w, "192.0.2.11");
    sim_host_down(*one);
    sim_host_down(*two);
    sim_policy_domain(&f.policy, "one.example", sim_route_hosts("192.0.2.10:25", false));
    sim_policy_domain(&f.policy, "two.example", sim_route_hosts("192.0.2.11:25", false));
    fixture_start(&f);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mail_to(&f, "u@one.example"), 250);
        assert_int_equal(mail_to(&f, "u@two.example"), 250);
    }
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(queued(&f), 6);
}

static void test_hold_and_release(void **state)
{
    struct sim_host *one, *two;
    fill(&one, &two);
    all(BATCH_HOLD);
    assert_int_equal(changed, 6);
    sim_host_up(one);
    sim_host_up(two);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(sim_host_inbox(one) + sim_host_inbox(two), 0);
    all(BATCH_HOLD);
    assert_int_equal(changed, 0);
    sim_world_stop(f.w, SIM_MINUTE);
    sim_world_start(f.w);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(entry(0).class_, SPOOL_HELD);
    all(BATCH_RELEASE);
    assert_int_equal(changed, 6);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(sim_host_inbox(one), 3);
    assert_int_equal(sim_host_inbox(two), 3);
    assert_int_equal(queued(&f), 0);
}

/* The back-off of each queue is over, once. */
static void test_retry(void **state)
{
    struct sim_host *one, *two;
    fill(&one, &two);
    sim_world_advance(f.w, SIM_DAY);
    sim_host_up(one);
    sim_host_up(two);
    all(BATCH_RETRY);
    assert_int_equal(changed, 6);
    sim_world_advance(f.w, 5 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(one) + sim_host_inbox(two), 6);
}

static void test_remove(void **state)
{
    struct sim_host *one, *two;
    fill(&one, &two);
    all(BATCH_REMOVE);
    assert_int_equal(changed, 6);
    assert_int_equal(queued(&f), 0);
    sim_spool_check(sim_world_spool(f.w));
    assert_int_equal(counted(&f, "bounced"), 0);
}

static void test_bounce(void **state)
{
    struct sim_host *one, *two, *home = sim_world_host(f.w, "192.0.2.77");
    fill(&one, &two);
    str_copy(STR("closed for good"), b->reason, sizeof b->reason);
    all(BATCH_BOUNCE);
    assert_int_equal(changed, 6);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_host_inbox(home), 6);
    assert_int_equal(got(home, "closed for good"), 6);
}

/* H7: asked anew though the policy has not changed its fingerprint; what goes another way goes at once. */
static void test_H7_reroute(void **state)
{
    struct sim_host *one, *two, *other = sim_world_host(f.w, "192.0.2.12");
    fill(&one, &two);
    all(BATCH_REROUTE);
    assert_int_equal(changed, 6);
    assert_int_equal(queued(&f), 6);
    sim_policy_domain(&f.policy, "one.example", sim_route_hosts("192.0.2.12:25", false));
    all(BATCH_REROUTE);
    assert_int_equal(changed, 6);
    sim_world_advance(f.w, 5 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(other), 3);
    assert_int_equal(queued(&f), 3);
    /* Held mail stays held, in its new queue. */
    all(BATCH_HOLD);
    sim_policy_domain(&f.policy, "two.example", sim_route_hosts("192.0.2.12:25", false));
    all(BATCH_REROUTE);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(sim_host_inbox(other), 3);
    struct spool_entry e = entry(0);
    assert_int_equal(e.class_, SPOOL_HELD);
    assert_string_equal(e.queue, "192.0.2.12:25");
    all(BATCH_RELEASE);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(other), 6);
    sim_spool_check(sim_world_spool(f.w));
}

static void test_edit(void **state)
{
    struct sim_host *one, *two, *other = sim_world_host(f.w, "192.0.2.12");
    fill(&one, &two);
    sim_policy_domain(&f.policy, "new.example", sim_route_hosts("192.0.2.12:25", false));
    str_copy(STR("v@new.example"), b->address, sizeof b->address);
    all(BATCH_EDIT);
    assert_int_equal(changed, 6);
    sim_world_advance(f.w, 5 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(other), 6);
    assert_int_equal(queued(&f), 0);
}

/* What is under way is passed over; the rest of the batch is done. */
static void test_busy(void **state)
{
    struct sim_host *one, *two;
    fill(&one, &two);
    sim_host_up(one);
    sim_host_up(two);
    for (int worker = 0; worker < 2; worker++) {
        gather(worker);
        send(BATCH_RETRY, worker);
        assert_true(sim_world_until(f.w, is_done, NULL, SIM_MINUTE));
    }
    /* One probe a queue is on its way now. */
    sim_world_advance(f.w, 1);
    size_t before = queued(&f);
    all(BATCH_HOLD);
    assert_int_equal(changed + busy, before);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(sim_host_inbox(one) + sim_host_inbox(two), 6 - changed);
    assert_int_equal(queued(&f), changed);
    all(BATCH_RELEASE);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(sim_host_inbox(one) + sim_host_inbox(two), 6);
}

/* A crash between the change and its completion: each message is there, once. */
static void test_crash(void **state)
{
    struct sim_host *one, *two;
    fill(&one, &two);
    for (int i = 0; i < 20; i++) {
        gather(i % 2);
        send(i % 4 < 2 ? BATCH_HOLD : BATCH_RELEASE, i % 2);
        sim_world_advance(f.w, i % 3);
        sim_world_crash(f.w);
        sim_spool_check(sim_world_spool(f.w));
        assert_true(done);
        sim_world_start(f.w);
        assert_int_equal(queued(&f), 6);
    }
    sim_host_up(one);
    sim_host_up(two);
    all(BATCH_RELEASE);
    all(BATCH_RETRY);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(sim_host_inbox(one), 3);
    assert_int_equal(sim_host_inbox(two), 3);
}

/* The engine goes while jobs of a batch are under way: it is told, and nothing is lost. */
static void test_stop_while_bouncing(void **state)
{
    struct sim_host *one, *two;
    fill(&one, &two);
    for (int round = 0; round < 4; round++) {
        gather(round % 2);
        send(round < 2 ? BATCH_REROUTE : BATCH_BOUNCE, round % 2);
        sim_world_stop(f.w, SIM_MINUTE);
        assert_true(done);
        sim_spool_check(sim_world_spool(f.w));
        sim_world_start(f.w);
    }
    assert_true(queued(&f) <= 6);
}

/* Each item of the batch a second time, at its end. */
static void repeat_all(void)
{
    size_t n = b->n;
    for (size_t i = 0; i < n; i++)
        b->item[b->n++] = b->item[i];
}

static void run_repeated(enum queue_batch_type type)
{
    changed = 0;
    for (int worker = 0; worker < 2; worker++) {
        gather(worker);
        repeat_all();
        send(type, worker);
        assert_true(sim_world_until(f.w, is_done, NULL, SIM_MINUTE));
        assert_int_equal(b->result, 0);
        for (size_t i = 0; i < b->n; i++)
            changed += b->item[i].result == BATCH_CHANGED;
    }
}

/* The same recipient twice in a batch: done once. */
static void test_repeated(void **state)
{
    struct sim_host *one, *two, *other = sim_world_host(f.w, "192.0.2.12");
    struct sim_host *home = sim_world_host(f.w, "192.0.2.77");
    fill(&one, &two);
    run_repeated(BATCH_HOLD);
    assert_int_equal(changed, 6);
    run_repeated(BATCH_RELEASE);
    assert_int_equal(changed, 6);
    sim_policy_domain(&f.policy, "one.example", sim_route_hosts("192.0.2.12:25", false));
    run_repeated(BATCH_REROUTE);
    assert_int_equal(changed, 6);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(other), 3);
    assert_int_equal(queued(&f), 3);
    run_repeated(BATCH_BOUNCE);
    assert_int_equal(changed, 3);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(home), 3);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(mail_to(&f, "u@two.example"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    run_repeated(BATCH_REMOVE);
    assert_int_equal(changed, 1);
    assert_int_equal(queued(&f), 0);
    sim_spool_check(sim_world_spool(f.w));
}

static void on_deleted(struct spool_op *op)
{
    assert_int_equal(op->result, 0);
}

/* One has gone between the look at it and the commit: the others are changed all the same. */
static void test_one_has_gone(void **state)
{
    struct sim_host *one, *two;
    struct port_spool *spool;
    fill(&one, &two);
    spool = sim_world_ports(f.w, 0)->spool;
    for (int worker = 0; worker < 2; worker++) {
        size_t n = gather(worker);
        if (n == 0)
            continue;
        struct spool_change gone = { .type = SPOOL_DELETE_RECIPIENT, .id = b->item[1].id };
        gone.recipient.n = b->item[1].n;
        struct spool_op op = { .changes = &gone, .n_changes = 1, .done = on_deleted };
        spool->submit(spool, &op);
        send(BATCH_HOLD, worker);
        assert_true(sim_world_until(f.w, is_done, NULL, SIM_MINUTE));
        assert_int_equal(b->result, 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(b->item[i].result, i == 1 ? BATCH_UNCHANGED : BATCH_CHANGED);
    }
    sim_spool_check(sim_world_spool(f.w));
}

/* Queues that exist only because they were asked about are forgotten. */
static void test_queues_of_what_has_gone(void **state)
{
    static const enum queue_batch_type types[] = { BATCH_HOLD, BATCH_RETRY, BATCH_BOUNCE,
                                                   BATCH_REROUTE };
    struct queue_status st;
    fixture_start(&f);
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        char name[32];
        snprintf(name, sizeof name, "gone%zu.example", i);
        b->n = 1;
        b->item[0] = (struct queue_batch_item){ .n = 1 };
        assert_true(str_copy(str_of(name), b->item[0].queue, sizeof b->item[0].queue));
        int worker = engine_queue_owner(str_of(name), 2);
        send(types[i], worker);
        assert_true(sim_world_until(f.w, is_done, NULL, SIM_MINUTE));
        assert_int_equal(b->item[0].result, BATCH_UNCHANGED);
        sim_world_advance(f.w, SIM_SECOND);
        assert_false(queue_status(sim_world_engine(f.w, worker)->queues, str_of(name), &st));
    }
}

/* A record that cannot be read is one that failed; the rest of the batch is done. */
static void test_one_is_damaged(void **state)
{
    struct sim_host *one, *two;
    fill(&one, &two);
    for (int worker = 0; worker < 2; worker++) {
        size_t n = gather(worker);
        if (n == 0)
            continue;
        sim_spool_fail_reads(sim_world_spool(f.w), 1, -EBADMSG);
        send(BATCH_HOLD, worker);
        assert_true(sim_world_until(f.w, is_done, NULL, SIM_MINUTE));
        assert_int_equal(b->result, -EBADMSG);
        assert_true(queue_batch_is_of_one(b->result));
        for (size_t i = 0; i < n; i++)
            assert_int_equal(b->item[i].result, i == 0 ? BATCH_FAILED : BATCH_CHANGED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_repeated, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_has_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_is_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queues_of_what_has_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hold_and_release, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retry, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remove, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounce, setup, teardown),
        cmocka_unit_test_setup_teardown(test_H7_reroute, setup, teardown),
        cmocka_unit_test_setup_teardown(test_edit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_busy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crash, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_while_bouncing, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
