/* headers.c - the header block of a message.
 *
 * Layer: mail. Interface: headers.h. A field that nobody touched is written with the very bytes that
 * came. A line may end in LF alone here: what may enter the router at all is decided elsewhere, and
 * what is inside must be found in it.
 */
#include "mail/headers.h"

enum {
    FIRST_FIELDS = 32,
    MAX_NAME = 255,
    FOLD_COLUMN = 78, /* RFC 5322 §2.1.1 */
    MAX_LINE = 998,
};

static bool is_wsp(char c)
{
    return c == ' ' || c == '\t';
}

static bool name_char(char c)
{
    return c > 32 && c < 127 && c != ':';
}

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

    while (n < s.n && is_wsp(s.p[n]))
        n += line_length(str_from(s, n));
    return n;
}

/* Finds name and value in raw; false when its first line is no field. White space before the colon
 * is obsolete, but read (RFC 5322 §4.5). */
static bool split_field(struct header_field *f)
{
    struct str s = f->raw;
    size_t n = 0;

    while (n < s.n && name_char(s.p[n]))
        n++;
    f->name = str_first(s, n);
    while (n < s.n && is_wsp(s.p[n]))
        n++;
    if (f->name.n == 0 || n == s.n || s.p[n] != ':')
        return false;
    n++;
    if (n < s.n && s.p[n] == ' ')
        n++;
    f->value = without_line_end(str_from(s, n));
    return true;
}

/* Room for one more field. */
static int grow(struct headers *h)
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
        if (!split_field(&f))
            break;
        int r = h.length + f.raw.n > HEADERS_MAX_BYTES ? -E2BIG : grow(&h);
        if (r < 0)
            return r;
        h.fields[h.n++] = f;
        h.length += f.raw.n;
        rest = str_from(rest, f.raw.n);
    }
    *ret = h;
    return 0;
}

/* Index of the n-th field of that name from `from` on; h->n when there is none. */
static size_t find(const struct headers *h, struct str name, size_t from)
{
    while (from < h->n && !str_caseeq(h->fields[from].name, name))
        from++;
    return from;
}

const struct header_field *headers_get(const struct headers *h, struct str name, size_t n)
{
    size_t i = find(h, name, 0);

    while (n-- && i < h->n)
        i = find(h, name, i + 1);
    return i < h->n ? &h->fields[i] : NULL;
}

size_t headers_count(const struct headers *h, struct str name)
{
    size_t n = 0;

    for (size_t i = find(h, name, 0); i < h->n; i = find(h, name, i + 1))
        n++;
    return n;
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

/* Making fields */

/* Where a line that has `column` octets before s should be cut: the index of the first of some white
 * space with something visible on both sides (s is visible up to `end`), the last that keeps within
 * FOLD_COLUMN, else the first there is; s.n: nowhere. */
static size_t fold_point(struct str s, size_t end, size_t column)
{
    size_t best = s.n;

    if (column + s.n <= FOLD_COLUMN)
        return s.n;
    for (size_t i = 1; i < end; i++) {
        if (!is_wsp(s.p[i]) || is_wsp(s.p[i - 1]))
            continue;
        if (column + i > FOLD_COLUMN)
            return best < s.n ? best : i;
        best = i;
    }
    return best;
}

/* Octets of "Name: value" when folded into dst (NULL: only counted); -EINVAL when a line would be
 * too long for SMTP. */
static ptrdiff_t fold_field(struct str name, struct str value, char *dst)
{
    size_t column = name.n + 2, n = column, end = value.n;

    while (end && is_wsp(value.p[end - 1]))
        end--; /* white space at the end stays with what it follows */
    if (dst) {
        memcpy(dst, name.p, name.n);
        memcpy(dst + name.n, ": ", 2);
    }
    for (;;) {
        size_t cut = fold_point(value, end, column);
        if (column + cut > MAX_LINE)
            return -EINVAL;
        if (dst && cut)
            memcpy(dst + n, value.p, cut);
        n += cut;
        if (dst)
            memcpy(dst + n, "\r\n", 2);
        n += 2;
        if (cut == value.n)
            return (ptrdiff_t)n;
        value = str_from(value, cut);
        end -= cut;
        column = 0;
    }
}

static int check_field(struct str name, struct str value)
{
    if (name.n == 0 || name.n > MAX_NAME)
        return -EINVAL;
    for (size_t i = 0; i < name.n; i++)
        if (!name_char(name.p[i]))
            return -EINVAL;
    if (value.n > HEADERS_MAX_BYTES)
        return -E2BIG;
    for (size_t i = 0; i < value.n; i++)
        if (value.p[i] == '\r' || value.p[i] == '\n' || value.p[i] == '\0')
            return -EINVAL;
    return 0;
}

static int make_field(struct headers *h, struct str name, struct str value,
                      struct header_field *ret)
{
    int r = check_field(name, value);
    if (r < 0)
        return r;
    ptrdiff_t n = fold_field(name, value, NULL);
    if (n < 0)
        return (int)n;
    char *raw = arena_alloc(h->arena, (size_t)n);
    if (!raw)
        return -ENOMEM;
    fold_field(name, value, raw);
    ret->raw = str_make(raw, (size_t)n);
    CHECK(split_field(ret));
    return 0;
}

/* Edits */

static int insert(struct headers *h, size_t at, struct str name, struct str value)
{
    struct header_field f;
    int r = make_field(h, name, value, &f);

    if (r == 0)
        r = grow(h);
    if (r < 0)
        return r;
    memmove(h->fields + at + 1, h->fields + at, (h->n - at) * sizeof(f));
    h->fields[at] = f;
    h->n++;
    h->changed = true;
    return 0;
}

int headers_add(struct headers *h, struct str name, struct str value)
{
    return insert(h, h->n, name, value);
}

int headers_prepend(struct headers *h, struct str name, struct str value)
{
    return insert(h, 0, name, value);
}

/* Removes those of that name from index `from` on. */
static size_t remove_from(struct headers *h, struct str name, size_t from)
{
    size_t kept = from;

    for (size_t i = from; i < h->n; i++)
        if (!str_caseeq(h->fields[i].name, name))
            h->fields[kept++] = h->fields[i];
    size_t removed = h->n - kept;
    h->n = kept;
    if (removed)
        h->changed = true;
    return removed;
}

int headers_set(struct headers *h, struct str name, struct str value)
{
    size_t at = find(h, name, 0);
    struct header_field f;

    if (at == h->n)
        return headers_add(h, name, value);
    int r = make_field(h, name, value, &f);
    if (r < 0)
        return r;
    h->fields[at] = f;
    h->changed = true;
    remove_from(h, f.name, at + 1);
    return 0;
}

int headers_remove(struct headers *h, struct str name, size_t *ret_removed)
{
    size_t removed = remove_from(h, name, 0);

    if (ret_removed)
        *ret_removed = removed;
    return 0;
}

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
