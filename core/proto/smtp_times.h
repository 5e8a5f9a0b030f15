/* smtp_times.h - when, and how urgently, a sender wants its mail to go: BY of MAIL (DELIVERBY, RFC 2852), HOLDFOR and
 * HOLDUNTIL (FUTURERELEASE, RFC 4865 with erratum 2040), MT-PRIORITY (RFC 6710).
 *
 * Layer: proto. Values and their grammar; no clock: what is relative stays so.
 */
#ifndef TERN_PROTO_SMTP_TIMES_H
#define TERN_PROTO_SMTP_TIMES_H

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

enum {
    SMTP_BY_MOST = 999999999,   /* seconds, either way */
    SMTP_HOLD_MOST = 999999999, /* seconds (RFC 4865) */
    SMTP_PRIORITY_MOST = 9,     /* and -9 */
};

/* What happens to mail that is not delivered in time. */
enum smtp_by_mode {
    SMTP_BY_NONE,   /* nothing was asked for */
    SMTP_BY_NOTIFY, /* N: its sender is told, and it is tried on */
    SMTP_BY_RETURN, /* R: it is returned */
};

struct smtp_by {
    enum smtp_by_mode mode;
    bool trace;      /* T: who passes it on tells the sender */
    int32_t seconds; /* from now on; R: more than 0 */
};

struct smtp_times {
    struct smtp_by by;
    bool hold;             /* HOLDFOR or HOLDUNTIL was given */
    uint32_t hold_s;       /* HOLDFOR; 0: it was HOLDUNTIL */
    int64_t hold_until_ms; /* HOLDUNTIL: since 1970 */
    bool prioritized;      /* MT-PRIORITY was given */
    int8_t priority;
};

enum { SMTP_TIMES_BY = 1, SMTP_TIMES_HOLD = 2, SMTP_TIMES_PRIORITY = 4 };

/* Takes one parameter of MAIL; offered: SMTP_TIMES_*. 0: taken; -ENOENT: it is none of those offered; -EINVAL: its value
 * is wrong, or it was given before (HOLDFOR and HOLDUNTIL are one wish). */
int smtp_times_param(struct str keyword, struct str value, unsigned offered,
                     struct smtp_times *ret);
/* date-time of RFC 3339 §5.6, in any zone -> milliseconds since 1970. -EINVAL. */
int smtp_date_time_parse(struct str s, int64_t *ret_ms);
/* "2026-12-01T07:30:00Z", cut off to the second; dst has SMTP_DATE_TIME_TEXT bytes. Returns dst. */
enum { SMTP_DATE_TIME_TEXT = 32 };
const char *smtp_date_time_text(int64_t ms, char *dst);

/* " BY=120;RT" where something was asked for. */
void smtp_by_write(const struct smtp_by *by, struct buf *out);
/* " MT-PRIORITY=-3" */
void smtp_priority_write(int priority, struct buf *out);

#endif
