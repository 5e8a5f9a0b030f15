/* delivery_session.c - the transaction of an attempt with one host, and whose failure it is when it ends without
 * success (ROUTING.md Q4). Layer: engine. Interface: delivery_impl.h. */
#include "engine/delivery_impl.h"
#include "engine/hosts.h"
#include "engine/sts.h"

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
    delivery_note_failure(d, SMTP_STAGE_GREETING, NULL, why);
    delivery_try_next(d);
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

/* Who does not mind the time of mail is asked to tell of its delay (RFC 2852 section 4.1.4.2). */
static uint8_t to_notify(const struct delivery *d, uint8_t asked)
{
    bool minds = d->job->message->times.by != SMTP_BY_NOTIFY || d->by_goes_on;
    if (minds || d->hops[d->hop - 1].lmtp || asked & SMTP_NOTIFY_NEVER)
        return asked;
    return (uint8_t)(SMTP_NOTIFY_DELAY | (asked ? asked : (uint8_t)SMTP_NOTIFY_FAILURE));
}

/* NOTIFY and ORCPT of those that are sent, in their order; NULL: nobody asked for anything. False: out of
 * memory. */
static bool what_to_tell(struct delivery *d, struct smtp_dsn_rcpt **ret)
{
    const struct recipient *all = d->job->recipients;
    bool any = false;
    size_t n = 0;
    for (size_t i = 0; i < d->job->n; i++)
        any |= to_notify(d, all[i].notify) || all[i].orcpt.n;
    if (!any)
        return true;
    *ret = ARENA_ARRAY(&d->arena, struct smtp_dsn_rcpt, d->job->n);
    for (size_t i = 0; *ret && i < d->job->n; i++)
        if (!d->decided[i])
            (*ret)[n++] = (struct smtp_dsn_rcpt){ .notify = to_notify(d, all[i].notify),
                                                  .orcpt = all[i].orcpt };
    return *ret != NULL;
}

/* Whom the host takes in one transaction. The others are left to a later one: for this attempt it is as if they had
 * not been loaded. */
static void choose(struct delivery *d)
{
    struct job *j = d->job;
    size_t kept = 0;
    d->n_sent = 0;
    for (size_t i = 0; i < j->n; i++) {
        struct recipient *r = &j->recipients[i];
        bool sent = !d->decided[i] && session_out_admit(d->session, r->address.text, d->n_sent);
        if (!sent && !d->decided[i]) {
            recipient_done(r);
            j->more = true;
            continue;
        }
        if (sent)
            d->sent[d->n_sent++] = kept;
        j->recipients[kept] = *r;
        d->results[kept] = d->results[i];
        d->decided[kept++] = d->decided[i];
    }
    j->n = kept;
}

static void on_ready(void *owner)
{
    struct delivery *d = owner;
    if (is_loop(d)) {
        struct str why = loop_text(d);
        session_out_release(TAKE(d->session), false);
        found_loop(d, why);
        return;
    }
    delivery_tls_ready(d);
    d->tls_version = arena_str(&d->arena, session_out_tls_version(d->session));
    d->told_further = session_out_offers_dsn(d->session);
    if (delivery_not_offered(d)) {
        session_out_release(TAKE(d->session), true);
        source_drop(d->engine, &d->source);
        delivery_try_next(d);
        return;
    }
    /* When it is over there is nothing left to be minded: its sender has been told. */
    d->by_goes_on =
        session_out_offers_by(d->session) || engine_wall(d->engine) >= d->job->message->times.by_ms;
    const char *late = session_out_why_not_in_time(d->session, d->job->message);
    if (late) {
        session_out_release(TAKE(d->session), true);
        struct smtp_reply reply = { .enhanced = ENH(5, 4, 7) }; /* not the host's word */
        delivery_decide_rest(d, FATE_BOUNCE, SCOPE_MESSAGE, SMTP_STAGE_MAIL, &reply, str_of(late));
        delivery_finish(d, ATTEMPT_DONE);
        return;
    }
    AUTO_FREE struct str *to = calloc(d->job->n, sizeof *to);
    struct smtp_dsn_rcpt *dsn = NULL;
    d->sent = ARENA_ARRAY(&d->arena, size_t, d->job->n);
    if (d->sent)
        choose(d);
    if (!to || !d->sent || !d->n_sent || !what_to_tell(d, &dsn)) {
        session_out_release(TAKE(d->session), true);
        delivery_finish(d, ATTEMPT_NOT_MADE);
        return;
    }
    d->wants_told = false;
    d->n_taken = 0;
    if (d->route == d->job->route)
        queue_transaction_begins(d->job);
    d->lane.ticket = (struct throttle_ticket){ 0 }; /* used up */
    source_spend(d->engine, d->snapshot->settings, &d->source);
    for (size_t i = 0; i < d->n_sent; i++)
        to[i] = d->job->recipients[d->sent[i]].address.text;
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

/* 552 is how RFC 821 had a host say that it takes no more recipients: of those behind others that it has taken it
 * means 452, and they have a transaction of their own (RFC 5321 §4.5.3.1.10). With another reason (5.2.2) it is about
 * the mailbox. */
static bool is_one_too_many(const struct delivery *d, const struct smtp_reply *reply)
{
    const struct smtp_enhanced *e = &reply->enhanced;
    return reply->code == 552 && d->n_taken > 0 &&
           (e->subject == 0 || (e->subject == 5 && e->detail == 3)); /* 0: no reason is told */
}

static void on_rcpt(void *owner, size_t index, const struct smtp_reply *reply)
{
    struct delivery *d = owner;
    if (index >= d->n_sent)
        return;
    if (smtp_reply_positive(reply)) {
        d->n_taken++;
        return;
    }
    bool wants = wants_other_terms(d, reply);
    if (wants && !d->wants_told)
        delivery_auth_alarm(d, reply, STR_NONE);
    d->wants_told |= wants;
    enum fate fate = wants || is_one_too_many(d, reply) ? FATE_DEFER : fate_of(reply);
    delivery_decide(d, d->sent[index], fate, SCOPE_RECIPIENT, SMTP_STAGE_RCPT, reply, STR_NONE);
}

static void on_result(void *owner, size_t index, enum smtp_stage stage,
                      const struct smtp_reply *reply)
{
    struct delivery *d = owner;
    d->unwelcome = stage == SMTP_STAGE_MAIL && wants_other_terms(d, reply);
    if (d->unwelcome)
        delivery_note_failure(d, SMTP_STAGE_AUTH, reply, reply->text);
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
        delivery_auth_alarm(d, &d->host_reply, STR_NONE);
        d->unwelcome = false;
        d->host_failed = true;
        delivery_try_next(d);
        return;
    }
    session_out_release(TAKE(d->session), true);
    delivery_decide_rest(d, FATE_DEFER, SCOPE_MESSAGE, SMTP_STAGE_FINAL, NULL,
                         STR("no result was told"));
    delivery_finish(d, ATTEMPT_DONE);
}

/* Down, or only not to be asked for so many connections: then it is waited for. */
static bool is_only_crowded(struct delivery *d, struct str why)
{
    if (hosts_refused(d->engine->hosts, &d->addr, d->opened_ms, why))
        return false;
    d->crowded = true;
    d->full = &d->hops[d->hop - 1];
    return true;
}

/* 421 is the host's failure at any time. But when others go well, and it says so of the same message again, behind
 * MAIL, it is the message that it does not want now. */
static bool message_breaks_off(struct delivery *d, enum smtp_stage stage, bool crowded)
{
    enum { OFTEN = 2 };
    if (!crowded || stage <= SMTP_STAGE_MAIL)
        return false;
    d->job->broken_off += d->job->broken_off < OFTEN;
    return d->job->broken_off >= OFTEN;
}

static void on_failed(void *owner, enum smtp_stage stage, const struct smtp_reply *reply,
                      struct str why)
{
    struct delivery *d = owner;
    bool reused = session_out_reused(d->session);
    bool said_421 = reply->code == 421;
    struct str loop = stage == SMTP_STAGE_AUTH && is_loop(d) ? loop_text(d) : STR_NONE;
    enum session_out_fault fault = session_out_source_fault(d->session);
    delivery_tls_failed(d, stage, reply, why);
    int error = session_out_error(d->session);
    d->session = NULL;
    source_drop(d->engine, &d->source);
    if (fault != SOURCE_WORKS) {
        int64_t wait = delivery_source_failed(d, fault);
        if (wait > 0) {
            delivery_wait_for_source(d, d->host_why, wait);
            return;
        }
        d->again = true; /* from another one */
        d->hop--;
        d->tried--;
        delivery_try_next(d);
        return;
    }
    if (loop.n) {
        found_loop(d, loop);
        return;
    }
    delivery_note_failure(d, stage, reply, why);
    if (stage >= SMTP_STAGE_FINAL && !said_421) {
        /* The message may have arrived: a duplicate is possible, a loss is not (Q4). */
        delivery_decide_rest(d, FATE_DEFER, SCOPE_MESSAGE, stage, reply, why);
        delivery_finish(d, ATTEMPT_BROKEN);
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
        delivery_try_next(d);
        return;
    }
    bool tls_failed =
        stage == SMTP_STAGE_TLS || (stage == SMTP_STAGE_STARTTLS && reply->code && !said_421);
    if ((stage == SMTP_STAGE_TLS || stage == SMTP_STAGE_STARTTLS) && d->hops[d->hop - 1].sts)
        sts_doubt(d->engine, d->route->domain);
    if (delivery_guard_failed(d, stage, reply, error, why)) {
        delivery_try_next(d);
        return;
    }
    if (tls_failed && d->hops[d->hop - 1].tls == ROUTE_TLS_OPPORTUNISTIC && d->in_clear != d->hop) {
        d->in_clear = d->hop; /* better in clear than not at all (RFC 7435) */
        d->again = true;
        d->hop--;
        d->tried--;
        delivery_try_next(d);
        return;
    }
    bool crowded = false;
    d->host_failed = stage < SMTP_STAGE_MAIL || said_421;
    if (stage == SMTP_STAGE_AUTH && !said_421) /* others may be welcome there (S6, S7) */
        delivery_auth_alarm(d, reply, why);
    else if (d->host_failed)
        crowded = is_only_crowded(d, reply->code ? reply->text : why);
    if (said_421 && message_breaks_off(d, stage, crowded))
        delivery_decide_rest(d, FATE_DEFER, SCOPE_MESSAGE, stage, reply, why);
    if (delivery_undecided(d) == 0) {
        delivery_finish(d, ATTEMPT_DONE);
        return;
    }
    delivery_try_next(d);
}

const struct session_out_events delivery_session_events = {
    .ready = on_ready,
    .rcpt = on_rcpt,
    .result = on_result,
    .done = on_done,
    .failed = on_failed,
};
