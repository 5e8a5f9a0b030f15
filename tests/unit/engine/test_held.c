/* Releases by the clock: which moment is the next one; and that a route keeps its terms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/held.h"

#define MINUTE INT64_C(60000)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

/* after and result: hours and minutes of day 20000 as HHMM; hours may be past 24. */
static int64_t at(int hhmm)
{
    return 20000 * DAY + hhmm / 100 * HOUR + hhmm % 100 * MINUTE;
}

static void assert_next(struct route_hold h, int after, int64_t offset, int next)
{
    assert_int_equal(held_next_release(&h, at(after), offset) - at(0), at(next) - at(0));
}

static void test_E14_next_release(void **state)
{
    const struct route_hold all_day = { .every_ms = 15 * MINUTE };
    const struct route_hold nightly = { .every_ms = HOUR, .from = 60, .to = 300 };
    const struct route_hold over_midnight = { .every_ms = 50 * MINUTE, .from = 1320, .to = 120 };

    assert_next(all_day, 0, 0, 15);
    assert_next(all_day, 14, 0, 15);
    assert_next(all_day, 15, 0, 30);
    assert_next(all_day, 2350, 0, 2400);
    assert_next(nightly, 0, 0, 100);
    assert_next(nightly, 100, 0, 200);
    assert_next(nightly, 359, 0, 400);
    assert_next(nightly, 400, 0, 2500); /* the end is outside */
    assert_next(nightly, 1200, 0, 2500);
    assert_next(over_midnight, 2100, 0, 2200);
    assert_next(over_midnight, 2200, 0, 2250);
    assert_next(over_midnight, 2330, 0, 2340);
    assert_next(over_midnight, 30, 0, 120);
    assert_next(over_midnight, 120, 0, 2200);
    /* One o'clock in local time is eleven in the evening here. */
    assert_next(nightly, 2200, 2 * HOUR, 2300);
    assert_next(nightly, 300, 2 * HOUR, 2300);
    assert_next(nightly, 0, -5 * HOUR, 600);
    assert_int_equal(held_next_release(&(struct route_hold){ 0 }, at(0), 0), INT64_MAX);
}

static void test_E11_E14_routes_keep_their_terms(void **state)
{
    struct route *r = route_new(ROUTE_HOLD), *back = NULL;
    struct buf b;

    r->queue = STR("shop.example");
    r->hold = (struct route_hold){ 15 * MINUTE, 60, 300, 1000, 1 << 20 };
    assert_int_equal(route_finish(r), 0);
    buf_init(&b, 0);
    assert_int_equal(route_encode(r, &b), 0);
    struct str in = buf_str(&b);
    assert_int_equal(route_decode(&in, &back), 0);
    assert_memory_equal(&back->hold, &r->hold, sizeof(r->hold));
    assert_true(route_same(r, back));
    back->hold.warn_octets++;
    assert_false(route_same(r, back));
    buf_done(&b);
    route_unref(back);
    r->kind = ROUTE_DISCARD;
    assert_int_equal(route_finish(r), -EINVAL);
    route_unref(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_E14_next_release),
        cmocka_unit_test(test_E11_E14_routes_keep_their_terms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
