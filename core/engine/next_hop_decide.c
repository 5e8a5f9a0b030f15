/* next_hop_decide.c - which of the hosts that were found can be used, and in which order. Layer: engine. Interface:
 * next_hop_impl.h.
 *
 * Left out are ourselves and what is not better than we are (B1), addresses that are none to dial, and whom the domain's
 * MTA-STS policy, or a message with REQUIRETLS, does not admit. When nothing is left it is concluded why: for now, or for
 * good. */
#include "engine/next_hop_impl.h"

/* ---- MTA-STS ---------------------------------------------------------------------------------- */

/* May mail go to that MX? Then TLS is demanded of it as the policy says. Secure TLSA records are what an MX itself
 * says, and hold instead (RFC 8461 §2), where mail is held to them: a notification may go without. */
static bool allowed_by_policy(struct next_hop_query *q, struct candidate *c)
{
    bool dane = c->dane.n && (c->dane_by_route || q->wish == NEXT_HOP_REQUIRETLS);

    if (!q->policy || q->policy->mode != MTA_STS_ENFORCE || q->route->tls == ROUTE_TLS_NONE || dane)
        return true;
    if (!mta_sts_allows(q->policy, c->name)) {
        q->not_in_policy = true;
        return false;
    }
    c->sts = c->tls != ROUTE_TLS_VERIFY;
    c->tls = ROUTE_TLS_VERIFY;
    return true;
}

/* ---- REQUIRETLS ------------------------------------------------------------------------------- */

/* Who says that it is a host of the domain? (RFC 8689 §4.2.1, 2) */
static bool is_vouched(const struct next_hop_query *q, const struct candidate *c)
{
    return !c->by_mx || c->secure_name ||
           (q->route->kind == ROUTE_MX && q->policy && mta_sts_allows(q->policy, c->name));
}

/* Is it out of the question for a message with REQUIRETLS? Then why is on record. */
static bool left_out_for_requiretls(struct next_hop_query *q, const struct candidate *c)
{
    if (q->wish != NEXT_HOP_REQUIRETLS)
        return false;
    if (c->withheld && !c->dane_by_route) {
        q->not_known = true;
        next_hop_discard(q, c->name, STR("TLSA look-up failed"));
        return true;
    }
    if (is_vouched(q, c))
        return false;
    q->not_vouched = true;
    next_hop_discard(q, c->name,
                     STR("REQUIRETLS: neither DNSSEC nor MTA-STS vouches for that name"));
    return true;
}

/* No host is left because of that: true, and it is concluded. broken: there is one of which nothing is known now. */
static bool none_for_requiretls(struct next_hop_query *q, struct str domain, bool broken)
{
    bool later = broken || q->not_known || q->policy_unknown;
    if (!q->not_vouched && !q->not_known)
        return false;
    next_hop_conclude(
        q, NEXT_HOP_NOT_VOUCHED, later ? NEXT_HOP_DEFER : NEXT_HOP_PERMANENT, later ? 451 : 550,
        later ? ENH(4, 7, 10) : ENH(5, 7, 10), false,
        later
            ? arena_printf(&q->arena,
                           "REQUIRETLS: what vouches for the MX of " STR_FMT
                           " cannot be looked up now",
                           STR_ARG(domain))
            : arena_printf(&q->arena,
                           "REQUIRETLS: neither DNSSEC nor MTA-STS vouches for the MX of " STR_FMT,
                           STR_ARG(domain)));
    return true;
}

/* ---- decision --------------------------------------------------------------------------------- */

int next_hop_by_preference(const void *a, const void *b)
{
    const struct candidate *x = *(struct candidate *const *)a, *y = *(struct candidate *const *)b;
    if (x->preference != y->preference)
        return x->preference < y->preference ? -1 : 1;
    return (x->shuffle > y->shuffle) - (x->shuffle < y->shuffle);
}

/* Why must mail not go to this address? NULL: it may. */
static const char *unusable(struct next_hop_query *q, struct str what, const struct net_addr *addr)
{
    if (net_addr_is_any(addr))
        return "not an address of a host";
    if (engine_is_own_listener(q->engine, addr)) {
        q->own_listener = what;
        return "our own listener";
    }
    if (q->route->kind == ROUTE_MX && net_addr_is_loopback(addr) && !q->settings->allow_loopback_mx)
        return "loopback";
    return NULL;
}

static void keep_hop(struct next_hop_query *q, const struct candidate *c,
                     const struct net_addr *addr)
{
    const struct route *r = q->route;
    if (q->n_hops < q->max_hops)
        q->hops[q->n_hops++] =
            (struct hop){ .name = c->name,
                          .addr = *addr,
                          .preference = c->preference,
                          .lmtp = c->lmtp,
                          .tlsa_unusable = c->tlsa_unusable,
                          .sts = c->sts,
                          .vouched = next_hop_wants_names(q) && is_vouched(q, c),
                          .tls = c->tls,
                          .dane = c->dane,
                          .certificate = r->certificate,
                          .auth = c->target ? route_target_auth(r, c->target) : r->auth };
}

static void add_hop(struct next_hop_query *q, const struct candidate *c,
                    const struct net_addr *addr)
{
    char text[NET_ADDR_TEXT];
    net_addr_text(addr, text);
    struct str what = c->literal ? arena_str(&q->arena, str_of(text))
                                 : arena_printf(&q->arena, STR_FMT " %s", STR_ARG(c->name), text);
    const char *why = unusable(q, what, addr);
    if (why) {
        next_hop_discard(q, what, str_of(why));
        return;
    }
    keep_hop(q, c, addr);
}

/* The addresses of a candidate, both families in turn. */
static void add_hops(struct next_hop_query *q, const struct candidate *c)
{
    bool used[MAX_ADDRESSES] = { false };
    if (c->withheld) {
        next_hop_discard(q, c->name, STR("TLSA look-up failed"));
        return;
    }
    uint8_t family = NET_IPV6;
    for (size_t done = 0; done < c->n_addrs; done++) {
        size_t pick = MAX_ADDRESSES;
        for (size_t i = 0; i < c->n_addrs; i++)
            if (!used[i] && (pick == MAX_ADDRESSES || c->addrs[i].family == family)) {
                pick = i;
                if (c->addrs[i].family == family)
                    break;
            }
        used[pick] = true;
        add_hop(q, c, &c->addrs[pick]);
        family = c->addrs[pick].family == NET_IPV6 ? NET_IPV4 : NET_IPV6;
    }
    if (c->n_addrs == 0)
        next_hop_discard(q, c->name, c->broken ? STR("look-up failed") : STR("has no address"));
}

void next_hop_mix_families(struct hop *hops, size_t n)
{
    for (size_t i = 1; i < n && i < FIRST_TRIES; i++)
        if (hops[i].addr.family != hops[0].addr.family)
            return;
    for (size_t i = FIRST_TRIES; i < n; i++)
        if (hops[i].addr.family != hops[0].addr.family) {
            struct hop other = hops[i];
            hops[i] = hops[FIRST_TRIES - 1];
            hops[FIRST_TRIES - 1] = other;
            return;
        }
}

static void mark_self(struct next_hop_query *q, struct candidate *c)
{
    c->self = engine_is_self_name(q->engine, c->name);
    for (size_t i = 0; i < c->n_addrs && !c->self; i++) {
        /* A loopback address says nothing about who we are, unless it is where we listen. */
        if (net_addr_is_loopback(&c->addrs[i]))
            c->self = engine_is_own_listener(q->engine, &c->addrs[i]);
        else
            c->self = engine_is_self_address(q->engine, &c->addrs[i]);
    }
}

/* The first host that is not used because its TLSA records are not known; NULL: none. */
static const struct candidate *withheld(const struct next_hop_query *q)
{
    for (size_t i = 0; i < q->n; i++)
        if (q->candidates[i]->withheld)
            return q->candidates[i];
    return NULL;
}

/* Nothing is left. self: because of what we are ourselves; broken: some look-up failed for now. */
static void no_mx_left(struct next_hop_query *q, bool broken, bool self)
{
    const struct route *r = q->route;
    if (self && r->below_self && r->when_best_defer)
        next_hop_conclude(
            q, NEXT_HOP_WE_ARE_BEST, NEXT_HOP_DEFER, 451, ENH(4, 4, 6), true,
            arena_printf(&q->arena, "we are the best MX of " STR_FMT, STR_ARG(r->domain)));
    else if (self)
        next_hop_conclude(q, NEXT_HOP_WE_ARE_BEST, NEXT_HOP_PERMANENT, 554, ENH(5, 4, 6), true,
                          arena_printf(&q->arena,
                                       "mail for " STR_FMT
                                       " loops back to myself: no MX is better than we",
                                       STR_ARG(r->domain)));
    else if (q->own_listener.n)
        next_hop_conclude(q, NEXT_HOP_OWN_LISTENER, NEXT_HOP_PERMANENT, 554, ENH(5, 4, 6), true,
                          arena_printf(&q->arena,
                                       "mail for " STR_FMT " loops back to myself: " STR_FMT
                                       " is one of our own listeners",
                                       STR_ARG(r->domain), STR_ARG(q->own_listener)));
    else if (none_for_requiretls(q, r->domain, broken))
        return;
    else if (q->not_in_policy)
        next_hop_conclude(q, NEXT_HOP_NOT_IN_STS, NEXT_HOP_DEFER, 451, ENH(4, 7, 5), false,
                          arena_printf(&q->arena,
                                       "the MTA-STS policy of " STR_FMT " allows none of its MX",
                                       STR_ARG(r->domain)));
    else if (withheld(q)) {
        q->result.tlsa_host = withheld(q)->name;
        next_hop_conclude(q, NEXT_HOP_DNS_FAILURE, NEXT_HOP_DEFER, 451, ENH(4, 4, 3), false,
                          arena_printf(&q->arena, "the TLSA look-up of " STR_FMT " failed",
                                       STR_ARG(withheld(q)->name)));
    } else if (broken || r->below_self) /* never a reason to use a worse one (B4) */
        next_hop_conclude(
            q, NEXT_HOP_NO_ADDRESS, NEXT_HOP_DEFER, 451,
            broken && !r->below_self ? ENH(4, 4, 3) : ENH(4, 4, 4), false,
            arena_printf(&q->arena, "no MX of " STR_FMT " has an address now", STR_ARG(r->domain)));
    else
        next_hop_conclude(
            q, NEXT_HOP_NO_ADDRESS, NEXT_HOP_PERMANENT, 550, ENH(5, 4, 4), false,
            arena_printf(&q->arena, "no MX of " STR_FMT " has an address", STR_ARG(r->domain)));
}

/* B5: never deliver to "any MX". Where a name could not be looked up, it may be our own: not known now. */
static void not_listed(struct next_hop_query *q, bool broken)
{
    if (broken)
        next_hop_conclude(q, NEXT_HOP_DNS_FAILURE, NEXT_HOP_DEFER, 451, ENH(4, 4, 3), false,
                          arena_printf(&q->arena,
                                       "the addresses of the MX of " STR_FMT " are not known now",
                                       STR_ARG(q->route->domain)));
    else
        next_hop_conclude(
            q, NEXT_HOP_NOT_AN_MX, NEXT_HOP_DEFER, 451, ENH(4, 4, 4), true,
            arena_printf(&q->arena, "we are not an MX of " STR_FMT, STR_ARG(q->route->domain)));
}

/* RFC 5321 §5.1: where we are among the MX, only better ones are used (B2). */
void next_hop_decide_mx(struct next_hop_query *q)
{
    uint32_t own = q->own_by_name;
    bool broken = false, better;
    for (size_t i = 0; i < q->n; i++) {
        struct candidate *c = q->candidates[i];
        mark_self(q, c);
        broken |= c->broken;
        if (c->self)
            own = MIN(own, c->preference);
    }
    if (q->route->below_self && own == UINT32_MAX) {
        not_listed(q, broken);
        return;
    }
    broken = false;
    better = q->refused < own;
    for (size_t i = 0; i < q->n; i++) {
        struct candidate *c = q->candidates[i];
        if (c->preference >= own) {
            next_hop_discard(
                q, arena_printf(&q->arena, "%u " STR_FMT, c->preference, STR_ARG(c->name)),
                c->self ? STR("ourselves") : STR("not preferred to our own"));
            continue;
        }
        better = true;
        if (!allowed_by_policy(q, c)) {
            next_hop_discard(q, c->name, STR("not in the domain's MTA-STS policy"));
            continue;
        }
        if (left_out_for_requiretls(q, c))
            continue;
        broken |= c->broken || c->withheld;
        q->result.incomplete |=
            c->broken || c->withheld || (c->n_addrs == 0 && q->route->below_self);
        add_hops(q, c);
    }
    if (q->n_hops == 0 && q->not_in_policy)
        sts_doubt(q->engine, q->route->domain);
    if (q->n_hops == 0)
        no_mx_left(q, broken, own != UINT32_MAX && !better);
}

/* The best preference at which we ourselves are an MX of that target (RFC 5321 §5.1 holds for a smart
 * host's MX, too); UINT32_MAX: we are none. A port that is not ours is another server's. */
static uint32_t own_place(struct next_hop_query *q, const struct route_target *t)
{
    uint32_t own = UINT32_MAX;
    for (size_t i = 0; t && t->use_mx && i < q->n; i++) {
        struct candidate *c = q->candidates[i];
        if (c->target != t || !c->by_mx)
            continue;
        c->self = engine_is_self_name(q->engine, c->name);
        for (size_t k = 0; k < c->n_addrs && !c->self; k++)
            c->self = engine_is_own_listener(q->engine, &c->addrs[k]) ||
                      (c->port == SMTP_PORT && !net_addr_is_loopback(&c->addrs[k]) &&
                       engine_is_self_address(q->engine, &c->addrs[k]));
        if (c->self)
            own = MIN(own, c->preference);
    }
    return own;
}

void next_hop_decide_hosts(struct next_hop_query *q)
{
    struct str missing = STR_NONE; /* a target that has no address, at least now */
    bool broken = false;
    for (size_t i = 0; i < q->n; i++) {
        struct candidate *c = q->candidates[i];
        broken |= c->broken || c->withheld;
        if (c->by_mx && c->preference >= own_place(q, c->target)) {
            struct str what =
                arena_printf(&q->arena, "%u " STR_FMT, c->preference & 0xffff, STR_ARG(c->name));
            next_hop_discard(q, what, c->self ? STR("ourselves") : STR("not preferred to our own"));
            if (c->self)
                q->own_listener = c->name;
            continue;
        }
        if (left_out_for_requiretls(q, c))
            continue;
        if (c->literal && c->n_addrs && c->addrs[0].family == NET_UNIX)
            add_hop(q, c, &c->addrs[0]);
        else
            add_hops(q, c);
        if ((c->n_addrs == 0 || c->withheld) && !missing.n)
            missing = c->name;
    }
    q->result.incomplete = missing.n > 0;
    if (q->n_hops)
        return;
    if (!missing.n && none_for_requiretls(q, q->route->queue, false))
        return;
    bool for_ever = q->route->host_failure_forever; /* mail never bounces for it (S5) */
    if (q->own_listener.n && (for_ever || !missing.n))
        next_hop_conclude(q, NEXT_HOP_OWN_LISTENER, for_ever ? NEXT_HOP_DEFER : NEXT_HOP_PERMANENT,
                          for_ever ? 451 : 554, for_ever ? ENH(4, 3, 5) : ENH(5, 4, 6), true,
                          arena_printf(&q->arena, "the target " STR_FMT " is this router itself",
                                       STR_ARG(q->own_listener)));
    else { /* an operator's target that does not resolve never makes mail bounce (S5, H4) */
        next_hop_conclude(q, broken ? NEXT_HOP_DNS_FAILURE : NEXT_HOP_NO_ADDRESS, NEXT_HOP_DEFER,
                          451, broken ? ENH(4, 4, 3) : ENH(4, 3, 5), true,
                          arena_printf(&q->arena, "%s " STR_FMT,
                                       withheld(q) ? "TLSA look-up failed for" : "no address for",
                                       STR_ARG(missing.n ? missing : STR("any target"))));
    }
}
