/* The SMTP client when memory runs out: each allocation of a session's buffers fails in turn, alone
 * or with all after it. Nothing may leak or be read from where it is not, half a message never gets
 * its dot, and the caller is told.
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

#include "proto/smtp_client.h"

enum { LINES = 200 };

static const struct str hello = STR("220 mx.example hi\r\n250-mx.example\r\n250 PIPELINING\r\n");
static const struct str slow = STR("220 mx.example hi\r\n500 no\r\n250 mx.example\r\n");
static const struct str line = STR(".line of the message, which is not short at all\r\n");

struct session {
    struct smtp_client *client;
    struct buf sent;
    enum smtp_client_event_type last;
    int error; /* told by begin, body or FAILED */
    bool over, body_given;
    unsigned done;
};

static void drain(struct session *s)
{
    struct smtp_client_event ev;

    while (smtp_client_next(s->client, &ev) == 1) {
        s->last = ev.type;
        s->done += ev.type == SMTP_CLIENT_RESULT;
        s->over |= ev.type == SMTP_CLIENT_FAILED || ev.type == SMTP_CLIENT_CLOSE;
        if (ev.type == SMTP_CLIENT_FAILED)
            s->error = ev.error;
    }
    struct str out = smtp_client_output(s->client);
    /* Our own copy must not fail: it is not what is tested. */
    unsigned long saved = fail_at;
    fail_at = 0;
    assert_int_equal(buf_add_str(&s->sent, out), 0);
    fail_at = saved;
    smtp_client_sent(s->client, out.n);
}

static void feed(struct session *s, struct str bytes)
{
    smtp_client_feed(s->client, bytes.p, bytes.n);
    drain(s);
}

static void begin(struct session *s)
{
    const struct str to[] = { STR("b@y.example"), STR("c@y.example") };
    const struct smtp_client_mail mail = { .sender = STR("a@x.example"),
                                           .recipients = to,
                                           .n_recipients = 2 };

    if (s->last != SMTP_CLIENT_READY)
        return;
    int r = smtp_client_begin(s->client, &mail);
    if (r == 0)
        return;
    assert_int_equal(r, -ENOMEM);
    s->error = r;
    drain(s);
    assert_false(s->over); /* it was not begun, and can be tried again */
    if (!fail_on)
        assert_int_equal(smtp_client_begin(s->client, &mail), 0);
}

static void body(struct session *s)
{
    int r = 0;

    if (s->last != SMTP_CLIENT_NEED_BODY)
        return;
    for (size_t i = 0; i < LINES && r == 0; i++)
        r = smtp_client_body(s->client, line.p, line.n);
    if (r == 0) {
        r = smtp_client_body_end(s->client);
        s->body_given = r == 0;
    }
    if (r == 0)
        return;
    assert_int_equal(r, -ENOMEM);
    assert_int_equal(smtp_client_body_end(s->client), -EPIPE);
    drain(s);
    assert_true(s->over);
    assert_int_equal(s->error, -ENOMEM);
}

static bool run_session(struct str greeting, bool lmtp)
{
    const struct smtp_client_options opt = { .hostname = STR("me.example"), .lmtp = lmtp };
    struct session s = { .client = smtp_client_new(&opt) };

    assert_non_null(s.client);
    allocations = 0;
    feed(&s, greeting);
    begin(&s);
    drain(&s);
    for (int i = 0; i < 3; i++)
        feed(&s, STR("250 2.0.0 fine\r\n"));
    feed(&s, STR("354 go\r\n"));
    body(&s);
    drain(&s);
    if (s.body_given) {
        feed(&s, STR("250 2.0.0 queued\r\n"));
        if (lmtp)
            feed(&s, STR("250 2.0.0 queued\r\n"));
    }
    smtp_client_quit(s.client);
    drain(&s);
    feed(&s, STR("221 bye\r\n"));

    bool failed = fail_at && allocations >= fail_at;
    assert_true(failed || (s.over && s.error == 0 && s.done == (lmtp ? 2u : 1u)));
    assert_true(s.error == 0 || failed);
    if (str_find(buf_str(&s.sent), STR("\r\n.\r\n")) >= 0)
        assert_true(s.body_given);
    s.client = smtp_client_free(s.client);
    buf_done(&s.sent);
    return failed;
}

static void test_each_allocation_fails(void **state)
{
    (void)state;
    for (int kind = 0; kind < 8; kind++) {
        fail_on = kind & 1;
        fail_at = 0;
        assert_false(run_session(kind & 2 ? hello : slow, false));
        do {
            fail_at++;
        } while (run_session(kind & 2 ? hello : slow, kind & 2 && kind & 4));
        assert_true(fail_at > 5);
    }
    fail_at = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_allocation_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
