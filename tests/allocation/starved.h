/* starved.h - a router and its world, whose memory runs out on the way; and what must hold whichever allocation it was.
 *
 * A case makes its world (begin), lets something happen while allocations fail (act), and says what is left to do when
 * memory is back (recover). After each run:
 *
 *   - whoever was told 250 has been delivered, has bounced or is in the queue (ledger.h), and the queue empties;
 *   - a new message is taken, and arrives;
 *   - the engines stop in order, with nothing left over, and no block of memory is missing;
 *   - what the case itself looks at.
 *
 * The sanitizers see the rest. One run after the other, for the first, the second, ... allocation until a run makes fewer.
 *
 * For one who looks at a failure: ALLOCATION_AT=n makes that run only, and shows where the allocation was asked for;
 * ALLOCATION_CASE=name one case; ALLOCATION_GO_ON=1 makes each run in a process of its own, and lists those that failed.
 * ALLOCATION_TIMES=n: n times as many seeds, and no allocation left out.
 */
#ifndef TERN_TESTS_STARVED_H
#define TERN_TESTS_STARVED_H

#include "allocation.h"
#include "ledger.h"

struct starved_case {
    const char *name;
    void (*begin)(void);   /* after the world is made, before it starts; may be NULL */
    void (*started)(void); /* may be NULL */
    void (*act)(void);     /* while allocations fail */
    void (*recover)(void); /* memory is back; may be NULL */
    void (*look)(const struct ledger_sum *sum); /* at the end; may be NULL */
    sim_hooks_cb *hooks; /* instead of the policy in C; with f.settings as begin leaves them */
};

/* Of the run. */
extern struct fixture f;
extern struct ledger ledger;

/* The domains a.example, b.example and c.example, a host each; where notifications go. */
extern struct sim_host *host_a, *host_b, *host_c, *back;
#define HOST_A "192.0.2.101"
#define HOST_B "192.0.2.102"
#define HOST_C "192.0.2.103"

/* Of each test: says which run it was that failed. */
int starved_teardown(void **state);
/* Each allocation fails in its turn, alone. */
void starved_each(const struct starved_case *c);
/* From every step-th on that one and so many more fail. */
void starved_spells(const struct starved_case *c, unsigned long step, unsigned long more);
/* Each with that chance, for that many seeds. */
void starved_by_chance(const struct starved_case *c, uint64_t seeds, uint32_t per_million);

#endif
