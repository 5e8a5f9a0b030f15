/* Rates as operators write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mail/rate.h"

static void test_parse(void **state)
{
    static const struct {
        const char *text, *again;
        struct rate is;
    } good[] = {
        { "100/m", "100/m", { 100, 0, 60000 } },
        { "2/s", "2/s", { 2, 0, 1000 } },
        { "1000/h,burst=20", "1000/h,burst=20", { 1000, 20, 3600000 } },
        { "5/10s", "5/10s", { 5, 0, 10000 } },
        { "500/1d", "500/d", { 500, 0, 86400000 } },
        { "1/250ms", "1/250ms", { 1, 0, 250 } },
        { "7/90s,burst=1", "7/90s,burst=1", { 7, 1, 90000 } },
    };
    char text[RATE_TEXT];

    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        struct rate r;
        assert_int_equal(rate_parse(str_of(good[i].text), &r), 0);
        assert_int_equal(r.count, good[i].is.count);
        assert_int_equal(r.burst, good[i].is.burst);
        assert_int_equal(r.period_ms, good[i].is.period_ms);
        assert_true(rate_valid(&r));
        assert_string_equal(rate_text(&r, text), good[i].again);
    }
}

static void test_refuse(void **state)
{
    static const char *const bad[] = { "",      "100",          "100/",        "/m",
                                       "0/m",   "-1/m",         "1.5/m",       "100/m,",
                                       "1/0s",  "100/m,bursts", "1/m,burst=0", "100 /m",
                                       "1/foo", "1/m,burst=2,", "9999999999/s" };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct rate r;
        assert_int_equal(rate_parse(str_of(bad[i]), &r), -EINVAL);
    }
}

static void test_valid(void **state)
{
    assert_true(rate_valid(&(struct rate){ 0 }));
    assert_false(rate_valid(&(struct rate){ .burst = 1 }));
    assert_false(rate_valid(&(struct rate){ .count = 1, .period_ms = 0 }));
    assert_false(rate_valid(&(struct rate){ .count = 1, .period_ms = -5 }));
    assert_false(rate_valid(&(struct rate){ .count = 1, .burst = 1, .period_ms = INT64_MAX }));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_refuse),
        cmocka_unit_test(test_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
