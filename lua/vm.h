/* vm.h - one Lua state with its memory limit, its sandbox and what runs in it.
 *
 * Layer: lua, internal. A VM belongs to one thread at a time. All Lua states of a VM (coroutines)
 * find it by vm_of. Two kinds of code run in a VM: scripts, whose globals are `env`, and our own
 * modules of lua/tern that check what scripts write ("trusted"), whose globals they cannot reach.
 *
 * Raising (lua_error) is allowed in functions that Lua calls, and nowhere else: the rest of the
 * layer reaches Lua through vm_call or a task.
 */
#ifndef TERN_LUA_VM_H
#define TERN_LUA_VM_H

#include <lauxlib.h>
#include <lua.h>

#include "lua/policy.h"
#include "lua/source.h"

/* They return int so that a function of Lua's can end in `return vm_raise(...)`. */
#define NEVER_RETURNS __attribute__((noreturn))

struct accounts;
struct certificates;
struct call;
struct task;

/* Values that stand in the registry under these numbers (behind those of Lua itself). */
enum vm_slot {
    SLOT_ENV = LUA_RIDX_LAST + 2, /* globals of scripts (one number is luaL_ref's) */
    SLOT_TRUSTED,                 /* globals of our own modules */
    SLOT_NATIVE,                  /* what they get of C: native.c */
    SLOT_LOADED,                  /* require: name -> value, for scripts */
    SLOT_TRUSTED_LOADED,
    SLOT_VALIDATE,   /* the module tern.validate */
    SLOT_VIEWS,      /* metatables of views, by 1 + kind */
    SLOT_HOOK_NAMES, /* array of strings, at 1 + enum hook */
    SLOT_TASKS,      /* coroutines of tasks, by number */
    SLOT_TRACEBACK,  /* of an error inside of require, until it is told of */
    SLOT_MARKS,      /* weak: what is known of values (policies that were checked) */
    SLOT_JSON_NULL,
    SLOT_LAST
};

struct vm {
    lua_State *L; /* the main state */
    size_t memory, memory_max;
    bool starved; /* the system gave none, since a hook was called last: no fault of a script's */
    struct policy_source *source;
    struct port_journal *journal; /* for tern.log outside of hooks, or NULL */
    bool loading;                 /* require and secret may read what is not loaded yet */
    unsigned requiring;           /* modules being loaded: no waiting there */
    unsigned n_modules;
    unsigned cpu_ms;      /* of a task between two waits, */
    size_t task_memory;   /* and what it may take meanwhile */
    struct call *calling; /* vm_call in progress: vm.c */
    struct task *current; /* the one that runs now */
    unsigned foreign;     /* coroutines of scripts active inside of it */
    struct list idle;     /* tasks to use again */
    struct list maps;     /* map_view.link: maps.h */
    uint64_t maps_fingerprint;
    unsigned n_idle, n_tasks;
    uint64_t generation;               /* the last one given to a task */
    uint64_t random;                   /* of math.random outside of hooks */
    struct accounts *accounts;         /* credentials of routes: accounts.h; NULL: none yet */
    struct certificates *certificates; /* of routes: certificates.h; NULL: none yet */
};

struct vm *vm_new(struct policy_source *source, struct port_journal *journal,
                  struct policy_error *err); /* NULL: *err is filled in */
struct vm *vm_free(struct vm *vm);
void vm_set_memory(struct vm *vm, size_t max);

static inline struct vm *vm_of(lua_State *L)
{
    return *(struct vm **)lua_getextraspace(L);
}

/* Runs the function and its n arguments on top of the VM's main state, within the processor
 * budget of a load. 0 with n_results on the stack, or -errno with *err filled in from what was
 * raised. */
int vm_call(struct vm *vm, int n_args, int n_results, struct policy_error *err);
/* The same for our own C code that may raise only for want of memory: runs fn(L) with data as its
 * light userdata argument. */
int vm_run(struct vm *vm, lua_CFunction fn, void *data, struct policy_error *err);

/* Pushes function `name` of tern.validate. */
void vm_push_validate(lua_State *L, const char *name);
/* Pushes what luaL_traceback would; of a deep recursion the innermost calls only, for the search for its
 * outer end takes walks over all of it. */
void vm_traceback(lua_State *L, lua_State *of, int level);
/* Pushes "file.lua:7: ", the innermost line of a script that `of` is at; "" when there is none. */
void vm_push_place(lua_State *L, lua_State *of);
/* Pushes what the error value at index says, without NUL octets; where it says nothing, because it is empty or no
 * text, the place at which `of` is and words that say so. */
void vm_push_error_text(lua_State *L, lua_State *of, int index);
/* Raises with the place of who called the present C function in front. Never returns. */
int vm_raise(lua_State *L, const char *fmt, ...) PRINTF_LIKE(2, 3) NEVER_RETURNS;
/* The same with the message on top of the stack. */
int vm_raise_top(lua_State *L) NEVER_RETURNS;
/* Raises, in words for people, when the text of a file is bytecode. */
void vm_check_text(lua_State *L, struct str text, const char *chunk);
/* An allocation outside of Lua failed. */
int vm_raise_no_memory(lua_State *L) NEVER_RETURNS;

/* Fills in *err. file may be NULL, line 0. The message gets "file:line: " in front when prefix. */
void policy_error_set(struct policy_error *err, int exit_code, const char *file, int line,
                      bool prefix, struct str message);

static inline struct str lua_str(lua_State *L, int index)
{
    size_t n = 0;
    const char *p = lua_tolstring(L, index, &n);
    return str_make(p, n);
}
static inline void push_str(lua_State *L, struct str s)
{
    lua_pushlstring(L, s.p ? s.p : "", s.n);
}
/* The string, or nil when it is empty. */
static inline void push_str_or_nil(lua_State *L, struct str s)
{
    if (s.n)
        push_str(L, s);
    else
        lua_pushnil(L);
}

#endif
