/* control_world.h - the control API with everything around it, for fuzz targets: a simulated world with an engine and a
 * few messages in its queue, the real API on a socket, and a client. One thread; `turn` lets all go on a little.
 *
 * Included by one source of a target; all is static but four functions that only a whole daemon could serve, which
 * are answered here with nothing.
 *
 * Nothing but the HTTP library looks at the real clock, and no answer depends on it. */
#ifndef TERN_TESTS_FUZZ_CONTROL_WORLD_H
#define TERN_TESTS_FUZZ_CONTROL_WORLD_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/control.h"
#include "daemon/control_call.h"
#include "sim/policy.h"
#include "sim/world.h"

enum { FLIGHT_END = 0x1e, TURNS = 100, IDLE_TURNS = 20, TURN_MS = 20 };

static const char zone[] = "example.com.     MX 10 mx1.example.com.\n"
                           "mx1.example.com. A 192.0.2.1\n";

struct run {
    struct sim_world *w;
    struct sim_policy policy;
    struct settings *settings;
    struct router router;
    struct worker worker;
    struct control *control;
    struct port_workers main;
    struct worker_message *first; /* for the main thread */
    struct io_watch *ready;       /* always: a turn of the loop does not wait, and is the last */
    int pipe[2];
    struct buf answer;
    int fd;
    bool ended;
};

/* ---- what a whole daemon would serve ---- */

static void serve_nothing(struct control_call *c)
{
    control_answer(c, 200, json_object());
}

void control_serve_status(struct control_call *c)
{
    serve_nothing(c);
}

void control_serve_metrics(struct control_call *c)
{
    serve_nothing(c);
}

void control_serve_reload(struct control_call *c)
{
    serve_nothing(c);
}

void control_serve_spool(struct control_call *c)
{
    serve_nothing(c);
}

/* ---- the router ---- */

static void post_to_main(struct port_workers *self, int worker, struct worker_message *m)
{
    struct worker_message **at = &CONTAINER_OF(self, struct run, main)->first;

    CHECK(worker == 0);
    while (*at)
        at = &(*at)->next;
    m->next = NULL;
    *at = m;
}

static void begin_world(struct run *x)
{
    x->w = sim_world_new(7, 1);
    x->settings = settings_new();
    CHECK(x->settings);
    x->settings->hostname = STR("mx.example");
    x->settings->file = STR("tern.lua");
    x->settings->fingerprint = 1;
    sim_policy_init(&x->policy, sim_world_clock(x->w));
    sim_world_zone(x->w, zone);
    sim_policy_domain(&x->policy, "example.com", NULL);
    sim_policy_domain(&x->policy, "held.example", sim_route_hold("held.example"));
    sim_world_configure(x->w, x->settings, sim_policy_hooks, &x->policy);
    sim_world_start(x->w);
    CHECK(sim_world_mail(x->w, "a@sender.example", "u@example.com", "one") == 250);
    CHECK(sim_world_mail(x->w, "", "v@held.example", "two") == 250);
    sim_world_advance(x->w, 5 * SIM_SECOND); /* no host answers: the first is deferred */
}

static void begin_router(struct run *x)
{
    static char path[64];
    struct router *r = &x->router;
    struct failure f;

    snprintf(path, sizeof(path), "/tmp/fuzz_control.%d", (int)getpid());
    x->settings->control = str_of(path);
    CHECK(io_loop_new(0, 1, &r->loop) == 0);
    r->settings = x->settings;
    r->n_workers = 1;
    r->workers[0] = &x->worker;
    x->worker.ports = *sim_world_ports(x->w, 0);
    x->main = (struct port_workers){ .count = 1, .post = post_to_main };
    r->ports = x->worker.ports;
    r->ports.workers = &x->main;
    journal_init(&r->journal, NULL, r->loop, (enum event_level)(EVENT_ERROR + 1));
    CHECK(control_new(r, &x->control, &f) == 0);
}

static void on_ready(void *owner)
{
    io_loop_stop(owner);
}

static void begin_turns(struct run *x)
{
    CHECK(pipe(x->pipe) == 0 && write(x->pipe[1], "", 1) == 1);
    CHECK(io_watch_new(x->router.loop, x->pipe[0], on_ready, x->router.loop, &x->ready) == 0);
}

static void end_turns(struct run *x)
{
    io_watch_free(x->ready);
    close(x->pipe[0]);
    close(x->pipe[1]);
}

/* One turn of everything. */
static void turn(struct run *x)
{
    struct worker_message *m;

    io_loop_run(x->router.loop);
    sim_world_advance(x->w, TURN_MS);
    while ((m = x->first)) {
        x->first = m->next;
        m->run(NULL, m);
    }
}

/* ---- the client ---- */

static void receive(struct run *x)
{
    char bytes[4096];
    ssize_t n;

    while (!x->ended && (n = recv(x->fd, bytes, sizeof(bytes), 0)) != -1) {
        x->ended = n == 0;
        CHECK(buf_add(&x->answer, bytes, (size_t)n) == 0);
    }
    x->ended |= !x->ended && errno != EAGAIN;
}

static void say(struct run *x, struct str bytes)
{
    for (int i = 0; bytes.n && !x->ended && i < TURNS; i++) {
        ssize_t n = send(x->fd, bytes.p, bytes.n, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            return;
        bytes = str_from(bytes, n > 0 ? (size_t)n : 0);
        turn(x);
        receive(x);
    }
}

/* A connection: flights parted by FLIGHT_END, then the client sends no more. What is answered is in x->answer. */
static void talk(struct run *x, struct str in)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    struct str flight;

    buf_clear(&x->answer);
    x->ended = false;
    CHECK(str_copy(x->settings->control, to.sun_path, sizeof(to.sun_path)));
    x->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(x->fd >= 0 && connect(x->fd, (struct sockaddr *)&to, sizeof(to)) == 0);
    while (str_cut(&in, FLIGHT_END, &flight))
        say(x, flight);
    shutdown(x->fd, SHUT_WR);
    /* The library keeps one that ends within a request, until its time is over. */
    for (int idle = 0; idle < IDLE_TURNS && !x->ended; idle++) {
        size_t before = buf_len(&x->answer);
        turn(x);
        receive(x);
        if (buf_len(&x->answer) != before)
            idle = 0;
    }
    close(x->fd);
    turn(x);
}

/* ---- life ---- */

static void begin(struct run *x)
{
    *x = (struct run){ .fd = -1 };
    buf_init(&x->answer, 0);
    begin_world(x);
    begin_router(x);
    begin_turns(x);
}

static void end(struct run *x)
{
    sim_spool_check(sim_world_spool(x->w));
    sim_world_stop(x->w, SIM_MINUTE);
    x->control = control_free(x->control);
    end_turns(x);
    journal_done(&x->router.journal);
    io_loop_free(x->router.loop);
    sim_world_free(x->w);
    sim_policy_done(&x->policy);
    settings_unref(x->settings);
    buf_done(&x->answer);
}

#endif
