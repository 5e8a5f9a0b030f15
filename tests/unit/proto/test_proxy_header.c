/* The PROXY protocol, row by row: each header is fed whole and octet by octet, with the greeting of a client
 * behind it, of which nothing may be taken. */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on
#include "base/buf.h"
#include "proto/proxy_header.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define BEHIND    "\x16\x03\x01"
#define BYTES(s)  str_make(s, sizeof(s) - 1)
#define IP6_A     "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07"
#define IP6_B     "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x08"
#define MAPPED    "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\7"

static int feed(struct proxy_header *h, struct str all, size_t piece, size_t *ret_taken)
{
    int r = 0;

    proxy_header_init(h);
    *ret_taken = 0;
    while (r == 0 && *ret_taken < all.n) {
        size_t taken;
        struct str part = str_first(str_from(all, *ret_taken), piece);
        r = proxy_header_feed(h, part, &taken);
        assert_true(taken <= part.n && (r != 0 || taken == part.n));
        *ret_taken += taken;
    }
    return r;
}

static const size_t pieces[] = { 1, 2, 7, 16, 17, 10000 };

static void good(struct str header, bool told, const char *client, const char *server)
{
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        struct proxy_header h;
        struct buf all;
        char text[NET_ADDR_TEXT];
        size_t taken;

        buf_init(&all, 0);
        buf_add_str(&all, header);
        assert_int_equal(feed(&h, buf_str(&all), pieces[i], &taken), 1);
        assert_int_equal(taken, header.n);
        buf_add_str(&all, BYTES(BEHIND));
        assert_int_equal(feed(&h, buf_str(&all), pieces[i], &taken), 1);
        assert_int_equal(taken, header.n);
        assert_int_equal(h.told, told);
        assert_string_equal(told ? net_addr_text(&h.client, text) : "", client);
        assert_string_equal(told ? net_addr_text(&h.server, text) : "", server);
        /* Every beginning of it wants more. */
        for (size_t n = 0; n < header.n; n++)
            assert_int_equal(feed(&h, str_first(header, n), pieces[i], &taken), 0);
        buf_done(&all);
    }
}

static void bad(struct str header)
{
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        struct proxy_header h;
        size_t taken;

        if (feed(&h, header, pieces[i], &taken) != -EBADMSG)
            fail_msg("taken for a header: '" STR_FMT "'", STR_ARG(header));
        assert_false(h.told);
        assert_true(h.why[0]);
    }
}

static void version_1(void **state)
{
    good(BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n"), true, "192.0.2.7:4711",
         "198.51.100.1:25");
    good(BYTES("PROXY TCP6 2001:db8::7 2001:db8::8 65535 0\r\n"), true, "[2001:db8::7]:65535",
         "[2001:db8::8]:0");
    good(BYTES("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 25\r\n"), true, "192.0.2.7:1", "[::1]:25");
    good(BYTES("PROXY UNKNOWN\r\n"), false, "", "");
    good(BYTES("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
               "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
         false, "", "");
}

static void version_1_bad(void **state)
{
    static const char *const rows[] = {
        "EHLO client.example\r\n",
        "PROXY  TCP4 192.0.2.7 198.51.100.1 4711 25\r\n",
        "proxy TCP4 192.0.2.7 198.51.100.1 4711 25\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4711 25 \r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4711 25 9\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1  25\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 04711 25\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 65536 25\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 -1 25\r\n",
        "PROXY TCP4 192.0.2 198.51.100.1 4711 25\r\n",
        "PROXY TCP4 0.0.0.0 198.51.100.1 4711 25\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::8 4711 25\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.1 4711 25\r\n",
        "PROXY TCP5 192.0.2.7 198.51.100.1 4711 25\r\n",
        "PROXY UDP4 192.0.2.7 198.51.100.1 4711 25\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY \r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\n",
        "PROXY TCP4 192.0.2.7\r198.51.100.1 4711 25\r\n",
        ("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535 \r\n"),
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        bad(str_of(rows[i]));
    bad(BYTES("PROXY UNKNOWN \0\r\n"));
}

static void version_2(void **state)
{
    good(BYTES(SIGNATURE "\x21\x11\0\x0c\xc0\0\2\7\xc6\x33\x64\1\x12\x67\0\x19"), true,
         "192.0.2.7:4711", "198.51.100.1:25");
    good(BYTES(SIGNATURE "\x21\x21\0\x24" IP6_A IP6_B "\0\1\0\2"), true, "[2001:db8::7]:1",
         "[2001:db8::8]:2");
    good(BYTES(SIGNATURE "\x21\x21\0\x24" MAPPED IP6_B "\0\1\0\2"), true, "192.0.2.7:1",
         "[2001:db8::8]:2");
    /* TLVs are passed over. */
    good(BYTES(SIGNATURE "\x21\x11\0\x13\xc0\0\2\7\xc6\x33\x64\1\x12\x67\0\x19\3\0\4abcd"), true,
         "192.0.2.7:4711", "198.51.100.1:25");
    /* LOCAL, whatever is behind it. */
    good(BYTES(SIGNATURE "\x20\0\0\0"), false, "", "");
    good(BYTES(SIGNATURE "\x20\x11\0\x0c\xc0\0\2\7\xc6\x33\x64\1\x12\x67\0\x19"), false, "", "");
    good(BYTES(SIGNATURE "\x20\xff\0\1x"), false, "", "");
    /* UNSPEC, Unix */
    good(BYTES(SIGNATURE "\x21\0\0\3xyz"), false, "", "");
    good(BYTES(SIGNATURE "\x21\x31\0\4path"), false, "", "");
}

static void version_2_bad(void **state)
{
    bad(BYTES("\r\n\r\n\0\r\nQUIT\r"));
    bad(BYTES("\r\nHELO\r\n"));
    bad(BYTES(SIGNATURE "\x11\x11\0\x0c"));
    bad(BYTES(SIGNATURE "\x22\x11\0\x0c"));
    bad(BYTES(SIGNATURE "\x21\x12\0\x0c"));
    bad(BYTES(SIGNATURE "\x21\x32\0\4"));
    bad(BYTES(SIGNATURE "\x21\x41\0\x0c"));
    bad(BYTES(SIGNATURE "\x21\x11\0\x0b"));
    bad(BYTES(SIGNATURE "\x21\x21\0\x23"));
    bad(BYTES(SIGNATURE "\x21\x11\x10\x01")); /* one more than PROXY_REST_MAX */
    bad(BYTES(SIGNATURE "\x21\x11\0\x0c\0\0\0\0\xc6\x33\x64\1\x12\x67\0\x19"));
}

static void the_longest(void **state)
{
    struct buf all;
    struct proxy_header h;
    size_t taken;

    buf_init(&all, 0);
    buf_add_str(&all, BYTES(SIGNATURE "\x21\0\x10\0"));
    for (int i = 0; i < PROXY_REST_MAX; i++)
        buf_add_char(&all, 'x');
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        assert_int_equal(feed(&h, buf_str(&all), pieces[i], &taken), 1);
        assert_int_equal(taken, PROXY_V2_FIXED + PROXY_REST_MAX);
    }
    buf_done(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_1),   cmocka_unit_test(version_1_bad),
        cmocka_unit_test(version_2),   cmocka_unit_test(version_2_bad),
        cmocka_unit_test(the_longest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
