/* cmd_why.c - tern why: where a message's recipients are, what decided that, what was tried, and what would
 * make them go sooner (ROUTING.md Q12). Layer: daemon. */
#include <inttypes.h>
#include <stdarg.h>
#include <sysexits.h>

#include "base/units.h"
#include "daemon/args.h"
#include "daemon/cmd.h"
#include "daemon/columns.h"
#include "daemon/control_client.h"
#include "daemon/control_request.h"

enum { LABEL = 9 };

/* "  label      text". A label of "" is the next line of the one before. */
static void PRINTF_LIKE(2, 3) line(const char *label, const char *fmt, ...)
{
    char text[2048];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    clean_text(text);
    printf("  %-*s  %s\n", LABEL, label, text);
}

/* "2026-11-23 18:51:33Z": people do not count milliseconds. dst has 32 bytes. */
static const char *moment(const char *iso, char *dst)
{
    if (strlen(iso) < 19)
        *dst = '\0';
    else
        snprintf(dst, 32, "%.10s %.8sZ", iso, iso + 11);
    return dst;
}

static const char *plural(int64_t n)
{
    return n == 1 ? "" : "s";
}

/* ---- attempts ---------------------------------------------------------------------------------- */

/* "mx.example.com [192.0.2.1]:25  TLSv1.3  RCPT TO: 451 4.7.1 try later" */
static void print_try(const json_t *t)
{
    const char *host = json_text_of(t, "host"), *tls = json_text_of(t, "tls"),
               *stage = json_text_of(t, "stage"), *enhanced = json_text_of(t, "enhanced");
    char code[16] = "";

    if (json_int_of(t, "code"))
        snprintf(code, sizeof(code), "%" PRId64 " ", json_int_of(t, "code"));
    line("", "    %s%s%s%s%s%s%s%s%s%s", host, *host ? "  " : "", tls, *tls ? "  " : "", stage,
         *stage ? ": " : "", code, enhanced, *enhanced ? " " : "", json_text_of(t, "text"));
}

static void print_attempt(const char *label, const json_t *a, int64_t now)
{
    const char *by = json_text_of(a, "decided_by");
    char when[40], took[32], at[32];
    const json_t *t;
    size_t i;

    line(label, "%-3" PRId64 " %s, %s, took %s: %s%s%s", json_int_of(a, "number"),
         moment(json_text_of(a, "time"), at), time_relative(json_text_of(a, "time"), now, when),
         duration_text(json_int_of(a, "took_ms"), took),
         strcmp(json_text_of(a, "outcome"), "host_failed") == 0 ? "no host could be used"
                                                                : json_text_of(a, "outcome"),
         *by ? " by the result hook, " : "", by);
    json_array_foreach(json_object_get(a, "tries"), i, t) print_try(t);
}

static void print_attempts(const json_t *history, const char *label, int64_t now)
{
    const json_t *a;
    size_t i;

    json_array_foreach(json_object_get(history, "attempts"), i, a)
    {
        print_attempt(i ? "" : label, a, now);
        if (i == 0 && json_int_of(history, "left_out"))
            line("", "... %" PRId64 " more, not kept", json_int_of(history, "left_out"));
    }
}

/* Where it could go, as the last attempt found it. */
static void print_plan(const json_t *history)
{
    const json_t *plan = json_object_get(history, "plan"), *o;
    size_t i;

    if (!json_is_object(plan))
        return;
    json_array_foreach(json_object_get(plan, "hosts"), i, o)
    {
        char preference[32] = "";
        if (json_is_integer(json_object_get(o, "preference")))
            snprintf(preference, sizeof(preference), ", preference %" PRId64,
                     json_int_of(o, "preference"));
        line(i ? "" : "hosts", "%-3zu %s%s", i + 1, json_text_of(o, "host"), preference);
    }
    json_array_foreach(json_object_get(plan, "discarded"), i, o)
        line(i ? "" : "left out", "-   %s: %s", json_text_of(o, "what"), json_text_of(o, "reason"));
}

/* ---- one recipient ------------------------------------------------------------------------------ */

static void print_waits(const json_t *r, int64_t now)
{
    const json_t *waits = json_object_get(r, "waits"), *s;
    const char *since = json_text_of(waits, "since"), *until = json_text_of(waits, "until");
    char when[40], at[32];
    size_t i;

    line("waits", "%s", json_text_of(waits, "text"));
    if (*since)
        line("since", "%s, %s", moment(since, at), time_relative(since, now, when));
    if (*until)
        line("next try", "%s, %s", moment(until, at), time_relative(until, now, when));
    json_array_foreach(json_object_get(waits, "sooner"), i, s)
    {
        const char *command = json_text_of(s, "command");
        line(i ? "" : "sooner", "%s%s%s%s", command, *command ? "  (" : "", json_text_of(s, "text"),
             *command ? ")" : "");
    }
}

static void print_route(const json_t *r)
{
    const char *reason = json_text_of(r, "reason"), *by = json_text_of(r, "decided_by");
    bool current = json_is_true(json_object_get(r, "policy_is_current"));

    line("route", "%s%s%s%s", json_text_of(r, "route"), *reason ? " (" : "", reason,
         *reason ? ")" : "");
    line("decided", "%s%s", *by ? by : "default",
         current ? ""
                 : "; the policies have changed since, and are asked again before the next try");
}

static void print_recipient(const json_t *r, int64_t now)
{
    const char *expires = json_text_of(r, "expires"), *address = json_text_of(r, "address");
    int64_t attempts = json_int_of(r, "attempts");
    char when[40], at[32], name[512];

    str_copy(str_of(*address ? address : "(a record that cannot be read)"), name, sizeof(name));
    clean_text(name);
    printf("\n%s\n", name);
    print_waits(r, now);
    line("queue", "%s, %s, %" PRId64 " attempt%s", json_text_of(r, "queue"),
         json_text_of(r, "state"), attempts, plural(attempts));
    if (!*address)
        return;
    print_route(r);
    line("returned", "%s%s%s",
         *expires ? moment(expires, at) : "never, whatever becomes of its hosts",
         *expires ? ", " : "", *expires ? time_relative(expires, now, when) : "");
    print_plan(json_object_get(r, "history"));
    print_attempts(json_object_get(r, "history"), "attempts", now);
}

/* ---- the message, the queues --------------------------------------------------------------------- */

/* What policies did to its header. */
static void print_changes(const json_t *m)
{
    const json_t *c;
    char text[512];
    size_t i;

    json_array_foreach(json_object_get(m, "changes"), i, c)
        line(i ? "" : "changed", "%s", change_text(c, text, sizeof(text)));
    if (json_int_of(m, "changes_left_out"))
        line("", "... %" PRId64 " more changes, not kept", json_int_of(m, "changes_left_out"));
}

/* What its sender said of time and rank. */
static void print_times(const json_t *m, int64_t now)
{
    const json_t *by = json_object_get(m, "deliver_by");
    const char *hold = json_text_of(m, "hold_until"), *at = json_text_of(by, "at");
    bool back = strcmp(json_text_of(by, "mode"), "return") == 0;
    char when[40], text[32];

    if (*hold)
        line("hold", "its sender wants it to go at %s, %s", moment(hold, text),
             time_relative(hold, now, when));
    if (*at)
        line("time", "its sender %s if it is not delivered by %s, %s",
             back ? "wants it back" : "wants to be told", moment(at, text),
             time_relative(at, now, when));
    if (json_int_of(m, "priority"))
        line("priority", "%" PRId64, json_int_of(m, "priority"));
}

static void print_message(const json_t *m, int64_t now)
{
    const char *sender = json_text_of(m, "sender"), *client = json_text_of(m, "client"),
               *helo = json_text_of(m, "helo"), *identity = json_text_of(m, "identity"),
               *service = json_text_of(m, "service");
    char size[16], when[40], at[32];

    printf("message %s\n", json_text_of(m, "id"));
    line("from", "%s", *sender ? sender : "<>");
    line("size", "%s, %" PRId64 " recipient%s at first", size_text(json_int_of(m, "size"), size),
         json_int_of(m, "recipients_at_first"), plural(json_int_of(m, "recipients_at_first")));
    line("received", "%s, %s", moment(json_text_of(m, "received"), at),
         time_relative(json_text_of(m, "received"), now, when));
    if (json_is_true(json_object_get(m, "notification")))
        line("client", "none: it is a notification, made here");
    else
        line("client", "%s%s%s%s%s%s%s%s", client, *helo ? ", said " : "", helo,
             *service ? ", by " : "", service,
             json_is_true(json_object_get(m, "tls")) ? ", TLS" : "", *identity ? ", as " : "",
             identity);
    print_changes(m);
    if (json_is_true(json_object_get(m, "requiretls")))
        line("demands", "REQUIRETLS: over verified TLS, or not at all");
    if (json_is_true(json_object_get(m, "tls_optional")))
        line("demands", "no TLS (TLS-Required: No), whatever the recipients' domain says");
    print_times(m, now);
}

/* What the recipients in it share: failures of hosts are facts of the queue. */
static void print_queue(const json_t *q, int64_t now)
{
    const json_t *history = json_object_get(q, "history");
    int64_t failures = json_int_of(q, "failures");
    char when[40], at[32], name[512];

    str_copy(str_of(json_text_of(q, "name")), name, sizeof(name));
    clean_text(name);
    printf("\nqueue %s\n", name);
    line("holds", "%" PRId64 " scheduled, %" PRId64 " waiting to be released, %" PRId64 " held",
         json_int_of(q, "scheduled"), json_int_of(q, "waiting"), json_int_of(q, "held"));
    if (json_int_of(q, "active"))
        line("active", "%" PRId64 " of at most %" PRId64 " connections", json_int_of(q, "active"),
             json_int_of(q, "concurrency"));
    if (failures)
        line("failing", "%" PRId64 " time%s in a row, since %s, %s", failures, plural(failures),
             moment(json_text_of(q, "failing_since"), at),
             time_relative(json_text_of(q, "failing_since"), now, when));
    print_plan(history);
    print_attempts(history, "attempts", now);
}

static void print_why(const json_t *answer)
{
    int64_t now = wall_now();
    const json_t *o;
    size_t i;

    print_message(answer, now);
    json_array_foreach(json_object_get(answer, "recipients"), i, o) print_recipient(o, now);
    json_array_foreach(json_object_get(answer, "queues"), i, o) print_queue(o, now);
    if (*json_text_of(answer, "next"))
        printf("\nThere are more recipients: --after '%s'\n", json_text_of(answer, "next"));
}

/* ---- the command ---------------------------------------------------------------------------------- */

static char *target_of(const char *id, const char *limit, const char *after)
{
    struct buf b;
    char *text = NULL;

    buf_init(&b, 0);
    buf_add_str(&b, STR("/v1/messages/"));
    control_encode(str_of(id), &b);
    buf_add_str(&b, STR("/why?limit="));
    control_encode(str_of(limit ? limit : "100"), &b);
    if (after) {
        buf_add_str(&b, STR("&after="));
        control_encode(str_of(after), &b);
    }
    if (!b.failed)
        text = str_dup(buf_str(&b));
    buf_done(&b);
    return text;
}

int cmd_why(int argc, char **argv)
{
    struct client client = { .config = DEFAULT_CONFIG };
    const char *limit = NULL, *after = NULL;
    const struct arg_option options[] = {
        ARG_TEXT('n', "limit", "N", &limit,
                 "at most so many recipients (default 100, at most 1000)"),
        ARG_TEXT(0, "after", "MARK", &after, "go on from there: what an earlier answer said"),
        CLIENT_OPTIONS(&client),
    };
    const struct arg_command command = {
        .name = "why",
        .usage = "why ID [-c FILE] [--json]",
        .about = "Why is that message still here? For each recipient that is left: what it waits "
                 "for and what\nwould make it go sooner, what decided where it goes, and what was "
                 "tried.\n'tern queue list' shows the ids.",
        .options = options,
        .n_options = ARRAY_LEN(options),
        .min_operands = 1,
        .max_operands = 1,
    };
    struct arg_list operands;
    struct failure f = { 0 };
    json_t *answer;
    int exit_code;

    if (!args_get(&command, argc, argv, &operands, &exit_code))
        return exit_code;
    AUTO_FREE char *target = target_of(operands.v[0], limit, after);
    if (!target) {
        failure_set(&f, EX_SOFTWARE, "out of memory");
        return failure_print(&f);
    }
    if (client_ask(&client, "GET", target, NULL, &answer, &f) < 0)
        return failure_print(&f);
    if (client.json)
        client_print_json(answer);
    else
        print_why(answer);
    json_decref(answer);
    return EX_OK;
}
