/* explain.h - what the policies would do with a mail, and where it would go; nothing is changed (ROUTING.md Q12).
 *
 * Layer: daemon. For `tern explain`: loads nothing, opens no port and no spool, makes no connection. Asks the
 * hooks of a loaded configuration as a session would, in an engine of its own on real DNS.
 */
#ifndef TERN_DAEMON_EXPLAIN_H
#define TERN_DAEMON_EXPLAIN_H

#include <jansson.h>

#include "daemon/load.h"

struct explain_request {
    const char *from, *to; /* not with etrn */
    const char *etrn;      /* the argument of an ETRN, with '@' or '#'; NULL: a mail */
    const char *client;    /* NULL: 192.0.2.1, a stranger */
    const char *helo;      /* NULL: the client's address */
    const char *identity;  /* NULL: not authenticated */
    const char *listener;  /* as written in `listen`, or its service; NULL: the first */
    const char *content;   /* a file with the message, "-": standard input; NULL: there is none */
    bool tls;
    bool requiretls; /* MAIL says REQUIRETLS; only inside TLS */
};

/* The answer that docs/explain.md describes, the caller's; NULL with *f. */
json_t *explain(const struct loaded *l, const struct explain_request *q, struct failure *f);

#endif
