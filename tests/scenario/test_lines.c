/* Who gets the connections of a worker when there are more destinations than connections, and nobody knows which of
 * them work (core/engine/queue_line.c). */
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

static struct sim_host *host_of(const char *kind, unsigned n)
{
    char addr[32];
    snprintf(addr, sizeof addr, "10.%d.%u.%u", kind[0] == 'g' ? 1 : 9, n / 250, 1 + n % 250);
    return sim_world_host(f.w, addr);
}

/* Domains `kind`0.example, `kind`1.example ... with a host each. */
static void add_domains(const char *kind, unsigned count, enum sim_reach reach)
{
    for (unsigned n = 0; n < count; n++) {
        char domain[32], zone[160];
        snprintf(domain, sizeof domain, "%s%u.example", kind, n);
        snprintf(zone, sizeof zone, "%s. MX 1 mx.%s.\nmx.%s. A 10.%d.%u.%u\n", domain, domain,
                 domain, kind[0] == 'g' ? 1 : 9, n / 250, 1 + n % 250);
        sim_world_zone_add(f.w, zone);
        sim_policy_domain(&f.policy, domain, NULL);
        sim_host_set_reach(host_of(kind, n), reach);
    }
}

static void send(const char *kind, unsigned n)
{
    char text[64];
    snprintf(text, sizeof text, "u@%s%u.example", kind, n);
    struct str to = str_of(text);
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = &to,
                          .n_recipients = 1,
                          .content = STR("Subject: x\r\n\r\nhello\r\n") };
    sim_world_post(f.w, &m);
}

static void send_to_all(const char *kind, unsigned count)
{
    for (unsigned n = 0; n < count; n++)
        send(kind, n);
}

static size_t active(void)
{
    return queues_active(sim_world_engine(f.w, 0)->queues);
}

/* First contact with many silent hosts holds all the connections that it may have, for half a minute at a time. */
static void test_silent_hosts_leave_room_for_those_that_work(void **state)
{
    enum { GOOD = 10, SILENT = 300 };
    f.settings->queue.connections = 40;
    add_domains("good", GOOD, SIM_ACCEPTS);
    add_domains("silent", SILENT, SIM_SILENT);
    fixture_start(&f);
    send_to_all("good", GOOD);
    sim_world_advance(f.w, 10 * SIM_MINUTE); /* their queues have been forgotten meanwhile */
    for (int i = 0; i < 3; i++)
        send_to_all("silent", SILENT);
    sim_world_advance(f.w, 10 * SIM_SECOND);
    assert_in_range(active(), 30, 30); /* three quarters */
    send_to_all("good", GOOD);
    sim_world_advance(f.w, SIM_SECOND);
    for (unsigned n = 0; n < GOOD; n++)
        assert_int_equal(sim_host_inbox(host_of("good", n)), 2);
    assert_int_equal(queued(&f), 3 * SILENT);
}

/* A silent one is tried once in a round, however much there is for it. */
static void test_a_round_of_first_contacts(void **state)
{
    enum { SILENT = 300 };
    struct queue_status st;
    f.settings->queue.connections = 40;
    add_domains("silent", SILENT, SIM_SILENT);
    fixture_start(&f);
    for (int i = 0; i < 3; i++)
        send_to_all("silent", SILENT);
    sim_world_advance(f.w, (SILENT / 30 + 2) * 30 * SIM_SECOND);
    for (unsigned n = 0; n < SILENT; n++) {
        char name[32];
        snprintf(name, sizeof name, "silent%u.example", n);
        assert_true(queue_status(sim_world_engine(f.w, 0)->queues, str_of(name), &st));
        assert_in_range(st.failures, 1, 20);
    }
}

/* After a restart nobody is known to work. Attempts begin with few at once; when these are slow there are soon more,
 * and new mail does not wait for them. */
static void test_old_mail_begins_gently(void **state)
{
    enum { OLD = 400 };
    add_domains("old", OLD, SIM_REFUSES);
    add_domains("good", 1, SIM_ACCEPTS);
    fixture_start(&f);
    send_to_all("old", OLD);
    sim_world_advance(f.w, SIM_SECOND);
    sim_world_crash(f.w);
    for (unsigned n = 0; n < OLD; n++)
        sim_host_set_reach(host_of("old", n), SIM_SILENT);
    sim_world_start(f.w);
    sim_world_advance(f.w, 500);
    assert_in_range(active(), 64, 64);
    send("good", 0);
    sim_world_advance(f.w, 400);
    assert_int_equal(sim_host_inbox(host_of("good", 0)), 1);
    assert_in_range(active(), 64, 64);
    sim_world_advance(f.w, 5 * SIM_SECOND);
    assert_in_range(active(), OLD, OLD);
}

/* They work: each that does makes room for one more. */
static void test_old_mail_goes_on_fast(void **state)
{
    enum { OLD = 400 };
    add_domains("old", OLD, SIM_REFUSES);
    fixture_start(&f);
    send_to_all("old", OLD);
    sim_world_advance(f.w, SIM_SECOND);
    sim_world_crash(f.w);
    for (unsigned n = 0; n < OLD; n++) {
        sim_host_set_reach(host_of("old", n), SIM_ACCEPTS);
        sim_host_set_delay(host_of("old", n), 100); /* some 600 ms for a message */
    }
    sim_world_start(f.w);
    sim_world_advance(f.w, 4 * SIM_SECOND);
    assert_int_equal(queued(&f), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_silent_hosts_leave_room_for_those_that_work, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_round_of_first_contacts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_mail_begins_gently, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_mail_goes_on_fast, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
