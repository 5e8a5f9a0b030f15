/* Parts out of memory: every allocation fails in its turn, and nothing is lost or broken. */
#include "check.h"

static int until_failure = -1; /* allocations that still succeed; -1: all */

static bool fails(void)
{
    return until_failure == 0 || (until_failure > 0 && until_failure-- == 0);
}

static void *try_malloc(size_t n)
{
    return fails() ? NULL : malloc(n);
}

static void *try_calloc(size_t n, size_t size)
{
    return fails() ? NULL : calloc(n, size);
}

static void *try_realloc(void *p, size_t n)
{
    return fails() ? NULL : realloc(p, n);
}

#define malloc  try_malloc
#define calloc  try_calloc
#define realloc try_realloc
#include "../../../core/base/arena.c"
#include "../../../core/base/buf.c"
#include "../../../core/mail/parts.c"
#undef malloc
#undef calloc
#undef realloc

static int list(struct str body)
{
    struct parts *p = parts_new(STR("multipart/mixed; boundary=b"), STR(""), STR(""));
    int e = p ? parts_look(p, body) : -ENOMEM;

    if (e == 0)
        e = parts_end(p);
    assert_true(e == 0 || e == -ENOMEM);
    if (e == 0)
        assert_int_equal(parts_count(p), 40);
    parts_free(p);
    return e;
}

static void test_starved(void **state)
{
    struct buf in;
    int n = 0, r = -ENOMEM;

    (void)state;
    buf_init(&in, 0);
    for (int i = 0; i < 40; i++)
        buf_add_str(
            &in, STR("--b\r\nContent-Type: application/pdf; name=a.pdf\r\n folded\r\n\r\nx\r\n"));
    for (; r < 0; n++) {
        assert_true(n < 200);
        until_failure = n;
        r = list(buf_str(&in));
        until_failure = -1;
    }
    assert_true(n > 4);
    buf_done(&in);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_starved) };

    return cmocka_run_group_tests_name("parts out of memory", tests, NULL, NULL);
}
