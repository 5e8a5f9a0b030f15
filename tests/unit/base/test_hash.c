/* Hashes: SipHash-1-3 against reference vectors, the stable hash against written-down values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/hash.h"

/* The key 00 01 .. 0f and the input 00 01 .. n-1, as in the SipHash paper. */
static void test_siphash_vectors(void **state)
{
    static const struct {
        size_t n;
        uint64_t hash;
    } vectors[] = {
        { 0, 0xabac0158050fc4dc }, { 1, 0xc9f49bf37d57ca93 },  { 7, 0xd3927d989bb11140 },
        { 8, 0x369095118d299a8e }, { 15, 0xd320d86d2a519956 }, { 63, 0x9d199062b7bbb3a8 },
    };
    unsigned char in[64];

    (void)state;
    for (size_t i = 0; i < sizeof(in); i++)
        in[i] = (unsigned char)i;
    hash_seed(0x0706050403020100, 0x0f0e0d0c0b0a0908);
    for (size_t i = 0; i < ARRAY_LEN(vectors); i++)
        assert_true(hash_bytes(in, vectors[i].n) == vectors[i].hash);
    assert_true(hash_bytes(NULL, 0) == vectors[0].hash);
    hash_seed(0, 0);
    assert_true(hash_bytes("abc", 3) == 0xc03bc3a0042630f2);
}

static void test_key_matters(void **state)
{
    (void)state;
    hash_seed(1, 2);
    uint64_t h = hash_bytes("example.org", 11);
    assert_true(h == hash_bytes("example.org", 11));
    hash_seed(1, 3);
    assert_true(h != hash_bytes("example.org", 11));
}

/* These values are on disks: they must never change. */
static void test_stable_values(void **state)
{
    (void)state;
    assert_true(hash_stable(NULL, 0) == 0xefd01f60ba992926);
    assert_true(hash_stable("example.org", 11) == 0xcd3b846cb9256ccf);
    assert_true(hash_stable_more(hash_stable("a", 1), "\xff", 1) == 0x82ee8cd247b6582f);
}

static void test_stable_more_keeps_bounds(void **state)
{
    (void)state;
    assert_true(hash_stable_more(hash_stable("ab", 2), "c", 1) !=
                hash_stable_more(hash_stable("a", 1), "bc", 2));
    assert_true(hash_stable_more(hash_stable("a", 1), NULL, 0) != hash_stable("a", 1));
}

/* Names that differ in one digit must spread over few buckets. */
static void test_stable_spreads(void **state)
{
    unsigned buckets[8] = { 0 };

    (void)state;
    for (int i = 0; i < 8000; i++) {
        char name[] = "mx0000.example.org";
        for (int digit = 5, v = i; digit > 1; digit--, v /= 10)
            name[digit] = (char)('0' + v % 10);
        buckets[hash_stable(name, sizeof(name) - 1) % 8]++;
    }
    for (size_t i = 0; i < 8; i++)
        assert_in_range(buckets[i], 850, 1150);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_siphash_vectors), cmocka_unit_test(test_key_matters),
        cmocka_unit_test(test_stable_values),   cmocka_unit_test(test_stable_more_keeps_bounds),
        cmocka_unit_test(test_stable_spreads),
    };

    return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}
