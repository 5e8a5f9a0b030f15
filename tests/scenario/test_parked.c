/* Jobs that wait for a source address: they hold up nobody else, they are not tried in vain, and none of them is
 * forgotten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine/context.h"
#include "engine/queue.h"
#include "fixture.h"

static struct fixture f;
static struct source_settings allowed[4];
static struct sim_host *a, *b; /* of a.example (IPv4) and of b.example (IPv6) */

static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    sim_world_zone_add(f.w, "a.example. MX 1 mx.a.example.\nmx.a.example. A 192.0.2.31\n"
                            "b.example. MX 1 mx.b.example.\nmx.b.example. AAAA 2001:db8::32\n"
                            "c.example. MX 1 mx.c.example.\nmx.c.example. A 192.0.2.33\n");
    a = sim_world_host(f.w, "192.0.2.31");
    b = sim_world_host(f.w, "2001:db8::32");
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

static struct route *by(const char *domain, const char *queue, const char *source)
{
    struct route *r = route_new(ROUTE_MX);
    assert_non_null(r);
    r->domain = str_of(domain);
    r->queue = str_of(queue);
    r->source = str_of(source);
    assert_int_equal(route_finish(r), 0);
    return r;
}

static void allow(const char *addr, uint32_t concurrency, const char *limit)
{
    struct source_settings *s = &allowed[f.settings->n_sources++];
    *s = (struct source_settings){ .concurrency = concurrency };
    assert_int_equal(net_addr_parse_ip(str_of(addr), &s->addr), 0);
    if (limit)
        assert_int_equal(rate_parse(str_of(limit), &s->rate), 0);
    f.settings->sources = allowed;
}

static void mails(const char *recipient, int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(mail_to(&f, recipient), 250);
}

static void post(const char *recipient, int n)
{
    for (int i = 0; i < n; i++) {
        struct str to = str_of(recipient);
        struct sim_mail m = { .sender = STR("client@sender.example"),
                              .recipients = &to,
                              .n_recipients = 1,
                              .content = STR("Subject: x\r\n\r\nhello\r\n") };
        sim_world_post(f.w, &m);
    }
}

static uint64_t attempts(const char *host)
{
    return sim_dns_asked(sim_world_dns(f.w), str_of(host), DNS_A);
}

static struct queue_status status_of(const char *queue)
{
    struct queue_status st;
    assert_true(queue_status(sim_world_engine(f.w, 0)->queues, str_of(queue), &st));
    return st;
}

static void nothing_failed(void)
{
    assert_int_equal(counted(&f, "queue_backoff"), 0);
    assert_int_equal(counted(&f, "deferred"), 0);
    assert_int_equal(counted(&f, "host_failed"), 0);
    assert_int_equal(counted(&f, "bounced"), 0);
}

/* Older mail of the same queue waits for an address that may do no more: what has another one goes, from memory and
 * from disk. */
static void test_others_go_on(void **state)
{
    struct sim_host *c = sim_world_host(f.w, "192.0.2.33");
    allow("198.51.100.1", 0, "1/h");
    sim_policy_domain(&f.policy, "a.example", by("a.example", "one", "198.51.100.1"));
    sim_policy_domain(&f.policy, "c.example", by("c.example", "one", "198.51.100.2"));
    fixture_start(&f);
    mails("u@a.example", 40);
    mails("u@c.example", 40);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(a), 1);
    assert_int_equal(sim_host_inbox(c), 40);
    assert_int_equal(status_of("one").gate, GATE_SOURCE);
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(a), 3);
    assert_in_range(attempts("mx.a.example"), 3, 6);
    nothing_failed();
}

/* The host has addresses of one family, of which no source is here; the gate does not know. It is tried once a minute,
 * however often others of its queue go, and goes when the address is back. */
static void test_a_success_elsewhere_ends_no_wait(void **state)
{
    struct net_addr gone = sim_addr("198.51.100.1");
    sim_policy_domain(&f.policy, "a.example", by("a.example", "one", "198.51.100.1 2001:db8:f::1"));
    sim_policy_domain(&f.policy, "b.example", by("b.example", "one", "198.51.100.1 2001:db8:f::1"));
    sim_world_absent(f.w, &gone, true);
    sim_host_set_delay(b, 20);
    fixture_start(&f);
    mails("u@a.example", 1);
    for (int i = 0; i < 500; i++) {
        post("u@b.example", 1);
        sim_world_advance(f.w, 200);
    }
    assert_in_range(sim_host_inbox(b), 490, 500); /* nor do these wait for it */
    assert_in_range(attempts("mx.a.example"), 2, 4);
    sim_world_absent(f.w, &gone, false);
    for (int i = 0; i < 350; i++) {
        post("u@b.example", 1);
        sim_world_advance(f.w, 200);
    }
    assert_int_equal(sim_host_inbox(a), 1);
    nothing_failed();
}

/* Very many of them are not all tried in vain, again and again; others of their queue come through all the same. */
static void test_many_are_not_all_tried(void **state)
{
    struct net_addr gone = sim_addr("198.51.100.1");
    sim_policy_domain(&f.policy, "a.example", by("a.example", "one", "198.51.100.1 2001:db8:f::1"));
    sim_policy_domain(&f.policy, "b.example", by("b.example", "one", "198.51.100.1 2001:db8:f::1"));
    sim_world_absent(f.w, &gone, true);
    fixture_start(&f);
    post("u@a.example", 600);
    sim_world_advance(f.w, 30 * SIM_SECOND);
    assert_in_range(attempts("mx.a.example"), 30, 32 + 32);
    uint64_t before = attempts("mx.a.example");
    for (int i = 0; i < 60; i++) {
        post("u@b.example", 1);
        sim_world_advance(f.w, 10 * SIM_SECOND);
        assert_in_range(sim_host_inbox(b), i, i + 1);
    }
    assert_in_range(attempts("mx.a.example") - before, 10 * 32,
                    10 * QUEUE_WINDOW); /* a minute each */
    sim_world_absent(f.w, &gone, false);
    sim_world_advance(f.w, 5 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(a), 600);
    assert_int_equal(sim_host_inbox(b), 60);
    nothing_failed();
}

/* One connection for several queues, each of whose mails has its turn as soon as the one before has ended. */
static void test_no_wake_up_is_lost(void **state)
{
    struct sim_host *c = sim_world_host(f.w, "192.0.2.33");
    allow("198.51.100.1", 1, NULL);
    f.settings->queue.idle_ms = 100;
    sim_policy_domain(&f.policy, "a.example", by("a.example", "one", "198.51.100.1"));
    sim_policy_domain(&f.policy, "c.example", by("c.example", "two", "198.51.100.1"));
    sim_host_set_delay(a, 100);
    sim_host_set_delay(c, 100);
    fixture_start(&f);
    for (int i = 0; i < 20; i++) {
        post("u@a.example", 1);
        post("u@c.example", 1);
    }
    sim_world_advance(f.w, 60 * SIM_SECOND); /* 40, each less than a second with its connection */
    assert_int_equal(sim_host_inbox(a), 20);
    assert_int_equal(sim_host_inbox(c), 20);
    assert_int_equal(sim_host_peak(a), 1);
    assert_int_equal(sim_host_peak(c), 1);
    nothing_failed();
}

/* It grows old all the same: its sender is told of the delay, and it is returned in the end, each of many in time. */
static void test_they_grow_old(void **state)
{
    struct net_addr gone = sim_addr("198.51.100.1");
    struct sim_host *back = sim_world_host(f.w, "192.0.2.77");
    sim_policy_domain(&f.policy, "a.example", by("a.example", "one", "198.51.100.1 2001:db8:f::1"));
    sim_policy_domain(&f.policy, "b.example", by("b.example", "one", "198.51.100.1 2001:db8:f::1"));
    sim_world_absent(f.w, &gone, true);
    f.settings->queue.warn_after_ms = SIM_HOUR;
    f.settings->queue.lifetime_ms = 3 * SIM_HOUR;
    fixture_start(&f);
    mails("u@a.example", 60);
    for (int i = 0; i < 15; i++) { /* and others go by it */
        mails("u@b.example", 1);
        sim_world_advance(f.w, 10 * SIM_MINUTE);
    }
    assert_int_equal(got(back, "Action: delayed"), 60);
    assert_int_equal(queued(&f), 60);
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(queued(&f), 0);
    assert_int_equal(got(back, "Action: failed"), 60);
    assert_int_equal(sim_host_inbox(b), 15);
}

/* ---- operators --------------------------------------------------------------------------------- */

static bool command_done;
static int command_result;
static uint64_t command_affected;

static void on_command(struct queue_command *c)
{
    command_done = true;
    command_result = c->result;
    command_affected = c->affected;
    free(c);
}

static bool is_done(void *arg)
{
    return command_done;
}

static void command_of(enum queue_command_type type, const char *queue, const struct msgid *id)
{
    struct queue_command *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->type = type;
    c->one_message = id != NULL;
    if (id)
        c->id = *id;
    c->done = on_command;
    assert_true(str_copy(str_of(queue), c->queue, sizeof c->queue));
    command_done = false;
    queue_command_send(sim_world_ports(f.w, 0)->workers, c);
    assert_true(sim_world_until(f.w, is_done, NULL, SIM_MINUTE));
    assert_int_equal(command_result, 0);
}

static void command(enum queue_command_type type, const char *queue)
{
    command_of(type, queue, NULL);
}

static struct msgid first_message(void)
{
    struct port_spool *spool = sim_world_ports(f.w, 0)->spool;
    struct spool_entry e;
    assert_int_equal(spool->scan_entries(spool, NULL, 0, &e, 1), 1);
    return e.id;
}

static void test_operators_reach_them(void **state)
{
    struct sim_host *c = sim_world_host(f.w, "192.0.2.33");
    allow("198.51.100.1", 0, "1/d");
    sim_policy_domain(&f.policy, "a.example", by("a.example", "one", "198.51.100.1"));
    sim_policy_domain(&f.policy, "c.example", by("c.example", "one", "198.51.100.2"));
    fixture_start(&f);
    mails("u@a.example", 11);
    sim_world_advance(f.w, SIM_MINUTE);
    struct msgid id = first_message();
    assert_int_equal(queue_job_place(sim_world_engine(f.w, 0)->queues, STR("one"), &id, 0),
                     JOB_PARKED);
    command(QUEUE_HOLD, "one");
    sim_world_advance(f.w, 2 * SIM_DAY);
    assert_int_equal(sim_host_inbox(a), 1);
    command(QUEUE_UNHOLD, "one");
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(a), 2);
    mails("u@c.example", 1);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(c), 1);
    command(QUEUE_REMOVE, "one");
    assert_int_equal(command_affected, 9);
    assert_int_equal(queued(&f), 0);
    nothing_failed();
}

/* The last one of those that were tried is held by an operator: nothing is left to wake up for. */
static void test_the_last_one_is_held(void **state)
{
    struct net_addr gone = sim_addr("198.51.100.1");
    sim_policy_domain(&f.policy, "a.example", by("a.example", "one", "198.51.100.1 2001:db8:f::1"));
    sim_policy_domain(&f.policy, "b.example", by("b.example", "one", "2001:db8:f::1"));
    sim_world_absent(f.w, &gone, true);
    fixture_start(&f);
    mails("u@a.example", 1);
    sim_world_advance(f.w, 10 * SIM_SECOND);
    struct msgid id = first_message();
    assert_int_equal(queue_job_place(sim_world_engine(f.w, 0)->queues, STR("one"), &id, 0),
                     JOB_PARKED);
    sim_host_set_delay(b, 600 * SIM_SECOND); /* so that the queue is remembered */
    post("u@b.example", 1);
    sim_world_advance(f.w, SIM_SECOND);
    command_of(QUEUE_HOLD, "one", &id);
    uint64_t before = sim_world_clock(f.w)->turns;
    sim_world_advance(f.w, 4 * SIM_MINUTE);
    assert_in_range(sim_world_clock(f.w)->turns - before, 1, 500);
}

/* Each message has a route of its own, by a hook, and that of the one that was refused goes with it. */
static bool a_route_each(void *arg, enum hook h, const struct hook_input *in,
                         struct hook_result *ret)
{
    ret->verdict = VERDICT_ROUTE;
    ret->route = by("a.example", "one", "198.51.100.1");
    ret->decided_by = arena_str(&ret->arena, STR("each"));
    return true;
}

static void test_the_refused_one_is_called_off(void **state)
{
    allow("198.51.100.1", 0, "1/h");
    sim_policy_domain(&f.policy, "a.example", NULL);
    f.policy.ask = a_route_each;
    f.policy.asks = 1u << HOOK_ROUTE;
    fixture_start(&f);
    for (int i = 0; i < 20; i++) { /* the window, what is on disk, and fresh ones */
        post("u@a.example", 20);
        sim_world_advance(f.w, 10 * SIM_SECOND);
    }
    sim_world_advance(f.w, 3 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(a), 4);
    nothing_failed();
}

/* For as long as more of them come, others of the queue are read from disk all the same. */
static void test_a_stream_starves_no_backlog(void **state)
{
    struct net_addr gone = sim_addr("198.51.100.1");
    sim_policy_domain(&f.policy, "a.example", by("a.example", "one", "198.51.100.1 2001:db8:f::1"));
    sim_policy_domain(&f.policy, "b.example", by("b.example", "one", "198.51.100.1 2001:db8:f::1"));
    sim_world_absent(f.w, &gone, true);
    fixture_start(&f);
    post("u@a.example", 40);
    sim_world_advance(f.w, 30 * SIM_SECOND);
    post("u@b.example", 60);
    for (int i = 0; i < 100; i++) {
        post("u@a.example", 1);
        sim_world_advance(f.w, 6 * SIM_SECOND);
    }
    assert_int_equal(sim_host_inbox(b), 60);
    nothing_failed();
}

/* What is parked is on disk, too: nothing of it is lost by a restart. */
static void test_a_restart_forgets_none(void **state)
{
    allow("198.51.100.1", 0, "1/h");
    sim_policy_domain(&f.policy, "a.example", by("a.example", "one", "198.51.100.1"));
    fixture_start(&f);
    mails("u@a.example", 5);
    sim_world_advance(f.w, SIM_MINUTE);
    sim_world_crash(f.w);
    sim_world_start(f.w);
    sim_world_advance(f.w, 4 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(a), 5);
    assert_int_equal(queued(&f), 0);
}

int main(void)
{
#define SCENARIO(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        SCENARIO(test_others_go_on),
        SCENARIO(test_a_success_elsewhere_ends_no_wait),
        SCENARIO(test_many_are_not_all_tried),
        SCENARIO(test_no_wake_up_is_lost),
        SCENARIO(test_they_grow_old),
        SCENARIO(test_operators_reach_them),
        SCENARIO(test_a_restart_forgets_none),
        SCENARIO(test_the_last_one_is_held),
        SCENARIO(test_a_stream_starves_no_backlog),
        SCENARIO(test_the_refused_one_is_called_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
