/* policy.h - hooks in C for tests of the engine: a table of domains and senders, and one function for the
 * rest.
 *
 * Layer: sim. Implements engine/hook.h. A policy outlives the hooks that are made from it; it may be changed
 * at any time, and serves all workers.
 */
#ifndef TERN_SIM_POLICY_H
#define TERN_SIM_POLICY_H

#include "engine/hook.h"
#include "engine/settings.h"
#include "sim/clock.h"

struct sim_policy {
    /* Asked first for the hooks in `asks` (bits). True: *ret holds the opinion. */
    bool (*ask)(void *arg, enum hook h, const struct hook_input *in, struct hook_result *ret);
    void *arg;
    uint32_t asks;
    int64_t delay_ms; /* answers so much later; 0: at once */
    bool offers_etrn;
    struct sim_clock *clock;
    struct list domains, senders;
    struct route *default_route;
    struct credentials *credentials[4];
    size_t n_credentials;
    uint64_t calls[HOOK_COUNT];
    size_t live;    /* struct hooks that were not freed */
    size_t pending; /* calls that wait */
};

void sim_policy_init(struct sim_policy *p, struct sim_clock *clock);
void sim_policy_done(struct sim_policy *p);
/* Mail to that domain is authorised and takes the route; NULL: authorised, no opinion on the route (by
 * MX). Takes over the reference. Replaces what was said before. */
void sim_policy_domain(struct sim_policy *p, const char *domain, struct route *route);
/* Mail from that domain ("" for the null sender) takes the route. Takes over the reference. */
void sim_policy_sender(struct sim_policy *p, const char *domain, struct route *route);
void sim_policy_default(struct sim_policy *p, struct route *route);

/* Hosts are told that user and password by routes that have the name that this returns. It stays good
 * until sim_policy_forget_credentials, after which nobody knows it. */
struct str sim_policy_credentials(struct sim_policy *p, const char *user, const char *password);
void sim_policy_forget_credentials(struct sim_policy *p);

/* A sim_hooks_cb of world.h, with the policy as its argument. */
struct hooks *sim_policy_hooks(void *policy, struct ports *ports, int worker,
                               struct settings *settings);

/* ---- routes, finished -------------------------------------------------------------------------- */

struct route *sim_route_mx(const char *domain);
/* The backup's: only MX preferred to our own, host failures never end it. */
struct route *sim_route_backup(const char *domain);
/* targets: separated by ", "; mx_first as in route_target_parse. */
struct route *sim_route_hosts(const char *targets, bool mx_first);
struct route *sim_route_hold(const char *queue);
struct route *sim_route_bounce(uint16_t code, const char *text);
struct route *sim_route_discard(void);

#endif
