/* Recoding: what a message becomes for a host that takes less, and what cannot be converted. That it
 * decodes to what it was is shown by another implementation in tests/blackbox/test_downconversion.py. */
#include "check.h"

#include "mail/recode.h"

/* Both passes in pieces of n octets. The error of the first pass, or 0 and what was written. */
static int convert(bool eight_bit, struct str in, size_t n, struct buf *out, const char **ret_why)
{
    struct recode *r = recode_new(eight_bit);
    int err = 0;

    assert_non_null(r);
    for (struct str s = in; s.n && !err; s = str_from(s, n))
        err = recode_look(r, str_first(s, n));
    if (!err)
        err = recode_looked(r);
    *ret_why = recode_why(r);
    for (struct str s = in; s.n && !err; s = str_from(s, n))
        assert_int_equal(recode_write(r, str_first(s, n), out), 0);
    if (!err) {
        uint64_t before = in.n / 4 + 100;
        assert_int_equal(recode_written(r, out), 0);
        /* An estimate, for SIZE. */
        assert_true(recode_estimate(r) + before >= buf_len(out));
    }
    recode_free(r);
    return err;
}

static void becomes(bool eight_bit, struct str in, struct str want)
{
    static const size_t pieces[] = { 1000000, 1, 2, 3, 7 };

    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        struct buf out;
        const char *why;
        buf_init(&out, 0);
        int r = convert(eight_bit, in, pieces[i], &out, &why);
        if (r < 0)
            fail_msg("cannot: %s", why);
        if (!str_eq(buf_str(&out), want))
            fail_msg("pieces of %zu\n--- want\n" STR_FMT "\n--- got\n" STR_FMT "\n---", pieces[i],
                     STR_ARG(want), STR_ARG(buf_str(&out)));
        buf_done(&out);
    }
}

static void stays(bool eight_bit, struct str in)
{
    becomes(eight_bit, in, in);
}

static void cannot(bool eight_bit, struct str in, const char *want)
{
    static const size_t pieces[] = { 1000000, 1, 7 };

    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        struct buf out;
        const char *why = NULL;
        buf_init(&out, 0);
        assert_int_equal(convert(eight_bit, in, pieces[i], &out, &why), -EILSEQ);
        assert_string_equal(why, want);
        assert_int_equal(buf_len(&out), 0);
        buf_done(&out);
    }
}

#define MIME "MIME-Version: 1.0\r\n"
#define CTE  "Content-Transfer-Encoding: "

static void test_text(void **state)
{
    /* no MIME at all: RFC 1428 */
    becomes(false, STR("Subject: x\r\n\r\ngr\xc3\xbc\xc3\x9f\x65\r\n"),
            STR("Subject: x\r\n" MIME "Content-Type: text/plain; charset=unknown-8bit\r\n" CTE
                "quoted-printable\r\n\r\ngr=C3=BC=C3=9Fe\r\n"));
    becomes(false,
            STR(MIME "content-type: Text/Plain; charset=utf-8\r\ncontent-transfer-encoding:\r\n"
                     "  8bit (so)\r\nX: y\r\n\r\na = \xc3\xbc \r\n\t\r\n"),
            STR(MIME "content-type: Text/Plain; charset=utf-8\r\n" CTE
                     "quoted-printable\r\nX: y\r\n\r\na =3D =C3=BC=20\r\n=09\r\n"));
    /* a label that was too much */
    becomes(false, STR(MIME CTE "8BIT\r\n\r\nascii\r\n"), STR(MIME CTE "7bit\r\n\r\nascii\r\n"));
    /* nothing to do */
    stays(false, STR("Subject: x\r\n\r\n.\r\n--\r\n-- x\r\n"));
    stays(false, STR("Subject: x\r\n\r\nno end"));
    stays(false, STR("Subject: x\r\n"));
    stays(false, STR(""));
    stays(false, STR("\r\n"));
    stays(false, STR("no header\r\nat all\r\n"));
    stays(false, STR("Subject: x\r\nno field\r\nat all\r\n"));
    stays(true, STR("Subject: x\r\n\r\ngr\xc3\xbc\xc3\x9f\x65\r\n"));
    becomes(false, STR("Subject: x\r\nno field \xe4\r\n"),
            STR("Subject: x\r\n" MIME "Content-Type: text/plain; charset=unknown-8bit\r\n" CTE
                "quoted-printable\r\n\r\nno field =E4\r\n"));
}

static void test_ends(void **state)
{
    /* What has no line's end gets none. */
    becomes(false, STR(MIME "\r\n\xe4"), STR(MIME CTE "quoted-printable\r\n\r\n=E4=\r\n"));
    becomes(false, STR(MIME "\r\n\xe4 \r\n"), STR(MIME CTE "quoted-printable\r\n\r\n=E4=20\r\n"));
    becomes(false, STR(MIME "Content-Type: a/b\r\n\r\n\xff\xfe\xfd"),
            STR(MIME "Content-Type: a/b\r\n" CTE "base64\r\n\r\n//79\r\n"));
}

static void test_binary(void **state)
{
    /* A CR, an LF, a NUL, a line too long: also for a host that takes 8-bit. */
    becomes(true, STR(MIME "Content-Type: a/b\r\n" CTE "binary\r\n\r\n\n.\r\n\r.\r\0x"),
            STR(MIME "Content-Type: a/b\r\n" CTE "base64\r\n\r\nCi4NCg0uDQB4\r\n"));
    becomes(true, STR(MIME CTE "binary\r\n\r\nplain \xe4\r\n"),
            STR(MIME CTE "8bit\r\n\r\nplain \xe4\r\n"));
    becomes(true, STR(MIME CTE "binary\r\n\r\nplain\r\n"), STR(MIME CTE "7bit\r\n\r\nplain\r\n"));
    becomes(true, STR(MIME CTE "binary\r\n\r\na\n.\nb"),
            STR(MIME CTE "quoted-printable\r\n\r\na=0A.=0Ab=\r\n"));
}

static void test_long_lines(void **state)
{
    struct buf in, out;
    const char *why;

    buf_init(&in, 0);
    buf_init(&out, 0);
    buf_add_str(&in, STR(MIME "\r\n\xe4"));
    for (int i = 0; i < 3000; i++)
        buf_add_char(&in, i % 77 ? 'x' : ' ');
    buf_add_str(&in, STR("\r\n"));
    assert_int_equal(convert(true, buf_str(&in), 100, &out, &why), 0);
    struct str rest = buf_str(&out), line;
    while (rest.n && str_cut(&rest, '\n', &line))
        assert_true(line.n <= 77);
    buf_done(&in);
    buf_done(&out);
}

#define MIXED MIME "Content-Type: multipart/mixed; (c \\) d) charset=\"x;y\"; boundary=\"a b\"\r\n"

static void test_multipart(void **state)
{
    becomes(
        false,
        STR(MIXED CTE
            "8bit\r\n\r\npreamble\r\n--a b\r\n" CTE "8bit\r\n\r\n\xe4\r\n--a b\r\n\r\n"
            "ascii\r\n--a bc\r\n--a b \t\r\nContent-Type: image/x\r\n\r\n\xff\xff\xff\r\n\r\n"
            "--a b--\r\nepilogue\r\n"),
        STR(MIXED CTE
            "7bit\r\n\r\npreamble\r\n--a b\r\n" CTE
            "quoted-printable\r\n\r\n=E4\r\n--a b\r\n\r\nascii\r\n--a bc\r\n--a b \t\r\nContent-Type: "
            "image/x\r\n" CTE "base64\r\n\r\n////DQo=\r\n--a b--\r\nepilogue\r\n"));
    /* MIME-Version is missing; a part that ends within its header; no last boundary */
    becomes(false,
            STR("Content-Type: multipart/x; boundary=b\r\n\r\n--b\r\nA: b\r\n--b\r\n\r\n\xe4"),
            STR("Content-Type: multipart/x; boundary=b\r\n" MIME "\r\n--b\r\nA: b\r\n--b\r\n" CTE
                "quoted-printable\r\n\r\n=E4=\r\n"));
    /* the texts that nobody reads */
    becomes(false, STR(MIXED "\r\n\xe4\r\n--a b--\r\n\xf6="),
            STR(MIXED "\r\n=E4\r\n--a b--\r\n=F6=3D=\r\n"));
    /* the boundary of the outer one ends the inner one too */
    becomes(
        false,
        STR(MIXED
            "\r\n--a b\r\nContent-Type: multipart/y; boundary=in\r\n\r\n--in\r\n\r\nx\r\n--a b"
            "\r\n\r\n\xe4\r\n--in\r\n--a b--"),
        STR(MIXED
            "\r\n--a b\r\nContent-Type: multipart/y; boundary=in\r\n\r\n--in\r\n\r\nx\r\n--a b\r\n" CTE
            "quoted-printable\r\n\r\n=E4\r\n--in\r\n--a b--"));
}

/* A soft break must not make a boundary of what was none. */
static void test_no_boundary_is_made(void **state)
{
    struct buf in, out;
    const char *why;

    for (int pad = 60; pad < 160; pad++) {
        buf_init(&in, 0);
        buf_init(&out, 0);
        buf_add_str(&in, STR("Content-Type: multipart/x; boundary=b\r\n\r\n--b\r\n\r\n\xe4"));
        for (int i = 0; i < pad; i++)
            buf_add_char(&in, 'x');
        buf_add_str(&in, STR("--b--\r\n--b--\r\n"));
        assert_int_equal(convert(false, buf_str(&in), 50, &out, &why), 0);
        assert_true(str_ends(buf_str(&out), STR("--b--\r\n--b--\r\n")) ||
                    str_find(buf_str(&out), STR("\r\n--b--")) ==
                        (ptrdiff_t)(buf_len(&out) - strlen("\r\n--b--\r\n")));
        buf_done(&in);
        buf_done(&out);
    }
}

static void test_messages(void **state)
{
    becomes(false,
            STR(MIXED "\r\n--a b\r\nContent-Type: message/rfc822\r\n" CTE
                      "8bit\r\n\r\nSubject: in\r\n\r\n\xe4\r\n"
                      "--a b--\r\n"),
            STR(MIXED "\r\n--a b\r\nContent-Type: message/rfc822\r\n" CTE
                      "7bit\r\n\r\nSubject: in\r\n" MIME
                      "Content-Type: text/plain; charset=unknown-8bit\r\n" CTE
                      "quoted-printable\r\n\r\n=E4\r\n--a b--\r\n"));
    /* parts of a digest are messages */
    becomes(false,
            STR(MIME "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n" MIME
                     "\r\n\xe4\r\n--b--"
                     "\r\n"),
            STR(MIME "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n" MIME CTE
                     "quoted-printable\r\n\r\n=E4\r\n--b--\r\n"));
    /* a message within, empty, cut off by the boundary */
    stays(false, STR(MIXED "\r\n--a b\r\nContent-Type: message/rfc822\r\n\r\n--a b--\r\n"));
}

static void test_what_cannot_be(void **state)
{
    cannot(false, STR("Subject: \xe4\r\n\r\nx\r\n"), "a header field holds 8-bit octets");
    stays(true, STR("Subject: \xe4\r\n\r\nx\r\n"));
    cannot(
        false,
        STR(MIME "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n\xe4\r\n--b--\r\n"),
        "a signed part would not verify any more");
    stays(false,
          STR(MIME "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n"));
    /* what is beside a signed part can be converted */
    becomes(false,
            STR(MIXED "\r\n--a b\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n" CTE
                      "8bit\r\n\r\nx \r\n--s--\r\n--a b\r\n\r\n\xe4\r\n--a b--\r\n"),
            STR(MIXED "\r\n--a b\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n" CTE
                      "8bit\r\n\r\nx \r\n--s--\r\n--a b\r\n" CTE
                      "quoted-printable\r\n\r\n=E4\r\n--a b--\r\n"));
    cannot(false, STR(MIME CTE "base64\r\n\r\n\xe4\r\n"),
           "a part that says it is encoded holds other octets");
    cannot(false, STR(MIME CTE "x-uuencode\r\n\r\n\xe4\r\n"),
           "a part that says it is encoded holds other octets");
    cannot(false, STR(MIME "Content-Type: message/partial; id=x\r\n\r\n\xe4\r\n"),
           "a part of type message must not be encoded");
    cannot(false, STR(MIME "Content-Type: multipart/mixed\r\n\r\n\xe4\r\n"),
           "the Content-Type of a part cannot be read");
    cannot(false, STR(MIXED "no field\r\n--a b\r\n\r\n\xe4\r\n--a b--\r\n"),
           "a header block does not end in an empty line");
    stays(false, STR(MIXED "no field\r\n--a b\r\n\r\nx\r\n--a b--\r\n"));
    cannot(true, STR("A: b\rc\r\n\r\nx"), "a header field holds a bare CR, a bare LF or a NUL");
}

static int nested(size_t depth, struct buf *out, const char **why)
{
    struct buf in;

    buf_init(&in, 0);
    for (size_t i = 0; i < depth; i++)
        buf_printf(&in, "Content-Type: multipart/x; boundary=b%zu\r\n\r\n--b%zu\r\n", i, i);
    buf_add_str(&in, STR("\r\n\xe4\r\n"));
    int r = convert(false, buf_str(&in), 4096, out, why);
    buf_done(&in);
    return r;
}

static void test_depth(void **state)
{
    struct buf out;
    const char *why = NULL;

    buf_init(&out, 0);
    assert_int_equal(nested(RECODE_DEPTH, &out, &why), 0);
    buf_clear(&out);
    assert_int_equal(nested(RECODE_DEPTH + 1, &out, &why), -EILSEQ);
    assert_string_equal(why, "its parts are nested too deep");
    assert_int_equal(nested(10000, &out, &why), -EILSEQ);
    buf_done(&out);
}

static void test_many_parts(void **state)
{
    struct buf in, out;
    const char *why = NULL;

    buf_init(&in, 0);
    buf_init(&out, 0);
    buf_add_str(&in, STR("Content-Type: multipart/x; boundary=b\r\n\r\n"));
    for (int i = 0; i < RECODE_REGIONS; i++)
        buf_add_str(&in, STR("--b\r\n\r\n"));
    assert_int_equal(convert(false, buf_str(&in), 65536, &out, &why), -EILSEQ);
    assert_string_equal(why, "it has too many parts");
    buf_done(&in);
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),      cmocka_unit_test(test_ends),
        cmocka_unit_test(test_binary),    cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_multipart), cmocka_unit_test(test_no_boundary_is_made),
        cmocka_unit_test(test_messages),  cmocka_unit_test(test_what_cannot_be),
        cmocka_unit_test(test_depth),     cmocka_unit_test(test_many_parts),
    };

    assert_null(recode_free(NULL));
    return cmocka_run_group_tests_name("recode", tests, NULL, NULL);
}
