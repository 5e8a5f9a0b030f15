/* Entries of a password file: each scheme checks what it should, and what is refused says why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base64.h"
#include "crypto/password.h"

/* user "user", password "pencil", salt and iterations of RFC 7677 section 3 */
#define PENCIL                                                                                     \
    "4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"                  \
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

static const struct {
    struct str entry, password;
} good[] = {
    { STR("{PLAIN}se:cr,et"), STR("se:cr,et") },
    { STR("{plain}{PLAIN}"), STR("{PLAIN}") },
    { STR("{SCRAM-SHA-256}" PENCIL), STR("pencil") },
    { STR("{SHA256-CRYPT}$5$saltstring$C3o4O1TC6aRHF4FI.QSZMXtHbaj2gSXr4sUc/3NcUi."),
      STR("secret") },
    { STR("{SHA512-CRYPT}$6$rounds=10000$saltstring$8BTo06G/5FoSytD1T0cp9b6u1/eLMbXRWR32saoSVCPI8H"
          "actmA7e1cC6THh4kpvGWDoPyAxOz2Ig8bq3eay//"),
      STR("secret") },
    { STR("{BLF-CRYPT}$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"),
      STR("secret") },
    { STR("{CRYPT}$y$j75$abcdefghijklmnopqrstu/$aMXZ8aLyZZ.34V5w4RQ/w3gcYe3pPPVS6DIwzkzS9h9"),
      STR("secret") },
    { STR("$5$saltstring$C3o4O1TC6aRHF4FI.QSZMXtHbaj2gSXr4sUc/3NcUi."), STR("secret") },
};

static void test_each_scheme_checks(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        struct password_entry e;
        const char *why = NULL;
        bool fits = false;

        assert_int_equal(password_parse(good[i].entry, &e, &why), 0);
        assert_int_equal(password_check(&e, good[i].password, &fits), 0);
        assert_true(fits);
        assert_int_equal(password_check(&e, STR("wrong"), &fits), 0);
        assert_false(fits);
        fits = true;
        assert_int_equal(password_check(&e, STR(""), &fits), 0);
        assert_false(fits);
        assert_true(password_is_entry(good[i].entry));
    }
}

/* crypt(3) ends at a NUL: "secret\0x" must not pass for "secret". */
static void test_nul_and_length(void **state)
{
    static char longest[PASSWORD_MAX + 1];
    struct password_entry e;
    const char *why;
    bool fits = true;

    (void)state;
    memset(longest, 'x', sizeof(longest));
    assert_int_equal(password_parse(good[3].entry, &e, &why), 0);
    assert_int_equal(password_check(&e, str_make("secret\0x", 8), &fits), 0);
    assert_false(fits);
    for (size_t n = PASSWORD_MAX - 1; n <= PASSWORD_MAX + 1; n++) {
        fits = true;
        assert_int_equal(password_check(&e, str_make(longest, n), &fits), 0);
        assert_false(fits);
    }
}

#define HASH86                                                                                     \
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"                                                  \
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static void test_refused(void **state)
{
    static const struct {
        struct str entry;
        const char *why;
    } bad[] = {
        { STR(""), "no scheme" },
        { STR("secret"), "no scheme" },
        { STR("{MD5}x"), "no scheme" },
        { STR("{PLAIN}"), "empty" },
        { STR("{CRYPT}$1$salt$hash"), "not SHA-256" },
        { STR("{CRYPT}ab0123456789x"), "not of the scheme" },
        { STR("{SHA256-CRYPT}$6$salt$" HASH86), "not of the scheme" },
        { STR("{SHA512-CRYPT}$6$salt$short"), "not a whole hash" },
        { STR("$6$rounds=200001$salt$" HASH86), "200000 rounds" },
        { STR("$6$rounds=x$salt$" HASH86), "200000 rounds" },
        { STR("{BLF-CRYPT}$2b$13$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"),
          "above 12" },
        { STR("{CRYPT}$y$jCT$abcdefghijklmnopqrstu/$aMXZ8aLyZZ.34V5w4RQ/w3gcYe3pPPVS6DIwzkzS9h9"),
          "four times" },
        { STR("{CRYPT}$y$"), "yescrypt" },
        { STR("{SCRAM-SHA-256}4096,QUJD"), "not iterations" },
        { STR("{SCRAM-SHA-256}4095,QUJD,QUJD,QUJD"), "4096 to 200000" },
        { STR("{SCRAM-SHA-256}4096,,QUJD,QUJD"), "the salt" },
        { STR("{SCRAM-SHA-256}4096,QUJD,QUJD,QUJD"), "32 octets" },
        { STR("{SCRAM-SHA-256}" PENCIL ","), "more than" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct password_entry e = { .iterations = 1 };
        const char *why = "";

        assert_int_equal(password_parse(bad[i].entry, &e, &why), -EINVAL);
        if (!strstr(why, bad[i].why))
            fail_msg("%s: %s", bad[i].entry.p, why);
        assert_int_equal(e.iterations, 1);
    }
}

static void test_plain_text_is_no_entry(void **state)
{
    (void)state;
    assert_false(password_is_entry(STR("secret")));
    assert_false(password_is_entry(STR("{odd}secret")));
    assert_false(password_is_entry(STR("")));
}

static void test_make(void **state)
{
    uint8_t salt[16];
    struct buf out;
    size_t n;

    (void)state;
    buf_init(&out, 0);
    assert_int_equal(base64_decode(STR("W22ZaJ0SNY7soEsUEjb6gQ=="), salt, sizeof(salt), &n), 0);
    assert_int_equal(password_make_scram(STR("pencil"), str_make(salt, n), 4096, &out), 0);
    assert_true(str_eq(buf_str(&out), STR("{SCRAM-SHA-256}" PENCIL)));
    assert_int_equal(password_make_scram(STR(""), str_make(salt, n), 4096, &out), -EINVAL);
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_scheme_checks),
        cmocka_unit_test(test_nul_and_length),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_plain_text_is_no_entry),
        cmocka_unit_test(test_make),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
