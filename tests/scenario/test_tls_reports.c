/* TLS-RPT (RFC 8460): what is counted of sessions with the MX of a domain whose policies, certificates, resolvers and web
 * servers fail in each way; and what becomes of the counts when the router, its disk or the day ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/units.h"
#include "engine/context.h"
#include "engine/tls_reports.h"
#include "fixture.h"

#define SITE             "mta-sts.sts.example"
#define POLICY(mode, mx) "version: STSv1\r\nmode: " mode "\r\nmx: " mx "\r\nmax_age: 86400\r\n"

static const char ZONE[] = "sts.example.          MX 10 mx.sts.example.\n"
                           "mx.sts.example.       A 192.0.2.11\n"
                           "mta-sts.sts.example.  A 192.0.2.13\n"
                           "_mta-sts.sts.example. TXT \"v=STSv1; id=1;\"\n"
                           "plain.example.        MX 10 mx.plain.example.\n"
                           "mx.plain.example.     A 192.0.2.12\n";

static struct fixture f;
static struct sim_https *web;
static struct sim_host *mx, *plain;

static void by_mx(const char *domain, enum route_tls tls)
{
    struct route *r = route_new(ROUTE_MX);

    r->domain = arena_str(&r->arena, str_of(domain));
    r->tls = tls;
    assert_int_equal(route_finish(r), 0);
    sim_policy_domain(&f.policy, domain, r);
}

static int setup(void **state)
{
    fixture_init(&f, 1, 2);
    sim_world_zone_add(f.w, ZONE);
    mx = sim_world_host(f.w, "192.0.2.11");
    plain = sim_world_host(f.w, "192.0.2.12");
    sim_host_set_certificate(mx, &(struct sim_certificate){ .name = STR("mx.sts.example") });
    sim_host_set_starttls(mx, SIM_STARTTLS_OFFERED);
    sim_host_set_starttls(plain, SIM_STARTTLS_OFFERED);
    web = sim_world_https(f.w);
    sim_https_page(web, SITE, POLICY("enforce", "mx.sts.example"));
    sim_policy_domain(&f.policy, "sts.example", NULL);
    sim_policy_domain(&f.policy, "plain.example", NULL);
    fixture_start(&f);
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

/* ---- what the spool has ------------------------------------------------------------------------- */

/* The rows of that domain, of all workers, and of that day (NULL: of all of them), added up. */
static struct tls_report *report_on(const char *domain, const char *day)
{
    struct port_spool *spool = sim_spool_port(sim_world_spool(f.w));
    struct tls_report *sum = tls_report_new(), *row;
    char after[SPOOL_KV_MAX_KEY + 1] = "";
    struct str in, key, value;
    struct tls_reports_key parts;
    struct buf rows;
    int64_t expires;
    int n;

    buf_init(&rows, 0);
    do {
        n = spool->kv_scan(spool, STR(TLS_REPORTS_KV), STR(""), str_of(after), &rows, 50);
        assert_true(n >= 0);
        for (in = buf_str(&rows); n && spool_kv_take(&in, &expires, &key, &value);) {
            assert_true(str_copy(key, after, sizeof(after)));
            assert_true(tls_reports_key_take(key, &parts));
            if (!str_eq(parts.domain, str_of(domain)) || (day && !str_eq(parts.day, str_of(day))))
                continue;
            assert_int_equal(tls_report_decode(value, &row), 0);
            sum->domains += row->domains;
            tls_report_merge(sum, row);
            tls_report_free(row);
        }
    } while (n > 0);
    buf_done(&rows);
    return sum;
}

/* "sts: 3 good, certificate-expired mx.sts.example 192.0.2.11 2; none: ..." of what is in the spool, in a static buffer. */
static const char *counted_of(const char *domain)
{
    static char text[2000];
    struct tls_report *r = report_on(domain, NULL);
    const struct tls_policy_count *p;
    size_t n = 0;

    text[0] = '\0';
    for (size_t i = 0; (p = tls_report_policy(r, i)); i++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s: %d good", i ? "; " : "",
                              tls_policy_type_name(p->policy.type), (int)p->successes);
        for (size_t k = 0; k < p->n; k++) {
            char ip[NET_ADDR_TEXT];
            struct net_addr a = tls_failure_receiving(&p->failures[k]);
            n +=
                (size_t)snprintf(text + n, sizeof(text) - n, ", %s " STR_FMT " %s %d",
                                 tls_result_name(p->failures[k].result), STR_ARG(p->failures[k].mx),
                                 net_addr_ip_text(&a, ip), (int)p->failures[k].count);
        }
    }
    tls_report_free(r);
    return text;
}

static void settle(void)
{
    sim_world_advance(f.w, TLS_REPORTS_WRITE_MS + SIM_SECOND);
}

static void send_to(const char *recipient)
{
    assert_int_equal(mail_to(&f, recipient), 250);
    sim_world_advance(f.w, SIM_SECOND);
}

static void assert_counted(const char *domain, const char *text)
{
    settle();
    assert_string_equal(counted_of(domain), text);
}

/* ---- without a policy --------------------------------------------------------------------------- */

static void test_connections_are_counted_not_messages(void **state)
{
    for (int i = 0; i < 5; i++) /* over one connection */
        send_to("u@plain.example");
    settle();
    send_to("u@plain.example");
    assert_counted("plain.example", "no-policy-found: 2 good");
    assert_int_equal(sim_host_sessions(plain), 2);
    assert_int_equal(sim_host_inbox(plain), 6);
}

static void test_no_starttls(void **state)
{
    sim_host_set_starttls(plain, SIM_STARTTLS_NONE);
    send_to("u@plain.example");
    settle();
    sim_host_set_starttls(plain, SIM_STARTTLS_REFUSED);
    send_to("u@plain.example");
    settle();
    sim_host_set_starttls(plain, SIM_STARTTLS_BROKEN);
    send_to("u@plain.example");
    assert_int_equal(sim_host_inbox(plain), 3); /* in clear */
    settle();
    struct tls_report *r = report_on("plain.example", NULL);
    assert_int_equal(r->n, 1);
    assert_int_equal(r->policies[0].successes, 0);
    assert_int_equal(tls_policy_failures(&r->policies[0]), 3);
    const struct tls_failure *one = &r->policies[0].failures[0];
    assert_int_equal(one->result, TLS_RESULT_NO_STARTTLS);
    assert_true(str_eq(one->mx, STR("mx.plain.example")));
    struct net_addr a = tls_failure_sending(one), ours;
    assert_int_equal(net_addr_parse_ip(STR("198.51.100.25"), &ours), 0);
    assert_true(net_addr_same_ip(&a, &ours));
    assert_int_equal(r->policies[0].failures[2].result, TLS_RESULT_VALIDATION);
    assert_true(r->policies[0].failures[2].reason.n > 0);
    tls_report_free(r);
}

/* What says nothing about the domain's TLS: hosts that an operator names, no TLS by policy, hosts that are down. */
static void test_what_is_not_counted(void **state)
{
    struct route *r = route_new(ROUTE_HOSTS);
    struct route_target t;

    assert_int_equal(route_target_parse(&r->arena, STR("192.0.2.12"), false, &t), 0);
    r->targets = &t;
    r->n_targets = 1;
    assert_int_equal(route_finish(r), 0);
    sim_policy_domain(&f.policy, "plain.example", r);
    by_mx("sts.example", ROUTE_TLS_NONE);
    send_to("u@plain.example");
    send_to("u@sts.example");
    assert_int_equal(sim_host_inbox(plain) + sim_host_inbox(mx), 2);
    by_mx("sts.example", ROUTE_TLS_OPPORTUNISTIC);
    settle();
    sim_host_down(mx);
    send_to("u@sts.example");
    assert_counted("sts.example", "");
    assert_counted("plain.example", "");
}

/* ---- MTA-STS ------------------------------------------------------------------------------------ */

static void test_certificates_under_mta_sts(void **state)
{
    static const struct {
        const char *mode;
        bool delivered;
    } modes[] = { { POLICY("testing", "mx.sts.example"), true },
                  { POLICY("enforce", "mx.sts.example"), false } };
    static const struct sim_certificate bad[] = {
        { .name = STR("mx.sts.example"), .untrusted = true },
        { .name = STR("mx.sts.example"), .expired = true },
        { .name = STR("other.example") },
        { .name = STR("mx.sts.example"), .fails = STR("no shared cipher") },
    };

    for (size_t m = 0; m < ARRAY_LEN(modes); m++) {
        teardown(NULL);
        setup(NULL);
        sim_https_page(web, SITE, modes[m].mode);
        send_to("u@sts.example");
        assert_counted("sts.example", "sts: 1 good");
        for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
            sim_host_set_certificate(mx, &bad[i]);
            send_to("u@sts.example");
            sim_world_advance(f.w, SIM_HOUR);
        }
        struct tls_report *r = report_on("sts.example", NULL);
        assert_int_equal(r->n, 1);
        assert_int_equal(r->policies[0].successes, 1);
        static const enum tls_result results[] = { TLS_RESULT_NOT_TRUSTED, TLS_RESULT_EXPIRED,
                                                   TLS_RESULT_HOST_MISMATCH,
                                                   TLS_RESULT_VALIDATION };
        assert_int_equal(r->policies[0].n, ARRAY_LEN(results));
        for (size_t i = 0; i < ARRAY_LEN(results); i++)
            assert_int_equal(r->policies[0].failures[i].result, results[i]);
        /* section 4.3.1: what was wrong is said, also of what went all the same */
        assert_true(str_find(r->policies[0].failures[0].reason, STR("self-signed")) >= 0);
        assert_true(str_find(r->policies[0].failures[1].reason, STR("expired")) >= 0);
        assert_int_equal(str_find(r->policies[0].failures[1].reason, STR("testing")) >= 0,
                         modes[m].delivered);
        if (modes[m].delivered)
            assert_int_equal(sim_host_inbox(mx), 5);
        else
            assert_int_equal(sim_host_inbox(mx), 1);
        assert_true(str_starts(r->policies[0].policy.strings, STR("version: STSv1\nmode: ")));
        assert_true(str_eq(r->policies[0].policy.mx, STR("mx.sts.example\n")));
        tls_report_free(r);
    }
}

static void test_an_mx_that_the_policy_does_not_name(void **state)
{
    sim_https_page(web, SITE, POLICY("testing", "*.nowhere.example"));
    send_to("u@sts.example");
    assert_counted("sts.example", "sts: 0 good, validation-failure mx.sts.example 192.0.2.11 1");
    teardown(NULL);
    setup(NULL);
    sim_https_page(web, SITE, POLICY("enforce", "*.nowhere.example"));
    send_to("u@sts.example");
    assert_counted("sts.example", "sts: 0 good, validation-failure   1");
    assert_int_equal(sim_host_sessions(mx), 0);
}

static void test_no_starttls_under_mta_sts(void **state)
{
    sim_host_set_starttls(mx, SIM_STARTTLS_NONE);
    send_to("u@sts.example");
    assert_counted("sts.example",
                   "sts: 0 good, starttls-not-supported mx.sts.example 192.0.2.11 1");
}

static void test_policies_that_cannot_be_had(void **state)
{
    static const struct {
        struct sim_https_site site;
        const char *result;
    } cases[] = {
        { { .status = 404 }, "sts-policy-fetch-error" },
        { { .error = -EPROTO, .why = "HTTP/2 framing" }, "sts-policy-fetch-error" },
        { { .error = -EKEYREJECTED, .why = "expired" }, "sts-webpki-invalid" },
        { { .status = 200, .type = STR("text/html"), .content = STR("<html>") },
          "sts-policy-invalid" },
        { { .status = 200, .type = STR("text/plain"), .content = STR("version: STSv2") },
          "sts-policy-invalid" },
    };
    char expected[200];

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct sim_https_site site = cases[i].site;
        teardown(NULL);
        setup(NULL);
        site.host = STR(SITE);
        sim_https_set(web, &site);
        send_to("u@sts.example");
        assert_int_equal(sim_host_inbox(mx), 1);
        snprintf(expected, sizeof(expected), "no-policy-found: 1 good; sts: 0 good, %s   1",
                 cases[i].result);
        assert_counted("sts.example", expected);
    }
}

/* The policy that is kept holds, and its session is counted under it; so is the fault. */
static void test_a_kept_policy_that_cannot_be_renewed(void **state)
{
    send_to("u@sts.example");
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    sim_dns_remove(sim_world_dns(f.w), STR("_mta-sts.sts.example"), DNS_TXT);
    sim_world_zone_add(f.w, "_mta-sts.sts.example. TXT \"v=STSv1; id=2;\"");
    sim_https_set(web, &(struct sim_https_site){ .host = STR(SITE), .status = 500 });
    send_to("u@sts.example");
    assert_counted("sts.example", "sts: 2 good, sts-policy-fetch-error   1");
}

/* No connection is made, because of what is kept: both are told. */
static void test_a_kept_policy_that_names_no_mx_and_cannot_be_renewed(void **state)
{
    sim_https_page(web, SITE, POLICY("enforce", "*.nowhere.example"));
    send_to("u@sts.example");
    assert_counted("sts.example", "sts: 0 good, validation-failure   1");
    sim_https_set(web, &(struct sim_https_site){ .host = STR(SITE), .status = 500 });
    sim_world_advance(f.w, SIM_HOUR);
    settle();
    const char *text = counted_of("sts.example");
    assert_true(str_find(str_of(text), STR("validation-failure")) > 0);
    assert_true(str_find(str_of(text), STR("sts-policy-fetch-error")) > 0);
    assert_int_equal(sim_host_sessions(mx), 0);
}

/* Section 4.5: the domain's own lines, also when the policy has been kept over a restart. */
static void test_a_policy_in_its_own_words(void **state)
{
    static const char own[] = "version: STSv1\nmax_age: 0086400\nmode: testing\nnote: as it is\n"
                              "mx: mx.sts.example\n";

    sim_https_page(web, SITE, own);
    send_to("u@sts.example");
    settle();
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
    sim_world_start(f.w);
    sim_https_set(web, &(struct sim_https_site){ .host = STR(SITE), .status = 500 });
    send_to("u@sts.example");
    settle();
    struct tls_report *r = report_on("sts.example", NULL);
    assert_int_equal(r->n, 1);
    assert_int_equal(r->policies[0].successes, 2);
    assert_true(str_eq(r->policies[0].policy.strings, str_of(own)));
    tls_report_free(r);
}

/* ---- DANE --------------------------------------------------------------------------------------- */

/* "mx.sts.example" in hexadecimal: what a simulated certificate holds. */
#define MX_HEX "6d782e7374732e6578616d706c65"

static void secure(const char *tlsa)
{
    char text[300];

    teardown(NULL);
    setup(NULL);
    by_mx("sts.example", ROUTE_TLS_DANE);
    sim_dns_set_secure(sim_world_dns(f.w), STR("*"), true);
    snprintf(text, sizeof(text), "_25._tcp.mx.sts.example. TLSA %s\n", tlsa);
    sim_world_zone_add(f.w, text);
}

static void test_dane(void **state)
{
    secure("3 0 0 " MX_HEX);
    send_to("u@sts.example");
    settle();
    struct tls_report *r = report_on("sts.example", NULL);
    assert_int_equal(r->n, 1);
    assert_int_equal(r->policies[0].policy.type, TLS_POLICY_TLSA);
    assert_true(str_eq(r->policies[0].policy.domain, STR("mx.sts.example")));
    assert_true(str_eq(r->policies[0].policy.strings, STR("3 0 0 6D782E7374732E6578616D706C65\n")));
    assert_int_equal(r->policies[0].successes, 1);
    tls_report_free(r);

    secure("3 0 0 00");
    send_to("u@sts.example");
    assert_counted("sts.example", "tlsa: 0 good, tlsa-invalid mx.sts.example 192.0.2.11 1");
    assert_int_equal(sim_host_inbox(mx), 0);

    secure("1 0 0 " MX_HEX); /* PKIX-EE: of no use to mail, but TLS is demanded */
    send_to("u@sts.example");
    assert_counted("sts.example", "tlsa: 0 good, tlsa-invalid mx.sts.example 192.0.2.11 1");
    assert_int_equal(sim_host_inbox(mx), 1);

    secure("3 0 0 " MX_HEX);
    sim_host_set_starttls(mx, SIM_STARTTLS_NONE);
    send_to("u@sts.example");
    assert_counted("sts.example",
                   "tlsa: 0 good, starttls-not-supported mx.sts.example 192.0.2.11 1");

    secure("3 0 0 " MX_HEX);
    sim_dns_fail(sim_world_dns(f.w), STR("_25._tcp.mx.sts.example"), DNS_TLSA, DNS_SERVFAIL);
    send_to("u@sts.example");
    assert_counted("sts.example", "tlsa: 0 good, dnssec-invalid mx.sts.example  1");
    assert_int_equal(sim_host_sessions(mx), 0);
}

/* The session is DANE's, the fault is that of the policy beside it: each stands under its own type. */
static void test_dane_beside_a_policy_that_cannot_be_had(void **state)
{
    secure("3 0 0 " MX_HEX);
    sim_https_set(web, &(struct sim_https_site){ .host = STR(SITE), .status = 500 });
    send_to("u@sts.example");
    assert_counted("sts.example", "tlsa: 1 good; sts: 0 good, sts-policy-fetch-error   1");
}

/* ---- where counts are kept ------------------------------------------------------------------------ */

static void test_over_a_restart_and_a_crash(void **state)
{
    send_to("u@plain.example");
    assert_true(sim_world_stop(f.w, SIM_MINUTE)); /* an orderly end loses nothing */
    assert_string_equal(counted_of("plain.example"), "no-policy-found: 1 good");
    sim_world_start(f.w);
    send_to("u@plain.example");
    settle();
    send_to("u@plain.example");
    sim_world_crash(f.w); /* the last half minute */
    sim_world_start(f.w);
    assert_counted("plain.example", "no-policy-found: 2 good");
    send_to("u@plain.example");
    assert_counted("plain.example", "no-policy-found: 3 good");
}

static void test_a_disk_that_fails(void **state)
{
    send_to("u@plain.example");
    sim_spool_fail_commits(sim_world_spool(f.w), 1, -EIO);
    settle();
    assert_string_equal(counted_of("plain.example"), "");
    assert_counted("plain.example", "no-policy-found: 1 good");
    send_to("u@plain.example");
    sim_world_advance(f.w, 29 * SIM_SECOND);
    sim_spool_fail_reads(sim_world_spool(f.w), 1, -EIO);
    sim_world_advance(f.w, 10 * SIM_SECOND);
    assert_counted("plain.example", "no-policy-found: 2 good");
}

static void count_one(const char *domain)
{
    struct tls_policy p = { .type = TLS_POLICY_NONE, .domain = str_of(domain) };
    struct tls_session s = { .result = TLS_RESULT_NO_STARTTLS };

    tls_reports_count(sim_world_engine(f.w, 0), str_of(domain), &p, &s);
}

static void ignore(struct spool_op *op)
{
}

static uint64_t failures_of(const char *domain)
{
    struct tls_report *r = report_on(domain, NULL);
    const struct tls_policy_count *p;
    uint64_t n = 0;

    for (size_t i = 0; (p = tls_report_policy(r, i)); i++)
        n += tls_policy_failures(p);
    tls_report_free(r);
    return n;
}

/* So many domains have been counted today, as the row of the others says. */
static void begin_with(uint32_t domains)
{
    struct port_spool *spool = sim_spool_port(sim_world_spool(f.w));
    struct engine *e = sim_world_engine(f.w, 0);
    struct tls_report *r = tls_report_new();
    char text[32], key[64];
    struct buf value;

    r->domains = domains;
    buf_init(&value, 0);
    assert_int_equal(tls_report_encode(r, &value), 0);
    snprintf(key, sizeof(key), "%.10s * 0", date_iso8601(engine_wall(e), text));
    struct spool_change c = { .type = SPOOL_KV_SET,
                              .kv = { .name = STR(TLS_REPORTS_KV),
                                      .key = str_of(key),
                                      .value = buf_str(&value),
                                      .now_ms = engine_wall(e),
                                      .expires_ms = INT64_MAX - 1,
                                      .max = 10 } };
    struct spool_op op = { .changes = &c, .n_changes = 1, .done = ignore };
    spool->submit(spool, &op);
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(op.result, 0);
    buf_done(&value);
    tls_report_free(r);
}

static void test_too_many_domains_at_once(void **state)
{
    char name[40];

    for (int i = 0; i < TLS_REPORTS_PENDING + 10; i++) {
        snprintf(name, sizeof(name), "d%d.example", i);
        count_one(name);
    }
    settle();
    assert_int_equal(failures_of("d0.example"), 1);
    assert_int_equal(failures_of("d2047.example"), 1);
    assert_int_equal(failures_of("d2048.example"), 0);
    assert_int_equal(failures_of(TLS_REPORTS_OTHER), 10);
}

static void test_too_many_domains_in_a_day(void **state)
{
    char name[40];

    begin_with(TLS_REPORTS_DOMAINS - 20);
    for (int i = 0; i < 25; i++) {
        snprintf(name, sizeof(name), "d%d.example", i);
        count_one(name);
    }
    assert_true(sim_world_stop(f.w, SIM_MINUTE)); /* the limit is remembered */
    sim_world_start(f.w);
    assert_int_equal(failures_of("d19.example"), 1);
    assert_int_equal(failures_of("d20.example"), 0);
    assert_int_equal(failures_of(TLS_REPORTS_OTHER), 5);
    count_one("one-more.example");
    count_one("d17.example");
    settle();
    settle(); /* what goes to the others goes with them */
    assert_int_equal(failures_of("one-more.example"), 0);
    assert_int_equal(failures_of(TLS_REPORTS_OTHER), 6);
    assert_int_equal(failures_of("d17.example"), 2);
}

static void test_days(void **state)
{
    int64_t day = SIM_DAY, now = sim_world_clock(f.w)->now;
    char text[32], first[11], second[11];
    struct engine *e = sim_world_engine(f.w, 0);

    str_copy(str_first(str_of(date_iso8601(engine_wall(e), text)), 10), first, sizeof(first));
    count_one("a.example");
    sim_world_advance(f.w, day - engine_wall(e) % day - 1); /* a moment before midnight */
    count_one("a.example");
    sim_world_advance(f.w, 1);
    str_copy(str_first(str_of(date_iso8601(engine_wall(e), text)), 10), second, sizeof(second));
    assert_string_not_equal(first, second);
    count_one("a.example");
    settle();
    struct tls_report *r = report_on("a.example", first);
    assert_int_equal(tls_policy_failures(tls_report_policy(r, 0)), 2);
    tls_report_free(r);
    r = report_on("a.example", second);
    assert_int_equal(tls_policy_failures(tls_report_policy(r, 0)), 1);
    tls_report_free(r);
    assert_true(now < sim_world_clock(f.w)->now);

    sim_world_advance(f.w, TLS_REPORTS_DAYS * SIM_DAY);
    count_one("b.example"); /* what is written drops what has ended */
    settle();
    r = report_on("a.example", first);
    assert_null(tls_report_policy(r, 0));
    tls_report_free(r);
    r = report_on("a.example", second);
    assert_non_null(tls_report_policy(r, 0));
    tls_report_free(r);
}

struct waiting {
    struct tls_reports_flush flush;
    int told;
};

static void on_flushed(struct tls_reports_flush *flush)
{
    CONTAINER_OF(flush, struct waiting, flush)->told++;
}

static void test_flush(void **state)
{
    struct waiting w = { .flush.done = on_flushed };
    struct engine *e = sim_world_engine(f.w, 0);
    char name[40];

    tls_reports_flush(e, &w.flush); /* there is nothing */
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(w.told, 1);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof(name), "d%d.example", i);
        count_one(name);
    }
    tls_reports_flush(e, &w.flush);
    assert_int_equal(w.told, 1);
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(w.told, 2);
    assert_int_equal(failures_of("d299.example"), 1);
    assert_false(tls_reports_pending(e->tls_reports));
    count_one("a.example");
    sim_spool_fail_commits(sim_world_spool(f.w), 1, -ENOSPC);
    tls_reports_flush(e, &w.flush); /* told all the same */
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(w.told, 3);
    settle();
    assert_int_equal(failures_of("a.example"), 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_connections_are_counted_not_messages),
        T(test_no_starttls),
        T(test_what_is_not_counted),
        T(test_certificates_under_mta_sts),
        T(test_an_mx_that_the_policy_does_not_name),
        T(test_no_starttls_under_mta_sts),
        T(test_policies_that_cannot_be_had),
        T(test_a_kept_policy_that_cannot_be_renewed),
        T(test_dane),
        T(test_dane_beside_a_policy_that_cannot_be_had),
        T(test_a_kept_policy_that_names_no_mx_and_cannot_be_renewed),
        T(test_a_policy_in_its_own_words),
        T(test_over_a_restart_and_a_crash),
        T(test_a_disk_that_fails),
        T(test_too_many_domains_at_once),
        T(test_too_many_domains_in_a_day),
        T(test_days),
        T(test_flush),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
