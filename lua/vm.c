/* vm.c - one Lua state with its memory limit, and calls into it. Interface: vm.h. Layer: lua. */
#include "lua/vm.h"
#include "lua/accounts.h"
#include "lua/certificates.h"

#include <lualib.h>
#include <stdio.h>

#include "lua/maps.h"
#include "lua/sandbox.h"
#include "lua/task.h"
#include "lua/watchdog.h"

static void *limited_alloc(void *ud, void *ptr, size_t old, size_t n)
{
    struct vm *vm = ud;

    if (!ptr)
        old = 0; /* then it tells the type */
    if (n == 0) {
        vm->memory -= old;
        free(ptr);
        return NULL;
    }
    if (n > old && n - old > vm->memory_max - MIN(vm->memory, vm->memory_max))
        return NULL; /* Lua collects its garbage and tries again */
    void *p = realloc(ptr, n);
    if (p)
        vm->memory += n - old;
    else
        vm->starved = true;
    return p;
}

static int at_panic(lua_State *L)
{
    const char *what = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "?";

    fprintf(stderr, "tern: Lua raised outside of any protection: %s\n", what);
    CHECK(!"Lua raised outside of any protection");
    return 0;
}

void vm_set_memory(struct vm *vm, size_t max)
{
    vm->memory_max = max;
}

static int open_vm(lua_State *L)
{
    sandbox_open(L);
    return 0;
}

struct vm *vm_new(struct policy_source *source, struct port_journal *journal,
                  struct policy_error *err)
{
    struct vm *vm = calloc(1, sizeof(*vm));

    if (!vm)
        goto no_memory;
    list_init(&vm->idle);
    list_init(&vm->maps);
    vm->memory_max = source->memory;
    vm->cpu_ms = 50;
    vm->task_memory = (size_t)16 << 20;
    vm->journal = journal;
    vm->source = policy_source_ref(source);
    vm->L = lua_newstate(limited_alloc, vm);
    if (!vm->L) {
        vm_free(vm);
        goto no_memory;
    }
    *(struct vm **)lua_getextraspace(vm->L) = vm;
    lua_atpanic(vm->L, at_panic);
    if (vm_run(vm, open_vm, NULL, err) < 0)
        return vm_free(vm);
    return vm;
no_memory:
    policy_error_set(err, POLICY_EX_SOFTWARE, NULL, 0, false, STR("out of memory"));
    return NULL;
}

struct vm *vm_free(struct vm *vm)
{
    if (!vm)
        return NULL;
    task_free_idle(vm);
    if (vm->L)
        lua_close(vm->L);
    accounts_free(vm);
    certificates_free(vm);
    map_views_free(vm);
    policy_source_unref(vm->source);
    free(vm);
    return NULL;
}

/* ---- errors --------------------------------------------------------------------------------- */

/* "tern.lua:12: text": file and line of what was raised, when it begins so. */
static void split_place(struct policy_error *err)
{
    const char *colon = strstr(err->message, ": ");
    const char *at = colon;
    int line = 0;

    while (at && at > err->message && ascii_digit(at[-1]))
        at--;
    if (!at || at == colon || at <= err->message + 1 || at[-1] != ':' ||
        (size_t)(at - err->message) > sizeof(err->file))
        return;
    for (const char *p = at; p < colon && line < 100000000; p++)
        line = line * 10 + (*p - '0');
    err->line = line;
    str_copy(str_make(err->message, (size_t)(at - 1 - err->message)), err->file, sizeof(err->file));
}

void policy_error_set(struct policy_error *err, int exit_code, const char *file, int line,
                      bool prefix, struct str message)
{
    *err = (struct policy_error){ .exit_code = exit_code, .line = line };
    if (file)
        str_copy(str_of(file), err->file, sizeof(err->file));
    if (prefix && file && line)
        snprintf(err->message, sizeof(err->message), "%s:%d: " STR_FMT, file, line,
                 STR_ARG(message));
    else if (prefix && file)
        snprintf(err->message, sizeof(err->message), "%s: " STR_FMT, file, STR_ARG(message));
    else
        str_copy(message, err->message, sizeof(err->message));
    if (!file)
        split_place(err);
}

/* Errors that carry their exit code: tables { exit =, message = } with __tostring (require.c). */
static int fault_code(lua_State *L, int index)
{
    int code = POLICY_EX_CONFIG;

    if (lua_type(L, index) != LUA_TTABLE)
        return code;
    index = lua_absindex(L, index);
    lua_pushliteral(L, "exit");
    if (lua_rawget(L, index) == LUA_TNUMBER)
        code = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return code;
}

struct call {
    struct policy_error *err;
    bool filled;
};

/* Does it say more than the message, which names one place? That of a syntax error has no line of a
 * script. */
static bool traceback_says(struct str traceback)
{
    struct str line;
    int lines = 0;

    str_cut(&traceback, '\n', &line); /* "stack traceback:" */
    while (str_cut(&traceback, '\n', &line))
        lines += !str_starts(str_trim(line), STR("[C]: "));
    return lines > 1;
}

static const char *kind_of_call(const lua_Debug *ar)
{
    return *ar->what == 'C' ? "C function" : *ar->what == 'm' ? "main chunk" : "function";
}

void vm_traceback(lua_State *L, lua_State *of, int level)
{
    enum { DEEP = 200, SHOWN = 20 };
    lua_Debug ar;
    luaL_Buffer b;

    if (!lua_getstack(of, DEEP, &ar)) {
        luaL_traceback(L, of, NULL, level);
        return;
    }
    luaL_buffinit(L, &b);
    luaL_addstring(&b, "stack traceback:");
    for (int end = level + SHOWN; level < end && lua_getstack(of, level, &ar); level++) {
        lua_getinfo(of, "Sln", &ar);
        if (ar.currentline > 0)
            lua_pushfstring(L, "\n\t%s:%d: in %s", ar.short_src, ar.currentline, kind_of_call(&ar));
        else
            lua_pushfstring(L, "\n\t%s: in %s", ar.short_src, kind_of_call(&ar));
        luaL_addvalue(&b);
        if (ar.name) {
            lua_pushfstring(L, " '%s'", ar.name);
            luaL_addvalue(&b);
        }
    }
    lua_pushfstring(L, "\n\t...\t(more than %d calls)", DEEP);
    luaL_addvalue(&b);
    luaL_pushresult(&b);
}

void vm_push_place(lua_State *L, lua_State *of)
{
    lua_Debug ar;

    for (int level = 0; lua_getstack(of, level, &ar); level++) {
        lua_getinfo(of, "Sl", &ar);
        if (ar.currentline > 0) {
            lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
            return;
        }
    }
    lua_pushliteral(L, "");
}

static bool has_text(lua_State *L, int index)
{
    if (lua_isstring(L, index))
        return true;
    if (luaL_getmetafield(L, index, "__tostring") == LUA_TNIL)
        return false;
    lua_pop(L, 1);
    return true;
}

void vm_push_error_text(lua_State *L, lua_State *of, int index)
{
    bool said = has_text(L, index);
    luaL_Buffer b;
    size_t n;

    index = lua_absindex(L, index);
    const char *text = luaL_tolstring(L, index, &n);
    if (said && n > 0) {
        luaL_buffinit(L, &b);
        for (size_t i = 0; i < n; i++) /* C's texts end at a NUL */
            luaL_addchar(&b, text[i] ? text[i] : '?');
        luaL_pushresult(&b);
    } else { /* error(), error(""), error({ ... }) */
        vm_push_place(L, of);
        if (said || lua_isnil(L, index))
            lua_pushliteral(L, "an error without a message");
        else
            lua_pushfstring(L, "an error that is no text, but a %s", luaL_typename(L, index));
        lua_concat(L, 2);
    }
    lua_remove(L, -2);
}

/* Called by lua_pcall where the error was raised. */
static int note_error(lua_State *L)
{
    struct call *call = vm_of(L)->calling;
    int code = fault_code(L, 1);

    vm_push_error_text(L, L, 1);
    policy_error_set(call->err, code, NULL, 0, false, lua_str(L, -1));
    call->filled = true;
    if (lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_TRACEBACK) != LUA_TSTRING)
        vm_traceback(L, L, 1);
    if (traceback_says(lua_str(L, -1)))
        str_copy(lua_str(L, -1), call->err->detail, sizeof(call->err->detail));
    lua_pushnil(L);
    lua_rawseti(L, LUA_REGISTRYINDEX, SLOT_TRACEBACK);
    lua_pushnil(L);
    return 1;
}

static int call_filled(struct vm *vm, int status, struct call *call)
{
    char text[96];

    if (status == LUA_OK)
        return 0;
    lua_pop(vm->L, 1);
    if (status == LUA_ERRMEM) {
        snprintf(text, sizeof(text), "scripts need more than the %zu MiB of memory they may have",
                 vm->memory_max >> 20);
        policy_error_set(call->err, POLICY_EX_CONFIG, NULL, 0, false, str_of(text));
    } else if (!call->filled) {
        policy_error_set(call->err, POLICY_EX_CONFIG, NULL, 0, false,
                         STR("an error in the handling of an error"));
    }
    return status == LUA_ERRMEM ? -ENOMEM : -EINVAL;
}

int vm_call(struct vm *vm, int n_args, int n_results, struct policy_error *err)
{
    lua_State *L = vm->L;
    struct call call = { .err = err };
    struct watch watch;
    int base = lua_gettop(L) - n_args;

    CHECK(lua_checkstack(L, 4));
    struct call *outer = vm->calling;
    vm->calling = &call;
    lua_pushcfunction(L, note_error);
    lua_insert(L, base);
    watchdog_begin(L, vm->source->load_ms, &watch);
    int status = lua_pcall(L, n_args, n_results, base);
    watchdog_end(&watch);
    lua_sethook(L, NULL, 0, 0);
    lua_remove(L, base);
    vm->calling = outer;
    return call_filled(vm, status, &call);
}

int vm_run(struct vm *vm, lua_CFunction fn, void *data, struct policy_error *err)
{
    CHECK(lua_checkstack(vm->L, 4));
    lua_pushcfunction(vm->L, fn);
    lua_pushlightuserdata(vm->L, data);
    return vm_call(vm, 1, 0, err);
}

/* ---- raising -------------------------------------------------------------------------------- */

void vm_check_text(lua_State *L, struct str text, const char *chunk)
{
    if (text.n && *text.p == LUA_SIGNATURE[0]) {
        lua_pushfstring(L, "%s: this is compiled Lua: name the file with its source instead",
                        chunk);
        lua_error(L);
    }
}

int vm_raise_top(lua_State *L)
{
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
    lua_error(L);
    __builtin_unreachable();
}

int vm_raise_no_memory(lua_State *L)
{
    vm_of(L)->starved = true;
    luaL_error(L, "out of memory");
    __builtin_unreachable();
}

int vm_raise(lua_State *L, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    lua_pushstring(L, text);
    vm_raise_top(L);
}

void vm_push_validate(lua_State *L, const char *name)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_VALIDATE);
    lua_getfield(L, -1, name);
    lua_remove(L, -2);
}
