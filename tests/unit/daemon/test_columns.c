/* Times, sizes and texts as commands print them; what `tern sink --reject` takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/columns.h"
#include "daemon/sink.h"

static void test_times(void **state)
{
    const int64_t at = 1795455339123;
    char text[40];

    assert_true(time_parse_iso("2026-11-23T17:35:39.123Z") == at);
    assert_true(time_parse_iso("") == 0);
    assert_true(time_parse_iso("soon") == 0);
    assert_string_equal(time_relative("2026-11-23T17:35:39.123Z", at, text), "now");
    assert_string_equal(time_relative("2026-11-23T17:35:39.123Z", at - 250000, text), "in 4m10s");
    assert_string_equal(time_relative("2026-11-23T17:35:39.123Z", at + 250900, text), "4m10s ago");
    assert_string_equal(time_relative("", at, text), "");
}

static void test_sizes(void **state)
{
    char text[16];

    assert_string_equal(size_text(0, text), "0");
    assert_string_equal(size_text(1023, text), "1023");
    assert_string_equal(size_text(1024, text), "1.0K");
    assert_string_equal(size_text(50 * 1024 * 1024, text), "50M");
    assert_string_equal(size_text(INT64_MAX, text), "8192P");
}

static void test_clean(void **state)
{
    char text[] = "a\x1b[31m\r\n\x7f\xc3\xbc";

    clean_text(text);
    assert_string_equal(text, "a?[31m???\xc3\xbc");
}

static void test_rejects(void **state)
{
    struct sink_reject r;

    assert_true(sink_reject_parse("u@example.com=550", &r));
    assert_int_equal(r.code, 550);
    assert_true(str_eq(r.recipient, STR("u@example.com")));
    assert_true(sink_reject_parse("a=b@example.com=451", &r));
    assert_true(str_eq(r.recipient, STR("a=b@example.com")));
    assert_false(sink_reject_parse("u@example.com", &r));
    assert_false(sink_reject_parse("=550", &r));
    assert_false(sink_reject_parse("u@example.com=250", &r));
    assert_false(sink_reject_parse("u@example.com=600", &r));
    assert_false(sink_reject_parse("u@example.com=", &r));
    assert_false(sink_reject_parse("", &r));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_clean),
        cmocka_unit_test(test_rejects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
