/* delivery.c - one attempt, from the job to its results. See delivery.h.
 *
 *     begin -> [route hook for each recipient, when the policy has changed] -> next hops
 *           -> address after address until one takes the transaction -> results -> outcome
 *
 * Whose failure is it (ROUTING.md Q4)? What happens before MAIL, and 421 at any time, is the host's: the
 * next address is tried, and when there is none left the queue backs off and its recipients stay as they
 * were. A reply to MAIL, DATA or the dot is about the message, one to RCPT about the recipient.
 *
 * What the route says, and asking for it, is in delivery_route.c; the hosts, one after another, in delivery_hops.c; the
 * transaction with one of them in delivery_session.c. */
#include "engine/delivery.h"

#include "base/units.h"
#include "engine/delivery_impl.h"
#include "engine/hosts.h"
#include "engine/notification.h"

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

/* Its sender wants it back now (DELIVERBY), whatever else is the matter with it. */
static bool is_over(const struct delivery *d)
{
    bool tries = d->job->mode == JOB_DELIVER || d->job->mode == JOB_EXPIRE;
    return tries && engine_wall(d->engine) >= message_return_at(d->job->message);
}

/* Why it has not been delivered in time. */
static struct str expired_text(struct delivery *d, const struct result *res, int64_t limit,
                               bool over)
{
    bool untried = d->job->mode == JOB_EXPIRE && d->job->class_ == SPOOL_WAITING;
    struct str last = res->reply.code ? res->reply.text : res->why;
    char waited[32];
    return arena_printf(&d->arena, "not delivered within %s%s%s" STR_FMT,
                        duration_text(limit, waited), over ? ", as its sender asked (BY)" : "",
                        !last.n   ? ""
                        : untried ? ": "
                                  : "; the last attempt said: ",
                        STR_ARG(last));
}

/* What may not wait any longer bounces with the last thing that was said. */
static void expire(struct delivery *d)
{
    const struct settings *set = d->snapshot->settings;
    const struct message *m = d->job->message;
    bool over = is_over(d);
    for (size_t i = 0; i < d->job->n; i++) {
        struct result *res = &d->results[i];
        bool waits = res->fate == FATE_KEEP && attempt_says_nothing(d->end);
        if (res->fate == FATE_WAIT || waits) {
            if (!over)
                continue;
        } else if (res->fate != FATE_DEFER && res->fate != FATE_KEEP) {
            continue;
        }
        const struct route *r = d->job->recipients[i].route;
        bool host = res->scope == SCOPE_HOST;
        if (!over && !queue_is_expired(set, m, r, host, engine_wall(d->engine),
                                       queues_age_wall(d->engine->queues)))
            continue;
        int64_t limit = over ? m->times.by_ms - m->received_ms : route_lifetime(set, r, host);
        res->why = expired_text(d, res, limit, over);
        if (!res->why.p)
            res->why = STR("not delivered in time");
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
                         .verified = d->verified,
                         .told_further = d->told_further,
                         .by_goes_on = d->by_goes_on,
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

void delivery_wait_for_source(struct delivery *d, struct str why, int64_t wait_ms)
{
    d->job->wants_source = true;
    if (d->stuck || delivery_undecided(d) < d->job->n) {
        delivery_hold_back(d, why, wait_ms);
        return;
    }
    d->host_why = arena_str(&d->arena, why);
    delivery_give_back(d, ATTEMPT_HELD_BACK, wait_ms);
}

void delivery_give_back(struct delivery *d, enum attempt_end end, int64_t wait_ms)
{
    struct job *j = d->job;
    struct arena a = d->arena;
    struct str why = d->host_why;
    delivery_free(d);
    j->whole = true;
    queue_attempt_ended(j, end, why, wait_ms);
    arena_done(&a);
}

/* ---- failures of hosts -------------------------------------------------------------------------- */

void delivery_set_failure(struct delivery *d, enum smtp_stage stage, const struct smtp_reply *reply,
                          struct str why)
{
    d->host_stage = stage;
    d->host_reply = reply ? keep_reply(d, reply) : (struct smtp_reply){ 0 };
    d->host_why = arena_str(&d->arena, why);
}

void delivery_note_failure(struct delivery *d, enum smtp_stage stage,
                           const struct smtp_reply *reply, struct str why)
{
    delivery_set_failure(d, stage, reply, why);
    trail_add(&d->trail, &d->arena, d->host, d->tls_version, stage, reply, why);
}

/* It never ends in a bounce, so somebody must be told. */
void delivery_alarm(struct delivery *d, const char *what, const struct smtp_reply *reply)
{
    char id[MSGID_TEXT], text[16];
    struct str enhanced = str_trim(str_of(smtp_enhanced_text(reply->enhanced, text)));
    engine_event(d->engine, EVENT(EVENT_ERROR, what, F_STRZ("id", msgid_text(&d->job->id, id)),
                                  F_STR("queue", queue_name(d->job->queue)), F_STR("host", d->host),
                                  F_INT("code", reply->code), F_STR("enhanced", enhanced),
                                  F_STR("why", reply->text)));
}

/* We could not authenticate: the operator's to mend. */
void delivery_auth_alarm(struct delivery *d, const struct smtp_reply *reply, struct str why)
{
    struct smtp_reply told = *reply;
    if (!told.code)
        told = (struct smtp_reply){ .code = 454, .enhanced = ENH(4, 7, 0), .text = why };
    delivery_alarm(d, "auth_failed", &told);
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

/* The time is over before the next attempt. What was said of it last, or of its queue. */
static void return_untried(struct delivery *d)
{
    const struct job *j = d->job;
    struct str last = last_error(d, STR_NONE);
    for (size_t i = 0; i < j->n; i++)
        delivery_decide(d, i, FATE_KEEP, SCOPE_HOST, SMTP_STAGE_CONNECT, NULL,
                        j->recipients[i].last_reply.n ? j->recipients[i].last_reply : last);
    delivery_finish(d, j->mode == JOB_EXPIRE ? ATTEMPT_DONE : ATTEMPT_UNTRIED);
}

static void begin(struct later *l)
{
    struct delivery *d = CONTAINER_OF(l, struct delivery, begin);
    struct job *j = d->job;
    d->started_ms = engine_now(d->engine);
    if (is_over(d)) {
        return_untried(d);
    } else if (j->mode == JOB_EXPIRE) {
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
