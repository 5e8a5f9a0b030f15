/* tls_certificate.h - one certificate of ours with its key, and the table of names that they are for.
 *
 * Layer: io. Inside of tls.h: tls.c and tls_certificate.c only. Read once, at a load of the configuration;
 * not changed afterwards, so all threads may look.
 */
#ifndef TERN_IO_TLS_CERTIFICATE_H
#define TERN_IO_TLS_CERTIFICATE_H

#include <openssl/ssl.h>

#include "base/buf.h"
#include "base/table.h"
#include "io/tls.h"

enum { TLS_KEY_TYPES = 5, TLS_NAME_MAX = 253 };

struct tls_certificate {
    X509 *cert;
    STACK_OF(X509) * chain; /* without it */
    EVP_PKEY *key;
    int type;     /* of the key: below TLS_KEY_TYPES */
    char **names; /* lower case */
    size_t n_names;
    char *file;
    char *place;     /* of one for hosts; NULL: of a listener */
    struct buf text; /* of info */
    struct tls_certificate_info info;
};

/* The table borrows from the certificates. */
struct tls_name {
    UT_hash_handle hh;
    const char *name; /* "mx.example.org", "*.example.org" */
    struct tls_certificate *by_type[TLS_KEY_TYPES];
};

/* cert, key, names, where, error: as for tls_context_add. key_of_cert: how the configuration calls the file of the
 * certificate: "cert", "certificate". */
int tls_certificate_load(const char *where, const char *key_of_cert, struct str cert,
                         struct str key, const struct str *names, size_t n_names,
                         struct tls_certificate **ret, char *error) MUST_USE;
struct tls_certificate *tls_certificate_free(struct tls_certificate *c);

int tls_names_add(struct tls_context *c, struct tls_certificate *cert) MUST_USE; /* -ENOMEM */
void tls_names_free(struct tls_context *c);

/* What every handshake begins with: the default, and those that go with it. -EINVAL. */
int tls_certificates_set_default(struct tls_context *c) MUST_USE;
/* Callbacks of SSL_CTX_set_cert_cb and SSL_CTX_set_tlsext_servername_callback; arg: the context. */
int tls_certificates_choose(SSL *ssl, void *arg);
int tls_certificates_acknowledge(SSL *ssl, int *alert, void *arg);

#endif
