/* Whose failure it is, and what follows from it (ROUTING.md Q4, Q5, B9). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "fixture.h"

static struct fixture f;

/* What the `result` hook was told last. */
static struct {
    int calls;
    enum failure_scope scope;
    bool permanent;
    uint16_t code;
    enum smtp_stage stage;
} seen;

static bool note_result(void *arg, enum hook h, const struct hook_input *in,
                        struct hook_result *ret)
{
    seen.calls++;
    seen.scope = in->attempt->scope;
    seen.permanent = in->attempt->permanent;
    seen.code = in->attempt->reply.code;
    seen.stage = in->attempt->stage;
    return false;
}

static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    memset(&seen, 0, sizeof seen);
    f.policy.ask = note_result;
    f.policy.asks = 1u << HOOK_RESULT;
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

struct failing {
    enum smtp_stage stage;
    uint16_t code; /* 0: the connection is closed there */
    enum failure_scope scope;
    bool permanent;
    enum sim_action action;
};

static void run_case(const struct failing *c)
{
    setup(NULL);
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    struct sim_rule rule = { .stage = c->stage,
                             .action = c->code ? SIM_REPLY : c->action,
                             .reply = { .code = c->code, .text = STR("as the test says") } };
    sim_host_add_rule(mx, &rule);
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 30 * SIM_SECOND);
    if (c->action == SIM_SILENCE && !c->code)
        sim_world_advance(f.w, 12 * SIM_MINUTE);
    assert_true(seen.calls >= 1);
    if (seen.scope != c->scope || seen.permanent != c->permanent || seen.code != c->code)
        print_message("stage %s, code %u: told as scope %s, permanent %d, code %u, stage %s\n",
                      smtp_stage_name(c->stage), c->code, failure_scope_name(seen.scope),
                      seen.permanent, seen.code, smtp_stage_name(seen.stage));
    assert_int_equal(seen.scope, c->scope);
    assert_int_equal(seen.permanent, c->permanent);
    assert_int_equal(seen.code, c->code);
    assert_int_equal(queued(&f), !c->permanent);
    sim_host_clear_rules(mx);
    sim_world_advance(f.w, 3 * SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_host_inbox(mx), !c->permanent);
    assert_int_equal(got(back, "Action: failed"), c->permanent);
    if (c->permanent)
        assert_int_equal(got(back, "as the test says"), 1);
    teardown(NULL);
}

static void test_Q4_replies(void **state)
{
    static const struct failing cases[] = {
        { SMTP_STAGE_GREETING, 421, SCOPE_HOST, false, 0 },
        { SMTP_STAGE_GREETING, 450, SCOPE_HOST, false, 0 },
        { SMTP_STAGE_GREETING, 554, SCOPE_HOST, false, 0 },
        { SMTP_STAGE_HELO, 421, SCOPE_HOST, false, 0 },
        { SMTP_STAGE_HELO, 450, SCOPE_HOST, false, 0 },
        { SMTP_STAGE_HELO, 550, SCOPE_HOST, false, 0 },
        { SMTP_STAGE_MAIL, 421, SCOPE_HOST, false, 0 },
        { SMTP_STAGE_MAIL, 451, SCOPE_MESSAGE, false, 0 },
        { SMTP_STAGE_MAIL, 550, SCOPE_MESSAGE, true, 0 },
        { SMTP_STAGE_RCPT, 421, SCOPE_HOST, false, 0 },
        { SMTP_STAGE_RCPT, 450, SCOPE_RECIPIENT, false, 0 },
        { SMTP_STAGE_RCPT, 550, SCOPE_RECIPIENT, true, 0 },
        { SMTP_STAGE_DATA, 421, SCOPE_HOST, false, 0 },
        { SMTP_STAGE_DATA, 451, SCOPE_MESSAGE, false, 0 },
        { SMTP_STAGE_DATA, 554, SCOPE_MESSAGE, true, 0 },
        { SMTP_STAGE_FINAL, 421, SCOPE_HOST, false, 0 },
        { SMTP_STAGE_FINAL, 451, SCOPE_MESSAGE, false, 0 },
        { SMTP_STAGE_FINAL, 554, SCOPE_MESSAGE, true, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        run_case(&cases[i]);
}

/* RFC 5321 section 4.1.1.10: whatever it refuses, and whether or not it is used again, it is told QUIT. */
static void test_a_host_that_refuses_is_told_quit(void **state)
{
    static const enum smtp_stage stages[] = {
        SMTP_STAGE_GREETING, SMTP_STAGE_HELO, SMTP_STAGE_MAIL,
        SMTP_STAGE_RCPT,     SMTP_STAGE_DATA, SMTP_STAGE_FINAL
    };

    for (size_t i = 0; i < ARRAY_LEN(stages); i++)
        for (uint32_t most = 1; most <= 2; most++) {
            setup(NULL);
            f.settings->queue.per_connection = most;
            struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
            sim_host_reply(mx, stages[i], stages[i] == SMTP_STAGE_GREETING ? 554 : 550, STR("no"));
            fixture_start(&f);
            assert_int_equal(mail_to(&f, "u@example.com"), 250);
            sim_world_advance(f.w, 10 * SIM_SECOND);
            assert_true(sim_host_sessions(mx) > 0);
            assert_int_equal(sim_host_quits(mx), sim_host_sessions(mx));
            assert_int_equal(sim_host_open(mx), 0);
            teardown(NULL);
        }
}

static void test_Q4_lost_connections(void **state)
{
    static const enum sim_action actions[] = { SIM_CLOSE, SIM_RESET, SIM_SILENCE };
    static const struct failing cases[] = {
        { SMTP_STAGE_GREETING, 0, SCOPE_HOST, false, 0 },
        { SMTP_STAGE_HELO, 0, SCOPE_HOST, false, 0 },
        { SMTP_STAGE_MAIL, 0, SCOPE_MESSAGE, false, 0 },
        { SMTP_STAGE_RCPT, 0, SCOPE_MESSAGE, false, 0 },
        { SMTP_STAGE_DATA, 0, SCOPE_MESSAGE, false, 0 },
        { SMTP_STAGE_BODY, 0, SCOPE_MESSAGE, false, 0 },
        { SMTP_STAGE_FINAL, 0, SCOPE_MESSAGE, false, 0 },
    };
    for (size_t a = 0; a < ARRAY_LEN(actions); a++)
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
            struct failing c = cases[i];
            c.action = actions[a];
            run_case(&c);
        }
}

/* The host took the message, and the connection broke before it could say so: a duplicate, not a loss. */
static void test_Q4_lost_after_the_dot(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct sim_rule rule = {
        .stage = SMTP_STAGE_FINAL, .action = SIM_RESET, .taken = true, .times = 1
    };
    sim_host_add_rule(mx, &rule);
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 30 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(queued(&f), 1);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 2);
    assert_int_equal(queued(&f), 0);
}

/* One recipient is refused, the other is not: each has its own result. */
static void test_Q4_recipients_have_their_own_results(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    struct str to[] = { STR("good@example.com"), STR("bad@example.com"), STR("later@example.com") };
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = to,
                          .n_recipients = 3,
                          .content = STR("Subject: x\r\n\r\nhello\r\n") };
    struct sim_rule bad = { .stage = SMTP_STAGE_RCPT,
                            .address = STR("bad@example.com"),
                            .reply = REPLY(550, ENH(5, 1, 1), "unknown") };
    struct sim_rule later = { .stage = SMTP_STAGE_RCPT,
                              .address = STR("later@example.com"),
                              .reply = REPLY(450, ENH(4, 2, 0), "busy"),
                              .times = 2 };
    sim_host_add_rule(mx, &bad);
    sim_host_add_rule(mx, &later);
    fixture_start(&f);
    assert_int_equal(sim_world_send(f.w, &m)->accepted, 3);
    sim_world_advance(f.w, 30 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(queued(&f), 1);
    assert_int_equal(sim_host_inbox(back), 1);
    assert_int_equal(got(back, "bad@example.com"), 1);
    assert_int_equal(got(back, "good@example.com"), 0);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 2);
    assert_int_equal(sim_host_received(mx, 1)->n_recipients, 1);
    assert_int_equal(queued(&f), 0);
}

/* Q5: the next address is tried in the same attempt. */
static void test_Q5_other_addresses(void **state)
{
    struct sim_host *b;
    sim_world_zone(f.w, "example.com. MX 10 mx1.example.com.\n"
                        "example.com. MX 20 mx3.example.com.\n"
                        "mx1.example.com. A 192.0.2.1\nmx1.example.com. A 192.0.2.2\n"
                        "mx3.example.com. A 192.0.2.3\n");
    sim_host_down(sim_world_host(f.w, "192.0.2.1"));
    sim_host_reply(sim_world_host(f.w, "192.0.2.2"), SMTP_STAGE_GREETING, 554, STR("go away"));
    b = sim_world_host(f.w, "192.0.2.3");
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 10 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(b), 1);
}

/* More addresses than an attempt tries, and all but the last are dead: later attempts come to it. The best one is among
 * those of each attempt. */
static void test_Q5_later_attempts_begin_elsewhere(void **state)
{
    enum { N = 17 };
    sim_world_zone(f.w, "example.com. MX 10 mx1.example.com.\nexample.com. MX 20 mx3.example.com.\n"
                        "mx1.example.com. A 192.0.2.1\n");
    for (unsigned i = 2; i <= N; i++) {
        char zone[128], addr[32];
        snprintf(addr, sizeof addr, "192.0.2.%u", i);
        snprintf(zone, sizeof zone,
                 "example.com. MX %u mx%u.example.com.\nmx%u.example.com. A %s\n", 10 + i, 100 + i,
                 100 + i, addr);
        sim_world_zone_add(f.w, zone);
        if (i < N)
            sim_host_set_reach(sim_world_host(f.w, addr), SIM_SILENT);
    }
    struct sim_host *best = sim_world_host(f.w, "192.0.2.1"),
                    *last = sim_world_host(f.w, "192.0.2.17");
    sim_host_reply(best, SMTP_STAGE_GREETING, 421, STR("not now"));
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 3 * SIM_MINUTE);
    assert_int_equal(sim_host_sessions(best), 1);
    assert_int_equal(sim_host_inbox(last), 0);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(last), 1);
    assert_int_equal(queued(&f), 0);
    assert_in_range(sim_host_sessions(best), 3, 6); /* a few attempts were enough */
}

/* A host that takes everything but one message: it says 421 to that, which is waited for as long as others. */
static void test_Q4_421_about_one_message(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct sim_rule rule = { .stage = SMTP_STAGE_RCPT,
                             .address = STR("bad@example.com"),
                             .reply = { .code = 421, .text = STR("not that one") } };
    sim_host_add_rule(mx, &rule);
    sim_host_set_delay(mx, 200);
    fixture_start(&f);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(mail_to(&f, i == 20 ? "bad@example.com" : "u@example.com"), 250);
        sim_world_advance(f.w, 100);
    }
    assert_int_equal(counted(&f, "deferred"), 1);
    assert_int_equal(counted(&f, "host_limit"), 2);
    sim_host_clear_rules(mx);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 300);
    assert_int_equal(queued(&f), 0);
}

/* A host that is down costs new mail one look at its state, not a connection each. */
static void test_Q1_dead_host_is_left_alone(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    sim_host_down(mx);
    fixture_start(&f);
    for (int i = 0; i < 50; i++)
        assert_int_equal(mail_to(&f, "u@example.com"), 250);
    uint64_t clients = 50;
    assert_in_range(sim_net_dials(sim_world_net(f.w)), clients + 1, clients + 5);
}

/* B9: the peer greets with our own name. */
static void test_B9_loop(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    sim_host_set_name(mx, STR("mx2.isp.example"));
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 0);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(got(back, "5.4.6"), 1);
}

/* A hard route to one of our own listeners is a loop, too. */
static void test_B9_H4_route_to_ourselves(void **state)
{
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    static struct listen_settings listen; /* as long as the settings */
    listen = (struct listen_settings){ .addr = sim_addr("0.0.0.0:25"), .service = STR("smtp") };
    f.settings->listen = &listen;
    f.settings->n_listen = 1;
    sim_policy_domain(&f.policy, "example.com", sim_route_hosts("198.51.100.25:25", false));
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(got(back, "5.4.6"), 1);
    sim_world_stop(f.w, SIM_MINUTE);
}

static void test_starttls(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    fixture_start(&f);
    sim_host_set_starttls(mx, SIM_STARTTLS_OFFERED);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_true(sim_host_received(mx, 0)->tls);
    /* Opportunistic: better in clear than not at all. */
    sim_host_set_starttls(mx, SIM_STARTTLS_BROKEN);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 2);
    assert_false(sim_host_received(mx, 1)->tls);
    sim_host_set_starttls(mx, SIM_STARTTLS_REFUSED);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 3);
}

/* With `require` nothing goes in clear, and nothing bounces for it. */
static void test_starttls_required(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct route *r = route_new(ROUTE_HOSTS);
    r->targets = ARENA_NEW(&r->arena, struct route_target);
    r->n_targets = 1;
    assert_int_equal(route_target_parse(&r->arena, STR("192.0.2.1:25"), false, r->targets), 0);
    r->tls = ROUTE_TLS_REQUIRE;
    assert_int_equal(route_finish(r), 0);
    sim_policy_domain(&f.policy, "example.com", r);
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 0);
    sim_host_set_starttls(mx, SIM_STARTTLS_BROKEN);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 0);
    assert_int_equal(queued(&f), 1);
    sim_host_set_starttls(mx, SIM_STARTTLS_OFFERED);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_true(sim_host_received(mx, 0)->tls);
}

static void test_host_without_ehlo(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct sim_rule rule = { .stage = SMTP_STAGE_HELO,
                             .extended_only = true,
                             .reply = REPLY(502, ENH_NONE, "what?") };
    sim_host_add_rule(mx, &rule);
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
}

static void test_slow_host(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    sim_host_set_delay(mx, 40 * SIM_SECOND);
    sim_host_set_latency(mx, SIM_SECOND);
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
}

static void test_dns_fails(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    struct sim_dns *dns = sim_world_dns(f.w);
    static const enum dns_status bad[] = { DNS_SERVFAIL, DNS_TIMEOUT };
    fixture_start(&f);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        sim_dns_fail(dns, STR("example.com"), DNS_MX, bad[i]);
        assert_int_equal(mail_to(&f, "u@example.com"), 250);
        sim_world_advance(f.w, SIM_HOUR);
        assert_int_equal(queued(&f), 1);
        sim_dns_fail(dns, STR("example.com"), DNS_MX, DNS_OK);
        sim_world_advance(f.w, SIM_HOUR);
        assert_int_equal(sim_host_inbox(mx), i + 1);
    }
    assert_int_equal(sim_dns_asked(dns, STR("example.com"), DNS_A), 0); /* B6 */
    sim_dns_remove(dns, STR("example.com"), 0);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(queued(&f), 0); /* NXDOMAIN */
    assert_int_equal(sim_host_inbox(back), 1);
    sim_world_zone_add(f.w, "example.com. MX 0 .");
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(got(back, "5.1.10"), 1);
}

/* The record of an attempt, however long: its memory goes with it (the sanitizer looks). */
static void test_long_records_leave_nothing_behind(void **state)
{
    char targets[1024] = "", to[64];
    for (int i = 1; i <= 16; i++)
        snprintf(targets + strlen(targets), sizeof targets - strlen(targets), "%s192.0.2.%d:25",
                 i > 1 ? "," : "", 100 + i);
    sim_policy_domain(&f.policy, "example.com", sim_route_hosts(targets, false));
    fixture_start(&f);
    for (int i = 1; i <= 16; i++) {
        snprintf(to, sizeof to, "192.0.2.%d", 100 + i);
        sim_host_down(sim_world_host(f.w, to));
    }
    for (int i = 0; i < 40; i++) { /* texts of all lengths: some ends in the middle of a page */
        snprintf(to, sizeof to, "%.*s@example.com", i + 1,
                 "uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu");
        mail_to(&f, to);
        sim_world_advance(f.w, 3 * SIM_HOUR);
    }
    assert_int_equal(queued(&f), 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_Q4_replies),
        cmocka_unit_test(test_a_host_that_refuses_is_told_quit),
        cmocka_unit_test(test_Q4_lost_connections),
        cmocka_unit_test_setup_teardown(test_Q4_lost_after_the_dot, setup, teardown),
        cmocka_unit_test_setup_teardown(test_Q4_recipients_have_their_own_results, setup, teardown),
        cmocka_unit_test_setup_teardown(test_Q5_other_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_Q5_later_attempts_begin_elsewhere, setup, teardown),
        cmocka_unit_test_setup_teardown(test_Q4_421_about_one_message, setup, teardown),
        cmocka_unit_test_setup_teardown(test_Q1_dead_host_is_left_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_records_leave_nothing_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(test_B9_loop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_B9_H4_route_to_ourselves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_starttls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_starttls_required, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host_without_ehlo, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_host, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dns_fails, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
