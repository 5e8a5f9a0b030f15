/* bind_smtp.c - the module tern.smtp: asking hosts without a message (engine/probe.h).
 *
 * Layer: lua. Interface: sandbox.h. What came of it lives during the engine's call only: a copy waits until
 * the task runs on.
 */
#include "engine/probe.h"
#include "lua/policies.h"
#include "lua/sandbox.h"
#include "lua/task.h"
#include "lua/value.h"

enum { DEFAULT_TIMEOUT_MS = 10000 };

struct probing {
    struct task *task;
    struct probe *probe; /* NULL: over */
    struct route *route;
    struct arena arena;
    struct probe_result result; /* texts are the arena's */
};

static void probing_free(void *operation)
{
    struct probing *p = operation;

    if (p->probe)
        probe_cancel(p->probe);
    route_unref(p->route);
    arena_done(&p->arena);
    free(p);
}

static void on_probed(void *owner, const struct probe_result *result)
{
    struct probing *p = owner;

    p->probe = NULL;
    p->result = *result;
    p->result.reply.text = arena_str(&p->arena, result->reply.text);
    p->result.text = arena_str(&p->arena, result->text);
    p->result.host = arena_str(&p->arena, result->host);
    task_ready(p->task);
}

/* ---- as Lua values ---------------------------------------------------------------------------- */

static void set_str(lua_State *L, const char *key, struct str s)
{
    push_str_or_nil(L, s);
    lua_setfield(L, -2, key);
}

static void set_reply(lua_State *L, const struct smtp_reply *reply)
{
    char enhanced[16];

    if (!reply->code)
        return;
    lua_pushinteger(L, reply->code);
    lua_setfield(L, -2, "code");
    if (!reply->enhanced.class_)
        return;
    set_str(L, "enhanced", str_trim(str_of(smtp_enhanced_text(reply->enhanced, enhanced))));
}

static int push_busy(lua_State *L)
{
    lua_pushnil(L);
    lua_createtable(L, 0, 2);
    set_str(L, "kind", STR("busy"));
    set_str(L, "text", STR("too many hosts are being asked"));
    return 2;
}

static int probe_finish(lua_State *L, struct task *task)
{
    const struct probing *p = task->wait.operation;
    const struct probe_result *r = &p->result;
    char addr[NET_ADDR_TEXT];
    bool answered = r->end == PROBE_ANSWERED;

    if (r->end == PROBE_NO_MEMORY)
        return vm_raise_no_memory(L);
    if (!answered)
        lua_pushnil(L);
    lua_createtable(L, 0, 7);
    if (!answered)
        set_str(L, "kind", str_of(probe_end_name(r->end)));
    set_reply(L, &r->reply);
    push_str(L, r->text);
    lua_setfield(L, -2, "text");
    set_str(L, "stage", str_of(smtp_stage_name(r->stage)));
    set_str(L, "host", r->host);
    if (r->addr.family == NET_UNIX)
        set_str(L, "address", str_of(net_addr_text(&r->addr, addr)));
    else
        set_str(L, "address", str_of(net_addr_ip_text(&r->addr, addr)));
    return answered ? 1 : 2;
}

/* ---- asking ----------------------------------------------------------------------------------- */

static enum route_tls tls_of(lua_State *L)
{
    return field_is(L, 1, "tls", "none")      ? ROUTE_TLS_NONE
           : field_is(L, 1, "tls", "require") ? ROUTE_TLS_REQUIRE
           : field_is(L, 1, "tls", "verify")  ? ROUTE_TLS_VERIFY
           : field_is(L, 1, "tls", "dane")    ? ROUTE_TLS_DANE
                                              : ROUTE_TLS_OPPORTUNISTIC;
}

/* A route of `host`, or the one given, with a value that owns it on top of the stack. */
static struct route *take_route(lua_State *L)
{
    bool has_hosts = lua_getfield(L, 1, "host") == LUA_TTABLE;
    int hosts = lua_gettop(L);

    lua_getfield(L, 1, "route");
    const struct route_value *given = value_to_route(L, -1);
    if (has_hosts == (given != NULL))
        vm_raise(L, "tern.smtp.probe: needs host or route, and not both");
    if (given && given->route->kind != ROUTE_MX && given->route->kind != ROUTE_HOSTS)
        vm_raise(L, "tern.smtp.probe: 'route' must lead to hosts: route.mx, route.hosts or "
                    "route.lmtp");
    if (given)
        return given->route;
    struct route_value *v = value_push_route(L);
    v->route = route_new(ROUTE_HOSTS);
    if (!v->route)
        vm_raise_no_memory(L);
    v->route->tls = tls_of(L);
    if (route_take_targets(L, hosts, false, v->route) < 0 || route_finish(v->route) < 0)
        vm_raise(L, "tern.smtp.probe: 'host' cannot be used");
    return v->route;
}

/* What is asked for, but so that the hook has time to do something about it. */
static int64_t timeout_of(const struct task *task, int64_t wanted_ms)
{
    const struct policies *p = task->policies;
    int64_t left = timer_armed(&task->deadline)
                       ? task->deadline.at - p->ports->clock->now(p->ports->clock)
                       : p->settings->timeouts.hook_ms;

    return MAX(MIN(wanted_ms, left - left / 8), 1);
}

static int smtp_probe(lua_State *L)
{
    struct probe_request request = { .sender = STR("") };

    lua_settop(L, 1);
    value_check_options(L, "tern.smtp.probe", 1);
    field_str(L, 1, "sender", &request.sender);
    if (field_str(L, 1, "recipient", &request.recipient) && request.recipient.n == 0)
        return vm_raise(L, "tern.smtp.probe: 'recipient' is empty");
    request.route = take_route(L);
    struct task *task = task_may_wait(L, "tern.smtp.probe");
    struct engine *engine = task->policies->base.engine;
    if (!engine)
        return vm_raise(L, "tern.smtp.probe: nobody runs these policies, so nobody can be asked");
    request.timeout_ms = timeout_of(task, field_int(L, 1, "timeout", DEFAULT_TIMEOUT_MS));
    struct probing *p = calloc(1, sizeof(*p));
    if (!p)
        return vm_raise_no_memory(L);
    arena_init(&p->arena, 0);
    p->task = task;
    p->route = route_ref(request.route);
    int r = probe_start(engine, &request, on_probed, p, &p->probe);
    if (r < 0) {
        probing_free(p);
        return r == -EBUSY ? push_busy(L) : vm_raise_no_memory(L);
    }
    task->wait.operation = p;
    task->wait.free_operation = probing_free;
    return task_wait(L, task, NULL, probe_finish, "tern.smtp.probe " STR_FMT,
                     STR_ARG(request.recipient.n ? request.recipient : request.route->queue));
}

void bind_smtp_push(lua_State *L)
{
    static const luaL_Reg functions[] = { { "probe", smtp_probe }, { NULL, NULL } };

    luaL_newlib(L, functions);
    sandbox_seal(L, "tern.smtp");
}
