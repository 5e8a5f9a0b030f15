/* MTA-STS (RFC 8461): which MX get the mail of a domain that has a policy, and what happens when policy, record, web
 * server and certificates disagree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fixture.h"

#define SITE "mta-sts.sts.example"
#define POLICY(mode, mx, age)                                                                      \
    "version: STSv1\r\nmode: " mode "\r\nmx: " mx "\r\nmax_age: " age "\r\n"

static const char ZONE[] = "sts.example.          MX 10 mx.sts.example.\n"
                           "sts.example.          MX 20 other.example.\n"
                           "mx.sts.example.       A 192.0.2.11\n"
                           "other.example.        A 192.0.2.12\n"
                           "mta-sts.sts.example.  A 192.0.2.13\n"
                           "_mta-sts.sts.example. TXT \"v=STSv1; id=1;\"\n";

static struct fixture f;
static struct sim_https *web;
static struct sim_host *mx, *other;

static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    sim_world_zone_add(f.w, ZONE);
    mx = sim_world_host(f.w, "192.0.2.11");
    other = sim_world_host(f.w, "192.0.2.12");
    sim_host_set_certificate(mx, &(struct sim_certificate){ .name = STR("mx.sts.example") });
    sim_host_set_starttls(mx, SIM_STARTTLS_OFFERED);
    sim_host_set_starttls(other, SIM_STARTTLS_OFFERED);
    web = sim_world_https(f.w);
    sim_https_page(web, SITE, POLICY("enforce", "mx.sts.example", "86400"));
    sim_policy_domain(&f.policy, "sts.example", NULL);
    fixture_start(&f);
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

static void record(const char *id)
{
    char text[200];

    sim_dns_remove(sim_world_dns(f.w), STR("_mta-sts.sts.example"), DNS_TXT);
    if (!id)
        return;
    snprintf(text, sizeof(text), "_mta-sts.sts.example. TXT \"v=STSv1; id=%s;\"", id);
    sim_world_zone_add(f.w, text);
}

static void send_one(int64_t then_ms)
{
    assert_int_equal(mail_to(&f, "u@sts.example"), 250);
    sim_world_advance(f.w, then_ms);
}

static bool by_verified_tls(struct sim_host *h, size_t i)
{
    assert_true(sim_host_inbox(h) > i);
    return sim_host_received(h, i)->tls;
}

/* ---- the tests -------------------------------------------------------------------------------- */

static void test_only_the_mx_of_the_policy(void **state)
{
    send_one(SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_true(by_verified_tls(mx, 0));
    sim_host_down(mx); /* the other one is no MX of the policy */
    send_one(SIM_HOUR);
    assert_int_equal(sim_host_sessions(other), 0);
    assert_int_equal(queued(&f), 1);
    assert_int_equal(web->asked, 1); /* it is kept */
    sim_host_up(mx);
    sim_world_advance(f.w, 4 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 2);
}

/* Certificates that are not good: the mail waits, and no octet of it goes in clear. */
static void test_a_bad_certificate_makes_it_wait(void **state)
{
    sim_host_set_certificate(
        mx, &(struct sim_certificate){ .name = STR("mx.sts.example"), .untrusted = true });
    send_one(SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx) + sim_host_inbox(other), 0);
    assert_int_equal(queued(&f), 1);
    sim_host_set_certificate(mx, &(struct sim_certificate){ .name = STR("mx.sts.example") });
    sim_world_advance(f.w, 4 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 1);
}

/* A failure may be that of an old policy: it is fetched again although its record is the same (§5.1). */
static void test_a_policy_that_fails_is_fetched_again(void **state)
{
    send_one(SIM_SECOND);
    assert_int_equal(web->asked, 1);
    sim_host_set_certificate(
        mx, &(struct sim_certificate){ .name = STR("mx.sts.example"), .untrusted = true });
    sim_https_page(web, SITE, POLICY("none", "mx.sts.example", "86400"));
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    send_one(4 * SIM_HOUR);
    assert_int_equal(web->asked, 2);
    assert_int_equal(queued(&f), 0); /* there is no policy any more: opportunistic */
}

/* A host that does not offer TLS (any more) gets nothing. */
static void test_no_tls_no_mail(void **state)
{
    sim_host_set_starttls(mx, SIM_STARTTLS_NONE);
    send_one(SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx) + sim_host_inbox(other), 0);
    assert_true(sim_host_sessions(mx) >= 2);
    assert_true(web->asked >= 2);
}

static void test_testing_is_not_enforced(void **state)
{
    sim_https_page(web, SITE, POLICY("testing", "*.nowhere.example", "86400"));
    send_one(SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx), 1);
}

static void test_none_of_the_mx_is_in_the_policy(void **state)
{
    sim_https_page(web, SITE, POLICY("enforce", "*.nowhere.example", "600"));
    send_one(SIM_HOUR);
    assert_int_equal(sim_host_sessions(mx) + sim_host_sessions(other), 0);
    assert_int_equal(queued(&f), 1);
    sim_https_page(web, SITE, POLICY("enforce", "*.sts.example", "600"));
    sim_world_advance(f.w, 4 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 1);
}

/* Without a policy that can be had, mail goes as it would have gone (§5); and soon it is not asked again. */
static void test_no_policy_can_be_fetched(void **state)
{
    static const struct sim_https_site sites[] = {
        { .error = -EPROTO, .why = "certificate has expired" },
        { .status = 404 },
        { .status = 302 },
        { .status = 200, .type = STR("text/html"), .content = STR("<html>") },
        { .status = 200, .type = STR("text/plain"), .content = STR("version: STSv2") },
    };

    for (size_t i = 0; i < ARRAY_LEN(sites); i++) {
        struct sim_https_site site = sites[i];
        site.host = STR(SITE);
        sim_https_set(web, &site);
        send_one(SIM_SECOND);
        assert_int_equal(sim_host_inbox(mx), 2 * i + 1);
        send_one(SIM_SECOND);
        assert_int_equal(sim_host_inbox(mx), 2 * i + 2);
        assert_int_equal(web->asked, i + 1);
        sim_world_advance(f.w, 6 * SIM_MINUTE);
    }
}

static void test_a_new_record_is_a_new_policy(void **state)
{
    send_one(SIM_SECOND);
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    record("2");
    sim_https_page(web, SITE, POLICY("enforce", "other.example", "86400"));
    sim_host_set_certificate(other, &(struct sim_certificate){ .name = STR("other.example") });
    send_one(SIM_SECOND);
    assert_int_equal(web->asked, 2);
    assert_int_equal(sim_host_inbox(other), 1);
}

/* A record that is gone, or cannot be asked for, ends no policy that lives (§3.3): else whoever can suppress an answer
 * could suppress the policy. Its age does. */
static void test_a_policy_outlives_its_record(void **state)
{
    send_one(10 * SIM_MINUTE); /* its connection has gone */
    sim_host_set_certificate(
        mx, &(struct sim_certificate){ .name = STR("mx.sts.example"), .untrusted = true });
    sim_dns_fail(sim_world_dns(f.w), STR("_mta-sts.sts.example"), DNS_TXT, DNS_SERVFAIL);
    sim_https_set(web, &(struct sim_https_site){ .host = STR(SITE), .status = 500 });
    send_one(SIM_HOUR);
    assert_int_equal(queued(&f), 1);
    sim_dns_fail(sim_world_dns(f.w), STR("_mta-sts.sts.example"), DNS_TXT, DNS_OK);
    record(NULL);
    sim_world_advance(f.w, 12 * SIM_HOUR);
    assert_int_equal(queued(&f), 1);
    sim_world_advance(f.w, 24 * SIM_HOUR); /* max_age is over */
    assert_int_equal(queued(&f), 0);
}

static void test_it_is_kept_over_a_restart(void **state)
{
    send_one(SIM_SECOND);
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
    sim_https_set(web, &(struct sim_https_site){ .host = STR(SITE), .status = 500 });
    sim_world_start(f.w);
    sim_host_down(mx);
    send_one(SIM_HOUR);
    assert_int_equal(sim_host_sessions(other), 0);
    assert_int_equal(web->asked, 1);
}

/* What was fetched holds at once, though the disk is slow and has not got it yet. */
static void test_it_holds_before_it_is_kept(void **state)
{
    sim_world_zone_add(f.w, "sts.example. MX 5 other.example.");
    sim_spool_set_latency(sim_world_spool(f.w), 20 * SIM_SECOND);
    for (int i = 0; i < 6; i++)
        assert_int_equal(mail_to(&f, "u@sts.example"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(web->asked, 1);
    assert_int_equal(sim_host_inbox(mx), 6);
    assert_int_equal(sim_host_sessions(other), 0);
}

/* One fetch for all that wait for it; a web server that is silent delays them by half a minute, once. */
static void test_a_silent_web_server(void **state)
{
    sim_https_set(web, &(struct sim_https_site){ .host = STR("elsewhere.example"), .status = 200 });
    web->site[0].host = STR("elsewhere.too.example");
    for (int i = 0; i < 5; i++)
        assert_int_equal(mail_to(&f, "u@sts.example"), 250);
    sim_world_advance(f.w, 20 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx), 0);
    sim_world_advance(f.w, 15 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx), 5);
    assert_int_equal(web->asked, 1);
    send_one(SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx), 6);
}

static void test_a_route_may_pass_it_by(void **state)
{
    struct route *r = route_new(ROUTE_MX);

    r->domain = STR("sts.example");
    r->no_sts = true;
    assert_int_equal(route_finish(r), 0);
    sim_policy_domain(&f.policy, "sts.example", r);
    sim_https_page(web, SITE, POLICY("enforce", "*.nowhere.example", "600"));
    send_one(SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(web->asked, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_only_the_mx_of_the_policy),
        T(test_a_bad_certificate_makes_it_wait),
        T(test_a_policy_that_fails_is_fetched_again),
        T(test_no_tls_no_mail),
        T(test_testing_is_not_enforced),
        T(test_none_of_the_mx_is_in_the_policy),
        T(test_no_policy_can_be_fetched),
        T(test_a_new_record_is_a_new_policy),
        T(test_a_policy_outlives_its_record),
        T(test_it_is_kept_over_a_restart),
        T(test_it_holds_before_it_is_kept),
        T(test_a_silent_web_server),
        T(test_a_route_may_pass_it_by),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
