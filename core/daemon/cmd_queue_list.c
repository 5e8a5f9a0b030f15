/* cmd_queue_list.c - tern queue list and show: messages. Layer: daemon. Interface: cmd_queue.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <sysexits.h>

#include "base/units.h"
#include "daemon/cmd_queue.h"
#include "daemon/columns.h"
#include "daemon/control_call.h"

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

bool queue_print_messages(const json_t *messages)
{
    static const char *const headings[] = { "ID",    "STATE",  "DUE",       "AGE>",  "TRIES>",
                                            "SIZE>", "SENDER", "RECIPIENT", "QUEUE", NULL };
    int64_t now = wall_now();
    const json_t *m;
    struct columns c;
    char text[40];
    size_t i;

    columns_init(&c, headings);
    json_array_foreach(messages, i, m)
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
    bool any = c.n_cells > 0;
    if (any)
        columns_print(&c);
    columns_done(&c);
    return any;
}

/* What is narrowed comes in pages that may be short: as many as the limit asks for. *ret: the answer, as
 * of one page. */
static int collect(struct queue_command_line *q, json_t **ret, struct failure *f)
{
    uint64_t limit = 100;
    json_t *all = json_array(), *page = NULL;
    AUTO_FREE char *after = q->after ? str_dup(str_of(q->after)) : NULL;

    if (q->limit &&
        (str_to_u64(str_of(q->limit), &limit) < 0 || limit == 0 || limit > CONTROL_PAGE_MAX)) {
        json_decref(all);
        return failure_set(f, EX_USAGE, "--limit must be a number from 1 to %d", CONTROL_PAGE_MAX);
    }
    do {
        char left[24];
        snprintf(left, sizeof(left), "%zu", (size_t)limit - json_array_size(all));
        AUTO_FREE char *target = queue_page_target(q, "/v1/messages", left, after);
        json_decref(page);
        page = NULL;
        if (!target || client_ask(&q->client, "GET", target, NULL, &page, f) < 0) {
            json_decref(all);
            return target ? -1 : queue_no_memory(f);
        }
        json_array_extend(all, json_object_get(page, "messages"));
        free(after);
        after = *json_text_of(page, "next") ? str_dup(str_of(json_text_of(page, "next"))) : NULL;
    } while (after && json_array_size(all) < limit);
    json_object_set_new(page, "messages", all);
    *ret = page;
    return 0;
}

int queue_list(struct queue_command_line *q, struct failure *f)
{
    json_t *answer = NULL;

    if (collect(q, &answer, f) < 0)
        return -1;
    if (q->client.json) {
        client_print_json(answer);
    } else {
        const char *queue = queue_only(q);
        bool any = queue_print_messages(json_object_get(answer, "messages"));
        if (!any && queue)
            printf("Nothing waits in the queue %s.\n", queue);
        else if (!any && queue_conditions(q))
            printf("Nothing in the queue is meant by that.\n");
        else if (!any)
            printf("The queue is empty.\n");
        queue_print_more(answer, " list");
    }
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
    json_array_foreach(json_object_get(m, "changes"), i, r)
        print_field(i ? "" : "changed", change_text(r, text, sizeof(text)));
    if (json_is_true(json_object_get(m, "requiretls")))
        print_field("demands", "REQUIRETLS: over verified TLS, or not at all");
    if (json_is_true(json_object_get(m, "tls_optional")))
        print_field("demands", "no TLS (TLS-Required: No)");
    json_array_foreach(json_object_get(m, "recipients"), i, r) print_recipient(r, now);
    if (*json_text_of(m, "next"))
        printf("\nThere are more recipients: --after '%s'\n", json_text_of(m, "next"));
    printf("\n'tern why %s' says more.\n", json_text_of(m, "id"));
}

static int show_message(struct queue_command_line *q, const char *id, struct failure *f)
{
    AUTO_FREE char *path = queue_target("/v1/messages/", id, q->content ? "/content" : "/why");
    AUTO_FREE char *target =
        path && !q->content ? queue_page_target(q, path, q->limit, q->after) : NULL;
    json_t *answer;

    if (!path || (!q->content && !target))
        return queue_no_memory(f);
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

int queue_show(struct queue_command_line *q, struct failure *f)
{
    if (q->operands.n != 2 || queue_conditions(q))
        return failure_set(f, EX_USAGE, "of which message? tern queue show ID");
    return show_message(q, q->operands.v[1], f);
}
