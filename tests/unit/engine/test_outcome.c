/* What becomes of results: notifications, their failures, hooks, and what is written when. The table of whose
 * failure it is (Q4) is in tests/scenario/test_failures.c. */
#include "out_world.h"

static struct sim_host *mx, *back;

static struct {
    enum verdict route; /* what `route` says of DSN */
    bool only_dsn;
    struct route *to; /* what `result` says */
} hook;

static bool ask(void *arg, enum hook h, const struct hook_input *in, struct hook_result *ret)
{
    if (h == HOOK_RESULT && hook.to) {
        ret->verdict = VERDICT_ROUTE;
        ret->route = route_ref(hook.to);
        return true;
    }
    if (h != HOOK_ROUTE || hook.route == VERDICT_NONE ||
        (hook.only_dsn && in->message->sender->text.n))
        return false;
    ret->verdict = hook.route;
    ret->reply = hook.route == VERDICT_REJECT ? REPLY(550, ENH(5, 7, 1), "no")
                                              : REPLY(451, ENH(4, 7, 1), "later");
    return true;
}

static int setup(void **state)
{
    out_setup(state);
    sim_world_zone_add(w, "example.com. MX 10 mx.example.com.\nmx.example.com. A 192.0.2.1\n");
    sim_policy_domain(&policy, "example.com", NULL);
    memset(&hook, 0, sizeof hook);
    hook.only_dsn = true;
    policy.ask = ask;
    policy.asks = 1u << HOOK_ROUTE | 1u << HOOK_RESULT;
    mx = sim_world_host(w, "192.0.2.1");
    back = sim_world_host(w, "192.0.2.77");
    return 0;
}

static void send_two(void)
{
    struct str to[] = { STR("good@example.com"), STR("bad@example.com") };
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = to,
                          .n_recipients = 2,
                          .content = STR("Subject: x\r\n\r\nhello\r\n") };
    struct sim_rule bad = { .stage = SMTP_STAGE_RCPT,
                            .address = STR("bad@example.com"),
                            .reply = REPLY(550, ENH(5, 1, 1), "unknown") };
    sim_host_add_rule(mx, &bad);
    out_start();
    assert_int_equal(sim_world_send(w, &m)->accepted, 2);
}

static void test_notified(void **state)
{
    send_two();
    sim_world_advance(w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(sim_host_inbox(back), 1);
    assert_int_equal(sim_host_count_with(back, STR("bad@example.com")), 1);
    assert_int_equal(sim_host_count_with(back, STR("good@example.com")), 0);
    assert_int_equal(sim_host_received(back, 0)->sender.n, 0);
    assert_int_equal(sim_world_queued(w), 0);
}

/* The notification cannot be taken now: what was delivered is not delivered again meanwhile. */
static void test_notification_put_off(void **state)
{
    hook.route = VERDICT_DEFER;
    send_two();
    sim_world_advance(w, SIM_DAY);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(sim_host_inbox(back), 0);
    assert_int_equal(sim_world_queued(w), 1);
    hook.route = VERDICT_NONE;
    sim_world_advance(w, SIM_DAY);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(sim_host_inbox(back), 1);
    assert_int_equal(sim_world_queued(w), 0);
}

/* Refused or discarded by a policy: the failure stands, and the log says so. */
static void test_notification_dropped(void **state)
{
    static const enum verdict verdicts[] = { VERDICT_REJECT, VERDICT_DISCARD };
    for (size_t i = 0; i < ARRAY_LEN(verdicts); i++) {
        if (i)
            setup(NULL);
        hook.route = verdicts[i];
        send_two();
        sim_world_advance(w, SIM_HOUR);
        assert_int_equal(sim_host_inbox(mx), 1);
        assert_int_equal(sim_host_inbox(back), 0);
        assert_int_equal(sim_world_queued(w), 0);
        assert_int_equal(counted("dsn_dropped"), 1);
        if (i == 0)
            out_end();
    }
}

static void test_never_for_the_null_sender(void **state)
{
    sim_host_reply(mx, SMTP_STAGE_RCPT, 550, STR("unknown"));
    out_start();
    assert_int_equal(sim_world_mail(w, "", "u@example.com", "a notification"), 250);
    sim_world_advance(w, SIM_HOUR);
    assert_int_equal(sim_world_queued(w), 0);
    assert_int_equal(sim_host_inbox(back), 0);
    assert_int_equal(counted("bounced"), 1);
}

/* A notification that fails itself is dropped. */
static void test_notification_fails(void **state)
{
    sim_host_reply(back, SMTP_STAGE_RCPT, 550, STR("who?"));
    send_two();
    sim_world_advance(w, SIM_HOUR);
    assert_int_equal(sim_world_queued(w), 0);
    assert_int_equal(counted("bounced"), 2);
}

static void test_rerouted_by_the_hook(void **state)
{
    struct sim_host *other = sim_world_host(w, "192.0.2.9");
    sim_host_down(mx);
    hook.to = sim_route_hosts("192.0.2.9", false);
    out_start();
    assert_int_equal(mail_to("u@example.com", "moved"), 250);
    sim_world_advance(w, SIM_MINUTE);
    assert_int_equal(sim_host_count_with(other, STR("moved")), 1);
    assert_int_equal(sim_world_queued(w), 0);
    hook.to = route_unref(hook.to);
}

/* H7: a policy that was corrected rescues what is queued; one recipient's new route is not another's. */
static struct str split_domain = { "b@example.com", 13 };

static bool split(void *arg, enum hook h, const struct hook_input *in, struct hook_result *ret)
{
    if (h != HOOK_ROUTE || set->fingerprint == 1)
        return false;
    bool is_b = str_eq(in->recipient->address->text, split_domain);
    struct route *r = sim_route_hosts(is_b ? "192.0.2.11" : "192.0.2.10", false);
    r->queue = STR("example.com");
    ret->verdict = VERDICT_ROUTE;
    ret->route = r;
    return true;
}

static void test_routes_part(void **state)
{
    struct sim_host *ten = sim_world_host(w, "192.0.2.10"),
                    *eleven = sim_world_host(w, "192.0.2.11");
    struct str to[] = { STR("a@example.com"), STR("b@example.com"), STR("c@example.com") };
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = to,
                          .n_recipients = 3,
                          .content = STR("Subject: x\r\n\r\nhello\r\n") };
    policy.ask = split;
    sim_host_down(mx);
    out_start();
    assert_int_equal(sim_world_send(w, &m)->accepted, 3);
    sim_world_advance(w, 5 * SIM_SECOND);
    struct settings *old = set;
    set = settings_new();
    set->hostname = STR("mx2.isp.example");
    set->file = STR("test");
    set->fingerprint = 2;
    sim_world_configure(w, set, sim_policy_hooks, &policy);
    sim_world_reload(w);
    sim_world_advance(w, SIM_HOUR);
    settings_unref(old);
    assert_int_equal(sim_world_queued(w), 0);
    assert_int_equal(sim_host_inbox(ten), 1);
    assert_int_equal(sim_host_received(ten, 0)->n_recipients, 2);
    assert_int_equal(sim_host_inbox(eleven), 1);
    assert_int_equal(sim_host_received(eleven, 0)->n_recipients, 1);
}

/* A fallback need not name hosts. */
static void test_fallback_of_another_kind(void **state)
{
    struct route *r = route_new(ROUTE_HOSTS), *hold = sim_route_hold("kept");
    r->targets = ARENA_NEW(&r->arena, struct route_target);
    assert_int_equal(route_target_parse(&r->arena, STR("192.0.2.1"), false, r->targets), 0);
    r->n_targets = 1;
    r->fallback = hold;
    assert_int_equal(route_finish(r), 0);
    sim_policy_domain(&policy, "example.com", r);
    sim_host_down(mx);
    out_start();
    assert_int_equal(mail_to("u@example.com", "x"), 250);
    sim_world_advance(w, SIM_MINUTE);
    assert_int_equal(class_count("kept", SPOOL_WAITING), 1);
}

/* The end of an engine with results at the spool, at any moment. */
static void test_engine_goes(void **state)
{
    for (int64_t ms = 1; ms < 400; ms += 7) {
        if (ms > 1)
            setup(NULL);
        sim_spool_set_latency(sim_world_spool(w), 60);
        send_two();
        sim_world_advance(w, ms);
        sim_world_crash(w);
        sim_world_start(w);
        sim_world_advance(w, SIM_HOUR);
        assert_int_equal(sim_world_queued(w), 0);
        assert_in_range(sim_host_inbox(mx), 1, 2);
        assert_in_range(sim_host_inbox(back), 1, 2);
        if (ms + 7 < 400)
            out_end();
    }
}

#define WITH_WORLD(t) cmocka_unit_test_setup_teardown(t, setup, out_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(test_notified),
        WITH_WORLD(test_notification_put_off),
        WITH_WORLD(test_notification_dropped),
        WITH_WORLD(test_never_for_the_null_sender),
        WITH_WORLD(test_notification_fails),
        WITH_WORLD(test_rerouted_by_the_hook),
        WITH_WORLD(test_routes_part),
        WITH_WORLD(test_fallback_of_another_kind),
        WITH_WORLD(test_engine_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
