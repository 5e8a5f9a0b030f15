/* intake_route.c - where each recipient of a new message goes: the `route` hooks, one after another.
 *
 * Layer: engine. See intake_internal.h. Recipients with the same route share one object, so that most
 * messages make one.
 */
#include "engine/intake_internal.h"

/* How far back a route is looked for among those of recipients before. */
enum { SHARE_WINDOW = 16 };

/* Its address tells a default route from one of a policy. */
static const char by_mx[] = "by MX";

/* Ends a recipient's turn: a refusal now (nothing is accepted), or go on. */
enum turn { TURN_NEXT, TURN_ENDED };

/* By MX. <postmaster> alone is ours. */
static struct route *default_route(struct intake *in, struct str domain)
{
    return route_default(domain.n ? domain : in->snapshot->settings->hostname,
                         str_make(by_mx, sizeof(by_mx) - 1));
}

/* Takes over one reference; NULL when it is not valid or there is no memory. */
static struct route *finished(struct route *r)
{
    return r && route_finish(r) == 0 ? r : route_unref(r);
}

/* The default route of a recipient before with that domain. */
static struct route *shared_default(struct intake *in, struct str domain)
{
    for (size_t i = in->routing; i > 0; i--) {
        const struct recipient *r = &in->recipients[i - 1];
        if (r->route && r->route->reason.p == by_mx && str_eq(r->address.domain, domain))
            return route_ref(r->route);
    }
    return NULL;
}

static bool route_by_default(struct intake *in, struct recipient *r)
{
    r->route = shared_default(in, r->address.domain);
    if (!r->route)
        r->route = default_route(in, r->address.domain);
    return r->route != NULL;
}

/* The same object as one before, when it says the same. Borrows; returns a reference. */
static struct route *shared(struct intake *in, struct route *route)
{
    size_t first = in->routing > SHARE_WINDOW ? in->routing - SHARE_WINDOW : 0;

    for (size_t i = in->routing; i > first; i--) {
        struct route *before = in->recipients[i - 1].route;
        if (before == route)
            break;
        if (before && route_same(before, route))
            return route_ref(before);
    }
    return route_ref(route);
}

/* "550 5.1.1 no such user" as a route, for the recipients that are stored with it. */
static struct route *bounce_route(const struct smtp_reply *reply)
{
    struct route *r = route_new(ROUTE_BOUNCE);
    char enhanced[16];

    if (!r)
        return NULL;
    r->reply_code = reply->code;
    r->reply_text =
        arena_printf(&r->arena, "%s" STR_FMT, smtp_enhanced_text(reply->enhanced, enhanced),
                     STR_ARG(str_first(reply->text, ROUTE_MAX_STRING - 16)));
    r->queue = STR("bounce");
    return finished(r);
}

static bool bounce(struct intake *in, struct recipient *r, struct smtp_reply reply)
{
    if (!smtp_reply_permanent(&reply))
        reply = REPLY(550, ENH(5, 7, 1), "refused by policy");
    if (in->refusal.code == 0) {
        in->refusal = reply;
        in->refusal.text = arena_str(&in->arena, reply.text);
    }
    if (in->has_each)
        return intake_each_refuse(in, &reply, r->decided_by) == 0;
    struct route *route = bounce_route(&reply);
    if (!route)
        return false;
    r->route = shared(in, route);
    route_unref(route);
    return true;
}

/* What a ROUTE_BOUNCE answers: its text begins with the enhanced code, perhaps. */
static struct smtp_reply route_reply(const struct route *route)
{
    struct smtp_reply reply = { .code = route->reply_code, .text = route->reply_text };
    struct str word = route->reply_text;
    ptrdiff_t space = str_chr(word, ' ');

    if (space > 0 && smtp_enhanced_parse(str_first(word, (size_t)space), &reply.enhanced) == 0)
        reply.text = str_from(word, (size_t)space + 1);
    return reply;
}

static bool drop(struct intake *in, struct recipient *r)
{
    intake_log_discarded(in, r, r->decided_by);
    return true;
}

static bool route_by_policy(struct intake *in, struct recipient *r, struct route *route)
{
    switch (route->kind) {
    case ROUTE_DISCARD: return drop(in, r);
    case ROUTE_BOUNCE: return bounce(in, r, route_reply(route));
    default: r->route = shared(in, route); return true;
    }
}

static enum turn refuse(struct intake *in, struct smtp_reply reply)
{
    intake_end(in, reply);
    return TURN_ENDED;
}

static enum turn decide(struct intake *in, const struct hook_result *result)
{
    struct recipient *r = &in->recipients[in->routing];
    bool ok;

    if (result->verdict == VERDICT_FAILED)
        COUNT(in->e, hooks_failed, 1);
    if (result->verdict == VERDICT_FAILED || result->verdict == VERDICT_DEFER) {
        if (!in->has_each)
            return refuse(in, verdict_reply(result));
        struct smtp_reply reply = verdict_reply(result);
        if (intake_each_refuse(in, &reply, result->decided_by) < 0)
            return refuse(in, intake_error_reply(-ENOMEM));
        in->routing++;
        return TURN_NEXT;
    }
    /* Without an opinion here, what `rcpt` said is the record. */
    if (result->decided_by.n && result->verdict != VERDICT_NONE) {
        r->decided_by = arena_str(&in->arena, result->decided_by);
        if (!r->decided_by.p)
            return refuse(in, intake_error_reply(-ENOMEM));
    }
    switch (result->verdict) {
    case VERDICT_DISCARD: ok = drop(in, r); break;
    case VERDICT_REJECT:
    case VERDICT_BOUNCE: ok = bounce(in, r, verdict_reply(result)); break;
    case VERDICT_ROUTE:
        if (result->route) {
            ok = route_by_policy(in, r, result->route);
            break;
        }
        /* fall through */
    default: ok = route_by_default(in, r); break;
    }
    if (!ok)
        return refuse(in, REPLY(451, ENH(4, 3, 0), "local error in processing"));
    in->routing++;
    return TURN_NEXT;
}

static void answered(void *owner, struct hook_result *result)
{
    struct intake *in = owner;

    in->call = NULL;
    if (decide(in, result) == TURN_NEXT)
        intake_route(in);
}

/* 1: *ret is the answer. */
static int ask(struct intake *in, struct hook_result *ret)
{
    struct hooks *hooks = in->snapshot->hooks;

    if (!hooks_have(hooks, HOOK_ROUTE))
        return 1;
    in->recipient.address = &in->recipients[in->routing].address;
    in->recipient.n = in->recipients[in->routing].n;
    in->input = (struct hook_input){ .session = in->session,
                                     .message = &in->view,
                                     .recipient = &in->recipient };
    return hooks->run(hooks, HOOK_ROUTE, &in->input, ret, answered, in, &in->call);
}

/* Those without a route are dropped; the rest is numbered anew. Returns how many really go on. */
static size_t keep_routed(struct intake *in)
{
    size_t kept = 0, going = 0;

    for (size_t i = 0; i < in->n; i++) {
        if (!in->recipients[i].route)
            continue;
        going += in->recipients[i].route->kind != ROUTE_BOUNCE;
        if (kept != i)
            in->recipients[kept] = in->recipients[i];
        in->recipients[kept].n = (uint32_t)kept;
        kept++;
    }
    in->n = kept;
    return going;
}

/* Recipients that shared a route still do. */
int intake_part_queues(struct intake *in)
{
    const struct route *usual = NULL;
    struct route *apart = NULL;

    for (size_t i = 0; i < in->n && in->m->flags & MESSAGE_TLS_OPTIONAL; i++) {
        struct recipient *r = &in->recipients[i];
        if (apart && r->route == usual) {
            route_unref(r->route);
            r->route = route_ref(apart);
            continue;
        }
        usual = r->route;
        r->route = apart = route_tls_optional(r->route);
        if (!apart)
            return -ENOMEM;
    }
    return 0;
}

void intake_route(struct intake *in)
{
    enum turn turn = TURN_NEXT;

    in->phase = INTAKE_ROUTE;
    if (in->has_each && !in->each && intake_each_begin(in) < 0) {
        intake_end(in, intake_error_reply(-ENOMEM));
        return;
    }
    while (turn == TURN_NEXT && in->routing < in->n) {
        struct hook_result result;
        hook_result_init(&result);
        int now = ask(in, &result);
        if (now)
            turn = decide(in, &result);
        hook_result_done(&result);
        if (!now)
            return;
    }
    if (turn == TURN_ENDED)
        return;
    if (keep_routed(in) > 0)
        intake_commit(in);
    else if (in->n > 0 || intake_all_refused(in))
        intake_end(in, in->refusal);
    else
        intake_end_discarded(in);
}
