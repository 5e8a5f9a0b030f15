/* smtp_syntax.h - the grammar of RFC 5321 §4.1.2: paths, mailboxes, domains, parameters, xtext.
 *
 * Layer: proto. Pure functions on slices: what they return points into their argument, nothing is
 * allocated. Strict: what the RFC does not allow is refused. UTF-8 (RFC 6531) only where the caller
 * says so. Errors: -EINVAL (syntax), -E2BIG (a limit of §4.5.3.1: local part 64, domain 255, path
 * 256 octets).
 */
#ifndef TERN_PROTO_SMTP_SYNTAX_H
#define TERN_PROTO_SMTP_SYNTAX_H

#include "base/err.h"
#include "base/str.h"

enum {
    SMTP_MAX_LOCAL = 64,
    SMTP_MAX_DOMAIN = 255,
    SMTP_MAX_PATH = 256,         /* with the angle brackets */
    SMTP_MAX_COMMAND_LINE = 512, /* with CRLF, before extensions raise it */
    SMTP_MAX_TEXT_LINE = 1000,   /* with CRLF */
    SMTP_MAX_REPLY_LINE = 512,   /* with CRLF */
};

/* A mailbox as written. Quoted local parts keep their quotes in `local`. domain is empty for
 * <postmaster> only; an address literal keeps its brackets. The null path is all empty. */
struct smtp_mailbox {
    struct str local;
    struct str domain;
};

/* "<local@domain>", "<>" if allow_null, "<postmaster>" if allow_postmaster. A source route
 * ("<@a,@b:u@d>", obsolete) is refused (-EINVAL): it names more than one place for the mail. */
int smtp_parse_path(struct str s, bool allow_null, bool allow_postmaster, bool utf8,
                    struct smtp_mailbox *ret, struct str *ret_rest);
/* "local@domain" without brackets, the whole slice. */
int smtp_parse_mailbox(struct str s, bool utf8, struct smtp_mailbox *ret);
/* Letter-digit-hyphen labels (underscores tolerated), 63 octets each, U-labels if utf8; a trailing
 * dot is refused. All-numeric TLD allowed only through address literals. */
int smtp_parse_domain(struct str s, bool utf8);
/* "[192.0.2.1]", "[IPv6:2001:db8::1]": syntax only. */
int smtp_parse_address_literal(struct str s);
/* The argument of EHLO/HELO: a domain or an address literal. */
int smtp_parse_helo(struct str s, bool utf8);

/* Takes the next " KEYWORD[=value]" off *s. 1: one taken; 0: none left; -EINVAL. */
int smtp_next_param(struct str *s, struct str *ret_keyword, struct str *ret_value);

/* RFC 3461 §4. Decodes into dst (at most size bytes), returns the length; -EINVAL, -E2BIG, and
 * -EINVAL too when the result holds a control byte (CR, LF, NUL...). */
ptrdiff_t smtp_xtext_decode(struct str s, char *dst, size_t size);
/* Encodes; -E2BIG when dst is too small (3 * s.n always suffices). */
ptrdiff_t smtp_xtext_encode(struct str s, char *dst, size_t size);

/* The local part without quoting ("a\ b" quoted -> a b) into dst; -E2BIG. Two local parts are the
 * same mailbox when these are equal (case matters, RFC 5321 §2.4). */
ptrdiff_t smtp_local_unquote(struct str local, char *dst, size_t size);

#endif
