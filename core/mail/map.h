/* map.h - a table read from a text, as `tern.map` has it: names or networks, each with some values.
 *
 * Layer: mail. The text is CSV: one row a line, fields between commas, the key first:
 *
 *     # who is routed where
 *     example.com,      relay, 10.1.2.3:25
 *     .branch.example,  relay, "[2001:db8::7]:2525"
 *     münchen.example,  backup
 *
 * Blanks around a field do not count; "..." holds commas and blanks, and "" in it is one quote. Empty
 * lines, and lines that begin with '#', are skipped. UTF-8 (a byte order mark is skipped), LF or
 * CR LF; no control bytes but tabs. A key stands once.
 *
 * Immutable once made, counted atomically: all workers share one. It is one block, the text itself
 * with its keys brought into normal form in place, and a table of places in it: about the file's size
 * and 16 octets a row. What is looked up costs the same with ten rows and with ten million.
 */
#ifndef TERN_MAIL_MAP_H
#define TERN_MAIL_MAP_H

#include "base/err.h"
#include "base/netaddr.h"
#include "base/str.h"

enum map_keys {
    MAP_KEYS_MAIL, /* domains, ".domain", "*", addresses, "<>": in normal form (A-labels) */
    MAP_KEYS_TEXT, /* any text, as it is */
    MAP_KEYS_NETS, /* addresses and networks */
};

enum {
    MAP_MAX_BYTES = 1 << 30, /* of a file */
    MAP_MAX_FIELDS = 64,     /* of a row, the key included */
    MAP_MAX_KEY = 512,       /* octets in normal form */
};

struct map;

/* One row. Strings live as long as the map. */
struct map_row {
    struct str key;    /* normal form; of a network as written */
    struct str fields; /* the values, as map_row_next cuts them */
    uint32_t at;       /* the same row has the same number while the map lives */
};

struct map_error {
    unsigned line;  /* 0: none */
    char text[512]; /* without the line */
};

/* bytes: a heap block with room for n + 1 octets; taken over, and freed when this fails. 0, -EINVAL
 * (with *err), -EFBIG, -ENOMEM. */
int map_new(char *bytes, size_t n, enum map_keys keys, struct map **ret, struct map_error *err);
struct map *map_ref(struct map *m);
struct map *map_unref(struct map *m); /* returns NULL; NULL is fine */

enum map_keys map_keys(const struct map *m);
size_t map_count(const struct map *m);         /* rows */
size_t map_bytes(const struct map *m);         /* of memory, about */
uint64_t map_fingerprint(const struct map *m); /* of the text: the same in every process */

/* The normal form of a key into dst (MAP_MAX_KEY octets): its length, or -EINVAL (no domain, no
 * address), -ENOMEM. MAP_KEYS_TEXT: as it is. Not for networks. */
ptrdiff_t map_key_normalize(enum map_keys keys, struct str key, char *dst);

/* The row of that very key, in normal form. */
bool map_find(const struct map *m, struct str key, struct map_row *ret);
/* Of an address: itself, else as of its domain. Of a domain: itself, else the most specific
 * ".suffix", else "*". Of "<>" and "[...]": itself. In normal form. */
bool map_find_mail(const struct map *m, struct str key, struct map_row *ret);
/* The row of the longest prefix that holds the address. */
bool map_find_net(const struct map *m, const struct net_addr *addr, struct map_row *ret);

/* All rows: *cursor begins as 0. False: that was the last. In the order of the file, but those whose
 * keys are longer in normal form come last. */
bool map_next(const struct map *m, size_t *cursor, struct map_row *ret);
/* Counts, so not for each look-up. */
unsigned map_line(const struct map *m, const struct map_row *row);
/* Cuts the first value from *fields. False: there is none left. */
bool map_row_next(struct str *fields, struct str *ret);

#endif
