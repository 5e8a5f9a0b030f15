/* password.h - what is kept of a password: parse, check, make.
 *
 * Layer: crypto. An entry is one text, "{SCHEME}..." as in the password files of other servers:
 *
 *     {SCRAM-SHA-256}15000,salt,StoredKey,ServerKey   the three in base64
 *     {SHA256-CRYPT}$5$...  {SHA512-CRYPT}$6$...      crypt(3)
 *     {BLF-CRYPT}$2y$...  {CRYPT}$y$...               bcrypt; any of crypt(3)'s that is named here
 *     {PLAIN}text                                     the password itself
 *
 * Without a scheme only crypt(3)'s texts are taken ("$6$..."). The cost of checking is bounded when
 * an entry is parsed, so that nobody's entry stops a thread for long: PASSWORD_MAX_ROUNDS of
 * SHA-crypt, 2^PASSWORD_MAX_BCRYPT of bcrypt, SCRAM_MAX_ITERATIONS, yescrypt up to four times its
 * default. All of these still take some 0.1 to 0.3 s: check them where nobody waits.
 */
#ifndef TERN_CRYPTO_PASSWORD_H
#define TERN_CRYPTO_PASSWORD_H

#include "base/buf.h"
#include "crypto/scram.h"

enum {
    PASSWORD_MAX = 1024,       /* octets of a password (RFC 4616 asks for 255) */
    PASSWORD_MAX_ENTRY = 2048, /* octets of an entry */
    PASSWORD_MAX_ROUNDS = 200000,
    PASSWORD_MAX_BCRYPT = 12,
};

enum password_kind { PASSWORD_PLAIN, PASSWORD_SCRAM_SHA_256, PASSWORD_CRYPT };

struct password_entry {
    enum password_kind kind;
    struct str text; /* PLAIN: the password; CRYPT: "$..."; lives as long as what was parsed */
    /* SCRAM_SHA_256: */
    uint32_t iterations;
    uint8_t salt_n;
    uint8_t salt[SCRAM_MAX_SALT];
    uint8_t stored[SCRAM_KEY], server[SCRAM_KEY];
};

/* 0, or -EINVAL with *ret_why, a static text that names no secret. */
int password_parse(struct str entry, struct password_entry *ret, const char **ret_why);
/* True when the text claims to be an entry ("{KNOWN-SCHEME}", "$6$"), whether or not it is a good
 * one: for callers that take plain text, too. */
bool password_is_entry(struct str text);
/* Checks what a client sent: *ret is true when it fits. 0, -ENOMEM, or -ENOTSUP when this system's
 * crypt(3) does not know the method. May be slow, see above. */
int password_check(const struct password_entry *e, struct str password, bool *ret);

/* Appends "{SCRAM-SHA-256}...". `salt`: octets of chance, 1 to SCRAM_MAX_SALT. 0, or as above. */
int password_make_scram(struct str password, struct str salt, uint32_t iterations, struct buf *out);

#endif
