/* dns_message.c - reading DNS answers.
 *
 * Layer: proto. Interface: dns_message.h.
 *
 * A message is read in three steps: the header and the question; the answer section, to follow the
 * CNAMEs and to note where the records of interest lie; these records, twice: to measure their
 * text, then to copy it into the one block of the answer. Everything that would read past its
 * bounds is -EBADMSG. A compression pointer must point before the part of the name that holds it,
 * so that every chain of them ends.
 */
#include "proto/dns_message.h"

enum {
    HEADER = 12,
    TYPE_SOA = 6,
    CLASS_IN = 1,
    RCODE_NXDOMAIN = 3,
    MAX_WIRE_NAME = 255,
    NAME_TEXT = 4 * MAX_WIRE_NAME, /* all of it escaped */
    MAX_WALK = 4096,               /* records looked at in a section */
};

static const struct {
    enum dns_type type;
    struct str name;
} type_names[] = {
    { DNS_A, STR("A") },       { DNS_NS, STR("NS") },   { DNS_CNAME, STR("CNAME") },
    { DNS_PTR, STR("PTR") },   { DNS_MX, STR("MX") },   { DNS_TXT, STR("TXT") },
    { DNS_AAAA, STR("AAAA") }, { DNS_SRV, STR("SRV") }, { DNS_TLSA, STR("TLSA") },
};

const char *dns_type_name(enum dns_type t)
{
    for (size_t i = 0; i < ARRAY_LEN(type_names); i++)
        if (type_names[i].type == t)
            return type_names[i].name.p;
    return NULL;
}

enum dns_type dns_type_from_name(struct str s)
{
    for (size_t i = 0; i < ARRAY_LEN(type_names); i++)
        if (str_caseeq(s, type_names[i].name))
            return type_names[i].type;
    return (enum dns_type)0;
}

const char *dns_status_name(enum dns_status s)
{
    static const char *const names[] = {
        [DNS_OK] = "ok",
        [DNS_NODATA] = "nodata",
        [DNS_NXDOMAIN] = "nxdomain",
        [DNS_SERVFAIL] = "servfail",
        [DNS_TIMEOUT] = "timeout",
    };

    return (unsigned)s < ARRAY_LEN(names) ? names[s] : "servfail";
}

/* ---- making an answer ---- */

/* Where the text of an answer goes. Without a block it only measures. */
struct pool {
    char *p;
    size_t n;
};

static struct str pool_add(struct pool *pool, struct str s)
{
    struct str copy = { pool->p ? pool->p + pool->n : "", s.n };

    if (pool->p && s.n)
        memcpy(pool->p + pool->n, s.p, s.n);
    pool->n += s.n;
    return copy;
}

/* Without the dot of the root; one that is escaped belongs to a label. */
static struct str without_root(struct str name)
{
    size_t backslashes = 0;

    if (!str_ends(name, STR(".")))
        return name;
    while (backslashes + 1 < name.n && name.p[name.n - 2 - backslashes] == '\\')
        backslashes++;
    return str_first(name, name.n - (backslashes % 2 == 0));
}

/* Lower case, without the trailing dot. */
static struct str pool_add_name(struct pool *pool, struct str name)
{
    struct str copy = pool_add(pool, without_root(name));

    if (pool->p)
        for (char *p = pool->p + pool->n - copy.n; p < pool->p + pool->n; p++)
            *p = ascii_lower(*p);
    return copy;
}

/* One block: the answer, the records, the text (*ret_pool). */
static struct dns_answer *answer_new(size_t n, size_t text, struct pool *ret_pool)
{
    size_t size = sizeof(struct dns_answer) + n * sizeof(struct dns_record);
    struct dns_answer *a = malloc(size + text + 1);

    if (!a)
        return NULL;
    *a = (struct dns_answer){ .records = (struct dns_record *)(a + 1), .n = n };
    atomic_init(&a->refs, 1);
    *ret_pool = (struct pool){ (char *)a + size, 0 };
    return a;
}

struct dns_answer *dns_answer_ref(struct dns_answer *a)
{
    atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
    return a;
}

struct dns_answer *dns_answer_unref(struct dns_answer *a)
{
    if (a && atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) == 1)
        free(a);
    return NULL;
}

static struct dns_record copy_record(struct pool *pool, enum dns_type type,
                                     const struct dns_record *r)
{
    struct dns_record copy = *r;

    copy.name = type == DNS_TXT || type == DNS_TLSA ? pool_add(pool, r->name)
                                                    : pool_add_name(pool, r->name);
    return copy;
}

struct dns_answer *dns_answer_make(struct str qname, enum dns_type qtype, enum dns_status status,
                                   const struct dns_record *records, size_t n, uint32_t ttl)
{
    size_t kept = MIN(n, (size_t)DNS_MAX_RECORDS);
    struct pool pool = { NULL, 0 };

    pool_add_name(&pool, qname);
    for (size_t i = 0; i < kept; i++)
        copy_record(&pool, qtype, &records[i]);

    struct dns_answer *a = answer_new(kept, pool.n, &pool);
    if (!a)
        return NULL;
    a->type = qtype;
    a->status = status;
    a->truncated = kept < n;
    a->ttl = ttl;
    a->question = a->canonical = pool_add_name(&pool, qname);
    for (size_t i = 0; i < kept; i++)
        a->records[i] = copy_record(&pool, qtype, &records[i]);
    return a;
}

struct dns_answer *dns_answer_alias(const struct dns_answer *a, struct str question, uint32_t ttl,
                                    bool authentic)
{
    struct pool pool = { NULL, 0 };

    pool_add_name(&pool, question);
    pool_add_name(&pool, a->canonical);
    for (size_t i = 0; i < a->n; i++)
        copy_record(&pool, a->type, &a->records[i]);
    struct dns_answer *whole = answer_new(a->n, pool.n, &pool);
    if (!whole)
        return NULL;
    whole->type = a->type;
    whole->status = a->status;
    whole->authentic = authentic && a->authentic;
    whole->truncated = a->truncated;
    whole->ttl = MIN(ttl, a->ttl);
    whole->question = pool_add_name(&pool, question);
    whole->canonical = pool_add_name(&pool, a->canonical);
    for (size_t i = 0; i < a->n; i++)
        whole->records[i] = copy_record(&pool, a->type, &a->records[i]);
    return whole;
}

/* ---- names ---- */

struct message {
    const uint8_t *p;
    size_t n;
};

struct name {
    size_t n;
    char text[NAME_TEXT];
};

static struct str name_str(const struct name *name)
{
    return str_make(name->text, name->n);
}

static unsigned u16_at(const struct message *m, size_t at)
{
    return (unsigned)m->p[at] << 8 | m->p[at + 1];
}

static uint32_t u32_at(const struct message *m, size_t at)
{
    return (uint32_t)u16_at(m, at) << 16 | u16_at(m, at + 2);
}

/* What is not a printable byte of its own becomes \DDD, a dot or backslash inside a label \. and \\
 * (RFC 1035 section 5.1): no name looks like another one, and none holds a control byte. */
static void add_label(struct name *name, const uint8_t *p, size_t n)
{
    char *dst = name->text + name->n;

    if (name->n > 0)
        *dst++ = '.';
    for (size_t i = 0; i < n; i++) {
        if (p[i] <= ' ' || p[i] > '~') {
            *dst++ = '\\';
            *dst++ = (char)('0' + p[i] / 100);
            *dst++ = (char)('0' + p[i] / 10 % 10);
            *dst++ = (char)('0' + p[i] % 10);
            continue;
        }
        if (p[i] == '.' || p[i] == '\\')
            *dst++ = '\\';
        *dst++ = ascii_lower((char)p[i]);
    }
    name->n = (size_t)(dst - name->text);
}

/* Follows a pointer at `at`, which must lead before `first`, where this part of the name began. */
static int follow(const struct message *m, size_t at, size_t first, size_t *ret)
{
    if (m->n - at < 2)
        return -EBADMSG;

    size_t target = u16_at(m, at) & 0x3fff;
    if (target < HEADER || target >= first)
        return -EBADMSG;
    *ret = target;
    return 0;
}

/* Reads the name at *at and moves *at behind it. */
static int read_name(const struct message *m, size_t *at, struct name *ret)
{
    size_t p = *at, first = p, behind = 0, wire = 1;

    ret->n = 0;
    for (;;) {
        if (p >= m->n)
            return -EBADMSG;
        size_t len = m->p[p];
        if (len >= 0xc0) {
            if (!behind)
                behind = p + 2;
            if (follow(m, p, first, &p) < 0)
                return -EBADMSG;
            first = p;
            continue;
        }
        if (len == 0)
            break;
        wire += 1 + len;
        if (len > 63 || wire > MAX_WIRE_NAME || len >= m->n - p)
            return -EBADMSG;
        add_label(ret, m->p + p + 1, len);
        p += 1 + len;
    }
    *at = behind ? behind : p + 1;
    return 0;
}

/* ---- records ---- */

struct rr {
    unsigned type, class_;
    uint32_t ttl;
    size_t data, len;
};

/* Reads the record at *at, and moves *at behind it. */
static int read_rr(const struct message *m, size_t *at, struct name *ret_owner, struct rr *ret)
{
    size_t p = *at;

    if (read_name(m, &p, ret_owner) < 0 || m->n - p < 10)
        return -EBADMSG;
    *ret =
        (struct rr){ u16_at(m, p), u16_at(m, p + 2), u32_at(m, p + 4), p + 10, u16_at(m, p + 8) };
    if (ret->len > m->n - ret->data)
        return -EBADMSG;
    if (ret->ttl > INT32_MAX) /* RFC 2181 section 8 */
        ret->ttl = 0;
    *at = ret->data + ret->len;
    return 0;
}

/* The name that fills the record's data from `skip` on. */
static int read_data_name(const struct message *m, const struct rr *rr, size_t skip,
                          struct name *ret)
{
    size_t at = rr->data + skip;

    if (rr->len <= skip || read_name(m, &at, ret) < 0 || at != rr->data + rr->len)
        return -EBADMSG;
    return 0;
}

/* MX 2, SRV 6, others 0 octets before the name. */
static int take_name(const struct message *m, const struct rr *rr, size_t skip, struct pool *pool,
                     struct dns_record *ret)
{
    struct name name;

    if (read_data_name(m, rr, skip, &name) < 0)
        return -EBADMSG;
    ret->name = pool_add(pool, name_str(&name));
    if (skip >= 2)
        ret->preference = (uint16_t)u16_at(m, rr->data);
    if (skip == 6) {
        ret->weight = (uint16_t)u16_at(m, rr->data + 2);
        ret->port = (uint16_t)u16_at(m, rr->data + 4);
    }
    return 0;
}

static int take_address(const struct message *m, const struct rr *rr, struct dns_record *ret)
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
    const uint8_t *ip = m->p + rr->data;
    size_t n = rr->type == DNS_A ? 4 : 16;

    if (rr->len != n)
        return -EBADMSG;
    if (n == 16 && memcmp(ip, mapped, sizeof(mapped)) == 0) {
        ip += sizeof(mapped);
        n = 4;
    }
    ret->addr.family = n == 4 ? NET_IPV4 : NET_IPV6;
    memcpy(ret->addr.ip, ip, n);
    return 0;
}

static int take_strings(const struct message *m, const struct rr *rr, struct pool *pool,
                        struct dns_record *ret)
{
    size_t at = rr->data, end = at + rr->len;

    ret->name = pool_add(pool, STR(""));
    while (at < end) {
        size_t len = m->p[at++];
        if (len > end - at)
            return -EBADMSG;
        pool_add(pool, str_make(m->p + at, len));
        ret->name.n += len;
        at += len;
    }
    return 0;
}

static int take_tlsa(const struct message *m, const struct rr *rr, struct pool *pool,
                     struct dns_record *ret)
{
    const uint8_t *p = m->p + rr->data;

    if (rr->len < 4)
        return -EBADMSG;
    ret->usage = p[0];
    ret->selector = p[1];
    ret->matching = p[2];
    ret->name = pool_add(pool, str_make(p + 3, rr->len - 3));
    return 0;
}

static int take_record(const struct message *m, const struct rr *rr, struct pool *pool,
                       struct dns_record *ret)
{
    *ret = (struct dns_record){ .name = STR("") };
    switch (rr->type) {
    case DNS_A:
    case DNS_AAAA: return take_address(m, rr, ret);
    case DNS_MX: return take_name(m, rr, 2, pool, ret);
    case DNS_SRV: return take_name(m, rr, 6, pool, ret);
    case DNS_NS:
    case DNS_CNAME:
    case DNS_PTR: return take_name(m, rr, 0, pool, ret);
    case DNS_TXT: return take_strings(m, rr, pool, ret);
    case DNS_TLSA: return take_tlsa(m, rr, pool, ret);
    }
    return -EINVAL; /* a type that we do not know is not to be asked for */
}

/* ---- sections ---- */

struct found {
    struct name canonical;
    enum dns_status status;
    bool truncated, dangling;
    uint8_t cnames;
    uint32_t ttl; /* UINT32_MAX: none seen */
    size_t n;
    struct rr records[DNS_MAX_RECORDS];
};

/* 1: the wanted record of `owner` is in *ret and *at behind it; 0: none is left; -EBADMSG. */
static int next_of(const struct message *m, size_t *at, unsigned *left, const struct name *owner,
                   unsigned type, struct rr *ret)
{
    struct name name;

    while (*left > 0) {
        --*left;
        if (read_rr(m, at, &name, ret) < 0)
            return -EBADMSG;
        if (ret->type == type && ret->class_ == CLASS_IN &&
            str_eq(name_str(&name), name_str(owner)))
            return 1;
    }
    return 0;
}

/* Moves f->canonical along the CNAMEs. More than DNS_MAX_CNAMES, as in a loop: SERVFAIL. */
static int follow_cnames(const struct message *m, size_t answers, unsigned count, struct found *f)
{
    for (int hops = 0;; hops++) {
        size_t at = answers;
        unsigned left = count;
        struct rr rr;
        int r = next_of(m, &at, &left, &f->canonical, DNS_CNAME, &rr);
        if (r <= 0)
            return r;
        if (hops == DNS_MAX_CNAMES) {
            f->status = DNS_SERVFAIL;
            return 0;
        }
        f->ttl = MIN(f->ttl, rr.ttl);
        f->cnames++;
        if (read_data_name(m, &rr, 0, &f->canonical) < 0)
            return -EBADMSG;
    }
}

static int find_records(const struct message *m, size_t answers, unsigned count, enum dns_type type,
                        struct found *f)
{
    size_t at = answers;
    struct rr rr;
    int r;

    while ((r = next_of(m, &at, &count, &f->canonical, type, &rr)) == 1) {
        if (f->n == DNS_MAX_RECORDS) {
            f->truncated = true;
            return 0;
        }
        f->ttl = MIN(f->ttl, rr.ttl);
        f->records[f->n++] = rr;
    }
    return r;
}

/* RFC 2308 section 5: how long a "no" holds is the smaller of the SOA's TTL and its last field. */
static int read_negative_ttl(const struct message *m, size_t authority, unsigned count,
                             struct found *f)
{
    size_t at = authority;
    struct name name;
    struct rr rr;

    for (unsigned i = 0; i < count; i++) {
        if (read_rr(m, &at, &name, &rr) < 0)
            return -EBADMSG;
        if (rr.type != TYPE_SOA || rr.class_ != CLASS_IN || rr.len < 22)
            continue;
        rr.ttl = MIN(rr.ttl, u32_at(m, rr.data + rr.len - 4));
        f->ttl = MIN(f->ttl, rr.ttl);
        return 0;
    }
    f->dangling = f->cnames > 0 && f->status == DNS_NODATA;
    if (!f->dangling) /* else the TTL is that of the way so far */
        f->ttl = 0;
    return 0;
}

static int skip_records(const struct message *m, size_t *at, unsigned count)
{
    struct name name;
    struct rr rr;

    for (unsigned i = 0; i < count; i++)
        if (read_rr(m, at, &name, &rr) < 0)
            return -EBADMSG;
    return 0;
}

/* Reads the one question, which must be ours, into f->canonical. */
static int check_question(const struct message *m, size_t *at, struct str qname,
                          enum dns_type qtype, struct found *f)
{
    if (u16_at(m, 4) != 1 || read_name(m, at, &f->canonical) < 0 || m->n - *at < 4 ||
        u16_at(m, *at) != (unsigned)qtype || u16_at(m, *at + 2) != CLASS_IN ||
        !str_caseeq(name_str(&f->canonical), without_root(qname)))
        return -EBADMSG;
    *at += 4;
    return 0;
}

static int read_sections(const struct message *m, struct str qname, enum dns_type qtype,
                         struct found *f)
{
    unsigned rcode = m->p[3] & 15, answers = u16_at(m, 6), authority = u16_at(m, 8);
    size_t at = HEADER;

    if (rcode != 0 && u16_at(m, 4) == 0) { /* a server that refuses may leave out the question */
        f->status = DNS_SERVFAIL;
        return 0;
    }
    if (check_question(m, &at, qname, qtype, f) < 0)
        return -EBADMSG;
    if (rcode != 0 && rcode != RCODE_NXDOMAIN) {
        f->status = DNS_SERVFAIL;
        return 0;
    }
    if (answers > MAX_WALK || authority > MAX_WALK)
        return -EBADMSG;
    if (qtype != DNS_CNAME && follow_cnames(m, at, answers, f) < 0)
        return -EBADMSG;
    if (f->status == DNS_SERVFAIL)
        return 0;
    if (rcode == 0 && find_records(m, at, answers, qtype, f) < 0)
        return -EBADMSG;
    if (f->n > 0)
        return 0;
    if (f->truncated) { /* what was asked for did not fit: that is no "no" */
        f->status = DNS_SERVFAIL;
        return 0;
    }
    f->status = rcode == 0 ? DNS_NODATA : DNS_NXDOMAIN;
    if (skip_records(m, &at, answers) < 0)
        return -EBADMSG;
    return read_negative_ttl(m, at, authority, f);
}

/* ---- a whole message ---- */

static int build(const struct message *m, struct str qname, enum dns_type qtype,
                 const struct found *f, struct dns_answer **ret)
{
    struct str canonical = f->status == DNS_SERVFAIL ? qname : name_str(&f->canonical);
    struct pool pool = { NULL, 0 };
    struct dns_record record;

    for (size_t i = 0; i < f->n; i++) {
        int r = take_record(m, &f->records[i], &pool, &record);
        if (r < 0)
            return r;
    }
    pool_add_name(&pool, qname);
    pool_add_name(&pool, canonical);

    struct dns_answer *a = answer_new(f->n, pool.n, &pool);
    if (!a)
        return -ENOMEM;
    a->type = qtype;
    a->status = f->status;
    a->authentic = m->p[3] & 0x20;
    a->truncated = f->truncated;
    a->dangling = f->dangling;
    a->cnames = f->cnames;
    a->ttl = f->ttl == UINT32_MAX || f->status == DNS_SERVFAIL ? 0 : f->ttl;
    for (size_t i = 0; i < f->n; i++)
        CHECK(take_record(m, &f->records[i], &pool, &a->records[i]) == 0);
    a->question = pool_add_name(&pool, qname);
    a->canonical =
        str_caseeq(a->question, canonical) ? a->question : pool_add_name(&pool, canonical);
    *ret = a;
    return 0;
}

int dns_message_parse(const void *bytes, size_t n, struct str qname, enum dns_type qtype,
                      struct dns_answer **ret)
{
    struct message m = { bytes, n };
    struct found f;

    if (n < HEADER || n > UINT16_MAX)
        return -EBADMSG;
    if (!(m.p[2] & 0x80) || (m.p[2] & 0x78) != 0) /* no response, or no standard query */
        return -EBADMSG;
    f.status = DNS_OK;
    f.truncated = m.p[2] & 0x02;
    f.dangling = false;
    f.cnames = 0;
    f.ttl = UINT32_MAX;
    f.n = 0;
    f.canonical.n = 0;

    int r = read_sections(&m, qname, qtype, &f);
    return r < 0 ? r : build(&m, qname, qtype, &f, ret);
}
