/* maps.c - files of maps that change while the router runs. Layer: daemon. Interface: maps.h. */
#include "daemon/maps.h"

#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "daemon/router.h"
#include "mail/map.h"

enum { LOOK_EVERY_MS = 1000, AGAIN_LOOKS = 60, RETIRED_MAX = 16, READER_NICE = 10 };

/* A new version on its way to one worker, and the former one on its way back. */
struct handover {
    struct worker_message to_worker, to_main;
    struct maps *maps;
    struct map *map;
    int64_t took_us; /* how long the worker stood still for it */
};

struct maps {
    struct router *router;
    struct timer timer;
    struct policy_source *retired[RETIRED_MAX];

    /* One read at a time, until all workers have it. */
    bool busy, reading; /* reading: there is a thread to join */
    pthread_t thread;
    struct policy_source *source; /* a reference */
    struct map_file *file;
    int64_t began, read_ms;
    struct worker_message read;
    int result;
    struct map *map;
    struct policy_error err;
    struct handover handover[WORKERS_MAX];
    int left;
};

static void end(struct maps *m)
{
    m->map = map_unref(m->map);
    m->source = policy_source_unref(m->source);
    m->file = NULL;
    m->busy = false;
}

/* ---- handing over ----------------------------------------------------------------------------- */

static void tell_read(struct maps *m)
{
    int64_t longest = 0;

    for (int i = 0; i < m->router->n_workers; i++)
        longest = MAX(longest, m->handover[i].took_us);
    journal_event(&m->router->journal,
                  EVENT(EVENT_INFO, "map_read", F_STRZ("file", policy_map_name(m->file)),
                        F_INT("rows", (int64_t)map_count(m->map)),
                        F_INT("bytes", (int64_t)map_bytes(m->map)), F_INT("took_ms", m->read_ms),
                        F_INT("pause_us", longest)));
}

static void on_given(struct engine *none, struct worker_message *msg)
{
    struct handover *h = CONTAINER_OF(msg, struct handover, to_main);
    struct maps *m = h->maps;

    h->map = map_unref(h->map);
    if (--m->left)
        return;
    tell_read(m);
    end(m);
}

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* In the worker's thread. */
static void on_give(struct engine *e, struct worker_message *msg)
{
    struct handover *h = CONTAINER_OF(msg, struct handover, to_worker);
    int64_t began = now_us();

    h->map = policy_map_give(engine_hooks(e), h->maps->file, h->map);
    engine_policy_changed(e);
    h->took_us = now_us() - began;
    router_tell(h->maps->router, &h->to_main);
}

static void hand_over(struct maps *m)
{
    m->left = m->router->n_workers;
    for (int i = 0; i < m->router->n_workers; i++) {
        struct handover *h = &m->handover[i];
        *h = (struct handover){ .to_worker = { .run = on_give },
                                .to_main = { .run = on_given },
                                .maps = m,
                                .map = map_ref(m->map) };
        router_post(m->router, i, &h->to_worker);
    }
}

/* ---- reading ---------------------------------------------------------------------------------- */

/* In a thread of its own. */
static void *read_file(void *arg)
{
    struct maps *m = arg;

    setpriority(PRIO_PROCESS, (id_t)gettid(), READER_NICE); /* of this thread: mail goes first */
    m->result = policy_map_read(m->source, m->file, &m->map, &m->err);
    router_tell(m->router, &m->read);
    return NULL;
}

static void join(struct maps *m)
{
    if (m->reading)
        pthread_join(m->thread, NULL);
    m->reading = false;
}

static void tell_failed(struct maps *m)
{
    journal_event(&m->router->journal,
                  EVENT(EVENT_ERROR, "map_failed", F_STRZ("file", policy_map_name(m->file)),
                        F_STRZ("error", m->err.message)));
}

/* A shortage of ours, of which the file knows nothing, so that nobody would touch it because of it. */
static bool may_pass(int error)
{
    return error == -ENOMEM || error == -EMFILE || error == -ENFILE || error == -EIO ||
           error == -EAGAIN;
}

static void fail(struct maps *m, int error)
{
    tell_failed(m);
    if (may_pass(error))
        policy_map_later(m->file, AGAIN_LOOKS);
    end(m);
}

static void on_read(struct engine *none, struct worker_message *msg)
{
    struct maps *m = CONTAINER_OF(msg, struct maps, read);
    struct router *r = m->router;

    join(m);
    if (m->source != r->source) { /* a reload was faster, and has read it too */
        end(m);
        return;
    }
    if (m->result == -EAGAIN) { /* it is being written: when it rests, it is told again */
        policy_map_later(m->file, AGAIN_LOOKS);
        end(m);
        return;
    }
    if (m->result < 0) {
        fail(m, m->result);
        return;
    }
    m->read_ms = io_loop_now(r->loop) - m->began;
    map_unref(policy_map_adopt(m->file, map_ref(m->map)));
    hand_over(m);
}

static void begin(struct maps *m, struct map_file *f)
{
    m->busy = true;
    m->source = policy_source_ref(m->router->source);
    m->file = f;
    m->began = io_loop_now(m->router->loop);
    m->read = (struct worker_message){ .run = on_read };
    int e = pthread_create(&m->thread, NULL, read_file, m);
    m->reading = e == 0;
    if (e == 0)
        return;
    str_copy(str_of(strerror(e)), m->err.message, sizeof(m->err.message));
    fail(m, -e);
}

/* ---- watching --------------------------------------------------------------------------------- */

static void drop_retired(struct maps *m)
{
    for (int i = 0; i < RETIRED_MAX; i++)
        if (m->retired[i] && policy_source_is_last(m->retired[i]))
            m->retired[i] = policy_source_unref(m->retired[i]);
}

void maps_retire(struct maps *m, struct policy_source *s)
{
    for (int i = 0; s && i < RETIRED_MAX; i++)
        if (!m->retired[i]) {
            m->retired[i] = s;
            return;
        }
    policy_source_unref(s); /* many reloads, and sessions that began before all of them */
}

static void on_timer(struct timer *t)
{
    struct maps *m = CONTAINER_OF(t, struct maps, timer);
    struct router *r = m->router;

    drop_retired(m);
    if (!m->busy && !r->stopping) {
        struct map_file *f = policy_maps_changed(r->source);
        if (f)
            begin(m, f);
    }
    io_loop_timer_set(r->loop, t, io_loop_now(r->loop) + LOOK_EVERY_MS);
}

struct maps *maps_new(struct router *r)
{
    struct maps *m = calloc(1, sizeof(*m));

    if (!m)
        return NULL;
    m->router = r;
    timer_init(&m->timer, on_timer);
    io_loop_timer_set(r->loop, &m->timer, io_loop_now(r->loop) + LOOK_EVERY_MS);
    return m;
}

struct maps *maps_free(struct maps *m)
{
    if (!m)
        return NULL;
    io_loop_timer_stop(m->router->loop, &m->timer);
    join(m);
    for (int i = 0; i < WORKERS_MAX; i++)
        map_unref(m->handover[i].map);
    end(m);
    for (int i = 0; i < RETIRED_MAX; i++)
        policy_source_unref(m->retired[i]);
    free(m);
    return NULL;
}
