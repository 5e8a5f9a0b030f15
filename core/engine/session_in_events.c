/* session_in_events.c - what each event of the SMTP server asks of the policies, and its answer.
 *
 * Layer: engine. See session_in_internal.h.
 *
 * A hook that answers at once and one that waits end in the same function (decide). What no policy
 * has an opinion on: everything is accepted but relaying (RFC 5321 §3.6.2, §7.1). Whether a recipient
 * is ours hangs on its domain alone: "u%third@own", "third!u@own" and "u@third"@own are local parts
 * of our own domain, which nothing here looks into; "u@[127.0.0.1]" is no domain of ours.
 * <postmaster> without a domain (RFC 5321 §4.5.1) is postmaster at our host name: accepted when that
 * is a known domain, or from clients that may relay.
 */
#include "engine/session_in_internal.h"

#include <stdio.h>

#include "engine/turn.h"

#include "engine/hosts.h"
#include "engine/verdict.h"

/* ---- answering ---- */

static void answer(struct session *s, struct smtp_reply reply)
{
    uint32_t ticket = s->ticket;

    s->ticket = 0;
    /* -EINVAL: a policy's reply has a code that says nothing here. */
    int r = smtp_server_answer(s->server, ticket, &reply);
    if (r == -EINVAL) {
        reply = REPLY(451, ENH(4, 3, 0), "local error in processing");
        r = smtp_server_answer(s->server, ticket, &reply);
    }
    /* Nobody may wait for what comes behind a reply that is lost: for a handshake, say. */
    if (r == -ENOMEM)
        s->broken = true;
}

static void log_rejected(struct session *s, const char *step, const struct smtp_reply *reply)
{
    s->refused = true;
    engine_event(s->e, EVENT(EVENT_INFO, "session_rejected", F_INT("session", (int64_t)s->view.id),
                             F_STRZ("client", s->client), F_STRZ("step", step),
                             F_STR("helo", s->view.helo), F_INT("code", reply->code),
                             F_STR("reply", reply->text)));
}

/* ---- connect, helo ---- */

static struct smtp_reply greeting(const struct session *s)
{
    return s->view.lmtp ? REPLY(220, ENH_NONE, "LMTP Tern") : REPLY(220, ENH_NONE, "ESMTP Tern");
}

static void decide_connect(struct session *s, const struct hook_result *result)
{
    if (!verdict_refuses(result->verdict)) {
        s->discard_session = result->verdict == VERDICT_DISCARD;
        answer(s, greeting(s));
        return;
    }
    struct smtp_reply reply = verdict_reply(result);
    /* There are no other codes for a greeting (RFC 5321 §4.3.2). */
    reply.code = smtp_reply_permanent(&reply) ? 554 : 421;
    log_rejected(s, "connect", &reply);
    answer(s, reply);
}

static void decide_helo(struct session *s, const struct hook_result *result)
{
    if (!verdict_refuses(result->verdict)) {
        s->discard_session = s->discard_session || result->verdict == VERDICT_DISCARD;
        answer(s, REPLY(250, ENH_NONE, "OK"));
        return;
    }
    struct smtp_reply reply = verdict_reply(result);
    log_rejected(s, "helo", &reply);
    answer(s, reply);
}

static bool begin_helo(struct session *s, const struct smtp_server_event *ev)
{
    char *helo = str_dup(ev->helo.name);

    if (!helo) {
        answer(s, intake_error_reply(-ENOMEM));
        return false;
    }
    free(s->helo);
    s->helo = helo;
    s->view.helo = str_of(helo);
    s->view.extended = ev->helo.extended;
    return true;
}

/* ---- mail ---- */

void session_end_transaction(struct session *s)
{
    struct intake *in = TAKE(s->intake);

    intake_abort(in);
    s->recipients = 0;
    s->discard = false;
    s->body_error = 0;
    s->paused = false;
    s->answer_by = 0;
    arena_done(&s->scratch);
}

static void refuse_mail(struct session *s, struct str sender, struct smtp_reply reply)
{
    s->refused = true;
    COUNT(s->e, messages_rejected, 1);
    engine_event(s->e,
                 EVENT(EVENT_INFO, "message_rejected", F_INT("session", (int64_t)s->view.id),
                       F_STRZ("client", s->client), F_STR("sender", sender), F_INT("recipients", 0),
                       F_INT("code", reply.code), F_STR("reply", reply.text)));
    answer(s, reply);
    session_end_transaction(s);
}

static bool over_memory(const struct session *s)
{
    uint64_t limit = s->snapshot->settings->limits.memory;

    return limit && s->e->intake_memory >= limit;
}

/* ---- when the mail is to go ---- */

/* RFC 6710: only those who are known may be urgent. Not to be so anybody may ask. */
static int8_t priority_of(const struct session *s, int8_t asked)
{
    const struct settings *set = s->snapshot->settings;
    bool trusted = s->view.may_relay ||
                   net_cidrs_contain(set->priority_from, set->n_priority_from, s->view.client);

    return trusted || asked < 0 ? asked : 0;
}

enum {
    PRIORITY_TEXT = 128,
    /* Clients wait for the reply to their message for ten minutes (RFC 5321 §4.5.3.2.6): nobody is there any more. */
    ANSWER_MS = 20 * 60 * 1000,
};

/* The reply that takes a message, or its MAIL, says which priority holds when its client believes in another one:
 * behind MAIL, and at the end of the data when a later hook has set it (RFC 6710 §4.1: X.3.6, and the text begins with
 * the number). The text is in dst, of PRIORITY_TEXT octets. */
static void tell_priority(struct session *s, const struct message_view *m, struct smtp_reply *reply,
                          const char *before, char *dst)
{
    int8_t priority = message_view_priority(m);

    if (!s->prioritized || priority == s->told_priority || !smtp_reply_positive(reply))
        return;
    snprintf(dst, PRIORITY_TEXT, "%d is the new priority of this message%s" STR_FMT, priority,
             before, STR_ARG(*before ? reply->text : STR("")));
    s->told_priority = priority;
    *reply = (struct smtp_reply){ 250, ENH(2, 3, 6), str_of(dst) };
}

/* By the clock, what MAIL said of now. False: answered. */
static bool take_times(struct session *s, const struct smtp_server_event *ev,
                       struct message_times *ret)
{
    const struct smtp_times *said = &ev->mail.times;
    int64_t now = engine_wall(s->e);
    struct message_times t = { .by = said->by.mode, .by_trace = said->by.trace };
    const char *why = NULL;

    if (t.by != SMTP_BY_NONE)
        t.by_ms = now + said->by.seconds * (int64_t)1000;
    if (said->hold)
        t.hold_ms = said->hold_s ? now + said->hold_s * (int64_t)1000 : said->hold_until_ms;
    t.hold_s = said->hold_s;
    t.priority = priority_of(s, said->priority);
    if (said->hold && t.hold_ms <= now)
        why = "HOLDUNTIL is in the past";
    else if (said->hold && t.by != SMTP_BY_NONE &&
             t.hold_ms >= t.by_ms) /* RFC 4865 section 5.2.2 */
        why = "BY is over before HOLDFOR or HOLDUNTIL lets it go";
    if (said->hold && !s->view.may_relay) /* it fills our disk */
        refuse_mail(s, ev->mail.address,
                    REPLY(530, ENH(5, 7, 0), "Authentication required for HOLDFOR and HOLDUNTIL"));
    else if (why)
        refuse_mail(s, ev->mail.address, (struct smtp_reply){ 501, ENH(5, 5, 4), str_of(why) });
    else
        *ret = t;
    s->prioritized = said->prioritized;
    s->told_priority = said->priority;
    return !why && (!said->hold || s->view.may_relay);
}

/* ---- mail, and rcpt ---- */

/* False: answered. */
static bool begin_mail(struct session *s, const struct smtp_server_event *ev)
{
    struct intake_source src = {
        .session = &s->view,
        .snapshot = s->snapshot,
        .declared_size = ev->mail.size,
        .eight_bit = ev->mail.body == SMTP_BODY_8BITMIME,
        .binary = ev->mail.body == SMTP_BODY_BINARYMIME,
        .smtputf8 = ev->mail.smtputf8,
        .each = s->view.lmtp,
        .requiretls = ev->mail.requiretls,
        .dsn = ev->mail.dsn,
        .prioritized = ev->mail.times.prioritized,
        .said_priority = ev->mail.times.priority,
    };
    int r;

    session_end_transaction(s);
    if (!session_client_may(s, CLIENTS_MESSAGE)) {
        refuse_mail(
            s, ev->mail.address,
            REPLY(450, ENH(4, 7, 0), "Too many messages from your address, try again later"));
        return false;
    }
    if (over_memory(s)) {
        refuse_mail(s, ev->mail.address, intake_error_reply(-ENOMEM));
        return false;
    }
    if (!take_times(s, ev, &src.times))
        return false;
    r = address_make(&s->scratch, &ev->mail.sender, &src.sender);
    if (r < 0) {
        refuse_mail(s, ev->mail.address,
                    r == -ENOMEM ? intake_error_reply(r)
                                 : REPLY(553, ENH(5, 1, 7), "bad domain in the sender address"));
        return false;
    }
    s->address = src.sender;
    s->intake = intake_new(s->e, &src, s);
    if (!s->intake)
        refuse_mail(s, ev->mail.address, intake_error_reply(-ENOMEM));
    return s->intake != NULL;
}

static void decide_mail(struct session *s, const struct hook_result *result)
{
    if (verdict_refuses(result->verdict)) {
        refuse_mail(s, s->address.text, verdict_reply(result));
        return;
    }
    s->discard = s->discard_session || result->verdict == VERDICT_DISCARD;
    hosts_heard_from(s->e, s->view.client);
    struct smtp_reply reply = REPLY(250, ENH(2, 1, 0), "OK");
    char text[PRIORITY_TEXT];
    tell_priority(s, intake_view(s->intake), &reply, "", text);
    answer(s, reply);
}

/* ---- rcpt ---- */

static void refuse_recipient(struct session *s, struct str recipient, struct smtp_reply reply,
                             struct str policy)
{
    s->refused = true;
    COUNT(s->e, recipients_rejected, 1);
    engine_event(s->e, EVENT(EVENT_INFO, "recipient_rejected",
                             F_INT("session", (int64_t)s->view.id), F_STRZ("client", s->client),
                             F_STR("sender", intake_view(s->intake)->sender->text),
                             F_STR("recipient", recipient), F_INT("code", reply.code),
                             F_STR("reply", reply.text), F_STR("policy", policy)));
    answer(s, reply);
}

static void drop_recipient(struct session *s, struct str policy)
{
    char id[MSGID_TEXT];
    int r = intake_pass_over(s->intake);

    if (r < 0) {
        refuse_recipient(s, s->address.text, intake_error_reply(r), policy);
        return;
    }
    COUNT(s->e, discarded, 1);
    engine_event(s->e,
                 EVENT(EVENT_INFO, "discarded", F_STRZ("id", msgid_text(intake_id(s->intake), id)),
                       F_INT("session", (int64_t)s->view.id), F_STRZ("client", s->client),
                       F_STR("sender", intake_view(s->intake)->sender->text),
                       F_STR("recipient", s->address.text), F_STR("policy", policy)));
    s->recipients++;
    answer(s, REPLY(250, ENH(2, 1, 5), "OK"));
}

static void take_recipient(struct session *s, struct str policy)
{
    if (s->discard) {
        drop_recipient(s, policy);
        return;
    }
    int r = intake_add_recipient(s->intake, &s->address, &s->rcpt_dsn, policy);
    if (r < 0) {
        refuse_recipient(s, s->address.text, intake_error_reply(r), policy);
        return;
    }
    s->recipients++;
    answer(s, REPLY(250, ENH(2, 1, 5), "OK"));
}

static void decide_rcpt(struct session *s, const struct hook_result *result)
{
    bool ours = s->view.may_relay || result->known_domain;

    if (verdict_refuses(result->verdict))
        refuse_recipient(s, s->address.text, verdict_reply(result), result->decided_by);
    else if (result->verdict == VERDICT_DISCARD)
        drop_recipient(s, result->decided_by);
    else if (result->verdict == VERDICT_ACCEPT || ours)
        take_recipient(s, result->decided_by);
    else
        refuse_recipient(s, s->address.text, REPLY_RELAY_DENIED, STR("default"));
}

static int make_recipient(struct session *s, const struct smtp_mailbox *box)
{
    struct smtp_mailbox full = *box;

    if (full.domain.n == 0)
        full.domain = s->snapshot->settings->hostname;
    return address_make(&s->scratch, &full, &s->address);
}

/* False: answered. */
static bool begin_rcpt(struct session *s, const struct smtp_server_event *ev)
{
    int r;

    arena_reset(&s->scratch);
    if (!session_client_may(s, CLIENTS_RECIPIENT)) {
        refuse_recipient(
            s, ev->rcpt.address,
            REPLY(450, ENH(4, 7, 0), "Too many recipients from your address, try again later"),
            STR("default"));
        return false;
    }
    r = make_recipient(s, &ev->rcpt.recipient);
    s->rcpt_dsn = ev->rcpt.dsn;
    s->rcpt_dsn.orcpt = arena_str(&s->scratch, ev->rcpt.dsn.orcpt);
    if (ev->rcpt.dsn.orcpt.n && !s->rcpt_dsn.orcpt.p)
        r = -ENOMEM;
    if (r == 0) {
        s->recipient = (struct recipient_view){ .address = &s->address,
                                                .n = (uint32_t)intake_recipients(s->intake) };
        return true;
    }
    refuse_recipient(s, ev->rcpt.address,
                     r == -ENOMEM ? intake_error_reply(r)
                                  : REPLY(501, ENH(5, 1, 3), "bad domain in the recipient address"),
                     STR_NONE);
    return false;
}

/* ---- asking hooks ---- */

static void decide(struct session *s, const struct hook_result *result)
{
    if (result->verdict == VERDICT_FAILED)
        COUNT(s->e, hooks_failed, 1);
    switch (s->asking) {
    case HOOK_CONNECT: decide_connect(s, result); break;
    case HOOK_HELO: decide_helo(s, result); break;
    case HOOK_MAIL: decide_mail(s, result); break;
    case HOOK_RCPT: decide_rcpt(s, result); break;
    default: CHECK(!"a hook of sessions");
    }
}

static void hook_answered(void *owner, struct hook_result *result)
{
    struct session *s = owner;

    s->call = NULL;
    if (s->asking == HOOK_CONNECT)
        session_feed(s); /* so that the server sees who talks before the greeting */
    decide(s, result);
    session_pump(s);
}

static void ask(struct session *s, enum hook h)
{
    struct hooks *hooks = s->snapshot->hooks;
    struct hook_result result;
    int answered = 1;

    s->asking = h;
    hook_result_init(&result);
    if (hooks_have(hooks, h)) {
        s->input = (struct hook_input){
            .session = &s->view,
            .message = s->intake ? intake_view(s->intake) : NULL,
            .recipient = h == HOOK_RCPT ? &s->recipient : NULL,
        };
        answered = hooks->run(hooks, h, &s->input, &result, hook_answered, s, &s->call);
    }
    if (answered)
        decide(s, &result);
    hook_result_done(&result);
}

/* The client's patience is tried first. */
static void begin_connect(struct session *s)
{
    if (s->greeting_delay_ms == 0) {
        ask(s, HOOK_CONNECT);
        return;
    }
    s->delayed = true;
    engine_timer(s->e, &s->greeting, s->greeting_delay_ms);
}

void session_greet(struct session *s)
{
    s->delayed = false;
    engine_timer_stop(s->e, &s->greeting);
    if (session_feed(s))
        answer(s, greeting(s)); /* the server knows better: 554 */
    else
        ask(s, HOOK_CONNECT);
    session_pump(s);
}

/* ---- data ---- */

static void intake_can_go_on(void *owner)
{
    struct session *s = owner;

    s->paused = false;
    s->progress = true;
    session_pump(s);
}

static void take_body(struct session *s, struct str bytes)
{
    if (s->body_error || intake_recipients(s->intake) == 0)
        return; /* drained */
    int r = intake_body(s->intake, bytes, intake_can_go_on);
    if (r < 0)
        s->body_error = r;
    else
        s->paused = r == 1;
}

/* A reply for each recipient (RFC 2033 §4.2). */
static void answer_each(struct session *s, const struct intake *in, uint32_t n,
                        const struct smtp_reply *common)
{
    uint32_t ticket = s->ticket;
    bool any = false;

    for (uint32_t i = 0; i < n; i++) {
        struct smtp_reply reply = intake_reply_to(in, i, common);
        any = any || smtp_reply_positive(&reply);
        s->refused = s->refused || !smtp_reply_positive(&reply);
        s->ticket = ticket;
        answer(s, reply);
    }
    s->messages += any;
}

static void message_done(void *owner, const struct smtp_reply *reply)
{
    struct session *s = owner;
    struct intake *in = TAKE(s->intake); /* it frees itself */
    uint32_t recipients = s->recipients;
    struct smtp_reply told = *reply;
    char text[PRIORITY_TEXT];

    tell_priority(s, intake_view(in), &told, ", ", text);
    session_end_transaction(s);
    if (s->view.lmtp) {
        answer_each(s, in, recipients, &told);
    } else {
        if (smtp_reply_positive(reply))
            s->messages++;
        else
            s->refused = true;
        answer(s, told);
    }
    session_pump(s);
}

/* Who has said all and ends its side (a script with netcat) is still there for the reply. Who is gone for good is not
 * told from that; the message is taken, as from a client that goes a moment later. */
static void end_body(struct session *s)
{
    session_hold(s);
    s->answer_by = engine_now(s->e) + ANSWER_MS;
    if (s->body_error)
        intake_fail(s->intake, s->body_error, message_done);
    else
        intake_finish(s->intake, message_done);
}

/* ---- auth ---- */

static void log_authentication(struct session *s, const struct auth_outcome *o)
{
    if (smtp_reply_positive(&o->reply)) {
        COUNT(s->e, auth_ok, 1);
        engine_event(s->e, EVENT(EVENT_INFO, "authenticated", F_INT("session", (int64_t)s->view.id),
                                 F_STRZ("client", s->client), F_STRZ("listener", s->listener),
                                 F_STRZ("mechanism", sasl_name(o->mechanism)),
                                 F_STR("identity", s->view.identity), F_STR("policy", o->policy)));
        return;
    }
    s->refused = true;
    COUNT(s->e, auth_failed, 1);
    engine_event(s->e, EVENT(EVENT_WARN, "auth_failed", F_INT("session", (int64_t)s->view.id),
                             F_STRZ("client", s->client), F_STRZ("listener", s->listener),
                             F_STRZ("mechanism", sasl_name(o->mechanism)), F_STR("user", o->user),
                             F_STRZ("why", o->why), F_INT("code", o->reply.code),
                             F_STR("policy", o->policy)));
}

bool session_keep_identity(struct session *s, struct str identity)
{
    char *copy = str_dup(identity);

    if (!copy)
        return false;
    free(s->identity);
    s->identity = copy;
    s->view.identity = str_of(copy);
    s->view.may_relay = true;
    return true;
}

static void conclude_auth(struct session *s, const struct auth_outcome *o)
{
    struct smtp_reply reply = o->reply;

    if (reply.code != 334) {
        if (reply.code == 235 && !session_keep_identity(s, o->identity))
            reply = REPLY(454, ENH(4, 7, 0), "Temporary authentication failure");
        else
            log_authentication(s, o);
    }
    answer(s, reply);
    if (reply.code != 334)
        s->auth = auth_free(s->auth);
}

static void auth_concluded(void *owner, const struct auth_outcome *outcome)
{
    struct session *s = owner;

    conclude_auth(s, outcome);
    session_pump(s);
}

static void say_auth(struct session *s, const struct str *response)
{
    const struct auth_outcome *outcome;

    if (auth_say(s->auth, response, &outcome))
        conclude_auth(s, outcome);
}

static void begin_auth(struct session *s, const struct smtp_server_event *ev)
{
    auth_free(s->auth);
    s->auth = auth_new(s->e, s->snapshot, &s->view, ev->auth.mechanism, auth_concluded, s);
    if (s->auth)
        say_auth(s, ev->auth.initial ? &ev->auth.response : NULL);
    else
        answer(s, REPLY(454, ENH(4, 7, 0), "Temporary authentication failure"));
}

/* ---- tls, etrn ---- */

static void start_tls(struct session *s)
{
    if (!s->e->ports.net->can_serve_tls(s->e->ports.net)) {
        answer(s, REPLY(454, ENH(4, 7, 0), "TLS not available due to temporary reason"));
        return;
    }
    session_end_transaction(s);
    s->want_tls = true;
    answer(s, REPLY(220, ENH(2, 0, 0), "Ready to start TLS"));
}

static void etrn_answered(void *owner, const struct smtp_reply *reply, struct turn *turn)
{
    struct session *s = owner;

    s->etrn = NULL;
    s->refused = s->refused || !smtp_reply_positive(reply);
    bool ahead = smtp_server_buffered(s->server); /* the client has talked on, and is told so */
    answer(s, *reply);
    if (turn && s->stream && !ahead) {
        session_hand_over(s, turn);
        return;
    }
    turn_free(turn);
    session_pump(s);
}

static void ask_etrn(struct session *s, const struct smtp_server_event *ev)
{
    const struct etrn_request request = { .option = ev->etrn.option,
                                          .node = ev->etrn.node,
                                          .atrn = ev->type == SMTP_SERVER_ATRN };

    if (s->etrns >= s->snapshot->settings->limits.etrn_per_session ||
        !etrn_client_may(s->e, s->view.client)) {
        struct smtp_reply reply =
            REPLY(request.atrn ? 451 : 458, ENH(4, 7, 0), "Too many requests, try again later");
        log_rejected(s, "etrn", &reply);
        answer(s, reply);
        return;
    }
    s->etrns++;
    s->etrn = etrn_start(s->e, s->snapshot, &s->view, &request, etrn_answered, s);
    if (!s->etrn)
        answer(s, intake_error_reply(-ENOMEM));
}

/* ---- xclient ---- */

/* The session begins anew with the greeting: whatever a policy kept is forgotten, and it is asked
 * again. */
static void take_xclient(struct session *s, const struct smtp_xclient *x)
{
    struct hooks *hooks = s->snapshot->hooks;

    session_end_transaction(s);
    if (!session_take_xclient(s, x)) {
        answer(s, REPLY(421, ENH(4, 3, 0), "out of memory, try again later"));
        return;
    }
    if (hooks->session_closed)
        hooks->session_closed(hooks, s->view.id);
    ask(s, HOOK_CONNECT);
}

/* ---- the dispatcher ---- */

void session_cancel(struct session *s)
{
    struct hooks *hooks = s->snapshot->hooks;

    if (s->call)
        hooks->cancel(hooks, s->call);
    s->call = NULL;
    s->delayed = false;
    engine_timer_stop(s->e, &s->greeting);
    etrn_cancel(TAKE(s->etrn));
    if (s->ticket)
        s->auth = auth_free(s->auth);
}

void session_event(struct session *s, const struct smtp_server_event *ev)
{
    s->ticket = ev->ticket;
    switch (ev->type) {
    case SMTP_SERVER_CONNECT: begin_connect(s); break;
    case SMTP_SERVER_HELO:
        if (begin_helo(s, ev))
            ask(s, HOOK_HELO);
        break;
    case SMTP_SERVER_MAIL:
        if (begin_mail(s, ev))
            ask(s, HOOK_MAIL);
        break;
    case SMTP_SERVER_RCPT:
        if (begin_rcpt(s, ev))
            ask(s, HOOK_RCPT);
        break;
    case SMTP_SERVER_DATA:
        answer(s, REPLY(354, ENH_NONE, "End data with <CR><LF>.<CR><LF>"));
        break;
    case SMTP_SERVER_BODY: take_body(s, ev->body); break;
    case SMTP_SERVER_END: end_body(s); break;
    case SMTP_SERVER_RESET: session_end_transaction(s); break;
    case SMTP_SERVER_STARTTLS: start_tls(s); break;
    case SMTP_SERVER_ETRN:
    case SMTP_SERVER_ATRN: ask_etrn(s, ev); break;
    case SMTP_SERVER_AUTH: begin_auth(s, ev); break;
    case SMTP_SERVER_AUTH_RESPONSE: say_auth(s, &ev->auth.response); break;
    case SMTP_SERVER_AUTH_END: s->auth = auth_free(s->auth); break;
    case SMTP_SERVER_XCLIENT: take_xclient(s, &ev->xclient); break;
    case SMTP_SERVER_CLOSE: break;
    }
}
