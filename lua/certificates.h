/* certificates.h - certificates of ours that routes show to hosts.
 *
 * Layer: lua, internal. One list per VM: what routes named while the configuration was loaded. The files are read by the
 * daemon, at the load and at each reload; so a route that a hook makes may name only one that is in the list. At most
 * CERTIFICATES_MAX.
 */
#ifndef TERN_LUA_CERTIFICATES_H
#define TERN_LUA_CERTIFICATES_H

#include "engine/settings.h"
#include "lua/vm.h"
#include "mail/route.h"

enum { CERTIFICATES_MAX = 256 };

/* The options `certificate` and `key` of the table in normal form at index 2 into r, whose other options are there. function:
 * "route.mx". Raises when they do not fit together, at the place in the operator's files where the route is made. */
void certificates_take(lua_State *L, const char *function, struct route *r);
/* When its targets are there: each of them is spoken to by TLS. Raises likewise. */
void certificates_demand_tls(lua_State *L, const char *function, struct route *r);
/* Strings are the arena's of s. -ENOMEM. */
int certificates_copy(const struct vm *vm, struct settings *s) MUST_USE;
void certificates_free(struct vm *vm);

#endif
