/* net.h - TCP and Unix streams of one worker, in clear and in TLS.
 *
 * Layer: io. Implements port_net and stream_ops of engine/ports.h. Belongs to the thread of its
 * loop.
 *
 * Reading: one buffer of 64 KiB for all streams of the loop; at most that much is read from a
 * stream in one turn. What its owner leaves is copied to a buffer of the stream, which goes when
 * it is empty: an idle stream in clear costs its structure only (see net_stream_bytes). Writing:
 * what is written in one turn leaves in one system call at the end of the turn. Pieces of 16 KiB
 * and more go out at once with what waits before them, uncopied as far as the socket takes them.
 */
#ifndef TERN_IO_NET_H
#define TERN_IO_NET_H

#include "engine/ports.h"
#include "io/loop.h"
#include "io/tls.h"

struct io_net;

enum {
    NET_READ_MAX = 65536,  /* bytes read from one stream in one turn */
    NET_HIGH_MARK = 65536, /* of unsent bytes; see stream_events.drained */
    NET_LOW_MARK = 16384,
    NET_CLOSE_MS = 10000,       /* stream_close: to send what is unsent */
    NET_LINGER_MS = 2000,       /* and then for the peer to close too */
    NET_LINGER_BYTES = 1 << 20, /* of input thrown away meanwhile */
    NET_HANDSHAKE_MS = 30000,
};

/* tls: takes a reference; NULL: neither side of TLS works (stream_starttls is -ENOTSUP).
 * -ENOMEM. */
int io_net_new(struct io_loop *l, struct tls_context *tls, struct io_net **ret) MUST_USE;
/* Streams still there are closed at once, without callbacks. Before io_loop_free. Returns NULL. */
struct io_net *io_net_free(struct io_net *n);
struct port_net *io_net_port(struct io_net *n);

/* For handshakes from now on; running ones and open streams keep theirs. Takes a reference. */
void io_net_set_tls(struct io_net *n, struct tls_context *tls);

/* Makes a stream of a connected, non-blocking socket, which it owns from then on (also on failure).
 * Callbacks start on a later turn, so the caller has time to set ev and owner. -ENOMEM. */
int io_net_adopt(struct io_net *n, int fd, const struct net_addr *local,
                 const struct net_addr *peer, struct stream **ret) MUST_USE;

/* Streams that have a descriptor, those that are still closing among them. */
size_t io_net_streams(const struct io_net *n);
/* sizeof an idle stream in clear. */
size_t net_stream_bytes(void);
/* Connections could be made from that address now: it is on this machine, or the system takes any. */
bool io_net_is_here(const struct net_addr *addr);

#endif
