/* parts_internal.h - what the files of parts share. Layer: mail, internal.
 *
 * parts.c: the structure of a message. parts_field.c: values of fields and their parameters.
 */
#ifndef TERN_MAIL_PARTS_INTERNAL_H
#define TERN_MAIL_PARTS_INTERNAL_H

#include "mail/parts.h"

enum { PARTS_FIELD = 8192 }; /* octets of a field's value that are read */

/* The value before the first ';', without blanks and comments, in lower case; at most `max` octets. */
size_t parts_value(struct str field, char *dst, size_t max);
/* The parameter of that name: tokens and quoted strings, in pieces and with a charset (RFC 2231), and encoded words in
 * quoted strings, which are wrong and common. Its length in dst, which has DECODED_WORD_ROOM(PARTS_FIELD); 0: none. */
size_t parts_parameter(struct str field, struct str name, char *dst);

#endif
