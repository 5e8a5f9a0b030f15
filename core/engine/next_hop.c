/* next_hop.c - MX and addresses into an ordered list of hops. See next_hop.h.
 *
 * Rounds of look-ups: the MX of what is to be looked up by MX, which gives candidates; then A and AAAA
 * of all candidates at once; then the TLSA of those to which DANE applies (S8). Only then is decided, because whether a candidate is ourselves can show in its address (B1). */
#include "engine/next_hop.h"

#include "proto/dane.h"

enum { MAX_CANDIDATES = 32, MAX_ADDRESSES = 8, FIRST_TRIES = 5, SMTP_PORT = 25 };

struct candidate {
    struct str name;
    uint32_t preference;
    uint64_t shuffle; /* order among equals */
    uint16_t port;
    const struct route_target *target; /* NULL: of the route's domain */
    bool lmtp, literal;                /* literal: given as an address */
    bool by_mx;                        /* its name stands in an MX record */
    bool self;
    bool broken;        /* look-up failed for now */
    bool sts;           /* tls is what the MTA-STS policy says */
    bool tlsa_unusable; /* as in struct hop */
    bool secure;        /* DNSSEC: every answer that led here, and to its addresses */
    bool secure_name;   /* DNSSEC: the MX record that names it */
    bool dane_by_route; /* the route asks for DANE, not only a message with REQUIRETLS */
    bool
        withheld; /* it may have TLSA records, which are not known now: not to be used (RFC 7672 §2.1) */
    enum route_tls tls;
    struct str base; /* TLSA base domain: the name behind CNAMEs */
    struct str dane; /* proto/dane.h; empty: none */
    struct net_addr
        *addrs; /* room for MAX_ADDRESSES from the first look-up on; a literal has one */
    size_t n_addrs;
};

struct lookup {
    struct list link;
    struct next_hop_query *query;
    struct dns_query *dns;
    enum dns_type type;
    size_t candidate;                  /* A, AAAA, TLSA */
    const struct route_target *target; /* MX of a target; NULL: of the route's domain */
    uint32_t preference;               /* of that target */
};

struct next_hop_query {
    struct engine *engine;
    const struct route *route;
    const struct settings *settings;
    enum next_hop_wish wish;
    next_hop_done *done;
    void *owner;
    struct arena arena;
    struct later later;
    struct list lookups;           /* outstanding */
    struct sts_query *sts;         /* what the domain asks for is being looked up */
    struct mta_sts_policy *policy; /* NULL: none that could be had */
    bool not_in_policy;            /* it was why a host is not used */
    bool policy_unknown;           /* there is one, and it could not be fetched now */
    bool not_vouched, not_known;   /* why a host is not used for REQUIRETLS: never, or not now */
    bool addresses_asked, tlsa_asked;
    struct candidate *candidates[MAX_CANDIDATES];
    size_t n;
    struct hop *hops; /* room for max_hops */
    size_t n_hops, max_hops;
    struct hop_discarded *discarded;
    size_t n_discarded, max_discarded;
    uint32_t refused; /* preference of the best MX record that is none: a broken zone, not a loop */
    uint32_t own_by_name; /* preference of the best MX that has a name of ours; UINT32_MAX: none */
    struct str own_listener; /* which address was one of our own listeners; empty: none */
    struct next_hops result;
};

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
static void discard(struct next_hop_query *q, struct str what, struct str reason)
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

static void conclude(struct next_hop_query *q, enum next_hop_reason reason,
                     enum next_hop_status status, uint16_t code, struct smtp_enhanced enhanced,
                     bool alarm, struct str text)
{
    q->result.status = status;
    q->result.reason = reason;
    q->result.alarm = alarm;
    q->result.reply = (struct smtp_reply){ .code = code, .enhanced = enhanced, .text = text };
}

/* Never a reason to bounce. */
static void no_memory(struct next_hop_query *q)
{
    conclude(q, NEXT_HOP_NO_MEMORY, NEXT_HOP_DEFER, 451, ENH(4, 3, 0), false, STR("out of memory"));
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
        discard(q, arena_str(&q->arena, name), STR("too many hosts"));
        return NULL;
    }
    struct candidate *c = ARENA_NEW(&q->arena, struct candidate);
    struct str kept = arena_str(&q->arena, name);
    if (!c || kept.n < name.n) {
        no_memory(q); /* a host that has lost its name would be another one: not ourselves, say */
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
        discard(q, what,
                address ? STR("an address where a name must stand") : STR("null MX beside others"));
        if (!l->target)
            q->refused = MIN(q->refused, (uint32_t)r->preference);
    } else {
        struct candidate *c =
            candidate_of_target(q, l->target, r->name,
                                l->target ? (l->preference << 16) | r->preference : r->preference);
        if (c) {
            c->by_mx = true;
            c->secure = c->secure_name = secure;
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
        no_memory(q);
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
        c->secure = a->authentic;
        c->broken = a->status == DNS_SERVFAIL || a->status == DNS_TIMEOUT;
    }
}

static void take_domain_mx(struct next_hop_query *q, struct lookup *l, const struct dns_answer *a)
{
    struct str domain = q->route->domain;
    switch (a->status) {
    case DNS_OK:
        if (a->n == 1 && a->records[0].name.n == 0)
            conclude(q, NEXT_HOP_NULL_MX, NEXT_HOP_PERMANENT, 556, ENH(5, 1, 10), false,
                     arena_printf(&q->arena, STR_FMT " does not accept mail (null MX)",
                                  STR_ARG(domain)));
        else
            take_mx_records(q, l, a);
        break;
    case DNS_NODATA: { /* implicit MX */
        struct candidate *c = add_candidate(q, domain, 0);
        if (c)
            c->secure = a->authentic;
        break;
    }
    case DNS_NXDOMAIN:
        conclude(q, NEXT_HOP_NXDOMAIN, NEXT_HOP_PERMANENT, 550, ENH(5, 1, 2), false,
                 arena_printf(&q->arena, "domain " STR_FMT " does not exist", STR_ARG(domain)));
        break;
    case DNS_SERVFAIL:
    case DNS_TIMEOUT:
        conclude(q, NEXT_HOP_DNS_FAILURE, NEXT_HOP_DEFER, 451, ENH(4, 4, 3), false,
                 arena_printf(&q->arena, "MX look-up of " STR_FMT " failed: %s", STR_ARG(domain),
                              dns_status_name(a->status)));
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
            no_memory(q);
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

/* RFC 7672 §2.2: only what is secure counts. Records of which none can be used still say that there is TLS. */
static void take_tlsa(struct next_hop_query *q, struct lookup *l, const struct dns_answer *a)
{
    struct candidate *c = q->candidates[l->candidate];
    if (a->status == DNS_SERVFAIL || a->status == DNS_TIMEOUT) {
        c->withheld = true;
        return;
    }
    if (a->status != DNS_OK || !a->authentic)
        return;
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
    c->withheld = n < 0 || (n > 0 && !c->dane.n); /* no memory */
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
    else
        take_addresses(q, l, a);
    if (list_empty(&q->lookups))
        next_round(q);
}

/* ---- MTA-STS ---------------------------------------------------------------------------------- */

/* Of a policy in whatever mode, for what it says of the domain's MX. */
static bool wants_names(const struct next_hop_query *q)
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
        discard(q, STR("MTA-STS policy"), arena_str(&q->arena, str_of(r->why)));
    q->result.sts_fault = r->fault;
    q->result.sts_why = arena_str(&q->arena, str_of(r->why));
    q->policy_unknown = r->unknown;
    if (r->policy) {
        q->policy = keep_policy(q, r->policy);
        if (!q->policy)
            no_memory(q);
        q->result.sts = q->policy;
    }
    if (r->no_memory)
        no_memory(q);
    if (list_empty(&q->lookups))
        next_round(q);
}

static bool wants_sts(const struct next_hop_query *q)
{
    const struct route *r = q->route;
    return q->engine->ports.https && r->kind == ROUTE_MX && !r->no_sts &&
           q->wish != NEXT_HOP_TLS_OPTIONAL && (r->tls != ROUTE_TLS_NONE || wants_names(q));
}

/* May mail go to that MX? Then TLS is demanded of it as the policy says. Secure TLSA records are what an MX itself
 * says, and hold instead (RFC 8461 §2). */
static bool allowed_by_policy(struct next_hop_query *q, struct candidate *c)
{
    if (!q->policy || q->policy->mode != MTA_STS_ENFORCE || q->route->tls == ROUTE_TLS_NONE ||
        c->dane.n)
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
        discard(q, c->name, STR("TLSA look-up failed"));
        return true;
    }
    if (is_vouched(q, c))
        return false;
    q->not_vouched = true;
    discard(q, c->name, STR("REQUIRETLS: neither DNSSEC nor MTA-STS vouches for that name"));
    return true;
}

/* No host is left because of that: true, and it is concluded. broken: there is one of which nothing is known now. */
static bool none_for_requiretls(struct next_hop_query *q, struct str domain, bool broken)
{
    bool later = broken || q->not_known || q->policy_unknown;
    if (!q->not_vouched && !q->not_known)
        return false;
    conclude(q, NEXT_HOP_NOT_VOUCHED, later ? NEXT_HOP_DEFER : NEXT_HOP_PERMANENT,
             later ? 451 : 550, later ? ENH(4, 7, 10) : ENH(5, 7, 10), false,
             later ? arena_printf(&q->arena,
                                  "REQUIRETLS: what vouches for the MX of " STR_FMT
                                  " cannot be looked up now",
                                  STR_ARG(domain))
                   : arena_printf(
                         &q->arena,
                         "REQUIRETLS: neither DNSSEC nor MTA-STS vouches for the MX of " STR_FMT,
                         STR_ARG(domain)));
    return true;
}

/* ---- decision --------------------------------------------------------------------------------- */

static int by_preference(const void *a, const void *b)
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
                          .vouched = wants_names(q) && is_vouched(q, c),
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
        discard(q, what, str_of(why));
        return;
    }
    keep_hop(q, c, addr);
}

/* The addresses of a candidate, both families in turn. */
static void add_hops(struct next_hop_query *q, const struct candidate *c)
{
    bool used[MAX_ADDRESSES] = { false };
    if (c->withheld) {
        discard(q, c->name, STR("TLSA look-up failed"));
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
        discard(q, c->name, c->broken ? STR("look-up failed") : STR("has no address"));
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
        conclude(q, NEXT_HOP_WE_ARE_BEST, NEXT_HOP_DEFER, 451, ENH(4, 4, 6), true,
                 arena_printf(&q->arena, "we are the best MX of " STR_FMT, STR_ARG(r->domain)));
    else if (self)
        conclude(q, NEXT_HOP_WE_ARE_BEST, NEXT_HOP_PERMANENT, 554, ENH(5, 4, 6), true,
                 arena_printf(&q->arena,
                              "mail for " STR_FMT " loops back to myself: no MX is better than we",
                              STR_ARG(r->domain)));
    else if (q->own_listener.n)
        conclude(q, NEXT_HOP_OWN_LISTENER, NEXT_HOP_PERMANENT, 554, ENH(5, 4, 6), true,
                 arena_printf(&q->arena,
                              "mail for " STR_FMT " loops back to myself: " STR_FMT
                              " is one of our own listeners",
                              STR_ARG(r->domain), STR_ARG(q->own_listener)));
    else if (none_for_requiretls(q, r->domain, broken))
        return;
    else if (q->not_in_policy)
        conclude(q, NEXT_HOP_NOT_IN_STS, NEXT_HOP_DEFER, 451, ENH(4, 7, 5), false,
                 arena_printf(&q->arena, "the MTA-STS policy of " STR_FMT " allows none of its MX",
                              STR_ARG(r->domain)));
    else if (withheld(q)) {
        q->result.tlsa_host = withheld(q)->name;
        conclude(q, NEXT_HOP_DNS_FAILURE, NEXT_HOP_DEFER, 451, ENH(4, 4, 3), false,
                 arena_printf(&q->arena, "the TLSA look-up of " STR_FMT " failed",
                              STR_ARG(withheld(q)->name)));
    } else if (broken || r->below_self) /* never a reason to use a worse one (B4) */
        conclude(
            q, NEXT_HOP_NO_ADDRESS, NEXT_HOP_DEFER, 451,
            broken && !r->below_self ? ENH(4, 4, 3) : ENH(4, 4, 4), false,
            arena_printf(&q->arena, "no MX of " STR_FMT " has an address now", STR_ARG(r->domain)));
    else
        conclude(
            q, NEXT_HOP_NO_ADDRESS, NEXT_HOP_PERMANENT, 550, ENH(5, 4, 4), false,
            arena_printf(&q->arena, "no MX of " STR_FMT " has an address", STR_ARG(r->domain)));
}

/* B5: never deliver to "any MX". Where a name could not be looked up, it may be our own: not known now. */
static void not_listed(struct next_hop_query *q, bool broken)
{
    if (broken)
        conclude(q, NEXT_HOP_DNS_FAILURE, NEXT_HOP_DEFER, 451, ENH(4, 4, 3), false,
                 arena_printf(&q->arena, "the addresses of the MX of " STR_FMT " are not known now",
                              STR_ARG(q->route->domain)));
    else
        conclude(
            q, NEXT_HOP_NOT_AN_MX, NEXT_HOP_DEFER, 451, ENH(4, 4, 4), true,
            arena_printf(&q->arena, "we are not an MX of " STR_FMT, STR_ARG(q->route->domain)));
}

/* RFC 5321 §5.1: where we are among the MX, only better ones are used (B2). */
static void decide_mx(struct next_hop_query *q)
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
            discard(q, arena_printf(&q->arena, "%u " STR_FMT, c->preference, STR_ARG(c->name)),
                    c->self ? STR("ourselves") : STR("not preferred to our own"));
            continue;
        }
        better = true;
        if (!allowed_by_policy(q, c)) {
            discard(q, c->name, STR("not in the domain's MTA-STS policy"));
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

static void decide_hosts(struct next_hop_query *q)
{
    struct str missing = STR_NONE; /* a target that has no address, at least now */
    bool broken = false;
    for (size_t i = 0; i < q->n; i++) {
        struct candidate *c = q->candidates[i];
        broken |= c->broken || c->withheld;
        if (c->by_mx && c->preference >= own_place(q, c->target)) {
            struct str what =
                arena_printf(&q->arena, "%u " STR_FMT, c->preference & 0xffff, STR_ARG(c->name));
            discard(q, what, c->self ? STR("ourselves") : STR("not preferred to our own"));
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
        conclude(q, NEXT_HOP_OWN_LISTENER, for_ever ? NEXT_HOP_DEFER : NEXT_HOP_PERMANENT,
                 for_ever ? 451 : 554, for_ever ? ENH(4, 3, 5) : ENH(5, 4, 6), true,
                 arena_printf(&q->arena, "the target " STR_FMT " is this router itself",
                              STR_ARG(q->own_listener)));
    else { /* an operator's target that does not resolve never makes mail bounce (S5, H4) */
        conclude(q, broken ? NEXT_HOP_DNS_FAILURE : NEXT_HOP_NO_ADDRESS, NEXT_HOP_DEFER, 451,
                 broken ? ENH(4, 4, 3) : ENH(4, 3, 5), true,
                 arena_printf(&q->arena, "%s " STR_FMT,
                              withheld(q) ? "TLSA look-up failed for" : "no address for",
                              STR_ARG(missing.n ? missing : STR("any target"))));
    }
}

static void ask_addresses(struct next_hop_query *q)
{
    q->addresses_asked = true;
    qsort(q->candidates, q->n, sizeof q->candidates[0], by_preference);
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
        if (!c->dane_by_route && (q->wish != NEXT_HOP_REQUIRETLS || c->tls == ROUTE_TLS_VERIFY))
            continue;
        if (q->wish == NEXT_HOP_TLS_OPTIONAL || c->literal || !c->secure || c->n_addrs == 0)
            continue;
        struct str name = arena_printf(&q->arena, "_%u._tcp." STR_FMT, c->port, STR_ARG(c->base));
        struct lookup *l = name.p ? ask(q, name, DNS_TLSA) : NULL;
        if (l)
            l->candidate = i;
        c->withheld = !l;
    }
}

static bool make_room(struct next_hop_query *q)
{
    for (size_t i = 0; i < q->n; i++)
        q->max_hops += q->candidates[i]->n_addrs;
    q->max_hops = MIN(q->max_hops, (size_t)NEXT_HOP_MAX);
    q->hops = ARENA_ARRAY(&q->arena, struct hop, MAX(q->max_hops, (size_t)1));
    if (!q->hops)
        no_memory(q);
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
            decide_mx(q);
        else
            decide_hosts(q);
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
            no_memory(q);
    } else if (t->use_mx) {
        struct lookup *l = ask(q, t->host, DNS_MX);
        if (l) {
            l->target = t;
            l->preference = place;
        } else {
            no_memory(q);
        }
    } else {
        struct candidate *c = candidate_of_target(q, t, t->host, place << 16);
        if (c)
            c->secure = true; /* given by us: no answer led to it */
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
