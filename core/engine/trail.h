/* trail.h - what one attempt saw, for the record of decisions (ROUTING.md Q12): hosts that could not be used, and
 * records of the DNS that were left out.
 *
 * Layer: engine, internal. Embedded in a delivery; all memory is of its arena, and where there is none the
 * trail stays shorter. What is costly is made at the end, and only for an attempt that did not succeed.
 */
#ifndef TERN_ENGINE_TRAIL_H
#define TERN_ENGINE_TRAIL_H

#include "engine/next_hop.h"
#include "mail/history.h"

struct trail {
    struct history_try *tries;
    size_t n_tries, room;
    struct history_discarded *discarded;
    size_t n_discarded;
    bool planned; /* hosts were looked for */
};

/* host may be empty. reply may be NULL; without a code, `why` says it. Of more than there is room for, the
 * last one stands at the end. */
void trail_add(struct trail *t, struct arena *a, struct str host, struct str tls,
               enum smtp_stage stage, const struct smtp_reply *reply, struct str why);
/* The last one is no news: it is tried in another way. */
void trail_drop_last(struct trail *t);
/* Copies what the look-up left out. */
void trail_take_discarded(struct trail *t, struct arena *a, const struct next_hops *r);
/* Where the attempt could go; without a time when no host was looked for. */
struct history_plan trail_plan(const struct trail *t, struct arena *a, const struct route *route,
                               const struct hop *hops, size_t n, int64_t wall_ms);
/* "mx.example.com [192.0.2.1]:25" */
struct str trail_host(struct arena *a, const struct hop *h);

#endif
