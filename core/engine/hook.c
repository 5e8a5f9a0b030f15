/* hook.c - names and results of hooks. See hook.h. */
#include "engine/hook.h"

const char *hook_name(enum hook h)
{
    static const char *const names[HOOK_COUNT] = {
        [HOOK_CONNECT] = "connect", [HOOK_HELO] = "helo",     [HOOK_AUTH] = "auth",
        [HOOK_MAIL] = "mail",       [HOOK_RCPT] = "rcpt",     [HOOK_DATA] = "data",
        [HOOK_ROUTE] = "route",     [HOOK_RESULT] = "result", [HOOK_ETRN] = "etrn",
        [HOOK_EVENT] = "event",
    };
    CHECK((unsigned)h < HOOK_COUNT);
    return names[h];
}

const char *failure_scope_name(enum failure_scope s)
{
    static const char *const names[] = {
        [SCOPE_HOST] = "host", [SCOPE_MESSAGE] = "message", [SCOPE_RECIPIENT] = "recipient"
    };
    CHECK((size_t)s < ARRAY_LEN(names));
    return names[s];
}

struct message_view message_view_of(const struct message *m)
{
    return (struct message_view){
        .id = m->id,
        .sender = &m->sender,
        .size = m->size,
        .eight_bit = (m->flags & MESSAGE_8BIT) != 0,
        .binary = (m->flags & MESSAGE_BINARY) != 0,
        .smtputf8 = (m->flags & MESSAGE_SMTPUTF8) != 0,
        .requiretls = (m->flags & MESSAGE_REQUIRETLS) != 0,
        .received_ms = m->received_ms,
        .times = m->times,
        .client = m->client,
        .helo = m->helo,
        .identity = m->identity,
        .service = m->service,
    };
}

void hook_result_init(struct hook_result *r)
{
    *r = (struct hook_result){ 0 };
    arena_init(&r->arena, 0);
}

void hook_result_done(struct hook_result *r)
{
    arena_done(&r->arena);
    r->route = route_unref(r->route);
}
