/* bind_net.c - the module tern.net: networks of addresses. Interface: sandbox.h. Layer: lua. */
#include "base/netaddr.h"
#include "lua/sandbox.h"

static const char networks_type[] = "networks";
enum { MAX_NETWORKS = 100000 };

struct networks {
    size_t n;
    struct net_cidr list[];
};

static void parse_into(lua_State *L, int index, struct net_cidr *ret)
{
    if (lua_type(L, index) != LUA_TSTRING)
        vm_raise(L,
                 "tern.net.cidr needs a network such as \"10.0.0.0/8\", or a list of them, got %s",
                 luaL_typename(L, index));
    if (net_cidr_parse(lua_str(L, index), ret) < 0)
        vm_raise(L, "\"%s\" is not a network such as \"10.0.0.0/8\"", lua_tostring(L, index));
}

static int net_cidr_new(lua_State *L)
{
    bool list = lua_type(L, 1) == LUA_TTABLE;
    size_t n = list ? lua_rawlen(L, 1) : 1;

    lua_settop(L, 1);
    if (n > MAX_NETWORKS)
        return vm_raise(L, "tern.net.cidr: too many networks (over %d)", MAX_NETWORKS);
    struct networks *c = lua_newuserdatauv(L, sizeof(*c) + n * sizeof(c->list[0]), 0);
    c->n = 0;
    luaL_setmetatable(L, networks_type);
    for (size_t i = 0; i < n; i++) {
        if (list)
            lua_rawgeti(L, 1, (lua_Integer)i + 1);
        else
            lua_pushvalue(L, 1);
        parse_into(L, -1, &c->list[i]);
        lua_pop(L, 1);
        c->n = i + 1;
    }
    return 1;
}

/* An address as text (with or without a port), or what session.client is. Nil is in no network. */
static int networks_contains(lua_State *L)
{
    struct networks *c = luaL_checkudata(L, 1, networks_type);
    struct net_addr a;
    bool found = false;

    lua_settop(L, 2);
    if (lua_type(L, 2) == LUA_TTABLE) {
        lua_pushliteral(L, "address");
        lua_rawget(L, 2);
        lua_replace(L, 2);
    }
    if (lua_isnil(L, 2)) {
        lua_pushboolean(L, 0);
        return 1;
    }
    if (lua_type(L, 2) != LUA_TSTRING || net_addr_parse(lua_str(L, 2), 0, &a) < 0)
        return vm_raise(L, "contains() needs an IP address");
    for (size_t i = 0; !found && i < c->n; i++)
        found = net_cidr_contains(&c->list[i], &a);
    lua_pushboolean(L, found);
    return 1;
}

void bind_net_push(lua_State *L)
{
    luaL_newmetatable(L, networks_type);
    lua_newtable(L);
    lua_pushcfunction(L, networks_contains);
    lua_setfield(L, -2, "contains");
    sandbox_seal(L, "networks");
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, networks_type);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);

    lua_newtable(L);
    lua_pushcfunction(L, net_cidr_new);
    lua_setfield(L, -2, "cidr");
    sandbox_seal(L, "tern.net");
}
