/* Patterns of operators. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/glob.h"

static bool match(const char *pattern, const char *text)
{
    return glob_match(str_of(pattern), str_of(text));
}

static bool finds(const char *pattern, const char *text)
{
    return glob_finds(str_of(pattern), str_of(text));
}

static void test_match(void **state)
{
    assert_true(match("", ""));
    assert_true(match("*", ""));
    assert_true(match("**", "abc"));
    assert_true(match("abc", "ABC"));
    assert_false(match("abc", "abcd"));
    assert_false(match("abcd", "abc"));
    assert_true(match("a*c", "abbbc"));
    assert_true(match("*.example.com", "a.b.example.com"));
    assert_false(match("*.example.com", "example.com"));
    assert_true(match("a?c", "abc"));
    assert_false(match("a?c", "ac"));
    assert_true(match("a?c", "a\xc3\xbc"
                             "c")); /* one character of two octets */
    assert_true(match("a?c", "a\xff"
                             "c"));
    assert_true(match("*ab*ab", "abxabab"));
    assert_false(match("*ab*ab", "abxaba"));
    assert_true(match("a\\*b", "a*b"));
    assert_false(match("a\\*b", "axb"));
    assert_true(match("[2001:db8::1]:25", "[2001:DB8::1]:25"));
    assert_true(match("\\", "\\"));
}

static void test_is_pattern(void **state)
{
    assert_true(glob_is_pattern(STR("a*")));
    assert_true(glob_is_pattern(STR("?")));
    assert_false(glob_is_pattern(STR("a\\*")));
    assert_true(glob_is_pattern(STR("a\\\\*")));
    assert_false(glob_is_pattern(STR("[x]\\")));
    assert_false(glob_is_pattern(STR_NONE));
}

static void test_finds(void **state)
{
    assert_true(finds("try later", "451 Try Later, please"));
    assert_false(finds("try  later", "try later"));
    assert_true(finds("", "x"));
    assert_true(finds("", ""));
    assert_false(finds("a", ""));
    assert_true(finds("100\\*", "5100*6"));
    assert_false(finds("try*", "please try")); /* a pattern matches all of it */
    assert_true(finds("*try", "please try"));
}

/* No pattern takes more than pattern times text. */
static void test_hard_pattern(void **state)
{
    char pattern[2001], text[20001];

    for (size_t i = 0; i < 2000; i += 2)
        memcpy(pattern + i, "*a", 2);
    pattern[1999] = 'b';
    pattern[2000] = '\0';
    memset(text, 'a', 20000);
    text[20000] = '\0';
    assert_false(match(pattern, text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match),
        cmocka_unit_test(test_is_pattern),
        cmocka_unit_test(test_finds),
        cmocka_unit_test(test_hard_pattern),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
