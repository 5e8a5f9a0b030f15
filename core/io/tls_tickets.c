/* tls_tickets.c - the keys of session tickets. Layer: io. Interface: tls_tickets.h.
 *
 * Tickets are AES-256-CBC with HMAC-SHA-256 (RFC 5077 §4); OpenSSL does both with the keys given here. Keys
 * rotate when they are used, not by a timer.
 */
#include "io/tls_tickets.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

/* One seals; as many as begin while the oldest still opens. */
enum { KEYS = 2 + TLS_TICKET_LIFE_S / TLS_TICKET_ROTATE_S };

struct tls_tickets {
    atomic_uint refs;
    pthread_mutex_t lock;
    struct tls_ticket_key key[KEYS]; /* the newest first */
};

static void wipe(struct tls_ticket_key *k)
{
    OPENSSL_cleanse(k, sizeof(*k));
    k->since_s = INT64_MIN;
}

struct tls_tickets *tls_tickets_new(void)
{
    struct tls_tickets *t = calloc(1, sizeof(*t));

    if (!t)
        return NULL;
    atomic_init(&t->refs, 1);
    pthread_mutex_init(&t->lock, NULL);
    for (size_t i = 0; i < KEYS; i++)
        wipe(&t->key[i]);
    return t;
}

struct tls_tickets *tls_tickets_ref(struct tls_tickets *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

struct tls_tickets *tls_tickets_unref(struct tls_tickets *t)
{
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
        return NULL;
    OPENSSL_cleanse(t->key, sizeof(t->key));
    pthread_mutex_destroy(&t->lock);
    free(t);
    return NULL;
}

static bool is_old(const struct tls_ticket_key *k, int64_t now_s, int64_t age_s)
{
    return k->since_s == INT64_MIN || now_s >= k->since_s + age_s;
}

/* Locked. */
static void drop_old(struct tls_tickets *t, int64_t now_s)
{
    for (size_t i = 0; i < KEYS; i++)
        if (is_old(&t->key[i], now_s, TLS_TICKET_ROTATE_S + TLS_TICKET_LIFE_S))
            wipe(&t->key[i]);
}

/* Locked. */
static bool begin_key(struct tls_tickets *t, int64_t now_s)
{
    struct tls_ticket_key k = { .since_s = now_s };
    bool ok = RAND_bytes(k.name, sizeof(k.name)) == 1 &&
              RAND_priv_bytes(k.aes, sizeof(k.aes)) == 1 &&
              RAND_priv_bytes(k.mac, sizeof(k.mac)) == 1;

    if (ok) {
        wipe(&t->key[KEYS - 1]);
        memmove(&t->key[1], &t->key[0], (KEYS - 1) * sizeof(t->key[0]));
        t->key[0] = k;
    }
    wipe(&k);
    return ok;
}

bool tls_tickets_seal(struct tls_tickets *t, int64_t now_s, struct tls_ticket_key *ret)
{
    bool ok = true;

    pthread_mutex_lock(&t->lock);
    drop_old(t, now_s);
    if (is_old(&t->key[0], now_s, TLS_TICKET_ROTATE_S))
        ok = begin_key(t, now_s);
    if (ok)
        *ret = t->key[0];
    pthread_mutex_unlock(&t->lock);
    return ok;
}

int tls_tickets_open(struct tls_tickets *t, int64_t now_s, const uint8_t *name,
                     struct tls_ticket_key *ret)
{
    int r = 0;

    pthread_mutex_lock(&t->lock);
    drop_old(t, now_s);
    for (size_t i = 0; i < KEYS && r == 0; i++) {
        const struct tls_ticket_key *k = &t->key[i];
        if (k->since_s == INT64_MIN || memcmp(k->name, name, TLS_TICKET_NAME) != 0)
            continue;
        *ret = *k;
        r = is_old(k, now_s, TLS_TICKET_ROTATE_S) ? 2 : 1;
    }
    pthread_mutex_unlock(&t->lock);
    return r;
}

/* ---- OpenSSL's side -------------------------------------------------------------------------- */

static int64_t clock_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return now.tv_sec;
}

static bool set_mac(EVP_MAC_CTX *mac, struct tls_ticket_key *k)
{
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, k->mac, sizeof(k->mac)),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };

    return EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* SSL_CTX_set_tlsext_ticket_key_evp_cb(3): 1 and 2: yes, 0: a full handshake, -1: failure. */
static int ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                      EVP_MAC_CTX *mac, int sealing)
{
    struct tls_tickets *t = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    struct tls_ticket_key k;
    int r;

    if (sealing) {
        r = RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) == 1 &&
                    tls_tickets_seal(t, clock_s(), &k)
                ? 1
                : -1;
        if (r == 1)
            memcpy(name, k.name, sizeof(k.name));
    } else {
        r = tls_tickets_open(t, clock_s(), name, &k);
    }
    if (r > 0 && (EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, k.aes, iv, sealing) != 1 ||
                  !set_mac(mac, &k)))
        r = -1;
    if (r > 0)
        wipe(&k);
    /* In TLS 1.3 a ticket is for one use (RFC 8446 §C.4): its place is taken by a new one. */
    return r > 0 && !sealing && SSL_version(ssl) == TLS1_3_VERSION ? 2 : r;
}

int tls_tickets_use(SSL_CTX *ctx, struct tls_tickets *t)
{
    SSL_CTX_set_app_data(ctx, t);
    SSL_CTX_set_timeout(ctx, TLS_TICKET_LIFE_S);
    return SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, ticket_key) ? 0 : -EINVAL;
}
