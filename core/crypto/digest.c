/* digest.c - digests over libcrypto. Layer: crypto. Interface: digest.h. */
#include "crypto/digest.h"

#include <limits.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>

static const struct {
    const char *name;
    size_t size;
} digests[] = {
    [DIGEST_MD5] = { "MD5", DIGEST_MD5_SIZE },
    [DIGEST_SHA1] = { "SHA1", DIGEST_SHA1_SIZE },
    [DIGEST_SHA256] = { "SHA256", DIGEST_SHA256_SIZE },
};

size_t digest_size(enum digest d)
{
    return digests[d].size;
}

/* The queue of errors is the thread's, and TLS in the same thread reads it: leave none behind. */
static int result_of(bool ok)
{
    if (!ok)
        ERR_clear_error();
    return ok ? 0 : -ENOTSUP;
}

/* libcrypto takes no NULL, not even of length 0. */
static const void *bytes_of(struct str s)
{
    return s.p ? s.p : "";
}

int digest_of(enum digest d, struct str data, uint8_t *ret)
{
    return result_of(EVP_Q_digest(NULL, digests[d].name, NULL, bytes_of(data), data.n, ret, NULL));
}

/* A context of libcrypto under our name. */
static EVP_MD_CTX *context_of(struct digest_run *run)
{
    return (EVP_MD_CTX *)run;
}

struct digest_run *digest_begin(enum digest d)
{
    EVP_MD *md = EVP_MD_fetch(NULL, digests[d].name, NULL);
    EVP_MD_CTX *c = md ? EVP_MD_CTX_new() : NULL;

    if (c && EVP_DigestInit_ex(c, md, NULL) != 1) {
        EVP_MD_CTX_free(c);
        c = NULL;
    }
    EVP_MD_free(md);
    result_of(c != NULL);
    return (struct digest_run *)c;
}

int digest_add(struct digest_run *run, struct str data)
{
    return result_of(EVP_DigestUpdate(context_of(run), bytes_of(data), data.n) == 1);
}

int digest_end(struct digest_run *run, uint8_t *ret)
{
    return result_of(EVP_DigestFinal_ex(context_of(run), ret, NULL) == 1);
}

struct digest_run *digest_free(struct digest_run *run)
{
    EVP_MD_CTX_free(context_of(run));
    return NULL;
}

int hmac_of(enum digest d, struct str key, struct str data, uint8_t *ret)
{
    size_t n = 0;

    return result_of(EVP_Q_mac(NULL, "HMAC", NULL, digests[d].name, NULL, bytes_of(key), key.n,
                               bytes_of(data), data.n, ret, digests[d].size, &n) != NULL);
}

int pbkdf2_of(enum digest d, struct str password, struct str salt, uint32_t iterations,
              uint8_t *ret)
{
    if (iterations == 0 || iterations > INT_MAX || password.n > INT_MAX || salt.n > INT_MAX)
        return -EINVAL;

    EVP_MD *md = EVP_MD_fetch(NULL, digests[d].name, NULL);
    bool ok = md && PKCS5_PBKDF2_HMAC(bytes_of(password), (int)password.n, bytes_of(salt),
                                      (int)salt.n, (int)iterations, md, (int)digests[d].size, ret);
    EVP_MD_free(md);
    return result_of(ok);
}

bool secret_equal(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || CRYPTO_memcmp(a.p, b.p, a.n) == 0);
}

void secret_wipe(void *p, size_t n)
{
    if (p)
        OPENSSL_cleanse(p, n);
}
