/* random.h - chance of the simulated world: the same seed gives the same run.
 *
 * Layer: sim. xoshiro256**, seeded by splitmix64. Each user has a generator of its own, so that what
 * one of them draws does not move the others. A value; nothing is owned.
 */
#ifndef TERN_SIM_RANDOM_H
#define TERN_SIM_RANDOM_H

#include "engine/ports.h"

struct sim_random {
    struct port_random port; /* for an engine */
    uint64_t s[4];
};

/* stream: which of the generators of that seed. */
void sim_random_init(struct sim_random *r, uint64_t seed, uint64_t stream);
uint64_t sim_random_next(struct sim_random *r);
/* 0 to n-1; 0 when n is 0. */
uint64_t sim_random_below(struct sim_random *r, uint64_t n);
/* True in per_million of a million cases. 0 draws nothing. */
bool sim_random_chance(struct sim_random *r, uint32_t per_million);

#endif
