/* sink.h - a mail server that takes everything, for tests, demonstrations and benchmarks.
 *
 * Layer: daemon. proto/smtp_server on one io loop; no spool, no policies, no engine. Everything is bounded:
 * sessions, the size of a message, what is kept of it.
 */
#ifndef TERN_DAEMON_SINK_H
#define TERN_DAEMON_SINK_H

#include "daemon/failure.h"
#include "io/listener.h"
#include "io/tls.h"

enum sink_print { SINK_PRINT_SUMMARY, SINK_PRINT_FULL, SINK_PRINT_NONE };
enum { SINK_REJECTS = 64, SINK_LISTENERS = 64 };

struct sink_reject {
    struct str recipient; /* a whole address, or "@domain" */
    uint16_t code;        /* 400..599 */
};

struct sink_options {
    struct str hostname;
    struct listen_settings listen[SINK_LISTENERS];
    size_t n_listen;
    enum sink_print print;
    bool json;      /* summaries as JSON lines */
    struct str dir; /* each message becomes a file here; empty: none does */
    struct sink_reject reject[SINK_REJECTS];
    size_t n_reject;
    uint64_t max_size;
    struct tls_context *tls; /* STARTTLS; NULL: not offered */
    struct net_addr dns;     /* answers DNS questions there, too; NET_NONE: does not */
    const char *zone;        /* file of what it answers */
};

struct sink;

/* Listens. The options live as long. -1 with *f. */
int sink_new(const struct sink_options *o, struct sink **ret, struct failure *f) MUST_USE;
/* Until SIGINT or SIGTERM. */
void sink_run(struct sink *s);
struct sink *sink_free(struct sink *s);

/* "user@example.com=550", "@example.com=451". False: it is no such thing. The texts stay where they are. */
bool sink_reject_parse(const char *text, struct sink_reject *ret);

#endif
