/* cmd_test_host.c - `native` of lua/tern/sim.lua: remote hosts. Layer: daemon. Interface: cmd_test.h.
 *
 * Lua names a host by its address, in the form that native.host gave it. */
#include "daemon/cmd_test.h"
#include "lua/vm.h"
#include "proto/sasl.h"

static struct sim_host *host_at(lua_State *L, struct test_world **ret_world)
{
    struct test_world *w = test_world_at(L, 1);
    *ret_world = w;
    return sim_world_host(w->sim, luaL_checkstring(L, 2));
}

/* host(world, address) -> the address as it is written usually, and the host is there; nil: none. */
static int native_host(lua_State *L)
{
    struct test_world *w = test_world_at(L, 1);
    struct net_addr a;
    char text[NET_ADDR_TEXT];
    if (net_addr_parse(lua_str(L, 2), 0, &a) < 0)
        return 0;
    if (a.family == NET_UNIX || a.port)
        lua_pushstring(L, net_addr_text(&a, text));
    else
        lua_pushstring(L, net_addr_ip_text(&a, text));
    sim_world_host(w->sim, lua_tostring(L, -1));
    return 1;
}

static int native_reach(lua_State *L)
{
    static const char *const names[] = { "up", "down", "silent", "unreachable", NULL };
    static const enum sim_reach reach[] = { SIM_ACCEPTS, SIM_REFUSES, SIM_SILENT, SIM_UNREACHABLE };
    struct test_world *w;
    struct sim_host *h = host_at(L, &w);
    sim_host_set_reach(h, reach[luaL_checkoption(L, 3, NULL, names)]);
    return 0;
}

static enum smtp_stage stage_of(lua_State *L, const char *name)
{
    static const struct {
        const char *name;
        enum smtp_stage stage;
    } stages[] = {
        { "greeting", SMTP_STAGE_GREETING }, { "helo", SMTP_STAGE_HELO },
        { "auth", SMTP_STAGE_AUTH },         { "mail", SMTP_STAGE_MAIL },
        { "rcpt", SMTP_STAGE_RCPT },         { "data", SMTP_STAGE_DATA },
        { "body", SMTP_STAGE_BODY },         { "final", SMTP_STAGE_FINAL },
    };
    for (size_t i = 0; i < ARRAY_LEN(stages); i++)
        if (strcmp(stages[i].name, name) == 0)
            return stages[i].stage;
    return (enum smtp_stage)luaL_error(L, "'%s' is no stage", name);
}

static struct str text_field(lua_State *L, const char *key)
{
    lua_getfield(L, 3, key); /* stays on the stack while it is used */
    return lua_str(L, -1);
}

/* host_rule(world, address, { stage, address, code, enhanced, text, times, action, taken }) */
static int native_rule(lua_State *L)
{
    struct test_world *w;
    struct sim_host *h = host_at(L, &w);
    luaL_checktype(L, 3, LUA_TTABLE);
    lua_getfield(L, 3, "stage");
    struct sim_rule rule = { .stage = stage_of(L, luaL_checkstring(L, -1)) };
    rule.address = text_field(L, "address");
    rule.reply.text = text_field(L, "text");
    struct str enhanced = text_field(L, "enhanced"), action = text_field(L, "action");
    if (enhanced.p)
        smtp_enhanced_parse(enhanced, &rule.reply.enhanced);
    if (str_eq(action, STR("close")))
        rule.action = SIM_CLOSE;
    if (str_eq(action, STR("silence")))
        rule.action = SIM_SILENCE;
    lua_getfield(L, 3, "code");
    rule.reply.code = (uint16_t)lua_tointeger(L, -1);
    lua_getfield(L, 3, "times");
    rule.times = (uint32_t)lua_tointeger(L, -1);
    lua_getfield(L, 3, "taken");
    rule.taken = lua_toboolean(L, -1);
    sim_host_add_rule(h, &rule);
    return 0;
}

static int native_clear(lua_State *L)
{
    struct test_world *w;
    sim_host_clear_rules(host_at(L, &w));
    return 0;
}

/* "DELIVERBY", "DELIVERBY 60", "MT-PRIORITY": what a host does not offer at first. False: it is none of them. */
static bool offers(struct sim_host *h, struct str keyword)
{
    struct str word = STR_NONE;
    uint64_t least = 0;
    if (!str_cut(&keyword, ' ', &word))
        return false;
    if (str_eq(word, STR("MT-PRIORITY")) && keyword.n == 0) {
        sim_host_set_priority(h, true);
        return true;
    }
    if (!str_eq(word, STR("DELIVERBY")) || (keyword.n && str_to_u64(keyword, &least) < 0) ||
        least > SMTP_BY_MOST)
        return false;
    sim_host_set_deliver_by(h, true, (uint32_t)least);
    return true;
}

/* host_option(world, address, key, value) -> whether the value has a meaning. */
static int native_option(lua_State *L)
{
    static const char *const keys[] = { "delay", "starttls",   "lmtp",   "name",
                                        "hide",  "requiretls", "offers", NULL };
    static const char *const tls[] = { "none", "offered", "broken", "refused" };
    struct test_world *w;
    struct sim_host *h = host_at(L, &w);
    bool ok = true;
    switch (luaL_checkoption(L, 3, NULL, keys)) {
    case 0: sim_host_set_delay(h, luaL_checkinteger(L, 4)); break;
    case 1:
        ok = false;
        for (int i = 0; i < 4; i++)
            if (lua_type(L, 4) == LUA_TSTRING && strcmp(lua_tostring(L, 4), tls[i]) == 0) {
                sim_host_set_starttls(h, (enum sim_starttls)i);
                ok = true;
            }
        break;
    case 2: sim_host_set_lmtp(h, lua_toboolean(L, 4)); break;
    case 3: sim_host_set_name(h, lua_str(L, 4)); break;
    case 4: sim_host_hide(h, lua_str(L, 4)); break;
    case 5: sim_host_set_requiretls(h, lua_toboolean(L, 4)); break;
    case 6: ok = offers(h, lua_str(L, 4)); break;
    default: break;
    }
    lua_pushboolean(L, ok);
    return 1;
}

/* host_auth(world, address, user or nil, password, mechanisms or nil, in_clear) -> the name of a mechanism
 * that there is not, or nothing. */
static int native_auth(lua_State *L)
{
    struct test_world *w;
    struct sim_host *h = host_at(L, &w);
    uint32_t mechanisms = 0;
    for (lua_Integer i = 1; lua_istable(L, 5) && i <= (lua_Integer)lua_rawlen(L, 5); i++) {
        lua_rawgeti(L, 5, i);
        enum sasl_mechanism m = sasl_find(lua_str(L, -1));
        if (m == SASL_NONE)
            return 1;
        mechanisms |= SASL_BIT(m);
        lua_pop(L, 1);
    }
    if (lua_isstring(L, 3))
        sim_host_add_user(h, lua_str(L, 3), lua_str(L, 4));
    sim_host_set_auth(h, mechanisms, lua_toboolean(L, 6));
    return 0;
}

static uint32_t limit_field(lua_State *L, const char *key)
{
    lua_getfield(L, 3, key);
    lua_Integer n = lua_tointeger(L, -1);
    lua_pop(L, 1);
    return (uint32_t)n;
}

/* host_limits(world, address, { rcptmax, mailmax, rcptdomainmax }) */
static int native_limits(lua_State *L)
{
    struct test_world *w;
    struct sim_host *h = host_at(L, &w);
    luaL_checktype(L, 3, LUA_TTABLE);
    struct smtp_limits limits = { .rcptmax = limit_field(L, "rcptmax"),
                                  .mailmax = limit_field(L, "mailmax"),
                                  .rcptdomainmax = limit_field(L, "rcptdomainmax") };
    sim_host_set_limits(h, &limits);
    return 0;
}

static int native_over_limits(lua_State *L)
{
    struct test_world *w;
    lua_pushinteger(L, (lua_Integer)sim_host_over_limits(host_at(L, &w)));
    return 1;
}

static void push_received(lua_State *L, const struct sim_received *r)
{
    char ip[NET_ADDR_TEXT];
    ptrdiff_t end = str_find(r->content, STR("\r\n\r\n"));
    struct str body = end < 0 ? STR("") : str_from(r->content, (size_t)end + 4);
    if (str_ends(body, STR("\r\n")))
        body.n -= 2; /* the end of the last line is SMTP's */
    lua_createtable(L, 0, 9);
    test_set_str(L, "from", r->sender);
    test_set_str(L, "params", r->times);
    test_set_str(L, "content", r->content);
    test_set_str(L, "body", body);
    test_set_str(L, "helo", r->helo);
    test_set_str(L, "client", str_of(net_addr_ip_text(&r->from, ip)));
    lua_pushboolean(L, r->tls);
    lua_setfield(L, -2, "tls");
    lua_pushboolean(L, r->requiretls);
    lua_setfield(L, -2, "requiretls");
    if (r->identity.n)
        test_set_str(L, "identity", r->identity);
    if (r->certificate.n)
        test_set_str(L, "certificate", r->certificate);
    lua_pushinteger(L, (lua_Integer)r->session);
    lua_setfield(L, -2, "session");
    lua_pushnumber(L, (lua_Number)r->wall_ms / 1000);
    lua_setfield(L, -2, "time");
    lua_createtable(L, (int)r->n_recipients, 0);
    for (size_t i = 0; i < r->n_recipients; i++) {
        push_str(L, r->recipients[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "to");
}

static int native_inbox(lua_State *L)
{
    struct test_world *w;
    struct sim_host *h = host_at(L, &w);
    size_t n = sim_host_inbox(h);
    lua_createtable(L, (int)n, 0);
    for (size_t i = 0; i < n; i++) {
        push_received(L, sim_host_received(h, i));
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

static int native_connections(lua_State *L)
{
    struct test_world *w;
    lua_pushinteger(L, (lua_Integer)sim_host_sessions(host_at(L, &w)));
    return 1;
}

void test_add_host_functions(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "host", native_host },
        { "host_reach", native_reach },
        { "host_rule", native_rule },
        { "host_clear", native_clear },
        { "host_option", native_option },
        { "host_auth", native_auth },
        { "host_limits", native_limits },
        { "host_over_limits", native_over_limits },
        { "host_inbox", native_inbox },
        { "host_connections", native_connections },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
}
