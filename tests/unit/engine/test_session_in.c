/* test_session_in.c - sessions of clients against a world of fakes.
 *
 * Longer than other files: one case for each state and answer of a session, all on the same fakes. */
#include "unit/engine/in_world.h"

#define HELLO    "EHLO client.example\r\n"
#define STRANGER "203.0.113.9"
#define TO_OWN   "MAIL FROM:<a@b.example>\r\nRCPT TO:<u@own.example>\r\n"
#define OK_MAIL  "250 2.1.0 OK\r\n"
#define OK_RCPT  "250 2.1.5 OK\r\n"
#define GO_AHEAD "354 End data with <CR><LF>.<CR><LF>\r\n"
#define DENIED   "550 5.7.1 relay access denied\r\n"

static int setup(void **state)
{
    *state = world_new();
    return 0;
}

static int teardown(void **state)
{
    world_free(*state);
    return 0;
}

static void greeted(struct world *w, const char *ip)
{
    connect_from(w, ip);
    assert_string_equal(said(w), "220 mx.own.example ESMTP Tern\r\n");
    const char *caps = say(w, HELLO);
    assert_non_null(strstr(caps, "250-mx.own.example\r\n"));
}

static void relay_all(struct world *w)
{
    static struct net_cidr any = { .base.family = NET_IPV4 };

    w->settings->relay_from = &any;
    w->settings->n_relay_from = 1;
}

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
    pass(w, 3600 * 1000); /* that is not the client's fault */
    assert_string_equal(said(w), "");
    w->spool_stuck = false;
    settle(w);
    assert_non_null(strstr(said(w), " queued\r\n250 2.0.0 OK\r\n"));
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

/* ---- limits ---- */

static void test_limit_of_sessions(void **state)
{
    struct world *w = *state;
    struct fake_stream first;

    w->settings->limits.sessions = 1;
    connect_from(w, STRANGER);
    first = w->stream;
    w->stream = (struct fake_stream){ 0 };
    connect_from(w, STRANGER);
    assert_string_equal(said(w), "421 4.3.2 too many sessions, try again later\r\n");
    assert_true(w->stream.closed);
    assert_int_equal(sessions_in_count(w->e.sessions), 1);
    assert_logged(w, "sessions_turned_away");
    first.s.ev->closed(&first.s, first.s.owner, -ECONNRESET, "reset");
    buf_done(&first.out);
    connect_from(w, STRANGER);
    assert_memory_equal(said(w), "220 ", 4);
}

static void test_limit_of_errors(void **state)
{
    struct world *w = *state;

    w->settings->limits.errors = 3;
    greeted(w, STRANGER);
    say(w, "FOO\r\nBAR\r\n");
    assert_non_null(strstr(say(w, "BAZ\r\n"), "421 4.7.0 Too many errors\r\n"));
    assert_true(w->stream.closed);
    assert_logged(w, "why=too many errors");
}

static void test_limit_of_recipients(void **state)
{
    struct world *w = *state;

    w->settings->limits.recipients = 100;
    greeted(w, STRANGER);
    say(w, "MAIL FROM:<a@b.example>\r\n");
    for (int i = 0; i < 100; i++)
        assert_string_equal(say(w, "RCPT TO:<u@own.example>\r\n"), OK_RCPT);
    assert_memory_equal(say(w, "RCPT TO:<u@own.example>\r\n"), "452 4.5.3 ", 10);
}

static void test_limit_of_size(void **state)
{
    struct world *w = *state;

    w->settings->limits.message_size = 100;
    greeted(w, STRANGER);
    assert_memory_equal(say(w, "MAIL FROM:<a@b.example> SIZE=101\r\n"), "552 5.3.4", 9);
    say(w, TO_OWN "DATA\r\n");
    for (int i = 0; i < 10; i++)
        say(w, "0123456789012345678\r\n");
    assert_memory_equal(say(w, ".\r\n"), "552 5.3.4", 9);
    assert_int_equal(w->e.intakes, 0);
    assert_string_equal(say(w, "NOOP\r\n"), "250 2.0.0 OK\r\n");
}

static void test_limit_of_memory(void **state)
{
    struct world *w = *state;

    w->settings->limits.memory = 100;
    greeted(w, STRANGER);
    say(w, TO_OWN "DATA\r\n");
    for (int i = 0; i < 10; i++)
        say(w, "0123456789012345678\r\n");
    assert_int_equal(w->e.intake_memory, 0); /* given back as soon as it is refused */
    assert_string_equal(say(w, ".\r\n"), "452 4.3.1 insufficient storage, try again later\r\n");
    assert_int_equal(w->e.intake_memory, 0);
    w->e.intake_memory = 100;
    assert_memory_equal(say(w, "MAIL FROM:<a@b.example>\r\n"), "452 4.3.1", 9);
    w->e.intake_memory = 0;
}

/* ---- time ---- */

static void test_command_deadline(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    pass(w, 299 * 1000);
    assert_string_equal(say(w, "NOOP\r\n"), "250 2.0.0 OK\r\n");
    pass(w, 299 * 1000);
    assert_string_equal(said(w), "");
    say(w, "NO"); /* half a command is no sign of life */
    pass(w, 1000);
    assert_string_equal(said(w), "421 4.4.2 timeout, closing connection\r\n");
    assert_true(w->stream.closed);
    assert_logged(w, "why=timeout messages=0");
}

static void test_data_deadline(void **state)
{
    struct world *w = *state;

    w->settings->timeouts.data_ms = 1000;
    greeted(w, STRANGER);
    say(w, TO_OWN "DATA\r\n");
    for (int i = 0; i < 10; i++) {
        pass(w, 900);
        assert_string_equal(say(w, "x: y\r\n"), "");
    }
    pass(w, 1001);
    assert_string_equal(said(w), "421 4.4.2 timeout, closing connection\r\n");
    assert_logged(w, "why=timeout in data");
    assert_int_equal(w->units, 0);
}

static void test_session_deadline(void **state)
{
    struct world *w = *state;

    w->settings->timeouts.session_ms = 10 * 1000;
    greeted(w, STRANGER);
    for (int i = 0; i < 9; i++) {
        pass(w, 1000);
        say(w, "NOOP\r\n");
    }
    pass(w, 1000);
    assert_string_equal(said(w), "421 4.4.2 timeout, closing connection\r\n");
    assert_logged(w, "why=session lasted too long");
}

static void test_no_deadline_while_a_hook_waits(void **state)
{
    struct world *w = *state;

    have_hook(w, HOOK_MAIL, NULL);
    w->wait[HOOK_MAIL] = true;
    greeted(w, STRANGER);
    say(w, "MAIL FROM:<a@b.example>\r\n");
    pass(w, 600 * 1000);
    assert_string_equal(said(w), "");
    answer_hook(w);
    assert_string_equal(said(w), OK_MAIL);
    pass(w, 299 * 1000);
    assert_string_equal(said(w), "");
    pass(w, 1000);
    assert_memory_equal(said(w), "421 4.4.2", 9);
}

/* ---- stopping ---- */

static void test_stop_between_transactions(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    sessions_in_stop(w->e.sessions);
    assert_string_equal(said(w), "421 4.3.2 shutting down, try again later\r\n");
    assert_true(w->stream.closed);
    assert_int_equal(sessions_in_count(w->e.sessions), 0);
    connect_from(w, STRANGER);
    assert_string_equal(said(w), "421 4.3.2 shutting down, try again later\r\n");
}

static void test_stop_in_a_transaction(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    say(w, TO_OWN);
    sessions_in_stop(w->e.sessions);
    assert_string_equal(said(w), "");
    assert_string_equal(say(w, "DATA\r\n"), GO_AHEAD);
    const char *end = say(w, "x\r\n.\r\n");
    assert_memory_equal(end, "250 2.0.0 ", 10);
    assert_non_null(strstr(end, "\r\n421 4.3.2 shutting down"));
    assert_int_equal(w->arrived, 1);
}

/* ---- back-pressure ---- */

static void test_client_that_does_not_read(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    w->stream.unsent = 64 * 1024 + 1;
    assert_string_equal(say(w, "NOOP\r\n"), "");
    assert_int_equal(buf_len(&w->stream.in), 6);
    w->stream.unsent = 0;
    w->stream.s.ev->drained(&w->stream.s, w->stream.s.owner);
    settle(w);
    assert_string_equal(said(w), "250 2.0.0 OK\r\n");
    w->stream.unsent = 64 * 1024 + 1;
    say(w, "NOOP\r\n");
    pass(w, 300 * 1000);
    assert_memory_equal(said(w), "421 4.4.2", 9);
    assert_true(w->stream.closed);
}

/* ---- TLS ---- */

static void secure(struct world *w)
{
    const struct tls_facts facts = { .version = STR("TLSv1.3"), .cipher = STR("AES") };

    w->stream.s.ev->secured(&w->stream.s, w->stream.s.owner, &facts);
    settle(w);
}

static void test_starttls(void **state)
{
    struct world *w = *state;

    w->serves_tls = true;
    connect_from(w, STRANGER);
    assert_non_null(strstr(say(w, HELLO), "STARTTLS"));
    assert_string_equal(say(w, "STARTTLS\r\n"), "220 2.0.0 Ready to start TLS\r\n");
    assert_int_equal(w->stream.tls_starts, 1);
    secure(w);
    assert_memory_equal(say(w, "MAIL FROM:<a@b.example>\r\n"), "503", 3);
    assert_null(strstr(say(w, HELLO), "STARTTLS"));
    say(w, TO_OWN "DATA\r\n");
    assert_memory_equal(say(w, ".\r\n"), "250", 3);
    assert_true(str_find(content_of(w, 0), STR(" with ESMTPS\r\n\t(TLSv1.3 AES)\r\n")) > 0);
    assert_logged(w, "tls=1");
    assert_memory_equal(say(w, "STARTTLS\r\n"), "503", 3);
}

static void test_starttls_injection(void **state)
{
    struct world *w = *state;

    w->serves_tls = true;
    connect_from(w, STRANGER);
    said(w);
    say(w, HELLO);
    assert_non_null(strstr(say(w, "STARTTLS\r\nEHLO evil.example\r\n"), "554 5.5.0"));
    assert_true(w->stream.closed);
    assert_int_equal(w->stream.tls_starts, 0);
}

static void test_tls_not_to_be_had(void **state)
{
    struct world *w = *state;

    w->serves_tls = true;
    w->listener.tls = LISTEN_TLS_NONE;
    connect_from(w, STRANGER);
    assert_null(strstr(say(w, HELLO), "STARTTLS"));
    w->listener.tls = LISTEN_TLS_OFFER;
    connect_from(w, STRANGER);
    say(w, HELLO);
    w->serves_tls = false;
    assert_memory_equal(say(w, "STARTTLS\r\n"), "454 4.7.0", 9);
    connect_from(w, STRANGER);
    assert_null(strstr(say(w, HELLO), "STARTTLS"));
}

static void test_tls_required(void **state)
{
    struct world *w = *state;

    w->serves_tls = true;
    w->listener.tls = LISTEN_TLS_REQUIRE;
    greeted(w, STRANGER);
    assert_memory_equal(say(w, "MAIL FROM:<a@b.example>\r\n"), "530 5.7.0", 9);
    say(w, "STARTTLS\r\n");
    secure(w);
    say(w, HELLO);
    assert_string_equal(say(w, "MAIL FROM:<a@b.example>\r\n"), OK_MAIL);
}

static void test_tls_implicit(void **state)
{
    struct world *w = *state;

    w->serves_tls = true;
    w->listener.tls = LISTEN_TLS_IMPLICIT;
    w->listener.service = STR("submission");
    connect_from(w, STRANGER);
    assert_string_equal(said(w), "");
    assert_int_equal(w->stream.tls_starts, 1);
    secure(w);
    assert_memory_equal(said(w), "220 ", 4);
    assert_null(strstr(say(w, HELLO), "STARTTLS"));
    assert_string_equal(say(w, "MAIL FROM:<a@b.example>\r\n"), OK_MAIL);
    w->stream.s.ev->closed(&w->stream.s, w->stream.s.owner, -EPROTO, "TLS: bad record");
    assert_logged(w, "why=TLS: bad record");
}

static void test_I506_handshake_deadline(void **state)
{
    struct world *w = *state;

    w->serves_tls = true;
    greeted(w, STRANGER);
    say(w, "STARTTLS\r\n");
    pass(w, 300 * 1000);
    assert_true(w->stream.aborted);
    assert_logged(w, "why=timeout in the TLS handshake");
}

/* ---- ETRN ---- */

static struct hook_result etrn_result;

static void on_etrn(struct world *w, const struct hook_input *in, struct hook_result *r)
{
    (void)w;
    assert_non_null(in->etrn);
    assert_int_equal(in->etrn->origin, ETRN_CLIENT);
    if (!in->etrn->option)
        assert_true(str_eq(in->etrn->domain, STR("shop.example")));
    r->verdict = etrn_result.verdict;
    r->reply = etrn_result.reply;
    r->queue = STR("shop.example");
    r->window_ms = 1234;
    if (r->verdict == VERDICT_RELEASE)
        r->route = route_new(ROUTE_HOLD);
}

static void test_E3_E4_etrn(void **state)
{
    struct world *w = *state;

    w->hooks.offers_etrn = true;
    have_hook(w, HOOK_ETRN, on_etrn);
    connect_from(w, STRANGER);
    assert_non_null(strstr(say(w, HELLO), "ETRN"));
    etrn_result.verdict = VERDICT_NONE;
    assert_string_equal(say(w, "ETRN Shop.example\r\n"),
                        "459 4.7.1 Node Shop.example not allowed\r\n");
    etrn_result.verdict = VERDICT_REJECT;
    etrn_result.reply = REPLY(530, ENH(5, 7, 0), "authenticate first");
    assert_string_equal(say(w, "ETRN shop.example\r\n"), "530 5.7.0 authenticate first\r\n");
    etrn_result.verdict = VERDICT_FAILED;
    assert_string_equal(say(w, "ETRN shop.example\r\n"),
                        "458 4.3.0 Unable to queue messages for node shop.example\r\n");
    etrn_result.verdict = VERDICT_RELEASE;
    assert_string_equal(say(w, "ETRN shop.example\r\n"),
                        "251 2.0.0 OK, no messages waiting for node shop.example\r\n");
    str_copy(STR("shop.example"), w->queue.name, sizeof(w->queue.name));
    w->queue_result = -EIO;
    assert_memory_equal(say(w, "ETRN shop.example\r\n"), "458 4.3.0", 9);
    w->queue_result = 0;
    w->queue.waiting = 17;
    assert_null(w->command);
    assert_string_equal(say(w, "ETRN SHOP.example\r\n"), "");
    assert_non_null(w->command);
    assert_int_equal(w->command->type, QUEUE_RELEASE);
    assert_string_equal(w->command->queue, "shop.example");
    assert_int_equal(w->command->window_ms, 1234);
    assert_non_null(w->command->route);
    answer_command(w, 0, 17, false);
    assert_string_equal(said(w),
                        "253 2.0.0 OK, 17 pending messages for node SHOP.example started\r\n");
    assert_logged(w, "etrn session=1 client=203.0.113.9 identity= by=client domain=SHOP.example "
                     "code=253 messages=17");
}

/* What the queue's owner says of one that is running already. */
static void test_E3_E10_etrn_again(void **state)
{
    struct world *w = *state;

    w->hooks.offers_etrn = true;
    have_hook(w, HOOK_ETRN, on_etrn);
    etrn_result.verdict = VERDICT_RELEASE;
    str_copy(STR("shop.example"), w->queue.name, sizeof(w->queue.name));
    w->queue.waiting = 17;
    greeted(w, STRANGER);
    say(w, "ETRN shop.example\r\n");
    answer_command(w, 0, 16, true);
    assert_string_equal(said(w),
                        "252 2.0.0 OK, pending messages for node shop.example started\r\n");
    say(w, "ETRN shop.example\r\n");
    answer_command(w, -EBUSY, 0, false);
    assert_string_equal(said(w), "458 4.3.0 Unable to queue messages for node shop.example: "
                                 "already running\r\n");
    say(w, "ETRN shop.example\r\n");
    answer_command(w, -EPERM, 0, false);
    assert_string_equal(said(w), "458 4.3.0 Unable to queue messages for node shop.example\r\n");
    /* Gone before the owner says anything. */
    say(w, "ETRN shop.example\r\n");
    hang_up(w);
    answer_command(w, 0, 17, false);
}

/* Who is not authenticated is told the same of each domain, when some of them ask for it. */
static void test_E3_E4_etrn_of_the_authenticated(void **state)
{
    struct world *w = *state;

    w->hooks.offers_etrn = w->hooks.etrn_wants_identity = true;
    have_hook(w, HOOK_ETRN, on_etrn);
    etrn_result.verdict = VERDICT_NONE;
    greeted(w, STRANGER);
    assert_string_equal(say(w, "ETRN shop.example\r\n"),
                        "530 5.7.0 Authentication required for node shop.example\r\n");
    etrn_result.verdict = VERDICT_RELEASE;
    assert_memory_equal(say(w, "ETRN shop.example\r\n"), "251", 3);
}

static void test_E10_etrn_limits(void **state)
{
    struct world *w = *state;

    w->hooks.offers_etrn = true;
    have_hook(w, HOOK_ETRN, on_etrn);
    etrn_result.verdict = VERDICT_NONE;
    w->settings->limits.etrn_per_session = 3;
    w->settings->limits.etrn_per_client = 5;
    greeted(w, STRANGER);
    for (int i = 0; i < 3; i++)
        assert_memory_equal(say(w, "ETRN shop.example\r\n"), "459", 3);
    assert_string_equal(say(w, "ETRN shop.example\r\n"),
                        "458 4.7.0 Too many requests, try again later\r\n");
    greeted(w, STRANGER);
    for (int i = 0; i < 2; i++)
        assert_memory_equal(say(w, "ETRN shop.example\r\n"), "459", 3);
    assert_memory_equal(say(w, "ETRN shop.example\r\n"), "458 4.7.0", 9);
    greeted(w, "203.0.113.10");
    assert_memory_equal(say(w, "ETRN shop.example\r\n"), "459", 3);
    w->now += 3600 * 1000; /* a new hour */
    greeted(w, STRANGER);
    assert_memory_equal(say(w, "ETRN shop.example\r\n"), "459", 3);
    /* Thousands of clients do not take more memory: some of them are forgotten. */
    for (uint32_t i = 0; i < 20000; i++) {
        struct net_addr a = { .family = NET_IPV6, .ip = { 0x20, 1, 0xd, 0xb8 } };
        a.ip[6] = (uint8_t)(i >> 8);
        a.ip[7] = (uint8_t)i;
        assert_true(etrn_client_may(&w->e, &a));
    }
    struct net_addr one = { .family = NET_IPV6, .ip = { 0x20, 2 } };
    for (uint8_t i = 0; i < 5; i++) { /* a network of a client's own counts as one */
        one.ip[15] = i;
        assert_true(etrn_client_may(&w->e, &one));
    }
    assert_false(etrn_client_may(&w->e, &one));
}

static void test_etrn_that_waits(void **state)
{
    struct world *w = *state;

    w->hooks.offers_etrn = true;
    have_hook(w, HOOK_ETRN, on_etrn);
    w->wait[HOOK_ETRN] = true;
    etrn_result.verdict = VERDICT_NONE;
    greeted(w, STRANGER);
    assert_string_equal(say(w, "ETRN @shop.example\r\n"), "");
    answer_hook(w);
    assert_string_equal(said(w), "459 4.7.1 Node @shop.example not allowed\r\n");
    say(w, "ETRN #queue\r\n");
    hang_up(w);
    assert_int_equal(w->cancels, 1);
    /* Gone between the hook's answer and the reply. */
    w->wait[HOOK_ETRN] = false;
    greeted(w, STRANGER);
    buf_add_str(&w->stream.in, STR("ETRN shop.example\r\n"));
    stream_step(w);
    hang_up(w);
}

static void test_E1_etrn_is_not_offered(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    assert_memory_equal(say(w, "ETRN shop.example\r\n"), "502", 3);
    w->hooks.offers_etrn = true;
    w->listener.service = STR("submission");
    connect_from(w, STRANGER);
    assert_null(strstr(say(w, HELLO), "ETRN"));
}

/* ---- PROXY and XCLIENT ---- */

#define BALANCER "10.0.0.5"
#define TOLD     "PROXY TCP4 203.0.113.9 192.0.2.25 4711 25\r\n"

static void behind_balancer(struct world *w)
{
    static struct net_cidr nets[1];

    assert_int_equal(net_cidr_parse(STR(BALANCER), &nets[0]), 0);
    w->listener.proxy = nets;
    w->listener.n_proxy = 1;
}

static void test_proxy_header(void **state)
{
    struct world *w = *state;

    behind_balancer(w);
    connect_from(w, BALANCER);
    for (const char *p = TOLD; *p; p++) {
        char octet[2] = { *p, 0 };
        assert_int_equal(w->asked[HOOK_CONNECT], 0);
        const char *got = say(w, octet);
        assert_string_equal(got, p[1] ? "" : "220 mx.own.example ESMTP Tern\r\n");
    }
    say(w, HELLO);
    say(w, TO_OWN "DATA\r\n");
    say(w, "\r\nx\r\n.\r\n");
    assert_true(str_find(content_of(w, 0), STR("([203.0.113.9])")) > 0);
    assert_logged(w,
                  "session_opened session=1 client=203.0.113.9 listener=0.0.0.0:25 proxy=10.0.0.5");
    assert_logged(w, "client=203.0.113.9 helo=client.example");
}

static void test_proxy_header_of_others(void **state)
{
    struct world *w = *state;

    behind_balancer(w);
    connect_from(w, STRANGER);
    assert_string_equal(said(w), "220 mx.own.example ESMTP Tern\r\n");
    assert_memory_equal(say(w, TOLD), "500 5.5.2 ", 10);
}

static void test_proxy_header_bad(void **state)
{
    struct world *w = *state;

    behind_balancer(w);
    connect_from(w, BALANCER);
    assert_string_equal(say(w, HELLO), "");
    assert_true(w->stream.aborted);
    assert_int_equal(w->asked[HOOK_CONNECT], 0);
    assert_logged(
        w, "proxy_header_bad session=1 client=10.0.0.5 listener=0.0.0.0:25 why=no PROXY header");
}

static void test_proxy_header_deadline(void **state)
{
    struct world *w = *state;

    behind_balancer(w);
    connect_from(w, BALANCER);
    say(w, "PROXY TCP4 203");
    w->now += w->settings->timeouts.proxy_ms - 1;
    settle(w);
    assert_false(w->stream.aborted);
    say(w, ".0"); /* what trickles in moves nothing */
    w->now += 1;
    settle(w);
    assert_true(w->stream.aborted);
    assert_string_equal(said(w), "");
    assert_logged(w, "why=timeout before the PROXY header");
}

/* TLS from the first byte begins behind the header. */
static void test_proxy_header_before_tls(void **state)
{
    struct world *w = *state;

    behind_balancer(w);
    w->serves_tls = true;
    w->listener.tls = LISTEN_TLS_IMPLICIT;
    connect_from(w, BALANCER);
    assert_int_equal(w->stream.tls_starts, 0);
    say(w, TOLD);
    assert_int_equal(w->stream.tls_starts, 1);
}

static void test_xclient(void **state)
{
    struct world *w = *state;
    static struct net_cidr filter;

    assert_int_equal(net_cidr_parse(STR("10.0.0.9"), &filter), 0);
    w->settings->xclient_from = &filter;
    w->settings->n_xclient_from = 1;
    greeted(w, STRANGER);
    assert_memory_equal(say(w, "XCLIENT ADDR=192.0.2.7\r\n"), "550 5.7.1 ", 10);
    greeted(w, "10.0.0.9");
    assert_string_equal(say(w, "XCLIENT ADDR=192.0.2.7 LOGIN=ana\r\n"),
                        "220 mx.own.example ESMTP Tern\r\n");
    assert_int_equal(w->sessions_closed,
                     2); /* the stranger's, and what policies kept of this one */
    say(w, HELLO);
    say(w, "MAIL FROM:<a@b.example>\r\n");
    assert_string_equal(say(w, "RCPT TO:<x@far.example>\r\n"), OK_RCPT); /* ana may relay */
    say(w, "RSET\r\nXCLIENT ADDR=203.0.113.1 LOGIN=[UNAVAILABLE]\r\n");
    say(w, HELLO "MAIL FROM:<a@b.example>\r\n");
    assert_string_equal(say(w, "RCPT TO:<x@far.example>\r\n"), DENIED);
    assert_logged(w, "xclient session=2 client=192.0.2.7 identity=ana proxy=10.0.0.9");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

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
        T(test_dies_while_the_commit_is_under_way),
        T(test_engine_dies_while_the_commit_is_under_way),
        T(test_dies_in_data),
        T(test_limit_of_sessions),
        T(test_limit_of_errors),
        T(test_limit_of_recipients),
        T(test_limit_of_size),
        T(test_limit_of_memory),
        T(test_command_deadline),
        T(test_data_deadline),
        T(test_session_deadline),
        T(test_no_deadline_while_a_hook_waits),
        T(test_stop_between_transactions),
        T(test_stop_in_a_transaction),
        T(test_client_that_does_not_read),
        T(test_starttls),
        T(test_starttls_injection),
        T(test_tls_not_to_be_had),
        T(test_tls_required),
        T(test_tls_implicit),
        T(test_I506_handshake_deadline),
        T(test_E3_E4_etrn),
        T(test_E3_E10_etrn_again),
        T(test_E3_E4_etrn_of_the_authenticated),
        T(test_E10_etrn_limits),
        T(test_etrn_that_waits),
        T(test_E1_etrn_is_not_offered),
        T(test_proxy_header),
        T(test_proxy_header_of_others),
        T(test_proxy_header_bad),
        T(test_proxy_header_deadline),
        T(test_proxy_header_before_tls),
        T(test_xclient),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
