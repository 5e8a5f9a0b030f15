/* Delivery status notifications: what people and programs find in them, and strangers who put
 * things into them. test_dsn.py has the result read by another implementation. */
#include "check.h"

#include <stdio.h>
#include <unistd.h>

#include "mail/dsn.h"
#include "mail/headers.h"

#define HEAD                                                                                       \
    "Received: from a\r\n\tby b; Tue, 14 Nov 2023 22:13:20 +0000\r\n"                              \
    "From: A <a@sender.example>\r\n"                                                               \
    "Subject: A plain\r\n question\r\n"

struct fixture {
    struct message *m;
    struct dsn_recipient r[2];
    struct dsn d;
    struct buf out;
};

static void begin(struct fixture *f, const char *sender)
{
    *f = (struct fixture){ .m = message_new() };
    assert_non_null(f->m);
    assert_int_equal(address_parse(&f->m->arena, str_of(sender), &f->m->sender), 0);
    f->m->received_ms = 1700000000000;
    f->r[0] = (struct dsn_recipient){
        .address = STR("u@example.com"),
        .action = DSN_FAILED,
        .status = ENH(5, 1, 1),
        .remote_host = STR("mx.example.com [192.0.2.1]"),
        .diagnostic = STR("550 5.1.1 no such user"),
        .last_attempt_ms = 1700000360000,
    };
    f->r[1] = (struct dsn_recipient){
        .address = STR("v@example.org"),
        .action = DSN_DELAYED,
        .status = ENH(4, 4, 1),
        .diagnostic = STR("connection to mx.example.org timed out"),
        .retry_until_ms = 1700432000000,
    };
    f->d = (struct dsn){
        .original = f->m,
        .original_head = STR(HEAD "\r\nThe body.\r\n"),
        .hostname = STR("mx.tern.example"),
        .wall_ms = 1700014400000,
        .recipients = f->r,
        .n_recipients = 1,
    };
    memset(f->d.id.b, 1, sizeof(f->d.id.b));
    buf_init(&f->out, 0);
}

static void end(struct fixture *f)
{
    buf_done(&f->out);
    message_unref(f->m);
}

/* What must hold of every notification. */
static void check_form(const struct buf *out)
{
    struct str rest = buf_str(out), line;
    bool ascii = str_is_ascii(rest);

    assert_true(str_ends(rest, STR("\r\n")));
    while (rest.n && str_cut(&rest, '\n', &line)) {
        assert_true(line.n > 0 && line.n < 1000);
        assert_int_equal(line.p[line.n - 1], '\r');
        for (size_t i = 0; i + 1 < line.n; i++)
            assert_true(line.p[i] == '\t' || (unsigned char)line.p[i] >= 0x20);
    }
    /* 8bit is declared if and only if it is used */
    struct str head = str_first(buf_str(out), (size_t)str_find(buf_str(out), STR("\r\n\r\n")));
    assert_int_equal(str_find(head, STR("Content-Transfer-Encoding: 8bit")) >= 0, !ascii);
}

static void write_ok(struct fixture *f)
{
    buf_clear(&f->out);
    assert_int_equal(dsn_write(&f->d, &f->out), 0);
    check_form(&f->out);
}

static void test_head(void **state)
{
    struct fixture f;
    struct headers h;
    struct arena a;
    char id[64], text[MSGID_TEXT];

    (void)state;
    begin(&f, "a@sender.example");
    write_ok(&f);
    arena_init(&a, 0);
    assert_int_equal(headers_parse(&a, buf_str(&f.out), &h), 0);
    assert_str(headers_get(&h, STR("From"), 0)->value,
               "Mail Delivery System <MAILER-DAEMON@mx.tern.example>");
    assert_str(headers_get(&h, STR("To"), 0)->value, "<a@sender.example>");
    assert_str(headers_get(&h, STR("Subject"), 0)->value, "Undelivered Mail Returned to Sender");
    assert_str(headers_get(&h, STR("Auto-Submitted"), 0)->value, "auto-replied");
    assert_str(headers_get(&h, STR("MIME-Version"), 0)->value, "1.0");
    assert_str(headers_get(&h, STR("Date"), 0)->value, "Wed, 15 Nov 2023 02:13:20 +0000");
    snprintf(id, sizeof(id), "<%s@mx.tern.example>", msgid_text(&f.d.id, text));
    assert_str(headers_get(&h, STR("Message-ID"), 0)->value, id);
    assert_true(str_starts(headers_get(&h, STR("Content-Type"), 0)->value,
                           STR("multipart/report; report-type=delivery-status;")));
    arena_done(&a);
    end(&f);
}

static void test_report(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, "a@sender.example");
    f.m->envid = STR("QQ314159");
    f.r[0].orcpt = STR("rfc822;list@example.com");
    f.d.n_recipients = 2;
    write_ok(&f);
    assert_has(f.out, "\r\n\r\nReporting-MTA: dns; mx.tern.example\r\n"
                      "Original-Envelope-Id: QQ314159\r\n"
                      "Arrival-Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
                      "\r\n"
                      "Original-Recipient: rfc822; list@example.com\r\n"
                      "Final-Recipient: rfc822; u@example.com\r\n"
                      "Action: failed\r\n"
                      "Status: 5.1.1\r\n"
                      "Remote-MTA: dns; mx.example.com\r\n"
                      "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n"
                      "Last-Attempt-Date: Tue, 14 Nov 2023 22:19:20 +0000\r\n"
                      "\r\n"
                      "Final-Recipient: rfc822; v@example.org\r\n"
                      "Action: delayed\r\n"
                      "Status: 4.4.1\r\n"
                      "Diagnostic-Code: x-tern; connection to mx.example.org timed out\r\n"
                      "Will-Retry-Until: Sun, 19 Nov 2023 22:13:20 +0000\r\n"
                      "\r\n--");
    end(&f);
}

/* RFC 2852 and RFC 4865 add a field each. */
static void test_times(void **state)
{
    struct fixture f;

    begin(&f, "a@sender.example");
    f.m->times = (struct message_times){
        .by = SMTP_BY_NOTIFY, .by_ms = 1700000600000, .hold_ms = 1700000400000, .hold_s = 400
    };
    write_ok(&f);
    assert_has(f.out, "\r\nDeliver-By-Date: Tue, 14 Nov 2023 22:23:20 +0000\r\n"
                      "Future-Release-Request: for;400\r\n\r\n");
    buf_clear(&f.out);
    f.m->times = (struct message_times){ .hold_ms = 1700000400000 };
    write_ok(&f);
    assert_has(f.out, "\r\nFuture-Release-Request: until;2023-11-14T22:20:00Z\r\n\r\n");
    assert_lacks(f.out, "Deliver-By-Date");
    end(&f);
}

static void test_text(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, "a@sender.example");
    f.d.n_recipients = 2;
    write_ok(&f);
    assert_has(f.out, "This is the mail system at mx.tern.example.\r\n");
    assert_has(f.out, "    A plain question\r\n");
    assert_has(f.out, "could not be delivered to:\r\n\r\n<u@example.com>\r\n"
                      "    There is no such mailbox.");
    assert_has(f.out, "    mx.example.com [192.0.2.1] answered:\r\n"
                      "        550 5.1.1 no such user\r\n");
    assert_has(f.out, "has not been delivered yet to:\r\n\r\n<v@example.org>\r\n");
    assert_has(f.out, "Delivery will be tried until Sun, 19 Nov 2023 22:13:20 +0000.\r\n");
    f.d.recipients = &f.r[1];
    f.d.n_recipients = 1;
    write_ok(&f);
    assert_has(f.out, "Subject: Delayed Mail\r\n");
    assert_lacks(f.out, "could not be delivered to:");
    f.r[1].action = DSN_RELAYED;
    f.r[1].status = ENH_NONE;
    write_ok(&f);
    assert_has(f.out, "Subject: Successful Mail Delivery Report\r\n");
    assert_has(f.out, "Action: relayed\r\nStatus: 2.0.0\r\n");
    end(&f);
}

static void test_returned(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, "a@sender.example");
    write_ok(&f);
    assert_has(f.out, "Content-Type: text/rfc822-headers\r\n"
                      "Content-Description: Undelivered message headers\r\n\r\n" HEAD "\r\n--");
    assert_lacks(f.out, "The body.");
    f.d.full = true;
    write_ok(&f);
    assert_has(f.out,
               "Content-Type: message/rfc822\r\n"
               "Content-Description: Undelivered message\r\n\r\n" HEAD "\r\nThe body.\r\n\r\n--");
    f.d.original_head = STR("\r\nThe body.\r\n");
    f.d.full = false;
    write_ok(&f);
    assert_lacks(f.out, "The body.");
    f.d.original_head = STR("");
    write_ok(&f);
    end(&f);
}

static void test_returned_is_cut(void **state)
{
    struct fixture f;
    size_t n = 24 * (size_t)8192;
    char *big = malloc(n);

    (void)state;
    assert_non_null(big);
    for (size_t i = 0; i + 8 <= n; i += 8)
        memcpy(big + i, "abc: d\r\n", 8);
    begin(&f, "a@sender.example");
    f.d.original_head = str_make(big, n);
    for (int full = 0; full < 2; full++) {
        f.d.full = full;
        write_ok(&f);
        assert_true(buf_len(&f.out) < DSN_MAX_RETURNED + 4096);
        assert_true(buf_len(&f.out) > DSN_MAX_RETURNED);
        assert_has(f.out, "abc: d\r\n\r\n--");
    }
    end(&f);
    free(big);
}

static void test_eight_bit(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, "a@sender.example");
    f.d.original_head = STR("Subject: gr\xfc\xdf\r\n\r\nbody\r\n");
    f.r[0].diagnostic = STR("550 gr\xc3\xbc\xc3\x9f");
    write_ok(&f);
    assert_has(f.out, "Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: 8bit\r\n");
    assert_has(f.out, "charset=us-ascii");
    assert_has(f.out, "smtp; 550 gr????\r\n");
    end(&f);
}

static void test_smtputf8(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, "\xc3\xa4@b\xc3\xbc"
              "cher.example");
    f.m->flags = MESSAGE_SMTPUTF8;
    f.r[0].address = STR("j\xc3\xb6+rg@example.com");
    f.d.original_head = STR("Subject: gr\xc3\xbc\xc3\x9f\r\n\r\n");
    write_ok(&f);
    assert_has(f.out, "To: <\xc3\xa4@b\xc3\xbc"
                      "cher.example>\r\n");
    assert_has(f.out, "charset=utf-8");
    assert_has(f.out, "<j\xc3\xb6+rg@example.com>\r\n");
    assert_has(f.out, "Final-Recipient: utf-8; j\\x{F6}\\x{2B}rg@example.com\r\n");
    assert_has(f.out,
               "Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n");
    f.d.full = true;
    write_ok(&f);
    assert_has(f.out, "Content-Type: message/global\r\nContent-Transfer-Encoding: 8bit\r\n");
    end(&f);
}

/* Everything that a stranger chooses, with line ends and control bytes in it. */
static void test_nothing_is_smuggled(void **state)
{
    const struct str evil = STR("x\r\nBcc: evil@example.net\r\n\r\n--\0 \x1b[2J\x7f\xff");
    struct fixture f;

    (void)state;
    begin(&f, "a@sender.example");
    f.m->sender.text = evil;
    f.m->envid = evil;
    f.r[0].address = evil;
    f.r[0].orcpt = STR("rfc822\r\nBcc: evil@example.net;a\r\nBcc: evil@example.net");
    f.r[0].remote_host = evil;
    f.r[0].diagnostic = evil;
    f.d.original_head = STR("Subject: a\x01\x02\x1b[2J\r\n\r\n");
    for (int utf8 = 0; utf8 < 2; utf8++) {
        f.m->flags = utf8 ? MESSAGE_SMTPUTF8 : 0;
        buf_clear(&f.out);
        assert_int_equal(dsn_write(&f.d, &f.out), 0);
        assert_lacks(f.out, "\nBcc:");
        assert_lacks(f.out, "\n\r\n--\r\n");
        assert_lacks(f.out, "?\r\n\r\n--?");
    }
    end(&f);
}

static void test_long_diagnostic(void **state)
{
    static char text[20000];
    struct fixture f;

    (void)state;
    memset(text, 'x', sizeof(text));
    memcpy(text, "550 ", 4);
    begin(&f, "a@sender.example");
    f.r[0].diagnostic = str_make(text, sizeof(text));
    f.r[0].remote_host = str_make(text, sizeof(text));
    write_ok(&f);
    for (size_t i = 4; i < sizeof(text); i += 11)
        text[i] = ' ';
    write_ok(&f);
    for (size_t i = 4; i < sizeof(text); i += 110)
        text[i] = '\n';
    write_ok(&f);
    memset(text + 3, '\n', sizeof(text) - 3);
    write_ok(&f);
    memset(text, ' ', sizeof(text));
    write_ok(&f);
    f.r[0].diagnostic = STR("550-5.1.1 one\n550 5.1.1 two");
    write_ok(&f);
    assert_has(f.out, "Diagnostic-Code: smtp; 550-5.1.1 one\r\n 550 5.1.1 two\r\n");
    end(&f);
}

/* A word that is longer than a line begins none anew where one has just begun: an empty line would end the fields. */
static void test_long_word_on_a_further_line(void **state)
{
    static char word[100];
    struct fixture f;

    (void)state;
    memset(word, 'y', sizeof(word) - 1);
    begin(&f, "a@sender.example");
    f.r[0].diagnostic = arena_printf(&f.m->arena, "550-no\n%s\n%s", word, word);
    write_ok(&f);
    struct str want = arena_printf(&f.m->arena, "smtp; 550-no\r\n %s\r\n %s\r\nLast-", word, word);
    assert_true(str_find(buf_str(&f.out), want) >= 0);
    end(&f);
}

/* Escaped it fits in no line. */
static void test_long_utf8_orcpt(void **state)
{
    char orcpt[501] = "utf-8;";
    struct fixture f;

    (void)state;
    begin(&f, "a@sender.example");
    f.m->flags = MESSAGE_SMTPUTF8;
    for (size_t i = 6; i + 1 < sizeof(orcpt) - 1; i += 2)
        memcpy(orcpt + i, "\xc3\xbc", 2);
    orcpt[200] = '\0';
    f.r[0].orcpt = str_of(orcpt);
    write_ok(&f);
    assert_has(f.out, "\r\nOriginal-Recipient: utf-8; \\x{FC}\\x{FC}");
    orcpt[200] = '\xc3';
    f.r[0].orcpt = str_first(str_of(orcpt), 500);
    write_ok(&f);
    assert_lacks(f.out, "Original-Recipient");
    assert_has(f.out, "\r\n\r\nFinal-Recipient: ");
    end(&f);
}

static void test_refuses(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, "");
    assert_int_equal(dsn_write(&f.d, &f.out), -EINVAL);
    end(&f);
    begin(&f, "a@sender.example");
    f.d.n_recipients = 0;
    assert_int_equal(dsn_write(&f.d, &f.out), -EINVAL);
    f.d.n_recipients = 1;
    f.out.max = 1000;
    assert_int_equal(dsn_write(&f.d, &f.out), -EMSGSIZE);
    end(&f);
}

/* Where there is a Python, its parser must find what we have written. */
static void test_other_parser(void **state)
{
    struct fixture f;
    char path[] = "/tmp/tern-dsn-XXXXXX", command[512];

    (void)state;
    if (system("python3 -c 'import email' 2>/dev/null") != 0)
        skip();
    begin(&f, "a@sender.example");
    f.d.n_recipients = 2;
    f.d.full = true;
    write_ok(&f);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, f.out.data + f.out.start, buf_len(&f.out)), buf_len(&f.out));
    close(fd);
    snprintf(command, sizeof(command), "python3 '%s/unit/mail/test_dsn.py' '%s'", TERN_TEST_DIR,
             path);
    int status = system(command);
    unlink(path);
    assert_int_equal(status, 0);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_returned),
        cmocka_unit_test(test_returned_is_cut),
        cmocka_unit_test(test_eight_bit),
        cmocka_unit_test(test_smtputf8),
        cmocka_unit_test(test_nothing_is_smuggled),
        cmocka_unit_test(test_long_diagnostic),
        cmocka_unit_test(test_long_word_on_a_further_line),
        cmocka_unit_test(test_long_utf8_orcpt),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_other_parser),
    };

    return cmocka_run_group_tests_name("dsn", tests, NULL, NULL);
}
