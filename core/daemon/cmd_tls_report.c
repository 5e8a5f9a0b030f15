/* cmd_tls_report.c - tern tls-report: how TLS with the MX of domains fared (RFC 8460). Layer: daemon. */
#include <inttypes.h>
#include <stdio.h>
#include <sysexits.h>

#include "base/units.h"
#include "daemon/args.h"
#include "daemon/cmd.h"
#include "daemon/columns.h"
#include "daemon/control_client.h"
#include "daemon/control_request.h"
#include "daemon/tls_report_json.h"

enum { DAY_MS = 24 * 60 * 60 * 1000, DAY_TEXT = 10 };

/* ---- the question ----------------------------------------------------------------------------- */

/* "today", "yesterday" (UTC) or "2026-11-30" to dst, which has 32 bytes. */
static bool take_day(const char *text, char *dst)
{
    struct str s = str_of(text);

    if (!text || str_eq(s, STR("today")))
        date_iso8601(wall_now(), dst);
    else if (str_eq(s, STR("yesterday")))
        date_iso8601(wall_now() - DAY_MS, dst);
    else if (tls_report_day(s))
        str_copy(s, dst, 32);
    else
        return false;
    dst[DAY_TEXT] = '\0';
    return true;
}

/* domain: NULL: all of them, from behind `after` on. */
static char *target_of(const char *day, const char *domain, const char *after)
{
    struct buf b;
    char *text = NULL;

    buf_init(&b, 0);
    buf_add_str(&b, STR("/v1/tls-reports"));
    if (domain) {
        buf_add_char(&b, '/');
        control_encode(str_of(domain), &b);
    }
    buf_printf(&b, "?day=%s", day);
    if (after) {
        buf_add_str(&b, STR("&after="));
        control_encode(str_of(after), &b);
    }
    if (!b.failed)
        text = str_dup(buf_str(&b));
    buf_done(&b);
    return text;
}

static int ask(const struct client *client, const char *day, const char *domain, const char *after,
               json_t **ret, struct failure *f)
{
    AUTO_FREE char *target = target_of(day, domain, after);

    if (!target)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    return client_ask(client, "GET", target, NULL, ret, f);
}

/* ---- all domains ------------------------------------------------------------------------------ */

/* The result that most failures had, of all of the domain's policies. */
static const char *worst_of(const json_t *report)
{
    const json_t *policy, *failure;
    const char *worst = "";
    int64_t most = 0;
    size_t i, k;

    json_array_foreach(json_object_get(report, "policies"), i, policy)
    {
        json_array_foreach(json_object_get(policy, "failure-details"), k, failure)
        {
            int64_t n = json_int_of(failure, "failed-session-count");
            if (n > most)
                worst = json_text_of(failure, "result-type");
            most = MAX(most, n);
        }
    }
    return worst;
}

/* The domain that all policies of the report are about: it stands in its id, "DAY.DOMAIN@US". */
static struct str domain_of(const json_t *report)
{
    struct str id = str_from(str_of(json_text_of(report, "report-id")), DAY_TEXT + 1);
    ptrdiff_t at = str_rchr(id, '@');

    return at > 0 ? str_first(id, (size_t)at) : id;
}

static void add_domain(struct columns *c, const json_t *report)
{
    const json_t *policy;
    char types[64] = "";
    int64_t good = 0, bad = 0;
    size_t i;

    json_array_foreach(json_object_get(report, "policies"), i, policy)
    {
        const json_t *summary = json_object_get(policy, "summary");
        const char *type = json_text_of(json_object_get(policy, "policy"), "policy-type");
        size_t n = strlen(types);
        good += json_int_of(summary, "total-successful-session-count");
        bad += json_int_of(summary, "total-failure-session-count");
        type = strcmp(type, "no-policy-found") == 0 ? "none" : type;
        if (!strstr(types, type) && n < sizeof(types) - 8)
            snprintf(types + n, sizeof(types) - n, "%s%s", n ? "," : "", type);
    }
    struct str domain = domain_of(report);
    columns_add(c, STR_FMT, STR_ARG(domain));
    columns_add(c, "%s", types);
    columns_add(c, "%" PRId64, good);
    columns_add(c, "%" PRId64, bad);
    columns_add(c, "%s", worst_of(report));
}

static int print_all(const struct client *client, const char *day, struct failure *f)
{
    static const char *const headings[] = { "DOMAIN",  "POLICY",    "GOOD>",
                                            "FAILED>", "MOSTLY BY", NULL };
    struct columns columns;
    json_t *page = NULL, *other = NULL;
    const json_t *report;
    bool more = true;
    int r = 0;
    size_t i;

    columns_init(&columns, headings);
    while (more) {
        json_t *before = page;
        const char *after = page ? json_text_of(page, "next") : NULL;
        r = ask(client, day, NULL, after, &page, f);
        json_decref(before);
        if (r < 0)
            break;
        json_array_foreach(json_object_get(page, "reports"), i, report)
        {
            if (client->json)
                client_print_json(report);
            else
                add_domain(&columns, report);
        }
        if (json_is_object(json_object_get(page, "other")))
            other = json_incref(json_object_get(page, "other"));
        more = *json_text_of(page, "next");
    }
    if (r == 0 && !client->json && columns.n_cells)
        columns_print(&columns);
    if (r == 0 && !client->json && other)
        printf("\nOf domains that were too many to be counted one by one: %" PRId64
               " good, %" PRId64 " failed.\n",
               json_int_of(other, "successful"), json_int_of(other, "failed"));
    if (r == 0 && !client->json && !columns.n_cells && !other)
        printf("Nothing was counted on %s (UTC).\n", day);
    json_decref(other);
    if (r == 0)
        json_decref(page);
    columns_done(&columns);
    return r;
}

/* ---- one domain ------------------------------------------------------------------------------- */

static void print_policy(const json_t *policy)
{
    static const char *const headings[] = { "SESSIONS>", "FAILURE", "MX", "ADDRESS",
                                            "FROM",      "REASON",  NULL };
    const json_t *is = json_object_get(policy, "policy"), *o;
    const json_t *summary = json_object_get(policy, "summary");
    struct columns columns;
    size_t i;

    printf("\npolicy %s of %s: %" PRId64 " good, %" PRId64 " failed\n",
           json_text_of(is, "policy-type"), json_text_of(is, "policy-domain"),
           json_int_of(summary, "total-successful-session-count"),
           json_int_of(summary, "total-failure-session-count"));
    json_array_foreach(json_object_get(is, "policy-string"), i, o)
        printf("  %s\n", json_string_value(o));
    columns_init(&columns, headings);
    json_array_foreach(json_object_get(policy, "failure-details"), i, o)
    {
        columns_add(&columns, "%" PRId64, json_int_of(o, "failed-session-count"));
        columns_add(&columns, "%s", json_text_of(o, "result-type"));
        columns_add(&columns, "%s", json_text_of(o, "receiving-mx-hostname"));
        columns_add(&columns, "%s", json_text_of(o, "receiving-ip"));
        columns_add(&columns, "%s", json_text_of(o, "sending-mta-ip"));
        columns_add(&columns, "%s", json_text_of(o, "failure-reason-code"));
    }
    columns_print(&columns);
    columns_done(&columns);
}

static int print_one(const struct client *client, const char *day, const char *domain,
                     struct failure *f)
{
    const json_t *policy;
    json_t *report = NULL;
    size_t i;

    if (ask(client, day, domain, NULL, &report, f) < 0 || !report)
        return -1;
    if (client->json) {
        client_print_json(report);
    } else {
        struct str name = domain_of(report);
        printf(STR_FMT " on %s (UTC)\n", STR_ARG(name), day);
        json_array_foreach(json_object_get(report, "policies"), i, policy) print_policy(policy);
    }
    json_decref(report);
    return 0;
}

/* ---- the command ------------------------------------------------------------------------------ */

int cmd_tls_report(int argc, char **argv)
{
    struct client client = { .config = DEFAULT_CONFIG };
    const char *day_text = NULL;
    const struct arg_option options[] = {
        ARG_TEXT('d', "day", "D", &day_text,
                 "a day in UTC, such as 2026-11-30, or 'yesterday' (default: today)"),
        CLIENT_OPTIONS(&client),
    };
    const struct arg_command command = {
        .name = "tls-report",
        .usage = "tls-report [--day D] [DOMAIN] [-c FILE] [--json]",
        .about = "How TLS with the MX of domains fared: connections that were as the domain's "
                 "policy (DANE,\nMTA-STS) or plain STARTTLS wants it, and failures. Of one DOMAIN: "
                 "each policy and each failure.\nWith --json: the reports of RFC 8460, one for "
                 "each domain. Days are kept for 30 days.",
        .options = options,
        .n_options = ARRAY_LEN(options),
        .max_operands = 1,
    };
    struct arg_list operands;
    struct failure f = { 0 };
    char day[32];
    int exit_code;

    if (!args_get(&command, argc, argv, &operands, &exit_code))
        return exit_code;
    int r =
        take_day(day_text, day)
            ? 0
            : failure_set(&f, EX_USAGE,
                          "--day %s: it must be 'today', 'yesterday' or a day such as 2026-11-30",
                          day_text);
    if (r == 0)
        r = operands.n ? print_one(&client, day, operands.v[0], &f) : print_all(&client, day, &f);
    return r < 0 ? failure_print(&f) : EX_OK;
}
