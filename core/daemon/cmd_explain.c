/* cmd_explain.c - tern explain: what would become of a mail, and why (ROUTING.md Q12). Layer: daemon.
 *
 * The answer is JSON (explain.h); here it becomes text. */
#include <inttypes.h>
#include <stdio.h>
#include <sysexits.h>

#include "daemon/args.h"
#include "daemon/cmd.h"
#include "daemon/columns.h"
#include "daemon/control_client.h"
#include "daemon/explain.h"

/* ---- a table: a label on the left, then cells in columns ------------------------------------------ */

enum { GRID_CELLS = 4, LABEL = 9, LOOKED_UP = 3 /* questions of a hook that are named */ };

struct grid {
    struct arena arena;
    struct grid_row {
        const char *label;
        const char *cell[GRID_CELLS]; /* NULL: the row ends before */
        bool wide;                    /* its last cell stands for itself */
    } * rows;
    size_t n, cap;
};

static struct grid_row *add_row(struct grid *g, const char *label)
{
    if (g->n == g->cap) {
        size_t cap = g->cap ? 2 * g->cap : 32;
        struct grid_row *grown = realloc(g->rows, cap * sizeof(*grown));
        if (!grown)
            return NULL;
        g->rows = grown;
        g->cap = cap;
    }
    struct grid_row *row = &g->rows[g->n++];
    *row = (struct grid_row){ .label = label };
    return row;
}

static const char *keep(struct grid *g, const char *text)
{
    char *copy = arena_strz(&g->arena, str_of(text));

    if (copy)
        clean_text(copy);
    return copy ? copy : "?";
}

static void cells(struct grid *g, const char *label, const char *a, const char *b, const char *c,
                  const char *d)
{
    struct grid_row *row = add_row(g, label);

    if (!row)
        return;
    row->cell[0] = keep(g, a);
    row->cell[1] = keep(g, b);
    row->cell[2] = keep(g, c);
    row->cell[3] = keep(g, d);
}

static void PRINTF_LIKE(3, 4) wide(struct grid *g, const char *label, const char *fmt, ...)
{
    struct grid_row *row = add_row(g, label);
    char text[2048];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (!row)
        return;
    row->wide = true;
    row->cell[0] = keep(g, text);
}

static void print_row(const struct grid_row *row, const size_t *width)
{
    if (!row->cell[0] || (row->wide && !*row->cell[0])) {
        printf("%s\n", row->label);
        return;
    }
    printf("%-*s", LABEL, row->label);
    for (size_t i = 0; i < GRID_CELLS && row->cell[i]; i++) {
        bool last = i + 1 == GRID_CELLS || !row->cell[i + 1];
        for (size_t k = i + 1; !last && k < GRID_CELLS && row->cell[k]; k++)
            if (*row->cell[k])
                break;
            else if (k + 1 == GRID_CELLS || !row->cell[k + 1])
                last = true;
        if (last) {
            printf("%s", row->cell[i]);
            break;
        }
        printf("%-*s  ", (int)width[i], row->cell[i]);
    }
    putchar('\n');
}

static void print_grid(struct grid *g)
{
    size_t width[GRID_CELLS] = { 0 };

    for (size_t r = 0; r < g->n; r++)
        for (size_t i = 0; i < GRID_CELLS && g->rows[r].cell[i] && !g->rows[r].wide; i++)
            width[i] = MAX(width[i], strlen(g->rows[r].cell[i]));
    for (size_t r = 0; r < g->n; r++)
        print_row(&g->rows[r], width);
    free(g->rows);
    arena_done(&g->arena);
}

static void grid_init(struct grid *g)
{
    *g = (struct grid){ 0 };
    arena_init(&g->arena, 0);
}

/* ---- the hooks -------------------------------------------------------------------------------------- */

static void reply_text(const json_t *reply, char *dst, size_t size)
{
    const char *enhanced = json_text_of(reply, "enhanced");

    snprintf(dst, size, "%" PRId64 "%s%s %s", json_int_of(reply, "code"), *enhanced ? " " : "",
             enhanced, json_text_of(reply, "text"));
}

/* "looked up example.com MX, mx1.example.com A, and 4 more" */
static void add_looked_up(struct grid *g, const json_t *dns)
{
    size_t i, n = 0, all = json_array_size(dns);
    char text[1024] = "";
    const json_t *a;

    json_array_foreach(dns, i, a)
    {
        if (i == LOOKED_UP && all > LOOKED_UP + 1) {
            snprintf(text + n, sizeof(text) - n, ", and %zu more", all - i);
            break;
        }
        const char *status = json_text_of(a, "status");
        bool ok = strcmp(status, "ok") == 0;
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s %s%s%s%s", n ? ", " : "",
                              json_text_of(a, "name"), json_text_of(a, "type"), ok ? "" : " (",
                              ok ? "" : status, ok ? "" : ")");
        if (n >= sizeof(text))
            break;
    }
    if (n)
        wide(g, "", "  looked up %s", text);
}

static void add_policy(struct grid *g, const char *label, const json_t *p)
{
    const char *part = json_text_of(p, "part"), *key = json_text_of(p, "key");
    char where[512], outcome[1024];
    const json_t *to;
    size_t i;

    snprintf(where, sizeof(where), "%s%s%s%s", part, *key ? "[" : "", key, *key ? "]" : "");
    snprintf(outcome, sizeof(outcome), "%s%s",
             json_is_true(json_object_get(p, "failed")) ? "FAILED: " : "",
             json_is_true(json_object_get(p, "has_hook")) ? json_text_of(p, "outcome")
                                                          : "has no such hook");
    cells(g, label, json_text_of(p, "policy"), where, json_text_of(p, "place"), outcome);
    add_looked_up(g, json_object_get(p, "dns"));
    json_array_foreach(json_object_get(p, "not_connected"), i, to)
        wide(g, "", "  would connect to %s; explain makes no connections", json_string_value(to));
    json_array_foreach(json_object_get(p, "changes"), i, to)
        wide(g, "", "  %s", change_text(to, outcome, sizeof(outcome)));
}

static void add_hook(struct grid *g, const json_t *h)
{
    const json_t *policies = json_object_get(h, "policies"), *p,
                 *reply = json_object_get(h, "reply");
    const char *label = json_text_of(h, "hook"), *why = json_text_of(h, "why");
    char text[1024];
    size_t i;

    json_array_foreach(policies, i, p)
    {
        add_policy(g, label, p);
        label = "";
    }
    add_looked_up(g, json_object_get(h, "dns"));
    if (json_is_object(reply)) {
        reply_text(reply, text, sizeof(text));
        wide(g, label, "-> %s  (%s)", text, why);
    } else if (*why) {
        wide(g, label, "%s%s", json_array_size(policies) ? "-> " : "", why);
    }
}

static void print_hooks(const json_t *answer)
{
    struct grid g;
    const json_t *h;
    size_t i;

    grid_init(&g);
    json_array_foreach(json_object_get(answer, "hooks"), i, h) add_hook(&g, h);
    print_grid(&g);
}

/* ---- the route ---------------------------------------------------------------------------------------- */

static void add_dns(struct grid *g, const json_t *dns)
{
    const char *label = "dns";
    const json_t *a, *record;
    char text[64];
    size_t i, k;

    json_array_foreach(dns, i, a)
    {
        const char *name = json_text_of(a, "name"), *type = json_text_of(a, "type");
        json_array_foreach(json_object_get(a, "records"), k, record)
        {
            cells(g, label, k ? "" : name, k ? "" : type, json_string_value(record), "");
            label = "";
        }
        if (k == 0) {
            snprintf(text, sizeof(text), "- (%s)", json_text_of(a, "status"));
            cells(g, label, name, type, text, "");
        }
        label = "";
    }
}

/* What "ourselves" is, when something was left out for it. */
static void add_self(struct grid *g, const json_t *self)
{
    char text[1024];
    const json_t *name;
    size_t i, n = 0;

    json_array_foreach(self, i, name)
    {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", n ? ", " : "",
                              json_string_value(name));
        if (n >= sizeof(text))
            break;
    }
    if (n)
        wide(g, "", "(ourselves: %s)", text);
}

static void add_hosts(struct grid *g, const json_t *plan, const json_t *self)
{
    const json_t *h, *d;
    char text[512], rest[512];
    bool ourselves = false;
    size_t i;

    json_array_foreach(json_object_get(plan, "discarded"), i, d)
    {
        cells(g, i ? "" : "left out", json_text_of(d, "what"), "", json_text_of(d, "reason"), "");
        if (strcmp(json_text_of(d, "reason"), "ourselves") == 0)
            ourselves = true;
    }
    if (ourselves)
        add_self(g, self);
    json_array_foreach(json_object_get(plan, "hosts"), i, h)
    {
        const char *user = json_text_of(h, "user"), *name = json_text_of(h, "name"),
                   *address = json_text_of(h, "address");
        bool given = strcmp(name, address) == 0; /* as an address, or a path */
        int n = 0;
        snprintf(text, sizeof(text), "%zu  %s", i + 1, name);
        if (given && json_is_integer(json_object_get(h, "port")))
            snprintf(text, sizeof(text),
                     strchr(name, ':') ? "%zu  [%s]:%" PRId64 : "%zu  %s:%" PRId64, i + 1, name,
                     json_int_of(h, "port"));
        else if (!given)
            n = snprintf(rest, sizeof(rest), "[%s]:%" PRId64 ", ", address, json_int_of(h, "port"));
        if (json_is_integer(json_object_get(h, "preference")))
            n += snprintf(rest + n, sizeof(rest) - (size_t)n, "preference %" PRId64 ", ",
                          json_int_of(h, "preference"));
        char records[40] = "";
        if (json_int_of(h, "tlsa") > 0)
            snprintf(records, sizeof(records), " (%" PRId64 " TLSA)", json_int_of(h, "tlsa"));
        else if (json_is_true(json_object_get(h, "mta_sts")))
            snprintf(records, sizeof(records), " (MTA-STS)");
        snprintf(rest + n, sizeof(rest) - (size_t)n, "%s, TLS %s%s%s%s",
                 json_text_of(h, "protocol"), json_text_of(h, "tls"), records, *user ? ", as " : "",
                 user);
        cells(g, i ? "" : "hosts", text, "", rest, "");
    }
}

static void add_plan(struct grid *g, const json_t *plan, const json_t *self)
{
    char text[1024];

    if (json_is_true(json_object_get(plan, "fallback"))) {
        wide(g, "", "%s", "");
        wide(g, "fallback", "%s", json_text_of(plan, "route"));
    }
    add_dns(g, json_object_get(plan, "dns"));
    add_hosts(g, plan, self);
    if (!json_is_object(json_object_get(plan, "reply")))
        return;
    reply_text(json_object_get(plan, "reply"), text, sizeof(text));
    wide(g, "no host", "%s%s", text,
         json_is_true(json_object_get(plan, "alarm")) ? "; the router raises an alarm" : "");
}

static void print_route(const json_t *route, const json_t *self, bool hypothetical)
{
    const char *reason = json_text_of(route, "reason"), *kind = json_text_of(route, "kind"),
               *lifetime = json_text_of(route, "lifetime"),
               *failing = json_text_of(route, "lifetime_while_hosts_fail");
    bool same = strcmp(lifetime, failing) == 0;
    const json_t *plan;
    struct grid g;
    size_t i;

    if (!json_is_object(route))
        return;
    grid_init(&g);
    wide(&g, "", "%s", "");
    wide(&g, "route", "%s%s%s%s%s", hypothetical ? "were it accepted: " : "",
         json_text_of(route, "text"), *reason ? " (" : "", reason, *reason ? ")" : "");
    if (strcmp(kind, "discard") != 0 && strcmp(kind, "bounce") != 0)
        wide(&g, "queue", "%s; tried again after %s; kept %s%s%s", json_text_of(route, "queue"),
             json_text_of(route, "retry"), lifetime, same ? "" : ", while its hosts fail ",
             same ? "" : failing);
    json_array_foreach(json_object_get(route, "plans"), i, plan) add_plan(&g, plan, self);
    print_grid(&g);
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

static void print_head(const json_t *answer)
{
    const json_t *s = json_object_get(answer, "session");
    const char *from = json_text_of(answer, "from"), *identity = json_text_of(s, "identity"),
               *listener = json_text_of(s, "listener");
    char text[1024];

    if (*json_text_of(answer, "etrn"))
        snprintf(text, sizeof(text), "ETRN %s", json_text_of(answer, "etrn"));
    else
        snprintf(text, sizeof(text), "%s -> %s", *from ? from : "<>", json_text_of(answer, "to"));
    clean_text(text);
    printf("%s\n", text);
    snprintf(text, sizeof(text), "from %s%s, %s %s, %s, %s%s%s, at %s%s%s%s",
             json_text_of(s, "client"),
             json_is_true(json_object_get(s, "client_given")) ? "" : " (a stranger; see --client)",
             strcmp(json_text_of(s, "service"), "lmtp") == 0 ? "LHLO" : "EHLO",
             json_text_of(s, "helo"), json_is_true(json_object_get(s, "tls")) ? "TLS" : "no TLS",
             *identity ? "authenticated as " : "not authenticated", identity,
             json_is_true(json_object_get(s, "may_relay")) ? " (may relay)" : "", listener,
             *listener ? " (" : "", json_text_of(s, "service"), *listener ? ")" : "");
    clean_text(text);
    printf("%s\n\n", text);
}

static void print_log(const json_t *log)
{
    const json_t *e;
    size_t i;

    if (json_array_size(log))
        printf("\nlog\n");
    json_array_foreach(log, i, e)
    {
        AUTO_FREE char *text = json_dumps(e, JSON_COMPACT);
        printf("  %s\n", text ? text : "?");
    }
}

static void print_answer(const json_t *answer)
{
    char summary[1024];
    const char *what = json_text_of(answer, "etrn");

    print_head(answer);
    print_hooks(answer);
    print_route(json_object_get(answer, "route"), json_object_get(answer, "self"),
                strcmp(json_text_of(answer, "outcome"), "refused") == 0);
    print_log(json_object_get(answer, "log"));
    str_copy(str_of(json_text_of(answer, "summary")), summary, sizeof(summary));
    clean_text(summary);
    printf("\n=> %s%s %s\n", *what ? "ETRN " : "", *what ? what : json_text_of(answer, "to"),
           summary);
}

static int check_request(const struct explain_request *q, struct failure *f)
{
    if (q->etrn && q->content)
        return failure_set(f, EX_USAGE,
                           "--message is a mail's content: it goes with --from and --to");
    if (q->etrn && (q->from || q->to))
        return failure_set(f, EX_USAGE, "either --etrn or --from and --to, not both");
    if (!q->etrn && (!q->from || !q->to))
        return failure_set(f, EX_USAGE,
                           "of which mail? tern explain --from a@b.example --to c@d.example");
    return 0;
}

int cmd_explain(int argc, char **argv)
{
    struct explain_request q = { 0 };
    const char *config = DEFAULT_CONFIG;
    bool json = false;
    const struct arg_option options[] = {
        ARG_TEXT(0, "from", "ADDRESS", &q.from, "the sender; '<>' is the null sender"),
        ARG_TEXT(0, "to", "ADDRESS", &q.to, "the recipient"),
        ARG_TEXT(0, "client", "ADDRESS", &q.client,
                 "where the client is (default 192.0.2.1, a stranger; a Unix socket has none)"),
        ARG_TEXT(0, "helo", "NAME", &q.helo, "what it says in EHLO (default its address)"),
        ARG_TEXT(0, "identity", "WHO", &q.identity, "it has authenticated as that"),
        ARG_FLAG(0, "tls", &q.tls, "it uses TLS"),
        ARG_TEXT(0, "message", "FILE", &q.content,
                 "the message itself, with its headers ('-': standard input), for `data` hooks"),
        ARG_FLAG(0, "requiretls", &q.requiretls, "it says REQUIRETLS: only over verified TLS"),
        ARG_TEXT(0, "listener", "WHICH", &q.listener,
                 "an entry of `listen`, as written, or its service (default the first)"),
        ARG_TEXT(0, "etrn", "DOMAIN", &q.etrn, "explain an ETRN of that client instead of a mail"),
        ARG_CONFIG(&config),
        ARG_JSON(&json),
    };
    const struct arg_command command = {
        .name = "explain",
        .usage =
            "explain --from ADDRESS --to ADDRESS [--message FILE] [--client ADDRESS] [-c FILE] [--json]\n"
            "explain --etrn DOMAIN --client ADDRESS",
        .about =
            "What would become of that mail, and why: which policies are asked, what each says "
            "at which\nline, what the DNS says, which records are left out, and which hosts "
            "are left, in order.\nNeeds no running router, makes no connection (but to the DNS, and to "
            "web servers for policies of MTA-STS)\nand changes nothing. What policies remember "
            "(tern.kv) reads as empty; `data` hooks are asked\nabout the --message, if there is one.",
        .options = options,
        .n_options = ARRAY_LEN(options),
    };
    struct arg_list operands;
    struct failure f = { 0 };
    struct loaded l;
    json_t *answer;
    int exit_code;

    if (!args_get(&command, argc, argv, &operands, &exit_code))
        return exit_code;
    if (check_request(&q, &f) < 0 || load_policies(config, NULL, &l, &f) < 0)
        return failure_print(&f);
    answer = explain(&l, &q, &f);
    loaded_done(&l);
    if (!answer)
        return failure_print(&f);
    if (json)
        client_print_json(answer);
    else
        print_answer(answer);
    json_decref(answer);
    return EX_OK;
}
