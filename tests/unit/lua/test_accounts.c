/* Credentials of routes, as a VM keeps them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lua/accounts.h"
#include "proto/sasl.h"
#include "unit/lua/fake.h"

#define HEAD                                                                                       \
    "local route = require 'tern.route'\n"                                                         \
    "local function account(i)\n"                                                                  \
    "  return route.hosts { 'a', auth = { user = 'u' .. i, password = 'p' } } end\n"

/* The name that the route has which a hook gives now. */
static struct str route_name(struct fake *f, struct fake_call *c)
{
    struct fake_mail m;

    fake_mail_init(&m, "a@sender.example", "u@rcpt.example");
    fake_run(f, HOOK_ROUTE, &m, c);
    fake_mail_done(&m);
    assert_int_equal(c->result.verdict, VERDICT_ROUTE);
    return c->result.route->auth;
}

static bool known(struct fake *f, struct str name, const char *password)
{
    struct credentials *c = hooks_credentials(f->hooks, name);

    return c && str_eq(c->password, str_of(password));
}

/* Each worker has a VM of its own, built from the same bytes: a name that one gave is good in all. */
static void test_S7_all_vms_know_what_was_configured(void **state)
{
    struct fake f;
    struct fake_call c;
    struct hooks *other;

    (void)state;
    fake_init(&f, NULL);
    fake_start(&f, HEAD "return { hostname = 'mx.example', default_route = account(1) }\n");
    assert_int_equal(policy_vm_new(f.source, f.settings, &f.ports, &other, &f.err), 0);
    struct str name = route_name(&f, &c);
    assert_true(known(&f, name, "p"));
    struct credentials *there = hooks_credentials(other, name);
    assert_non_null(there);
    assert_true(str_eq(there->user, STR("u1")));
    assert_null(hooks_credentials(f.hooks, STR("u1")));
    assert_null(hooks_credentials(f.hooks, STR_NONE));
    fake_call_done(&c);
    other->free(other);
    fake_done(&f);
}

/* Hooks can make up any number; those of the configuration stay, and those in use. */
static void test_S7_accounts_made_at_run_time_are_bounded(void **state)
{
    struct fake f;
    struct fake_call c, first, used;

    (void)state;
    fake_init(&f, NULL);
    fake_start(&f, HEAD "local fixed, n = account('fixed'), 0\n"
                        "return { hostname = 'mx.example', limits = { hook_cpu = '20s' },\n"
                        "  policies = { { route = function(ctx)\n"
                        "    n = n + 1\n"
                        "    if n == 1 then return fixed end\n"
                        "    if n == 4 then for i = 4, 4200 do account(i) end end\n"
                        "    return account(n) end } } }\n");
    struct str fixed = route_name(&f, &c);
    struct str oldest = route_name(&f, &first);
    struct str second = route_name(&f, &used);
    struct fake_call last;
    assert_true(known(&f, oldest, "p"));
    assert_true(known(&f, second, "p"));
    struct str newest = route_name(&f, &last);
    assert_null(hooks_credentials(f.hooks, oldest));
    assert_null(hooks_credentials(f.hooks, second));
    assert_true(known(&f, newest, "p")); /* it was the third, and was used last */
    assert_true(known(&f, fixed, "p"));
    fake_call_done(&last);
    fake_call_done(&used);
    fake_call_done(&first);
    fake_call_done(&c);
    fake_done(&f);
}

/* From a secret: without its line end. A password may hold any octet but NUL. */
static void test_S7_what_a_secret_holds(void **state)
{
    static const struct fake_file tree[] = {
        { "/etc/tern/secrets/isp", "p\303\251 w\r\n", 0 },
        { NULL, NULL, 0 },
    };
    struct fake f;
    struct fake_call c;

    (void)state;
    fake_init(&f, tree);
    fake_start(&f, "local route = require 'tern.route'\n"
                   "return { hostname = 'mx.example', default_route = route.hosts { 'a',\n"
                   "  auth = { user = 'me', password = secret 'isp', allow_clear = true,\n"
                   "    mechanisms = { 'LOGIN', 'PLAIN' } } } }\n");
    struct credentials *found = hooks_credentials(f.hooks, route_name(&f, &c));
    assert_non_null(found);
    assert_true(str_eq(found->password, STR("p\303\251 w")));
    assert_true(found->allow_clear);
    assert_int_equal(found->mechanisms, SASL_BIT(SASL_LOGIN) | SASL_BIT(SASL_PLAIN));
    fake_call_done(&c);
    fake_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_S7_all_vms_know_what_was_configured),
        cmocka_unit_test(test_S7_accounts_made_at_run_time_are_bounded),
        cmocka_unit_test(test_S7_what_a_secret_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
