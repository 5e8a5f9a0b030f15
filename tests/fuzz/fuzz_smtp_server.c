/* The SMTP server against a client that says anything, and an application of moods.
 *
 * Input: two bytes of settings, then what the client says, in flights parted by 0x1e. It is run
 * with whole flights and byte by byte. By a bit of the second byte it is LMTP. In both the events must come in an order that makes sense, no
 * piece of a message may hold what it must not, and the output must be replies. Unless the client
 * was caught talking too early, which only whole flights show, both runs must agree.
 */
#include "base/hash.h"
#include "proto/smtp_server.h"

enum { FLIGHT_END = 0x1e, SIZE_LIMIT = 300, BY_LEAST = 60, HOLD_MOST = 86400 };
static const int64_t HOLD_UNTIL = 1796110200000;

enum phase { BEFORE, READY, MAIL, RCPT, BODY, OVER };

struct app {
    struct smtp_server *server;
    unsigned mood;
    unsigned questions;
    bool bytewise, handshake, lmtp;
    bool tls;
    unsigned recipients;          /* accepted, of the transaction */
    bool too_early;               /* closed for what only whole flights show */
    bool exchange, authenticated; /* of AUTH: under way; succeeded */
    bool told_login;              /* by XCLIENT */
    bool by_least;
    uint16_t said; /* the last answer */
    enum phase phase;
    uint64_t octets;
    bool chunked; /* it came by BDAT: it need not end a line */
    bool binary;  /* of the transaction */
    size_t line;  /* octets of the current line of the message, with CRLF */
    char last;    /* octet of the message */
    struct buf log, output;
};

static void note(struct app *a, const char *what, struct str s)
{
    buf_printf(&a->log, "%s " STR_FMT "\n", what, STR_ARG(s));
}

/* ---- the application ---- */

static struct smtp_reply choose(struct app *a, uint16_t yes)
{
    unsigned chance = (unsigned)(hash_stable(&a->questions, sizeof(a->questions)) ^ a->mood) % 16;
    struct smtp_reply reply = { .code = yes, .text = STR("as you like\nor not") };

    a->questions++;
    if (a->mood && chance == 0)
        reply.code = 450;
    else if (a->mood && chance == 1)
        reply.code = 550;
    else if (a->mood && chance == 2 && a->mood % 3 == 0)
        reply.code = 421;
    return reply;
}

static unsigned replies_in(struct str out)
{
    struct str line;
    unsigned n = 0;

    while (out.n > 0 && str_cut(&out, '\n', &line))
        n += line.n > 3 && line.p[3] == ' ';
    return n;
}

/* In LMTP each recipient of a message has an answer, and a reply. */
static void answer(struct app *a, const struct smtp_server_event *e, uint16_t yes)
{
    unsigned times = e->type == SMTP_SERVER_END && a->lmtp ? a->recipients : 1;
    unsigned before = replies_in(smtp_server_output(a->server));
    struct smtp_reply reply = { 0 };

    CHECK(times > 0);
    for (unsigned i = 0; i < times; i++) {
        reply = choose(a, yes);
        CHECK(smtp_server_answer(a->server, e->ticket, &reply) == 0);
    }
    CHECK(smtp_server_answer(a->server, e->ticket, &reply) == -ESTALE);
    if (times > 1) /* and 421 behind them, perhaps: too many errors */
        CHECK(replies_in(smtp_server_output(a->server)) - before - times <= 1);
    if (e->type == SMTP_SERVER_MAIL)
        a->recipients = 0;
    a->recipients += e->type == SMTP_SERVER_RCPT && reply.code == yes;

    bool ok = reply.code == yes;
    a->said = reply.code;
    switch (e->type) {
    case SMTP_SERVER_HELO:
        if (a->phase == BEFORE && ok)
            a->phase = READY;
        break;
    case SMTP_SERVER_MAIL: a->phase = ok ? MAIL : READY; break;
    case SMTP_SERVER_RCPT: a->phase = ok ? RCPT : a->phase; break;
    case SMTP_SERVER_DATA: a->phase = ok ? BODY : RCPT; break;
    case SMTP_SERVER_END: a->phase = READY; break;
    case SMTP_SERVER_STARTTLS: a->handshake = ok; break;
    default: break;
    }
}

/* What is told of a message has only whole lines, none too long, and ends as it should. */
static void take_body(struct app *a, struct str s)
{
    if (a->phase == RCPT) { /* BDAT is not asked about */
        a->phase = BODY;
        a->chunked = true;
        a->octets = a->line = 0;
        a->last = 0;
    }
    CHECK(a->phase == BODY && s.n > 0);
    for (size_t i = 0; i < s.n && !a->binary; i++) {
        char c = s.p[i];
        CHECK(c != '\0' && (c == '\n') == (a->last == '\r'));
        CHECK(++a->line <= SMTP_MAX_TEXT_LINE);
        if (c == '\n')
            a->line = 0;
        a->last = c;
    }
    a->octets += s.n;
    CHECK(a->octets <= SIZE_LIMIT);
    buf_add_str(&a->log, s);
}

static void check_mailbox(const struct smtp_mailbox *box, struct str address)
{
    struct smtp_mailbox again;

    if (box->domain.n == 0) {
        CHECK(address.n == 0 || str_caseeq(address, STR("postmaster")));
        return;
    }
    CHECK(smtp_parse_mailbox(address, true, &again) == 0);
    CHECK(str_eq(again.local, box->local) && str_eq(again.domain, box->domain));
}

/* What is told was offered, and is the same when it is written and read again. */
static void check_times(const struct app *a, const struct smtp_times *t)
{
    struct smtp_times again = { .hold = false };
    struct buf out;

    CHECK(t->hold || (t->hold_s == 0 && t->hold_until_ms == 0));
    CHECK(t->hold_s <= HOLD_MOST && t->hold_until_ms <= HOLD_UNTIL);
    CHECK(t->priority >= -SMTP_PRIORITY_MOST && t->priority <= SMTP_PRIORITY_MOST);
    CHECK(t->by.mode != SMTP_BY_RETURN || t->by.seconds >= (a->by_least ? BY_LEAST : 1));
    buf_init(&out, 0);
    smtp_by_write(&t->by, &out);
    CHECK((buf_len(&out) == 0) == (t->by.mode == SMTP_BY_NONE));
    if (buf_len(&out))
        CHECK(smtp_times_param(STR("BY"), str_from(buf_str(&out), 4), SMTP_TIMES_BY, &again) == 0);
    CHECK(again.by.mode == t->by.mode && again.by.seconds == t->by.seconds &&
          again.by.trace == t->by.trace);
    buf_done(&out);
}

static void take_mail(struct app *a, const struct smtp_server_event *e)
{
    check_times(a, &e->mail.times);
    CHECK(a->phase == READY && e->mail.size <= SIZE_LIMIT);
    check_mailbox(&e->mail.sender, e->mail.address);
    CHECK(e->mail.smtputf8 || str_is_ascii(e->mail.address));
    CHECK(!e->mail.requiretls || a->tls);
    a->binary = e->mail.body == SMTP_BODY_BINARYMIME;
    note(a, "MAIL", e->mail.address);
    answer(a, e, 250);
}

static void take_rcpt(struct app *a, const struct smtp_server_event *e)
{
    CHECK((a->phase == MAIL || a->phase == RCPT) && e->rcpt.address.n > 0);
    check_mailbox(&e->rcpt.recipient, e->rcpt.address);
    note(a, "RCPT", e->rcpt.address);
    answer(a, e, 250);
}

static void take_data(struct app *a, const struct smtp_server_event *e)
{
    CHECK(a->phase == RCPT);
    note(a, "DATA", STR(""));
    CHECK(!a->binary);
    a->chunked = false;
    a->octets = a->line = 0;
    a->last = 0;
    answer(a, e, 354);
}

static void take_end(struct app *a, const struct smtp_server_event *e)
{
    if (a->phase == RCPT) { /* nothing but empty chunks */
        a->octets = 0;
        a->chunked = true;
    }
    CHECK(a->phase == BODY || a->phase == RCPT);
    CHECK(e->end.size == a->octets && (a->chunked || a->line == 0));
    CHECK(a->octets == 0 || a->binary || a->last != '\r');
    note(a, "END", STR(""));
    answer(a, e, 250);
}

static void answer_auth(struct app *a, const struct smtp_server_event *e)
{
    bool more = (a->questions ^ a->mood) % 3 != 0;

    answer(a, e, more ? 334 : 235);
    a->exchange = a->said == 334;
    a->authenticated = a->said == 235;
}

static void take_auth(struct app *a, const struct smtp_server_event *e)
{
    CHECK(a->phase == READY && !a->exchange && !a->authenticated);
    CHECK(e->auth.initial || e->auth.response.n == 0);
    note(a, sasl_name(e->auth.mechanism), e->auth.response);
    answer_auth(a, e);
}

static void take_response(struct app *a, const struct smtp_server_event *e)
{
    CHECK(a->exchange && a->phase == READY && e->auth.response.n < 12288 / 4 * 3);
    note(a, "RESPONSE", e->auth.response);
    answer_auth(a, e);
}

static void take_close(struct app *a, const struct smtp_server_event *e)
{
    static const char *const early[] = { "data sent before 354", "commands behind STARTTLS",
                                         "talking before the greeting" };
    struct smtp_server_event more;

    CHECK(a->phase != MAIL && a->phase != RCPT && a->phase != BODY);
    for (size_t i = 0; i < ARRAY_LEN(early); i++)
        if (strcmp(e->close.why, early[i]) == 0)
            a->too_early = true;
    note(a, "CLOSE", str_of(e->close.why));
    a->phase = OVER;
    CHECK(smtp_server_next(a->server, &more) == -EPIPE);
}

static void take_xclient(struct app *a, const struct smtp_server_event *e)
{
    const struct smtp_xclient *x = &e->xclient;

    CHECK((a->phase == BEFORE || a->phase == READY) && x->said && (x->empty & ~x->said) == 0);
    CHECK(!x->helo.n || smtp_parse_helo(x->helo, false) == 0);
    CHECK(!x->name.n || smtp_parse_domain(x->name, false) == 0);
    for (size_t i = 0; i < x->login.n; i++)
        CHECK((unsigned char)x->login.p[i] >= 32 && x->login.p[i] != 127);
    CHECK((x->addr.family != NET_NONE) == ((x->said & ~x->empty & SMTP_XCLIENT_ADDR) != 0));
    note(a, "XCLIENT", x->login);
    if (x->said & SMTP_XCLIENT_LOGIN)
        a->told_login = x->login.n > 0;
    answer(a, e, 220);
    if (a->said == 220) {
        a->phase = BEFORE;
        a->authenticated = a->told_login;
    }
}

static void take_event(struct app *a, const struct smtp_server_event *e)
{
    switch (e->type) {
    case SMTP_SERVER_CONNECT: answer(a, e, 220); break;
    case SMTP_SERVER_HELO:
        CHECK(smtp_parse_helo(e->helo.name, false) == 0);
        note(a, "HELO", e->helo.name);
        answer(a, e, 250);
        break;
    case SMTP_SERVER_MAIL: take_mail(a, e); break;
    case SMTP_SERVER_RCPT: take_rcpt(a, e); break;
    case SMTP_SERVER_DATA: take_data(a, e); break;
    case SMTP_SERVER_BODY: take_body(a, e->body); break;
    case SMTP_SERVER_END: take_end(a, e); break;
    case SMTP_SERVER_RESET:
        CHECK(a->phase == MAIL || a->phase == RCPT || a->phase == BODY);
        note(a, "RESET", STR(""));
        a->phase = READY;
        break;
    case SMTP_SERVER_STARTTLS:
        CHECK(a->phase == READY);
        note(a, "STARTTLS", STR(""));
        answer(a, e, 220);
        break;
    case SMTP_SERVER_ATRN:
        CHECK(a->phase == READY);
        note(a, "ATRN", e->etrn.node);
        answer(a, e, 450);
        break;
    case SMTP_SERVER_ETRN:
        CHECK(a->phase == READY && e->etrn.node.n > 0);
        note(a, "ETRN", e->etrn.node);
        answer(a, e, 250);
        break;
    case SMTP_SERVER_AUTH: take_auth(a, e); break;
    case SMTP_SERVER_AUTH_RESPONSE: take_response(a, e); break;
    case SMTP_SERVER_AUTH_END:
        CHECK(a->exchange);
        a->exchange = false;
        note(a, "AUTH_END", STR(""));
        break;
    case SMTP_SERVER_XCLIENT: take_xclient(a, e); break;
    case SMTP_SERVER_CLOSE: take_close(a, e); break;
    }
}

/* ---- the run ---- */

static void take_output(struct app *a)
{
    struct str out = smtp_server_output(a->server), line, rest = out;

    while (rest.n > 0 && str_cut(&rest, '\n', &line)) {
        CHECK(line.n >= 4 && line.n < SMTP_MAX_REPLY_LINE && line.p[line.n - 1] == '\r');
        CHECK(line.p[0] >= '2' && line.p[0] <= '5' && (line.p[3] == ' ' || line.p[3] == '-'));
        CHECK(memchr(line.p, '\r', line.n - 1) == NULL && memchr(line.p, '\0', line.n) == NULL);
    }
    buf_add_str(&a->output, out);
    smtp_server_sent(a->server, out.n);
}

static void pump(struct app *a)
{
    struct smtp_server_event e;
    int r;

    while ((r = smtp_server_next(a->server, &e)) == 1)
        take_event(a, &e);
    CHECK(r == 0 || r == -EPIPE);
    CHECK((r == -EPIPE) == (a->phase == OVER));
    take_output(a);
}

static void flight(struct app *a, struct str bytes)
{
    while (bytes.n > 0 && a->phase != OVER && !a->handshake) {
        size_t n = a->bytewise ? 1 : bytes.n;
        size_t taken = smtp_server_feed(a->server, bytes.p, n);
        CHECK(taken > 0);
        bytes = str_from(bytes, taken);
        pump(a);
    }
    if (a->handshake) {
        smtp_server_tls_started(a->server);
        a->handshake = a->authenticated = a->told_login = false;
        a->tls = true;
        a->phase = BEFORE;
    }
}

static void run(struct app *a, unsigned settings, struct str script)
{
    struct smtp_server_options opt = {
        .hostname = STR("mx.example"),
        .size_limit = SIZE_LIMIT,
        .max_errors = settings & 1 ? 5 : 0,
        .max_commands = settings & 2 ? 30 : 0,
        .starttls = settings & 4,
        .require_tls = settings & 8,
        .tls = settings & 16,
        .etrn = settings & 32,
        .smtputf8 = settings & 64,
        .mechanisms = a->mood & 32 ? SASL_BIT(SASL_PLAIN) | SASL_BIT(SASL_CRAM_MD5) : 0,
        .clear_auth = a->mood & 64,
        .require_auth = a->mood & 128,
        .max_auth_failures = 3,
        .dsn = settings & 64,
        .xclient = settings & 32,
        .chunking = a->mood & 16,
        .binarymime = settings & 64,
        .lmtp = a->mood & 8,
        .requiretls = true,
        .limits = true,
        .max_messages = settings & 2 ? 7 : 0,
        .deliver_by = settings & 64,
        .deliver_by_min_s = settings & 32 ? BY_LEAST : 0,
        .hold_max_s = settings & 64 ? HOLD_MOST : 0,
        .hold_max_ms = HOLD_UNTIL,
        .priority = settings & 64,
    };
    struct str bytes;

    a->tls = opt.tls;
    buf_init(&a->log, 0);
    buf_init(&a->output, 0);
    a->lmtp = opt.lmtp;
    a->by_least = opt.deliver_by_min_s > 0;
    a->server = smtp_server_new(&opt);
    CHECK(a->server);
    if (!(settings & 128)) /* else the client talks first */
        pump(a);
    while (str_cut(&script, FLIGHT_END, &bytes))
        flight(a, bytes);
    if (a->phase != OVER) {
        smtp_server_stop(a->server, NULL, "end");
        pump(a);
    }
    smtp_server_free(a->server);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct app whole = { 0 }, bytewise = { .bytewise = true };

    if (size < 2)
        return 0;
    whole.mood = bytewise.mood = data[1];
    run(&whole, data[0], str_make(data + 2, size - 2));
    run(&bytewise, data[0], str_make(data + 2, size - 2));
    if (!whole.too_early && !bytewise.too_early) {
        CHECK(str_eq(buf_str(&whole.log), buf_str(&bytewise.log)));
        CHECK(str_eq(buf_str(&whole.output), buf_str(&bytewise.output)));
    }
    buf_done(&whole.log);
    buf_done(&whole.output);
    buf_done(&bytewise.log);
    buf_done(&bytewise.output);
    return 0;
}
