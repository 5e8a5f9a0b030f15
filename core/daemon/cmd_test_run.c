/* cmd_test_run.c - one test file: its VM, its tests, what is printed of them. Layer: daemon. Interface:
 * cmd_test.h. */
#include "daemon/cmd_test.h"

#include <stdio.h>

#include "lua/embedded.h"
#include "lua/vm.h"

enum { MAX_ERRORS_TOLD = 5 };

/* ---- lua/tern/sim.lua ------------------------------------------------------------------------- */

static const struct embedded_module *find_module(const char *name)
{
    for (size_t i = 0; i < embedded_modules_count; i++)
        if (strcmp(embedded_modules[i].name, name) == 0)
            return &embedded_modules[i];
    return NULL;
}

/* 1: the run. Leaves the table { sim, test, expect, tests }. Our own module: it sees Lua as it is. */
static int load_sim(lua_State *L)
{
    struct test_run *run = lua_touserdata(L, 1);
    const struct embedded_module *m = find_module("tern.sim");
    CHECK(m != NULL);
    if (luaL_loadbufferx(L, m->data, m->size, "=tern.sim", "t") != LUA_OK)
        return lua_error(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_TRUSTED);
    lua_setupvalue(L, -2, 1);
    lua_pushliteral(L, "tern.sim");
    test_push_native(run);
    lua_call(L, 2, 1);
    return 1;
}

/* On the stack afterwards: the table `tests`. */
static int prepare(struct test_run *run, struct policy_error *err)
{
    lua_State *L = run->L;
    lua_pushcfunction(L, load_sim);
    lua_pushlightuserdata(L, run);
    int r = vm_call(run->vm, 1, 1, err);
    if (r < 0)
        return r;
    lua_getfield(L, -1, "test");
    policy_vm_set_global(run->vm, "test");
    lua_getfield(L, -1, "expect");
    policy_vm_set_global(run->vm, "expect");
    lua_getfield(L, -1, "sim");
    policy_vm_set_module(run->vm, "tern.sim");
    lua_getfield(L, -1, "tests");
    lua_remove(L, -2);
    return 0;
}

/* ---- telling ---------------------------------------------------------------------------------- */

static void print_indented(const char *text)
{
    struct str rest = str_of(text), line;
    while (str_cut(&rest, '\n', &line))
        printf("    " STR_FMT "\n", STR_ARG(line));
}

/* Of Lua's traceback, the lines that are of use to who wrote the test. */
static void print_traceback(const char *text)
{
    struct str rest = str_of(text), line;
    while (str_cut(&rest, '\n', &line))
        if (str_find(line, STR("[C]")) < 0 && str_find(line, STR("tern.sim:")) < 0 &&
            str_find(line, STR("stack traceback")) < 0)
            printf("     " STR_FMT "\n", STR_ARG(str_trim(line)));
}

static void tell(const char *path, const char *name, const struct policy_error *err)
{
    if (!err) {
        printf("ok      %s: %s\n", path, name);
        return;
    }
    printf("FAILED  %s%s%s\n", path, *name ? ": " : "", name);
    print_indented(err->message);
    print_traceback(err->detail);
}

/* What `print` and tern.log say outside of hooks. */
static void print_said(struct port_journal *self, const struct event *e)
{
    for (size_t i = 0; i < e->n; i++)
        if (strcmp(e->fields[i].name, "text") == 0)
            printf("        " STR_FMT "\n", STR_ARG(e->fields[i].s));
}

static void print_event(const struct event *e)
{
    printf("    the router reported %s:", e->name);
    for (size_t i = 0; i < e->n; i++)
        if (e->fields[i].type == FIELD_STR && e->fields[i].s.n &&
            strcmp(e->fields[i].name, "traceback") != 0)
            printf(" %s=\"" STR_FMT "\"", e->fields[i].name, STR_ARG(e->fields[i].s));
    printf("\n");
}

/* Errors of the test's worlds: a hook that failed is why the test did, as a rule. */
static void tell_errors(struct test_run *run, size_t keep)
{
    size_t i = 0, told = 0;
    LIST_FOREACH(it, &run->worlds)
    {
        struct sim_world *w = LIST_ENTRY(it, struct test_world, link)->sim;
        const struct sim_entry *e = NULL;
        if (i++ < keep)
            continue;
        while (told < MAX_ERRORS_TOLD && (e = sim_journal_next(sim_world_journal(w), NULL, e)))
            if (e->event.level == EVENT_ERROR) {
                print_event(&e->event);
                told++;
            }
    }
}

/* ---- running ---------------------------------------------------------------------------------- */

/* The error value and the traceback as text, which would be gone after lua_pcall. */
static int on_error(lua_State *L)
{
    struct policy_error *err = lua_touserdata(L, lua_upvalueindex(1));
    luaL_tolstring(L, 1, NULL);
    str_copy(lua_str(L, -1), err->message, sizeof err->message);
    luaL_traceback(L, L, NULL, 1);
    str_copy(lua_str(L, -1), err->detail, sizeof err->detail);
    return 0;
}

/* Calls the function on top; false: *err says what it raised. */
static bool call(struct test_run *run, struct policy_error *err)
{
    lua_State *L = run->L;
    *err = (struct policy_error){ .message = "out of memory" };
    lua_pushlightuserdata(L, err);
    lua_pushcclosure(L, on_error, 1);
    lua_insert(L, -2);
    int handler = lua_gettop(L) - 1;
    bool ok = lua_pcall(L, 0, 0, handler) == LUA_OK;
    lua_settop(L, handler - 1);
    return ok;
}

/* Test i of the table on top. */
static void run_test(struct test_run *run, const char *path, lua_Integer i, const char *only,
                     struct test_totals *totals)
{
    lua_State *L = run->L;
    struct policy_error err;
    size_t keep = test_count_worlds(run);
    lua_rawgeti(L, -1, i);
    lua_getfield(L, -1, "name");
    const char *name = lua_tostring(L, -1);
    if (only && !strstr(name, only)) {
        lua_pop(L, 2);
        return;
    }
    lua_getfield(L, -2, "run");
    bool ok = call(run, &err);
    tell(path, name, ok ? NULL : &err);
    if (!ok)
        tell_errors(run, keep);
    totals->passed += ok;
    totals->failed += !ok;
    lua_pop(L, 2);
    test_end_worlds(run, keep);
    policy_vm_release_maps(run->vm);
}

static void run_all(struct test_run *run, const char *path, const char *only,
                    struct test_totals *totals)
{
    struct policy_error err = { 0 };
    bool ok =
        prepare(run, &err) == 0 && policy_vm_read(run->vm, path, &err) == 0 && call(run, &err);
    if (!ok) {
        tell(path, "", &err);
        totals->failed++;
        return;
    }
    lua_Integer n = (lua_Integer)lua_rawlen(run->L, -1);
    for (lua_Integer i = 1; i <= n; i++)
        run_test(run, path, i, only, totals);
}

/* Where modules are looked for: beside the file, in the folder above (so that policies/x.test.lua finds
 * "policies.x"), and here. */
static void module_paths(struct test_run *run, const char *path, char *config, char *above,
                         size_t size)
{
    struct str folder = str_of(path);
    ptrdiff_t slash = str_rchr(folder, '/');
    folder = slash < 0 ? STR(".") : slash == 0 ? STR("/") : str_first(folder, (size_t)slash);
    snprintf(run->folder, sizeof run->folder, STR_FMT, STR_ARG(folder));
    snprintf(config, size, STR_FMT "/tern.lua", STR_ARG(folder));
    snprintf(above, size, STR_FMT "/..", STR_ARG(folder));
}

void test_file(const char *path, uint64_t seed, bool echo, const char *only,
               struct test_totals *totals)
{
    char config[4096], above[4096];
    struct policy_error err = { 0 };
    struct test_run run = { .seed = seed, .echo = echo };
    list_init(&run.worlds);
    list_init(&run.ended);
    test_files_init(&run);
    module_paths(&run, path, config, above, sizeof config);
    const char *const paths[] = { above, ".", NULL };
    struct port_journal journal = { print_said };
    struct policy_options options = { .paths = paths, .journal = &journal, .files = &run.files };
    if (policy_vm_bare(config, &options, &run.vm, &err) < 0) {
        tell(path, "", &err);
        totals->failed++;
        test_files_done(&run);
        return;
    }
    run.L = policy_vm_state(run.vm);
    run_all(&run, path, only, totals);
    fflush(stdout);
    test_end_worlds(&run, 0);
    policy_vm_free(run.vm);
    test_free_worlds(&run);
    test_files_done(&run);
}
