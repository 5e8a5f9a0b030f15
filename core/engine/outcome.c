/* outcome.c - results into changes of the spool. See outcome.h.
 *
 * Steps, each of which may wait: the `result` hook for each recipient that did not succeed; the DSN for
 * those that fail (an intake, whose commit carries the other changes along); else one operation of the
 * spool. Then the job goes back to its queue, and recipients that moved are told to their new owners. */
#include "engine/outcome.h"

#include "engine/intake.h"
#include "engine/notification.h"

struct pending {
    struct list link; /* outcomes.all */
    struct outcomes *all;
    struct outcome o;
    struct snapshot *snapshot;
    size_t asked; /* recipients before this one have been asked about */
    struct hook_call *call;
    struct recipient_view recipient_view; /* what a waiting hook looks at */
    struct attempt_view attempt_view;
    struct message_view message_view;
    struct address sender;
    struct spool_op op;
    struct spool_change *changes;
    size_t n_changes;
    struct buf *records; /* one for each change */
    struct intake *dsn;
    struct later step;
    struct timer again; /* the spool failed: once more */
    int64_t again_ms;   /* that long after */
    size_t alone;       /* changes are made one by one, up to this one; 0: all at once */
    size_t n_damaged;   /* so many at the end could not be made alone */
    bool whole;         /* the unit of changes is complete */
    bool at_spool;      /* op is submitted: it and all it points to must stay */
};

struct outcomes {
    struct engine *engine;
    struct list all;
    size_t n;
};

enum { AGAIN_MS = 1000, AGAIN_MAX_MS = 60000 };

struct outcomes *outcomes_new(struct engine *e)
{
    struct outcomes *all = calloc(1, sizeof *all);
    if (!all)
        return NULL;
    all->engine = e;
    list_init(&all->all);
    return all;
}

/* Lets go of all but what the spool may still be looking at. */
static void pending_leave(struct pending *p)
{
    struct outcome *o = &p->o;
    list_remove(&p->link);
    list_remove(&p->step.link);
    engine_timer_stop(p->all->engine, &p->again);
    p->all->n--;
    p->all = NULL;
    for (size_t i = 0; i < o->job->n; i++)
        route_unref(o->results[i].route);
    o->job = NULL;
    p->snapshot = snapshot_unref(p->snapshot);
}

static void changes_reset(struct pending *p)
{
    for (size_t i = 0; i < p->n_changes; i++)
        buf_done(&p->records[i]);
    free(p->records);
    free(p->changes);
    p->records = NULL;
    p->changes = NULL;
    p->n_changes = 0;
}

static void changes_free(struct pending *p)
{
    changes_reset(p);
    arena_done(&p->o.arena);
    free(p);
}

static void pending_free(struct pending *p)
{
    pending_leave(p);
    changes_free(p);
}

struct outcomes *outcomes_free(struct outcomes *all)
{
    if (!all)
        return NULL;
    LIST_FOREACH(it, &all->all)
    {
        struct pending *p = LIST_ENTRY(it, struct pending, link);
        struct job *j = p->o.job;
        if (p->call)
            p->snapshot->hooks->cancel(p->snapshot->hooks, p->call);
        if (p->dsn)
            intake_abort(p->dsn);
        if (p->at_spool)
            pending_leave(p); /* committed frees it */
        else
            pending_free(p);
        queue_attempt_ended(j, ATTEMPT_NOT_MADE, STR("stopped"), 0);
    }
    free(all);
    return NULL;
}

size_t outcomes_pending(const struct outcomes *all)
{
    return all->n;
}

/* ---- telling ---------------------------------------------------------------------------------- */

static const char *fate_event(enum fate f)
{
    switch (f) {
    case FATE_DELIVERED: return "delivered";
    case FATE_DEFER: return "deferred";
    case FATE_BOUNCE: return "bounced";
    case FATE_REROUTE: return "rerouted";
    case FATE_DISCARD: return "discarded";
    case FATE_KEEP: return "host_failed";
    case FATE_WAIT: return "postponed";
    case FATE_WARN: return "delay_told";
    }
    return "unknown";
}

static void count_fate(struct engine *e, enum fate f)
{
    switch (f) {
    case FATE_DELIVERED: COUNT(e, delivered, 1); break;
    case FATE_DEFER: COUNT(e, deferred, 1); break;
    case FATE_BOUNCE: COUNT(e, bounced, 1); break;
    case FATE_DISCARD: COUNT(e, discarded, 1); break;
    case FATE_KEEP: COUNT(e, host_failures, 1); break;
    case FATE_REROUTE:
    case FATE_WAIT:
    case FATE_WARN: break;
    }
}

/* Nothing has failed for what it left as it was. */
static bool says_nothing(const struct outcome *o)
{
    return attempt_says_nothing(o->end) || o->end == ATTEMPT_STUCK;
}

static void tell(struct pending *p, size_t i)
{
    struct outcome *o = &p->o;
    struct engine *e = p->all->engine;
    const struct recipient *r = &o->job->recipients[i];
    const struct result *res = &o->results[i];
    struct str queue = queue_name(o->job->queue);
    char id[MSGID_TEXT];
    /* One that was deferred has been counted by the change that was written. */
    uint32_t attempt = res->fate == FATE_DEFER ? r->attempts : r->attempts + 1;
    if (res->fate == FATE_KEEP && says_nothing(o))
        return; /* nobody was spoken to, or only asked for too much, and it stays */
    count_fate(e, res->fate);
    engine_event(
        e,
        EVENT(res->fate == FATE_BOUNCE ? EVENT_WARN : EVENT_INFO, fate_event(res->fate),
              F_STRZ("id", msgid_text(&o->job->id, id)),
              F_STR("sender", o->job->message->sender.text), F_STR("recipient", r->address.text),
              F_STR("queue", queue), F_STR("host", o->host), F_STR("source", o->source),
              F_STR("tls", o->tls_version),
              F_STR("verified", o->tls_version.n ? o->verified : STR_NONE),
              F_INT("code", res->reply.code), F_STR("reply", res->reply.text),
              F_STR("why", res->why), F_INT("attempt", attempt),
              F_STRZ("stage", res->reply.code || res->why.n ? smtp_stage_name(res->stage) : NULL),
              F_STR("policy", res->decided_by.n ? res->decided_by : r->decided_by),
              F_INT("took_ms", engine_now(e) - o->started_ms),
              F_INT("queued_ms", engine_wall(e) - msgid_time(&o->job->id))));
}

/* ---- the record ------------------------------------------------------------------------------- */

static struct history_attempt attempt_of(const struct pending *p)
{
    const struct outcome *o = &p->o;
    int64_t took = engine_now(p->all->engine) - o->started_ms;
    return (struct history_attempt){ .at_ms = engine_wall(p->all->engine) - took,
                                     .took_ms = (uint32_t)MIN(took, (int64_t)UINT32_MAX),
                                     .tries = o->tries,
                                     .n_tries = o->n_tries };
}

static bool same_try(const struct history_try *a, const struct history_try *b)
{
    return a->reply.code == b->reply.code && str_eq(a->host, b->host) &&
           str_eq(a->stage, b->stage) && str_eq(a->reply.text, b->reply.text);
}

/* What the host said in the end of this recipient; it may be the failure that is noted already. */
static size_t add_last_try(const struct outcome *o, const struct result *res,
                           struct history_try *tries)
{
    size_t n = MIN(o->n_tries, (size_t)HISTORY_TRIES);
    struct history_try last = { .host = o->host,
                                .tls = o->tls_version,
                                .stage = o->host.n ? str_of(smtp_stage_name(res->stage)) : STR_NONE,
                                .reply = res->reply };
    if (!res->reply.code)
        last.reply.text = res->why;
    if (n)
        memcpy(tries, o->tries, n * sizeof *tries);
    if (last.reply.text.n || last.reply.code)
        if (n == 0 || !same_try(&tries[n - 1], &last))
            tries[n++] = last;
    return n;
}

/* Adds the attempt to the recipient's history (Q12): it is written anyway. Without memory that stays as it
 * was. */
static void record_attempt(struct pending *p, struct recipient *r, const struct result *res)
{
    struct history_try tries[HISTORY_TRIES + 1];
    struct history_attempt a = attempt_of(p);
    struct arena scratch;
    struct buf b;
    a.number = r->attempts + 1;
    a.fate = res->fate == FATE_REROUTE ? HISTORY_REROUTED : HISTORY_DEFERRED;
    a.decided_by = res->decided_by;
    a.tries = tries;
    a.n_tries = add_last_try(&p->o, res, tries);
    arena_init(&scratch, 0);
    buf_init(&b, 0);
    if (history_add(&scratch, r->history, &a, &p->o.plan, HISTORY_MAX, &b) == 0) {
        struct str kept = arena_str(&p->o.job->arena, buf_str(&b));
        if (kept.p)
            r->history = kept;
    }
    buf_done(&b);
    arena_done(&scratch);
}

/* ---- the end ---------------------------------------------------------------------------------- */

static void finish(struct pending *p)
{
    struct outcomes *all = p->all;
    struct outcome *o = &p->o;
    struct job *j = o->job;
    int64_t retry_ms = 0;
    size_t moved = 0, kept = 0;
    char why[256]; /* as much of it as a queue remembers */
    /* Moved recipients go to the front of the job's list, for one call. They keep their order. */
    for (size_t i = 0; i < j->n; i++) {
        struct result *res = &o->results[i];
        tell(p, i);
        if ((res->fate == FATE_DEFER || res->fate == FATE_WAIT) && j->class_ == SPOOL_SCHEDULED)
            queue_note_due(j->queue, j->recipients[i].due_ms);
        if (res->fate == FATE_KEEP)
            retry_ms = MAX(retry_ms, res->retry_ms);
        kept += res->fate == FATE_KEEP;
        if (res->fate == FATE_REROUTE) {
            struct recipient swap = j->recipients[moved];
            j->recipients[moved] = j->recipients[i];
            j->recipients[i] = swap;
            struct result swap_result = o->results[moved];
            o->results[moved] = *res;
            *res = swap_result;
            moved++;
        }
    }
    enum attempt_end end = o->end;
    str_copy(o->end_why, why, sizeof why);
    j->whole = kept == j->n;
    if (end == ATTEMPT_HOST_FAILED) {
        struct history_attempt a = attempt_of(p);
        a.fate = HISTORY_HOST_FAILED;
        queue_note_failure(j->queue, &a, &o->plan);
    }
    struct engine *e = all->engine;
    if (moved && j->class_ != SPOOL_HELD)
        queues_arrived(e, j->message, j->recipients, moved);
    pending_free(p);
    queue_attempt_ended(j, end, str_of(why), retry_ms);
}

static void tell_spool_failed(struct pending *p, int result)
{
    struct job *j = p->o.job;
    char id[MSGID_TEXT];
    engine_event(p->all->engine,
                 EVENT(EVENT_ERROR, "spool_failed", F_STRZ("id", msgid_text(&j->id, id)),
                       F_STR("queue", queue_name(j->queue)), F_STRZ("error", strerror(-result))));
}

/* The recipients are as they were, and come again. A delivered one would come twice: only when the engine
 * stops, or nothing was delivered. */
static void give_up(struct pending *p)
{
    struct job *j = p->o.job;
    pending_free(p);
    queue_attempt_ended(j, ATTEMPT_NOT_MADE, STR("spool"), AGAIN_MAX_MS);
}

static void once_more(struct timer *t);

/* What was done cannot be written down. The job stays under way until it can, or delivered mail would be
 * delivered again. */
static void failed(struct pending *p, int result)
{
    struct engine *e = p->all->engine;
    tell_spool_failed(p, result);
    if (e->stopping) {
        give_up(p);
        return;
    }
    p->again_ms = p->again_ms ? MIN(p->again_ms * 2, (int64_t)AGAIN_MAX_MS) : AGAIN_MS;
    engine_timer(e, &p->again, p->again_ms);
}

static void submit(struct pending *p);

/* The one that could not be made alone changes places with one that was not tried yet. False: there is none. */
static bool put_last(struct pending *p)
{
    size_t at = p->alone - 1, last = p->n_changes - 1 - p->n_damaged;
    if (at >= last) {
        p->n_damaged = 0; /* when they are tried again, each is again */
        return false;
    }
    struct spool_change swap = p->changes[at];
    p->changes[at] = p->changes[last];
    p->changes[last] = swap;
    p->n_damaged++;
    return true;
}

static void committed(struct spool_op *op)
{
    struct pending *p = CONTAINER_OF(op, struct pending, op);
    if (!p->all) { /* the engine has gone */
        changes_free(p);
        return;
    }
    p->at_spool = false;
    bool all_at_once = p->alone == 0;
    /* One that is damaged must not keep the others: they would be delivered again at the next start. */
    bool one_by_one = op->result == -EIO && p->n_changes > 1;
    if (one_by_one && !all_at_once && put_last(p)) {
        submit(p);
        return;
    }
    if (op->result < 0 && op->result != -ENOENT && !(one_by_one && all_at_once)) {
        failed(p, op->result);
        return;
    }
    /* -ENOENT: one has gone meanwhile, and nothing of the unit was done. The others are changed alone. */
    if ((op->result == 0 && all_at_once) || (!all_at_once && p->alone == p->n_changes)) {
        finish(p);
        return;
    }
    p->alone++;
    submit(p);
}

static void submit(struct pending *p)
{
    struct port_spool *spool = p->all->engine->ports.spool;
    p->op.changes = p->alone ? &p->changes[p->alone - 1] : p->changes;
    p->op.n_changes = p->alone ? 1 : p->n_changes;
    p->op.done = committed;
    p->at_spool = true;
    p->op.patient = true;
    spool->submit(spool, &p->op);
}

/* ---- changes ---------------------------------------------------------------------------------- */

/* Not later than its time is over (DELIVERBY): then it is returned, or its sender is told if this attempt fails too. Who
 * is to be told is not tried outside of its route's hours for that. */
static int64_t in_time(const struct message *m, const struct recipient *r, int64_t due)
{
    if (!r->warned && !hours_given(&r->route->hours))
        due = MIN(due, message_tell_at(m));
    return MIN(due, message_return_at(m));
}

static void defer_recipient(struct pending *p, struct recipient *r, const struct result *res)
{
    struct engine *e = p->all->engine;
    const struct message *m = p->o.job->message;
    const struct route *route = r->route;
    const struct schedule *schedule =
        route->retry.n ? &route->retry : &p->snapshot->settings->queue.retry;
    int64_t delay = schedule_delay_jitter(schedule, r->attempts, engine_random(e));
    if (res->scope == SCOPE_HOST) /* its return is to be noticed as that of any host (B10) */
        delay =
            schedule_delay_most(schedule, r->attempts,
                                p->snapshot->settings->queue.host_retry_max_ms, engine_random(e));
    r->host_failure = res->scope == SCOPE_HOST;
    if (p->o.job->class_ == SPOOL_WAITING) {
        /* Held again, behind what this pass of the release still has to try (E8). */
        r->state = RECIPIENT_WAITING;
        r->due_ms = engine_wall(e) + 1;
        return;
    }
    r->state = RECIPIENT_DEFERRED;
    int64_t now = engine_wall(e);
    int64_t due = engine_open_at(e, route, now + (res->retry_ms > 0 ? res->retry_ms : delay));
    int64_t sooner = in_time(m, r, due);
    r->due_ms = sooner > now ? sooner : due;
}

/* Another way, but not before its sender lets it go, unless an operator has. */
static int64_t due_rerouted(const struct pending *p, const struct recipient *r, int64_t due)
{
    int64_t now = engine_wall(p->all->engine), until = p->o.job->message->times.hold_ms;
    return r->due_ms > now && until > now ? MAX(due, until) : due;
}

/* What an attempt leaves behind with a recipient that is still to be delivered. Returns its class. */
static enum spool_class tried(struct pending *p, struct recipient *r, struct result *res)
{
    struct engine *e = p->all->engine;
    if (!res->counted) { /* the change may be made once more */
        record_attempt(p, r, res);
        r->attempts++;
        res->counted = true;
    }
    r->last_ms = engine_wall(e);
    r->last_host = p->o.host;
    r->last_reply = res->reply.code ? res->reply.text : res->why;
    if (res->fate != FATE_REROUTE) {
        defer_recipient(p, r, res);
        return p->o.job->class_; /* released mail that was deferred is waiting mail still (E8) */
    }
    bool hold = res->route->kind == ROUTE_HOLD;
    route_unref(r->route);
    r->route = route_ref(res->route);
    r->attempts = 0;
    if (p->o.job->class_ == SPOOL_HELD) /* another way, once the operator lets it go */
        return SPOOL_HELD;
    if (!hold)
        r->due_ms = due_rerouted(p, r, engine_open_at(e, r->route, engine_wall(e)));
    else if (p->o.job->class_ != SPOOL_WAITING) /* else it keeps its place */
        r->due_ms = due_rerouted(p, r, engine_wall(e));
    r->state = hold ? RECIPIENT_WAITING : RECIPIENT_READY;
    return hold ? SPOOL_WAITING : SPOOL_SCHEDULED;
}

/* The change at place k of the unit. */
static int change_for(struct pending *p, size_t i, size_t k)
{
    struct job *j = p->o.job;
    struct recipient *r = &j->recipients[i];
    struct result *res = &p->o.results[i];
    struct spool_change *c = &p->changes[k];
    struct buf *record = &p->records[k];
    enum spool_class class_ = SPOOL_SCHEDULED;
    *c = (struct spool_change){ .type = SPOOL_DELETE_RECIPIENT, .id = j->id };
    c->recipient.n = r->n;
    buf_init(record, 0);
    if (res->fate == FATE_DELIVERED || res->fate == FATE_BOUNCE || res->fate == FATE_DISCARD)
        return 0;
    if (res->fate == FATE_WAIT) {
        r->state = RECIPIENT_DEFERRED;
        r->due_ms = MIN(engine_wall(p->all->engine) + res->retry_ms, message_return_at(j->message));
        class_ = j->class_;
    } else if (res->fate == FATE_WARN) {
        r->warned = true;
        class_ = j->class_;
    } else {
        class_ = tried(p, r, res);
    }
    c->type = SPOOL_PUT_RECIPIENT;
    int err = recipient_encode(r, record);
    struct str queue = res->fate == FATE_REROUTE ? r->route->queue : queue_name(j->queue);
    c->recipient = (struct spool_recipient){ .n = r->n,
                                             .queue = arena_str(&p->o.arena, queue),
                                             .class_ = class_,
                                             .due_ms = r->due_ms,
                                             .size = j->message->size,
                                             .record = buf_str(record) };
    return c->recipient.queue.p ? err : -ENOMEM;
}

/* What is deferred is written anyway: a good moment to tell of a delay. */
static void mark_warnings(struct pending *p)
{
    struct job *j = p->o.job;
    for (size_t i = 0; i < j->n; i++) {
        struct result *res = &p->o.results[i];
        struct recipient *r = &j->recipients[i];
        if (res->fate != FATE_DEFER || j->class_ != SPOOL_SCHEDULED || j->mode != JOB_DELIVER ||
            notification_warn_at(p->snapshot->settings, j->message, r) >
                engine_wall(p->all->engine))
            continue;
        res->warn = r->warned = true;
    }
}

static int make_changes(struct pending *p)
{
    struct job *j = p->o.job;
    p->changes = calloc(j->n, sizeof *p->changes);
    p->records = calloc(j->n, sizeof *p->records);
    if (!p->changes || !p->records)
        return -ENOMEM;
    mark_warnings(p);
    for (size_t i = 0; i < j->n; i++) {
        if (p->o.results[i].fate == FATE_KEEP)
            continue;
        int err = change_for(p, i, p->n_changes++);
        if (err < 0)
            return err;
    }
    p->whole = true;
    return 0;
}

/* Nobody can be told of the failures now: they are not failures yet. */
static int defer_bounced(struct pending *p)
{
    for (size_t i = 0, k = 0; i < p->o.job->n; i++) {
        struct result *res = &p->o.results[i];
        if (res->fate == FATE_BOUNCE || res->warn) {
            p->o.job->recipients[i].warned &= !res->warn;
            res->fate = FATE_DEFER;
            res->warn = false;
            buf_done(&p->records[k]);
            int err = change_for(p, i, k);
            if (err < 0)
                return err;
        }
        k += res->fate != FATE_KEEP;
    }
    p->whole = true;
    return 0;
}

/* ---- notification ----------------------------------------------------------------------------- */

/* The result stands without a notification. */
static void go_without_dsn(struct pending *p, struct str why)
{
    char id[MSGID_TEXT];
    engine_event(p->all->engine,
                 EVENT(EVENT_WARN, "dsn_dropped", F_STRZ("id", msgid_text(&p->o.job->id, id)),
                       F_STR("sender", p->o.job->message->sender.text), F_STR("why", why)));
    submit(p);
}

/* Not now: those that were to fail are tried again later, the others are done with. Where nothing was sent
 * all stays as it was: what is too old would be found again at once, and what an operator holds is not let go. */
static void dsn_failed(struct pending *p)
{
    if (p->o.job->mode != JOB_DELIVER) {
        tell_spool_failed(p, -EAGAIN);
        give_up(p);
        return;
    }
    int err = defer_bounced(p);
    if (err == 0 &&
        notification_due(&p->o)) { /* of success: what was delivered is not kept for that */
        go_without_dsn(p, STR("it cannot be taken now, and the delivery stands"));
        return;
    }
    if (err == 0) {
        submit(p);
        return;
    }
    p->whole = false; /* it is made again */
    failed(p, err);
}

static void dsn_done(void *owner, const struct smtp_reply *reply)
{
    struct pending *p = owner;
    bool dropped = intake_recipients(p->dsn) == 0; /* by a policy; then `also` was not done */
    p->dsn = NULL;
    if (smtp_reply_positive(reply) && !dropped) {
        COUNT(p->all->engine, dsn_sent, 1);
        finish(p);
    } else if (smtp_reply_positive(reply) || smtp_reply_permanent(reply)) {
        go_without_dsn(p, reply->text);
    } else {
        dsn_failed(p);
    }
}

/* 0: under way (dsn_done will be called). */
static int send_dsn(struct pending *p)
{
    struct engine *e = p->all->engine;
    struct message *m = p->o.job->message;
    struct intake_source src = { .snapshot = p->snapshot,
                                 .flags = MESSAGE_DSN,
                                 .requiretls = (m->flags & MESSAGE_REQUIRETLS) != 0,
                                 .times.priority = m->times.priority, /* as RFC 6710 has it */
                                 .eight_bit = (m->flags & MESSAGE_8BIT) != 0,
                                 .smtputf8 = (m->flags & MESSAGE_SMTPUTF8) != 0 };
    struct buf text;
    buf_init(&text, 0);
    p->dsn = intake_new(e, &src, p);
    if (!p->dsn)
        return -ENOMEM;
    int err = notification_write(e, p->snapshot->settings, &p->o, intake_id(p->dsn), &text);
    if (err == 0)
        err = intake_add_recipient(p->dsn, &m->sender, NULL, STR("dsn"));
    if (err == 0)
        err = intake_body(p->dsn, buf_str(&text), NULL);
    buf_done(&text);
    if (err < 0) {
        intake_abort(p->dsn);
        p->dsn = NULL;
        return err;
    }
    intake_also(p->dsn, p->changes, p->n_changes);
    intake_finish(p->dsn, dsn_done);
    return 0;
}

static void commit(struct pending *p)
{
    int err = make_changes(p);
    if (err < 0) {
        failed(p, err);
        return;
    }
    if (p->n_changes == 0) {
        finish(p);
        return;
    }
    if (!notification_due(&p->o)) {
        submit(p);
        return;
    }
    err = send_dsn(p);
    if (err == -EINVAL || err == -EMSGSIZE)
        go_without_dsn(p, STR("it cannot be written"));
    else if (err < 0)
        dsn_failed(p);
}

/* The unit itself is there, or has to be made again. */
static void once_more(struct timer *t)
{
    struct pending *p = CONTAINER_OF(t, struct pending, again);
    if (p->n_changes && p->whole) {
        submit(p);
        return;
    }
    changes_reset(p);
    commit(p);
}

/* ---- the result hook -------------------------------------------------------------------------- */

static struct smtp_reply copy_reply(struct arena *a, const struct smtp_reply *r)
{
    struct smtp_reply copy = *r;
    copy.text = arena_str(a, r->text);
    return copy;
}

static void apply_verdict(struct pending *p, size_t i, struct hook_result *v)
{
    struct result *res = &p->o.results[i];
    bool host = res->fate == FATE_KEEP;
    switch (v->verdict) {
    case VERDICT_DEFER:
        res->fate = host ? FATE_KEEP : FATE_DEFER;
        res->retry_ms = v->retry_ms;
        break;
    case VERDICT_BOUNCE:
    case VERDICT_REJECT:
        res->fate = FATE_BOUNCE;
        res->reply = copy_reply(&p->o.arena, &v->reply);
        break;
    case VERDICT_DISCARD: res->fate = FATE_DISCARD; break;
    case VERDICT_ROUTE:
        if (!v->route)
            break;
        res->fate = FATE_REROUTE;
        route_unref(res->route);
        res->route = TAKE(v->route);
        break;
    case VERDICT_NONE:
    case VERDICT_ACCEPT:
    case VERDICT_RELEASE:
    case VERDICT_FAILED: break;
    }
    if (v->verdict == VERDICT_NONE || !v->decided_by.n)
        return;
    res->decided_by = arena_str(&p->o.job->arena, v->decided_by);
    if (res->fate == FATE_REROUTE && res->decided_by.p) /* it decided the way */
        p->o.job->recipients[i].decided_by = res->decided_by;
}

static void ask(struct pending *p);

static void hook_answered(void *owner, struct hook_result *v)
{
    struct pending *p = owner;
    p->call = NULL;
    apply_verdict(p, p->asked++, v);
    ask(p);
}

static void fill_views(struct pending *p, size_t i)
{
    struct outcome *o = &p->o;
    struct engine *e = p->all->engine;
    const struct message *m = o->job->message;
    const struct recipient *r = &o->job->recipients[i];
    const struct result *res = &o->results[i];
    p->recipient_view = (struct recipient_view){ .address = &r->address, .n = r->n };
    p->message_view = message_view_of(m);
    p->attempt_view = (struct attempt_view){ .number = r->attempts + 1,
                                             .host = o->host,
                                             .address = o->addr,
                                             .stage = res->stage,
                                             .reply = res->reply,
                                             .why = res->why,
                                             .scope = res->scope,
                                             .permanent = res->fate == FATE_BOUNCE,
                                             .elapsed_ms = engine_now(e) - o->started_ms,
                                             .queued_ms = engine_wall(e) - m->received_ms,
                                             .route = o->job->route };
}

static bool asks_about(const struct outcome *o, enum fate f)
{
    return f == FATE_DEFER || f == FATE_BOUNCE || (f == FATE_KEEP && !says_nothing(o));
}

static void ask(struct pending *p)
{
    struct hooks *hooks = p->snapshot->hooks;
    bool has_hook = hooks_have(hooks, HOOK_RESULT) && p->o.job->mode == JOB_DELIVER;
    for (; has_hook && p->asked < p->o.job->n; p->asked++) {
        if (!asks_about(&p->o, p->o.results[p->asked].fate))
            continue;
        fill_views(p, p->asked);
        struct hook_input in = { .message = &p->message_view,
                                 .recipient = &p->recipient_view,
                                 .attempt = &p->attempt_view };
        struct hook_result v;
        hook_result_init(&v);
        int now = hooks->run(hooks, HOOK_RESULT, &in, &v, hook_answered, p, &p->call);
        if (now)
            apply_verdict(p, p->asked, &v);
        hook_result_done(&v);
        if (!now)
            return;
    }
    commit(p);
}

static void begin(struct later *l)
{
    ask(CONTAINER_OF(l, struct pending, step));
}

struct pending *outcome_room(void)
{
    return calloc(1, sizeof(struct pending));
}

void outcome_apply(struct engine *e, struct pending *p, const struct outcome *o)
{
    p->all = e->outcomes;
    p->o = *o;
    p->snapshot = snapshot_ref(e->snapshot);
    list_init(&p->op.link);
    later_init(&p->step, begin);
    timer_init(&p->again, once_more);
    list_push(&e->outcomes->all, &p->link);
    e->outcomes->n++;
    engine_later(e, &p->step);
}
