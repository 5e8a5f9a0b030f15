/* tls_context.h - the inside of struct tls_context: tls.c and tls_stream.c only. Layer: io. */
#ifndef TERN_IO_TLS_CONTEXT_H
#define TERN_IO_TLS_CONTEXT_H

#include <openssl/ssl.h>
#include <stdatomic.h>

#include "io/tls.h"

struct tls_context {
    atomic_uint refs;
    SSL_CTX *server; /* NULL: no certificate */
    SSL_CTX *client;
};

/* "TLS: no shared cipher": of the oldest error in OpenSSL's queue of this thread, which it empties;
 * dst has TLS_ERROR_TEXT bytes. Returns dst. */
const char *tls_queue_text(char *dst);

#endif
