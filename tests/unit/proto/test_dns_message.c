/* DNS answers: messages built by hand, good ones and such as no server should send. */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>

#include "base/buf.h"
#include "proto/dns_message.h"

enum { QUESTION = 12 }; /* where the question's name stands: what pointers point to */
enum { NXDOMAIN = 3, SERVFAIL = 2, REFUSED = 5 };
enum { ANSWER = 6, AUTHORITY = 8 }; /* places of the counts */

/* ---- building ---- */

static void add_name(struct buf *m, const char *name)
{
    struct str rest = str_of(name), label;

    while (rest.n > 0 && str_cut(&rest, '.', &label)) {
        buf_add_u8(m, (uint8_t)label.n);
        buf_add_str(m, label);
    }
    buf_add_u8(m, 0);
}

static void add_pointer(struct buf *m, size_t to)
{
    buf_add_u16(m, (uint16_t)(0xc000 | to));
}

static void begin(struct buf *m, const char *qname, enum dns_type qtype, unsigned rcode)
{
    buf_init(m, 0);
    buf_add_u16(m, 0x1234);
    buf_add_u16(m, (uint16_t)(0x8180 | rcode));
    buf_add_u16(m, 1);
    buf_add_u16(m, 0);
    buf_add_u16(m, 0);
    buf_add_u16(m, 0);
    add_name(m, qname);
    buf_add_u16(m, (uint16_t)qtype);
    buf_add_u16(m, 1);
}

static void count(struct buf *m, size_t which)
{
    uint8_t *p = (uint8_t *)m->data + m->start + which;
    unsigned v = (unsigned)(p[0] << 8 | p[1]) + 1;
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/* A record whose owner is the question's name, or `owner`. */
static void add_rr(struct buf *m, size_t section, const char *owner, unsigned type, uint32_t ttl,
                   struct str data)
{
    if (owner)
        add_name(m, owner);
    else
        add_pointer(m, QUESTION);
    buf_add_u16(m, (uint16_t)type);
    buf_add_u16(m, 1);
    buf_add_u32(m, ttl);
    buf_add_u16(m, (uint16_t)data.n);
    buf_add_str(m, data);
    count(m, section);
}

static void add_name_rr(struct buf *m, const char *owner, unsigned type, uint32_t ttl,
                        const char *target)
{
    struct buf data;

    buf_init(&data, 0);
    add_name(&data, target);
    add_rr(m, ANSWER, owner, type, ttl, buf_str(&data));
    buf_done(&data);
}

static void add_mx(struct buf *m, const char *owner, uint32_t ttl, unsigned preference,
                   const char *host)
{
    struct buf data;

    buf_init(&data, 0);
    buf_add_u16(&data, (uint16_t)preference);
    add_name(&data, host);
    add_rr(m, ANSWER, owner, DNS_MX, ttl, buf_str(&data));
    buf_done(&data);
}

static void add_soa(struct buf *m, uint32_t ttl, uint32_t minimum)
{
    struct buf data;

    buf_init(&data, 0);
    add_name(&data, "ns.example");
    add_name(&data, "hostmaster.example");
    for (int i = 0; i < 4; i++)
        buf_add_u32(&data, 7);
    buf_add_u32(&data, minimum);
    add_rr(m, AUTHORITY, "example", 6, ttl, buf_str(&data));
    buf_done(&data);
}

/* ---- reading ---- */

/* A copy of exactly that size: the sanitizer sees each step beyond it. */
static int parse_bytes(struct str s, const char *qname, enum dns_type qtype,
                       struct dns_answer **ret)
{
    void *copy = malloc(s.n);
    int r;

    if (s.n)
        memcpy(copy, s.p, s.n);
    r = dns_message_parse(copy, s.n, str_of(qname), qtype, ret);
    free(copy);
    return r;
}

/* Parses and lets go of the message. */
static struct dns_answer *parse(struct buf *m, const char *qname, enum dns_type qtype)
{
    struct dns_answer *a = NULL;

    assert_int_equal(parse_bytes(buf_str(m), qname, qtype, &a), 0);
    buf_done(m);
    return a;
}

static void parse_fails(struct buf *m, const char *qname, enum dns_type qtype)
{
    struct dns_answer *a = NULL;

    assert_int_equal(parse_bytes(buf_str(m), qname, qtype, &a), -EBADMSG);
    assert_null(a);
    buf_done(m);
}

#define assert_str(s, z) assert_true(str_eq((s), str_of(z)))

static void assert_ip(const struct dns_record *r, const char *ip)
{
    char text[NET_ADDR_TEXT];

    assert_string_equal(net_addr_ip_text(&r->addr, text), ip);
    assert_int_equal(r->addr.port, 0);
}

/* ---- tests ---- */

static void mx(void **state)
{
    struct buf m;

    begin(&m, "D.Example", DNS_MX, 0);
    add_mx(&m, NULL, 300, 10, "MX1.d.example");
    add_mx(&m, "d.EXAMPLE", 200, 20, "mx2.d.example");
    add_mx(&m, "other.example", 1, 5, "not.this.one");

    struct dns_answer *a = parse(&m, "d.example.", DNS_MX);
    assert_int_equal(a->status, DNS_OK);
    assert_int_equal(a->type, DNS_MX);
    assert_int_equal(a->n, 2);
    assert_int_equal(a->ttl, 200);
    assert_false(a->authentic);
    assert_false(a->truncated);
    assert_str(a->question, "d.example");
    assert_str(a->canonical, "d.example");
    assert_str(a->records[0].name, "mx1.d.example");
    assert_int_equal(a->records[0].preference, 10);
    assert_str(a->records[1].name, "mx2.d.example");
    assert_int_equal(a->records[1].preference, 20);
    assert_null(dns_answer_unref(a));
}

static void null_mx(void **state)
{
    struct buf m;

    begin(&m, "d.example", DNS_MX, 0);
    add_mx(&m, NULL, 300, 0, "");
    struct dns_answer *a = parse(&m, "d.example", DNS_MX);
    assert_int_equal(a->status, DNS_OK);
    assert_int_equal(a->n, 1);
    assert_str(a->records[0].name, "");
    assert_int_equal(a->records[0].preference, 0);
    dns_answer_unref(a);
}

static void compressed_names(void **state)
{
    struct buf m;

    begin(&m, "d.example", DNS_MX, 0);
    /* 10 mx1.<question>, then 20 <mx1 as it stands there> */
    add_rr(&m, ANSWER, NULL, DNS_MX, 300, STR("\0\x0a\x03mx1\xc0\x0c"));
    size_t mx1 = buf_len(&m) - 6;
    struct buf data;
    buf_init(&data, 0);
    buf_add_u16(&data, 20);
    add_pointer(&data, mx1);
    add_rr(&m, ANSWER, NULL, DNS_MX, 300, buf_str(&data));
    buf_done(&data);

    struct dns_answer *a = parse(&m, "d.example", DNS_MX);
    assert_int_equal(a->n, 2);
    assert_str(a->records[0].name, "mx1.d.example");
    assert_str(a->records[1].name, "mx1.d.example");
    dns_answer_unref(a);
}

static void addresses(void **state)
{
    struct buf m;

    begin(&m, "h.example", DNS_A, 0);
    add_rr(&m, ANSWER, NULL, DNS_A, 60, STR("\xc0\x00\x02\x01"));
    add_rr(&m, ANSWER, NULL, DNS_AAAA, 60, STR("0123456789abcdef"));
    struct dns_answer *a = parse(&m, "h.example", DNS_A);
    assert_int_equal(a->n, 1);
    assert_ip(&a->records[0], "192.0.2.1");
    assert_str(a->records[0].name, "");
    dns_answer_unref(a);

    begin(&m, "h.example", DNS_AAAA, 0);
    add_rr(&m, ANSWER, NULL, DNS_AAAA, 60, STR("\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"));
    add_rr(&m, ANSWER, NULL, DNS_AAAA, 60, STR("\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\x01"));
    a = parse(&m, "h.example", DNS_AAAA);
    assert_int_equal(a->n, 2);
    assert_ip(&a->records[0], "2001:db8::1");
    assert_ip(&a->records[1], "127.0.0.1"); /* a loop check must see it for what it is */
    dns_answer_unref(a);
}

static void other_types(void **state)
{
    struct buf m;

    begin(&m, "1.2.0.192.in-addr.arpa", DNS_PTR, 0);
    add_name_rr(&m, NULL, DNS_PTR, 60, "Host.Example");
    struct dns_answer *a = parse(&m, "1.2.0.192.in-addr.arpa", DNS_PTR);
    assert_str(a->records[0].name, "host.example");
    dns_answer_unref(a);

    begin(&m, "d.example", DNS_TXT, 0);
    add_rr(&m, ANSWER, NULL, DNS_TXT, 60, STR("\x07v=spf1 \x04-All\0"));
    add_rr(&m, ANSWER, NULL, DNS_TXT, 60, STR("\0"));
    a = parse(&m, "d.example", DNS_TXT);
    assert_int_equal(a->n, 2);
    assert_str(a->records[0].name, "v=spf1 -All");
    assert_str(a->records[1].name, "");
    dns_answer_unref(a);

    begin(&m, "_smtp._tcp.d.example", DNS_SRV, 0);
    add_rr(&m, ANSWER, NULL, DNS_SRV, 60, STR("\0\x01\0\x02\x02\x4b\x01h\0"));
    a = parse(&m, "_smtp._tcp.d.example", DNS_SRV);
    assert_int_equal(a->records[0].preference, 1);
    assert_int_equal(a->records[0].weight, 2);
    assert_int_equal(a->records[0].port, 587);
    assert_str(a->records[0].name, "h");
    dns_answer_unref(a);

    begin(&m, "_25._tcp.h.example", DNS_TLSA, 0);
    add_rr(&m, ANSWER, NULL, DNS_TLSA, 60, STR("\x03\x01\x01\0AZ\xff"));
    a = parse(&m, "_25._tcp.h.example", DNS_TLSA);
    assert_int_equal(a->records[0].usage, 3);
    assert_int_equal(a->records[0].selector, 1);
    assert_int_equal(a->records[0].matching, 1);
    assert_true(str_eq(a->records[0].name, STR("\0AZ\xff")));
    dns_answer_unref(a);

    begin(&m, "d.example", DNS_NS, 0);
    add_name_rr(&m, NULL, DNS_NS, 60, "ns.d.example");
    a = parse(&m, "d.example", DNS_NS);
    assert_str(a->records[0].name, "ns.d.example");
    dns_answer_unref(a);
}

static void bad_data_of_every_type(void **state)
{
    static const struct {
        enum dns_type type;
        struct str data;
    } bad[] = {
        { DNS_A, STR("") },
        { DNS_A, STR("\xc0\x00\x02") },
        { DNS_A, STR("\xc0\x00\x02\x01\x01") },
        { DNS_AAAA, STR("0123456789abcde") },
        { DNS_MX, STR("") },
        { DNS_MX, STR("\0\x0a") },
        { DNS_MX, STR("\0\x0a\x03mx") },
        { DNS_MX, STR("\0\x0a\x01m") },
        { DNS_MX, STR("\0\x0a\x01m\0x") },
        { DNS_PTR, STR("") },
        { DNS_PTR, STR("\x40x\0") },
        { DNS_PTR, STR("\x80") },
        { DNS_PTR, STR("\xc0") },
        { DNS_PTR, STR("\xc0\x00") },
        { DNS_PTR, STR("\xff\xff") },
        { DNS_TXT, STR("\x05"
                       "abc") },
        { DNS_TXT, STR("\x01"
                       "a\x01") },
        { DNS_SRV, STR("\0\x01\0\x02\x02\x4b") },
        { DNS_TLSA, STR("\x03\x01\x01") },
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct buf m;
        begin(&m, "d.example", bad[i].type, 0);
        add_rr(&m, ANSWER, NULL, bad[i].type, 60, bad[i].data);
        parse_fails(&m, "d.example", bad[i].type);
    }
}

static void names_hold_no_control_byte(void **state)
{
    struct buf m;

    begin(&m, "x.example", DNS_PTR, 0);
    add_rr(&m, ANSWER, NULL, DNS_PTR, 60,
           STR("\x08"
               "A\r\n .\\\xff\0\x01z\0"));
    struct dns_answer *a = parse(&m, "x.example", DNS_PTR);
    assert_str(a->records[0].name, "a\\013\\010\\032\\.\\\\\\255\\000.z");
    dns_answer_unref(a);

    /* a dot or backslash that ends the last label is not the root's */
    begin(&m, "x.example", DNS_PTR, 0);
    add_rr(&m, ANSWER, NULL, DNS_CNAME, 60,
           STR("\x02"
               "c.\0"));
    add_rr(&m, ANSWER, "c\\.", DNS_PTR, 60,
           STR("\x02"
               "d\\\0"));
    a = parse(&m, "x.example", DNS_PTR);
    assert_str(a->canonical, "c\\.");
    assert_int_equal(a->status, DNS_NODATA); /* the owner is another one: c\ */
    dns_answer_unref(a);
}

static void cname_chains(void **state)
{
    struct buf m;

    begin(&m, "a.example", DNS_MX, 0);
    add_name_rr(&m, "a.example", DNS_CNAME, 500, "B.example");
    add_name_rr(&m, "b.example", DNS_CNAME, 50, "c.example");
    add_mx(&m, "c.example", 300, 10, "mx.example");
    struct dns_answer *a = parse(&m, "a.example", DNS_MX);
    assert_int_equal(a->status, DNS_OK);
    assert_str(a->question, "a.example");
    assert_str(a->canonical, "c.example");
    assert_int_equal(a->n, 1);
    assert_int_equal(a->ttl, 50);
    dns_answer_unref(a);

    /* in any order, with strangers between */
    begin(&m, "a.example", DNS_MX, 0);
    add_mx(&m, "a.example", 1, 10, "not.example");
    add_mx(&m, "c.example", 300, 10, "mx.example");
    add_name_rr(&m, "b.example", DNS_CNAME, 50, "c.example");
    add_name_rr(&m, "z.example", DNS_CNAME, 1, "a.example");
    add_name_rr(&m, "a.example", DNS_CNAME, 500, "b.example");
    a = parse(&m, "a.example", DNS_MX);
    assert_int_equal(a->n, 1);
    assert_str(a->records[0].name, "mx.example");
    assert_str(a->canonical, "c.example");
    assert_int_equal(a->ttl, 50);
    dns_answer_unref(a);

    /* it leads to nothing */
    begin(&m, "a.example", DNS_MX, 0);
    add_name_rr(&m, "a.example", DNS_CNAME, 500, "b.example");
    add_soa(&m, 900, 800);
    a = parse(&m, "a.example", DNS_MX);
    assert_int_equal(a->status, DNS_NODATA);
    assert_str(a->canonical, "b.example");
    assert_int_equal(a->ttl, 500);
    dns_answer_unref(a);

    begin(&m, "a.example", DNS_MX, NXDOMAIN);
    add_name_rr(&m, "a.example", DNS_CNAME, 500, "b.example");
    add_soa(&m, 900, 100);
    a = parse(&m, "a.example", DNS_MX);
    assert_int_equal(a->status, DNS_NXDOMAIN);
    assert_int_equal(a->ttl, 100);
    dns_answer_unref(a);

    /* a question about it */
    begin(&m, "a.example", DNS_CNAME, 0);
    add_name_rr(&m, "a.example", DNS_CNAME, 500, "b.example");
    add_name_rr(&m, "b.example", DNS_CNAME, 500, "c.example");
    a = parse(&m, "a.example", DNS_CNAME);
    assert_int_equal(a->n, 1);
    assert_str(a->records[0].name, "b.example");
    assert_str(a->canonical, "a.example");
    dns_answer_unref(a);
}

static struct dns_answer *chain_of(int hops)
{
    struct buf m;
    char from[32] = "c0.example", to[32];

    begin(&m, from, DNS_A, 0);
    for (int i = 1; i <= hops; i++) {
        snprintf(to, sizeof(to), "c%d.example", i);
        add_name_rr(&m, from, DNS_CNAME, 60, to);
        memcpy(from, to, sizeof(to));
    }
    add_rr(&m, ANSWER, from, DNS_A, 60, STR("\xc0\x00\x02\x01"));
    return parse(&m, "c0.example", DNS_A);
}

static void cnames_have_an_end(void **state)
{
    struct dns_answer *a = chain_of(DNS_MAX_CNAMES);
    assert_int_equal(a->status, DNS_OK);
    assert_str(a->canonical, "c8.example");
    dns_answer_unref(a);

    a = chain_of(DNS_MAX_CNAMES + 1);
    assert_int_equal(a->status, DNS_SERVFAIL);
    assert_int_equal(a->n, 0);
    assert_int_equal(a->ttl, 0);
    dns_answer_unref(a);

    struct buf m;
    begin(&m, "a.example", DNS_A, 0);
    add_name_rr(&m, "a.example", DNS_CNAME, 60, "b.example");
    add_name_rr(&m, "b.example", DNS_CNAME, 60, "a.example");
    a = parse(&m, "a.example", DNS_A);
    assert_int_equal(a->status, DNS_SERVFAIL);
    dns_answer_unref(a);

    begin(&m, "a.example", DNS_A, 0);
    add_name_rr(&m, NULL, DNS_CNAME, 60, "a.example");
    a = parse(&m, "a.example", DNS_A);
    assert_int_equal(a->status, DNS_SERVFAIL);
    dns_answer_unref(a);
}

static void negative(void **state)
{
    static const struct {
        unsigned rcode;
        enum dns_status status;
    } rows[] = { { 0, DNS_NODATA },         { NXDOMAIN, DNS_NXDOMAIN }, { SERVFAIL, DNS_SERVFAIL },
                 { REFUSED, DNS_SERVFAIL }, { 1, DNS_SERVFAIL },        { 15, DNS_SERVFAIL } };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf m;
        bool holds = rows[i].status != DNS_SERVFAIL;

        begin(&m, "d.example", DNS_MX, rows[i].rcode);
        struct dns_answer *a = parse(&m, "d.example", DNS_MX);
        assert_int_equal(a->status, rows[i].status);
        assert_int_equal(a->n, 0);
        assert_int_equal(a->ttl, 0);
        dns_answer_unref(a);

        begin(&m, "d.example", DNS_MX, rows[i].rcode);
        add_soa(&m, 3600, 300);
        a = parse(&m, "d.example", DNS_MX);
        assert_int_equal(a->status, rows[i].status);
        assert_int_equal(a->ttl, holds ? 300 : 0);
        dns_answer_unref(a);

        begin(&m, "d.example", DNS_MX, rows[i].rcode);
        add_soa(&m, 60, 300);
        a = parse(&m, "d.example", DNS_MX);
        assert_int_equal(a->ttl, holds ? 60 : 0);
        dns_answer_unref(a);
    }
}

static void a_refusal_without_a_question(void **state)
{
    static const uint8_t refused[] = { 0, 1, 0x81, 0x85, 0, 0, 0, 0, 0, 0, 0, 0 };
    struct dns_answer *a = NULL;

    assert_int_equal(dns_message_parse(refused, 12, STR("d.example"), DNS_MX, &a), 0);
    assert_int_equal(a->status, DNS_SERVFAIL);
    assert_str(a->question, "d.example");
    assert_str(a->canonical, "d.example");
    dns_answer_unref(a);
}

static void flags(void **state)
{
    struct buf m;

    begin(&m, "d.example", DNS_MX, 0);
    m.data[3] |= 0x20;
    add_mx(&m, NULL, 300, 10, "mx.example");
    struct dns_answer *a = parse(&m, "d.example", DNS_MX);
    assert_true(a->authentic);
    dns_answer_unref(a);

    /* truncated: what is there counts, but its absence says nothing */
    begin(&m, "d.example", DNS_MX, 0);
    m.data[2] |= 0x02;
    add_mx(&m, NULL, 300, 10, "mx.example");
    a = parse(&m, "d.example", DNS_MX);
    assert_true(a->truncated);
    assert_int_equal(a->n, 1);
    dns_answer_unref(a);

    begin(&m, "d.example", DNS_MX, 0);
    m.data[2] |= 0x02;
    a = parse(&m, "d.example", DNS_MX);
    assert_int_equal(a->status, DNS_SERVFAIL);
    dns_answer_unref(a);

    /* a query, or another operation, is no answer */
    begin(&m, "d.example", DNS_MX, 0);
    m.data[2] &= 0x7f;
    parse_fails(&m, "d.example", DNS_MX);
    begin(&m, "d.example", DNS_MX, 0);
    m.data[2] |= 0x28;
    parse_fails(&m, "d.example", DNS_MX);
}

static void another_question(void **state)
{
    struct buf m;

    begin(&m, "d.example", DNS_MX, 0);
    parse_fails(&m, "e.example", DNS_MX);
    begin(&m, "d.example", DNS_MX, 0);
    parse_fails(&m, "d.exampl", DNS_MX);
    begin(&m, "d.example", DNS_MX, 0);
    parse_fails(&m, "", DNS_MX);
    begin(&m, "d.example", DNS_A, 0);
    parse_fails(&m, "d.example", DNS_MX);
    begin(&m, "d.example", DNS_MX, 0);
    m.data[buf_len(&m) - 1] = 3; /* class CH */
    parse_fails(&m, "d.example", DNS_MX);
    begin(&m, "d.example", DNS_MX, 0);
    m.data[5] = 2;
    parse_fails(&m, "d.example", DNS_MX);
    begin(&m, "d.example", DNS_MX, 0);
    m.data[5] = 0;
    parse_fails(&m, "d.example", DNS_MX);
}

static void records_of_another_class_do_not_count(void **state)
{
    struct buf m;

    begin(&m, "d.example", DNS_MX, 0);
    add_mx(&m, NULL, 300, 10, "");
    m.data[buf_len(&m) - 10] = 3; /* class CH */
    struct dns_answer *a = parse(&m, "d.example", DNS_MX);
    assert_int_equal(a->status, DNS_NODATA);
    dns_answer_unref(a);
}

static void pointers_lead_backwards(void **state)
{
    struct buf m;
    size_t here;

    /* to itself, forward, into the header, in a circle of two */
    begin(&m, "d.example", DNS_PTR, 0);
    here = buf_len(&m) + 12;
    char self[] = { (char)(0xc0 | here >> 8), (char)here };
    add_rr(&m, ANSWER, NULL, DNS_PTR, 60, str_make(self, 2));
    parse_fails(&m, "d.example", DNS_PTR);

    begin(&m, "d.example", DNS_PTR, 0);
    char ahead[] = { (char)0xc0, (char)(here + 2), 0 };
    add_rr(&m, ANSWER, NULL, DNS_PTR, 60, str_make(ahead, 3));
    parse_fails(&m, "d.example", DNS_PTR);

    begin(&m, "d.example", DNS_PTR, 0);
    add_rr(&m, ANSWER, NULL, DNS_PTR, 60, STR("\xc0\x05"));
    parse_fails(&m, "d.example", DNS_PTR);

    begin(&m, "d.example", DNS_PTR, 0);
    char circle[] = { (char)0xc0, (char)(here + 2), (char)0xc0, (char)here };
    add_rr(&m, ANSWER, NULL, DNS_PTR, 60, str_make(circle, 4));
    parse_fails(&m, "d.example", DNS_PTR);

    /* a label, and a pointer back to it */
    begin(&m, "d.example", DNS_PTR, 0);
    char label[] = { 1, 'x', (char)0xc0, (char)here };
    add_rr(&m, ANSWER, NULL, DNS_PTR, 60, str_make(label, 4));
    parse_fails(&m, "d.example", DNS_PTR);
}

static void names_have_a_longest(void **state)
{
    struct buf m, data;
    const char *l63 = "123456789012345678901234567890123456789012345678901234567890123";
    char name[300];

    snprintf(name, sizeof(name), "%s.%s.%s.%.61s", l63, l63, l63, l63);
    assert_int_equal(strlen(name), 253);
    begin(&m, name, DNS_PTR, 0);
    add_name_rr(&m, NULL, DNS_PTR, 60, name);
    struct dns_answer *a = parse(&m, name, DNS_PTR);
    assert_str(a->records[0].name, name);
    dns_answer_unref(a);

    snprintf(name, sizeof(name), "%s.%s.%s.%.62s", l63, l63, l63, l63);
    begin(&m, "d.example", DNS_PTR, 0);
    add_name_rr(&m, NULL, DNS_PTR, 60, name);
    parse_fails(&m, "d.example", DNS_PTR);

    /* the same by way of a pointer */
    name[253] = 0;
    begin(&m, name, DNS_PTR, 0);
    buf_init(&data, 0);
    buf_add_str(&data, STR("\x01x"));
    add_pointer(&data, QUESTION);
    add_rr(&m, ANSWER, NULL, DNS_PTR, 60, buf_str(&data));
    buf_done(&data);
    parse_fails(&m, name, DNS_PTR);
}

static void cut_short_at_every_point(void **state)
{
    struct buf m;
    struct dns_answer *a = NULL;

    begin(&m, "a.example", DNS_MX, 0);
    add_name_rr(&m, "a.example", DNS_CNAME, 60, "b.example");
    add_mx(&m, "b.example", 60, 10, "mx.example");
    add_rr(&m, ANSWER, "b.example", DNS_MX, 300, STR("\0\x14\x03mx1\xc0\x0c"));
    for (size_t n = 0; n < buf_len(&m); n++)
        assert_int_equal(parse_bytes(str_first(buf_str(&m), n), "a.example", DNS_MX, &a), -EBADMSG);
    a = parse(&m, "a.example", DNS_MX);
    assert_int_equal(a->n, 2);
    dns_answer_unref(a);

    begin(&m, "a.example", DNS_MX, NXDOMAIN);
    add_soa(&m, 60, 60);
    for (size_t n = 0; n < buf_len(&m); n++)
        assert_int_equal(parse_bytes(str_first(buf_str(&m), n), "a.example", DNS_MX, &a), -EBADMSG);
    buf_done(&m);
}

static void many_records(void **state)
{
    struct buf m;
    char host[32];

    begin(&m, "d.example", DNS_MX, 0);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(host, sizeof(host), "mx%u.example", i);
        add_mx(&m, NULL, 300, i, host);
    }
    struct dns_answer *a = parse(&m, "d.example", DNS_MX);
    assert_int_equal(a->n, DNS_MAX_RECORDS);
    assert_true(a->truncated);
    assert_str(a->records[DNS_MAX_RECORDS - 1].name, "mx255.example");
    dns_answer_unref(a);

    begin(&m, "d.example", DNS_MX, 0);
    for (unsigned i = 0; i < DNS_MAX_RECORDS; i++)
        add_mx(&m, NULL, 300, i, "mx.example");
    a = parse(&m, "d.example", DNS_MX);
    assert_int_equal(a->n, DNS_MAX_RECORDS);
    assert_false(a->truncated);
    dns_answer_unref(a);
}

static void ttl_of_zero_and_beyond_31_bits(void **state)
{
    struct buf m;

    begin(&m, "d.example", DNS_MX, 0);
    add_mx(&m, NULL, 0, 10, "mx.example");
    add_mx(&m, NULL, 300, 10, "mx.example");
    struct dns_answer *a = parse(&m, "d.example", DNS_MX);
    assert_int_equal(a->ttl, 0);
    dns_answer_unref(a);

    begin(&m, "d.example", DNS_MX, 0);
    add_mx(&m, NULL, 0x80000000, 10, "mx.example");
    a = parse(&m, "d.example", DNS_MX);
    assert_int_equal(a->ttl, 0);
    dns_answer_unref(a);
}

static void types_and_statuses_have_names(void **state)
{
    static const char *const names[] = { "A",   "NS",   "CNAME", "PTR", "MX",
                                         "TXT", "AAAA", "SRV",   "TLSA" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        enum dns_type t = dns_type_from_name(str_of(names[i]));
        assert_int_not_equal(t, 0);
        assert_string_equal(dns_type_name(t), names[i]);
    }
    assert_int_equal(dns_type_from_name(STR("mx")), DNS_MX);
    assert_int_equal(dns_type_from_name(STR("MXX")), 0);
    assert_int_equal(dns_type_from_name(STR_NONE), 0);
    assert_null(dns_type_name((enum dns_type)99));
    assert_string_equal(dns_status_name(DNS_OK), "ok");
    assert_string_equal(dns_status_name(DNS_TIMEOUT), "timeout");
}

static void an_unknown_type_is_not_to_be_asked_for(void **state)
{
    struct buf m;
    struct dns_answer *a = NULL;

    begin(&m, "d.example", (enum dns_type)99, 0);
    add_rr(&m, ANSWER, NULL, 99, 60, STR("x"));
    assert_int_equal(parse_bytes(buf_str(&m), "d.example", (enum dns_type)99, &a), -EINVAL);
    buf_done(&m);
}

static void answers_made_by_hand(void **state)
{
    char host[] = "MX.Example.";
    struct dns_record records[2] = { { .name = str_of(host), .preference = 10 },
                                     { .name = STR("."), .preference = 0 } };
    struct dns_answer *a = dns_answer_make(STR("D.example."), DNS_MX, DNS_OK, records, 2, 60);

    memset(host, 'x', sizeof(host) - 1);
    assert_str(a->question, "d.example");
    assert_str(a->canonical, "d.example");
    assert_str(a->records[0].name, "mx.example");
    assert_str(a->records[1].name, "");
    assert_int_equal(a->records[0].preference, 10);
    assert_int_equal(a->ttl, 60);
    assert_ptr_equal(dns_answer_ref(a), a);
    assert_null(dns_answer_unref(a));
    assert_str(a->records[0].name, "mx.example");
    assert_null(dns_answer_unref(a));
    assert_null(dns_answer_unref(NULL));

    a = dns_answer_make(STR("d.example"), DNS_A, DNS_TIMEOUT, NULL, 0, 0);
    assert_int_equal(a->status, DNS_TIMEOUT);
    assert_int_equal(a->n, 0);
    dns_answer_unref(a);

    records[0].name = STR("c\\.");
    records[1].name = STR("d\\\\.");
    a = dns_answer_make(STR("d.example"), DNS_PTR, DNS_OK, records, 2, 0);
    assert_str(a->records[0].name, "c\\.");
    assert_str(a->records[1].name, "d\\\\");
    dns_answer_unref(a);

    records[0].name = STR("v=SPF1 -all.");
    a = dns_answer_make(STR("d.example"), DNS_TXT, DNS_OK, records, 1, 0);
    assert_str(a->records[0].name, "v=SPF1 -all.");
    dns_answer_unref(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mx),
        cmocka_unit_test(null_mx),
        cmocka_unit_test(compressed_names),
        cmocka_unit_test(addresses),
        cmocka_unit_test(other_types),
        cmocka_unit_test(bad_data_of_every_type),
        cmocka_unit_test(names_hold_no_control_byte),
        cmocka_unit_test(cname_chains),
        cmocka_unit_test(cnames_have_an_end),
        cmocka_unit_test(negative),
        cmocka_unit_test(a_refusal_without_a_question),
        cmocka_unit_test(flags),
        cmocka_unit_test(another_question),
        cmocka_unit_test(records_of_another_class_do_not_count),
        cmocka_unit_test(pointers_lead_backwards),
        cmocka_unit_test(names_have_a_longest),
        cmocka_unit_test(cut_short_at_every_point),
        cmocka_unit_test(many_records),
        cmocka_unit_test(ttl_of_zero_and_beyond_31_bits),
        cmocka_unit_test(types_and_statuses_have_names),
        cmocka_unit_test(an_unknown_type_is_not_to_be_asked_for),
        cmocka_unit_test(answers_made_by_hand),
    };
    return cmocka_run_group_tests_name("dns_message", tests, NULL, NULL);
}
