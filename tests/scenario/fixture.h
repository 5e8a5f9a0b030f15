/* What most scenarios need: a world, C policies, and mx2.isp.example as ourselves. */
#ifndef TERN_TESTS_FIXTURE_H
#define TERN_TESTS_FIXTURE_H

#include "sim/policy.h"
#include "sim/world.h"

struct fixture {
    struct sim_world *w;
    struct settings *settings; /* may be changed before fixture_start */
    struct sim_policy policy;
};

/* The domain example.com is served by mx1.example.com (192.0.2.1), ours is the second MX of it. Mail to it is
 * authorised, and routed by MX. Notifications to the sender go to 192.0.2.77, which is up. */
void fixture_init(struct fixture *f, uint64_t seed, int workers);
void fixture_start(struct fixture *f);
void fixture_done(struct fixture *f);

/* New settings with the fixture's defaults, one reference; for a reload. */
struct settings *fixture_settings(void);

/* Counters. */
uint64_t counted(struct fixture *f, const char *event);
size_t queued(struct fixture *f);
/* Sends from client@sender.example; the final code. */
int mail_to(struct fixture *f, const char *recipient);
/* Messages in that inbox whose content has the text. */
size_t got(struct sim_host *h, const char *text);

#endif
