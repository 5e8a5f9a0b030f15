/* The virtual network keeps the promises of ports.h: order, turns, pauses, ends, TLS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "sim/net.h"

struct side {
    struct sim_clock *clock;
    struct stream *s;
    struct buf got;
    size_t leave; /* bytes to leave in the input */
    int opened, datas, drained, secured, closed, error;
    bool in_call; /* of ours, into the stream */
    char why[128];
    struct tls_facts facts;
};

static void on_opened(struct stream *s, void *owner)
{
    struct side *me = owner;
    assert_false(me->in_call);
    me->opened++;
}

static void on_data(struct stream *s, void *owner)
{
    struct side *me = owner;
    struct str in = stream_input(s);
    assert_false(me->in_call);
    assert_true(in.n > 0);
    me->datas++;
    size_t n = in.n > me->leave ? in.n - me->leave : 0;
    buf_add(&me->got, in.p, n);
    stream_consume(s, n);
}

static void on_drained(struct stream *s, void *owner)
{
    struct side *me = owner;
    assert_false(me->in_call);
    me->drained++;
}

static void on_secured(struct stream *s, void *owner, const struct tls_facts *facts)
{
    struct side *me = owner;
    me->secured++;
    me->facts = *facts;
}

static void on_closed(struct stream *s, void *owner, int error, const char *why)
{
    struct side *me = owner;
    assert_false(me->in_call);
    assert_int_equal(me->closed, 0);
    me->closed++;
    me->error = error;
    snprintf(me->why, sizeof me->why, "%s", why);
    me->s = NULL;
}

static const struct stream_events events = {
    on_opened, on_data, on_drained, on_secured, on_closed,
};

struct fixture {
    struct sim_clock clock;
    struct sim_net *net;
    struct sim_uplink *uplink;
    struct sim_listener listener;
    struct side a, b; /* a dials, b accepts */
};

static void accept_b(struct sim_listener *l, struct stream *s)
{
    struct fixture *f = CONTAINER_OF(l, struct fixture, listener);
    f->b.s = s;
    s->ev = &events;
    s->owner = &f->b;
}

static struct net_addr addr(const char *text)
{
    struct net_addr a;
    assert_int_equal(net_addr_parse(str_of(text), 0, &a), 0);
    return a;
}

static void setup(struct fixture *f, uint64_t seed)
{
    memset(f, 0, sizeof *f);
    sim_clock_init(&f->clock);
    f->net = sim_net_new(&f->clock, seed);
    f->uplink = sim_uplink_new(f->net);
    f->listener =
        (struct sim_listener){ .addr = addr("192.0.2.1:25"), .latency_ms = -1, .accept = accept_b };
    list_init(&f->listener.link);
    sim_net_listen(f->net, &f->listener);
    buf_init(&f->a.got, 0);
    buf_init(&f->b.got, 0);
    f->a.clock = f->b.clock = &f->clock;
}

static void teardown(struct fixture *f)
{
    buf_done(&f->a.got);
    buf_done(&f->b.got);
    sim_net_free(f->net);
    sim_uplink_free(f->uplink);
    sim_clock_done(&f->clock);
}

static void run(struct fixture *f, int64_t ms)
{
    int64_t until = f->clock.now + ms;
    while (sim_clock_turn(&f->clock, until))
        ;
    sim_clock_pass(&f->clock, until);
}

static void dial(struct fixture *f)
{
    struct net_addr to = addr("192.0.2.1:25");
    struct port_net *port = sim_uplink_port(f->uplink);
    f->a.s = port->dial(port, &to, NULL, &events, &f->a);
}

static void put(struct side *from, const char *text)
{
    from->in_call = true;
    assert_int_equal(stream_write(from->s, text, strlen(text)), 0);
    from->in_call = false;
}

static void assert_got(const struct side *s, const char *text)
{
    assert_int_equal(buf_len(&s->got), strlen(text));
    assert_memory_equal(buf_str(&s->got).p, text, strlen(text));
}

static void test_talk_and_close(void **state)
{
    struct fixture f;
    setup(&f, 1);
    dial(&f);
    assert_int_equal(f.a.opened, 0);
    run(&f, 100);
    assert_int_equal(f.a.opened, 1);
    assert_non_null(f.b.s);
    assert_true(net_addr_eq(&f.a.s->local, &f.b.s->peer));
    put(&f.a, "hello ");
    put(&f.a, "world");
    put(&f.b, "220");
    assert_int_equal(f.b.datas, 0);
    run(&f, 4);
    assert_int_equal(f.b.datas, 0); /* latency is 5 */
    run(&f, 96);
    assert_got(&f.b, "hello world");
    assert_got(&f.a, "220");
    put(&f.b, "bye");
    stream_close(f.b.s);
    run(&f, 100);
    assert_got(&f.a, "220bye");
    assert_int_equal(f.a.closed, 1);
    assert_int_equal(f.a.error, 0);
    assert_int_equal(f.b.closed, 0); /* who closes is not called back */
    teardown(&f);
}

static void test_unreachable(void **state)
{
    static const struct {
        enum sim_reach reach;
        int error;
        int64_t at_most;
    } cases[] = {
        { SIM_REFUSES, -ECONNREFUSED, 100 },
        { SIM_UNREACHABLE, -EHOSTUNREACH, 100 },
        { SIM_SILENT, -ETIMEDOUT, SIM_CONNECT_MS + 100 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture f;
        setup(&f, i);
        f.listener.reach = cases[i].reach;
        dial(&f);
        assert_int_equal(f.a.closed, 0);
        run(&f, cases[i].at_most);
        assert_int_equal(f.a.closed, 1);
        assert_int_equal(f.a.error, cases[i].error);
        assert_int_equal(sim_uplink_streams(f.uplink), 0);
        teardown(&f);
    }
}

static void test_abort(void **state)
{
    struct fixture f;
    setup(&f, 1);
    dial(&f);
    stream_abort(f.a.s); /* while connecting: nobody hears of it */
    run(&f, 1000);
    assert_null(f.b.s);
    dial(&f);
    run(&f, 100);
    stream_abort(f.a.s);
    run(&f, 100);
    assert_int_equal(f.b.closed, 1);
    assert_int_equal(f.b.error, -ECONNRESET);
    assert_int_equal(f.a.closed, 0);
    teardown(&f);
}

static void test_pause_and_window(void **state)
{
    struct fixture f;
    static char block[200000];
    setup(&f, 1);
    memset(block, 'x', sizeof block);
    dial(&f);
    run(&f, 100);
    f.b.leave = SIZE_MAX; /* reads nothing */
    f.a.in_call = true;
    stream_write(f.a.s, block, sizeof block);
    f.a.in_call = false;
    run(&f, 1000);
    assert_int_equal(f.b.datas, 1); /* and is not asked again */
    assert_true(stream_unsent(f.a.s) > SIM_HIGH_MARK);
    assert_true(stream_input(f.b.s).n <= SIM_WINDOW);
    f.b.leave = 0;
    stream_resume(f.b.s);
    assert_int_equal(f.b.datas, 1); /* on a later turn */
    run(&f, 1000);
    assert_int_equal(buf_len(&f.b.got), sizeof block);
    assert_int_equal(stream_unsent(f.a.s), 0);
    assert_int_equal(f.a.drained, 1);
    f.b.leave = 3; /* leaves a part each time, and resumes */
    put(&f.a, "abcdef");
    run(&f, 100);
    assert_int_equal(stream_input(f.b.s).n, 3);
    put(&f.a, "ghi");
    run(&f, 100);
    assert_int_equal(stream_input(f.b.s).n, 3);
    f.b.leave = 0;
    stream_resume(f.b.s);
    run(&f, 100);
    assert_int_equal(buf_len(&f.b.got), sizeof block + 9);
    teardown(&f);
}

static void test_reset_passes_a_paused_reader(void **state)
{
    struct fixture f;
    setup(&f, 1);
    dial(&f);
    run(&f, 100);
    f.b.leave = SIZE_MAX;
    put(&f.a, "one");
    run(&f, 100);
    put(&f.a, "two");
    stream_abort(f.a.s);
    run(&f, 100);
    assert_int_equal(f.b.closed, 1);
    assert_int_equal(f.b.error, -ECONNRESET);
    teardown(&f);
}

static void test_half_close(void **state)
{
    struct fixture f;
    setup(&f, 1);
    dial(&f);
    run(&f, 100);
    put(&f.a, "QUIT");
    sim_stream_half_close(f.a.s);
    assert_int_equal(stream_write(f.a.s, "x", 1), -EPIPE);
    run(&f, 100);
    assert_got(&f.b, "QUIT");
    assert_int_equal(f.b.closed, 1);
    assert_int_equal(f.b.error, 0);
    assert_int_equal(f.a.closed, 1); /* the other one has gone, too */
    assert_int_equal(f.a.error, 0);
    teardown(&f);
}

static void shake(struct fixture *f, enum tls_verify verify)
{
    struct sim_certificate cert = { .name = STR("mx.example.com") };
    struct tls_request server = { .server = true };
    struct tls_request client = { .name = STR("mx.example.com"), .verify = verify };
    sim_stream_set_certificate(f->b.s, &cert);
    assert_int_equal(stream_starttls(f->b.s, &server), 0);
    assert_int_equal(stream_starttls(f->a.s, &client), 0);
}

static void test_tls(void **state)
{
    struct fixture f;
    setup(&f, 1);
    dial(&f);
    run(&f, 100);
    put(&f.b, "220 go ahead");
    shake(&f, TLS_VERIFY_NAME);
    f.a.secured = 0;
    run(&f, 100);
    /* What was in clear behind the request is no TLS record. */
    assert_int_equal(f.a.closed, 1);
    assert_int_equal(f.a.error, -EPROTO);
    teardown(&f);

    setup(&f, 1);
    dial(&f);
    run(&f, 100);
    shake(&f, TLS_VERIFY_NAME);
    run(&f, 100);
    assert_int_equal(f.a.secured, 1);
    assert_int_equal(f.b.secured, 1);
    assert_true(f.a.s->tls && f.b.s->tls);
    assert_true(f.a.facts.verified);
    put(&f.a, "EHLO");
    run(&f, 100);
    assert_got(&f.b, "EHLO");
    teardown(&f);
}

static void test_tls_fails(void **state)
{
    static const struct sim_certificate certs[] = {
        { .name = { "other.example", 13 } },
        { .name = { "mx.example.com", 14 }, .untrusted = true },
        { .name = { "mx.example.com", 14 }, .fails = { "handshake failure", 17 } },
    };
    for (size_t i = 0; i < ARRAY_LEN(certs); i++) {
        struct fixture f;
        struct tls_request server = { .server = true };
        struct tls_request client = { .name = STR("mx.example.com"), .verify = TLS_VERIFY_NAME };
        setup(&f, i);
        dial(&f);
        run(&f, 100);
        sim_stream_set_certificate(f.b.s, &certs[i]);
        stream_starttls(f.b.s, &server);
        stream_starttls(f.a.s, &client);
        run(&f, 100);
        assert_int_equal(f.a.secured, 0);
        assert_int_equal(f.a.closed, 1);
        assert_int_equal(f.a.error, -EPROTO);
        assert_int_equal(f.b.closed, 1);
        teardown(&f);
    }
}

/* Any split gives the same bytes; the same seed gives the same splits. */
static int talk_in_pieces(uint64_t seed)
{
    struct fixture f;
    struct sim_net_faults faults = { .split = 800000, .jitter_ms = 7 };
    char expected[4096] = "";
    setup(&f, seed);
    sim_net_set_faults(f.net, &faults);
    dial(&f);
    run(&f, 200);
    for (int i = 0; i < 40; i++) {
        char line[64];
        snprintf(line, sizeof line, "line number %d\r\n", i);
        strcat(expected, line);
        put(&f.a, line);
        run(&f, 3);
    }
    run(&f, 10000);
    assert_got(&f.b, expected);
    int datas = f.b.datas;
    assert_true(datas > 60);
    teardown(&f);
    return datas;
}

static void test_fragments(void **state)
{
    int differ = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        int n = talk_in_pieces(seed);
        assert_int_equal(n, talk_in_pieces(seed));
        differ += n != talk_in_pieces(seed + 1);
    }
    assert_true(differ > 5);
}

static void test_faults_end_connections(void **state)
{
    int resets = 0, frozen = 0;
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct fixture f;
        struct sim_net_faults faults = { .reset = 50000, .freeze = 50000 };
        setup(&f, seed);
        sim_net_set_faults(f.net, &faults);
        dial(&f);
        run(&f, 100);
        for (int i = 0; i < 30 && f.a.s; i++) {
            put(&f.a, "x");
            run(&f, 10);
        }
        resets += f.a.closed;
        assert_int_equal(f.a.closed, f.b.closed);
        if (f.a.s)
            frozen += buf_len(&f.b.got) < 30;
        if (f.a.s)
            stream_abort(f.a.s);
        run(&f, 20000);
        teardown(&f);
    }
    assert_true(resets > 5 && frozen > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_talk_and_close),
        cmocka_unit_test(test_unreachable),
        cmocka_unit_test(test_abort),
        cmocka_unit_test(test_pause_and_window),
        cmocka_unit_test(test_reset_passes_a_paused_reader),
        cmocka_unit_test(test_half_close),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_tls_fails),
        cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_faults_end_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
