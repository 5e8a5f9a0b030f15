/* cmd_queue.c - tern queue: what waits, and what operators do to it. Layer: daemon. */
#include <inttypes.h>
#include <sysexits.h>

#include "base/units.h"
#include "daemon/args.h"
#include "daemon/cmd.h"
#include "daemon/columns.h"
#include "daemon/control_client.h"
#include "daemon/control_request.h"

struct queue_command_line {
    struct client client;
    const char *queue, *limit, *after;
    bool content;
    struct arg_list operands;
};

/* Encodes `before` + one part + `after` of a path. NULL: out of memory. */
static char *target_of(const char *before, const char *part, const char *after)
{
    struct buf b;
    char *text = NULL;

    buf_init(&b, 0);
    buf_add_str(&b, str_of(before));
    control_encode(str_of(part), &b);
    buf_add_str(&b, str_of(after));
    if (!b.failed)
        text = str_dup(buf_str(&b));
    buf_done(&b);
    return text;
}

static char *page_target(const struct queue_command_line *q, const char *path)
{
    struct buf b;
    char *text = NULL;

    buf_init(&b, 0);
    buf_printf(&b, "%s?limit=", path);
    control_encode(str_of(q->limit ? q->limit : "100"), &b);
    if (q->after) {
        buf_add_str(&b, STR("&after="));
        control_encode(str_of(q->after), &b);
    }
    if (q->queue) {
        buf_add_str(&b, STR("&queue="));
        control_encode(str_of(q->queue), &b);
    }
    if (!b.failed)
        text = str_dup(buf_str(&b));
    buf_done(&b);
    return text;
}

static int no_memory(struct failure *f)
{
    return failure_set(f, EX_SOFTWARE, "out of memory");
}

static void print_more(const json_t *answer, const char *command)
{
    const char *next = json_text_of(answer, "next");

    if (*next)
        printf("There is more: tern queue%s --after '%s'\n", command, next);
}

/* ---- tern queue: all queues ------------------------------------------------------------------- */

static const char *queue_state(const json_t *q, char *dst, size_t size)
{
    const json_t *retry = json_object_get(q, "retry_in_ms");
    char in[32];

    if (json_is_true(json_object_get(q, "on_hold")))
        return "on hold";
    if (json_is_true(json_object_get(q, "released")))
        return "released";
    if (json_is_integer(retry)) {
        snprintf(dst, size, "in %s", duration_text(json_integer_value(retry) / 1000 * 1000, in));
        return dst;
    }
    const char *host = json_text_of(json_object_get(q, "waits_for_host"), "host");
    if (*host) {
        snprintf(dst, size, "room at %s", host);
        return dst;
    }
    if (json_is_integer(json_object_get(q, "waits_for_ms"))) { /* its rate is used up */
        snprintf(dst, size, "%s, in %s", json_text_of(q, "waits_for"),
                 duration_text(json_int_of(q, "waits_for_ms"), in));
        return dst;
    }
    if (json_int_of(q, "active"))
        return "active";
    if (strcmp(json_text_of(q, "waits_for"), "source") == 0)
        return "waits for a source";
    return json_int_of(q, "scheduled") ? "scheduled" : "";
}

static void print_queues(const json_t *answer)
{
    static const char *const headings[] = { "QUEUE",   "SCHEDULED>", "WAITING>",   "HELD>",
                                            "ACTIVE>", "NEXT TRY",   "LAST ERROR", NULL };
    const json_t *q;
    struct columns c;
    char state[160];
    size_t i;

    columns_init(&c, headings);
    json_array_foreach(json_object_get(answer, "queues"), i, q)
    {
        columns_add(&c, "%s", json_text_of(q, "name"));
        columns_add(&c, "%" PRId64, json_int_of(q, "scheduled"));
        columns_add(&c, "%" PRId64, json_int_of(q, "waiting"));
        columns_add(&c, "%" PRId64, json_int_of(q, "held"));
        columns_add(&c, "%" PRId64, json_int_of(q, "active"));
        columns_add(&c, "%s", queue_state(q, state, sizeof(state)));
        columns_add(&c, "%s", json_text_of(q, "last_error"));
    }
    if (c.n_cells)
        columns_print(&c);
    else
        printf("The queue is empty.\n");
    columns_done(&c);
    print_more(answer, "");
}

/* ---- tern queue list: messages ---------------------------------------------------------------- */

/* What is due and still here waits for its queue. */
static const char *due_text(const json_t *o, int64_t now, char *dst)
{
    if (strcmp(json_text_of(o, "state"), "scheduled") != 0)
        return "";
    if (time_parse_iso(json_text_of(o, "due")) <= now)
        return "due";
    return time_relative(json_text_of(o, "due"), now, dst);
}

static void print_messages(const json_t *answer, const char *queue)
{
    static const char *const headings[] = { "ID",    "STATE",  "DUE",       "AGE>",  "TRIES>",
                                            "SIZE>", "SENDER", "RECIPIENT", "QUEUE", NULL };
    int64_t now = wall_now();
    const json_t *m;
    struct columns c;
    char text[40];
    size_t i;

    columns_init(&c, headings);
    json_array_foreach(json_object_get(answer, "messages"), i, m)
    {
        const char *sender = json_text_of(m, "sender"), *state = json_text_of(m, "state");
        columns_add(&c, "%s", json_text_of(m, "id"));
        columns_add(&c, "%s", state);
        columns_add(&c, "%s", due_text(m, now, text));
        columns_add(
            &c, "%s",
            duration_text((now - time_parse_iso(json_text_of(m, "received"))) / 1000 * 1000, text));
        columns_add(&c, "%" PRId64, json_int_of(m, "attempts"));
        columns_add(&c, "%s", size_text(json_int_of(m, "size"), text));
        columns_add(&c, "%s", *sender ? sender : "<>");
        columns_add(&c, "%s", json_text_of(m, "recipient"));
        columns_add(&c, "%s", json_text_of(m, "queue"));
    }
    if (c.n_cells)
        columns_print(&c);
    else if (queue)
        printf("Nothing waits in the queue %s.\n", queue);
    else
        printf("The queue is empty.\n");
    columns_done(&c);
    print_more(answer, " list");
}

/* One page of queues, or of messages. */
static int list_page(struct queue_command_line *q, bool messages, struct failure *f)
{
    AUTO_FREE char *target = page_target(q, messages ? "/v1/messages" : "/v1/queues");
    json_t *answer;

    if (!target)
        return no_memory(f);
    if (client_ask(&q->client, "GET", target, NULL, &answer, f) < 0)
        return -1;
    if (q->client.json)
        client_print_json(answer);
    else if (messages)
        print_messages(answer, q->queue);
    else
        print_queues(answer);
    json_decref(answer);
    return 0;
}

/* ---- tern queue show ID ----------------------------------------------------------------------- */

/* "name  value", when there is one. */
static void print_field(const char *name, const char *value)
{
    char text[1024];

    if (!*value)
        return;
    str_copy(str_of(value), text, sizeof(text));
    clean_text(text);
    printf("%-13s  %s\n", name, text);
}

static void print_recipient(const json_t *r, int64_t now)
{
    char text[512], due[40];

    printf("\n");
    print_field("recipient", json_text_of(r, "address"));
    const char *next = due_text(r, now, due);
    int64_t attempts = json_int_of(r, "attempts");
    snprintf(text, sizeof(text), "%s, %" PRId64 " attempt%s%s%s", json_text_of(r, "state"),
             attempts, attempts == 1 ? "" : "s", *next ? ", " : "",
             strcmp(next, "due") == 0 ? "due as soon as its queue goes" : next);
    print_field("  state", text);
    print_field("  waits", json_text_of(json_object_get(r, "waits"), "text"));
    print_field("  queue", json_text_of(r, "queue"));
    print_field("  route", json_text_of(r, "route"));
    print_field("  reason", json_text_of(r, "reason"));
    print_field("  decided by", json_text_of(r, "decided_by"));
    if (*json_text_of(r, "last_attempt")) {
        snprintf(text, sizeof(text), "%s, %s",
                 time_relative(json_text_of(r, "last_attempt"), now, due),
                 json_text_of(r, "last_host"));
        print_field("  last attempt", text);
        print_field("  last reply", json_text_of(r, "last_reply"));
    }
}

static void print_message(const json_t *m)
{
    const char *sender = json_text_of(m, "sender");
    int64_t now = wall_now();
    char text[512], when[40];
    const json_t *r;
    size_t i;

    print_field("message", json_text_of(m, "id"));
    print_field("sender", *sender ? sender : "<>");
    print_field("size", size_text(json_int_of(m, "size"), text));
    snprintf(text, sizeof(text), "%s (%s)", json_text_of(m, "received"),
             time_relative(json_text_of(m, "received"), now, when));
    print_field("received", text);
    snprintf(text, sizeof(text), "%s%s%s%s%s", json_text_of(m, "client"),
             *json_text_of(m, "helo") ? ", said " : "", json_text_of(m, "helo"),
             *json_text_of(m, "service") ? ", by " : "", json_text_of(m, "service"));
    print_field("client", text);
    print_field("identity", json_text_of(m, "identity"));
    json_array_foreach(json_object_get(m, "recipients"), i, r) print_recipient(r, now);
    if (*json_text_of(m, "next"))
        printf("\nThere are more recipients: --after '%s'\n", json_text_of(m, "next"));
    printf("\n'tern why %s' says more.\n", json_text_of(m, "id"));
}

static int show_message(struct queue_command_line *q, const char *id, struct failure *f)
{
    AUTO_FREE char *path = target_of("/v1/messages/", id, q->content ? "/content" : "/why");
    AUTO_FREE char *target = path && !q->content ? page_target(q, path) : NULL;
    json_t *answer;

    if (!path || (!q->content && !target))
        return no_memory(f);
    if (q->content)
        return client_fetch(&q->client, path, stdout, f);
    if (client_ask(&q->client, "GET", target, NULL, &answer, f) < 0)
        return -1;
    if (q->client.json)
        client_print_json(answer);
    else
        print_message(answer);
    json_decref(answer);
    return 0;
}

static int show(struct queue_command_line *q, struct failure *f)
{
    if (q->operands.n != 2 || q->queue)
        return failure_set(f, EX_USAGE, "of which message? tern queue show ID");
    return show_message(q, q->operands.v[1], f);
}

/* ---- tern queue hold, release, retry, remove, bounce ------------------------------------------ */

/* whole: a fact about a queue, not about recipients. */
static void print_done(const json_t *answer, const char *what, const char *done, bool whole)
{
    int64_t n = json_int_of(answer, "affected");

    if (*json_text_of(answer, "message"))
        printf("%s\n", json_text_of(answer, "message"));
    else if (whole)
        printf("%s: %s\n", what, done);
    else
        printf("%s: %" PRId64 " recipient%s %s\n", what, n, n == 1 ? "" : "s", done);
}

static int order_one(struct queue_command_line *q, bool queue, const char *name, const char *action,
                     const char *done, struct failure *f)
{
    char end[16];
    json_t *answer;

    snprintf(end, sizeof(end), "/%s", action);
    AUTO_FREE char *target = target_of(queue ? "/v1/queues/" : "/v1/messages/", name, end);
    if (!target)
        return no_memory(f);
    if (client_ask(&q->client, "POST", target, NULL, &answer, f) < 0)
        return -1;
    if (q->client.json)
        client_print_json(answer);
    else
        print_done(answer, name, done, queue && strcmp(action, "remove") != 0);
    json_decref(answer);
    return 0;
}

static const struct action {
    const char *name, *api, *done;
} actions[] = {
    { "hold", "hold", "on hold" },           { "release", "unhold", "released" },
    { "retry", "retry", "to be tried now" }, { "remove", "remove", "removed" },
    { "bounce", "bounce", "returned" },
};

static int order(struct queue_command_line *q, const struct action *a, struct failure *f)
{
    if (q->queue && q->operands.n > 1)
        return failure_set(f, EX_USAGE, "either ids of messages or --queue, not both");
    if (!q->queue && q->operands.n < 2)
        return failure_set(f, EX_USAGE,
                           "of what? tern queue %s ID... or tern queue %s --queue NAME", a->name,
                           a->name);
    if (q->queue && strcmp(a->name, "bounce") == 0)
        return failure_set(f, EX_USAGE,
                           "only messages can be returned, one by one: tern queue bounce ID...");
    if (q->queue)
        return order_one(q, true, q->queue, a->api, a->done, f);
    for (size_t i = 1; i < q->operands.n; i++)
        if (order_one(q, false, q->operands.v[i], a->api, a->done, f) < 0)
            return -1;
    return 0;
}

static int unknown(const char *name, struct failure *f)
{
    static const char *const names[] = { "list",  "show",   "hold",  "release",
                                         "retry", "remove", "bounce" };
    const char *near = nearest_name(name, names, ARRAY_LEN(names));

    if (near)
        return failure_set(f, EX_USAGE, "unknown command 'queue %s'; did you mean 'queue %s'?",
                           name, near);
    return failure_set(
        f, EX_USAGE,
        "unknown command 'queue %s'; there are list, show, hold, release, retry, remove "
        "and bounce",
        name);
}

static int dispatch(struct queue_command_line *q, struct failure *f)
{
    const char *verb = q->operands.n ? q->operands.v[0] : NULL;

    if (!verb)
        return list_page(q, q->queue != NULL, f);
    if (strcmp(verb, "list") == 0 && q->operands.n == 1)
        return list_page(q, true, f);
    if (strcmp(verb, "show") == 0)
        return show(q, f);
    for (size_t i = 0; i < ARRAY_LEN(actions); i++)
        if (strcmp(verb, actions[i].name) == 0)
            return order(q, &actions[i], f);
    return unknown(verb, f);
}

int cmd_queue(int argc, char **argv)
{
    struct queue_command_line q = { .client = { .config = DEFAULT_CONFIG } };
    const struct arg_option options[] = {
        ARG_TEXT('q', "queue", "NAME", &q.queue, "the whole queue of that name"),
        ARG_FLAG(0, "content", &q.content, "show: print the message itself"),
        ARG_TEXT('n', "limit", "N", &q.limit, "list at most so many (default 100, at most 1000)"),
        ARG_TEXT(0, "after", "MARK", &q.after, "list from there on: what an earlier list said"),
        CLIENT_OPTIONS(&q.client),
    };
    const struct arg_command command = {
        .name = "queue",
        .usage = "queue [-c FILE] [--json]\n"
                 "queue list [--queue NAME]\n"
                 "queue show ID [--content]\n"
                 "queue hold|release|retry|remove ID... | --queue NAME\n"
                 "queue bounce ID...",
        .about = "Alone: all queues (destinations), what they hold and how they fare.\n\n"
                 "list     messages, one line for each recipient that waits\n"
                 "show     one message: its envelope and what happened to each recipient\n"
                 "hold     make no attempts until it is released\n"
                 "release  end a hold (mail that waits for ETRN: 'tern etrn')\n"
                 "retry    try now, whatever the schedule says\n"
                 "remove   drop, without telling anybody\n"
                 "bounce   return to the sender, now",
        .options = options,
        .n_options = ARRAY_LEN(options),
        .max_operands = ARGS_MAX,
    };
    struct failure f = { 0 };
    int exit_code;

    if (!args_get(&command, argc, argv, &q.operands, &exit_code))
        return exit_code;
    return dispatch(&q, &f) < 0 ? failure_print(&f) : EX_OK;
}
