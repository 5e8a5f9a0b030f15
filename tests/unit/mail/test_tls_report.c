/* Counts of TLS sessions: sums, limits, records, policies as strings; and memory that ends at any moment.
 *
 * The sources are included with their allocator replaced. */
#include "check.h"

#include <stdio.h>

static int until_failure = -1; /* allocations that still succeed; -1: all */

static bool fails(void)
{
    return until_failure == 0 || (until_failure > 0 && until_failure-- == 0);
}

static void *try_malloc(size_t n)
{
    return fails() ? NULL : malloc(n);
}

static void *try_calloc(size_t n, size_t size)
{
    return fails() ? NULL : calloc(n, size);
}

static void *try_realloc(void *p, size_t n)
{
    return fails() ? NULL : realloc(p, n);
}

#define malloc  try_malloc
#define calloc  try_calloc
#define realloc try_realloc
#include "../../../core/base/arena.c"
#include "../../../core/base/buf.c"
#include "../../../core/mail/tls_report.c"
#undef malloc
#undef calloc
#undef realloc

static struct net_addr ip(const char *text)
{
    struct net_addr a;

    assert_int_equal(net_addr_parse_ip(str_of(text), &a), 0);
    return a;
}

static struct tls_policy policy_of(enum tls_policy_type type, const char *domain,
                                   const char *strings)
{
    return (
        struct tls_policy){ .type = type, .domain = str_of(domain), .strings = str_of(strings) };
}

static void add(struct tls_report *r, struct tls_policy p, enum tls_result result, const char *mx,
                const char *reason)
{
    struct tls_session s = { .result = result, .mx = str_of(mx), .reason = str_of(reason) };

    s.sending = ip("192.0.2.1");
    s.receiving = ip("2001:db8::2");
    tls_report_add(r, &p, &s);
}

struct sums {
    uint64_t good, bad;
};

static struct sums sums_of(const struct tls_report *r)
{
    const struct tls_policy_count *p;
    struct sums s = { 0, 0 };

    for (size_t i = 0; (p = tls_report_policy(r, i)); i++) {
        s.good += p->successes;
        s.bad += tls_policy_failures(p);
    }
    return s;
}

/* Encoded and decoded again; the octets are the same a second time. */
static struct tls_report *again(const struct tls_report *r)
{
    struct tls_report *copy;
    struct buf a, b;

    buf_init(&a, TLS_REPORT_MAX);
    buf_init(&b, TLS_REPORT_MAX);
    assert_int_equal(tls_report_encode(r, &a), 0);
    assert_int_equal(tls_report_decode(buf_str(&a), &copy), 0);
    assert_int_equal(tls_report_encode(copy, &b), 0);
    assert_true(str_eq(buf_str(&a), buf_str(&b)));
    buf_done(&a);
    buf_done(&b);
    return copy;
}

/* ---- tests ------------------------------------------------------------------------------------ */

static void test_counts(void **state)
{
    struct tls_report *r = tls_report_new(), *copy;
    struct tls_policy none = policy_of(TLS_POLICY_NONE, "a.example", "");
    struct tls_policy sts = policy_of(TLS_POLICY_STS, "a.example", "version: STSv1\n");

    for (int i = 0; i < 3; i++)
        add(r, none, TLS_RESULT_SUCCESS, "mx.a.example", "");
    add(r, sts, TLS_RESULT_EXPIRED, "mx.a.example", "certificate has expired");
    add(r, sts, TLS_RESULT_EXPIRED, "mx.a.example", "certificate has expired");
    add(r, sts, TLS_RESULT_EXPIRED, "mx2.a.example", "certificate has expired");
    add(r, sts, TLS_RESULT_NO_STARTTLS, "mx.a.example", "");
    copy = again(r);
    assert_int_equal(copy->n, 2);
    assert_int_equal(copy->policies[0].successes, 3);
    assert_int_equal(copy->policies[0].n, 0);
    assert_int_equal(copy->policies[1].n, 3);
    assert_int_equal(copy->policies[1].failures[0].count, 2);
    assert_str(copy->policies[1].failures[1].mx, "mx2.a.example");
    assert_str(copy->policies[1].policy.strings, "version: STSv1\n");
    struct net_addr a = tls_failure_receiving(&copy->policies[1].failures[0]),
                    b = ip("2001:db8::2");
    assert_true(net_addr_same_ip(&a, &b));
    tls_report_merge(copy, r);
    assert_int_equal(copy->policies[1].failures[0].count, 4);
    assert_int_equal(sums_of(copy).good, 6);
    assert_int_equal(sums_of(copy).bad, 8);
    tls_report_free(copy);
    tls_report_free(r);
}

/* More policies, kinds of failures and octets than there is room for: the sums stay right. */
static void test_limits(void **state)
{
    char name[64], strings[2000];
    struct tls_report *r = tls_report_new(), *copy;
    uint64_t bad = 0;

    memset(strings, 'x', sizeof(strings) - 1);
    strings[sizeof(strings) - 1] = '\0';
    for (int policy = 0; policy < 40; policy++)
        for (int mx = 0; mx < 40; mx++, bad++) {
            snprintf(name, sizeof(name), "mx%d.%d.example", mx, policy);
            add(r, policy_of((enum tls_policy_type)(policy % 3), strchr(name, '.') + 1, strings),
                (enum tls_result)(1 + mx % (TLS_RESULTS - 1)), name, strings);
        }
    assert_true(r->n <= TLS_REPORT_POLICIES && r->octets <= TLS_REPORT_MAX);
    assert_true(r->n >= 2);
    for (size_t i = 0; i < r->n; i++) {
        assert_true(r->policies[i].n <= TLS_REPORT_DETAILS);
        for (size_t k = 0; k < r->policies[i].n; k++)
            assert_true(r->policies[i].failures[k].reason.n <= TLS_REPORT_REASON);
    }
    assert_int_equal(sums_of(r).bad, bad);
    copy = again(r);
    assert_int_equal(sums_of(copy).bad, bad);
    for (int i = 0; i < 5; i++)
        tls_report_merge(copy, r);
    assert_int_equal(sums_of(copy).bad, 6 * bad);
    assert_true(copy->octets <= TLS_REPORT_MAX);
    tls_report_free(again(copy));
    tls_report_free(copy);
    tls_report_free(r);
}

/* Whatever octets the spool gives: a verdict, and no more. */
static void test_broken_records(void **state)
{
    struct tls_report *r = tls_report_new(), *copy;
    struct buf b;

    add(r, policy_of(TLS_POLICY_STS, "a.example", "x\n"), TLS_RESULT_EXPIRED, "mx", "why");
    add(r, policy_of(TLS_POLICY_NONE, "", ""), TLS_RESULT_NO_STARTTLS, "mx", "");
    buf_init(&b, 0);
    assert_int_equal(tls_report_encode(r, &b), 0);
    for (size_t n = 0; n < buf_len(&b); n++)
        assert_int_equal(tls_report_decode(str_first(buf_str(&b), n), &copy), -EBADMSG);
    for (size_t at = 0; at < buf_len(&b); at++)
        for (int v = 0; v < 256; v += 5) {
            char was = b.data[b.start + at];
            b.data[b.start + at] = (char)v;
            if (tls_report_decode(buf_str(&b), &copy) == 0)
                tls_report_free(copy);
            b.data[b.start + at] = was;
        }
    buf_done(&b);
    tls_report_free(r);
}

static void test_strings_of_policies(void **state)
{
    struct mta_sts_policy sts = { .mode = MTA_STS_TESTING, .max_age_s = 86400, .n_mx = 2 };
    struct arena a;

    arena_init(&a, 0);
    sts.mx[0] = STR("mx.a.example");
    sts.mx[1] = STR("*.b.example");
    struct tls_policy p = tls_policy_of_sts(&a, STR("a.example"), &sts);
    assert_str(p.strings, "version: STSv1\nmode: testing\nmx: mx.a.example\nmx: *.b.example\n"
                          "max_age: 86400\n");
    assert_str(p.mx, "mx.a.example\n*.b.example\n");
    static const char octets[] = "mx.a.example\0a.example\0\3\1\1\0\4\x1f\x85\x0a\xff";
    p = tls_policy_of_tlsa(&a, str_make(octets, sizeof(octets) - 1));
    assert_int_equal(p.type, TLS_POLICY_TLSA);
    assert_str(p.domain, "mx.a.example");
    assert_str(p.strings, "3 1 1 1F850AFF\n");

    char long_name[DNS_MAX_NAME + 1];
    memset(long_name, 'a', 250);
    sts.n_mx = MTA_STS_MAX_MX;
    for (size_t i = 0; i < sts.n_mx; i++)
        sts.mx[i] = str_make(long_name, 250);
    p = tls_policy_of_sts(&a, STR("a.example"), &sts);
    assert_true(p.strings.n > 1500 && p.strings.n <= TLS_REPORT_STRINGS);
    assert_true(p.mx.n <= TLS_REPORT_STRINGS && p.mx.n % 251 == 0); /* whole ones */
    assert_true(str_ends(p.strings, STR("\nmax_age: 86400\n")));
    arena_done(&a);
}

static void test_memory(void **state)
{
    struct mta_sts_policy sts = { .mode = MTA_STS_ENFORCE, .max_age_s = 1, .n_mx = 1 };

    sts.mx[0] = STR("mx.a.example");
    for (int n = 0; n < 40; n++) {
        struct tls_report *r = tls_report_new(), *copy = NULL;
        struct arena a;
        struct buf b;
        arena_init(&a, 0);
        buf_init(&b, 0);
        until_failure = n;
        struct tls_policy p = tls_policy_of_sts(&a, STR("a.example"), &sts);
        for (int i = 0; i < 10; i++)
            add(r, p, i % 2 ? TLS_RESULT_EXPIRED : TLS_RESULT_SUCCESS, "mx.a.example", "why");
        if (tls_report_encode(r, &b) == 0)
            (void)!tls_report_decode(buf_str(&b), &copy);
        if (copy)
            tls_report_merge(copy, r);
        until_failure = -1;
        assert_int_equal(sums_of(r).good, 5);
        assert_int_equal(sums_of(r).bad, 5);
        if (copy)
            assert_int_equal(sums_of(copy).bad, 10);
        tls_report_free(copy);
        tls_report_free(r);
        buf_done(&b);
        arena_done(&a);
    }
    until_failure = 0;
    assert_null(tls_report_new());
    until_failure = -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),         cmocka_unit_test(test_limits),
        cmocka_unit_test(test_broken_records), cmocka_unit_test(test_strings_of_policies),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
