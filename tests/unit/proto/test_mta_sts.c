/* MTA-STS: records and policies of strangers (RFC 8461 §3, §4.1). */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>

#include "proto/mta_sts.h"

/* ---- the record ------------------------------------------------------------------------------- */

static void check_record(const char *id, size_t n, const char *const *texts)
{
    struct dns_record records[4] = { 0 };
    struct str got = STR_NONE;

    for (size_t i = 0; i < n; i++)
        records[i] = (struct dns_record){ .name = str_of(texts[i]) };
    struct dns_answer *a =
        dns_answer_make(STR("_mta-sts.example.com"), DNS_TXT, DNS_OK, records, n, 60);
    assert_non_null(a);
    bool is = mta_sts_record(a, &got);
    if (is != (id != NULL) || (id && !str_eq(got, str_of(id))))
        fail_msg("'%s' gave '" STR_FMT "', not '%s'", texts[0], STR_ARG(got), id ? id : "none");
    dns_answer_unref(a);
}

static void records(void **state)
{
    static const struct {
        const char *text, *id;
    } rows[] = {
        { "v=STSv1; id=20160831085700Z;", "20160831085700Z" },
        { "v=STSv1;id=1", "1" },
        { "v=STSv1 ; \tid=a9 ; more=x y;", "a9" },
        { "v=STSv1; other=2; id=3; id=4", "3" },
        { "v=STSv1; id=12345678901234567890123456789012;", "12345678901234567890123456789012" },
        { "v=STSv1; id=123456789012345678901234567890123;", NULL },
        { "v=STSv1; id=;", NULL },
        { "v=STSv1; id=a-b;", NULL },
        { "v=STSv1; ID=1;", NULL },
        { "v=STSv1", NULL },
        { "v=STSv12; id=1;", NULL },
        { "v=stsv1; id=1;", NULL },
        { " v=STSv1; id=1;", NULL },
        { "id=1; v=STSv1;", NULL },
        { "v=spf1 -all", NULL },
        { "", NULL },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check_record(rows[i].id, 1, &rows[i].text);
}

/* Others may stand beside it; a second one makes it none. */
static void several_records(void **state)
{
    check_record("1", 2, (const char *const[]){ "unrelated", "v=STSv1; id=1;" });
    check_record(NULL, 2, (const char *const[]){ "v=STSv1; id=1;", "v=STSv1; id=1;" });
    check_record(NULL, 2, (const char *const[]){ "v=STSv1; id=1;", "v=STSv1" });
    struct str id;
    struct dns_answer *a =
        dns_answer_make(STR("_mta-sts.example.com"), DNS_TXT, DNS_SERVFAIL, NULL, 0, 60);
    assert_false(mta_sts_record(a, &id));
    dns_answer_unref(a);
}

/* ---- policies --------------------------------------------------------------------------------- */

static void good_policies(void **state)
{
    struct mta_sts_policy p;
    const char *why;

    assert_int_equal(mta_sts_parse(STR("version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\n"
                                       "mx: *.example.net\r\nmx: backupmx.example.com\r\n"
                                       "max_age: 604800\r\n"),
                                   &p, &why),
                     0);
    assert_int_equal(p.mode, MTA_STS_ENFORCE);
    assert_int_equal(p.max_age_s, 604800);
    assert_int_equal(p.n_mx, 3);
    assert_true(str_eq(p.mx[1], STR("*.example.net")));

    /* LF alone, no end of the last line, any order, blanks, what is not known, second ones */
    assert_int_equal(mta_sts_parse(STR("mode:testing\nmax_age:\t5 \n\nfuture: x: y\nversion:STSv1\n"
                                       "mode: enforce\nmax_age: 9\nmx : a.example"),
                                   &p, &why),
                     0);
    assert_int_equal(p.mode, MTA_STS_TESTING);
    assert_int_equal(p.max_age_s, 5);
    assert_true(p.n_mx == 1 && str_eq(p.mx[0], STR("a.example")));

    assert_int_equal(
        mta_sts_parse(STR("version: STSv1\nmode: none\nmax_age: 9999999999\n"), &p, &why), 0);
    assert_int_equal(p.mode, MTA_STS_NONE);
    assert_int_equal(p.max_age_s, MTA_STS_MAX_AGE_S);
}

static void bad_policies(void **state)
{
    static const struct {
        const char *text, *why;
    } rows[] = {
        { "", "no version" },
        { "version: STSv2\nmode: none\nmax_age: 1", "version is not STSv1" },
        { "version: STSv1\nmax_age: 1\nmx: a.example", "no mode" },
        { "version: STSv1\nmode: Enforce\nmax_age: 1\nmx: a.example", "mode is none of" },
        { "version: STSv1\nmode: enforce\nmx: a.example", "no max_age" },
        { "version: STSv1\nmode: enforce\nmax_age: -1\nmx: a.example", "no number" },
        { "version: STSv1\nmode: enforce\nmax_age: 99999999999\nmx: a.example", "no number" },
        { "version: STSv1\nmode: enforce\nmax_age: 1", "no mx" },
        { "version: STSv1\nmode: enforce\nmax_age: 1\nmx: *", "is no name" },
        { "version: STSv1\nmode: enforce\nmax_age: 1\nmx: *.*.example", "is no name" },
        { "version: STSv1\nmode: enforce\nmax_age: 1\nmx: a..example", "is no name" },
        { "version: STSv1\nmode: enforce\nmax_age: 1\nmx: a.example.", "is no name" },
        { "version: STSv1\nmode: enforce\nmax_age: 1\nmx:", "is no name" },
        { "<html>\n<body>404</body>", "a line has no colon" },
    };
    struct mta_sts_policy p;
    const char *why;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(mta_sts_parse(str_of(rows[i].text), &p, &why), -EBADMSG);
        if (!strstr(why, rows[i].why))
            fail_msg("'%s' gave '%s', not '%s'", rows[i].text, why, rows[i].why);
    }
    struct buf b;
    buf_init(&b, 0);
    buf_printf(&b, "version: STSv1\nmode: enforce\nmax_age: 1\n");
    for (int i = 0; i < MTA_STS_MAX_MX; i++)
        buf_printf(&b, "mx: mx%d.example\n", i);
    assert_int_equal(mta_sts_parse(buf_str(&b), &p, &why), 0);
    buf_printf(&b, "mx: one.more.example\n");
    assert_int_equal(mta_sts_parse(buf_str(&b), &p, &why), -EBADMSG);
    while (buf_len(&b) <= MTA_STS_MAX_TEXT)
        buf_printf(&b, "x: %0100d\n", 0);
    assert_int_equal(mta_sts_parse(buf_str(&b), &p, &why), -EBADMSG);
    assert_string_equal(why, "it is too long");
    buf_done(&b);
}

static void matching(void **state)
{
    struct mta_sts_policy p = { .n_mx = 2,
                                .mx = { STR("Mail.Example.com"), STR("*.example.NET") } };
    static const struct {
        const char *mx;
        bool allowed;
    } rows[] = {
        { "mail.example.com", true },    { "MAIL.EXAMPLE.COM.", true },  { "a.example.net", true },
        { "a.b.example.net", false },    { "example.net", false },       { ".example.net", false },
        { "mail.example.com.x", false }, { "xmail.example.com", false }, { "", false },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (mta_sts_allows(&p, str_of(rows[i].mx)) != rows[i].allowed)
            fail_msg("%s: not %d", rows[i].mx, rows[i].allowed);
}

static void as_it_is_kept(void **state)
{
    struct mta_sts_policy p = { .mode = MTA_STS_ENFORCE,
                                .max_age_s = 86400,
                                .n_mx = 2,
                                .mx = { STR("mail.example.com"), STR("*.example.net") } };
    struct mta_sts_policy q;
    struct str id;
    struct buf b;

    buf_init(&b, 0);
    assert_int_equal(mta_sts_encode(STR("2026"), &p, &b), 0);
    assert_true(mta_sts_decode(buf_str(&b), &id, &q));
    assert_true(str_eq(id, STR("2026")) && q.mode == p.mode && q.max_age_s == p.max_age_s);
    assert_true(q.n_mx == 2 && str_eq(q.mx[0], p.mx[0]) && str_eq(q.mx[1], p.mx[1]));
    for (size_t n = 0; n < buf_len(&b); n++) {
        bool whole = mta_sts_decode(str_first(buf_str(&b), n), &id, &q);
        assert_true(!whole ||
                    q.n_mx == 1); /* cut off between two mx it is another policy, and whole */
    }
    buf_done(&b);
}

/* RFC 8460 section 4.5: as the domain declares it, with what we do not know and what is odd about it. */
static void its_own_lines(void **state)
{
    static const struct {
        const char *text, *lines;
        uint8_t version;
    } rows[] = {
        { "version: STSv1\r\nmode: enforce\r\nmx: a.example\r\nmax_age: 86400\r\n",
          "version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 86400\n", 1 },
        { "version:STSv1\nmax_age: 086400\n\nmode: enforce\nX-note: hello\nmx: a.example\nmode: none",
          "version:STSv1\nmax_age: 086400\nmode: enforce\nX-note: hello\nmx: a.example\nmode: none\n",
          2 },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct mta_sts_policy p, q;
        const char *why;
        struct str id;
        struct buf kept, lines;

        buf_init(&kept, 0);
        buf_init(&lines, 0);
        assert_int_equal(mta_sts_parse(str_of(rows[i].text), &p, &why), 0);
        assert_int_equal(mta_sts_encode(STR("1"), &p, &kept), 0);
        assert_int_equal(buf_str(&kept).p[0], rows[i].version);
        assert_true(mta_sts_decode(buf_str(&kept), &id, &q));
        assert_true(q.n_mx == 1 && q.mode == MTA_STS_ENFORCE && q.max_age_s == 86400);
        assert_int_equal(mta_sts_lines(&q, 2048, &lines), 0);
        assert_true(str_eq(buf_str(&lines), str_of(rows[i].lines)));
        buf_clear(&lines);
        assert_int_equal(mta_sts_lines(&p, 40, &lines),
                         0); /* whole ones, as far as there is room */
        assert_true(buf_len(&lines) <= 40 && str_ends(buf_str(&lines), STR("\n")));
        for (size_t n = 0; rows[i].version == 2 && n < buf_len(&kept); n++)
            assert_false(mta_sts_decode(str_first(buf_str(&kept), n), &id, &q));
        buf_done(&kept);
        buf_done(&lines);
    }
}

/* However long it is, what is kept fits into the spool; its fields go before its lines. */
static void long_policies(void **state)
{
    struct mta_sts_policy p, q;
    const char *why;
    struct str id;
    struct buf text, kept;
    char name[254];

    memset(name, 'a', 253);
    name[253] = '\0';
    buf_init(&text, 0);
    buf_init(&kept, 0);
    buf_printf(&text, "version:STSv1\nmode:enforce\nmax_age:1\n");
    for (int i = 0; i < MTA_STS_MAX_MX; i++)
        buf_printf(&text, "mx:%s\n", name);
    assert_int_equal(mta_sts_parse(buf_str(&text), &p, &why), 0);
    assert_int_equal(mta_sts_encode(STR("1"), &p, &kept), 0);
    assert_true(buf_len(&kept) <= 8192);
    assert_true(mta_sts_decode(buf_str(&kept), &id, &q));
    assert_int_equal(q.n_mx, MTA_STS_MAX_MX);
    assert_int_equal(q.text.n, 0);
    buf_done(&text);
    buf_done(&kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_own_lines), cmocka_unit_test(long_policies),
        cmocka_unit_test(records),       cmocka_unit_test(several_records),
        cmocka_unit_test(good_policies), cmocka_unit_test(bad_policies),
        cmocka_unit_test(matching),      cmocka_unit_test(as_it_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
