/* REQUIRETLS and TLS-Required (RFC 8689): which hosts get such a message, what becomes of it when none of them can,
 * and what others notice of it: nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fixture.h"

#define SITE             "mta-sts.safe.example"
#define POLICY(mode, mx) "version: STSv1\r\nmode: " mode "\r\nmx: " mx "\r\nmax_age: 86400\r\n"

static const char ZONE[] = "safe.example.      MX 10 mx1.safe.example.\n"
                           "safe.example.      MX 20 mx2.safe.example.\n"
                           "mx1.safe.example.  A 192.0.2.11\n"
                           "mx2.safe.example.  A 192.0.2.12\n"
                           "mta-sts.safe.example. A 192.0.2.20\n"
                           "alone.example.     A 192.0.2.13\n"
                           "back.example.      MX 10 mx.back.example.\n"
                           "mx.back.example.   A 192.0.2.77\n";

static struct fixture f;
static struct sim_https *web;
static struct sim_host *mx1, *mx2, *sender_mx;

static void certify(struct sim_host *h, const char *name, bool trusted)
{
    sim_host_set_certificate(
        h, &(struct sim_certificate){ .name = str_of(name), .untrusted = !trusted });
}

/* Offers all that is demanded. */
static struct sim_host *good_host(const char *addr, const char *name)
{
    struct sim_host *h = sim_world_host(f.w, addr);
    certify(h, name, true);
    sim_host_set_starttls(h, SIM_STARTTLS_OFFERED);
    sim_host_set_requiretls(h, true);
    return h;
}

static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    f.settings->tls_cert = STR("cert.pem");
    sim_world_zone_add(f.w, ZONE);
    mx1 = good_host("192.0.2.11", "mx1.safe.example");
    mx2 = good_host("192.0.2.12", "mx2.safe.example");
    sender_mx = sim_world_host(f.w, "192.0.2.77");
    web = sim_world_https(f.w);
    sim_policy_domain(&f.policy, "safe.example", NULL);
    sim_policy_domain(&f.policy, "alone.example", NULL);
    sim_dns_set_secure(sim_world_dns(f.w), STR("safe.example"), true);
    fixture_start(&f);
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

static void without_dnssec(void)
{
    sim_dns_set_secure(sim_world_dns(f.w), STR("safe.example"), false);
}

static void with_policy(const char *policy)
{
    sim_world_zone_add(f.w, "_mta-sts.safe.example. TXT \"v=STSv1; id=1;\"");
    sim_https_page(web, SITE, policy);
}

static int post(const char *to, bool requiretls, const char *headers)
{
    char content[600];
    struct str recipient = str_of(to);
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = &recipient,
                          .n_recipients = 1,
                          .starttls = true,
                          .requiretls = requiretls };
    snprintf(content, sizeof(content), "From: <a@b>\r\n%s\r\nthe secret body\r\n", headers);
    m.content = str_of(content);
    return sim_world_send(f.w, &m)->reply.code;
}

static void send_safely(const char *to, int64_t then_ms)
{
    assert_int_equal(post(to, true, ""), 250);
    sim_world_advance(f.w, then_ms);
}

static bool arrived_safely(struct sim_host *h, size_t i)
{
    if (sim_host_inbox(h) <= i)
        return false;
    const struct sim_received *r = sim_host_received(h, i);
    return r->tls && r->requiretls;
}

/* It has gone back, with that status and without its body. */
static void assert_returned(const char *status)
{
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_host_inbox(sender_mx), 1);
    assert_int_equal(got(sender_mx, status), 1);
    assert_int_equal(got(sender_mx, "the secret body"), 0);
}

static bool nobody_got_it(void)
{
    return sim_host_inbox(mx1) + sim_host_inbox(mx2) == 0;
}

/* ---- where it goes ---------------------------------------------------------------------------- */

static void test_to_hosts_that_dnssec_vouches_for(void **state)
{
    send_safely("u@safe.example", SIM_SECOND);
    assert_true(arrived_safely(mx1, 0));
    assert_int_equal(queued(&f), 0);
}

static void test_to_hosts_that_mta_sts_vouches_for(void **state)
{
    without_dnssec();
    with_policy(POLICY("enforce", "mx1.safe.example"));
    send_safely("u@safe.example", SIM_SECOND);
    assert_true(arrived_safely(mx1, 0));
}

/* A policy that is only tried says who the MX are all the same. */
static void test_to_hosts_of_a_policy_in_testing(void **state)
{
    without_dnssec();
    with_policy(POLICY("testing", "*.safe.example"));
    send_safely("u@safe.example", SIM_SECOND);
    assert_true(arrived_safely(mx1, 0));
}

static void test_nobody_vouches_for_the_mx(void **state)
{
    without_dnssec();
    send_safely("u@safe.example", SIM_SECOND);
    assert_true(nobody_got_it());
    assert_int_equal(sim_host_sessions(mx1) + sim_host_sessions(mx2), 0);
    assert_returned("5.7.10");
}

/* Who vouches cannot be asked now: it waits. */
static void test_the_policy_cannot_be_fetched_now(void **state)
{
    without_dnssec();
    sim_world_zone_add(f.w, "_mta-sts.safe.example. TXT \"v=STSv1; id=1;\"");
    send_safely("u@safe.example", SIM_MINUTE);
    assert_int_equal(queued(&f), 1);
    assert_int_equal(mail_to(&f, "u@safe.example"), 250); /* other mail does not wait with it */
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx1), 1);
    sim_https_page(web, SITE, POLICY("enforce", "mx1.safe.example"));
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    assert_true(arrived_safely(mx1, 1));
}

static void test_the_record_of_the_policy_cannot_be_asked_for_now(void **state)
{
    without_dnssec();
    sim_dns_fail(sim_world_dns(f.w), STR("_mta-sts.safe.example"), DNS_TXT, DNS_SERVFAIL);
    send_safely("u@safe.example", SIM_MINUTE);
    assert_int_equal(queued(&f), 1);
    assert_true(nobody_got_it());
}

/* No MX: its own name is that of the host, and the certificate is for that. */
static void test_a_domain_without_mx(void **state)
{
    struct sim_host *h = good_host("192.0.2.13", "alone.example");
    send_safely("u@alone.example", SIM_SECOND);
    assert_true(arrived_safely(h, 0));
    sim_world_advance(f.w, SIM_MINUTE); /* its connection has gone */
    certify(h, "other.example", true);
    send_safely("u@alone.example", SIM_MINUTE);
    assert_int_equal(sim_host_inbox(h), 1);
    assert_returned("5.7.10");
}

/* ---- hosts that are not good enough ----------------------------------------------------------- */

static void test_the_next_host_supports_it(void **state)
{
    sim_host_set_requiretls(mx1, false);
    send_safely("u@safe.example", SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx1), 0);
    assert_true(arrived_safely(mx2, 0));
}

static void test_no_host_supports_it(void **state)
{
    sim_host_set_requiretls(mx1, false);
    sim_host_set_requiretls(mx2, false);
    send_safely("u@safe.example", SIM_SECOND);
    assert_true(nobody_got_it());
    assert_returned("5.7.30");
    assert_int_equal(counted(&f, "bounced"), 1);
}

static void test_no_tls_is_offered(void **state)
{
    sim_host_set_starttls(mx1, SIM_STARTTLS_NONE);
    sim_host_set_starttls(mx2, SIM_STARTTLS_NONE);
    send_safely("u@safe.example", SIM_SECOND);
    assert_true(nobody_got_it());
    assert_returned("5.7.10");
}

/* Section 4.2.1: whoever is not good enough is told QUIT, and not just left. */
static void test_quit_is_said_where_tls_is_refused(void **state)
{
    sim_host_set_starttls(mx1, SIM_STARTTLS_NONE);
    sim_host_set_starttls(mx2, SIM_STARTTLS_REFUSED);
    send_safely("u@safe.example", SIM_SECOND);
    assert_true(nobody_got_it());
    assert_int_equal(sim_host_sessions(mx1), 1);
    assert_int_equal(sim_host_quits(mx1), 1);
    assert_int_equal(sim_host_sessions(mx2), 1);
    assert_int_equal(sim_host_quits(mx2), 1);
    assert_int_equal(sim_host_open(mx1) + sim_host_open(mx2), 0);
}

static void test_certificates_are_not_good(void **state)
{
    certify(mx1, "mx1.safe.example", false); /* whoever made it */
    certify(mx2, "mx1.safe.example", true);  /* another's name */
    send_safely("u@safe.example", SIM_SECOND);
    assert_true(nobody_got_it());
    assert_returned("5.7.10");
}

static void test_the_handshake_fails(void **state)
{
    sim_host_set_starttls(mx1, SIM_STARTTLS_BROKEN);
    send_safely("u@safe.example", SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx1), 0);
    assert_true(arrived_safely(mx2, 0));
}

/* A certificate that nobody trusts but the domain's own TLSA record is good, whatever the route says of DANE. */
static void test_dane_is_as_good(void **state)
{
    certify(mx1, "mx1.safe.example", false);
    sim_world_zone_add(f.w,
                       "_25._tcp.mx1.safe.example. TLSA 3 0 0 6d78312e736166652e6578616d706c65");
    sim_host_down(mx2);
    send_safely("u@safe.example", SIM_SECOND);
    assert_true(arrived_safely(mx1, 0));
}

/* 454 is no last word, and a host that is down comes back: the message waits, but nobody else. */
static void test_what_may_pass_is_waited_for(void **state)
{
    sim_host_set_starttls(mx1, SIM_STARTTLS_REFUSED);
    sim_host_down(mx2);
    send_safely("u@safe.example", SIM_MINUTE);
    assert_int_equal(queued(&f), 1);
    assert_int_equal(sim_host_inbox(sender_mx), 0);
    assert_int_equal(mail_to(&f, "u@safe.example"), 250);
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx1), 1); /* in clear, as any other mail */
    assert_false(sim_host_received(mx1, 0)->tls);
    sim_host_up(mx2);
    sim_world_advance(f.w, SIM_HOUR);
    assert_true(arrived_safely(mx2, 0));
    assert_int_equal(queued(&f), 0);
}

/* Of two MX one cannot, the other is down: it is not returned before that one was asked. */
static void test_not_returned_while_a_host_is_down(void **state)
{
    sim_host_set_requiretls(mx1, false);
    sim_host_down(mx2);
    send_safely("u@safe.example", SIM_MINUTE);
    assert_int_equal(queued(&f), 1);
    assert_int_equal(sim_host_inbox(sender_mx), 0);
    sim_host_set_requiretls(mx2, false);
    sim_host_up(mx2);
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_true(nobody_got_it());
    assert_returned("5.7.30");
}

/* A host that is not good enough for this is good for all else: it is not left alone for it. */
static void test_hosts_are_not_blamed(void **state)
{
    certify(mx1, "mx1.safe.example", false);
    certify(mx2, "mx2.safe.example", false);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(post("u@safe.example", true, ""), 250);
        assert_int_equal(mail_to(&f, "u@safe.example"), 250);
        sim_world_advance(f.w, SIM_SECOND);
        assert_int_equal(sim_host_inbox(mx1), i + 1);
    }
    assert_int_equal(counted(&f, "host_failed"), 0);
    assert_int_equal(counted(&f, "bounced"), 5);
}

/* Connections that stood before are of no use for it, nor are its own for worse. */
static void test_connections_are_kept_apart(void **state)
{
    assert_int_equal(mail_to(&f, "u@safe.example"), 250);
    send_safely("u@safe.example", SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx1), 2);
    assert_int_equal(sim_host_sessions(mx1), 2);
    send_safely("u@safe.example", SIM_SECOND);
    assert_int_equal(sim_host_sessions(mx1), 2); /* its own is taken again */
    assert_true(arrived_safely(mx1, 2));
}

/* The host supports it no more when the mail comes to it: never without it. */
static void test_the_host_unlearns_it(void **state)
{
    sim_host_reply(mx1, SMTP_STAGE_MAIL, 555, STR("5.5.4 what?"));
    send_safely("u@safe.example", SIM_SECOND);
    assert_true(nobody_got_it());
    assert_returned("555");
}

/* ---- routes ----------------------------------------------------------------------------------- */

static struct route *to_host(const char *target, enum route_tls tls)
{
    struct route *r = sim_route_hosts(target, false);
    r->tls = tls;
    return r;
}

/* Named by the operator: no answer of the DNS led there. */
static void test_a_host_that_the_route_names(void **state)
{
    without_dnssec();
    sim_policy_domain(&f.policy, "relay.example", to_host("mx1.safe.example", ROUTE_TLS_NONE));
    send_safely("u@relay.example", SIM_SECOND);
    assert_true(arrived_safely(mx1, 0));
    sim_world_advance(f.w, SIM_MINUTE);
    certify(mx1, "mx2.safe.example", true);
    send_safely("u@relay.example", 10 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx1), 1);
    assert_returned("5.7.10");
}

/* LMTP within the machine is no transport; to another machine it is. */
static void test_lmtp(void **state)
{
    struct sim_host *here = sim_world_host(f.w, "/run/lmtp");
    struct sim_host *there = sim_world_host(f.w, "192.0.2.14:24");
    sim_host_set_lmtp(here, true);
    sim_host_set_lmtp(there, true);
    sim_policy_domain(&f.policy, "here.example",
                      to_host("lmtp:/run/lmtp", ROUTE_TLS_OPPORTUNISTIC));
    sim_policy_domain(&f.policy, "there.example",
                      to_host("lmtp://192.0.2.14:24", ROUTE_TLS_OPPORTUNISTIC));
    send_safely("u@here.example", SIM_SECOND);
    assert_int_equal(sim_host_inbox(here), 1);
    assert_false(sim_host_received(here, 0)->requiretls);
    send_safely("u@there.example", SIM_SECOND);
    assert_int_equal(sim_host_inbox(there), 0);
    assert_returned("5.7.10");
}

/* What the first route cannot, its fallback can. */
static void test_the_fallback_can(void **state)
{
    struct route *both = to_host("mx1.safe.example", ROUTE_TLS_OPPORTUNISTIC);
    both->fallback = to_host("mx2.safe.example", ROUTE_TLS_OPPORTUNISTIC);
    sim_policy_domain(&f.policy, "relay.example", both);
    sim_host_set_requiretls(mx1, false);
    send_safely("u@relay.example", SIM_SECOND);
    assert_true(arrived_safely(mx2, 0));
    sim_world_advance(f.w, SIM_MINUTE);
    sim_host_set_requiretls(mx2, false);
    send_safely("u@relay.example", 10 * SIM_SECOND);
    assert_returned("5.7.30");
}

/* ---- notifications ---------------------------------------------------------------------------- */

/* The way back has all that is demanded: it says REQUIRETLS too (section 5). */
static void test_a_notification_keeps_it(void **state)
{
    sim_dns_set_secure(sim_world_dns(f.w), STR("sender.example"), true);
    good_host("192.0.2.77", "mx.sender.example");
    sim_host_reply(mx1, SMTP_STAGE_RCPT, 550, STR("5.1.1 nobody"));
    send_safely("u@safe.example", SIM_SECOND);
    assert_returned("5.1.1");
    assert_true(arrived_safely(sender_mx, 0));
}

/* It has not: the notification goes all the same, without the parameter. */
static void test_a_notification_is_not_lost(void **state)
{
    sim_host_reply(mx1, SMTP_STAGE_RCPT, 550, STR("5.1.1 nobody"));
    send_safely("u@safe.example", SIM_SECOND);
    assert_returned("5.1.1");
    assert_false(sim_host_received(sender_mx, 0)->requiretls);
}

/* Its TLSA record is all that vouches for the host: its route does not ask for DANE, nor does any other mail there. */
static void test_a_notification_by_dane_alone(void **state)
{
    sim_dns_set_secure(sim_world_dns(f.w), STR("sender.example"), true);
    good_host("192.0.2.77", "mx.sender.example");
    certify(sender_mx, "mx.sender.example", false); /* of no authority */
    sim_world_zone_add(f.w,
                       "_25._tcp.mx.sender.example. TLSA 3 0 0 6d782e73656e6465722e6578616d706c65");
    sim_host_reply(mx1, SMTP_STAGE_RCPT, 550, STR("5.1.1 nobody"));
    send_safely("u@safe.example", SIM_SECOND);
    assert_returned("5.1.1");
    assert_true(arrived_safely(sender_mx, 0));
}

/* That they cannot be asked for now holds back what must be safe, not what only should be. */
static void test_a_notification_does_not_wait_for_tlsa(void **state)
{
    sim_dns_set_secure(sim_world_dns(f.w), STR("sender.example"), true);
    good_host("192.0.2.77", "mx.sender.example");
    sim_dns_fail(sim_world_dns(f.w), STR("_25._tcp.mx.sender.example"), DNS_TLSA, DNS_SERVFAIL);
    sim_host_reply(mx1, SMTP_STAGE_RCPT, 550, STR("5.1.1 nobody"));
    send_safely("u@safe.example", SIM_MINUTE);
    assert_returned("5.1.1");
    assert_true(arrived_safely(sender_mx, 0)); /* by an authority */
}

/* Where DANE does not let it pass it goes by its route's terms, among which is what MTA-STS demands. */
static void test_a_notification_keeps_to_mta_sts(void **state)
{
    sim_dns_set_secure(sim_world_dns(f.w), STR("sender.example"), true);
    good_host("192.0.2.77", "mx.sender.example");
    sim_world_zone_add(f.w, "_25._tcp.mx.sender.example. TLSA 3 0 0 00\n"
                            "_mta-sts.sender.example. TXT \"v=STSv1; id=1;\"\n"
                            "mta-sts.sender.example. A 192.0.2.20");
    sim_https_page(web, "mta-sts.sender.example", POLICY("enforce", "other.sender.example"));
    sim_host_reply(mx1, SMTP_STAGE_RCPT, 550, STR("5.1.1 nobody"));
    send_safely("u@safe.example", SIM_MINUTE);
    assert_int_equal(sim_host_inbox(sender_mx), 0);
    assert_int_equal(queued(&f), 1);
}

static void test_a_notification_to_a_host_with_half_of_it(void **state)
{
    sim_dns_set_secure(sim_world_dns(f.w), STR("sender.example"), true);
    good_host("192.0.2.77", "other.example"); /* another's certificate */
    sim_host_reply(mx1, SMTP_STAGE_RCPT, 550, STR("5.1.1 nobody"));
    send_safely("u@safe.example", SIM_SECOND);
    assert_returned("5.1.1");
    assert_true(sim_host_received(sender_mx, 0)->tls);
    assert_false(sim_host_received(sender_mx, 0)->requiretls);
}

/* ---- TLS-Required: No -------------------------------------------------------------------------- */

static void broken_tls(void)
{
    without_dnssec();
    with_policy(POLICY("enforce", "mx1.safe.example"));
    certify(mx1, "mx1.safe.example", false);
    certify(mx2, "mx2.safe.example", false);
}

/* To tell a postmaster that its certificate is bad (section 3). */
static void test_tls_required_no(void **state)
{
    broken_tls();
    assert_int_equal(mail_to(&f, "u@safe.example"), 250);
    sim_world_advance(f.w, SIM_SECOND);
    assert_true(nobody_got_it());
    assert_int_equal(post("u@safe.example", false, "TLS-Required: No\r\n"), 250);
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx1) + sim_host_inbox(mx2), 1);
    assert_int_equal(queued(&f), 1);
}

/* What the field may not look like; and REQUIRETLS, beside which it means nothing (section 4.1). */
static void test_tls_required_says_something_else(void **state)
{
    static const char *const not_so[] = {
        "TLS-Required: Yes\r\n",
        "TLS-Required: No thanks\r\n",
        "TLS-Required:\r\n",
        "TLS-Required: No\r\nTLS-Required: No\r\n",
        "X-TLS-Required: No\r\n",
        "TLS-RequiredX: No\r\n",
        "TLS-Require: No\r\n",
        "\r\nTLS-Required: No\r\n",
        "Subject: x\r\n TLS-Required: No\r\n",
    };

    broken_tls();
    for (size_t i = 0; i < ARRAY_LEN(not_so); i++) {
        assert_int_equal(post("u@safe.example", false, not_so[i]), 250);
        sim_world_advance(f.w, SIM_SECOND);
        assert_true(nobody_got_it());
    }
    assert_int_equal(post("u@safe.example", true, "TLS-Required: No\r\n"), 250);
    sim_world_advance(f.w, SIM_SECOND);
    assert_true(nobody_got_it());
}

static void test_tls_required_is_written_in_other_ways(void **state)
{
    static const char *const so[] = {
        "tls-required:no\r\n",
        "TLS-REQUIRED :\r\n  nO \r\n",
        "Subject: x\r\nTLS-Required:\tNo\r\nTo: <y@z>\r\n",
    };

    broken_tls();
    for (size_t i = 0; i < ARRAY_LEN(so); i++) {
        assert_int_equal(post("u@safe.example", false, so[i]), 250);
        sim_world_advance(f.w, SIM_SECOND);
        assert_int_equal(sim_host_inbox(mx1) + sim_host_inbox(mx2), i + 1);
    }
}

static void test_tls_required_no_against_dane(void **state)
{
    struct route *r = sim_route_mx("safe.example");
    r->tls = ROUTE_TLS_DANE;
    sim_policy_domain(&f.policy, "safe.example", r);
    sim_world_zone_add(f.w, "_25._tcp.mx1.safe.example. TLSA 3 0 0 6f74686572");
    sim_world_zone_add(f.w, "_25._tcp.mx2.safe.example. TLSA 3 0 0 6f74686572");
    assert_int_equal(mail_to(&f, "u@safe.example"), 250);
    sim_world_advance(f.w, SIM_SECOND);
    assert_true(nobody_got_it());
    assert_int_equal(post("u@safe.example", false, "TLS-Required: No\r\n"), 250);
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx1) + sim_host_inbox(mx2), 1);
}

/* What the operator demands is no policy of the recipients'. */
static void test_tls_required_no_against_the_operator(void **state)
{
    certify(mx1, "mx1.safe.example", false);
    sim_policy_domain(&f.policy, "verified.example", to_host("mx1.safe.example", ROUTE_TLS_VERIFY));
    sim_policy_domain(&f.policy, "required.example",
                      to_host("mx1.safe.example", ROUTE_TLS_REQUIRE));
    assert_int_equal(post("u@verified.example", false, "TLS-Required: No\r\n"), 250);
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx1), 0);
    sim_host_set_starttls(mx1, SIM_STARTTLS_NONE);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(post("u@required.example", false, "TLS-Required: No\r\n"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx1), 0);
    assert_int_equal(queued(&f), 2);
}

/* ---- kept over a restart ------------------------------------------------------------------------ */

static void test_it_is_kept_in_the_spool(void **state)
{
    sim_host_down(mx1);
    sim_host_down(mx2);
    send_safely("u@safe.example", SIM_SECOND);
    assert_int_equal(post("u@safe.example", false, "TLS-Required: No\r\n"), 250);
    sim_world_crash(f.w);
    sim_world_start(f.w);
    sim_host_up(mx1);
    sim_host_set_requiretls(mx1, false);
    sim_host_up(mx2);
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_host_inbox(mx1) + sim_host_inbox(mx2), 2);
    size_t safe = 0;
    for (size_t i = 0; i < sim_host_inbox(mx2); i++)
        safe += arrived_safely(mx2, i);
    assert_int_equal(safe, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_to_hosts_that_dnssec_vouches_for),
        TEST(test_to_hosts_that_mta_sts_vouches_for),
        TEST(test_to_hosts_of_a_policy_in_testing),
        TEST(test_nobody_vouches_for_the_mx),
        TEST(test_the_policy_cannot_be_fetched_now),
        TEST(test_the_record_of_the_policy_cannot_be_asked_for_now),
        TEST(test_a_domain_without_mx),
        TEST(test_the_next_host_supports_it),
        TEST(test_no_host_supports_it),
        TEST(test_no_tls_is_offered),
        TEST(test_quit_is_said_where_tls_is_refused),
        TEST(test_certificates_are_not_good),
        TEST(test_the_handshake_fails),
        TEST(test_dane_is_as_good),
        TEST(test_what_may_pass_is_waited_for),
        TEST(test_not_returned_while_a_host_is_down),
        TEST(test_hosts_are_not_blamed),
        TEST(test_connections_are_kept_apart),
        TEST(test_the_host_unlearns_it),
        TEST(test_a_host_that_the_route_names),
        TEST(test_lmtp),
        TEST(test_the_fallback_can),
        TEST(test_a_notification_keeps_it),
        TEST(test_a_notification_is_not_lost),
        TEST(test_a_notification_by_dane_alone),
        TEST(test_a_notification_does_not_wait_for_tlsa),
        TEST(test_a_notification_keeps_to_mta_sts),
        TEST(test_a_notification_to_a_host_with_half_of_it),
        TEST(test_tls_required_no),
        TEST(test_tls_required_says_something_else),
        TEST(test_tls_required_is_written_in_other_ways),
        TEST(test_tls_required_no_against_dane),
        TEST(test_tls_required_no_against_the_operator),
        TEST(test_it_is_kept_in_the_spool),
    };

    return cmocka_run_group_tests_name("requiretls", tests, NULL, NULL);
}
