/* What we write as a name server, our own reader understands; what is no question is refused. */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

#include "proto/dns_reply.h"

static const char QUESTION[] = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
                               "\x07"
                               "Example\x03"
                               "com\x00\x00\x0f\x00\x01";

static struct dns_question question(enum dns_type type)
{
    struct dns_question q;
    assert_int_equal(dns_question_parse(QUESTION, sizeof QUESTION - 1, &q), 0);
    assert_int_equal(q.id, 0x1234);
    assert_true(q.recursion);
    assert_int_equal(q.type, DNS_MX);
    assert_string_equal(q.name, "example.com");
    q.type = type;
    return q;
}

/* Through both of them: out of the writer, into the reader. */
static struct dns_answer *through(enum dns_type type, enum dns_status status,
                                  const struct dns_record *records, size_t n, struct str canonical)
{
    struct dns_question q = question(type);
    struct dns_answer *read, *a = dns_answer_make(STR("example.com"), type, status, records, n, 60);
    struct buf out;
    assert_non_null(a);
    if (canonical.n)
        a->canonical = canonical;
    buf_init(&out, 0);
    assert_int_equal(dns_reply_write(&q, a, DNS_UDP_MAX, &out), 0);
    assert_in_range(buf_len(&out), 12, DNS_UDP_MAX);
    int err = dns_message_parse(buf_str(&out).p, buf_len(&out), STR("example.com"), type, &read);
    buf_done(&out);
    dns_answer_unref(a);
    assert_int_equal(err, 0);
    return read;
}

static void test_records(void **state)
{
    struct dns_record mx[] = { { .name = STR("a.example.com"), .preference = 10 },
                               { .name = STR(""), .preference = 0 } };
    struct dns_answer *a = through(DNS_MX, DNS_OK, mx, 2, STR_NONE);
    assert_int_equal(a->n, 2);
    assert_int_equal(a->ttl, 60);
    assert_int_equal(a->records[0].preference, 10);
    assert_true(str_eq(a->records[0].name, STR("a.example.com")));
    assert_int_equal(a->records[1].name.n, 0);
    dns_answer_unref(a);

    struct dns_record ip = { .addr = { .family = NET_IPV6, .ip = { 0x20, 1, [15] = 9 } } };
    a = through(DNS_AAAA, DNS_OK, &ip, 1, STR("b.example.net"));
    assert_int_equal(a->n, 1);
    assert_int_equal(a->records[0].addr.ip[15], 9);
    assert_true(str_eq(a->canonical, STR("b.example.net")));
    dns_answer_unref(a);

    struct dns_record srv = { .name = STR("s.example"), .preference = 1, .weight = 2, .port = 3 };
    a = through(DNS_SRV, DNS_OK, &srv, 1, STR_NONE);
    assert_int_equal(a->records[0].port, 3);
    dns_answer_unref(a);

    char long_text[300];
    memset(long_text, 'x', sizeof long_text);
    struct dns_record txt = { .name = str_make(long_text, sizeof long_text) };
    a = through(DNS_TXT, DNS_OK, &txt, 1, STR_NONE);
    assert_int_equal(a->records[0].name.n, 300);
    dns_answer_unref(a);
}

static void test_nothing(void **state)
{
    static const enum dns_status all[] = { DNS_NODATA, DNS_NXDOMAIN, DNS_SERVFAIL };
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct dns_answer *a = through(DNS_A, all[i], NULL, 0, STR_NONE);
        assert_int_equal(a->status, all[i]);
        dns_answer_unref(a);
    }
}

static void test_more_than_fits(void **state)
{
    struct dns_record many[100];
    for (int i = 0; i < 100; i++)
        many[i] = (struct dns_record){ .addr = { .family = NET_IPV4, .ip = { 192, 0, 2, i } } };
    struct dns_answer *a = through(DNS_A, DNS_OK, many, 100, STR_NONE);
    assert_true(a->truncated);
    assert_in_range(a->n, 5, 99);
    dns_answer_unref(a);
}

static void test_no_questions(void **state)
{
    struct dns_question q;
    char bytes[sizeof QUESTION];
    for (size_t n = 0; n < sizeof QUESTION - 1; n++)
        assert_int_equal(dns_question_parse(QUESTION, n, &q), -EBADMSG);
    static const struct {
        size_t at;
        char value;
    } wrong[] = { { 2, '\x81' }, { 2, '\x29' }, { 5, '\x02' }, { 12, '\xc0' },
                  { 14, '.' },   { 14, '\n' },  { 28, '\x03' } };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        memcpy(bytes, QUESTION, sizeof bytes);
        bytes[wrong[i].at] = wrong[i].value;
        assert_int_equal(dns_question_parse(bytes, sizeof bytes - 1, &q), -EBADMSG);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_more_than_fits),
        cmocka_unit_test(test_no_questions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
