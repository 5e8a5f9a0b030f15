/* require.c - require, load and secret: what text becomes code, and where it comes from.
 *
 * Layer: lua. Interface: sandbox.h. While a configuration is loaded, modules are read beside it,
 * then in its policies/, then in further folders, then from the binary, and kept in the
 * policy_source; a VM of a worker finds them there and nowhere else. Names have letters, digits,
 * '_' and '-' in parts joined by dots, so no path leaves its folder.
 */
#include <stdio.h>

#include "lua/embedded.h"
#include "lua/sandbox.h"

enum { MAX_NAME = 128, MAX_MODULES = 1000, MAX_PATH = 4096 };

/* ---- errors with an exit code --------------------------------------------------------------- */

static int fault_text(lua_State *L)
{
    lua_getfield(L, 1, "message");
    return 1;
}

int raise_fault(lua_State *L, int exit_code)
{
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
    lua_createtable(L, 0, 2);
    lua_insert(L, -2);
    lua_setfield(L, -2, "message");
    lua_pushinteger(L, exit_code);
    lua_setfield(L, -2, "exit");
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, fault_text);
    lua_setfield(L, -2, "__tostring");
    lua_setmetatable(L, -2);
    lua_error(L);
    __builtin_unreachable();
}

/* ---- finding a module ----------------------------------------------------------------------- */

static bool good_part(struct str part)
{
    for (size_t i = 0; i < part.n; i++)
        if (!ascii_alnum(part.p[i]) && part.p[i] != '_' && part.p[i] != '-')
            return false;
    return part.n > 0;
}

static bool good_name(struct str name)
{
    struct str rest = name, part;

    if (name.n == 0 || name.n > MAX_NAME)
        return false;
    while (str_cut(&rest, '.', &part))
        if (!good_part(part))
            return false;
    return true;
}

static const struct embedded_module *find_embedded(const char *name)
{
    for (size_t i = 0; i < embedded_modules_count; i++)
        if (strcmp(embedded_modules[i].name, name) == 0)
            return &embedded_modules[i];
    return NULL;
}

/* "a.b" -> "<folder><under>a/b<tail>"; and the part behind the folder as the chunk's name. */
struct candidate {
    char path[MAX_PATH];
    const char *chunk;
};

static bool make_candidate(struct candidate *c, const char *folder, const char *under,
                           const char *name, const char *tail)
{
    int lead = strcmp(folder, ".") == 0 ? 0 : snprintf(c->path, sizeof(c->path), "%s/", folder);

    if (lead < 0 || (size_t)lead >= sizeof(c->path))
        return false;
    int n = snprintf(c->path + lead, sizeof(c->path) - (size_t)lead, "%s%s%s", under, name, tail);
    if (n < 0 || (size_t)n >= sizeof(c->path) - (size_t)lead)
        return false;
    size_t dots_end = (size_t)n - strlen(tail);
    for (size_t i = strlen(under); i < dots_end; i++)
        if (c->path[(size_t)lead + i] == '.')
            c->path[(size_t)lead + i] = '/';
    c->chunk = c->path + lead;
    return true;
}

/* 0 and *ret; -ENOENT in none of the files; another -errno with the path in c. */
static int try_files(struct policy_source *s, const char *name, struct candidate *c,
                     struct source_text **ret)
{
    static const struct {
        const char *under, *tail;
    } forms[] = { { "", ".lua" }, { "", "/init.lua" }, { "policies/", ".lua" } };

    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        if (!make_candidate(c, s->dir, forms[i].under, name, forms[i].tail))
            continue;
        int r = source_read(s, SOURCE_MODULE, name, c->chunk, c->path, ret);
        if (r != -ENOENT && r != -ENOTDIR)
            return r;
    }
    for (char **folder = s->paths; *folder; folder++) {
        if (!make_candidate(c, *folder, "", name, ".lua"))
            continue;
        int r = source_read(s, SOURCE_MODULE, name, c->path, c->path, ret);
        if (r != -ENOENT && r != -ENOTDIR)
            return r;
    }
    return -ENOENT;
}

/* "policies.backup" -> "policies/backup.lua" */
static void embedded_chunk(const char *name, char *dst, size_t size)
{
    int n = snprintf(dst, size, "%s.lua", name);

    for (int i = 0; i < n - 4; i++)
        if (dst[i] == '.')
            dst[i] = '/';
}

/* The kept text of a module, read now when that is allowed. Raises. */
static struct source_text *find_text(lua_State *L, const char *name)
{
    struct vm *vm = vm_of(L);
    struct source_text *text = source_find(vm->source, SOURCE_MODULE, name);
    struct candidate c;
    char chunk[MAX_NAME + 16];
    int r = -ENOENT;

    if (text)
        return text;
    if (!vm->loading || vm->source->closed) {
        vm_raise(L,
                 "require \"%s\": modules are loaded with the configuration, not inside of a hook "
                 "(write it at the top of the file)",
                 name);
        return NULL;
    }
    if (!str_starts(str_of(name), STR("tern.")))
        r = try_files(vm->source, name, &c, &text);
    const struct embedded_module *m = r == -ENOENT ? find_embedded(name) : NULL;
    if (m) {
        embedded_chunk(name, chunk, sizeof(chunk));
        r = source_add(vm->source, SOURCE_MODULE, name, chunk, str_make(m->data, m->size), &text);
        c.chunk = chunk;
    }
    if (r == 0)
        return text;
    if (r == -ENOENT)
        lua_pushfstring(L,
                        "there is no module \"%s\": neither beside the configuration (in %s and "
                        "its policies/) nor in the program",
                        name, vm->source->dir);
    else
        lua_pushfstring(L, "cannot read %s: %s", c.path, strerror(-r));
    raise_fault(L, r == -EACCES || r == -EPERM ? POLICY_EX_NOPERM
                   : r == -ENOENT              ? POLICY_EX_CONFIG
                                               : POLICY_EX_NOINPUT);
    return NULL;
}

/* Pushes the function of a text; raises its syntax error as it is. */
static void compile(lua_State *L, struct str bytes, const char *chunk, enum vm_slot env)
{
    lua_pushfstring(L, "@%s", chunk);
    vm_check_text(L, bytes, chunk);
    if (luaL_loadbufferx(L, bytes.p ? bytes.p : "", bytes.n, lua_tostring(L, -1), "t") != LUA_OK)
        lua_error(L);
    lua_remove(L, -2);
    lua_rawgeti(L, LUA_REGISTRYINDEX, env);
    if (!lua_setupvalue(L, -2, 1)) /* a text without globals has none to set */
        lua_pop(L, 1);
}

/* ---- require -------------------------------------------------------------------------------- */

/* Internals that only check what others write. */
static bool is_internal(const char *name)
{
    static const char *const names[] = { "tern.schema", "tern.check",   "tern.validate",
                                         "tern.locate", "tern.suggest", "tern.reference" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* The traceback of an error inside of a module, before it leaves: note_error (vm.c) tells of it. */
static int keep_traceback(lua_State *L)
{
    if (lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_TRACEBACK) == LUA_TNIL) {
        vm_traceback(L, L, 1);
        lua_rawseti(L, LUA_REGISTRYINDEX, SLOT_TRACEBACK);
    }
    lua_settop(L, 1);
    return 1;
}

/* Runs the loader on top with the module's name; what it returns is the module (nothing: true). */
static void run_module(lua_State *L, const char *name, int loaded)
{
    struct vm *vm = vm_of(L);

    lua_pushboolean(L, 0); /* it is being loaded */
    lua_setfield(L, loaded, name);
    lua_pushcfunction(L, keep_traceback);
    lua_insert(L, -2);
    lua_pushstring(L, name);
    vm->requiring++;
    int status = lua_pcall(L, 1, 1, lua_gettop(L) - 2);
    vm->requiring--;
    if (status != LUA_OK) {
        lua_pushnil(L);
        lua_setfield(L, loaded, name);
        lua_error(L);
    }
    lua_remove(L, -2);
    lua_pushnil(L); /* of an error that the script caught */
    lua_rawseti(L, LUA_REGISTRYINDEX, SLOT_TRACEBACK);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushboolean(L, 1);
    }
    lua_pushvalue(L, -1);
    lua_setfield(L, loaded, name);
}

int require_script(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);

    lua_settop(L, 1);
    if (!good_name(lua_str(L, 1)))
        return vm_raise(L,
                        "\"%s\" is not the name of a module: parts of letters, digits, '_' and "
                        "'-', joined by dots",
                        name);
    if (is_internal(name))
        return vm_raise(L, "the module \"%s\" is not for scripts", name);
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_LOADED);
    lua_getfield(L, 2, name);
    if (lua_toboolean(L, -1))
        return 1;
    if (lua_isboolean(L, -1))
        return vm_raise(L,
                        "require \"%s\": it is being loaded (modules require each other in a "
                        "circle)",
                        name);
    struct vm *vm = vm_of(L);
    if (vm->requiring > MAX_NAME)
        return vm_raise(L, "require \"%s\": too deep", name);
    if (vm->loading && ++vm->n_modules > MAX_MODULES)
        return vm_raise(L, "too many modules (over %d)", MAX_MODULES);
    struct source_text *text = find_text(L, name);
    compile(L, buf_str(&text->bytes), text->chunk, SLOT_ENV);
    run_module(L, name, 2);
    return 1;
}

/* Our own modules come from the binary only, get `native` as their second argument, and see Lua
 * as it is. */
int require_trusted(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    const struct embedded_module *m = find_embedded(name);

    lua_settop(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_TRUSTED_LOADED);
    if (lua_getfield(L, 2, name) != LUA_TNIL)
        return 1;
    if (!m)
        return luaL_error(L, "the program lacks its module '%s'", name);
    compile(L, str_make(m->data, m->size), name, SLOT_TRUSTED);
    lua_pushstring(L, name);
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_NATIVE);
    lua_call(L, 2, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, 2, name);
    return 1;
}

/* ---- load ----------------------------------------------------------------------------------- */

static const char *read_piece(lua_State *L, void *unused, size_t *size)
{
    luaL_checkstack(L, 2, "too many nested functions");
    lua_pushvalue(L, 1);
    lua_call(L, 0, 1);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        *size = 0;
        return NULL;
    }
    if (!lua_isstring(L, -1))
        luaL_error(L, "reader function must return a string");
    lua_replace(L, 5); /* a place that is kept */
    return lua_tolstring(L, 5, size);
}

/* load(text or function, name, mode, environment): text only, whatever mode says. */
int load_script(lua_State *L)
{
    bool own_env = lua_gettop(L) >= 4;
    const char *name = luaL_optstring(L, 2, "load");
    int status;

    lua_settop(L, 4);
    lua_pushnil(L); /* 5: the reader's last piece */
    if (*name == '=' || *name == '@')
        name++;
    name = lua_pushfstring(L, "=%s", name);
    if (lua_type(L, 1) == LUA_TSTRING) {
        struct str text = lua_str(L, 1);
        status = luaL_loadbufferx(L, text.p, text.n, name, "t");
    } else {
        luaL_checktype(L, 1, LUA_TFUNCTION);
        status = lua_load(L, read_piece, NULL, name, "t");
    }
    if (status != LUA_OK) {
        lua_pushnil(L);
        lua_insert(L, -2);
        return 2;
    }
    if (own_env)
        lua_pushvalue(L, 4);
    else
        lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_ENV);
    if (!lua_setupvalue(L, -2, 1))
        lua_pop(L, 1);
    return 1;
}

/* ---- secrets -------------------------------------------------------------------------------- */

static const char secret_type[] = "secret";

/* A script can hold it, but not look into it. */
struct secret_value {
    const struct source_text *text; /* lives as long as the VM's source */
};

static int secret_text(lua_State *L)
{
    lua_pushliteral(L, "secret");
    return 1;
}

static int secret_fault(lua_State *L, const char *name, const char *path, int r)
{
    if (r == -EPERM)
        lua_pushfstring(L,
                        "secret \"%s\": %s can be read by others: chmod 600 and give it to the "
                        "daemon's user",
                        name, path);
    else
        lua_pushfstring(L, "secret \"%s\": cannot read %s: %s", name, path, strerror(-r));
    return raise_fault(L, r == -EPERM || r == -EACCES ? POLICY_EX_NOPERM : POLICY_EX_NOINPUT);
}

int secret_script(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    struct vm *vm = vm_of(L);
    struct source_text *text;
    char path[MAX_PATH];

    if (!good_name(lua_str(L, 1)))
        return vm_raise(L,
                        "\"%s\" is not the name of a secret: parts of letters, digits, '_' and "
                        "'-', joined by dots",
                        name);
    text = source_find(vm->source, SOURCE_SECRET, name);
    if (!text) {
        if (!vm->loading || vm->source->closed)
            return vm_raise(L,
                            "secret \"%s\" can only be asked for while the configuration is "
                            "loaded",
                            name);
        snprintf(path, sizeof(path), "%s/secrets/%s", vm->source->dir, name);
        int r = source_read(vm->source, SOURCE_SECRET, name, name, path, &text);
        if (r < 0)
            return secret_fault(L, name, path, r);
    }
    struct secret_value *value = lua_newuserdatauv(L, sizeof(*value), 0);
    value->text = text;
    luaL_setmetatable(L, secret_type);
    return 1;
}

bool secret_read(lua_State *L, int index, struct str *ret)
{
    const struct secret_value *value = luaL_testudata(L, index, secret_type);

    if (!value)
        return false;
    *ret = buf_str(&value->text->bytes);
    while (ret->n && (ret->p[ret->n - 1] == '\n' || ret->p[ret->n - 1] == '\r'))
        ret->n--;
    return true;
}

void secret_open(lua_State *L)
{
    luaL_newmetatable(L, secret_type);
    lua_pushcfunction(L, secret_text);
    lua_setfield(L, -2, "__tostring");
    lua_pushliteral(L, "secret");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}
