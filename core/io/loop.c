/* loop.c - the event loop of one worker.
 *
 * Layer: io. Interface: loop.h. libev waits and tells what is ready; the rest of a turn is ours:
 * a check watcher of the highest priority reads the clock once, before all other callbacks, and
 * a prepare watcher does the end of the turn. libev knows one timer, the next deadline of our
 * heap.
 *
 * The mailbox is a stack that senders push to by compare-and-swap and the loop takes as a whole
 * (reversed: first come, first run). Only who pushes onto an empty one wakes the loop, and libev
 * writes to its eventfd only when the loop may be asleep.
 */
#include "io/loop.h"

#include <ev.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/random.h>
#include <time.h>

enum {
    MAIL_PER_TURN = 512,
    TIMERS_PER_TURN = 2048,
    LATER_ROUNDS = 16, /* a `later` that asks for another one, and so on */
    LAST_ROUNDS = 4,
    CACHE_LINE = 64,
};

struct io_loop {
    /* Written by other threads: on a cache line of its own. */
    _Alignas(CACHE_LINE) _Atomic(struct worker_message *) mailbox;
    char apart[CACHE_LINE - sizeof(void *)];

    struct port_clock clock;
    struct port_random random;
    struct port_workers workers;
    struct engine *engine;
    struct ev_loop *ev;

    int64_t now, wall;
    struct timer_heap timers;
    struct list later, last, after; /* struct later.link */
    uint64_t chance[4];

    ev_check check;
    ev_prepare prepare;
    ev_idle idle; /* active: the next turn must not block */
    ev_timer deadline;
    int64_t deadline_at; /* what the timer is set for; INT64_MAX: not at all */
    ev_async wake;

    atomic_bool stop;
    struct io_loop *const *loops; /* of all workers; NULL: alone */
    struct worker_message *inbox; /* taken from the mailbox, oldest first */
    struct worker_message *inbox_end;
};

struct io_watch {
    ev_io watcher;
    struct io_loop *loop;
    void (*ready)(void *owner);
    void *owner;
};

/* ---- clock ----------------------------------------------------------------------------------- */

static void read_clock(struct io_loop *l)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    l->now = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
    /* libev's cached time of day: it has just read it, and follows jumps. */
    l->wall = llrint(ev_now(l->ev) * 1000);
}

static int64_t clock_now(struct port_clock *self)
{
    return CONTAINER_OF(self, struct io_loop, clock)->now;
}

static int64_t clock_wall(struct port_clock *self)
{
    return CONTAINER_OF(self, struct io_loop, clock)->wall;
}

static void clock_timer_set(struct port_clock *self, struct timer *t, int64_t at)
{
    io_loop_timer_set(CONTAINER_OF(self, struct io_loop, clock), t, at);
}

static void clock_timer_stop(struct port_clock *self, struct timer *t)
{
    io_loop_timer_stop(CONTAINER_OF(self, struct io_loop, clock), t);
}

static void clock_later(struct port_clock *self, struct later *run)
{
    io_loop_later(CONTAINER_OF(self, struct io_loop, clock), run);
}

/* Time zones change twice a year, and by law: the system knows. */
static int64_t clock_zone(struct port_clock *self, int64_t wall_ms)
{
    time_t at = wall_ms / 1000;
    struct tm local;

    return localtime_r(&at, &local) ? local.tm_gmtoff * INT64_C(1000) : 0;
}

int64_t io_loop_now(const struct io_loop *l)
{
    return l->now;
}

void io_loop_timer_set(struct io_loop *l, struct timer *t, int64_t at)
{
    timer_heap_set(&l->timers, t, at);
}

void io_loop_timer_stop(struct io_loop *l, struct timer *t)
{
    timer_heap_stop(&l->timers, t);
}

static void add_later(struct list *to, struct later *run)
{
    if (list_empty(&run->link))
        list_push(to, &run->link);
}

void io_loop_later(struct io_loop *l, struct later *run)
{
    add_later(&l->later, run);
}

void io_loop_last(struct io_loop *l, struct later *run)
{
    add_later(&l->last, run);
}

void io_loop_after(struct io_loop *l, struct later *run)
{
    add_later(&l->after, run);
}

/* ---- chance: xoshiro256** (Blackman, Vigna), seeded by the kernel ---------------------------- */

static uint64_t rotl(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

uint64_t io_loop_random(struct io_loop *l)
{
    uint64_t *s = l->chance;
    uint64_t result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

static uint64_t random_next(struct port_random *self)
{
    return io_loop_random(CONTAINER_OF(self, struct io_loop, random));
}

/* ---- mailbox --------------------------------------------------------------------------------- */

static void deliver_to(struct io_loop *l, struct worker_message *m)
{
    struct worker_message *top = atomic_load_explicit(&l->mailbox, memory_order_relaxed);

    do {
        m->next = top;
    } while (!atomic_compare_exchange_weak_explicit(&l->mailbox, &top, m, memory_order_release,
                                                    memory_order_relaxed));
    if (!top)
        ev_async_send(l->ev, &l->wake);
}

/* From any thread: reads only what is fixed before the loops run. */
static void workers_post(struct port_workers *self, int worker, struct worker_message *m)
{
    struct io_loop *l = CONTAINER_OF(self, struct io_loop, workers);

    CHECK(worker >= 0 && worker < self->count);
    CHECK(l->loops || worker == self->self);
    deliver_to(l->loops ? l->loops[worker] : l, m);
}

static void take_mail(struct io_loop *l)
{
    struct worker_message *m = NULL;

    if (atomic_load_explicit(&l->mailbox, memory_order_relaxed))
        m = atomic_exchange_explicit(&l->mailbox, NULL, memory_order_acquire);
    if (!m)
        return;

    struct worker_message *newest = m, *oldest = NULL;
    while (m) {
        struct worker_message *next = m->next;
        m->next = oldest;
        oldest = m;
        m = next;
    }
    if (l->inbox)
        l->inbox_end->next = oldest;
    else
        l->inbox = oldest;
    l->inbox_end = newest;
}

static void run_mail(struct io_loop *l)
{
    take_mail(l);
    for (int i = 0; l->inbox && i < MAIL_PER_TURN; i++) {
        struct worker_message *m = l->inbox;
        l->inbox = m->next;
        m->next = NULL;
        m->run(l->engine, m);
    }
}

/* ---- the turn -------------------------------------------------------------------------------- */

/* Runs those that are in the list now; what they add waits for the next round. */
static void run_list(struct list *from)
{
    struct list now, *node;

    list_init(&now);
    list_join(&now, from);
    while ((node = list_pop(&now))) {
        struct later *l = LIST_ENTRY(node, struct later, link);
        l->run(l);
    }
}

static void run_later(struct io_loop *l)
{
    for (int i = 0; i < LAST_ROUNDS; i++) {
        for (int j = 0; j < LATER_ROUNDS && !list_empty(&l->later); j++)
            run_list(&l->later);
        if (list_empty(&l->last))
            break;
        run_list(&l->last);
    }
    run_list(&l->after);
}

static void set_deadline(struct io_loop *l)
{
    int64_t at = timer_heap_next(&l->timers);

    if (at == l->deadline_at)
        return;
    l->deadline_at = at;
    ev_timer_stop(l->ev, &l->deadline);
    if (at == INT64_MAX)
        return;
    ev_timer_set(&l->deadline, at <= l->now ? 0. : (double)(at - l->now) / 1000, 0.);
    ev_timer_start(l->ev, &l->deadline);
}

static void on_check(struct ev_loop *ev, ev_check *w, int revents)
{
    read_clock(CONTAINER_OF(w, struct io_loop, check));
}

static void on_prepare(struct ev_loop *ev, ev_prepare *w, int revents)
{
    struct io_loop *l = CONTAINER_OF(w, struct io_loop, prepare);

    run_mail(l);
    timer_heap_run(&l->timers, l->now, TIMERS_PER_TURN);
    run_later(l);

    bool busy =
        l->inbox || !list_empty(&l->later) || !list_empty(&l->last) || !list_empty(&l->after);
    if (busy && !ev_is_active(&l->idle))
        ev_idle_start(ev, &l->idle);
    else if (!busy && ev_is_active(&l->idle))
        ev_idle_stop(ev, &l->idle);
    set_deadline(l);
    if (atomic_load_explicit(&l->stop, memory_order_relaxed))
        ev_break(ev, EVBREAK_ALL);
}

/* Nothing to do: what they woke the loop for happens at the end of the turn. */
static void on_idle(struct ev_loop *ev, ev_idle *w, int revents)
{
}

static void on_wake(struct ev_loop *ev, ev_async *w, int revents)
{
}

static void on_deadline(struct ev_loop *ev, ev_timer *w, int revents)
{
    CONTAINER_OF(w, struct io_loop, deadline)->deadline_at = INT64_MAX;
}

void io_loop_run(struct io_loop *l)
{
    sigset_t pipe;

    /* Our own writes ask for no signal; those of c-ares cannot. */
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, NULL);
    ev_now_update(l->ev);
    read_clock(l);
    ev_run(l->ev, 0);
    atomic_store_explicit(&l->stop, false, memory_order_relaxed);
}

void io_loop_stop(struct io_loop *l)
{
    atomic_store_explicit(&l->stop, true, memory_order_relaxed);
    ev_async_send(l->ev, &l->wake);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void start_watchers(struct io_loop *l)
{
    ev_check_init(&l->check, on_check);
    ev_set_priority(&l->check, EV_MAXPRI);
    ev_check_start(l->ev, &l->check);
    ev_prepare_init(&l->prepare, on_prepare);
    ev_prepare_start(l->ev, &l->prepare);
    ev_idle_init(&l->idle, on_idle);
    ev_timer_init(&l->deadline, on_deadline, 0., 0.);
    ev_async_init(&l->wake, on_wake);
    ev_async_start(l->ev, &l->wake);
}

int io_loop_new(int worker, int workers, struct io_loop **ret)
{
    CHECK(worker >= 0 && worker < workers);
    struct io_loop *l = aligned_alloc(_Alignof(struct io_loop), sizeof(*l));
    if (!l)
        return -ENOMEM;
    *l = (struct io_loop){
        .clock = { clock_now, clock_wall, clock_timer_set, clock_timer_stop, clock_later,
                   clock_zone },
        .random = { random_next },
        .workers = { .self = worker, .count = workers, .post = workers_post },
        .deadline_at = INT64_MAX,
    };
    list_init(&l->later);
    list_init(&l->last);
    list_init(&l->after);
    timer_heap_init(&l->timers);
    atomic_init(&l->stop, false);
    atomic_init(&l->mailbox, NULL);
    if (getrandom(l->chance, sizeof(l->chance), 0) != sizeof(l->chance)) {
        int error = errno;
        free(l);
        return -error;
    }

    errno = 0;
    l->ev = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (!l->ev) {
        int error = errno;
        free(l);
        return error ? -error : -ENOMEM;
    }
    start_watchers(l);
    read_clock(l);
    *ret = l;
    return 0;
}

struct io_loop *io_loop_free(struct io_loop *l)
{
    if (!l)
        return NULL;
    timer_heap_done(&l->timers);
    ev_loop_destroy(l->ev);
    free(l);
    return NULL;
}

void io_loop_join(struct io_loop *l, struct io_loop *const *loops, int count)
{
    CHECK(count == l->workers.count && loops[l->workers.self] == l);
    l->loops = loops;
}

void io_loop_set_engine(struct io_loop *l, struct engine *e)
{
    l->engine = e;
}

void io_loop_ports(struct io_loop *l, struct ports *ret)
{
    ret->clock = &l->clock;
    ret->random = &l->random;
    ret->workers = &l->workers;
}

struct port_clock *io_loop_clock(struct io_loop *l)
{
    return &l->clock;
}

struct ev_loop *io_loop_ev(struct io_loop *l)
{
    return l->ev;
}

/* ---- watches --------------------------------------------------------------------------------- */

static void on_ready(struct ev_loop *ev, ev_io *io, int revents)
{
    struct io_watch *w = CONTAINER_OF(io, struct io_watch, watcher);
    w->ready(w->owner);
}

int io_watch_new(struct io_loop *l, int fd, void (*ready)(void *owner), void *owner,
                 struct io_watch **ret)
{
    struct io_watch *w = malloc(sizeof(*w));
    if (!w)
        return -ENOMEM;
    *w = (struct io_watch){ .loop = l, .ready = ready, .owner = owner };
    ev_io_init(&w->watcher, on_ready, fd, EV_READ);
    ev_io_start(l->ev, &w->watcher);
    *ret = w;
    return 0;
}

struct io_watch *io_watch_free(struct io_watch *w)
{
    if (!w)
        return NULL;
    ev_io_stop(w->loop->ev, &w->watcher);
    free(w);
    return NULL;
}
