/* view.c - handles on the engine's views. Interface: view.h. The fields are in view_*.c. Layer:
 * lua. */
#include "lua/view.h"

#include "lua/policies.h"
#include "lua/sandbox.h"

static const struct {
    const char *name;
    const struct view_field *fields;
    int n_cached; /* user values */
} kinds[VIEW_KINDS] = {
    [VIEW_CTX] = { "ctx", view_ctx_fields, 7 },
    [VIEW_SESSION] = { "session", view_session_fields, 4 },
    [VIEW_MESSAGE] = { "message", view_message_fields, 4 },
    [VIEW_HEADERS] = { "headers", view_headers_fields, 0 },
    [VIEW_BODY] = { "body", view_body_fields, 0 },
    [VIEW_RECIPIENT] = { "recipient", view_recipient_fields, 1 },
    [VIEW_ATTEMPT] = { "attempt", view_attempt_fields, 1 },
    [VIEW_REQUEST] = { "request", view_request_fields, 0 },
    [VIEW_CREDENTIALS] = { "credentials", view_credentials_fields, 0 },
};

const char *view_name(enum view_kind kind)
{
    return kinds[kind].name;
}

struct task *view_check(lua_State *L, enum view_kind kind)
{
    struct view *v = luaL_testudata(L, 1, kinds[kind].name);

    if (!v) {
        vm_raise(L, "this needs a %s in front of ':' (got a %s)", kinds[kind].name,
                 luaL_typename(L, 1));
        return NULL;
    }
    if (v->generation != v->task->generation)
        vm_raise(L, "%s used after its time: the hook that was given it has ended",
                 kinds[kind].name);
    return v->task;
}

/* upvalues: the table name -> field, the kind */
static int view_index(lua_State *L)
{
    enum view_kind kind = (enum view_kind)lua_tointeger(L, lua_upvalueindex(2));
    struct view *v = lua_touserdata(L, 1);

    if (v->generation != v->task->generation)
        view_check(L, kind);
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    const struct view_field *f = lua_touserdata(L, -1);
    if (!f) {
        vm_push_validate(L, "no_field");
        lua_pushstring(L, kinds[kind].name);
        lua_pushvalue(L, 2);
        lua_call(L, 2, 1);
        return vm_raise_top(L);
    }
    if (f->cache && lua_getiuservalue(L, 1, f->cache) != LUA_TNIL)
        return 1;
    lua_settop(L, 2);
    if (!f->get(L, v->task))
        lua_pushnil(L);
    if (f->cache) {
        lua_pushvalue(L, -1);
        lua_setiuservalue(L, 1, f->cache);
    }
    return 1;
}

static int view_newindex(lua_State *L)
{
    luaL_tolstring(L, 2, NULL);
    return vm_raise(L, "%s.%s cannot be set", lua_tostring(L, lua_upvalueindex(1)),
                    lua_tostring(L, -1));
}

static void open_kind(lua_State *L, enum view_kind kind)
{
    luaL_newmetatable(L, kinds[kind].name);
    lua_newtable(L);
    for (const struct view_field *f = kinds[kind].fields; f->name; f++) {
        lua_pushlightuserdata(L, (void *)f);
        lua_setfield(L, -2, f->name);
    }
    lua_pushinteger(L, kind);
    lua_pushcclosure(L, view_index, 2);
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, kinds[kind].name);
    lua_pushcclosure(L, view_newindex, 1);
    lua_setfield(L, -2, "__newindex");
    lua_pushstring(L, kinds[kind].name);
    lua_setfield(L, -2, "__metatable");
    if (kind == VIEW_BODY) {
        lua_pushcfunction(L, view_body_step);
        lua_setfield(L, -2, "__call");
    }
    lua_rawseti(L, -2, (int)kind + 1);
}

void view_open(lua_State *L)
{
    lua_createtable(L, VIEW_KINDS, 0); /* the metatables by kind: quicker than by name */
    for (int kind = 0; kind < VIEW_KINDS; kind++)
        open_kind(L, (enum view_kind)kind);
    lua_rawseti(L, LUA_REGISTRYINDEX, SLOT_VIEWS);
}

void view_push(lua_State *L, struct task *task, enum view_kind kind)
{
    struct view *v = lua_newuserdatauv(L, sizeof(*v), kinds[kind].n_cached);

    *v = (struct view){ .task = task, .generation = task->generation };
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_VIEWS);
    lua_rawgeti(L, -1, (int)kind + 1);
    lua_setmetatable(L, -3);
    lua_pop(L, 1);
}

void view_push_address(lua_State *L, const struct net_addr *a)
{
    char ip[NET_ADDR_TEXT];

    lua_createtable(L, 0, 3);
    lua_pushstring(L, net_addr_ip_text(a, ip));
    lua_setfield(L, -2, "address");
    lua_pushinteger(L, a->port);
    lua_setfield(L, -2, "port");
}

void view_push_data(lua_State *L, struct task *task, int slot, uint64_t id)
{
    policies_push(L, task->policies);
    lua_rawgeti(L, -1, slot);
    if (lua_rawgeti(L, -1, (lua_Integer)id) == LUA_TNIL) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_rawseti(L, -3, (lua_Integer)id);
    }
    lua_insert(L, -3);
    lua_pop(L, 2);
}
