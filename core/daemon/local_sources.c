/* local_sources.c - the local addresses of `sources`, for people. See local_sources.h. */
#include "daemon/local_sources.h"

#include <stdio.h>

#include "daemon/control_call.h"
#include "engine/sources.h"
#include "io/net.h"

void local_sources_check(const struct settings *set, json_t *warnings)
{
    char ip[NET_ADDR_TEXT], text[NET_ADDR_TEXT + 64];

    for (size_t i = 0; i < set->n_sources; i++) {
        if (io_net_is_here(&set->sources[i].addr))
            continue;
        snprintf(text, sizeof(text), "source address %s is not on this machine",
                 net_addr_ip_text(&set->sources[i].addr, ip));
        if (warnings)
            json_array_append_new(warnings, json_string(text));
        else
            fprintf(
                stderr,
                "tern: warning: %s: mail goes from another of its route, or waits until it is\n",
                text);
    }
}

void local_sources_note(struct router *r)
{
    const struct settings *set = r->settings;
    char ip[NET_ADDR_TEXT];

    for (size_t i = 0; i < set->n_sources; i++) {
        const struct net_addr *addr = &set->sources[i].addr;
        sources_get(r->shared.sources, addr);
        if (!io_net_is_here(addr))
            journal_event(&r->journal,
                          EVENT(EVENT_WARN, "source_missing",
                                F_STRZ("source", net_addr_ip_text(addr, ip)),
                                F_STRZ("why", "no interface of this machine has that address")));
    }
}

static bool is_missing(struct router *r, const struct source *s)
{
    return atomic_load_explicit(&s->missing_until, memory_order_relaxed) > io_loop_now(r->loop);
}

static json_t *one_json(struct router *r, struct source *s)
{
    static const struct source_settings nothing;
    const struct source_settings *set = sources_allowed(r->settings, &s->addr);
    char ip[NET_ADDR_TEXT], rate[RATE_TEXT];
    json_t *left = json_null();

    if (!set)
        set = &nothing;
    if (set->rate.count)
        left = json_integer(throttle_left(&s->throttle, &set->rate, io_loop_now(r->loop)));
    return json_pack(
        "{s:s, s:o, s:b, s:I, s:o, s:I, s:I, s:o, s:o}", "address", net_addr_ip_text(&s->addr, ip),
        "hostname", control_text_or_null(set->hostname), "missing", is_missing(r, s), "open",
        (json_int_t)atomic_load(&s->open), "concurrency",
        set->concurrency ? json_integer(set->concurrency) : json_null(), "connections",
        (json_int_t)atomic_load(&s->connections), "messages", (json_int_t)atomic_load(&s->messages),
        "rate", set->rate.count ? json_string(rate_text(&set->rate, rate)) : json_null(),
        "rate_left", left);
}

json_t *local_sources_json(struct router *r)
{
    json_t *list = json_array();

    for (size_t i = 0; i < r->settings->n_sources; i++) {
        struct source *s = sources_get(r->shared.sources, &r->settings->sources[i].addr);
        if (s)
            json_array_append_new(list, one_json(r, s));
    }
    for (size_t i = 0; i < SOURCES_PLACES; i++) {
        struct source *s = sources_at(r->shared.sources, i);
        if (s && !sources_allowed(r->settings, &s->addr))
            json_array_append_new(list, one_json(r, s));
    }
    return list;
}

enum figure { OPEN, CONNECTIONS, MESSAGES, MISSING, N_FIGURES };

static unsigned long long value_of(struct router *r, struct source *s, enum figure f)
{
    switch (f) {
    case OPEN: return atomic_load(&s->open);
    case CONNECTIONS: return atomic_load(&s->connections);
    case MESSAGES: return atomic_load(&s->messages);
    case MISSING: return is_missing(r, s);
    case N_FIGURES: break;
    }
    return 0;
}

void local_sources_metrics(struct router *r, struct buf *out)
{
    static const struct {
        const char *name, *type, *help;
    } figures[N_FIGURES] = {
        [OPEN] = { "source_connections_open", "gauge", "Connections from a local address, open" },
        [CONNECTIONS] = { "source_connections_total", "counter",
                          "Connections from a local address" },
        [MESSAGES] = { "source_messages_total", "counter",
                       "Transactions begun from a local address" },
        [MISSING] = { "source_missing", "gauge", "The local address was not on this machine" },
    };
    char ip[NET_ADDR_TEXT];

    for (enum figure f = 0; f < N_FIGURES; f++) {
        bool any = false;
        for (size_t i = 0; i < SOURCES_PLACES; i++) {
            struct source *s = sources_at(r->shared.sources, i);
            if (!s)
                continue;
            if (!any)
                buf_printf(out, "# HELP tern_%s %s\n# TYPE tern_%s %s\n", figures[f].name,
                           figures[f].help, figures[f].name, figures[f].type);
            any = true;
            buf_printf(out, "tern_%s{source=\"%s\"} %llu\n", figures[f].name,
                       net_addr_ip_text(&s->addr, ip), value_of(r, s, f));
        }
    }
}
