/* hash.h - hashing of names. Layer: base. */
#ifndef TERN_BASE_HASH_H
#define TERN_BASE_HASH_H

#include "base/str.h"

/* SipHash-1-3 with a key drawn at start: for tables whose keys a stranger chooses. hash_seed is
 * called once, before there are threads or tables. */
void hash_seed(uint64_t k0, uint64_t k1);
uint64_t hash_bytes(const void *p, size_t n);
/* FNV-1a with a finaliser, the same in every process: for what is written down or must agree
 * between runs (which worker owns a queue, a fingerprint of policy sources). */
uint64_t hash_stable(const void *p, size_t n);
/* Continues h with one more item; the bounds of the items count ("ab","c" is not "a","bc"). */
uint64_t hash_stable_more(uint64_t h, const void *p, size_t n);

#endif
