/* session_in.c - sessions of clients: streams, deadlines, and the loop that moves bytes.
 *
 * Layer: engine. Interface: session_in.h; the map of the files: session_in_internal.h.
 *
 * One loop (turn) feeds the SMTP server and takes its events until it needs input or an answer.
 * Handling an event may answer it at once; the loop then simply goes on, nothing recurses. What is
 * to be sent is written once, when the loop ends: pipelined commands get their replies in one write.
 *
 * A session has one timer. Deadlines move with each command; the timer is moved only when it fires
 * too early, or when a deadline comes to lie before it.
 */
#include "engine/session_in_internal.h"

#include <stdio.h>

#include "engine/turn.h"

enum {
    UNSENT_HIGH = 64 * 1024, /* with more than this unsent, reading pauses */
    OUTPUT_HIGH = 32 * 1024, /* output that is written before the loop ends */
    OWN_DELAY_MS = 1000,  /* how soon a deadline is looked at again while we let the client wait */
    TOLD_EVERY_MS = 1000, /* how often the log says that clients are turned away */
    REFUSED_MS = 10 * 1000, /* how long QUIT is waited for behind a greeting with 554 */
    COMMANDS_IDLE = 1000,   /* commands without any message that are borne, besides recipients */
};

/* What DELIVERBY and FUTURERELEASE can say. */
static const int64_t MOST_MS = SMTP_HOLD_MOST * (int64_t)1000;

static void on_data(struct stream *stream, void *owner);
static void on_drained(struct stream *stream, void *owner);
static void on_secured(struct stream *stream, void *owner, const struct tls_facts *facts);
static void on_closed(struct stream *stream, void *owner, int error, const char *why);

static const struct stream_events stream_events = {
    .data = on_data, .drained = on_drained, .secured = on_secured, .closed = on_closed
};

/* ---- the end ---- */

static void log_closed(const struct session *s, const char *why)
{
    engine_event(s->e, EVENT(s->refused ? EVENT_INFO : EVENT_DEBUG, "session_closed",
                             F_INT("session", (int64_t)s->view.id), F_STRZ("client", s->client),
                             F_STRZ("why", why), F_INT("messages", s->messages)));
}

/* Frees all but the stream. */
static void session_free(struct session *s)
{
    struct hooks *hooks = s->snapshot->hooks;

    session_cancel(s);
    auth_free(s->auth);
    session_end_transaction(s);
    engine_timer_stop(s->e, &s->timer);
    engine_timer_stop(s->e, &s->greeting);
    session_discharge(s);
    list_remove(&s->link);
    s->all->n--;
    sessions_look_at_stress(s->all);
    atomic_fetch_sub_explicit(&s->e->shared->counters.sessions_open, 1, memory_order_relaxed);
    if (hooks->session_closed)
        hooks->session_closed(hooks, s->view.id);
    smtp_server_free(s->server);
    snapshot_unref(s->snapshot);
    free(s->helo);
    free(s->tls_text);
    free(s->identity);
    free(s->client_name);
    free(s->client);
    free(s->told);
    free(s->header);
    free(s);
}

static void session_end(struct session *s, const char *why, bool in_order)
{
    if (s->stream && in_order)
        stream_close(s->stream);
    else if (s->stream)
        stream_abort(s->stream);
    s->stream = NULL;
    log_closed(s, why);
    session_free(s);
}

static void flush(struct session *s);

void session_hand_over(struct session *s, struct turn *turn)
{
    flush(s);
    if (s->broken) {
        turn_free(turn);
        session_end(s, "out of memory", false);
        return;
    }
    struct stream *stream = TAKE(s->stream);
    log_closed(s, "turned by ATRN");
    session_free(s);
    turn_begin(turn, stream);
}

/* ---- deadlines ---- */

static bool waits_for_us(const struct session *s)
{
    return s->ticket || s->paused;
}

void session_hold(struct session *s)
{
    stream_hold(s->stream);
    s->held = true;
}

static void arm(struct session *s, int64_t at)
{
    if (!timer_armed(&s->timer) || at < s->timer.at)
        s->e->ports.clock->timer_set(s->e->ports.clock, &s->timer, at);
}

/* The client has done something, or it is its turn again. */
static void extend_deadline(struct session *s)
{
    if (smtp_server_refused(s->server)) /* it has only QUIT to say, whatever else it says */
        s->end = MIN(s->end, engine_now(s->e) + REFUSED_MS);
    s->deadline = engine_now(s->e) + session_idle_ms(s);
    arm(s, MIN(s->deadline, s->end));
}

void session_hurry(struct session *s, int64_t ms)
{
    s->deadline = MIN(s->deadline, engine_now(s->e) + ms);
    arm(s, MIN(s->deadline, s->end));
}

static void on_timer(struct timer *t)
{
    struct session *s = CONTAINER_OF(t, struct session, timer);
    int64_t now = engine_now(s->e), due = MIN(s->deadline, s->end);

    if (s->answer_by && now >= s->answer_by) {
        session_end(s, "no answer to the message in time", false);
        return;
    }
    if (waits_for_us(s))
        due = MAX(due, now + OWN_DELAY_MS);
    if (now < due) {
        arm(s, due);
        return;
    }
    s->refused = true;
    if (s->header || s->securing || s->stopped) {
        session_end(s,
                    s->header     ? "timeout before the PROXY header"
                    : s->securing ? "timeout in the TLS handshake"
                                  : "timeout",
                    false);
        return;
    }
    session_stop(s, REPLY(421, ENH(4, 4, 2), "timeout, closing connection"),
                 s->deadline > s->end             ? "session lasted too long"
                 : smtp_server_in_data(s->server) ? "timeout in data"
                                                  : "timeout");
    session_pump(s);
}

/* ---- moving bytes ---- */

/* A broken stream says so by `closed`. */
static void flush(struct session *s)
{
    struct str out = smtp_server_output(s->server);

    if (out.n == 0)
        return;
    if (stream_write(s->stream, out.p, out.n) == -ENOMEM)
        s->broken = true; /* a reply is lost: the client would take the next one for it */
    smtp_server_sent(s->server, out.n);
    s->progress = true;
}

static bool blocked(const struct session *s)
{
    return waits_for_us(s) || s->choked || s->want_tls || s->securing || s->header;
}

/* Between transactions, and nothing is undecided. */
static bool may_stop(const struct session *s)
{
    return s->all->stopping && !s->stopped && !s->intake && !s->recipients && !s->ticket &&
           !s->want_tls && !s->securing && !s->header && !smtp_server_in_data(s->server);
}

static void note_early_talker(struct session *s, const char *why)
{
    if (strcmp(why, "talking before the greeting") != 0)
        return;
    s->refused = true;
    COUNT(s->e, early_talkers, 1);
}

/* Takes events until there is none. NULL, or why the session is over. */
static const char *take_events(struct session *s, bool *ret_in_order)
{
    struct smtp_server_event ev;
    int r = 0;

    while (!blocked(s) && (r = smtp_server_next(s->server, &ev)) == 1) {
        if (ev.type == SMTP_SERVER_CLOSE) {
            *ret_in_order = true;
            note_early_talker(s, ev.close.why);
            return ev.close.why;
        }
        session_event(s, &ev);
        s->progress = true;
    }
    return r < 0 ? "out of memory" : NULL;
}

bool session_feed(struct session *s)
{
    struct str in;
    size_t n;

    if (smtp_server_output(s->server).n > OUTPUT_HIGH)
        flush(s);
    if (stream_unsent(s->stream) > UNSENT_HIGH) {
        s->choked = true;
        return false;
    }
    in = stream_input(s->stream);
    if (in.n == 0)
        return false;
    n = smtp_server_feed(s->server, in.p, in.n);
    stream_consume(s->stream, n);
    return n > 0;
}

/* NULL, or why the session is over. */
static const char *turn(struct session *s, bool *ret_in_order)
{
    const char *why;

    do {
        why = take_events(s, ret_in_order);
        if (!why && may_stop(s)) {
            session_stop(s, REPLY(421, ENH(4, 3, 2), "shutting down, try again later"),
                         "shutting down");
            why = take_events(s, ret_in_order);
        }
    } while (!why && !blocked(s) && session_feed(s));
    return why;
}

/* implicit: the client's side of it may have come already, behind a PROXY header. */
static bool begin_tls(struct session *s, bool implicit)
{
    const struct tls_request req = { .server = true,
                                     .keep_input = implicit,
                                     .clients = s->tls_clients,
                                     .client_ca = str_of(s->client_ca) };

    s->want_tls = false;
    s->securing = true;
    return stream_starttls(s->stream, &req) == 0;
}

void session_pump(struct session *s)
{
    bool in_order = false;

    if (s->pumping)
        return;
    s->pumping = true;
    const char *why = turn(s, &in_order);
    s->pumping = false;
    flush(s);
    if (s->broken && !why)
        why = "out of memory";
    if (!why && s->want_tls && !begin_tls(s, false)) {
        why = "cannot do TLS";
        s->refused = true;
    }
    if (why) {
        session_end(s, why, in_order);
        return;
    }
    if (s->progress)
        extend_deadline(s);
    s->progress = false;
    if (s->paused)
        session_hold(s); /* the end of the message may have been read already */
    if (blocked(s)) {
        s->held = s->held || stream_input(s->stream).n > 0;
    } else if (s->held) {
        s->held = false;
        stream_resume(s->stream);
    }
}

void session_stop(struct session *s, struct smtp_reply reply, const char *why)
{
    session_cancel(s);
    s->ticket = 0;
    s->paused = s->choked = false;
    s->answer_by = 0;
    s->stopped = true;
    smtp_server_stop(s->server, &reply, why);
}

/* ---- the stream ---- */

static void on_data(struct stream *stream, void *owner)
{
    struct session *s = owner;

    (void)stream;
    if (s->header)
        session_read_header(s);
    else if (s->delayed)
        session_greet(s); /* at once: it has nothing to wait for any more */
    else
        session_pump(s);
}

static void on_greeting(struct timer *t)
{
    session_greet(CONTAINER_OF(t, struct session, greeting));
}

static void on_drained(struct stream *stream, void *owner)
{
    struct session *s = owner;

    (void)stream;
    s->choked = false;
    session_pump(s);
}

static void on_closed(struct stream *stream, void *owner, int error, const char *why)
{
    struct session *s = owner;

    (void)stream;
    s->stream = NULL;
    s->refused = s->refused || s->intake || error == -EPROTO;
    session_end(s, error == 0 || !why ? "closed by the client" : why, false);
}

/* One block for all facts, which live only during the call. */
static bool keep_tls_facts(struct session *s, const struct tls_facts *f)
{
    struct tls_facts *keep = &s->view.tls_facts;
    const struct str from[] = { f->version, f->cipher,      f->subject,        f->issuer,
                                f->names,   f->fingerprint, f->key_fingerprint };
    struct str *to[] = { &keep->version, &keep->cipher,      &keep->subject,        &keep->issuer,
                         &keep->names,   &keep->fingerprint, &keep->key_fingerprint };
    size_t n = 1;

    for (size_t i = 0; i < ARRAY_LEN(from); i++)
        n += from[i].n;
    char *p = malloc(n);
    if (!p)
        return false;
    free(s->tls_text);
    s->tls_text = p;
    for (size_t i = 0; i < ARRAY_LEN(from); i++) {
        if (from[i].n)
            memcpy(p, from[i].p, from[i].n);
        *to[i] = str_make(p, from[i].n);
        p += from[i].n;
    }
    keep->resumed = f->resumed;
    keep->verified = f->verified;
    s->view.tls = true;
    return true;
}

static void on_secured(struct stream *stream, void *owner, const struct tls_facts *facts)
{
    struct session *s = owner;
    bool asked = s->offers_tls; /* by STARTTLS; else it was TLS from the start */

    (void)stream;
    s->securing = false;
    COUNT(s->e, tls_sessions, 1);
    COUNT(s->e, tls_resumed, facts->resumed);
    if (!keep_tls_facts(s, facts)) {
        session_end(s, "out of memory", false);
        return;
    }
    s->view.helo = STR(""); /* what was said in clear does not count (RFC 3207 §4.2) */
    s->view.extended = false;
    session_forget_identity(s);
    s->offers_tls = false;
    if (asked)
        smtp_server_tls_started(s->server);
    session_set_options(s);
    s->held = true; /* the stream is to be told that we read again */
    extend_deadline(s);
    session_pump(s);
}

/* ---- the beginning ---- */

void session_set_options(struct session *s)
{
    const struct settings *set = s->snapshot->settings;
    struct smtp_server_options opt = {
        .hostname = set->hostname,
        .size_limit = set->limits.message_size,
        .max_recipients = set->limits.recipients,
        .max_errors = session_max_errors(s),
        .max_commands = COMMANDS_IDLE,
        .starttls = s->offers_tls,
        .require_tls = s->tls_required,
        .tls = s->view.tls,
        .etrn = s->snapshot->hooks->offers_etrn && str_eq(s->view.service, STR("smtp")),
        .atrn = s->odmr,
        .smtputf8 = true,
        .mechanisms = s->listen_auth == LISTEN_AUTH_NONE ? 0 : auth_mechanisms(s->e, s->snapshot),
        /* Nobody listens on a Unix socket. */
        .clear_auth = set->auth.without_tls || s->stream->local.family == NET_UNIX,
        .require_auth = s->listen_auth == LISTEN_AUTH_REQUIRE,
        .max_auth_failures = set->auth.attempts,
        .dsn = true,
        .xclient = s->may_xclient,
        .chunking = s->chunking && !s->odmr,
        .binarymime = s->binarymime,
        .lmtp = s->view.lmtp,
        .requiretls = s->requiretls && !s->odmr,
        .limits = !s->odmr,
        .max_messages = set->limits.messages,
        .deliver_by = s->deliver_by && !s->odmr,
        .deliver_by_min_s = s->deliver_by_min_s,
        .hold_max_s = s->future_release_s,
        .hold_max_ms =
            (engine_wall(s->e) / 1000 + s->future_release_s) * 1000, /* as EHLO tells it */
        .priority = s->priority && !s->odmr,
        .priority_profile = s->priority_profile,
    };

    smtp_server_set_options(s->server, &opt);
}

static bool in_relay_networks(const struct session *s)
{
    const struct settings *set = s->snapshot->settings;

    return net_cidrs_contain(set->relay_from, set->n_relay_from, s->view.client);
}

void session_forget_identity(struct session *s)
{
    free(s->identity);
    s->identity = NULL;
    s->told_login = false;
    s->view.identity = STR("");
    s->view.may_relay = in_relay_networks(s);
}

/* A flood must not become a flood of lines. */
static void log_turned_away(struct sessions_in *all, const struct stream *stream, const char *text)
{
    char client[NET_ADDR_TEXT];
    int64_t now = engine_now(all->e);

    all->turned_away++;
    if (all->told_ms && now < all->told_ms + TOLD_EVERY_MS)
        return;
    all->told_ms = now;
    engine_event(all->e, EVENT(EVENT_WARN, "sessions_turned_away",
                               F_STRZ("client", net_addr_ip_text(&stream->peer, client)),
                               F_STRZ("why", text), F_INT("sessions", (int64_t)all->n),
                               F_INT("turned_away", (int64_t)all->turned_away)));
}

/* The reply is all that such a client gets. mute: not even that, it understands nothing before its TLS
 * handshake. */
static void turn_away(struct sessions_in *all, struct stream *stream, bool mute, const char *code,
                      const char *text)
{
    char line[128];
    int n = snprintf(line, sizeof(line), "421 %s %s, try again later\r\n", code, text);

    log_turned_away(all, stream, text);
    if (mute) {
        stream_abort(stream);
        return;
    }
    stream_write(stream, line, (size_t)n);
    stream_close(stream);
}

static void turn_away_session(struct session *s, const char *text)
{
    struct sessions_in *all = s->all;
    struct stream *stream = TAKE(s->stream);
    bool mute = s->securing;

    session_free(s);
    turn_away(all, stream, mute, "4.7.0", text);
}

static struct str service_of(const struct listen_settings *listener)
{
    return listener->service.n ? listener->service : STR("smtp");
}

static bool describe(struct session *s, const struct listen_settings *listener)
{
    struct stream *stream = s->stream;

    s->service = s->listener + listener->text.n + 1;
    str_copy(listener->text, s->listener, listener->text.n + 1);
    str_copy(service_of(listener), s->service, service_of(listener).n + 1);
    char *client_ca = s->service + service_of(listener).n + 1;
    str_copy(listener->client_ca, client_ca, listener->client_ca.n + 1);
    s->client_ca = client_ca;
    s->tls_clients = (enum tls_clients)listener->clients;
    s->greeting_delay_ms = listener->greeting_delay_ms;
    s->view = (struct session_view){
        .id = engine_new_key(s->e),
        .client_name = STR(""),
        .helo = STR(""),
        .identity = STR(""),
        .service = str_of(s->service),
        .lmtp = str_eq(listener->service, STR("lmtp")),
    };
    if (!session_set_client(s, &stream->peer, &stream->local))
        return false;
    s->listen_auth = listener->auth;
    s->chunking = listener->chunking;
    s->binarymime = listener->binarymime;
    s->requiretls = listener->requiretls;
    s->deliver_by = listener->deliver_by;
    s->deliver_by_min_s = (uint32_t)(MIN(listener->deliver_by_min_ms, MOST_MS) / 1000);
    s->future_release_s = (uint32_t)(MIN(listener->future_release_ms, MOST_MS) / 1000);
    s->priority = listener->priority;
    s->priority_profile = listener->priority_profile;
    s->odmr = str_eq(s->view.service, STR("odmr"));
    s->tls_required = listener->tls == LISTEN_TLS_REQUIRE || s->tls_clients == TLS_CLIENTS_REQUIRE;
    s->securing = listener->tls == LISTEN_TLS_IMPLICIT;
    s->offers_tls = !s->securing && listener->tls != LISTEN_TLS_NONE &&
                    s->e->ports.net->can_serve_tls(s->e->ports.net);
    return true;
}

static struct session *session_new(struct sessions_in *all, struct stream *stream,
                                   const struct listen_settings *listener)
{
    struct engine *e = all->e;
    struct session *s = calloc(1, sizeof(*s) + listener->text.n + service_of(listener).n +
                                      listener->client_ca.n + 3);

    if (!s)
        return NULL;
    s->all = all;
    s->e = e;
    s->stream = stream;
    s->snapshot = snapshot_ref(e->snapshot);
    arena_init(&s->scratch, 0);
    timer_init(&s->timer, on_timer);
    timer_init(&s->greeting, on_greeting);
    s->server = smtp_server_new(&(struct smtp_server_options){ .hostname = STR("") });
    if (!s->server || !describe(s, listener)) {
        smtp_server_free(s->server);
        snapshot_unref(s->snapshot);
        free(s->client);
        free(s);
        return NULL;
    }
    session_set_options(s);
    s->end = engine_now(e) + s->snapshot->settings->timeouts.session_ms;
    list_push(&all->open, &s->link);
    all->n++;
    COUNT(e, connections, 1);
    COUNT(e, sessions_open, 1);
    stream->ev = &stream_events;
    stream->owner = s;
    sessions_look_at_stress(all);
    return s;
}

void session_drop(struct session *s, const char *why)
{
    s->refused = true;
    session_end(s, why, false);
}

void session_begin(struct session *s, bool secures_itself)
{
    const struct settings *set = s->snapshot->settings;
    char proxy[NET_ADDR_TEXT] = "";

    if (s->view.proxy)
        net_addr_ip_text(s->view.proxy, proxy);
    engine_event(s->e, EVENT(EVENT_DEBUG, "session_opened", F_INT("session", (int64_t)s->view.id),
                             F_STRZ("client", s->client), F_STRZ("listener", s->listener),
                             F_STRZ("proxy", proxy)));
    /* Asked of the address that PROXY told, never of one that XCLIENT tells. */
    s->may_xclient = net_cidrs_contain(set->xclient_from, set->n_xclient_from, s->view.client);
    const char *too_much = session_admit(s);
    if (too_much) {
        turn_away_session(s, too_much);
        return;
    }
    session_set_options(s);
    extend_deadline(s);
    if (!s->securing)
        session_pump(s);
    else if (!secures_itself && !begin_tls(s, true))
        session_drop(s, "cannot do TLS");
}

void sessions_in_accept(struct sessions_in *all, struct stream *stream,
                        const struct listen_settings *listener)
{
    struct engine *e = all->e;
    uint32_t limit = e->snapshot->settings->limits.sessions;

    /* Who comes by a Unix socket has no address; what it has bound its own end to says nothing. */
    if (stream->local.family == NET_UNIX)
        stream->peer = stream->local;
    if (all->stopping || e->stopping || atomic_load(&e->shared->stopping)) {
        COUNT(e, connections, 1);
        turn_away(all, stream, listener->tls == LISTEN_TLS_IMPLICIT, "4.3.2", "shutting down");
        return;
    }
    struct session *s = limit == 0 || all->n < limit ? session_new(all, stream, listener) : NULL;
    if (!s) {
        COUNT(e, connections, 1);
        turn_away(all, stream, listener->tls == LISTEN_TLS_IMPLICIT, "4.3.2", "too many sessions");
        return;
    }
    if (!net_cidrs_contain(listener->proxy, listener->n_proxy, &stream->peer)) {
        session_begin(s, stream->tls);
        return;
    }
    s->deadline = engine_now(e) + s->snapshot->settings->timeouts.proxy_ms;
    arm(s, s->deadline);
    if (!session_await_header(s))
        session_drop(s, "out of memory");
}

/* ---- all of them ---- */

struct sessions_in *sessions_in_new(struct engine *e)
{
    struct sessions_in *all = calloc(1, sizeof(*all));

    if (all) {
        all->e = e;
        list_init(&all->open);
    }
    return all;
}

struct sessions_in *sessions_in_free(struct sessions_in *all)
{
    if (!all)
        return NULL;
    LIST_FOREACH(it, &all->open)
    {
        struct session *s = LIST_ENTRY(it, struct session, link);
        stream_abort(s->stream);
        s->stream = NULL;
        session_free(s);
    }
    if (all->stressed)
        atomic_fetch_sub_explicit(&all->e->shared->counters.workers_stressed, 1,
                                  memory_order_relaxed);
    intakes_forget(all->e);
    free(all);
    return NULL;
}

void sessions_in_stop(struct sessions_in *all)
{
    all->stopping = true;
    LIST_FOREACH(it, &all->open)
    {
        struct session *s = LIST_ENTRY(it, struct session, link);
        session_pump(s);
    }
}

size_t sessions_in_count(const struct sessions_in *all)
{
    return all->n;
}
