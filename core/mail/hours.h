/* hours.h - a part of the day: "22:00-06:00".
 *
 * Layer: mail. A value, in minutes of local time. It may go over midnight. Whoever asks brings local time:
 * milliseconds since 1970 UTC plus what the clock on the wall is ahead of UTC.
 */
#ifndef TERN_MAIL_HOURS_H
#define TERN_MAIL_HOURS_H

#include "base/err.h"
#include "base/str.h"

struct hours {
    uint16_t from,
        to; /* minutes from midnight; from 0..1439, to 1..1440 and not from; both 0: none given */
};

enum { HOURS_TEXT = 12 };

static inline bool hours_given(const struct hours *h)
{
    return h->from || h->to;
}

int hours_parse(struct str s, struct hours *ret); /* "HH:MM-HH:MM", to 24:00. -EINVAL */
bool hours_valid(const struct hours *h);          /* none given is valid */
const char *hours_text(const struct hours *h, char dst[HOURS_TEXT]);
/* The first moment from local_ms on that lies in them: local_ms itself when it does, or when none are given. */
int64_t hours_begin(const struct hours *h, int64_t local_ms);

#endif
