/* smtp_client.h - the client's side of SMTP and LMTP (RFC 5321, 2033, 2852, 2920, 1870, 3030, 3207, 6152,
 * 6531, 6710, 8689, 9422) without any I/O.
 *
 * Layer: proto. Same shape as smtp_server.h: feed bytes, take events by next, send output. The
 * application moves it on: begin a transaction in READY, give the body when asked.
 *
 * Life: CONNECTED is implied. GREETING -> EHLO (HELO when EHLO is refused 5xx) -> [STARTTLS ->
 * handshake by the caller -> EHLO] -> [AUTH (RFC 4954)] -> READY -> begin -> RCPT results -> NEED_BODY -> body, body_end
 * -> RESULT(s) -> READY -> ... -> quit.
 * A transaction that only asks about recipients (`ask_only`) ends with the last RCPT result; RSET goes in
 * front of the next one, as after one in which nobody was accepted.
 * With PIPELINING, MAIL, all RCPT and DATA go out in one write, and RSET (when the transaction
 * before ended without a message) in front of them; without, one command for each reply. When no
 * recipient was accepted and DATA was pipelined and answered 354, the body is an empty "." and the
 * result is ignored (LMTP, or a host that takes RCPT after refusing MAIL: FAILED, no dot is sent).
 *
 * By BDAT (`bdat`) the message is one chunk, whose size the caller knows: "BDAT n LAST" goes out when
 * all RCPT are answered and somebody was accepted, NEED_BODY follows at once, and the octets are sent
 * as they are. With nobody accepted there is no BDAT. That is as many round trips as with DATA, and
 * nothing is sent in vain.
 *
 * Failures are told by stage, so that the caller can say whose they are (ROUTING.md Q4): before
 * READY it is the host; MAIL, DATA: the message; RCPT: the recipient; after the dot: all accepted
 * recipients; 421 anywhere: the host (in LMTP behind the replies to other recipients, which are
 * told first). A reply that nobody asked for ends the connection: FAILED at the stage of the moment
 * (READY: the host), with the reply for 421 and for 4xx and 5xx in the middle of a body, else
 * -EPROTO. RSET refused is told as READY: the message behind is not to blame.
 *
 * After each feed, take events until next returns 0.
 */
#ifndef TERN_PROTO_SMTP_CLIENT_H
#define TERN_PROTO_SMTP_CLIENT_H

#include "proto/smtp_limits.h"
#include "proto/smtp_reply.h"
#include "proto/smtp_server.h" /* enum smtp_body_type */

enum smtp_stage {
    SMTP_STAGE_CONNECT, /* used by callers: no connection yet */
    SMTP_STAGE_GREETING,
    SMTP_STAGE_HELO,
    SMTP_STAGE_STARTTLS,
    SMTP_STAGE_TLS, /* the handshake, reported by the caller */
    SMTP_STAGE_AUTH,
    SMTP_STAGE_READY,
    SMTP_STAGE_MAIL,
    SMTP_STAGE_RCPT,
    SMTP_STAGE_DATA,  /* DATA sent, waiting for 354 */
    SMTP_STAGE_BODY,  /* 354 seen, sending */
    SMTP_STAGE_FINAL, /* dot sent, waiting for the reply */
    SMTP_STAGE_QUIT,
};
const char *smtp_stage_name(enum smtp_stage s); /* "greeting", "MAIL FROM", "end of data"... */

enum smtp_client_tls { SMTP_TLS_NEVER, SMTP_TLS_IF_OFFERED, SMTP_TLS_REQUIRED };

struct smtp_client_options {
    struct str hostname; /* for EHLO, not empty, no CR or LF; must outlive the client */
    bool lmtp;           /* LHLO, one reply per recipient after the dot */
    bool tls;            /* already inside TLS */
    enum smtp_client_tls starttls;
    /* Who to be there; user empty: nobody. Then there is no READY before the host has said yes. All
     * must outlive the client. */
    struct str user, password;
    struct str nonce;    /* as sasl_client_new wants it */
    uint32_t mechanisms; /* SASL_BIT of those that may be used; 0: all */
    bool auth_in_clear;  /* PLAIN and LOGIN may be used without TLS */
    bool ignore_limits;  /* LIMITS is not looked at: for those who try what happens then */
};

struct smtp_client_caps {
    bool pipelining, size, eightbit, starttls, smtputf8, chunking, binarymime, dsn, enhanced;
    bool deliver_by, priority; /* DELIVERBY (RFC 2852), MT-PRIORITY (RFC 6710) */
    bool requiretls;           /* counts inside TLS only */
    uint32_t deliver_by_min_s; /* mode R needs that long; 0: none told */
    uint64_t size_limit;       /* 0: none told */
    uint32_t auth;             /* SASL_BIT of each mechanism that we know */
    struct smtp_limits limits;
};

struct smtp_client_mail {
    struct str sender;            /* without angle brackets; empty: null */
    const struct str *recipients; /* without angle brackets */
    size_t n_recipients;          /* at least 1 */
    uint64_t size;                /* octets of the message; 0: not known, SIZE= is not sent */
    enum smtp_body_type body;
    bool smtputf8;
    bool
        requiretls; /* MAIL says REQUIRETLS: the caller has seen to all that RFC 8689 section 2 demands */
    bool bdat;     /* by BDAT; size is then exact, and can be 0 */
    bool ask_only; /* no DATA: no message follows */
    /* Passed on where DSN is offered (RFC 3461 §5.2.1); envid and orcpt in plain text. rcpt_dsn: for each
     * recipient; NULL: nothing is asked for any of them. */
    struct smtp_dsn_mail dsn;
    const struct smtp_dsn_rcpt *rcpt_dsn;
    /* Passed on where offered. Mode R goes to no other host: who asks looks first, at deliver_by_min_s too. */
    struct smtp_by by;
    bool prioritized; /* the priority is said, 0 too (RFC 6710 section 4.2) */
    int8_t priority;
};

enum smtp_client_event_type {
    SMTP_CLIENT_READY = 1,   /* a transaction can begin */
    SMTP_CLIENT_STARTTLS,    /* 220 seen: do the handshake, then smtp_client_tls_started */
    SMTP_CLIENT_MAIL_RESULT, /* a MAIL that was refused; RESET to READY follows by itself */
    SMTP_CLIENT_RCPT_RESULT, /* each recipient, in order, accepted or not */
    SMTP_CLIENT_NEED_BODY, /* 354 (not with BDAT) and at least one recipient accepted: give the body */
    /* Reply to DATA that was refused, or to the dot; for LMTP one for each accepted recipient.
     * `index` is SIZE_MAX for all. */
    SMTP_CLIENT_RESULT,
    /* All results are told: a failure after it concerns no message. READY follows, or FAILED. */
    SMTP_CLIENT_TRANSACTION_DONE,
    /* The connection is of no more use; close it, output is empty. stage and reply tell why: a reply
     * with its code; or reply.code 0 and error -EPROTO (reply.text is then what the host said, code
     * in front, when it was a reply in the wrong place), -EOPNOTSUPP (STARTTLS is required and not
     * offered; at stage AUTH: no mechanism that may be used), -EKEYREJECTED (AUTH: the host does not
     * know the password itself), -ENOMEM, or what lost was given. */
    SMTP_CLIENT_FAILED,
    SMTP_CLIENT_CLOSE, /* QUIT was answered, with whatever code */
};

struct smtp_client_event {
    enum smtp_client_event_type type;
    enum smtp_stage stage;
    size_t index;            /* RCPT_RESULT, RESULT: of the recipient; else SIZE_MAX */
    struct smtp_reply reply; /* text lives until the next call of feed or next */
    int error;               /* FAILED without a reply: -errno */
    bool in_order;           /* FAILED: but the dialogue can end by QUIT */
};

struct smtp_client;

struct smtp_client *smtp_client_new(const struct smtp_client_options *opt);
struct smtp_client *smtp_client_free(struct smtp_client *c);

/* Takes everything; returns n, or 0 once dead. More than 1 MiB that next was not asked for: -EPROTO. */
size_t smtp_client_feed(struct smtp_client *c, const void *bytes, size_t n);
int smtp_client_next(struct smtp_client *c, struct smtp_client_event *ret); /* 1, 0, <0: dead */

/* In READY only (-EBUSY, also once lost or quit was called). What the caller passes is not kept.
 * -EINVAL: no recipient; an address that holds CR, LF or another control byte, is longer than 1000
 * octets, could end its angle brackets, or has 8-bit bytes without smtputf8. -EMSGSIZE: larger than
 * the SIZE that the host told (nothing is sent; the caller reports 552 5.3.4). -EOPNOTSUPP: 8-bit
 * body, BINARYMIME, BDAT or SMTPUTF8 and the host does not offer it; BINARYMIME without bdat; REQUIRETLS outside of TLS, or not offered. -EDQUOT: more than
 * the host told by LIMITS (smtp_client_spent, smtp_client_admit). -ENOMEM. After each of them it is still READY. */
int smtp_client_begin(struct smtp_client *c, const struct smtp_client_mail *mail);
/* By MAILMAX this session is over: QUIT, and a new one (RFC 9422 section 4.1). */
bool smtp_client_spent(const struct smtp_client *c);
/* In READY: may the next transaction have that recipient beside `others`, by RCPTMAX and RCPTDOMAINMAX? Its domain
 * is counted then. Where domains are limited, a session gets 64 different ones at most. */
bool smtp_client_admit(struct smtp_client *c, struct str recipient, size_t others);
/* Would a recipient of that domain be admitted, as the first of a transaction? */
bool smtp_client_admits_domain(const struct smtp_client *c, struct str domain);
/* After NEED_BODY: the message in any pieces; dots are stuffed. Lines should end in CRLF; a bare CR
 * or LF is sent as CRLF. By BDAT all octets go as they are; -EMSGSIZE: more than was said. Output grows by what is given: the caller gives more when some was sent.
 * -EBUSY: no body is asked for; -EPIPE: dead or lost; -ENOMEM: FAILED follows. */
int smtp_client_body(struct smtp_client *c, const void *bytes, size_t n);
/* Ends it with CRLF (if the last line lacks one) and the dot. By BDAT: -EMSGSIZE: less was given than
 * said, and FAILED follows. Errors as above. */
int smtp_client_body_end(struct smtp_client *c);
/* In READY, or behind a FAILED that is in order: QUIT, CLOSE follows. At other times QUIT comes
 * instead of the next READY; who cannot wait for that closes. A connection lost after QUIT is
 * FAILED at stage QUIT and nobody's fault. */
void smtp_client_quit(struct smtp_client *c);
/* After the STARTTLS event, when the handshake is done: forgets what EHLO told and asks again.
 * Bytes that were fed between the two (sent in clear behind the 220) are FAILED, -EPROTO. */
void smtp_client_tls_started(struct smtp_client *c);
/* The peer closed, the connection broke or a deadline passed (error -ETIMEDOUT; 0: -ECONNRESET).
 * What was fed before is still read; then FAILED follows with the stage it happened in. Before
 * calling it after a failed write, feed what can still be read: the host may have said why. */
void smtp_client_lost(struct smtp_client *c, int error);

struct str smtp_client_output(const struct smtp_client *c);
void smtp_client_sent(struct smtp_client *c, size_t n);

enum smtp_stage smtp_client_stage(const struct smtp_client *c);
const struct smtp_client_caps *smtp_client_caps(const struct smtp_client *c);
/* The name that the greeting gave ("220 NAME ..."), empty before. Lives with the client. */
struct str smtp_client_peer_name(const struct smtp_client *c);

#endif
