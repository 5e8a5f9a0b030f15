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

    s->clients.connections = 100;
    s->clients.ipv4_prefix = 32;
    s->clients.ipv6_prefix = 64;
    s->clients.exempt = ARENA_ARRAY(&s->arena, struct net_cidr, 2);
    if (!s->clients.exempt)
        return settings_unref(s);
    CHECK(net_cidr_parse(STR("127.0.0.0/8"), &s->clients.exempt[0]) == 0);
    CHECK(net_cidr_parse(STR("::1"), &s->clients.exempt[1]) == 0);
    s->clients.n_exempt = 2;

    s->limits.message_size = 50ULL * 1024 * 1024;
    s->limits.recipients = 1000;
    s->limits.sessions = 10000;
    s->limits.errors = 20;
    s->limits.stress = 80;
    s->limits.stress_errors = 3;
    s->limits.memory = 256ULL * 1024 * 1024;
    s->limits.received_headers = 100;
    s->limits.etrn_per_session = 100;
    s->limits.etrn_per_client = 600;
    s->limits.etrn_queues = 1000;

    s->timeouts.command_ms = 5 * MINUTE;
    s->timeouts.data_ms = 5 * MINUTE;
    s->timeouts.stress_ms = 10 * SECOND;
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

int settings_exempt(struct settings *s, const struct net_addr *addr)
{
    size_t n = s->clients.n_exempt;

    if (net_cidrs_contain(s->clients.exempt, n, addr))
        return 0;
    struct net_cidr *grown = ARENA_ARRAY(&s->arena, struct net_cidr, n + 1);
    if (!grown)
        return -ENOMEM;
    if (n)
        memcpy(grown, s->clients.exempt, n * sizeof(*grown));
    grown[n] = (struct net_cidr){ .base = *addr, .bits = addr->family == NET_IPV6 ? 128 : 32 };
    grown[n].base.port = 0;
    s->clients.exempt = grown;
    s->clients.n_exempt = n + 1;
    return 0;
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

bool settings_has_certificate(const struct settings *s, struct str file)
{
    for (size_t i = 0; i < s->n_own_certificates; i++)
        if (str_eq(s->own_certificates[i].cert, file))
            return true;
    return false;
}
