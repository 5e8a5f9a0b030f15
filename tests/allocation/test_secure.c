/* Memory runs out while it is found out how a host is to be spoken to: what a domain demands (DANE, MTA-STS) holds all
 * the same. The hosts below cannot keep what was promised for them, so nothing may reach them while it lasts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "starved.h"

#define SITE "mta-sts.b.example"

static size_t before;

static void send_to(const char *domain)
{
    const char *const domains[] = { domain };

    ledger_send(&ledger, domains, 1, true);
}

static void start_anew(void)
{
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
    sim_world_start(f.w);
}

static void act_hour(void)
{
    sim_world_advance(f.w, SIM_HOUR);
}

/* ---- DANE ------------------------------------------------------------------------------------- */

static void begin_dane(void)
{
    /* The octets of a certificate here are its name: mx.a.example. */
    sim_world_zone_add(f.w, "_25._tcp.mx.a.example. TLSA 3 0 0 6d782e612e6578616d706c65\n");
    sim_dns_set_secure(sim_world_dns(f.w), STR("*"), true);
    sim_host_set_certificate(host_a, &(struct sim_certificate){ .name = STR("mx.a.example") });
    struct route *r = route_new(ROUTE_MX);
    assert_non_null(r);
    r->domain = arena_str(&r->arena, STR("a.example"));
    r->tls = ROUTE_TLS_DANE;
    assert_int_equal(route_finish(r), 0);
    sim_policy_domain(&f.policy, "a.example", r);
    sim_host_down(host_a);
}

static void started_dane(void)
{
    send_to("a.example");
    start_anew();
    sim_host_up(host_a); /* without TLS */
}

static void recover_dane(void)
{
    assert_int_equal(sim_host_inbox(host_a), 0);
    sim_host_set_starttls(host_a, SIM_STARTTLS_OFFERED);
}

static void look_dane(const struct ledger_sum *sum)
{
    assert_int_equal(sim_host_inbox(host_a), 1);
    assert_true(sim_host_received(host_a, 0)->tls);
    assert_int_equal(sum->bounced, 0);
}

static void test_dane(void **state)
{
    static const struct starved_case c = { .name = "dane",
                                           .begin = begin_dane,
                                           .started = started_dane,
                                           .act = act_hour,
                                           .recover = recover_dane,
                                           .look = look_dane };

    starved_each(&c);
    starved_spells(&c, 10, 2);
    starved_by_chance(&c, 15, 100000);
}

/* ---- MTA-STS ---------------------------------------------------------------------------------- */

static void begin_sts(void)
{
    sim_world_zone_add(f.w, "b.example. MX 20 mx.c.example.\n"
                            "mta-sts.b.example. A 192.0.2.13\n"
                            "_mta-sts.b.example. TXT \"v=STSv1; id=1;\"\n");
    sim_https_page(sim_world_https(f.w), SITE,
                   "version: STSv1\r\nmode: enforce\r\nmx: mx.b.example\r\nmax_age: 864000\r\n");
    sim_host_set_starttls(host_b, SIM_STARTTLS_OFFERED);
    sim_host_set_starttls(host_c, SIM_STARTTLS_OFFERED);
    sim_host_set_certificate(host_b, &(struct sim_certificate){ .name = STR("mx.b.example") });
}

/* Its policy is known, and kept, from the first mail; then the host shows a certificate of its own making. */
static void started_sts(void)
{
    send_to("b.example");
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(host_b), 1);
    sim_host_down(host_b);
    sim_host_down(host_c);
    send_to("b.example");
    start_anew();
    sim_host_set_certificate(
        host_b, &(struct sim_certificate){ .name = STR("mx.b.example"), .untrusted = true });
    sim_host_up(host_b);
    sim_host_up(host_c); /* no MX of the policy */
    before = sim_host_inbox(host_b);
}

static void recover_sts(void)
{
    assert_int_equal(sim_host_inbox(host_b), before);
    assert_int_equal(sim_host_sessions(host_c), 0);
    sim_host_set_certificate(host_b, &(struct sim_certificate){ .name = STR("mx.b.example") });
}

static void look_sts(const struct ledger_sum *sum)
{
    assert_int_equal(sum->bounced, 0);
    assert_int_equal(sim_host_sessions(host_c), 0);
}

static void test_sts(void **state)
{
    static const struct starved_case c = { .name = "sts",
                                           .begin = begin_sts,
                                           .started = started_sts,
                                           .act = act_hour,
                                           .recover = recover_sts,
                                           .look = look_sts };

    starved_each(&c);
    starved_spells(&c, 10, 2);
    starved_by_chance(&c, 15, 100000);
}

#define T(test) cmocka_unit_test_teardown(test, starved_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = { T(test_dane), T(test_sts) };

    allocation_init();
    return cmocka_run_group_tests_name("allocations, and what domains demand", tests, NULL, NULL);
}
