/* Keys and values of the spool's tables: round trips, order, bytes that nothing of ours wrote. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "spool/record.h"
#include "spool_helper.h"

#include <cmocka.h>

static int order(const struct due_key *a, const struct due_key *b)
{
    return str_cmp(due_key_str(a), due_key_str(b));
}

static struct due_key key_of(const char *queue, enum spool_class c, int64_t due, uint64_t id,
                             uint32_t n)
{
    struct due_key k;

    due_key_make(&k, str_of(queue), c, &(struct spool_due){ id_of(id), n, due });
    return k;
}

static void due_keys_sort(void **state)
{
    const struct due_key sorted[] = {
        key_of("a", SPOOL_SCHEDULED, INT64_MIN, 9, 9),
        key_of("a", SPOOL_SCHEDULED, -2, 9, 9),
        key_of("a", SPOOL_SCHEDULED, -1, 9, 9),
        key_of("a", SPOOL_SCHEDULED, 0, 9, 9),
        key_of("a", SPOOL_SCHEDULED, 255, 9, 9),
        key_of("a", SPOOL_SCHEDULED, 256, 1, 9),
        key_of("a", SPOOL_SCHEDULED, 256, 2, 0),
        key_of("a", SPOOL_SCHEDULED, 256, 2, 1),
        key_of("a", SPOOL_SCHEDULED, 256, 2, 256),
        key_of("a", SPOOL_SCHEDULED, INT64_MAX, 0, 0),
        key_of("a", SPOOL_WAITING, INT64_MIN, 0, 0),
        key_of("a", SPOOL_HELD, INT64_MIN, 0, 0),
        key_of("a\001", SPOOL_SCHEDULED, INT64_MIN, 0, 0),
        key_of("ab", SPOOL_SCHEDULED, INT64_MIN, 0, 0),
        key_of("b", SPOOL_SCHEDULED, INT64_MIN, 0, 0),
        key_of("b\377", SPOOL_SCHEDULED, INT64_MIN, 0, 0),
    };

    for (size_t i = 1; i < ARRAY_LEN(sorted); i++)
        assert_true(order(&sorted[i - 1], &sorted[i]) < 0);
    for (size_t i = 0; i < ARRAY_LEN(sorted); i++) {
        struct spool_due due;
        struct str queue;
        enum spool_class c;
        struct due_key again;
        assert_true(due_key_take(due_key_str(&sorted[i]), &queue, &c, &due));
        due_key_make(&again, queue, c, &due);
        assert_int_equal(order(&sorted[i], &again), 0);
    }
}

static void longest_due_key(void **state)
{
    char name[SPOOL_MAX_QUEUE_NAME + 1] = "";
    struct spool_due due;
    struct str queue;
    enum spool_class c;

    memset(name, 'x', SPOOL_MAX_QUEUE_NAME);
    struct due_key k = key_of(name, SPOOL_HELD, 1, 2, 3);
    assert_int_equal(k.n, SPOOL_DUE_KEY);
    assert_true(k.n <= 511); /* LMDB's limit */
    assert_true(due_key_take(due_key_str(&k), &queue, &c, &due));
    assert_int_equal(queue.n, SPOOL_MAX_QUEUE_NAME);
}

static void due_keys_damaged(void **state)
{
    struct due_key k = key_of("queue", SPOOL_WAITING, 1, 2, 3);
    struct spool_due due;
    struct str queue;
    enum spool_class c;

    for (size_t n = 0; n < k.n; n++) /* the name becomes shorter, then there is none */
        assert_false(due_key_take(str_first(due_key_str(&k), n), &queue, &c, &due) &&
                     str_eq(queue, STR("queue")));
    k.b[6] = 3;
    assert_false(due_key_take(due_key_str(&k), &queue, &c, &due));
    k.b[6] = SPOOL_HELD;
    k.b[2] = '\0';
    assert_false(due_key_take(due_key_str(&k), &queue, &c, &due));
}

static void recipient_rows(void **state)
{
    struct spool_recipient r = {
        .queue = STR("example.org"), .class_ = SPOOL_HELD, .due_ms = -77, .record = STR("rec\0ord")
    };
    struct spool_recipient back;
    uint8_t row[64];
    size_t n = recipient_row_size(&r);

    assert_true(n <= sizeof(row));
    recipient_row_make(&r, row);
    assert_true(recipient_row_take(str_make(row, n), &back));
    assert_true(str_eq(back.queue, r.queue));
    assert_true(str_eq(back.record, r.record));
    assert_int_equal(back.class_, r.class_);
    assert_int_equal(back.due_ms, r.due_ms);
    for (size_t cut = 0; cut < n - r.record.n; cut++)
        assert_false(recipient_row_take(str_make(row, cut), &back));
    row[9] = 0xff; /* a name of four billion bytes */
    assert_false(recipient_row_take(str_make(row, n), &back));
    row[9] = 0;
    row[0] = 3;
    assert_false(recipient_row_take(str_make(row, n), &back));
    /* With the size of its message. */
    r.size = 0x0102030405060708;
    assert_int_equal(recipient_row_size(&r), n + 8);
    recipient_row_make(&r, row);
    assert_true(recipient_row_take(str_make(row, n + 8), &back));
    assert_int_equal(back.size, r.size);
    assert_int_equal(back.class_, SPOOL_HELD);
    assert_true(str_eq(back.queue, r.queue));
    assert_true(str_eq(back.record, r.record));
    for (size_t cut = 0; cut < n + 8 - r.record.n; cut++)
        assert_false(recipient_row_take(str_make(row, cut), &back));
}

static void queue_and_message_rows(void **state)
{
    struct queue_row q = { .count = { 1, UINT64_MAX, 3 }, .record = STR("x") }, q2;
    struct str envelope;
    uint8_t row[64];
    uint32_t n_chunks;

    queue_row_make(&q, row);
    assert_int_equal(queue_row_size(&q), 25);
    assert_true(queue_row_take(str_make(row, 25), &q2));
    assert_memory_equal(q2.count, q.count, sizeof(q.count));
    assert_true(str_eq(q2.record, q.record));
    assert_false(queue_row_take(str_make(row, 23), &q2));
    q.octets = UINT64_MAX;
    queue_row_make(&q, row);
    assert_int_equal(queue_row_size(&q), 33);
    assert_true(queue_row_take(str_make(row, 33), &q2));
    assert_memory_equal(q2.count, q.count, sizeof(q.count));
    assert_int_equal(q2.octets, q.octets);
    assert_true(str_eq(q2.record, q.record));
    assert_false(queue_row_take(str_make(row, 31), &q2));

    message_row_make(0x01020304, STR("env"), row);
    assert_true(
        message_row_take(str_make(row, message_row_size(STR("env"))), &n_chunks, &envelope));
    assert_int_equal(n_chunks, 0x01020304);
    assert_true(str_eq(envelope, STR("env")));
    assert_false(message_row_take(str_make(row, 3), &n_chunks, &envelope));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(due_keys_sort),          cmocka_unit_test(longest_due_key),
        cmocka_unit_test(due_keys_damaged),       cmocka_unit_test(recipient_rows),
        cmocka_unit_test(queue_and_message_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
