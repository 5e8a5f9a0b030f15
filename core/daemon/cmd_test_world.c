/* cmd_test_world.c - `native` of lua/tern/sim.lua: worlds, mail, time, names, what came of it. Layer:
 * daemon. Interface: cmd_test.h.
 *
 * Hooks run in the test's own VM, in coroutines, while one of these functions is active. */
#include <stdio.h>

#include "base/units.h"
#include "daemon/cmd_test.h"
#include "lua/files.h"
#include "lua/vm.h"
#include "mail/message.h"

enum { MAX_RECIPIENTS = 1000 };

static const char world_type[] = "tern.sim world";

/* ---- worlds ----------------------------------------------------------------------------------- */

/* Raises at the line of the test: the first that is not in tern.sim. Never returns. */
static int raise(lua_State *L, const char *message)
{
    lua_Debug ar;
    int level = 1;
    while (lua_getstack(L, level, &ar) && lua_getinfo(L, "S", &ar) &&
           strcmp(ar.short_src, "tern.sim") == 0)
        level++;
    luaL_where(L, level);
    lua_pushstring(L, message);
    lua_concat(L, 2);
    return lua_error(L);
}

struct test_world *test_world_at(lua_State *L, int index)
{
    struct test_world *w = *(struct test_world **)luaL_checkudata(L, index, world_type);
    if (!w->sim)
        raise(L, "that world ended with the test that made it");
    if (L != w->run->L)
        raise(L, "a world cannot be used inside of a coroutine");
    return w;
}

static void end_world(struct test_world *w)
{
    for (size_t i = 0; i < w->n_sessions; i++)
        w->sessions[i] = sim_session_close(w->sessions[i]);
    w->n_sessions = 0;
    w->sim = sim_world_free(w->sim);
    for (size_t i = 0; i < SIM_MAX_WORKERS; i++)
        if (w->ready[i])
            w->ready[i]->free(w->ready[i]);
    memset(w->ready, 0, sizeof w->ready);
    list_remove(&w->link);
    list_push(&w->run->ended, &w->link);
}

size_t test_count_worlds(const struct test_run *run)
{
    size_t n = 0;
    for (const struct list *it = run->worlds.next; it != &run->worlds; it = it->next)
        n++;
    return n;
}

void test_end_worlds(struct test_run *run, size_t keep)
{
    size_t i = 0;
    LIST_FOREACH(it, &run->worlds)
    {
        struct test_world *w = LIST_ENTRY(it, struct test_world, link);
        if (i++ < keep)
            continue;
        luaL_unref(run->L, LUA_REGISTRYINDEX, w->config);
        end_world(w);
    }
}

void test_free_worlds(struct test_run *run)
{
    for (struct list *it; (it = list_pop(&run->ended));)
        free(LIST_ENTRY(it, struct test_world, link));
}

/* A sim_hooks_cb: what prepare_hooks has made. */
static struct hooks *take_hooks(void *arg, struct ports *ports, int worker,
                                struct settings *settings)
{
    struct test_world *w = arg;
    return TAKE(w->ready[worker]);
}

/* The password file that the configuration names. It may be readable by all: it is a test's. */
static int use_passwords(struct test_world *w, const struct settings *settings,
                         struct policy_error *err)
{
    AUTO_FREE char *path = str_dup(settings->auth.passwords);
    char why[PASSWORD_FILE_ERROR] = "out of memory";
    unsigned line = 0;
    struct buf text;
    int r = path ? 0 : -ENOMEM;

    buf_init(&text, POLICY_MAX_FILE);
    if (path && *path) {
        r = policy_files_disk.read(&policy_files_disk, path, false, &text);
        if (r < 0)
            snprintf(why, sizeof why, "%s", strerror(-r));
    }
    if (r == 0)
        r = sim_passwords_set(sim_world_passwords(w->sim), buf_str(&text), &line, why);
    buf_done(&text);
    if (r < 0)
        snprintf(err->message, sizeof err->message, "auth.passwords: %s:%u: %s", path ? path : "",
                 line, why);
    return r;
}

/* The configuration at `index` for the next start or reload. 0, or -errno with *err. */
static int configure(struct test_world *w, int index, struct policy_error *err)
{
    struct settings *settings = NULL;
    for (int i = 0; i < sim_world_workers(w->sim); i++) {
        struct settings *own = NULL;
        int r = policy_from_value(w->run->vm, w->run->L, index, w->where,
                                  sim_world_ports(w->sim, i), &own, &w->ready[i], err);
        if (r < 0) {
            settings_unref(settings);
            return r;
        }
        if (i == 0)
            settings = own;
        else
            settings_unref(own);
    }
    int r = use_passwords(w, settings, err);
    if (r == 0)
        sim_world_configure(w->sim, settings, take_hooks, w);
    settings_unref(settings);
    return r;
}

static void keep_where(struct test_world *w, const char *where)
{
    size_t n = strlen(where);
    if (n >= 2 && strcmp(where + n - 2, ": ") == 0)
        n -= 2; /* as luaL_where writes it */
    str_copy(str_make(where, n), w->where, sizeof w->where);
}

static void add_world(struct test_run *run, struct test_world *w, const char *where)
{
    w->run = run;
    keep_where(w, where);
    list_init(&w->link);
    list_push(&run->worlds, &w->link);
    sim_journal_echo(sim_world_journal(w->sim), run->echo);
}

/* world(config, where, seed, workers, with) -> world; or nil and what is wrong with the configuration. with:
 * the world whose network it joins. */
static int native_world(lua_State *L)
{
    struct test_run *run = lua_touserdata(L, lua_upvalueindex(1));
    struct test_world *with = lua_isnoneornil(L, 5) ? NULL : test_world_at(L, 5);
    struct policy_error err = { 0 };
    const char *where = luaL_checkstring(L, 2);
    uint64_t seed = (uint64_t)luaL_optinteger(L, 3, (lua_Integer)run->seed);
    lua_Integer workers = luaL_optinteger(L, 4, 1);
    luaL_checktype(L, 1, LUA_TTABLE);
    if (L != run->L)
        return raise(L, "a world cannot be made inside of a coroutine");
    if (workers < 1 || workers > SIM_MAX_WORKERS)
        return raise(L, "'workers' must be 1 to 16");
    lua_settop(L, 2);
    struct test_world **handle = lua_newuserdatauv(L, sizeof(struct test_world *), 0);
    lua_pushvalue(L, 1);
    int config = luaL_ref(L, LUA_REGISTRYINDEX);

    struct test_world *w = sim_alloc(sizeof *w);
    *handle = w;
    w->config = config;
    if (with) {
        w->sim = sim_world_join(with->sim, seed, (int)workers);
    } else {
        w->sim = sim_world_new(seed, (int)workers);
        sim_world_populate(w->sim);
    }
    add_world(run, w, where);
    luaL_setmetatable(L, world_type);
    if (configure(w, 1, &err) < 0) {
        lua_pushnil(L);
        lua_pushstring(L, err.message);
        return 2;
    }
    sim_world_start(w->sim);
    return 1;
}

/* reload(world, config, where) -> nil, or what is wrong. */
static int native_reload(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    struct policy_error err = { 0 };
    luaL_checktype(L, 2, LUA_TTABLE);
    keep_where(w, luaL_checkstring(L, 3));
    if (configure(w, 2, &err) < 0) {
        lua_pushstring(L, err.message);
        return 1;
    }
    sim_world_reload(w->sim);
    lua_pushvalue(L, 2);
    lua_rawseti(L, LUA_REGISTRYINDEX, w->config);
    return 0;
}

/* restart(world, crash) */
static int native_restart(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    struct policy_error err = { 0 };
    if (lua_toboolean(L, 2))
        sim_world_crash(w->sim);
    else
        sim_world_stop(w->sim, SIM_MINUTE);
    lua_rawgeti(L, LUA_REGISTRYINDEX, w->config);
    if (configure(w, lua_gettop(L), &err) < 0)
        return raise(L, err.message);
    sim_world_start(w->sim);
    return 0;
}

/* ---- time, names ------------------------------------------------------------------------------ */

/* duration("12d") or duration(seconds) -> ms; nothing: it is none. */
static int native_duration(lua_State *L)
{
    int64_t ms;
    if (lua_type(L, 1) == LUA_TNUMBER) {
        lua_Number seconds = lua_tonumber(L, 1);
        if (!(seconds >= 0) || seconds > 1e11)
            return 0;
        ms = (int64_t)(seconds * 1000);
    } else if (lua_type(L, 1) != LUA_TSTRING || duration_parse(lua_str(L, 1), &ms) < 0 || ms < 0) {
        return 0;
    }
    lua_pushinteger(L, ms);
    return 1;
}

static int native_advance(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    sim_world_advance(w->sim, luaL_checkinteger(L, 2));
    return 0;
}

static int native_now(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    lua_pushnumber(L, (lua_Number)sim_wall(sim_world_clock(w->sim)) / 1000);
    return 1;
}

/* zone(world, text) -> nil, or what is wrong. */
static int native_zone(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    struct sim_dns *dns = sim_world_dns(w->sim);
    struct str text = lua_str(L, 2);
    char why[256];
    sim_dns_clear(dns);
    if (sim_dns_add(dns, text, why, sizeof why) == 0)
        return 0;
    lua_pushstring(L, why);
    return 1;
}

/* A type's name, or nil for any. False: there is no such type. */
static bool type_at(lua_State *L, int index, enum dns_type *ret)
{
    *ret = 0;
    if (lua_isnoneornil(L, index))
        return true;
    if (lua_type(L, index) == LUA_TSTRING)
        *ret = dns_type_from_name(lua_str(L, index));
    return *ret != 0;
}

static int native_dns_fail(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    struct str name = str_of(luaL_checkstring(L, 2)), status = str_of(luaL_checkstring(L, 4));
    enum dns_type type;
    if (!type_at(L, 3, &type))
        return 0;
    for (enum dns_status s = DNS_OK; s <= DNS_TIMEOUT; s++)
        if (str_eq(status, str_of(dns_status_name(s))))
            sim_dns_fail(sim_world_dns(w->sim), name, type, s);
    lua_pushboolean(L, 1);
    return 1;
}

static int native_dns_secure(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    sim_dns_set_secure(sim_world_dns(w->sim), str_of(luaL_checkstring(L, 2)), lua_toboolean(L, 3));
    return 0;
}

static int native_asked(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    enum dns_type type;
    if (!type_at(L, 3, &type))
        return 0;
    lua_pushinteger(L, (lua_Integer)sim_dns_asked(sim_world_dns(w->sim), lua_str(L, 2), type));
    return 1;
}

/* ---- clients ---------------------------------------------------------------------------------- */

void test_set_str(lua_State *L, const char *key, struct str value)
{
    push_str(L, value);
    lua_setfield(L, -2, key);
}

void test_push_reply(lua_State *L, const struct smtp_reply *reply, struct str why)
{
    char enhanced[16];
    lua_createtable(L, 0, 6);
    lua_pushinteger(L, reply->code);
    lua_setfield(L, -2, "code");
    if (reply->enhanced.class_) {
        smtp_enhanced_text(reply->enhanced, enhanced);
        test_set_str(L, "enhanced", str_trim(str_of(enhanced)));
    }
    test_set_str(L, "text", reply->code ? reply->text : why);
}

/* Where to connect: the listener with that port, or the first. False: there is none. */
static bool find_listener(struct test_world *w, lua_Integer port, struct net_addr *ret)
{
    for (size_t i = 0; i < sim_world_listeners(w->sim); i++) {
        *ret = sim_world_listener(w->sim, i);
        if (port == 0 || ret->port == port)
            return true;
    }
    return false;
}

/* The one on that Unix socket. */
static bool find_socket(struct test_world *w, struct str path, struct net_addr *ret)
{
    struct net_addr wanted;

    if (net_addr_parse(path, 0, &wanted) < 0)
        return false;
    for (size_t i = 0; i < sim_world_listeners(w->sim); i++) {
        *ret = sim_world_listener(w->sim, i);
        if (ret->family == NET_UNIX && net_addr_eq(ret, &wanted))
            return true;
    }
    return false;
}

/* From and to of a connection; else what is wrong. */
static const char *ends_at(lua_State *L, struct test_world *w, int client, int port,
                           struct net_addr *ret_from, struct net_addr *ret_to)
{
    *ret_from = (struct net_addr){ 0 };
    if (!lua_isnil(L, client) &&
        (lua_type(L, client) != LUA_TSTRING || net_addr_parse_ip(lua_str(L, client), ret_from) < 0))
        return "'client' must be an IP address";
    if (lua_type(L, port) == LUA_TSTRING)
        return find_socket(w, lua_str(L, port), ret_to)
                   ? NULL
                   : "the router does not listen on that Unix socket";
    if (!lua_isnil(L, port) && !lua_isinteger(L, port))
        return "'port' must be a number, or the path of a Unix socket";
    if (!find_listener(w, lua_tointeger(L, port), ret_to))
        return "the router does not listen on that port";
    return NULL;
}

/* Leaves the field on the stack and returns where. */
static int field_at(lua_State *L, int table, const char *key)
{
    lua_getfield(L, table, key);
    return lua_gettop(L);
}

static void push_outcome(lua_State *L, const struct sim_outcome *out, size_t n)
{
    test_push_reply(L, &out->reply, out->why);
    test_set_str(L, "stage", str_of(smtp_stage_name(out->stage)));
    lua_pushinteger(L, (lua_Integer)out->accepted);
    lua_setfield(L, -2, "accepted");
    lua_createtable(L, (int)n, 0);
    for (size_t i = 0; i < n; i++) {
        test_push_reply(L, &out->rcpt[i], STR("none came"));
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "recipients");
}

/* send(world, { from, to, client, helo, port, tls, content }) -> reply; or nil and what is wrong. All
 * strings stay on the stack while they are used. */
static int native_send(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_checkstack(L, MAX_RECIPIENTS + 32, NULL);
    struct sim_mail m = { .starttls = true };
    int client = field_at(L, 2, "client"), port = field_at(L, 2, "port");
    const char *wrong = ends_at(L, w, client, port, &m.from, &m.to);
    m.sender = lua_str(L, field_at(L, 2, "from"));
    m.content = lua_str(L, field_at(L, 2, "content"));
    m.helo = lua_str(L, field_at(L, 2, "helo"));
    int tls = field_at(L, 2, "tls"), to = field_at(L, 2, "to");
    m.implicit_tls = lua_type(L, tls) == LUA_TSTRING && str_eq(lua_str(L, tls), STR("implicit"));
    m.starttls = lua_isnil(L, tls) || lua_toboolean(L, tls);
    m.eight_bit = !str_is_ascii(m.content);
    m.requiretls = lua_toboolean(L, field_at(L, 2, "requiretls"));
    m.priority = (int8_t)lua_tointeger(L, field_at(L, 2, "priority"));
    m.by.seconds = (int32_t)lua_tointeger(L, field_at(L, 2, "by_seconds"));
    m.by.trace = lua_toboolean(L, field_at(L, 2, "by_trace"));
    if (lua_toboolean(L, field_at(L, 2, "by_mode")))
        m.by.mode = str_eq(lua_str(L, -1), STR("return")) ? SMTP_BY_RETURN : SMTP_BY_NOTIFY;
    m.n_recipients = lua_rawlen(L, to);
    if (!wrong && m.n_recipients > MAX_RECIPIENTS)
        wrong = "too many recipients for one message";
    if (!wrong && !m.content.p)
        wrong = "'content' must be a string";
    if (wrong) {
        lua_pushnil(L);
        lua_pushstring(L, wrong);
        return 2;
    }
    struct str *recipients = lua_newuserdatauv(L, m.n_recipients * sizeof *recipients, 0);
    for (size_t i = 0; i < m.n_recipients; i++) {
        lua_rawgeti(L, to, (lua_Integer)i + 1);
        recipients[i] = lua_str(L, -1);
    }
    m.recipients = recipients;
    const struct sim_outcome *out = sim_world_send(w->sim, &m);
    push_outcome(L, out, m.n_recipients);
    return 1;
}

/* session_open(world, client, port) -> number; or nil and what is wrong. */
static int native_session_open(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    struct net_addr from, to;
    lua_settop(L, 3);
    const char *wrong = ends_at(L, w, 2, 3, &from, &to);
    if (!wrong && w->n_sessions == TEST_MAX_SESSIONS)
        wrong = "too many sessions in one test";
    if (wrong) {
        lua_pushnil(L);
        lua_pushstring(L, wrong);
        return 2;
    }
    w->sessions[w->n_sessions++] = sim_world_session_to(w->sim, &to, &from);
    lua_pushinteger(L, (lua_Integer)w->n_sessions);
    return 1;
}

static struct sim_session **session_at(lua_State *L, struct test_world *w)
{
    lua_Integer i = luaL_checkinteger(L, 2);
    luaL_argcheck(L, i >= 1 && (size_t)i <= w->n_sessions, 2, "no such session");
    return &w->sessions[i - 1];
}

static int native_session_line(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    struct sim_session *s = *session_at(L, w);
    const char *line = luaL_checkstring(L, 3);
    struct smtp_reply reply = { 0 };
    if (s)
        reply = sim_world_line(w->sim, s, line);
    test_push_reply(L, &reply, STR("the session is closed"));
    return 1;
}

/* session_reply(world, number): the next reply, of which no line asked for */
static int native_session_reply(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    struct sim_session *s = *session_at(L, w);
    struct smtp_reply reply = { 0 };
    if (s)
        reply = sim_world_reply(w->sim, s);
    test_push_reply(L, &reply, STR("no reply came"));
    return 1;
}

/* session_auth(world, number, mechanism, user, password, authzid) -> reply; nothing: no such
 * mechanism, or nothing that it could say. */
static int native_session_auth(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    struct sim_session *s = *session_at(L, w);
    enum sasl_mechanism m = sasl_find(str_of(luaL_checkstring(L, 3)));
    struct sasl_credentials cred = { lua_str(L, 4), lua_str(L, 5), STR_NONE };
    struct sasl_client *fits = NULL;
    struct smtp_reply reply = { 0 };
    if (lua_type(L, 6) == LUA_TSTRING)
        cred.authzid = lua_str(L, 6);
    if (sasl_client_new(m, &cred, STR("n"), &fits) < 0)
        return 0;
    sasl_client_free(fits);
    if (s)
        reply = sim_world_auth(w->sim, s, m, &cred);
    test_push_reply(L, &reply, STR("the session is closed"));
    return 1;
}

/* session_serve(world, number, address): the host there is the server on it from now on */
static int native_session_serve(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    struct sim_session *s = *session_at(L, w);
    if (s)
        sim_session_serve(s, sim_world_host(w->sim, luaL_checkstring(L, 3)));
    return 0;
}

static int native_session_close(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    struct sim_session **s = session_at(L, w);
    *s = sim_session_close(*s);
    return 0;
}

/* ---- looking ---------------------------------------------------------------------------------- */

static void push_recipient(lua_State *L, struct test_world *w, const struct spool_entry *e,
                           const struct recipient *r, const struct message *m)
{
    char id[MSGID_TEXT];
    int64_t wall = sim_wall(sim_world_clock(w->sim));
    struct buf route;
    buf_init(&route, 512);
    if (r->route)
        route_describe(r->route, &route);
    lua_createtable(L, 0, 14);
    test_set_str(L, "id", str_of(msgid_text(&e->id, id)));
    test_set_str(L, "queue", str_of(e->queue));
    test_set_str(L, "sender", m->sender.text);
    test_set_str(L, "recipient", r->address.text);
    test_set_str(L, "state", str_of(recipient_state_name(r->state)));
    test_set_str(L, "route", buf_str(&route));
    test_set_str(L, "policy", r->decided_by);
    test_set_str(L, "last_host", r->last_host);
    test_set_str(L, "last_reply", r->last_reply);
    if (r->route)
        test_set_str(L, "reason", r->route->reason);
    lua_pushinteger(L, r->attempts);
    lua_setfield(L, -2, "attempts");
    lua_pushinteger(L, (lua_Integer)m->size);
    lua_setfield(L, -2, "size");
    lua_pushnumber(L, (lua_Number)(e->due_ms - wall) / 1000);
    lua_setfield(L, -2, "due_in");
    lua_pushnumber(L, (lua_Number)(wall - m->received_ms) / 1000);
    lua_setfield(L, -2, "age");
    buf_done(&route);
}

/* What policies did to its header: { { op =, name =, count =, place = }... } */
static void set_changes(lua_State *L, struct arena *arena, const struct message *m)
{
    struct header_changes c = { 0 };

    if (changes_decode(arena, m->changes, &c) < 0)
        return;
    lua_createtable(L, (int)c.n, 0);
    for (size_t i = 0; i < c.n; i++) {
        lua_createtable(L, 0, 4);
        test_set_str(L, "op", str_of(header_op_name(c.list[i].op)));
        test_set_str(L, "name", c.list[i].name);
        test_set_str(L, "place", c.list[i].place);
        lua_pushinteger(L, c.list[i].n);
        lua_setfield(L, -2, "count");
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "changes");
}

/* Reads one entry of the spool and pushes it; false: it cannot be read. Lua raises here only when the VM
 * is out of memory, which ends the test anyway. */
static bool push_entry(lua_State *L, struct test_world *w, const struct spool_entry *at)
{
    struct port_spool *spool = sim_world_ports(w->sim, 0)->spool;
    struct spool_entry entry;
    struct recipient r = { 0 };
    struct message *m = NULL;
    struct arena arena;
    struct buf bytes;
    arena_init(&arena, 0);
    buf_init(&bytes, 0);
    bool ok = spool->read_recipient(spool, &at->id, at->n, &entry, &bytes) == 0 &&
              recipient_decode(&arena, at->n, buf_str(&bytes), &r) == 0;
    ok = ok && spool->read_message(spool, &at->id, &bytes) == 0 &&
         message_decode(&at->id, buf_str(&bytes), &m) == 0;
    if (ok) {
        push_recipient(L, w, at, &r, m);
        set_changes(L, &arena, m);
    }
    message_unref(m);
    recipient_done(&r);
    arena_done(&arena);
    buf_done(&bytes);
    return ok;
}

static int native_queue(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    struct port_spool *spool = sim_world_ports(w->sim, 0)->spool;
    struct spool_entry entry, after = { 0 };
    lua_Integer n = 0;
    lua_newtable(L);
    while (spool->scan_entries(spool, n ? &after.id : NULL, after.n, &entry, 1) == 1) {
        after = entry;
        if (!push_entry(L, w, &entry))
            return raise(L, "an entry of the queue cannot be read");
        lua_rawseti(L, -2, ++n);
    }
    return 1;
}

/* content(world, id) -> the message as it is queued; nothing: there is none of that id. */
static int native_content(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    struct port_spool *spool = sim_world_ports(w->sim, 0)->spool;
    struct msgid id;
    struct buf piece;
    luaL_Buffer all;
    if (msgid_parse(lua_str(L, 2), &id) < 0)
        return 0;
    luaL_buffinit(L, &all);
    buf_init(&piece, 0);
    for (uint32_t i = 0; spool->read_chunk(spool, &id, i, &piece) == 0; i++)
        luaL_addlstring(&all, buf_str(&piece).p, buf_len(&piece));
    buf_done(&piece);
    luaL_pushresult(&all);
    return lua_rawlen(L, -1) > 0;
}

static void push_event(lua_State *L, const struct sim_entry *e)
{
    static const char *const levels[] = { [EVENT_DEBUG] = "debug",
                                          [EVENT_INFO] = "info",
                                          [EVENT_WARN] = "warn",
                                          [EVENT_ERROR] = "error" };
    lua_createtable(L, 0, (int)e->event.n + 3);
    test_set_str(L, "event", str_of(e->event.name));
    test_set_str(L, "level", str_of(levels[e->event.level]));
    lua_pushnumber(L, (lua_Number)e->wall_ms / 1000);
    lua_setfield(L, -2, "time");
    for (size_t i = 0; i < e->event.n; i++) {
        const struct event_field *f = &e->event.fields[i];
        if (!f->name[0] || (f->type == FIELD_STR && !f->s.p))
            continue;
        switch (f->type) {
        case FIELD_STR: push_str(L, f->s); break;
        case FIELD_INT: lua_pushinteger(L, f->i); break;
        case FIELD_BOOL: lua_pushboolean(L, f->i != 0); break;
        case FIELD_REAL: lua_pushnumber(L, f->r); break;
        }
        lua_setfield(L, -2, f->name);
    }
}

static int native_events(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    const char *name = luaL_optstring(L, 2, NULL);
    const struct sim_entry *e = NULL;
    lua_Integer n = 0;
    lua_newtable(L);
    while ((e = sim_journal_next(sim_world_journal(w->sim), name, e))) {
        push_event(L, e);
        lua_rawseti(L, -2, ++n);
    }
    return 1;
}

/* absent(world, address, whether) -> true; nothing: that is no address. */
static int native_absent(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    struct net_addr addr;
    if (net_addr_parse_ip(lua_str(L, 2), &addr) < 0)
        return 0;
    sim_world_absent(w->sim, &addr, lua_toboolean(L, 3));
    lua_pushboolean(L, true);
    return 1;
}

/* Where the function that is `level` calls up stands, as "file:line: ". */
static int native_where(lua_State *L)
{
    luaL_where(L, (int)luaL_checkinteger(L, 1));
    return 1;
}

static int native_has_text(lua_State *L)
{
    lua_pushboolean(L, luaL_getmetafield(L, 1, "__tostring") != LUA_TNIL);
    return 1;
}

/* ---- the table -------------------------------------------------------------------------------- */

void test_add_world_functions(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "reload", native_reload },
        { "restart", native_restart },
        { "duration", native_duration },
        { "advance", native_advance },
        { "now", native_now },
        { "zone", native_zone },
        { "dns_fail", native_dns_fail },
        { "dns_secure", native_dns_secure },
        { "asked", native_asked },
        { "send", native_send },
        { "session_open", native_session_open },
        { "session_line", native_session_line },
        { "session_reply", native_session_reply },
        { "session_auth", native_session_auth },
        { "session_serve", native_session_serve },
        { "session_close", native_session_close },
        { "queue", native_queue },
        { "content", native_content },
        { "events", native_events },
        { "absent", native_absent },
        { "where", native_where },
        { "has_text", native_has_text },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
}

void test_push_native(struct test_run *run)
{
    lua_State *L = run->L;
    luaL_newmetatable(L, world_type);
    lua_pushstring(L, "world");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushlightuserdata(L, run);
    lua_pushcclosure(L, native_world, 1);
    lua_setfield(L, -2, "world");
    test_add_world_functions(L);
    test_add_host_functions(L);
    test_add_file_functions(run);
}
