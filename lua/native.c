/* native.c - what our own Lua modules (lua/tern/validate.lua) get of C: parsers, and facts on
 * values.
 *
 * Layer: lua. Interface: sandbox.h. Each parser takes a string and returns its normal form, or
 * nil.
 */
#include "base/units.h"
#include "lua/bind_map.h"
#include "lua/sandbox.h"
#include "lua/vm.h"
#include "mail/address.h"
#include "mail/hours.h"
#include "mail/rate.h"
#include "mail/route.h"
#include "mail/schedule.h"
#include "proto/smtp_reply.h"

static int native_duration(lua_State *L)
{
    int64_t ms;

    if (duration_parse(lua_str(L, 1), &ms) < 0)
        return 0;
    lua_pushinteger(L, ms);
    return 1;
}

static int native_size(lua_State *L)
{
    uint64_t n;

    if (size_parse(lua_str(L, 1), &n) < 0 || n > INT64_MAX)
        return 0;
    lua_pushinteger(L, (lua_Integer)n);
    return 1;
}

enum { SMTP_PORT = 25 };

static int same_if(lua_State *L, bool good)
{
    lua_settop(L, 1);
    return good ? 1 : 0;
}

static int native_schedule(lua_State *L)
{
    struct schedule s;

    return same_if(L, schedule_parse(lua_str(L, 1), &s) == 0);
}

static int native_hours(lua_State *L)
{
    struct hours h;

    return same_if(L, hours_parse(lua_str(L, 1), &h) == 0);
}

static int native_ip(lua_State *L)
{
    struct net_addr a;

    return same_if(L, net_addr_parse_ip(lua_str(L, 1), &a) == 0);
}

/* An address that connections can be made from. */
static int native_source_ip(lua_State *L)
{
    struct net_addr a;
    char text[NET_ADDR_TEXT];

    if (net_addr_parse_ip(lua_str(L, 1), &a) < 0 || net_addr_is_any(&a))
        return 0;
    bool many = a.family == NET_IPV4 ? a.ip[0] >= 224 : a.ip[0] == 0xff; /* multicast, broadcast */
    if (many)
        return 0;
    lua_pushstring(L, net_addr_ip_text(&a, text));
    return 1;
}

static int native_rate(lua_State *L)
{
    struct rate r;

    return same_if(L, rate_parse(lua_str(L, 1), &r) == 0);
}

static int native_endpoint(lua_State *L)
{
    struct net_addr a;
    int port = (int)lua_tointeger(L, 2);

    return same_if(L,
                   net_addr_parse(lua_str(L, 1), (uint16_t)port, &a) == 0 && a.family != NET_UNIX);
}

/* listen_port(text, default): the port; -1: a Unix socket; nil: neither. */
static int native_listen_port(lua_State *L)
{
    struct net_addr a;

    if (net_addr_parse(lua_str(L, 1), (uint16_t)lua_tointeger(L, 2), &a) < 0)
        return 0;
    lua_pushinteger(L, a.family == NET_UNIX ? -1 : a.port);
    return 1;
}

static int native_cidr(lua_State *L)
{
    struct net_cidr c;

    return same_if(L, net_cidr_parse(lua_str(L, 1), &c) == 0);
}

static int native_target(lua_State *L)
{
    struct arena arena;
    struct route_target t;

    arena_init(&arena, 0);
    int r = route_target_parse(&arena, lua_str(L, 1), true, &t);
    arena_done(&arena);
    if (r == -ENOMEM)
        vm_raise_no_memory(L);
    if (r == 0 && t.lmtp && t.port == SMTP_PORT) { /* RFC 2033 §5 */
        lua_pushnil(L);
        lua_pushliteral(
            L, "must not be LMTP on port 25, where hosts speak SMTP: name its own (24 is usual)");
        return 2;
    }
    return same_if(L, r == 0);
}

static int native_enhanced(lua_State *L)
{
    struct smtp_enhanced e;

    if (smtp_enhanced_parse(lua_str(L, 1), &e) < 0)
        return 0;
    lua_pushinteger(L, e.class_);
    return 1;
}

static int push_domain(lua_State *L, struct str s, bool pattern)
{
    char text[DOMAIN_TEXT];

    if (!pattern && (str_starts(s, STR(".")) || str_starts(s, STR("*"))))
        return 0;
    if (pattern && str_starts(s, STR("*.")))
        s = str_from(s, 1); /* "*.example.com" is how others write ".example.com" */
    ptrdiff_t n = domain_normalize(s, text, sizeof(text));
    if (n < 0)
        return 0;
    lua_pushlstring(L, text, (size_t)n);
    return 1;
}

static int native_domain(lua_State *L)
{
    return push_domain(L, lua_str(L, 1), false);
}

static int native_domain_key(lua_State *L)
{
    return push_domain(L, lua_str(L, 1), true);
}

/* "User@Example.com" -> "user@example.com". */
static int push_address(lua_State *L, struct str s)
{
    struct arena arena;
    struct address a;
    luaL_Buffer b;

    luaL_buffinitsize(L, &b, 1024);
    arena_init(&arena, 0);
    int r = address_parse(&arena, s, &a);
    size_t n = r == 0 ? a.local.n + 1 + a.domain.n : 0;
    if (r == 0 && a.domain.n && n <= 1024) {
        char *p = luaL_buffaddr(&b);
        for (size_t i = 0; i < a.local.n; i++)
            p[i] = ascii_lower(a.local.p[i]);
        p[a.local.n] = '@';
        memcpy(p + a.local.n + 1, a.domain.p, a.domain.n);
    } else {
        n = 0;
    }
    arena_done(&arena);
    luaL_pushresultsize(&b, n);
    if (r == -ENOMEM)
        vm_raise_no_memory(L);
    return n ? 1 : 0;
}

static int native_sender_key(lua_State *L)
{
    struct str s = lua_str(L, 1);

    if (str_eq(s, STR("<>")))
        return same_if(L, true);
    if (str_starts(s, STR("@")))
        return push_domain(L, str_from(s, 1), true);
    return str_chr(s, '@') > 0 ? push_address(L, s) : push_domain(L, s, true);
}

/* What a value is, for people: "route", "secret", "table", "string"... */
static int native_kind(lua_State *L)
{
    if (lua_type(L, 1) != LUA_TUSERDATA || luaL_getmetafield(L, 1, "__name") != LUA_TSTRING)
        lua_pushstring(L, luaL_typename(L, 1));
    return 1;
}

/* File and line where a function of a script begins; nothing for others. */
static int native_place(lua_State *L)
{
    lua_Debug ar;

    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    lua_getinfo(L, ">S", &ar);
    if (*ar.what == 'C' || *ar.source != '@')
        return 0;
    lua_pushstring(L, ar.source + 1);
    lua_pushinteger(L, ar.linedefined);
    return 2;
}

/* The text that was loaded under the name that errors show. */
static int native_source(lua_State *L)
{
    const struct source_text *t = source_by_chunk(vm_of(L)->source, luaL_checkstring(L, 1));

    if (!t)
        return 0;
    push_str(L, buf_str(&t->bytes));
    return 1;
}

/* upvalue 1: a function that returns its result, or nil and what its caller did wrong */
static int guarded(lua_State *L)
{
    int n = lua_gettop(L);

    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, n, 2);
    if (lua_isnil(L, 1) && lua_type(L, 2) == LUA_TSTRING)
        return vm_raise_top(L);
    lua_settop(L, 1);
    return 1;
}

/* A C function stays visible where it is called last in a function (a tail call), so the place
 * is the caller's own. */
static int native_guard(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    lua_pushcclosure(L, guarded, 1);
    return 1;
}

/* What is wrong with a map as `domains` or `senders`; nothing: it can be one. Each function that it was
 * given is tried, and what is wrong with that is raised. */
static int native_map_wrong(lua_State *L)
{
    const char *wrong = map_value_unusable(L, 1);

    if (!wrong)
        map_value_try(L, 1);
    lua_pushstring(L, wrong);
    return 1;
}

bool native_is_guarded(lua_State *L, int index)
{
    return lua_tocfunction(L, index) == guarded;
}

void native_push(lua_State *L)
{
    static const luaL_Reg functions[] = { { "duration", native_duration },
                                          { "size", native_size },
                                          { "schedule", native_schedule },
                                          { "hours", native_hours },
                                          { "ip", native_ip },
                                          { "source_ip", native_source_ip },
                                          { "rate", native_rate },
                                          { "endpoint", native_endpoint },
                                          { "listen_port", native_listen_port },
                                          { "cidr", native_cidr },
                                          { "target", native_target },
                                          { "enhanced", native_enhanced },
                                          { "domain", native_domain },
                                          { "domain_key", native_domain_key },
                                          { "sender_key", native_sender_key },
                                          { "kind", native_kind },
                                          { "place", native_place },
                                          { "source", native_source },
                                          { "guard", native_guard },
                                          { "map_wrong", native_map_wrong },
                                          { NULL, NULL } };

    luaL_newlib(L, functions);
}
