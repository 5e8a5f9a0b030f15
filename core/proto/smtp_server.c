/* smtp_server.c - the life of a server session: bytes in, lines, the table of verbs, events out.
 *
 * Layer: proto. Interface: smtp_server.h; the map of the files: smtp_server_impl.h.
 *
 * Limits: a command line is buffered up to SERVER_LONGEST_LINE octets, then drained; past
 * SERVER_ENDLESS_LINE the session closes. Input waits in one buffer of SERVER_INPUT octets, which
 * is given back when it is empty. What the peer wrote is never echoed.
 */
#include "proto/smtp_server_impl.h"

/* ---- verbs of a few lines ---- */

static enum step on_rset(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    if (server_in(s, IN_TRANSACTION))
        server_end_transaction(s, true);
    return server_reply(s, 250, ENH(2, 0, 0), "OK");
}

static enum step on_noop(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    return server_reply(s, 250, ENH(2, 0, 0), "OK");
}

static enum step on_quit(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    return server_reply_close(s, 221, ENH(2, 0, 0), "Bye", "quit");
}

static enum step on_vrfy(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    if (arg.n == 0)
        return server_reply(s, 501, ENH(5, 5, 4), "Syntax: VRFY address");
    return server_reply(s, 252, ENH(2, 0, 0), "Cannot verify, but will accept and try to deliver");
}

static enum step on_starttls(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    if (s->tls)
        return server_reply(s, 503, ENH(5, 5, 1), "TLS is active already");
    if (server_talked_early(s)) /* it would be plaintext that passes for ciphertext */
        return server_reply_close(s, 554, ENH(5, 5, 0), "Commands behind STARTTLS",
                                  "commands behind STARTTLS");
    return server_ask(s, SMTP_SERVER_STARTTLS, ret);
}

/* For the list of HELP: the line itself goes to server_on_bdat, which reads the length before all
 * else. */
static enum step on_bdat(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    return server_on_bdat(s, arg);
}

static enum step on_http(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    return server_reply_close(s, 554, ENH(5, 7, 0), "This is an SMTP server", "HTTP request");
}

/* A command that is known, and none of ours, or not here: 502, by RFC 5321 §4.2.4 (500 is for what nobody knows). */
static enum step on_not_offered(struct smtp_server *s, struct str arg,
                                struct smtp_server_event *ret)
{
    return server_reply(s, 502, ENH(5, 5, 1), "Command not implemented");
}

/* ---- the table ---- */

enum {
    NO_ARG = 1,
    NEEDS_TLS = 2,
    IF_ETRN = 4,
    IF_STARTTLS = 8,
    HIDDEN = 16,
    IF_AUTH = 32,
    NEEDS_AUTH = 64,
    IF_ATRN = 128,
    IF_MAIL = 256, /* not where only ATRN is served */
    IF_XCLIENT = 512,
    IF_CHUNKING = 1024,
    IF_SMTP = 2048,
    IF_LMTP = 4096,
};

/* Octets by which extensions lengthen the line: SIZE 26, 8BITMIME 17, SMTPUTF8 10. AUTH lengthens
 * MAIL by 500, where it is offered; to AUTH itself as much is given: a name and a password of 255
 * octets fit. */
enum { MAIL_EXTRA = 26 + 17 + 10, VRFY_EXTRA = 10, AUTH_EXTRA = 500 };
enum { ANY_LENGTH = SERVER_ENDLESS_LINE };
/* Of DSN, where it is offered: ORCPT alone may have 500, NOTIFY comes beside it. */
enum { MAIL_DSN_EXTRA = 107, RCPT_DSN_EXTRA = 550 };
enum { MAIL_REQUIRETLS_EXTRA = 11 }; /* RFC 8689 section 2 */
/* " BY=-999999999;RT", " HOLDUNTIL=2026-12-01T07:30:00.000+01:00", " MT-PRIORITY=-9", where they are offered. RFC 4865
 * gives 34 octets, which are few for a date with its zone. */
enum { BY_EXTRA = 17, HOLD_EXTRA = 48, PRIORITY_EXTRA = 15 };

struct verb {
    const char *name;
    unsigned legal; /* states; elsewhere 503 */
    server_verb *on;
    unsigned flags, extra;
};

static server_verb on_help;

static const struct verb verbs[] = {
    /* clang-format off */
    { "RCPT",     IN(MAIL) | IN(RCPT), server_on_rcpt, NEEDS_TLS, 0 },
    { "MAIL",     IN(READY),           server_on_mail, NEEDS_TLS | NEEDS_AUTH | IF_MAIL, MAIL_EXTRA },
    { "DATA",     IN(RCPT),            server_on_data, NEEDS_TLS | NO_ARG, 0 },
    { "EHLO",     IN_ANY,              server_on_ehlo, IF_SMTP, 0 },
    { "HELO",     IN_ANY,              server_on_helo, IF_SMTP, 0 },
    { "LHLO",     IN_ANY,              server_on_lhlo, IF_LMTP, 0 },
    { "RSET",     IN_ANY,              on_rset,        NO_ARG, 0 },
    { "NOOP",     IN_ANY,              on_noop,        0, 0 },
    { "QUIT",     IN_ANY,              on_quit,        NO_ARG, 0 },
    { "HELP",     IN_ANY,              on_help,        0, 0 },
    { "VRFY",     IN_ANY,              on_vrfy,        NEEDS_TLS, VRFY_EXTRA },
    { "ETRN",     IN(READY),           server_on_etrn, NEEDS_TLS | IF_ETRN, 0 },
    { "ATRN",     IN(READY),           server_on_atrn, NEEDS_TLS | IF_ATRN, 0 },
    { "STARTTLS", IN(READY),           on_starttls,    NO_ARG | IF_STARTTLS, 0 },
    { "AUTH",     IN(READY),           server_on_auth, NEEDS_TLS | IF_AUTH, AUTH_EXTRA },
    { "BDAT",     IN_ANY,              on_bdat,        IF_CHUNKING, 0 },
    { "EXPN",     IN_ANY,              on_not_offered, HIDDEN, 0 },
    { "TURN",     IN_ANY,              on_not_offered, HIDDEN, 0 },
    { "SEND",     IN_ANY,              on_not_offered, HIDDEN, 0 },
    { "SOML",     IN_ANY,              on_not_offered, HIDDEN, 0 },
    { "SAML",     IN_ANY,              on_not_offered, HIDDEN, 0 },
    { "BURL",     IN_ANY,              on_not_offered, HIDDEN, 0 },
    { "XCLIENT",  IN(HELO) | IN(READY), server_on_xclient, IF_XCLIENT, 0 },
    { "XFORWARD", IN_ANY,              on_not_offered, HIDDEN, 0 },
    { "GET",      IN_ANY,              on_http,        HIDDEN, ANY_LENGTH },
    { "POST",     IN_ANY,              on_http,        HIDDEN, ANY_LENGTH },
    { "PUT",      IN_ANY,              on_http,        HIDDEN, ANY_LENGTH },
    { "HEAD",     IN_ANY,              on_http,        HIDDEN, ANY_LENGTH },
    { "CONNECT",  IN_ANY,              on_http,        HIDDEN, ANY_LENGTH },
    { "OPTIONS",  IN_ANY,              on_http,        HIDDEN, ANY_LENGTH },
    { "DELETE",   IN_ANY,              on_http,        HIDDEN, ANY_LENGTH },
    { "PATCH",    IN_ANY,              on_http,        HIDDEN, ANY_LENGTH },
    { "TRACE",    IN_ANY,              on_http,        HIDDEN, ANY_LENGTH },
    { "PRI",      IN_ANY,              on_http,        HIDDEN, ANY_LENGTH },
    /* clang-format on */
};

static const struct verb *find_verb(struct str name)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        if (str_caseeq(name, str_of(verbs[i].name)))
            return &verbs[i];
    return NULL;
}

static bool is_offered(const struct smtp_server *s, const struct verb *v)
{
    if (v->flags & IF_ETRN)
        return s->opt.etrn;
    if (v->flags & IF_ATRN)
        return s->opt.atrn;
    if (v->flags & IF_MAIL)
        return !s->opt.atrn;
    if (v->flags & IF_AUTH)
        return s->opt.mechanisms != 0;
    if (v->flags & IF_XCLIENT)
        return s->opt.xclient;
    if (v->flags & IF_CHUNKING)
        return s->opt.chunking;
    if (v->flags & IF_SMTP)
        return !s->opt.lmtp;
    if (v->flags & IF_LMTP)
        return s->opt.lmtp;
    if (v->flags & IF_STARTTLS)
        return s->opt.starttls || s->tls; /* inside TLS the handler says why not */
    return true;
}

static enum step on_help(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    buf_printf(&s->out, "214 2.0.0 Commands:");
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        if (!(verbs[i].flags & HIDDEN) && is_offered(s, &verbs[i]))
            buf_printf(&s->out, " %s", verbs[i].name);
    buf_add(&s->out, "\r\n", 2);
    return STEP_AGAIN;
}

/* ---- replying and asking ---- */

void server_write(struct smtp_server *s, const struct smtp_reply *reply)
{
    smtp_reply_write(reply, &s->out);
}

enum step server_reply(struct smtp_server *s, uint16_t code, struct smtp_enhanced e,
                       const char *text)
{
    server_write(s, &(struct smtp_reply){ code, e, str_of(text) });
    if (code >= 500)
        server_count_error(s);
    return STEP_AGAIN;
}

enum step server_reply_close(struct smtp_server *s, uint16_t code, struct smtp_enhanced e,
                             const char *text, const char *why)
{
    server_write(s, &(struct smtp_reply){ code, e, str_of(text) });
    server_close(s, why);
    return STEP_AGAIN;
}

void server_write_finals(struct smtp_server *s, uint32_t n, uint16_t code, struct smtp_enhanced e,
                         const char *text)
{
    for (uint32_t i = 0; i == 0 || (s->opt.lmtp && i < n); i++)
        server_write(s, &(struct smtp_reply){ code, e, str_of(text) });
}

enum step server_refuse_message(struct smtp_server *s, uint32_t n, uint16_t code,
                                struct smtp_enhanced e, const char *text)
{
    server_write_finals(s, n, code, e, text);
    server_count_error(s);
    return STEP_AGAIN;
}

void server_count_error(struct smtp_server *s)
{
    s->errors++;
    if (s->opt.max_errors && s->errors >= s->opt.max_errors && !s->close_why)
        server_reply_close(s, 421, ENH(4, 7, 0), "Too many errors", "too many errors");
}

void server_close(struct smtp_server *s, const char *why)
{
    if (s->close_why)
        return;
    if (server_in(s, IN_TRANSACTION)) /* of a bad message RESET is told, or due, already */
        server_end_transaction(s, s->state != SERVER_DATA || !s->bad);
    s->close_why = why;
    s->ticket = 0;
    buf_clear(&s->in);
    s->line_dropped = 0;
}

void server_end_transaction(struct smtp_server *s, bool tell)
{
    s->state = SERVER_READY;
    if (tell)
        s->reset_due = true;
    s->recipients = s->overshoot = 0;
    s->rcpt_seen = s->smtputf8 = s->binary = false;
}

enum step server_ask(struct smtp_server *s, enum smtp_server_event_type type,
                     struct smtp_server_event *ret)
{
    if (++s->last_ticket == 0)
        s->last_ticket = 1;
    s->ticket = s->last_ticket;
    s->asked = (uint8_t)type;
    ret->type = type;
    ret->ticket = s->ticket;
    return STEP_EVENT;
}

/* ---- lines ---- */

enum line { LINE_NONE, LINE_OK, LINE_LONG, LINE_HTTP, LINE_BDAT, LINE_BARE, LINE_ENDLESS };

static const struct verb *verb_of(struct str line)
{
    ptrdiff_t space = str_chr(line, ' ');

    return find_verb(space < 0 ? str_trim(line) : str_first(line, (size_t)space));
}

/* Of an overlong line: what its beginning makes of it. */
static enum line overlong(struct str line)
{
    const struct verb *v = verb_of(str_first(line, SERVER_LONGEST_LINE));

    return v && v->on == on_http ? LINE_HTTP : server_is_bdat(line) ? LINE_BDAT : LINE_LONG;
}

/* No end in sight: lets go of what has come, but for a CR whose LF may follow. */
static enum line drop_part(struct smtp_server *s, struct str in)
{
    size_t n = in.n - (in.p[in.n - 1] == '\r');

    if (memchr(in.p, '\r', n))
        s->line_bare = true;
    if (s->line_dropped == 0)
        s->line_is = (uint8_t)overlong(in);
    s->line_dropped += (uint32_t)n;
    buf_consume(&s->in, n);
    return LINE_NONE;
}

static size_t longest_line(const struct smtp_server *s)
{
    if (s->state == SERVER_AUTH)
        return SERVER_AUTH_LINE;
    return s->opt.mechanisms ? SERVER_LONGEST_AUTH : SERVER_LONGEST_LINE;
}

/* Takes the next line, without its CRLF, off the input. The same bytes give the same result however
 * they are cut. */
static enum line take_line(struct smtp_server *s, struct str *ret)
{
    struct str in = buf_str(&s->in);

    if (!in.p || in.n == 0)
        return LINE_NONE;

    const char *lf = memchr(in.p, '\n', in.n);
    size_t n = lf ? (size_t)(lf - in.p) : in.n;

    if (s->line_dropped + n > SERVER_ENDLESS_LINE)
        return LINE_ENDLESS;
    if (!lf)
        return n > longest_line(s) ? drop_part(s, in) : LINE_NONE;

    bool bare = s->line_bare || n == 0 || lf[-1] != '\r' || memchr(in.p, '\r', n - 1);
    bool is_long = s->line_dropped + n > longest_line(s);
    enum line what = s->line_dropped ? (enum line)s->line_is : is_long ? overlong(in) : LINE_OK;
    s->line_dropped = 0;
    s->line_bare = false;
    buf_consume(&s->in, n + 1);
    if (bare)
        return LINE_BARE;
    if (is_long)
        return what;
    *ret = str_first(in, n - 1);
    return LINE_OK;
}

/* ---- the dispatcher ---- */

static enum step wrong_order(struct smtp_server *s, const struct verb *v)
{
    bool data = v->on == server_on_data;

    if (data && s->rcpt_seen && s->state != SERVER_BDAT) /* RFC 2033 §4.2: 503 */
        return server_reply(s, s->opt.lmtp ? 503 : 554, ENH(5, 5, 1), "No valid recipients");
    if (s->state == SERVER_HELO)
        return server_reply(s, 503, ENH(5, 5, 1),
                            s->opt.lmtp ? "Send LHLO first" : "Send EHLO first");
    return server_reply(s, 503, ENH(5, 5, 1),
                        s->state == SERVER_READY          ? "Send MAIL first"
                        : data && s->state == SERVER_BDAT ? "The message comes by BDAT"
                        : data                            ? "Send RCPT first"
                                                          : "Not allowed in a transaction");
}

/* By EHLO or LHLO a client is found that takes us for what we are not (RFC 2033 §4.1). The command is
 * known, and not served here: 502 (RFC 5321 §4.2.4). */
static enum step wrong_protocol(struct smtp_server *s)
{
    return server_reply(s, 502, ENH(5, 5, 1),
                        s->opt.lmtp ? "This is LMTP: send LHLO" : "This is SMTP: send EHLO");
}

static size_t longest_of(const struct smtp_server *s, const struct verb *v)
{
    size_t longest = SMTP_MAX_COMMAND_LINE + v->extra;

    if (v->on == server_on_mail)
        longest += (s->opt.mechanisms ? AUTH_EXTRA : 0u) + (s->opt.dsn ? MAIL_DSN_EXTRA : 0u) +
                   (s->opt.requiretls ? MAIL_REQUIRETLS_EXTRA : 0u) +
                   (s->opt.deliver_by ? BY_EXTRA : 0u) + (s->opt.hold_max_s ? HOLD_EXTRA : 0u) +
                   (s->opt.priority ? PRIORITY_EXTRA : 0u);
    if (v->on == server_on_rcpt && s->opt.dsn)
        longest += RCPT_DSN_EXTRA;
    return longest;
}

static enum step run_verb(struct smtp_server *s, const struct verb *v, struct str line,
                          struct smtp_server_event *ret)
{
    struct str arg = str_trim(str_from(line, strlen(v->name)));

    if (line.n + 2 > longest_of(s, v))
        return server_reply(s, 500, ENH(5, 5, 2), "Line too long");
    if (v->on == server_on_xclient && !s->opt.xclient)
        return server_reply(s, 550, ENH(5, 7, 1), "Insufficient authorization");
    if (!is_offered(s, v))
        return v->flags & (IF_SMTP | IF_LMTP) ? wrong_protocol(s) : on_not_offered(s, arg, ret);
    if (v->flags & NEEDS_TLS && s->opt.require_tls && !s->tls)
        return server_reply(s, 530, ENH(5, 7, 0), "Must issue a STARTTLS command first");
    if (v->flags & NEEDS_AUTH && s->opt.require_auth && !s->authenticated)
        return server_reply(s, 530, ENH(5, 7, 0), "Authentication required");
    if (!server_in(s, v->legal))
        return wrong_order(s, v);
    if (v->flags & NO_ARG && arg.n > 0)
        return server_reply(s, 501, ENH(5, 5, 4), "No argument is allowed here");
    return v->on(s, arg, ret);
}

/* What is no command at all. Behind a refused DATA it is the message that came nevertheless. */
static enum step not_a_command(struct smtp_server *s, bool after_data, const char *text)
{
    if (after_data)
        return server_reply_close(s, 421, ENH(4, 7, 0), "Message text after a refused DATA",
                                  "message text after a refused DATA");
    return server_reply(s, 500, ENH(5, 5, 2), text);
}

static enum step run_line(struct smtp_server *s, struct str line, struct smtp_server_event *ret)
{
    bool after_data = s->data_refused;
    const struct verb *v = verb_of(line);

    s->data_refused = false;
    if (server_is_bdat(line))
        return server_on_bdat(s, line);
    s->chunks_dead = false;
    if (str_chr(line, '\0') >= 0)
        return not_a_command(s, after_data, "NUL in a command");
    if (!v)
        return not_a_command(s, after_data, "Command not recognized");

    enum step step = run_verb(s, v, line, ret);
    if (v->on == server_on_data && step != STEP_EVENT)
        server_refused_data(s);
    return step;
}

/* Behind a greeting with 554 (RFC 5321 §3.1). */
static enum step refused_line(struct smtp_server *s, struct str line, bool whole,
                              struct smtp_server_event *ret)
{
    if (whole && str_caseeq(str_trim(line), STR("QUIT")))
        return on_quit(s, STR(""), ret);
    return server_reply(s, 503, ENH(5, 5, 1), "You are not served here: QUIT");
}

static enum step command(struct smtp_server *s, struct smtp_server_event *ret)
{
    struct str line = STR_NONE;
    enum line found = take_line(s, &line);

    if (found == LINE_NONE)
        return STEP_WAIT;
    if (found == LINE_ENDLESS)
        return server_reply_close(s, 500, ENH(5, 5, 2), "Line too long", "endless command line");
    if (found == LINE_HTTP)
        return on_http(s, line, ret);
    if (found == LINE_BARE)
        return server_reply_close(s, 500, ENH(5, 5, 2), "Lines must end in CRLF",
                                  "bare CR or LF in a command");
    s->commands++;
    if (s->opt.max_commands && s->commands > s->opt.max_commands)
        return server_reply_close(s, 421, ENH(4, 7, 0), "Too many commands", "too many commands");
    if (s->state == SERVER_REFUSED)
        return refused_line(s, line, found == LINE_OK, ret);
    if (s->state == SERVER_AUTH)
        return server_auth_line(s, line, found != LINE_OK, ret);
    if (found == LINE_BDAT)
        return server_on_bdat(s, STR("BDAT"));
    if (found == LINE_LONG) {
        bool after_data = s->data_refused;
        s->data_refused = false;
        return not_a_command(s, after_data, "Line too long");
    }
    return run_line(s, line, ret);
}

static enum step step(struct smtp_server *s, struct smtp_server_event *ret)
{
    if (s->reset_due) {
        s->reset_due = false;
        ret->type = SMTP_SERVER_RESET;
        return STEP_EVENT;
    }
    if (s->auth_end_due && !s->close_why) {
        s->auth_end_due = false;
        ret->type = SMTP_SERVER_AUTH_END;
        return STEP_EVENT;
    }
    if (s->close_why) {
        s->closed = true;
        ret->type = SMTP_SERVER_CLOSE;
        ret->close.why = s->close_why;
        return STEP_EVENT;
    }
    if (s->state == SERVER_CONNECT)
        return server_ask(s, SMTP_SERVER_CONNECT, ret);
    if (s->state == SERVER_TLS)
        return STEP_WAIT;
    if (s->in_chunk)
        return server_chunk(s, ret);
    return s->state == SERVER_DATA ? server_body(s, ret) : command(s, ret);
}

/* An idle session holds no buffers. */
static void let_go(const struct smtp_server *s, struct buf *b)
{
    if (b->cap > SERVER_KEPT_BLOCK || !server_in(s, IN_TRANSACTION))
        buf_shrink(b);
}

int smtp_server_next(struct smtp_server *s, struct smtp_server_event *ret)
{
    struct smtp_server_event event = { 0 };
    enum step did = STEP_AGAIN;

    if (s->closed)
        return -EPIPE;
    if (s->ticket)
        return 0;
    while (did == STEP_AGAIN && !s->failed) {
        did = step(s, &event);
        if (s->out.failed)
            s->failed = -ENOMEM;
    }
    if (s->failed)
        return s->failed;
    if (did == STEP_EVENT) {
        *ret = event;
        return 1;
    }
    let_go(s, &s->in);
    return 0;
}

/* ---- life ---- */

struct smtp_server *smtp_server_new(const struct smtp_server_options *opt)
{
    struct smtp_server *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    buf_init(&s->in, SERVER_INPUT);
    buf_init(&s->out, SERVER_OUTPUT);
    smtp_server_set_options(s, opt);
    return s;
}

struct smtp_server *smtp_server_free(struct smtp_server *s)
{
    if (s) {
        buf_done(&s->in);
        buf_done(&s->out);
        free(s);
    }
    return NULL;
}

void smtp_server_set_options(struct smtp_server *s, const struct smtp_server_options *opt)
{
    s->opt = *opt;
    s->opt.binarymime = opt->binarymime && opt->chunking;
    s->opt.max_recipients = MAX(s->opt.max_recipients, (uint32_t)SERVER_MIN_RECIPIENTS);
    /* The replies to a message come all at once, and may not be what ends the session. */
    s->out.max = SERVER_OUTPUT;
    if (s->opt.lmtp)
        s->out.max += (size_t)s->opt.max_recipients * SERVER_OUTPUT_EACH;
    if (opt->tls)
        s->tls = true;
}

size_t smtp_server_feed(struct smtp_server *s, const void *bytes, size_t n)
{
    if (s->failed || s->close_why)
        return n; /* nobody will read it */
    if (s->state == SERVER_TLS)
        return 0;
    n = MIN(n, SERVER_INPUT - buf_len(&s->in));
    if (buf_add(&s->in, bytes, n) < 0)
        s->failed = -ENOMEM;
    return n;
}

void smtp_server_stop(struct smtp_server *s, const struct smtp_reply *reply, const char *why)
{
    if (s->close_why)
        return;
    if (reply)
        server_write(s, reply);
    server_close(s, why);
}

struct str smtp_server_output(const struct smtp_server *s)
{
    return buf_str(&s->out);
}

void smtp_server_sent(struct smtp_server *s, size_t n)
{
    buf_consume(&s->out, n);
    let_go(s, &s->out);
}

void smtp_server_tls_started(struct smtp_server *s)
{
    CHECK(s->state == SERVER_TLS);
    buf_clear(&s->in);
    buf_shrink(&s->in);
    s->state = SERVER_HELO;
    s->tls = true;
    s->extended = s->authenticated = s->xclient_login = false;
}

bool smtp_server_in_data(const struct smtp_server *s)
{
    return (s->state == SERVER_DATA || s->in_chunk) && !s->ticket;
}

bool smtp_server_refused(const struct smtp_server *s)
{
    return s->state == SERVER_REFUSED;
}

bool smtp_server_buffered(const struct smtp_server *s)
{
    return buf_len(&s->in) > 0 || s->line_dropped > 0;
}
