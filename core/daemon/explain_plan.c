/* explain_plan.c - a route in words, and the hosts that it gives. Layer: daemon. See explain.h. */
#include <stdio.h>

#include "base/units.h"
#include "daemon/control_call.h"
#include "daemon/explain_impl.h"
#include "engine/delivery.h"
#include "engine/next_hop.h"
#include "engine/queue.h"
#include "mail/credentials.h"
#include "proto/dane.h"

static const char *tls_name(enum route_tls t)
{
    switch (t) {
    case ROUTE_TLS_OPPORTUNISTIC: return "opportunistic";
    case ROUTE_TLS_NONE: return "none";
    case ROUTE_TLS_REQUIRE: return "require";
    case ROUTE_TLS_VERIFY: return "verify";
    case ROUTE_TLS_DANE: return "dane";
    }
    return "unknown";
}

static const char *kind_name(enum route_kind k)
{
    switch (k) {
    case ROUTE_MX: return "mx";
    case ROUTE_HOSTS: return "hosts";
    case ROUTE_HOLD: return "hold";
    case ROUTE_DISCARD: return "discard";
    case ROUTE_BOUNCE: return "bounce";
    }
    return "unknown";
}

/* ---- hosts ------------------------------------------------------------------------------------- */

/* What the mail asks for besides its route. */
static enum next_hop_wish wish_of(const struct explain *x)
{
    if (!x->request->requiretls)
        return NEXT_HOP_AS_ROUTED;
    return x->from.text.n ? NEXT_HOP_REQUIRETLS : NEXT_HOP_PREFER_REQUIRETLS;
}

static json_t *host_json(const struct explain *x, const struct route *route, const struct hop *h)
{
    bool guarded = wish_of(x) == NEXT_HOP_REQUIRETLS && !hop_is_here(h);
    char text[NET_ADDR_TEXT];
    bool path = h->addr.family == NET_UNIX;
    json_t *preference =
        route->kind == ROUTE_MX ? json_integer((json_int_t)h->preference) : json_null();

    return json_pack(
        "{s:o, s:o, s:o, s:o, s:s, s:s, s:b, s:I, s:o}", "name", control_text(h->name), "address",
        control_text(
            str_of(path ? net_addr_text(&h->addr, text) : net_addr_ip_text(&h->addr, text))),
        "port", path ? json_null() : json_integer(h->addr.port), "preference", preference,
        "protocol", h->lmtp ? "lmtp" : "smtp", "tls",
        tls_name(guarded ? hop_guarded_tls(h) : h->tls), "mta_sts", h->sts, "tlsa",
        (json_int_t)dane_count(h->dane), "user", control_text_or_null(credentials_user(h->auth)));
}

struct asked {
    struct explain *x;
    const struct route *route;
    json_t *plan;
    enum next_hop_status status;
    char first[512]; /* the first host, for people */
    size_t n;
};

static void on_hosts(void *owner, const struct next_hops *r)
{
    struct asked *a = owner;
    json_t *hosts = json_array(), *discarded = json_array();

    for (size_t i = 0; i < r->n; i++)
        json_array_append_new(hosts, host_json(a->x, a->route, &r->hops[i]));
    for (size_t i = 0; i < r->n_discarded; i++)
        json_array_append_new(discarded,
                              json_pack("{s:o, s:o}", "what", control_text(r->discarded[i].what),
                                        "reason", control_text(r->discarded[i].reason)));
    json_object_set_new(a->plan, "hosts", hosts);
    json_object_set_new(a->plan, "discarded", discarded);
    json_object_set_new(a->plan, "alarm", json_boolean(r->alarm));
    if (r->status != NEXT_HOP_OK)
        json_object_set_new(a->plan, "reply", explain_reply_json(&r->reply));
    a->status = r->status;
    a->n = r->n;
    if (r->n) {
        char ip[NET_ADDR_TEXT];
        struct str name = r->hops[0].name;
        if (r->hops[0].addr.family == NET_UNIX ||
            str_eq(name, str_of(net_addr_ip_text(&r->hops[0].addr, ip))))
            net_addr_text(&r->hops[0].addr, a->first);
        else
            snprintf(a->first, sizeof(a->first), STR_FMT " [%s]:%u", STR_ARG(str_first(name, 400)),
                     net_addr_ip_text(&r->hops[0].addr, ip), r->hops[0].addr.port);
    }
    a->x->answered = true;
    io_loop_stop(a->x->ports.loop);
}

static const char *status_name(enum next_hop_status s)
{
    return s == NEXT_HOP_OK ? "ok" : s == NEXT_HOP_DEFER ? "defer" : "permanent";
}

/* One route of the chain of fallbacks. */
static json_t *plan_of(struct explain *x, const struct route *route, bool fallback, struct asked *a)
{
    struct buf text;

    *a = (struct asked){ .x = x, .route = route, .plan = json_object() };
    buf_init(&text, 0);
    route_describe_one(route, &text);
    json_object_set_new(a->plan, "route", control_text(buf_str(&text)));
    buf_done(&text);
    json_object_set_new(a->plan, "kind", json_string(kind_name(route->kind)));
    json_object_set_new(a->plan, "fallback", json_boolean(fallback));
    if (route->kind != ROUTE_MX && route->kind != ROUTE_HOSTS)
        return a->plan;
    x->answered = false;
    if (next_hop_resolve_for(x->engine, route, x->settings, wish_of(x), on_hosts, a))
        explain_wait(x);
    else
        a->status = NEXT_HOP_DEFER;
    json_object_set_new(a->plan, "status", json_string(status_name(a->status)));
    json_object_set_new(a->plan, "dns", explain_take_dns(x));
    return a->plan;
}

/* ---- the route ----------------------------------------------------------------------------------- */

static json_t *duration_json(int64_t ms)
{
    char text[32];

    return ms == INT64_MAX ? json_string("forever") : json_string(duration_text(ms, text));
}

static json_t *sources_json(const struct route *r)
{
    struct str rest = r->source, one;

    if (!rest.n)
        return json_null();
    json_t *list = json_array();
    while (str_cut(&rest, ' ', &one))
        json_array_append_new(list, control_text(one));
    return list;
}

static json_t *route_json(const struct explain *x, const struct route *r, struct str decided_by)
{
    const struct schedule *retry = r->retry.n ? &r->retry : &x->settings->queue.retry;
    char schedule[256], rate[RATE_TEXT];
    struct buf text;

    buf_init(&text, 0);
    route_describe(r, &text);
    json_t *o = json_pack(
        "{s:o, s:s, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o}", "text",
        control_text(buf_str(&text)), "kind", kind_name(r->kind), "queue", control_text(r->queue),
        "reason", control_text_or_null(r->reason), "decided_by", control_text_or_null(decided_by),
        "retry", schedule_text(retry, schedule, sizeof(schedule)), "lifetime",
        duration_json(route_lifetime(x->settings, r, false)), "lifetime_while_hosts_fail",
        duration_json(route_lifetime(x->settings, r, true)), "concurrency",
        r->concurrency ? json_integer(r->concurrency) : json_null(), "rate",
        r->rate.count ? json_string(rate_text(&r->rate, rate)) : json_null(), "source",
        sources_json(r));
    buf_done(&text);
    return o;
}

static void tell_hosts(struct explain *x, const struct asked *a)
{
    const json_t *reply = json_object_get(a->plan, "reply");
    const char *text = json_string_value(json_object_get(reply, "text"));
    json_int_t code = json_integer_value(json_object_get(reply, "code"));

    switch (a->status) {
    case NEXT_HOP_OK:
        if (a->n == 1)
            explain_outcome(x, "delivered", "goes to %s", a->first);
        else
            explain_outcome(x, "delivered", "goes to %s, the first of %zu addresses%s", a->first,
                            a->n, a->n > DELIVERY_MAX_ADDRESSES ? " (5 are tried at a time)" : "");
        break;
    case NEXT_HOP_DEFER:
        explain_outcome(x, "deferred", "waits in the queue: %" JSON_INTEGER_FORMAT " %s", code,
                        text ? text : "out of memory");
        break;
    case NEXT_HOP_PERMANENT:
        explain_outcome(x, "bounced", "is returned to its sender: %" JSON_INTEGER_FORMAT " %s",
                        code, text ? text : "");
        break;
    }
}

/* What the first route comes to; its fallback, when it gives no host. */
static void tell_outcome(struct explain *x, const struct asked *a)
{
    const struct route *r = a->route;

    switch (r->kind) {
    case ROUTE_MX:
    case ROUTE_HOSTS: tell_hosts(x, a); break;
    case ROUTE_HOLD:
        explain_outcome(x, "held",
                        "is kept in the queue " STR_FMT " until that is released%s" STR_FMT,
                        STR_ARG(r->queue), r->reason.n ? ": " : "", STR_ARG(r->reason));
        break;
    case ROUTE_DISCARD: explain_outcome(x, "discarded", "is dropped, and nobody is told"); break;
    case ROUTE_BOUNCE:
        explain_outcome(x, "bounced", "is refused, or returned to its sender: %u " STR_FMT,
                        r->reply_code, STR_ARG(r->reply_text));
        break;
    }
}

void explain_route(struct explain *x, const struct route *route, struct str decided_by)
{
    json_t *plans = json_array(), *o = route_json(x, route, decided_by);
    struct asked a;

    for (const struct route *r = route; r; r = r->fallback) {
        json_array_append_new(plans, plan_of(x, r, r != route, &a));
        bool last = !r->fallback || a.status != NEXT_HOP_DEFER;
        if (last)
            tell_outcome(x, &a); /* the first that was told stays */
    }
    json_object_set_new(o, "plans", plans);
    json_object_set_new(x->answer, "route", o);
}
