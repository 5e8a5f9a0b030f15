/* next_hop_impl.h - what next_hop.c (look-ups) and next_hop_decide.c (which of what was found can be used) share.
 * Layer: engine, internal. */
#ifndef TERN_ENGINE_NEXT_HOP_IMPL_H
#define TERN_ENGINE_NEXT_HOP_IMPL_H

#include "engine/next_hop.h"

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
    bool secure_way;    /* DNSSEC: every answer that led here */
    bool secure_name;   /* DNSSEC: the MX record that names it */
    bool dane_by_route; /* the route asks for DANE, not only a message with REQUIRETLS */
    bool
        withheld; /* it may have TLSA records, which are not known now: not to be used (RFC 7672 §2.1) */
    enum route_tls tls;
    struct str base; /* TLSA base domain: the name behind CNAMEs, or that of the candidate itself */
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

/* For the record only: without memory it is not told. */
void next_hop_discard(struct next_hop_query *q, struct str what, struct str reason);
void next_hop_conclude(struct next_hop_query *q, enum next_hop_reason reason,
                       enum next_hop_status status, uint16_t code, struct smtp_enhanced enhanced,
                       bool alarm, struct str text);
/* Never a reason to bounce. */
void next_hop_no_memory(struct next_hop_query *q);
/* Does it want an MTA-STS policy in whatever mode, for what that says of the domain's MX? */
bool next_hop_wants_names(const struct next_hop_query *q);

/* next_hop_decide.c */
/* Order of candidates, for qsort. */
int next_hop_by_preference(const void *a, const void *b);
/* When all look-ups have ended: makes hops of the candidates, or concludes why there are none. There is room for all of
 * them. Of a route by MX; of one to given hosts. */
void next_hop_decide_mx(struct next_hop_query *q);
void next_hop_decide_hosts(struct next_hop_query *q);

#endif
