/* What an attempt may do with the connections that there are, and what its end says about a destination. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/context.h"
#include "engine/hosts.h"
#include "engine/queue.h"
#include "fixture.h"

enum { DOMAINS = 60 };

static struct fixture f;
static struct sim_host *mx;

static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    mx = sim_world_host(f.w, "192.0.2.1");
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

/* ---- one connection ---------------------------------------------------------------------------- */

/* The one that has just failed makes room for the next host of the same attempt. */
static void test_the_next_host_needs_no_second_connection(void **state)
{
    struct sim_host *first = sim_world_host(f.w, "192.0.2.31");
    struct sim_host *second = sim_world_host(f.w, "192.0.2.32");
    sim_world_zone_add(f.w, "two.example. MX 1 a.two.example.\ntwo.example. MX 2 b.two.example.\n"
                            "a.two.example. A 192.0.2.31\nb.two.example. A 192.0.2.32\n");
    sim_policy_domain(&f.policy, "two.example", NULL);
    f.settings->queue.connections = 1;
    sim_host_reply(first, SMTP_STAGE_GREETING, 554, STR("not here"));
    fixture_start(&f);
    mail_to(&f, "u@two.example");
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(sim_host_inbox(second), 1);
}

/* Nor does the attempt in clear after one whose TLS is broken. */
static void test_broken_tls_needs_no_second_connection(void **state)
{
    f.settings->queue.connections = 1;
    sim_host_set_starttls(mx, SIM_STARTTLS_BROKEN);
    fixture_start(&f);
    mail_to(&f, "u@example.com");
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx), 1);
}

/* ---- what somebody asked for ------------------------------------------------------------------- */

static size_t commands_done;

static void on_command(struct queue_command *c)
{
    commands_done++;
    free(c);
}

static void retry_all_domains(void)
{
    for (int n = 0; n < DOMAINS; n++) {
        struct queue_command *c = calloc(1, sizeof *c);
        assert_non_null(c);
        c->type = QUEUE_RETRY;
        c->done = on_command;
        snprintf(c->queue, sizeof c->queue, "d%d.example", n);
        queue_command_send(sim_world_ports(f.w, 0)->workers, c);
    }
}

/* Many queues behind one host are told to try again: while it is down one of them finds out, for all. */
static void test_B13_asking_for_all_is_no_storm(void **state)
{
    struct sim_host *shared = sim_world_host(f.w, "192.0.2.50");
    for (int n = 0; n < DOMAINS; n++) {
        char zone[120], domain[32];
        snprintf(domain, sizeof domain, "d%d.example", n);
        snprintf(zone, sizeof zone, "%s. MX 1 shared.example.\n", domain);
        sim_world_zone_add(f.w, zone);
        sim_policy_domain(&f.policy, domain, NULL);
    }
    sim_world_zone_add(f.w, "shared.example. A 192.0.2.50\n");
    sim_host_down(shared);
    fixture_start(&f);
    for (int n = 0; n < DOMAINS; n++) {
        char to[40];
        snprintf(to, sizeof to, "u@d%d.example", n);
        mail_to(&f, to);
    }
    sim_world_advance(f.w, SIM_HOUR);
    uint64_t dials = sim_net_dials(sim_world_net(f.w));
    retry_all_domains();
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(commands_done, DOMAINS);
    assert_int_equal(sim_net_dials(sim_world_net(f.w)) - dials, 1);
    sim_host_set_reach(shared, SIM_SILENT); /* it takes its time to fail */
    retry_all_domains();
    sim_world_advance(f.w, 10 * SIM_SECOND);
    assert_int_equal(sim_net_dials(sim_world_net(f.w)) - dials, 2);
    assert_int_equal(queued(&f), DOMAINS);
    sim_world_advance(f.w, 5 * SIM_MINUTE);
    sim_host_up(shared);
    sim_host_set_delay(shared, 100);
    retry_all_domains();
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(shared), DOMAINS);
    assert_int_equal(queued(&f), 0);
}

/* When each of the queues behind that host is tried next. */
static int64_t retries(int64_t *ret_last)
{
    int64_t first = INT64_MAX;
    *ret_last = 0;
    for (int n = 0; n < DOMAINS; n++) {
        struct queue_status st;
        char name[32];
        snprintf(name, sizeof name, "d%d.example", n);
        assert_true(queue_status(sim_world_engine(f.w, 0)->queues, str_of(name), &st));
        assert_true(st.retry_in_ms > 0);
        first = MIN(first, st.retry_in_ms);
        *ret_last = MAX(*ret_last, st.retry_in_ms);
    }
    return first;
}

/* They all are told to leave it alone until then: none of them goes before, and not all of them at that moment. */
static void test_Q2_who_waits_for_one_host_is_spread(void **state)
{
    struct sim_host *shared = sim_world_host(f.w, "192.0.2.50");
    int64_t last, first;
    f.settings->queue.host_retry_ms = 20 * SIM_MINUTE;
    f.settings->queue.host_retry_max_ms = 20 * SIM_MINUTE;
    sim_world_zone_add(f.w, "shared.example. A 192.0.2.50\n");
    for (int n = 0; n < DOMAINS; n++) {
        char zone[120], domain[32];
        snprintf(domain, sizeof domain, "d%d.example", n);
        snprintf(zone, sizeof zone, "%s. MX 1 shared.example.\n", domain);
        sim_world_zone_add(f.w, zone);
        sim_policy_domain(&f.policy, domain, NULL);
    }
    sim_host_down(shared);
    fixture_start(&f);
    mail_to(&f, "u@d0.example");
    sim_world_advance(f.w, SIM_SECOND); /* this one finds out */
    for (int n = 1; n < DOMAINS; n++) {
        char to[40];
        snprintf(to, sizeof to, "u@d%d.example", n);
        mail_to(&f, to);
    }
    sim_world_advance(f.w, 5 * SIM_MINUTE);
    struct net_addr addr = sim_addr("192.0.2.50:25");
    int64_t dictated = hosts_wait(sim_world_engine(f.w, 0)->hosts, &addr);
    first = retries(&last);
    assert_in_range(dictated, 10 * SIM_MINUTE, 15 * SIM_MINUTE);
    assert_in_range(first, dictated, dictated + SIM_MINUTE);
    assert_in_range(last, first + SIM_MINUTE, dictated + 2 * SIM_MINUTE);
}

/* ---- what an end says -------------------------------------------------------------------------- */

/* It greets and then breaks every connection: that is no recovery, and the mail does not go through it one by one. */
static void test_Q1_a_probe_that_breaks_off_is_no_recovery(void **state)
{
    struct sim_rule broken = { .stage = SMTP_STAGE_RCPT, .action = SIM_RESET };
    sim_host_down(mx);
    fixture_start(&f);
    for (int i = 0; i < 100; i++)
        mail_to(&f, "u@example.com");
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    sim_host_add_rule(mx, &broken);
    sim_host_up(mx);
    uint64_t before = sim_host_sessions(mx);
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_int_equal(counted(&f, "queue_recovered"), 0);
    assert_in_range(sim_host_sessions(mx) - before, 1, 30);
    assert_int_equal(sim_host_peak(mx), 1);
    sim_host_clear_rules(mx);
    sim_world_advance(f.w, 4 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 100);
    assert_int_equal(queued(&f), 0);
}

/* A commit that fails is made again, each change by itself: none is lost, and nothing is delivered twice. */
static void test_Q4_results_survive_errors_of_the_disk(void **state)
{
    struct str to[] = { STR("a@example.com"), STR("b@example.com"), STR("c@example.com") };
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = to,
                          .n_recipients = 3,
                          .content = STR("Subject: x\r\n\r\nhello\r\n") };
    fixture_start(&f);
    sim_host_set_delay(mx, 50);
    sim_world_post(f.w, &m);
    sim_world_advance(f.w, 100);
    sim_spool_fail_commits(sim_world_spool(f.w), 5, -EIO);
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(queued(&f), 0);
}

/* A look for what is due next fails once: what waits for its time goes all the same. */
static void test_a_failed_look_loses_no_wake_up(void **state)
{
    struct sim_rule later = { .stage = SMTP_STAGE_RCPT,
                              .reply = REPLY(450, ENH(4, 2, 1), "later"),
                              .times = 1 };
    sim_host_add_rule(mx, &later);
    fixture_start(&f);
    mail_to(&f, "u@example.com");
    for (int i = 0; i < 60 * 60 && sim_host_inbox(mx) == 0; i++) {
        sim_spool_fail_reads(sim_world_spool(f.w), i % 7 == 0, -EIO);
        sim_world_advance(f.w, SIM_SECOND);
    }
    assert_int_equal(sim_host_inbox(mx), 1);
}

#define WITH_WORLD(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(test_the_next_host_needs_no_second_connection),
        WITH_WORLD(test_broken_tls_needs_no_second_connection),
        WITH_WORLD(test_B13_asking_for_all_is_no_storm),
        WITH_WORLD(test_Q2_who_waits_for_one_host_is_spread),
        WITH_WORLD(test_Q1_a_probe_that_breaks_off_is_no_recovery),
        WITH_WORLD(test_Q4_results_survive_errors_of_the_disk),
        WITH_WORLD(test_a_failed_look_loses_no_wake_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
