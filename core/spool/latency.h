/* latency.h - how long something takes, counted in classes.
 *
 * Layer: spool. Any thread adds, any thread reads: each number is atomic, two of them may be of
 * different moments. Units: microseconds.
 */
#ifndef TERN_SPOOL_LATENCY_H
#define TERN_SPOOL_LATENCY_H

#include <stdatomic.h>
#include <stdint.h>

enum { SPOOL_LATENCIES = 20 };
/* Upper ends of the classes, steps of 1, 2, 5 from 10 us to 10 s; the last one has none (UINT64_MAX). */
extern const uint64_t spool_latency_us[SPOOL_LATENCIES];

struct latency_counter {
    atomic_uint_fast64_t count[SPOOL_LATENCIES], sum_us;
};
void latency_add(struct latency_counter *c, uint64_t us);

struct spool_latency {
    uint64_t count[SPOOL_LATENCIES]; /* of each class by itself */
    uint64_t n, sum_us;
};
void latency_read(struct latency_counter *c, struct spool_latency *ret);
/* What so many of a thousand do not exceed: interpolated within its class; 0 when nothing was counted. */
uint64_t spool_latency_quantile(const struct spool_latency *l, unsigned permille);

#endif
