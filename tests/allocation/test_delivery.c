/* Memory runs out while mail is delivered: from the queue after a start, by MX, in TLS, several recipients in one
 * pipelined transaction of which one is deferred and one refused; a host that is down at first; notifications of failure
 * and of success; a smart host with AUTH; another policy, so that routes are asked for again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "starved.h"

static void send_with(struct smtp_dsn_mail dsn, struct smtp_dsn_rcpt rcpt, const char *domain,
                      size_t n, struct str content)
{
    static struct str to[4];
    static char text[4][64];
    struct smtp_dsn_rcpt each[4] = { rcpt, rcpt, rcpt, rcpt };
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = to,
                          .n_recipients = n,
                          .content = content,
                          .eight_bit = true,
                          .dsn = dsn,
                          .rcpt_dsn = each };

    for (size_t i = 0; i < n; i++) {
        snprintf(text[i], sizeof text[i], "r%zu@%s", ledger.n, domain);
        to[i] = str_of(text[i]);
        ledger.r[ledger.n++].acked = true;
    }
    const struct sim_outcome *out = sim_world_send(f.w, &m);
    assert_int_equal(out->reply.code, 250);
    assert_int_equal(out->accepted, n);
}

#define PLAIN STR("Subject: x\r\n\r\nhello\r\n")

static struct smtp_dsn_mail nothing;
static struct smtp_dsn_rcpt nobody;

/* Nothing leaves before it is in the spool, and nothing else. */
static void start_anew(void)
{
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
    sim_host_up(host_a);
    sim_host_up(host_b);
    sim_host_up(host_c);
    sim_world_start(f.w);
}

static void all_down(void)
{
    sim_host_down(host_a);
    sim_host_down(host_b);
    sim_host_down(host_c);
}

static void rule(struct sim_host *h, enum smtp_stage stage, const char *address, uint16_t code,
                 uint32_t times)
{
    struct sim_rule r = { .stage = stage,
                          .address = str_of(address),
                          .reply = { .code = code, .text = STR("so it is") },
                          .times = times };

    sim_host_add_rule(h, &r);
}

/* ---- one transaction -------------------------------------------------------------------------- */

static void begin_mixed(void)
{
    sim_host_set_starttls(host_a, SIM_STARTTLS_OFFERED);
    all_down();
}

static void started_mixed(void)
{
    struct smtp_dsn_mail dsn = { .ret = SMTP_RET_HDRS, .envid = STR("id1") };
    struct smtp_dsn_rcpt rcpt = { .notify = SMTP_NOTIFY_SUCCESS | SMTP_NOTIFY_FAILURE,
                                  .orcpt = STR("rfc822;old@old.example") };

    send_with(dsn, rcpt, "a.example", 3, PLAIN);
    start_anew();
    rule(host_a, SMTP_STAGE_RCPT, "r1@a.example", 450, 1);
    rule(host_a, SMTP_STAGE_RCPT, "r2@a.example", 550, 0);
}

static void act_hour(void)
{
    sim_world_advance(f.w, SIM_HOUR);
}

/* Told is who was to be told, and what the host should tell is asked of it. */
static void look_mixed(const struct ledger_sum *sum)
{
    assert_int_equal(sum->bounced, 1);
    for (size_t i = 0; i < sim_host_inbox(host_a); i++) {
        const struct sim_received *m = sim_host_received(host_a, i);
        if (m->sender.n == 0 || !str_starts(m->recipients[0], STR("r0@")))
            continue;
        assert_true(str_eq(m->dsn, STR("RET=HDRS ENVID=id1")));
        assert_true(
            str_eq(m->rcpt_dsn[0], STR("NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;old@old.example")));
    }
    for (size_t i = 0; i < sim_host_inbox(back); i++) {
        struct str text = sim_host_received(back, i)->content;
        assert_true(str_find(text, STR("Original-Envelope-Id: id1")) > 0);
        assert_true(str_find(text, STR("Original-Recipient: rfc822; old@old.example")) > 0);
        assert_true(str_find(text, STR("Diagnostic-Code: smtp; 550")) > 0);
        assert_true(str_find(text, STR("Subject: x")) > 0);
    }
}

static void test_mixed(void **state)
{
    static const struct starved_case c = { .name = "mixed",
                                           .begin = begin_mixed,
                                           .started = started_mixed,
                                           .act = act_hour,
                                           .look = look_mixed };

    starved_each(&c);
    starved_spells(&c, 4, 2);
    starved_spells(&c, 4, 25);
    starved_by_chance(&c, 30, 20000);
    starved_by_chance(&c, 15, 200000);
}

/* ---- several queues --------------------------------------------------------------------------- */

static void begin_queues(void)
{
    sim_host_hide(host_c, STR("DSN"));
    sim_host_hide(host_c, STR("8BITMIME"));
    all_down();
}

static void started_queues(void)
{
    struct smtp_dsn_rcpt success = { .notify = SMTP_NOTIFY_SUCCESS };
    struct str eight = STR("Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; "
                           "charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
                           "Gr\xc3\xbc\xc3\x9f\x65\r\n");

    send_with(nothing, nobody, "a.example", 1, PLAIN);
    send_with(nothing, nobody, "a.example", 1, PLAIN);
    send_with(nothing, nobody, "b.example", 1, PLAIN);
    send_with(nothing, success, "c.example", 1, eight);
    start_anew();
    sim_host_down(host_b);
    rule(host_a, SMTP_STAGE_FINAL, "", 451, 1);
}

static void act_queues(void)
{
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    sim_host_up(host_b);
    sim_world_advance(f.w, SIM_HOUR);
}

static void recover_queues(void)
{
    sim_host_up(host_b);
}

static void test_queues(void **state)
{
    static const struct starved_case c = { .name = "queues",
                                           .begin = begin_queues,
                                           .started = started_queues,
                                           .act = act_queues,
                                           .recover = recover_queues };

    starved_each(&c);
    starved_by_chance(&c, 20, 10000);
}

/* ---- a smart host, and other policies --------------------------------------------------------- */

static void begin_smart(void)
{
    struct route *r = route_new(ROUTE_HOSTS);

    assert_non_null(r);
    sim_host_set_starttls(host_c, SIM_STARTTLS_OFFERED);
    sim_host_add_user(host_c, STR("ana"), STR("secret"));
    struct str name = sim_policy_credentials(&f.policy, "ana", "secret");
    r->targets = ARENA_ARRAY(&r->arena, struct route_target, ROUTE_MAX_TARGETS);
    assert_int_equal(route_target_parse(&r->arena, STR(HOST_C ":587"), false, &r->targets[0]), 0);
    r->n_targets = 1;
    r->auth = arena_str(&r->arena, name);
    assert_int_equal(route_finish(r), 0);
    sim_policy_domain(&f.policy, "c.example", r);
    all_down();
}

static void started_smart(void)
{
    send_with(nothing, nobody, "c.example", 1, PLAIN);
    send_with(nothing, nobody, "a.example", 1, PLAIN);
    start_anew();
    /* A policy that was not there when they came. */
    struct settings *s = fixture_settings();
    s->fingerprint = 2;
    sim_policy_domain(&f.policy, "a.example", sim_route_hosts(HOST_B, false));
    sim_world_configure(f.w, s, sim_policy_hooks, &f.policy);
    settings_unref(s);
    sim_world_reload(f.w);
}

static void look_smart(const struct ledger_sum *sum)
{
    for (size_t i = 0; i < sim_host_inbox(host_c); i++)
        assert_true(str_eq(sim_host_received(host_c, i)->identity, STR("ana")));
}

static void test_smart(void **state)
{
    static const struct starved_case c = { .name = "smart",
                                           .begin = begin_smart,
                                           .started = started_smart,
                                           .act = act_hour,
                                           .look = look_smart };

    starved_each(&c);
    starved_by_chance(&c, 20, 20000);
}

#define T(test) cmocka_unit_test_teardown(test, starved_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = { T(test_mixed), T(test_queues), T(test_smart) };

    allocation_init();
    return cmocka_run_group_tests_name("allocations of deliveries", tests, NULL, NULL);
}
