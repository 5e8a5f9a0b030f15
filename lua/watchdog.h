/* watchdog.h - processor time of what a thread runs in Lua.
 *
 * Layer: lua, internal. A timer of the thread's own processor time ticks every WATCHDOG_TICK_MS
 * while the thread computes (never while it sleeps). Its signal handler, in that very thread,
 * looks whether what runs now has had more ticks than allowed, and then arms a count hook on it
 * (lua_sethook may be called from a signal handler). So code that behaves pays nothing but four
 * stores. Where there is no such timer, a count hook is always on.
 *
 * The hook yields, which no pcall can swallow: whoever resumed finds the coroutine suspended and
 * watchdog_overdue() true. Where yielding is not possible (a callback of gsub, a configuration
 * being loaded) it raises, at each instruction, so that a loop of pcalls ends too. Mind that Lua
 * 5.4.4 leaves hooks switched off in a coroutine that died of an error raised by a hook: such a
 * one must never run again, its to-be-closed variables included.
 */
#ifndef TERN_LUA_WATCHDOG_H
#define TERN_LUA_WATCHDOG_H

#include <lua.h>

#include "base/err.h"

enum { WATCHDOG_TICK_MS = 10 };

/* What stood before watchdog_begin; watchdog_end puts it back. */
struct watch {
    lua_State *running;
    int started, limit, overdue;
};

/* L and all that it calls may run for ms of processor time from here on. Nests. */
void watchdog_begin(lua_State *L, unsigned ms, struct watch *outer);
/* True when it was overdue. */
bool watchdog_end(const struct watch *outer);

/* A coroutine of a script's own begins or ends inside of what is watched: returns what ran. */
lua_State *watchdog_switch(lua_State *to);
/* What happens until watchdog_resume is not counted: reading of large files. Not inside of a hook. */
struct watch_pause {
    lua_State *running;
    int ticks;
};
void watchdog_pause(struct watch_pause *ret);
void watchdog_resume(const struct watch_pause *pause);
/* What runs now is overdue: C code that loops asks this. */
bool watchdog_overdue(void);
/* Arms the hook on L when what runs is overdue, and takes it away when it is not. */
void watchdog_settle(lua_State *L);

#endif
