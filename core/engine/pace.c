/* pace.c - see pace.h. */
#include "engine/pace.h"

void pace_init(struct pace *p, uint32_t limit)
{
    *p = (struct pace){ .limit = MAX(limit, 1u) };
}

static void set_limit(struct pace *p, uint32_t limit)
{
    if (limit == p->limit)
        return;
    p->limit = limit;
    p->round = 0;
}

/* Where growth would lead if there had never been a wall. */
static uint32_t grown(const struct pace *p, const struct pace_bounds *b)
{
    if (p->limit < b->start)
        return p->limit > b->start / 2 ? b->start : p->limit * 2;
    return p->round >= p->limit && p->limit < b->most ? p->limit + 1 : p->limit;
}

void pace_worked(struct pace *p, const struct pace_bounds *b, uint32_t at_once, int64_t now)
{
    p->successes++;
    /* On trial only what goes well at that height counts. */
    if (!p->ceiling || p->limit < p->ceiling || at_once >= p->ceiling)
        p->round++;
    if (p->ceiling && p->limit >= p->ceiling) {
        if (p->round < p->limit)
            return;
        p->ceiling = 0;
    }
    uint32_t next = MIN(grown(p, b), MAX(b->most, 1u));
    if (p->ceiling && next >= p->ceiling)
        next = now >= p->trial_at ? p->ceiling : p->ceiling - 1;
    set_limit(p, next);
}

void pace_down(struct pace *p)
{
    set_limit(p, 1);
    p->round = 0;
}

enum pace_verdict pace_failed(struct pace *p, uint32_t others, bool worked_since, int64_t now)
{
    if (others == 0 && !worked_since) {
        pace_down(p);
        return PACE_DOWN;
    }
    uint32_t height = others + 1;
    bool same_wall = p->ceiling && height >= p->ceiling;
    p->pause_ms = same_wall ? MIN(p->pause_ms * 2, (int64_t)PACE_PAUSE_MAX_MS) : PACE_PAUSE_MS;
    p->trial_at = now + p->pause_ms;
    p->ceiling = same_wall ? p->ceiling : MAX(height, 2u);
    set_limit(p, MAX(MIN(p->limit, others), 1u));
    p->round = 0;
    return PACE_CROWDED;
}
