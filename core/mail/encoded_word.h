/* encoded_word.h - characters beyond ASCII in header fields: encoded words (RFC 2047).
 *
 * Layer: mail. Pure functions on bytes; nothing is allocated, and what is written is bounded by what is
 * read.
 */
#ifndef TERN_MAIL_ENCODED_WORD_H
#define TERN_MAIL_ENCODED_WORD_H

#include "base/str.h"

/* Room for n octets decoded, or encoded. */
#define DECODED_WORD_ROOM(n) (2 * (n) + 1)
#define ENCODED_WORD_ROOM(n) (4 * (n) + 128)

/* Writes the unfolded value with its encoded words decoded, in UTF-8, to dst; returns its length. Known are
 * UTF-8, US-ASCII and ISO-8859-1, in the encodings Q and B; a word in another charset, or that is broken, stays as
 * it is written. Blanks between two decoded words go. A character that is cut in two by the end of a word is read
 * all the same. What comes out may hold any characters, line breaks too. */
size_t encoded_word_decode(struct str value, char *dst);

/* Octets of ISO-8859-1 become UTF-8 where they stand: there must be room for twice as many. The new length. */
size_t latin1_to_utf8(char *p, size_t n);

/* Writes the value with its words beyond ASCII (and what is between them) as encoded words of at most 75
 * characters, separated by blanks, to dst; returns its length. The value must be UTF-8. column: how many
 * characters stand before it in its line. */
size_t encoded_word_encode(struct str value, size_t column, char *dst);

#endif
