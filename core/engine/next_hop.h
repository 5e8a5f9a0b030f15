/* next_hop.h - from a route to the hosts to try, in order (RFC 5321 §5.1, RFC 7505, ROUTING.md B1-B6,
 * S3, H1).
 *
 * Layer: engine. Asynchronous: DNS answers are waited for. Every record that was looked at and not used is told
 * with its reason, so that `tern explain` and `tern why` can show it.
 */
#ifndef TERN_ENGINE_NEXT_HOP_H
#define TERN_ENGINE_NEXT_HOP_H

#include "engine/context.h"
#include "engine/sts.h"
#include "mail/route.h"

enum { NEXT_HOP_MAX = 64 };

struct hop {
    struct str name;      /* host name, or the address as text: for TLS, logs and LHLO */
    struct net_addr addr; /* with port */
    uint32_t preference;  /* MX preference, or the target's place */
    bool lmtp;
    /* It has secure TLSA records, of which none can be used: TLS is all that is demanded. */
    bool tlsa_unusable;
    bool sts;     /* TLS is verified because the domain's MTA-STS policy says so: see sts_doubt */
    bool vouched; /* NEXT_HOP_REQUIRETLS, NEXT_HOP_PREFER_REQUIRETLS: its name can be relied on */
    /* ROUTE_TLS_DANE only with records that can be used: without secure ones it is opportunistic, where none of
     * them can be used, required (RFC 7672 §2.2). */
    enum route_tls tls;
    /* ROUTE_TLS_DANE: proto/dane.h. For mail with REQUIRETLS also with other `tls`, where there are such records. */
    struct str dane;
    struct str auth;        /* name of credentials; empty: none. Lives with the route */
    struct str certificate; /* file of ours; empty: none. Lives with the route */
};

struct hop_discarded {
    struct str what;   /* "10 mx2.isp.example", "AAAA ::1" */
    struct str reason; /* "not preferred to our own", "loopback" */
};

enum next_hop_status {
    NEXT_HOP_OK,        /* at least one hop */
    NEXT_HOP_DEFER,     /* not now: reply 4yz */
    NEXT_HOP_PERMANENT, /* never: reply 5yz */
};

/* Why there is no hop: what a policy can decide by. */
enum next_hop_reason {
    NEXT_HOP_FOUND,        /* there is one */
    NEXT_HOP_NULL_MX,      /* the domain takes no mail (RFC 7505) */
    NEXT_HOP_NXDOMAIN,     /* the domain does not exist */
    NEXT_HOP_DNS_FAILURE,  /* not known now: SERVFAIL, timeout */
    NEXT_HOP_WE_ARE_BEST,  /* no MX is preferred to our own (B3) */
    NEXT_HOP_NOT_AN_MX,    /* a backup MX that the domain does not list (B5) */
    NEXT_HOP_OWN_LISTENER, /* only ourselves (B9, H4) */
    NEXT_HOP_NO_ADDRESS,   /* hosts, but none with an address that may be used */
    NEXT_HOP_NOT_IN_STS,   /* hosts, but the domain's MTA-STS policy names none of them */
    NEXT_HOP_NOT_VOUCHED,  /* NEXT_HOP_REQUIRETLS: hosts, but none whose name can be relied on */
    NEXT_HOP_NO_MEMORY,
};
const char *next_hop_reason_name(enum next_hop_reason r); /* "null_mx" ...; "" when found */

struct next_hops {
    enum next_hop_status status;
    enum next_hop_reason reason;
    struct smtp_reply reply; /* unless OK: 451 4.4.3, 556 5.1.10, 554 5.4.6... */
    bool alarm;              /* an operator should look: B3, B5, H4, S5 */
    bool incomplete; /* there are hosts besides, whose addresses may be known later (B4, H4) */
    const struct hop *hops;
    size_t n;
    const struct hop_discarded *discarded;
    size_t n_discarded;
    /* What a domain is told of in reports (RFC 8460). */
    const struct mta_sts_policy *sts; /* to be enforced, or tested; NULL: none */
    enum sts_fault sts_fault;
    struct str sts_why;   /* of the fault */
    struct str tlsa_host; /* no host is left because the TLSA records of this one are not known */
};

struct next_hop_query;
typedef void next_hop_done(void *owner, const struct next_hops *result); /* lives during the call */

/* route: ROUTE_MX or ROUTE_HOSTS; borrowed until done. Done comes on a later turn. NULL: out of memory. */
struct next_hop_query *next_hop_resolve(struct engine *e, const struct route *route,
                                        const struct settings *settings, next_hop_done *done,
                                        void *owner);
/* What the message asks for besides (RFC 8689). */
enum next_hop_wish {
    NEXT_HOP_AS_ROUTED,
    /* REQUIRETLS: only hosts whose names can be relied on (§4.2.1): named by the route, the domain itself where it has
     * no MX, in an MX record that DNSSEC or the domain's MTA-STS policy (enforced or not) vouches for. */
    NEXT_HOP_REQUIRETLS,
    NEXT_HOP_PREFER_REQUIRETLS, /* of a notification: all hosts, and of which that is so (§5) */
    /* TLS-Required: No: what the recipients' domain asks for, by MTA-STS or DANE, is not looked at (§3). What the route
     * demands itself stays. */
    NEXT_HOP_TLS_OPTIONAL,
};
/* LMTP that leaves no machine is delivery, and no transport: REQUIRETLS demands nothing of it. */
static inline bool hop_is_here(const struct hop *h)
{
    return h->lmtp && (h->addr.family == NET_UNIX || net_addr_is_loopback(&h->addr));
}
/* For REQUIRETLS. Either kind of proof will do, but an operator's `verify` is more than a wish. */
static inline enum route_tls hop_guarded_tls(const struct hop *h)
{
    return h->dane.n && h->tls != ROUTE_TLS_VERIFY ? ROUTE_TLS_DANE : ROUTE_TLS_VERIFY;
}
struct next_hop_query *next_hop_resolve_for(struct engine *e, const struct route *route,
                                            const struct settings *settings,
                                            enum next_hop_wish wish, next_hop_done *done,
                                            void *owner);
/* Five addresses are tried at most: both families are to be among the first ones (Q5). */
void next_hop_mix_families(struct hop *hops, size_t n);
void next_hop_cancel(struct next_hop_query *q);

#endif
