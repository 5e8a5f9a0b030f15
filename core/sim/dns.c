/* dns.c - questions and answers of the simulated DNS. Layer: sim. Interface: dns.h. */
#include "sim/dns.h"

#include "sim/dns_impl.h"

enum { TIMEOUT_MS = 10000 };

struct fault {
    struct list link;
    struct str name;
    enum dns_type type;
    enum dns_status status;
};

/* Which names are in signed zones. */
struct signing {
    struct list link;
    struct str name;
    bool secure;
};

/* One line of the log: how often a question was asked. */
struct asked {
    struct list link;
    struct str name;
    enum dns_type type;
    uint64_t count;
};

struct sim_dns {
    struct port_dns port;
    struct sim_clock *clock;
    struct arena arena; /* never shrinks: answers point into it */
    struct list records, faults, signings, log, open;
    int64_t latency_ms;
};

struct dns_query {
    struct list link;
    struct sim_dns *dns;
    struct timer timer;
    struct str name;
    enum dns_type type;
    dns_done *done;
    void *owner;
};

/* ---- looking up ------------------------------------------------------------------------------- */

static bool is_below(struct str name, struct str parent)
{
    return name.n > parent.n && name.p[name.n - parent.n - 1] == '.' && str_ends(name, parent);
}

static bool exists(const struct sim_dns *d, struct str name)
{
    LIST_FOREACH(it, &d->records)
    {
        const struct zone_record *r = LIST_ENTRY(it, struct zone_record, link);
        if (str_eq(r->owner, name) || is_below(r->owner, name))
            return true;
    }
    return false;
}

/* The owner whose records answer for `name`: itself, or the wildcard nearest to it (RFC 4592). */
static struct str find_owner(const struct sim_dns *d, struct str name, char *dst, size_t size)
{
    if (exists(d, name))
        return name;
    for (struct str up = name;;) {
        ptrdiff_t dot = str_chr(up, '.');
        if (dot < 0 || up.n + 2 > size)
            return STR_NONE;
        up = str_from(up, (size_t)dot + 1);
        dst[0] = '*';
        dst[1] = '.';
        memcpy(dst + 2, up.p, up.n);
        struct str wild = str_make(dst, up.n + 2);
        if (exists(d, wild))
            return wild;
        if (exists(d, up))
            return STR_NONE;
    }
}

static size_t collect(const struct sim_dns *d, struct str owner, enum dns_type type,
                      struct dns_record *ret, uint32_t *ret_ttl)
{
    size_t n = 0;
    LIST_FOREACH(it, &d->records)
    {
        const struct zone_record *r = LIST_ENTRY(it, struct zone_record, link);
        if (r->type != type || !str_eq(r->owner, owner) || n == DNS_MAX_RECORDS)
            continue;
        *ret_ttl = n ? MIN(*ret_ttl, r->ttl) : r->ttl;
        ret[n++] = r->data;
    }
    return n;
}

struct lookup {
    enum dns_status status;
    struct str canonical; /* in the zone's arena, or the question */
    struct dns_record records[DNS_MAX_RECORDS];
    size_t n;
    uint32_t ttl;
    bool secure;
};

static bool is_localhost(struct str name)
{
    return str_eq(name, STR("localhost")) || str_ends(name, STR(".localhost"));
}

static void look_up_localhost(enum dns_type type, struct lookup *ret)
{
    struct str text = type == DNS_A ? STR("127.0.0.1") : STR("::1");
    ret->status = DNS_NODATA;
    if (type != DNS_A && type != DNS_AAAA)
        return;
    CHECK(net_addr_parse_ip(text, &ret->records[0].addr) == 0);
    ret->status = DNS_OK;
    ret->n = 1;
}

static bool is_secure(const struct sim_dns *d, struct str name)
{
    LIST_FOREACH(it, &d->signings)
    {
        const struct signing *s = LIST_ENTRY(it, struct signing, link);
        if (str_eq(s->name, STR("*")) || str_eq(s->name, name) || is_below(name, s->name))
            return s->secure;
    }
    return false;
}

static void look_up(const struct sim_dns *d, struct str name, enum dns_type type,
                    struct lookup *ret)
{
    char wild[DNS_MAX_NAME + 3];
    ret->canonical = name;
    ret->n = 0;
    ret->ttl = 0;
    ret->secure = is_secure(d, name);
    if (is_localhost(name)) {
        look_up_localhost(type, ret);
        return;
    }
    for (int hops = 0; hops <= DNS_MAX_CNAMES; hops++) {
        struct str owner = find_owner(d, ret->canonical, wild, sizeof wild);
        ret->status = owner.p ? DNS_NODATA : DNS_NXDOMAIN;
        if (!owner.p)
            return;
        ret->n = collect(d, owner, type, ret->records, &ret->ttl);
        if (ret->n > 0) {
            ret->status = DNS_OK;
            return;
        }
        struct dns_record cname[DNS_MAX_RECORDS];
        if (type == DNS_CNAME || collect(d, owner, DNS_CNAME, cname, &ret->ttl) == 0)
            return;
        ret->canonical = cname[0].name;
        ret->secure &= is_secure(d, ret->canonical);
    }
    ret->status = DNS_SERVFAIL; /* a loop, or too long a chain */
}

static enum dns_status fault_of(const struct sim_dns *d, struct str name, enum dns_type type)
{
    LIST_FOREACH(it, &d->faults)
    {
        const struct fault *f = LIST_ENTRY(it, struct fault, link);
        if ((f->type == 0 || f->type == type) &&
            (str_eq(f->name, name) || str_eq(f->name, STR("*"))))
            return f->status;
    }
    return DNS_OK;
}

static struct dns_answer *answer_to(struct sim_dns *d, struct str name, enum dns_type type)
{
    struct lookup found = { .status = fault_of(d, name, type), .canonical = name };
    if (found.status == DNS_OK)
        look_up(d, name, type, &found);
    struct dns_answer *a =
        dns_answer_make(name, type, found.status, found.records, found.n, found.ttl);
    CHECK(a != NULL);
    a->authentic = found.secure && found.status != DNS_SERVFAIL;
    if (!str_eq(found.canonical, name))
        a->canonical = found.canonical;
    return a;
}

/* ---- the port --------------------------------------------------------------------------------- */

static void query_free(struct dns_query *q)
{
    sim_timer_stop(q->dns->clock, &q->timer);
    list_remove(&q->link);
    free((char *)q->name.p);
    free(q);
}

static void answered(struct timer *t)
{
    struct dns_query *q = CONTAINER_OF(t, struct dns_query, timer);
    dns_done *done = q->done;
    void *owner = q->owner;
    struct dns_answer *a = answer_to(q->dns, q->name, q->type);
    query_free(q);
    done(owner, a);
    dns_answer_unref(a);
}

static void log_question(struct sim_dns *d, struct str name, enum dns_type type)
{
    LIST_FOREACH(it, &d->log)
    {
        struct asked *a = LIST_ENTRY(it, struct asked, link);
        if (a->type == type && str_eq(a->name, name)) {
            a->count++;
            return;
        }
    }
    struct asked *a = ARENA_NEW(&d->arena, struct asked);
    CHECK(a != NULL);
    a->name = zone_name(&d->arena, name);
    a->type = type;
    a->count = 1;
    list_init(&a->link);
    list_push(&d->log, &a->link);
}

static struct dns_query *port_query(struct port_dns *self, struct str name, enum dns_type type,
                                    dns_done *done, void *owner)
{
    struct sim_dns *d = CONTAINER_OF(self, struct sim_dns, port);
    if (SIM_STARVED())
        return NULL;
    struct dns_query *q = sim_alloc(sizeof *q);
    struct arena scratch;
    arena_init(&scratch, 0);
    struct str normal = zone_name(&scratch, name);
    *q = (struct dns_query){ .dns = d, .type = type, .done = done, .owner = owner };
    q->name = str_make(sim_dup(normal), normal.n);
    arena_done(&scratch);
    list_init(&q->link);
    list_push(&d->open, &q->link);
    timer_init(&q->timer, answered);
    bool late = fault_of(d, q->name, type) == DNS_TIMEOUT;
    sim_timer_in(d->clock, &q->timer, late ? TIMEOUT_MS : d->latency_ms);
    log_question(d, q->name, type);
    return q;
}

static void port_cancel(struct port_dns *self, struct dns_query *q)
{
    query_free(q);
}

/* ---- the zone --------------------------------------------------------------------------------- */

struct sim_dns *sim_dns_new(struct sim_clock *clock)
{
    struct sim_dns *d = sim_alloc(sizeof *d);
    d->port = (struct port_dns){ port_query, port_cancel };
    d->clock = clock;
    d->latency_ms = 10;
    arena_init(&d->arena, 0);
    list_init(&d->records);
    list_init(&d->faults);
    list_init(&d->signings);
    list_init(&d->log);
    list_init(&d->open);
    return d;
}

struct sim_dns *sim_dns_free(struct sim_dns *d)
{
    if (!d)
        return NULL;
    LIST_FOREACH(it, &d->open)
    query_free(LIST_ENTRY(it, struct dns_query, link));
    arena_done(&d->arena);
    free(d);
    return NULL;
}

struct port_dns *sim_dns_port(struct sim_dns *d)
{
    return &d->port;
}

int sim_dns_add(struct sim_dns *d, struct str text, char *ret_why, size_t size)
{
    return zone_parse(&d->arena, text, &d->records, ret_why, size);
}

void sim_dns_clear(struct sim_dns *d)
{
    while (list_pop(&d->records))
        ;
}

void sim_dns_remove(struct sim_dns *d, struct str name, enum dns_type type)
{
    struct str normal = zone_name(&d->arena, name);
    LIST_FOREACH(it, &d->records)
    {
        struct zone_record *r = LIST_ENTRY(it, struct zone_record, link);
        if (str_eq(r->owner, normal) && (type == 0 || r->type == type))
            list_remove(&r->link);
    }
}

void sim_dns_fail(struct sim_dns *d, struct str name, enum dns_type type, enum dns_status status)
{
    struct str normal = zone_name(&d->arena, name);
    LIST_FOREACH(it, &d->faults)
    {
        struct fault *f = LIST_ENTRY(it, struct fault, link);
        if (str_eq(f->name, normal) && (type == 0 || f->type == type))
            list_remove(&f->link);
    }
    if (status == DNS_OK)
        return;
    struct fault *f = ARENA_NEW(&d->arena, struct fault);
    CHECK(f != NULL);
    f->name = normal;
    f->type = type;
    f->status = status;
    list_init(&f->link);
    list_unshift(&d->faults, &f->link); /* the newest goes first */
}

void sim_dns_set_secure(struct sim_dns *d, struct str name, bool secure)
{
    struct signing *s = ARENA_NEW(&d->arena, struct signing);
    CHECK(s != NULL);
    s->name = zone_name(&d->arena, name);
    s->secure = secure;
    list_init(&s->link);
    list_unshift(&d->signings, &s->link); /* the newest goes first */
}

void sim_dns_set_latency(struct sim_dns *d, int64_t ms)
{
    d->latency_ms = ms;
}

bool sim_dns_name_of(const struct sim_dns *d, const struct net_addr *addr, char *dst, size_t size)
{
    LIST_FOREACH(it, &d->records)
    {
        const struct zone_record *r = LIST_ENTRY(it, struct zone_record, link);
        if ((r->type == DNS_A || r->type == DNS_AAAA) && net_addr_same_ip(&r->data.addr, addr))
            return str_copy(r->owner, dst, size);
    }
    return false;
}

uint64_t sim_dns_asked(const struct sim_dns *d, struct str name, enum dns_type type)
{
    uint64_t n = 0;
    bool any = str_eq(name, STR("*"));
    if (name.n && name.p[name.n - 1] == '.')
        name.n--;
    LIST_FOREACH(it, &d->log)
    {
        const struct asked *a = LIST_ENTRY(it, struct asked, link);
        if ((any || str_caseeq(a->name, name)) && (type == 0 || a->type == type))
            n += a->count;
    }
    return n;
}

void sim_dns_forget_log(struct sim_dns *d)
{
    while (list_pop(&d->log))
        ;
}
