/* address.h - a mail address as routing sees it.
 *
 * Layer: mail. The written form stays as it came (`text`); decisions are taken on `domain`: lower
 * case, an A-label (IDN by libidn2, UTS 46 non-transitional), without a trailing dot; or an address
 * literal "[192.0.2.1]", "[ipv6:2001:db8::1]" with the address in its shortest form. "Full-width
 * dots", bad "xn--" and the like either become the very A-label that is delivered to, or the address
 * is refused.
 */
#ifndef TERN_MAIL_ADDRESS_H
#define TERN_MAIL_ADDRESS_H

#include "base/arena.h"
#include "proto/smtp_syntax.h"

struct address {
    struct str text;   /* "user@Example.COM" as written, without brackets; empty: null sender */
    struct str local;  /* as written, quotes kept */
    struct str domain; /* normal form; empty for the null sender and <postmaster> */
};

/* From a parsed mailbox; all strings are in the arena. -EINVAL: the domain has no A-label form;
 * -ENOMEM. */
int address_make(struct arena *a, const struct smtp_mailbox *m, struct address *ret);
/* From "local@domain", "postmaster" or "" (null sender). -EINVAL, -E2BIG, -ENOMEM. */
int address_parse(struct arena *a, struct str text, struct address *ret);
/* Normal form of a domain name (of at most 253 octets, the last label not all digits) or pattern
 * ("*", ".example.com", "*.example.com": the wildcard part is kept) into dst (at least 256 bytes,
 * NUL added): length, or -EINVAL (-ENOMEM). ASCII without "xn--" takes no library call. */
enum { DOMAIN_TEXT = 256 };
ptrdiff_t domain_normalize(struct str s, char *dst, size_t size);

#endif
