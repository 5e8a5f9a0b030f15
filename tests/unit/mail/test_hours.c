/* Parts of the day: what is written, what is refused, when they begin. */
#include "check.h"

#include "mail/hours.h"

#define HOUR INT64_C(3600000)

static struct hours hours_of(const char *text)
{
    struct hours h;

    assert_int_equal(hours_parse(str_of(text), &h), 0);
    return h;
}

static void test_text(void **state)
{
    static const char *const texts[] = { "22:00-06:00", "00:00-24:00", "08:30-17:45",
                                         "23:59-00:00" };
    char text[HOURS_TEXT];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct hours h = hours_of(texts[i]);
        assert_string_equal(hours_text(&h, text), texts[i]);
    }
    struct hours h = hours_of(" 22:00 - 06:00 ");
    assert_string_equal(hours_text(&h, text), "22:00-06:00");
}

static void test_refuses(void **state)
{
    static const char *const texts[] = { "",
                                         "22:00",
                                         "22:00-",
                                         "22-06",
                                         "24:00-06:00",
                                         "22:60-06:00",
                                         "25:00-06:00",
                                         "22:00-22:00",
                                         "a2:00-06:00",
                                         "2:00-06:00",
                                         "22:00-06:000",
                                         "00:00-24:01" };
    struct hours h;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        assert_int_equal(hours_parse(str_of(texts[i]), &h), -EINVAL);
}

static void test_begin(void **state)
{
    struct hours night = hours_of("22:00-06:00"), office = hours_of("08:00-17:00");
    struct hours always = hours_of("00:00-24:00"), none = { 0 };
    int64_t day = 20000 * 24 * HOUR;

    (void)state;
    assert_int_equal(hours_begin(&night, day + 12 * HOUR), day + 22 * HOUR);
    assert_int_equal(hours_begin(&night, day + 22 * HOUR), day + 22 * HOUR);
    assert_int_equal(hours_begin(&night, day + 23 * HOUR), day + 23 * HOUR);
    assert_int_equal(hours_begin(&night, day + 6 * HOUR - 1), day + 6 * HOUR - 1);
    assert_int_equal(hours_begin(&night, day + 6 * HOUR), day + 22 * HOUR);
    assert_int_equal(hours_begin(&office, day), day + 8 * HOUR);
    assert_int_equal(hours_begin(&office, day + 16 * HOUR), day + 16 * HOUR);
    assert_int_equal(hours_begin(&office, day + 17 * HOUR), day + 32 * HOUR);
    assert_int_equal(hours_begin(&always, day + 5), day + 5);
    assert_int_equal(hours_begin(&none, day + 5), day + 5);
    assert_int_equal(hours_begin(&office, -24 * HOUR), -16 * HOUR); /* before 1970 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_begin),
    };

    return cmocka_run_group_tests_name("hours", tests, NULL, NULL);
}
