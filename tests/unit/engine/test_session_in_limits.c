/* test_session_in_limits.c - where sessions of clients end: limits, deadlines, the end of the router, clients that do not
 * read. */
#include "unit/engine/session_in_world.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
