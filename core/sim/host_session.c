/* host_session.c - one session of a simulated host: proto/smtp_server on a stream, with a rule for each
 * answer. Layer: sim. Interface: host_impl.h.
 *
 * LMTP is SMTP with another word and more replies: LHLO is read as EHLO, and the replies for all
 * recipients but the last are written by hand in front of the server's own.
 */
#include <stdio.h>

#include "base/buf.h"
#include "proto/smtp_server.h"
#include "sim/host_impl.h"

struct session {
    struct list link;
    struct sim_host *host;
    struct stream *stream;
    struct smtp_server *server;
    uint64_t number;
    int64_t opened_ms, began_ms; /* wall */
    bool busy;                   /* it has not come to its first MAIL, or is in a transaction */
    char *helo;
    bool extended, silent, in_hello;
    bool excess; /* beyond what the host takes at once */

    uint32_t ticket; /* of the answer that is delayed */
    enum smtp_server_event_type asked;
    const struct sim_rule *rule;
    struct smtp_reply reply;
    struct timer delay;

    struct sasl_server *sasl;
    char *identity;    /* authenticated as */
    char *certificate; /* that the client showed */

    struct received *message; /* being received */
    struct buf content;
    char *sender;
    char *dsn, *times;
    char **recipients, **rcpt_dsn;
    size_t n_recipients;
    char *offered, *offered_dsn; /* the recipient that is being decided */
    bool requiretls;             /* of MAIL */

    /* what its limits count */
    uint32_t mails, rcpts;
    struct str *domains; /* of recipients, in the session */
    size_t n_domains;
};

static void run(struct session *s);

/* ---- life ------------------------------------------------------------------------------------- */

static void set_busy(struct session *s, bool busy)
{
    s->host->busy += (size_t)busy - (size_t)s->busy;
    s->busy = busy;
}

static void drop_transaction(struct session *s)
{
    for (size_t i = 0; i < s->n_recipients; i++)
        free(s->recipients[i]);
    for (size_t i = 0; i < s->n_recipients; i++)
        free(s->rcpt_dsn[i]);
    free(s->recipients);
    free(s->rcpt_dsn);
    free(s->sender);
    free(s->dsn);
    free(s->times);
    s->recipients = s->rcpt_dsn = NULL;
    s->n_recipients = 0;
    s->sender = s->dsn = s->times = NULL;
    buf_clear(&s->content);
}

static void session_free(struct session *s)
{
    struct sim_host *h = s->host;
    drop_transaction(s);
    set_busy(s, false);
    buf_done(&s->content);
    sim_timer_stop(h->clock, &s->delay);
    list_remove(&s->link);
    smtp_server_free(s->server);
    sasl_server_free(s->sasl);
    free(s->identity);
    free(s->certificate);
    free(s->helo);
    free(s->offered);
    free(s->offered_dsn);
    for (size_t i = 0; i < s->n_domains; i++)
        free((char *)s->domains[i].p);
    free(s->domains);
    h->open--;
    free(s);
}

void host_drop_sessions(struct sim_host *h)
{
    LIST_FOREACH(it, &h->sessions)
    {
        struct session *s = LIST_ENTRY(it, struct session, link);
        stream_abort(s->stream);
        session_free(s);
    }
}

/* ---- output ----------------------------------------------------------------------------------- */

static bool is_hidden(const struct sim_host *h, struct str line)
{
    struct str keyword = str_trim(str_from(line, 4));
    for (size_t i = 0; i < h->n_hidden; i++) {
        struct str hidden = str_of(h->hidden[i]);
        if (str_casestarts(keyword, hidden) &&
            (keyword.n == hidden.n || keyword.p[hidden.n] == ' '))
            return true;
    }
    return false;
}

/* The EHLO reply without the lines that are hidden, and with the limits of the host; the last line gets its space. */
static void write_hello(struct session *s, struct str out)
{
    char *copy, *last = NULL;
    size_t n = 0;
    struct str line, rest;
    struct buf all, limits;
    buf_init(&all, 0);
    buf_init(&limits, 0);
    buf_add_str(&all, out);
    smtp_limits_write(&s->host->limits, &limits);
    if (buf_len(&limits))
        buf_printf(&all, "250-" STR_FMT "\r\n", STR_ARG(str_from(buf_str(&limits), 1)));
    rest = buf_str(&all);
    CHECK(rest.p != NULL);
    copy = sim_alloc(rest.n + 1);
    while (str_cut(&rest, '\n', &line)) {
        if (line.n == 0 || (line.n > 4 && is_hidden(s->host, line)))
            continue;
        last = copy + n;
        memcpy(last, line.p, line.n);
        last[3] = '-';
        last[line.n] = '\n';
        n += line.n + 1;
    }
    if (last)
        last[3] = ' ';
    stream_write(s->stream, copy, n);
    free(copy);
    buf_done(&all);
    buf_done(&limits);
}

static bool changes_hello(const struct sim_host *h)
{
    return h->n_hidden || h->limits.rcptmax || h->limits.mailmax || h->limits.rcptdomainmax;
}

static void flush(struct session *s)
{
    struct str out = smtp_server_output(s->server);
    if (out.n == 0)
        return;
    if (s->in_hello && s->extended && changes_hello(s->host) && str_starts(out, STR("250")))
        write_hello(s, out);
    else
        stream_write(s->stream, out.p, out.n);
    smtp_server_sent(s->server, out.n);
    s->in_hello = false;
}

/* ---- messages --------------------------------------------------------------------------------- */

static struct str keep(struct arena *a, const char *text)
{
    struct str s = arena_str(a, text ? str_of(text) : STR(""));
    CHECK(s.p != NULL);
    return s;
}

static void take_message(struct session *s)
{
    struct received *r = received_new();
    struct arena *a = &r->arena;
    r->is.sender = keep(a, s->sender);
    r->is.helo = keep(a, s->helo);
    r->is.identity = keep(a, s->identity);
    r->is.certificate = keep(a, s->certificate);
    r->is.content = arena_str(a, s->content.data ? buf_str(&s->content) : STR(""));
    r->is.recipients = ARENA_ARRAY(a, struct str, s->n_recipients ? s->n_recipients : 1);
    r->is.rcpt_dsn = ARENA_ARRAY(a, struct str, s->n_recipients ? s->n_recipients : 1);
    CHECK(r->is.content.p && r->is.recipients && r->is.rcpt_dsn);
    r->is.dsn = keep(a, s->dsn);
    r->is.times = keep(a, s->times);
    for (size_t i = 0; i < s->n_recipients; i++) {
        r->is.recipients[i] = keep(a, s->recipients[i]);
        r->is.rcpt_dsn[i] = keep(a, s->rcpt_dsn[i]);
    }
    r->is.n_recipients = s->n_recipients;
    r->is.from = s->stream->peer;
    r->is.tls = s->stream->tls;
    r->is.requiretls = s->requiretls;
    r->is.wall_ms = sim_wall(s->host->clock);
    r->is.began_ms = s->began_ms;
    r->is.opened_ms = s->opened_ms;
    r->is.session = s->number;
    host_take(s->host, r);
}

/* ---- AUTH ------------------------------------------------------------------------------------- */

/* Who the server asks about is looked up, until it has something to say to the client. */
static int look_up(struct session *s, struct sasl_server_event *ev)
{
    int r = 0;
    while (r == 0 && (ev->type == SASL_VERIFY || ev->type == SASL_SECRET)) {
        const struct user *u = host_find_user(s->host, ev->user);
        struct password_entry entry = { .kind = PASSWORD_PLAIN };
        if (u)
            entry.text = str_of(u->password);
        if (ev->type == SASL_VERIFY)
            r = sasl_server_verified(s->sasl, u && str_eq(entry.text, ev->password), ev);
        else
            r = sasl_server_secret(s->sasl, u ? &entry : NULL, u != NULL, ev);
    }
    return r;
}

/* The reply to AUTH or to a response. Its text lives until the next. */
static struct smtp_reply authenticate(struct session *s, const struct smtp_server_event *in)
{
    static const uint8_t salt_key[32] = { 1 };
    struct sasl_server_event ev;
    int r;
    if (in->type == SMTP_SERVER_AUTH) {
        struct sasl_server_options opt = { .host = str_of(s->host->name),
                                           .nonce = STR("not-random-but-long-enough"),
                                           .salt_key = salt_key };
        s->host->auths++;
        sasl_server_free(s->sasl);
        s->sasl = sasl_server_new(in->auth.mechanism, &opt);
        CHECK(s->sasl != NULL);
        r = sasl_server_start(s->sasl, in->auth.initial ? &in->auth.response : NULL, &ev);
    } else {
        r = sasl_server_step(s->sasl, in->auth.response, &ev);
    }
    if (r == 0)
        r = look_up(s, &ev);
    if (r == 0 && ev.type == SASL_CHALLENGE)
        return (struct smtp_reply){ .code = 334, .text = ev.message };
    if (r < 0 || ev.type != SASL_OK)
        return REPLY(535, ENH(5, 7, 8), "wrong user or password");
    free(s->identity);
    s->identity = sim_dup(ev.user);
    return REPLY(235, ENH(2, 7, 0), "welcome");
}

/* ---- answers ---------------------------------------------------------------------------------- */

static const struct {
    enum smtp_stage stage;
    uint16_t yes;
} stages[] = {
    [SMTP_SERVER_CONNECT] = { SMTP_STAGE_GREETING, 220 },
    [SMTP_SERVER_HELO] = { SMTP_STAGE_HELO, 250 },
    [SMTP_SERVER_MAIL] = { SMTP_STAGE_MAIL, 250 },
    [SMTP_SERVER_RCPT] = { SMTP_STAGE_RCPT, 250 },
    [SMTP_SERVER_DATA] = { SMTP_STAGE_DATA, 354 },
    [SMTP_SERVER_END] = { SMTP_STAGE_FINAL, 250 },
    [SMTP_SERVER_STARTTLS] = { SMTP_STAGE_STARTTLS, 220 },
    [SMTP_SERVER_ETRN] = { SMTP_STAGE_READY, 250 },
    [SMTP_SERVER_ATRN] = { SMTP_STAGE_READY, 250 },
    [SMTP_SERVER_AUTH] = { SMTP_STAGE_AUTH, 235 },
    [SMTP_SERVER_AUTH_RESPONSE] = { SMTP_STAGE_AUTH, 235 },
};

static void answer(struct session *s, const struct smtp_reply *reply)
{
    bool yes = reply->code < 400;
    if (s->asked == SMTP_SERVER_RCPT && yes) {
        s->recipients = reallocarray(s->recipients, s->n_recipients + 1, sizeof(char *));
        s->rcpt_dsn = reallocarray(s->rcpt_dsn, s->n_recipients + 1, sizeof(char *));
        CHECK(s->recipients && s->rcpt_dsn);
        s->rcpt_dsn[s->n_recipients] = TAKE(s->offered_dsn);
        s->recipients[s->n_recipients++] = TAKE(s->offered);
    }
    if (s->asked == SMTP_SERVER_END) {
        if (yes)
            take_message(s);
        drop_transaction(s);
    }
    if (s->asked == SMTP_SERVER_END || (s->asked == SMTP_SERVER_MAIL && !yes))
        set_busy(s, false);
    s->in_hello = s->asked == SMTP_SERVER_HELO;
    CHECK(smtp_server_answer(s->server, s->ticket, reply) == 0);
    s->ticket = 0;
    if (s->asked != SMTP_SERVER_STARTTLS || !yes)
        return;
    struct tls_request req = { .server = true };
    flush(s);
    CHECK(stream_starttls(s->stream, &req) == 0);
}

/* False: the session is gone. */
static bool act(struct session *s, enum sim_action action, bool taken)
{
    if (taken)
        take_message(s);
    if (action == SIM_SILENCE) {
        s->silent = true;
        return true;
    }
    flush(s);
    if (action == SIM_CLOSE)
        stream_close(s->stream);
    else
        stream_abort(s->stream);
    session_free(s);
    return false;
}

/* The message is the host's, for these of its recipients. */
static void take_message_for(struct session *s, char **recipients, size_t n)
{
    char **all = s->recipients;
    size_t n_all = s->n_recipients;

    if (n == 0)
        return;
    s->recipients = recipients;
    s->n_recipients = n;
    take_message(s);
    s->recipients = all;
    s->n_recipients = n_all;
}

/* LMTP: one reply for each recipient, decided for itself (RFC 2033 §4.2). A rule that is none ends the session in the
 * middle of them. False: it is gone. */
static bool answer_lmtp(struct session *s)
{
    struct buf out;
    buf_init(&out, 0);
    size_t n = s->n_recipients, taken = 0;
    struct smtp_reply last = { 0 };
    char **kept = sim_alloc(n * sizeof(char *));
    const struct sim_rule *broken = NULL;
    for (size_t i = 0; i < n && !broken; i++) {
        const struct sim_rule *r =
            host_find_rule(s->host, SMTP_STAGE_FINAL, str_of(s->recipients[i]), false);
        broken = r && r->action != SIM_REPLY ? r : NULL;
        last = r && !broken ? r->reply : REPLY(250, ENH(2, 0, 0), "OK");
        if (broken ? broken->taken : last.code < 400)
            kept[taken++] = s->recipients[i];
        if (i + 1 < n && !broken)
            smtp_reply_write(&last, &out);
    }
    take_message_for(s, kept, taken);
    free(kept);
    flush(s);
    if (buf_len(&out))
        stream_write(s->stream, buf_str(&out).p, buf_len(&out));
    buf_done(&out);
    if (broken)
        return act(s, broken->action, false);
    drop_transaction(s);
    set_busy(s, false);
    CHECK(smtp_server_answer(s->server, s->ticket, &last) == 0);
    s->ticket = 0;
    return true;
}

static bool answer_now(struct session *s)
{
    const struct sim_rule *r = s->rule;
    if (r && r->action != SIM_REPLY)
        return act(s, r->action, r->taken && s->asked == SMTP_SERVER_END);
    if (s->asked == SMTP_SERVER_END && s->host->lmtp)
        return answer_lmtp(s);
    answer(s, &s->reply);
    return true;
}

static void delay_over(struct timer *t)
{
    struct session *s = CONTAINER_OF(t, struct session, delay);
    if (answer_now(s))
        run(s);
}

static const struct sim_rule *chaos(struct session *s)
{
    static const struct sim_rule reset = { .action = SIM_RESET };
    static const struct sim_rule silence = { .action = SIM_SILENCE };
    static const struct sim_rule transient = { .action = SIM_REPLY,
                                               .reply = { 451, { 4, 3, 0 }, { "chaos", 5 } } };
    struct sim_host *h = s->host;
    if (!h->chaos)
        return NULL;
    if (sim_random_chance(h->chaos, h->chaos_reset))
        return &reset;
    if (sim_random_chance(h->chaos, h->chaos_silence))
        return &silence;
    return sim_random_chance(h->chaos, h->chaos_transient) ? &transient : NULL;
}

/* ---- LIMITS ----------------------------------------------------------------------------------- */

/* One more domain than before? */
static bool is_new_domain(struct session *s, struct str address)
{
    ptrdiff_t at = str_chr(address, '@');
    struct str domain = at < 0 ? STR("") : str_from(address, (size_t)at + 1);
    for (size_t i = 0; i < s->n_domains; i++)
        if (str_caseeq(s->domains[i], domain))
            return false;
    s->domains = reallocarray(s->domains, s->n_domains + 1, sizeof *s->domains);
    CHECK(s->domains != NULL);
    s->domains[s->n_domains++] = str_make(sim_dup(domain), domain.n);
    return true;
}

static bool is_over(uint32_t n, uint32_t limit)
{
    return limit && n > limit;
}

/* Is that MAIL or RCPT beyond what the host has told? */
static bool is_beyond_limits(struct session *s, const struct smtp_server_event *ev,
                             struct str address)
{
    const struct smtp_limits *l = &s->host->limits;
    bool over = false;
    if (ev->type == SMTP_SERVER_MAIL) {
        s->rcpts = 0;
        over = is_over(++s->mails, l->mailmax);
    }
    if (ev->type == SMTP_SERVER_RCPT) {
        over = is_over(++s->rcpts, l->rcptmax);
        if (is_new_domain(s, address))
            over |= is_over((uint32_t)s->n_domains, l->rcptdomainmax);
    }
    s->host->over_limits += over;
    return over;
}

/* What a session gets that is one too many. */
static const struct sim_rule *turn_away(const struct session *s)
{
    static const struct sim_rule rules[] = {
        [SIM_REPLY] = { .action = SIM_REPLY,
                        .reply = { 421, { 4, 7, 0 }, { "too many connections", 20 } } },
        [SIM_CLOSE] = { .action = SIM_CLOSE },
        [SIM_RESET] = { .action = SIM_RESET },
        [SIM_SILENCE] = { .action = SIM_SILENCE },
    };
    return &rules[s->host->beyond];
}

/* Decides the event; false: wait, or the session is gone. */
static bool decide(struct session *s, const struct smtp_server_event *ev, struct str address)
{
    struct sim_host *h = s->host;
    enum smtp_stage stage = stages[ev->type].stage;
    s->ticket = ev->ticket;
    s->asked = ev->type;
    s->rule = ev->type == SMTP_SERVER_END && h->lmtp
                  ? NULL
                  : host_find_rule(h, stage, address, s->extended);
    if (s->excess && ev->type == SMTP_SERVER_CONNECT)
        s->rule = turn_away(s);
    static const struct sim_rule beyond = { .action = SIM_REPLY,
                                            .reply = { 452, { 4, 5, 3 }, { "too many", 8 } } };
    if (is_beyond_limits(s, ev, address))
        s->rule = &beyond;
    if (!s->rule && ev->type != SMTP_SERVER_STARTTLS)
        s->rule = chaos(s);
    s->reply = s->rule ? s->rule->reply : (struct smtp_reply){ .code = stages[ev->type].yes };
    if (!s->rule && stage == SMTP_STAGE_AUTH)
        s->reply = authenticate(s, ev);
    if (ev->type == SMTP_SERVER_STARTTLS && h->starttls == SIM_STARTTLS_REFUSED)
        s->reply = REPLY(454, ENH(4, 7, 0), "TLS is not available");
    if (h->delay_ms) {
        sim_timer_in(h->clock, &s->delay, h->delay_ms);
        return false;
    }
    return answer_now(s) && !s->silent;
}

/* False: stop here. */
static char *mail_dsn_text(const struct smtp_dsn_mail *dsn)
{
    char text[SMTP_MAX_ENVID + 32];
    snprintf(text, sizeof text, "%s%s" STR_FMT,
             dsn->ret == SMTP_RET_FULL   ? "RET=FULL "
             : dsn->ret == SMTP_RET_HDRS ? "RET=HDRS "
                                         : "",
             dsn->envid.n ? "ENVID=" : "", STR_ARG(dsn->envid));
    return sim_dup(str_trim(str_of(text)));
}

static char *times_text(const struct smtp_times *t)
{
    struct buf out;
    buf_init(&out, 0);
    smtp_by_write(&t->by, &out);
    if (t->prioritized)
        smtp_priority_write(t->priority, &out);
    char *text = sim_dup(str_trim(buf_len(&out) ? buf_str(&out) : STR("")));
    buf_done(&out);
    return text;
}

static char *rcpt_dsn_text(const struct smtp_dsn_rcpt *dsn)
{
    char text[SMTP_MAX_ORCPT + 64], notify[SMTP_NOTIFY_TEXT];
    smtp_notify_text(dsn->notify, notify);
    snprintf(text, sizeof text, "%s%s%s%s" STR_FMT, notify[0] ? "NOTIFY=" : "", notify,
             notify[0] ? " " : "", dsn->orcpt.n ? "ORCPT=" : "", STR_ARG(dsn->orcpt));
    return sim_dup(str_trim(str_of(text)));
}

static bool handle(struct session *s, const struct smtp_server_event *ev)
{
    switch (ev->type) {
    case SMTP_SERVER_HELO:
        free(s->helo);
        s->helo = sim_dup(ev->helo.name);
        s->extended = ev->helo.extended;
        return decide(s, ev, STR(""));
    case SMTP_SERVER_MAIL:
        drop_transaction(s);
        set_busy(s, true);
        s->began_ms = sim_wall(s->host->clock);
        s->sender = sim_dup(ev->mail.address.p ? ev->mail.address : STR(""));
        s->dsn = mail_dsn_text(&ev->mail.dsn);
        s->requiretls = ev->mail.requiretls;
        s->times = times_text(&ev->mail.times);
        return decide(s, ev, str_of(s->sender));
    case SMTP_SERVER_RCPT:
        free(s->offered);
        free(s->offered_dsn);
        s->offered = sim_dup(ev->rcpt.address);
        s->offered_dsn = rcpt_dsn_text(&ev->rcpt.dsn);
        return decide(s, ev, str_of(s->offered));
    case SMTP_SERVER_BODY: {
        CHECK(buf_add_str(&s->content, ev->body) == 0);
        const struct sim_rule *r = host_find_rule(s->host, SMTP_STAGE_BODY, STR(""), true);
        return !r || r->action == SIM_REPLY || (act(s, r->action, false) && !s->silent);
    }
    case SMTP_SERVER_AUTH_END: return true;
    case SMTP_SERVER_RESET:
        s->host->rsets++;
        drop_transaction(s);
        set_busy(s, false);
        return true;
    case SMTP_SERVER_CLOSE:
        s->host->quits += strcmp(ev->close.why, "quit") == 0;
        flush(s);
        stream_close(s->stream);
        session_free(s);
        return false;
    default: return decide(s, ev, STR(""));
    }
}

/* LHLO becomes EHLO on its way in. */
static size_t feed(struct session *s, struct str in)
{
    if (!s->host->lmtp || smtp_server_in_data(s->server))
        return smtp_server_feed(s->server, in.p, in.n);
    char *copy = sim_dup(in);
    for (size_t i = 0; i + 4 <= in.n; i++)
        if ((i == 0 || copy[i - 1] == '\n') && str_caseeq(str_make(copy + i, 4), STR("LHLO")))
            copy[i] = 'E';
    size_t n = smtp_server_feed(s->server, copy, in.n);
    free(copy);
    return n;
}

static void run(struct session *s)
{
    struct smtp_server_event ev;
    for (;;) {
        struct str in = stream_input(s->stream);
        size_t n = in.n ? feed(s, in) : 0;
        if (n)
            stream_consume(s->stream, n);
        int r = s->ticket ? 0 : smtp_server_next(s->server, &ev);
        if (r < 0) {
            stream_abort(s->stream);
            session_free(s);
            return;
        }
        if (r == 1 && !handle(s, &ev))
            return;
        if (r == 0 && n == 0)
            break;
    }
    flush(s);
    if (stream_input(s->stream).n == 0)
        stream_resume(s->stream);
}

/* ---- stream ----------------------------------------------------------------------------------- */

static void on_opened(struct stream *stream, void *owner)
{
}

static void on_data(struct stream *stream, void *owner)
{
    struct session *s = owner;
    if (s->silent)
        stream_consume(stream, stream_input(stream).n);
    else
        run(s);
}

static void on_drained(struct stream *stream, void *owner)
{
}

static void on_secured(struct stream *stream, void *owner, const struct tls_facts *facts)
{
    struct session *s = owner;
    s->certificate = sim_dup(facts->subject);
    smtp_server_tls_started(s->server);
    run(s);
}

static void on_closed(struct stream *stream, void *owner, int error, const char *why)
{
    session_free(owner);
}

static const struct stream_events events = {
    on_opened, on_data, on_drained, on_secured, on_closed,
};

static void begin(struct timer *t)
{
    struct session *s = CONTAINER_OF(t, struct session, delay);
    timer_init(&s->delay, delay_over);
    run(s);
}

void host_accept(struct sim_listener *l, struct stream *stream)
{
    struct sim_host *h = CONTAINER_OF(l, struct sim_host, listener);
    struct session *s = sim_alloc(sizeof *s);
    struct smtp_server_options opt = {
        .hostname = str_of(h->name),
        .size_limit = h->size_limit,
        .max_recipients = 1000,
        .starttls = h->starttls != SIM_STARTTLS_NONE,
        .smtputf8 = h->smtputf8,
        .chunking = h->chunking,
        .binarymime = h->binarymime,
        .requiretls = h->requiretls,
        .dsn = true,
        .deliver_by = h->deliver_by,
        .deliver_by_min_s = h->deliver_by_min_s,
        .priority = h->priority,
        .mechanisms = list_empty(&h->users) ? 0 : h->mechanisms,
        .clear_auth = h->auth_in_clear,
        .require_auth = !list_empty(&h->users),
    };
    s->host = h;
    s->stream = stream;
    s->number = ++h->accepted;
    s->server = smtp_server_new(&opt);
    CHECK(s->server != NULL);
    buf_init(&s->content, 0);
    set_busy(s, true);
    s->opened_ms = sim_wall(h->clock);
    stream->ev = &events;
    stream->owner = s;
    list_init(&s->link);
    list_push(&h->sessions, &s->link);
    h->open++;
    h->peak = MAX(h->peak, h->open);
    s->excess = h->most && h->open > h->most;
    h->turned_away += s->excess;
    struct sim_certificate cert = h->cert;
    if (!h->has_cert)
        cert.name = str_of(h->name);
    if (h->starttls == SIM_STARTTLS_BROKEN)
        cert.fails = STR("handshake failure");
    sim_stream_set_certificate(stream, &cert);
    timer_init(&s->delay, begin);
    sim_timer_in(h->clock, &s->delay, 0);
}
