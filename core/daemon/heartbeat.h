/* heartbeat.h - tells the service manager that the router lives (WatchdogSec=, sd_watchdog_enabled(3)).
 *
 * Layer: daemon, main thread. The router lives when its main loop runs, and each worker has answered since the last
 * time: a worker that stands still for good ends in a restart. The disk is not asked: a restart would not help it.
 */
#ifndef TERN_DAEMON_HEARTBEAT_H
#define TERN_DAEMON_HEARTBEAT_H

#include "base/err.h"

struct router;
struct heartbeat;

/* Nothing is done where no service manager wants it. NULL: out of memory. */
struct heartbeat *heartbeat_new(struct router *r);
struct heartbeat *heartbeat_free(
    struct heartbeat *h); /* after the workers' threads; NULL is fine */

#endif
