/* smtp_client.c - the client's side of an SMTP or LMTP session; interface and life in
 * smtp_client.h.
 *
 * Layer: proto. A client owns its buffers and the map of accepted recipients; nothing outside
 * points into it but the slices it hands out.
 *
 * How it works: each command that was sent leaves a mark in `expected`, a queue of runs (kind,
 * count). A reply belongs to the mark in front; the table `kinds` says which stage that is and who
 * reads the reply. A reply without a mark is unsolicited and ends the connection. The commands of
 * a transaction wait in `held` (their marks in `planned`): with PIPELINING all of them are
 * released at once, without it one for each reply.
 */
#include "proto/smtp_client_impl.h"

#include <stdio.h>

/* Where what happens now belongs. */
static enum smtp_stage stage_now(const struct smtp_client *c)
{
    return c->stale ? SMTP_STAGE_READY : c->stage;
}

/* ------------------------------------------------------------------ events ---- */

struct smtp_client_event *client_push(struct smtp_client *c, enum smtp_client_event_type type,
                                      enum smtp_stage stage)
{
    struct smtp_client_event *ev;

    CHECK(c->n_pending < CLIENT_MAX_PENDING);
    ev = &c->pending[c->n_pending++];
    *ev = (struct smtp_client_event){ .type = type, .stage = stage, .index = SIZE_MAX };
    return ev;
}

void client_push_reply(struct smtp_client *c, enum smtp_client_event_type type,
                       enum smtp_stage stage, size_t index, const struct smtp_reply *reply)
{
    struct smtp_client_event *ev = client_push(c, type, stage);

    ev->index = index;
    ev->reply = *reply;
}

/* The last event but those that wait already. What was still to be sent is dropped: half a
 * message must not be followed by anything. */
static struct smtp_client_event *fail(struct smtp_client *c, enum smtp_stage stage)
{
    c->closed = true;
    c->sasl = sasl_client_free(c->sasl);
    c->expected.n = c->planned.n = 0;
    buf_clear(&c->in);
    buf_clear(&c->out);
    buf_clear(&c->held);
    return client_push(c, SMTP_CLIENT_FAILED, stage);
}

void client_fail_error(struct smtp_client *c, enum smtp_stage stage, int error)
{
    fail(c, stage)->error = error;
}

void client_fail_reply(struct smtp_client *c, enum smtp_stage stage, const struct smtp_reply *reply)
{
    fail(c, stage)->reply = *reply;
}

/* The host will not do what we need, or does not offer it, before any transaction: the dialogue is in order, and is not
 * to be ended without QUIT (RFC 5321 §4.1.1.10, RFC 8689 §4.2.1). reply: NULL: error says what. */
static void refused(struct smtp_client *c, enum smtp_stage stage, const struct smtp_reply *reply,
                    int error)
{
    struct smtp_client_event *ev = fail(c, stage);

    if (reply)
        ev->reply = *reply;
    ev->error = error;
    ev->in_order = c->refused = true;
}

/* The reply does not fit what was asked: its code must not be taken for an answer, so it is told
 * as text. */
void client_fail_wrong(struct smtp_client *c, enum smtp_stage stage, const struct smtp_reply *reply)
{
    struct smtp_client_event *ev = fail(c, stage);
    struct str first = str_first(reply->text, CLIENT_MAX_SAID - 8);
    int n =
        snprintf(c->said, sizeof(c->said), "%u " STR_FMT, (unsigned)reply->code, STR_ARG(first));

    ev->error = -EPROTO;
    ev->reply.text = str_make(c->said, n > 0 ? (size_t)n : 0);
}

/* ------------------------------------------------------- commands and marks ---- */

void client_mark(struct client_runs *q, enum client_kind kind, size_t count)
{
    if (q->n && q->run[q->n - 1].kind == kind) {
        q->run[q->n - 1].count += count;
        return;
    }
    CHECK(q->n < CLIENT_MAX_RUNS);
    q->run[q->n].kind = kind;
    q->run[q->n++].count = count;
}

static enum client_kind runs_take(struct client_runs *q)
{
    enum client_kind kind = q->run[0].kind;

    CHECK(q->n);
    if (--q->run[0].count == 0)
        memmove(q->run, q->run + 1, --q->n * sizeof(q->run[0]));
    return kind;
}

static enum smtp_stage stage_of(enum client_kind kind);

void client_update_stage(struct smtp_client *c)
{
    if (c->expected.n)
        c->stage = stage_of(c->expected.run[0].kind);
}

void client_drop_plan(struct smtp_client *c)
{
    c->planned.n = 0;
    buf_clear(&c->held);
}

/* One command outside of a transaction. */
void client_send_line(struct smtp_client *c, enum client_kind kind, const char *verb,
                      struct str arg)
{
    buf_add_str(&c->out, str_of(verb));
    if (arg.n)
        buf_add_char(&c->out, ' ');
    buf_add_str(&c->out, arg);
    buf_add_str(&c->out, STR("\r\n"));
    if (c->out.failed) {
        client_fail_error(c, stage_of(kind), -ENOMEM);
        return;
    }
    client_mark(&c->expected, kind, 1);
    client_update_stage(c);
}

static void send_ehlo(struct smtp_client *c)
{
    client_send_line(c, KIND_EHLO, c->opt.lmtp ? "LHLO" : "EHLO", c->opt.hostname);
}

/* Sends what is planned: all of it with PIPELINING, else the next line. */
int client_release(struct smtp_client *c)
{
    struct str held = buf_str(&c->held);
    size_t n = held.n;
    int r;

    if (!c->caps.pipelining)
        n = (size_t)(str_chr(held, '\n') + 1);
    r = buf_add(&c->out, held.p, n);
    if (r < 0)
        return r;
    buf_consume(&c->held, n);
    do {
        client_mark(&c->expected, runs_take(&c->planned), 1);
    } while (c->caps.pipelining && c->planned.n);
    client_update_stage(c);
    return 0;
}

static void become_ready(struct smtp_client *c)
{
    c->stage = SMTP_STAGE_READY;
    client_push(c, SMTP_CLIENT_READY, SMTP_STAGE_READY);
    buf_shrink(&c->held);
}

/* ------------------------------------------------- greeting to READY ---- */

static void on_greeting(struct smtp_client *c, const struct smtp_reply *reply)
{
    struct str line = reply->text, name;

    if (!smtp_reply_positive(reply)) {
        if (reply->code < 400)
            client_fail_wrong(c, SMTP_STAGE_GREETING, reply);
        else
            refused(c, SMTP_STAGE_GREETING, reply, 0);
        return;
    }
    if (str_cut(&line, '\n', &name)) {
        line = name;
        (void)str_cut(&line, ' ', &name);
        name = str_first(name, CLIENT_MAX_PEER_NAME);
        memcpy(c->peer_name, name.p, name.n);
        c->peer_name_n = name.n;
    }
    send_ehlo(c);
}

/* AUTH_KIND waits for the reply to what was just written. */
static void auth_written(struct smtp_client *c, int r)
{
    if (r < 0) {
        client_fail_error(c, SMTP_STAGE_AUTH, r == -ENOTSUP ? -EOPNOTSUPP : r);
        return;
    }
    client_mark(&c->expected, KIND_AUTH, 1);
    client_update_stage(c);
}

/* TLS is there, or there will be none: authenticate where that is asked for, else ready. */
static void begin_auth(struct smtp_client *c)
{
    if (c->opt.user.n == 0)
        return;
    enum sasl_mechanism m = smtp_client_pick(&c->opt, c->caps.auth, c->tls);
    if (m == SASL_NONE)
        refused(c, SMTP_STAGE_AUTH, NULL, -EOPNOTSUPP);
    else
        auth_written(c, smtp_client_auth_begin(&c->opt, m, &c->out, &c->sasl));
}

/* RFC 4954 section 4: 334 asks on, 235 is yes. A yes before the exchange is complete is a lie: the
 * host has not shown that it knows the password. */
static void on_auth(struct smtp_client *c, const struct smtp_reply *reply)
{
    struct smtp_reply shown = *reply;

    shown.text = smtp_client_auth_text(c->sasl, reply->text);
    if (reply->code == 334)
        auth_written(c, smtp_client_auth_step(c->sasl, reply->text, &c->out));
    else if (reply->code == 235 && sasl_client_done(c->sasl))
        c->sasl = sasl_client_free(c->sasl);
    else if (reply->code == 235)
        client_fail_error(c, SMTP_STAGE_AUTH, -EKEYREJECTED);
    else if (reply->code < 400)
        client_fail_wrong(c, SMTP_STAGE_AUTH, &shown);
    else
        refused(c, SMTP_STAGE_AUTH, &shown, 0);
}

/* EHLO or HELO is done and caps are known: into TLS, AUTH, or ready. */
static void after_helo(struct smtp_client *c)
{
    bool may = !c->tls && c->opt.starttls != SMTP_TLS_NEVER;

    if (may && c->caps.starttls)
        client_send_line(c, KIND_STARTTLS, "STARTTLS", STR_NONE);
    else if (may && c->opt.starttls == SMTP_TLS_REQUIRED)
        refused(c, SMTP_STAGE_STARTTLS, NULL, -EOPNOTSUPP);
    else
        begin_auth(c);
}

static void on_ehlo(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (smtp_reply_positive(reply)) {
        smtp_client_parse_caps(reply->text, &c->caps);
        if (c->opt.ignore_limits)
            c->caps.limits = (struct smtp_limits){ 0 };
        after_helo(c);
    } else if (smtp_reply_permanent(reply) && !c->opt.lmtp) {
        client_send_line(c, KIND_HELO, "HELO", c->opt.hostname);
    } else if (reply->code < 400) {
        client_fail_wrong(c, SMTP_STAGE_HELO, reply);
    } else {
        refused(c, SMTP_STAGE_HELO, reply, 0);
    }
}

static void on_helo(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (smtp_reply_positive(reply))
        after_helo(c);
    else if (reply->code < 400)
        client_fail_wrong(c, SMTP_STAGE_HELO, reply);
    else
        refused(c, SMTP_STAGE_HELO, reply, 0);
}

/* RFC 3207 §4: 220 and no other code opens the handshake. A refusal leaves the session in clear,
 * if the caller allows that. */
static void on_starttls(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (reply->code == 220) {
        c->stage = SMTP_STAGE_TLS;
        client_push(c, SMTP_CLIENT_STARTTLS, SMTP_STAGE_STARTTLS);
    } else if (reply->code < 400) {
        client_fail_wrong(c, SMTP_STAGE_STARTTLS, reply);
    } else if (c->opt.starttls == SMTP_TLS_REQUIRED) {
        refused(c, SMTP_STAGE_STARTTLS, reply, 0);
    } else {
        begin_auth(c);
    }
}

static void on_quit(struct smtp_client *c, const struct smtp_reply *reply)
{
    client_push_reply(c, SMTP_CLIENT_CLOSE, SMTP_STAGE_QUIT, SIZE_MAX, reply);
    c->closed = true;
}

/* --------------------------------------------------------------- dispatch ---- */

static const struct {
    enum smtp_stage stage;
    client_reply_handler *on_reply;
} kinds[] = {
    [KIND_GREETING] = { SMTP_STAGE_GREETING, on_greeting },
    [KIND_EHLO] = { SMTP_STAGE_HELO, on_ehlo },
    [KIND_HELO] = { SMTP_STAGE_HELO, on_helo },
    [KIND_STARTTLS] = { SMTP_STAGE_STARTTLS, on_starttls },
    [KIND_AUTH] = { SMTP_STAGE_AUTH, on_auth },
    [KIND_RSET] = { SMTP_STAGE_READY, client_on_rset },
    [KIND_MAIL] = { SMTP_STAGE_MAIL, client_on_mail },
    [KIND_RCPT] = { SMTP_STAGE_RCPT, client_on_rcpt },
    [KIND_DATA] = { SMTP_STAGE_DATA, client_on_data },
    [KIND_FINAL] = { SMTP_STAGE_FINAL, client_on_final },
    [KIND_DISCARD] = { SMTP_STAGE_DATA, client_on_discard },
    [KIND_QUIT] = { SMTP_STAGE_QUIT, on_quit },
};

static enum smtp_stage stage_of(enum client_kind kind)
{
    return kinds[kind].stage;
}

/* Nothing was asked. 421 is how a host says goodbye; a refusal in the middle of the body is its
 * word on the message; anything else puts all later replies in doubt. */
static void on_unsolicited(struct smtp_client *c, enum smtp_stage stage,
                           const struct smtp_reply *reply)
{
    if (reply->code == 421 || (stage == SMTP_STAGE_BODY && reply->code >= 400))
        client_fail_reply(c, stage, reply);
    else
        client_fail_wrong(c, stage, reply);
}

static void on_reply(struct smtp_client *c, const struct smtp_reply *reply)
{
    enum client_kind kind;

    if (c->stale || c->expected.n == 0) {
        on_unsolicited(c, stage_now(c), reply);
        return;
    }
    kind = runs_take(&c->expected);
    if (reply->code == 421 && kind == KIND_FINAL && client_take_farewell(c, reply))
        return;
    if (reply->code == 421 && kind != KIND_QUIT) {
        client_fail_reply(c, stage_of(kind), reply);
        return;
    }
    kinds[kind].on_reply(c, reply);
    if (c->closed)
        return;
    if (c->expected.n)
        client_update_stage(c);
    else if (c->planned.n) {
        int r = client_release(c);
        if (r < 0)
            client_fail_error(c, c->stage, r);
    } else if (c->stage != SMTP_STAGE_TLS && c->stage != SMTP_STAGE_BODY)
        become_ready(c);
}

/* Takes one reply off the input. 1: some event may wait now; 0: the input is used up. */
static int read_reply(struct smtp_client *c)
{
    struct str in = buf_str(&c->in);
    struct smtp_reply reply;
    size_t before = in.n;
    int r;

    if (in.n == 0)
        return 0;
    if (c->stage == SMTP_STAGE_TLS) { /* in clear, behind the 220 of STARTTLS */
        client_fail_error(c, SMTP_STAGE_STARTTLS, -EPROTO);
        return 1;
    }
    r = smtp_reply_read(&c->reader, &in, &reply);
    buf_consume(&c->in, before - in.n);
    c->mid_reply = r == 0;
    if (r < 0)
        client_fail_error(c, stage_now(c), r);
    else if (r > 0)
        on_reply(c, &reply);
    return r != 0;
}

static void send_quit(struct smtp_client *c)
{
    client_send_line(c, KIND_QUIT, "QUIT", STR_NONE);
}

/* READY is not told when it would not be true: QUIT comes instead, or the connection is gone. */
static bool ready_is_void(struct smtp_client *c)
{
    if (c->quitting)
        send_quit(c);
    return c->quitting || (c->lost && buf_len(&c->in) == 0);
}

int smtp_client_next(struct smtp_client *c, struct smtp_client_event *ret)
{
    for (;;) {
        if (c->n_pending) {
            struct smtp_client_event ev = c->pending[0];

            memmove(c->pending, c->pending + 1, --c->n_pending * sizeof(c->pending[0]));
            if (ev.type == SMTP_CLIENT_READY && ready_is_void(c))
                continue;
            *ret = ev;
            return 1;
        }
        if (c->closed)
            return -EPIPE;
        if (read_reply(c))
            continue;
        if (c->stage != SMTP_STAGE_FINAL) /* kept for the reply to the message */
            buf_shrink(&c->in);
        if (!c->lost)
            return 0;
        client_fail_error(c, stage_now(c), c->lost);
    }
}

/* ------------------------------------------------------ what the caller does ---- */

struct smtp_client *smtp_client_new(const struct smtp_client_options *opt)
{
    struct smtp_client *c;

    CHECK(opt->hostname.n && !memchr(opt->hostname.p, '\r', opt->hostname.n) &&
          !memchr(opt->hostname.p, '\n', opt->hostname.n));
    c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->opt = *opt;
    c->tls = opt->tls;
    c->stage = SMTP_STAGE_GREETING;
    buf_init(&c->in, 0);
    buf_init(&c->out, 0);
    buf_init(&c->held, 0);
    smtp_reply_reader_init(&c->reader);
    client_mark(&c->expected, KIND_GREETING, 1);
    return c;
}

struct smtp_client *smtp_client_free(struct smtp_client *c)
{
    if (!c)
        return NULL;
    smtp_reply_reader_done(&c->reader);
    sasl_client_free(c->sasl);
    buf_done(&c->in);
    buf_done(&c->out);
    buf_done(&c->held);
    free(c->accepted);
    free(c->domains);
    free(c);
    return NULL;
}

size_t smtp_client_feed(struct smtp_client *c, const void *bytes, size_t n)
{
    if (c->closed || c->lost)
        return 0;
    if (n > CLIENT_MAX_UNREAD - buf_len(&c->in)) {
        c->lost = -EPROTO;
        return 0;
    }
    if (buf_add(&c->in, bytes, n) < 0) {
        c->lost = -ENOMEM;
        return 0;
    }
    return n;
}

void smtp_client_quit(struct smtp_client *c)
{
    if (c->refused && c->n_pending == 0 && !c->lost) {
        c->refused = c->closed = false;
        c->quitting = true;
        send_quit(c);
        return;
    }
    if (c->closed || c->quitting)
        return;
    c->quitting = true;
    if (c->stage == SMTP_STAGE_READY && c->expected.n == 0 && c->n_pending == 0)
        send_quit(c);
}

void smtp_client_tls_started(struct smtp_client *c)
{
    if (c->closed)
        return;
    CHECK(c->stage == SMTP_STAGE_TLS);
    if (read_reply(c)) /* bytes in clear came meanwhile: FAILED waits */
        return;
    c->tls = true;
    c->caps = (struct smtp_client_caps){ 0 };
    send_ehlo(c);
}

void smtp_client_lost(struct smtp_client *c, int error)
{
    if (c->closed || c->lost)
        return;
    c->lost = error == 0 ? -ECONNRESET : error > 0 ? -error : error;
}

struct str smtp_client_output(const struct smtp_client *c)
{
    return buf_str(&c->out);
}

void smtp_client_sent(struct smtp_client *c, size_t n)
{
    buf_consume(&c->out, n);
    if (c->stage == SMTP_STAGE_READY || c->stage == SMTP_STAGE_FINAL)
        buf_shrink(&c->out);
}

enum smtp_stage smtp_client_stage(const struct smtp_client *c)
{
    return c->stage;
}

const struct smtp_client_caps *smtp_client_caps(const struct smtp_client *c)
{
    return &c->caps;
}

struct str smtp_client_peer_name(const struct smtp_client *c)
{
    return str_make(c->peer_name, c->peer_name_n);
}
