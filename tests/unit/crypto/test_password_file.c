/* Password files: who is found, what is refused and where, and in whose entry strangers are looked
 * for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crypto/password_file.h"

#define CRYPT "$5$saltstring$C3o4O1TC6aRHF4FI.QSZMXtHbaj2gSXr4sUc/3NcUi."
#define SCRAM                                                                                      \
    "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"   \
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

static struct password_file *parsed(struct str text)
{
    struct password_file *f = NULL;
    char why[PASSWORD_FILE_ERROR] = "";
    unsigned line = 0;

    if (password_file_parse(text, &f, &line, why) < 0)
        fail_msg("line %u: %s", line, why);
    return f;
}

static void test_find(void **state)
{
    struct password_file *f = parsed(
        STR("# users\n\nana:{PLAIN}a:b \r\n  \nb b:" CRYPT "\nj\xc3\xbcrgen@x.example:" SCRAM));
    struct password_entry e;

    (void)state;
    assert_int_equal(password_file_count(f), 3);
    assert_true(password_file_find(f, STR("ana"), &e));
    assert_true(str_eq(e.text, STR("a:b ")));
    assert_true(password_file_find(f, STR("b b"), &e));
    assert_int_equal(e.kind, PASSWORD_CRYPT);
    assert_true(password_file_find(f, STR("j\xc3\xbcrgen@x.example"), &e));
    assert_int_equal(e.kind, PASSWORD_SCRAM_SHA_256);
    assert_false(password_file_find(f, STR("Ana"), &e));
    assert_false(password_file_find(f, STR("# users"), &e));
    assert_false(password_file_find(f, STR(""), &e));
    password_file_free(f);
}

static void test_what_all_allow(void **state)
{
    static const struct {
        struct str text;
        bool plain, scram;
    } cases[] = {
        { STR(""), false, false },
        { STR("a:{PLAIN}x\nb:{PLAIN}y"), true, true },
        { STR("a:{PLAIN}x\nb:" SCRAM), false, true },
        { STR("a:{PLAIN}x\nb:" CRYPT), false, false },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct password_file *f = parsed(cases[i].text);
        assert_int_equal(password_file_all_plain(f), cases[i].plain);
        assert_int_equal(password_file_all_scram(f), cases[i].scram);
        password_file_free(f);
    }
}

static void test_refused(void **state)
{
    static const struct {
        struct str text;
        unsigned line;
        const char *why;
    } bad[] = {
        { STR("a:{PLAIN}x\nsecret"), 2, "not user:entry" },
        { STR(":{PLAIN}x"), 1, "user's name" },
        { STR("#\n\na\tb:{PLAIN}x"), 3, "user's name" },
        { STR("a\xff:{PLAIN}x"), 1, "user's name" },
        { STR("a:secret"), 1, "no scheme" },
        { STR("a:{PLAIN}"), 1, "empty" },
        { STR("a:{PLAIN}x\n\na:{PLAIN}y\n"), 3, "earlier line" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct password_file *f = NULL;
        char why[PASSWORD_FILE_ERROR] = "";
        unsigned line = 0;

        assert_int_equal(password_file_parse(bad[i].text, &f, &line, why), -EINVAL);
        assert_null(f);
        assert_int_equal(line, bad[i].line);
        if (!strstr(why, bad[i].why) || strstr(why, "secret"))
            fail_msg("%s", why);
    }
}

static void test_decoys(void **state)
{
    struct password_file *f = parsed(STR("a:" CRYPT "\nb:" SCRAM "\nc:{PLAIN}x\nd:" CRYPT));
    struct password_file *none = parsed(STR("# nobody\n"));
    struct password_entry e, again;
    unsigned kinds = 0;

    (void)state;
    for (char c = 'A'; c <= 'Z'; c++) {
        struct str ghost = str_make(&c, 1);

        assert_true(password_file_decoy(f, ghost, PASSWORD_WANT_ANY, &e));
        assert_true(password_file_decoy(f, ghost, PASSWORD_WANT_ANY, &again));
        assert_int_equal(e.kind, again.kind);
        kinds |= 1u << e.kind;
        assert_true(password_file_decoy(f, ghost, PASSWORD_WANT_SCRAM, &e));
        assert_int_not_equal(e.kind, PASSWORD_CRYPT);
        assert_true(password_file_decoy(f, ghost, PASSWORD_WANT_PLAIN, &e));
        assert_int_equal(e.kind, PASSWORD_PLAIN);
    }
    assert_int_equal(kinds, 7);
    assert_false(password_file_decoy(none, STR("x"), PASSWORD_WANT_ANY, &e));
    password_file_free(f);
    password_file_free(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_what_all_allow),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_decoys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
