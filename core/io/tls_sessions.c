/* tls_sessions.c - TLS sessions with hosts. Layer: io. Interface: tls_sessions.h. */
#include "io/tls_sessions.h"

#include <openssl/evp.h>

#include "base/table.h"

struct entry {
    UT_hash_handle hh;
    uint8_t key[TLS_SESSIONS_KEY];
    struct list link; /* the one used last is last */
    SSL_SESSION *session[TLS_SESSIONS_EACH];
    size_t n;
};

struct tls_sessions {
    struct entry *table;
    struct list by_use;
};

struct tls_sessions *tls_sessions_new(void)
{
    struct tls_sessions *c = calloc(1, sizeof(*c));

    if (c)
        list_init(&c->by_use);
    return c;
}

static void drop(struct tls_sessions *c, struct entry *e)
{
    HASH_DEL(c->table, e);
    list_remove(&e->link);
    while (e->n)
        SSL_SESSION_free(e->session[--e->n]);
    free(e);
}

void tls_sessions_clear(struct tls_sessions *c)
{
    struct entry *e, *next;

    HASH_ITER(hh, c->table, e, next) {
        drop(c, e);
    }
}

struct tls_sessions *tls_sessions_free(struct tls_sessions *c)
{
    if (!c)
        return NULL;
    tls_sessions_clear(c);
    free(c);
    return NULL;
}

size_t tls_sessions_count(const struct tls_sessions *c)
{
    return HASH_COUNT(c->table);
}

bool tls_sessions_key(const struct net_addr *local, const struct net_addr *peer,
                      const struct tls_request *req, uint8_t *ret)
{
    char from[NET_ADDR_TEXT], to[NET_ADDR_TEXT];
    struct buf b;

    buf_init(&b, 0);
    buf_add_u8(&b, (uint8_t)req->verify);
    buf_add_lstr(&b, str_of(net_addr_ip_text(local, from)));
    buf_add_lstr(&b, str_of(net_addr_text(peer, to)));
    buf_add_lstr(&b, req->name);
    buf_add_lstr(&b, req->dane);
    buf_add_lstr(&b, req->certificate);
    bool ok =
        !b.failed && EVP_Digest(buf_str(&b).p, buf_len(&b), ret, NULL, EVP_sha256(), NULL) == 1;
    buf_done(&b);
    return ok;
}

static struct entry *find(struct tls_sessions *c, const uint8_t *key)
{
    struct entry *e = NULL;

    HASH_FIND(hh, c->table, key, TLS_SESSIONS_KEY, e);
    return e;
}

static struct entry *add(struct tls_sessions *c, const uint8_t *key)
{
    struct entry *e;

    if (HASH_COUNT(c->table) >= TLS_SESSIONS_MAX)
        drop(c, LIST_ENTRY(c->by_use.next, struct entry, link));
    e = calloc(1, sizeof(*e));
    if (!e)
        return NULL;
    memcpy(e->key, key, TLS_SESSIONS_KEY);
    HASH_ADD(hh, c->table, key, TLS_SESSIONS_KEY, e);
    if (!e->hh.tbl) {
        free(e);
        return NULL;
    }
    list_push(&c->by_use, &e->link);
    return e;
}

static bool usable(SSL_SESSION *s, int64_t now_s)
{
    int64_t since = SSL_SESSION_get_time(s);
    int64_t age = MIN((int64_t)SSL_SESSION_get_timeout(s), (int64_t)TLS_SESSIONS_AGE_S);

    return SSL_SESSION_is_resumable(s) == 1 && now_s >= since && now_s < since + age;
}

void tls_sessions_put(struct tls_sessions *c, const uint8_t *key, SSL_SESSION *session,
                      int64_t now_s)
{
    struct entry *e = usable(session, now_s) ? find(c, key) : NULL;

    if (!e && usable(session, now_s))
        e = add(c, key);
    if (!e) {
        SSL_SESSION_free(session);
        return;
    }
    if (e->n == TLS_SESSIONS_EACH) { /* the oldest */
        SSL_SESSION_free(e->session[0]);
        memmove(e->session, e->session + 1, --e->n * sizeof(SSL_SESSION *));
    }
    e->session[e->n++] = session;
    list_remove(&e->link);
    list_push(&c->by_use, &e->link);
}

SSL_SESSION *tls_sessions_take(struct tls_sessions *c, const uint8_t *key, int64_t now_s)
{
    struct entry *e = find(c, key);
    SSL_SESSION *found = NULL;

    while (e && e->n && !found) {
        found = e->session[--e->n];
        if (!usable(found, now_s)) {
            SSL_SESSION_free(found);
            found = NULL;
        }
    }
    if (e && e->n == 0)
        drop(c, e);
    return found;
}
