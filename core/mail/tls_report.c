/* tls_report.c - counts of TLS sessions. Layer: mail. Interface: tls_report.h.
 *
 * Record: version, u32 domains, u8 number of policies; of each: u8 type (with REST: one of `rest`), domain, strings, mx,
 * u64 successes, u8 number of others (u8 result, u64 count each), u8 number of failures; of each: u8 result, u64 count,
 * two addresses (u8 family, 4 or 16 octets), mx, reason. `octets` counts as if all of `rest` stood in it.
 */
#include "mail/tls_report.h"

#include "proto/dane.h"

enum {
    VERSION = 1,
    REST = 0x80,
    HEAD = 1 + 4 + 1,
    OTHERS = (TLS_RESULTS - 1) * 9,
    POLICY = 1 + 4 + 4 + 4 + 8 + 1 + OTHERS + 1, /* without strings and failures */
    FAILURE = 1 + 8 + 2 * 17 + 4 + 4,
};

const char *tls_policy_type_name(enum tls_policy_type t)
{
    switch (t) {
    case TLS_POLICY_NONE: return "no-policy-found";
    case TLS_POLICY_TLSA: return "tlsa";
    case TLS_POLICY_STS: return "sts";
    }
    return "";
}

const char *tls_result_name(enum tls_result r)
{
    switch (r) {
    case TLS_RESULT_SUCCESS: return "success";
    case TLS_RESULT_NO_STARTTLS: return "starttls-not-supported";
    case TLS_RESULT_HOST_MISMATCH: return "certificate-host-mismatch";
    case TLS_RESULT_EXPIRED: return "certificate-expired";
    case TLS_RESULT_NOT_TRUSTED: return "certificate-not-trusted";
    case TLS_RESULT_VALIDATION: return "validation-failure";
    case TLS_RESULT_TLSA_INVALID: return "tlsa-invalid";
    case TLS_RESULT_DNSSEC_INVALID: return "dnssec-invalid";
    case TLS_RESULT_STS_FETCH: return "sts-policy-fetch-error";
    case TLS_RESULT_STS_INVALID: return "sts-policy-invalid";
    case TLS_RESULT_STS_WEBPKI: return "sts-webpki-invalid";
    }
    return "";
}

/* ---- life ------------------------------------------------------------------------------------- */

struct tls_report *tls_report_new(void)
{
    struct tls_report *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    arena_init(&r->arena, 0);
    for (int t = 0; t < TLS_POLICY_TYPES; t++)
        r->rest[t].policy.type = (enum tls_policy_type)t;
    r->octets = HEAD + TLS_POLICY_TYPES * POLICY;
    return r;
}

struct tls_report *tls_report_free(struct tls_report *r)
{
    if (r) {
        arena_done(&r->arena);
        free(r);
    }
    return NULL;
}

/* ---- reading ---------------------------------------------------------------------------------- */

uint64_t tls_policy_failures(const struct tls_policy_count *p)
{
    uint64_t sum = 0;

    for (int i = 0; i < TLS_RESULTS; i++)
        sum += p->other[i];
    for (size_t i = 0; i < p->n; i++)
        sum += p->failures[i].count;
    return sum;
}

static bool is_used(const struct tls_policy_count *p)
{
    return p->successes || tls_policy_failures(p);
}

const struct tls_policy_count *tls_report_policy(const struct tls_report *r, size_t i)
{
    if (i < r->n)
        return &r->policies[i];
    i -= r->n;
    for (int t = 0; t < TLS_POLICY_TYPES; t++)
        if (is_used(&r->rest[t]) && i-- == 0)
            return &r->rest[t];
    return NULL;
}

static struct net_addr address_of(uint8_t family, const uint8_t *ip)
{
    struct net_addr a = { .family = family };

    memcpy(a.ip, ip, sizeof(a.ip));
    return a;
}

struct net_addr tls_failure_sending(const struct tls_failure *f)
{
    return address_of(f->families[0], f->sending);
}

struct net_addr tls_failure_receiving(const struct tls_failure *f)
{
    return address_of(f->families[1], f->receiving);
}

/* ---- counting --------------------------------------------------------------------------------- */

static bool fits(const struct tls_report *r, size_t octets)
{
    return r->octets + octets <= TLS_REPORT_MAX;
}

/* Room for one more in an array of the arena's. */
static void *with_room(struct arena *a, void *array, size_t size, size_t n, size_t *cap)
{
    size_t more = *cap ? 2 * *cap : 2;
    void *grown;

    if (n < *cap)
        return array;
    grown = arena_alloc(a, more * size);
    if (!grown)
        return NULL;
    if (n)
        memcpy(grown, array, n * size);
    *cap = more;
    return grown;
}

static bool same_policy(const struct tls_policy *a, const struct tls_policy *b)
{
    return a->type == b->type && str_eq(a->domain, b->domain) && str_eq(a->strings, b->strings) &&
           str_eq(a->mx, b->mx);
}

static bool keep(struct arena *a, struct str s, struct str *ret)
{
    *ret = s.n ? arena_str(a, s) : STR_NONE;
    return ret->n == s.n;
}

static struct tls_policy_count *add_policy(struct tls_report *r, const struct tls_policy *p)
{
    size_t octets = POLICY + p->domain.n + p->strings.n + p->mx.n;
    struct tls_policy_count one = { .policy.type = p->type }, *grown;

    if (r->n == TLS_REPORT_POLICIES || !fits(r, octets) ||
        !keep(&r->arena, p->domain, &one.policy.domain) ||
        !keep(&r->arena, p->strings, &one.policy.strings) ||
        !keep(&r->arena, p->mx, &one.policy.mx))
        return NULL;
    grown = with_room(&r->arena, r->policies, sizeof(*grown), r->n, &r->cap);
    if (!grown)
        return NULL;
    r->policies = grown;
    r->policies[r->n] = one;
    r->octets += octets;
    return &r->policies[r->n++];
}

/* Never NULL. */
static struct tls_policy_count *policy_for(struct tls_report *r, const struct tls_policy *p)
{
    struct tls_policy_count *added;

    CHECK((int)p->type < TLS_POLICY_TYPES);
    if (!p->domain.n)
        return &r->rest[p->type];
    for (size_t i = 0; i < r->n; i++)
        if (same_policy(&r->policies[i].policy, p))
            return &r->policies[i];
    added = add_policy(r, p);
    return added ? added : &r->rest[p->type];
}

static bool same_failure(const struct tls_failure *a, const struct tls_failure *b)
{
    return a->result == b->result && memcmp(a->families, b->families, 2) == 0 &&
           memcmp(a->sending, b->sending, 16) == 0 && memcmp(a->receiving, b->receiving, 16) == 0 &&
           str_eq(a->mx, b->mx) && str_eq(a->reason, b->reason);
}

/* Counts f->count failures of that kind. */
static void add_failure(struct tls_report *r, struct tls_policy_count *p,
                        const struct tls_failure *f)
{
    size_t octets = FAILURE + f->mx.n + f->reason.n;
    struct tls_failure one = *f, *grown;

    for (size_t i = 0; i < p->n; i++)
        if (same_failure(&p->failures[i], f)) {
            p->failures[i].count += f->count;
            return;
        }
    grown = p->n < TLS_REPORT_DETAILS && fits(r, octets) && keep(&r->arena, f->mx, &one.mx) &&
                    keep(&r->arena, f->reason, &one.reason)
                ? with_room(&r->arena, p->failures, sizeof(*grown), p->n, &p->cap)
                : NULL;
    if (!grown) {
        p->other[f->result] += f->count;
        return;
    }
    p->failures = grown;
    p->failures[p->n++] = one;
    r->octets += octets;
}

static void set_address(const struct net_addr *a, uint8_t *ret_family, uint8_t *ret_ip)
{
    if (a->family != NET_IPV4 && a->family != NET_IPV6)
        return;
    *ret_family = a->family;
    memcpy(ret_ip, a->ip, a->family == NET_IPV4 ? 4 : 16);
}

void tls_report_add(struct tls_report *r, const struct tls_policy *p, const struct tls_session *s)
{
    struct tls_policy_count *to = policy_for(r, p);
    struct tls_failure f = { .result = s->result, .count = 1, .mx = s->mx };

    CHECK((int)s->result < TLS_RESULTS);
    if (s->result == TLS_RESULT_SUCCESS) {
        to->successes++;
        return;
    }
    f.reason = str_first(s->reason, TLS_REPORT_REASON);
    set_address(&s->sending, &f.families[0], f.sending);
    set_address(&s->receiving, &f.families[1], f.receiving);
    add_failure(r, to, &f);
}

void tls_report_merge(struct tls_report *into, const struct tls_report *from)
{
    const struct tls_policy_count *p;

    for (size_t i = 0; (p = tls_report_policy(from, i)); i++) {
        struct tls_policy_count *to = policy_for(into, &p->policy);
        to->successes += p->successes;
        for (int k = 0; k < TLS_RESULTS; k++)
            to->other[k] += p->other[k];
        for (size_t k = 0; k < p->n; k++)
            add_failure(into, to, &p->failures[k]);
    }
}

/* ---- record ----------------------------------------------------------------------------------- */

static void encode_failure(const struct tls_failure *f, struct buf *out)
{
    const uint8_t *ips[] = { f->sending, f->receiving };

    buf_add_u8(out, (uint8_t)f->result);
    buf_add_u64(out, f->count);
    for (size_t i = 0; i < 2; i++) {
        buf_add_u8(out, f->families[i]);
        buf_add(out, ips[i], f->families[i] == NET_NONE ? 0 : f->families[i] == NET_IPV4 ? 4 : 16);
    }
    buf_add_lstr(out, f->mx);
    buf_add_lstr(out, f->reason);
}

static void encode_policy(const struct tls_policy_count *p, bool rest, struct buf *out)
{
    uint8_t n = 0;

    buf_add_u8(out, (uint8_t)(p->policy.type | (rest ? REST : 0)));
    buf_add_lstr(out, p->policy.domain);
    buf_add_lstr(out, p->policy.strings);
    buf_add_lstr(out, p->policy.mx);
    buf_add_u64(out, p->successes);
    for (int i = 0; i < TLS_RESULTS; i++)
        n += p->other[i] > 0;
    buf_add_u8(out, n);
    for (int i = 0; i < TLS_RESULTS; i++)
        if (p->other[i]) {
            buf_add_u8(out, (uint8_t)i);
            buf_add_u64(out, p->other[i]);
        }
    buf_add_u8(out, (uint8_t)p->n);
    for (size_t i = 0; i < p->n; i++)
        encode_failure(&p->failures[i], out);
}

int tls_report_encode(const struct tls_report *r, struct buf *out)
{
    const struct tls_policy_count *p;
    size_t n = 0;

    while (tls_report_policy(r, n))
        n++;
    buf_add_u8(out, VERSION);
    buf_add_u32(out, r->domains);
    buf_add_u8(out, (uint8_t)n);
    for (size_t i = 0; (p = tls_report_policy(r, i)); i++)
        encode_policy(p, i >= r->n, out);
    return out->failed;
}

static bool take_address(struct str *in, uint8_t *ret_family, uint8_t *ret_ip)
{
    struct str ip;

    if (!take_u8(in, ret_family) || *ret_family > NET_IPV6 ||
        !take_bytes(in,
                    *ret_family == NET_NONE   ? 0
                    : *ret_family == NET_IPV4 ? 4
                                              : 16,
                    &ip))
        return false;
    if (ip.n)
        memcpy(ret_ip, ip.p, ip.n);
    return true;
}

static bool take_result(struct str *in, enum tls_result *ret, uint64_t *ret_count)
{
    uint8_t result;

    if (!take_u8(in, &result) || result == TLS_RESULT_SUCCESS || result >= TLS_RESULTS ||
        !take_u64(in, ret_count))
        return false;
    *ret = (enum tls_result)result;
    return true;
}

static bool take_failures(struct str *in, struct tls_report *r, struct tls_policy_count *p)
{
    uint8_t n;

    if (!take_u8(in, &n))
        return false;
    for (int i = 0; i < n; i++) {
        struct tls_failure f = { .count = 0 };
        if (!take_result(in, &f.result, &f.count) || !take_address(in, &f.families[0], f.sending) ||
            !take_address(in, &f.families[1], f.receiving) || !take_lstr(in, &f.mx) ||
            !take_lstr(in, &f.reason))
            return false;
        add_failure(r, p, &f);
    }
    return true;
}

static bool take_policy(struct str *in, struct tls_report *r)
{
    struct tls_policy p = { .type = TLS_POLICY_NONE };
    struct tls_policy_count *to;
    uint64_t successes, count;
    enum tls_result result;
    uint8_t type, n;

    if (!take_u8(in, &type) || (type & ~REST) >= TLS_POLICY_TYPES || !take_lstr(in, &p.domain) ||
        !take_lstr(in, &p.strings) || !take_lstr(in, &p.mx) || !take_u64(in, &successes) ||
        (type & REST ? p.domain.n > 0 : p.domain.n == 0) || !take_u8(in, &n))
        return false;
    p.type = (enum tls_policy_type)(type & ~REST);
    to = policy_for(r, &p);
    to->successes += successes;
    while (n-- > 0) {
        if (!take_result(in, &result, &count))
            return false;
        to->other[result] += count;
    }
    return take_failures(in, r, to);
}

int tls_report_decode(struct str in, struct tls_report **ret)
{
    struct tls_report *r = tls_report_new();
    uint8_t version, n;

    if (!r)
        return -ENOMEM;
    bool ok = in.n <= TLS_REPORT_MAX && take_u8(&in, &version) && version == VERSION &&
              take_u32(&in, &r->domains) && take_u8(&in, &n);
    while (ok && n-- > 0)
        ok = take_policy(&in, r);
    if (!ok || in.n) {
        tls_report_free(r);
        return -EBADMSG;
    }
    *ret = r;
    return 0;
}

/* ---- policies as strings ---------------------------------------------------------------------- */

/* One string more, unless it is too much. */
static void add_string(struct buf *out, size_t before)
{
    buf_add_char(out, '\n');
    if (buf_len(out) > TLS_REPORT_STRINGS)
        out->end = out->start + before;
}

static struct str keep_strings(struct arena *a, struct buf *b)
{
    struct str kept = b->failed ? STR_NONE : arena_str(a, buf_str(b));

    buf_done(b);
    return kept;
}

static struct str patterns_of(struct arena *a, const struct mta_sts_policy *p)
{
    struct buf b;

    buf_init(&b, 0);
    for (size_t i = 0; i < p->n_mx; i++) {
        size_t before = buf_len(&b);
        buf_add_str(&b, p->mx[i]);
        add_string(&b, before);
    }
    return keep_strings(a, &b);
}

struct tls_policy tls_policy_of_sts(struct arena *a, struct str domain,
                                    const struct mta_sts_policy *p)
{
    struct tls_policy policy = { .type = TLS_POLICY_STS, .domain = domain };
    struct buf b;

    buf_init(&b, 0);
    (void)!mta_sts_lines(p, TLS_REPORT_STRINGS, &b); /* keep_strings looks */
    policy.strings = keep_strings(a, &b);
    policy.mx = patterns_of(a, p);
    return policy;
}

struct tls_policy tls_policy_of_tlsa(struct arena *a, struct str octets)
{
    struct tls_policy policy = { .type = TLS_POLICY_TLSA };
    struct dane dane;
    struct dane_record r;
    struct buf b;

    if (!dane_read(octets, &dane))
        return policy;
    policy.domain = arena_str(a, dane.base);
    buf_init(&b, 0);
    while (dane_take(&dane.records, &r)) {
        size_t before = buf_len(&b);
        buf_printf(&b, "%u %u %u ", r.usage, r.selector, r.matching);
        for (size_t i = 0; i < r.data.n; i++)
            buf_printf(&b, "%02X", (unsigned char)r.data.p[i]);
        add_string(&b, before);
    }
    policy.strings = keep_strings(a, &b);
    return policy;
}
