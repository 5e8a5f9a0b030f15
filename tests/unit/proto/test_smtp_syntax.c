/* The grammar of RFC 5321 §4.1.2, row by row. */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>

#include "proto/smtp_syntax.h"

#define A60 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define A63 A60 "aaa"

static void check(const char *what, const char *input, long got, long want)
{
    if (got != want)
        fail_msg("%s of '%s': %ld, not %ld", what, input, got, want);
}

static void domains(void **state)
{
    static const struct {
        const char *s;
        int ascii, utf8;
    } rows[] = {
        { "example", 0, 0 },
        { "a.b.example", 0, 0 },
        { "A-1.Example", 0, 0 },
        { "1.2.3.x4", 0, 0 },
        { "_dmarc.example", 0, 0 },
        { "xn--bcher-kva.example", 0, 0 },
        { A63 ".example", 0, 0 },
        { A63 "." A63 "." A63 "." A63, 0, 0 },
        { A63 "." A63 "." A63 "." A63 "a", -E2BIG, -E2BIG },
        { A63 "a.example", -EINVAL, -EINVAL },
        { "", -EINVAL, -EINVAL },
        { ".", -EINVAL, -EINVAL },
        { "a.", -EINVAL, -EINVAL },
        { ".a", -EINVAL, -EINVAL },
        { "a..b", -EINVAL, -EINVAL },
        { "-a.b", -EINVAL, -EINVAL },
        { "a-.b", -EINVAL, -EINVAL },
        { "a b", -EINVAL, -EINVAL },
        { "a@b", -EINVAL, -EINVAL },
        { "a\nb", -EINVAL, -EINVAL },
        { "192.0.2.1", -EINVAL, -EINVAL },
        { "2130706433", -EINVAL, -EINVAL },
        { "a.1", -EINVAL, -EINVAL },
        { "[192.0.2.1]", -EINVAL, -EINVAL },
        { "b\xc3\xbc.example", -EINVAL, 0 },
        { "\xe2\x82\xac.\xf0\x9f\x98\x80", -EINVAL, 0 },
        { "a\xc3.example", -EINVAL, -EINVAL },
        { "a\xc0\xafx.example", -EINVAL, -EINVAL },
        { "a\xed\xa0\x80.example", -EINVAL, -EINVAL },
        { "a\xc2\x85.example", -EINVAL, -EINVAL },
        { "a\xe3\x80\x82"
          "b",
          -EINVAL, -EINVAL },
        { "a\xef\xbc\x8e"
          "b",
          -EINVAL, -EINVAL },
        { "a\xef\xbd\xa1"
          "b",
          -EINVAL, -EINVAL },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        check("domain", rows[i].s, smtp_parse_domain(str_of(rows[i].s), false), rows[i].ascii);
        check("U-domain", rows[i].s, smtp_parse_domain(str_of(rows[i].s), true), rows[i].utf8);
    }
    assert_int_equal(smtp_parse_domain(STR_NONE, false), -EINVAL);
    assert_int_equal(smtp_parse_domain(STR("a\0b"), true), -EINVAL);
}

static void literals(void **state)
{
    static const struct {
        const char *s;
        int want;
    } rows[] = {
        { "[192.0.2.1]", 0 },
        { "[0.0.0.0]", 0 },
        { "[IPv6:2001:db8::1]", 0 },
        { "[ipv6:::]", 0 },
        { "[IPv6:::ffff:192.0.2.1]", 0 },
        { "[IPv6:1:2:3:4:5:6:7:8]", 0 },
        { "", -EINVAL },
        { "[", -EINVAL },
        { "[]", -EINVAL },
        { "192.0.2.1", -EINVAL },
        { "[192.0.2.1", -EINVAL },
        { "[192.0.2.256]", -EINVAL },
        { "[192.0.2]", -EINVAL },
        { "[192.0.2.01]", -EINVAL },
        { "[192.0.2.1]]", -EINVAL },
        { "[2001:db8::1]", -EINVAL },
        { "[IPv6:192.0.2.1]", -EINVAL },
        { "[IPv6:1::2::3]", -EINVAL },
        { "[IPv6:12345::]", -EINVAL },
        { "[IPv6:fe80::1%eth0]", -EINVAL },
        { "[tag:whatever]", -EINVAL },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        check("literal", rows[i].s, smtp_parse_address_literal(str_of(rows[i].s)), rows[i].want);
        if (rows[i].want == 0)
            check("helo", rows[i].s, smtp_parse_helo(str_of(rows[i].s), false), 0);
    }
}

static void mailboxes(void **state)
{
    static const struct {
        const char *s;
        size_t local; /* its length */
        int want;
    } rows[] = {
        { "a@b", 1, 0 },
        { "a.b@c.example", 3, 0 },
        { "!#$%&'*+-/=?^_`{|}~@b", 19, 0 },
        { "\"\"@b", 2, 0 },
        { "\"a b\"@c", 5, 0 },
        { "\"a@b\"@c", 5, 0 },
        { "\"a\\\"b\"@c", 6, 0 },
        { "\"a\\\\\"@c", 5, 0 },
        { "a@[192.0.2.1]", 1, 0 },
        { A60 "aaaa@b", 64, 0 },
        { "\"" A60 "aa\"@b", 64, 0 },
        { A60 "aaaaa@b", 0, -E2BIG },
        { "\"" A60 "aaa\"@b", 0, -E2BIG },
        { "", 0, -EINVAL },
        { "a", 0, -EINVAL },
        { "@", 0, -EINVAL },
        { "a@", 0, -EINVAL },
        { "@b", 0, -EINVAL },
        { "a@b@c", 0, -EINVAL },
        { ".a@b", 0, -EINVAL },
        { "a.@b", 0, -EINVAL },
        { "a..b@c", 0, -EINVAL },
        { "a b@c", 0, -EINVAL },
        { "a\\@b", 0, -EINVAL },
        { "a\"b\"@c", 0, -EINVAL },
        { "\"a\"b@c", 0, -EINVAL },
        { "\"a\".b@c", 0, -EINVAL },
        { "\"a@c", 0, -EINVAL },
        { "\"a\\\"@c", 0, -EINVAL },
        { "\"a\nb\"@c", 0, -EINVAL },
        { "\"a\\\nb\"@c", 0, -EINVAL },
        { "\"a\tb\"@c", 0, -EINVAL },
        { "\"\\\xc3\xbc\"@c", 0, -EINVAL },
        { "a(comment)@b", 0, -EINVAL },
        { "a@b>", 0, -EINVAL },
        { "a@b ", 0, -EINVAL },
        { "a@192.0.2.1", 0, -EINVAL },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct smtp_mailbox box = { STR("untouched"), STR_NONE };
        struct str s = str_of(rows[i].s);
        check("mailbox", rows[i].s, smtp_parse_mailbox(s, true, &box), rows[i].want);
        if (rows[i].want < 0) {
            assert_true(str_eq(box.local, STR("untouched")));
            continue;
        }
        assert_ptr_equal(box.local.p, s.p);
        assert_int_equal(box.local.n, rows[i].local);
        assert_ptr_equal(box.domain.p, s.p + rows[i].local + 1);
        assert_int_equal(box.domain.n, s.n - rows[i].local - 1);
    }
}

static void utf8_only_where_it_is_allowed(void **state)
{
    struct smtp_mailbox box;

    assert_int_equal(smtp_parse_mailbox(STR("\xc3\xbc@b"), true, &box), 0);
    assert_int_equal(smtp_parse_mailbox(STR("\xc3\xbc@b"), false, &box), -EINVAL);
    assert_int_equal(smtp_parse_mailbox(STR("\"\xc3\xbc x\"@b"), true, &box), 0);
    assert_int_equal(smtp_parse_mailbox(STR("\"\xc3\xbc x\"@b"), false, &box), -EINVAL);
    assert_int_equal(smtp_parse_mailbox(STR("a@\xc3\xbc"), false, &box), -EINVAL);
    assert_int_equal(smtp_parse_mailbox(STR("\xc3@b"), true, &box), -EINVAL);
    assert_int_equal(smtp_parse_mailbox(STR("a\xe2\x82@b"), true, &box), -EINVAL);
    assert_int_equal(smtp_parse_mailbox(STR("a\xc2\x80@b"), true, &box), -EINVAL);
    assert_int_equal(smtp_parse_mailbox(STR("a\xf5\x80\x80\x80@b"), true, &box), -EINVAL);
}

static void paths(void **state)
{
    static const struct {
        const char *s;
        bool null, postmaster;
        int want;
        const char *local, *domain, *rest;
    } rows[] = {
        { "<a@b>", false, false, 0, "a", "b", "" },
        { "<a@b> SIZE=1", false, false, 0, "a", "b", " SIZE=1" },
        { "<a@b>>", false, false, 0, "a", "b", ">" },
        { "<\"a>b\"@c>x", false, false, 0, "\"a>b\"", "c", "x" },
        { "<\"a\\\">b\"@c>", false, false, 0, "\"a\\\">b\"", "c", "" },
        { "<>", true, false, 0, "", "", "" },
        { "<> X", true, true, 0, "", "", " X" },
        { "<>", false, true, -EINVAL, "", "", "" },
        { "<postmaster>", false, true, 0, "postmaster", "", "" },
        { "<POSTmaster> X", true, true, 0, "POSTmaster", "", " X" },
        { "<postmaster>", true, false, -EINVAL, "", "", "" },
        { "<abuse>", true, true, -EINVAL, "", "", "" },
        { "", true, true, -EINVAL, "", "", "" },
        { "<", true, true, -EINVAL, "", "", "" },
        { "a@b", true, true, -EINVAL, "", "", "" },
        { " <a@b>", true, true, -EINVAL, "", "", "" },
        { "<a@b", true, true, -EINVAL, "", "", "" },
        { "<\"a@b>", true, true, -EINVAL, "", "", "" },
        { "<\"a@b\\", true, true, -EINVAL, "", "", "" },
        { "<@a:u@d>", true, true, -EINVAL, "", "", "" },
        { "<@a,@b:u@d>", true, true, -EINVAL, "", "", "" },
        { "<<a@b>>", true, true, -EINVAL, "", "", "" },
        { "<a@b >", true, true, -EINVAL, "", "", "" },
        { "< a@b>", true, true, -EINVAL, "", "", "" },
        { "<" A60 "aa@" A63 "." A63 "." A63 ">", true, true, 0, A60 "aa", A63 "." A63 "." A63, "" },
        { "<" A60 "aaa@" A63 "." A63 "." A63 ">", true, true, -E2BIG, "", "", "" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct smtp_mailbox box;
        struct str rest;
        int r = smtp_parse_path(str_of(rows[i].s), rows[i].null, rows[i].postmaster, false, &box,
                                &rest);
        check("path", rows[i].s, r, rows[i].want);
        if (r == 0) {
            assert_true(str_eq(box.local, str_of(rows[i].local)));
            assert_true(str_eq(box.domain, str_of(rows[i].domain)));
            assert_true(str_eq(rest, str_of(rows[i].rest)));
        }
    }
}

static void params(void **state)
{
    static const struct {
        const char *s, *want; /* "KEY=value;" for each, '!' for an error */
    } rows[] = {
        { "", "" },
        { " ", "" },
        { " A", "A;" },
        { " SIZE=1 body=8BITMIME  x-Y", "SIZE=1;body=8BITMIME;x-Y;" },
        { " 1A=!~<>+", "1A=!~<>+;" },
        { " A ", "A;" },
        { "A", "!" },
        { " A=", "!" },
        { " =b", "!" },
        { " A =b", "A;!" },
        { " -A", "!" },
        { " A=b=c", "!" },
        { " A=b\tc", "!" },
        { " A=\xc3\xbc", "!" },
        { " A_B=c", "!" },
        { " A\tB", "!" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct str s = str_of(rows[i].s), key, value;
        char got[200] = "";
        int r;

        while ((r = smtp_next_param(&s, &key, &value)) == 1)
            sprintf(got + strlen(got), STR_FMT "%s" STR_FMT ";", STR_ARG(key), value.p ? "=" : "",
                    STR_ARG(value));
        if (r < 0)
            strcat(got, "!");
        if (strcmp(got, rows[i].want) != 0)
            fail_msg("params of '%s': %s, not %s", rows[i].s, got, rows[i].want);
    }
}

static void xtext(void **state)
{
    static const struct {
        const char *s, *want; /* NULL: -EINVAL */
    } rows[] = {
        { "", "" },
        { "abc", "abc" },
        { "a+20b", "a b" },
        { "a+2Bb+3D", "a+b=" },
        { "+C3+BC", "\xc3\xbc" },
        { "a b", NULL },
        { "a=b", NULL },
        { "a+", NULL },
        { "a+2", NULL },
        { "a+2b", NULL },
        { "a+0A", NULL },
        { "a+0D", NULL },
        { "a+00", NULL },
        { "a+7F", NULL },
        { "a+1F", NULL },
        { "a\xc3\xbc", NULL },
        { "a\nb", NULL },
    };
    char dst[16], back[64];

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        ptrdiff_t n = smtp_xtext_decode(str_of(rows[i].s), dst, sizeof(dst));
        check("xtext", rows[i].s, n, rows[i].want ? (long)strlen(rows[i].want) : -EINVAL);
        if (n < 0)
            continue;
        assert_memory_equal(dst, rows[i].want, n);
        ptrdiff_t m = smtp_xtext_encode(str_make(dst, (size_t)n), back, sizeof(back));
        assert_int_equal(m, strlen(rows[i].s));
        assert_memory_equal(back, rows[i].s, m);
    }
    assert_int_equal(smtp_xtext_decode(STR("abcd"), dst, 4), 4);
    assert_int_equal(smtp_xtext_decode(STR("abcde"), dst, 4), -E2BIG);
    assert_int_equal(smtp_xtext_encode(STR("a b"), dst, 5), 5);
    assert_int_equal(smtp_xtext_encode(STR("a b"), dst, 4), -E2BIG);
    assert_int_equal(smtp_xtext_encode(STR("a "), dst, 3), -E2BIG);
}

static void unquoting(void **state)
{
    static const struct {
        const char *s, *want;
    } rows[] = {
        { "abc", "abc" },     { "\"abc\"", "abc" },   { "\"a\\ b\"", "a b" }, { "\"\"", "" },
        { "\"\\\"\"", "\"" }, { "\"a\\\\\"", "a\\" }, { "\"", "\"" },         { "", "" },
    };
    char dst[8];

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        ptrdiff_t n = smtp_local_unquote(str_of(rows[i].s), dst, sizeof(dst));
        check("unquoted", rows[i].s, n, (long)strlen(rows[i].want));
        assert_memory_equal(dst, rows[i].want, n);
    }
    assert_int_equal(smtp_local_unquote(STR("123456789"), dst, sizeof(dst)), -E2BIG);
    assert_int_equal(smtp_local_unquote(STR("\"123456789\""), dst, sizeof(dst)), -E2BIG);
    assert_int_equal(smtp_local_unquote(STR("\"12345678\""), dst, sizeof(dst)), 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(domains),   cmocka_unit_test(literals),
        cmocka_unit_test(mailboxes), cmocka_unit_test(utf8_only_where_it_is_allowed),
        cmocka_unit_test(paths),     cmocka_unit_test(params),
        cmocka_unit_test(xtext),     cmocka_unit_test(unquoting),
    };
    return cmocka_run_group_tests_name("smtp_syntax", tests, NULL, NULL);
}
