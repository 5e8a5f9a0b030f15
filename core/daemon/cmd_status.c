/* cmd_status.c - tern status: what the running router does. Layer: daemon. */
#include <inttypes.h>
#include <sysexits.h>

#include "base/units.h"
#include "daemon/args.h"
#include "daemon/cmd.h"
#include "daemon/columns.h"
#include "daemon/control_client.h"

static int64_t counter(const json_t *answer, const char *name)
{
    return json_int_of(json_object_get(answer, "counters"), name);
}

static void print_reload(const json_t *answer)
{
    const json_t *reload = json_object_get(answer, "reload");
    char ago[40];

    printf("configuration  %s, loaded %" PRId64 " time%s\n", json_text_of(answer, "config"),
           json_int_of(answer, "generation"), json_int_of(answer, "generation") == 1 ? "" : "s");
    if (json_is_object(reload) && !json_is_true(json_object_get(reload, "ok")))
        printf("               the last reload (%s) failed: %s\n",
               time_relative(json_text_of(reload, "time"), wall_now(), ago),
               json_text_of(reload, "error"));
}

static void print_defence(const json_t *answer)
{
    int64_t stressed = counter(answer, "workers_stressed");
    int64_t limited = counter(answer, "clients_limited"), early = counter(answer, "early_talkers");

    if (stressed)
        printf("               UNDER STRESS: sessions are scarce in %" PRId64
               " worker%s, so clients have less time\n",
               stressed, stressed == 1 ? "" : "s");
    if (limited || early)
        printf("               refused: %" PRId64 " times a client that wanted too much, %" PRId64
               " that talked before the greeting\n",
               limited, early);
}

static void print_traffic(const json_t *answer)
{
    char size[16];

    printf("sessions       %" PRId64 " open, %" PRId64 " in all\n",
           counter(answer, "sessions_open"), counter(answer, "connections"));
    print_defence(answer);
    printf("received       %" PRId64 " messages, %" PRId64 " recipients, %s; %" PRId64
           " messages and %" PRId64 " recipients refused\n",
           counter(answer, "messages_accepted"), counter(answer, "recipients_accepted"),
           size_text(counter(answer, "octets_accepted"), size),
           counter(answer, "messages_rejected"), counter(answer, "recipients_rejected"));
    printf("sent           %" PRId64 " delivered, %" PRId64 " deferred, %" PRId64
           " bounced, %" PRId64 " expired, %" PRId64 " discarded\n",
           counter(answer, "delivered"), counter(answer, "deferred"), counter(answer, "bounced"),
           counter(answer, "expired"), counter(answer, "discarded"));
    printf("connections    %" PRId64 " out now, %" PRId64 " in all, used again %" PRId64 " times\n",
           counter(answer, "connections_out_open"), counter(answer, "connections_out"),
           counter(answer, "connections_out_reused"));
    if (counter(answer, "tls_out_failures"))
        printf("TLS to MX      %" PRId64 " connections, %" PRId64
               " failures: see 'tern tls-report'\n",
               counter(answer, "tls_out_sessions"), counter(answer, "tls_out_failures"));
    if (counter(answer, "hooks_failed"))
        printf("policies       %" PRId64 " hooks failed: see the log\n",
               counter(answer, "hooks_failed"));
}

static void print_spool(const json_t *answer)
{
    const json_t *spool = json_object_get(answer, "spool"), *log = json_object_get(answer, "log");
    char used[16], space[16];

    printf("queue          %" PRId64 " messages for %" PRId64 " recipients in %" PRId64 " queues\n",
           json_int_of(spool, "messages"), json_int_of(spool, "recipients"),
           json_int_of(spool, "queues"));
    printf("spool          %s: %s used", json_text_of(spool, "path"),
           size_text(json_int_of(spool, "used"), used));
    if (json_int_of(spool, "free_space")) /* 0: it has not looked yet */
        printf(", %s free on its disk", size_text(json_int_of(spool, "free_space"), space));
    putchar('\n');
    if (json_int_of(spool, "disk_errors"))
        printf("               its disk failed %" PRId64 " commits: see 'tern spool stats'\n",
               json_int_of(spool, "disk_errors"));
    if (json_int_of(log, "lost"))
        printf("log            %" PRId64 " lines lost: %s does not take them\n",
               json_int_of(log, "lost"), json_text_of(log, "to"));
}

static void print_sources(const json_t *answer)
{
    const json_t *one;
    const char *lead = "sources        ";
    size_t i;

    json_array_foreach(json_object_get(answer, "sources"), i, one)
    {
        printf("%s%s: %" PRId64, lead, json_text_of(one, "address"), json_int_of(one, "open"));
        if (json_is_integer(json_object_get(one, "concurrency")))
            printf(" of %" PRId64, json_int_of(one, "concurrency"));
        printf(" connections now, %" PRId64 " messages", json_int_of(one, "messages"));
        if (*json_text_of(one, "rate"))
            printf(", rate %s%s", json_text_of(one, "rate"),
                   json_int_of(one, "rate_left") ? "" : " (used up at this moment)");
        if (json_is_true(json_object_get(one, "missing")))
            printf("; NOT ON THIS MACHINE");
        putchar('\n');
        lead = "               ";
    }
}

/* "runs as       tern; sandbox: landlock 7, seccomp" */
static void print_privileges(const json_t *answer)
{
    const json_t *p = json_object_get(answer, "privileges");

    printf("runs as        %s%s; sandbox: %s\n", json_text_of(p, "user"),
           json_is_true(json_object_get(p, "root")) ? ", WHO MAY DO EVERYTHING" : "",
           json_text_of(p, "sandbox"));
    if (json_is_string(json_object_get(p, "weaker")))
        printf("               weaker than it could be: %s\n", json_text_of(p, "weaker"));
    if (json_int_of(p, "refused"))
        printf("               %" PRId64 " system calls refused: see the log\n",
               json_int_of(p, "refused"));
}

static void print_status(const json_t *answer)
{
    const json_t *listen = json_object_get(answer, "listen"), *one;
    char up[32];
    size_t i;

    printf("tern %s on %s is %s: process %" PRId64 ", up %s, %" PRId64 " worker%s\n",
           json_text_of(answer, "version"), json_text_of(answer, "hostname"),
           json_text_of(answer, "state"), json_int_of(answer, "pid"),
           duration_text(json_int_of(answer, "uptime_s") * 1000, up),
           json_int_of(answer, "workers"), json_int_of(answer, "workers") == 1 ? "" : "s");
    printf("listens on    ");
    json_array_foreach(listen, i, one) printf(" %s", json_string_value(one));
    putchar('\n');
    print_privileges(answer);
    print_reload(answer);
    print_traffic(answer);
    print_sources(answer);
    print_spool(answer);
}

int cmd_status(int argc, char **argv)
{
    struct client client = { .config = DEFAULT_CONFIG };
    const struct arg_option options[] = { CLIENT_OPTIONS(&client) };
    const struct arg_command command = {
        .name = "status",
        .usage = "status [-c FILE] [--json]",
        .about = "Says what the running router does: where it listens, what came and went, what "
                 "waits.",
        .options = options,
        .n_options = ARRAY_LEN(options),
    };
    struct arg_list operands;
    struct failure f = { 0 };
    json_t *answer;
    int exit_code;

    if (!args_get(&command, argc, argv, &operands, &exit_code))
        return exit_code;
    if (client_ask(&client, "GET", "/v1/status", NULL, &answer, &f) < 0)
        return failure_print(&f);
    if (client.json)
        client_print_json(answer);
    else
        print_status(answer);
    json_decref(answer);
    return EX_OK;
}
