/* hosts.h - what is known of each remote address and port: whether it answers, since when not, when to
 * try again; how many connections there are to it, and who waits for one (ROUTING.md Q3).
 *
 * Layer: engine. Per worker, in memory, bounded (the oldest that nobody uses are forgotten): a long-dead host costs
 * a probe after a restart, no more.
 *
 * Of a host that nothing is known against there may be queue.host_connections at once. After it has been down, or
 * has refused one more while others worked, there are fewer (engine/pace.h), whichever queues they are for. A
 * queue that finds no room stands in line and is woken when there is some; it costs nothing meanwhile. In line
 * each gets one connection at a time, the longest waiting first.
 */
#ifndef TERN_ENGINE_HOSTS_H
#define TERN_ENGINE_HOSTS_H

#include "engine/context.h"

struct hosts *hosts_new(struct engine *e);
struct hosts *hosts_free(struct hosts *h);
/* Milliseconds until it should be tried again; 0: now. */
int64_t hosts_wait(struct hosts *h, const struct net_addr *addr);
/* The same for who tries it when it is 0. Of a host that failed, one tries and the others wait until that one
 * is told to have failed or worked, or for a minute: many domains behind a dead host cost one probe. */
int64_t hosts_try(struct hosts *h, const struct net_addr *addr);
/* It is down. why is copied. */
void hosts_failed(struct hosts *h, const struct net_addr *addr, struct str why);
/* It did not take a connection, or broke it off, that was begun at since_ms (monotonic) and is counted still.
 * True: it is down. False: others work, so it has been asked for too many. */
bool hosts_refused(struct hosts *h, const struct net_addr *addr, int64_t since_ms, struct str why);
/* Who waits for it, in any worker, tries it now. */
void hosts_worked(struct hosts *h, const struct net_addr *addr);
/* When it failed last (monotonic); INT64_MIN: it works, as far as known. */
int64_t hosts_failed_at(struct hosts *h, const struct net_addr *addr);
/* Forget back-offs and limits (queue retry, ETRN: E8). */
void hosts_forget(struct hosts *h, const struct net_addr *addr); /* NULL: all */
/* Mail came from that address, whatever the port: a sign of life (B13). Every worker that waits for a host
 * there tries it now, at most once in queue.host_retry for each address. */
void hosts_heard_from(struct engine *e, const struct net_addr *ip);
/* Why it failed last; empty when it works. Lives until the next call. */
struct str hosts_why(struct hosts *h, const struct net_addr *addr);

/* ---- connections: told by session_out, which keeps the handle while it is open ------------------ */

struct host;

/* One is opened, and in use. NULL: out of memory; it is not counted then. */
struct host *hosts_opened(struct hosts *h, const struct net_addr *addr);
void hosts_in_use(struct host *host);                /* an idle one is taken */
void hosts_idle(struct hosts *h, struct host *host); /* it is kept for the next user */
void hosts_closed(struct hosts *h, struct host *host, bool was_in_use);
/* Idle ones included it has all that it may have: one of them has to go before another is opened. */
bool hosts_full(struct hosts *h, const struct net_addr *addr);

/* ---- the line ---------------------------------------------------------------------------------- */

/* Embedded in who waits. In one line at a time; hosts_leave before it is freed. */
struct host_place {
    struct list link;
    struct host *host; /* NULL: in no line */
    enum { PLACE_WAITS, PLACE_CALLED, PLACE_COMING } state;
    void (*wake)(struct host_place *p); /* its turn has come: try, or leave */
};

struct host_limit {
    uint32_t in_use, limit, line; /* line: who waits */
    struct net_addr addr;
};

void hosts_place_init(struct host_place *p, void (*wake)(struct host_place *p));
/* May that host be asked for a connection now? mine: in its line, and called; else NULL. Who stands in line
 * comes first. forced: without hosts_try, so the limit of a host that fails (one) counts too. */
bool hosts_room(struct hosts *h, const struct net_addr *addr, const struct host_place *mine,
                bool forced);
/* Stands in line; who came in vain is the first again. */
void hosts_stand(struct hosts *h, const struct net_addr *addr, struct host_place *p);
/* Has got its connection there: leaves the line or, when others wait, begins at its end again. */
void hosts_served(struct hosts *h, const struct net_addr *addr, struct host_place *p);
/* Does not wait any more. */
void hosts_leave(struct hosts *h, struct host_place *p);
/* For people: what it waits for. False: nothing. */
bool hosts_place_status(struct hosts *h, const struct host_place *p, struct host_limit *ret);

#endif
