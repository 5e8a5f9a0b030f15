/* walk.h - goes through a table in slices, each in a read transaction of its own, for tools; and through queues.
 *
 * Layer: spool. Between two slices nothing is pinned and the map may grow; rows that came or went meanwhile
 * are seen or not, by where they stand.
 */
#ifndef TERN_SPOOL_WALK_H
#define TERN_SPOOL_WALK_H

#include "spool/store.h"

enum { WALK_SLICE = 1024 };

struct walk {
    struct reader *reader;
    uint32_t slice;
    /* Key and value lie in the map; other rows of the same state may be read by walk->reader. */
    void (*row)(void *arg, struct str key, struct str value);
    void (*slice_done)(void *arg); /* outside of a transaction; may be NULL */
    void *arg;
    bool renew;    /* set by row: the next one in a new transaction, this one is of no more use */
    uint64_t rows; /* returned */
};
/* The whole of a table; one that is not there is empty. LMDB's code, or a negative errno. */
int walk_table(struct walk *w, enum store_table t);

/* Up to max queues behind one of the name `after` (empty: from the first), by name, in one transaction: one step for
 * each, however many entries lie between two of them. How many, or -errno. */
int walk_queues(struct reader *r, struct str after, struct spool_queue *ret, size_t max);
/* False: this is no row of a queue. One that cannot be read says that there is one of each class: there may be. */
bool walk_fill_queue(struct spool_queue *ret, struct str name, struct str row);

#endif
