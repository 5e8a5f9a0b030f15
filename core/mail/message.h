/* message.h - a message that has been accepted: its envelope, and each recipient's record.
 *
 * Layer: mail. A struct message is immutable, reference counted (atomically) and shared between
 * workers. A struct recipient is a value owned by whoever handles it. Both have an encoded
 * form for the spool, with a version byte; decoding is bounded and never trusts the bytes. A recipient
 * is written as version 1 until it has a history, then as version 2, which ends with that. A message is written as
 * version 1 as long as that can hold it, else as version 2, which ends with further fields (message.c).
 */
#ifndef TERN_MAIL_MESSAGE_H
#define TERN_MAIL_MESSAGE_H

#include "base/arena.h"
#include "base/buf.h"
#include "mail/address.h"
#include "mail/body.h"
#include "mail/msgid.h"
#include "mail/route.h"
#include "proto/smtp_dsn.h"
#include "proto/smtp_times.h"

enum {
    MESSAGE_8BIT = 1,
    MESSAGE_SMTPUTF8 = 2,
    MESSAGE_DSN = 4,      /* we made it */
    MESSAGE_RET_FULL = 8, /* RET= of RFC 3461 §4.3 */
    MESSAGE_RET_HDRS = 16,
    MESSAGE_BINARY = 32,      /* BODY=BINARYMIME: behind the header block there may be any octets */
    MESSAGE_OPEN_END = 64,    /* it does not end in CRLF, which DATA would add */
    MESSAGE_REQUIRETLS = 128, /* REQUIRETLS of RFC 8689: over verified TLS, or not at all */
    MESSAGE_TLS_OPTIONAL = 256, /* "TLS-Required: No" (RFC 8689 section 3), and no REQUIRETLS */
};

/* What its sender said of time and rank. All zero: nothing. */
struct message_times {
    enum smtp_by_mode by; /* DELIVERBY: what happens at by_ms */
    bool by_trace;
    int64_t by_ms; /* wall */
    int64_t
        hold_ms; /* FUTURERELEASE: wall, not before; 0: none. An operator may have let it go sooner */
    uint32_t hold_s; /* as HOLDFOR said it; 0: HOLDUNTIL did */
    int8_t priority; /* MT-PRIORITY, -9 to 9 */
};

struct message {
    atomic_uint refs;
    struct arena arena; /* owns the strings */
    struct msgid id;
    struct address sender;
    int64_t received_ms; /* wall */
    uint64_t size;       /* octets of body, our Received included */
    uint32_t n_chunks;   /* pieces in the spool */
    uint32_t n_recipients;
    uint32_t flags; /* MESSAGE_* */
    /* where it came from: for policies, logs and the record of decisions */
    struct net_addr client;
    struct str helo, identity, service;
    struct str envid;   /* ENVID= of RFC 3461 §4.4, xtext decoded; empty: none */
    struct str changes; /* of its header, by policies: mail/changes.h; empty: none */
    bool client_tls;
    struct message_times times;
    struct body *body; /* in memory, or NULL: read it from the spool */
};

/* RET=, from the flags. */
static inline enum smtp_ret message_ret(const struct message *m)
{
    return m->flags & MESSAGE_RET_FULL   ? SMTP_RET_FULL
           : m->flags & MESSAGE_RET_HDRS ? SMTP_RET_HDRS
                                         : SMTP_RET_NONE;
}

/* "yes": REQUIRETLS; "no": TLS-Required: No; NULL: neither was said. */
static inline const char *message_tls_required(const struct message *m)
{
    return m->flags & MESSAGE_REQUIRETLS ? "yes" : m->flags & MESSAGE_TLS_OPTIONAL ? "no" : NULL;
}
/* From when on its age counts, for its lifetime and for warnings (wall): when it came, or its sender lets it go. Its id
 * is later than that when the clock had been set back (msgid_next). */
static inline int64_t message_start(const struct message *m)
{
    int64_t id = msgid_time(&m->id), came = m->received_ms > 0 ? MIN(m->received_ms, id) : id;
    return m->times.hold_ms > came ? m->times.hold_ms : came;
}
/* When it is to be returned, whatever its route says (DELIVERBY, mode R; wall). INT64_MAX: never. */
static inline int64_t message_return_at(const struct message *m)
{
    return m->times.by == SMTP_BY_RETURN ? m->times.by_ms : INT64_MAX;
}
/* When its sender wants to hear that it is not delivered yet (mode N; wall). INT64_MAX: it said nothing of that; or it
 * was over when the message came, and whoever had it then has told (RFC 2852 §4.1). */
static inline int64_t message_tell_at(const struct message *m)
{
    bool wanted = m->times.by == SMTP_BY_NOTIFY && m->times.by_ms > m->received_ms;
    return wanted ? m->times.by_ms : INT64_MAX;
}
/* What is left of its time at `now`, for the next host; mode NONE: nothing was said. */
struct smtp_by message_by(const struct message *m, int64_t now_ms);

struct message *message_new(void);
struct message *message_ref(struct message *m);
struct message *message_unref(struct message *m);
/* All but id and body. 0, or the sticky error of `out`; -EINVAL: an address whose local part is not
 * the start of its text. */
int message_encode(const struct message *m, struct buf *out);
/* May that record have a message_times? Told by its first octet: false of most, which need not be decoded for that. */
bool message_may_say_times(struct str record);
/* -EBADMSG, -ENOMEM. The bytes are copied. */
int message_decode(const struct msgid *id, struct str in, struct message **ret);

enum recipient_state { RECIPIENT_READY, RECIPIENT_DEFERRED, RECIPIENT_HELD, RECIPIENT_WAITING };
/* "ready", "deferred", "held", "waiting" */
const char *recipient_state_name(enum recipient_state s);

struct recipient {
    uint32_t n; /* number within the message, from 0 */
    struct address address;
    enum recipient_state state;
    uint32_t attempts;
    int64_t due_ms;        /* wall: not before */
    bool warned;           /* the delay warning has been sent */
    bool host_failure;     /* the last failure was the host's */
    uint64_t policy;       /* fingerprint of the policies that chose the route */
    struct route *route;   /* one reference; NULL: not routed yet */
    uint8_t notify;        /* enum smtp_notify; 0: not asked for anything */
    struct str orcpt;      /* ORCPT= of RFC 3461 §4.2, "rfc822;a@b", xtext decoded; empty: none */
    struct str decided_by; /* "policies/backup.lua:31", "default" */
    /* the last attempt, for people */
    int64_t last_ms; /* wall; 0: none */
    struct str last_host, last_reply;
    struct str history; /* of attempts that did not succeed: mail/history.h; empty: none */
};

/* Encodes all fields but n, which is in the spool's key (due_ms too, though its index repeats it).
 * Errors as message_encode. */
int recipient_encode(const struct recipient *r, struct buf *out);
/* Strings go to the arena; ret->route is a reference that the caller owns. -EBADMSG, -ENOMEM. */
int recipient_decode(struct arena *a, uint32_t n, struct str in, struct recipient *ret);
void recipient_done(struct recipient *r); /* drops the route */

#endif
