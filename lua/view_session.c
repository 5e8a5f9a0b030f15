/* view_session.c - ctx itself, session, recipient and request. Interface: view.h. Layer: lua. */
#include "lua/policies.h"
#include "lua/view.h"

/* ---- ctx ------------------------------------------------------------------------------------ */

static int push_if(lua_State *L, struct task *task, const void *there, enum view_kind kind)
{
    if (!there)
        return 0;
    view_push(L, task, kind);
    return 1;
}

static int ctx_session(lua_State *L, struct task *t)
{
    return push_if(L, t, t->in.session, VIEW_SESSION);
}
static int ctx_message(lua_State *L, struct task *t)
{
    return push_if(L, t, t->in.message, VIEW_MESSAGE);
}
static int ctx_recipient(lua_State *L, struct task *t)
{
    return push_if(L, t, t->in.recipient, VIEW_RECIPIENT);
}
static int ctx_attempt(lua_State *L, struct task *t)
{
    return push_if(L, t, t->in.attempt, VIEW_ATTEMPT);
}
static int ctx_request(lua_State *L, struct task *t)
{
    return push_if(L, t, t->in.etrn, VIEW_REQUEST);
}
static int ctx_credentials(lua_State *L, struct task *t)
{
    return push_if(L, t, t->in.credentials, VIEW_CREDENTIALS);
}
/* Put there before the hook is called (chain.c): the event itself does not last as long as the
 * hook. */
static int ctx_event(lua_State *L, struct task *t)
{
    return 0;
}

const struct view_field view_ctx_fields[] = {
    { "session", ctx_session, 1 },         { "message", ctx_message, 2 },
    { "recipient", ctx_recipient, 3 },     { "attempt", ctx_attempt, 4 },
    { "request", ctx_request, 5 },         { "event", ctx_event, VIEW_CTX_EVENT },
    { "credentials", ctx_credentials, 7 }, { NULL, NULL, 0 },
};

/* ---- session -------------------------------------------------------------------------------- */

static int session_id(lua_State *L, struct task *t)
{
    lua_pushinteger(L, (lua_Integer)t->in.session->id);
    return 1;
}
static int session_client(lua_State *L, struct task *t)
{
    view_push_address(L, t->in.session->client);
    push_str_or_nil(L, t->in.session->client_name);
    lua_setfield(L, -2, "name");
    return 1;
}
static int session_local(lua_State *L, struct task *t)
{
    view_push_address(L, t->in.session->local);
    return 1;
}
static int session_proxy(lua_State *L, struct task *t)
{
    if (!t->in.session->proxy)
        return 0;
    view_push_address(L, t->in.session->proxy);
    return 1;
}
static int session_helo(lua_State *L, struct task *t)
{
    push_str_or_nil(L, t->in.session->helo);
    return 1;
}
static int session_esmtp(lua_State *L, struct task *t)
{
    lua_pushboolean(L, t->in.session->extended);
    return 1;
}
/* Each with a line end behind it. */
static void push_names(lua_State *L, struct str names)
{
    struct str one;

    lua_newtable(L);
    for (lua_Integer i = 1; names.n && str_cut(&names, '\n', &one); i++) {
        push_str(L, one);
        lua_rawseti(L, -2, i);
    }
}
static int session_tls(lua_State *L, struct task *t)
{
    const struct tls_facts *f = &t->in.session->tls_facts;

    if (!t->in.session->tls)
        return 0;
    const struct {
        const char *name;
        struct str text;
    } texts[] = {
        { "version", f->version },         { "cipher", f->cipher },
        { "subject", f->subject },         { "issuer", f->issuer },
        { "fingerprint", f->fingerprint }, { "key_fingerprint", f->key_fingerprint },
    };
    lua_createtable(L, 0, 9);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        push_str_or_nil(L, texts[i].text);
        lua_setfield(L, -2, texts[i].name);
    }
    if (f->fingerprint.n) {
        push_names(L, f->names);
        lua_setfield(L, -2, "names");
    }
    lua_pushboolean(L, f->verified);
    lua_setfield(L, -2, "verified");
    lua_pushboolean(L, f->resumed);
    lua_setfield(L, -2, "resumed");
    return 1;
}
static int session_identity(lua_State *L, struct task *t)
{
    push_str_or_nil(L, t->in.session->identity);
    return 1;
}
static int session_listener(lua_State *L, struct task *t)
{
    push_str(L, t->in.session->service);
    return 1;
}
static int session_may_relay(lua_State *L, struct task *t)
{
    lua_pushboolean(L, t->in.session->may_relay);
    return 1;
}
static int session_data(lua_State *L, struct task *t)
{
    view_push_data(L, t, P_SESSION_DATA, t->in.session->id);
    return 1;
}

const struct view_field view_session_fields[] = {
    { "id", session_id, 0 },
    { "client", session_client, 1 },
    { "local", session_local, 2 },
    { "server", session_local, 2 },
    { "proxy", session_proxy, 4 },
    { "helo", session_helo, 0 },
    { "esmtp", session_esmtp, 0 },
    { "tls", session_tls, 3 },
    { "identity", session_identity, 0 },
    { "listener", session_listener, 0 },
    { "may_relay", session_may_relay, 0 },
    { "data", session_data, 0 },
    { NULL, NULL, 0 },
};

/* ---- recipient ------------------------------------------------------------------------------ */

static int recipient_address(lua_State *L, struct task *t)
{
    push_str(L, t->in.recipient->address->text);
    return 1;
}
static int recipient_local_part(lua_State *L, struct task *t)
{
    push_str(L, t->in.recipient->address->local);
    return 1;
}
static int recipient_domain(lua_State *L, struct task *t)
{
    push_str(L, t->in.recipient->address->domain);
    return 1;
}
static int recipient_params(lua_State *L, struct task *t)
{
    lua_newtable(L);
    return 1;
}

const struct view_field view_recipient_fields[] = {
    { "address", recipient_address, 0 },
    { "local_part", recipient_local_part, 0 },
    { "domain", recipient_domain, 0 },
    { "params", recipient_params, 1 },
    { NULL, NULL, 0 },
};

/* ---- request -------------------------------------------------------------------------------- */

static int request_domain(lua_State *L, struct task *t)
{
    push_str(L, t->in.etrn->domain);
    return 1;
}
static int request_option(lua_State *L, struct task *t)
{
    if (!t->in.etrn->option)
        return 0;
    lua_pushlstring(L, &t->in.etrn->option, 1);
    return 1;
}
static int request_operator(lua_State *L, struct task *t)
{
    lua_pushboolean(L, t->in.etrn->origin != ETRN_CLIENT);
    return 1;
}
static int request_scheduled(lua_State *L, struct task *t)
{
    lua_pushboolean(L, t->in.etrn->origin == ETRN_SCHEDULE);
    return 1;
}
static int request_argument(lua_State *L, struct task *t)
{
    push_str(L, t->in.etrn->argument);
    return 1;
}
static int request_kind(lua_State *L, struct task *t)
{
    lua_pushstring(L, t->in.etrn->atrn ? "ATRN" : "ETRN");
    return 1;
}
static int request_member(lua_State *L, struct task *t)
{
    lua_pushboolean(L, t->in.etrn->member);
    return 1;
}

const struct view_field view_request_fields[] = {
    { "domain", request_domain, 0 },     { "option", request_option, 0 },
    { "operator", request_operator, 0 }, { "scheduled", request_scheduled, 0 },
    { "argument", request_argument, 0 }, { "kind", request_kind, 0 },
    { "member", request_member, 0 },     { NULL, NULL, 0 },
};

/* ---- credentials ---------------------------------------------------------------------------- */

static int presented_mechanism(lua_State *L, struct task *t)
{
    lua_pushstring(L, sasl_name(t->in.credentials->mechanism));
    return 1;
}
static int presented_user(lua_State *L, struct task *t)
{
    push_str(L, t->in.credentials->user);
    return 1;
}
static int presented_password(lua_State *L, struct task *t)
{
    push_str_or_nil(L, t->in.credentials->password);
    return 1;
}

const struct view_field view_credentials_fields[] = {
    { "mechanism", presented_mechanism, 0 },
    { "user", presented_user, 0 },
    { "password", presented_password, 0 },
    { NULL, NULL, 0 },
};
