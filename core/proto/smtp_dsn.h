/* smtp_dsn.h - what a sender asks to be told: RET and ENVID of MAIL, NOTIFY and ORCPT of RCPT (RFC 3461 §4).
 *
 * Layer: proto. Values; slices point into the command line, ENVID and ORCPT stay in xtext.
 */
#ifndef TERN_PROTO_SMTP_DSN_H
#define TERN_PROTO_SMTP_DSN_H

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

enum {
    SMTP_MAX_ENVID = 100, /* octets of xtext (RFC 3461 §4.4) */
    SMTP_MAX_ORCPT = 500, /* octets, the type included (§4.2) */
};
/* NOTIFY=: a set, or NEVER alone; 0: not given, which is failure and perhaps delay. */
enum smtp_notify {
    SMTP_NOTIFY_NEVER = 1,
    SMTP_NOTIFY_SUCCESS = 2,
    SMTP_NOTIFY_FAILURE = 4,
    SMTP_NOTIFY_DELAY = 8,
};
enum smtp_ret { SMTP_RET_NONE, SMTP_RET_FULL, SMTP_RET_HDRS };

struct smtp_dsn_mail {
    enum smtp_ret ret;
    struct str envid; /* xtext; empty: none */
};
struct smtp_dsn_rcpt {
    uint8_t notify;   /* enum smtp_notify */
    struct str orcpt; /* "rfc822;a+2Bb@example.com", xtext behind the type; empty: none */
};

/* Each takes one parameter. 0: taken; -ENOENT: it is none of these; -EINVAL: its value is wrong, or it was
 * given before. */
int smtp_dsn_mail_param(struct str keyword, struct str value, struct smtp_dsn_mail *ret);
int smtp_dsn_rcpt_param(struct str keyword, struct str value, bool utf8, struct smtp_dsn_rcpt *ret);
/* "SUCCESS,FAILURE" into dst (SMTP_NOTIFY_TEXT bytes); returns dst, "" for 0. */
enum { SMTP_NOTIFY_TEXT = 32 };
const char *smtp_notify_text(uint8_t notify, char *dst);

/* The other way: " RET=HDRS ENVID=..." and " NOTIFY=NEVER ORCPT=rfc822;...", of what is given. Here envid
 * and orcpt are plain text; what would be too long as xtext is left out. */
void smtp_dsn_write_mail(const struct smtp_dsn_mail *dsn, struct buf *out);
void smtp_dsn_write_rcpt(const struct smtp_dsn_rcpt *dsn, bool utf8, struct buf *out);

#endif
