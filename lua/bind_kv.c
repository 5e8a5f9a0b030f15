/* bind_kv.c - tern.kv: what policies remember in the spool, for all workers, over restarts.
 *
 * Layer: lua. Interface: sandbox.h. Reading is at once, of what is committed. Writing waits for the commit
 * that holds it, so that whoever comes after sees it, in every worker. A write whose hook is cancelled
 * meanwhile is done all the same; nobody is told. Values are stored with one octet in front: 's' a string
 * as it is, 'j' JSON.
 */
#include "lua/policies.h"
#include "lua/sandbox.h"
#include "lua/task.h"
#include "lua/value.h"

static const char kv_type[] = "kv", each_type[] = "kv.each";
enum { DEFAULT_MAX = 100000, BATCH = 64 };

struct kv {
    uint64_t max;
    size_t name_n;
    char name[SPOOL_KV_MAX_NAME];
};

static struct kv *check_kv(lua_State *L)
{
    return luaL_checkudata(L, 1, kv_type);
}

static struct str kv_name(const struct kv *kv)
{
    return str_make(kv->name, kv->name_n);
}

static struct ports *ports_of(lua_State *L, const char *what)
{
    const struct task *task = vm_of(L)->current;

    if (!task)
        vm_raise(L, "%s can only be called inside of a hook", what);
    return task->policies->ports;
}

static struct str check_key(lua_State *L, const char *what)
{
    if (lua_type(L, 2) != LUA_TSTRING)
        vm_raise(L, "%s needs a key (a string), got %s", what, luaL_typename(L, 2));
    return lua_str(L, 2);
}

static bool key_fits(struct str key)
{
    return key.n >= 1 && key.n <= SPOOL_KV_MAX_KEY;
}

/* ---- values ----------------------------------------------------------------------------------- */

static void push_json(lua_State *L, const char *function)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_LOADED);
    lua_getfield(L, -1, "tern.json");
    lua_getfield(L, -1, function);
    lua_insert(L, -3);
    lua_pop(L, 2);
}

/* Pushes the value at `index` as it is stored. */
static struct str encode(lua_State *L, int index, const char *what)
{
    switch (lua_type(L, index)) {
    case LUA_TSTRING:
        lua_pushliteral(L, "s");
        lua_pushvalue(L, index);
        break;
    case LUA_TNUMBER:
    case LUA_TBOOLEAN:
    case LUA_TTABLE:
        lua_pushliteral(L, "j");
        push_json(L, "encode");
        lua_pushvalue(L, index);
        lua_call(L, 1, 1);
        break;
    default:
        vm_raise(L, "%s needs a value (a string, number, boolean or table), got %s", what,
                 luaL_typename(L, index));
    }
    lua_concat(L, 2);
    return lua_str(L, -1);
}

/* Replaces the stored form on top by the value. What cannot be read is nil. */
static void decode(lua_State *L)
{
    struct str stored = lua_str(L, -1);

    if (stored.n && stored.p[0] == 's') {
        push_str(L, str_from(stored, 1));
    } else if (stored.n && stored.p[0] == 'j') {
        push_json(L, "decode");
        push_str(L, str_from(stored, 1));
        lua_call(L, 1, 1);
    } else {
        lua_pushnil(L);
    }
    lua_remove(L, -2);
}

static void push_left(lua_State *L, int64_t expires_ms, int64_t now_ms)
{
    if (expires_ms == INT64_MAX)
        lua_pushnil(L);
    else
        lua_pushnumber(L, (lua_Number)(expires_ms - now_ms) / 1000);
}

/* ---- failures --------------------------------------------------------------------------------- */

static int push_failure(lua_State *L, const char *kind, const char *text)
{
    lua_pushnil(L);
    lua_createtable(L, 0, 2);
    lua_pushstring(L, kind);
    lua_setfield(L, -2, "kind");
    lua_pushstring(L, text);
    lua_setfield(L, -2, "text");
    return 2;
}

static int push_error(lua_State *L, int error)
{
    switch (error) {
    case -EDQUOT: return push_failure(L, "full", "no room under this name");
    case -ENOSPC: return push_failure(L, "disk", "the disk of the spool is full");
    case -ESHUTDOWN: return push_failure(L, "stopping", "the router is stopping");
    default: return push_failure(L, "disk", "the spool cannot be read or written");
    }
}

/* ---- reading ---------------------------------------------------------------------------------- */

static int kv_get(lua_State *L)
{
    const struct kv *kv = check_kv(L);
    struct str key = check_key(L, "kv:get");
    const struct ports *ports = ports_of(L, "kv:get");
    int64_t now = ports->clock->wall(ports->clock), expires = 0;
    struct buf value;

    lua_settop(L, 2);
    lua_pushnil(L);
    if (!key_fits(key)) /* it could never be put */
        return 1;
    buf_init(&value, 0);
    int r = ports->spool->kv_read(ports->spool, kv_name(kv), key, &expires, &value);
    if (r < 0 || expires <= now) {
        buf_done(&value);
        return r < 0 && r != -ENOENT ? push_error(L, r) : 1;
    }
    push_str(L, buf_str(&value)); /* can raise for want of memory only */
    buf_done(&value);
    decode(L);
    push_left(L, expires, now);
    return 2;
}

/* Where a loop stands: the entries that were read at once, and the last key of them. */
struct each {
    struct buf rows;
    size_t at; /* in rows */
    bool ended;
};

static int each_gc(lua_State *L)
{
    struct each *each = luaL_checkudata(L, 1, each_type);

    buf_done(&each->rows);
    return 0;
}

/* upvalues: 1 the name's handle, 2 struct each, 3 the prefix, 4 the last key */
static int each_next(lua_State *L)
{
    const struct kv *kv = lua_touserdata(L, lua_upvalueindex(1));
    struct each *each = lua_touserdata(L, lua_upvalueindex(2));
    const struct ports *ports = ports_of(L, "kv:each");
    int64_t now = ports->clock->wall(ports->clock), expires;
    struct str key, value;

    for (;;) {
        struct str rest = str_from(buf_str(&each->rows), each->at);
        key = STR_NONE;
        while (spool_kv_take(&rest, &expires, &key, &value)) {
            each->at = buf_len(&each->rows) - rest.n;
            if (expires <= now)
                continue;
            push_str(L, key);
            push_str(L, value);
            decode(L);
            push_left(L, expires, now);
            if (rest.n == 0) { /* where to go on */
                lua_pushvalue(L, -3);
                lua_replace(L, lua_upvalueindex(4));
            }
            return 3;
        }
        if (each->ended)
            return 0;
        if (key.n) { /* the last one had ended */
            push_str(L, key);
            lua_replace(L, lua_upvalueindex(4));
        }
        each->at = 0;
        int n = ports->spool->kv_scan(ports->spool, kv_name(kv), lua_str(L, lua_upvalueindex(3)),
                                      lua_str(L, lua_upvalueindex(4)), &each->rows, BATCH);
        if (n < 0)
            return vm_raise(L, "kv:each: the spool cannot be read");
        each->ended = n == 0;
    }
}

static int kv_each(lua_State *L)
{
    check_kv(L);
    ports_of(L, "kv:each");
    if (lua_isnoneornil(L, 2)) {
        lua_settop(L, 1);
        lua_pushliteral(L, "");
    } else if (lua_type(L, 2) != LUA_TSTRING) {
        return vm_raise(L, "kv:each needs a prefix (a string) or nothing");
    }
    lua_settop(L, 2);
    struct each *each = lua_newuserdatauv(L, sizeof(*each), 0);
    *each = (struct each){ .at = 0 };
    buf_init(&each->rows, 0);
    luaL_setmetatable(L, each_type);
    lua_insert(L, 2);
    lua_pushliteral(L, "");
    lua_pushcclosure(L, each_next, 4);
    return 1;
}

/* ---- writing ---------------------------------------------------------------------------------- */

/* A change. While it is open the spool has it, too: given up then, it frees itself when it is told. */
struct kv_call {
    struct spool_op op;
    struct spool_change change;
    struct task *task; /* NULL: nobody waits any more */
    bool open;
    char bytes[];
};

static void call_done(struct spool_op *op)
{
    struct kv_call *c = CONTAINER_OF(op, struct kv_call, op);

    c->open = false;
    if (c->task)
        task_ready(c->task);
    else
        free(c);
}

static void call_free(void *operation)
{
    struct kv_call *c = operation;

    c->task = NULL;
    if (!c->open)
        free(c);
}

static int call_finish(lua_State *L, struct task *task)
{
    const struct kv_call *c = task->wait.operation;
    int r = c->op.result;

    if (r < 0 && r != -EEXIST && r != -ENOENT)
        return push_error(L, r);
    lua_pushboolean(L, r == 0);
    return 1;
}

static struct str append(char **at, struct str s)
{
    char *p = *at;

    if (s.n)
        memcpy(p, s.p, s.n);
    *at += s.n;
    return str_make(p, s.n);
}

static int submit(lua_State *L, const char *what, enum spool_change_type type, struct str value,
                  int64_t ttl_ms)
{
    const struct kv *kv = check_kv(L);
    struct str key = lua_str(L, 2);
    struct task *task = task_may_wait(L, what);
    struct ports *ports = task->policies->ports;
    int64_t now = ports->clock->wall(ports->clock);
    struct kv_call *c = calloc(1, sizeof(*c) + kv->name_n + key.n + value.n);

    if (!c)
        return vm_raise_no_memory(L);
    char *at = c->bytes;
    c->task = task;
    c->open = true;
    c->change.type = type;
    c->change.kv.name = append(&at, kv_name(kv));
    c->change.kv.key = append(&at, key);
    c->change.kv.value = append(&at, value);
    c->change.kv.now_ms = now;
    c->change.kv.expires_ms = ttl_ms > 0 && ttl_ms < INT64_MAX - now ? now + ttl_ms : INT64_MAX;
    c->change.kv.max = kv->max;
    c->op = (struct spool_op){ .changes = &c->change, .n_changes = 1, .done = call_done };
    task->wait.operation = c;
    task->wait.free_operation = call_free;
    ports->spool->submit(ports->spool, &c->op);
    return task_wait(L, task, NULL, call_finish, "%s", what);
}

static int put(lua_State *L, const char *what, enum spool_change_type type)
{
    int64_t ttl_ms = 0;

    check_kv(L);
    struct str key = check_key(L, what);
    lua_settop(L, 4);
    if (!lua_isnil(L, 4)) {
        value_check_options(L, what, 4);
        ttl_ms = field_int(L, 4, "ttl", 0);
    }
    struct str value = encode(L, 3, what);
    if (!key_fits(key))
        return push_failure(L, "size", "the key has no octet, or more than 400");
    if (value.n > SPOOL_KV_MAX_VALUE)
        return push_failure(L, "size", "the value has more than 8 KiB");
    return submit(L, what, type, value, ttl_ms);
}

static int kv_set(lua_State *L)
{
    return put(L, "kv:set", SPOOL_KV_SET);
}

static int kv_add(lua_State *L)
{
    return put(L, "kv:add", SPOOL_KV_ADD);
}

static int kv_delete(lua_State *L)
{
    check_kv(L);
    if (!key_fits(check_key(L, "kv:delete"))) {
        lua_pushboolean(L, 0);
        return 1;
    }
    return submit(L, "kv:delete", SPOOL_KV_DELETE, STR_NONE, 0);
}

/* ---- the handle ------------------------------------------------------------------------------- */

static int kv_new(lua_State *L)
{
    if (lua_type(L, 1) != LUA_TSTRING)
        return vm_raise(L, "tern.kv needs a name, got %s", luaL_typename(L, 1));
    struct str name = lua_str(L, 1);
    if (name.n < 1 || name.n > SPOOL_KV_MAX_NAME || str_chr(name, '\0') >= 0)
        return vm_raise(L, "the name of a tern.kv has 1 to %d octets, none of them zero",
                        SPOOL_KV_MAX_NAME);
    if (str_starts(name, STR("tern:")))
        return vm_raise(L, "names of tern.kv that begin with \"tern:\" are the router's own");
    lua_settop(L, 2);
    value_check_options(L, "tern.kv", 2);
    struct kv *kv = lua_newuserdatauv(L, sizeof(*kv), 0);
    kv->max = (uint64_t)field_int(L, 2, "max", DEFAULT_MAX);
    kv->name_n = name.n;
    memcpy(kv->name, name.p, name.n);
    luaL_setmetatable(L, kv_type);
    return 1;
}

void bind_kv_push(lua_State *L)
{
    static const luaL_Reg methods[] = { { "get", kv_get },   { "set", kv_set },
                                        { "add", kv_add },   { "delete", kv_delete },
                                        { "each", kv_each }, { NULL, NULL } };

    luaL_newmetatable(L, kv_type);
    luaL_newlib(L, methods);
    sandbox_seal(L, "kv");
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, kv_type);
    lua_setfield(L, -2, "__metatable");
    luaL_newmetatable(L, each_type);
    lua_pushcfunction(L, each_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 2);
    lua_pushcfunction(L, kv_new);
}
