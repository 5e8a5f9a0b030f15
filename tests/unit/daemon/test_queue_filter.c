/* Which recipients a filter means; and what is wrong with a condition is said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/queue_filter.h"
#include "mail/history.h"

enum { NOW = 1800000000 };
#define NOW_MS ((int64_t)NOW * 1000)

static struct queue_filter f;
static char error[QUEUE_FILTER_ERROR];

static int set(const char *name, const char *value)
{
    return queue_filter_set(&f, str_of(name), str_of(value), error);
}

/* The filter with that condition alone. */
static void only(const char *name, const char *value)
{
    queue_filter_done(&f);
    queue_filter_init(&f);
    if (set(name, value) < 0)
        fail_msg("%s=%s: %s", name, value, error);
}

static int setup(void **state)
{
    queue_filter_init(&f);
    return 0;
}

static int teardown(void **state)
{
    queue_filter_done(&f);
    return 0;
}

static struct msgid id_of_age(int64_t ms)
{
    return msgid_first(NOW_MS - ms);
}

static bool key(enum spool_class c, int64_t due_in_ms, int64_t age_ms)
{
    struct msgid id = id_of_age(age_ms);
    return queue_filter_key(&f, c, NOW_MS + due_in_ms, &id, NOW_MS);
}

static struct address address(struct arena *a, const char *text)
{
    struct address ret;
    assert_int_equal(address_parse(a, str_of(text), &ret), 0);
    return ret;
}

static bool sender(const char *text)
{
    struct arena a;
    arena_init(&a, 0);
    struct address from = address(&a, text);
    bool fits = queue_filter_sender(&f, &from);
    arena_done(&a);
    return fits;
}

static void test_nothing_means_all(void **state)
{
    assert_int_equal(f.n, 0);
    assert_true(key(SPOOL_HELD, 0, 0));
    assert_true(queue_filter_queue(&f, STR("x")));
    assert_true(queue_filter_size(&f, 0));
    assert_false(queue_filter_needs_recipient(&f));
    assert_true(sender(""));
}

static void test_queue(void **state)
{
    only("queue", "example.com");
    assert_false(f.queue_is_pattern);
    assert_true(queue_filter_queue(&f, STR("example.com")));
    assert_false(queue_filter_queue(&f, STR("Example.com"))); /* a name, as it is */
    only("queue", "*.example.com");
    assert_true(f.queue_is_pattern);
    assert_true(queue_filter_queue(&f, STR("a.example.com")));
    assert_false(queue_filter_queue(&f, STR("example.com")));
}

static void test_age(void **state)
{
    only("older", "2h");
    assert_true(key(SPOOL_SCHEDULED, 0, 7200000));
    assert_false(key(SPOOL_SCHEDULED, 0, 7199999));
    assert_int_equal(queue_filter_last_ms(&f, NOW_MS), NOW_MS - 7200000);
    only("newer", "2h");
    assert_true(key(SPOOL_SCHEDULED, 0, 7200000));
    assert_false(key(SPOOL_SCHEDULED, 0, 7200001));
    assert_int_equal(queue_filter_first_ms(&f, NOW_MS), NOW_MS - 7200000);
    assert_false(key(SPOOL_SCHEDULED, 0, -1)); /* came after the question */
    only("state", "scheduled");
    assert_true(key(SPOOL_SCHEDULED, 0, -1)); /* before the clock was set back */
    assert_int_equal(queue_filter_last_ms(&f, NOW_MS), INT64_MAX);
    only("older", "500000000h");
    assert_int_equal(queue_filter_last_ms(&f, NOW_MS), 0);
    assert_int_equal(set("newer", "1h"), 0);
    assert_int_equal(queue_filter_check(&f, error), -EINVAL);
}

static void test_state(void **state)
{
    only("state", "ready");
    assert_true(key(SPOOL_SCHEDULED, 0, 0));
    assert_false(key(SPOOL_SCHEDULED, 1, 0));
    assert_false(key(SPOOL_HELD, 0, 0));
    only("state", "deferred");
    assert_false(key(SPOOL_SCHEDULED, 0, 0));
    assert_true(key(SPOOL_SCHEDULED, 1, 0));
    only("state", "scheduled");
    assert_true(key(SPOOL_SCHEDULED, 1, 0) && key(SPOOL_SCHEDULED, 0, 0));
    assert_false(key(SPOOL_WAITING, 0, 0));
    only("state", "waiting");
    assert_true(key(SPOOL_WAITING, 0, 0));
    only("state", "held");
    assert_true(key(SPOOL_HELD, 0, 0) && !key(SPOOL_WAITING, 0, 0));
    only("state", "active");
    assert_true(key(SPOOL_SCHEDULED, 0, 0) && key(SPOOL_WAITING, 0, 0) && !key(SPOOL_HELD, 0, 0));
}

static void test_size(void **state)
{
    only("larger", "1K");
    assert_true(queue_filter_size(&f, 1025) && !queue_filter_size(&f, 1024));
    assert_int_equal(set("smaller", "2K"), 0);
    assert_true(queue_filter_size(&f, 2047) && !queue_filter_size(&f, 2048));
    assert_int_equal(queue_filter_check(&f, error), 0);
    only("smaller", "1K");
    assert_int_equal(set("larger", "1K"), 0);
    assert_int_equal(queue_filter_check(&f, error), -EINVAL);
}

static void test_sender(void **state)
{
    only("sender", "<>");
    assert_true(sender("") && !sender("a@b.test"));
    only("sender", "Alice@B\xc3\xbc"
                   "cher.example");
    assert_true(sender("alice@xn--bcher-kva.example"));
    assert_false(sender("bob@xn--bcher-kva.example"));
    only("sender", "alice@[IPv6:2001:0DB8:0::1]");
    assert_true(sender("alice@[IPv6:2001:db8::1]"));
    assert_false(sender("alice@[IPv6:2001:db8::2]"));
    only("sender", "@b.test");
    assert_true(sender("x@B.TEST") && !sender("x@a.b.test") && !sender(""));
    only("sender", "@*.b.test");
    assert_true(sender("x@a.b.test") && !sender("x@b.test"));
    only("sender", "*-bounces@*");
    assert_true(sender("list-bounces@b.test") && !sender("list@b.test") && !sender(""));
    only("sender", "postmaster");
    assert_true(sender("postmaster") && !sender("postmaster@b.test"));
}

/* One recipient that was deferred with "451 4.7.1 greylisted". */
static void fill(struct arena *a, struct recipient *r)
{
    struct history_try t = { .host = STR("mx"),
                             .reply = { 451, ENH(4, 7, 1), STR("greylisted, come back") } };
    struct history_attempt attempt = { .at_ms = NOW_MS, .number = 1, .tries = &t, .n_tries = 1 };
    struct buf history;

    buf_init(&history, 0);
    assert_int_equal(history_add(a, STR_NONE, &attempt, NULL, HISTORY_MAX, &history), 0);
    *r = (struct recipient){ .address = address(a, "u@Sub.Example.com"),
                             .last_ms = NOW_MS,
                             .last_reply = t.reply.text,
                             .decided_by = STR("policies/backup.lua:31"),
                             .history = arena_str(a, buf_str(&history)) };
    buf_done(&history);
    r->route = route_default(STR("sub.example.com"), STR_NONE);
    assert_non_null(r->route);
}

static bool recipient(const char *name, const char *value)
{
    struct recipient r;
    struct arena a;

    arena_init(&a, 0);
    fill(&a, &r);
    only(name, value);
    assert_true(queue_filter_needs_recipient(&f));
    bool fits = queue_filter_recipient(&f, &r, &a);
    recipient_done(&r);
    arena_done(&a);
    return fits;
}

static void test_recipient(void **state)
{
    assert_true(recipient("destination", "SUB.example.com"));
    assert_false(recipient("destination", "example.com"));
    assert_true(recipient("destination", "*.example.com"));
    assert_true(recipient("recipient", "U@sub.example.com"));
    assert_true(recipient("recipient", "@sub.example.com"));
    assert_false(recipient("recipient", "v@sub.example.com"));
    assert_true(recipient("route", "mx sub"));
    assert_true(recipient("route", "mx *.com"));
    assert_false(recipient("route", "hosts"));
    assert_true(recipient("policy", "backup.lua"));
    assert_true(recipient("policy", "*/backup.lua:31"));
    assert_false(recipient("policy", "backup.lua*"));
}

static void test_reply(void **state)
{
    static const char *const yes[] = { "451",           "4xx",       "45x",        "4XX",
                                       "4.7.1",         "4.7.x",     "4.x.x",      "4.X.1",
                                       "greylisted",    "COME back", "451 4.7.1*", "* back",
                                       "451 4.7.1 grey" };
    static const char *const no[] = { "450", "5xx", "4.7.2", "5.x.x", "450 4.7.1*", "busy" };

    for (size_t i = 0; i < ARRAY_LEN(yes); i++)
        if (!recipient("reply", yes[i]))
            fail_msg("%s", yes[i]);
    for (size_t i = 0; i < ARRAY_LEN(no); i++)
        if (recipient("reply", no[i]))
            fail_msg("%s", no[i]);
}

/* Never tried: no answer fits, not even any. */
static void test_no_reply(void **state)
{
    struct recipient r = { .address = { .text = STR("a@b.test") } };
    struct arena a;

    arena_init(&a, 0);
    only("reply", "*");
    assert_false(queue_filter_recipient(&f, &r, &a));
    r.last_ms = NOW_MS;
    assert_true(queue_filter_recipient(&f, &r, &a));
    only("reply", "4xx");
    assert_false(queue_filter_recipient(&f, &r, &a));
    r.history = STR("\xff damaged");
    assert_false(queue_filter_recipient(&f, &r, &a));
    arena_done(&a);
}

static void test_mistakes(void **state)
{
    static const struct {
        const char *name, *value, *says;
    } bad[] = {
        { "older", "x", "30m" },
        { "newer", "-1h", "30m" },
        { "older", "99999999999999999999d", "30m" },
        { "larger", "1X", "100K" },
        { "state", "gone", "deferred" },
        { "sender", "example.com", "@example.com" },
        { "sender", "a@", "empty" },
        { "recipient", "a@b..c", "b..c" },
        { "recipient", "a@[192.0.2.256]", "no address literal" },
        { "destination", ".example.com", "*.example.com" },
        { "queue", "", "empty" },
        { "reply", "", "empty" },
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(set(bad[i].name, bad[i].value), -EINVAL);
        assert_non_null(strstr(error, bad[i].says));
        assert_non_null(strstr(error, bad[i].name));
    }
    assert_int_equal(set("reciever", "x"), -ENOENT);
    assert_int_equal(set("polcy", "x"), -ENOENT);
    assert_non_null(strstr(error, "did you mean 'policy'"));
    assert_int_equal(set("route", "x"), 0);
    assert_int_equal(set("route", "y"), -EEXIST);
    char text[QUEUE_FILTER_TEXT + 2];
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(set("policy", text), -EINVAL);
    text[300] = '\0';
    assert_int_equal(set("queue", text), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_means_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(test_age, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_size, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sender, setup, teardown),
        cmocka_unit_test_setup_teardown(test_recipient, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reply, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_reply, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mistakes, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
