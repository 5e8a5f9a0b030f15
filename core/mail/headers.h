/* headers.h - the header block of a message: found, read, edited without rewriting what was not
 * asked for (RFC 5322 §2.2).
 *
 * Layer: mail. Parses the first bytes of a message; fields are slices of the caller's bytes until an
 * edit replaces them: what nobody touched is written with the very bytes that came, in its place. All
 * memory is of the arena, and bounded: HEADERS_MAX_BYTES and HEADERS_MAX_FIELDS as it comes,
 * HEADERS_MAX_CHANGES and HEADERS_MAX_ADDED for what edits add to it.
 *
 * Files: headers.c finds, reads and writes; headers_edit.c changes; headers_make.c makes fields.
 */
#ifndef TERN_MAIL_HEADERS_H
#define TERN_MAIL_HEADERS_H

#include "base/arena.h"
#include "base/buf.h"
#include "mail/changes.h"

enum {
    HEADERS_MAX_BYTES = 256 * 1024,
    HEADERS_MAX_FIELDS = 2000,
    HEADERS_MAX_CHANGES = 500,     /* of one message */
    HEADERS_MAX_ADDED = 64 * 1024, /* octets of the fields that they make */
};

struct header_field {
    struct str raw;   /* the whole field with folding and its CRLF */
    struct str name;  /* as written */
    struct str value; /* raw value, folding kept, without the first space and the last CRLF */
};

/* What headers_undo goes back to. */
struct headers_mark {
    struct header_field *fields;
    size_t n, cap, octets, n_changes;
    bool changed;
};

struct headers {
    struct arena *arena;
    struct header_field *fields;
    size_t n, cap;
    size_t length; /* octets of the block in the original, the empty line not counted */
    size_t octets; /* of the block as it now stands */
    bool changed;

    /* For edits. The caller may set them behind headers_parse. */
    struct str by; /* our name: Received fields of ours stay as they are; empty: none are ours */
    bool utf8;     /* values may be UTF-8 as it is: the message is SMTPUTF8 */
    /* Whoever edits, "policies/spam.lua:12", for the record; copied. */
    struct str place;
    const char *why; /* what was wrong with the edit that was refused last, for people */

    struct header_change *changes;
    size_t n_changes, changes_cap;
    size_t added;             /* octets made so far, also those that are undone or removed again */
    struct headers_mark mark; /* of headers_begin */
    bool shared;              /* the mark has the same array: copied before it is changed */
};

/* Finds the block at the start of `bytes`. A line that is no field ends the block (then the body
 * begins there, as most servers see it). The arena holds the index; `bytes` must stay. -E2BIG,
 * -ENOMEM. */
int headers_parse(struct arena *a, struct str bytes, struct headers *ret);
/* The n-th field of that name (0: the first from the top); NULL when there is none. Case-insensitive. */
const struct header_field *headers_get(const struct headers *h, struct str name, size_t n);
size_t headers_count(const struct headers *h, struct str name);
/* Index in `fields` of the n-th of that name: 1 is the first, -1 the last. h->n: there is none. */
size_t headers_find(const struct headers *h, struct str name, int64_t n);
/* Unfolded value: line breaks removed (RFC 5322 §2.2.3). */
struct str headers_unfold(struct arena *a, struct str value);
/* It is a Received of the host `by` (any case): somewhere in it stands "by" and that name. */
bool headers_received_by(const struct header_field *f, struct str by);

/* Edits. All or nothing: what is refused has changed nothing, and h->why says in words what was wrong.
 *
 * -EINVAL  Name: printable ASCII without ':'. Value: CR, LF and NUL are refused so that no header can be
 *          smuggled, as is a word too long for any line (998 octets) and what is no UTF-8. Long values are
 *          folded at white space to 78 columns. What is beyond ASCII stays where h->utf8 says so, and else
 *          becomes encoded words (RFC 2047), but for fields with a grammar of their own, where these would
 *          not stand for the same: there it is refused.
 * -EPERM   a Received field of ours would go: loops are found by them.
 * -E2BIG   a limit.
 * -ENOENT  there is no field at that index.
 * -ENOMEM */
int headers_add(struct headers *h, struct str name, struct str value);     /* at the end */
int headers_prepend(struct headers *h, struct str name, struct str value); /* on top */
/* Replaces the first in its place and removes the others; adds it when there is none. */
int headers_set(struct headers *h, struct str name, struct str value);
/* Replaces the field at that index of `fields`. */
int headers_replace(struct headers *h, size_t at, struct str name, struct str value);
/* Removes all of that name but the Received of ours; ret_removed (may be NULL): how many. */
int headers_remove(struct headers *h, struct str name, size_t *ret_removed);
int headers_remove_at(struct headers *h, size_t at);

/* From here on edits can be undone, until the next begin. */
void headers_begin(struct headers *h);
/* All as it was at headers_begin, the record of changes too. */
void headers_undo(struct headers *h);

/* Writes the block as it now stands, without the empty line. */
int headers_write(const struct headers *h, struct buf *out);

#endif
