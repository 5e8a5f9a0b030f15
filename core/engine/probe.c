/* probe.c - asking hosts without a message. See probe.h.
 *
 * An `asking` is what goes on: resolve -> address after address -> answer. Who wants to know (struct probe)
 * waits at it with a deadline of its own; without anybody it is given up. It is freed on a later turn,
 * because the snapshot that it lets go may own who is cancelling. */
#include "engine/probe.h"

#include <stdio.h>

#include "engine/hosts.h"
#include "engine/next_hop.h"
#include "engine/session_out.h"

/* Nobody joins what has gone on for longer: it may never end. */
enum { JOIN_MS = 10000, DEAD_MS = 5000 };

struct asking {
    struct list link; /* probes.all; none once it is over */
    struct probes *all;
    struct snapshot *snapshot;
    struct arena arena;
    struct route *route;
    struct str sender, recipient;
    bool smtputf8;
    int64_t started_ms;
    struct list waiters;
    size_t n_waiters;
    bool ended;
    struct later over;

    struct next_hop_query *query;
    struct hop *hops;
    size_t n_hops, hop, tried;
    struct session_out *session;
    size_t in_clear; /* hop (from 1) with which opportunistic TLS failed: that one only */
    struct probe_result result; /* so far */
};

struct probe {
    struct list link;      /* asking.waiters */
    struct asking *asking; /* NULL: the engine has gone */
    struct timer timer;
    probe_done *done;
    void *owner;
};

struct probes {
    struct engine *engine;
    struct list all;  /* under way */
    struct list dead; /* over, not freed yet */
    size_t n;
};

const char *probe_end_name(enum probe_end end)
{
    static const char *const names[] = {
        [PROBE_ANSWERED] = "answered", [PROBE_HOST] = "host",
        [PROBE_DNS] = "dns",           [PROBE_LOOP] = "loop",
        [PROBE_TIMEOUT] = "timeout",   [PROBE_UNSUPPORTED] = "unsupported",
        [PROBE_NO_MEMORY] = "memory",
    };

    return names[end];
}

/* ---- the end of one --------------------------------------------------------------------------- */

static void asking_free(struct asking *a)
{
    list_remove(&a->link);
    list_remove(&a->over.link);
    route_unref(a->route);
    snapshot_unref(a->snapshot);
    arena_done(&a->arena);
    free(a);
}

static void on_over(struct later *l)
{
    asking_free(CONTAINER_OF(l, struct asking, over));
}

/* Stops what goes on. */
static void stop(struct asking *a)
{
    if (a->query)
        next_hop_cancel(TAKE(a->query));
    if (a->session)
        session_out_abort(TAKE(a->session));
}

static void end(struct asking *a)
{
    if (a->ended)
        return;
    a->ended = true;
    stop(a);
    list_remove(&a->link);
    list_push(&a->all->dead, &a->link);
    a->all->n--;
    engine_later(a->all->engine, &a->over);
}

static void probe_free(struct probe *p, struct engine *e)
{
    list_remove(&p->link);
    if (e)
        engine_timer_stop(e, &p->timer);
    free(p);
}

static void tell(struct asking *a, enum probe_end how)
{
    struct engine *e = a->all->engine;

    a->result.end = how;
    end(a);
    for (struct list *it; (it = list_pop(&a->waiters));) {
        struct probe *p = LIST_ENTRY(it, struct probe, link);
        probe_done *done = p->done;
        void *owner = p->owner;
        a->n_waiters--;
        probe_free(p, e);
        done(owner, &a->result);
    }
}

/* ---- one address after another ---------------------------------------------------------------- */

static void try_next(struct asking *a);

static void note(struct asking *a, enum smtp_stage stage, const struct smtp_reply *reply,
                 struct str text)
{
    a->result.stage = stage;
    a->result.reply = reply ? *reply : (struct smtp_reply){ 0 };
    a->result.reply.text = arena_str(&a->arena, a->result.reply.text);
    bool said = reply && (reply->code || !text.n);
    a->result.text = said ? a->result.reply.text : arena_str(&a->arena, text);
}

static void answered(struct asking *a, enum smtp_stage stage, const struct smtp_reply *reply)
{
    struct engine *e = a->all->engine;

    note(a, stage, reply, STR_NONE);
    hosts_worked(e->hosts, &a->result.addr);
    hosts_heard_from(e, &a->result.addr);
}

static void on_ready(void *owner)
{
    struct asking *a = owner;
    struct str name = session_out_peer_name(a->session);

    if (name.n && engine_is_self_name(a->all->engine, name)) {
        session_out_abort(TAKE(a->session));
        note(a, SMTP_STAGE_GREETING, NULL, STR("the host greets with a name of ours"));
        a->result.end = PROBE_LOOP;
        try_next(a);
        return;
    }
    if (a->recipient.n == 0) {
        answered(a, SMTP_STAGE_HELO, &(struct smtp_reply){ .code = 250, .text = STR("ready") });
        session_out_release(TAKE(a->session), true);
        tell(a, PROBE_ANSWERED);
        return;
    }
    int r = session_out_ask(a->session, a->sender, a->recipient, a->smtputf8);
    if (r == 0)
        return;
    if (r == -EINVAL || r == -EOPNOTSUPP) {
        session_out_release(TAKE(a->session), true);
        note(a, SMTP_STAGE_MAIL, NULL, STR("the host cannot be asked about such an address"));
        tell(a, PROBE_UNSUPPORTED);
    } else {
        tell(a, PROBE_NO_MEMORY);
    }
}

static void on_rcpt(void *owner, size_t index, const struct smtp_reply *reply)
{
    answered(owner, SMTP_STAGE_RCPT, reply);
}

static void on_result(void *owner, size_t index, enum smtp_stage stage,
                      const struct smtp_reply *reply)
{
    answered(owner, stage, reply);
}

static void on_done(void *owner)
{
    struct asking *a = owner;

    session_out_release(TAKE(a->session), true);
    tell(a, PROBE_ANSWERED);
}

static void on_failed(void *owner, enum smtp_stage stage, const struct smtp_reply *reply,
                      struct str why)
{
    struct asking *a = owner;
    bool reused = session_out_reused(a->session);
    bool said_421 = reply->code == 421;

    a->session = NULL;
    note(a, stage, reply, why);
    a->result.end = PROBE_HOST;
    /* It had grown stale while it was idle: a new one to the same host. */
    bool again = reused && reply->code == 0 && stage >= SMTP_STAGE_READY;
    bool tls_failed =
        stage == SMTP_STAGE_TLS || (stage == SMTP_STAGE_STARTTLS && reply->code && !said_421);
    if (tls_failed && a->hops[a->hop - 1].tls == ROUTE_TLS_OPPORTUNISTIC && a->in_clear != a->hop) {
        a->in_clear = a->hop; /* as a delivery does (RFC 7435) */
        again = true;
    }
    if (again) {
        a->hop--;
        a->tried--;
    } else if (stage != SMTP_STAGE_AUTH && (stage < SMTP_STAGE_MAIL || said_421)) {
        hosts_refused(a->all->engine->hosts, &a->result.addr, a->started_ms,
                      reply->code ? reply->text : why);
    }
    try_next(a);
}

static const struct session_out_events session_events = {
    .ready = on_ready,
    .rcpt = on_rcpt,
    .result = on_result,
    .done = on_done,
    .failed = on_failed,
};

/* For RCPTDOMAINMAX, which a host may have told. */
static struct str behind_at(struct str address)
{
    for (size_t i = address.n; i > 0; i--)
        if (address.p[i - 1] == '@')
            return str_from(address, i);
    return STR_NONE;
}

static bool open_session(struct asking *a, const struct hop *h)
{
    struct session_out_key key = { .addr = h->addr,
                                   .name = h->name,
                                   .tls = a->in_clear == a->hop ? ROUTE_TLS_NONE : h->tls,
                                   .lmtp = h->lmtp,
                                   .dane = a->in_clear == a->hop ? STR_NONE : h->dane,
                                   .certificate = h->certificate,
                                   .auth = h->auth,
                                   .domain = behind_at(a->recipient) };

    a->session = session_out_open(a->all->engine, &key, a->snapshot, &session_events, a);
    return a->session != NULL;
}

static void try_next(struct asking *a)
{
    struct hosts *hosts = a->all->engine->hosts;

    while (a->hop < a->n_hops && a->tried < PROBE_MAX_ADDRESSES) {
        const struct hop *h = &a->hops[a->hop++];
        a->result.host = h->name;
        a->result.addr = h->addr;
        if (hosts_wait(hosts, &h->addr) > 0) {
            if (a->result.end != PROBE_LOOP)
                a->result.end = PROBE_HOST;
            note(a, SMTP_STAGE_CONNECT, NULL, hosts_why(hosts, &h->addr));
            continue;
        }
        if (h->auth.n && !hooks_credentials(a->snapshot->hooks, h->auth)) {
            note(a, SMTP_STAGE_CONNECT, NULL, STR("its credentials are not configured"));
            continue;
        }
        if (h->certificate.n && !settings_has_certificate(a->snapshot->settings, h->certificate)) {
            note(a, SMTP_STAGE_TLS, NULL, STR("our certificate for it is not configured"));
            continue;
        }
        a->tried++;
        if (open_session(a, h))
            return;
        note(a, SMTP_STAGE_CONNECT, NULL, STR("no more connections allowed here"));
        tell(a, PROBE_HOST);
        return;
    }
    tell(a, a->result.end);
}

static void on_resolved(void *owner, const struct next_hops *found)
{
    struct asking *a = owner;

    a->query = NULL;
    if (found->status != NEXT_HOP_OK) {
        bool ourselves = found->reason == NEXT_HOP_OWN_LISTENER;
        note(a, SMTP_STAGE_CONNECT, &found->reply, STR_NONE);
        tell(a, ourselves ? PROBE_LOOP : PROBE_DNS);
        return;
    }
    a->hops = ARENA_ARRAY(&a->arena, struct hop, found->n);
    for (size_t i = 0; a->hops && i < found->n; i++) {
        a->hops[i] = found->hops[i];
        a->hops[i].name = arena_str(&a->arena, found->hops[i].name);
        a->hops[i].dane = arena_str(&a->arena, found->hops[i].dane);
    }
    if (a->arena.failed) {
        tell(a, PROBE_NO_MEMORY);
        return;
    }
    a->n_hops = found->n;
    a->result.end = PROBE_HOST;
    try_next(a);
}

/* ---- who asks --------------------------------------------------------------------------------- */

/* The last one has gone. */
static void leave(struct asking *a)
{
    if (--a->n_waiters == 0)
        end(a);
}

/* An address that takes no connection for some seconds is down for others, too. What comes later may take
 * its time (a host that lets strangers wait for its greeting). */
static void note_dead(struct asking *a)
{
    struct engine *e = a->all->engine;

    if (a->session && session_out_stage(a->session) == SMTP_STAGE_CONNECT &&
        engine_now(e) - a->started_ms >= DEAD_MS)
        hosts_refused(e->hosts, &a->result.addr, a->started_ms, STR("no answer"));
}

static void on_timeout(struct timer *t)
{
    struct probe *p = CONTAINER_OF(t, struct probe, timer);
    struct asking *a = p->asking;
    struct engine *e = a->all->engine;
    struct probe_result late = a->result;
    char text[96];

    snprintf(text, sizeof(text), "timeout (%s)",
             a->session ? smtp_stage_name(session_out_stage(a->session)) : "DNS");
    late.end = PROBE_TIMEOUT;
    late.stage = a->session ? session_out_stage(a->session) : SMTP_STAGE_CONNECT;
    late.reply = (struct smtp_reply){ 0 };
    late.text = str_of(text);
    probe_done *done = p->done;
    void *owner = p->owner;
    note_dead(a);
    probe_free(p, e);
    leave(a);
    done(owner, &late); /* `a` is there until a later turn */
}

void probe_cancel(struct probe *p)
{
    struct asking *a = p->asking;

    probe_free(p, a ? a->all->engine : NULL);
    if (a)
        leave(a);
}

static struct asking *find(struct probes *all, const struct probe_request *r)
{
    int64_t now = engine_now(all->engine);

    LIST_FOREACH(it, &all->all)
    {
        struct asking *a = LIST_ENTRY(it, struct asking, link);
        if (now - a->started_ms < JOIN_MS && str_eq(a->recipient, r->recipient) &&
            str_eq(a->sender, r->sender) && a->snapshot == all->engine->snapshot &&
            route_same(a->route, r->route))
            return a;
    }
    return NULL;
}

static bool has_8bit(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80)
            return true;
    return false;
}

static struct asking *asking_new(struct probes *all, const struct probe_request *r)
{
    struct engine *e = all->engine;
    struct asking *a = calloc(1, sizeof(*a));

    if (!a)
        return NULL;
    a->all = all;
    arena_init(&a->arena, 0);
    list_init(&a->waiters);
    later_init(&a->over, on_over);
    a->route = route_ref(r->route);
    a->snapshot = snapshot_ref(e->snapshot);
    a->sender = arena_str(&a->arena, r->sender);
    a->recipient = arena_str(&a->arena, r->recipient);
    a->smtputf8 = has_8bit(r->sender) || has_8bit(r->recipient);
    a->started_ms = engine_now(e);
    list_push(&all->all, &a->link);
    if (a->sender.n == r->sender.n && a->recipient.n == r->recipient.n)
        a->query = next_hop_resolve(e, a->route, a->snapshot->settings, on_resolved, a);
    if (a->query) {
        all->n++;
        return a;
    }
    asking_free(a);
    return NULL;
}

int probe_start(struct engine *e, const struct probe_request *request, probe_done *done,
                void *owner, struct probe **ret)
{
    struct probes *all = e->probes;
    struct asking *a = find(all, request);

    if (a ? a->n_waiters >= PROBE_MAX_WAITERS : all->n >= PROBES_MAX)
        return -EBUSY;
    struct probe *p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    if (!a)
        a = asking_new(all, request);
    if (!a) {
        free(p);
        return -ENOMEM;
    }
    p->asking = a;
    p->done = done;
    p->owner = owner;
    timer_init(&p->timer, on_timeout);
    engine_timer(e, &p->timer, request->timeout_ms);
    list_push(&a->waiters, &p->link);
    a->n_waiters++;
    *ret = p;
    return 0;
}

/* ---- all -------------------------------------------------------------------------------------- */

struct probes *probes_new(struct engine *e)
{
    struct probes *all = calloc(1, sizeof(*all));

    if (!all)
        return NULL;
    all->engine = e;
    list_init(&all->all);
    list_init(&all->dead);
    return all;
}

struct probes *probes_free(struct probes *all)
{
    if (!all)
        return NULL;
    LIST_FOREACH(it, &all->all)
    {
        struct asking *a = LIST_ENTRY(it, struct asking, link);
        for (struct list *w; (w = list_pop(&a->waiters));) {
            struct probe *p = LIST_ENTRY(w, struct probe, link);
            engine_timer_stop(all->engine, &p->timer);
            p->asking = NULL;
        }
        stop(a);
        asking_free(a);
    }
    for (struct list *it; (it = list_pop(&all->dead));)
        asking_free(LIST_ENTRY(it, struct asking, link));
    free(all);
    return NULL;
}
