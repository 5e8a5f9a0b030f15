/* sandbox.h - what scripts can reach: an allow-list, read-only, with clear errors for the rest.
 *
 * Layer: lua, internal. All of this runs inside vm_run at the birth of a VM and may raise.
 */
#ifndef TERN_LUA_SANDBOX_H
#define TERN_LUA_SANDBOX_H

#include "lua/vm.h"

/* Makes the globals of scripts (SLOT_ENV) and of our own modules (SLOT_TRUSTED). */
void sandbox_open(lua_State *L);
/* Replaces the table on top by a read-only stand-in called `name`; a field that is not there is
 * an error with the nearest name. */
void sandbox_seal(lua_State *L, const char *name);

/* The parts; each pushes its table of functions. */
void coroutines_push(lua_State *L); /* coroutine */
void strings_push(lua_State *L);    /* string, with a matcher that cannot explode */
void clock_push(lua_State *L);      /* os: time, date, clock, difftime */

/* require for scripts, and for our own modules. */
int require_script(lua_State *L);
int require_trusted(lua_State *L);
/* secret "name" */
int secret_script(lua_State *L);
/* What the secret at `index` holds, without line ends behind it; lives with the VM. False: it is
 * none. */
bool secret_read(lua_State *L, int index, struct str *ret);
/* `text` or a reader function -> function, in the sandbox */
int load_script(lua_State *L);

/* Raises the text on top, behind the caller's place, as a value { exit =, message = } that reads as its
 * message: a load that fails by it ends with that exit code. */
int raise_fault(lua_State *L, int exit_code) NEVER_RETURNS;

/* Each pushes a module's table and is called once. */
void native_push(lua_State *L);
/* Is the value a function that tern.policy made (`backup`: options -> policy)? */
bool native_is_guarded(lua_State *L, int index);
void bind_tern_push(lua_State *L);
void bind_route_push(lua_State *L);
/* route.resolve, of bind_route's table */
int bind_route_resolve(lua_State *L);
void bind_log_push(lua_State *L);
void bind_dns_push(lua_State *L);
void bind_net_push(lua_State *L);
void bind_json_push(lua_State *L);
void bind_mime_push(lua_State *L);
void bind_smtp_push(lua_State *L);
/* The functions tern.kv and tern.limit. */
void bind_kv_push(lua_State *L);
int tern_limit(lua_State *L);
void bind_map_push(lua_State *L);
void secret_open(lua_State *L);
/* Adds what is not in its table to the log: print. */
int log_print(lua_State *L);

/* Milliseconds since 1970 of the running hook's clock; raises outside of hooks. */
int64_t clock_wall(lua_State *L, const char *what);
uint64_t random_next(lua_State *L);

#endif
