/* The arithmetic of limits (engine/pace.h), by itself and against a destination that takes so many at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine/pace.h"

enum { SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE };

static const struct pace_bounds usual = { .start = 5, .most = 20 };

static void works(struct pace *p, const struct pace_bounds *b, uint32_t n, int64_t now)
{
    while (n--)
        pace_worked(p, b, p->limit, now);
}

static void test_Q1_a_probe_doubles_to_the_start_then_adds_one_a_round(void **state)
{
    static const uint32_t expected[] = { 2, 4, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 7 };
    struct pace p;
    pace_init(&p, 1);
    for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
        works(&p, &usual, 1, 0);
        assert_int_equal(p.limit, expected[i]);
    }
    works(&p, &usual, 10000, 0);
    assert_int_equal(p.limit, 20);
}

static void test_Q1_the_only_one_that_fails_says_down(void **state)
{
    struct pace p;
    pace_init(&p, 5);
    assert_int_equal(pace_failed(&p, 0, false, 0), PACE_DOWN);
    assert_int_equal(p.limit, 1);
    assert_int_equal(p.ceiling, 0);
}

/* Of many that fail at once the last one says it. */
static void test_Q1_a_cohort_is_one_failure(void **state)
{
    struct pace p;
    pace_init(&p, 20);
    for (uint32_t others = 19; others; others--) {
        assert_int_equal(pace_failed(&p, others, false, 0), PACE_CROWDED);
        assert_int_equal(p.limit, others); /* nobody begins until one of them has ended */
    }
    assert_int_equal(pace_failed(&p, 0, false, 0), PACE_DOWN);
}

/* It worked a moment ago: the next one decides. */
static void test_Q1_a_success_meanwhile_counts(void **state)
{
    struct pace p;
    pace_init(&p, 1);
    assert_int_equal(pace_failed(&p, 0, true, 0), PACE_CROWDED);
    assert_int_equal(p.limit, 1);
    assert_int_equal(pace_failed(&p, 0, false, 0), PACE_DOWN);
}

static void test_Q1_the_ceiling_holds_and_is_tried_again(void **state)
{
    struct pace p;
    pace_init(&p, 11);
    assert_int_equal(pace_failed(&p, 10, false, 0), PACE_CROWDED);
    assert_int_equal(p.limit, 10);
    works(&p, &usual, 100000, PACE_PAUSE_MS - 1);
    assert_int_equal(p.limit, 10);
    works(&p, &usual, 1, PACE_PAUSE_MS);
    assert_int_equal(p.limit, 11);
    /* It fails: the pause doubles, up to an hour. */
    int64_t now = PACE_PAUSE_MS, pause = PACE_PAUSE_MS;
    for (int i = 0; i < 8; i++) {
        assert_int_equal(pace_failed(&p, 10, true, now), PACE_CROWDED);
        assert_int_equal(p.limit, 10);
        pause = MIN(pause * 2, (int64_t)PACE_PAUSE_MAX_MS);
        works(&p, &usual, 1000, now + pause - 1);
        assert_int_equal(p.limit, 10);
        now += pause;
        works(&p, &usual, 10, now);
        assert_int_equal(p.limit, 11);
    }
    /* It works now: no wall any more. Only what goes well at that height counts. */
    for (int i = 0; i < 100; i++)
        pace_worked(&p, &usual, 3, now);
    assert_int_equal(p.limit, 11);
    assert_int_equal(p.ceiling, 11);
    works(&p, &usual, 11, now);
    assert_int_equal(p.ceiling, 0);
    works(&p, &usual, 1000, now);
    assert_int_equal(p.limit, 20);
}

/* Down and back: the wall is remembered, and doubling ends below it. */
static void test_Q1_the_ceiling_survives_being_down(void **state)
{
    struct pace_bounds b = { .start = 16, .most = 16 };
    struct pace p;
    pace_init(&p, 16);
    pace_failed(&p, 6, false, 0);
    pace_down(&p);
    works(&p, &b, 1000, SECOND);
    assert_int_equal(p.limit, 6);
}

static void test_Q1_a_wall_at_one(void **state)
{
    struct pace p;
    pace_init(&p, 5);
    pace_failed(&p, 1, false, 0);
    assert_int_equal(p.limit, 1);
    assert_int_equal(pace_failed(&p, 0, true, 0), PACE_CROWDED);
    assert_int_equal(p.limit, 1);
    works(&p, &usual, 1000, SECOND);
    assert_int_equal(p.limit, 1);
    works(&p, &usual, 1, PACE_PAUSE_MAX_MS);
    assert_int_equal(p.limit, 2);
}

/* ---- against a destination --------------------------------------------------------------------- */

static uint32_t dice;

static uint32_t below(uint32_t n)
{
    dice = dice * 1664525u + 1013904223u;
    return (dice >> 8) % n;
}

/* One after another something ends, by chance; what begins beyond `wall` fails. Says how many failed. */
static uint32_t run(struct pace *p, const struct pace_bounds *b, uint32_t wall, int64_t *now,
                    int64_t until)
{
    bool good[64], worked[64];
    uint32_t n = 0, failed = 0, down = 0, inside = 0;
    while (*now < until) {
        while (n < p->limit && n < ARRAY_LEN(good)) {
            good[n] = inside < wall;
            worked[n] = false;
            inside += good[n++];
        }
        *now += 20;
        uint32_t i = below(n);
        for (uint32_t k = 0; k < n && good[i]; k++) /* refusals are told sooner */
            if (!good[k])
                i = k;
        if (good[i]) {
            pace_worked(p, b, n, *now);
            inside--;
            for (uint32_t k = 0; k < n; k++)
                worked[k] = true;
        } else {
            failed++;
            down += pace_failed(p, n - 1, worked[i], *now) == PACE_DOWN;
        }
        n--;
        good[i] = good[n];
        worked[i] = worked[n];
        assert_in_range(p->limit, 1, MAX(b->most, 1u));
        assert_true(p->ceiling == 0 || p->ceiling >= 2);
    }
    assert_int_equal(down, 0); /* something works all the time */
    return failed;
}

static void test_Q1_a_wall_is_found_and_left_alone(void **state)
{
    for (uint32_t wall = 1; wall <= 24; wall++) {
        for (uint32_t first = 1; first <= 20; first += 6) {
            struct pace p;
            int64_t now = 0;
            dice = wall * 31 + first;
            pace_init(&p, first);
            uint32_t at_once = run(&p, &usual, wall, &now, 2 * MINUTE);
            uint32_t later = run(&p, &usual, wall, &now, 4 * HOUR);
            assert_in_range(at_once, 0, 20);
            assert_in_range(later, 0, 8); /* trials after 5, 10, 20, 40 minutes, then each hour */
            assert_in_range(p.limit, MIN(wall, usual.most), MIN(wall + 1, usual.most));
            /* The wall has gone. */
            run(&p, &usual, 1000, &now, now + 3 * HOUR);
            assert_int_equal(p.limit, usual.most);
            assert_int_equal(p.ceiling, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_Q1_a_probe_doubles_to_the_start_then_adds_one_a_round),
        cmocka_unit_test(test_Q1_the_only_one_that_fails_says_down),
        cmocka_unit_test(test_Q1_a_cohort_is_one_failure),
        cmocka_unit_test(test_Q1_a_success_meanwhile_counts),
        cmocka_unit_test(test_Q1_the_ceiling_holds_and_is_tried_again),
        cmocka_unit_test(test_Q1_the_ceiling_survives_being_down),
        cmocka_unit_test(test_Q1_a_wall_at_one),
        cmocka_unit_test(test_Q1_a_wall_is_found_and_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
