/* recode.h - a message for a host that takes less than what is in it: 8-bit or binary parts become
 * quoted-printable or base64 (RFC 2045, 6152 section 3, 3030 section 3), and nothing else changes.
 *
 * Layer: mail. Pure; bytes in, bytes out, in any pieces. Memory is bounded whatever the message is:
 * a line, a field, a stack of RECODE_DEPTH entities and a byte for each of RECODE_REGIONS parts.
 *
 * It takes two passes, because the field that says how a part is encoded stands in front of the
 * part: `look` sees the whole message and decides, `write` gets the same octets again and writes. A
 * message that cannot be converted without loss is known after the first pass, before anything was
 * sent of it.
 *
 * What changes: Content-Transfer-Encoding of the parts that are encoded or whose label would not be
 * true any more; MIME-Version where it is missing and something was encoded; of a message that is no
 * MIME at all also "Content-Type: text/plain; charset=unknown-8bit" (RFC 1428). What is decoded again
 * is octet for octet what was there. Multiparts and message/rfc822 are never encoded, but what is in
 * them. All other octets stay.
 *
 * What cannot be converted: 8-bit octets in header fields; in what is signed (multipart/signed: it
 * would not verify any more); in a part that says it is encoded already; in message/partial and its like,
 * which must not be encoded; in what is nested too deep or has no readable boundary.
 */
#ifndef TERN_MAIL_RECODE_H
#define TERN_MAIL_RECODE_H

#include "base/buf.h"

enum { RECODE_DEPTH = 50, RECODE_REGIONS = 20000 };

struct recode;

/* eight_bit: lines of 8-bit text may stay (the host takes 8BITMIME), binary content may not. */
struct recode *recode_new(bool eight_bit);
struct recode *recode_free(struct recode *r);

/* First pass. 0; -ENOMEM; -EILSEQ: it cannot be converted, recode_why says why. Errors stay. */
int recode_look(struct recode *r, struct str piece);
int recode_looked(struct recode *r); /* all of it was given */

/* Second pass, of the same octets: appends to out. 0, -ENOMEM. */
int recode_write(struct recode *r, struct str piece, struct buf *out);
int recode_written(struct recode *r, struct buf *out);

/* After the first pass. */
const char *recode_why(const struct recode *r);   /* for people; lives for ever */
bool recode_is_eight_bit(const struct recode *r); /* what is written has octets above 0x7f */
uint64_t recode_estimate(const struct recode *r); /* octets that will be written, about */

#endif
