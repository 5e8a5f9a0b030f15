/* When mail is to go: DELIVERBY (RFC 2852), FUTURERELEASE (RFC 4865), MT-PRIORITY (RFC 6710), on simulated time. */
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
static struct net_cidr anybody;

static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    mx = sim_world_host(f.w, "192.0.2.1");
    back = sim_world_host(f.w, "192.0.2.77");
    assert_int_equal(net_cidr_parse(STR("0.0.0.0/0"), &anybody), 0);
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

/* Clients may relay: they are as good as authenticated. */
static void trust(void)
{
    f.settings->relay_from = &anybody;
    f.settings->n_relay_from = 1;
}

static int64_t wall(void)
{
    return engine_wall(sim_world_engine(f.w, 0));
}

/* What is asked for one message. */
struct wish {
    struct smtp_by by;
    int8_t priority;
    uint8_t notify;
    const char *sender;
};

static uint16_t send_to(const char *to, struct wish wish)
{
    struct str address = str_of(to);
    struct smtp_dsn_rcpt rcpt = { .notify = wish.notify };
    struct sim_mail m = { .sender = str_of(wish.sender ? wish.sender : "client@sender.example"),
                          .recipients = &address,
                          .n_recipients = 1,
                          .content = STR("Subject: x\r\n\r\nthe body\r\n"),
                          .by = wish.by,
                          .priority = wish.priority,
                          .rcpt_dsn = &rcpt };
    return sim_world_send(f.w, &m)->reply.code;
}

static uint16_t send_by(int32_t seconds, enum smtp_by_mode mode, bool trace, uint8_t notify)
{
    return send_to("u@example.com",
                   (struct wish){ .by = { mode, trace, seconds }, .notify = notify });
}

/* A message by hand: the reply to MAIL with these parameters; after a yes it is sent, to u@example.com. */
static struct smtp_reply send_raw(const char *params)
{
    char line[256];
    struct sim_session *s = sim_world_session(f.w, NULL);

    assert_int_equal(sim_world_line(f.w, s, "EHLO me.example").code, 250);
    snprintf(line, sizeof line, "MAIL FROM:<client@sender.example> %s", params);
    struct smtp_reply reply = sim_world_line(f.w, s, line);
    reply.text = str_of(str_dup(reply.text)); /* of a test: never freed but by its end */
    if (reply.code == 250) {
        assert_int_equal(sim_world_line(f.w, s, "RCPT TO:<u@example.com>").code, 250);
        assert_int_equal(sim_world_line(f.w, s, "DATA").code, 354);
        sim_session_write(s, STR("Subject: x\r\n\r\nthe body\r\n"));
        assert_int_equal(sim_world_line(f.w, s, ".").code, 250);
    }
    sim_session_close(s);
    return reply;
}

static void is_reply(struct smtp_reply reply, uint16_t code, const char *enhanced, const char *text)
{
    char e[16];

    assert_int_equal(reply.code, code);
    assert_true(str_eq(str_trim(str_of(smtp_enhanced_text(reply.enhanced, e))), str_of(enhanced)));
    if (str_find(reply.text, str_of(text)) < 0)
        fail_msg("'%s' is not in: " STR_FMT, text, STR_ARG(reply.text));
    free((char *)(uintptr_t)reply.text.p);
}

static const struct sim_received *told(size_t i)
{
    assert_true(sim_host_inbox(back) > i);
    return sim_host_received(back, i);
}

static void says(const struct sim_received *r, const char *text)
{
    if (str_find(r->content, str_of(text)) < 0)
        fail_msg("'%s' is not in:\n" STR_FMT, text, STR_ARG(r->content));
}

static void in_time(const struct sim_received *r, int64_t due_ms, int64_t grace_ms)
{
    if (r->wall_ms < due_ms || r->wall_ms > due_ms + grace_ms)
        fail_msg("%ld ms after its time", (long)(r->wall_ms - due_ms));
}

static void restart(void)
{
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
    sim_world_start(f.w);
}

/* ---- FUTURERELEASE ------------------------------------------------------------------------------ */

static void command_done(struct queue_command *c)
{
    free(c);
}

static void command(enum queue_command_type type, const struct msgid *id)
{
    struct queue_command *c = calloc(1, sizeof *c);

    assert_non_null(c);
    c->type = type;
    c->done = command_done;
    if (id) {
        c->one_message = true;
        c->id = *id;
    }
    assert_true(str_copy(STR("example.com"), c->queue, sizeof c->queue));
    queue_command_send(sim_world_ports(f.w, 0)->workers, c);
    sim_world_advance(f.w, SIM_SECOND);
}

static struct msgid only_message(void)
{
    struct port_spool *spool = sim_world_ports(f.w, 0)->spool;
    struct spool_entry entry;

    assert_int_equal(spool->scan_entries(spool, NULL, 0, &entry, 1), 1);
    return entry.id;
}

static void test_held_until_its_time_and_over_a_restart(void **state)
{
    trust();
    f.settings->queue.warn_after_ms = SIM_HOUR;
    f.settings->queue.lifetime_ms = SIM_DAY;
    fixture_start(&f);
    int64_t before = wall();
    is_reply(send_raw("HOLDFOR=864000"), 250, "2.1.0", "OK"); /* ten days */
    for (int day = 0; day < 9; day++) {
        sim_world_advance(f.w, SIM_DAY);
        assert_int_equal(queued(&f), 1);
        assert_int_equal(sim_host_sessions(mx), 0);
        if (day == 4)
            restart();
    }
    sim_world_advance(f.w, 2 * SIM_DAY);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_host_inbox(mx), 1);
    in_time(sim_host_received(mx, 0), before + 10 * SIM_DAY, 5 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(back), 0); /* nobody was told of a delay */
    assert_true(str_eq(sim_host_received(mx, 0)->times, STR("")));
}

static void test_hold_until(void **state)
{
    char params[64], when[SMTP_DATE_TIME_TEXT];

    trust();
    fixture_start(&f);
    int64_t at = (wall() / 1000 + 7200) * 1000;
    snprintf(params, sizeof params, "HOLDUNTIL=%s", smtp_date_time_text(at, when));
    is_reply(send_raw(params), 250, "2.1.0", "OK");
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 0);
    assert_int_equal(mail_to(&f, "v@example.com"), 250); /* others are not held up by it */
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 2);
    in_time(sim_host_received(mx, 1), at, 5 * SIM_SECOND);
}

/* The age of held mail counts from when it was to go. */
static void test_lifetime_and_warning_count_from_its_release(void **state)
{
    trust();
    f.settings->queue.warn_after_ms = SIM_HOUR;
    f.settings->queue.lifetime_ms = SIM_DAY;
    sim_host_down(mx);
    fixture_start(&f);
    int64_t goes = wall() + 2 * SIM_DAY;
    is_reply(send_raw("HOLDFOR=172800"), 250, "2.1.0", "OK");
    sim_world_advance(f.w, 2 * SIM_DAY + 30 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(back), 0);
    sim_world_advance(f.w, SIM_DAY + 30 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(back), 2);
    says(told(0), "Action: delayed");
    in_time(told(0), goes + SIM_HOUR, 16 * SIM_MINUTE);
    says(told(1), "Action: failed");
    says(told(1), "Future-Release-Request: for;172800");
    in_time(told(1), goes + SIM_DAY, 16 * SIM_MINUTE);
    assert_int_equal(queued(&f), 0);
}

static void test_who_may_have_mail_held(void **state)
{
    fixture_start(&f);
    is_reply(send_raw("HOLDFOR=60"), 530, "5.7.0", "Authentication required");
    assert_int_equal(queued(&f), 0);
}

static void test_holds_that_make_no_sense(void **state)
{
    trust();
    fixture_start(&f);
    is_reply(send_raw("HOLDUNTIL=2001-01-01T00:00:00Z"), 501, "5.5.4", "in the past");
    is_reply(send_raw("HOLDFOR=2592001"), 501, "5.5.4", "longer than EHLO allows");
    is_reply(send_raw("HOLDFOR=60 BY=60;R"), 501, "5.5.4", "is over before");
    is_reply(send_raw("HOLDFOR=60 BY=30;N"), 501, "5.5.4", "is over before");
}

static void test_operator_lets_it_go(void **state)
{
    static const enum queue_command_type by_name[] = { QUEUE_RETRY, QUEUE_UNHOLD };

    trust();
    fixture_start(&f);
    for (size_t i = 0; i < ARRAY_LEN(by_name); i++) {
        is_reply(send_raw("HOLDFOR=86400"), 250, "2.1.0", "OK");
        struct msgid id = only_message();
        command(QUEUE_RETRY, NULL); /* of all the queue: that is not meant */
        assert_int_equal(sim_host_inbox(mx), i);
        command(by_name[i], &id);
        assert_int_equal(sim_host_inbox(mx), i + 1);
        assert_int_equal(queued(&f), 0);
    }
}

/* ---- DELIVERBY ---------------------------------------------------------------------------------- */

static void test_what_is_left_is_passed_on(void **state)
{
    sim_host_set_deliver_by(mx, true, 0);
    sim_host_add_rule(mx, &(struct sim_rule){ .stage = SMTP_STAGE_FINAL,
                                              .reply = { 451, { 4, 3, 0 }, { "not now", 7 } },
                                              .times = 1 });
    fixture_start(&f);
    int64_t before = wall();
    assert_int_equal(send_by(3600, SMTP_BY_RETURN, false, 0), 250);
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
    const struct sim_received *r = sim_host_received(mx, 0);
    long left = strtol(r->times.p + 3, NULL, 10);
    assert_true(str_starts(r->times, STR("BY=")) && str_ends(r->times, STR(";R")));
    int64_t gone = (r->wall_ms - before + 999) / 1000;
    assert_true(gone >= 50 && left <= 3600 - gone + 1 && left >= 3600 - gone - 2);
    assert_int_equal(sim_host_inbox(back), 0);
}

static void test_returned_when_its_time_is_over(void **state)
{
    sim_host_set_deliver_by(mx, true, 0);
    sim_host_reply(mx, SMTP_STAGE_RCPT, 451, STR("greylisted"));
    fixture_start(&f);
    int64_t before = wall();
    assert_int_equal(send_by(1000, SMTP_BY_RETURN, false, 0), 250); /* between two attempts */
    sim_world_advance(f.w, 990 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(back), 0);
    uint64_t tried = sim_host_sessions(mx);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(back), 1);
    in_time(told(0), before + 1000 * SIM_SECOND, 3 * SIM_SECOND);
    says(told(0), "Action: failed\r\nStatus: 5.4.7\r\n");
    says(told(0), "as its sender asked (BY)");
    says(told(0), "greylisted");
    says(told(0), "Deliver-By-Date: ");
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_host_sessions(mx), tried); /* without a further attempt */
}

/* Also where nothing of it is tried: its queue backs off, and its policy keeps mail for ever. */
static void returned_while_the_host_is_down(size_t others, int64_t grace)
{
    f.settings->queue.host_retry_max_ms = SIM_HOUR;
    sim_policy_domain(&f.policy, "example.com", sim_route_backup("example.com"));
    sim_host_down(mx);
    fixture_start(&f);
    for (size_t i = 0; i < others; i++)
        assert_int_equal(mail_to(&f, "other@example.com"), 250);
    sim_world_advance(f.w, SIM_HOUR);
    int64_t before = wall();
    assert_int_equal(send_by(600, SMTP_BY_RETURN, false, 0), 250);
    sim_world_advance(f.w, 599 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(back), 0);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(back), 1);
    in_time(told(0), before + 600 * SIM_SECOND, grace);
    says(told(0), "Status: 5.4.7");
    assert_int_equal(queued(&f), others);
}

static void test_returned_while_its_host_is_down(void **state)
{
    returned_while_the_host_is_down(0, 3 * SIM_SECOND);
}

static void test_returned_out_of_a_backlog(void **state)
{
    returned_while_the_host_is_down(700, 3 * SIM_SECOND);
}

static void test_a_restart_does_not_forget_the_time(void **state)
{
    sim_host_set_deliver_by(mx, true, 0);
    sim_host_reply(mx, SMTP_STAGE_RCPT, 451, STR("greylisted"));
    fixture_start(&f);
    int64_t before = wall();
    assert_int_equal(send_by(1000, SMTP_BY_RETURN, false, 0), 250);
    sim_world_advance(f.w, 700 * SIM_SECOND);
    restart();
    sim_world_advance(f.w, 400 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(back), 1);
    in_time(told(0), before + 1000 * SIM_SECOND, 3 * SIM_SECOND);
}

static void test_not_to_hosts_that_do_not_mind_the_time(void **state)
{
    fixture_start(&f);
    assert_int_equal(send_by(3600, SMTP_BY_RETURN, false, 0), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 0);
    assert_int_equal(sim_host_inbox(back), 1);
    says(told(0), "Status: 5.4.7");
    says(told(0), "does not offer DELIVERBY");
    assert_int_equal(send_by(3600, SMTP_BY_RETURN, false, SMTP_NOTIFY_NEVER), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 0);
    assert_int_equal(sim_host_inbox(back), 1);
    assert_int_equal(queued(&f), 0);
}

static void test_the_least_that_a_host_takes(void **state)
{
    sim_host_set_deliver_by(mx, true, 600);
    fixture_start(&f);
    assert_int_equal(send_by(500, SMTP_BY_RETURN, false, 0), 250);
    assert_int_equal(send_by(500, SMTP_BY_NOTIFY, false, 0), 250); /* it is not for these */
    assert_int_equal(send_by(700, SMTP_BY_RETURN, false, 0), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 2);
    assert_int_equal(sim_host_inbox(back), 1);
    says(told(0), "Status: 5.4.7");
    says(told(0), "takes longer than the time that is left");
}

static void test_lmtp_is_the_end_of_the_way(void **state)
{
    sim_host_set_lmtp(mx, true);
    sim_policy_domain(&f.policy, "example.com", sim_route_hosts("lmtp://192.0.2.1", false));
    fixture_start(&f);
    assert_int_equal(send_by(3600, SMTP_BY_RETURN, true, 0), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(sim_host_inbox(back), 0);
}

static void test_told_when_the_time_is_over_and_tried_on(void **state)
{
    sim_host_set_deliver_by(mx, true, 0);
    sim_host_reply(mx, SMTP_STAGE_RCPT, 451, STR("greylisted"));
    fixture_start(&f);
    int64_t before = wall();
    assert_int_equal(send_by(1000, SMTP_BY_NOTIFY, false, 0), 250);
    sim_world_advance(f.w, 990 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(back), 0);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(back), 1);
    in_time(told(0), before + 1000 * SIM_SECOND, 5 * SIM_SECOND);
    says(told(0), "Action: delayed\r\nStatus: 4.4.7\r\n");
    sim_world_advance(f.w, 10 * SIM_HOUR); /* once, and the usual warning is not given besides */
    assert_int_equal(sim_host_inbox(back), 1);
    sim_host_clear_rules(mx);
    sim_world_advance(f.w, 3 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_true(str_starts(sim_host_received(mx, 0)->times, STR("BY=-")));
    assert_true(str_ends(sim_host_received(mx, 0)->times, STR(";N")));
    assert_int_equal(sim_host_inbox(back), 1);
}

static void test_told_while_its_host_is_down(void **state)
{
    f.settings->queue.host_retry_max_ms = SIM_HOUR;
    sim_host_down(mx);
    fixture_start(&f);
    sim_world_advance(f.w, SIM_MINUTE);
    int64_t before = wall();
    assert_int_equal(send_by(1800, SMTP_BY_NOTIFY, false, 0), 250);
    assert_int_equal(send_by(1800, SMTP_BY_NOTIFY, false, SMTP_NOTIFY_NEVER), 250);
    assert_int_equal(send_by(1800, SMTP_BY_NOTIFY, false, SMTP_NOTIFY_FAILURE), 250);
    sim_world_advance(f.w, 3 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(back), 1);
    in_time(told(0), before + 1800 * SIM_SECOND, 5 * SIM_SECOND);
    says(told(0), "Status: 4.4.7");
    assert_int_equal(queued(&f), 3);
}

static void test_what_was_over_before_is_not_told_again(void **state)
{
    sim_host_set_deliver_by(mx, true, 0);
    sim_host_reply(mx, SMTP_STAGE_RCPT, 451, STR("greylisted"));
    fixture_start(&f);
    assert_int_equal(send_by(-60, SMTP_BY_NOTIFY, false, 0), 250);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(back), 0);
}

static void test_told_that_the_next_host_will_not_tell(void **state)
{
    fixture_start(&f);
    assert_int_equal(send_by(3600, SMTP_BY_NOTIFY, false, 0), 250);
    assert_int_equal(send_by(3600, SMTP_BY_NOTIFY, false, SMTP_NOTIFY_NEVER), 250);
    assert_int_equal(send_by(3600, SMTP_BY_NOTIFY, false, SMTP_NOTIFY_FAILURE), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 3);
    assert_int_equal(sim_host_inbox(back), 2);
    says(told(0), "Action: relayed");
    says(told(0), "Deliver-By-Date: ");
    for (size_t i = 0; i < 3; i++) { /* the next host, which minds no time, is to tell of a delay */
        struct str asked = sim_host_received(mx, i)->rcpt_dsn[0];
        assert_true(str_starts(asked, i == 1 ? STR("NOTIFY=NEVER") : STR("NOTIFY=FAILURE,DELAY")));
    }
    /* It was over when it came: who had it before has told. */
    assert_int_equal(send_by(-60, SMTP_BY_NOTIFY, false, 0), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 4);
    assert_int_equal(sim_host_inbox(back), 2);
}

static void test_a_trace_is_told_of_each_host(void **state)
{
    sim_host_set_deliver_by(mx, true, 0);
    fixture_start(&f);
    assert_int_equal(send_by(3600, SMTP_BY_RETURN, true, 0), 250);
    assert_int_equal(send_by(3600, SMTP_BY_RETURN, false, 0), 250);
    assert_int_equal(send_by(3600, SMTP_BY_NOTIFY, true, SMTP_NOTIFY_NEVER), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 3);
    assert_int_equal(sim_host_inbox(back), 1);
    says(told(0), "Action: relayed");
    assert_true(str_ends(sim_host_received(mx, 0)->times, STR(";RT")));
}

/* ---- MT-PRIORITY -------------------------------------------------------------------------------- */

static void test_whose_word_counts(void **state)
{
    sim_host_set_priority(mx, true);
    fixture_start(&f);
    is_reply(send_raw("MT-PRIORITY=5"), 250, "2.3.6", "0 is the new priority");
    is_reply(send_raw("MT-PRIORITY=-3"), 250, "2.1.0", "OK");
    is_reply(send_raw("MT-PRIORITY=0"), 250, "2.1.0", "OK");
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 3);
    assert_true(str_eq(sim_host_received(mx, 0)->times, STR("MT-PRIORITY=0")));
    assert_true(str_eq(sim_host_received(mx, 1)->times, STR("MT-PRIORITY=-3")));
    assert_true(str_eq(sim_host_received(mx, 2)->times, STR("MT-PRIORITY=0")));
}

static void test_priority_is_passed_on(void **state)
{
    f.settings->priority_from = &anybody;
    f.settings->n_priority_from = 1;
    sim_host_set_priority(mx, true);
    sim_host_set_priority(back, true);
    sim_host_reply(mx, SMTP_STAGE_RCPT, 450, STR("later"));
    fixture_start(&f);
    is_reply(send_raw("MT-PRIORITY=5"), 250, "2.1.0", "OK");
    sim_world_advance(f.w, SIM_SECOND);
    restart();
    sim_host_clear_rules(mx);
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_true(str_eq(sim_host_received(mx, 0)->times, STR("MT-PRIORITY=5")));
    sim_host_reply(mx, SMTP_STAGE_RCPT, 550, STR("no"));
    is_reply(send_raw("MT-PRIORITY=5"), 250, "2.1.0", "OK");
    sim_world_advance(f.w, SIM_MINUTE);
    assert_true(str_eq(told(0)->times, STR("MT-PRIORITY=5"))); /* what is told of it is as urgent */
}

/* One connection, and a message in about two seconds. */
static void one_at_a_time(void)
{
    trust();
    f.settings->queue.concurrency = f.settings->queue.max_concurrency = 1;
    f.settings->queue.warn_after_ms = -1;
    sim_host_set_delay(mx, 500);
}

static void post(const char *local, size_t number, int8_t priority)
{
    char text[64], from[64];
    snprintf(text, sizeof text, "%s%zu@example.com", local, number);
    snprintf(from, sizeof from, "%s%zu@sender.example", local, number);
    struct str to = str_of(text);
    struct sim_mail m = { .sender = str_of(from),
                          .recipients = &to,
                          .n_recipients = 1,
                          .content = STR("Subject: x\r\n\r\nthe body\r\n"),
                          .priority = priority };
    sim_world_post(f.w, &m);
}

/* At which place it arrived; SIZE_MAX: it has not. */
static size_t place_of(const char *local, size_t number)
{
    char text[64];
    snprintf(text, sizeof text, "%s%zu@example.com", local, number);
    for (size_t i = 0; i < sim_host_inbox(mx); i++)
        if (str_eq(sim_host_received(mx, i)->recipients[0], str_of(text)))
            return i;
    return SIZE_MAX;
}

static void test_urgent_mail_goes_first(void **state)
{
    one_at_a_time();
    fixture_start(&f);
    for (size_t i = 0; i < 40; i++)
        post("usual", i, 0);
    sim_world_advance(f.w, 5 * SIM_SECOND);
    size_t before = sim_host_inbox(mx);
    assert_in_range(before, 1, 10);
    post("idle", 0, -5);
    post("urgent", 3, 3);
    post("urgent", 7, 7);
    post("usual", 40, 0);
    sim_world_advance(f.w, 5 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 44);
    assert_in_range(place_of("urgent", 7), before, before + 2);
    assert_int_equal(place_of("urgent", 3), place_of("urgent", 7) + 1);
    assert_int_equal(place_of("usual", 40), 42);
    assert_int_equal(place_of("idle", 0), 43);
}

static void test_urgent_mail_does_not_wait_for_a_backlog(void **state)
{
    one_at_a_time();
    sim_host_down(mx);
    fixture_start(&f);
    for (size_t i = 0; i < 900; i++)
        post("usual", i, 0);
    sim_world_advance(f.w, SIM_MINUTE);
    post("urgent", 0, 9); /* while it is down, and goes when it is back */
    sim_world_advance(f.w, SIM_MINUTE);
    sim_host_up(mx);
    sim_world_advance(f.w, 20 * SIM_MINUTE);
    size_t before = sim_host_inbox(mx);
    assert_in_range(before, 100, 800);
    assert_in_range(place_of("urgent", 0), 0, 8);
    post("urgent", 1, 9);
    post("urgent", 2, 1);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    assert_in_range(place_of("urgent", 1), before, before + 6);
    assert_in_range(place_of("urgent", 2), before, before + 8); /* with the fresh ones */
}

/* In the spool, too, urgent mail stands before others; a restart does not change that. */
static void test_the_order_holds_over_a_restart(void **state)
{
    one_at_a_time();
    sim_host_down(mx);
    fixture_start(&f);
    for (size_t i = 0; i < 30; i++)
        post("usual", i, 0);
    sim_world_advance(f.w, SIM_SECOND);
    post("urgent", 0, 4);
    sim_world_advance(f.w, SIM_SECOND);
    restart();
    sim_host_up(mx);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 31);
    assert_int_equal(place_of("urgent", 0), 0);
}

/* More urgent mail than the host takes, for hours: what is usual, or less, goes all the same. */
static void test_no_mail_starves_behind_urgent_mail(void **state)
{
    enum { STEPS = 900, STEP_S = 10, URGENT = 7, EACH = 6, EARLY = 180 };
    size_t urgent = 0, others = 0, early = 0;

    one_at_a_time();
    fixture_start(&f);
    for (size_t step = 0; step < STEPS; step++) {
        for (size_t i = 0; i < URGENT; i++)
            post("urgent", urgent++, 9);
        if (step % EACH == 0) {
            post("usual", others, 0);
            post("idle", others, -9);
            others++;
        }
        if (step == EARLY)
            early = others;
        sim_world_advance(f.w, STEP_S * SIM_SECOND);
    }
    assert_true(queued(&f) > 500); /* it was more than goes */
    for (size_t i = 0; i < early; i++) {
        assert_true(place_of("usual", i) != SIZE_MAX);
        assert_true(place_of("idle", i) != SIZE_MAX);
    }
    sim_world_advance(f.w, 12 * SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_host_inbox(mx), urgent + 2 * others);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_held_until_its_time_and_over_a_restart),
        TEST(test_hold_until),
        TEST(test_lifetime_and_warning_count_from_its_release),
        TEST(test_who_may_have_mail_held),
        TEST(test_holds_that_make_no_sense),
        TEST(test_operator_lets_it_go),
        TEST(test_what_is_left_is_passed_on),
        TEST(test_returned_when_its_time_is_over),
        TEST(test_returned_while_its_host_is_down),
        TEST(test_returned_out_of_a_backlog),
        TEST(test_a_restart_does_not_forget_the_time),
        TEST(test_not_to_hosts_that_do_not_mind_the_time),
        TEST(test_the_least_that_a_host_takes),
        TEST(test_lmtp_is_the_end_of_the_way),
        TEST(test_told_when_the_time_is_over_and_tried_on),
        TEST(test_told_while_its_host_is_down),
        TEST(test_what_was_over_before_is_not_told_again),
        TEST(test_told_that_the_next_host_will_not_tell),
        TEST(test_a_trace_is_told_of_each_host),
        TEST(test_whose_word_counts),
        TEST(test_priority_is_passed_on),
        TEST(test_urgent_mail_goes_first),
        TEST(test_urgent_mail_does_not_wait_for_a_backlog),
        TEST(test_the_order_holds_over_a_restart),
        TEST(test_no_mail_starves_behind_urgent_mail),
    };

    return cmocka_run_group_tests_name("times", tests, NULL, NULL);
}
