/* hook.h - what the engine asks policies, and what they answer. lua/ implements it; tests do it in C.
 *
 * Layer: engine. One struct hooks per worker and snapshot, used in that worker's thread only.
 * A hook that can answer at once returns its result from hooks->run (1); one that waits returns 0 and calls
 * done on a later turn, never nested. The chain of policies (the recipient's domain policy, `policies` in
 * order, the sender's, the default) is the implementation's business: the engine asks once.
 */
#ifndef TERN_ENGINE_HOOK_H
#define TERN_ENGINE_HOOK_H

#include "base/arena.h"
#include "base/event.h"
#include "engine/ports.h"
#include "mail/address.h"
#include "mail/credentials.h"
#include "mail/headers.h"
#include "mail/message.h"
#include "mail/route.h"
#include "proto/smtp_client.h"
#include "proto/smtp_reply.h"

enum hook {
    HOOK_CONNECT,
    HOOK_HELO,
    HOOK_AUTH,
    HOOK_MAIL,
    HOOK_RCPT,
    HOOK_DATA,
    HOOK_ROUTE,
    HOOK_RESULT,
    HOOK_ETRN,
    HOOK_EVENT,
    HOOK_COUNT
};
const char *hook_name(enum hook h); /* "connect" ... */

/* What a hook may look at. Views: they and all they point to live until the hook has answered or was cancelled. */
struct session_view {
    uint64_t id; /* unique in this process; `session.data` is kept under it */
    const struct net_addr *client, *local;
    const struct net_addr
        *proxy;             /* who told us of client and local (PROXY, XCLIENT); NULL: nobody */
    struct str client_name; /* by PTR, confirmed, or told; empty: unknown */
    struct str helo;
    bool extended;
    bool tls;
    struct tls_facts tls_facts;
    struct str identity; /* authenticated as; empty: not */
    struct str service;  /* of the listener: "smtp", "submission", "lmtp" */
    bool lmtp;           /* that is what it speaks */
    bool may_relay;      /* the client is in relay_from, or authenticated */
};

struct message_view {
    uint64_t key; /* `message.data` is kept under it; 0: none */
    struct msgid id;
    const struct address *sender;
    uint64_t size; /* as declared (mail, rcpt), then as it is */
    bool eight_bit, binary, smtputf8, requiretls;
    int64_t received_ms;
    struct message_times times;
    int8_t
        *priority; /* until it is queued: in place of the one in times, and may be set; else NULL */
    struct net_addr client; /* for queued mail, where the session is gone */
    struct str helo, identity, service;
    /* Content, from the `data` hook on; headers is NULL before. */
    struct headers *headers; /* may be edited in `data` only */
    /* Reads the piece at *cursor (0: the first) behind the headers; *ret lives until the next call.
     * 1: a piece; 0: the end; -errno. NULL: no content. */
    int (*read_body)(const struct message_view *v, uint64_t *cursor, struct str *ret);
    void *content;      /* of read_body */
    uint64_t body_size; /* octets that read_body gives */
};

static inline int8_t message_view_priority(const struct message_view *v)
{
    return v->priority ? *v->priority : v->times.priority;
}

/* Of a message in the queue: no session, no content. Borrows from m. */
struct message_view message_view_of(const struct message *m);

struct recipient_view {
    const struct address *address;
    uint32_t n;
};

enum failure_scope { SCOPE_HOST, SCOPE_MESSAGE, SCOPE_RECIPIENT };
const char *failure_scope_name(enum failure_scope s); /* "host", "message", "recipient" */

struct attempt_view {
    uint32_t number; /* from 1 */
    struct str host; /* name tried last; may be empty */
    struct net_addr address;
    enum smtp_stage stage;
    struct smtp_reply reply; /* code 0: none was given */
    struct str why;          /* "connection refused", "no MX ..." */
    enum failure_scope scope;
    bool permanent; /* what would happen without the hook: bounce, else defer */
    int64_t elapsed_ms, queued_ms;
    const struct route *route;
};

enum etrn_origin { ETRN_CLIENT, ETRN_OPERATOR, ETRN_SCHEDULE };

struct etrn_view {
    char option;         /* '@', '#' or 0 */
    struct str domain;   /* normal form, or the name behind '#' */
    struct str argument; /* as the client said it, with its option; ATRN: all domains, or empty */
    bool atrn;
    bool member; /* `domain` is not what was said, but belongs to it and has mail waiting */
    enum etrn_origin origin;
};

struct credentials_view {
    enum sasl_mechanism mechanism;
    struct str user;
    struct str password; /* NULL-pointed: the mechanism proves it without telling */
};

struct hook_input {
    const struct session_view *session;         /* NULL: route and result of queued mail */
    const struct message_view *message;         /* from mail on */
    const struct recipient_view *recipient;     /* rcpt, route, result */
    const struct attempt_view *attempt;         /* result */
    const struct etrn_view *etrn;               /* etrn */
    const struct credentials_view *credentials; /* auth */
    const struct event *event;                  /* event */
};

enum verdict {
    VERDICT_NONE, /* no opinion in the whole chain */
    VERDICT_ACCEPT,
    VERDICT_REJECT, /* reply 5yz */
    VERDICT_DEFER,  /* reply 4yz; retry_ms for queued mail */
    VERDICT_DISCARD,
    VERDICT_ROUTE,   /* route, result */
    VERDICT_BOUNCE,  /* route, result: fails now, with reply */
    VERDICT_RELEASE, /* etrn */
    VERDICT_FAILED,  /* the hook failed (error, budget); reply is the failure action's */
};

/* Filled in by the hook's side; hook_result_done frees. */
struct hook_result {
    enum verdict verdict;
    struct arena arena; /* owns the texts below */
    struct smtp_reply reply;
    int64_t retry_ms;    /* DEFER: at least this long; 0: by schedule */
    struct route *route; /* ROUTE; one reference. RELEASE: by which the queue is delivered */
    struct str queue;    /* RELEASE: which queues, a name a line; empty: none by name */
    bool subdomains;     /* RELEASE of '@': those of the subdomains, too, if their policies agree */
    bool group;          /* RELEASE of '#': the queues NAME/DOMAIN, if their policies agree */
    int64_t window_ms;   /* RELEASE: how long failures are retried before it is held again */
    /* AUTH, ACCEPT: who it is (empty: the user), and what the client must prove to know
     * (NULL-pointed: nothing more). */
    struct str identity, password;
    bool known_domain;     /* RCPT: the domain stands in `domains` (which authorises it) */
    struct str decided_by; /* "policies/backup.lua:31"; "default" */
};
void hook_result_init(struct hook_result *r);
void hook_result_done(struct hook_result *r);

struct hook_call;                                                /* one that waits */
typedef void hook_done(void *owner, struct hook_result *result); /* result: take what you need */

struct hooks {
    /* Bit h set: some policy has hook h (always set for RCPT and ROUTE, whose chain knows the domains). */
    uint32_t present;
    /* 1: *ret (inited by the caller) is filled in. 0: *ret_call waits, done will be called with a result of
     * its own. Never fails: an error is VERDICT_FAILED. HOOK_EVENT is fire and forget: always 1. */
    int (*run)(struct hooks *self, enum hook h, const struct hook_input *in,
               struct hook_result *ret, hook_done *done, void *owner, struct hook_call **ret_call);
    void (*cancel)(struct hooks *self, struct hook_call *call);
    /* Who we are to hosts, by the name that a route has for it. NULL: it is not known (any more). Borrowed:
     * take a reference before anything else runs. The member may be NULL: nothing is known. */
    struct credentials *(*credentials)(struct hooks *self, struct str name);
    /* session.data and message.data are let go. */
    void (*session_closed)(struct hooks *self, uint64_t session_id);
    void (*message_closed)(struct hooks *self, uint64_t message_key);
    /* Some domain is served by an ETRN policy: EHLO offers it. */
    bool offers_etrn;
    /* Some ETRN policy lets authenticated sessions only: the others are told so, for any domain (530). */
    bool etrn_wants_identity;
    /* The engine that runs them, for what policies can ask of it (the hosts of a route, a probe). Set by
     * that engine when it takes the snapshot; NULL while nobody runs them. */
    struct engine *engine;
    /* Changes when what policies look things up in has changed (maps from files); NULL: nothing can. */
    const uint64_t *data_fingerprint;
    void (*free)(struct hooks *self);
};

static inline bool hooks_have(const struct hooks *h, enum hook which)
{
    return (h->present >> which) & 1;
}

static inline struct credentials *hooks_credentials(struct hooks *h, struct str name)
{
    return h->credentials ? h->credentials(h, name) : NULL;
}

#endif
