/* delivery_hops.c - the hosts of an attempt: found, put into order, tried one after another until one takes the
 * transaction; then the fallback, or the end. Layer: engine. Interface: delivery_impl.h. */
#include "base/hash.h"
#include "base/units.h"
#include "engine/delivery_impl.h"
#include "engine/hosts.h"

/* ---- none is left ----------------------------------------------------------------------------- */

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

/* All hosts have been tried, and none can be used: they refuse, are silent, or are ourselves. */
static void smart_host_alarm(struct delivery *d)
{
    bool loops = d->looped == d->tried;
    struct smtp_reply told = { .code = 451,
                               .enhanced = loops ? ENH(4, 3, 5) : ENH(4, 4, 1),
                               .text = d->host_reply.code ? d->host_reply.text : d->host_why };
    delivery_alarm(d, "route_alarm", &told);
}

/* No host could be used. */
static void hosts_exhausted(struct delivery *d)
{
    if (delivery_end_unprotected(d))
        return;
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
        delivery_finish(d, ATTEMPT_BROKEN);
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

static struct str first_domain(const struct delivery *d)
{
    size_t i = 0;
    while (i + 1 < d->job->n && d->decided[i])
        i++;
    return d->job->recipients[i].address.domain;
}

static struct session_out_key key_of(const struct delivery *d, const struct hop *h)
{
    enum route_tls tls = delivery_guards(d, h)   ? hop_guarded_tls(h)
                         : d->in_clear == d->hop ? ROUTE_TLS_NONE
                                                 : h->tls;
    return (struct session_out_key){ .addr = h->addr,
                                     .name = h->name,
                                     .tls = tls,
                                     .lmtp = h->lmtp,
                                     .dane = tls == ROUTE_TLS_DANE ? h->dane : STR_NONE,
                                     .certificate = h->certificate,
                                     .auth = h->auth,
                                     .domain = first_domain(d) };
}

static struct str verified_by(enum route_tls tls, const struct hop *h)
{
    switch (tls) {
    case ROUTE_TLS_DANE: return STR("dane");
    case ROUTE_TLS_VERIFY: return h->sts ? STR("mta-sts") : STR("authority");
    default: return STR_NONE;
    }
}

static bool open_session(struct delivery *d, const struct hop *h, const struct session_out_key *key)
{
    d->addr = h->addr;
    d->host = trail_host(&d->arena, h);
    d->tls_version = STR_NONE;
    d->verified = verified_by(key->tls, h);
    d->opened_ms = engine_now(d->engine);
    d->session = session_out_open(d->engine, key, d->snapshot, &delivery_session_events, d);
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
    delivery_note_failure(d, SMTP_STAGE_AUTH, NULL, why);
    delivery_auth_alarm(d, &d->host_reply, why);
}

/* The same of our certificate. */
static void certificate_missing(struct delivery *d, const struct hop *h)
{
    struct smtp_reply told = { .code = 454, .enhanced = ENH(4, 7, 0) };

    told.text = arena_printf(
        &d->arena, "our certificate " STR_FMT " is not one of the configuration's any more",
        STR_ARG(h->certificate));
    d->host = trail_host(&d->arena, h);
    d->host_failed = true;
    delivery_note_failure(d, SMTP_STAGE_TLS, NULL, told.text);
    delivery_alarm(d, "route_alarm", &told);
}

static void use_fallback(struct delivery *d)
{
    delivery_leave_route(d);
    d->route = d->route->fallback;
    d->tried = d->hop = d->n_hops = d->looped = d->in_clear = 0;
    d->least_wait_ms = 0;
    lanes_leave(d->engine->shared->lanes, &d->lane);
    struct str queue = queue_name(d->job->queue);
    int64_t wait = lanes_enter(d->engine->shared->lanes, d->route, hash_bytes(queue.p, queue.n) | 1,
                               engine_now(d->engine), &d->lane);
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
    delivery_set_failure(d, SMTP_STAGE_CONNECT, NULL, why);
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
    delivery_give_back(d, end, 0);
}

/* Others are as good, but none that is worse is asked because one has no room now. */
static bool may_ask(const struct delivery *d, const struct hop *h)
{
    return !d->full || h->preference == d->full->preference;
}

void delivery_try_next(struct delivery *d)
{
    while (d->hop < d->n_hops && d->tried < DELIVERY_MAX_ADDRESSES + d->unprotected) {
        const struct hop *h = &d->hops[d->hop++];
        if (!may_ask(d, h) || delivery_leaves_out(d, h))
            continue;
        if (!d->again && !queue_host_room(d->job, &h->addr)) {
            d->full = d->full ? d->full : h;
            continue;
        }
        /* What somebody asked for is tried by one of all whom it concerns: one that has failed since then has
         * answered for the others. Whose TLS keeps others away may be good enough for mail that does not ask for it. */
        bool forced =
            d->job->forced && hosts_failed_at(d->engine->hosts, &h->addr) < d->job->forced_at;
        bool anyway = forced || d->again || delivery_wish(d) == NEXT_HOP_TLS_OPTIONAL;
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
        if (h->certificate.n && !settings_has_certificate(d->snapshot->settings, h->certificate)) {
            certificate_missing(d, h);
            continue;
        }
        struct session_out_key key = key_of(d, h);
        enum source_step step = delivery_choose_source(d, h, &key, &wait);
        if (step == SOURCE_LEAVE_OUT)
            continue;
        if (step == SOURCE_WAIT) {
            delivery_wait_for_source(d, d->host_why, wait);
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
            delivery_note_failure(d, SMTP_STAGE_CONNECT, NULL,
                                  STR("no more connections allowed here"));
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

/* Of more addresses than one attempt tries, those that failed longest ago, or never, come first; but for the best one,
 * whose return is to be noticed. So none is left out for ever because those before it are dead (RFC 5321
 * section 5.1). */
static void order_hops(struct delivery *d)
{
    int64_t failed[NEXT_HOP_MAX];
    if (d->n_hops <= DELIVERY_MAX_ADDRESSES)
        return;
    CHECK(d->n_hops <= NEXT_HOP_MAX);
    for (size_t i = 0; i < d->n_hops; i++)
        failed[i] = hosts_failed_at(d->engine->hosts, &d->hops[i].addr);
    for (size_t i = 2; i < d->n_hops; i++) {
        struct hop h = d->hops[i];
        int64_t at = failed[i];
        size_t k = i;
        for (; k > 1 && failed[k - 1] > at; k--) {
            d->hops[k] = d->hops[k - 1];
            failed[k] = failed[k - 1];
        }
        d->hops[k] = h;
        failed[k] = at;
    }
    next_hop_mix_families(d->hops, d->n_hops);
}

/* False: out of memory. A host without its name, its records or its credentials would be another one. */
static bool take_hop(struct delivery *d, struct hop *to, const struct hop *from)
{
    *to = *from;
    to->name = arena_str(&d->arena, from->name);
    to->dane = arena_str(&d->arena, from->dane);
    to->auth = arena_str(&d->arena, from->auth);
    to->certificate = arena_str(&d->arena, from->certificate);
    return to->name.n == from->name.n && to->dane.n == from->dane.n && to->auth.n == from->auth.n &&
           to->certificate.n == from->certificate.n;
}

static bool take_hops(struct delivery *d, const struct next_hops *r)
{
    d->hops = ARENA_ARRAY(&d->arena, struct hop, r->n);
    if (!d->hops)
        return false;
    for (size_t i = 0; i < r->n; i++)
        if (!take_hop(d, &d->hops[i], &r->hops[i]))
            return false;
    d->n_hops = r->n;
    order_hops(d);
    return true;
}

static void on_hops(void *owner, const struct next_hops *r)
{
    struct delivery *d = owner;
    d->query = NULL;
    trail_take_discarded(&d->trail, &d->arena, r);
    d->incomplete = r->incomplete;
    delivery_tls_found(d, r);
    if (r->alarm)
        delivery_alarm(d, "route_alarm", &r->reply);
    if (delivery_not_vouched(d, r)) {
        delivery_try_next(d);
        return;
    }
    switch (r->status) {
    case NEXT_HOP_OK:
        if (take_hops(d, r))
            delivery_try_next(d);
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
        delivery_note_failure(d, SMTP_STAGE_CONNECT, &r->reply, r->reply.text);
        if (d->route->fallback)
            use_fallback(d);
        else
            delivery_finish(d, ATTEMPT_HOST_FAILED);
        break;
    }
}

void delivery_resolve(struct delivery *d)
{
    d->query = next_hop_resolve_for(d->engine, d->route, d->snapshot->settings, delivery_wish(d),
                                    on_hops, d);
    if (!d->query) {
        delivery_note_failure(d, SMTP_STAGE_CONNECT, NULL, STR("out of memory"));
        delivery_finish(d, ATTEMPT_NOT_MADE);
    }
}
