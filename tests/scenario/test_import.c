/* A message that comes without a session, piece by piece. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/import.h"
#include "fixture.h"

static struct fixture f;
static struct import import;
static struct import_recipient to;
static struct arena arena;
static bool told;

static void on_told(struct import *i)
{
    told = true;
}

static bool is_told(void *arg)
{
    return told;
}

static int setup(void **state)
{
    fixture_init(&f, 1, 2);
    arena_init(&arena, 0);
    import = (struct import){ .arena = &arena, .told = on_told, .recipients = &to, .n = 1 };
    assert_int_equal(address_parse(&arena, STR("client@sender.example"), &import.sender), 0);
    assert_int_equal(address_parse(&arena, STR("u@example.com"), &to.address), 0);
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    arena_done(&arena);
    return 0;
}

static void post(enum import_step step)
{
    told = false;
    import_post(sim_world_ports(f.w, 0)->workers, 0, &import, step);
}

static void step(enum import_step step)
{
    post(step);
    assert_true(sim_world_until(f.w, is_told, NULL, SIM_MINUTE));
}

static void piece(const char *text, size_t n)
{
    import.piece = str_make(text, n);
    step(IMPORT_PIECE);
}

/* It goes out as it came in: no Received, and not before it is on the disk. */
static void test_delivered_as_it_is(void **state)
{
    struct sim_host *host = sim_world_host(f.w, "192.0.2.1");
    fixture_start(&f);
    step(IMPORT_BEGIN);
    assert_int_equal(import.error, 0);
    piece("Subject: x\r\n\r\nhel", 17);
    piece("lo\r\n", 4);
    assert_int_equal(queued(&f), 0);
    step(IMPORT_FINISH);
    assert_int_equal(import.error, 0);
    assert_int_equal(import.reply.code, 250);
    assert_int_equal(counted(&f, "message_accepted"), 1);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_inbox(host), 1);
    struct str content = sim_host_received(host, 0)->content;
    assert_int_equal(content.n, 21);
    assert_memory_equal(content.p, "Subject: x\r\n\r\nhello\r\n", 21);
    assert_int_equal(queued(&f), 0);
}

/* Large ones are staged as they come, and waited for. */
static void test_large(void **state)
{
    struct sim_host *host = sim_world_host(f.w, "192.0.2.1");
    static char block[64 * 1024];
    fixture_start(&f);
    for (size_t i = 0; i < sizeof block; i += 2)
        memcpy(block + i, "\r\n", 2);
    step(IMPORT_BEGIN);
    piece("Subject: x\r\n", 12);
    for (int i = 0; i < 100; i++)
        piece(block, sizeof block);
    step(IMPORT_FINISH);
    assert_int_equal(import.reply.code, 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(sim_host_received(host, 0)->content.n, 12 + 100 * sizeof block);
}

static void test_given_up(void **state)
{
    static char block[64 * 1024];
    fixture_start(&f);
    for (int large = 0; large < 2; large++) {
        step(IMPORT_BEGIN);
        for (int i = 0; i < (large ? 60 : 1); i++)
            piece(block, sizeof block);
        step(IMPORT_ABORT);
    }
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(queued(&f), 0);
    sim_spool_check(sim_world_spool(f.w));
}

/* In the middle: it is told, and nothing of it is left. */
static void test_stop(void **state)
{
    fixture_start(&f);
    step(IMPORT_BEGIN);
    piece("Subject: x\r\n", 12);
    sim_world_stop(f.w, SIM_MINUTE);
    assert_int_equal(import.error, -ESHUTDOWN);
    sim_world_start(f.w);
    assert_int_equal(queued(&f), 0);
    /* Anew, with the engine that there is now. */
    step(IMPORT_BEGIN);
    assert_int_equal(import.error, 0);
    piece("Subject: x\r\n\r\n", 14);
    step(IMPORT_FINISH);
    assert_int_equal(import.reply.code, 250);
}

/* A crash at any moment: what was accepted is there once, what was not told may be. */
static void test_crash(void **state)
{
    size_t accepted = 0, unknown = 0;
    struct sim_host *host = sim_world_host(f.w, "192.0.2.1");
    sim_host_down(host);
    fixture_start(&f);
    for (int i = 0; i < 30; i++) {
        step(IMPORT_BEGIN);
        piece("Subject: x\r\n\r\n", 14);
        post(IMPORT_FINISH);
        sim_world_advance(f.w, i % 6);
        accepted += told;
        unknown += !told;
        sim_world_crash(f.w);
        sim_spool_check(sim_world_spool(f.w));
        sim_world_start(f.w);
    }
    assert_true(queued(&f) >= accepted && queued(&f) <= accepted + unknown);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_delivered_as_it_is, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large, setup, teardown),
        cmocka_unit_test_setup_teardown(test_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crash, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
