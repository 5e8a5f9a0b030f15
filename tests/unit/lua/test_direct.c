/* What is answered without the chain (lua/direct.h) is what the chain would have said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "lua/policies.h"
#include "mail/route.h"
#include "unit/lua/fake.h"

#define HEAD                                                                                       \
    "local tern, route = require 'tern', require 'tern.route'\n"                                   \
    "local function to(host) return route.hosts { host } end\n"                                    \
    "local quiet = { name = 'quiet' }\n"                                                           \
    "local content = { name = 'content', data = function(ctx) return tern.reject('no') end }\n"    \
    "local listens = { name = 'listens', rcpt = function(ctx)\n"                                   \
    "  if ctx.recipient.localpart == 'bad' then return tern.reject() end end }\n"                  \
    "local function by_row(row) if row[1] == 'none' then return nil end\n"                         \
    "  if row[1] == 'quiet' then return quiet end return to(row[1]) end\n"                         \
    "return { hostname = 'mx.example',\n"

#define TABLE                                                                                      \
    "domains = { ['a.example'] = to('host-a'), ['.a.example'] = to('below-a'),\n"                  \
    "  ['quiet.example'] = quiet, ['content.example'] = content, ['listens.example'] = listens },\n"
#define FILE_OF_ROWS "domains = tern.map.file('domains.csv', { policies = { to = by_row } }),\n"

static const struct fake_file files[] = {
    { "/etc/tern/domains.csv",
      "a.example, to, host-a\n.a.example, to, below-a\nquiet.example, to, quiet\n"
      "none.example, to, none\nb.example, to, host-b\n",
      0 },
    { NULL, NULL, 0 },
};

static const char *const configurations[] = {
    HEAD TABLE "}",
    HEAD TABLE "default_route = to('smart-host') }",
    HEAD TABLE "default_route = { route = function() return to('decided') end } }",
    HEAD TABLE "policies = { listens } }",
    HEAD TABLE "policies = { content } }",
    HEAD TABLE "senders = { ['sender.example'] = to('of-the-sender') } }",
    HEAD TABLE "senders = { ['sender.example'] = quiet } }",
    HEAD FILE_OF_ROWS "}",
    HEAD FILE_OF_ROWS "default_route = to('smart-host') }",
    HEAD FILE_OF_ROWS "senders = function(name) return to('of-the-sender') end }",
    HEAD "domains = function(name) if name == 'a.example' then return to('host-a') end end }",
    HEAD "domains = { ['*'] = to('any') } }",
    HEAD "default_route = to('smart-host') }",
    HEAD "}",
};

static const char *const recipients[] = {
    "u@a.example",           "u@b.a.example",     "u@quiet.example",
    "u@content.example",     "u@listens.example", "bad@listens.example",
    "bad@elsewhere.example", "u@none.example",    "u@b.example",
    "u@[192.0.2.1]",         "postmaster",
};

/* Everything of an answer that can be seen, as a line. */
static void describe(enum hook h, const struct fake_call *c, struct buf *out)
{
    const struct hook_result *r = &c->result;

    buf_printf(out, "%d: verdict %d, known %d, by %s, reply %d %s, route ", h, r->verdict,
               r->known_domain, c->decided_by, r->reply.code, c->text);
    if (r->route)
        route_describe(r->route, out);
    buf_add_char(out, '\n');
}

/* All hooks of one message, in their order. */
static void ask_all(struct fake *f, const char *recipient, struct buf *out)
{
    static const enum hook hooks[] = { HOOK_RCPT, HOOK_DATA, HOOK_ROUTE, HOOK_RESULT };
    struct fake_mail m;

    fake_mail_init(&m, "a@sender.example", recipient);
    buf_clear(out);
    for (size_t i = 0; i < ARRAY_LEN(hooks); i++) {
        struct fake_call c;
        fake_run(f, hooks[i], &m, &c);
        describe(hooks[i], &c, out);
        fake_call_done(&c);
    }
    assert_int_equal(out->failed, 0);
    f->hooks->message_closed(f->hooks, m.message.key);
    fake_mail_done(&m);
}

/* Who observes sees the chain: nothing is answered without it. */
static void the_answer_is_that_of_the_chain(void **state)
{
    struct policy_observer observer = { .step = NULL };
    struct buf direct, chain;

    buf_init(&direct, 0);
    buf_init(&chain, 0);
    for (size_t i = 0; i < ARRAY_LEN(configurations); i++) {
        struct fake f;
        fake_init(&f, files);
        fake_start(&f, configurations[i]);
        for (size_t n = 0; n < 3 * ARRAY_LEN(recipients); n++) { /* again: rows are made by then */
            const char *recipient = recipients[n % ARRAY_LEN(recipients)];
            policy_observe(f.hooks, NULL);
            ask_all(&f, recipient, &direct);
            policy_observe(f.hooks, &observer);
            ask_all(&f, recipient, &chain);
            if (!str_eq(buf_str(&direct), buf_str(&chain)))
                fail_msg("%s\n%s:\n" STR_FMT "instead of\n" STR_FMT, configurations[i], recipient,
                         STR_ARG(buf_str(&direct)), STR_ARG(buf_str(&chain)));
        }
        fake_done(&f);
    }
    buf_done(&direct);
    buf_done(&chain);
}

/* Each call of a hook in a coroutine takes a new number. */
static uint64_t calls_so_far(const struct fake *f)
{
    return CONTAINER_OF(f->hooks, struct policies, base)->vm->generation;
}

static void no_script_no_coroutine(void **state)
{
    struct fake_mail m;
    struct fake_call c;
    struct fake f;

    fake_init(&f, files);
    fake_start(&f, HEAD FILE_OF_ROWS "}");
    fake_mail_init(&m, "a@sender.example", "u@b.example");
    fake_run(&f, HOOK_ROUTE, &m, &c); /* the row's policy is made, by the operator's function */
    fake_call_done(&c);
    uint64_t calls = calls_so_far(&f);
    for (int i = 0; i < 10; i++) {
        fake_run(&f, HOOK_RCPT, &m, &c);
        fake_call_done(&c);
        fake_run(&f, HOOK_ROUTE, &m, &c);
        assert_int_equal(c.result.verdict, VERDICT_ROUTE);
        assert_string_equal(c.decided_by, "domains");
        fake_call_done(&c);
    }
    assert_int_equal(calls_so_far(&f), calls);
    fake_mail_done(&m);
    fake_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_answer_is_that_of_the_chain),
        cmocka_unit_test(no_script_no_coroutine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
