/* bind_next_hop.c - route.resolve: the hosts that a route leads to at present, for policies that decide
 * by them (a backup MX at RCPT).
 *
 * Layer: lua. Interface: sandbox.h. The engine's own resolution (engine/next_hop.h), so that what a
 * policy sees is what a delivery would do. Its result lives during the callback only: a copy waits
 * until the task runs on.
 */
#include <stdio.h>

#include "engine/next_hop.h"
#include "lua/policies.h"
#include "lua/sandbox.h"
#include "lua/task.h"
#include "lua/value.h"

struct resolution {
    struct task *task;
    struct next_hop_query *query; /* NULL: over */
    struct route *route;
    struct arena arena;
    struct next_hops result; /* strings and arrays are the arena's */
    bool no_memory;
};

static void resolution_free(void *operation)
{
    struct resolution *r = operation;

    if (r->query)
        next_hop_cancel(r->query);
    route_unref(r->route);
    arena_done(&r->arena);
    free(r);
}

static void resolution_cancel(struct task *task)
{
    struct resolution *r = task->wait.operation;

    next_hop_cancel(TAKE(r->query));
}

/* ---- the answer ----------------------------------------------------------------------------- */

static bool copy_hops(struct resolution *r, const struct next_hops *from)
{
    struct hop *hops = ARENA_ARRAY(&r->arena, struct hop, from->n + 1);
    struct hop_discarded *discarded =
        ARENA_ARRAY(&r->arena, struct hop_discarded, from->n_discarded + 1);

    if (!hops || !discarded)
        return false;
    for (size_t i = 0; i < from->n; i++) {
        hops[i] = from->hops[i];
        hops[i].name = arena_str(&r->arena, from->hops[i].name);
    }
    for (size_t i = 0; i < from->n_discarded; i++)
        discarded[i] = (struct hop_discarded){
            .what = arena_str(&r->arena, from->discarded[i].what),
            .reason = arena_str(&r->arena, from->discarded[i].reason),
        };
    r->result.hops = hops;
    r->result.discarded = discarded;
    return true;
}

static void on_resolved(void *owner, const struct next_hops *result)
{
    struct resolution *r = owner;

    r->query = NULL;
    r->result = *result;
    r->result.reply.text = arena_str(&r->arena, result->reply.text);
    r->no_memory = !copy_hops(r, result);
    task_ready(r->task);
}

/* ---- as Lua values -------------------------------------------------------------------------- */

static void set_str(lua_State *L, const char *key, struct str s)
{
    push_str(L, s);
    lua_setfield(L, -2, key);
}

static void push_hop(lua_State *L, const struct hop *h)
{
    char ip[NET_ADDR_TEXT];

    lua_createtable(L, 0, 4);
    set_str(L, "name", h->name);
    if (h->addr.family == NET_UNIX)
        lua_pushstring(L, net_addr_text(&h->addr, ip));
    else
        lua_pushstring(L, net_addr_ip_text(&h->addr, ip));
    lua_setfield(L, -2, "address");
    lua_pushinteger(L, h->addr.port);
    lua_setfield(L, -2, "port");
    lua_pushinteger(L, h->preference);
    lua_setfield(L, -2, "preference");
}

static void push_reply(lua_State *L, const struct smtp_reply *reply)
{
    char enhanced[24];

    lua_createtable(L, 3, 0);
    lua_pushinteger(L, reply->code);
    lua_rawseti(L, -2, 1);
    snprintf(enhanced, sizeof(enhanced), "%u.%u.%u", reply->enhanced.class_,
             reply->enhanced.subject, reply->enhanced.detail);
    lua_pushstring(L, enhanced);
    lua_rawseti(L, -2, 2);
    push_str(L, reply->text);
    lua_rawseti(L, -2, 3);
}

static int resolve_finish(lua_State *L, struct task *task)
{
    struct resolution *r = task->wait.operation;
    const struct next_hops *result = &r->result;
    static const char *const status[] = {
        [NEXT_HOP_OK] = "ok", [NEXT_HOP_DEFER] = "defer", [NEXT_HOP_PERMANENT] = "permanent"
    };

    if (r->no_memory)
        return vm_raise_no_memory(L);
    lua_createtable(L, 0, 5);
    lua_pushstring(L, status[result->status]);
    lua_setfield(L, -2, "status");
    if (result->status != NEXT_HOP_OK) {
        lua_pushstring(L, next_hop_reason_name(result->reason));
        lua_setfield(L, -2, "reason");
        push_reply(L, &result->reply);
        lua_setfield(L, -2, "reply");
    }
    lua_createtable(L, (int)result->n, 0);
    for (size_t i = 0; i < result->n; i++) {
        push_hop(L, &result->hops[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "hosts");
    lua_createtable(L, (int)result->n_discarded, 0);
    for (size_t i = 0; i < result->n_discarded; i++) {
        lua_createtable(L, 0, 2);
        set_str(L, "what", result->discarded[i].what);
        set_str(L, "reason", result->discarded[i].reason);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "discarded");
    return 1;
}

int bind_route_resolve(lua_State *L)
{
    struct route_value *v = value_to_route(L, 1);

    if (!v || (v->route->kind != ROUTE_MX && v->route->kind != ROUTE_HOSTS))
        return vm_raise(L, "route.resolve needs a route that leads to hosts: route.mx, "
                           "route.hosts or route.lmtp");
    struct task *task = task_may_wait(L, "route.resolve");
    struct engine *engine = task->policies->base.engine;
    if (!engine)
        return vm_raise(L, "route.resolve: nobody runs these policies, so there is nobody to ask");
    struct resolution *r = calloc(1, sizeof(*r));
    if (!r)
        return vm_raise_no_memory(L);
    arena_init(&r->arena, 0);
    r->task = task;
    r->route = route_ref(v->route);
    r->query = next_hop_resolve(engine, r->route, task->policies->settings, on_resolved, r);
    if (!r->query) {
        resolution_free(r);
        return vm_raise_no_memory(L);
    }
    task->wait.operation = r;
    task->wait.free_operation = resolution_free;
    return task_wait(L, task, resolution_cancel, resolve_finish, "route.resolve");
}
