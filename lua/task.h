/* task.h - one call of a hook: a coroutine with identity, deadline, and the one operation it waits
 * for.
 *
 * Layer: lua, internal. Tasks are pooled by their VM and freed with it only, so what Lua holds on
 * to (views) may point to one: it proves by the generation, which changes with every call.
 *
 * Life: task_new -> task_start -> done, or waiting -> task_ready (by a completion, on a turn of
 * the loop) -> resumed at the end of that turn -> ... -> done; or task_cancel at any time while it
 * waits.
 */
#ifndef TERN_LUA_TASK_H
#define TERN_LUA_TASK_H

#include "engine/hook.h"
#include "lua/chain.h"
#include "lua/vm.h"

struct policies;

enum task_state { TASK_IDLE, TASK_RUNNING, TASK_WAITING, TASK_READY, TASK_CLOSING };

/* What a task waits for. Bindings fill it in; all of it is void once the task runs again. */
struct task_wait {
    char label[96];                    /* "tern.dns.mx example.com" */
    void (*cancel)(struct task *task); /* stops the operation; NULL: nothing to stop */
    /* Pushes the results onto L and returns their number; may raise. NULL: none. */
    int (*finish)(lua_State *L, struct task *task);
    struct timer timer;
    struct dns_query *query[2];
    struct dns_answer *answer[2]; /* one reference each */
    unsigned pending;
    /* Of other operations: what is under way or has come of it; let go with free_operation. */
    void *operation;
    void (*free_operation)(void *operation);
};

struct task {
    struct list link; /* vm->idle, or policies->tasks */
    struct vm *vm;
    struct policies *policies;
    lua_State *co;
    int slot; /* in SLOT_TASKS, which keeps co */
    uint64_t generation;
    size_t memory;      /* of the VM, when it last began to run */
    uint64_t body_read; /* octets of the message that it has read since then */
    enum task_state state;

    enum hook hook;
    struct hook_input in;
    struct hook_result result;
    struct chain chain;
    bool detached; /* nobody is told: `event` */
    hook_done *done;
    void *owner;

    struct timer deadline;
    struct later resume;
    struct task_wait wait;
};

void task_free_idle(struct vm *vm);

/* NULL: out of memory. */
struct task *task_new(struct policies *p, enum hook h, const struct hook_input *in);
/* 1: it is done and task->result holds what it said. 0: it waits. */
int task_start(struct task *task);
/* Back to the pool; views of it are void from now on. */
struct task *task_release(struct task *task);
/* Stops and releases one that waits; nobody is told. */
void task_cancel(struct task *task);

/* L is a coroutine that a script made. */
bool task_is_foreign(lua_State *L);

/* For functions that wait. Raises unless waiting is possible here; `what` names the function. */
struct task *task_may_wait(lua_State *L, const char *what);
/* Suspends: `return task_wait(...)`. wait.* but these is the caller's to fill in before. */
int task_wait(lua_State *L, struct task *task, void (*cancel)(struct task *),
              int (*finish)(lua_State *, struct task *), const char *fmt, ...) PRINTF_LIKE(5, 6);
/* Waiting is possible here. */
bool task_can_wait(lua_State *L);
/* Suspends until the next turn, so that what takes long keeps nobody else from going on; then `finish`, as
 * of task_wait. Only where task_can_wait. */
int task_breathe(lua_State *L, struct task *task, int (*finish)(lua_State *, struct task *),
                 const char *what);
/* The operation is complete: it will run on at the end of this turn. */
void task_ready(struct task *task);

#endif
