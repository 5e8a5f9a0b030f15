/* trace.h - the Received header that we add (RFC 5321 §4.4, RFC 3848, RFC 6710), and Message-ID/Date for mail
 * that we make ourselves. Layer: mail. */
#ifndef TERN_MAIL_TRACE_H
#define TERN_MAIL_TRACE_H

#include "mail/message.h"

struct trace {
    struct str helo; /* as the client said it */
    struct net_addr client;
    struct str by;                           /* our host name */
    bool extended, tls, authenticated, utf8; /* "with" ESMTP, ESMTPS, ESMTPSA, UTF8SMTP... */
    bool lmtp;                               /* LMTP, LMTPS, UTF8LMTPSA... */
    struct str tls_version, tls_cipher;      /* as a comment; empty: none */
    struct msgid id;
    struct str for_;        /* the recipient, only when there is exactly one; else empty */
    const int8_t *priority; /* RFC 6710 section 7; NULL: not said */
    int64_t wall_ms;
};

/* Folded, with its CRLF. All that a stranger chose is cleaned of control bytes and parentheses. */
int trace_write(const struct trace *t, struct buf *out);

#endif
