/* store_disk.c - the file under the environment: room on the disk, what is kept ready behind its end, and whether its
 * end is there. Layer: spool. Interface: store.h.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "spool/guard.h"
#include "spool/store.h"

enum { AHEAD_PIECE = 128 << 10, AHEAD_LEAST = 512 << 10, AHEAD_MOST = 1 << 20 };

uint64_t store_room(const struct store *st)
{
    struct statvfs vfs;
    struct rlimit limit;
    struct stat sb;
    uint64_t room = UINT64_MAX;
    int fd;

    if (statvfs(st->path, &vfs) == 0)
        room = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    if (getrlimit(RLIMIT_FSIZE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return room;
    if (st->env && mdb_env_get_fd(st->env, &fd) == 0 && fstat(fd, &sb) == 0) {
        uint64_t size = (uint64_t)sb.st_size;
        room = MIN(room, size < limit.rlim_cur ? limit.rlim_cur - size : 0);
    }
    return room;
}

/* Where the pages in use end. */
static bool end_of_pages(const struct store *st, int *ret_fd, uint64_t *ret)
{
    MDB_envinfo info;

    if (!st->env || mdb_env_info(st->env, &info) || mdb_env_get_fd(st->env, ret_fd))
        return false;
    *ret = (info.me_last_pgno + 1) * (uint64_t)st->page;
    return true;
}

void store_keep_reserve(struct store *st)
{
    uint64_t end;
    int fd;

    if (!end_of_pages(st, &fd, &end) || end + STORE_DISK_RESERVE / 2 <= st->reserved_to ||
        store_room(st) < 2 * STORE_DISK_RESERVE)
        return;
    /* Where the file system cannot do it, there is no reserve; it is not asked again soon. */
    int r = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)end, (off_t)STORE_DISK_RESERVE);
    (void)r;
    st->reserved_to = end + STORE_DISK_RESERVE;
}

bool store_write_ahead(struct store *st)
{
    static const char zeros[AHEAD_PIECE];
    uint64_t end;
    struct stat sb;
    int fd;

    if (!end_of_pages(st, &fd, &end) || fstat(fd, &sb) < 0)
        return false;
    uint64_t size = (uint64_t)sb.st_size / st->page * st->page;
    uint64_t ahead = size > end ? size - end : 0;
    if (ahead >= (st->filling ? AHEAD_MOST : AHEAD_LEAST) ||
        store_room(st) < 2 * STORE_DISK_RESERVE) {
        st->filling = false;
        return false;
    }
    /* What fails here fails again where it matters, and is told there. But the system tells an error of this sync
     * to the next one on this file as well, and that would be a commit. */
    st->filling = pwrite(fd, zeros, sizeof(zeros), (off_t)(end + ahead)) == sizeof(zeros);
    if (st->filling && fdatasync(fd) < 0) {
        st->filling = false;
        store_reopen(st);
    }
    return st->filling;
}

/* LMDB does not tell where its map begins; the system does. */
const char *store_file_end(const struct store *st, const char *value)
{
    uintptr_t at = (uintptr_t)value, from, to, offset;
    const char *end = NULL;
    char line[4096];
    struct stat sb;
    int fd;

    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && !end && fgets(line, sizeof(line), maps))
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %" SCNxPTR, &from, &to, &offset) == 3 &&
            from <= at && at < to && mdb_env_get_fd(st->env, &fd) == 0 && fstat(fd, &sb) == 0)
            end = (uint64_t)sb.st_size < offset
                      ? (const char *)from
                      : (const char *)from + ((uint64_t)sb.st_size - offset);
    if (maps)
        fclose(maps);
    return end;
}

struct looking {
    struct store *store;
    MDB_txn *txn;
    MDB_cursor *cursor;
};

static int look_for_end(void *arg)
{
    struct looking *l = arg;
    const char *end = NULL;
    MDB_val k, v;
    MDB_dbi messages;

    if (mdb_dbi_open(l->txn, "message", 0, &messages) ||
        mdb_cursor_open(l->txn, messages, &l->cursor))
        return 0; /* whoever opens it will tell */
    while (mdb_cursor_get(l->cursor, &k, &v, MDB_NEXT) == 0) {
        if (!end)
            end = store_file_end(l->store, v.mv_data);
        if (end && (const char *)v.mv_data + v.mv_size > end)
            return -EIO;
    }
    return 0;
}

/* A file that is shorter than its pages is whole all the same when the last ones are free: a commit does not write
 * pages that it took and gave back. So only then the messages are gone through, without touching what they say. */
bool store_is_cut_off(struct store *st)
{
    struct looking l = { .store = st };
    struct stat sb;
    uint64_t end;
    int fd;

    if (!end_of_pages(st, &fd, &end) || fstat(fd, &sb) < 0 || (uint64_t)sb.st_size >= end ||
        mdb_txn_begin(st->env, NULL, MDB_RDONLY, &l.txn))
        return false;
    int r = guard_run(look_for_end, &l);
    if (l.cursor)
        mdb_cursor_close(l.cursor);
    mdb_txn_abort(l.txn);
    return r < 0;
}
