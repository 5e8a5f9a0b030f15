/* dns_cache.c - a hash table, whose elements uthash keeps in the order in which they came.
 *
 * Layer: io. Interface: dns_cache.h. Strangers choose the names, so the hash is keyed.
 */
#include "io/dns_cache.h"

#include "base/hash.h"

#define HASH_FUNCTION(p, n, ret) ((ret) = (unsigned)hash_bytes((p), (n)))
#define HASH_NONFATAL_OOM        1
#include <uthash.h>

struct cached {
    UT_hash_handle hh;
    struct dns_answer *answer;
    int64_t expires;
    size_t bytes; /* about what it costs */
    size_t key_n;
    char key[];
};

/* ---- keys ------------------------------------------------------------------------------------ */

static bool label_byte(char c)
{
    /* c-ares reads a backslash as an escape. */
    return c > ' ' && c < 0x7f && c != '\\';
}

bool dns_key_make(struct dns_key *k, struct str name, enum dns_type type)
{
    size_t label = 0;

    if (name.n && name.p[name.n - 1] == '.')
        name.n--;
    if (name.n > DNS_MAX_NAME - 2) /* the wire form is two octets longer */
        return false;
    memset(k->bytes, 0, sizeof(k->bytes));
    k->bytes[0] = (char)(type >> 8);
    k->bytes[1] = (char)type;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        if (c == '.') {
            if (label == 0)
                return false;
            label = 0;
        } else if (!label_byte(c) || ++label > 63) {
            return false;
        }
        k->bytes[2 + i] = ascii_lower(c);
    }
    if (name.n && label == 0)
        return false;
    k->n = 2 + name.n;
    return true;
}

enum dns_type dns_key_type(const struct dns_key *k)
{
    return (enum dns_type)((unsigned char)k->bytes[0] << 8 | (unsigned char)k->bytes[1]);
}

struct str dns_key_name(const struct dns_key *k)
{
    return str_make(k->bytes + 2, k->n - 2);
}

/* ---- the cache ------------------------------------------------------------------------------- */

static size_t cost(const struct dns_answer *a)
{
    size_t n = sizeof(struct cached) + sizeof(*a) + a->n * sizeof(*a->records) + a->question.n * 2 +
               a->canonical.n;

    for (size_t i = 0; i < a->n; i++)
        n += a->records[i].name.n;
    return n;
}

static int64_t life_ms(const struct dns_answer *a)
{
    int64_t ttl = a->ttl, max = DNS_TTL_FAILURE_S;

    if (a->status == DNS_OK)
        max = DNS_TTL_MAX_S;
    else if (a->status == DNS_NODATA || a->status == DNS_NXDOMAIN)
        max = DNS_TTL_NEGATIVE_MAX_S;
    return MIN(MAX(ttl, (int64_t)DNS_TTL_MIN_S), max) * 1000;
}

static void drop(struct dns_cache *c, struct cached *e)
{
    CHECK(c->table);
    HASH_DEL(c->table, e);
    c->n--;
    c->bytes -= e->bytes;
    dns_answer_unref(e->answer);
    free(e);
}

static struct cached *find(struct dns_cache *c, const struct dns_key *k)
{
    struct cached *e;

    HASH_FIND(hh, c->table, k->bytes, k->n, e);
    return e;
}

struct dns_answer *dns_cache_get(struct dns_cache *c, const struct dns_key *k, int64_t now)
{
    struct cached *e = find(c, k);

    if (!e)
        return NULL;
    if (e->expires > now)
        return e->answer;
    drop(c, e);
    return NULL;
}

void dns_cache_put(struct dns_cache *c, const struct dns_key *k, struct dns_answer *a, int64_t now)
{
    struct cached *e = find(c, k);

    if (e)
        drop(c, e);
    e = malloc(sizeof(*e) + k->n);
    if (!e)
        return;
    *e = (struct cached){
        .answer = a,
        .expires = now + life_ms(a),
        .bytes = cost(a),
        .key_n = k->n,
    };
    memcpy(e->key, k->bytes, k->n);
    HASH_ADD_KEYPTR(hh, c->table, e->key, e->key_n, e);
    if (!e->hh.tbl) { /* no memory for the table */
        free(e);
        return;
    }
    dns_answer_ref(a);
    c->n++;
    c->bytes += e->bytes;
    while (c->n > DNS_CACHE_ENTRIES || c->bytes > DNS_CACHE_BYTES)
        drop(c, c->table); /* NOLINT(clang-analyzer-unix.Malloc): uthash moves the head */
}

void dns_cache_init(struct dns_cache *c)
{
    *c = (struct dns_cache){ 0 };
}

void dns_cache_done(struct dns_cache *c)
{
    struct cached *e = c->table, *next;

    HASH_CLEAR(hh, c->table); /* the table only */
    for (; e; e = next) {
        next = e->hh.next;
        dns_answer_unref(e->answer);
        free(e);
    }
    c->n = c->bytes = 0;
}
