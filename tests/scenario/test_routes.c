/* Kinds of routes and targets on the wire: LMTP, IPv6, fallback, balance, source. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fixture.h"

static struct fixture f;

static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

static void route(struct route *r)
{
    sim_policy_domain(&f.policy, "example.com", r);
    fixture_start(&f);
}

/* One reply for each recipient after the dot (RFC 2033): each has its own fate. */
static void test_H8_lmtp(void **state)
{
    struct sim_host *box = sim_world_host(f.w, "192.0.2.5:24");
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    struct sim_rule full = { .stage = SMTP_STAGE_FINAL,
                             .address = STR("full@example.com"),
                             .reply = REPLY(452, ENH(4, 2, 2), "full"),
                             .times = 1 };
    struct sim_rule none = { .stage = SMTP_STAGE_FINAL,
                             .address = STR("none@example.com"),
                             .reply = REPLY(550, ENH(5, 1, 1), "none") };
    struct str to[] = { STR("a@example.com"), STR("full@example.com"), STR("none@example.com") };
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = to,
                          .n_recipients = 3,
                          .content = STR("Subject: x\r\n\r\nhello\r\n") };
    sim_host_set_lmtp(box, true);
    sim_host_add_rule(box, &full);
    sim_host_add_rule(box, &none);
    route(sim_route_hosts("lmtp://192.0.2.5:24", false));
    assert_int_equal(sim_world_send(f.w, &m)->accepted, 3);
    sim_world_advance(f.w, 30 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(box), 1);
    assert_int_equal(sim_host_received(box, 0)->n_recipients, 1);
    assert_int_equal(queued(&f), 1);
    assert_int_equal(got(back, "none@example.com"), 1);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(box), 2);
    assert_true(str_eq(sim_host_received(box, 1)->recipients[0], STR("full@example.com")));
}

/* How many messages the host took for that recipient. */
static size_t times_sent(const struct sim_host *h, const char *recipient)
{
    size_t n = 0;

    for (size_t i = 0; i < sim_host_inbox(h); i++)
        for (size_t k = 0; k < sim_host_received(h, i)->n_recipients; k++)
            n += str_eq(sim_host_received(h, i)->recipients[k], str_of(recipient));
    return n;
}

/* The connection breaks in the middle of the replies: who had his is settled, only the others are sent to again. */
static void test_H8_lmtp_breaks_off_among_the_replies(void **state)
{
    static const enum sim_action ways[] = { SIM_CLOSE, SIM_SILENCE };

    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        teardown(NULL);
        setup(NULL);
        struct sim_host *box = sim_world_host(f.w, "192.0.2.5:24");
        struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
        struct sim_rule none = { .stage = SMTP_STAGE_FINAL,
                                 .address = STR("none@example.com"),
                                 .reply = REPLY(550, ENH(5, 1, 1), "none") };
        struct sim_rule gone = { .stage = SMTP_STAGE_FINAL,
                                 .action = ways[i],
                                 .address = STR("c@example.com"),
                                 .times = 1 };
        struct str to[] = { STR("a@example.com"), STR("none@example.com"), STR("c@example.com"),
                            STR("d@example.com") };
        struct sim_mail m = { .sender = STR("client@sender.example"),
                              .recipients = to,
                              .n_recipients = 4,
                              .content = STR("Subject: x\r\n\r\nhello\r\n") };
        sim_host_set_lmtp(box, true);
        sim_host_add_rule(box, &none);
        sim_host_add_rule(box, &gone);
        route(sim_route_hosts("lmtp://192.0.2.5:24", false));
        assert_int_equal(sim_world_send(f.w, &m)->accepted, 4);
        sim_world_advance(f.w, 3 * SIM_HOUR);
        assert_int_equal(queued(&f), 0);
        assert_int_equal(got(back, "none@example.com"), 1);
        assert_int_equal(sim_host_received(box, 0)->n_recipients, 1);
        assert_int_equal(times_sent(box, "a@example.com"), 1);
        assert_int_equal(times_sent(box, "none@example.com"), 0);
        assert_int_equal(times_sent(box, "c@example.com"), 1);
        assert_int_equal(times_sent(box, "d@example.com"), 1);
    }
}

/* 421 for one of several: whoever is taken behind it does not get the message twice. */
static void test_H8_lmtp_421_for_one_of_several(void **state)
{
    struct sim_host *box = sim_world_host(f.w, "192.0.2.5:24");
    struct sim_rule bye = { .stage = SMTP_STAGE_FINAL,
                            .address = STR("b@example.com"),
                            .reply = REPLY(421, ENH(4, 3, 2), "going down"),
                            .times = 1 };
    struct str to[] = { STR("a@example.com"), STR("b@example.com"), STR("c@example.com") };
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = to,
                          .n_recipients = 3,
                          .content = STR("Subject: x\r\n\r\nhello\r\n") };
    sim_host_set_lmtp(box, true);
    sim_host_add_rule(box, &bye);
    route(sim_route_hosts("lmtp://192.0.2.5:24", false));
    assert_int_equal(sim_world_send(f.w, &m)->accepted, 3);
    sim_world_advance(f.w, 3 * SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_host_inbox(box), 2);
    assert_int_equal(sim_host_received(box, 0)->n_recipients, 2);
    assert_int_equal(sim_host_received(box, 1)->n_recipients, 1);
    assert_true(str_eq(sim_host_received(box, 1)->recipients[0], STR("b@example.com")));
}

/* RFC 5321 section 4.5.3.1.10: 552 for a recipient behind others that were taken is 452 by its old name. */
static void test_H8_552_is_too_many_recipients(void **state)
{
    struct sim_host *box = sim_world_host(f.w, "192.0.2.5");
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    struct sim_rule many = { .stage = SMTP_STAGE_RCPT,
                             .address = STR("b@example.com"),
                             .reply = REPLY(552, ENH_NONE, "too many recipients"),
                             .times = 1 };
    struct sim_rule full = { .stage = SMTP_STAGE_RCPT,
                             .address = STR("full@example.com"),
                             .reply = REPLY(552, ENH(5, 2, 2), "mailbox full") };
    struct str to[] = { STR("a@example.com"), STR("b@example.com"), STR("full@example.com") };
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = to,
                          .n_recipients = 3,
                          .content = STR("Subject: x\r\n\r\nhello\r\n") };
    sim_host_add_rule(box, &many);
    sim_host_add_rule(box, &full);
    route(sim_route_hosts("192.0.2.5", false));
    assert_int_equal(sim_world_send(f.w, &m)->accepted, 3);
    sim_world_advance(f.w, 3 * SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_host_inbox(box), 2);
    assert_int_equal(got(back, "full@example.com"), 1);
    assert_int_equal(got(back, "b@example.com"), 0);
}

static void test_H8_lmtp_by_socket(void **state)
{
    struct sim_host *box = sim_world_host(f.w, "/run/dovecot/lmtp");
    sim_host_set_lmtp(box, true);
    route(sim_route_hosts("lmtp:/run/dovecot/lmtp", false));
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(box), 1);
}

static void test_H8_ipv6(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "[2001:db8::7]:2525");
    route(sim_route_hosts("[2001:db8::7]:2525", false));
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(sim_host_received(mx, 0)->from.family, NET_IPV6);
}

/* H1: a hard route asks nothing of the domain's own DNS. */
static void test_H1_hard_route_asks_nothing(void **state)
{
    struct sim_host *host = sim_world_host(f.w, "192.0.2.3");
    route(sim_route_hosts("192.0.2.3", false));
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(host), 1);
    assert_int_equal(sim_dns_asked(sim_world_dns(f.w), STR("example.com"), 0), 0);
}

/* H4: a target that does not resolve: deferred, with an alarm. */
static void test_H4_target_does_not_resolve(void **state)
{
    struct sim_host *host = sim_world_host(f.w, "192.0.2.3");
    route(sim_route_hosts("box.nowhere.example", false));
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(queued(&f), 1);
    assert_true(counted(&f, "route_alarm") > 0);
    sim_world_zone_add(f.w, "box.nowhere.example. A 192.0.2.3");
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(host), 1);
}

static void test_fallback(void **state)
{
    struct sim_host *first = sim_world_host(f.w, "192.0.2.3");
    struct sim_host *second = sim_world_host(f.w, "192.0.2.4");
    struct route *r = sim_route_hosts("192.0.2.3:25", false);
    r->fallback = sim_route_hosts("192.0.2.4:25", false);
    route(r);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    sim_host_down(first);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(first), 1);
    assert_int_equal(sim_host_inbox(second), 1);
    sim_host_down(second);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(queued(&f), 1);
    sim_host_up(first);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(first), 2);
}

static void test_S4_round_robin(void **state)
{
    struct sim_host *a = sim_world_host(f.w, "192.0.2.3");
    struct sim_host *b = sim_world_host(f.w, "192.0.2.4");
    struct route *r = sim_route_hosts("192.0.2.3:25, 192.0.2.4:25", false);
    r->balance = ROUTE_ROUND_ROBIN;
    f.settings->queue.idle_ms = 1;
    route(r);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(mail_to(&f, "u@example.com"), 250);
        sim_world_advance(f.w, SIM_SECOND);
    }
    assert_in_range(sim_host_inbox(a), 7, 13);
    assert_int_equal(sim_host_inbox(a) + sim_host_inbox(b), 20);
}

static void test_source(void **state)
{
    struct sim_host *host = sim_world_host(f.w, "192.0.2.3");
    struct route *r = sim_route_hosts("192.0.2.3:25", false);
    r->source = STR("198.51.100.99");
    route(r);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    struct net_addr expected = sim_addr("198.51.100.99");
    assert_int_equal(sim_host_inbox(host), 1);
    assert_true(net_addr_same_ip(&sim_host_received(host, 0)->from, &expected));
}

static void test_bounce_and_discard(void **state)
{
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    sim_policy_domain(&f.policy, "closed.example", sim_route_bounce(550, "5.1.6 it has moved"));
    sim_policy_domain(&f.policy, "hole.example", sim_route_discard());
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@hole.example"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(sim_host_inbox(back), 0);
    int code = mail_to(&f, "u@closed.example");
    sim_world_advance(f.w, SIM_MINUTE);
    assert_true(code == 550 || got(back, "it has moved") == 1);
    assert_int_equal(queued(&f), 0);
}

/* Q11: what a host cannot take is not sent to it. */
static void test_Q11_eight_bit(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    struct str to = STR("u@example.com");
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = &to,
                          .n_recipients = 1,
                          .eight_bit = true,
                          .content = STR("Subject: x\r\n\r\ngr\xc3\xbc\xc3\x9f\x65\r\n") };
    fixture_start(&f);
    assert_int_equal(sim_world_send(f.w, &m)->reply.code, 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
    sim_host_hide(mx, STR("8BITMIME"));
    assert_int_equal(sim_world_send(f.w, &m)->reply.code, 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 2); /* converted */
    assert_true(str_is_ascii(sim_host_received(mx, 1)->content));
    assert_true(str_find(sim_host_received(mx, 1)->content,
                         STR("Content-Transfer-Encoding: quoted-printable\r\n")) > 0);
    assert_int_equal(sim_host_inbox(back), 0);
    assert_int_equal(queued(&f), 0);
}

static void test_too_large_for_the_host(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    sim_host_set_size_limit(mx, 50);
    fixture_start(&f);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 0);
    assert_int_equal(got(back, "5.3.4"), 1);
    assert_int_equal(queued(&f), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_H8_lmtp, setup, teardown),
        cmocka_unit_test_setup_teardown(test_H8_lmtp_by_socket, setup, teardown),
        cmocka_unit_test_setup_teardown(test_H8_lmtp_breaks_off_among_the_replies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_H8_lmtp_421_for_one_of_several, setup, teardown),
        cmocka_unit_test_setup_teardown(test_H8_552_is_too_many_recipients, setup, teardown),
        cmocka_unit_test_setup_teardown(test_H8_ipv6, setup, teardown),
        cmocka_unit_test_setup_teardown(test_H1_hard_route_asks_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_H4_target_does_not_resolve, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fallback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_S4_round_robin, setup, teardown),
        cmocka_unit_test_setup_teardown(test_source, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounce_and_discard, setup, teardown),
        cmocka_unit_test_setup_teardown(test_Q11_eight_bit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_large_for_the_host, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
