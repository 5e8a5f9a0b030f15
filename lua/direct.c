/* direct.c - answers in which no script has a say. Interface: direct.h. Layer: lua. */
#include "lua/direct.h"

#include "lua/bind_map.h"
#include "lua/chain.h"
#include "lua/policies.h"
#include "lua/value.h"

/* The stack of the function that looks things up. */
enum { AT_QUESTION = 1, AT_POLICIES, AT_POLICY };

struct question {
    struct policies *policies;
    enum hook hook;
    const struct hook_input *in;
    /* the answer */
    bool found;          /* there is one */
    bool known_domain;   /* the recipient's domain stands in `domains` */
    struct route *route; /* one reference, or NULL */
    const char *part;    /* of the configuration, where the route stands */
};

static bool has_hook(lua_State *L, enum hook h)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_HOOK_NAMES);
    lua_rawgeti(L, -1, (lua_Integer)h + 1);
    bool has = lua_rawget(L, AT_POLICY) == LUA_TFUNCTION;
    lua_settop(L, AT_POLICY);
    return has;
}

/* The policy on top, of the recipient's domain or the default: false when it wants to be asked, now or
 * (having accepted a recipient) about the content. */
static bool has_no_say(lua_State *L, const struct question *q)
{
    if (!lua_istable(L, AT_POLICY))
        return true;
    return !has_hook(L, q->hook) && !(q->hook == HOOK_RCPT && has_hook(L, HOOK_DATA));
}

static void take_route(lua_State *L, struct question *q, const char *part)
{
    struct route_value *route = value_to_route(L, AT_POLICY);

    if (!route)
        return;
    q->route = route_ref(route->route);
    q->part = part;
}

/* Pushes the policy of the recipient's domain, or nil. False: a function has to make it. */
static bool find_domain(lua_State *L, const struct question *q)
{
    struct policies *p = q->policies;
    struct str domain = q->in->recipient ? q->in->recipient->address->domain : STR_NONE;

    if (!domain.n || p->domains.kind == MAP_NONE) {
        lua_pushnil(L);
        return true;
    }
    if (p->domains.kind == MAP_FUNCTION)
        return false;
    lua_rawgeti(L, AT_POLICIES, P_DOMAINS); /* at AT_POLICY */
    if (p->domains.kind == MAP_FILE && !map_value_find_made(L, AT_POLICY, domain))
        return false;
    if (p->domains.kind == MAP_TABLE)
        chain_find_in_table(L, p, AT_POLICY, &p->domains, domain);
    lua_replace(L, AT_POLICY);
    lua_settop(L, AT_POLICY);
    return true;
}

/* RCPT, ROUTE, RESULT: the recipient's domain, and for a route the default. */
static void ask_of_recipient(lua_State *L, struct question *q)
{
    if (!find_domain(L, q) || !has_no_say(L, q))
        return;
    q->known_domain = !lua_isnil(L, AT_POLICY);
    if (q->hook == HOOK_ROUTE)
        take_route(L, q, "domains");
    if (q->hook == HOOK_ROUTE && !q->known_domain && q->policies->has_default_route) {
        lua_rawgeti(L, AT_POLICIES, P_DEFAULT_ROUTE);
        lua_replace(L, AT_POLICY);
        if (!has_no_say(L, q))
            return;
        take_route(L, q, "default_route");
    }
    q->found = true;
}

/* DATA: policies of domains whose recipients were accepted. */
static void ask_of_content(lua_State *L, struct question *q)
{
    uint64_t key = q->in->message->key;

    lua_rawgeti(L, AT_POLICIES, P_MESSAGE_DOMAINS);
    q->found = !key || lua_rawgeti(L, -1, (lua_Integer)key) == LUA_TNIL;
}

static int look_up(lua_State *L)
{
    struct question *q = lua_touserdata(L, AT_QUESTION);

    policies_push(L, q->policies);
    if (q->hook == HOOK_DATA)
        ask_of_content(L, q);
    else
        ask_of_recipient(L, q);
    return 0;
}

bool direct_answer(struct policies *p, enum hook h, const struct hook_input *in,
                   struct hook_result *ret)
{
    bool listed = p->n_list[h] || (p->senders.hooks & (1u << h)); /* `policies`, or the sender's */
    bool of_recipient = h == HOOK_RCPT || h == HOOK_ROUTE || h == HOOK_RESULT;
    struct question q = { .policies = p, .hook = h, .in = in };
    struct policy_error err;

    if (p->observer || listed || (!of_recipient && !(h == HOOK_DATA && in->message)))
        return false;
    /* When memory runs out the chain tells of it. */
    if (vm_run(p->vm, look_up, &q, &err) < 0 || !q.found) {
        route_unref(q.route);
        return false;
    }
    ret->known_domain = q.known_domain;
    ret->verdict = q.route ? VERDICT_ROUTE : VERDICT_NONE;
    ret->route = q.route;
    ret->decided_by = str_of(q.route ? q.part : "default");
    return true;
}
