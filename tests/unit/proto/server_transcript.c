/* server_transcript.c - reading and replaying transcripts; see server_transcript.h.
 *
 * The file becomes a list of steps. A step is what the client does (bytes, handshake, stop) and
 * what is expected of it: the events and the output as two texts. Replaying makes the same two
 * texts.
 */
#include "server_transcript.h"

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>

#include "base/buf.h"
#include "proto/smtp_server.h"

enum { MAX_STEPS = 400, MAX_ANSWERS = 400, MAX_WORK = 12 << 20 };

struct answer {
    size_t step; /* from this step on */
    enum smtp_server_event_type event;
    struct smtp_reply reply;
};

struct step {
    struct buf client, events, output;
    bool tls_started, stop;
    struct smtp_reply stop_reply;
    char *stop_why;
};

struct transcript {
    const char *path;
    struct str title;
    struct smtp_server_options opt;
    bool only_whole;
    struct step steps[MAX_STEPS];
    size_t n_steps;
    struct answer answers[MAX_ANSWERS];
    size_t n_answers;
};

/* ---- reading ---- */

static const char *const event_names[] = {
    [SMTP_SERVER_CONNECT] = "CONNECT",
    [SMTP_SERVER_HELO] = "HELO",
    [SMTP_SERVER_MAIL] = "MAIL",
    [SMTP_SERVER_RCPT] = "RCPT",
    [SMTP_SERVER_DATA] = "DATA",
    [SMTP_SERVER_BODY] = "BODY",
    [SMTP_SERVER_END] = "END",
    [SMTP_SERVER_RESET] = "RESET",
    [SMTP_SERVER_STARTTLS] = "STARTTLS",
    [SMTP_SERVER_ETRN] = "ETRN",
    [SMTP_SERVER_ATRN] = "ATRN",
    [SMTP_SERVER_AUTH] = "AUTH",
    [SMTP_SERVER_AUTH_RESPONSE] = "RESPONSE",
    [SMTP_SERVER_AUTH_END] = "AUTH_END",
    [SMTP_SERVER_XCLIENT] = "XCLIENT",
    [SMTP_SERVER_CLOSE] = "CLOSE",
};

static void bad_line(const struct transcript *t, struct str line)
{
    fail_msg("%s: cannot read: " STR_FMT, t->path, STR_ARG(line));
}

static int hex_value(char c)
{
    return ascii_digit(c) ? c - '0' : ascii_lower(c) - 'a' + 10;
}

/* Adds text with its escapes resolved. */
static void add_unescaped(struct buf *out, struct str text, unsigned number)
{
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (c != '\\' || i + 1 == text.n) {
            buf_add_char(out, c);
            continue;
        }
        c = text.p[++i];
        if (c == '{') {
            struct str rest = str_from(text, i + 1), count, unit;
            uint64_t n;
            size_t before = rest.n;
            assert_true(str_cut(&rest, ':', &count) && str_cut(&rest, '}', &unit));
            assert_int_equal(str_to_u64(count, &n), 0);
            for (; n > 0; n--)
                add_unescaped(out, unit, number);
            i += before - rest.n;
        } else if (c == 'x') {
            assert_true(i + 2 < text.n);
            buf_add_char(out, (char)(hex_value(text.p[i + 1]) * 16 + hex_value(text.p[i + 2])));
            i += 2;
        } else if (c == '#') {
            buf_printf(out, "%u", number);
        } else {
            buf_add_char(out, c == 'r'   ? '\r'
                              : c == 'n' ? '\n'
                              : c == 't' ? '\t'
                              : c == '0' ? '\0'
                                         : c);
        }
    }
}

/* Octets of a message in one printable line each. */
static void add_octets(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '\n')
            buf_add_str(out, STR("\\n\n"));
        else if (c < 32 || c > 126)
            buf_printf(out, "\\x%02x", c);
        else
            buf_add_char(out, s.p[i]);
    }
}

/* An event, or octets, end the line before if it was octets without a line's end. */
static void begin_event(struct buf *events)
{
    struct str s = buf_str(events);
    if (s.n > 0 && s.p[s.n - 1] != '\n')
        buf_add_char(events, '\n');
}

static struct smtp_reply read_reply(const struct transcript *t, struct str text)
{
    struct smtp_reply reply = { 0 };
    struct str word;
    uint64_t code = 0;

    if (!str_cut(&text, ' ', &word) || str_to_u64(word, &code) < 0)
        bad_line(t, text);
    reply.code = (uint16_t)code;
    reply.text = text;
    if (text.p && str_cut(&text, ' ', &word) && smtp_enhanced_parse(word, &reply.enhanced) == 0)
        reply.text = text;
    return reply;
}

static void read_answer(struct transcript *t, struct str text, bool ahead)
{
    struct answer *a = &t->answers[t->n_answers++];
    struct str kind;

    assert_true(t->n_answers < MAX_ANSWERS && str_cut(&text, ' ', &kind));
    for (size_t i = SMTP_SERVER_CONNECT; i <= SMTP_SERVER_CLOSE; i++)
        if (str_eq(kind, str_of(event_names[i])))
            a->event = (enum smtp_server_event_type)i;
    if (!a->event)
        bad_line(t, kind);
    a->reply = read_reply(t, text);
    a->step = t->n_steps - 1 + ahead;
}

static void read_options(struct transcript *t, struct str text)
{
    struct str word, key;
    uint64_t v;

    while (str_cut(&text, ' ', &word)) {
        if (!str_cut(&word, '=', &key) || str_to_u64(word, &v) < 0)
            bad_line(t, key);
        if (str_eq(key, STR("size")))
            t->opt.size_limit = v;
        else if (str_eq(key, STR("recipients")))
            t->opt.max_recipients = (uint32_t)v;
        else if (str_eq(key, STR("errors")))
            t->opt.max_errors = (uint32_t)v;
        else if (str_eq(key, STR("commands")))
            t->opt.max_commands = (uint32_t)v;
        else if (str_eq(key, STR("starttls")))
            t->opt.starttls = v;
        else if (str_eq(key, STR("require_tls")))
            t->opt.require_tls = v;
        else if (str_eq(key, STR("tls")))
            t->opt.tls = v;
        else if (str_eq(key, STR("dsn")))
            t->opt.dsn = v;
        else if (str_eq(key, STR("xclient")))
            t->opt.xclient = v;
        else if (str_eq(key, STR("lmtp")))
            t->opt.lmtp = v;
        else if (str_eq(key, STR("etrn")))
            t->opt.etrn = v;
        else if (str_eq(key, STR("smtputf8")))
            t->opt.smtputf8 = v;
        else if (str_eq(key, STR("chunking")))
            t->opt.chunking = v;
        else if (str_eq(key, STR("binarymime")))
            t->opt.binarymime = v;
        else if (str_eq(key, STR("requiretls")))
            t->opt.requiretls = v;
        else if (str_eq(key, STR("limits")))
            t->opt.limits = v;
        else if (str_eq(key, STR("messages")))
            t->opt.max_messages = (uint32_t)v;
        else if (str_eq(key, STR("by")))
            t->opt.deliver_by = v;
        else if (str_eq(key, STR("by_min")))
            t->opt.deliver_by_min_s = (uint32_t)v;
        else if (str_eq(key, STR("hold")))
            t->opt.hold_max_s = (uint32_t)v;
        else if (str_eq(key, STR("hold_until")))
            t->opt.hold_max_ms = (int64_t)v;
        else if (str_eq(key, STR("priority")))
            t->opt.priority = v;
        else if (str_eq(key, STR("mixer")))
            t->opt.priority_profile = STR("MIXER");
        else if (str_eq(key, STR("auth")))
            t->opt.mechanisms = (uint32_t)v;
        else if (str_eq(key, STR("clear_auth")))
            t->opt.clear_auth = v;
        else if (str_eq(key, STR("require_auth")))
            t->opt.require_auth = v;
        else if (str_eq(key, STR("auth_failures")))
            t->opt.max_auth_failures = (uint32_t)v;
        else
            bad_line(t, key);
    }
}

static struct step *new_step(struct transcript *t)
{
    assert_true(t->n_steps < MAX_STEPS);
    struct step *st = &t->steps[t->n_steps++];
    buf_init(&st->client, 0);
    buf_init(&st->events, 0);
    buf_init(&st->output, 0);
    return st;
}

static void read_stop(struct transcript *t, struct step *st, struct str text)
{
    struct str reply;

    assert_true(str_cut(&text, '|', &reply));
    st->stop = true;
    st->stop_why = str_dup(str_trim(text));
    if (!str_eq(str_trim(reply), STR("-")))
        st->stop_reply = read_reply(t, str_trim(reply));
}

static void read_expectation(struct step *st, char kind, struct str text, unsigned number)
{
    struct buf octets;

    buf_init(&octets, 0);
    add_unescaped(&octets, text, number);
    switch (kind) {
    case 'S':
        buf_add_str(&st->output, buf_str(&octets));
        buf_add_char(&st->output, '\n');
        break;
    case 'E':
        begin_event(&st->events);
        buf_add_str(&st->events, buf_str(&octets));
        buf_add_char(&st->events, '\n');
        break;
    case 'B': buf_add_str(&octets, STR("\r\n")); /* fall through */
    default: add_octets(&st->events, buf_str(&octets));
    }
    buf_done(&octets);
}

/* "C*12" -> 'C' and 12. */
static char read_kind(const struct transcript *t, struct str s, uint64_t *ret_times)
{
    *ret_times = 1;
    if (s.n == 0 || (s.n > 1 && (s.p[1] != '*' || str_to_u64(str_from(s, 2), ret_times) < 0)))
        bad_line(t, s);
    return s.p[0];
}

static void read_line(struct transcript *t, struct str line, char *last_kind)
{
    struct step *st = &t->steps[t->n_steps - 1];
    struct str head, text = line;
    uint64_t times;

    if (line.n == 0 || *line.p == '#')
        return;
    if (!str_cut(&text, ':', &head) || !text.p)
        bad_line(t, line);
    if (text.n > 0 && *text.p == ' ')
        text = str_from(text, 1);
    char kind = read_kind(t, head, &times);
    bool sends = kind == 'C' || kind == 'c';

    if (sends || kind == 'T' || kind == 'X')
        if (!sends || (*last_kind != 'C' && *last_kind != 'c'))
            st = new_step(t);
    if (kind != 'A')
        *last_kind = kind;
    if (kind == 'O')
        read_options(t, text);
    else if (kind == 'M')
        t->only_whole = true;
    else if (kind == 'A')
        read_answer(t, text, *last_kind && strchr("SEBbTX", *last_kind));
    else if (kind == 'T')
        st->tls_started = true;
    else if (kind == 'X')
        read_stop(t, st, text);
    else if (sends)
        for (unsigned i = 1; i <= times; i++) {
            add_unescaped(&st->client, text, i);
            if (kind == 'C')
                buf_add_str(&st->client, STR("\r\n"));
        }
    else if (strchr("SEBb", kind))
        for (unsigned i = 1; i <= times; i++)
            read_expectation(st, kind, text, i);
    else
        bad_line(t, line);
}

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct buf text;
    char block[4096];
    size_t n;

    assert_non_null(f);
    buf_init(&text, 0);
    while ((n = fread(block, 1, sizeof(block), f)) > 0)
        buf_add(&text, block, n);
    fclose(f);

    char *copy = str_dup(buf_str(&text));
    buf_done(&text);
    assert_non_null(copy);
    return copy;
}

static bool is_title(struct str text)
{
    return str_starts(text, STR("===="));
}

/* Reads one session off the front of *text. NULL: none is left. */
static struct transcript *transcript_read(const char *path, struct str *text)
{
    struct transcript *t;
    struct str line = STR_NONE;
    char last_kind = 0;

    while (!is_title(*text))
        if (!str_cut(text, '\n', &line))
            return NULL;
    t = calloc(1, sizeof(*t));
    assert_non_null(t);
    str_cut(text, '\n', &t->title);
    t->path = strrchr(path, '/') + 1;
    t->opt = (struct smtp_server_options){ .hostname = STR("mx.example"),
                                           .size_limit = 10000,
                                           .max_errors = 20 };
    new_step(t); /* what is expected before the client has said anything */
    while (!is_title(*text) && str_cut(text, '\n', &line))
        read_line(t, line, &last_kind);
    return t;
}

static void transcript_free(struct transcript *t)
{
    for (size_t i = 0; i < t->n_steps; i++) {
        buf_done(&t->steps[i].client);
        buf_done(&t->steps[i].events);
        buf_done(&t->steps[i].output);
        free(t->steps[i].stop_why);
    }
    free(t);
}

/* ---- replaying ---- */

struct how {
    const char *name;
    size_t piece; /* bytes fed at once; 0: all */
    size_t cut;   /* at this point of the whole; 0: nowhere */
    bool late;    /* answers come when nothing more can be fed */
};

struct run {
    const struct transcript *t;
    struct how how;
    struct smtp_server *server;
    size_t step;
    bool used[MAX_ANSWERS];
    struct buf events, output;
    uint32_t ticket; /* that waits for a late answer */
    uint32_t recipients;
    enum smtp_server_event_type asked;
};

struct smtp_reply server_transcript_yes(enum smtp_server_event_type event)
{
    switch (event) {
    case SMTP_SERVER_XCLIENT:
    case SMTP_SERVER_CONNECT: return REPLY(220, ENH_NONE, "ESMTP");
    case SMTP_SERVER_MAIL: return REPLY(250, ENH(2, 1, 0), "sender ok");
    case SMTP_SERVER_RCPT: return REPLY(250, ENH(2, 1, 5), "recipient ok");
    case SMTP_SERVER_DATA: return REPLY(354, ENH_NONE, "go on");
    case SMTP_SERVER_END: return REPLY(250, ENH(2, 0, 0), "queued");
    case SMTP_SERVER_STARTTLS: return REPLY(220, ENH(2, 0, 0), "ready");
    case SMTP_SERVER_AUTH:
    case SMTP_SERVER_AUTH_RESPONSE: return REPLY(235, ENH(2, 7, 0), "authenticated");
    default: return REPLY(250, ENH(2, 0, 0), "started");
    }
}

static struct smtp_reply choose_answer(struct run *r, enum smtp_server_event_type event)
{
    for (size_t i = 0; i < r->t->n_answers; i++)
        if (!r->used[i] && r->t->answers[i].event == event && r->t->answers[i].step <= r->step) {
            r->used[i] = true;
            return r->t->answers[i].reply;
        }
    return server_transcript_yes(event);
}

static void log_path(struct buf *out, const char *verb, struct str address,
                     const struct smtp_mailbox *box)
{
    struct str at = box->domain.n ? STR("@") : STR("");

    assert_int_equal(address.n, box->local.n + at.n + box->domain.n);
    buf_printf(out, "%s <" STR_FMT STR_FMT STR_FMT ">", verb, STR_ARG(box->local), STR_ARG(at),
               STR_ARG(box->domain));
}

/* " [bytes]", with NULs as '|'. */
static void log_response(struct buf *out, struct str response)
{
    buf_add_str(out, STR(" ["));
    for (size_t i = 0; i < MIN(response.n, (size_t)60); i++)
        buf_add_char(out, response.p[i] ? response.p[i] : '|');
    buf_add_char(out, ']');
}

static void log_times(struct buf *out, const struct smtp_times *t)
{
    smtp_by_write(&t->by, out);
    if (t->hold_s)
        buf_printf(out, " hold=%u", (unsigned)t->hold_s);
    else if (t->hold)
        buf_printf(out, " until=%lld", (long long)t->hold_until_ms);
    if (t->prioritized)
        buf_printf(out, " priority=%d", t->priority);
}

static void log_rcpt(struct buf *out, const struct smtp_server_event *e)
{
    char notify[SMTP_NOTIFY_TEXT];

    log_path(out, "RCPT", e->rcpt.address, &e->rcpt.recipient);
    if (e->rcpt.dsn.notify)
        buf_printf(out, " notify=%s", smtp_notify_text(e->rcpt.dsn.notify, notify));
    if (e->rcpt.dsn.orcpt.n)
        buf_printf(out, " orcpt=" STR_FMT, STR_ARG(e->rcpt.dsn.orcpt));
}

/* said/empty in hex, then what they say. */
static void log_xclient(struct buf *out, const struct smtp_xclient *x)
{
    char addr[NET_ADDR_TEXT], dest[NET_ADDR_TEXT];

    buf_printf(out, "XCLIENT %x/%x", x->said, x->empty);
    if (x->name.n)
        buf_printf(out, " name=" STR_FMT, STR_ARG(x->name));
    if (x->addr.family)
        buf_printf(out, " addr=%s", net_addr_ip_text(&x->addr, addr));
    if (x->port)
        buf_printf(out, " port=%u", x->port);
    if (x->helo.n)
        buf_printf(out, " %s=" STR_FMT, x->extended ? "ehlo" : "helo", STR_ARG(x->helo));
    if (x->login.n)
        buf_printf(out, " login=" STR_FMT, STR_ARG(x->login));
    if (x->dest.family)
        buf_printf(out, " dest=%s", net_addr_ip_text(&x->dest, dest));
    if (x->dest_port)
        buf_printf(out, " destport=%u", x->dest_port);
}

static void log_event(struct run *r, const struct smtp_server_event *e)
{
    struct buf *out = &r->events;

    if (e->type == SMTP_SERVER_BODY) {
        assert_true(e->body.n > 0);
        add_octets(out, e->body);
        return;
    }
    begin_event(out);
    switch (e->type) {
    case SMTP_SERVER_HELO:
        buf_printf(out, "%s " STR_FMT, e->helo.extended ? "EHLO" : "HELO", STR_ARG(e->helo.name));
        break;
    case SMTP_SERVER_MAIL:
        log_path(out, "MAIL", e->mail.address, &e->mail.sender);
        if (e->mail.size)
            buf_printf(out, " size=%llu", (unsigned long long)e->mail.size);
        buf_printf(out, "%s%s",
                   e->mail.body == SMTP_BODY_8BITMIME     ? " 8bit"
                   : e->mail.body == SMTP_BODY_BINARYMIME ? " binary"
                                                          : "",
                   e->mail.smtputf8 ? " utf8" : "");
        buf_add_str(out, e->mail.requiretls ? STR(" requiretls") : STR(""));
        if (e->mail.dsn.ret)
            buf_printf(out, " ret=%s", e->mail.dsn.ret == SMTP_RET_FULL ? "full" : "hdrs");
        if (e->mail.dsn.envid.n)
            buf_printf(out, " envid=" STR_FMT, STR_ARG(e->mail.dsn.envid));
        log_times(out, &e->mail.times);
        break;
    case SMTP_SERVER_RCPT: log_rcpt(out, e); break;
    case SMTP_SERVER_END: buf_printf(out, "END %llu", (unsigned long long)e->end.size); break;
    case SMTP_SERVER_ATRN: buf_printf(out, "ATRN " STR_FMT, STR_ARG(e->etrn.node)); break;
    case SMTP_SERVER_ETRN:
        buf_printf(out, "ETRN %.1s" STR_FMT, e->etrn.option ? &e->etrn.option : "",
                   STR_ARG(e->etrn.node));
        break;
    case SMTP_SERVER_AUTH:
        buf_printf(out, "AUTH %s", sasl_name(e->auth.mechanism));
        if (e->auth.initial)
            log_response(out, e->auth.response);
        break;
    case SMTP_SERVER_AUTH_RESPONSE:
        buf_add_str(out, STR("RESPONSE"));
        log_response(out, e->auth.response);
        break;
    case SMTP_SERVER_XCLIENT: log_xclient(out, &e->xclient); break;
    case SMTP_SERVER_CLOSE: buf_printf(out, "CLOSE %s", e->close.why); break;
    default: buf_add_str(out, str_of(event_names[e->type]));
    }
    buf_add_char(out, '\n');
}

/* LMTP: an END as often as RCPT was a yes since MAIL. */
static void give_answer(struct run *r, uint32_t ticket, enum smtp_server_event_type event)
{
    uint32_t times = event == SMTP_SERVER_END && r->t->opt.lmtp ? r->recipients : 1;
    struct smtp_reply reply;

    for (uint32_t i = 0; i < times; i++) {
        struct smtp_server_event none;
        reply = choose_answer(r, event);
        assert_int_equal(smtp_server_answer(r->server, ticket + 1, &reply), -ESTALE);
        if (i)
            assert_int_equal(smtp_server_next(r->server, &none), 0);
        assert_int_equal(smtp_server_answer(r->server, ticket, &reply), 0);
    }
    assert_int_equal(smtp_server_answer(r->server, ticket, &reply), -ESTALE);
    if (event == SMTP_SERVER_MAIL)
        r->recipients = 0;
    r->recipients += event == SMTP_SERVER_RCPT && reply.code < 300;
}

static void take_output(struct run *r)
{
    struct str out = smtp_server_output(r->server);

    for (size_t i = 0; i < out.n; i++)
        if (out.p[i] != '\r')
            buf_add_char(&r->output, out.p[i]);
        else
            assert_true(i + 1 < out.n && out.p[i + 1] == '\n');
    smtp_server_sent(r->server, out.n);
}

static void pump(struct run *r)
{
    struct smtp_server_event e;
    int did;

    while ((did = smtp_server_next(r->server, &e)) == 1) {
        log_event(r, &e);
        r->ticket = e.ticket;
        r->asked = e.type;
        if (e.ticket && !r->how.late) {
            give_answer(r, e.ticket, e.type);
            r->ticket = 0;
        }
    }
    assert_true(did == 0 || did == -EPIPE);
    take_output(r);
}

static bool answer_late(struct run *r)
{
    uint32_t ticket = r->ticket;

    if (!ticket)
        return false;
    r->ticket = 0;
    give_answer(r, ticket, r->asked);
    pump(r);
    return true;
}

static void feed(struct run *r, struct str bytes)
{
    while (bytes.n > 0) {
        size_t n = r->how.piece ? MIN(r->how.piece, bytes.n) : bytes.n;
        size_t taken = smtp_server_feed(r->server, bytes.p, n);
        bytes = str_from(bytes, taken);
        pump(r);
        if (taken == 0 && !answer_late(r))
            return; /* it waits for the handshake */
    }
}

static void do_step(struct run *r, const struct step *st, size_t offset)
{
    struct str bytes = buf_str(&st->client);

    if (st->tls_started)
        smtp_server_tls_started(r->server);
    if (st->stop) {
        smtp_server_stop(r->server, st->stop_reply.code ? &st->stop_reply : NULL, st->stop_why);
        r->ticket = 0;
    }
    if (r->how.cut > offset && r->how.cut < offset + bytes.n) {
        feed(r, str_first(bytes, r->how.cut - offset));
        bytes = str_from(bytes, r->how.cut - offset);
    }
    feed(r, bytes);
    pump(r);
    while (answer_late(r))
        ;
}

static bool same_output(struct str want, struct str got)
{
    struct str w, g;

    if (want.n == 0 || got.n == 0)
        return want.n == got.n;
    while (str_cut(&want, '\n', &w)) {
        if (!str_cut(&got, '\n', &g))
            return false;
        if (str_ends(w, STR("*"))) {
            w.n--;
            g = str_first(g, w.n);
        }
        if (!str_eq(w, g))
            return false;
    }
    return !got.p;
}

static void compare(struct run *r, const struct step *st)
{
    begin_event(&r->events);

    struct buf want;
    buf_init(&want, 0);
    buf_add_str(&want, buf_str(&st->events));
    begin_event(&want);
    if (!str_eq(buf_str(&want), buf_str(&r->events)) ||
        !same_output(buf_str(&st->output), buf_str(&r->output)))
        fail_msg("%s \"" STR_FMT
                 "\", step %zu, %s (piece %zu, cut at %zu, %s)\n--- client\n" STR_FMT
                 "--- wanted\n" STR_FMT "--\n" STR_FMT "--- got\n" STR_FMT "--\n" STR_FMT "---",
                 r->t->path, STR_ARG(r->t->title), r->step, r->how.name, r->how.piece, r->how.cut,
                 r->how.late ? "late" : "at once", STR_ARG(str_first(buf_str(&st->client), 2000)),
                 STR_ARG(buf_str(&want)), STR_ARG(buf_str(&st->output)),
                 STR_ARG(buf_str(&r->events)), STR_ARG(buf_str(&r->output)));
    buf_done(&want);
    buf_clear(&r->events);
    buf_clear(&r->output);
}

static void replay(const struct transcript *t, struct how how)
{
    struct run r = { .t = t, .how = how };
    size_t offset = 0;

    buf_init(&r.events, 0);
    buf_init(&r.output, 0);
    r.server = smtp_server_new(&t->opt);
    assert_non_null(r.server);
    for (size_t i = 0; i < t->n_steps; i++) {
        const struct step *st = &t->steps[i];
        r.step = i;
        if (i == 0 && buf_len(&st->events) == 0 && buf_len(&st->output) == 0)
            continue; /* the client talks first */
        do_step(&r, st, offset);
        offset += buf_len(&st->client);
        compare(&r, st);
    }
    smtp_server_free(r.server);
    buf_done(&r.events);
    buf_done(&r.output);
}

static void replay_all(const struct transcript *t)
{
    size_t total = 0;

    for (size_t i = 0; i < t->n_steps; i++)
        total += buf_len(&t->steps[i].client);
    replay(t, (struct how){ .name = "whole" });
    replay(t, (struct how){ .name = "whole", .late = true });
    if (t->only_whole)
        return;
    replay(t, (struct how){ .name = "byte by byte", .piece = 1 });
    replay(t, (struct how){ .name = "byte by byte", .piece = 1, .late = true });
    replay(t, (struct how){ .name = "pieces", .piece = 7 });
    for (size_t cut = 1; cut < total; cut += 1 + total * total / MAX_WORK)
        replay(t, (struct how){ .name = "cut in two", .cut = cut });
}

void server_transcript_check(const char *path)
{
    char *file = read_file(path);
    struct str text = str_of(file);
    struct transcript *t;

    while ((t = transcript_read(path, &text)) != NULL) {
        replay_all(t);
        transcript_free(t);
    }
    free(file);
}
