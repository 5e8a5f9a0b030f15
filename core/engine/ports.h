/* ports.h - all that the engine knows of the world: clock, streams, DNS, spool, random, other workers.
 *
 * Layer: engine. core/io and core/spool implement these for real, core/sim in virtual time. A port is
 * a table of functions that its implementation embeds; `self` is the first argument. Each worker has
 * its own ports and calls them from its own thread only (but see struct port_workers).
 *
 * The rule of all callbacks: nothing is called back from inside the call that asked for it. What
 * completes at once is still told on a later turn of the loop. After a cancel or close, no callback comes.
 * What names its owner (void *owner) gets exactly that pointer back.
 */
#ifndef TERN_ENGINE_PORTS_H
#define TERN_ENGINE_PORTS_H

#include "base/buf.h"
#include "base/err.h"
#include "base/event.h"
#include "base/list.h"
#include "base/netaddr.h"
#include "base/str.h"
#include "base/timer.h"
#include "mail/body.h"
#include "mail/msgid.h"
#include "proto/dns_message.h"
#include "proto/sasl.h"

/* ---- clock ------------------------------------------------------------------------------------ */

/* A function to run once, at the end of the present turn of the loop. Embedded in its owner. */
struct later {
    struct list link;
    void (*run)(struct later *l);
};
static inline void later_init(struct later *l, void (*run)(struct later *))
{
    list_init(&l->link);
    l->run = run;
}

struct port_clock {
    /* Milliseconds, monotonic, fixed during one turn of the loop. */
    int64_t (*now)(struct port_clock *self);
    /* Milliseconds since 1970 UTC, fixed during one turn. What is written down uses this. */
    int64_t (*wall)(struct port_clock *self);
    /* at: on the monotonic clock. Timers are embedded in their owner; stop before freeing. Never fails. */
    void (*timer_set)(struct port_clock *self, struct timer *t, int64_t at);
    void (*timer_stop)(struct port_clock *self, struct timer *t);
    /* Harmless when already waiting. Cancelled by list_remove(&l->link). */
    void (*later)(struct port_clock *self, struct later *l);
    /* How much the clock on the wall is ahead of UTC at that moment, in milliseconds. NULL: not at all. */
    int64_t (*zone)(struct port_clock *self, int64_t wall_ms);
};

/* ---- streams ---------------------------------------------------------------------------------- */

struct stream;

struct tls_facts {
    struct str version, cipher; /* "TLSv1.3", "TLS_AES_256_GCM_SHA384" */
    bool verified;              /* chain and name, or the TLSA records */
    bool resumed;               /* a session was taken up again: it was verified when it began */
    /* Of the peer's certificate; empty: there is none. */
    struct str subject, issuer;
    struct str names;                        /* of its subjectAltName, each with a '\n' behind it */
    struct str fingerprint, key_fingerprint; /* SHA-256 of the whole, of the public key: in hex */
};

/* What is wrong with the certificate of a server, or with the handshake. */
enum tls_fault {
    TLS_FINE,
    TLS_OTHER_NAME, /* it is for another host */
    TLS_EXPIRED,
    TLS_NOT_TRUSTED, /* its chain leads to nobody who is trusted, or is broken */
    TLS_NOT_TLSA,    /* it is none of those that the TLSA records name */
    TLS_FAILED,      /* something else: the handshake failed */
};

/* Callbacks to the owner of a stream. closed is the last one. */
struct stream_events {
    /* Outgoing only: the connection stands. */
    void (*opened)(struct stream *s, void *owner);
    /* stream_input has bytes. The owner consumes what it can. When some stay, nothing more is read,
     * and data comes again only after stream_resume. */
    void (*data)(struct stream *s, void *owner);
    /* stream_unsent fell to the low mark (16 KiB) after it had been above the high mark (64 KiB). */
    void (*drained)(struct stream *s, void *owner);
    /* The handshake asked for by stream_starttls is done. The facts live during the call. */
    void (*secured)(struct stream *s, void *owner, const struct tls_facts *facts);
    /* 0: the peer ended it in order; else -errno (-ECONNREFUSED, -ETIMEDOUT, -EPROTO for TLS...).
     * `why` is for logs: "connection refused", "TLS: certificate has expired". The stream is gone
     * after this call: the owner forgets it and does not close it. */
    void (*closed)(struct stream *s, void *owner, int error, const char *why);
};

/* What a server asks of clients: no certificate, one if they have any, one. */
enum tls_clients { TLS_CLIENTS_NONE, TLS_CLIENTS_ASK, TLS_CLIENTS_REQUIRE };
enum tls_verify { TLS_VERIFY_NONE, TLS_VERIFY_NAME, TLS_VERIFY_DANE };

struct tls_request {
    bool server;
    bool keep_input;          /* what was not consumed is the peer's handshake already */
    struct str name;          /* client: SNI, and what is verified */
    enum tls_verify verify;   /* client */
    struct str certificate;   /* client: which of ours it shows (its file); empty: none */
    enum tls_clients clients; /* server */
    struct str
        client_ca;   /* server: the file of those who may sign theirs; empty: nobody is trusted */
    struct str dane; /* TLS_VERIFY_DANE: the records (proto/dane.h), whose base domain is the SNI */
};

struct stream_ops {
    struct str (*input)(struct stream *s);
    void (*consume)(struct stream *s, size_t n);
    void (*resume)(struct stream *s);
    void (*hold)(struct stream *s);
    int (*write)(struct stream *s, const void *bytes, size_t n);
    size_t (*unsent)(const struct stream *s);
    int (*starttls)(struct stream *s, const struct tls_request *req);
    void (*close)(struct stream *s);
    void (*abort)(struct stream *s);
};

/* Implementations embed this first. The owner may change ev and owner at any time (hand-over). */
struct stream {
    const struct stream_ops *ops;
    const struct stream_events *ev;
    void *owner;
    struct net_addr local, peer;
    bool tls;
    /* Of a client: known in `secured`, where it may be other than TLS_FINE when nothing was demanded, and in `closed`
     * after a handshake that failed. */
    enum tls_fault tls_fault;
    const char *tls_why; /* the same for people, in static memory; NULL: nothing to be said */
};

/* Bytes received and not consumed; valid until consume, or the return from the callback. */
static inline struct str stream_input(struct stream *s)
{
    return s->ops->input(s);
}
static inline void stream_consume(struct stream *s, size_t n)
{
    s->ops->consume(s, n);
}
/* The owner can take input again: data is called on a later turn if bytes wait; reading goes on. */
static inline void stream_resume(struct stream *s)
{
    s->ops->resume(s);
}
/* As if input had been left: nothing is read until stream_resume, and that the peer has ended is not heard of. */
static inline void stream_hold(struct stream *s)
{
    s->ops->hold(s);
}
/* Copies; sends now or when possible. 0, -ENOMEM, -EPIPE (closed follows). */
static inline int stream_write(struct stream *s, const void *bytes, size_t n)
{
    return s->ops->write(s, bytes, n);
}
static inline size_t stream_unsent(const struct stream *s)
{
    return s->ops->unsent(s);
}
/* Begins the handshake after what is unsent has gone out; input not consumed is dropped (RFC 3207 §4.2), or
 * is the beginning of the handshake, as the request says. Then secured, or closed. -ENOENT: there is no such
 * certificate as the request names. */
static inline int stream_starttls(struct stream *s, const struct tls_request *req)
{
    return s->ops->starttls(s, req);
}
/* Sends what is unsent (for at most 10 s), then closes, in order. The owner forgets it: no callback comes. */
static inline void stream_close(struct stream *s)
{
    s->ops->close(s);
}
/* Closes at once. No callback comes. */
static inline void stream_abort(struct stream *s)
{
    s->ops->abort(s);
}

struct port_net {
    /* Connects. NULL: out of memory or descriptors; anything else is told by closed. source: local
     * address, or NULL; -EADDRNOTAVAIL: it is not on this machine, -EADDRINUSE: no port of it is left. There is no deadline inside but the system's: the owner sets a timer and aborts. */
    struct stream *(*dial)(struct port_net *self, const struct net_addr *to,
                           const struct net_addr *source, const struct stream_events *ev,
                           void *owner);
    /* TLS for incoming connections can be done (a certificate is there). */
    bool (*can_serve_tls)(struct port_net *self);
};

/* ---- DNS -------------------------------------------------------------------------------------- */

struct dns_query;
/* The answer is a reference of the caller's port; take one to keep it. Never NULL. */
typedef void dns_done(void *owner, const struct dns_answer *answer);

struct port_dns {
    /* name: any case, with or without trailing dot; A-labels. Answers come from a bounded cache when
     * they can. Never NULL but when out of memory. */
    struct dns_query *(*query)(struct port_dns *self, struct str name, enum dns_type type,
                               dns_done *done, void *owner);
    void (*cancel)(struct port_dns *self, struct dns_query *q);
};

/* ---- spool ------------------------------------------------------------------------------------ */

/* Which index of a queue a recipient stands in. Each is ordered by due time (for SPOOL_WAITING and
 * SPOOL_HELD: the time it came), then message, then recipient. */
enum spool_class {
    SPOOL_SCHEDULED, /* to be tried at its due time */
    SPOOL_WAITING,   /* kept by policy until the queue is released (ETRN) */
    SPOOL_HELD,      /* kept by an operator */
};

enum { SPOOL_MAX_QUEUE_NAME = 255 };

struct spool_recipient {
    uint32_t n;
    struct str queue; /* 1 to SPOOL_MAX_QUEUE_NAME bytes, no NUL */
    enum spool_class class_;
    int64_t due_ms;    /* wall */
    uint64_t size;     /* of its message in octets, for the sums of its queue; 0: not known */
    struct str record; /* opaque: mail/message.h encodes it */
};

enum spool_change_type {
    SPOOL_PUT_MESSAGE,   /* a new message, with a recipient at least in the same unit; staged pieces
                             * with its id become part of it. body NULL: another envelope only */
    SPOOL_STAGE,         /* one piece of a message that is still being received */
    SPOOL_UNSTAGE,       /* its session died: drop the pieces, if there are any */
    SPOOL_PUT_RECIPIENT, /* new, or replaces the one of that number (moves between queues too) */
    SPOOL_DELETE_RECIPIENT, /* with the last one, message and body go too */
    SPOOL_SET_QUEUE,        /* what is known of a queue (opaque); empty: forget */
    SPOOL_KV_SET,           /* what policies remember: see struct spool_kv_change */
    SPOOL_KV_ADD,
    SPOOL_KV_DELETE,
};

/* What policies remember (tern.kv): values under (name, key), each with an end. The spool has no clock: the
 * change brings the time, and what has ended by then counts as not there. Besides its own effect each
 * change drops some entries that have ended. A unit with such a change has no other change.
 *
 * SET puts or replaces; ADD puts where there is none (-EEXIST: there is one); DELETE drops (-ENOENT: there
 * is none). A name that holds `max` entries makes room by dropping the one that ends first; those without
 * an end are never dropped: then SET and ADD are told -EDQUOT. */
enum {
    SPOOL_KV_MAX_NAME = 64,    /* at least 1, no NUL */
    SPOOL_KV_MAX_KEY = 400,    /* at least 1, any octets */
    SPOOL_KV_MAX_VALUE = 8192, /* any octets, also none */
};
struct spool_kv_change {
    struct str name, key, value;
    int64_t now_ms, expires_ms; /* wall; INT64_MAX: never */
    uint64_t max;               /* at least 1 */
};

/* One entry of kv_scan's buffer: this head, then key and value. */
struct spool_kv_entry {
    int64_t expires_ms;
    uint32_t key_n, value_n;
};

struct spool_change {
    enum spool_change_type type;
    struct msgid id;
    union {
        struct {
            struct str envelope;
            const struct body *body; /* pieces in memory, from chunk 0; staged ones follow */
        } message;
        struct {
            uint32_t chunk; /* from 1: chunk 0 is always in memory until PUT_MESSAGE */
            struct str bytes;
        } stage;
        struct spool_recipient recipient; /* PUT_RECIPIENT; DELETE_RECIPIENT uses n only */
        struct {
            struct str name, record;
        } queue;
        struct spool_kv_change kv;
    };
};

/* One atomic unit. The submitter keeps it, and all it points to, unchanged until done is called in its own
 * thread. Units of one submitter are done in the order in which it submitted them.
 * result: 0 the changes are on disk (synced); -ENOSPC no room; -EIO; -ENOENT a recipient to
 * delete, a message to update or a staged piece was not there, -EEXIST the new message was, -EINVAL (in
 * these three nothing of the unit was done); -ESHUTDOWN. */
struct spool_op {
    struct list link; /* the port's */
    const struct spool_change *changes;
    size_t n_changes;
    void (*done)(struct spool_op *op);
    bool
        patient; /* no client waits for it: it may wait a millisecond for others to share the sync */
    int result;
    int worker;            /* the port's: who submitted */
    uint64_t submitted_us; /* the port's: when, by a clock of its own; 0: not measured */
};

struct spool_due {
    struct msgid id;
    uint32_t n;
    int64_t due_ms;
};

/* What a queue holds, kept by the spool. */
struct spool_queue {
    char name[SPOOL_MAX_QUEUE_NAME + 1];
    uint64_t scheduled, waiting, held; /* recipients in each class */
    uint64_t waiting_octets;           /* sum of the sizes of those that wait */
    char record[1024];                 /* SPOOL_SET_QUEUE's, at most this long */
    size_t record_n;
};

struct spool_entry {
    struct msgid id;
    uint32_t n;
    enum spool_class class_;
    int64_t due_ms;
    uint64_t size;
    char queue[SPOOL_MAX_QUEUE_NAME + 1];
};

struct port_spool {
    void (*submit)(struct port_spool *self, struct spool_op *op);
    /* Reads: short, of the last committed state, copied into buffers that are cleared first.
     * 0, -ENOENT, -EIO, -ENOMEM; of a recipient also -EBADMSG: its row is damaged. */
    int (*read_message)(struct port_spool *self, const struct msgid *id, struct buf *ret_envelope);
    int (*read_chunk)(struct port_spool *self, const struct msgid *id, uint32_t chunk,
                      struct buf *ret);
    int (*read_recipient)(struct port_spool *self, const struct msgid *id, uint32_t n,
                          struct spool_entry *ret, struct buf *ret_record);
    /* Due entries of a queue in order, strictly after *after (NULL: from the start), up to and with
     * until_ms; returns how many of `max` were filled, or -errno. */
    int (*scan_due)(struct port_spool *self, struct str queue, enum spool_class c,
                    const struct spool_due *after, int64_t until_ms, struct spool_due *ret,
                    size_t max);
    /* Recipients of all messages in the order of ids, strictly after (id, n) (NULL: from the start). Rows
     * that are damaged are passed over. */
    int (*scan_entries)(struct port_spool *self, const struct msgid *after_id, uint32_t after_n,
                        struct spool_entry *ret, size_t max);
    /* Queues in the order of names, strictly after that name (empty: from the start). */
    int (*scan_queues)(struct port_spool *self, struct str after, struct spool_queue *ret,
                       size_t max);
    int (*read_queue)(struct port_spool *self, struct str name, struct spool_queue *ret);
    /* The value and its end, which may be over. */
    int (*kv_read)(struct port_spool *self, struct str name, struct str key, int64_t *ret_expires,
                   struct buf *ret_value);
    /* Entries of a name whose keys begin with prefix, in the order of keys, strictly after that key (empty:
     * from the start), into *ret (struct spool_kv_entry each; spool_kv_take reads them). Returns how many
     * (at most `max`, fewer when they are large), or -errno. */
    int (*kv_scan)(struct port_spool *self, struct str name, struct str prefix, struct str after,
                   struct buf *ret, size_t max);
};

/* Takes one entry off what kv_scan gave. False: the end. */
static inline bool spool_kv_take(struct str *in, int64_t *ret_expires, struct str *ret_key,
                                 struct str *ret_value)
{
    struct spool_kv_entry head;

    if (!in->p || in->n < sizeof(head))
        return false;
    memcpy(&head, in->p, sizeof(head));
    *ret_expires = head.expires_ms;
    *ret_key = str_make(in->p + sizeof(head), head.key_n);
    *ret_value = str_make(in->p + sizeof(head) + head.key_n, head.value_n);
    *in = str_from(*in, sizeof(head) + head.key_n + head.value_n);
    return true;
}
/* What can be known of such a change without looking. */
static inline bool spool_kv_valid(const struct spool_kv_change *c)
{
    return c->name.n >= 1 && c->name.n <= SPOOL_KV_MAX_NAME &&
           !memchr(c->name.p, '\0', c->name.n) && c->key.n >= 1 && c->key.n <= SPOOL_KV_MAX_KEY &&
           c->value.n <= SPOOL_KV_MAX_VALUE && c->max >= 1;
}

/* ---- passwords -------------------------------------------------------------------------------- */

/* Users and their entries (the password file), and checks that take long: neither is done in the
 * worker's thread. */
enum password_question_type {
    PASSWORD_CHECK,  /* does `password` fit the user's entry, or `entry` when that is given? */
    PASSWORD_SECRET, /* the user's entry, for a challenge-response mechanism */
};

struct password_question {
    enum password_question_type type;
    enum sasl_mechanism mechanism;
    struct str user;
    struct str password; /* CHECK */
    struct str entry;    /* CHECK: instead of the file's; empty: the file's */
};

struct password_answer {
    /* 1: it fits, the user is known; 0: not. A stranger's check takes as long as a user's. -EAGAIN: too many
     * questions wait; -EINVAL: `entry` is none; -ENOTSUP, -ENOMEM. */
    int result;
    const struct password_entry *entry; /* SECRET: the user's; of a stranger a decoy, or NULL */
};

struct password_ask;
typedef void password_done(void *owner, const struct password_answer *answer);

struct port_passwords {
    /* A SASL_BIT for each mechanism that every entry of the file serves; 0: there is no file. */
    uint32_t (*mechanisms)(struct port_passwords *self);
    /* Copies the question. NULL: out of memory, or stopping. */
    struct password_ask *(*ask)(struct port_passwords *self, const struct password_question *q,
                                password_done *done, void *owner);
    void (*cancel)(struct port_passwords *self, struct password_ask *ask);
};

/* ---- HTTPS ------------------------------------------------------------------------------------ */

struct https_fetch;
struct https_answer {
    /* 0: the server answered; else -errno (-EKEYREJECTED: its certificate is not good, -EPROTO: other things of TLS
     * or HTTP, -EMSGSIZE, -ETIMEDOUT ...) */
    int error;
    const char *why;    /* of the error, for people */
    unsigned status;    /* 200 ... */
    struct str type;    /* Content-Type without parameters; empty: none */
    struct str content; /* of status 200 */
};
/* The answer lives during the call. */
typedef void https_done(void *owner, const struct https_answer *a);

struct https_request {
    struct str host, path;        /* path with its slash */
    const struct net_addr *addrs; /* of the host, tried in turn; no name is looked up. Port 443 */
    size_t n_addrs;
    size_t max_content;
    int64_t timeout_ms; /* for all of it */
};

struct port_https {
    /* One GET. The certificate must be the host's, by a root that is trusted; redirects are not followed; no cookies,
     * caches, credentials, proxies. Copies the request. Done comes on a later turn. NULL: out of memory. */
    struct https_fetch *(*get)(struct port_https *self, const struct https_request *r,
                               https_done *done, void *owner);
    void (*cancel)(struct port_https *self, struct https_fetch *f);
};

/* ---- the rest --------------------------------------------------------------------------------- */

struct port_random {
    uint64_t (*next)(struct port_random *self);
};

struct engine;
/* Embedded in what is posted; run owns it from then on. */
struct worker_message {
    struct worker_message *next;
    void (*run)(struct engine *e, struct worker_message *m);
};

struct port_workers {
    /* This worker's number, and how many there are. */
    int self, count;
    /* Runs m->run(engine of that worker, m) in its thread. From any thread. Order is kept between the
     * same two. Cannot fail: m is embedded in what the caller allocated. */
    void (*post)(struct port_workers *self_, int worker, struct worker_message *m);
};

struct port_journal {
    /* Writes the event to the log (and counts it). From the worker's thread. */
    void (*record)(struct port_journal *self, const struct event *e);
};

struct ports {
    struct port_clock *clock;
    struct port_net *net;
    struct port_dns *dns;
    struct port_spool *spool;
    struct port_random *random;
    struct port_workers *workers;
    struct port_journal *journal;
    struct port_passwords *passwords; /* NULL: there are none */
    struct port_https *https;         /* NULL: policies of MTA-STS are not fetched, nor used */
};

#endif
