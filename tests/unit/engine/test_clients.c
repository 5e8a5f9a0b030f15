/* test_clients.c - what each client does: who is one, connections at once, rates, floods. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <pthread.h>
#include <cmocka.h>

#include "engine/clients.h"
#include "engine/limits.h"

struct fixture {
    struct clients *c;
    struct settings *set;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->c = clients_new();
    f->set = settings_new();
    assert_true(f->c && f->set);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    clients_free(f->c);
    settings_unref(f->set);
    free(f);
    return 0;
}

static uint64_t key(const struct fixture *f, const char *ip)
{
    struct net_addr a;

    assert_int_equal(net_addr_parse_ip(str_of(ip), &a), 0);
    return clients_key(f->set, &a);
}

static void test_who_is_one(void **state)
{
    struct fixture *f = *state;
    struct net_addr path = { .family = NET_UNIX };

    assert_int_not_equal(key(f, "192.0.2.1"), key(f, "192.0.2.2"));
    assert_int_equal(key(f, "2001:db8:1:2::1"), key(f, "2001:db8:1:2:ffff::9"));
    assert_int_not_equal(key(f, "2001:db8:1:2::1"), key(f, "2001:db8:1:3::1"));
    assert_int_equal(key(f, "::ffff:192.0.2.1"), key(f, "192.0.2.1"));
    assert_int_equal(key(f, "127.9.9.9"), 0); /* exempt by default */
    assert_int_equal(key(f, "::1"), 0);
    assert_int_equal(clients_key(f->set, &path), 0);
    f->set->clients.ipv4_prefix = 20;
    f->set->clients.ipv6_prefix = 56;
    assert_int_equal(key(f, "192.0.2.1"), key(f, "192.0.15.200"));
    assert_int_not_equal(key(f, "192.0.2.1"), key(f, "192.0.16.1"));
    assert_int_equal(key(f, "2001:db8:1:200::1"), key(f, "2001:db8:1:2ff::1"));
    assert_int_not_equal(key(f, "2001:db8:1:200::1"), key(f, "2001:db8:1:300::1"));
    f->set->clients.n_exempt = 0;
    assert_int_not_equal(key(f, "127.0.0.1"), 0);
}

static void test_connections_at_once(void **state)
{
    struct fixture *f = *state;
    uint64_t a = key(f, "192.0.2.1"), b = key(f, "192.0.2.2");

    for (int i = 0; i < 3; i++)
        assert_true(clients_enter(f->c, a, 3));
    assert_false(clients_enter(f->c, a, 3));
    assert_int_equal(clients_connections(f->c, a), 3);
    assert_true(clients_enter(f->c, b, 3));
    assert_true(clients_enter(f->c, a, 0)); /* no limit */
    clients_leave(f->c, a);
    clients_leave(f->c, a);
    assert_true(clients_enter(f->c, a, 3));
    for (int i = 0; i < 9; i++) /* more than there are */
        clients_leave(f->c, a);
    assert_int_equal(clients_connections(f->c, a), 0);
    assert_true(clients_enter(f->c, 0, 1) && clients_enter(f->c, 0, 1));
    assert_true(clients_enter(NULL, a, 1));
    clients_leave(NULL, a);
}

/* Memory is fixed; whom it has no room for is let in, and those that are counted stay counted. */
static void test_flood_of_addresses(void **state)
{
    struct fixture *f = *state;
    uint64_t good = key(f, "192.0.2.1");
    char text[64];

    assert_true(clients_enter(f->c, good, 1));
    for (unsigned i = 0; i < 200000; i++) {
        snprintf(text, sizeof(text), "2001:db8:%x:%x::1", i >> 16, i & 0xffff);
        assert_true(clients_enter(f->c, key(f, text), 1));
    }
    assert_false(clients_enter(f->c, good, 1));
    for (unsigned i = 0; i < 200000; i++) {
        snprintf(text, sizeof(text), "2001:db8:%x:%x::1", i >> 16, i & 0xffff);
        clients_leave(f->c, key(f, text));
    }
    clients_leave(f->c, good);
    assert_int_equal(clients_connections(f->c, good), 0);
}

static void test_rates(void **state)
{
    struct fixture *f = *state;
    uint64_t a = key(f, "192.0.2.1"), b = key(f, "192.0.2.2");

    assert_true(clients_may(f->c, a, f->set, CLIENTS_MESSAGE, 1000)); /* no rate */
    assert_int_equal(limit_rate_parse(STR("2/m"), &f->set->clients.message_rate), 0);
    assert_int_equal(limit_rate_parse(STR("1/m"), &f->set->clients.recipient_rate), 0);
    assert_true(clients_may(f->c, a, f->set, CLIENTS_MESSAGE, 1000));
    assert_true(clients_may(f->c, a, f->set, CLIENTS_MESSAGE, 1000));
    assert_false(clients_may(f->c, a, f->set, CLIENTS_MESSAGE, 1000));
    assert_true(clients_may(f->c, a, f->set, CLIENTS_RECIPIENT, 1000)); /* apart */
    assert_false(clients_may(f->c, a, f->set, CLIENTS_RECIPIENT, 1000));
    assert_true(clients_may(f->c, a, f->set, CLIENTS_CONNECTION, 1000));
    assert_true(clients_may(f->c, b, f->set, CLIENTS_MESSAGE, 1000));
    assert_true(clients_may(f->c, 0, f->set, CLIENTS_MESSAGE, 1000));
    assert_false(clients_may(f->c, a, f->set, CLIENTS_MESSAGE, 30999));
    assert_true(clients_may(f->c, a, f->set, CLIENTS_MESSAGE, 31001));
}

static void *come_and_go(void *arg)
{
    struct fixture *f = arg;
    uint64_t one = key(f, "192.0.2.1");

    for (int i = 0; i < 20000; i++) {
        bool in = clients_enter(f->c, one, 3);
        CHECK(clients_connections(f->c, one) <= 3);
        if (in)
            clients_leave(f->c, one);
    }
    return NULL;
}

static void test_from_all_threads(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[4];

    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, f), 0);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(clients_connections(f->c, key(f, "192.0.2.1")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_who_is_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_connections_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flood_of_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rates, setup, teardown),
        cmocka_unit_test_setup_teardown(test_from_all_threads, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
