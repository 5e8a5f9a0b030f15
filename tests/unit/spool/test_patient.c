/* Units that nobody waits for: with whom they go, and when by themselves. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "spool_helper.h"

enum { ENOUGH = 16, PATIENCE_US = 1000 }; /* as in writer.c */

static uint64_t real_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* An hour ahead, and it stands still there: patience does not end. */
static uint64_t standing_us(void)
{
    static uint64_t at;

    if (!at)
        at = real_us() + UINT64_C(3600) * 1000000;
    return at;
}

struct fixture {
    char *path;
    struct spool *spool;
    struct worker worker;
    struct unit unit[ENOUGH + 1];
};

static void begin(struct fixture *f, uint64_t (*clock_us)(void))
{
    f->path = spool_folder();
    f->spool = open_spool(&(struct spool_options){ .path = f->path, .clock_us = clock_us });
    worker_init(&f->worker, 0, f->spool);
    for (unsigned i = 0; i <= ENOUGH; i++)
        put_simple(&f->worker, id_of(i + 1), "q", i, 100);
}

static void end(struct fixture *f)
{
    assert_int_equal(check_spool(f->spool), 0);
    spool_stop(f->spool);
    spool_close(f->spool);
    worker_done(&f->worker);
    spool_folder_remove(f->path);
}

static uint64_t commits(struct fixture *f)
{
    struct spool_stats s;

    assert_int_equal(spool_stats(f->spool, &s), 0);
    return s.commits;
}

static void submit(struct fixture *f, unsigned i, bool patient)
{
    struct unit *u = &f->unit[i];

    unit_init(u);
    unit_delete(u, id_of(i + 1), 0);
    u->op.patient = patient;
    unit_submit(u, &f->worker);
}

static void wait_for_all(struct fixture *f, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        while (!f->unit[i].done)
            worker_turn(&f->worker);
        assert_int_equal(f->unit[i].op.result, 0);
        unit_free(&f->unit[i]);
    }
}

static void they_go_with_the_next_one(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, standing_us);
    uint64_t before = commits(&f);
    for (unsigned i = 0; i < ENOUGH - 1; i++)
        submit(&f, i, true);
    submit(&f, ENOUGH - 1, false);
    wait_for_all(&f, ENOUGH);
    assert_int_equal(commits(&f), before + 1);
    end(&f);
}

static void many_are_a_group_of_their_own(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, standing_us);
    uint64_t before = commits(&f);
    for (unsigned i = 0; i < ENOUGH; i++)
        submit(&f, i, true);
    wait_for_all(&f, ENOUGH);
    assert_int_equal(commits(&f), before + 1);
    end(&f);
}

static void one_alone_goes_after_a_moment(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, real_us);
    uint64_t began = real_us();
    submit(&f, 0, true);
    wait_for_all(&f, 1);
    assert_true(real_us() - began >= PATIENCE_US);
    end(&f);
}

/* Stands still where it was stopped; 0: it goes. */
static atomic_uint_fast64_t stopped_at;
static uint64_t held_us(void)
{
    uint64_t at = atomic_load(&stopped_at);

    return at ? at : real_us();
}

static uint64_t ops(struct fixture *f)
{
    struct spool_stats s;

    assert_int_equal(spool_stats(f->spool, &s), 0);
    return s.ops;
}

/* Many at once, then one, which must not go while the clock stands. What the groups are depends on the machine: false
 * when the last of the many was a small one. */
static bool waits_for_company(struct fixture *f)
{
    atomic_store(&stopped_at, real_us());
    uint64_t before = ops(f);
    for (unsigned i = 0; i < ENOUGH; i++)
        submit(f, i, false);
    poll(NULL, 0, 20);
    bool all = ops(f) == before + ENOUGH; /* else it is some of these that wait */
    submit(f, ENOUGH, false);
    poll(NULL, 0, 20); /* time for a commit of its own */
    bool waits = all && ops(f) == before + ENOUGH;
    atomic_store(&stopped_at, 0);
    wait_for_all(f, ENOUGH + 1);
    return waits;
}

/* Behind a group of many the writer waits for as many again. */
static void behind_many_it_waits_for_many(void **state)
{
    bool waited = false;

    (void)state;
    for (int i = 0; i < 100 && !waited; i++) {
        struct fixture f;
        begin(&f, held_us);
        waited = waits_for_company(&f);
        end(&f);
    }
    assert_true(waited);
}

/* And not for long. */
static void the_wait_ends(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, real_us);
    for (unsigned i = 0; i < ENOUGH; i++)
        submit(&f, i, false);
    wait_for_all(&f, ENOUGH);
    submit(&f, ENOUGH, false);
    while (!f.unit[ENOUGH].done)
        worker_turn(&f.worker);
    unit_free(&f.unit[ENOUGH]);
    end(&f);
}

static void without_a_clock_none_is_patient(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, NULL);
    submit(&f, 0, true);
    wait_for_all(&f, 1);
    end(&f);
}

static void they_are_committed_when_the_spool_stops(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, standing_us);
    for (unsigned i = 0; i < 3; i++)
        submit(&f, i, true);
    spool_stop(f.spool);
    wait_for_all(&f, 3);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_go_with_the_next_one),
        cmocka_unit_test(many_are_a_group_of_their_own),
        cmocka_unit_test(one_alone_goes_after_a_moment),
        cmocka_unit_test(behind_many_it_waits_for_many),
        cmocka_unit_test(the_wait_ends),
        cmocka_unit_test(without_a_clock_none_is_patient),
        cmocka_unit_test(they_are_committed_when_the_spool_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
