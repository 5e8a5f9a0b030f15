/* random.c - xoshiro256** by Blackman and Vigna. Layer: sim. Interface: random.h. */
#include "sim/random.h"

static uint64_t rotate(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t port_next(struct port_random *self)
{
    return sim_random_next(CONTAINER_OF(self, struct sim_random, port));
}

void sim_random_init(struct sim_random *r, uint64_t seed, uint64_t stream)
{
    uint64_t mixed = stream, state = seed ^ splitmix(&mixed);
    r->port.next = port_next;
    for (size_t i = 0; i < ARRAY_LEN(r->s); i++)
        r->s[i] = splitmix(&state);
}

uint64_t sim_random_next(struct sim_random *r)
{
    uint64_t *s = r->s, result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

uint64_t sim_random_below(struct sim_random *r, uint64_t n)
{
    return n ? sim_random_next(r) % n : 0;
}

bool sim_random_chance(struct sim_random *r, uint32_t per_million)
{
    return per_million && sim_random_below(r, 1000000) < per_million;
}
