/* The Received header: its forms, and strangers who put things into it. */
#include "check.h"

#include "mail/headers.h"
#include "mail/trace.h"

static struct trace sample(void)
{
    struct trace t = {
        .helo = STR("client.example"),
        .by = STR("mx.example"),
        .extended = true,
        .for_ = STR("u@example.com"),
        .wall_ms = 1700000000123,
    };

    assert_int_equal(net_addr_parse(STR("192.0.2.1:4711"), 0, &t.client), 0);
    return t;
}

static void check_trace(const struct trace *t, const char *text)
{
    struct buf b;

    buf_init(&b, 0);
    assert_int_equal(trace_write(t, &b), 0);
    assert_str(buf_str(&b), text);
    buf_done(&b);
}

static void test_forms(void **state)
{
    struct trace t = sample();

    (void)state;
    check_trace(&t, "Received: from client.example ([192.0.2.1])\r\n"
                    "\tby mx.example with ESMTP\r\n"
                    "\tid 00000000000000000000000000\r\n"
                    "\tfor <u@example.com>;\r\n"
                    "\tTue, 14 Nov 2023 22:13:20 +0000\r\n");
    t.tls = t.authenticated = true;
    t.tls_version = STR("TLSv1.3");
    t.tls_cipher = STR("TLS_AES_256_GCM_SHA384");
    t.for_ = STR_NONE;
    t.helo = STR_NONE;
    assert_int_equal(net_addr_parse(STR("[2001:db8::1]:4711"), 0, &t.client), 0);
    check_trace(&t, "Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])\r\n"
                    "\tby mx.example with ESMTPSA\r\n"
                    "\t(TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
                    "\tid 00000000000000000000000000;\r\n"
                    "\tTue, 14 Nov 2023 22:13:20 +0000\r\n");
    t = (struct trace){ .by = STR("mx.example"), .wall_ms = 1700000000123 };
    check_trace(&t, "Received: from localhost\r\n"
                    "\tby mx.example with SMTP\r\n"
                    "\tid 00000000000000000000000000;\r\n"
                    "\tTue, 14 Nov 2023 22:13:20 +0000\r\n");
}

static void test_with(void **state)
{
    static const struct {
        bool tls, authenticated, utf8, lmtp;
        const char *with;
    } cases[] = {
        /* RFC 3848, RFC 6531 §4.3 */
        { .lmtp = true, .with = " with LMTP\r\n" },
        { .lmtp = true, .tls = true, .with = " with LMTPS\r\n" },
        { .lmtp = true, .authenticated = true, .with = " with LMTPA\r\n" },
        { .lmtp = true, .tls = true, .authenticated = true, .with = " with LMTPSA\r\n" },
        { .lmtp = true, .utf8 = true, .with = " with UTF8LMTP\r\n" },
        { .lmtp = true, .tls = true, .utf8 = true, .with = " with UTF8LMTPS\r\n" },
        { .with = " with ESMTP\r\n" },
        { .tls = true, .with = " with ESMTPS\r\n" },
        { .authenticated = true, .with = " with ESMTPA\r\n" },
        { .tls = true, .authenticated = true, .with = " with ESMTPSA\r\n" },
        { .utf8 = true, .with = " with UTF8SMTP\r\n" },
        { .tls = true, .authenticated = true, .utf8 = true, .with = " with UTF8SMTPSA\r\n" },
    };
    struct trace t = sample();
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        t.tls = cases[i].tls;
        t.authenticated = cases[i].authenticated;
        t.utf8 = cases[i].utf8;
        t.lmtp = cases[i].lmtp;
        buf_clear(&b);
        assert_int_equal(trace_write(&t, &b), 0);
        assert_true(str_find(buf_str(&b), str_of(cases[i].with)) > 0);
    }
    buf_done(&b);
}

/* RFC 6710 section 7: a clause behind all others, as RFC 5321 has additional ones. */
static void test_priority(void **state)
{
    static const struct {
        int8_t priority;
        const char *clause;
    } cases[] = { { -9, "\r\n\tPRIORITY -9;\r\n\t" },
                  { 0, "\r\n\tPRIORITY 0;\r\n\t" },
                  { 4, "for <b@example.com>\r\n\tPRIORITY 4;\r\n\t" } };
    struct trace t = sample();
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    t.for_ = STR("b@example.com");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        t.priority = &cases[i].priority;
        buf_clear(&b);
        assert_int_equal(trace_write(&t, &b), 0);
        assert_true(str_find(buf_str(&b), str_of(cases[i].clause)) > 0);
    }
    buf_done(&b);
}

static void test_strangers(void **state)
{
    static char huge[5000];
    struct trace t = sample();
    struct arena a;
    struct headers h;
    struct buf b;

    (void)state;
    memset(huge, 'h', sizeof(huge));
    arena_init(&a, 0);
    buf_init(&b, 0);
    t.helo = STR("x\r\nBcc: y (z) ; a\\ \x7f\xc3\xbc");
    t.for_ = STR("\"a\nb)c(;>\"@example.com");
    t.tls_version = STR("T\n(");
    t.tls_cipher = STR("\r)");
    assert_int_equal(trace_write(&t, &b), 0);
    assert_has(b, "from x??Bcc:?y??z????a????? ([192.0.2.1])\r\n");
    buf_clear(&b);
    t.helo = str_make(huge, sizeof(huge));
    t.for_ = str_make(huge, sizeof(huge));
    assert_int_equal(trace_write(&t, &b), 0);
    assert_int_equal(headers_parse(&a, buf_str(&b), &h), 0);
    assert_int_equal(h.n, 1);
    assert_int_equal(h.length, buf_len(&b));
    struct str rest = buf_str(&b), line;
    while (str_cut(&rest, '\n', &line))
        assert_true(line.n < 998);
    t.utf8 = true;
    t.helo = STR("b\xc3\xbc"
                 "cher.example");
    t.for_ = STR("\xff@example.com");
    buf_clear(&b);
    assert_int_equal(trace_write(&t, &b), 0);
    assert_has(b, "from b\xc3\xbc"
                  "cher.example (");
    assert_has(b, "for <?@example.com>");
    buf_done(&b);
    arena_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_with),
        cmocka_unit_test(test_priority),
        cmocka_unit_test(test_strangers),
    };

    return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}
