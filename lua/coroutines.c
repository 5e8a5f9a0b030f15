/* coroutines.c - coroutines of scripts, inside of the one that is a hook's.
 *
 * Layer: lua. Interface: sandbox.h. They are Lua's own, but the watchdog and the functions that
 * wait must know which one runs; and none of them can be a task's (there is no coroutine.running,
 * so a script never holds one).
 */
#include <lualib.h>

#include "lua/sandbox.h"
#include "lua/task.h"
#include "lua/watchdog.h"

static lua_State *check_thread(lua_State *L)
{
    lua_State *co = lua_tothread(L, 1);

    luaL_argexpected(L, co, 1, "coroutine");
    return co;
}

/* One that died while it was overdue has its hooks switched off (watchdog.h): its variables are not
 * closed any more. */
static void set_poisoned(lua_State *L, lua_State *co)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_MARKS);
    lua_pushthread(co);
    lua_xmove(co, L, 1);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

static bool is_poisoned(lua_State *L, lua_State *co)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_MARKS);
    lua_pushthread(co);
    lua_xmove(co, L, 1);
    bool poisoned = lua_rawget(L, -2) != LUA_TNIL;
    lua_pop(L, 2);
    return poisoned;
}

/* Results on top of L: their number, or -1 and the error. */
static int resume(lua_State *L, lua_State *co, int n_args)
{
    struct vm *vm = vm_of(L);
    int n_results = 0;

    if (lua_status(co) == LUA_OK && lua_gettop(co) == 0) {
        lua_pushliteral(L, "cannot resume dead coroutine");
        return -1;
    }
    if (!lua_checkstack(co, n_args)) {
        lua_pushliteral(L, "too many arguments to resume");
        return -1;
    }
    lua_xmove(L, co, n_args);
    watchdog_settle(co);
    lua_State *was = watchdog_switch(co);
    vm->foreign++;
    int status = lua_resume(co, L, n_args, &n_results);
    vm->foreign--;
    watchdog_switch(was);
    watchdog_settle(L); /* what was overdue inside is overdue here */
    if (status != LUA_OK && status != LUA_YIELD) {
        lua_xmove(co, L, 1);
        if (watchdog_overdue())
            set_poisoned(L, co);
        return -1;
    }
    if (!lua_checkstack(L, n_results + 1)) {
        lua_pop(co, n_results);
        lua_pushliteral(L, "too many results to resume");
        return -1;
    }
    lua_xmove(co, L, n_results);
    return n_results;
}

static int co_resume(lua_State *L)
{
    lua_State *co = check_thread(L);
    int n = resume(L, co, lua_gettop(L) - 1);

    lua_pushboolean(L, n >= 0);
    n = n < 0 ? 1 : n;
    lua_insert(L, -(n + 1));
    return n + 1;
}

static int wrap_step(lua_State *L)
{
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    int n = resume(L, co, lua_gettop(L));

    if (n >= 0)
        return n;
    int status = lua_status(co);
    if (status != LUA_OK && status != LUA_YIELD && !is_poisoned(L, co)) { /* close its variables */
        lua_State *was = watchdog_switch(co);
        vm_of(L)->foreign++;
        lua_resetthread(co);
        vm_of(L)->foreign--;
        watchdog_switch(was);
        watchdog_settle(L);
        lua_xmove(co, L, 1);
    }
    if (lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int co_create(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    return 1;
}

static int co_wrap(lua_State *L)
{
    co_create(L);
    lua_pushcclosure(L, wrap_step, 1);
    return 1;
}

static int co_yield (lua_State *L)
{
    if (!task_is_foreign(L))
        return vm_raise(L, "coroutine.yield outside of a coroutine of your own");
    return lua_yield(L, lua_gettop(L));
}

static int co_close(lua_State *L)
{
    lua_State *co = check_thread(L);
    int status = lua_status(co);
    lua_Debug ar;

    if (co == L || (status == LUA_OK && lua_getstack(co, 0, &ar)))
        return luaL_error(L, "cannot close a running coroutine");
    if (is_poisoned(L, co))
        return vm_raise(L, "cannot close a coroutine that used up its processor time");
    watchdog_settle(co);
    lua_State *was = watchdog_switch(co);
    vm_of(L)->foreign++;
    status = lua_resetthread(co);
    vm_of(L)->foreign--;
    watchdog_switch(was);
    watchdog_settle(L);
    lua_pushboolean(L, status == LUA_OK);
    if (status == LUA_OK)
        return 1;
    lua_xmove(co, L, 1);
    return 2;
}

void coroutines_push(lua_State *L)
{
    static const luaL_Reg own[] = { { "create", co_create }, { "resume", co_resume },
                                    { "wrap", co_wrap },     { "yield", co_yield },
                                    { "close", co_close },   { NULL, NULL } };

    luaL_requiref(L, "coroutine", luaopen_coroutine, 0);
    luaL_newlib(L, own);
    lua_getfield(L, -2, "status");
    lua_setfield(L, -2, "status");
    lua_getfield(L, -2, "isyieldable");
    lua_setfield(L, -2, "isyieldable");
    lua_remove(L, -2);
}
