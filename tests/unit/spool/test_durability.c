/* What outlives a process: restart, kill -9 at any moment, versions, the lock; and that spool_check sees
 * damage. */
#include <lmdb.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "spool/record.h"
#include "spool_helper.h"

#include <cmocka.h>

static int setup(void **state)
{
    *state = spool_folder();
    return 0;
}

static int teardown(void **state)
{
    spool_folder_remove(*state);
    return 0;
}

static struct spool *open_at(const char *path)
{
    return open_spool(&(struct spool_options){ .path = path });
}

/* ---- restart ---------------------------------------------------------------------------------- */

static void restart(void **state)
{
    struct spool_queue q;
    struct spool_stats st;
    struct worker w;
    struct unit u;

    for (uint64_t round = 0; round < 3; round++) {
        struct spool *s = open_at(*state);
        worker_init(&w, 0, s);
        for (uint64_t i = 0; i < 10; i++)
            assert_int_equal(
                put_simple(&w, id_of(round * 10 + i), "q", (int64_t)i, 1000 * (size_t)i), 0);
        assert_int_equal(delete_simple(&w, id_of(round * 10), 0), 0);
        unit_init(&u); /* never completed: gone at the next start */
        unit_stage(&u, id_of(1000 + round), 1, STR("orphan"));
        unit_stage(&u, id_of(1000 + round), 2, STR("orphan"));
        unit_stage(&u, id_of(2000 + round), 1, STR("orphan"));
        assert_int_equal(unit_run(&u, &w), 0);
        spool_close(s);
        worker_done(&w);
    }
    struct spool *s = open_at(*state);
    worker_init(&w, 0, s);
    assert_int_equal(check_spool(s), 0);
    assert_int_equal(spool_stats(s, &st), 0);
    assert_int_equal(st.messages, 27);
    assert_int_equal(st.staging, 0);
    assert_int_equal(st.chunks, 27);
    assert_int_equal(w.port->read_queue(w.port, STR("q"), &q), 0);
    assert_int_equal(q.scheduled, 27);
    for (uint64_t i = 0; i < 30; i++)
        if (i % 10)
            assert_true(body_matches(w.port, id_of(i), 1000 * (size_t)(i % 10), 1));
    spool_close(s);
    worker_done(&w);
}

/* More staged pieces than one transaction of the sweep takes. */
static void sweep_of_many(void **state)
{
    struct spool *s = open_at(*state);
    struct spool_stats st;
    struct worker w;

    worker_init(&w, 0, s);
    for (uint64_t i = 0; i < 600; i++) {
        struct unit u;
        unit_init(&u);
        for (uint32_t chunk = 1; chunk <= UNIT_CHANGES; chunk++)
            unit_stage(&u, id_of(i), chunk, STR("a piece"));
        assert_int_equal(unit_run(&u, &w), 0);
    }
    spool_close(s);
    s = open_at(*state);
    assert_int_equal(spool_stats(s, &st), 0);
    assert_int_equal(st.chunks, 0);
    assert_int_equal(st.staging, 0);
    spool_close(s);
    worker_done(&w);
}

/* ---- lock, version, foreign files ------------------------------------------------------------- */

static void second_open(void **state)
{
    struct spool *s = open_at(*state), *other = NULL;
    char why[256] = "";

    assert_int_equal(
        spool_open(&(struct spool_options){ .path = *state }, &other, why, sizeof(why)), -EBUSY);
    assert_null(other);
    assert_non_null(strstr(why, "in use by another process"));
    char pid[32];
    snprintf(pid, sizeof(pid), "number %ld", (long)getpid());
    assert_non_null(strstr(why, pid));
    spool_close(s);
    s = open_at(*state);
    spool_close(s);
}

/* Runs f on the environment of a spool that nobody has open. */
static void with_env(const char *path, void (*f)(MDB_txn *txn, void *arg), void *arg)
{
    MDB_env *env;
    MDB_txn *txn;

    assert_int_equal(mdb_env_create(&env), 0);
    mdb_env_set_maxdbs(env, 16);
    assert_int_equal(mdb_env_open(env, path, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    f(txn, arg);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static MDB_dbi table(MDB_txn *txn, const char *name)
{
    MDB_dbi dbi;

    assert_int_equal(mdb_dbi_open(txn, name, MDB_CREATE, &dbi), 0);
    return dbi;
}

static void set_format(MDB_txn *txn, void *arg)
{
    uint8_t bytes[4];
    MDB_val k = { 6, "format" }, v = { 4, bytes };

    put_be32(bytes, *(uint32_t *)arg);
    assert_int_equal(mdb_put(txn, table(txn, "meta"), &k, &v, 0), 0);
}

static void get_format(MDB_txn *txn, void *arg)
{
    MDB_val k = { 6, "format" }, v;

    assert_int_equal(mdb_get(txn, table(txn, "meta"), &k, &v), 0);
    *(uint32_t *)arg = get_be32(v.mv_data);
}

static void newer_format(void **state)
{
    uint32_t format = SPOOL_FORMAT + 1;
    struct spool *s = open_at(*state);
    char why[256] = "";

    spool_close(s);
    with_env(*state, set_format, &format);
    assert_int_equal(spool_open(&(struct spool_options){ .path = *state }, &s, why, sizeof(why)),
                     -EPROTONOSUPPORT);
    assert_non_null(strstr(why, "has format 4, and this version reads formats 1 to 3"));
    assert_int_equal(spool_open_readonly(*state, &s, why, sizeof(why)), -EPROTONOSUPPORT);
    format = 1; /* an older one is read, and is of this format from then on */
    with_env(*state, set_format, &format);
    s = open_at(*state);
    spool_close(s);
    with_env(*state, get_format, &format);
    assert_int_equal(format, SPOOL_FORMAT);
}

static void put_foreign(MDB_txn *txn, void *arg)
{
    MDB_val k = { 1, "k" }, v = { 1, "v" };

    assert_int_equal(mdb_put(txn, table(txn, "somebody's"), &k, &v, 0), 0);
}

static void foreign(void **state)
{
    const char *path = *state;
    struct spool *s;
    char why[256] = "", file[512];

    assert_int_equal(mkdir(path, 0700), 0);
    with_env(path, put_foreign, NULL);
    assert_int_equal(spool_open(&(struct spool_options){ .path = path }, &s, why, sizeof(why)),
                     -EBADMSG);
    assert_non_null(strstr(why, "not a spool"));

    snprintf(file, sizeof(file), "%s/data.mdb", path);
    FILE *f = fopen(file, "w");
    for (int i = 0; i < 10000; i++)
        fputs("not LMDB", f);
    fclose(f);
    assert_int_equal(spool_open(&(struct spool_options){ .path = path }, &s, why, sizeof(why)),
                     -EBADMSG);

    assert_int_equal(
        spool_open(&(struct spool_options){ .path = "/nonexistent/a" }, &s, why, sizeof(why)),
        -ENOENT);
    assert_int_equal(
        spool_open(&(struct spool_options){ .path = "/dev/null" }, &s, why, sizeof(why)), -ENOTDIR);
    assert_int_equal(spool_open_readonly("/nonexistent/a", &s, why, sizeof(why)), -ENOENT);
}

static void readonly(void **state)
{
    struct spool *s = open_at(*state);
    struct worker w;
    char why[256] = "";
    struct buf b;

    worker_init(&w, 0, s);
    assert_int_equal(put_simple(&w, id_of(1), "q", 1, 5000), 0);
    spool_close(s);
    worker_done(&w);

    assert_int_equal(spool_open_readonly(*state, &s, why, sizeof(why)), 0);
    worker_init(&w, 0, s);
    buf_init(&b, 0);
    assert_true(body_matches(w.port, id_of(1), 5000, 1));
    assert_int_equal(put_simple(&w, id_of(2), "q", 1, 5000), -EROFS);
    assert_int_equal(check_spool(s), 0);
    buf_done(&b);
    spool_close(s);
    worker_done(&w);
}

/* ---- spool_check sees damage ------------------------------------------------------------------ */

enum damage {
    NO_DUE,
    EXTRA_DUE,
    NO_BODY,
    EXTRA_BODY,
    NO_MESSAGE,
    NO_RECIPIENT,
    WRONG_COUNT,
    NO_QUEUE,
    IDLE_QUEUE,
    STALE_STAGING,
    SHORT_ROW,
    DAMAGES
};

static void do_damage(MDB_txn *txn, void *arg)
{
    struct msgid id = id_of(1);
    struct part_key piece = piece_key(&id, 0), piece9 = piece_key(&id, 9),
                    recipient = recipient_key(&id, 0);
    struct due_key due, due9;
    struct queue_row q = { .count = { 7 } };
    uint8_t row[SPOOL_QUEUE_HEAD];
    MDB_val id_v = { sizeof(id), &id }, piece_v = { piece.n, piece.b },
            piece9_v = { piece9.n, piece9.b }, recipient_v = { recipient.n, recipient.b },
            q_v = { 1, "q" }, x_v = { 1, "x" }, row_v = { sizeof(row), row }, empty = { 0, "" };

    due_key_make(&due, STR("q"), SPOOL_SCHEDULED, &(struct spool_due){ id, 0, 5 });
    due_key_make(&due9, STR("q"), SPOOL_SCHEDULED, &(struct spool_due){ id, 9, 5 });
    MDB_val due_v = { due.n, due.b }, due9_v = { due9.n, due9.b };
    queue_row_make(&q, row);
    int rc = -1;
    switch (*(enum damage *)arg) {
    case NO_DUE: rc = mdb_del(txn, table(txn, "due"), &due_v, NULL); break;
    case EXTRA_DUE: rc = mdb_put(txn, table(txn, "due"), &due9_v, &empty, 0); break;
    case NO_BODY: rc = mdb_del(txn, table(txn, "message"), &piece_v, NULL); break;
    case EXTRA_BODY: rc = mdb_put(txn, table(txn, "message"), &piece9_v, &empty, 0); break;
    case NO_MESSAGE: rc = mdb_del(txn, table(txn, "message"), &id_v, NULL); break;
    case NO_RECIPIENT: rc = mdb_del(txn, table(txn, "message"), &recipient_v, NULL); break;
    case WRONG_COUNT: rc = mdb_put(txn, table(txn, "due"), &q_v, &row_v, 0); break;
    case NO_QUEUE: rc = mdb_del(txn, table(txn, "due"), &q_v, NULL); break;
    case IDLE_QUEUE: rc = mdb_put(txn, table(txn, "due"), &x_v, &row_v, 0); break;
    case STALE_STAGING:
        put_be32(row, 1);
        row_v.mv_size = 4;
        rc = mdb_put(txn, table(txn, "staging"), &id_v, &row_v, 0);
        break;
    case SHORT_ROW: rc = mdb_put(txn, table(txn, "message"), &recipient_v, &empty, 0); break;
    case DAMAGES: break;
    }
    assert_int_equal(rc, 0);
}

static void check_sees_damage(void **state)
{
    for (enum damage d = 0; d < DAMAGES; d++) {
        char *path = spool_folder(), why[256];
        struct spool *s = open_at(path);
        struct worker w;
        worker_init(&w, 0, s);
        assert_int_equal(put_simple(&w, id_of(1), "q", 5, 100), 0);
        assert_int_equal(check_spool(s), 0);
        spool_close(s);
        worker_done(&w);
        with_env(path, do_damage, &d);
        assert_int_equal(spool_open_readonly(path, &s, why, sizeof(why)), 0); /* sweeps nothing */
        assert_true(check_spool(s) > 0);
        spool_close(s);
        spool_folder_remove(path);
    }
}

/* ---- kill -9 ---------------------------------------------------------------------------------- */

enum { CRASH_ROUNDS = 12, PER_ROUND = 100000, IN_FLIGHT = 16 };

/* What the child tells: 'a' a unit was reported done; 'd' a deletion is about to be submitted. */
struct tell {
    char what;
    uint64_t number;
};

static size_t size_of(uint64_t number)
{
    return number % 7 == 0 ? 150000 : number * 977 % 9000;
}

struct child {
    struct worker w;
    int out;
    struct unit unit[IN_FLIGHT];
    uint64_t number[IN_FLIGHT];
    uint64_t next;
};

static void child_tell(struct child *c, char what, uint64_t number)
{
    struct tell t = { .what = what, .number = number };

    if (write(c->out, &t, sizeof(t)) != sizeof(t))
        _exit(3);
}

static void child_next(struct child *c, size_t i);

static void child_put_done(struct unit *u)
{
    struct child *c = u->owner;
    size_t i = (size_t)(u - c->unit);

    if (u->op.result != 0)
        _exit(2);
    unit_free(u);
    child_tell(c, 'a', c->number[i]);
    child_next(c, i);
}

static void child_deleted(struct unit *u)
{
    struct child *c = u->owner;

    if (u->op.result != 0)
        _exit(2);
    child_next(c, (size_t)(u - c->unit));
}

/* A third of the messages is deleted again, a third moves to another queue. */
static void child_next(struct child *c, size_t i)
{
    struct unit *u = &c->unit[i];
    uint64_t done = c->number[i];

    unit_init(u);
    u->owner = c;
    if (done && done % 3 == 0) {
        c->number[i] = 0;
        child_tell(c, 'd', done);
        u->then = child_deleted;
        unit_delete(u, id_of(done), 0);
        unit_delete(u, id_of(done), 1);
    } else {
        if (done && done % 3 == 1)
            unit_put(u, id_of(done), 1, "moved", SPOOL_WAITING, 5, "r");
        uint64_t number = c->number[i] = c->next++;
        u->then = child_put_done;
        if (number % 5 == 0) { /* a session that dies */
            unit_stage(u, id_of(number + PER_ROUND / 2), 1, STR("left over"));
        }
        unit_message(u, id_of(number), STR("e"), body_of(size_of(number), (unsigned)number));
        unit_put(u, id_of(number), 0, number % 2 ? "odd" : "even", SPOOL_SCHEDULED, 1, "r");
        unit_put(u, id_of(number), 1, "both", SPOOL_SCHEDULED, 2, "r");
    }
    unit_submit(u, &c->w);
}

static void child_main(const char *path, int out, uint64_t first)
{
    static struct child c;
    struct spool *s = open_spool(&(struct spool_options){ .path = path, .map_initial = 1 << 20 });

    c = (struct child){ .out = out, .next = first };
    worker_init(&c.w, 0, s);
    for (size_t i = 0; i < IN_FLIGHT; i++)
        child_next(&c, i);
    for (;;)
        worker_turn(&c.w);
}

struct book {
    bool *acknowledged, *deleting;
    uint64_t n_acknowledged;
};

static void run_and_kill(const char *path, struct book *book, uint64_t round)
{
    struct tell t;
    int fds[2], status;

    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(fds[0]);
        child_main(path, fds[1], round * PER_ROUND + 1);
        _exit(1);
    }
    close(fds[1]);
    /* killed a random while after it has begun to acknowledge */
    struct timespec pause = { .tv_nsec = (long)(round * 7919 % 23) * 1000000 };
    bool killed = false;
    while (read(fds[0], &t, sizeof(t)) == sizeof(t)) {
        bool *mark = t.what == 'a' ? book->acknowledged : book->deleting;
        mark[t.number] = true;
        book->n_acknowledged += t.what == 'a';
        if (!killed) {
            nanosleep(&pause, NULL);
            kill(pid, SIGKILL);
            killed = true;
        }
    }
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void verify(const char *path, const struct book *book, uint64_t rounds)
{
    struct spool *s = open_at(path);
    struct spool_stats st;
    struct worker w;

    worker_init(&w, 0, s);
    assert_int_equal(check_spool(s), 0);
    assert_int_equal(spool_stats(s, &st), 0);
    assert_int_equal(st.staging, 0);
    for (uint64_t i = 0; i < rounds * PER_ROUND; i++)
        if (book->acknowledged[i] && !book->deleting[i])
            assert_true(body_matches(w.port, id_of(i), size_of(i), (unsigned)i));
    spool_close(s);
    worker_done(&w);
}

static void killed_at_any_moment(void **state)
{
    struct book book = { .acknowledged = calloc(CRASH_ROUNDS, PER_ROUND),
                         .deleting = calloc(CRASH_ROUNDS, PER_ROUND) };

    for (uint64_t round = 0; round < CRASH_ROUNDS; round++) {
        run_and_kill(*state, &book, round);
        verify(*state, &book, round + 1);
    }
    assert_true(book.n_acknowledged >= CRASH_ROUNDS);
    free(book.acknowledged);
    free(book.deleting);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(restart),
        T(sweep_of_many),
        T(second_open),
        T(newer_format),
        T(foreign),
        T(readonly),
        cmocka_unit_test(check_sees_damage),
        T(killed_at_any_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
