/* next_hop.c - MX and addresses into an ordered list of hops. See next_hop.h.
 *
 * Rounds of look-ups: the MX of what is to be looked up by MX, which gives candidates; then A and AAAA
 * of all candidates at once; then the TLSA of those to which DANE applies (S8). Only then is decided
 * (next_hop_decide.c), because whether a candidate is ourselves can show in its address (B1). */
#include "engine/next_hop_impl.h"

#include "proto/dane.h"

static void query_free(struct next_hop_query *q)
{
    struct port_dns *dns = q->engine->ports.dns;
    list_remove(&q->later.link);
    LIST_FOREACH(it, &q->lookups)
    {
        struct lookup *l = LIST_ENTRY(it, struct lookup, link);
        if (l->dns)
            dns->cancel(dns, l->dns);
    }
    if (q->sts)
        sts_cancel(q->sts);
    arena_done(&q->arena);
    free(q);
}

void next_hop_cancel(struct next_hop_query *q)
{
    query_free(q);
}

static void tell(struct next_hop_query *q)
{
    q->result.hops = q->hops;
    q->result.n = q->n_hops;
    q->result.discarded = q->discarded;
    q->result.n_discarded = q->n_discarded;
    q->done(q->owner, &q->result);
    query_free(q);
}

/* For the record only: without memory it is not told. */
void next_hop_discard(struct next_hop_query *q, struct str what, struct str reason)
{
    if (q->n_discarded == q->max_discarded) {
        size_t more = q->max_discarded ? 2 * q->max_discarded : 4;
        if (more > NEXT_HOP_MAX)
            return;
        struct hop_discarded *d = ARENA_ARRAY(&q->arena, struct hop_discarded, more);
        if (!d)
            return;
        if (q->n_discarded)
            memcpy(d, q->discarded, q->n_discarded * sizeof *d);
        q->discarded = d;
        q->max_discarded = more;
    }
    q->discarded[q->n_discarded++] = (struct hop_discarded){ .what = what, .reason = reason };
}

const char *next_hop_reason_name(enum next_hop_reason r)
{
    switch (r) {
    case NEXT_HOP_FOUND: break;
    case NEXT_HOP_NULL_MX: return "null_mx";
    case NEXT_HOP_NXDOMAIN: return "nxdomain";
    case NEXT_HOP_DNS_FAILURE: return "dns_failure";
    case NEXT_HOP_WE_ARE_BEST: return "we_are_best";
    case NEXT_HOP_NOT_AN_MX: return "not_an_mx";
    case NEXT_HOP_OWN_LISTENER: return "own_listener";
    case NEXT_HOP_NO_ADDRESS: return "no_address";
    case NEXT_HOP_NOT_IN_STS: return "mta_sts";
    case NEXT_HOP_NOT_VOUCHED: return "requiretls";
    case NEXT_HOP_NO_MEMORY: return "no_memory";
    }
    return "";
}

void next_hop_conclude(struct next_hop_query *q, enum next_hop_reason reason,
                       enum next_hop_status status, uint16_t code, struct smtp_enhanced enhanced,
                       bool alarm, struct str text)
{
    q->result.status = status;
    q->result.reason = reason;
    q->result.alarm = alarm;
    q->result.reply = (struct smtp_reply){ .code = code, .enhanced = enhanced, .text = text };
}

/* Never a reason to bounce. */
void next_hop_no_memory(struct next_hop_query *q)
{
    next_hop_conclude(q, NEXT_HOP_NO_MEMORY, NEXT_HOP_DEFER, 451, ENH(4, 3, 0), false,
                      STR("out of memory"));
}

/* ---- look-ups --------------------------------------------------------------------------------- */

static void next_round(struct next_hop_query *q);
static void on_answer(void *owner, const struct dns_answer *a);

static struct lookup *ask(struct next_hop_query *q, struct str name, enum dns_type type)
{
    struct port_dns *dns = q->engine->ports.dns;
    struct lookup *l = ARENA_NEW(&q->arena, struct lookup);
    if (!l)
        return NULL;
    l->query = q;
    l->type = type;
    l->dns = dns->query(dns, name, type, on_answer, l);
    if (!l->dns)
        return NULL;
    list_push(&q->lookups, &l->link);
    return l;
}

static bool looks_like_address(struct str name)
{
    struct net_addr addr;
    return net_addr_parse_ip(name, &addr) == 0;
}

static struct candidate *add_candidate(struct next_hop_query *q, struct str name,
                                       uint32_t preference)
{
    if (q->n == MAX_CANDIDATES) {
        next_hop_discard(q, arena_str(&q->arena, name), STR("too many hosts"));
        return NULL;
    }
    struct candidate *c = ARENA_NEW(&q->arena, struct candidate);
    struct str kept = arena_str(&q->arena, name);
    if (!c || kept.n < name.n) {
        next_hop_no_memory(
            q); /* a host that has lost its name would be another one: not ourselves, say */
        return NULL;
    }
    q->candidates[q->n++] = c;
    *c = (struct candidate){ .name = kept,
                             .preference = preference,
                             .shuffle = engine_random(q->engine),
                             .tls = q->route->tls,
                             .port = SMTP_PORT };
    return c;
}

static struct candidate *candidate_of_target(struct next_hop_query *q, const struct route_target *t,
                                             struct str name, uint32_t preference)
{
    struct candidate *c = add_candidate(q, name, preference);
    if (!c || !t)
        return c;
    c->target = t;
    c->port = t->port;
    c->lmtp = t->lmtp;
    c->tls = route_target_tls(q->route, t);
    return c;
}

static void take_mx_record(struct next_hop_query *q, const struct lookup *l,
                           const struct dns_record *r, bool secure)
{
    struct str what = arena_printf(&q->arena, "%u " STR_FMT, r->preference, STR_ARG(r->name));
    bool address = looks_like_address(r->name);
    if (r->name.n == 0 || address) {
        next_hop_discard(q, what,
                         address ? STR("an address where a name must stand")
                                 : STR("null MX beside others"));
        if (!l->target)
            q->refused = MIN(q->refused, (uint32_t)r->preference);
    } else {
        struct candidate *c =
            candidate_of_target(q, l->target, r->name,
                                l->target ? (l->preference << 16) | r->preference : r->preference);
        if (c) {
            c->by_mx = true;
            c->secure = c->secure_way = c->secure_name = secure;
        }
    }
}

static int by_record_preference(const void *a, const void *b)
{
    const struct dns_record *const *x = a, *const *y = b;
    return ((*x)->preference > (*y)->preference) - ((*x)->preference < (*y)->preference);
}

/* The best first: of more than can be looked at, the worst are left out, and what a name says about
 * ourselves is seen all the same (B2). */
static void take_mx_records(struct next_hop_query *q, const struct lookup *l,
                            const struct dns_answer *a)
{
    const struct dns_record **sorted = ARENA_ARRAY(&q->arena, const struct dns_record *, a->n);
    for (size_t i = 0; i < a->n; i++) {
        const struct dns_record *r = &a->records[i];
        if (sorted)
            sorted[i] = r;
        if (!l->target && engine_is_self_name(q->engine, r->name))
            q->own_by_name = MIN(q->own_by_name, (uint32_t)r->preference);
    }
    if (!sorted) {
        next_hop_no_memory(q);
        return;
    }
    qsort(sorted, a->n, sizeof *sorted, by_record_preference);
    for (size_t i = 0; i < a->n; i++)
        take_mx_record(q, l, sorted[i], a->authentic);
}

/* The MX of a smart host: where there is none, its address is used. Not while that is not known: it can be
 * somebody else's. */
static void take_target_mx(struct next_hop_query *q, struct lookup *l, const struct dns_answer *a)
{
    if (a->status == DNS_OK && !(a->n == 1 && a->records[0].name.n == 0)) {
        take_mx_records(q, l, a);
        return;
    }
    struct candidate *c = candidate_of_target(q, l->target, l->target->host, l->preference << 16);
    if (c) {
        c->secure = c->secure_way = a->authentic;
        c->broken = a->status == DNS_SERVFAIL || a->status == DNS_TIMEOUT;
    }
}

static void take_domain_mx(struct next_hop_query *q, struct lookup *l, const struct dns_answer *a)
{
    struct str domain = q->route->domain;
    switch (a->status) {
    case DNS_OK:
        if (a->n == 1 && a->records[0].name.n == 0)
            next_hop_conclude(q, NEXT_HOP_NULL_MX, NEXT_HOP_PERMANENT, 556, ENH(5, 1, 10), false,
                              arena_printf(&q->arena, STR_FMT " does not accept mail (null MX)",
                                           STR_ARG(domain)));
        else
            take_mx_records(q, l, a);
        break;
    case DNS_NODATA: { /* implicit MX */
        struct candidate *c = add_candidate(q, domain, 0);
        if (c)
            c->secure = c->secure_way = a->authentic;
        break;
    }
    case DNS_NXDOMAIN:
        next_hop_conclude(
            q, NEXT_HOP_NXDOMAIN, NEXT_HOP_PERMANENT, 550, ENH(5, 1, 2), false,
            arena_printf(&q->arena, "domain " STR_FMT " does not exist", STR_ARG(domain)));
        break;
    case DNS_SERVFAIL:
    case DNS_TIMEOUT:
        next_hop_conclude(q, NEXT_HOP_DNS_FAILURE, NEXT_HOP_DEFER, 451, ENH(4, 4, 3), false,
                          arena_printf(&q->arena, "MX look-up of " STR_FMT " failed: %s",
                                       STR_ARG(domain), dns_status_name(a->status)));
        break;
    }
}

/* Where one more address of that family goes: behind the others, or, when there is no more room, in the place of
 * one of the other family, which leaves it half of the room at most (Q5). NULL: nowhere. */
static struct net_addr *place_for(struct candidate *c, uint8_t family)
{
    struct net_addr *other = NULL;
    size_t same = 0;
    if (c->n_addrs < MAX_ADDRESSES)
        return &c->addrs[c->n_addrs++];
    for (size_t i = 0; i < c->n_addrs; i++)
        if (c->addrs[i].family == family)
            same++;
        else
            other = &c->addrs[i];
    return same < MAX_ADDRESSES / 2 ? other : NULL;
}

static void take_addresses(struct next_hop_query *q, struct lookup *l, const struct dns_answer *a)
{
    struct candidate *c = q->candidates[l->candidate];
    if (a->status == DNS_SERVFAIL || a->status == DNS_TIMEOUT)
        c->broken = true;
    if (a->n > 0) { /* both families have the same CNAMEs */
        c->secure &= a->authentic;
        c->base = arena_str(&q->arena, a->canonical);
        if (c->base.n < a->canonical.n) /* its TLSA records would be looked up elsewhere */
            next_hop_no_memory(q);
    }
    if (a->n > 0 && !c->addrs)
        c->addrs = ARENA_ARRAY(&q->arena, struct net_addr, MAX_ADDRESSES);
    c->broken |= a->n > 0 && !c->addrs;
    for (size_t i = 0; c->addrs && i < a->n; i++) {
        struct net_addr *place = place_for(c, a->records[i].addr.family);
        if (!place)
            break;
        *place = a->records[i].addr;
        place->port = c->port;
    }
}

/* ---- TLSA (RFC 7672 §2.2) --------------------------------------------------------------------- */

/* Without an answer nothing goes there. A notification that would keep REQUIRETLS goes on by its route's own terms. */
static bool needs_tlsa(const struct next_hop_query *q, const struct candidate *c)
{
    return c->dane_by_route || q->wish == NEXT_HOP_REQUIRETLS;
}

/* Of that candidate. What cannot be asked for may be there. */
static void ask_about(struct next_hop_query *q, size_t candidate, struct str name,
                      enum dns_type type)
{
    struct candidate *c = q->candidates[candidate];
    struct lookup *l = name.p ? ask(q, name, type) : NULL;
    if (l)
        l->candidate = candidate;
    c->withheld = !l && needs_tlsa(q, c);
}

static void ask_tlsa_at(struct next_hop_query *q, size_t candidate, struct str base)
{
    struct candidate *c = q->candidates[candidate];
    c->base = base;
    ask_about(q, candidate, arena_printf(&q->arena, "_%u._tcp." STR_FMT, c->port, STR_ARG(base)),
              DNS_TLSA);
}

static struct str unexpanded(const struct candidate *c)
{
    struct str name = c->name;
    if (name.n && name.p[name.n - 1] == '.')
        name.n--;
    return name;
}

/* Is its name an alias, with what is behind that as base? */
static bool is_expanded(const struct candidate *c)
{
    return c->base.n > 0 && !str_caseeq(c->base, unexpanded(c));
}

/* An alias of which only the addresses are insecure: its own name may have records all the same, if the alias is
 * secure (§2.2.2, "Insecure CNAME"). */
static void take_alias(struct next_hop_query *q, struct lookup *l, const struct dns_answer *a)
{
    struct candidate *c = q->candidates[l->candidate];
    if (a->status == DNS_SERVFAIL || a->status == DNS_TIMEOUT)
        c->withheld = needs_tlsa(q, c);
    else if (a->status == DNS_OK && a->authentic)
        ask_tlsa_at(q, l->candidate, unexpanded(c));
}

/* Only what is secure counts. Records of which none can be used still say that there is TLS. */
static void take_tlsa(struct next_hop_query *q, struct lookup *l, const struct dns_answer *a)
{
    struct candidate *c = q->candidates[l->candidate];
    if (a->status == DNS_SERVFAIL || a->status == DNS_TIMEOUT) {
        c->withheld = needs_tlsa(q, c);
        return;
    }
    if (a->status != DNS_OK || !a->authentic) {
        if (is_expanded(c)) /* then the alias itself (§2.2.3) */
            ask_tlsa_at(q, l->candidate, unexpanded(c));
        return;
    }
    struct buf octets;
    buf_init(&octets, 0);
    int n = dane_write(c->base, c->target ? c->target->host : q->route->domain, a, &octets);
    if (n > 0)
        c->dane = arena_str(&q->arena, buf_str(&octets));
    buf_done(&octets);
    if (c->dane_by_route) {
        c->tls = n > 0 ? ROUTE_TLS_DANE : ROUTE_TLS_REQUIRE;
        c->tlsa_unusable = n == 0;
    }
    bool no_memory = n < 0 || (n > 0 && !c->dane.n);
    c->withheld = no_memory && needs_tlsa(q, c);
}

static void on_answer(void *owner, const struct dns_answer *a)
{
    struct lookup *l = owner;
    struct next_hop_query *q = l->query;
    list_remove(&l->link);
    l->dns = NULL;
    if (l->type == DNS_MX && l->target)
        take_target_mx(q, l, a);
    else if (l->type == DNS_MX)
        take_domain_mx(q, l, a);
    else if (l->type == DNS_TLSA)
        take_tlsa(q, l, a);
    else if (l->type == DNS_CNAME)
        take_alias(q, l, a);
    else
        take_addresses(q, l, a);
    if (list_empty(&q->lookups))
        next_round(q);
}

/* ---- MTA-STS ---------------------------------------------------------------------------------- */

/* Of a policy in whatever mode, for what it says of the domain's MX. */
bool next_hop_wants_names(const struct next_hop_query *q)
{
    return q->wish == NEXT_HOP_REQUIRETLS || q->wish == NEXT_HOP_PREFER_REQUIRETLS;
}

/* NULL: out of memory. One that had lost an MX would forbid it. */
static struct mta_sts_policy *keep_policy(struct next_hop_query *q,
                                          const struct mta_sts_policy *from)
{
    struct mta_sts_policy *p = ARENA_NEW(&q->arena, struct mta_sts_policy);
    if (!p)
        return NULL;
    *p = *from;
    p->text = from->text.n ? arena_str(&q->arena, from->text) : STR_NONE;
    for (size_t i = 0; i < p->n_mx; i++) {
        p->mx[i] = arena_str(&q->arena, from->mx[i]);
        if (p->mx[i].n < from->mx[i].n)
            return NULL;
    }
    return p;
}

static void on_sts(void *owner, const struct sts_result *r)
{
    struct next_hop_query *q = owner;
    q->sts = NULL;
    if (r->why)
        next_hop_discard(q, STR("MTA-STS policy"), arena_str(&q->arena, str_of(r->why)));
    q->result.sts_fault = r->fault;
    q->result.sts_why = arena_str(&q->arena, str_of(r->why));
    q->policy_unknown = r->unknown;
    if (r->policy) {
        q->policy = keep_policy(q, r->policy);
        if (!q->policy)
            next_hop_no_memory(q);
        q->result.sts = q->policy;
    }
    if (r->no_memory)
        next_hop_no_memory(q);
    if (list_empty(&q->lookups))
        next_round(q);
}

static bool wants_sts(const struct next_hop_query *q)
{
    const struct route *r = q->route;
    return q->engine->ports.https && r->kind == ROUTE_MX && !r->no_sts &&
           q->wish != NEXT_HOP_TLS_OPTIONAL &&
           (r->tls != ROUTE_TLS_NONE || next_hop_wants_names(q));
}

static void ask_addresses(struct next_hop_query *q)
{
    q->addresses_asked = true;
    qsort(q->candidates, q->n, sizeof q->candidates[0], next_hop_by_preference);
    for (size_t i = 0; i < q->n; i++) {
        struct candidate *c = q->candidates[i];
        if (c->literal || c->broken)
            continue;
        struct lookup *v6 = ask(q, c->name, DNS_AAAA);
        struct lookup *v4 = ask(q, c->name, DNS_A);
        if (v6)
            v6->candidate = i;
        if (v4)
            v4->candidate = i;
        c->broken |= !v6 || !v4;
    }
}

/* A name that is secure may have TLSA records. Of every other one TLS is opportunistic (RFC 7672 §2.2). */
static void ask_tlsa(struct next_hop_query *q)
{
    q->tlsa_asked = true;
    for (size_t i = 0; i < q->n; i++) {
        struct candidate *c = q->candidates[i];
        c->dane_by_route = c->tls == ROUTE_TLS_DANE;
        if (c->dane_by_route) /* who is to be shown our certificate gets no mail without TLS */
            c->tls = q->route->certificate.n ? ROUTE_TLS_REQUIRE : ROUTE_TLS_OPPORTUNISTIC;
        if (!c->dane_by_route && (!next_hop_wants_names(q) || c->tls == ROUTE_TLS_VERIFY))
            continue;
        if (q->wish == NEXT_HOP_TLS_OPTIONAL || c->literal || c->n_addrs == 0)
            continue;
        if (c->secure)
            ask_tlsa_at(q, i, c->base);
        else if (c->secure_way && is_expanded(c))
            ask_about(q, i, unexpanded(c), DNS_CNAME);
    }
}

static bool make_room(struct next_hop_query *q)
{
    for (size_t i = 0; i < q->n; i++)
        q->max_hops += q->candidates[i]->n_addrs;
    q->max_hops = MIN(q->max_hops, (size_t)NEXT_HOP_MAX);
    q->hops = ARENA_ARRAY(&q->arena, struct hop, MAX(q->max_hops, (size_t)1));
    if (!q->hops)
        next_hop_no_memory(q);
    return q->hops != NULL;
}

static void next_round(struct next_hop_query *q)
{
    if (q->result.status == NEXT_HOP_OK && !q->addresses_asked) {
        ask_addresses(q);
        if (!list_empty(&q->lookups))
            return;
    }
    if (q->result.status == NEXT_HOP_OK && !q->tlsa_asked) {
        ask_tlsa(q);
        if (!list_empty(&q->lookups))
            return;
    }
    if (q->result.status == NEXT_HOP_OK && q->sts)
        return;
    if (q->result.status == NEXT_HOP_OK && make_room(q)) {
        if (q->route->kind == ROUTE_MX)
            next_hop_decide_mx(q);
        else
            next_hop_decide_hosts(q);
        next_hop_mix_families(q->hops, q->n_hops);
    }
    tell(q);
}

static void on_later(struct later *l)
{
    next_round(CONTAINER_OF(l, struct next_hop_query, later));
}

/* ---- targets ---------------------------------------------------------------------------------- */

/* Puts targets [from, to) into the order of trying: order[place] is a target's number. */
static void place_group(struct next_hop_query *q, size_t from, size_t to, uint32_t turn,
                        size_t *order)
{
    size_t n = to - from;
    enum route_balance balance = q->route->balance;
    for (size_t i = 0; i < n; i++)
        order[from + i] = from + (balance == ROUTE_ROUND_ROBIN ? (i + turn) % n : i);
    for (size_t i = n; balance == ROUTE_RANDOM && i > 1; i--) {
        size_t k = (size_t)(engine_random(q->engine) % i);
        size_t swap = order[from + i - 1];
        order[from + i - 1] = order[from + k];
        order[from + k] = swap;
    }
}

/* Groups stay in their order (S4). */
static void place_targets(struct next_hop_query *q, uint32_t turn, size_t *order)
{
    const struct route *r = q->route;
    for (size_t from = 0, to; from < r->n_targets; from = to) {
        for (to = from + 1; to < r->n_targets && !r->targets[to].new_group;)
            to++;
        place_group(q, from, to, turn, order);
    }
}

static void begin_target(struct next_hop_query *q, const struct route_target *t, uint32_t place)
{
    if (t->addr.family != NET_NONE) {
        char ip[NET_ADDR_TEXT];
        struct candidate *c =
            candidate_of_target(q, t, str_of(net_addr_ip_text(&t->addr, ip)), place << 16);
        if (!c)
            return;
        c->literal = true;
        c->addrs = ARENA_NEW(&q->arena, struct net_addr);
        if (c->addrs)
            c->addrs[c->n_addrs++] = t->addr;
        else
            next_hop_no_memory(q);
    } else if (t->use_mx) {
        struct lookup *l = ask(q, t->host, DNS_MX);
        if (l) {
            l->target = t;
            l->preference = place;
        } else {
            next_hop_no_memory(q);
        }
    } else {
        struct candidate *c = candidate_of_target(q, t, t->host, place << 16);
        if (c)
            c->secure = c->secure_way = true; /* given by us: no answer led to it */
    }
}

struct next_hop_query *next_hop_resolve(struct engine *e, const struct route *route,
                                        const struct settings *settings, next_hop_done *done,
                                        void *owner)
{
    return next_hop_resolve_for(e, route, settings, NEXT_HOP_AS_ROUTED, done, owner);
}

struct next_hop_query *next_hop_resolve_for(struct engine *e, const struct route *route,
                                            const struct settings *settings,
                                            enum next_hop_wish wish, next_hop_done *done,
                                            void *owner)
{
    CHECK(route->kind == ROUTE_MX || route->kind == ROUTE_HOSTS);
    struct next_hop_query *q = calloc(1, sizeof *q);
    if (!q)
        return NULL;
    q->engine = e;
    q->route = route;
    q->settings = settings;
    q->wish = wish;
    q->own_by_name = q->refused = UINT32_MAX;
    q->done = done;
    q->owner = owner;
    arena_init(&q->arena, 0);
    list_init(&q->lookups);
    later_init(&q->later, on_later);
    if (route->kind == ROUTE_MX) {
        if (!ask(q, route->domain, DNS_MX)) {
            query_free(q);
            return NULL;
        }
        if (wants_sts(q) && !(q->sts = sts_lookup(e, route->domain, on_sts, q))) {
            query_free(q);
            return NULL;
        }
        return q;
    }
    size_t order[ROUTE_MAX_TARGETS] = { 0 };
    CHECK(route->n_targets <= ROUTE_MAX_TARGETS);
    place_targets(q, e->round_robin++, order);
    for (size_t i = 0; i < route->n_targets; i++)
        begin_target(q, &route->targets[order[i]], (uint32_t)i);
    if (list_empty(&q->lookups))
        engine_later(e, &q->later);
    return q;
}
