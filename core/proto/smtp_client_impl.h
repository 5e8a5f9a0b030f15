/* smtp_client_impl.h - what the files of the SMTP client share; nobody else includes it.
 *
 * Layer: proto. smtp_client.c holds the life of a session, its marks, greeting to READY and the
 * dispatcher; smtp_client_mail.c the transaction; smtp_client_limits.c how much of it there may be; smtp_client_text.c and smtp_client_auth.c what
 * needs no state machine.
 */
#ifndef TERN_PROTO_SMTP_CLIENT_IMPL_H
#define TERN_PROTO_SMTP_CLIENT_IMPL_H

#include "proto/smtp_client_internal.h"

enum {
    CLIENT_MAX_RUNS = 5,        /* RSET, MAIL, RCPT, DATA, and one to spare */
    CLIENT_MAX_PENDING = 3,     /* RESULT, TRANSACTION_DONE, READY */
    CLIENT_MAX_PEER_NAME = 255, /* a domain (RFC 5321 §4.5.3.1.2) */
    CLIENT_FINAL_ROOM = 512,    /* for the reply to the message: a line (RFC 5321 §4.5.3.1.5) */
    CLIENT_MAX_SAID = 200,      /* of a reply that broke the protocol: for people */
    CLIENT_MAX_DOMAINS = 64,    /* remembered, where RCPTDOMAINMAX limits them */
    CLIENT_MAX_UNREAD =
        1024 * 1024, /* fed and not taken by next; the caller takes after each feed */
};

enum client_kind {
    KIND_GREETING,
    KIND_EHLO,
    KIND_HELO,
    KIND_STARTTLS,
    KIND_AUTH, /* the command, or a response to a challenge */
    KIND_RSET,
    KIND_MAIL,
    KIND_RCPT,
    KIND_DATA,
    KIND_FINAL,
    KIND_DISCARD, /* the lone dot after a DATA that nobody wanted */
    KIND_QUIT,
};

struct client_runs {
    struct {
        enum client_kind kind;
        size_t count;
    } run[CLIENT_MAX_RUNS];
    size_t n;
};

struct smtp_client {
    struct smtp_client_options opt;
    struct smtp_client_caps caps;
    enum smtp_stage stage;
    bool tls;
    bool quitting; /* QUIT as soon as READY */
    bool closed;   /* FAILED or CLOSE is told or pending: nothing else follows */
    bool refused;  /* closed, but QUIT may be said */
    int lost;      /* -errno: FAILED once the input is used up */

    struct buf in, out;
    struct smtp_reply_reader reader;
    bool mid_reply; /* the reader holds the beginning of a reply */
    bool stale;     /* the reply being read began before the transaction: it answers nothing */

    struct sasl_client *sasl; /* while AUTH is going on */

    struct client_runs expected;
    struct client_runs planned;
    struct buf held;

    struct smtp_client_event pending[CLIENT_MAX_PENDING];
    size_t n_pending;

    /* The transaction. */
    size_t n_recipients, next_recipient, n_accepted;
    uint8_t *accepted;   /* LMTP: a bit for each recipient */
    bool told;           /* TRANSACTION_DONE was given: the replies that remain concern nobody */
    bool stray_accepted; /* RCPT accepted though MAIL was not */
    bool ask_only;       /* it ends behind RCPT */
    bool bdat;           /* there is no DATA */
    bool final_refused;  /* to some of the message's replies */
    struct smtp_reply farewell; /* LMTP: 421 among those replies, its text in said; code 0: none */
    uint64_t left;              /* BDAT: octets that are still to be given */
    bool need_rset;             /* the host still holds the transaction before this one */
    struct smtp_stuffing stuffing;

    /* LIMITS (smtp_client_limits.c) */
    uint32_t mails;    /* MAIL commands of this session */
    uint64_t *domains; /* hashes; NULL: none is limited yet */
    size_t n_domains;

    size_t peer_name_n;
    char peer_name[CLIENT_MAX_PEER_NAME];
    char said[CLIENT_MAX_SAID];
};

/* smtp_client.c */
struct smtp_client_event *client_push(struct smtp_client *c, enum smtp_client_event_type type,
                                      enum smtp_stage stage);
void client_push_reply(struct smtp_client *c, enum smtp_client_event_type type,
                       enum smtp_stage stage, size_t index, const struct smtp_reply *reply);
/* The last event: by an error of ours, by the reply, or by one that does not fit what was asked. */
void client_fail_error(struct smtp_client *c, enum smtp_stage stage, int error);
void client_fail_reply(struct smtp_client *c, enum smtp_stage stage,
                       const struct smtp_reply *reply);
void client_fail_wrong(struct smtp_client *c, enum smtp_stage stage,
                       const struct smtp_reply *reply);
void client_mark(struct client_runs *q, enum client_kind kind, size_t count);
void client_update_stage(struct smtp_client *c);
void client_drop_plan(struct smtp_client *c);
/* One command outside of the plan. */
void client_send_line(struct smtp_client *c, enum client_kind kind, const char *verb,
                      struct str arg);
/* Sends what is planned: all of it with PIPELINING, else the next line. 0, -ENOMEM. */
int client_release(struct smtp_client *c);

/* smtp_client_mail.c. 421 in place of one of several replies to the message. False: it is the last, or the only one. */
bool client_take_farewell(struct smtp_client *c, const struct smtp_reply *reply);

/* smtp_client_limits.c. 0, -EDQUOT. */
int client_check_limits(struct smtp_client *c, const struct smtp_client_mail *mail);

/* smtp_client_mail.c: replies that belong to a transaction. */
typedef void client_reply_handler(struct smtp_client *c, const struct smtp_reply *reply);
client_reply_handler client_on_rset, client_on_mail, client_on_rcpt, client_on_data,
    client_on_final, client_on_discard;

#endif
