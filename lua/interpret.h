/* interpret.h - a configuration table becomes settings.
 *
 * Layer: lua, internal. Apart from loading, so that `tern test` can bring tables of its own.
 */
#ifndef TERN_LUA_INTERPRET_H
#define TERN_LUA_INTERPRET_H

#include "engine/settings.h"
#include "lua/vm.h"

/* Takes the configuration on top of the VM's main stack and leaves it there in normal form (see
 * tern.validate). chunk: the file it came from, as errors show it, or NULL; where: put in front
 * of messages when there is no file, or NULL. 0, or -errno with *err and nothing on the stack. */
int interpret_check(struct vm *vm, const char *chunk, const char *where, struct policy_error *err);
/* Makes settings from the table in normal form on top, which stays. listens: without `listen`,
 * port 25 of all addresses. */
int interpret_settings(struct vm *vm, bool listens, struct settings **ret,
                       struct policy_error *err);

#endif
