/* open_at.c - the hours of a route, in local time. Layer: engine. Interface: context.h. */
#include "engine/context.h"

/* Where the clock on the wall is set forward, a moment that does not exist gives way to the next one that
 * does. */
int64_t engine_open_at(const struct engine *e, const struct route *r, int64_t wall_ms)
{
    struct port_clock *clock = e->ports.clock;
    if (!hours_given(&r->hours))
        return wall_ms;
    int64_t zone = clock->zone ? clock->zone(clock, wall_ms) : 0;
    int64_t local = wall_ms + zone, begin = hours_begin(&r->hours, local);
    if (begin == local)
        return wall_ms;
    int64_t then = clock->zone ? clock->zone(clock, begin - zone) : 0;
    return MAX(begin - zone, begin - then);
}
