/* headers.c - the header block of a message: found, read, written.
 *
 * Layer: mail. Interface: headers.h. A line may end in LF alone here: what may enter the router at all is
 * decided elsewhere, and what is inside must be found in it.
 */
#include "mail/headers_internal.h"

enum { FIRST_FIELDS = 32 };

/* Length of the line at the front of s with its end; all of s when there is none. */
static size_t line_length(struct str s)
{
    ptrdiff_t lf = str_chr(s, '\n');

    return lf < 0 ? s.n : (size_t)lf + 1;
}

static struct str without_line_end(struct str s)
{
    if (s.n && s.p[s.n - 1] == '\n')
        s.n--;
    if (s.n && s.p[s.n - 1] == '\r')
        s.n--;
    return s;
}

/* Length of the field at the front of s with its continuation lines. */
static size_t field_length(struct str s)
{
    size_t n = line_length(s);

    while (n < s.n && headers_is_wsp(s.p[n]))
        n += line_length(str_from(s, n));
    return n;
}

/* White space before the colon is obsolete, but read (RFC 5322 §4.5). */
bool headers_split(struct header_field *f)
{
    struct str s = f->raw;
    size_t n = 0;

    while (n < s.n && headers_name_char(s.p[n]))
        n++;
    f->name = str_first(s, n);
    while (n < s.n && headers_is_wsp(s.p[n]))
        n++;
    if (f->name.n == 0 || n == s.n || s.p[n] != ':')
        return false;
    n++;
    if (n < s.n && s.p[n] == ' ')
        n++;
    f->value = without_line_end(str_from(s, n));
    return true;
}

int headers_grow(struct headers *h)
{
    if (h->n == HEADERS_MAX_FIELDS)
        return -E2BIG;
    if (h->n < h->cap)
        return 0;
    size_t cap = h->cap ? h->cap * 2 : FIRST_FIELDS;
    struct header_field *more = ARENA_ARRAY(h->arena, struct header_field, cap);
    if (!more)
        return -ENOMEM;
    if (h->n)
        memcpy(more, h->fields, h->n * sizeof(*more));
    h->fields = more;
    h->cap = cap;
    return 0;
}

int headers_parse(struct arena *a, struct str bytes, struct headers *ret)
{
    struct headers h = { .arena = a };

    for (struct str rest = bytes; rest.n;) {
        struct header_field f = { .raw = str_first(rest, field_length(rest)) };
        if (!headers_split(&f))
            break;
        int r = h.length + f.raw.n > HEADERS_MAX_BYTES ? -E2BIG : headers_grow(&h);
        if (r < 0)
            return r;
        h.fields[h.n++] = f;
        h.length += f.raw.n;
        rest = str_from(rest, f.raw.n);
    }
    h.octets = h.length;
    *ret = h;
    return 0;
}

size_t headers_next(const struct headers *h, struct str name, size_t from)
{
    while (from < h->n && !str_caseeq(h->fields[from].name, name))
        from++;
    return from;
}

const struct header_field *headers_get(const struct headers *h, struct str name, size_t n)
{
    size_t i = headers_next(h, name, 0);

    while (n-- && i < h->n)
        i = headers_next(h, name, i + 1);
    return i < h->n ? &h->fields[i] : NULL;
}

size_t headers_count(const struct headers *h, struct str name)
{
    size_t n = 0;

    for (size_t i = headers_next(h, name, 0); i < h->n; i = headers_next(h, name, i + 1))
        n++;
    return n;
}

size_t headers_find(const struct headers *h, struct str name, int64_t n)
{
    size_t i;

    if (n < 0 && n >= -HEADERS_MAX_FIELDS) {
        for (i = h->n; i-- > 0;)
            if (str_caseeq(h->fields[i].name, name) && ++n == 0)
                return i;
    } else if (n > 0 && n <= HEADERS_MAX_FIELDS) {
        for (i = headers_next(h, name, 0); i < h->n; i = headers_next(h, name, i + 1))
            if (--n == 0)
                return i;
    }
    return h->n;
}

struct str headers_unfold(struct arena *a, struct str value)
{
    if (str_chr(value, '\n') < 0 && str_chr(value, '\r') < 0)
        return value;

    char *copy = arena_strz(a, value);
    size_t n = 0;
    if (!copy)
        return STR_NONE;
    for (size_t i = 0; i < value.n; i++)
        if (value.p[i] != '\r' && value.p[i] != '\n')
            copy[n++] = value.p[i];
    copy[n] = '\0';
    return str_make(copy, n);
}

/* ---- whose Received ---- */

static bool between_words(char c)
{
    return headers_is_wsp(c) || c == '\r' || c == '\n' || c == '(' || c == ')' || c == ';';
}

static struct str take_word(struct str *s)
{
    size_t n = 0;

    while (s->n && between_words(*s->p))
        *s = str_from(*s, 1);
    while (n < s->n && !between_words(s->p[n]))
        n++;
    struct str word = str_first(*s, n);
    *s = str_from(*s, n);
    return word;
}

/* Comments are no exception: what the client calls itself must not hide who wrote the field. Rather one
 * too many is ours than one too few. */
bool headers_received_by(const struct header_field *f, struct str by)
{
    struct str rest = f->value;
    bool after_by = false;

    if (by.n == 0 || !str_caseeq(f->name, STR("Received")))
        return false;
    for (struct str word = take_word(&rest); word.n; word = take_word(&rest)) {
        if (after_by && (str_caseeq(word, by) || (word.p[word.n - 1] == '.' &&
                                                  str_caseeq(str_first(word, word.n - 1), by))))
            return true;
        after_by = str_caseeq(word, STR("by"));
    }
    return false;
}

/* ---- writing ---- */

int headers_write(const struct headers *h, struct buf *out)
{
    for (size_t i = 0; i < h->n; i++) {
        struct str raw = h->fields[i].raw;
        buf_add_str(out, raw);
        /* The last line of a message without body may have come without its end. */
        if (h->changed && raw.p[raw.n - 1] != '\n')
            buf_add_str(out, STR("\r\n"));
    }
    return out->failed;
}
