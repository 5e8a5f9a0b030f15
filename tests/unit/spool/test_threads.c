/* Many workers at once on one spool: each with messages of its own and one that all fight for. For
 * the thread sanitizer too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "spool_helper.h"

#include <cmocka.h>

enum { WORKERS = 4, IN_FLIGHT = 32, MESSAGES = 1500 };

struct party {
    struct spool *spool;
    int number;
    struct worker w;
    pthread_t thread;
    uint64_t next, done, in_flight;
    struct unit unit[IN_FLIGHT];
    uint64_t id[IN_FLIGHT]; /* message that the unit put, to be deleted; 0: none */
    struct buf buf;
};

static uint64_t id_number(const struct party *p, uint64_t n)
{
    return n * WORKERS + (uint64_t)p->number + 100;
}

static void submit_next(struct party *p, size_t i);

/* Each worker reads back what it was told is there. */
static void verify_put(struct party *p, uint64_t number)
{
    struct msgid id = id_of(number);
    struct spool_entry entry;

    CHECK(p->w.port->read_message(p->w.port, &id, &p->buf) == 0);
    CHECK(str_eq(buf_str(&p->buf), STR("e")));
    CHECK(p->w.port->read_recipient(p->w.port, &id, 0, &entry, &p->buf) == 0);
    CHECK(entry.due_ms == (int64_t)number);
    if (number % 16 == 0)
        CHECK(body_matches(p->w.port, id, number % 5000, (unsigned)number));
}

static void told(struct unit *u)
{
    struct party *p = u->owner;
    size_t i = (size_t)(u - p->unit);

    CHECK(u->op.result == 0);
    unit_free(u);
    p->in_flight--;
    if (p->id[i])
        verify_put(p, p->id[i]);
    submit_next(p, i);
}

static void submit_next(struct party *p, size_t i)
{
    struct unit *u = &p->unit[i];
    uint64_t before = p->id[i];

    if (!before && p->next == MESSAGES)
        return;
    unit_init(u);
    u->owner = p;
    u->then = told;
    if (before) {
        p->id[i] = 0;
        unit_delete(u, id_of(before), 0);
        p->done++;
    } else {
        uint64_t number = p->id[i] = id_number(p, p->next++);
        unit_message(u, id_of(number), STR("e"), body_of(number % 5000, (unsigned)number));
        unit_put(u, id_of(number), 0, number % 3 ? "common" : "other", SPOOL_SCHEDULED,
                 (int64_t)number, "r");
        unit_queue(u, "common", STR("shared"));
        unit_put(u, id_of(1), (uint32_t)p->number, number % 2 ? "common" : "other",
                 number % 5 ? SPOOL_WAITING : SPOOL_HELD, (int64_t)number, "mine");
    }
    p->in_flight++;
    unit_submit(u, &p->w);
}

static void *party_main(void *arg)
{
    struct party *p = arg;
    struct spool_due due[8];
    struct spool_queue queue[4];
    struct spool_stats st;

    for (size_t i = 0; i < IN_FLIGHT; i++)
        submit_next(p, i);
    while (p->in_flight) {
        CHECK(p->w.port->scan_due(p->w.port, STR("common"), SPOOL_SCHEDULED, NULL, INT64_MAX, due,
                                  8) >= 0);
        CHECK(p->w.port->scan_queues(p->w.port, STR(""), queue, 4) >= 1);
        CHECK(p->number || spool_stats(p->spool, &st) == 0);
        worker_turn(&p->w);
    }
    return NULL;
}

static void many_workers(void **state)
{
    static struct party party[WORKERS];
    char *path = spool_folder();
    struct spool *s = open_spool(
        &(struct spool_options){ .path = path, .map_initial = 1 << 20, .group_ops = 50 });
    struct spool_stats st;
    struct spool_queue q;

    for (int i = 0; i < WORKERS; i++) {
        party[i] = (struct party){ .spool = s, .number = i };
        worker_init(&party[i].w, i, s);
        buf_init(&party[i].buf, 0);
    }
    struct unit u;
    unit_init(&u);
    unit_message(&u, id_of(1), STR("shared"), body_of(10, 1));
    for (uint32_t i = 0; i < WORKERS; i++)
        unit_put(&u, id_of(1), i, "common", SPOOL_SCHEDULED, 1, "r");
    assert_int_equal(unit_run(&u, &party[0].w), 0);

    for (int i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&party[i].thread, NULL, party_main, &party[i]), 0);
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(party[i].thread, NULL);
        assert_int_equal(party[i].done, MESSAGES);
    }
    assert_int_equal(check_spool(s), 0);
    assert_int_equal(spool_stats(s, &st), 0);
    assert_int_equal(st.messages, 1);
    assert_int_equal(st.recipients, WORKERS);
    assert_int_equal(st.failed_ops, 0);
    assert_int_equal(st.ops, 1 + 2 * WORKERS * MESSAGES);
    assert_int_equal(party[0].w.port->read_queue(party[0].w.port, STR("common"), &q), 0);
    assert_int_equal(q.record_n, 6);
    spool_close(s);
    for (int i = 0; i < WORKERS; i++) {
        buf_done(&party[i].buf);
        worker_done(&party[i].w);
    }
    spool_folder_remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(many_workers) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
