/* The SMTP server when memory runs out: each allocation of a session's buffers fails in turn, alone
 * or with all after it. Nothing may leak, a message is never told as whole when it is not, and the
 * caller learns that the session is dead.
 *
 * base/buf.c is compiled into this file, so that its realloc can be the one below.
 */
#include <stdbool.h>
#include <stdlib.h>

static unsigned long allocations, fail_at;
static bool fail_on;

static void *failing_realloc(void *p, size_t n)
{
    allocations++;
    if (fail_at && (allocations == fail_at || (fail_on && allocations > fail_at)))
        return NULL;
    return realloc(p, n);
}

#define realloc failing_realloc
#include "base/buf.c" // NOLINT(bugprone-suspicious-include)
#undef realloc

#include <setjmp.h>

#include <cmocka.h>

#include "server_transcript.h"

enum { LINES = 300, LINE = 52 };

static const struct str line = STR("..a line of the message, which is not short at all\r\n");

struct session {
    struct smtp_server *server;
    uint64_t body;
    unsigned ends;
    unsigned answers; /* to an END: LMTP has one for each recipient */
    int result;       /* of next */
};

static void pump(struct session *s)
{
    struct smtp_server_event e;

    while ((s->result = smtp_server_next(s->server, &e)) == 1) {
        if (e.type == SMTP_SERVER_BODY)
            s->body += e.body.n;
        if (e.type == SMTP_SERVER_END) {
            assert_int_equal(e.end.size, LINES * (line.n - 1));
            assert_int_equal(s->body, e.end.size);
            s->ends++;
        }
        if (e.ticket) {
            struct smtp_reply yes = server_transcript_yes(e.type);
            unsigned times = e.type == SMTP_SERVER_END ? s->answers : 1;
            for (unsigned i = 0; i < times; i++) {
                int r = smtp_server_answer(s->server, e.ticket, &yes);
                assert_true(r == 0 || r == -ENOMEM);
            }
        }
    }
    smtp_server_sent(s->server, smtp_server_output(s->server).n);
}

static void feed(struct session *s, struct str bytes)
{
    while (bytes.n > 0 && s->result == 0) {
        bytes = str_from(bytes, smtp_server_feed(s->server, bytes.p, bytes.n));
        pump(s);
    }
}

/* The result of the last next. */
static int run(bool lmtp, unsigned *ret_ends)
{
    static char text[LINES * LINE];
    const struct smtp_server_options opt = { .hostname = STR("mx.example"), .lmtp = lmtp };
    struct session s = { .server = smtp_server_new(&opt), .answers = lmtp ? 3 : 1 };

    assert_non_null(s.server);
    assert_int_equal(line.n, LINE);
    pump(&s);
    feed(&s, lmtp ? STR("LHLO c.example\r\n") : STR("EHLO c.example\r\n"));
    feed(&s, STR("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"));
    for (unsigned i = 1; i < s.answers; i++)
        feed(&s, STR("RCPT TO:<c@d.example>\r\n"));
    feed(&s, STR("HELP\r\nHELP\r\nDATA\r\n"));
    for (size_t i = 0; i < LINES; i++)
        memcpy(text + i * line.n, line.p, line.n);
    for (size_t at = 0; at < sizeof(text); at += 1000) /* the block is given back each time */
        feed(&s, str_first(str_from(str_make(text, sizeof(text)), at), 1000));
    feed(&s, STR(".\r\nQUIT\r\n"));
    *ret_ends = s.ends;
    smtp_server_free(s.server);
    return s.result;
}

static void each_allocation_fails(bool lmtp)
{
    unsigned ends;

    fail_at = allocations = 0;
    assert_int_equal(run(lmtp, &ends), -EPIPE);
    assert_int_equal(ends, 1);
    unsigned long all = allocations;
    assert_true(all > 4);
    for (int on = 0; on < 2; on++)
        for (unsigned long i = 1; i <= all; i++) {
            allocations = 0;
            fail_at = i;
            fail_on = on;
            int r = run(lmtp, &ends);
            assert_true(r == -ENOMEM || (r == -EPIPE && ends == 1));
        }
    fail_at = 0;
}

static void each_allocation_fails_in_smtp(void **state)
{
    each_allocation_fails(false);
}

static void each_allocation_fails_in_lmtp(void **state)
{
    each_allocation_fails(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(each_allocation_fails_in_smtp),
                                        cmocka_unit_test(each_allocation_fails_in_lmtp) };

    return cmocka_run_group_tests_name("smtp_server_memory", tests, NULL, NULL);
}
