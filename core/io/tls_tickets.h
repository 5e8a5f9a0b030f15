/* tls_tickets.h - the keys of session tickets: shared by all workers, and by contexts that follow one another.
 *
 * Layer: io. Thread-safe, reference counted. A key seals tickets for TLS_TICKET_ROTATE_S seconds and opens
 * them for TLS_TICKET_LIFE_S more; then it is wiped. The memory is fixed. Keys are never written anywhere: a
 * restart ends all sessions.
 */
#ifndef TERN_IO_TLS_TICKETS_H
#define TERN_IO_TLS_TICKETS_H

#include <openssl/ssl.h>

#include "base/err.h"

struct tls_tickets;

enum {
    TLS_TICKET_ROTATE_S = 3600,
    TLS_TICKET_LIFE_S = 7200, /* how long a session can be taken up again */
    TLS_TICKET_NAME = 16,
};

struct tls_ticket_key {
    uint8_t name[TLS_TICKET_NAME];
    uint8_t aes[32], mac[32];
    int64_t since_s; /* when it began to seal; INT64_MIN: the place is free */
};

struct tls_tickets *tls_tickets_new(void); /* NULL: out of memory */
struct tls_tickets *tls_tickets_ref(struct tls_tickets *t);
struct tls_tickets *tls_tickets_unref(struct tls_tickets *t); /* returns NULL; NULL is fine */

/* A copy of the key that seals now; false: no randomness. now_s: any clock that only goes forward. */
bool tls_tickets_seal(struct tls_tickets *t, int64_t now_s, struct tls_ticket_key *ret);
/* A copy of the key of that name, if it still opens. 1; 2: but a new ticket is due; 0: none. */
int tls_tickets_open(struct tls_tickets *t, int64_t now_s, const uint8_t *name,
                     struct tls_ticket_key *ret);

/* Makes a server's context use them. It must not outlive t. -EINVAL. */
int tls_tickets_use(SSL_CTX *ctx, struct tls_tickets *t) MUST_USE;

#endif
