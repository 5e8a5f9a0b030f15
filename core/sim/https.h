/* https.h - web servers of the simulated world: one page each, as the engine's port.
 *
 * Layer: sim. A fetch takes SIM_HTTPS_MS; a host that was not given a page does not answer (-ETIMEDOUT at the
 * deadline). Addresses are not looked at.
 */
#ifndef TERN_SIM_HTTPS_H
#define TERN_SIM_HTTPS_H

#include "sim/clock.h"

enum { SIM_HTTPS_MS = 100, SIM_HTTPS_SITES = 16 };

struct sim_https_site {
    struct str host; /* borrowed, as all texts here */
    int error;       /* instead of an answer, with `why` */
    const char *why;
    unsigned status;
    struct str type, content;
};

struct sim_https {
    struct port_https port;
    struct sim_clock *clock;
    struct sim_https_site site[SIM_HTTPS_SITES];
    size_t n;
    struct list fetches;
    uint64_t asked; /* fetches that began */
};

void sim_https_init(struct sim_https *h, struct sim_clock *clock);
void sim_https_done(struct sim_https *h);
/* From now on; the one of that host before is replaced. */
void sim_https_set(struct sim_https *h, const struct sim_https_site *site);
/* The same with status 200 and text/plain. */
void sim_https_page(struct sim_https *h, const char *host, const char *content);

#endif
