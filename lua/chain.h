/* chain.h - which policies are asked, in which order: the recipient's domain policy, `policies`,
 * the sender's, the default.
 *
 * Layer: lua, internal. The chain runs inside of a task's coroutine (chain_main), because looking
 * up and calling allocate in Lua. Its state is in C, so that it can go on after a hook that failed
 * (on_error = "ignore").
 */
#ifndef TERN_LUA_CHAIN_H
#define TERN_LUA_CHAIN_H

#include "engine/hook.h"
#include "lua/vm.h"

struct map_facts;
struct policies;

enum chain_stage {
    CHAIN_DOMAIN,   /* of the recipient, or of an ETRN request */
    CHAIN_DOMAINS,  /* `data`: those of the recipients so far; ETRN '#': all that have the hook */
    CHAIN_POLICIES, /* `policies` */
    CHAIN_SENDER,
    CHAIN_DEFAULT,
    CHAIN_END
};

struct chain {
    enum chain_stage stage; /* what comes next */
    unsigned stages;        /* bit s set: the hook has that stage */
    lua_Integer next;       /* within the stage */
    bool known_domain;      /* the recipient's domain stands in `domains` */
};

void chain_init(struct chain *c, enum hook h);
/* The body of a task's coroutine. */
int chain_main(lua_State *L);

/* Pushes what the table at `map` (`domains` or `senders`) has under the name, else under its most specific
 * ".suffix", else under "*"; or nil. */
void chain_find_in_table(lua_State *L, struct policies *p, int map, const struct map_facts *facts,
                         struct str name);

#endif
