/* control_status.c - what the router does: status, metrics, and the request to reload.
 *
 * Layer: daemon, main thread. Interface: control_call.h. Counters are read while workers count: each by
 * itself is right, two of them may be of different moments.
 */
#include <inttypes.h>
#include <sys/resource.h>
#include <unistd.h>

#include "daemon/control_call.h"
#include "daemon/local_sources.h"
#include "daemon/reload.h"
#include "daemon/sandbox.h"

/* ---- counters --------------------------------------------------------------------------------- */

static const struct {
    const char *name, *help;
    size_t offset;
    bool gauge;
} counters[] = {
#define COUNTER(name, help)                                                                        \
    {                                                                                              \
#name, help, offsetof(struct engine_counters, name), false                                 \
    }
#define GAUGE(name, help)                                                                          \
    {                                                                                              \
#name, help, offsetof(struct engine_counters, name), true                                  \
    }
    COUNTER(connections, "Clients that connected"),
    GAUGE(sessions_open, "Sessions of clients that are open"),
    COUNTER(messages_accepted, "Messages taken into the spool"),
    COUNTER(messages_rejected, "Messages refused after their content had come"),
    COUNTER(recipients_accepted, "Recipients of messages taken"),
    COUNTER(recipients_rejected, "Recipients refused in sessions"),
    COUNTER(octets_accepted, "Octets of messages taken"),
    COUNTER(delivered, "Recipients handed on to a next hop"),
    COUNTER(deferred, "Attempts for a recipient that are to be made again"),
    COUNTER(bounced, "Recipients that failed for good"),
    COUNTER(expired, "Recipients whose time was over"),
    COUNTER(discarded, "Recipients dropped by policy"),
    COUNTER(connections_out, "Connections made to next hops"),
    GAUGE(connections_out_open, "Connections to next hops that are open"),
    COUNTER(connections_out_reused, "Messages sent over a connection that was there"),
    COUNTER(host_failures, "Attempts that failed because of the host"),
    COUNTER(auth_ok, "Clients that authenticated"),
    COUNTER(auth_failed, "Authentications that failed"),
    COUNTER(tls_sessions, "TLS handshakes with clients"),
    COUNTER(tls_resumed, "TLS handshakes with clients that took up an earlier session"),
    COUNTER(tls_out_sessions, "Connections to MX with TLS as their domains want it"),
    COUNTER(tls_out_failures, "Connections to MX without, and policies that could not be had"),
    COUNTER(clients_limited, "Connections, messages and recipients refused by 'clients'"),
    COUNTER(early_talkers, "Clients refused because they talked before the greeting"),
    COUNTER(stress_entered, "Times a worker came under stress: its sessions became scarce"),
    GAUGE(workers_stressed, "Workers under stress"),
    COUNTER(hooks_failed, "Hooks that failed: an error, or their budget"),
    COUNTER(dsn_sent, "Notifications made"),
    COUNTER(loops, "Mail loops found"),
#undef COUNTER
#undef GAUGE
};

static uint64_t counter_value(struct router *r, size_t i)
{
    void *p = (char *)&r->shared.counters + counters[i].offset;
    return atomic_load_explicit((atomic_ullong *)p, memory_order_relaxed);
}

static const struct {
    const char *name, *help;
    size_t offset;
    bool gauge;
} spool_figures[] = {
#define FIGURE(name, help, gauge_)                                                                 \
    {                                                                                              \
#name, help, offsetof(struct spool_stats, name), gauge_                                    \
    }
    FIGURE(messages, "Messages in the spool", true),
    FIGURE(recipients, "Recipients in the spool", true),
    FIGURE(queues, "Queues in the spool", true),
    FIGURE(remembered, "Entries of tern.kv in the spool", true),
    FIGURE(file_size, "Octets of the spool's file", true),
    FIGURE(used, "Octets in use in the spool's file", true),
    FIGURE(free, "Octets of the spool's file that can be used again", true),
    FIGURE(map_size, "Octets of address space of the spool's file", true),
    FIGURE(free_space, "Octets free on the spool's file system, as of the last look", true),
    FIGURE(commits, "Group commits", false),
    FIGURE(syncs, "Waits for the disk", false),
    FIGURE(ops, "Units of change", false),
    FIGURE(failed_ops, "Units of change that failed", false),
    FIGURE(bytes, "Octets written as values", false),
    FIGURE(max_group, "Units in the largest group commit", true),
    FIGURE(reruns, "Group commits begun again", false),
    FIGURE(disk_errors, "Group commits that the disk failed", false),
    FIGURE(reopened, "Times the spool was opened anew after an error of the disk", false),
#undef FIGURE
};

static uint64_t spool_value(const struct spool_stats *st, size_t i)
{
    uint64_t v;
    memcpy(&v, (const char *)st + spool_figures[i].offset, sizeof(v));
    return v;
}

/* ---- status ----------------------------------------------------------------------------------- */

static json_t *status_reload(struct router *r)
{
    const struct reload_status *st = reload_get_status(r->reloads);

    if (!st->at_ms)
        return json_null();
    return json_pack("{s:o, s:b, s:o}", "time", control_time(st->at_ms), "ok", st->ok, "error",
                     st->ok ? json_null() : control_text(str_of(st->failure.text)));
}

static json_t *status_counters(struct router *r)
{
    json_t *o = json_object();

    for (size_t i = 0; i < ARRAY_LEN(counters); i++)
        json_object_set_new(o, counters[i].name, json_integer((json_int_t)counter_value(r, i)));
    return o;
}

static json_t *status_spool(struct router *r)
{
    struct spool_stats st;
    json_t *o;

    if (spool_stats(r->spool, &st) < 0)
        return json_null();
    o = json_object();
    json_object_set_new(o, "path", control_text(r->settings->spool));
    for (size_t i = 0; i < ARRAY_LEN(spool_figures); i++)
        json_object_set_new(o, spool_figures[i].name,
                            json_integer((json_int_t)spool_value(&st, i)));
    return o;
}

static json_t *status_log(struct router *r)
{
    struct log_sink_stats st;

    log_sink_get_stats(r->log, &st);
    return json_pack("{s:o, s:I, s:I}", "to", control_text(r->settings->log), "lines",
                     (json_int_t)st.lines, "lost", (json_int_t)st.lost);
}

static json_t *status_listen(struct router *r)
{
    json_t *list = json_array();
    struct str all = buf_str(&r->listening), one;

    while (all.n && str_cut(&all, ',', &one))
        json_array_append_new(list, control_text(str_trim(one)));
    return list;
}

void control_serve_status(struct control_call *c)
{
    struct router *r = c->router;

    control_answer(
        c, 200,
        json_pack(
            "{s:s, s:s, s:i, s:o, s:o, s:I, s:o, s:I, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
            "version", TERN_VERSION, "state", r->stopping ? "stopping" : "running", "pid",
            (int)getpid(), "hostname", control_text(r->settings->hostname), "started",
            control_time(r->started_ms), "uptime_s",
            (json_int_t)((io_loop_now(r->loop) - r->started) / 1000), "config",
            control_text(str_of(r->config)), "generation", (json_int_t)r->generation, "workers",
            r->n_workers, "listen", status_listen(r), "reload", status_reload(r), "counters",
            status_counters(r), "spool", status_spool(r), "sources", local_sources_json(r), "log",
            status_log(r), "privileges", sandbox_json(r->sandbox)));
}

/* ---- metrics: the text format of Prometheus --------------------------------------------------- */

static void add_metric(struct buf *out, const char *name, const char *suffix, const char *help,
                       bool gauge, uint64_t value)
{
    buf_printf(out, "# HELP tern_%s%s %s\n# TYPE tern_%s%s %s\ntern_%s%s %" PRIu64 "\n", name,
               suffix, help, name, suffix, gauge ? "gauge" : "counter", name, suffix, value);
}

static void add_process(struct buf *out, struct router *r)
{
    struct rusage use;

    buf_printf(out,
               "# HELP tern_info What runs\n# TYPE tern_info gauge\n"
               "tern_info{version=\"%s\"} 1\n",
               TERN_VERSION);
    if (getrusage(RUSAGE_SELF, &use) == 0) {
        buf_printf(out,
                   "# HELP process_cpu_seconds_total Processor time\n"
                   "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %.3f\n",
                   (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
                       (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6);
        buf_printf(out,
                   "# HELP process_resident_memory_max_bytes The most memory so far\n"
                   "# TYPE process_resident_memory_max_bytes gauge\n"
                   "process_resident_memory_max_bytes %ld\n",
                   use.ru_maxrss * 1024L);
    }
    buf_printf(out,
               "# HELP process_start_time_seconds When it started\n"
               "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds %.3f\n",
               (double)r->started_ms / 1000);
}

void control_serve_metrics(struct control_call *c)
{
    struct router *r = c->router;
    struct log_sink_stats log;
    struct spool_stats spool;
    struct buf out;

    buf_init(&out, 0);
    add_process(&out, r);
    add_metric(&out, "workers", "", "Threads that do the work", true, (uint64_t)r->n_workers);
    add_metric(&out, "generation", "", "Of the configuration in force", true, r->generation);
    for (size_t i = 0; i < ARRAY_LEN(counters); i++)
        add_metric(&out, counters[i].name, counters[i].gauge ? "" : "_total", counters[i].help,
                   counters[i].gauge, counter_value(r, i));
    if (spool_stats(r->spool, &spool) == 0) {
        for (size_t i = 0; i < ARRAY_LEN(spool_figures); i++) {
            char name[64];
            snprintf(name, sizeof(name), "spool_%s", spool_figures[i].name);
            add_metric(&out, name, spool_figures[i].gauge ? "" : "_total", spool_figures[i].help,
                       spool_figures[i].gauge, spool_value(&spool, i));
        }
        control_add_spool_latencies(&out, &spool);
    }
    local_sources_metrics(r, &out);
    add_metric(&out, "system_calls_refused", "_total", "System calls that the sandbox refused",
               false, sandbox_refused(r->sandbox));
    log_sink_get_stats(r->log, &log);
    add_metric(&out, "log_lines", "_total", "Lines of the log written", false, log.lines);
    add_metric(&out, "log_lines_lost", "_total", "Lines of the log lost", false, log.lost);
    if (out.failed)
        control_errno(c, out.failed);
    else
        control_answer_bytes(c, 200, "text/plain; version=0.0.4; charset=utf-8", buf_str(&out));
    buf_done(&out);
}

/* ---- reload ----------------------------------------------------------------------------------- */

struct reload_work {
    struct control_work work;
    struct reload_waiter waiter;
    uint64_t generation;
    bool failed;
    struct failure failure;
};

static void on_reloaded(struct reload_waiter *waiter, uint64_t generation,
                        const struct failure *failure)
{
    struct reload_work *w = CONTAINER_OF(waiter, struct reload_work, waiter);

    w->generation = generation;
    w->failed = failure;
    if (failure)
        w->failure = *failure;
    control_work_done(&w->work);
}

static void finish_reload(struct control_work *work)
{
    struct reload_work *w = CONTAINER_OF(work, struct reload_work, work);

    reload_forget(&w->waiter); /* the daemon ends */
    if (work->call && w->failed)
        control_answer(work->call, 422,
                       json_pack("{s:s, s:o, s:o, s:i, s:I}", "error", "not_reloaded", "message",
                                 control_text(str_of(w->failure.text)), "detail",
                                 control_text_or_null(str_of(w->failure.detail)), "exit_code",
                                 w->failure.exit_code, "generation", (json_int_t)w->generation));
    else if (work->call)
        control_answer(
            work->call, 200,
            json_pack("{s:b, s:I}", "reloaded", 1, "generation", (json_int_t)w->generation));
    free(w);
}

void control_serve_reload(struct control_call *c)
{
    struct reload_work *w = calloc(1, sizeof(*w));

    if (!w) {
        control_errno(c, -ENOMEM);
        return;
    }
    w->work.left = 1;
    w->work.finish = finish_reload;
    w->waiter.done = on_reloaded;
    list_init(&w->waiter.link);
    c->goes_on = true;
    control_wait(c, &w->work);
    reload_ask(c->router->reloads, "control", &w->waiter);
}
