/* direct.h - answers in which no script has a say.
 *
 * Layer: lua, internal. A recipient whose domain stands in `domains` with a route, no policy that listens
 * to the hook: then the chain (chain.h) would start a coroutine and make a ctx, only to look two or three
 * things up. Most mail of most operators is of that kind. Such an answer is found here,
 * and is the chain's, to the letter: test_direct.c compares them.
 */
#ifndef TERN_LUA_DIRECT_H
#define TERN_LUA_DIRECT_H

#include "engine/hook.h"

struct policies;

/* True: *ret (inited) is what the chain would answer. False: the chain has to run; *ret is untouched. */
bool direct_answer(struct policies *p, enum hook h, const struct hook_input *in,
                   struct hook_result *ret);

#endif
