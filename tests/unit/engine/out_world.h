/* out_world.h - what the tests of the sending half need: a simulated world with us as mx2.isp.example, hooks in
 * C, and commands to queues.
 *
 * Included by a test program once; all is static. */
#ifndef TERN_TESTS_OUT_WORLD_H
#define TERN_TESTS_OUT_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine/context.h"
#include "engine/hosts.h"
#include "engine/next_hop.h"
#include "engine/queue.h"
#include "engine/session_out.h"
#include "sim/policy.h"
#include "sim/world.h"

#define UNUSED __attribute__((unused))

static struct sim_world *w;
static struct settings *set;
static struct sim_policy policy;

static const char OUT_ZONE[] = "sender.example.    MX 10 mx.sender.example.\n"
                               "mx.sender.example. A 192.0.2.77\n"
                               "mx2.isp.example.   A 198.51.100.25\n";

UNUSED static void out_begin(uint64_t seed, int workers)
{
    w = sim_world_new(seed, workers);
    set = settings_new();
    assert_non_null(set);
    set->hostname = STR("mx2.isp.example");
    set->file = STR("test");
    set->fingerprint = 1;
    sim_policy_init(&policy, sim_world_clock(w));
    sim_world_zone(w, OUT_ZONE);
}

UNUSED static void out_start(void)
{
    sim_journal_echo(sim_world_journal(w), getenv("SIM_ECHO") != NULL);
    sim_world_configure(w, set, sim_policy_hooks, &policy);
    sim_world_start(w);
}

UNUSED static void out_end(void)
{
    w = sim_world_free(w);
    sim_policy_done(&policy);
    set = settings_unref(set);
}

UNUSED static int out_setup(void **state)
{
    (void)state;
    out_begin(1, 1);
    return 0;
}

UNUSED static int out_teardown(void **state)
{
    (void)state;
    out_end();
    return 0;
}

UNUSED static struct engine *engine0(void)
{
    return sim_world_engine(w, 0);
}

UNUSED static uint64_t counted(const char *event)
{
    return sim_journal_count(sim_world_journal(w), event);
}

/* One message for one recipient. Its text is the mark by which it is found again. */
UNUSED static int mail_to(const char *recipient, const char *mark)
{
    return sim_world_mail(w, "client@sender.example", recipient, mark);
}

/* ---- commands ---- */

struct sent_command {
    struct queue_command c;
    bool done;
};

static void command_done(struct queue_command *c)
{
    CONTAINER_OF(c, struct sent_command, c)->done = true;
}

static bool command_is_done(void *arg)
{
    return ((struct sent_command *)arg)->done;
}

UNUSED static void command_begin(struct sent_command *s, enum queue_command_type type,
                                 const char *queue, const struct msgid *id, struct route *route)
{
    *s = (struct sent_command){ .c = { .type = type, .route = route, .done = command_done } };
    assert_true(str_copy(str_of(queue), s->c.queue, sizeof s->c.queue));
    if (id) {
        s->c.one_message = true;
        s->c.id = *id;
    }
    queue_command_send(sim_world_ports(w, 0)->workers, &s->c);
}

/* Waits for its end; how many recipients it concerned, or -errno. */
UNUSED static int64_t command(enum queue_command_type type, const char *queue,
                              const struct msgid *id, struct route *route, int64_t window_ms)
{
    struct sent_command s;
    command_begin(&s, type, queue, id, route);
    s.c.window_ms = window_ms;
    assert_true(sim_world_until(w, command_is_done, &s, SIM_MINUTE));
    route_unref(route);
    return s.c.result < 0 ? s.c.result : (int64_t)s.c.affected;
}

/* The first message in the spool, after `after` (NULL: of all). False: none. */
UNUSED static bool next_message(const struct msgid *after, struct msgid *ret)
{
    struct port_spool *spool = sim_world_ports(w, 0)->spool;
    struct spool_entry e;
    if (spool->scan_entries(spool, after, UINT32_MAX, &e, 1) != 1)
        return false;
    *ret = e.id;
    return true;
}

UNUSED static uint64_t class_count(const char *queue, enum spool_class c)
{
    struct port_spool *spool = sim_world_ports(w, 0)->spool;
    struct spool_queue q;
    if (spool->read_queue(spool, str_of(queue), &q) < 0)
        return 0;
    return c == SPOOL_SCHEDULED ? q.scheduled : c == SPOOL_WAITING ? q.waiting : q.held;
}

#endif
