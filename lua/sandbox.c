/* sandbox.c - the globals of scripts: an allow-list. Interface: sandbox.h.
 *
 * Layer: lua. What is missing on purpose: io, debug, package, most of os, dofile, loadfile,
 * string.dump, bytecode, finalizers, collectgarbage (but "count"), math.randomseed. What could run
 * long inside C, where the watchdog cannot reach, is bounded: patterns (strings.c), repetition,
 * moves and sorts of tables.
 */
#include "lua/sandbox.h"

#include <lualib.h>

#include "lua/task.h"
#include "lua/value.h"
#include "lua/view.h"
#include "lua/watchdog.h"

enum {
    MAX_MOVED = 1000000, /* items that one call may move */
    MAX_SORTED = 200000,
};

/* ---- strict tables -------------------------------------------------------------------------- */

/* upvalues: name, table */
static int no_field(lua_State *L)
{
    lua_Integer n = 0;

    vm_push_validate(L, "no_field");
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushvalue(L, 2);
    lua_newtable(L);
    for (lua_pushnil(L); lua_next(L, lua_upvalueindex(2)); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            continue;
        lua_pushvalue(L, -2);
        lua_rawseti(L, -4, ++n);
    }
    lua_call(L, 3, 1);
    return vm_raise_top(L);
}

static int read_only(lua_State *L)
{
    luaL_tolstring(L, 2, NULL);
    return vm_raise(L, "'%s' cannot be changed (setting '%s')",
                    lua_tostring(L, lua_upvalueindex(1)), lua_tostring(L, -1));
}

void sandbox_seal(lua_State *L, const char *name)
{
    int real = lua_gettop(L);

    lua_createtable(L, 0, 1); /* real's own metatable: what is not there */
    lua_pushstring(L, name);
    lua_pushvalue(L, real);
    lua_pushcclosure(L, no_field, 2);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, real);

    lua_newtable(L); /* the stand-in */
    lua_createtable(L, 0, 4);
    lua_pushvalue(L, real);
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, name);
    lua_pushcclosure(L, read_only, 1);
    lua_setfield(L, -2, "__newindex");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_remove(L, real);
}

static int undefined_variable(lua_State *L)
{
    lua_Integer n = 0;

    vm_push_validate(L, "undefined");
    lua_pushvalue(L, 2);
    lua_newtable(L);
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
        lua_pushvalue(L, -2);
        lua_rawseti(L, -4, ++n);
    }
    lua_call(L, 2, 1);
    return vm_raise_top(L);
}

static int global_assigned(lua_State *L)
{
    luaL_tolstring(L, 2, NULL);
    return vm_raise(L, "assignment to the global variable '%s': write 'local %s'",
                    lua_tostring(L, -1), lua_tostring(L, -1));
}

/* ---- functions that differ from Lua's own --------------------------------------------------- */

static int safe_setmetatable(lua_State *L)
{
    int t = lua_type(L, 2);

    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argexpected(L, t == LUA_TNIL || t == LUA_TTABLE, 2, "nil or table");
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
        return vm_raise(L, "cannot change a protected metatable");
    if (t == LUA_TTABLE) {
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL)
            return vm_raise(L, "__gc is not available to scripts");
    }
    lua_settop(L, 2);
    lua_setmetatable(L, 1);
    return 1;
}

/* upvalue 1: the handler of a script. It does not run for the error that ends overdue code, because
 * hooks are off at that moment. */
static int guard_handler(lua_State *L)
{
    lua_settop(L, 1);
    if (watchdog_overdue())
        return 1;
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

static int all_results(lua_State *L, int status, lua_KContext ctx)
{
    return lua_gettop(L);
}

/* upvalue 1: Lua's own */
static int safe_xpcall(lua_State *L)
{
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, guard_handler, 1);
    lua_replace(L, 2);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, all_results);
    return lua_gettop(L);
}

static int count_garbage(lua_State *L)
{
    const char *what = luaL_optstring(L, 1, "collect");

    if (strcmp(what, "count") != 0)
        return vm_raise(L, "collectgarbage(\"%s\") is not available: only \"count\" is", what);
    lua_pushnumber(L, (lua_Number)vm_of(L)->memory / 1024);
    return 1;
}

static int safe_random(lua_State *L)
{
    lua_Integer low = 1, high;
    uint64_t r = random_next(L);

    switch (lua_gettop(L)) {
    case 0: lua_pushnumber(L, (lua_Number)(r >> 11) * 0x1p-53); return 1;
    case 1: high = luaL_checkinteger(L, 1); break;
    case 2:
        low = luaL_checkinteger(L, 1);
        high = luaL_checkinteger(L, 2);
        break;
    default: return vm_raise(L, "wrong number of arguments");
    }
    luaL_argcheck(L, low <= high, lua_gettop(L), "interval is empty");
    uint64_t span = (uint64_t)high - (uint64_t)low + 1; /* 0: all 2^64 */
    if (span)
        r = (uint64_t)(((__uint128_t)r * span) >> 64);
    lua_Unsigned sum = r + (lua_Unsigned)low;
    lua_pushinteger(L, (lua_Integer)sum);
    return 1;
}

/* upvalue 1: Lua's own function */
static int call_original(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}

static int bounded_length(lua_State *L, lua_Integer max)
{
    if (luaL_len(L, 1) > max)
        vm_raise(L, "too many items for one call (over %lld)", (long long)max);
    return call_original(L);
}

static int safe_insert(lua_State *L)
{
    luaL_checkany(L, 1);
    return lua_gettop(L) <= 2 ? call_original(L) : bounded_length(L, MAX_MOVED);
}

static int safe_remove(lua_State *L)
{
    luaL_checkany(L, 1);
    return lua_gettop(L) < 2 ? call_original(L) : bounded_length(L, MAX_MOVED);
}

static int safe_sort(lua_State *L)
{
    luaL_checkany(L, 1);
    return bounded_length(L, MAX_SORTED);
}

static int safe_move(lua_State *L)
{
    lua_Integer from = luaL_checkinteger(L, 2), to = luaL_checkinteger(L, 3);

    if (to >= from && (lua_Unsigned)to - (lua_Unsigned)from >= MAX_MOVED)
        return vm_raise(L, "too many items for one call (over %d)", MAX_MOVED);
    return call_original(L);
}

/* ---- putting it together -------------------------------------------------------------------- */

/* Copies the named fields of the table at `from` to the one on top. */
static void copy_fields(lua_State *L, int from, const char *const *names)
{
    for (; *names; names++) {
        lua_getfield(L, from, *names);
        CHECK(!lua_isnil(L, -1));
        lua_setfield(L, -2, *names);
    }
}

static void wrap(lua_State *L, int library, const char *name, lua_CFunction fn)
{
    lua_getfield(L, library, name);
    lua_pushcclosure(L, fn, 1);
    lua_setfield(L, -2, name);
}

static void set_function(lua_State *L, const char *name, lua_CFunction fn)
{
    lua_pushcfunction(L, fn);
    lua_setfield(L, -2, name);
}

static const char *const base_names[] = { "assert",   "error",    "getmetatable", "ipairs",
                                          "next",     "pairs",    "pcall",        "rawequal",
                                          "rawget",   "rawlen",   "rawset",       "select",
                                          "tonumber", "tostring", "type",         "xpcall",
                                          "_VERSION", NULL };
static const char *const math_names[] = {
    "abs",  "acos", "asin", "atan", "ceil",       "cos",  "deg",        "exp",  "floor",
    "fmod", "huge", "log",  "max",  "maxinteger", "min",  "mininteger", "modf", "pi",
    "rad",  "sin",  "sqrt", "tan",  "tointeger",  "type", "ult",        NULL
};
static const char *const table_names[] = { "concat", "pack", "unpack", NULL };
static const char *const utf8_names[] = { "char", "charpattern", "codepoint", "codes",
                                          "len",  "offset",      NULL };

/* Puts a sealed library into the globals below it. */
static void give_library(lua_State *L, const char *name)
{
    sandbox_seal(L, name);
    lua_setfield(L, -2, name);
}

static void give_libraries(lua_State *L)
{
    int library;

    luaL_requiref(L, "math", luaopen_math, 0);
    library = lua_gettop(L);
    lua_newtable(L);
    copy_fields(L, library, math_names);
    set_function(L, "random", safe_random);
    lua_remove(L, library);
    give_library(L, "math");

    luaL_requiref(L, "table", luaopen_table, 0);
    library = lua_gettop(L);
    lua_newtable(L);
    copy_fields(L, library, table_names);
    wrap(L, library, "insert", safe_insert);
    wrap(L, library, "remove", safe_remove);
    wrap(L, library, "sort", safe_sort);
    wrap(L, library, "move", safe_move);
    lua_remove(L, library);
    give_library(L, "table");

    luaL_requiref(L, "utf8", luaopen_utf8, 0);
    library = lua_gettop(L);
    lua_newtable(L);
    copy_fields(L, library, utf8_names);
    lua_remove(L, library);
    give_library(L, "utf8");

    strings_push(L);
    give_library(L, "string");
    coroutines_push(L);
    give_library(L, "coroutine");
    clock_push(L);
    give_library(L, "os");
}

/* The globals of scripts; on top: those of Lua. */
static void make_env(lua_State *L)
{
    int all = lua_gettop(L);

    lua_newtable(L);
    copy_fields(L, all, base_names);
    wrap(L, all, "xpcall", safe_xpcall);
    set_function(L, "setmetatable", safe_setmetatable);
    set_function(L, "collectgarbage", count_garbage);
    set_function(L, "load", load_script);
    set_function(L, "print", log_print);
    set_function(L, "require", require_script);
    set_function(L, "secret", secret_script);
    give_libraries(L);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "_G");

    lua_createtable(L, 0, 3);
    set_function(L, "__index", undefined_variable);
    set_function(L, "__newindex", global_assigned);
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_rawseti(L, LUA_REGISTRYINDEX, SLOT_ENV);
}

/* The globals of our own modules: Lua's pure libraries as they are. */
static void make_trusted(lua_State *L)
{
    static const luaL_Reg libraries[] = { { "string", luaopen_string },
                                          { "table", luaopen_table },
                                          { "math", luaopen_math },
                                          { NULL, NULL } };
    static const char *const names[] = { "assert",   "error",    "ipairs", "next",         "pairs",
                                         "pcall",    "rawget",   "rawlen", "rawset",       "select",
                                         "tonumber", "tostring", "type",   "setmetatable", NULL };
    int all = lua_gettop(L);

    lua_newtable(L);
    copy_fields(L, all, names);
    for (const luaL_Reg *l = libraries; l->name; l++) {
        luaL_requiref(L, l->name, l->func, 0);
        lua_setfield(L, -2, l->name);
    }
    set_function(L, "require", require_trusted);
    lua_rawseti(L, LUA_REGISTRYINDEX, SLOT_TRUSTED);
}

static void new_slot(lua_State *L, enum vm_slot slot, const char *mode)
{
    lua_newtable(L);
    if (mode) {
        lua_createtable(L, 0, 1);
        lua_pushstring(L, mode);
        lua_setfield(L, -2, "__mode");
        lua_setmetatable(L, -2);
    }
    lua_rawseti(L, LUA_REGISTRYINDEX, slot);
}

static void preload(lua_State *L, const char *name, void (*push)(lua_State *))
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_LOADED);
    push(L);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
}

static void push_policy_module(lua_State *L)
{
    lua_pushcfunction(L, require_trusted);
    lua_pushliteral(L, "tern.policy");
    lua_call(L, 1, 1);
    sandbox_seal(L, "tern.policy");
}

void sandbox_open(lua_State *L)
{
    new_slot(L, SLOT_LOADED, NULL);
    new_slot(L, SLOT_TRUSTED_LOADED, NULL);
    new_slot(L, SLOT_TASKS, NULL);
    new_slot(L, SLOT_MARKS, "k");
    luaL_requiref(L, LUA_GNAME, luaopen_base, 0);
    make_trusted(L);
    make_env(L);
    lua_pop(L, 1);
    native_push(L);
    lua_rawseti(L, LUA_REGISTRYINDEX, SLOT_NATIVE);
    lua_pushcfunction(L, require_trusted);
    lua_pushliteral(L, "tern.validate");
    lua_call(L, 1, 1);
    lua_rawseti(L, LUA_REGISTRYINDEX, SLOT_VALIDATE);

    value_open(L);
    secret_open(L);
    view_open(L);
    preload(L, "tern.log", bind_log_push);
    preload(L, "tern.dns", bind_dns_push);
    preload(L, "tern.net", bind_net_push);
    preload(L, "tern.json", bind_json_push);
    preload(L, "tern.mime", bind_mime_push);
    preload(L, "tern.map", bind_map_push);
    preload(L, "tern.route", bind_route_push);
    preload(L, "tern.smtp", bind_smtp_push);
    preload(L, "tern.policy", push_policy_module);
    preload(L, "tern", bind_tern_push); /* has some of those above as fields */
}
