/* recode.c - the structure of a message, and what is done with each of its parts.
 *
 * Layer: mail. Interface: recode.h; the map of the files: recode_internal.h.
 *
 * Both passes run the same parser, so they see the same regions in the same order: an entity (its
 * header block and, when it holds no other entities, its body) is one, so are the texts in front of
 * the first and behind the last boundary of a multipart. The first pass decides for each, the second
 * one acts by that. Lines end in CRLF; a CRLF in front of a boundary belongs to the boundary (RFC 2046
 * section 5.1.1), so each waits until it is known what follows it.
 */
#include "mail/recode_internal.h"

enum { LINE_CAP = 1024, FIELD_CAP = 4096, MAX_TEXT = 998 };
/* Octets that a changed header block grows by, about. */
enum { FIELDS_GROW = 100 };

/* What is done with a region: how it is encoded or labelled, and what else its header needs. */
enum {
    KEEP,
    LABEL_7BIT,
    LABEL_8BIT,
    ENCODE_QP,
    ENCODE_B64,
    HOW = 7,
    ADD_MIME = 8, /* MIME-Version, where it is missing */
};

enum field { FIELD_ANY, FIELD_TYPE, FIELD_CTE, FIELD_MIME };
enum where { IN_HEADER, IN_BODY };

struct frame {
    size_t owner; /* the region of the message that it is in */
    bool digest;
    uint8_t boundary_n; /* 0: message/rfc822 */
    char boundary[RECODE_BOUNDARY];
};

struct recode {
    bool eight_bit;
    bool looking;
    bool result_8bit;
    int error;
    const char *why;
    uint64_t octets, growth;

    uint8_t *plan;
    size_t n_plan, cap_plan;
    size_t next; /* region that begins next */

    /* where it is */
    enum where where;
    struct frame stack[RECODE_DEPTH];
    size_t depth;
    char line[LINE_CAP + 2];
    size_t line_n;
    bool mid_line; /* the beginning of the line has been taken already */
    bool held;     /* a CRLF of the body waits */
    struct buf *out;

    /* the header block */
    size_t region;
    bool is_message; /* it is a message's, not a part's */
    bool has_type, has_cte, has_mime, cte_written, skipping;
    enum field field;
    enum recode_cte cte;
    struct recode_type type;
    char value[FIELD_CAP];
    size_t value_n;

    /* the region */
    const char *frozen; /* why it must not be encoded; NULL: it may */
    bool bare;          /* it has NUL, a CR or an LF alone, or a line too long */
    bool entity;        /* it has a header block */
    uint64_t n, high, special, column;
    struct recode_encoder encoder;
};

static int cannot(struct recode *r, const char *why)
{
    if (!r->error) {
        r->error = -EILSEQ;
        r->why = why;
    }
    return r->error;
}

/* ---- the plan ---- */

static size_t owner(const struct recode *r)
{
    return r->depth ? r->stack[r->depth - 1].owner : 0;
}

static void grow_plan(struct recode *r)
{
    size_t cap = r->cap_plan ? r->cap_plan * 2 : 64;
    uint8_t *more = realloc(r->plan, cap);

    if (!more) {
        r->error = r->error ? r->error : -ENOMEM;
        return;
    }
    r->plan = more;
    r->cap_plan = cap;
}

static void begin_region(struct recode *r, bool entity)
{
    r->frozen = NULL;
    r->bare = false;
    r->held = false;
    r->entity = entity;
    r->n = r->high = r->special = r->column = 0;
    r->encoder = (struct recode_encoder){ .out = r->out };
    r->region = r->next++;
    if (!r->looking)
        return;
    if (r->n_plan == RECODE_REGIONS)
        cannot(r, "it has too many parts");
    else if (r->n_plan == r->cap_plan)
        grow_plan(r);
    if (!r->error)
        r->plan[r->n_plan++] = KEEP;
}

static unsigned plan_of(const struct recode *r, size_t region)
{
    return region < r->n_plan ? r->plan[region] : KEEP;
}

static void decide(struct recode *r, unsigned how)
{
    if (r->error || how == KEEP)
        return;
    r->plan[r->region] = (uint8_t)((r->plan[r->region] & ~HOW) | how);
    if (how >= ENCODE_QP)
        r->plan[owner(r)] |= ADD_MIME;
    r->growth += FIELDS_GROW;
}

/* ---- regions ---- */

static uint64_t qp_size(const struct recode *r)
{
    return r->n + 2 * r->special + (r->n + 2 * r->special) / 72 * 3;
}

static uint64_t b64_size(const struct recode *r)
{
    return (r->n + 2) / 3 * 4 + r->n / RECODE_B64_LINE * 2;
}

/* Text stays readable unless that costs much. */
static bool better_in_b64(const struct recode *r)
{
    if (r->type.kind == RECODE_TEXT)
        return b64_size(r) + r->n / 6 + 20 < qp_size(r);
    return r->bare || b64_size(r) < qp_size(r);
}

/* A label that promises more than the host takes, on content that it can take. */
static unsigned label_for(const struct recode *r, bool high)
{
    if (r->cte != CTE_BINARY && (r->cte != CTE_8BIT || r->eight_bit))
        return KEEP;
    return r->eight_bit && high ? LABEL_8BIT : LABEL_7BIT;
}

static void judge_region(struct recode *r)
{
    if (!r->bare && (r->eight_bit || !r->high)) {
        r->result_8bit = r->result_8bit || r->high;
        if (r->entity && !r->frozen)
            decide(r, label_for(r, r->high));
        return;
    }
    if (r->frozen) {
        cannot(r, r->frozen);
        return;
    }
    bool b64 = r->entity && better_in_b64(r);
    uint64_t size = b64 ? b64_size(r) : qp_size(r);
    r->growth += size - MIN(r->n, size);
    decide(r, b64 ? ENCODE_B64 : ENCODE_QP);
}

static void look_at(struct recode *r, struct str s)
{
    r->n += s.n;
    r->column += s.n;
    r->bare = r->bare || r->column > MAX_TEXT;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= ' ' && c < 127 && c != '=')
            continue;
        r->special += c != '\t';
        r->high += c > 127;
        r->bare = r->bare || c == '\0' || c == '\r' || c == '\n';
    }
}

static void region_text(struct recode *r, struct str s)
{
    if (r->looking) {
        look_at(r, s);
        return;
    }
    switch (plan_of(r, r->region) & HOW) {
    case ENCODE_QP: recode_qp_text(&r->encoder, s); break;
    case ENCODE_B64: recode_b64(&r->encoder, s); break;
    default: buf_add_str(r->out, s);
    }
}

static void region_crlf(struct recode *r)
{
    r->held = false;
    if (r->looking) {
        r->n += 2;
        r->column = 0;
        return;
    }
    switch (plan_of(r, r->region) & HOW) {
    case ENCODE_QP: recode_qp_break(&r->encoder); break;
    case ENCODE_B64: recode_b64(&r->encoder, STR("\r\n")); break;
    default: buf_add_str(r->out, STR("\r\n"));
    }
}

/* at_end: of the message, not by a boundary. */
static void end_region(struct recode *r, bool at_end)
{
    if (at_end && r->held)
        region_crlf(r);
    if (r->looking) {
        judge_region(r);
        return;
    }
    unsigned how = plan_of(r, r->region) & HOW;
    if (how == ENCODE_QP)
        recode_qp_end(&r->encoder, at_end);
    if (how == ENCODE_B64)
        recode_b64_end(&r->encoder);
    if (r->held || (at_end && how == ENCODE_B64))
        buf_add_str(r->out, STR("\r\n"));
    r->held = false;
}

/* ---- header blocks ---- */

static void begin_entity(struct recode *r, bool is_message)
{
    bool digest = !is_message && r->depth && r->stack[r->depth - 1].digest;

    begin_region(r, true);
    r->where = IN_HEADER;
    r->is_message = is_message;
    r->has_type = r->has_cte = r->has_mime = r->cte_written = r->skipping = false;
    r->field = FIELD_ANY;
    r->value_n = 0;
    r->cte = CTE_NONE;
    r->type = (struct recode_type){ .kind = digest ? RECODE_MESSAGE : RECODE_TEXT };
}

static void push(struct recode *r, size_t owned_by)
{
    struct frame *f = &r->stack[r->depth++];

    f->owner = owned_by;
    f->digest = r->type.digest;
    f->boundary_n = (uint8_t)r->type.boundary_n;
    memcpy(f->boundary, r->type.boundary, r->type.boundary_n);
}

/* What the region that begins now must not be encoded for. */
static const char *frozen_by(const struct recode *r, bool blank)
{
    if (r->type.kind == RECODE_SIGNED)
        return "a signed part would not verify any more";
    if (r->cte == CTE_ENCODED)
        return "a part that says it is encoded holds other octets";
    switch (r->type.kind) {
    case RECODE_MULTIPART:
    case RECODE_MESSAGE:
        return blank ? "its parts are nested too deep"
                     : "a header block does not end in an empty line";
    case RECODE_OTHER_MESSAGE: return "a part of type message must not be encoded";
    case RECODE_UNREADABLE: return "the Content-Type of a part cannot be read";
    default: return NULL;
    }
}

static void write_label(struct recode *r)
{
    static const char *const names[] = { [LABEL_7BIT] = "7bit",
                                         [LABEL_8BIT] = "8bit",
                                         [ENCODE_QP] = "quoted-printable",
                                         [ENCODE_B64] = "base64" };

    if (!r->cte_written)
        buf_printf(r->out, "Content-Transfer-Encoding: %s\r\n", names[plan_of(r, r->region) & HOW]);
    r->cte_written = true;
}

/* What the block lacks, then its end. blank: the empty line is there. */
static void close_header(struct recode *r, bool blank)
{
    unsigned plan = plan_of(r, r->region), how = plan & HOW;
    size_t before = buf_len(r->out);

    if (plan & ADD_MIME && r->is_message && !r->has_mime) {
        buf_add_str(r->out, STR("MIME-Version: 1.0\r\n"));
        if (!r->has_type && how >= ENCODE_QP)
            buf_add_str(r->out, STR("Content-Type: text/plain; charset=unknown-8bit\r\n"));
    }
    if (how != KEEP)
        write_label(r);
    if (blank || buf_len(r->out) != before)
        buf_add_str(r->out, STR("\r\n"));
}

static void end_field(struct recode *r)
{
    struct str value = str_make(r->value, MIN(r->value_n, (size_t)FIELD_CAP));
    bool whole = r->value_n <= FIELD_CAP;

    if (r->field == FIELD_TYPE && !r->has_type) {
        recode_read_type(value, &r->type);
        r->has_type = true;
        if (!whole && r->type.kind >= RECODE_MULTIPART)
            r->type.kind = RECODE_UNREADABLE;
    } else if (r->field == FIELD_CTE && !r->has_cte) {
        r->cte = recode_read_cte(value);
        r->has_cte = true;
    } else if (r->field == FIELD_MIME) {
        r->has_mime = true;
    }
    r->field = FIELD_ANY;
    r->skipping = false;
}

/* The header block is over: what follows is a body, or entities. */
static void end_header(struct recode *r, bool blank)
{
    end_field(r);

    /* Without the empty line, what is encoded behind it might look like one more field. */
    bool opens = r->cte != CTE_ENCODED && r->depth < RECODE_DEPTH && blank;
    if (!r->looking)
        close_header(r, blank);
    r->where = IN_BODY;
    if (opens && r->type.kind == RECODE_MULTIPART) {
        if (r->looking)
            decide(r, label_for(r, true));
        push(r, owner(r));
        begin_region(r, false);
    } else if (opens && r->type.kind == RECODE_MESSAGE) {
        if (r->looking)
            decide(r, label_for(r, true));
        r->type.boundary_n = 0;
        push(r, r->next);
        begin_entity(r, true);
    } else {
        r->frozen = frozen_by(r, blank);
    }
}

static enum field field_of(struct str name)
{
    return str_caseeq(name, STR("Content-Type"))                ? FIELD_TYPE
           : str_caseeq(name, STR("Content-Transfer-Encoding")) ? FIELD_CTE
           : str_caseeq(name, STR("MIME-Version"))              ? FIELD_MIME
                                                                : FIELD_ANY;
}

/* The length of a field's name; 0: the line is no field. */
static size_t name_length(struct str line)
{
    size_t n = 0, end;

    while (n < line.n && line.p[n] > ' ' && line.p[n] < 127 && line.p[n] != ':')
        n++;
    for (end = n; end < line.n && (line.p[end] == ' ' || line.p[end] == '\t');)
        end++;
    return n && end < line.n && line.p[end] == ':' ? n : 0;
}

static void keep_value(struct recode *r, struct str s)
{
    if (r->field != FIELD_ANY && r->value_n < FIELD_CAP) {
        struct str part = str_first(s, FIELD_CAP - r->value_n);
        memcpy(r->value + r->value_n, part.p, part.n);
    }
    r->value_n += s.n;
}

static void check_header(struct recode *r, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c > 127 && !r->eight_bit)
            cannot(r, "a header field holds 8-bit octets");
        r->result_8bit = r->result_8bit || c > 127;
        if (c == '\0' || c == '\r' || c == '\n')
            cannot(r, "a header field holds a bare CR, a bare LF or a NUL");
    }
    if (s.n > MAX_TEXT)
        cannot(r, "a line of a header field is too long");
}

static void body_line(struct recode *r, struct str text, bool first, bool eol);

static void header_line(struct recode *r, struct str text, bool first, bool eol)
{
    size_t name = first ? name_length(text) : 0;
    bool blank = text.n && (*text.p == ' ' || *text.p == '\t');

    if (first && text.n == 0 && eol) {
        end_header(r, true);
        return;
    }
    if (first && !name && !(blank && r->value_n)) {
        end_header(r, false); /* a line that is no field: the body begins here, as readers see it */
        body_line(r, text, first, eol);
        return;
    }
    if (r->looking)
        check_header(r, text);
    if (name) {
        end_field(r);
        r->field = field_of(str_first(text, name));
        r->value_n = 0;
        keep_value(r, str_from(text, (size_t)(str_chr(text, ':') + 1)));
        r->value_n = MAX(r->value_n, (size_t)1);
        r->skipping = r->field == FIELD_CTE && plan_of(r, r->region) & HOW;
        if (r->skipping && !r->looking)
            write_label(r);
    } else {
        keep_value(r, text);
    }
    if (r->looking || r->skipping)
        return;
    buf_add_str(r->out, text);
    if (eol)
        buf_add_str(r->out, STR("\r\n"));
}

/* ---- lines ---- */

static void body_line(struct recode *r, struct str text, bool first, bool eol)
{
    if (r->where == IN_HEADER) { /* of a message within, which has none */
        header_line(r, text, first, eol);
        return;
    }
    if (first && r->held)
        region_crlf(r);
    region_text(r, text);
    r->held = eol;
}

/* The frame whose boundary the line is, counted from 1; 0: none. */
static size_t find_boundary(const struct recode *r, struct str line, bool *ret_last)
{
    if (line.n < 3 || line.n > MAX_TEXT || line.p[0] != '-' || line.p[1] != '-')
        return 0;
    for (size_t i = r->depth; i > 0; i--) {
        const struct frame *f = &r->stack[i - 1];
        struct str rest = str_from(line, 2);
        if (!f->boundary_n || !str_starts(rest, str_make(f->boundary, f->boundary_n)))
            continue;
        rest = str_from(rest, f->boundary_n);
        *ret_last = str_starts(rest, STR("--"));
        if (*ret_last)
            rest = str_from(rest, 2);
        while (rest.n && (*rest.p == ' ' || *rest.p == '\t'))
            rest = str_from(rest, 1);
        if (rest.n == 0)
            return i;
    }
    return 0;
}

static void take_boundary(struct recode *r, size_t level, bool last, struct str line, bool eol)
{
    if (r->where == IN_HEADER) /* a part that ends within its header block */
        end_header(r, false);
    while (r->where == IN_HEADER) /* and the message in it, which is empty */
        end_header(r, false);
    end_region(r, false);
    if (!r->looking) {
        buf_add_str(r->out, line);
        if (eol)
            buf_add_str(r->out, STR("\r\n"));
    }
    r->depth = last ? level - 1 : level;
    if (last) {
        r->where = IN_BODY;
        begin_region(r, false);
    } else {
        begin_entity(r, false);
    }
}

/* eol: it ends in CRLF; at_end: the message ends with it. */
static void take_line(struct recode *r, struct str text, bool eol, bool at_end)
{
    bool first = !r->mid_line, last = false;
    size_t level = first && (eol || at_end) ? find_boundary(r, text, &last) : 0;

    r->mid_line = !eol;
    if (r->error)
        return;
    if (level)
        take_boundary(r, level, last, text, eol);
    else if (r->where == IN_HEADER)
        header_line(r, text, first, eol);
    else
        body_line(r, text, first, eol);
}

/* The first CRLF within LINE_CAP octets; -1: none. */
static ptrdiff_t find_crlf(struct str in)
{
    const char *end = in.p + MIN(in.n, (size_t)LINE_CAP + 2);

    for (const char *p = in.p; p < end; p++) {
        p = memchr(p, '\n', (size_t)(end - p));
        if (!p)
            return -1;
        if (p > in.p && p[-1] == '\r')
            return p - 1 - in.p;
    }
    return -1;
}

/* A line that is not whole in this piece, or longer than what is kept of one. */
static struct str gather(struct recode *r, struct str in)
{
    r->line[r->line_n++] = *in.p;
    if (*in.p == '\n' && r->line_n > 1 && r->line[r->line_n - 2] == '\r') {
        take_line(r, str_make(r->line, r->line_n - 2), true, false);
        r->line_n = 0;
    } else if (r->line_n > LINE_CAP) { /* all but a CR, whose LF may follow */
        bool cr = *in.p == '\r';
        take_line(r, str_make(r->line, r->line_n - cr), false, false);
        r->line[0] = '\r';
        r->line_n = cr;
    }
    return str_from(in, 1);
}

static void take(struct recode *r, struct str in)
{
    while (in.n && !r->error) {
        ptrdiff_t n = r->line_n ? -1 : find_crlf(in);
        if (n < 0) {
            in = gather(r, in);
            continue;
        }
        take_line(r, str_first(in, (size_t)n), true, false);
        in = str_from(in, (size_t)n + 2);
    }
}

static void take_end(struct recode *r)
{
    if (r->line_n)
        take_line(r, str_make(r->line, r->line_n), false, true);
    r->line_n = 0;
    while (!r->error && r->where == IN_HEADER)
        end_header(r, false);
    if (!r->error)
        end_region(r, true);
}

static void restart(struct recode *r, bool looking, struct buf *out)
{
    r->looking = looking;
    r->out = out;
    r->next = r->depth = r->line_n = 0;
    r->mid_line = false;
    begin_entity(r, true);
}

/* ---- for users ---- */

struct recode *recode_new(bool eight_bit)
{
    struct recode *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    r->eight_bit = eight_bit;
    restart(r, true, NULL);
    return r;
}

struct recode *recode_free(struct recode *r)
{
    if (r)
        free(r->plan);
    free(r);
    return NULL;
}

int recode_look(struct recode *r, struct str piece)
{
    CHECK(r->looking);
    r->octets += piece.n;
    take(r, piece);
    return r->error;
}

int recode_looked(struct recode *r)
{
    CHECK(r->looking);
    take_end(r);
    r->looking = false;
    r->next = 0;
    return r->error;
}

int recode_write(struct recode *r, struct str piece, struct buf *out)
{
    CHECK(!r->looking && !r->error);
    if (r->next == 0)
        restart(r, false, out);
    CHECK(r->out == out);
    take(r, piece);
    return out->failed;
}

int recode_written(struct recode *r, struct buf *out)
{
    CHECK(!r->looking && !r->error);
    if (r->next == 0)
        restart(r, false, out);
    take_end(r);
    return out->failed;
}

const char *recode_why(const struct recode *r)
{
    return r->why ? r->why : "";
}

bool recode_is_eight_bit(const struct recode *r)
{
    return r->result_8bit;
}

uint64_t recode_estimate(const struct recode *r)
{
    return r->octets + r->growth;
}
