/* notify.h - tells the service manager what the daemon does (sd_notify(3): one datagram).
 *
 * Layer: daemon. Without $NOTIFY_SOCKET nothing happens.
 */
#ifndef TERN_DAEMON_NOTIFY_H
#define TERN_DAEMON_NOTIFY_H

/* "READY=1", "STOPPING=1", "RELOADING=1" (the time that it needs is added); several of them in lines. */
void notify(const char *state);

#endif
