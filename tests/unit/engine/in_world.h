/* in_world.h - a small world for the tests of session_in and intake: a clock that is moved by hand, one
 * stream, a spool that answers when told to, hooks in C, and a journal that is read back.
 *
 * Included by a test program once; all is static. The functions of other modules of the engine that
 * the tested ones call (engine_event, queues_arrived, queue_command_send) are replaced by ones that
 * take notes, so that these tests need none of them.
 */
#ifndef TERN_TESTS_IN_WORLD_H
#define TERN_TESTS_IN_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine/context.h"
#include "engine/etrn.h"
#include "engine/hosts.h"
#include "engine/intake.h"
#include "engine/queue.h"
#include "engine/session_in.h"

#define UNUSED __attribute__((unused))

enum { WORLD_MESSAGES = 64, WORLD_RECIPIENTS = 64, WORLD_PIECES = 256 };

struct stored {
    struct msgid id;
    struct buf envelope, content;
    uint32_t pieces;
};

struct world;
typedef void world_hook(struct world *w, const struct hook_input *in, struct hook_result *r);

struct fake_stream {
    struct stream s;
    struct world *w;
    struct buf in, out;
    size_t writes; /* since the last said() */
    size_t unsent; /* as it is told */
    size_t tls_starts;
    bool left; /* bytes were left, or it is held: no data until resume */
    bool poke; /* resume was called */
    bool closed, aborted;
};

struct world {
    struct port_clock clock;
    struct port_net net;
    struct port_spool spool;
    struct port_random random;
    struct port_workers workers;
    struct port_journal journal;
    struct hooks hooks;
    struct engine e;
    struct engine_shared shared;
    struct settings *settings;
    struct snapshot *snapshot;
    int64_t now;
    struct timer_heap timers;
    size_t timer_sets;
    struct list laters;
    bool serves_tls;

    struct fake_stream stream;
    struct listen_settings listener;

    /* hooks */
    world_hook *on[HOOK_COUNT];
    bool wait[HOOK_COUNT];
    size_t asked[HOOK_COUNT];
    struct { /* the one that waits */
        enum hook hook;
        const struct hook_input *in;
        hook_done *done;
        void *owner;
    } waiting;
    size_t cancels, sessions_closed, messages_closed;

    /* spool */
    struct list ops;
    bool spool_stuck;
    int put_result, stage_result; /* of what is done next */
    struct stored stored[WORLD_MESSAGES];
    size_t n_stored;
    struct {
        struct msgid id;
        uint32_t n, message_n;
        char queue[SPOOL_MAX_QUEUE_NAME + 1];
        enum spool_class class_;
        int64_t due_ms;
        struct arena arena;
        struct recipient r;
    } recipients[WORLD_RECIPIENTS];
    size_t n_recipients;
    struct {
        struct msgid id;
        uint32_t chunk;
        struct buf bytes;
    } pieces[WORLD_PIECES];
    size_t n_pieces, units, unstaged, deleted;
    struct spool_queue queue; /* what read_queue finds */
    int queue_result;

    /* what was told to others */
    struct buf log; /* "name field=value ...\n" */
    size_t arrived, arrived_recipients;
    struct queue_command *command;
};

static struct world *the_world;

/* ---- stand-ins for other modules ---- */

void engine_event(struct engine *e, const struct event *ev)
{
    struct buf *log = &the_world->log;

    (void)e;
    buf_printf(log, "%s", ev->name);
    for (size_t i = 0; i < ev->n; i++) {
        const struct event_field *f = &ev->fields[i];
        if (f->type == FIELD_STR)
            buf_printf(log, " %s=" STR_FMT, f->name, STR_ARG(f->s));
        else
            buf_printf(log, " %s=%lld", f->name, (long long)f->i);
    }
    buf_add_char(log, '\n');
}

void queues_arrived(struct engine *e, struct message *m, const struct recipient *recipients,
                    size_t n)
{
    (void)e;
    assert_non_null(m->body);
    assert_int_equal(m->n_recipients, n);
    for (size_t i = 0; i < n; i++)
        assert_non_null(recipients[i].route);
    the_world->arrived++;
    the_world->arrived_recipients += n;
}

void hosts_heard_from(struct engine *e, const struct net_addr *ip)
{
}

void queue_command_send(struct port_workers *workers, struct queue_command *c)
{
    (void)workers;
    assert_null(the_world->command);
    the_world->command = c;
}

/* ---- ports ---- */

static void fake_post(struct port_workers *self, int worker, struct worker_message *m)
{
    assert_int_equal(worker, 0);
    m->run(&CONTAINER_OF(self, struct world, workers)->e, m);
}

static int64_t fake_now(struct port_clock *self)
{
    return CONTAINER_OF(self, struct world, clock)->now;
}

static int64_t fake_wall(struct port_clock *self)
{
    return 1700000000000 + fake_now(self);
}

static void fake_timer_set(struct port_clock *self, struct timer *t, int64_t at)
{
    struct world *w = CONTAINER_OF(self, struct world, clock);

    w->timer_sets++;
    timer_heap_set(&w->timers, t, at);
}

static void fake_timer_stop(struct port_clock *self, struct timer *t)
{
    timer_heap_stop(&CONTAINER_OF(self, struct world, clock)->timers, t);
}

static void fake_later(struct port_clock *self, struct later *l)
{
    struct world *w = CONTAINER_OF(self, struct world, clock);

    if (list_empty(&l->link))
        list_push(&w->laters, &l->link);
}

static bool fake_can_serve_tls(struct port_net *self)
{
    return CONTAINER_OF(self, struct world, net)->serves_tls;
}

static uint64_t fake_random(struct port_random *self)
{
    (void)self;
    return 42;
}

static struct fake_stream *fake_of(const struct stream *s)
{
    return CONTAINER_OF((struct stream *)(uintptr_t)s, struct fake_stream, s);
}

static struct str fake_input(struct stream *s)
{
    return buf_str(&fake_of(s)->in);
}

static void fake_consume(struct stream *s, size_t n)
{
    buf_consume(&fake_of(s)->in, n);
}

static void fake_resume(struct stream *s)
{
    fake_of(s)->left = false;
    fake_of(s)->poke = true;
}

static void fake_hold(struct stream *s)
{
    fake_of(s)->left = true;
}

static int fake_write(struct stream *s, const void *bytes, size_t n)
{
    fake_of(s)->writes++;
    buf_add(&fake_of(s)->out, bytes, n);
    return 0;
}

static size_t fake_unsent(const struct stream *s)
{
    return fake_of(s)->unsent;
}

static int fake_starttls(struct stream *s, const struct tls_request *req)
{
    struct fake_stream *f = fake_of(s);

    assert_true(req->server);
    buf_clear(&f->in);
    f->tls_starts++;
    s->tls = true;
    return 0;
}

static void fake_close(struct stream *s)
{
    assert_false(fake_of(s)->closed || fake_of(s)->aborted);
    fake_of(s)->closed = true;
}

static void fake_abort(struct stream *s)
{
    assert_false(fake_of(s)->closed || fake_of(s)->aborted);
    fake_of(s)->aborted = true;
}

static const struct stream_ops fake_stream_ops = {
    fake_input,  fake_consume,  fake_resume, fake_hold,  fake_write,
    fake_unsent, fake_starttls, fake_close,  fake_abort,
};

/* ---- spool ---- */

static void fake_submit(struct port_spool *self, struct spool_op *op)
{
    struct world *w = CONTAINER_OF(self, struct world, spool);

    list_push(&w->ops, &op->link);
}

static void drop_pieces(struct world *w, const struct msgid *id)
{
    for (size_t i = 0; i < w->n_pieces;) {
        if (msgid_cmp(&w->pieces[i].id, id) != 0) {
            i++;
            continue;
        }
        buf_done(&w->pieces[i].bytes);
        w->pieces[i] = w->pieces[--w->n_pieces];
    }
}

static int fake_read_chunk(struct port_spool *self, const struct msgid *id, uint32_t chunk,
                           struct buf *ret)
{
    struct world *w = CONTAINER_OF(self, struct world, spool);

    buf_clear(ret);
    for (size_t i = 0; i < w->n_pieces; i++)
        if (w->pieces[i].chunk == chunk && msgid_cmp(&w->pieces[i].id, id) == 0)
            return buf_add_str(ret, buf_str(&w->pieces[i].bytes));
    return -ENOENT;
}

static int fake_read_queue(struct port_spool *self, struct str name, struct spool_queue *ret)
{
    struct world *w = CONTAINER_OF(self, struct world, spool);

    *ret = w->queue;
    return str_eq(name, str_of(w->queue.name)) ? w->queue_result : -ENOENT;
}

static void put_message(struct world *w, const struct spool_change *c)
{
    assert_true(w->n_stored < WORLD_MESSAGES);
    struct stored *m = &w->stored[w->n_stored++];
    struct buf piece;

    *m = (struct stored){ .id = c->id, .pieces = c->message.body->n_chunks };
    buf_add_str(&m->envelope, c->message.envelope);
    uint32_t n = 0;
    for (const struct body_chunk *k = c->message.body->first; k; k = k->next, n++)
        buf_add(&m->content, k->data, k->n);
    buf_init(&piece, 0);
    for (; n < m->pieces; n++) {
        assert_int_equal(fake_read_chunk(&w->spool, &c->id, n, &piece), 0);
        buf_add_str(&m->content, buf_str(&piece));
    }
    buf_done(&piece);
    drop_pieces(w, &c->id);
    assert_int_equal(buf_len(&m->content), c->message.body->size);
}

static void put_recipient(struct world *w, const struct spool_change *c)
{
    assert_true(w->n_recipients < WORLD_RECIPIENTS);
    size_t i = w->n_recipients++;

    w->recipients[i].id = c->id;
    w->recipients[i].n = c->recipient.n;
    w->recipients[i].class_ = c->recipient.class_;
    w->recipients[i].due_ms = c->recipient.due_ms;
    str_copy(c->recipient.queue, w->recipients[i].queue, sizeof(w->recipients[i].queue));
    arena_init(&w->recipients[i].arena, 0);
    assert_int_equal(recipient_decode(&w->recipients[i].arena, c->recipient.n, c->recipient.record,
                                      &w->recipients[i].r),
                     0);
}

static void apply(struct world *w, const struct spool_change *c)
{
    switch (c->type) {
    case SPOOL_PUT_MESSAGE: put_message(w, c); break;
    case SPOOL_PUT_RECIPIENT: put_recipient(w, c); break;
    case SPOOL_STAGE:
        assert_true(w->n_pieces < WORLD_PIECES);
        w->pieces[w->n_pieces].id = c->id;
        w->pieces[w->n_pieces].chunk = c->stage.chunk;
        buf_init(&w->pieces[w->n_pieces].bytes, 0);
        buf_add_str(&w->pieces[w->n_pieces++].bytes, c->stage.bytes);
        break;
    case SPOOL_UNSTAGE:
        w->unstaged++;
        drop_pieces(w, &c->id);
        break;
    case SPOOL_SET_QUEUE:
    case SPOOL_KV_SET:
    case SPOOL_KV_ADD:
    case SPOOL_KV_DELETE: break;
    case SPOOL_DELETE_RECIPIENT: w->deleted++; break;
    }
}

/* One unit. */
static bool spool_step(struct world *w)
{
    struct list *node = list_pop(&w->ops);

    if (!node)
        return false;
    struct spool_op *op = LIST_ENTRY(node, struct spool_op, link);
    enum spool_change_type type = op->changes[0].type;
    op->result = type == SPOOL_PUT_MESSAGE ? w->put_result
                 : type == SPOOL_STAGE     ? w->stage_result
                                           : 0;
    w->units++;
    for (size_t i = 0; op->result == 0 && i < op->n_changes; i++)
        apply(w, &op->changes[i]);
    op->done(op);
    return true;
}

/* ---- hooks ---- */

static int fake_run(struct hooks *self, enum hook h, const struct hook_input *in,
                    struct hook_result *ret, hook_done *done, void *owner,
                    struct hook_call **ret_call)
{
    struct world *w = CONTAINER_OF(self, struct world, hooks);

    w->asked[h]++;
    assert_int_equal(!in->message, h < HOOK_MAIL || h == HOOK_ETRN);
    if (!w->wait[h]) {
        if (w->on[h])
            w->on[h](w, in, ret);
        return 1;
    }
    assert_null(w->waiting.done);
    w->waiting.hook = h;
    w->waiting.in = in;
    w->waiting.done = done;
    w->waiting.owner = owner;
    *ret_call = (struct hook_call *)&w->waiting;
    return 0;
}

static void fake_cancel(struct hooks *self, struct hook_call *call)
{
    struct world *w = CONTAINER_OF(self, struct world, hooks);

    assert_ptr_equal(call, &w->waiting);
    assert_non_null(w->waiting.done);
    w->waiting.done = NULL;
    w->cancels++;
}

static void fake_session_closed(struct hooks *self, uint64_t id)
{
    (void)id;
    CONTAINER_OF(self, struct world, hooks)->sessions_closed++;
}

static void fake_message_closed(struct hooks *self, uint64_t key)
{
    (void)key;
    CONTAINER_OF(self, struct world, hooks)->messages_closed++;
}

static void fake_hooks_free(struct hooks *self)
{
    (void)self;
}

/* own.example is ours. */
static void known_domains(struct world *w, const struct hook_input *in, struct hook_result *r)
{
    (void)w;
    r->known_domain = str_eq(in->recipient->address->domain, STR("own.example"));
}

static void have_hook(struct world *w, enum hook h, world_hook *on)
{
    w->hooks.present |= 1u << h;
    w->on[h] = on;
}

/* ---- turns ---- */

static bool stream_step(struct world *w)
{
    struct fake_stream *f = &w->stream;

    if (!f->s.ev || f->closed || f->aborted || f->left || buf_len(&f->in) == 0)
        return false;
    f->poke = false;
    size_t before = buf_len(&f->in);
    f->s.ev->data(&f->s, f->s.owner);
    f->left = f->left || (buf_len(&f->in) > 0 && !f->poke);
    return before != buf_len(&f->in);
}

/* Until nothing moves any more. */
static void settle(struct world *w)
{
    for (bool moved = true; moved;) {
        struct list *node = list_pop(&w->laters);
        moved = node != NULL;
        if (node) {
            struct later *l = LIST_ENTRY(node, struct later, link);
            l->run(l);
        }
        moved = timer_heap_run(&w->timers, w->now, 0) > 0 || moved;
        moved = (!w->spool_stuck && spool_step(w)) || moved;
        moved = stream_step(w) || moved;
    }
}

static UNUSED void answer_hook(struct world *w)
{
    struct hook_result r;
    hook_done *done = w->waiting.done;

    assert_non_null(done);
    w->waiting.done = NULL;
    hook_result_init(&r);
    if (w->on[w->waiting.hook])
        w->on[w->waiting.hook](w, w->waiting.in, &r);
    done(w->waiting.owner, &r);
    hook_result_done(&r);
    settle(w);
}

static UNUSED void pass(struct world *w, int64_t ms)
{
    int64_t until = w->now + ms;

    while (timer_heap_next(&w->timers) <= until) {
        w->now = MAX(w->now, timer_heap_next(&w->timers));
        settle(w);
    }
    w->now = until;
    settle(w);
}

/* ---- life ---- */

/* The owner of the queue has carried it out. */
static UNUSED void answer_command(struct world *w, int result, uint64_t affected, bool merged)
{
    struct queue_command *c = TAKE(w->command);

    c->result = result;
    c->affected = affected;
    c->merged = merged;
    c->done(c);
    settle(w);
}

static struct world *world_new(void)
{
    struct world *w = calloc(1, sizeof(*w));
    const char *hostname = "mx.own.example";

    the_world = w;
    w->clock = (struct port_clock){ fake_now,        fake_wall,  fake_timer_set,
                                    fake_timer_stop, fake_later, NULL };
    w->net.can_serve_tls = fake_can_serve_tls;
    w->spool.submit = fake_submit;
    w->spool.read_chunk = fake_read_chunk;
    w->spool.read_queue = fake_read_queue;
    w->random.next = fake_random;
    w->hooks = (struct hooks){
        .run = fake_run,
        .cancel = fake_cancel,
        .session_closed = fake_session_closed,
        .message_closed = fake_message_closed,
        .free = fake_hooks_free,
    };
    have_hook(w, HOOK_RCPT, known_domains);
    w->e.ports = (struct ports){ .clock = &w->clock,
                                 .net = &w->net,
                                 .spool = &w->spool,
                                 .random = &w->random,
                                 .workers = &w->workers,
                                 .journal = &w->journal };
    w->e.shared = &w->shared;
    w->now = 1000;
    timer_heap_init(&w->timers);
    list_init(&w->laters);
    list_init(&w->ops);
    buf_init(&w->log, 0);
    w->settings = settings_new();
    w->settings->hostname = str_of(hostname);
    w->settings->fingerprint = 7;
    w->snapshot = snapshot_new(1, w->settings, &w->hooks);
    w->e.snapshot = w->snapshot;
    msgid_source_init(&w->e.ids, 99);
    w->e.sessions = sessions_in_new(&w->e);
    w->e.etrns = etrns_new(&w->e);
    w->workers = (struct port_workers){ .count = 1, .post = fake_post };
    w->listener.service = STR("smtp");
    w->listener.text = STR("0.0.0.0:25");
    return w;
}

/* All is let go, nothing is left over. */
static void world_free(struct world *w)
{
    w->e.sessions = sessions_in_free(w->e.sessions);
    w->spool_stuck = false;
    settle(w);
    assert_int_equal(w->e.intakes, 0);
    assert_int_equal(w->e.intake_memory, 0);
    assert_int_equal(w->n_pieces, 0);
    assert_int_equal(w->shared.counters.sessions_open, 0);
    assert_int_equal(timer_heap_next(&w->timers), INT64_MAX);
    assert_null(w->waiting.done);
    for (size_t i = 0; i < w->n_stored; i++) {
        buf_done(&w->stored[i].envelope);
        buf_done(&w->stored[i].content);
    }
    for (size_t i = 0; i < w->n_recipients; i++) {
        recipient_done(&w->recipients[i].r);
        arena_done(&w->recipients[i].arena);
    }
    w->e.etrns = etrns_free(w->e.etrns);
    if (w->command) {
        w->command->result = -ESHUTDOWN;
        w->command->done(w->command);
    }
    buf_done(&w->stream.in);
    buf_done(&w->stream.out);
    buf_done(&w->log);
    timer_heap_done(&w->timers);
    assert_int_equal(w->snapshot->refs, 1);
    snapshot_unref(w->snapshot);
    free(w);
}

/* ---- talking ---- */

static UNUSED void hang_up(struct world *w)
{
    w->stream.s.ev->closed(&w->stream.s, w->stream.s.owner, 0, NULL);
    w->stream.s.ev = NULL;
    settle(w);
}

/* A session that is open is hung up first. */
static UNUSED void connect_from(struct world *w, const char *ip)
{
    struct fake_stream *f = &w->stream;

    if (f->s.ev && !f->closed && !f->aborted)
        hang_up(w);
    buf_done(&f->in);
    buf_done(&f->out);
    *f = (struct fake_stream){ .w = w, .s.ops = &fake_stream_ops };
    net_addr_parse_ip(str_of(ip), &f->s.peer);
    net_addr_parse_ip(STR("192.0.2.25"), &f->s.local);
    sessions_in_accept(w->e.sessions, &f->s, &w->listener);
    settle(w);
}

/* What was written since the last call; valid until the next. */
static UNUSED const char *said(struct world *w)
{
    static char text[1 << 16];
    struct str out = buf_str(&w->stream.out);

    assert_true(str_copy(out, text, sizeof(text)));
    buf_clear(&w->stream.out);
    w->stream.writes = 0;
    return text;
}

static UNUSED const char *say(struct world *w, const char *text)
{
    buf_add_str(&w->stream.in, str_of(text));
    settle(w);
    return said(w);
}

/* The journal holds that text. */
static UNUSED void assert_logged(struct world *w, const char *text)
{
    if (str_find(buf_str(&w->log), str_of(text)) < 0)
        fail_msg("not logged: %s\nbut:\n" STR_FMT, text, STR_ARG(buf_str(&w->log)));
}

static UNUSED struct str content_of(struct world *w, size_t message)
{
    assert_true(message < w->n_stored);
    return buf_str(&w->stored[message].content);
}

#endif
