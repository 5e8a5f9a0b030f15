/* session_out.c - connections to remote hosts. See session_out.h, and session_out_impl.h for the map.
 *
 * A session is in one of four states. OPENING: dial to READY. BUSY: its user runs a transaction. IDLE: in
 * the pool, nobody's. QUITTING: QUIT was sent; it ends by itself.
 *
 * Callbacks to the user can release or abort the session while its events are being worked through, so
 * it is freed only when that is over (`working`). */
#include "engine/session_out_impl.h"

#include <stdio.h>

#include "engine/hosts.h"
#include "engine/queue.h"
#include "engine/sources.h"
#include "engine/turn.h"

enum { SEND_HIGH = 64 * 1024, TURNED_MS = 10 * 60 * 1000 };

/* ---- counting and the end ------------------------------------------------------------------------ */

static void uncount(struct session_out *s)
{
    if (s->host)
        hosts_closed(s->all->engine->hosts, TAKE(s->host), s->state != IDLE);
}

/* Those that can be closed to make room for others count as such. */
void session_out_count(struct session_out *s, int more)
{
    struct connections *all = s->all;
    if (s->source)
        all->idle_at[sources_place(all->engine->shared->sources, s->source)] += (uint32_t)more;
}

static void leave_source(struct session_out *s)
{
    if (!s->source)
        return;
    if (s->state == IDLE)
        session_out_count(s, -1);
    source_leave(TAKE(s->source));
    queues_source_freed(s->all->engine->queues);
}

/* Frees now, or when its events have been worked through. */
void session_out_free(struct session_out *s)
{
    struct engine *e = s->all->engine;
    uncount(s);
    if (s->state != GONE) {
        s->all->n -= s->state != QUITTING;
        atomic_fetch_sub_explicit(&e->shared->counters.connections_out_open, 1,
                                  memory_order_relaxed);
    }
    leave_source(s);
    s->state = GONE;
    s->ev = NULL;
    list_remove(&s->link);
    list_remove(&s->bucket);
    list_remove(&s->later.link);
    engine_timer_stop(e, &s->timer);
    if (s->stream)
        stream_abort(TAKE(s->stream));
    if (s->working)
        return;
    s->client = smtp_client_free(s->client);
    s->recoding = recoding_free(s->recoding);
    s->message = message_unref(s->message);
    credentials_unref(s->credentials);
    snapshot_unref(s->snapshot);
    arena_done(&s->arena);
    free(s);
}

/* ---- deadlines -------------------------------------------------------------------------------- */

static int64_t usual_limit(const struct session_out *s, enum smtp_stage stage)
{
    const struct settings *set = s->snapshot->settings;
    switch (stage) {
    case SMTP_STAGE_CONNECT: return set->timeouts.connect_ms;
    case SMTP_STAGE_GREETING: return set->timeouts.greeting_ms;
    case SMTP_STAGE_HELO:
    case SMTP_STAGE_STARTTLS:
    case SMTP_STAGE_TLS:
    case SMTP_STAGE_AUTH: return set->timeouts.helo_ms;
    case SMTP_STAGE_READY: return set->queue.idle_ms;
    case SMTP_STAGE_MAIL: return set->timeouts.mail_ms;
    case SMTP_STAGE_RCPT: return set->timeouts.rcpt_ms;
    case SMTP_STAGE_DATA: return set->timeouts.data_command_ms;
    case SMTP_STAGE_BODY: return set->timeouts.body_ms;
    case SMTP_STAGE_FINAL: return set->timeouts.final_ms;
    case SMTP_STAGE_QUIT: return set->timeouts.quit_ms;
    }
    return set->timeouts.greeting_ms;
}

/* RFC 2645 §6: who has turned its connection may take ten minutes. */
static int64_t stage_limit(const struct session_out *s, enum smtp_stage stage)
{
    int64_t limit = usual_limit(s, stage);
    bool turned = turn_is_address(&s->key.addr) && stage != SMTP_STAGE_READY;
    return turned ? MAX(limit, (int64_t)TURNED_MS) : limit;
}

static enum smtp_stage stage_of(const struct session_out *s)
{
    return s->dialled ? smtp_client_stage(s->client) : SMTP_STAGE_CONNECT;
}

/* A deadline holds for one stage as a whole: a byte now and then does not extend it. Only the body is
 * timed by progress. The timer itself is moved only when it would fire too late. */
void session_out_set_deadline(struct session_out *s, bool progress)
{
    struct engine *e = s->all->engine;
    enum smtp_stage stage = stage_of(s);
    if (timer_armed(&s->timer) && stage == s->timed_stage && !progress)
        return;
    s->timed_stage = stage;
    s->deadline = engine_now(e) + stage_limit(s, stage);
    if (!timer_armed(&s->timer) || s->timer.at > s->deadline)
        e->ports.clock->timer_set(e->ports.clock, &s->timer, s->deadline);
}

/* ---- output ----------------------------------------------------------------------------------- */

int session_out_flush(struct session_out *s)
{
    struct str out = smtp_client_output(s->client);
    if (!s->stream || out.n == 0)
        return 0;
    int r = stream_write(s->stream, out.p, out.n);
    if (r == 0)
        smtp_client_sent(s->client, out.n);
    return r;
}

int session_out_piece(struct session_out *s, struct str *ret)
{
    const struct message *m = s->message;
    if (s->piece) {
        *ret = str_make(s->piece->data, s->piece->n);
        s->piece = s->piece->next;
        s->chunk++;
        return 1;
    }
    if (m->body && !m->body->staged)
        return 0;
    if (s->chunk >= m->n_chunks)
        return 0;
    struct port_spool *spool = s->all->engine->ports.spool;
    int r = spool->read_chunk(spool, &m->id, s->chunk, &s->all->bytes);
    if (r < 0)
        return r;
    s->chunk++;
    *ret = buf_str(&s->all->bytes);
    return 1;
}

void session_out_rewind(struct session_out *s)
{
    s->piece = s->message->body ? s->message->body->first : NULL;
    s->chunk = 0;
}

static int give(struct session_out *s, struct str piece)
{
    return s->recoding ? recoding_give(s, &piece) : smtp_client_body(s->client, piece.p, piece.n);
}

static int give_end(struct session_out *s)
{
    int r = s->recoding ? recoding_give(s, NULL) : 0;
    return r < 0 ? r : smtp_client_body_end(s->client);
}

/* Gives the body while the peer takes it. */
static void send_body(struct session_out *s)
{
    /* Stops above the high mark, not at it: only then is drained promised. */
    while (s->sending && s->stream && stream_unsent(s->stream) <= SEND_HIGH) {
        struct str piece;
        int r = session_out_piece(s, &piece);
        if (r > 0) {
            r = give(s, piece);
            r = r < 0 ? r : 1;
        } else if (r == 0) {
            s->sending = false;
            r = give_end(s);
        }
        if (r < 0) { /* without its end the peer does not take it: deferred */
            s->sending = false;
            smtp_client_lost(s->client, r);
        }
        r = session_out_flush(s);
        if (r < 0) /* nothing more is put into memory; -EPIPE: closed follows */
            s->sending = false;
        if (r < 0 && r != -EPIPE)
            smtp_client_lost(s->client, r);
        session_out_set_deadline(s, true);
    }
}

/* ---- events ----------------------------------------------------------------------------------- */

static void end_transaction(struct session_out *s)
{
    s->sending = s->requiretls = false;
    s->recoding = recoding_free(s->recoding);
    s->message = message_unref(s->message);
    s->piece = NULL;
}

static void go_idle(struct session_out *s)
{
    struct connections *all = s->all;
    if (s->host)
        hosts_idle(all->engine->hosts, s->host);
    s->state = IDLE;
    session_out_count(s, 1);
    if (s->source)
        queues_source_freed(all->engine->queues);
    s->ev = NULL;
    s->owner = NULL;
    pool_add_idle(s);
    s->deadline = engine_now(all->engine) + s->snapshot->settings->queue.idle_ms;
    s->timed_stage = SMTP_STAGE_READY;
    all->engine->ports.clock->timer_set(all->engine->ports.clock, &s->timer, s->deadline);
}

void session_out_quit(struct session_out *s)
{
    struct engine *e = s->all->engine;
    if (turn_is_address(&s->key.addr)) { /* the dialogue ends, the connection does not */
        if (s->stream)
            turn_leave(TAKE(s->stream));
        session_out_free(s);
        return;
    }
    uncount(s);
    if (s->state == IDLE)
        session_out_count(s, -1);
    list_remove(&s->bucket);
    list_remove(&s->link);
    list_push(&s->all->quitting, &s->link);
    if (s->state != QUITTING)
        s->all->n--; /* nobody is kept waiting for a farewell, which has its deadline */
    s->state = QUITTING;
    s->ev = NULL;
    smtp_client_quit(s->client);
    session_out_flush(s);
    s->deadline = engine_now(e) + s->snapshot->settings->timeouts.quit_ms;
    s->timed_stage = SMTP_STAGE_QUIT;
    e->ports.clock->timer_set(e->ports.clock, &s->timer, s->deadline);
}

void session_out_close(struct session_out *s)
{
    if (s->stream)
        stream_close(TAKE(s->stream));
    session_out_free(s);
}

/* Words for an error of the client's, for people. */
static struct str error_text(int error, enum smtp_stage stage)
{
    if (error == -EPROTO)
        return STR("not what SMTP allows");
    if (error == -EOPNOTSUPP && stage == SMTP_STAGE_STARTTLS)
        return STR("TLS is required, and the host does not offer it");
    if (error == -EOPNOTSUPP && stage == SMTP_STAGE_AUTH)
        return STR("the host offers no way to authenticate that may be used on this connection");
    if (error == -EKEYREJECTED)
        return STR("the host does not know the password itself: it is not who it should be");
    return str_of(strerror(-error));
}

/* The host is told that we go (RFC 5321 §4.1.1.10). True: its answer is waited for. A source that allows few
 * connections has none to spare for that. */
static bool say_goodbye(struct session_out *s)
{
    if (!s->stream || turn_is_address(&s->key.addr))
        return false;
    if (!s->source) {
        session_out_quit(s);
        return true;
    }
    smtp_client_quit(s->client);
    session_out_flush(s); /* stream_close sends it */
    return false;
}

static void tell_failed(struct session_out *s, const struct smtp_client_event *ev)
{
    const struct session_out_events *user = s->ev;
    void *owner = s->owner;
    enum smtp_stage stage = s->dialled ? ev->stage : SMTP_STAGE_CONNECT;
    struct str why = str_of(s->why);
    if (why.n == 0 && ev->error)
        why = error_text(ev->error, ev->stage);
    if (s->done_told || !user) {
        session_out_close(s);
        return;
    }
    /* Nothing more comes from the client, but the reply's text is still its own. */
    struct smtp_reply reply = ev->reply;
    if (reply.code == 0 && reply.text.n)
        why = reply.text;
    s->error = ev->error;
    s->ev = NULL;
    if (ev->in_order && say_goodbye(s)) {
        user->failed(owner, stage, &reply, why);
        return;
    }
    /* What its user does next may need the one connection that its source is allowed. */
    if (s->stream)
        stream_close(TAKE(s->stream));
    leave_source(s);
    if (s->state != QUITTING) /* likewise the one that the worker has left for it */
        s->all->n--;
    s->state = QUITTING;
    user->failed(owner, stage, &reply, why);
    session_out_free(s);
}

static enum tls_verify verify_of(enum route_tls tls)
{
    return tls == ROUTE_TLS_VERIFY ? TLS_VERIFY_NAME
           : tls == ROUTE_TLS_DANE ? TLS_VERIFY_DANE
                                   : TLS_VERIFY_NONE;
}

static void begin_tls(struct session_out *s)
{
    struct tls_request req = { .name = s->key.name,
                               .verify = verify_of(s->key.tls),
                               .dane = s->key.dane,
                               .certificate = s->key.certificate };
    session_out_flush(s);
    int r = stream_starttls(s->stream, &req);
    if (r == -ENOENT) /* a reload, between the look at the route and this */
        snprintf(s->why, sizeof s->why, "our certificate for it is not one of the configuration's");
    if (r < 0)
        smtp_client_lost(s->client, r);
}

static void on_ready(struct session_out *s)
{
    if (s->state == OPENING) {
        s->state = BUSY;
        s->ev->ready(s->owner);
    } else if (s->state == BUSY && s->done_told) {
        /* Its user has let it go, while the client was still clearing up. */
        s->done_told = false;
        if (s->leaving)
            session_out_quit(s);
        else
            go_idle(s);
    }
}

static void on_event(struct session_out *s, const struct smtp_client_event *ev)
{
    switch (ev->type) {
    case SMTP_CLIENT_READY: on_ready(s); break;
    case SMTP_CLIENT_STARTTLS: begin_tls(s); break;
    case SMTP_CLIENT_MAIL_RESULT:
        if (s->ev)
            s->ev->result(s->owner, SIZE_MAX, SMTP_STAGE_MAIL, &ev->reply);
        break;
    case SMTP_CLIENT_RCPT_RESULT:
        session_out_set_deadline(s, true); /* it is for each RCPT */
        if (s->ev)
            s->ev->rcpt(s->owner, ev->index, &ev->reply);
        break;
    case SMTP_CLIENT_NEED_BODY:
        s->sending = true;
        session_out_rewind(s);
        send_body(s);
        break;
    case SMTP_CLIENT_RESULT:
        if (s->ev)
            s->ev->result(s->owner, ev->index, ev->stage, &ev->reply);
        break;
    case SMTP_CLIENT_TRANSACTION_DONE:
        end_transaction(s);
        s->transactions++;
        if (s->ev)
            s->ev->done(s->owner);
        break;
    case SMTP_CLIENT_FAILED: tell_failed(s, ev); break;
    case SMTP_CLIENT_CLOSE: session_out_close(s); break;
    }
}

static void take_events(struct session_out *s)
{
    struct smtp_client_event ev;
    while (s->state != GONE) {
        int r = smtp_client_next(s->client, &ev);
        if (r < 0)
            session_out_close(s); /* dead, and told already */
        if (r <= 0)
            break;
        on_event(s, &ev);
    }
}

void session_out_work(struct session_out *s)
{
    if (s->working)
        return;
    s->working = true;
    take_events(s);
    if (s->state != GONE && session_out_flush(s) == -ENOMEM) {
        smtp_client_lost(s->client, -ENOMEM); /* or the host waits for it, and we for the host */
        take_events(s);
    }
    s->working = false;
    if (s->state == GONE) {
        session_out_free(s);
        return;
    }
    if (s->state == OPENING || s->state == BUSY)
        session_out_set_deadline(s, false);
}

/* ---- the stream ------------------------------------------------------------------------------- */

static void on_opened(struct stream *stream, void *owner)
{
    struct session_out *s = owner;
    s->dialled = true;
    s->tls.local = stream->local;
    session_out_set_deadline(s, false);
}

static void on_data(struct stream *stream, void *owner)
{
    struct session_out *s = owner;
    struct str in = stream_input(stream);
    smtp_client_feed(s->client, in.p, in.n);
    stream_consume(stream, in.n);
    session_out_work(s);
}

static void on_drained(struct stream *stream, void *owner)
{
    struct session_out *s = owner;
    send_body(s);
    session_out_work(s);
}

static void on_secured(struct stream *stream, void *owner, const struct tls_facts *facts)
{
    struct session_out *s = owner;
    s->tls_version = arena_str(&s->arena, facts->version);
    s->tls.secured = true;
    s->tls.fault = stream->tls_fault;
    s->tls.why = stream->tls_why;
    smtp_client_tls_started(s->client);
    session_out_work(s);
}

static void lose(struct session_out *s, int error, const char *why)
{
    s->stream = NULL;
    str_copy(str_of(why), s->why, sizeof s->why);
    smtp_client_lost(s->client, error ? error : -ECONNRESET);
    session_out_work(s);
}

static void on_closed(struct stream *stream, void *owner, int error, const char *why)
{
    struct session_out *s = owner;
    s->stream = NULL;
    s->tls.fault = stream->tls_fault;
    if (s->state == IDLE || s->state == QUITTING) {
        session_out_free(s);
        return;
    }
    if (!s->dialled && s->key.source.family != NET_NONE)
        s->fault = error == -EADDRNOTAVAIL ? SOURCE_NOT_HERE
                   : error == -EADDRINUSE  ? SOURCE_NO_PORT
                                           : SOURCE_WORKS;
    lose(s, error, error ? why : "the host closed the connection");
}

const struct stream_events session_out_stream_events = {
    .opened = on_opened,
    .data = on_data,
    .drained = on_drained,
    .secured = on_secured,
    .closed = on_closed,
};

void session_out_on_timer(struct timer *t)
{
    struct session_out *s = CONTAINER_OF(t, struct session_out, timer);
    struct engine *e = s->all->engine;
    if (engine_now(e) < s->deadline) {
        e->ports.clock->timer_set(e->ports.clock, &s->timer, s->deadline);
        return;
    }
    if (s->state == IDLE) {
        session_out_quit(s);
    } else if (s->state == QUITTING) {
        session_out_close(s);
    } else {
        if (s->stream)
            stream_abort(TAKE(s->stream));
        char why[64];
        snprintf(why, sizeof why, "timeout (%s)",
                 s->dialled ? smtp_stage_name(smtp_client_stage(s->client)) : "connect");
        lose(s, -ETIMEDOUT, why);
    }
}

/* ---- for users -------------------------------------------------------------------------------- */

static enum smtp_body_type body_type(const struct message *m)
{
    return m->flags & MESSAGE_BINARY ? SMTP_BODY_BINARYMIME
           : m->flags & MESSAGE_8BIT ? SMTP_BODY_8BITMIME
                                     : SMTP_BODY_7BIT;
}

/* The host does not take what is in the message. (What is internationalized cannot be converted.) */
static bool needs_recoding(const struct message *m, const struct smtp_client_caps *caps)
{
    if (m->flags & MESSAGE_SMTPUTF8 && !caps->smtputf8)
        return false;
    if (m->flags & MESSAGE_BINARY)
        return !caps->chunking || !caps->binarymime;
    return m->flags & MESSAGE_8BIT && !caps->eightbit;
}

/* DATA is what every host has been tested with, and needs no more round trips; BDAT carries what DATA
 * would change. */
static bool goes_by_bdat(const struct message *m, const struct smtp_client_caps *caps)
{
    return caps->chunking && m->flags & (MESSAGE_BINARY | MESSAGE_OPEN_END);
}

int session_out_send(struct session_out *s, struct message *m, const struct str *recipients,
                     const struct smtp_dsn_rcpt *dsn, size_t n)
{
    const struct smtp_client_caps *caps = smtp_client_caps(s->client);
    bool recode = needs_recoding(m, caps);
    struct smtp_client_mail mail = {
        .sender = m->sender.text,
        .recipients = recipients,
        .n_recipients = n,
        .size = m->size,
        .body = body_type(m),
        .bdat = goes_by_bdat(m, caps),
        .smtputf8 = (m->flags & MESSAGE_SMTPUTF8) != 0,
        .requiretls = s->requiretls,
        .dsn = { .ret = message_ret(m), .envid = m->envid },
        .rcpt_dsn = dsn,
        .by = message_by(m, engine_wall(s->all->engine)),
        .prioritized = true,
        .priority = m->times.priority,
    };
    struct message *before = s->message;
    s->message = message_ref(m);
    message_unref(before);
    int r = recode ? recoding_begin(s, recipients, dsn, n) : smtp_client_begin(s->client, &mail);
    if (r < 0) {
        s->message = message_unref(s->message);
        s->requiretls = false;
        return r;
    }
    if (!s->working) {
        session_out_set_deadline(s, true);
        r = session_out_flush(s);
    }
    return r == -ENOMEM ? r : 0;
}

int session_out_ask(struct session_out *s, struct str sender, struct str recipient, bool smtputf8)
{
    struct smtp_client_mail mail = { .sender = sender,
                                     .recipients = &recipient,
                                     .n_recipients = 1,
                                     .smtputf8 = smtputf8,
                                     .ask_only = true };
    int r = smtp_client_begin(s->client, &mail);
    if (r == 0 && !s->working) {
        session_out_set_deadline(s, true);
        r = session_out_flush(s);
    }
    return r == -EPIPE ? 0 : r; /* closed follows */
}

void session_out_release(struct session_out *s, bool keep)
{
    const struct settings *set = s->snapshot->settings;
    struct engine *e = s->all->engine;
    bool fresh = s->transactions < set->queue.per_connection && !smtp_client_spent(s->client) &&
                 engine_now(e) - s->opened_ms < set->queue.connection_ms;
    bool ready = smtp_client_stage(s->client) == SMTP_STAGE_READY;
    s->ev = NULL;
    s->leaving = !keep || !fresh || e->stopping || s->snapshot != e->snapshot;
    if (!ready && keep && !e->stopping)
        s->done_told = true; /* READY will come, for the next one or for QUIT */
    else if (!ready)
        session_out_close(s);
    else if (s->leaving)
        session_out_quit(s);
    else
        go_idle(s);
}

void session_out_abort(struct session_out *s)
{
    s->ev = NULL;
    session_out_free(s);
}

const struct net_addr *session_out_peer(const struct session_out *s)
{
    return &s->key.addr;
}

struct str session_out_peer_name(const struct session_out *s)
{
    return smtp_client_peer_name(s->client);
}

struct str session_out_tls_version(const struct session_out *s)
{
    return s->tls_version;
}

bool session_out_offers_dsn(const struct session_out *s)
{
    return smtp_client_caps(s->client)->dsn;
}

bool session_out_offers_requiretls(const struct session_out *s)
{
    return smtp_client_caps(s->client)->requiretls && session_out_verified(s);
}

/* TLSA records of which none can be used leave TLS without verification (RFC 7672 section 2.2): what an authority says
 * is known all the same. */
bool session_out_verified(const struct session_out *s)
{
    return s->tls_version.n && s->tls.fault == TLS_FINE;
}

bool session_out_admit(struct session_out *s, struct str recipient, size_t others)
{
    return smtp_client_admit(s->client, recipient, others);
}

void session_out_require_tls(struct session_out *s)
{
    s->requiretls = true;
}

int session_out_error(const struct session_out *s)
{
    return s->error;
}

bool session_out_offers_by(const struct session_out *s)
{
    return smtp_client_caps(s->client)->deliver_by;
}

const char *session_out_why_not_in_time(const struct session_out *s, const struct message *m)
{
    const struct smtp_client_caps *caps = smtp_client_caps(s->client);
    struct smtp_by by = message_by(m, engine_wall(s->all->engine));
    bool there =
        s->key.lmtp && !caps->deliver_by && by.seconds >= 0; /* LMTP is the end of the way */
    if (by.mode != SMTP_BY_RETURN || there)
        return NULL;
    if (!caps->deliver_by && !s->key.lmtp)
        return "the host does not offer DELIVERBY, and the message is to be returned if it is not "
               "delivered in time (BY=...;R)";
    if (by.seconds < 1)
        return "the time within which it was to be delivered is over (BY=...;R)";
    if ((uint32_t)by.seconds < caps->deliver_by_min_s)
        return "the host takes longer than the time that is left to deliver it (BY=...;R)";
    return NULL;
}

bool session_out_reused(const struct session_out *s)
{
    return s->reused;
}

bool session_out_tls(struct session_out *s, struct session_out_tls *ret)
{
    if (s->tls_told || s->key.tls == ROUTE_TLS_NONE)
        return false;
    s->tls_told = true;
    s->tls.offered = s->tls.secured || smtp_client_caps(s->client)->starttls;
    *ret = s->tls;
    return true;
}

enum session_out_fault session_out_source_fault(const struct session_out *s)
{
    return s->fault;
}

enum smtp_stage session_out_stage(const struct session_out *s)
{
    return stage_of(s);
}
