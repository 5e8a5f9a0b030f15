/* pace.h - how many may be under way to one destination at once: it opens up with success, gives way to
 * refusals, and remembers where the wall was (ROUTING.md Q1, Q3).
 *
 * Layer: engine. Arithmetic only: no clock, no memory, no I/O. A queue has one for its attempts, a host one
 * for its connections; both tell it how those end and how many others are under way then.
 *
 *     limit     how many may be under way. A probe has 1; success doubles it up to `start`, then adds one for
 *               each full round of successes, up to `most`.
 *     failure   with others under way, or with one that worked since the failed one began, says that there are
 *               too many: limit becomes the number of the others. When nothing else is left and none has
 *               worked since, the destination is down: limit becomes 1. So of many that fail at once only the
 *               last one says that it is down, and a single one says so at once.
 *     ceiling   the height at which it failed. Growth ends below it for `pause`, then goes one beyond, once: when
 *               that fails too, the pause doubles (5 minutes up to an hour); when a full round works at that
 *               height, the ceiling is forgotten. So a wall is not run into each second.
 *
 * Times are monotonic milliseconds.
 */
#ifndef TERN_ENGINE_PACE_H
#define TERN_ENGINE_PACE_H

#include "base/err.h"

enum { PACE_PAUSE_MS = 5 * 60 * 1000, PACE_PAUSE_MAX_MS = 60 * 60 * 1000 };

struct pace {
    uint32_t limit;     /* at least 1 */
    uint32_t round;     /* successes since the limit changed */
    uint32_t successes; /* in all; wraps */
    uint32_t ceiling;   /* at least 2; 0: none */
    int64_t pause_ms;   /* how long it holds */
    int64_t trial_at;   /* when it is tried */
};

/* What the configuration says; most >= 1. */
struct pace_bounds {
    uint32_t start, most;
};

enum pace_verdict {
    PACE_CROWDED, /* it works, with fewer */
    PACE_DOWN,    /* nothing works */
};

void pace_init(struct pace *p, uint32_t limit);
/* One ended well; at_once: how many were under way, itself included. */
void pace_worked(struct pace *p, const struct pace_bounds *b, uint32_t at_once, int64_t now);
/* One failed; others: under way still; worked_since: one has worked since it began. */
enum pace_verdict pace_failed(struct pace *p, uint32_t others, bool worked_since, int64_t now);
/* It is down, whatever else is under way: the next one is a probe. The ceiling stays. */
void pace_down(struct pace *p);

#endif
