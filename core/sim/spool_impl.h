/* spool_impl.h - what spool.c and spool_apply.c share: the tables. Layer: sim, internal.
 *
 * Rows are never changed in place: an update takes the old row out and puts a new one in, and the unit
 * keeps the old one until it is known to succeed.
 */
#ifndef TERN_SIM_SPOOL_IMPL_H
#define TERN_SIM_SPOOL_IMPL_H

#include "base/hash.h"
#include "sim/spool.h"
#include "sim/tree.h"

enum { SPOOL_CLASSES = 3 };

struct blob {
    unsigned refs;
    size_t n;
    char data[];
};

enum row_kind { ROW_MESSAGE, ROW_STAGING, ROW_RECIPIENT, ROW_RECORD };

struct row {
    struct sim_node node; /* in the table of its kind */
    struct sim_node due;  /* ROW_RECIPIENT: in `due` */
    struct list undo;
    bool added; /* by the unit under way; else removed by it */
    enum row_kind kind;
    struct msgid id;
    struct blob **chunks; /* ROW_MESSAGE, ROW_STAGING (those from 1 on) */
    uint32_t n_chunks;
    struct spool_recipient r; /* ROW_RECIPIENT; its texts are the row's */
    struct str name;          /* ROW_RECORD: the queue; a copy */
    struct str text;          /* envelope, recipient's record, queue's record; a copy */
};

/* How many recipients a queue has: follows from the rows. */
struct queue_row {
    struct sim_node node;
    uint64_t count[SPOOL_CLASSES];
    uint64_t octets; /* of those that wait */
    struct str name; /* a copy */
};

/* What policies remember. Rows are changed as a whole: such a unit is one change. */
struct kv_row {
    struct sim_node node; /* in `kv`, by name and key */
    struct sim_node end;  /* in `kv_end`, by name, end and key */
    int64_t expires_ms;
    struct str name, key, value; /* copies */
};

struct tables {
    struct sim_tree message, staging, recipient, record; /* struct row by node */
    struct sim_tree due;                                 /* struct row by due */
    struct sim_tree queue; /* struct queue_row: those with recipients */
    struct sim_tree kv, kv_end;
};

void sim_tables_init(struct tables *t);
void sim_tables_done(struct tables *t);
void sim_tables_sweep_staging(struct tables *t);

/* Does the whole unit (0) or nothing of it. */
int sim_apply_op(struct tables *t, const struct spool_op *op);
/* -EINVAL: it could never be done. */
int sim_apply_validate(const struct spool_op *op);
bool sim_apply_brings_mail(const struct spool_op *op);

struct row *sim_find_by_id(const struct sim_tree *t, const struct msgid *id);
struct row *sim_find_recipient(const struct tables *t, const struct msgid *id, uint32_t n);
struct row *sim_find_record(const struct tables *t, struct str name);
struct queue_row *sim_find_queue(const struct tables *t, struct str name);

/* spool_kv.c */
void sim_kv_init(struct tables *t);
void sim_kv_done(struct tables *t);
int sim_kv_apply(struct tables *t, enum spool_change_type type, const struct spool_kv_change *c);
const struct kv_row *sim_kv_find(const struct tables *t, struct str name, struct str key);
/* The first of a name whose key is greater, or (`at_least`) equal. NULL: the name has no more. */
const struct kv_row *sim_kv_next(const struct tables *t, struct str name, struct str key,
                                 bool at_least);

static inline struct row *row_of(struct sim_node *n)
{
    return n ? CONTAINER_OF(n, struct row, node) : NULL;
}
static inline struct row *row_of_due(struct sim_node *n)
{
    return n ? CONTAINER_OF(n, struct row, due) : NULL;
}

#endif
