/* LIMITS (RFC 9422): a host says how much it takes in a transaction and in a session, and gets no more; nothing is lost,
 * sent twice, or held up for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fixture.h"

static struct fixture f;
static struct sim_host *mx, *relay;

static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    mx = sim_world_host(f.w, "192.0.2.1");
    relay = sim_world_host(f.w, "192.0.2.30");
    sim_policy_domain(&f.policy, "a.example", sim_route_hosts("192.0.2.30", false));
    sim_policy_domain(&f.policy, "b.example", sim_route_hosts("192.0.2.30", false));
    sim_policy_domain(&f.policy, "c.example", sim_route_hosts("192.0.2.30", false));
    fixture_start(&f);
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

static void limits(struct sim_host *h, uint32_t rcpt, uint32_t mail, uint32_t domain)
{
    struct smtp_limits l = { .rcptmax = rcpt, .mailmax = mail, .rcptdomainmax = domain };
    sim_host_set_limits(h, &l);
}

/* u0@, u1@... of the domains in turn. */
static void send_to(size_t n, const char *const *domains, size_t n_domains)
{
    enum { MOST = 250 };
    static char text[MOST][64];
    struct str to[MOST];
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = to,
                          .n_recipients = n,
                          .content = STR("Subject: x\r\n\r\nhello\r\n") };
    assert_true(n <= MOST);
    for (size_t i = 0; i < n; i++) {
        snprintf(text[i], sizeof(text[i]), "u%zu@%s", i, domains[i % n_domains]);
        to[i] = str_of(text[i]);
    }
    assert_int_equal(sim_world_send(f.w, &m)->reply.code, 250);
}

static void send_to_domain(size_t n, const char *domain)
{
    send_to(n, &domain, 1);
}

static size_t most_recipients(const struct sim_host *h)
{
    size_t most = 0;
    for (size_t i = 0; i < sim_host_inbox(h); i++)
        most = MAX(most, sim_host_received(h, i)->n_recipients);
    return most;
}

static size_t times(const struct sim_host *h, struct str address)
{
    size_t n = 0;
    for (size_t i = 0; i < sim_host_inbox(h); i++)
        for (size_t k = 0; k < sim_host_received(h, i)->n_recipients; k++)
            n += str_eq(sim_host_received(h, i)->recipients[k], address);
    return n;
}

static void assert_each_once(const struct sim_host *h, size_t n, const char *const *domains,
                             size_t n_domains)
{
    char address[64];
    for (size_t i = 0; i < n; i++) {
        snprintf(address, sizeof(address), "u%zu@%s", i, domains[i % n_domains]);
        assert_int_equal(times(h, str_of(address)), 1);
    }
}

static bool all_gone(void *arg)
{
    return queued(&f) == 0;
}

static void until_all_gone(int64_t within_ms)
{
    assert_true(sim_world_until(f.w, all_gone, NULL, within_ms));
    sim_world_advance(f.w, 100); /* and told */
}

/* ---- RCPTMAX ---------------------------------------------------------------------------------- */

static void test_recipients_go_in_several_transactions(void **state)
{
    const char *domain = "example.com";
    limits(mx, 3, 0, 0);
    send_to_domain(10, domain);
    until_all_gone(SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 4);
    assert_int_equal(most_recipients(mx), 3);
    assert_each_once(mx, 10, &domain, 1);
    assert_int_equal(sim_host_over_limits(mx), 0);
    assert_int_equal(sim_host_sessions(mx), 1); /* one after another over the same connection */
    assert_int_equal(counted(&f, "delivered"), 10);
    assert_int_equal(counted(&f, "deferred") + counted(&f, "host_failed"), 0);
}

static void test_one_at_a_time_of_many(void **state)
{
    const char *domain = "example.com";
    limits(mx, 1, 0, 0);
    send_to_domain(120, domain); /* more than our own transactions take */
    until_all_gone(5 * SIM_MINUTE);
    assert_each_once(mx, 120, &domain, 1);
    assert_int_equal(most_recipients(mx), 1);
    assert_int_equal(sim_host_over_limits(mx), 0);
}

/* Refused ones count as much as others, and each has its own fate. */
static void test_each_has_its_own_result(void **state)
{
    struct sim_rule no = { .stage = SMTP_STAGE_RCPT,
                           .address = STR("u1@example.com"),
                           .reply = REPLY(550, ENH(5, 1, 1), "no") };
    struct sim_rule later = { .stage = SMTP_STAGE_RCPT,
                              .address = STR("u4@example.com"),
                              .times = 1,
                              .reply = REPLY(450, ENH(4, 2, 1), "later") };
    sim_host_add_rule(mx, &no);
    sim_host_add_rule(mx, &later);
    limits(mx, 2, 0, 0);
    send_to_domain(6, "example.com");
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(queued(&f), 1);
    assert_int_equal(counted(&f, "bounced"), 1);
    assert_int_equal(counted(&f, "deferred"), 1);
    until_all_gone(SIM_HOUR);
    assert_int_equal(sim_host_over_limits(mx), 0);
    assert_int_equal(times(mx, STR("u1@example.com")), 0);
    assert_int_equal(times(mx, STR("u4@example.com")), 1);
    assert_int_equal(times(mx, STR("u5@example.com")), 1);
}

/* The machine stops between two of the transactions: what was delivered is not delivered again. */
static void test_a_crash_between_them(void **state)
{
    const char *domain = "example.com";
    limits(mx, 2, 0, 0);
    sim_host_set_delay(mx, 200);
    send_to_domain(9, domain);
    sim_world_advance(f.w, 3 * SIM_SECOND);
    size_t left = queued(&f);
    assert_true(left > 0 && left < 9);
    sim_world_crash(f.w);
    sim_world_start(f.w);
    until_all_gone(SIM_HOUR);
    assert_true(most_recipients(mx) <= 2);
    for (size_t i = 0; i < 9; i++) {
        char address[64];
        snprintf(address, sizeof(address), "u%zu@%s", i, domain);
        assert_true(times(mx, str_of(address)) >= 1);
    }
    assert_int_equal(sim_host_over_limits(mx), 0);
}

static void test_lmtp_is_limited_too(void **state)
{
    const char *domain = "box.example";
    struct sim_host *h = sim_world_host(f.w, "/run/lmtp");
    sim_host_set_lmtp(h, true);
    sim_policy_domain(&f.policy, domain, sim_route_hosts("lmtp:/run/lmtp", false));
    limits(h, 2, 0, 0);
    send_to_domain(5, domain);
    until_all_gone(SIM_MINUTE);
    assert_each_once(h, 5, &domain, 1);
    assert_int_equal(sim_host_over_limits(h), 0);
}

/* ---- MAILMAX ---------------------------------------------------------------------------------- */

static void test_a_new_connection_after_so_many(void **state)
{
    limits(mx, 0, 2, 0);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(mail_to(&f, "u@example.com"), 250);
        sim_world_advance(f.w, 100);
    }
    until_all_gone(SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 6);
    assert_int_equal(sim_host_sessions(mx), 3);
    assert_int_equal(sim_host_over_limits(mx), 0);
}

/* A MAIL that was refused is one. */
static void test_refused_messages_count(void **state)
{
    struct sim_rule later = { .stage = SMTP_STAGE_MAIL,
                              .times = 1,
                              .reply = REPLY(451, ENH(4, 3, 0), "later") };
    sim_host_add_rule(mx, &later);
    limits(mx, 0, 2, 0);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(mail_to(&f, "u@example.com"), 250);
        sim_world_advance(f.w, 100);
    }
    assert_int_equal(sim_host_inbox(mx), 2);
    assert_int_equal(sim_host_sessions(mx), 2);
    until_all_gone(SIM_HOUR);
    assert_int_equal(sim_host_over_limits(mx), 0);
}

static void test_a_transaction_for_each_connection(void **state)
{
    const char *domain = "example.com";
    limits(mx, 2, 1, 1);
    send_to_domain(7, domain);
    until_all_gone(SIM_MINUTE);
    assert_each_once(mx, 7, &domain, 1);
    assert_int_equal(sim_host_sessions(mx), 4);
    assert_int_equal(sim_host_over_limits(mx), 0);
}

/* ---- RCPTDOMAINMAX ---------------------------------------------------------------------------- */

static void test_domains_are_parted(void **state)
{
    static const char *const domains[] = { "a.example", "b.example", "c.example" };
    limits(relay, 0, 0, 2);
    send_to(9, domains, 3);
    until_all_gone(SIM_MINUTE);
    assert_each_once(relay, 9, domains, 3);
    assert_int_equal(sim_host_over_limits(relay), 0);
    assert_int_equal(sim_host_inbox(relay), 2);
    assert_int_equal(sim_host_sessions(relay), 2);
}

/* It counts over the whole session: the connection is kept for the same domain, and for no other. */
static void test_a_connection_for_each_domain(void **state)
{
    limits(relay, 0, 0, 1);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(mail_to(&f, "u@a.example"), 250);
        sim_world_advance(f.w, 100);
        assert_int_equal(mail_to(&f, "u@b.example"), 250);
        sim_world_advance(f.w, 100);
    }
    until_all_gone(SIM_MINUTE);
    assert_int_equal(sim_host_inbox(relay), 6);
    assert_int_equal(sim_host_sessions(relay), 2);
    assert_int_equal(sim_host_over_limits(relay), 0);
}

/* ---- all together, and what is told in clear ---------------------------------------------------- */

static void test_all_of_them(void **state)
{
    static const char *const domains[] = { "a.example", "b.example", "c.example" };
    limits(relay, 4, 3, 2);
    for (size_t i = 0; i < 4; i++)
        send_to(20, domains, 3);
    until_all_gone(5 * SIM_MINUTE);
    assert_int_equal(sim_host_over_limits(relay), 0);
    assert_int_equal(counted(&f, "delivered"), 80);
    assert_int_equal(times(relay, STR("u19@b.example")), 4);
}

static void test_a_host_with_tls(void **state)
{
    sim_host_set_starttls(mx, SIM_STARTTLS_OFFERED);
    limits(mx, 2, 0, 0);
    send_to_domain(4, "example.com");
    until_all_gone(SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 2);
    assert_true(sim_host_received(mx, 0)->tls);
    assert_int_equal(sim_host_over_limits(mx), 0);
}

/* ---- as a server ------------------------------------------------------------------------------ */

static void test_what_we_tell(void **state)
{
    struct sim_session *s = sim_world_session(f.w, NULL);
    struct smtp_reply r = sim_world_line(f.w, s, "EHLO c.example");
    assert_true(str_find(r.text, STR("LIMITS RCPTMAX=1000")) > 0);
    assert_true(str_find(r.text, STR("MAILMAX")) < 0);
    sim_session_close(s);
}

static void test_messages_of_one_session(void **state)
{
    struct settings *set = fixture_settings();
    set->limits.recipients = 200;
    set->limits.messages = 2;
    sim_world_configure(f.w, set, sim_policy_hooks, &f.policy);
    settings_unref(set);
    sim_world_reload(f.w);
    struct sim_session *s = sim_world_session(f.w, NULL);
    struct smtp_reply r = sim_world_line(f.w, s, "EHLO c.example");
    assert_true(str_find(r.text, STR("LIMITS RCPTMAX=200 MAILMAX=2")) > 0);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(sim_world_line(f.w, s, "MAIL FROM:<a@sender.example>").code, 250);
        assert_int_equal(sim_world_line(f.w, s, "RSET").code, 250);
    }
    assert_int_equal(sim_world_line(f.w, s, "MAIL FROM:<a@sender.example>").code, 421);
    assert_int_equal(sim_world_line(f.w, s, "NOOP").code, 0); /* closed */
    sim_session_close(s);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_recipients_go_in_several_transactions),
        TEST(test_one_at_a_time_of_many),
        TEST(test_each_has_its_own_result),
        TEST(test_a_crash_between_them),
        TEST(test_lmtp_is_limited_too),
        TEST(test_a_new_connection_after_so_many),
        TEST(test_refused_messages_count),
        TEST(test_a_transaction_for_each_connection),
        TEST(test_domains_are_parted),
        TEST(test_a_connection_for_each_domain),
        TEST(test_all_of_them),
        TEST(test_a_host_with_tls),
        TEST(test_what_we_tell),
        TEST(test_messages_of_one_session),
    };

    return cmocka_run_group_tests_name("smtp_limits", tests, NULL, NULL);
}
