/* smtp_server.h - the server's side of an SMTP or LMTP session without any I/O (RFC 5321, 1870, 1985,
 * 2033, 2034, 2852, 2920, 3030, 3207, 3461, 4865, 4954, 6152, 6531, 6710, 8689, 9422).
 *
 * Layer: proto. No descriptor, clock, log or callback. Bytes go in by feed, events come out by
 * next, the application answers those that carry a ticket, and bytes to send wait in output.
 *
 *     while (n) { k = feed(s, p, n); p += k; n -= k;
 *                 while ((r = next(s, &ev)) == 1) handle(&ev);   // may answer at once or later
 *                 send(output) ... }
 *
 * One undecided event at a time: after an event with a ticket, next returns 0 until it has been
 * answered, and feed takes no more than its buffer holds: the caller keeps the rest and feeds it
 * again after the answer. All slices in an event live until the next call of feed or next (a next
 * that returns 0 because of an undecided event leaves them alone).
 *
 * Feed what has arrived before you answer: bytes behind DATA or STARTTLS, or before the greeting,
 * are the peer's breach of the protocol (554 and CLOSE), and the server knows it by what is
 * buffered. Stop feeding while output is not taken; past 1 MiB of it the session is dead.
 *
 * The grammar and the legal states are one table (smtp_server.c). The server replies by itself to
 * what needs no decision: NOOP, RSET, HELP, VRFY (252), unknown commands, wrong order, syntax.
 * Line endings are strict: only CRLF ends a line, only CRLF.CRLF a message. A bare CR or LF in a
 * command line is 500 5.5.2 and closes. In message data a bare CR or LF, or a NUL, makes the
 * message bad: it is drained to its true end, answered 550 5.6.0 without an END event, and the
 * session closes. RFC 5321 limits are enforced here: command line 512 (raised by extensions per
 * command), text line 1000 (a longer line makes the message bad too: 550 5.6.0, without closing),
 * recipients, SIZE (552 5.3.4 after draining). A message that goes bad is told at once by RESET.
 *
 * BDAT (RFC 3030) is not asked about: a transaction with a recipient takes the first chunk as it
 * comes, in BODY events; each chunk is answered 250 by the server, the last one by END. The octets
 * that were announced are always read, and never as commands: those of a chunk that is refused are
 * thrown away, then the refusal is said. A refused chunk ends the transaction, and further chunks of
 * it get 503. Message text is held to the same rules as in DATA (the framing being safe, the session
 * goes on); dots mean nothing. With BODY=BINARYMIME that is so of the header block only, and the rest
 * may hold any octets; such a message cannot come by DATA (503).
 *
 * LMTP (RFC 2033) is the same protocol with LHLO instead of HELO and EHLO, which are refused (as LHLO is
 * in SMTP: 502), and with a reply for each accepted recipient behind the final dot or BDAT LAST, in the
 * order of RCPT: END is answered so often, and what the server refuses of a message by itself it says
 * as often. Where nobody was accepted DATA and BDAT get 503.
 *
 * Also closed at once: an HTTP request; a BDAT whose length cannot be read, or where it is not
 * offered (its octets must not become commands); a DATA that got no 354 with bytes behind it, or
 * followed by a line that is no command; a line without an end (64 KiB).
 */
#ifndef TERN_PROTO_SMTP_SERVER_H
#define TERN_PROTO_SMTP_SERVER_H

#include "base/netaddr.h"
#include "proto/sasl.h"
#include "proto/smtp_dsn.h"
#include "proto/smtp_reply.h"
#include "proto/smtp_syntax.h"
#include "proto/smtp_times.h"

struct smtp_server_options {
    struct str hostname;     /* greeting, EHLO; must outlive the server */
    uint64_t size_limit;     /* advertised by SIZE, enforced; 0: none */
    uint32_t max_recipients; /* per transaction; more: 452 4.5.3. Less than 100 acts as 100 */
    uint32_t max_errors;     /* commands rejected by 5xx until 421 and close; 0: none (default 20).
                                Begins anew with each message accepted. Recipients past the limit
                                count from the thousandth on */
    uint32_t max_commands;   /* commands (accepted RCPTs not counted) without a message accepted
                                until 421 and close; 0: none */
    bool starttls;           /* offered; the application can do it */
    bool require_tls;        /* MAIL before TLS: 530 5.7.0 */
    bool tls;                /* the connection is in TLS from the start */
    bool etrn;               /* ETRN offered (RFC 1985) */
    bool atrn;               /* ATRN offered, and no mail taken (RFC 2645) */
    bool smtputf8;
    /* AUTH (RFC 4954): a SASL_BIT for each mechanism; 0: not offered */
    uint32_t mechanisms;
    bool clear_auth;            /* PLAIN and LOGIN without TLS, too; else 538 5.7.11 */
    bool require_auth;          /* MAIL before AUTH: 530 5.7.0 */
    uint32_t max_auth_failures; /* exchanges answered by 5xx until 421 and close; 0: none */
    bool xclient;               /* XCLIENT offered: this client may say who another is */
    bool dsn;                   /* DSN offered (RFC 3461): RET, ENVID, NOTIFY, ORCPT */
    bool chunking;              /* CHUNKING offered (RFC 3030): BDAT */
    bool binarymime;            /* BINARYMIME too; only with chunking */
    bool lmtp;                  /* it is LMTP; fixed for the life of the session */
    bool requiretls;       /* REQUIRETLS offered inside TLS (RFC 8689); outside of it 530 5.7.10 */
    bool limits;           /* LIMITS offered (RFC 9422): max_recipients, max_messages */
    uint32_t max_messages; /* MAIL in a session until 421 and close; 0: any number */
    bool deliver_by;       /* DELIVERBY offered (RFC 2852): BY */
    uint32_t deliver_by_min_s;   /* mode R with less is refused (555); 0: none told */
    uint32_t hold_max_s;         /* FUTURERELEASE offered (RFC 4865): HOLDFOR up to that; 0: not */
    int64_t hold_max_ms;         /* and HOLDUNTIL up to that moment, since 1970 */
    bool priority;               /* MT-PRIORITY offered (RFC 6710) */
    struct str priority_profile; /* as EHLO names it, or empty; must outlive the server */
};

enum smtp_server_event_type {
    SMTP_SERVER_CONNECT = 1, /* first event; answer is the greeting: 220 (the host's name is put in
                                front where it is missing), 554 (nothing is served then but QUIT),
                                or another 4xx or 5xx (closes) */
    SMTP_SERVER_HELO,        /* 250: the server writes the EHLO lines itself; else as given. In a
                                transaction RESET follows a 250 */
    SMTP_SERVER_MAIL,        /* 250 opens the transaction */
    SMTP_SERVER_RCPT,        /* 250, 251 or 252 adds the recipient */
    SMTP_SERVER_DATA,  /* 354 accepts; asked only with at least one recipient. A refusal leaves
                                the transaction open */
    SMTP_SERVER_BODY,  /* a piece of the message, dots unstuffed; no ticket. From BDAT: right
                                behind RCPT, there is no DATA event */
    SMTP_SERVER_END,   /* the message is whole; the answer is its fate. LMTP: answered once for each
                                accepted recipient, in their order, by the same ticket */
    SMTP_SERVER_RESET, /* the transaction is over, or its message lost (bad, too large),
                                before an END was answered; no ticket */
    SMTP_SERVER_STARTTLS, /* 220: the server stops until smtp_server_tls_started */
    SMTP_SERVER_ETRN,     /* RFC 1985 */
    SMTP_SERVER_ATRN,     /* RFC 2645; etrn.node: domains with commas, or empty. After a 250 the
                             connection is no session of ours any more */
    SMTP_SERVER_AUTH,     /* an exchange begins. 235: it is who it says; 334: a challenge, whose
                                octets are the reply's text, then AUTH_RESPONSE; else failed */
    SMTP_SERVER_AUTH_RESPONSE, /* the same answers */
    SMTP_SERVER_AUTH_END,      /* the client cancelled the exchange, or broke its syntax; no ticket.
                                Not told when the session closes */
    SMTP_SERVER_XCLIENT, /* the session is that of another client; the answer is its greeting, as for
                                CONNECT, and EHLO is awaited again */
    SMTP_SERVER_CLOSE,   /* send what is in output, then close; no ticket; last event */
};

/* XCLIENT: bits of what was said; `empty` of it: [UNAVAILABLE] or [TEMPUNAVAIL], or nothing. */
enum {
    SMTP_XCLIENT_NAME = 1,
    SMTP_XCLIENT_ADDR = 2,
    SMTP_XCLIENT_PORT = 4,
    SMTP_XCLIENT_PROTO = 8,
    SMTP_XCLIENT_HELO = 16,
    SMTP_XCLIENT_LOGIN = 32,
    SMTP_XCLIENT_DESTADDR = 64,
    SMTP_XCLIENT_DESTPORT = 128,
};

struct smtp_xclient {
    uint32_t said, empty;
    struct str name, helo, login; /* decoded */
    struct net_addr addr, dest;   /* of them port is kept apart */
    uint16_t port, dest_port;
    bool extended; /* PROTO=ESMTP */
};

enum smtp_body_type { SMTP_BODY_7BIT, SMTP_BODY_8BITMIME, SMTP_BODY_BINARYMIME };

struct smtp_server_event {
    enum smtp_server_event_type type;
    uint32_t ticket; /* not 0: to be answered */
    union {
        struct {
            struct str name;
            bool extended; /* EHLO, LHLO */
        } helo;
        struct {
            struct smtp_mailbox sender; /* all empty: null reverse-path */
            struct str address;         /* as written between the angle brackets */
            uint64_t size;              /* SIZE=, 0: not given */
            enum smtp_body_type body;
            bool smtputf8;
            bool requiretls;
            struct smtp_dsn_mail dsn;
            struct smtp_times times; /* within what was offered */
        } mail;
        struct {
            struct smtp_mailbox recipient;
            struct str address;
            struct smtp_dsn_rcpt dsn;
        } rcpt;
        struct str body;
        struct {
            uint64_t size; /* octets of the message, CRLF counted */
        } end;
        struct {
            char option; /* '@', '#' or 0 */
            struct str node;
        } etrn;
        struct {
            enum sasl_mechanism mechanism; /* AUTH */
            bool initial;                  /* AUTH: there is a response already */
            struct str response;           /* decoded: a secret, mostly */
        } auth;
        struct smtp_xclient xclient;
        struct {
            const char *why; /* "quit", "too many errors", "bare LF"...: for the log */
        } close;
    };
};

struct smtp_server;

struct smtp_server *smtp_server_new(const struct smtp_server_options *opt);
struct smtp_server *smtp_server_free(struct smtp_server *s);

/* Copies at most what the buffer holds (32 KiB); returns how many bytes were taken: 0 when it is
 * full, and between the 220 of STARTTLS and smtp_server_tls_started; all of them, unread, once
 * CLOSE is due. */
size_t smtp_server_feed(struct smtp_server *s, const void *bytes, size_t n);
/* 1: *ret is an event; 0: needs input, or an answer; <0: dead (-ENOMEM, -EPIPE after CLOSE). */
int smtp_server_next(struct smtp_server *s, struct smtp_server_event *ret);
/* Answers the event that carries the ticket. -ESTALE for any other ticket. The reply's text is
 * copied; an empty one becomes a usual phrase, a missing enhanced code x.0.0. A code of 421 closes
 * after it (one of several of an END: behind the last). 0, -ENOMEM; -EINVAL for a code that does not fit the event (a yes as listed above, or
 * 4xx/5xx), which then stays undecided. */
int smtp_server_answer(struct smtp_server *s, uint32_t ticket, const struct smtp_reply *reply);
/* Ends the session from outside (deadline, shutdown, connection lost): writes the reply, if there
 * is one, then RESET (in a transaction, an undecided END too) and CLOSE come. Any pending ticket is
 * void. `why` must outlive the server. */
void smtp_server_stop(struct smtp_server *s, const struct smtp_reply *reply, const char *why);

/* What waits to be sent, and how much of it has been. */
struct str smtp_server_output(const struct smtp_server *s);
void smtp_server_sent(struct smtp_server *s, size_t n);

/* After the 220 of STARTTLS has been sent and the handshake is done: forgets the session's state
 * and any plaintext still buffered (RFC 3207 §4.2). */
void smtp_server_tls_started(struct smtp_server *s);
/* True while message data is being received (other deadlines apply, RFC 5321 §4.5.3.2). */
bool smtp_server_in_data(const struct smtp_server *s);
/* The greeting was 554: QUIT is waited for, and every other command gets 503 (RFC 5321 §3.1). */
bool smtp_server_refused(const struct smtp_server *s);
/* True while bytes that were fed are still buffered, a line that is not complete included. */
bool smtp_server_buffered(const struct smtp_server *s);
/* The transaction limits can change with the client (known after construction). */
void smtp_server_set_options(struct smtp_server *s, const struct smtp_server_options *opt);

#endif
