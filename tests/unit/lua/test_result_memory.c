/* Verdicts when memory runs out: what a policy said is not passed on by halves.
 *
 * base/arena.c is compiled into this file, so that its malloc can be the one below.
 */
#include <stdbool.h>
#include <stdlib.h>

static unsigned long allocations, fail_at;

static void *failing_malloc(size_t n)
{
    return ++allocations == fail_at ? NULL : malloc(n);
}

#define malloc failing_malloc
#include "base/arena.c" // NOLINT(bugprone-suspicious-include)
#undef malloc

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unit/lua/fake.h"

#define CONFIG(on_error, accept)                                                                   \
    "local tern = require 'tern'\n"                                                                \
    "return { hostname = 'mx.example', on_error = '" on_error "', policies = { {\n"                \
    "  auth = function() return tern.accept { " accept " } end } } }\n"

/* A password that is lost would let in who does not know it; an identity, as somebody else. */
static void accept_is_whole(const char *config, struct str identity, struct str password)
{
    struct fake f;
    struct fake_mail m;
    unsigned long all = 0;

    fake_init(&f, NULL);
    fake_start(&f, config);
    for (unsigned long i = 0; i <= all; i++) {
        struct fake_call c;

        fake_mail_init(&m, "a@sender.example", "u@rcpt.example");
        allocations = 0;
        fail_at = i;
        fake_run(&f, HOOK_AUTH, &m, &c);
        fail_at = 0;
        if (i == 0) {
            all = allocations;
            assert_int_equal(c.result.verdict, VERDICT_ACCEPT);
        }
        if (c.result.verdict == VERDICT_ACCEPT) {
            assert_true(str_eq(c.result.identity, identity));
            assert_true(str_eq(c.result.password, password));
        }
        fake_call_done(&c);
        fake_mail_done(&m);
    }
    assert_true(all > 0);
    fake_done(&f);
}

static void test_accept_without_memory_is_no_accept(void **state)
{
    (void)state;
    accept_is_whole(CONFIG("defer", "password = 'pencil'"), STR_NONE, STR("pencil"));
    accept_is_whole(CONFIG("ignore", "password = 'pencil'"), STR_NONE, STR("pencil"));
    accept_is_whole(CONFIG("defer", "identity = 'ana'"), STR("ana"), STR_NONE);
    accept_is_whole(CONFIG("ignore", "identity = 'ana'"), STR("ana"), STR_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_accept_without_memory_is_no_accept) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
