/* Domains in normal form, and addresses. */
#include "check.h"

#include "mail/address.h"

static void test_domain(void **state)
{
    static const char *const good[][2] = {
        { "example.com", "example.com" },
        { "EXAMPLE.Com", "example.com" },
        { "example.com.", "example.com" },
        { "localhost", "localhost" },
        { "a_b.example", "a_b.example" },
        { "r3---sn-x.example", "r3---sn-x.example" },
        { "1.2.3.example", "1.2.3.example" },
        { "b\xc3\xbc"
          "cher.example",
          "xn--bcher-kva.example" },
        { "B\xc3\x9c"
          "CHER.EXAMPLE.",
          "xn--bcher-kva.example" },
        { "bu\xcc\x88"
          "cher.example",
          "xn--bcher-kva.example" }, /* u, combining diaeresis */
        { "xn--bcher-kva.example", "xn--bcher-kva.example" },
        { "XN--BCHER-KVA.example.", "xn--bcher-kva.example" },
        { "stra\xc3\x9f"
          "e.example",
          "xn--strae-oqa.example" }, /* not "strasse" */
        { "example\xef\xbc\x8e"
          "com",
          "example.com" }, /* full-width dot */
        { "example\xe3\x80\x82"
          "com\xe3\x80\x82",
          "example.com" },                           /* ideographic full stops */
        { "\xef\xbd\x85xample.com", "example.com" }, /* full-width e */
        { "exam\xc2\xadple.com", "example.com" },    /* soft hyphen */
        { ".Example.com", ".example.com" },
        { "*.Example.com", "*.example.com" },
        { ".b\xc3\xbc"
          "cher.example",
          ".xn--bcher-kva.example" },
        { "*", "*" },
    };
    char dst[DOMAIN_TEXT];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        ptrdiff_t n = domain_normalize(str_of(good[i][0]), dst, sizeof(dst));
        assert_int_equal(n, strlen(good[i][1]));
        assert_string_equal(dst, good[i][1]);
        n = domain_normalize(str_of(good[i][1]), dst, sizeof(dst));
        assert_int_equal(n, strlen(good[i][1]));
        assert_string_equal(dst, good[i][1]);
    }
}

static void test_domain_refuses(void **state)
{
    static const char *const bad[] = {
        "",
        ".",
        "..",
        "a..b",
        "a.b..",
        "..b",
        "**",
        "*.",
        "*.*",
        "a.*.b",
        "-a.example",
        "a-.example",
        "a b.example",
        "a/b",
        "../etc",
        "a\tb",
        "a@b",
        "[192.0.2.1]",
        "192.0.2.1",
        "2130706433",
        "127.1",
        "a.example.123",
        "xn--.example",
        "xn--a.example",
        "xn--bcher-kva-.example",
        "xn--bcher\xc3\xbc.example",
        "xn--99999999999.example",
        "XN--A.example",
        "\xff.example",
        "b\xc3.example",
        "a\xe2\x80\x8b\xef\xbc\x8f.example", /* full-width / */
        "\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.1",
        "a;b",
        "a`b",
        "$(x)",
        "1234567890123456789012345678901234567890123456789012345678901234.example",
    };
    char dst[DOMAIN_TEXT];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(domain_normalize(str_of(bad[i]), dst, sizeof(dst)), -EINVAL);
    assert_int_equal(domain_normalize(str_make("a\0b", 3), dst, sizeof(dst)), -EINVAL);
    assert_int_equal(domain_normalize(str_make("\xc3\xbc\0b", 4), dst, sizeof(dst)), -EINVAL);
}

static void test_domain_length(void **state)
{
    char name[600], dst[DOMAIN_TEXT];

    (void)state;
    for (size_t i = 0; i < sizeof(name); i++)
        name[i] = i % 64 == 63 ? '.' : 'a';
    assert_int_equal(domain_normalize(str_make(name, 253), dst, sizeof(dst)), 253);
    assert_int_equal(domain_normalize(str_make(name, 254), dst, sizeof(dst)), -EINVAL);
    assert_int_equal(domain_normalize(str_make(name, 600), dst, sizeof(dst)), -EINVAL);
    assert_int_equal(domain_normalize(STR("example.com"), dst, 11), -EINVAL);
    assert_int_equal(domain_normalize(STR("example.com"), dst, 12), 11);
    for (size_t i = 0; i + 1 < sizeof(name); i += 2)
        memcpy(name + i, "\xc3\xbc", 2);
    assert_int_equal(domain_normalize(str_make(name, 600), dst, sizeof(dst)), -EINVAL);
    char wild[DOMAIN_TEXT + 8] = "*.";
    memset(wild + 2, 'a', 253);
    for (size_t i = 65; i < 255; i += 64)
        wild[i] = '.';
    assert_int_equal(domain_normalize(str_make(wild, 255), dst, sizeof(dst)), 255);
}

static void check_address(const char *text, const char *local, const char *domain)
{
    struct arena a;
    struct address addr;

    arena_init(&a, 0);
    assert_int_equal(address_parse(&a, str_of(text), &addr), 0);
    assert_str(addr.text, text);
    assert_str(addr.local, local);
    assert_str(addr.domain, domain);
    arena_done(&a);
}

static void test_address(void **state)
{
    (void)state;
    check_address("", "", "");
    check_address("postmaster", "postmaster", "");
    check_address("Postmaster", "Postmaster", "");
    check_address("user@example.com", "user", "example.com");
    check_address("User@Example.COM", "User", "example.com");
    check_address("\"a@b\"@Example.com", "\"a@b\"", "example.com");
    check_address("\"\\\" ;\"@example.com", "\"\\\" ;\"", "example.com");
    check_address("u%third@own.example", "u%third", "own.example");
    check_address("J\xc3\xb6rg@B\xc3\xbc"
                  "cher.example",
                  "J\xc3\xb6rg", "xn--bcher-kva.example");
    check_address("u@[192.0.2.1]", "u", "[192.0.2.1]");
    check_address("u@[IPv6:2001:DB8:0::1]", "u", "[ipv6:2001:db8::1]");
    check_address("u@[ipv6:::ffff:192.0.2.1]", "u", "[192.0.2.1]");
}

static void test_address_refuses(void **state)
{
    static const char *const bad[] = {
        "u",
        "@",
        "u@",
        "@example.com",
        "u@a@b",
        "u@example.com.",
        "u@.example.com",
        "u@*.example.com",
        "u@*",
        "u@2130706433",
        "u@127.0.0.1",
        "u@xn--a.example",
        "<u@example.com>",
        "u@exa mple.com",
        "u\r\n@example.com",
        "\"u\r\n\"@example.com",
        "\"u@example.com",
        "u@[192.0.2]",
        "u@[::1]",
        "u@[IPv6:192.0.2.1]",
        "u@[tag:x]",
        "u@[192.0.2.1",
        "@a:u@b",
        " u@example.com",
    };
    struct arena a;
    struct address addr;

    (void)state;
    arena_init(&a, 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_true(address_parse(&a, str_of(bad[i]), &addr) < 0);
    arena_done(&a);
}

static void test_null_costs_nothing(void **state)
{
    struct arena a;
    struct address addr;

    (void)state;
    arena_init(&a, 1);
    assert_int_equal(address_parse(&a, STR(""), &addr), 0);
    assert_null(a.blocks);
    assert_int_equal(address_parse(&a, STR("u@example.com"), &addr), -ENOMEM);
    arena_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_domain),          cmocka_unit_test(test_domain_refuses),
        cmocka_unit_test(test_domain_length),   cmocka_unit_test(test_address),
        cmocka_unit_test(test_address_refuses), cmocka_unit_test(test_null_costs_nothing),
    };

    return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
