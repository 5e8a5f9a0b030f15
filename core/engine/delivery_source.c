/* delivery_source.c - the local address of an attempt: which one, and what becomes of the attempt when none can be
 * used. Layer: engine. Interface: delivery_impl.h.
 *
 * A source that is not on this machine, or may do no more, is no fact about the host: it is not backed off, and
 * the mail waits without a failure. An address of the host's family that the operator has not named is never
 * used instead. */
#include "engine/delivery_impl.h"

enum {
    LONGEST_MS = 60000, /* the configuration, and the machine, may change meanwhile */
    NO_PORT_MS = 1000,  /* all ports to that peer are in use */
};

static void tell(struct delivery *d, const char *what, const struct net_addr *source,
                 struct str why)
{
    char id[MSGID_TEXT], text[NET_ADDR_TEXT];
    engine_event(d->engine, EVENT(EVENT_ERROR, what, F_STRZ("id", msgid_text(&d->job->id, id)),
                                  F_STR("queue", queue_name(d->job->queue)),
                                  F_STRZ("source", source ? net_addr_ip_text(source, text) : NULL),
                                  F_STR("host", d->host), F_STR("why", why)));
}

static struct str not_here(struct delivery *d, const struct net_addr *source)
{
    char text[NET_ADDR_TEXT];
    return arena_printf(&d->arena, "source address %s is not on this machine",
                        net_addr_ip_text(source, text));
}

/* The host is reached by a family of which the route has no source. */
static enum source_step leave_out(struct delivery *d, const struct hop *h)
{
    struct str host = trail_host(&d->arena, h);
    struct str why = arena_printf(&d->arena, "its route has no source address for %s",
                                  h->addr.family == NET_IPV6 ? "IPv6" : "IPv4");
    trail_add(&d->trail, &d->arena, host, STR_NONE, SMTP_STAGE_CONNECT, NULL, why);
    if (d->tried) /* what a host said is worth more */
        return SOURCE_LEAVE_OUT;
    d->host = host;
    d->host_stage = SMTP_STAGE_CONNECT;
    d->host_reply = (struct smtp_reply){ 0 };
    d->host_why = why;
    d->host_failed = true;
    if (d->hop == d->n_hops) /* not even the last one */
        tell(d, "source_unfit", NULL, why);
    return SOURCE_LEAVE_OUT;
}

enum source_step delivery_choose_source(struct delivery *d, const struct hop *h,
                                        struct session_out_key *key, int64_t *ret_wait_ms)
{
    source_drop(d->engine, &d->source);
    enum source_answer answer =
        source_choose(d->engine, d->snapshot, d->route, key, &d->source, ret_wait_ms);
    queue_source_is_chosen(d->job);
    *ret_wait_ms = MIN(*ret_wait_ms, (int64_t)LONGEST_MS);
    switch (answer) {
    case SOURCE_CHOSEN: return SOURCE_DIAL;
    case SOURCE_NONE_FITS: return leave_out(d, h);
    case SOURCE_ALL_BUSY:
        d->host_why = STR("its source addresses may do no more at present");
        return SOURCE_WAIT;
    case SOURCE_MISSING:
        d->host_why = not_here(d, &d->source.addr);
        d->stuck = true;
        return SOURCE_WAIT;
    }
    return SOURCE_WAIT;
}

int64_t delivery_source_failed(struct delivery *d, enum session_out_fault fault)
{
    char text[NET_ADDR_TEXT];
    bool missing = fault == SOURCE_NOT_HERE;
    d->host_why = missing ? not_here(d, &d->source.addr)
                          : arena_printf(&d->arena, "source address %s has no port left",
                                         net_addr_ip_text(&d->source.addr, text));
    trail_add(&d->trail, &d->arena, d->host, STR_NONE, SMTP_STAGE_CONNECT, NULL, d->host_why);
    if (!missing)
        return NO_PORT_MS;
    if (source_is_missing(d->engine, &d->source))
        tell(d, "source_missing", &d->source.addr, d->host_why);
    d->stuck = !d->source.source; /* another one may be tried, unless it cannot be told apart */
    return d->stuck ? LONGEST_MS : 0;
}
