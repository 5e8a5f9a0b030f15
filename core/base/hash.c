/* hash.c - SipHash-1-3 (Aumasson, Bernstein) and FNV-1a.
 *
 * Layer: base. Interface: hash.h. The key is the one global of core/base: written once at start,
 * read by all threads afterwards.
 */
#include "base/hash.h"

static uint64_t key[2];

void hash_seed(uint64_t k0, uint64_t k1)
{
    key[0] = k0;
    key[1] = k1;
}

static uint64_t rotl(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static uint64_t load_le(const unsigned char *p, size_t n)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

static inline void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
}

uint64_t hash_bytes(const void *p, size_t n)
{
    const unsigned char *in = p;
    uint64_t v[4] = {
        key[0] ^ 0x736f6d6570736575u,
        key[1] ^ 0x646f72616e646f6du,
        key[0] ^ 0x6c7967656e657261u,
        key[1] ^ 0x7465646279746573u,
    };
    size_t left = n;

    for (; left >= 8; in += 8, left -= 8)
        sip_word(v, load_le(in, 8));
    sip_word(v, (uint64_t)n << 56 | load_le(in, left));
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* FNV-1a alone leaves the upper bits of short names nearly alike; this (of MurmurHash3) mixes. */
static uint64_t finish(uint64_t h)
{
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 33;
}

uint64_t hash_stable_more(uint64_t h, const void *p, size_t n)
{
    const unsigned char *in = p;

    for (size_t i = 0; i < n; i++)
        h = (h ^ in[i]) * 0x100000001b3u;
    return finish(h);
}

uint64_t hash_stable(const void *p, size_t n)
{
    return hash_stable_more(0xcbf29ce484222325u, p, n);
}
