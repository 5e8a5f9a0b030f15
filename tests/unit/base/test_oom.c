/* Out of memory: every allocation of core/base fails in its turn; nothing is lost or broken.
 *
 * The sources are included here with their allocator replaced, so that no other code is hit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int until_failure = -1; /* allocations that still succeed; -1: all */

static bool fails(void)
{
    return until_failure == 0 || (until_failure > 0 && until_failure-- == 0);
}

static void *try_malloc(size_t n)
{
    return fails() ? NULL : malloc(n);
}

static void *try_realloc(void *p, size_t n)
{
    return fails() ? NULL : realloc(p, n);
}

static void *try_reallocarray(void *p, size_t n, size_t size)
{
    return fails() ? NULL : reallocarray(p, n, size);
}

#define malloc       try_malloc
#define realloc      try_realloc
#define reallocarray try_reallocarray
#include "../../../core/base/arena.c"
#include "../../../core/base/buf.c"
#include "../../../core/base/str.c"
#include "../../../core/base/timer.c"
#undef malloc
#undef realloc
#undef reallocarray

static void test_buf(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    until_failure = 0;
    assert_int_equal(buf_add_char(&b, 'x'), -ENOMEM);
    buf_clear(&b);
    assert_int_equal(buf_printf(&b, "%d", 1), -ENOMEM);
    buf_clear(&b);
    until_failure = 1;
    assert_int_equal(buf_add_str(&b, STR("kept")), 0);
    assert_null(buf_room(&b, 1000));
    assert_int_equal(b.failed, -ENOMEM);
    assert_int_equal(buf_add_char(&b, 'x'), -ENOMEM); /* sticky, though there is room */
    assert_true(str_eq(buf_str(&b), STR("kept")));
    buf_clear(&b);
    assert_int_equal(buf_printf(&b, "%300d", 1), -ENOMEM);
    assert_int_equal(buf_len(&b), 0);
    buf_done(&b);
}

static void test_arena(void **state)
{
    struct arena a;

    (void)state;
    arena_init(&a, 0);
    until_failure = 0;
    assert_null(arena_alloc(&a, 1));
    assert_null(arena_str(&a, STR("a")).p);
    assert_null(arena_strz(&a, STR_NONE));
    assert_null(arena_printf(&a, "%d", 1).p);
    assert_int_equal(a.used, 0);
    until_failure = 1;
    assert_non_null(arena_alloc(&a, 1));
    assert_null(arena_alloc(&a, 10000));
    assert_non_null(arena_alloc(&a, 1)); /* from the block there is */
    arena_reset(&a);
    arena_done(&a);
}

static void never(struct timer *t)
{
    (void)t;
    fail();
}

static void test_timer(void **state)
{
    struct timer_heap h;
    struct timer t[100];
    size_t armed = 0;

    (void)state;
    timer_heap_init(&h);
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        timer_init(&t[i], never);
    until_failure = 1;
    while (armed < ARRAY_LEN(t) && timer_heap_set(&h, &t[armed], (int64_t)armed) == 0)
        armed++;
    assert_in_range(armed, 1, ARRAY_LEN(t) - 1);
    assert_int_equal(timer_heap_set(&h, &t[armed], 0), -ENOMEM);
    assert_false(timer_armed(&t[armed]));
    assert_int_equal(timer_heap_set(&h, &t[0], 1000), 0); /* moving takes no memory */
    assert_true(timer_heap_next(&h) == 1);
    timer_heap_done(&h);
}

static void test_str(void **state)
{
    (void)state;
    until_failure = 0;
    assert_null(str_dup(STR("a")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_timer),
        cmocka_unit_test(test_str),
    };

    return cmocka_run_group_tests_name("out of memory", tests, NULL, NULL);
}
