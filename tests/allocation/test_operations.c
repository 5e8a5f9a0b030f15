/* Memory runs out while mail waits: held by policy and routed anew, let go by an operator, too old at last. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/queue.h"
#include "starved.h"

static void send_to(const char *domain)
{
    const char *const domains[] = { domain };

    ledger_send(&ledger, domains, 1, true);
}

static void new_policy(void)
{
    struct settings *s = fixture_settings();

    s->fingerprint = 2;
    sim_world_configure(f.w, s, sim_policy_hooks, &f.policy);
    settings_unref(s);
    sim_world_reload(f.w);
}

static void no_bounce(const struct ledger_sum *sum)
{
    assert_int_equal(sum->bounced, 0);
}

/* ---- routed anew ------------------------------------------------------------------------------ */

static void begin_held(void)
{
    sim_policy_domain(&f.policy, "a.example", sim_route_hold("a.example"));
}

/* Another policy would deliver what waits: nobody has to say so for each. */
static void started_anew(void)
{
    for (int i = 0; i < 3; i++)
        send_to("a.example");
    sim_policy_domain(&f.policy, "a.example", sim_route_hosts(HOST_C, false));
    new_policy();
}

static void act_hour(void)
{
    sim_world_advance(f.w, SIM_HOUR);
}

static void recover_anew(void)
{
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_host_inbox(host_c), 3);
}

static void test_routed_anew(void **state)
{
    static const struct starved_case c = { .name = "anew",
                                           .begin = begin_held,
                                           .started = started_anew,
                                           .act = act_hour,
                                           .recover = recover_anew,
                                           .look = no_bounce };

    starved_each(&c);
    starved_spells(&c, 5, 4);
    starved_by_chance(&c, 15, 50000);
}

/* ---- commands --------------------------------------------------------------------------------- */

static void command_done(struct queue_command *c)
{
    route_unref(c->route);
    free(c);
}

static void command(enum queue_command_type type, const char *queue, struct route *route)
{
    struct queue_command *c = calloc(1, sizeof *c);

    assert_non_null(c);
    c->type = type;
    c->route = route;
    c->done = command_done;
    assert_true(str_copy(str_of(queue), c->queue, sizeof c->queue));
    queue_command_send(sim_world_ports(f.w, 0)->workers, c);
}

static void started_commands(void)
{
    for (int i = 0; i < 3; i++)
        send_to("a.example");
    sim_host_down(host_b);
    send_to("b.example");
    sim_world_advance(f.w, SIM_SECOND);
    sim_host_up(host_b);
}

static void commands(void)
{
    command(QUEUE_HOLD, "b.example", NULL);
    sim_world_advance(f.w, SIM_MINUTE);
    command(QUEUE_RELEASE, "a.example", sim_route_hosts(HOST_C, false));
    command(QUEUE_UNHOLD, "b.example", NULL);
    command(QUEUE_RETRY, "b.example", NULL);
    sim_world_advance(f.w, SIM_HOUR);
}

static void test_commands(void **state)
{
    static const struct starved_case c = { .name = "commands",
                                           .begin = begin_held,
                                           .started = started_commands,
                                           .act = commands,
                                           .recover = commands, /* what was not done is, then */
                                           .look = no_bounce };

    starved_each(&c);
    starved_spells(&c, 5, 4);
    starved_by_chance(&c, 15, 50000);
}

/* ---- too old ---------------------------------------------------------------------------------- */

static void begin_old(void)
{
    sim_host_down(host_a);
    f.settings->queue.lifetime_ms = 8 * SIM_HOUR;
}

static void started_old(void)
{
    send_to("a.example");
    send_to("a.example");
}

static void act_old(void)
{
    sim_world_advance(f.w, 10 * SIM_HOUR);
}

/* Told once that it is late, and once that it failed. */
static void look_old(const struct ledger_sum *sum)
{
    assert_int_equal(sum->bounced, 2);
    assert_int_equal(sim_host_count_with(back, STR("Action: failed")), 2);
    assert_int_equal(sim_host_count_with(back, STR("Action: delayed")), 2);
}

static void test_too_old(void **state)
{
    static const struct starved_case c = {
        .name = "old", .begin = begin_old, .started = started_old, .act = act_old, .look = look_old
    };

    starved_spells(&c, 9, 0);
}

#define T(test) cmocka_unit_test_teardown(test, starved_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = { T(test_routed_anew), T(test_commands), T(test_too_old) };

    allocation_init();
    return cmocka_run_group_tests_name("allocations of operations", tests, NULL, NULL);
}
