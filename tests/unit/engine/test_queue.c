/* Queues: nothing is lost, nothing is forgotten, nothing goes twice, whatever happens around them. */
#include "out_world.h"

#include "engine/queue_impl.h"

static struct sim_host *mx;

static int setup(void **state)
{
    out_setup(state);
    sim_world_zone_add(w,
                       "example.com. MX 10 mx.example.com.\nmx.example.com. A 192.0.2.1\n"
                       "other.example. MX 10 mx.other.example.\nmx.other.example. A 192.0.2.2\n");
    sim_policy_domain(&policy, "example.com", NULL);
    sim_policy_domain(&policy, "other.example", NULL);
    sim_policy_domain(&policy, "held.example", sim_route_hold("held.example"));
    mx = sim_world_host(w, "192.0.2.1");
    return 0;
}

static void many(size_t n, const char *recipient)
{
    char mark[32];
    for (size_t i = 0; i < n; i++) {
        snprintf(mark, sizeof mark, "mark %zu.", i);
        assert_int_equal(mail_to(recipient, mark), 250);
    }
}

static void assert_each_once(struct sim_host *h, size_t n)
{
    char mark[32];
    for (size_t i = 0; i < n; i++) {
        snprintf(mark, sizeof mark, "mark %zu.", i);
        assert_int_equal(sim_host_count_with(h, str_of(mark)), 1);
    }
}

/* ---- limits ---- */

static void test_Q1_route_concurrency_holds_from_the_start(void **state)
{
    struct route *r = route_new(ROUTE_MX);
    r->domain = STR("example.com");
    r->concurrency = 2;
    assert_int_equal(route_finish(r), 0);
    sim_policy_domain(&policy, "example.com", r);
    sim_host_set_delay(mx, 500);
    out_start();
    size_t most = 0;
    for (int i = 0; i < 40; i++) {
        char mark[32];
        snprintf(mark, sizeof mark, "mark %d.", i);
        assert_int_equal(mail_to("u@example.com", mark), 250);
        most = MAX(most, queues_active(engine0()->queues));
    }
    assert_int_equal(most, 2);
    sim_world_advance(w, 10 * SIM_MINUTE);
    assert_each_once(mx, 40);
}

/* A turn for each: a big backlog does not keep the only connection to itself, and no queue spins while it
 * waits (the world aborts when one does). */
static void test_Q7_connections_go_round(void **state)
{
    struct sim_host *other = sim_world_host(w, "192.0.2.2");
    set->queue.connections = 1;
    sim_host_set_delay(mx, 2000);
    sim_host_set_delay(other, 100);
    out_start();
    many(30, "u@example.com");
    assert_int_equal(mail_to("u@other.example", "small"), 250);
    sim_world_advance(w, 90 * SIM_SECOND);
    assert_int_equal(sim_host_count_with(other, STR("small")), 1);
    assert_true(sim_host_inbox(mx) < 30);
    assert_true(queues_active(engine0()->queues) <= 1);
    sim_world_advance(w, 30 * SIM_MINUTE);
    assert_each_once(mx, 30);
}

/* Bodies of ready jobs are within limits.memory; what is beyond joins the disk. */
static void test_warm_bodies_are_bounded(void **state)
{
    set->limits.memory = 3000;
    set->queue.concurrency = set->queue.max_concurrency = 1;
    sim_host_set_delay(mx, 1000);
    out_start();
    for (int i = 0; i < 60; i++) {
        char mark[32];
        snprintf(mark, sizeof mark, "mark %d.", i);
        assert_int_equal(mail_to("u@example.com", mark), 250);
        assert_true(engine0()->queues->warm <= set->limits.memory);
    }
    sim_world_advance(w, SIM_HOUR);
    assert_each_once(mx, 60);
    assert_int_equal(engine0()->queues->warm, 0);
}

/* ---- the disk ---- */

static void test_errors_of_reading_pass(void **state)
{
    sim_host_down(mx);
    out_start();
    many(20, "u@example.com");
    sim_world_advance(w, 10 * SIM_SECOND);
    sim_host_up(mx);
    for (int i = 0; i < 30; i++) {
        sim_spool_fail_reads(sim_world_spool(w), 3 + (uint32_t)i, i % 2 ? -EIO : -ENOMEM);
        sim_world_advance(w, SIM_MINUTE);
    }
    sim_spool_fail_reads(sim_world_spool(w), 0, 0);
    sim_world_advance(w, SIM_HOUR);
    assert_each_once(mx, 20);
    assert_int_equal(sim_world_queued(w), 0);
}

/* What was delivered and cannot be written down is not delivered again. */
static void test_errors_of_writing_do_not_duplicate(void **state)
{
    out_start();
    sim_spool_set_latency(sim_world_spool(w), 50);
    assert_int_equal(mail_to("u@example.com", "mark 0."), 250);
    sim_spool_fail_commits(sim_world_spool(w), 8, -EIO);
    sim_world_advance(w, 30 * SIM_MINUTE);
    assert_each_once(mx, 1);
    assert_int_equal(sim_world_queued(w), 0);
    assert_true(counted("spool_failed") > 0);
}

/* A record that nobody can read is held; the others go. */
static void nothing_done(struct spool_op *op)
{
    (void)op;
}

static void test_unreadable_record_is_set_aside(void **state)
{
    struct msgid id;
    struct port_spool *spool = sim_world_spool(w) ? sim_spool_port(sim_world_spool(w)) : NULL;
    sim_host_down(mx);
    out_start();
    many(3, "u@example.com");
    assert_true(next_message(NULL, &id));
    struct spool_change c = { .type = SPOOL_PUT_RECIPIENT, .id = id };
    c.recipient = (struct spool_recipient){ .n = 0,
                                            .queue = STR("example.com"),
                                            .class_ = SPOOL_SCHEDULED,
                                            .due_ms = SIM_EPOCH_MS,
                                            .record = STR("\x7f nonsense") };
    struct spool_op op = { .changes = &c, .n_changes = 1, .done = nothing_done };
    list_init(&op.link);
    spool->submit(spool, &op);
    sim_world_advance(w, SIM_SECOND);
    sim_host_up(mx);
    sim_world_advance(w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 2);
    assert_int_equal(class_count("example.com", SPOOL_HELD), 1);
    assert_int_equal(class_count("example.com", SPOOL_SCHEDULED), 0);
    assert_int_equal(counted("spool_record_unreadable"), 1);
}

/* One whose row cannot even be parsed stays where it is. It is told once, and holds up nobody. */
static void test_damaged_row_is_passed_over(void **state)
{
    struct msgid id;
    struct queue_status status;
    sim_host_down(mx);
    out_start();
    many(3, "u@example.com");
    assert_true(next_message(NULL, &id));
    sim_world_advance(w, SIM_SECOND);
    sim_spool_damage(sim_world_spool(w), &id, 0);
    sim_host_up(mx);
    sim_world_advance(w, 5 * SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 2);
    for (int i = 0; i < 5; i++) { /* at once, each of them */
        many(1, "u@example.com");
        sim_world_advance(w, SIM_SECOND);
        assert_int_equal(sim_host_inbox(mx), 3 + i);
        sim_world_advance(w, SIM_MINUTE);
    }
    assert_int_equal(counted("spool_record_unreadable"), 1);
    assert_true(queue_status(engine0()->queues, STR("example.com"), &status));
    assert_true(status.retry_in_ms < 0);
    sim_world_crash(w);
    sim_spool_damage(sim_world_spool(w), NULL, 0); /* it has been repaired */
    sim_world_start(w);
    sim_world_advance(w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(mx), 8);
}

/* ---- back-off ---- */

static void test_failures_at_once_are_one_failure(void **state)
{
    struct queue_status status;
    set->queue.concurrency = 5;
    sim_host_set_reach(mx, SIM_SILENT);
    out_start();
    many(5, "u@example.com");
    sim_world_advance(w, 40 * SIM_SECOND);
    assert_true(queue_status(engine0()->queues, STR("example.com"), &status));
    assert_int_equal(status.failures, 1);
    assert_int_equal(status.concurrency, 1);
    assert_true(status.retry_in_ms <= 70 * SIM_SECOND);
}

static void test_dead_queues_are_forgotten(void **state)
{
    sim_host_down(mx);
    out_start();
    many(2, "u@example.com");
    sim_world_advance(w, SIM_HOUR);
    assert_int_equal(command(QUEUE_REMOVE, "example.com", NULL, NULL, 0), 2);
    sim_world_advance(w, SIM_HOUR);
    assert_null(queue_find(engine0()->queues, STR("example.com")));
}

static void test_expiry_without_room_for_notices(void **state)
{
    struct sim_host *back = sim_world_host(w, "192.0.2.77");
    sim_host_down(mx);
    out_start();
    many(50, "u@example.com");
    sim_world_advance(w, 4 * SIM_DAY + 23 * SIM_HOUR);
    assert_int_equal(sim_world_queued(w), 50);
    sim_spool_set_full(sim_world_spool(w), true);
    sim_world_advance(w, 6 * SIM_HOUR);
    assert_int_equal(sim_world_queued(w), 50);
    assert_true(sim_spool_commits(sim_world_spool(w)) < 1000);
    sim_spool_set_full(sim_world_spool(w), false);
    sim_world_advance(w, 2 * SIM_DAY);
    assert_int_equal(sim_world_queued(w), 0);
    assert_int_equal(sim_host_count_with(back, STR("5.4.7")), 50);
}

/* ---- commands ---- */

static void test_hold_wins_over_delivery(void **state)
{
    struct msgid id;
    struct sent_command s;
    sim_host_down(mx);
    out_start();
    many(1, "u@example.com");
    sim_world_advance(w, SIM_SECOND);
    assert_true(next_message(NULL, &id));
    sim_spool_set_latency(sim_world_spool(w), 3000);
    sim_host_up(mx);
    /* The hold is at the spool while the retry asks for an attempt. */
    command_begin(&s, QUEUE_HOLD, "example.com", &id, NULL);
    sim_world_advance(w, 10);
    command(QUEUE_RETRY, "example.com", NULL, NULL, 0);
    sim_world_advance(w, SIM_HOUR);
    assert_true(s.done);
    assert_int_equal(s.c.result, 0);
    assert_int_equal(sim_host_inbox(mx), 0);
    assert_int_equal(class_count("example.com", SPOOL_HELD), 1);
    assert_int_equal(command(QUEUE_UNHOLD, "example.com", &id, NULL, 0), 1);
    sim_world_advance(w, SIM_HOUR);
    assert_each_once(mx, 1);
}

static void test_bounce_is_one_notification(void **state)
{
    struct sim_host *back = sim_world_host(w, "192.0.2.77");
    struct str to[] = { STR("a@example.com"), STR("b@example.com"), STR("c@example.com") };
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = to,
                          .n_recipients = 3,
                          .content = STR("Subject: x\r\n\r\nhello\r\n") };
    struct msgid id;
    sim_host_down(mx);
    out_start();
    assert_int_equal(sim_world_send(w, &m)->accepted, 3);
    sim_world_advance(w, SIM_SECOND);
    assert_true(next_message(NULL, &id));
    assert_int_equal(command(QUEUE_BOUNCE, "example.com", &id, NULL, 0), 3);
    sim_world_advance(w, SIM_MINUTE);
    assert_int_equal(sim_world_queued(w), 0);
    assert_int_equal(sim_host_inbox(back), 1);
    assert_int_equal(sim_host_count_with(back, STR("c@example.com")), 1);
}

static void test_commands_outlive_their_engine(void **state)
{
    struct msgid id;
    struct sent_command s[3];
    sim_host_down(mx);
    out_start();
    many(5, "u@example.com");
    assert_true(next_message(NULL, &id));
    sim_spool_set_latency(sim_world_spool(w), 10000);
    command_begin(&s[0], QUEUE_REMOVE, "example.com", &id, NULL);
    command_begin(&s[1], QUEUE_HOLD, "example.com", NULL, NULL);
    command_begin(&s[2], QUEUE_RETRY, "example.com", NULL, NULL);
    sim_world_advance(w, 100);
    sim_world_crash(w);
    for (int i = 0; i < 3; i++)
        assert_true(s[i].done);
    assert_int_equal(s[0].c.result, -ESHUTDOWN);
}

/* ---- release ---- */

/* E8: what fails is tried again within the window, not at once; then it is held again. */
static void test_release_retries_are_paced(void **state)
{
    out_start();
    many(3, "u@held.example");
    assert_int_equal(class_count("held.example", SPOOL_WAITING), 3);
    sim_host_reply(mx, SMTP_STAGE_RCPT, 450, STR("busy"));
    assert_int_equal(command(QUEUE_RELEASE, "held.example", NULL,
                             sim_route_hosts("192.0.2.1", false), 15 * SIM_MINUTE),
                     3);
    sim_world_advance(w, 14 * SIM_MINUTE);
    assert_in_range(sim_host_rsets(mx) + sim_host_sessions(mx), 2, 40);
    assert_int_equal(class_count("held.example", SPOOL_WAITING), 3);
    sim_host_clear_rules(mx);
    sim_world_advance(w, SIM_DAY);
    assert_int_equal(counted("queue_release_ended"), 1);
    size_t delivered = sim_host_inbox(mx);
    assert_int_equal(delivered + class_count("held.example", SPOOL_WAITING), 3);
    many(1, "v@held.example"); /* the release has ended: held */
    sim_world_advance(w, SIM_DAY);
    assert_int_equal(sim_host_inbox(mx), delivered);
}

static void test_release_leaves_operators_holds(void **state)
{
    struct msgid first;
    out_start();
    many(2, "u@held.example");
    assert_true(next_message(NULL, &first));
    assert_int_equal(command(QUEUE_HOLD, "held.example", &first, NULL, 0), 1);
    assert_int_equal(
        command(QUEUE_RELEASE, "held.example", NULL, sim_route_hosts("192.0.2.1", false), 0), 1);
    sim_world_advance(w, SIM_HOUR);
    assert_int_equal(sim_host_inbox(mx), 1);
    assert_int_equal(class_count("held.example", SPOOL_HELD), 1);
}

static void test_names_of_255_octets(void **state)
{
    char name[256];
    memset(name, 'q', 255);
    name[255] = 0;
    sim_policy_domain(&policy, "held.example", sim_route_hold(name));
    out_start();
    many(1, "u@held.example");
    assert_int_equal(class_count(name, SPOOL_WAITING), 1);
    assert_int_equal(command(QUEUE_RELEASE, name, NULL, sim_route_hosts("192.0.2.1", false), 0), 1);
    sim_world_advance(w, SIM_MINUTE);
    assert_each_once(mx, 1);
}

/* ---- everything at once ---- */

enum { DOMAINS = 4, STEPS = 150 };

static char domain_name[DOMAINS][32];
static struct sim_host *hosts_of[DOMAINS];
static size_t n_sent[DOMAINS];

static size_t any(size_t n)
{
    return (size_t)sim_random_below(sim_world_random(w), n);
}

static void post_one(size_t d)
{
    char mark[64], to[64];
    snprintf(mark, sizeof mark, "mark %zu of %zu.", n_sent[d], d);
    snprintf(to, sizeof to, "u@%s", domain_name[d]);
    if (mail_to(to, mark) == 250)
        n_sent[d]++;
}

static void command_one(size_t d)
{
    static const enum queue_command_type types[] = { QUEUE_HOLD, QUEUE_UNHOLD, QUEUE_RETRY };
    struct msgid id;
    bool one = any(2) && next_message(NULL, &id);
    for (size_t i = any(10); one && i; i--)
        one = next_message(&id, &id);
    command(types[any(3)], domain_name[d], one ? &id : NULL, NULL, 0);
}

static void upset(size_t d)
{
    struct sim_host *h = hosts_of[d];
    static const enum smtp_stage stages[] = { SMTP_STAGE_GREETING, SMTP_STAGE_MAIL, SMTP_STAGE_RCPT,
                                              SMTP_STAGE_DATA, SMTP_STAGE_FINAL };
    switch (any(6)) {
    case 5: sim_host_set_most(h, 1 + any(3), any(2) ? SIM_REPLY : SIM_RESET); break;
    case 4: sim_spool_fail_commits(sim_world_spool(w), 1 + (uint32_t)any(4), -EIO); break;
    case 0: sim_host_down(h); break;
    case 1:
        sim_host_reply(h, stages[any(ARRAY_LEN(stages))], any(2) ? 421 : 451, STR("not now"));
        break;
    case 2: sim_spool_fail_reads(sim_world_spool(w), 1 + (uint32_t)any(6), -EIO); break;
    case 3: sim_host_set_delay(h, (int64_t)any(3000)); break;
    }
}

static void mend(size_t d)
{
    sim_host_up(hosts_of[d]);
    sim_host_clear_rules(hosts_of[d]);
    sim_host_set_delay(hosts_of[d], 0);
    sim_host_set_most(hosts_of[d], 0, SIM_REPLY);
}

static void run_property(uint64_t seed)
{
    out_begin(seed, 1 + (int)(seed % 3));
    bool shared = seed % 2 == 0; /* by two domains each */
    set->queue.connections = 1 + (uint32_t)any(6);
    set->queue.host_connections = 1 + (uint32_t)any(4);
    set->queue.warn_after_ms = -1; /* nobody takes notices here */
    memset(n_sent, 0, sizeof n_sent);
    for (size_t d = 0; d < DOMAINS; d++) {
        char zone[128], addr[32];
        snprintf(domain_name[d], sizeof domain_name[d], "d%zu.example", d);
        snprintf(addr, sizeof addr, "192.0.2.%zu", 10 + (shared ? d / 2 : d));
        snprintf(zone, sizeof zone, "%s. MX 1 mx.%s.\nmx.%s. A %s\n", domain_name[d],
                 domain_name[d], domain_name[d], addr);
        sim_world_zone_add(w, zone);
        sim_policy_domain(&policy, domain_name[d], sim_route_backup(domain_name[d]));
        snprintf(zone, sizeof zone, "%s. MX 5 mx2.isp.example.\n", domain_name[d]);
        sim_world_zone_add(w, zone);
        hosts_of[d] = sim_world_host(w, addr);
    }
    out_start();
    for (int i = 0; i < STEPS; i++) {
        size_t d = any(DOMAINS);
        switch (any(8)) {
        case 0: upset(d); break;
        case 1: mend(d); break;
        case 2: command_one(d); break;
        case 3: sim_world_advance(w, (int64_t)any(30 * SIM_MINUTE)); break;
        case 4: set->fingerprint += any(2); break;
        default: post_one(d); break;
        }
        for (int k = 0; k < sim_world_workers(w); k++)
            assert_true(queues_active(sim_world_engine(w, k)->queues) <= set->queue.connections);
        sim_world_advance(w, (int64_t)any(2000));
    }
    sim_spool_fail_reads(sim_world_spool(w), 0, 0);
    sim_spool_fail_commits(sim_world_spool(w), 0, 0);
    for (size_t d = 0; d < DOMAINS; d++) {
        struct msgid id;
        mend(d);
        command(QUEUE_UNHOLD, domain_name[d], NULL, NULL, 0);
        for (bool more = next_message(NULL, &id); more; more = next_message(&id, &id))
            command(QUEUE_UNHOLD, domain_name[d], &id, NULL, 0);
    }
    sim_world_advance(w, 6 * SIM_HOUR);
    sim_spool_check(sim_world_spool(w));
    if (sim_world_queued(w))
        print_message("seed %llu: %zu left\n", (unsigned long long)seed, sim_world_queued(w));
    assert_int_equal(sim_world_queued(w), 0);
    for (size_t d = 0; d < DOMAINS; d++)
        for (size_t i = 0; i < n_sent[d]; i++) {
            char mark[64];
            snprintf(mark, sizeof mark, "mark %zu of %zu.", i, d);
            assert_int_equal(sim_host_count_with(hosts_of[d], str_of(mark)), 1);
        }
    out_end();
}

static void test_Q7_nothing_starves(void **state)
{
    const char *only = getenv("SIM_SEED"), *most = getenv("SIM_SEEDS");
    (void)state;
    if (only) {
        run_property(strtoull(only, NULL, 10));
        return;
    }
    uint64_t n = most ? strtoull(most, NULL, 10) : 12;
    for (uint64_t seed = 1; seed <= n; seed++)
        run_property(seed);
}

#define WITH_WORLD(t) cmocka_unit_test_setup_teardown(t, setup, out_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(test_Q1_route_concurrency_holds_from_the_start),
        WITH_WORLD(test_Q7_connections_go_round),
        WITH_WORLD(test_warm_bodies_are_bounded),
        WITH_WORLD(test_errors_of_reading_pass),
        WITH_WORLD(test_errors_of_writing_do_not_duplicate),
        WITH_WORLD(test_unreadable_record_is_set_aside),
        WITH_WORLD(test_damaged_row_is_passed_over),
        WITH_WORLD(test_failures_at_once_are_one_failure),
        WITH_WORLD(test_dead_queues_are_forgotten),
        WITH_WORLD(test_expiry_without_room_for_notices),
        WITH_WORLD(test_hold_wins_over_delivery),
        WITH_WORLD(test_bounce_is_one_notification),
        WITH_WORLD(test_commands_outlive_their_engine),
        WITH_WORLD(test_release_retries_are_paced),
        WITH_WORLD(test_release_leaves_operators_holds),
        WITH_WORLD(test_names_of_255_octets),
        cmocka_unit_test(test_Q7_nothing_starves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
