/* Recoding out of memory: every allocation fails in its turn, and nothing is lost or broken. */
#include "check.h"

static int until_failure = -1; /* allocations that still succeed; -1: all */

static bool fails(void)
{
    return until_failure == 0 || (until_failure > 0 && until_failure-- == 0);
}

static void *try_calloc(size_t n, size_t size)
{
    return fails() ? NULL : calloc(n, size);
}

static void *try_realloc(void *p, size_t n)
{
    return fails() ? NULL : realloc(p, n);
}

#define calloc  try_calloc
#define realloc try_realloc
#include "../../../core/base/buf.c"
#include "../../../core/mail/recode.c"
#undef calloc
#undef realloc

/* More than a hundred parts: the plan grows. */
static int convert(struct str in)
{
    struct recode *r = recode_new(false);
    struct buf out;

    buf_init(&out, 0);
    int err = r ? recode_look(r, in) : -ENOMEM;
    if (err == 0)
        err = recode_looked(r);
    if (err == 0)
        err = recode_write(r, in, &out);
    if (err == 0)
        err = recode_written(r, &out);
    assert_true(err == 0 || err == -ENOMEM);
    buf_done(&out);
    recode_free(r);
    return err;
}

static void test_starved(void **state)
{
    struct buf in;
    int n = 0, r = -ENOMEM;

    buf_init(&in, 0);
    buf_add_str(&in, STR("Content-Type: multipart/x; boundary=b\r\n\r\n"));
    for (int i = 0; i < 150; i++)
        buf_add_str(&in, STR("--b\r\n\r\n\xe4\r\n"));
    for (; r < 0; n++) {
        assert_true(n < 100);
        until_failure = n;
        r = convert(buf_str(&in));
        until_failure = -1;
    }
    assert_true(n > 4);
    buf_done(&in);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_starved) };

    return cmocka_run_group_tests_name("recode out of memory", tests, NULL, NULL);
}
