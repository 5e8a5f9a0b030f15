/* The clock on the wall is set while mail waits: nothing waits days longer for that, and nothing is returned early. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine/context.h"
#include "engine/queue.h"
#include "fixture.h"

static struct fixture f;
static struct sim_host *mx, *back;

static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    mx = sim_world_host(f.w, "192.0.2.1");
    back = sim_world_host(f.w, "192.0.2.77");
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

static void set_clock(int64_t by_ms)
{
    sim_clock_step_wall(sim_world_clock(f.w), by_ms);
}

static void restart(void)
{
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
    sim_world_start(f.w);
}

static void later(uint32_t times)
{
    struct sim_rule rule = { .stage = SMTP_STAGE_RCPT,
                             .reply = REPLY(450, ENH(4, 2, 1), "later"),
                             .times = times };
    sim_host_add_rule(mx, &rule);
}

/* ---- back -------------------------------------------------------------------------------------- */

/* It keeps the schedule, to the minute: by how much the clock was set was seen. */
static void test_Q2_set_back_while_it_runs(void **state)
{
    later(3); /* due after 1, 5, 15 minutes */
    fixture_start(&f);
    mail_to(&f, "u@example.com");
    sim_world_advance(f.w, 8 * SIM_MINUTE);
    assert_int_equal(sim_host_rsets(mx), 3);
    set_clock(-3 * SIM_DAY);
    sim_world_advance(f.w, 30 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(counted(&f, "clock_set_back"), 1);
}

/* Many, some of which are under way when it is set; small steps count, too. */
static void test_Q2_set_back_in_small_steps(void **state)
{
    later(60);
    fixture_start(&f);
    for (int i = 0; i < 20; i++)
        mail_to(&f, "u@example.com");
    sim_world_advance(f.w, 7 * SIM_MINUTE + 30 * SIM_SECOND); /* each has had three */
    assert_int_equal(sim_host_inbox(mx), 0);
    for (int i = 0; i < 400; i++) {
        set_clock(-30 * SIM_SECOND);
        if (i % 10 == 0)
            mail_to(&f, "u@example.com");
        sim_world_advance(f.w, SIM_SECOND);
    }
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 60);
}

/* Nobody saw it. Each of them waits no longer than the pause that it was given. */
static void test_Q2_set_back_between_two_starts(void **state)
{
    later(5);
    fixture_start(&f);
    mail_to(&f, "u@example.com");
    sim_world_advance(f.w, 2 * SIM_HOUR); /* its next attempt is an hour after the fifth */
    assert_int_equal(sim_host_inbox(mx), 1);
    later(4);
    mail_to(&f, "u@example.com");
    sim_world_advance(f.w, 22 * SIM_MINUTE); /* the next one is due 30 minutes after the fourth */
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
    set_clock(-10 * SIM_DAY);
    sim_world_start(f.w);
    sim_world_advance(f.w, 34 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 2);
    assert_int_equal(queued(&f), 0);
}

/* It came while the clock was ahead, and its queue backed off before it was tried. */
static void test_Q2_never_tried(void **state)
{
    sim_host_down(mx);
    fixture_start(&f);
    mail_to(&f, "u@example.com");
    sim_world_advance(f.w, SIM_MINUTE);
    mail_to(&f, "v@example.com");
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
    set_clock(-30 * SIM_DAY);
    sim_host_up(mx);
    sim_world_start(f.w);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 2);
}

/* What is due within the longest pause, too, does not wait for as much longer as the clock was set back. */
static void test_Q2_set_back_by_less_than_a_pause(void **state)
{
    later(4); /* due after 1, 5, 15, 30 minutes */
    fixture_start(&f);
    mail_to(&f, "u@example.com");
    sim_world_advance(f.w, 40 * SIM_MINUTE);
    assert_int_equal(sim_host_rsets(mx), 4);
    set_clock(-SIM_HOUR);
    sim_world_advance(f.w, 16 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
}

/* Each with a message, on hold. */
static void start_with_many_queues(void)
{
    enum { MANY = 200 };
    static char addresses[MANY][32];
    for (int i = 0; i < MANY; i++) {
        snprintf(addresses[i], sizeof addresses[i], "u@shop%03d.example", i);
        sim_policy_domain(&f.policy, addresses[i] + 2, sim_route_hold(addresses[i] + 2));
    }
    fixture_start(&f);
    for (int i = 0; i < MANY; i++)
        mail_to(&f, addresses[i]);
}

/* It could not be mended at first, since it was under way, and many other queues were still to be looked at. */
static void test_Q2_under_way_when_it_is_set_back(void **state)
{
    sim_host_set_reach(mx, SIM_SILENT);
    start_with_many_queues();
    mail_to(&f, "u@example.com");
    sim_world_advance(f.w, SIM_SECOND);
    set_clock(-3 * SIM_DAY);
    mail_to(&f, "u@shop000.example"); /* so that it is noticed */
    sim_world_advance(f.w, 20 * SIM_MINUTE);
    sim_host_set_reach(mx, SIM_ACCEPTS);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 1);
}

/* Mail of as many queues as there may be is mended, but not of all of them at once. */
static void test_Q2_many_queues(void **state)
{
    struct sim_spool *spool = sim_world_spool(f.w);
    start_with_many_queues();
    sim_world_advance(f.w, SIM_MINUTE);
    set_clock(-3 * SIM_DAY);
    sim_spool_set_latency(spool, SIM_SECOND);
    mail_to(&f, "u@example.com"); /* so that it is noticed */
    size_t most = 0;
    for (int i = 0; i < 600; i++) {
        sim_world_advance(f.w, 100);
        most = MAX(most, sim_spool_open(spool));
    }
    assert_in_range(most, 1, 40);
    assert_int_equal(counted(&f, "queue_times_mended"), 200);
}

/* What a policy has deferred for longer than the schedule does is no mistake, however often it is looked at. */
static bool in_a_day(void *arg, enum hook h, const struct hook_input *in, struct hook_result *ret)
{
    ret->verdict = VERDICT_DEFER;
    ret->retry_ms = SIM_DAY;
    return true;
}

static void test_a_policys_longer_wait_stands(void **state)
{
    later(1);
    f.policy.ask = in_a_day;
    f.policy.asks = 1u << HOOK_RESULT;
    fixture_start(&f);
    mail_to(&f, "u@example.com");
    for (int i = 0; i < 5; i++) {
        sim_world_advance(f.w, 4 * SIM_HOUR);
        restart();
    }
    assert_int_equal(sim_host_inbox(mx), 0);
    sim_world_advance(f.w, 5 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 1);
}

/* Nor is it when the clock is set back by less than that: it is due when it would have been. */
static void test_a_policys_longer_wait_stands_a_step_back(void **state)
{
    later(1);
    f.policy.ask = in_a_day;
    f.policy.asks = 1u << HOOK_RESULT;
    fixture_start(&f);
    mail_to(&f, "u@example.com");
    sim_world_advance(f.w, SIM_MINUTE);
    set_clock(-SIM_HOUR);
    mail_to(&f, "v@example.com"); /* so that it is noticed */
    sim_world_advance(f.w, 23 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 1);
    sim_world_advance(f.w, SIM_HOUR + SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 2);
}

/* FUTURERELEASE names a moment of the wall's clock. */
static void send_held(const char *params)
{
    char line[128];
    struct sim_session *s = sim_world_session(f.w, NULL);
    assert_int_equal(sim_world_line(f.w, s, "EHLO me.example").code, 250);
    snprintf(line, sizeof line, "MAIL FROM:<client@sender.example> %s", params);
    assert_int_equal(sim_world_line(f.w, s, line).code, 250);
    assert_int_equal(sim_world_line(f.w, s, "RCPT TO:<u@example.com>").code, 250);
    assert_int_equal(sim_world_line(f.w, s, "DATA").code, 354);
    sim_session_write(s, STR("Subject: x\r\n\r\nthe body\r\n"));
    assert_int_equal(sim_world_line(f.w, s, ".").code, 250);
    sim_session_close(s);
}

static void test_held_until_stands(void **state)
{
    static struct net_cidr anybody;
    int64_t until = SIM_EPOCH_MS + SIM_DAY;
    assert_int_equal(net_cidr_parse(STR("0.0.0.0/0"), &anybody), 0);
    f.settings->relay_from = &anybody;
    f.settings->n_relay_from = 1;
    fixture_start(&f);
    send_held("HOLDFOR=86400");
    sim_world_advance(f.w, SIM_MINUTE);
    set_clock(-3 * SIM_DAY);
    mail_to(&f, "v@example.com"); /* so that it is noticed */
    sim_world_advance(f.w, 3 * SIM_DAY);
    assert_int_equal(sim_host_inbox(mx), 1);
    restart();
    sim_world_advance(f.w, 2 * SIM_DAY);
    assert_int_equal(sim_host_inbox(mx), 2);
    assert_in_range(sim_host_received(mx, 1)->wall_ms, until, until + SIM_MINUTE);
}

/* What is held for ETRN is in no order of times to come. */
static void on_command(struct queue_command *c)
{
    route_unref(c->route);
    free(c);
}

static void release(void)
{
    struct queue_command *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->type = QUEUE_RELEASE;
    c->route = sim_route_hosts("192.0.2.1:25", false);
    c->done = on_command;
    assert_true(str_copy(STR("shop"), c->queue, sizeof c->queue));
    queue_command_send(sim_world_ports(f.w, 0)->workers, c);
}

static void test_E8_a_release_after_it_was_set_back(void **state)
{
    sim_policy_domain(&f.policy, "shop.example", sim_route_hold("shop"));
    fixture_start(&f);
    for (int i = 0; i < 300; i++)
        mail_to(&f, "u@shop.example");
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
    set_clock(-5 * SIM_DAY);
    sim_world_start(f.w);
    sim_world_advance(f.w, SIM_MINUTE);
    release();
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 300);
    assert_int_equal(counted(&f, "queue_release_ended"), 1);
}

/* In the middle of a pass: what fails is not tried again and again in that pass. */
static void test_E8_set_back_during_a_release(void **state)
{
    sim_policy_domain(&f.policy, "shop.example", sim_route_hold("shop"));
    later(0);
    sim_host_set_delay(mx, 100);
    fixture_start(&f);
    for (int i = 0; i < 40; i++)
        mail_to(&f, "u@shop.example");
    release();
    sim_world_advance(f.w, SIM_SECOND);
    set_clock(-5 * SIM_DAY);
    sim_world_advance(f.w, 14 * SIM_MINUTE);
    assert_in_range(sim_host_rsets(mx), 40, 200); /* the passes begin after 1, 5 and 15 minutes */
    sim_host_clear_rules(mx);
    sim_world_advance(f.w, SIM_HOUR);
    release();
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 40);
}

/* ---- forward ----------------------------------------------------------------------------------- */

static void test_Q2_forward_and_back_returns_nothing(void **state)
{
    sim_host_down(mx);
    fixture_start(&f);
    for (int i = 0; i < 50; i++)
        mail_to(&f, "u@example.com");
    sim_world_advance(f.w, SIM_HOUR);
    set_clock(20 * SIM_DAY);
    sim_world_advance(f.w, 6 * SIM_HOUR);
    set_clock(-20 * SIM_DAY);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(got(back, "Action: failed"), 0);
    assert_int_equal(queued(&f), 50);
    sim_host_up(mx);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 50);
}

/* Nor what the host defers for itself: it was due at once, and again by the schedule. */
static void test_Q2_forward_and_back_of_what_is_deferred(void **state)
{
    later(0);
    fixture_start(&f);
    for (int i = 0; i < 20; i++)
        mail_to(&f, "u@example.com");
    sim_world_advance(f.w, SIM_HOUR);
    set_clock(20 * SIM_DAY);
    sim_world_advance(f.w, 3 * SIM_HOUR);
    set_clock(-20 * SIM_DAY);
    sim_world_advance(f.w, SIM_MINUTE);
    sim_host_clear_rules(mx);
    sim_world_advance(f.w, 3 * SIM_HOUR);
    assert_int_equal(got(back, "Action: failed"), 0);
    assert_int_equal(sim_host_inbox(mx), 20);
}

/* It stays where it is set: it is believed after a day. */
static void test_Q2_forward_for_good(void **state)
{
    sim_host_down(mx);
    fixture_start(&f);
    for (int i = 0; i < 50; i++)
        mail_to(&f, "u@example.com");
    sim_world_advance(f.w, SIM_HOUR);
    set_clock(20 * SIM_DAY);
    sim_world_advance(f.w, 23 * SIM_HOUR);
    assert_int_equal(queued(&f), 50);
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_int_equal(got(back, "Action: failed"), 50);
    assert_int_equal(queued(&f), 0);
}

int main(void)
{
#define SCENARIO(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        SCENARIO(test_Q2_set_back_while_it_runs),
        SCENARIO(test_Q2_set_back_in_small_steps),
        SCENARIO(test_Q2_set_back_between_two_starts),
        SCENARIO(test_Q2_never_tried),
        SCENARIO(test_Q2_set_back_by_less_than_a_pause),
        SCENARIO(test_Q2_under_way_when_it_is_set_back),
        SCENARIO(test_Q2_many_queues),
        SCENARIO(test_a_policys_longer_wait_stands_a_step_back),
        SCENARIO(test_a_policys_longer_wait_stands),
        SCENARIO(test_held_until_stands),
        SCENARIO(test_E8_a_release_after_it_was_set_back),
        SCENARIO(test_E8_set_back_during_a_release),
        SCENARIO(test_Q2_forward_and_back_returns_nothing),
        SCENARIO(test_Q2_forward_and_back_of_what_is_deferred),
        SCENARIO(test_Q2_forward_for_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
