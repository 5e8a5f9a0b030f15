/* Timers: order, callbacks that arm, move, stop and free; a random run against a sorted model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/list.h"
#include "base/timer.h"

static struct timer_heap heap;
static int fired[64];
static size_t n_fired;

struct named {
    struct timer timer;
    int id;
};

static void arm(struct named *t, int64_t at)
{
    timer_heap_set(&heap, &t->timer, at);
}

static void on_fire(struct timer *t)
{
    assert_false(timer_armed(t));
    fired[n_fired++] = CONTAINER_OF(t, struct named, timer)->id;
}

static int setup(void **state)
{
    (void)state;
    timer_heap_init(&heap);
    n_fired = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    timer_heap_done(&heap);
    return 0;
}

static void init_named(struct named *t, size_t n, timer_cb *fire)
{
    for (size_t i = 0; i < n; i++) {
        timer_init(&t[i].timer, fire);
        t[i].id = (int)i;
    }
}

static void test_empty(void **state)
{
    struct named t;

    (void)state;
    init_named(&t, 1, on_fire);
    assert_true(timer_heap_next(&heap) == INT64_MAX);
    assert_int_equal(timer_heap_run(&heap, INT64_MAX, 0), 0);
    timer_heap_stop(&heap, &t.timer);
    timer_heap_stop(&heap, &t.timer);
    timer_heap_done(&heap);
}

static void test_order(void **state)
{
    struct named t[5];

    (void)state;
    init_named(t, 5, on_fire);
    arm(&t[0], 30);
    arm(&t[1], 10);
    arm(&t[2], 30);
    arm(&t[3], -5);
    arm(&t[4], 31);
    assert_true(timer_heap_next(&heap) == -5);
    assert_int_equal(timer_heap_run(&heap, 30, 0), 4);
    assert_memory_equal(fired, ((int[]){ 3, 1, 0, 2 }), 4 * sizeof(int)); /* equal: as armed */
    assert_true(timer_heap_next(&heap) == 31);
    assert_true(timer_armed(&t[4].timer));
    timer_heap_stop(&heap, &t[4].timer);
    assert_true(timer_heap_next(&heap) == INT64_MAX);
}

static void test_move(void **state)
{
    struct named t[3];

    (void)state;
    init_named(t, 3, on_fire);
    for (int i = 0; i < 3; i++)
        arm(&t[i], 10);
    arm(&t[0], 10); /* armed anew: behind the others */
    arm(&t[2], 5);
    assert_int_equal(timer_heap_run(&heap, 10, 0), 3);
    assert_memory_equal(fired, ((int[]){ 2, 1, 0 }), 3 * sizeof(int));
}

static void test_max(void **state)
{
    struct named t[10];

    (void)state;
    init_named(t, 10, on_fire);
    for (int i = 0; i < 10; i++)
        arm(&t[i], i);
    assert_int_equal(timer_heap_run(&heap, 100, 4), 4);
    assert_int_equal(timer_heap_run(&heap, 100, 4), 4);
    assert_int_equal(timer_heap_run(&heap, 100, 4), 2);
    for (int i = 0; i < 10; i++)
        assert_int_equal(fired[i], i);
}

static void fire_and_rearm(struct timer *t)
{
    on_fire(t);
    timer_heap_set(&heap, t, 0); /* long past */
}

/* A callback that arms itself for the past neither loops nor keeps others from firing. */
static void test_rearm_for_the_past(void **state)
{
    struct named t[3];

    (void)state;
    init_named(t, 3, on_fire);
    t[0].timer.fire = fire_and_rearm;
    for (int i = 0; i < 3; i++)
        arm(&t[i], 10 + i);
    assert_int_equal(timer_heap_run(&heap, 20, 0), 3);
    assert_memory_equal(fired, ((int[]){ 0, 1, 2 }), 3 * sizeof(int));
    assert_true(timer_heap_next(&heap) <= 20);
    assert_int_equal(timer_heap_run(&heap, 20, 0), 1);
    assert_int_equal(fired[3], 0);
    timer_heap_stop(&heap, &t[0].timer);
}

static struct named *victim;

static void fire_and_stop_victim(struct timer *t)
{
    on_fire(t);
    timer_heap_stop(&heap, &victim->timer);
}

static void fire_and_free(struct timer *t)
{
    on_fire(t);
    free(CONTAINER_OF(t, struct named, timer));
}

static void test_stop_and_free_in_callback(void **state)
{
    struct named t[3], *gone = malloc(sizeof(*gone));

    (void)state;
    init_named(t, 3, on_fire);
    init_named(gone, 1, fire_and_free);
    gone->id = 9;
    t[0].timer.fire = fire_and_stop_victim;
    victim = &t[1];
    for (int i = 0; i < 3; i++)
        arm(&t[i], 1);
    arm(gone, 1);
    assert_int_equal(timer_heap_run(&heap, 1, 0), 3);
    assert_memory_equal(fired, ((int[]){ 0, 2, 9 }), 3 * sizeof(int));
}

static void test_done_disarms(void **state)
{
    struct named t;

    (void)state;
    init_named(&t, 1, on_fire);
    arm(&t, 1);
    timer_heap_done(&heap);
    assert_false(timer_armed(&t.timer));
    timer_heap_stop(&heap, &t.timer);
}

/* Property: the heap does what a list sorted by (deadline, order of arming) does. */
enum { MODEL = 200 };
struct model_entry {
    int id;
    int64_t at;
};
static struct model_entry model[MODEL];
static size_t model_n;
static bool model_wrong;

static void model_remove(int id)
{
    for (size_t i = 0; i < model_n; i++) {
        if (model[i].id == id) {
            memmove(&model[i], &model[i + 1], (model_n - i - 1) * sizeof(*model));
            model_n--;
            return;
        }
    }
}

static void model_set(int id, int64_t at)
{
    size_t i;

    model_remove(id);
    for (i = model_n; i > 0 && model[i - 1].at > at; i--)
        model[i] = model[i - 1];
    model[i] = (struct model_entry){ id, at };
    model_n++;
}

static void on_fire_model(struct timer *t)
{
    int id = CONTAINER_OF(t, struct named, timer)->id;

    if (model_n == 0 || model[0].id != id)
        model_wrong = true;
    model_remove(id);
}

static uint64_t xorshift(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    return *x ^= *x << 17;
}

static void random_step(struct named *t, uint64_t *x, int64_t *now)
{
    int id = (int)(xorshift(x) % MODEL);
    uint64_t what = xorshift(x) % 10;

    if (what < 6) {
        int64_t at = *now + (int64_t)(xorshift(x) % 50) - 5; /* many are equal, some are past */
        arm(&t[id], at);
        model_set(id, at);
    } else if (what < 8) {
        timer_heap_stop(&heap, &t[id].timer);
        model_remove(id);
    } else {
        size_t max = xorshift(x) % 4, due = 0;
        *now += (int64_t)(xorshift(x) % 8);
        while (due < model_n && model[due].at <= *now && (max == 0 || due < max))
            due++;
        assert_int_equal(timer_heap_run(&heap, *now, max), due);
    }
    assert_false(model_wrong);
    assert_int_equal(heap.n, model_n);
    assert_true(timer_heap_next(&heap) == (model_n ? model[0].at : INT64_MAX));
}

static void test_random_against_model(void **state)
{
    struct named t[MODEL];

    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        uint64_t x = seed * 0x9e3779b97f4a7c15u;
        int64_t now = -100;
        model_n = 0;
        init_named(t, MODEL, on_fire_model);
        for (int step = 0; step < 10000; step++)
            random_step(t, &x, &now);
        timer_heap_done(&heap);
    }
}

static void test_list(void **state)
{
    struct list head, other, node[4];

    (void)state;
    list_init(&head);
    list_init(&other);
    for (size_t i = 0; i < 4; i++)
        list_init(&node[i]);
    assert_null(list_pop(&head));
    list_remove(&node[0]); /* in no list */
    list_push(&head, &node[1]);
    list_unshift(&head, &node[0]);
    list_push(&other, &node[2]);
    list_push(&other, &node[3]);
    list_join(&head, &other);
    list_join(&head, &other); /* empty */
    assert_true(list_empty(&other));
    size_t i = 0;
    LIST_FOREACH(it, &head)
    {
        assert_ptr_equal(it, &node[i++]);
        list_remove(it);
    }
    assert_int_equal(i, 4);
    assert_true(list_empty(&head));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_move, setup, teardown),
        cmocka_unit_test_setup_teardown(test_max, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rearm_for_the_past, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_and_free_in_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_done_disarms, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random_against_model, setup, teardown),
        cmocka_unit_test(test_list),
    };

    return cmocka_run_group_tests_name("timer", tests, NULL, NULL);
}
