/* control_messages.c - messages in the queue: lists, one with all its recipients, its content, and what
 * operators do to it.
 *
 * Layer: daemon, main thread. Interface: control_call.h. Reads go to the spool; commands to the owners
 * of the queues in which the message's recipients wait.
 */
#include <microhttpd.h>

#include "base/table.h"
#include "daemon/control_call.h"
#include "daemon/control_lookup.h"
#include "engine/queue.h"

/* ---- reading ---------------------------------------------------------------------------------- */

static int list_all(struct port_spool *spool, const struct control_cursor *after, size_t limit,
                    struct listing *l)
{
    int n = spool->scan_entries(spool, after ? &after->id : NULL, after ? after->n : 0, l->entries,
                                limit);

    if (n < 0)
        return n;
    l->n = (size_t)n;
    l->more = l->n == limit;
    if (n)
        l->last = (struct control_cursor){ .class_ = -1,
                                           .id = l->entries[n - 1].id,
                                           .n = l->entries[n - 1].n };
    return 0;
}

static int list_queue(struct port_spool *spool, struct str queue,
                      const struct control_cursor *after, size_t limit, struct listing *l)
{
    struct spool_due *due = calloc(limit, sizeof(*due)), from;
    int e = due ? 0 : -ENOMEM;

    for (int k = after ? after->class_ : 0; e >= 0 && k <= SPOOL_HELD && l->n < limit; k++) {
        bool goes_on = after && k == after->class_;
        if (goes_on)
            from = (struct spool_due){ .id = after->id, .n = after->n, .due_ms = after->due_ms };
        e = spool->scan_due(spool, queue, (enum spool_class)k, goes_on ? &from : NULL, INT64_MAX,
                            due, limit - l->n);
        for (int i = 0; i < e; i++) {
            l->entries[l->n++] = (struct spool_entry){ .id = due[i].id,
                                                       .n = due[i].n,
                                                       .class_ = (enum spool_class)k,
                                                       .due_ms = due[i].due_ms };
            l->last = (struct control_cursor){
                .class_ = k, .due_ms = due[i].due_ms, .id = due[i].id, .n = due[i].n
            };
        }
    }
    l->more = l->n == limit;
    free(due);
    return e < 0 ? e : 0;
}

/* ---- a page of messages ----------------------------------------------------------------------- */

static void answer_page(struct control_call *c, const struct listing *l)
{
    struct port_spool *spool = c->router->ports.spool;
    json_t *list = json_array();
    char cursor[CONTROL_CURSOR_TEXT];
    struct found f;

    found_init(&f);
    for (size_t i = 0; i < l->n; i++) {
        json_t *entry = control_entry_json(spool, &l->entries[i].id, l->entries[i].n, &f);
        if (entry)
            json_array_append_new(list, entry);
    }
    found_done(&f);
    control_answer(
        c, 200,
        json_pack("{s:o, s:o}", "messages", list, "next",
                  l->more ? json_string(control_cursor_text(&l->last, cursor)) : json_null()));
}

void control_serve_messages(struct control_call *c)
{
    struct port_spool *spool = c->router->ports.spool;
    struct str queue = control_request_arg(&c->request, "queue");
    struct listing l = { 0 };
    struct control_cursor after;
    uint64_t limit;
    bool from_start;

    if (control_is_filtered(c)) {
        control_serve_filtered(c);
        return;
    }
    if (!control_page_arguments(c, queue.p, &limit, &after, &from_start))
        return;
    if (queue.p && (str_empty(queue) || queue.n > SPOOL_MAX_QUEUE_NAME)) {
        control_error(c, 400, "bad_name", "a name of a queue has 1 to %d bytes",
                      SPOOL_MAX_QUEUE_NAME);
        return;
    }
    l.entries = calloc(limit, sizeof(*l.entries));
    int e = -ENOMEM;
    if (l.entries && queue.p)
        e = list_queue(spool, queue, from_start ? NULL : &after, limit, &l);
    else if (l.entries)
        e = list_all(spool, from_start ? NULL : &after, limit, &l);
    if (e < 0)
        control_errno(c, e);
    else
        answer_page(c, &l);
    free(l.entries);
}

/* ---- one message ------------------------------------------------------------------------------ */

static void answer_message(struct control_call *c, const struct listing *l, struct found *f)
{
    struct port_spool *spool = c->router->ports.spool;
    char cursor[CONTROL_CURSOR_TEXT];
    json_t *answer = control_message_json(f->message), *list = json_array();

    for (size_t i = 0; i < l->n; i++) {
        struct spool_entry entry;
        if (control_find_recipient(spool, &l->entries[i].id, l->entries[i].n, &entry, f) == 0)
            json_array_append_new(list, control_recipient_json(&entry, &f->recipient));
    }
    json_object_set_new(answer, "recipients", list);
    json_object_set_new(answer, "next",
                        l->more ? json_string(control_cursor_text(&l->last, cursor)) : json_null());
    control_answer(c, 200, answer);
}

void control_serve_message(struct control_call *c)
{
    struct port_spool *spool = c->router->ports.spool;
    struct listing l = { 0 };
    struct control_cursor after = { 0 };
    struct msgid id;
    struct found f;
    uint64_t limit;
    bool from_start;

    if (!control_message_id(c, &id) ||
        !control_page_arguments(c, false, &limit, &after, &from_start))
        return;
    found_init(&f);
    l.entries = calloc(limit, sizeof(*l.entries));
    int e = l.entries ? control_find_message(spool, &id, &f) : -ENOMEM;
    if (e == 0)
        e = control_list_recipients(spool, &id, from_start, after.n, limit, &l, &f.bytes);
    if (e < 0)
        control_no_such_message(c, e);
    else
        answer_message(c, &l, &f);
    free(l.entries);
    found_done(&f);
}

/* ---- content ---------------------------------------------------------------------------------- */

/* Pieces are read from the spool as the client takes them: one is in memory. */
struct content {
    struct port_spool *spool;
    struct msgid id;
    uint32_t next_chunk;
    uint64_t at; /* where `piece` begins */
    struct buf piece;
};

static void content_free(void *cls)
{
    struct content *content = cls;

    buf_done(&content->piece);
    free(content);
}

static ssize_t read_content(void *cls, uint64_t pos, char *dst, size_t max)
{
    struct content *content = cls;

    if (pos != content->at) /* pieces are only read forwards */
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (buf_len(&content->piece) == 0 &&
        content->spool->read_chunk(content->spool, &content->id, content->next_chunk++,
                                   &content->piece) < 0)
        return MHD_CONTENT_READER_END_WITH_ERROR; /* delivered meanwhile */
    struct str piece = str_first(buf_str(&content->piece), max);
    if (!piece.p || piece.n == 0)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    memcpy(dst, piece.p, piece.n);
    buf_consume(&content->piece, piece.n);
    content->at += piece.n;
    return (ssize_t)piece.n;
}

void control_serve_content(struct control_call *c)
{
    struct port_spool *spool = c->router->ports.spool;
    struct content *content;
    struct msgid id;
    struct found f;

    if (!control_message_id(c, &id))
        return;
    found_init(&f);
    int e = control_find_message(spool, &id, &f);
    content = e == 0 ? calloc(1, sizeof(*content)) : NULL;
    if (e < 0) {
        control_no_such_message(c, e);
    } else if (!content) {
        control_errno(c, -ENOMEM);
    } else {
        content->spool = spool;
        content->id = id;
        buf_init(&content->piece, 0);
        control_answer_response(c, 200, "message/rfc822",
                                MHD_create_response_from_callback(f.message->size, BODY_CHUNK,
                                                                  read_content, content,
                                                                  content_free));
    }
    found_done(&f);
}

/* ---- commands --------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    enum queue_command_type type;
} actions[] = {
    { "hold", QUEUE_HOLD },     { "unhold", QUEUE_UNHOLD }, { "retry", QUEUE_RETRY },
    { "remove", QUEUE_REMOVE }, { "bounce", QUEUE_BOUNCE },
};

/* One command for each queue in which recipients of the message wait. */
struct orders;
struct order {
    struct queue_command command;
    struct orders *all;
    UT_hash_handle hh; /* by the name of the queue */
};

struct orders {
    struct control_work work;
    struct router *router;
    struct msgid id;
    enum queue_command_type type;
    const char *action;
    struct order *by_queue;
    uint64_t affected;
    int result;
};

static void orders_free(struct orders *o)
{
    struct order *it = o->by_queue, *next;

    HASH_CLEAR(hh, o->by_queue); /* the table; the elements are ours */
    for (; it; it = next) {
        next = it->hh.next;
        free(it);
    }
    free(o);
}

static void on_order_back(struct engine *none, struct worker_message *m)
{
    struct order *order =
        CONTAINER_OF(CONTAINER_OF(m, struct queue_command, wm), struct order, command);
    struct orders *o = order->all;

    o->affected += order->command.affected;
    /* "Not there": recipients that went meanwhile, or to which it does not apply (released, and never held). */
    if (order->command.result < 0 && order->command.result != -ENOENT)
        o->result = order->command.result;
    control_work_done(&o->work);
}

/* In the owner's thread. */
static void on_order_done(struct queue_command *command)
{
    struct order *order = CONTAINER_OF(command, struct order, command);

    command->wm.run = on_order_back;
    router_tell(order->all->router, &command->wm);
}

static void finish_orders(struct control_work *work)
{
    struct orders *o = CONTAINER_OF(work, struct orders, work);
    struct control_call *c = work->call;
    char id[MSGID_TEXT];

    msgid_text(&o->id, id);
    if (work->left == 0)
        journal_event(&o->router->journal,
                      EVENT(EVENT_INFO, "operator", F_STRZ("action", o->action), F_STRZ("id", id),
                            F_INT("affected", (int64_t)o->affected), F_INT("error", -o->result)));
    if (c && o->result < 0)
        control_errno(c, o->result);
    else if (c)
        control_answer(c, 200,
                       json_pack("{s:s, s:o, s:I}", "id", id, "action", json_string(o->action),
                                 "affected", (json_int_t)o->affected));
    orders_free(o);
}

static int add_order(struct orders *o, const char *queue)
{
    struct order *order;
    unsigned n = (unsigned)strlen(queue);

    HASH_FIND(hh, o->by_queue, queue, n, order);
    if (order)
        return 0;
    order = calloc(1, sizeof(*order));
    if (!order)
        return -ENOMEM;
    order->all = o;
    order->command.type = o->type;
    order->command.one_message = true;
    order->command.id = o->id;
    order->command.done = on_order_done;
    str_copy(str_of(queue), order->command.queue, sizeof(order->command.queue));
    HASH_ADD(hh, o->by_queue, command.queue, n, order);
    if (!order->hh.tbl) {
        free(order);
        return -ENOMEM;
    }
    return 0;
}

/* The queues of all recipients of the message. */
static int collect(struct port_spool *spool, struct orders *o)
{
    struct listing l = { .entries = calloc(CONTROL_PAGE_MAX, sizeof(*l.entries)) };
    struct buf scratch;
    bool from_start = true;
    int e = l.entries ? 0 : -ENOMEM;

    buf_init(&scratch, 0);
    l.more = true;
    while (e == 0 && l.more) {
        l.n = 0;
        e = control_list_recipients(spool, &o->id, from_start, l.last.n, CONTROL_PAGE_MAX, &l,
                                    &scratch);
        from_start = false;
        for (size_t i = 0; i < l.n && e == 0; i++)
            e = add_order(o, l.entries[i].queue);
    }
    buf_done(&scratch);
    free(l.entries);
    return e < 0 ? e : o->by_queue ? 0 : -ENOENT;
}

void control_serve_message_command(struct control_call *c)
{
    struct orders *o;
    struct msgid id;

    if (!control_message_id(c, &id))
        return;
    o = calloc(1, sizeof(*o));
    if (!o) {
        control_errno(c, -ENOMEM);
        return;
    }
    o->router = c->router;
    o->id = id;
    for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
        if (str_eq(c->request.segment[3], str_of(actions[i].name))) {
            o->type = actions[i].type;
            o->action = actions[i].name;
        }
    }
    int e = collect(c->router->ports.spool, o);
    if (e < 0) {
        orders_free(o);
        control_no_such_message(c, e);
        return;
    }
    o->work.left = HASH_COUNT(o->by_queue);
    o->work.finish = finish_orders;
    c->goes_on = true;
    control_wait(c, &o->work);
    for (struct order *it = o->by_queue; it;) {
        struct order *next = it->hh.next;
        queue_command_send(c->router->workers[0]->ports.workers, &it->command);
        it = next;
    }
}
