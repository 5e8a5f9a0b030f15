/* policies.c - a configuration inside a VM as the engine's struct hooks. Interface: policies.h.
 *
 * Layer: lua.
 */
#include "lua/policies.h"

#include "lua/accounts.h"
#include "lua/bind_map.h"
#include "lua/direct.h"
#include "lua/sandbox.h"
#include "lua/task.h"
#include "lua/value.h"

enum { SCRIPT_MEMORY = 64 * 1024 * 1024 }; /* where limits.script_memory does not say */

/* ---- struct hooks --------------------------------------------------------------------------- */

static struct policies *policies_of(struct hooks *base)
{
    return CONTAINER_OF(base, struct policies, base);
}

/* Takes what a task that did not wait has to say. */
static int answer_now(struct task *task, struct hook_result *ret)
{
    struct hook_result result = task->result;

    if (timer_armed(&task->deadline)) { /* cannot be: it has not waited */
        struct port_clock *clock = task->policies->ports->clock;
        clock->timer_stop(clock, &task->deadline);
    }
    task_release(task);
    hook_result_done(ret);
    *ret = result;
    return 1;
}

static int run_event(struct policies *p, const struct hook_input *in)
{
    if (p->in_event) /* what an `event` hook does is no news to it */
        return 1;
    struct task *task = task_new(p, HOOK_EVENT, in);
    if (!task)
        return 1;
    task->detached = true;
    if (task_start(task)) {
        hook_result_done(&task->result);
        task_release(task);
    } else {
        task->in.event = NULL; /* it has its own copy */
    }
    return 1;
}

/* RCPT and ROUTE are always "present", because of the domains; there may be none. */
static bool nobody_to_ask(const struct policies *p, enum hook h)
{
    return p->domains.kind == MAP_NONE && p->senders.kind == MAP_NONE && !p->has_default_route &&
           !p->n_list[h];
}

static int hooks_run(struct hooks *self, enum hook h, const struct hook_input *in,
                     struct hook_result *ret, hook_done *done, void *owner,
                     struct hook_call **ret_call)
{
    struct policies *p = policies_of(self);

    if (!hooks_have(self, h) || nobody_to_ask(p, h)) {
        ret->verdict = VERDICT_NONE;
        ret->decided_by = STR("default");
        return 1;
    }
    if (h == HOOK_EVENT)
        return run_event(p, in);
    if (direct_answer(p, h, in, ret))
        return 1;
    p->vm->starved = false;
    struct task *task = task_new(p, h, in);
    if (!task) {
        p->vm->starved = true;
        fault_report(p, h, STR("configuration"), STR("out of memory"), STR_NONE, ret);
        ret->verdict = VERDICT_FAILED;
        return 1;
    }
    task->done = done;
    task->owner = owner;
    if (task_start(task))
        return answer_now(task, ret);
    *ret_call = (struct hook_call *)task;
    return 0;
}

static void hooks_cancel(struct hooks *self, struct hook_call *call)
{
    task_cancel((struct task *)call);
}

static struct credentials *hooks_find_credentials(struct hooks *self, struct str name)
{
    return accounts_find(policies_of(self)->vm, name);
}

struct closing {
    struct policies *p;
    uint64_t id;
    bool session;
};

static void forget(lua_State *L, int slot, uint64_t id)
{
    lua_rawgeti(L, 2, slot);
    if (lua_rawgeti(L, -1, (lua_Integer)id) != LUA_TNIL) { /* a key that is there: no allocation */
        lua_pushnil(L);
        lua_rawseti(L, -3, (lua_Integer)id);
    }
    lua_settop(L, 2);
}

static int forget_all(lua_State *L)
{
    struct closing *c = lua_touserdata(L, 1);

    policies_push(L, c->p);
    if (c->session) {
        forget(L, P_SESSION_DATA, c->id);
    } else {
        forget(L, P_MESSAGE_DATA, c->id);
        forget(L, P_MESSAGE_DOMAINS, c->id);
    }
    return 0;
}

static void close_id(struct hooks *self, uint64_t id, bool session)
{
    struct closing c = { .p = policies_of(self), .id = id, .session = session };
    struct policy_error err;

    vm_run(c.p->vm, forget_all, &c, &err);
}

static void hooks_session_closed(struct hooks *self, uint64_t session_id)
{
    close_id(self, session_id, true);
}

static void hooks_message_closed(struct hooks *self, uint64_t message_key)
{
    close_id(self, message_key, false);
}

static int drop_tables(lua_State *L)
{
    struct policies *p = lua_touserdata(L, 1);

    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &p->key);
    return 0;
}

static void hooks_free(struct hooks *self)
{
    struct policies *p = policies_of(self);
    struct policy_error err;

    LIST_FOREACH(link, &p->tasks)
    task_cancel(LIST_ENTRY(link, struct task, link));
    vm_run(p->vm, drop_tables, p, &err);
    if (p->owns_vm)
        vm_free(p->vm);
    settings_unref(p->settings);
    fault_free(p);
    free(p);
}

void policy_observe(struct hooks *hooks, struct policy_observer *observer)
{
    policies_of(hooks)->observer = observer;
}

/* ---- building ------------------------------------------------------------------------------- */

/* Which hooks the policy at `index` has. */
static uint32_t hooks_of(lua_State *L, int index)
{
    uint32_t set = 0;

    index = lua_absindex(L, index);
    if (value_to_route(L, index))
        return 1u << HOOK_ROUTE;
    for (int h = 0; h < HOOK_COUNT && lua_istable(L, index); h++) {
        lua_pushstring(L, hook_name((enum hook)h));
        if (lua_rawget(L, index) == LUA_TFUNCTION)
            set |= 1u << h;
        lua_pop(L, 1);
    }
    return set;
}

/* Appends function and policy to the list, when the policy has that hook. */
static void append_hook(lua_State *L, int list, int policy, enum hook h)
{
    lua_Integer n = (lua_Integer)lua_rawlen(L, list);

    lua_pushstring(L, hook_name(h));
    if (lua_rawget(L, policy) != LUA_TFUNCTION) {
        lua_pop(L, 1);
        return;
    }
    lua_rawseti(L, list, n + 1);
    lua_pushvalue(L, policy);
    lua_rawseti(L, list, n + 2);
}

/* Looks over the values of the table at `index`. */
static void survey(lua_State *L, int index, struct map_facts *facts)
{
    lua_newtable(L); /* policies seen */
    int seen = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, index)) {
        struct str key = lua_str(L, -2);
        facts->kind = MAP_TABLE; /* an empty one is none */
        facts->has_suffixes = facts->has_suffixes || str_starts(key, STR("."));
        facts->has_any = facts->has_any || str_eq(key, STR("*"));
        lua_pushvalue(L, -1);
        if (lua_rawget(L, seen) == LUA_TNIL) {
            facts->hooks |= hooks_of(L, -2);
            lua_pushvalue(L, -2);
            lua_pushboolean(L, 1);
            lua_rawset(L, seen);
        }
        lua_pop(L, 2);
    }
    lua_settop(L, seen - 1);
}

/* Which hooks the values of the table on top have; pops it. */
static uint32_t hooks_in(lua_State *L)
{
    uint32_t set = 0;

    lua_pushnil(L);
    while (lua_next(L, -2)) {
        set |= hooks_of(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return set;
}

/* A map from a file, on top, becomes the function that looks up in it. */
static void survey_map_file(lua_State *L, struct map_facts *facts)
{
    facts->kind = MAP_FILE;
    map_value_push_policies(L, -1, false);
    facts->hooks = hooks_in(L);
    map_value_push_policies(L, -1, true);
    facts->hooks |= hooks_in(L);
    if (map_value_makes_any(L, -1))
        facts->hooks = ~0u;
    map_value_push_lookup(L, -1);
    lua_remove(L, -2);
}

/* Field `name` of the configuration at index 2 becomes slot `slot` of the table at index 3. */
static void take_map(lua_State *L, const char *name, int slot, struct map_facts *facts)
{
    int type = lua_getfield(L, 2, name);

    if (type == LUA_TFUNCTION) {
        facts->kind = MAP_FUNCTION;
        facts->hooks = ~0u;
    } else if (type == LUA_TTABLE) {
        survey(L, lua_gettop(L), facts);
    } else if (map_value_is(L, -1)) {
        survey_map_file(L, facts);
    }
    lua_rawseti(L, 3, slot);
}

static void wants_identity(lua_State *L, int policy, struct policies *p)
{
    lua_pushliteral(L, "etrn_identity");
    lua_rawget(L, policy);
    p->etrn_wants_identity = p->etrn_wants_identity || lua_toboolean(L, -1);
    lua_pop(L, 1);
}

static void take_policies(lua_State *L, struct policies *p)
{
    lua_newtable(L);                                         /* 4: lists by 1 + hook */
    bool any = lua_getfield(L, 2, "policies") == LUA_TTABLE; /* 5 */
    lua_Integer n = any ? (lua_Integer)lua_rawlen(L, 5) : 0;

    for (int h = 0; h < HOOK_COUNT; h++) {
        lua_newtable(L); /* 6 */
        for (lua_Integer i = 1; i <= n; i++) {
            lua_rawgeti(L, 5, i); /* 7 */
            if (lua_istable(L, 7))
                append_hook(L, 6, 7, (enum hook)h);
            if (lua_istable(L, 7) && h == HOOK_ETRN)
                wants_identity(L, 7, p);
            lua_settop(L, 6);
        }
        p->n_list[h] = (unsigned)(lua_rawlen(L, 6) / 2);
        lua_rawseti(L, 4, h + 1);
    }
    lua_settop(L, 4);
    lua_rawseti(L, 3, P_LISTS);
}

/* As far as functions have made them of the first rows. 2: the configuration */
static void made_of_rows_want_identity(lua_State *L, struct policies *p)
{
    int top = lua_gettop(L);

    lua_getfield(L, 2, "domains");
    map_value_push_policies(L, -1, true);
    lua_pushnil(L);
    while (lua_next(L, top + 2)) {
        if (lua_istable(L, -1))
            wants_identity(L, lua_gettop(L), p);
        lua_pop(L, 1);
    }
    lua_settop(L, top);
}

/* All policies of `domains` that have `etrn`, each once, in the order of their domains (of their names,
 * where a file says which domain has which; not those that functions make of its rows). */
static void take_etrn(lua_State *L, struct policies *p)
{
    bool listed = p->domains.kind == MAP_TABLE || p->domains.kind == MAP_FILE;

    lua_newtable(L); /* 4 */
    if (listed && (p->domains.hooks & (1u << HOOK_ETRN))) {
        vm_push_validate(L, "distinct");
        lua_getfield(L, 2, "domains");
        if (p->domains.kind == MAP_FILE) {
            map_value_push_policies(L, -1, false);
            lua_remove(L, -2);
        }
        lua_pushstring(L, hook_name(HOOK_ETRN));
        lua_call(L, 2, 1); /* 5: policies */
        lua_Integer n = (lua_Integer)lua_rawlen(L, 5);
        for (lua_Integer i = 1; i <= n; i++) {
            lua_rawgeti(L, 5, i);
            append_hook(L, 4, 6, HOOK_ETRN);
            wants_identity(L, 6, p);
            lua_settop(L, 5);
        }
        lua_settop(L, 4);
    }
    if (p->domains.kind == MAP_FILE)
        made_of_rows_want_identity(L, p);
    lua_rawseti(L, 3, P_ETRN);
}

static void take_rest(lua_State *L, struct policies *p)
{
    struct str on_error;

    if (field_str(L, 2, "on_error", &on_error))
        p->on_error = str_eq(on_error, STR("ignore"))   ? ON_ERROR_IGNORE
                      : str_eq(on_error, STR("reject")) ? ON_ERROR_REJECT
                                                        : ON_ERROR_DEFER;
    lua_getfield(L, 2, "default_route");
    p->has_default_route = !lua_isnil(L, -1);
    lua_rawseti(L, 3, P_DEFAULT_ROUTE);
    for (int slot = P_SESSION_DATA; slot <= P_MESSAGE_DOMAINS; slot++) {
        lua_newtable(L);
        lua_rawseti(L, 3, slot);
    }
    lua_settop(L, 3);
}

/* The budgets of hooks; loading had wider ones. */
static void take_limits(lua_State *L, struct policies *p)
{
    int64_t memory = SCRIPT_MEMORY;

    if (lua_getfield(L, 2, "limits") == LUA_TTABLE) {
        p->vm->cpu_ms = (unsigned)field_int(L, -1, "hook_cpu", p->vm->cpu_ms);
        p->vm->task_memory = (size_t)field_int(L, -1, "hook_memory", (int64_t)p->vm->task_memory);
        memory = field_int(L, -1, "script_memory", memory);
    }
    lua_settop(L, 3);
    if (!p->owns_vm)
        return;
    lua_gc(L, LUA_GCCOLLECT);
    if (p->vm->memory > (size_t)memory - (size_t)memory / 4)
        luaL_error(L,
                   "the configuration alone takes %d MiB of memory: set limits.script_memory to "
                   "twice that",
                   (int)(p->vm->memory >> 20) + 1);
    vm_set_memory(p->vm, (size_t)memory);
}

static void make_hook_names(lua_State *L)
{
    lua_createtable(L, HOOK_COUNT, 0);
    for (int h = 0; h < HOOK_COUNT; h++) {
        lua_pushstring(L, hook_name((enum hook)h));
        lua_rawseti(L, -2, h + 1);
    }
    lua_rawseti(L, LUA_REGISTRYINDEX, SLOT_HOOK_NAMES);
}

/* 1: the policies, 2: the configuration in normal form. */
static int build(lua_State *L)
{
    struct policies *p = lua_touserdata(L, 1);

    make_hook_names(L);
    lua_createtable(L, 8, 0); /* 3 */
    take_map(L, "domains", P_DOMAINS, &p->domains);
    take_map(L, "senders", P_SENDERS, &p->senders);
    take_policies(L, p);
    take_etrn(L, p);
    take_rest(L, p);
    take_limits(L, p);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &p->key);
    return 0;
}

/* `connect` to `auth` and `event` are asked of `policies` only, `mail` not of domains. */
static uint32_t present(const struct policies *p)
{
    const uint32_t no_domain =
        1u << HOOK_CONNECT | 1u << HOOK_HELO | 1u << HOOK_AUTH | 1u << HOOK_EVENT;
    uint32_t set = 1u << HOOK_RCPT | 1u << HOOK_ROUTE;

    for (int h = 0; h < HOOK_COUNT; h++)
        if (p->n_list[h])
            set |= 1u << h;
    set |= p->domains.hooks & ~no_domain & ~(1u << HOOK_MAIL);
    set |= p->senders.hooks & ~no_domain & ~(1u << HOOK_ETRN);
    return set & ((1u << HOOK_COUNT) - 1);
}

int policies_new(struct vm *vm, bool owns_vm, struct settings *settings, struct ports *ports,
                 struct policies **ret, struct policy_error *err)
{
    struct policies *p = calloc(1, sizeof(*p));

    if (!p) {
        lua_pop(vm->L, 1);
        policy_error_set(err, POLICY_EX_SOFTWARE, NULL, 0, false, STR("out of memory"));
        return -ENOMEM;
    }
    list_init(&p->tasks);
    p->vm = vm;
    p->owns_vm = owns_vm;
    p->ports = ports;
    p->settings = settings_ref(settings);
    lua_pushcfunction(vm->L, build);
    lua_insert(vm->L, -2);
    lua_pushlightuserdata(vm->L, p);
    lua_insert(vm->L, -2);
    int r = vm_call(vm, 2, 0, err);
    if (r < 0) {
        settings_unref(settings);
        free(p);
        return r;
    }
    p->base =
        (struct hooks){ .present = present(p),
                        .run = hooks_run,
                        .cancel = hooks_cancel,
                        .credentials = hooks_find_credentials,
                        .session_closed = hooks_session_closed,
                        .message_closed = hooks_message_closed,
                        .offers_etrn = p->domains.hooks & (1u << HOOK_ETRN) || p->n_list[HOOK_ETRN],
                        .etrn_wants_identity = p->etrn_wants_identity,
                        .data_fingerprint = &vm->maps_fingerprint,
                        .free = hooks_free };
    *ret = p;
    return 0;
}
