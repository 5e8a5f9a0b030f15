/* store.c - the LMDB environment of a spool. Layer: spool. Interface: store.h.
 *
 * Flags: neither MDB_WRITEMAP (a full disk would be a SIGBUS) nor MDB_NOMETASYNC or MDB_NOSYNC (a
 * commit would not be one). MDB_NOTLS: a reader belongs to its object, so that the writer can end the
 * idle ones before it opens the environment anew. MDB_NORDAHEAD: the queue may be larger than memory
 * and is read in small pieces from everywhere.
 */
#include "spool/store.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spool/guard.h"
#include "spool/record.h"
#include "spool/upgrade.h"

enum { OLD_TABLES = 3 }; /* upgrade.c opens these */
static const uint64_t MAP_INITIAL = UINT64_C(256) << 20;
static const uint64_t MAP_LEAST = UINT64_C(1) << 20;
static const uint64_t MAP_STEP = UINT64_C(4) << 20;
static const uint64_t MAP_MOST = UINT64_C(64) << 40; /* what 47 bits of addresses leave room for */

static const char *const table_name[STORE_TABLES] = {
    [TABLE_META] = "meta",       [TABLE_MESSAGE] = "message", [TABLE_DUE] = "due",
    [TABLE_STAGING] = "staging", [TABLE_KV] = "kv",           [TABLE_KV_END] = "kv_end",
    [TABLE_KV_NAME] = "kv_name",
};

const char *spool_table_name(size_t i)
{
    return i < STORE_TABLES ? table_name[i] : NULL;
}

const char *spool_row_name(size_t row)
{
    static const char *const name[SPOOL_ROWS] = {
        [SPOOL_ROW_MESSAGE] = "message",
        [SPOOL_ROW_PIECE] = "piece",
        [SPOOL_ROW_RECIPIENT] = "recipient",
        [SPOOL_ROW_QUEUE] = "queue",
        [SPOOL_ROW_DUE] = "due",
        [SPOOL_ROW_STAGING] = "staging",
        [SPOOL_ROW_KV] = "kv",
        [SPOOL_ROW_KV_END] = "kv_end",
        [SPOOL_ROW_KV_NAME] = "kv_name",
    };

    return row < SPOOL_ROWS ? name[row] : NULL;
}

int store_error(int rc)
{
    if (rc <= 0 && rc > -4096)
        return rc;
    switch (rc) {
    case MDB_NOTFOUND: return -ENOENT;
    case MDB_MAP_FULL:
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return -ENOSPC;
    case ENOMEM: return -ENOMEM;
    default: return -EIO;
    }
}

/* ---- opening ---------------------------------------------------------------------------------- */

/* What went wrong while opening, for people. */
struct why {
    char *text;
    size_t size;
};

PRINTF_LIKE(3, 4) static int because(const struct why *why, int error, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    if (why->size)
        vsnprintf(why->text, why->size, fmt, ap);
    va_end(ap);
    return error;
}

static int make_folder(const struct store *st, const struct why *why)
{
    struct stat sb;

    if (mkdir(st->path, 0700) < 0 && errno != EEXIST)
        return because(why, -errno, "cannot make the folder %s: %s", st->path, strerror(errno));
    if (stat(st->path, &sb) < 0)
        return because(why, -errno, "cannot look at %s: %s", st->path, strerror(errno));
    if (!S_ISDIR(sb.st_mode))
        return because(why, -ENOTDIR, "%s is not a folder", st->path);
    return 0;
}

/* A tool that root runs may be the first to open a copy: what it makes in there must not become root's alone.
 * To the owner of the file, or of the folder where there is none yet. */
static bool owner_of(const struct store *st, struct stat *ret)
{
    AUTO_FREE char *file = NULL;

    if (asprintf(&file, "%s/data.mdb", st->path) < 0) {
        file = NULL;
        return false;
    }
    return lstat(file, ret) == 0 || stat(st->path, ret) == 0;
}

/* What fails here is told to whoever cannot open it. A name more than this one is none of ours. */
static void give_use_file(const struct store *st, int fd)
{
    struct stat owner, sb;

    if (geteuid() == 0 && owner_of(st, &owner) && fstat(fd, &sb) == 0 && S_ISREG(sb.st_mode) &&
        sb.st_nlink == 1 && fchown(fd, owner.st_uid, owner.st_gid) < 0)
        return;
}

/* LMDB's, which is not opened here: closing it would end LMDB's locks. */
static void give_lock_file(const struct store *st)
{
    AUTO_FREE char *file = NULL;
    struct stat owner;

    if (geteuid() != 0 || !owner_of(st, &owner) || asprintf(&file, "%s/lock.mdb", st->path) < 0) {
        file = NULL;
        return;
    }
    if (lchown(file, owner.st_uid, owner.st_gid) < 0)
        return;
}

/* The lock is the system's: it ends with the process, however that ends. The number in the file is
 * for the text only. */
static int take_lock(struct store *st, const struct why *why)
{
    char pid[24] = "";
    AUTO_FREE char *file = NULL;

    if (asprintf(&file, "%s/in-use", st->path) < 0) {
        file = NULL;
        return because(why, -ENOMEM, "out of memory");
    }
    int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return because(why, -errno, "cannot open %s: %s", file, strerror(errno));
    give_use_file(st, fd);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int error = errno == EWOULDBLOCK ? -EBUSY : -errno;
        ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);
        pid[n > 0 ? strcspn(pid, "\n") : 0] = '\0';
        close(fd);
        if (error != -EBUSY)
            return because(why, error, "cannot lock %s: %s", file, strerror(-error));
        return because(why, error,
                       "the spool %s is in use by another process%s%s: stop that one first, or "
                       "give this one a spool of its own",
                       st->path, *pid ? ", number " : "", pid);
    }
    int n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    /* A full disk must not keep the daemon from starting: the number is only nice to have. */
    if (ftruncate(fd, 0) == 0 && pwrite(fd, pid, (size_t)n, 0) < 0 && ftruncate(fd, 0) < 0)
        pid[0] = 0;
    st->lock_fd = fd;
    return 0;
}

/* From now on rows of this format are written, which an older version must not take for its own. `upgrade`: rows of
 * an older one are to be moved first. */
static int write_format(struct store *st, MDB_txn *txn, bool upgrade, const struct why *why)
{
    uint8_t format[4];
    MDB_val key = store_val(STR("format")), v = { sizeof(format), format }, nothing = { 0 };
    MDB_val upgrading = store_val(store_upgrading_key);

    put_be32(format, SPOOL_FORMAT);
    int rc = mdb_put(txn, st->table[TABLE_META], &key, &v, 0);
    if (rc == 0 && upgrade)
        rc = mdb_put(txn, st->table[TABLE_META], &upgrading, &nothing, 0);
    return rc ? because(why, store_error(rc), "cannot write the format of %s: %s", st->path,
                        mdb_strerror(rc))
              : 0;
}

/* While the older version can still deliver what is in it. */
static int begin_upgrade(struct store *st, MDB_txn *txn, const struct why *why)
{
    uint64_t needs, room = store_room(st);
    int rc = upgrade_needs(txn, &needs);

    if (rc)
        return because(why, store_error(rc), "cannot read the older tables of %s: %s", st->path,
                       mdb_strerror(rc));
    if (room < needs)
        return because(why, -ENOSPC,
                       "the spool %s is of an older version; to make format %u of it there must be "
                       "room for %llu MiB on the disk, which has %llu: make room, or let the older "
                       "version deliver some of it first",
                       st->path, (unsigned)SPOOL_FORMAT, (unsigned long long)(needs >> 20) + 1,
                       (unsigned long long)(room >> 20));
    return write_format(st, txn, true, why);
}

static int check_format(struct store *st, MDB_txn *txn, const struct why *why)
{
    MDB_val key = store_val(STR("format")), v;
    int rc = mdb_get(txn, st->table[TABLE_META], &key, &v);

    if (rc != 0 || v.mv_size != 4)
        return because(why, -EBADMSG, "%s/data.mdb has no format version: it is not a spool",
                       st->path);
    uint32_t format = get_be32(v.mv_data);
    if (format > SPOOL_FORMAT)
        return because(why, -EPROTONOSUPPORT,
                       "the spool %s has format %u, and this version reads formats 1 to %u: run "
                       "the newer version that wrote it, or let that one deliver what is in it "
                       "and start this one with an empty folder",
                       st->path, (unsigned)format, (unsigned)SPOOL_FORMAT);
    if (format == 0)
        return because(why, -EBADMSG, "the spool %s has format 0: it is damaged", st->path);
    key = store_val(store_upgrading_key);
    bool older = format < SPOOL_FORMAT || mdb_get(txn, st->table[TABLE_META], &key, &v) == 0;
    if (older && st->readonly)
        return because(why, -EPROTONOSUPPORT,
                       "the spool %s is of an older version: start the router on it once, which "
                       "makes format %u of it",
                       st->path, (unsigned)SPOOL_FORMAT);
    return format < SPOOL_FORMAT ? begin_upgrade(st, txn, why) : 0;
}

static int cannot_read(const struct store *st, int rc, const char *table, const struct why *why)
{
    bool damaged = rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND || rc == MDB_INVALID;

    return because(why, damaged ? -EBADMSG : store_error(rc), "cannot read %s%s%s/data.mdb: %s%s",
                   table, *table ? " in " : "", st->path, mdb_strerror(rc),
                   damaged ? "; its pages are damaged: look at the disk, then put a copy of the "
                             "folder in its place, or start with an empty one"
                           : "");
}

/* Something is in the environment, so either all our tables are, or it is none of ours. */
static int open_tables(struct store *st, MDB_txn *txn, const struct why *why)
{
    for (int i = 0; i < STORE_TABLES; i++) {
        bool young = i >= TABLE_KV;
        unsigned flags = young && !st->readonly ? MDB_CREATE : 0;
        int rc = mdb_dbi_open(txn, table_name[i], flags, &st->table[i]);
        if (rc == MDB_NOTFOUND && young) {
            st->table[i] = STORE_NO_TABLE;
            continue;
        }
        if (rc == MDB_NOTFOUND || rc == MDB_INCOMPATIBLE)
            return because(why, -EBADMSG, "%s/data.mdb has no table \"%s\": it is not a spool",
                           st->path, table_name[i]);
        if (rc)
            return cannot_read(st, rc, table_name[i], why);
        if (i == TABLE_META) {
            rc = check_format(st, txn, why); /* a newer format may have other tables */
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static int create_tables(struct store *st, MDB_txn *txn, const struct why *why)
{
    int rc = 0;

    for (int i = 0; i < STORE_TABLES && rc == 0; i++)
        rc = mdb_dbi_open(txn, table_name[i], MDB_CREATE, &st->table[i]);
    return rc ? because(why, store_error(rc), "cannot make the tables in %s: %s", st->path,
                        mdb_strerror(rc))
              : write_format(st, txn, false, why);
}

/* Tables of a new environment are made in one transaction: a crash leaves all or none. */
static int enter_tables(struct store *st, const struct why *why)
{
    MDB_txn *txn;
    MDB_stat main_table;
    int rc = mdb_txn_begin(st->env, NULL, st->readonly ? MDB_RDONLY : 0, &txn);
    if (rc)
        return cannot_read(st, rc, "", why);

    rc = mdb_dbi_open(txn, NULL, 0, &st->roots);
    if (rc == 0)
        rc = mdb_stat(txn, st->roots, &main_table);
    if (rc == 0 && (st->readonly || main_table.ms_entries > 0))
        rc = open_tables(st, txn, why);
    else if (rc == 0)
        rc = create_tables(st, txn, why);
    else
        rc = cannot_read(st, rc, "", why);
    if (rc < 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    rc = mdb_txn_commit(txn);
    return rc ? because(why, store_error(rc), "cannot write to %s: %s", st->path, mdb_strerror(rc))
              : 0;
}

/* Once: later the end is where we have put it. */
static int look_at_the_end(struct store *st, const struct why *why)
{
    if (st->readonly || st->looked_at)
        return 0;
    st->looked_at = true;
    if (!store_is_cut_off(st))
        return 0;
    return because(why, -EBADMSG,
                   "%s/data.mdb ends before parts of messages that are in it: it was not copied "
                   "whole. Put a whole copy in its place; \"tern spool check\" tells what is "
                   "missing from this one",
                   st->path);
}

/* The handles of tables are kept by mdb_txn_commit only, of a read transaction too. */
static int open_env(struct store *st, const struct why *why)
{
    unsigned flags = MDB_NOTLS | MDB_NORDAHEAD | (st->readonly ? MDB_RDONLY : 0);
    MDB_envinfo info;
    MDB_stat stat;
    int stale;
    int rc = mdb_env_create(&st->env);

    if (rc == 0)
        rc = mdb_env_set_maxdbs(st->env, STORE_TABLES + OLD_TABLES);
    if (rc == 0) /* each port, check and stats, and tools beside us */
        rc = mdb_env_set_maxreaders(st->env, SPOOL_MAX_PORTS + 62);
    if (rc == 0 &&
        !st->readonly) /* else what the file has: a writer beside us may make it larger */
        rc = mdb_env_set_mapsize(st->env, st->map_size);
    if (rc == 0)
        rc = mdb_env_open(st->env, st->path, flags, 0600);
    if (rc == 0)
        rc = mdb_reader_check(st->env, &stale); /* of processes that were killed */
    if (rc == 0)
        rc = mdb_env_info(st->env, &info);
    if (rc == 0)
        rc = mdb_env_stat(st->env, &stat);
    if (rc) {
        int error = rc == MDB_INVALID || rc == MDB_VERSION_MISMATCH ? -EBADMSG
                    : rc > 0 && store_error(rc) == -EIO             ? -rc
                                                                    : store_error(rc);
        if (error == -EBADMSG)
            because(why, error,
                    "%s/data.mdb is not an LMDB file, or its first pages are damaged (%s): move it "
                    "away and put a copy in its place, or start with an empty folder",
                    st->path, mdb_strerror(rc));
        else if (error == -ENOENT && st->readonly)
            because(why, error, "there is no spool in %s", st->path);
        else
            because(why, error, "cannot open %s/data.mdb: %s", st->path, mdb_strerror(rc));
        mdb_env_close(st->env);
        st->env = NULL;
        return error;
    }
    st->map_size = info.me_mapsize;
    st->page = stat.ms_psize;
    rc = look_at_the_end(st, why);
    if (rc == 0)
        rc = enter_tables(st, why);
    if (rc < 0) {
        mdb_env_close(st->env);
        st->env = NULL;
    }
    return rc;
}

static uint64_t whole_pages(uint64_t n)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

    return n / page * page;
}

int store_open(struct store *st, const struct spool_options *o, bool readonly, char *ret_why,
               size_t why_size)
{
    struct why why = { ret_why, why_size };
    int r;

    guard_init();
    *st = (struct store){ .readonly = readonly, .lock_fd = -1 };
    st->path = str_dup(str_of(o->path));
    if (!st->path)
        return because(&why, -ENOMEM, "out of memory");
    st->map_max = MIN(o->map_max ? whole_pages(MAX(o->map_max, MAP_LEAST)) : UINT64_MAX, MAP_MOST);
    st->map_size = whole_pages(MAX(o->map_initial ? o->map_initial : MAP_INITIAL, MAP_LEAST));
    st->map_size = MIN(st->map_size, st->map_max);
    list_init(&st->readers);

    pthread_rwlockattr_t attr; /* else a stream of readers keeps the writer out for good */
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&st->lock, &attr);
    pthread_rwlockattr_destroy(&attr);

    r = readonly ? 0 : make_folder(st, &why);
    if (r == 0 && !readonly)
        r = take_lock(st, &why);
    if (r == 0)
        r = open_env(st, &why);
    if (r == 0)
        give_lock_file(st);
    if (r < 0)
        store_close(st);
    return r;
}

void store_close(struct store *st)
{
    if (!st->path)
        return;
    CHECK(list_empty(&st->readers));
    if (st->env)
        mdb_env_close(st->env);
    pthread_rwlock_destroy(&st->lock);
    if (st->lock_fd >= 0)
        close(st->lock_fd);
    free(st->path);
    *st = (struct store){ .lock_fd = -1 };
}

/* ---- growing and mending ---------------------------------------------------------------------- */

static void reader_forget(struct reader *r)
{
    for (int i = 0; i < STORE_TABLES; i++)
        if (r->cursor[i])
            mdb_cursor_close(r->cursor[i]);
    memset(r->cursor, 0, sizeof(r->cursor));
    if (r->txn)
        mdb_txn_abort(r->txn);
    r->txn = NULL;
}

/* Ends what idle readers keep of the environment. The lock is held exclusively. */
static void close_env(struct store *st)
{
    LIST_FOREACH(it, &st->readers)
    {
        reader_forget(LIST_ENTRY(it, struct reader, link));
    }
    if (st->env)
        mdb_env_close(st->env);
    st->env = NULL;
}

bool store_reopen(struct store *st)
{
    struct why nobody = { NULL, 0 };

    pthread_rwlock_wrlock(&st->lock);
    close_env(st);
    int r = open_env(st, &nobody);
    st->unsettled = true;
    atomic_fetch_add_explicit(&st->reopened, 1, memory_order_relaxed);
    pthread_rwlock_unlock(&st->lock);
    return r == 0;
}

uint64_t store_reserve(const struct store *st)
{
    return whole_pages(MAX(st->map_max / 16, UINT64_C(64) << 20));
}

/* The size to try next; no larger than before: none. */
static uint64_t next_size(const struct store *st, bool essential)
{
    uint64_t before = st->map_size;

    if (before < st->map_max)
        return before > st->map_max / 2 ? st->map_max : before * 2;
    /* The reserve is given out in small steps: deletions make room for the next ones. */
    return essential ? MIN(before + MAP_STEP, st->map_max + store_reserve(st)) : before;
}

void store_forget_readers(struct store *st)
{
    int dead;

    if (st->env)
        mdb_reader_check(st->env, &dead);
}

bool store_grow(struct store *st, bool essential)
{
    uint64_t before = st->map_size;
    uint64_t size = next_size(st, essential);

    if (size <= before)
        return false;
    pthread_rwlock_wrlock(&st->lock);
    int rc = mdb_env_set_mapsize(st->env, size);
    pthread_rwlock_unlock(&st->lock);
    if (rc == 0) {
        st->map_size = size;
        return true;
    }
    /* LMDB has given up the old map before it tried the new one: without a map the environment is
     * of no use. */
    st->map_size = before;
    store_reopen(st);
    return false;
}

/* What was seen after an error may be in the system's memory and not on the disk: a root page that was taken back,
 * for one. Pages that the disk's root needs must not be written over before. */
static bool settle(struct store *st)
{
    if (st->unsettled && mdb_env_sync(st->env, 1) == 0)
        st->unsettled = false;
    return !st->unsettled;
}

int store_write(struct store *st, MDB_txn **ret)
{
    if (!st->env && !store_reopen(st))
        return EIO;
    if (!settle(st))
        return EIO;

    int rc = mdb_txn_begin(st->env, NULL, 0, ret);
    if (rc != MDB_PANIC)
        return rc;
    /* A root page could be neither written nor taken back: LMDB wants to begin anew. */
    if (!store_reopen(st) || !settle(st))
        return EIO;
    return mdb_txn_begin(st->env, NULL, 0, ret);
}

/* ---- readers ---------------------------------------------------------------------------------- */

void reader_init(struct reader *r, struct store *st)
{
    *r = (struct reader){ .store = st };
    pthread_rwlock_wrlock(&st->lock);
    list_push(&st->readers, &r->link);
    pthread_rwlock_unlock(&st->lock);
}

void reader_done(struct reader *r)
{
    struct store *st = r->store;

    pthread_rwlock_wrlock(&st->lock);
    list_remove(&r->link);
    reader_forget(r);
    pthread_rwlock_unlock(&st->lock);
}

/* Another process has made the map larger (we only read). */
static void follow_map(struct store *st)
{
    MDB_envinfo info;

    pthread_rwlock_wrlock(&st->lock);
    if (st->env && mdb_env_set_mapsize(st->env, 0) == 0 && mdb_env_info(st->env, &info) == 0)
        st->map_size = info.me_mapsize;
    pthread_rwlock_unlock(&st->lock);
}

int reader_begin(struct reader *r)
{
    struct store *st = r->store;

    for (int tries = 0;; tries++) {
        pthread_rwlock_rdlock(&st->lock);
        int rc = !st->env ? MDB_PANIC
                 : r->txn ? mdb_txn_renew(r->txn)
                          : mdb_txn_begin(st->env, NULL, MDB_RDONLY, &r->txn);
        if (rc == 0)
            return 0;
        pthread_rwlock_unlock(&st->lock);
        if (rc != MDB_MAP_RESIZED || tries == 3)
            return store_error(rc);
        follow_map(st);
    }
}

void reader_end(struct reader *r)
{
    mdb_txn_reset(r->txn);
    pthread_rwlock_unlock(&r->store->lock);
}

int reader_totals(struct reader *r, uint64_t ret[SPOOL_TOTALS])
{
    MDB_val k = store_val(store_totals_key), v;
    int rc = mdb_get(r->txn, r->store->roots, &k, &v);

    memset(ret, 0, SPOOL_TOTALS * sizeof(*ret));
    if (rc == 0 && !totals_row_take(store_str(v), ret))
        return MDB_CORRUPTED;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int reader_get(struct reader *r, enum store_table t, struct str key, struct str *ret)
{
    MDB_val k = store_val(key), v;

    if (!store_has(r->store, t))
        return MDB_NOTFOUND;
    int rc = mdb_get(r->txn, r->store->table[t], &k, &v);

    if (rc == 0)
        *ret = store_str(v);
    return rc;
}

int reader_cursor(struct reader *r, enum store_table t, MDB_cursor **ret)
{
    if (!store_has(r->store, t))
        return MDB_NOTFOUND;

    int rc = r->cursor[t] ? mdb_cursor_renew(r->txn, r->cursor[t])
                          : mdb_cursor_open(r->txn, r->store->table[t], &r->cursor[t]);

    if (rc == 0)
        *ret = r->cursor[t];
    return rc;
}

static uint64_t pages(const MDB_stat *st)
{
    return (st->ms_branch_pages + st->ms_leaf_pages + st->ms_overflow_pages) *
           (uint64_t)st->ms_psize;
}

/* LMDB's first two tables are the list of free pages and the table of tables. */
int reader_overhead(struct reader *r, uint64_t *ret)
{
    MDB_stat free_pages, tables;
    int rc = mdb_stat(r->txn, 0, &free_pages);

    if (rc == 0)
        rc = mdb_stat(r->txn, 1, &tables);
    if (rc == 0)
        *ret = pages(&free_pages) + pages(&tables) + 2 * (uint64_t)tables.ms_psize;
    return rc;
}

int reader_used(struct reader *r, uint64_t *ret)
{
    uint64_t used = 0;
    int rc = 0;

    for (int i = 0; i < STORE_TABLES && rc == 0; i++) {
        MDB_stat st;
        if (!store_has(r->store, (enum store_table)i))
            continue;
        rc = mdb_stat(r->txn, r->store->table[i], &st);
        if (rc == 0)
            used += pages(&st);
    }
    if (rc == 0)
        *ret = used;
    return rc;
}
