/* spool_helper.c - see spool_helper.h. */
#include "spool_helper.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

char *spool_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    char *path = NULL;

    CHECK(asprintf(&path, "%s/tern-spool-XXXXXX", tmp ? tmp : "/tmp") > 0);
    CHECK(mkdtemp(path));
    rmdir(path);
    return path;
}

void spool_folder_remove(char *path)
{
    static const char *const files[] = { "data.mdb", "lock.mdb", "in-use" };

    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char *file = NULL;
        CHECK(asprintf(&file, "%s/%s", path, files[i]) > 0);
        unlink(file);
        free(file);
    }
    rmdir(path);
    free(path);
}

/* ---- workers ---------------------------------------------------------------------------------- */

static void worker_post(struct port_workers *self, int number, struct worker_message *m)
{
    struct worker *w = CONTAINER_OF(self, struct worker, workers);

    CHECK(number == self->self);
    pthread_mutex_lock(&w->lock);
    m->next = NULL;
    *w->tail = m;
    w->tail = &m->next;
    pthread_cond_signal(&w->arrived);
    pthread_mutex_unlock(&w->lock);
}

void worker_init(struct worker *w, int number, struct spool *s)
{
    *w = (struct worker){ .workers = { .self = number, .count = 1, .post = worker_post } };
    w->tail = &w->head;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->arrived, NULL);
    w->port = spool_port(s, &w->workers);
    CHECK(w->port);
}

void worker_done(struct worker *w)
{
    pthread_cond_destroy(&w->arrived);
    pthread_mutex_destroy(&w->lock);
}

void worker_turn(struct worker *w)
{
    pthread_mutex_lock(&w->lock);
    while (!w->head)
        pthread_cond_wait(&w->arrived, &w->lock);
    struct worker_message *m = TAKE(w->head);
    w->tail = &w->head;
    pthread_mutex_unlock(&w->lock);
    for (struct worker_message *next; m; m = next) {
        next = m->next;
        w->posts++;
        m->run(NULL, m);
    }
}

/* ---- units ------------------------------------------------------------------------------------ */

static void unit_told(struct spool_op *op)
{
    struct unit *u = CONTAINER_OF(op, struct unit, op);

    u->done = true;
    if (u->then)
        u->then(u);
}

void unit_init(struct unit *u)
{
    *u = (struct unit){ .op = { .done = unit_told } };
    u->op.changes = u->change;
}

static struct spool_change *add(struct unit *u, enum spool_change_type type, struct msgid id)
{
    CHECK(u->op.n_changes < UNIT_CHANGES);
    struct spool_change *c = &u->change[u->op.n_changes++];
    *c = (struct spool_change){ .type = type, .id = id };
    return c;
}

void unit_message(struct unit *u, struct msgid id, struct str envelope, struct body *body)
{
    struct spool_change *c = add(u, SPOOL_PUT_MESSAGE, id);

    c->message.envelope = envelope;
    c->message.body = u->body = body;
}

void unit_stage(struct unit *u, struct msgid id, uint32_t chunk, struct str bytes)
{
    struct spool_change *c = add(u, SPOOL_STAGE, id);

    c->stage.chunk = chunk;
    c->stage.bytes = bytes;
}

void unit_unstage(struct unit *u, struct msgid id)
{
    add(u, SPOOL_UNSTAGE, id);
}

void unit_put(struct unit *u, struct msgid id, uint32_t n, const char *queue, enum spool_class c,
              int64_t due, const char *record)
{
    add(u, SPOOL_PUT_RECIPIENT, id)->recipient =
        (struct spool_recipient){ .n = n,
                                  .queue = str_of(queue),
                                  .class_ = c,
                                  .due_ms = due,
                                  .size = UNIT_SIZE,
                                  .record = str_of(record) };
}

void unit_delete(struct unit *u, struct msgid id, uint32_t n)
{
    add(u, SPOOL_DELETE_RECIPIENT, id)->recipient.n = n;
}

void unit_queue(struct unit *u, const char *queue, struct str record)
{
    struct spool_change *c = add(u, SPOOL_SET_QUEUE, id_of(0));

    c->queue.name = str_of(queue);
    c->queue.record = record;
}

void unit_free(struct unit *u)
{
    u->body = body_unref(u->body);
}

void unit_submit(struct unit *u, struct worker *w)
{
    u->done = false;
    list_init(&u->op.link);
    w->port->submit(w->port, &u->op);
}

int unit_run(struct unit *u, struct worker *w)
{
    unit_submit(u, w);
    while (!u->done)
        worker_turn(w);
    unit_free(u);
    return u->op.result;
}

int put_simple(struct worker *w, struct msgid id, const char *queue, int64_t due, size_t size)
{
    struct unit u;

    unit_init(&u);
    unit_message(&u, id, STR("e"), body_of(size, 1));
    unit_put(&u, id, 0, queue, SPOOL_SCHEDULED, due, "r");
    return unit_run(&u, w);
}

int delete_simple(struct worker *w, struct msgid id, uint32_t n)
{
    struct unit u;

    unit_init(&u);
    unit_delete(&u, id, n);
    return unit_run(&u, w);
}

/* ---- the rest --------------------------------------------------------------------------------- */

struct msgid id_of(uint64_t number)
{
    struct msgid id = { { 0 } };

    for (int i = 0; i < 8; i++)
        id.b[i] = (uint8_t)(number >> (56 - 8 * i));
    id.b[15] = 0x5a;
    return id;
}

static char byte_at(size_t i, unsigned seed)
{
    return (char)(i * 31 + i / 251 + seed * 7);
}

struct body *body_of(size_t n, unsigned seed)
{
    struct body *b = body_new();
    AUTO_FREE char *bytes = malloc(n + 1);

    CHECK(b && bytes);
    for (size_t i = 0; i < n; i++)
        bytes[i] = byte_at(i, seed);
    CHECK(body_append(b, str_make(bytes, n)) == 0);
    return b;
}

bool body_matches(struct port_spool *port, struct msgid id, size_t n, unsigned seed)
{
    struct buf b;
    size_t at = 0;
    bool same = true;
    int r = 0;

    buf_init(&b, 0);
    for (uint32_t chunk = 0; same && (r = port->read_chunk(port, &id, chunk, &b)) == 0; chunk++)
        for (size_t i = 0; i < buf_len(&b); i++, at++)
            same = same && at < n && b.data[b.start + i] == byte_at(at, seed);
    buf_done(&b);
    return same && r == -ENOENT && at == n;
}

struct spool *open_spool(const struct spool_options *o)
{
    struct spool *s = NULL;
    char why[256] = "";

    if (spool_open(o, &s, why, sizeof(why)) < 0) {
        fprintf(stderr, "spool_open: %s\n", why);
        abort();
    }
    return s;
}

static void print_problem(void *arg, const struct spool_problem *p)
{
    (void)arg;
    fprintf(stderr, "problem: %s %s: %s\n", p->kind, p->key, p->text);
}

int64_t check_spool(struct spool *s)
{
    /* records of these tests are opaque; slices are small, so that there are several */
    return spool_check(s, &(struct spool_check){ .problem = print_problem, .slice = 7 });
}
