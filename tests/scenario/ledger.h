/* Conservation of mail: whoever was told 250 has been delivered, has bounced, or is in the queue.
 *
 * Each recipient is one of its own, "r<number>@domain", so that it can be found again wherever it got. */
#ifndef TERN_TESTS_LEDGER_H
#define TERN_TESTS_LEDGER_H

#include "fixture.h"

enum { LEDGER_MAX = 20000, LEDGER_HOSTS = 512, LEDGER_OPEN = 4096, LEDGER_TO = 400 };

struct ledger {
    struct fixture *f;
    struct sim_host *hosts[LEDGER_HOSTS]; /* whose inboxes count */
    size_t n_hosts;
    size_t n; /* recipients so far */
    struct {
        bool acked; /* 250 was heard for it */
        unsigned delivered, bounced, queued;
    } * r;
    struct {
        const struct sim_outcome *out;
        size_t first, n;
    } open[LEDGER_OPEN]; /* messages sent; their outcomes are read when they are there */
    size_t n_open;
    int8_t priority; /* of what is sent from now on */
};

struct ledger_sum {
    size_t acked, delivered, bounced, queued, duplicates, lost;
};

void ledger_init(struct ledger *l, struct fixture *f);
void ledger_done(struct ledger *l);
struct sim_host *ledger_host(struct ledger *l, const char *addr);
/* A message from client@sender.example to one new recipient at each of the domains (at most LEDGER_TO). wait: until its
 * outcome is there. */
void ledger_send(struct ledger *l, const char *const *domains, size_t n, bool wait);
/* Looks everywhere. Recipients that were acknowledged and are nowhere are printed, and counted as lost. */
struct ledger_sum ledger_audit(struct ledger *l);

#endif
