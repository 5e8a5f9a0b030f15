/* mime_token.h - tokens of MIME fields (RFC 2045 §5.1), as recode and parts read them. Layer: mail, internal. */
#ifndef TERN_MAIL_MIME_TOKEN_H
#define TERN_MAIL_MIME_TOKEN_H

#include "base/str.h"

static inline bool mime_is_token(char c)
{
    return c > ' ' && c <= '~' && !strchr("()<>@,;:\\\"/[]?=", c);
}

/* Blanks and comments, which nest. */
static inline void mime_skip_blanks(struct str *s)
{
    unsigned depth = 0;

    while (s->n) {
        char c = *s->p;
        if (c == '(')
            depth++;
        else if (c == ')' && depth)
            depth--;
        else if (c == '\\' && depth && s->n > 1)
            *s = str_from(*s, 1);
        else if (!depth && c != ' ' && c != '\t')
            return;
        *s = str_from(*s, 1);
    }
}

static inline struct str mime_take_token(struct str *s)
{
    size_t n = 0;

    mime_skip_blanks(s);
    while (n < s->n && mime_is_token(s->p[n]))
        n++;
    struct str token = str_first(*s, n);
    *s = str_from(*s, n);
    return token;
}

#endif
