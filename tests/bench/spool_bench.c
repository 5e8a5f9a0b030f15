/* spool_bench.c - what a message costs in the spool: processor time, and how many a second.
 *
 * usage: spool_bench FOLDER [SECONDS [BYTES [QUEUE [QUEUES [groups|sessions N]]]]]
 *
 * A queue of QUEUE messages (2000) of BYTES each (10240) is kept: each new message is one unit (envelope
 * of 160 bytes, body, one recipient with a record of 200 bytes, in one of QUEUES (100)), and each done
 * one is a unit that deletes it. One worker submits.
 *   groups:   so many messages come and go in each commit, the writer never waits
 *   sessions: so many senders, each waits for its commit before it submits the next one
 * One line of JSON each. The processor time is the whole process's, this program's part included.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "spool/spool.h"

enum { MAX_QUEUES = 1000 };

struct bench;
struct put {
    struct spool_op op;
    struct spool_change change[2];
    struct bench *b;
};
struct drop {
    struct spool_op op;
    struct spool_change change;
    struct bench *b;
};

struct bench {
    struct port_workers workers;
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    struct worker_message *head, **tail;
    struct port_spool *port;
    struct body *body;
    struct msgid_source ids;
    int64_t clock;
    struct msgid *ring; /* of what is in the queue, or on its way */
    size_t ring_n;
    uint64_t head_n, tail_n; /* messages submitted, and deletions */
    uint64_t done, target;   /* messages acknowledged */
    uint64_t outstanding;
    uint64_t keep;
    struct list free_puts, free_drops;
    uint32_t queues;
    char queue[MAX_QUEUES][40];
};

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double processor(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void post(struct port_workers *self, int number, struct worker_message *m)
{
    struct bench *b = CONTAINER_OF(self, struct bench, workers);

    pthread_mutex_lock(&b->lock);
    m->next = NULL;
    *b->tail = m;
    b->tail = &m->next;
    pthread_cond_signal(&b->arrived);
    pthread_mutex_unlock(&b->lock);
}

static void turn(struct bench *b)
{
    pthread_mutex_lock(&b->lock);
    while (!b->head)
        pthread_cond_wait(&b->arrived, &b->lock);
    struct worker_message *m = TAKE(b->head);
    b->tail = &b->head;
    pthread_mutex_unlock(&b->lock);
    for (struct worker_message *next; m; m = next) {
        next = m->next;
        m->run(NULL, m);
    }
}

static void drop_done(struct spool_op *op)
{
    struct drop *d = CONTAINER_OF(op, struct drop, op);

    CHECK(op->result == 0);
    list_push(&d->b->free_drops, &op->link);
}

static void submit_drop(struct bench *b)
{
    struct list *l = list_pop(&b->free_drops);
    struct drop *d = l ? CONTAINER_OF(l, struct drop, op.link) : calloc(1, sizeof(*d));

    CHECK(d);
    d->b = b;
    d->op = (struct spool_op){ .changes = &d->change, .n_changes = 1, .done = drop_done };
    d->change = (struct spool_change){ .type = SPOOL_DELETE_RECIPIENT,
                                       .id = b->ring[b->tail_n++ % b->ring_n] };
    b->port->submit(b->port, &d->op);
}

static void put_done(struct spool_op *op)
{
    struct put *p = CONTAINER_OF(op, struct put, op);
    struct bench *b = p->b;

    CHECK(op->result == 0);
    b->done++;
    b->outstanding--;
    list_push(&b->free_puts, &op->link);
}

static void submit_put(struct bench *b)
{
    static const char bytes[256];
    struct list *l = list_pop(&b->free_puts);
    struct put *p = l ? CONTAINER_OF(l, struct put, op.link) : calloc(1, sizeof(*p));

    CHECK(p);
    p->b = b;
    p->op = (struct spool_op){ .changes = p->change, .n_changes = 2, .done = put_done };
    struct msgid id = msgid_next(&b->ids, b->clock++ / 20);
    b->ring[b->head_n % b->ring_n] = id;
    p->change[0] = (struct spool_change){ .type = SPOOL_PUT_MESSAGE, .id = id };
    p->change[0].message.envelope = str_make(bytes, 160);
    p->change[0].message.body = b->body;
    p->change[1] = (struct spool_change){ .type = SPOOL_PUT_RECIPIENT, .id = id };
    p->change[1].recipient =
        (struct spool_recipient){ .queue = str_of(b->queue[b->head_n % b->queues]),
                                  .due_ms = b->clock,
                                  .record = str_make(bytes, 200) };
    b->head_n++;
    b->outstanding++;
    b->port->submit(b->port, &p->op);
    if (b->head_n - b->tail_n > b->keep)
        submit_drop(b);
}

static void run_until(struct bench *b, uint64_t in_flight, double end, uint64_t count)
{
    uint64_t first = b->done;

    while (end > 0 ? seconds() < end : b->done - first < count) {
        while (b->outstanding < in_flight)
            submit_put(b);
        turn(b);
    }
}

static struct body *make_body(size_t n)
{
    struct body *body = body_new();
    char *bytes = malloc(n);

    CHECK(body && bytes);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)rand();
    CHECK(body_append(body, str_make(bytes, n)) == 0);
    free(bytes);
    return body;
}

static void remove_spool(const char *path)
{
    static const char *const files[] = { "data.mdb", "lock.mdb", "in-use" };
    char file[4096];

    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        snprintf(file, sizeof(file), "%s/%s", path, files[i]);
        unlink(file);
    }
}

static void bench(const char *path, double secs, size_t bytes, uint64_t keep, uint32_t queues,
                  const char *mode, uint32_t n)
{
    bool groups = mode[0] == 'g';
    struct spool_options o = { .path = path, .group_ops = groups ? 2 * n : 0 };
    struct bench b = { .workers = { .count = 1, .post = post }, .keep = keep };
    uint64_t in_flight = groups ? 4 * (uint64_t)n : n;
    struct spool_stats s0, s1;
    struct spool *s;
    char why[256];

    remove_spool(path);
    if (spool_open(&o, &s, why, sizeof(why)) < 0) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
    b.tail = &b.head;
    pthread_mutex_init(&b.lock, NULL);
    pthread_cond_init(&b.arrived, NULL);
    list_init(&b.free_puts);
    list_init(&b.free_drops);
    b.port = spool_port(s, &b.workers);
    b.body = make_body(bytes);
    msgid_source_init(&b.ids, 1);
    b.clock = 1700000000000;
    b.ring_n = keep + in_flight + 16;
    b.ring = calloc(b.ring_n, sizeof(*b.ring));
    b.queues = queues;
    for (uint32_t i = 0; i < queues; i++)
        snprintf(b.queue[i], sizeof(b.queue[i]), "destination-%u.example.org", i * 7919 % 1000);
    CHECK(b.port && b.ring);

    run_until(&b, MAX(in_flight, (uint64_t)64), 0, 2 * keep); /* the file has its size */
    run_until(&b, in_flight, 0, 8 * in_flight);
    spool_stats(s, &s0);
    uint64_t first = b.done;
    double t0 = seconds(), c0 = processor();
    run_until(&b, in_flight, t0 + secs, 0);
    double t = seconds() - t0, c = processor() - c0;
    uint64_t m = b.done - first;
    spool_stats(s, &s1);
    printf(
        "{\"%s\":%u,\"bytes\":%zu,\"queue\":%ju,\"queues\":%u,\"msg_per_s\":%.0f,\"cpu_us_per_msg\":%.1f,"
        "\"msg_per_commit\":%.1f,\"commits_per_s\":%.0f,\"file_mb\":%.0f}\n",
        mode, n, bytes, (uintmax_t)keep, queues, (double)m / t, c * 1e6 / (double)m,
        (double)m / (double)(s1.commits - s0.commits), (double)(s1.commits - s0.commits) / t,
        (double)s1.file_size / 1e6);
    fflush(stdout);
    spool_stop(s);
    while (b.outstanding)
        turn(&b);
    spool_close(s);
    for (struct list *l; (l = list_pop(&b.free_puts));)
        free(CONTAINER_OF(l, struct put, op.link));
    for (struct list *l; (l = list_pop(&b.free_drops));)
        free(CONTAINER_OF(l, struct drop, op.link));
    body_unref(b.body);
    free(b.ring);
    remove_spool(path);
}

int main(int argc, char **argv)
{
    static const uint32_t groups[] = { 1, 8, 32, 128 }, sessions[] = { 1, 4, 50, 200 };
    double secs = argc > 2 ? strtod(argv[2], NULL) : 2;
    size_t bytes = argc > 3 ? strtoul(argv[3], NULL, 10) : 10240;
    uint64_t keep = argc > 4 ? strtoul(argv[4], NULL, 10) : 2000;
    uint32_t queues = argc > 5 ? (uint32_t)strtoul(argv[5], NULL, 10) : 100;

    if (argc < 2 || bytes == 0 || queues == 0 || queues > MAX_QUEUES || argc == 7) {
        fprintf(stderr, "usage: spool_bench FOLDER [SECONDS [BYTES [QUEUE [QUEUES [groups|sessions "
                        "N]]]]]\n");
        return 2;
    }
    if (argc > 7) {
        bench(argv[1], secs, bytes, keep, queues, argv[6], (uint32_t)strtoul(argv[7], NULL, 10));
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(groups); i++)
        bench(argv[1], secs, bytes, keep, queues, "groups", groups[i]);
    for (size_t i = 0; i < ARRAY_LEN(sessions); i++)
        bench(argv[1], secs, bytes, keep, queues, "sessions", sessions[i]);
    return 0;
}
