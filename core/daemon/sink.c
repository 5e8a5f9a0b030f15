/* sink.c - a mail server that takes everything. Layer: daemon. Interface: sink.h. */
#include "daemon/sink.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/event.h"
#include "daemon/columns.h"
#include "daemon/sink_dns.h"
#include "io/net.h"
#include "mail/msgid.h"
#include "proto/smtp_server.h"

enum {
    SESSIONS_MAX = 20000,
    IDLE_MS = 300000,
    RECIPIENTS_MAX = 10000,
    HEAD_KEPT = 8192, /* bytes in which the subject is looked for */
    NAMED_MAX = 2048, /* bytes of recipients in a summary */
};

struct sink {
    const struct sink_options *options;
    struct io_loop *loop;
    struct io_net *net;
    struct io_listener *listeners[SINK_LISTENERS];
    size_t n_listeners;
    struct smtp_server_options smtp;
    struct list sessions;
    size_t n_sessions;
    uint64_t number; /* of connections so far */
    uint64_t messages, recipients, octets, rejected, lost;
    struct msgid_source ids;
    struct later flush; /* stdout, once a turn */
    int signal_fd;
    struct io_watch *signals;
    struct sink_dns *dns;
};

struct sink_session {
    struct list link;
    struct sink *sink;
    struct stream *stream;
    struct smtp_server *server;
    struct timer timer;
    uint64_t number;
    bool want_tls, securing;
    char sender[320];
    uint32_t recipients;
    struct buf named;   /* recipients as text, the first of them */
    struct buf content; /* all of it, or its head */
    int64_t since;      /* of the message */
};

/* ---- a message -------------------------------------------------------------------------------- */

/* The value of the first Subject, unfolded as far as it is kept. */
static void find_subject(struct str content, char *dst, size_t size)
{
    struct str line;
    size_t n = 0;
    bool in_subject = false;

    dst[0] = '\0';
    while (str_cut(&content, '\n', &line) && !str_empty(str_trim(line))) {
        bool folded = line.p[0] == ' ' || line.p[0] == '\t';
        if (in_subject && !folded)
            return;
        if (!in_subject && str_casestarts(line, STR("subject:"))) {
            in_subject = true;
            line = str_from(line, 8);
        }
        if (!in_subject)
            continue;
        line = str_trim(line);
        n += (size_t)snprintf(dst + n, size - n, "%s" STR_FMT, n ? " " : "", STR_ARG(line));
        if (n >= size)
            return;
    }
}

static void on_flush(struct later *l)
{
    fflush(stdout);
}

static void print_summary(struct sink_session *s, uint64_t size, const char *subject,
                          const char *file)
{
    char peer[NET_ADDR_TEXT];
    struct buf *named = &s->named;

    net_addr_text(&s->stream->peer, peer);
    if (s->sink->options->json) {
        struct buf line;
        buf_init(&line, 0);
        event_to_json(EVENT(EVENT_INFO, "sink_message", F_STRZ("sender", s->sender),
                            F_STR("recipients", buf_str(named)), F_INT("n", s->recipients),
                            F_INT("size", (int64_t)size), F_STRZ("subject", subject),
                            F_STRZ("client", peer), F_INT("connection", (int64_t)s->number),
                            F_BOOL("tls", s->stream->tls), F_STRZ("file", file)),
                      wall_now(), &line);
        fwrite(buf_str(&line).p, 1, buf_len(&line), stdout);
        buf_done(&line);
    } else {
        printf("from=<%s> to=" STR_FMT " size=%" PRIu64
               " subject=\"%s\" client=%s connection=%" PRIu64 "%s%s%s\n",
               s->sender, STR_ARG(buf_str(named)), size, subject, peer, s->number,
               s->stream->tls ? " tls" : "", file ? " file=" : "", file ? file : "");
    }
}

/* Its name, or NULL: it could not be written. */
static const char *store(struct sink_session *s, char *path, size_t size)
{
    char id[MSGID_TEXT];
    struct msgid next = msgid_next(&s->sink->ids, wall_now());
    struct str content = buf_str(&s->content);

    snprintf(path, size, STR_FMT "/%s.eml", STR_ARG(s->sink->options->dir), msgid_text(&next, id));
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (fd < 0)
        return NULL;
    while (content.n) {
        ssize_t n = write(fd, content.p, content.n);
        if (n < 0 && errno != EINTR)
            break;
        content = str_from(content, n > 0 ? (size_t)n : 0);
    }
    close(fd);
    return content.n ? NULL : path;
}

static bool keeps_all(const struct sink_options *o)
{
    return o->dir.n || o->print == SINK_PRINT_FULL;
}

/* 0, or the code to refuse it by. */
static int take_message(struct sink_session *s, uint64_t size)
{
    const struct sink_options *o = s->sink->options;
    char subject[512], path[4096];
    const char *file = NULL;

    if (keeps_all(o) && s->content.failed)
        return 452;
    if (o->dir.n && !(file = store(s, path, sizeof(path)))) {
        fprintf(stderr, "tern sink: cannot write %s: %s\n", path, strerror(errno));
        return 451;
    }
    s->sink->messages++;
    s->sink->recipients += s->recipients;
    s->sink->octets += size;
    if (o->print == SINK_PRINT_NONE)
        return 0;
    find_subject(buf_str(&s->content), subject, sizeof(subject));
    clean_text(subject);
    print_summary(s, size, subject, file);
    if (o->print == SINK_PRINT_FULL) {
        fwrite(buf_str(&s->content).p, 1, buf_len(&s->content), stdout);
        putchar('\n');
    }
    io_loop_last(s->sink->loop, &s->sink->flush);
    return 0;
}

static void forget_message(struct sink_session *s)
{
    s->recipients = 0;
    buf_clear(&s->named);
    buf_clear(&s->content);
    buf_shrink(&s->content);
}

/* ---- what the client says --------------------------------------------------------------------- */

static uint16_t rejected(const struct sink_options *o, struct str address)
{
    for (size_t i = 0; i < o->n_reject; i++) {
        struct str r = o->reject[i].recipient;
        if (r.p[0] == '@' ? str_caseends(address, r) : str_caseeq(address, r))
            return o->reject[i].code;
    }
    return 0;
}

static struct smtp_reply on_rcpt(struct sink_session *s, struct str address)
{
    uint16_t code = rejected(s->sink->options, address);

    if (code) {
        s->sink->rejected++;
        return (
            struct smtp_reply){ code, { (uint8_t)(code / 100), 1, 1 }, STR("refused by --reject") };
    }
    s->recipients++;
    if (buf_len(&s->named) + address.n < NAMED_MAX)
        buf_printf(&s->named, "%s<" STR_FMT ">", buf_len(&s->named) ? "," : "", STR_ARG(address));
    return REPLY(250, ENH(2, 1, 5), "OK");
}

static void on_body(struct sink_session *s, struct str bytes)
{
    if (keeps_all(s->sink->options))
        buf_add_str(&s->content, bytes);
    else if (s->sink->options->print != SINK_PRINT_NONE && buf_len(&s->content) < HEAD_KEPT)
        buf_add_str(&s->content, str_first(bytes, HEAD_KEPT - buf_len(&s->content)));
}

static struct smtp_reply on_end(struct sink_session *s, uint64_t size)
{
    int code = take_message(s, size);

    forget_message(s);
    if (!code)
        return REPLY(250, ENH(2, 0, 0), "taken, and gone");
    s->sink->rejected++;
    return (struct smtp_reply){ (uint16_t)code, ENH(4, 3, 1), STR("cannot keep it") };
}

/* Answers at once: nothing here waits. */
static void on_event(struct sink_session *s, const struct smtp_server_event *ev)
{
    struct smtp_reply reply = REPLY(250, ENH(2, 0, 0), "OK");

    switch (ev->type) {
    case SMTP_SERVER_CONNECT: reply = REPLY(220, ENH_NONE, "ESMTP tern sink"); break;
    case SMTP_SERVER_HELO: reply = REPLY(250, ENH_NONE, ""); break;
    case SMTP_SERVER_MAIL:
        forget_message(s);
        str_copy(ev->mail.address, s->sender, sizeof(s->sender));
        break;
    case SMTP_SERVER_RCPT: reply = on_rcpt(s, ev->rcpt.address); break;
    case SMTP_SERVER_DATA: reply = REPLY(354, ENH_NONE, "go ahead"); break;
    case SMTP_SERVER_BODY: on_body(s, ev->body); return;
    case SMTP_SERVER_END: reply = on_end(s, ev->end.size); break;
    case SMTP_SERVER_RESET: forget_message(s); return;
    case SMTP_SERVER_STARTTLS:
        reply = REPLY(220, ENH(2, 0, 0), "go ahead");
        s->want_tls = true;
        break;
    case SMTP_SERVER_ATRN:
    case SMTP_SERVER_ETRN: reply = REPLY(458, ENH(4, 3, 0), "nothing is queued here"); break;
    case SMTP_SERVER_AUTH:
    case SMTP_SERVER_AUTH_RESPONSE:
    case SMTP_SERVER_XCLIENT: reply = REPLY(454, ENH(4, 7, 0), "not offered"); break;
    case SMTP_SERVER_AUTH_END:
    case SMTP_SERVER_CLOSE: return;
    }
    smtp_server_answer(s->server, ev->ticket, &reply);
}

/* ---- moving bytes ----------------------------------------------------------------------------- */

static void session_end(struct sink_session *s, bool in_order)
{
    if (s->stream && in_order)
        stream_close(s->stream);
    else if (s->stream)
        stream_abort(s->stream);
    io_loop_timer_stop(s->sink->loop, &s->timer);
    list_remove(&s->link);
    s->sink->n_sessions--;
    smtp_server_free(s->server);
    buf_done(&s->named);
    buf_done(&s->content);
    free(s);
}

static void on_idle(struct timer *t)
{
    session_end(CONTAINER_OF(t, struct sink_session, timer), false);
}

/* False: the session is over, and freed. */
static bool pump(struct sink_session *s)
{
    struct smtp_server_event ev;
    struct str in;
    size_t n;
    int r;

    do {
        while ((r = smtp_server_next(s->server, &ev)) == 1 && ev.type != SMTP_SERVER_CLOSE)
            on_event(s, &ev);
        struct str out = smtp_server_output(s->server);
        if (out.n)
            stream_write(s->stream, out.p, out.n);
        smtp_server_sent(s->server, out.n);
        if (r != 0) {
            session_end(s, r == 1);
            return false;
        }
        if (s->want_tls) {
            s->want_tls = false;
            s->securing = true;
            if (stream_starttls(s->stream, &(struct tls_request){ .server = true }) == 0)
                return true;
            session_end(s, false);
            return false;
        }
        in = stream_input(s->stream);
        n = in.n ? smtp_server_feed(s->server, in.p, in.n) : 0;
        stream_consume(s->stream, n);
    } while (n);
    return true;
}

static void on_data(struct stream *stream, void *owner)
{
    struct sink_session *s = owner;

    io_loop_timer_set(s->sink->loop, &s->timer, io_loop_now(s->sink->loop) + IDLE_MS);
    if (!s->securing)
        pump(s);
}

static void on_drained(struct stream *stream, void *owner)
{
}

static void on_secured(struct stream *stream, void *owner, const struct tls_facts *facts)
{
    struct sink_session *s = owner;

    s->securing = false;
    stream->tls = true;
    smtp_server_tls_started(s->server);
    if (pump(s))
        stream_resume(stream);
}

static void on_closed(struct stream *stream, void *owner, int error, const char *why)
{
    struct sink_session *s = owner;

    if (s->recipients)
        s->sink->lost++;
    s->stream = NULL;
    session_end(s, false);
}

static const struct stream_events events = {
    .data = on_data, .drained = on_drained, .secured = on_secured, .closed = on_closed
};

static void on_accepted(void *owner, struct stream *stream, const struct listen_settings *settings)
{
    struct sink *sink = owner;
    struct sink_session *s = sink->n_sessions < SESSIONS_MAX ? calloc(1, sizeof(*s)) : NULL;

    if (!s)
        return; /* the listener closes it */
    s->server = smtp_server_new(&sink->smtp);
    if (!s->server) {
        free(s);
        return;
    }
    s->sink = sink;
    s->stream = stream;
    s->number = ++sink->number;
    buf_init(&s->named, 0);
    buf_init(&s->content, keeps_all(sink->options) ? sink->options->max_size : HEAD_KEPT);
    timer_init(&s->timer, on_idle);
    list_init(&s->link);
    list_push(&sink->sessions, &s->link);
    sink->n_sessions++;
    stream->ev = &events;
    stream->owner = s;
    io_loop_timer_set(sink->loop, &s->timer, io_loop_now(sink->loop) + IDLE_MS);
    pump(s);
}

/* ---- life ------------------------------------------------------------------------------------- */

static void on_signal(void *owner)
{
    struct sink *s = owner;
    struct signalfd_siginfo info;

    while (read(s->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        io_loop_stop(s->loop);
}

static int watch_signals(struct sink *s, struct failure *f)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    s->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (s->signal_fd < 0 || io_watch_new(s->loop, s->signal_fd, on_signal, s, &s->signals) < 0)
        return failure_set(f, EX_OSERR, "cannot wait for signals");
    return 0;
}

static int open_listeners(struct sink *s, struct failure *f)
{
    for (size_t i = 0; i < s->options->n_listen; i++) {
        const struct listen_settings *l = &s->options->listen[i];
        char error[LISTEN_ERROR_TEXT], text[NET_ADDR_TEXT];
        int fd = io_listen_open(&l->addr, error);
        if (fd < 0)
            return failure_set(f, exit_code_of(fd), "%s; choose another address with --listen",
                               error);
        if (io_listener_new(s->net, fd, l, on_accepted, s, &s->listeners[i]) < 0)
            return failure_set(f, EX_SOFTWARE, "out of memory");
        s->n_listeners++;
        fprintf(stderr, "tern sink: listens on %s\n",
                net_addr_text(io_listener_addr(s->listeners[i]), text));
    }
    return 0;
}

int sink_new(const struct sink_options *o, struct sink **ret, struct failure *f)
{
    struct sink *s = calloc(1, sizeof(*s));

    if (!s)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    s->options = o;
    s->signal_fd = -1;
    s->smtp = (struct smtp_server_options){
        .hostname = o->hostname,
        .size_limit = o->max_size,
        .max_recipients = RECIPIENTS_MAX,
        .starttls = o->tls,
        .smtputf8 = true,
    };
    list_init(&s->sessions);
    later_init(&s->flush, on_flush);
    int e = io_loop_new(0, 1, &s->loop);
    if (e == 0)
        e = io_net_new(s->loop, o->tls, &s->net);
    if (e < 0) {
        sink_free(s);
        return failure_set(f, EX_OSERR, "cannot make an event loop: %s", strerror(-e));
    }
    msgid_source_init(&s->ids, io_loop_random(s->loop));
    /* Who waits for "listens on" may ask for names at once. */
    if (watch_signals(s, f) < 0 ||
        (o->dns.family != NET_NONE && sink_dns_new(s->loop, &o->dns, o->zone, &s->dns, f) < 0) ||
        open_listeners(s, f) < 0) {
        sink_free(s);
        return -1;
    }
    *ret = s;
    return 0;
}

void sink_run(struct sink *s)
{
    char size[16];

    io_loop_run(s->loop);
    fflush(stdout);
    fprintf(stderr,
            "tern sink: %" PRIu64 " messages, %" PRIu64 " recipients, %s in %" PRIu64
            " connections; %" PRIu64 " refused\n",
            s->messages, s->recipients, size_text((int64_t)s->octets, size), s->number,
            s->rejected);
}

struct sink *sink_free(struct sink *s)
{
    if (!s)
        return NULL;
    LIST_FOREACH(it, &s->sessions)
    {
        session_end(LIST_ENTRY(it, struct sink_session, link), false);
    }
    for (size_t i = 0; i < s->n_listeners; i++)
        io_listener_free(s->listeners[i]);
    list_remove(&s->flush.link);
    sink_dns_free(s->dns);
    io_watch_free(s->signals);
    if (s->signal_fd >= 0)
        close(s->signal_fd);
    io_net_free(s->net);
    io_loop_free(s->loop);
    free(s);
    return NULL;
}

bool sink_reject_parse(const char *text, struct sink_reject *ret)
{
    struct str s = str_of(text);
    ptrdiff_t at = str_rchr(s, '=');
    uint64_t code;

    if (at <= 0 || str_to_u64(str_from(s, (size_t)at + 1), &code) < 0 || code < 400 || code > 599)
        return false;
    *ret = (struct sink_reject){ str_first(s, (size_t)at), (uint16_t)code };
    return true;
}
