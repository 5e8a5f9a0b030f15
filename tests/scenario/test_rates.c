/* Rates, concurrency and source addresses: what routes and `sources` allow is used, and never exceeded, over all
 * workers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine/sources.h"
#include "fixture.h"

static struct fixture f;
static struct source_settings allowed[4];

static int setup(void **state)
{
    fixture_init(&f, 1, 4);
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

static struct rate rate(const char *text)
{
    struct rate r;
    assert_int_equal(rate_parse(str_of(text), &r), 0);
    return r;
}

/* To that host; what is not said is NULL or 0. */
static struct route *to(const char *host, const char *queue, const char *limit,
                        uint32_t concurrency, const char *source)
{
    struct route *r = route_new(ROUTE_HOSTS);
    assert_non_null(r);
    r->targets = ARENA_NEW(&r->arena, struct route_target);
    assert_non_null(r->targets);
    assert_int_equal(route_target_parse(&r->arena, str_of(host), false, r->targets), 0);
    r->n_targets = 1;
    if (queue)
        r->queue = str_of(queue);
    if (limit)
        r->rate = rate(limit);
    if (source)
        r->source = str_of(source);
    r->concurrency = concurrency;
    return r;
}

static struct route *finished(struct route *r)
{
    assert_int_equal(route_finish(r), 0);
    return r;
}

static void mails(const char *recipient, int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(mail_to(&f, recipient), 250);
}

/* The most that one host, or all of them together, took in any period. */
static size_t most_in(struct sim_host *h, int64_t period)
{
    size_t most = 0;
    for (size_t i = 0, k = 0; i < sim_host_inbox(h); i++) {
        while (sim_host_received(h, i)->wall_ms - sim_host_received(h, k)->wall_ms >= period)
            k++;
        most = MAX(most, i - k + 1);
    }
    return most;
}

/* Goes on in small steps; the most connections that stood at those hosts together. */
static size_t most_open(struct sim_host **h, size_t n, int64_t ms)
{
    size_t most = 0;
    for (int64_t t = 0; t < ms; t += 5) {
        size_t open = 0;
        for (size_t i = 0; i < n; i++)
            open += sim_host_open(h[i]);
        most = MAX(most, open);
        sim_world_advance(f.w, 5);
    }
    return most;
}

static void nothing_failed(void)
{
    assert_int_equal(counted(&f, "queue_backoff"), 0);
    assert_int_equal(counted(&f, "deferred"), 0);
    assert_int_equal(counted(&f, "host_failed"), 0);
    assert_int_equal(counted(&f, "bounced"), 0);
}

/* ---- rate ------------------------------------------------------------------------------------- */

/* Over several connections, because the host takes its time: never more than the rate in any minute, and hardly
 * less. */
static void test_rate(void **state)
{
    struct sim_host *h = sim_world_host(f.w, "192.0.2.1");
    sim_host_set_delay(h, 300);
    sim_policy_domain(&f.policy, "example.com",
                      finished(to("192.0.2.1:25", NULL, "100/m", 0, NULL)));
    fixture_start(&f);
    mails("u@example.com", 300);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_in_range(sim_host_inbox(h), 60, 160); /* sending takes time, too */
    sim_world_advance(f.w, 5 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(h), 300);
    assert_in_range(most_in(h, SIM_MINUTE), 90, 100);
    assert_in_range(most_in(h, 6 * SIM_SECOND), 8, 11);
    assert_true(sim_host_sessions(h) > 1);
    nothing_failed();
}

static void test_burst(void **state)
{
    struct sim_host *h = sim_world_host(f.w, "192.0.2.1");
    sim_policy_domain(&f.policy, "example.com",
                      finished(to("192.0.2.1:25", NULL, "30/m,burst=10", 0, NULL)));
    sim_host_down(h);
    fixture_start(&f);
    mails("u@example.com", 50);
    sim_host_up(h);
    sim_world_advance(f.w, 15 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(h), 50);
    assert_in_range(most_in(h, SIM_MINUTE), 30, 40);
    assert_in_range(most_in(h, SIM_SECOND), 2, 10);
}

/* Two routes with one queue have one rate. */
static void test_shared_by_name(void **state)
{
    struct sim_host *h = sim_world_host(f.w, "192.0.2.1");
    sim_policy_domain(&f.policy, "a.example", finished(to("192.0.2.1:25", "one", "2/m", 0, NULL)));
    sim_policy_domain(&f.policy, "b.example", finished(to("192.0.2.1:26", "one", "2/m", 0, NULL)));
    fixture_start(&f);
    mails("u@a.example", 3);
    mails("u@b.example", 3);
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(h), 6);
    assert_int_equal(most_in(h, SIM_MINUTE), 2);
    nothing_failed();
}

/* A queue that has nothing to do is forgotten, but not while its rate is used up. It wakes at the moment. */
static void test_outlives_its_queue(void **state)
{
    struct sim_host *h = sim_world_host(f.w, "192.0.2.1");
    sim_policy_domain(&f.policy, "example.com", finished(to("192.0.2.1:25", NULL, "1/h", 0, NULL)));
    fixture_start(&f);
    mails("u@example.com", 1);
    sim_world_advance(f.w, 20 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(h), 1);
    mails("u@example.com", 1);
    sim_world_advance(f.w, 30 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(h), 1);
    sim_world_advance(f.w, 20 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(h), 2);
    int64_t apart = sim_host_received(h, 1)->wall_ms - sim_host_received(h, 0)->wall_ms;
    assert_in_range(apart, SIM_HOUR, SIM_HOUR + 100);
    nothing_failed();
    /* A restart knows nothing of it: one more goes at once. */
    mails("u@example.com", 1);
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
    sim_world_start(f.w);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(h), 3);
}

/* While its host is dead, nothing of the rate is used. */
static void test_dead_host_costs_nothing(void **state)
{
    struct sim_host *h = sim_world_host(f.w, "192.0.2.1");
    sim_policy_domain(&f.policy, "example.com", finished(to("192.0.2.1:25", NULL, "1/h", 0, NULL)));
    sim_host_down(h);
    fixture_start(&f);
    mails("u@example.com", 1);
    sim_world_advance(f.w, 30 * SIM_MINUTE);
    sim_host_up(h);
    sim_world_advance(f.w, 20 * SIM_MINUTE); /* queue.host_retry_max, and not an hour */
    assert_int_equal(sim_host_inbox(h), 1);
}

/* New limits hold for what is in the queue, whatever the old ones were. */
static void reload_with(struct route *r)
{
    struct settings *s = fixture_settings();
    static uint64_t fingerprint = 1;
    sim_policy_domain(&f.policy, "example.com", r);
    s->fingerprint = ++fingerprint;
    s->sources = f.settings->sources;
    s->n_sources = f.settings->n_sources;
    sim_world_configure(f.w, s, sim_policy_hooks, &f.policy);
    settings_unref(s);
    sim_world_reload(f.w);
}

static void test_reload_changes_rate(void **state)
{
    struct sim_host *h = sim_world_host(f.w, "192.0.2.1");
    sim_policy_domain(&f.policy, "example.com", finished(to("192.0.2.1:25", NULL, "1/d", 0, NULL)));
    fixture_start(&f);
    mails("u@example.com", 20);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(h), 1);
    reload_with(finished(to("192.0.2.1:25", NULL, "60/m", 0, NULL)));
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(h), 20);
    assert_int_equal(most_in(h, SIM_SECOND), 1);
    mails("u@example.com", 20);
    reload_with(finished(to("192.0.2.1:25", NULL, "1/h", 0, NULL)));
    size_t before = sim_host_inbox(h);
    sim_world_advance(f.w, SIM_HOUR);
    assert_in_range(sim_host_inbox(h), before, before + 2);
    nothing_failed();
}

/* ---- concurrency ------------------------------------------------------------------------------ */

static void test_concurrency_of_two_routes(void **state)
{
    struct sim_host *h = sim_world_host(f.w, "192.0.2.1");
    sim_host_set_delay(h, 200);
    sim_policy_domain(&f.policy, "a.example", finished(to("192.0.2.1:25", "one", NULL, 2, NULL)));
    sim_policy_domain(&f.policy, "b.example", finished(to("192.0.2.1:25", "one", NULL, 0, NULL)));
    sim_world_accept_by(f.w, 0);
    fixture_start(&f);
    for (int i = 0; i < 20; i++) {
        mails("u@a.example", 1);
        mails("u@b.example", 1);
    }
    assert_in_range(most_open(&h, 1, 5 * SIM_MINUTE), 1, 2);
    assert_int_equal(sim_host_inbox(h), 40);
    nothing_failed();
}

static void test_reload_changes_concurrency(void **state)
{
    struct sim_host *h = sim_world_host(f.w, "192.0.2.1");
    sim_host_set_delay(h, 2000);
    sim_policy_domain(&f.policy, "example.com", finished(to("192.0.2.1:25", NULL, NULL, 8, NULL)));
    fixture_start(&f);
    mails("u@example.com", 100);
    assert_int_equal(most_open(&h, 1, 30 * SIM_SECOND), 8);
    reload_with(finished(to("192.0.2.1:25", NULL, NULL, 2, NULL)));
    sim_world_advance(f.w, 30 * SIM_SECOND); /* those under way end on the old terms */
    assert_in_range(sim_host_inbox(h), 1, 60);
    assert_in_range(most_open(&h, 1, 2 * SIM_MINUTE), 1, 2);
    reload_with(finished(to("192.0.2.1:25", NULL, NULL, 5, NULL)));
    assert_in_range(most_open(&h, 1, 10 * SIM_MINUTE), 3, 7); /* farewells are not counted */
    assert_int_equal(sim_host_inbox(h), 100);
    nothing_failed();
}

/* Of a fallback, over all queues that fall back on it. */
static void test_concurrency_of_a_fallback(void **state)
{
    struct sim_host *h = sim_world_host(f.w, "192.0.2.9");
    char domain[32], host[32];
    sim_host_set_delay(h, 100);
    for (int i = 0; i < 6; i++) {
        snprintf(domain, sizeof domain, "d%d.example", i);
        snprintf(host, sizeof host, "192.0.2.%d:25", 100 + i);
        struct route *r = to(host, NULL, NULL, 0, NULL);
        r->targets[0].text = arena_str(&r->arena, r->targets[0].text);
        r->fallback = finished(to("192.0.2.9:25", NULL, "40/m", 1, NULL));
        sim_policy_domain(&f.policy, domain, finished(r));
    }
    fixture_start(&f);
    for (int i = 0; i < 6; i++) {
        snprintf(domain, sizeof domain, "u@d%d.example", i);
        mails(domain, 4);
    }
    sim_world_advance(f.w, 15 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(h), 24);
    assert_in_range(most_in(h, SIM_MINUTE), 1, 40);
    for (size_t i = 1; i < 24; i++) /* one after another */
        assert_true(sim_host_received(h, i)->wall_ms - sim_host_received(h, i - 1)->wall_ms >= 300);
    assert_int_equal(counted(&f, "queue_backoff"), 0);
}

/* ---- sources ---------------------------------------------------------------------------------- */

static void allow(const char *addr, const char *hostname, uint32_t concurrency, const char *limit)
{
    struct source_settings *s = &allowed[f.settings->n_sources++];
    *s = (struct source_settings){ .concurrency = concurrency };
    assert_int_equal(net_addr_parse_ip(str_of(addr), &s->addr), 0);
    if (hostname)
        s->hostname = str_of(hostname);
    if (limit)
        s->rate = rate(limit);
    f.settings->sources = allowed;
}

static size_t from(struct sim_host *h, const char *addr)
{
    struct net_addr a = sim_addr(addr);
    size_t n = 0;
    for (size_t i = 0; i < sim_host_inbox(h); i++)
        n += net_addr_same_ip(&sim_host_received(h, i)->from, &a);
    return n;
}

static void test_spread_evenly(void **state)
{
    struct sim_host *h = sim_world_host(f.w, "192.0.2.1");
    sim_host_set_delay(h, 100);
    allow("198.51.100.1", "out1.isp.example", 0, NULL);
    f.settings->queue.per_connection = 3;
    sim_policy_domain(
        &f.policy, "example.com",
        finished(to("192.0.2.1:25", NULL, NULL, 6, "198.51.100.1 198.51.100.2 198.51.100.3")));
    fixture_start(&f);
    mails("u@example.com", 300);
    sim_world_advance(f.w, 5 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(h), 300);
    assert_in_range(from(h, "198.51.100.1"), 85, 115);
    assert_in_range(from(h, "198.51.100.2"), 85, 115);
    assert_in_range(from(h, "198.51.100.3"), 85, 115);
    for (size_t i = 0; i < 300; i++) {
        const struct sim_received *r = sim_host_received(h, i);
        struct net_addr first = sim_addr("198.51.100.1");
        bool named = net_addr_same_ip(&r->from, &first);
        assert_true(str_eq(r->helo, named ? STR("out1.isp.example") : STR("mx2.isp.example")));
    }
    nothing_failed();
}

/* One connection after another: in turn. */
static void test_in_turn(void **state)
{
    struct sim_host *h = sim_world_host(f.w, "192.0.2.1");
    sim_policy_domain(&f.policy, "example.com",
                      finished(to("192.0.2.1:25", NULL, NULL, 0, "198.51.100.1 198.51.100.2")));
    fixture_start(&f);
    for (int i = 0; i < 10; i++) {
        mails("u@example.com", 1);
        sim_world_advance(f.w, SIM_MINUTE);
    }
    assert_int_equal(from(h, "198.51.100.1"), 5);
    assert_int_equal(from(h, "198.51.100.2"), 5);
}

static struct sim_host *hosts[12];

/* Twelve queues of four workers, to a host each, from the same addresses. */
static void many_queues(const char *source, int n)
{
    char domain[32], text[12][32];
    for (int i = 0; i < 12; i++) {
        snprintf(text[i], sizeof text[i], "192.0.2.%d:25", 100 + i);
        hosts[i] = sim_world_host(f.w, text[i]);
        sim_host_set_delay(hosts[i], 100);
        snprintf(domain, sizeof domain, "d%d.example", i);
        sim_policy_domain(&f.policy, domain, finished(to(text[i], NULL, NULL, 0, source)));
    }
    fixture_start(&f);
    for (int k = 0; k < n; k++)
        for (int i = 0; i < 12; i++) {
            snprintf(domain, sizeof domain, "u@d%d.example", i);
            mails(domain, 1);
        }
}

static size_t received(void)
{
    size_t n = 0;
    for (size_t i = 0; i < 12; i++)
        n += sim_host_inbox(hosts[i]);
    return n;
}

static void test_source_concurrency(void **state)
{
    allow("198.51.100.1", NULL, 3, NULL);
    allow("198.51.100.2", NULL, 2, NULL);
    f.settings->queue.idle_ms = 500;
    many_queues("198.51.100.1 198.51.100.2", 10);
    assert_int_equal(most_open(hosts, 12, 5 * SIM_MINUTE), 5);
    assert_int_equal(received(), 120);
    nothing_failed();
    for (size_t i = 0; i < SOURCES_PLACES; i++) {
        struct source *s = sources_at(sim_world_shared(f.w)->sources, i);
        assert_true(!s || atomic_load(&s->open) == 0);
    }
}

static int later(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void test_source_rate(void **state)
{
    int64_t at[240];
    size_t n = 0, most = 0;
    allow("198.51.100.1", NULL, 0, "120/m");
    many_queues("198.51.100.1", 20);
    sim_world_advance(f.w, 4 * SIM_MINUTE);
    assert_int_equal(received(), 240);
    for (size_t i = 0; i < 12; i++)
        for (size_t k = 0; k < sim_host_inbox(hosts[i]); k++)
            at[n++] = sim_host_received(hosts[i], k)->wall_ms;
    qsort(at, n, sizeof *at, later);
    for (size_t i = 0, k = 0; i < n; i++) {
        while (at[i] - at[k] >= SIM_MINUTE)
            k++;
        most = MAX(most, i - k + 1);
    }
    assert_in_range(most, 100, 122); /* measured where they end: connections differ a little */
    assert_in_range(at[n - 1] - at[0], 118 * SIM_SECOND, 180 * SIM_SECOND);
    nothing_failed();
}

/* One at its limit: the other takes over. A reload raises it, and no connection is dropped. */
static void test_takes_over(void **state)
{
    struct sim_host *h = sim_world_host(f.w, "192.0.2.1");
    allow("198.51.100.1", NULL, 0, "1/h");
    sim_policy_domain(&f.policy, "example.com",
                      finished(to("192.0.2.1:25", NULL, NULL, 0, "198.51.100.1 198.51.100.2")));
    fixture_start(&f);
    mails("u@example.com", 30);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(from(h, "198.51.100.1"), 1);
    assert_int_equal(from(h, "198.51.100.2"), 29);
    nothing_failed();
}

static void test_waits_and_is_reloaded(void **state)
{
    struct sim_host *h = sim_world_host(f.w, "192.0.2.1");
    allow("198.51.100.1", NULL, 0, "1/h");
    sim_policy_domain(&f.policy, "example.com",
                      finished(to("192.0.2.1:25", NULL, NULL, 0, "198.51.100.1")));
    fixture_start(&f);
    mails("u@example.com", 10);
    sim_world_advance(f.w, 50 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(h), 1);
    sim_world_advance(f.w, 11 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(h), 2);
    allowed[0].rate = rate("60/m");
    reload_with(finished(to("192.0.2.1:25", NULL, NULL, 0, "198.51.100.1")));
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(h), 10);
    nothing_failed();
}

/* The connection that failed holds its source no longer when the next one is made, at once, to the same host in
 * clear. */
static void test_broken_tls_with_one_connection(void **state)
{
    allow("198.51.100.1", NULL, 1, NULL);
    struct sim_host *h = sim_world_host(f.w, "192.0.2.1");
    struct route *r = to("192.0.2.1:25", NULL, NULL, 0, "198.51.100.1");
    sim_host_set_starttls(h, SIM_STARTTLS_BROKEN);
    r->tls = ROUTE_TLS_OPPORTUNISTIC;
    sim_policy_domain(&f.policy, "example.com", finished(r));
    fixture_start(&f);
    mails("u@example.com", 3);
    sim_world_advance(f.w, 10 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(h), 3);
    nothing_failed();
}

static void test_not_on_this_machine(void **state)
{
    struct sim_host *h = sim_world_host(f.w, "192.0.2.1");
    struct net_addr gone = sim_addr("198.51.100.1"), other = sim_addr("198.51.100.2");
    sim_policy_domain(&f.policy, "example.com",
                      finished(to("192.0.2.1:25", NULL, NULL, 0, "198.51.100.1 198.51.100.2")));
    sim_world_absent(f.w, &gone, true);
    fixture_start(&f);
    mails("u@example.com", 20);
    sim_world_advance(f.w, 30 * SIM_SECOND);
    assert_int_equal(from(h, "198.51.100.2"), 20);
    assert_int_equal(counted(&f, "source_missing"), 1);
    nothing_failed();
    /* None is left: it waits, and the host is not to blame. */
    sim_world_advance(f.w, SIM_MINUTE);
    sim_world_absent(f.w, &other, true);
    mails("u@example.com", 5);
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(h), 20);
    assert_int_equal(queued(&f), 5);
    assert_in_range(counted(&f, "source_missing"), 3, 30);
    nothing_failed();
    sim_world_absent(f.w, &gone, false);
    sim_world_advance(f.w, 70 * SIM_SECOND);
    assert_int_equal(from(h, "198.51.100.1"), 5);
    nothing_failed();
}

static size_t results, final_results;

static bool count_results(void *arg, enum hook h, const struct hook_input *in,
                          struct hook_result *ret)
{
    results++;
    final_results += in->attempt->permanent;
    return false;
}

/* What waits for an address of ours that never comes is returned when its time is over, all of it. The hook is asked
 * about that, and not before. */
static void test_missing_for_ever(void **state)
{
    struct net_addr gone = sim_addr("198.51.100.1");
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    sim_policy_domain(&f.policy, "example.com",
                      finished(to("192.0.2.1:25", NULL, NULL, 0, "198.51.100.1")));
    sim_world_absent(f.w, &gone, true);
    results = final_results = 0;
    f.policy.ask = count_results;
    f.policy.asks = 1u << HOOK_RESULT;
    fixture_start(&f);
    mails("u@example.com", 60);
    sim_world_advance(f.w, SIM_DAY);
    assert_int_equal(results, 0);
    assert_int_equal(queued(&f), 60);
    assert_int_equal(got(back, "Action: delayed"), 60);
    sim_world_advance(f.w, 4 * SIM_DAY + SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(got(back, "Action: failed"), 60);
    assert_int_equal(got(back, "source address 198.51.100.1 is not on this machine"), 120);
    assert_in_range(results, 1, 60); /* not for those that go with it, without an attempt */
    assert_int_equal(final_results, results);
}

/* Hosts of the other family are left out; where there are no others, the mail waits, and the log says so. */
static void test_families(void **state)
{
    sim_world_zone_add(f.w,
                       "both.example. MX 10 mx.both.example.\n"
                       "mx.both.example. AAAA 2001:db8::1\nmx.both.example. A 192.0.2.1\n"
                       "six.example. MX 10 mx.six.example.\nmx.six.example. AAAA 2001:db8::2\n");
    struct sim_host *four = sim_world_host(f.w, "192.0.2.1");
    struct sim_host *six = sim_world_host(f.w, "2001:db8::1"),
                    *only = sim_world_host(f.w, "2001:db8::2");
    const char *domains[] = { "both.example", "six.example" };
    for (size_t i = 0; i < 2; i++) {
        struct route *r = route_new(ROUTE_MX);
        assert_non_null(r);
        r->domain = str_of(domains[i]);
        r->source = STR("198.51.100.1");
        sim_policy_domain(&f.policy, domains[i], finished(r));
    }
    fixture_start(&f);
    mails("u@both.example", 10);
    mails("u@six.example", 1);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(from(four, "198.51.100.1"), 10);
    assert_int_equal(sim_host_sessions(six), 0);
    assert_int_equal(sim_host_sessions(only), 0);
    assert_true(counted(&f, "source_unfit") > 0);
    assert_int_equal(queued(&f), 1);
}

int main(void)
{
#define SCENARIO(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        SCENARIO(test_rate),
        SCENARIO(test_burst),
        SCENARIO(test_shared_by_name),
        SCENARIO(test_outlives_its_queue),
        SCENARIO(test_dead_host_costs_nothing),
        SCENARIO(test_reload_changes_rate),
        SCENARIO(test_concurrency_of_two_routes),
        SCENARIO(test_reload_changes_concurrency),
        SCENARIO(test_concurrency_of_a_fallback),
        SCENARIO(test_spread_evenly),
        SCENARIO(test_in_turn),
        SCENARIO(test_source_concurrency),
        SCENARIO(test_source_rate),
        SCENARIO(test_takes_over),
        SCENARIO(test_waits_and_is_reloaded),
        SCENARIO(test_broken_tls_with_one_connection),
        SCENARIO(test_not_on_this_machine),
        SCENARIO(test_missing_for_ever),
        SCENARIO(test_families),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
