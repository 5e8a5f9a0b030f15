/* cmd_spool_stats.c - tern spool stats. Layer: daemon. */
#include <inttypes.h>
#include <sysexits.h>

#include "base/units.h"
#include "daemon/cmd_spool.h"
#include "daemon/columns.h"

/* ---- for people ------------------------------------------------------------------------------- */

static void print_line(const char *what, const json_t *o, const char *name)
{
    char text[16];

    printf("  %-22s%s\n", what, size_text(json_int_of(o, name), text));
}

static void print_sizes(const json_t *o)
{
    printf("%s (format %" PRId64 ")\n", json_text_of(o, "path"), json_int_of(o, "format"));
    print_line("file", o, "file_size");
    print_line("in use", o, "used");
    print_line("free in the file", o, "free");
    if (json_is_object(json_object_get(o, "writer"))) /* else it is that of this tool */
        print_line("map", o, "map_size");
    print_line("free on the disk", o, "disk_free");
    printf("%" PRId64 " messages for %" PRId64 " recipients in %" PRId64 " queue%s: %" PRId64
           " scheduled, %" PRId64 " waiting, %" PRId64 " held\n",
           json_int_of(o, "messages"), json_int_of(o, "recipients"), json_int_of(o, "queues"),
           json_int_of(o, "queues") == 1 ? "" : "s", json_int_of(o, "scheduled"),
           json_int_of(o, "waiting"), json_int_of(o, "held"));
}

static void print_tables(const json_t *o)
{
    static const char *const headings[] = { "TABLE", "ROWS>", "SIZE>", NULL };
    const json_t *t;
    struct columns c;
    char text[16];
    size_t i;

    columns_init(&c, headings);
    json_array_foreach(json_object_get(o, "tables"), i, t)
    {
        columns_add(&c, "%s", json_text_of(t, "name"));
        columns_add(&c, "%" PRId64, json_int_of(t, "rows"));
        columns_add(&c, "%s", size_text(json_int_of(t, "bytes"), text));
    }
    columns_print(&c);
    columns_done(&c);
}

static double per(int64_t a, int64_t b)
{
    return b > 0 ? (double)a / (double)b : 0;
}

static void print_latency(const char *what, const json_t *l)
{
    printf("  %-22shalf within %.2f ms, 99 %% within %.2f ms (%" PRId64 ")\n", what,
           (double)json_int_of(l, "p50_us") / 1000, (double)json_int_of(l, "p99_us") / 1000,
           json_int_of(l, "count"));
}

static void print_writer(const json_t *w)
{
    int64_t commits = json_int_of(w, "commits"), accepted = json_int_of(w, "messages_accepted");
    char text[16];

    if (!json_is_object(w)) {
        printf("How commits fare is known only to a running router.\n");
        return;
    }
    printf("since the router was started\n");
    printf("  %-22s%" PRId64 ", with %.1f changes each (%" PRId64 " at most)\n", "commits", commits,
           per(json_int_of(w, "ops") + json_int_of(w, "failed_ops"), commits),
           json_int_of(w, "max_group"));
    printf("  %-22s%" PRId64 ", %.2f for each of %" PRId64 " messages accepted\n",
           "waits for the disk", json_int_of(w, "syncs"), per(json_int_of(w, "syncs"), accepted),
           accepted);
    printf("  %-22s%s\n", "written as values", size_text(json_int_of(w, "bytes"), text));
    print_latency("one commit", json_object_get(w, "commit"));
    print_latency("one change, in all", json_object_get(w, "unit"));
    printf("  %-22s%" PRId64 " changes refused or failed, %" PRId64
           " commits failed by the disk, %" PRId64 " begun again, opened anew %" PRId64 " times\n",
           "trouble", json_int_of(w, "failed_ops"), json_int_of(w, "disk_errors"),
           json_int_of(w, "reruns"), json_int_of(w, "reopened"));
}

static void print_classes(const json_t *list, const char *name, bool sizes)
{
    char text[32];
    const json_t *e;
    size_t i;

    printf("  by %s:", name);
    json_array_foreach(list, i, e)
    {
        const json_t *up_to = json_object_get(e, "up_to");
        if (json_is_integer(up_to)) {
            if (sizes)
                size_text(json_integer_value(up_to), text);
            else
                duration_text(json_integer_value(up_to), text);
            printf(" up to %s %" PRId64 ",", text, json_int_of(e, "count"));
        } else {
            printf(" more %" PRId64 "\n", json_int_of(e, "count"));
        }
    }
}

static void print_survey(const json_t *s)
{
    char total[16], when[40];

    if (!json_is_object(s))
        return;
    printf("messages: %" PRId64 " with %s", json_int_of(s, "messages"),
           size_text(json_int_of(s, "octets"), total));
    if (*json_text_of(s, "oldest"))
        printf(", the oldest came %s", time_relative(json_text_of(s, "oldest"), wall_now(), when));
    putchar('\n');
    print_classes(json_object_get(s, "by_age"), "age", false);
    print_classes(json_object_get(s, "by_size"), "size", true);
    if (json_int_of(s, "unreadable"))
        printf("  %" PRId64 " cannot be read: see 'tern spool check'\n",
               json_int_of(s, "unreadable"));
}

/* ---- from the files --------------------------------------------------------------------------- */

static json_t *class_json(json_t *up_to, uint64_t count)
{
    return json_pack("{s:o, s:I}", "up_to", up_to, "count", (json_int_t)count);
}

static json_t *survey_json(const struct spool_survey *s)
{
    json_t *ages = json_array(), *sizes = json_array();
    char iso[32];

    for (int i = 0; i < SPOOL_AGES; i++)
        json_array_append_new(
            ages, class_json(i < SPOOL_AGES - 1 ? json_integer(spool_age_ms[i]) : json_null(),
                             s->by_age[i]));
    for (int i = 0; i < SPOOL_SIZES; i++)
        json_array_append_new(sizes, class_json(i < SPOOL_SIZES - 1
                                                    ? json_integer((json_int_t)spool_size_bytes[i])
                                                    : json_null(),
                                                s->by_size[i]));
    return json_pack("{s:I, s:I, s:I, s:o, s:o, s:o}", "messages", (json_int_t)s->messages,
                     "octets", (json_int_t)s->octets, "unreadable", (json_int_t)s->unreadable,
                     "oldest",
                     s->oldest_ms ? json_string(date_iso8601(s->oldest_ms, iso)) : json_null(),
                     "by_age", ages, "by_size", sizes);
}

/* survey: the messages alone are wanted, the rest is there. */
static int read_files(const struct spool_command_line *l, const char *path, json_t **answer,
                      struct failure *f)
{
    struct spool_survey survey;
    struct spool_queue sums = { 0 };
    struct spool_stats st;
    struct spool *s;

    if (spool_open_for_tool(path, &s, f) < 0)
        return -1;
    int e = 0;
    if (!*answer) {
        e = spool_stats(s, &st);
        if (e == 0)
            e = spool_sum_queues(s, &sums);
        if (e == 0) {
            *answer = spool_json(path, &st, &sums);
            json_object_set_new(*answer, "writer", json_null());
        }
    }
    if (e == 0 && l->messages)
        e = spool_survey_messages(s, wall_now(), &survey);
    if (e == 0 && l->messages)
        json_object_set_new(*answer, "survey", survey_json(&survey));
    spool_close(s);
    return e < 0
               ? failure_set(f, exit_code_of(e), "cannot read the spool %s: %s", path, strerror(-e))
               : 0;
}

static int get_stats(const struct spool_command_line *l, json_t **ret, struct failure *f)
{
    struct client quiet = l->client; /* an error that the files make good is not to be told */
    json_t *answer = NULL;
    char *path;

    quiet.json = false;
    if (!l->folder && client_ask(&quiet, "GET", "/v1/spool", NULL, &answer, f) < 0 &&
        f->exit_code != EX_UNAVAILABLE)
        return -1;
    *ret = answer;
    if (answer && !l->messages)
        return 0;
    if (spool_folder_of(l, &path, f) < 0)
        return -1;
    int e = read_files(l, path, ret, f);
    free(path);
    return e;
}

int spool_command_stats(const struct spool_command_line *l)
{
    struct failure f = { 0 };
    json_t *answer = NULL;

    if (get_stats(l, &answer, &f) < 0) {
        json_decref(answer);
        return failure_print(&f);
    }
    if (l->client.json) {
        client_print_json(answer);
    } else {
        print_sizes(answer);
        print_tables(answer);
        print_survey(json_object_get(answer, "survey"));
        print_writer(json_object_get(answer, "writer"));
    }
    json_decref(answer);
    return EX_OK;
}
