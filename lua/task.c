/* task.c - one call of a hook: running, waiting, ending. Interface: task.h. Layer: lua. */
#include "lua/task.h"

#include <stdio.h>

#include "base/units.h"
#include "lua/policies.h"
#include "lua/sandbox.h"
#include "lua/watchdog.h"

enum { KEEP_COROUTINES = 64 }; /* of idle tasks; others give theirs back */

/* ---- the pool ------------------------------------------------------------------------------- */

static void deadline_passed(struct timer *t);
static void run_on(struct later *l);

static int make_coroutine(lua_State *L)
{
    struct task *task = lua_touserdata(L, 1);

    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_TASKS);
    lua_State *co = lua_newthread(L);
    lua_pushboolean(L, 0);
    lua_rawseti(L, -3, -task->slot); /* room for the policy that is asked: chain.c */
    lua_rawseti(L, -2, task->slot);
    task->co = co;
    return 0;
}

static struct task *task_make(struct vm *vm)
{
    struct task *task = calloc(1, sizeof(*task));

    if (!task)
        return NULL;
    list_init(&task->link);
    task->vm = vm;
    task->slot = (int)++vm->n_tasks;
    list_push(&vm->idle, &task->link);
    vm->n_idle++;
    return task;
}

struct task *task_new(struct policies *p, enum hook h, const struct hook_input *in)
{
    struct vm *vm = p->vm;
    struct policy_error err;

    if (list_empty(&vm->idle) && !task_make(vm))
        return NULL;
    /* The one used last: its coroutine is there, and warm. */
    struct task *task = LIST_ENTRY(vm->idle.prev, struct task, link);
    if (!task->co && vm_run(vm, make_coroutine, task, &err) < 0)
        return NULL;
    list_remove(&task->link);
    vm->n_idle--;
    list_push(&p->tasks, &task->link);
    task->policies = p;
    task->generation = ++vm->generation;
    task->state = TASK_RUNNING;
    task->hook = h;
    task->in = *in;
    task->detached = false;
    task->done = NULL;
    hook_result_init(&task->result);
    chain_init(&task->chain, h);
    timer_init(&task->deadline, deadline_passed);
    later_init(&task->resume, run_on);
    task->wait = (struct task_wait){ .cancel = NULL };
    return task;
}

/* One that died of an error is not used again: see watchdog.h. */
static void new_coroutine(struct task *task)
{
    struct policy_error err;

    task->co = NULL;
    vm_run(task->vm, make_coroutine, task, &err);
}

static int drop_coroutine(lua_State *L)
{
    struct task *task = lua_touserdata(L, 1);

    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_TASKS);
    lua_pushboolean(L, 0);
    lua_rawseti(L, -2, task->slot);
    task->co = NULL;
    return 0;
}

struct task *task_release(struct task *task)
{
    struct vm *vm = task->vm;
    struct policy_error err;

    task->generation = ++vm->generation;
    task->state = TASK_IDLE;
    task->policies = NULL;
    list_remove(&task->link);
    if (vm->n_idle >= KEEP_COROUTINES) {
        vm_run(vm, drop_coroutine, task, &err);
        list_unshift(&vm->idle, &task->link);
    } else {
        list_push(&vm->idle, &task->link);
    }
    vm->n_idle++;
    return NULL;
}

void task_free_idle(struct vm *vm)
{
    LIST_FOREACH(link, &vm->idle)
    free(LIST_ENTRY(link, struct task, link));
    list_init(&vm->idle);
}

/* ---- running -------------------------------------------------------------------------------- */

/* Lets go of what it waited for. The operation must be over, or cancelled. */
static void wait_clear(struct task *task)
{
    struct port_clock *clock = task->policies->ports->clock;

    clock->timer_stop(clock, &task->wait.timer);
    for (size_t i = 0; i < ARRAY_LEN(task->wait.answer); i++)
        dns_answer_unref(task->wait.answer[i]);
    if (task->wait.operation)
        task->wait.free_operation(task->wait.operation);
    task->wait = (struct task_wait){ .cancel = NULL };
}

/* What a task takes beyond its share is refused like what all of them may not have: Lua collects its
 * garbage first. Returns the limit of all, to be put back. */
static size_t limit_memory(struct vm *vm)
{
    size_t all = vm->memory_max;

    vm_set_memory(vm, MIN(all, vm->memory + vm->task_memory));
    return all;
}

/* What a greedy task leaves is collected at once: the share of the next one begins where this one
 * ended. */
static void collect_leavings(const struct task *task)
{
    struct vm *vm = task->vm;

    if (vm->memory > task->memory + vm->task_memory / 2)
        lua_gc(vm->L, LUA_GCCOLLECT);
}

/* Unwinds what is left of a coroutine that failed or is given up; its to-be-closed variables run,
 * watched. */
static void close_coroutine(struct task *task)
{
    struct task *outer = task->vm->current;
    struct watch watch;

    task->state = TASK_CLOSING;
    task->vm->current = task;
    size_t memory = limit_memory(task->vm);
    watchdog_begin(task->co, task->vm->cpu_ms, &watch);
    lua_resetthread(task->co);
    watchdog_end(&watch);
    vm_set_memory(task->vm, memory);
    task->vm->current = outer;
    lua_sethook(task->co, NULL, 0, 0);
    lua_settop(task->co, 0);
}

/* What is needed to tell of it; made in Lua, where it may fail. */
struct complaint {
    struct task *task;
    const char *words; /* instead of the error on top of the coroutine */
    char message[1024], traceback[4096];
    char policy[65];
};

static int describe(lua_State *L)
{
    struct complaint *c = lua_touserdata(L, 1);
    lua_State *co = c->task->co;

    if (c->words) {
        vm_push_place(L, co);
        lua_pushstring(L, c->words);
        lua_concat(L, 2);
        str_copy(lua_str(L, -1), c->message, sizeof(c->message));
    } else if (lua_gettop(co) > 0) {
        lua_xmove(co, L, 1);
        vm_push_error_text(L, co, -1);
        str_copy(lua_str(L, -1), c->message, sizeof(c->message));
    }
    vm_traceback(L, co, 0);
    str_copy(lua_str(L, -1), c->traceback, sizeof(c->traceback));
    vm_push_validate(L, "policy_name");
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_TASKS);
    lua_rawgeti(L, -1, -c->task->slot);
    lua_remove(L, -2);
    lua_call(L, 1, 1);
    str_copy(lua_str(L, -1), c->policy, sizeof(c->policy));
    return 0;
}

/* What a hook that failed has done to the message is not half done. */
static void undo_changes(struct task *task)
{
    if (task->hook == HOOK_DATA && task->in.message && task->in.message->headers)
        headers_undo(task->in.message->headers);
}

/* It failed outside of what the chain protects: it was overdue, or memory ran out. True: the chain
 * goes on without that hook. */
static bool task_failed(struct task *task, const char *words)
{
    struct policies *p = task->policies;
    struct complaint c = { .task = task, .words = words };
    struct policy_error err;
    bool event = task->hook == HOOK_EVENT;

    if (vm_run(task->vm, describe, &c, &err) < 0 && !*c.message)
        str_copy(str_of(words ? words : "not enough memory"), c.message, sizeof(c.message));
    if (words)
        close_coroutine(task);
    else
        new_coroutine(task);
    collect_leavings(task);
    undo_changes(task);
    hook_result_done(&task->result);
    hook_result_init(&task->result);
    p->in_event += event;
    bool go_on = fault_report(p, task->hook, str_of(c.policy), str_of(c.message),
                              str_of(c.traceback), &task->result);
    task->result.known_domain = task->chain.known_domain;
    p->in_event -= event;
    return go_on;
}

static int status_of(struct task *task)
{
    struct vm *vm = task->vm;
    struct task *outer = vm->current;
    lua_State *from = outer ? outer->co : vm->L;
    struct watch watch;
    int n_results = 0;

    task->state = TASK_RUNNING;
    vm->current = task;
    task->policies->in_event += task->hook == HOOK_EVENT;
    size_t memory = limit_memory(vm);
    task->memory = vm->memory;
    task->body_read = 0;
    watchdog_begin(task->co, vm->cpu_ms, &watch);
    int status = lua_resume(task->co, from, 0, &n_results);
    watchdog_end(&watch);
    vm_set_memory(vm, memory);
    if (status != LUA_YIELD)
        collect_leavings(task);
    task->policies->in_event -= task->hook == HOOK_EVENT;
    vm->current = outer;
    if (status == LUA_YIELD)
        lua_pop(task->co, n_results);
    return status;
}

static void arm_deadline(struct task *task)
{
    struct port_clock *clock = task->policies->ports->clock;

    if (!timer_armed(&task->deadline))
        clock->timer_set(clock, &task->deadline,
                         clock->now(clock) + task->policies->settings->timeouts.hook_ms);
}

/* 1: done; 0: it waits. */
static int task_run(struct task *task)
{
    char words[96];

    for (;;) {
        int status = status_of(task);
        if (status == LUA_OK) {
            lua_settop(task->co, 0);
            return 1;
        }
        if (status == LUA_YIELD && task->state == TASK_WAITING) {
            arm_deadline(task);
            return 0;
        }
        snprintf(words, sizeof(words), "processor time: ran for more than %u ms without waiting",
                 task->vm->cpu_ms);
        if (!task_failed(task, status == LUA_YIELD ? words : NULL) || !task->co)
            return 1;
        lua_pushcfunction(task->co, chain_main);
    }
}

int task_start(struct task *task)
{
    lua_pushcfunction(task->co, chain_main);
    return task_run(task);
}

/* ---- waiting -------------------------------------------------------------------------------- */

bool task_is_foreign(lua_State *L)
{
    struct vm *vm = vm_of(L);

    return L != vm->L && !(vm->current && vm->current->co == L);
}

/* Functions that wait call this first, so it also lets go of what was waited for before. */
struct task *task_may_wait(lua_State *L, const char *what)
{
    struct vm *vm = vm_of(L);
    struct task *task = vm->current;

    if (!task || vm->requiring)
        vm_raise(L, "%s can only be called inside of a hook", what);
    else if (L != task->co)
        vm_raise(L, "%s cannot wait inside of a coroutine of your own", what);
    else if (task->state == TASK_CLOSING)
        vm_raise(L, "%s cannot wait: the hook is being ended", what);
    else if (!lua_isyieldable(L))
        vm_raise(L,
                 "%s cannot wait here: it was called from a function of Lua's own library "
                 "(string.gsub, table.sort, require, load)",
                 what);
    else
        wait_clear(task); /* the one before */
    return task;
}

static int wait_over(lua_State *L, int status, lua_KContext ctx)
{
    struct task *task = (struct task *)ctx;

    return task->wait.finish ? task->wait.finish(L, task) : 0;
}

int task_wait(lua_State *L, struct task *task, void (*cancel)(struct task *),
              int (*finish)(lua_State *, struct task *), const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(task->wait.label, sizeof(task->wait.label), fmt, ap);
    va_end(ap);
    task->wait.cancel = cancel;
    task->wait.finish = finish;
    task->state = TASK_WAITING;
    return lua_yieldk(L, 0, (lua_KContext)task, wait_over);
}

bool task_can_wait(lua_State *L)
{
    struct vm *vm = vm_of(L);
    struct task *task = vm->current;

    return task && !vm->requiring && L == task->co && task->state != TASK_CLOSING &&
           lua_isyieldable(L);
}

static void breathed(struct timer *t)
{
    task_ready(CONTAINER_OF(t, struct task, wait.timer));
}

static void stop_breathing(struct task *task)
{
    struct port_clock *clock = task->policies->ports->clock;

    clock->timer_stop(clock, &task->wait.timer);
}

int task_breathe(lua_State *L, struct task *task, int (*finish)(lua_State *, struct task *),
                 const char *what)
{
    struct port_clock *clock = task->policies->ports->clock;

    wait_clear(task);
    timer_init(&task->wait.timer, breathed);
    clock->timer_set(clock, &task->wait.timer, clock->now(clock));
    return task_wait(L, task, stop_breathing, finish, "%s", what);
}

void task_ready(struct task *task)
{
    struct port_clock *clock = task->policies->ports->clock;

    CHECK(task->state == TASK_WAITING);
    task->state = TASK_READY;
    clock->later(clock, &task->resume);
}

static void stop_waiting(struct task *task)
{
    if (task->state == TASK_WAITING && task->wait.cancel)
        task->wait.cancel(task);
    list_remove(&task->resume.link);
    wait_clear(task);
}

/* It is done, on a turn of the loop. The owner may free the policies from within done. */
static void task_finish(struct task *task)
{
    struct port_clock *clock = task->policies->ports->clock;
    struct hook_result result = task->result;
    hook_done *done = task->detached ? NULL : task->done;
    void *owner = task->owner;

    clock->timer_stop(clock, &task->deadline);
    wait_clear(task);
    task_release(task);
    if (done)
        done(owner, &result);
    hook_result_done(&result);
}

static void run_on(struct later *l)
{
    struct task *task = CONTAINER_OF(l, struct task, resume);

    if (task_run(task))
        task_finish(task);
}

static void deadline_passed(struct timer *t)
{
    struct task *task = CONTAINER_OF(t, struct task, deadline);
    char words[192], text[32];

    snprintf(words, sizeof(words), "took longer than %s; it was waiting in %s",
             duration_text(task->policies->settings->timeouts.hook_ms, text), task->wait.label);
    stop_waiting(task);
    if (!task_failed(task, words) || task_start(task))
        task_finish(task);
}

void task_cancel(struct task *task)
{
    struct port_clock *clock = task->policies->ports->clock;

    stop_waiting(task);
    clock->timer_stop(clock, &task->deadline);
    close_coroutine(task);
    hook_result_done(&task->result);
    task_release(task);
}
