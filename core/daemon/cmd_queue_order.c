/* cmd_queue_order.c - tern queue hold, release, retry, reroute, remove, bounce, edit: what operators do to
 * messages, to a queue, or to all that a filter means. Layer: daemon. Interface: cmd_queue.h.
 *
 * One message, and a queue as a whole, are commands that the router answers. Anything else is an operation of
 * the router, which is waited for here; Ctrl-C cancels it.
 */
#include "daemon/cmd_queue.h"

#include <inttypes.h>
#include <signal.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/columns.h"
#include "daemon/queue_filter.h"

enum { EXIT_INTERRUPTED = 130 }; /* as a shell tells SIGINT */

static const struct queue_verb {
    const char *name, *done;
    const char *message; /* of the API, for one message by its id; NULL: an operation */
    const char *queue;   /* and for a queue as a whole */
} orders[] = {
    { "hold", "on hold", "hold", "hold" },
    { "release", "released", "unhold", "unhold" },
    { "retry", "to be tried now", "retry", NULL },
    { "reroute", "routed anew", NULL, NULL },
    { "remove", "removed", "remove", NULL },
    { "bounce", "returned", "bounce", NULL },
    { "edit", "sent to the new address", NULL, NULL },
};

const struct queue_verb *queue_verb_of(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(orders); i++)
        if (strcmp(name, orders[i].name) == 0)
            return &orders[i];
    return NULL;
}

static const char *s_of(int64_t n)
{
    return n == 1 ? "" : "s";
}

/* ---- one message, a whole queue ---------------------------------------------------------------- */

/* whole: a fact about a queue, not about recipients. */
static void print_done(const json_t *answer, const char *what, const char *done, bool whole)
{
    int64_t n = json_int_of(answer, "affected");

    if (*json_text_of(answer, "message"))
        printf("%s\n", json_text_of(answer, "message"));
    else if (whole)
        printf("%s: %s\n", what, done);
    else
        printf("%s: %" PRId64 " recipient%s %s\n", what, n, s_of(n), done);
}

static int order_one(struct queue_command_line *q, const struct queue_verb *v, bool queue,
                     const char *name, struct failure *f)
{
    char end[16];
    json_t *answer;

    snprintf(end, sizeof(end), "/%s", queue ? v->queue : v->message);
    AUTO_FREE char *target = queue_target(queue ? "/v1/queues/" : "/v1/messages/", name, end);
    if (!target)
        return queue_no_memory(f);
    if (client_ask(&q->client, "POST", target, NULL, &answer, f) < 0)
        return -1;
    if (q->client.json)
        client_print_json(answer);
    else
        print_done(answer, name, v->done, queue);
    json_decref(answer);
    return 0;
}

/* ---- the body of an operation ------------------------------------------------------------------ */

static json_t *filter_json(const struct queue_command_line *q)
{
    json_t *filter = json_object();

    for (size_t i = 0; i < QUEUE_CONDITIONS; i++)
        if (q->filter[i] &&
            json_object_set_new(filter, queue_filter_names[i], json_string(q->filter[i])) < 0) {
            json_decref(filter);
            return NULL;
        }
    return filter;
}

/* NULL: a text is not UTF-8. */
static json_t *order_json(const struct queue_command_line *q, const struct queue_verb *v)
{
    json_t *body =
        json_pack("{s:s, s:b, s:b}", "action", v->name, "dry_run", q->dry_run, "all", q->all);
    json_t *ids = q->operands.n > 1 ? json_array() : NULL;
    int e = 0;

    for (size_t i = 1; i < q->operands.n; i++)
        e |= json_array_append_new(ids, json_string(q->operands.v[i]));
    if (ids)
        e |= json_object_set_new(body, "ids", ids);
    if (queue_conditions(q))
        e |= json_object_set_new(body, "filter", filter_json(q));
    if (q->reason)
        e |= json_object_set_new(body, "reason", json_string(q->reason));
    if (q->to)
        e |= json_object_set_new(body, "to", json_string(q->to));
    if (e == 0)
        return body;
    json_decref(body);
    return NULL;
}

/* ---- waiting for it ---------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    interrupted = 1;
}

/* The second Ctrl-C ends us at once; the operation goes on in the router. */
static void catch_interrupt(void)
{
    struct sigaction action = { .sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND };

    sigaction(SIGINT, &action, NULL);
}

static void show_progress(const json_t *op)
{
    if (!isatty(STDERR_FILENO))
        return;
    fprintf(stderr, "\r%s: %" PRId64 " looked at, %" PRId64 " meant, %" PRId64 " done\033[K",
            json_text_of(op, "action"), json_int_of(op, "scanned"), json_int_of(op, "matched"),
            json_int_of(op, "changed"));
    fflush(stderr);
}

static void end_progress(void)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
}

static bool is_running(const json_t *op)
{
    return strcmp(json_text_of(op, "state"), "running") == 0;
}

/* Asks until it has ended. *op is replaced. */
static int wait_for(struct queue_command_line *q, json_t **op, struct failure *f)
{
    AUTO_FREE char *wait =
        queue_target("/v1/queue/operations/", json_text_of(*op, "id"), "?wait=true");
    AUTO_FREE char *plain = queue_target("/v1/queue/operations/", json_text_of(*op, "id"), "");
    bool cancelled = false;

    if (!wait || !plain)
        return queue_no_memory(f);
    while (is_running(*op)) {
        json_t *now;
        show_progress(*op);
        bool cancel = interrupted && !cancelled;
        cancelled |= cancel;
        int e =
            client_ask(&q->client, cancel ? "DELETE" : "GET", cancel ? plain : wait, NULL, &now, f);
        if (e < 0) {
            end_progress();
            return -1;
        }
        json_decref(*op);
        *op = now;
    }
    end_progress();
    return 0;
}

/* ---- what came of it --------------------------------------------------------------------------- */

static void print_dry_run(const json_t *op)
{
    const json_t *first = json_object_get(op, "first");
    int64_t matched = json_int_of(op, "matched"), messages = json_int_of(op, "messages");
    int64_t octets = json_int_of(op, "octets"), shown = (int64_t)json_array_size(first);
    char size[16];

    printf("%s would concern %" PRId64 " recipient%s of %" PRId64 " message%s", //
           json_text_of(op, "action"), matched, s_of(matched), messages, s_of(messages));
    if (octets)
        printf(" (%s)", size_text(octets, size));
    printf(". Nothing was changed.\n");
    if (shown)
        printf("\n");
    queue_print_messages(first);
    if (shown && matched > shown)
        printf("... and %" PRId64 " more: tern queue list shows them\n", matched - shown);
}

static void print_count(const json_t *op, const char *name, const char *what)
{
    int64_t n = json_int_of(op, name);

    if (n)
        printf("; %" PRId64 " %s", n, what);
}

static void print_sum(const json_t *op, const char *done)
{
    int64_t n = json_int_of(op, "changed"), messages = json_int_of(op, "messages");

    printf("%s: %" PRId64 " recipient%s", json_text_of(op, "action"), n, s_of(n));
    if (n == json_int_of(op, "matched"))
        printf(" of %" PRId64 " message%s", messages, s_of(messages));
    printf(" %s", done);
    print_count(op, "busy", "being delivered at this moment, and left alone");
    print_count(op, "unchanged", "left as they were (gone meanwhile, or it does not apply)");
    print_count(op, "failed", "not possible now");
    printf("\n");
}

static void print_operation(const struct queue_command_line *q, const struct queue_verb *v,
                            const json_t *op)
{
    if (q->client.json)
        client_print_json(op);
    else if (json_int_of(op, "matched") == 0)
        printf("%s: nothing in the queue is meant by that\n", v->name);
    else if (q->dry_run)
        print_dry_run(op);
    else
        print_sum(op, v->done);
}

/* The exit code. */
static int verdict(const struct queue_command_line *q, const json_t *op, struct failure *f)
{
    const char *state = json_text_of(op, "state");
    bool named = q->operands.n > 1;

    if (strcmp(state, "failed") == 0)
        return failure_set(f, EX_TEMPFAIL, "%s was broken off: %s; what it has done stands",
                           json_text_of(op, "action"), json_text_of(op, "error"));
    if (strcmp(state, "cancelled") == 0) {
        fprintf(stderr, "tern: cancelled; what it has done stands\n");
        return EXIT_INTERRUPTED;
    }
    if (named && json_int_of(op, "matched") == 0)
        return failure_set(f, EX_NOINPUT,
                           "there is no such message, or nothing of it to which this applies");
    if (named && !q->dry_run && json_int_of(op, "changed") == 0 && json_int_of(op, "busy"))
        return failure_set(f, EX_TEMPFAIL, "it is being delivered at this moment; try again");
    return EX_OK;
}

static int operate(struct queue_command_line *q, const struct queue_verb *v, struct failure *f)
{
    json_t *body = order_json(q, v), *op;

    if (!body)
        return failure_set(f, EX_USAGE, "what is given must be UTF-8");
    catch_interrupt();
    if (client_ask(&q->client, "POST", "/v1/queue/operations", body, &op, f) < 0)
        return -1;
    int r = wait_for(q, &op, f);
    if (r == 0) {
        print_operation(q, v, op);
        r = verdict(q, op, f);
    }
    json_decref(op);
    return r;
}

/* A name that was mistyped is worth an error. */
static int check_queue(struct queue_command_line *q, const char *queue, struct failure *f)
{
    AUTO_FREE char *target = queue_target("/v1/queues/", queue, "");
    json_t *answer;

    if (!target)
        return queue_no_memory(f);
    if (client_ask(&q->client, "GET", target, NULL, &answer, f) < 0)
        return -1;
    json_decref(answer);
    return 0;
}

static int check_scope(const struct queue_command_line *q, const struct queue_verb *v,
                       struct failure *f)
{
    bool ids = q->operands.n > 1, filter = queue_conditions(q) > 0;

    if (!ids && !filter && !q->all)
        return failure_set(f, EX_USAGE,
                           "%s what? Name messages (tern queue %s ID...), or say by a filter which "
                           "ones are meant (--queue NAME, --sender ADDRESS, ...: tern queue "
                           "--help); everything is --all",
                           v->name, v->name);
    if (q->all && (ids || filter))
        return failure_set(f, EX_USAGE, "--all means everything: leave it out, or the %s",
                           ids ? "ids" : "filter");
    if (strcmp(v->name, "edit") == 0 && !q->to)
        return failure_set(f, EX_USAGE, "edit needs the new address: --to ADDRESS");
    return 0;
}

/* A list has the id of a message once for each of its recipients. */
static bool named_before(const struct queue_command_line *q, size_t i)
{
    for (size_t k = 1; k < i; k++)
        if (str_caseeq(str_of(q->operands.v[k]), str_of(q->operands.v[i])))
            return true;
    return false;
}

int queue_order(struct queue_command_line *q, const struct queue_verb *v, struct failure *f)
{
    const char *queue = queue_only(q);
    bool ids = q->operands.n > 1;

    if (check_scope(q, v, f) < 0)
        return -1;
    if (queue && !ids && !q->dry_run && v->queue)
        return order_one(q, v, true, queue, f);
    if (queue && !ids && check_queue(q, queue, f) < 0)
        return -1;
    if (!v->message || !ids || queue_conditions(q) || q->dry_run || q->reason)
        return operate(q, v, f);
    for (size_t i = 1; i < q->operands.n; i++)
        if (!named_before(q, i) && order_one(q, v, false, q->operands.v[i], f) < 0)
            return -1;
    return 0;
}

/* ---- operations --------------------------------------------------------------------------------- */

static void print_operations(const json_t *answer)
{
    static const char *const headings[] = { "OPERATION", "ACTION", "STATE", "STARTED", "LOOKED AT>",
                                            "MEANT>",    "DONE>",  "BUSY>", "FILTER",  NULL };
    int64_t now = wall_now();
    const json_t *op;
    struct columns c;
    char when[40];
    size_t i;

    columns_init(&c, headings);
    json_array_foreach(json_object_get(answer, "operations"), i, op)
    {
        AUTO_FREE char *filter =
            json_dumps(json_object_get(op, "filter"), JSON_COMPACT | JSON_ENCODE_ANY);
        columns_add(&c, "%s", json_text_of(op, "id"));
        columns_add(&c, "%s%s", json_text_of(op, "action"),
                    json_is_true(json_object_get(op, "dry_run")) ? " (dry)" : "");
        columns_add(&c, "%s", json_text_of(op, "state"));
        columns_add(&c, "%s", time_relative(json_text_of(op, "started"), now, when));
        columns_add(&c, "%" PRId64, json_int_of(op, "scanned"));
        columns_add(&c, "%" PRId64, json_int_of(op, "matched"));
        columns_add(&c, "%" PRId64, json_int_of(op, "changed"));
        columns_add(&c, "%" PRId64, json_int_of(op, "busy"));
        columns_add(&c, "%s", filter ? filter : "");
    }
    if (c.n_cells)
        columns_print(&c);
    else
        printf("No operations since the router was started.\n");
    columns_done(&c);
}

int queue_operations(struct queue_command_line *q, struct failure *f)
{
    json_t *answer;

    if (q->operands.n > 1 || queue_conditions(q))
        return failure_set(f, EX_USAGE, "'tern queue operations' takes nothing more");
    if (client_ask(&q->client, "GET", "/v1/queue/operations", NULL, &answer, f) < 0)
        return -1;
    if (q->client.json)
        client_print_json(answer);
    else
        print_operations(answer);
    json_decref(answer);
    return 0;
}

int queue_cancel(struct queue_command_line *q, struct failure *f)
{
    json_t *op;

    if (q->operands.n != 2 || queue_conditions(q))
        return failure_set(f, EX_USAGE,
                           "which one? tern queue cancel OPERATION ('tern queue operations' lists "
                           "them)");
    AUTO_FREE char *target = queue_target("/v1/queue/operations/", q->operands.v[1], "");
    if (!target)
        return queue_no_memory(f);
    bool was_running = false;
    if (client_ask(&q->client, "DELETE", target, NULL, &op, f) < 0)
        return -1;
    was_running = is_running(op);
    int r = wait_for(q, &op, f);
    if (r == 0 && q->client.json)
        client_print_json(op);
    else if (r == 0)
        printf("%s %s: %" PRId64 " done\n", json_text_of(op, "action"),
               was_running ? "cancelled" : json_text_of(op, "state"), json_int_of(op, "changed"));
    json_decref(op);
    return r;
}
