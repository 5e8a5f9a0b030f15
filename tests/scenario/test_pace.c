/* How many connections go to one destination and to one host, who waits for them, and that nobody has to wait for
 * ever (ROUTING.md Q1, Q3, Q7). */
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
static struct sim_host *mx;

static int setup(void **state)
{
    (void)state;
    fixture_init(&f, 1, 1);
    mx = sim_world_host(f.w, "192.0.2.1");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_done(&f);
    return 0;
}

static void send_from(const char *sender, const char *recipient, const char *text)
{
    assert_int_equal(sim_world_mail(f.w, sender, recipient, text), 250);
}

static void send_many(size_t n, const char *recipient)
{
    for (size_t i = 0; i < n; i++)
        send_from("client@sender.example", recipient, "hello");
}

static struct queue_status status_of(const char *queue)
{
    struct queue_status st;
    assert_true(queue_status(sim_world_engine(f.w, 0)->queues, str_of(queue), &st));
    return st;
}

/* Where in its inbox; SIZE_MAX: not there. */
static size_t place_of(struct sim_host *h, const char *text)
{
    for (size_t i = 0; i < sim_host_inbox(h); i++)
        if (str_find(sim_host_received(h, i)->content, str_of(text)) >= 0)
            return i;
    return SIZE_MAX;
}

/* ---- a host that takes so many at once ---- */

static void run_wall(enum sim_action how, size_t wall, uint32_t start)
{
    setup(NULL);
    f.settings->queue.concurrency = start;
    f.settings->queue.max_concurrency = 20;
    sim_host_set_most(mx, wall, how);
    sim_host_down(mx);
    fixture_start(&f);
    send_many(600, "u@example.com");
    sim_world_advance(f.w, 5 * SIM_MINUTE);
    size_t before = counted(&f, "queue_backoff");
    sim_host_set_delay(mx, 300);
    sim_host_up(mx);
    sim_world_advance(f.w, 20 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 600);
    assert_int_equal(queued(&f), 0);
    assert_in_range(counted(&f, "queue_backoff") - before, 0, 3); /* until it was up */
    assert_int_equal(counted(&f, "queue_recovered"), 1);
    assert_in_range(sim_host_turned_away(mx), 1, start > wall ? start : 4);
    teardown(NULL);
}

static void test_Q1_a_host_that_refuses_one_more_goes_on(void **state)
{
    static const enum sim_action actions[] = { SIM_REPLY, SIM_CLOSE, SIM_RESET };
    for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
        run_wall(actions[i], 10, 5);
        run_wall(actions[i], 1, 5);
    }
}

/* All at once, before anything is known to work. */
static void test_Q1_a_cold_start_beyond_the_wall(void **state)
{
    f.settings->queue.concurrency = f.settings->queue.max_concurrency = 20;
    sim_host_set_most(mx, 10, SIM_REPLY);
    sim_host_set_delay(mx, 1000);
    fixture_start(&f);
    send_many(100, "u@example.com");
    sim_world_advance(f.w, 3 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 100);
    assert_int_equal(counted(&f, "queue_backoff"), 0);
    assert_in_range(sim_host_turned_away(mx), 1, 10);
}

/* Not the same wall each second, and the height is tried again after a while. */
static void test_Q1_the_wall_is_remembered(void **state)
{
    f.settings->queue.max_concurrency = 20;
    sim_host_set_most(mx, 6, SIM_REPLY);
    sim_host_set_delay(mx, 500);
    fixture_start(&f);
    for (int i = 0; i < 200; i++) {
        send_many(60, "u@example.com");
        sim_world_advance(f.w, 4 * SIM_SECOND);
    }
    assert_int_equal(counted(&f, "queue_backoff"), 0);
    assert_in_range(sim_host_turned_away(mx), 1, 5); /* in more than 13 minutes */
    assert_in_range(status_of("example.com").concurrency, 5, 7);
    sim_host_set_most(mx, 0, SIM_REPLY);
    int minutes = 0;
    for (; minutes < 60 && status_of("example.com").concurrency <= 7; minutes++)
        sim_world_advance(f.w, SIM_MINUTE);
    assert_in_range(minutes, 0, 59);
    assert_int_equal(status_of("example.com").ceiling, 0);
    assert_int_equal(counted(&f, "host_failed"), 0);
}

/* What was refused has not been tried, and no worse host is bothered for it. */
static void test_Q1_refusals_cost_the_message_nothing(void **state)
{
    sim_world_zone_add(f.w, "two.example. MX 10 a.two.example.\ntwo.example. MX 20 b.two.example.\n"
                            "a.two.example. A 192.0.2.10\nb.two.example. A 192.0.2.11\n");
    sim_policy_domain(&f.policy, "two.example", NULL);
    struct sim_host *a = sim_world_host(f.w, "192.0.2.10"), *b = sim_world_host(f.w, "192.0.2.11");
    sim_host_set_most(a, 2, SIM_REPLY);
    sim_host_set_delay(a, 1000);
    fixture_start(&f);
    send_many(60, "u@two.example");
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(a), 60);
    assert_int_equal(sim_host_inbox(b), 0);
    assert_int_equal(counted(&f, "host_failed") + counted(&f, "deferred"), 0);
    assert_true(counted(&f, "host_limit") > 0);
}

/* An equal one that has room is not left idle. */
static void test_Q3_equal_hosts_share(void **state)
{
    sim_world_zone_add(f.w, "two.example. MX 10 a.two.example.\ntwo.example. MX 10 b.two.example.\n"
                            "two.example. MX 20 c.two.example.\n"
                            "a.two.example. A 192.0.2.10\nb.two.example. A 192.0.2.11\n"
                            "c.two.example. A 192.0.2.12\n");
    sim_policy_domain(&f.policy, "two.example", NULL);
    struct sim_host *a = sim_world_host(f.w, "192.0.2.10"), *b = sim_world_host(f.w, "192.0.2.11");
    struct sim_host *c = sim_world_host(f.w, "192.0.2.12");
    f.settings->queue.host_connections = 2;
    f.settings->queue.concurrency = 4;
    f.settings->queue.max_concurrency = 4;
    sim_host_set_delay(a, 1000);
    sim_host_set_delay(b, 1000);
    fixture_start(&f);
    send_many(80, "u@two.example");
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(a) + sim_host_inbox(b), 80);
    assert_in_range(sim_host_inbox(a), 25, 55);
    assert_int_equal(sim_host_inbox(c), 0);
    assert_in_range(sim_host_peak(a), 1, 2);
    assert_in_range(sim_host_peak(b), 1, 2);
}

/* It says 421 when a connection has been used often enough: that is no failure. */
static void test_Q6_421_to_a_reused_connection(void **state)
{
    struct sim_rule later = { .stage = SMTP_STAGE_MAIL,
                              .address = STR("second@sender.example"),
                              .times = 1,
                              .reply = { .code = 421, .text = STR("enough for one connection") } };
    sim_host_add_rule(mx, &later);
    fixture_start(&f);
    send_from("first@sender.example", "u@example.com", "one");
    sim_world_advance(f.w, SIM_SECOND);
    send_from("second@sender.example", "u@example.com", "two");
    sim_world_advance(f.w, 5 * SIM_SECOND);
    assert_int_equal(sim_host_inbox(mx), 2);
    assert_int_equal(sim_host_sessions(mx), 2);
    assert_int_equal(counted(&f, "queue_backoff"), 0);
}

/* Nothing works any more: the whole of it backs off, as one failure. */
static void test_Q1_down_when_nothing_works(void **state)
{
    sim_host_set_delay(mx, 1000);
    fixture_start(&f);
    send_many(30, "u@example.com");
    sim_world_advance(f.w, 3 * SIM_SECOND);
    assert_true(status_of("example.com").active > 1);
    sim_host_down(mx);
    sim_world_advance(f.w, 30 * SIM_SECOND);
    assert_int_equal(counted(&f, "queue_backoff"), 1);
    assert_int_equal(status_of("example.com").failures, 1);
    assert_int_equal(status_of("example.com").concurrency, 1);
    uint64_t sessions = sim_host_sessions(mx);
    sim_host_up(mx);
    sim_world_advance(f.w, 10 * SIM_SECOND);
    assert_int_equal(sim_host_sessions(mx), sessions); /* left alone */
    sim_world_advance(f.w, 10 * SIM_MINUTE);
    assert_int_equal(queued(&f), 0);
}

/* ---- many queues, one host ---- */

enum { DOMAINS = 300 };

static void many_domains(size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char name[40], zone[256];
        snprintf(name, sizeof name, "d%zu.example", i);
        snprintf(zone, sizeof zone, "%s. MX 10 mail.%s.\nmail.%s. A 192.0.2.50\n", name, name,
                 name);
        sim_world_zone_add(f.w, zone);
        sim_policy_domain(&f.policy, name, NULL);
    }
}

static void mail_each(size_t n, size_t round)
{
    for (size_t i = 0; i < n; i++) {
        char to[48], text[48];
        snprintf(to, sizeof to, "u@d%zu.example", i);
        snprintf(text, sizeof text, "round %zu of %zu.", round, i);
        send_from("client@sender.example", to, text);
    }
}

/* It returns, and everybody wants to be the first. */
static void test_Q3_a_returning_host_is_not_stormed(void **state)
{
    struct sim_host *shared = sim_world_host(f.w, "192.0.2.50");
    many_domains(DOMAINS);
    f.settings->queue.host_connections = 12;
    sim_host_down(shared);
    sim_host_set_delay(shared, 200);
    fixture_start(&f);
    mail_each(DOMAINS, 1);
    sim_world_advance(f.w, SIM_HOUR);
    uint64_t backoffs = counted(&f, "queue_backoff");
    sim_host_up(shared);
    size_t first = 0;
    for (int i = 0; i < 20 * 60 && sim_host_inbox(shared) == 0; i++) {
        sim_world_advance(f.w, SIM_SECOND);
        first = sim_host_peak(shared);
    }
    assert_in_range(first, 1, 4); /* a probe, and what its success opens up */
    sim_world_advance(f.w, 5 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(shared), DOMAINS);
    assert_in_range(sim_host_peak(shared), 5, 13); /* with one that says goodbye */
    assert_in_range(counted(&f, "queue_backoff") - backoffs, 0, DOMAINS); /* probes until then */
    assert_int_equal(queued(&f), 0);
}

/* The same, and it takes three at once, whatever we think. */
static void test_Q3_all_queues_keep_below_the_wall(void **state)
{
    struct sim_host *shared = sim_world_host(f.w, "192.0.2.50");
    many_domains(DOMAINS);
    sim_host_set_most(shared, 3, SIM_REPLY);
    sim_host_set_delay(shared, 100);
    fixture_start(&f);
    mail_each(DOMAINS, 1);
    mail_each(DOMAINS, 2);
    sim_world_advance(f.w, 15 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(shared), 2 * DOMAINS);
    assert_in_range(sim_host_turned_away(shared), 1, 60);
    assert_in_range(counted(&f, "queue_backoff"), 0, 2);
    assert_int_equal(queued(&f), 0);
}

/* In line each gets one at a time: nobody has its third before all have had their first. */
static void test_Q3_the_line_goes_round(void **state)
{
    enum { N = 20 };
    struct sim_host *shared = sim_world_host(f.w, "192.0.2.50");
    many_domains(N);
    f.settings->queue.host_connections = 2;
    sim_host_down(shared);
    fixture_start(&f);
    for (size_t round = 1; round <= 5; round++)
        mail_each(N, round);
    sim_world_advance(f.w, SIM_MINUTE);
    sim_host_set_delay(shared, 200);
    sim_host_up(shared);
    sim_world_advance(f.w, 20 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(shared), 5 * N);
    assert_in_range(sim_host_peak(shared), 1, 3);
    size_t last_first = 0, first_fourth = SIZE_MAX;
    for (size_t i = 0; i < N; i++) {
        char text[48];
        snprintf(text, sizeof text, "round 1 of %zu.", i);
        last_first = MAX(last_first, place_of(shared, text));
        snprintf(text, sizeof text, "round 4 of %zu.", i);
        first_fourth = MIN(first_fourth, place_of(shared, text));
    }
    assert_true(last_first < first_fourth);
}

/* What a queue in line tells of itself; and it does not turn in circles meanwhile. */
static void test_Q3_the_line_is_told(void **state)
{
    struct sim_host *shared = sim_world_host(f.w, "192.0.2.50");
    many_domains(3);
    f.settings->queue.host_connections = 1;
    sim_host_set_delay(shared, 30 * SIM_SECOND);
    fixture_start(&f);
    mail_each(3, 1);
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(status_of("d0.example").active, 1);
    assert_string_equal(status_of("d0.example").host, "");
    for (int i = 1; i < 3; i++) {
        struct queue_status st = status_of(i == 1 ? "d1.example" : "d2.example");
        assert_string_equal(st.host, "192.0.2.50:25");
        assert_int_equal(st.host_connections, 1);
        assert_int_equal(st.host_limit, 1);
        assert_int_equal(st.host_line, 2);
        assert_int_equal(st.active, 0);
        assert_true(st.retry_in_ms < 0);
        assert_int_equal(st.failures, 0);
    }
    sim_world_advance(f.w, 20 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(shared), 3);
}

/* Who stands in line can be held, removed, or forgotten: the others move up. */
static void removed(struct queue_command *c)
{
    c->result = 1000;
}

static void test_Q3_who_leaves_the_line_is_in_nobodys_way(void **state)
{
    struct sim_host *shared = sim_world_host(f.w, "192.0.2.50");
    many_domains(6);
    f.settings->queue.host_connections = 1;
    sim_host_set_delay(shared, 2 * SIM_SECOND);
    fixture_start(&f);
    mail_each(6, 1);
    sim_world_advance(f.w, SIM_SECOND);
    struct queue_command c[4] = { { .type = QUEUE_REMOVE },
                                  { .type = QUEUE_HOLD },
                                  { .type = QUEUE_REMOVE },
                                  { .type = QUEUE_HOLD } };
    for (int i = 0; i < 4; i++) {
        snprintf(c[i].queue, sizeof c[i].queue, "d%d.example", i + 1);
        c[i].done = removed;
        queue_command_send(sim_world_ports(f.w, 0)->workers, &c[i]);
    }
    sim_world_advance(f.w, 5 * SIM_MINUTE);
    for (int i = 0; i < 4; i++)
        assert_int_equal(c[i].result, 1000);
    assert_int_equal(sim_host_inbox(shared), 2); /* the first and the last */
    assert_int_equal(queued(&f), 2);             /* held */
}

/* ---- big and small ---- */

static void send_big(size_t n, const char *text)
{
    static char names[1000][48];
    static struct str to[1000];
    for (size_t i = 0; i < n; i++) {
        snprintf(names[i], sizeof names[i], "u%zu@example.com", i);
        to[i] = str_of(names[i]);
    }
    struct sim_mail m = { .sender = STR("news@sender.example"),
                          .recipients = to,
                          .n_recipients = n,
                          .content = str_of(text) };
    assert_int_equal(sim_world_send(f.w, &m)->accepted, n);
}

static void test_Q7_a_big_message_lets_small_ones_pass(void **state)
{
    f.settings->queue.concurrency = f.settings->queue.max_concurrency = 1;
    f.settings->queue.recipients = 20;
    sim_host_set_delay(mx, 100);
    fixture_start(&f);
    send_big(1000, "Subject: big\r\n\r\nbig\r\n");
    sim_world_advance(f.w, 5 * SIM_SECOND);
    for (int i = 0; i < 5; i++) {
        char text[32];
        snprintf(text, sizeof text, "small %d.", i);
        size_t before = sim_host_inbox(mx);
        send_from("client@sender.example", "u@example.com", text);
        sim_world_advance(f.w, 20 * SIM_SECOND);
        size_t at = place_of(mx, text);
        assert_true(at != SIZE_MAX);
        assert_in_range(at - before, 0, 2); /* behind what was under way, and one by turns */
    }
    sim_world_advance(f.w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 50 + 5);
    assert_int_equal(queued(&f), 0);
}

/* The same when all of it comes from the disk. */
static void test_Q7_big_messages_from_the_disk(void **state)
{
    f.settings->queue.concurrency = f.settings->queue.max_concurrency = 1;
    f.settings->queue.recipients = 20;
    sim_host_down(mx);
    fixture_start(&f);
    for (int i = 0; i < 4; i++)
        send_big(300, "Subject: big\r\n\r\nbig\r\n");
    sim_world_advance(f.w, SIM_SECOND);
    for (int i = 0; i < 20; i++)
        send_from("client@sender.example", "u@example.com", "small");
    sim_world_advance(f.w, SIM_SECOND);
    sim_host_set_delay(mx, 100);
    sim_host_up(mx);
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_in_range(sim_host_inbox(mx), 4 * 15 + 20, 4 * 17 + 20);
    size_t small = 0;
    for (size_t i = 0; i < 21; i++)
        small += str_find(sim_host_received(mx, i)->content, STR("small")) >= 0;
    assert_in_range(small, 20, 20); /* at most one big one had begun */
    assert_int_equal(queued(&f), 0);
}

/* A sender with a large backlog at a destination does not keep others from it, and is not starved by them. */
static void test_Q7_fresh_mail_behind_a_backlog(void **state)
{
    f.settings->queue.concurrency = f.settings->queue.max_concurrency = 1;
    sim_host_set_delay(mx, 200);
    fixture_start(&f);
    for (int i = 0; i < 1500; i++)
        send_from("news@sender.example", "u@example.com", "news");
    for (int i = 0; i < 20; i++) {
        char text[32];
        snprintf(text, sizeof text, "small %d.", i);
        size_t before = sim_host_inbox(mx);
        send_from("client@sender.example", "u@example.com", text);
        for (int k = 0; k < 5; k++) /* the newsletter goes on */
            send_from("news@sender.example", "u@example.com", "news");
        sim_world_advance(f.w, 10 * SIM_SECOND);
        size_t at = place_of(mx, text);
        assert_true(at != SIZE_MAX);
        assert_in_range(at - before, 0, 3);
    }
    /* Old mail has every second turn. */
    size_t old = sim_host_inbox(mx);
    for (int i = 0; i < 400; i++) {
        char from[48];
        snprintf(from, sizeof from, "c%d@sender.example", i);
        send_from(from, "u@example.com", "fresh");
        send_from(from, "u@example.com", "fresh");
    }
    size_t news = 0, all = sim_host_inbox(mx) - old;
    for (size_t i = old; i < sim_host_inbox(mx); i++)
        news += str_find(sim_host_received(mx, i)->content, STR("news")) >= 0;
    assert_in_range(news, all * 2 / 5, all);
    sim_world_advance(f.w, 2 * SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 1500 + 20 * 6 + 800);
    assert_int_equal(queued(&f), 0);
}

/* A backlog at one destination is nothing to others. */
static void test_Q7_other_destinations_do_not_notice(void **state)
{
    enum { BACKLOG = 5000 };
    sim_world_zone_add(f.w, "quick.example. MX 10 mx.quick.example.\n"
                            "mx.quick.example. A 192.0.2.60\n");
    sim_policy_domain(&f.policy, "quick.example", NULL);
    struct sim_host *quick = sim_world_host(f.w, "192.0.2.60");
    f.settings->queue.connections = 20; /* the backlog alone could use them all */
    sim_host_set_delay(mx, 10 * SIM_SECOND);
    fixture_start(&f);
    send_many(BACKLOG, "u@example.com");
    for (int i = 0; i < 10; i++) {
        char text[32];
        snprintf(text, sizeof text, "quick %d.", i);
        send_from("client@sender.example", "u@quick.example", text);
        sim_world_advance(f.w, 5 * SIM_SECOND);
        assert_int_equal(sim_host_count_with(quick, str_of(text)), 1);
    }
    assert_true(queued(&f) > BACKLOG / 2);
    struct queue_status st = status_of("example.com");
    assert_in_range(st.in_memory, 1, QUEUE_WINDOW);
}

/* More queues than connections: all have had their first before anybody has its third. */
static void test_Q7_queues_take_turns(void **state)
{
    enum { N = 60 };
    for (size_t i = 0; i < N; i++) {
        char name[40], zone[256];
        snprintf(name, sizeof name, "t%zu.example", i);
        snprintf(zone, sizeof zone, "%s. MX 10 mx.%s.\nmx.%s. A 192.0.2.%zu\n", name, name, name,
                 100 + i);
        sim_world_zone_add(f.w, zone);
        sim_policy_domain(&f.policy, name, NULL);
    }
    sim_world_populate(f.w);
    f.settings->queue.connections = 3;
    fixture_start(&f);
    for (size_t i = 0; i < N; i++) {
        char addr[32];
        snprintf(addr, sizeof addr, "192.0.2.%zu", 100 + i);
        sim_host_set_delay(sim_world_host(f.w, addr), 300);
    }
    for (size_t round = 0; round < 4; round++)
        for (size_t i = 0; i < N; i++) {
            char to[48];
            snprintf(to, sizeof to, "u@t%zu.example", i);
            send_from("client@sender.example", to, "hello");
        }
    for (int s = 0; s < 3600; s++) {
        size_t fewest = SIZE_MAX, most = 0;
        for (size_t i = 0; i < N; i++) {
            char addr[32];
            snprintf(addr, sizeof addr, "192.0.2.%zu", 100 + i);
            size_t n = sim_host_inbox(sim_world_host(f.w, addr));
            fewest = MIN(fewest, n);
            most = MAX(most, n);
        }
        assert_true(most <= fewest + 2);
        if (fewest == 4)
            return;
        sim_world_advance(f.w, SIM_SECOND);
    }
    fail_msg("some have never had their turn");
}

#define WITH_WORLD(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_Q1_a_host_that_refuses_one_more_goes_on),
        WITH_WORLD(test_Q1_a_cold_start_beyond_the_wall),
        WITH_WORLD(test_Q1_the_wall_is_remembered),
        WITH_WORLD(test_Q1_refusals_cost_the_message_nothing),
        WITH_WORLD(test_Q1_down_when_nothing_works),
        WITH_WORLD(test_Q3_equal_hosts_share),
        WITH_WORLD(test_Q6_421_to_a_reused_connection),
        WITH_WORLD(test_Q3_a_returning_host_is_not_stormed),
        WITH_WORLD(test_Q3_all_queues_keep_below_the_wall),
        WITH_WORLD(test_Q3_the_line_goes_round),
        WITH_WORLD(test_Q3_the_line_is_told),
        WITH_WORLD(test_Q3_who_leaves_the_line_is_in_nobodys_way),
        WITH_WORLD(test_Q7_a_big_message_lets_small_ones_pass),
        WITH_WORLD(test_Q7_big_messages_from_the_disk),
        WITH_WORLD(test_Q7_fresh_mail_behind_a_backlog),
        WITH_WORLD(test_Q7_other_destinations_do_not_notice),
        WITH_WORLD(test_Q7_queues_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
