/* Durations, sizes and dates: forms, limits; dates against the C library's calendar. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "base/units.h"

static void check_duration(const char *text, int error, int64_t ms)
{
    int64_t v = 4711;

    assert_int_equal(duration_parse(str_of(text), &v), error);
    assert_true(v == (error ? 4711 : ms));
}

static void test_duration_parse(void **state)
{
    static const char *const bad[] = {
        NULL,
        "",
        "s",
        "ms",
        "-1s",
        "+1s",
        "1.5h",
        "1 s",
        " 1s",
        "1s ",
        "1S",
        "1H",
        "1y",
        "1mss",
        "2h15m",
        "0x1s",
        "99999999999999999999y",
    };

    (void)state;
    check_duration("500ms", 0, 500);
    check_duration("30s", 0, 30000);
    check_duration("15m", 0, 900000);
    check_duration("2h", 0, 7200000);
    check_duration("5d", 0, 432000000);
    check_duration("1w", 0, 604800000);
    check_duration("90", 0, 90000);
    check_duration("0", 0, 0);
    check_duration("9223372036854775807ms", 0, INT64_MAX);
    check_duration("9223372036854775808ms", -ERANGE, 0);
    check_duration("9223372036854776", -ERANGE, 0);
    check_duration("18446744073709551615w", -ERANGE, 0);
    check_duration("99999999999999999999s", -ERANGE, 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        check_duration(bad[i], -EINVAL, 0);
}

static void check_size(const char *text, int error, uint64_t bytes)
{
    uint64_t v = 4711;

    assert_int_equal(size_parse(str_of(text), &v), error);
    assert_true(v == (error ? 4711 : bytes));
}

static void test_size_parse(void **state)
{
    static const char *const bad[] = { NULL, "", "M", "-1", "1.5G", "1KB", "1 K", "1P", "K1" };

    (void)state;
    check_size("4096", 0, 4096);
    check_size("10K", 0, 10240);
    check_size("10k", 0, 10240);
    check_size("50M", 0, 52428800);
    check_size("1G", 0, 1073741824);
    check_size("1T", 0, 1099511627776);
    check_size("0", 0, 0);
    check_size("18446744073709551615", 0, UINT64_MAX);
    check_size("18446744073709551616", -ERANGE, 0);
    check_size("18014398509481984K", -ERANGE, 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        check_size(bad[i], -EINVAL, 0);
}

static void test_duration_text(void **state)
{
    static const struct {
        int64_t ms;
        const char *text;
    } forms[] = {
        { 0, "0s" },
        { 1, "1ms" },
        { 350, "350ms" },
        { 999, "999ms" },
        { 1000, "1s" },
        { 1099, "1s" },
        { 4200, "4.2s" },
        { 4299, "4.2s" },
        { 59999, "59.9s" },
        { 60000, "1m" },
        { 60999, "1m" },
        { 61000, "1m1s" },
        { 3600000, "1h" },
        { 3659999, "1h" },
        { 8100000, "2h15m" },
        { 8159999, "2h15m" },
        { 86400000, "1d" },
        { 86400000 + 3600000, "1d1h" },
        { 604800000, "1w" },
        { 691200000, "1w1d" },
        { 604800000 + 3600000, "1w" },
        { -4200, "-4.2s" },
        { -1, "-1ms" },
        { INT64_MAX, "15250284452w3d" },
        { INT64_MIN, "-15250284452w3d" },
    };
    char text[32];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(forms); i++)
        assert_string_equal(duration_text(forms[i].ms, text), forms[i].text);
}

static void test_dates(void **state)
{
    static const struct {
        int64_t ms;
        const char *iso, *rfc;
    } dates[] = {
        { 0, "1970-01-01T00:00:00.000Z", "Thu, 1 Jan 1970 00:00:00 +0000" },
        { -1, "1969-12-31T23:59:59.999Z", "Wed, 31 Dec 1969 23:59:59 +0000" },
        { 1795455339123, "2026-11-23T17:35:39.123Z", "Mon, 23 Nov 2026 17:35:39 +0000" },
        { 951782400000, "2000-02-29T00:00:00.000Z", "Tue, 29 Feb 2000 00:00:00 +0000" },
        { 4107542400000, "2100-03-01T00:00:00.000Z", "Mon, 1 Mar 2100 00:00:00 +0000" },
        { 253402300799999, "9999-12-31T23:59:59.999Z", "Fri, 31 Dec 9999 23:59:59 +0000" },
        { 253402300800000, "9999-12-31T23:59:59.999Z", "Fri, 31 Dec 9999 23:59:59 +0000" },
        { INT64_MAX, "9999-12-31T23:59:59.999Z", "Fri, 31 Dec 9999 23:59:59 +0000" },
        { -62167219200000, "0000-01-01T00:00:00.000Z", "Sat, 1 Jan 0000 00:00:00 +0000" },
        { INT64_MIN, "0000-01-01T00:00:00.000Z", "Sat, 1 Jan 0000 00:00:00 +0000" },
    };
    char text[40];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(dates); i++) {
        assert_string_equal(date_iso8601(dates[i].ms, text), dates[i].iso);
        assert_string_equal(date_rfc5322(dates[i].ms, text), dates[i].rfc);
    }
}

/* Every day of the years 0000 to 9999 would take long; one in 3 still meets all dates. */
static void test_dates_against_libc(void **state)
{
    (void)state;
    for (int64_t day = -719528; day <= 2932896; day += 3) {
        time_t seconds = (time_t)(day * 86400 + (day & 0xffff) % 86400);
        struct tm tm;
        char expected[40], text[40];
        assert_non_null(gmtime_r(&seconds, &tm));
        snprintf(expected, sizeof(expected), "%04d-%02d-%02dT%02d:%02d:%02d.007Z",
                 (int16_t)(tm.tm_year + 1900), (int8_t)(tm.tm_mon + 1), (int8_t)tm.tm_mday,
                 (int8_t)tm.tm_hour, (int8_t)tm.tm_min, (int8_t)tm.tm_sec);
        assert_string_equal(date_iso8601(seconds * 1000 + 7, text), expected);
        strftime(expected, sizeof(expected), "%a, ", &tm);
        assert_memory_equal(date_rfc5322(seconds * 1000, text), expected, 5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_duration_parse),     cmocka_unit_test(test_size_parse),
        cmocka_unit_test(test_duration_text),      cmocka_unit_test(test_dates),
        cmocka_unit_test(test_dates_against_libc),
    };

    return cmocka_run_group_tests_name("units", tests, NULL, NULL);
}
