/* control_lookup.c - messages and recipients in the spool. Layer: daemon. Interface: control_lookup.h. */
#include "daemon/control_lookup.h"

#include "mail/history.h"

enum { PAGE_DEFAULT = 100 };

/* ---- reading ---------------------------------------------------------------------------------- */

void found_init(struct found *f)
{
    *f = (struct found){ 0 };
    arena_init(&f->arena, 0);
    buf_init(&f->bytes, 0);
}

void found_done(struct found *f)
{
    message_unref(f->message);
    recipient_done(&f->recipient);
    arena_done(&f->arena);
    buf_done(&f->bytes);
}

int control_find_message(struct port_spool *spool, const struct msgid *id, struct found *f)
{
    int e;

    if (f->message && msgid_cmp(&f->id, id) == 0)
        return 0;
    f->message = message_unref(f->message);
    e = spool->read_message(spool, id, &f->bytes);
    if (e == 0)
        e = message_decode(id, buf_str(&f->bytes), &f->message);
    f->id = *id;
    return e;
}

int control_find_recipient(struct port_spool *spool, const struct msgid *id, uint32_t n,
                           struct spool_entry *entry, struct found *f)
{
    int e;

    recipient_done(&f->recipient);
    f->recipient = (struct recipient){ 0 };
    arena_reset(&f->arena);
    e = spool->read_recipient(spool, id, n, entry, &f->bytes);
    if (e == 0)
        e = recipient_decode(&f->arena, n, buf_str(&f->bytes), &f->recipient);
    return e;
}

const char *control_class_name(enum spool_class c)
{
    switch (c) {
    case SPOOL_SCHEDULED: return "scheduled";
    case SPOOL_WAITING: return "waiting";
    case SPOOL_HELD: return "held";
    }
    return "unknown";
}

bool control_page_arguments(struct control_call *c, bool in_queue, uint64_t *ret_limit,
                            struct control_cursor *ret_after, bool *ret_from_start)
{
    struct str after = control_request_arg(&c->request, "after");

    if (!control_request_number(&c->request, "limit", CONTROL_PAGE_MAX, PAGE_DEFAULT, ret_limit) ||
        !*ret_limit) {
        control_error(c, 400, "bad_argument", "'limit' must be a number from 1 to %d",
                      CONTROL_PAGE_MAX);
        return false;
    }
    *ret_from_start = str_empty(after);
    if (!*ret_from_start && !control_cursor_parse(after, in_queue, ret_after)) {
        control_error(c, 400, "bad_argument",
                      "'after' must be the 'next' of an answer to the same question");
        return false;
    }
    return true;
}

bool control_message_id(struct control_call *c, struct msgid *ret)
{
    if (msgid_parse(c->request.segment[2], ret) == 0)
        return true;
    control_error(c, 400, "bad_id",
                  "'" STR_FMT "' is no id of a message: it has 26 letters and "
                  "digits",
                  STR_ARG(str_first(c->request.segment[2], 64)));
    return false;
}

json_t *control_recipient_json(const struct spool_entry *entry, const struct recipient *r)
{
    struct buf route;

    buf_init(&route, 0);
    if (r->route)
        route_describe(r->route, &route);
    json_t *o = json_pack(
        "{s:I, s:o, s:o, s:s, s:s, s:o, s:I, s:o, s:o, s:o, s:b, s:b, s:o, s:o, s:o}", "n",
        (json_int_t)r->n, "address", control_text(r->address.text), "queue",
        control_text(str_of(entry->queue)), "state", control_class_name(entry->class_), "detail",
        recipient_state_name(r->state), "due", control_time(entry->due_ms), "attempts",
        (json_int_t)r->attempts, "route", control_text_or_null(buf_str(&route)), "reason",
        control_text_or_null(r->route ? r->route->reason : STR_NONE), "decided_by",
        control_text_or_null(r->decided_by), "host_failure", r->host_failure, "warned", r->warned,
        "last_attempt", control_time(r->last_ms), "last_host", control_text_or_null(r->last_host),
        "last_reply", control_text_or_null(r->last_reply));
    buf_done(&route);
    return o;
}

json_t *control_entry_json(struct port_spool *spool, const struct msgid *id, uint32_t n,
                           struct found *f)
{
    struct spool_entry entry;
    char text[MSGID_TEXT];

    if (control_find_message(spool, id, f) < 0 ||
        control_find_recipient(spool, id, n, &entry, f) < 0)
        return NULL;
    const struct recipient *r = &f->recipient;
    return json_pack(
        "{s:s, s:I, s:o, s:s, s:o, s:o, s:o, s:I, s:o, s:I, s:o, s:b}", "id", msgid_text(id, text),
        "n", (json_int_t)n, "queue", control_text(str_of(entry.queue)), "state",
        control_class_name(entry.class_), "due", control_time(entry.due_ms), "sender",
        control_text(f->message->sender.text), "recipient", control_text(r->address.text), "size",
        (json_int_t)f->message->size, "received", control_time(f->message->received_ms), "attempts",
        (json_int_t)r->attempts, "last_reply", control_text_or_null(r->last_reply), "requiretls",
        (f->message->flags & MESSAGE_REQUIRETLS) != 0);
}

json_t *control_changes_json(const struct header_change *list, size_t n)
{
    json_t *array = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(
            array, json_pack("{s:s, s:o, s:I, s:o}", "op", header_op_name(list[i].op), "name",
                             control_text(list[i].name), "count", (json_int_t)list[i].n, "place",
                             control_text_or_null(list[i].place)));
    return array;
}

/* Adds what policies changed of the header. */
static json_t *with_changes(json_t *o, const struct message *m)
{
    struct header_changes c = { 0 };
    struct arena arena;

    arena_init(&arena, 0);
    if (o && changes_decode(&arena, m->changes, &c) == 0) {
        json_object_set_new(o, "changes", control_changes_json(c.list, c.n));
        json_object_set_new(o, "changes_left_out", json_integer(c.left_out));
    }
    arena_done(&arena);
    return o;
}

/* What its sender said of time and rank; what an import takes back. */
static void add_times(json_t *o, const struct message_times *t)
{
    json_t *by = json_null();

    if (t->by != SMTP_BY_NONE)
        by = json_pack("{s:s, s:o, s:b}", "mode", t->by == SMTP_BY_RETURN ? "return" : "notify",
                       "at", control_time(t->by_ms), "trace", t->by_trace);
    json_object_set_new(o, "deliver_by", by);
    json_object_set_new(o, "hold_until", control_time(t->hold_ms));
    json_object_set_new(o, "hold_for", t->hold_s ? json_integer(t->hold_s) : json_null());
    json_object_set_new(o, "priority", json_integer(t->priority));
}

json_t *control_message_json(const struct message *m)
{
    char id[MSGID_TEXT], client[NET_ADDR_TEXT];

    json_t *o = json_pack(
        "{s:s, s:o, s:I, s:o, s:I, s:o, s:o, s:o, s:o, s:b, s:b, s:b, s:b, s:b, s:o, s:b, "
        "s:b}",
        "id", msgid_text(&m->id, id), "sender", control_text(m->sender.text), "size",
        (json_int_t)m->size, "received", control_time(m->received_ms), "recipients_at_first",
        (json_int_t)m->n_recipients, "client",
        control_text_or_null(str_of(net_addr_text(&m->client, client))), "helo",
        control_text_or_null(m->helo), "identity", control_text_or_null(m->identity), "service",
        control_text_or_null(m->service), "tls", m->client_tls, "eight_bit",
        (m->flags & MESSAGE_8BIT) != 0, "binary", (m->flags & MESSAGE_BINARY) != 0, "smtputf8",
        (m->flags & MESSAGE_SMTPUTF8) != 0, "notification", (m->flags & MESSAGE_DSN) != 0, "envid",
        control_text_or_null(m->envid), "requiretls", (m->flags & MESSAGE_REQUIRETLS) != 0,
        "tls_optional", (m->flags & MESSAGE_TLS_OPTIONAL) != 0);
    if (o)
        add_times(o, &m->times);
    return with_changes(o, m);
}

int control_list_recipients(struct port_spool *spool, const struct msgid *id, bool from_start,
                            uint32_t after, size_t limit, struct listing *l, struct buf *scratch)
{
    int e, n;

    if (from_start) {
        e = spool->read_recipient(spool, id, 0, &l->entries[0], scratch);
        if (e == 0)
            l->n = 1;
        else if (e != -ENOENT)
            return e;
        after = 0;
    }
    if (l->n == limit)
        n = 0;
    else
        n = spool->scan_entries(spool, id, after, l->entries + l->n, limit - l->n);
    if (n < 0)
        return n;
    for (; n > 0 && msgid_cmp(&l->entries[l->n].id, id) == 0; n--)
        l->n++;
    l->more = l->n == limit;
    if (l->n)
        l->last = (struct control_cursor){ .class_ = -1, .id = *id, .n = l->entries[l->n - 1].n };
    return 0;
}

void control_no_such_message(struct control_call *c, int e)
{
    if (e == -ENOENT)
        control_error(c, 404, "no_such_message",
                      "there is no message " STR_FMT ": it has been delivered, or never was",
                      STR_ARG(c->request.segment[2]));
    else
        control_errno(c, e);
}

/* ---- the record of attempts -------------------------------------------------------------------- */

static json_t *try_json(const struct history_try *t)
{
    char enhanced[16];

    smtp_enhanced_text(t->reply.enhanced, enhanced);
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "host", control_text_or_null(t->host), "tls",
                     control_text_or_null(t->tls), "stage", control_text_or_null(t->stage), "code",
                     t->reply.code ? json_integer(t->reply.code) : json_null(), "enhanced",
                     control_text_or_null(str_trim(str_of(enhanced))), "text",
                     control_text_or_null(t->reply.text));
}

static json_t *attempt_json(const struct history_attempt *a)
{
    json_t *tries = json_array();

    for (size_t i = 0; i < a->n_tries; i++)
        json_array_append_new(tries, try_json(&a->tries[i]));
    return json_pack("{s:I, s:o, s:I, s:s, s:o, s:o}", "number", (json_int_t)a->number, "time",
                     control_time(a->at_ms), "took_ms", (json_int_t)a->took_ms, "outcome",
                     history_fate_name(a->fate), "decided_by", control_text_or_null(a->decided_by),
                     "tries", tries);
}

static json_t *plan_json(const struct history_plan *p)
{
    json_t *hosts, *discarded;

    if (!p->at_ms)
        return json_null();
    hosts = json_array();
    discarded = json_array();
    for (size_t i = 0; i < p->n_hops; i++)
        json_array_append_new(hosts, json_pack("{s:o, s:o}", "host", control_text(p->hops[i].host),
                                               "preference",
                                               p->hops[i].preference == HISTORY_NO_PREFERENCE
                                                   ? json_null()
                                                   : json_integer(p->hops[i].preference)));
    for (size_t i = 0; i < p->n_discarded; i++)
        json_array_append_new(discarded,
                              json_pack("{s:o, s:o}", "what", control_text(p->discarded[i].what),
                                        "reason", control_text(p->discarded[i].reason)));
    return json_pack("{s:o, s:o, s:o}", "time", control_time(p->at_ms), "hosts", hosts, "discarded",
                     discarded);
}

/* One that cannot be read (of a later program, damaged) is told like none. */
json_t *control_history_json(struct str history)
{
    struct history h = { 0 };
    struct arena a;

    arena_init(&a, 0);
    if (history_decode(&a, history, &h) < 0)
        h = (struct history){ 0 };
    json_t *attempts = json_array();
    for (size_t i = 0; i < h.n; i++)
        json_array_append_new(attempts, attempt_json(&h.attempts[i]));
    json_t *o = json_pack("{s:o, s:I, s:o}", "attempts", attempts, "left_out",
                          (json_int_t)h.left_out, "plan", plan_json(&h.plan));
    arena_done(&a);
    return o;
}
