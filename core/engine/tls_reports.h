/* tls_reports.h - keeps the counts of TLS-RPT (RFC 8460): of each UTC day and domain, in the spool.
 *
 * Layer: engine. Counting is in memory and never waits. What was counted goes to the spool TLS_REPORTS_WRITE_MS later,
 * under the name TLS_REPORTS_KV: each worker writes rows of its own ("2026-11-30 example.com 0": day, domain, worker; the
 * value is mail/tls_report.h's), so none needs a lock, and whoever reads adds them up. A row is read, added to and
 * written only when it is written, so that this costs memory only for domains of the last half minute. A crash loses
 * what was counted since; an orderly stop loses nothing. (A domain that turns out to be one too many goes to the
 * others then, and is written with them, that time later once more.)
 *
 * Bounded: TLS_REPORTS_DOMAINS of a worker in a day, and TLS_REPORTS_PENDING not written yet; others are counted
 * together, under the domain "*". Rows end TLS_REPORTS_DAYS after their day, or earlier when there are more than
 * TLS_REPORTS_KEPT: the oldest first.
 */
#ifndef TERN_ENGINE_TLS_REPORTS_H
#define TERN_ENGINE_TLS_REPORTS_H

#include "engine/engine.h"
#include "mail/tls_report.h"

enum {
    TLS_REPORTS_WRITE_MS = 30000,
    TLS_REPORTS_DOMAINS = 10000,
    TLS_REPORTS_PENDING = 2048,
    TLS_REPORTS_DAYS = 30,
    TLS_REPORTS_KEPT = 200000,
};
#define TLS_REPORTS_KV    "tern:tls-report"
#define TLS_REPORTS_OTHER "*"

struct tls_reports *tls_reports_new(struct engine *e);
struct tls_reports *tls_reports_free(struct tls_reports *all); /* returns NULL; NULL is fine */

/* One session with an MX of that domain (A-labels, lower case), now. */
void tls_reports_count(struct engine *e, struct str domain, const struct tls_policy *p,
                       const struct tls_session *s);

/* Everything that was counted until now is to be in the spool: done comes on a later turn, when it is or could not be
 * written. The engine ends: done does not come. */
struct tls_reports_flush {
    struct list link;
    void (*done)(struct tls_reports_flush *f);
};
void tls_reports_flush(struct engine *e, struct tls_reports_flush *f);

/* Writes at once from now on. */
void tls_reports_stop(struct tls_reports *all);
/* Something is not in the spool yet. */
bool tls_reports_pending(const struct tls_reports *all);

/* Parts of a row's key. False: it is none. */
struct tls_reports_key {
    struct str day, domain; /* "2026-11-30"; TLS_REPORTS_OTHER: others */
};
bool tls_reports_key_take(struct str key, struct tls_reports_key *ret);

#endif
