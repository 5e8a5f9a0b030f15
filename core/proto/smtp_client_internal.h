/* smtp_client_internal.h - the parts of the SMTP client that need no state machine: what EHLO
 * offered, what an address may hold, how a body is dot-stuffed.
 *
 * Layer: proto, private to smtp_client*.c (and its tests). Nothing here owns anything.
 */
#ifndef TERN_PROTO_SMTP_CLIENT_INTERNAL_H
#define TERN_PROTO_SMTP_CLIENT_INTERNAL_H

#include "proto/sasl.h"
#include "proto/smtp_client.h"

/* Reads the text of a positive EHLO/LHLO reply (lines joined by '\n', the first one is the host's
 * name). Keywords in any case; unknown ones and bad arguments are skipped. RFC 5321 §4.1.1.1. */
void smtp_client_parse_caps(struct str text, struct smtp_client_caps *ret);

/* May stand between angle brackets without changing the command around it: no control byte, no
 * '<', '>' or space outside of quotes, quotes closed, 8-bit only with utf8. Not the grammar of
 * addresses: what odd systems accepted can be sent on. */
bool smtp_client_address_ok(struct str address, bool utf8);

/* Where the last piece of a body ended. */
struct smtp_stuffing {
    bool line_start; /* a dot that comes next is doubled */
    bool skip_lf;    /* the line end was written at its CR: an LF that comes next is its half */
};
/* Appends the piece to out: dots at line starts doubled (RFC 5321 §4.5.2), bare CR and bare LF
 * made CRLF. -ENOMEM. */
int smtp_stuff(struct smtp_stuffing *s, struct str piece, struct buf *out);
/* CRLF if the last line lacks one, then the lone dot. -ENOMEM. */
int smtp_stuff_end(struct smtp_stuffing *s, struct buf *out);

/* ---- AUTH: smtp_client_auth.c ---- */

/* The best mechanism that the host offers and that may be used there; SASL_NONE: none. */
enum sasl_mechanism smtp_client_pick(const struct smtp_client_options *opt, uint32_t offered,
                                     bool tls);
/* Begins the exchange: appends the AUTH command to out. -EINVAL: the mechanism cannot carry that
 * user or password; -ENOMEM, -ENOTSUP. *ret is freed by sasl_client_free. */
int smtp_client_auth_begin(const struct smtp_client_options *opt, enum sasl_mechanism m,
                           struct buf *out, struct sasl_client **ret);
/* Answers a 334: appends the response. Errors of sasl_client_step; -EPROTO: not base64. */
int smtp_client_auth_step(struct sasl_client *sasl, struct str challenge, struct buf *out);
/* What may be kept and shown of a host's reply: many say "unrecognized: " and the whole line. */
struct str smtp_client_auth_text(const struct sasl_client *sasl, struct str text);

#endif
