/* Credentials and their names: other ones have another name, and it says nothing of the password. */
#include "check.h"

#include "base/hash.h"
#include "mail/credentials.h"

static struct credentials *make(const char *user, const char *password, uint32_t mechanisms,
                                bool allow_clear)
{
    struct credentials *c =
        credentials_new(str_of(user), str_of(password), mechanisms, allow_clear);

    assert_non_null(c);
    return c;
}

static void test_S7_others_have_another_name(void **state)
{
    struct credentials *all[] = {
        make("me", "hunter2", 0, false), make("me", "hunter3", 0, false),
        make("me", "hunter2", 2, false), make("me", "hunter2", 0, true),
        make("meh", "unter2", 0, false), make("m", "ehunter2", 0, false),
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        for (size_t k = 0; k < i; k++)
            assert_false(str_eq(all[i]->name, all[k]->name));
    struct credentials *again = make("me", "hunter2", 0, false);
    assert_true(str_eq(all[0]->name, again->name));
    assert_true(str_find(again->name, STR("hunter2")) < 0);
    assert_str(credentials_user(again->name), "me");
    assert_str(again->user, "me");
    assert_str(again->password, "hunter2");
    credentials_unref(again);
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        credentials_unref(all[i]);
}

/* Who reads a name in a spool cannot try passwords on it: it is made with a key that is gone. */
static void test_S7_names_depend_on_the_process(void **state)
{
    struct credentials *a = make("me", "hunter2", 0, false), *b;

    (void)state;
    hash_seed(1, 2);
    b = make("me", "hunter2", 0, false);
    hash_seed(0, 0);
    assert_false(str_eq(a->name, b->name));
    credentials_unref(a);
    credentials_unref(b);
}

static void test_user_of_a_name(void **state)
{
    (void)state;
    assert_str(credentials_user(STR("a/b/0123456789abcdef")), "a/b");
    assert_str(credentials_user(STR("isp")), "isp");
    assert_str(credentials_user(STR_NONE), "");
    assert_null(credentials_unref(NULL));
    assert_null(credentials_ref(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_S7_others_have_another_name),
        cmocka_unit_test(test_S7_names_depend_on_the_process),
        cmocka_unit_test(test_user_of_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
