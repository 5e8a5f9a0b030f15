/* The record of decisions (ROUTING.md Q12): what is kept with a recipient, what with a queue, through
 * restarts and crashes, and that mail which is delivered at once has none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/context.h"
#include "engine/queue.h"
#include "fixture.h"

static struct fixture f;
static struct sim_host *mx1;
static struct arena arena;
static struct buf bytes;

static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    mx1 = sim_world_host(f.w, "192.0.2.1");
    arena_init(&arena, 0);
    buf_init(&bytes, 0);
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    arena_done(&arena);
    buf_done(&bytes);
    return 0;
}

static bool has(struct str s, const char *text)
{
    return str_find(s, str_of(text)) >= 0;
}

/* The first recipient in the spool, decoded without its route. */
static struct recipient first_recipient(void)
{
    struct port_spool *spool = sim_spool_port(sim_world_spool(f.w));
    struct spool_entry entry;
    struct recipient r;
    assert_int_equal(spool->scan_entries(spool, NULL, 0, &entry, 1), 1);
    assert_int_equal(spool->read_recipient(spool, &entry.id, entry.n, &entry, &bytes), 0);
    assert_int_equal(recipient_decode(&arena, entry.n, buf_str(&bytes), &r), 0);
    recipient_done(&r);
    return r;
}

static struct history history_of(struct str s)
{
    struct history h;
    assert_int_equal(history_decode(&arena, s, &h), 0);
    return h;
}

static struct history queue_of(const char *name)
{
    buf_clear(&bytes);
    assert_int_equal(queue_history(sim_world_engine(f.w, 0)->queues, str_of(name), &bytes), 0);
    return history_of(buf_str(&bytes));
}

static void test_Q12_a_deferred_recipient_has_the_record_of_its_attempt(void **state)
{
    sim_host_set_starttls(mx1, SIM_STARTTLS_OFFERED);
    sim_host_reply(mx1, SMTP_STAGE_RCPT, 451, STR("4.7.1 try later"));
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 10 * SIM_SECOND);
    struct history h = history_of(first_recipient().history);
    assert_int_equal(h.n, 1);
    const struct history_attempt *a = &h.attempts[0];
    assert_int_equal(a->number, 1);
    assert_int_equal(a->fate, HISTORY_DEFERRED);
    assert_int_equal(a->n_tries, 1);
    assert_true(has(a->tries[0].host, "mx1.example.com [192.0.2.1]:25"));
    assert_true(has(a->tries[0].tls, "TLS"));
    assert_true(str_eq(a->tries[0].stage, STR("RCPT TO")));
    assert_int_equal(a->tries[0].reply.code, 451);
    assert_true(has(a->tries[0].reply.text, "try later"));
    /* Where it could go, and what of the DNS was left out. */
    assert_int_equal(h.plan.n_hops, 1);
    assert_int_equal(h.plan.hops[0].preference, 10);
    assert_true(has(h.plan.hops[0].host, "[192.0.2.1]:25"));
    assert_int_equal(h.plan.n_discarded, 1);
    assert_true(has(h.plan.discarded[0].what, "mx2.isp.example"));
    assert_true(h.plan.discarded[0].reason.n > 0);
}

/* Each host of an attempt is told, those before the one that answered too. */
static void test_Q12_hosts_that_could_not_be_used_are_in_the_record(void **state)
{
    sim_world_zone_add(f.w, "two.example. MX 1 a.two.example.\ntwo.example. MX 2 b.two.example.\n"
                            "a.two.example. A 192.0.2.5\nb.two.example. A 192.0.2.6\n");
    sim_policy_domain(&f.policy, "two.example", NULL);
    sim_host_down(sim_world_host(f.w, "192.0.2.5"));
    sim_host_reply(sim_world_host(f.w, "192.0.2.6"), SMTP_STAGE_MAIL, 450, STR("not now"));
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@two.example"), 250);
    sim_world_advance(f.w, 2 * SIM_MINUTE);
    struct history h = history_of(first_recipient().history);
    const struct history_attempt *a = &h.attempts[0];
    assert_int_equal(a->n_tries, 2);
    assert_true(has(a->tries[0].host, "192.0.2.5"));
    assert_true(str_eq(a->tries[0].stage, STR("connect")));
    assert_int_equal(a->tries[0].reply.code, 0);
    assert_true(a->tries[0].reply.text.n > 0);
    assert_true(has(a->tries[1].host, "192.0.2.6"));
    assert_int_equal(a->tries[1].reply.code, 450);
}

static bool nothing_waits(void *arg)
{
    return queued(&f) == 0;
}

static void test_Q12_delivered_at_once_leaves_no_record(void **state)
{
    fixture_start(&f);
    sim_host_reply(mx1, SMTP_STAGE_GREETING, 421, STR("busy"));
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    assert_int_equal(first_recipient().history.n, 0);
    uint64_t before = sim_spool_commits(sim_world_spool(f.w));
    sim_world_advance(f.w, 30 * SIM_SECOND);
    sim_host_clear_rules(mx1);
    /* A failure of the host has written nothing, either. */
    assert_int_equal(sim_spool_commits(sim_world_spool(f.w)), before);
    assert_int_equal(first_recipient().history.n, 0);
    /* (What its TLS was like is counted, and written half a minute later.) */
    assert_true(sim_world_until(f.w, nothing_waits, NULL, 2 * SIM_HOUR));
    assert_int_equal(sim_spool_commits(sim_world_spool(f.w)), before + 1);
}

static void test_Q12_the_record_survives_crash_and_restart(void **state)
{
    sim_host_reply(mx1, SMTP_STAGE_RCPT, 450, STR("not now"));
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 10 * SIM_SECOND);
    assert_int_equal(history_of(first_recipient().history).n, 1);
    sim_world_crash(f.w);
    assert_int_equal(history_of(first_recipient().history).n, 1);
    sim_world_start(f.w);
    sim_world_advance(f.w, 2 * SIM_MINUTE);
    struct history h = history_of(first_recipient().history);
    assert_int_equal(h.n, 2);
    assert_int_equal(h.attempts[0].number, 1);
    assert_int_equal(h.attempts[1].number, 2);
    assert_true(h.attempts[0].at_ms < h.attempts[1].at_ms);
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
    sim_world_start(f.w);
    sim_host_clear_rules(mx1);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(got(mx1, "hello"), 1);
}

static void test_Q12_the_record_is_bounded(void **state)
{
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    assert_int_equal(schedule_parse(STR("1m..."), &f.settings->queue.retry), 0);
    sim_host_reply(mx1, SMTP_STAGE_RCPT, 450, str_of(text));
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 12 * SIM_HOUR);
    struct recipient r = first_recipient();
    assert_true(r.attempts > 100);
    assert_in_range(r.history.n, 1, HISTORY_MAX);
    struct history h = history_of(r.history);
    assert_int_equal(h.n, HISTORY_FIRST + HISTORY_LAST);
    assert_int_equal(h.left_out + h.n, r.attempts);
    assert_int_equal(h.attempts[0].number, 1);
    assert_int_equal(h.attempts[h.n - 1].number, r.attempts);
}

/* Failures of hosts are facts about the queue: it remembers the last of them, until it is forgotten. */
static void test_Q12_a_queue_remembers_failures_of_its_hosts(void **state)
{
    struct queue_status st;
    sim_host_down(mx1);
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, 10 * SIM_SECOND);
    struct history h = queue_of("example.com");
    assert_int_equal(h.n, 1);
    assert_int_equal(h.attempts[0].fate, HISTORY_HOST_FAILED);
    assert_true(str_eq(h.attempts[0].tries[0].stage, STR("connect")));
    assert_int_equal(h.plan.n_hops, 1);
    assert_int_equal(h.plan.n_discarded, 1);
    struct engine *e = sim_world_engine(f.w, 0);
    assert_true(queue_status(e->queues, STR("example.com"), &st));
    int64_t since = st.failing_since_ms;
    assert_true(since > 0);
    assert_true(st.retry_in_ms > 0);
    sim_world_advance(f.w, 5 * SIM_DAY);
    h = queue_of("example.com");
    assert_true(h.n <= HISTORY_FIRST + HISTORY_LAST);
    assert_true(h.left_out > 10);
    assert_int_equal(h.attempts[0].number, 1);
    assert_true(queue_status(e->queues, STR("example.com"), &st));
    assert_int_equal(st.failing_since_ms, since);
}

static bool reroute(void *arg, enum hook h, const struct hook_input *in, struct hook_result *ret)
{
    ret->verdict = VERDICT_DEFER;
    ret->retry_ms = 7 * SIM_MINUTE;
    ret->decided_by = STR("site.lua:42");
    return true;
}

/* Who chose the way and who decided after the failure are two facts. */
static void test_Q12_the_result_hook_stands_with_its_attempt(void **state)
{
    sim_host_reply(mx1, SMTP_STAGE_RCPT, 450, STR("not now"));
    f.policy.ask = reroute;
    f.policy.asks = 1u << HOOK_RESULT;
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    struct str before = first_recipient().decided_by;
    sim_world_advance(f.w, 10 * SIM_SECOND);
    struct recipient r = first_recipient();
    assert_true(str_eq(r.decided_by, before));
    assert_true(str_eq(history_of(r.history).attempts[0].decided_by, STR("site.lua:42")));
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_Q12_a_deferred_recipient_has_the_record_of_its_attempt),
        TEST(test_Q12_hosts_that_could_not_be_used_are_in_the_record),
        TEST(test_Q12_delivered_at_once_leaves_no_record),
        TEST(test_Q12_the_record_survives_crash_and_restart),
        TEST(test_Q12_the_record_is_bounded),
        TEST(test_Q12_a_queue_remembers_failures_of_its_hosts),
        TEST(test_Q12_the_result_hook_stands_with_its_attempt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
