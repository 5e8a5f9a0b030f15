/* TLS-RPT when memory ends: each allocation of counting and writing fails in its turn. Nothing is counted twice, nothing
 * leaks, and what could not be written is written later.
 *
 * The sources are included with their allocator replaced; engines of the simulation use these. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static int until_failure = -1; /* allocations that still succeed; -1: all */

static bool fails(void)
{
    return until_failure == 0 || (until_failure > 0 && until_failure-- == 0);
}

static void *try_malloc(size_t n)
{
    return fails() ? NULL : malloc(n);
}

static void *try_calloc(size_t n, size_t size)
{
    return fails() ? NULL : calloc(n, size);
}

#include "base/table.h"
#include "base/units.h"
#include "engine/context.h"
#include "engine/tls_reports.h"
#include "proto/dane.h"
#define malloc try_malloc
#define calloc try_calloc
#include "../../core/engine/tls_reports.c"
#include "../../core/mail/tls_report.c"
#undef malloc
#undef calloc

#include "fixture.h"

static struct fixture f;

static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    fixture_start(&f);
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

static void count_one(const char *domain)
{
    struct tls_policy p = { .type = TLS_POLICY_NONE, .domain = str_of(domain) };
    struct tls_session s = { .result = TLS_RESULT_NO_STARTTLS };

    tls_reports_count(sim_world_engine(f.w, 0), str_of(domain), &p, &s);
}

/* Of all rows. */
static uint64_t counted_in_all(void)
{
    struct port_spool *spool = sim_spool_port(sim_world_spool(f.w));
    const struct tls_policy_count *p;
    struct tls_report *row;
    struct str in, key, value;
    struct buf rows;
    int64_t expires;
    uint64_t n = 0;

    buf_init(&rows, 0);
    assert_true(spool->kv_scan(spool, STR(TLS_REPORTS_KV), STR(""), STR(""), &rows, 50) >= 0);
    for (in = buf_str(&rows); spool_kv_take(&in, &expires, &key, &value);) {
        assert_int_equal(tls_report_decode(value, &row), 0);
        for (size_t i = 0; (p = tls_report_policy(row, i)); i++)
            n += tls_policy_failures(p);
        tls_report_free(row);
    }
    buf_done(&rows);
    return n;
}

/* Allocations fail while sessions are counted: these may be lost, but no others, and none when memory suffices. */
static void test_while_counting(void **state)
{
    enum { ENOUGH = 30 };
    uint64_t before = 0;

    for (int n = 0; n <= ENOUGH; n++) {
        until_failure = n;
        count_one("a.example");
        count_one("b.example");
        count_one("a.example");
        until_failure = -1;
        sim_world_advance(f.w, 3 * TLS_REPORTS_WRITE_MS);
        uint64_t now = counted_in_all();
        assert_in_range(now - before, n == ENOUGH ? 3 : 0, 3);
        before = now;
    }
}

/* Allocations fail when it is to be written: nothing is lost. */
static void test_while_writing(void **state)
{
    uint64_t all = 0;
    char name[40];

    for (int n = 0; n < 40; n++) {
        for (int i = 0; i < 3; i++, all++) {
            snprintf(name, sizeof(name), "d%d.example", i * (n % 5));
            count_one(name);
        }
        until_failure = n;
        sim_world_advance(f.w, TLS_REPORTS_WRITE_MS + 1000);
        until_failure = -1;
        sim_world_advance(f.w, 3 * TLS_REPORTS_WRITE_MS);
        assert_int_equal(counted_in_all(), all);
    }
    for (int n = 0; n < 20; n++) { /* the end, too, comes to an end */
        count_one("a.example");
        until_failure = n;
        assert_true(sim_world_stop(f.w, SIM_MINUTE));
        until_failure = -1;
        sim_world_start(f.w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_while_counting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_while_writing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
