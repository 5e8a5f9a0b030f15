/* What a call of a hook costs. Printed; the bounds are wide, for slow machines and sanitizers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "unit/lua/fake.h"

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double measure(const char *what, const char *config, enum hook h, enum verdict wanted)
{
    /* The thread sanitizer does not see the _longjmp of Lua: its record of the stack grows with every
     * wait until it gives up. A few calls are enough there. */
#ifdef __SANITIZE_THREAD__
    enum { CALLS = 1000 };
#else
    enum { CALLS = 20000 };
#endif
    struct fake f;
    struct fake_mail m;
    struct fake_call c;

    fake_init(&f, NULL);
    fake_start(&f, config);
    fake_mail_init(&m, "a@sender.example", "u@rcpt.example");
    double start = seconds();
    for (int i = 0; i < CALLS; i++) {
        fake_begin(&f, h, &m, &c);
        fake_turn(&f);
        fake_call_done(&c);
    }
    double ns = (seconds() - start) / CALLS * 1e9;
    fake_run(&f, h, &m, &c);
    assert_int_equal(c.result.verdict, wanted);
    fake_call_done(&c);
    print_message("%-48s %7.0f ns a call\n", what, ns);
    fake_mail_done(&m);
    fake_done(&f);
    return ns;
}

#define WITH(body)                                                                                 \
    "local tern, route = require 'tern', require 'tern.route'\n"                                   \
    "local NO = tern.reject { 550, '5.1.1', 'no such user' }\n"                                    \
    "return { hostname = 'mx.example', " body " }"

static void calls_are_cheap(void **state)
{
    double bare = measure("rcpt, no policy at all", WITH(""), HOOK_RCPT, VERDICT_NONE);

    measure("rcpt, a policy without an opinion", WITH("policies = { { rcpt = function() end } }"),
            HOOK_RCPT, VERDICT_NONE);
    measure("rcpt, domain found, ready-made verdict",
            WITH("domains = { ['rcpt.example'] = { rcpt = function() return NO end } }"), HOOK_RCPT,
            VERDICT_REJECT);
    measure(
        "rcpt, looks at client and recipient",
        WITH("policies = { { rcpt = function(ctx)\n"
             "if ctx.session.client.address == '192.0.2.7' and ctx.recipient.domain == 'x' then\n"
             "return NO end end } }"),
        HOOK_RCPT, VERDICT_NONE);
    measure(
        "rcpt, makes its verdict",
        WITH("policies = { { rcpt = function() return tern.reject { 550, '5.1.1', 'no' } end } }"),
        HOOK_RCPT, VERDICT_REJECT);
    measure("route, makes its route",
            WITH("policies = { { route = function() return route.hosts { '10.1.2.3:25' } end } }"),
            HOOK_ROUTE, VERDICT_ROUTE);
    measure(
        "rcpt, ten policies without an opinion",
        WITH("policies = (function() local t = {} for i = 1, 10 do t[i] = { rcpt = function() end }"
             " end return t end)()"),
        HOOK_RCPT, VERDICT_NONE);
    measure("rcpt, a wait of one turn",
            WITH("policies = { { rcpt = function() tern.sleep(0) end } }"), HOOK_RCPT,
            VERDICT_NONE);
    assert_true(bare < 200000);
}

static void patterns_are_quick(void **state)
{
    double start = seconds();
    const char *log = fake_eval(NULL, "print(pcall(string.find, ('a'):rep(150), '.-.-.-.-b'))");

    assert_non_null(strstr(log, "too many steps"));
    print_message("a pattern that explodes is given up after %.1f ms\n", (seconds() - start) * 1e3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_are_cheap),
        cmocka_unit_test(patterns_are_quick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
