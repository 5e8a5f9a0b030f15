/* Asking hosts without a message (B11, B12, H8): answers, failures, deadlines, who shares them, cancelling. */
#include "engine/probe.h"

#include "out_world.h"

static struct sim_host *mx;
static struct route *to_domain;

struct asker {
    struct probe *probe;
    bool done;
    enum probe_end end;
    enum smtp_stage stage;
    uint16_t code;
    char text[128], host[64], addr[NET_ADDR_TEXT];
    int64_t at;
};

static void on_probed(void *owner, const struct probe_result *r)
{
    struct asker *a = owner;
    assert_false(a->done);
    a->probe = NULL;
    a->done = true;
    a->end = r->end;
    a->stage = r->stage;
    a->code = r->reply.code;
    a->at = engine_now(engine0());
    str_copy(r->text, a->text, sizeof a->text);
    str_copy(r->host, a->host, sizeof a->host);
    net_addr_text(&r->addr, a->addr);
}

static void ask(struct asker *a, struct route *route, const char *recipient)
{
    struct probe_request request = { .route = route,
                                     .sender = STR(""),
                                     .recipient = str_of(recipient),
                                     .timeout_ms = 10 * SIM_SECOND };
    *a = (struct asker){ 0 };
    assert_int_equal(probe_start(engine0(), &request, on_probed, a, &a->probe), 0);
    assert_false(a->done);
}

static bool told(void *arg)
{
    return ((struct asker *)arg)->done;
}

static void run(struct asker *a, const char *recipient)
{
    ask(a, to_domain, recipient);
    assert_true(sim_world_until(w, told, a, SIM_MINUTE));
}

static struct route *route_to(const char *domain, bool below_self)
{
    struct route *r = route_new(ROUTE_MX);
    assert_non_null(r);
    r->domain = arena_str(&r->arena, str_of(domain));
    r->below_self = below_self;
    assert_int_equal(route_finish(r), 0);
    return r;
}

static int setup(void **state)
{
    out_setup(state);
    sim_world_zone_add(w, "example.com. MX 10 mx.example.com.\n"
                          "example.com. MX 20 mx2.isp.example.\n"
                          "mx.example.com. A 192.0.2.1\n");
    mx = sim_world_host(w, "192.0.2.1");
    to_domain = route_to("example.com", true);
    sim_policy_domain(&policy, "example.com", sim_route_backup("example.com"));
    return 0;
}

static int teardown(void **state)
{
    out_teardown(state);
    to_domain = route_unref(to_domain);
    return 0;
}

static void test_accepted(void **state)
{
    struct asker a;
    out_start();
    run(&a, "u@example.com");
    assert_int_equal(a.end, PROBE_ANSWERED);
    assert_int_equal(a.stage, SMTP_STAGE_RCPT);
    assert_int_equal(a.code, 250);
    assert_string_equal(a.host, "mx.example.com");
    assert_string_equal(a.addr, "192.0.2.1:25");
    sim_world_advance(w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 0);
    assert_int_equal(sim_host_open(mx), 0);
}

static void test_refused_and_deferred(void **state)
{
    struct asker a;
    sim_host_reply(mx, SMTP_STAGE_RCPT, 550, STR("no such user"));
    out_start();
    run(&a, "u@example.com");
    assert_int_equal(a.end, PROBE_ANSWERED);
    assert_int_equal(a.code, 550);
    assert_string_equal(a.text, "no such user");
    sim_host_clear_rules(mx);
    sim_host_reply(mx, SMTP_STAGE_RCPT, 450, STR("later"));
    run(&a, "u@example.com");
    assert_int_equal(a.code, 450);
    sim_host_clear_rules(mx);
    sim_host_reply(mx, SMTP_STAGE_MAIL, 550, STR("no null senders"));
    run(&a, "u@example.com");
    assert_int_equal(a.stage, SMTP_STAGE_MAIL);
    assert_int_equal(a.code, 550);
    assert_int_equal(sim_host_sessions(mx), 1); /* one connection for all of them */
}

static void test_only_whether_it_answers(void **state)
{
    struct asker a;
    out_start();
    run(&a, "");
    assert_int_equal(a.end, PROBE_ANSWERED);
    assert_int_equal(a.stage, SMTP_STAGE_HELO);
    sim_host_down(mx);
    sim_world_advance(w, SIM_MINUTE);
    run(&a, "");
    assert_int_equal(a.end, PROBE_HOST);
    assert_string_equal(a.text, "connection refused");
}

/* A connection of a probe takes mail afterwards, and one of a delivery a probe. */
static void test_connections_are_shared(void **state)
{
    struct asker a;
    out_start();
    run(&a, "u@example.com");
    assert_int_equal(mail_to("u@example.com", "one"), 250);
    sim_world_advance(w, SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx), 1);
    run(&a, "u@example.com");
    assert_int_equal(a.code, 250);
    assert_int_equal(sim_host_sessions(mx), 1);
    assert_true(sim_host_rsets(mx) >= 1);
}

/* A connection that was idle and is gone: asked again over a new one. */
static void test_stale(void **state)
{
    struct asker a;
    out_start();
    run(&a, "u@example.com");
    sim_host_down(mx);
    sim_host_up(mx);
    run(&a, "u@example.com");
    assert_int_equal(a.code, 250);
}

/* What failed is left alone, by probes and deliveries alike; what a probe finds alive is tried. */
static void test_hosts_are_remembered(void **state)
{
    struct asker a;
    sim_host_down(mx);
    out_start();
    run(&a, "u@example.com");
    assert_int_equal(a.end, PROBE_HOST);
    assert_int_equal(a.stage, SMTP_STAGE_CONNECT);
    sim_host_up(mx);
    run(&a, "u@example.com");
    assert_int_equal(a.end, PROBE_HOST); /* not asked */
    assert_int_equal(sim_host_sessions(mx), 0);
    sim_world_advance(w, 2 * SIM_MINUTE);
    run(&a, "u@example.com");
    assert_int_equal(a.end, PROBE_ANSWERED);
}

static void test_no_host(void **state)
{
    struct asker a;
    struct route *r = route_to("nowhere.example", true);
    out_start();
    ask(&a, r, "u@nowhere.example");
    assert_true(sim_world_until(w, told, &a, SIM_MINUTE));
    assert_int_equal(a.end, PROBE_DNS);
    route_unref(r);
}

static void test_loop(void **state)
{
    struct asker a;
    sim_host_set_name(mx, STR("mx2.isp.example"));
    out_start();
    run(&a, "u@example.com");
    assert_int_equal(a.end, PROBE_LOOP);
}

static void test_the_next_host(void **state)
{
    struct asker a;
    sim_world_zone_add(w, "example.com. MX 15 mxb.example.com.\nmxb.example.com. A 192.0.2.2\n");
    sim_world_host(w, "192.0.2.2");
    sim_host_reply(mx, SMTP_STAGE_GREETING, 421, STR("busy"));
    out_start();
    run(&a, "u@example.com");
    assert_int_equal(a.end, PROBE_ANSWERED);
    assert_string_equal(a.host, "mxb.example.com");
}

static void test_421(void **state)
{
    struct asker a;
    sim_host_reply(mx, SMTP_STAGE_RCPT, 421, STR("going down"));
    out_start();
    run(&a, "u@example.com");
    assert_int_equal(a.end, PROBE_HOST);
    assert_int_equal(a.stage, SMTP_STAGE_RCPT);
    assert_int_equal(a.code, 421);
}

static void test_silence_has_a_deadline(void **state)
{
    struct asker a;
    sim_host_set_reach(mx, SIM_SILENT);
    out_start();
    int64_t began = engine_now(engine0());
    run(&a, "u@example.com");
    assert_int_equal(a.end, PROBE_TIMEOUT);
    assert_string_equal(a.text, "timeout (connect)");
    assert_int_equal(a.at - began, 10 * SIM_SECOND);
    run(&a, "u@example.com"); /* it is known to be down */
    assert_int_equal(a.end, PROBE_HOST);
    assert_int_equal(connections_open(engine0()->connections), 0);
}

/* A host that only takes its time for its greeting is not down for that. */
static void test_slow_is_not_down(void **state)
{
    struct asker a;
    sim_host_set_delay(mx, 20 * SIM_SECOND);
    out_start();
    run(&a, "u@example.com");
    assert_int_equal(a.end, PROBE_TIMEOUT);
    struct net_addr addr = sim_addr("192.0.2.1:25");
    assert_int_equal(hosts_wait(engine0()->hosts, &addr), 0);
}

/* The same question at the same time is asked once; each waits no longer than it wants to. */
static void test_shared(void **state)
{
    struct asker a[20], other;
    sim_host_set_delay(mx, SIM_SECOND);
    out_start();
    for (size_t i = 0; i < ARRAY_LEN(a); i++)
        ask(&a[i], to_domain, "u@example.com");
    ask(&other, to_domain, "v@example.com");
    assert_true(sim_world_until(w, told, &other, SIM_MINUTE));
    sim_world_advance(w, SIM_SECOND);
    for (size_t i = 0; i < ARRAY_LEN(a); i++)
        assert_true(a[i].done && a[i].code == 250);
    assert_int_equal(sim_host_sessions(mx), 2);
}

static void test_too_many(void **state)
{
    struct asker a[PROBES_MAX + 1];
    char to[32];
    sim_host_set_delay(mx, SIM_SECOND);
    out_start();
    for (int i = 0; i < PROBES_MAX; i++) {
        snprintf(to, sizeof to, "u%d@example.com", i);
        ask(&a[i], to_domain, to);
    }
    struct probe_request more = { .route = to_domain,
                                  .sender = STR(""),
                                  .recipient = STR("more@example.com"),
                                  .timeout_ms = SIM_SECOND };
    assert_int_equal(probe_start(engine0(), &more, on_probed, &a[PROBES_MAX], &a[PROBES_MAX].probe),
                     -EBUSY);
    assert_true(sim_world_until(w, told, &a[0], SIM_MINUTE));
    sim_world_advance(w, SIM_SECOND);
    run(&a[PROBES_MAX], "more@example.com");
    assert_int_equal(a[PROBES_MAX].code, 250);
}

static void test_cancelled_at_any_time(void **state)
{
    struct asker a, b;
    out_start();
    for (int64_t ms = 0; ms < 120; ms++) {
        ask(&a, to_domain, "u@example.com");
        ask(&b, to_domain, "u@example.com");
        sim_world_advance(w, ms);
        if (!a.done)
            probe_cancel(a.probe);
        if (!b.done && ms % 2)
            probe_cancel(b.probe);
        else if (!b.done)
            assert_true(sim_world_until(w, told, &b, SIM_MINUTE));
        sim_world_advance(w, 3 * SIM_SECOND);
    }
    assert_int_equal(connections_open(engine0()->connections), 0);
}

/* The engine goes while somebody asks: nobody is told, cancelling is still right. */
static void test_the_engine_goes(void **state)
{
    struct asker a;
    sim_host_set_delay(mx, SIM_SECOND);
    out_start();
    ask(&a, to_domain, "u@example.com");
    sim_world_advance(w, 100);
    sim_world_crash(w);
    assert_false(a.done);
    probe_cancel(a.probe);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_accepted),
        T(test_refused_and_deferred),
        T(test_only_whether_it_answers),
        T(test_connections_are_shared),
        T(test_stale),
        T(test_hosts_are_remembered),
        T(test_no_host),
        T(test_loop),
        T(test_the_next_host),
        T(test_421),
        T(test_silence_has_a_deadline),
        T(test_slow_is_not_down),
        T(test_shared),
        T(test_too_many),
        T(test_cancelled_at_any_time),
        T(test_the_engine_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
