/* The loop: timers, later and last, the mailbox from many threads, watches, stopping. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "world.h"

static char order[64];

static void note(char c)
{
    size_t n = strlen(order);
    assert_true(n + 1 < sizeof(order));
    order[n] = c;
    order[n + 1] = '\0';
}

static struct world world;

static int setup(void **state)
{
    (void)state;
    world_open(&world, NULL);
    order[0] = '\0';
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close(&world);
    return 0;
}

/* ---- timers and later ------------------------------------------------------------------------ */

struct named {
    struct timer timer;
    struct later later;
    char name;
    struct named *adds; /* a later to ask for when this one runs */
    struct named *cancels;
    int again;
};

static void on_timer(struct timer *t)
{
    note(CONTAINER_OF(t, struct named, timer)->name);
}

static void on_later(struct later *l)
{
    struct named *n = CONTAINER_OF(l, struct named, later);

    note(n->name);
    if (n->adds)
        world.ports.clock->later(world.ports.clock, &n->adds->later);
    if (n->cancels)
        list_remove(&n->cancels->later.link);
    if (n->again-- > 0)
        world.ports.clock->later(world.ports.clock, l);
}

static void named(struct named *n, char name)
{
    *n = (struct named){ .name = name };
    timer_init(&n->timer, on_timer);
    later_init(&n->later, on_later);
}

static void test_timers(void **state)
{
    struct port_clock *c = world.ports.clock;
    struct named a, b, x, z;
    int64_t start = c->now(c);

    (void)state;
    named(&a, 'a');
    named(&b, 'b');
    named(&x, 'x');
    named(&z, 'z');
    /* far enough away that a machine that is busy does not reach them in the first turn */
    c->timer_set(c, &b.timer, start + 320);
    c->timer_set(c, &a.timer, start + 300);
    c->timer_set(c, &x.timer, start + 310);
    c->timer_set(c, &z.timer, start - 1000); /* long past: at once */
    c->timer_stop(c, &x.timer);
    world_turn(&world, 5);
    assert_string_equal(order, "z");
    world_turn(&world, 400);
    assert_string_equal(order, "zab");
    assert_true(c->now(c) >= start + 320);
    assert_true(c->now(c) < start + 5000);
    c->timer_set(c, &a.timer, INT64_MAX - 1); /* never, without overflow */
    world_turn(&world, 2);
    c->timer_stop(c, &a.timer);
    assert_string_equal(order, "zab");
}

static void test_wall(void **state)
{
    struct port_clock *c = world.ports.clock;
    int64_t before = c->now(c), wall = c->wall(c);

    (void)state;
    assert_true(llabs(wall - (int64_t)time(NULL) * 1000) < 2000);
    world_turn(&world, 50);
    assert_true(llabs((c->wall(c) - wall) - (c->now(c) - before)) <= 20);
}

static void test_later(void **state)
{
    struct port_clock *c = world.ports.clock;
    struct named a, b, x, z, last;

    (void)state;
    named(&a, 'a');
    named(&b, 'b');
    named(&x, 'x');
    named(&z, 'z');
    named(&last, '.');
    a.adds = &z;
    b.cancels = &x;
    io_loop_last(world.loop, &last.later);
    c->later(c, &a.later);
    c->later(c, &b.later);
    c->later(c, &x.later);
    c->later(c, &a.later); /* waits already */
    assert_string_equal(order, "");
    world_turn(&world, 1);
    assert_string_equal(order, "abz.");
}

/* One that asks for itself without end does not keep the loop from anything else. */
static void test_later_is_fair(void **state)
{
    struct port_clock *c = world.ports.clock;
    struct named a, t;

    (void)state;
    named(&a, 'a');
    named(&t, 't');
    a.again = 40; /* more than the rounds of one turn */
    c->later(c, &a.later);
    c->timer_set(c, &t.timer, c->now(c) + 2);
    world_turn(&world, 20);
    assert_int_equal(strlen(order), 42);
    assert_non_null(strchr(order, 't'));
}

static void test_random(void **state)
{
    struct port_random *r = world.ports.random;
    uint64_t ones = 0, seen = 0;

    (void)state;
    for (int i = 0; i < 1000; i++) {
        uint64_t v = r->next(r);
        seen |= v;
        ones += (uint64_t)__builtin_popcountll(v);
    }
    assert_true(seen == UINT64_MAX);
    assert_in_range(ones, 31000, 33000);
}

/* ---- mailbox --------------------------------------------------------------------------------- */

enum { SENDERS = 4, EACH = 20000 };

struct letter {
    struct worker_message m;
    int sender, n;
};

static int next_of[SENDERS], received;

static void on_letter(struct engine *e, struct worker_message *m)
{
    struct letter *l = CONTAINER_OF(m, struct letter, m);

    assert_ptr_equal(e, (struct engine *)&world);
    assert_int_equal(l->n, next_of[l->sender]++);
    free(l);
    if (++received == SENDERS * EACH)
        io_loop_stop(world.loop);
}

static void *send_letters(void *arg)
{
    for (int i = 0; i < EACH; i++) {
        struct letter *l = malloc(sizeof(*l));
        *l = (struct letter){ .m.run = on_letter, .sender = (int)(intptr_t)arg, .n = i };
        world.ports.workers->post(world.ports.workers, 0, &l->m);
        if (i % 1000 == 0)
            usleep(100); /* so that the loop falls asleep now and then */
    }
    return NULL;
}

static void test_mailbox(void **state)
{
    pthread_t senders[SENDERS];

    (void)state;
    io_loop_set_engine(world.loop, (struct engine *)&world);
    memset(next_of, 0, sizeof(next_of));
    received = 0;
    for (intptr_t i = 0; i < SENDERS; i++)
        assert_int_equal(pthread_create(&senders[i], NULL, send_letters, (void *)i), 0);
    io_loop_run(world.loop);
    for (int i = 0; i < SENDERS; i++)
        pthread_join(senders[i], NULL);
    assert_int_equal(received, SENDERS * EACH);
}

/* Two loops that play one ball. */
static struct io_loop *pair[2];
struct ball {
    struct worker_message m;
    int hits;
};

static void on_ball(struct engine *e, struct worker_message *m)
{
    struct ball *b = CONTAINER_OF(m, struct ball, m);
    struct io_loop *here = (struct io_loop *)e;
    struct ports ports;

    if (++b->hits == 2000) {
        io_loop_stop(pair[0]);
        io_loop_stop(pair[1]);
        return;
    }
    io_loop_ports(here, &ports);
    assert_int_equal(ports.workers->count, 2);
    ports.workers->post(ports.workers, 1 - ports.workers->self, m);
}

static void *run_loop(void *arg)
{
    io_loop_run(arg);
    return NULL;
}

static void test_two_workers(void **state)
{
    struct ball ball = { .m.run = on_ball };
    struct ports ports;
    pthread_t other;

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(io_loop_new(i, 2, &pair[i]), 0);
        io_loop_set_engine(pair[i], (struct engine *)pair[i]);
    }
    for (int i = 0; i < 2; i++)
        io_loop_join(pair[i], pair, 2);
    assert_int_equal(pthread_create(&other, NULL, run_loop, pair[1]), 0);
    io_loop_ports(pair[0], &ports);
    ports.workers->post(ports.workers, 1, &ball.m);
    io_loop_run(pair[0]);
    pthread_join(other, NULL);
    assert_int_equal(ball.hits, 2000);
    io_loop_free(pair[0]);
    io_loop_free(pair[1]);
}

static void test_stop_before_run(void **state)
{
    (void)state;
    io_loop_stop(world.loop);
    io_loop_run(world.loop); /* returns */
}

/* ---- watches --------------------------------------------------------------------------------- */

static struct io_watch *watch;
static int watched_fd;

static void on_ready(void *owner)
{
    uint64_t v;

    assert_ptr_equal(owner, &watched_fd);
    assert_int_equal(read(watched_fd, &v, sizeof(v)), sizeof(v));
    note((char)('0' + v));
    watch = io_watch_free(watch);
    io_loop_stop(world.loop);
}

static void test_watch(void **state)
{
    (void)state;
    watched_fd = eventfd(3, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_int_equal(io_watch_new(world.loop, watched_fd, on_ready, &watched_fd, &watch), 0);
    io_loop_run(world.loop);
    assert_string_equal(order, "3");
    assert_null(watch);
    close(watched_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_timers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wall, setup, teardown),
        cmocka_unit_test_setup_teardown(test_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_later_is_fair, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mailbox, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_workers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_before_run, setup, teardown),
        cmocka_unit_test_setup_teardown(test_watch, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
