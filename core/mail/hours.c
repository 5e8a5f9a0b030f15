/* hours.c - parts of the day. Layer: mail. Interface: hours.h. */
#include "mail/hours.h"

#include <stdio.h>

enum { MINUTES = 24 * 60 };
#define MINUTE_MS INT64_C(60000)
#define DAY_MS    (MINUTES * MINUTE_MS)

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : -1;
}

/* "HH:MM" in minutes; <0: it is none. */
static int minutes_of(struct str s)
{
    if (s.n != 5 || s.p[2] != ':')
        return -1;
    int a = digit(s.p[0]), b = digit(s.p[1]), c = digit(s.p[3]), d = digit(s.p[4]);
    if (a < 0 || b < 0 || c < 0 || c > 5 || d < 0)
        return -1;
    int minutes = (a * 10 + b) * 60 + c * 10 + d;
    return minutes <= MINUTES ? minutes : -1;
}

int hours_parse(struct str s, struct hours *ret)
{
    struct str from;
    if (!str_cut(&s, '-', &from))
        return -EINVAL;
    int a = minutes_of(str_trim(from)), b = minutes_of(str_trim(s));
    if (a < 0 || b < 0)
        return -EINVAL;
    struct hours h = { (uint16_t)a, (uint16_t)b };
    if (a == b || !hours_valid(&h))
        return -EINVAL;
    *ret = h;
    return 0;
}

bool hours_valid(const struct hours *h)
{
    return !hours_given(h) || (h->from < MINUTES && h->to <= MINUTES && h->from != h->to);
}

const char *hours_text(const struct hours *h, char dst[HOURS_TEXT])
{
    snprintf(dst, HOURS_TEXT, "%02u:%02u-%02u:%02u", h->from / 60u % 100, h->from % 60u,
             h->to / 60u % 100, h->to % 60u);
    return dst;
}

int64_t hours_begin(const struct hours *h, int64_t local_ms)
{
    if (!hours_given(h))
        return local_ms;
    int64_t at = local_ms % DAY_MS; /* of the day */
    if (at < 0)
        at += DAY_MS;
    int64_t from = h->from * MINUTE_MS, to = h->to * MINUTE_MS;
    bool within = from < to ? at >= from && at < to : at >= from || at < to;
    if (within)
        return local_ms;
    return local_ms - at + from + (at > from ? DAY_MS : 0);
}
