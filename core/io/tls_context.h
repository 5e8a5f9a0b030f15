/* tls_context.h - the inside of struct tls_context: the tls*.c only. Layer: io. */
#ifndef TERN_IO_TLS_CONTEXT_H
#define TERN_IO_TLS_CONTEXT_H

#include <openssl/ssl.h>
#include <stdatomic.h>

#include "engine/ports.h"
#include "io/tls.h"

struct tls_tickets;
struct tls_certificate;
struct tls_name;

enum { TLS_CLIENT_CA_ID = 32 }; /* SHA-256 */

/* A file of authorities for clients. */
struct tls_client_ca {
    char *file;
    X509_STORE *store;
    STACK_OF(X509_NAME) * names;
    uint8_t
        id[TLS_CLIENT_CA_ID]; /* of its content: sessions that began under another do not count */
};

struct tls_context {
    atomic_uint refs;
    SSL_CTX *server; /* NULL: no certificate */
    SSL_CTX *client;
    struct tls_tickets *tickets;
    struct tls_certificate **certificates; /* the first is the default */
    size_t n_certificates;
    struct tls_certificate **own; /* for hosts: chosen by the name of the file */
    size_t n_own;
    struct tls_name *names; /* a table */
    struct tls_client_ca *client_cas;
    size_t n_client_cas;
};

/* "TLS: no shared cipher": of the oldest error in OpenSSL's queue of this thread, which it empties;
 * dst has TLS_ERROR_TEXT bytes. Returns dst. */
const char *tls_queue_text(char *dst);
/* "tls.cert /etc/x.pem: No such file or directory" to error; -ENOENT or -EINVAL. Empties the queue. */
int tls_complain(char *error, const char *where, const char *key, const char *file);

/* ---- tls_request.c: how a handshake is set up ---- */

/* 0, -EINVAL, -ENOMEM. */
/* -ENOENT: the certificate that is to be shown is none of the context's. */
int tls_set_up_client(SSL *ssl, const struct tls_context *c,
                      const struct tls_request *req) MUST_USE;
int tls_set_up_server(SSL *ssl, const struct tls_context *c,
                      const struct tls_request *req) MUST_USE;

/* ---- tls_facts.c ---- */

/* Of a handshake that is done. What the facts point to is in *room: buf_done. */
void tls_facts_of(SSL *ssl, struct buf *room, struct tls_facts *ret);

/* ---- tls_stream.c ---- */

/* SSL_CTX_sess_set_new_cb of the client's side: a session that can be taken up again. */
int tls_new_session(SSL *ssl, SSL_SESSION *session);

#endif
