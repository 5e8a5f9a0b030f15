/* Buffers: growth, limits, the sticky error, records; a random run against a plain array. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"

static void test_empty(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    assert_int_equal(buf_len(&b), 0);
    assert_null(buf_str(&b).p);
    assert_int_equal(buf_add(&b, NULL, 0), 0);
    assert_int_equal(buf_add_str(&b, STR_NONE), 0);
    assert_null(b.data); /* an idle buffer holds no memory */
    buf_consume(&b, 0);
    buf_clear(&b);
    buf_shrink(&b);
    assert_non_null(buf_room(&b, 0)); /* NULL is failure only */
    buf_done(&b);
    buf_done(&b);
}

static void test_append_and_consume(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    buf_add_str(&b, STR("hello"));
    buf_add_char(&b, ' ');
    buf_printf(&b, "%s %d", "world", 42);
    assert_int_equal(b.failed, 0);
    assert_true(str_eq(buf_str(&b), STR("hello world 42")));
    buf_consume(&b, 6);
    assert_true(str_eq(buf_str(&b), STR("world 42")));
    buf_consume(&b, 8);
    assert_int_equal(b.start, 0); /* all of the block is free again */
    assert_non_null(b.data);
    buf_shrink(&b);
    assert_null(b.data);
    memcpy(buf_room(&b, 3), "xyz", 3);
    buf_added(&b, 3);
    buf_shrink(&b); /* not empty: stays */
    assert_true(str_eq(buf_str(&b), STR("xyz")));
    buf_done(&b);
}

static void test_growth(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    buf_add_char(&b, 'a');
    assert_int_equal(b.cap, 256);
    assert_non_null(buf_room(&b, 255));
    assert_int_equal(b.cap, 256);
    assert_non_null(buf_room(&b, 256));
    assert_int_equal(b.cap, 512);
    assert_non_null(buf_room(&b, 5000));
    assert_int_equal(b.cap, 8192);
    buf_done(&b);
}

/* Consumed bytes make room before the block grows. */
static void test_compacts_before_growing(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    for (int i = 0; i < 256; i++)
        buf_add_char(&b, (char)i);
    assert_int_equal(b.cap, 256);
    buf_consume(&b, 200);
    assert_int_equal(buf_add(&b, "0123456789", 10), 0);
    assert_int_equal(b.cap, 256);
    assert_int_equal(b.start, 0);
    assert_int_equal(buf_len(&b), 66);
    for (int i = 0; i < 56; i++)
        assert_int_equal((unsigned char)buf_str(&b).p[i], 200 + i);
    assert_memory_equal(buf_str(&b).p + 56, "0123456789", 10);
    buf_done(&b);
}

static void test_limit_is_sticky(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 8);
    assert_int_equal(buf_add_str(&b, STR("12345678")), 0); /* all of max */
    buf_consume(&b, 4);
    assert_int_equal(buf_add_str(&b, STR("abcd")), 0); /* max is for what is in it */
    assert_int_equal(buf_add_char(&b, 'x'), -EMSGSIZE);
    buf_consume(&b, 4);
    assert_int_equal(buf_add_char(&b, 'x'), -EMSGSIZE); /* would fit, but one was lost before */
    assert_int_equal(buf_printf(&b, "y"), -EMSGSIZE);
    assert_int_equal(buf_add_lstr(&b, STR_NONE), -EMSGSIZE);
    assert_int_equal(buf_add(&b, NULL, 0), -EMSGSIZE);
    assert_null(buf_room(&b, 1));
    assert_true(str_eq(buf_str(&b), STR("abcd")));
    buf_clear(&b);
    assert_int_equal(buf_add_char(&b, 'x'), 0);
    assert_int_equal(buf_add(&b, "12345678", 8), -EMSGSIZE);
    assert_true(str_eq(buf_str(&b), STR("x"))); /* all or nothing */
    buf_done(&b);
}

static void test_absurd_size(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    buf_add_char(&b, 'x');
    assert_null(buf_room(&b, SIZE_MAX));
    assert_int_equal(b.failed, -ENOMEM);
    assert_true(str_eq(buf_str(&b), STR("x")));
    buf_done(&b);
}

static void test_printf_edges(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 10);
    assert_int_equal(buf_printf(&b, "%s", ""), 0);
    assert_int_equal(buf_printf(&b, "%010d", 7), 0); /* the NUL is not counted */
    assert_true(str_eq(buf_str(&b), STR("0000000007")));
    assert_int_equal(buf_printf(&b, "%d", 7), -EMSGSIZE);
    buf_done(&b);

    buf_init(&b, 0);
    for (int i = 0; i < 300; i++) /* past the end of blocks, byte by byte */
        assert_int_equal(buf_printf(&b, "%d", i % 10), 0);
    assert_int_equal(buf_len(&b), 300);
    for (size_t i = 0; i < 300; i++)
        assert_int_equal(buf_str(&b).p[i], '0' + i % 10);
    assert_int_equal(buf_printf(&b, "%5000d", 1), 0);
    assert_int_equal(buf_len(&b), 5300);
    assert_int_equal(buf_str(&b).p[5299], '1');
    buf_done(&b);
}

static void test_integers_in_decimal(void **state)
{
    static const struct {
        int64_t v;
        const char *text;
    } cases[] = {
        { 0, "0" },
        { 9, "9" },
        { 10, "10" },
        { -1, "-1" },
        { 250, "250" },
        { INT64_MAX, "9223372036854775807" },
        { INT64_MIN, "-9223372036854775808" },
    };
    struct buf b;

    (void)state;
    buf_init(&b, 32);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        buf_clear(&b);
        assert_int_equal(buf_add_int(&b, cases[i].v), 0);
        assert_true(str_eq(buf_str(&b), str_of(cases[i].text)));
    }
    buf_clear(&b);
    buf_add(&b, "0123456789abcdefghijklmnopqrst", 30);
    assert_int_equal(buf_add_int(&b, 100), -EMSGSIZE);
    buf_done(&b);
}

static void test_records(void **state)
{
    struct buf b;
    struct str s, part;
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;

    (void)state;
    buf_init(&b, 0);
    buf_add_u8(&b, 0xfe);
    buf_add_u16(&b, 0x0102);
    buf_add_u32(&b, 0xdeadbeef);
    buf_add_u64(&b, 0x8000000000000001);
    buf_add_lstr(&b, STR("key"));
    buf_add_lstr(&b, STR_NONE);
    assert_memory_equal(buf_str(&b).p,
                        "\xfe\x01\x02\xde\xad\xbe\xef\x80\0\0\0\0\0\0\x01\0\0\0\3key", 22);
    s = buf_str(&b);
    assert_true(take_u8(&s, &u8) && u8 == 0xfe);
    assert_true(take_u16(&s, &u16) && u16 == 0x0102);
    assert_true(take_u32(&s, &u32) && u32 == 0xdeadbeef);
    assert_true(take_u64(&s, &u64) && u64 == 0x8000000000000001);
    assert_true(take_lstr(&s, &part) && str_eq(part, STR("key")));
    assert_true(take_lstr(&s, &part) && str_empty(part));
    assert_true(str_empty(s));
    assert_false(take_u8(&s, &u8));
    buf_done(&b);
}

static void test_short_records(void **state)
{
    struct str s = STR("\0\0\0"), part = STR("kept");
    uint32_t u32 = 7;

    (void)state;
    assert_false(take_u32(&s, &u32));
    assert_int_equal(u32, 7);
    assert_true(str_empty(s)); /* spent, so that a chain of takes stops */
    s = STR("\0\0\0\4abc");
    assert_false(take_lstr(&s, &part));
    assert_true(str_eq(part, STR("kept")));
    assert_true(str_empty(s));
    s = STR("\xff\xff\xff\xff");
    assert_false(take_lstr(&s, &part));
    s = STR_NONE;
    assert_false(take_u32(&s, &u32));
    assert_true(take_bytes(&s, 0, &part));
    assert_true(str_empty(part));
}

static uint64_t xorshift(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    return *x ^= *x << 17;
}

/* Adds and consumes at random; the content is always the bytes counted in and not yet out. */
static void test_random_against_counters(void **state)
{
    uint64_t x = 88172645463325252u, in = 0, out = 0;
    struct buf b;

    (void)state;
    buf_init(&b, 3000);
    for (int round = 0; round < 20000; round++) {
        size_t n = xorshift(&x) % 300;
        if (xorshift(&x) % 2) {
            char bytes[300];
            for (size_t i = 0; i < n; i++)
                bytes[i] = (char)((in + i) % 251);
            bool fits = in - out + n <= 3000;
            assert_int_equal(buf_add(&b, bytes, n), fits ? 0 : -EMSGSIZE);
            b.failed = 0;
            in += fits ? n : 0;
        } else {
            n = MIN(n, buf_len(&b));
            buf_consume(&b, n);
            out += n;
        }
        if (xorshift(&x) % 16 == 0)
            buf_shrink(&b);
        struct str s = buf_str(&b);
        assert_int_equal(s.n, in - out);
        for (size_t i = 0; i < s.n; i += 1 + xorshift(&x) % 64)
            assert_int_equal((unsigned char)s.p[i], (out + i) % 251);
    }
    assert_true(b.cap <= 8192);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_append_and_consume),
        cmocka_unit_test(test_growth),
        cmocka_unit_test(test_compacts_before_growing),
        cmocka_unit_test(test_limit_is_sticky),
        cmocka_unit_test(test_absurd_size),
        cmocka_unit_test(test_printf_edges),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_integers_in_decimal),
        cmocka_unit_test(test_short_records),
        cmocka_unit_test(test_random_against_counters),
    };

    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
