/* What the control API is asked for: paths, arguments, cursors; and the answers' heads on the other side. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/control_client.h"
#include "daemon/control_request.h"
#include "engine/ports.h"

static bool is(struct str s, const char *text)
{
    return str_eq(s, str_of(text));
}

static void test_paths(void **state)
{
    struct control_request r;

    control_request_init(&r, "POST", "/v1/queues/a%2Fb%20%C3%BC/hold");
    assert_null(r.error);
    assert_int_equal(r.n_segments, 4);
    assert_true(is(r.segment[2], "a/b \xc3\xbc"));
    assert_true(control_request_path_is(&r, "v1/queues/?/hold"));
    assert_false(control_request_path_is(&r, "v1/queues/?"));
    assert_false(control_request_path_is(&r, "v1/queues/?/hold/more"));
    assert_false(control_request_path_is(&r, "v1/queues/?/unhold"));
    control_request_done(&r);

    control_request_init(&r, "GET", "/v1/status/");
    assert_true(control_request_path_is(&r, "v1/status"));
    control_request_done(&r);

    /* a '?' is never nothing */
    control_request_init(&r, "GET", "/v1/queues//hold");
    assert_null(r.error);
    assert_false(control_request_path_is(&r, "v1/queues/?/hold"));
    control_request_done(&r);

    control_request_init(&r, "GET", "/");
    assert_int_equal(r.n_segments, 0);
    assert_false(control_request_path_is(&r, "metrics"));
    control_request_done(&r);
    control_request_init(&r, "GET", "");
    assert_null(r.error);
    control_request_done(&r);
}

static void test_bad_paths(void **state)
{
    static const char *const bad[] = {
        "/v1/%",          "/v1/%4",           "/v1/%zz",   "/v1/a%00b",
        "/1/2/3/4/5/6/7", "////////////////", "/%e4%b8%a",
    };
    static char huge[CONTROL_REQUEST_BYTES + 100];
    struct control_request r;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        control_request_init(&r, "GET", bad[i]);
        assert_non_null(r.error);
        control_request_done(&r);
    }
    memset(huge, 'a', sizeof(huge) - 1);
    huge[0] = '/';
    control_request_init(&r, "GET", huge);
    assert_non_null(r.error);
    control_request_done(&r);
}

static void test_arguments(void **state)
{
    struct control_request r;
    uint64_t n;

    control_request_init(&r, "GET", "/v1/queues");
    control_request_add(&r, "limit", "20");
    control_request_add(&r, "after", "a%26b");
    control_request_add(&r, "flag", NULL);
    assert_null(r.error);
    assert_true(is(control_request_arg(&r, "after"), "a&b"));
    assert_true(control_request_arg(&r, "flag").p);
    assert_int_equal(control_request_arg(&r, "flag").n, 0);
    assert_null(control_request_arg(&r, "other").p);
    assert_true(control_request_number(&r, "limit", 1000, 100, &n));
    assert_int_equal(n, 20);
    assert_true(control_request_number(&r, "other", 1000, 100, &n));
    assert_int_equal(n, 100);
    assert_false(control_request_number(&r, "limit", 10, 5, &n));
    assert_false(control_request_number(&r, "after", 10, 5, &n));
    assert_false(control_request_number(&r, "flag", 10, 5, &n));
    assert_string_equal(control_request_unknown(&r, "limit after"), "flag");
    assert_null(control_request_unknown(&r, "limit after flag"));
    assert_string_equal(control_request_unknown(&r, ""), "limit");
    control_request_add(&r, "x", "%");
    assert_non_null(r.error);
    control_request_done(&r);

    control_request_init(&r, "GET", "/");
    for (int i = 0; i <= CONTROL_ARGS; i++)
        control_request_add(&r, "a", "b");
    assert_non_null(r.error);
    control_request_done(&r);
}

static void test_encoding(void **state)
{
    const char all[] = "az09-._~ /?#%\"\x01\xff+&";
    struct arena a;
    struct buf b;
    struct str back;

    buf_init(&b, 0);
    assert_int_equal(control_encode(str_of(all), &b), 0);
    for (size_t i = 0; i < buf_len(&b); i++)
        assert_true(ascii_alnum(buf_str(&b).p[i]) || strchr("-._~%", buf_str(&b).p[i]));
    arena_init(&a, 0);
    assert_true(control_decode(&a, buf_str(&b), &back));
    assert_true(is(back, all));
    arena_done(&a);
    buf_done(&b);
}

static void test_cursors(void **state)
{
    struct control_cursor c = { .class_ = -1, .n = 7 }, back;
    char text[CONTROL_CURSOR_TEXT];

    memset(c.id.b, 0xff, sizeof(c.id.b));
    control_cursor_text(&c, text);
    assert_true(control_cursor_parse(str_of(text), false, &back));
    assert_int_equal(back.class_, -1);
    assert_int_equal(back.n, 7);
    assert_int_equal(msgid_cmp(&c.id, &back.id), 0);
    assert_false(control_cursor_parse(str_of(text), true, &back));

    c = (struct control_cursor){ .class_ = SPOOL_HELD, .due_ms = INT64_MIN + 1, .n = UINT32_MAX };
    control_cursor_text(&c, text);
    assert_true(control_cursor_parse(str_of(text), true, &back));
    assert_int_equal(back.class_, SPOOL_HELD);
    assert_true(back.due_ms == c.due_ms);
    assert_true(back.n == UINT32_MAX);
    assert_false(control_cursor_parse(str_of(text), false, &back));
}

static void test_bad_cursors(void **state)
{
    static const char *const bad[] = {
        "",
        ".",
        "x",
        "00000000000000000000000000",
        "00000000000000000000000000.",
        "00000000000000000000000000.x",
        "00000000000000000000000000.4294967296",
        "00000000000000000000000000.1.2",
        "0000000000000000000000000.1",
        "U0000000000000000000000000.1",
    };
    struct control_cursor c;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_false(control_cursor_parse(str_of(bad[i]), false, &c));
        assert_false(control_cursor_parse(str_of(bad[i]), true, &c));
    }
    assert_true(control_cursor_parse(STR("2.-5.00000000000000000000000000.1"), true, &c));
    assert_false(control_cursor_parse(STR("3.-5.00000000000000000000000000.1"), true, &c));
    assert_false(control_cursor_parse(STR("-1.5.00000000000000000000000000.1"), true, &c));
    assert_false(control_cursor_parse(STR_NONE, false, &c));
}

static void test_heads(void **state)
{
    struct http_head h;
    const char *whole = "HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length:  12\r\n\r\nbody";

    assert_int_equal(http_head_parse(str_of(whole), &h), 1);
    assert_int_equal(h.status, 200);
    assert_int_equal(h.length, 12);
    assert_string_equal(whole + h.head, "body");
    for (size_t n = 0; n < strlen(whole) - 4; n++)
        assert_int_equal(http_head_parse(str_make(whole, n), &h), 0);
    assert_int_equal(http_head_parse(STR("HTTP/1.1 404 x\r\n\r\n"), &h), 1);
    assert_int_equal(h.status, 404);
    assert_int_equal(h.length, -1);
    assert_int_equal(http_head_parse(STR("220 mx ESMTP\r\n\r\n"), &h), -EPROTO);
    assert_int_equal(http_head_parse(STR("HTTP/1.1 xx0 OK\r\n\r\n"), &h), -EPROTO);
    assert_int_equal(http_head_parse(STR("HTTP/1.1 20\r\n\r\n"), &h), -EPROTO);
    assert_int_equal(http_head_parse(STR("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), &h),
                     -EPROTO);
    static char endless[64 * 1024];
    memset(endless, 'a', sizeof(endless));
    assert_int_equal(http_head_parse(str_make(endless, sizeof(endless)), &h), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),     cmocka_unit_test(test_bad_paths),
        cmocka_unit_test(test_arguments), cmocka_unit_test(test_encoding),
        cmocka_unit_test(test_cursors),   cmocka_unit_test(test_bad_cursors),
        cmocka_unit_test(test_heads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
