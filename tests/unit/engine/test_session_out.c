/* Connections to hosts: reuse, deadlines, TLS. Driven as a delivery drives them. */
#include "out_world.h"

#include "mail/body.h"

static struct sim_host *mx;
static struct message *msg;

/* A user of a connection. */
struct user {
    struct session_out *s;
    bool keep;
    bool ready, done, failed, reused;
    size_t rcpts;
    uint16_t final;
    enum smtp_stage stage;
    uint16_t code;
    char why[128], tls[16];
    int64_t at; /* when it ended */
};

static void on_ready(void *owner)
{
    struct user *u = owner;
    struct str to = STR("u@example.com");
    u->ready = true;
    u->reused = session_out_reused(u->s);
    str_copy(session_out_tls_version(u->s), u->tls, sizeof u->tls);
    assert_int_equal(session_out_send(u->s, msg, &to, NULL, 1), 0);
}

static void on_rcpt(void *owner, size_t index, const struct smtp_reply *reply)
{
    ((struct user *)owner)->rcpts++;
}

static void on_result(void *owner, size_t index, enum smtp_stage stage,
                      const struct smtp_reply *reply)
{
    ((struct user *)owner)->final = reply->code;
}

static void on_done(void *owner)
{
    struct user *u = owner;
    u->done = true;
    u->at = engine_now(engine0());
    session_out_release(u->s, u->keep);
    u->s = NULL;
}

static void on_failed(void *owner, enum smtp_stage stage, const struct smtp_reply *reply,
                      struct str why)
{
    struct user *u = owner;
    u->failed = true;
    u->at = engine_now(engine0());
    u->stage = stage;
    u->code = reply->code;
    u->s = NULL;
    str_copy(why, u->why, sizeof u->why);
}

static const struct session_out_events events = { on_ready, on_rcpt, on_result, on_done,
                                                  on_failed };

static void open_with(struct user *u, enum route_tls tls)
{
    struct session_out_key key = { .addr = sim_addr("192.0.2.1:25"),
                                   .name = STR("mx.example.com"),
                                   .tls = tls };
    *u = (struct user){ .keep = true };
    u->s = session_out_open(engine0(), &key, engine0()->snapshot, &events, u);
    assert_non_null(u->s);
    assert_false(u->ready || u->failed);
}

static bool ended(void *arg)
{
    const struct user *u = arg;
    return u->done || u->failed;
}

static void run_with(struct user *u, enum route_tls tls)
{
    open_with(u, tls);
    assert_true(sim_world_until(w, ended, u, SIM_HOUR));
}

static void run(struct user *u)
{
    run_with(u, ROUTE_TLS_NONE);
}

static int setup(void **state)
{
    static const char text[] = "Subject: x\r\n\r\nhello\r\n";
    out_setup(state);
    sim_world_zone_add(w, "mx.example.com. A 192.0.2.1\n");
    mx = sim_world_host(w, "192.0.2.1");
    msg = message_new();
    assert_non_null(msg);
    msg->sender.text = msg->sender.local = msg->sender.domain = STR("");
    msg->body = body_new();
    assert_int_equal(body_append(msg->body, str_make(text, sizeof text - 1)), 0);
    msg->size = msg->body->size;
    msg->n_chunks = msg->body->n_chunks;
    return 0;
}

static int teardown(void **state)
{
    out_teardown(state);
    msg = message_unref(msg);
    return 0;
}

/* ---- the pool ---- */

static void test_Q6_reuse(void **state)
{
    struct user u;
    out_start();
    for (int i = 0; i < 5; i++) {
        run(&u);
        assert_true(u.done);
        assert_int_equal(u.final, 250);
        assert_int_equal(u.reused, i > 0);
        sim_world_advance(w, SIM_SECOND);
    }
    assert_int_equal(sim_host_sessions(mx), 1);
    sim_world_advance(w, 3 * SIM_SECOND); /* idle for 2 s: QUIT */
    assert_int_equal(sim_host_open(mx), 0);
    assert_int_equal(connections_open(engine0()->connections), 0);
    run(&u);
    assert_false(u.reused);
    assert_int_equal(sim_host_inbox(mx), 6);
}

static void test_not_reused(void **state)
{
    struct user u;
    set->queue.per_connection = 2;
    out_start();
    for (int i = 0; i < 4; i++)
        run(&u);
    assert_int_equal(sim_host_sessions(mx), 2);
    sim_world_advance(w, SIM_MINUTE);
    run_with(&u, ROUTE_TLS_NONE);
    run_with(&u, ROUTE_TLS_OPPORTUNISTIC); /* another policy */
    assert_int_equal(sim_host_sessions(mx), 4);
    set->queue.connection_ms = 100;
    sim_world_advance(w, SIM_MINUTE);
    run(&u);
    sim_world_advance(w, 200);
    run(&u);
    assert_false(u.reused); /* too old */
}

static void test_idle_ones_make_room(void **state)
{
    struct user u, other;
    struct session_out_key key = { .addr = sim_addr("192.0.2.2:25"),
                                   .name = STR("mx.other.example"),
                                   .tls = ROUTE_TLS_NONE };
    sim_world_host(w, "192.0.2.2");
    set->queue.connections = 1;
    out_start();
    run(&u);
    assert_int_equal(connections_open(engine0()->connections), 1);
    other = (struct user){ .keep = true };
    other.s = session_out_open(engine0(), &key, engine0()->snapshot, &events, &other);
    assert_non_null(other.s);
    assert_null(session_out_open(engine0(), &key, engine0()->snapshot, &events, &u)); /* busy */
    assert_true(sim_world_until(w, ended, &other, SIM_MINUTE));
    assert_true(other.done);
}

/* The host went away while the connection was idle: its user is told at READY or MAIL, and tries again. */
static void test_stale(void **state)
{
    struct user u;
    out_start();
    run(&u);
    open_with(&u, ROUTE_TLS_NONE);
    sim_host_down(mx);
    assert_true(sim_world_until(w, ended, &u, SIM_MINUTE));
    assert_true(u.failed);
    assert_in_range(u.stage, SMTP_STAGE_READY, SMTP_STAGE_MAIL);
    assert_int_equal(u.code, 0);
}

static void test_aborted_at_any_time(void **state)
{
    struct user u;
    out_start();
    for (int64_t ms = 0; ms < 120; ms++) {
        open_with(&u, ROUTE_TLS_OPPORTUNISTIC);
        sim_world_advance(w, ms);
        if (u.s)
            session_out_abort(u.s);
    }
    sim_world_advance(w, SIM_MINUTE);
    assert_int_equal(connections_open(engine0()->connections), 0);
    assert_int_equal(sim_host_open(mx), 0);
}

/* ---- deadlines ---- */

static void test_deadlines(void **state)
{
    static const struct {
        enum smtp_stage stage;
        size_t limit; /* in settings.timeouts */
    } stages[] = {
        { SMTP_STAGE_GREETING, offsetof(struct settings, timeouts.greeting_ms) },
        { SMTP_STAGE_HELO, offsetof(struct settings, timeouts.helo_ms) },
        { SMTP_STAGE_MAIL, offsetof(struct settings, timeouts.mail_ms) },
        { SMTP_STAGE_DATA, offsetof(struct settings, timeouts.data_command_ms) },
        { SMTP_STAGE_FINAL, offsetof(struct settings, timeouts.final_ms) },
    };
    sim_host_hide(mx, STR("PIPELINING"));
    out_start();
    for (size_t i = 0; i < ARRAY_LEN(stages); i++) {
        struct user u;
        struct sim_rule rule = { .stage = stages[i].stage, .action = SIM_SILENCE };
        int64_t limit = *(int64_t *)((char *)set + stages[i].limit), begun = engine_now(engine0());
        sim_host_clear_rules(mx);
        sim_host_add_rule(mx, &rule);
        run(&u);
        assert_true(u.failed);
        assert_int_equal(u.stage, stages[i].stage);
        assert_in_range(u.at - begun, limit, limit + SIM_SECOND);
        assert_true(str_starts(str_of(u.why), STR("timeout")));
    }
}

static void test_connect_deadline(void **state)
{
    struct user u;
    sim_host_set_reach(mx, SIM_SILENT);
    out_start();
    int64_t begun = engine_now(engine0());
    run(&u);
    assert_true(u.failed);
    assert_int_equal(u.stage, SMTP_STAGE_CONNECT);
    assert_int_equal(u.at - begun, set->timeouts.connect_ms);
    sim_host_set_reach(mx, SIM_REFUSES);
    run(&u);
    assert_int_equal(u.stage, SMTP_STAGE_CONNECT);
}

/* ---- TLS ---- */

static void test_tls(void **state)
{
    static const struct {
        enum route_tls policy;
        enum sim_starttls host;
        bool untrusted;
        bool done, secured;
    } cases[] = {
        { ROUTE_TLS_NONE, SIM_STARTTLS_OFFERED, false, true, false },
        { ROUTE_TLS_OPPORTUNISTIC, SIM_STARTTLS_OFFERED, true, true, true },
        { ROUTE_TLS_OPPORTUNISTIC, SIM_STARTTLS_NONE, false, true, false },
        { ROUTE_TLS_REQUIRE, SIM_STARTTLS_OFFERED, true, true, true },
        { ROUTE_TLS_REQUIRE, SIM_STARTTLS_NONE, false, false, false },
        { ROUTE_TLS_REQUIRE, SIM_STARTTLS_REFUSED, false, false, false },
        { ROUTE_TLS_REQUIRE, SIM_STARTTLS_BROKEN, false, false, false },
        { ROUTE_TLS_VERIFY, SIM_STARTTLS_OFFERED, false, true, true },
        { ROUTE_TLS_VERIFY, SIM_STARTTLS_OFFERED, true, false, false },
    };
    out_start();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct user u;
        struct sim_certificate cert = { .name = STR("mx.example.com"),
                                        .untrusted = cases[i].untrusted };
        size_t before = sim_host_inbox(mx);
        sim_host_set_starttls(mx, cases[i].host);
        sim_host_set_certificate(mx, &cert);
        run_with(&u, cases[i].policy);
        sim_world_advance(w, SIM_MINUTE);
        assert_int_equal(u.done, cases[i].done);
        assert_int_equal(u.tls[0] != 0, cases[i].secured);
        assert_int_equal(sim_host_inbox(mx) - before, cases[i].done); /* not a byte in clear */
        if (u.failed)
            assert_in_range(u.stage, SMTP_STAGE_STARTTLS, SMTP_STAGE_TLS);
    }
}

/* ---- what the host takes ---- */

static void give(uint32_t flags, struct str content)
{
    body_unref(msg->body);
    msg->body = body_new();
    assert_non_null(msg->body);
    assert_int_equal(body_append(msg->body, content), 0);
    msg->size = msg->body->size;
    msg->n_chunks = msg->body->n_chunks;
    msg->flags = flags;
}

static void arrives(struct str want)
{
    struct user u;
    size_t before = sim_host_inbox(mx);

    run(&u);
    assert_true(u.done);
    assert_int_equal(u.final, 250);
    assert_int_equal(sim_host_inbox(mx), before + 1);
    struct str got = sim_host_received(mx, before)->content;
    if (!str_eq(got, want))
        fail_msg("want " STR_FMT "\ngot " STR_FMT, STR_ARG(want), STR_ARG(got));
}

#define BINARY                                                                                     \
    "MIME-Version: 1.0\r\nContent-Type: a/b\r\nContent-Transfer-Encoding: binary\r\n\r\n\n.\r\n\r.\r\0x"

static void test_bdat(void **state)
{
    out_start();
    sim_host_set_chunking(mx, true, true);
    give(MESSAGE_BINARY | MESSAGE_8BIT | MESSAGE_OPEN_END, STR(BINARY));
    arrives(STR(BINARY));
    give(MESSAGE_OPEN_END, STR("A: b\r\n\r\n.\r\nno end"));
    arrives(STR("A: b\r\n\r\n.\r\nno end"));
    give(0, STR("A: b\r\n\r\n.\r\n")); /* by DATA */
    arrives(STR("A: b\r\n\r\n.\r\n"));
    sim_world_advance(w, SIM_MINUTE); /* the connection, and what it knows of the host, go */
    sim_host_set_chunking(mx, false, false);
    give(MESSAGE_OPEN_END, STR("A: b\r\n\r\nno end"));
    arrives(STR("A: b\r\n\r\nno end\r\n"));
}

/* Of which nothing is as it should be: neither accepted nor lost. */
static void test_a_size_that_is_not_true(void **state)
{
    struct user u;

    out_start();
    sim_host_set_chunking(mx, true, true);
    for (int more = -1; more <= 1; more += 2) {
        give(MESSAGE_OPEN_END, STR("A: b\r\n\r\nno end"));
        msg->size += (uint64_t)(int64_t)more;
        run(&u);
        assert_true(u.failed);
        assert_int_equal(u.stage, SMTP_STAGE_BODY);
        assert_int_equal(sim_host_inbox(mx), 0);
    }
}

static void test_Q11_converted(void **state)
{
    out_start();
    sim_host_set_chunking(mx, true, false); /* BDAT alone does not do */
    give(MESSAGE_BINARY | MESSAGE_8BIT | MESSAGE_OPEN_END, STR(BINARY));
    arrives(
        STR("MIME-Version: 1.0\r\nContent-Type: a/b\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            "Ci4NCg0uDQB4\r\n"));
    sim_world_advance(w, SIM_MINUTE);
    sim_host_hide(mx, STR("8BITMIME"));
    give(MESSAGE_8BIT, STR("MIME-Version: 1.0\r\n\r\n.\xe4\r\n.\r\n"));
    arrives(STR(
        "MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n.=E4\r\n.\r\n"));
}

static void test_Q11_what_cannot_be_converted(void **state)
{
    struct user u;

    out_start();
    sim_host_hide(mx, STR("8BITMIME"));
    give(MESSAGE_8BIT, STR("Subject: \xe4\r\n\r\nx\r\n"));
    run(&u);
    assert_true(u.done && u.rcpts == 0);
    assert_int_equal(u.final, 554);
    assert_int_equal(sim_host_inbox(mx), 0);
    give(MESSAGE_8BIT, STR("Subject: x\r\n\r\nx\r\n")); /* over the same connection */
    run(&u);
    assert_true(u.reused && u.final == 250);
    give(MESSAGE_8BIT, STR("Subject: x\r\n\r\n\xe4\r\n"));
    sim_world_advance(w, SIM_MINUTE);
    sim_host_set_size_limit(mx, 30);
    run(&u);
    assert_true(u.done && u.final == 552);
}

/* While it is looked at, and at each turn behind it. */
static void test_aborted_while_it_is_converted(void **state)
{
    struct buf large;

    out_start();
    sim_host_hide(mx, STR("8BITMIME"));
    buf_init(&large, 0);
    buf_add_str(&large, STR("Subject: x\r\n\r\n"));
    while (buf_len(&large) < 300000)
        buf_add_str(&large, STR("gr\xc3\xbc\xc3\x9f\x65\r\n"));
    give(MESSAGE_8BIT, buf_str(&large));
    buf_done(&large);
    for (int64_t ms = 0; ms < 400; ms += 7) {
        struct user u;
        open_with(&u, ROUTE_TLS_NONE);
        sim_world_advance(w, ms);
        if (u.s)
            session_out_abort(u.s);
        sim_world_advance(w, SIM_SECOND);
    }
}

#define WITH_WORLD(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(test_Q6_reuse),
        WITH_WORLD(test_not_reused),
        WITH_WORLD(test_idle_ones_make_room),
        WITH_WORLD(test_stale),
        WITH_WORLD(test_aborted_at_any_time),
        WITH_WORLD(test_deadlines),
        WITH_WORLD(test_connect_deadline),
        WITH_WORLD(test_tls),
        WITH_WORLD(test_bdat),
        WITH_WORLD(test_a_size_that_is_not_true),
        WITH_WORLD(test_Q11_converted),
        WITH_WORLD(test_Q11_what_cannot_be_converted),
        WITH_WORLD(test_aborted_while_it_is_converted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
