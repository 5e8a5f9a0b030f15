/* bind_log.c - the module tern.log, and print: lines of the log.
 *
 * Layer: lua. Interface: sandbox.h. An event named "policy_log" with the place of the call, a text
 * and the fields of the script's own.
 */
#include <stdio.h>

#include "base/event.h"
#include "lua/policies.h"
#include "lua/sandbox.h"
#include "lua/task.h"

enum { MAX_FIELDS = 32, MAX_VALUE = 8192 };

static struct port_journal *journal_of(lua_State *L)
{
    struct vm *vm = vm_of(L);

    return vm->current ? vm->current->policies->ports->journal : vm->journal;
}

static struct str place_of(lua_State *L)
{
    luaL_where(L, 1); /* "policies/backup.lua:31: " */
    struct str s = lua_str(L, -1);
    return s.n > 2 ? str_first(s, s.n - 2) : s;
}

static void check_name(lua_State *L, struct str name)
{
    bool good = name.n > 0 && name.n <= 64 && !ascii_digit(name.p[0]);

    for (size_t i = 0; i < name.n; i++)
        good = good && (ascii_alnum(name.p[i]) || name.p[i] == '_');
    if (!good || str_eq(name, STR("time")) || str_eq(name, STR("level")) ||
        str_eq(name, STR("event")) || str_eq(name, STR("place")) || str_eq(name, STR("text")))
        vm_raise(L, "tern.log: '" STR_FMT "' cannot be the name of a field", STR_ARG(name));
}

/* The value on top as a field; it stays on the stack. */
static struct event_field make_field(lua_State *L, const char *name)
{
    struct event_field f = { .name = name };

    switch (lua_type(L, -1)) {
    case LUA_TBOOLEAN:
        f.type = FIELD_BOOL;
        f.i = lua_toboolean(L, -1);
        return f;
    case LUA_TNUMBER:
        f.type = lua_isinteger(L, -1) ? FIELD_INT : FIELD_REAL;
        f.i = lua_tointeger(L, -1);
        f.r = lua_tonumber(L, -1);
        return f;
    default:
        luaL_tolstring(L, -1, NULL);
        lua_replace(L, -2);
        return F_STR(name, str_first(lua_str(L, -1), MAX_VALUE));
    }
}

static int write_log(lua_State *L, enum event_level level)
{
    struct event_field fields[MAX_FIELDS + 2];
    size_t n = 1;

    luaL_checkany(L, 1);
    lua_settop(L, 1);
    luaL_checkstack(L, 3 * MAX_FIELDS, "too many fields");
    fields[0] = F_STR("place", place_of(L));
    if (lua_type(L, 1) != LUA_TTABLE) {
        lua_pushvalue(L, 1);
        fields[n++] = make_field(L, "text");
    } else {
        if (lua_rawgeti(L, 1, 1) != LUA_TNIL)
            fields[n++] = make_field(L, "text");
        lua_pushnil(L);
        while (lua_next(L, 1)) {
            if (lua_type(L, -2) != LUA_TSTRING) {
                lua_pop(L, 1);
                continue;
            }
            check_name(L, lua_str(L, -2));
            if (n == ARRAY_LEN(fields))
                return vm_raise(L, "tern.log: too many fields (over %d)", MAX_FIELDS);
            fields[n++] = make_field(L, lua_tostring(L, -2));
            lua_pushvalue(L, -2); /* key and value stay below */
        }
    }
    struct port_journal *journal = journal_of(L);
    const struct event e = { .name = "policy_log", .level = level, .fields = fields, .n = n };
    if (journal)
        journal->record(journal, &e);
    return 0;
}

static int log_debug(lua_State *L)
{
    return write_log(L, EVENT_DEBUG);
}
static int log_info(lua_State *L)
{
    return write_log(L, EVENT_INFO);
}
static int log_warn(lua_State *L)
{
    return write_log(L, EVENT_WARN);
}
static int log_error(lua_State *L)
{
    return write_log(L, EVENT_ERROR);
}

int log_print(lua_State *L)
{
    int n = lua_gettop(L);
    luaL_Buffer b;

    luaL_buffinit(L, &b);
    for (int i = 1; i <= n; i++) {
        if (i > 1)
            luaL_addchar(&b, '\t');
        luaL_tolstring(L, i, NULL);
        luaL_addvalue(&b);
    }
    luaL_pushresult(&b);
    lua_insert(L, 1);
    return write_log(L, EVENT_INFO);
}

void bind_log_push(lua_State *L)
{
    static const luaL_Reg functions[] = { { "debug", log_debug },
                                          { "info", log_info },
                                          { "warn", log_warn },
                                          { "error", log_error },
                                          { NULL, NULL } };

    luaL_newlib(L, functions);
    sandbox_seal(L, "tern.log");
}
