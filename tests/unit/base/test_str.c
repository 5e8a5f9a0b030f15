/* Slices: edges of comparing, searching, cutting and converting; UTF-8 against a decoder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>

#include "base/str.h"

static const struct str none = { NULL, 0 };

static void test_compare(void **state)
{
    (void)state;
    assert_true(str_eq(none, STR("")));
    assert_true(str_eq(none, none));
    assert_false(str_eq(STR("a"), none));
    assert_true(str_caseeq(none, none));
    assert_true(str_caseeq(STR("MaIl"), STR("mAiL")));
    assert_false(str_caseeq(STR("mail"), STR("mail ")));
    /* '@' and '`', '[' and '{' differ in the case bit only, but are no letters. */
    assert_false(str_caseeq(STR("@["), STR("`{")));
    assert_false(str_caseeq(STR("\xc4"), STR("\xe4")));

    assert_int_equal(str_cmp(none, none), 0);
    assert_true(str_cmp(none, STR("a")) < 0);
    assert_true(str_cmp(STR("a"), none) > 0);
    assert_true(str_cmp(STR("ab"), STR("abc")) < 0);
    assert_true(str_cmp(STR("\xff"), STR("a")) > 0); /* bytes are unsigned */
    assert_true(str_casecmp(STR("\xff"), STR("a")) > 0);
    assert_true(str_casecmp(STR("B"), STR("a")) > 0);
    assert_true(str_casecmp(STR("A"), STR("b")) < 0);
    assert_int_equal(str_casecmp(none, STR("")), 0);
}

static void test_starts_and_ends(void **state)
{
    (void)state;
    assert_true(str_starts(none, none));
    assert_true(str_starts(STR("abc"), none));
    assert_true(str_starts(STR("abc"), STR("abc")));
    assert_false(str_starts(STR("ab"), STR("abc")));
    assert_false(str_starts(none, STR("a")));
    assert_true(str_casestarts(STR("RCPT TO"), STR("rcpt ")));
    assert_false(str_casestarts(STR("RC"), STR("rcpt")));
    assert_true(str_ends(none, none));
    assert_true(str_ends(STR("abc"), STR("bc")));
    assert_true(str_ends(STR("abc"), STR("")));
    assert_false(str_ends(STR("bc"), STR("abc")));
    assert_true(str_caseends(STR("example.ORG"), STR(".org")));
    assert_false(str_caseends(none, STR(".org")));
}

static void test_parts(void **state)
{
    struct str s = STR("abc");

    (void)state;
    assert_true(str_eq(str_from(s, 1), STR("bc")));
    assert_true(str_empty(str_from(s, 3)));
    assert_true(str_empty(str_from(s, SIZE_MAX)));
    assert_ptr_equal(str_from(s, 9).p, s.p + 3);
    assert_null(str_from(none, 4).p);
    assert_true(str_eq(str_first(s, 2), STR("ab")));
    assert_true(str_eq(str_first(s, 99), s));
    assert_true(str_empty(str_first(none, 1)));
}

static void test_search(void **state)
{
    (void)state;
    assert_int_equal(str_chr(none, 'a'), -1);
    assert_int_equal(str_rchr(none, 'a'), -1);
    assert_int_equal(str_chr(STR("a@b@c"), '@'), 1);
    assert_int_equal(str_rchr(STR("a@b@c"), '@'), 3);
    assert_int_equal(str_chr(STR("abc"), 'x'), -1);
    assert_int_equal(str_rchr(STR("abc"), 'a'), 0);
    assert_int_equal(str_chr(STR("a\0b"), '\0'), 1);
    assert_int_equal(str_find(none, none), 0);
    assert_int_equal(str_find(none, STR("a")), -1);
    assert_int_equal(str_find(STR("a\r\n.\r\n"), STR("\r\n.")), 1);
    assert_int_equal(str_find(STR("aab"), STR("ab")), 1);
    assert_int_equal(str_find(STR("ab"), STR("abc")), -1);
}

static void test_trim(void **state)
{
    (void)state;
    assert_true(str_eq(str_trim(STR(" \t a b\r\n")), STR("a b")));
    assert_true(str_empty(str_trim(STR(" \r\n\t"))));
    assert_true(str_empty(str_trim(none)));
    assert_true(str_eq(str_trim(STR("a")), STR("a")));
    assert_true(str_eq(str_trim(STR("\va")), STR("\va")));
}

static void test_cut(void **state)
{
    struct str s = STR("a,,b,"), head = none;

    (void)state;
    assert_true(str_cut(&s, ',', &head));
    assert_true(str_eq(head, STR("a")));
    assert_true(str_cut(&s, ',', &head));
    assert_true(str_empty(head));
    assert_true(str_cut(&s, ',', &head));
    assert_true(str_eq(head, STR("b")));
    assert_true(str_cut(&s, ',', &head)); /* what is after the last separator */
    assert_non_null(head.p);
    assert_true(str_empty(head));
    head = STR("kept");
    assert_false(str_cut(&s, ',', &head));
    assert_true(str_eq(head, STR("kept")));

    s = STR("");
    assert_true(str_cut(&s, ',', &head)); /* an empty list of one */
    assert_false(str_cut(&s, ',', &head));
}

static void check_u64(struct str s, int error, uint64_t value)
{
    uint64_t v = 4711;

    assert_int_equal(str_to_u64(s, &v), error);
    assert_true(v == (error ? 4711 : value));
}

static void check_i64(struct str s, int error, int64_t value)
{
    int64_t v = 4711;

    assert_int_equal(str_to_i64(s, &v), error);
    assert_true(v == (error ? 4711 : value));
}

static void test_numbers(void **state)
{
    (void)state;
    check_u64(STR("0"), 0, 0);
    check_u64(STR("0007"), 0, 7);
    check_u64(STR("18446744073709551615"), 0, UINT64_MAX);
    check_u64(STR("18446744073709551616"), -ERANGE, 0);
    check_u64(STR("99999999999999999999999999"), -ERANGE, 0);
    check_u64(STR("99999999999999999999999999x"), -EINVAL, 0);
    check_u64(none, -EINVAL, 0);
    check_u64(STR("+1"), -EINVAL, 0);
    check_u64(STR("-1"), -EINVAL, 0);
    check_u64(STR(" 1"), -EINVAL, 0);
    check_u64(STR("1 "), -EINVAL, 0);

    check_i64(STR("0"), 0, 0);
    check_i64(STR("-0"), 0, 0);
    check_i64(STR("-12"), 0, -12);
    check_i64(STR("9223372036854775807"), 0, INT64_MAX);
    check_i64(STR("9223372036854775808"), -ERANGE, 0);
    check_i64(STR("-9223372036854775808"), 0, INT64_MIN);
    check_i64(STR("-9223372036854775809"), -ERANGE, 0);
    check_i64(STR("-"), -EINVAL, 0);
    check_i64(STR("--1"), -EINVAL, 0);
    check_i64(none, -EINVAL, 0);
}

static void test_copies(void **state)
{
    char small[4] = "xxx";
    char *copy = str_dup(STR("a\0b"));

    (void)state;
    assert_memory_equal(copy, "a\0b", 4);
    free(copy);
    copy = str_dup(none);
    assert_string_equal(copy, "");
    free(copy);

    assert_true(str_copy(STR("abc"), small, sizeof(small)));
    assert_string_equal(small, "abc");
    assert_false(str_copy(STR("wxyz"), small, sizeof(small)));
    assert_string_equal(small, "wxy");
    assert_true(str_copy(none, small, sizeof(small)));
    assert_string_equal(small, "");
    assert_true(str_copy(none, small, 1));
    assert_false(str_copy(STR("a"), NULL, 0));
}

/* The textbook encoder: what it writes for a scalar value is all that is well-formed. */
static size_t encode(uint32_t c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

static void test_utf8_all_scalars(void **state)
{
    char seq[4];

    (void)state;
    for (uint32_t c = 0; c < 0x120000; c++) {
        size_t n = encode(c, seq);
        bool scalar = c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
        assert_int_equal(str_utf8_len(str_make(seq, n)), scalar ? n : 0);
        if (n > 1) /* cut short */
            assert_int_equal(str_utf8_len(str_make(seq, n - 1)), 0);
    }
}

/* All strings of two bytes: well-formed are two ASCII bytes, or one sequence of two. */
static void test_utf8_all_pairs(void **state)
{
    (void)state;
    for (unsigned a = 0; a < 256; a++) {
        for (unsigned b = 0; b < 256; b++) {
            char pair[2] = { (char)a, (char)b };
            bool good = a < 0x80 ? b < 0x80 : a >= 0xc2 && a <= 0xdf && b >= 0x80 && b <= 0xbf;
            assert_int_equal(str_is_utf8(str_make(pair, 2)), good);
        }
    }
}

static void test_utf8_strings(void **state)
{
    static const char *const bad[] = {
        "\x80",
        "\xc0\x80",
        "\xc1\xbf",
        "\xe0\x9f\xbf",
        "\xed\xa0\x80",
        "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xff",
        "\xe2\x82",
        "\xe2\x28\xa1",
        "\xf0\x9f\x98",
        "0123456789\xe2\x82",
        "\xe2\x82\xac\xac",
    };

    (void)state;
    assert_true(str_is_utf8(none));
    assert_true(str_is_utf8(STR("eight bytes and more, then \xe2\x82\xac, then more text")));
    assert_true(str_is_utf8(STR("\xf0\x9f\x98\x80\xc3\xa4")));
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_false(str_is_utf8(str_of(bad[i])));

    assert_true(str_is_ascii(none));
    assert_true(str_is_ascii(STR("0123456789\x7f")));
    for (size_t at = 0; at < 17; at++) {
        char text[17];
        memset(text, 'a', sizeof(text));
        text[at] = (char)0x80;
        assert_false(str_is_ascii(str_make(text, sizeof(text))));
        assert_true(str_is_ascii(str_make(text, at)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_starts_and_ends),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_search),
        cmocka_unit_test(test_trim),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_utf8_all_scalars),
        cmocka_unit_test(test_utf8_all_pairs),
        cmocka_unit_test(test_utf8_strings),
    };

    return cmocka_run_group_tests_name("str", tests, NULL, NULL);
}
