/* glob.h - patterns as operators write them for names and texts: '*' and '?'.
 *
 * Layer: base. '*' stands for any octets, also none; '?' for one character (a UTF-8 sequence, or an octet
 * that is none); '\' takes the next octet as it is. ASCII letters match in any case. Brackets are ordinary
 * characters, since names of queues contain them ("[2001:db8::1]:25"). The time is at most that of
 * pattern times text, whatever the pattern.
 */
#ifndef TERN_BASE_GLOB_H
#define TERN_BASE_GLOB_H

#include "base/str.h"

/* It has a '*' or '?' that counts. */
bool glob_is_pattern(struct str s);
/* The pattern matches all of the text. */
bool glob_match(struct str pattern, struct str text);
/* A pattern with wildcards matches all of the text; one without stands somewhere in it. */
bool glob_finds(struct str pattern, struct str text);

#endif
