/* rate.c - rates as text. See rate.h. */
#include "mail/rate.h"

#include <stdio.h>

#include "base/units.h"

enum { MAX_COUNT = 1000000000 };

static int parse_count(struct str s, uint32_t *ret)
{
    uint64_t n;

    if (str_to_u64(s, &n) < 0 || n < 1 || n > MAX_COUNT)
        return -EINVAL;
    *ret = (uint32_t)n;
    return 0;
}

static int parse_period(struct str s, int64_t *ret_ms)
{
    char text[24];

    if (s.n == 0 || s.n > sizeof(text) - 2)
        return -EINVAL;
    bool bare = s.p[0] < '0' || s.p[0] > '9'; /* "m" is "1m" */
    text[0] = '1';
    memcpy(text + bare, s.p, s.n);
    return duration_parse(str_make(text, s.n + bare), ret_ms) < 0 || *ret_ms < 1 ? -EINVAL : 0;
}

bool rate_valid(const struct rate *r)
{
    if (r->count == 0)
        return r->burst == 0 && r->period_ms == 0;
    /* A whole bucket must be a time that can be counted in nanoseconds: at most some years. */
    return r->count <= MAX_COUNT && r->burst <= MAX_COUNT && r->period_ms >= 1 &&
           r->period_ms <= INT64_C(100) * 366 * 86400 * 1000 / (r->burst ? r->burst : r->count);
}

int rate_parse(struct str text, struct rate *ret)
{
    struct rate r = { 0 };
    struct str rest = text, count, period;

    if (!str_cut(&rest, '/', &count) || !str_cut(&rest, ',', &period) ||
        parse_count(count, &r.count) < 0)
        return -EINVAL;
    if (rest.p && (!str_starts(rest, STR("burst=")) ||
                   parse_count(str_from(rest, strlen("burst=")), &r.burst) < 0))
        return -EINVAL;
    if (parse_period(period, &r.period_ms) < 0 || !rate_valid(&r))
        return -EINVAL;
    *ret = r;
    return 0;
}

const char *rate_text(const struct rate *r, char *dst)
{
    static const struct {
        int64_t ms;
        const char *name;
    } units[] = { { 86400000, "d" }, { 3600000, "h" }, { 60000, "m" }, { 1000, "s" } };
    char period[32] = "", burst[24] = "";

    for (size_t i = 0; i < ARRAY_LEN(units) && !*period; i++)
        if (r->period_ms == units[i].ms)
            str_copy(str_of(units[i].name), period, sizeof(period));
        else if (r->period_ms % units[i].ms == 0)
            snprintf(period, sizeof(period), "%lld%s", (long long)(r->period_ms / units[i].ms),
                     units[i].name);
    if (!*period)
        snprintf(period, sizeof(period), "%lldms", (long long)r->period_ms);
    if (r->burst)
        snprintf(burst, sizeof(burst), ",burst=%u", r->burst);
    snprintf(dst, RATE_TEXT, "%u/%s%s", r->count, period, burst);
    return dst;
}
