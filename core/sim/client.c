/* client.c - proto/smtp_client on a virtual stream. Layer: sim. Interface: client.h. */
#include "sim/client.h"

#include <stdio.h>

enum { DEFAULT_TIMEOUT_MS = 600000 };

struct sim_client {
    struct sim_clock *clock;
    struct stream *stream; /* NULL: gone */
    struct smtp_client *smtp;
    struct arena arena; /* of mail and outcome */
    struct sim_mail mail;
    struct sim_outcome out;
    struct timer deadline;
    sim_client_done *done;
    void *owner;
    int64_t started_ms;
    bool began, content_given;
};

static struct str keep(struct sim_client *c, struct str s)
{
    struct str copy = arena_str(&c->arena, s.p ? s : STR(""));
    CHECK(copy.p != NULL);
    return copy;
}

static void keep_reply(struct sim_client *c, struct smtp_reply *to, const struct smtp_reply *from)
{
    *to = *from;
    to->text = keep(c, from->text);
}

static void drop_stream(struct sim_client *c, bool in_order)
{
    struct stream *s = TAKE(c->stream);
    sim_timer_stop(c->clock, &c->deadline);
    if (s && in_order)
        stream_close(s);
    else if (s)
        stream_abort(s);
}

static void finish(struct sim_client *c)
{
    if (c->out.done)
        return;
    c->out.done = true;
    c->out.took_ms = c->clock->now - c->started_ms;
    if (c->done)
        c->done(c->owner, c);
}

static void ended(struct sim_client *c, enum smtp_stage stage, const struct smtp_reply *reply,
                  struct str why)
{
    c->out.stage = stage;
    keep_reply(c, &c->out.reply, reply);
    c->out.why = keep(c, why);
}

/* ---- events ----------------------------------------------------------------------------------- */

static void begin(struct sim_client *c)
{
    struct smtp_client_mail m = {
        .sender = c->mail.sender,
        .recipients = c->mail.recipients,
        .n_recipients = c->mail.n_recipients,
        .size = c->mail.content.n,
        .body = c->mail.eight_bit ? SMTP_BODY_8BITMIME : SMTP_BODY_7BIT,
        .smtputf8 = c->mail.smtputf8,
        .requiretls = c->mail.requiretls,
        .dsn = c->mail.dsn,
        .rcpt_dsn = c->mail.rcpt_dsn,
        .by = c->mail.by,
        .prioritized = c->mail.priority != 0,
        .priority = c->mail.priority,
    };
    struct smtp_reply none = { 0 };
    c->began = true;
    int rc = smtp_client_begin(c->smtp, &m);
    if (rc == 0)
        return;
    char why[64];
    snprintf(why, sizeof why, "the client cannot send it: error %d", -rc);
    ended(c, SMTP_STAGE_MAIL, &none, str_of(why));
    finish(c);
    smtp_client_quit(c->smtp);
}

/* LMTP, behind the message: the reply to one of those that were accepted. */
static void told_each(struct sim_client *c, const struct smtp_client_event *ev)
{
    bool yes = smtp_reply_positive(&ev->reply);

    keep_reply(c, &c->out.rcpt[ev->index], &ev->reply);
    c->out.accepted -= !yes;
    if (c->out.stage != SMTP_STAGE_FINAL || (smtp_reply_positive(&c->out.reply) && !yes))
        ended(c, SMTP_STAGE_FINAL, &ev->reply, STR(""));
}

static void told(struct sim_client *c, const struct smtp_client_event *ev)
{
    if (ev->type == SMTP_CLIENT_RCPT_RESULT) {
        keep_reply(c, &c->out.rcpt[ev->index], &ev->reply);
        bool yes = smtp_reply_positive(&ev->reply);
        c->out.accepted += yes;
        if (!yes && c->out.reply.code == 0)
            ended(c, SMTP_STAGE_RCPT, &ev->reply, STR(""));
        return;
    }
    if (ev->type == SMTP_CLIENT_RESULT && c->mail.lmtp && ev->index < c->mail.n_recipients) {
        told_each(c, ev);
        return;
    }
    if (ev->type == SMTP_CLIENT_RESULT && c->out.accepted == 0 && c->out.reply.code)
        return; /* DATA after all recipients were refused: that refusal is what counts */
    ended(c, ev->stage, &ev->reply, STR(""));
    if (!smtp_reply_positive(&ev->reply))
        c->out.accepted = 0;
}

static void failed(struct sim_client *c, const struct smtp_client_event *ev)
{
    const char *why = ev->error ? strerror(-ev->error) : "";
    if (!c->out.done) {
        c->out.accepted = 0;
        ended(c, ev->stage, &ev->reply, c->out.why.n ? c->out.why : str_of(why));
    }
    drop_stream(c, false);
    finish(c);
}

static void handle(struct sim_client *c, const struct smtp_client_event *ev)
{
    struct tls_request req = { .name = STR("engine") };
    switch (ev->type) {
    case SMTP_CLIENT_READY:
        if (!c->began)
            begin(c);
        else
            smtp_client_quit(c->smtp);
        break;
    case SMTP_CLIENT_STARTTLS: stream_starttls(c->stream, &req); break;
    case SMTP_CLIENT_MAIL_RESULT:
    case SMTP_CLIENT_RCPT_RESULT:
    case SMTP_CLIENT_RESULT: told(c, ev); break;
    case SMTP_CLIENT_NEED_BODY:
        smtp_client_body(c->smtp, c->mail.content.p, c->mail.content.n);
        smtp_client_body_end(c->smtp);
        break;
    case SMTP_CLIENT_TRANSACTION_DONE:
        smtp_client_quit(c->smtp);
        finish(c);
        break;
    case SMTP_CLIENT_FAILED: failed(c, ev); break;
    case SMTP_CLIENT_CLOSE: drop_stream(c, true); break;
    }
}

static void run(struct sim_client *c)
{
    struct smtp_client_event ev;
    while (c->stream && smtp_client_next(c->smtp, &ev) == 1)
        handle(c, &ev);
    if (!c->stream)
        return;
    struct str out = smtp_client_output(c->smtp);
    if (out.n) {
        stream_write(c->stream, out.p, out.n);
        smtp_client_sent(c->smtp, out.n);
    }
    sim_timer_in(c->clock, &c->deadline, c->mail.timeout_ms);
}

/* ---- stream ----------------------------------------------------------------------------------- */

static void on_opened(struct stream *s, void *owner)
{
    struct sim_client *c = owner;
    struct tls_request req = { .name = STR("engine") };
    if (c->mail.implicit_tls)
        stream_starttls(s, &req);
    sim_timer_in(c->clock, &c->deadline, c->mail.timeout_ms);
}

static void on_data(struct stream *s, void *owner)
{
    struct sim_client *c = owner;
    struct str in = stream_input(s);
    smtp_client_feed(c->smtp, in.p, in.n);
    stream_consume(s, in.n);
    run(c);
}

static void on_drained(struct stream *s, void *owner)
{
}

static void on_secured(struct stream *s, void *owner, const struct tls_facts *facts)
{
    struct sim_client *c = owner;
    c->out.tls = true;
    if (!c->mail.implicit_tls)
        smtp_client_tls_started(c->smtp);
    run(c);
}

static void lose(struct sim_client *c, int error, const char *why)
{
    struct smtp_client_event ev;
    if (!c->out.done && c->out.reply.code == 0)
        c->out.why = keep(c, str_of(why));
    smtp_client_lost(c->smtp, error);
    while (smtp_client_next(c->smtp, &ev) == 1)
        handle(c, &ev);
    finish(c);
}

static void on_closed(struct stream *s, void *owner, int error, const char *why)
{
    struct sim_client *c = owner;
    c->stream = NULL;
    sim_timer_stop(c->clock, &c->deadline);
    lose(c, error, why);
}

static void on_deadline(struct timer *t)
{
    struct sim_client *c = CONTAINER_OF(t, struct sim_client, deadline);
    drop_stream(c, false);
    lose(c, -ETIMEDOUT, "the client has waited long enough");
}

static const struct stream_events events = {
    on_opened, on_data, on_drained, on_secured, on_closed,
};

/* ---- interface -------------------------------------------------------------------------------- */

static void copy_mail(struct sim_client *c, const struct sim_mail *m)
{
    struct str *recipients = ARENA_ARRAY(&c->arena, struct str, m->n_recipients + 1);
    CHECK(recipients != NULL && m->n_recipients > 0);
    c->mail = *m;
    c->mail.helo = keep(c, m->helo.n ? m->helo : STR("client.example"));
    c->mail.sender = keep(c, m->sender);
    c->mail.content = keep(c, m->content);
    for (size_t i = 0; i < m->n_recipients; i++)
        recipients[i] = keep(c, m->recipients[i]);
    c->mail.recipients = recipients;
    if (c->mail.timeout_ms == 0)
        c->mail.timeout_ms = DEFAULT_TIMEOUT_MS;
}

struct sim_client *sim_client_send(struct sim_clock *clock, struct sim_net *net,
                                   const struct sim_mail *mail, sim_client_done *done, void *owner)
{
    struct sim_client *c = sim_alloc(sizeof *c);
    c->clock = clock;
    c->done = done;
    c->owner = owner;
    c->started_ms = clock->now;
    arena_init(&c->arena, 0);
    copy_mail(c, mail);
    c->out.rcpt = ARENA_ARRAY(&c->arena, struct smtp_reply, mail->n_recipients);
    CHECK(c->out.rcpt != NULL);
    struct smtp_client_options opt = {
        .ignore_limits = true, /* it does what the test says */
        .hostname = c->mail.helo,
        .tls = mail->implicit_tls,
        .lmtp = mail->lmtp,
        .starttls = mail->starttls ? SMTP_TLS_IF_OFFERED : SMTP_TLS_NEVER,
    };
    c->smtp = smtp_client_new(&opt);
    CHECK(c->smtp != NULL);
    timer_init(&c->deadline, on_deadline);
    c->stream = sim_net_dial(net, &c->mail.to, &c->mail.from, &events, c);
    return c;
}

const struct sim_outcome *sim_client_outcome(const struct sim_client *c)
{
    return &c->out;
}

struct sim_client *sim_client_free(struct sim_client *c)
{
    if (!c)
        return NULL;
    drop_stream(c, false);
    smtp_client_free(c->smtp);
    arena_done(&c->arena);
    free(c);
    return NULL;
}
