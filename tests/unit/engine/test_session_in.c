/* test_session_in.c - sessions of clients: transactions, relaying, verdicts, hooks that wait, commits. */
#include "unit/engine/session_in_world.h"

/* ---- one message ---- */

static void test_message(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    assert_string_equal(say(w, TO_OWN "DATA\r\n"), OK_MAIL OK_RCPT GO_AHEAD);
    const char *end = say(w, "Subject: x\r\n\r\n..dot\r\n.\r\n");
    assert_memory_equal(end, "250 2.0.0 ", 10);
    assert_string_equal(end + 10 + 26, " queued\r\n");

    char id[MSGID_TEXT];
    msgid_text(&w->stored[0].id, id);
    assert_memory_equal(end + 10, id, 26);
    struct str content = content_of(w, 0);
    assert_true(str_starts(content, STR("Received: from client.example ([203.0.113.9])\r\n\tby "
                                        "mx.own.example with ESMTP\r\n\tid ")));
    assert_true(str_ends(content, STR(" +0000\r\nSubject: x\r\n\r\n.dot\r\n")));
    assert_true(str_find(content, STR("for <u@own.example>;")) > 0);
    assert_int_equal(w->arrived, 1);
    assert_int_equal(w->n_recipients, 1);
    assert_string_equal(w->recipients[0].queue, "own.example");
    assert_int_equal(w->recipients[0].class_, SPOOL_SCHEDULED);
    assert_int_equal(w->recipients[0].r.policy, 7);
    assert_int_equal(w->shared.counters.messages_accepted, 1);
    assert_int_equal(w->shared.counters.octets_accepted, content.n);
    assert_logged(w, "message_accepted id=");
    assert_logged(w, "client=203.0.113.9 helo=client.example sender=a@b.example size=");
    assert_string_equal(say(w, "QUIT\r\n"), "221 2.0.0 Bye\r\n");
    assert_true(w->stream.closed);
    assert_logged(w, "session_closed session=1 client=203.0.113.9 why=quit messages=1");
    assert_int_equal(w->sessions_closed, 1);
    assert_int_equal(w->messages_closed, 1);
}

static void test_envelope_is_kept(void **state)
{
    struct world *w = *state;
    struct message *m;

    greeted(w, STRANGER);
    say(w, "MAIL FROM:<A@B.Example> BODY=8BITMIME\r\nRCPT TO:<U@OWN.example>\r\nRCPT "
           "TO:<v@own.example>\r\nDATA\r\n");
    say(w, "\r\nx\r\n.\r\n");
    assert_int_equal(message_decode(&w->stored[0].id, buf_str(&w->stored[0].envelope), &m), 0);
    assert_true(str_eq(m->sender.text, STR("A@B.Example")));
    assert_true(str_eq(m->sender.domain, STR("b.example")));
    assert_true(str_eq(m->helo, STR("client.example")));
    assert_true(str_eq(m->service, STR("smtp")));
    assert_int_equal(m->flags, MESSAGE_8BIT);
    assert_int_equal(m->n_recipients, 2);
    assert_int_equal(m->size, content_of(w, 0).n);
    assert_int_equal(m->n_chunks, 1);
    message_unref(m);
    assert_true(str_eq(w->recipients[0].r.address.text, STR("U@OWN.example")));
    assert_true(str_eq(w->recipients[0].r.address.domain, STR("own.example")));
    /* Of two recipients none learns of the other. */
    assert_true(str_find(content_of(w, 0), STR("for <")) < 0);
    assert_string_equal(say(w, "RSET\r\nQUIT\r\n"), "250 2.0.0 OK\r\n221 2.0.0 Bye\r\n");
}

static void test_pipelining_is_one_write(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    buf_add_str(&w->stream.in, STR(TO_OWN "RCPT TO:<x@other.example>\r\nDATA\r\n"));
    settle(w);
    assert_int_equal(w->stream.writes, 1);
    assert_string_equal(said(w), OK_MAIL OK_RCPT DENIED GO_AHEAD);
    say(w, ".\r\n");
    assert_int_equal(w->n_recipients, 1);
}

static void test_several_messages(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    for (int i = 0; i < 5; i++) {
        assert_string_equal(say(w, TO_OWN "DATA\r\n"), OK_MAIL OK_RCPT GO_AHEAD);
        assert_memory_equal(say(w, "x: y\r\n\r\nz\r\n.\r\n"), "250 ", 4);
    }
    assert_int_equal(w->n_stored, 5);
    /* One timer, which is left alone while deadlines move. */
    assert_true(w->timer_sets <= 2);
}

/* ---- relaying (HOSTILE_INPUT §7) ---- */

static void test_relay_is_denied(void **state)
{
    struct world *w = *state;
    static const char *const foreign[] = {
        "u@third.example",     "\"u@own.example\"@third.example",
        "u@[127.0.0.1]",       "u@[192.0.2.25]",
        "u@own.example.third", "own.example!u@third.example",
        "u%own.example@third", "u@[IPv6:2001:db8::1]",
    };
    static const char *const senders[] = { "", "a@localhost", "a@own.example", "a@b.example" };
    char line[512];

    w->settings->limits.errors = 0;
    greeted(w, STRANGER);
    for (size_t s = 0; s < ARRAY_LEN(senders); s++) {
        snprintf(line, sizeof(line), "RSET\r\nMAIL FROM:<%s>\r\n", senders[s]);
        assert_string_equal(say(w, line), "250 2.0.0 OK\r\n" OK_MAIL);
        for (size_t i = 0; i < ARRAY_LEN(foreign); i++) {
            snprintf(line, sizeof(line), "RCPT TO:<%s>\r\n", foreign[i]);
            assert_string_equal(say(w, line), DENIED);
        }
    }
    assert_logged(w, "recipient_rejected session=1 client=203.0.113.9 sender=a@own.example "
                     "recipient=u@third.example code=550 reply=relay access denied policy=default");
    assert_int_equal(w->shared.counters.recipients_rejected,
                     ARRAY_LEN(senders) * ARRAY_LEN(foreign));
    assert_int_equal(w->n_stored, 0);
}

/* Whatever stands before the '@' is a local part of our own domain. */
static void test_percent_and_bang_are_local(void **state)
{
    struct world *w = *state;
    static const char *const own[] = { "u%third.example@own.example", "third!u@own.example",
                                       "\"u@third.example\"@own.example", "u@OWN.EXAMPLE" };
    char line[512];

    greeted(w, STRANGER);
    say(w, "MAIL FROM:<>\r\n");
    for (size_t i = 0; i < ARRAY_LEN(own); i++) {
        snprintf(line, sizeof(line), "RCPT TO:<%s>\r\n", own[i]);
        assert_string_equal(say(w, line), OK_RCPT);
    }
    say(w, "DATA\r\n");
    say(w, ".\r\n");
    assert_int_equal(w->n_recipients, ARRAY_LEN(own));
    for (size_t i = 0; i < ARRAY_LEN(own); i++) {
        assert_string_equal(w->recipients[i].queue, "own.example");
        assert_true(str_eq(w->recipients[i].r.route->domain, STR("own.example")));
    }
    /* They share one route object, too: see test_intake. */
}

static void test_bad_addresses(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    assert_memory_equal(say(w, "MAIL FROM:<a@2130706433>\r\n"), "5", 1);
    assert_string_equal(say(w, "MAIL FROM:<a@xn--99999999.example>\r\n"),
                        "553 5.1.7 bad domain in the sender address\r\n");
    assert_string_equal(say(w, "MAIL FROM:<a@b.example>\r\n"), OK_MAIL);
    assert_string_equal(say(w, "RCPT TO:<a@xn--99999999.example>\r\n"),
                        "501 5.1.3 bad domain in the recipient address\r\n");
    assert_memory_equal(say(w, "RCPT TO:<u@2130706433>\r\n"), "5", 1);
    assert_int_equal(w->asked[HOOK_RCPT], 0);
}

static void test_may_relay(void **state)
{
    struct world *w = *state;

    relay_all(w);
    greeted(w, "10.0.0.1");
    assert_string_equal(say(w, "MAIL FROM:<a@b.example>\r\nRCPT TO:<x@third.example>\r\n"
                               "RCPT TO:<x@[192.0.2.7]>\r\nRCPT TO:<x@[IPv6:2001:db8::7]>\r\n"),
                        OK_MAIL OK_RCPT OK_RCPT OK_RCPT);
    say(w, "DATA\r\n");
    say(w, ".\r\n");
    assert_string_equal(w->recipients[0].queue, "third.example");
    assert_int_equal(w->recipients[1].r.route->kind, ROUTE_HOSTS);
    assert_string_equal(w->recipients[1].queue, "[192.0.2.7]");
    assert_int_equal(w->recipients[2].r.route->kind, ROUTE_HOSTS);
    assert_string_equal(w->recipients[2].queue, "[2001:db8::7]");
}

static void test_postmaster(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    say(w, "MAIL FROM:<a@b.example>\r\n");
    assert_string_equal(say(w, "RCPT TO:<postmaster>\r\n"), DENIED);
    w->settings->hostname = STR("own.example");
    assert_string_equal(say(w, "RCPT TO:<Postmaster>\r\n"), OK_RCPT);
    say(w, "DATA\r\n");
    say(w, ".\r\n");
    assert_true(str_eq(w->recipients[0].r.address.text, STR("Postmaster@own.example")));
    w->settings->hostname = STR("mx.own.example");
}

/* ---- verdicts ---- */

static struct hook_result verdict; /* what `say_verdict` answers */

static void say_verdict(struct world *w, const struct hook_input *in, struct hook_result *r)
{
    (void)w;
    (void)in;
    r->verdict = verdict.verdict;
    r->reply = verdict.reply;
    r->decided_by = STR("policies/x.lua:1");
}

static void set_verdict(enum verdict v, struct smtp_reply reply)
{
    verdict.verdict = v;
    verdict.reply = reply;
}

static const struct smtp_reply none;

static void test_connect_verdicts(void **state)
{
    struct world *w = *state;

    have_hook(w, HOOK_CONNECT, say_verdict);
    set_verdict(VERDICT_REJECT, REPLY(550, ENH(5, 7, 1), "not you"));
    connect_from(w, STRANGER);
    assert_string_equal(said(w), "554 5.7.1 not you\r\n");
    assert_false(w->stream.closed); /* RFC 5321 section 3.1: QUIT is waited for, but not for long */
    assert_string_equal(say(w, "EHLO c\r\n"), "503 5.5.1 You are not served here: QUIT\r\n");
    pass(w, 9 * 1000);
    assert_string_equal(say(w, "QUIT\r\n"), "221 2.0.0 Bye\r\n");
    assert_true(w->stream.closed);
    connect_from(w, STRANGER);
    said(w);
    pass(w, 10 * 1000);
    assert_string_equal(said(w), "421 4.4.2 timeout, closing connection\r\n");
    assert_true(w->stream.closed);
    assert_logged(w, "session_rejected session=1 client=203.0.113.9 step=connect helo= code=554");
    set_verdict(VERDICT_DEFER, REPLY(451, ENH(4, 7, 1), "later"));
    connect_from(w, STRANGER);
    assert_string_equal(said(w), "421 4.7.1 later\r\n");
    assert_true(w->stream.closed);
    set_verdict(VERDICT_FAILED, REPLY(451, ENH(4, 3, 0), "broken"));
    connect_from(w, STRANGER);
    assert_string_equal(said(w), "421 4.3.0 broken\r\n");
    assert_int_equal(w->shared.counters.hooks_failed, 1);
    set_verdict(VERDICT_ACCEPT, none);
    connect_from(w, STRANGER);
    assert_string_equal(said(w), "220 mx.own.example ESMTP Tern\r\n");
}

static void test_later_verdicts(void **state)
{
    struct world *w = *state;

    have_hook(w, HOOK_HELO, say_verdict);
    have_hook(w, HOOK_MAIL, say_verdict);
    set_verdict(VERDICT_REJECT, none);
    connect_from(w, STRANGER);
    said(w);
    assert_string_equal(say(w, HELLO), "550 5.7.1 refused by policy\r\n");
    set_verdict(VERDICT_NONE, none);
    say(w, HELLO);
    set_verdict(VERDICT_DEFER, REPLY(450, ENH(4, 7, 1), "grey"));
    assert_string_equal(say(w, "MAIL FROM:<a@b.example>\r\n"), "450 4.7.1 grey\r\n");
    assert_logged(w, "message_rejected session=1 client=203.0.113.9 sender=a@b.example "
                     "recipients=0 code=450 reply=grey");
    assert_int_equal(w->e.intakes, 0);
    set_verdict(VERDICT_NONE, none);
    say(w, "MAIL FROM:<a@b.example>\r\n");
    w->on[HOOK_RCPT] = say_verdict;
    set_verdict(VERDICT_FAILED, REPLY(451, ENH(4, 3, 0), "script"));
    assert_string_equal(say(w, "RCPT TO:<u@own.example>\r\n"), "451 4.3.0 script\r\n");
    set_verdict(VERDICT_ACCEPT, none);
    assert_string_equal(say(w, "RCPT TO:<u@third.example>\r\n"), OK_RCPT);
    set_verdict(VERDICT_DEFER, none);
    assert_string_equal(say(w, "RCPT TO:<u@third.example>\r\n"), "451 4.7.1 try again later\r\n");
    assert_logged(w, "code=451 reply=try again later policy=policies/x.lua:1");
    /* A code that says nothing here does not reach the client. */
    set_verdict(VERDICT_REJECT, REPLY(700, ENH_NONE, "x"));
    assert_string_equal(say(w, "RCPT TO:<u@third.example>\r\n"),
                        "451 4.3.0 local error in processing\r\n");
}

static void test_discarded_recipient(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    say(w, "MAIL FROM:<a@b.example>\r\n");
    w->on[HOOK_RCPT] = say_verdict;
    set_verdict(VERDICT_DISCARD, none);
    assert_string_equal(say(w, "RCPT TO:<trap@third.example>\r\n"), OK_RCPT);
    assert_logged(w, "recipient=trap@third.example policy=policies/x.lua:1");
    assert_string_equal(say(w, "DATA\r\n"), GO_AHEAD);
    const char *end = say(w, "x: y\r\n\r\nbody\r\n.\r\n");
    assert_memory_equal(end, "250 2.0.0 ", 10);
    assert_int_equal(w->units, 0);
    assert_int_equal(w->shared.counters.discarded, 1);
    /* Another one stays. */
    say(w, "MAIL FROM:<a@b.example>\r\nRCPT TO:<trap@own.example>\r\n");
    w->on[HOOK_RCPT] = known_domains;
    say(w, "RCPT TO:<u@own.example>\r\nDATA\r\n");
    assert_memory_equal(say(w, ".\r\n"), "250 2.0.0 ", 10);
    assert_int_equal(w->n_recipients, 1);
    assert_true(str_eq(w->recipients[0].r.address.text, STR("u@own.example")));
}

static void test_discarded_session(void **state)
{
    struct world *w = *state;

    have_hook(w, HOOK_CONNECT, say_verdict);
    set_verdict(VERDICT_DISCARD, none);
    greeted(w, STRANGER);
    say(w, TO_OWN "DATA\r\n");
    assert_memory_equal(say(w, ".\r\n"), "250 2.0.0 ", 10);
    assert_int_equal(w->n_stored, 0);
    assert_int_equal(w->shared.counters.discarded, 1);
}

/* ---- hooks that wait ---- */

static void test_hooks_that_wait(void **state)
{
    struct world *w = *state;
    static const enum hook hooks[] = { HOOK_CONNECT, HOOK_HELO, HOOK_MAIL,
                                       HOOK_RCPT,    HOOK_DATA, HOOK_ROUTE };

    for (size_t i = 0; i < ARRAY_LEN(hooks); i++) {
        have_hook(w, hooks[i], hooks[i] == HOOK_RCPT ? known_domains : NULL);
        w->wait[hooks[i]] = true;
    }
    connect_from(w, STRANGER);
    assert_string_equal(said(w), "");
    answer_hook(w);
    assert_non_null(strstr(said(w), "220 "));
    assert_string_equal(say(w, HELLO), "");
    answer_hook(w);
    said(w);
    /* What is pipelined behind waits, in order. */
    assert_string_equal(say(w, TO_OWN "RCPT TO:<x@third.example>\r\nDATA\r\n"), "");
    answer_hook(w);
    assert_string_equal(said(w), OK_MAIL);
    answer_hook(w);
    assert_string_equal(said(w), OK_RCPT);
    answer_hook(w);
    assert_string_equal(said(w), DENIED GO_AHEAD);
    assert_string_equal(say(w, "x: y\r\n\r\n.\r\nNOOP\r\n"), "");
    assert_int_equal(w->waiting.hook, HOOK_DATA);
    answer_hook(w);
    assert_int_equal(w->waiting.hook, HOOK_ROUTE);
    assert_string_equal(said(w), "");
    answer_hook(w);
    assert_non_null(strstr(said(w), " queued\r\n250 2.0.0 OK\r\n"));
    assert_int_equal(w->n_stored, 1);
    assert_int_equal(w->cancels, 0);
}

static void test_input_stays_in_the_stream(void **state)
{
    struct world *w = *state;

    have_hook(w, HOOK_MAIL, NULL);
    w->wait[HOOK_MAIL] = true;
    greeted(w, STRANGER);
    assert_string_equal(say(w, "MAIL FROM:<a@b.example>\r\n"), "");
    assert_string_equal(say(w, "NOOP\r\n"), "");
    assert_int_equal(buf_len(&w->stream.in), 6);
    assert_true(w->stream.left);
    answer_hook(w);
    assert_string_equal(said(w), OK_MAIL "250 2.0.0 OK\r\n");
    assert_false(w->stream.left);
    assert_string_equal(say(w, "NOOP\r\n"), "250 2.0.0 OK\r\n");
}

static void test_dies_while_a_hook_waits(void **state)
{
    struct world *w = *state;
    static const enum hook hooks[] = { HOOK_CONNECT, HOOK_HELO, HOOK_MAIL,
                                       HOOK_RCPT,    HOOK_DATA, HOOK_ROUTE };

    for (size_t i = 0; i < ARRAY_LEN(hooks); i++) {
        have_hook(w, hooks[i], hooks[i] == HOOK_RCPT ? known_domains : NULL);
        w->wait[hooks[i]] = true;
        connect_from(w, STRANGER);
        if (!w->waiting.done)
            say(w, HELLO TO_OWN "DATA\r\n");
        if (!w->waiting.done)
            say(w, ".\r\n");
        assert_int_equal(w->waiting.hook, hooks[i]);
        hang_up(w);
        assert_int_equal(w->cancels, i + 1);
        assert_int_equal(sessions_in_count(w->e.sessions), 0);
        assert_int_equal(w->e.intakes, 0);
        w->wait[hooks[i]] = false;
    }
    assert_int_equal(w->units, 0);
}

/* ---- commits ---- */

static void test_spool_failures(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    say(w, TO_OWN "DATA\r\n");
    w->put_result = -ENOSPC;
    assert_string_equal(say(w, ".\r\n"), "452 4.3.1 insufficient storage, try again later\r\n");
    assert_logged(w, "recipients=1 code=452");
    say(w, TO_OWN "DATA\r\n");
    w->put_result = -EIO;
    assert_string_equal(say(w, ".\r\n"), "451 4.3.0 local error in processing\r\n");
    assert_int_equal(w->arrived, 0);
    assert_int_equal(w->shared.counters.messages_rejected, 2);
    say(w, TO_OWN "DATA\r\n");
    w->put_result = 0;
    assert_memory_equal(say(w, ".\r\n"), "250 ", 4);
}

static void test_no_answer_before_the_commit(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    say(w, TO_OWN "DATA\r\n");
    w->spool_stuck = true;
    assert_string_equal(say(w, ".\r\nNOOP\r\n"), "");
    pass(w, 19 * 60 * 1000); /* that is not the client's fault */
    assert_string_equal(said(w), "");
    assert_int_equal(sessions_in_count(w->e.sessions), 1);
    w->spool_stuck = false;
    settle(w);
    assert_non_null(strstr(said(w), " queued\r\n250 2.0.0 OK\r\n"));
}

/* Nobody waits for twenty minutes; the message goes its way. */
static void test_no_commit_at_all(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    say(w, TO_OWN "DATA\r\n");
    w->spool_stuck = true;
    say(w, ".\r\n");
    pass(w, 21 * 60 * 1000);
    assert_true(w->stream.aborted);
    assert_int_equal(sessions_in_count(w->e.sessions), 0);
    w->spool_stuck = false;
    settle(w);
    assert_int_equal(w->arrived, 1);
}

/* That the client ends its side is not heard before it has its reply. */
static void test_held_until_the_commit(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    say(w, TO_OWN "DATA\r\n");
    say(w, "Subject: x\r\n");
    assert_false(w->stream.left);
    w->spool_stuck = true;
    say(w, ".\r\n");
    assert_true(w->stream.left);
    w->spool_stuck = false;
    settle(w);
    assert_non_null(strstr(said(w), " queued\r\n"));
    assert_false(w->stream.left);
}

static void test_dies_while_the_commit_is_under_way(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    say(w, TO_OWN "DATA\r\n");
    w->spool_stuck = true;
    say(w, ".\r\n");
    hang_up(w);
    assert_int_equal(sessions_in_count(w->e.sessions), 0);
    assert_int_equal(w->e.intakes, 1);
    w->spool_stuck = false;
    settle(w);
    /* It is on disk, so it is delivered. */
    assert_int_equal(w->arrived, 1);
    assert_int_equal(w->e.intakes, 0);
    assert_logged(w, "message_accepted");
}

static void test_engine_dies_while_the_commit_is_under_way(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    say(w, TO_OWN "DATA\r\n");
    w->spool_stuck = true;
    say(w, ".\r\n");
    w->e.sessions = sessions_in_free(w->e.sessions);
    assert_true(w->stream.aborted);
    assert_int_equal(w->e.intakes, 0);
    w->spool_stuck = false;
    settle(w);
    assert_int_equal(w->n_stored, 1);
    assert_int_equal(w->arrived, 0);
}

static void test_dies_in_data(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    say(w, TO_OWN "DATA\r\n");
    say(w, "half a mess");
    hang_up(w);
    assert_int_equal(w->units, 0);
    assert_int_equal(w->e.intakes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_message),
        T(test_envelope_is_kept),
        T(test_pipelining_is_one_write),
        T(test_several_messages),
        T(test_relay_is_denied),
        T(test_percent_and_bang_are_local),
        T(test_bad_addresses),
        T(test_may_relay),
        T(test_postmaster),
        T(test_connect_verdicts),
        T(test_later_verdicts),
        T(test_discarded_recipient),
        T(test_discarded_session),
        T(test_hooks_that_wait),
        T(test_input_stays_in_the_stream),
        T(test_dies_while_a_hook_waits),
        T(test_spool_failures),
        T(test_no_answer_before_the_commit),
        T(test_no_commit_at_all),
        T(test_held_until_the_commit),
        T(test_dies_while_the_commit_is_under_way),
        T(test_engine_dies_while_the_commit_is_under_way),
        T(test_dies_in_data),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
