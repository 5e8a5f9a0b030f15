/* https.h - fetching a page by HTTPS: port_https of engine/ports.h, over libcurl.
 *
 * Layer: io. Belongs to the thread of its loop. libcurl's sockets and timer are those of the loop; it looks up no names
 * (the request brings the addresses), reads no configuration of its own, uses no proxy, follows no redirect and
 * keeps no connection. At most HTTPS_MOST fetches at a time; more wait for their turn.
 */
#ifndef TERN_IO_HTTPS_H
#define TERN_IO_HTTPS_H

#include "io/loop.h"

enum { HTTPS_MOST = 16, HTTPS_MAX_QUEUED = 1024 };

struct io_https;

/* The first one is made before there are other threads, as libcurl demands. ca: PEM file of trusted roots; empty: the system's.
 * -ENOMEM, -EIO. */
int io_https_new(struct io_loop *l, struct str ca, struct io_https **ret) MUST_USE;
/* Fetches under way are dropped without a word. Before io_loop_free. Returns NULL; NULL is fine. */
struct io_https *io_https_free(struct io_https *h);
struct port_https *io_https_port(struct io_https *h);
/* For fetches from now on. -ENOMEM: what was set before stays. */
int io_https_set_ca(struct io_https *h, struct str ca);

#endif
