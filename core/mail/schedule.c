/* schedule.c - when to try again.
 *
 * Layer: mail. Interface: schedule.h. The last step repeats for ever whatever was written, so its
 * `times` is always 1 and equal schedules have equal values.
 */
#include "mail/schedule.h"

#include <stdio.h>

#include "base/units.h"

enum { MAX_STEP = 30 * 24 * 3600 };

/* SCHEDULE_DEFAULT_TEXT; a test holds the two together. */
static const struct schedule default_schedule = {
    .n = 6,
    .step = { { 60, 1 }, { 300, 1 }, { 900, 1 }, { 1800, 1 }, { 3600, 1 }, { 7200, 1 } },
};

/* "15m*4" */
static int parse_step(struct str s, uint32_t *ret_seconds, uint16_t *ret_times)
{
    ptrdiff_t star = str_chr(s, '*');
    uint64_t times = 1;
    int64_t ms;

    if (star >= 0) {
        if (str_to_u64(str_trim(str_from(s, (size_t)star + 1)), &times) < 0 || times < 1 ||
            times > UINT16_MAX)
            return -EINVAL;
        s = str_trim(str_first(s, (size_t)star));
    }
    if (duration_parse(s, &ms) < 0 || ms < 1000 || ms > (int64_t)MAX_STEP * 1000 || ms % 1000)
        return -EINVAL;
    *ret_seconds = (uint32_t)(ms / 1000);
    *ret_times = (uint16_t)times;
    return 0;
}

int schedule_parse(struct str s, struct schedule *ret)
{
    struct schedule made = { 0 };
    struct str item;

    s = str_trim(s);
    if (str_ends(s, STR("...")))
        s.n -= 3;
    if (str_empty(s))
        return -EINVAL;
    while (str_cut(&s, ',', &item)) {
        if (made.n == SCHEDULE_MAX_STEPS)
            return -EINVAL;
        if (parse_step(str_trim(item), &made.step[made.n].seconds, &made.step[made.n].times) < 0)
            return -EINVAL;
        made.n++;
    }
    made.step[made.n - 1].times = 1;
    *ret = made;
    return 0;
}

static size_t step_text(char *dst, size_t size, uint32_t seconds, uint16_t times)
{
    static const struct {
        uint32_t seconds;
        char unit;
    } units[] = { { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' }, { 1, 's' } };
    size_t u = 0;

    while (seconds % units[u].seconds)
        u++;
    int n = snprintf(dst, size, "%u%c", (unsigned)(seconds / units[u].seconds), units[u].unit);
    if (times > 1 && n > 0 && (size_t)n < size)
        n += snprintf(dst + n, size - (size_t)n, "*%u", (unsigned)times);
    return n > 0 ? (size_t)n : 0;
}

const char *schedule_text(const struct schedule *s, char *dst, size_t size)
{
    char text[SCHEDULE_MAX_STEPS * 24 + 4];
    size_t n = 0;

    for (size_t i = 0; i < s->n && i < SCHEDULE_MAX_STEPS; i++) {
        if (i)
            text[n++] = ',';
        n += step_text(text + n, 24, s->step[i].seconds, s->step[i].times);
    }
    if (n) {
        memcpy(text + n, "...", 3);
        n += 3;
    }
    str_copy(str_make(text, n), dst, size);
    return dst;
}

int64_t schedule_delay(const struct schedule *s, uint32_t attempt)
{
    if (s->n == 0)
        s = &default_schedule;

    size_t i = 0;
    uint32_t left = attempt ? attempt - 1 : 0;
    while (i + 1u < s->n && left >= s->step[i].times)
        left -= s->step[i++].times;
    return (int64_t)s->step[i].seconds * 1000;
}

int64_t schedule_longest(const struct schedule *s)
{
    int64_t most = 0;
    if (s->n == 0)
        s = &default_schedule;
    for (size_t i = 0; i < s->n; i++)
        most = MAX(most, (int64_t)s->step[i].seconds * 1000);
    return most;
}

int64_t schedule_delay_most(const struct schedule *s, uint32_t attempt, int64_t most,
                            uint64_t random)
{
    if (schedule_delay(s, attempt) < most)
        return MIN(schedule_delay_jitter(s, attempt, random), most);
    return most - (int64_t)(random % ((uint64_t)MAX(most, INT64_C(0)) / 10 + 1));
}

int64_t schedule_spread(int64_t wait_ms, uint64_t key)
{
    if (wait_ms <= 0)
        return wait_ms;
    return wait_ms + (int64_t)(key % ((uint64_t)wait_ms / 10 + 1));
}

int64_t schedule_delay_jitter(const struct schedule *s, uint32_t attempt, uint64_t random)
{
    int64_t delay = schedule_delay(s, attempt);
    uint64_t tenth = (uint64_t)delay / 10;

    return delay - (int64_t)tenth + (int64_t)(random % (2 * tenth + 1));
}
