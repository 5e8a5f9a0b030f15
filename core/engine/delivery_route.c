/* delivery_route.c - the route of an attempt: asked for again when the policy or its credentials have changed,
 * then followed. Layer: engine. Interface: delivery_impl.h. */
#include "engine/delivery_impl.h"

static struct smtp_reply bounce_reply(const struct route *r)
{
    struct smtp_reply reply = { .code = r->reply_code, .text = r->reply_text };
    struct str first = r->reply_text;
    ptrdiff_t space = str_chr(first, ' ');
    if (space > 0 && smtp_enhanced_parse(str_first(first, (size_t)space), &reply.enhanced) == 0)
        reply.text = str_from(first, (size_t)space + 1);
    return reply;
}

/* d->route names no host. */
void delivery_end_without_host(struct delivery *d)
{
    switch (d->route->kind) {
    case ROUTE_MX:
    case ROUTE_HOSTS: break;
    case ROUTE_DISCARD:
        delivery_decide_rest(d, FATE_DISCARD, SCOPE_RECIPIENT, SMTP_STAGE_CONNECT, NULL,
                             d->route->reason);
        break;
    case ROUTE_BOUNCE: {
        struct smtp_reply reply = bounce_reply(d->route);
        delivery_decide_rest(d, FATE_BOUNCE, SCOPE_RECIPIENT, SMTP_STAGE_CONNECT, &reply, STR_NONE);
        break;
    }
    case ROUTE_HOLD: /* it stood among the scheduled ones: put it where it belongs */
        for (size_t i = 0; i < d->job->n; i++)
            if (!d->decided[i]) {
                delivery_decide(d, i, FATE_REROUTE, SCOPE_RECIPIENT, SMTP_STAGE_CONNECT, NULL,
                                STR_NONE);
                d->results[i].route = route_ref((struct route *)d->route);
            }
        break;
    }
    delivery_finish(d, ATTEMPT_UNTRIED);
}

/* An attempt follows one route. Those that now have another go on their own. */
static void part_ways(struct delivery *d)
{
    if (!d->asked_anew || d->job->class_ == SPOOL_WAITING)
        return;
    for (size_t i = 0; i < d->job->n; i++) {
        struct route *own = d->job->recipients[i].route;
        if (d->decided[i] || route_same(own, d->job->route))
            continue;
        delivery_decide(d, i, FATE_REROUTE, SCOPE_RECIPIENT, SMTP_STAGE_CONNECT, NULL,
                        STR("the policy has changed"));
        d->results[i].route = route_ref(own);
    }
}

/* Outside of the route's hours mail waits until they begin again. What is due outside of them is an
 * operator's wish; what a release lets go was asked for now. */
static void wait_for_hours(struct delivery *d)
{
    const struct route *r = d->job->route;
    int64_t now = engine_wall(d->engine), open = engine_open_at(d->engine, r, now);
    if (!hours_given(&r->hours) || d->job->mode != JOB_DELIVER || d->job->class_ == SPOOL_WAITING)
        return;
    for (size_t i = 0; i < d->job->n; i++) {
        int64_t due = d->job->recipients[i].due_ms;
        bool wished = !d->asked_anew && due <= now && engine_open_at(d->engine, r, due) != due;
        if (open == now || wished || d->decided[i])
            continue;
        delivery_decide(d, i, FATE_WAIT, SCOPE_RECIPIENT, SMTP_STAGE_CONNECT, NULL,
                        STR("outside of its hours"));
        d->results[i].retry_ms = open - now;
    }
}

static void follow(struct delivery *d)
{
    part_ways(d);
    wait_for_hours(d);
    if (delivery_undecided(d) == 0 || d->job->mode == JOB_REROUTE) {
        delivery_finish(d, ATTEMPT_UNTRIED);
        return;
    }
    int64_t wait_ms;
    if (!queue_route_is_known(d->job, d->asked_anew ? d->snapshot : NULL, &wait_ms)) {
        delivery_hold_back(d, STR("its queue may do no more at present"), wait_ms);
        return;
    }
    d->route = d->job->route;
    if (d->route->kind == ROUTE_MX || d->route->kind == ROUTE_HOSTS)
        delivery_resolve(d);
    else
        delivery_end_without_host(d);
}

static struct str why_anew(const struct delivery *d)
{
    return d->job->batch ? STR("the postmaster had it routed anew") : STR("the policy has changed");
}

/* A route has been chosen anew for one recipient. One reference of r is taken over. */
static void rerouted(struct delivery *d, size_t i, struct route *r)
{
    struct recipient *rcpt = &d->job->recipients[i];
    rcpt->policy = snapshot_fingerprint(d->snapshot);
    bool waiting = d->job->class_ == SPOOL_WAITING;
    bool here = str_eq(r->queue, queue_name(d->job->queue));
    bool first =
        delivery_undecided(d) == d->job->n - i; /* the attempt follows the first that stays */
    d->asked_anew = true;
    bool new_terms = d->job->mode == JOB_REROUTE && !route_same(r, rcpt->route);
    if (here && waiting == (r->kind == ROUTE_HOLD) && !new_terms) {
        route_unref(rcpt->route); /* on other terms, perhaps: written with the next change */
        rcpt->route = r;
        if (!waiting && first && !route_same(r, d->job->route)) {
            route_unref(d->job->route);
            d->job->route = route_ref(r);
        }
        return;
    }
    delivery_decide(d, i, FATE_REROUTE, SCOPE_RECIPIENT, SMTP_STAGE_CONNECT, NULL, why_anew(d));
    d->results[i].route = r;
}

/* <postmaster> alone is ours. */
static struct route *default_route(struct delivery *d, const struct recipient *r)
{
    struct str domain = r->address.domain;
    return route_default(domain.n ? domain : d->snapshot->settings->hostname, STR_NONE);
}

static void apply_route_verdict(struct delivery *d, size_t i, struct hook_result *v)
{
    struct recipient *r = &d->job->recipients[i];
    struct route *route = NULL;
    struct str by = v->decided_by.n ? arena_str(&d->job->arena, v->decided_by) : STR_NONE;
    if (by.p)
        r->decided_by = by;
    switch (v->verdict) {
    case VERDICT_ROUTE: route = TAKE(v->route); break;
    case VERDICT_NONE:
    case VERDICT_ACCEPT:
    case VERDICT_RELEASE: route = default_route(d, r); break;
    case VERDICT_DISCARD:
        delivery_decide(d, i, FATE_DISCARD, SCOPE_RECIPIENT, SMTP_STAGE_CONNECT, NULL, STR_NONE);
        return;
    case VERDICT_BOUNCE:
    case VERDICT_REJECT:
        delivery_decide(d, i, FATE_BOUNCE, SCOPE_RECIPIENT, SMTP_STAGE_CONNECT, &v->reply,
                        STR_NONE);
        return;
    case VERDICT_DEFER:
    case VERDICT_FAILED: break;
    }
    if (route && d->job->message->flags & MESSAGE_TLS_OPTIONAL)
        route = route_tls_optional(route);
    if (route) {
        rerouted(d, i, route);
        return;
    }
    if (d->job->mode == JOB_REROUTE)
        return; /* held as before; asked again when it is released */
    delivery_decide(d, i, FATE_DEFER, SCOPE_RECIPIENT, SMTP_STAGE_CONNECT, &v->reply,
                    STR("route hook"));
    d->results[i].retry_ms = v->retry_ms;
}

static void route_answered(void *owner, struct hook_result *v)
{
    struct delivery *d = owner;
    d->call = NULL;
    apply_route_verdict(d, d->asked++, v);
    delivery_ask_routes(d);
}

static void fill_views(struct delivery *d, size_t i)
{
    const struct message *m = d->job->message;
    const struct recipient *r = &d->job->recipients[i];
    d->recipient_view = (struct recipient_view){ .address = &r->address, .n = r->n };
    d->message_view = message_view_of(m);
}

/* We know who to be for each host of the route. Not so after a restart, or when a secret has changed. */
static bool knows_credentials(const struct snapshot *s, const struct route *r)
{
    struct hooks *hooks = s->hooks;
    for (; r; r = r->fallback) {
        if (r->auth.n && !hooks_credentials(hooks, r->auth))
            return false;
        if (r->certificate.n && !settings_has_certificate(s->settings, r->certificate))
            return false;
        for (size_t i = 0; i < r->n_targets; i++)
            if (r->targets[i].auth.n && !hooks_credentials(hooks, r->targets[i].auth))
                return false;
    }
    return true;
}

/* Policies may have changed since the route was chosen (H7), or its credentials. */
void delivery_ask_routes(struct delivery *d)
{
    struct hooks *hooks = d->snapshot->hooks;
    uint64_t fingerprint = snapshot_fingerprint(d->snapshot);
    for (; d->asked < d->job->n; d->asked++) {
        if (d->job->recipients[d->asked].policy == fingerprint &&
            knows_credentials(d->snapshot, d->job->recipients[d->asked].route))
            continue;
        fill_views(d, d->asked);
        struct hook_input in = { .message = &d->message_view, .recipient = &d->recipient_view };
        struct hook_result v;
        hook_result_init(&v);
        int now = !hooks_have(hooks, HOOK_ROUTE) ||
                  hooks->run(hooks, HOOK_ROUTE, &in, &v, route_answered, d, &d->call);
        if (now)
            apply_route_verdict(d, d->asked, &v);
        hook_result_done(&v);
        if (!now)
            return;
    }
    follow(d);
}
