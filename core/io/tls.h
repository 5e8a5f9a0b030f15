/* tls.h - certificates and trust: what handshakes of all workers share.
 *
 * Layer: io. A context is immutable, reference counted (atomically) and shared by all threads.
 * It is replaced as a whole at a reload: new handshakes take the new one. TLS 1.2 and later, no
 * renegotiation, no compression (RFC 8996, RFC 7525). The streams themselves are in net.h.
 */
#ifndef TERN_IO_TLS_H
#define TERN_IO_TLS_H

#include "base/err.h"
#include "base/str.h"

struct tls_context;

enum { TLS_ERROR_TEXT = 256 };

/* cert, key: PEM files, the certificate first, then its chain; empty cert: no incoming TLS.
 * Empty key: it is in the file of the certificate. ca: PEM file of trusted roots; empty: the
 * system's. -ENOENT (a file cannot be read), -EINVAL (its content), -ENOMEM; then `error`
 * (TLS_ERROR_TEXT bytes) says what is wrong with which file. */
int tls_context_new(struct str cert, struct str key, struct str ca, struct tls_context **ret,
                    char *error) MUST_USE;
/* Before the context is shared: clients are asked for a certificate in handshakes with them. One that none of
 * the authorities in the PEM file has signed, or none at all, ends nothing: facts.verified tells. Errors as
 * above; -EINVAL without a certificate of our own. */
int tls_context_ask_clients(struct tls_context *c, struct str ca, char *error) MUST_USE;
struct tls_context *tls_context_ref(struct tls_context *c);
struct tls_context *tls_context_unref(struct tls_context *c); /* returns NULL; NULL is fine */
/* There is a certificate for incoming connections. */
bool tls_context_serves(const struct tls_context *c);

#endif
