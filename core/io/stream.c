/* stream.c - reading, writing, closing: the stream_ops of real sockets.
 *
 * Layer: io. Interface: engine/ports.h; inside: stream.h.
 *
 * System calls are what a router pays for, so: one recv a turn and stream, into a buffer shared
 * by all; a full buffer is not followed by a second recv that would only say EAGAIN, nor a short
 * send by another one; interest in writing is registered only when the socket is full; a stream
 * that is paused stays registered for reading until bytes really come.
 */
#include "io/stream.h"

#include <netinet/in.h>
#include <sys/uio.h>
#include <unistd.h>

#include "io/sockaddr.h"

enum {
    DIRECT_MIN = 16384, /* pieces from this size on are sent by stream_write itself */
    TLS_SENDS_MAX = 8,  /* of one stream in one turn */
};

/* ---- plumbing -------------------------------------------------------------------------------- */

static struct io_stream *of(struct stream *s)
{
    return (struct io_stream *)s;
}

static void watch(struct io_stream *s, int events)
{
    if ((s->watcher.events & (EV_READ | EV_WRITE)) == events)
        return;
    ev_io_stop(s->net->ev, &s->watcher);
    ev_io_set(&s->watcher, s->watcher.fd, events);
    if (events)
        ev_io_start(s->net->ev, &s->watcher);
}

static void watch_read(struct io_stream *s, bool on)
{
    watch(s, (s->watcher.events & EV_WRITE) | (on ? EV_READ : 0));
}

static void set_blocked(struct io_stream *s, bool blocked)
{
    s->blocked = blocked;
    watch(s, (s->watcher.events & EV_READ) | (blocked ? EV_WRITE : 0));
}

static void arm(struct io_stream *s, int64_t ms)
{
    io_loop_timer_set(s->net->loop, &s->timer, io_loop_now(s->net->loop) + ms);
}

void io_stream_wake(struct io_stream *s)
{
    io_loop_later(s->net->loop, &s->wake);
}

void io_stream_dirty(struct io_stream *s)
{
    if (!list_empty(&s->dirty))
        return;
    list_push(&s->net->dirty, &s->dirty);
    io_loop_last(s->net->loop, &s->net->flush);
}

static size_t unsent(const struct io_stream *s)
{
    return buf_len(&s->out) + (s->tls ? tls_half_unsent(s->tls) : 0);
}

/* ---- the end --------------------------------------------------------------------------------- */

void io_stream_kill(struct io_stream *s)
{
    if (s->state == STREAM_DEAD)
        return;
    s->state = STREAM_DEAD;
    ev_io_stop(s->net->ev, &s->watcher);
    close(s->watcher.fd);
    io_loop_timer_stop(s->net->loop, &s->timer);
    list_remove(&s->wake.link);
    list_remove(&s->dirty);
    list_remove(&s->link);
    list_push(&s->net->dead, &s->link);
    s->net->n_streams--;
    io_loop_last(s->net->loop, &s->net->flush);
}

/* From here on there is no owner. */
static void begin_flushing(struct io_stream *s)
{
    list_remove(&s->wake.link);
    if (s->state != STREAM_OPEN || s->write_error) {
        io_stream_kill(s);
        return;
    }
    s->state = STREAM_FLUSHING;
    arm(s, NET_CLOSE_MS);
    io_stream_dirty(s);
}

void io_stream_end(struct io_stream *s, int error, const char *why)
{
    if (s->state != STREAM_CONNECTING && s->state != STREAM_OPEN)
        return;

    char text[IO_ERROR_TEXT];
    if (!why)
        why = error ? io_error_text(error, text) : "closed by peer";
    /* After an orderly end the peer may still listen; after a fault of TLS it gets the alert. */
    if ((error == 0 || error == -EPROTO) && unsent(s))
        begin_flushing(s);
    else
        io_stream_kill(s);
    s->base.ev->closed(&s->base, s->base.owner, error, why);
}

/* All is sent: shuts our side, and throws away what still comes, for a close with unread input
 * would make the system send a reset that can overtake our last reply. */
static void begin_lingering(struct io_stream *s)
{
    if (s->got_eof || shutdown(s->watcher.fd, SHUT_WR) < 0) {
        io_stream_kill(s);
        return;
    }
    s->state = STREAM_LINGERING;
    arm(s, NET_LINGER_MS);
    watch(s, EV_READ);
}

static void linger(struct io_stream *s)
{
    ssize_t n = recv(s->watcher.fd, s->net->read_buf, NET_READ_MAX, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        s->lingered += (uint32_t)n;
    if (n <= 0 || s->lingered > NET_LINGER_BYTES)
        io_stream_kill(s);
}

static void on_timer(struct timer *t)
{
    struct io_stream *s = CONTAINER_OF(t, struct io_stream, timer);

    if (s->state == STREAM_OPEN)
        io_stream_end(s, -ETIMEDOUT, "TLS: the handshake took too long");
    else
        io_stream_kill(s);
}

/* ---- sending --------------------------------------------------------------------------------- */

static void write_failed(struct io_stream *s, int error)
{
    s->write_error = error;
    set_blocked(s, false);
    buf_clear(&s->out);
    if (s->tls)
        buf_clear(tls_half_raw(s->tls));
    if (s->state == STREAM_FLUSHING)
        io_stream_kill(s);
    else
        io_stream_wake(s); /* the peer's last words may wait to be read */
}

static ssize_t send_both(int fd, struct str a, struct str b)
{
    struct iovec iov[2] = {
        { .iov_base = (void *)(uintptr_t)a.p, .iov_len = a.n },
        { .iov_base = (void *)(uintptr_t)b.p, .iov_len = b.n },
    };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

    return sendmsg(fd, &msg, MSG_NOSIGNAL);
}

/* One system call: all of first, then of *second. 1: all has gone; 0: the socket is full;
 * -errno. */
static int send_two(struct io_stream *s, struct buf *first, struct str *second)
{
    struct str head = buf_str(first);
    int fd = s->watcher.fd;
    ssize_t n;

    if (head.n + second->n == 0)
        return 1;
    do
        n = second->n == 0 ? send(fd, head.p, head.n, MSG_NOSIGNAL)
            : head.n == 0  ? send(fd, second->p, second->n, MSG_NOSIGNAL)
                           : send_both(fd, head, *second);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN)
        return -errno;
    size_t sent = n > 0 ? (size_t)n : 0, of_head = MIN(sent, head.n);
    bool all = sent == head.n + second->n;
    buf_consume(first, of_head);
    *second = str_from(*second, sent - of_head);
    return all;
}

/* Sends what waits, and then *more, of which the part that stays is left. 1: all has gone; 0:
 * the rest later; -errno. */
static int send_waiting(struct io_stream *s, struct str *more)
{
    int r = 1;

    if (!s->tls) {
        r = send_two(s, &s->out, more);
    } else {
        struct buf *raw = tls_half_raw(s->tls);
        for (int i = 0; r == 1; i++) {
            struct str none = STR_NONE;
            int failed = tls_half_encrypt(s, more);
            if (failed)
                r = failed;
            if (failed || buf_len(raw) == 0)
                break;
            if (i == TLS_SENDS_MAX) { /* it is others' turn */
                io_stream_dirty(s);
                return 0;
            }
            r = send_two(s, raw, &none);
        }
        buf_shrink(raw);
    }
    buf_shrink(&s->out);
    if (r >= 0)
        set_blocked(s, r == 0);
    return r;
}

static void flush(struct io_stream *s)
{
    struct str none = STR_NONE;

    if ((s->state != STREAM_OPEN && s->state != STREAM_FLUSHING) || s->write_error)
        return;
    int r = send_waiting(s, &none);
    if (r < 0) {
        write_failed(s, r);
        return;
    }
    if (s->state == STREAM_FLUSHING) {
        /* r: with an unfinished handshake there may be bytes that never can be sent. */
        if (r == 1)
            begin_lingering(s);
    } else if (s->above_high && unsent(s) <= NET_LOW_MARK) {
        s->above_high = false;
        s->base.ev->drained(&s->base, s->base.owner);
    }
}

/* The end of a turn: what was written goes out, what died goes. */
void io_net_flush(struct later *l)
{
    struct io_net *n = CONTAINER_OF(l, struct io_net, flush);
    struct list now, *node;

    list_init(&now);
    list_join(&now, &n->dirty);
    while ((node = list_pop(&now)))
        flush(LIST_ENTRY(node, struct io_stream, dirty));
    LIST_FOREACH(gone, &n->dead)
    {
        struct io_stream *s = LIST_ENTRY(gone, struct io_stream, link);
        tls_half_free(s->tls);
        buf_done(&s->in);
        buf_done(&s->out);
        buf_done(&s->early);
        free(s);
    }
    list_init(&n->dead);
}

/* ---- receiving ------------------------------------------------------------------------------- */

/* The data callback on s->window. True: still open, and no byte was left. */
static bool show_window(struct io_stream *s)
{
    s->in_data = true;
    s->resumed = false;
    s->base.ev->data(&s->base, s->base.owner);
    s->in_data = false;
    if (s->state != STREAM_OPEN)
        return false;
    if (s->window.n == 0)
        return true;
    s->paused = !s->resumed;
    if (s->resumed)
        io_stream_wake(s);
    return false;
}

bool io_stream_deliver(struct io_stream *s, const char *p, size_t n)
{
    if (n == 0)
        return s->state == STREAM_OPEN;
    CHECK(s->state == STREAM_OPEN && buf_len(&s->in) == 0);
    s->window = str_make(p, n);
    if (show_window(s) || s->state != STREAM_OPEN)
        return s->state == STREAM_OPEN;
    if (buf_add_str(&s->in, s->window) < 0) {
        io_stream_end(s, -ENOMEM, NULL);
        return false;
    }
    return true;
}

/* The same with bytes that had been kept. */
static void deliver_kept(struct io_stream *s)
{
    size_t n = buf_len(&s->in);

    s->window = buf_str(&s->in);
    show_window(s);
    if (s->state != STREAM_OPEN)
        return;
    /* After starttls there is nothing any more. */
    buf_consume(&s->in, MIN(n - s->window.n, buf_len(&s->in)));
    buf_shrink(&s->in);
}

static bool wants_input(const struct io_stream *s)
{
    return s->state == STREAM_OPEN && !s->paused && buf_len(&s->in) == 0 && buf_len(&s->early) == 0;
}

static void read_input(struct io_stream *s)
{
    ssize_t n = recv(s->watcher.fd, s->net->read_buf, NET_READ_MAX, 0);

    if (n > 0 && s->tls) {
        tls_half_input(s, s->net->read_buf, (size_t)n);
    } else if (n > 0) {
        io_stream_deliver(s, s->net->read_buf, (size_t)n);
    } else if (n == 0) {
        s->got_eof = true;
        if (s->tls)
            tls_half_eof(s);
        else
            io_stream_end(s, 0, NULL);
        return;
    } else if (errno != EAGAIN && errno != EINTR) {
        io_stream_end(s, -errno, NULL);
        return;
    } else if (s->write_error && errno == EAGAIN) {
        io_stream_end(s, s->write_error, NULL);
        return;
    }
    if (s->write_error && s->state == STREAM_OPEN)
        io_stream_wake(s);
}

static void connected(struct io_stream *s)
{
    int error = 0;
    socklen_t len = sizeof(error);

    if (getsockopt(s->watcher.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    if (error) {
        io_stream_end(s, -error, NULL);
        return;
    }
    s->state = STREAM_OPEN;
    watch(s, EV_READ);
    sockaddr_local(s->watcher.fd, &s->base.local);
    if (unsent(s))
        io_stream_dirty(s);
    s->base.ev->opened(&s->base, s->base.owner);
}

static void on_wake(struct later *l)
{
    struct io_stream *s = CONTAINER_OF(l, struct io_stream, wake);

    if (s->error) {
        io_stream_end(s, s->error, NULL);
        return;
    }
    if (s->state == STREAM_CONNECTING) {
        connected(s);
        return;
    }
    if (s->write_error && s->paused) {
        io_stream_end(s, s->write_error, NULL);
        return;
    }
    if (s->state == STREAM_OPEN && buf_len(&s->early)) {
        struct buf early = s->early;
        buf_init(&s->early, 0);
        tls_half_input(s, buf_str(&early).p, buf_len(&early));
        buf_done(&early);
    }
    if (s->state == STREAM_OPEN && !s->paused && buf_len(&s->in))
        deliver_kept(s);
    if (!wants_input(s) || (s->tls && tls_half_tell_end(s)))
        return;
    watch_read(s, true);
    if (s->write_error)
        read_input(s);
}

static void on_ready(struct ev_loop *ev, ev_io *w, int revents)
{
    struct io_stream *s = CONTAINER_OF(w, struct io_stream, watcher);

    switch (s->state) {
    case STREAM_CONNECTING: connected(s); break;
    case STREAM_OPEN:
    case STREAM_FLUSHING:
        if (revents & EV_WRITE)
            io_stream_dirty(s);
        if (!(revents & EV_READ))
            break;
        if (wants_input(s))
            read_input(s);
        else
            watch_read(s, false);
        break;
    case STREAM_LINGERING: linger(s); break;
    case STREAM_DEAD: break;
    }
}

/* ---- what owners call ------------------------------------------------------------------------ */

static struct str op_input(struct stream *base)
{
    struct io_stream *s = of(base);
    return s->in_data ? s->window : buf_str(&s->in);
}

static void op_consume(struct stream *base, size_t n)
{
    struct io_stream *s = of(base);

    CHECK(n <= op_input(base).n);
    if (s->in_data) {
        s->window = str_from(s->window, n);
    } else {
        buf_consume(&s->in, n);
        buf_shrink(&s->in);
    }
}

static void op_resume(struct stream *base)
{
    struct io_stream *s = of(base);

    if (s->in_data) {
        s->resumed = true;
        s->paused = false;
        return;
    }
    if (s->state != STREAM_OPEN || !s->paused)
        return;
    s->paused = false;
    io_stream_wake(s);
}

static void op_hold(struct stream *base)
{
    struct io_stream *s = of(base);

    s->paused = true; /* the watcher goes when there is something to read */
    s->resumed = false;
}

static int op_write(struct stream *base, const void *bytes, size_t n)
{
    struct io_stream *s = of(base);
    struct str more = str_make(bytes, n);

    if ((s->state != STREAM_OPEN && s->state != STREAM_CONNECTING) || s->write_error)
        return -EPIPE;
    if (n >= DIRECT_MIN && s->state == STREAM_OPEN && !s->blocked) {
        int r = send_waiting(s, &more);
        if (r < 0) {
            write_failed(s, r);
            return -EPIPE;
        }
    }
    if (buf_add_str(&s->out, more) < 0) {
        s->out.failed = 0; /* what was there before stands */
        return -ENOMEM;
    }
    if (unsent(s) > NET_HIGH_MARK)
        s->above_high = true;
    if (s->state == STREAM_OPEN && !s->blocked)
        io_stream_dirty(s);
    return 0;
}

static size_t op_unsent(const struct stream *base)
{
    return unsent((const struct io_stream *)base);
}

static int op_starttls(struct stream *base, const struct tls_request *req)
{
    struct io_stream *s = of(base);

    if (s->state != STREAM_OPEN)
        return -EPIPE;
    if (s->tls)
        return -EALREADY;
    int r = tls_half_start(s, req);
    if (r < 0)
        return r;
    if (req->keep_input) {
        struct str in = op_input(base);
        if (buf_add_str(&s->early, in) < 0) {
            s->tls = tls_half_free(s->tls);
            return -ENOMEM;
        }
        if (in.n)
            io_stream_wake(s);
    }
    /* What came in clear behind the command is never looked at (RFC 3207 section 4.2). */
    s->window = STR_NONE;
    if (!s->in_data)
        buf_done(&s->in);
    else
        buf_clear(&s->in);
    s->paused = false;
    watch_read(s, true);
    arm(s, NET_HANDSHAKE_MS);
    if (unsent(s) && !s->blocked)
        io_stream_dirty(s);
    return 0;
}

static void op_close(struct stream *base)
{
    struct io_stream *s = of(base);

    if (s->state == STREAM_CONNECTING || s->state == STREAM_OPEN)
        begin_flushing(s);
}

static void op_abort(struct stream *base)
{
    struct io_stream *s = of(base);

    if (s->state == STREAM_CONNECTING || s->state == STREAM_OPEN)
        io_stream_kill(s);
}

const struct stream_ops io_stream_ops = {
    .input = op_input,
    .consume = op_consume,
    .resume = op_resume,
    .hold = op_hold,
    .write = op_write,
    .unsent = op_unsent,
    .starttls = op_starttls,
    .close = op_close,
    .abort = op_abort,
};

/* ---- birth ----------------------------------------------------------------------------------- */

struct io_stream *io_stream_new(struct io_net *n, int fd, enum stream_state state)
{
    struct io_stream *s = calloc(1, sizeof(*s));

    if (!s) {
        close(fd);
        return NULL;
    }
    s->base.ops = &io_stream_ops;
    s->net = n;
    s->state = state;
    list_init(&s->link);
    list_init(&s->dirty);
    later_init(&s->wake, on_wake);
    timer_init(&s->timer, on_timer);
    buf_init(&s->in, 0);
    buf_init(&s->early, 0);
    buf_init(&s->out, 0);
    list_push(&n->streams, &s->link);
    n->n_streams++;
    ev_io_init(&s->watcher, on_ready, fd, 0);
    return s;
}

size_t net_stream_bytes(void)
{
    return sizeof(struct io_stream);
}
