/* Several workers: each queue has one owner, whoever accepted the message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "engine/queue.h"
#include "ledger.h"

static struct fixture f;
static struct ledger ledger;

enum { DOMAINS = 12 };

static char domain[DOMAINS][32];

static void begin(int workers, uint64_t seed)
{
    fixture_init(&f, seed, workers);
    ledger_init(&ledger, &f);
    for (int i = 0; i < DOMAINS; i++) {
        char zone[2048], addr[32];
        snprintf(domain[i], sizeof domain[i], "d%d.example", i);
        snprintf(addr, sizeof addr, "192.0.2.%d", 100 + i);
        snprintf(zone, sizeof zone, "%s. MX 1 mx.%s.\nmx.%s. A %s\n", domain[i], domain[i],
                 domain[i], addr);
        sim_world_zone_add(f.w, zone);
        sim_policy_domain(&f.policy, domain[i], NULL);
        ledger_host(&ledger, addr);
    }
    ledger_host(&ledger, "192.0.2.77");
}

static void end(void)
{
    ledger_done(&ledger);
    fixture_done(&f);
}

/* Sends each message to two domains. */
static void send_some(int n)
{
    for (int i = 0; i < n; i++) {
        const char *to[] = { domain[i % DOMAINS], domain[(i * 5 + 3) % DOMAINS] };
        ledger_send(&ledger, to, 2, true);
    }
}

static void test_delivered_by_the_owner(void **state)
{
    begin(4, 3);
    sim_world_accept_by(f.w, 0);
    fixture_start(&f);
    send_some(48);
    sim_world_advance(f.w, SIM_MINUTE);
    struct ledger_sum s = ledger_audit(&ledger);
    assert_int_equal(s.delivered, 96);
    assert_int_equal(s.duplicates, 0);
    assert_int_equal(queued(&f), 0);
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
    end();
}

/* What is in the spool at the start is taken up by the owners, each queue by one. */
static void test_restart(void **state)
{
    begin(4, 4);
    fixture_start(&f);
    for (size_t i = 0; i < DOMAINS; i++)
        sim_host_down(ledger.hosts[i]);
    send_some(48);
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
    for (size_t i = 0; i < DOMAINS; i++)
        sim_host_up(ledger.hosts[i]);
    sim_world_start(f.w);
    sim_world_advance(f.w, SIM_HOUR);
    struct ledger_sum s = ledger_audit(&ledger);
    assert_int_equal(s.delivered, 96);
    assert_int_equal(s.duplicates, 0);
    end();
}

/* One dead domain never delays mail for the others (B13). */
static void test_B13_one_dead_domain(void **state)
{
    begin(2, 5);
    fixture_start(&f);
    sim_host_set_reach(ledger.hosts[0], SIM_SILENT);
    for (int i = 0; i < 100; i++)
        ledger_send(&ledger, (const char *const[]){ domain[0] }, 1, true);
    for (int i = 1; i < DOMAINS; i++) {
        ledger_send(&ledger, (const char *const[]){ domain[i] }, 1, true);
        sim_world_advance(f.w, SIM_SECOND);
        assert_int_equal(sim_host_inbox(ledger.hosts[i]), 1);
    }
    end();
}

/* The same seed gives the same run, event by event; another one gives another. */
static uint64_t fingerprint(uint64_t seed)
{
    struct sim_net_faults faults = { .split = 300000, .reset = 2000, .jitter_ms = 20 };
    begin(3, seed);
    sim_net_set_faults(sim_world_net(f.w), &faults);
    fixture_start(&f);
    for (size_t i = 0; i < DOMAINS; i += 3)
        sim_host_down(ledger.hosts[i]);
    send_some(40);
    sim_world_advance(f.w, 2 * SIM_DAY);
    uint64_t h = sim_journal_fingerprint(sim_world_journal(f.w));
    end();
    return h;
}

static void test_determinism(void **state)
{
    assert_int_equal(fingerprint(11), fingerprint(11));
    assert_int_not_equal(fingerprint(11), fingerprint(12));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delivered_by_the_owner),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_B13_one_dead_domain),
        cmocka_unit_test(test_determinism),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
