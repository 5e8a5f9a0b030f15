/* trail.c - what one attempt saw. See trail.h. */
#include "engine/trail.h"

#include "engine/turn.h"

/* Of the attempts that are under way at once most see one host or two. */
static bool more_room(struct trail *t, struct arena *a)
{
    size_t room = t->room ? 2 * t->room : 1;
    if (room > HISTORY_TRIES)
        return t->room > 0; /* the last one's place is used again */
    struct history_try *tries = ARENA_ARRAY(a, struct history_try, room);
    if (!tries)
        return t->room > 0;
    if (t->n_tries)
        memcpy(tries, t->tries, t->n_tries * sizeof *tries);
    t->tries = tries;
    t->room = room;
    return true;
}

void trail_add(struct trail *t, struct arena *a, struct str host, struct str tls,
               enum smtp_stage stage, const struct smtp_reply *reply, struct str why)
{
    if (t->n_tries == t->room && !more_room(t, a))
        return;
    t->n_tries = MIN(t->n_tries + 1, t->room);
    struct history_try *last = &t->tries[t->n_tries - 1];
    *last = (struct history_try){ .host = host,
                                  .tls = tls,
                                  .stage = host.n ? str_of(smtp_stage_name(stage)) : STR_NONE };
    if (reply && reply->code)
        last->reply = *reply;
    last->reply.text = arena_str(a, reply && reply->code ? reply->text : why);
}

void trail_drop_last(struct trail *t)
{
    t->n_tries -= t->n_tries > 0;
}

void trail_take_discarded(struct trail *t, struct arena *a, const struct next_hops *r)
{
    size_t n = MIN(r->n_discarded, (size_t)HISTORY_HOPS);
    t->planned = true;
    t->n_discarded = 0;
    t->discarded = n ? ARENA_ARRAY(a, struct history_discarded, n) : NULL;
    for (size_t i = 0; t->discarded && i < n; i++)
        t->discarded[t->n_discarded++] =
            (struct history_discarded){ .what = arena_str(a, r->discarded[i].what),
                                        .reason = arena_str(a, r->discarded[i].reason) };
}

struct str trail_host(struct arena *a, const struct hop *h)
{
    char ip[NET_ADDR_TEXT];
    if (turn_is_address(&h->addr))
        return arena_str(a, str_of(turn_text(&h->addr, ip)));
    if (h->addr.family == NET_UNIX)
        return arena_str(a, str_of(net_addr_text(&h->addr, ip)));
    return arena_printf(a, STR_FMT " [%s]:%u", STR_ARG(h->name), net_addr_ip_text(&h->addr, ip),
                        h->addr.port);
}

struct history_plan trail_plan(const struct trail *t, struct arena *a, const struct route *route,
                               const struct hop *hops, size_t n, int64_t wall_ms)
{
    if (!t->planned)
        return (struct history_plan){ 0 };
    n = MIN(n, (size_t)HISTORY_HOPS);
    struct history_hop *list = ARENA_ARRAY(a, struct history_hop, MAX(n, (size_t)1));
    if (!list)
        return (struct history_plan){ 0 };
    for (size_t i = 0; i < n; i++)
        list[i] =
            (struct history_hop){ .host = trail_host(a, &hops[i]),
                                  .preference = route->kind == ROUTE_MX ? hops[i].preference
                                                                        : HISTORY_NO_PREFERENCE };
    return (struct history_plan){ .at_ms = wall_ms,
                                  .hops = list,
                                  .n_hops = n,
                                  .discarded = t->discarded,
                                  .n_discarded = t->n_discarded };
}
