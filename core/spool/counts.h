/* counts.h - what a group does to its queues, summed in memory, so that each queue's row is written
 * once per commit however many of its recipients come and go.
 *
 * Layer: spool. Pure: no LMDB. Keeps its memory from group to group.
 */
#ifndef TERN_SPOOL_COUNTS_H
#define TERN_SPOOL_COUNTS_H

#include "spool/record.h"

struct count_entry {
    uint64_t hash;
    size_t name_at, name_n;
    int64_t delta[SPOOL_CLASSES];
    int64_t octets;    /* of those that wait */
    bool set;          /* the record is to be replaced */
    struct str record; /* points into the op that set it */
};

struct counts {
    struct count_entry *entry;
    size_t n, cap;
    uint32_t *slot; /* index into entry + 1, open addressing; twice as many as entries, at least */
    size_t slots;
    char *names;
    size_t names_n, names_cap;
};

void counts_init(struct counts *c);
void counts_done(struct counts *c);
void counts_clear(struct counts *c);
/* The entry of a queue, made when it is not there; valid until the next call. NULL: out of memory. */
struct count_entry *counts_of(struct counts *c, struct str queue);
static inline struct str counts_name(const struct counts *c, const struct count_entry *e)
{
    return str_make(c->names + e->name_at, e->name_n);
}

#endif
