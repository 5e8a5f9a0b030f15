/* body.h - the content of a message: pieces of bytes, shared and immutable once complete.
 *
 * Layer: mail. Reference counted (atomically: the worker that received it, the spool's writer and
 * the workers that deliver it share one). While it is being received it has one owner. Large
 * messages keep only their first piece (with the headers) in memory and the rest in the spool: then
 * `staged` is true and pieces are read through the spool.
 */
#ifndef TERN_MAIL_BODY_H
#define TERN_MAIL_BODY_H

#include <stdatomic.h>

#include "base/err.h"
#include "base/str.h"

enum { BODY_CHUNK = 64 * 1024 }; /* bytes of a full piece, in memory and in the spool */

struct body_chunk {
    struct body_chunk *next;
    size_t n, cap;
    char data[];
};

struct body {
    atomic_uint refs;
    uint64_t size;     /* octets in all, staged ones too */
    uint32_t n_chunks; /* pieces in all */
    uint32_t
        first_max; /* the first piece may grow to so much, while it is the only one; 0: BODY_CHUNK */
    bool staged;   /* pieces from the second on are in the spool only */
    bool eight_bit;  /* a byte above 0x7f was seen */
    bool open_end;   /* the last line has no CRLF; an empty body has none to lack */
    char last_octet; /* of what was appended, wherever it is now */
    struct body_chunk *first, *last;
};

struct body *body_new(void);
struct body *body_ref(struct body *b);
struct body *body_unref(struct body *b);
/* Appends a copy; -ENOMEM (then a part of it may be there). The first piece grows by doubling up to
 * BODY_CHUNK (or first_max, so that a whole header block fits); later ones start at that size. All but the first
 * and the last have BODY_CHUNK octets, the first at least as many when there are others. `eight_bit` is kept up to
 * date. */
int body_append(struct body *b, struct str bytes);
/* A new body that begins with `head` in place of the first `skip` octets of `b` (its header block);
 * for a staged body skip must lie within the first piece, which then has any size. NULL: out of
 * memory, or nonsense. */
struct body *body_with_head(const struct body *b, struct str head, uint64_t skip);
/* Octets held in memory. */
size_t body_memory(const struct body *b);

#endif
