/* kv.h - what policies remember (tern.kv), inside the writer's transaction.
 *
 * Layer: spool. Used by apply.c only. The meaning of the changes stands in engine/ports.h.
 */
#ifndef TERN_SPOOL_KV_H
#define TERN_SPOOL_KV_H

#include "spool/apply.h"

/* Results as apply_op's; also -EDQUOT, and -EIO for rows that cannot be read. */
int apply_kv(struct apply *a, enum spool_change_type type, const struct spool_kv_change *c);

#endif
