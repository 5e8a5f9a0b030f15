/* client_session.c - a raw session: bytes out, replies in. Layer: sim. Interface: client.h. */
#include "proto/smtp_reply.h"
#include "sim/client.h"
#include "sim/host_impl.h"

struct answer {
    struct list link;
    struct smtp_reply reply;
};

struct sim_session {
    struct stream *stream; /* NULL: gone */
    struct arena arena;
    struct smtp_reply_reader reader;
    struct list replies;
    struct buf early; /* written before the connection stood */
    bool open;
};

static void on_opened(struct stream *stream, void *owner)
{
    struct sim_session *s = owner;
    s->open = true;
    if (buf_len(&s->early))
        stream_write(stream, buf_str(&s->early).p, buf_len(&s->early));
    buf_clear(&s->early);
}

static void on_data(struct stream *stream, void *owner)
{
    struct sim_session *s = owner;
    struct str in = stream_input(stream), rest = in;
    struct smtp_reply reply;
    while (smtp_reply_read(&s->reader, &rest, &reply) == 1) {
        struct answer *a = ARENA_NEW(&s->arena, struct answer);
        CHECK(a != NULL);
        a->reply = reply;
        a->reply.text = arena_str(&s->arena, reply.text.p ? reply.text : STR(""));
        CHECK(a->reply.text.p != NULL);
        list_init(&a->link);
        list_push(&s->replies, &a->link);
    }
    stream_consume(stream, in.n);
}

static void on_drained(struct stream *stream, void *owner)
{
}

static void on_secured(struct stream *stream, void *owner, const struct tls_facts *facts)
{
}

static void on_closed(struct stream *stream, void *owner, int error, const char *why)
{
    struct sim_session *s = owner;
    s->stream = NULL;
}

static const struct stream_events events = {
    on_opened, on_data, on_drained, on_secured, on_closed,
};

struct sim_session *sim_session_open(struct sim_clock *clock, struct sim_net *net,
                                     const struct net_addr *to, const struct net_addr *from)
{
    struct sim_session *s = sim_alloc(sizeof *s);
    arena_init(&s->arena, 0);
    buf_init(&s->early, 0);
    list_init(&s->replies);
    smtp_reply_reader_init(&s->reader);
    s->stream = sim_net_dial(net, to, from, &events, s);
    return s;
}

struct sim_session *sim_session_close(struct sim_session *s)
{
    if (!s)
        return NULL;
    if (s->stream)
        stream_close(s->stream);
    smtp_reply_reader_done(&s->reader);
    buf_done(&s->early);
    arena_done(&s->arena);
    free(s);
    return NULL;
}

void sim_session_write(struct sim_session *s, struct str bytes)
{
    if (!s->stream)
        return;
    if (s->open)
        stream_write(s->stream, bytes.p, bytes.n);
    else
        CHECK(buf_add_str(&s->early, bytes) == 0);
}

bool sim_session_reply(struct sim_session *s, struct smtp_reply *ret)
{
    struct list *it = list_pop(&s->replies);
    if (!it)
        return false;
    *ret = LIST_ENTRY(it, struct answer, link)->reply;
    return true;
}

bool sim_session_closed(const struct sim_session *s)
{
    return s->stream == NULL;
}

void sim_session_starttls(struct sim_session *s)
{
    struct tls_request req = { .name = STR("engine") };
    if (s->stream)
        stream_starttls(s->stream, &req);
}

bool sim_session_tls(const struct sim_session *s)
{
    return s->stream && s->stream->tls;
}

void sim_session_serve(struct sim_session *s, struct sim_host *h)
{
    struct stream *stream = TAKE(s->stream);
    if (stream)
        host_accept(&h->listener, stream);
}

void sim_session_half_close(struct sim_session *s)
{
    if (s->stream)
        sim_stream_half_close(s->stream);
}

void sim_session_reset(struct sim_session *s)
{
    if (s->stream)
        stream_abort(s->stream);
    s->stream = NULL;
}
