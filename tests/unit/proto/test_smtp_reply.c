/* Writing replies, and reading what a stranger sends as one. */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>

#include "proto/smtp_reply.h"

static void check_written(struct smtp_reply r, const char *want)
{
    struct buf out;

    buf_init(&out, 0);
    assert_int_equal(smtp_reply_write(&r, &out), 0);
    if (!str_eq(buf_str(&out), str_of(want)))
        fail_msg("wrote '" STR_FMT "', not '%s'", STR_ARG(buf_str(&out)), want);
    buf_done(&out);
}

static void writing(void **state)
{
    check_written(REPLY(250, ENH(2, 1, 0), "ok"), "250 2.1.0 ok\r\n");
    check_written(REPLY(250, ENH_NONE, "ok"), "250 ok\r\n");
    check_written(REPLY(250, ENH(2, 0, 0), ""), "250 2.0.0 \r\n");
    check_written(REPLY(550, ENH(5, 1, 1), "a\nb\n\nc"),
                  "550-5.1.1 a\r\n550-5.1.1 b\r\n550-5.1.1 \r\n550 5.1.1 c\r\n");
    /* class and code must agree */
    check_written(REPLY(550, ENH(4, 1, 1), "no"), "550 no\r\n");
    check_written(REPLY(354, ENH(2, 1, 1), "go"), "354 go\r\n");
    /* nothing that would break the line */
    check_written(REPLY(550, ENH_NONE, "a\rb\tc\0d\x7f"), "550 a?b?c?d?\r\n");
    check_written(REPLY(550, ENH_NONE, "a\r\n250 ok"), "550-a?\r\n550 250 ok\r\n");
    check_written((struct smtp_reply){ .code = 250 }, "250 \r\n");
}

static void bad_codes_are_not_written(void **state)
{
    static const uint16_t codes[] = { 0, 99, 199, 600, 999 };
    struct buf out;

    buf_init(&out, 0);
    for (size_t i = 0; i < ARRAY_LEN(codes); i++)
        assert_int_equal(smtp_reply_write(&(struct smtp_reply){ .code = codes[i] }, &out), -EINVAL);
    assert_int_equal(buf_len(&out), 0);
    buf_done(&out);
}

/* Every line is at most 512 octets, and nothing but blanks gets lost. */
static void check_split(struct str text, unsigned least_lines)
{
    struct smtp_reply r = { 550, ENH(5, 7, 1), text };
    struct buf out, joined;
    struct str rest, line;
    unsigned lines = 0;

    buf_init(&out, 0);
    buf_init(&joined, 0);
    assert_int_equal(smtp_reply_write(&r, &out), 0);
    rest = buf_str(&out);
    while (str_cut(&rest, '\n', &line) && rest.p) {
        lines++;
        assert_true(line.n + 1 <= 512 && str_ends(line, STR("\r")));
        assert_true(str_starts(line, rest.n ? STR("550-5.7.1 ") : STR("550 5.7.1 ")));
        struct str part = str_first(str_from(line, 10), line.n - 11);
        for (size_t i = 0; i < part.n; i++)
            if (part.p[i] != ' ')
                buf_add_char(&joined, part.p[i]);
    }
    assert_true(lines >= least_lines);

    size_t at = 0;
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] != ' ')
            assert_true(at < buf_len(&joined) && buf_str(&joined).p[at++] == text.p[i]);
    assert_int_equal(at, buf_len(&joined));
    buf_done(&out);
    buf_done(&joined);
}

static void long_lines_are_split(void **state)
{
    static const char *const units[] = { "x", "word ", "four " };
    char text[3000];

    for (size_t u = 0; u < ARRAY_LEN(units); u++)
        for (size_t shift = 0; shift < 6; shift++) {
            size_t n = shift, unit = strlen(units[u]);
            memset(text, 'y', n);
            for (; n + unit <= sizeof(text); n += unit)
                memcpy(text + n, units[u], unit);
            check_split(str_make(text, n), 6);
        }
    memset(text, 'x', sizeof(text));
    check_split(str_make(text, 500), 1);
    check_split(str_make(text, 501), 2);
}

/* RFC 6531 section 3.7.4.2; the lines keep to their length all the same. */
static void replies_are_ascii(void **state)
{
    static const struct {
        const char *text, *line;
    } rows[] = {
        { "kein Zugang f\xc3\xbcr Sie", "550 5.7.1 kein Zugang f?r Sie\r\n" },
        { "\xf0\x9f\x98\x80!", "550 5.7.1 ?!\r\n" },
        { "\x80x\xff", "550 5.7.1 ?x?\r\n" },
        { "a\nf\xc3\xbcr", "550-5.7.1 a\r\n550 5.7.1 f?r\r\n" },
    };
    struct buf out;
    char text[3000];

    buf_init(&out, 0);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct smtp_reply r = { 550, ENH(5, 7, 1), str_of(rows[i].text) };
        buf_clear(&out);
        assert_int_equal(smtp_reply_write(&r, &out), 0);
        assert_true(str_eq(buf_str(&out), str_of(rows[i].line)));
    }
    for (size_t i = 0; i < sizeof(text); i += 2)
        memcpy(text + i, "\xc3\xbc", 2);
    struct smtp_reply r = { 550, ENH(5, 7, 1), str_make(text, sizeof(text)) };
    buf_clear(&out);
    assert_int_equal(smtp_reply_write(&r, &out), 0);
    assert_true(str_is_ascii(buf_str(&out)));
    size_t marks = 0;
    for (size_t i = 0; i < buf_len(&out); i++)
        marks += buf_str(&out).p[i] == '?';
    assert_int_equal(marks, sizeof(text) / 2);
    buf_done(&out);
}

static void the_buffer_has_the_last_word(void **state)
{
    struct smtp_reply r = REPLY(250, ENH(2, 0, 0), "a text");
    struct buf out;

    buf_init(&out, 10);
    assert_int_equal(smtp_reply_write(&r, &out), -EMSGSIZE);
    buf_done(&out);
}

static void enhanced_codes(void **state)
{
    static const char *const bad[] = { "",      "5",      "5.1",      "5.1.",   "5.1.1.", "5.1.1 ",
                                       "3.1.1", "5.01.1", "5.1.001",  "5..1",   "5.1.x",  ".1.1",
                                       "1.1.1", "55.1.1", "5.1000.1", "-5.1.1", "5.1.1x", "5,1,1" };
    struct smtp_enhanced e;
    char dst[16];

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (smtp_enhanced_parse(str_of(bad[i]), &e) != -EINVAL)
            fail_msg("'%s' is no enhanced code", bad[i]);
    assert_int_equal(smtp_enhanced_parse(STR("4.999.0"), &e), 0);
    assert_int_equal(e.class_, 4);
    assert_int_equal(e.subject, 999);
    assert_int_equal(e.detail, 0);
    assert_string_equal(smtp_enhanced_text(e, dst), "4.999.0 ");
    assert_string_equal(smtp_enhanced_text(ENH_NONE, dst), "");
}

/* ---- reading ---- */

static const struct row {
    const char *in;
    int want;
    uint16_t code;
    const char *enhanced, *text, *rest;
} rows[] = {
    { "250 ok\r\n", 1, 250, "", "ok", "" },
    { "250 2.1.0 ok\r\n", 1, 250, "2.1.0 ", "ok", "" },
    { "250\r\n", 1, 250, "", "", "" },
    { "250 \r\n", 1, 250, "", "", "" },
    { "250 2.0.0\r\n", 1, 250, "2.0.0 ", "", "" },
    { "250 ok\r\n354 go\r\n", 1, 250, "", "ok", "354 go\r\n" },
    { "250-a\r\n250-b\r\n250 c\r\n", 1, 250, "", "a\nb\nc", "" },
    { "250-\r\n250\r\n", 1, 250, "", "\n", "" },
    { "550-5.1.1 a\r\n550-5.1.1 b\r\n550 5.1.2 c\r\n", 1, 550, "5.1.1 ", "a\nb\n5.1.2 c", "" },
    { "550-a\r\n550 5.1.1 b\r\n", 1, 550, "", "a\n5.1.1 b", "" },
    { "450 5.1.1 a\r\n", 1, 450, "", "5.1.1 a", "" },
    { "550 5.1.1x\r\n", 1, 550, "", "5.1.1x", "" },
    { "250-host\r\n250-SIZE 100\r\n250 HELP\r\n", 1, 250, "", "host\nSIZE 100\nHELP", "" },
    { "220 a\tb\x01"
      "c\x7f\r\n",
      1, 220, "", "a?b?c?", "" },
    { "220 a\rb\r\n", 1, 220, "", "a?b", "" },
    { "220 \xc3\xbc\r\n", 1, 220, "", "\xc3\xbc", "" },
    { "599 x\r\n", 1, 599, "", "x", "" },
    { "200 x\r\n", 1, 200, "", "x", "" },
    { "", 0, 0, "", "", "" },
    { "250 ok\r", 0, 0, "", "", "" },
    { "250-ok\r\n", 0, 0, "", "", "" },
    { "250-ok\r\n250 ", 0, 0, "", "", "" },
    { "250 ok\n", -EPROTO, 0, "", "", "" },
    { "\n", -EPROTO, 0, "", "", "" },
    { "\r\n", -EPROTO, 0, "", "", "" },
    { "25\r\n", -EPROTO, 0, "", "", "" },
    { "000 x\r\n", -EPROTO, 0, "", "", "" },
    { "099 x\r\n", -EPROTO, 0, "", "", "" },
    { "199 x\r\n", -EPROTO, 0, "", "", "" },
    { "600 x\r\n", -EPROTO, 0, "", "", "" },
    { "999 x\r\n", -EPROTO, 0, "", "", "" },
    { "2500 x\r\n", -EPROTO, 0, "", "", "" },
    { "250x\r\n", -EPROTO, 0, "", "", "" },
    { "250\tx\r\n", -EPROTO, 0, "", "", "" },
    { " 250 x\r\n", -EPROTO, 0, "", "", "" },
    { "HTTP/1.1 400 Bad Request\r\n", -EPROTO, 0, "", "", "" },
    { "250-a\r\n251 b\r\n", -EPROTO, 0, "", "", "" },
    { "250-a\r\n550 b\r\n", -EPROTO, 0, "", "", "" },
    { "250-a\r\nxyz\r\n", -EPROTO, 0, "", "", "" },
};

static void check_reply(const struct row *row, const struct smtp_reply *reply)
{
    char enhanced[16];

    assert_int_equal(reply->code, row->code);
    assert_string_equal(smtp_enhanced_text(reply->enhanced, enhanced), row->enhanced);
    assert_true(str_eq(reply->text, str_of(row->text)));
}

/* Whole, then cut at every point. */
static void check_row(const struct row *row, size_t cut)
{
    struct smtp_reply_reader reader;
    struct smtp_reply reply;
    struct str all = str_of(row->in), in = str_first(all, cut);
    int r;

    smtp_reply_reader_init(&reader);
    r = smtp_reply_read(&reader, &in, &reply);
    if (r == 0) {
        assert_int_equal(in.n, 0);
        in = str_from(all, cut);
        r = smtp_reply_read(&reader, &in, &reply);
    } else {
        in = str_from(all, cut - in.n);
    }
    if (r != row->want)
        fail_msg("'%s' cut at %zu: %d, not %d", row->in, cut, r, row->want);
    if (r == 1) {
        check_reply(row, &reply);
        assert_true(str_eq(in, str_of(row->rest)));
    } else if (r < 0) {
        in = STR("250 ok\r\n");
        assert_int_equal(smtp_reply_read(&reader, &in, &reply), r); /* there is no way back */
    }
    smtp_reply_reader_done(&reader);
}

static void reading(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t cut = 0; cut <= strlen(rows[i].in); cut++)
            check_row(&rows[i], cut);
}

/* Feeds `n` times the unit. The last result. */
static int read_many(struct smtp_reply_reader *reader, const char *unit, size_t n,
                     struct smtp_reply *ret)
{
    int r = 0;

    for (size_t i = 0; i < n && r == 0; i++) {
        struct str in = str_of(unit);
        r = smtp_reply_read(reader, &in, ret);
    }
    return r;
}

static int read_shape(const char *head, const char *unit, size_t n, const char *tail,
                      struct str *ret_text)
{
    static char kept[20000];
    struct smtp_reply_reader reader;
    struct smtp_reply reply;
    int r;

    smtp_reply_reader_init(&reader);
    r = read_many(&reader, head, 1, &reply);
    if (r == 0)
        r = read_many(&reader, unit, n, &reply);
    if (r == 0)
        r = read_many(&reader, tail, 1, &reply);
    if (r == 1) {
        assert_true(reply.text.n <= 16384);
        memcpy(kept, reply.text.p, reply.text.n);
        *ret_text = str_make(kept, reply.text.n);
    }
    smtp_reply_reader_done(&reader);
    return r;
}

static void limits(void **state)
{
    struct str text;
    char line[1100];

    /* a line of 4096 octets with CRLF */
    assert_int_equal(read_shape("250 ", "x", 4090, "\r\n", &text), 1);
    assert_int_equal(text.n, 4090);
    assert_int_equal(read_shape("250 ", "x", 4091, "\r\n", &text), -EPROTO);
    assert_int_equal(read_shape("250 ", "x", 1 << 20, "\r\n", &text), -EPROTO);
    /* 256 lines */
    assert_int_equal(read_shape("", "250-a\r\n", 255, "250 b\r\n", &text), 1);
    assert_int_equal(text.n, 2 * 255 + 1);
    assert_int_equal(read_shape("", "250-a\r\n", 256, "250 b\r\n", &text), -EPROTO);
    assert_int_equal(read_shape("", "250-a\r\n", 1 << 20, "250 b\r\n", &text), -EPROTO);
    /* 64 KiB in all, of which 16 KiB are kept: lines of 1024 octets */
    snprintf(line, sizeof(line), "250-%01018d\r\n", 7);
    assert_int_equal(read_shape("", line, 63, "250 b\r\n", &text), 1);
    assert_int_equal(text.n, 16384);
    assert_int_equal(read_shape("", line, 64, "250 b\r\n", &text), -EPROTO);
}

static void one_reader_reads_many_replies(void **state)
{
    struct smtp_reply_reader reader;
    struct str in = STR("220-a\r\n220 b\r\n250 2.1.0 c\r\n354 d\r\n550 5.1.1 e\r\n250 f\r\n");
    static const uint16_t codes[] = { 220, 250, 354, 550, 250 };
    static const char *const texts[] = { "a\nb", "c", "d", "e", "f" };
    struct smtp_reply reply;

    smtp_reply_reader_init(&reader);
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        assert_int_equal(smtp_reply_read(&reader, &in, &reply), 1);
        assert_int_equal(reply.code, codes[i]);
        assert_true(str_eq(reply.text, str_of(texts[i])));
        assert_int_equal(reply.enhanced.class_, i == 1 ? 2 : i == 3 ? 5 : 0);
    }
    assert_int_equal(smtp_reply_read(&reader, &in, &reply), 0);
    smtp_reply_reader_done(&reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writing),
        cmocka_unit_test(bad_codes_are_not_written),
        cmocka_unit_test(long_lines_are_split),
        cmocka_unit_test(replies_are_ascii),
        cmocka_unit_test(the_buffer_has_the_last_word),
        cmocka_unit_test(enhanced_codes),
        cmocka_unit_test(reading),
        cmocka_unit_test(limits),
        cmocka_unit_test(one_reader_reads_many_replies),
    };
    return cmocka_run_group_tests_name("smtp_reply", tests, NULL, NULL);
}
