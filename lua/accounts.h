/* accounts.h - the credentials that routes of a VM name: who we are to which hosts.
 *
 * Layer: lua, internal. One table per VM. What the configuration made while it was loaded stays as
 * long as the VM. What hooks make at run time (auth = {...} in a route made there) is kept too, but
 * no more than ACCOUNTS_AT_RUN_TIME of them: the one that was used longest ago goes first, and mail
 * that names it is routed anew.
 */
#ifndef TERN_LUA_ACCOUNTS_H
#define TERN_LUA_ACCOUNTS_H

#include "lua/vm.h"
#include "mail/credentials.h"

enum { ACCOUNTS_AT_RUN_TIME = 4096 };

/* Takes the table `auth` in normal form at `index` ({ user, password, mechanisms, allow_clear }) and returns
 * the name for it, which lives as long as the VM keeps it. Raises when memory is short, or when a
 * secret holds what no password can be. */
struct str accounts_take(lua_State *L, int index);
struct credentials *accounts_find(struct vm *vm, struct str name); /* NULL: not known. Borrowed */
void accounts_free(struct vm *vm);

#endif
