/* control_queues.c - queues: what they hold, how they fare, what operators do to them; ETRN.
 *
 * Layer: daemon, main thread. Interface: control_call.h. What a queue holds is read from the spool; how
 * it fares only its owner knows: each worker fills in its own rows of a page.
 */
#include "daemon/control_call.h"
#include "engine/context.h"
#include "engine/etrn.h"
#include "engine/queue.h"

/* ---- a page of queues ------------------------------------------------------------------------- */

struct page_part {
    struct worker_message message;
    struct page *page;
    int worker;
};

struct page {
    struct control_work work;
    struct router *router;
    bool single;
    size_t n, limit;
    struct spool_queue *rows;
    struct queue_status *status; /* each row is written by its owner alone */
    bool *known;                 /* the owner has it in memory */
    struct page_part part[WORKERS_MAX];
};

static void page_free(struct page *p)
{
    if (!p)
        return;
    free(p->rows);
    free(p->status);
    free(p->known);
    free(p);
}

static struct page *page_new(struct router *r, size_t limit)
{
    struct page *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->router = r;
    p->limit = limit;
    p->rows = calloc(limit, sizeof(*p->rows));
    p->status = calloc(limit, sizeof(*p->status));
    p->known = calloc(limit, sizeof(*p->known));
    if (!p->rows || !p->status || !p->known) {
        page_free(p);
        return NULL;
    }
    return p;
}

static void on_part_back(struct engine *none, struct worker_message *m)
{
    control_work_done(&CONTAINER_OF(m, struct page_part, message)->page->work);
}

/* In a worker's thread. */
static void on_part(struct engine *e, struct worker_message *m)
{
    struct page_part *part = CONTAINER_OF(m, struct page_part, message);
    struct page *p = part->page;

    for (size_t i = 0; i < p->n; i++) {
        struct str name = str_of(p->rows[i].name);
        if (engine_queue_owner(name, p->router->n_workers) == part->worker)
            p->known[i] = queue_status(e->queues, name, &p->status[i]);
    }
    m->run = on_part_back;
    router_tell(p->router, m);
}

/* In whose line it stands. */
static json_t *host_json(const struct queue_status *st)
{
    if (!st->host[0])
        return json_null();
    return json_pack("{s:o, s:I, s:I, s:I}", "host", control_text(str_of(st->host)), "connections",
                     (json_int_t)st->host_connections, "limit", (json_int_t)st->host_limit,
                     "queues", (json_int_t)st->host_line);
}

json_t *control_queue_json(const struct router *r, const struct spool_queue *row,
                           const struct queue_status *st, bool known)
{
    struct str name = str_of(row->name);

    return json_pack(
        "{s:o, s:I, s:I, s:I, s:b, s:b, s:I, s:I, s:I, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:i}",
        "name", control_text(name), "scheduled", (json_int_t)row->scheduled, "waiting",
        (json_int_t)row->waiting, "held", (json_int_t)row->held, "on_hold", st->held, "released",
        st->released, "active", (json_int_t)st->active, "in_memory", (json_int_t)st->in_memory,
        "concurrency", (json_int_t)st->concurrency, "ceiling",
        st->ceiling ? json_integer(st->ceiling) : json_null(), "waits_for_host", host_json(st),
        "retry_in_ms", known && st->retry_in_ms >= 0 ? json_integer(st->retry_in_ms) : json_null(),
        "failures", (json_int_t)st->failures, "failing_since", control_time(st->failing_since_ms),
        "last_error", control_text_or_null(str_of(st->last_error)), "waits_for",
        control_text_or_null(str_of(queue_gate_name(st->gate))), "waits_for_ms",
        st->gate && st->gate_in_ms >= 0 ? json_integer(st->gate_in_ms) : json_null(), "worker",
        engine_queue_owner(name, r->n_workers));
}

static void finish_page(struct control_work *work)
{
    struct page *p = CONTAINER_OF(work, struct page, work);

    if (work->call && p->single) {
        control_answer(work->call, 200,
                       control_queue_json(p->router, &p->rows[0], &p->status[0], p->known[0]));
    } else if (work->call) {
        json_t *list = json_array();
        for (size_t i = 0; i < p->n; i++)
            json_array_append_new(
                list, control_queue_json(p->router, &p->rows[i], &p->status[i], p->known[i]));
        control_answer(work->call, 200,
                       json_pack("{s:o, s:o}", "queues", list, "next",
                                 p->n == p->limit ? control_text(str_of(p->rows[p->n - 1].name))
                                                  : json_null()));
    }
    page_free(p);
}

static void ask_owners(struct control_call *c, struct page *p)
{
    struct router *r = c->router;

    p->work.left = (unsigned)r->n_workers;
    p->work.finish = finish_page;
    control_wait(c, &p->work);
    for (int i = 0; i < r->n_workers; i++) {
        p->part[i] = (struct page_part){ .message = { .run = on_part }, .page = p, .worker = i };
        router_post(r, i, &p->part[i].message);
    }
}

void control_serve_queues(struct control_call *c)
{
    struct port_spool *spool = c->router->ports.spool;
    uint64_t limit;
    struct page *p;

    if (!control_request_number(&c->request, "limit", CONTROL_PAGE_MAX, 100, &limit) || !limit) {
        control_error(c, 400, "bad_argument", "'limit' must be a number from 1 to %d",
                      CONTROL_PAGE_MAX);
        return;
    }
    struct str after = control_request_arg(&c->request, "after");
    if (after.n > SPOOL_MAX_QUEUE_NAME) {
        control_error(c, 400, "bad_argument", "'after' is longer than a name of a queue");
        return;
    }
    p = page_new(c->router, limit);
    int n = p ? spool->scan_queues(spool, after, p->rows, limit) : -ENOMEM;
    if (n < 0) {
        page_free(p);
        control_errno(c, n);
        return;
    }
    p->n = (size_t)n;
    ask_owners(c, p);
}

/* The name in the path; false: the call has been answered. */
static bool queue_name_of(struct control_call *c, struct str *ret)
{
    *ret = c->request.segment[2];
    if (ret->n <= SPOOL_MAX_QUEUE_NAME)
        return true;
    control_error(c, 400, "bad_name", "a name of a queue has at most %d bytes",
                  SPOOL_MAX_QUEUE_NAME);
    return false;
}

void control_serve_queue(struct control_call *c)
{
    struct port_spool *spool = c->router->ports.spool;
    struct str name;
    struct page *p;

    if (!queue_name_of(c, &name))
        return;
    p = page_new(c->router, 1);
    int e = p ? spool->read_queue(spool, name, &p->rows[0]) : -ENOMEM;
    if (e < 0) {
        page_free(p);
        if (e == -ENOENT)
            control_error(c, 404, "no_such_queue", "there is no queue '" STR_FMT "'",
                          STR_ARG(name));
        else
            control_errno(c, e);
        return;
    }
    p->n = 1;
    p->single = true;
    ask_owners(c, p);
}

/* ---- commands to a queue ---------------------------------------------------------------------- */

struct order {
    struct control_work work;
    struct queue_command command;
    struct router *router;
    const char *action;
};

static void on_order_back(struct engine *none, struct worker_message *m)
{
    control_work_done(
        &CONTAINER_OF(CONTAINER_OF(m, struct queue_command, wm), struct order, command)->work);
}

/* In the owner's thread. */
static void on_order_done(struct queue_command *command)
{
    struct order *o = CONTAINER_OF(command, struct order, command);

    command->wm.run = on_order_back;
    router_tell(o->router, &command->wm);
}

static void finish_order(struct control_work *work)
{
    struct order *o = CONTAINER_OF(work, struct order, work);
    struct control_call *c = work->call;

    if (work->left == 0)
        journal_event(&o->router->journal,
                      EVENT(EVENT_INFO, "operator", F_STRZ("action", o->action),
                            F_STRZ("queue", o->command.queue),
                            F_INT("affected", (int64_t)o->command.affected),
                            F_INT("error", -o->command.result)));
    if (c && o->command.result < 0)
        control_errno(c, o->command.result);
    else if (c)
        control_answer(c, 200,
                       json_pack("{s:o, s:o, s:I}", "queue", control_text(str_of(o->command.queue)),
                                 "action", json_string(o->action), "affected",
                                 (json_int_t)o->command.affected));
    free(o);
}

static const struct {
    const char *name;
    enum queue_command_type type;
} actions[] = {
    { "hold", QUEUE_HOLD },
    { "unhold", QUEUE_UNHOLD },
    { "retry", QUEUE_RETRY },
    { "remove", QUEUE_REMOVE },
};

void control_serve_queue_command(struct control_call *c)
{
    struct port_spool *spool = c->router->ports.spool;
    struct spool_queue row;
    struct str name;
    struct order *o;

    if (!queue_name_of(c, &name))
        return;
    int e = spool->read_queue(spool, name, &row);
    o = e == 0 || e == -ENOENT ? calloc(1, sizeof(*o)) : NULL;
    if (!o) {
        control_errno(c, e == 0 || e == -ENOENT ? -ENOMEM : e);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
        if (str_eq(c->request.segment[3], str_of(actions[i].name))) {
            o->command.type = actions[i].type;
            o->action = actions[i].name;
        }
    }
    /* A queue can be put on hold before anything is in it. */
    if (e == -ENOENT && o->command.type != QUEUE_HOLD) {
        free(o);
        control_error(c, 404, "no_such_queue", "there is no queue '" STR_FMT "'", STR_ARG(name));
        return;
    }
    str_copy(name, o->command.queue, sizeof(o->command.queue));
    o->command.done = on_order_done;
    o->router = c->router;
    o->work.left = 1;
    o->work.finish = finish_order;
    c->goes_on = true;
    control_wait(c, &o->work);
    queue_command_send(c->router->workers[0]->ports.workers, &o->command);
}

/* ---- ETRN ------------------------------------------------------------------------------------- */

struct etrn_order {
    struct control_work work;
    struct worker_message message;
    struct router *router;
    char option;
    char domain[SPOOL_MAX_QUEUE_NAME + 1];
    struct smtp_reply reply;
    char text[1024];
};

static void on_etrn_back(struct engine *none, struct worker_message *m)
{
    control_work_done(&CONTAINER_OF(m, struct etrn_order, message)->work);
}

/* In a worker's thread. */
static void on_etrn_done(void *owner, const struct smtp_reply *reply, struct turn *turn)
{
    struct etrn_order *o = owner;

    o->reply = *reply;
    str_copy(reply->text, o->text, sizeof(o->text));
    o->message.run = on_etrn_back;
    router_tell(o->router, &o->message);
}

static void on_etrn(struct engine *e, struct worker_message *m)
{
    struct etrn_order *o = CONTAINER_OF(m, struct etrn_order, message);

    const struct etrn_request request = { .option = o->option,
                                          .node = str_of(o->domain),
                                          .origin = ETRN_OPERATOR };

    if (!etrn_start(e, e->snapshot, NULL, &request, on_etrn_done, o))
        on_etrn_done(o, &REPLY(451, ENH(4, 3, 0), "out of memory"), NULL);
}

static void finish_etrn(struct control_work *work)
{
    struct etrn_order *o = CONTAINER_OF(work, struct etrn_order, work);
    bool yes = smtp_reply_positive(&o->reply), denied = o->reply.code == 459;
    char enhanced[16], text[1280];

    smtp_enhanced_text(o->reply.enhanced, enhanced);
    /* What a stranger is told on purpose says too little to an operator. */
    snprintf(text, sizeof(text), "%s%s%s", denied ? "no policy releases mail of that domain (" : "",
             o->text, denied ? ")" : "");
    if (work->call)
        control_answer(work->call,
                       yes      ? 200
                       : denied ? 403
                                : 409,
                       json_pack("{s:o*, s:o, s:o, s:i, s:o}", "error",
                                 yes ? NULL : json_string("refused"), "domain",
                                 control_text(str_of(o->domain)), "message",
                                 control_text(str_of(text)), "code", (int)o->reply.code, "enhanced",
                                 control_text_or_null(str_trim(str_of(enhanced)))));
    free(o);
}

void control_serve_etrn(struct control_call *c)
{
    struct str domain, option;
    struct etrn_order *o;

    if (!control_input_text(c, "domain", true, &domain) ||
        !control_input_text(c, "option", false, &option))
        return;
    if (str_empty(domain) || domain.n > SPOOL_MAX_QUEUE_NAME) {
        control_error(c, 400, "bad_body", "'domain' must have 1 to %d bytes", SPOOL_MAX_QUEUE_NAME);
        return;
    }
    if (option.n > 1 || (option.n && option.p[0] != '@' && option.p[0] != '#')) {
        control_error(c, 400, "bad_body", "'option' must be \"@\" or \"#\"");
        return;
    }
    o = calloc(1, sizeof(*o));
    if (!o) {
        control_errno(c, -ENOMEM);
        return;
    }
    o->router = c->router;
    o->option = option.n ? option.p[0] : 0;
    str_copy(domain, o->domain, sizeof(o->domain));
    o->message.run = on_etrn;
    o->work.left = 1;
    o->work.finish = finish_etrn;
    control_wait(c, &o->work);
    router_post(c->router, 0, &o->message);
}
