/* survey.c - what is in the spool, counted by reading it: for tools. Layer: spool. Interface: spool.h. */
#include "mail/message.h"
#include "spool/internal.h"
#include "spool/record.h"
#include "spool/walk.h"

#define HOURS(n) ((int64_t)(n)*3600 * 1000)
const int64_t spool_age_ms[SPOOL_AGES] = { HOURS(1) / 12, HOURS(1),      HOURS(4),
                                           HOURS(24),     HOURS(5 * 24), INT64_MAX };
const uint64_t spool_size_bytes[SPOOL_SIZES] = { 4 << 10,  64 << 10,  1 << 20,
                                                 10 << 20, 100 << 20, UINT64_MAX };

static void add_queue(void *arg, struct str key, struct str value)
{
    struct spool_queue *sum = arg;
    struct queue_row q;

    (void)key;
    if (!queue_row_take(value, &q))
        return;
    sum->scheduled += q.count[SPOOL_SCHEDULED];
    sum->waiting += q.count[SPOOL_WAITING];
    sum->held += q.count[SPOOL_HELD];
    sum->waiting_octets += q.octets;
}

static int walk(struct spool *s, enum store_table t, void (*row)(void *, struct str, struct str),
                void *arg)
{
    struct reader reader;
    struct walk w = { .reader = &reader, .row = row, .arg = arg };

    reader_init(&reader, &s->store);
    int rc = walk_table(&w, t);
    reader_done(&reader);
    return store_error(rc);
}

int spool_sum_queues(struct spool *s, struct spool_queue *ret)
{
    struct spool_queue sum = { 0 };
    int r = walk(s, TABLE_QUEUE, add_queue, &sum);

    if (r == 0)
        *ret = sum;
    return r;
}

struct survey {
    struct spool_survey *ret;
    int64_t now_ms;
};

static void add_message(void *arg, struct str key, struct str value)
{
    struct survey *u = arg;
    struct spool_survey *ret = u->ret;
    struct message *m = NULL;
    struct msgid id = { { 0 } };
    struct str envelope;
    uint32_t n_chunks;
    int i = 0;

    ret->messages++;
    if (key.n == sizeof(id.b))
        memcpy(id.b, key.p, sizeof(id.b));
    if (!message_row_take(value, &n_chunks, &envelope) || message_decode(&id, envelope, &m) < 0) {
        ret->unreadable++;
        return;
    }
    while (u->now_ms - m->received_ms > spool_age_ms[i])
        i++;
    ret->by_age[i]++;
    for (i = 0; m->size > spool_size_bytes[i];)
        i++;
    ret->by_size[i]++;
    ret->octets += m->size;
    if (!ret->oldest_ms || m->received_ms < ret->oldest_ms)
        ret->oldest_ms = m->received_ms;
    message_unref(m);
}

int spool_survey_messages(struct spool *s, int64_t now_ms, struct spool_survey *ret)
{
    struct spool_survey sum = { 0 };
    struct survey u = { .ret = &sum, .now_ms = now_ms };
    int r = walk(s, TABLE_MESSAGE, add_message, &u);

    if (r == 0)
        *ret = sum;
    return r;
}
