/* open_at.c - the hours of a route, in local time. Layer: engine. Interface: context.h. */
#include "engine/context.h"

/* The clock on the wall may be set between now and then. A moment that does not exist, because it is set
 * forward over it, gives way to the next one that does. */
int64_t engine_open_at(const struct engine *e, const struct route *r, int64_t wall_ms)
{
    struct port_clock *clock = e->ports.clock;
    if (!hours_given(&r->hours))
        return wall_ms;
    int64_t zone = clock->zone ? clock->zone(clock, wall_ms) : 0;
    int64_t local = wall_ms + zone, begin = hours_begin(&r->hours, local);
    if (begin == local)
        return wall_ms;
    if (!clock->zone)
        return begin;
    int64_t at = begin - clock->zone(clock, begin - zone);
    return at + clock->zone(clock, at) >= begin ? at : begin - zone;
}
