/* What senders ask to be told, and are (RFC 3461): ROUTING.md Q9. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

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

/* A message to one recipient, with what is asked for it. */
static uint16_t send(const char *to, struct smtp_dsn_mail mail, struct smtp_dsn_rcpt rcpt)
{
    struct str address = str_of(to);
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = &address,
                          .n_recipients = 1,
                          .content = STR("Subject: x\r\n\r\nthe body\r\n"),
                          .dsn = mail,
                          .rcpt_dsn = &rcpt };
    return sim_world_send(f.w, &m)->reply.code;
}

static struct smtp_dsn_mail nothing;

static bool received(const struct sim_host *h, size_t i, const char *text)
{
    return str_find(sim_host_received(h, i)->content, str_of(text)) >= 0;
}

static void test_Q9_passed_on_where_dsn_is_offered(void **state)
{
    fixture_start(&f);
    struct smtp_dsn_mail mail = { .ret = SMTP_RET_HDRS, .envid = STR("id+1 2") };
    struct smtp_dsn_rcpt rcpt = { .notify = SMTP_NOTIFY_SUCCESS | SMTP_NOTIFY_DELAY,
                                  .orcpt = STR("rfc822;u+x@old.example") };
    assert_int_equal(send("u@example.com", mail, rcpt), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_true(str_eq(sim_host_received(mx, 0)->dsn, STR("RET=HDRS ENVID=id+2B1+202")));
    assert_true(str_eq(sim_host_received(mx, 0)->rcpt_dsn[0],
                       STR("NOTIFY=SUCCESS,DELAY ORCPT=rfc822;u+2Bx@old.example")));
    assert_int_equal(sim_host_inbox(back), 0); /* now it is the host's to tell */
}

static void test_Q9_success_is_told_where_the_host_would_not(void **state)
{
    sim_host_hide(mx, STR("DSN"));
    fixture_start(&f);
    struct smtp_dsn_mail mail = { .ret = SMTP_RET_FULL, .envid = STR("id1") };
    assert_int_equal(send("u@example.com", mail,
                          (struct smtp_dsn_rcpt){ .notify = SMTP_NOTIFY_SUCCESS,
                                                  .orcpt = STR("rfc822;u@old.example") }),
                     250);
    assert_int_equal(send("v@example.com", mail, (struct smtp_dsn_rcpt){ .notify = 0 }), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 2);
    assert_int_equal(sim_host_received(mx, 0)->dsn.n, 0);
    assert_int_equal(sim_host_inbox(back), 1);
    assert_int_equal(sim_host_received(back, 0)->sender.n, 0);
    assert_true(received(back, 0, "Action: relayed"));
    assert_true(received(back, 0, "Original-Envelope-Id: id1"));
    assert_true(received(back, 0, "Original-Recipient: rfc822; u@old.example"));
    assert_false(received(back, 0, "the body")); /* RET=FULL is for failures */
}

static bool no_notifications_now(void *arg, enum hook h, const struct hook_input *in,
                                 struct hook_result *ret)
{
    if (in->message->sender->text.n)
        return false;
    ret->verdict = VERDICT_DEFER;
    ret->reply = REPLY(451, ENH(4, 3, 0), "not now");
    return true;
}

/* The delivery stands, nothing is sent twice; that nobody was told is said. */
static void test_Q9_success_that_cannot_be_told_is_said(void **state)
{
    sim_host_hide(mx, STR("DSN"));
    f.policy.ask = no_notifications_now;
    f.policy.asks = 1u << HOOK_ROUTE;
    fixture_start(&f);
    send("u@example.com", nothing, (struct smtp_dsn_rcpt){ .notify = SMTP_NOTIFY_SUCCESS });
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(sim_host_inbox(back), 0);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(counted(&f, "dsn_dropped"), 1);
}

static void test_Q9_failure_is_told_as_asked(void **state)
{
    sim_host_reply(mx, SMTP_STAGE_RCPT, 550, STR("no such user"));
    fixture_start(&f);
    static const struct {
        uint8_t notify;
        enum smtp_ret ret;
        bool told, body;
    } cases[] = {
        { 0, SMTP_RET_NONE, true, false },
        { SMTP_NOTIFY_NEVER, SMTP_RET_NONE, false, false },
        { SMTP_NOTIFY_SUCCESS | SMTP_NOTIFY_DELAY, SMTP_RET_NONE, false, false },
        { SMTP_NOTIFY_FAILURE, SMTP_RET_FULL, true, true },
        { SMTP_NOTIFY_FAILURE, SMTP_RET_HDRS, true, false },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t before = sim_host_inbox(back);
        struct smtp_dsn_mail mail = { .ret = cases[i].ret };
        assert_int_equal(
            send("u@example.com", mail, (struct smtp_dsn_rcpt){ .notify = cases[i].notify }), 250);
        sim_world_advance(f.w, SIM_MINUTE);
        assert_int_equal(sim_host_inbox(back) - before, cases[i].told);
        if (cases[i].told)
            assert_int_equal(received(back, before, "the body"), cases[i].body);
        assert_int_equal(queued(&f), 0);
    }
}

/* What was asked outlives a crash. */
static void test_Q9_kept_in_the_spool(void **state)
{
    sim_host_down(mx);
    fixture_start(&f);
    assert_int_equal(send("u@example.com", (struct smtp_dsn_mail){ .envid = STR("id2") },
                          (struct smtp_dsn_rcpt){ .notify = SMTP_NOTIFY_NEVER }),
                     250);
    sim_world_crash(f.w);
    sim_world_start(f.w);
    sim_host_up(mx);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_true(str_eq(sim_host_received(mx, 0)->dsn, STR("ENVID=id2")));
    assert_true(str_eq(sim_host_received(mx, 0)->rcpt_dsn[0], STR("NOTIFY=NEVER")));
}

/* Each recipient of a message has its own wish; those who share a connection, too. */
static void test_Q9_each_recipient_its_own(void **state)
{
    fixture_start(&f);
    struct str to[] = { STR("a@example.com"), STR("b@example.com"), STR("c@example.com") };
    struct smtp_dsn_rcpt rcpt[] = { { .notify = SMTP_NOTIFY_NEVER },
                                    { .notify = 0 },
                                    { .notify = SMTP_NOTIFY_FAILURE } };
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = to,
                          .n_recipients = 3,
                          .content = STR("Subject: x\r\n\r\nx\r\n"),
                          .dsn = nothing,
                          .rcpt_dsn = rcpt };
    assert_int_equal(sim_world_send(f.w, &m)->reply.code, 250);
    sim_world_advance(f.w, SIM_MINUTE);
    const struct sim_received *got_it = sim_host_received(mx, 0);
    assert_int_equal(got_it->n_recipients, 3);
    assert_true(str_eq(got_it->rcpt_dsn[0], STR("NOTIFY=NEVER")));
    assert_int_equal(got_it->rcpt_dsn[1].n, 0);
    assert_true(str_eq(got_it->rcpt_dsn[2], STR("NOTIFY=FAILURE")));
}

/* ---- delays ---- */

static size_t delays(void)
{
    return got(back, "Action: delayed");
}

static void test_Q9_a_backlog_is_told_of_once_each(void **state)
{
    sim_host_down(mx);
    fixture_start(&f);
    for (int i = 0; i < 100; i++)
        assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 3 * SIM_HOUR + 50 * SIM_MINUTE);
    assert_int_equal(delays(), 0);
    sim_world_advance(f.w, 30 * SIM_MINUTE);
    assert_int_equal(delays(), 100);
    assert_true(received(back, 0, "connection refused"));
    assert_true(received(back, 0, "Will-Retry-Until: "));
    sim_world_crash(f.w);
    sim_world_start(f.w);
    assert_int_equal(mail_to(&f, "u@example.com"), 250); /* behind those that were told */
    sim_world_advance(f.w, 6 * SIM_HOUR);
    assert_int_equal(delays(), 101);
    sim_host_up(mx);
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 101);
}

static void test_Q9_a_recipient_that_is_deferred_is_told_of(void **state)
{
    sim_host_reply(mx, SMTP_STAGE_RCPT, 450, STR("greylisted"));
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 4 * SIM_DAY);
    assert_int_equal(delays(), 1);
    assert_true(received(back, 0, "greylisted"));
    assert_int_equal(queued(&f), 1);
}

static void test_Q9_no_delay_is_told_where_none_is_wanted(void **state)
{
    sim_host_down(mx);
    fixture_start(&f);
    send("u@example.com", nothing, (struct smtp_dsn_rcpt){ .notify = SMTP_NOTIFY_FAILURE });
    send("u@example.com", nothing, (struct smtp_dsn_rcpt){ .notify = SMTP_NOTIFY_NEVER });
    sim_world_mail(f.w, "", "u@example.com", "from nobody");
    sim_world_advance(f.w, 2 * SIM_DAY);
    assert_int_equal(delays(), 0);
    send("v@example.com", nothing, (struct smtp_dsn_rcpt){ .notify = SMTP_NOTIFY_DELAY });
    sim_world_advance(f.w, 5 * SIM_HOUR); /* though others that are never told of stand before it */
    assert_int_equal(delays(), 1);
}

static void test_Q9_the_route_says_when(void **state)
{
    struct route *r = sim_route_hosts("192.0.2.1", false);
    r->warn_after_ms = SIM_HOUR;
    sim_policy_domain(&f.policy, "soon.example", r);
    r = sim_route_hosts("192.0.2.1:26", false);
    r->warn_after_ms = -1;
    sim_policy_domain(&f.policy, "never.example", r);
    sim_host_down(mx);
    sim_host_down(sim_world_host(f.w, "192.0.2.1:26"));
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@soon.example"), 250);
    assert_int_equal(mail_to(&f, "u@never.example"), 250);
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_int_equal(delays(), 1);
    sim_world_advance(f.w, 3 * SIM_DAY);
    assert_int_equal(delays(), 1);
}

/* One that is still being tried when the others have failed is not passed over. */
static void test_Q9_one_under_way_is_told_of_later(void **state)
{
    struct sim_rule silent = { .stage = SMTP_STAGE_GREETING, .action = SIM_SILENCE, .times = 1 };
    sim_host_add_rule(mx, &silent);
    sim_host_reply(mx, SMTP_STAGE_GREETING, 421, STR("not now"));
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 6 * SIM_HOUR);
    assert_int_equal(delays(), 2);
}

/* Nor those that come before one that was told of and has its next turn later. */
static void test_Q9_one_that_is_due_later_hides_nothing(void **state)
{
    struct sim_rule rule = { .stage = SMTP_STAGE_RCPT,
                             .address = STR("full@example.com"),
                             .reply = REPLY(452, ENH(4, 2, 2), "mailbox full") };
    struct route *r = sim_route_hosts("192.0.2.1", false);
    r->warn_after_ms = 20 * SIM_MINUTE;
    sim_policy_domain(&f.policy, "example.com", r);
    sim_host_add_rule(mx, &rule);
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "full@example.com"), 250);
    sim_world_advance(f.w, 4 * SIM_HOUR); /* its turns are two hours from each other now */
    assert_int_equal(delays(), 1);
    sim_host_down(mx);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 40 * SIM_MINUTE);
    assert_int_equal(delays(), 2);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 5 * SIM_HOUR);
    assert_int_equal(delays(), 3);
}

/* More recipients of one message than one attempt takes. */
static void test_Q9_all_recipients_are_told_of(void **state)
{
    struct str to[150];
    char names[ARRAY_LEN(to)][32];
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = to,
                          .n_recipients = ARRAY_LEN(to),
                          .content = STR("Subject: x\r\n\r\nthe body\r\n") };
    for (size_t i = 0; i < ARRAY_LEN(to); i++) {
        snprintf(names[i], sizeof names[i], "u%03zu@example.com", i);
        to[i] = str_of(names[i]);
    }
    sim_host_down(mx);
    fixture_start(&f);
    assert_int_equal(sim_world_send(f.w, &m)->reply.code, 250);
    sim_world_advance(f.w, 6 * SIM_HOUR);
    size_t told = 0;
    for (size_t i = 0; i < ARRAY_LEN(to); i++)
        told += sim_host_count_with(back, to[i]) > 0;
    assert_int_equal(told, ARRAY_LEN(to));
}

#define WITH_WORLD(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(test_Q9_passed_on_where_dsn_is_offered),
        WITH_WORLD(test_Q9_success_is_told_where_the_host_would_not),
        WITH_WORLD(test_Q9_success_that_cannot_be_told_is_said),
        WITH_WORLD(test_Q9_failure_is_told_as_asked),
        WITH_WORLD(test_Q9_kept_in_the_spool),
        WITH_WORLD(test_Q9_each_recipient_its_own),
        WITH_WORLD(test_Q9_a_backlog_is_told_of_once_each),
        WITH_WORLD(test_Q9_one_under_way_is_told_of_later),
        WITH_WORLD(test_Q9_one_that_is_due_later_hides_nothing),
        WITH_WORLD(test_Q9_all_recipients_are_told_of),
        WITH_WORLD(test_Q9_a_recipient_that_is_deferred_is_told_of),
        WITH_WORLD(test_Q9_no_delay_is_told_where_none_is_wanted),
        WITH_WORLD(test_Q9_the_route_says_when),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
