/* Routes with hours: mail waits for them, and nothing runs over. The world begins at midnight; its local
 * time is UTC unless a test says otherwise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/queue.h"
#include "fixture.h"

static struct fixture f;
static struct sim_host *mx;

static struct route *route_with(const char *hours)
{
    struct route *r = sim_route_hosts("192.0.2.1:25", false);
    assert_int_equal(hours_parse(str_of(hours), &r->hours), 0);
    return r;
}

static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    mx = sim_world_host(f.w, "192.0.2.1");
    sim_policy_domain(&f.policy, "example.com", route_with("22:00-06:00"));
    fixture_start(&f);
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

/* The hour of the day at which the i-th message arrived. */
static int64_t arrived(size_t i)
{
    return sim_host_received(mx, i)->wall_ms / SIM_HOUR % 24;
}

static void test_within(void **state)
{
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx), 1);
}

static void test_waits(void **state)
{
    sim_world_advance(f.w, 12 * SIM_HOUR);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 9 * SIM_HOUR + 50 * SIM_MINUTE);
    assert_int_equal(sim_host_sessions(mx), 0);
    sim_world_stop(f.w, SIM_MINUTE);
    sim_world_start(f.w);
    sim_world_advance(f.w, 9 * SIM_MINUTE);
    assert_int_equal(sim_host_sessions(mx), 0);
    sim_world_advance(f.w, 2 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(arrived(0), 22);
    assert_int_equal(counted(&f, "postponed"), 1);
    assert_int_equal(counted(&f, "deferred"), 0);
}

/* Down all night, back in the morning: what was due in the night waits for the next one. */
static void test_does_not_run_over(void **state)
{
    sim_host_down(mx);
    for (int i = 0; i < 5; i++)
        mail_to(&f, "u@example.com");
    sim_world_advance(f.w, 7 * SIM_HOUR);
    sim_host_up(mx);
    sim_world_advance(f.w, 14 * SIM_HOUR);
    assert_int_equal(sim_host_sessions(mx), 0);
    assert_int_equal(queued(&f), 5);
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 5);
    assert_int_equal(arrived(4), 22);
}

/* Its retries, too, keep to the hours. */
static void test_retries(void **state)
{
    sim_host_reply(mx, SMTP_STAGE_RCPT, 451, STR("not yet"));
    mail_to(&f, "u@example.com");
    sim_world_advance(f.w, 7 * SIM_HOUR);
    uint64_t sessions = sim_host_sessions(mx);
    assert_true(sessions > 3);
    sim_world_advance(f.w, 14 * SIM_HOUR);
    assert_int_equal(sim_host_sessions(mx), sessions);
    sim_host_clear_rules(mx);
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 1);
}

static void on_command(struct queue_command *c)
{
    assert_int_equal(c->result, 0);
    free(c);
}

/* An operator who asks for it gets it at once: all of it, not only the first. */
static void test_operator_retries(void **state)
{
    sim_world_advance(f.w, 12 * SIM_HOUR);
    for (int i = 0; i < 60; i++)
        mail_to(&f, "u@example.com");
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_sessions(mx), 0);
    struct queue_command *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->type = QUEUE_RETRY;
    c->done = on_command;
    strcpy(c->queue, "192.0.2.1:25");
    queue_command_send(sim_world_ports(f.w, 0)->workers, c);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 60);
}

/* A policy that is given hours holds for what is in the queue, and one that loses them. */
static void test_policy_changes(void **state)
{
    sim_world_advance(f.w, 12 * SIM_HOUR);
    mail_to(&f, "u@example.com");
    sim_policy_domain(&f.policy, "example.com", route_with("14:00-15:00"));
    struct settings *s = fixture_settings();
    s->fingerprint = 2;
    sim_world_configure(f.w, s, sim_policy_hooks, &f.policy);
    settings_unref(s);
    sim_world_reload(f.w);
    sim_world_advance(f.w, 11 * SIM_HOUR); /* asked anew at its next attempt, at 22 */
    assert_int_equal(sim_host_sessions(mx), 0);
    sim_world_advance(f.w, 16 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(arrived(0), 14);
}

static int64_t zone_ms;

static int64_t zone(struct port_clock *self, int64_t wall_ms)
{
    return zone_ms;
}

static void test_local_time(void **state)
{
    sim_world_clock(f.w)->port.zone = zone;
    zone_ms = -5 * SIM_HOUR;
    mail_to(&f, "u@example.com"); /* it is 19:00 */
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_int_equal(sim_host_sessions(mx), 0);
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(arrived(0), 3);
}

static int64_t forward_at;

static int64_t zone_set_forward(struct port_clock *self, int64_t wall_ms)
{
    return wall_ms < forward_at ? 0 : SIM_HOUR;
}

/* In the night before summer time begins, mail waits for an hour of the day after it. */
static void test_clock_set_forward(void **state)
{
    struct sim_clock *clock = sim_world_clock(f.w);
    clock->port.zone = zone_set_forward;
    forward_at = sim_wall(clock) + 10 * SIM_HOUR; /* 10:00 becomes 11:00 */
    sim_policy_domain(&f.policy, "example.com", route_with("14:00-14:30"));
    sim_policy_domain(&f.policy, "example.org", route_with("10:30-11:45")); /* begins in the gap */
    sim_world_advance(f.w, 8 * SIM_HOUR);
    mail_to(&f, "u@example.com");
    mail_to(&f, "u@example.org");
    sim_world_advance(f.w, 4 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(arrived(0), 10);
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 2);
    assert_int_equal(arrived(1), 13);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_within, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_does_not_run_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retries, setup, teardown),
        cmocka_unit_test_setup_teardown(test_operator_retries, setup, teardown),
        cmocka_unit_test_setup_teardown(test_policy_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_local_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clock_set_forward, setup, teardown),
    };
    return cmocka_run_group_tests_name("hours", tests, NULL, NULL);
}
