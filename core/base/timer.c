/* timer.c - deadlines in a 4-ary heap.
 *
 * Layer: base. Interface: timer.h. Four children a node: half the depth of a binary heap, and the
 * children of a node share a cache line. Each timer knows its slot, so that stopping and moving
 * are O(log n) too. Order is (at, seq): total, hence the same in every run.
 */
#include "base/timer.h"

enum { ARITY = 4, FIRST_SLOTS = 64 };

void timer_heap_init(struct timer_heap *h)
{
    *h = (struct timer_heap){ .running = INT64_MIN };
}

static bool before(const struct timer *a, const struct timer *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void place(struct timer_heap *h, struct timer *t, size_t i)
{
    h->slots[i] = t;
    t->slot = i + 1;
}

static size_t sift_up(struct timer_heap *h, struct timer *t, size_t i)
{
    while (i > 0) {
        size_t parent = (i - 1) / ARITY;
        if (!before(t, h->slots[parent]))
            break;
        place(h, h->slots[parent], i);
        i = parent;
    }
    place(h, t, i);
    return i;
}

static void sift_down(struct timer_heap *h, struct timer *t, size_t i)
{
    for (;;) {
        size_t first = i * ARITY + 1, least = first;
        if (first >= h->n)
            break;
        for (size_t c = first + 1; c < MIN(first + ARITY, h->n); c++)
            if (before(h->slots[c], h->slots[least]))
                least = c;
        if (!before(h->slots[least], t))
            break;
        place(h, h->slots[least], i);
        i = least;
    }
    place(h, t, i);
}

/* Puts t, whose deadline is new, where it belongs, starting from the slot i. */
static void settle(struct timer_heap *h, struct timer *t, size_t i)
{
    if (sift_up(h, t, i) == i)
        sift_down(h, t, i);
}

static bool reserve_slot(struct timer_heap *h)
{
    if (h->n < h->cap)
        return true;

    size_t cap = h->cap ? h->cap * 2 : FIRST_SLOTS;
    struct timer **slots = reallocarray(h->slots, cap, sizeof(struct timer *));
    if (!slots)
        return false;
    h->slots = slots;
    h->cap = cap;
    return true;
}

/* ---- those without a slot ---- */

static bool is_crowded(const struct timer *t)
{
    return t->slot == SIZE_MAX;
}

static void leave_crowd(struct timer_heap *h, struct timer *t)
{
    struct timer **at = &h->crowded;

    while (*at != t)
        at = &(*at)->crowded;
    *at = t->crowded;
    t->crowded = NULL;
    t->slot = 0;
}

/* Into the heap when there is room, else among the crowded. */
static void enter(struct timer_heap *h, struct timer *t)
{
    if (reserve_slot(h)) {
        t->slot = ++h->n;
        settle(h, t, t->slot - 1);
        return;
    }
    t->slot = SIZE_MAX;
    t->crowded = h->crowded;
    h->crowded = t;
}

/* ---- interface ---- */

void timer_heap_done(struct timer_heap *h)
{
    while (h->crowded)
        leave_crowd(h, h->crowded);
    for (size_t i = 0; i < h->n; i++)
        h->slots[i]->slot = 0;
    free(h->slots);
    timer_heap_init(h);
}

void timer_heap_set(struct timer_heap *h, struct timer *t, int64_t at)
{
    if (is_crowded(t))
        leave_crowd(h, t);
    /* Set in a callback for the past: not before `now`, or it would hide from the run the timers
     * that were due already. Its seq then puts it behind all of them. */
    t->at = MAX(at, h->running);
    t->seq = h->seq++;
    if (timer_armed(t))
        settle(h, t, t->slot - 1);
    else
        enter(h, t);
}

void timer_heap_stop(struct timer_heap *h, struct timer *t)
{
    if (!timer_armed(t))
        return;
    if (is_crowded(t)) {
        leave_crowd(h, t);
        return;
    }

    size_t i = t->slot - 1;
    CHECK(i < h->n && h->slots[i] == t);
    t->slot = 0;
    struct timer *last = h->slots[--h->n];
    if (last != t)
        settle(h, last, i);
    struct timer *waiting = h->crowded;
    if (waiting) { /* its slot is free */
        leave_crowd(h, waiting);
        enter(h, waiting);
    }
}

static struct timer *first(const struct timer_heap *h)
{
    struct timer *least = h->n ? h->slots[0] : NULL;

    for (struct timer *t = h->crowded; t; t = t->crowded)
        if (!least || before(t, least))
            least = t;
    return least;
}

const struct timer *timer_heap_first(const struct timer_heap *h)
{
    return first(h);
}

int64_t timer_heap_next(const struct timer_heap *h)
{
    const struct timer *t = first(h);

    return t ? t->at : INT64_MAX;
}

size_t timer_heap_run(struct timer_heap *h, int64_t now, size_t max)
{
    uint64_t armed_before = h->seq;
    int64_t outer = h->running;
    size_t fired = 0;

    h->running = now;
    while (max == 0 || fired < max) {
        struct timer *t = first(h);
        if (!t || t->at > now || t->seq >= armed_before)
            break;
        timer_heap_stop(h, t);
        fired++;
        t->fire(t); /* may free t */
    }
    h->running = outer;
    return fired;
}
