/* resolver.c - port_dns: cache, merging, deadlines.
 *
 * Layer: io. Interface: resolver.h.
 *
 * A lookup is one question; the queries of owners hang on it. It waits for a place, is asked,
 * and ends with the reply or at its deadline: then its queries move to the list of those that
 * are ready, which a later turn tells. A reply that ends with a CNAME is no end: the name it leads to is
 * asked for in its turn, as often as a chain may be long. A lookup that ended before c-ares let go of it lives on,
 * without queries, until the reply comes: c-ares cannot take back one question.
 */
#include "io/resolver.h"

#include "base/hash.h"
#include "io/dns_cache.h"
#include "io/dns_channel.h"

#define HASH_FUNCTION(p, n, ret) ((ret) = (unsigned)hash_bytes((p), (n)))
#define HASH_NONFATAL_OOM        1
#include <uthash.h>

enum {
    IN_FLIGHT_MAX = 1000,
    PER_TURN = 256, /* answers told, and questions begun, in one turn */
};

struct lookup {
    UT_hash_handle hh; /* in resolver.open, until it ends */
    struct io_resolver *resolver;
    struct list queries;
    struct list waiting; /* for a place */
    struct timer deadline;
    bool asked, ended;
    struct dns_key key;
    struct dns_key asking; /* key, or where CNAMEs have led from it */
    unsigned cnames;       /* so far, */
    uint32_t ttl;          /* the smallest of theirs, */
    bool authentic;        /* and whether all were validated */
};

struct dns_query {
    struct list link;      /* of lookup.queries, then of resolver.ready */
    struct lookup *lookup; /* NULL: ready */
    struct dns_answer *answer;
    dns_done *done;
    void *owner;
};

struct io_resolver {
    struct port_dns port;
    struct io_loop *loop;
    struct dns_channel *channel;
    struct dns_channel *old[4]; /* of former configurations, with questions still open */
    int64_t timeout_ms;
    struct dns_cache cache;
    struct lookup *open; /* by key: those that can be joined */
    struct list waiting; /* lookup.waiting */
    struct list ready;   /* dns_query.link */
    struct later tell, pump;
    struct dns_answer *no_memory; /* what is told when not even an answer can be made */
    struct io_resolver_stats stats;
};

/* ---- telling --------------------------------------------------------------------------------- */

static void make_ready(struct io_resolver *r, struct dns_query *q, struct dns_answer *a)
{
    q->lookup = NULL;
    q->answer = dns_answer_ref(a);
    list_remove(&q->link);
    list_push(&r->ready, &q->link);
    io_loop_later(r->loop, &r->tell);
}

static void on_tell(struct later *l)
{
    struct io_resolver *r = CONTAINER_OF(l, struct io_resolver, tell);
    struct list told, *node;

    list_init(&told);
    for (int i = 0; i < PER_TURN && (node = list_pop(&r->ready)); i++) {
        struct dns_query *q = LIST_ENTRY(node, struct dns_query, link);
        list_push(&told, node);
        q->done(q->owner, q->answer);
    }
    LIST_FOREACH(gone, &told)
    {
        struct dns_query *q = LIST_ENTRY(gone, struct dns_query, link);
        dns_answer_unref(q->answer);
        free(q);
    }
    if (!list_empty(&r->ready))
        io_loop_later(r->loop, &r->tell);
}

/* ---- lookups --------------------------------------------------------------------------------- */

/* No query hangs on it any more, and nobody can join. Memory goes when c-ares has let go too. */
static void end_lookup(struct lookup *l)
{
    struct io_resolver *r = l->resolver;

    if (!l->ended) {
        l->ended = true;
        HASH_DEL(r->open, l);
        io_loop_timer_stop(r->loop, &l->deadline);
        list_remove(&l->waiting);
    }
    if (!l->asked)
        free(l);
}

/* Takes over the reference. */
static void answer_lookup(struct lookup *l, struct dns_answer *a)
{
    struct io_resolver *r = l->resolver;

    if (!a)
        a = dns_answer_ref(r->no_memory);
    else
        dns_cache_put(&r->cache, &l->key, a, io_loop_now(r->loop));
    r->stats.timeouts += a->status == DNS_TIMEOUT;
    r->stats.failures += a->status == DNS_SERVFAIL;
    LIST_FOREACH(node, &l->queries)
    make_ready(r, LIST_ENTRY(node, struct dns_query, link), a);
    end_lookup(l);
    dns_answer_unref(a);
}

static struct dns_answer *plain_answer(const struct lookup *l, enum dns_status status)
{
    return dns_answer_make(dns_key_name(&l->key), dns_key_type(&l->key), status, NULL, 0, 0);
}

static void ask(struct lookup *l);

/* Takes over the answer's reference, and returns one to the lookup's own question. NULL: no memory. */
static struct dns_answer *answer_of_chain(const struct lookup *l, struct dns_answer *a)
{
    if (!a || l->cnames == 0)
        return a;
    struct dns_answer *whole =
        dns_answer_alias(a, dns_key_name(&l->key), MIN(l->ttl, a->ttl), l->authentic);
    dns_answer_unref(a);
    return whole;
}

/* Goes on with the name where the answer's CNAMEs end. False: it cannot be asked for, or the chain is too
 * long (then *ret_long). Else l may be gone. */
static bool follow(struct lookup *l, const struct dns_answer *a, bool *ret_long)
{
    *ret_long = l->cnames + a->cnames > DNS_MAX_CNAMES;
    if (*ret_long || !dns_key_make(&l->asking, a->canonical, dns_key_type(&l->key)))
        return false;
    l->cnames += a->cnames;
    l->ttl = MIN(l->ttl, a->ttl);
    l->authentic &= a->authentic;
    ask(l);
    return true;
}

static void on_reply(void *arg, const void *bytes, size_t n, enum dns_status status)
{
    struct lookup *l = arg;
    struct io_resolver *r = l->resolver;
    struct dns_answer *a = NULL;
    bool too_long = false;
    int error = 0;

    l->asked = false;
    r->stats.in_flight--;
    io_loop_later(r->loop, &r->pump);
    if (bytes)
        error = dns_message_parse(bytes, n, dns_key_name(&l->asking), dns_key_type(&l->key), &a);
    bool dangling = a && a->dangling;
    if (dangling && !l->ended && follow(l, a, &too_long)) {
        dns_answer_unref(a);
        return;
    }
    if (too_long || (l->cnames + (a ? a->cnames : 0) > DNS_MAX_CNAMES)) {
        dns_answer_unref(a);
        a = plain_answer(l, DNS_SERVFAIL);
    } else if (!bytes || error == -EBADMSG) {
        a = plain_answer(l, bytes ? DNS_SERVFAIL : status);
    } else {
        a = answer_of_chain(l, a);
    }
    if (!l->ended) {
        answer_lookup(l, a);
        return;
    }
    /* Too late for those who asked, not for those who will. */
    if (a && bytes && a->status != DNS_SERVFAIL && !dangling)
        dns_cache_put(&r->cache, &l->key, a, io_loop_now(r->loop));
    dns_answer_unref(a);
    end_lookup(l);
}

static void on_deadline(struct timer *t)
{
    struct lookup *l = CONTAINER_OF(t, struct lookup, deadline);
    answer_lookup(l, plain_answer(l, DNS_TIMEOUT));
}

static void ask(struct lookup *l)
{
    struct io_resolver *r = l->resolver;

    list_remove(&l->waiting);
    l->asked = true;
    r->stats.in_flight++;
    r->stats.sent++;
    dns_channel_ask(r->channel, dns_key_name(&l->asking).p, dns_key_type(&l->key), on_reply, l);
}

static void drop_idle_channels(struct io_resolver *r)
{
    for (size_t i = 0; i < ARRAY_LEN(r->old); i++)
        if (r->old[i] && dns_channel_open(r->old[i]) == 0)
            r->old[i] = dns_channel_free(r->old[i]);
}

static void on_pump(struct later *later)
{
    struct io_resolver *r = CONTAINER_OF(later, struct io_resolver, pump);

    drop_idle_channels(r);
    for (int i = 0; i < PER_TURN && r->stats.in_flight < IN_FLIGHT_MAX; i++) {
        struct list *node = list_first(&r->waiting);
        if (!node)
            return;
        ask(LIST_ENTRY(node, struct lookup, waiting));
    }
    if (r->stats.in_flight < IN_FLIGHT_MAX)
        io_loop_later(r->loop, &r->pump);
}

static struct lookup *new_lookup(struct io_resolver *r, const struct dns_key *key)
{
    struct lookup *l = malloc(sizeof(*l));

    if (!l)
        return NULL;
    *l = (struct lookup){
        .resolver = r, .key = *key, .asking = *key, .ttl = UINT32_MAX, .authentic = true
    };
    list_init(&l->queries);
    list_init(&l->waiting);
    timer_init(&l->deadline, on_deadline);
    HASH_ADD_KEYPTR(hh, r->open, l->key.bytes, l->key.n, l);
    if (!l->hh.tbl) {
        free(l);
        return NULL;
    }
    io_loop_timer_set(r->loop, &l->deadline, io_loop_now(r->loop) + r->timeout_ms);
    return l;
}

/* ---- the port -------------------------------------------------------------------------------- */

/* What is known without asking: NULL when nothing is. A reference of the caller's. */
static struct dns_answer *known_answer(struct str name, enum dns_type type)
{
    struct dns_record record = { 0 };
    bool a = type == DNS_A, aaaa = type == DNS_AAAA;

    if (str_ends(name, STR(".")))
        name.n--;
    if (!str_caseeq(name, STR("localhost")) && !str_caseends(name, STR(".localhost")))
        return NULL;
    net_addr_parse_ip(aaaa ? STR("::1") : STR("127.0.0.1"), &record.addr);
    return dns_answer_make(name, type, a || aaaa ? DNS_OK : DNS_NODATA, &record, a || aaaa, 3600);
}

/* Joins an open lookup, or begins one. */
static int look_up(struct io_resolver *r, const struct dns_key *key, struct dns_query *q)
{
    struct lookup *l;

    HASH_FIND(hh, r->open, key->bytes, key->n, l);
    if (l) {
        r->stats.merged++;
        q->lookup = l;
        list_push(&l->queries, &q->link);
        return 0;
    }
    l = new_lookup(r, key);
    if (!l)
        return -ENOMEM;
    q->lookup = l;
    list_push(&l->queries, &q->link);
    if (r->stats.in_flight < IN_FLIGHT_MAX && list_empty(&r->waiting))
        ask(l); /* l may be gone now */
    else
        list_push(&r->waiting, &l->waiting);
    return 0;
}

static struct dns_query *query(struct port_dns *self, struct str name, enum dns_type type,
                               dns_done *done, void *owner)
{
    struct io_resolver *r = CONTAINER_OF(self, struct io_resolver, port);
    struct dns_query *q = malloc(sizeof(*q));
    struct dns_answer *a, *own = NULL;
    struct dns_key key;

    if (!q)
        return NULL;
    *q = (struct dns_query){ .done = done, .owner = owner };
    list_init(&q->link);
    r->stats.queries++;
    if (!dns_key_make(&key, name, type)) {
        a = own = dns_answer_make(name, type, DNS_NXDOMAIN, NULL, 0, 0);
    } else if ((a = dns_cache_get(&r->cache, &key, io_loop_now(r->loop)))) {
        r->stats.hits++;
    } else {
        a = own = known_answer(name, type);
        if (!a && look_up(r, &key, q) == 0)
            return q;
    }
    make_ready(r, q, a ? a : r->no_memory);
    dns_answer_unref(own);
    return q;
}

static void cancel(struct port_dns *self, struct dns_query *q)
{
    struct lookup *l = q->lookup;

    list_remove(&q->link);
    dns_answer_unref(q->answer);
    free(q);
    /* What has been asked goes on, for the cache; what only waits for a place gives it up. */
    if (l && list_empty(&l->queries) && !l->asked)
        end_lookup(l);
}

/* ---- life ------------------------------------------------------------------------------------ */

int io_resolver_new(struct io_loop *l, const struct net_addr *servers, size_t n, int64_t timeout_ms,
                    bool trust_ad, struct io_resolver **ret)
{
    struct io_resolver *r = malloc(sizeof(*r));

    if (!r)
        return -ENOMEM;
    *r = (struct io_resolver){
        .port = { .query = query, .cancel = cancel },
        .loop = l,
        .timeout_ms = timeout_ms,
        .no_memory = dns_answer_make(STR(""), DNS_A, DNS_SERVFAIL, NULL, 0, 0),
    };
    dns_cache_init(&r->cache);
    list_init(&r->waiting);
    list_init(&r->ready);
    later_init(&r->tell, on_tell);
    later_init(&r->pump, on_pump);
    int error =
        r->no_memory ? dns_channel_new(l, servers, n, timeout_ms, trust_ad, &r->channel) : -ENOMEM;
    if (error < 0) {
        dns_answer_unref(r->no_memory);
        free(r);
        return error;
    }
    *ret = r;
    return 0;
}

struct io_resolver *io_resolver_free(struct io_resolver *r)
{
    struct lookup *l, *next;

    if (!r)
        return NULL;
    HASH_ITER(hh, r->open, l, next) {
        LIST_FOREACH(node, &l->queries)
        free(LIST_ENTRY(node, struct dns_query, link));
        list_init(&l->queries);
        end_lookup(l);
    }
    dns_channel_free(r->channel); /* and with it what it had been asked */
    for (size_t i = 0; i < ARRAY_LEN(r->old); i++)
        dns_channel_free(r->old[i]);
    LIST_FOREACH(node, &r->ready)
    {
        struct dns_query *q = LIST_ENTRY(node, struct dns_query, link);
        dns_answer_unref(q->answer);
        free(q);
    }
    list_remove(&r->tell.link);
    list_remove(&r->pump.link);
    dns_cache_done(&r->cache);
    dns_answer_unref(r->no_memory);
    free(r);
    return NULL;
}

struct port_dns *io_resolver_port(struct io_resolver *r)
{
    return &r->port;
}

int io_resolver_configure(struct io_resolver *r, const struct net_addr *servers, size_t n,
                          int64_t timeout_ms, bool trust_ad)
{
    struct dns_channel *fresh;
    int error = dns_channel_new(r->loop, servers, n, timeout_ms, trust_ad, &fresh);

    if (error < 0)
        return error;
    drop_idle_channels(r);
    size_t place = 0;
    while (place < ARRAY_LEN(r->old) && r->old[place])
        place++;
    struct dns_channel *was = r->channel, **at = &r->old[place % ARRAY_LEN(r->old)];
    /* What is remembered was believed, or not, by the rule before. */
    if (dns_channel_trusted(fresh) != dns_channel_trusted(was))
        io_resolver_flush(r);
    r->channel = fresh;
    r->timeout_ms = timeout_ms;
    dns_channel_free(*at); /* never, unless somebody reloads many times in one timeout */
    *at = was;
    io_loop_later(r->loop, &r->pump);
    return 0;
}

void io_resolver_flush(struct io_resolver *r)
{
    dns_cache_done(&r->cache);
}

void io_resolver_get_stats(const struct io_resolver *r, struct io_resolver_stats *ret)
{
    *ret = r->stats;
    ret->cached = r->cache.n;
    ret->waiting = 0;
    LIST_FOREACH(node, &r->waiting)
    ret->waiting++;
}
