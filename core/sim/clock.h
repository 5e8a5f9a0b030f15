/* clock.h - virtual time: both clocks, timers, the `later` list, and the turns of the loop.
 *
 * Layer: sim. One clock for the whole world, all its workers and hosts. Embedded in its owner; timers
 * and laters belong to those who embed them. Nothing here looks at a real clock.
 *
 * A turn: time moves to the next deadline (only when nothing is due now), what is due runs in the order of
 * arming, then the laters, as core/io/loop.h does it. What a turn arms for now runs in the next turn. A
 * world that takes a million turns without time passing is a busy loop, and aborts.
 *
 * Out of memory aborts, here and in all of core/sim; but ports say that they are, where those of core/io and
 * core/spool could be, when sim_no_memory says so.
 */
#ifndef TERN_SIM_CLOCK_H
#define TERN_SIM_CLOCK_H

#include "engine/ports.h"

/* 2026-01-01T00:00:00Z: when a world begins. */
#define SIM_EPOCH_MS INT64_C(1767225600000)

struct sim_clock {
    struct port_clock port;
    struct timer_heap timers;
    struct list later;
    int64_t now;         /* monotonic */
    int64_t wall_offset; /* wall - now */
    int64_t utc_offset;  /* local time - UTC: 0 until a test says otherwise */
    uint64_t turns;      /* in all */
    uint32_t idle_turns; /* since time passed */
    bool interrupted;
};

void sim_clock_init(struct sim_clock *c);
void sim_clock_done(struct sim_clock *c); /* timers still set are disarmed */

/* Runs one turn. False: nothing is due up to and with `until`; time stands still then. */
bool sim_clock_turn(struct sim_clock *c, int64_t until);
/* Time passes; nothing may be due before. */
void sim_clock_pass(struct sim_clock *c, int64_t to);
/* From a callback: the turn ends when that callback returns; what else was due stays due. */
void sim_clock_interrupt(struct sim_clock *c);
/* The wall clock is set forward or back; the monotonic one does not notice. */
void sim_clock_step_wall(struct sim_clock *c, int64_t by_ms);

void sim_timer_in(struct sim_clock *c, struct timer *t, int64_t in_ms);
void sim_timer_stop(struct sim_clock *c, struct timer *t);
static inline int64_t sim_wall(const struct sim_clock *c)
{
    return c->now + c->wall_offset;
}

/* For tests of engines without memory: asked by each port that may answer -ENOMEM, at the beginning of the
 * call. NULL, as it is at first: there is enough. One for all worlds. */
extern bool (*sim_no_memory)(void);
#define SIM_STARVED() (sim_no_memory && sim_no_memory())

/* Never NULL. */
void *sim_alloc(size_t n); /* zeroed */
char *sim_dup(struct str s);

#endif
