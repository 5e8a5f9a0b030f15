/* Events and strings as JSON: escapes, broken UTF-8, numbers, what is left out. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/event.h"

static void check_string(struct str in, const char *expected)
{
    struct buf b;

    buf_init(&b, 0);
    json_add_str(&b, in);
    buf_add_char(&b, '\0');
    assert_int_equal(b.failed, 0);
    assert_string_equal(buf_str(&b).p, expected);
    buf_done(&b);
}

static void test_strings(void **state)
{
    (void)state;
    check_string(STR_NONE, "\"\"");
    check_string(STR(""), "\"\"");
    check_string(STR("plain"), "\"plain\"");
    check_string(STR("\""), "\"\\\"\"");
    check_string(STR("a\"b\\c/"), "\"a\\\"b\\\\c/\"");
    check_string(STR("\b\f\n\r\t"), "\"\\b\\f\\n\\r\\t\"");
    check_string(STR("x\0y\x1f\x7f"), "\"x\\u0000y\\u001f\x7f\"");
    check_string(STR("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"),
                 "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"");
}

static void test_broken_utf8(void **state)
{
    (void)state;
    check_string(STR("\xff"), "\"\xef\xbf\xbd\"");
    check_string(STR("a\xe4z"), "\"a\xef\xbf\xbdz\"");
    check_string(STR("\xe2\x82"), "\"\xef\xbf\xbd\xef\xbf\xbd\"");       /* cut short */
    check_string(STR("\xe2\x82\""), "\"\xef\xbf\xbd\xef\xbf\xbd\\\"\""); /* must not eat the '"' */
    check_string(STR("\xc0\xaf"), "\"\xef\xbf\xbd\xef\xbf\xbd\"");       /* overlong */
    check_string(STR("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""); /* surrogate */
    check_string(STR("\xc3\xa4\x80"), "\"\xc3\xa4\xef\xbf\xbd\"");
}

/* Whatever goes in: no control bytes, quotes only escaped, well-formed UTF-8. */
static void test_every_pair_is_valid(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    for (unsigned pair = 0; pair < 0x10000; pair++) {
        char in[2] = { (char)(pair >> 8), (char)pair };
        buf_clear(&b);
        json_add_str(&b, str_make(in, 2));
        struct str s = buf_str(&b);
        assert_true(s.n >= 4 && s.p[0] == '"' && s.p[s.n - 1] == '"' && str_is_utf8(s));
        for (size_t i = 1; i + 1 < s.n; i++) {
            assert_true((unsigned char)s.p[i] >= ' ' && s.p[i] != '"');
            if (s.p[i] == '\\') {
                assert_non_null(memchr("\"\\bfnrtu", s.p[i + 1], 8));
                i++;
            }
        }
    }
    buf_done(&b);
}

static void check_event(const struct event *e, const char *expected)
{
    struct buf b;

    buf_init(&b, 0);
    event_to_json(e, 1795455339123, &b);
    buf_add_char(&b, '\0');
    assert_int_equal(b.failed, 0);
    assert_string_equal(buf_str(&b).p, expected);
    buf_done(&b);
}

#define HEAD "{\"time\":\"2026-11-23T17:35:39.123Z\",\"level\":"

static void test_event(void **state)
{
    (void)state;
    check_event(EVENT(EVENT_INFO, "queued", F_STR("id", STR("a\nb")), F_INT("size", 1024),
                      F_BOOL("tls", true), F_BOOL("auth", false), F_STRZ("peer", "mx")),
                HEAD "\"info\",\"event\":\"queued\",\"id\":\"a\\nb\",\"size\":1024,\"tls\":true,"
                     "\"auth\":false,\"peer\":\"mx\"}\n");
    check_event(&(const struct event){ .name = "bare", .level = EVENT_DEBUG },
                HEAD "\"debug\",\"event\":\"bare\"}\n");
    check_event(EVENT(EVENT_WARN, "w", F_STR("empty", STR(""))),
                HEAD "\"warn\",\"event\":\"w\",\"empty\":\"\"}\n");
}

static void test_left_out(void **state)
{
    (void)state;
    check_event(EVENT(EVENT_ERROR, "e", F_STR("a", STR_NONE), F_STRZ("b", NULL), F_INT("", 1),
                      F_INT(NULL, 2), F_INT("c", 3)),
                HEAD "\"error\",\"event\":\"e\",\"c\":3}\n");
    check_event(EVENT(EVENT_INFO, "e", F_INT("a\"b", 1)), /* a name from Lua */
                HEAD "\"info\",\"event\":\"e\",\"a\\\"b\":1}\n");
}

static struct event_field real(double r)
{
    return (struct event_field){ .name = "r", .type = FIELD_REAL, .r = r };
}

static void check_real(double r, const char *expected)
{
    struct event_field f = real(r);
    struct event e = { .name = "e", .level = EVENT_INFO, .fields = &f, .n = 1 };
    char line[200];

    snprintf(line, sizeof(line), "%s\"info\",\"event\":\"e\",\"r\":%s}\n", HEAD, expected);
    check_event(&e, line);
}

static void test_numbers(void **state)
{
    (void)state;
    check_event(EVENT(EVENT_INFO, "e", F_INT("a", INT64_MIN), F_INT("b", INT64_MAX), F_INT("c", 0),
                      F_INT("d", -7)),
                HEAD "\"info\",\"event\":\"e\",\"a\":-9223372036854775808,"
                     "\"b\":9223372036854775807,\"c\":0,\"d\":-7}\n");
    check_real(0, "0");
    check_real(-3, "-3");
    check_real(2.5, "2.5");
    check_real(-0.125, "-0.125");
    check_real(1e300, "1e+300");
    check_real(1e-7, "1e-07");
    check_real(9007199254740992.0, "9.00719925474099e+15");
    check_real((double)INFINITY, "null");
    check_real((double)-INFINITY, "null");
    check_real((double)NAN, "null");
}

static void test_limit(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 20);
    event_to_json(EVENT(EVENT_INFO, "e", F_INT("a", 1)), 0, &b);
    assert_int_equal(b.failed, -EMSGSIZE);
    assert_true(buf_len(&b) <= 20);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_broken_utf8),
        cmocka_unit_test(test_every_pair_is_valid),
        cmocka_unit_test(test_event),
        cmocka_unit_test(test_left_out),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_limit),
    };

    return cmocka_run_group_tests_name("event", tests, NULL, NULL);
}
