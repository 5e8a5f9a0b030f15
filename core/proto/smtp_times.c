/* smtp_times.c - the parameters of RFC 2852, 4865 and 6710. Layer: proto. Interface: smtp_times.h. */
#include "proto/smtp_times.h"

#include "base/units.h"

enum { DIGITS_MOST = 9, DAY_S = 24 * 3600 };

/* ---- numbers ---------------------------------------------------------------------------------- */

/* 1*9DIGIT, all of s. */
static bool take_number(struct str s, uint32_t *ret)
{
    uint32_t v = 0;

    if (s.n == 0 || s.n > DIGITS_MOST)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (!ascii_digit(s.p[i]))
            return false;
        v = v * 10 + (uint32_t)(s.p[i] - '0');
    }
    *ret = v;
    return true;
}

/* Exactly n digits at the start of *s, which are taken off it. */
static bool take_digits(struct str *s, size_t n, uint32_t *ret)
{
    if (s->n < n || !take_number(str_first(*s, n), ret))
        return false;
    *s = str_from(*s, n);
    return true;
}

static bool take_char(struct str *s, char c)
{
    if (s->n == 0 || ascii_lower(s->p[0]) != c)
        return false;
    *s = str_from(*s, 1);
    return true;
}

/* ---- BY --------------------------------------------------------------------------------------- */

/* by-value = ["+" / "-"] 1*9DIGIT ";" ("N" / "R") ["T"]. To be returned before it has come is no wish. */
static int take_by(struct str value, struct smtp_by *ret)
{
    struct smtp_by by = { .mode = SMTP_BY_NONE };
    struct str time;
    uint32_t seconds;

    if (ret->mode != SMTP_BY_NONE || str_chr(value, ';') < 0 || !str_cut(&value, ';', &time))
        return -EINVAL;
    bool minus = time.n && time.p[0] == '-';
    if (minus || (time.n && time.p[0] == '+'))
        time = str_from(time, 1);
    if (!take_number(time, &seconds))
        return -EINVAL;
    by.seconds = minus ? -(int32_t)seconds : (int32_t)seconds;
    if (take_char(&value, 'n'))
        by.mode = SMTP_BY_NOTIFY;
    else if (take_char(&value, 'r'))
        by.mode = SMTP_BY_RETURN;
    else
        return -EINVAL;
    by.trace = take_char(&value, 't');
    if (value.n || (by.mode == SMTP_BY_RETURN && by.seconds <= 0))
        return -EINVAL;
    *ret = by;
    return 0;
}

void smtp_by_write(const struct smtp_by *by, struct buf *out)
{
    if (by->mode == SMTP_BY_NONE)
        return;
    buf_printf(out, " BY=%ld;%c%s", (long)by->seconds, by->mode == SMTP_BY_RETURN ? 'R' : 'N',
               by->trace ? "T" : "");
}

/* ---- HOLDFOR, HOLDUNTIL ------------------------------------------------------------------------ */

static bool leaps(uint32_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* Days since 1970-01-01, of a date that there is; -1: there is none. */
static int64_t days_of(uint32_t year, uint32_t month, uint32_t day)
{
    static const uint8_t length[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    static const uint16_t before[] = { 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334 };

    if (year < 1970 || month < 1 || month > 12 || day < 1 ||
        day > length[month - 1] + (uint32_t)(month == 2 && leaps(year)))
        return -1;
    uint32_t y = year - 1; /* whole years behind us */
    int64_t leap_days = (int64_t)(y / 4 - y / 100 + y / 400) - (1969 / 4 - 1969 / 100 + 1969 / 400);
    return (int64_t)(year - 1970) * 365 + leap_days + before[month - 1] +
           (month > 2 && leaps(year)) + day - 1;
}

/* "Z", or "+01:00": seconds to be taken off. */
static bool take_zone(struct str *s, int64_t *ret)
{
    uint32_t hours, minutes;

    *ret = 0;
    if (take_char(s, 'z'))
        return true;
    bool minus = take_char(s, '-');
    if ((!minus && !take_char(s, '+')) || !take_digits(s, 2, &hours) || !take_char(s, ':') ||
        !take_digits(s, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    *ret = (int64_t)(hours * 3600 + minutes * 60) * (minus ? -1 : 1);
    return true;
}

/* time-secfrac = "." 1*DIGIT. What is less than a millisecond does not count. */
static bool take_fraction(struct str *s, uint32_t *ret_ms)
{
    uint32_t weight = 100;

    *ret_ms = 0;
    if (!take_char(s, '.'))
        return true;
    if (s->n == 0 || !ascii_digit(s->p[0]))
        return false;
    for (; s->n && ascii_digit(s->p[0]); *s = str_from(*s, 1), weight /= 10)
        *ret_ms += (uint32_t)(s->p[0] - '0') * weight;
    return true;
}

int smtp_date_time_parse(struct str s, int64_t *ret_ms)
{
    uint32_t year, month, day, hour, minute, second, ms;
    int64_t zone;

    if (!take_digits(&s, 4, &year) || !take_char(&s, '-') || !take_digits(&s, 2, &month) ||
        !take_char(&s, '-') || !take_digits(&s, 2, &day) || !take_char(&s, 't') ||
        !take_digits(&s, 2, &hour) || !take_char(&s, ':') || !take_digits(&s, 2, &minute) ||
        !take_char(&s, ':') || !take_digits(&s, 2, &second) || !take_fraction(&s, &ms) ||
        !take_zone(&s, &zone) || s.n)
        return -EINVAL;
    int64_t days = days_of(year, month, day);
    if (days < 0 || hour > 23 || minute > 59 || second > 60) /* 60: a leap second */
        return -EINVAL;
    int64_t at = days * DAY_S + (int64_t)(hour * 3600 + minute * 60 + second) - zone;
    *ret_ms = at * 1000 + ms;
    return 0;
}

const char *smtp_date_time_text(int64_t ms, char *dst)
{
    char text[SMTP_DATE_TIME_TEXT];
    size_t n = sizeof("2026-12-01T07:30:00") - 1;

    date_iso8601(ms, text);
    memcpy(dst, text, n);
    memcpy(dst + n, "Z", 2);
    return dst;
}

static int take_hold(struct str value, bool until, struct smtp_times *ret)
{
    if (ret->hold)
        return -EINVAL;
    if (until && smtp_date_time_parse(value, &ret->hold_until_ms) < 0)
        return -EINVAL;
    if (!until && (value.n == 0 || value.p[0] == '0' || !take_number(value, &ret->hold_s)))
        return -EINVAL; /* no zero in front, and not 0: %x31-39 *8DIGIT */
    ret->hold = true;
    return 0;
}

/* ---- MT-PRIORITY ------------------------------------------------------------------------------- */

/* priority-value = (["-"] NZDIGIT) / "0" */
static int take_priority(struct str value, struct smtp_times *ret)
{
    bool minus = value.n && value.p[0] == '-';

    if (minus)
        value = str_from(value, 1);
    if (ret->prioritized || value.n != 1 || !ascii_digit(value.p[0]) ||
        (minus && value.p[0] == '0'))
        return -EINVAL;
    ret->prioritized = true;
    ret->priority = (int8_t)(minus ? '0' - value.p[0] : value.p[0] - '0');
    return 0;
}

void smtp_priority_write(int priority, struct buf *out)
{
    buf_printf(out, " MT-PRIORITY=%d", priority);
}

/* ---- all of them ------------------------------------------------------------------------------- */

int smtp_times_param(struct str keyword, struct str value, unsigned offered, struct smtp_times *ret)
{
    if ((offered & SMTP_TIMES_BY) && str_caseeq(keyword, STR("BY")))
        return take_by(value, &ret->by);
    if ((offered & SMTP_TIMES_HOLD) && str_caseeq(keyword, STR("HOLDFOR")))
        return take_hold(value, false, ret);
    if ((offered & SMTP_TIMES_HOLD) && str_caseeq(keyword, STR("HOLDUNTIL")))
        return take_hold(value, true, ret);
    if ((offered & SMTP_TIMES_PRIORITY) && str_caseeq(keyword, STR("MT-PRIORITY")))
        return take_priority(value, ret);
    return -ENOENT;
}
