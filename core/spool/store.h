/* store.h - the LMDB environment of a spool: open, version, map, readers, room on the disk.
 *
 * Layer: spool. LMDB is known in this folder only: how its environment is opened, grown and opened anew is here;
 * transactions, tables and cursors are used by most files next to it (record, counts and latency do not).
 *
 * Threads: any thread reads, each with its own struct reader. One thread (the writer; before it
 * starts the opener) writes, and only that one calls store_grow and store_write.
 * `lock` is held shared during each read and exclusively while the map moves or the environment is
 * opened anew: LMDB allows neither with a transaction alive.
 *
 * Errors of LMDB are told as LMDB tells them (MDB_*, or errno as a positive number) where they must
 * be told apart; store_error makes -errno of them.
 */
#ifndef TERN_SPOOL_STORE_H
#define TERN_SPOOL_STORE_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

#include "spool/spool.h"

enum store_table {
    TABLE_META,
    TABLE_MESSAGE, /* with pieces and recipients */
    TABLE_DUE,     /* with queues */
    TABLE_STAGING,
    /* Younger than format 1: made when they are not there. A spool that is read only may lack them. */
    TABLE_KV,
    TABLE_KV_END,
    TABLE_KV_NAME,
    STORE_TABLES,
};

_Static_assert((int)STORE_TABLES == (int)SPOOL_TABLES, "spool.h tells of each table");

#define STORE_NO_TABLE      ((MDB_dbi)-1)

#define store_totals_key    STR("totals")    /* in LMDB's table of tables */
#define store_upgrading_key STR("upgrading") /* in meta, while rows of older formats are moved */

struct store {
    char *path;
    bool readonly;
    bool filling;   /* store_write_ahead is under way to its end */
    bool unsettled; /* opened anew, and not synced since */
    bool looked_at; /* it ends where it should */
    int lock_fd;    /* -1: none (read-only) */
    uint32_t page;  /* bytes; the file's own, which may be of another machine */
    MDB_env *env;   /* NULL: lost; store_write opens it anew */
    MDB_dbi table[STORE_TABLES];
    MDB_dbi roots; /* LMDB's table of tables */
    uint64_t map_size;
    uint64_t map_max;     /* UINT64_MAX: none */
    uint64_t reserved_to; /* offset in the file up to which blocks are allocated, as far as known */
    atomic_uint_fast64_t reopened; /* times, after errors of the disk */
    pthread_rwlock_t lock;
    struct list readers; /* under lock, held exclusively */
};

/* Bytes: store_keep_reserve. */
#define STORE_DISK_RESERVE (UINT64_C(8) << 20)

static inline bool store_has(const struct store *st, enum store_table t)
{
    return st->table[t] != STORE_NO_TABLE;
}

/* As spool_open. The store must be zeroed; after a failure it is again. */
int store_open(struct store *st, const struct spool_options *o, bool readonly, char *ret_why,
               size_t why_size);
void store_close(struct store *st);

/* -errno for what LMDB returned (a negative errno stays as it is). A disk, quota or file size limit
 * that is reached is -ENOSPC; what is not known better is -EIO. */
int store_error(int rc);

/* Makes the map larger, by doubling. essential: may go somewhat beyond map_max, so that a spool
 * that is full can still be emptied. False: it cannot. No write transaction may be alive. */
bool store_grow(struct store *st, bool essential);
/* How far beyond map_max that is at most. */
uint64_t store_reserve(const struct store *st);
/* Begins a write transaction; opens the environment anew when that is what it needs. LMDB's code. */
int store_write(struct store *st, MDB_txn **ret);
/* After an error of the disk: closes and opens the environment. Reads go on when it can be opened, writes when what
 * it then shows has been synced as well. False: it could not be opened. The writer's. */
bool store_reopen(struct store *st);
/* Before anything is written: parts of messages lie behind the end of the file, as in a copy that is not whole. */
bool store_is_cut_off(struct store *st);
/* Where the file ends in memory, for a value of a read under way; what lies behind cannot be touched. NULL: it
 * cannot be found out. */
const char *store_file_end(const struct store *st, const char *value);
/* Takes readers of processes that have died out of LMDB's table: they would pin old pages. */
void store_forget_readers(struct store *st);
/* Keeps blocks of the disk allocated behind the pages in use, so that what deletes and updates can be written
 * when others have filled the disk to the last octet: LMDB writes new pages before it gives old ones back. The
 * writer's, after a commit. The file's size stays as it is. */
void store_keep_reserve(struct store *st);
/* Writes zeros behind the pages in use, some of what is missing of half a megabyte and more, and syncs them: a page
 * that is written over costs one wait for the disk, one that makes the file longer waits for the file system's
 * journal as well. The writer's, when it has nothing else to do; takes a millisecond or two. False: nothing (more)
 * is to be done. */
bool store_write_ahead(struct store *st);
/* Bytes that the spool's file can grow by: the disk's, and the process's limit on files. UINT64_MAX
 * when it cannot be found out. */
uint64_t store_room(const struct store *st);

/* A read transaction that is kept and used again. The thread that begins ends it. */
struct reader {
    struct list link;
    struct store *store;
    MDB_txn *txn; /* between begin and end */
    MDB_cursor *cursor[STORE_TABLES];
};
void reader_init(struct reader *r, struct store *st);
void reader_done(struct reader *r);
/* Sees the last committed state, and pins it: be short. -errno; then there is nothing to end. */
int reader_begin(struct reader *r);
void reader_end(struct reader *r);
/* The sums that are kept: zeros where there is no row. LMDB's code; MDB_CORRUPTED: the row cannot be read, zeros. */
int reader_totals(struct reader *r, uint64_t ret[SPOOL_TOTALS]);
/* LMDB's code; the value lies in the map until reader_end. */
int reader_get(struct reader *r, enum store_table t, struct str key, struct str *ret);
/* A cursor of this read transaction, kept for later ones. */
int reader_cursor(struct reader *r, enum store_table t, MDB_cursor **ret);
/* Bytes of pages in use by the tables, whatever their number. LMDB's code. */
int reader_used(struct reader *r, uint64_t *ret);
/* Bytes of pages that are LMDB's own: roots, and the list of free pages. LMDB's code. */
int reader_overhead(struct reader *r, uint64_t *ret);

static inline MDB_val store_val(struct str s)
{
    return (MDB_val){ .mv_size = s.n, .mv_data = (void *)s.p };
}
static inline struct str store_str(MDB_val v)
{
    return str_make(v.mv_data, v.mv_size);
}

#endif
