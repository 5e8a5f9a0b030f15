/* base64: the vectors of RFC 4648 section 10, every byte, and all that is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base64.h"

static const struct {
    struct str bytes, text;
} vectors[] = {
    { STR(""), STR("") },
    { STR("f"), STR("Zg==") },
    { STR("fo"), STR("Zm8=") },
    { STR("foo"), STR("Zm9v") },
    { STR("foob"), STR("Zm9vYg==") },
    { STR("fooba"), STR("Zm9vYmE=") },
    { STR("foobar"), STR("Zm9vYmFy") },
    { STR("\xfb\xff\xfe"), STR("+//+") },
};

static void test_vectors(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    for (size_t i = 0; i < ARRAY_LEN(vectors); i++) {
        char back[16];
        size_t n = 99;

        buf_clear(&b);
        assert_int_equal(base64_add(&b, vectors[i].bytes), 0);
        assert_true(str_eq(buf_str(&b), vectors[i].text));
        assert_int_equal(base64_decode(vectors[i].text, back, vectors[i].bytes.n, &n), 0);
        assert_true(str_eq(str_make(back, n), vectors[i].bytes));
        if (n > 0)
            assert_int_equal(base64_decode(vectors[i].text, back, n - 1, &n), -EMSGSIZE);
    }
    buf_done(&b);
}

static void test_every_byte_in_place(void **state)
{
    char bytes[256], text[BASE64_TEXT(256)];
    size_t n;

    (void)state;
    for (int i = 0; i < 256; i++)
        bytes[i] = (char)i;
    for (size_t len = 0; len <= 256; len++) {
        struct str t = str_make(text, base64_encode(str_make(bytes, len), text));
        assert_int_equal(base64_decode(t, text, sizeof(text), &n), 0);
        assert_int_equal(n, len);
        assert_memory_equal(text, bytes, n);
    }
}

static void test_refused(void **state)
{
    static const struct str bad[] = {
        STR("Z"),    STR("Zg"),   STR("Zg="),      STR("Zm9v="),   STR("===="),     STR("Z==="),
        STR("Zh=="), STR("Zm9="), STR("Zg==Zg=="), STR("Zm 9"),    STR("Zm9v\r\n"), STR("Zm9-"),
        STR("Zm9_"), STR("=m9v"), STR("Z=9v"),     STR("Zm\x80v"),
    };
    char out[16];
    size_t n = 77;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(base64_decode(bad[i], out, sizeof(out), &n), -EINVAL);
    assert_int_equal(n, 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_every_byte_in_place),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
