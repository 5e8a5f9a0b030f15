/* units.c - durations, sizes and dates as text.
 *
 * Layer: base. Interface: units.h. Dates are computed here, not by gmtime and strftime: those take
 * a lock and look at the locale, and a date is written several times per mail.
 */
#include "base/units.h"

#include <stdio.h>

struct unit {
    const char *name;
    uint64_t factor;
};

enum { MS_PER_SECOND = 1000, MS_PER_DAY = 86400000 };

/* Largest first: duration_text looks for the first that fits. */
static const struct unit duration_units[] = {
    { "w", 7 * (uint64_t)MS_PER_DAY },
    { "d", MS_PER_DAY },
    { "h", 3600000 },
    { "m", 60000 },
    { "s", 1000 },
    { "ms", 1 },
};

static const struct unit size_units[] = {
    { "K", 1ull << 10 },
    { "M", 1ull << 20 },
    { "G", 1ull << 30 },
    { "T", 1ull << 40 },
};

/* Splits "15m" into number and unit: 0 or what str_to_u64 says; with -ERANGE the unit is set, as
 * a wrong unit is the worse mistake. */
static int split_number(struct str s, uint64_t *ret, struct str *ret_unit)
{
    size_t digits = 0;
    int r;

    while (digits < s.n && ascii_digit(s.p[digits]))
        digits++;
    r = str_to_u64(str_first(s, digits), ret);
    if (r < 0 && r != -ERANGE)
        return r;
    *ret_unit = str_from(s, digits);
    return r;
}

int duration_parse(struct str s, int64_t *ret_ms)
{
    uint64_t number = 0, factor = 0, ms;
    struct str unit;
    int r = split_number(s, &number, &unit);

    if (r < 0 && r != -ERANGE)
        return r;
    if (unit.n == 0)
        factor = MS_PER_SECOND;
    for (size_t i = 0; i < ARRAY_LEN(duration_units); i++)
        if (str_eq(unit, str_of(duration_units[i].name)))
            factor = duration_units[i].factor;
    if (factor == 0)
        return -EINVAL;
    if (r < 0 || __builtin_mul_overflow(number, factor, &ms) || ms > INT64_MAX)
        return -ERANGE;
    *ret_ms = (int64_t)ms;
    return 0;
}

int size_parse(struct str s, uint64_t *ret_bytes)
{
    uint64_t number = 0, factor = 0, bytes;
    struct str unit;
    int r = split_number(s, &number, &unit);

    if (r < 0 && r != -ERANGE)
        return r;
    if (unit.n == 0)
        factor = 1;
    for (size_t i = 0; i < ARRAY_LEN(size_units); i++)
        if (str_caseeq(unit, str_of(size_units[i].name)))
            factor = size_units[i].factor;
    if (factor == 0)
        return -EINVAL;
    if (r < 0 || __builtin_mul_overflow(number, factor, &bytes))
        return -ERANGE;
    *ret_bytes = bytes;
    return 0;
}

const char *duration_text(int64_t ms, char *dst)
{
    enum { SIZE = 32 };
    const char *sign = ms < 0 ? "-" : "";
    uint64_t left = ms < 0 ? 0 - (uint64_t)ms : (uint64_t)ms;
    size_t i = 0;

    if (left == 0) {
        snprintf(dst, SIZE, "0s");
        return dst;
    }
    while (left < duration_units[i].factor)
        i++;

    const struct unit *u = &duration_units[i];
    uint64_t count = left / u->factor, rest = left % u->factor;
    if (u->factor == MS_PER_SECOND && rest >= 100)
        snprintf(dst, SIZE, "%s%u.%us", sign, (unsigned)count, (unsigned)rest / 100);
    else if (u->factor > MS_PER_SECOND && rest >= u[1].factor)
        snprintf(dst, SIZE, "%s%llu%s%u%s", sign, (unsigned long long)count, u->name,
                 (unsigned)(rest / u[1].factor), u[1].name);
    else
        snprintf(dst, SIZE, "%s%llu%s", sign, (unsigned long long)count, u->name);
    return dst;
}

struct date {
    unsigned year, month, day; /* 1..12, 1..31 */
    unsigned weekday;          /* 0: Sunday */
    unsigned hour, minute, second, millis;
};

/* The proleptic Gregorian calendar, in eras of 400 years that begin on the 1st of March, so that
 * the leap day is the last of its year (Howard Hinnant, "chrono-compatible low-level date
 * algorithms", civil_from_days). Times outside of the years 0000 to 9999, which the forms below
 * cannot write, become the first or last of them. */
static struct date date_from_ms(int64_t wall_ms)
{
    const int64_t first = -62167219200000, last = 253402300799999;
    /* Counted from 0000-03-01 minus one era: never negative, hence no floored divisions. */
    const uint64_t era_days = 146097, epoch = 719468 + era_days;
    uint64_t ms, days, era, doe, yoe, doy, shifted_month;
    struct date d;

    wall_ms = MIN(MAX(wall_ms, first), last);
    ms = (uint64_t)(wall_ms + (int64_t)(epoch * MS_PER_DAY));
    days = ms / MS_PER_DAY;
    ms %= MS_PER_DAY;
    era = days / era_days;
    doe = days % era_days;
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    shifted_month = (5 * doy + 2) / 153; /* 0: March */

    d.day = (unsigned)(doy - (153 * shifted_month + 2) / 5 + 1);
    d.month = (unsigned)(shifted_month < 10 ? shifted_month + 3 : shifted_month - 9);
    d.year = (unsigned)(era * 400 + yoe + (d.month <= 2) - 400);
    d.weekday = (unsigned)((days + 3) % 7); /* 0000-03-01 was a Wednesday; an era is whole weeks */
    d.hour = (unsigned)(ms / 3600000);
    d.minute = (unsigned)(ms / 60000 % 60);
    d.second = (unsigned)(ms / 1000 % 60);
    d.millis = (unsigned)(ms % 1000);
    return d;
}

/* Exactly `digits` digits, and `after`. */
static char *put_number(char *dst, unsigned v, int digits, char after)
{
    for (int i = digits; i > 0; i--, v /= 10)
        dst[i - 1] = (char)('0' + v % 10);
    dst[digits] = after;
    return dst + digits + 1;
}

const char *date_rfc5322(int64_t wall_ms, char *dst)
{
    static const char weekdays[7][6] = { "Sun, ", "Mon, ", "Tue, ", "Wed, ",
                                         "Thu, ", "Fri, ", "Sat, " };
    static const char months[12][5] = { "Jan ", "Feb ", "Mar ", "Apr ", "May ", "Jun ",
                                        "Jul ", "Aug ", "Sep ", "Oct ", "Nov ", "Dec " };
    struct date d = date_from_ms(wall_ms);
    char *p = stpcpy(dst, weekdays[d.weekday]);

    p = put_number(p, d.day, d.day < 10 ? 1 : 2, ' ');
    p = stpcpy(p, months[d.month - 1]);
    p = put_number(p, d.year, 4, ' ');
    p = put_number(p, d.hour, 2, ':');
    p = put_number(p, d.minute, 2, ':');
    p = put_number(p, d.second, 2, ' ');
    stpcpy(p, "+0000");
    return dst;
}

const char *date_iso8601(int64_t wall_ms, char *dst)
{
    struct date d = date_from_ms(wall_ms);
    char *p = put_number(dst, d.year, 4, '-');

    p = put_number(p, d.month, 2, '-');
    p = put_number(p, d.day, 2, 'T');
    p = put_number(p, d.hour, 2, ':');
    p = put_number(p, d.minute, 2, ':');
    p = put_number(p, d.second, 2, '.');
    p = put_number(p, d.millis, 3, 'Z');
    *p = '\0';
    return dst;
}
