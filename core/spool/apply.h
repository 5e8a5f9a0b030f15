/* apply.h - the changes of units, done inside one write transaction.
 *
 * Layer: spool. Used by the writer only. One struct apply serves one transaction after the other
 * and keeps its memory.
 *
 * Results: 0; or a failure of the unit (a negative errno: apply_failed_unit says so), after
 * which `changed` says whether the transaction must be dropped to be rid of the unit's first half;
 * or an error of LMDB (MDB_*, errno as a positive number), after which it must be.
 */
#ifndef TERN_SPOOL_APPLY_H
#define TERN_SPOOL_APPLY_H

#include "spool/counts.h"
#include "spool/store.h"

struct apply {
    struct store *store;
    MDB_txn *txn;
    MDB_cursor *cursor[STORE_TABLES]; /* of this transaction; NULL: not needed yet */
    struct counts counts;
    uint64_t bytes; /* of values written in this transaction */
    uint64_t drops; /* pieces of bodies deleted in this transaction */
    bool changed;   /* the present unit has changed something */
    /* the message that the last check found to be there, in the present unit */
    struct msgid known;
    bool known_is_there;
    /* The greatest key that the table of messages ever had in this process: a greater one is
     * appended, which fills pages to the brim. */
    struct part_key last;
    int64_t total[SPOOL_TOTALS]; /* what this transaction adds to the sums that are kept */
    struct kv_name swept;        /* names are swept of what has ended in turn: the last one */
};

void apply_init(struct apply *a, struct store *st);
void apply_done(struct apply *a);

/* What can be known without looking: 0 or -EINVAL. */
int apply_validate(const struct spool_op *op);
/* The unit brings something new (mail, or what policies remember): it is refused first when room
 * runs out. */
bool apply_brings_mail(const struct spool_op *op);

void apply_begin(struct apply *a, MDB_txn *txn);
int apply_op(struct apply *a, const struct spool_op *op);
/* Writes the counts of queues and the totals, and commits. LMDB's code. The transaction is gone in any case. */
int apply_commit(struct apply *a);
void apply_abort(struct apply *a);
/* Without the writer: transactions of one step each, as long as a step says that there is more to do; a step whose
 * transaction did not fit into the map is done again in a larger one. A step's LMDB code ends it. */
typedef int apply_step(struct apply *a, void *arg, bool *ret_more);
int apply_steps(struct apply *a, apply_step *step, void *arg);

static inline bool apply_failed_unit(int r)
{
    return r < 0 && r > -4096;
}

/* ---- for kv.c: one key of one table, in the transaction under way. LMDB's codes ---------------- */

int apply_cursor(struct apply *a, enum store_table t, MDB_cursor **ret);
int apply_get(struct apply *a, enum store_table t, struct str key, struct str *ret);
/* Deletes what the last get of that table found. */
int apply_delete_found(struct apply *a, enum store_table t);
/* Makes room for a value. Flags: MDB_NOOVERWRITE, then an old value is MDB_KEYEXIST and *ret. */
int apply_reserve(struct apply *a, enum store_table t, struct str key, size_t n, unsigned flags,
                  MDB_val *ret);

/* For spool_repair: the due entry of a recipient, and its part of the queue's counts. */
int apply_put_due(struct apply *a, const struct due_key *k, enum spool_class c, uint64_t size);
/* The sums that are kept, from now on: the row that the commit adds to. */
int apply_set_totals(struct apply *a, const uint64_t totals[SPOOL_TOTALS]);

/* Drops pieces of bodies whose message never came, about max of them. LMDB's code. */
int apply_sweep(struct apply *a, uint64_t max, bool *ret_more);

#endif
