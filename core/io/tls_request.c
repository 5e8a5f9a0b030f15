/* tls_request.c - how one handshake is set up: what is asked of the peer. Layer: io. Interface: tls_context.h. */
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "io/tls_certificate.h"
#include "io/tls_context.h"
#include "proto/dane.h"

/* ---- as a client ----------------------------------------------------------------------------- */

/* The TLSA records decide (RFC 7672 §3): of usage 3 nothing but the key or certificate counts, for usage 2
 * the base domain or the next-hop domain must be in it. Where OpenSSL can use none of them, TLS is all
 * that is asked for (§2.2). */
static int set_up_dane(SSL *ssl, const struct tls_request *req)
{
    char base[DNS_MAX_NAME + 1], domain[DNS_MAX_NAME + 1];
    struct dane dane;
    struct dane_record r;
    bool usable = false;

    if (!dane_read(req->dane, &dane) || !str_copy(dane.base, base, sizeof(base)) ||
        !str_copy(dane.domain, domain, sizeof(domain)))
        return -EINVAL;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (SSL_dane_enable(ssl, base) <= 0)
        return -EINVAL;
    SSL_dane_set_flags(ssl, DANE_FLAG_NO_DANE_EE_NAMECHECKS);
    if (domain[0] && SSL_add1_host(ssl, domain) != 1)
        return -EINVAL;
    while (dane_take(&dane.records, &r)) {
        int added = SSL_dane_tlsa_add(ssl, r.usage, r.selector, r.matching,
                                      (const unsigned char *)r.data.p, r.data.n);
        if (added < 0)
            ERR_clear_error(); /* of this one: the data is no certificate, or no key */
        usable |= added > 0;
    }
    SSL_set_verify(ssl, usable ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    return 0;
}

/* Shown to who asks for one. */
static int show_certificate(SSL *ssl, const struct tls_context *c, struct str file)
{
    for (size_t i = 0; i < c->n_own; i++) {
        struct tls_certificate *own = c->own[i];
        if (str_eq(str_of(own->file), file))
            return SSL_use_cert_and_key(ssl, own->cert, own->key, own->chain, 1) == 1 ? 0 : -ENOMEM;
    }
    return -ENOENT;
}

int tls_set_up_client(SSL *ssl, const struct tls_context *c, const struct tls_request *req)
{
    char name[256];
    int r = req->certificate.n ? show_certificate(ssl, c, req->certificate) : 0;

    if (r < 0)
        return r;
    SSL_set_connect_state(ssl);
    if (req->verify == TLS_VERIFY_DANE)
        return set_up_dane(ssl, req);
    SSL_set_verify(ssl, req->verify == TLS_VERIFY_NAME ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (req->verify == TLS_VERIFY_NONE)
        SSL_set_security_level(ssl, 1); /* a weak key is better than clear text */
    if (req->name.n == 0)
        return req->verify == TLS_VERIFY_NAME ? -EINVAL : 0;
    if (!str_copy(req->name, name, sizeof(name)) || str_chr(req->name, '\0') >= 0)
        return -EINVAL;

    /* The name is compared also when nothing depends on it: facts->verified tells. */
    struct net_addr literal;
    if (net_addr_parse_ip(req->name, &literal) == 0)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1 ? 0 : -EINVAL;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (SSL_set_tlsext_host_name(ssl, name) != 1 || SSL_set1_host(ssl, name) != 1)
        return -EINVAL;
    return 0;
}

/* ---- as a server ----------------------------------------------------------------------------- */

/* Whatever is wrong with it: SSL_get_verify_result remembers. */
static int take_any(int ok, X509_STORE_CTX *store)
{
    return 1;
}

static const struct tls_client_ca *find_client_ca(const struct tls_context *c, struct str file)
{
    for (size_t i = 0; i < c->n_client_cas; i++)
        if (str_eq(str_of(c->client_cas[i].file), file))
            return &c->client_cas[i];
    return NULL;
}

static int ask_for_certificate(SSL *ssl, const struct tls_client_ca *ca, bool required)
{
    int mode = SSL_VERIFY_PEER | (required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0);

    /* Without authorities nothing can be verified: policies know the fingerprints. */
    SSL_set_verify(ssl, mode, required && ca ? NULL : take_any);
    if (!ca)
        return 0;
    STACK_OF(X509_NAME) *names = SSL_dup_CA_list(ca->names);
    if (!names)
        return -ENOMEM;
    SSL_set_client_CA_list(ssl, names);
    return SSL_set1_verify_cert_store(ssl, ca->store) == 1 ? 0 : -ENOMEM;
}

/* A session is taken up again only where the same is asked of clients, by the same authorities: its
 * certificate was judged when it began. */
int tls_set_up_server(SSL *ssl, const struct tls_context *c, const struct tls_request *req)
{
    const struct tls_client_ca *ca = find_client_ca(c, req->client_ca);
    uint8_t id[TLS_CLIENT_CA_ID] = { 0 };

    SSL_set_accept_state(ssl);
    if (req->clients != TLS_CLIENTS_NONE) {
        if (req->client_ca.n && !ca)
            return -EINVAL; /* a reload has just taken it away */
        if (ask_for_certificate(ssl, ca, req->clients == TLS_CLIENTS_REQUIRE) < 0)
            return -ENOMEM;
        if (ca)
            memcpy(id, ca->id, sizeof(id));
    }
    id[0] ^= (uint8_t)req->clients;
    return SSL_set_session_id_context(ssl, id, sizeof(id)) == 1 ? 0 : -EINVAL;
}
