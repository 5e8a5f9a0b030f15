/* map_internal.h - how a map lies in memory. Layer: mail; of map.c and map_read.c only.
 *
 * A row: the key, then each value behind a NUL, then LF: no field can hold either. In `text` a row
 * ends where its line ended, so lines can be counted; what is in front of it in its line is blank, and
 * lines without a row are empty or begin with '#'. Rows whose key grew are in `more`, each behind the
 * number of its line (4 octets), and their line in `text` begins with '#'.
 */
#ifndef TERN_MAIL_MAP_INTERNAL_H
#define TERN_MAIL_MAP_INTERNAL_H

#include <stdatomic.h>

#include "base/buf.h"
#include "mail/map.h"

#define MAP_IN_MORE 0x80000000u /* flag of a place */

enum { MAP_LINE_BYTES = 4 };

struct map_slot {
    uint32_t tag; /* part of the hash */
    uint32_t at;  /* of the row's key, plus one; 0: empty */
};

struct map {
    atomic_uint refs;
    enum map_keys keys;
    char *text;
    size_t n;
    struct buf more;
    struct map_slot *slots; /* a power of two, at most half full */
    size_t mask;
    size_t count;
    uint64_t fingerprint;
    bool has_suffixes, has_any;
    /* Networks: which lengths there are, the longest first. */
    uint8_t bits[2][129];
    unsigned n_bits[2];
};

/* The slot of the key: its row's, or an empty one. */
struct map_slot *map_slot_of(const struct map *m, struct str key, uint32_t *ret_tag);
void map_row_at(const struct map *m, uint32_t at, struct map_row *ret);

/* A network as a key: family, length, the octets of the address. */
enum { MAP_NET_KEY = 18 };
struct str map_net_key(const struct net_addr *a, unsigned bits, uint8_t dst[MAP_NET_KEY]);

#endif
