/* hosts.h - what is known of each remote address and port: whether it answers, since when not, when to
 * try again (ROUTING.md Q3).
 *
 * Layer: engine. Per worker, in memory, bounded (the oldest are forgotten): a long-dead host costs a probe after a restart, no more.
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
/* why is copied. */
void hosts_failed(struct hosts *h, const struct net_addr *addr, struct str why);
/* Who waits for it, in any worker, tries it now. */
void hosts_worked(struct hosts *h, const struct net_addr *addr);
/* Forget back-offs (queue retry, ETRN: E8). */
void hosts_forget(struct hosts *h, const struct net_addr *addr); /* NULL: all */
/* Mail came from that address, whatever the port: a sign of life (B13). Every worker that waits for a host
 * there tries it now, at most once in queue.host_retry for each address. */
void hosts_heard_from(struct engine *e, const struct net_addr *ip);
/* Why it failed last; empty when it works. Lives until the next call. */
struct str hosts_why(struct hosts *h, const struct net_addr *addr);

#endif
