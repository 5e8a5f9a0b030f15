/* bind_map.h - maps as Lua values, and as `domains` and `senders`. Layer: lua, internal. */
#ifndef TERN_LUA_BIND_MAP_H
#define TERN_LUA_BIND_MAP_H

#include "lua/vm.h"

/* Is the value at `index` a map? */
bool map_value_is(lua_State *L, int index);
/* A map that can stand as `domains` (a policy for each row)? NULL, or what is wrong with it. */
const char *map_value_unusable(lua_State *L, int index);
/* Makes the policy of the first row for each function that the map was given. Raises what is wrong, with
 * file and line of the row. */
void map_value_try(lua_State *L, int index);
/* Pushes a function: name (domain, address, "" for the null sender) -> policy or nil. */
void map_value_push_lookup(lua_State *L, int index);
/* The same without running what an operator wrote: pushes what the function at `index`, made by
 * map_value_push_lookup, would return; false: that policy has to be made first, and nothing is pushed. */
bool map_value_find_made(lua_State *L, int index, struct str name);
/* Pushes a table whose values are the policies, and functions that make one, that the map was given; or
 * (made) those that these functions made when they were tried. */
void map_value_push_policies(lua_State *L, int index, bool made);
/* May a row have a policy with any hook? Not, when all functions were tried and are of tern.policy. */
bool map_value_makes_any(lua_State *L, int index);

#endif
