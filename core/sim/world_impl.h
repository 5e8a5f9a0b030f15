/* world_impl.h - what world.c and world_around.c share. Layer: sim, internal. */
#ifndef TERN_SIM_WORLD_IMPL_H
#define TERN_SIM_WORLD_IMPL_H

#include "sim/https.h"
#include "sim/passwords.h"
#include "sim/world.h"

enum { SIM_MAX_LISTENERS = 32 };

/* Where clients come from that say nothing of it. It stands for all the world: no limit of `clients` is for it. */
#define CLIENT_ADDR "203.0.113.9"

struct worker {
    struct sim_world *world;
    struct engine *engine; /* NULL: not running */
    struct ports ports;
    struct port_workers workers;
    struct sim_random random;
    struct worker_message *first; /* in the order in which they were posted */
    struct timer mail;
};

/* What the routers of one network share. Lives as long as one of their worlds. */
struct around {
    struct sim_clock clock;
    struct sim_net *net;
    struct sim_dns *dns;
    struct list worlds, hosts;
    unsigned made; /* routers so far: their addresses */
};

struct listening {
    struct sim_listener listener;
    struct sim_world *world;
    const struct listen_settings *settings; /* of the world's settings, or `usual` */
};

struct world_host {
    struct list link;
    struct sim_host *host;
    bool by_itself; /* sim_world_populate made it */
};

struct world_mail {
    struct list link;
    struct sim_client *client;
};

struct sim_world {
    struct list link; /* around's worlds */
    struct around *around;
    struct sim_uplink *uplink;
    struct sim_spool *spool;
    struct sim_journal *journal;
    struct sim_passwords passwords;
    struct sim_https https;
    struct sim_random random, accept_random;
    struct engine_shared shared;
    struct settings *settings;
    sim_hooks_cb *hooks;
    void *hooks_arg;
    uint64_t generation, crashes;
    bool running;

    bool crash_due, crash_synced;
    uint64_t crash_after; /* commits; 0: none is planned */
    int64_t crash_down_ms;
    struct timer come_back;

    int n_workers, accept_by;
    struct worker worker[SIM_MAX_WORKERS];
    struct listening listening[SIM_MAX_LISTENERS];
    size_t n_listening;
    struct listen_settings usual; /* when the settings have none */
    struct list mails;
};

void around_join(struct around *a, struct sim_world *w);
struct around *around_new(uint64_t seed);
void around_leave(struct sim_world *w); /* the last one frees it */

#endif
