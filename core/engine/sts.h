/* sts.h - what domains ask of those who send mail to them, by MTA-STS (RFC 8461).
 *
 * Layer: engine. A look-up asks for the TXT record, compares its id with that of the policy that is kept in the spool
 * (under the name STS_KV, with the domain as key, until its max_age is over), and fetches the policy when that one is
 * not the present one. One fetch at a time for each domain; a domain whose policy could not be fetched is asked again
 * after STS_RETRY_MS at the earliest, meanwhile what is kept holds as long as it lives (§3.3, §5.1).
 *
 * Nothing of this delays mail for longer than a fetch may take (STS_FETCH_MS), and then for a domain that says that
 * it has a policy.
 */
#ifndef TERN_ENGINE_STS_H
#define TERN_ENGINE_STS_H

#include "engine/engine.h"
#include "proto/mta_sts.h"

enum {
    STS_FETCH_MS = 30000,
    STS_RETRY_MS = 5 * 60 * 1000,
    STS_MAX_DOMAINS = 1024, /* fetched now, or lately, by one worker; more are not fetched */
    STS_MAX_KEPT = 100000,  /* policies in the spool */
};
/* Names of tern.kv with that beginning are the router's own. */
#define STS_KV "tern:mta-sts"

/* What is wrong with a policy that the record speaks of. */
enum sts_fault {
    STS_FINE,
    STS_NOT_FETCHED, /* its web server could not be reached, or has none */
    STS_INVALID,     /* what it gave is no policy */
    STS_WEBPKI,      /* its certificate is not good */
};

struct sts_result {
    const struct mta_sts_policy *policy; /* lives during the call; NULL: the domain has none */
    const char
        *why; /* a policy could not be fetched: what went wrong, for people; NULL: nothing did */
    enum sts_fault fault; /* with `why` */
    bool unknown;         /* no policy, because it could not be asked for one now */
    bool no_memory;       /* there may be one, and memory does not suffice to see it: not now */
};

struct sts_query;
typedef void sts_done(void *owner, const struct sts_result *r);

struct stses *stses_new(struct engine *e);
/* Those who asked have cancelled. Returns NULL; NULL is fine. */
struct stses *stses_free(struct stses *s);

/* domain: A-labels, lower case. Done comes on a later turn. NULL: out of memory. Only where ports.https is there. */
struct sts_query *sts_lookup(struct engine *e, struct str domain, sts_done *done, void *owner);
void sts_cancel(struct sts_query *q);

/* Mail could not be delivered by the domain's policy, which may have changed without its record (§5.1): the next look-up
 * fetches it anew, if none has in the last STS_RETRY_MS. */
void sts_doubt(struct engine *e, struct str domain);

#endif
