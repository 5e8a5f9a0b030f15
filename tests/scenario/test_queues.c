/* Mail that is held, released, moved, removed: by policy, by ETRN, by an operator. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/queue.h"
#include "fixture.h"

static struct fixture f;

static int setup(void **state)
{
    fixture_init(&f, 1, 2);
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

/* ---- commands --------------------------------------------------------------------------------- */

static bool command_done;
static int command_result;
static uint64_t command_affected;

static void on_command(struct queue_command *c)
{
    command_done = true;
    command_result = c->result;
    command_affected = c->affected;
    route_unref(c->route);
    free(c);
}

static bool is_done(void *arg)
{
    return command_done;
}

/* id: of one message, or NULL. route is taken over. */
static int command(enum queue_command_type type, const char *queue, const struct msgid *id,
                   struct route *route, int64_t window_ms)
{
    struct queue_command *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->type = type;
    c->done = on_command;
    c->route = route;
    c->window_ms = window_ms;
    c->one_message = id != NULL;
    if (id)
        c->id = *id;
    assert_true(str_copy(str_of(queue), c->queue, sizeof c->queue));
    command_done = false;
    queue_command_send(sim_world_ports(f.w, 0)->workers, c);
    assert_true(sim_world_until(f.w, is_done, NULL, SIM_MINUTE));
    return command_result;
}

static struct spool_entry first_entry(void)
{
    struct port_spool *spool = sim_world_ports(f.w, 0)->spool;
    struct spool_entry e;
    assert_int_equal(spool->scan_entries(spool, NULL, 0, &e, 1), 1);
    return e;
}

/* ---- held by policy --------------------------------------------------------------------------- */

/* E7: not on arrival, not by time, not at a restart. */
/* Not at its arrival, not later, not by a flush of its queue, not by a restart or a reload. */
static void test_E7_held_goes_nowhere(void **state)
{
    sim_policy_domain(&f.policy, "shop.example", sim_route_hold("shop.example"));
    fixture_start(&f);
    for (int i = 0; i < 5; i++)
        assert_int_equal(mail_to(&f, "u@shop.example"), 250);
    uint64_t dials = sim_net_dials(sim_world_net(f.w));
    sim_world_advance(f.w, 3 * SIM_DAY);
    assert_int_equal(command(QUEUE_RETRY, "shop.example", NULL, NULL, 0), 0);
    sim_world_advance(f.w, SIM_HOUR);
    sim_world_stop(f.w, SIM_MINUTE);
    sim_world_start(f.w);
    sim_world_advance(f.w, SIM_DAY);
    sim_world_reload(f.w);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(queued(&f), 5);
    assert_int_equal(sim_net_dials(sim_world_net(f.w)), dials);
    assert_int_equal(first_entry().class_, SPOOL_WAITING);
}

/* E5, E9: only that domain's recipients go. */
static void test_release(void **state)
{
    struct str to[] = { STR("a@shop.example"), STR("b@other.example") };
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = to,
                          .n_recipients = 2,
                          .content = STR("Subject: x\r\n\r\nhello\r\n") };
    struct sim_host *shop = sim_world_host(f.w, "192.0.2.10");
    sim_policy_domain(&f.policy, "shop.example", sim_route_hold("shop.example"));
    sim_policy_domain(&f.policy, "other.example", sim_route_hold("other.example"));
    fixture_start(&f);
    assert_int_equal(sim_world_send(f.w, &m)->accepted, 2);
    assert_int_equal(
        command(QUEUE_RELEASE, "shop.example", NULL, sim_route_hosts("192.0.2.10:25", false), 0),
        0);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(shop), 1);
    assert_int_equal(sim_host_received(shop, 0)->n_recipients, 1);
    assert_int_equal(queued(&f), 1);
    /* What comes later is held again. */
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(mail_to(&f, "a@shop.example"), 250);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(sim_host_inbox(shop), 1);
    assert_int_equal(queued(&f), 2);
}

/* E8: what fails is tried again within the window, and then held. */
static void test_E8_release_fails(void **state)
{
    struct sim_host *shop = sim_world_host(f.w, "192.0.2.10");
    sim_policy_domain(&f.policy, "shop.example", sim_route_hold("shop.example"));
    fixture_start(&f);
    for (int i = 0; i < 3; i++)
        mail_to(&f, "a@shop.example");
    sim_host_down(shop);
    command(QUEUE_RELEASE, "shop.example", NULL, sim_route_hosts("192.0.2.10:25", false),
            10 * SIM_MINUTE);
    sim_world_advance(f.w, SIM_HOUR);
    sim_host_up(shop);
    uint64_t dials = sim_net_dials(sim_world_net(f.w));
    sim_world_advance(f.w, 2 * SIM_DAY);
    assert_int_equal(sim_net_dials(sim_world_net(f.w)), dials);
    assert_int_equal(sim_host_inbox(shop), 0);
    assert_int_equal(queued(&f), 3);
    /* A new request overrides the back-off of the host. */
    sim_host_down(shop);
    command(QUEUE_RELEASE, "shop.example", NULL, sim_route_hosts("192.0.2.10:25", false), 0);
    sim_world_advance(f.w, SIM_SECOND);
    sim_host_up(shop);
    command(QUEUE_RELEASE, "shop.example", NULL, sim_route_hosts("192.0.2.10:25", false), 0);
    sim_world_advance(f.w, 5 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(shop), 3);
    assert_int_equal(queued(&f), 0);
}

/* A released message that the host refuses for now is held again, with its attempt noted; one that it
 * refuses for good bounces. */
static void test_release_is_refused(void **state)
{
    struct sim_host *shop = sim_world_host(f.w, "192.0.2.10");
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    struct sim_rule busy = { .stage = SMTP_STAGE_RCPT,
                             .address = STR("busy@shop.example"),
                             .reply = REPLY(450, ENH(4, 2, 1), "busy") };
    struct sim_rule no = { .stage = SMTP_STAGE_RCPT,
                           .address = STR("no@shop.example"),
                           .reply = REPLY(550, ENH(5, 1, 1), "no") };
    sim_host_add_rule(shop, &busy);
    sim_host_add_rule(shop, &no);
    sim_policy_domain(&f.policy, "shop.example", sim_route_hold("shop.example"));
    fixture_start(&f);
    mail_to(&f, "busy@shop.example");
    mail_to(&f, "no@shop.example");
    mail_to(&f, "yes@shop.example");
    command(QUEUE_RELEASE, "shop.example", NULL, sim_route_hosts("192.0.2.10:25", false), 0);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(sim_host_inbox(shop), 1);
    assert_int_equal(sim_host_inbox(back), 1);
    assert_int_equal(queued(&f), 1);
    assert_int_equal(first_entry().class_, SPOOL_WAITING);
    sim_host_clear_rules(shop);
    sim_world_advance(f.w, 3 * SIM_DAY);
    assert_int_equal(sim_host_inbox(shop), 1);
    command(QUEUE_RELEASE, "shop.example", NULL, sim_route_hosts("192.0.2.10:25", false), 0);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(shop), 2);
}

/* A release that has begun survives neither a crash nor a restart: the mail is held, not lost. */
static void test_release_and_crash(void **state)
{
    struct sim_host *shop = sim_world_host(f.w, "192.0.2.10");
    sim_policy_domain(&f.policy, "shop.example", sim_route_hold("shop.example"));
    fixture_start(&f);
    for (int i = 0; i < 10; i++)
        mail_to(&f, "a@shop.example");
    sim_host_down(shop);
    command(QUEUE_RELEASE, "shop.example", NULL, sim_route_hosts("192.0.2.10:25", false), 0);
    sim_world_crash(f.w);
    sim_host_up(shop);
    sim_world_start(f.w);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(queued(&f), 10);
    command(QUEUE_RELEASE, "shop.example", NULL, sim_route_hosts("192.0.2.10:25", false), 0);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(shop), 10);
}

/* More than a window of held mail. */
static void test_release_many(void **state)
{
    struct sim_host *shop = sim_world_host(f.w, "192.0.2.10");
    sim_policy_domain(&f.policy, "shop.example", sim_route_hold("shop.example"));
    fixture_start(&f);
    for (int i = 0; i < 700; i++)
        mail_to(&f, "a@shop.example");
    command(QUEUE_RELEASE, "shop.example", NULL, sim_route_hosts("192.0.2.10:25", false), 0);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(shop), 700);
    assert_int_equal(queued(&f), 0);
}

/* ---- the operator ----------------------------------------------------------------------------- */

static void test_Q8_operator_holds_a_queue(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    fixture_start(&f);
    assert_int_equal(command(QUEUE_HOLD, "example.com", NULL, NULL, 0), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(sim_host_inbox(mx), 0);
    sim_world_crash(f.w); /* the hold is a fact of the queue */
    sim_world_start(f.w);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(sim_host_inbox(mx), 0);
    assert_int_equal(command(QUEUE_UNHOLD, "example.com", NULL, NULL, 0), 0);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 3);
}

static void test_Q8_operator_holds_a_message(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    sim_host_down(mx);
    fixture_start(&f);
    mail_to(&f, "one@example.com");
    mail_to(&f, "two@example.com");
    struct msgid id = first_entry().id;
    assert_int_equal(command(QUEUE_HOLD, "example.com", &id, NULL, 0), 0);
    assert_int_equal(command_affected, 1);
    sim_host_up(mx);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(queued(&f), 1);
    assert_int_equal(first_entry().class_, SPOOL_HELD);
    assert_int_equal(command(QUEUE_UNHOLD, "example.com", &id, NULL, 0), 0);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 2);
}

static void test_operator_retries(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    sim_host_down(mx);
    fixture_start(&f);
    mail_to(&f, "u@example.com");
    sim_world_advance(f.w, SIM_DAY);
    sim_host_up(mx);
    assert_int_equal(command(QUEUE_RETRY, "example.com", NULL, NULL, 0), 0);
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx), 1);
}

/* Deferred by a 4yz: its own time counts, unless the operator says now. */
static void test_operator_retries_deferred(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    sim_host_reply(mx, SMTP_STAGE_RCPT, 450, STR("busy"));
    fixture_start(&f);
    mail_to(&f, "u@example.com");
    sim_world_advance(f.w, SIM_DAY);
    sim_host_clear_rules(mx);
    assert_int_equal(command(QUEUE_RETRY, "example.com", NULL, NULL, 0), 0);
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(queued(&f), 0);
}

static void test_operator_removes_and_bounces(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    sim_host_down(mx);
    fixture_start(&f);
    mail_to(&f, "one@example.com");
    mail_to(&f, "two@example.com");
    mail_to(&f, "three@example.com");
    struct msgid id = first_entry().id;
    assert_int_equal(command(QUEUE_REMOVE, "example.com", &id, NULL, 0), 0);
    assert_int_equal(command_affected, 1);
    assert_int_equal(queued(&f), 2);
    assert_int_equal(command(QUEUE_REMOVE, "example.com", &id, NULL, 0), -ENOENT);
    id = first_entry().id;
    assert_int_equal(command(QUEUE_BOUNCE, "example.com", &id, NULL, 0), 0);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(queued(&f), 1);
    assert_int_equal(got(back, "two@example.com"), 1);
    assert_int_equal(got(back, "one@example.com"), 0);
    /* A whole queue is too much for one slip of the finger. */
    assert_int_equal(command(QUEUE_BOUNCE, "example.com", NULL, NULL, 0), -EOPNOTSUPP);
}

/* The machine stops while a command is being carried out: it is told so, or never; nothing is lost. */
static void test_crash_in_a_command(void **state)
{
    static const enum queue_command_type types[] = { QUEUE_HOLD, QUEUE_RETRY, QUEUE_REMOVE };
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        for (int64_t ms = 0; ms < 12; ms++) {
            fixture_init(&f, 1, 2);
            sim_host_down(sim_world_host(f.w, "192.0.2.1"));
            fixture_start(&f);
            for (int k = 0; k < 40; k++)
                mail_to(&f, "u@example.com");
            struct queue_command *c = calloc(1, sizeof *c);
            assert_non_null(c);
            c->type = types[i];
            c->done = on_command;
            strcpy(c->queue, "example.com");
            queue_command_send(sim_world_ports(f.w, 0)->workers, c);
            command_done = false;
            sim_world_advance(f.w, ms);
            sim_world_crash(f.w);
            sim_world_start(f.w);
            sim_world_advance(f.w, SIM_HOUR);
            assert_true(queued(&f) == 40 || types[i] == QUEUE_REMOVE);
            assert_true(command_done);
            fixture_done(&f);
        }
}

/* ---- policies that change --------------------------------------------------------------------- */

static void reload(uint64_t fingerprint)
{
    struct settings *s = fixture_settings();
    s->fingerprint = fingerprint;
    sim_world_configure(f.w, s, sim_policy_hooks, &f.policy);
    settings_unref(s);
    sim_world_reload(f.w);
}

/* H7: a corrected policy rescues what is queued. */
static void test_H7_corrected_route(void **state)
{
    struct sim_host *right = sim_world_host(f.w, "192.0.2.9");
    sim_policy_domain(&f.policy, "intranet.example", sim_route_hosts("192.0.2.8:25", false));
    fixture_start(&f);
    for (int i = 0; i < 3; i++)
        assert_int_equal(mail_to(&f, "u@intranet.example"), 250);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(queued(&f), 3);
    sim_policy_domain(&f.policy, "intranet.example", sim_route_hosts("192.0.2.9:25", false));
    reload(2);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(right), 3);
    assert_int_equal(queued(&f), 0);
}

/* Held mail whose domain is no longer one of ETRN goes by itself. */
static void test_held_is_routed_anew(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    sim_policy_domain(&f.policy, "example.com", sim_route_hold("example.com"));
    fixture_start(&f);
    for (int i = 0; i < 40; i++)
        mail_to(&f, "u@example.com");
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(queued(&f), 40);
    sim_policy_domain(&f.policy, "example.com", NULL);
    reload(2);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 40);
    assert_int_equal(queued(&f), 0);
}

/* The other way round: mail behind a dead host is put on hold, and goes by a release. */
static void test_scheduled_becomes_held(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    sim_host_down(mx);
    fixture_start(&f);
    for (int i = 0; i < 5; i++)
        mail_to(&f, "u@example.com");
    sim_policy_domain(&f.policy, "example.com", sim_route_hold("shop"));
    reload(2);
    sim_world_advance(f.w, SIM_DAY);
    sim_host_up(mx);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(sim_host_inbox(mx), 0);
    assert_int_equal(queued(&f), 5);
    command(QUEUE_RELEASE, "shop", NULL, sim_route_hosts("192.0.2.1:25", false), 0);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 5);
}

/* A change of policy while everything is under way loses nothing. */
static void test_reload_in_the_middle(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    f.policy.delay_ms = 30;
    sim_host_set_delay(mx, 20);
    fixture_start(&f);
    for (int i = 0; i < 30; i++) {
        struct str to = STR("u@example.com");
        struct sim_mail m = { .sender = STR("client@sender.example"),
                              .recipients = &to,
                              .n_recipients = 1,
                              .content = STR("Subject: x\r\n\r\nhello\r\n") };
        sim_world_post(f.w, &m);
        sim_world_advance(f.w, 17);
        if (i % 3 == 0)
            reload((uint64_t)i + 2);
    }
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 30);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(f.policy.live, 2); /* old snapshots are let go */
}

/* The `result` hook sends it another way. */
static bool other_way(void *arg, enum hook h, const struct hook_input *in, struct hook_result *ret)
{
    if (in->attempt->route->kind == ROUTE_HOSTS)
        return false;
    ret->verdict = VERDICT_ROUTE;
    ret->route = sim_route_hosts("192.0.2.9:25", false);
    return true;
}

static void test_result_reroutes(void **state)
{
    struct sim_host *other = sim_world_host(f.w, "192.0.2.9");
    sim_host_reply(sim_world_host(f.w, "192.0.2.1"), SMTP_STAGE_RCPT, 550, STR("not here"));
    f.policy.ask = other_way;
    f.policy.asks = 1u << HOOK_RESULT;
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(other), 1);
    assert_int_equal(queued(&f), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_E7_held_goes_nowhere, setup, teardown),
        cmocka_unit_test_setup_teardown(test_release, setup, teardown),
        cmocka_unit_test_setup_teardown(test_E8_release_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_release_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_release_and_crash, setup, teardown),
        cmocka_unit_test_setup_teardown(test_release_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_Q8_operator_holds_a_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(test_Q8_operator_holds_a_message, setup, teardown),
        cmocka_unit_test_setup_teardown(test_operator_retries, setup, teardown),
        cmocka_unit_test_setup_teardown(test_operator_retries_deferred, setup, teardown),
        cmocka_unit_test_setup_teardown(test_operator_removes_and_bounces, setup, teardown),
        cmocka_unit_test(test_crash_in_a_command),
        cmocka_unit_test_setup_teardown(test_H7_corrected_route, setup, teardown),
        cmocka_unit_test_setup_teardown(test_held_is_routed_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_scheduled_becomes_held, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reload_in_the_middle, setup, teardown),
        cmocka_unit_test_setup_teardown(test_result_reroutes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
