/* delivery.c - one attempt, from the job to its results. See delivery.h.
 *
 *     begin -> [route hook for each recipient, when the policy has changed] -> next hops
 *           -> address after address until one takes the transaction -> results -> outcome
 *
 * Whose failure is it (ROUTING.md Q4)? What happens before MAIL, and 421 at any time, is the host's: the
 * next address is tried, and when there is none left the queue backs off and its recipients stay as they
 * were. A reply to MAIL, DATA or the dot is about the message, one to RCPT about the recipient.
 *
 * What the route says, and asking for it, is in delivery_route.c. */
#include "engine/delivery.h"

#include "base/units.h"
#include "engine/delivery_impl.h"
#include "engine/hosts.h"
#include "engine/notification.h"
#include "engine/sts.h"

struct deliveries {
    struct engine *engine;
    struct list all;
    size_t n;
};

struct deliveries *deliveries_new(struct engine *e)
{
    struct deliveries *all = calloc(1, sizeof *all);
    if (!all)
        return NULL;
    all->engine = e;
    list_init(&all->all);
    return all;
}

size_t deliveries_active(const struct deliveries *all)
{
    return all->n;
}

/* Frees all but the job and what has gone to the outcome. */
static void delivery_free(struct delivery *d)
{
    list_remove(&d->link);
    list_remove(&d->begin.link);
    d->all->n--;
    if (d->call)
        d->snapshot->hooks->cancel(d->snapshot->hooks, d->call);
    if (d->query)
        next_hop_cancel(d->query);
    if (d->session)
        session_out_abort(d->session);
    source_drop(d->engine, &d->source);
    lanes_leave(d->engine->shared->lanes, &d->lane);
    snapshot_unref(d->snapshot);
    free(d->room);
    free(d);
}

struct deliveries *deliveries_free(struct deliveries *all)
{
    if (!all)
        return NULL;
    LIST_FOREACH(it, &all->all)
    {
        struct delivery *d = LIST_ENTRY(it, struct delivery, link);
        struct job *j = d->job;
        for (size_t i = 0; d->results && i < j->n; i++)
            route_unref(d->results[i].route);
        arena_done(&d->arena);
        delivery_free(d);
        queue_attempt_ended(j, ATTEMPT_NOT_MADE, STR("stopped"), 0);
    }
    free(all);
    return NULL;
}

/* ---- results ---------------------------------------------------------------------------------- */

static struct smtp_reply keep_reply(struct delivery *d, const struct smtp_reply *r)
{
    struct smtp_reply kept = *r;
    kept.text = arena_str(&d->arena, r->text);
    return kept;
}

void delivery_decide(struct delivery *d, size_t i, enum fate fate, enum failure_scope scope,
                     enum smtp_stage stage, const struct smtp_reply *reply, struct str why)
{
    if (d->decided[i])
        return;
    d->decided[i] = true;
    d->results[i] = (struct result){ .fate = fate, .scope = scope, .stage = stage };
    if (reply)
        d->results[i].reply = keep_reply(d, reply);
    d->results[i].why = arena_str(&d->arena, why);
}

void delivery_decide_rest(struct delivery *d, enum fate fate, enum failure_scope scope,
                          enum smtp_stage stage, const struct smtp_reply *reply, struct str why)
{
    for (size_t i = 0; i < d->job->n; i++)
        delivery_decide(d, i, fate, scope, stage, reply, why);
}

size_t delivery_undecided(const struct delivery *d)
{
    size_t n = 0;
    for (size_t i = 0; i < d->job->n; i++)
        n += !d->decided[i];
    return n;
}

/* What may not wait any longer bounces with the last thing that was said. */
static void expire(struct delivery *d)
{
    const struct settings *set = d->snapshot->settings;
    int64_t age = engine_wall(d->engine) - msgid_time(&d->job->id);
    bool untried = d->job->mode == JOB_EXPIRE && d->job->class_ == SPOOL_WAITING;
    for (size_t i = 0; i < d->job->n; i++) {
        struct result *res = &d->results[i];
        if (res->fate != FATE_DEFER && res->fate != FATE_KEEP)
            continue;
        if (res->fate == FATE_KEEP && attempt_says_nothing(d->end))
            continue;
        const struct route *r = d->job->recipients[i].route;
        int64_t lifetime = route_lifetime(set, r, res->scope == SCOPE_HOST);
        if (lifetime == INT64_MAX || age <= lifetime)
            continue;
        char waited[32];
        struct str last = res->reply.code ? res->reply.text : res->why;
        res->why = arena_printf(&d->arena, "not delivered within %s%s" STR_FMT,
                                duration_text(lifetime, waited),
                                untried ? ": " : "; the last attempt said: ", STR_ARG(last));
        res->fate = FATE_BOUNCE;
        res->reply = (struct smtp_reply){ .enhanced = ENH(5, 4, 7) };
        COUNT(d->engine, expired, 1);
    }
}

/* Made only where there is something to record: what was delivered leaves nothing behind. */
static struct history_plan plan_of(struct delivery *d)
{
    bool wanted = false;
    for (size_t i = 0; i < d->job->n; i++)
        wanted |= d->results[i].fate != FATE_DELIVERED && d->results[i].fate != FATE_DISCARD;
    if (!wanted)
        return (struct history_plan){ 0 };
    return trail_plan(&d->trail, &d->arena, d->route, d->hops, d->n_hops, engine_wall(d->engine));
}

void delivery_finish(struct delivery *d, enum attempt_end end)
{
    struct engine *e = d->engine;
    d->end = end;
    delivery_decide_rest(d, FATE_KEEP, SCOPE_HOST, d->host_stage, &d->host_reply, d->host_why);
    expire(d);
    struct history_plan plan = plan_of(d); /* allocates: before the arena is handed over */
    struct outcome o = { .job = d->job,
                         .results = d->results,
                         .arena = d->arena,
                         .host = d->host,
                         .addr = d->addr,
                         .tls_version = d->tls_version,
                         .told_further = d->told_further,
                         .lmtp = d->hop && d->hops[d->hop - 1].lmtp,
                         .tries = d->trail.tries,
                         .n_tries = d->trail.n_tries,
                         .plan = plan,
                         .started_ms = d->started_ms,
                         .end = end,
                         .end_why = d->host_reply.code ? d->host_reply.text : d->host_why };
    char source[NET_ADDR_TEXT];
    if (d->source.addr.family != NET_NONE)
        o.source = arena_str(&o.arena, str_of(net_addr_ip_text(&d->source.addr, source)));
    struct pending *room = TAKE(d->room);
    delivery_free(d);
    outcome_apply(e, room, &o);
}

void delivery_hold_back(struct delivery *d, struct str why, int64_t wait_ms)
{
    d->host_why = arena_str(&d->arena, why);
    d->host_reply = (struct smtp_reply){ 0 };
    delivery_decide_rest(d, FATE_KEEP, SCOPE_HOST, SMTP_STAGE_CONNECT, NULL, d->host_why);
    for (size_t i = 0; i < d->job->n; i++)
        if (d->results[i].fate == FATE_KEEP)
            d->results[i].retry_ms = wait_ms;
    delivery_finish(d, d->stuck ? ATTEMPT_STUCK : ATTEMPT_HELD_BACK);
}

/* Hosts that are the operator's to mend: nothing bounces for them (S5). */
static bool is_smart_host(const struct route *r)
{
    return r->kind == ROUTE_HOSTS && r->host_failure_forever;
}

/* Whoever answered was ourselves, and there is nobody else. A fallback that is ourselves ends nothing: the
 * hosts before it may come back. */
static bool only_loops(const struct delivery *d)
{
    return d->looped && d->looped == d->tried && d->hop == d->n_hops && !d->incomplete &&
           !d->least_wait_ms && !is_smart_host(d->route) && d->route == d->job->route;
}

/* It never ends in a bounce, so somebody must be told. */
static void alarm_event(struct delivery *d, const char *what, const struct smtp_reply *reply)
{
    char id[MSGID_TEXT], text[16];
    struct str enhanced = str_trim(str_of(smtp_enhanced_text(reply->enhanced, text)));
    engine_event(d->engine, EVENT(EVENT_ERROR, what, F_STRZ("id", msgid_text(&d->job->id, id)),
                                  F_STR("queue", queue_name(d->job->queue)), F_STR("host", d->host),
                                  F_INT("code", reply->code), F_STR("enhanced", enhanced),
                                  F_STR("why", reply->text)));
}

/* We could not authenticate: the operator's to mend. */
static void auth_alarm(struct delivery *d, const struct smtp_reply *reply, struct str why)
{
    struct smtp_reply told = *reply;
    if (!told.code)
        told = (struct smtp_reply){ .code = 454, .enhanced = ENH(4, 7, 0), .text = why };
    alarm_event(d, "auth_failed", &told);
}

/* All hosts have been tried, and none can be used: they refuse, are silent, or are ourselves. */
static void smart_host_alarm(struct delivery *d)
{
    bool loops = d->looped == d->tried;
    struct smtp_reply told = { .code = 451,
                               .enhanced = loops ? ENH(4, 3, 5) : ENH(4, 4, 1),
                               .text = d->host_reply.code ? d->host_reply.text : d->host_why };
    alarm_event(d, "route_alarm", &told);
}

/* No host could be used. */
static void hosts_exhausted(struct delivery *d)
{
    if (only_loops(d)) {
        struct smtp_reply reply = { .code = 554, .enhanced = ENH(5, 4, 6), .text = d->host_why };
        delivery_decide_rest(d, FATE_BOUNCE, SCOPE_MESSAGE, SMTP_STAGE_GREETING, &reply,
                             d->host_why);
        delivery_finish(d, ATTEMPT_UNTRIED);
        return;
    }
    if (!d->host_failed && d->tried) { /* the last one broke off in the middle of our transaction */
        /* It may be the message's fault (Q4); a primary that breaks off is waited for all the same (B10). */
        bool host = d->host_reply.code == 0 && d->route->host_failure_forever;
        enum failure_scope scope = host ? SCOPE_HOST : SCOPE_MESSAGE;
        delivery_decide_rest(d, FATE_DEFER, scope, d->host_stage, &d->host_reply, d->host_why);
        delivery_finish(d, ATTEMPT_DONE);
        return;
    }
    int64_t wait = d->tried ? 0 : d->least_wait_ms;
    if (d->tried && d->host_stage != SMTP_STAGE_AUTH && is_smart_host(d->route))
        smart_host_alarm(d);
    delivery_decide_rest(d, FATE_KEEP, SCOPE_HOST, d->host_stage, &d->host_reply, d->host_why);
    for (size_t i = 0; i < d->job->n; i++)
        if (d->results[i].fate == FATE_KEEP)
            d->results[i].retry_ms = wait;
    delivery_finish(d, ATTEMPT_HOST_FAILED);
}

/* ---- one address after another ---------------------------------------------------------------- */

static void try_next(struct delivery *d);

static void set_host_failure(struct delivery *d, enum smtp_stage stage,
                             const struct smtp_reply *reply, struct str why)
{
    d->host_stage = stage;
    d->host_reply = reply ? keep_reply(d, reply) : (struct smtp_reply){ 0 };
    d->host_why = arena_str(&d->arena, why);
}

static void note_host_failure(struct delivery *d, enum smtp_stage stage,
                              const struct smtp_reply *reply, struct str why)
{
    set_host_failure(d, stage, reply, why);
    trail_add(&d->trail, &d->arena, d->host, d->tls_version, stage, reply, why);
}

static bool is_loop(struct delivery *d)
{
    struct str name = session_out_peer_name(d->session);
    return name.n && engine_is_self_name(d->engine, name);
}

static struct str loop_text(struct delivery *d)
{
    struct str peer = session_out_peer_name(d->session);
    return arena_printf(&d->arena, "mail loops back to myself: " STR_FMT " greets as " STR_FMT,
                        STR_ARG(d->host), STR_ARG(peer));
}

/* That host is ourselves: the next one may not be (B9). The session has gone. */
static void found_loop(struct delivery *d, struct str why)
{
    COUNT(d->engine, loops, 1);
    d->looped++;
    d->host_failed = true;
    note_host_failure(d, SMTP_STAGE_GREETING, NULL, why);
    try_next(d);
}

static struct smtp_reply refusal(int err, const struct message *m)
{
    switch (err) {
    case -EMSGSIZE: return REPLY(552, ENH(5, 3, 4), "the message is larger than the host takes");
    case -EOPNOTSUPP:
        if (m->flags & MESSAGE_SMTPUTF8)
            return REPLY(553, ENH(5, 6, 7), "the host cannot take internationalized mail");
        return REPLY(554, ENH(5, 6, 3), "the host cannot take 8-bit content");
    default: return REPLY(553, ENH(5, 1, 3), "an address cannot be written in SMTP");
    }
}

/* NOTIFY and ORCPT of those that are sent, in their order; NULL: nobody asked for anything. False: out of
 * memory. */
static bool what_to_tell(struct delivery *d, struct smtp_dsn_rcpt **ret)
{
    const struct recipient *all = d->job->recipients;
    bool any = false;
    size_t n = 0;
    for (size_t i = 0; i < d->job->n; i++)
        any |= all[i].notify || all[i].orcpt.n;
    if (!any)
        return true;
    *ret = ARENA_ARRAY(&d->arena, struct smtp_dsn_rcpt, d->job->n);
    for (size_t i = 0; *ret && i < d->job->n; i++)
        if (!d->decided[i])
            (*ret)[n++] = (struct smtp_dsn_rcpt){ .notify = all[i].notify, .orcpt = all[i].orcpt };
    return *ret != NULL;
}

static void on_ready(void *owner)
{
    struct delivery *d = owner;
    if (is_loop(d)) {
        struct str why = loop_text(d);
        session_out_abort(TAKE(d->session));
        found_loop(d, why);
        return;
    }
    d->tls_version = arena_str(&d->arena, session_out_tls_version(d->session));
    d->told_further = session_out_offers_dsn(d->session);
    AUTO_FREE struct str *to = calloc(d->job->n, sizeof *to);
    struct smtp_dsn_rcpt *dsn = NULL;
    d->sent = ARENA_ARRAY(&d->arena, size_t, d->job->n);
    if (!to || !d->sent || !what_to_tell(d, &dsn)) {
        session_out_release(TAKE(d->session), true);
        delivery_finish(d, ATTEMPT_NOT_MADE);
        return;
    }
    d->n_sent = 0;
    d->wants_told = false;
    if (d->route == d->job->route)
        queue_transaction_begins(d->job);
    d->lane.ticket = (struct throttle_ticket){ 0 }; /* used up */
    source_spend(d->engine, d->snapshot->settings, &d->source);
    for (size_t i = 0; i < d->job->n; i++)
        if (!d->decided[i]) {
            to[d->n_sent] = d->job->recipients[i].address.text;
            d->sent[d->n_sent++] = i;
        }
    int err = session_out_send(d->session, d->job->message, to, dsn, d->n_sent);
    if (err == 0)
        return;
    if (err != -EMSGSIZE && err != -EOPNOTSUPP && err != -EINVAL) { /* nothing about the message */
        session_out_abort(TAKE(d->session));
        delivery_finish(d, ATTEMPT_NOT_MADE);
        return;
    }
    session_out_release(TAKE(d->session), true);
    struct smtp_reply reply = refusal(err, d->job->message);
    delivery_decide_rest(d, FATE_BOUNCE, SCOPE_MESSAGE, SMTP_STAGE_MAIL, &reply, STR_NONE);
    delivery_finish(d, ATTEMPT_DONE);
}

static enum fate fate_of(const struct smtp_reply *reply)
{
    return smtp_reply_positive(reply)    ? FATE_DELIVERED
           : smtp_reply_permanent(reply) ? FATE_BOUNCE
                                         : FATE_DEFER;
}

/* "Authentication required" (RFC 4954 section 6; "STARTTLS first", RFC 3207): what the operator said of
 * the host does not suffice. The message is not to blame (S6). */
static bool wants_other_terms(const struct delivery *d, const struct smtp_reply *reply)
{
    return reply->code == 530 && d->route->kind == ROUTE_HOSTS;
}

static void on_rcpt(void *owner, size_t index, const struct smtp_reply *reply)
{
    struct delivery *d = owner;
    if (index >= d->n_sent || smtp_reply_positive(reply))
        return;
    bool wants = wants_other_terms(d, reply);
    if (wants && !d->wants_told)
        auth_alarm(d, reply, STR_NONE);
    d->wants_told |= wants;
    delivery_decide(d, d->sent[index], wants ? FATE_DEFER : fate_of(reply), SCOPE_RECIPIENT,
                    SMTP_STAGE_RCPT, reply, STR_NONE);
}

static void on_result(void *owner, size_t index, enum smtp_stage stage,
                      const struct smtp_reply *reply)
{
    struct delivery *d = owner;
    d->unwelcome = stage == SMTP_STAGE_MAIL && wants_other_terms(d, reply);
    if (d->unwelcome)
        note_host_failure(d, SMTP_STAGE_AUTH, reply, reply->text);
    else if (index == SIZE_MAX)
        delivery_decide_rest(d, fate_of(reply), SCOPE_MESSAGE, stage, reply, STR_NONE);
    else if (index < d->n_sent)
        delivery_decide(d, d->sent[index], fate_of(reply), SCOPE_RECIPIENT, stage, reply, STR_NONE);
}

static void on_done(void *owner)
{
    struct delivery *d = owner;
    hosts_worked(d->engine->hosts, &d->addr);
    if (d->unwelcome) { /* at once: the next one may need the connection that its source is allowed */
        session_out_abort(TAKE(d->session));
        auth_alarm(d, &d->host_reply, STR_NONE);
        d->unwelcome = false;
        d->host_failed = true;
        try_next(d);
        return;
    }
    session_out_release(TAKE(d->session), true);
    delivery_decide_rest(d, FATE_DEFER, SCOPE_MESSAGE, SMTP_STAGE_FINAL, NULL,
                         STR("no result was told"));
    delivery_finish(d, ATTEMPT_DONE);
}

/* Down, or only not to be asked for so many connections: then it is waited for. */
static void host_refused(struct delivery *d, struct str why)
{
    if (hosts_refused(d->engine->hosts, &d->addr, d->opened_ms, why))
        return;
    d->crowded = true;
    d->full = &d->hops[d->hop - 1];
}

static void on_failed(void *owner, enum smtp_stage stage, const struct smtp_reply *reply,
                      struct str why)
{
    struct delivery *d = owner;
    bool reused = session_out_reused(d->session);
    bool said_421 = reply->code == 421;
    struct str loop = stage == SMTP_STAGE_AUTH && is_loop(d) ? loop_text(d) : STR_NONE;
    enum session_out_fault fault = session_out_source_fault(d->session);
    d->session = NULL;
    source_drop(d->engine, &d->source);
    if (fault != SOURCE_WORKS) {
        int64_t wait = delivery_source_failed(d, fault);
        if (wait > 0) {
            delivery_hold_back(d, d->host_why, wait);
            return;
        }
        d->again = true; /* from another one */
        d->hop--;
        d->tried--;
        try_next(d);
        return;
    }
    if (loop.n) {
        found_loop(d, loop);
        return;
    }
    note_host_failure(d, stage, reply, why);
    if (stage >= SMTP_STAGE_FINAL && !said_421) {
        /* The message may have arrived: a duplicate is possible, a loss is not (Q4). */
        delivery_decide_rest(d, FATE_DEFER, SCOPE_MESSAGE, stage, reply, why);
        delivery_finish(d, ATTEMPT_DONE);
        return;
    }
    if (stage == SMTP_STAGE_BODY && reply->code >= 400 && !said_421) {
        delivery_decide_rest(d, fate_of(reply), SCOPE_MESSAGE, stage, reply, why);
        delivery_finish(d, ATTEMPT_DONE);
        return;
    }
    bool stale = stage == SMTP_STAGE_MAIL && (reply->code == 0 || said_421);
    if (reused && (stage == SMTP_STAGE_READY || stale)) {
        d->again = true; /* idle for too long, or used often enough: a new one to the same host */
        d->hop--;
        d->tried--;
        trail_drop_last(&d->trail);
        try_next(d);
        return;
    }
    bool tls_failed =
        stage == SMTP_STAGE_TLS || (stage == SMTP_STAGE_STARTTLS && reply->code && !said_421);
    if ((stage == SMTP_STAGE_TLS || stage == SMTP_STAGE_STARTTLS) && d->hops[d->hop - 1].sts)
        sts_doubt(d->engine, d->route->domain);
    if (tls_failed && d->hops[d->hop - 1].tls == ROUTE_TLS_OPPORTUNISTIC && d->in_clear != d->hop) {
        d->in_clear = d->hop; /* better in clear than not at all (RFC 7435) */
        d->again = true;
        d->hop--;
        d->tried--;
        try_next(d);
        return;
    }
    d->host_failed = stage < SMTP_STAGE_MAIL || said_421;
    if (stage == SMTP_STAGE_AUTH && !said_421) /* others may be welcome there (S6, S7) */
        auth_alarm(d, reply, why);
    else if (d->host_failed)
        host_refused(d, reply->code ? reply->text : why);
    if (delivery_undecided(d) == 0) {
        delivery_finish(d, ATTEMPT_DONE);
        return;
    }
    try_next(d);
}

static const struct session_out_events session_events = {
    .ready = on_ready,
    .rcpt = on_rcpt,
    .result = on_result,
    .done = on_done,
    .failed = on_failed,
};

static struct session_out_key key_of(const struct delivery *d, const struct hop *h)
{
    return (struct session_out_key){ .addr = h->addr,
                                     .name = h->name,
                                     .tls = d->in_clear == d->hop ? ROUTE_TLS_NONE : h->tls,
                                     .lmtp = h->lmtp,
                                     .dane = d->in_clear == d->hop ? STR_NONE : h->dane,
                                     .auth = h->auth };
}

static bool open_session(struct delivery *d, const struct hop *h, const struct session_out_key *key)
{
    d->addr = h->addr;
    d->host = trail_host(&d->arena, h);
    d->tls_version = STR_NONE;
    d->opened_ms = engine_now(d->engine);
    d->session = session_out_open(d->engine, key, d->snapshot, &session_events, d);
    if (d->session)
        queue_host_taken(d->job, &h->addr);
    d->source.entered &= d->session == NULL; /* the connection has it now */
    return d->session != NULL;
}

/* Never as somebody else, or as nobody: the mail waits until the policy names what is known. */
static void credentials_missing(struct delivery *d, const struct hop *h)
{
    struct str why =
        arena_printf(&d->arena, "the credentials of " STR_FMT " are not known any more",
                     STR_ARG(credentials_user(h->auth)));
    d->host = trail_host(&d->arena, h);
    d->host_failed = true;
    note_host_failure(d, SMTP_STAGE_AUTH, NULL, why);
    auth_alarm(d, &d->host_reply, why);
}

static void use_fallback(struct delivery *d)
{
    d->route = d->route->fallback;
    d->tried = d->hop = d->n_hops = d->looped = d->in_clear = 0;
    d->least_wait_ms = 0;
    lanes_leave(d->engine->shared->lanes, &d->lane);
    int64_t wait = lanes_enter(d->engine->shared->lanes, d->route, engine_now(d->engine), &d->lane);
    d->stuck = wait > 0;
    if (wait > 0) {
        delivery_hold_back(d, STR("its fallback may do no more at present"), wait);
        return;
    }
    if (d->route->kind == ROUTE_MX || d->route->kind == ROUTE_HOSTS)
        delivery_resolve(d);
    else
        delivery_end_without_host(d);
}

/* It failed a short time ago: another try would say the same. */
static void left_alone(struct delivery *d, const struct hop *h, int64_t wait)
{
    struct str host = trail_host(&d->arena, h), why = hosts_why(d->engine->hosts, &h->addr);
    char text[32];
    d->least_wait_ms = d->least_wait_ms ? MIN(d->least_wait_ms, wait) : wait;
    trail_add(&d->trail, &d->arena, host, STR_NONE, SMTP_STAGE_CONNECT, NULL,
              arena_printf(&d->arena, "left alone for %s: " STR_FMT,
                           duration_text(wait / 1000 * 1000, text), STR_ARG(why)));
    if (d->tried)
        return;
    d->host = host;
    set_host_failure(d, SMTP_STAGE_CONNECT, NULL, why);
}

/* Not a failure of the attempt: its queue stands in line for that host. When nothing is decided yet the job goes
 * back as it came. */
static void wait_for_host(struct delivery *d)
{
    enum attempt_end end = d->crowded ? ATTEMPT_CROWDED : ATTEMPT_FULL;
    struct job *j = d->job;
    queue_stand_for_host(j, &d->full->addr);
    if (delivery_undecided(d) < j->n) {
        delivery_finish(d, end);
        return;
    }
    struct arena a = d->arena;
    struct str why = d->host_why;
    delivery_free(d);
    j->whole = true;
    queue_attempt_ended(j, end, why, 0);
    arena_done(&a);
}

/* Others are as good, but none that is worse is asked because one has no room now. */
static bool may_ask(const struct delivery *d, const struct hop *h)
{
    return !d->full || h->preference == d->full->preference;
}

static void try_next(struct delivery *d)
{
    while (d->hop < d->n_hops && d->tried < DELIVERY_MAX_ADDRESSES &&
           may_ask(d, &d->hops[d->hop])) {
        const struct hop *h = &d->hops[d->hop++];
        if (!d->again && !queue_host_room(d->job, &h->addr)) {
            d->full = d->full ? d->full : h;
            continue;
        }
        bool anyway = d->job->forced || d->again;
        int64_t wait = anyway ? 0 : hosts_wait(d->engine->hosts, &h->addr);
        d->again = false;
        job_note_host(d->job, &h->addr);
        if (wait > 0) {
            left_alone(d, h, wait);
            continue;
        }
        if (h->auth.n && !hooks_credentials(d->snapshot->hooks, h->auth)) {
            credentials_missing(d, h);
            continue;
        }
        struct session_out_key key = key_of(d, h);
        enum source_step step = delivery_choose_source(d, h, &key, &wait);
        if (step == SOURCE_LEAVE_OUT)
            continue;
        if (step == SOURCE_WAIT) {
            delivery_hold_back(d, d->host_why, wait);
            return;
        }
        wait = anyway ? 0 : hosts_try(d->engine->hosts, &h->addr);
        if (wait > 0) { /* another one finds out at present */
            source_drop(d->engine, &d->source);
            left_alone(d, h, wait);
            continue;
        }
        d->tried++;
        if (!open_session(d, h, &key)) {
            note_host_failure(d, SMTP_STAGE_CONNECT, NULL, STR("no more connections allowed here"));
            delivery_finish(d, ATTEMPT_NOT_MADE);
        }
        return;
    }
    if (d->full)
        wait_for_host(d);
    else if (d->route->fallback && !d->engine->stopping)
        use_fallback(d);
    else
        hosts_exhausted(d);
}

/* ---- hosts ------------------------------------------------------------------------------------ */

static bool take_hops(struct delivery *d, const struct next_hops *r)
{
    d->hops = ARENA_ARRAY(&d->arena, struct hop, r->n);
    if (!d->hops)
        return false;
    for (size_t i = 0; i < r->n; i++) {
        d->hops[i] = r->hops[i];
        d->hops[i].name = arena_str(&d->arena, r->hops[i].name);
        d->hops[i].dane = arena_str(&d->arena, r->hops[i].dane);
        d->hops[i].auth = arena_str(&d->arena, r->hops[i].auth);
    }
    d->n_hops = r->n;
    return true;
}

static void on_hops(void *owner, const struct next_hops *r)
{
    struct delivery *d = owner;
    d->query = NULL;
    trail_take_discarded(&d->trail, &d->arena, r);
    d->incomplete = r->incomplete;
    if (r->alarm)
        alarm_event(d, "route_alarm", &r->reply);
    switch (r->status) {
    case NEXT_HOP_OK:
        if (take_hops(d, r))
            try_next(d);
        else
            delivery_finish(d, ATTEMPT_NOT_MADE);
        break;
    case NEXT_HOP_PERMANENT:
        if (d->route != d->job->route) { /* a fallback that leads nowhere ends nothing */
            delivery_finish(d, ATTEMPT_HOST_FAILED);
            break;
        }
        delivery_decide_rest(d, FATE_BOUNCE, SCOPE_RECIPIENT, SMTP_STAGE_CONNECT, &r->reply,
                             STR_NONE);
        delivery_finish(d, ATTEMPT_UNTRIED);
        break;
    case NEXT_HOP_DEFER:
        d->host_failed = true;
        note_host_failure(d, SMTP_STAGE_CONNECT, &r->reply, r->reply.text);
        if (d->route->fallback)
            use_fallback(d);
        else
            delivery_finish(d, ATTEMPT_HOST_FAILED);
        break;
    }
}

void delivery_resolve(struct delivery *d)
{
    d->query = next_hop_resolve(d->engine, d->route, d->snapshot->settings, on_hops, d);
    if (!d->query) {
        note_host_failure(d, SMTP_STAGE_CONNECT, NULL, STR("out of memory"));
        delivery_finish(d, ATTEMPT_NOT_MADE);
    }
}

/* ---- begin ------------------------------------------------------------------------------------ */

/* What the queue's last failure was. */
static struct str last_error(struct delivery *d, struct str otherwise)
{
    struct queue_status status;
    if (queue_status(d->engine->queues, queue_name(d->job->queue), &status) && status.last_error[0])
        return arena_str(&d->arena, str_of(status.last_error));
    return otherwise;
}

/* No attempt: only those who wait too long already are told of. */
static void warn(struct delivery *d)
{
    struct job *j = d->job;
    struct str why = last_error(d, STR("the destination could not be reached"));
    for (size_t i = 0; i < j->n; i++)
        if (notification_warn_at(d->snapshot->settings, j->message, &j->recipients[i]) <=
            engine_wall(d->engine))
            delivery_decide(d, i, FATE_WARN, SCOPE_HOST, SMTP_STAGE_CONNECT, NULL, why);
    delivery_decide_rest(d, FATE_KEEP, SCOPE_HOST, SMTP_STAGE_CONNECT, NULL, why);
    delivery_finish(d, ATTEMPT_DONE);
}

static void begin(struct later *l)
{
    struct delivery *d = CONTAINER_OF(l, struct delivery, begin);
    struct job *j = d->job;
    d->started_ms = engine_now(d->engine);
    if (j->mode == JOB_EXPIRE) {
        struct str last = STR("its mail host did not ask for it, or did not take it");
        if (j->class_ != SPOOL_WAITING)
            last = last_error(d, STR("the destination could not be reached"));
        delivery_decide_rest(d, FATE_KEEP, SCOPE_HOST, SMTP_STAGE_CONNECT, NULL, last);
        delivery_finish(d, ATTEMPT_DONE);
    } else if (j->mode == JOB_WARN) {
        warn(d);
    } else if (j->mode == JOB_BOUNCE) {
        struct smtp_reply reply = REPLY(550, ENH(5, 7, 0), "returned by the postmaster");
        if (j->reason.n)
            reply.text = j->reason;
        delivery_decide_rest(d, FATE_BOUNCE, SCOPE_MESSAGE, SMTP_STAGE_CONNECT, &reply, STR_NONE);
        delivery_finish(d, ATTEMPT_UNTRIED);
    } else {
        delivery_ask_routes(d);
    }
}

static struct delivery *delivery_new(const struct job *j)
{
    struct delivery *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    arena_init(&d->arena, 0);
    d->results = ARENA_ARRAY(&d->arena, struct result, j->n);
    d->decided = ARENA_ARRAY(&d->arena, bool, j->n);
    d->room = outcome_room();
    if (d->results && d->decided && d->room)
        return d;
    arena_done(&d->arena);
    free(d->room);
    free(d);
    return NULL;
}

void delivery_start(struct engine *e, struct job *j)
{
    struct delivery *d = delivery_new(j);
    if (!d) {
        queue_attempt_ended(j, ATTEMPT_NOT_MADE, STR("out of memory"), 0);
        return;
    }
    d->all = e->deliveries;
    d->engine = e;
    d->job = j;
    d->snapshot = snapshot_ref(e->snapshot);
    later_init(&d->begin, begin);
    list_push(&e->deliveries->all, &d->link);
    e->deliveries->n++;
    engine_later(e, &d->begin);
}
