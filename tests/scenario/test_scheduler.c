/* Properties of the scheduler, in random worlds (watch.h says what is looked at): workers, queues, limits, hosts that
 * work, are slow, fail or come and go, arrivals of all kinds, operators and reloads are drawn from the seed.
 *
 * Each test goes on with new seeds for a few seconds. SIM_SEEDS=n runs n seeds each instead, SIM_SEED=n that
 * one alone, as the message of a failure says, and SIM_TEST=pattern only tests of that name ("*starves"). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <time.h>

#include "engine/context.h"
#include "engine/queue.h"
#include "watch.h"

enum { BUDGET_S = 5, LEAST_SEEDS = 2, STEPS = 40, STEP_MS = 15000, TO = LEDGER_TO };

enum kind { WORKS, SLOW, DOWN, SILENT, FLAPS, DEFERS, CROWDED, KINDS };

/* What a family of worlds is about. */
struct family {
    size_t queues[3]; /* one of these */
    uint32_t connections[3];
    uint32_t most[3]; /* queue.max_concurrency */
    unsigned ills;    /* percent of hosts that do not simply work */
    unsigned limited; /* percent of routes with a concurrency of their own */
    unsigned sourced; /* percent of routes that name source addresses */
    bool slow;        /* those that work are slow */
    bool crashes;
};

static struct fixture f;
static struct ledger ledger;
static struct watch watch;
static struct sim_random *dice;
static const struct family *family;
static enum kind kinds[WATCH_QUEUES];
static bool was_ill[WATCH_QUEUES]; /* some time it did more, or less, than to take what comes */
static uint64_t policy_number;
static struct net_cidr anybody;
static const char *const addresses[WATCH_SOURCES] = { "198.51.100.1", "198.51.100.2",
                                                      "198.51.100.3" };
static struct source_settings allowed[WATCH_SOURCES];
static size_t explained; /* recipients under way at a crash: these may come twice */

static bool chance(unsigned percent)
{
    return sim_random_below(dice, 100) < percent;
}

static size_t any(size_t n)
{
    return (size_t)sim_random_below(dice, n);
}

static struct str name_of(size_t i)
{
    return str_of(watch.q[i].name);
}

/* ---- the world -------------------------------------------------------------------------------- */

/* sources: bits, of `addresses`. */
static struct route *route_of(const char *domain, uint32_t concurrency, unsigned sources)
{
    char text[64] = "";
    size_t n = 0;
    if (!concurrency && !sources)
        return NULL;
    struct route *r = sim_route_mx(domain);
    r->concurrency = concurrency;
    for (size_t i = 0; i < WATCH_SOURCES; i++)
        if (sources & 1u << i)
            n += (size_t)snprintf(text + n, sizeof text - n, n ? " %s" : "%s", addresses[i]);
    r->source = arena_str(&r->arena, str_of(text));
    return r;
}

static void calm_host(size_t i)
{
    struct sim_host *h = watch.q[i].host;
    sim_host_up(h);
    sim_host_set_delay(h, 0);
    sim_host_set_chaos(h, NULL, 0, 0, 0);
    sim_host_set_most(h, 0, SIM_REPLY);
    watch.q[i].works = true;
}

static void set_kind(size_t i, enum kind kind)
{
    struct sim_host *h = watch.q[i].host;
    calm_host(i);
    kinds[i] = kind;
    was_ill[i] |= kind != WORKS;
    watch.q[i].works = kind == WORKS || kind == SLOW;
    switch (kind) {
    case SLOW: sim_host_set_delay(h, 20 + (int64_t)any(100)); break;
    case DOWN: sim_host_down(h); break;
    case SILENT: sim_host_set_reach(h, SIM_SILENT); break;
    case DEFERS: sim_host_set_chaos(h, dice, 20000, 0, 100000); break;
    case CROWDED: sim_host_set_most(h, 1 + any(3), chance(70) ? SIM_REPLY : SIM_CLOSE); break;
    default: break;
    }
}

static void add_destination(size_t i, uint32_t most)
{
    char zone[160], domain[32], addr[32];
    uint32_t concurrency = chance(family->limited) ? 1 + (uint32_t)any(4) : 0;
    snprintf(domain, sizeof domain, "d%zu.example", i);
    snprintf(addr, sizeof addr, "10.1.%zu.%zu", i / 250, 1 + i % 250);
    snprintf(zone, sizeof zone, "%s. MX 1 mx.%s.\nmx.%s. A %s\n", domain, domain, domain, addr);
    sim_world_zone_add(f.w, zone);
    unsigned sources = chance(family->sourced) ? 1 + (unsigned)any((1u << WATCH_SOURCES) - 1) : 0;
    sim_policy_domain(&f.policy, domain, route_of(domain, concurrency, sources));
    watch_add(&watch, domain, addr, concurrency, most)->sources = sources;
    if (ledger.n_hosts < LEDGER_HOSTS)
        ledger_host(&ledger, addr);
}

static void set_timeouts(struct settings *s)
{
    s->timeouts.connect_ms = 10 * SIM_SECOND;
    s->timeouts.greeting_ms = s->timeouts.helo_ms = 15 * SIM_SECOND;
}

static void begin(const struct family *fam, uint64_t seed)
{
    family = fam;
    policy_number = 1;
    explained = 0;
    memset(was_ill, 0, sizeof was_ill);
    fixture_init(&f, seed, 1 + (int)(seed % 3));
    ledger_init(&ledger, &f);
    dice = sim_world_random(f.w);
    size_t pick = any(3), queues = fam->queues[any(3)];
    uint32_t most = fam->most[any(3)];
    f.settings->queue.connections = fam->connections[pick];
    f.settings->queue.max_concurrency = most;
    f.settings->queue.concurrency = 1 + (uint32_t)any(most);
    f.settings->queue.per_connection = chance(50) ? 1 + (uint32_t)any(10) : 100;
    f.settings->queue.idle_ms = chance(50) ? 2000 : 100 + (int64_t)any(5000);
    f.settings->queue.connection_ms = chance(50) ? 300 * SIM_SECOND : 5 * SIM_SECOND;
    f.settings->queue.recipients = chance(50) ? 100 : 1 + (uint32_t)any(20);
    f.settings->queue.lifetime_ms = 30 * SIM_DAY;
    f.settings->queue.warn_after_ms = -1;
    set_timeouts(f.settings);
    f.policy.delay_ms = chance(30) ? 5 : 0;
    watch_init(&watch, &f, seed, f.settings->queue.connections);
    if (chance(40)) { /* clients are trusted with the priority of their mail */
        CHECK(net_cidr_parse(STR("0.0.0.0/0"), &anybody) == 0);
        f.settings->priority_from = &anybody;
        f.settings->n_priority_from = 1;
        watch.head_start_ms = 2 * SMTP_PRIORITY_MOST * (int64_t)QUEUE_HEAD_START_MS;
    }
    for (size_t i = 0; i < WATCH_SOURCES && fam->sourced; i++) {
        allowed[i] = (struct source_settings){ .concurrency = 1 + (uint32_t)any(6) };
        assert_int_equal(net_addr_parse_ip(str_of(addresses[i]), &allowed[i].addr), 0);
        watch_source(&watch, i, addresses[i], allowed[i].concurrency);
        f.settings->sources = allowed;
        f.settings->n_sources = WATCH_SOURCES;
    }
    for (size_t i = 0; i < queues; i++)
        add_destination(i, most);
    ledger_host(&ledger, "192.0.2.77");
    fixture_start(&f);
    for (size_t i = 0; i < queues; i++)
        set_kind(i, chance(fam->ills) ? (enum kind)any(KINDS) : fam->slow ? SLOW : WORKS);
}

static void end(void)
{
    watch_done(&watch);
    ledger_done(&ledger);
    fixture_done(&f);
}

/* ---- arrivals --------------------------------------------------------------------------------- */

static void send_to(size_t i)
{
    const char *to = watch.q[i].name;
    ledger.priority = watch.head_start_ms && chance(40) ? (int8_t)((int)any(19) - 9) : 0;
    ledger_send(&ledger, &to, 1, false);
}

static void send_big(void)
{
    static const char *to[TO];
    size_t n = 50 + any(TO - 50), first = any(watch.n), domains = chance(50) ? 1 : 1 + any(watch.n);
    for (size_t k = 0; k < n; k++)
        to[k] = watch.q[(first + k % domains) % watch.n].name;
    ledger_send(&ledger, to, n, false);
}

static void arrivals(void)
{
    if (ledger.n > LEDGER_MAX - 2000)
        return;
    switch (any(6)) {
    case 0: {
        size_t to = any(watch.n);
        for (size_t n = 10 + any(150); n > 0; n--)
            send_to(to);
        break;
    }
    case 1: send_big(); break;
    default:
        for (size_t n = any(40); n > 0; n--)
            send_to(any(watch.n));
        break;
    }
}

/* Mail that waits on disk when the router starts. */
static void backlog(void)
{
    for (size_t i = 0; i < watch.n; i++)
        sim_host_down(watch.q[i].host);
    for (size_t i = 0; i < watch.n; i++)
        watch.q[i].works = false;
    size_t one = any(watch.n);
    for (size_t n = 300 + any(300); n > 0; n--)
        send_to(chance(50) ? one : any(watch.n));
    sim_world_advance(f.w, 10 * SIM_SECOND);
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
    for (size_t i = 0; i < watch.n; i++)
        set_kind(i, kinds[i]);
    sim_world_start(f.w);
    watch_forget(&watch);
}

/* ---- what else happens ------------------------------------------------------------------------ */

static void command_done(struct queue_command *c)
{
    free(c);
}

static void command(enum queue_command_type type, size_t i)
{
    struct queue_command *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->type = type;
    c->done = command_done;
    assert_true(str_copy(name_of(i), c->queue, sizeof c->queue));
    queue_command_send(sim_world_ports(f.w, 0)->workers, c);
}

/* Other limits; those that were in force hold for what is under way. */
static void reload(void)
{
    struct settings *s = fixture_settings(), *old = f.settings;
    s->fingerprint = ++policy_number;
    s->queue = old->queue;
    s->sources = old->sources;
    s->n_sources = old->n_sources;
    s->priority_from = old->priority_from;
    s->n_priority_from = old->n_priority_from;
    set_timeouts(s);
    s->queue.connections = family->connections[any(3)];
    s->queue.max_concurrency = family->most[any(3)];
    s->queue.concurrency = 1 + (uint32_t)any(s->queue.max_concurrency);
    sim_world_configure(f.w, s, sim_policy_hooks, &f.policy);
    f.settings = s;
    settings_unref(old);
    sim_world_reload(f.w);
    watch_limits(&watch, s->queue.max_concurrency, s->queue.connections);
}

static void crash(void)
{
    for (int i = 0; i < sim_world_workers(f.w); i++)
        explained += queues_active(sim_world_engine(f.w, i)->queues) * f.settings->queue.recipients;
    sim_world_crash(f.w);
    sim_world_advance(f.w, (int64_t)any(20 * SIM_SECOND));
    sim_world_start(f.w);
    watch_forget(&watch);
}

static void happenings(void)
{
    size_t i = any(watch.n);
    switch (any(12)) {
    case 0: command(QUEUE_HOLD, i); break;
    case 1:
    case 2: command(QUEUE_UNHOLD, i); break;
    case 3: command(QUEUE_RETRY, i); break;
    case 4: reload(); break;
    case 5: set_kind(i, (enum kind)any(KINDS)); break;
    case 6:
        if (family->crashes)
            crash();
        break;
    default: break;
    }
    for (i = 0; i < watch.n; i++)
        if (kinds[i] == FLAPS)
            sim_host_set_reach(watch.q[i].host, chance(50) ? SIM_ACCEPTS : SIM_REFUSES);
}

/* ---- afterwards ------------------------------------------------------------------------------- */

/* What connections were used for, at each host: per_connection, age, idle. */
static void check_connections(size_t i)
{
    const struct settings *set = f.settings;
    const struct sim_host *h = watch.q[i].host;
    for (size_t a = 0; a < sim_host_inbox(h); a++) {
        const struct sim_received *m = sim_host_received(h, a), *before = NULL;
        uint32_t n = 1;
        for (size_t b = a; b-- > 0 && a - b < 2000;)
            if (sim_host_received(h, b)->session == m->session) {
                before = before ? before : sim_host_received(h, b);
                n++;
            }
        if (n > set->queue.per_connection)
            fail_msg(
                "per_connection: seed %lu, queue %s: message %u of a connection, %u are allowed",
                (unsigned long)watch.seed, watch.q[i].name, n, set->queue.per_connection);
        int64_t age = m->began_ms - m->opened_ms, idle = before ? m->began_ms - before->wall_ms : 0;
        if (age > set->queue.connection_ms + set->queue.idle_ms + SIM_SECOND)
            fail_msg("connection_age: seed %lu, queue %s: used after %ld ms",
                     (unsigned long)watch.seed, watch.q[i].name, (long)age);
        if (!was_ill[i] && idle > set->queue.idle_ms + WATCH_GRACE_MS)
            fail_msg("idle: seed %lu, queue %s: used again after %ld ms", (unsigned long)watch.seed,
                     watch.q[i].name, (long)idle);
    }
}

static void let_go(void)
{
    for (size_t i = 0; i < watch.n; i++) {
        set_kind(i, WORKS);
        command(QUEUE_UNHOLD, i);
    }
}

/* All works again: all goes, and nobody holds a connection any longer than it may be idle. */
static void check_end(void)
{
    let_go();
    for (int i = 0; i < 48 && queued(&f); i++)
        watch_advance(&watch, 15 * SIM_MINUTE);
    struct ledger_sum s = ledger_audit(&ledger);
    if (s.lost || s.queued || s.acked != s.delivered + s.bounced)
        print_message(
            "accounts: seed %lu: %zu acknowledged, %zu delivered, %zu bounced, %zu queued, %zu "
            "lost\n",
            (unsigned long)watch.seed, s.acked, s.delivered, s.bounced, s.queued, s.lost);
    assert_int_equal(s.lost, 0);
    assert_int_equal(s.queued, 0);
    assert_int_equal(s.acked, s.delivered + s.bounced);
    if (s.duplicates > explained)
        fail_msg("duplicates: seed %lu: %zu recipients more than once, a crash explains %zu",
                 (unsigned long)watch.seed, s.duplicates, explained);
    watch_advance(&watch, SIM_MINUTE);
    for (size_t i = 0; i < watch.n; i++) {
        assert_int_equal(sim_host_open(watch.q[i].host), 0);
        check_connections(i);
    }
    sim_spool_check(sim_world_spool(f.w));
    assert_int_equal(sim_spool_messages(sim_world_spool(f.w)), 0);
}

static void live(const struct family *fam, uint64_t seed)
{
    begin(fam, seed);
    if (chance(60))
        backlog();
    for (int step = 0; step < STEPS; step++) {
        arrivals();
        if (chance(60))
            happenings();
        watch_advance(&watch, STEP_MS / 2 + (int64_t)any(STEP_MS));
    }
    check_end();
    if (getenv("SIM_SEED"))
        print_message(
            "seed %lu: %d workers, %zu queues, %u connections, %zu recipients, %lu looks, "
            "%lu with something due, %lu with something parked, at most %zu in use\n",
            (unsigned long)seed, sim_world_workers(f.w), watch.n, f.settings->queue.connections,
            ledger.n, (unsigned long)watch.looks, (unsigned long)watch.found_due,
            (unsigned long)watch.found_parked, watch.most_busy);
    end();
}

static uint64_t number_from(const char *variable, uint64_t otherwise)
{
    const char *text = getenv(variable);
    uint64_t n;
    return text && str_to_u64(str_of(text), &n) == 0 ? n : otherwise;
}

/* Processor time, and on a machine that is busy with other things twice as much of the clock's. */
static bool within_budget(time_t begun, clock_t used)
{
    return clock() - used < BUDGET_S * CLOCKS_PER_SEC && time(NULL) - begun < 2 * BUDGET_S;
}

static void live_many(const struct family *fam)
{
    uint64_t only = number_from("SIM_SEED", 0), n = number_from("SIM_SEEDS", 0), ran = 0;
    time_t begun = time(NULL);
    clock_t used = clock();
    if (only) {
        live(fam, only);
        return;
    }
    while (n ? ran < n : ran < LEAST_SEEDS || within_budget(begun, used))
        live(fam, ++ran);
    print_message("%lu seeds\n", (unsigned long)ran);
}

/* ---- dead destinations ------------------------------------------------------------------------ */

enum { HEALTHY = 10, DEAD = 1000, MAILS = 600, PACE_MS = 500 };

static struct fixture two[2]; /* without, and with them */

static void add_domain(struct fixture *w, const char *domain, const char *addr,
                       enum sim_reach reach)
{
    char zone[160];
    snprintf(zone, sizeof zone, "%s. MX 1 mx.%s.\nmx.%s. A %s\n", domain, domain, domain, addr);
    sim_world_zone_add(w->w, zone);
    sim_policy_domain(&w->policy, domain, NULL);
    sim_host_set_reach(sim_world_host(w->w, addr), reach);
}

static void send_one(struct fixture *w, const char *local, unsigned long n, const char *domain)
{
    char text[64];
    snprintf(text, sizeof text, "%s%lu@%s", local, n, domain);
    struct str to = str_of(text);
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = &to,
                          .n_recipients = 1,
                          .content = STR("Subject: x\r\n\r\nhello\r\n") };
    sim_world_post(w->w, &m);
}

/* Dead ones: half of them refuse connections, half of them are silent for as long as a connection may take. */
static void add_dead(struct fixture *w, enum sim_reach other)
{
    for (unsigned i = 0; i < DEAD; i++) {
        char domain[32], addr[32];
        snprintf(domain, sizeof domain, "dead%u.example", i);
        snprintf(addr, sizeof addr, "10.9.%u.%u", i / 250, 1 + i % 250);
        add_domain(w, domain, addr, i % 2 ? SIM_REFUSES : other);
        for (unsigned long k = 0; k < 3; k++)
            send_one(w, "x", k, domain);
    }
}

static void run_healthy(struct fixture *w, uint64_t seed, uint32_t connections, bool with_dead,
                        enum sim_reach other, int64_t known_ms)
{
    fixture_init(w, seed, 1 + (int)(seed % 3));
    w->settings->queue.connections = connections;
    for (unsigned i = 0; i < HEALTHY; i++) {
        char domain[32], addr[32];
        snprintf(domain, sizeof domain, "good%u.example", i);
        snprintf(addr, sizeof addr, "10.1.0.%u", 1 + i);
        add_domain(w, domain, addr, SIM_ACCEPTS);
    }
    fixture_start(w);
    if (with_dead)
        add_dead(w, other);
    sim_world_advance(w->w, known_ms);
    for (unsigned long n = 0; n < MAILS; n++) {
        char domain[32];
        snprintf(domain, sizeof domain, "good%lu.example", n % HEALTHY);
        send_one(w, "r", n, domain);
        if (n % 20 == 0) /* and more for the dead ones, all the time */
            for (unsigned i = 0; with_dead && i < 10; i++) {
                snprintf(domain, sizeof domain, "dead%lu.example", (n * 7 + i * 101) % DEAD);
                send_one(w, "y", n, domain);
            }
        sim_world_advance(w->w, PACE_MS);
    }
    sim_world_advance(w->w, 10 * SIM_MINUTE);
}

/* When each mail to healthy hosts had come. */
static void read_times(struct fixture *w, int64_t times[MAILS])
{
    for (size_t n = 0; n < MAILS; n++)
        times[n] = -1;
    for (unsigned i = 0; i < HEALTHY; i++) {
        char addr[32];
        snprintf(addr, sizeof addr, "10.1.0.%u", 1 + i);
        const struct sim_host *h = sim_world_host(w->w, addr);
        for (size_t k = 0; k < sim_host_inbox(h); k++) {
            const struct sim_received *m = sim_host_received(h, k);
            unsigned n;
            assert_int_equal(sscanf(m->recipients[0].p, "r%u@", &n), 1);
            assert_in_range(n, 0, MAILS - 1);
            assert_int_equal(times[n], -1);
            times[n] = m->wall_ms;
        }
    }
}

/* The mail for healthy hosts comes as soon as if there were no others. known_ms: for so long the dead ones have been
 * dead when it begins. */
static void compare(uint64_t seed, uint32_t connections, enum sim_reach other, int64_t known_ms,
                    int64_t bound_ms)
{
    static int64_t alone[MAILS], among[MAILS];
    int64_t worst = 0;
    run_healthy(&two[0], seed, connections, false, other, known_ms);
    run_healthy(&two[1], seed, connections, true, other, known_ms);
    read_times(&two[0], alone);
    read_times(&two[1], among);
    for (size_t n = 0; n < MAILS; n++) {
        if (alone[n] < 0 || among[n] < 0 || among[n] - alone[n] > bound_ms)
            fail_msg(
                "dead destinations: seed %lu, mail %zu to good%zu.example: %ld ms without them, %ld "
                "with (from the start; -1: never)",
                (unsigned long)seed, n, n % HEALTHY,
                (long)(alone[n] < 0 ? -1 : alone[n] - SIM_EPOCH_MS),
                (long)(among[n] < 0 ? -1 : among[n] - SIM_EPOCH_MS));
        worst = MAX(worst, among[n] - alone[n]);
    }
    assert_int_equal(queued(&two[1]), DEAD * 3 + MAILS / 20 * 10);
    print_message("seed %lu, %u connections: at most %ld ms later\n", (unsigned long)seed,
                  connections, (long)worst);
    fixture_done(&two[0]);
    fixture_done(&two[1]);
}

/* Once it is known that they are dead each probes with one connection, and keeps it for a time-out at most: with more
 * connections than dead hosts that are silent, nobody ever waits for them. What is left is the group commit. */
static void test_a_thousand_dead_queues_cost_nothing(void **state)
{
    uint64_t only = number_from("SIM_SEED", 0);
    if (only) {
        compare(only, 1000, SIM_SILENT, 2 * SIM_MINUTE, 100);
        return;
    }
    compare(1, 1000, SIM_SILENT, 2 * SIM_MINUTE, 100);
    compare(3, 1000, SIM_REFUSES, 0, 100);
}

/* With few connections those that are not known yet hold three quarters of them at first. Then mail for others that are
 * not known either waits for its turn, a round of all queues through these connections, each of which takes as long as
 * a host takes to fail. */
static void test_dead_queues_share_few_connections(void **state)
{
    uint64_t seed = number_from("SIM_SEED", 3);
    int64_t workers = 1 + (int64_t)(seed % 3);
    int64_t refusals = (DEAD + HEALTHY) / (15 * workers) + 2;
    int64_t timeouts = (DEAD / 2 + HEALTHY) / (75 * workers) + 2;
    compare(seed, 20, SIM_REFUSES, 0, refusals * 60);
    compare(seed, 100, SIM_SILENT, 0, timeouts * 30 * SIM_SECOND);
}

/* ---- turns ------------------------------------------------------------------------------------ */

/* Few connections and much to do in four queues: a single mail in a fifth has its turn when each of them has had one,
 * and so has each of those. A transaction takes at most 2 s here, so a round takes at most 5 of them over two
 * connections. */
static void test_queues_take_turns(void **state)
{
    enum { BUSY = 4, EACH = 300, ASKED = 40, ROUND_MS = 3 * 2000 };
    const struct sim_host *host[BUSY + 1];
    size_t before[BUSY];
    char domain[32], addr[32];
    fixture_init(&f, 1, 1);
    f.settings->queue.connections = 2;
    for (unsigned i = 0; i <= BUSY; i++) {
        snprintf(domain, sizeof domain, "d%u.example", i);
        snprintf(addr, sizeof addr, "10.1.0.%u", 1 + i);
        add_domain(&f, domain, addr, SIM_ACCEPTS);
        sim_host_set_delay(sim_world_host(f.w, addr), 200);
        host[i] = sim_world_host(f.w, addr);
    }
    fixture_start(&f);
    for (unsigned long n = 0; n < BUSY * EACH; n++) {
        snprintf(domain, sizeof domain, "d%lu.example", n % BUSY);
        send_one(&f, "r", n, domain);
    }
    sim_world_advance(f.w, 10 * SIM_SECOND);
    for (unsigned long n = 0; n < ASKED; n++) {
        for (size_t i = 0; i < BUSY; i++)
            before[i] = sim_host_inbox(host[i]);
        send_one(&f, "s", n, "d4.example");
        sim_world_advance(f.w, ROUND_MS);
        assert_int_equal(sim_host_inbox(host[BUSY]), n + 1);
        for (size_t i = 0; i < BUSY; i++)
            assert_true(sim_host_inbox(host[i]) > before[i]);
    }
    assert_in_range(queued(&f), EACH, BUSY * EACH); /* there was enough to do all the time */
    fixture_done(&f);
}

/* ---- reloads ---------------------------------------------------------------------------------- */

/* Limits that a reload lowers hold for what begins after it, also in a queue that had grown to the former ones. */
static void test_a_lower_limit_holds_at_once(void **state)
{
    struct sim_rule later = { .stage = SMTP_STAGE_RCPT,
                              .address = STR("z0@d0.example"),
                              .reply = REPLY(450, ENH(4, 2, 0), "later") };
    fixture_init(&f, 1, 1);
    f.settings->queue.concurrency = f.settings->queue.max_concurrency = 10;
    add_domain(&f, "d0.example", "10.1.0.1", SIM_ACCEPTS);
    struct sim_host *h = sim_world_host(f.w, "10.1.0.1");
    sim_host_add_rule(h, &later);
    sim_host_set_delay(h, 500);
    fixture_start(&f);
    send_one(&f, "z", 0,
             "d0.example"); /* it waits for its next time, so that the queue is not forgotten */
    for (unsigned long n = 0; n < 20; n++)
        send_one(&f, "r", n, "d0.example");
    sim_world_advance(f.w, 20 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(h), 20);
    assert_int_equal(sim_host_busy(h), 0);
    struct settings *s = fixture_settings();
    s->fingerprint = 2;
    s->queue.concurrency = s->queue.max_concurrency = 2;
    sim_world_configure(f.w, s, sim_policy_hooks, &f.policy);
    settings_unref(s);
    sim_world_reload(f.w);
    for (unsigned long n = 20; n < 40; n++)
        send_one(&f, "r", n, "d0.example");
    for (int i = 0; i < 300; i++) {
        sim_world_advance(f.w, 100);
        assert_in_range(sim_host_busy(h), 0, 2);
    }
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(h), 40);
    fixture_done(&f);
}

/* ---- the properties --------------------------------------------------------------------------- */

static void test_no_due_message_starves(void **state)
{
    static const struct family short_of_connections = { .queues = { 20, 60, 150 },
                                                        .connections = { 3, 5, 10 },
                                                        .most = { 2, 5, 20 },
                                                        .ills = 25,
                                                        .limited = 20 };
    live_many(&short_of_connections);
}

static void test_limits_are_never_exceeded(void **state)
{
    static const struct family crowds = { .queues = { 1, 3, 8 },
                                          .connections = { 4, 30, 1000 },
                                          .most = { 1, 4, 20 },
                                          .ills = 40,
                                          .limited = 50 };
    live_many(&crowds);
}

static void test_work_conserving(void **state)
{
    static const struct family much_to_do = { .queues = { 2, 10, 40 },
                                              .connections = { 8, 50, 1000 },
                                              .most = { 3, 5, 10 },
                                              .ills = 15,
                                              .limited = 40 };
    live_many(&much_to_do);
}

/* Few connections from few addresses, for many queues: who waits for one holds up nobody else, and is not forgotten. */
static void test_parked_jobs_come_back(void **state)
{
    static const struct family few_sources = { .queues = { 4, 12, 40 },
                                               .connections = { 10, 50, 1000 },
                                               .most = { 2, 5, 20 },
                                               .ills = 20,
                                               .limited = 20,
                                               .sourced = 70,
                                               .slow = true };
    live_many(&few_sources);
}

static void test_accounts_close_after_crashes(void **state)
{
    static const struct family crashes = { .queues = { 3, 10, 30 },
                                           .connections = { 5, 20, 1000 },
                                           .most = { 2, 5, 20 },
                                           .ills = 40,
                                           .limited = 20,
                                           .sourced = 30,
                                           .crashes = true };
    live_many(&crashes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_due_message_starves),
        cmocka_unit_test(test_limits_are_never_exceeded),
        cmocka_unit_test(test_work_conserving),
        cmocka_unit_test(test_parked_jobs_come_back),
        cmocka_unit_test(test_accounts_close_after_crashes),
        cmocka_unit_test(test_queues_take_turns),
        cmocka_unit_test(test_a_lower_limit_holds_at_once),
        cmocka_unit_test(test_a_thousand_dead_queues_cost_nothing),
        cmocka_unit_test(test_dead_queues_share_few_connections),
    };
    if (getenv("SIM_TEST"))
        cmocka_set_test_filter(getenv("SIM_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
