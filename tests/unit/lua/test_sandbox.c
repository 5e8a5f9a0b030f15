/* What scripts cannot reach, and what is bounded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "unit/lua/fake.h"

static void expect_log(const char *lua, const char *wanted)
{
    const char *log = fake_eval(NULL, lua);

    if (!strstr(log, wanted))
        fail_msg("%s\nlacks: %s\nlog: %s", lua, wanted, log);
}

static void what_is_missing(void **state)
{
    static const char *const names[] = {
        "io",           "debug",       "package",         "dofile",
        "loadfile",     "warn",        "os.execute",      "os.getenv",
        "os.exit",      "os.remove",   "os.rename",       "os.tmpname",
        "os.setlocale", "string.dump", "math.randomseed", "coroutine.running"
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char lua[128];
        snprintf(lua, sizeof(lua), "local ok, e = pcall(function() return %s end) print(ok, e)",
                 names[i]);
        const char *log = fake_eval(NULL, lua);
        if (!strstr(log, "\"false\\t") ||
            (!strstr(log, "undefined variable") && !strstr(log, "has no field")))
            fail_msg("%s: %s", names[i], log);
    }
}

static void globals_and_libraries_are_fixed(void **state)
{
    expect_log("print(pcall(function() x = 1 end))",
               "assignment to the global variable 'x': write 'local x'");
    expect_log("print(pcall(function() string.find = nil end))",
               "'string' cannot be changed (setting 'find')");
    expect_log("print(pcall(function() tern.reject = nil end))",
               "'tern' cannot be changed (setting 'reject')");
    expect_log("print(getmetatable(_G), getmetatable(''), getmetatable(string))",
               "\"false\\tstring\\tstring\"");
    expect_log("print(pcall(setmetatable, string, {}))", "cannot change a protected metatable");
    expect_log("print(pcall(function() getmetatable('').__index.find = nil end))", "false");
    expect_log("rawset(string, 'find', false) print(('abc'):find('b'))", "\"2\\t2\"");
    expect_log(
        "print(getmetatable(route.hosts { 'a' }), getmetatable(ctx), getmetatable(tern.reject()))",
        "\"route\\tctx\\tverdict\"");
    expect_log("print(pcall(function() return string.fnid end))",
               "string has no field 'fnid'; did you mean 'find'?");
    expect_log(
        "print(_VERSION, _G._G == _G, #'abc', ('x'):rep(3, '-'), math.type(1), select('#', 1, 2))",
        "\"Lua 5.4\\ttrue\\t3\\tx-x-x\\tinteger\\t2\"");
    expect_log("local n = 0 for k in pairs(_G) do n = n + 1 end print(n > 20)", "\"true\"");
}

static void no_finalizers(void **state)
{
    expect_log("print(pcall(setmetatable, {}, { __gc = function() end }))",
               "__gc is not available to scripts");
    expect_log("print(pcall(setmetatable, {}, setmetatable({}, { __index = { __gc = print } })))",
               "\"true\\ttable: ");
    expect_log("local mt = {} local t = setmetatable({}, mt) mt.__gc = function() print 'ran' end\n"
               "t = nil for i = 1, 1e5 do local x = {} end print('end')",
               "\"end\"");
    assert_null(strstr(fake_eval(NULL, "local mt = {} local t = setmetatable({}, mt)\n"
                                       "mt.__gc = function() print 'ran' end t = nil\n"
                                       "for i = 1, 1e5 do local x = {} end"),
                       "text\":\"ran"));
    expect_log("print(pcall(collectgarbage, 'stop'))",
               "collectgarbage(\\\"stop\\\") is not available: only \\\"count\\\" is");
    expect_log("print(collectgarbage 'count' > 10)", "true");
}

static void only_text_is_loaded(void **state)
{
    expect_log("print(load('\\27Lua'))", "attempt to load a binary chunk (mode is 't')");
    expect_log("print(load('return 1 + 1', 'x', 'b')())", "\"2\"");
    expect_log("print(load('return ...')(7), load('return x', 'n', 't', { x = 5 })())",
               "\"7\\t5\"");
    expect_log("print(pcall(load 'y = 1'))", "assignment to the global variable 'y'");
    expect_log("print(pcall(load 'return io'))",
               "undefined variable 'io': it is not available to scripts");
    expect_log("local t = { 'ret', 'urn ', '3' } local i = 0\n"
               "print(load(function() i = i + 1 return t[i] end)())",
               "\"3\"");
    expect_log("print(load('x ='))", "nil\\tload:1: unexpected symbol near <eof>");
    expect_log("print(pcall(require, 'policies.other'))",
               "modules are loaded with the configuration, not inside of a hook");
    expect_log("print(require 'tern' == tern)", "true");
    expect_log("print(pcall(secret, 'x'))",
               "can only be asked for while the configuration is loaded");
}

static void patterns_cannot_explode(void **state)
{
    expect_log("print(pcall(string.find, ('a'):rep(150), '.-.-.-.-b'))",
               "the pattern takes too many steps on this text");
    expect_log("print(pcall(string.find, ('a'):rep(5000), '.-b'))",
               "the pattern takes too many steps on this text");
    expect_log("print(pcall(string.gsub, ('a'):rep(50), 'a*a*a*a*a*a*b', ''))",
               "the pattern takes too many steps on this text");
    expect_log("print(pcall(string.rep, 'x', 1e9))", "the result of string.rep is too large");
    expect_log("print(pcall(string.rep, 'x', 1 << 62))", "the result of string.rep is too large");
    expect_log("print(#('x'):rep(1000000), #(''):rep(1 << 60))", "\"1000000\\t0\"");
    expect_log("print(pcall(string.find, 'a', ('a'):rep(2000) .. '.'))", "the pattern is too long");
    expect_log("print(pcall(string.find, ('('):rep(500), ('(('):rep(40)))", "too many captures");
    expect_log("local s = ('word '):rep(20000) local n = select(2, s:gsub('%a+', '')) print(n)",
               "\"20000\"");
}

static void patterns_mean_what_they_mean_in_lua(void **state)
{
    static const char *const cases[][2] = {
        { "('hello world'):find('wor')", "7\\t9" },
        { "('hello'):find('l', 1, true)", "3\\t3" },
        { "('hello'):find('', 10)", "nil" },
        { "('hello'):find('', 6)", "6\\t5" },
        { "('a.b'):find('.', 1, true)", "2\\t2" },
        { "('key = value'):match('^(%w+)%s*=%s*(%w+)$')", "key\\tvalue" },
        { "('2026-11-23'):match('(%d+)-(%d+)-(%d+)')", "2026\\t11\\t23" },
        { "('f(a(b)c)d'):match('%b()')", "(a(b)c)" },
        { "('THE (quick) fox'):find('%f[%a]%a+%f[%A]')", "1\\t3" },
        { "('abc'):match('()b()')", "2\\t3" },
        { "('aaa'):match('a-b') == nil", "true" },
        { "('aXb'):match('a%ub')", "aXb" },
        { "('[x]'):match('[%]x]+')", "x]" },
        { "('a-z'):match('[a%-z]+')", "a-z" },
        { "('x^y'):match('[x^]+')", "x^" },
        { "('hello'):gsub('l+', '<%0>')", "he<ll>o\\t1" },
        { "('abc'):gsub('', '-')", "-a-b-c-\\t4" },
        { "('abc'):gsub('%w', '%%%0')", "%a%b%c\\t3" },
        { "('abc'):gsub('%w', { a = 'x', b = true })", "invalid replacement" },
        { "('abc'):gsub('%w', { a = 'x', b = false })", "xbc\\t3" },
        { "('a b'):gsub('(%w) (%w)', '%2 %1')", "b a\\t1" },
        { "('abc'):gsub('b', function(c) return c:upper() end)", "aBc\\t1" },
        { "('aaa'):gsub('a', 'b', 2)", "bba\\t2" },
        { "('aaa'):gsub('^a', 'b')", "baa\\t1" },
        { "('x=1, y=2'):gsub('(%w+)=(%w+)', '%2=%1')", "1=x, 2=y\\t2" },
        { "('aab'):match('(a)%1')", "a" },
        { "('\\0a\\0'):find('%z')", "1\\t1" },
        { "('a\\0b'):find('\\0', 1)", "2\\t2" },
        { "('abc'):find('[b-]')", "2\\t2" },
        { "('abc'):find('c', -1)", "3\\t3" },
        { "('a'):match('((a))')", "a\\ta" },
        { "pcall(string.match, 'a', '(a')", "unfinished capture" },
        { "pcall(string.match, 'a', 'a)')", "invalid pattern capture" },
        { "pcall(string.match, 'a', '[a')", "missing ']'" },
        { "pcall(string.match, 'a', '%')", "ends with '%'" },
        { "pcall(string.gsub, 'a', 'a', '%2')", "invalid capture index" },
        { "pcall(string.match, 'a', '%f')", "missing '['" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char lua[256];
        snprintf(lua, sizeof(lua), "print(select(2, pcall(function() print(%s) end)))",
                 cases[i][0]);
        const char *log = fake_eval(NULL, lua);
        if (!strstr(log, cases[i][1]))
            fail_msg("%s\nlacks: %s\nlog: %s", cases[i][0], cases[i][1], log);
    }
    expect_log(
        "local t = {} for k, v in ('a=1,b=2'):gmatch('(%w+)=(%w+)') do t[#t + 1] = k .. v end\n"
        "print(table.concat(t, ' '))",
        "\"a1 b2\"");
    expect_log("local n = 0 for w in ('abc'):gmatch('') do n = n + 1 end print(n)", "\"4\"");
    expect_log(
        "local t = {} for w in ('one two'):gmatch('%a+', 4) do t[#t + 1] = w end print(t[1])",
        "\"two\"");
}

static void long_loops_in_c_are_bounded(void **state)
{
    expect_log("print(pcall(table.move, {}, 1, 1 << 50, 2))", "too many items for one call");
    expect_log(
        "print(pcall(table.insert, setmetatable({}, { __len = function() return 1 << 50 end }),"
        " 1, 1))",
        "too many items for one call");
    expect_log(
        "print(pcall(table.remove, setmetatable({}, { __len = function() return 1 << 50 end }),"
        " 1))",
        "too many items for one call");
    expect_log(
        "print(pcall(table.sort, setmetatable({}, { __len = function() return 1 << 30 end })))",
        "too many items for one call");
    expect_log("print(pcall(table.unpack, {}, 1, 1e8))", "too many results to unpack");
    expect_log("local t = { 3, 1, 2 } table.sort(t) table.insert(t, 1, 0) table.insert(t, 9)\n"
               "print(table.concat(t, ','), table.remove(t), table.remove(t, 1), #t,\n"
               "  table.concat(table.move({ 1, 2 }, 1, 2, 2), ','))",
               "\"0,1,2,3,9\\t9\\t0\\t3\\t1,1,2\"");
}

/* Memory bombs end in an error, and the VM lives on. */
static void memory_is_capped(void **state)
{
    struct fake f;
    struct fake_mail m;
    struct fake_call c;

    fake_init(&f, NULL);
    fake_start(
        &f,
        "local tern = require 'tern'\n"
        "return { hostname = 'mx.example', limits = { script_memory = '16M' , hook_cpu = '5s' },\n"
        "policies = { { rcpt = function() local t = {}\n"
        "  while true do t[#t + 1] = ('x'):rep(100000) .. #t end end,\n"
        "mail = function() return tern.accept() end } } }");
    fake_mail_init(&m, "", "u@x");
    for (int i = 0; i < 3; i++) {
        fake_run(&f, HOOK_RCPT, &m, &c);
        assert_int_equal(c.result.verdict, VERDICT_FAILED);
        fake_call_done(&c);
        fake_run(&f, HOOK_MAIL, &m, &c);
        assert_int_equal(c.result.verdict, VERDICT_ACCEPT);
        fake_call_done(&c);
    }
    assert_true(fake_logged(&f, "not enough memory"));
    fake_mail_done(&m);
    fake_done(&f);
}

/* A hook has its own share: 16 MiB, as it comes. What it took is collected before the next one. */
static void test_I1108_a_hook_has_a_share_of_memory(void **state)
{
    for (int i = 0; i < 3; i++)
        expect_log("local before, t = collectgarbage 'count', {}\n"
                   "local ok, e = pcall(function()\n"
                   "  while true do t[#t + 1] = ('x'):rep(100000) .. #t end end)\n"
                   "local taken = collectgarbage 'count' - before\n"
                   "print(ok, e, taken > 14 * 1024 and taken <= 16 * 1024)",
                   "\"false\\tnot enough memory\\ttrue\"");
}

static void time_and_chance_are_the_ports(void **state)
{
    expect_log(
        "print(os.time(), os.date('!%Y-%m-%d %H:%M', os.time()), os.time { year = 2020, month = 1,"
        " day = 1, hour = 12 } > 0)",
        "\"1800001000\\t2027-01-15 08:16\\ttrue\"");
    expect_log("print(tern.now(), os.clock())", "\"1800001000.0\\t1000.0\"");
    char first[256];
    const char *lua = "print(math.random(1000000), math.random(5, 5), math.random() < 1)";
    str_copy(str_of(fake_eval(NULL, lua)), first, sizeof(first));
    assert_string_equal(first, fake_eval(NULL, lua));
    expect_log("print(pcall(math.random, 2, 1))", "interval is empty");
    expect_log(
        "for i = 1, 1000 do local r = math.random(3) assert(r >= 1 and r <= 3) end print 'fine'",
        "\"fine\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_missing),
        cmocka_unit_test(globals_and_libraries_are_fixed),
        cmocka_unit_test(no_finalizers),
        cmocka_unit_test(only_text_is_loaded),
        cmocka_unit_test(patterns_cannot_explode),
        cmocka_unit_test(patterns_mean_what_they_mean_in_lua),
        cmocka_unit_test(long_loops_in_c_are_bounded),
        cmocka_unit_test(memory_is_capped),
        cmocka_unit_test(test_I1108_a_hook_has_a_share_of_memory),
        cmocka_unit_test(time_and_chance_are_the_ports),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
