/* sts.c - policies of MTA-STS: looked up, fetched, kept. See sts.h. */
#include "engine/sts.h"

#include <stdio.h>

#include "base/table.h"
#include "engine/context.h"

enum { MAX_ADDRESSES = 8 };

/* A policy that is being fetched, or was lately. */
struct fetch {
    UT_hash_handle hh; /* by domain */
    struct stses *all;
    size_t domain_n;
    char domain[DNS_MAX_NAME + 1];
    char id[MTA_STS_MAX_ID + 1]; /* of the record that it is fetched for; empty: there was none */
    struct list waiting;         /* queries */
    struct dns_query *dns[2];    /* A, AAAA */
    struct net_addr addrs[MAX_ADDRESSES];
    size_t n_addrs;
    struct https_fetch *https;
    bool running;
    bool doubted;     /* what is kept is not to be believed without another look */
    int64_t again_ms; /* ended: the next one may begin then */
    /* ended well: the policy, which the spool may not have yet. As it is kept; empty: it did not end well */
    struct buf octets;
    int64_t expires_ms; /* wall */
    char why[160];      /* ended: what went wrong; empty: nothing */
    enum sts_fault fault;
};

struct sts_query {
    struct list link; /* fetch.waiting */
    struct stses *all;
    sts_done *done;
    void *owner;
    struct dns_query *dns;
    bool kept;      /* `policy` is what the spool had, and still lives */
    bool not_asked; /* the record could not be asked for */
    bool no_memory; /* to read what the spool has */
    struct buf octets;
    struct mta_sts_policy policy; /* inside of octets */
    struct str kept_id;
    size_t domain_n;
    char domain[DNS_MAX_NAME + 1];
};

struct stses {
    struct engine *engine;
    struct fetch *fetches;
};

struct stses *stses_new(struct engine *e)
{
    struct stses *s = calloc(1, sizeof(*s));

    if (s)
        s->engine = e;
    return s;
}

static struct port_dns *dns_of(const struct stses *s)
{
    return s->engine->ports.dns;
}

static struct str domain_of(const struct sts_query *q)
{
    return str_make(q->domain, q->domain_n);
}

/* ---- the end of a look-up --------------------------------------------------------------------- */

static void query_free(struct sts_query *q)
{
    list_remove(&q->link);
    if (q->dns)
        dns_of(q->all)->cancel(dns_of(q->all), q->dns);
    buf_done(&q->octets);
    free(q);
}

void sts_cancel(struct sts_query *q)
{
    query_free(q);
}

static void tell(struct sts_query *q, const struct mta_sts_policy *policy, const char *why,
                 enum sts_fault fault)
{
    /* "none" is how a domain takes its policy back (§8.3) */
    bool has = policy && policy->mode != MTA_STS_NONE;
    struct sts_result r = { .policy = has ? policy : NULL,
                            .why = why,
                            .fault = fault,
                            .unknown = !policy && (why || q->not_asked),
                            .no_memory = q->no_memory };

    list_remove(&q->link);
    q->done(q->owner, &r);
    query_free(q);
}

static void tell_kept(struct sts_query *q, const char *why, enum sts_fault fault)
{
    tell(q, q->kept ? &q->policy : NULL, why, fault);
}

/* ---- what is kept ----------------------------------------------------------------------------- */

static void read_kept(struct sts_query *q)
{
    struct port_spool *spool = q->all->engine->ports.spool;
    int64_t expires_ms = 0;
    int r = spool->kv_read(spool, STR(STS_KV), domain_of(q), &expires_ms, &q->octets);

    q->no_memory = r == -ENOMEM;
    q->kept = r == 0 && expires_ms > engine_wall(q->all->engine) &&
              mta_sts_decode(buf_str(&q->octets), &q->kept_id, &q->policy);
}

/* Frees itself when it is told: nobody waits for it. */
struct keep {
    struct spool_op op;
    struct spool_change change;
    char domain[DNS_MAX_NAME + 1];
    size_t n;
    char octets[];
};

static void on_kept(struct spool_op *op)
{
    free(CONTAINER_OF(op, struct keep, op));
}

static void keep(const struct fetch *f)
{
    struct port_spool *spool = f->all->engine->ports.spool;
    struct str octets = buf_str(&f->octets);
    struct keep *k = octets.p ? calloc(1, sizeof(*k) + octets.n) : NULL;

    if (!k)
        return; /* it is fetched again */
    memcpy(k->domain, f->domain, f->domain_n);
    memcpy(k->octets, octets.p, octets.n);
    k->change.type = SPOOL_KV_SET;
    k->change.kv = (struct spool_kv_change){
        .name = STR(STS_KV),
        .key = str_make(k->domain, f->domain_n),
        .value = str_make(k->octets, octets.n),
        .now_ms = engine_wall(f->all->engine),
        .expires_ms = f->expires_ms,
        .max = STS_MAX_KEPT,
    };
    k->op = (struct spool_op){
        .changes = &k->change, .n_changes = 1, .done = on_kept, .patient = true
    };
    spool->submit(spool, &k->op);
}

/* ---- fetching --------------------------------------------------------------------------------- */

static void fetch_free(struct fetch *f)
{
    struct port_https *https = f->all->engine->ports.https;

    for (size_t i = 0; i < ARRAY_LEN(f->dns); i++)
        if (f->dns[i])
            dns_of(f->all)->cancel(dns_of(f->all), f->dns[i]);
    if (f->https)
        https->cancel(https, f->https);
    HASH_DEL(f->all->fetches, f);
    buf_done(&f->octets);
    free(f);
}

struct stses *stses_free(struct stses *s)
{
    struct fetch *f, *next;

    if (!s)
        return NULL;
    HASH_ITER(hh, s->fetches, f, next)
        fetch_free(f);
    free(s);
    return NULL;
}

/* policy: NULL: `why` there is none. */
static void fetch_end(struct fetch *f, const struct mta_sts_policy *policy, const char *why,
                      enum sts_fault fault)
{
    f->doubted = false;
    f->fault = fault;
    f->again_ms = engine_now(f->all->engine) + STS_RETRY_MS;
    str_copy(str_of(why), f->why, sizeof(f->why));
    for (struct list *it; (it = list_pop(&f->waiting));) {
        struct sts_query *q = LIST_ENTRY(it, struct sts_query, link);
        if (policy)
            tell(q, policy, NULL, STS_FINE);
        else
            tell_kept(q, f->why, fault);
    }
    f->running = false; /* not before: who is told may want room for another one */
}

static void on_https(void *owner, const struct https_answer *a)
{
    struct fetch *f = owner;
    struct mta_sts_policy policy;
    const char *why = a->why;
    enum sts_fault fault = a->error == -EKEYREJECTED ? STS_WEBPKI : STS_NOT_FETCHED;
    char text[80];

    f->https = NULL;
    buf_clear(&f->octets);
    if (a->error == 0 && a->status != 200) {
        snprintf(text, sizeof(text), "its web server answers %u", a->status);
        why = text;
    } else if (a->error == 0 && !str_caseeq(a->type, STR("text/plain"))) {
        why = "its policy is not text/plain";
        fault = STS_INVALID;
    } else if (a->error == 0 && mta_sts_parse(a->content, &policy, &why) == 0) {
        /* Without a record nobody knows its id: it is compared with the next record's, and differs. */
        struct str id = f->id[0] ? str_of(f->id) : STR("0");
        f->expires_ms = engine_wall(f->all->engine) + (int64_t)policy.max_age_s * 1000;
        bool written =
            mta_sts_encode(id, &policy, &f->octets) == 0 &&
            mta_sts_decode(buf_str(&f->octets), &id, &policy); /* with no more text than that */
        if (written)
            keep(f);
        else
            buf_clear(&f->octets);
        fetch_end(f, &policy, "", STS_FINE);
        if (!written)
            f->again_ms = 0; /* who asks next finds nothing here */
        return;
    } else if (a->error == 0) {
        fault = STS_INVALID;
    }
    fetch_end(f, NULL, why, fault);
}

static void get(struct fetch *f)
{
    struct port_https *https = f->all->engine->ports.https;
    char host[sizeof("mta-sts.") + DNS_MAX_NAME];
    struct https_request r = { .path = STR("/.well-known/mta-sts.txt"),
                               .addrs = f->addrs,
                               .n_addrs = f->n_addrs,
                               .max_content = MTA_STS_MAX_TEXT,
                               .timeout_ms = STS_FETCH_MS };

    snprintf(host, sizeof(host), "mta-sts.%s", f->domain);
    r.host = str_of(host);
    f->https = https->get(https, &r, on_https, f);
    if (!f->https)
        fetch_end(f, NULL, "out of memory", STS_FINE); /* our fault, not the domain's */
}

static void on_address(void *owner, const struct dns_answer *a)
{
    struct fetch *f = owner;

    f->dns[a->type == DNS_AAAA] = NULL;
    for (size_t i = 0; i < a->n && f->n_addrs < MAX_ADDRESSES; i++) {
        f->addrs[f->n_addrs] = a->records[i].addr;
        f->addrs[f->n_addrs++].port = 443;
    }
    if (f->dns[0] || f->dns[1])
        return;
    if (f->n_addrs)
        get(f);
    else
        fetch_end(f, NULL, "its web server has no address", STS_NOT_FETCHED);
}

static bool ask_addresses(struct fetch *f)
{
    struct port_dns *dns = dns_of(f->all);
    char host[sizeof("mta-sts.") + DNS_MAX_NAME];

    snprintf(host, sizeof(host), "mta-sts.%s", f->domain);
    f->n_addrs = 0;
    f->dns[0] = dns->query(dns, str_of(host), DNS_A, on_address, f);
    f->dns[1] = f->dns[0] ? dns->query(dns, str_of(host), DNS_AAAA, on_address, f) : NULL;
    if (f->dns[1])
        return true;
    if (f->dns[0])
        dns->cancel(dns, TAKE(f->dns[0]));
    return false;
}

static struct fetch *fetch_of(struct stses *s, struct str domain)
{
    struct fetch *f;

    HASH_FIND(hh, s->fetches, domain.p, domain.n, f);
    return f;
}

/* Forgets the one that ended first, when there are too many. False: all of them are under way. */
static bool make_room(struct stses *s)
{
    struct fetch *f, *next;

    if (HASH_COUNT(s->fetches) < STS_MAX_DOMAINS)
        return true;
    HASH_ITER(hh, s->fetches, f, next) {
        if (!f->running) {
            fetch_free(f);
            return true;
        }
    }
    return false;
}

static struct fetch *fetch_new(struct stses *s, struct str domain)
{
    struct fetch *f = make_room(s) ? calloc(1, sizeof(*f)) : NULL;

    if (!f)
        return NULL;
    f->all = s;
    list_init(&f->waiting);
    buf_init(&f->octets, SPOOL_KV_MAX_VALUE);
    f->domain_n = domain.n;
    memcpy(f->domain, domain.p, domain.n);
    HASH_ADD(hh, s->fetches, domain, f->domain_n, f);
    if (!f->hh.tbl) {
        free(f);
        return NULL;
    }
    return f;
}

/* Of a fetch that ended a moment ago. */
static void tell_fetched(struct sts_query *q, const struct fetch *f)
{
    struct mta_sts_policy policy;
    struct str id;

    if (f->expires_ms > engine_wall(q->all->engine) &&
        mta_sts_decode(buf_str(&f->octets), &id, &policy))
        tell(q, &policy, NULL, STS_FINE);
    else
        tell_kept(q, f->why[0] ? f->why : NULL, f->fault);
}

/* Waits for the present policy, or tells what is known when it cannot be had now. */
static void fetch(struct sts_query *q, struct str id)
{
    struct fetch *f = fetch_of(q->all, domain_of(q));

    if (f && !f->running && engine_now(q->all->engine) < f->again_ms) {
        tell_fetched(q, f);
        return;
    }
    if (!f)
        f = fetch_new(q->all, domain_of(q));
    if (f && !f->running) {
        f->running = ask_addresses(f);
        str_copy(id, f->id, sizeof(f->id));
    }
    if (f && f->running)
        list_push(&f->waiting, &q->link);
    else
        tell_kept(q, "no room to fetch its policy", STS_FINE);
}

void sts_doubt(struct engine *e, struct str domain)
{
    struct fetch *f = fetch_of(e->sts, domain);

    if (!f && domain.n <= DNS_MAX_NAME)
        f = fetch_new(e->sts, domain);
    if (f)
        f->doubted = true;
}

/* ---- looking up ------------------------------------------------------------------------------- */

static void on_record(void *owner, const struct dns_answer *a)
{
    struct sts_query *q = owner;
    struct str id = STR_NONE;
    const struct fetch *f = fetch_of(q->all, domain_of(q));

    q->dns = NULL;
    read_kept(q);
    bool known = a->status != DNS_SERVFAIL && a->status != DNS_TIMEOUT;
    bool record = known && mta_sts_record(a, &id);
    bool doubted = f && f->doubted;
    q->not_asked = !known;
    /* A record that has gone does not end a policy: only the policy does, or its age (§3.3). */
    if (!known || q->no_memory || (!record && !q->kept) ||
        (record && q->kept && str_eq(id, q->kept_id) && !doubted))
        tell_kept(q, NULL, STS_FINE);
    else
        fetch(q, id);
}

struct sts_query *sts_lookup(struct engine *e, struct str domain, sts_done *done, void *owner)
{
    struct port_dns *dns = e->ports.dns;
    char name[sizeof("_mta-sts.") + DNS_MAX_NAME];
    struct sts_query *q = domain.n <= DNS_MAX_NAME ? calloc(1, sizeof(*q)) : NULL;

    if (!q)
        return NULL;
    q->all = e->sts;
    q->done = done;
    q->owner = owner;
    q->domain_n = domain.n;
    memcpy(q->domain, domain.p, domain.n);
    list_init(&q->link);
    buf_init(&q->octets, 0);
    snprintf(name, sizeof(name), "_mta-sts.%s", q->domain);
    q->dns = dns->query(dns, str_of(name), DNS_TXT, on_record, q);
    if (!q->dns) {
        query_free(q);
        return NULL;
    }
    return q;
}
