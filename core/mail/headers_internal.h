/* headers_internal.h - what the files of headers share. Layer: mail, internal. */
#ifndef TERN_MAIL_HEADERS_INTERNAL_H
#define TERN_MAIL_HEADERS_INTERNAL_H

#include "mail/headers.h"

static inline bool headers_is_wsp(char c)
{
    return c == ' ' || c == '\t';
}
static inline bool headers_name_char(char c)
{
    return c > 32 && c < 127 && c != ':';
}

/* Finds name and value in f->raw; false when its first line is no field. */
bool headers_split(struct header_field *f);
/* Says why, for people, and returns the error. */
static inline int headers_refuse(struct headers *h, int error, const char *why)
{
    h->why = why;
    return error;
}
/* Room for one more field. -E2BIG, -ENOMEM. */
int headers_grow(struct headers *h);
/* Index of the next field of that name from `from` on; h->n when there is none. */
size_t headers_next(const struct headers *h, struct str name, size_t from);
/* Makes a field out of a name and a value: checked, encoded, folded. Errors as of headers_add. */
int headers_make(struct headers *h, struct str name, struct str value, struct header_field *ret);

#endif
