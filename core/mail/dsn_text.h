/* dsn_text.h - what a delivery status notification tells a person. Layer: mail, internal to dsn.c. */
#ifndef TERN_MAIL_DSN_TEXT_H
#define TERN_MAIL_DSN_TEXT_H

#include "mail/dsn.h"

/* The text part in plain English, lines in CRLF; `utf8`: well-formed UTF-8 may stand in it. */
void dsn_add_text(const struct dsn *d, bool utf8, struct buf *out);
/* Without control bytes, and without bytes above 0x7f unless utf8: '?' stands for each of them. */
void dsn_add_clean(struct buf *out, struct str s, bool utf8);
/* The status, or the plainest that fits the action when there is none. */
struct smtp_enhanced dsn_status(const struct dsn_recipient *r);
/* "550 ..." */
bool dsn_looks_like_reply(struct str s);

#endif
