/* cmd_queue.c - tern queue: the command line, and what queues hold. Layer: daemon. Interface: cmd_queue.h. */
#include "daemon/cmd_queue.h"

#include <inttypes.h>
#include <sysexits.h>

#include "base/glob.h"
#include "base/units.h"
#include "daemon/cmd.h"
#include "daemon/columns.h"
#include "daemon/control_request.h"
#include "daemon/queue_filter.h"

/* Encodes `before` + one part + `after` of a path. NULL: out of memory. */
char *queue_target(const char *before, const char *part, const char *after)
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

static void add_argument(struct buf *b, const char *name, const char *value)
{
    if (!value)
        return;
    buf_printf(b, "&%s=", name);
    control_encode(str_of(value), b);
}

char *queue_page_target(const struct queue_command_line *q, const char *path, const char *limit,
                        const char *after)
{
    struct buf b;
    char *text = NULL;

    buf_init(&b, 0);
    buf_printf(&b, "%s?limit=", path);
    control_encode(str_of(limit ? limit : "100"), &b);
    add_argument(&b, "after", after);
    for (size_t i = 0; i < QUEUE_CONDITIONS; i++)
        add_argument(&b, queue_filter_names[i], q->filter[i]);
    if (!b.failed)
        text = str_dup(buf_str(&b));
    buf_done(&b);
    return text;
}

int queue_no_memory(struct failure *f)
{
    return failure_set(f, EX_SOFTWARE, "out of memory");
}

void queue_print_more(const json_t *answer, const char *command)
{
    const char *next = json_text_of(answer, "next");

    if (*next)
        printf("There is more: tern queue%s --after '%s'\n", command, next);
}

size_t queue_conditions(const struct queue_command_line *q)
{
    size_t n = 0;

    for (size_t i = 0; i < QUEUE_CONDITIONS; i++)
        n += q->filter[i] != NULL;
    return n;
}

const char *queue_only(const struct queue_command_line *q)
{
    const char *queue = q->filter[0];

    return queue && queue_conditions(q) == 1 && !glob_is_pattern(str_of(queue)) ? queue : NULL;
}

/* What is wrong with the conditions is known here, and without a router. */
static int check_filter(const struct queue_command_line *q, struct failure *f)
{
    char error[QUEUE_FILTER_ERROR];
    struct queue_filter filter;
    int e = 0;

    queue_filter_init(&filter);
    for (size_t i = 0; e == 0 && i < QUEUE_CONDITIONS; i++)
        if (q->filter[i])
            e = queue_filter_set(&filter, str_of(queue_filter_names[i]), str_of(q->filter[i]),
                                 error);
    if (e == 0)
        e = queue_filter_check(&filter, error);
    queue_filter_done(&filter);
    return e < 0 ? failure_set(f, EX_USAGE, "%s", error) : 0;
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
    queue_print_more(answer, "");
}

static int list_queues(struct queue_command_line *q, struct failure *f)
{
    AUTO_FREE char *target = queue_page_target(q, "/v1/queues", q->limit, q->after);
    json_t *answer;

    if (!target)
        return queue_no_memory(f);
    if (client_ask(&q->client, "GET", target, NULL, &answer, f) < 0)
        return -1;
    if (q->client.json)
        client_print_json(answer);
    else
        print_queues(answer);
    json_decref(answer);
    return 0;
}

/* ---- the command line -------------------------------------------------------------------------- */

static const struct verb {
    const char *name;
    int (*run)(struct queue_command_line *q, struct failure *f);
} verbs[] = {
    { "list", queue_list },     { "show", queue_show },     { "operations", queue_operations },
    { "cancel", queue_cancel }, { "export", queue_export }, { "import", queue_import },
};

static int unknown(const char *name, struct failure *f)
{
    static const char *const names[] = { "list",    "show",   "hold",   "release", "retry",
                                         "reroute", "remove", "bounce", "edit",    "operations",
                                         "cancel",  "export", "import" };
    const char *near = nearest_name(name, names, ARRAY_LEN(names));

    if (near)
        return failure_set(f, EX_USAGE, "unknown command 'queue %s'; did you mean 'queue %s'?",
                           name, near);
    return failure_set(f, EX_USAGE,
                       "unknown command 'queue %s'; there are list, show, hold, release, retry, "
                       "reroute, remove, bounce, edit, operations, cancel, export and import",
                       name);
}

/* Options that only some verbs have must not be given to others in vain. */
static int check_options(const struct queue_command_line *q, const char *verb, struct failure *f)
{
    if (q->reason && strcmp(verb, "bounce") != 0)
        return failure_set(f, EX_USAGE, "--reason belongs to 'tern queue bounce'");
    if (q->to && strcmp(verb, "edit") != 0)
        return failure_set(f, EX_USAGE, "--to belongs to 'tern queue edit'");
    if ((q->all || q->dry_run) && !queue_verb_of(verb))
        return failure_set(f, EX_USAGE, "--%s does not belong to 'tern queue %s'",
                           q->all ? "all" : "dry-run", verb);
    return 0;
}

static int dispatch(struct queue_command_line *q, struct failure *f)
{
    const char *verb = q->operands.n ? q->operands.v[0] : NULL;

    if (check_filter(q, f) < 0 || check_options(q, verb ? verb : "list", f) < 0)
        return -1;
    if (!verb)
        return queue_conditions(q) ? queue_list(q, f) : list_queues(q, f);
    if (strcmp(verb, "list") == 0 && q->operands.n > 1)
        return failure_set(f, EX_USAGE, "'%s' is too much: tern queue list [FILTER]",
                           q->operands.v[1]);
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        if (strcmp(verb, verbs[i].name) == 0)
            return verbs[i].run(q, f);
    const struct queue_verb *order = queue_verb_of(verb);
    return order ? queue_order(q, order, f) : unknown(verb, f);
}

static const char usage[] = "queue [-c FILE] [--json]\n"
                            "queue list [FILTER]\n"
                            "queue show ID [--content]\n"
                            "queue hold|release|retry|reroute|remove ID... | FILTER | --all\n"
                            "queue bounce ID... | FILTER | --all [--reason TEXT]\n"
                            "queue edit ID... | FILTER | --all --to ADDRESS\n"
                            "queue operations\n"
                            "queue cancel OPERATION\n"
                            "queue export DIR [FILTER]\n"
                            "queue import DIR";

static const char about[] =
    "Alone: all queues (destinations), what they hold and how they fare.\n\n"
    "list        messages, one line for each recipient that waits\n"
    "show        one message: its envelope and what happened to each recipient\n"
    "hold        make no attempts until it is released\n"
    "release     end a hold, by ID the sender's too (mail that waits for ETRN: 'tern etrn')\n"
    "retry       try now, whatever the schedule says\n"
    "reroute     ask the policies anew where it goes, now\n"
    "remove      drop, without telling anybody\n"
    "bounce      return to the sender, now\n"
    "edit        send it to another address instead\n"
    "operations  what is being done, or was done lately, to what a filter means\n"
    "cancel      end such an operation; what it has done stands\n"
    "export      copy messages into files, ID.eml and ID.json; the queue stays as it is\n"
    "import      hand such files to the router, as new messages\n\n"
    "A FILTER is any of the conditions below; all that are given must hold. hold, release, retry\n"
    "and remove with --queue NAME alone mean that queue as a whole: on hold, it also keeps what\n"
    "comes later. Names and texts may be patterns with '*' and '?'. docs/queue.md says more.";

int cmd_queue(int argc, char **argv)
{
    struct queue_command_line q = { .client = { .config = DEFAULT_CONFIG } };
    const struct arg_option options[] = {
        ARG_TEXT('q', "queue", "NAME", &q.filter[0], "the queue (destination) of that name"),
        ARG_TEXT(0, "destination", "DOMAIN", &q.filter[1], "recipients in that domain"),
        ARG_TEXT(0, "sender", "ADDRESS", &q.filter[2],
                 "from a@example.com, @example.com, or <> (notifications)"),
        ARG_TEXT(0, "recipient", "ADDRESS", &q.filter[3], "to a@example.com or @example.com"),
        ARG_TEXT(0, "older", "DURATION", &q.filter[4], "received longer ago than 30m, 2h, 5d"),
        ARG_TEXT(0, "newer", "DURATION", &q.filter[5], "received since then"),
        ARG_TEXT(0, "larger", "SIZE", &q.filter[6], "of more than 4096, 100K, 5M"),
        ARG_TEXT(0, "smaller", "SIZE", &q.filter[7], "of less than that"),
        ARG_TEXT(0, "state", "STATE", &q.filter[8],
                 "ready, active, deferred (or scheduled: these three),\nwaiting (for ETRN), held"),
        ARG_TEXT(0, "reply", "TEXT", &q.filter[9],
                 "last answered with 451, 4xx, 4.7.1, 4.7.x, or that text"),
        ARG_TEXT(0, "route", "TEXT", &q.filter[10], "whose route reads so ('tern queue show')"),
        ARG_TEXT(0, "policy", "TEXT", &q.filter[11], "decided by file:line, or part of that"),
        ARG_FLAG(0, "all", &q.all, "everything in the queue, instead of a filter"),
        ARG_FLAG(0, "dry-run", &q.dry_run, "only count what would be concerned, and show some"),
        ARG_TEXT(0, "reason", "TEXT", &q.reason, "bounce: what its sender is told"),
        ARG_TEXT(0, "to", "ADDRESS", &q.to, "edit: the new recipient"),
        ARG_FLAG(0, "content", &q.content, "show: print the message itself"),
        ARG_TEXT('n', "limit", "N", &q.limit, "list at most so many (default 100, at most 1000)"),
        ARG_TEXT(0, "after", "MARK", &q.after, "list from there on: what an earlier list said"),
        CLIENT_OPTIONS(&q.client),
    };
    const struct arg_command command = {
        .name = "queue",
        .usage = usage,
        .about = about,
        .options = options,
        .n_options = ARRAY_LEN(options),
        .max_operands = ARGS_MAX,
    };
    struct failure f = { 0 };
    int exit_code;

    if (!args_get(&command, argc, argv, &q.operands, &exit_code))
        return exit_code;
    exit_code = dispatch(&q, &f);
    return exit_code < 0 ? failure_print(&f) : exit_code;
}
