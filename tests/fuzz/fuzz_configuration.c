/* Configurations: whatever an operator writes is loaded or refused with words, within its budget.
 *
 * The input is files parted by 0x1e: the configuration, a policy (policies/p.lua), a map (m.map), a secret (secret).
 * When its first byte is below 8, it is instead a sequence of settings: a byte that chooses the key among all that
 * schema.lua has, then a value (see `add_value`); a configuration is written that has them.
 *
 * What is loaded is within the bounds that docs/configuration.md says, and when it is run again it gives a VM for a
 * worker. */
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/load.h"
#include "engine/hook.h"
#include "lua/embedded.h"
#include "mail/address.h"

enum { FILE_END = 0x1e, MAX_KEYS = 400, MAX_VALUES = 40, MAX_DEPTH = 4, MEMORY = 16 << 20 };
enum { LOAD_MS = 30, INPUT_MAX = 8192 };

/* ---- files in memory ---- */

static struct buf files[4];

static int read_file(const struct policy_files *self, const char *path, bool secret,
                     struct buf *ret)
{
    static const char *const names[] = { "/etc/tern/tern.lua", "/etc/tern/policies/p.lua",
                                         "/etc/tern/m.map", "/etc/tern/secret" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(path, names[i]) == 0) {
            int r = buf_add_str(ret, buf_str(&files[i]));
            return r == -EMSGSIZE ? -EFBIG : r;
        }
    return secret ? -EPERM : strstr(path, "closed") ? -EACCES : -ENOENT;
}

/* ---- keys of the schema ---- */

static struct {
    char *path[3]; /* "limits", "recipients" */
    size_t n;
} keys[MAX_KEYS];
static size_t n_keys;

static void add_key(const char *outer, const char *name)
{
    CHECK(n_keys < MAX_KEYS);
    if (outer)
        keys[n_keys].path[keys[n_keys].n++] = strdup(outer);
    keys[n_keys].path[keys[n_keys].n++] = strdup(name);
    n_keys++;
}

/* The table of a table's fields is on top. */
static void add_keys(lua_State *L, const char *outer)
{
    for (lua_Integer i = 1; lua_geti(L, -1, i) == LUA_TTABLE; i++) {
        lua_getfield(L, -1, "name");
        const char *name = lua_tostring(L, -1);
        add_key(outer, name);
        if (!outer && lua_getfield(L, -2, "fields") == LUA_TTABLE)
            add_keys(L, name);
        lua_settop(L, lua_absindex(L, outer ? -2 : -3));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void find_keys(void)
{
    static const char *const tables[] = { "configuration", "listen", "certificate", "source" };
    lua_State *L = luaL_newstate();
    const struct embedded_module *m = embedded_modules;

    CHECK(L);
    luaL_openlibs(L);
    while (m->name && strcmp(m->name, "tern.schema") != 0)
        m++;
    CHECK(m->name && luaL_dostring(L, m->data) == LUA_OK && lua_istable(L, -1));
    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        CHECK(lua_getfield(L, -1, tables[i]) == LUA_TTABLE);
        CHECK(lua_getfield(L, -1, "fields") == LUA_TTABLE);
        add_keys(L, i ? tables[i] : NULL);
        lua_settop(L, 1);
    }
    lua_close(L);
    CHECK(n_keys > 100);
}

/* ---- settings from bytes ---- */

static const char *const values[] = {
    "true",
    "false",
    "nil",
    "0",
    "1",
    "-1",
    "100",
    "1e308",
    "0/0",
    "math.maxinteger",
    "math.mininteger",
    "2^53",
    "1.5",
    "'30s'",
    "'5m'",
    "'5d'",
    "'forever'",
    "'never'",
    "'0s'",
    "'50M'",
    "'1K'",
    "'999999999999G'",
    "'60/m'",
    "'60/m,burst=20'",
    "'1/s'",
    "'1m,5m*4,1h...'",
    "'127.0.0.0/8'",
    "'::1'",
    "'192.0.2.1:25'",
    "'[::]:2525'",
    "'/run/tern/lmtp'",
    "'example.com'",
    "'.example.com'",
    "'*'",
    "'<>'",
    "'a@example.com'",
    "'auto'",
    "'offer'",
    "'none'",
    "'require'",
    "'implicit'",
    "'submission'",
    "'lmtp'",
    "'odmr'",
    "'defer'",
    "'reject'",
    "'660'",
    "'PLAIN'",
    "function() end",
    "route.mx { domain = 'example.com' }",
    "route.hosts { 'mail.example' }",
    "tern.map.file 'm.map'",
    "tern.secret 'secret'",
    "require 'p'",
    "{}",
    "setmetatable({}, {})",
    "c",
    "print",
    "tern",
    "string.rep('x', 70000)",
};

static uint8_t take(struct str *in)
{
    uint8_t b = in->n ? (uint8_t)*in->p : 0;

    *in = str_from(*in, 1);
    return b;
}

static void add_quoted(struct buf *out, struct str s)
{
    buf_add_char(out, '"');
    for (size_t i = 0; i < s.n; i++)
        buf_printf(out, "\\x%02x", (unsigned char)s.p[i]);
    buf_add_char(out, '"');
}

/* A byte: below 64 one of `values`; 64 to 127 a string of so many bytes less 64 (at most 63); 128 to 191 a number of
 * four bytes; else a table of up to 7 entries, each of which is a value alone, or a key and a value. */
static void add_value(struct buf *out, struct str *in, unsigned depth)
{
    uint8_t b = take(in);

    if (b < 64) {
        buf_add_str(out, str_of(values[b % ARRAY_LEN(values)]));
    } else if (b < 128) {
        struct str s = str_first(*in, b - 64u);
        *in = str_from(*in, s.n);
        add_quoted(out, s);
    } else if (b < 192) {
        uint32_t n = 0;
        for (int i = 0; i < 4; i++)
            n = n << 8 | take(in);
        buf_printf(out, "%d", (int)n);
    } else {
        buf_add_char(out, '{');
        for (unsigned i = 0; i < (b & 7u) && depth < MAX_DEPTH && in->n; i++) {
            uint8_t key = take(in);
            if (key >= 192) {
                buf_add_char(out, '[');
                add_value(out, in, MAX_DEPTH);
                buf_printf(out, " or 1]=");
            } else if (key >= 64) {
                size_t k = key % n_keys;
                buf_printf(out, "%s=", keys[k].path[keys[k].n - 1]);
            }
            add_value(out, in, depth + 1);
            buf_add_char(out, ',');
        }
        buf_add_char(out, '}');
    }
}

static void add_setting(struct buf *out, struct str *in)
{
    size_t k = (take(in) << 8 | take(in)) % n_keys;

    if (keys[k].n == 2) {
        buf_printf(out, "c.%s = c.%s or {}\n", keys[k].path[0], keys[k].path[0]);
        buf_printf(out, "c.%s.%s = ", keys[k].path[0], keys[k].path[1]);
    } else {
        buf_printf(out, "c.%s = ", keys[k].path[0]);
    }
    add_value(out, in, 0);
    buf_add_char(out, '\n');
}

static void write_files(struct str in)
{
    struct str part;

    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        buf_init(&files[i], 0);
    if (in.n == 0 || *in.p >= 8) {
        for (size_t i = 0; i < ARRAY_LEN(files) && str_cut(&in, FILE_END, &part); i++)
            buf_add_str(&files[i], part);
        return;
    }
    in = str_from(in, 1);
    buf_add_str(&files[0], STR("local tern, route = require 'tern', require 'tern.route'\n"
                               "local c = { hostname = 'mx.example.com' }\n"));
    for (int i = 0; i < MAX_VALUES && in.n; i++)
        add_setting(&files[0], &in);
    buf_add_str(&files[0], STR("return c\n"));
    buf_add_str(&files[1], STR("return { route = function() end }\n"));
    buf_add_str(&files[2], STR("example.com mx\n"));
    buf_add_str(&files[3], STR("pencil\n"));
}

/* ---- what is loaded ---- */

static void check_listen(const struct listen_settings *l)
{
    CHECK(l->addr.family != NET_NONE && l->text.n > 0 && l->service.n > 0);
    CHECK(l->deliver_by_min_ms >= 0 && l->future_release_ms >= 0 && l->greeting_delay_ms >= 0);
    CHECK(l->chunking || !l->binarymime);
    CHECK((l->mode & ~0777u) == 0);
}

static void check_queue(const struct settings *s)
{
    CHECK(s->queue.lifetime_ms >= 1 && s->queue.recipients >= 1 && s->queue.connections >= 1);
    CHECK(s->queue.concurrency >= 1 && s->queue.max_concurrency >= s->queue.concurrency);
    CHECK(s->queue.host_connections >= 1 && s->queue.per_connection >= 1);
    CHECK(s->queue.idle_ms >= 0 && s->queue.connection_ms >= 0);
    CHECK(s->queue.host_retry_ms >= 1000 && s->queue.host_retry_max_ms >= 1000);
    for (uint32_t n = 1; n < 50; n++)
        CHECK(schedule_delay(&s->queue.retry, n) >= 0);
}

static void check_settings(const struct settings *s)
{
    char normal[DOMAIN_TEXT];
    const int64_t *timeout = &s->timeouts.command_ms;

    CHECK(domain_normalize(s->hostname, normal, sizeof(normal)) > 0);
    CHECK(str_eq(s->file, STR("/etc/tern/tern.lua")));
    CHECK(s->spool.n > 0 && s->control.n > 0 && s->log.n > 0);
    CHECK(s->workers >= 1 && s->workers <= 256 && s->n_listen <= 64);
    for (size_t i = 0; i < s->n_listen; i++)
        check_listen(&s->listen[i]);
    CHECK(s->n_certificates <= 256);
    CHECK(!s->auth.offered || (s->auth.attempts >= 1 && s->auth.attempts <= 100));
    CHECK(s->dns_timeout_ms >= 1);
    CHECK(s->clients.connections <= 1000000);
    CHECK(s->clients.ipv4_prefix >= 8 && s->clients.ipv4_prefix <= 32);
    CHECK(s->clients.ipv6_prefix >= 16 && s->clients.ipv6_prefix <= 128);
    CHECK(s->limits.message_size >= 1024 && s->limits.recipients >= 100);
    CHECK(s->limits.sessions >= 1 && s->limits.errors >= 1 && s->limits.stress_errors >= 1);
    CHECK(s->limits.stress >= 1 && s->limits.stress <= 100 && s->limits.memory >= 1 << 20);
    CHECK(s->limits.received_headers >= 1 && s->limits.etrn_queues >= 1);
    for (size_t i = 0; i < sizeof(s->timeouts) / sizeof(*timeout); i++)
        CHECK(timeout[i] >= 1);
    check_queue(s);
}

static bool is_of_the_budget(const char *text)
{
    return strstr(text, "processor time") || strstr(text, "memory");
}

/* What a worker makes of it: the same file runs again. Only what it draws at random may make a difference. */
static void check_worker(struct loaded *l)
{
    struct ports ports = { 0 };
    struct hooks *hooks = NULL;
    struct policy_error *err = calloc(1, sizeof(*err));

    CHECK(err);
    int r = policy_vm_new(l->source, l->settings, &ports, &hooks, err);
    if (r == 0) {
        CHECK(hooks);
        hooks->free(hooks);
    } else {
        CHECK(err->message[0]);
        CHECK(is_of_the_budget(err->message) || str_find(buf_str(&files[0]), STR("random")) >= 0 ||
              str_find(buf_str(&files[1]), STR("random")) >= 0);
    }
    free(err);
}

static int load_once(struct loaded *l, struct policy_error *err)
{
    static const struct policy_files port = { .read = read_file };
    struct policy_options options = {
        .files = &port, .memory = MEMORY, .load_ms = LOAD_MS, .cpus = 2
    };

    *l = (struct loaded){ 0 };
    memset(err, 0, sizeof(*err));
    int r = policy_load("/etc/tern/tern.lua", &options, &l->source, &l->settings, err);
    CHECK(r <= 0 && (r == 0) == (l->source != NULL) && (r == 0) == (l->settings != NULL));
    if (r < 0)
        CHECK(err->message[0] && (err->exit_code == 66 || err->exit_code == 70 ||
                                  err->exit_code == 77 || err->exit_code == 78));
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct policy_error *err = malloc(sizeof(*err));
    struct failure failure;
    struct loaded l;

    CHECK(err);
    if (!n_keys)
        find_keys();
    write_files(str_make(data, MIN(size, (size_t)INPUT_MAX)));
    if (load_once(&l, err) == 0) {
        check_settings(l.settings);
        CHECK(l.settings->fingerprint == policy_source_fingerprint(l.source));
        int r = load_check(&l, &failure);
        CHECK(r == 0 || failure.text[0]);
        check_worker(&l);
    }
    loaded_done(&l);
    free(err);
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        buf_done(&files[i]);
    return 0;
}
