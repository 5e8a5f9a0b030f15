/* sockaddr.h - between struct net_addr and the system's socket addresses; addresses of this host.
 *
 * Layer: io.
 */
#ifndef TERN_IO_SOCKADDR_H
#define TERN_IO_SOCKADDR_H

#include <sys/socket.h>

#include "base/netaddr.h"

/* Length of the address in *ret, or -EAFNOSUPPORT (NET_NONE). */
int sockaddr_from_net(const struct net_addr *a, struct sockaddr_storage *ret);
/* Unnamed Unix peers become NET_UNIX with an empty path, unknown families NET_NONE. */
void sockaddr_to_net(const struct sockaddr_storage *s, socklen_t len, struct net_addr *ret);
/* Of the socket's own end; NET_NONE when the system does not tell. */
void sockaddr_local(int fd, struct net_addr *ret);

/* IP addresses of this host's interfaces (port 0, loopback too). Returns how many there are (only
 * the first `max` were filled), or -errno. */
int io_local_addresses(struct net_addr *ret, size_t max);

/* "connection refused": the system's words for error (>0 or <0) in small letters; dst has
 * IO_ERROR_TEXT bytes. Returns dst. */
enum { IO_ERROR_TEXT = 80 };
const char *io_error_text(int error, char *dst);

#endif
