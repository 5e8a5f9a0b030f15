/* What clients see: limits, deadlines, TLS, an orderly end; whatever way the bytes come in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fixture.h"

static struct fixture f;

static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

static int line(struct sim_session *s, const char *text)
{
    return sim_world_line(f.w, s, text).code;
}

/* ---- TLS -------------------------------------------------------------------------------------- */

static void send_by_tls(bool implicit, enum listen_tls tls)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    static struct listen_settings listen; /* as long as the settings */
    listen = (struct listen_settings){ .addr = sim_addr("0.0.0.0:465"),
                                       .service = STR("smtp"),
                                       .tls = tls };
    struct str to = STR("u@example.com");
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = &to,
                          .n_recipients = 1,
                          .content = STR("Subject: x\r\n\r\nhello\r\n"),
                          .starttls = true,
                          .implicit_tls = implicit };
    f.settings->tls_cert = STR("cert.pem");
    f.settings->listen = &listen;
    f.settings->n_listen = 1;
    fixture_start(&f);
    const struct sim_outcome *out = sim_world_send(f.w, &m);
    assert_int_equal(out->reply.code, 250);
    assert_true(out->tls);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(got(mx, "TLSv1.3"), 1);
    sim_world_stop(f.w, SIM_MINUTE);
}

static void test_starttls(void **state)
{
    send_by_tls(false, LISTEN_TLS_OFFER);
}

static void test_implicit_tls(void **state)
{
    send_by_tls(true, LISTEN_TLS_IMPLICIT);
}

static void test_required_tls(void **state)
{
    send_by_tls(false, LISTEN_TLS_REQUIRE);
    struct sim_session *s;
    sim_world_start(f.w);
    s = sim_world_session(f.w, NULL);
    assert_int_equal(line(s, "EHLO me.example"), 250);
    assert_int_equal(line(s, "MAIL FROM:<a@b.example>"), 530);
    sim_session_close(s);
}

/* RFC 3207 §4.2: nothing that was said in clear counts afterwards. */
static void test_starttls_forgets(void **state)
{
    f.settings->tls_cert = STR("cert.pem");
    fixture_start(&f);
    struct sim_session *s = sim_world_session(f.w, NULL);
    assert_int_equal(line(s, "EHLO me.example"), 250);
    assert_int_equal(line(s, "STARTTLS"), 220);
    sim_session_starttls(s);
    sim_world_advance(f.w, SIM_SECOND);
    assert_true(sim_session_tls(s));
    assert_int_equal(line(s, "MAIL FROM:<a@b.example>"), 503);
    assert_int_equal(line(s, "EHLO me.example"), 250);
    assert_int_equal(line(s, "MAIL FROM:<a@b.example>"), 250);
    sim_session_close(s);
}

/* ---- deadlines and limits --------------------------------------------------------------------- */

static void test_silent_client(void **state)
{
    fixture_start(&f);
    struct sim_session *s = sim_world_session(f.w, NULL);
    assert_int_equal(line(s, "EHLO me.example"), 250);
    sim_world_advance(f.w, 4 * SIM_MINUTE);
    assert_false(sim_session_closed(s));
    sim_world_advance(f.w, 2 * SIM_MINUTE);
    struct smtp_reply reply;
    assert_true(sim_session_reply(s, &reply));
    assert_int_equal(reply.code, 421);
    assert_true(sim_session_closed(s));
    sim_session_close(s);
}

/* A client that stops in the middle of its message holds nothing for ever. */
static void test_silent_in_data(void **state)
{
    fixture_start(&f);
    struct sim_session *s = sim_world_session(f.w, NULL);
    assert_int_equal(line(s, "EHLO me.example"), 250);
    assert_int_equal(line(s, "MAIL FROM:<a@b.example>"), 250);
    assert_int_equal(line(s, "RCPT TO:<u@example.com>"), 250);
    assert_int_equal(line(s, "DATA"), 354);
    sim_session_write(s, STR("Subject: half\r\n"));
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    assert_true(sim_session_closed(s));
    assert_int_equal(queued(&f), 0);
    sim_session_close(s);
}

static void test_too_many_sessions(void **state)
{
    struct sim_session *s[5];
    f.settings->limits.sessions = 3;
    fixture_start(&f);
    for (int i = 0; i < 5; i++)
        s[i] = sim_world_session(f.w, NULL);
    int open = 0;
    for (int i = 0; i < 5; i++)
        open += line(s[i], "EHLO me.example") == 250;
    assert_int_equal(open, 3);
    for (int i = 0; i < 5; i++)
        sim_session_close(s[i]);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(mail_to(&f, "u@example.com"), 250);
}

static void test_too_large(void **state)
{
    struct str to = STR("u@example.com");
    size_t n = 200000;
    char *big = malloc(n);
    assert_non_null(big);
    for (size_t i = 0; i < n; i++)
        big[i] = i % 50 == 49 ? '\n' : i % 50 == 48 ? '\r' : 'z';
    f.settings->limits.message_size = 100000;
    fixture_start(&f);
    struct sim_mail m = { .sender = STR("a@b.example"),
                          .recipients = &to,
                          .n_recipients = 1,
                          .content = str_make(big, n) };
    const struct sim_outcome *out = sim_world_send(f.w, &m);
    assert_int_equal(out->reply.code, 0); /* the client knows by SIZE, and does not even try */
    struct sim_session *s = sim_world_session(f.w, NULL);
    line(s, "HELO me.example");
    assert_int_equal(line(s, "MAIL FROM:<a@b.example>"), 250);
    assert_int_equal(line(s, "RCPT TO:<u@example.com>"), 250);
    assert_int_equal(line(s, "DATA"), 354);
    sim_session_write(s, str_make(big, n));
    assert_int_equal(line(s, "."), 552);
    assert_int_equal(line(s, "NOOP"), 250);
    sim_session_close(s);
    free(big);
    assert_int_equal(queued(&f), 0);
}

/* Memory for messages being received is bounded: 452 for those past it, the others are taken. */
static void test_memory_is_bounded(void **state)
{
    struct sim_session *s[8];
    static char block[90000];
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = i % 50 == 49 ? '\n' : i % 50 == 48 ? '\r' : 'z';
    f.settings->limits.memory = 400000;
    fixture_start(&f);
    for (int i = 0; i < 8; i++) {
        s[i] = sim_world_session(f.w, NULL);
        line(s[i], "HELO me.example");
        line(s[i], "MAIL FROM:<a@b.example>");
        line(s[i], "RCPT TO:<u@example.com>");
        assert_int_equal(line(s[i], "DATA"), 354);
    }
    for (int i = 0; i < 8; i++)
        sim_session_write(s[i], str_make(block, sizeof block));
    sim_world_advance(f.w, SIM_SECOND);
    int taken = 0, later = 0;
    for (int i = 0; i < 8; i++) {
        int code = line(s[i], ".");
        taken += code == 250;
        later += code == 452;
    }
    assert_int_equal(taken + later, 8);
    assert_in_range(taken, 2, 5);
    for (int i = 0; i < 8; i++)
        sim_session_close(s[i]);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(mail_to(&f, "u@example.com"), 250); /* it is given back */
}

/* ---- how the bytes come ----------------------------------------------------------------------- */

/* Everything in one write, or in any pieces: the same replies. */
static void test_pieces(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct sim_net_faults faults = { .split = 900000, .jitter_ms = 30 };
    fixture_start(&f);
    for (int i = 0; i < 20; i++) {
        struct sim_session *s = sim_world_session(f.w, NULL);
        if (i)
            sim_net_set_faults(sim_world_net(f.w), &faults);
        assert_int_equal(line(s, "EHLO me.example"), 250);
        sim_session_write(s, STR("MAIL FROM:<client@sender.example>\r\nRCPT TO:<u@example.com>\r\n"
                                 "RCPT TO:<no@elsewhere.example>\r\nDATA\r\n"));
        sim_world_advance(f.w, 5 * SIM_SECOND);
        struct smtp_reply reply;
        static const uint16_t expected[] = { 250, 250, 550, 354 };
        for (size_t k = 0; k < ARRAY_LEN(expected); k++) {
            assert_true(sim_session_reply(s, &reply));
            assert_int_equal(reply.code, expected[k]);
        }
        sim_session_write(s, STR("Subject: pieces\r\n\r\n..dot\r\nlast\r\n"));
        assert_int_equal(line(s, "."), 250);
        assert_int_equal(line(s, "QUIT"), 221);
        sim_world_advance(f.w, SIM_SECOND);
        assert_true(sim_session_closed(s));
        sim_session_close(s);
    }
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 20);
    assert_int_equal(got(mx, "\r\n\r\n.dot\r\nlast\r\n"), 20);
}

/* A client that ends its side after the dot is told what became of its mail. */
static void test_half_closed(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.1");
    struct smtp_reply reply;
    fixture_start(&f);
    struct sim_session *s = sim_world_session(f.w, NULL);
    line(s, "EHLO me.example");
    line(s, "MAIL FROM:<client@sender.example>");
    line(s, "RCPT TO:<u@example.com>");
    line(s, "DATA");
    sim_session_write(s, STR("Subject: x\r\n\r\nhello\r\n.\r\n"));
    sim_session_half_close(s);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_true(sim_session_reply(s, &reply));
    assert_int_equal(reply.code, 250);
    assert_true(sim_session_closed(s));
    sim_session_close(s);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(queued(&f), 0);
}

/* ---- the end ---------------------------------------------------------------------------------- */

/* Sessions between transactions are told 421; one in the middle of a message may finish it. */
static void test_orderly_end(void **state)
{
    sim_world_host(f.w, "192.0.2.1");
    fixture_start(&f);
    struct sim_session *idle = sim_world_session(f.w, NULL);
    struct sim_session *busy = sim_world_session(f.w, NULL);
    line(idle, "EHLO me.example");
    line(busy, "EHLO me.example");
    line(busy, "MAIL FROM:<client@sender.example>");
    line(busy, "RCPT TO:<u@example.com>");
    assert_int_equal(line(busy, "DATA"), 354);
    struct engine *e = sim_world_engine(f.w, 0);
    atomic_store(&sim_world_shared(f.w)->stopping, true);
    engine_stop(e);
    sim_world_advance(f.w, SIM_SECOND);
    struct smtp_reply reply;
    assert_true(sim_session_reply(idle, &reply));
    assert_int_equal(reply.code, 421);
    assert_true(sim_session_closed(idle));
    assert_false(engine_idle(e));
    sim_session_write(busy, STR("Subject: x\r\n\r\nhello\r\n"));
    assert_int_equal(line(busy, "."), 250);
    sim_world_advance(f.w, SIM_SECOND);
    assert_true(sim_session_closed(busy));
    sim_world_advance(f.w, SIM_SECOND);
    assert_true(engine_idle(e));
    assert_int_equal(queued(&f), 1); /* no new deliveries */
    sim_session_close(idle);
    sim_session_close(busy);
    assert_true(sim_world_stop(f.w, SIM_SECOND));
    sim_world_start(f.w);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(queued(&f), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_starttls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_implicit_tls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_required_tls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_starttls_forgets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silent_client, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silent_in_data, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many_sessions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_large, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(test_half_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_orderly_end, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
