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

/* ---- connections and the line ---- */

static int called[4];
static struct host_place places[4];

static void on_called(struct host_place *p)
{
    called[p - places]++;
}

static void places_begin(void)
{
    memset(called, 0, sizeof called);
    for (int i = 0; i < 4; i++)
        hosts_place_init(&places[i], on_called);
}

static void test_Q3_room_for_so_many(void **state)
{
    struct net_addr a = sim_addr("192.0.2.1:25"), other = sim_addr("192.0.2.1:26");
    struct host *host = NULL;
    for (uint32_t i = 0; i < set->queue.host_connections; i++) {
        assert_true(hosts_room(h, &a, NULL, false));
        assert_false(hosts_full(h, &a));
        host = hosts_opened(h, &a);
        assert_non_null(host);
    }
    assert_false(hosts_room(h, &a, NULL, false));
    assert_true(hosts_room(h, &other, NULL, false));
    hosts_idle(h, host);
    assert_true(hosts_room(h, &a, NULL, false)); /* it can be used, or replaced */
    assert_true(hosts_full(h, &a));
    hosts_in_use(host);
    for (uint32_t i = 0; i < set->queue.host_connections; i++)
        hosts_closed(h, host, true);
    assert_true(hosts_room(h, &a, NULL, false));
}

static void test_Q3_refused_while_others_work(void **state)
{
    struct net_addr a = sim_addr("192.0.2.1:25");
    struct host *host = NULL;
    for (int i = 0; i < 5; i++)
        host = hosts_opened(h, &a);
    assert_false(hosts_refused(h, &a, engine_now(engine0()), STR("too many")));
    hosts_closed(h, host, true);
    assert_int_equal(hosts_wait(h, &a), 0);
    assert_false(hosts_room(h, &a, NULL, false)); /* four are its limit now */
    for (int i = 0; i < 3; i++) {
        assert_false(hosts_refused(h, &a, engine_now(engine0()), STR("refused")));
        hosts_closed(h, host, true);
    }
    assert_true(hosts_refused(h, &a, engine_now(engine0()), STR("refused"))); /* the last one */
    hosts_closed(h, host, true);
    assert_true(hosts_wait(h, &a) > 0);
    hosts_worked(h, &a);
    assert_int_equal(hosts_wait(h, &a), 0);
    assert_true(hosts_room(h, &a, NULL, false));
    hosts_opened(h, &a);
    hosts_opened(h, &a);
    assert_false(hosts_room(h, &a, NULL, false)); /* slowly */
}

static void test_Q3_the_line_is_called_in_turn(void **state)
{
    struct net_addr a = sim_addr("192.0.2.1:25");
    places_begin();
    set->queue.host_connections = 1;
    struct host *host = hosts_opened(h, &a);
    for (int i = 0; i < 3; i++)
        hosts_stand(h, &a, &places[i]);
    hosts_idle(h, host);
    assert_int_equal(called[0], 1);
    assert_int_equal(called[1] + called[2], 0);
    assert_false(hosts_room(h, &a, NULL, false)); /* nobody overtakes */
    assert_true(hosts_room(h, &a, &places[0], false));
    places[0].state = PLACE_COMING;
    hosts_in_use(host);
    hosts_served(h, &a, &places[0]); /* at the end again */
    hosts_leave(h, &places[1]);      /* gives up before its turn */
    hosts_idle(h, host);
    assert_int_equal(called[1], 0);
    assert_int_equal(called[2], 1);
    hosts_leave(h, &places[2]); /* at its turn: the next one */
    assert_int_equal(called[0], 2);
    places[0].state = PLACE_COMING;
    hosts_in_use(host);
    hosts_stand(h, &a, &places[3]);
    hosts_stand(h, &a, &places[0]); /* in vain: first again */
    hosts_idle(h, host);
    assert_int_equal(called[0], 3);
    assert_int_equal(called[3], 0);
    hosts_leave(h, &places[0]);
    assert_int_equal(called[3], 1);
    hosts_leave(h, &places[3]);
    hosts_closed(h, host, false);
    set->queue.host_connections = 50;
}

/* It goes down: whoever waits for room there has nothing to wait for. */
static void test_Q3_all_are_called_when_it_is_down(void **state)
{
    struct net_addr a = sim_addr("192.0.2.1:25");
    places_begin();
    struct host *host = hosts_opened(h, &a);
    set->queue.host_connections = 1;
    for (int i = 0; i < 3; i++)
        hosts_stand(h, &a, &places[i]);
    assert_int_equal(called[0] + called[1] + called[2], 0);
    assert_true(hosts_refused(h, &a, engine_now(engine0()), STR("gone")));
    assert_int_equal(called[0] + called[1] + called[2], 3);
    for (int i = 0; i < 3; i++)
        hosts_leave(h, &places[i]);
    hosts_closed(h, host, true);
    set->queue.host_connections = 50;
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
    struct net_addr b = sim_addr("192.0.2.2:25");
    struct host *used = hosts_opened(h, &b);
    for (unsigned i = 0; i < 60000; i++) {
        a.ip[1] = (uint8_t)(i >> 16);
        a.ip[2] = (uint8_t)(i >> 8);
        a.ip[3] = (uint8_t)i;
        hosts_failed(h, &a, STR("refused"));
    }
    assert_true(hosts_wait(h, &a) > 0);
    a.ip[1] = a.ip[2] = a.ip[3] = 0;
    assert_int_equal(hosts_wait(h, &a), 0);
    hosts_idle(h, used); /* but none that has a connection */
    hosts_closed(h, used, false);
}

#define WITH_WORLD(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(test_back_off_doubles_to_its_bound),
        WITH_WORLD(test_failures_at_once_are_one),
        WITH_WORLD(test_works_again),
        WITH_WORLD(test_Q3_one_tries),
        WITH_WORLD(test_Q3_room_for_so_many),
        WITH_WORLD(test_Q3_refused_while_others_work),
        WITH_WORLD(test_Q3_the_line_is_called_in_turn),
        WITH_WORLD(test_Q3_all_are_called_when_it_is_down),
        WITH_WORLD(test_forgotten),
        WITH_WORLD(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
