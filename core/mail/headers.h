/* headers.h - the header block of a message: found, read, edited without rewriting what was not
 * asked for (RFC 5322 §2.2).
 *
 * Layer: mail. Parses the first bytes of a message; fields are slices of the caller's bytes until an
 * edit replaces them. Bounded: HEADERS_MAX_BYTES and HEADERS_MAX_FIELDS.
 */
#ifndef TERN_MAIL_HEADERS_H
#define TERN_MAIL_HEADERS_H

#include "base/arena.h"
#include "base/buf.h"

enum { HEADERS_MAX_BYTES = 256 * 1024, HEADERS_MAX_FIELDS = 2000 };

struct header_field {
    struct str raw;   /* the whole field with folding and its CRLF */
    struct str name;  /* as written */
    struct str value; /* raw value, folding kept, without the first space and the last CRLF */
};

struct headers {
    struct arena *arena;
    struct header_field *fields;
    size_t n, cap;
    size_t length; /* octets of the block in the original, the empty line not counted */
    bool changed;
};

/* Finds the block at the start of `bytes`. A line that is no field ends the block (then the body
 * begins there, as most servers see it). The arena holds the index; `bytes` must stay. -E2BIG,
 * -ENOMEM. */
int headers_parse(struct arena *a, struct str bytes, struct headers *ret);
/* The n-th field of that name (0: the first from the top); NULL when there is none. Case-insensitive. */
const struct header_field *headers_get(const struct headers *h, struct str name, size_t n);
size_t headers_count(const struct headers *h, struct str name);
/* Unfolded value: line breaks removed (RFC 5322 §2.2.3). */
struct str headers_unfold(struct arena *a, struct str value);
/* Edits. Name: printable ASCII without ':' (-EINVAL). Value: CR, LF and NUL are refused (-EINVAL) so
 * that no header can be smuggled, as is a word too long for any line (998 octets); long values are
 * folded at spaces to 78 columns. -E2BIG, -ENOMEM. */
int headers_add(struct headers *h, struct str name, struct str value);     /* at the end */
int headers_prepend(struct headers *h, struct str name, struct str value); /* on top */
/* Replaces the first in its place and removes the others; adds it when there is none. */
int headers_set(struct headers *h, struct str name, struct str value);
/* Removes all of that name; ret_removed (may be NULL): how many. */
int headers_remove(struct headers *h, struct str name, size_t *ret_removed);
/* Writes the block as it now stands, without the empty line. */
int headers_write(const struct headers *h, struct buf *out);

#endif
