/* turn.c - a turned connection, at home and at the far end. See turn.h.
 *
 * The address of a turn is a net_addr of family NET_UNIX with the path "atrn:HOME:NUMBER:CLIENT". Messages are
 * heap blocks, each with up to 16 KiB of bytes. What one side has sent and the other has not taken is bounded:
 * by the marks of struct stream towards the client, by WINDOW from it. */
#include "engine/turn.h"

#include <stdio.h>

#include "engine/queue.h"

enum {
    PIECE = 16 * 1024,
    HIGH = 64 * 1024,
    LOW = 16 * 1024,
    WINDOW = 64 * 1024,
    IDLE_MS = 15 * 60 * 1000, /* more than session_out, which says better what is wrong */
    RELEASE_MS = 24 * 3600 * 1000,
};

static const char prefix[] = "atrn:";

struct turn {
    struct list link; /* turns.open, once it has begun */
    struct engine *e;
    struct snapshot *snapshot;
    uint64_t id;
    struct stream *stream; /* NULL: not begun */
    struct net_addr client;
    char (*queues)[SPOOL_MAX_QUEUE_NAME + 1];
    size_t n, next;
    bool releasing; /* queues[next - 1] */
    bool spoken;    /* the first dialogue has had the client's own greeting */
    bool quitting;
    /* who has the connection now, and who waits for it */
    int far_worker, waiting_worker;
    uint64_t far, waiting; /* 0: nobody */
    size_t to_far;         /* octets sent there and not taken yet */
    size_t owed;           /* octets from there that have not left yet */
    struct timer timer;
};

/* A dialogue, in the worker that delivers. */
struct far_stream {
    struct stream s; /* first */
    struct list link;
    struct engine *e;
    uint64_t id, turn;
    int home;
    struct buf in;
    size_t unsent;
    bool above; /* the high mark was passed */
};

struct turns {
    struct engine *e;
    struct list open, far;
    uint64_t ids, far_ids;
    bool stopping;
};

/* ---- messages --------------------------------------------------------------------------------- */

enum say {
    /* from the far end */
    SAY_DIAL,
    SAY_LEAVE, /* between two transactions */
    SAY_ABORT,
    /* from home */
    SAY_OPENED,
    SAY_CLOSED,
    /* both ways */
    SAY_BYTES,
    SAY_TAKEN, /* n octets */
};

struct message_between {
    struct worker_message wm;
    enum say say;
    int from; /* worker */
    uint64_t turn, far;
    int error; /* CLOSED */
    bool tls;  /* OPENED */
    size_t n;
    char bytes[];
};

static void at_home(struct engine *e, struct worker_message *wm);
static void at_far_end(struct engine *e, struct worker_message *wm);

/* -ENOMEM. */
static int say(struct engine *e, int to, const struct message_between *what, const void *bytes)
{
    size_t n = bytes ? what->n : 0;
    struct message_between *m = e->freeing ? NULL : malloc(sizeof(*m) + n);

    if (!m)
        return e->freeing ? 0 : -ENOMEM; /* nobody is there to be told */
    *m = *what;
    m->from = e->ports.workers->self;
    if (n)
        memcpy(m->bytes, bytes, n);
    e->ports.workers->post(e->ports.workers, to, &m->wm);
    return 0;
}

static int say_home(const struct far_stream *f, enum say what, const void *bytes, size_t n)
{
    return say(f->e, f->home,
               &(struct message_between){
                   .wm.run = at_home, .say = what, .turn = f->turn, .far = f->id, .n = n },
               bytes);
}

static int say_far(struct engine *e, int worker, uint64_t far, enum say what, const void *bytes,
                   size_t n, int error)
{
    return say(e, worker,
               &(struct message_between){
                   .wm.run = at_far_end, .say = what, .far = far, .n = n, .error = error },
               bytes);
}

/* ---- at home: the end ------------------------------------------------------------------------- */

struct turn *turn_free(struct turn *t)
{
    if (!t)
        return NULL;
    list_remove(&t->link);
    engine_timer_stop(t->e, &t->timer);
    snapshot_unref(t->snapshot);
    free(t->queues);
    free(t);
    return NULL;
}

/* Whoever has, or wants, the connection is told that it is gone: the release of the queue ends by that. */
static void end(struct turn *t, int error, const char *why)
{
    char client[NET_ADDR_TEXT];

    if (t->far)
        say_far(t->e, t->far_worker, t->far, SAY_CLOSED, NULL, 0, error ? error : -ECONNRESET);
    if (t->waiting)
        say_far(t->e, t->waiting_worker, t->waiting, SAY_CLOSED, NULL, 0, -ECONNREFUSED);
    if (t->stream && t->quitting)
        stream_close(t->stream);
    else if (t->stream)
        stream_abort(t->stream);
    t->stream = NULL;
    engine_event(t->e, EVENT(EVENT_INFO, "turn_ended",
                             F_STRZ("client", net_addr_ip_text(&t->client, client)),
                             F_INT("queues", (int64_t)t->next), F_STRZ("why", why)));
    turn_free(t);
}

static void alive(struct turn *t)
{
    engine_timer(t->e, &t->timer, MAX((int64_t)IDLE_MS, t->snapshot->settings->timeouts.body_ms));
}

static void on_timer(struct timer *timer)
{
    struct turn *t = CONTAINER_OF(timer, struct turn, timer);

    end(t, -ETIMEDOUT, t->quitting ? "done" : "timeout");
}

/* ---- at home: one queue after another --------------------------------------------------------- */

struct release_order {
    struct queue_command command;
    struct worker_message back;
    struct port_workers *workers;
    uint64_t turn;
};

static struct turn *find(struct turns *all, uint64_t id)
{
    LIST_FOREACH(it, &all->open)
    {
        struct turn *t = LIST_ENTRY(it, struct turn, link);
        if (t->id == id)
            return t;
    }
    return NULL;
}

static void go_on(struct turn *t);

static void release_back(struct engine *e, struct worker_message *wm)
{
    struct release_order *o = CONTAINER_OF(wm, struct release_order, back);
    struct turn *t = find(e->turns, o->turn);

    free(o);
    if (t) {
        t->releasing = false;
        go_on(t);
    }
}

/* In the owner's thread: the release has ended. */
static void release_done(struct queue_command *c)
{
    struct release_order *o = CONTAINER_OF(c, struct release_order, command);

    c->route = route_unref(c->route);
    if (c->result == -ESHUTDOWN) {
        free(o);
        return;
    }
    o->back.run = release_back;
    o->workers->post(o->workers, o->workers->self, &o->back);
}

/* To the address of the turn, in one dialogue at a time, without a second try. */
static struct route *route_to(const struct turn *t, struct str queue)
{
    struct route *r = route_new(ROUTE_HOSTS);
    char ip[NET_ADDR_TEXT];

    if (!r)
        return NULL;
    r->targets = ARENA_NEW(&r->arena, struct route_target);
    if (!r->targets)
        return route_unref(r);
    r->n_targets = 1;
    r->targets[0].addr.family = NET_UNIX;
    snprintf(r->targets[0].addr.path, sizeof(r->targets[0].addr.path), "%s%d:%llu:%s", prefix,
             t->e->ports.workers->self, (unsigned long long)t->id,
             net_addr_ip_text(&t->client, ip));
    r->targets[0].text = arena_str(&r->arena, str_of(r->targets[0].addr.path));
    r->queue = arena_str(&r->arena, queue);
    r->reason = STR("released by ATRN");
    r->tls = ROUTE_TLS_NONE; /* of its own: it is inside of the connection's */
    r->concurrency = 1;
    return route_finish(r) == 0 ? r : route_unref(r);
}

static int release(struct turn *t, const char *queue)
{
    struct release_order *o = calloc(1, sizeof(*o));

    if (!o)
        return -ENOMEM;
    o->workers = t->e->ports.workers;
    o->turn = t->id;
    o->command.type = QUEUE_RELEASE;
    o->command.once = true;
    o->command.window_ms = RELEASE_MS;
    o->command.route = route_to(t, str_of(queue));
    o->command.done = release_done;
    str_copy(str_of(queue), o->command.queue, sizeof(o->command.queue));
    if (!o->command.route) {
        free(o);
        return -ENOMEM;
    }
    queue_command_send(o->workers, &o->command);
    return 0;
}

static void say_quit(struct turn *t)
{
    t->quitting = true;
    if (stream_write(t->stream, "QUIT\r\n", 6) < 0) {
        end(t, -EPIPE, "lost");
        return;
    }
    engine_timer(t->e, &t->timer, t->snapshot->settings->timeouts.quit_ms);
}

/* When nobody is at it: the next queue, or the end. */
static void go_on(struct turn *t)
{
    bool stopping = t->e->turns->stopping; /* what is released then ends by itself, untried */

    if (t->quitting || (t->releasing && !stopping))
        return;
    while (t->next < t->n && !stopping) {
        if (release(t, t->queues[t->next++]) == 0) {
            t->releasing = true;
            return;
        }
    }
    if (!t->far && !t->waiting)
        say_quit(t);
}

/* ---- at home: bytes --------------------------------------------------------------------------- */

/* What has left makes room for more. */
static void acknowledge(struct turn *t)
{
    size_t n = t->owed;

    if (n == 0 || !t->far || stream_unsent(t->stream) > HIGH)
        return; /* above the high mark drained will come */
    t->owed = 0;
    if (say_far(t->e, t->far_worker, t->far, SAY_TAKEN, NULL, n, 0) < 0)
        end(t, -ENOMEM, "out of memory");
}

static void on_data(struct stream *s, void *owner)
{
    struct turn *t = owner;
    struct str in = stream_input(s);

    if (t->quitting) {
        end(t, 0, "done");
        return;
    }
    if (!t->far) /* nobody has asked it anything: it waits */
        return;
    alive(t);
    while (in.n && t->to_far < WINDOW) {
        size_t n = MIN(in.n, (size_t)PIECE);
        if (say_far(t->e, t->far_worker, t->far, SAY_BYTES, in.p, n, 0) < 0) {
            end(t, -ENOMEM, "out of memory");
            return;
        }
        t->spoken = true;
        t->to_far += n;
        stream_consume(s, n);
        in = stream_input(s);
    }
}

static void on_drained(struct stream *s, void *owner)
{
    acknowledge(owner);
}

static void on_closed(struct stream *s, void *owner, int error, const char *why)
{
    struct turn *t = owner;

    t->stream = NULL;
    end(t, error, t->quitting ? "done" : error && why ? why : "closed by the client");
}

static const struct stream_events home_events = { .data = on_data,
                                                  .drained = on_drained,
                                                  .closed = on_closed };

/* Gives the connection to the far end that asks for it. The client greets once: after that we greet for it. */
static void attach(struct turn *t, int worker, uint64_t far)
{
    static const char greeting[] = "220 atrn.invalid turned\r\n";
    int r;

    t->far = far;
    t->far_worker = worker;
    t->to_far = t->owed = 0;
    r = say(t->e, worker,
            &(struct message_between){
                .wm.run = at_far_end, .say = SAY_OPENED, .far = far, .tls = t->stream->tls },
            NULL);
    if (r == 0 && t->spoken) {
        t->to_far = sizeof(greeting) - 1;
        r = say_far(t->e, worker, far, SAY_BYTES, greeting, sizeof(greeting) - 1, 0);
    }
    if (r < 0) {
        end(t, -ENOMEM, "out of memory");
        return;
    }
    alive(t);
    stream_resume(t->stream);
}

static void detach(struct turn *t)
{
    uint64_t next = t->waiting;

    t->far = t->waiting = 0;
    if (next)
        attach(t, t->waiting_worker, next);
    else
        go_on(t);
}

static void forward(struct turn *t, const struct message_between *m)
{
    alive(t);
    t->owed += m->n;
    if (stream_write(t->stream, m->bytes, m->n) == -ENOMEM) {
        end(t, -ENOMEM, "out of memory");
        return;
    }
    acknowledge(t);
}

static void heard(struct turn *t, const struct message_between *m)
{
    bool theirs = m->far == t->far && m->from == t->far_worker && t->far;

    switch (m->say) {
    case SAY_DIAL:
        if (!t->far) {
            attach(t, m->from, m->far);
        } else if (!t->waiting) { /* until the dialogue before it has ended */
            t->waiting = m->far;
            t->waiting_worker = m->from;
        } else {
            say_far(t->e, m->from, m->far, SAY_CLOSED, NULL, 0, -ECONNREFUSED);
        }
        break;
    case SAY_BYTES:
        if (theirs)
            forward(t, m);
        break;
    case SAY_TAKEN:
        if (!theirs)
            break;
        t->to_far -= MIN(m->n, t->to_far);
        stream_resume(t->stream);
        break;
    case SAY_LEAVE:
        if (theirs)
            detach(t);
        break;
    case SAY_ABORT: /* in the middle of something: nobody else can go on */
        if (theirs) {
            t->far = 0;
            end(t, -ECONNABORTED, "broken off");
        } else if (m->far == t->waiting && m->from == t->waiting_worker) {
            t->waiting = 0;
        }
        break;
    case SAY_OPENED:
    case SAY_CLOSED: break;
    }
}

static void at_home(struct engine *e, struct worker_message *wm)
{
    struct message_between *m = CONTAINER_OF(wm, struct message_between, wm);
    struct turn *t = find(e->turns, m->turn);

    if (t && !t->quitting)
        heard(t, m);
    else if (m->say == SAY_DIAL)
        say_far(e, m->from, m->far, SAY_CLOSED, NULL, 0, -ECONNREFUSED);
    free(m);
}

/* ---- at home: life ---------------------------------------------------------------------------- */

struct turn *turn_new(struct engine *e, struct snapshot *snapshot, const struct net_addr *client)
{
    struct turn *t = calloc(1, sizeof(*t));

    if (!t)
        return NULL;
    list_init(&t->link);
    timer_init(&t->timer, on_timer);
    t->e = e;
    t->snapshot = snapshot_ref(snapshot);
    t->client = *client;
    return t;
}

int turn_add(struct turn *t, struct str queue)
{
    void *more = realloc(t->queues, (t->n + 1) * sizeof(*t->queues));

    if (!more)
        return -ENOMEM;
    t->queues = more;
    str_copy(queue, t->queues[t->n++], sizeof(*t->queues));
    return 0;
}

void turn_begin(struct turn *t, struct stream *s)
{
    t->id = ++t->e->turns->ids;
    list_push(&t->e->turns->open, &t->link);
    t->stream = s;
    s->ev = &home_events;
    s->owner = t;
    alive(t);
    go_on(t);
}

/* ---- the far end ------------------------------------------------------------------------------ */

static struct far_stream *far_of(struct stream *s)
{
    return CONTAINER_OF(s, struct far_stream, s);
}

static void far_free(struct far_stream *f)
{
    list_remove(&f->link);
    buf_done(&f->in);
    free(f);
}

static struct str far_input(struct stream *s)
{
    return buf_str(&far_of(s)->in);
}

static void far_consume(struct stream *s, size_t n)
{
    struct far_stream *f = far_of(s);

    buf_consume(&f->in, n);
    say_home(f, SAY_TAKEN, NULL, n);
}

static void far_resume(struct stream *s)
{
    (void)s; /* whoever talks SMTP as a client takes all that comes */
}

static void far_hold(struct stream *s)
{
    (void)s; /* it is for servers, which are at home */
}

static int far_write(struct stream *s, const void *bytes, size_t n)
{
    struct far_stream *f = far_of(s);

    for (size_t done = 0; done < n;) {
        size_t piece = MIN(n - done, (size_t)PIECE);
        if (say_home(f, SAY_BYTES, (const char *)bytes + done, piece) < 0)
            return -ENOMEM;
        done += piece;
    }
    f->unsent += n;
    f->above = f->above || f->unsent > HIGH;
    return 0;
}

static size_t far_unsent(const struct stream *s)
{
    return CONTAINER_OF(s, const struct far_stream, s)->unsent;
}

static int far_starttls(struct stream *s, const struct tls_request *req)
{
    return -ENOTSUP;
}

static void far_abort(struct stream *s)
{
    say_home(far_of(s), SAY_ABORT, NULL, 0);
    far_free(far_of(s));
}

static const struct stream_ops far_ops = {
    .input = far_input,
    .consume = far_consume,
    .resume = far_resume,
    .hold = far_hold,
    .write = far_write,
    .unsent = far_unsent,
    .starttls = far_starttls,
    .close = far_abort,
    .abort = far_abort,
};

void turn_leave(struct stream *s)
{
    say_home(far_of(s), SAY_LEAVE, NULL, 0);
    far_free(far_of(s));
}

static void far_taken(struct far_stream *f, size_t n)
{
    f->unsent -= MIN(n, f->unsent);
    if (f->above && f->unsent <= LOW) {
        f->above = false;
        f->s.ev->drained(&f->s, f->s.owner);
    }
}

static void far_closed(struct far_stream *f, int error)
{
    const struct stream_events *ev = f->s.ev;
    void *owner = f->s.owner;

    list_remove(&f->link);
    ev->closed(&f->s, owner, error,
               error == -ECONNREFUSED ? "the client has gone" : strerror(-error));
    far_free(f);
}

static void far_heard(struct far_stream *f, const struct message_between *m)
{
    switch (m->say) {
    case SAY_OPENED:
        f->s.tls = m->tls;
        f->s.ev->opened(&f->s, f->s.owner);
        break;
    case SAY_BYTES:
        if (buf_add(&f->in, m->bytes, m->n) < 0) {
            say_home(f, SAY_ABORT, NULL, 0);
            far_closed(f, -ENOMEM);
        } else {
            f->s.ev->data(&f->s, f->s.owner);
        }
        break;
    case SAY_TAKEN: far_taken(f, m->n); break;
    case SAY_CLOSED: far_closed(f, m->error); break;
    case SAY_DIAL:
    case SAY_LEAVE:
    case SAY_ABORT: break;
    }
}

static void at_far_end(struct engine *e, struct worker_message *wm)
{
    struct message_between *m = CONTAINER_OF(wm, struct message_between, wm);

    LIST_FOREACH(it, &e->turns->far)
    {
        struct far_stream *f = LIST_ENTRY(it, struct far_stream, link);
        if (f->id == m->far) {
            far_heard(f, m);
            break;
        }
    }
    free(m);
}

/* ---- addresses -------------------------------------------------------------------------------- */

bool turn_is_address(const struct net_addr *a)
{
    return a->family == NET_UNIX && str_starts(str_of(a->path), STR("atrn:"));
}

static struct str next_part(struct str *rest)
{
    ptrdiff_t colon = str_chr(*rest, ':');
    struct str part = colon < 0 ? *rest : str_first(*rest, (size_t)colon);

    *rest = colon < 0 ? STR_NONE : str_from(*rest, (size_t)colon + 1);
    return part;
}

const char *turn_text(const struct net_addr *a, char *dst)
{
    struct str rest = str_of(a->path);

    next_part(&rest);
    next_part(&rest);
    next_part(&rest);
    snprintf(dst, NET_ADDR_TEXT, STR_FMT " by ATRN", STR_ARG(rest));
    return dst;
}

struct stream *turn_dial(struct engine *e, const struct net_addr *to,
                         const struct stream_events *ev, void *owner)
{
    struct far_stream *f = calloc(1, sizeof(*f));
    struct str rest = str_of(to->path);
    uint64_t home;

    if (!f)
        return NULL;
    list_init(&f->link);
    buf_init(&f->in, 0);
    f->e = e;
    f->s.ops = &far_ops;
    f->s.ev = ev;
    f->s.owner = owner;
    f->s.peer = *to;
    f->id = ++e->turns->far_ids;
    next_part(&rest);
    bool ok = str_to_u64(next_part(&rest), &home) == 0 &&
              str_to_u64(next_part(&rest), &f->turn) == 0 &&
              home < (uint64_t)e->ports.workers->count;
    f->home = ok ? (int)home : 0;
    if (!ok || say_home(f, SAY_DIAL, NULL, 0) < 0) {
        far_free(f);
        return NULL;
    }
    list_push(&e->turns->far, &f->link);
    return &f->s;
}

/* ---- all of them ------------------------------------------------------------------------------ */

struct turns *turns_new(struct engine *e)
{
    struct turns *all = calloc(1, sizeof(*all));

    if (!all)
        return NULL;
    all->e = e;
    list_init(&all->open);
    list_init(&all->far);
    return all;
}

void turns_stop(struct turns *all)
{
    all->stopping = true;
    LIST_FOREACH(it, &all->open)
    {
        go_on(LIST_ENTRY(it, struct turn, link));
    }
}

/* Far ends have gone with the connections of session_out. */
struct turns *turns_free(struct turns *all)
{
    if (!all)
        return NULL;
    LIST_FOREACH(it, &all->open)
    {
        struct turn *t = LIST_ENTRY(it, struct turn, link);
        stream_abort(TAKE(t->stream));
        turn_free(t);
    }
    CHECK(list_empty(&all->far));
    free(all);
    return NULL;
}
