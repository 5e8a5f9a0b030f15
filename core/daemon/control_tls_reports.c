/* control_tls_reports.c - how TLS with the MX of domains fared: GET /v1/tls-reports (RFC 8460).
 *
 * Layer: daemon, main thread. Interface: control_call.h. Workers first write what they have counted and not written yet;
 * then the rows of the day are read, and those of one domain, a row of each worker, are added up.
 */
#include <stdio.h>

#include "base/units.h"
#include "daemon/control_call.h"
#include "daemon/tls_report_json.h"
#include "engine/context.h"
#include "engine/tls_reports.h"
#include "mail/address.h"

enum { ROWS = 64, KEY_MAX = 10 + 1 + DOMAIN_TEXT + 3 };

struct flush_part {
    struct worker_message message;
    struct tls_reports_flush flush;
    struct day_work *work;
};

struct day_work {
    struct control_work work;
    struct router *router;
    uint64_t limit;
    char day[11];
    char domain[DOMAIN_TEXT]; /* empty: all of them, */
    char after[DOMAIN_TEXT];  /* behind this one */
    struct flush_part part[WORKERS_MAX];
};

/* ---- reading ---------------------------------------------------------------------------------- */

/* What has been read of a day: the domains that are complete, and the one that is being added up. */
struct reading {
    struct day_work *work;
    json_t *reports;
    struct tls_report *sum, *others;
    char domain[DOMAIN_TEXT];
    bool more; /* behind the last report */
    int error;
};

static struct str hostname_of(const struct reading *r)
{
    return r->work->router->settings->hostname;
}

/* The domain of `sum` is complete. */
static void end_domain(struct reading *r)
{
    struct str domain = str_of(r->domain);

    if (!r->sum)
        return;
    if (str_eq(domain, STR(TLS_REPORTS_OTHER))) {
        r->others = TAKE(r->sum);
        return;
    }
    if (json_array_append_new(
            r->reports, tls_report_json(r->sum, str_of(r->work->day), domain, hostname_of(r))) < 0)
        r->error = -ENOMEM;
    r->sum = tls_report_free(r->sum);
}

static void add_row(struct reading *r, struct str domain, struct str value)
{
    struct tls_report *row;
    int e = tls_report_decode(value, &row);

    if (e == -ENOMEM)
        r->error = e;
    if (e < 0)
        return; /* what cannot be read is no reason to show nothing */
    if (!r->sum || !str_eq(domain, str_of(r->domain))) {
        end_domain(r);
        if (json_array_size(r->reports) >= r->work->limit) {
            r->more = true;
            tls_report_free(row);
            return;
        }
        str_copy(domain, r->domain, sizeof(r->domain));
        r->sum = row;
        return;
    }
    tls_report_merge(r->sum, row);
    tls_report_free(row);
}

/* Rows from `after` on that begin with `prefix`; leaves the key of the last one in it. Number of rows, or -errno. */
static int read_rows(struct reading *r, struct str prefix, char *after, struct buf *rows)
{
    struct port_spool *spool = r->work->router->ports.spool;
    struct tls_reports_key parts;
    struct str in, key, value;
    int64_t expires_ms;

    int n = spool->kv_scan(spool, STR(TLS_REPORTS_KV), prefix, str_of(after), rows, ROWS);
    for (in = buf_str(rows);
         n > 0 && !r->more && !r->error && spool_kv_take(&in, &expires_ms, &key, &value);) {
        if (!str_copy(key, after, SPOOL_KV_MAX_KEY + 1))
            return -EIO;
        if (tls_reports_key_take(key, &parts))
            add_row(r, parts.domain, value);
    }
    return r->error ? r->error : n;
}

static int read_day(struct reading *r)
{
    const struct day_work *w = r->work;
    char prefix[KEY_MAX], after[SPOOL_KV_MAX_KEY + 1] = "";
    struct buf rows;
    int n;

    if (w->domain[0])
        snprintf(prefix, sizeof(prefix), "%s %s ", w->day, w->domain);
    else
        snprintf(prefix, sizeof(prefix), "%s ", w->day);
    if (w->after[0]) /* behind all workers' rows of it */
        snprintf(after, sizeof(after), "%s %s ~", w->day, w->after);
    buf_init(&rows, 0);
    do
        n = read_rows(r, str_of(prefix), after, &rows);
    while (n > 0 && !r->more);
    buf_done(&rows);
    if (n >= 0)
        end_domain(r);
    return n < 0 ? n : r->error;
}

/* ---- answers ---------------------------------------------------------------------------------- */

static json_t *others_json(const struct tls_report *r)
{
    const struct tls_policy_count *p;
    uint64_t good = 0, bad = 0;

    for (size_t i = 0; r && (p = tls_report_policy(r, i)); i++) {
        good += p->successes;
        bad += tls_policy_failures(p);
    }
    if (!good && !bad)
        return json_null();
    return json_pack("{s:I, s:I}", "successful", (json_int_t)good, "failed", (json_int_t)bad);
}

static void answer(struct control_call *c, struct reading *r)
{
    const struct day_work *w = r->work;

    if (w->domain[0] && json_array_size(r->reports) == 0)
        control_error(c, 404, "no_report", "no session with an MX of %s was counted on %s",
                      w->domain, w->day);
    else if (w->domain[0])
        control_answer(c, 200, json_incref(json_array_get(r->reports, 0)));
    else
        control_answer(c, 200,
                       json_pack("{s:s, s:O, s:o, s:o}", "day", w->day, "reports", r->reports,
                                 "other", others_json(r->others), "next",
                                 r->more ? control_text(str_of(r->domain)) : json_null()));
}

static void finish(struct control_work *work)
{
    struct day_work *w = CONTAINER_OF(work, struct day_work, work);
    struct reading r = { .work = w };

    if (work->call) {
        r.reports = json_array();
        int e = r.reports ? read_day(&r) : -ENOMEM;
        if (e < 0)
            control_errno(work->call, e);
        else
            answer(work->call, &r);
        json_decref(r.reports);
        tls_report_free(r.sum);
        tls_report_free(r.others);
    }
    free(w);
}

/* ---- asking the workers ----------------------------------------------------------------------- */

static void on_part_back(struct engine *none, struct worker_message *m)
{
    control_work_done(&CONTAINER_OF(m, struct flush_part, message)->work->work);
}

/* In a worker's thread, as the next one. */
static void on_flushed(struct tls_reports_flush *f)
{
    struct flush_part *part = CONTAINER_OF(f, struct flush_part, flush);

    part->message.run = on_part_back;
    router_tell(part->work->router, &part->message);
}

static void on_part(struct engine *e, struct worker_message *m)
{
    struct flush_part *part = CONTAINER_OF(m, struct flush_part, message);

    part->flush.done = on_flushed;
    tls_reports_flush(e, &part->flush);
}

/* Empty: none is asked for. False: it is none. */
static bool take_domain(struct str s, char *dst)
{
    return s.n == 0 || domain_normalize(s, dst, DOMAIN_TEXT) > 0;
}

static bool fill_in(struct control_call *c, struct day_work *w)
{
    struct str day = control_request_arg(&c->request, "day");
    struct str after = control_request_arg(&c->request, "after");
    struct str domain = c->request.n_segments > 2 ? c->request.segment[2] : STR_NONE;
    char today[32];

    if (!day.n)
        day = str_first(str_of(date_iso8601(router_wall(c->router), today)), 10);
    if (!tls_report_day(day)) {
        control_error(c, 400, "bad_argument", "'day' must be a day such as 2026-11-30");
        return false;
    }
    if (!control_request_number(&c->request, "limit", CONTROL_PAGE_MAX, 100, &w->limit) ||
        !w->limit) {
        control_error(c, 400, "bad_argument", "'limit' must be a number from 1 to %d",
                      CONTROL_PAGE_MAX);
        return false;
    }
    str_copy(day, w->day, sizeof(w->day));
    if (!take_domain(domain, w->domain) || !take_domain(after, w->after)) {
        control_error(c, 400, "bad_name", "that is no name of a domain");
        return false;
    }
    return true;
}

void control_serve_tls_reports(struct control_call *c)
{
    struct router *r = c->router;
    struct day_work *w = calloc(1, sizeof(*w));

    if (!w) {
        control_errno(c, -ENOMEM);
        return;
    }
    if (!fill_in(c, w)) {
        free(w);
        return;
    }
    w->router = r;
    w->work.left = (unsigned)r->n_workers;
    w->work.finish = finish;
    control_wait(c, &w->work);
    for (int i = 0; i < r->n_workers; i++) {
        w->part[i] = (struct flush_part){ .message = { .run = on_part }, .work = w };
        router_post(r, i, &w->part[i].message);
    }
}
