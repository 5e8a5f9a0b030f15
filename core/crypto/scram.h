/* scram.h - the keys of SCRAM-SHA-256 (RFC 5802 section 3, RFC 7677).
 *
 * Layer: crypto. What a server keeps of a password: salt, iterations, StoredKey, ServerKey. Who
 * steals them can neither log in nor (SHA-256 and iterations permitting) find the password. The
 * messages of the mechanism are in proto/sasl.h.
 *
 * Passwords are taken as they are: SASLprep (RFC 4013) is not applied, which makes a difference
 * only for text that is not ASCII and was typed in another normal form.
 */
#ifndef TERN_CRYPTO_SCRAM_H
#define TERN_CRYPTO_SCRAM_H

#include "crypto/digest.h"

enum {
    SCRAM_KEY = DIGEST_SHA256_SIZE,
    SCRAM_MIN_ITERATIONS = 4096,   /* RFC 7677 section 4: fewer help whoever listens */
    SCRAM_MAX_ITERATIONS = 200000, /* some 120 ms of a processor */
    SCRAM_USUAL_ITERATIONS = 15000,
    SCRAM_MAX_SALT = 64,
};

struct scram_keys {
    uint8_t client[SCRAM_KEY]; /* the client's secret: a server forgets it */
    uint8_t stored[SCRAM_KEY];
    uint8_t server[SCRAM_KEY];
};

/* All return 0 or as digest.h says. */
int scram_keys_of(struct str password, struct str salt, uint32_t iterations,
                  struct scram_keys *ret);
/* What the client shows: ClientKey XOR HMAC(StoredKey, message). */
int scram_proof(const struct scram_keys *keys, struct str message, uint8_t ret[SCRAM_KEY]);
/* Whether a proof shows knowledge of the ClientKey that StoredKey is the digest of. */
int scram_proof_fits(const uint8_t stored[SCRAM_KEY], struct str message,
                     const uint8_t proof[SCRAM_KEY], bool *ret);
/* What the server shows: HMAC(ServerKey, message). */
int scram_signature(const uint8_t server[SCRAM_KEY], struct str message, uint8_t ret[SCRAM_KEY]);

#endif
