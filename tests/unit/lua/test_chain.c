/* Which policies are asked, in which order, and what their answers become. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "unit/lua/fake.h"

#define HEAD                                                                                       \
    "local tern, route = require 'tern', require 'tern.route'\n"                                   \
    "local function says(name, what) return { name = name, rcpt = function(ctx)\n"                 \
    "  tern.log.info('asked ' .. name) return what end } end\n"                                    \
    "local function to(host) return { route = function(ctx)\n"                                     \
    "  tern.log.info('asked ' .. host) return route.hosts { host } end } end\n"                    \
    "return { hostname = 'mx.example',\n"

static void ask(struct fake *f, enum hook h, const char *sender, const char *recipient,
                struct fake_call *c)
{
    struct fake_mail m;

    fake_mail_init(&m, sender, recipient);
    fake_run(f, h, &m, c);
    fake_mail_done(&m);
}

static bool asked_in_order(struct fake *f, const char *first, const char *second)
{
    ptrdiff_t a = str_find(buf_str(&f->log), str_of(first));
    ptrdiff_t b = str_find(buf_str(&f->log), str_of(second));

    return a >= 0 && b > a;
}

static void domain_then_policies_then_sender(void **state)
{
    struct fake f;
    struct fake_call c;

    fake_init(&f, NULL);
    fake_start(&f, HEAD "domains = { ['rcpt.example'] = says('domain') },\n"
                        "policies = { says('first'), { name = 'none' }, says('second') },\n"
                        "senders = { ['sender.example'] = says('sender', tern.reject()) } }");
    ask(&f, HOOK_RCPT, "a@sender.example", "u@rcpt.example", &c);
    assert_int_equal(c.result.verdict, VERDICT_REJECT);
    assert_int_equal(c.result.reply.code, 550);
    assert_string_equal(c.text, "rejected by policy");
    assert_true(c.result.known_domain);
    assert_string_equal(c.decided_by, "tern.lua:9");
    assert_true(asked_in_order(&f, "asked domain", "asked first"));
    assert_true(asked_in_order(&f, "asked first", "asked second"));
    assert_true(asked_in_order(&f, "asked second", "asked sender"));
    fake_call_done(&c);

    ask(&f, HOOK_RCPT, "a@other.example", "u@elsewhere.example", &c);
    assert_int_equal(c.result.verdict, VERDICT_NONE);
    assert_string_equal(c.decided_by, "default");
    assert_false(c.result.known_domain);
    fake_call_done(&c);
    fake_done(&f);
}

static void the_first_answer_wins(void **state)
{
    struct fake f;
    struct fake_call c;

    fake_init(&f, NULL);
    fake_start(&f, HEAD "policies = { says('a'), says('b', tern.accept()),\n"
                        "  says('c', tern.reject()) } }");
    ask(&f, HOOK_RCPT, "", "u@rcpt.example", &c);
    assert_int_equal(c.result.verdict, VERDICT_ACCEPT);
    assert_false(fake_logged(&f, "asked c"));
    fake_call_done(&c);
    fake_done(&f);
}

static void the_most_specific_domain_wins(void **state)
{
    static const struct {
        const char *domain, *policy;
    } cases[] = {
        { "example.com", "exact" },
        { "EXAMPLE.com", "exact" },
        { "a.example.com", "suffix" },
        { "b.a.example.com", "suffix" },
        { "x.deep.example.com", "deep" },
        { "deep.example.com", "suffix" },
        { "b\303\274cher.example", "idn" },
        { "xn--bcher-kva.example", "idn" },
        { "com", "any" },
        { "badexample.com", "any" },
        { "[192.0.2.1]", NULL },
    };
    struct fake f;

    fake_init(&f, NULL);
    fake_start(&f, HEAD "domains = { ['Example.COM'] = says('exact', tern.accept()),\n"
                        "['.example.com'] = says('suffix', tern.accept()),\n"
                        "['*.deep.example.com'] = says('deep', tern.accept()),\n"
                        "['b\303\274cher.example'] = says('idn', tern.accept()),\n"
                        "['*'] = says('any', tern.accept()) } }");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char address[300], wanted[64];
        struct fake_call c;
        snprintf(address, sizeof(address), "u@%s", cases[i].domain);
        snprintf(wanted, sizeof(wanted), "asked %s", cases[i].policy ? cases[i].policy : "x");
        buf_clear(&f.log);
        ask(&f, HOOK_RCPT, "", address, &c);
        assert_int_equal(c.result.known_domain, cases[i].policy != NULL);
        if (fake_logged(&f, wanted) != (cases[i].policy != NULL))
            fail_msg("%s: " STR_FMT, cases[i].domain, STR_ARG(buf_str(&f.log)));
        fake_call_done(&c);
    }
    fake_done(&f);
}

static void senders_by_address_domain_and_null(void **state)
{
    static const struct {
        const char *sender, *host;
    } cases[] = {
        { "Boss@Sender.example", "boss.example" }, { "a@sender.example", "domain.example" },
        { "a@sub.sender.example", "sub.example" }, { "", "null.example" },
        { "a@other.example", "default.example" },
    };
    struct fake f;

    fake_init(&f, NULL);
    fake_start(&f, HEAD "senders = { ['boss@sender.example'] = to 'boss.example',\n"
                        "['sender.example'] = to 'domain.example',\n"
                        "['.sender.example'] = route.hosts { 'sub.example' },\n"
                        "['<>'] = to 'null.example' },\n"
                        "default_route = route.hosts { 'default.example' } }");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fake_call c;
        ask(&f, HOOK_ROUTE, cases[i].sender, "u@rcpt.example", &c);
        assert_int_equal(c.result.verdict, VERDICT_ROUTE);
        assert_true(str_eq(c.result.route->targets[0].host, str_of(cases[i].host)));
        fake_call_done(&c);
    }
    fake_done(&f);
}

/* ROUTING S2 */
static void smart_hosts_get_no_mail_for_own_domains(void **state)
{
    struct fake f;
    struct fake_call c;

    fake_init(&f, NULL);
    fake_start(&f, HEAD "domains = { ['own.example'] = { rcpt = function() end },\n"
                        "  ['hard.example'] = route.hosts { '10.1.2.3' } },\n"
                        "senders = { ['sender.example'] = to 'smart.example' } }");
    ask(&f, HOOK_ROUTE, "a@sender.example", "u@own.example", &c);
    assert_int_equal(c.result.verdict, VERDICT_NONE);
    assert_false(fake_logged(&f, "asked smart"));
    fake_call_done(&c);
    ask(&f, HOOK_ROUTE, "a@sender.example", "u@hard.example", &c);
    assert_int_equal(c.result.verdict, VERDICT_ROUTE);
    assert_string_equal(c.decided_by, "domains");
    fake_call_done(&c);
    ask(&f, HOOK_RCPT, "a@sender.example", "u@hard.example", &c);
    assert_int_equal(c.result.verdict, VERDICT_NONE);
    assert_true(c.result.known_domain);
    fake_call_done(&c);
    ask(&f, HOOK_ROUTE, "a@sender.example", "u@far.example", &c);
    assert_int_equal(c.result.verdict, VERDICT_ROUTE);
    assert_string_equal(c.decided_by, "tern.lua:5");
    fake_call_done(&c);
    fake_done(&f);
}

static void functions_instead_of_tables(void **state)
{
    struct fake f;
    struct fake_call c;

    fake_init(&f, NULL);
    fake_start(&f, "local tern = require 'tern'\n"
                   "local p = { name = 'dynamic', rcpt = function() return tern.accept() end }\n"
                   "return { hostname = 'mx.example',\n"
                   "domains = function(name) tern.sleep(1)\n"
                   "  if name == 'bad.example' then return { rctp = print } end\n"
                   "  return name == 'rcpt.example' and p or nil end,\n"
                   "senders = function(a) print('sender ' .. a) end }");
    assert_true(f.hooks->offers_etrn);
    ask(&f, HOOK_RCPT, "a@s.example", "u@rcpt.example", &c);
    assert_true(c.waits);
    assert_int_equal(c.result.verdict, VERDICT_ACCEPT);
    assert_true(c.result.known_domain);
    fake_call_done(&c);
    ask(&f, HOOK_RCPT, "A@S.example", "u@other.example", &c);
    assert_int_equal(c.result.verdict, VERDICT_NONE);
    assert_false(c.result.known_domain);
    assert_true(fake_logged(&f, "sender a@s.example"));
    fake_call_done(&c);
    ask(&f, HOOK_RCPT, "", "u@bad.example", &c);
    assert_int_equal(c.result.verdict, VERDICT_FAILED);
    assert_true(fake_logged(&f, "unknown hook 'rctp' in policy"));
    fake_call_done(&c);
    fake_done(&f);
}

/* `data` runs each policy once, and those of the domains that were accepted. */
static void data_asks_each_policy_once(void **state)
{
    struct fake f;
    struct fake_call c;
    struct fake_mail m;

    fake_init(&f, NULL);
    fake_start(&f, "local tern = require 'tern'\n"
                   "local shared = { name = 'shared', data = function() print 'shared data' end }\n"
                   "local other = { name = 'other', data = function() print 'other data' end,\n"
                   "  rcpt = function(ctx) if ctx.recipient.local_part == 'no' then\n"
                   "    return tern.reject() end end }\n"
                   "return { hostname = 'mx.example',\n"
                   "domains = { a = shared, b = shared, c = other, d = other },\n"
                   "policies = { { data = function() print 'list data' end } } }");
    ask(&f, HOOK_RCPT, "", "u@a", &c);
    fake_call_done(&c);
    ask(&f, HOOK_RCPT, "", "v@b", &c);
    fake_call_done(&c);
    ask(&f, HOOK_RCPT, "", "no@c", &c);
    assert_int_equal(c.result.verdict, VERDICT_REJECT);
    fake_call_done(&c);
    fake_mail_init(&m, "", "u@a");
    m.in.recipient = NULL;
    fake_run(&f, HOOK_DATA, &m, &c);
    assert_int_equal(fake_count(&f, "shared data"), 1);
    assert_int_equal(fake_count(&f, "other data"), 0);
    assert_true(asked_in_order(&f, "shared data", "list data"));
    fake_call_done(&c);
    f.hooks->message_closed(f.hooks, m.message.key);
    fake_run(&f, HOOK_DATA, &m, &c);
    assert_int_equal(fake_count(&f, "shared data"), 1);
    assert_int_equal(fake_count(&f, "list data"), 2);
    fake_call_done(&c);
    fake_mail_done(&m);
    fake_done(&f);
}

static void etrn_asks_the_domain_or_all(void **state)
{
    struct fake f;
    struct fake_call c;
    struct fake_mail m;

    fake_init(&f, NULL);
    fake_start(&f, "local tern = require 'tern'\n"
                   "local function held(q) return { name = q, etrn = function(ctx)\n"
                   "  print('etrn ' .. q)\n"
                   "  if ctx.request.option == '#' and ctx.request.domain ~= q then return end\n"
                   "  return tern.release { queue = q, deliver_to = 'client', window = '5m' }\n"
                   "end } end\n"
                   "return { hostname = 'mx.example', domains = { ['held.example'] = held 'one',\n"
                   "  ['z.example'] = held 'two' } }");
    assert_true(f.hooks->offers_etrn);
    fake_mail_init(&m, "", "u@x");
    fake_run(&f, HOOK_ETRN, &m, &c);
    assert_int_equal(c.result.verdict, VERDICT_RELEASE);
    assert_true(str_eq(c.result.queue, STR("one")));
    assert_int_equal(c.result.window_ms, 300000);
    assert_int_equal(c.result.route->kind, ROUTE_HOSTS);
    assert_int_equal(c.result.route->targets[0].addr.port, 25);
    assert_int_equal(c.result.route->targets[0].addr.ip[3], 7);
    assert_int_equal(fake_count(&f, "etrn two"), 0);
    fake_call_done(&c);
    m.etrn.option = '#';
    m.etrn.domain = STR("two");
    fake_run(&f, HOOK_ETRN, &m, &c);
    assert_int_equal(c.result.verdict, VERDICT_RELEASE);
    assert_true(str_eq(c.result.queue, STR("two")));
    fake_call_done(&c);
    m.etrn.domain = STR("three");
    fake_run(&f, HOOK_ETRN, &m, &c);
    assert_int_equal(c.result.verdict, VERDICT_NONE);
    fake_call_done(&c);
    fake_mail_done(&m);
    fake_done(&f);
}

static void wrong_answers_fail(void **state)
{
    static const struct {
        enum hook hook;
        const char *value, *message;
    } cases[] = {
        { HOOK_RCPT, "route.hosts { 'a' }",
          "hook 'rcpt' returned a route; it may return tern.accept, tern.reject, tern.defer, "
          "tern.discard, nothing" },
        { HOOK_RCPT, "true", "hook 'rcpt' returned a boolean; it may return" },
        { HOOK_RCPT, "'550 no'", "hook 'rcpt' returned \\\"550 no\\\"; it may return" },
        { HOOK_RCPT, "tern.bounce()", "hook 'rcpt' returned tern.bounce; it may return" },
        { HOOK_CONNECT, "tern.discard()", "hook 'connect' returned tern.discard" },
        { HOOK_ROUTE, "tern.accept()", "hook 'route' returned tern.accept" },
        { HOOK_ETRN, "tern.accept()", "hook 'etrn' returned tern.accept" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fake f;
        struct fake_call c;
        char config[512];
        fake_init(&f, NULL);
        snprintf(
            config, sizeof(config),
            "local tern, route = require 'tern', require 'tern.route'\n"
            "return { hostname = 'mx.example', policies = { { %s = function() return %s end } } }",
            hook_name(cases[i].hook), cases[i].value);
        fake_start(&f, config);
        ask(&f, cases[i].hook, "", "u@x", &c);
        assert_int_equal(c.result.verdict, VERDICT_FAILED);
        assert_int_equal(c.result.reply.code, 451);
        if (!fake_logged(&f, cases[i].message))
            fail_msg("%zu: " STR_FMT, i, STR_ARG(buf_str(&f.log)));
        fake_call_done(&c);
        fake_done(&f);
    }
}

static void verdicts_of_results(void **state)
{
    struct fake f;
    struct fake_call c;

    fake_init(&f, NULL);
    fake_start(&f, "local tern, route = require 'tern', require 'tern.route'\n"
                   "return { hostname = 'mx.example', policies = { {\n"
                   "result = function(ctx)\n"
                   "  local a = ctx.attempt\n"
                   "  if ctx.recipient.local_part == 'later' then\n"
                   "    return tern.defer { retry = '10m' } end\n"
                   "  if a.scope == 'recipient' and a.reply.code == 452 and a.number == 3 then\n"
                   "    return tern.bounce { 554, '5.2.2', 'still full' } end\n"
                   "end,\n"
                   "route = function(ctx)\n"
                   "  if ctx.recipient.local_part == 'drop' then return tern.discard() end\n"
                   "  return tern.bounce() end } } }");
    ask(&f, HOOK_RESULT, "", "later@x", &c);
    assert_int_equal(c.result.verdict, VERDICT_DEFER);
    assert_int_equal(c.result.retry_ms, 600000);
    fake_call_done(&c);
    ask(&f, HOOK_RESULT, "", "u@x", &c);
    assert_int_equal(c.result.verdict, VERDICT_BOUNCE);
    assert_int_equal(c.result.reply.code, 554);
    assert_int_equal(c.result.reply.enhanced.subject, 2);
    assert_string_equal(c.text, "still full");
    assert_string_equal(c.decided_by, "tern.lua:8");
    fake_call_done(&c);
    ask(&f, HOOK_ROUTE, "", "drop@x", &c);
    assert_int_equal(c.result.verdict, VERDICT_ROUTE);
    assert_int_equal(c.result.route->kind, ROUTE_DISCARD);
    fake_call_done(&c);
    ask(&f, HOOK_ROUTE, "", "u@x", &c);
    assert_int_equal(c.result.verdict, VERDICT_BOUNCE);
    assert_int_equal(c.result.reply.code, 550);
    fake_call_done(&c);
    fake_done(&f);
}

/* ---- a hook that fails ----------------------------------------------------------------------- */

static const char failing[] =
    "local tern = require 'tern'\n"
    "return { hostname = 'mx.example', on_error = '%s',\n"
    "domains = { x = { name = 'bad', rcpt = function(ctx) local t; return t.y end } },\n"
    "policies = { { rcpt = function() print 'went on' end } } }";

static void failures_have_their_action(void **state)
{
    static const struct {
        const char *action;
        enum verdict verdict;
        int code;
        bool goes_on;
    } cases[] = { { "defer", VERDICT_FAILED, 451, false },
                  { "reject", VERDICT_FAILED, 554, false },
                  { "ignore", VERDICT_NONE, 0, true } };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fake f;
        struct fake_call c;
        char config[1024];
        fake_init(&f, NULL);
        snprintf(config, sizeof(config), failing, cases[i].action);
        fake_start(&f, config);
        for (int n = 0; n < 25; n++) {
            ask(&f, HOOK_RCPT, "", "u@x", &c);
            assert_int_equal(c.result.verdict, cases[i].verdict);
            assert_int_equal(c.result.reply.code, cases[i].code);
            assert_true(c.result.known_domain);
            fake_call_done(&c);
        }
        assert_int_equal(fake_count(&f, "went on"), cases[i].goes_on ? 25 : 0);
        /* told at the 1st and the 10th, with its traceback the first time */
        assert_int_equal(fake_count(&f, "\"event\":\"policy_error\""), 2);
        assert_int_equal(fake_count(&f, "stack traceback"), 1);
        assert_true(fake_logged(&f,
                                "\"hook\":\"rcpt\",\"policy\":\"bad\",\"message\":\"tern.lua:3: "
                                "attempt to index a nil value (local 't')\",\"count\":1"));
        fake_done(&f);
    }
}

/* What is thrown without a text is told with its place, which is also what faults are counted by. */
static void errors_without_a_text(void **state)
{
    struct fake f;
    struct fake_call c;

    fake_init(&f, NULL);
    fake_start(&f, "return { hostname = 'mx.example', policies = { {\n"
                   "name = 'mute', helo = function() error({}) end,\n"
                   "rcpt = function() error() end,\n"
                   "mail = function() error('', 0) end } } }");
    ask(&f, HOOK_HELO, "", "", &c);
    fake_call_done(&c);
    assert_int_equal(fake_count(&f, "tern.lua:2: an error that is no text, but a table"), 1);
    ask(&f, HOOK_RCPT, "", "u@x", &c);
    fake_call_done(&c);
    assert_int_equal(fake_count(&f, "tern.lua:3: an error without a message"), 1);
    ask(&f, HOOK_MAIL, "", "", &c);
    fake_call_done(&c);
    assert_int_equal(fake_count(&f, "tern.lua:4: an error without a message"), 1);
    fake_done(&f);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void events_are_told_and_do_not_recurse(void **state)
{
    struct fake f;
    struct hook_input in;
    struct fake_call c;

    fake_init(&f, NULL);
    fake_start(&f, "local tern = require 'tern'\n"
                   "return { hostname = 'mx.example', policies = { { name = 'watch',\n"
                   "event = function(ctx)\n"
                   "  local e = ctx.event\n"
                   "  print('saw ' .. e.name .. ' ' .. e.level .. ' ' .. tostring(e.size))\n"
                   "  if e.name == 'slow' then tern.sleep(1) print('still ' .. e.size) end\n"
                   "  if e.name == 'bad' then error('oh') end\n"
                   "end, rcpt = function() error 'rcpt failed' end } } }");
    f.told = f.hooks;
    f.journal.record(&f.journal, EVENT(EVENT_WARN, "queued", F_INT("size", 12)));
    assert_int_equal(fake_count(&f, "saw queued warn 12"), 1);
    f.journal.record(&f.journal, EVENT(EVENT_INFO, "bad", F_INT("size", 1)));
    assert_int_equal(fake_count(&f, "saw bad"), 1);
    assert_int_equal(fake_count(&f, "\"event\":\"policy_error\""), 1);
    f.journal.record(&f.journal, EVENT(EVENT_INFO, "slow", F_INT("size", 77)));
    fake_advance(&f, 2000);
    assert_int_equal(fake_count(&f, "still 77"), 1);
    /* an error of another hook is an event like any other */
    ask(&f, HOOK_RCPT, "", "u@x", &c);
    assert_int_equal(fake_count(&f, "saw policy_error error"), 1);
    fake_call_done(&c);
    /* one that waits when all ends */
    f.journal.record(&f.journal, EVENT(EVENT_INFO, "slow", F_INT("size", 78)));
    (void)in;
    fake_done(&f);
}

/* ---- observing ------------------------------------------------------------------------------- */

struct watcher {
    struct policy_observer base;
    char text[1024];
};

static void note_step(struct policy_observer *self, const struct policy_step *s)
{
    struct watcher *w = (struct watcher *)self;
    size_t n = strlen(w->text);

    snprintf(w->text + n, sizeof(w->text) - n,
             "%s: " STR_FMT "[" STR_FMT "] " STR_FMT " " STR_FMT ": %s" STR_FMT "\n",
             hook_name(s->hook), STR_ARG(s->part), STR_ARG(s->key), STR_ARG(s->policy),
             STR_ARG(s->place),
             s->failed  ? "failed: "
             : s->asked ? ""
                        : "no such hook",
             STR_ARG(s->outcome));
}

static void steps_are_observed(void **state)
{
    struct watcher w = { .base.step = note_step };
    struct fake f;
    struct fake_call c;

    fake_init(&f, NULL);
    fake_start(&f,
               HEAD "policies = { says('a'), says('b', tern.reject { 550, '5.1.1', 'no' }) },\n"
                    "domains = { ['.x'] = to '10.0.0.1', ['*'] = route.hosts { '10.0.0.2' } } }");
    policy_observe(f.hooks, &w.base);
    ask(&f, HOOK_RCPT, "", "u@y.x", &c);
    fake_call_done(&c);
    ask(&f, HOOK_ROUTE, "", "u@y.x", &c);
    fake_call_done(&c);
    ask(&f, HOOK_ROUTE, "", "u@z", &c);
    fake_call_done(&c);
    assert_string_equal(w.text, "rcpt: domains[.x] tern : no such hook\n"
                                "rcpt: policies[] a tern.lua:2: no opinion\n"
                                "rcpt: policies[] b tern.lua:7: reject 550 5.1.1 no\n"
                                "route: domains[.x] tern tern.lua:5: hosts 10.0.0.1\n"
                                "route: domains[*] route : hosts 10.0.0.2\n");
    fake_done(&f);
}

static void failures_and_defaults_are_observed(void **state)
{
    struct watcher w = { .base.step = note_step };
    struct fake f;
    struct fake_call c;

    fake_init(&f, NULL);
    fake_start(&f, HEAD "policies = { { name = 'bad', rcpt = function() error 'oh' end } },\n"
                        "senders = { ['a@b'] = says('c') },\n"
                        "default_route = route.hosts { '10.0.0.9' } }");
    policy_observe(f.hooks, &w.base);
    ask(&f, HOOK_RCPT, "a@b", "u@x", &c);
    fake_call_done(&c);
    ask(&f, HOOK_ROUTE, "a@b", "u@x", &c);
    fake_call_done(&c);
    assert_string_equal(w.text, "rcpt: [] bad : failed: tern.lua:7: oh\n"
                                "route: senders[a@b] c : no such hook\n"
                                "route: default_route[] route : hosts 10.0.0.9\n");
    fake_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(domain_then_policies_then_sender),
        cmocka_unit_test(the_first_answer_wins),
        cmocka_unit_test(the_most_specific_domain_wins),
        cmocka_unit_test(senders_by_address_domain_and_null),
        cmocka_unit_test(smart_hosts_get_no_mail_for_own_domains),
        cmocka_unit_test(functions_instead_of_tables),
        cmocka_unit_test(data_asks_each_policy_once),
        cmocka_unit_test(etrn_asks_the_domain_or_all),
        cmocka_unit_test(wrong_answers_fail),
        cmocka_unit_test(verdicts_of_results),
        cmocka_unit_test(failures_have_their_action),
        cmocka_unit_test(errors_without_a_text),
        cmocka_unit_test(events_are_told_and_do_not_recurse),
        cmocka_unit_test(steps_are_observed),
        cmocka_unit_test(failures_and_defaults_are_observed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
