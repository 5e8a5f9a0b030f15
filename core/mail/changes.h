/* changes.h - which header fields policies changed, for the record of decisions (ROUTING.md Q12).
 *
 * Layer: mail. Values are not kept, they stand in the message. A record is a string of bytes with a version in
 * front, which the message carries into the spool when there was a change; it is bounded: the first
 * CHANGES_KEPT are told, the others counted, and names and places are cut.
 */
#ifndef TERN_MAIL_CHANGES_H
#define TERN_MAIL_CHANGES_H

#include "base/arena.h"
#include "base/buf.h"

/* Numbers are in the records: new ones at the end. */
enum header_op { HEADER_ADDED, HEADER_PREPENDED, HEADER_REPLACED, HEADER_REMOVED };

struct header_change {
    enum header_op op;
    uint32_t n;       /* fields that it concerned */
    struct str name;  /* of the field */
    struct str place; /* "policies/spam.lua:12"; empty: unknown */
};

enum { CHANGES_KEPT = 50, CHANGES_NAME = 78, CHANGES_PLACE = 128 };

struct header_changes {
    const struct header_change *list;
    size_t n;
    uint32_t left_out; /* behind those in the list */
};

/* "added", "prepended", "replaced", "removed" */
const char *header_op_name(enum header_op op);
/* False: there is no such name. */
bool header_op_parse(struct str name, enum header_op *ret);

/* Writes the first CHANGES_KEPT of n and counts the others, of which left_out were counted before; none: nothing is
 * written. 0 or the error of `out`. */
int changes_encode(const struct header_change *list, size_t n, uint32_t left_out, struct buf *out);
/* Empty bytes are no changes. Strings point into `in`. -EBADMSG, -ENOMEM. */
int changes_decode(struct arena *a, struct str in, struct header_changes *ret);
/* "added X-Spam-Flag at policies/spam.lua:12, removed 3 Received at ..., and 7 more" */
int changes_text(const struct header_changes *c, struct buf *out);

#endif
