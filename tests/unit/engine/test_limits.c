/* Token buckets: rates as written, bursts, refilling, keys, too many at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine/limits.h"

static void rates(void **state)
{
    static const struct {
        const char *text;
        struct rate r;
    } good[] = {
        { "100/m", { 100, 100, 60000 } },
        { "100/m,burst=20", { 100, 20, 60000 } },
        { "5/10s,burst=50", { 5, 50, 10000 } },
        { "1/d", { 1, 1, 86400000 } },
        { "1000000/s", { 1000000, 1000000, 1000 } },
        { "3/500ms", { 3, 3, 500 } },
    };
    static const char *const bad[] = {
        "",      "100",  "/m",        "0/m",           "100/",           "100/x",
        "-1/m",  "1/0s", "1/m,burst", "1/m,bust=2",    "1/m,burst=0",    "1/m,burst=2,x",
        "1.5/m", " 1/m", "1/m ",      "99999999999/m", "1000000000/52w",
    };
    struct rate r;

    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_int_equal(limit_rate_parse(str_of(good[i].text), &r), 0);
        assert_int_equal(r.count, good[i].r.count);
        assert_int_equal(r.burst, good[i].r.burst);
        assert_int_equal(r.period_ms, good[i].r.period_ms);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (limit_rate_parse(str_of(bad[i]), &r) == 0)
            fail_msg("\"%s\" was taken for a rate", bad[i]);
}

static int64_t take(struct limits *l, const char *key, uint32_t cost, int64_t now)
{
    const struct rate rate = { .count = 60, .burst = 3, .period_ms = 60000 };

    return limits_take(l, STR("name"), str_of(key), &rate, cost, now);
}

static void a_bucket(void **state)
{
    struct limits *l = limits_new();
    int64_t t = 5000;

    for (int i = 0; i < 3; i++)
        assert_int_equal(take(l, "", 1, t), 0);
    assert_int_equal(take(l, "", 1, t), 1000);
    assert_int_equal(take(l, "", 1, t + 400), 600); /* nothing was taken by asking */
    assert_int_equal(take(l, "", 1, t + 1000), 0);
    assert_int_equal(take(l, "", 1, t + 1000), 1000);
    assert_int_equal(take(l, "other", 3, t + 1000), 0);
    assert_int_equal(take(l, "other", 2, t + 1000), 2000);
    /* It fills to the burst and no further. */
    assert_int_equal(take(l, "", 3, t + 3600000), 0);
    assert_int_equal(take(l, "", 1, t + 3600000), 1000);
    limits_free(l);
}

/* Far more keys than there is room for: each of them is limited while it is remembered, all of memory is
 * bounded, and nobody is refused who has taken nothing. */
static void more_than_there_is_room_for(void **state)
{
    struct limits *l = limits_new();
    char key[32];

    for (int i = 0; i < 300000; i++) {
        snprintf(key, sizeof(key), "%d", i);
        assert_int_equal(take(l, key, 1, 1000), 0);
    }
    limits_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates),
        cmocka_unit_test(a_bucket),
        cmocka_unit_test(more_than_there_is_room_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
