/* Digests, HMAC, PBKDF2: published vectors (RFC 1321, FIPS 180-2, RFC 2202, RFC 4231, RFC 6070,
 * RFC 7914). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "crypto/digest.h"

static const char *hex(const uint8_t *bytes, size_t n)
{
    static char text[2 * DIGEST_MAX + 1];

    for (size_t i = 0; i < n; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    return text;
}

static void check_digest(enum digest d, struct str data, const char *expected)
{
    uint8_t out[DIGEST_MAX];

    assert_int_equal(digest_of(d, data, out), 0);
    assert_string_equal(hex(out, digest_size(d)), expected);
}

static void test_digests(void **state)
{
    (void)state;
    check_digest(DIGEST_MD5, STR_NONE, "d41d8cd98f00b204e9800998ecf8427e");
    check_digest(DIGEST_MD5, STR("abc"), "900150983cd24fb0d6963f7d28e17f72");
    check_digest(DIGEST_SHA1, STR("abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
    check_digest(DIGEST_SHA256, STR("abc"),
                 "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

/* The same, however it is cut. */
static void test_piece_by_piece(void **state)
{
    struct str text =
        STR("what do ya want for nothing? what do ya want for nothing? what do ya want?");
    uint8_t whole[DIGEST_MAX], out[DIGEST_MAX];

    (void)state;
    assert_int_equal(digest_of(DIGEST_SHA256, text, whole), 0);
    for (size_t step = 1; step < 80; step += 7) {
        struct digest_run *run = digest_begin(DIGEST_SHA256);
        assert_non_null(run);
        assert_int_equal(digest_add(run, STR_NONE), 0);
        for (size_t at = 0; at < text.n; at += step)
            assert_int_equal(digest_add(run, str_first(str_from(text, at), step)), 0);
        assert_int_equal(digest_end(run, out), 0);
        assert_memory_equal(out, whole, DIGEST_SHA256_SIZE);
        assert_null(digest_free(run));
    }
    assert_null(digest_free(NULL));
}

static void check_hmac(enum digest d, struct str key, struct str data, const char *expected)
{
    uint8_t out[DIGEST_MAX];

    assert_int_equal(hmac_of(d, key, data, out), 0);
    assert_string_equal(hex(out, digest_size(d)), expected);
}

static void test_hmac(void **state)
{
    struct str jefe = STR("Jefe"), what = STR("what do ya want for nothing?");
    char long_key[131];

    (void)state;
    memset(long_key, 0xaa, sizeof(long_key));
    check_hmac(DIGEST_MD5, jefe, what, "750c783e6ab0b503eaa86e310a5db738");
    check_hmac(DIGEST_SHA1, jefe, what, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    check_hmac(DIGEST_SHA256, jefe, what,
               "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    check_hmac(DIGEST_SHA256, str_make(long_key, sizeof(long_key)),
               STR("Test Using Larger Than Block-Size Key - Hash Key First"),
               "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    check_hmac(DIGEST_SHA256, STR_NONE, STR_NONE,
               "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void test_pbkdf2(void **state)
{
    uint8_t out[DIGEST_MAX];

    (void)state;
    assert_int_equal(pbkdf2_of(DIGEST_SHA1, STR("password"), STR("salt"), 4096, out), 0);
    assert_string_equal(hex(out, DIGEST_SHA1_SIZE), "4b007901b765489abead49d926f721d065a429c1");
    assert_int_equal(pbkdf2_of(DIGEST_SHA256, STR("passwd"), STR("salt"), 1, out), 0);
    assert_string_equal(hex(out, DIGEST_SHA256_SIZE),
                        "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc");
    assert_int_equal(pbkdf2_of(DIGEST_SHA256, STR("p"), STR("s"), 0, out), -EINVAL);
}

static void test_secrets(void **state)
{
    char key[] = "key";

    (void)state;
    assert_true(secret_equal(STR_NONE, STR("")));
    assert_true(secret_equal(STR("abc"), STR("abc")));
    assert_false(secret_equal(STR("abc"), STR("abd")));
    assert_false(secret_equal(STR("abc"), STR("ab")));
    secret_wipe(key, sizeof(key));
    assert_int_equal(key[0] | key[1] | key[2], 0);
    secret_wipe(NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digests), cmocka_unit_test(test_piece_by_piece),
        cmocka_unit_test(test_hmac),    cmocka_unit_test(test_pbkdf2),
        cmocka_unit_test(test_secrets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
