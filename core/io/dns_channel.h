/* dns_channel.h - questions to DNS servers: c-ares in the loop.
 *
 * Layer: io; resolver.c's. Belongs to the thread of its loop. Knows nothing of caches or owners:
 * one question out, one reply back, within about the time given for it.
 */
#ifndef TERN_IO_DNS_CHANNEL_H
#define TERN_IO_DNS_CHANNEL_H

#include "io/loop.h"

struct dns_channel;

/* A message as it came (status DNS_OK, whatever its rcode), or none (bytes NULL): DNS_TIMEOUT,
 * DNS_SERVFAIL, DNS_NXDOMAIN (a name that cannot be). bytes live during the call. */
typedef void dns_reply_cb(void *arg, const void *bytes, size_t n, enum dns_status status);

/* timeout_ms: what all tries with all servers may take. trust_ad: the AD bit is passed on as it came; else
 * only when every server is on a loopback address, for nobody is between. -ENOMEM, -EINVAL. */
int dns_channel_new(struct io_loop *l, const struct net_addr *servers, size_t n, int64_t timeout_ms,
                    bool trust_ad, struct dns_channel **ret) MUST_USE;
/* What is open is answered with DNS_SERVFAIL. Returns NULL; NULL is fine. */
struct dns_channel *dns_channel_free(struct dns_channel *c);
/* Whether the AD bit of its answers is passed on. */
bool dns_channel_trusted(const struct dns_channel *c);
/* Questions handed to it that have no reply yet. */
size_t dns_channel_open(const struct dns_channel *c);

/* Always leads to exactly one reply; that can come before this returns. name: without trailing
 * dot, NUL behind; not kept. */
void dns_channel_ask(struct dns_channel *c, const char *name, enum dns_type type,
                     dns_reply_cb *reply, void *arg);

#endif
