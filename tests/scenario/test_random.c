/* A month of bad luck: hosts, networks, name servers, disks and machines fail at random; nothing that was
 * acknowledged is ever lost, and in the end the queue is empty.
 *
 * SIM_SEED=n runs that seed alone, SIM_SEEDS=n runs so many (from 1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "engine/queue.h"
#include "ledger.h"

enum { DOMAINS = 8, HELD = 7, MONTH = 30, STEPS_A_DAY = 24 };

static struct fixture f;
static struct ledger ledger;
static struct sim_random *dice;
static struct sim_host *back;
static char domain[DOMAINS][32];
static uint64_t policy_number;

static bool chance(unsigned percent)
{
    return sim_random_below(dice, 100) < percent;
}

static size_t any(size_t n)
{
    return (size_t)sim_random_below(dice, n);
}

/* ---- the world -------------------------------------------------------------------------------- */

static struct route *usual_route(size_t i);

static void begin(uint64_t seed)
{
    policy_number = 1;
    fixture_init(&f, seed, 1 + (int)(seed % 4));
    ledger_init(&ledger, &f);
    dice = sim_world_random(f.w);
    for (int i = 0; i < DOMAINS; i++) {
        char zone[256], addr[32];
        snprintf(domain[i], sizeof domain[i], "d%d.example", i);
        snprintf(addr, sizeof addr, "192.0.2.%d", 100 + i);
        snprintf(zone, sizeof zone,
                 "d%d.example. MX 1 mx.d%d.example.\nd%d.example. MX 5 mx2.d%d.example.\n"
                 "mx.d%d.example. A %s\nmx2.d%d.example. A 192.0.2.%d\n",
                 i, i, i, i, i, addr, i, 200 + i);
        sim_world_zone_add(f.w, zone);
        snprintf(zone, sizeof zone, "d%d.example. MX 9 mx2.isp.example.\n", i);
        if (i % 3 == 0) /* those whose backup we are */
            sim_world_zone_add(f.w, zone);
        sim_policy_domain(&f.policy, domain[i], usual_route((size_t)i));
        ledger_host(&ledger, addr);
        if (i % 2) { /* the others' second MX is nowhere */
            snprintf(addr, sizeof addr, "192.0.2.%d", 200 + i);
            ledger_host(&ledger, addr);
        }
    }
    back = ledger_host(&ledger, "192.0.2.77");
    f.policy.delay_ms = seed % 3 ? 5 : 0;
    fixture_start(&f);
}

static void end(void)
{
    ledger_done(&ledger);
    fixture_done(&f);
}

/* ---- what operators and clients do ------------------------------------------------------------ */

static void command_done(struct queue_command *c)
{
    route_unref(c->route);
    free(c);
}

static void command(enum queue_command_type type, const char *queue, struct route *route)
{
    struct queue_command *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->type = type;
    c->route = route;
    c->done = command_done;
    assert_true(str_copy(str_of(queue), c->queue, sizeof c->queue));
    queue_command_send(sim_world_ports(f.w, 0)->workers, c);
}

static struct route *direct(size_t i)
{
    char target[32];
    snprintf(target, sizeof target, "192.0.2.%zu:25", 100 + i);
    return sim_route_hosts(target, false);
}

static struct route *usual_route(size_t i)
{
    return i == HELD ? sim_route_hold(domain[i]) : i % 3 ? NULL : sim_route_backup(domain[i]);
}

static void new_policy(void)
{
    struct settings *s = fixture_settings();
    s->fingerprint = ++policy_number;
    sim_world_configure(f.w, s, sim_policy_hooks, &f.policy);
    settings_unref(s);
    sim_world_reload(f.w);
}

static void change_the_policy(void)
{
    size_t i = any(DOMAINS);
    switch (any(4)) {
    case 0: sim_policy_domain(&f.policy, domain[i], direct(i)); break;
    case 1: sim_policy_domain(&f.policy, domain[i], sim_route_hold(domain[any(DOMAINS)])); break;
    default: sim_policy_domain(&f.policy, domain[i], usual_route(i)); break;
    }
    new_policy();
}

static void operate(void)
{
    size_t i = any(DOMAINS);
    switch (any(6)) {
    case 0: command(QUEUE_HOLD, domain[i], NULL); break;
    case 1:
    case 2: command(QUEUE_UNHOLD, domain[i], NULL); break;
    case 3: command(QUEUE_RETRY, domain[i], NULL); break;
    case 4: change_the_policy(); break;
    default: command(QUEUE_RELEASE, domain[HELD], direct(HELD)); break;
    }
}

/* All is let go that is held by anyone. */
static void let_go(void)
{
    struct port_spool *spool = sim_world_ports(f.w, 0)->spool;
    static struct spool_queue q;
    char after[SPOOL_MAX_QUEUE_NAME + 1] = "";
    while (spool->scan_queues(spool, str_of(after), &q, 1) == 1) {
        strcpy(after, q.name);
        command(QUEUE_UNHOLD, q.name, NULL);
        for (size_t i = 0; i < DOMAINS; i++)
            if (q.waiting && strcmp(q.name, domain[i]) == 0)
                command(QUEUE_RELEASE, q.name, direct(i));
    }
}

/* ---- what goes wrong -------------------------------------------------------------------------- */

static void upset_a_host(struct sim_host *h)
{
    static const enum sim_reach reaches[] = { SIM_ACCEPTS, SIM_REFUSES, SIM_SILENT,
                                              SIM_UNREACHABLE };
    static const enum smtp_stage stages[] = {
        SMTP_STAGE_GREETING, SMTP_STAGE_HELO, SMTP_STAGE_MAIL,
        SMTP_STAGE_RCPT,     SMTP_STAGE_DATA, SMTP_STAGE_FINAL
    };
    static const enum sim_action actions[] = { SIM_REPLY, SIM_CLOSE, SIM_RESET, SIM_SILENCE };
    static const uint16_t codes[] = { 421, 450, 451, 452 };
    struct sim_rule r = { .stage = stages[any(ARRAY_LEN(stages))],
                          .action = actions[any(ARRAY_LEN(actions))],
                          .times = 1 + (uint32_t)any(20),
                          .taken = chance(30),
                          .reply = { .code = codes[any(ARRAY_LEN(codes))], .text = STR("luck") } };
    if (chance(50)) {
        sim_host_set_reach(h, reaches[any(ARRAY_LEN(reaches))]);
        return;
    }
    if (r.stage == SMTP_STAGE_RCPT && h != back && chance(40))
        r.reply.code = 550;
    sim_host_add_rule(h, &r);
}

static void upset_names(void)
{
    static const enum dns_status status[] = { DNS_OK, DNS_SERVFAIL, DNS_TIMEOUT };
    static const enum dns_type types[] = { 0, DNS_MX, DNS_A };
    char mx[64];
    size_t i = any(DOMAINS);
    snprintf(mx, sizeof mx, "mx.d%zu.example", i);
    sim_dns_fail(sim_world_dns(f.w), str_of(chance(50) ? mx : domain[i]),
                 types[any(ARRAY_LEN(types))], status[any(ARRAY_LEN(status))]);
}

static void upset_the_network(void)
{
    struct sim_net_faults faults = { .split = (uint32_t)any(500000),
                                     .reset = chance(50) ? (uint32_t)any(20000) : 0,
                                     .freeze = chance(30) ? (uint32_t)any(5000) : 0,
                                     .jitter_ms = (int64_t)any(200) };
    sim_net_set_faults(sim_world_net(f.w), &faults);
}

static void upset_the_disk(void)
{
    struct sim_spool *spool = sim_world_spool(f.w);
    switch (any(4)) {
    case 0: sim_spool_fail_commits(spool, 1 + (uint32_t)any(5), -EIO); break;
    case 1: sim_spool_fail_reads(spool, 1 + (uint32_t)any(5), -EIO); break;
    case 2: sim_spool_set_full(spool, chance(50)); break;
    default: sim_spool_set_latency(spool, (int64_t)any(3000)); break;
    }
}

static void upset_the_machine(void)
{
    switch (any(4)) {
    case 0:
        sim_world_crash(f.w);
        sim_world_advance(f.w, (int64_t)any(SIM_HOUR));
        sim_world_start(f.w);
        break;
    case 1:
        sim_world_stop(f.w, (int64_t)any(SIM_MINUTE));
        sim_world_start(f.w);
        break;
    case 2: sim_world_crash_at(f.w, 1 + any(10), chance(50), (int64_t)any(SIM_MINUTE)); break;
    default: new_policy(); break;
    }
}

static void upset_something(void)
{
    if (chance(30) && sim_world_running(f.w))
        operate();
    switch (any(10)) {
    case 0: upset_names(); break;
    case 1: upset_the_network(); break;
    case 2: upset_the_disk(); break;
    case 3:
        if (sim_world_running(f.w))
            upset_the_machine();
        break;
    case 4:
        if (chance(20))
            sim_clock_step_wall(sim_world_clock(f.w),
                                (int64_t)any(2 * SIM_HOUR) - (int64_t)SIM_HOUR);
        break;
    default: upset_a_host(ledger.hosts[any(ledger.n_hosts)]); break;
    }
    if (chance(20)) /* somebody makes room */
        sim_spool_set_full(sim_world_spool(f.w), false);
    /* Notifications are what proves a bounce: their host comes back in time. */
    if (chance(30)) {
        sim_host_up(back);
        sim_host_clear_rules(back);
    }
}

static void heal_everything(void)
{
    static const struct sim_net_faults none;
    struct sim_spool *spool = sim_world_spool(f.w);
    for (size_t i = 0; i < ledger.n_hosts; i++) {
        sim_host_up(ledger.hosts[i]);
        sim_host_clear_rules(ledger.hosts[i]);
    }
    for (int i = 0; i < DOMAINS; i++) {
        char mx[64];
        snprintf(mx, sizeof mx, "mx.d%d.example", i);
        sim_dns_fail(sim_world_dns(f.w), str_of(mx), 0, DNS_OK);
        sim_dns_fail(sim_world_dns(f.w), str_of(domain[i]), 0, DNS_OK);
    }
    sim_net_set_faults(sim_world_net(f.w), &none);
    sim_spool_set_full(spool, false);
    sim_spool_fail_commits(spool, 0, 0);
    sim_spool_fail_reads(spool, 0, 0);
    sim_spool_set_latency(spool, 2);
    sim_world_crash_at(f.w, 0, false, 0);
}

static void send_something(void)
{
    const char *to[4];
    size_t n = 1 + any(4);
    for (size_t i = 0; i < n; i++)
        to[i] = domain[any(DOMAINS)];
    ledger_send(&ledger, to, n, false);
}

/* ---- a month ---------------------------------------------------------------------------------- */

static void check(uint64_t seed, int day, struct ledger_sum *ret)
{
    *ret = ledger_audit(&ledger);
    if (ret->lost)
        print_message("seed %lu, day %d: %zu of %zu acknowledged recipients are lost\n",
                      (unsigned long)seed, day, ret->lost, ret->acked);
    assert_int_equal(ret->lost, 0);
}

/* What is still there when nothing should be. */
static void show_queues(uint64_t seed)
{
    struct port_spool *spool = sim_world_ports(f.w, 0)->spool;
    static struct spool_queue q;
    struct spool_due due;
    char after[SPOOL_MAX_QUEUE_NAME + 1] = "";
    while (spool->scan_queues(spool, str_of(after), &q, 1) == 1) {
        strcpy(after, q.name);
        int n = spool->scan_due(spool, str_of(q.name), SPOOL_SCHEDULED, NULL, INT64_MAX, &due, 1);
        print_message("seed %lu: queue %s has %lu scheduled, %lu waiting, %lu held",
                      (unsigned long)seed, q.name, (unsigned long)q.scheduled,
                      (unsigned long)q.waiting, (unsigned long)q.held);
        if (n == 1)
            print_message(", the first is due in %ld s",
                          (long)(due.due_ms - sim_wall(sim_world_clock(f.w))) / 1000);
        print_message("\n");
    }
}

static uint64_t live(uint64_t seed, int days)
{
    struct ledger_sum s;
    begin(seed);
    for (int day = 0; day < days; day++) {
        for (int step = 0; step < STEPS_A_DAY; step++) {
            for (size_t i = any(4); i > 0; i--)
                send_something();
            if (chance(35))
                upset_something();
            sim_world_advance(f.w, SIM_DAY / STEPS_A_DAY - (int64_t)any(SIM_MINUTE));
        }
        if (day % 5 == 4)
            check(seed, day, &s);
    }
    heal_everything();
    sim_world_advance(f.w, SIM_HOUR);
    for (size_t i = 0; i < DOMAINS; i++)
        sim_policy_domain(&f.policy, domain[i], usual_route(i));
    new_policy();
    for (int i = 0; i < 4; i++) {
        sim_world_advance(f.w, 6 * SIM_HOUR);
        let_go();
    }
    sim_world_advance(f.w, SIM_DAY);
    check(seed, days, &s);
    if (queued(&f))
        show_queues(seed);
    assert_int_equal(queued(&f), 0);
    assert_true(sim_world_stop(f.w, 5 * SIM_MINUTE));
    print_message("seed %lu: %zu acknowledged, %zu delivered, %zu bounced, %zu more than once, "
                  "%lu crashes, %lu commits\n",
                  (unsigned long)seed, s.acked, s.delivered, s.bounced, s.duplicates,
                  (unsigned long)sim_world_crashes(f.w),
                  (unsigned long)sim_spool_commits(sim_world_spool(f.w)));
    uint64_t h = sim_journal_fingerprint(sim_world_journal(f.w));
    end();
    return h;
}

static uint64_t number_from(const char *variable, uint64_t otherwise)
{
    const char *text = getenv(variable);
    uint64_t n;
    return text && str_to_u64(str_of(text), &n) == 0 ? n : otherwise;
}

static void test_months(void **state)
{
    uint64_t only = number_from("SIM_SEED", 0), n = number_from("SIM_SEEDS", 2);
    for (uint64_t seed = only ? only : 1; seed <= (only ? only : n); seed++)
        live(seed, MONTH);
}

static void test_same_seed_same_life(void **state)
{
    if (getenv("SIM_SEED"))
        skip();
    assert_int_equal(live(3, 8), live(3, 8));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_months),
        cmocka_unit_test(test_same_seed_same_life),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
