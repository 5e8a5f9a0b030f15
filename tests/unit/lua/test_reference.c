/* The schema is the one table: pages made from it are current, and what it names exists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "lua/sandbox.h"
#include "unit/lua/fake.h"

static struct vm *bare_vm(void)
{
    struct policy_error err;
    struct vm *vm = NULL;

    if (policy_vm_bare("tern.lua", NULL, &vm, &err) < 0)
        fail_msg("%s", err.message);
    return vm;
}

/* Runs Lua with the rights of our own modules. What it returns is a string, the caller's. */
static char *run_trusted(struct vm *vm, const char *lua)
{
    lua_State *L = policy_vm_state(vm);
    struct policy_error err;

    assert_int_equal(luaL_loadstring(L, lua), LUA_OK);
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_TRUSTED);
    assert_non_null(lua_setupvalue(L, -2, 1));
    if (vm_call(vm, 0, 1, &err) < 0)
        fail_msg("%s\n%s", err.message, err.detail);
    char *text = str_dup(lua_str(L, -1));
    lua_pop(L, 1);
    return text;
}

static void pages_are_current(void **state)
{
    static const char *const pages[] = { "docs/configuration.md", "docs/hooks.md",
                                         "lua/stubs/tern.lua" };
    struct vm *vm = bare_vm();

    for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
        char path[512], lua[256];
        struct buf file;
        buf_init(&file, 0);
        snprintf(path, sizeof(path), "%s/../%s", TERN_TEST_DIR, pages[i]);
        assert_int_equal(policy_files_disk.read(&policy_files_disk, path, false, &file), 0);
        snprintf(lua, sizeof(lua), "return require 'tern.reference'.files()['%s']", pages[i]);
        char *text = run_trusted(vm, lua);
        if (!str_eq(buf_str(&file), str_of(text)))
            fail_msg("%s is not current: run scripts/reference", pages[i]);
        free(text);
        buf_done(&file);
    }
    policy_vm_free(vm);
}

/* Every function and constructor of the schema is there, and nothing else is. */
static void the_schema_names_what_exists(void **state)
{
    struct vm *vm = bare_vm();
    char *check = run_trusted(
        vm,
        "local schema = require 'tern.schema'\n"
        "local out = {}\n"
        "for _, c in ipairs(schema.constructors) do\n"
        "  local m, n = c.name:match '^(%a+)%.(%a+)$'\n"
        "  out[#out + 1] = ('assert(require %q.%s)'):format(m == 'tern' and m or 'tern.' .. m, n)\n"
        "end\n"
        "for _, f in ipairs(schema.functions) do\n"
        "  out[#out + 1] = ('assert(require %q.%s)'):format(f[1], f[2])\n"
        "end\n"
        "return table.concat(out, '\\n')");
    const char *log = fake_eval(NULL, "print 'ready'");
    assert_non_null(strstr(log, "ready"));
    struct fake f;
    struct buf config;
    buf_init(&config, 0);
    buf_printf(&config, "%s\nreturn { hostname = 'mx.example' }", check);
    fake_init(&f, NULL);
    fake_start(&f, (buf_add_char(&config, '\0'), buf_str(&config).p));
    fake_done(&f);
    buf_done(&config);
    free(check);
    policy_vm_free(vm);
}

/* Every field of ctx and below can be read, wherever it is not nil. */
static void fields_of_ctx_exist(void **state)
{
    static const struct {
        enum hook hook;
        const char *object, *path;
    } where[] = {
        { HOOK_RCPT, "ctx", "ctx" },
        { HOOK_RCPT, "session", "ctx.session" },
        { HOOK_RCPT, "message", "ctx.message" },
        { HOOK_RCPT, "recipient", "ctx.recipient" },
        { HOOK_RESULT, "attempt", "ctx.attempt" },
        { HOOK_ETRN, "request", "ctx.request" },
    };
    struct vm *vm = bare_vm();

    for (size_t i = 0; i < ARRAY_LEN(where); i++) {
        char lua[512];
        struct fake f;
        struct fake_mail m;
        struct fake_call c;
        struct buf config;
        snprintf(lua, sizeof(lua),
                 "local out = {} for _, o in ipairs(require 'tern.schema'.objects) do\n"
                 "if o.name == '%s' then for _, f in ipairs(o.fields) do\n"
                 "out[#out + 1] = ('local _ = %s[%%q]'):format(f[1]) end end end\n"
                 "return table.concat(out, '\\n')",
                 where[i].object, where[i].path);
        char *reads = run_trusted(vm, lua);
        buf_init(&config, 0);
        buf_printf(&config,
                   "return { hostname = 'mx.example', policies = { { %s = function(ctx)\n%s\n"
                   "print 'read all' end } } }",
                   hook_name(where[i].hook), reads);
        buf_add_char(&config, '\0');
        fake_init(&f, NULL);
        fake_start(&f, buf_str(&config).p);
        fake_mail_init(&m, "a@b", "u@x");
        fake_run(&f, where[i].hook, &m, &c);
        if (!fake_logged(&f, "read all"))
            fail_msg("%s: " STR_FMT, where[i].object, STR_ARG(buf_str(&f.log)));
        fake_call_done(&c);
        fake_mail_done(&m);
        fake_done(&f);
        buf_done(&config);
        free(reads);
    }
    policy_vm_free(vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_current),
        cmocka_unit_test(the_schema_names_what_exists),
        cmocka_unit_test(fields_of_ctx_exist),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
