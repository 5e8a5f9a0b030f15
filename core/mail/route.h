/* route.h - where a recipient's mail goes next, as a value: what a `route` hook returns, what the
 * queue keeps, what a delivery follows.
 *
 * Layer: mail. Immutable once made, reference counted (atomically). Written into the spool by
 * route_encode, so it holds no secrets: credentials are named, not contained.
 */
#ifndef TERN_MAIL_ROUTE_H
#define TERN_MAIL_ROUTE_H

#include <stdatomic.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/netaddr.h"
#include "mail/hours.h"
#include "mail/rate.h"
#include "mail/schedule.h"

enum {
    ROUTE_MAX_TARGETS = 256,
    ROUTE_MAX_STRING = 4096, /* octets of any string but the queue's name */
    ROUTE_MAX_QUEUE = 255,
    ROUTE_MAX_DEPTH = 4, /* fallbacks of fallbacks */
    ROUTE_MAX_SOURCES = 64,
};
enum route_kind {
    ROUTE_MX = 1,  /* by MX of `domain` (RFC 5321 §5.1) */
    ROUTE_HOSTS,   /* given targets, in order or balanced */
    ROUTE_HOLD,    /* kept, not tried, until released */
    ROUTE_DISCARD, /* dropped, recorded */
    ROUTE_BOUNCE,  /* fails at once with `reply` */
};
enum route_tls {
    ROUTE_TLS_OPPORTUNISTIC,
    ROUTE_TLS_NONE,
    ROUTE_TLS_REQUIRE,
    ROUTE_TLS_VERIFY,
    ROUTE_TLS_DANE
};
enum route_balance { ROUTE_FAILOVER, ROUTE_RANDOM, ROUTE_ROUND_ROBIN };

/* One target as an operator writes it (ROUTING.md S3, H8): "host", "host:port", "[host]",
 * "[host]:port", "192.0.2.1", "192.0.2.1:25", "[2001:db8::1]:25", "lmtp://host:port", "lmtp:/path". */
struct route_target {
    struct str host;      /* a name; empty when addr is set */
    struct net_addr addr; /* family NET_NONE when host is set; port set in both cases */
    uint16_t port;        /* default 25; LMTP over TCP 24 */
    bool use_mx;          /* look the MX of `host` up first */
    bool lmtp;
    bool new_group; /* S4: groups are tried in order, `balance` holds inside of each */
    bool own_tls;   /* S8: `tls` holds for it instead of the route's */
    enum route_tls tls;
    struct str auth; /* S7: name of its own credentials; empty: the route's */
    struct str text; /* as written */
};

/* Of held mail. */
struct route_hold {
    int64_t every_ms;         /* it is let go by the clock so often; 0: not */
    uint16_t from, to;        /* between these, minutes of the local day; equal: all day */
    uint64_t warn_recipients; /* so many in its queue are worth a warning; 0: none are */
    uint64_t warn_octets;
};

struct route {
    atomic_uint refs;
    struct arena arena; /* owns all strings below */
    enum route_kind kind;
    struct str domain;    /* ROUTE_MX: whose MX; normal form */
    bool below_self;      /* only MX preferred to our own (backup MX) */
    bool when_best_defer; /* below_self and we are the best: keep it instead of failing */
    bool no_sts;          /* ROUTE_MX: what the domain asks for by MTA-STS is not looked at */
    struct route_target *targets;
    size_t n_targets;
    enum route_balance balance;
    enum route_tls tls;
    struct str auth;           /* name of credentials (mail/credentials.h), empty: none */
    struct str certificate;    /* file of ours, shown to hosts that ask for one; empty: none */
    struct str queue;          /* accounted and throttled under; never empty after route_finish */
    struct str source;         /* local addresses with blanks between them, empty: any */
    struct str reason;         /* for people */
    struct schedule retry;     /* n == 0: default */
    struct hours hours;        /* of the day, in which it is tried; none: all */
    int64_t lifetime_ms;       /* 0: default; INT64_MAX: for ever */
    int64_t warn_after_ms;     /* 0: default; <0: never */
    uint32_t concurrency;      /* 0: default */
    struct rate rate;          /* transactions; none: as many as there are */
    bool host_failure_forever; /* host failures never end it (backup MX, smart host) */
    struct route *fallback;    /* or NULL */
    struct route_hold hold;    /* ROUTE_HOLD */
    uint16_t reply_code;       /* ROUTE_BOUNCE */
    struct str reply_text;     /* with the enhanced code in front */
};

struct route *route_new(
    enum route_kind kind); /* fill in with strings from r->arena, then route_finish */
/* Checks (kind fits fields, strings within ROUTE_MAX_STRING, fallbacks within
 * ROUTE_MAX_DEPTH) and derives `queue` when empty: the domain for MX, the joined targets
 * for hosts (at most 255 bytes; each with "user@" in front where there are credentials, and all with "file@" where
 * there is a certificate, so that what is wrong with one holds up nobody else's mail), "hold:" + reason for hold. -EINVAL. */
int route_finish(struct route *r);
/* Finished: by MX of the domain, or to the host that an address literal names (RFC 5321 §5.1, §4.1.3).
 * domain: normal form, or "[192.0.2.1]", "[IPv6:2001:db8::1]". reason may be empty; it is not copied and
 * outlives the route. NULL: out of memory, or the literal is none. */
struct route *route_default(struct str domain, struct str reason);
struct route *route_ref(struct route *r);
struct route *route_unref(struct route *r);
/* Fills in its source addresses, at most ROUTE_MAX_SOURCES; returns how many. */
size_t route_sources(const struct route *r, struct net_addr *ret);
/* How TLS is used with the target, and the name of its credentials (empty: none). */
enum route_tls route_target_tls(const struct route *r, const struct route_target *t);
struct str route_target_auth(const struct route *r, const struct route_target *t);
/* mx_first: a bare "host" is looked up by MX first (smart host), else by address (hard routing).
 * -EINVAL. Strings are copied to the arena. */
int route_target_parse(struct arena *a, struct str text, bool mx_first, struct route_target *ret);
int route_encode(const struct route *r, struct buf *out); /* r is finished */
int route_decode(struct str *in, struct route **ret);     /* -EBADMSG, -ENOMEM */
/* A copy that is accounted under that name. NULL: out of memory. */
struct route *route_in_queue(const struct route *r, struct str queue);
/* Mail that says "TLS-Required: No" (RFC 8689 section 3) waits apart, by the same route: what waits for TLS in the usual
 * queue, or makes that back off, does not hold it up. Takes over one reference, returns one. NULL: out of memory. */
struct route *route_tls_optional(struct route *r);
bool route_same(const struct route *a, const struct route *b); /* would be encoded the same */
/* One line for people: "mx example.com below self", "hosts 10.1.2.3:25, 10.1.2.4:25". */
void route_describe(const struct route *r, struct buf *out);
void route_describe_one(const struct route *r, struct buf *out); /* without its fallback */

#endif
