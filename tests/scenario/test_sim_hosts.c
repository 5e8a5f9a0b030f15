/* Simulated DNS, hosts and clients, without an engine in between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sim/client.h"
#include "sim/dns.h"
#include "sim/host.h"

static struct sim_clock clk;
static struct sim_net *net;

static int setup(void **state)
{
    sim_clock_init(&clk);
    net = sim_net_new(&clk, 7);
    return 0;
}

static int teardown(void **state)
{
    sim_net_free(net);
    sim_clock_done(&clk);
    return 0;
}

static void run(int64_t ms)
{
    int64_t until = clk.now + ms;
    while (sim_clock_turn(&clk, until))
        ;
    sim_clock_pass(&clk, until);
}

static struct net_addr addr(const char *text)
{
    struct net_addr a;
    assert_int_equal(net_addr_parse(str_of(text), 0, &a), 0);
    return a;
}

/* ---- DNS -------------------------------------------------------------------------------------- */

static struct dns_answer *answer;

static void answered(void *owner, const struct dns_answer *a)
{
    answer = dns_answer_ref((struct dns_answer *)a);
}

static const struct dns_answer *ask(struct sim_dns *d, const char *name, enum dns_type type)
{
    struct port_dns *port = sim_dns_port(d);
    answer = dns_answer_unref(answer);
    port->query(port, str_of(name), type, answered, NULL);
    assert_null(answer);
    run(20000);
    assert_non_null(answer);
    return answer;
}

static void test_dns(void **state)
{
    char why[128] = "";
    struct sim_dns *d = sim_dns_new(&clk);
    assert_int_equal(sim_dns_add(d,
                                 STR("; a zone\n"
                                     "Example.COM. 600 IN MX 20 MX2.example.com.\n"
                                     "example.com MX 10 mx1.example.com.\n"
                                     "mx1.example.com. A 192.0.2.1 ; first\n"
                                     "mx1.example.com. A 192.0.2.2\n"
                                     "mx1.example.com. AAAA 2001:db8::1\n"
                                     "null.example. MX 0 .\n"
                                     "alias.example. CNAME one.example.\n"
                                     "one.example. CNAME mx1.example.com.\n"
                                     "loop.example. CNAME loop.example.\n"
                                     "*.wild.example. A 192.0.2.9\n"
                                     "t.example. TXT \"a b; c\" d\n"),
                                 why, sizeof why),
                     0);
    const struct dns_answer *a = ask(d, "EXAMPLE.com.", DNS_MX);
    assert_int_equal(a->status, DNS_OK);
    assert_int_equal(a->n, 2);
    assert_int_equal(a->records[0].preference, 20);
    assert_true(str_eq(a->records[0].name, STR("mx2.example.com")));
    assert_int_equal(ask(d, "mx1.example.com", DNS_A)->n, 2);
    assert_int_equal(ask(d, "mx1.example.com", DNS_MX)->status, DNS_NODATA);
    assert_int_equal(ask(d, "example", DNS_A)->status, DNS_NODATA); /* has names below */
    assert_int_equal(ask(d, "no.such.name", DNS_A)->status, DNS_NXDOMAIN);
    a = ask(d, "null.example", DNS_MX);
    assert_int_equal(a->n, 1);
    assert_int_equal(a->records[0].name.n, 0);
    a = ask(d, "alias.example", DNS_A);
    assert_int_equal(a->n, 2);
    assert_true(str_eq(a->canonical, STR("mx1.example.com")));
    assert_true(str_eq(a->question, STR("alias.example")));
    assert_int_equal(ask(d, "loop.example", DNS_A)->status, DNS_SERVFAIL);
    assert_int_equal(ask(d, "x.y.wild.example", DNS_A)->status, DNS_OK);
    assert_true(str_eq(ask(d, "t.example", DNS_TXT)->records[0].name, STR("a b; cd")));
    sim_dns_fail(d, STR("example.com"), DNS_MX, DNS_SERVFAIL);
    assert_int_equal(ask(d, "example.com", DNS_MX)->status, DNS_SERVFAIL);
    sim_dns_fail(d, STR("*"), 0, DNS_TIMEOUT);
    assert_int_equal(ask(d, "mx1.example.com", DNS_A)->status, DNS_TIMEOUT);
    sim_dns_fail(d, STR("*"), 0, DNS_OK);
    sim_dns_fail(d, STR("example.com"), DNS_MX, DNS_OK);
    assert_int_equal(ask(d, "example.com", DNS_MX)->status, DNS_OK);
    assert_int_equal(sim_dns_asked(d, STR("example.com."), DNS_MX), 3);
    assert_int_equal(sim_dns_asked(d, STR("example.com"), DNS_A), 0);
    assert_int_equal(
        sim_dns_add(d, STR("a.example. A 192.0.2.1\nb.example. MX ten x."), why, sizeof why),
        -EINVAL);
    assert_string_equal(why, "line 2: a number is missing or too large: b.example. MX ten x.");
    assert_int_equal(ask(d, "a.example", DNS_A)->status, DNS_NXDOMAIN);
    answer = dns_answer_unref(answer);
    sim_dns_free(d);
}

/* ---- hosts ------------------------------------------------------------------------------------ */

static struct sim_client *send_to(const char *to, struct str recipient)
{
    struct sim_mail m = { .to = addr(to),
                          .from = addr("203.0.113.9"),
                          .sender = STR("a@b.example"),
                          .recipients = &recipient,
                          .n_recipients = 1,
                          .content = STR("Subject: x\r\n\r\n.hello\r\n"),
                          .starttls = true };
    struct sim_client *c = sim_client_send(&clk, net, &m, NULL, NULL);
    run(3600000);
    assert_true(sim_client_outcome(c)->done);
    return c;
}

static int code_of(const char *to, struct str recipient, enum smtp_stage *ret_stage)
{
    struct sim_client *c = send_to(to, recipient);
    int code = sim_client_outcome(c)->reply.code;
    *ret_stage = sim_client_outcome(c)->stage;
    sim_client_free(c);
    return code;
}

static void test_host_takes_mail(void **state)
{
    struct net_addr at = addr("192.0.2.1");
    struct sim_host *h = sim_host_new(&clk, net, &at, STR("mx.example.com"));
    enum smtp_stage stage;
    assert_int_equal(code_of("192.0.2.1:25", STR("u@example.com"), &stage), 250);
    assert_int_equal(stage, SMTP_STAGE_FINAL);
    assert_int_equal(sim_host_inbox(h), 1);
    const struct sim_received *r = sim_host_received(h, 0);
    assert_true(str_eq(r->sender, STR("a@b.example")));
    assert_true(str_eq(r->recipients[0], STR("u@example.com")));
    assert_true(str_eq(r->content, STR("Subject: x\r\n\r\n.hello\r\n")));
    assert_int_equal(sim_host_open(h), 0);
    sim_host_down(h);
    assert_int_equal(code_of("192.0.2.1:25", STR("u@example.com"), &stage), 0);
    sim_host_up(h);
    sim_host_set_starttls(h, SIM_STARTTLS_OFFERED);
    assert_int_equal(code_of("192.0.2.1:25", STR("u@example.com"), &stage), 250);
    assert_true(sim_host_received(h, 1)->tls);
    sim_host_set_starttls(h, SIM_STARTTLS_BROKEN);
    assert_int_equal(code_of("192.0.2.1:25", STR("u@example.com"), &stage), 0);
    assert_int_equal(sim_host_inbox(h), 2);
    sim_host_free(h);
}

static void test_host_rules(void **state)
{
    static const enum smtp_stage stages[] = {
        SMTP_STAGE_GREETING, SMTP_STAGE_HELO, SMTP_STAGE_MAIL,
        SMTP_STAGE_RCPT,     SMTP_STAGE_DATA, SMTP_STAGE_FINAL
    };
    struct net_addr at = addr("192.0.2.1:25");
    struct sim_host *h = sim_host_new(&clk, net, &at, STR("mx.example.com"));
    enum smtp_stage stage;
    for (size_t i = 0; i < ARRAY_LEN(stages); i++) {
        sim_host_reply(h, stages[i], 451, STR("not now"));
        assert_int_equal(code_of("192.0.2.1:25", STR("u@example.com"), &stage), 451);
        assert_int_equal(stage, stages[i]);
        sim_host_clear_rules(h);
        struct sim_rule close_once = { .stage = stages[i], .action = SIM_CLOSE, .times = 1 };
        sim_host_add_rule(h, &close_once);
        assert_int_equal(code_of("192.0.2.1:25", STR("u@example.com"), &stage), 0);
        assert_int_equal(stage, stages[i]);
        assert_int_equal(code_of("192.0.2.1:25", STR("u@example.com"), &stage), 250);
        sim_host_clear_rules(h);
    }
    sim_host_forget(h);
    struct sim_rule taken = { .stage = SMTP_STAGE_FINAL, .action = SIM_RESET, .taken = true };
    sim_host_add_rule(h, &taken);
    assert_int_equal(code_of("192.0.2.1:25", STR("u@example.com"), &stage), 0);
    assert_int_equal(sim_host_inbox(h), 1);
    sim_host_clear_rules(h);
    struct sim_rule who = { .stage = SMTP_STAGE_RCPT,
                            .address = STR("@other.example"),
                            .reply = REPLY(550, ENH(5, 1, 1), "no") };
    sim_host_add_rule(h, &who);
    assert_int_equal(code_of("192.0.2.1:25", STR("u@Other.example"), &stage), 550);
    assert_int_equal(code_of("192.0.2.1:25", STR("u@example.com"), &stage), 250);
    sim_host_set_delay(h, 1000);
    int64_t before = clk.now;
    struct sim_client *c = send_to("192.0.2.1:25", STR("u@example.com"));
    assert_true(sim_client_outcome(c)->took_ms >= 6000 && clk.now > before);
    sim_client_free(c);
    sim_host_free(h);
}

static void test_host_without_extensions(void **state)
{
    struct net_addr at = addr("192.0.2.1:25"), from = addr("203.0.113.9");
    struct sim_host *h = sim_host_new(&clk, net, &at, STR("mx.example.com"));
    struct smtp_reply reply;
    sim_host_hide(h, STR("8BITMIME"));
    sim_host_hide(h, STR("PIPELINING"));
    struct sim_session *s = sim_session_open(&clk, net, &at, &from);
    run(100);
    assert_true(sim_session_reply(s, &reply));
    assert_int_equal(reply.code, 220);
    sim_session_write(s, STR("EHLO me.example\r\n"));
    run(100);
    assert_true(sim_session_reply(s, &reply));
    assert_int_equal(reply.code, 250);
    assert_true(str_find(reply.text, STR("8BITMIME")) < 0);
    assert_true(str_find(reply.text, STR("PIPELINING")) < 0);
    assert_true(str_find(reply.text, STR("SIZE")) >= 0);
    sim_session_close(s);
    run(100);
    sim_host_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_dns, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host_takes_mail, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host_rules, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host_without_extensions, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
