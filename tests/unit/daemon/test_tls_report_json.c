/* The report of RFC 8460: the example of its appendix B as we would write it, and a day with all kinds of policies, both in
 * golden files (which tests/blackbox/test_tls_report.py looks at with Python's json, too); names of days. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/tls_report_json.h"

static struct net_addr ip(const char *text)
{
    struct net_addr a = { .family = NET_NONE };

    if (text)
        assert_int_equal(net_addr_parse_ip(str_of(text), &a), 0);
    return a;
}

static void add(struct tls_report *r, const struct tls_policy *p, unsigned times,
                enum tls_result result, const char *from, const char *mx, const char *to,
                const char *why)
{
    struct tls_session s = { .result = result, .mx = str_of(mx), .reason = str_of(why) };

    s.sending = ip(from);
    s.receiving = ip(to);
    while (times--)
        tls_report_add(r, p, &s);
}

/* Compares with the golden file; TERN_WRITE_GOLDEN=1 writes it. */
static void assert_golden(const char *name, json_t *report)
{
    char path[500];
    char *text = json_dumps(report, JSON_INDENT(2));

    assert_non_null(text);
    snprintf(path, sizeof(path), "%s/unit/daemon/%s", TERN_TEST_DIR, name);
    if (getenv("TERN_WRITE_GOLDEN")) {
        FILE *out = fopen(path, "w");
        assert_non_null(out);
        fprintf(out, "%s\n", text);
        fclose(out);
    }
    json_error_t error;
    json_t *golden = json_load_file(path, 0, &error);
    assert_non_null(golden);
    assert_true(json_equal(golden, report));
    json_decref(golden);
    json_decref(report);
    free(text);
}

static void test_the_example_of_the_rfc(void **state)
{
    struct tls_report *r = tls_report_new();
    struct tls_policy p = {
        .type = TLS_POLICY_STS,
        .domain = STR("company-y.example"),
        .strings = STR("version: STSv1\nmode: testing\nmx: *.mail.company-y.example\n"
                       "max_age: 86400\n"),
        .mx = STR("*.mail.company-y.example\n"),
    };

    add(r, &p, 5326, TLS_RESULT_SUCCESS, NULL, "", NULL, "");
    add(r, &p, 100, TLS_RESULT_EXPIRED, "2001:db8:abcd:12::1", "mx1.mail.company-y.example", NULL,
        "");
    add(r, &p, 200, TLS_RESULT_NO_STARTTLS, "2001:db8:abcd:13::1", "mx2.mail.company-y.example",
        "203.0.113.56", "");
    add(r, &p, 3, TLS_RESULT_VALIDATION, "198.51.100.62", "mx-backup.mail.company-y.example",
        "203.0.113.58", "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED");
    assert_golden("tls_report_example.json",
                  tls_report_json(r, STR("2016-04-01"), STR("company-y.example"),
                                  STR("mail.company-x.example")));
    tls_report_free(r);
}

static void test_all_kinds(void **state)
{
    struct tls_report *r = tls_report_new();
    struct tls_policy tlsa = { .type = TLS_POLICY_TLSA,
                               .domain = STR("mx.d.example"),
                               .strings = STR("3 1 1 1F85\n3 1 1 1235\n") };
    struct tls_policy none = { .type = TLS_POLICY_NONE, .domain = STR("d.example") };
    struct tls_policy others = { .type = TLS_POLICY_TLSA };
    char name[40];

    add(r, &none, 2, TLS_RESULT_SUCCESS, NULL, "", NULL, "");
    for (int i = 1; i < TLS_RESULTS; i++)
        add(r, &tlsa, (unsigned)i, (enum tls_result)i, "192.0.2.1", "mx.d.example", "192.0.2.2",
            "\xff odd");
    for (int i = 0; i < 2 * TLS_REPORT_DETAILS; i++) {
        snprintf(name, sizeof(name), "mx%d.d.example", i);
        add(r, &none, 1, TLS_RESULT_NO_STARTTLS, "192.0.2.1", name, "192.0.2.3", "");
    }
    add(r, &others, 1, TLS_RESULT_TLSA_INVALID, "192.0.2.1", "mx.d.example", "192.0.2.4", "");
    assert_golden("tls_report_kinds.json",
                  tls_report_json(r, STR("2026-11-30"), STR("d.example"), STR("mx.test")));
    tls_report_free(r);
}

static void test_days(void **state)
{
    static const char *const good[] = { "2026-11-30", "2024-02-29", "2000-02-29", "1970-01-01" };
    static const char *const bad[] = { "",           "2026-11-31", "2026-02-29", "1900-02-29",
                                       "2026-13-01", "2026-00-10", "2026-1-1",   "2026-11-3x",
                                       "2026/11/30", "26-11-30",   "2026-11-300" };

    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(tls_report_day(str_of(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(tls_report_day(str_of(bad[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_example_of_the_rfc),
        cmocka_unit_test(test_all_kinds),
        cmocka_unit_test(test_days),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
