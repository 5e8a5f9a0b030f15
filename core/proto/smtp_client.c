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
#include "proto/smtp_client_internal.h"

#include <stdio.h>

enum {
    MAX_RUNS = 5,             /* RSET, MAIL, RCPT, DATA, and one to spare */
    MAX_PENDING = 3,          /* RESULT, TRANSACTION_DONE, READY */
    MAX_PEER_NAME = 255,      /* a domain (RFC 5321 §4.5.3.1.2) */
    MAX_SAID = 200,           /* of a reply that broke the protocol: for people */
    MAX_UNREAD = 1024 * 1024, /* fed and not taken by next; the caller takes after each feed */
};

enum kind {
    KIND_GREETING,
    KIND_EHLO,
    KIND_HELO,
    KIND_STARTTLS,
    KIND_AUTH, /* the command, or a response to a challenge */
    KIND_RSET,
    KIND_MAIL,
    KIND_RCPT,
    KIND_DATA,
    KIND_FINAL,
    KIND_DISCARD, /* the lone dot after a DATA that nobody wanted */
    KIND_QUIT,
};

struct runs {
    struct {
        enum kind kind;
        size_t count;
    } run[MAX_RUNS];
    size_t n;
};

struct smtp_client {
    struct smtp_client_options opt;
    struct smtp_client_caps caps;
    enum smtp_stage stage;
    bool tls;
    bool quitting; /* QUIT as soon as READY */
    bool closed;   /* FAILED or CLOSE is told or pending: nothing else follows */
    int lost;      /* -errno: FAILED once the input is used up */

    struct buf in, out;
    struct smtp_reply_reader reader;
    bool mid_reply; /* the reader holds the beginning of a reply */
    bool stale;     /* the reply being read began before the transaction: it answers nothing */

    struct sasl_client *sasl; /* while AUTH is going on */

    struct runs expected;
    struct runs planned;
    struct buf held;

    struct smtp_client_event pending[MAX_PENDING];
    size_t n_pending;

    /* The transaction. */
    size_t n_recipients, next_recipient, n_accepted;
    uint8_t *accepted;   /* LMTP: a bit for each recipient */
    bool told;           /* TRANSACTION_DONE was given: the replies that remain concern nobody */
    bool stray_accepted; /* RCPT accepted though MAIL was not */
    bool ask_only;       /* it ends behind RCPT */
    bool need_rset;      /* the host still holds the transaction before this one */
    struct smtp_stuffing stuffing;

    size_t peer_name_n;
    char peer_name[MAX_PEER_NAME];
    char said[MAX_SAID];
};

/* Where what happens now belongs. */
static enum smtp_stage stage_now(const struct smtp_client *c)
{
    return c->stale ? SMTP_STAGE_READY : c->stage;
}

/* ------------------------------------------------------------------ events ---- */

static struct smtp_client_event *push(struct smtp_client *c, enum smtp_client_event_type type,
                                      enum smtp_stage stage)
{
    struct smtp_client_event *ev;

    CHECK(c->n_pending < MAX_PENDING);
    ev = &c->pending[c->n_pending++];
    *ev = (struct smtp_client_event){ .type = type, .stage = stage, .index = SIZE_MAX };
    return ev;
}

static void push_reply(struct smtp_client *c, enum smtp_client_event_type type,
                       enum smtp_stage stage, size_t index, const struct smtp_reply *reply)
{
    struct smtp_client_event *ev = push(c, type, stage);

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
    return push(c, SMTP_CLIENT_FAILED, stage);
}

static void fail_error(struct smtp_client *c, enum smtp_stage stage, int error)
{
    fail(c, stage)->error = error;
}

static void fail_reply(struct smtp_client *c, enum smtp_stage stage, const struct smtp_reply *reply)
{
    fail(c, stage)->reply = *reply;
}

/* The reply does not fit what was asked: its code must not be taken for an answer, so it is told
 * as text. */
static void fail_wrong(struct smtp_client *c, enum smtp_stage stage, const struct smtp_reply *reply)
{
    struct smtp_client_event *ev = fail(c, stage);
    struct str first = str_first(reply->text, MAX_SAID - 8);
    int n =
        snprintf(c->said, sizeof(c->said), "%u " STR_FMT, (unsigned)reply->code, STR_ARG(first));

    ev->error = -EPROTO;
    ev->reply.text = str_make(c->said, n > 0 ? (size_t)n : 0);
}

/* ------------------------------------------------------- commands and marks ---- */

static void runs_add(struct runs *q, enum kind kind, size_t count)
{
    if (q->n && q->run[q->n - 1].kind == kind) {
        q->run[q->n - 1].count += count;
        return;
    }
    CHECK(q->n < MAX_RUNS);
    q->run[q->n].kind = kind;
    q->run[q->n++].count = count;
}

static enum kind runs_take(struct runs *q)
{
    enum kind kind = q->run[0].kind;

    CHECK(q->n);
    if (--q->run[0].count == 0)
        memmove(q->run, q->run + 1, --q->n * sizeof(q->run[0]));
    return kind;
}

static enum smtp_stage stage_of(enum kind kind);

static void update_stage(struct smtp_client *c)
{
    if (c->expected.n)
        c->stage = stage_of(c->expected.run[0].kind);
}

static void drop_plan(struct smtp_client *c)
{
    c->planned.n = 0;
    buf_clear(&c->held);
}

/* One command outside of a transaction. */
static void send_line(struct smtp_client *c, enum kind kind, const char *verb, struct str arg)
{
    buf_add_str(&c->out, str_of(verb));
    if (arg.n)
        buf_add_char(&c->out, ' ');
    buf_add_str(&c->out, arg);
    buf_add_str(&c->out, STR("\r\n"));
    if (c->out.failed) {
        fail_error(c, stage_of(kind), -ENOMEM);
        return;
    }
    runs_add(&c->expected, kind, 1);
    update_stage(c);
}

static void send_ehlo(struct smtp_client *c)
{
    send_line(c, KIND_EHLO, c->opt.lmtp ? "LHLO" : "EHLO", c->opt.hostname);
}

/* Sends what is planned: all of it with PIPELINING, else the next line. */
static int release(struct smtp_client *c)
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
        runs_add(&c->expected, runs_take(&c->planned), 1);
    } while (c->caps.pipelining && c->planned.n);
    update_stage(c);
    return 0;
}

static void become_ready(struct smtp_client *c)
{
    c->stage = SMTP_STAGE_READY;
    push(c, SMTP_CLIENT_READY, SMTP_STAGE_READY);
    buf_shrink(&c->held);
}

/* ------------------------------------------------- greeting to READY ---- */

static void on_greeting(struct smtp_client *c, const struct smtp_reply *reply)
{
    struct str line = reply->text, name;

    if (!smtp_reply_positive(reply)) {
        if (reply->code < 400)
            fail_wrong(c, SMTP_STAGE_GREETING, reply);
        else
            fail_reply(c, SMTP_STAGE_GREETING, reply);
        return;
    }
    if (str_cut(&line, '\n', &name)) {
        line = name;
        (void)str_cut(&line, ' ', &name);
        name = str_first(name, MAX_PEER_NAME);
        memcpy(c->peer_name, name.p, name.n);
        c->peer_name_n = name.n;
    }
    send_ehlo(c);
}

/* AUTH_KIND waits for the reply to what was just written. */
static void auth_written(struct smtp_client *c, int r)
{
    if (r < 0) {
        fail_error(c, SMTP_STAGE_AUTH, r == -ENOTSUP ? -EOPNOTSUPP : r);
        return;
    }
    runs_add(&c->expected, KIND_AUTH, 1);
    update_stage(c);
}

/* TLS is there, or there will be none: authenticate where that is asked for, else ready. */
static void begin_auth(struct smtp_client *c)
{
    if (c->opt.user.n == 0)
        return;
    enum sasl_mechanism m = smtp_client_pick(&c->opt, c->caps.auth, c->tls);
    if (m == SASL_NONE)
        fail_error(c, SMTP_STAGE_AUTH, -EOPNOTSUPP);
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
        fail_error(c, SMTP_STAGE_AUTH, -EKEYREJECTED);
    else if (reply->code < 400)
        fail_wrong(c, SMTP_STAGE_AUTH, &shown);
    else
        fail_reply(c, SMTP_STAGE_AUTH, &shown);
}

/* EHLO or HELO is done and caps are known: into TLS, AUTH, or ready. */
static void after_helo(struct smtp_client *c)
{
    bool may = !c->tls && c->opt.starttls != SMTP_TLS_NEVER;

    if (may && c->caps.starttls)
        send_line(c, KIND_STARTTLS, "STARTTLS", STR_NONE);
    else if (may && c->opt.starttls == SMTP_TLS_REQUIRED)
        fail_error(c, SMTP_STAGE_STARTTLS, -EOPNOTSUPP);
    else
        begin_auth(c);
}

static void on_ehlo(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (smtp_reply_positive(reply)) {
        smtp_client_parse_caps(reply->text, &c->caps);
        after_helo(c);
    } else if (smtp_reply_permanent(reply) && !c->opt.lmtp) {
        send_line(c, KIND_HELO, "HELO", c->opt.hostname);
    } else if (reply->code < 400) {
        fail_wrong(c, SMTP_STAGE_HELO, reply);
    } else {
        fail_reply(c, SMTP_STAGE_HELO, reply);
    }
}

static void on_helo(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (smtp_reply_positive(reply))
        after_helo(c);
    else if (reply->code < 400)
        fail_wrong(c, SMTP_STAGE_HELO, reply);
    else
        fail_reply(c, SMTP_STAGE_HELO, reply);
}

/* RFC 3207 §4: 220 and no other code opens the handshake. A refusal leaves the session in clear,
 * if the caller allows that. */
static void on_starttls(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (reply->code == 220) {
        c->stage = SMTP_STAGE_TLS;
        push(c, SMTP_CLIENT_STARTTLS, SMTP_STAGE_STARTTLS);
    } else if (reply->code < 400) {
        fail_wrong(c, SMTP_STAGE_STARTTLS, reply);
    } else if (c->opt.starttls == SMTP_TLS_REQUIRED) {
        fail_reply(c, SMTP_STAGE_STARTTLS, reply);
    } else {
        begin_auth(c);
    }
}

/* ------------------------------------------------------- the transaction ---- */

static void transaction_told(struct smtp_client *c)
{
    push(c, SMTP_CLIENT_TRANSACTION_DONE, c->stage);
    c->told = true;
}

/* A host that cannot forget a transaction is of no use for the next one; the message that waits
 * behind is not to blame. */
static void on_rset(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (smtp_reply_positive(reply))
        c->need_rset = false;
    else if (reply->code < 400)
        fail_wrong(c, SMTP_STAGE_READY, reply);
    else
        fail_reply(c, SMTP_STAGE_READY, reply);
}

static void on_mail(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (smtp_reply_positive(reply)) {
        c->need_rset = true;
    } else if (reply->code < 400) {
        fail_wrong(c, SMTP_STAGE_MAIL, reply);
    } else {
        drop_plan(c);
        push_reply(c, SMTP_CLIENT_MAIL_RESULT, SMTP_STAGE_MAIL, SIZE_MAX, reply);
        transaction_told(c);
    }
}

static void on_rcpt(struct smtp_client *c, const struct smtp_reply *reply)
{
    size_t i = c->next_recipient++;
    bool positive = smtp_reply_positive(reply);

    if (!positive && reply->code < 400) {
        fail_wrong(c, SMTP_STAGE_RCPT, reply);
        return;
    }
    if (c->told) { /* MAIL was refused */
        c->stray_accepted |= positive;
        return;
    }
    if (positive) {
        c->n_accepted++;
        if (c->accepted)
            c->accepted[i / 8] |= (uint8_t)(1u << i % 8);
    }
    push_reply(c, SMTP_CLIENT_RCPT_RESULT, SMTP_STAGE_RCPT, i, reply);
    if (c->next_recipient == c->n_recipients && (c->n_accepted == 0 || c->ask_only)) {
        drop_plan(c);
        transaction_told(c);
    }
}

/* 354 though there is nobody to send to (RFC 2920 §3.1): a lone dot, and its reply means nothing.
 * Not where the dot could make an empty message for someone, nor in LMTP, which owes no reply to a
 * dot without recipients: there the connection ends. */
static void unwanted_data(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (c->opt.lmtp || c->stray_accepted)
        fail_wrong(c, SMTP_STAGE_DATA, reply);
    else
        send_line(c, KIND_DISCARD, ".", STR_NONE);
}

static void on_data(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (smtp_reply_positive(reply)) {
        fail_wrong(c, SMTP_STAGE_DATA, reply);
    } else if (reply->code >= 400) {
        if (c->told)
            return;
        push_reply(c, SMTP_CLIENT_RESULT, SMTP_STAGE_DATA, SIZE_MAX, reply);
        transaction_told(c);
    } else if (c->told) {
        unwanted_data(c, reply);
    } else {
        c->stage = SMTP_STAGE_BODY;
        c->stuffing = (struct smtp_stuffing){ .line_start = true };
        push(c, SMTP_CLIENT_NEED_BODY, SMTP_STAGE_BODY);
    }
}

/* The next accepted recipient: LMTP answers for each of them in order (RFC 2033 §4.2). */
static size_t take_accepted(struct smtp_client *c)
{
    size_t i = c->next_recipient;

    while (!(c->accepted[i / 8] >> i % 8 & 1))
        i++;
    c->next_recipient = i + 1;
    return i;
}

static void on_final(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (reply->code >= 300 && reply->code < 400) {
        fail_wrong(c, SMTP_STAGE_FINAL, reply);
        return;
    }
    push_reply(c, SMTP_CLIENT_RESULT, SMTP_STAGE_FINAL, c->opt.lmtp ? take_accepted(c) : SIZE_MAX,
               reply);
    if (c->expected.n)
        return;
    c->need_rset = false;
    transaction_told(c);
}

static void on_discard(struct smtp_client *c, const struct smtp_reply *reply)
{
    (void)reply;
    c->need_rset = false;
}

static void on_quit(struct smtp_client *c, const struct smtp_reply *reply)
{
    push_reply(c, SMTP_CLIENT_CLOSE, SMTP_STAGE_QUIT, SIZE_MAX, reply);
    c->closed = true;
}

/* --------------------------------------------------------------- dispatch ---- */

static const struct {
    enum smtp_stage stage;
    void (*on_reply)(struct smtp_client *c, const struct smtp_reply *reply);
} kinds[] = {
    [KIND_GREETING] = { SMTP_STAGE_GREETING, on_greeting },
    [KIND_EHLO] = { SMTP_STAGE_HELO, on_ehlo },
    [KIND_HELO] = { SMTP_STAGE_HELO, on_helo },
    [KIND_STARTTLS] = { SMTP_STAGE_STARTTLS, on_starttls },
    [KIND_AUTH] = { SMTP_STAGE_AUTH, on_auth },
    [KIND_RSET] = { SMTP_STAGE_READY, on_rset },
    [KIND_MAIL] = { SMTP_STAGE_MAIL, on_mail },
    [KIND_RCPT] = { SMTP_STAGE_RCPT, on_rcpt },
    [KIND_DATA] = { SMTP_STAGE_DATA, on_data },
    [KIND_FINAL] = { SMTP_STAGE_FINAL, on_final },
    [KIND_DISCARD] = { SMTP_STAGE_DATA, on_discard },
    [KIND_QUIT] = { SMTP_STAGE_QUIT, on_quit },
};

static enum smtp_stage stage_of(enum kind kind)
{
    return kinds[kind].stage;
}

/* Nothing was asked. 421 is how a host says goodbye; a refusal in the middle of the body is its
 * word on the message; anything else puts all later replies in doubt. */
static void on_unsolicited(struct smtp_client *c, enum smtp_stage stage,
                           const struct smtp_reply *reply)
{
    if (reply->code == 421 || (stage == SMTP_STAGE_BODY && reply->code >= 400))
        fail_reply(c, stage, reply);
    else
        fail_wrong(c, stage, reply);
}

static void on_reply(struct smtp_client *c, const struct smtp_reply *reply)
{
    enum kind kind;

    if (c->stale || c->expected.n == 0) {
        on_unsolicited(c, stage_now(c), reply);
        return;
    }
    kind = runs_take(&c->expected);
    if (reply->code == 421 && kind != KIND_QUIT) {
        fail_reply(c, stage_of(kind), reply);
        return;
    }
    kinds[kind].on_reply(c, reply);
    if (c->closed)
        return;
    if (c->expected.n)
        update_stage(c);
    else if (c->planned.n) {
        int r = release(c);
        if (r < 0)
            fail_error(c, c->stage, r);
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
        fail_error(c, SMTP_STAGE_STARTTLS, -EPROTO);
        return 1;
    }
    r = smtp_reply_read(&c->reader, &in, &reply);
    buf_consume(&c->in, before - in.n);
    c->mid_reply = r == 0;
    if (r < 0)
        fail_error(c, stage_now(c), r);
    else if (r > 0)
        on_reply(c, &reply);
    return r != 0;
}

static void send_quit(struct smtp_client *c)
{
    send_line(c, KIND_QUIT, "QUIT", STR_NONE);
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
        buf_shrink(&c->in);
        if (!c->lost)
            return 0;
        fail_error(c, stage_now(c), c->lost);
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
    runs_add(&c->expected, KIND_GREETING, 1);
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
    free(c);
    return NULL;
}

size_t smtp_client_feed(struct smtp_client *c, const void *bytes, size_t n)
{
    if (c->closed || c->lost)
        return 0;
    if (n > MAX_UNREAD - buf_len(&c->in)) {
        c->lost = -EPROTO;
        return 0;
    }
    if (buf_add(&c->in, bytes, n) < 0) {
        c->lost = -ENOMEM;
        return 0;
    }
    return n;
}

static int check_mail(const struct smtp_client *c, const struct smtp_client_mail *mail)
{
    if (mail->n_recipients == 0 || !smtp_client_address_ok(mail->sender, mail->smtputf8))
        return -EINVAL;
    for (size_t i = 0; i < mail->n_recipients; i++)
        if (mail->recipients[i].n == 0 ||
            !smtp_client_address_ok(mail->recipients[i], mail->smtputf8))
            return -EINVAL;
    if (mail->body == SMTP_BODY_8BITMIME && !c->caps.eightbit)
        return -EOPNOTSUPP;
    if (mail->smtputf8 && !c->caps.smtputf8)
        return -EOPNOTSUPP;
    if (c->caps.size_limit && mail->size > c->caps.size_limit)
        return -EMSGSIZE;
    return 0;
}

static void add_path(struct buf *b, struct str command, struct str path)
{
    buf_add_str(b, command);
    buf_add_str(b, path);
    buf_add_char(b, '>');
}

static void plan_rcpt(struct smtp_client *c, const struct smtp_client_mail *mail, size_t i)
{
    struct buf *b = &c->held;

    add_path(b, STR("RCPT TO:<"), mail->recipients[i]);
    if (c->caps.dsn && mail->rcpt_dsn)
        smtp_dsn_write_rcpt(&mail->rcpt_dsn[i], mail->smtputf8, b);
    buf_add(b, "\r\n", 2);
}

/* Writes the commands of the transaction to held, their marks to planned. */
static int plan(struct smtp_client *c, const struct smtp_client_mail *mail)
{
    struct buf *b = &c->held;

    if (c->need_rset) {
        buf_add_str(b, STR("RSET\r\n"));
        runs_add(&c->planned, KIND_RSET, 1);
    }
    add_path(b, STR("MAIL FROM:<"), mail->sender);
    if (c->caps.size && mail->size) {
        buf_add_str(b, STR(" SIZE="));
        buf_add_int(b, (int64_t)mail->size);
    }
    if (mail->body == SMTP_BODY_8BITMIME)
        buf_add_str(b, STR(" BODY=8BITMIME"));
    if (mail->smtputf8)
        buf_add_str(b, STR(" SMTPUTF8"));
    if (c->caps.dsn)
        smtp_dsn_write_mail(&mail->dsn, b);
    buf_add_str(b, STR("\r\n"));
    runs_add(&c->planned, KIND_MAIL, 1);
    for (size_t i = 0; i < mail->n_recipients; i++)
        plan_rcpt(c, mail, i);
    runs_add(&c->planned, KIND_RCPT, mail->n_recipients);
    if (!mail->ask_only) {
        buf_add_str(b, STR("DATA\r\n"));
        runs_add(&c->planned, KIND_DATA, 1);
    }
    return b->failed;
}

int smtp_client_begin(struct smtp_client *c, const struct smtp_client_mail *mail)
{
    int r;

    if (c->stage != SMTP_STAGE_READY || c->n_pending || c->closed || c->lost || c->quitting)
        return -EBUSY;
    r = check_mail(c, mail);
    if (r < 0)
        return r;
    free(c->accepted);
    c->accepted = NULL;
    if (c->opt.lmtp && !(c->accepted = calloc(mail->n_recipients / 8 + 1, 1)))
        return -ENOMEM;
    r = plan(c, mail);
    if (r == 0)
        r = release(c);
    if (r < 0) {
        drop_plan(c);
        c->out.failed = 0; /* nothing of it was written */
        return r;
    }
    /* What came before the first command was sent cannot be its reply. */
    c->stale = c->mid_reply || buf_len(&c->in) > 0;
    c->n_recipients = mail->n_recipients;
    c->ask_only = mail->ask_only;
    c->next_recipient = c->n_accepted = 0;
    c->told = c->stray_accepted = false;
    return 0;
}

/* Half a message must never get its dot: running out of memory ends the connection. */
static int body_written(struct smtp_client *c, int r)
{
    if (r < 0) {
        buf_clear(&c->out);
        c->lost = r;
    }
    return r;
}

int smtp_client_body(struct smtp_client *c, const void *bytes, size_t n)
{
    if (c->closed || c->lost)
        return -EPIPE;
    if (c->stage != SMTP_STAGE_BODY || c->n_pending)
        return -EBUSY;
    return body_written(c, smtp_stuff(&c->stuffing, str_make(bytes, n), &c->out));
}

int smtp_client_body_end(struct smtp_client *c)
{
    int r;

    if (c->closed || c->lost)
        return -EPIPE;
    if (c->stage != SMTP_STAGE_BODY || c->n_pending)
        return -EBUSY;
    r = body_written(c, smtp_stuff_end(&c->stuffing, &c->out));
    if (r < 0)
        return r;
    runs_add(&c->expected, KIND_FINAL, c->opt.lmtp ? c->n_accepted : 1);
    c->next_recipient = 0;
    update_stage(c);
    return 0;
}

void smtp_client_quit(struct smtp_client *c)
{
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
