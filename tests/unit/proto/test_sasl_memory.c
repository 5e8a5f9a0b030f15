/* SASL when memory runs out: each allocation of an exchange's buffers fails in turn. Nothing may leak,
 * and nobody is let in by half an exchange.
 *
 * base/buf.c is compiled into this file, so that its realloc can be the one below.
 */
#include <stdbool.h>
#include <stdlib.h>

static unsigned long allocations, fail_at;

static void *failing_realloc(void *p, size_t n)
{
    return ++allocations == fail_at ? NULL : realloc(p, n);
}

#define realloc failing_realloc
#include "base/buf.c" // NOLINT(bugprone-suspicious-include)
#undef realloc

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "proto/sasl.h"

static const uint8_t salt_key[DIGEST_SHA256_SIZE];

/* 0: the server said OK; else why not. */
static int talk(struct sasl_client *c, struct sasl_server *s)
{
    static const struct password_entry entry = { .kind = PASSWORD_PLAIN, .text = STR("pencil") };
    struct sasl_server_event ev;
    struct str out = STR_NONE;
    bool initial = sasl_client_initial(c, &out);
    int r = sasl_server_start(s, initial ? &out : NULL, &ev);

    while (r == 0) {
        switch (ev.type) {
        case SASL_OK: return 0;
        case SASL_FAILED: return -EACCES;
        case SASL_VERIFY: r = sasl_server_verified(s, true, &ev); break;
        case SASL_SECRET: r = sasl_server_secret(s, &entry, true, &ev); break;
        case SASL_CHALLENGE:
            r = sasl_client_step(c, ev.message, &out);
            if (r == 0)
                r = sasl_server_step(s, out, &ev);
            break;
        }
    }
    return r;
}

static int exchange(enum sasl_mechanism m)
{
    struct sasl_credentials cred = { STR("user"), STR("pencil"), STR_NONE };
    struct sasl_server_options opt = { STR("mx.example"), STR("nonce"), salt_key };
    struct sasl_client *c = NULL;
    int r = sasl_client_new(m, &cred, STR("other"), &c);

    if (r < 0) {
        assert_null(c);
        return r;
    }
    struct sasl_server *s = sasl_server_new(m, &opt);
    r = s ? talk(c, s) : -ENOMEM;
    sasl_client_free(c);
    sasl_server_free(s);
    return r;
}

static void test_each_allocation_fails(void **state)
{
    (void)state;
    for (int m = SASL_PLAIN; m < SASL_MECHANISMS; m++) {
        fail_at = allocations = 0;
        assert_int_equal(exchange((enum sasl_mechanism)m), 0);
        unsigned long all = allocations;
        assert_true(all >= 4); /* two buffers of each side */
        for (unsigned long i = 1; i <= all; i++) {
            fail_at = i;
            allocations = 0;
            assert_int_equal(exchange((enum sasl_mechanism)m), -ENOMEM);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_each_allocation_fails) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
