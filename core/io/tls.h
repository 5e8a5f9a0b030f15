/* tls.h - certificates and trust: what handshakes of all workers share.
 *
 * Layer: io. A context is reference counted (atomically), shared by all threads, and not changed once it is
 * shared. It is replaced as a whole at a reload: new handshakes take the new one. TLS 1.2 and later, no
 * renegotiation, no compression, no early data (RFC 8996, RFC 9325). The streams themselves are in net.h.
 *
 * Certificates are chosen by the name that the client asks for (SNI): first those that have this very name,
 * then those with "*." in the place of its first label, then the default, which is the first that was given.
 * Several for the same name may have keys of different types (RSA, ECDSA): the client's abilities decide.
 * Clients that ask for no name, or for one that nobody has, get the default, and with it those of other
 * key types that share a name with it.
 */
#ifndef TERN_IO_TLS_H
#define TERN_IO_TLS_H

#include "base/err.h"
#include "base/str.h"

struct tls_context;

enum { TLS_ERROR_TEXT = 512 };

/* cert, key: PEM files, the certificate first, then its chain; empty cert: none yet (see tls_context_add).
 * Empty key: it is in the file of the certificate. ca: PEM file of trusted roots; empty: the
 * system's. -ENOENT (a file cannot be read), -EINVAL (its content), -ENOMEM; then `error`
 * (TLS_ERROR_TEXT bytes) says what is wrong with which file. */
int tls_context_new(struct str cert, struct str key, struct str ca, struct tls_context **ret,
                    char *error) MUST_USE;

/* ---- before the context is shared ---- */

/* One more certificate. names: for which it is used; none: those that stand in it (DNS names of its
 * subjectAltName, else its common name). where: for the error, such as "tls.certificates[2]". */
int tls_context_add(struct tls_context *c, const char *where, struct str cert, struct str key,
                    const struct str *names, size_t n_names, char *error) MUST_USE;
/* Authorities for the certificates of clients: struct tls_request then may name that file. The same file
 * twice is fine. where: "tls" or "listen[1]". */
int tls_context_add_client_ca(struct tls_context *c, const char *where, struct str file,
                              char *error) MUST_USE;
/* A certificate that is shown to hosts: struct tls_request then may name its file. place: who names it,
 * "tern.lua:12", for its info; the error begins with "route.certificate" or "route.key". */
int tls_context_add_own(struct tls_context *c, const char *place, struct str cert, struct str key,
                        char *error) MUST_USE;
/* Tickets that the context before has given out are taken by this one, too. */
void tls_context_continue(struct tls_context *c, const struct tls_context *before);

/* ---- life ---- */

struct tls_context *tls_context_ref(struct tls_context *c);
struct tls_context *tls_context_unref(struct tls_context *c); /* returns NULL; NULL is fine */
/* There is a certificate for incoming connections. */
bool tls_context_serves(const struct tls_context *c);

/* What operators want to know of a certificate of ours. */
struct tls_certificate_info {
    struct str place; /* of one that is shown to hosts: who names it; empty: it is a listener's */
    struct str file;
    struct str names;              /* "a.example, *.b.example" */
    const char *key_type;          /* "RSA", "EC", "ED25519" */
    int64_t not_before, not_after; /* seconds since 1970 */
};
size_t tls_context_certificates(const struct tls_context *c);
/* i: below that number. Borrowed from c. */
const struct tls_certificate_info *tls_context_certificate(const struct tls_context *c, size_t i);

#endif
