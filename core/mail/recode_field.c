/* recode_field.c - Content-Type and Content-Transfer-Encoding, as far as recoding needs them (RFC
 * 2045 section 5). Layer: mail. See recode_internal.h.
 */
#include "mail/mime_token.h"
#include "mail/recode_internal.h"

static bool take_char(struct str *s, char c)
{
    mime_skip_blanks(s);
    if (s->n == 0 || *s->p != c)
        return false;
    *s = str_from(*s, 1);
    return true;
}

/* A token or a quoted string, into dst. How long it is; more than size: it does not fit. */
static size_t take_value(struct str *s, char *dst, size_t size)
{
    size_t n = 0;

    if (!take_char(s, '"')) {
        struct str token = mime_take_token(s);
        if (token.n && token.n <= size)
            memcpy(dst, token.p, token.n);
        return token.n;
    }
    for (; s->n && *s->p != '"'; *s = str_from(*s, 1)) {
        if (*s->p == '\\' && s->n > 1)
            *s = str_from(*s, 1);
        if (n < size)
            dst[n] = *s->p;
        n++;
    }
    *s = str_from(*s, 1);
    return n;
}

static void read_boundary(struct str s, struct recode_type *t)
{
    char other[1];

    while (take_char(&s, ';')) {
        struct str name = mime_take_token(&s);
        if (!take_char(&s, '='))
            continue;
        if (!str_caseeq(name, STR("boundary")) || t->boundary_n) {
            (void)take_value(&s, other, sizeof(other));
            continue;
        }
        t->boundary_n = take_value(&s, t->boundary, sizeof(t->boundary));
    }
    if (t->boundary_n == 0 || t->boundary_n > sizeof(t->boundary))
        t->kind = RECODE_UNREADABLE;
}

static enum recode_kind message_kind(struct str subtype)
{
    return str_caseeq(subtype, STR("rfc822")) || str_caseeq(subtype, STR("global")) ||
                   str_caseeq(subtype, STR("news"))
               ? RECODE_MESSAGE
               : RECODE_OTHER_MESSAGE;
}

void recode_read_type(struct str value, struct recode_type *ret)
{
    struct str type = mime_take_token(&value);
    struct str subtype = take_char(&value, '/') ? mime_take_token(&value) : STR("");

    *ret = (struct recode_type){ .kind = RECODE_OTHER };
    if (str_caseeq(type, STR("text")) || subtype.n == 0) /* RFC 2045 section 5.2 */
        ret->kind = RECODE_TEXT;
    else if (str_caseeq(type, STR("message")))
        ret->kind = message_kind(subtype);
    if (!str_caseeq(type, STR("multipart")))
        return;
    ret->kind = str_caseeq(subtype, STR("signed")) ? RECODE_SIGNED : RECODE_MULTIPART;
    ret->digest = str_caseeq(subtype, STR("digest"));
    if (ret->kind == RECODE_MULTIPART)
        read_boundary(value, ret);
}

enum recode_cte recode_read_cte(struct str value)
{
    struct str token = mime_take_token(&value);

    return token.n == 0                       ? CTE_NONE
           : str_caseeq(token, STR("7bit"))   ? CTE_7BIT
           : str_caseeq(token, STR("8bit"))   ? CTE_8BIT
           : str_caseeq(token, STR("binary")) ? CTE_BINARY
                                              : CTE_ENCODED;
}
