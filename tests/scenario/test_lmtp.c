/* LMTP as a server (RFC 2033): what becomes of each recipient, and what its client is told, on a Unix socket and by
 * TCP. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "fixture.h"

#define SOCKET "unix:/run/tern/lmtp.sock"

static struct fixture f;
static struct listen_settings listen[2]; /* as long as the settings */
static struct sim_host *mx;
static enum verdict data_verdict;

/* By the recipient's name. */
static bool opinion(void *arg, enum hook h, const struct hook_input *in, struct hook_result *ret)
{
    struct str name = in->recipient ? in->recipient->address->local : STR("");

    if (h == HOOK_DATA) {
        ret->verdict = data_verdict;
        return data_verdict != VERDICT_NONE;
    }
    if (h == HOOK_RCPT && str_eq(name, STR("nobody")))
        ret->verdict = VERDICT_REJECT;
    else if (h == HOOK_RCPT && str_eq(name, STR("trap")))
        ret->verdict = VERDICT_DISCARD;
    else if (h == HOOK_ROUTE && str_eq(name, STR("spam")))
        ret->verdict = VERDICT_REJECT;
    else if (h == HOOK_ROUTE && str_eq(name, STR("later")))
        ret->verdict = VERDICT_DEFER;
    else if (h == HOOK_ROUTE && str_eq(name, STR("broken")))
        ret->verdict = VERDICT_FAILED;
    else if (h == HOOK_ROUTE && str_eq(name, STR("sink")))
        ret->verdict = VERDICT_DISCARD;
    else if (h == HOOK_ROUTE && str_eq(name, STR("gone"))) {
        ret->verdict = VERDICT_ROUTE;
        ret->route = sim_route_bounce(550, "5.1.6 moved away");
    }
    if (ret->verdict == VERDICT_REJECT)
        ret->reply = REPLY(550, ENH(5, 7, 1), "not here");
    return ret->verdict != VERDICT_NONE;
}

static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    mx = sim_world_host(f.w, "192.0.2.1");
    listen[0] = (struct listen_settings){ .service = STR("lmtp"), .text = STR(SOCKET) };
    listen[1] = (struct listen_settings){ .service = STR("lmtp"), .text = STR("0.0.0.0:24") };
    assert_int_equal(net_addr_parse(listen[0].text, 0, &listen[0].addr), 0);
    listen[1].addr = sim_addr("0.0.0.0:24");
    listen[0].chunking = listen[1].chunking = true;
    f.settings->listen = listen;
    f.settings->n_listen = 2;
    f.policy.ask = opinion;
    f.policy.asks = 1u << HOOK_RCPT | 1u << HOOK_ROUTE | 1u << HOOK_DATA;
    data_verdict = VERDICT_NONE;
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

/* ---- a session by hand ---- */

static struct sim_session *greeted(size_t listener)
{
    struct net_addr to = sim_world_listener(f.w, listener);
    struct sim_session *s = sim_world_session_to(f.w, &to, NULL);

    assert_int_equal(sim_world_line(f.w, s, "LHLO client.example").code, 250);
    return s;
}

static int line(struct sim_session *s, const char *text)
{
    return sim_world_line(f.w, s, text).code;
}

/* A transaction up to the text, to those names at example.com (separated by a blank); codes: of RCPT. */
static void envelope(struct sim_session *s, const char *names, const char *codes)
{
    struct str rest = str_of(names), name, want = str_of(codes), code;
    char text[128];
    uint64_t n;

    assert_int_equal(line(s, "MAIL FROM:<client@sender.example>"), 250);
    while (str_cut(&rest, ' ', &name)) {
        snprintf(text, sizeof(text), "RCPT TO:<" STR_FMT "@example.com>", STR_ARG(name));
        assert_true(str_cut(&want, ' ', &code) && str_to_u64(code, &n) == 0);
        assert_int_equal(line(s, text), n);
    }
    assert_int_equal(line(s, "DATA"), 354);
    sim_session_write(s, STR("Subject: x\r\n\r\nhello\r\n"));
}

/* The replies to the message, and not one more. */
static void ends(struct sim_session *s, const char *codes)
{
    struct str want = str_of(codes), code;
    struct smtp_reply extra;
    uint64_t n;

    sim_session_write(s, STR(".\r\n"));
    while (str_cut(&want, ' ', &code)) {
        assert_int_equal(str_to_u64(code, &n), 0);
        assert_int_equal(sim_world_reply(f.w, s).code, n);
    }
    sim_world_advance(f.w, SIM_SECOND);
    assert_false(sim_session_reply(s, &extra));
    assert_int_equal(line(s, "NOOP"), 250);
}

/* ---- */

static void test_each_recipient_has_its_own_reply(void **state)
{
    fixture_start(&f);
    struct sim_session *s = greeted(0);
    envelope(s, "trap u nobody spam later v sink broken gone u",
             "250 250 550 250 250 250 250 250 250 250");
    ends(s, "250 250 550 451 250 250 451 550 250");
    assert_int_equal(counted(&f, "message_accepted"), 1);
    assert_int_equal(counted(&f, "recipient_rejected"), 5); /* one of them at RCPT */
    assert_int_equal(counted(&f, "discarded"), 2);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(counted(&f, "delivered"), 3);
    assert_int_equal(sim_host_inbox(sim_world_host(f.w, "192.0.2.77")),
                     0); /* nothing is returned */
    assert_int_equal(queued(&f), 0);
    sim_session_close(s);
}

static void test_the_trace_says_lmtp_and_no_address(void **state)
{
    fixture_start(&f);
    struct sim_session *s = greeted(0);
    envelope(s, "u", "250");
    ends(s, "250");
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(got(mx, "Received: from client.example\r\n\tby mx2.isp.example with LMTP\r\n"),
                     1);
    const struct sim_entry *e = sim_journal_next(sim_world_journal(f.w), "message_accepted", NULL);
    assert_non_null(e);
    struct buf json;
    buf_init(&json, 0);
    sim_journal_json(sim_world_journal(f.w), &json);
    assert_true(str_find(buf_str(&json), STR("\"client\":\"" SOCKET "\"")) > 0);
    buf_done(&json);
    sim_session_close(s);
}

static void test_all_refused(void **state)
{
    fixture_start(&f);
    struct sim_session *s = greeted(1);
    envelope(s, "spam later", "250 250");
    ends(s, "550 451");
    assert_int_equal(counted(&f, "message_rejected"), 1);
    assert_int_equal(counted(&f, "message_accepted"), 0);
    /* One that is dropped is none that is refused. */
    envelope(s, "spam trap", "250 250");
    ends(s, "550 250");
    envelope(s, "sink spam", "250 250");
    ends(s, "250 550");
    assert_int_equal(counted(&f, "message_rejected"), 1);
    assert_int_equal(queued(&f), 0);
    sim_session_close(s);
}

static void test_what_is_said_of_the_message_is_said_to_each(void **state)
{
    fixture_start(&f);
    struct sim_session *s = greeted(1);
    data_verdict = VERDICT_REJECT;
    envelope(s, "u trap v", "250 250 250");
    ends(s, "550 550 550");
    data_verdict = VERDICT_DEFER;
    envelope(s, "u v", "250 250");
    ends(s, "451 451");
    data_verdict = VERDICT_DISCARD;
    envelope(s, "u v", "250 250");
    ends(s, "250 250");
    data_verdict = VERDICT_NONE;
    envelope(s, "u v", "250 250");
    ends(s, "250 250");
    assert_int_equal(counted(&f, "message_accepted"), 1);
    assert_int_equal(counted(&f, "message_rejected"), 2);
    sim_session_close(s);
}

static void test_a_loop_is_told_to_each(void **state)
{
    f.settings->limits.received_headers = 2;
    fixture_start(&f);
    struct sim_session *s = greeted(1);
    assert_int_equal(line(s, "MAIL FROM:<client@sender.example>"), 250);
    assert_int_equal(line(s, "RCPT TO:<u@example.com>"), 250);
    assert_int_equal(line(s, "RCPT TO:<v@example.com>"), 250);
    assert_int_equal(line(s, "DATA"), 354);
    sim_session_write(s, STR("Received: a\r\nReceived: b\r\nReceived: c\r\n\r\nhello\r\n"));
    ends(s, "554 554");
    assert_int_equal(counted(&f, "loop_detected"), 1);
    sim_session_close(s);
}

/* Who was refused for good before the commit stays refused; the others come again. */
static void test_a_commit_that_fails(void **state)
{
    fixture_start(&f);
    struct sim_session *s = greeted(0);
    sim_spool_fail_commits(sim_world_spool(f.w), 1, -EIO);
    envelope(s, "u spam v", "250 250 250");
    ends(s, "451 550 451");
    assert_int_equal(queued(&f), 0);
    sim_spool_set_full(sim_world_spool(f.w), true);
    envelope(s, "u v", "250 250");
    ends(s, "452 452");
    sim_spool_set_full(sim_world_spool(f.w), false);
    envelope(s, "u v", "250 250");
    ends(s, "250 250");
    assert_int_equal(counted(&f, "message_accepted"), 1);
    sim_session_close(s);
}

static void test_more_memory_than_there_is(void **state)
{
    f.settings->limits.memory = 64;
    fixture_start(&f);
    struct sim_session *s = greeted(0);
    envelope(s, "u trap v", "250 250 250");
    sim_session_write(s, STR("and a line that is longer than what is left of the memory\r\n"));
    ends(s, "452 452 452");
    sim_session_close(s);
}

/* Each reply is there though a policy says much, to many. */
static void test_many_recipients_and_long_replies(void **state)
{
    enum { MANY = 1000 };
    char text[128];

    fixture_start(&f);
    struct sim_session *s = greeted(0);
    assert_int_equal(line(s, "MAIL FROM:<client@sender.example>"), 250);
    for (int i = 0; i < MANY; i++) {
        snprintf(text, sizeof(text), "RCPT TO:<%s@example.com>", i % 2 ? "u" : "gone");
        assert_int_equal(line(s, text), 250);
    }
    assert_int_equal(line(s, "DATA"), 354);
    sim_session_write(s, STR("Subject: x\r\n\r\nhello\r\n.\r\n"));
    for (int i = 0; i < MANY; i++)
        assert_int_equal(sim_world_reply(f.w, s).code, i % 2 ? 250 : 550);
    assert_int_equal(line(s, "NOOP"), 250);
    assert_int_equal(queued(&f), MANY / 2);
    sim_session_close(s);
}

static void test_our_own_client(void **state)
{
    struct str to[] = { STR("u@example.com"), STR("spam@example.com"), STR("nobody@example.com") };
    struct sim_mail m = { .to = sim_addr("198.51.100.25:24"),
                          .sender = STR("client@sender.example"),
                          .recipients = to,
                          .n_recipients = 3,
                          .content = STR("Subject: x\r\n\r\nhello\r\n") };
    fixture_start(&f);
    const struct sim_outcome *out = sim_world_send(f.w, &m);
    assert_int_equal(out->stage, SMTP_STAGE_FINAL);
    assert_int_equal(out->reply.code, 550);
    assert_int_equal(out->accepted, 1);
    assert_int_equal(out->rcpt[0].code, 250);
    assert_int_equal(out->rcpt[1].code, 550);
    assert_int_equal(out->rcpt[2].code, 550);
}

/* A router that has its own LMTP as the next hop would send to itself for ever. */
static void test_our_own_socket_is_no_next_hop(void **state)
{
    sim_policy_domain(&f.policy, "example.com", sim_route_hosts("lmtp:/run/tern/lmtp.sock", false));
    fixture_start(&f);
    struct sim_session *s = greeted(1);
    envelope(s, "u", "250");
    ends(s, "250");
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(counted(&f, "bounced"), 1);
    assert_int_equal(counted(&f, "message_accepted"), 1);
    sim_session_close(s);
}

static void test_shutdown_between_and_in_transactions(void **state)
{
    fixture_start(&f);
    struct sim_session *idle = greeted(0), *busy = greeted(1);
    envelope(busy, "u spam", "250 250");
    assert_false(sim_session_closed(idle));
    engine_stop(sim_world_engine(f.w, 0));
    sim_world_advance(f.w, SIM_SECOND);
    assert_true(sim_session_closed(idle));
    sim_session_write(busy, STR(".\r\n"));
    assert_int_equal(sim_world_reply(f.w, busy).code, 250);
    assert_int_equal(sim_world_reply(f.w, busy).code, 550);
    assert_int_equal(sim_world_reply(f.w, busy).code, 421);
    sim_session_close(idle);
    sim_session_close(busy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_recipient_has_its_own_reply, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_trace_says_lmtp_and_no_address, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_said_of_the_message_is_said_to_each, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_loop_is_told_to_each, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_commit_that_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_more_memory_than_there_is, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_recipients_and_long_replies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_our_own_client, setup, teardown),
        cmocka_unit_test_setup_teardown(test_our_own_socket_is_no_next_hop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shutdown_between_and_in_transactions, setup, teardown),
    };
    return cmocka_run_group_tests_name("lmtp", tests, NULL, NULL);
}
