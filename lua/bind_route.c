/* bind_route.c - the module tern.route: where mail goes next.
 *
 * Layer: lua. Interface: sandbox.h. Arguments are checked by tern.validate, from schema.lua. The
 * userdata is made before the route, so that whatever raises afterwards leaves nothing behind.
 */
#include "lua/accounts.h"
#include "lua/certificates.h"
#include "lua/sandbox.h"
#include "lua/task.h"
#include "lua/value.h"

static struct str keep(struct route *r, struct str s)
{
    return arena_str(&r->arena, s);
}

static enum route_tls tls_of(lua_State *L, int index)
{
    return field_is(L, index, "tls", "none")      ? ROUTE_TLS_NONE
           : field_is(L, index, "tls", "require") ? ROUTE_TLS_REQUIRE
           : field_is(L, index, "tls", "verify")  ? ROUTE_TLS_VERIFY
           : field_is(L, index, "tls", "dane")    ? ROUTE_TLS_DANE
                                                  : ROUTE_TLS_OPPORTUNISTIC;
}

/* The name of the credentials in the field `auth` of the table at `index`; empty: there is none. */
static struct str auth_of(lua_State *L, int index, struct route *r)
{
    struct str name = STR_NONE;

    if (lua_getfield(L, index, "auth") == LUA_TTABLE)
        name = keep(r, accounts_take(L, -1));
    lua_pop(L, 1);
    return name;
}

/* The list `source`, as one text. */
static void take_sources(lua_State *L, struct route *r)
{
    if (lua_getfield(L, 2, "source") == LUA_TTABLE)
        for (lua_Integer i = 1; i <= (lua_Integer)lua_rawlen(L, -1); i++) {
            lua_rawgeti(L, -1, i);
            struct str one = lua_str(L, -1);
            r->source = i == 1 ? keep(r, one)
                               : arena_printf(&r->arena, STR_FMT " " STR_FMT, STR_ARG(r->source),
                                              STR_ARG(one));
            lua_pop(L, 1);
        }
    lua_pop(L, 1);
}

/* Options that every route has; the table in normal form is at index 2. */
static void take_options(lua_State *L, struct route *r)
{
    struct str s;

    if (field_str(L, 2, "queue", &s))
        r->queue = keep(r, s);
    if (field_str(L, 2, "retry", &s))
        schedule_parse(s, &r->retry);
    if (field_str(L, 2, "hours", &s))
        hours_parse(s, &r->hours);
    if (field_str(L, 2, "rate", &s))
        rate_parse(s, &r->rate);
    take_sources(L, r);
    if (field_str(L, 2, "reason", &s))
        r->reason = keep(r, s);
    r->lifetime_ms = field_int(L, 2, "lifetime", 0);
    r->warn_after_ms = field_int(L, 2, "warn_after", 0);
    r->concurrency = (uint32_t)field_int(L, 2, "concurrency", 0);
    r->host_failure_forever = field_is(L, 2, "on_host_failure", "forever");
    r->tls = tls_of(L, 2);
    r->auth = auth_of(L, 2, r);
    r->balance = field_is(L, 2, "balance", "random")        ? ROUTE_RANDOM
                 : field_is(L, 2, "balance", "round_robin") ? ROUTE_ROUND_ROBIN
                                                            : ROUTE_FAILOVER;
    lua_getfield(L, 2, "fallback");
    struct route_value *fallback = value_to_route(L, -1);
    if (fallback)
        r->fallback = route_ref(fallback->route);
    lua_pop(L, 1);
}

/* The host on top of the stack. */
static int take_target(lua_State *L, bool mx_first, struct route *r)
{
    struct route_target *t = &r->targets[r->n_targets];
    int e = route_target_parse(&r->arena, lua_str(L, -1), mx_first, t);

    r->n_targets += e == 0;
    return e;
}

/* The group on top of the stack: hosts, and what holds for them alone. */
static int take_group(lua_State *L, bool mx_first, struct route *r)
{
    int group = lua_gettop(L);
    size_t first = r->n_targets;
    struct str auth = auth_of(L, group, r);
    bool own_tls = lua_getfield(L, group, "tls") == LUA_TSTRING;

    lua_pop(L, 1);
    for (lua_Integer i = 1; i <= (lua_Integer)lua_rawlen(L, group); i++) {
        lua_rawgeti(L, group, i);
        int e = take_target(L, mx_first, r);
        lua_pop(L, 1);
        if (e < 0)
            return e;
    }
    for (size_t i = first; i < r->n_targets; i++) {
        r->targets[i].own_tls = own_tls;
        r->targets[i].tls = tls_of(L, group);
        r->targets[i].auth = auth;
    }
    return 0;
}

/* How many hosts the list at `index` has, and whether there are groups among its items. */
static size_t count_targets(lua_State *L, int index, bool *ret_groups)
{
    size_t n = 0;

    *ret_groups = false;
    for (lua_Integer i = 1; i <= (lua_Integer)lua_rawlen(L, index); i++) {
        bool group = lua_rawgeti(L, index, i) == LUA_TTABLE;
        n += group ? lua_rawlen(L, -1) : 1;
        *ret_groups |= group;
        lua_pop(L, 1);
    }
    return n;
}

int route_take_targets(lua_State *L, int index, bool mx_first, struct route *r)
{
    bool groups;
    size_t n = count_targets(L, index, &groups);

    if (n > ROUTE_MAX_TARGETS)
        return -E2BIG;
    r->targets = ARENA_ARRAY(&r->arena, struct route_target, n);
    if (!r->targets)
        return -ENOMEM;
    for (lua_Integer i = 1; i <= (lua_Integer)lua_rawlen(L, index); i++) {
        size_t first = r->n_targets;
        bool group = lua_rawgeti(L, index, i) == LUA_TTABLE;
        int e = group ? take_group(L, mx_first, r) : take_target(L, mx_first, r);
        lua_pop(L, 1);
        if (e < 0)
            return e;
        r->targets[first].new_group = groups && first > 0;
    }
    return 0;
}

/* Checks the arguments and begins a route on top of the stack. */
static struct route *begin(lua_State *L, const char *name, enum route_kind kind)
{
    struct made_at at = value_made_at(L);

    value_check_arguments(L, name);
    struct route_value *v = value_push_route(L);
    v->route = route_new(kind);
    if (!v->route)
        vm_raise_no_memory(L);
    v->at = at;
    take_options(L, v->route);
    certificates_take(L, name, v->route);
    return v->route;
}

static int finish(lua_State *L, const char *name, struct route *r)
{
    certificates_demand_tls(L, name, r);
    int e = route_finish(r);

    if (e < 0)
        return vm_raise(L, "%s: %s", name,
                        e == -ENOMEM
                            ? "out of memory"
                            : "these options do not fit together (a text that is too long, "
                              "or fallbacks more than 4 deep)");
    return 1;
}

static int route_mx(lua_State *L)
{
    struct task *task = vm_of(L)->current;
    struct route *r = begin(L, "route.mx", ROUTE_MX);
    struct str domain;

    if (field_str(L, 2, "domain", &domain))
        r->domain = keep(r, domain);
    else if (task && task->in.recipient)
        r->domain = keep(r, task->in.recipient->address->domain);
    else
        return vm_raise(L,
                        "route.mx: 'domain' is missing (only a hook with a recipient may leave it "
                        "out)");
    r->below_self = field_is(L, 2, "below", "self");
    r->when_best_defer = field_is(L, 2, "when_best", "defer");
    r->no_sts = lua_getfield(L, 2, "mta_sts") == LUA_TBOOLEAN && !lua_toboolean(L, -1);
    lua_pop(L, 1);
    if (r->when_best_defer && !r->below_self)
        return vm_raise(L, "route.mx: 'when_best' needs below = \"self\"");
    if (r->fallback && r->below_self) /* B7: that is how two backups play ping-pong */
        return vm_raise(L,
                        "route.mx: a backup MX (below = \"self\") has no fallback: its mail waits "
                        "for a better MX, and goes nowhere else");
    return finish(L, "route.mx", r);
}

static int route_to_targets(lua_State *L, const char *name)
{
    struct route *r = begin(L, name, ROUTE_HOSTS);

    lua_getfield(L, 2, "mx");
    bool mx = lua_toboolean(L, -1);
    lua_pop(L, 1);
    int e = route_take_targets(L, 2, mx, r);
    if (e == -E2BIG)
        return vm_raise(L, "%s: at most %d hosts in all", name, ROUTE_MAX_TARGETS);
    if (e < 0)
        return vm_raise_no_memory(L);
    return finish(L, name, r);
}

static int route_hosts(lua_State *L)
{
    return route_to_targets(L, "route.hosts");
}

static int route_lmtp(lua_State *L)
{
    return route_to_targets(L, "route.lmtp");
}

/* "01:00" and "05:00", as tern.validate left them: minutes of the day. */
static void take_between(lua_State *L, struct route_hold *h)
{
    if (lua_getfield(L, 2, "release_between") == LUA_TTABLE) {
        lua_rawgeti(L, -1, 1);
        lua_rawgeti(L, -2, 2);
        h->from = (uint16_t)(lua_tointeger(L, -2) % (24 * 60));
        h->to = (uint16_t)(lua_tointeger(L, -1) % (24 * 60));
        lua_pop(L, 2);
        if (!h->every_ms)
            vm_raise(L, "route.hold: 'release_between' needs 'release_every'");
    }
    lua_pop(L, 1);
}

static int route_hold(lua_State *L)
{
    struct route *r = begin(L, "route.hold", ROUTE_HOLD);

    r->hold.every_ms = field_int(L, 2, "release_every", 0);
    take_between(L, &r->hold);
    r->hold.warn_recipients = (uint64_t)field_int(L, 2, "warn_messages", 0);
    r->hold.warn_octets = (uint64_t)field_int(L, 2, "warn_bytes", 0);
    return finish(L, "route.hold", r);
}

static int route_discard(lua_State *L)
{
    return finish(L, "route.discard", begin(L, "route.discard", ROUTE_DISCARD));
}

static int route_bounce(lua_State *L)
{
    struct route *r = begin(L, "route.bounce", ROUTE_BOUNCE);
    struct str enhanced = STR(""), text = STR("");

    field_str(L, 2, "enhanced", &enhanced);
    field_str(L, 2, "text", &text);
    r->reply_code = (uint16_t)field_int(L, 2, "code", 550);
    r->reply_text = arena_printf(&r->arena, STR_FMT "%s" STR_FMT, STR_ARG(enhanced),
                                 enhanced.n ? " " : "", STR_ARG(text));
    return finish(L, "route.bounce", r);
}

void bind_route_push(lua_State *L)
{
    static const luaL_Reg functions[] = { { "mx", route_mx },
                                          { "hosts", route_hosts },
                                          { "lmtp", route_lmtp },
                                          { "hold", route_hold },
                                          { "discard", route_discard },
                                          { "bounce", route_bounce },
                                          { "resolve", bind_route_resolve },
                                          { NULL, NULL } };

    luaL_newlib(L, functions);
    sandbox_seal(L, "tern.route");
}
