/* tls_report_json.h - one domain's day as the report of RFC 8460 §4.4.
 *
 * Layer: daemon. Pure: no clock, no I/O.
 */
#ifndef TERN_DAEMON_TLS_REPORT_JSON_H
#define TERN_DAEMON_TLS_REPORT_JSON_H

#include <jansson.h>

#include "mail/tls_report.h"

/* "2026-11-30": a day that there is. */
bool tls_report_day(struct str day);
/* hostname: ours, the submitter. NULL: out of memory. */
json_t *tls_report_json(const struct tls_report *r, struct str day, struct str domain,
                        struct str hostname);

#endif
