/* dsn.h - delivery status notifications (RFC 3461, 3464, 6522, 3834).
 *
 * Layer: mail. Composes a whole message (headers and multipart/report body); sending it is the
 * engine's business, as with any other message. The result is 7-bit unless the returned content or, for
 * SMTPUTF8 mail, an address is not.
 */
#ifndef TERN_MAIL_DSN_H
#define TERN_MAIL_DSN_H

#include "mail/message.h"
#include "proto/smtp_reply.h"

enum dsn_action { DSN_FAILED, DSN_DELAYED, DSN_RELAYED, DSN_DELIVERED, DSN_EXPANDED };
enum { DSN_MAX_RETURNED = 50 * 1024 }; /* octets of the original that are sent back */

struct dsn_recipient {
    struct str address;
    struct str orcpt; /* as given by ORCPT=, "rfc822;a@b"; empty: none */
    enum dsn_action action;
    struct smtp_enhanced status; /* 5.1.1 */
    struct str remote_host;      /* "mx.example.com [192.0.2.1]"; empty: none spoke */
    struct str diagnostic;       /* the reply as it came, or our reason */
    int64_t last_attempt_ms;     /* 0: none */
    int64_t retry_until_ms;      /* DELAYED; 0: unknown */
};

struct dsn {
    const struct message *original;
    struct str original_head; /* bytes from the start of the original, at least its headers */
    bool full;                /* return the body too (RET=FULL), else headers only */
    struct str hostname;      /* reporting MTA */
    struct msgid id;          /* of the new message: boundary and Message-ID */
    int64_t wall_ms;
    const struct dsn_recipient *recipients;
    size_t n_recipients;
};

/* Writes the message, all lines in CRLF. Strings from elsewhere are cleaned of control bytes.
 * -EINVAL: the original's sender is null (such mail is never reported, RFC 5321 §6.1) or there are
 * no recipients; -ENOMEM, -EMSGSIZE. */
int dsn_write(const struct dsn *d, struct buf *out);

#endif
