/* bind_limit.c - tern.limit: how often something may happen, for all workers together.
 *
 * Layer: lua. Interface: sandbox.h. The buckets are the engine's (engine/limits.h); where no engine runs the
 * hook (`tern check`), nothing is limited.
 */
#include "engine/context.h"
#include "engine/limits.h"
#include "lua/policies.h"
#include "lua/sandbox.h"
#include "lua/task.h"
#include "lua/value.h"

int tern_limit(lua_State *L)
{
    const struct task *task = vm_of(L)->current;
    struct rate rate;
    struct str key = STR("");
    int64_t cost = 1;

    if (lua_type(L, 1) != LUA_TSTRING || lua_type(L, 2) != LUA_TSTRING)
        return vm_raise(L, "tern.limit needs a name and a rate such as \"100/m,burst=20\"");
    if (limit_rate_parse(lua_str(L, 2), &rate) < 0)
        return vm_raise(L, "\"%s\" is not a rate such as \"100/m\" or \"5/10s,burst=20\"",
                        lua_tostring(L, 2));
    if (!task)
        return vm_raise(L, "tern.limit can only be called inside of a hook");
    lua_settop(L, 3);
    if (!lua_isnil(L, 3)) {
        value_check_options(L, "tern.limit", 3);
        field_str(L, 3, "key", &key);
        cost = field_int(L, 3, "cost", 1);
    }
    if (cost > rate.burst)
        return vm_raise(L, "tern.limit: 'cost' is more than the burst of %d: that can never be",
                        (int)rate.burst);
    struct engine *e = task->policies->base.engine;
    int64_t wait = e && e->shared->limits ? limits_take(e->shared->limits, lua_str(L, 1), key,
                                                        &rate, (uint32_t)cost, engine_now(e))
                                          : 0;
    lua_pushboolean(L, wait == 0);
    if (wait == 0)
        return 1;
    lua_pushnumber(L, (lua_Number)wait / 1000);
    return 2;
}
