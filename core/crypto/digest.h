/* digest.h - digests, HMAC (RFC 2104), PBKDF2 (RFC 8018), and care with secrets.
 *
 * Layer: crypto. Pure functions over libcrypto: no state, no I/O, safe in any thread. They return 0
 * or -ENOTSUP (libcrypto was set up without this digest, as FIPS mode is without MD5) or -ENOMEM.
 */
#ifndef TERN_CRYPTO_DIGEST_H
#define TERN_CRYPTO_DIGEST_H

#include "base/err.h"
#include "base/str.h"

enum digest { DIGEST_MD5, DIGEST_SHA1, DIGEST_SHA256 };

/* Octets of each, and room for any of them. */
enum { DIGEST_MD5_SIZE = 16, DIGEST_SHA1_SIZE = 20, DIGEST_SHA256_SIZE = 32, DIGEST_MAX = 32 };

size_t digest_size(enum digest d);

/* Write digest_size(d) octets to ret. */
int digest_of(enum digest d, struct str data, uint8_t *ret);
/* The same piece by piece. NULL: out of memory, or no such digest. */
struct digest_run;
struct digest_run *digest_begin(enum digest d);
int digest_add(struct digest_run *run, struct str data);
/* Writes digest_size octets; nothing can be added any more. */
int digest_end(struct digest_run *run, uint8_t *ret);
struct digest_run *digest_free(struct digest_run *run);

int hmac_of(enum digest d, struct str key, struct str data, uint8_t *ret);
/* One block of PBKDF2 with HMAC, which is all that SCRAM's Hi() is. Takes about 0.6 ms for each
 * thousand iterations of SHA-256: bound them. iterations: 1 on; else -EINVAL. */
int pbkdf2_of(enum digest d, struct str password, struct str salt, uint32_t iterations,
              uint8_t *ret);

/* Whether a and b are equal, in a time that depends on their lengths only. */
bool secret_equal(struct str a, struct str b);
/* Overwrites, where a compiler would leave a memset of dead memory out. */
void secret_wipe(void *p, size_t n);

#endif
