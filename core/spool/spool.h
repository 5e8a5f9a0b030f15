/* spool.h - the durable queue: port_spool of engine/ports.h on an LMDB environment.
 *
 * Layer: spool (sees base, proto, mail, engine; uses LMDB, threads and files of its own folder; no clock of its
 * own).
 *
 * One struct spool is one folder. Any number of workers read it, each through its own port; one
 * thread, the writer, is the only one that changes it. Workers hand it units of change (struct
 * spool_op); it takes all that wait into one transaction, syncs once, and tells each worker once
 * per commit (group commit). While a commit runs the next group gathers: so groups grow with the
 * load. An idle spool adds no delay to what a client waits for, but when that comes just while the file is made longer
 * for it (one wait for the disk); behind a group of many the writer waits for as many
 * again, 0.4 ms at most, where there is a clock; patient units (what became of recipients) wait up to
 * a millisecond for others to go with, where there is a clock.
 *
 * Tables. Numbers are big-endian; id is the 16 bytes of a msgid; n, chunk and counts of pieces are u32.
 *
 *   meta       "format"                    -> u32 SPOOL_FORMAT
 *   message    id                          -> n_chunks, envelope
 *              id, 1, chunk                -> bytes (at most BODY_CHUNK as the engine cuts them): a piece of its body
 *              id, 2, n                    -> class u8, due i64, u32 length of queue, [size u64,] queue, record: a
 *                                             recipient
 *   due        queue                       -> scheduled u64, waiting u64, held u64, [octets u64,] record: a queue
 *              queue, NUL, class u8, due i64 with its sign bit flipped, id, n     -> nothing
 *   staging    id                          -> how many pieces (chunks 1..) wait for their message
 *   kv         name, NUL, key              -> end i64, value             what policies remember
 *   kv_end     name, NUL, end i64 with its sign bit flipped, key     -> nothing
 *   kv_name    name                        -> how many entries u64
 * The last three are younger than the others: a spool without them gets them when it is opened, and a
 * version that does not know them leaves them alone.
 *
 * and, beside the roots of these tables, in LMDB's table of tables, whose page each commit writes anyway:
 *              "totals"                    -> messages u64, pieces u64, recipients u64, queues u64
 *
 * All of a message lies together, and a queue lies before its entries: what a commit changes is in few pages, and
 * pages are what a commit writes and waits for.
 *
 * What stands in [] came with format 2: bit 7 of the first byte says that it is there. It is left out
 * where it would be 0, as in rows of format 1. Up to format 2 pieces, recipients and queues had tables of their own:
 * `body`, `recipient` and `queue`. What is in these is moved when the spool is opened, some hundreds of rows in each
 * transaction (upgrade.c); a crash meanwhile leaves it to the next start, and nothing twice.
 *
 * Always true of a committed state (spool_check verifies it): each message has its n_chunks pieces
 * and one recipient at least; each recipient has a message and exactly one due entry, which agrees
 * with its row; a queue's counts are the numbers of its due entries, its octets the
 * sum of the sizes of those that wait, and a queue without counts
 * and record has no row; a piece belongs to a message or to staging; totals are the numbers of rows; each entry of kv
 * has exactly one of kv_end, which agrees with it, and kv_name counts them.
 *
 * Why no crash loses an acknowledged message: LMDB writes changed pages to places that no committed
 * state uses, syncs them, then writes and syncs one of two root pages. An op is told 0 only after
 * the second sync; a crash at any point before leaves the state before the group, whole. Pieces
 * that were staged and whose message never came are in `staging` and are swept at the next open,
 * whose cost does not depend on how many messages there are.
 *
 * A full disk: while less than min_free is left, units that bring new mail (or put into kv) are told
 * -ENOSPC, and units that only update or delete go on. The map grows by doubling; it needs no read to be under
 * way, so each read holds a lock (shared) for as long as it copies.
 *
 * A tool that was killed in the middle of a read leaves its place in LMDB's table of readers, which would pin
 * old pages: the writer looks for such every SPOOL_READERS_EVERY commits.
 *
 * Ownership: an op and all it points to is the submitter's, unchanged until its done is called.
 * Ports belong to the spool. Nothing here logs.
 */
#ifndef TERN_SPOOL_SPOOL_H
#define TERN_SPOOL_SPOOL_H

#include "engine/ports.h"
#include "spool/latency.h"

enum {
    SPOOL_FORMAT = 3,       /* what this version writes, and the newest that it reads */
    SPOOL_MAX_PORTS = 64,   /* workers */
    SPOOL_MAX_GROUP = 1024, /* units in one commit */
    SPOOL_READERS_EVERY = 64,
};

struct spool;

struct spool_options {
    const char *path;     /* folder; made (mode 0700) when it is not there, its parent must be */
    uint64_t map_initial; /* bytes of address space to start with; 0: 256 MiB */
    uint64_t map_max;     /* new mail that needs more is refused; 0: the disk's limit */
    uint64_t min_free;    /* bytes to be left on the file system; 0: 64 MiB */
    uint32_t group_ops;   /* at most so many units in one commit; 0: SPOOL_MAX_GROUP, the most */
    uint64_t group_bytes; /* a group ends when it has written so many; 0: 16 MiB */
    /* CLOCK_MONOTONIC in microseconds, callable from any thread: for the latencies that are told, and for
     * units that wait for others. NULL: none are measured, and no unit is patient. */
    uint64_t (*clock_us)(void);
    /* Called now and then while spool_open takes long, as when rows of an older format are moved: so many of about
     * as many. May be NULL. */
    void (*waiting)(void *arg, uint64_t rows, uint64_t of);
    void *waiting_arg;
};

/* Opens or creates, and starts the writer. On failure ret_why says what, and how to mend it.
 *   -EBUSY            another process has it open
 *   -EPROTONOSUPPORT  written by a newer version; read only: by an older one
 *   -EBADMSG          an LMDB file, but not a spool; or damaged
 *   -EACCES, -ENOENT, -ENOTDIR, -ENOSPC, -ENOMEM, -EIO ... of the system */
int spool_open(const struct spool_options *o, struct spool **ret, char *ret_why, size_t why_size);
/* For tools, beside a running daemon (in another process): reads and spool_check only; ops are told
 * -EROFS. Needs write access to the folder all the same: readers stand in LMDB's lock file. -ENOENT:
 * there is no spool in it. */
int spool_open_readonly(const char *path, struct spool **ret, char *ret_why, size_t why_size);

/* Drains: what was submitted is committed and told, then the writer ends. Later ops are told
 * -ESHUTDOWN. Reads go on. The workers' loops must still run to hear of it. May be called again. */
void spool_stop(struct spool *s);
/* spool_stop, then closes and frees all, ports too. The workers have ended, or at least have run
 * what was posted to them: what was not heard yet is never told. Returns NULL; NULL is fine. */
struct spool *spool_close(struct spool *s);

/* A worker's port; use it in that worker's thread only. Completions come by
 * w->post(w, w->self, ...), one message for all that is done by then. `w` must live until
 * spool_close. NULL: out of memory, or SPOOL_MAX_PORTS are there. */
struct port_spool *spool_port(struct spool *s, struct port_workers *w);

/* Rows by what they are; some share a table. */
enum spool_row {
    SPOOL_ROW_MESSAGE,
    SPOOL_ROW_PIECE,
    SPOOL_ROW_RECIPIENT,
    SPOOL_ROW_QUEUE,
    SPOOL_TOTALS, /* of those above a sum is kept */
    SPOOL_ROW_DUE = SPOOL_TOTALS,
    SPOOL_ROW_STAGING,
    SPOOL_ROW_KV,
    SPOOL_ROW_KV_END,
    SPOOL_ROW_KV_NAME,
    SPOOL_ROWS,
};
/* NULL behind the last one. */
const char *spool_row_name(size_t row);

enum { SPOOL_TABLES = 7 };
/* In the order of spool_stats.table; NULL behind the last one. */
const char *spool_table_name(size_t i);

struct spool_stats {
    /* what is in it */
    uint64_t messages, recipients, queues, chunks, staging;
    uint64_t
        remembered; /* entries of tern.kv, those that have ended and are not swept yet included */
    struct {
        uint64_t rows, bytes; /* bytes: of its pages */
    } table[SPOOL_TABLES];
    uint64_t map_size;  /* address space */
    uint64_t file_size; /* pages ever used, in bytes */
    uint64_t used;      /* pages in use, in bytes, without LMDB's own list of free ones */
    uint64_t free;      /* pages that can be used again, in bytes; read transactions may pin some */
    uint64_t disk_free; /* on the file system, now */
    /* since it was opened */
    uint64_t commits;     /* that changed something */
    uint64_t syncs;       /* waits for the disk: two a commit */
    uint64_t ops;         /* units done */
    uint64_t failed_ops;  /* units told anything but 0 */
    uint64_t bytes;       /* of values written */
    uint64_t max_group;   /* units in the largest group */
    uint64_t reruns;      /* groups begun again: the map grew, or a unit failed half-way */
    uint64_t reopened;    /* the environment was closed and opened after an error of the disk */
    uint64_t disk_errors; /* groups that failed because of the disk */
    uint64_t free_space;  /* on the file system, as of the last look */
    struct spool_latency commit; /* writing the pages of one group and both syncs */
    struct spool_latency unit;   /* from submit until it is told, whatever it is told */
};
/* From any thread. 0, -EIO, -ENOMEM. */
int spool_stats(struct spool *s, struct spool_stats *ret);
/* The sums of all queues: name and record are empty. Reads a row for each queue. 0 or -errno. */
int spool_sum_queues(struct spool *s, struct spool_queue *ret);

/* Messages by age and by size: how many there are that are not older (larger) than each of the limits, and
 * above the limit before. */
enum { SPOOL_AGES = 6, SPOOL_SIZES = 6 };
extern const int64_t spool_age_ms[SPOOL_AGES];       /* the last is INT64_MAX */
extern const uint64_t spool_size_bytes[SPOOL_SIZES]; /* the last is UINT64_MAX */
struct spool_survey {
    uint64_t messages, octets, unreadable;
    uint64_t by_age[SPOOL_AGES], by_size[SPOOL_SIZES];
    int64_t oldest_ms; /* wall; 0: there is no message */
};
/* Reads the row of each message, in slices: for tools, not for the daemon's main thread. 0 or -errno. */
int spool_survey_messages(struct spool *s, int64_t now_ms, struct spool_survey *ret);

/* ---- is it right? ----------------------------------------------------------------------------- */

enum spool_remedy {
    SPOOL_NO_REMEDY,     /* it does no harm, or mends itself */
    SPOOL_MEND_INDEX,    /* what is derived from other rows is wrong: spool_repair makes it anew */
    SPOOL_MEND_RUBBISH,  /* a row that nothing refers to: spool_repair drops it */
    SPOOL_LOSES_MESSAGE, /* a part of a message is lost: it cannot be delivered as it was */
    SPOOL_LOSES_RECORD,  /* a record cannot be read: the router sets it aside */
    SPOOL_LOSES_TABLE,   /* pages cannot be read */
};

struct spool_problem {
    const char *kind; /* of the row: spool_row_name; or of the table; "totals" */
    const char *key; /* of the row, for people: "01J...", "01J....0", "example.com scheduled ..." */
    const char *text; /* what was expected, and what is there */
    enum spool_remedy remedy;
};

/* Verifies all that is said above to be always true; with `records` also that envelopes, recipients' and
 * queues' records are what the engine reads and agree with their rows. Goes through each table in slices of
 * `slice` rows (0: 1024), each in a read transaction of its own, so that it pins no old pages for long
 * beside a running daemon: each row is compared with others of the same committed state. Only the
 * entries of one queue (and of one name of kv), whose number must be right, are counted in one. */
struct spool_check {
    bool records;
    uint32_t slice;
    void (*problem)(void *arg, const struct spool_problem *p); /* may be NULL */
    /* After each slice; may be NULL. */
    void (*progress)(void *arg, const char *table, uint64_t done, uint64_t total);
    void *arg;
    uint64_t rows[SPOOL_ROWS]; /* returned: so many were looked at */
};
/* How many problems, or -errno. */
int64_t spool_check(struct spool *s, struct spool_check *c);

/* Copies the last committed state into a folder (made with mode 0700; -EEXIST: there is a spool in it), without
 * the free pages. When it returns 0 the file and the names that lead to it are on the disk; after an error there is no
 * file. Beside a running daemon it pins old pages for as long as it takes. */
int spool_copy(struct spool *s, const char *folder, char *ret_why, size_t why_size);

struct spool_repaired {
    uint64_t due;        /* entries of the index made, all of them */
    uint64_t messages;   /* dropped: without a recipient */
    uint64_t recipients; /* dropped: without a message */
    uint64_t pieces;     /* dropped: of no message */
    uint64_t staging;    /* dropped: of messages that are complete */
    uint64_t kv;         /* entries whose index was made anew */
    uint64_t unreadable; /* rows that were left as they are */
    uint64_t queues;     /* rows of queues made anew: nobody can tell whether they were held */
};
/* On a spool that nobody has open: makes due, the counts of queue, kv_end and kv_name anew from the other
 * tables and drops what nothing refers to, in one transaction. Errors as of spool_open. */
int spool_repair(const char *path, struct spool_repaired *ret, char *ret_why, size_t why_size);

#endif
