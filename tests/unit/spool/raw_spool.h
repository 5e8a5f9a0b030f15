/* raw_spool.h - the rows of a spool as they lie in its file, for tests that damage or age them. One spool at a time,
 * which nobody has open. */
#ifndef RAW_SPOOL_H
#define RAW_SPOOL_H

#include <lmdb.h>

#include "base/str.h"

extern MDB_txn *raw; /* between begin and commit */

void raw_begin(const char *path);
void raw_commit(void);

MDB_dbi raw_table(const char *name); /* NULL: LMDB's table of tables */
void raw_put(const char *table, struct str key, struct str value);
void raw_delete(const char *table, struct str key);
/* A copy, until the next call. */
struct str raw_get(const char *table, struct str key);
/* The sums that are kept, made right of whatever rows there are. */
void raw_count(void);

#endif
