/* Addresses and networks: every written form, what is refused, text and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/netaddr.h"

static const char long_path[] = "/23456789012345678901234567890123456789012345678901"
                                "23456789012345678901234567890123456789012345678901234";

static void test_parse_ip(void **state)
{
    struct net_addr a;

    (void)state;
    assert_int_equal(net_addr_parse_ip(STR("192.0.2.1"), &a), 0);
    assert_int_equal(a.family, NET_IPV4);
    assert_memory_equal(a.ip, "\xc0\0\2\1\0\0\0\0\0\0\0\0\0\0\0\0", 16);
    assert_int_equal(a.port, 0);
    assert_int_equal(net_addr_parse_ip(STR("2001:DB8::1"), &a), 0);
    assert_int_equal(a.family, NET_IPV6);
    assert_memory_equal(a.ip, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1", 16);
    assert_int_equal(net_addr_parse_ip(STR("::ffff:192.0.2.1"), &a), 0);
    assert_int_equal(a.family, NET_IPV4);
    assert_memory_equal(a.ip, "\xc0\0\2\1\0\0\0\0\0\0\0\0\0\0\0\0", 16);
    assert_int_equal(net_addr_parse_ip(STR("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255"), &a),
                     0);
    assert_int_equal(net_addr_parse_ip(str_first(STR("1.2.3.45"), 7), &a), 0); /* no NUL needed */
    assert_int_equal(a.ip[3], 4);
}

static void test_parse_ip_refuses(void **state)
{
    static const char *const bad[] = {
        "",
        "1",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.256",
        "01.2.3.4",
        "1.2.3.4 ",
        " 1.2.3.4",
        "1.2.3.4:25",
        ":",
        ":::",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "::1::",
        "g::1",
        "[::1]",
        "::1%lo",
        "fe80::1%1",
        "/tmp/x",
        "localhost",
        "0x7f.0.0.1",
        "-1.2.3.4",
        "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000",
    };
    struct net_addr a = { .port = 4711 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(net_addr_parse_ip(str_of(bad[i]), &a), -EINVAL);
    assert_int_equal(net_addr_parse_ip(STR_NONE, &a), -EINVAL);
    assert_int_equal(net_addr_parse_ip(STR("1.2.3.4\0"), &a), -EINVAL);
    assert_int_equal(a.port, 4711);
}

static void test_parse_and_text(void **state)
{
    static const struct {
        const char *in, *text, *ip;
    } good[] = {
        { "1.2.3.4", "1.2.3.4:25", "1.2.3.4" },
        { "1.2.3.4:2525", "1.2.3.4:2525", "1.2.3.4" },
        { "1.2.3.4:0", "1.2.3.4:0", "1.2.3.4" },
        { "1.2.3.4:65535", "1.2.3.4:65535", "1.2.3.4" },
        { "::1", "[::1]:25", "::1" },
        { "[::1]", "[::1]:25", "::1" },
        { "[::1]:2525", "[::1]:2525", "::1" },
        { "::", "[::]:25", "::" },
        { "[2001:db8:0:0:1:0:0:1]:587", "[2001:db8::1:0:0:1]:587", "2001:db8::1:0:0:1" },
        { "[::ffff:1.2.3.4]:26", "1.2.3.4:26", "1.2.3.4" },
        { "unix:/run/x.sock", "unix:/run/x.sock", "unix:/run/x.sock" },
        { "/run/a:25", "unix:/run/a:25", "unix:/run/a:25" },
    };
    char text[NET_ADDR_TEXT];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        struct net_addr a, again;
        assert_int_equal(net_addr_parse(str_of(good[i].in), 25, &a), 0);
        assert_ptr_equal(net_addr_ip_text(&a, text), text);
        assert_string_equal(text, good[i].ip);
        assert_string_equal(net_addr_text(&a, text), good[i].text);
        assert_int_equal(net_addr_parse(str_of(text), 99, &again), 0);
        assert_true(net_addr_eq(&a, &again));
    }
}

static void test_parse_refuses(void **state)
{
    static const char *const bad[] = {
        "",
        ":",
        ":25",
        "1.2.3.4:",
        "1.2.3.4:65536",
        "1.2.3.4:+25",
        "1.2.3.4:025252",
        "1.2.3.4:25x",
        "[1.2.3.4]",
        "[1.2.3.4]:25",
        "[::1",
        "[::1]25",
        "[::1]:",
        "[::1]x",
        "[]",
        "[]:25",
        "::1]",
        "[[::1]]",
        "unix:",
        "unix:x",
        "unix",
        "mx.example.org",
        "mx.example.org:25",
        "1.2.3:25",
    };
    struct net_addr a = { .port = 4711 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(net_addr_parse(str_of(bad[i]), 25, &a), -EINVAL);
    assert_int_equal(net_addr_parse(STR_NONE, 25, &a), -EINVAL);
    assert_int_equal(net_addr_parse(STR("/a\0b"), 25, &a), -EINVAL);
    assert_int_equal(net_addr_parse(str_of(long_path), 25, &a), -EINVAL);
    assert_int_equal(a.port, 4711);
}

static void test_longest_path(void **state)
{
    struct net_addr a;
    char text[NET_ADDR_TEXT];

    (void)state;
    assert_int_equal(sizeof(long_path) - 1, sizeof(a.path));
    struct str path = str_first(str_of(long_path), sizeof(a.path) - 1);
    assert_int_equal(net_addr_parse(path, 0, &a), 0);
    assert_true(str_eq(str_of(net_addr_text(&a, text) + 5), path));
}

static void test_none_has_no_text(void **state)
{
    struct net_addr none = { 0 };
    char text[NET_ADDR_TEXT] = "x";

    (void)state;
    assert_string_equal(net_addr_text(&none, text), "");
    assert_string_equal(net_addr_ip_text(&none, text), "");
}

static bool within(const char *network, const char *ip)
{
    struct net_cidr c;
    struct net_addr a;

    assert_int_equal(net_cidr_parse(str_of(network), &c), 0);
    assert_int_equal(net_addr_parse(str_of(ip), 25, &a), 0);
    return net_cidr_contains(&c, &a);
}

static void test_cidr_contains(void **state)
{
    (void)state;
    assert_true(within("10.0.0.0/8", "10.255.0.1"));
    assert_false(within("10.0.0.0/8", "11.0.0.0"));
    assert_true(within("0.0.0.0/0", "255.255.255.255"));
    assert_false(within("0.0.0.0/0", "::1"));
    assert_false(within("::/0", "1.2.3.4"));
    assert_true(within("::/0", "2001:db8::"));
    assert_true(within("192.0.2.1", "192.0.2.1"));
    assert_false(within("192.0.2.1", "192.0.2.2"));
    assert_true(within("192.0.2.0/31", "192.0.2.1"));
    assert_false(within("192.0.2.0/31", "192.0.2.2"));
    assert_true(within("128.0.0.0/1", "255.0.0.1"));
    assert_false(within("128.0.0.0/1", "127.0.0.1"));
    assert_true(within("172.16.0.0/12", "172.31.255.255"));
    assert_false(within("172.16.0.0/12", "172.32.0.0"));
    assert_true(within("2001:db8::/33", "2001:db8:7fff::"));
    assert_false(within("2001:db8::/33", "2001:db8:8000::"));
    assert_true(within("::1", "::1"));
    assert_false(within("::1/128", "::"));
    assert_true(within("::ffff:10.0.0.0/104", "10.255.2.3"));
    assert_false(within("::ffff:10.0.0.0/104", "11.1.2.3"));
    assert_true(within("10.0.0.0/8", "::ffff:10.1.2.3"));
    assert_false(within("0.0.0.0/0", "/run/x"));
}

static void test_cidr_refuses(void **state)
{
    static const char *const bad[] = {
        "",
        "/8",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.1/8",
        "10.0.0.0/x",
        "10.0.0.0/8/8",
        "10.0.0.0/-1",
        "::/129",
        "::1/127",
        "2001:db8:8000::/32",
        "::ffff:10.0.0.0/95",
        "::ffff:0:0/0",
        "::ffff:10.0.0.0/129",
        "[::1]/128",
        "10.0.0.0:25/8",
        "10.0.0.0/99999999999999999999",
        "129.0.0.0/1",
        "0.0.0.1/0",
    };
    struct net_cidr c = { .bits = 77 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(net_cidr_parse(str_of(bad[i]), &c), -EINVAL);
    assert_int_equal(c.bits, 77);
}

static struct net_addr addr(const char *text)
{
    struct net_addr a;

    assert_int_equal(net_addr_parse(str_of(text), 25, &a), 0);
    return a;
}

static void test_equality(void **state)
{
    struct net_addr a = addr("1.2.3.4:25"), other_port = addr("1.2.3.4:26");
    struct net_addr mapped = addr("[::ffff:1.2.3.4]:25"), v6 = addr("::1"), other = addr("1.2.3.5");
    struct net_addr socket1 = addr("/a"), socket2 = addr("/b"), none = { 0 };

    (void)state;
    assert_true(net_addr_same_ip(&a, &other_port));
    assert_false(net_addr_eq(&a, &other_port));
    assert_true(net_addr_eq(&a, &mapped));
    assert_false(net_addr_same_ip(&a, &other));
    assert_false(net_addr_eq(&a, &v6));
    assert_true(net_addr_eq(&socket1, &socket1));
    assert_false(net_addr_eq(&socket1, &socket2));
    assert_false(net_addr_same_ip(&socket1, &socket1));
    assert_true(net_addr_eq(&none, &none));
    assert_false(net_addr_same_ip(&none, &none));
}

static void test_special(void **state)
{
    struct net_addr a;

    (void)state;
    a = addr("127.255.0.1");
    assert_true(net_addr_is_loopback(&a) && !net_addr_is_any(&a));
    a = addr("::1");
    assert_true(net_addr_is_loopback(&a) && !net_addr_is_any(&a));
    a = addr("::ffff:127.0.0.1");
    assert_true(net_addr_is_loopback(&a));
    a = addr("128.0.0.1");
    assert_false(net_addr_is_loopback(&a));
    a = addr("0.0.0.0");
    assert_true(net_addr_is_any(&a) && !net_addr_is_loopback(&a));
    a = addr("::");
    assert_true(net_addr_is_any(&a));
    a = addr("/run/x");
    assert_false(net_addr_is_any(&a) || net_addr_is_loopback(&a));
    a = (struct net_addr){ 0 };
    assert_false(net_addr_is_any(&a) || net_addr_is_loopback(&a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_ip),       cmocka_unit_test(test_parse_ip_refuses),
        cmocka_unit_test(test_parse_and_text), cmocka_unit_test(test_parse_refuses),
        cmocka_unit_test(test_longest_path),   cmocka_unit_test(test_none_has_no_text),
        cmocka_unit_test(test_cidr_contains),  cmocka_unit_test(test_cidr_refuses),
        cmocka_unit_test(test_equality),       cmocka_unit_test(test_special),
    };

    return cmocka_run_group_tests_name("netaddr", tests, NULL, NULL);
}
