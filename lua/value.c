/* value.c - what hooks return, as Lua values. Interface: value.h. Layer: lua. */
#include "lua/value.h"

#include "lua/sandbox.h"

static const char route_type[] = "route", verdict_type[] = "verdict";

static int route_gc(lua_State *L)
{
    struct route_value *v = lua_touserdata(L, 1);

    v->route = route_unref(v->route);
    return 0;
}

static int route_text(lua_State *L)
{
    struct route_value *v = lua_touserdata(L, 1);
    struct buf text;

    buf_init(&text, 0);
    if (v->route)
        route_describe(v->route, &text);
    /* The copy can raise and lose the text, but only for want of memory. */
    push_str(L, buf_str(&text));
    buf_done(&text);
    return 1;
}

static int verdict_gc(lua_State *L)
{
    struct verdict_value *v = lua_touserdata(L, 1);

    v->route = route_unref(v->route);
    return 0;
}

static int verdict_text(lua_State *L)
{
    static const char *const names[] = {
        [VERDICT_ACCEPT] = "accept",   [VERDICT_REJECT] = "reject", [VERDICT_DEFER] = "defer",
        [VERDICT_DISCARD] = "discard", [VERDICT_BOUNCE] = "bounce", [VERDICT_RELEASE] = "release",
    };
    struct verdict_value *v = lua_touserdata(L, 1);

    lua_pushstring(L, names[v->verdict]);
    if (!v->code)
        return 1;
    char enhanced[16];
    lua_pushfstring(L, " %d %s", (int)v->code, smtp_enhanced_text(v->enhanced, enhanced));
    lua_getiuservalue(L, 1, VERDICT_TEXT);
    lua_concat(L, 3);
    return 1;
}

static void make_type(lua_State *L, const char *name, lua_CFunction gc, lua_CFunction text)
{
    luaL_newmetatable(L, name);
    lua_pushcfunction(L, gc);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, text);
    lua_setfield(L, -2, "__tostring");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

void value_open(lua_State *L)
{
    make_type(L, route_type, route_gc, route_text);
    make_type(L, verdict_type, verdict_gc, verdict_text);
}

struct route_value *value_push_route(lua_State *L)
{
    struct route_value *v = lua_newuserdatauv(L, sizeof(*v), 0);

    *v = (struct route_value){ 0 };
    luaL_setmetatable(L, route_type);
    return v;
}

struct verdict_value *value_push_verdict(lua_State *L, enum verdict verdict)
{
    struct verdict_value *v = lua_newuserdatauv(L, sizeof(*v), VERDICT_VALUES);

    *v = (struct verdict_value){ .verdict = verdict };
    luaL_setmetatable(L, verdict_type);
    return v;
}

struct route_value *value_to_route(lua_State *L, int index)
{
    return luaL_testudata(L, index, route_type);
}

struct verdict_value *value_to_verdict(lua_State *L, int index)
{
    return luaL_testudata(L, index, verdict_type);
}

struct made_at value_made_at(lua_State *L)
{
    lua_Debug ar;

    if (!lua_getstack(L, 1, &ar) || !lua_getinfo(L, "Sl", &ar))
        return (struct made_at){ NULL, 0 };
    return (struct made_at){ ar.source, ar.currentline };
}

void value_check_arguments(lua_State *L, const char *name)
{
    if (lua_gettop(L) > 1)
        vm_raise(L, "%s takes one argument: write %s { ... }", name, name);
    lua_settop(L, 1);
    vm_push_validate(L, "construct");
    lua_pushstring(L, name);
    lua_pushvalue(L, 1);
    lua_call(L, 2, 2);
    if (lua_isnil(L, 2))
        vm_raise_top(L);
    lua_settop(L, 2);
}

void value_check_options(lua_State *L, const char *name, int index)
{
    vm_push_validate(L, "construct");
    lua_pushstring(L, name);
    lua_pushvalue(L, index);
    lua_call(L, 2, 2);
    if (lua_isnil(L, -2))
        vm_raise_top(L);
    lua_pop(L, 1);
    lua_replace(L, index);
}

bool field_str(lua_State *L, int index, const char *key, struct str *ret)
{
    bool there = lua_getfield(L, index, key) == LUA_TSTRING;

    if (there)
        *ret = lua_str(L, -1);
    lua_pop(L, 1);
    return there;
}

int64_t field_int(lua_State *L, int index, const char *key, int64_t otherwise)
{
    int64_t n = lua_getfield(L, index, key) == LUA_TNUMBER ? lua_tointeger(L, -1) : otherwise;

    lua_pop(L, 1);
    return n;
}

bool field_is(lua_State *L, int index, const char *key, const char *value)
{
    struct str s;

    return field_str(L, index, key, &s) && str_eq(s, str_of(value));
}
