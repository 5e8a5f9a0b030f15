/* See starved.h. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "starved.h"

struct fixture f;
struct ledger ledger;
struct sim_host *host_a, *host_b, *host_c, *back;

static const char ZONE[] = "a.example. MX 10 mx.a.example.\n"
                           "b.example. MX 10 mx.b.example.\n"
                           "c.example. MX 10 mx.c.example.\n"
                           "mx.a.example. A " HOST_A "\n"
                           "mx.b.example. A " HOST_B "\n"
                           "mx.c.example. A " HOST_C "\n";

/* ---- one run ---------------------------------------------------------------------------------- */

static void begin(const struct starved_case *c)
{
    fixture_init(&f, 1, 2);
    ledger_init(&ledger, &f);
    sim_world_zone_add(f.w, ZONE);
    host_a = ledger_host(&ledger, HOST_A);
    host_b = ledger_host(&ledger, HOST_B);
    host_c = ledger_host(&ledger, HOST_C);
    back = ledger_host(&ledger, "192.0.2.77");
    sim_policy_domain(&f.policy, "a.example", NULL);
    sim_policy_domain(&f.policy, "b.example", NULL);
    sim_policy_domain(&f.policy, "c.example", NULL);
    if (c->begin)
        c->begin();
    if (c->hooks) {
        sim_world_configure(f.w, f.settings, c->hooks, NULL);
        sim_world_start(f.w);
    } else {
        fixture_start(&f);
    }
    if (c->started)
        c->started();
}

static bool all_is_gone(void *arg)
{
    return queued(arg) == 0;
}

static void check_service(void)
{
    static const char *const domain[] = { "b.example" };
    size_t n = ledger.n;

    ledger_send(&ledger, domain, 1, true);
    ledger_audit(&ledger);
    assert_true(ledger.r[n].acked);
}

static struct ledger_sum check_mail(const struct starved_case *c)
{
    bool empty = sim_world_until(f.w, all_is_gone, &f, 10 * SIM_DAY);
    struct ledger_sum sum = ledger_audit(&ledger);

    assert_true(empty);
    assert_int_equal(sum.lost, 0);
    assert_int_equal(sum.duplicates, 0);
    sim_spool_check(sim_world_spool(f.w));
    return sum;
}

static void end(const struct starved_case *c)
{
    if (c->recover)
        c->recover();
    check_service();
    struct ledger_sum sum = check_mail(c);
    if (c->look)
        c->look(&sum);
    assert_int_equal(sim_spool_staged(sim_world_spool(f.w)), 0);
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
    ledger_done(&ledger);
    fixture_done(&f);
}

/* Returns how many allocations there were. */
static unsigned long run(const struct starved_case *c, const struct allocation_faults *faults)
{
    size_t before = allocation_live();

    begin(c);
    allocation_arm(faults);
    c->act();
    unsigned long n = allocation_disarm();
    end(c);
    bool first = !faults->at && !faults->per_million; /* makes what is kept: of OpenSSL, libidn2 */
    if (!first && allocation_live() != before)
        fail_msg("%ld blocks of memory were not freed", (long)(allocation_live() - before));
    return n;
}

/* ---- many ------------------------------------------------------------------------------------- */

static const struct starved_case *running;
static struct allocation_faults running_faults;

static void say_which(void)
{
    const struct allocation_faults *w = &running_faults;

    if (running)
        fprintf(stderr,
                "in the run: %s, allocation %lu and %lu more, %u in a million by seed %lu; see "
                "where: ALLOCATION_CASE=%s ALLOCATION_AT=%lu\n",
                running->name, w->at, w->more, w->per_million, (unsigned long)w->seed,
                running->name, w->at);
}

extern void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));
extern void __sanitizer_print_stack_trace(void) __attribute__((weak));

static void on_abort(int number)
{
    say_which();
    if (__sanitizer_print_stack_trace)
        __sanitizer_print_stack_trace();
    signal(number, SIG_DFL);
    raise(number);
}

static bool in_child;

int starved_teardown(void **state)
{
    say_which(); /* when it failed */
    running = NULL;
    if (in_child) {
        fflush(NULL);
        _exit(1);
    }
    return 0;
}

static unsigned long run_here(const struct starved_case *c, const struct allocation_faults *faults)
{
    running = c;
    running_faults = *faults;
    unsigned long n = run(c, faults);
    running = NULL;
    return n;
}

/* In a child: its failure is told, and the others are run all the same. */
static unsigned long run_apart(const struct starved_case *c, const struct allocation_faults *faults)
{
    unsigned long n = 0;
    int fds[2], status = 0;

    assert_int_equal(pipe(fds), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        in_child = true;
        n = run_here(c, faults);
        _exit(write(fds[1], &n, sizeof(n)) == sizeof(n) ? 0 : 1);
    }
    close(fds[1]);
    ssize_t got = read(fds[0], &n, sizeof(n));
    close(fds[0]);
    waitpid(pid, &status, 0);
    if (got == sizeof(n) && status == 0)
        return n;
    fprintf(stderr, "FAILED: %s at %lu\n", c->name, faults->at);
    return faults->at; /* there may be more */
}

static unsigned long run_one(const struct starved_case *c, const struct allocation_faults *faults)
{
    return getenv("ALLOCATION_GO_ON") ? run_apart(c, faults) : run_here(c, faults);
}

/* True: that is not to be run now; or it was asked for alone, and has been run. */
static bool done_otherwise(const struct starved_case *c)
{
    const char *only = getenv("ALLOCATION_CASE"), *at = getenv("ALLOCATION_AT");

    if (only && strcmp(only, c->name) != 0)
        return true;
    signal(SIGABRT, on_abort);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(say_which);
    /* What is made once, and kept, is there before anything is counted. */
    run_here(c, &(struct allocation_faults){ 0 });
    if (!at)
        return false;
    allocation_show(1);
    run_here(c, &(struct allocation_faults){ .at = strtoul(at, NULL, 10) });
    return true;
}

void starved_each(const struct starved_case *c)
{
    unsigned long n = 1;

    if (done_otherwise(c))
        return;
    while (run_one(c, &(struct allocation_faults){ .at = n }) >= n)
        n++;
    assert_true(n > 20);
    print_message("%s: each of %lu allocations failed once\n", c->name, n - 1);
}

void starved_spells(const struct starved_case *c, unsigned long step, unsigned long more)
{
    unsigned long n = 1;

    if (done_otherwise(c))
        return;
    if (getenv("ALLOCATION_TIMES"))
        step = 1;
    while (run_one(c, &(struct allocation_faults){ .at = n, .more = more }) >= n)
        n += step;
    assert_true(n > step);
}

void starved_by_chance(const struct starved_case *c, uint64_t seeds, uint32_t per_million)
{
    const char *times = getenv("ALLOCATION_TIMES");

    if (done_otherwise(c))
        return;
    if (times)
        seeds *= strtoul(times, NULL, 10);
    for (uint64_t seed = 1; seed <= seeds; seed++)
        run_one(c, &(struct allocation_faults){ .per_million = per_million, .seed = seed });
}
