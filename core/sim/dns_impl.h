/* dns_impl.h - what dns.c and dns_zone.c share. Layer: sim, internal. */
#ifndef TERN_SIM_DNS_IMPL_H
#define TERN_SIM_DNS_IMPL_H

#include "base/arena.h"
#include "sim/dns.h"

struct zone_record {
    struct list link;
    struct str owner; /* lower case, without the last dot */
    enum dns_type type;
    uint32_t ttl;
    struct dns_record data;
};

/* Reads the text into `into`; strings live in the arena. -EINVAL with why. */
int zone_parse(struct arena *a, struct str text, struct list *into, char *ret_why, size_t size);
/* Lower case, without the last dot. */
struct str zone_name(struct arena *a, struct str name);

#endif
