/* delivery_guard.c - REQUIRETLS (RFC 8689): which hosts may be given a message that is to go over verified TLS only,
 * and what becomes of it when none of them can be. Layer: engine. Interface: delivery_impl.h.
 *
 * A host is guarded: spoken to in TLS, with a certificate that DANE or a trusted authority vouches for, under a name
 * that can be relied on (hop.vouched), and it must offer REQUIRETLS. That one of these is missing is no failure of the
 * host, which takes other mail: nothing is held against it, nor against its queue.
 *
 * A notification (null sender) tries the same, and goes by its route's own terms where that cannot be had (section 5);
 * it has no body of the original in it, only headers.
 *
 * LMTP over a socket of this machine, or its loopback interface, leaves no machine: nothing is demanded of it. */
#include "engine/delivery_impl.h"
#include "engine/hosts.h"
#include "engine/turn.h"

enum next_hop_wish delivery_wish(const struct delivery *d)
{
    const struct message *m = d->job->message;
    if (m->flags & MESSAGE_REQUIRETLS)
        return m->sender.text.n ? NEXT_HOP_REQUIRETLS : NEXT_HOP_PREFER_REQUIRETLS;
    return m->flags & MESSAGE_TLS_OPTIONAL ? NEXT_HOP_TLS_OPTIONAL : NEXT_HOP_AS_ROUTED;
}

bool delivery_guards(const struct delivery *d, const struct hop *h)
{
    enum next_hop_wish wish = delivery_wish(d);
    if (hop_is_here(h))
        return false;
    return wish == NEXT_HOP_REQUIRETLS || (wish == NEXT_HOP_PREFER_REQUIRETLS && h->vouched &&
                                           !turn_is_address(&h->addr) && d->unguarded != d->hop);
}

/* ---- a host that cannot be given it ------------------------------------------------------------- */

/* It never will: why, as the sender is told when no other host is better. */
static void cannot(struct delivery *d, enum smtp_stage stage, struct smtp_enhanced e,
                   struct str why)
{
    d->unprotected++;
    d->unprotected_reply = (struct smtp_reply){ 550, e, arena_str(&d->arena, why) };
    delivery_note_failure(d, stage, &d->unprotected_reply, why);
}

bool delivery_leaves_out(struct delivery *d, const struct hop *h)
{
    if (!turn_is_address(&h->addr) || !delivery_guards(d, h))
        return false;
    d->host = trail_host(&d->arena, h);
    d->guard_failed = true;
    cannot(d, SMTP_STAGE_CONNECT, ENH(5, 7, 10),
           STR("REQUIRETLS: nobody vouches for a client that has turned its connection (ATRN)"));
    return true;
}

bool delivery_not_vouched(struct delivery *d, const struct next_hops *r)
{
    if (r->reason != NEXT_HOP_NOT_VOUCHED)
        return false;
    if (r->status == NEXT_HOP_PERMANENT) {
        cannot(d, SMTP_STAGE_CONNECT, r->reply.enhanced, r->reply.text);
        d->unprotected = 0; /* it was no hop */
    } else {
        delivery_note_failure(d, SMTP_STAGE_CONNECT, &r->reply, r->reply.text);
        d->guard_later = true;
    }
    d->guard_failed = true;
    return true;
}

bool delivery_not_offered(struct delivery *d)
{
    const struct hop *h = &d->hops[d->hop - 1];
    if (!delivery_guards(d, h))
        return false;
    if (session_out_offers_requiretls(d->session)) {
        session_out_require_tls(d->session);
        return false;
    }
    if (delivery_wish(d) != NEXT_HOP_REQUIRETLS)
        return false; /* better than what comes next */
    hosts_worked(d->engine->hosts, &d->addr);
    d->guard_failed = true;
    if (session_out_verified(d->session))
        cannot(d, SMTP_STAGE_HELO, ENH(5, 7, 30), STR("REQUIRETLS: the host does not support it"));
    else
        cannot(d, SMTP_STAGE_HELO, ENH(5, 7, 10),
               STR("REQUIRETLS: its TLSA records cannot be used, and no authority vouches for it"));
    return true;
}

/* No TLS, or not with that host: will another attempt find the same? */
static bool will_not_pass(enum smtp_stage stage, const struct smtp_reply *reply, int error)
{
    if (reply->code)
        return smtp_reply_permanent(reply);
    return stage == SMTP_STAGE_TLS ? error == -EPROTO : error == -EOPNOTSUPP;
}

bool delivery_guard_failed(struct delivery *d, enum smtp_stage stage,
                           const struct smtp_reply *reply, int error, struct str why)
{
    const struct hop *h = &d->hops[d->hop - 1];
    if ((stage != SMTP_STAGE_TLS && stage != SMTP_STAGE_STARTTLS) || reply->code == 421 ||
        !delivery_guards(d, h))
        return false;
    if (delivery_wish(d) != NEXT_HOP_REQUIRETLS) {
        d->unguarded = d->hop; /* the same host once more, by the route's own terms */
        d->again = true;
        d->hop--;
        d->tried--;
        return true;
    }
    d->guard_failed = true;
    if (!will_not_pass(stage, reply, error))
        return true;
    trail_drop_last(&d->trail); /* said in other words */
    hosts_worked(d->engine->hosts, &d->addr);
    struct str said = reply->code ? reply->text : why;
    cannot(d, stage, ENH(5, 7, 10),
           arena_printf(&d->arena, "REQUIRETLS: no TLS that can be relied on: " STR_FMT,
                        STR_ARG(said)));
    return true;
}

/* ---- the end ------------------------------------------------------------------------------------ */

/* Every host of the route that is followed now has been seen, and another attempt would find the same. */
static bool is_hopeless(const struct delivery *d)
{
    return !d->guard_later && !d->incomplete && !d->least_wait_ms && d->hop == d->n_hops &&
           d->unprotected + d->looped == d->n_hops;
}

void delivery_leave_route(struct delivery *d)
{
    d->guard_hope |= !is_hopeless(d);
    d->guard_later = false;
    d->unprotected = d->unguarded = 0;
}

/* Of hosts that are down, or not known now, something may be hoped: the message waits, and its queue goes on. */
bool delivery_end_unprotected(struct delivery *d)
{
    if (!d->guard_failed)
        return false;
    bool lost = !d->guard_hope && is_hopeless(d) && d->unprotected_reply.code;
    const struct smtp_reply *said = smtp_reply_permanent(&d->host_reply) ? NULL : &d->host_reply;
    delivery_decide_rest(d, lost ? FATE_BOUNCE : FATE_DEFER, SCOPE_MESSAGE, d->host_stage,
                         lost ? &d->unprotected_reply : said, d->host_why);
    delivery_finish(d, ATTEMPT_UNTRIED);
    return true;
}
