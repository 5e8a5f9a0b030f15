/* parts.c - the structure of a message. Layer: mail. Interface: parts.h.
 *
 * It goes line by line. Of a line that is longer than any that means something the beginning is looked at.
 */
#include "mail/encoded_word.h"
#include "mail/parts_internal.h"

enum {
    MAX_BOUNDARY = 200,     /* RFC 2046 §5.1.1 allows 70 */
    MAX_LINE = PARTS_FIELD, /* octets of a line that are looked at */
    MAX_TYPE = 128,
    MAX_NAME = 1024,
    FIRST_PARTS = 16,
};

enum where { IN_HEADER, IN_BODY };

/* A multipart, or a message in a message, which has no boundary. */
struct level {
    size_t n;
    char boundary[MAX_BOUNDARY];
};

/* Fields of the header block that is being read. */
enum field { FIELD_TYPE, FIELD_DISPOSITION, FIELD_ENCODING, FIELDS, FIELD_OTHER = FIELDS };

struct parts {
    struct arena arena; /* of the texts of parts */
    struct part *list;
    size_t n, cap;
    bool complete;
    int error;

    enum where where;
    struct level stack[PARTS_DEPTH];
    uint32_t depth;
    bool open;     /* the last part in the list is the one that its octets count for */
    size_t end_n;  /* octets of the line end that may belong to a boundary */
    enum field at; /* the field that the next folded line belongs to */
    struct buf values[FIELDS];
    bool have[FIELDS]; /* the first of each counts */

    char line[MAX_LINE]; /* the beginning of the line at hand */
    size_t line_n;
    uint64_t line_size;
    char last; /* octet of it */
};

static struct str value_of(const struct parts *p, enum field f)
{
    return str_first(buf_str(&p->values[f]), PARTS_FIELD);
}

static void begin_header(struct parts *p)
{
    p->where = IN_HEADER;
    p->at = FIELD_OTHER;
    for (int i = 0; i < FIELDS; i++) {
        buf_clear(&p->values[i]);
        p->have[i] = false;
    }
}

/* ---- parts ---- */

static struct str keep(struct parts *p, const char *bytes, size_t n)
{
    struct str kept = n ? arena_str(&p->arena, str_make(bytes, n)) : STR("");

    if (!kept.p)
        p->error = -ENOMEM;
    return kept;
}

static bool grow_list(struct parts *p)
{
    if (p->n == PARTS_MAX)
        return p->complete = false;
    if (p->n < p->cap)
        return true;
    size_t cap = p->cap ? 2 * p->cap : FIRST_PARTS;
    struct part *more = realloc(p->list, cap * sizeof(*more));
    if (!more) {
        p->error = -ENOMEM;
        return false;
    }
    p->list = more;
    p->cap = cap;
    return true;
}

static void add_part(struct parts *p, struct str type)
{
    char text[DECODED_WORD_ROOM(PARTS_FIELD)];

    p->open = grow_list(p);
    if (!p->open)
        return;
    struct part *part = &p->list[p->n++];
    *part = (struct part){ .depth = p->depth };
    part->type = keep(p, type.p, type.n);
    size_t n = parts_parameter(value_of(p, FIELD_DISPOSITION), STR("filename"), text);
    if (n == 0)
        n = parts_parameter(value_of(p, FIELD_TYPE), STR("name"), text);
    part->name = keep(p, text, n > MAX_NAME ? MAX_NAME : n);
    part->disposition = keep(p, text, parts_value(value_of(p, FIELD_DISPOSITION), text, MAX_TYPE));
    part->encoding = keep(p, text, parts_value(value_of(p, FIELD_ENCODING), text, MAX_TYPE));
}

/* ---- entities ---- */

static struct level *push(struct parts *p)
{
    if (p->depth == PARTS_DEPTH) {
        p->complete = false;
        return NULL;
    }
    struct level *l = &p->stack[p->depth++];
    l->n = 0;
    return l;
}

/* The header block of an entity is over: what is it? */
static void end_header(struct parts *p)
{
    char type[MAX_TYPE], boundary[DECODED_WORD_ROOM(PARTS_FIELD)];
    size_t n = parts_value(value_of(p, FIELD_TYPE), type, sizeof(type));
    struct str is = str_make(type, n);

    p->where = IN_BODY;
    p->open = false;
    p->end_n = 0;
    if (str_starts(is, STR("multipart/"))) {
        size_t k = parts_parameter(value_of(p, FIELD_TYPE), STR("boundary"), boundary);
        struct level *l = k && k <= MAX_BOUNDARY ? push(p) : NULL;
        if (l) {
            memcpy(l->boundary, boundary, k);
            l->n = k;
            return;
        }
        p->complete = false; /* what is in it cannot be told apart: it counts as one */
    }
    /* RFC 2045 §5.2: what is not said, or cannot be read, is text. */
    add_part(p, str_chr(is, '/') > 0 ? is : STR("text/plain"));
    if ((str_eq(is, STR("message/rfc822")) || str_eq(is, STR("message/global"))) && push(p))
        begin_header(p);
}

/* ---- lines ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* The level whose boundary the line is, counted from 1; 0: none. */
static uint32_t find_boundary(const struct parts *p, struct str line, bool *ret_last)
{
    if (!str_starts(line, STR("--")))
        return 0;
    for (uint32_t i = p->depth; i > 0; i--) {
        const struct level *l = &p->stack[i - 1];
        struct str rest = str_from(line, 2);
        if (!l->n || !str_starts(rest, str_make(l->boundary, l->n)))
            continue;
        rest = str_from(rest, l->n);
        *ret_last = str_starts(rest, STR("--"));
        if (str_trim(str_from(rest, *ret_last ? 2 : 0)).n == 0)
            return i;
    }
    return 0;
}

static void take_boundary(struct parts *p, uint32_t level, bool last)
{
    if (p->where == IN_HEADER)
        end_header(p);
    if (p->open && p->n)
        p->list[p->n - 1].size -= MIN(p->list[p->n - 1].size, (uint64_t)p->end_n);
    p->open = false;
    p->depth = last ? level - 1 : level;
    p->where = IN_BODY;
    if (!last)
        begin_header(p);
}

static void header_line(struct parts *p, struct str line)
{
    static const char *const names[FIELDS] = { [FIELD_TYPE] = "Content-Type",
                                               [FIELD_DISPOSITION] = "Content-Disposition",
                                               [FIELD_ENCODING] = "Content-Transfer-Encoding" };
    struct str value = line, name;

    if (line.n && is_blank(*line.p)) {
        if (p->at < FIELDS && buf_len(&p->values[p->at]) < PARTS_FIELD)
            p->error = buf_add_str(&p->values[p->at], line);
        return;
    }
    p->at = FIELD_OTHER;
    if (line.n == 0 || !str_cut(&value, ':', &name) || !value.p) {
        end_header(p);
        if (line.n && p->open) { /* no field: the body begins with it */
            p->list[p->n - 1].size += p->line_size;
            p->end_n = p->last == '\r' ? 2 : 1;
        }
        return;
    }
    for (int i = 0; i < FIELDS; i++)
        if (str_caseeq(str_trim(name), str_of(names[i])) && !p->have[i]) {
            p->have[i] = true;
            p->at = (enum field)i;
            p->error = buf_add_str(&p->values[i], value);
        }
}

static void take_line(struct parts *p, bool eol)
{
    struct str line = str_make(p->line, p->line_n);
    bool last = false;

    while (line.n && (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == '\n'))
        line.n--;
    uint32_t level = find_boundary(p, line, &last);
    if (level) {
        take_boundary(p, level, last);
    } else if (p->where == IN_HEADER) {
        header_line(p, line);
    } else if (p->open) {
        p->list[p->n - 1].size += p->line_size;
        p->end_n = !eol ? 0 : p->last == '\r' ? 2 : 1;
    }
    p->line_n = 0;
    p->line_size = 0;
    p->last = '\0';
}

/* ---- the whole ---- */

struct parts *parts_new(struct str type, struct str disposition, struct str encoding)
{
    struct parts *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    arena_init(&p->arena, 0);
    for (int i = 0; i < FIELDS; i++)
        buf_init(&p->values[i], 0);
    p->complete = true;
    const struct str given[FIELDS] = { type, disposition, encoding };
    for (int i = 0; i < FIELDS; i++)
        p->error =
            p->error ? p->error : buf_add_str(&p->values[i], str_first(given[i], PARTS_FIELD));
    if (!p->error)
        end_header(p);
    return p->error ? parts_free(p) : p;
}

struct parts *parts_free(struct parts *p)
{
    if (!p)
        return NULL;
    for (int i = 0; i < FIELDS; i++)
        buf_done(&p->values[i]);
    arena_done(&p->arena);
    free(p->list);
    free(p);
    return NULL;
}

int parts_look(struct parts *p, struct str piece)
{
    while (piece.n && !p->error) {
        ptrdiff_t lf = str_chr(piece, '\n');
        struct str part = str_first(piece, lf < 0 ? piece.n : (size_t)lf);
        struct str kept = str_first(part, MAX_LINE - p->line_n);
        memcpy(p->line + p->line_n, kept.p, kept.n);
        p->line_n += kept.n;
        if (part.n)
            p->last = part.p[part.n - 1];
        p->line_size += part.n + (lf >= 0);
        if (lf >= 0)
            take_line(p, true);
        piece = str_from(piece, part.n + (lf >= 0));
    }
    return p->error;
}

int parts_end(struct parts *p)
{
    if (p->line_size && !p->error)
        take_line(p, false);
    while (p->where == IN_HEADER && !p->error) /* a message in a message that is empty */
        end_header(p);
    return p->error;
}

size_t parts_count(const struct parts *p)
{
    return p->n;
}

const struct part *parts_at(const struct parts *p, size_t i)
{
    return &p->list[i];
}

bool parts_complete(const struct parts *p)
{
    return p->complete;
}
