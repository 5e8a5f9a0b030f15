/* result.c - what a hook function returned. Interface: result.h. Layer: lua. */
#include "lua/result.h"

#include <stdio.h>

#include "lua/policies.h"
#include "lua/value.h"

enum { MAX_PLACE = 128 };
#define BIT(v) (1u << (v))

/* Verdicts that each hook may return; the values of VERDICT_ROUTE are routes. */
static const unsigned allowed[HOOK_COUNT] = {
    [HOOK_CONNECT] = BIT(VERDICT_ACCEPT) | BIT(VERDICT_REJECT) | BIT(VERDICT_DEFER),
    [HOOK_HELO] = BIT(VERDICT_ACCEPT) | BIT(VERDICT_REJECT) | BIT(VERDICT_DEFER),
    [HOOK_AUTH] = BIT(VERDICT_ACCEPT) | BIT(VERDICT_REJECT) | BIT(VERDICT_DEFER),
    [HOOK_MAIL] =
        BIT(VERDICT_ACCEPT) | BIT(VERDICT_REJECT) | BIT(VERDICT_DEFER) | BIT(VERDICT_DISCARD),
    [HOOK_RCPT] =
        BIT(VERDICT_ACCEPT) | BIT(VERDICT_REJECT) | BIT(VERDICT_DEFER) | BIT(VERDICT_DISCARD),
    [HOOK_DATA] =
        BIT(VERDICT_ACCEPT) | BIT(VERDICT_REJECT) | BIT(VERDICT_DEFER) | BIT(VERDICT_DISCARD),
    [HOOK_ROUTE] =
        BIT(VERDICT_ROUTE) | BIT(VERDICT_BOUNCE) | BIT(VERDICT_DISCARD) | BIT(VERDICT_DEFER),
    [HOOK_RESULT] =
        BIT(VERDICT_ROUTE) | BIT(VERDICT_BOUNCE) | BIT(VERDICT_DISCARD) | BIT(VERDICT_DEFER),
    [HOOK_ETRN] = BIT(VERDICT_RELEASE) | BIT(VERDICT_REJECT) | BIT(VERDICT_DEFER),
    [HOOK_EVENT] = 0,
};

void result_place(lua_State *L, int function, const void *made_in, int made_line, char *dst,
                  size_t size)
{
    lua_Debug ar;

    lua_pushvalue(L, function);
    lua_getinfo(L, ">S", &ar);
    const char *source = *ar.source == '@' || *ar.source == '=' ? ar.source + 1 : ar.source;
    int line = ar.source == made_in && made_line > 0 ? made_line : ar.linedefined;
    snprintf(dst, size, "%.100s:%d", source, line);
}

/* The last that is kept of it: raises when any of that was refused its memory. */
static void keep_place(lua_State *L, int function, struct made_at at, struct hook_result *r)
{
    char place[MAX_PLACE];

    result_place(L, function, at.source, at.line, place, sizeof(place));
    r->decided_by = arena_str(&r->arena, str_of(place));
    if (r->arena.failed)
        vm_raise_no_memory(L);
}

/* {NULL,0}: the verdict has none. Raises when memory is short: a password that is lost here would let in
 * who does not know it. */
static struct str keep_user_value(lua_State *L, int value, int which, struct hook_result *r)
{
    struct str s = STR_NONE;

    if (lua_getiuservalue(L, value, which) == LUA_TSTRING) {
        s = arena_str(&r->arena, lua_str(L, -1));
        if (!s.p)
            vm_raise_no_memory(L);
    }
    lua_pop(L, 1);
    return s;
}

/* bounce() without a reply of its own: what the host said, else our word. */
static void default_reply(struct task *task)
{
    const struct attempt_view *a = task->in.attempt;
    struct hook_result *r = &task->result;

    if (a && smtp_reply_permanent(&a->reply)) {
        r->reply = a->reply;
        r->reply.text = arena_str(&r->arena, a->reply.text);
    } else {
        r->reply = REPLY(550, ENH(5, 7, 1), "returned by policy");
    }
}

/* In `route`, discarding is a route: the engine records it like any other. */
static void discard_route(lua_State *L, struct hook_result *r)
{
    struct route *route = route_new(ROUTE_DISCARD);

    if (!route || route_finish(route) < 0) {
        route_unref(route);
        vm_raise_no_memory(L);
    }
    r->verdict = VERDICT_ROUTE;
    r->route = route;
}

static enum result_kind refuse(lua_State *L, int value, int function, struct task *task)
{
    char place[MAX_PLACE];

    result_place(L, function, NULL, 0, place, sizeof(place));
    vm_push_validate(L, "wrong_return");
    lua_pushstring(L, hook_name(task->hook));
    lua_pushvalue(L, value);
    lua_pushstring(L, place);
    lua_call(L, 3, 1);
    return RESULT_WRONG;
}

static void take_verdict(lua_State *L, int value, struct task *task, const struct verdict_value *v)
{
    struct hook_result *r = &task->result;

    r->verdict = v->verdict;
    r->retry_ms = v->retry_ms;
    r->window_ms = v->window_ms;
    r->reply.code = v->code;
    r->reply.enhanced = v->enhanced;
    r->reply.text = keep_user_value(L, value, VERDICT_TEXT, r);
    if (v->verdict == VERDICT_RELEASE) {
        r->queue = keep_user_value(L, value, VERDICT_QUEUE, r);
        r->route = route_ref(v->route);
        r->subdomains = v->subdomains;
        r->group = v->group;
    } else if (v->verdict == VERDICT_ACCEPT) {
        r->identity = keep_user_value(L, value, VERDICT_IDENTITY, r);
        r->password = keep_user_value(L, value, VERDICT_PASSWORD, r);
    } else if (v->verdict == VERDICT_BOUNCE && !v->code) {
        default_reply(task);
    } else if (v->verdict == VERDICT_DISCARD && task->hook == HOOK_ROUTE) {
        discard_route(L, r);
    }
}

/* Only `auth` asks who somebody is: elsewhere the words would be lost. */
static bool misplaced(lua_State *L, int value, const struct task *task)
{
    if (task->hook == HOOK_AUTH)
        return false;
    bool has = lua_getiuservalue(L, value, VERDICT_IDENTITY) == LUA_TSTRING;
    has = lua_getiuservalue(L, value, VERDICT_PASSWORD) == LUA_TSTRING || has;
    lua_pop(L, 2);
    return has;
}

enum result_kind result_take(lua_State *L, int value, int function, struct task *task)
{
    struct verdict_value *v;
    struct route_value *route;

    if (lua_isnil(L, value))
        return RESULT_NONE;
    if ((v = value_to_verdict(L, value)) && (allowed[task->hook] & BIT(v->verdict))) {
        if (v->verdict == VERDICT_ACCEPT && misplaced(L, value, task)) {
            lua_pushfstring(L,
                            "hook '%s' returned tern.accept with identity or password: these are "
                            "for the hook 'auth'",
                            hook_name(task->hook));
            return RESULT_WRONG;
        }
        take_verdict(L, value, task, v);
        keep_place(L, function, v->at, &task->result);
        return RESULT_TAKEN;
    }
    if ((route = value_to_route(L, value)) && (allowed[task->hook] & BIT(VERDICT_ROUTE))) {
        keep_place(L, function, route->at, &task->result);
        task->result.verdict = VERDICT_ROUTE;
        task->result.route = route_ref(route->route);
        return RESULT_TAKEN;
    }
    return refuse(L, value, function, task);
}

void result_take_route(lua_State *L, struct route *route, const char *decided_by, struct task *task)
{
    task->result.verdict = VERDICT_ROUTE;
    task->result.route = route_ref(route);
    task->result.decided_by = str_of(decided_by);
}
