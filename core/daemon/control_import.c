/* control_import.c - a message that is handed in: POST /v1/messages.
 *
 * Layer: daemon, main thread. Interface: control_call.h. The body is the envelope, a JSON object in one line,
 * and behind its newline the message as it is. The line is gathered here, at most ENVELOPE_MAX octets; the
 * content goes to a worker piece by piece: while the worker has one, nothing more is read from the
 * client. So what a large message needs is one piece here, and there what an SMTP session would need.
 *
 * Whoever goes first, the client or the message, the struct is freed by the last answer of the worker.
 */
#include <microhttpd.h>

#include "daemon/control_call.h"
#include "engine/import.h"
#include "mail/address.h"
#include "proto/smtp_syntax.h"

enum {
    ENVELOPE_MAX = 4 * 1024 * 1024,
    RECIPIENTS_MAX = 20000,
    LINE_MAX_OCTETS = 1000,    /* of helo, identity, service */
    IMPORTS_MAX = 16,          /* at once */
    COMMIT_WAIT_MS = 50 * 1000 /* its policies may wait for somebody, too */
};

struct import_call {
    struct list link;          /* imports */
    struct control_work work;  /* of the end */
    struct control_call *call; /* NULL: it has gone */
    struct router *router;
    struct import import;
    struct arena arena;
    int worker;
    struct buf line;  /* of the envelope, until it is whole */
    struct buf piece; /* that the worker has */
    bool begun;       /* the worker knows it */
    bool out;         /* a step is under way */
    bool answered, finishing;
    char last;        /* octet of the content */
    bool binary_body; /* the header block of a binary message is over */
    uint64_t column;  /* octets of the line so far */
    uint64_t at;      /* octets of content so far */
    uint64_t rows;    /* line feeds among them */
};

/* The main thread's. */
static struct list imports;
static int n_imports, next_worker;
static bool ending; /* the engines have gone: no step comes back */

/* ---- life ------------------------------------------------------------------------------------- */

static void import_free(struct import_call *m)
{
    n_imports--;
    list_remove(&m->link);
    buf_done(&m->line);
    buf_done(&m->piece);
    arena_done(&m->arena);
    free(m);
}

static void step(struct import_call *m, enum import_step which)
{
    m->out = true;
    import_post(m->router->workers[0]->ports.workers, m->worker, &m->import, which);
}

/* Nobody needs it any more. */
static void drop(struct import_call *m)
{
    m->call = NULL;
    if (m->finishing || (m->out && !ending))
        return; /* when the step is back */
    if (m->begun && !ending)
        step(m, IMPORT_ABORT);
    else
        import_free(m);
}

void control_imports_begin(void)
{
    list_init(&imports);
    n_imports = 0;
    ending = false;
}

void control_imports_end(void)
{
    ending = true;
    LIST_FOREACH(it, &imports)
    {
        struct import_call *m = LIST_ENTRY(it, struct import_call, link);
        if (m->finishing)
            continue; /* it is among the works */
        if (!m->call)
            import_free(m);
        else if (m->call->suspended)
            control_errno(m->call, -ESHUTDOWN);
    }
}

void control_import_left(struct control_call *c)
{
    struct import_call *m = c->import;

    c->import = NULL;
    if (m)
        drop(m);
}

/* The call is answered; what still comes of the body is dropped. */
PRINTF_LIKE(4, 5)
static void refuse(struct import_call *m, unsigned status, const char *code, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    for (char *p = text; *p; p++) /* what is quoted goes to a terminal */
        if ((unsigned char)*p < ' ' || *p == 127)
            *p = '?';
    m->answered = true;
    control_error(m->call, status, code, "%s", text);
}

static void refuse_errno(struct import_call *m, int error)
{
    m->answered = true;
    if (error == -ENOMEM)
        control_error(m->call, 507, "no_space",
                      "the router holds as many messages in memory as it may; try again later");
    else
        control_errno(m->call, error);
}

/* ---- the envelope ------------------------------------------------------------------------------ */

/* A text of the object; false: it is there and no string (the call has been answered). */
static bool text_of(struct import_call *m, const json_t *o, const char *name, struct str *ret)
{
    const json_t *value = json_object_get(o, name);

    *ret = STR_NONE;
    if (!value || json_is_null(value))
        return true;
    if (!json_is_string(value)) {
        refuse(m, 400, "bad_envelope", "'%s' must be a string", name);
        return false;
    }
    *ret = arena_str(&m->arena, str_make(json_string_value(value), json_string_length(value)));
    if (ret->p)
        return true;
    refuse_errno(m, -ENOMEM);
    return false;
}

static bool address_of(struct import_call *m, const json_t *o, const char *name, bool null_is_fine,
                       struct address *ret)
{
    struct str text;

    if (!text_of(m, o, name, &text))
        return false;
    if (!json_is_string(json_object_get(o, name))) {
        refuse(m, 400, "bad_envelope", "'%s' is missing", name);
        return false;
    }
    if (text.n == 0 && null_is_fine)
        text = STR("");
    int e = text.n || null_is_fine ? address_parse(&m->arena, text, ret) : -EINVAL;
    if (e == 0)
        return true;
    if (e == -ENOMEM)
        refuse_errno(m, e);
    else
        refuse(m, 400, "bad_envelope", "'%s': '" STR_FMT "' is no address", name,
               STR_ARG(str_first(text, 200)));
    return false;
}

/* One line, which is shown and logged as it is. False: the call has been answered. */
static bool line_of(struct import_call *m, const json_t *o, const char *name, struct str *ret)
{
    if (!text_of(m, o, name, ret))
        return false;
    bool ok = ret->n <= LINE_MAX_OCTETS;
    for (size_t i = 0; ok && i < ret->n; i++)
        ok = (unsigned char)ret->p[i] >= ' ' && ret->p[i] != 127;
    if (!ok)
        refuse(m, 400, "bad_envelope",
               "'%s' must be one line of at most %d octets, without control characters", name,
               LINE_MAX_OCTETS);
    return ok;
}

/* As xtext, which is how senders give it; empty: none. */
static struct str xtext(struct arena *a, struct str s)
{
    size_t size = s.n * 3 + 1;
    char *text = s.n ? arena_alloc(a, size) : NULL;
    ptrdiff_t n = text ? smtp_xtext_encode(s, text, size) : 0;

    return text && n > 0 ? str_make(text, (size_t)n) : STR_NONE;
}

/* ["success", "delay"]. */
static bool notify_of(struct import_call *m, const json_t *o, uint8_t *ret)
{
    static const struct {
        const char *name;
        uint8_t bit;
    } names[] = { { "never", SMTP_NOTIFY_NEVER },
                  { "success", SMTP_NOTIFY_SUCCESS },
                  { "failure", SMTP_NOTIFY_FAILURE },
                  { "delay", SMTP_NOTIFY_DELAY } };
    const json_t *list = json_object_get(o, "notify"), *value;
    bool ok = !list || json_is_null(list) || json_is_array(list);
    size_t i;

    *ret = 0;
    json_array_foreach(list, i, value)
    {
        const char *text = json_string_value(value);
        uint8_t bit = 0;
        for (size_t k = 0; text && k < ARRAY_LEN(names); k++)
            if (strcmp(text, names[k].name) == 0)
                bit = names[k].bit;
        ok &= bit != 0;
        *ret |= bit;
    }
    if (ok && (!(*ret & SMTP_NOTIFY_NEVER) || *ret == SMTP_NOTIFY_NEVER))
        return true;
    refuse(m, 400, "bad_envelope",
           "'notify' must be an array of \"success\", \"failure\" and \"delay\", or of \"never\" "
           "alone");
    return false;
}

static bool recipient_of(struct import_call *m, const json_t *o, struct import_recipient *ret)
{
    struct str orcpt, type;

    if (!json_is_object(o)) {
        refuse(m, 400, "bad_envelope", "a recipient must be an object with an 'address'");
        return false;
    }
    if (!address_of(m, o, "address", false, &ret->address) || !notify_of(m, o, &ret->dsn.notify) ||
        !text_of(m, o, "orcpt", &orcpt))
        return false;
    if (orcpt.n == 0)
        return true;
    /* What is sent to other hosts goes by the same rules as what came from them. */
    bool ok = str_cut(&orcpt, ';', &type);
    if (ok) {
        struct str address = str_is_ascii(orcpt) ? xtext(&m->arena, orcpt) : orcpt;
        struct str value =
            arena_printf(&m->arena, STR_FMT ";" STR_FMT, STR_ARG(type), STR_ARG(address));
        ok = smtp_dsn_rcpt_param(STR("ORCPT"), value, true, &ret->dsn) == 0;
    }
    if (!ok)
        refuse(m, 400, "bad_envelope",
               "'orcpt' must be such as rfc822;user@example.com, of at most %d octets",
               SMTP_MAX_ORCPT);
    return ok;
}

static bool recipients_of(struct import_call *m, const json_t *o)
{
    const json_t *list = json_object_get(o, "recipients"), *value;
    size_t n = json_array_size(list), i;
    struct import_recipient *all;

    if (n == 0 || n > RECIPIENTS_MAX) {
        refuse(m, 400, "bad_envelope", "'recipients' must be an array of 1 to %d recipients",
               RECIPIENTS_MAX);
        return false;
    }
    all = ARENA_ARRAY(&m->arena, struct import_recipient, n);
    if (!all) {
        refuse_errno(m, -ENOMEM);
        return false;
    }
    json_array_foreach(list, i, value) if (!recipient_of(m, value, &all[i])) return false;
    m->import.recipients = all;
    m->import.n = n;
    return true;
}

static bool dsn_of(struct import_call *m, const json_t *o)
{
    struct str ret, envid;

    if (!text_of(m, o, "ret", &ret) || !text_of(m, o, "envid", &envid))
        return false;
    if (ret.p && !str_eq(ret, STR("full")) && !str_eq(ret, STR("hdrs"))) {
        refuse(m, 400, "bad_envelope", "'ret' must be \"full\" or \"hdrs\"");
        return false;
    }
    m->import.dsn.ret = !ret.p                     ? SMTP_RET_NONE
                        : str_eq(ret, STR("full")) ? SMTP_RET_FULL
                                                   : SMTP_RET_HDRS;
    if (envid.n == 0 ||
        smtp_dsn_mail_param(STR("ENVID"), xtext(&m->arena, envid), &m->import.dsn) == 0)
        return true;
    refuse(m, 400, "bad_envelope", "'envid' must have at most %d octets as xtext (RFC 3461)",
           SMTP_MAX_ENVID);
    return false;
}

static bool change_of(struct import_call *m, const json_t *o, struct header_change *ret)
{
    json_int_t n = json_integer_value(json_object_get(o, "count"));
    struct str op;

    if (!text_of(m, o, "op", &op) || !line_of(m, o, "name", &ret->name) ||
        !line_of(m, o, "place", &ret->place))
        return false;
    if (header_op_parse(op, &ret->op) && ret->name.n && n >= 1 && n <= HEADERS_MAX_FIELDS) {
        ret->n = (uint32_t)n;
        return true;
    }
    refuse(m, 400, "bad_envelope",
           "'changes' must be an array of changes such as { \"op\": \"removed\", \"name\": "
           "\"X-Mailer\", \"count\": 1, \"place\": \"policies/a.lua:3\" }");
    return false;
}

/* What policies did to its header when it came: for people, who look at it. */
static bool changes_of(struct import_call *m, const json_t *o)
{
    const json_t *list = json_object_get(o, "changes"), *value;
    struct header_change all[CHANGES_KEPT] = { { .n = 0 } };
    size_t n = json_array_size(list), i;
    json_int_t left_out = json_integer_value(json_object_get(o, "changes_left_out"));
    struct buf record;

    if (n > CHANGES_KEPT || left_out < 0 || left_out > HEADERS_MAX_CHANGES) {
        refuse(m, 400, "bad_envelope", "'changes' must have at most %d entries", CHANGES_KEPT);
        return false;
    }
    json_array_foreach(list, i, value) if (!change_of(m, value, &all[i])) return false;
    buf_init(&record, 0);
    int e = changes_encode(all, n, (uint32_t)left_out, &record);
    m->import.origin.changes = arena_str(&m->arena, buf_str(&record));
    buf_done(&record);
    if (e == 0 && (n == 0 || m->import.origin.changes.p))
        return true;
    refuse_errno(m, -ENOMEM);
    return false;
}

static bool moment_of(struct import_call *m, const json_t *o, const char *name, int64_t *ret_ms)
{
    struct str text;

    if (!text_of(m, o, name, &text))
        return false;
    if (text.n == 0 || smtp_date_time_parse(text, ret_ms) == 0)
        return true;
    refuse(m, 400, "bad_envelope", "'%s' must be a time such as 2026-12-01T07:30:00Z", name);
    return false;
}

static bool by_of(struct import_call *m, const json_t *o)
{
    struct message_times *t = &m->import.times;
    struct str mode = STR_NONE;

    if (!o || json_is_null(o))
        return true;
    if (!text_of(m, o, "mode", &mode) || !moment_of(m, o, "at", &t->by_ms))
        return false;
    t->by_trace = json_is_true(json_object_get(o, "trace"));
    t->by = str_eq(mode, STR("return"))   ? SMTP_BY_RETURN
            : str_eq(mode, STR("notify")) ? SMTP_BY_NOTIFY
                                          : SMTP_BY_NONE;
    if (t->by != SMTP_BY_NONE && t->by_ms)
        return true;
    refuse(m, 400, "bad_envelope",
           "'deliver_by' must have a 'mode', \"return\" or \"notify\", and a time 'at'");
    return false;
}

/* When it is to go. */
static bool times_of(struct import_call *m, const json_t *o)
{
    struct message_times *t = &m->import.times;
    json_int_t priority = json_integer_value(json_object_get(o, "priority"));
    json_int_t hold = json_integer_value(json_object_get(o, "hold_for"));

    if (!moment_of(m, o, "hold_until", &t->hold_ms) || !by_of(m, json_object_get(o, "deliver_by")))
        return false;
    if (priority < -SMTP_PRIORITY_MOST || priority > SMTP_PRIORITY_MOST) {
        refuse(m, 400, "bad_envelope", "'priority' must be a number from -%d to %d",
               SMTP_PRIORITY_MOST, SMTP_PRIORITY_MOST);
        return false;
    }
    t->priority = (int8_t)priority;
    t->hold_s = t->hold_ms && hold > 0 && hold <= SMTP_HOLD_MOST ? (uint32_t)hold : 0;
    return true;
}

/* What policies may want to know of who brought it at first. */
static bool origin_of(struct import_call *m, const json_t *o)
{
    struct intake_origin *origin = &m->import.origin;
    struct str client;

    if (!text_of(m, o, "client", &client) || !line_of(m, o, "helo", &origin->helo) ||
        !line_of(m, o, "identity", &origin->identity) ||
        !line_of(m, o, "service", &origin->service))
        return false;
    if (client.n && net_addr_parse(client, 0, &origin->client) < 0 &&
        net_addr_parse_ip(client, &origin->client) < 0) {
        refuse(m, 400, "bad_envelope", "'client' must be an address such as 192.0.2.7:4711");
        return false;
    }
    origin->tls = json_is_true(json_object_get(o, "tls"));
    return true;
}

static bool read_envelope(struct import_call *m)
{
    json_error_t error = { .line = 0 };
    struct str line = buf_str(&m->line);
    json_t *o = json_loadb(line.p, line.n, JSON_REJECT_DUPLICATES, &error);
    struct import *i = &m->import;

    if (!json_is_object(o)) {
        if (o)
            refuse(m, 400, "bad_envelope", "the envelope must be a JSON object");
        else
            refuse(m, 400, "bad_envelope", "the envelope is no JSON: octet %d: %s", error.position,
                   error.text);
        json_decref(o);
        return false;
    }
    i->eight_bit = json_is_true(json_object_get(o, "eight_bit"));
    i->binary = json_is_true(json_object_get(o, "binary"));
    i->smtputf8 = json_is_true(json_object_get(o, "smtputf8"));
    i->notification = json_is_true(json_object_get(o, "notification"));
    i->requiretls = json_is_true(json_object_get(o, "requiretls"));
    bool ok = address_of(m, o, "sender", true, &i->sender) && recipients_of(m, o) && dsn_of(m, o) &&
              times_of(m, o) && origin_of(m, o) && changes_of(m, o);
    json_decref(o);
    buf_done(&m->line);
    buf_init(&m->line, ENVELOPE_MAX);
    return ok;
}

/* ---- the content ------------------------------------------------------------------------------- */

PRINTF_LIKE(3, 4)
static int refuse_line(struct import_call *m, size_t octet, const char *fmt, ...)
{
    char what[200];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    refuse(m, 400, "bad_content", "line %llu of the message (octet %llu) has %s",
           (unsigned long long)m->rows + 1, (unsigned long long)m->at + octet + 1, what);
    return -1;
}

/* As from SMTP clients: lines end in CRLF, have no NUL and at most 998 octets; of binary mail that is so of its
 * header block. -1: the call has been answered. */
static int check_content(struct import_call *m, struct str s)
{
    for (size_t i = 0; i < s.n && !m->binary_body; i++) {
        char c = s.p[i];
        bool bare = (c == '\n') != (m->last == '\r') || c == '\0';
        if (bare)
            return refuse_line(m, i, "a bare CR, a bare LF or a NUL: lines end in CRLF");
        m->binary_body = m->import.binary && c == '\n' && m->column == 0;
        m->column = c == '\n' ? 0 : m->column + (c != '\r');
        if (m->column > SMTP_MAX_TEXT_LINE - 2)
            return refuse_line(m, i, "more than %d octets, which no line of a message may have",
                               SMTP_MAX_TEXT_LINE - 2);
        m->rows += c == '\n';
        m->last = c;
    }
    m->at += s.n;
    return 0;
}

static void back(struct engine *none, struct worker_message *message);

/* In the worker's thread. */
static void on_told(struct import *i)
{
    struct import_call *m = CONTAINER_OF(i, struct import_call, import);

    i->wm.run = back;
    router_tell(m->router, &i->wm);
}

static void answer(struct import_call *m)
{
    const struct import *i = &m->import;
    const struct smtp_reply *r = &i->reply;
    struct control_call *c = m->call;
    char id[MSGID_TEXT], enhanced[16];

    if (i->error) {
        refuse_errno(m, i->error);
        return;
    }
    m->answered = true;
    if (smtp_reply_positive(r))
        control_answer(
            c, 201,
            json_pack("{s:s, s:I}", "id", msgid_text(&i->id, id), "recipients", (json_int_t)i->n));
    else if (smtp_reply_permanent(r))
        control_error(c, 422, "refused", "%u %s" STR_FMT, r->code,
                      smtp_enhanced_text(r->enhanced, enhanced), STR_ARG(r->text));
    else
        control_error(c, r->code == 452 ? 507 : 503, r->code == 452 ? "no_space" : "not_now",
                      "%u %s" STR_FMT, r->code, smtp_enhanced_text(r->enhanced, enhanced),
                      STR_ARG(r->text));
}

/* All is told, or the daemon ends. */
static void finish(struct control_work *work)
{
    struct import_call *m = CONTAINER_OF(work, struct import_call, work);

    if (work->call && m->call)
        answer(m);
    if (m->call)
        m->call->import = NULL;
    import_free(m);
}

/* A step is back, in the main thread. */
static void back(struct engine *none, struct worker_message *message)
{
    struct import_call *m =
        CONTAINER_OF(CONTAINER_OF(message, struct import, wm), struct import_call, import);

    m->out = false;
    if (m->finishing) {
        control_work_done(&m->work);
        return;
    }
    if (!m->call && m->import.step == IMPORT_ABORT) {
        import_free(m);
        return;
    }
    if (!m->call) {
        step(m, IMPORT_ABORT);
        return;
    }
    if (m->import.error && !m->answered)
        refuse_errno(m, m->import.error);
    if (m->import.step == IMPORT_BEGIN && !m->answered && buf_len(&m->piece)) {
        m->import.piece = buf_str(&m->piece); /* what came together with the envelope */
        step(m, IMPORT_PIECE);
        return;
    }
    control_resume(m->call);
}

/* ---- the request ------------------------------------------------------------------------------- */

bool control_import_wants(const struct control_call *c)
{
    return str_eq(c->request.method, STR("POST")) &&
           control_request_path_is(&c->request, "v1/messages") && !c->request.error &&
           c->request.n_args == 0;
}

static struct import_call *import_new(struct control_call *c)
{
    struct import_call *m = calloc(1, sizeof(*m));

    if (!m)
        return NULL;
    n_imports++;
    m->call = c;
    m->router = c->router;
    m->worker = next_worker++ % c->router->n_workers;
    arena_init(&m->arena, 0);
    buf_init(&m->line, ENVELOPE_MAX);
    buf_init(&m->piece, 0);
    list_init(&m->work.link);
    list_init(&m->link);
    list_push(&imports, &m->link);
    m->import.arena = &m->arena;
    m->import.told = on_told;
    list_init(&m->import.link);
    return m;
}

/* What stands in front of the content. True: the line is whole, and *bytes stands behind it. */
static bool take_line(struct import_call *m, struct str *bytes)
{
    const char *lf = memchr(bytes->p, '\n', bytes->n);
    size_t n = lf ? (size_t)(lf - bytes->p) : bytes->n;

    if (buf_add(&m->line, bytes->p, n) < 0) {
        refuse(m, 413, "too_large", "the envelope has more than %d octets", ENVELOPE_MAX);
        return false;
    }
    *bytes = str_from(*bytes, lf ? n + 1 : n);
    return lf != NULL;
}

int control_import_data(struct control_call *c, struct str bytes)
{
    struct import_call *m = c->import;

    if (c->response) /* what still comes of the body is dropped, and begins nothing */
        return 0;
    if (!m && n_imports >= IMPORTS_MAX) {
        control_error(c, 409, "too_many", "%d messages are being handed in, which is the most",
                      IMPORTS_MAX);
        return 0;
    }
    if (!m)
        m = c->import = import_new(c);
    if (!m)
        control_errno(c, -ENOMEM);
    if (!m || m->answered)
        return 0;
    bool first = !m->begun;
    if (first && (!take_line(m, &bytes) || !read_envelope(m)))
        return 0;
    if (check_content(m, bytes) < 0)
        return 0;
    buf_clear(&m->piece);
    if (buf_add_str(&m->piece, bytes) < 0) {
        refuse_errno(m, -ENOMEM);
        return 0;
    }
    m->import.piece = buf_str(&m->piece);
    m->begun = true;
    step(m, first ? IMPORT_BEGIN : IMPORT_PIECE);
    return 1;
}

/* The body is complete, or there was none. */
void control_serve_import(struct control_call *c)
{
    struct import_call *m = c->import;

    if (c->response)
        return;
    if (!m || !m->begun || m->at == 0) {
        control_error(c, 400, "bad_body",
                      "the body must be the envelope, as JSON in one line, and the message");
        return;
    }
    if (m->last == '\r') {
        refuse(m, 400, "bad_content", "the message ends in a bare CR");
        return;
    }
    m->finishing = true;
    m->work.left = 1;
    m->work.finish = finish;
    control_wait(c, &m->work);
    control_wait_at_most(c, COMMIT_WAIT_MS);
    step(m, IMPORT_FINISH);
}
