/* upgrade.h - moves the rows of formats 1 and 2 to where this version has them.
 *
 * Layer: spool. Up to format 2, pieces, recipients and queues were tables of their own, `body`, `recipient` and
 * `queue`, with keys of an id and a number, or a name. Each transaction moves some of their rows, values as they
 * are, and syncs; so a crash at any point leaves each row in one of both places, and the next start goes on:
 * "upgrading" stands in meta until the last row is moved. Rows whose keys are of no such table stay in it: nothing
 * is lost, and nobody reads them.
 *
 * All contents are read and written once, so the disk must have room for as much as the old tables take before it is
 * begun. What is moved leaves room for what is moved next; how much the file grows depends on how the rows lie.
 */
#ifndef TERN_SPOOL_UPGRADE_H
#define TERN_SPOOL_UPGRADE_H

#include "spool/apply.h"

/* Before anybody reads or writes. 0 (nothing to do is the usual case), -ENOSPC: it goes on when there is room;
 * -EIO, -ENOMEM. */
typedef void upgrade_waiting(void *arg, uint64_t rows, uint64_t of);
int upgrade_run(struct apply *a, upgrade_waiting *waiting, void *arg);
/* The bytes that the old tables take. LMDB's code. */
int upgrade_needs(MDB_txn *txn, uint64_t *ret);

#endif
