/* bind_tern.c - the module tern: verdicts, the time, waiting.
 *
 * Layer: lua. Interface: sandbox.h. Arguments of verdicts are checked by tern.validate, from
 * schema.lua.
 */
#include "base/units.h"
#include "lua/policies.h"
#include "lua/sandbox.h"
#include "lua/task.h"
#include "lua/value.h"

#ifndef TERN_VERSION
#define TERN_VERSION "0.1.0"
#endif

/* ---- verdicts ------------------------------------------------------------------------------- */

static bool printable(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (((unsigned char)s.p[i] < 0x20 && s.p[i] != '\n') || s.p[i] == 0x7f)
            return false;
    return s.n <= 2000;
}

/* The usual { 550, "5.7.1", "text" } in order, without tern.validate, which says the same more
 * slowly. False: anything else, right or wrong. */
static bool quick_reply(lua_State *L, enum verdict verdict)
{
    struct smtp_enhanced enhanced;
    lua_Integer code, n = 0;

    if (lua_gettop(L) != 1 || !lua_istable(L, 1))
        return false;
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1))
        n++;
    lua_rawgeti(L, 1, 1);
    lua_rawgeti(L, 1, 2);
    lua_rawgeti(L, 1, 3);
    code = lua_isinteger(L, 2) ? lua_tointeger(L, 2) : 0;
    lua_Integer class_ = verdict == VERDICT_DEFER ? 4 : 5;
    bool usual = n == 3 && code >= class_ * 100 && code < class_ * 100 + 60 &&
                 lua_type(L, 3) == LUA_TSTRING && lua_type(L, 4) == LUA_TSTRING &&
                 smtp_enhanced_parse(lua_str(L, 3), &enhanced) == 0 && enhanced.class_ == class_ &&
                 printable(lua_str(L, 4));
    if (usual) {
        struct verdict_value *v = value_push_verdict(L, verdict);
        v->code = (uint16_t)code;
        v->enhanced = enhanced;
        lua_pushvalue(L, 4);
        lua_setiuservalue(L, -2, VERDICT_TEXT);
    } else {
        lua_settop(L, 1);
    }
    return usual;
}

/* A verdict with a reply: its arguments are { code, enhanced, text, retry = }. */
static int reply_verdict(lua_State *L, const char *name, enum verdict verdict)
{
    struct made_at at = value_made_at(L);
    struct str enhanced;

    if (quick_reply(L, verdict)) {
        value_to_verdict(L, -1)->at = at;
        return 1;
    }
    value_check_arguments(L, name);
    struct verdict_value *v = value_push_verdict(L, verdict);
    v->at = at;
    v->code = (uint16_t)field_int(L, 2, "code", 0);
    if (field_str(L, 2, "enhanced", &enhanced) && enhanced.n)
        smtp_enhanced_parse(enhanced, &v->enhanced);
    v->retry_ms = field_int(L, 2, "retry", 0);
    lua_getfield(L, 2, "text");
    lua_setiuservalue(L, -2, VERDICT_TEXT);
    return 1;
}

static int tern_reject(lua_State *L)
{
    return reply_verdict(L, "tern.reject", VERDICT_REJECT);
}

static int tern_defer(lua_State *L)
{
    return reply_verdict(L, "tern.defer", VERDICT_DEFER);
}

static int tern_bounce(lua_State *L)
{
    return reply_verdict(L, "tern.bounce", VERDICT_BOUNCE);
}

static int bare_verdict(lua_State *L, const char *name, enum verdict verdict)
{
    struct made_at at = value_made_at(L);

    if (!lua_isnoneornil(L, 1))
        value_check_arguments(L, name);
    value_push_verdict(L, verdict)->at = at;
    return 1;
}

static int tern_accept(lua_State *L)
{
    bare_verdict(L, "tern.accept", VERDICT_ACCEPT);
    if (lua_gettop(L) < 3) /* it was given nothing */
        return 1;
    lua_getfield(L, 2, "identity");
    lua_setiuservalue(L, -2, VERDICT_IDENTITY);
    lua_getfield(L, 2, "password");
    lua_setiuservalue(L, -2, VERDICT_PASSWORD);
    return 1;
}

static int tern_discard(lua_State *L)
{
    return bare_verdict(L, "tern.discard", VERDICT_DISCARD);
}

/* deliver_to = "client": the address that asks. The list of targets is on top. */
static void resolve_client(lua_State *L)
{
    struct task *task = vm_of(L)->current;
    char ip[NET_ADDR_TEXT];
    lua_Integer n = (lua_Integer)lua_rawlen(L, -1);

    for (lua_Integer i = 1; i <= n; i++) {
        lua_rawgeti(L, -1, i);
        bool client = str_eq(lua_str(L, -1), STR("client"));
        lua_pop(L, 1);
        if (!client)
            continue;
        if (!task || !task->in.session)
            vm_raise(L, "tern.release: deliver_to = \"client\", but no client has asked");
        lua_pushfstring(L, "[%s]", net_addr_ip_text(task->in.session->client, ip));
        lua_rawseti(L, -2, i);
    }
}

/* The route of deliver_to or route, into v. */
static void release_route(lua_State *L, struct verdict_value *v)
{
    int top = lua_gettop(L);
    bool has_hosts = lua_getfield(L, 2, "deliver_to") == LUA_TTABLE;

    lua_getfield(L, 2, "route");
    struct route_value *given = value_to_route(L, -1);
    const struct task *task = vm_of(L)->current;
    bool atrn = task && task->in.etrn && task->in.etrn->atrn; /* goes over that very connection */
    if (has_hosts == (given != NULL) && (has_hosts || !atrn))
        vm_raise(L, "tern.release: needs deliver_to or route, and not both");
    lua_pop(L, 1);
    if (given) {
        v->route = route_ref(given->route);
    } else if (has_hosts) {
        resolve_client(L);
        v->route = route_new(ROUTE_HOSTS);
        if (!v->route || route_take_targets(L, top + 1, false, v->route) < 0 ||
            route_finish(v->route) < 0)
            vm_raise_no_memory(L);
    }
    lua_settop(L, top);
}

/* Pushes the names in `queue`, one a line: they hold no control characters. False: there is none. */
static bool push_queues(lua_State *L)
{
    luaL_Buffer b;
    int list = lua_gettop(L) + 1;

    if (lua_getfield(L, 2, "queue") != LUA_TTABLE) {
        lua_pop(L, 1);
        return false;
    }
    lua_Integer n = (lua_Integer)lua_rawlen(L, list);
    luaL_buffinit(L, &b);
    for (lua_Integer i = 1; i <= n; i++) {
        if (i > 1)
            luaL_addchar(&b, '\n');
        lua_rawgeti(L, list, i);
        luaL_addvalue(&b);
    }
    luaL_pushresult(&b);
    lua_remove(L, list);
    return true;
}

static int tern_release(lua_State *L)
{
    struct task *task = vm_of(L)->current;
    struct made_at at = value_made_at(L);

    value_check_arguments(L, "tern.release");
    struct verdict_value *v = value_push_verdict(L, VERDICT_RELEASE);
    v->at = at;
    v->window_ms = field_int(L, 2, "window", 15 * 60 * 1000);
    release_route(L, v);
    lua_getfield(L, 2, "subdomains");
    v->subdomains = lua_toboolean(L, -1);
    lua_getfield(L, 2, "group");
    v->group = lua_toboolean(L, -1);
    lua_settop(L, 3);
    if (!push_queues(L)) {
        if (!task || !task->in.etrn)
            return vm_raise(L, "tern.release: 'queue' is missing (only the hook 'etrn' may leave "
                               "it out)");
        push_str(L, task->in.etrn->domain);
    }
    lua_setiuservalue(L, 3, VERDICT_QUEUE);
    return 1;
}

/* ---- time ----------------------------------------------------------------------------------- */

static int tern_now(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)clock_wall(L, "tern.now()") / 1000);
    return 1;
}

/* "3s", or a number of seconds, as milliseconds. */
static int64_t check_duration(lua_State *L, int index, const char *what)
{
    int64_t ms = -1;

    if (lua_type(L, index) == LUA_TNUMBER) {
        lua_Number s = lua_tonumber(L, index);
        ms = s >= 0 && s < 1e12 ? (int64_t)(s * 1000) : -1;
    } else if (lua_type(L, index) == LUA_TSTRING && duration_parse(lua_str(L, index), &ms) < 0) {
        ms = -1;
    }
    if (ms < 0)
        vm_raise(L, "%s needs a duration such as \"3s\", or seconds", what);
    return ms;
}

static int tern_duration(lua_State *L)
{
    int64_t ms = check_duration(L, 1, "tern.duration");

    if (ms % 1000)
        lua_pushnumber(L, (lua_Number)ms / 1000);
    else
        lua_pushinteger(L, ms / 1000);
    return 1;
}

static void sleep_over(struct timer *t)
{
    task_ready(CONTAINER_OF(t, struct task, wait.timer));
}

static void sleep_cancel(struct task *task)
{
    struct port_clock *clock = task->policies->ports->clock;

    clock->timer_stop(clock, &task->wait.timer);
}

static int tern_sleep(lua_State *L)
{
    int64_t ms = check_duration(L, 1, "tern.sleep");
    struct task *task = task_may_wait(L, "tern.sleep");
    struct port_clock *clock = task->policies->ports->clock;
    char text[32];

    timer_init(&task->wait.timer, sleep_over);
    clock->timer_set(clock, &task->wait.timer, clock->now(clock) + ms);
    return task_wait(L, task, sleep_cancel, NULL, "tern.sleep %s", duration_text(ms, text));
}

/* ---- queues --------------------------------------------------------------------------------- */

static void set_count(lua_State *L, const char *name, uint64_t n)
{
    lua_pushinteger(L, (lua_Integer)n);
    lua_setfield(L, -2, name);
}

/* What a queue holds, in the last committed state: the same in all workers, and after a restart. */
static int tern_queued(lua_State *L)
{
    const struct task *task = vm_of(L)->current;
    struct spool_queue q = { .waiting = 0 };

    if (lua_type(L, 1) != LUA_TSTRING)
        return vm_raise(L, "tern.queued needs the name of a queue");
    if (!task)
        return vm_raise(L, "tern.queued can only be called inside of a hook");
    struct port_spool *spool = task->policies->ports->spool;
    int r = spool->read_queue(spool, lua_str(L, 1), &q);
    if (r < 0 && r != -ENOENT)
        return vm_raise(L, "tern.queued: cannot read the queue: %s", strerror(-r));
    if (r < 0)
        q = (struct spool_queue){ .waiting = 0 };
    lua_createtable(L, 0, 4);
    set_count(L, "scheduled", q.scheduled);
    set_count(L, "waiting", q.waiting);
    set_count(L, "held", q.held);
    set_count(L, "waiting_bytes", q.waiting_octets);
    return 1;
}

/* ---- the module ----------------------------------------------------------------------------- */

void bind_tern_push(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "accept", tern_accept },   { "reject", tern_reject }, { "defer", tern_defer },
        { "discard", tern_discard }, { "bounce", tern_bounce }, { "release", tern_release },
        { "now", tern_now },         { "sleep", tern_sleep },   { "duration", tern_duration },
        { "limit", tern_limit },     { "queued", tern_queued }, { NULL, NULL }
    };
    static const char *const modules[] = { "route", "log",  "dns",  "net", "json",
                                           "map",   "mime", "smtp", NULL };

    luaL_newlib(L, functions);
    bind_kv_push(L);
    lua_setfield(L, -2, "kv");
    lua_pushliteral(L, TERN_VERSION);
    lua_setfield(L, -2, "version");
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_LOADED);
    for (const char *const *name = modules; *name; name++) {
        lua_pushfstring(L, "tern.%s", *name);
        lua_rawget(L, -2);
        lua_setfield(L, -3, *name);
    }
    lua_pop(L, 1);
    sandbox_seal(L, "tern");
}
