/* How fast messages are handed over: never more than the rate in any period, and all that it allows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/throttle.h"

enum { T0 = 1000000, MANY = 5000 };

static struct rate rate(const char *text)
{
    struct rate r;
    assert_int_equal(rate_parse(str_of(text), &r), 0);
    return r;
}

static int64_t admit(struct throttle *t, const struct rate *r, int64_t now)
{
    struct throttle_ticket ticket;
    return throttle_admit(t, r, now, &ticket);
}

/* The most in any period of that length. */
static size_t most_in(const int64_t *at, size_t n, int64_t period)
{
    size_t most = 0;
    for (size_t i = 0, k = 0; i < n; i++) {
        while (at[i] - at[k] >= period)
            k++;
        most = MAX(most, i - k + 1);
    }
    return most;
}

/* Asks whenever it is told to. */
static size_t run(const struct rate *r, int64_t until, int64_t *at)
{
    struct throttle t = { 0 };
    size_t n = 0;
    for (int64_t now = T0; now < T0 + until && n < MANY;) {
        int64_t wait = admit(&t, r, now);
        if (wait == 0)
            at[n++] = now;
        else
            assert_int_equal(throttle_wait(&t, r, now), wait);
        now += wait;
    }
    return n;
}

static void test_evenly(void **state)
{
    static const char *const texts[] = { "100/m", "2/s", "7/s", "1000/h", "3/10s", "1/d" };
    static int64_t at[MANY];
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct rate r = rate(texts[i]);
        size_t n = run(&r, 3 * r.period_ms, at);
        assert_in_range(most_in(at, n, r.period_ms), 1, r.count);
        /* All that is allowed is used, but for what the clock's milliseconds cost. */
        assert_in_range(n, (size_t)r.count * 3 * 98 / 100, (size_t)r.count * 3);
        assert_true(throttle_is_strict(&r) || r.period_ms / r.count < 101);
    }
}

static void test_burst(void **state)
{
    static int64_t at[MANY];
    struct rate r = rate("100/m,burst=20");
    size_t n = run(&r, 10 * 60000, at);
    assert_int_equal(at[19], T0); /* twenty at once */
    assert_true(at[20] >= T0 + 600);
    assert_int_equal(most_in(at, n, 60000), 119);
    assert_int_equal(most_in(at, n, 1), 20);
    assert_false(throttle_is_strict(&r));
}

static void test_fast(void **state)
{
    static int64_t at[MANY];
    struct rate r = rate("1000/s");
    size_t n = run(&r, 4000, at);
    assert_in_range(n, 3900, 4010);
    assert_in_range(most_in(at, n, 1000), 990, 1009); /* what goes in ten milliseconds, at once */
    r = rate("1000000/s");
    assert_int_equal(run(&r, 1000, at), MANY);
}

/* The wait is exact: not a millisecond before, and then at once. */
static void test_exact(void **state)
{
    struct throttle t = { 0 };
    struct rate r = rate("100/m");
    assert_int_equal(admit(&t, &r, T0), 0);
    assert_int_equal(admit(&t, &r, T0), 600);
    assert_int_equal(admit(&t, &r, T0 + 599), 1);
    assert_int_equal(admit(&t, &r, T0 + 600), 0);
    assert_int_equal(throttle_known_for(&t, T0 + 600), 600);
    assert_int_equal(throttle_known_for(&t, T0 + 1200), 0);
}

/* Who reached nobody has cost nothing, and no more than that is given back. */
static void test_cancel(void **state)
{
    struct throttle t = { 0 };
    struct throttle_ticket a, b;
    struct rate r = rate("1/m,burst=2");
    assert_int_equal(throttle_admit(&t, &r, T0, &a), 0);
    assert_int_equal(throttle_admit(&t, &r, T0, &b), 0);
    assert_int_equal(throttle_left(&t, &r, T0), 0);
    throttle_cancel(&t, &a);
    assert_int_equal(a.rate.count, 0);
    throttle_cancel(&t, &a); /* once */
    assert_int_equal(throttle_left(&t, &r, T0), 1);
    /* It was full meanwhile: what b paid has been forgotten, and what is paid now stays paid. */
    int64_t later = T0 + 600000;
    assert_int_equal(admit(&t, &r, later), 0);
    assert_int_equal(admit(&t, &r, later), 0);
    throttle_cancel(&t, &b);
    assert_int_equal(admit(&t, &r, later), 60000);
}

static void test_went_late(void **state)
{
    struct throttle t = { 0 };
    struct rate r = rate("1/m");
    assert_int_equal(admit(&t, &r, T0), 0);
    throttle_went(&t, &r, T0 + 30000); /* its connection took so long to stand */
    assert_int_equal(admit(&t, &r, T0 + 60000), 30000);
    assert_int_equal(admit(&t, &r, T0 + 90000), 0);
}

static void test_charge(void **state)
{
    struct throttle t = { 0 };
    struct rate r = rate("1/m");
    throttle_charge(&t, &r, T0);
    throttle_charge(&t, &r, T0);
    assert_int_equal(admit(&t, &r, T0), 120000);
}

/* A reload: nobody waits by a rate that is no longer in force. */
static void test_other_rate(void **state)
{
    struct throttle t = { 0 };
    struct rate slow = rate("1/d"), fast = rate("100/m");
    assert_int_equal(admit(&t, &slow, T0), 0);
    int64_t wait = admit(&t, &fast, T0);
    assert_in_range(wait, 1, 1200);
    assert_int_equal(admit(&t, &fast, T0 + wait), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_evenly), cmocka_unit_test(test_burst),
        cmocka_unit_test(test_fast),   cmocka_unit_test(test_exact),
        cmocka_unit_test(test_cancel), cmocka_unit_test(test_went_late),
        cmocka_unit_test(test_charge), cmocka_unit_test(test_other_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
