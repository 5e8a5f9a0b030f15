/* explain.c - asks the hooks as a session would, and keeps what was said. Layer: daemon. Interface: explain.h.
 *
 * One step after another: what waits is waited for in the loop. The verdicts mean what session_in_events.c,
 * intake_route.c and etrn.c make of them. */
#include "daemon/explain.h"

#include <stdarg.h>
#include <stdio.h>
#include <sysexits.h>

#include "daemon/control_call.h"
#include "daemon/control_lookup.h"
#include "daemon/explain_impl.h"
#include "daemon/sockets.h"
#include "engine/limits.h"
#include "engine/sources.h"
#include "engine/verdict.h"

static const char STRANGER[] = "192.0.2.1";

/* ---- what is seen -------------------------------------------------------------------------------- */

static json_t *record_json(enum dns_type type, const struct dns_record *r)
{
    char text[512], ip[NET_ADDR_TEXT];

    switch (type) {
    case DNS_A:
    case DNS_AAAA: return json_string(net_addr_ip_text(&r->addr, ip));
    case DNS_MX:
        snprintf(text, sizeof(text), "%u " STR_FMT, r->preference,
                 STR_ARG(r->name.n ? str_first(r->name, 400) : STR(".")));
        return control_text(str_of(text));
    case DNS_SRV:
        snprintf(text, sizeof(text), "%u %u %u " STR_FMT, r->preference, r->weight, r->port,
                 STR_ARG(str_first(r->name, 400)));
        return control_text(str_of(text));
    case DNS_TLSA:
        snprintf(text, sizeof(text), "%u %u %u", r->usage, r->selector, r->matching);
        return json_string(text);
    default: return control_text(r->name);
    }
}

/* Records of one question in the order of their preference, as people look for them. */
static void on_dns(void *owner, const struct dns_answer *a)
{
    struct explain *x = owner;
    json_t *records = json_array();
    bool ordered = a->type == DNS_MX || a->type == DNS_SRV;

    for (uint32_t at = 0; ordered && at <= UINT16_MAX; at++) {
        uint32_t next = UINT16_MAX + 1;
        for (size_t i = 0; i < a->n; i++) {
            if (a->records[i].preference == at)
                json_array_append_new(records, record_json(a->type, &a->records[i]));
            else if (a->records[i].preference > at)
                next = MIN(next, (uint32_t)a->records[i].preference);
        }
        at = next - 1;
    }
    for (size_t i = 0; !ordered && i < a->n; i++)
        json_array_append_new(records, record_json(a->type, &a->records[i]));
    json_array_append_new(
        x->dns, json_pack("{s:o, s:s, s:s, s:o, s:o}", "name", control_text(a->question), "type",
                          dns_type_name(a->type), "status", dns_status_name(a->status), "ttl",
                          a->ttl ? json_integer(a->ttl) : json_null(), "records", records));
}

json_t *explain_take_dns(struct explain *x)
{
    json_t *taken = x->dns;

    x->dns = json_array();
    return taken;
}

static void on_dial(void *owner, const struct net_addr *to)
{
    struct explain *x = owner;
    char text[NET_ADDR_TEXT];

    json_array_append_new(x->connections, json_string(net_addr_text(to, text)));
}

/* What scripts log, and errors of theirs. */
static void on_event(void *owner, const struct event *e)
{
    struct explain *x = owner;
    struct buf line;

    buf_init(&line, 0);
    event_to_json(e, engine_wall(x->engine), &line);
    json_t *o = json_loadb(buf_str(&line).p, buf_len(&line), 0, NULL);
    if (o)
        json_array_append_new(json_object_get(x->answer, "log"), o);
    buf_done(&line);
}

/* What the policy did to the headers. */
static json_t *take_changes(struct explain *x)
{
    size_t from = MIN(x->changes_told, x->headers.n_changes);

    x->changes_told = x->headers.n_changes;
    return control_changes_json(x->headers.changes + from, x->headers.n_changes - from);
}

static void on_step(struct policy_observer *self, const struct policy_step *s)
{
    struct explain *x = CONTAINER_OF(self, struct explain, observer);

    json_array_append_new(x->steps,
                          json_pack("{s:o, s:o, s:o, s:o, s:b, s:b, s:o, s:o, s:o, s:o}", "policy",
                                    control_text(s->policy), "part", control_text_or_null(s->part),
                                    "key", control_text_or_null(s->key), "place",
                                    control_text_or_null(s->place), "has_hook", s->asked, "failed",
                                    s->failed, "outcome", control_text_or_null(s->outcome), "dns",
                                    explain_take_dns(x), "not_connected",
                                    json_incref(x->connections), "changes", take_changes(x)));
    json_decref(x->connections);
    x->connections = json_array();
}

/* ---- asking ---------------------------------------------------------------------------------------- */

void explain_wait(struct explain *x)
{
    while (!x->answered)
        io_loop_run(x->ports.loop);
}

static void on_answer(void *owner, struct hook_result *result)
{
    struct explain *x = owner;

    x->result = *result;
    hook_result_init(result); /* it is ours now */
    x->answered = true;
    io_loop_stop(x->ports.loop);
}

static const char *verdict_name(enum verdict v)
{
    switch (v) {
    case VERDICT_NONE: return "no opinion";
    case VERDICT_ACCEPT: return "accept";
    case VERDICT_REJECT: return "reject";
    case VERDICT_DEFER: return "defer";
    case VERDICT_DISCARD: return "discard";
    case VERDICT_ROUTE: return "route";
    case VERDICT_BOUNCE: return "bounce";
    case VERDICT_RELEASE: return "release";
    case VERDICT_FAILED: return "failed";
    }
    return "unknown";
}

json_t *explain_reply_json(const struct smtp_reply *r)
{
    char enhanced[16];

    smtp_enhanced_text(r->enhanced, enhanced);
    return json_pack("{s:i, s:o, s:o}", "code", (int)r->code, "enhanced",
                     control_text_or_null(str_trim(str_of(enhanced))), "text",
                     control_text(r->text));
}

void explain_outcome(struct explain *x, const char *what, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    if (json_object_get(x->answer, "outcome"))
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    json_object_set_new(x->answer, "outcome", json_string(what));
    json_object_set_new(x->answer, "summary", control_text(str_of(text)));
}

/* Asks one hook; x->result is its answer. Returns its entry in the answer. */
static json_t *ask(struct explain *x, enum hook h)
{
    struct hook_call *call = NULL;
    struct hook_input in = { .session = &x->session,
                             .message = h >= HOOK_MAIL && h != HOOK_ETRN ? &x->message : NULL,
                             .recipient = h == HOOK_RCPT || h == HOOK_ROUTE ? &x->recipient : NULL,
                             .etrn = h == HOOK_ETRN ? &x->etrn : NULL };

    hook_result_done(&x->result);
    hook_result_init(&x->result);
    x->steps = json_array();
    x->answered = true;
    if (hooks_have(x->hooks, h))
        x->answered = x->hooks->run(x->hooks, h, &in, &x->result, on_answer, x, &call);
    explain_wait(x);
    json_t *o =
        json_pack("{s:s, s:b, s:o, s:s, s:o, s:o}", "hook", hook_name(h), "asked",
                  json_array_size(x->steps) > 0, "policies", x->steps, "verdict",
                  verdict_name(x->result.verdict), "decided_by",
                  x->result.verdict == VERDICT_NONE ? json_null()
                                                    : control_text_or_null(x->result.decided_by),
                  "dns", explain_take_dns(x));
    x->steps = NULL;
    json_array_append_new(json_object_get(x->answer, "hooks"), o);
    return o;
}

/* What the client is told, and why. */
static void told(json_t *step, const struct smtp_reply *reply, const char *why)
{
    json_object_set_new(step, "reply", explain_reply_json(reply));
    json_object_set_new(step, "why", json_string(why));
}

static bool refuse(struct explain *x, json_t *step, const char *at, const struct smtp_reply *reply,
                   const char *why)
{
    told(step, reply, why);
    explain_outcome(x, "refused", "is refused at %s: %u " STR_FMT, at, reply->code,
                    STR_ARG(reply->text));
    return false;
}

/* ---- the hooks of a session -------------------------------------------------------------------------- */

/* connect, helo, mail: false when that is the end. */
static bool step_session(struct explain *x, enum hook h, const char *at,
                         const struct smtp_reply *yes)
{
    json_t *step = ask(x, h);

    if (verdict_refuses(x->result.verdict)) {
        struct smtp_reply reply = verdict_reply(&x->result);
        if (h == HOOK_CONNECT) /* there are no other codes for a greeting */
            reply.code = smtp_reply_permanent(&reply) ? 554 : 421;
        return refuse(x, step, at, &reply, "a policy says so");
    }
    x->discard |= x->result.verdict == VERDICT_DISCARD;
    told(step, yes,
         json_array_size(json_object_get(step, "policies")) == 0 ? "no policy is asked"
         : x->result.verdict == VERDICT_DISCARD ? "its mail is dropped without a word"
         : x->result.verdict == VERDICT_ACCEPT  ? "a policy says so"
                                                : "no policy has anything against it");
    return true;
}

/* What the listener wants before MAIL, whatever policies say. */
static bool step_listener(struct explain *x)
{
    static const struct smtp_reply tls = { 530,
                                           { 5, 7, 0 },
                                           { "Must issue a STARTTLS command first", 35 } },
                                   auth = { 530, { 5, 7, 0 }, { "Authentication required", 23 } };
    const struct listen_settings *l = x->listener;
    bool no_tls = l->tls == LISTEN_TLS_REQUIRE && !x->session.tls;
    bool no_auth = l->auth == LISTEN_AUTH_REQUIRE && !x->session.identity.n;

    if (!no_tls && !no_auth)
        return true;
    json_t *step = json_pack("{s:s, s:b, s:[], s:s, s:n, s:[]}", "hook", "mail", "asked", 0,
                             "policies", "verdict", "not asked", "decided_by", "dns");
    json_array_append_new(json_object_get(x->answer, "hooks"), step);
    return refuse(x, step, "MAIL FROM", no_tls ? &tls : &auth,
                  no_tls ? "the listener requires TLS" : "the listener requires authentication");
}

/* False: there is nothing more to tell. */
static bool step_rcpt(struct explain *x)
{
    static const struct smtp_reply yes = { 250, { 2, 1, 5 }, { "OK", 2 } };
    json_t *step = ask(x, HOOK_RCPT);
    const struct hook_result *r = &x->result;
    struct smtp_reply reply;

    if (verdict_refuses(r->verdict)) {
        reply = verdict_reply(r);
        refuse(x, step, "RCPT TO", &reply, "a policy says so");
        return true; /* where it would have gone tells why, perhaps */
    }
    if (x->discard || r->verdict == VERDICT_DISCARD) {
        told(step, &yes, "it is dropped without a word");
        explain_outcome(x, "discarded", "is accepted and dropped, and nobody is told");
        return false;
    }
    if (r->verdict != VERDICT_ACCEPT && !r->known_domain && !x->session.may_relay) {
        reply = REPLY_RELAY_DENIED;
        return refuse(x, step, "RCPT TO", &reply,
                      "its domain is not in `domains`, and this client may not relay");
    }
    told(step, &yes,
         r->verdict == VERDICT_ACCEPT ? "a policy says so"
         : r->known_domain            ? "its domain is in `domains`"
         : x->session.identity.n      ? "the client is authenticated, so it may relay"
                                      : "the client is in `relay_from`, so it may relay");
    return true;
}

/* ---- the route --------------------------------------------------------------------------------------- */

static void route_by_default(struct explain *x)
{
    struct str domain = x->to.domain.n ? x->to.domain : x->settings->hostname;
    struct route *route = route_default(domain, STR("by MX"));

    if (!route) {
        explain_outcome(x, "bounced", "has no route: " STR_FMT " is no address", STR_ARG(domain));
        return;
    }
    explain_route(x, route, STR("default"));
    route_unref(route);
}

static void step_route(struct explain *x)
{
    json_t *step = ask(x, HOOK_ROUTE);
    const struct hook_result *r = &x->result;
    struct smtp_reply reply = verdict_reply(r);

    switch (r->verdict) {
    case VERDICT_FAILED:
    case VERDICT_DEFER: refuse(x, step, "the end of DATA", &reply, "a policy says so"); return;
    case VERDICT_REJECT:
    case VERDICT_BOUNCE:
        told(step, &reply, "a policy says so");
        explain_outcome(x, "bounced", "is refused, or returned to its sender: %u " STR_FMT,
                        reply.code, STR_ARG(reply.text));
        return;
    case VERDICT_DISCARD:
        explain_outcome(x, "discarded", "is accepted and dropped, and nobody is told");
        return;
    case VERDICT_ROUTE:
        if (r->route) {
            struct route *route = route_ref(r->route);
            explain_route(x, route, r->decided_by);
            route_unref(route);
            return;
        }
        break;
    default: break;
    }
    json_object_set_new(step, "why", json_string("no policy names a route: by MX of the domain"));
    route_by_default(x);
}

static int no_body(const struct message_view *v, uint64_t *cursor, struct str *ret)
{
    return 0;
}

/* False: there is nothing more to tell. */
static bool step_data(struct explain *x)
{
    static const struct smtp_reply yes = { 250, { 2, 0, 0 }, { "queued", 6 } };

    if (!x->request->content) {
        json_array_append_new(json_object_get(x->answer, "hooks"),
                              json_pack("{s:s, s:b, s:[], s:s, s:n, s:[], s:s}", "hook", "data",
                                        "asked", 0, "policies", "verdict", "not asked",
                                        "decided_by", "dns", "why",
                                        "not asked: it looks at the content; see --message"));
        x->message.headers = &x->headers; /* empty */
        x->message.read_body = no_body;
        return true;
    }
    json_t *step = ask(x, HOOK_DATA);
    const struct hook_result *r = &x->result;
    if (verdict_refuses(r->verdict)) {
        struct smtp_reply reply = verdict_reply(r);
        refuse(x, step, "the end of DATA", &reply, "a policy says so");
        return true;
    }
    if (r->verdict == VERDICT_DISCARD) {
        told(step, &yes, "it is dropped without a word");
        explain_outcome(x, "discarded", "is accepted and dropped, and nobody is told");
        return false;
    }
    told(step, &yes,
         json_array_size(json_object_get(step, "policies")) == 0 ? "no policy is asked"
         : r->verdict == VERDICT_ACCEPT                          ? "a policy says so"
                                        : "no policy has anything against it");
    return true;
}

static void explain_mail(struct explain *x)
{
    static const struct smtp_reply greeting = { 220, { 0 }, { "ESMTP Tern", 10 } },
                                   greeting_lmtp = { 220, { 0 }, { "LMTP Tern", 9 } },
                                   ok = { 250, { 0 }, { "OK", 2 } },
                                   sender_ok = { 250, { 2, 1, 0 }, { "OK", 2 } };

    bool lmtp = x->session.lmtp;
    if (!step_session(x, HOOK_CONNECT, "the greeting", lmtp ? &greeting_lmtp : &greeting) ||
        !step_session(x, HOOK_HELO, lmtp ? "LHLO" : "EHLO", &ok) || !step_listener(x) ||
        !step_session(x, HOOK_MAIL, "MAIL FROM", &sender_ok) || !step_rcpt(x) || !step_data(x))
        return;
    step_route(x);
}

/* ---- ETRN ---------------------------------------------------------------------------------------------- */

static void explain_etrn(struct explain *x)
{
    json_t *step = ask(x, HOOK_ETRN);
    const struct hook_result *r = &x->result;
    struct smtp_reply reply = REPLY(459, ENH(4, 7, 1), "not allowed");

    if (r->verdict != VERDICT_RELEASE) {
        bool none = r->verdict == VERDICT_NONE;
        if (r->reply.code >= 400)
            reply = r->reply;
        else if (none && x->hooks->etrn_wants_identity && !x->session.identity.n)
            reply = REPLY(530, ENH(5, 7, 0), "Authentication required");
        refuse(x, step, "ETRN", &reply, none ? "no policy grants it" : "a policy says so");
        return;
    }
    json_object_set_new(step, "queue", control_text_or_null(r->queue));
    json_object_set_new(step, "why", json_string("a policy grants it"));
    explain_outcome(x, "released", "is granted: what waits in the queue " STR_FMT " is released",
                    STR_ARG(r->queue));
    if (r->route) {
        struct route *route = route_ref(r->route);
        explain_route(x, route, r->decided_by);
        route_unref(route);
    }
}

/* ---- beginning ------------------------------------------------------------------------------------------ */

/* Whom "ourselves" means in reasons. */
static json_t *self_json(const struct explain *x)
{
    const struct settings *set = x->settings;
    json_t *list = json_array();
    char text[NET_ADDR_TEXT];

    json_array_append_new(list, control_text(set->hostname));
    for (size_t i = 0; i < set->n_self_names; i++)
        json_array_append_new(list, control_text(set->self_names[i]));
    for (size_t i = 0; i < set->n_self_addresses; i++)
        json_array_append_new(list, json_string(net_addr_ip_text(&set->self_addresses[i], text)));
    for (size_t i = 0; i < set->n_listen; i++)
        if (set->listen[i].addr.family != NET_UNIX && !net_addr_is_any(&set->listen[i].addr))
            json_array_append_new(list, json_string(net_addr_ip_text(&set->listen[i].addr, text)));
    for (size_t i = 0; i < x->shared.n_self; i++)
        json_array_append_new(list, json_string(net_addr_ip_text(&x->shared.self[i], text)));
    return list;
}

static int parse_address(struct explain *x, const char *option, const char *text,
                         struct address *ret, struct failure *f)
{
    struct str s = str_trim(str_of(text));

    if (s.n >= 2 && s.p[0] == '<' && s.p[s.n - 1] == '>')
        s = str_make(s.p + 1, s.n - 2);
    int e = address_parse(&x->arena, s, ret);
    if (e == -ENOMEM)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    if (e < 0)
        return failure_set(f, EX_DATAERR, "%s %s: that is no address of mail", option, text);
    return 0;
}

static const struct listen_settings *find_listener(const struct explain *x, struct failure *f)
{
    static const struct listen_settings none = { .service = { "smtp", 4 } };
    const struct settings *set = x->settings;
    const char *name = x->request->listener;

    if (!name)
        return set->n_listen ? &set->listen[0] : &none;
    for (size_t i = 0; i < set->n_listen; i++)
        if (str_eq(set->listen[i].text, str_of(name)))
            return &set->listen[i];
    for (size_t i = 0; i < set->n_listen; i++)
        if (str_eq(set->listen[i].service, str_of(name)))
            return &set->listen[i];
    failure_set(
        f, EX_DATAERR,
        "--listener %s: no listener of the configuration is written so, or has that service", name);
    return NULL;
}

static bool in_relay_networks(const struct explain *x)
{
    return net_cidrs_contain(x->settings->relay_from, x->settings->n_relay_from, &x->client);
}

static int make_session(struct explain *x, struct failure *f)
{
    const struct explain_request *q = x->request;
    struct session_view *s = &x->session;
    const struct listen_settings *listener = find_listener(x, f);
    bool local = listener && listener->addr.family == NET_UNIX;
    char path[NET_ADDR_TEXT];
    const char *client = local       ? net_addr_text(&listener->addr, path)
                         : q->client ? q->client
                                     : STRANGER;

    if (!listener)
        return -1;
    if (local && q->client)
        return failure_set(f, EX_DATAERR,
                           "--client %s: who comes by a Unix socket (--listener " STR_FMT
                           ") has no address",
                           q->client, STR_ARG(listener->text));
    x->listener = listener;
    *s = (struct session_view){ .id = engine_new_key(x->engine),
                                .client = &x->client,
                                .local = &listener->addr };
    if (net_addr_parse_ip(str_of(client), &x->client) < 0 &&
        net_addr_parse(str_of(client), 0, &x->client) < 0)
        return failure_set(f, EX_DATAERR, "--client %s: that is no address", client);
    s->client_name = STR("");
    s->helo = q->helo ? str_of(q->helo)
              : local ? STR("localhost")
                      : arena_printf(&x->arena, "[%s]", client);
    s->extended = true;
    s->tls = q->tls || q->requiretls || listener->tls == LISTEN_TLS_IMPLICIT;
    if (s->tls)
        s->tls_facts = (struct tls_facts){ .version = STR("TLSv1.3"),
                                           .cipher = STR("TLS_AES_256_GCM_SHA384") };
    s->identity = str_of(q->identity ? q->identity : "");
    s->service = listener->service.n ? listener->service : STR("smtp");
    s->lmtp = str_eq(s->service, STR("lmtp"));
    s->may_relay = s->identity.n || in_relay_networks(x);
    json_object_set_new(x->answer, "session",
                        json_pack("{s:o, s:b, s:o, s:b, s:o, s:o, s:o, s:b}", "client",
                                  json_string(client), "client_given", local || q->client, "helo",
                                  control_text(s->helo), "tls", s->tls, "identity",
                                  control_text_or_null(s->identity), "listener",
                                  control_text_or_null(listener->text), "service",
                                  control_text(s->service), "may_relay", s->may_relay));
    return 0;
}

static int make_message(struct explain *x, struct failure *f)
{
    const struct explain_request *q = x->request;

    if (parse_address(x, "--from", q->from, &x->from, f) < 0 ||
        parse_address(x, "--to", q->to, &x->to, f) < 0)
        return -1;
    if (str_empty(x->to.text))
        return failure_set(f, EX_DATAERR, "--to needs an address: <> receives no mail");
    if (str_empty(x->to.domain)) { /* <postmaster> is ours */
        struct str full = arena_printf(&x->arena, STR_FMT "@" STR_FMT, STR_ARG(x->to.text),
                                       STR_ARG(x->settings->hostname));
        if (address_parse(&x->arena, full, &x->to) < 0)
            return failure_set(f, EX_DATAERR, "--to %s: that is no address of mail", q->to);
    }
    headers_parse(&x->arena, STR(""), &x->headers);
    x->message = (struct message_view){ .key = engine_new_key(x->engine),
                                        .priority = &x->priority,
                                        .sender = &x->from,
                                        .requiretls = x->request->requiretls,
                                        .received_ms = engine_wall(x->engine),
                                        .client = x->client,
                                        .helo = x->session.helo,
                                        .identity = x->session.identity,
                                        .service = x->session.service };
    x->recipient = (struct recipient_view){ .address = &x->to };
    json_object_set_new(x->answer, "from", control_text(x->from.text));
    json_object_set_new(x->answer, "to", control_text(x->to.text));
    return q->content ? explain_read_content(x, f) : 0;
}

static int make_etrn(struct explain *x, struct failure *f)
{
    struct str argument = str_of(x->request->etrn), rest = argument;
    char *domain = arena_alloc(&x->arena, DOMAIN_TEXT);
    ptrdiff_t n = -EINVAL;

    if (rest.n && (*rest.p == '@' || *rest.p == '#'))
        rest = str_from(rest, 1);
    if (domain && rest.n < argument.n && *argument.p == '#')
        n = rest.n && str_copy(rest, domain, DOMAIN_TEXT) ? (ptrdiff_t)rest.n : -EINVAL;
    else if (domain)
        n = domain_normalize(rest, domain, DOMAIN_TEXT);
    if (n <= 0)
        return failure_set(f, EX_DATAERR, "--etrn %s: that is no domain", x->request->etrn);
    x->etrn = (struct etrn_view){ .option = rest.n < argument.n ? *argument.p : '\0',
                                  .domain = str_make(domain, (size_t)n),
                                  .argument = argument,
                                  .origin = ETRN_CLIENT };
    json_object_set_new(x->answer, "etrn", control_text(argument));
    return 0;
}

/* Policies and the engine. Takes references only. */
static int make_engine(struct explain *x, const struct loaded *l, struct failure *f)
{
    struct policy_error *err = calloc(1, sizeof(*err));
    int e = err ? explain_ports_init(&x->ports, x->settings) : -ENOMEM;

    if (e < 0) {
        free(err);
        return failure_set(f, exit_code_of(e), "cannot look anything up: %s", strerror(-e));
    }
    x->ports.answered = on_dns;
    x->ports.dialled = on_dial;
    x->ports.happened = on_event;
    x->ports.owner = x;
    sockets_learn_self(&x->shared);
    x->shared.limits = limits_new();
    if (policy_vm_new(l->source, l->settings, &x->ports.ports, &x->hooks, err) < 0) {
        failure_from_policy(f, err);
        free(err);
        return -1;
    }
    free(err);
    x->snapshot = snapshot_new(1, settings_ref(l->settings), x->hooks);
    if (!x->snapshot) {
        settings_unref(l->settings);
        return failure_set(f, EX_SOFTWARE, "out of memory");
    }
    if (engine_new(&x->ports.ports, &x->shared, x->snapshot, &x->engine) < 0)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    io_loop_set_engine(x->ports.loop, x->engine);
    x->observer.step = on_step;
    policy_observe(x->hooks, &x->observer);
    return 0;
}

static void done(struct explain *x)
{
    hook_result_done(&x->result);
    if (x->snapshot) {
        policy_observe(x->hooks, NULL);
        x->engine = engine_free(x->engine);
        x->snapshot = snapshot_unref(x->snapshot);
    } else if (x->hooks) {
        x->hooks->free(x->hooks);
    }
    if (x->ports.loop)
        explain_ports_done(&x->ports);
    x->shared.limits = limits_free(x->shared.limits);
    json_decref(x->dns);
    json_decref(x->connections);
    json_decref(x->answer);
    buf_done(&x->content);
    arena_done(&x->arena);
    free(x);
}

json_t *explain(const struct loaded *l, const struct explain_request *q, struct failure *f)
{
    struct explain *x = calloc(1, sizeof(*x));
    json_t *answer = NULL;

    if (!x) {
        failure_set(f, EX_SOFTWARE, "out of memory");
        return NULL;
    }
    x->request = q;
    x->settings = l->settings;
    arena_init(&x->arena, 0);
    buf_init(&x->content, 0);
    hook_result_init(&x->result);
    x->dns = json_array();
    x->connections = json_array();
    x->answer = json_pack("{s:o, s:o, s:[], s:n, s:[]}", "config", control_text(l->settings->file),
                          "hostname", control_text(l->settings->hostname), "hooks", "route", "log");
    if (make_engine(x, l, f) == 0 && make_session(x, f) == 0) {
        json_object_set_new(x->answer, "self", self_json(x));
        int e = q->etrn ? make_etrn(x, f) : make_message(x, f);
        if (e == 0) {
            if (q->etrn)
                explain_etrn(x);
            else
                explain_mail(x);
            answer = json_incref(x->answer);
        }
    }
    done(x);
    return answer;
}
