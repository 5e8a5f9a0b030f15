/* clock.c - os.time and its kin on the clock of the port, so that simulated time is the only time.
 *
 * Layer: lua. Interface: sandbox.h. Random numbers are here for the same reason.
 */
#include <lualib.h>

#include "lua/policies.h"
#include "lua/sandbox.h"
#include "lua/task.h"

static struct ports *ports_of(lua_State *L)
{
    struct task *task = vm_of(L)->current;

    return task ? task->policies->ports : NULL;
}

int64_t clock_wall(lua_State *L, const char *what)
{
    struct ports *ports = ports_of(L);

    if (!ports)
        vm_raise(L, "%s can only be called inside of a hook", what);
    return ports->clock->wall(ports->clock);
}

/* While loading, always the same sequence: all workers load the same. */
uint64_t random_next(lua_State *L)
{
    struct ports *ports = ports_of(L);
    struct vm *vm = vm_of(L);

    if (ports)
        return ports->random->next(ports->random);
    uint64_t z = vm->random += 0x9e3779b97f4a7c15; /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

/* upvalue 1: Lua's own */
static int clock_time(lua_State *L)
{
    if (lua_isnoneornil(L, 1)) {
        lua_pushinteger(L, clock_wall(L, "os.time()") / 1000);
        return 1;
    }
    lua_settop(L, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

static int clock_date(lua_State *L)
{
    lua_settop(L, 2);
    if (lua_isnil(L, 1)) {
        lua_pushliteral(L, "%c");
        lua_replace(L, 1);
    }
    if (lua_isnil(L, 2)) {
        lua_pushinteger(L, clock_wall(L, "os.date()") / 1000);
        lua_replace(L, 2);
    }
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 2, 1);
    return 1;
}

static int clock_clock(lua_State *L)
{
    struct ports *ports = ports_of(L);

    if (!ports)
        return vm_raise(L, "os.clock() can only be called inside of a hook");
    lua_pushnumber(L, (lua_Number)ports->clock->now(ports->clock) / 1000);
    return 1;
}

void clock_push(lua_State *L)
{
    luaL_requiref(L, "os", luaopen_os, 0);
    lua_newtable(L);
    lua_getfield(L, -2, "time");
    lua_pushcclosure(L, clock_time, 1);
    lua_setfield(L, -2, "time");
    lua_getfield(L, -2, "date");
    lua_pushcclosure(L, clock_date, 1);
    lua_setfield(L, -2, "date");
    lua_getfield(L, -2, "difftime");
    lua_setfield(L, -2, "difftime");
    lua_pushcfunction(L, clock_clock);
    lua_setfield(L, -2, "clock");
    lua_remove(L, -2);
}
