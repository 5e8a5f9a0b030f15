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

enum { QUEUES = 16 };

int spool_sum_queues(struct spool *s, struct spool_queue *ret)
{
    struct spool_queue sum = { 0 }, q[QUEUES];
    struct str after = STR_NONE;
    struct reader reader;
    int n;

    reader_init(&reader, &s->store);
    do {
        n = walk_queues(&reader, after, q, QUEUES);
        for (int i = 0; i < n; i++) {
            sum.scheduled += q[i].scheduled;
            sum.waiting += q[i].waiting;
            sum.held += q[i].held;
            sum.waiting_octets += q[i].waiting_octets;
        }
        if (n > 0)
            after = str_of(q[n - 1].name);
    } while (n > 0);
    reader_done(&reader);
    if (n == 0)
        *ret = sum;
    return n;
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
    enum spool_part part;
    struct str envelope;
    struct msgid id;
    uint32_t n_chunks, none;
    int i = 0;

    if (!part_key_take(key, &id, &part, &none) || part != PART_MESSAGE)
        return;
    ret->messages++;
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
    struct reader reader;
    struct walk w = { .reader = &reader, .row = add_message, .arg = &u };

    reader_init(&reader, &s->store);
    int r = store_error(walk_table(&w, TABLE_MESSAGE));
    reader_done(&reader);
    if (r == 0)
        *ret = sum;
    return r;
}
