/* map.c - looking up in a map. Interface: map.h. Layer: mail. */
#include "mail/map.h"

#include "base/hash.h"
#include "mail/map_internal.h"

struct map *map_ref(struct map *m)
{
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

struct map *map_unref(struct map *m)
{
    if (m && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1) {
        free(m->text);
        free(m->slots);
        buf_done(&m->more);
        free(m);
    }
    return NULL;
}

enum map_keys map_keys(const struct map *m)
{
    return m->keys;
}

size_t map_count(const struct map *m)
{
    return m->count;
}

size_t map_bytes(const struct map *m)
{
    return sizeof(*m) + m->n + buf_len(&m->more) + (m->mask + 1) * sizeof(*m->slots);
}

uint64_t map_fingerprint(const struct map *m)
{
    return m->fingerprint;
}

/* ---- rows ------------------------------------------------------------------------------------- */

static const char *place(const struct map *m, uint32_t at)
{
    return at & MAP_IN_MORE ? buf_str(&m->more).p + (at & ~MAP_IN_MORE) : m->text + at;
}

void map_row_at(const struct map *m, uint32_t at, struct map_row *ret)
{
    const char *p = place(m, at), *key = p;

    while (*p && *p != '\n')
        p++;
    ret->at = at;
    ret->key = str_make(key, (size_t)(p - key));
    ret->fields = STR_NONE;
    if (*p == '\n')
        return;
    const char *end = ++p;
    while (*end != '\n')
        end++;
    ret->fields = str_make(p, (size_t)(end - p));
}

bool map_row_next(struct str *fields, struct str *ret)
{
    return str_cut(fields, '\0', ret);
}

/* The next row in `more`: behind the number of its line. */
static bool next_of_more(const struct map *m, size_t at, size_t *cursor, struct map_row *ret)
{
    struct str more = buf_str(&m->more);

    if (!more.p || at >= more.n)
        return false;
    at += MAP_LINE_BYTES;
    map_row_at(m, (uint32_t)at | MAP_IN_MORE, ret);
    const char *end = memchr(more.p + at, '\n', more.n - at);
    *cursor = m->n + (size_t)(end - more.p) + 1;
    return true;
}

bool map_next(const struct map *m, size_t *cursor, struct map_row *ret)
{
    size_t at = *cursor;

    while (at < m->n) {
        const char *end = memchr(m->text + at, '\n', m->n - at);
        size_t next = (size_t)(end - m->text) + 1;
        while (m->text[at] == ' ')
            at++;
        if (m->text[at] != '\n' && m->text[at] != '#') {
            map_row_at(m, (uint32_t)at, ret);
            *cursor = next;
            return true;
        }
        at = next;
    }
    return next_of_more(m, at - m->n, cursor, ret);
}

unsigned map_line(const struct map *m, const struct map_row *row)
{
    unsigned line = 1;

    if (row->at & MAP_IN_MORE) {
        const char *p = place(m, row->at) - MAP_LINE_BYTES;
        struct str number = str_make(p, MAP_LINE_BYTES);
        uint32_t n = 0;
        take_u32(&number, &n);
        return n;
    }
    const char *p = m->text, *end = m->text + row->at;
    while ((p = memchr(p, '\n', (size_t)(end - p)))) {
        p++;
        line++;
    }
    return line;
}

/* ---- names ------------------------------------------------------------------------------------ */

/* A row of a network is known by what its key means, not by how it is written. */
static bool same_key(const struct map *m, uint32_t at, struct str key)
{
    const char *p = place(m, at);

    if (m->keys != MAP_KEYS_NETS)
        return memcmp(p, key.p, key.n) == 0 && (p[key.n] == '\0' || p[key.n] == '\n');
    struct map_row row;
    struct net_cidr net;
    uint8_t bytes[MAP_NET_KEY];
    map_row_at(m, at, &row);
    return net_cidr_parse(row.key, &net) == 0 &&
           str_eq(map_net_key(&net.base, net.bits, bytes), key);
}

/* Does the key fit between its place and the end of the block? Then it can be compared. */
static bool has_room(const struct map *m, uint32_t at, size_t n)
{
    if (at & MAP_IN_MORE)
        return n < buf_len(&m->more) - (at & ~MAP_IN_MORE);
    return n < m->n - at;
}

struct map_slot *map_slot_of(const struct map *m, struct str key, uint32_t *ret_tag)
{
    uint64_t h =
        hash_stable(key.p, key.n); /* the operator chose the keys, and the seed may be later */
    uint32_t tag = (uint32_t)(h >> 32);

    for (size_t i = (size_t)h & m->mask;; i = (i + 1) & m->mask) {
        struct map_slot *s = &m->slots[i];
        if (s->at == 0 ||
            (s->tag == tag && has_room(m, s->at - 1, m->keys == MAP_KEYS_NETS ? 0 : key.n) &&
             same_key(m, s->at - 1, key))) {
            *ret_tag = tag;
            return s;
        }
    }
}

bool map_find(const struct map *m, struct str key, struct map_row *ret)
{
    uint32_t tag;

    if (!key.n)
        return false;
    const struct map_slot *s = map_slot_of(m, key, &tag);
    if (s->at == 0)
        return false;
    map_row_at(m, s->at - 1, ret);
    return true;
}

static bool find_domain(const struct map *m, struct str name, struct map_row *ret)
{
    if (map_find(m, name, ret))
        return true;
    if (!name.n || *name.p == '[' || *name.p == '<')
        return false;
    for (size_t i = 1; m->has_suffixes && i < name.n; i++)
        if (name.p[i] == '.' && map_find(m, str_from(name, i), ret))
            return true;
    return m->has_any && map_find(m, STR("*"), ret);
}

bool map_find_mail(const struct map *m, struct str key, struct map_row *ret)
{
    ptrdiff_t at = str_rchr(key, '@');

    if (at < 0)
        return find_domain(m, key, ret);
    return map_find(m, key, ret) || find_domain(m, str_from(key, (size_t)at + 1), ret);
}

/* ---- networks --------------------------------------------------------------------------------- */

struct str map_net_key(const struct net_addr *a, unsigned bits, uint8_t dst[MAP_NET_KEY])
{
    unsigned whole = bits / 8, rest = bits % 8;

    memset(dst, 0, MAP_NET_KEY);
    dst[0] = a->family;
    dst[1] = (uint8_t)bits;
    memcpy(dst + 2, a->ip, whole);
    if (rest)
        dst[2 + whole] = (uint8_t)(a->ip[whole] & (0xff00 >> rest));
    return str_make(dst, MAP_NET_KEY);
}

bool map_find_net(const struct map *m, const struct net_addr *addr, struct map_row *ret)
{
    uint8_t bytes[MAP_NET_KEY];
    unsigned six = addr->family == NET_IPV6;

    if (addr->family != NET_IPV4 && addr->family != NET_IPV6)
        return false;
    for (unsigned i = 0; i < m->n_bits[six]; i++)
        if (map_find(m, map_net_key(addr, m->bits[six][i], bytes), ret))
            return true;
    return false;
}
