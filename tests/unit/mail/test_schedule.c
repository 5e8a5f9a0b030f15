/* Schedules of retries: what is written, what is refused, delays, jitter. */
#include "check.h"

#include "mail/schedule.h"

static const char *text(const char *in)
{
    static char dst[512];
    struct schedule s;

    assert_int_equal(schedule_parse(str_of(in), &s), 0);
    return schedule_text(&s, dst, sizeof(dst));
}

static void test_text(void **state)
{
    (void)state;
    assert_string_equal(text("1m"), "1m...");
    assert_string_equal(text("1m,5m,15m*4,1h,2h..."), "1m,5m,15m*4,1h,2h...");
    assert_string_equal(text(" 60s , 300 , 15m * 4,2h ..."), "1m,5m,15m*4,2h...");
    assert_string_equal(text("90s,30d"), "90s,30d...");
    assert_string_equal(text("1m,2h*7"), "1m,2h...");
    assert_string_equal(text("1s*65535,1w"), "1s*65535,7d...");
    assert_string_equal(text(SCHEDULE_DEFAULT_TEXT), SCHEDULE_DEFAULT_TEXT);
    assert_string_equal(text("1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s"),
                        "1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s...");
}

static void test_text_is_bounded(void **state)
{
    struct schedule s = { 0 };
    char dst[8];

    (void)state;
    assert_string_equal(schedule_text(&s, dst, sizeof(dst)), "");
    assert_int_equal(schedule_parse(STR("1m,5m,15m"), &s), 0);
    assert_string_equal(schedule_text(&s, dst, sizeof(dst)), "1m,5m,1");
}

static void test_refuses(void **state)
{
    static const char *const bad[] = {
        "",         " ",        "...",
        "0s",       "500ms",    "1500ms",
        "31d",      "1m,",      ",1m",
        "1m,,2m",   "1m*0",     "1m*",
        "1m*65536", "1m*-1",    "1m*x",
        "*4",       "1m...,2m", "-5m",
        "1x",       "1m....",   "1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s",
    };
    struct schedule s;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(schedule_parse(str_of(bad[i]), &s), -EINVAL);
}

static void test_Q2_delay(void **state)
{
    static const int minutes[] = { 1, 1, 5, 15, 15, 15, 15, 120, 120, 120 };
    struct schedule s;

    (void)state;
    assert_int_equal(schedule_parse(STR("1m,5m,15m*4,2h..."), &s), 0);
    for (uint32_t i = 0; i < ARRAY_LEN(minutes); i++)
        assert_int_equal(schedule_delay(&s, i), minutes[i] * INT64_C(60000));
    assert_int_equal(schedule_delay(&s, UINT32_MAX), 7200000);
}

static void test_Q2_default(void **state)
{
    struct schedule none = { 0 }, s;

    (void)state;
    assert_int_equal(schedule_parse(STR(SCHEDULE_DEFAULT_TEXT), &s), 0);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(schedule_delay(&none, i), schedule_delay(&s, i));
}

static void test_Q2_jitter(void **state)
{
    struct schedule s;
    int64_t least = INT64_MAX, most = 0;

    (void)state;
    assert_int_equal(schedule_parse(STR("10m"), &s), 0);
    for (uint64_t i = 0; i < 100000; i++) {
        int64_t d = schedule_delay_jitter(&s, 1, i * UINT64_C(0x9e3779b97f4a7c15));
        least = MIN(least, d);
        most = MAX(most, d);
    }
    assert_true(least >= 540000 && least < 541000);
    assert_true(most <= 660000 && most > 659000);
}

/* A limit is no moment at which all meet; what it leaves alone is as ever. */
static void test_Q2_most(void **state)
{
    struct schedule s = { 0 };
    int64_t least = INT64_MAX, greatest = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t random = i * UINT64_C(0x9e3779b97f4a7c15);
        int64_t d = schedule_delay_most(&s, 6, 900000, random);
        least = MIN(least, d);
        greatest = MAX(greatest, d);
        assert_int_equal(schedule_delay_most(&s, 1, 900000, random),
                         schedule_delay_jitter(&s, 1, random));
        assert_in_range(schedule_delay_most(&s, 3, 900001, random), 810000, 900001);
    }
    assert_in_range(least, 810000, 812000);
    assert_in_range(greatest, 898000, 900000);
    assert_int_equal(schedule_delay_most(&s, 6, 0, 77), 0);
}

static void test_Q2_spread(void **state)
{
    int64_t greatest = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        int64_t d = schedule_spread(60000, i * UINT64_C(0x9e3779b97f4a7c15));
        assert_in_range(d, 60000, 66000);
        greatest = MAX(greatest, d);
    }
    assert_true(greatest > 65900);
    assert_int_equal(schedule_spread(60000, 12345), schedule_spread(60000, 12345));
    assert_int_equal(schedule_spread(5, UINT64_MAX), 5);
    assert_int_equal(schedule_spread(0, 7), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),       cmocka_unit_test(test_text_is_bounded),
        cmocka_unit_test(test_refuses),    cmocka_unit_test(test_Q2_delay),
        cmocka_unit_test(test_Q2_default), cmocka_unit_test(test_Q2_jitter),
        cmocka_unit_test(test_Q2_most),    cmocka_unit_test(test_Q2_spread),
    };

    return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
