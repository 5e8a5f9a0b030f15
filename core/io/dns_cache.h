/* dns_cache.h - DNS answers for their time to live, bounded by number and by bytes.
 *
 * Layer: io; resolver.c's. Belongs to one thread. Times are milliseconds of the loop's clock.
 */
#ifndef TERN_IO_DNS_CACHE_H
#define TERN_IO_DNS_CACHE_H

#include "proto/dns_message.h"

enum {
    DNS_CACHE_ENTRIES = 20000,
    DNS_CACHE_BYTES = 64 << 20,
    DNS_TTL_MIN_S = 5,
    DNS_TTL_MAX_S = 86400,
    DNS_TTL_NEGATIVE_MAX_S = 900,
    DNS_TTL_FAILURE_S = 5, /* SERVFAIL, timeouts: against storms */
};

/* What a question is known by: type, and the name in small letters without a trailing dot. */
struct dns_key {
    size_t n; /* of bytes that count */
    char bytes[2 + DNS_MAX_NAME];
};
/* False: cannot be a name in the DNS, or not one that we can ask for. */
bool dns_key_make(struct dns_key *k, struct str name, enum dns_type type);
enum dns_type dns_key_type(const struct dns_key *k);
/* Lives as long as *k; with a NUL behind. */
struct str dns_key_name(const struct dns_key *k);

struct dns_cache {
    struct cached *table; /* the oldest, as uthash has it */
    size_t n, bytes;
};

void dns_cache_init(struct dns_cache *c);
void dns_cache_done(struct dns_cache *c); /* also empties one that is used on */
/* NULL: not there, or too old. The reference stays the cache's. */
struct dns_answer *dns_cache_get(struct dns_cache *c, const struct dns_key *k, int64_t now);
/* Takes a reference of its own. Out of memory: does nothing. */
void dns_cache_put(struct dns_cache *c, const struct dns_key *k, struct dns_answer *a, int64_t now);

#endif
