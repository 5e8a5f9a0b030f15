/* Disks that fail or fill, maps that must grow. The system calls that LMDB writes with are replaced by
 * ones of this program, which fail on demand and know a disk of limited size. */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/str.h"
#include "spool_helper.h"

#include <cmocka.h>

/* ---- the disk --------------------------------------------------------------------------------- */

static atomic_int fail_syncs, fail_roots, fail_writes; /* so many of the next ones */
static atomic_llong disk_size;                         /* 0: no limit */
static atomic_llong disk_used;                         /* the end of the file */
static atomic_bool disk_says_full;                     /* before it is */

static bool take_one(atomic_int *n)
{
    return atomic_load(n) > 0 && atomic_fetch_sub(n, 1) > 0;
}

/* An idle writer writes zeros ahead, in pieces of a size that nothing else has, and syncs them: what is to fail is a
 * commit, whenever that is. */
enum { AHEAD_PIECE = 128 << 10 };
static _Thread_local bool writing_ahead;

int fdatasync(int fd)
{
    bool ahead = writing_ahead;

    writing_ahead = false;
    if (!ahead && take_one(&fail_syncs)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

/* What fsync was called for, by inode; fail_fsync: so many calls that succeed before one fails, -1: none does. */
enum { SYNCED = 8 };
static int fail_fsync = -1, n_synced;
static ino_t synced[SYNCED];

int fsync(int fd)
{
    struct stat sb;

    if (fail_fsync >= 0 && fail_fsync-- == 0) {
        errno = EIO;
        return -1;
    }
    if (n_synced < SYNCED && fstat(fd, &sb) == 0)
        synced[n_synced++] = sb.st_ino;
    return (int)syscall(SYS_fsync, fd);
}

/* What fits at that place; -1: nothing. */
static ssize_t fits(off_t at, size_t n)
{
    long long size = atomic_load(&disk_size);

    if (!size || at + (long long)n <= size)
        return (ssize_t)n;
    errno = ENOSPC;
    return at >= size ? -1 : (ssize_t)(size - at);
}

static void used_to(off_t end)
{
    if (end > atomic_load(&disk_used))
        atomic_store(&disk_used, end);
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at)
{
    bool root = n < 512 && at < 8192; /* LMDB writes root pages in part, all others whole */
    ssize_t room = fits(at, n);

    writing_ahead = n == AHEAD_PIECE;
    if (!writing_ahead && take_one(root ? &fail_roots : &fail_writes)) {
        errno = EIO;
        return -1;
    }
    if (room < 0)
        return -1;
    used_to(at + room);
    return syscall(SYS_pwrite64, fd, bytes, (size_t)room, at);
}

ssize_t writev(int fd, const struct iovec *v, int count)
{
    size_t n = 0;
    off_t at = lseek(fd, 0, SEEK_CUR);

    for (int i = 0; i < count; i++)
        n += v[i].iov_len;
    if (take_one(&fail_writes)) {
        errno = EIO;
        return -1;
    }
    ssize_t room = fits(at, n), done = 0;
    if (room == (ssize_t)n) {
        used_to(at + room);
        return syscall(SYS_writev, fd, v, count);
    }
    for (int i = 0; i < count && done < room; i++)
        done += pwrite(fd, v[i].iov_base, v[i].iov_len, at + done);
    return room < 0 ? -1 : done;
}

int statvfs(const char *path, struct statvfs *ret)
{
    long long size = atomic_load(&disk_size), used = atomic_load(&disk_used);
    long long room = atomic_load(&disk_says_full) ? 500000 : size ? size - used : INT64_MAX;

    *ret = (struct statvfs){ .f_frsize = 1, .f_bavail = (fsblkcnt_t)(room > 0 ? room : 0) };
    return 0;
}

/* ---- fixture ---------------------------------------------------------------------------------- */

struct fixture {
    char *path;
    struct spool *spool;
    struct worker w;
    uint64_t next;
};

static uint64_t min_free = 1 << 20;

static void open_fixture(struct fixture *f, uint64_t map_initial, uint64_t map_max)
{
    f->spool = open_spool(&(struct spool_options){
        .path = f->path, .map_initial = map_initial, .map_max = map_max, .min_free = min_free });
    worker_init(&f->w, 0, f->spool);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->path = spool_folder();
    f->next = 1;
    min_free = 1 << 20;
    atomic_store(&disk_used, 0);
    *state = f;
    return 0;
}

static int64_t close_fixture(struct fixture *f)
{
    int64_t problems = check_spool(f->spool);

    f->spool = spool_close(f->spool);
    worker_done(&f->w);
    return problems;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    atomic_store(&disk_size, 0);
    atomic_store(&disk_says_full, false);
    atomic_store(&fail_syncs, 0);
    atomic_store(&fail_roots, 0);
    atomic_store(&fail_writes, 0);
    if (f->spool && close_fixture(f) != 0)
        return -1;
    open_fixture(f, 0, 0); /* what is on the disk is whole, too */
    if (close_fixture(f) != 0)
        return -1;
    spool_folder_remove(f->path);
    free(f);
    return 0;
}

static struct spool_stats stats(struct fixture *f)
{
    struct spool_stats st;

    assert_int_equal(spool_stats(f->spool, &st), 0);
    return st;
}

static int put(struct fixture *f, size_t size)
{
    return put_simple(&f->w, id_of(f->next++), "q", 1, size);
}

static void delete_all(struct fixture *f, uint64_t from, uint64_t end)
{
    while (from < end) {
        struct unit u;
        unit_init(&u);
        for (; u.op.n_changes < UNIT_CHANGES && from < end; from++)
            unit_delete(&u, id_of(from), 0);
        assert_int_equal(unit_run(&u, &f->w), 0);
    }
}

static void assert_there(struct fixture *f, uint64_t n, size_t size)
{
    assert_true(body_matches(f->w.port, id_of(n), size, 1));
}

/* ---- errors of the disk ----------------------------------------------------------------------- */

static void sync_fails(void **state)
{
    struct fixture *f = *state;

    open_fixture(f, 0, 0);
    assert_int_equal(put(f, 5000), 0);
    atomic_store(&fail_syncs, 1);
    assert_int_equal(put(f, 5000), -EIO);
    assert_int_equal(put(f, 5000), 0);
    assert_there(f, 1, 5000);
    assert_there(f, 3, 5000);
    assert_int_equal(stats(f).messages, 2);
    atomic_store(&fail_writes, 1);
    assert_int_equal(delete_simple(&f->w, id_of(1), 0), -EIO);
    assert_int_equal(delete_simple(&f->w, id_of(1), 0), 0);
    assert_int_equal(stats(f).messages, 1);
}

/* Neither the root page nor the old one in its place can be written: LMDB gives up the environment. */
static void root_fails(void **state)
{
    struct fixture *f = *state;

    open_fixture(f, 0, 0);
    assert_int_equal(put(f, 5000), 0);
    assert_there(f, 1, 5000); /* the reader's transaction is there when the environment goes */
    atomic_store(&fail_roots, 1);
    assert_int_equal(put(f, 5000), -EIO);
    assert_there(f, 1, 5000);
    assert_int_equal(put(f, 5000), 0);
    assert_there(f, 3, 5000);
    assert_true(stats(f).reopened >= 1);
    assert_int_equal(stats(f).messages, 2);
}

static bool was_synced(const char *path)
{
    struct stat sb;
    bool found = false;

    assert_int_equal(stat(path, &sb), 0);
    for (int i = 0; i < n_synced; i++)
        found = found || synced[i] == sb.st_ino;
    return found;
}

/* Who removes the spool because there is a copy loses nothing: it is on the disk, with the names that lead to
 * it. What could not be put there is no copy; and what another one made is left alone. */
static void a_copy_is_on_the_disk(void **state)
{
    struct fixture *f = *state;
    char *to = spool_folder(), why[256] = "", file[300], parent[300];

    snprintf(file, sizeof(file), "%s/data.mdb", to);
    snprintf(parent, sizeof(parent), "%s/..", to);
    open_fixture(f, 0, 0);
    assert_int_equal(put(f, 50000), 0);
    for (int i = 0; i < 3; i++) {
        fail_fsync = i;
        assert_int_equal(spool_copy(f->spool, to, why, sizeof(why)), -EIO);
        assert_non_null(strstr(why, "to the disk"));
        assert_int_not_equal(access(file, F_OK), 0);
    }
    fail_fsync = -1;
    n_synced = 0;
    assert_int_equal(spool_copy(f->spool, to, why, sizeof(why)), 0);
    assert_true(was_synced(file));
    assert_true(was_synced(to));
    assert_true(was_synced(parent));
    assert_int_equal(spool_copy(f->spool, to, why, sizeof(why)), -EEXIST);
    assert_int_equal(access(file, F_OK), 0);
    struct spool *copy = open_spool(&(struct spool_options){ .path = to });
    assert_int_equal(check_spool(copy), 0);
    spool_close(copy);
    spool_folder_remove(to);
}

/* ---- full disks ------------------------------------------------------------------------------- */

static void disk_without_room(void **state)
{
    struct fixture *f = *state;
    struct unit u;

    open_fixture(f, 0, 0);
    assert_int_equal(put(f, 5000), 0);
    assert_int_equal(put(f, 5000), 0);
    atomic_store(&disk_says_full, true);
    assert_int_equal(put(f, 10), -ENOSPC);
    unit_init(&u);
    unit_stage(&u, id_of(50), 1, STR("x"));
    assert_int_equal(unit_run(&u, &f->w), -ENOSPC);
    unit_init(&u); /* what is there goes on */
    unit_put(&u, id_of(1), 0, "later", SPOOL_SCHEDULED, 5, "r");
    unit_put(&u, id_of(1), 1, "later", SPOOL_SCHEDULED, 5, "r");
    unit_message(&u, id_of(1), STR("new envelope"), NULL);
    unit_queue(&u, "q", STR("full"));
    assert_int_equal(unit_run(&u, &f->w), 0);
    assert_int_equal(delete_simple(&f->w, id_of(2), 0), 0);
    atomic_store(&disk_says_full, false);
    assert_int_equal(put(f, 10), 0);
}

/* The disk fills without a word before. What was acknowledged stays, deletions go on as long as LMDB finds
 * pages, and when there is room again all is well. */
static void disk_full_inside(void **state)
{
    struct fixture *f = *state;
    uint64_t acknowledged = 0;
    int r = 0;

    min_free = 1;
    open_fixture(f, 0, 0);
    atomic_store(&disk_size, 3 << 20);
    while (acknowledged < 1000 && (r = put(f, 30000)) == 0)
        acknowledged++;
    assert_int_equal(r, -ENOSPC);
    assert_in_range(acknowledged, 50, 100);
    for (int i = 0; i < 5; i++)
        assert_int_equal(put(f, 200000), -ENOSPC);
    for (uint64_t i = 1; i <= acknowledged; i++)
        assert_there(f, i, 30000);
    assert_int_equal(check_spool(f->spool), 0);
    assert_int_equal(stats(f).messages, acknowledged);

    atomic_store(&disk_size, (3 << 20) + 65536); /* an operator removes something */
    for (uint64_t i = 1; i <= 20; i++)
        assert_int_equal(delete_simple(&f->w, id_of(i), 0), 0);
    for (int i = 0; i < 15; i++)
        assert_int_equal(put(f, 30000), 0);
    assert_int_equal(stats(f).messages, acknowledged - 5);
}

/* Units that bring mail fail, others of the same group do not. */
static void disk_full_spares_updates(void **state)
{
    struct fixture *f = *state;
    struct unit mail[40], update[40];

    min_free = 1;
    open_fixture(f, 0, 0);
    for (int i = 0; i < 40; i++)
        assert_int_equal(put(f, 100), 0);
    atomic_store(&disk_size, (long long)stats(f).file_size + 100000);
    for (uint64_t i = 0; i < 40; i++) {
        unit_init(&mail[i]);
        unit_message(&mail[i], id_of(1000 + i), STR("e"), body_of(60000, 1));
        unit_put(&mail[i], id_of(1000 + i), 0, "new", SPOOL_SCHEDULED, 1, "r");
        unit_init(&update[i]);
        unit_put(&update[i], id_of(1 + i), 0, "moved", SPOOL_HELD, 1, "r");
        unit_submit(&mail[i], &f->w);
        unit_submit(&update[i], &f->w);
    }
    int refused = 0;
    for (int i = 0; i < 40; i++) {
        while (!mail[i].done || !update[i].done)
            worker_turn(&f->w);
        assert_int_equal(update[i].op.result, 0);
        assert_true(mail[i].op.result == 0 || mail[i].op.result == -ENOSPC);
        refused += mail[i].op.result != 0;
        unit_free(&mail[i]);
    }
    assert_true(refused >= 38);
    assert_int_equal(stats(f).messages, 80 - refused);
}

/* Blocks for what deletions write are taken before others can take them. */
static void blocks_are_kept_allocated(void **state)
{
    struct fixture *f = *state;
    char file[300];
    struct stat sb;

    open_fixture(f, 0, 0);
    snprintf(file, sizeof(file), "%s/data.mdb", f->path);
    int fd = open(file, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    int r = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 4096);
    close(fd);
    if (r < 0) {
        print_message("the file system has no fallocate: nothing is kept\n");
        skip();
    }
    for (int i = 0; i < 5; i++) {
        assert_int_equal(put(f, 3000000), 0);
        assert_int_equal(put(f, 1), 0); /* they come when those who waited have been told */
        assert_int_equal(stat(file, &sb), 0);
        assert_true((uint64_t)sb.st_blocks * 512 >= stats(f).file_size + (4 << 20));
    }
}

/* An idle writer makes the file longer before a commit has to, and by little: what it is used for stays what it was. */
static void an_idle_writer_writes_ahead(void **state)
{
    struct fixture *f = *state;
    char file[300];
    struct stat sb;

    open_fixture(f, 0, 0);
    snprintf(file, sizeof(file), "%s/data.mdb", f->path);
    for (int i = 0; i < 20; i++) {
        uint64_t used;
        assert_int_equal(put(f, 100000), 0);
        used = stats(f).file_size;
        for (int ms = 0; stat(file, &sb) == 0 && (uint64_t)sb.st_size < used + (512 << 10); ms++) {
            assert_true(ms < 20000);
            poll(NULL, 0, 1);
        }
        assert_true((uint64_t)sb.st_size <= used + (1 << 20) + (128 << 10));
        assert_int_equal(stats(f).file_size, used);
    }
    assert_int_equal(check_spool(f->spool), 0);
}

/* The limit of a file's size: as room on the disk. And without a margin: EFBIG, short writes. */
static void file_size_limit(void **state)
{
    struct fixture *f = *state;
    struct rlimit before, limit;
    int r = 0;

    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 3 << 20;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    open_fixture(f, 0, 0);
    while (f->next < 1000 && (r = put(f, 30000)) == 0)
        ;
    assert_int_equal(r, -ENOSPC);
    assert_true(stats(f).file_size <= 2200000);
    delete_all(f, 1, f->next - 1);
    assert_int_equal(close_fixture(f), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);

    min_free = 1;
    open_fixture(f, 0, 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    while (f->next < 2000 && (r = put(f, 30000)) == 0)
        ;
    assert_int_equal(r, -ENOSPC);
    assert_int_equal(check_spool(f->spool), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(put(f, 9000), 0);
}

/* ---- the map ---------------------------------------------------------------------------------- */

static atomic_bool stop_reading;

static void *read_always(void *arg)
{
    struct worker *w = arg;
    struct spool_due due[32];
    struct spool_entry entry[32];
    struct buf b;

    buf_init(&b, 0);
    while (!atomic_load(&stop_reading)) {
        struct msgid id = id_of(1);
        int r = w->port->read_chunk(w->port, &id, 0, &b);
        CHECK(r == 0 || r == -ENOENT);
        CHECK(r < 0 || buf_len(&b) == 10000);
        CHECK(w->port->scan_due(w->port, STR("q"), SPOOL_SCHEDULED, NULL, 100, due, 32) >= 0);
        CHECK(w->port->scan_entries(w->port, NULL, 0, entry, 32) >= 0);
    }
    buf_done(&b);
    return NULL;
}

static void map_grows_under_readers(void **state)
{
    struct fixture *f = *state;
    struct worker w[3];
    pthread_t thread[3];

    open_fixture(f, 1 << 20, 0);
    atomic_store(&stop_reading, false);
    for (int i = 0; i < 3; i++) {
        worker_init(&w[i], i + 1, f->spool);
        assert_int_equal(pthread_create(&thread[i], NULL, read_always, &w[i]), 0);
    }
    assert_int_equal(put(f, 10000), 0);
    for (int i = 0; i < 150; i++)
        assert_int_equal(put(f, 50000), 0);
    atomic_store(&stop_reading, true);
    for (int i = 0; i < 3; i++)
        pthread_join(thread[i], NULL);
    assert_true(stats(f).map_size >= 8 << 20);
    assert_int_equal(stats(f).messages, 151);
    close_fixture(f);
    for (int i = 0; i < 3; i++)
        worker_done(&w[i]);
    open_fixture(f, 1 << 20, 0); /* smaller than what is there: LMDB takes what it needs */
    assert_there(f, 151, 50000);
    assert_int_equal(put(f, 10000), 0);
}

/* At the limit of the map new mail is refused; all that is there can be delivered and deleted; then the
 * room is used again, for as often as one likes. */
static void map_has_a_limit(void **state)
{
    struct fixture *f = *state;
    int r = 0;

    open_fixture(f, 1 << 20, 4 << 20);
    for (int round = 0; round < 3; round++) {
        uint64_t first = f->next;
        while (f->next < first + 1000 && (r = put(f, 40000)) == 0)
            ;
        assert_int_equal(r, -ENOSPC);
        uint64_t n = f->next - 1 - first;
        assert_true(n >= 40);
        for (uint64_t i = first; i < first + n;) {
            struct unit u;
            unit_init(&u);
            for (; u.op.n_changes < UNIT_CHANGES && i < first + n; i++)
                unit_put(&u, id_of(i), 0, "moved", SPOOL_SCHEDULED, (int64_t)i,
                         "longer than before");
            assert_int_equal(unit_run(&u, &f->w), 0);
        }
        delete_all(f, first, first + n);
        assert_int_equal(stats(f).messages, 0);
    }
    assert_true(stats(f).map_size <= 8 << 20);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(sync_fails),
        T(root_fails),
        T(a_copy_is_on_the_disk),
        T(disk_without_room),
        T(disk_full_inside),
        T(disk_full_spares_updates),
        T(blocks_are_kept_allocated),
        T(an_idle_writer_writes_ahead),
        T(file_size_limit),
        T(map_grows_under_readers),
        T(map_has_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
