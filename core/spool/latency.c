/* latency.c - see latency.h. Layer: spool. */
#include "spool/latency.h"

const uint64_t spool_latency_us[SPOOL_LATENCIES] = {
    10,    20,    50,     100,    200,    500,     1000,    2000,    5000,     10000,
    20000, 50000, 100000, 200000, 500000, 1000000, 2000000, 5000000, 10000000, UINT64_MAX,
};

void latency_add(struct latency_counter *c, uint64_t us)
{
    int i = 0;

    while (us > spool_latency_us[i])
        i++;
    atomic_fetch_add_explicit(&c->count[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->sum_us, us, memory_order_relaxed);
}

void latency_read(struct latency_counter *c, struct spool_latency *ret)
{
    ret->n = 0;
    for (int i = 0; i < SPOOL_LATENCIES; i++) {
        ret->count[i] = atomic_load_explicit(&c->count[i], memory_order_relaxed);
        ret->n += ret->count[i];
    }
    ret->sum_us = atomic_load_explicit(&c->sum_us, memory_order_relaxed);
}

uint64_t spool_latency_quantile(const struct spool_latency *l, unsigned permille)
{
    uint64_t rank = (l->n * permille + 999) / 1000, before = 0;

    if (rank == 0)
        return 0;
    for (int i = 0; i < SPOOL_LATENCIES; i++) {
        uint64_t from = i ? spool_latency_us[i - 1] : 0;
        if (before + l->count[i] < rank) {
            before += l->count[i];
            continue;
        }
        if (i == SPOOL_LATENCIES - 1)
            return from; /* at least that */
        return from + (spool_latency_us[i] - from) * (rank - before) / l->count[i];
    }
    return 0;
}
