/* policy.c - loading a configuration, and a VM for each worker. Interface: policy.h. Layer: lua. */
#include "lua/policy.h"

#include <stdio.h>

#include "lua/interpret.h"
#include "lua/policies.h"
#include "lua/task.h"

/* ---- reading -------------------------------------------------------------------------------- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static int cannot_read(const char *path, int r, struct policy_error *err)
{
    char text[512];
    bool permission = r == -EACCES || r == -EPERM;

    if (r == -ENOMEM) {
        policy_error_set(err, POLICY_EX_SOFTWARE, NULL, 0, false, STR("out of memory"));
        return r;
    }
    snprintf(text, sizeof(text), "cannot read %.300s: %s", path,
             r == -EFBIG ? "it is too large" : strerror(-r));
    policy_error_set(err, permission ? POLICY_EX_NOPERM : POLICY_EX_NOINPUT, path, 0, false,
                     str_of(text));
    return r;
}

/* 1: name of the chunk, 2: its text -> the function */
static int compile_text(lua_State *L)
{
    struct str text = lua_str(L, 2);

    lua_pushfstring(L, "@%s", lua_tostring(L, 1));
    vm_check_text(L, text, lua_tostring(L, 1));
    if (luaL_loadbufferx(L, text.p ? text.p : "", text.n, lua_tostring(L, -1), "t") != LUA_OK)
        return lua_error(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_ENV);
    if (!lua_setupvalue(L, -2, 1))
        lua_pop(L, 1);
    return 1;
}

struct compiling {
    const char *chunk;
    struct str text;
};

static int compile_it(lua_State *L)
{
    struct compiling *c = lua_touserdata(L, 1);

    lua_pushcfunction(L, compile_text);
    lua_pushstring(L, c->chunk);
    push_str(L, c->text);
    lua_call(L, 2, 1);
    return 1;
}

/* Leaves the function on the stack. */
static int compile(struct vm *vm, const char *chunk, struct str text, struct policy_error *err)
{
    struct compiling c = { .chunk = chunk, .text = text };

    CHECK(lua_checkstack(vm->L, 4));
    lua_pushcfunction(vm->L, compile_it);
    lua_pushlightuserdata(vm->L, &c);
    return vm_call(vm, 1, 1, err);
}

/* Runs the configuration file and leaves its table, in normal form, on the stack. */
static int run_config(struct vm *vm, const struct source_text *text, struct policy_error *err)
{
    int r = compile(vm, text->chunk, buf_str(&text->bytes), err);

    if (r == 0)
        r = vm_call(vm, 0, 1, err);
    if (r == 0 && lua_isnil(vm->L, -1)) {
        lua_pop(vm->L, 1);
        policy_error_set(err, POLICY_EX_CONFIG, text->chunk, 0, true,
                         STR("the file must end with 'return { ... }'"));
        return -EINVAL;
    }
    return r < 0 ? r : interpret_check(vm, text->chunk, NULL, err);
}

static int load_settings(struct policy_source *source, struct vm *vm, struct settings **ret,
                         struct policy_error *err)
{
    struct source_text *text = source_find(source, SOURCE_CONFIG, "configuration");
    struct settings *s = NULL;
    int r = run_config(vm, text, err);

    if (r == 0)
        r = interpret_settings(vm, true, &s, err);
    if (r < 0)
        return r;
    CHECK(s != NULL);
    source_close(source);
    s->file = arena_str(&s->arena, str_of(source->config_path));
    if (!s->file.p) {
        settings_unref(s);
        policy_error_set(err, POLICY_EX_SOFTWARE, NULL, 0, false, STR("out of memory"));
        return -ENOMEM;
    }
    s->fingerprint = source->fingerprint;
    *ret = s;
    return 0;
}

int policy_load(const char *config_path, const struct policy_options *options,
                struct policy_source **ret, struct settings **ret_settings,
                struct policy_error *err)
{
    struct policy_source *source = source_new(config_path, options);
    struct source_text *text;

    if (!source)
        return cannot_read(config_path, -ENOMEM, err);
    int r = source_read(source, SOURCE_CONFIG, "configuration", base_name(config_path), config_path,
                        &text);
    if (r < 0) {
        policy_source_unref(source);
        return cannot_read(config_path, r, err);
    }
    struct vm *vm = vm_new(source, options ? options->journal : NULL, err);
    r = vm ? 0 : -ENOMEM;
    if (r == 0) {
        vm->loading = true;
        r = load_settings(source, vm, ret_settings, err);
    }
    vm_free(vm);
    if (r < 0)
        policy_source_unref(source);
    else
        *ret = source;
    return r;
}

int policy_vm_new(struct policy_source *source, struct settings *settings, struct ports *ports,
                  struct hooks **ret, struct policy_error *err)
{
    struct vm *vm = vm_new(source, NULL, err);
    struct policies *p = NULL;

    if (!vm)
        return -ENOMEM;
    vm->loading = true;
    int r = run_config(vm, source_find(source, SOURCE_CONFIG, "configuration"), err);
    vm->loading = false;
    if (r == 0)
        r = policies_new(vm, true, settings, ports, &p, err);
    if (r < 0) {
        vm_free(vm);
        return r;
    }
    *ret = &p->base;
    return 0;
}

/* ---- programs that run Lua of their own ----------------------------------------------------- */

int policy_vm_bare(const char *config_path, const struct policy_options *options, struct vm **ret,
                   struct policy_error *err)
{
    struct policy_source *source = source_new(config_path, options);

    if (!source)
        return cannot_read(config_path, -ENOMEM, err);
    struct vm *vm = vm_new(source, options ? options->journal : NULL, err);
    policy_source_unref(source);
    if (!vm)
        return -ENOMEM;
    vm->loading = true;
    *ret = vm;
    return 0;
}

struct vm *policy_vm_free(struct vm *vm)
{
    return vm_free(vm);
}

struct lua_State *policy_vm_state(struct vm *vm)
{
    return vm->L;
}

int policy_vm_read(struct vm *vm, const char *path, struct policy_error *err)
{
    struct source_text *text;
    int r = source_read(vm->source, SOURCE_CONFIG, path, path, path, &text);

    return r < 0 ? cannot_read(path, r, err) : compile(vm, path, buf_str(&text->bytes), err);
}

void policy_vm_set_global(struct vm *vm, const char *name)
{
    lua_rawgeti(vm->L, LUA_REGISTRYINDEX, SLOT_ENV);
    lua_insert(vm->L, -2);
    lua_pushstring(vm->L, name);
    lua_insert(vm->L, -2);
    lua_rawset(vm->L, -3);
    lua_pop(vm->L, 1);
}

void policy_vm_set_module(struct vm *vm, const char *name)
{
    lua_rawgeti(vm->L, LUA_REGISTRYINDEX, SLOT_LOADED);
    lua_insert(vm->L, -2);
    lua_setfield(vm->L, -2, name);
    lua_pop(vm->L, 1);
}

int policy_from_value(struct vm *vm, struct lua_State *L, int index, const char *where,
                      struct ports *ports, struct settings **ret_settings, struct hooks **ret,
                      struct policy_error *err)
{
    struct settings *s = NULL;
    struct policies *p = NULL;

    CHECK(lua_checkstack(vm->L, 8));
    lua_pushvalue(L, index);
    lua_xmove(L, vm->L, 1);
    int r = interpret_check(vm, NULL, where, err);
    if (r < 0)
        return r;
    r = interpret_settings(vm, false, &s, err);
    if (r < 0) {
        lua_pop(vm->L, 1);
        return r;
    }
    r = policies_new(vm, false, s, ports, &p, err);
    if (r < 0) {
        settings_unref(s);
        return r;
    }
    s->fingerprint = ++vm->generation;
    *ret_settings = s;
    *ret = &p->base;
    return 0;
}
