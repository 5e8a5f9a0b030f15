/* parts.h - the parts of a message: what they are, what their files are called, how large they are (RFC 2045, 2046,
 * 2183, 2231), as policies look at attachments.
 *
 * Layer: mail. Bytes in, in any pieces; nothing is decoded but names. Memory is bounded whatever the message is: a
 * line, a field, a stack of PARTS_DEPTH entities and PARTS_MAX parts; a message with more is not complete. A part is what
 * the message says of it, and whoever sends may lie: a type and a name are a reason to refuse, never one to trust.
 *
 * Multiparts are no parts themselves, but what is in them; a message in a message is a part, and what is in it
 * follows. What stands before the first and behind the last boundary is none.
 */
#ifndef TERN_MAIL_PARTS_H
#define TERN_MAIL_PARTS_H

#include "base/arena.h"
#include "base/buf.h"

enum { PARTS_MAX = 1000, PARTS_DEPTH = 20 };

struct part {
    struct str type;        /* "application/pdf", in lower case */
    struct str name;        /* of the file, in UTF-8 where it can be read; empty: none */
    struct str disposition; /* "attachment", "inline", in lower case; empty: not said */
    struct str encoding;    /* "base64", in lower case; empty: not said */
    uint32_t depth;         /* entities around it */
    uint64_t size;          /* octets as they stand in the message, that is, encoded */
};

struct parts;

/* The values of Content-Type, Content-Disposition and Content-Transfer-Encoding of the message itself; empty: it has no
 * such field. Then its body. NULL: out of memory. */
struct parts *parts_new(struct str type, struct str disposition, struct str encoding);
struct parts *parts_free(struct parts *p);
int parts_look(struct parts *p, struct str piece); /* -ENOMEM */
int parts_end(struct parts *p);                    /* all was given. -ENOMEM */

/* After the end. */
size_t parts_count(const struct parts *p);
const struct part *parts_at(const struct parts *p, size_t i);
bool parts_complete(const struct parts *p); /* false: there is more than the limits let see */

#endif
