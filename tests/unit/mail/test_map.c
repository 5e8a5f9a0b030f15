/* Maps: what a text becomes, what is refused with which line, and what is found in it. */
#include "check.h"

#include <stdio.h>

#include "mail/map.h"

static int make(const char *text, size_t n, enum map_keys keys, struct map **ret,
                struct map_error *err)
{
    char *bytes = malloc(n + 1);

    assert_non_null(bytes);
    memcpy(bytes, text, n);
    *err = (struct map_error){ 0 };
    return map_new(bytes, n, keys, ret, err);
}

static struct map *map_of(const char *text, enum map_keys keys)
{
    struct map_error err;
    struct map *m = NULL;
    int r = make(text, strlen(text), keys, &m, &err);

    if (r < 0)
        fail_msg("line %u: %s", err.line, err.text);
    return m;
}

/* The values of a row, joined by '|'; "-" without a row. */
static const char *values(bool found, struct map_row row)
{
    static char text[512];
    struct str value;
    size_t n = 0;

    if (!found)
        return "-";
    text[0] = '\0';
    for (int i = 0; map_row_next(&row.fields, &value); i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s" STR_FMT, i ? "|" : "",
                              STR_ARG(value));
    return text;
}

static const char *mail(const struct map *m, const char *key)
{
    struct map_row row = { .at = 0 };
    return values(map_find_mail(m, str_of(key), &row), row);
}

static const char *exact(const struct map *m, const char *key)
{
    struct map_row row = { .at = 0 };
    return values(map_find(m, str_of(key), &row), row);
}

static const char *net(const struct map *m, const char *address)
{
    struct map_row row = { .at = 0 };
    struct net_addr a;

    assert_int_equal(net_addr_parse_ip(str_of(address), &a), 0);
    return values(map_find_net(m, &a, &row), row);
}

static void test_fields(void **state)
{
    struct map *m = map_of("\xef\xbb\xbf# a comment, with a comma\r\n"
                           "a.example,relay,10.1.2.3:25\r\n"
                           "\n"
                           "  \t \n"
                           "  # one more\n"
                           "  b.example ,\trelay , \"[2001:db8::7]:2525\" , last one  \n"
                           "\"c.example\" , \"a, \"\"b\"\"\", , \"\",x\n"
                           "d.example\n"
                           "e.example,\n"
                           "f.example,end",
                           MAP_KEYS_MAIL);

    assert_int_equal(map_count(m), 6);
    assert_string_equal(mail(m, "a.example"), "relay|10.1.2.3:25");
    assert_string_equal(mail(m, "b.example"), "relay|[2001:db8::7]:2525|last one");
    assert_string_equal(mail(m, "c.example"), "a, \"b\"|||x");
    assert_string_equal(mail(m, "d.example"), "");
    assert_string_equal(mail(m, "e.example"), "");
    assert_string_equal(mail(m, "f.example"), "end");
    assert_string_equal(mail(m, "g.example"), "-");
    assert_string_equal(mail(m, ""), "-");
    map_unref(m);
}

static void test_no_values_is_not_an_empty_one(void **state)
{
    struct map *m = map_of("a.example\nb.example,\n", MAP_KEYS_MAIL);
    struct map_row row;
    struct str value;

    assert_true(map_find(m, STR("a.example"), &row));
    assert_false(map_row_next(&row.fields, &value));
    assert_true(map_find(m, STR("b.example"), &row));
    assert_true(map_row_next(&row.fields, &value));
    assert_int_equal(value.n, 0);
    assert_false(map_row_next(&row.fields, &value));
    map_unref(m);
}

static void test_H2_domains(void **state)
{
    struct map *m = map_of("Example.COM.,itself\n.example.com,below\n*.deep.example.com,deep\n"
                           "m\xc3\xbcnchen.example,idn\n.b\xc3\xbc"
                           "cher.example, books, two\n",
                           MAP_KEYS_MAIL);

    assert_string_equal(mail(m, "example.com"), "itself");
    assert_string_equal(mail(m, "a.example.com"), "below");
    assert_string_equal(mail(m, "a.b.example.com"), "below");
    assert_string_equal(mail(m, "deep.example.com"), "below");
    assert_string_equal(mail(m, "x.y.deep.example.com"), "deep");
    assert_string_equal(mail(m, "notexample.com"), "-");
    assert_string_equal(mail(m, "com"), "-");
    assert_string_equal(mail(m, "xn--mnchen-3ya.example"), "idn");
    assert_string_equal(mail(m, "sub.xn--bcher-kva.example"), "books|two");
    assert_string_equal(mail(m, "xn--bcher-kva.example"), "-");
    map_unref(m);

    m = map_of("a.example,one\n*,any\n", MAP_KEYS_MAIL);
    assert_string_equal(mail(m, "a.example"), "one");
    assert_string_equal(mail(m, "b.a.example"), "any");
    assert_string_equal(mail(m, "[192.0.2.1]"), "-");
    assert_string_equal(mail(m, "<>"), "-");
    map_unref(m);
}

static void test_S1_addresses(void **state)
{
    struct map *m = map_of("Boss@Example.com,one\n@example.com,all\n<>,null\n"
                           "\"chef@m\xc3\xbcnchen.example\",chef\n",
                           MAP_KEYS_MAIL);

    assert_string_equal(mail(m, "boss@example.com"), "one");
    assert_string_equal(mail(m, "x@example.com"), "all");
    assert_string_equal(mail(m, "example.com"), "all");
    assert_string_equal(mail(m, "<>"), "null");
    assert_string_equal(mail(m, "chef@xn--mnchen-3ya.example"), "chef");
    assert_string_equal(mail(m, "x@xn--mnchen-3ya.example"), "-");
    map_unref(m);
}

static void test_texts(void **state)
{
    struct map *m = map_of("Some Key,1\nsome key,2\n\"with, comma\",3\n", MAP_KEYS_TEXT);

    assert_string_equal(exact(m, "Some Key"), "1");
    assert_string_equal(exact(m, "some key"), "2");
    assert_string_equal(exact(m, "with, comma"), "3");
    assert_string_equal(exact(m, "some"), "-");
    map_unref(m);
}

static void test_networks(void **state)
{
    struct map *m = map_of("10.0.0.0/8, ten\n10.1.0.0/16, tenone, more\n10.1.2.3, host\n"
                           "2001:db8::/32, six\n2001:db8:1::/48,sixone\n::/0,rest\n",
                           MAP_KEYS_NETS);

    assert_string_equal(net(m, "10.200.0.1"), "ten");
    assert_string_equal(net(m, "10.1.9.9"), "tenone|more");
    assert_string_equal(net(m, "10.1.2.3"), "host");
    assert_string_equal(net(m, "11.0.0.1"), "-");
    assert_string_equal(net(m, "2001:db8:1::1"), "sixone");
    assert_string_equal(net(m, "2001:db8:2::1"), "six");
    assert_string_equal(net(m, "::1"), "rest");
    assert_string_equal(net(m, "::ffff:10.1.2.3"), "host");
    map_unref(m);

    m = map_of("0.0.0.0/0,all\n", MAP_KEYS_NETS);
    assert_string_equal(net(m, "192.0.2.1"), "all");
    assert_string_equal(net(m, "2001:db8::1"), "-");
    map_unref(m);
}

static void test_what_is_refused(void **state)
{
    static const struct {
        const char *text;
        enum map_keys keys;
        unsigned line;
        const char *says;
    } cases[] = {
        { "a.example,1\n\nA.Example.,2\n", MAP_KEYS_MAIL, 3, "first time in line 1" },
        { "xn--mnchen-3ya.example\nm\xc3\xbcnchen.example\n", MAP_KEYS_MAIL, 2, "line 1" },
        { "#\nm\xc3\xbcnchen.example\nxn--mnchen-3ya.example\n", MAP_KEYS_MAIL, 3, "line 2" },
        { "a.example,\"x\n", MAP_KEYS_MAIL, 1, "not closed" },
        { "a.example,\"x\"y\n", MAP_KEYS_MAIL, 1, "behind a closing quote" },
        { "\n,x\n", MAP_KEYS_MAIL, 2, "is empty" },
        { "two words,x\n", MAP_KEYS_MAIL, 1, "is not a domain" },
        { "a@b@,x\n", MAP_KEYS_MAIL, 1, "is not a domain" },
        { "a.example,\x01\n", MAP_KEYS_MAIL, 1, "control character (\\x01)" },
        { "a.example,\xff\n", MAP_KEYS_MAIL, 1, "not UTF-8" },
        { "\"#x\",1\n", MAP_KEYS_TEXT, 1, "begins with '#'" },
        { "\" x\",1\n", MAP_KEYS_TEXT, 1, "begins with '#' or a blank" },
        { "10.0.0.0/8\n10.0.0.1/8\n", MAP_KEYS_NETS, 2, "is not an address, nor a network" },
        { "10.0.0.0/8\n::ffff:10.0.0.0/104\n", MAP_KEYS_NETS, 2, "stands twice" },
        { "example.com\n", MAP_KEYS_NETS, 1, "is not an address" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct map_error err;
        struct map *m = NULL;
        assert_int_equal(make(cases[i].text, strlen(cases[i].text), cases[i].keys, &m, &err),
                         -EINVAL);
        assert_null(m);
        assert_int_equal(err.line, cases[i].line);
        if (!strstr(err.text, cases[i].says))
            fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].says);
    }
}

static void test_limits(void **state)
{
    struct map_error err;
    struct map *m;
    struct buf text;

    buf_init(&text, 0);
    buf_add_str(&text, STR("k"));
    for (int i = 1; i < MAP_MAX_FIELDS; i++)
        buf_add_str(&text, STR(",v"));
    m = map_of((buf_add_char(&text, '\0'), text.data), MAP_KEYS_TEXT);
    map_unref(m);
    text.end--;
    buf_add_str(&text, STR(",v"));
    assert_int_equal(make(text.data, buf_len(&text), MAP_KEYS_TEXT, &m, &err), -EINVAL);
    assert_non_null(strstr(err.text, "more than 64 fields"));
    buf_clear(&text);
    for (int i = 0; i <= MAP_MAX_KEY; i++)
        buf_add_char(&text, 'k');
    assert_int_equal(make(text.data, buf_len(&text), MAP_KEYS_TEXT, &m, &err), -EINVAL);
    assert_non_null(strstr(err.text, "longer than 512"));
    buf_done(&text);
}

static void test_rows_in_order_with_their_lines(void **state)
{
    struct map *m =
        map_of("# first\n a.example , 1\nm\xc3\xbcnchen.example,2\n\nb.example,3", MAP_KEYS_MAIL);
    static const struct {
        const char *key;
        unsigned line;
    } rows[] = { { "a.example", 2 }, { "b.example", 5 }, { "xn--mnchen-3ya.example", 3 } };
    struct map_row row, found;
    size_t cursor = 0;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_true(map_next(m, &cursor, &row));
        assert_str(row.key, rows[i].key);
        assert_int_equal(map_line(m, &row), rows[i].line);
        assert_true(map_find(m, row.key, &found));
        assert_int_equal(found.at, row.at);
    }
    assert_false(map_next(m, &cursor, &row));
    map_unref(m);
}

static void test_empty(void **state)
{
    static const char *const texts[] = { "", "\n", "#", "# x\n\n", "\xef\xbb\xbf" };

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct map *m = map_of(texts[i], MAP_KEYS_MAIL);
        struct map_row row;
        size_t cursor = 0;
        assert_int_equal(map_count(m), 0);
        assert_string_equal(mail(m, "a.example"), "-");
        assert_false(map_next(m, &cursor, &row));
        map_unref(m);
    }
}

static void test_many(void **state)
{
    enum { ROWS = 100000 };
    struct buf text;
    struct map_row row;
    char key[64];

    buf_init(&text, 0);
    for (int i = 0; i < ROWS; i++)
        buf_printf(&text, "d%d.example,relay,10.0.%d.%d:25\n", i, i / 256 % 256, i % 256);
    buf_add_char(&text, '\0');
    struct map *m = map_of(text.data, MAP_KEYS_MAIL);
    assert_int_equal(map_count(m), ROWS);
    assert_true(map_bytes(m) < buf_len(&text) + (size_t)ROWS * 24);
    for (int i = 0; i < ROWS; i++) {
        struct str name = str_make(key, (size_t)snprintf(key, sizeof(key), "d%d.example", i));
        assert_true(map_find_mail(m, name, &row));
        assert_true(str_eq(row.key, name));
    }
    assert_false(map_find_mail(m, STR("d100000.example"), &row));
    map_unref(m);
    buf_done(&text);
}

static void test_fingerprint(void **state)
{
    struct map *a = map_of("a.example,1\n", MAP_KEYS_MAIL);
    struct map *b = map_of("a.example,2\n", MAP_KEYS_MAIL);
    struct map *c = map_of("a.example,1\n", MAP_KEYS_MAIL);

    assert_true(map_fingerprint(a) == map_fingerprint(c));
    assert_true(map_fingerprint(a) != map_fingerprint(b));
    map_unref(a);
    map_unref(b);
    map_unref(map_ref(c));
    map_unref(c);
    assert_null(map_unref(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_no_values_is_not_an_empty_one),
        cmocka_unit_test(test_H2_domains),
        cmocka_unit_test(test_S1_addresses),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_rows_in_order_with_their_lines),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_fingerprint),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
