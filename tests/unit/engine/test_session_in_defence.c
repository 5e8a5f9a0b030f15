/* test_session_in_defence.c - what protects the router from clients: limits for each, the delayed greeting,
 * stress. */
#include "unit/engine/in_world.h"

#include "engine/clients.h"
#include "engine/limits.h"
#include "engine/session_in_internal.h"

#define GREETING "220 mx.own.example ESMTP Tern\r\n"
#define STRANGER "203.0.113.9"
#define TOO_MANY "421 4.7.0 too many connections from your address, try again later\r\n"

static int setup(void **state)
{
    struct world *w = world_new();

    w->shared.clients = clients_new();
    assert_non_null(w->shared.clients);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    struct clients *c = w->shared.clients;

    world_free(w);
    clients_free(c);
    return 0;
}

/* The session that is open stays, with a stream of its own; the world's is free for the next. */
static struct fake_stream *aside(struct world *w)
{
    struct fake_stream *f = malloc(sizeof(*f));
    struct session *s = w->stream.s.owner;

    *f = w->stream;
    s->stream = &f->s;
    s->view.client = &f->s.peer;
    s->view.local = &f->s.local;
    w->stream = (struct fake_stream){ 0 };
    return f;
}

static void end_aside(struct world *w, struct fake_stream *f)
{
    if (!f->closed)
        f->s.ev->closed(&f->s, f->s.owner, 0, NULL);
    settle(w);
    buf_done(&f->in);
    buf_done(&f->out);
    free(f);
}

/* ---- limits of a client ---- */

static void test_connections_at_once(void **state)
{
    struct world *w = *state;

    w->settings->clients.connections = 1;
    connect_from(w, STRANGER);
    assert_string_equal(said(w), GREETING);
    struct fake_stream *first = aside(w);
    connect_from(w, STRANGER);
    assert_string_equal(said(w), TOO_MANY);
    assert_true(w->stream.closed);
    assert_logged(w, "sessions_turned_away client=203.0.113.9 why=too many connections from your "
                     "address");
    assert_int_equal(w->shared.counters.clients_limited, 1);
    connect_from(w, "203.0.113.10");
    assert_string_equal(said(w), GREETING);
    end_aside(w, first);
    connect_from(w, STRANGER);
    assert_string_equal(said(w), GREETING);
}

static void test_exempt(void **state)
{
    struct world *w = *state;

    w->settings->clients.connections = 1;
    connect_from(w, "127.0.0.1");
    struct fake_stream *first = aside(w);
    connect_from(w, "127.0.0.1");
    assert_string_equal(said(w), GREETING);
    end_aside(w, first);
}

/* Who is not in TLS yet and expects to be understands nothing. */
static void test_turned_away_before_tls(void **state)
{
    struct world *w = *state;

    w->settings->clients.connections = 1;
    connect_from(w, STRANGER);
    struct fake_stream *first = aside(w);
    w->listener.tls = LISTEN_TLS_IMPLICIT;
    connect_from(w, STRANGER);
    assert_string_equal(said(w), "");
    assert_true(w->stream.aborted);
    end_aside(w, first);
}

static void test_connections_in_a_time(void **state)
{
    struct world *w = *state;

    assert_int_equal(limit_rate_parse(STR("2/m"), &w->settings->clients.connection_rate), 0);
    for (int i = 0; i < 2; i++) {
        connect_from(w, STRANGER);
        assert_string_equal(said(w), GREETING);
    }
    connect_from(w, STRANGER);
    assert_string_equal(said(w), "421 4.7.0 connections from your address come too often, try "
                                 "again later\r\n");
    pass(w, 31 * 1000);
    connect_from(w, STRANGER);
    assert_string_equal(said(w), GREETING);
}

static void test_messages_and_recipients_in_a_time(void **state)
{
    struct world *w = *state;

    assert_int_equal(limit_rate_parse(STR("2/h"), &w->settings->clients.message_rate), 0);
    assert_int_equal(limit_rate_parse(STR("3/h"), &w->settings->clients.recipient_rate), 0);
    connect_from(w, STRANGER);
    say(w, "EHLO c\r\nMAIL FROM:<a@b.example>\r\n");
    for (int i = 0; i < 3; i++)
        assert_string_equal(say(w, "RCPT TO:<u@own.example>\r\n"), "250 2.1.5 OK\r\n");
    assert_string_equal(say(w, "RCPT TO:<u@own.example>\r\n"),
                        "450 4.7.0 Too many recipients from your address, try again later\r\n");
    say(w, "DATA\r\n"); /* those that were taken get it */
    assert_memory_equal(say(w, "\r\n.\r\n"), "250 2.0.0 ", 10);
    assert_int_equal(w->n_recipients, 3);
    connect_from(w, STRANGER); /* another session, the same client */
    say(w, "EHLO c\r\nMAIL FROM:<>\r\nRSET\r\n");
    assert_string_equal(say(w, "MAIL FROM:<>\r\n"),
                        "450 4.7.0 Too many messages from your address, try again later\r\n");
    assert_string_equal(say(w, "NOOP\r\n"), "250 2.0.0 OK\r\n");
}

/* ---- the greeting ---- */

static void test_delayed_greeting(void **state)
{
    struct world *w = *state;

    w->listener.greeting_delay_ms = 2000;
    connect_from(w, STRANGER);
    pass(w, 1999);
    assert_string_equal(said(w), "");
    pass(w, 1);
    assert_string_equal(said(w), GREETING);
    assert_memory_equal(say(w, "EHLO c\r\n"), "250-", 4);
    assert_int_equal(w->shared.counters.early_talkers, 0);
    connect_from(w, "127.0.0.1"); /* exempt */
    assert_string_equal(said(w), GREETING);
}

static void test_early_talker(void **state)
{
    struct world *w = *state;

    w->listener.greeting_delay_ms = 2000;
    have_hook(w, HOOK_CONNECT, NULL);
    connect_from(w, STRANGER);
    pass(w, 500);
    assert_string_equal(say(w, "EHLO c\r\nMAIL FROM:<>\r\n"),
                        "554 5.5.1 Talking before the greeting\r\n");
    assert_true(w->stream.closed);
    assert_int_equal(w->asked[HOOK_CONNECT], 0);
    assert_int_equal(w->shared.counters.early_talkers, 1);
    assert_logged(w, "session_closed session=1 client=203.0.113.9 why=talking before the greeting");
}

static void test_gone_before_the_greeting(void **state)
{
    struct world *w = *state;

    w->listener.greeting_delay_ms = 2000;
    connect_from(w, STRANGER);
    pass(w, 500);
    hang_up(w);
    pass(w, 5000);
    connect_from(w, STRANGER);
    sessions_in_stop(w->e.sessions);
    pass(w, 3000);
    assert_string_equal(said(w), GREETING "421 4.3.2 shutting down, try again later\r\n");
}

/* ---- stress ---- */

static void test_stress(void **state)
{
    struct world *w = *state;
    struct fake_stream *idle[10];

    w->settings->limits.sessions = 10;
    for (int i = 0; i < 7; i++) {
        connect_from(w, STRANGER);
        idle[i] = aside(w);
    }
    assert_int_equal(w->shared.counters.workers_stressed, 0);
    connect_from(w, STRANGER); /* the eighth */
    assert_string_equal(said(w), GREETING);
    assert_int_equal(w->shared.counters.workers_stressed, 1);
    assert_int_equal(w->shared.counters.stress_entered, 1);
    assert_logged(w, "stress sessions=8 limit=10 timeout_ms=10000");
    /* Its patience with errors is short, */
    say(w, "EHLO c\r\nFOO\r\nBAR\r\n");
    assert_non_null(strstr(say(w, "BAZ\r\n"), "421 4.7.0 Too many errors\r\n"));
    assert_true(w->stream.closed);
    /* and with silence; 7 of 10: it lasts, and is not told again. */
    assert_int_equal(w->shared.counters.workers_stressed, 1);
    connect_from(w, STRANGER);
    assert_string_equal(said(w), GREETING);
    pass(w, 9999);
    assert_string_equal(said(w), "");
    pass(w, 1);
    assert_string_equal(said(w), "421 4.4.2 timeout, closing connection\r\n");
    assert_int_equal(w->shared.counters.stress_entered, 1);
    /* So it goes for those that were there before. */
    assert_int_equal(sessions_in_count(w->e.sessions), 0);
    for (int i = 0; i < 7; i++) {
        assert_true(
            str_ends(buf_str(&idle[i]->out), STR("421 4.4.2 timeout, closing connection\r\n")));
        end_aside(w, idle[i]);
    }
    assert_logged(w, "stress_over sessions=6 limit=10");
    assert_int_equal(w->shared.counters.workers_stressed, 0);
    connect_from(w, STRANGER);
    said(w);
    pass(w, 60 * 1000);
    assert_string_equal(say(w, "NOOP\r\n"), "250 2.0.0 OK\r\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_connections_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exempt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_turned_away_before_tls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_connections_in_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_messages_and_recipients_in_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_delayed_greeting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_early_talker, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gone_before_the_greeting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stress, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
