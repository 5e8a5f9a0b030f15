/* control_spool.c - how the spool fares: GET /v1/spool, and its latencies for Prometheus.
 *
 * Layer: daemon, main thread. Interface: control_call.h, cmd_spool.h.
 */
#include <inttypes.h>

#include "daemon/cmd_spool.h"
#include "daemon/control_call.h"

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

/* Classes that nothing fell into are left out; the last has no upper end. */
static json_t *latency_json(const struct spool_latency *l)
{
    json_t *classes = json_array();

    for (int i = 0; i < SPOOL_LATENCIES; i++)
        if (l->count[i])
            json_array_append_new(
                classes,
                json_pack("{s:o, s:o}", "up_to_us",
                          i < SPOOL_LATENCIES - 1 ? number(spool_latency_us[i]) : json_null(),
                          "count", number(l->count[i])));
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "count", number(l->n), "sum_us",
                     number(l->sum_us), "p50_us", number(spool_latency_quantile(l, 500)), "p99_us",
                     number(spool_latency_quantile(l, 990)), "classes", classes);
}

static json_t *tables_json(const struct spool_stats *st)
{
    json_t *list = json_array();

    for (size_t i = 0; i < SPOOL_TABLES; i++)
        json_array_append_new(list, json_pack("{s:s, s:o, s:o}", "name", spool_table_name(i),
                                              "rows", number(st->table[i].rows), "bytes",
                                              number(st->table[i].bytes)));
    return list;
}

json_t *spool_json(const char *path, const struct spool_stats *st, const struct spool_queue *sums)
{
    json_t *o = json_object();

    json_object_set_new(o, "path", control_text(str_of(path)));
    json_object_set_new(o, "format", number(SPOOL_FORMAT));
    json_object_set_new(o, "messages", number(st->messages));
    json_object_set_new(o, "recipients", number(st->recipients));
    json_object_set_new(o, "pieces", number(st->chunks));
    json_object_set_new(o, "queues", number(st->queues));
    json_object_set_new(o, "scheduled", number(sums->scheduled));
    json_object_set_new(o, "waiting", number(sums->waiting));
    json_object_set_new(o, "held", number(sums->held));
    json_object_set_new(o, "waiting_octets", number(sums->waiting_octets));
    json_object_set_new(o, "file_size", number(st->file_size));
    json_object_set_new(o, "used", number(st->used));
    json_object_set_new(o, "free", number(st->free));
    json_object_set_new(o, "map_size", number(st->map_size));
    json_object_set_new(o, "disk_free", number(st->disk_free));
    json_object_set_new(o, "tables", tables_json(st));
    return o;
}

static json_t *writer_json(const struct spool_stats *st, uint64_t accepted)
{
    json_t *o = json_object();

    json_object_set_new(o, "messages_accepted", number(accepted));
    json_object_set_new(o, "commits", number(st->commits));
    json_object_set_new(o, "syncs", number(st->syncs));
    json_object_set_new(o, "ops", number(st->ops));
    json_object_set_new(o, "failed_ops", number(st->failed_ops));
    json_object_set_new(o, "bytes", number(st->bytes));
    json_object_set_new(o, "max_group", number(st->max_group));
    json_object_set_new(o, "reruns", number(st->reruns));
    json_object_set_new(o, "reopened", number(st->reopened));
    json_object_set_new(o, "disk_errors", number(st->disk_errors));
    json_object_set_new(o, "commit", latency_json(&st->commit));
    json_object_set_new(o, "unit", latency_json(&st->unit));
    return o;
}

void control_serve_spool(struct control_call *c)
{
    struct router *r = c->router;
    AUTO_FREE char *path = str_dup(r->settings->spool);
    struct spool_queue sums = { 0 };
    struct spool_stats st;
    int e = path ? spool_stats(r->spool, &st) : -ENOMEM;

    if (e == 0)
        e = spool_sum_queues(r->spool, &sums);
    if (e < 0) {
        control_errno(c, e);
        return;
    }
    uint64_t accepted =
        atomic_load_explicit(&r->shared.counters.messages_accepted, memory_order_relaxed);
    json_t *o = spool_json(path, &st, &sums);
    json_object_set_new(o, "writer", writer_json(&st, accepted));
    control_answer(c, 200, o);
}

static void add_histogram(struct buf *out, const char *name, const char *help,
                          const struct spool_latency *l)
{
    uint64_t so_far = 0;

    buf_printf(out, "# HELP tern_spool_%s_seconds %s\n# TYPE tern_spool_%s_seconds histogram\n",
               name, help, name);
    for (int i = 0; i < SPOOL_LATENCIES - 1; i++) {
        so_far += l->count[i];
        buf_printf(out, "tern_spool_%s_seconds_bucket{le=\"%g\"} %" PRIu64 "\n", name,
                   (double)spool_latency_us[i] / 1e6, so_far);
    }
    buf_printf(out,
               "tern_spool_%s_seconds_bucket{le=\"+Inf\"} %" PRIu64
               "\ntern_spool_%s_seconds_sum %.6f\ntern_spool_%s_seconds_count %" PRIu64 "\n",
               name, l->n, name, (double)l->sum_us / 1e6, name, l->n);
}

void control_add_spool_latencies(struct buf *out, const struct spool_stats *st)
{
    add_histogram(out, "commit", "One group commit: its pages written, and both waits for the disk",
                  &st->commit);
    add_histogram(out, "unit", "A unit of change, from a worker until it is told the result",
                  &st->unit);
}
