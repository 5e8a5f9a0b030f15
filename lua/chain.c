/* chain.c - which policies are asked, in which order. Interface: chain.h.
 *
 * Layer: lua. What operators wrote is called protected, so that its error is dealt with here and
 * its coroutine lives on. The stack of the coroutine: 1 ctx, 2 the policies' table, 3 the handler
 * of errors, 4 the recipient's domain policy (or nil), then what is at hand: 5 policy, 6 its
 * function, 7 what that returned.
 */
#include "lua/chain.h"

#include <stdio.h>

#include "lua/policies.h"
#include "lua/result.h"
#include "lua/task.h"
#include "lua/value.h"
#include "lua/view.h"

enum { AT_CTX = 1, AT_POLICIES, AT_HANDLER, AT_DOMAIN_POLICY, AT_POLICY, AT_FUNCTION, AT_RESULT };

/* What the value on top of the stack is; also the context of continuations. */
enum step { STEP_NEXT, STEP_DOMAIN_FOUND, STEP_SENDER_FOUND, STEP_ANSWERED, STEP_FAILED, STEP_END };

#define STAGE(s) (1u << CHAIN_##s)
static const unsigned stages_of[HOOK_COUNT] = {
    [HOOK_CONNECT] = STAGE(POLICIES),
    [HOOK_HELO] = STAGE(POLICIES),
    [HOOK_AUTH] = STAGE(POLICIES),
    [HOOK_MAIL] = STAGE(POLICIES) | STAGE(SENDER),
    [HOOK_RCPT] = STAGE(DOMAIN) | STAGE(POLICIES) | STAGE(SENDER),
    [HOOK_DATA] = STAGE(DOMAINS) | STAGE(POLICIES) | STAGE(SENDER),
    [HOOK_ROUTE] = STAGE(DOMAIN) | STAGE(POLICIES) | STAGE(SENDER) | STAGE(DEFAULT),
    [HOOK_RESULT] = STAGE(DOMAIN) | STAGE(POLICIES) | STAGE(SENDER),
    [HOOK_ETRN] = STAGE(DOMAIN) | STAGE(DOMAINS) | STAGE(POLICIES),
    [HOOK_EVENT] = STAGE(POLICIES),
};

void chain_init(struct chain *c, enum hook h)
{
    *c = (struct chain){ .stages = stages_of[h] };
}

/* ---- finding -------------------------------------------------------------------------------- */

/* For `tern explain`. */
static void note_key(struct policies *p, struct str key)
{
    if (p->observer)
        str_copy(key, p->observed_key, sizeof(p->observed_key));
}

void chain_find_in_table(lua_State *L, struct policies *p, int map, const struct map_facts *facts,
                         struct str name)
{
    note_key(p, name);
    push_str(L, name);
    if (lua_rawget(L, map) != LUA_TNIL || name.n == 0 || *name.p == '[')
        return; /* an address literal is no domain: only its own key fits */
    for (size_t i = 1; facts->has_suffixes && i < name.n; i++) {
        if (name.p[i] != '.')
            continue;
        lua_pop(L, 1);
        note_key(p, str_from(name, i));
        push_str(L, str_from(name, i));
        if (lua_rawget(L, map) != LUA_TNIL)
            return;
    }
    if (facts->has_any) {
        lua_pop(L, 1);
        note_key(p, STR("*"));
        lua_pushliteral(L, "*");
        lua_rawget(L, map);
    }
}

static int chain_k(lua_State *L, int status, lua_KContext ctx);

/* Calls the function on top with its one argument, protected. What it returned, or its error,
 * is on top afterwards. */
static enum step call(lua_State *L, enum step then)
{
    int status = lua_pcallk(L, 1, 1, AT_HANDLER, (lua_KContext)then, chain_k);

    return status == LUA_OK ? then : STEP_FAILED;
}

/* Pushes the value for `name` of the map in `slot`; calls the operator's function if it is one. */
static enum step find(lua_State *L, int slot, const struct map_facts *facts, struct str name,
                      enum step then)
{
    struct policies *p = vm_of(L)->current->policies;

    lua_rawgeti(L, AT_POLICIES, slot);
    if (facts->kind != MAP_TABLE) {
        note_key(p, name);
        push_str(L, name);
        return call(L, then);
    }
    chain_find_in_table(L, p, lua_gettop(L), facts, name);
    lua_remove(L, -2);
    return then;
}

/* Of the recipient, or of an ETRN request for a domain; empty: none. */
static struct str domain_in_question(const struct task *task)
{
    if (task->in.recipient)
        return task->in.recipient->address->domain;
    if (task->in.etrn && (task->in.etrn->option != '#' || task->in.etrn->member))
        return task->in.etrn->domain;
    return STR_NONE;
}

/* The key of a sender in normal form: local part and domain in lower case. False: it has none. */
static bool sender_key(const struct address *a, char *dst, size_t size, struct str *ret)
{
    size_t n = a->local.n + 1 + a->domain.n;

    if (n > size)
        return false;
    for (size_t i = 0; i < a->local.n; i++)
        dst[i] = ascii_lower(a->local.p[i]);
    dst[a->local.n] = '@';
    memcpy(dst + a->local.n + 1, a->domain.p, a->domain.n);
    *ret = str_make(dst, n);
    return true;
}

/* The full address, then its domain; "<>" for the null sender. */
static enum step find_sender(lua_State *L, struct policies *p, const struct address *sender)
{
    char text[512];
    struct str key = STR_NONE;
    bool null = !sender || str_empty(sender->text);

    if (!null && sender->domain.n && !sender_key(sender, text, sizeof(text), &key))
        key = STR_NONE;
    if (!null && !key.n && p->senders.kind != MAP_TABLE) { /* too long, or without a domain */
        lua_pushnil(L);
        return STEP_SENDER_FOUND;
    }
    if (p->senders.kind != MAP_TABLE)
        return find(L, P_SENDERS, &p->senders, key, STEP_SENDER_FOUND);
    lua_rawgeti(L, AT_POLICIES, P_SENDERS);
    note_key(p, null ? STR("<>") : key);
    push_str(L, null ? STR("<>") : key);
    if (lua_rawget(L, -2) == LUA_TNIL && !null) {
        lua_pop(L, 1);
        chain_find_in_table(L, p, lua_gettop(L), &p->senders, sender->domain);
    }
    lua_remove(L, -2);
    return STEP_SENDER_FOUND;
}

/* What a function of the configuration returned is checked like what stands in it, once for each
 * table. False: it is wrong, and the message is on top. */
static bool check_found(lua_State *L, const char *map)
{
    if (lua_isnil(L, AT_POLICY) || value_to_route(L, AT_POLICY))
        return true;
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_MARKS);
    lua_pushvalue(L, AT_POLICY);
    if (lua_rawget(L, -2) == LUA_TNIL) {
        vm_push_validate(L, "policy");
        lua_pushvalue(L, AT_POLICY);
        lua_call(L, 1, 2);
        if (lua_isnil(L, -2)) {
            lua_pushfstring(L, "what the function '%s' returned: %s", map, lua_tostring(L, -1));
            return false;
        }
        lua_pop(L, 2);
        lua_pushvalue(L, AT_POLICY);
        lua_pushboolean(L, 1);
        lua_rawset(L, -4);
    }
    lua_settop(L, AT_POLICY);
    return true;
}

/* ---- observing ------------------------------------------------------------------------------ */

/* A stage goes on to the next before it asks, but for those that ask several policies. */
static struct str part_of(const struct task *task)
{
    switch (task->chain.stage) {
    case CHAIN_POLICIES: return STR("policies");
    case CHAIN_DEFAULT: return STR("senders");
    case CHAIN_END: return STR("default_route");
    default: return STR("domains");
    }
}

/* step: all but hook, part, key and policy. */
static void observe_step(lua_State *L, struct task *task, struct policy_step *step)
{
    struct policy_observer *o = task->policies->observer;
    bool map;

    step->hook = task->hook;
    step->part = part_of(task);
    map = str_eq(step->part, STR("domains")) || str_eq(step->part, STR("senders"));
    step->key = map ? str_of(task->policies->observed_key) : STR_NONE;
    vm_push_validate(L, "policy_name");
    lua_pushvalue(L, AT_POLICY);
    lua_call(L, 1, 1);
    step->policy = lua_str(L, -1);
    o->step(o, step);
    lua_pop(L, 1);
}

static bool observed(const struct task *task)
{
    return task->policies->observer && task->policies->observer->step;
}

/* The policy at hand has no such hook. */
static void observe_absent(lua_State *L, struct task *task)
{
    if (observed(task))
        observe_step(L, task, &(struct policy_step){ .asked = false });
}

/* It is a route, which stands for a `route` hook that returns it. */
static void observe_route(lua_State *L, struct task *task, const struct route *route)
{
    struct buf text;

    if (!observed(task))
        return;
    buf_init(&text, 0);
    route_describe(route, &text);
    push_str(L, buf_str(&text));
    buf_done(&text);
    observe_step(L, task, &(struct policy_step){ .outcome = lua_str(L, -1), .asked = true });
    lua_pop(L, 1);
}

/* What the hook returned. When that decides, the place is the one that it was made in. */
static void observe_answer(lua_State *L, struct task *task, bool decides)
{
    char place[128];

    if (!observed(task))
        return;
    result_place(L, AT_FUNCTION, NULL, 0, place, sizeof(place));
    if (lua_isnil(L, AT_RESULT))
        lua_pushliteral(L, "no opinion");
    else
        luaL_tolstring(L, AT_RESULT, NULL);
    struct policy_step step = { .place = decides ? task->result.decided_by : str_of(place),
                                .outcome = lua_str(L, -1),
                                .asked = true };
    observe_step(L, task, &step);
    lua_pop(L, 1);
}

/* ---- asking --------------------------------------------------------------------------------- */

static struct headers *headers_of(const struct task *task)
{
    return task->hook == HOOK_DATA && task->in.message ? task->in.message->headers : NULL;
}

/* What a hook has changed stays when it has answered, and goes when it fails. */
static void changes_stay(struct task *task)
{
    if (headers_of(task))
        headers_begin(headers_of(task));
}

/* Calls the hook function on top, of the policy below it. */
static enum step call_hook(lua_State *L, struct task *task)
{
    changes_stay(task);
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_TASKS); /* who is asked, should it fail */
    lua_pushvalue(L, AT_POLICY);
    lua_rawseti(L, -2, -task->slot);
    lua_pop(L, 1);
    lua_pushvalue(L, AT_FUNCTION);
    lua_pushvalue(L, AT_CTX);
    return call(L, STEP_ANSWERED);
}

/* Asks the policy on top of the stack at AT_POLICY: a table of hooks, or a route. */
static enum step ask(lua_State *L, struct task *task)
{
    struct route_value *route = value_to_route(L, AT_POLICY);

    if (route && task->hook == HOOK_ROUTE) {
        observe_route(L, task, route->route);
        result_take_route(L, route->route, task->chain.known_domain ? "domains" : "senders", task);
        return STEP_END;
    }
    if (!lua_istable(L, AT_POLICY))
        return STEP_NEXT;
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_HOOK_NAMES);
    lua_rawgeti(L, -1, (lua_Integer)task->hook + 1);
    lua_remove(L, -2);
    if (lua_rawget(L, AT_POLICY) != LUA_TFUNCTION) {
        observe_absent(L, task);
        return STEP_NEXT;
    }
    return call_hook(L, task);
}

static enum step domain_found(lua_State *L, struct task *task)
{
    struct policies *p = task->policies;

    if (p->domains.kind == MAP_FUNCTION && !check_found(L, "domains"))
        return STEP_FAILED;
    lua_copy(L, AT_POLICY, AT_DOMAIN_POLICY);
    task->chain.known_domain = !lua_isnil(L, AT_POLICY);
    return ask(L, task);
}

static enum step sender_found(lua_State *L, struct task *task)
{
    if (task->policies->senders.kind == MAP_FUNCTION && !check_found(L, "senders"))
        return STEP_FAILED;
    return ask(L, task);
}

static enum step answered(lua_State *L, struct task *task)
{
    enum result_kind kind = result_take(L, AT_RESULT, AT_FUNCTION, task);

    if (kind == RESULT_WRONG)
        return STEP_FAILED;
    changes_stay(task);
    observe_answer(L, task, kind == RESULT_TAKEN);
    return kind == RESULT_TAKEN ? STEP_END : STEP_NEXT;
}

/* ---- failing -------------------------------------------------------------------------------- */

/* Called where the error was raised: its traceback goes behind the message. */
static int on_error(lua_State *L)
{
    vm_push_error_text(L, L, 1);
    vm_traceback(L, L, 1);
    lua_pushlightuserdata(L, vm_of(L)->current);
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX); /* until it is told of, a moment later */
    lua_pop(L, 1);
    return 1;
}

/* The message is on top; tells of it, and goes on or ends by on_error. */
static enum step failed(lua_State *L, struct task *task)
{
    int message = lua_gettop(L);

    if (lua_type(L, message) != LUA_TSTRING) { /* an error in the handling of the error */
        lua_pushliteral(L, "an error without a message");
        lua_replace(L, message);
    }
    lua_pushlightuserdata(L, task);
    lua_rawget(L, LUA_REGISTRYINDEX);
    struct str traceback = lua_type(L, -1) == LUA_TSTRING ? lua_str(L, -1) : STR_NONE;
    vm_push_validate(L, "policy_name");
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_TASKS);
    lua_rawgeti(L, -1, -task->slot);
    lua_remove(L, -2);
    lua_call(L, 1, 1);
    hook_result_done(&task->result);
    hook_result_init(&task->result);
    if (headers_of(task))
        headers_undo(headers_of(task));
    bool go_on = fault_report(task->policies, task->hook, lua_str(L, -1), lua_str(L, message),
                              traceback, &task->result);
    lua_pushlightuserdata(L, task);
    lua_pushnil(L);
    lua_rawset(L, LUA_REGISTRYINDEX);
    return go_on ? STEP_NEXT : STEP_END;
}

/* ---- stages --------------------------------------------------------------------------------- */

static enum step stage_domain(lua_State *L, struct task *task)
{
    struct str domain = domain_in_question(task);
    struct policies *p = task->policies;

    task->chain.stage = CHAIN_DOMAINS;
    if (!domain.n || p->domains.kind == MAP_NONE)
        return STEP_NEXT;
    return find(L, P_DOMAINS, &p->domains, domain, STEP_DOMAIN_FOUND);
}

/* `data`: the policies of the domains that were accepted in this message. */
static enum step next_of_message(lua_State *L, struct task *task)
{
    uint64_t key = task->in.message->key;

    if (key && lua_rawgeti(L, AT_POLICIES, P_MESSAGE_DOMAINS) == LUA_TTABLE &&
        lua_rawgeti(L, -1, (lua_Integer)key) == LUA_TTABLE &&
        lua_rawgeti(L, -1, ++task->chain.next) == LUA_TTABLE) {
        lua_replace(L, AT_POLICY);
        lua_settop(L, AT_POLICY);
        return ask(L, task);
    }
    task->chain.stage = CHAIN_POLICIES;
    return STEP_NEXT;
}

/* A list of functions and policies in turns: the next pair. */
static enum step next_of_list(lua_State *L, struct task *task)
{
    lua_Integer next = task->chain.next++;

    lua_rawgeti(L, -1, 2 * next + 2);
    lua_rawgeti(L, -2, 2 * next + 1);
    lua_remove(L, -3);
    return lua_isnil(L, -1) ? STEP_NEXT : call_hook(L, task);
}

static enum step stage_domains(lua_State *L, struct task *task)
{
    if (task->hook == HOOK_DATA)
        return next_of_message(L, task);
    if (task->in.etrn && task->in.etrn->option == '#' && !task->in.etrn->member) {
        lua_rawgeti(L, AT_POLICIES, P_ETRN);
        enum step step = next_of_list(L, task);
        if (step != STEP_NEXT)
            return step;
    }
    task->chain.stage = CHAIN_POLICIES;
    return STEP_NEXT;
}

static enum step stage_policies(lua_State *L, struct task *task)
{
    if (task->chain.next >= (lua_Integer)task->policies->n_list[task->hook]) {
        task->chain.stage = CHAIN_SENDER;
        return STEP_NEXT;
    }
    lua_rawgeti(L, AT_POLICIES, P_LISTS);
    lua_rawgeti(L, -1, (lua_Integer)task->hook + 1);
    lua_remove(L, -2);
    return next_of_list(L, task);
}

/* Mail to a domain that we route ourselves never goes by the sender's smart host (ROUTING S2). */
static enum step stage_sender(lua_State *L, struct task *task)
{
    struct policies *p = task->policies;
    bool routed =
        task->chain.known_domain && (task->hook == HOOK_ROUTE || task->hook == HOOK_RESULT);

    task->chain.stage = CHAIN_DEFAULT;
    if (routed || p->senders.kind == MAP_NONE || !task->in.message)
        return STEP_NEXT;
    return find_sender(L, p, task->in.message->sender);
}

/* A domain that we route ourselves and whose policy names no host goes by MX: the default route may
 * be a smart host (ROUTING S2). */
static enum step stage_default(lua_State *L, struct task *task)
{
    task->chain.stage = CHAIN_END;
    if (!task->policies->has_default_route || task->chain.known_domain)
        return STEP_END;
    lua_rawgeti(L, AT_POLICIES, P_DEFAULT_ROUTE); /* at AT_POLICY */
    struct route_value *route = value_to_route(L, AT_POLICY);
    if (!route)
        return ask(L, task);
    observe_route(L, task, route->route);
    result_take_route(L, route->route, "default_route", task);
    return STEP_END;
}

static enum step next_step(lua_State *L, struct task *task)
{
    struct chain *c = &task->chain;
    enum chain_stage before = c->stage;

    lua_settop(L, AT_DOMAIN_POLICY);
    if (c->stage == CHAIN_END)
        return STEP_END;
    if (!(c->stages & (1u << c->stage))) {
        c->stage++;
        return STEP_NEXT;
    }
    enum step step = STEP_NEXT;
    switch (c->stage) {
    case CHAIN_DOMAIN: step = stage_domain(L, task); break;
    case CHAIN_DOMAINS: step = stage_domains(L, task); break;
    case CHAIN_POLICIES: step = stage_policies(L, task); break;
    case CHAIN_SENDER: step = stage_sender(L, task); break;
    case CHAIN_DEFAULT: step = stage_default(L, task); break;
    case CHAIN_END: step = STEP_END; break;
    }
    if (c->stage != before)
        c->next = 0;
    return step;
}

/* ---- the whole ------------------------------------------------------------------------------ */

/* A recipient was accepted: its domain's policy will be asked about the content, once. */
static void remember_domain(lua_State *L, struct task *task)
{
    enum verdict v = task->result.verdict;
    uint64_t key = task->in.message ? task->in.message->key : 0;

    if (task->hook != HOOK_RCPT || !key || (v != VERDICT_NONE && v != VERDICT_ACCEPT) ||
        !lua_istable(L, AT_DOMAIN_POLICY))
        return;
    lua_pushliteral(L, "data");
    if (lua_rawget(L, AT_DOMAIN_POLICY) != LUA_TFUNCTION)
        return;
    lua_rawgeti(L, AT_POLICIES, P_MESSAGE_DOMAINS);
    if (lua_rawgeti(L, -1, (lua_Integer)key) == LUA_TNIL) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_rawseti(L, -3, (lua_Integer)key);
    }
    lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
    for (lua_Integer i = 1; i <= n; i++) {
        lua_rawgeti(L, -1, i);
        bool same = lua_rawequal(L, -1, AT_DOMAIN_POLICY);
        lua_pop(L, 1);
        if (same)
            return;
    }
    lua_pushvalue(L, AT_DOMAIN_POLICY);
    lua_rawseti(L, -2, n + 1);
}

static int chain_go(lua_State *L, struct task *task, enum step step)
{
    while (step != STEP_END) {
        switch (step) {
        case STEP_NEXT: step = next_step(L, task); break;
        case STEP_DOMAIN_FOUND: step = domain_found(L, task); break;
        case STEP_SENDER_FOUND: step = sender_found(L, task); break;
        case STEP_ANSWERED: step = answered(L, task); break;
        case STEP_FAILED: step = failed(L, task); break;
        case STEP_END: break;
        }
    }
    lua_settop(L, AT_DOMAIN_POLICY);
    remember_domain(L, task);
    task->result.known_domain = task->chain.known_domain;
    if (task->result.verdict == VERDICT_NONE)
        task->result.decided_by = STR("default");
    return 0;
}

static int chain_k(lua_State *L, int status, lua_KContext ctx)
{
    bool good = status == LUA_OK || status == LUA_YIELD;

    return chain_go(L, vm_of(L)->current, good ? (enum step)ctx : STEP_FAILED);
}

/* The event's own fields, name and level as a table: they outlast the event. */
static void push_event(lua_State *L, const struct event *e)
{
    static const char *const levels[] = { [EVENT_DEBUG] = "debug",
                                          [EVENT_INFO] = "info",
                                          [EVENT_WARN] = "warn",
                                          [EVENT_ERROR] = "error" };

    lua_createtable(L, 0, (int)MIN(e->n, (size_t)64) + 2);
    for (size_t i = 0; i < e->n; i++) {
        const struct event_field *f = &e->fields[i];
        if (!f->name || !*f->name || (f->type == FIELD_STR && !f->s.p))
            continue;
        switch (f->type) {
        case FIELD_STR: push_str(L, f->s); break;
        case FIELD_INT: lua_pushinteger(L, f->i); break;
        case FIELD_BOOL: lua_pushboolean(L, f->i != 0); break;
        case FIELD_REAL: lua_pushnumber(L, f->r); break;
        }
        lua_setfield(L, -2, f->name);
    }
    lua_pushstring(L, e->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, levels[e->level]);
    lua_setfield(L, -2, "level");
}

/* After a hook that was stopped from outside the stack is new: whom to ask about the content? */
static void find_domain_again(lua_State *L, struct task *task)
{
    struct policies *p = task->policies;

    if (task->chain.stage == CHAIN_DOMAIN || !task->chain.known_domain)
        return;
    if (p->domains.kind == MAP_FILE) { /* it was made before; if it is wrong now, nobody is asked */
        lua_rawgeti(L, AT_POLICIES, P_DOMAINS);
        push_str(L, domain_in_question(task));
        if (lua_pcall(L, 1, 1, 0) != LUA_OK)
            lua_settop(L, AT_DOMAIN_POLICY);
        else
            lua_replace(L, AT_DOMAIN_POLICY);
    } else if (p->domains.kind == MAP_TABLE) {
        find(L, P_DOMAINS, &p->domains, domain_in_question(task), STEP_NEXT);
        lua_replace(L, AT_DOMAIN_POLICY);
    }
}

int chain_main(lua_State *L)
{
    struct task *task = vm_of(L)->current;

    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_TASKS);
    lua_pushboolean(L, 0); /* no policy has been asked */
    lua_rawseti(L, -2, -task->slot);
    lua_settop(L, 0);
    view_push(L, task, VIEW_CTX);
    if (task->hook == HOOK_EVENT && task->in.event) {
        push_event(L, task->in.event);
        lua_setiuservalue(L, AT_CTX, VIEW_CTX_EVENT);
    }
    policies_push(L, task->policies);
    lua_pushcfunction(L, on_error);
    lua_pushnil(L);
    find_domain_again(L, task);
    return chain_go(L, task, STEP_NEXT);
}
