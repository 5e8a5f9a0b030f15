/* The table of local addresses, from several threads at once: no connection and no message more than is allowed. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine/lanes.h"
#include "engine/sources.h"

enum { THREADS = 4, ROUNDS = 20000, MOST = 3 };

static struct sources *all;
static struct lanes *lanes;
static atomic_uint most_open, entered, admitted, in_lane, most_in_lane;

static struct net_addr address(int i)
{
    char text[32];
    struct net_addr a;
    snprintf(text, sizeof text, "192.0.%d.%d", 2 + i / 200, i % 200 + 1);
    assert_int_equal(net_addr_parse_ip(str_of(text), &a), 0);
    return a;
}

static void note(atomic_uint *most, unsigned now)
{
    unsigned seen = atomic_load(most);
    while (now > seen && !atomic_compare_exchange_weak(most, &seen, now))
        continue;
}

static void *work(void *arg)
{
    struct net_addr a = address(7);
    struct rate rate = { .count = 100, .burst = 50, .period_ms = 60000 };
    struct route limited = { .queue = STR("fallback"), .concurrency = 2 };
    for (int i = 0; i < ROUNDS; i++) {
        struct source *s = sources_get(all, &a);
        struct throttle_ticket ticket;
        struct lane_pass pass;
        if (source_enter(s, MOST)) {
            atomic_fetch_add(&entered, 1);
            note(&most_open, atomic_load(&s->open));
            source_leave(s);
        }
        if (throttle_admit(&s->throttle, &rate, 1000000, &ticket) == 0)
            atomic_fetch_add(&admitted, 1);
        if (lanes_enter(lanes, &limited, 1, 1000000, &pass) == 0) {
            note(&most_in_lane, atomic_fetch_add(&in_lane, 1) + 1);
            atomic_fetch_sub(&in_lane, 1);
            lanes_leave(lanes, &pass);
        }
    }
    return arg;
}

static void test_threads(void **state)
{
    pthread_t thread[THREADS];
    struct net_addr a = address(7);
    all = sources_new();
    lanes = lanes_new();
    assert_non_null(all);
    assert_non_null(lanes);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, work, NULL), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    struct source *s = sources_get(all, &a);
    assert_in_range(most_open, 1, MOST);
    assert_int_equal(atomic_load(&s->open), 0);
    assert_int_equal(atomic_load(&s->connections), entered);
    assert_int_equal(admitted, 50); /* the clock stands still: the burst, and nothing else */
    assert_in_range(most_in_lane, 1, 2);
    lanes_free(lanes);
    sources_free(all);
}

/* Places are found again, and when all are taken the rest is told so. */
static void test_places(void **state)
{
    size_t n = 0;
    all = sources_new();
    assert_non_null(all);
    for (int i = 0; i < SOURCES_MAX; i++) {
        struct net_addr a = address(i);
        struct source *s = sources_get(all, &a);
        assert_non_null(s);
        assert_ptr_equal(sources_get(all, &a), s);
        assert_true(net_addr_same_ip(&s->addr, &a));
    }
    struct net_addr more = address(SOURCES_MAX);
    assert_null(sources_get(all, &more));
    for (size_t i = 0; i < SOURCES_PLACES; i++)
        n += sources_at(all, i) != NULL;
    assert_int_equal(n, SOURCES_MAX);
    sources_free(all);
    assert_null(sources_get(NULL, &more));
}

/* The rate of a fallback; names that nobody needs make room. */
static void test_lanes(void **state)
{
    struct route r = { .queue = STR("one"), .rate = { .count = 1, .period_ms = 60000 } };
    struct lane_pass a, b;
    char name[32];
    lanes = lanes_new();
    assert_non_null(lanes);
    assert_int_equal(lanes_enter(lanes, &r, 1, 1000000, &a), 0);
    assert_int_equal(lanes_enter(lanes, &r, 2, 1000000, &b), 60000);
    lanes_leave(lanes, &b); /* holds nothing */
    lanes_leave(lanes, &a); /* unused: paid back */
    assert_int_equal(lanes_enter(lanes, &r, 1, 1000000, &a), 0);
    a.ticket = (struct throttle_ticket){ 0 }; /* used */
    lanes_leave(lanes, &a);
    assert_int_equal(lanes_enter(lanes, &r, 1, 1030000, &a), 30000);
    for (int i = 0; i < 100000; i++) {
        snprintf(name, sizeof name, "queue %d", i);
        struct route other = { .queue = str_of(name), .concurrency = 1 };
        assert_int_equal(lanes_enter(lanes, &other, 1, 1030000, &a), 0);
        assert_true(a.name != 0);
        lanes_leave(lanes, &a);
    }
    assert_int_equal(lanes_enter(lanes, &r, 1, 1040000, &a), 20000); /* what is in use stays */
    assert_int_equal(lanes_enter(NULL, &r, 1, 0, &a), 0);
    lanes_free(lanes);
}

enum { SLOW_MS = 10000 };

/* What becomes free is for who has waited longest, as long as it comes back for it. */
static void test_lanes_in_order(void **state)
{
    struct route r = { .queue = STR("one"), .concurrency = 1 };
    struct lane_pass first, other, none;
    int64_t now = 1000000;
    lanes = lanes_new();
    assert_non_null(lanes);
    assert_int_equal(lanes_enter(lanes, &r, 1, now, &first), 0);
    assert_int_equal(lanes_enter(lanes, &r, 2, now, &none), 50);
    assert_int_equal(lanes_enter(lanes, &r, 3, now, &none), 100);
    lanes_leave(lanes, &first);
    assert_int_equal(lanes_enter(lanes, &r, 3, now + 10, &none), 100); /* 2 is before it */
    assert_int_equal(lanes_enter(lanes, &r, 1, now + 10, &none), 150);
    assert_int_equal(lanes_enter(lanes, &r, 2, now + 40, &other), 0);
    assert_int_equal(lanes_enter(lanes, &r, 2, now + 50, &none),
                     150); /* the next one: behind them */
    lanes_leave(lanes, &other);
    /* 3 is held up elsewhere: it is waited for, for a while, and keeps its place. */
    assert_int_equal(lanes_enter(lanes, &r, 1, now + 3000, &none), 100);
    assert_int_equal(lanes_enter(lanes, &r, 1, now + 3200, &other), 0);
    lanes_leave(lanes, &other);
    assert_int_equal(lanes_enter(lanes, &r, 3, now + 3200, &other), 0);
    lanes_leave(lanes, &other);
    /* More than there are places for. */
    assert_int_equal(lanes_enter(lanes, &r, 1000, now + SLOW_MS, &first), 0);
    for (uint64_t who = 1; who <= 4 * LANE_LINE; who++)
        assert_in_range(lanes_enter(lanes, &r, who, now + SLOW_MS, &none), 50, 1000);
    lanes_leave(lanes, &first);
    assert_int_equal(lanes_enter(lanes, &r, 4 * LANE_LINE, now + SLOW_MS, &none), 1000);
    assert_int_equal(lanes_enter(lanes, &r, 4 * LANE_LINE, now + 2 * SLOW_MS, &first), 0);
    lanes_leave(lanes, &first);
    lanes_free(lanes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_lanes_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
