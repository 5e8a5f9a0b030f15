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
    assert_true(a.failed);
    arena_reset(&a);
    assert_false(a.failed);
    until_failure = 1;
    assert_non_null(arena_alloc(&a, 1));
    assert_null(arena_alloc(&a, 10000));
    assert_non_null(arena_alloc(&a, 1)); /* from the block there is */
    arena_reset(&a);
    arena_done(&a);
}

enum { TIMERS = 300 };

static struct timer timers[TIMERS];
static size_t order[TIMERS], n_fired;

static void on_fire(struct timer *t)
{
    order[n_fired++] = (size_t)(t - timers);
}

/* Without room for all, some wait in a list: all fire, in order. */
static void test_timer(void **state)
{
    struct timer_heap h;

    (void)state;
    for (int room = 0; room < 3; room++) { /* none at all, once, twice */
        timer_heap_init(&h);
        n_fired = 0;
        until_failure = room;
        for (size_t i = 0; i < TIMERS; i++) {
            timer_init(&timers[i], on_fire);
            timer_heap_set(&h, &timers[i], (int64_t)(i * 7 % TIMERS));
            assert_true(timer_armed(&timers[i]));
        }
        assert_non_null(h.crowded);
        assert_true(timer_heap_next(&h) == 0);
        for (size_t i = 0; i < TIMERS; i += 3)
            timer_heap_stop(&h, &timers[i]);
        for (size_t i = 1; i < TIMERS; i += 3)
            timer_heap_set(&h, &timers[i], (int64_t)(i * 11 % TIMERS));
        assert_false(timer_armed(&timers[0]));
        while (timer_heap_next(&h) < INT64_MAX)
            timer_heap_run(&h, timer_heap_next(&h), 0);
        assert_int_equal(n_fired, TIMERS - TIMERS / 3);
        for (size_t i = 1; i < n_fired; i++)
            assert_true(timers[order[i - 1]].at <= timers[order[i]].at);
        timer_heap_done(&h);
    }
    until_failure = -1;
}

/* With memory again they come back into the heap. */
static void test_timer_recovers(void **state)
{
    struct timer_heap h;

    (void)state;
    timer_heap_init(&h);
    until_failure = 0;
    for (size_t i = 0; i < TIMERS; i++) {
        timer_init(&timers[i], on_fire);
        timer_heap_set(&h, &timers[i], (int64_t)i);
    }
    assert_int_equal(h.n, 0);
    until_failure = -1;
    for (size_t i = 0; i < TIMERS; i++)
        timer_heap_set(&h, &timers[i], (int64_t)i);
    assert_null(h.crowded);
    assert_int_equal(h.n, TIMERS);
    until_failure = 0;
    timer_heap_done(&h);
    assert_false(timer_armed(&timers[0]));
    until_failure = -1;
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
        cmocka_unit_test(test_buf),   cmocka_unit_test(test_arena),
        cmocka_unit_test(test_timer), cmocka_unit_test(test_timer_recovers),
        cmocka_unit_test(test_str),
    };

    return cmocka_run_group_tests_name("out of memory", tests, NULL, NULL);
}
