/* scram.c - SCRAM's keys, proof and signature. Layer: crypto. Interface: scram.h. */
#include "crypto/scram.h"

static struct str key_str(const uint8_t *key)
{
    return str_make(key, SCRAM_KEY);
}

int scram_keys_of(struct str password, struct str salt, uint32_t iterations, struct scram_keys *ret)
{
    struct scram_keys keys;
    uint8_t salted[SCRAM_KEY];
    int r = pbkdf2_of(DIGEST_SHA256, password, salt, iterations, salted);

    if (r == 0)
        r = hmac_of(DIGEST_SHA256, key_str(salted), STR("Client Key"), keys.client);
    if (r == 0)
        r = digest_of(DIGEST_SHA256, key_str(keys.client), keys.stored);
    if (r == 0)
        r = hmac_of(DIGEST_SHA256, key_str(salted), STR("Server Key"), keys.server);
    if (r == 0)
        *ret = keys;
    secret_wipe(salted, sizeof(salted));
    secret_wipe(&keys, sizeof(keys));
    return r;
}

int scram_proof(const struct scram_keys *keys, struct str message, uint8_t ret[SCRAM_KEY])
{
    uint8_t signature[SCRAM_KEY];
    int r = hmac_of(DIGEST_SHA256, key_str(keys->stored), message, signature);

    if (r < 0)
        return r;
    for (size_t i = 0; i < SCRAM_KEY; i++)
        ret[i] = keys->client[i] ^ signature[i];
    return 0;
}

int scram_proof_fits(const uint8_t stored[SCRAM_KEY], struct str message,
                     const uint8_t proof[SCRAM_KEY], bool *ret)
{
    uint8_t client[SCRAM_KEY], digest[SCRAM_KEY];
    int r = hmac_of(DIGEST_SHA256, key_str(stored), message, client);

    for (size_t i = 0; r == 0 && i < SCRAM_KEY; i++)
        client[i] ^= proof[i];
    if (r == 0)
        r = digest_of(DIGEST_SHA256, key_str(client), digest);
    if (r == 0)
        *ret = secret_equal(key_str(digest), key_str(stored));
    secret_wipe(client, sizeof(client));
    return r;
}

int scram_signature(const uint8_t server[SCRAM_KEY], struct str message, uint8_t ret[SCRAM_KEY])
{
    return hmac_of(DIGEST_SHA256, key_str(server), message, ret);
}
