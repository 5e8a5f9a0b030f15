/* throttle.c - how fast messages are handed over. See throttle.h.
 *
 * The state is one word: when it is full (microseconds, 50 bits: 35 years), and how often it was found full (the
 * epoch, 14 bits). What was paid before it was found full has been forgotten by then, so only what was paid
 * in the present epoch is paid back. */
#include "engine/throttle.h"

enum {
    EPOCH_BITS = 14,
    EPOCH_MASK = (1 << EPOCH_BITS) - 1,
    EVEN_US = 10000,    /* what goes in this time is still "evenly" */
    STRICT_US = 100000, /* rates slower than one message in this are strict */
};
#define LONGEST_US (INT64_C(10) * 366 * 86400 * 1000000) /* an empty bucket is full after this */

struct terms {
    int64_t unit_us; /* for one message */
    int64_t burst;
};

static struct terms terms_of(const struct rate *rate)
{
    struct terms t;
    /* Rounded up: never more than was said. */
    t.unit_us = MAX((rate->period_ms * 1000 + rate->count - 1) / rate->count, INT64_C(1));
    t.unit_us = MIN(t.unit_us, LONGEST_US);
    t.burst = rate->burst ? rate->burst : MAX(EVEN_US / t.unit_us, INT64_C(1));
    t.burst = MIN(t.burst, LONGEST_US / t.unit_us);
    return t;
}

static int64_t full_at(uint64_t state)
{
    return (int64_t)(state >> EPOCH_BITS);
}

static uint16_t epoch_of(uint64_t state)
{
    return (uint16_t)(state & EPOCH_MASK);
}

static uint64_t make_state(int64_t full_us, unsigned epoch)
{
    return (uint64_t)full_us << EPOCH_BITS | (epoch & EPOCH_MASK);
}

/* As this rate sees it. Another one may have been in force: nobody owes more than an empty bucket, and one message
 * that was charged. */
static uint64_t seen(uint64_t state, const struct terms *t, int64_t now_us)
{
    int64_t most = now_us + (t->burst + 1) * t->unit_us;
    if (full_at(state) <= now_us)
        return make_state(now_us, epoch_of(state) + 1U);
    return full_at(state) > most ? make_state(most, epoch_of(state) + 1U) : state;
}

/* Milliseconds, rounded up. */
static int64_t wait_of(uint64_t state, const struct terms *t, int64_t now_us)
{
    int64_t us = full_at(state) + t->unit_us - now_us - t->burst * t->unit_us;
    return us > 0 ? (us + 999) / 1000 : 0;
}

static int64_t ask(struct throttle *t, const struct rate *rate, int64_t now_ms,
                   struct throttle_ticket *ret)
{
    struct terms terms = terms_of(rate);
    unsigned long long state = atomic_load(&t->state), next;
    int64_t now_us = now_ms * 1000, wait;
    do {
        uint64_t present = seen(state, &terms, now_us);
        wait = wait_of(present, &terms, now_us);
        /* Also who has to wait writes what it saw: by another rate it would wait anew each time. */
        next = wait > 0 ? present : state;
        if (wait == 0 && ret) {
            next = make_state(full_at(present) + terms.unit_us, epoch_of(present));
            *ret = (struct throttle_ticket){ .rate = *rate, .epoch = epoch_of(present) };
        }
    } while (next != state && !atomic_compare_exchange_weak(&t->state, &state, next));
    if (wait > 0 && ret) /* another worker was faster: nothing was paid */
        *ret = (struct throttle_ticket){ 0 };
    return wait;
}

int64_t throttle_admit(struct throttle *t, const struct rate *rate, int64_t now_ms,
                       struct throttle_ticket *ret)
{
    return ask(t, rate, now_ms, ret);
}

int64_t throttle_wait(struct throttle *t, const struct rate *rate, int64_t now_ms)
{
    return ask(t, rate, now_ms, NULL);
}

void throttle_charge(struct throttle *t, const struct rate *rate, int64_t now_ms)
{
    struct terms terms = terms_of(rate);
    unsigned long long state = atomic_load(&t->state), next;
    do {
        uint64_t present = seen(state, &terms, now_ms * 1000);
        next = make_state(full_at(present) + terms.unit_us, epoch_of(present));
    } while (!atomic_compare_exchange_weak(&t->state, &state, next));
}

void throttle_went(struct throttle *t, const struct rate *rate, int64_t now_ms)
{
    int64_t full = now_ms * 1000 + terms_of(rate).unit_us;
    unsigned long long state = atomic_load(&t->state);
    while (full_at(state) < full &&
           !atomic_compare_exchange_weak(&t->state, &state, make_state(full, epoch_of(state) + 1U)))
        continue;
}

void throttle_cancel(struct throttle *t, struct throttle_ticket *ticket)
{
    unsigned long long state = atomic_load(&t->state), next;
    if (!ticket->rate.count)
        return;
    int64_t unit = terms_of(&ticket->rate).unit_us;
    do {
        if (epoch_of(state) != ticket->epoch || full_at(state) < unit)
            break;
        next = make_state(full_at(state) - unit, epoch_of(state));
    } while (!atomic_compare_exchange_weak(&t->state, &state, next));
    *ticket = (struct throttle_ticket){ 0 };
}

uint32_t throttle_left(const struct throttle *t, const struct rate *rate, int64_t now_ms)
{
    struct terms terms = terms_of(rate);
    int64_t owed = MAX(full_at(atomic_load(&t->state)) - now_ms * 1000, INT64_C(0));
    int64_t used = (owed + terms.unit_us - 1) / terms.unit_us;
    return (uint32_t)MAX(terms.burst - used, INT64_C(0));
}

int64_t throttle_known_for(const struct throttle *t, int64_t now_ms)
{
    int64_t us = full_at(atomic_load(&t->state)) - now_ms * 1000;
    return us > 0 ? (us + 999) / 1000 : 0;
}

bool throttle_is_strict(const struct rate *rate)
{
    struct terms terms = terms_of(rate);
    return terms.burst == 1 && terms.unit_us > STRICT_US;
}
