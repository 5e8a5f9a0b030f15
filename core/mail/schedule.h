/* schedule.h - when to try again (RFC 5321 §4.5.4.1).
 *
 * Layer: mail. A schedule is a value: "1m,5m,15m*4,1h,2h..." - each step is a delay after an attempt,
 * '*n' repeats it, a final "..." repeats the last for ever (the default, also when it is not written).
 */
#ifndef TERN_MAIL_SCHEDULE_H
#define TERN_MAIL_SCHEDULE_H

#include "base/err.h"
#include "base/str.h"

enum { SCHEDULE_MAX_STEPS = 16 };

struct schedule {
    uint8_t n; /* 0: none given (the default applies) */
    struct {
        uint32_t seconds;
        uint16_t times;
    } step[SCHEDULE_MAX_STEPS];
};

#define SCHEDULE_DEFAULT_TEXT "1m,5m,15m,30m,1h,2h..."
int schedule_parse(struct str s, struct schedule *ret); /* -EINVAL; steps of 1 s to 30 d */
const char *schedule_text(const struct schedule *s, char *dst, size_t size);
/* Delay in ms after the attempt-th attempt (from 1), without jitter. */
int64_t schedule_delay(const struct schedule *s, uint32_t attempt);
int64_t schedule_longest(const struct schedule *s); /* of these */
/* The same, moved by up to -10%..+10% by `random`. */
int64_t schedule_delay_jitter(const struct schedule *s, uint32_t attempt, uint64_t random);
/* The same, at most `most`: where the schedule says more, down to a tenth less than that. So those that have come to it
 * do not all go at the same moment. */
int64_t schedule_delay_most(const struct schedule *s, uint32_t attempt, int64_t most,
                            uint64_t random);
/* What somebody else has dictated, to many who would all go at that moment: never less, up to a tenth more. The same
 * key has the same part of it each time. */
int64_t schedule_spread(int64_t wait_ms, uint64_t key);

#endif
