/* clients.h - what each client does, over all workers: connections at once, and how often.
 *
 * Layer: engine. One for the process, in memory of fixed size; calls come from any thread. A client is the
 * network of its address (settings->clients: /32 and /64 by default), so that who has a whole network of IPv6
 * addresses is one client, and a flood of addresses takes no memory. Where the table has no room for one more,
 * that client is not counted: a limit can then let more through than it should, never less.
 */
#ifndef TERN_ENGINE_CLIENTS_H
#define TERN_ENGINE_CLIENTS_H

#include "base/netaddr.h"
#include "engine/settings.h"

struct clients;

enum clients_use { CLIENTS_CONNECTION, CLIENTS_MESSAGE, CLIENTS_RECIPIENT };

/* NULL: out of memory. */
struct clients *clients_new(void);
struct clients *clients_free(struct clients *c);

/* What stands for that client below; 0: nothing is counted for it (exempt, or no IP address). */
uint64_t clients_key(const struct settings *set, const struct net_addr *addr);
/* A connection begins; false: it has as many as `limit` (0: any number) already, and is not counted. c may be
 * NULL, and key 0: always true. Each that was true is to be followed by one clients_leave. */
bool clients_enter(struct clients *c, uint64_t key, uint32_t limit);
void clients_leave(struct clients *c, uint64_t key);
/* How many connections of it are counted. */
uint32_t clients_connections(struct clients *c, uint64_t key);
/* One more of that use: false: the rate does not allow it now. now_ms: monotonic. */
bool clients_may(struct clients *c, uint64_t key, const struct settings *set, enum clients_use use,
                 int64_t now_ms);

#endif
