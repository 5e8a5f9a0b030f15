/* What ROUTING.md says of the queue, statement by statement, as far as no other scenario shows it: retries (Q2),
 * addresses (Q5), connections (Q6), states (Q8), notifications (Q9), loops (Q10), what a host cannot
 * take (Q11). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

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

static int send_text(const char *to, const char *content)
{
    struct str address = str_of(to);
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = &address,
                          .n_recipients = 1,
                          .content = str_of(content) };
    return sim_world_send(f.w, &m)->reply.code;
}

/* ---- Q2 --------------------------------------------------------------------------------------- */

enum { TIMES = 128 };

/* When there was an event of that name, in seconds from the first; how many. */
static size_t times_of(const char *event, double times[TIMES])
{
    const struct sim_entry *e = NULL;
    int64_t first = 0;
    size_t n = 0;
    while (n < TIMES && (e = sim_journal_next(sim_world_journal(f.w), event, e)) != NULL) {
        first = n ? first : e->wall_ms;
        times[n++] = (double)(e->wall_ms - first) / 1000;
    }
    return n;
}

static void assert_pauses(const double *times, const double *pauses, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double pause = times[i + 1] - times[i];
        if (pause < 0.9 * pauses[i] || pause > 1.1 * pauses[i] + 2)
            fail_msg("after attempt %zu: %.1f s, the schedule says %.0f", i + 1, pause, pauses[i]);
    }
}

/* The default: 1m, 5m, 15m, 30m, 1h, then every 2h, each up to a tenth sooner or later; after 5 days it ends. */
static void test_Q2_default_schedule_and_lifetime(void **state)
{
    static const double pauses[] = { 60, 300, 900, 1800, 3600, 7200, 7200, 7200 };
    double times[TIMES];
    sim_host_reply(mx, SMTP_STAGE_RCPT, 450, STR("greylisted"));
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 5 * SIM_DAY - SIM_MINUTE);
    size_t n = times_of("deferred", times);
    assert_in_range(n, 50, 75);
    assert_pauses(times, pauses, ARRAY_LEN(pauses));
    for (size_t i = ARRAY_LEN(pauses); i + 1 < n; i++)
        assert_pauses(times + i, &(double){ 7200 }, 1);
    assert_int_equal(queued(&f), 1);
    sim_world_advance(f.w, 3 * SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(got(back, "Action: failed"), 1);
    assert_int_equal(got(back, "greylisted"), 2); /* there, and in the notification of the delay */
    assert_int_equal(got(back, "5.4.7"), 1);
}

/* What failed together is not tried together for ever. */
static void test_Q2_jitter_spreads(void **state)
{
    enum { MAILS = 40, BINS = 12 };
    bool seen[BINS] = { 0 };
    double times[TIMES];
    sim_host_reply(mx, SMTP_STAGE_RCPT, 450, STR("greylisted"));
    fixture_start(&f);
    for (int i = 0; i < MAILS; i++)
        assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 90 * SIM_SECOND);
    assert_int_equal(times_of("deferred", times), 2 * MAILS);
    size_t bins = 0;
    for (size_t i = MAILS; i < (size_t)2 * MAILS; i++) {
        assert_in_range((int)(times[i] * 10), 539, 700);
        size_t bin = MIN((size_t)(times[i] - 54), (size_t)BINS - 1);
        bins += !seen[bin];
        seen[bin] = true;
    }
    assert_in_range(bins, 6, BINS);
}

/* The route has its own schedule and lifetime. */
static void test_Q2_set_by_the_route(void **state)
{
    static const double pauses[] = { 20, 20, 600, 600 };
    double times[TIMES];
    struct route *r = sim_route_mx("example.com");
    assert_int_equal(schedule_parse(STR("20s*2,10m..."), &r->retry), 0);
    r->lifetime_ms = 2 * SIM_HOUR;
    sim_policy_domain(&f.policy, "example.com", r);
    sim_host_reply(mx, SMTP_STAGE_RCPT, 450, STR("greylisted"));
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_HOUR + 50 * SIM_MINUTE);
    assert_in_range(times_of("deferred", times), 10, 15);
    assert_pauses(times, pauses, ARRAY_LEN(pauses));
    assert_int_equal(queued(&f), 1);
    sim_world_advance(f.w, 30 * SIM_MINUTE);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(got(back, "5.4.7"), 1);
}

static bool in_seven_minutes(void *arg, enum hook h, const struct hook_input *in,
                             struct hook_result *ret)
{
    ret->verdict = VERDICT_DEFER;
    ret->reply = REPLY(451, ENH(4, 7, 1), "the policy says later");
    ret->retry_ms = 7 * SIM_MINUTE;
    return true;
}

/* So has the `result` hook the last word on the next attempt. */
static void test_Q2_set_by_the_result_hook(void **state)
{
    double times[TIMES];
    f.policy.ask = in_seven_minutes;
    f.policy.asks = 1u << HOOK_RESULT;
    sim_host_reply(mx, SMTP_STAGE_RCPT, 550, STR("no such user")); /* even this */
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_HOUR);
    size_t n = times_of("deferred", times);
    assert_in_range(n, 8, 10);
    for (size_t i = 0; i + 1 < n; i++)
        assert_pauses(times + i, &(double){ 420 }, 1);
}

/* ---- Q5 --------------------------------------------------------------------------------------- */

static struct sim_host *six(int i)
{
    char addr[48];
    snprintf(addr, sizeof addr, "[2001:db8::%d]:25", i);
    return sim_world_host(f.w, addr);
}

static struct sim_host *four(int i)
{
    char addr[48];
    snprintf(addr, sizeof addr, "192.0.2.%d", i);
    return sim_world_host(f.w, addr);
}

/* Many addresses in one family, few in the other: five are tried, some of each. */
static void test_Q5_five_addresses_of_both_families(void **state)
{
    char zone[1024] = "example.com. MX 10 mx1.example.com.\n";
    uint64_t sixes = 0, fours = 0;
    for (int i = 1; i <= 8; i++) {
        size_t n = strlen(zone);
        snprintf(zone + n, sizeof zone - n, "mx1.example.com. AAAA 2001:db8::%d\n", i);
        sim_host_reply(six(i), SMTP_STAGE_GREETING, 421, STR("busy"));
    }
    for (int i = 1; i <= 2; i++) {
        size_t n = strlen(zone);
        snprintf(zone + n, sizeof zone - n, "mx1.example.com. A 192.0.2.%d\n", i);
        sim_host_reply(four(i), SMTP_STAGE_GREETING, 421, STR("busy"));
    }
    sim_world_zone(f.w, zone);
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 20 * SIM_SECOND);
    for (int i = 1; i <= 8; i++)
        sixes += sim_host_sessions(six(i));
    for (int i = 1; i <= 2; i++)
        fours += sim_host_sessions(four(i));
    assert_int_equal(sixes + fours, 5);
    assert_in_range(sixes, 1, 4);
    assert_in_range(fours, 1, 4);
    sim_host_clear_rules(four(1));
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(four(1)), 1);
    assert_int_equal(queued(&f), 0);
}

/* ---- Q6 --------------------------------------------------------------------------------------- */

/* By default: 100 messages, and not one more. */
static void test_Q6_a_hundred_messages(void **state)
{
    uint64_t used[4] = { 0 };
    sim_host_down(mx);
    f.settings->queue.concurrency = f.settings->queue.max_concurrency = 1;
    fixture_start(&f);
    for (int i = 0; i < 250; i++)
        mail_to(&f, "u@example.com");
    sim_host_up(mx);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 250);
    assert_int_equal(sim_host_sessions(mx), 3);
    for (size_t i = 0; i < 250; i++)
        used[sim_host_received(mx, i)->session]++;
    assert_int_equal(used[1], 100);
    assert_int_equal(used[2], 100);
    assert_int_equal(used[3], 50);
}

/* Mail comes every second, so it is never idle for two; after 300 s there is another one. */
static void test_Q6_three_hundred_seconds(void **state)
{
    f.settings->queue.per_connection = 100000;
    fixture_start(&f);
    for (int i = 0; i < 700; i++) {
        assert_int_equal(mail_to(&f, "u@example.com"), 250);
        sim_world_advance(f.w, SIM_SECOND);
    }
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 700);
    assert_in_range(sim_host_sessions(mx), 3, 4);
    for (size_t i = 0; i < 700; i++) {
        const struct sim_received *r = sim_host_received(mx, i);
        assert_in_range(r->began_ms - r->opened_ms, 0, 303 * SIM_SECOND);
    }
}

/* Idle for two seconds: closed by QUIT; a mail within them takes it, one behind them does not. */
static void test_Q6_two_seconds(void **state)
{
    fixture_start(&f);
    mail_to(&f, "u@example.com");
    sim_world_advance(f.w, 1900);
    assert_int_equal(sim_host_open(mx), 1);
    mail_to(&f, "u@example.com");
    sim_world_advance(f.w, 2100);
    assert_int_equal(sim_host_sessions(mx), 1);
    assert_int_equal(sim_host_inbox(mx), 2);
    assert_int_equal(sim_host_open(mx), 0);
    mail_to(&f, "u@example.com");
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(sim_host_sessions(mx), 2);
}

/* RSET after what was refused: the connection is good for the next one. */
static void test_Q6_rset_in_between(void **state)
{
    struct sim_rule rule = { .stage = SMTP_STAGE_RCPT,
                             .address = STR("nobody@example.com"),
                             .reply = REPLY(550, ENH(5, 1, 1), "unknown") };
    sim_host_add_rule(mx, &rule);
    fixture_start(&f);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(mail_to(&f, "nobody@example.com"), 250);
        assert_int_equal(mail_to(&f, "u@example.com"), 250);
    }
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 5);
    assert_in_range(sim_host_sessions(mx), 1, 2);
    assert_int_equal(sim_host_rsets(mx), 5);
}

/* ---- Q8 --------------------------------------------------------------------------------------- */

static struct recipient read_first(struct arena *a, struct spool_entry *entry)
{
    struct port_spool *spool = sim_spool_port(sim_world_spool(f.w));
    struct recipient r = { 0 };
    struct buf bytes;
    buf_init(&bytes, 0);
    assert_int_equal(spool->scan_entries(spool, NULL, 0, entry, 1), 1);
    assert_int_equal(spool->read_recipient(spool, &entry->id, entry->n, entry, &bytes), 0);
    assert_int_equal(recipient_decode(a, entry->n, buf_str(&bytes), &r), 0);
    buf_done(&bytes);
    return r;
}

/* Each state, with its reason and its next time: ready, active, deferred, waiting, held. */
static void test_Q8_states(void **state)
{
    struct arena a;
    struct spool_entry e;
    struct recipient r;
    struct queue_status q;
    struct queues *all;
    arena_init(&a, 0);
    sim_host_reply(mx, SMTP_STAGE_RCPT, 452, STR("mailbox full"));
    sim_host_set_delay(mx, SIM_SECOND);
    f.settings->queue.concurrency = f.settings->queue.max_concurrency = 1;
    fixture_start(&f);
    all = sim_world_engine(f.w, 0)->queues;
    mail_to(&f, "one@example.com");
    mail_to(&f, "two@example.com");
    r = read_first(&a, &e); /* active, and behind it one that is ready */
    assert_int_equal(e.class_, SPOOL_SCHEDULED);
    assert_int_equal(queue_job_place(all, STR("example.com"), &e.id, 0), JOB_UNDER_WAY);
    assert_true(queue_status(all, STR("example.com"), &q));
    assert_int_equal(q.active, 1);
    assert_int_equal(q.in_memory, 2);
    recipient_done(&r);
    sim_world_advance(f.w, 40 * SIM_SECOND);
    r = read_first(&a, &e); /* deferred */
    assert_int_equal(e.class_, SPOOL_SCHEDULED);
    assert_true(str_find(r.last_reply, STR("mailbox full")) >= 0);
    assert_int_equal(r.attempts, 1);
    assert_in_range(e.due_ms - sim_wall(sim_world_clock(f.w)), 1, 70 * SIM_SECOND);
    recipient_done(&r);
    sim_policy_domain(&f.policy, "example.com", sim_route_hold("example.com"));
    struct settings *s = fixture_settings(); /* now it is held by policy */
    s->fingerprint = 2;
    sim_world_configure(f.w, s, sim_policy_hooks, &f.policy);
    settings_unref(s);
    sim_world_reload(f.w);
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    r = read_first(&a, &e); /* waiting */
    assert_int_equal(e.class_, SPOOL_WAITING);
    assert_true(str_eq(r.route->reason, STR("held by the test")));
    assert_true(str_eq(str_of(e.queue), STR("example.com")));
    recipient_done(&r);
    arena_done(&a);
}

/* ---- Q9 --------------------------------------------------------------------------------------- */

static struct str bounce_of(size_t body, enum smtp_ret ret)
{
    static char text[300000];
    size_t n =
        (size_t)snprintf(text, sizeof text, "Subject: the original\r\nX-Mark: a header\r\n\r\n");
    while (n < body)
        n += (size_t)snprintf(text + n, sizeof text - n, "line of the body, number %zu\r\n", n);
    struct str to = STR("nobody@example.com");
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = &to,
                          .n_recipients = 1,
                          .content = str_make(text, n),
                          .dsn = { .ret = ret, .envid = STR("env1") } };
    size_t before = sim_host_inbox(back);
    assert_int_equal(sim_world_send(f.w, &m)->reply.code, 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(back), before + 1);
    return sim_host_received(back, before)->content;
}

/* multipart/report with three parts: for people, for programs, and the original: headers, or all of it up to
 * 50 kB. */
static void test_Q9_parts_of_a_notification(void **state)
{
    sim_host_reply(mx, SMTP_STAGE_RCPT, 550, STR("no such user"));
    fixture_start(&f);
    struct str dsn = bounce_of(2000, SMTP_RET_HDRS);
    assert_true(str_find(dsn, STR("multipart/report")) > 0);
    assert_true(str_find(dsn, STR("report-type=delivery-status")) > 0);
    assert_true(str_find(dsn, STR("Content-Type: message/delivery-status")) > 0);
    assert_true(str_find(dsn, STR("Content-Type: text/rfc822-headers")) > 0);
    assert_true(str_find(dsn, STR("X-Mark: a header")) > 0);
    assert_true(str_find(dsn, STR("line of the body")) < 0);
    assert_true(str_find(dsn, STR("Original-Envelope-Id: env1")) > 0);
    assert_true(str_find(dsn, STR("Auto-Submitted: auto-replied")) > 0);
    assert_true(str_find(dsn, STR("Status: 5.")) > 0);
    assert_true(str_find(dsn, STR("Diagnostic-Code: smtp; 550")) > 0);
    dsn = bounce_of(2000, SMTP_RET_FULL);
    assert_true(str_find(dsn, STR("Content-Type: message/rfc822")) > 0);
    assert_true(str_find(dsn, STR("line of the body")) > 0);
    dsn = bounce_of(200000, SMTP_RET_FULL);
    assert_true(str_find(dsn, STR("X-Mark: a header")) > 0);
    assert_in_range(dsn.n, 1000, 55 * 1024);
}

/* ---- Q10 -------------------------------------------------------------------------------------- */

static void test_Q10_a_hundred_received_headers(void **state)
{
    static char text[20000];
    for (int n = 99; n <= 101; n++) {
        text[0] = 0;
        for (int i = 0; i < n; i++)
            strcat(text, "Received: from a by b; now\r\n");
        strcat(text, "Subject: x\r\n\r\nhello\r\n");
        if (n == 99)
            fixture_start(&f);
        assert_int_equal(send_text("u@example.com", text), n > 100 ? 554 : 250);
    }
    assert_int_equal(counted(&f, "loop_detected"), 1);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 2);
}

/* Two routers that send it to each other under names that neither knows of the other: it ends, and its sender is
 * told. */
static void test_Q10_two_routers_that_send_it_to_each_other(void **state)
{
    struct fixture other = { 0 };
    other.w = sim_world_join(f.w, 2, 1);
    other.settings = fixture_settings();
    other.settings->hostname = STR("mx.other.example");
    sim_policy_init(&other.policy, sim_world_clock(other.w));
    sim_policy_domain(&f.policy, "example.com", sim_route_hosts("198.51.100.26:25", false));
    sim_policy_domain(&other.policy, "example.com", sim_route_hosts("198.51.100.25:25", false));
    fixture_start(&f);
    fixture_start(&other);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(queued(&other), 0);
    assert_int_equal(counted(&f, "loop_detected") + counted(&other, "loop_detected"), 1);
    assert_int_equal(sim_host_inbox(back), 1);
    assert_int_equal(got(back, "5.4.6"), 1);
    fixture_done(&other);
}

/* ---- Q11 -------------------------------------------------------------------------------------- */

static void bounced_with(const char *status, size_t before)
{
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_host_inbox(mx), before);
    assert_int_equal(got(back, status), 1);
}

/* Nothing of it reaches a host that does not say that it can take it. */
static void test_Q11_never_raw(void **state)
{
    struct str to = STR("u@example.com"), odd = STR("\xc3\xbc@example.com");
    struct sim_mail eight = { .sender = STR("client@sender.example"),
                              .recipients = &to,
                              .n_recipients = 1,
                              .eight_bit = true,
                              .content = STR("Subject: x\r\n\r\ngr\xc3\xbc\xc3\x9f\r\n") };
    struct sim_mail utf8 = { .sender = STR("client@sender.example"),
                             .recipients = &odd,
                             .n_recipients = 1,
                             .eight_bit = true,
                             .smtputf8 = true,
                             .content = STR("Subject: \xc3\xbc\r\n\r\nhello\r\n") };
    sim_host_set_smtputf8(mx, true);
    sim_host_set_smtputf8(back, true); /* it tells of an address that is not ASCII */
    fixture_start(&f);
    assert_int_equal(sim_world_send(f.w, &eight)->reply.code, 250);
    assert_int_equal(sim_world_send(f.w, &utf8)->reply.code, 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 2); /* as it came */
    assert_true(str_find(sim_host_received(mx, 0)->content, STR("gr\xc3\xbc\xc3\x9f")) > 0);
    assert_true(str_find(sim_host_received(mx, 1)->content, STR("Subject: \xc3\xbc")) > 0);
    sim_host_set_smtputf8(mx, false);
    assert_int_equal(sim_world_send(f.w, &utf8)->reply.code, 250);
    sim_world_advance(f.w, SIM_MINUTE);
    bounced_with("5.6.7", 2);
    sim_host_hide(mx, STR("8BITMIME"));
    assert_int_equal(sim_world_send(f.w, &eight)->reply.code, 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 3); /* converted */
    assert_true(str_find(sim_host_received(mx, 2)->content, STR("gr=C3=BC=C3=9F\r\n")) > 0);
    assert_true(str_is_ascii(sim_host_received(mx, 2)->content));
    eight.content = STR("Subject: gr\xc3\xbc\xc3\x9f\r\n\r\nin a header field: no way\r\n");
    assert_int_equal(sim_world_send(f.w, &eight)->reply.code, 250);
    sim_world_advance(f.w, SIM_MINUTE);
    bounced_with("5.6.3", 3);
    assert_int_equal(mail_to(&f, "u@example.com"), 250); /* ASCII goes */
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 4);
}

#define WITH_WORLD(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(test_Q2_default_schedule_and_lifetime),
        WITH_WORLD(test_Q2_jitter_spreads),
        WITH_WORLD(test_Q2_set_by_the_route),
        WITH_WORLD(test_Q2_set_by_the_result_hook),
        WITH_WORLD(test_Q5_five_addresses_of_both_families),
        WITH_WORLD(test_Q6_a_hundred_messages),
        WITH_WORLD(test_Q6_three_hundred_seconds),
        WITH_WORLD(test_Q6_two_seconds),
        WITH_WORLD(test_Q6_rset_in_between),
        WITH_WORLD(test_Q8_states),
        WITH_WORLD(test_Q9_parts_of_a_notification),
        WITH_WORLD(test_Q10_a_hundred_received_headers),
        WITH_WORLD(test_Q10_two_routers_that_send_it_to_each_other),
        WITH_WORLD(test_Q11_never_raw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
