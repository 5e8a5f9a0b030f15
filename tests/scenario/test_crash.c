/* A crash at every moment that matters: no message that was acknowledged is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ledger.h"

static struct fixture f;
static struct ledger ledger;

static const char *const GOOD[] = { "example.com" };
static const char *const BAD[] = { "bad.example" };
static const char *const LATER[] = { "later.example" };
static const char *const DOWN[] = { "down.example" };
static const char *const MANY[] = { "example.com", "bad.example", "later.example", "down.example" };

/* One host that takes all, one that refuses, one that takes it the second time, one that is down at first. */
static void begin(int workers)
{
    static const char zone[] =
        "bad.example. MX 1 mx.bad.example.\nmx.bad.example. A 192.0.2.2\n"
        "later.example. MX 1 mx.later.example.\n"
        "mx.later.example. A 192.0.2.3\n"
        "down.example. MX 1 mx.down.example.\nmx.down.example. A 192.0.2.4\n";
    struct sim_rule busy = { .stage = SMTP_STAGE_RCPT,
                             .reply = REPLY(450, ENH(4, 2, 1), "busy"),
                             .times = 2 };
    fixture_init(&f, 1, workers);
    ledger_init(&ledger, &f);
    sim_world_zone_add(f.w, zone);
    sim_policy_domain(&f.policy, "bad.example", NULL);
    sim_policy_domain(&f.policy, "later.example", NULL);
    sim_policy_domain(&f.policy, "down.example", NULL);
    ledger_host(&ledger, "192.0.2.1");
    sim_host_reply(ledger_host(&ledger, "192.0.2.2"), SMTP_STAGE_RCPT, 550, STR("unknown"));
    sim_host_add_rule(ledger_host(&ledger, "192.0.2.3"), &busy);
    sim_host_down(ledger_host(&ledger, "192.0.2.4"));
    ledger_host(&ledger, "192.0.2.77");
    fixture_start(&f);
}

static void send_all(void)
{
    ledger_send(&ledger, GOOD, 1, true);
    ledger_send(&ledger, BAD, 1, true);
    ledger_send(&ledger, LATER, 1, true);
    ledger_send(&ledger, DOWN, 1, true);
    ledger_send(&ledger, MANY, 4, true);
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    sim_host_up(sim_world_host(f.w, "192.0.2.4"));
    sim_world_advance(f.w, 6 * SIM_HOUR);
}

static void end(void)
{
    ledger_done(&ledger);
    fixture_done(&f);
}

/* n 0: none. Returns the number of commits. */
static uint64_t run(uint64_t n, bool synced, int workers)
{
    begin(workers);
    if (n)
        sim_world_crash_at(f.w, n, synced, 0);
    send_all();
    struct ledger_sum s = ledger_audit(&ledger);
    if (s.lost || s.queued)
        print_message("crash %s commit %lu of %d workers: %zu lost, %zu still queued\n",
                      synced ? "after" : "before", (unsigned long)n, workers, s.lost, s.queued);
    assert_int_equal(s.lost, 0);
    assert_int_equal(s.queued, 0);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_world_crashes(f.w), n > 0);
    if (n == 0) {
        assert_int_equal(s.acked, 8);
        assert_int_equal(s.delivered, 6);
        assert_int_equal(s.bounced, 2);
        assert_int_equal(s.duplicates, 0);
    } else {
        assert_true(s.acked >= 4); /* only what was under way at the crash is in doubt */
    }
    uint64_t commits = sim_spool_commits(sim_world_spool(f.w));
    end();
    return commits;
}

static void every_commit(int workers)
{
    uint64_t commits = run(0, false, workers);
    assert_in_range(commits, 10, 60);
    for (uint64_t n = 1; n <= commits; n++) {
        run(n, false, workers);
        run(n, true, workers);
    }
}

static void test_one_worker(void **state)
{
    every_commit(1);
}

static void test_three_workers(void **state)
{
    every_commit(3);
}

/* The same for a crash at any time: each 7 ms of the first second, then each second. */
static void test_any_time(void **state)
{
    for (int64_t at = 1; at < 30 * SIM_SECOND; at += at < SIM_SECOND ? 7 : SIM_SECOND) {
        begin(2);
        ledger_send(&ledger, MANY, 4, false);
        ledger_send(&ledger, GOOD, 1, false);
        sim_world_advance(f.w, at);
        sim_world_crash(f.w);
        sim_world_advance(f.w, SIM_MINUTE);
        sim_world_start(f.w);
        sim_host_up(sim_world_host(f.w, "192.0.2.4"));
        sim_world_advance(f.w, 6 * SIM_HOUR);
        struct ledger_sum s = ledger_audit(&ledger);
        assert_int_equal(s.lost, 0);
        assert_int_equal(queued(&f), 0);
        end();
    }
}

/* Commits that fail: the client is told so, and what is in the queue goes on later. */
static void test_failing_commits(void **state)
{
    static const int errors[] = { -EIO, -ENOSPC };
    for (size_t e = 0; e < ARRAY_LEN(errors); e++)
        for (uint32_t n = 1; n <= 12; n++) {
            begin(1);
            sim_spool_fail_commits(sim_world_spool(f.w), n, errors[e]);
            send_all();
            sim_world_advance(f.w, 6 * SIM_HOUR);
            struct ledger_sum s = ledger_audit(&ledger);
            assert_int_equal(s.lost, 0);
            assert_int_equal(queued(&f), 0);
            assert_true(s.acked < 8);
            end();
        }
}

/* A failing commit somewhere in the middle. */
static void test_one_commit_fails(void **state)
{
    for (int64_t at = 20; at < 20 * SIM_SECOND; at += at < SIM_SECOND ? 10 : SIM_SECOND) {
        begin(2);
        ledger_send(&ledger, MANY, 4, false);
        ledger_send(&ledger, BAD, 1, false);
        sim_world_advance(f.w, at);
        sim_spool_fail_commits(sim_world_spool(f.w), 1, -EIO);
        sim_host_up(sim_world_host(f.w, "192.0.2.4"));
        sim_world_advance(f.w, 12 * SIM_HOUR);
        struct ledger_sum s = ledger_audit(&ledger);
        assert_int_equal(s.lost, 0);
        assert_int_equal(queued(&f), 0);
        end();
    }
}

/* A full disk refuses new mail with 452 and lets the old go. */
static void test_full_disk(void **state)
{
    begin(1);
    ledger_send(&ledger, DOWN, 1, true);
    sim_spool_set_full(sim_world_spool(f.w), true);
    assert_int_equal(mail_to(&f, "u@example.com"), 452);
    sim_host_up(sim_world_host(f.w, "192.0.2.4"));
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    sim_spool_set_full(sim_world_spool(f.w), false);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    assert_int_equal(ledger_audit(&ledger).lost, 0);
    end();
}

/* Reads that fail for a while delay mail, and lose none. */
static void test_failing_reads(void **state)
{
    for (uint32_t n = 1; n <= 6; n++) {
        begin(1);
        ledger_send(&ledger, DOWN, 1, true);
        sim_world_advance(f.w, SIM_MINUTE);
        sim_host_up(sim_world_host(f.w, "192.0.2.4"));
        sim_spool_fail_reads(sim_world_spool(f.w), n, -EIO);
        sim_world_advance(f.w, 6 * SIM_HOUR);
        assert_int_equal(ledger_audit(&ledger).lost, 0);
        assert_int_equal(queued(&f), 0);
        end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_worker),       cmocka_unit_test(test_three_workers),
        cmocka_unit_test(test_any_time),         cmocka_unit_test(test_failing_commits),
        cmocka_unit_test(test_one_commit_fails), cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_failing_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
