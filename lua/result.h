/* result.h - what a hook function returned, as the engine's hook_result.
 *
 * Layer: lua, internal.
 */
#ifndef TERN_LUA_RESULT_H
#define TERN_LUA_RESULT_H

#include "lua/task.h"

enum result_kind { RESULT_NONE, RESULT_TAKEN, RESULT_WRONG };
/* The value at `value`, returned by the function at `function`, becomes task->result. WRONG: it
 * is not what that hook may return; the message is on top of the stack. */
enum result_kind result_take(lua_State *L, int value, int function, struct task *task);
/* A route that no function returned: of the configuration itself. */
void result_take_route(lua_State *L, struct route *route, const char *decided_by,
                       struct task *task);
/* "policies/backup.lua:31" of the function at `index`, or of the line where the value was made
 * if that lies in the same file; in dst. */
void result_place(lua_State *L, int function, const void *made_in, int made_line, char *dst,
                  size_t size);

#endif
