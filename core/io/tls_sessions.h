/* tls_sessions.h - TLS sessions with hosts, to be taken up again by the next connection: of one worker.
 *
 * Layer: io. A session is known by all that it was begun for: the address and port of the host, our own
 * address, the name asked for, how the certificate was judged, the TLSA records, and our own certificate. A connection for which
 * any of these differs begins anew, so what one policy found good enough is never taken for another's. A
 * session is taken out when it is tried: one that fails is not tried again, and a ticket of TLS 1.3 is used
 * once (RFC 8446 §C.4). Bounded: TLS_SESSIONS_MAX keys, TLS_SESSIONS_EACH sessions for each, none older than
 * TLS_SESSIONS_AGE_S or than its host allows.
 */
#ifndef TERN_IO_TLS_SESSIONS_H
#define TERN_IO_TLS_SESSIONS_H

#include <openssl/ssl.h>

#include "engine/ports.h"

enum {
    TLS_SESSIONS_MAX = 512,
    TLS_SESSIONS_EACH = 4,
    TLS_SESSIONS_AGE_S = 3600,
    TLS_SESSIONS_KEY = 32,
};

struct tls_sessions;

struct tls_sessions *tls_sessions_new(void); /* NULL: out of memory */
struct tls_sessions *tls_sessions_free(struct tls_sessions *c);
/* Forgets all: other authorities are trusted from now on. */
void tls_sessions_clear(struct tls_sessions *c);
size_t tls_sessions_count(const struct tls_sessions *c); /* keys */

/* False: none can be made. */
bool tls_sessions_key(const struct net_addr *local, const struct net_addr *peer,
                      const struct tls_request *req, uint8_t *ret);
/* Takes the reference of the session over. now_s: seconds since 1970. */
void tls_sessions_put(struct tls_sessions *c, const uint8_t *key, SSL_SESSION *session,
                      int64_t now_s);
/* The newest, with its reference, or NULL. */
SSL_SESSION *tls_sessions_take(struct tls_sessions *c, const uint8_t *key, int64_t now_s);

#endif
