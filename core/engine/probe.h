/* probe.h - asks the hosts of a route something without a message: does one of them answer (connection, TLS,
 * EHLO), and does it take this recipient (MAIL, RCPT: call-forward; ROUTING.md B11, B12, H8).
 *
 * Layer: engine. By the engine's own resolution and connections: what it finds is what a delivery would find,
 * with the same TLS; connections come from the pool and go back there, hosts that failed lately are left
 * alone, and what is learned of a host counts for deliveries too.
 *
 * Who asks the same at the same time shares one answer. So a loop (a host that asks us back about that very
 * recipient before it answers) costs a deadline, and no more.
 */
#ifndef TERN_ENGINE_PROBE_H
#define TERN_ENGINE_PROBE_H

#include "engine/context.h"
#include "mail/route.h"
#include "proto/smtp_client.h"

enum {
    PROBES_MAX = 200,        /* asked at once, for each worker */
    PROBE_MAX_WAITERS = 500, /* of one */
    PROBE_MAX_ADDRESSES = 5, /* tried */
};

enum probe_end {
    PROBE_ANSWERED,    /* reply is of the host: to EHLO (no recipient), MAIL or RCPT */
    PROBE_HOST,        /* no host could be used */
    PROBE_DNS,         /* no host was found; reply says why as a delivery would */
    PROBE_LOOP,        /* the hosts are ourselves */
    PROBE_TIMEOUT,     /* not in time */
    PROBE_UNSUPPORTED, /* the host cannot be asked about such an address */
    PROBE_NO_MEMORY,
};
const char *probe_end_name(enum probe_end end); /* "host", "dns"... */

struct probe_request {
    struct route *route;  /* ROUTE_MX or ROUTE_HOSTS; a reference is taken */
    struct str sender;    /* empty: null */
    struct str recipient; /* empty: only whether a host answers. Both are copied */
    int64_t timeout_ms;   /* of all of it */
};

struct probe_result {
    enum probe_end end;
    enum smtp_stage stage;
    struct smtp_reply reply; /* code 0: none */
    struct str text;         /* for people, also where there is no reply */
    struct str host;         /* tried last; empty: none */
    struct net_addr addr;
};

struct probe; /* one who asks */
/* result lives during the call; the probe is gone after it. */
typedef void probe_done(void *owner, const struct probe_result *result);

struct probes *probes_new(struct engine *e);
/* Nobody is told; those who ask may still cancel. */
struct probes *probes_free(struct probes *all);

/* 0: done comes on a later turn. -EBUSY: too many at once; -ENOMEM. */
int probe_start(struct engine *e, const struct probe_request *request, probe_done *done,
                void *owner, struct probe **ret);
void probe_cancel(struct probe *p);

#endif
