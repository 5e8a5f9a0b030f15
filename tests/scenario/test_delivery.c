/* From the client's DATA to the primary's inbox, and what becomes of mail when it cannot get there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fixture.h"

static struct fixture f;

static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

static void test_direct(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
    const struct sim_received *r = sim_host_received(mx, 0);
    assert_true(str_eq(r->sender, STR("client@sender.example")));
    assert_true(str_eq(r->recipients[0], STR("u@example.com")));
    assert_true(str_find(r->content, STR("Received: from client.example")) >= 0);
    assert_true(str_find(r->content, STR("Subject: test\r\n\r\nhello\r\n")) > 0);
    assert_true(str_eq(r->helo, STR("mx2.isp.example")));
    assert_int_equal(queued(&f), 0);
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
}

static void test_relay_is_denied(void **state)
{
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@elsewhere.example"), 550);
    assert_int_equal(queued(&f), 0);
}

static void test_B10_primary_down_12_days(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    sim_policy_domain(&f.policy, "example.com", sim_route_backup("example.com"));
    fixture_start(&f);
    sim_host_down(mx);
    for (int i = 0; i < 20; i++)
        assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 12 * SIM_DAY);
    assert_int_equal(queued(&f), 20);
    /* It is looked for at a bounded pace: at most every minute, at least every half hour. */
    uint64_t dials = sim_net_dials(sim_world_net(f.w));
    assert_in_range(dials, 12 * 24 * 2, 12 * 24 * 60 + 100);
    sim_host_up(mx);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 20);
    assert_int_equal(queued(&f), 0);
}

static void test_B10_silent_primary(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    sim_policy_domain(&f.policy, "example.com", sim_route_backup("example.com"));
    fixture_start(&f);
    sim_host_set_reach(mx, SIM_SILENT);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 2 * SIM_DAY);
    assert_int_equal(queued(&f), 1);
    sim_host_up(mx);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 1);
}

static void test_Q2_lifetime_ends(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    fixture_start(&f);
    sim_host_down(mx);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 4 * SIM_DAY);
    assert_int_equal(queued(&f), 1);
    sim_world_advance(f.w, 2 * SIM_DAY);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_host_inbox(mx), 0);
    assert_int_equal(got(back, "Action: failed"), 1);
}

/* Q9: told after four hours, once. */
static void test_Q9_delay_is_told_once(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    fixture_start(&f);
    sim_host_down(mx);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 3 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(back), 0);
    sim_world_advance(f.w, 3 * SIM_DAY);
    assert_int_equal(queued(&f), 1);
    assert_int_equal(got(back, "Action: delayed"), 1);
    assert_int_equal(sim_host_inbox(back), 1);
}

static void test_Q9_dsn_for_permanent_failure(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    sim_host_reply(mx, SMTP_STAGE_RCPT, 550, STR("no such user"));
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "nobody@example.com"), 250);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_host_inbox(back), 1);
    const struct sim_received *dsn = sim_host_received(back, 0);
    assert_int_equal(dsn->sender.n, 0);
    assert_true(str_eq(dsn->recipients[0], STR("client@sender.example")));
    assert_true(str_find(dsn->content, STR("multipart/report")) > 0);
    assert_true(str_find(dsn->content, STR("no such user")) > 0);
    assert_true(str_find(dsn->content, STR("Auto-Submitted: auto-replied")) > 0);
    assert_true(str_find(dsn->content, STR("rfc822;nobody@example.com")) > 0 ||
                str_find(dsn->content, STR("rfc822; nobody@example.com")) > 0);
}

static void test_Q9_no_dsn_for_null_sender(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    sim_host_reply(mx, SMTP_STAGE_RCPT, 550, STR("no such user"));
    fixture_start(&f);
    assert_int_equal(sim_world_mail(f.w, "", "nobody@example.com", "bounce"), 250);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_host_inbox(mx), 0);
    assert_int_equal(sim_spool_messages(sim_world_spool(f.w)), 0);
}

/* A DSN that cannot be delivered ends there: it has a null sender itself. */
static void test_dsn_that_fails(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    sim_host_reply(mx, SMTP_STAGE_RCPT, 550, STR("no such user"));
    sim_host_reply(back, SMTP_STAGE_RCPT, 550, STR("no such user either"));
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "nobody@example.com"), 250);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_host_sessions(back), 1);
}

static void test_restart_with_queue(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    sim_host_down(mx);
    fixture_start(&f);
    for (int i = 0; i < 300; i++) /* more than a window */
        assert_int_equal(mail_to(&f, "u@example.com"), 250);
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
    sim_host_up(mx);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 0);
    sim_world_start(f.w);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 300);
    assert_int_equal(queued(&f), 0);
}

static void test_Q6_connections_are_reused(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    sim_host_down(mx);
    f.settings->queue.concurrency = 1;
    f.settings->queue.max_concurrency = 1;
    fixture_start(&f);
    for (int i = 0; i < 30; i++)
        mail_to(&f, "u@example.com");
    sim_host_up(mx);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 30);
    assert_in_range(sim_host_sessions(mx), 1, 2);
    /* Idle for longer than queue.idle_ms: closed, in order. */
    assert_int_equal(sim_host_open(mx), 0);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    uint64_t before = sim_host_sessions(mx);
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 32);
    assert_in_range(sim_host_sessions(mx), before, before + 1);
}

/* At most 100 messages on one connection. */
static void test_Q6_connections_are_not_used_for_ever(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    sim_host_down(mx);
    f.settings->queue.concurrency = 1;
    f.settings->queue.max_concurrency = 1;
    f.settings->queue.per_connection = 10;
    fixture_start(&f);
    for (int i = 0; i < 50; i++)
        mail_to(&f, "u@example.com");
    sim_host_up(mx);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 50);
    assert_in_range(sim_host_sessions(mx), 5, 6);
}

static void test_large_message(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct str to = STR("u@example.com");
    size_t n = 5 << 20;
    char *big = malloc(n);
    assert_non_null(big);
    for (size_t i = 0; i < n; i++)
        big[i] = i % 64 == 63 ? '\n' : i % 64 == 62 ? '\r' : (char)('a' + (i / 64) % 26);
    memcpy(big, "Subject: big\r\n\r\n", 16);
    for (size_t i = 16; i < 64; i++)
        big[i] = i == 63 ? '\n' : i == 62 ? '\r' : 'x';
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = &to,
                          .n_recipients = 1,
                          .content = str_make(big, n) };
    fixture_start(&f);
    const struct sim_outcome *out = sim_world_send(f.w, &m);
    assert_int_equal(out->reply.code, 250);
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
    struct str content = sim_host_received(mx, 0)->content;
    assert_true(content.n > n);
    assert_memory_equal(content.p + content.n - n, big, n);
    assert_int_equal(sim_spool_staged(sim_world_spool(f.w)), 0);
    free(big);
}

/* The client breaks off in the middle of a large message: its pieces go. */
static void test_staged_pieces_are_dropped(void **state)
{
    static char block[100000];
    fixture_start(&f);
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = i % 50 == 49 ? '\n' : i % 50 == 48 ? '\r' : 'y';
    struct sim_session *s = sim_world_session(f.w, NULL);
    sim_world_line(f.w, s, "EHLO client.example");
    sim_world_line(f.w, s, "MAIL FROM:<a@b.example>");
    sim_world_line(f.w, s, "RCPT TO:<u@example.com>");
    assert_int_equal(sim_world_line(f.w, s, "DATA").code, 354);
    for (int i = 0; i < 30; i++) {
        sim_session_write(s, str_make(block, sizeof block));
        sim_world_advance(f.w, SIM_SECOND);
    }
    assert_int_equal(sim_spool_staged(sim_world_spool(f.w)), 1);
    sim_session_reset(s);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_spool_staged(sim_world_spool(f.w)), 0);
    sim_session_close(s);
    assert_int_equal(queued(&f), 0);
}

/* One message for two domains: each goes its own way. */
static void test_two_domains(void **state)
{
    struct sim_host *one = sim_world_host(f.w, "192.0.2.1");
    struct sim_host *two = sim_world_host(f.w, "192.0.2.2");
    struct str to[] = { STR("a@example.com"), STR("b@example.org"), STR("c@example.com") };
    sim_world_zone_add(f.w, "example.org. MX 5 mx.example.org.\nmx.example.org. A 192.0.2.2");
    sim_policy_domain(&f.policy, "example.org", NULL);
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = to,
                          .n_recipients = 3,
                          .content = STR("Subject: x\r\n\r\nhello\r\n") };
    fixture_start(&f);
    sim_host_down(two);
    assert_int_equal(sim_world_send(f.w, &m)->accepted, 3);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(one), 1);
    assert_int_equal(sim_host_received(one, 0)->n_recipients, 2);
    assert_int_equal(queued(&f), 1);
    sim_host_up(two);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(two), 1);
    assert_int_equal(sim_host_received(two, 0)->n_recipients, 1);
}

/* Hooks that take their time change nothing but the time. */
static void test_slow_hooks(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    f.policy.delay_ms = 700;
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_direct, setup, teardown),
        cmocka_unit_test_setup_teardown(test_relay_is_denied, setup, teardown),
        cmocka_unit_test_setup_teardown(test_B10_primary_down_12_days, setup, teardown),
        cmocka_unit_test_setup_teardown(test_B10_silent_primary, setup, teardown),
        cmocka_unit_test_setup_teardown(test_Q2_lifetime_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_Q9_delay_is_told_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_Q9_dsn_for_permanent_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_Q9_no_dsn_for_null_sender, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dsn_that_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restart_with_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(test_Q6_connections_are_reused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_Q6_connections_are_not_used_for_ever, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_message, setup, teardown),
        cmocka_unit_test_setup_teardown(test_staged_pieces_are_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_domains, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_hooks, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
