/* smtp_limits.h - the LIMITS line of EHLO (RFC 9422): what a server takes in one session.
 *
 * Layer: proto. A value; no memory of its own. Names that nobody knows and values that are none are left out, as
 * the RFC demands of clients (section 3): a limit that cannot be read is no limit.
 */
#ifndef TERN_PROTO_SMTP_LIMITS_H
#define TERN_PROTO_SMTP_LIMITS_H

#include "base/buf.h"

enum { SMTP_LIMIT_MOST = 999999 }; /* six digits (section 4) */

struct smtp_limits {
    uint32_t rcptmax;       /* RCPT in a transaction; 0: not told */
    uint32_t mailmax;       /* MAIL in a session, refused ones too */
    uint32_t rcptdomainmax; /* different domains of recipients in a session */
};

/* "RCPTMAX=100 MAILMAX=20", behind the keyword. Of a name that comes twice the smaller value counts. */
void smtp_limits_parse(struct str params, struct smtp_limits *ret);
/* "\nLIMITS RCPTMAX=100"; nothing when there is no limit. What has more than six digits is told as six nines. */
void smtp_limits_write(const struct smtp_limits *l, struct buf *out);

#endif
