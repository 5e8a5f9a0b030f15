/* view_message.c - message, and attempt. Interface: view.h; headers and body: view_headers.c, view_body.c. Layer: lua. */
#include "lua/policies.h"
#include "lua/view.h"

/* ---- message -------------------------------------------------------------------------------- */

static int message_id(lua_State *L, struct task *t)
{
    static const struct msgid none;
    char text[MSGID_TEXT];

    if (msgid_cmp(&t->in.message->id, &none) == 0)
        return 0;
    lua_pushstring(L, msgid_text(&t->in.message->id, text));
    return 1;
}
static int message_sender(lua_State *L, struct task *t)
{
    const struct address *a = t->in.message->sender;

    push_str(L, a ? a->text : STR(""));
    return 1;
}
static int message_sender_domain(lua_State *L, struct task *t)
{
    const struct address *a = t->in.message->sender;

    push_str(L, a ? a->domain : STR(""));
    return 1;
}
static int message_size(lua_State *L, struct task *t)
{
    lua_pushinteger(L, (lua_Integer)t->in.message->size);
    return 1;
}
static int message_requiretls(lua_State *L, struct task *t)
{
    lua_pushboolean(L, t->in.message->requiretls);
    return 1;
}
static int message_params(lua_State *L, struct task *t)
{
    lua_createtable(L, 0, 2);
    lua_pushstring(L, t->in.message->binary      ? "BINARYMIME"
                      : t->in.message->eight_bit ? "8BITMIME"
                                                 : "7BIT");
    lua_setfield(L, -2, "body");
    lua_pushboolean(L, t->in.message->smtputf8);
    lua_setfield(L, -2, "smtputf8");
    return 1;
}
static int message_deliver_by(lua_State *L, struct task *t)
{
    const struct message_times *times = &t->in.message->times;

    if (times->by == SMTP_BY_NONE)
        return 0;
    lua_createtable(L, 0, 3);
    lua_pushstring(L, times->by == SMTP_BY_RETURN ? "return" : "notify");
    lua_setfield(L, -2, "mode");
    lua_pushnumber(L, (lua_Number)times->by_ms / 1000);
    lua_setfield(L, -2, "at");
    lua_pushboolean(L, times->by_trace);
    lua_setfield(L, -2, "trace");
    return 1;
}
static int message_hold_until(lua_State *L, struct task *t)
{
    if (!t->in.message->times.hold_ms)
        return 0;
    lua_pushnumber(L, (lua_Number)t->in.message->times.hold_ms / 1000);
    return 1;
}
static int message_priority(lua_State *L, struct task *t)
{
    lua_pushinteger(L, message_view_priority(t->in.message));
    return 1;
}

static int message_method_set_priority(lua_State *L)
{
    struct task *t = view_check(L, VIEW_MESSAGE);
    lua_Integer priority = luaL_checkinteger(L, 2);

    if (!t->in.message->priority ||
        (t->hook != HOOK_MAIL && t->hook != HOOK_RCPT && t->hook != HOOK_DATA))
        return vm_raise(
            L, "a message's priority can be set in the hooks 'mail', 'rcpt' and 'data' only");
    if (priority < -SMTP_PRIORITY_MOST || priority > SMTP_PRIORITY_MOST)
        return vm_raise(L, "a priority is a number from -%d to %d", SMTP_PRIORITY_MOST,
                        SMTP_PRIORITY_MOST);
    *t->in.message->priority = (int8_t)priority;
    return 0;
}
static int push_message_method_set_priority(lua_State *L, struct task *t)
{
    lua_pushcfunction(L, message_method_set_priority);
    return 1;
}
static int message_headers(lua_State *L, struct task *t)
{
    if (!t->in.message->headers)
        return 0;
    view_push(L, t, VIEW_HEADERS);
    return 1;
}
static int message_body(lua_State *L, struct task *t)
{
    if (!t->in.message->read_body)
        return 0;
    view_push(L, t, VIEW_BODY);
    return 1;
}
static int message_received(lua_State *L, struct task *t)
{
    if (!t->in.message->received_ms)
        return 0;
    lua_pushnumber(L, (lua_Number)t->in.message->received_ms / 1000);
    return 1;
}

/* Before the message is whole, the session knows. */
static int message_client(lua_State *L, struct task *t)
{
    if (t->in.message->client.family != NET_NONE)
        view_push_address(L, &t->in.message->client);
    else if (t->in.session)
        view_push_address(L, t->in.session->client);
    else
        return 0;
    return 1;
}
static int message_helo(lua_State *L, struct task *t)
{
    push_str_or_nil(L, t->in.session ? t->in.session->helo : t->in.message->helo);
    return 1;
}
static int message_identity(lua_State *L, struct task *t)
{
    push_str_or_nil(L, t->in.session ? t->in.session->identity : t->in.message->identity);
    return 1;
}
static int message_listener(lua_State *L, struct task *t)
{
    push_str_or_nil(L, t->in.session ? t->in.session->service : t->in.message->service);
    return 1;
}
static int message_data(lua_State *L, struct task *t)
{
    if (!t->in.message->key)
        lua_newtable(L); /* queued: nothing is kept */
    else
        view_push_data(L, t, P_MESSAGE_DATA, t->in.message->key);
    return 1;
}

VIEW_METHOD(view_message_parts)

const struct view_field view_message_fields[] = {
    { "id", message_id, 0 },
    { "sender", message_sender, 0 },
    { "sender_domain", message_sender_domain, 0 },
    { "size", message_size, 0 },
    { "params", message_params, 1 },
    { "requiretls", message_requiretls, 0 },
    { "deliver_by", message_deliver_by, 4 },
    { "hold_until", message_hold_until, 0 },
    { "priority", message_priority, 0 },
    { "set_priority", push_message_method_set_priority, 0 },
    { "headers", message_headers, 2 },
    { "body", message_body, 0 }, /* each time a new iterator */
    { "parts", push_view_message_parts, 0 },
    { "received", message_received, 0 },
    { "client", message_client, 3 },
    { "helo", message_helo, 0 },
    { "identity", message_identity, 0 },
    { "listener", message_listener, 0 },
    { "data", message_data, 0 },
    { NULL, NULL, 0 },
};

/* ---- attempt -------------------------------------------------------------------------------- */

static int attempt_number(lua_State *L, struct task *t)
{
    lua_pushinteger(L, t->in.attempt->number);
    return 1;
}
static int attempt_host(lua_State *L, struct task *t)
{
    push_str_or_nil(L, t->in.attempt->host);
    return 1;
}
static int attempt_address(lua_State *L, struct task *t)
{
    char text[NET_ADDR_TEXT];

    push_str_or_nil(L, str_of(net_addr_text(&t->in.attempt->address, text)));
    return 1;
}
static int attempt_stage(lua_State *L, struct task *t)
{
    lua_pushstring(L, smtp_stage_name(t->in.attempt->stage));
    return 1;
}
static int attempt_reply(lua_State *L, struct task *t)
{
    const struct smtp_reply *r = &t->in.attempt->reply;
    char text[16];

    if (!r->code)
        return 0;
    lua_createtable(L, 0, 3);
    lua_pushinteger(L, r->code);
    lua_setfield(L, -2, "code");
    push_str_or_nil(L, str_trim(str_of(smtp_enhanced_text(r->enhanced, text))));
    lua_setfield(L, -2, "enhanced");
    push_str(L, r->text);
    lua_setfield(L, -2, "text");
    return 1;
}
static int attempt_reason(lua_State *L, struct task *t)
{
    push_str(L, t->in.attempt->why);
    return 1;
}
static int attempt_scope(lua_State *L, struct task *t)
{
    lua_pushstring(L, failure_scope_name(t->in.attempt->scope));
    return 1;
}
static int attempt_permanent(lua_State *L, struct task *t)
{
    lua_pushboolean(L, t->in.attempt->permanent);
    return 1;
}
static int attempt_elapsed(lua_State *L, struct task *t)
{
    lua_pushnumber(L, (lua_Number)t->in.attempt->elapsed_ms / 1000);
    return 1;
}
static int attempt_queued_for(lua_State *L, struct task *t)
{
    lua_pushnumber(L, (lua_Number)t->in.attempt->queued_ms / 1000);
    return 1;
}

const struct view_field view_attempt_fields[] = {
    { "number", attempt_number, 0 },
    { "host", attempt_host, 0 },
    { "address", attempt_address, 0 },
    { "stage", attempt_stage, 0 },
    { "reply", attempt_reply, 1 },
    { "reason", attempt_reason, 0 },
    { "scope", attempt_scope, 0 },
    { "permanent", attempt_permanent, 0 },
    { "elapsed", attempt_elapsed, 0 },
    { "queued_for", attempt_queued_for, 0 },
    { NULL, NULL, 0 },
};
