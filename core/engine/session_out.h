/* session_out.h - a connection to a remote host: dial, greeting, EHLO, TLS, transactions, reuse.
 *
 * Layer: engine. Drives proto/smtp_client over a stream, with the deadlines of RFC 5321 §4.5.3.2. A user (a
 * delivery) takes a connection, runs one transaction, and gives it back; the pool keeps it for
 * queue.idle_ms for the next user with the same key.
 */
#ifndef TERN_ENGINE_SESSION_OUT_H
#define TERN_ENGINE_SESSION_OUT_H

#include "engine/context.h"
#include "engine/next_hop.h"
#include "mail/message.h"
#include "mail/route.h"
#include "proto/smtp_client.h"

struct session_out;
struct source;

/* A connection is reused only by users whose key is the same. */
struct session_out_key {
    struct net_addr addr;
    struct net_addr source; /* NET_NONE: any */
    struct str name;        /* for TLS */
    enum route_tls tls;
    struct str dane;        /* ROUTE_TLS_DANE: what is demanded (proto/dane.h) */
    struct str certificate; /* file of ours that is shown, empty: none */
    bool lmtp;
    struct str auth; /* name of the credentials, empty: none (S7) */
    /* Not part of the key: a connection is reused only when a recipient of that domain may still be named on it, by
     * what the host told of its limits. Empty: any. */
    struct str domain;
    /* Not part of the key: of the source, when a connection was counted there (source_enter): a new one takes that
     * over. */
    struct source *place;
};

struct session_out_events {
    /* A transaction can begin: call session_out_send now. */
    void (*ready)(void *owner);
    /* In order of recipients: refused or accepted by RCPT. */
    void (*rcpt)(void *owner, size_t index, const struct smtp_reply *reply);
    /* The message's fate for one accepted recipient (LMTP), or for all (SIZE_MAX). stage: MAIL, DATA or
     * FINAL. A refused MAIL is told here too, with SIZE_MAX. */
    void (*result)(void *owner, size_t index, enum smtp_stage stage,
                   const struct smtp_reply *reply);
    /* All results are told; the session is the owner's until session_out_release. */
    void (*done)(void *owner);
    /* The connection failed (before ready: the host cannot be used; later: see stage). reply.code 0 when none was
     * given. The session is gone: the owner forgets it. host_failure: stage is before MAIL, or 421. */
    void (*failed)(void *owner, enum smtp_stage stage, const struct smtp_reply *reply,
                   struct str why);
};

struct connections *connections_new(struct engine *e);
struct connections *connections_free(struct connections *c);
/* All idle ones are closed (stop, reload). */
void connections_close_idle(struct connections *c);
size_t connections_open(const struct connections *c);

/* An idle connection with that key, or a new one. ready (or failed) comes on a later turn. NULL: no
 * memory, or queue.connections are open. The snapshot gives timeouts, our name, and the credentials that
 * the key names: the caller has seen that it knows them. */
struct session_out *session_out_open(struct engine *e, const struct session_out_key *key,
                                     struct snapshot *snapshot, const struct session_out_events *ev,
                                     void *owner);
/* Is there an idle connection with that key, for that snapshot? */
bool session_out_is_idle(struct engine *e, const struct session_out_key *key,
                         struct snapshot *snapshot);
/* Idle connections from the source of that place, in this worker. */
unsigned session_out_count_idle(const struct engine *e, size_t place);
/* Closes one of them. False: there is none. */
bool session_out_make_room(struct engine *e, const struct net_addr *source);
/* In `ready`: begins a transaction; the body is read from m (memory, or the spool piece by piece as the
 * peer takes it). The addresses are those of recipients[0..n), dsn what is asked to
 * be told of each (NULL: nothing); the strings and dsn live until all results are told. A message that the
 * host does not take as it is goes converted; when that cannot be done, result tells 554 5.6.3 for stage
 * MAIL on a later turn, then done. Errors of smtp_client_begin: -EMSGSIZE, -EOPNOTSUPP, -EINVAL (the
 * session stays ready and is to be released). */
int session_out_send(struct session_out *s, struct message *m, const struct str *recipients,
                     const struct smtp_dsn_rcpt *dsn, size_t n);
/* In `ready`, for each recipient that is to be sent (or asked about): true when the host's LIMITS (RFC 9422) allow
 * it beside `others`. To send more than that is -EDQUOT. */
bool session_out_admit(struct session_out *s, struct str recipient, size_t others);
/* In `ready`, before session_out_send: MAIL says REQUIRETLS. session_out_offers_requiretls has said that it can. */
void session_out_require_tls(struct session_out *s);
/* In `ready`, instead: asks whether the host takes that recipient from that sender, without a message
 * (call-forward): rcpt, or result for a MAIL that is refused, then done. Errors as above. */
int session_out_ask(struct session_out *s, struct str sender, struct str recipient, bool smtputf8);
/* After done (or in `ready`, when nothing was sent): it goes back into the pool, or is closed when it is too old or `keep` is false. */
void session_out_release(struct session_out *s, bool keep);
/* Abandons it at any time before done. */
void session_out_abort(struct session_out *s);

/* Facts for logs and policies; live with the session. */
const struct net_addr *session_out_peer(const struct session_out *s);
struct str session_out_peer_name(const struct session_out *s);   /* as the greeting says */
struct str session_out_tls_version(const struct session_out *s); /* empty: in clear */
bool session_out_offers_dsn(
    const struct session_out *s); /* who gets the message tells what becomes of it */
bool session_out_offers_requiretls(const struct session_out *s); /* and is verified */
/* It is inside TLS, and its certificate is good, by DANE or by an authority. */
bool session_out_verified(const struct session_out *s);
/* In `failed`, without a reply: what it was. -EPROTO: nothing that will pass; 0: it is not known. */
int session_out_error(const struct session_out *s);
bool session_out_offers_by(const struct session_out *s); /* it minds the time of what it takes */
/* Of a message that is to be returned if it is not there in time (DELIVERBY, mode R): why that host does not get it
 * (RFC 2852 §4.1.4); NULL: it may. */
const char *session_out_why_not_in_time(const struct session_out *s, const struct message *m);
bool session_out_reused(const struct session_out *s);
/* How TLS with the host went: in `ready` of the first user (false for all others, and where no TLS was wanted), and in
 * `failed` for stage STARTTLS or TLS. */
struct session_out_tls {
    struct net_addr local; /* our end */
    bool offered;          /* STARTTLS was */
    bool secured;
    enum tls_fault fault;
    const char *why; /* in static memory; NULL: nothing to be said */
};
bool session_out_tls(struct session_out *s, struct session_out_tls *ret);
/* In `failed`, before a connection stood: the source is not on this machine, or has no port left. */
enum session_out_fault { SOURCE_WORKS, SOURCE_NOT_HERE, SOURCE_NO_PORT };
enum session_out_fault session_out_source_fault(const struct session_out *s);
enum smtp_stage session_out_stage(const struct session_out *s); /* how far it has come */

#endif
