/* Hooks that wait, are cancelled, take too long, or never end. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "unit/lua/fake.h"

static const struct fake_record zone[] = {
    { "example.com",
      DNS_MX,
      DNS_OK,
      { { .name = { "mx2.example.com", 15 }, .preference = 20 },
        { .name = { "mx1.example.com", 15 }, .preference = 10 } },
      2 },
    { "mx1.example.com",
      DNS_A,
      DNS_OK,
      { { .addr = { .family = NET_IPV4, .ip = { 192, 0, 2, 1 } } } },
      1 },
    { "mx1.example.com",
      DNS_AAAA,
      DNS_OK,
      { { .addr = { .family = NET_IPV6, .ip = { 0x20, 1, 0xd, 0xb8, [15] = 1 } } } },
      1 },
    { "v4.example.com",
      DNS_A,
      DNS_OK,
      { { .addr = { .family = NET_IPV4, .ip = { 192, 0, 2, 4 } } } },
      1 },
    { "v4.example.com", DNS_AAAA, DNS_SERVFAIL, { { .port = 0 } }, 0 },
    { "none.example.com", DNS_A, DNS_NODATA, { { .port = 0 } }, 0 },
    { "none.example.com", DNS_AAAA, DNS_NODATA, { { .port = 0 } }, 0 },
    { "broken.example.com", DNS_TXT, DNS_SERVFAIL, { { .port = 0 } }, 0 },
    { "slow.example.com", DNS_TXT, DNS_TIMEOUT, { { .port = 0 } }, 0 },
    { "txt.example.com", DNS_TXT, DNS_OK, { { .name = { "v=spf1 -all", 11 } } }, 1 },
    { "7.2.0.192.in-addr.arpa", DNS_PTR, DNS_OK, { { .name = { "client.example", 14 } } }, 1 },
    { "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
      DNS_PTR,
      DNS_OK,
      { { .name = { "six.example", 11 } } },
      1 },
    { "_25._tcp.mx1.example.com",
      DNS_TLSA,
      DNS_OK,
      { { .name = { "\1\2", 2 }, .usage = 3, .selector = 1, .matching = 1 } },
      1 },
    { "_smtp._tcp.example.com",
      DNS_SRV,
      DNS_OK,
      { { .name = { "s", 1 }, .preference = 1, .weight = 2, .port = 2525 } },
      1 },
    { NULL, DNS_A, DNS_OK, { { .port = 0 } }, 0 },
};

static void expect_log(const char *lua, const char *wanted)
{
    struct fake f;

    fake_init(&f, NULL);
    f.zone = zone;
    const char *log = fake_eval(&f, lua);
    if (!strstr(log, wanted))
        fail_msg("%s\nlacks: %s\nlog: %s", lua, wanted, log);
    fake_done(&f);
}

static void dns_looks_up(void **state)
{
    expect_log("local mx = tern.dns.mx 'Example.com.'\n"
               "print(#mx, mx[1].host, mx[1].preference, mx[2].host)",
               "\"2\\tmx1.example.com\\t10\\tmx2.example.com\"");
    expect_log("local a = tern.dns.addresses 'mx1.example.com' print(#a, a[1], a[2])",
               "\"2\\t192.0.2.1\\t2001:db8::1\"");
    expect_log("local a, e = tern.dns.addresses 'v4.example.com' print(#a, a[1], e)",
               "\"1\\t192.0.2.4\\tnil\"");
    expect_log("local a, e = tern.dns.addresses 'none.example.com' print(a, e.kind)",
               "\"nil\\tnodata\"");
    expect_log("local a, e = tern.dns.a 'gone.example.com' print(a, e.kind)", "\"nil\\tnxdomain\"");
    expect_log("local a, e = tern.dns.txt 'broken.example.com' print(a, e.kind)",
               "\"nil\\tservfail\"");
    expect_log("local a, e = tern.dns.txt 'slow.example.com' print(a, e.kind)",
               "\"nil\\ttimeout\"");
    expect_log("print(tern.dns.txt('txt.example.com')[1])", "\"v=spf1 -all\"");
    expect_log("print(tern.dns.ptr(ctx.session.client.address)[1])", "\"client.example\"");
    expect_log("print(tern.dns.ptr('2001:db8::1')[1])", "\"six.example\"");
    expect_log("local t = tern.dns.tlsa('_25._tcp.mx1.example.com')[1]\n"
               "print(t.usage, t.selector, t.matching, #t.data)",
               "\"3\\t1\\t1\\t2\"");
    expect_log("local s = tern.dns.srv('_smtp._tcp.example.com')[1]\n"
               "print(s.host, s.port, s.priority, s.weight)",
               "\"s\\t2525\\t1\\t2\"");
    expect_log("local a, e = tern.dns.mx 'not a name' print(a, e.kind)", "\"nil\\tnxdomain\"");
    expect_log("print(pcall(tern.dns.mx, nil))", "tern.dns.mx needs a name, got nil");
}

static void waits_work_nearly_everywhere(void **state)
{
    expect_log("print(pcall(function() tern.sleep(1) return tern.dns.a('v4.example.com')[1] end))",
               "\"true\\t192.0.2.4\"");
    expect_log(
        "local t = setmetatable({}, { __index = function(t, k) tern.sleep(1) return k end })\n"
        "print(t.x)",
        "\"x\"");
    expect_log("for n in function(_, i) tern.sleep(0) i = (i or 0) + 1\n"
               "  if i < 4 then return i end end do print('n', n) end",
               "\"n\\t3\"");
    expect_log("do local c <close> = setmetatable({}, { __close = function() tern.sleep(1)\n"
               "  print 'closed' end }) end",
               "\"closed\"");
    expect_log("print(pcall(string.gsub, 'x', 'x', function() tern.sleep(1) end))",
               "tern.sleep cannot wait here: it was called from a function of Lua's own library");
    expect_log("print(pcall(table.sort, { 1, 2, 3 }, function() tern.sleep(1) end))",
               "tern.sleep cannot wait here");
    expect_log("print(coroutine.wrap(function() return pcall(tern.sleep, 1) end)())",
               "tern.sleep cannot wait inside of a coroutine of your own");
    expect_log("print(pcall(coroutine.yield, 1))",
               "coroutine.yield outside of a coroutine of your own");
    expect_log(
        "local co = coroutine.wrap(function(a) for i = 1, 3 do a = coroutine.yield(a * i) end\n"
        "  return 'end' end)\nprint(co(1), co(2), co(3), co())",
        "\"1\\t4\\t9\\tend\"");
    expect_log("print(pcall(tern.sleep, 'soon'))", "tern.sleep needs a duration");
    expect_log("local t = tern.now() tern.sleep '20s' print(tern.now() - t, os.time())",
               "\"20.0\\t1800001020\"");
}

static const char sleeper[] =
    "local tern = require 'tern'\n"
    "return { hostname = 'mx.example', timeouts = { hook = '30s' }, policies = { { name = 'sleeper',\n"
    "rcpt = function(ctx)\n"
    "  local c <close> = setmetatable({}, { __close = function() print 'closed' end })\n"
    "  kept = nil\n"
    "  tern.sleep(ctx.recipient.local_part) return tern.accept() end,\n"
    "mail = function(ctx) tern.dns.mx 'example.com' return tern.accept() end,\n"
    "} } }";

static void start_sleeper(struct fake *f)
{
    char config[1024], *cut;

    fake_init(f, NULL);
    f->zone = zone;
    str_copy(str_of(sleeper), config, sizeof(config));
    cut = strstr(config, "  kept = nil\n");
    memset(cut, ' ', 12);
    fake_start(f, config);
}

static void answers_come_on_a_later_turn(void **state)
{
    struct fake f;
    struct fake_mail m;
    struct fake_call a, b;

    start_sleeper(&f);
    fake_mail_init(&m, "", "5s@x");
    fake_begin(&f, HOOK_RCPT, &m, &a);
    fake_begin(&f, HOOK_MAIL, &m, &b);
    assert_true(a.waits && b.waits);
    fake_turn(&f);
    assert_int_equal(b.done, 1);
    assert_int_equal(b.result.verdict, VERDICT_ACCEPT);
    assert_int_equal(a.done, 0);
    fake_advance(&f, 4999);
    assert_int_equal(a.done, 0);
    fake_advance(&f, 2);
    assert_int_equal(a.done, 1);
    assert_string_equal(a.decided_by, "tern.lua:6");
    fake_call_done(&a);
    fake_call_done(&b);
    fake_mail_done(&m);
    fake_done(&f);
}

static void a_cancelled_hook_is_never_heard_of(void **state)
{
    struct fake f;
    struct fake_mail m;
    struct fake_call a, b;

    start_sleeper(&f);
    fake_mail_init(&m, "", "5s@x");
    fake_begin(&f, HOOK_RCPT, &m, &a);
    f.hooks->cancel(f.hooks, a.call);
    assert_true(fake_logged(&f, "closed"));
    f.silent = true;
    fake_begin(&f, HOOK_MAIL, &m, &b);
    fake_turn(&f);
    f.hooks->cancel(f.hooks, b.call);
    assert_int_equal(f.cancelled, 1);
    fake_advance(&f, 60000);
    assert_int_equal(a.done + b.done, 0);
    fake_call_done(&a);
    fake_call_done(&b);

    /* ready, but not yet resumed */
    f.silent = false;
    fake_begin(&f, HOOK_MAIL, &m, &b);
    struct fake_query *q = LIST_ENTRY(list_first(&f.queries), struct fake_query, link);
    list_remove(&q->link);
    q->done(q->owner, q->answer);
    dns_answer_unref(q->answer);
    free(q);
    f.hooks->cancel(f.hooks, b.call);
    fake_advance(&f, 1000);
    assert_int_equal(b.done, 0);
    fake_call_done(&b);
    fake_mail_done(&m);
    fake_done(&f);
}

static void deadlines_say_what_was_waited_for(void **state)
{
    struct fake f;
    struct fake_mail m;
    struct fake_call c;

    start_sleeper(&f);
    fake_mail_init(&m, "", "10m@x");
    fake_run(&f, HOOK_RCPT, &m, &c);
    assert_int_equal(c.result.verdict, VERDICT_FAILED);
    assert_int_equal(c.result.reply.code, 451);
    assert_true(fake_logged(&f, "took longer than 30s; it was waiting in tern.sleep 10m"));
    assert_true(fake_logged(&f, "in function <tern.lua:3>"));
    assert_true(fake_logged(&f, "closed"));
    fake_call_done(&c);
    f.silent = true;
    fake_run(&f, HOOK_MAIL, &m, &c);
    assert_true(fake_logged(&f, "it was waiting in tern.dns.mx example.com"));
    assert_int_equal(f.cancelled, 1);
    fake_call_done(&c);
    fake_mail_done(&m);
    fake_done(&f);
}

static void freeing_ends_what_waits(void **state)
{
    struct fake f;
    struct fake_mail m;
    struct fake_call calls[200];

    start_sleeper(&f);
    f.silent = true;
    fake_mail_init(&m, "", "5s@x");
    for (size_t i = 0; i < ARRAY_LEN(calls); i++)
        fake_begin(&f, i % 2 ? HOOK_RCPT : HOOK_MAIL, &m, &calls[i]);
    f.hooks->free(f.hooks);
    f.hooks = NULL;
    fake_advance(&f, 60000);
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        assert_int_equal(calls[i].done, 0);
        fake_call_done(&calls[i]);
    }
    fake_mail_done(&m);
    fake_done(&f);
}

static void many_wait_at_once(void **state)
{
    struct fake f;
    struct fake_mail m;
    struct fake_call *calls = calloc(3000, sizeof(*calls));

    assert_non_null(calls);
    start_sleeper(&f);
    fake_mail_init(&m, "", "5s@x");
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < 3000; i++)
            fake_begin(&f, HOOK_RCPT, &m, &calls[i]);
        fake_advance(&f, 6000);
        for (size_t i = 0; i < 3000; i++) {
            assert_int_equal(calls[i].done, 1);
            assert_int_equal(calls[i].result.verdict, VERDICT_ACCEPT);
            fake_call_done(&calls[i]);
        }
    }
    free(calls);
    fake_mail_done(&m);
    fake_done(&f);
}

/* ---- endless code ---------------------------------------------------------------------------- */

static void expect_stopped(const char *lua)
{
    struct fake f;
    struct fake_mail m;
    struct fake_call c;
    char config[2048];

    fake_init(&f, NULL);
    snprintf(config, sizeof(config),
             "local tern = require 'tern'\nlocal function spin() while true do end end\n"
             "return { hostname = 'mx.example', policies = { { rcpt = function(ctx)\n%s\nend,\n"
             "mail = function() return tern.accept() end } } }",
             lua);
    fake_start(&f, config);
    fake_mail_init(&m, "", "u@x");
    fake_run(&f, HOOK_RCPT, &m, &c);
    if (c.result.verdict != VERDICT_FAILED || !fake_logged(&f, "policy_error"))
        fail_msg("not stopped: %s\n" STR_FMT, lua, STR_ARG(buf_str(&f.log)));
    fake_call_done(&c);
    /* others notice nothing */
    for (int i = 0; i < 3; i++) {
        fake_run(&f, HOOK_MAIL, &m, &c);
        assert_int_equal(c.result.verdict, VERDICT_ACCEPT);
        fake_call_done(&c);
    }
    fake_mail_done(&m);
    fake_done(&f);
}

/* The thread sanitizer does not see the _longjmp of Lua: its record of the stack grows with every
 * error until it gives up. There are too many of them here. */
#ifdef __SANITIZE_THREAD__
#define NOT_WITH_TSAN skip()
#else
#define NOT_WITH_TSAN (void)state
#endif

static void endless_code_is_stopped(void **state)
{
    NOT_WITH_TSAN;
    static const char *const cases[] = {
        "while true do end",
        "while true do pcall(spin) end",
        "while true do pcall(pcall, pcall, spin) end",
        "while true do xpcall(spin, spin) end",
        "while true do coroutine.wrap(spin)() end",
        "while true do pcall(coroutine.wrap(spin)) end",
        "local co = coroutine.create(function() while true do coroutine.yield() end end)\n"
        "while true do coroutine.resume(co) end",
        "while true do coroutine.resume(coroutine.create(function() pcall(spin) spin() end)) end",
        "local c <close> = setmetatable({}, { __close = spin }) spin()",
        "local t = setmetatable({}, { __index = function(t, k) return t[k + 1] end }) print(t[1])",
        "local t = setmetatable({}, { __close = spin })\n"
        "while true do pcall(function() local c <close> = t error 'x' end) end",
        "local s = ('a'):rep(100000) while true do s:find('.-b') end",
        "table.sort({ 3, 2, 1 }, spin)",
        "('x'):gsub('x', spin)",
        "load(function() return 'local x = 1 ' end)()",
        "local function f() return f() end f()",
        "local function f() return 1 + f() end while true do pcall(f) end",
        "repeat local ok = pcall(error, 'x') until false",
        "local function f(n) if n == 0 then while true do end end return 1 + f(n - 1) end f(60000)",
        "for _ in function() return 1 end do end",
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        "local s = '' while true do s = s .. 'xxxxxxxxxxxxxxxx' end",
        "local t = {} while true do t = { t } end",
        "while true do tern.json.decode(tern.json.encode({ 1, 2, 3 })) end",
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        expect_stopped(cases[i]);
}

/* A coroutine that outlives the hook that was stopped is not harmed. */
static void others_coroutines_survive(void **state)
{
    struct fake f;
    struct fake_mail m;
    struct fake_call c;

    fake_init(&f, NULL);
    fake_start(&f,
               "local tern = require 'tern'\nlocal co = coroutine.wrap(function() while true do\n"
               "  for i = 1, 1000 do local x = i end coroutine.yield(1) end end)\n"
               "return { hostname = 'mx.example', policies = { {\n"
               "rcpt = function() while true do co() end end,\n"
               "mail = function() for i = 1, 10 do co() end return tern.accept() end } } }");
    fake_mail_init(&m, "", "u@x");
    fake_run(&f, HOOK_MAIL, &m, &c);
    assert_int_equal(c.result.verdict, VERDICT_ACCEPT);
    fake_call_done(&c);
    fake_run(&f, HOOK_RCPT, &m, &c);
    assert_int_equal(c.result.verdict, VERDICT_FAILED);
    fake_call_done(&c);
    fake_mail_done(&m);
    fake_done(&f);
}

/* ---- workers --------------------------------------------------------------------------------- */

struct worker {
    pthread_t thread;
    struct fake f;
    struct policy_source *source;
    struct settings *settings;
    size_t stopped, fine;
};

/* As the daemon's workers: all signals blocked, a VM of its own from the shared source. */
static void *work(void *arg)
{
    struct worker *w = arg;
    struct fake_mail m;
    struct fake_call c;
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    fake_init(&w->f, NULL);
    if (policy_vm_new(w->source, w->settings, &w->f.ports, &w->f.hooks, &w->f.err) < 0)
        return NULL;
    fake_mail_init(&m, "", "u@x");
    for (int i = 0; i < 5; i++) {
        fake_run(&w->f, HOOK_RCPT, &m, &c);
        w->stopped += c.result.verdict == VERDICT_FAILED;
        fake_call_done(&c);
        fake_run(&w->f, HOOK_MAIL, &m, &c);
        w->fine += c.result.verdict == VERDICT_ACCEPT;
        fake_call_done(&c);
    }
    fake_mail_done(&m);
    return NULL;
}

static void each_worker_has_its_watchdog(void **state)
{
    struct worker workers[3] = { { .stopped = 0 } };
    struct fake f;

    fake_init(&f, NULL);
    assert_int_equal(fake_load(&f, "local tern = require 'tern'\n"
                                   "return { hostname = 'mx.example', policies = { {\n"
                                   "rcpt = function() while true do end end,\n"
                                   "mail = function() return tern.accept() end } } }"),
                     0);
    for (size_t i = 0; i < ARRAY_LEN(workers); i++) {
        workers[i].source = f.source;
        workers[i].settings = f.settings;
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(workers); i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(workers[i].stopped, 5);
        assert_int_equal(workers[i].fine, 5);
        fake_done(&workers[i].f); /* freed by another thread */
    }
    fake_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dns_looks_up),
        cmocka_unit_test(waits_work_nearly_everywhere),
        cmocka_unit_test(answers_come_on_a_later_turn),
        cmocka_unit_test(a_cancelled_hook_is_never_heard_of),
        cmocka_unit_test(deadlines_say_what_was_waited_for),
        cmocka_unit_test(freeing_ends_what_waits),
        cmocka_unit_test(many_wait_at_once),
        cmocka_unit_test(endless_code_is_stopped),
        cmocka_unit_test(others_coroutines_survive),
        cmocka_unit_test(each_worker_has_its_watchdog),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
