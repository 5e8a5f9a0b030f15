/* net_stream.c - the life of a virtual stream: what is written, what is under way, what arrives.
 *
 * Layer: sim. Interface: net.h. Each end sends by itself: `out` waits for the window, `flight` and
 * `items` are under way and arrive at the peer when the timer `arrive` says so, one item a turn.
 * Ends are freed by the network's reaper on a later turn, so that one that is lost within a callback can
 * still be looked at.
 */
#include <stdio.h>

#include "proto/dane.h"
#include "sim/net_impl.h"

static const struct stream_ops end_ops;
static void arrive(struct timer *t);
static void window_opened(struct timer *t);
static void lingered(struct timer *t);
static void resumed(struct later *l);

struct end *end_new(struct sim_net *n, int64_t latency_ms)
{
    struct end *e = sim_alloc(sizeof *e);
    e->stream.ops = &end_ops;
    e->net = n;
    e->latency_ms = latency_ms;
    e->state = END_CONNECTING;
    buf_init(&e->in, 0);
    buf_init(&e->out, 0);
    buf_init(&e->flight, 0);
    list_init(&e->items);
    timer_init(&e->arrive, arrive);
    timer_init(&e->window, window_opened);
    timer_init(&e->linger, lingered);
    later_init(&e->resume, resumed);
    list_push(&n->ends, &e->link);
    return e;
}

static void drop_items(struct end *e)
{
    for (struct list *it; (it = list_pop(&e->items));)
        free(LIST_ENTRY(it, struct item, link));
    buf_clear(&e->flight);
}

void end_free(struct end *e)
{
    drop_items(e);
    buf_done(&e->in);
    buf_done(&e->out);
    buf_done(&e->flight);
    cert_done(&e->cert);
    free((char *)e->tls.name.p);
    free((char *)e->tls.dane.p);
    free((char *)e->tls.certificate.p);
    free(e);
}

static void stop_timers(struct end *e)
{
    struct sim_clock *c = e->net->clock;
    sim_timer_stop(c, &e->arrive);
    sim_timer_stop(c, &e->window);
    sim_timer_stop(c, &e->linger);
    sim_timer_stop(c, &e->connect);
    list_remove(&e->resume.link);
}

void end_bury(struct end *e)
{
    if (e->state == END_DEAD)
        return;
    e->state = END_DEAD;
    stop_timers(e);
    if (e->peer)
        e->peer->peer = NULL;
    e->peer = NULL;
    list_remove(&e->link);
    list_push(&e->net->graveyard, &e->link);
    if (!timer_armed(&e->net->reaper))
        sim_timer_in(e->net->clock, &e->net->reaper, 0);
}

/* ---- sending ---------------------------------------------------------------------------------- */

static void arm_arrival(struct end *e)
{
    struct list *first = list_first(&e->items);
    struct sim_clock *c = e->net->clock;
    if (first && !e->frozen)
        sim_timer_in(c, &e->arrive, LIST_ENTRY(first, struct item, link)->at - c->now);
}

static void add_item(struct end *e, enum item_kind kind, size_t n)
{
    struct sim_net *net = e->net;
    int64_t at = net->clock->now + e->latency_ms;
    if (net->faults.jitter_ms)
        at += (int64_t)sim_random_below(&net->random, (uint64_t)net->faults.jitter_ms + 1);
    at = MAX(at, e->last_at);
    e->last_at = at;
    if (!list_empty(&e->items)) {
        struct item *before = LIST_ENTRY(e->items.prev, struct item, link);
        if (before->kind == ITEM_BYTES && kind == ITEM_BYTES && before->at == at) {
            before->n += n;
            return;
        }
    }
    struct item *it = sim_alloc(sizeof *it);
    *it = (struct item){ .kind = kind, .n = n, .at = at };
    list_init(&it->link);
    list_push(&e->items, &it->link);
    if (!timer_armed(&e->arrive))
        arm_arrival(e);
}

static size_t window_left(const struct end *e)
{
    const struct end *p = e->peer;
    if (!p || p->state != END_OPEN)
        return SIZE_MAX; /* nobody reads: it is thrown away */
    size_t used = buf_len(&e->flight) + buf_len(&p->in);
    return used < SIM_WINDOW ? SIM_WINDOW - used : 0;
}

static void send_fin(struct end *e)
{
    if (e->fin_sent)
        return;
    e->fin_sent = true;
    add_item(e, ITEM_FIN, 0);
}

static void send_hello(struct end *e)
{
    e->hello_sent = true;
    add_item(e, ITEM_HELLO, 0);
    if (e->hello_seen)
        sim_timer_in(e->net->clock, &e->window, 0);
}

/* Puts under way what the window allows, and what has to follow it. */
static void push(struct end *e)
{
    bool handshake = e->tls_wanted && !e->stream.tls;
    if (!e->hello_sent || !handshake) {
        size_t n = MIN(buf_len(&e->out), window_left(e));
        if (n > 0) {
            CHECK(buf_add(&e->flight, buf_str(&e->out).p, n) == 0);
            buf_consume(&e->out, n);
            add_item(e, ITEM_BYTES, n);
        }
    }
    if (buf_len(&e->out) > 0)
        return;
    if (handshake && !e->hello_sent)
        send_hello(e);
    if (e->close_wanted)
        send_fin(e);
}

/* ---- ends of ends ----------------------------------------------------------------------------- */

/* The owner is gone; what is under way goes on. */
static void leave(struct end *e)
{
    struct sim_clock *c = e->net->clock;
    e->state = END_LEFT;
    e->stream.ev = NULL;
    e->stream.owner = NULL;
    buf_clear(&e->in);
    e->paused = false;
    list_remove(&e->resume.link);
    sim_timer_in(c, &e->linger, SIM_CLOSE_MS);
    if (e->peer && e->peer->state != END_DEAD) /* it may be waiting for room */
        sim_timer_in(c, &e->peer->window, 0);
}

static void reset(struct end *e)
{
    buf_clear(&e->out);
    e->fin_sent = true;
    add_item(e, ITEM_RESET, 0);
    arm_arrival(e);
}

void end_lose(struct end *e, int error, const char *why)
{
    const struct stream_events *ev = e->stream.ev;
    void *owner = e->stream.owner;
    bool alone = e->state == END_CONNECTING || !e->peer;
    leave(e);
    buf_clear(&e->out);
    if (alone)
        end_bury(e);
    else if (error)
        reset(e);
    else
        send_fin(e);
    ev->closed(&e->stream, owner, error, why);
}

static void lingered(struct timer *t)
{
    struct end *e = CONTAINER_OF(t, struct end, linger);
    struct end *p = e->peer;
    bool tell = p && p->state == END_OPEN && !e->frozen;
    end_bury(e);
    if (tell)
        end_lose(p, -ECONNRESET, "connection reset by peer");
}

/* ---- TLS -------------------------------------------------------------------------------------- */

static bool names_match(struct str cert, struct str name)
{
    if (str_starts(cert, STR("*."))) {
        ptrdiff_t dot = str_chr(name, '.');
        return dot > 0 && str_caseeq(str_from(name, (size_t)dot), str_from(cert, 1));
    }
    return str_caseeq(cert, name);
}

static const char *verify(struct end *e, const struct sim_certificate *cert)
{
    e->stream.tls_fault = TLS_NOT_TRUSTED;
    e->stream.tls_why = "self-signed certificate";
    if (cert->untrusted || cert->name.n == 0)
        return "TLS: certificate verify failed: self-signed certificate";
    e->stream.tls_fault = TLS_EXPIRED;
    e->stream.tls_why = "certificate has expired";
    if (cert->expired)
        return "TLS: certificate verify failed: certificate has expired";
    e->stream.tls_fault = TLS_OTHER_NAME;
    e->stream.tls_why = "hostname mismatch";
    if (!names_match(cert->name, e->tls.name))
        return "TLS: certificate verify failed: hostname mismatch";
    e->stream.tls_fault = TLS_FINE;
    e->stream.tls_why = NULL;
    return NULL;
}

/* The octets of a simulated certificate are those of its name. */
static const char *verify_dane(struct end *e, const struct sim_certificate *cert)
{
    struct dane d;
    struct dane_record r;
    CHECK(dane_read(e->tls.dane, &d));
    while (dane_take(&d.records, &r))
        if (r.matching == 0 && str_eq(r.data, cert->name) &&
            (r.usage == DANE_USAGE_EE || names_match(cert->name, d.base) ||
             names_match(cert->name, d.domain)))
            return NULL;
    e->stream.tls_fault = TLS_NOT_TLSA;
    return "TLS: No matching DANE TLSA records";
}

static void shake_hands(struct end *e)
{
    const struct end *p = e->peer;
    if (!e->hello_sent || !e->hello_seen || e->stream.tls)
        return;
    if (!p)
        return; /* its reset is on its way */
    char why[256];
    struct str fails = e->cert.fails.n ? e->cert.fails : p->cert.fails;
    e->stream.tls_fault = fails.n ? TLS_FAILED : TLS_FINE;
    if (fails.n) {
        snprintf(why, sizeof why, "TLS: " STR_FMT, STR_ARG(fails));
        end_lose(e, -EPROTO, why);
        return;
    }
    if (p->tls_wanted && p->tls.server == e->tls.server) {
        end_lose(e, -EPROTO, "TLS: unexpected message");
        return;
    }
    const char *bad = e->tls.server                      ? NULL
                      : e->tls.verify == TLS_VERIFY_DANE ? verify_dane(e, &p->cert)
                                                         : verify(e, &p->cert);
    if (bad && e->tls.verify != TLS_VERIFY_NONE) {
        end_lose(e, -EPROTO, bad);
        return;
    }
    e->stream.tls = true;
    /* A router shows hosts what its route says, which is known by its file: none is read here. */
    struct str shown = e->tls.server && p->uplink ? p->tls.certificate : p->cert.name;
    struct tls_facts facts = {
        .version = STR("TLSv1.3"),
        .cipher = STR("TLS_AES_256_GCM_SHA384"),
        .subject = shown.n ? shown : STR(""),
        .verified = !e->tls.server && !bad,
    };
    e->stream.ev->secured(&e->stream, e->stream.owner, &facts);
    if (e->state == END_OPEN)
        push(e);
}

/* ---- arriving --------------------------------------------------------------------------------- */

static bool faults_strike(struct end *e, struct end *p)
{
    struct sim_net *n = e->net;
    if (!p->heard)
        return false;
    if (sim_random_chance(&n->random, n->faults.freeze)) {
        e->frozen = p->frozen = true;
        return true;
    }
    if (sim_random_chance(&n->random, n->faults.reset)) {
        end_lose(p, -ECONNRESET, "connection reset by peer");
        if (e->state == END_OPEN)
            end_lose(e, -ECONNRESET, "connection reset by peer");
        return true;
    }
    return false;
}

static void tell_data(struct end *p)
{
    p->paused = false;
    p->stream.ev->data(&p->stream, p->stream.owner);
    if (p->state == END_OPEN && buf_len(&p->in) > 0)
        p->paused = true;
}

/* Some or all bytes of the item come to p. */
static void bytes_arrive(struct end *e, struct end *p, struct item *it)
{
    struct sim_net *net = e->net;
    size_t n = it->n;
    if (p->state == END_OPEN && n > 1 && sim_random_chance(&net->random, net->faults.split))
        n = 1 + sim_random_below(&net->random, n - 1);
    if (p->state == END_OPEN && p->tls_wanted && !p->stream.tls)
        end_lose(p, -EPROTO, "TLS: wrong version number");
    else if (p->state == END_OPEN && !faults_strike(e, p))
        CHECK(buf_add(&p->in, buf_str(&e->flight).p, n) == 0);
    if (e->frozen)
        return;
    buf_consume(&e->flight, n);
    it->n -= n;
    if (it->n == 0) {
        list_remove(&it->link);
        free(it);
    } else {
        it->at = net->clock->now + (int64_t)sim_random_below(&net->random, 3);
    }
    if (p->state == END_OPEN) {
        p->heard = true;
        tell_data(p);
    }
}

static void signal_arrives(struct end *e, struct end *p, struct item *it)
{
    enum item_kind kind = it->kind;
    list_remove(&it->link);
    free(it);
    if (p->state != END_OPEN)
        return;
    if (kind == ITEM_HELLO) {
        p->hello_seen = true;
        shake_hands(p);
    } else if (kind == ITEM_FIN) {
        end_lose(p, 0, "closed by the peer");
    } else {
        end_lose(p, -ECONNRESET, "connection reset by peer");
    }
}

/* A reader that pauses hears of nothing but a reset. True: there is none to be told now. */
static bool stalled(struct end *e, const struct end *p)
{
    if (p->state != END_OPEN || !p->paused)
        return false;
    struct item *last = LIST_ENTRY(e->items.prev, struct item, link);
    if (last->kind != ITEM_RESET)
        return true;
    if (last->at > e->net->clock->now) {
        sim_timer_in(e->net->clock, &e->arrive, last->at - e->net->clock->now);
        return true;
    }
    list_remove(&last->link);
    drop_items(e);
    list_push(&e->items, &last->link);
    return false;
}

static void arrive(struct timer *t)
{
    struct end *e = CONTAINER_OF(t, struct end, arrive);
    struct end *p = e->peer;
    if (!p) {
        drop_items(e);
    } else if (!list_empty(&e->items)) {
        if (stalled(e, p))
            return;
        struct item *it = LIST_ENTRY(list_first(&e->items), struct item, link);
        if (it->kind == ITEM_BYTES)
            bytes_arrive(e, p, it);
        else
            signal_arrives(e, p, it);
    }
    if (e->state == END_DEAD || e->frozen)
        return;
    if (e->state == END_OPEN || e->state == END_LEFT)
        push(e);
    if (!list_empty(&e->items))
        arm_arrival(e);
    else if (e->state == END_LEFT && (e->fin_sent || !e->peer))
        end_bury(e);
}

static void window_opened(struct timer *t)
{
    struct end *e = CONTAINER_OF(t, struct end, window);
    if (e->state != END_OPEN && e->state != END_LEFT)
        return;
    push(e);
    if (e->state == END_OPEN && e->tls_wanted && !e->stream.tls)
        shake_hands(e);
    if (e->state == END_OPEN && e->above_high && buf_len(&e->out) <= SIM_LOW_MARK) {
        e->above_high = false;
        e->stream.ev->drained(&e->stream, e->stream.owner);
    }
    if (e->state == END_LEFT && !e->peer && list_empty(&e->items))
        end_bury(e);
}

static void resumed(struct later *l)
{
    struct end *p = CONTAINER_OF(l, struct end, resume);
    if (p->state != END_OPEN)
        return;
    p->paused = false;
    if (buf_len(&p->in) > 0)
        tell_data(p);
    if (p->state == END_OPEN && !p->paused && p->peer && !timer_armed(&p->peer->arrive))
        arm_arrival(p->peer);
}

/* ---- operations ------------------------------------------------------------------------------- */

static struct str op_input(struct stream *s)
{
    return buf_str(&end_of(s)->in);
}

static void op_consume(struct stream *s, size_t n)
{
    struct end *e = end_of(s);
    CHECK(n <= buf_len(&e->in));
    buf_consume(&e->in, n);
    if (e->peer && buf_len(&e->peer->out) > 0 && !timer_armed(&e->peer->window))
        sim_timer_in(e->net->clock, &e->peer->window, e->latency_ms);
}

static void op_resume(struct stream *s)
{
    struct end *e = end_of(s);
    if (e->state == END_OPEN)
        e->net->clock->port.later(&e->net->clock->port, &e->resume);
}

static void op_hold(struct stream *s)
{
    struct end *e = end_of(s);
    e->paused = true;
    list_remove(&e->resume.link);
}

static int op_write(struct stream *s, const void *bytes, size_t n)
{
    struct end *e = end_of(s);
    CHECK(e->state == END_OPEN || e->state == END_CONNECTING);
    if (e->fin_sent || e->close_wanted)
        return -EPIPE;
    if (SIM_STARVED())
        return -ENOMEM;
    CHECK(buf_add(&e->out, bytes, n) == 0);
    if (e->state == END_OPEN)
        push(e);
    if (buf_len(&e->out) > SIM_HIGH_MARK)
        e->above_high = true;
    return 0;
}

static size_t op_unsent(const struct stream *s)
{
    return buf_len(&CONTAINER_OF(s, const struct end, stream)->out);
}

static int op_starttls(struct stream *s, const struct tls_request *req)
{
    struct end *e = end_of(s);
    CHECK(e->state == END_OPEN && !e->tls_wanted);
    if (req->server && e->uplink && !e->has_cert)
        return -ENOTSUP;
    if (SIM_STARVED())
        return -ENOMEM;
    e->tls_wanted = true;
    e->tls = *req;
    e->tls.name = str_make(sim_dup(req->name), req->name.n);
    e->tls.dane = str_make(sim_dup(req->dane), req->dane.n);
    e->tls.certificate = str_make(sim_dup(req->certificate), req->certificate.n);
    op_consume(s, buf_len(&e->in));
    e->paused = false;
    push(e);
    if (e->peer && !timer_armed(&e->peer->arrive))
        arm_arrival(e->peer);
    return 0;
}

static void op_abort(struct stream *s)
{
    struct end *e = end_of(s);
    CHECK(e->state == END_OPEN || e->state == END_CONNECTING);
    bool alone = e->state == END_CONNECTING || !e->peer;
    leave(e);
    if (alone)
        end_bury(e);
    else
        reset(e);
}

static void op_close(struct stream *s)
{
    struct end *e = end_of(s);
    CHECK(e->state == END_OPEN || e->state == END_CONNECTING);
    if (e->state == END_CONNECTING || !e->peer || (e->tls_wanted && !e->stream.tls)) {
        op_abort(s);
        return;
    }
    leave(e);
    e->close_wanted = true;
    push(e);
}

static const struct stream_ops end_ops = {
    .input = op_input,
    .consume = op_consume,
    .resume = op_resume,
    .hold = op_hold,
    .write = op_write,
    .unsent = op_unsent,
    .starttls = op_starttls,
    .close = op_close,
    .abort = op_abort,
};

void sim_stream_set_certificate(struct stream *s, const struct sim_certificate *c)
{
    struct end *e = end_of(s);
    cert_done(&e->cert);
    cert_copy(&e->cert, c);
    e->has_cert = true;
}

void sim_stream_half_close(struct stream *s)
{
    struct end *e = end_of(s);
    e->close_wanted = true;
    push(e);
}

void sim_stream_set_engine(struct stream *s, struct sim_uplink *u)
{
    struct end *e = end_of(s);
    e->uplink = u;
    if (u->has_cert && !e->has_cert)
        sim_stream_set_certificate(s, &u->cert);
}
