/* Arenas: alignment, zeroing, limits, reuse after reset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/arena.h"

static bool aligned(const void *p)
{
    return (uintptr_t)p % _Alignof(max_align_t) == 0;
}

static bool all_zero(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

/* Sizes around every boundary, with strings between to upset the alignment. */
static void test_aligned_zeroed_distinct(void **state)
{
    struct arena a;

    (void)state;
    arena_init(&a, 0);
    for (int pass = 0; pass < 2; pass++) { /* the second in a block that has been written to */
        for (size_t n = 0; n < 5000; n += n < 40 ? 1 : 37) {
            char *p = arena_alloc(&a, n);
            assert_non_null(p);
            assert_true(aligned(p));
            assert_true(all_zero(p, n));
            memset(p, 0xff, n);
            struct str s = arena_str(&a, str_first(STR("abcdefg"), n % 8));
            assert_true(str_eq(s, str_first(STR("abcdefg"), n % 8)));
            assert_int_equal(s.p[s.n], 0);
            for (size_t i = 0; i < n; i++)
                assert_int_equal((unsigned char)p[i], 0xff);
        }
        arena_reset(&a);
        assert_int_equal(a.used, 0);
    }
    arena_done(&a);
    arena_done(&a);
}

static void test_no_overlap(void **state)
{
    struct {
        unsigned char *p;
        size_t n;
    } pieces[500];
    struct arena a;
    uint32_t x = 1;

    (void)state;
    arena_init(&a, 0);
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        x = x * 1664525 + 1013904223;
        pieces[i].n = (x >> 16) % (i % 10 ? 100 : 6000);
        pieces[i].p = arena_alloc(&a, pieces[i].n);
        if (pieces[i].n)
            memset(pieces[i].p, (int)(i % 256), pieces[i].n);
    }
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++)
        for (size_t j = 0; j < pieces[i].n; j++)
            assert_int_equal(pieces[i].p[j], i % 256);
    arena_done(&a);
}

/* A piece that fits into the rest of a block without its padding only must not go there. */
static void test_tight_end_of_block(void **state)
{
    (void)state;
    for (size_t fill = 900; fill < 1100; fill++) {
        struct arena a;
        arena_init(&a, 0);
        for (int i = 0; i < 3; i++)
            assert_true(aligned(arena_alloc(&a, 1000)));
        for (size_t i = 0; i < fill; i++)
            assert_non_null(arena_strz(&a, STR_NONE));
        assert_true(aligned(arena_alloc(&a, 2)));
        arena_done(&a);
    }
}

static void test_limit(void **state)
{
    struct arena a;

    (void)state;
    arena_init(&a, 100);
    assert_non_null(arena_alloc(&a, 64));
    assert_null(arena_alloc(&a, 64));
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 8));
    assert_null(arena_alloc_array(&a, SIZE_MAX / 2, 3));
    assert_non_null(arena_alloc(&a, 32)); /* a refusal costs nothing */
    assert_null(arena_str(&a, STR("12345")).p);
    assert_true(str_eq(arena_str(&a, STR("123")), STR("123")));
    assert_int_equal(a.used, 100);
    assert_null(arena_strz(&a, STR_NONE));
    assert_null(arena_printf(&a, "%d", 1).p);
    arena_reset(&a);
    assert_non_null(arena_alloc(&a, 100));
    arena_done(&a);

    arena_init(&a, 0);
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 1));
    arena_done(&a);
}

static void test_strings(void **state)
{
    struct arena a;
    struct str s;

    (void)state;
    arena_init(&a, 0);
    assert_null(arena_str(&a, STR_NONE).p);
    s = arena_str(&a, STR(""));
    assert_non_null(s.p);
    assert_int_equal(*s.p, 0);
    assert_string_equal(arena_strz(&a, STR_NONE), "");
    assert_string_equal(arena_strz(&a, str_first(STR("abcdef"), 3)), "abc");
    s = arena_printf(&a, "<%s@%s>", "a", "b");
    assert_true(str_eq(s, STR("<a@b>")));
    assert_int_equal(s.p[s.n], 0);
    s = arena_printf(&a, "%s", "");
    assert_non_null(s.p);
    assert_int_equal(s.n, 0);
    s = arena_printf(&a, "%9000d", 1);
    assert_int_equal(s.n, 9000);
    arena_done(&a);
}

static void test_typed(void **state)
{
    struct arena a;

    (void)state;
    arena_init(&a, 0);
    uint64_t *one = ARENA_NEW(&a, uint64_t);
    uint64_t *many = ARENA_ARRAY(&a, uint64_t, 100);
    assert_int_equal(*one, 0);
    assert_int_equal(many[99], 0);
    assert_non_null(ARENA_ARRAY(&a, uint64_t, 0));
    arena_done(&a);
}

static void test_reset_frees_large_blocks(void **state)
{
    struct arena a;

    (void)state;
    arena_init(&a, 0);
    assert_non_null(arena_alloc(&a, 100000)); /* the only block, and not small */
    arena_reset(&a);
    assert_null(a.blocks);
    const void *first = arena_alloc(&a, 16);
    assert_non_null(arena_alloc(&a, 100000));
    arena_reset(&a);
    assert_ptr_equal(arena_alloc(&a, 16), first); /* the small one stayed */
    arena_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_aligned_zeroed_distinct),
        cmocka_unit_test(test_no_overlap),
        cmocka_unit_test(test_tight_end_of_block),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_typed),
        cmocka_unit_test(test_reset_frees_large_blocks),
    };

    return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
