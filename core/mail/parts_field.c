/* parts_field.c - values of MIME fields and their parameters. Layer: mail. See parts_internal.h. */
#include "mail/encoded_word.h"
#include "mail/mime_token.h"
#include "mail/parts_internal.h"

size_t parts_value(struct str field, char *dst, size_t max)
{
    size_t n = 0;

    for (int part = 0; part < 2; part++) {
        struct str token = mime_take_token(&field);
        for (size_t i = 0; i < token.n && n < max; i++)
            dst[n++] = ascii_lower(token.p[i]);
        mime_skip_blanks(&field);
        if (field.n == 0 || *field.p != '/' || n == max || part)
            break;
        dst[n++] = '/';
        field = str_from(field, 1);
    }
    return n;
}

/* A token or a quoted string, to dst; others write more than a token without quotes: up to the ';'. */
static size_t take_parameter_value(struct str *s, char *dst)
{
    size_t n = 0;

    mime_skip_blanks(s);
    if (s->n == 0 || *s->p != '"') {
        while (n < s->n && s->p[n] != ';')
            n++;
        struct str value = str_trim(str_first(*s, n));
        memcpy(dst, value.p, value.n);
        *s = str_from(*s, n);
        return value.n;
    }
    for (*s = str_from(*s, 1); s->n && *s->p != '"'; *s = str_from(*s, 1)) {
        if (*s->p == '\\' && s->n > 1)
            *s = str_from(*s, 1);
        dst[n++] = *s->p;
    }
    *s = str_from(*s, 1);
    return n;
}

/* Goes on behind the next ';' outside of quotes. */
static bool next_parameter(struct str *s)
{
    bool quoted = false;

    for (; s->n; *s = str_from(*s, 1)) {
        if (*s->p == '\\' && quoted && s->n > 1)
            *s = str_from(*s, 1);
        else if (*s->p == '"')
            quoted = !quoted;
        else if (*s->p == ';' && !quoted) {
            *s = str_from(*s, 1);
            return true;
        }
    }
    return false;
}

static int hex_value(char c)
{
    if (ascii_digit(c))
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "%C3%BC" in place. */
static size_t decode_percent(char *p, size_t n)
{
    size_t to = 0;

    for (size_t i = 0; i < n; i++) {
        int high = p[i] == '%' && i + 2 < n ? hex_value(p[i + 1]) : -1;
        int low = high >= 0 ? hex_value(p[i + 2]) : -1;
        p[to++] = low >= 0 ? (char)(high * 16 + low) : p[i];
        i += low >= 0 ? 2 : 0;
    }
    return to;
}

/* How a parameter continues: "name", "name*", "name*0", "name*0*". False: it is another one. */
static bool is_piece(struct str is, struct str name, int *ret_number, bool *ret_coded)
{
    if (!str_casestarts(is, name))
        return false;
    is = str_from(is, name.n);
    *ret_number = -1;
    *ret_coded = false;
    if (is.n == 0)
        return true;
    if (*is.p != '*')
        return false;
    is = str_from(is, 1);
    *ret_coded = is.n == 0 || is.p[is.n - 1] == '*';
    struct str digits = *ret_coded && is.n ? str_first(is, is.n - 1) : is;
    uint64_t n;
    if (digits.n == 0)
        return is.n == 0;
    if (str_to_u64(digits, &n) < 0 || n > 999)
        return false;
    *ret_number = (int)n;
    return true;
}

/* The charset in front of a coded value, "utf-8'en'", goes; *ret_latin1: it is that. */
static size_t take_charset(char *p, size_t n, bool *ret_latin1)
{
    struct str s = str_make(p, n), charset, language;

    if (!str_cut(&s, '\'', &charset) || !s.p || !str_cut(&s, '\'', &language) || !s.p)
        return n;
    *ret_latin1 = str_caseeq(charset, STR("iso-8859-1"));
    memmove(p, s.p, s.n);
    return s.n;
}

size_t parts_parameter(struct str field, struct str name, char *dst)
{
    char value[PARTS_FIELD];
    bool latin = false, coded, extended = false;
    size_t n = 0;
    int number, expected = 0;

    field = str_first(field, PARTS_FIELD);
    while (next_parameter(&field)) {
        struct str is = mime_take_token(&field);
        mime_skip_blanks(&field);
        if (!field.n || *field.p != '=' || !is_piece(is, name, &number, &coded))
            continue;
        field = str_from(field, 1);
        size_t k = take_parameter_value(&field, value);
        bool plain = number < 0 && !coded;
        bool taken = number >= 0 ? number != expected : n > 0 && (plain || extended);
        if (taken)
            continue; /* the extended form counts (as in RFC 6266), and pieces in their order */
        if (!plain && !extended)
            n = 0;
        extended |= !plain;
        if (coded && number <= 0)
            k = take_charset(value, k, &latin);
        if (coded)
            k = decode_percent(value, k);
        k = n + k > PARTS_FIELD ? PARTS_FIELD - n : k;
        memcpy(dst + n, value, k);
        n += k;
        expected += number >= 0;
    }
    if (latin)
        return latin1_to_utf8(dst, n);
    if (extended || str_find(str_make(dst, n), STR("=?")) < 0)
        return n;
    memcpy(value, dst, n);
    return encoded_word_decode(str_make(value, n), dst);
}
