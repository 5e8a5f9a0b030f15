/* The record of changed header fields: bounded, and never trusted when it is read. */
#include "check.h"

#include "mail/changes.h"

static void test_both_ways(void **state)
{
    const struct header_change list[] = {
        { HEADER_ADDED, 1, STR("X-Spam-Flag"), STR("policies/spam.lua:12") },
        { HEADER_REMOVED, 3, STR("Received"), STR("policies/strip.lua:4") },
        { HEADER_REPLACED, 1, STR("Subject"), STR_NONE },
    };
    struct header_changes c;
    struct buf b, text;
    struct arena a;

    (void)state;
    arena_init(&a, 0);
    buf_init(&b, 0);
    buf_init(&text, 0);
    assert_int_equal(changes_encode(list, 3, 7, &b), 0);
    assert_int_equal(changes_decode(&a, buf_str(&b), &c), 0);
    assert_int_equal(c.n, 3);
    assert_int_equal(c.left_out, 7);
    assert_int_equal(changes_text(&c, &text), 0);
    assert_str(buf_str(&text), "added X-Spam-Flag at policies/spam.lua:12, removed 3 Received at "
                               "policies/strip.lua:4, replaced Subject, and 7 more");
    /* Each beginning of it, and each with an octet more, is no record. */
    for (size_t n = 1; n < buf_len(&b); n++)
        assert_int_equal(changes_decode(&a, str_first(buf_str(&b), n), &c), -EBADMSG);
    buf_add_char(&b, 'x');
    assert_int_equal(changes_decode(&a, buf_str(&b), &c), -EBADMSG);
    buf_done(&text);
    buf_done(&b);
    arena_done(&a);
}

static void test_none(void **state)
{
    struct header_changes c;
    struct arena a;
    struct buf b;

    (void)state;
    arena_init(&a, 0);
    buf_init(&b, 0);
    assert_int_equal(changes_encode(NULL, 0, 0, &b), 0);
    assert_int_equal(buf_len(&b), 0);
    assert_int_equal(changes_decode(&a, STR_NONE, &c), 0);
    assert_int_equal(c.n, 0);
    buf_done(&b);
    arena_done(&a);
}

static void test_bounded(void **state)
{
    static struct header_change list[500];
    static char name[255];
    struct header_changes c;
    struct arena a;
    struct buf b;

    (void)state;
    arena_init(&a, 0);
    buf_init(&b, 0);
    memset(name, 'x', sizeof(name));
    for (size_t i = 0; i < ARRAY_LEN(list); i++)
        list[i] = (struct header_change){ HEADER_ADDED, 1, str_make(name, sizeof(name)),
                                          str_make(name, sizeof(name)) };
    assert_int_equal(changes_encode(list, ARRAY_LEN(list), 0, &b), 0);
    assert_true(buf_len(&b) < 12000);
    assert_int_equal(changes_decode(&a, buf_str(&b), &c), 0);
    assert_int_equal(c.n, CHANGES_KEPT);
    assert_int_equal(c.left_out, ARRAY_LEN(list) - CHANGES_KEPT);
    assert_int_equal(c.list[0].name.n, CHANGES_NAME);
    assert_int_equal(c.list[0].place.n, CHANGES_PLACE);
    buf_done(&b);
    arena_done(&a);
}

static void test_names(void **state)
{
    enum header_op op;

    (void)state;
    for (int i = HEADER_ADDED; i <= HEADER_REMOVED; i++) {
        assert_true(header_op_parse(str_of(header_op_name((enum header_op)i)), &op));
        assert_int_equal(op, i);
    }
    assert_false(header_op_parse(STR("folded"), &op));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests_name("changes", tests, NULL, NULL);
}
