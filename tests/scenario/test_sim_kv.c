/* What policies remember, in the simulated spool: the same meaning as on a disk (kv_meaning.h), and a crash. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kv_meaning.h"
#include "sim/spool.h"

static struct sim_clock clk;
static struct sim_spool *spool;
static struct port_spool *port;

static int setup(void **state)
{
    sim_clock_init(&clk);
    spool = sim_spool_new(&clk);
    port = sim_spool_port(spool);
    return 0;
}

static int teardown(void **state)
{
    sim_spool_free(spool);
    sim_clock_done(&clk);
    return 0;
}

static void pass(int64_t ms)
{
    int64_t until = clk.now + ms;
    while (sim_clock_turn(&clk, until))
        ;
    sim_clock_pass(&clk, until);
}

static void op_done(struct spool_op *op)
{
    op->worker = 1;
}

static int run(const struct spool_change *c)
{
    struct spool_op op = { .changes = c, .n_changes = 1, .done = op_done };
    port->submit(port, &op);
    pass(10);
    assert_int_equal(op.worker, 1);
    return op.result;
}

#define MEANING(name)                                                                              \
    static void name(void **state)                                                                 \
    {                                                                                              \
        kv_##name(run, port);                                                                      \
    }
MEANING(puts_and_drops)
MEANING(refuses_what_is_too_large)
MEANING(full)
MEANING(scans_a_prefix)
MEANING(sweeps)

static void a_crash_keeps_what_was_committed(void **state)
{
    struct spool_change c = kv_change(SPOOL_KV_SET, "b", "2", 0, 100);
    struct spool_op op = { .changes = &c, .n_changes = 1, .done = op_done };

    assert_int_equal(kv_do(run, SPOOL_KV_SET, "a", "1", 0, 100), 0);
    port->submit(port, &op);
    sim_spool_crash(spool);
    sim_spool_settle(spool);
    assert_int_equal(op.result, -ESHUTDOWN);
    kv_is(port, "n", "a", "1 100");
    kv_is(port, "n", "b", "-");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(puts_and_drops), T(refuses_what_is_too_large),        T(full), T(scans_a_prefix),
        T(sweeps),         T(a_crash_keeps_what_was_committed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
