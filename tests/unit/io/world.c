#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/sockaddr.h"

/* ---- world ----------------------------------------------------------------------------------- */

static void on_tick(struct timer *t)
{
    struct world *w = CONTAINER_OF(t, struct world, tick);

    if (w->done && w->done(w->arg))
        io_loop_stop(w->loop);
    else
        io_loop_timer_set(w->loop, t, io_loop_now(w->loop) + 1);
}

static void on_limit(struct timer *t)
{
    struct world *w = CONTAINER_OF(t, struct world, limit);
    w->timed_out = true;
    io_loop_stop(w->loop);
}

static int64_t real_now(struct world *w)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void world_open(struct world *w, struct tls_context *tls)
{
    *w = (struct world){ 0 };
    assert_int_equal(io_loop_new(0, 1, &w->loop), 0);
    assert_int_equal(io_net_new(w->loop, tls, &w->net), 0);
    io_loop_ports(w->loop, &w->ports);
    w->ports.net = io_net_port(w->net);
    timer_init(&w->tick, on_tick);
    timer_init(&w->limit, on_limit);
}

void world_close(struct world *w)
{
    io_listener_free(w->listener);
    io_net_free(w->net);
    io_loop_free(w->loop);
}

void world_until(struct world *w, bool (*done)(void *arg), void *arg)
{
    w->done = done;
    w->arg = arg;
    io_loop_timer_set(w->loop, &w->tick, real_now(w));
    io_loop_timer_set(w->loop, &w->limit, real_now(w) + WORLD_SECONDS * 1000);
    io_loop_run(w->loop);
    io_loop_timer_stop(w->loop, &w->tick);
    io_loop_timer_stop(w->loop, &w->limit);
    assert_false(w->timed_out);
}

void world_turn(struct world *w, int64_t ms)
{
    io_loop_timer_set(w->loop, &w->limit, real_now(w) + ms);
    io_loop_run(w->loop);
    w->timed_out = false;
}

/* ---- ends ------------------------------------------------------------------------------------ */

static void greet(struct end *e)
{
    if (!e->greeting)
        return;
    end_write(e, e->greeting, strlen(e->greeting), 0);
    if (e->closes_after_greeting)
        end_close(e);
}

static void on_opened(struct stream *s, void *owner)
{
    struct end *e = owner;

    assert_false(e->in_call);
    assert_ptr_equal(e->s, s);
    assert_int_equal(e->closed + e->opened, 0);
    e->opened++;
    greet(e);
}

uint32_t end_roll(struct end *e, uint32_t n)
{
    e->dice = e->dice * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)e->dice * n >> 32);
}

static void on_resume(struct timer *t)
{
    struct end *e = CONTAINER_OF(t, struct end, resume);
    if (e->s)
        stream_resume(e->s);
}

static void take_some(struct end *e, struct stream *s)
{
    struct str in = stream_input(s);
    size_t n = end_roll(e, 4) ? in.n : end_roll(e, (uint32_t)in.n + 1);

    buf_add(&e->got, in.p, n);
    if (e->echo)
        stream_write(s, in.p, n);
    stream_consume(s, n);
    if (n == in.n)
        return;
    if (end_roll(e, 2))
        stream_resume(s);
    else
        io_loop_timer_set(e->w->loop, &e->resume, io_loop_now(e->w->loop) + end_roll(e, 3));
}

static void on_data(struct stream *s, void *owner)
{
    struct end *e = owner;
    struct str in = stream_input(s);

    assert_false(e->in_call);
    assert_ptr_equal(e->s, s);
    assert_int_equal(e->closed, 0);
    assert_true(in.n > 0);
    e->data++;
    e->in_call = true;
    if (e->aborts_on_data) {
        stream_abort(s);
        e->s = NULL;
    } else if (e->starttls_on_data) {
        buf_add_str(&e->got, in);
        stream_consume(s, MIN(in.n, (size_t)1)); /* the rest is for the stream to drop */
        assert_int_equal(stream_starttls(s, &e->tls), 0);
        assert_int_equal(stream_input(s).n, 0);
        e->starttls_on_data = false;
    } else if (e->dice) {
        take_some(e, s);
    } else if (!e->stubborn) {
        struct str part = e->take ? str_first(in, e->take) : in;
        buf_add_str(&e->got, part);
        if (e->echo && stream_write(s, part.p, part.n) < 0) {
            stream_abort(s);
            e->s = NULL;
            e->in_call = false;
            return;
        }
        stream_consume(s, part.n);
        assert_int_equal(stream_input(s).n, in.n - part.n);
        if (e->holds)
            stream_hold(s);
        if ((e->resumes && part.n < in.n) || (e->holds && e->resumes_held))
            stream_resume(s);
    }
    e->in_call = false;
}

static void on_drained(struct stream *s, void *owner)
{
    struct end *e = owner;

    assert_false(e->in_call);
    assert_true(stream_unsent(s) <= NET_LOW_MARK);
    e->drained++;
}

static void on_secured(struct stream *s, void *owner, const struct tls_facts *facts)
{
    struct end *e = owner;

    assert_false(e->in_call);
    assert_true(s->tls);
    e->secured++;
    str_copy(facts->version, e->version, sizeof(e->version));
    str_copy(facts->cipher, e->cipher, sizeof(e->cipher));
    str_copy(facts->subject, e->subject, sizeof(e->subject));
    e->verified = facts->verified;
    e->resumed = facts->resumed;
}

static void on_closed(struct stream *s, void *owner, int error, const char *why)
{
    struct end *e = owner;

    assert_false(e->in_call);
    assert_int_equal(e->closed, 0);
    e->closed++;
    e->error = error;
    str_copy(str_of(why), e->why, sizeof(e->why));
    e->s = NULL;
}

const struct stream_events end_events = {
    .opened = on_opened,
    .data = on_data,
    .drained = on_drained,
    .secured = on_secured,
    .closed = on_closed,
};

void end_init(struct end *e, struct world *w)
{
    *e = (struct end){ .w = w };
    buf_init(&e->got, 0);
    timer_init(&e->resume, on_resume);
}

void end_done(struct end *e)
{
    if (e->s)
        stream_abort(e->s);
    e->s = NULL;
    io_loop_timer_stop(e->w->loop, &e->resume);
    buf_done(&e->got);
}

void end_dial(struct end *e, const struct net_addr *to)
{
    struct port_net *net = e->w->ports.net;

    e->in_call = true;
    e->s = net->dial(net, to, e->source, &end_events, e);
    assert_non_null(e->s);
    e->in_call = false;
}

void end_write(struct end *e, const void *bytes, size_t n, size_t piece)
{
    e->in_call = true;
    for (size_t i = 0; i < n; i += piece) {
        piece = piece ? piece : n;
        assert_int_equal(stream_write(e->s, (const char *)bytes + i, MIN(piece, n - i)), 0);
    }
    e->in_call = false;
}

void end_close(struct end *e)
{
    e->in_call = true;
    stream_close(e->s);
    e->in_call = false;
    e->s = NULL;
}

bool end_opened(void *end)
{
    return ((struct end *)end)->opened;
}
bool end_accepted(void *end)
{
    return ((struct end *)end)->accepted;
}
bool end_closed(void *end)
{
    return ((struct end *)end)->closed;
}
bool end_secured(void *end)
{
    return ((struct end *)end)->secured;
}
bool end_has_data(void *end)
{
    return buf_len(&((struct end *)end)->got) > 0;
}

/* ---- listening ------------------------------------------------------------------------------- */

static void on_accepted(void *owner, struct stream *s, const struct listen_settings *settings)
{
    struct end *e = owner;

    assert_ptr_equal(settings, &e->w->listen);
    e->accepted++;
    if (e->s)
        return; /* not taken: the listener aborts it */
    e->s = s;
    s->ev = &end_events;
    s->owner = e;
    greet(e);
}

void world_listen(struct world *w, const char *addr, enum listen_tls tls, struct end *end)
{
    char error[LISTEN_ERROR_TEXT];

    assert_int_equal(net_addr_parse(str_of(addr), 0, &w->listen.addr), 0);
    w->listen.tls = tls;
    int fd = io_listen_open(&w->listen.addr, error);
    assert_true(fd >= 0);
    assert_int_equal(io_listener_new(w->net, fd, &w->listen, on_accepted, end, &w->listener), 0);
    w->at = *io_listener_addr(w->listener);
}

int raw_connect(const struct net_addr *to)
{
    struct sockaddr_storage addr;
    int len = sockaddr_from_net(to, &addr);
    int fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, (socklen_t)len), 0);
    return fd;
}
