/* Credentials of routes (ROUTING.md S6, S7): mail in the spool names them, and what is named may be gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>

#include <cmocka.h>

#include "fixture.h"

static struct fixture f;
static struct sim_host *smart;

static void begin(int workers)
{
    fixture_init(&f, 1, workers);
    smart = sim_world_host(f.w, "192.0.2.25");
}

static int end(void **state)
{
    (void)state;
    fixture_done(&f);
    return 0;
}

/* A smart host's route. auth: a name of credentials. */
static struct route *to_smart_host(struct str auth)
{
    struct route *r = route_new(ROUTE_HOSTS);
    assert_non_null(r);
    r->targets = ARENA_NEW(&r->arena, struct route_target);
    assert_int_equal(route_target_parse(&r->arena, STR("192.0.2.25:587"), true, r->targets), 0);
    r->n_targets = 1;
    r->auth = arena_str(&r->arena, auth);
    r->host_failure_forever = true;
    assert_int_equal(route_finish(r), 0);
    return r;
}

static void use(const char *user, const char *password)
{
    struct str name = sim_policy_credentials(&f.policy, user, password);
    sim_policy_domain(&f.policy, "example.com", to_smart_host(name));
}

static bool sent_as(size_t i, const char *user)
{
    return str_eq(sim_host_received(smart, i)->identity, str_of(user));
}

/* What a restart does: names in the spool were made with the key of another process, and a secret may have
 * changed. Nothing else has: not even the fingerprint. The route is asked for again. */
static void test_S7_queued_mail_finds_its_credentials_again(void **state)
{
    begin(1);
    sim_host_add_user(smart, STR("me"), STR("new"));
    sim_host_down(smart);
    use("me", "old");
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_HOUR);
    sim_world_crash(f.w);
    sim_policy_forget_credentials(&f.policy);
    use("me", "new");
    sim_world_start(f.w);
    sim_host_up(smart);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(smart), 1);
    assert_true(sent_as(0, "me"));
    assert_int_equal(sim_host_auths(smart), 1);
    assert_int_equal(queued(&f), 0);
}

/* Nobody knows them any more: no connection is made, in nobody's name, and somebody is told. */
static void test_S7_unknown_credentials_wait_and_are_never_left_out(void **state)
{
    begin(1);
    use("me", "old");
    sim_host_down(smart);
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_HOUR);
    sim_policy_forget_credentials(&f.policy);
    sim_host_up(smart); /* and would take mail from anybody */
    sim_world_advance(f.w, 20 * SIM_DAY);
    assert_int_equal(sim_host_sessions(smart), 0);
    assert_int_equal(queued(&f), 1);
    assert_int_equal(counted(&f, "bounced"), 0);
    assert_true(counted(&f, "auth_failed") > 0);
}

/* Those that are known are used all the same: a fallback, or the next target. */
static void test_S7_the_fallback_of_unknown_credentials(void **state)
{
    begin(1);
    struct sim_host *other = sim_world_host(f.w, "192.0.2.26");
    struct route *r = to_smart_host(STR("gone/0123456789abcdef"));
    r->fallback = sim_route_hosts("192.0.2.26:25", false);
    sim_policy_domain(&f.policy, "example.com", r);
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(other), 1);
    assert_int_equal(sim_host_sessions(smart), 0);
}

/* Mail is accepted by any worker and delivered by the owner of its queue; a route's queue may hold mail of
 * several. Whatever happens, each goes in its own name. */
static void test_S7_no_connection_serves_two_names_among_workers(void **state)
{
    static const char *const users[] = { "ann", "bob", "cid" };
    begin(3);
    f.settings->queue.idle_ms = SIM_HOUR;
    f.settings->queue.concurrency = 1;
    for (size_t i = 0; i < ARRAY_LEN(users); i++) {
        struct str name = sim_policy_credentials(&f.policy, users[i], "secret");
        struct route *r = to_smart_host(name);
        r->queue = STR("all");
        char domain[32];
        snprintf(domain, sizeof domain, "%s.example", users[i]);
        sim_policy_domain(&f.policy, domain, r);
        sim_host_add_user(smart, str_of(users[i]), STR("secret"));
    }
    fixture_start(&f);
    for (size_t i = 0; i < 30; i++) {
        char to[32];
        snprintf(to, sizeof to, "u@%s.example", users[i % 3]);
        assert_int_equal(mail_to(&f, to), 250);
        if (i % 5 == 0)
            sim_world_advance(f.w, SIM_SECOND);
        if (i == 20)
            sim_world_reload(f.w);
    }
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(smart), 30);
    const char *owner[256] = { NULL };
    for (size_t i = 0; i < 30; i++) {
        const struct sim_received *r = sim_host_received(smart, i);
        struct str domain = str_from(r->recipients[0], 2);
        struct str user = str_first(domain, 3);
        assert_true(str_eq(r->identity, user));
        assert_true(r->session < ARRAY_LEN(owner));
        if (owner[r->session])
            assert_true(str_starts(user, str_of(owner[r->session])));
        owner[r->session] = str_eq(user, STR("ann"))   ? "ann"
                            : str_eq(user, STR("bob")) ? "bob"
                                                       : "cid";
    }
    assert_true(sim_host_sessions(smart) < 30); /* connections were used again */
}

/* 454 is temporary, and still neither the message's fault nor that of the host: its other users go on. */
static void test_S6_a_refusal_does_not_close_the_host_for_others(void **state)
{
    begin(1);
    struct sim_rule rule = { .stage = SMTP_STAGE_AUTH,
                             .reply = REPLY(454, ENH(4, 7, 0), "not now"),
                             .times = 1 };
    sim_host_add_user(smart, STR("me"), STR("secret"));
    sim_host_add_rule(smart, &rule);
    use("me", "secret");
    sim_policy_domain(&f.policy, "other.example",
                      to_smart_host(sim_policy_credentials(&f.policy, "me", "secret ")));
    sim_host_add_user(smart, STR("you"), STR("secret"));
    sim_policy_domain(&f.policy, "yours.example",
                      to_smart_host(sim_policy_credentials(&f.policy, "you", "secret")));
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(counted(&f, "auth_failed"), 1);
    assert_int_equal(sim_host_inbox(smart), 0);
    assert_int_equal(mail_to(&f, "u@yours.example"), 250);
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(sim_host_inbox(smart), 1);
    assert_true(sent_as(0, "you"));
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(smart), 2);
    assert_true(sent_as(1, "me"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_S7_queued_mail_finds_its_credentials_again, end),
        cmocka_unit_test_teardown(test_S7_unknown_credentials_wait_and_are_never_left_out, end),
        cmocka_unit_test_teardown(test_S7_the_fallback_of_unknown_credentials, end),
        cmocka_unit_test_teardown(test_S7_no_connection_serves_two_names_among_workers, end),
        cmocka_unit_test_teardown(test_S6_a_refusal_does_not_close_the_host_for_others, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
