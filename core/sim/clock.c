/* clock.c - turns of virtual time. Layer: sim. Interface: clock.h. */
#include "sim/clock.h"

enum {
    LATER_ROUNDS = 16,        /* a `later` that asks for another one, and so on; as core/io does */
    MAX_IDLE_TURNS = 1000000, /* without time passing */
};

bool (*sim_no_memory)(void);

void *sim_alloc(size_t n)
{
    void *p = calloc(1, n ? n : 1);
    CHECK(p != NULL);
    return p;
}

char *sim_dup(struct str s)
{
    char *p = str_dup(s);
    CHECK(p != NULL);
    return p;
}

static int64_t clock_now(struct port_clock *self)
{
    return CONTAINER_OF(self, struct sim_clock, port)->now;
}

static int64_t clock_wall(struct port_clock *self)
{
    return sim_wall(CONTAINER_OF(self, struct sim_clock, port));
}

static void clock_timer_set(struct port_clock *self, struct timer *t, int64_t at)
{
    struct sim_clock *c = CONTAINER_OF(self, struct sim_clock, port);
    CHECK(t->fire != NULL);
    timer_heap_set(&c->timers, t, at);
}

static void clock_timer_stop(struct port_clock *self, struct timer *t)
{
    timer_heap_stop(&CONTAINER_OF(self, struct sim_clock, port)->timers, t);
}

static void clock_later(struct port_clock *self, struct later *l)
{
    struct sim_clock *c = CONTAINER_OF(self, struct sim_clock, port);
    CHECK(l->run != NULL);
    if (list_empty(&l->link))
        list_push(&c->later, &l->link);
}

static int64_t clock_utc_offset(struct port_clock *self, int64_t wall_ms)
{
    return CONTAINER_OF(self, struct sim_clock, port)->utc_offset;
}

void sim_clock_init(struct sim_clock *c)
{
    *c = (struct sim_clock){
        .port = { clock_now, clock_wall, clock_timer_set, clock_timer_stop, clock_later,
                  clock_utc_offset },
        .now = 1000000, /* not 0: who takes 0 for "never" is told apart from who uses the clock */
        .wall_offset = SIM_EPOCH_MS - 1000000,
    };
    list_init(&c->later);
    timer_heap_init(&c->timers);
}

void sim_clock_done(struct sim_clock *c)
{
    while (list_pop(&c->later))
        ;
    timer_heap_done(&c->timers);
}

static void run_laters(struct sim_clock *c)
{
    for (int round = 0; round < LATER_ROUNDS && !list_empty(&c->later); round++) {
        struct list batch;
        list_init(&batch);
        list_join(&batch, &c->later);
        for (struct list *it; !c->interrupted && (it = list_pop(&batch));) {
            struct later *l = LIST_ENTRY(it, struct later, link);
            l->run(l); /* may free l, and remove others from the batch */
        }
        if (c->interrupted) { /* what was left comes first next time */
            list_join(&batch, &c->later);
            list_join(&c->later, &batch);
            return;
        }
    }
}

static void run_timers(struct sim_clock *c)
{
    struct timer_heap *h = &c->timers;
    uint64_t armed_before = h->seq;
    /* One by one, so that an interruption is noticed in between. */
    const struct timer *t;
    while (!c->interrupted && (t = timer_heap_first(h)) && t->at <= c->now && t->seq < armed_before)
        timer_heap_run(h, c->now, 1);
}

bool sim_clock_turn(struct sim_clock *c, int64_t until)
{
    c->interrupted = false;
    if (list_empty(&c->later)) {
        int64_t next = timer_heap_next(&c->timers);
        if (next > until)
            return false;
        sim_clock_pass(c, MAX(next, c->now));
    }
    CHECK(c->idle_turns < MAX_IDLE_TURNS); /* somebody asks for turn after turn and does not wait */
    c->turns++;
    c->idle_turns++;
    run_timers(c);
    if (!c->interrupted)
        run_laters(c);
    return true;
}

void sim_clock_pass(struct sim_clock *c, int64_t to)
{
    CHECK(to >= c->now && to <= timer_heap_next(&c->timers));
    if (to > c->now)
        c->idle_turns = 0;
    c->now = to;
}

void sim_clock_interrupt(struct sim_clock *c)
{
    c->interrupted = true;
}

void sim_clock_step_wall(struct sim_clock *c, int64_t by_ms)
{
    c->wall_offset += by_ms;
}

void sim_timer_in(struct sim_clock *c, struct timer *t, int64_t in_ms)
{
    c->port.timer_set(&c->port, t, c->now + MAX(in_ms, (int64_t)0));
}

void sim_timer_stop(struct sim_clock *c, struct timer *t)
{
    timer_heap_stop(&c->timers, t);
}
