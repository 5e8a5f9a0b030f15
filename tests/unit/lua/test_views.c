/* What ctx holds, until when, and the modules that hooks call. */
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

static void sessions_and_recipients(void **state)
{
    expect_log(
        "local s = ctx.session print(s.id, s.client.address, s.client.port, s.client.name,\n"
        "s['local'].address, s.server.port, s.helo, s.esmtp, s.tls, s.identity, s.listener,\n"
        "s.may_relay)",
        "\"1\\t192.0.2.7\\t4711\\tclient.example\\t198.51.100.25\\t25\\thelo.example\\ttrue\\tnil"
        "\\tnil\\tsmtp\\tfalse\"");
    expect_log("local r = ctx.recipient print(r.address, r.local_part, r.domain, next(r.params))",
               "\"u@rcpt.example\\tu\\trcpt.example\\tnil\"");
    expect_log(
        "local m = ctx.message print(m.id, m.sender, m.sender_domain, m.size, m.params.body,\n"
        "m.headers, m.body, m.received, m.client.address, m.helo, m.identity, m.listener)",
        "\"nil\\ta@sender.example\\tsender.example\\t1234\\t7BIT\\tnil\\tnil\\tnil\\t192.0.2.7\\t"
        "helo.example\\tnil\\tsmtp\"");
    expect_log("print(ctx.attempt, ctx.request, ctx.event)", "\"nil\\tnil\\tnil\"");
    expect_log("print(ctx.session == ctx.session, ctx.session.client == ctx.session.client)",
               "\"true\\ttrue\"");
    expect_log("print(pcall(function() return ctx.sesion end))",
               "ctx has no field 'sesion'; did you mean 'session'?");
    expect_log("print(pcall(function() return ctx.session.clinet end))",
               "session has no field 'clinet'; did you mean 'client'?");
    expect_log("print(pcall(function() ctx.session.helo = 1 end))", "session.helo cannot be set");
}

static void data_lives_as_long_as_its_owner(void **state)
{
    struct fake f;
    struct fake_mail m;
    struct fake_call c;

    fake_init(&f, NULL);
    fake_start(&f, "return { hostname = 'mx.example', policies = { { rcpt = function(ctx)\n"
                   "local s, m = ctx.session.data, ctx.message.data\n"
                   "s.n = (s.n or 0) + 1 m.n = (m.n or 0) + 1 print('n', s.n, m.n) end } } }");
    fake_mail_init(&m, "", "u@x");
    for (int i = 0; i < 2; i++) {
        fake_run(&f, HOOK_RCPT, &m, &c);
        fake_call_done(&c);
    }
    assert_true(fake_logged(&f, "n\\t2\\t2"));
    f.hooks->message_closed(f.hooks, 7);
    f.hooks->message_closed(f.hooks, 12345);
    fake_run(&f, HOOK_RCPT, &m, &c);
    fake_call_done(&c);
    assert_true(fake_logged(&f, "n\\t3\\t1"));
    f.hooks->session_closed(f.hooks, 1);
    fake_run(&f, HOOK_RCPT, &m, &c);
    fake_call_done(&c);
    assert_true(fake_logged(&f, "n\\t1\\t2"));
    fake_mail_done(&m);
    fake_done(&f);
}

static void handles_end_with_their_hook(void **state)
{
    static const char *const uses[] = { "old.ctx.session", "old.session.helo",
                                        "old.recipient.domain", "old.message.sender",
                                        "old.message.data" };
    struct fake f;
    struct fake_mail m;
    struct fake_call c;

    for (size_t i = 0; i < ARRAY_LEN(uses); i++) {
        char config[512];
        snprintf(
            config, sizeof(config),
            "local old\nreturn { hostname = 'mx.example', policies = { { rcpt = function(ctx)\n"
            "if old then print(old.client.address) print(%s) end\n"
            "old = { ctx = ctx, session = ctx.session, recipient = ctx.recipient,\n"
            "message = ctx.message, client = ctx.session.client } end } } }",
            uses[i]);
        fake_init(&f, NULL);
        fake_start(&f, config);
        fake_mail_init(&m, "", "u@x");
        fake_run(&f, HOOK_RCPT, &m, &c);
        fake_call_done(&c);
        fake_run(&f, HOOK_RCPT, &m, &c);
        assert_int_equal(c.result.verdict, VERDICT_FAILED);
        assert_true(fake_logged(&f, "192.0.2.7"));
        assert_true(fake_logged(&f, "used after its time: the hook that was given it has ended"));
        assert_true(fake_logged(&f, "tern.lua:3: "));
        fake_call_done(&c);
        fake_mail_done(&m);
        fake_done(&f);
    }
}

/* ---- content --------------------------------------------------------------------------------- */

static int read_pieces(const struct message_view *v, uint64_t *cursor, struct str *ret)
{
    static const char *const pieces[] = { "hello\r\n", "world\r\n" };

    if (*cursor >= ARRAY_LEN(pieces))
        return 0;
    *ret = str_of(pieces[(*cursor)++]);
    return 1;
}

static void run_content(const char *lua, enum hook h, struct fake *f, struct headers *headers)
{
    struct fake_mail m;
    struct fake_call c;
    char config[2048];

    fake_init(f, NULL);
    snprintf(config, sizeof(config),
             "return { hostname = 'mx.example', policies = { { %s = function(ctx)\n%s\nend } } }",
             hook_name(h), lua);
    fake_start(f, config);
    fake_mail_init(&m, "", "u@x");
    m.message.headers = headers;
    m.message.read_body = read_pieces;
    fake_run(f, h, &m, &c);
    fake_call_done(&c);
    fake_mail_done(&m);
}

static void expect_content(const char *lua, enum hook h, const char *wanted, const char *block)
{
    struct arena arena;
    struct headers headers;
    struct fake f;
    struct buf out;

    arena_init(&arena, 0);
    buf_init(&out, 0);
    assert_int_equal(headers_parse(&arena,
                                   STR("Received: a\r\nSubject: hi\r\n there\r\n"
                                       "received: b\r\n\r\n"),
                                   &headers),
                     0);
    run_content(lua, h, &f, &headers);
    if (wanted && !fake_logged(&f, wanted))
        fail_msg("%s\nlacks: %s\nlog: " STR_FMT, lua, wanted, STR_ARG(buf_str(&f.log)));
    headers_write(&headers, &out);
    if (block && !str_eq(buf_str(&out), str_of(block)))
        fail_msg("%s\n" STR_FMT, lua, STR_ARG(buf_str(&out)));
    buf_done(&out);
    arena_done(&arena);
    fake_done(&f);
}

static void headers_are_read_and_changed(void **state)
{
    expect_content(
        "local h = ctx.message.headers print(h:get 'SUBJECT', h:get 'To', #h:all 'Received',\n"
        "h:all('received')[2])",
        HOOK_DATA, "\"hi there\\tnil\\t2\\tb\"", NULL);
    expect_content(
        "local tern, h = require 'tern', ctx.message.headers h:set('Subject', 'new') h:remove 'received'\n"
        "h:add('X-A', '1') h:prepend('X-B', '2')",
        HOOK_DATA, NULL, "X-B: 2\r\nSubject: new\r\nX-A: 1\r\n");
    expect_content("print(pcall(function() ctx.message.headers:add('X', 'a\\r\\nY: b') end))",
                   HOOK_DATA, "a header's value must not contain CR, LF or NUL", NULL);
    expect_content("print(pcall(function() ctx.message.headers:add('X:', 'a') end))", HOOK_DATA,
                   "a header's name must be printable ASCII", NULL);
    expect_content("print(pcall(function() ctx.message.headers:add('X', 'a') end))", HOOK_ROUTE,
                   "headers can be changed in the hook 'data' only", NULL);
    expect_content("print(pcall(function() return ctx.message.headers.gett end))", HOOK_DATA,
                   "headers has no field 'gett'; did you mean 'get'?", NULL);
    expect_content("print(pcall(ctx.message.headers.get, {}, 'x'))", HOOK_DATA,
                   "this needs a headers in front of ':' (got a table)", NULL);
}

static void one_of_many_is_read_and_changed(void **state)
{
    expect_content(
        "local h = ctx.message.headers print(h:get('received', 2), h:get('Received', -2),\n"
        "h:get('received', 3), h:get('received', -3), h:count 'Received', h:count 'x',\n"
        "(h:raw('Subject'):gsub('%c', '|')), h:raw 'x', h:raw('received', -1))",
        HOOK_DATA, "\"b\\ta\\tnil\\tnil\\t2\\t0\\thi|| there\\tnil\\tb\"", NULL);
    expect_content(
        "local h = ctx.message.headers\n"
        "print(h:replace('Received', 'c', -1), h:replace('X', 'y'), h:remove('received', 1),\n"
        "h:remove('received', 5), h:replace('subject', 'new'))",
        HOOK_DATA, "\"true\\tfalse\\t1\\t0\\ttrue\"", "subject: new\r\nReceived: c\r\n");
    expect_content("ctx.message.headers:get('a', 0)", HOOK_DATA,
                   "fields of a name are counted from 1 (and from the last one: -1)", NULL);
    expect_content("local h, seen = ctx.message.headers, {}\n"
                   "for name, value, raw in h:each() do h:remove(name) h:add('X', value)\n"
                   "seen[#seen + 1] = name .. '=' .. value .. '/' .. #raw end\n"
                   "print(table.concat(seen, ' '))",
                   HOOK_DATA, "\"Received=a/1 Subject=hi there/10 received=b/1\"",
                   "X: a\r\nX: hi there\r\nX: b\r\n");
    expect_content(
        "local tern, h = require 'tern', ctx.message.headers h:set('Subject', 'gr\xc3\xbc\xc3\x9f' .. 'e') "
        "print(h:get 'subject', h:decoded 'Subject', h:decoded 'x', h:decoded('subject', 2),\n"
        "tern.mime.decode(tern.mime.encode 'a \xc3\xbc') == 'a \xc3\xbc')",
        HOOK_DATA,
        "\"=?utf-8?q?gr=C3=BC=C3=9Fe?=\\tgr\xc3\xbc\xc3\x9f"
        "e\\tnil\\tnil\\ttrue\"",
        NULL);
    expect_content("print(pcall(require('tern.mime').encode, '\\xff'))", HOOK_DATA,
                   "takes a text in UTF-8", NULL);
    expect_content("ctx.message.headers:replace('Subject', 'x', 1)", HOOK_ROUTE,
                   "headers can be changed in the hook 'data' only", NULL);
}

/* What a hook that failed has changed is undone; the line that changed something is known. */
static void changes_of_failed_hooks_are_undone(void **state)
{
    struct headers headers;
    struct arena arena;
    struct fake_mail m;
    struct fake_call c;
    struct fake f;
    struct buf out;

    arena_init(&arena, 0);
    buf_init(&out, 0);
    fake_init(&f, NULL);
    fake_start(&f,
               "local tern = require 'tern'\n"
               "local function failing(how) return { data = function(ctx)\n"
               "ctx.message.headers:remove 'Subject' ctx.message.headers:add('X-Bad', 'x') how()\n"
               "end } end\n"
               "return { hostname = 'mx.example', on_error = 'ignore', policies = {\n"
               "{ data = function(ctx) ctx.message.headers:add('X-One', '1') end },\n"
               "failing(function() error 'no' end),\n"
               "failing(function() while true do end end),\n"
               "failing(function() tern.sleep '1h' end),\n"
               "failing(function() local t = 'x' while true do t = t .. t end end),\n"
               "{ data = function(ctx) ctx.message.headers:add('X-Two', ctx.message.headers:get\n"
               "'Subject') return 7 end },\n"
               "{ data = function(ctx)\n"
               "ctx.message.headers:add('X-Three', ctx.message.headers:get 'X-One') end } } }");
    fake_mail_init(&m, "", "u@x");
    assert_int_equal(headers_parse(&arena, STR("Subject: hi\r\n\r\n"), &headers), 0);
    m.message.headers = &headers;
    m.message.read_body = read_pieces;
    fake_run(&f, HOOK_DATA, &m, &c);
    assert_int_equal(c.result.verdict, VERDICT_NONE);
    assert_int_equal(fake_count(&f, "\"policy_error\""), 5);
    headers_write(&headers, &out);
    if (!str_eq(buf_str(&out), STR("Subject: hi\r\nX-One: 1\r\nX-Three: 1\r\n")))
        fail_msg(STR_FMT "\nlog: " STR_FMT, STR_ARG(buf_str(&out)), STR_ARG(buf_str(&f.log)));
    assert_int_equal(headers.n_changes, 2);
    assert_true(str_eq(headers.changes[0].place, STR("tern.lua:6")));
    assert_true(str_eq(headers.changes[1].place, STR("tern.lua:14")));
    fake_call_done(&c);
    fake_mail_done(&m);
    fake_done(&f);
    buf_done(&out);
    arena_done(&arena);
}

enum { BIG_PIECES = 160 };

/* 10 MiB in lines of 64 octets. */
static int read_big(const struct message_view *v, uint64_t *cursor, struct str *ret)
{
    static char piece[65536];

    if (!*piece)
        for (size_t i = 0; i < sizeof(piece); i++)
            piece[i] = i % 64 == 63 ? '\n' : i % 64 == 62 ? '\r' : 'x';
    if (*cursor >= BIG_PIECES)
        return 0;
    ++*cursor;
    *ret = str_make(piece, sizeof(piece));
    return 1;
}

/* They wait now and then, so that others go on, and one budget of processor time is not all they have. */
static void large_bodies_are_read_in_turns(void **state)
{
    static const char *const cases[][2] = {
        { "print('n', b:sha256(), b.size)",
          "n\\t27e7d81f8bef05ea30ac203a4aa9ac97d86f3b986ebfb2bcd637cb647b441582\\t10485760" },
        { "local n, s = 0, 0 for l in b:lines() do n = n + 1 s = s + #l end print(n, s)",
          "163840\\t10158080" },
        { "local n, s = 0, 0 for p in b:chunks() do n = n + 1 s = s + #p end print(n, s)",
          "160\\t10485760" },
        { "local n, s = 0, 0 for p in b do n = n + 1 s = s + #p end print(n, s)",
          "160\\t10485760" },
        { "local n = 0 local c = coroutine.wrap(function() for p in b:chunks() do n = n + 1 end end)\n"
          "c() print('wrapped', n)",
          "wrapped\\t160" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct headers headers;
        struct arena arena;
        struct fake_mail m;
        struct fake_call c;
        struct fake f;
        char config[1024];

        arena_init(&arena, 0);
        fake_init(&f, NULL);
        snprintf(config, sizeof(config),
                 "return { hostname = 'mx.example', policies = { { data = function(ctx)\n"
                 "local b = ctx.message.body %s end } } }",
                 cases[i][0]);
        fake_start(&f, config);
        fake_mail_init(&m, "", "u@x");
        assert_int_equal(headers_parse(&arena, STR("A: b\r\n\r\n"), &headers), 0);
        m.message.headers = &headers;
        m.message.read_body = read_big;
        m.message.body_size = BIG_PIECES * 65536;
        fake_begin(&f, HOOK_DATA, &m, &c);
        assert_int_equal(c.waits, !strstr(cases[i][0], "wrap"));
        for (int turn = 0; turn < 1000 && c.waits && !c.done; turn++)
            fake_turn(&f);
        assert_int_equal(c.result.verdict, VERDICT_NONE);
        if (!fake_logged(&f, cases[i][1]))
            fail_msg("%s\nlacks: %s\nlog: " STR_FMT, cases[i][0], cases[i][1],
                     STR_ARG(buf_str(&f.log)));
        fake_call_done(&c);
        fake_mail_done(&m);
        fake_done(&f);
        arena_done(&arena);
    }
}

/* Pieces that end anywhere: in a CRLF, in a line longer than any. */
static int read_odd(const struct message_view *v, uint64_t *cursor, struct str *ret)
{
    static char longest[70000];
    const struct str pieces[] = { STR("one\r"),       STR("\ntw"), STR("o\n\r\n"),
                                  { longest, 70000 }, STR("\r\n"), STR("no\rend\0") };

    memset(longest, 'l', sizeof(longest));
    if (*cursor >= ARRAY_LEN(pieces))
        return 0;
    *ret = pieces[(*cursor)++];
    return 1;
}

static void lines_are_found(void **state)
{
    struct fake_mail m;
    struct fake_call c;
    struct fake f;

    fake_init(&f, NULL);
    fake_start(
        &f, "return { hostname = 'mx.example', policies = { { data = function(ctx)\n"
            "local t, other = {}, ctx.message.body:lines()\n"
            "for line, whole in ctx.message.body:lines() do\n"
            "local same = other() == line\n"
            "t[#t + 1] = (#line < 9 and line:gsub('%c', '?') or #line) .. (whole and '' or '+')\n"
            ".. (same and '' or '!') end print(table.concat(t, ','), other())\n"
            "end } } }");
    fake_mail_init(&m, "", "u@x");
    m.message.read_body = read_odd;
    fake_run(&f, HOOK_DATA, &m, &c);
    if (!fake_logged(&f, "\"one,two,,65536+,4464,no?end?\\tnil\""))
        fail_msg("log: " STR_FMT, STR_ARG(buf_str(&f.log)));
    fake_call_done(&c);
    fake_mail_done(&m);
    fake_done(&f);
}

static int read_attachment(const struct message_view *v, uint64_t *cursor, struct str *ret)
{
    static const char *const pieces[] = {
        "--b\r\n\r\ntext\r\n--b\r\nContent-Type: application/x-msdown",
        "load\r\nContent-Disposition: attachment;\r\n file",
        "name=\"=?utf-8?b?w7wuZXhl?=\"\r\n\r\nTVqQ\r\n--b--\r\n"
    };

    if (*cursor >= ARRAY_LEN(pieces))
        return 0;
    *ret = str_of(pieces[(*cursor)++]);
    return 1;
}

static void parts_are_listed(void **state)
{
    struct headers headers;
    struct arena arena;
    struct fake_mail m;
    struct fake_call c;
    struct fake f;

    arena_init(&arena, 0);
    fake_init(&f, NULL);
    fake_start(
        &f, "return { hostname = 'mx.example', policies = { { data = function(ctx)\n"
            "local parts, all = ctx.message:parts()\n"
            "print(#parts, all, parts[1].type, parts[1].filename, parts[1].size, parts[1].depth,\n"
            "parts[2].type, parts[2].filename, parts[2].disposition, parts[2].size)\n"
            "end, mail = function(ctx) print(pcall(ctx.message.parts, ctx.message)) end } } }");
    fake_mail_init(&m, "", "u@x");
    fake_run(&f, HOOK_MAIL, &m, &c);
    assert_true(fake_logged(&f, "message:parts() needs the content, which is there from the hook"));
    fake_call_done(&c);
    assert_int_equal(headers_parse(&arena,
                                   STR("Content-Type: multipart/mixed;\r\n\tboundary=b\r\n\r\n"),
                                   &headers),
                     0);
    m.message.headers = &headers;
    m.message.read_body = read_attachment;
    fake_run(&f, HOOK_DATA, &m, &c);
    if (!fake_logged(&f, "\"2\\ttrue\\ttext/plain\\tnil\\t4\\t1\\tapplication/x-msdownload\\t"
                         "\xc3\xbc.exe\\tattachment\\t4\""))
        fail_msg("log: " STR_FMT, STR_ARG(buf_str(&f.log)));
    fake_call_done(&c);
    fake_mail_done(&m);
    fake_done(&f);
    arena_done(&arena);
}

static void bodies_are_read(void **state)
{
    expect_content("local n = 0 for chunk in ctx.message.body do n = n + #chunk end print('n', n)",
                   HOOK_DATA, "\"n\\t14\"", NULL);
    expect_content(
        "local b = ctx.message.body print((b:text():gsub('%c', '|')), (select(2, b:text(5))))",
        HOOK_DATA, "\"hello||world||\\tfalse\"", NULL);
}

/* ---- constructors ---------------------------------------------------------------------------- */

static void routes_are_made(void **state)
{
    static const char *const cases[][2] = {
        { "route.mx { domain = 'Other.example', below = 'self' }", "mx other.example below self" },
        { "route.mx()", "mx rcpt.example" },
        { "route.hosts { '10.1.2.3:25', 'b.example', balance = 'random', tls = 'require' }",
          "hosts 10.1.2.3:25, b.example, balance random, tls require" },
        { "route.hosts '10.1.2.3'", "hosts 10.1.2.3" },
        { "route.lmtp { '/run/dovecot/lmtp' }", "hosts lmtp:/run/dovecot/lmtp" },
        { "route.lmtp { 'host.example:24' }", "hosts lmtp://host.example:24" },
        { "route.hold { queue = 'shop.example', reason = 'waiting' }", "hold shop.example" },
        { "route.discard()", "discard" },
        { "route.bounce { 550, '5.1.1', 'no such user' }", "bounce 550 5.1.1 no such user" },
        { "route.hosts { 'a', fallback = route.mx { domain = 'b' } }", "hosts a; fallback mx b" },
        { "route.hosts { 'a', rate = '1/m', source = '192.0.2.1' }",
          "hosts a, source 192.0.2.1, rate 1/m" },
        { "route.hosts { 'a', source = { '192.0.2.1', '2001:DB8::0:1' } }",
          "hosts a, source 192.0.2.1 or 2001:db8::1" },
        { "route.hosts { 'a', rate = '1 per minute' }",
          "route.hosts: 'rate' must be a rate such as" },
        { "route.hosts { 'a', source = '::' }", "'source' must be an address of this machine" },
        { "route.hosts {}", "route.hosts needs at least one item: a host such as" },
        { "route.hosts { 'a b' }", "route.hosts: '[1]' must be a host such as" },
        { "route.hosts { 'a', retry = '5x' }", "route.hosts: 'retry' must be a schedule" },
        { "route.hosts { 'a', lifetime = 'forevr' }", "or \\\"forever\\\", got \\\"forevr\\\"" },
        { "route.hosts({ 'a' }, 1)", "route.hosts takes one argument: write route.hosts { ... }" },
        { "route.hosts { 'a', reason = 'x\\ny' }", "'reason' must not contain line breaks" },
        { "route.mx { domian = 'x' }",
          "tern.lua:3: unknown option 'domian' in route.mx; did you mean 'domain'?" },
        { "route.mx { when_best = 'defer' }", "route.mx: 'when_best' needs below" },
        { "route.mx 'example.com'", "route.mx must be a table, got \\\"example.com\\\"" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char lua[512];
        snprintf(lua, sizeof(lua),
                 "print(select(2, pcall(function() local r = %s return tostring(r)"
                 " end)))",
                 cases[i][0]);
        expect_log(lua, cases[i][1]);
    }
}

static void route_options_arrive(void **state)
{
    struct fake f;
    struct fake_mail m;
    struct fake_call c;

    fake_init(&f, NULL);
    fake_start(
        &f, "local route = require 'tern.route'\n"
            "return { hostname = 'mx.example', default_route = route.hosts { 'smart.example:587',\n"
            "mx = true, queue = 'q', retry = '1m,5m', lifetime = 'forever', warn_after = 'never',\n"
            "concurrency = 3, source = '192.0.2.1', on_host_failure = 'forever', tls = 'verify',\n"
            "reason = 'because', balance = 'round_robin',\n"
            "fallback = route.mx { domain = 'x', lifetime = '2d' } } }");
    fake_mail_init(&m, "", "u@x");
    fake_run(&f, HOOK_ROUTE, &m, &c);
    const struct route *r = c.result.route;
    assert_int_equal(c.result.verdict, VERDICT_ROUTE);
    assert_string_equal(c.decided_by, "default_route");
    assert_true(r->targets[0].use_mx);
    assert_int_equal(r->targets[0].port, 587);
    assert_true(str_eq(r->queue, STR("q")));
    assert_int_equal(r->retry.n, 2);
    assert_int_equal(r->lifetime_ms, INT64_MAX);
    assert_true(r->warn_after_ms < 0);
    assert_int_equal(r->concurrency, 3);
    assert_true(str_eq(r->source, STR("192.0.2.1")));
    assert_true(r->host_failure_forever);
    assert_int_equal(r->tls, ROUTE_TLS_VERIFY);
    assert_int_equal(r->balance, ROUTE_ROUND_ROBIN);
    assert_true(str_eq(r->reason, STR("because")));
    assert_int_equal(r->fallback->lifetime_ms, INT64_C(172800000));
    fake_call_done(&c);
    fake_mail_done(&m);
    fake_done(&f);
}

static void verdicts_are_made(void **state)
{
    static const char *const cases[][2] = {
        { "tern.accept()", "accept" },
        { "tern.reject()", "reject 550 5.7.1 rejected by policy" },
        { "tern.reject { 554 }", "reject 554 rejected by policy" },
        { "tern.reject { 550, 'just so' }", "reject 550 just so" },
        { "tern.reject { 550, '5.1.1', 'two\\nlines' }", "reject 550 5.1.1 two\\nlines" },
        { "tern.reject { 459, '4.7.1', 'no etrn' }", "reject 459 4.7.1 no etrn" },
        { "tern.defer { 451, '4.7.1', 'later', retry = '10m' }", "defer 451 4.7.1 later" },
        { "tern.bounce()", "bounce" },
        { "tern.reject { 451, '4.7.1', 'x' }",
          "tern.reject: the code of its reply must be from 500 to 559, got 451; use tern.defer" },
        { "tern.defer { 550 }", "must be from 400 to 459, got 550; use tern.reject" },
        { "tern.reject { 599 }", "must be from 500 to 559, got 599" },
        { "tern.reject { '550' }", "must be from 500 to 559, got \\\"550\\\"" },
        { "tern.reject { 550, '4.7.1', 'x' }",
          "code 550 and enhanced code \\\"4.7.1\\\" do not agree" },
        { "tern.reject { 550, '5.7', 'x' }", "must be an enhanced status code" },
        { "tern.reject { 550, '5.7.1', 'a\\r\\nb' }", "must not contain control characters" },
        { "tern.reject { 550, '5.7.1', 'x', 'y' }", "a reply has three parts" },
        { "tern.reject { 550, code = 3 }", "unknown option 'code' in tern.reject" },
        { "tern.reject 'no'", "tern.reject must be a table, got \\\"no\\\"" },
        { "tern.reject { retry = '5m' }", "unknown option 'retry' in tern.reject" },
        { "tern.release { queue = 'q' }", "tern.release: needs deliver_to or route, and not both" },
        { "tern.release { deliver_to = 'h' }", "tern.release: 'queue' is missing" },
        { "tern.duration '1h' + tern.duration(5) + tern.duration '500ms'", "3605.5" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char lua[512];
        snprintf(lua, sizeof(lua),
                 "print(select(2, pcall(function() local r = %s return tostring(r)"
                 " end)))",
                 cases[i][0]);
        expect_log(lua, cases[i][1]);
    }
    /* said at the place of the call, also when it is the last thing that a function does */
    expect_log("local function f()\n  return tern.reject { 99 }\nend\nf()",
               "tern.lua:4: tern.reject: ");
}

/* ---- modules --------------------------------------------------------------------------------- */

static void networks_contain(void **state)
{
    expect_log(
        "local n = tern.net.cidr { '10.0.0.0/8', '2001:db8::/32' }\n"
        "print(n:contains '10.1.2.3', n:contains '11.0.0.1', n:contains '[2001:db8::1]:25',\n"
        "n:contains(ctx.session.client), n:contains(nil),\n"
        "tern.net.cidr '192.0.2.0/24':contains(ctx.session.client))",
        "\"true\\tfalse\\ttrue\\tfalse\\tfalse\\ttrue\"");
    expect_log("print(pcall(tern.net.cidr, '10.0.0.1/8'))", "is not a network such as");
    expect_log("print(pcall(tern.net.cidr, {}, 3))", "true");
    expect_log("print(pcall(function() return tern.net.cidr('10.0.0.0/8'):contain() end))",
               "networks has no field 'contain'; did you mean 'contains'?");
    expect_log("print(pcall(function() tern.net.cidr('10.0.0.0/8'):contains('x') end))",
               "contains() needs an IP address");
}

static void json_goes_both_ways(void **state)
{
    static const char *const cases[][2] = {
        { "tern.json.encode { 1, 2.5, 'a\"\\n', true, { x = tern.json.null } }",
          "[1,2.5,\\\"a\\\\\\\"\\\\u000a\\\",true,{\\\"x\\\":null}]" },
        { "tern.json.encode {}", "{}" },
        { "tern.json.encode('\\xff')", "\\\\ufffd" },
        { "tern.json.decode('{\"a\":[1,-2.5e1,\"x\\\\u00e9\\\\ud83d\\\\ude00\",null,true]}').a[2]",
          "-25.0" },
        { "#tern.json.decode('[\"\\\\ud83d\\\\ude00\"]')[1]", "4" },
        { "tern.json.decode('[1,]')", "nil\\ta bad number at octet 4" },
        { "tern.json.decode('[01]')", "a bad number" },
        { "tern.json.decode('{\"a\":1')", "an object without '}'" },
        { "tern.json.decode('\"\\\\ud800x\"')", "a surrogate alone" },
        { "tern.json.decode('1 2')", "more behind the value" },
        { "tern.json.decode('[' .. ('['):rep(100))", "too deep" },
        { "tern.json.decode('')", "a bad number at octet 1" },
        { "tern.json.encode(print)", "cannot encode a function" },
        { "tern.json.encode(0/0)", "not finite" },
        { "(function() local t = {} t.t = t return tern.json.encode(t) end)()", "too deep" },
        { "tern.json.encode { 1, a = 2 }", "both names and numbers" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char lua[512];
        snprintf(lua, sizeof(lua), "print(pcall(function() return %s end))", cases[i][0]);
        expect_log(lua, cases[i][1]);
    }
}

static void logs_have_fields(void **state)
{
    expect_log(
        "tern.log.warn { 'seen', client = '1.2.3.4', n = 3, ok = true, t = 1.5 }",
        "\"level\":\"warn\",\"event\":\"policy_log\",\"place\":\"tern.lua:3\",\"text\":\"seen\"");
    expect_log("tern.log.info { n = 3 }", "\"n\":3");
    expect_log("print(pcall(tern.log.info, { ['bad name'] = 1 }))",
               "'bad name' cannot be the name of a field");
    expect_log("print()", "\"text\":\"\"");
    expect_log("tern.log.error(ctx.recipient.domain)", "\"level\":\"error\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions_and_recipients),
        cmocka_unit_test(data_lives_as_long_as_its_owner),
        cmocka_unit_test(handles_end_with_their_hook),
        cmocka_unit_test(headers_are_read_and_changed),
        cmocka_unit_test(one_of_many_is_read_and_changed),
        cmocka_unit_test(changes_of_failed_hooks_are_undone),
        cmocka_unit_test(bodies_are_read),
        cmocka_unit_test(lines_are_found),
        cmocka_unit_test(parts_are_listed),
        cmocka_unit_test(large_bodies_are_read_in_turns),
        cmocka_unit_test(routes_are_made),
        cmocka_unit_test(route_options_arrive),
        cmocka_unit_test(verdicts_are_made),
        cmocka_unit_test(networks_contain),
        cmocka_unit_test(json_goes_both_ways),
        cmocka_unit_test(logs_have_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
