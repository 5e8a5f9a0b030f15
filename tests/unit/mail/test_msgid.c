/* Ids of messages: order, uniqueness, clocks that step, text and back. */
#include "check.h"

#include "mail/msgid.h"

static void test_order(void **state)
{
    struct msgid_source s;
    struct msgid last, next;
    int64_t now = 1700000000000;

    (void)state;
    msgid_source_init(&s, 42);
    last = msgid_next(&s, now);
    assert_int_equal(msgid_time(&last), now);
    for (int i = 0; i < 200000; i++) { /* more than a counter holds, and a clock that steps back */
        next = msgid_next(&s, i == 100 ? now - 5000 : i == 150 ? now + 1 : now);
        assert_true(msgid_cmp(&last, &next) < 0);
        last = next;
    }
    assert_true(msgid_time(&last) - now < 10);
}

static void test_sources_differ(void **state)
{
    struct msgid_source s, t;

    (void)state;
    msgid_source_init(&s, 1);
    msgid_source_init(&t, 2);
    struct msgid a = msgid_next(&s, 5), b = msgid_next(&t, 5);
    assert_int_not_equal(msgid_cmp(&a, &b), 0);
}

static void test_text(void **state)
{
    struct msgid_source s;
    struct msgid id, back;
    char a[MSGID_TEXT], b[MSGID_TEXT];

    (void)state;
    msgid_source_init(&s, UINT64_C(0xfedcba9876543210));
    for (int64_t ms = 1; ms > 0 && ms < (INT64_C(1) << 47); ms *= 3) {
        id = msgid_next(&s, ms);
        msgid_text(&id, a);
        assert_int_equal(strlen(a), 26);
        assert_int_equal(msgid_parse(str_of(a), &back), 0);
        assert_int_equal(msgid_cmp(&id, &back), 0);
        assert_int_equal(msgid_time(&back), ms);
        id = msgid_next(&s, ms); /* text sorts like the bytes */
        assert_true(strcmp(a, msgid_text(&id, b)) < 0);
    }
    memset(id.b, 0xff, sizeof(id.b));
    assert_string_equal(msgid_text(&id, a), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    assert_int_equal(msgid_parse(STR("7zzzzzzzzzzzzzzzzzzzzzzzzz"), &back), 0);
    assert_int_equal(msgid_cmp(&id, &back), 0);
    memset(id.b, 0, sizeof(id.b));
    assert_string_equal(msgid_text(&id, a), "00000000000000000000000000");
    assert_int_equal(msgid_parse(STR("0123456789abcdefghjkmnpqrs"), &back), 0);
    assert_string_equal(msgid_text(&back, a), "0123456789ABCDEFGHJKMNPQRS");
}

static void test_refuses(void **state)
{
    static const char *const bad[] = {
        "",
        "0",
        "0000000000000000000000000",
        "000000000000000000000000000",
        "80000000000000000000000000",
        "0000000000000000000000000I",
        "0000000000000000000000000L",
        "0000000000000000000000000O",
        "0000000000000000000000000U",
        "0000000000000000000000000-",
        "0000000000000000000000000\xe9",
        " 0000000000000000000000000",
    };
    struct msgid id, before;

    (void)state;
    memset(&id, 7, sizeof(id));
    before = id;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(msgid_parse(str_of(bad[i]), &id), -EINVAL);
    assert_int_equal(msgid_cmp(&id, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_sources_differ),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_refuses),
    };

    return cmocka_run_group_tests_name("msgid", tests, NULL, NULL);
}
