/* intake_content.c - the content of a message that is being received.
 *
 * Layer: engine. See intake_internal.h.
 *
 * Our Received is written in front before the first octet of the message comes, so that nothing has
 * to be moved for it. Limits: headers as in mail/headers.h. The first piece takes the whole header block, however
 * large: it stays in memory, so that hooks can read and change it while the rest is in the spool.
 */
#include "engine/intake_internal.h"
#include "mail/trace.h"

/* ---- the header block as it comes ---- */

enum { SCAN_START, SCAN_NAME, SCAN_SPACE, SCAN_REST, SCAN_DONE };

/* Room for the block that may come, with our Received before it. */
enum { HEADER_PIECE = HEADERS_MAX_BYTES + BODY_CHUNK };

static bool is_wsp(char c)
{
    return c == ' ' || c == '\t';
}

static const char tls_required[] = "tls-required";
enum { TLS_REQUIRED_N = sizeof(tls_required) - 1 };

/* One octet of a field's name, or behind it; the rule is that of headers.c. */
static uint8_t scan_name(struct header_scan *s, char c)
{
    static const char name[] = "received";
    enum { WHOLE = sizeof(name) - 1 };

    if (c == ':') {
        s->received += s->matched == WHOLE;
        s->tls_required +=
            s->tls_name && s->name_n == TLS_REQUIRED_N && s->tls_required < UINT8_MAX;
        return SCAN_REST;
    }
    if (is_wsp(c))
        return SCAN_SPACE;
    if (c <= 32 || c >= 127 || s->state == SCAN_SPACE)
        return SCAN_DONE;
    s->matched = s->matched < WHOLE && ascii_lower(c) == name[s->matched]
                     ? (uint8_t)(s->matched + 1)
                     : WHOLE + 1;
    s->tls_name =
        s->tls_name && s->name_n < TLS_REQUIRED_N && ascii_lower(c) == tls_required[s->name_n];
    s->name_n += s->tls_name;
    return SCAN_NAME;
}

static uint8_t scan_start(struct header_scan *s, char c)
{
    if (c == '\r')
        return SCAN_DONE; /* the empty line: a bare CR does not come here */
    if (is_wsp(c))
        return s->fields ? SCAN_REST : SCAN_DONE;
    s->fields++;
    s->matched = s->name_n = 0;
    s->tls_name = true;
    return scan_name(s, c);
}

static void scan_headers(struct header_scan *s, struct str b)
{
    while (b.n && s->state != SCAN_DONE) {
        size_t n = 1;
        if (s->state == SCAN_REST) {
            const char *lf = memchr(b.p, '\n', b.n);
            n = lf ? (size_t)(lf - b.p) + 1 : b.n;
            s->state = lf ? SCAN_START : SCAN_REST;
        } else if (s->state == SCAN_START) {
            s->state = scan_start(s, *b.p);
        } else {
            s->state = scan_name(s, *b.p);
        }
        s->octets += (uint32_t)n;
        if (s->octets > HEADERS_MAX_BYTES)
            s->state = SCAN_DONE; /* too many in any case */
        b = str_from(b, n);
    }
}

/* ---- our Received ---- */

/* Who does not speak of priorities is not told of them, unless a policy has made a difference. */
static const int8_t *priority_to_tell(const struct intake *in)
{
    const int8_t *now = &in->m->times.priority;

    return in->prioritized || *now ? now : NULL;
}

static int write_trace(struct intake *in)
{
    const struct session_view *v = in->session;
    struct trace t = {
        .helo = v->helo,
        .client = *v->client,
        .by = in->snapshot->settings->hostname,
        .extended = v->extended,
        .lmtp = v->lmtp,
        .tls = v->tls,
        .authenticated = v->identity.n > 0,
        .utf8 = (in->m->flags & MESSAGE_SMTPUTF8) != 0,
        .tls_version = v->tls_facts.version,
        .tls_cipher = v->tls_facts.cipher,
        .id = in->m->id,
        /* Of several, none must learn of the others (RFC 5321 §7.2). */
        .for_ = in->n == 1 ? in->recipients[0].address.text : STR_NONE,
        .priority = priority_to_tell(in),
        .wall_ms = engine_wall(in->e),
    };

    in->traced_priority = in->m->times.priority;
    return trace_write(&t, &in->records);
}

int intake_begin_content(struct intake *in, bool blank_line)
{
    if (in->m->body)
        return 0;
    in->m->body = body_new();
    if (!in->m->body)
        return -ENOMEM;
    if (in->as_is)
        return 0;
    buf_room(&in->records, 1024);
    int r = write_trace(in);
    in->trace_n = buf_len(&in->records);
    if (blank_line)
        r = buf_add_str(&in->records, STR("\r\n"));
    if (r == 0)
        r = body_append(in->m->body, buf_str(&in->records));
    buf_clear(&in->records);
    return r < 0 ? -ENOMEM : 0;
}

/* ---- staging ---- */

static void account(struct intake *in, int64_t octets)
{
    in->in_memory += (uint64_t)octets;
    in->e->intake_memory += (uint64_t)octets;
}

static void free_pieces(struct body_chunk *c)
{
    while (c) {
        struct body_chunk *next = c->next;
        free(c);
        c = next;
    }
}

static void stage_over(struct intake *in, struct stage *s)
{
    for (size_t i = 0; i < in->n_stages; i++)
        if (in->stages[i] == s) {
            in->stages[i] = in->stages[--in->n_stages];
            break;
        }
    account(in, -(int64_t)s->octets);
    if (s->op.result < 0 && in->error == 0)
        in->error = s->op.result;
}

static void staged(struct spool_op *op)
{
    struct stage *s = CONTAINER_OF(op, struct stage, op);
    struct intake *in = s->in;

    if (in)
        stage_over(in, s);
    free_pieces(s->pieces);
    free(s);
    if (!in)
        return;
    if (in->phase == INTAKE_STAGING && in->n_stages == 0) {
        intake_content_complete(in);
    } else if (in->ready) {
        intake_ready *ready = TAKE(in->ready);
        ready(in->owner);
    }
}

/* Moves n pieces behind the first one out of the body. */
static struct body_chunk *take_pieces(struct body *b, uint32_t n)
{
    struct body_chunk *head = b->first->next, *last = b->first;

    for (uint32_t i = 0; i < n; i++)
        last = last->next;
    b->first->next = last->next;
    last->next = NULL;
    if (!b->first->next)
        b->last = b->first;
    b->staged = true;
    return head;
}

static int stage(struct intake *in, uint32_t n)
{
    struct port_spool *spool = in->e->ports.spool;
    struct stage *s = calloc(1, sizeof(*s) + n * sizeof(s->changes[0]));

    if (!s)
        return -ENOMEM;
    s->in = in;
    s->pieces = take_pieces(in->m->body, n);
    for (struct body_chunk *c = s->pieces; c; c = c->next) {
        struct spool_change *change = &s->changes[s->op.n_changes++];
        change->type = SPOOL_STAGE;
        change->id = in->m->id;
        change->stage.chunk = in->next_piece++;
        change->stage.bytes = str_make(c->data, c->n);
        s->octets += c->n;
    }
    list_init(&s->op.link);
    s->op.changes = s->changes;
    s->op.done = staged;
    in->stages[in->n_stages++] = s;
    spool->submit(spool, &s->op);
    return 0;
}

/* Pieces behind the first that are in memory and full. */
static uint32_t full_pieces(const struct intake *in)
{
    const struct body *b = in->m->body;
    uint32_t n = b->n_chunks > in->next_piece ? b->n_chunks - in->next_piece : 0;

    return n && b->last->n < b->last->cap ? n - 1 : n;
}

/* It will be refused: what it holds is given back now, not at its dot, or messages that come in together
 * would all be refused for the room that all of them hold. */
static int refuse(struct intake *in, int error)
{
    struct body *empty = in->m->body ? body_new() : NULL;
    uint64_t held = in->in_memory;

    in->error = error;
    if (!empty)
        return error;
    empty->staged = in->m->body->staged; /* those pieces are dropped with the intake */
    body_unref(in->m->body);
    in->m->body = empty;
    for (size_t i = 0; i < in->n_stages; i++)
        held -= in->stages[i]->octets;
    account(in, -(int64_t)held);
    return error;
}

/* Appends, what belongs to the header block to the first piece. */
static int append(struct intake *in, struct str bytes)
{
    struct body *b = in->m->body;
    uint32_t before = in->scan.octets;
    int r = 0;

    scan_headers(&in->scan, bytes);
    if (in->scan.octets > before && in->trace_n + in->scan.octets > BODY_CHUNK) {
        struct str head = str_first(bytes, in->scan.octets - before);
        b->first_max = HEADER_PIECE;
        r = body_append(b, head);
        b->first_max = 0;
        bytes = str_from(bytes, head.n);
    }
    return r < 0 ? r : body_append(b, bytes);
}

int intake_body(struct intake *in, struct str bytes, intake_ready *ready)
{
    uint64_t limit = in->snapshot->settings->limits.memory;

    CHECK(in->phase == INTAKE_OPEN);
    if (in->error)
        return refuse(in, in->error);
    if (!in->own && limit && in->e->intake_memory + bytes.n > limit)
        return refuse(in, -ENOMEM);
    int r = intake_begin_content(in, bytes.n && is_wsp(*bytes.p));
    if (r < 0)
        return refuse(in, r);
    account(in, (int64_t)bytes.n);
    r = append(in, bytes);
    uint32_t full = in->m->body->size > INTAKE_STAGE_ABOVE ? full_pieces(in) : 0;
    if (r == 0 && full >= INTAKE_STAGE_PIECES && in->n_stages < INTAKE_STAGES)
        r = stage(in, full);
    if (r < 0)
        return refuse(in, r);
    if (in->n_stages < INTAKE_STAGES)
        return 0;
    in->ready = ready;
    return 1;
}

int intake_stage_rest(struct intake *in)
{
    const struct body *b = in->m->body;

    if (!b->staged)
        return 0;
    if (b->n_chunks > in->next_piece) {
        int r = stage(in, b->n_chunks - in->next_piece);
        if (r < 0)
            return r;
    }
    return in->n_stages > 0;
}

void intake_detach_stages(struct intake *in)
{
    for (size_t i = 0; i < in->n_stages; i++)
        in->stages[i]->in = NULL;
    in->n_stages = 0;
}

/* A unit that nobody waits for. */
struct unstage {
    struct spool_op op;
    struct spool_change change;
};

static void unstaged(struct spool_op *op)
{
    free(CONTAINER_OF(op, struct unstage, op));
}

/* Without memory the pieces stay until the spool sweeps them at its next start. */
void intake_drop_staged(struct intake *in)
{
    struct port_spool *spool = in->e->ports.spool;
    struct unstage *u = calloc(1, sizeof(*u));

    if (!u)
        return;
    u->change = (struct spool_change){ .type = SPOOL_UNSTAGE, .id = in->m->id };
    list_init(&u->op.link);
    u->op.changes = &u->change;
    u->op.n_changes = 1;
    u->op.done = unstaged;
    spool->submit(spool, &u->op);
}

/* ---- what hooks see ---- */

static int read_piece(struct intake *in, uint32_t number, struct str *ret)
{
    struct port_spool *spool = in->e->ports.spool;
    const struct body *b = in->m->body;
    const struct body_chunk *c = b->first;

    if (number > 0 && b->staged) {
        int r = spool->read_chunk(spool, &in->m->id, number, &in->piece);
        if (r == 0)
            *ret = buf_str(&in->piece);
        return r;
    }
    for (uint32_t i = 0; i < number; i++)
        c = c->next;
    *ret = str_make(c->data, c->n);
    return 0;
}

/* The cursor is the number of the next piece. */
static int read_body(const struct message_view *v, uint64_t *cursor, struct str *ret)
{
    struct intake *in = v->content;
    const struct body *b = in->m->body;

    for (uint64_t number = *cursor; number < b->n_chunks; number++) {
        uint64_t start = number ? b->first->n + (number - 1) * BODY_CHUNK : 0;
        struct str piece = STR_NONE;
        int r = read_piece(in, (uint32_t)number, &piece);
        if (r < 0)
            return r;
        if (start + piece.n <= in->content_at)
            continue;
        if (start < in->content_at)
            piece = str_from(piece, (size_t)(in->content_at - start));
        *cursor = number + 1;
        *ret = piece;
        return 1;
    }
    return 0;
}

int intake_read_headers(struct intake *in)
{
    const struct body_chunk *first = in->m->body->first;
    struct str bytes = first ? str_from(str_make(first->data, first->n), in->trace_n) : STR_NONE;
    int r = headers_parse(&in->arena, bytes, &in->headers);

    if (r < 0)
        return r;
    in->headers.by = in->snapshot->settings->hostname;
    in->headers.utf8 = (in->m->flags & MESSAGE_SMTPUTF8) != 0;
    /* The LF of the empty line may be the first octet of the next piece. */
    struct str rest = str_from(bytes, in->headers.length);
    in->content_at = in->trace_n + in->headers.length + (str_starts(rest, STR("\r")) ? 2 : 0);
    in->view.headers = &in->headers;
    in->view.read_body = read_body;
    in->view.content = in;
    in->view.size = in->m->body->size;
    in->view.body_size = in->view.size - MIN(in->view.size, in->content_at);
    return 0;
}

/* For the record in the spool. */
static int keep_changes(struct intake *in)
{
    buf_clear(&in->records);
    int r = changes_encode(in->headers.changes, in->headers.n_changes, 0, &in->records);
    struct str kept = arena_str(&in->m->arena, buf_str(&in->records));

    buf_clear(&in->records);
    if (r < 0 || !kept.p)
        return -ENOMEM;
    in->m->changes = kept;
    return 0;
}

static void log_changes(struct intake *in)
{
    struct header_changes c = { .list = in->headers.changes, .n = in->headers.n_changes };
    char id[MSGID_TEXT];

    if (c.n > CHANGES_KEPT) {
        c.left_out = (uint32_t)c.n - CHANGES_KEPT;
        c.n = CHANGES_KEPT;
    }
    changes_text(&c, &in->records);
    engine_event(in->e,
                 EVENT(EVENT_INFO, "headers_changed", F_STRZ("id", msgid_text(&in->m->id, id)),
                       F_INT("session", (int64_t)in->session_id),
                       F_INT("changes", (int64_t)in->headers.n_changes),
                       F_STR("what", buf_str(&in->records))));
    buf_clear(&in->records);
}

int intake_apply_edits(struct intake *in)
{
    struct message *m = in->m;
    uint64_t skip = in->trace_n + in->headers.length;

    /* Our Received was written before the `data` hook has set the priority that it names (RFC 6710 §4.1). */
    bool retrace = in->trace_n && m->times.priority != in->traced_priority;
    int r = 0;

    if (!in->headers.changed && !retrace)
        return 0;
    if (retrace)
        r = write_trace(in);
    else if (in->trace_n)
        r = buf_add(&in->records, m->body->first->data, in->trace_n);
    if (r == 0)
        r = headers_write(&in->headers, &in->records);
    struct body *edited = r == 0 ? body_with_head(m->body, buf_str(&in->records), skip) : NULL;
    if (!edited)
        return -ENOMEM;
    in->content_at = in->content_at - skip + buf_len(&in->records);
    buf_clear(&in->records);
    in->original = m->body;
    m->body = edited;
    in->view.size = edited->size;
    if (!in->headers.changed)
        return 0;
    r = keep_changes(in);
    if (r == 0)
        log_changes(in);
    return r;
}

/* ---- TLS-Required ---- */

/* RFC 8689 section 3: one field, and "No" is all that it may say. What is there twice, or says something else, asks
 * for nothing: then the domain's own policy holds. */
static bool says_no(struct intake *in)
{
    const struct header_field *f = headers_get(&in->headers, str_of(tls_required), 0);

    return f && headers_count(&in->headers, str_of(tls_required)) == 1 &&
           str_caseeq(str_trim(headers_unfold(&in->arena, f->value)), STR("No"));
}

/* Beside REQUIRETLS the field means nothing (section 4.1). */
int intake_read_tls_required(struct intake *in)
{
    if (in->m->flags & MESSAGE_REQUIRETLS || in->own ||
        (!in->scan.tls_required && !in->headers.changed))
        return 0;
    int r = in->view.headers ? 0 : intake_read_headers(in);
    if (r == 0 && says_no(in))
        in->m->flags |= MESSAGE_TLS_OPTIONAL;
    return r;
}
