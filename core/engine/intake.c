/* intake.c - one message on its way into the spool: its life, its steps and its commit.
 *
 * Layer: engine. Interface: intake.h; the map of the files: intake_internal.h.
 *
 * What is asked of others is the work of one call each and told on a later turn, so nothing here
 * calls the owner from inside of the owner's call. An intake whose session dies during its commit
 * stays, alone, until the spool has told how it went.
 */
#include "engine/intake_internal.h"

#include <stdio.h>

#include "engine/queue.h"
#include "proto/smtp_syntax.h"

/* ---- life ---- */

static void deliver_reply(struct later *l);
static void committed(struct spool_op *op);

/* False: out of memory. */
static bool keep(struct arena *a, struct str s, struct str *ret)
{
    *ret = s.n ? arena_str(a, s) : STR("");
    return ret->p != NULL;
}

static struct address keep_address(struct arena *a, const struct address *from)
{
    struct address to = { .text = arena_str(a, from->text) };

    to.local = str_first(to.text, from->local.n);
    if (str_ends(to.text, from->domain))
        to.domain = str_from(to.text, to.text.n - from->domain.n);
    else
        to.domain = arena_str(a, from->domain);
    return to;
}

static bool copied(const struct address *to, const struct address *from)
{
    return to->text.n == from->text.n && to->domain.n == from->domain.n;
}

/* What is no xtext is empty. False: out of memory. */
static bool keep_xtext(struct arena *a, struct str xtext, struct str *ret)
{
    char *text = xtext.n ? arena_alloc(a, xtext.n) : NULL;
    ptrdiff_t n = text ? smtp_xtext_decode(xtext, text, xtext.n) : 0;

    *ret = text && n >= 0 ? str_make(text, (size_t)n) : STR("");
    return text || xtext.n == 0;
}

/* "rfc822;a+2Bb@c" as "rfc822;a+b@c". What is no xtext (an address of type utf-8) stays. False: out of memory. */
static bool keep_orcpt(struct arena *a, struct str orcpt, struct str *ret)
{
    struct str address = orcpt, type, decoded;

    *ret = STR_NONE;
    if (orcpt.n == 0 || !str_cut(&address, ';', &type))
        return true;
    if (!keep_xtext(a, address, &decoded))
        return false;
    if (decoded.n == 0)
        decoded = address;
    *ret = arena_printf(a, STR_FMT ";" STR_FMT, STR_ARG(type), STR_ARG(decoded));
    return ret->p != NULL;
}

/* Who gave it to us. False: out of memory. */
static bool keep_names(struct message *m, struct str helo, struct str identity, struct str service)
{
    return keep(&m->arena, helo, &m->helo) && keep(&m->arena, identity, &m->identity) &&
           keep(&m->arena, service, &m->service);
}

/* False: out of memory. */
static bool describe(struct intake *in, const struct intake_source *src)
{
    const struct session_view *v = src->session;
    struct message *m = in->m;

    m->id = msgid_next(&in->e->ids, engine_wall(in->e));
    m->received_ms = engine_wall(in->e);
    m->flags = src->flags | (src->eight_bit ? MESSAGE_8BIT : 0) |
               (src->binary ? MESSAGE_BINARY : 0) | (src->smtputf8 ? MESSAGE_SMTPUTF8 : 0) |
               (src->requiretls ? MESSAGE_REQUIRETLS : 0);
    m->flags |= src->dsn.ret == SMTP_RET_FULL   ? MESSAGE_RET_FULL
                : src->dsn.ret == SMTP_RET_HDRS ? MESSAGE_RET_HDRS
                                                : 0;
    m->times = src->times;
    m->sender = keep_address(&m->arena, &src->sender);
    if (!copied(&m->sender, &src->sender))
        return false;
    if (!m->sender.text.p)
        m->sender.text = STR(""); /* of a notification: said in the log like any null sender */
    m->helo = m->identity = m->service = STR("");
    if (!keep_xtext(&m->arena, src->dsn.envid, &m->envid))
        return false;
    if (v) {
        in->session_id = v->id;
        m->client = *v->client;
        m->client_tls = v->tls;
        if (!keep_names(m, v->helo, v->identity, v->service))
            return false;
    }
    if (src->origin) {
        m->client = src->origin->client;
        m->client_tls = src->origin->tls;
        if (!keep_names(m, src->origin->helo, src->origin->identity, src->origin->service) ||
            !keep(&m->arena, src->origin->changes, &m->changes))
            return false;
    }
    in->view = (struct message_view){
        .key = engine_new_key(in->e),
        .id = m->id,
        .sender = &m->sender,
        .size = src->declared_size,
        .eight_bit = src->eight_bit,
        .binary = src->binary,
        .smtputf8 = src->smtputf8,
        .requiretls = src->requiretls,
        .received_ms = m->received_ms,
        .times = m->times,
        .priority = &m->times.priority,
        .client = m->client,
        .helo = m->helo,
        .identity = m->identity,
        .service = m->service,
    };
    return true;
}

static void intake_free(struct intake *in)
{
    struct hooks *hooks = in->snapshot->hooks;

    if (in->e) {
        in->e->intake_memory -= in->in_memory;
        in->e->intakes--;
        if (hooks->message_closed)
            hooks->message_closed(hooks, in->view.key);
    }
    for (size_t i = 0; i < in->n; i++)
        recipient_done(&in->recipients[i]);
    if (in->recipients != in->few)
        free(in->recipients);
    free(in->order);
    body_unref(in->original);
    message_unref(in->m);
    buf_done(&in->piece);
    buf_done(&in->records);
    arena_done(&in->arena);
    snapshot_unref(in->snapshot);
    free(in);
}

struct intake *intake_new(struct engine *e, const struct intake_source *src, void *owner)
{
    struct intake *in = calloc(1, sizeof(*in));

    if (!in)
        return NULL;
    in->m = message_new();
    if (!in->m) {
        free(in);
        return NULL;
    }
    in->e = e;
    in->session = src->session;
    in->own = !src->session && !src->origin;
    in->as_is = !src->session;
    in->has_each = src->each;
    in->prioritized = src->prioritized;
    in->said_priority = src->said_priority;
    in->snapshot = snapshot_ref(src->snapshot);
    in->owner = owner;
    in->started_ms = engine_now(e);
    in->recipients = in->few;
    in->cap = INTAKE_FEW;
    in->next_piece = 1;
    arena_init(&in->arena, 0);
    buf_init(&in->piece, 0);
    buf_init(&in->records, 0);
    later_init(&in->later, deliver_reply);
    list_init(&in->op.link);
    e->intakes++;
    if (!describe(in, src)) {
        intake_free(in);
        return NULL;
    }
    return in;
}

/* Nothing of it is, or will be, part of a message. */
static void drop(struct intake *in)
{
    bool anything = in->m->body && in->m->body->staged;

    intake_detach_stages(in);
    if (anything)
        intake_drop_staged(in);
    intake_free(in);
}

static void leave_alone(struct intake *in)
{
    in->session = NULL;
    in->done = NULL;
    in->next_alone = in->e->intakes_alone;
    in->at_alone = &in->e->intakes_alone;
    if (in->next_alone)
        in->next_alone->at_alone = &in->next_alone;
    in->e->intakes_alone = in;
    if (!in->e->sessions) /* engine_free: this one is too late to be forgotten with the others */
        intakes_forget(in->e);
}

static void not_alone(struct intake *in)
{
    if (!in->at_alone)
        return;
    *in->at_alone = in->next_alone;
    if (in->next_alone)
        in->next_alone->at_alone = in->at_alone;
    in->at_alone = NULL;
}

void intakes_forget(struct engine *e)
{
    while (e->intakes_alone) {
        struct intake *in = e->intakes_alone;
        not_alone(in);
        e->intake_memory -= in->in_memory;
        e->intakes--;
        in->e = NULL;
    }
}

void intake_abort(struct intake *in)
{
    if (!in)
        return;
    if (in->phase == INTAKE_COMMIT) {
        leave_alone(in);
        return;
    }
    if (in->call)
        in->snapshot->hooks->cancel(in->snapshot->hooks, in->call);
    list_remove(&in->later.link);
    drop(in);
}

/* ---- what the owner gives ---- */

static int grow(struct intake *in)
{
    size_t cap = in->cap * 4;
    struct recipient *more =
        realloc(in->recipients == in->few ? NULL : in->recipients, cap * sizeof(*more));

    if (!more)
        return -ENOMEM;
    if (in->recipients == in->few)
        memcpy(more, in->few, sizeof(in->few));
    in->recipients = more;
    in->cap = cap;
    return 0;
}

int intake_add_recipient(struct intake *in, const struct address *a,
                         const struct smtp_dsn_rcpt *dsn, struct str decided)
{
    CHECK(in->phase == INTAKE_OPEN && !in->m->body);
    if (in->n == in->cap && grow(in) < 0)
        return -ENOMEM;
    struct recipient r = {
        .n = (uint32_t)in->n,
        .address = keep_address(&in->arena, a),
        .policy = snapshot_fingerprint(in->snapshot),
        .notify = dsn ? dsn->notify : 0,
    };
    if (!copied(&r.address, a) || !keep(&in->arena, decided, &r.decided_by) ||
        (dsn && !keep_orcpt(&in->arena, dsn->orcpt, &r.orcpt)) || intake_each_added(in) < 0)
        return -ENOMEM;
    in->recipients[in->n++] = r;
    return 0;
}

size_t intake_recipients(const struct intake *in)
{
    return in->n;
}

const struct message_view *intake_view(struct intake *in)
{
    return &in->view;
}

const struct msgid *intake_id(const struct intake *in)
{
    return &in->m->id;
}

/* For as long as the spool may look at it, whoever goes away. */
static struct str keep_here(struct intake *in, struct str s)
{
    struct str copy = arena_str(&in->arena, s);

    if (!copy.p)
        in->error = -ENOMEM;
    return copy;
}

void intake_also(struct intake *in, const struct spool_change *changes, size_t n)
{
    struct spool_change *copy = ARENA_ARRAY(&in->arena, struct spool_change, n);

    if (!copy) {
        in->error = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        copy[i] = changes[i];
        CHECK(copy[i].type == SPOOL_PUT_RECIPIENT || copy[i].type == SPOOL_DELETE_RECIPIENT);
        if (copy[i].type != SPOOL_PUT_RECIPIENT)
            continue;
        copy[i].recipient.queue = keep_here(in, changes[i].recipient.queue);
        copy[i].recipient.record = keep_here(in, changes[i].recipient.record);
    }
    in->also = copy;
    in->n_also = n;
}

/* ---- ending without a commit ---- */

struct smtp_reply intake_error_reply(int error)
{
    if (error == -ENOSPC || error == -ENOMEM)
        return REPLY(452, ENH(4, 3, 1), "insufficient storage, try again later");
    return REPLY(451, ENH(4, 3, 0), "local error in processing");
}

/* The client's address for logs; dst has NET_ADDR_TEXT bytes. */
static struct str client_text(const struct intake *in, char *dst)
{
    return str_of(net_addr_ip_text(&in->m->client, dst));
}

static void log_refused(struct intake *in)
{
    char client[NET_ADDR_TEXT], id[MSGID_TEXT];

    if (in->own)
        return; /* whoever made it says so */
    COUNT(in->e, messages_rejected, 1);
    engine_event(
        in->e, EVENT(EVENT_INFO, "message_rejected", F_STRZ("id", msgid_text(&in->m->id, id)),
                     F_INT("session", (int64_t)in->session_id),
                     F_STR("client", client_text(in, client)), F_STR("sender", in->m->sender.text),
                     F_INT("recipients", (int64_t)(intake_all_refused(in) ? in->n_refused : in->n)),
                     F_INT("code", in->reply.code), F_STR("reply", in->reply.text)));
}

static void deliver_reply(struct later *l)
{
    struct intake *in = CONTAINER_OF(l, struct intake, later);

    if (in->reply.code >= 400)
        log_refused(in);
    in->done(in->owner, &in->reply);
    drop(in);
}

void intake_end(struct intake *in, struct smtp_reply reply)
{
    in->phase = INTAKE_ENDED;
    in->reply = reply;
    in->reply.text = arena_str(&in->arena, reply.text);
    engine_later(in->e, &in->later);
}

/* Room for the text: 26 characters and " queued". */
static struct str queued_text(const struct intake *in, char *dst, size_t size)
{
    char id[MSGID_TEXT];

    snprintf(dst, size, "%s queued", msgid_text(&in->m->id, id));
    return str_of(dst);
}

void intake_end_discarded(struct intake *in)
{
    char text[MSGID_TEXT + 8];

    intake_end(in, (struct smtp_reply){ 250, ENH(2, 0, 0), queued_text(in, text, sizeof(text)) });
}

void intake_log_discarded(struct intake *in, const struct recipient *r, struct str policy)
{
    char client[NET_ADDR_TEXT], id[MSGID_TEXT];

    COUNT(in->e, discarded, 1);
    engine_event(in->e, EVENT(EVENT_INFO, "discarded", F_STRZ("id", msgid_text(&in->m->id, id)),
                              F_INT("session", (int64_t)in->session_id),
                              F_STR("client", client_text(in, client)),
                              F_STR("sender", in->m->sender.text),
                              F_STR("recipient", r->address.text), F_STR("policy", policy)));
}

/* ---- finishing: loop, data hook ---- */

static void refuse_loop(struct intake *in)
{
    char client[NET_ADDR_TEXT], id[MSGID_TEXT];

    COUNT(in->e, loops, 1);
    engine_event(in->e,
                 EVENT(EVENT_WARN, "loop_detected", F_STRZ("id", msgid_text(&in->m->id, id)),
                       F_INT("session", (int64_t)in->session_id),
                       F_STR("client", client_text(in, client)),
                       F_STR("sender", in->m->sender.text), F_INT("received", in->scan.received)));
    intake_end(in, REPLY(554, ENH(5, 4, 6), "too many hops: this message loops"));
}

static void data_decided(struct intake *in, const struct hook_result *result)
{
    switch (result->verdict) {
    case VERDICT_FAILED: COUNT(in->e, hooks_failed, 1); /* fall through */
    case VERDICT_REJECT:
    case VERDICT_BOUNCE:
    case VERDICT_DEFER: intake_end(in, verdict_reply(result)); return;
    case VERDICT_DISCARD:
        for (size_t i = 0; i < in->n; i++)
            intake_log_discarded(in, &in->recipients[i], result->decided_by);
        intake_end_discarded(in);
        return;
    default: break;
    }
    int r = intake_apply_edits(in);
    if (r < 0)
        intake_end(in, intake_error_reply(r));
    else
        intake_route(in);
}

static void data_answered(void *owner, struct hook_result *result)
{
    struct intake *in = owner;

    in->call = NULL;
    data_decided(in, result);
}

static void ask_data(struct intake *in)
{
    struct hooks *hooks = in->snapshot->hooks;
    struct hook_result result;
    int answered = 1;

    in->phase = INTAKE_DATA;
    in->input = (struct hook_input){ .session = in->session, .message = &in->view };
    hook_result_init(&result);
    if (!in->as_is && hooks_have(hooks, HOOK_DATA))
        answered = hooks->run(hooks, HOOK_DATA, &in->input, &result, data_answered, in, &in->call);
    if (answered)
        data_decided(in, &result);
    hook_result_done(&result);
}

void intake_content_complete(struct intake *in)
{
    const struct settings *set = in->snapshot->settings;
    struct hooks *hooks = in->snapshot->hooks;
    bool hooked = hooks_have(hooks, HOOK_DATA) || hooks_have(hooks, HOOK_ROUTE);
    int r = in->error;

    if (r == 0 && !in->own && in->scan.received > set->limits.received_headers) {
        refuse_loop(in);
        return;
    }
    if (in->scan.octets > HEADERS_MAX_BYTES || in->scan.fields > HEADERS_MAX_FIELDS)
        r = -E2BIG;
    if (r == 0 && hooked)
        r = intake_read_headers(in);
    if (r == -E2BIG)
        intake_end(in, REPLY(552, ENH(5, 3, 4), "message header too large"));
    else if (r < 0)
        intake_end(in, intake_error_reply(r));
    else
        ask_data(in);
}

void intake_finish(struct intake *in, intake_done *done)
{
    CHECK(in->phase == INTAKE_OPEN);
    in->done = done;
    in->phase = INTAKE_STAGING;
    in->ready = NULL;
    if (in->n == 0) {
        intake_end_discarded(in);
        return;
    }
    int r = in->error ? in->error : intake_begin_content(in, false);
    if (r == 0)
        r = intake_stage_rest(in);
    if (r < 0)
        intake_end(in, intake_error_reply(r));
    else if (r == 0)
        intake_content_complete(in);
}

void intake_fail(struct intake *in, int error, intake_done *done)
{
    CHECK(in->phase == INTAKE_OPEN);
    in->done = done;
    in->ready = NULL;
    intake_end(in, intake_error_reply(error));
}

/* ---- the commit ---- */

/* When it is tried first. A failure is told at once, whatever its sender said of the message. One that is urgent stands
 * before others that came a while before it: queue.h. */
static int64_t first_due(const struct intake *in, const struct route *route, int64_t now)
{
    const struct message *m = in->m;

    if (route->kind == ROUTE_BOUNCE)
        return now;
    if (m->times.hold_ms > now) {
        int64_t open = route->kind == ROUTE_HOLD ? m->times.hold_ms
                                                 : engine_open_at(in->e, route, m->times.hold_ms);
        return MIN(open, message_return_at(m));
    }
    if (route->kind == ROUTE_HOLD)
        return now;
    int64_t due = engine_open_at(in->e, route, now);
    if (due > now)
        return MIN(due, message_return_at(m));
    return hours_given(&route->hours) ? due : due - queue_head_start(m);
}

/* Records go into one buffer, which moves while it grows: slices are made when all are in it. */
static int encode(struct intake *in)
{
    int64_t now = engine_wall(in->e);
    size_t at = 0;

    buf_clear(&in->records); /* the first octet is the message record's */
    if (!buf_room(&in->records, 512 + in->n * 256) || message_encode(in->m, &in->records) < 0)
        return -ENOMEM;
    in->changes[0].message.envelope.n = buf_len(&in->records);
    for (size_t i = 0; i < in->n; i++) {
        struct recipient *r = &in->recipients[i];
        struct spool_recipient *c = &in->changes[1 + i].recipient;
        size_t before = buf_len(&in->records);
        bool hold = r->route->kind == ROUTE_HOLD;
        r->state = hold ? RECIPIENT_WAITING : RECIPIENT_READY;
        r->due_ms = first_due(in, r->route, now);
        if (!r->decided_by.n)
            r->decided_by = STR("default");
        if (recipient_encode(r, &in->records) < 0)
            return -ENOMEM;
        *c = (struct spool_recipient){ .n = r->n,
                                       .queue = r->route->queue,
                                       .class_ = hold ? SPOOL_WAITING : SPOOL_SCHEDULED,
                                       .due_ms = r->due_ms,
                                       .size = in->m->size,
                                       .record.n = buf_len(&in->records) - before };
    }
    const char *p = buf_str(&in->records).p;
    in->changes[0].message.envelope.p = p;
    at = in->changes[0].message.envelope.n;
    for (size_t i = 0; i < in->n; i++) {
        in->changes[1 + i].recipient.record.p = p + at;
        at += in->changes[1 + i].recipient.record.n;
    }
    return 0;
}

static int prepare(struct intake *in)
{
    struct message *m = in->m;
    size_t n = 1 + in->n;
    int r = intake_read_tls_required(in);

    if (r == 0)
        r = intake_part_queues(in);
    if (r < 0)
        return r;
    m->size = m->body->size;
    m->n_chunks = m->body->n_chunks;
    m->n_recipients = (uint32_t)in->n;
    m->flags |= m->body->eight_bit ? MESSAGE_8BIT : 0;
    m->flags |= m->body->open_end ? MESSAGE_OPEN_END : 0;
    in->changes = ARENA_ARRAY(&in->arena, struct spool_change, n + in->n_also);
    if (!in->changes)
        return -ENOMEM;
    in->changes[0].type = SPOOL_PUT_MESSAGE;
    in->changes[0].id = m->id;
    in->changes[0].message.body = m->body;
    for (size_t i = 1; i < n; i++) {
        in->changes[i].type = SPOOL_PUT_RECIPIENT;
        in->changes[i].id = m->id;
    }
    r = encode(in);
    if (r < 0)
        return r;
    if (in->n_also)
        memcpy(in->changes + n, in->also, in->n_also * sizeof(*in->also));
    in->op.changes = in->changes;
    in->op.n_changes = n + in->n_also;
    in->op.done = committed;
    return 0;
}

void intake_commit(struct intake *in)
{
    struct port_spool *spool = in->e->ports.spool;
    int r = prepare(in);

    if (r < 0) {
        intake_end(in, intake_error_reply(r));
        return;
    }
    in->phase = INTAKE_COMMIT;
    spool->submit(spool, &in->op);
}

static struct event_field number_or_none(const char *name, bool there, int64_t n)
{
    return there ? F_INT(name, n) : F_STR(name, STR_NONE);
}

static void log_accepted(struct intake *in)
{
    const struct message *m = in->m;
    bool changed = m->times.priority != (in->prioritized ? in->said_priority : 0);
    char client[NET_ADDR_TEXT], id[MSGID_TEXT];

    COUNT(in->e, messages_accepted, 1);
    COUNT(in->e, recipients_accepted, in->n);
    COUNT(in->e, octets_accepted, m->size);
    engine_event(in->e, EVENT(EVENT_INFO, "message_accepted", F_STRZ("id", msgid_text(&m->id, id)),
                              F_INT("session", (int64_t)in->session_id),
                              F_STR("client", client_text(in, client)), F_STR("helo", m->helo),
                              F_STR("sender", m->sender.text), F_INT("size", (int64_t)m->size),
                              F_INT("recipients", (int64_t)in->n), F_BOOL("tls", m->client_tls),
                              F_STR("identity", m->identity.n ? m->identity : STR_NONE),
                              F_STRZ("tls_required", message_tls_required(m)),
                              number_or_none("mt_priority", in->prioritized, in->said_priority),
                              number_or_none("priority", changed, m->times.priority),
                              F_INT("took_ms", engine_now(in->e) - in->started_ms)));
}

static void accepted(struct intake *in)
{
    char text[MSGID_TEXT + 8];
    struct smtp_reply reply = { 250, ENH(2, 0, 0), queued_text(in, text, sizeof(text)) };

    if (!in->own)
        log_accepted(in);
    if (in->done)
        in->done(in->owner, &reply);
    queues_arrived(in->e, in->m, in->recipients, in->n);
    intake_free(in);
}

static void committed(struct spool_op *op)
{
    struct intake *in = CONTAINER_OF(op, struct intake, op);

    not_alone(in);
    if (!in->e) {
        intake_free(in);
        return;
    }
    if (op->result == 0) {
        accepted(in);
        return;
    }
    in->reply = intake_error_reply(op->result);
    log_refused(in);
    if (in->done)
        in->done(in->owner, &in->reply);
    drop(in);
}
