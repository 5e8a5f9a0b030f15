/* The parts of a message, as its sender describes them; however it is cut, and however wrong it is. */
#include "check.h"

#include <stdio.h>

#include "mail/parts.h"

/* What it consists of: "type name size depth", one a line; step: octets given at once. */
static char *describe(const char *type, const char *disposition, struct str body, size_t step)
{
    struct parts *p = parts_new(str_of(type), str_of(disposition), STR(""));
    struct buf out;

    assert_non_null(p);
    for (size_t at = 0; at < body.n; at += step)
        assert_int_equal(parts_look(p, str_first(str_from(body, at), step)), 0);
    assert_int_equal(parts_end(p), 0);
    buf_init(&out, 0);
    for (size_t i = 0; i < parts_count(p); i++) {
        const struct part *part = parts_at(p, i);
        buf_printf(&out, STR_FMT "|" STR_FMT "|" STR_FMT "|" STR_FMT "|%llu|%u\n",
                   STR_ARG(part->type), STR_ARG(part->name), STR_ARG(part->disposition),
                   STR_ARG(part->encoding), (unsigned long long)part->size, part->depth);
    }
    buf_add_str(&out, parts_complete(p) ? STR("") : STR("more\n"));
    parts_free(p);
    char *text = str_dup(buf_str(&out));
    buf_done(&out);
    return text ? text : str_dup(STR(""));
}

static void check(const char *type, const char *disposition, const char *body, const char *wanted)
{
    static const size_t steps[] = { 1, 2, 7, 1000000 };

    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        char *is = describe(type, disposition, str_of(body), steps[i]);
        if (strcmp(is, wanted) != 0)
            fail_msg("%s\n%s\nis\n%snot\n%s", type, body, is, wanted);
        free(is);
    }
}

static void test_single(void **state)
{
    (void)state;
    check("", "", "", "text/plain||||0|0\n");
    check("", "", "hello\r\n", "text/plain||||7|0\n");
    check(" Text/HTML; charset=x", "", "hello", "text/html||||5|0\n");
    check("nonsense", "", "x", "text/plain||||1|0\n");
    check("application/pdf; name=\"a b.pdf\"", "", "xyz\n", "application/pdf|a b.pdf|||4|0\n");
    check("application/pdf; name=n", "Attachment; filename=\"f.pdf\"", "--x--\r\n",
          "application/pdf|f.pdf|attachment||7|0\n");
}

static void test_multipart(void **state)
{
    (void)state;
    check(
        "multipart/mixed; boundary=\"b 1\"", "",
        "preamble\r\n--b 1\r\n\r\nfirst\r\n\r\n--b 1 \t\r\n"
        "content-TYPE: application/zip;\r\n\tname=a.zip\r\nContent-Disposition:attachment\r\n"
        "Content-Transfer-Encoding: BASE64\r\n\r\nAAAA\r\nBBBB\r\n--b 1--\r\nepilogue\r\n--b 1\r\n",
        "text/plain||||7|1\napplication/zip|a.zip|attachment|base64|10|1\n");
    check("multipart/mixed; boundary=a", "",
          "--a\r\nContent-Type: multipart/alternative; boundary=a.b\r\n\r\n"
          "--a.b\r\n\r\nx\r\n--a.bc\r\n--a.b\r\nContent-Type: text/html\r\n\r\ny\r\n--a\r\n"
          "Content-Type: image/gif\r\n\r\n\r\n--a--",
          "text/plain||||9|2\ntext/html||||1|2\nimage/gif||||0|1\n");
    /* cut off, without blank lines, with no part at all */
    check("multipart/mixed; boundary=a", "", "--a\r\nContent-Type: a/b", "a/b||||0|1\n");
    check("multipart/mixed; boundary=a", "", "--a\r\nno field\r\nmore\r\n--a--",
          "text/plain||||14|1\n");
    check("multipart/mixed; boundary=a", "", "--a\r\nno field\r\n--a--", "text/plain||||8|1\n");
    check("multipart/mixed; boundary=a", "", "nothing\r\n", "");
    /* the first of several fields counts */
    check("multipart/mixed; boundary=a", "",
          "--a\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n folded\r\n\r\nx\r\n--a--\r\n",
          "a/b||||1|1\n");
    check("multipart/mixed", "", "--a\r\n\r\nx", "multipart/mixed||||8|0\nmore\n");
}

static void test_message_in_message(void **state)
{
    (void)state;
    check("multipart/digest; boundary=a", "",
          "--a\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n"
          "Content-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n"
          "Content-Type: application/x-msdownload; name=evil.exe\r\n\r\nMZ\r\n--i--\r\n"
          "--a\r\nContent-Type: message/rfc822\r\n\r\n--a--\r\n",
          "message/rfc822||||0|1\napplication/x-msdownload|evil.exe|||2|3\n"
          "message/rfc822||||0|1\ntext/plain||||0|2\n");
    check("message/rfc822", "", "Subject: x\r\n\r\nbody\r\n",
          "message/rfc822||||0|0\ntext/plain||||6|1\n");
}

static void test_names(void **state)
{
    static const char *const cases[][2] = {
        { "filename=plain.txt", "plain.txt" },
        { "filename = \"q \\\"x\\\";y.txt\" ; other=1", "q \"x\";y.txt" },
        { "filename=two words.txt; x=y", "two words.txt" },
        { "filename=\"=?utf-8?b?w7wuZXhl?=\"", "\xc3\xbc.exe" },
        { "filename*=utf-8'en'%c3%bc%2Eexe", "\xc3\xbc.exe" },
        { "filename*=ISO-8859-1''%FC.exe", "\xc3\xbc.exe" },
        { "filename=\"fallback\"; filename*=utf-8''real.exe", "real.exe" },
        { "filename*=utf-8''real.exe; filename=\"fallback\"", "real.exe" },
        { "filename*0=\"ev\"; filename*1=\"il.\"; filename*2=exe", "evil.exe" },
        { "filename*0*=utf-8''%c3%bc; filename*1=\".\"; filename*2*=%65xe", "\xc3\xbc.exe" },
        { "filename*1=b; filename*0=a", "a" },
        { "filename*=broken%", "broken%" },
        { "FileName=\"x\"; filename=\"y\"", "x" },
        { "filename*=utf-8''a; filename*=utf-8''b", "a" },
        { "xfilename=a; filenames=b; filename*x=c", "" },
        { "filename=", "" },
        { "filename=\"unterminated", "unterminated" },
        { "creation-date=\"a; filename=no\"; filename=yes", "yes" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char disposition[256], wanted[256];
        snprintf(disposition, sizeof(disposition), "attachment; %s", cases[i][0]);
        snprintf(wanted, sizeof(wanted), "a/b|%s|attachment||0|0\n", cases[i][1]);
        check("a/b", disposition, "", wanted);
    }
}

static void test_limits(void **state)
{
    struct buf body;
    char *is;

    (void)state;
    buf_init(&body, 0);
    for (int i = 0; i < PARTS_MAX + 10; i++)
        buf_add_str(&body, STR("--a\r\n\r\nx\r\n"));
    is = describe("multipart/mixed; boundary=a", "", buf_str(&body), 4096);
    assert_true(strlen(is) == PARTS_MAX * strlen("text/plain||||1|1\n") + strlen("more\n"));
    free(is);
    buf_clear(&body);
    for (int i = 0; i < 5000; i++)
        buf_printf(&body, "--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n", i, i + 1);
    is = describe("multipart/mixed; boundary=b0", "", buf_str(&body), 4096);
    assert_true(strstr(is, "multipart/mixed||||") && strstr(is, "more\n"));
    free(is);
    buf_clear(&body);
    buf_add_str(&body, STR("--a\r\nContent-Disposition: x; filename=\""));
    for (int i = 0; i < 100000; i++)
        buf_add_str(&body, STR("long long \r\n "));
    is = describe("multipart/mixed; boundary=a", "", buf_str(&body), 4096);
    assert_true(strlen(is) < 2000);
    free(is);
    buf_done(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single),
        cmocka_unit_test(test_multipart),
        cmocka_unit_test(test_message_in_message),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests_name("parts", tests, NULL, NULL);
}
