/* limits.h - how often something may happen (tern.limit): token buckets shared by all workers.
 *
 * Layer: engine. One table for the process, in memory, of fixed size; calls come from any thread. A bucket is
 * one point in time (GCRA): when it will be full again. One that is full needs no memory, so only what is in
 * use counts. When too many are in use at once, the one that is nearest to full is forgotten: a limit can
 * then let more through than it should, never less.
 */
#ifndef TERN_ENGINE_LIMITS_H
#define TERN_ENGINE_LIMITS_H

#include "base/err.h"
#include "base/str.h"
#include "mail/rate.h"

struct limits;

/* A rate as text; burst is count where it is not written. -EINVAL. */
int limit_rate_parse(struct str text, struct rate *ret);

/* NULL: out of memory. */
struct limits *limits_new(void);
struct limits *limits_free(struct limits *l);
/* Takes `cost` (1 to burst) from the bucket of (name, key, rate). 0: it may happen; else milliseconds until it
 * may, and nothing was taken. now_ms: on the monotonic clock, the same one for all callers. */
int64_t limits_take(struct limits *l, struct str name, struct str key, const struct rate *rate,
                    uint32_t cost, int64_t now_ms);

#endif
