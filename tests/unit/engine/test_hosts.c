/* What is known of addresses (ROUTING.md Q3). */
#include "out_world.h"

static struct hosts *h;

static int setup(void **state)
{
    out_setup(state);
    out_start();
    h = hosts_new(engine0());
    assert_non_null(h);
    return 0;
}

static int teardown(void **state)
{
    h = hosts_free(h);
    return out_teardown(state);
}

static void test_back_off_doubles_to_its_bound(void **state)
{
    struct net_addr a = sim_addr("192.0.2.1:25"), other = sim_addr("192.0.2.1:26");
    int64_t expected = set->queue.host_retry_ms;
    assert_int_equal(hosts_wait(h, &a), 0);
    for (int i = 0; i < 12; i++) {
        hosts_failed(h, &a, STR("refused"));
        assert_in_range(hosts_wait(h, &a), expected * 9 / 10 - 1, expected);
        assert_int_equal(hosts_wait(h, &other), 0);
        assert_true(str_eq(hosts_why(h, &a), STR("refused")));
        sim_world_advance(w, hosts_wait(h, &a));
        assert_int_equal(hosts_wait(h, &a), 0);
        expected = MIN(expected * 2, set->queue.host_retry_max_ms);
    }
    assert_int_equal(expected, set->queue.host_retry_max_ms);
}

static void test_failures_at_once_are_one(void **state)
{
    struct net_addr a = sim_addr("[2001:db8::1]:25");
    for (int i = 0; i < 20; i++)
        hosts_failed(h, &a, STR("timeout"));
    assert_true(hosts_wait(h, &a) <= set->queue.host_retry_ms);
}

static void test_works_again(void **state)
{
    struct net_addr a = sim_addr("192.0.2.1:25");
    hosts_failed(h, &a, STR("refused"));
    hosts_worked(h, &a);
    assert_int_equal(hosts_wait(h, &a), 0);
    assert_int_equal(hosts_why(h, &a).n, 0);
    hosts_failed(h, &a, STR("refused"));
    assert_true(hosts_wait(h, &a) <= set->queue.host_retry_ms); /* from the start */
}

/* Many want to know whether it is back: one looks. */
static void test_Q3_one_tries(void **state)
{
    struct net_addr a = sim_addr("192.0.2.1:25");
    assert_int_equal(hosts_try(h, &a), 0);
    assert_int_equal(hosts_try(h, &a), 0); /* nothing is known against it */
    hosts_failed(h, &a, STR("refused"));
    assert_true(hosts_try(h, &a) > 0);
    sim_world_advance(w, hosts_wait(h, &a));
    assert_int_equal(hosts_try(h, &a), 0);
    int64_t wait = hosts_try(h, &a);
    assert_in_range(wait, 1000, 60000);
    sim_world_advance(w, wait); /* that one is never heard of again: the next one looks */
    assert_int_equal(hosts_try(h, &a), 0);
    assert_true(hosts_try(h, &a) > 0);
    hosts_worked(h, &a);
    assert_int_equal(hosts_try(h, &a), 0);
    assert_int_equal(hosts_try(h, &a), 0);
}

static void test_forgotten(void **state)
{
    struct net_addr a = sim_addr("192.0.2.1:25"), b = sim_addr("192.0.2.2:25");
    hosts_failed(h, &a, STR("refused"));
    hosts_failed(h, &b, STR("refused"));
    hosts_forget(h, &a);
    assert_int_equal(hosts_wait(h, &a), 0);
    assert_true(hosts_wait(h, &b) > 0);
    hosts_forget(h, NULL);
    assert_int_equal(hosts_wait(h, &b), 0);
}

/* Bounded: the oldest are forgotten. */
static void test_many(void **state)
{
    struct net_addr a = sim_addr("192.0.2.1:25");
    for (unsigned i = 0; i < 60000; i++) {
        a.ip[1] = (uint8_t)(i >> 16);
        a.ip[2] = (uint8_t)(i >> 8);
        a.ip[3] = (uint8_t)i;
        hosts_failed(h, &a, STR("refused"));
    }
    assert_true(hosts_wait(h, &a) > 0);
    a.ip[1] = a.ip[2] = a.ip[3] = 0;
    assert_int_equal(hosts_wait(h, &a), 0);
}

#define WITH_WORLD(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(test_back_off_doubles_to_its_bound),
        WITH_WORLD(test_failures_at_once_are_one),
        WITH_WORLD(test_works_again),
        WITH_WORLD(test_Q3_one_tries),
        WITH_WORLD(test_forgotten),
        WITH_WORLD(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
