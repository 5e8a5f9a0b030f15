/* rate.h - how often something may happen, as operators write it: "100/m", "5/10s,burst=20".
 *
 * Layer: mail. A value. Of tern.limit, of routes, of source addresses.
 */
#ifndef TERN_MAIL_RATE_H
#define TERN_MAIL_RATE_H

#include "base/err.h"
#include "base/str.h"

/* count in each period, burst of them at once. */
struct rate {
    uint32_t count; /* 0: there is no rate */
    uint32_t burst; /* 0: not said; what that means is the user's to say */
    int64_t period_ms;
};

enum { RATE_TEXT = 64 };

/* "100/m", "5/10s,burst=20", "1000/d": per s, m, h, d or a duration. -EINVAL. */
int rate_parse(struct str text, struct rate *ret);
/* No rate at all, or one that rate_parse could have given. */
bool rate_valid(const struct rate *r);
/* As it could have been written. dst: RATE_TEXT bytes. */
const char *rate_text(const struct rate *r, char *dst);

#endif
