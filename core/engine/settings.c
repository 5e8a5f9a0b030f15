/* settings.c - defaults and lifetime of the configuration. See settings.h. */
#include "engine/settings.h"

enum { SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE };
#define DAY (24LL * HOUR)

struct settings *settings_new(void)
{
    struct settings *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    atomic_init(&s->refs, 1);
    arena_init(&s->arena, 0);
    s->log = STR("stdout");
    s->workers = 1;
    s->sandbox = true;
    s->auth.attempts = 3;
    s->dns_timeout_ms = 10 * SECOND;

    s->limits.message_size = 50ULL * 1024 * 1024;
    s->limits.recipients = 1000;
    s->limits.sessions = 10000;
    s->limits.errors = 20;
    s->limits.memory = 256ULL * 1024 * 1024;
    s->limits.received_headers = 100;
    s->limits.etrn_per_session = 100;
    s->limits.etrn_per_client = 600;
    s->limits.etrn_queues = 1000;

    s->timeouts.command_ms = 5 * MINUTE;
    s->timeouts.data_ms = 5 * MINUTE;
    s->timeouts.session_ms = 24LL * HOUR;
    s->timeouts.connect_ms = 30 * SECOND;
    s->timeouts.greeting_ms = 5 * MINUTE;
    s->timeouts.helo_ms = 5 * MINUTE;
    s->timeouts.mail_ms = 5 * MINUTE;
    s->timeouts.rcpt_ms = 5 * MINUTE;
    s->timeouts.data_command_ms = 2 * MINUTE;
    s->timeouts.body_ms = 3 * MINUTE;
    s->timeouts.final_ms = 10 * MINUTE;
    s->timeouts.quit_ms = 5 * SECOND;
    s->timeouts.proxy_ms = 5 * SECOND;
    s->timeouts.hook_ms = 30 * SECOND;
    s->timeouts.shutdown_ms = 10 * SECOND;

    CHECK(schedule_parse(STR(SCHEDULE_DEFAULT_TEXT), &s->queue.retry) == 0);
    s->queue.lifetime_ms = 5 * DAY;
    s->queue.warn_after_ms = 4LL * HOUR;
    s->queue.concurrency = 5;
    s->queue.max_concurrency = 20;
    s->queue.connections = 1000;
    s->queue.host_connections = 50;
    s->queue.per_connection = 100;
    s->queue.idle_ms = 2 * SECOND;
    s->queue.connection_ms = 300 * SECOND;
    s->queue.recipients = 100;
    s->queue.host_retry_ms = MINUTE;
    s->queue.host_retry_max_ms = 15 * MINUTE;
    return s;
}

struct settings *settings_ref(struct settings *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

struct settings *settings_unref(struct settings *s)
{
    if (s && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) {
        arena_done(&s->arena);
        free(s);
    }
    return NULL;
}

bool settings_is_self_name(const struct settings *s, struct str name)
{
    if (str_caseeq(s->hostname, name))
        return true;
    for (size_t i = 0; i < s->n_self_names; i++)
        if (str_caseeq(s->self_names[i], name))
            return true;
    for (size_t i = 0; i < s->n_sources; i++)
        if (s->sources[i].hostname.n && str_caseeq(s->sources[i].hostname, name))
            return true;
    return false;
}
