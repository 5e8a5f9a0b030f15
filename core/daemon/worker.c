/* worker.c - one thread of the router. Layer: daemon. Interface: worker.h. */
#include "daemon/worker.h"

#include <stdio.h>

enum {
    IDLE_EVERY_MS = 20,    /* how often a worker that stops looks whether it is idle */
    IDLE_STREAMS_MS = 500, /* what has been written gets this long to leave */
    QUIT_ROUNDS = 8,       /* completions that ask for something which completes, and so on */
};

/* ---- listeners -------------------------------------------------------------------------------- */

static void on_accepted(void *owner, struct stream *s, const struct listen_settings *settings)
{
    struct worker *w = owner;
    engine_accept(w->engine, s, settings);
}

const struct worker_listener *worker_listener_for(const struct worker *w,
                                                  const struct net_addr *configured)
{
    for (size_t i = 0; i < w->n_listeners; i++)
        if (net_addr_eq(&w->listeners[i].configured, configured))
            return &w->listeners[i];
    return NULL;
}

/* Takes the listener for that address out of the present ones. */
static struct io_listener *take_listener(struct worker *w, const struct net_addr *configured)
{
    for (size_t i = 0; i < w->n_listeners; i++)
        if (w->listeners[i].io && net_addr_eq(&w->listeners[i].configured, configured))
            return TAKE(w->listeners[i].io);
    return NULL;
}

/* Stops those that are still in the list, and frees it. */
static void stop_listeners(struct worker *w)
{
    for (size_t i = 0; i < w->n_listeners; i++)
        if (w->listeners[i].io)
            io_listener_stop(w->listeners[i].io);
    free(w->listeners);
    w->listeners = NULL;
    w->n_listeners = 0;
}

static int take_fd(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

static int set_listeners(struct worker *w, const struct settings *settings, int *fds)
{
    struct worker_listener *next =
        calloc(settings->n_listen ? settings->n_listen : 1, sizeof(*next));
    size_t n = 0;
    int result = 0;

    if (!next)
        return -ENOMEM;
    for (size_t i = 0; i < settings->n_listen; i++) {
        const struct listen_settings *listen = &settings->listen[i];
        struct io_listener *io = NULL;
        if (fds[i] < 0) {
            io = take_listener(w, &listen->addr);
            if (io)
                io_listener_update(io, listen);
        } else if (io_listener_new(w->net, take_fd(&fds[i]), listen, on_accepted, w, &io) < 0) {
            result = -ENOMEM;
        }
        if (io)
            next[n++] = (struct worker_listener){ .configured = listen->addr, .io = io };
    }
    stop_listeners(w);
    w->listeners = next;
    w->n_listeners = n;
    return result;
}

/* Runs after the listeners that stop have taken what waited for them. */
static void forget_outgoing(struct later *l)
{
    struct worker *w = CONTAINER_OF(l, struct worker, forget_outgoing);
    w->outgoing = settings_unref(w->outgoing);
}

int worker_configure(struct worker *w, struct settings *settings, struct tls_context *tls, int *fds)
{
    int result = set_listeners(w, settings, fds);

    settings_unref(w->outgoing);
    w->outgoing = w->settings;
    w->settings = settings_ref(settings);
    io_loop_later(w->loop, &w->forget_outgoing);
    io_net_set_tls(w->net, tls);
    if (io_https_set_ca(w->https, settings->tls_ca) < 0)
        result = -ENOMEM;
    int r = io_resolver_configure(w->resolver, settings->dns_servers, settings->n_dns_servers,
                                  settings->dns_timeout_ms, settings->dns_trust_ad);
    return result ? result : r;
}

/* ---- life ------------------------------------------------------------------------------------- */

int worker_new(int number, int count, const struct worker_options *o, struct worker **ret)
{
    struct worker *w = calloc(1, sizeof(*w));
    int r = -ENOMEM;

    if (!w)
        return -ENOMEM;
    w->number = number;
    later_init(&w->forget_outgoing, forget_outgoing);
    r = io_loop_new(number, count, &w->loop);
    if (r == 0)
        r = io_net_new(w->loop, o->tls, &w->net);
    if (r == 0)
        r = io_resolver_new(w->loop, o->settings->dns_servers, o->settings->n_dns_servers,
                            o->settings->dns_timeout_ms, o->settings->dns_trust_ad, &w->resolver);
    if (r == 0)
        r = io_https_new(w->loop, o->settings->tls_ca, &w->https);
    if (r < 0) {
        worker_free(w);
        return r;
    }
    journal_init(&w->journal, o->log, w->loop, o->level);
    io_loop_ports(w->loop, &w->ports);
    w->ports.net = io_net_port(w->net);
    w->ports.dns = io_resolver_port(w->resolver);
    w->ports.https = io_https_port(w->https);
    w->ports.journal = &w->journal.port;
    passwords_port_init(&w->passwords, o->passwords, w->ports.workers);
    w->ports.passwords = &w->passwords.port;
    w->ports.spool = spool_port(o->spool, w->ports.workers);
    if (!w->ports.spool) {
        worker_free(w);
        return -ENOMEM;
    }
    *ret = w;
    return 0;
}

void worker_free_engine(struct worker *w)
{
    for (size_t i = 0; i < w->n_listeners; i++)
        io_listener_free(w->listeners[i].io);
    free(w->listeners);
    w->listeners = NULL;
    w->n_listeners = 0;
    w->engine = engine_free(w->engine);
    if (w->loop)
        io_loop_set_engine(w->loop, NULL);
}

struct worker *worker_free(struct worker *w)
{
    if (!w)
        return NULL;
    worker_free_engine(w);
    if (w->loop)
        io_loop_timer_stop(w->loop, &w->idle_timer);
    io_https_free(w->https);
    io_resolver_free(w->resolver);
    io_net_free(w->net);
    journal_done(&w->journal);
    list_remove(&w->forget_outgoing.link);
    settings_unref(w->outgoing);
    settings_unref(w->settings);
    io_loop_free(w->loop);
    free(w);
    return NULL;
}

static void *run(void *arg)
{
    struct worker *w = arg;
    char name[16];

    snprintf(name, sizeof(name), "tern-worker-%d", w->number % 100);
    pthread_setname_np(pthread_self(), name);
    engine_start(w->engine);
    io_loop_run(w->loop);
    return NULL;
}

int worker_start(struct worker *w)
{
    int r = pthread_create(&w->thread, NULL, run, w);

    w->started = r == 0;
    return -r;
}

/* ---- the end ---------------------------------------------------------------------------------- */

static void on_idle_message(struct engine *e, struct worker_message *m)
{
    struct worker *w = CONTAINER_OF(m, struct worker, idle_message);
    w->idle(w, w->idle_owner);
}

/* Nothing is in progress, and what was written has left (or had time to). */
static void on_idle_timer(struct timer *t)
{
    struct worker *w = CONTAINER_OF(t, struct worker, idle_timer);
    int64_t now = io_loop_now(w->loop);

    if (!engine_idle(w->engine))
        w->idle_since = 0;
    else if (!w->idle_since)
        w->idle_since = now;
    if (w->idle_since && (io_net_streams(w->net) == 0 || now >= w->idle_since + IDLE_STREAMS_MS)) {
        w->main->post(w->main, 0, &w->idle_message);
        return;
    }
    io_loop_timer_set(w->loop, t, now + IDLE_EVERY_MS);
}

static void on_stop_message(struct engine *e, struct worker_message *m)
{
    struct worker *w = CONTAINER_OF(m, struct worker, stop_message);

    w->stopped = true;
    engine_stop(w->engine);
    stop_listeners(w);
    io_loop_timer_set(w->loop, &w->idle_timer, io_loop_now(w->loop) + 1);
}

void worker_stop(struct worker *w, struct port_workers *main,
                 void (*idle)(struct worker *w, void *owner), void *owner)
{
    w->main = main;
    w->idle = idle;
    w->idle_owner = owner;
    w->stop_message.run = on_stop_message;
    w->idle_message.run = on_idle_message;
    timer_init(&w->idle_timer, on_idle_timer);
    w->ports.workers->post(w->ports.workers, w->number, &w->stop_message);
}

/* Goes to the end of the mailbox some times, so that what completes now, and what that completes, is
 * heard. */
static void on_quit_message(struct engine *e, struct worker_message *m)
{
    struct worker *w = CONTAINER_OF(m, struct worker, quit_message);

    if (w->quit_rounds++ < QUIT_ROUNDS)
        w->ports.workers->post(w->ports.workers, w->number, m);
    else
        io_loop_stop(w->loop);
}

void worker_join(struct worker *w)
{
    if (!w->started)
        return;
    w->quit_message.run = on_quit_message;
    w->ports.workers->post(w->ports.workers, w->number, &w->quit_message);
    pthread_join(w->thread, NULL);
    w->started = false;
}
