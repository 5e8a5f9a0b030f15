/* value.h - what hooks return, as Lua values: routes and verdicts. Opaque, immutable.
 *
 * Layer: lua, internal. A value remembers where it was made, so that a decision can be told by its
 * line.
 */
#ifndef TERN_LUA_VALUE_H
#define TERN_LUA_VALUE_H

#include "engine/hook.h"
#include "lua/vm.h"

/* Where a constructor was called. source is compared, never read: it may be gone. */
struct made_at {
    const char *source;
    int line;
};

struct route_value {
    struct route *route; /* one reference; NULL while it is being made */
    struct made_at at;
};

struct verdict_value {
    enum verdict verdict;
    uint16_t code; /* 0: none given */
    struct smtp_enhanced enhanced;
    int64_t retry_ms, window_ms;
    struct route *route;    /* RELEASE: one reference, or NULL */
    bool subdomains, group; /* RELEASE */
    struct made_at at;
    /* user values: 1 the text of the reply, 2 names of queues, one a line, 3 and 4 accept's identity
     * and password */
};
enum { VERDICT_TEXT = 1, VERDICT_QUEUE, VERDICT_IDENTITY, VERDICT_PASSWORD, VERDICT_VALUES = 4 };

/* Each makes the metatable when it is not there yet. */
void value_open(lua_State *L);

struct route_value *value_push_route(lua_State *L); /* empty: fill in ->route */
struct verdict_value *value_push_verdict(lua_State *L, enum verdict v);
struct route_value *value_to_route(lua_State *L, int index);     /* NULL: something else */
struct verdict_value *value_to_verdict(lua_State *L, int index); /* NULL: something else */
/* Where the caller of the present C function stands. */
struct made_at value_made_at(lua_State *L);

/* Calls tern.validate.construct(name, argument 1) and leaves the table in normal form at index
 * 2, or raises at the caller's place. */
void value_check_arguments(lua_State *L, const char *name);

/* The same for a table of options of a function (schema.arguments): replaces the value at `index`, a table
 * or nothing, by its normal form, or raises at the caller's place. */
void value_check_options(lua_State *L, const char *name, int index);

/* Fields of the table at `index`, as tern.validate left them. */
bool field_str(lua_State *L, int index, const char *key,
               struct str *ret); /* lives with the table */
int64_t field_int(lua_State *L, int index, const char *key, int64_t otherwise);
bool field_is(lua_State *L, int index, const char *key, const char *value);

/* The targets in the array part of the table at `index` into r; a table among them is a group. -ENOMEM;
 * -E2BIG: more than ROUTE_MAX_TARGETS. */
int route_take_targets(lua_State *L, int index, bool mx_first, struct route *r);

#endif
