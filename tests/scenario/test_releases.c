/* Releases of waiting mail (ETRN, ATRN) in a queue that has other things to do, too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/context.h"
#include "engine/queue.h"
#include "fixture.h"

static struct fixture f;
static struct sim_host *shop, *busy;

/* The queue "shop" has held mail of shop.example, and mail of busy.example that goes elsewhere. */
static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    shop = sim_world_host(f.w, "192.0.2.10");
    busy = sim_world_host(f.w, "192.0.2.11");
    sim_policy_domain(&f.policy, "shop.example", sim_route_hold("shop"));
    struct route *other = sim_route_hosts("192.0.2.11:25", false);
    sim_policy_domain(&f.policy, "busy.example", route_in_queue(other, STR("shop")));
    route_unref(other);
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

static void post(const char *recipient, int n)
{
    for (int i = 0; i < n; i++) {
        struct str rcpt = str_of(recipient);
        struct sim_mail m = { .sender = STR("client@sender.example"),
                              .recipients = &rcpt,
                              .n_recipients = 1,
                              .content = STR("Subject: x\r\n\r\nhello\r\n") };
        sim_world_post(f.w, &m);
    }
}

static size_t commands_done;

static void on_command(struct queue_command *c)
{
    commands_done++;
    route_unref(c->route);
    free(c);
}

static void release(bool once)
{
    struct queue_command *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->type = QUEUE_RELEASE;
    c->route = sim_route_hosts("192.0.2.10:25", false);
    c->once = once;
    c->done = on_command;
    assert_true(str_copy(STR("shop"), c->queue, sizeof c->queue));
    commands_done = 0;
    queue_command_send(sim_world_ports(f.w, 0)->workers, c);
}

static size_t waiting(void)
{
    struct spool_due due[512];
    struct port_spool *spool = sim_world_ports(f.w, 0)->spool;
    int n = spool->scan_due(spool, STR("shop"), SPOOL_WAITING, NULL, INT64_MAX, due, 512);
    assert_true(n >= 0);
    return (size_t)n;
}

/* The others never stop, and one of them at least is under way at any time. */
static void test_E8_others_keep_no_release_open(void **state)
{
    sim_host_set_delay(busy, 500);
    fixture_start(&f);
    post("u@shop.example", 10);
    post("u@busy.example", 20);
    sim_world_advance(f.w, SIM_SECOND);
    release(false);
    for (int i = 0; i < 60; i++) {
        post("u@busy.example", 8);
        sim_world_advance(f.w, SIM_SECOND);
        assert_true(sim_host_open(busy) > 0);
    }
    assert_int_equal(sim_host_inbox(shop), 10);
    assert_int_equal(counted(&f, "queue_release_ended"), 1);
    post("u@shop.example", 5); /* it is over: these are held */
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(shop), 10);
    assert_int_equal(waiting(), 5);
}

/* One pass, which ends as soon as each has been tried; what is under way elsewhere takes minutes to fail. */
static void test_one_pass_ends_by_itself(void **state)
{
    struct sim_rule later = { .stage = SMTP_STAGE_RCPT,
                              .address = STR("later@shop.example"),
                              .reply = REPLY(450, ENH(4, 2, 1), "later") };
    sim_host_set_reach(busy, SIM_SILENT);
    sim_host_add_rule(shop, &later);
    fixture_start(&f);
    post("u@shop.example", 3);
    post("later@shop.example", 2);
    post("u@busy.example", 1);
    sim_world_advance(f.w, SIM_SECOND);
    release(true);
    sim_world_advance(f.w, 5 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(shop), 3);
    assert_int_equal(commands_done, 1);
    assert_int_equal(waiting(), 2);
    assert_int_equal(sim_host_rsets(shop), 2); /* each of them once */
}

/* Its host has gone: it ends, and nothing more of it is begun. */
static void test_one_pass_ends_with_its_host(void **state)
{
    sim_host_set_reach(busy, SIM_SILENT);
    sim_host_down(shop);
    fixture_start(&f);
    post("u@shop.example", 30);
    post("u@busy.example", 1);
    sim_world_advance(f.w, SIM_SECOND);
    release(true);
    sim_world_advance(f.w, 5 * SIM_SECOND);
    assert_int_equal(commands_done, 1);
    assert_int_equal(waiting(), 30);
    assert_int_equal(sim_host_inbox(shop), 0);
    sim_host_up(shop);
    release(true);
    sim_world_advance(f.w, 10 * SIM_SECOND);
    assert_int_equal(commands_done, 1);
    assert_int_equal(sim_host_inbox(shop), 30);
}

/* The backlog of the others is longer than the window, on disk, and its host is slow. */
static void test_E8_a_backlog_does_not_hold_it_up(void **state)
{
    sim_host_down(busy);
    fixture_start(&f);
    post("u@busy.example", 1500);
    post("u@shop.example", 40);
    sim_world_advance(f.w, 10 * SIM_SECOND);
    assert_int_equal(waiting(), 40);
    sim_host_up(busy);
    sim_host_set_delay(busy, 500);
    sim_world_advance(f.w, 2 * SIM_MINUTE);
    assert_in_range(queued(&f), 1000, 1540);
    release(false);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(shop), 40);
    assert_int_equal(counted(&f, "queue_release_ended"), 1);
    assert_in_range(queued(&f), 500, 1500);
    size_t before = sim_host_inbox(busy);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_true(sim_host_inbox(busy) > before + 20);
}

/* One of them cannot be read, and stays where it is: the others go, and the pass ends without it. */
static void test_one_pass_ends_without_what_is_damaged(void **state)
{
    struct spool_due due[64];
    fixture_start(&f);
    post("u@shop.example", 60);
    sim_world_advance(f.w, SIM_SECOND);
    struct port_spool *spool = sim_world_ports(f.w, 0)->spool;
    assert_int_equal(spool->scan_due(spool, STR("shop"), SPOOL_WAITING, NULL, INT64_MAX, due, 64),
                     60);
    sim_spool_damage(sim_world_spool(f.w), &due[20].id, due[20].n);
    release(true);
    sim_world_advance(f.w, 10 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(shop), 59);
    assert_int_equal(commands_done, 1);
    assert_int_equal(counted(&f, "queue_release_ended"), 1);
}

/* Messages with a recipient of each kind: when nothing more of the release is begun, the other ones still go. */
static void test_what_is_called_off_hides_nothing(void **state)
{
    struct str both[] = { STR("u@shop.example"), STR("u@busy.example") };
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = both,
                          .n_recipients = 2,
                          .content = STR("Subject: x\r\n\r\nhello\r\n") };
    sim_host_down(busy);
    sim_host_down(shop);
    fixture_start(&f);
    post("u@shop.example", 3);
    sim_world_advance(f.w, SIM_SECOND);
    for (int i = 0; i < 10; i++)
        sim_world_post(f.w, &m);
    sim_world_advance(f.w, SIM_SECOND);
    sim_host_up(busy);
    release(true);
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_int_equal(commands_done, 1);
    assert_int_equal(waiting(), 13);
    assert_int_equal(sim_host_inbox(busy), 10);
}

int main(void)
{
#define SCENARIO(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        SCENARIO(test_E8_others_keep_no_release_open),
        SCENARIO(test_one_pass_ends_by_itself),
        SCENARIO(test_one_pass_ends_with_its_host),
        SCENARIO(test_E8_a_backlog_does_not_hold_it_up),
        SCENARIO(test_one_pass_ends_without_what_is_damaged),
        SCENARIO(test_what_is_called_off_hides_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
