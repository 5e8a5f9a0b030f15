/* interpret.c - a configuration table becomes settings. Interface: interpret.h. Layer: lua. */
#include "lua/interpret.h"

#include <stdio.h>
#include <unistd.h>

#include "engine/limits.h"
#include "lua/certificates.h"
#include "lua/value.h"
#include "proto/sasl.h"

/* ---- checking ------------------------------------------------------------------------------- */

struct check {
    const char *chunk, *where;
    struct policy_error *err;
    bool wrong;
};

/* 1: struct check, 2: the configuration. Returns the normal form, or fills in the error. */
static int run_check(lua_State *L)
{
    struct check *c = lua_touserdata(L, 1);
    struct str file = STR_NONE, message = STR("?");
    char name[256];

    vm_push_validate(L, "configuration");
    lua_pushvalue(L, 2);
    lua_pushstring(L, c->chunk);
    lua_call(L, 2, 2); /* 3, 4 */
    if (!lua_isnil(L, 3)) {
        lua_settop(L, 3);
        return 1;
    }
    field_str(L, 4, "file", &file);
    field_str(L, 4, "message", &message);
    int line = (int)field_int(L, 4, "line", 0);
    lua_getfield(L, 4, "prefix");
    bool prefix = lua_toboolean(L, -1);
    str_copy(file, name, sizeof(name));
    if (!file.n && c->where && prefix) {
        lua_pushfstring(L, "%s: %s", c->where, message.p);
        message = lua_str(L, -1);
    }
    policy_error_set(c->err, POLICY_EX_CONFIG, file.n ? name : NULL, line, prefix, message);
    c->wrong = true;
    return 0;
}

int interpret_check(struct vm *vm, const char *chunk, const char *where, struct policy_error *err)
{
    struct check c = { .chunk = chunk, .where = where, .err = err };
    lua_State *L = vm->L;

    lua_pushcfunction(L, run_check);
    lua_insert(L, -2);
    lua_pushlightuserdata(L, &c);
    lua_insert(L, -2);
    int r = vm_call(vm, 2, 1, err);
    if (r < 0 || !c.wrong)
        return r;
    lua_pop(L, 1);
    return -EINVAL;
}

/* ---- settings ------------------------------------------------------------------------------- */

/* Scalars: the table and key they stand under, and where they go. */
enum scalar { S_STR, S_U32, S_U64, S_I64, S_BOOL, S_SCHEDULE, S_RATE };

#define AT(field) offsetof(struct settings, field)
static const struct {
    const char *table, *key; /* table NULL: the top */
    enum scalar type;
    size_t at;
} scalars[] = {
    { NULL, "hostname", S_STR, AT(hostname) },
    { NULL, "spool", S_STR, AT(spool) },
    { NULL, "control", S_STR, AT(control) },
    { NULL, "log", S_STR, AT(log) },
    { NULL, "user", S_STR, AT(user) },
    { NULL, "sandbox", S_BOOL, AT(sandbox) },
    { NULL, "core_dumps", S_BOOL, AT(core_dumps) },
    { NULL, "workers", S_U32, AT(workers) },
    { "tls", "cert", S_STR, AT(tls_cert) },
    { "tls", "key", S_STR, AT(tls_key) },
    { "tls", "ca", S_STR, AT(tls_ca) },
    { "tls", "client_ca", S_STR, AT(tls_client_ca) },
    { "auth", "passwords", S_STR, AT(auth.passwords) },
    { "auth", "without_tls", S_BOOL, AT(auth.without_tls) },
    { "auth", "attempts", S_U32, AT(auth.attempts) },
    { "dns", "timeout", S_I64, AT(dns_timeout_ms) },
    { "dns", "trust_ad", S_BOOL, AT(dns_trust_ad) },
    { "dns", "allow_loopback_mx", S_BOOL, AT(allow_loopback_mx) },
    { "limits", "message_size", S_U64, AT(limits.message_size) },
    { "limits", "recipients", S_U32, AT(limits.recipients) },
    { "limits", "messages", S_U32, AT(limits.messages) },
    { "limits", "sessions", S_U32, AT(limits.sessions) },
    { "limits", "errors", S_U32, AT(limits.errors) },
    { "limits", "stress", S_U32, AT(limits.stress) },
    { "limits", "stress_errors", S_U32, AT(limits.stress_errors) },
    { "clients", "connections", S_U32, AT(clients.connections) },
    { "clients", "connection_rate", S_RATE, AT(clients.connection_rate) },
    { "clients", "message_rate", S_RATE, AT(clients.message_rate) },
    { "clients", "recipient_rate", S_RATE, AT(clients.recipient_rate) },
    { "clients", "ipv4_prefix", S_U32, AT(clients.ipv4_prefix) },
    { "clients", "ipv6_prefix", S_U32, AT(clients.ipv6_prefix) },
    { "limits", "memory", S_U64, AT(limits.memory) },
    { "limits", "received_headers", S_U32, AT(limits.received_headers) },
    { "limits", "etrn_per_session", S_U32, AT(limits.etrn_per_session) },
    { "limits", "etrn_per_client", S_U32, AT(limits.etrn_per_client) },
    { "limits", "etrn_queues", S_U32, AT(limits.etrn_queues) },
    { "timeouts", "command", S_I64, AT(timeouts.command_ms) },
    { "timeouts", "data", S_I64, AT(timeouts.data_ms) },
    { "timeouts", "session", S_I64, AT(timeouts.session_ms) },
    { "timeouts", "stress", S_I64, AT(timeouts.stress_ms) },
    { "timeouts", "connect", S_I64, AT(timeouts.connect_ms) },
    { "timeouts", "greeting", S_I64, AT(timeouts.greeting_ms) },
    { "timeouts", "helo", S_I64, AT(timeouts.helo_ms) },
    { "timeouts", "mail", S_I64, AT(timeouts.mail_ms) },
    { "timeouts", "rcpt", S_I64, AT(timeouts.rcpt_ms) },
    { "timeouts", "data_command", S_I64, AT(timeouts.data_command_ms) },
    { "timeouts", "body", S_I64, AT(timeouts.body_ms) },
    { "timeouts", "final", S_I64, AT(timeouts.final_ms) },
    { "timeouts", "quit", S_I64, AT(timeouts.quit_ms) },
    { "timeouts", "proxy", S_I64, AT(timeouts.proxy_ms) },
    { "timeouts", "hook", S_I64, AT(timeouts.hook_ms) },
    { "timeouts", "shutdown", S_I64, AT(timeouts.shutdown_ms) },
    { "queue", "retry", S_SCHEDULE, AT(queue.retry) },
    { "queue", "lifetime", S_I64, AT(queue.lifetime_ms) },
    { "queue", "warn_after", S_I64, AT(queue.warn_after_ms) },
    { "queue", "concurrency", S_U32, AT(queue.concurrency) },
    { "queue", "max_concurrency", S_U32, AT(queue.max_concurrency) },
    { "queue", "connections", S_U32, AT(queue.connections) },
    { "queue", "host_connections", S_U32, AT(queue.host_connections) },
    { "queue", "per_connection", S_U32, AT(queue.per_connection) },
    { "queue", "idle", S_I64, AT(queue.idle_ms) },
    { "queue", "connection_age", S_I64, AT(queue.connection_ms) },
    { "queue", "recipients", S_U32, AT(queue.recipients) },
    { "queue", "host_retry", S_I64, AT(queue.host_retry_ms) },
    { "queue", "host_retry_max", S_I64, AT(queue.host_retry_max_ms) },
};

/* The value on top into the place; leaves the place alone when there is none. */
static void take_scalar(lua_State *L, struct settings *s, enum scalar type, size_t at)
{
    char *place = (char *)s + at;

    if (lua_isnil(L, -1))
        return;
    switch (type) {
    case S_STR: *(struct str *)(void *)place = arena_str(&s->arena, lua_str(L, -1)); break;
    case S_U32: *(uint32_t *)(void *)place = (uint32_t)lua_tointeger(L, -1); break;
    case S_U64: *(uint64_t *)(void *)place = (uint64_t)lua_tointeger(L, -1); break;
    case S_I64: *(int64_t *)(void *)place = lua_tointeger(L, -1); break;
    case S_BOOL: *(bool *)place = lua_toboolean(L, -1); break;
    case S_RATE: limit_rate_parse(lua_str(L, -1), (struct rate *)(void *)place); break;
    case S_SCHEDULE: schedule_parse(lua_str(L, -1), (struct schedule *)(void *)place); break;
    }
}

static void take_scalars(lua_State *L, struct settings *s)
{
    for (size_t i = 0; i < ARRAY_LEN(scalars); i++) {
        lua_settop(L, 3);
        lua_pushvalue(L, 2);
        if (scalars[i].table && lua_getfield(L, 2, scalars[i].table) != LUA_TTABLE)
            continue;
        lua_getfield(L, -1, scalars[i].key);
        take_scalar(L, s, scalars[i].type, scalars[i].at);
    }
}

/* Pushes the list at table.key (or key) and returns its length; 0 and nothing pushed: there is
 * none. */
static size_t push_list(lua_State *L, const char *table, const char *key)
{
    lua_settop(L, 3);
    lua_pushvalue(L, 2);
    if (table && lua_getfield(L, 2, table) != LUA_TTABLE)
        return 0;
    if (lua_getfield(L, -1, key) != LUA_TTABLE)
        return 0;
    return lua_rawlen(L, -1);
}

/* tern.validate has parsed all of these; what fails here is memory. */
static void take_addresses(lua_State *L, struct settings *s, const char *table, const char *key,
                           uint16_t port, struct net_addr **ret, size_t *ret_n)
{
    size_t n = push_list(L, table, key);

    *ret = ARENA_ARRAY(&s->arena, struct net_addr, n);
    for (size_t i = 0; *ret && i < n; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        net_addr_parse(lua_str(L, -1), port, &(*ret)[i]);
        lua_pop(L, 1);
    }
    *ret_n = *ret ? n : 0;
}

/* The n networks of the list on top (n 0: of nothing); returns how many there are. */
static size_t take_networks(lua_State *L, struct settings *s, size_t n, struct net_cidr **ret)
{
    *ret = ARENA_ARRAY(&s->arena, struct net_cidr, n);
    for (size_t i = 0; *ret && i < n; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        net_cidr_parse(lua_str(L, -1), &(*ret)[i]);
        lua_pop(L, 1);
    }
    return *ret ? n : 0;
}

/* The same for texts. */
static size_t take_texts(lua_State *L, struct settings *s, size_t n, struct str **ret)
{
    *ret = ARENA_ARRAY(&s->arena, struct str, n);
    for (size_t i = 0; *ret && i < n; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        (*ret)[i] = arena_str(&s->arena, lua_str(L, -1));
        lua_pop(L, 1);
    }
    return *ret ? n : 0;
}

static void take_lists(lua_State *L, struct settings *s)
{
    size_t n;

    take_addresses(L, s, "dns", "servers", 53, &s->dns_servers, &s->n_dns_servers);
    take_addresses(L, s, "self", "addresses", 0, &s->self_addresses, &s->n_self_addresses);

    n = push_list(L, NULL, "relay_from");
    s->n_relay_from = take_networks(L, s, n, &s->relay_from);
    n = push_list(L, NULL, "priority_from");
    s->n_priority_from = take_networks(L, s, n, &s->priority_from);
    n = push_list(L, NULL, "xclient_from");
    s->n_xclient_from = take_networks(L, s, n, &s->xclient_from);
    n = push_list(L, "clients", "exempt");
    if (lua_type(L, -1) == LUA_TTABLE) /* an empty one, too */
        s->clients.n_exempt = take_networks(L, s, n, &s->clients.exempt);
    n = push_list(L, "self", "names");
    s->n_self_names = take_texts(L, s, n, &s->self_names);
}

/* More certificates than tls.cert. */
static void take_certificates(lua_State *L, struct settings *s)
{
    size_t n = push_list(L, "tls", "certificates");
    int list = lua_gettop(L);
    struct str text;

    s->certificates = ARENA_ARRAY(&s->arena, struct certificate_settings, n);
    for (size_t i = 0; s->certificates && i < n; i++) {
        struct certificate_settings *one = &s->certificates[s->n_certificates++];
        lua_rawgeti(L, list, (lua_Integer)i + 1);
        int entry = lua_gettop(L);
        if (field_str(L, entry, "cert", &text))
            one->cert = arena_str(&s->arena, text);
        if (field_str(L, entry, "key", &text))
            one->key = arena_str(&s->arena, text);
        if (lua_getfield(L, entry, "names") == LUA_TTABLE)
            one->n_names = take_texts(L, s, lua_rawlen(L, -1), &one->names);
        lua_settop(L, list);
    }
}

static bool field_is_false(lua_State *L, int table, const char *name)
{
    bool is = lua_getfield(L, table, name) == LUA_TBOOLEAN && !lua_toboolean(L, -1);

    lua_pop(L, 1);
    return is;
}

static bool has_certificate(const struct settings *s)
{
    return s->tls_cert.n || s->n_certificates;
}

static enum listen_clients listen_clients_of(lua_State *L, int entry,
                                             const struct listen_settings *l)
{
    if (field_is(L, entry, "client_certificates", "require"))
        return LISTEN_CLIENTS_REQUIRE;
    if (field_is(L, entry, "client_certificates", "ask"))
        return LISTEN_CLIENTS_ASK;
    if (field_is(L, entry, "client_certificates", "none"))
        return LISTEN_CLIENTS_NONE;
    return l->client_ca.n ? LISTEN_CLIENTS_ASK : LISTEN_CLIENTS_NONE;
}

static enum listen_auth listen_auth_of(lua_State *L, int entry, struct str service)
{
    if (field_is(L, entry, "auth", "none"))
        return LISTEN_AUTH_NONE;
    if (field_is(L, entry, "auth", "offer"))
        return LISTEN_AUTH_OFFER;
    if (field_is(L, entry, "auth", "require") || str_eq(service, STR("submission")))
        return LISTEN_AUTH_REQUIRE;
    return str_eq(service, STR("lmtp")) ? LISTEN_AUTH_NONE : LISTEN_AUTH_OFFER;
}

static enum listen_tls listen_tls_of(lua_State *L, int entry, const struct listen_settings *l,
                                     const struct settings *s)
{
    if (field_is(L, entry, "tls", "offer"))
        return LISTEN_TLS_OFFER;
    if (field_is(L, entry, "tls", "none"))
        return LISTEN_TLS_NONE;
    if (field_is(L, entry, "tls", "require"))
        return LISTEN_TLS_REQUIRE;
    if (field_is(L, entry, "tls", "implicit"))
        return LISTEN_TLS_IMPLICIT;
    if (!has_certificate(s) || l->addr.family == NET_UNIX)
        return LISTEN_TLS_NONE;
    return str_eq(l->service, STR("submission")) ? LISTEN_TLS_REQUIRE : LISTEN_TLS_OFFER;
}

/* Octal digits, as tern.validate has seen to. */
static uint32_t mode_of(lua_State *L, int entry)
{
    struct str text = STR("660");
    uint32_t mode = 0;

    (void)field_str(L, entry, "mode", &text);
    for (size_t i = 0; i < text.n; i++)
        mode = mode * 8 + (uint32_t)(text.p[i] - '0');
    return mode;
}

static const int64_t future_release_default_ms = 30 * 24 * 3600 * (int64_t)1000;

/* When mail is to go, as far as its sender may say. */
static void take_times(lua_State *L, int entry, struct listen_settings *l)
{
    static const struct str profiles[] = {
        { "MIXER", 5 },
        { "STANAG4406", 10 },
        { "NSEP", 4 },
    };

    l->deliver_by = !field_is_false(L, entry, "deliver_by");
    l->deliver_by_min_ms = field_int(L, entry, "deliver_by_min", 0);
    l->future_release_ms =
        field_int(L, entry, "future_release",
                  str_eq(l->service, STR("submission")) ? future_release_default_ms : 0);
    l->priority = !field_is(L, entry, "priority", "none");
    l->priority_profile = STR("");
    for (size_t i = 0; i < ARRAY_LEN(profiles); i++)
        if (field_is(L, entry, "priority", profiles[i].p))
            l->priority_profile = profiles[i];
}

/* One entry (at the index) is one listener for each of its addresses. */
static void take_listen_entry(lua_State *L, int entry, struct settings *s)
{
    size_t n = lua_rawlen(L, entry);
    struct str service = STR("smtp"), socket = STR_NONE, group = STR_NONE;

    if (field_str(L, entry, "service", &service))
        service = arena_str(&s->arena, service);
    if (field_str(L, entry, "socket", &socket))
        socket = arena_str(&s->arena, socket);
    if (field_str(L, entry, "group", &group))
        group = arena_str(&s->arena, group);
    uint16_t port = str_eq(service, STR("lmtp")) ? 24 : 25;
    bool chunking = !field_is_false(L, entry, "chunking");
    bool binarymime = chunking && !field_is_false(L, entry, "binarymime");
    bool requiretls = !field_is_false(L, entry, "requiretls");
    struct net_cidr *proxy = NULL;
    struct str client_ca = s->tls_client_ca;
    size_t n_proxy = 0;
    if (field_str(L, entry, "client_ca", &client_ca))
        client_ca = arena_str(&s->arena, client_ca);
    if (lua_getfield(L, entry, "proxy") == LUA_TTABLE)
        n_proxy = take_networks(L, s, lua_rawlen(L, -1), &proxy);
    lua_pop(L, 1);
    for (size_t i = 0; i < n; i++) {
        struct listen_settings *l = &s->listen[s->n_listen++];
        lua_rawgeti(L, entry, (lua_Integer)i + 1);
        l->text = arena_str(&s->arena, lua_str(L, -1));
        net_addr_parse(l->text, port, &l->addr);
        l->service = service;
        l->socket = socket;
        l->tls = listen_tls_of(L, entry, l, s);
        l->auth = listen_auth_of(L, entry, service);
        l->mode = mode_of(L, entry);
        l->group = group;
        l->chunking = chunking;
        l->binarymime = binarymime;
        l->requiretls = requiretls;
        take_times(L, entry, l);
        l->client_ca = client_ca;
        l->clients = listen_clients_of(L, entry, l);
        l->greeting_delay_ms = field_int(L, entry, "greeting_delay", 0);
        l->proxy = proxy;
        l->n_proxy = n_proxy;
        lua_pop(L, 1);
    }
}

static void take_listen(lua_State *L, struct settings *s)
{
    size_t n = push_list(L, NULL, "listen"), total = 0;
    int list = lua_gettop(L);

    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, list, (lua_Integer)i + 1);
        total += lua_rawlen(L, -1);
        lua_pop(L, 1);
    }
    s->listen = ARENA_ARRAY(&s->arena, struct listen_settings, total);
    for (size_t i = 0; s->listen && i < n; i++) {
        lua_rawgeti(L, list, (lua_Integer)i + 1);
        take_listen_entry(L, lua_gettop(L), s);
        lua_pop(L, 1);
    }
}

/* tern.validate has made a list of the table. */
static void take_sources(lua_State *L, struct settings *s)
{
    size_t n = push_list(L, NULL, "sources");
    int list = lua_gettop(L);
    struct str text;

    s->sources = ARENA_ARRAY(&s->arena, struct source_settings, n);
    for (size_t i = 0; s->sources && i < n; i++) {
        struct source_settings *one = &s->sources[s->n_sources++];
        lua_rawgeti(L, list, (lua_Integer)i + 1);
        int entry = lua_gettop(L);
        if (field_str(L, entry, "address", &text))
            net_addr_parse_ip(text, &one->addr);
        if (field_str(L, entry, "hostname", &text))
            one->hostname = arena_str(&s->arena, text);
        if (field_str(L, entry, "rate", &text))
            rate_parse(text, &one->rate);
        one->concurrency = (uint32_t)field_int(L, entry, "concurrency", 0);
        lua_settop(L, list);
    }
}

/* What is known of users: the path from where the configuration lies. */
static void take_auth(lua_State *L, struct settings *s, struct str folder)
{
    size_t n = push_list(L, "auth", "mechanisms");

    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        s->auth.mechanisms |= SASL_BIT(sasl_find(lua_str(L, -1)));
        lua_pop(L, 1);
    }
    lua_settop(L, 3);
    s->auth.offered = lua_getfield(L, 2, "auth") == LUA_TTABLE;
    struct str path = s->auth.passwords;
    if (path.n == 0 || *path.p == '/')
        return;
    s->auth.passwords =
        arena_printf(&s->arena, STR_FMT "/" STR_FMT, STR_ARG(folder), STR_ARG(path));
    if (!s->auth.passwords.n)
        vm_raise_no_memory(L);
}

static uint32_t count_processors(const struct vm *vm)
{
    long n = vm->source->cpus ? (long)vm->source->cpus : sysconf(_SC_NPROCESSORS_ONLN);

    return n < 1 ? 1 : n > 256 ? 256 : (uint32_t)n;
}

static void listen_at(struct settings *s, const char *where)
{
    struct listen_settings *l = &s->listen[s->n_listen++];

    *l = (struct listen_settings){
        .service = STR("smtp"),
        .text = str_of(where),
        .chunking = true,
        .binarymime = true,
        .requiretls = true,
        .deliver_by = true,
        .priority = true,
    };
    l->tls = has_certificate(s) ? LISTEN_TLS_OFFER : LISTEN_TLS_NONE;
    l->client_ca = s->tls_client_ca;
    l->clients = l->client_ca.n ? LISTEN_CLIENTS_ASK : LISTEN_CLIENTS_NONE;
    CHECK(net_addr_parse(l->text, 25, &l->addr) == 0);
}

/* A router of which nothing else is said listens where mail arrives. */
static void listen_by_default(lua_State *L, struct settings *s)
{
    if (lua_getfield(L, 2, "listen") != LUA_TNIL)
        return;
    s->listen = ARENA_ARRAY(&s->arena, struct listen_settings, 2);
    if (!s->listen)
        vm_raise_no_memory(L);
    listen_at(s, "0.0.0.0:25");
    listen_at(s, "[::]:25");
}

/* 1: settings, 2: the configuration in normal form, 3: whether to listen by default */
static int fill_settings(lua_State *L)
{
    struct settings *s = lua_touserdata(L, 1);

    uint32_t host_connections = s->queue.host_connections;

    s->workers = s->queue.host_connections = 0;
    take_scalars(L, s);
    take_lists(L, s);
    take_sources(L, s);
    take_certificates(L, s);
    if (certificates_copy(vm_of(L), s) < 0)
        vm_raise_no_memory(L);
    take_listen(L, s);
    take_auth(L, s, str_of(vm_of(L)->source->dir));
    if (lua_toboolean(L, 3))
        listen_by_default(L, s);
    if (s->workers == 0)
        s->workers = count_processors(vm_of(L));
    if (!s->spool.n)
        s->spool = STR("/var/spool/tern");
    if (!s->control.n)
        s->control = arena_printf(&s->arena, STR_FMT "/control.sock", STR_ARG(s->spool));
    s->queue.max_concurrency = MAX(s->queue.max_concurrency, s->queue.concurrency);
    if (!s->queue.host_connections) /* not said: no narrower than one destination is */
        s->queue.host_connections = MAX(host_connections, s->queue.max_concurrency);
    s->queue.host_retry_max_ms = MAX(s->queue.host_retry_max_ms, s->queue.host_retry_ms);
    if (s->arena.failed) /* a certificate's path, say, without which there would be no TLS */
        vm_raise_no_memory(L);
    return 0;
}

int interpret_settings(struct vm *vm, bool listens, struct settings **ret, struct policy_error *err)
{
    struct settings *s = settings_new();

    if (!s) {
        policy_error_set(err, POLICY_EX_SOFTWARE, NULL, 0, false, STR("out of memory"));
        return -ENOMEM;
    }
    CHECK(lua_checkstack(vm->L, 4));
    lua_pushcfunction(vm->L, fill_settings);
    lua_pushlightuserdata(vm->L, s);
    lua_pushvalue(vm->L, -3);
    lua_pushboolean(vm->L, listens);
    int r = vm_call(vm, 3, 0, err);
    if (r < 0) {
        settings_unref(s);
        return r;
    }
    *ret = s;
    return 0;
}
