/* heartbeat.c - signs of life. Layer: daemon. Interface: heartbeat.h. */
#include "daemon/heartbeat.h"

#include <unistd.h>

#include "daemon/notify.h"
#include "daemon/router.h"

struct beat {
    struct worker_message to_worker, to_main;
    struct heartbeat *all;
};

struct heartbeat {
    struct router *router;
    struct timer timer;
    int64_t every_ms;
    int left; /* workers that have not answered yet */
    struct beat beats[WORKERS_MAX];
};

static void on_answer(struct engine *none, struct worker_message *m)
{
    struct heartbeat *h = CONTAINER_OF(m, struct beat, to_main)->all;

    if (--h->left == 0)
        notify("WATCHDOG=1");
}

/* In the worker's thread. */
static void on_ask(struct engine *e, struct worker_message *m)
{
    struct beat *b = CONTAINER_OF(m, struct beat, to_worker);

    router_tell(b->all->router, &b->to_main);
}

static void on_timer(struct timer *t)
{
    struct heartbeat *h = CONTAINER_OF(t, struct heartbeat, timer);
    struct router *r = h->router;

    if (h->left == 0) {
        h->left = r->n_workers;
        for (int i = 0; i < r->n_workers; i++) {
            h->beats[i] = (struct beat){ .to_worker = { .run = on_ask },
                                         .to_main = { .run = on_answer },
                                         .all = h };
            router_post(r, i, &h->beats[i].to_worker);
        }
    }
    io_loop_timer_set(r->loop, t, io_loop_now(r->loop) + h->every_ms);
}

/* 0: it wants none. */
static int64_t wanted_us(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");

    if (!usec || (pid && strtol(pid, NULL, 10) != getpid()))
        return 0;
    long long n = strtoll(usec, NULL, 10);
    return n > 0 ? n : 0;
}

struct heartbeat *heartbeat_new(struct router *r)
{
    struct heartbeat *h = calloc(1, sizeof(*h));

    if (!h)
        return NULL;
    h->router = r;
    timer_init(&h->timer, on_timer);
    /* Thrice in the time: an answer that comes late in one interval is not missed. */
    h->every_ms = MAX(wanted_us() / 3000, 1);
    if (wanted_us())
        io_loop_timer_set(r->loop, &h->timer, io_loop_now(r->loop));
    return h;
}

struct heartbeat *heartbeat_free(struct heartbeat *h)
{
    if (!h)
        return NULL;
    io_loop_timer_stop(h->router->loop, &h->timer);
    free(h);
    return NULL;
}
