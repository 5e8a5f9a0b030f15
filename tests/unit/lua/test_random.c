/* Random patterns against Lua's own matcher; and memory that runs out anywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "lua/policies.h"
#include "lua/sandbox.h"
#include "unit/lua/fake.h"

/* Trusted code has both: `string` is Lua's own, methods of strings are those of scripts. What each
 * gives, or raises (without its place), must be the same. */
static const char comparison[] =
    "local seed, rounds = 12345, 20000\n"
    "local function random(n) seed = (seed * 1103515245 + 12345) % 2147483648\n"
    "  return seed // 65536 % n + 1 end\n"
    "local parts = { 'a', 'b', '.', '%a', '%d', '[ab]', '[^a]', '%s', '(', ')', '()', '*', '+', '-', '?',\n"
    "  '%1', '%b()', '%f[%w]', '$', '^', ' ', '%', '[', ']', '%%', '1', '[a-c]', '[%w_]', '\\0' }\n"
    "local letters = { 'a', 'b', 'c', ' ', '1', '(', ')', '_', '\\0', 'A' }\n"
    "local function make(t, n) local s = {} for i = 1, n do s[i] = t[random(#t)] end\n"
    "  return table.concat(s) end\n"
    "local function show(f, ...)\n"
    "  local r = table.pack(pcall(f, ...))\n"
    "  for i = 1, r.n do r[i] = tostring(r[i]):gsub('^[^ ]+:%d+: ', '') end\n"
    "  return table.concat(r, '|')\n"
    "end\n"
    "local own = getmetatable('').__index\n"
    "for i = 1, rounds do\n"
    "  local p, s = make(parts, random(6)), make(letters, random(10) - 1)\n"
    "  for _, name in ipairs { 'find', 'match', 'gsub' } do\n"
    "    local a = show(string[name], s, p, name == 'gsub' and '<%0>' or nil)\n"
    "    local b = show(own[name], s, p, name == 'gsub' and '<%0>' or nil)\n"
    "    if a ~= b then return ('%s(%q, %q): %s, not %s'):format(name, s, p, b, a) end\n"
    "  end\n"
    "  local function all(f) local t = {} for x, y in f(s, p) do t[#t + 1] = tostring(x) .. tostring(y)\n"
    "    if #t > 50 then break end end return table.concat(t, ',') end\n"
    "  local a, b = show(all, string.gmatch), show(all, own.gmatch)\n"
    "  if a ~= b then return ('gmatch(%q, %q): %s, not %s'):format(s, p, b, a) end\n"
    "end\n"
    "return ''";

/* The methods of strings are hidden even from trusted code: it gets at them here only. */
static int real_metatable(lua_State *L)
{
    lua_settop(L, 1);
    return lua_getmetatable(L, 1);
}

static void patterns_agree_with_lua(void **state)
{
    struct policy_error err;
    struct vm *vm = NULL;

    assert_int_equal(policy_vm_bare("tern.lua", NULL, &vm, &err), 0);
    lua_State *L = policy_vm_state(vm);
    assert_int_equal(luaL_loadstring(L, comparison), LUA_OK);
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_TRUSTED);
    lua_pushcfunction(L, real_metatable);
    lua_setfield(L, -2, "getmetatable");
    lua_setupvalue(L, -2, 1);
    vm->source->load_ms = 60000;
    if (vm_call(vm, 0, 1, &err) < 0)
        fail_msg("%s\n%s", err.message, err.detail);
    if (lua_rawlen(L, -1))
        fail_msg("%s", lua_tostring(L, -1));
    policy_vm_free(vm);
}

static const char everything[] =
    "local tern, route = require 'tern', require 'tern.route'\n"
    "return { hostname = 'mx.example',\n"
    "domains = { ['rcpt.example'] = { rcpt = function(ctx)\n"
    "  local s, m = ctx.session, ctx.message\n"
    "  s.data.n = (s.data.n or 0) + 1\n"
    "  m.data.list = { s.client.address, s.helo, m.sender, ctx.recipient.domain }\n"
    "  local mx = tern.dns.mx(ctx.recipient.domain)\n"
    "  tern.log.info { 'looked', n = s.data.n, json = tern.json.encode { 1, 2, { a = 'b' } } }\n"
    "  tern.sleep(1)\n"
    "  if s.data.n % 5 == 0 then error 'every fifth fails' end\n"
    "  return tern.reject { 550, '5.7.1', 'no ' .. s.data.n } end,\n"
    "  data = function(ctx) return tern.accept() end,\n"
    "  route = function(ctx) return route.hosts { '10.0.0.1', 'b.example', fallback = route.mx() } end } },\n"
    "senders = function(a) return { rcpt = function() return tern.accept() end } end,\n"
    "policies = { { event = function(ctx) local n = ctx.event.name end } } }";

/* Each call either has its verdict or fails; and with memory there again, all is well. */
static void memory_may_run_out_anywhere(void **state)
{
    struct fake f;
    struct fake_mail m;
    struct fake_call c;
    size_t failed = 0, fine = 0;

    fake_init(&f, NULL);
    fake_start(&f, everything);
    f.told = f.hooks;
    struct policies *p = CONTAINER_OF(f.hooks, struct policies, base);
    struct vm *vm = p->vm;
    fake_mail_init(&m, "a@sender.example", "u@rcpt.example");
    for (size_t room = 0; room < 40000; room += 97) {
        static const enum hook hooks[] = { HOOK_RCPT, HOOK_ROUTE, HOOK_DATA };
        lua_gc(vm->L, LUA_GCCOLLECT);
        for (size_t i = 0; i < ARRAY_LEN(hooks); i++) {
            vm_set_memory(vm, vm->memory + room);
            fake_run(&f, hooks[i], &m, &c);
            assert_true(c.result.verdict != VERDICT_NONE || hooks[i] == HOOK_DATA);
            failed += c.result.verdict == VERDICT_FAILED;
            fine += c.result.verdict != VERDICT_FAILED;
            fake_call_done(&c);
            f.hooks->message_closed(f.hooks, m.message.key);
        }
        f.hooks->session_closed(f.hooks, m.session.id);
        vm_set_memory(vm, 64 << 20);
    }
    print_message("%zu calls failed for want of memory, %zu did not\n", failed, fine);
    assert_true(failed > 20 && fine > 100);
    for (int i = 0; i < 4; i++) {
        fake_run(&f, HOOK_RCPT, &m, &c);
        assert_int_equal(c.result.verdict, VERDICT_REJECT);
        fake_call_done(&c);
    }
    f.told = NULL;
    fake_mail_done(&m);
    fake_done(&f);
}

/* Loading with little memory says so, and nothing is lost. */
static void loading_may_run_out_of_memory(void **state)
{
    const struct fake_file tree[] = { { "/etc/tern/tern.lua", everything, 0 }, { NULL, NULL, 0 } };
    size_t failed = 0;

    for (size_t memory = 1000; memory < 700000; memory += 3001) {
        struct fake f;
        fake_init(&f, tree);
        const struct policy_options options = { .files = &f.files, .memory = memory };
        int r = policy_load("/etc/tern/tern.lua", &options, &f.source, &f.settings, &f.err);
        failed += r < 0;
        assert_true(r == 0 || *f.err.message);
        fake_done(&f);
    }
    assert_true(failed > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_agree_with_lua),
        cmocka_unit_test(memory_may_run_out_anywhere),
        cmocka_unit_test(loading_may_run_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
