/* The SMTP client against a server that says anything, and an application that does its part.
 *
 * Input: two bytes of settings, then what the server says, in bursts parted by 0x1e. Between two
 * bursts the application acts: begins, gives the body, does the handshake, quits in the end. All of
 * it is run with whole bursts and byte by byte; the events must be the same, must come in an order
 * that makes sense, and no output may hold a bare CR or LF or mail in clear where TLS is required.
 */
#include "proto/smtp_client.h"

enum { BURST_END = 0x1e, MAX_RECIPIENTS = 10 };

struct app {
    struct smtp_client *client;
    bool required, tls; /* TLS */
    bool lmtp, utf8;
    bool bytewise;
    size_t n_recipients;
    unsigned messages; /* left to send */
    unsigned mails;    /* begun */

    /* What is known of the transaction. */
    bool bdat;
    bool open, need_body, body_given, ended;
    size_t n, told, accepted, results; /* n: recipients */

    enum smtp_client_event_type last;
    bool over;
    char last_out;
    struct buf events, output;
};

static const char body[] = "Subject: x\r\n\r\n.\r\n..\r\n.\n\r.\ra\r\n.";

static void begin(struct app *a)
{
    struct str all[MAX_RECIPIENTS];
    struct smtp_client_mail mail = { .sender = STR("a@x.example"), .recipients = all };

    /* Some in other domains; as many as the host takes. */
    const struct smtp_limits *l = &smtp_client_caps(a->client)->limits;
    CHECK(smtp_client_spent(a->client) == (l->mailmax && a->mails >= l->mailmax));
    for (size_t i = 0; i < a->n_recipients; i++) {
        struct str to = i % 3 == 2 ? STR("b@Y.example")
                        : i % 3    ? STR("b@z")
                                   : STR("\"b c\"@y.example");
        if (smtp_client_admit(a->client, to, mail.n_recipients))
            all[mail.n_recipients++] = to;
    }
    CHECK(mail.n_recipients > 0 && (!l->rcptmax || mail.n_recipients <= l->rcptmax));
    a->n = mail.n_recipients;
    mail.requiretls = a->tls && smtp_client_caps(a->client)->requiretls;
    a->bdat = mail.bdat = smtp_client_caps(a->client)->chunking;
    mail.size = a->bdat ? sizeof(body) - 1 : a->n_recipients * 1000;
    mail.smtputf8 = a->utf8;
    mail.by = (struct smtp_by){ a->utf8 ? SMTP_BY_NOTIFY : SMTP_BY_RETURN, a->lmtp, 60 };
    mail.priority = a->utf8 ? -9 : 9;
    mail.body = a->utf8 ? SMTP_BODY_8BITMIME : SMTP_BODY_7BIT;
    int r = smtp_client_begin(a->client, &mail);
    if (r < 0) {
        const struct smtp_client_caps *caps = smtp_client_caps(a->client);

        CHECK((r == -EMSGSIZE && caps->size && caps->size_limit < mail.size) ||
              (r == -EDQUOT && smtp_client_spent(a->client)) ||
              (r == -EOPNOTSUPP && a->utf8 && !(caps->smtputf8 && caps->eightbit)));
        smtp_client_quit(a->client);
        return;
    }
    CHECK(!a->required || a->tls);
    a->mails++;
    a->open = true;
    a->need_body = a->body_given = a->ended = false;
    a->told = a->accepted = a->results = 0;
}

static void give_body(struct app *a)
{
    size_t step = a->bytewise ? 1 : sizeof(body) - 1;

    for (size_t at = 0; at < sizeof(body) - 1; at += step)
        CHECK(smtp_client_body(a->client, body + at, step) == 0);
    CHECK(smtp_client_body_end(a->client) == 0);
    a->body_given = true;
}

static void act(struct app *a)
{
    switch (a->last) {
    case SMTP_CLIENT_READY:
        if (a->messages-- > 0)
            begin(a);
        else
            smtp_client_quit(a->client);
        break;
    case SMTP_CLIENT_STARTTLS:
        smtp_client_tls_started(a->client);
        a->tls = true;
        break;
    case SMTP_CLIENT_NEED_BODY: give_body(a); break;
    default: return;
    }
    a->last = 0;
}

static void check_event(struct app *a, const struct smtp_client_event *ev)
{
    CHECK(!a->over);
    switch (ev->type) {
    case SMTP_CLIENT_READY: CHECK(!a->open && (!a->required || a->tls)); break;
    case SMTP_CLIENT_STARTTLS: CHECK(!a->tls && !a->open); break;
    case SMTP_CLIENT_MAIL_RESULT:
        CHECK(a->open && a->told == 0 && !a->ended && ev->reply.code >= 400);
        a->ended = true;
        break;
    case SMTP_CLIENT_RCPT_RESULT:
        CHECK(a->open && !a->ended && ev->index == a->told++ && a->told <= a->n);
        a->accepted += smtp_reply_positive(&ev->reply);
        break;
    case SMTP_CLIENT_NEED_BODY:
        CHECK(a->open && a->accepted && a->told == a->n && !a->need_body);
        a->need_body = true;
        break;
    case SMTP_CLIENT_RESULT:
        CHECK(a->open && a->accepted && a->need_body == a->body_given);
        CHECK(a->body_given || ev->reply.code >= 400);
        CHECK((ev->index == SIZE_MAX) == !(a->lmtp && a->body_given));
        a->results++;
        break;
    case SMTP_CLIENT_TRANSACTION_DONE:
        CHECK(a->open);
        CHECK(a->ended || (a->told == a->n &&
                           a->results == (a->lmtp && a->body_given ? a->accepted : !!a->accepted)));
        a->open = false;
        break;
    case SMTP_CLIENT_FAILED:
        CHECK((ev->reply.code == 0) == (ev->error < 0));
        CHECK(ev->reply.code == 0 || ev->reply.code >= 400);
        CHECK(smtp_client_output(a->client).n == 0);
        a->over = true;
        break;
    case SMTP_CLIENT_CLOSE: a->over = true; break;
    }
    a->last = ev->type;
}

static void note_event(struct app *a, const struct smtp_client_event *ev)
{
    buf_printf(&a->events, "%d %d %zd %d %u %u.%u.%u ", ev->type, ev->stage, (ssize_t)ev->index,
               ev->error, ev->reply.code, ev->reply.enhanced.class_, ev->reply.enhanced.subject,
               ev->reply.enhanced.detail);
    buf_add_str(&a->events, ev->reply.text);
    buf_add_char(&a->events, '\n');
}

static void take_output(struct app *a)
{
    struct str out;

    while ((out = smtp_client_output(a->client)).n) {
        if (a->bytewise)
            out.n = 1;
        for (size_t i = 0; i < out.n; i++) {
            CHECK(a->bdat || (a->last_out == '\r') == (out.p[i] == '\n'));
            a->last_out = out.p[i];
        }
        buf_add_str(&a->output, out);
        smtp_client_sent(a->client, out.n);
    }
}

static void drain(struct app *a)
{
    struct smtp_client_event ev;
    int r;

    take_output(a);
    while ((r = smtp_client_next(a->client, &ev)) == 1) {
        check_event(a, &ev);
        note_event(a, &ev);
        take_output(a);
    }
    take_output(a);
    CHECK(a->over ? r == -EPIPE : r == 0);
}

static void burst(struct app *a, struct str bytes)
{
    size_t step = a->bytewise ? 1 : bytes.n;

    for (; bytes.n; bytes = str_from(bytes, step)) {
        size_t n = smtp_client_feed(a->client, bytes.p, step);
        CHECK(n == (a->over ? 0 : step));
        drain(a);
    }
    act(a);
    drain(a);
}

static void run(struct app *a, uint8_t flags, uint8_t numbers, struct str server)
{
    struct smtp_client_options opt = { .hostname = STR("me.example") };
    struct str bytes;

    a->lmtp = opt.lmtp = flags & 1;
    a->tls = opt.tls = (flags & 6) == 6;
    opt.starttls = (enum smtp_client_tls)((flags >> 3 & 3) % 3);
    a->required = opt.starttls == SMTP_TLS_REQUIRED;
    a->utf8 = flags & 32;
    if (flags & 64) {
        opt.user = STR("user");
        opt.password = STR("pencil");
        opt.nonce = STR("rOprNGfwEbeRWgbNEkqO");
        opt.auth_in_clear = flags & 128;
    }
    a->n_recipients = numbers % MAX_RECIPIENTS + 1;
    a->messages = numbers / MAX_RECIPIENTS % 5;
    a->client = smtp_client_new(&opt);
    CHECK(a->client);
    buf_init(&a->events, 0);
    buf_init(&a->output, 0);
    while (str_cut(&server, BURST_END, &bytes))
        burst(a, bytes);
    smtp_client_lost(a->client, -ECONNRESET);
    drain(a);
    CHECK(a->over);
    a->client = smtp_client_free(a->client);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct app whole = { 0 }, bytewise = { .bytewise = true };
    struct str server;

    if (size < 2)
        return 0;
    server = str_make(data + 2, size - 2);
    run(&whole, data[0], data[1], server);
    run(&bytewise, data[0], data[1], server);
    CHECK(str_cmp(buf_str(&whole.events), buf_str(&bytewise.events)) == 0);
    /* What was not sent yet when it failed is dropped. */
    CHECK(str_starts(buf_str(&bytewise.output), buf_str(&whole.output)));
    buf_done(&whole.events);
    buf_done(&whole.output);
    buf_done(&bytewise.events);
    buf_done(&bytewise.output);
    return 0;
}
