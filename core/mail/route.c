/* route.c - where a recipient's mail goes next.
 *
 * Layer: mail. Interface: route.h. The text of one target is parsed in route_target.c.
 *
 * Record: version, u32 length of the body, body; then, if the body says so, the record of the
 * fallback. A decoded route is one heap block: the struct, its targets, and a copy of the body that
 * the strings point into.
 */
#include "mail/route.h"

#include <stdio.h>

#include "base/hash.h"
#include "mail/credentials.h"
#include "mail/record.h"

enum {
    ROUTE_VERSION = 1,
    ROUTE_VERSION_MORE = 2, /* u8 of further flags, and what they announce, before the targets */
    /* smallest record of a target: flags, port, address without family, two empty strings */
    MIN_TARGET = 1 + 2 + 3 + 4 + 4,
};
enum {
    BELOW_SELF = 1,
    WHEN_BEST_DEFER = 2,
    HOST_FAILURE_FOREVER = 4,
    HAS_FALLBACK = 8,
    HAS_HOURS = 16, /* two u16 follow */
    HAS_RATE = 32,  /* u32 count, u32 burst, u64 period, behind the hours */
    NO_STS = 64,
    ROUTE_FLAGS = 127,
};
enum {
    MORE_CERTIFICATE = 1, /* lstr follows */
};
enum {
    TARGET_MX = 1,
    TARGET_LMTP = 2,
    TARGET_NEW_GROUP = 4,
    TARGET_OWN_TLS = 8,   /* u8 follows */
    TARGET_OWN_AUTH = 16, /* lstr follows */
    TARGET_FLAGS = 31,
};

struct route *route_new(enum route_kind kind)
{
    struct route *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    atomic_init(&r->refs, 1);
    arena_init(&r->arena, 0);
    r->kind = kind;
    return r;
}

struct route *route_ref(struct route *r)
{
    if (r)
        atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

struct route *route_unref(struct route *r)
{
    while (r && atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) == 1) {
        struct route *fallback = r->fallback;
        arena_done(&r->arena);
        free(r);
        r = fallback;
    }
    return NULL;
}

/* Checks */

static bool valid_schedule(const struct schedule *s)
{
    if (s->n > SCHEDULE_MAX_STEPS)
        return false;
    for (size_t i = 0; i < s->n; i++)
        if (s->step[i].seconds < 1 || s->step[i].seconds > 30 * 86400 || s->step[i].times < 1)
            return false;
    return true;
}

static bool valid_target(const struct route_target *t)
{
    if (t->host.n > 253 || t->text.n > ROUTE_MAX_STRING || t->auth.n > ROUTE_MAX_STRING ||
        (unsigned)t->tls > ROUTE_TLS_DANE)
        return false;
    if (t->host.n)
        return t->addr.family == NET_NONE && t->port > 0;
    if (t->addr.family == NET_UNIX)
        return !t->use_mx &&
               (t->lmtp ? t->addr.path[0] == '/'
                        : str_starts(str_of(t->addr.path), STR("atrn:"))); /* engine/turn.h */
    return t->addr.family != NET_NONE && !t->use_mx && t->port > 0 && t->addr.port == t->port;
}

static bool valid_strings(const struct route *r)
{
    const struct str all[] = { r->domain, r->auth,       r->source,
                               r->reason, r->reply_text, r->certificate };

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (all[i].n > ROUTE_MAX_STRING)
            return false;
    if (r->queue.n > ROUTE_MAX_QUEUE)
        return false;
    for (size_t i = 0; i < r->queue.n; i++)
        if ((unsigned char)r->queue.p[i] < 0x20 || r->queue.p[i] == 0x7f)
            return false;
    return true;
}

static bool kind_fits(const struct route *r)
{
    if ((r->below_self || r->when_best_defer || r->no_sts) && r->kind != ROUTE_MX)
        return false;
    if (r->kind != ROUTE_HOSTS && r->n_targets)
        return false;
    switch (r->kind) {
    case ROUTE_MX: return r->domain.n > 0;
    case ROUTE_HOSTS: return r->n_targets > 0 && r->n_targets <= ROUTE_MAX_TARGETS;
    case ROUTE_HOLD:
    case ROUTE_DISCARD: return true;
    case ROUTE_BOUNCE: return r->reply_code >= 500 && r->reply_code < 600;
    }
    return false;
}

static bool valid_hold(const struct route *r)
{
    const struct route_hold *h = &r->hold;

    if (r->kind != ROUTE_HOLD)
        return !h->every_ms && !h->warn_recipients && !h->warn_octets;
    return (h->every_ms == 0 || h->every_ms >= 1000) && h->from < 24 * 60 && h->to < 24 * 60;
}

static bool valid_sources(const struct route *r)
{
    struct str rest = r->source, one;
    struct net_addr addr;
    size_t n = 0;

    while (rest.n && str_cut(&rest, ' ', &one))
        if (++n > ROUTE_MAX_SOURCES || net_addr_parse_ip(one, &addr) < 0)
            return false;
    return true;
}

size_t route_sources(const struct route *r, struct net_addr *ret)
{
    struct str rest = r->source, one;
    size_t n = 0;

    while (rest.n && n < ROUTE_MAX_SOURCES && str_cut(&rest, ' ', &one))
        n += net_addr_parse_ip(one, &ret[n]) == 0;
    return n;
}

/* All but the fallback and that there is a queue. */
static bool valid_route(const struct route *r)
{
    if (!valid_hold(r))
        return false;
    if (!rate_valid(&r->rate) || !valid_sources(r))
        return false;
    if (!kind_fits(r) || !valid_strings(r) || !valid_schedule(&r->retry) || r->lifetime_ms < 0 ||
        (unsigned)r->balance > ROUTE_ROUND_ROBIN || (unsigned)r->tls > ROUTE_TLS_DANE)
        return false;
    for (size_t i = 0; i < r->n_targets; i++)
        if (!valid_target(&r->targets[i]))
            return false;
    return true;
}

static bool depth_fits(const struct route *r)
{
    size_t depth = 0;

    for (r = r->fallback; r; r = r->fallback)
        if (++depth > ROUTE_MAX_DEPTH || str_empty(r->queue))
            return false;
    return true;
}

/* The name of a queue, made of parts. One that is too long is cut and gets a fingerprint, so that
 * different routes stay different queues. */
struct queue_name {
    char text[ROUTE_MAX_QUEUE];
    size_t n;
    uint64_t hash;
    bool cut;
};

static void name_add(struct queue_name *q, struct str part)
{
    q->hash = hash_stable_more(q->hash, part.p ? part.p : "", part.n);
    for (size_t i = 0; i < part.n; i++) {
        unsigned char c = (unsigned char)ascii_lower(part.p[i]);
        if (q->n == sizeof(q->text)) {
            q->cut = true;
            return;
        }
        q->text[q->n++] = c < 0x20 || c == 0x7f ? '?' : (char)c;
    }
}

static struct str name_finish(struct queue_name *q)
{
    static const char hex[] = "0123456789abcdef";

    if (q->cut) {
        char *p = q->text + sizeof(q->text) - 17;
        *p++ = '~';
        for (int shift = 60; shift >= 0; shift -= 4)
            *p++ = hex[q->hash >> shift & 15];
    }
    return str_make(q->text, q->n);
}

static void name_add_user(struct queue_name *q, struct str auth)
{
    if (!auth.n)
        return;
    name_add(q, credentials_user(auth));
    name_add(q, STR("@"));
}

/* A host that does not like it holds up nobody else's mail, either. */
static void name_add_certificate(struct queue_name *q, struct str file)
{
    if (!file.n)
        return;
    name_add(q, str_from(file, (size_t)(str_rchr(file, '/') + 1)));
    name_add(q, STR("@"));
}

static int derive_queue(struct route *r)
{
    struct queue_name q = { .hash = 0 };

    switch (r->kind) {
    case ROUTE_MX:
        name_add_certificate(&q, r->certificate);
        name_add_user(&q, r->auth);
        name_add(&q, r->domain);
        break;
    case ROUTE_HOSTS:
        name_add_certificate(&q, r->certificate);
        for (size_t i = 0; i < r->n_targets; i++) {
            if (i)
                name_add(&q, STR(","));
            name_add_user(&q, route_target_auth(r, &r->targets[i]));
            name_add(&q, r->targets[i].text);
        }
        break;
    case ROUTE_HOLD:
        name_add(&q, STR("hold:"));
        name_add(&q, r->reason);
        break;
    case ROUTE_DISCARD: name_add(&q, STR("discard")); break;
    case ROUTE_BOUNCE: name_add(&q, STR("bounce")); break;
    }
    r->queue = arena_str(&r->arena, name_finish(&q));
    return r->queue.n ? 0 : -ENOMEM;
}

int route_finish(struct route *r)
{
    if (r->arena.failed)
        return -ENOMEM; /* without its credentials, or its sources, it would be another one */
    if (!valid_route(r) || !depth_fits(r))
        return -EINVAL;
    if (r->queue.n)
        return 0;
    for (size_t i = 0; i < r->n_targets; i++)
        if (str_empty(r->targets[i].text))
            return -EINVAL; /* nothing to make a name of */
    return derive_queue(r);
}

static bool to_literal(struct route *r, struct str domain)
{
    struct str host = domain;

    if (str_casestarts(domain, STR("[ipv6:")))
        host = arena_printf(&r->arena, "[" STR_FMT, STR_ARG(str_from(domain, 6)));
    r->targets = ARENA_NEW(&r->arena, struct route_target);
    if (!r->targets || route_target_parse(&r->arena, host, false, r->targets) < 0)
        return false;
    r->n_targets = 1;
    return true;
}

struct route *route_default(struct str domain, struct str reason)
{
    bool literal = str_starts(domain, STR("["));
    struct route *r = route_new(literal ? ROUTE_HOSTS : ROUTE_MX);
    bool ok = r != NULL;

    if (ok && literal)
        ok = to_literal(r, domain);
    else if (ok)
        r->domain = arena_str(&r->arena, domain);
    if (ok && !literal)
        r->reason = reason;
    return ok && route_finish(r) == 0 ? r : route_unref(r);
}

/* Record */

static void encode_target(const struct route_target *t, struct buf *out)
{
    buf_add_u8(out,
               (uint8_t)((t->use_mx ? TARGET_MX : 0) | (t->lmtp ? TARGET_LMTP : 0) |
                         (t->new_group ? TARGET_NEW_GROUP : 0) | (t->own_tls ? TARGET_OWN_TLS : 0) |
                         (t->auth.n ? TARGET_OWN_AUTH : 0)));
    buf_add_u16(out, t->port);
    record_add_addr(out, &t->addr);
    buf_add_lstr(out, t->host);
    buf_add_lstr(out, t->text);
    if (t->own_tls)
        buf_add_u8(out, (uint8_t)t->tls);
    if (t->auth.n)
        buf_add_lstr(out, t->auth);
}

static void encode_schedule(const struct schedule *s, struct buf *out)
{
    buf_add_u8(out, s->n);
    for (size_t i = 0; i < s->n; i++) {
        buf_add_u32(out, s->step[i].seconds);
        buf_add_u16(out, s->step[i].times);
    }
}

static bool has_hold(const struct route_hold *h)
{
    return h->every_ms || h->warn_recipients || h->warn_octets;
}

static void encode_hold(const struct route_hold *h, struct buf *out)
{
    buf_add_u64(out, (uint64_t)h->every_ms);
    buf_add_u16(out, h->from);
    buf_add_u16(out, h->to);
    buf_add_u64(out, h->warn_recipients);
    buf_add_u64(out, h->warn_octets);
}

static bool take_hold(struct str *in, struct route_hold *h)
{
    return record_take_i64(in, &h->every_ms) && take_u16(in, &h->from) && take_u16(in, &h->to) &&
           take_u64(in, &h->warn_recipients) && take_u64(in, &h->warn_octets) && has_hold(h);
}

static void encode_body(const struct route *r, struct buf *out)
{
    buf_add_u16(out, (uint16_t)r->n_targets);
    buf_add_u8(out, (uint8_t)r->kind);
    buf_add_u8(
        out,
        (uint8_t)((r->below_self ? BELOW_SELF : 0) | (r->when_best_defer ? WHEN_BEST_DEFER : 0) |
                  (r->host_failure_forever ? HOST_FAILURE_FOREVER : 0) |
                  (r->fallback ? HAS_FALLBACK : 0) | (hours_given(&r->hours) ? HAS_HOURS : 0) |
                  (r->rate.count ? HAS_RATE : 0) | (r->no_sts ? NO_STS : 0)));
    buf_add_u8(out, (uint8_t)r->balance);
    buf_add_u8(out, (uint8_t)r->tls);
    buf_add_u16(out, r->reply_code);
    buf_add_u32(out, r->concurrency);
    buf_add_u64(out, (uint64_t)r->lifetime_ms);
    buf_add_u64(out, (uint64_t)r->warn_after_ms);
    encode_schedule(&r->retry, out);
    buf_add_lstr(out, r->domain);
    buf_add_lstr(out, r->auth);
    buf_add_lstr(out, r->queue);
    buf_add_lstr(out, r->source);
    buf_add_lstr(out, r->reason);
    buf_add_lstr(out, r->reply_text);
    if (hours_given(&r->hours)) {
        buf_add_u16(out, r->hours.from);
        buf_add_u16(out, r->hours.to);
    }
    if (r->rate.count) {
        buf_add_u32(out, r->rate.count);
        buf_add_u32(out, r->rate.burst);
        buf_add_u64(out, (uint64_t)r->rate.period_ms);
    }
    if (r->certificate.n) {
        buf_add_u8(out, MORE_CERTIFICATE);
        buf_add_lstr(out, r->certificate);
    }
    for (size_t i = 0; i < r->n_targets; i++)
        encode_target(&r->targets[i], out);
    if (has_hold(&r->hold))
        encode_hold(&r->hold, out);
}

/* Writes the length of what follows the four octets at offset `at` over them. */
static void patch_length(struct buf *out, size_t at)
{
    uint32_t n = (uint32_t)(buf_len(out) - at - 4);

    for (size_t i = 0; i < 4; i++)
        out->data[out->start + at + i] = (char)(n >> (24 - 8 * i));
}

int route_encode(const struct route *r, struct buf *out)
{
    for (; r; r = r->fallback) {
        buf_add_u8(out, r->certificate.n ? ROUTE_VERSION_MORE : ROUTE_VERSION);
        size_t at = buf_len(out);
        buf_add_u32(out, 0);
        encode_body(r, out);
        if (out->failed)
            break;
        patch_length(out, at);
    }
    return out->failed;
}

static bool take_target(struct str *in, struct route_target *t)
{
    uint8_t flags, tls = 0;

    if (!take_u8(in, &flags) || flags & ~TARGET_FLAGS || !take_u16(in, &t->port) ||
        !record_take_addr(in, &t->addr) || !take_lstr(in, &t->host) || !take_lstr(in, &t->text) ||
        (flags & TARGET_OWN_TLS && !take_u8(in, &tls)) ||
        (flags & TARGET_OWN_AUTH && (!take_lstr(in, &t->auth) || !t->auth.n)))
        return false;
    t->use_mx = flags & TARGET_MX;
    t->lmtp = flags & TARGET_LMTP;
    t->new_group = flags & TARGET_NEW_GROUP;
    t->own_tls = flags & TARGET_OWN_TLS;
    t->tls = (enum route_tls)tls;
    return true;
}

static bool take_schedule(struct str *in, struct schedule *s)
{
    uint8_t n;

    if (!take_u8(in, &n) || n > SCHEDULE_MAX_STEPS)
        return false;
    s->n = n;
    for (size_t i = 0; i < n; i++)
        if (!take_u32(in, &s->step[i].seconds) || !take_u16(in, &s->step[i].times))
            return false;
    return true;
}

static bool take_more(struct str *in, struct route *r)
{
    uint8_t flags;

    return take_u8(in, &flags) && flags == MORE_CERTIFICATE && take_lstr(in, &r->certificate) &&
           r->certificate.n;
}

/* Fills in a route whose targets are allocated; `in` starts behind their number. */
static bool take_body(struct str *in, struct route *r, bool more, bool *ret_fallback)
{
    uint8_t kind, flags, balance, tls;

    if (!take_u8(in, &kind) || !take_u8(in, &flags) || flags > ROUTE_FLAGS ||
        !take_u8(in, &balance) || !take_u8(in, &tls) || !take_u16(in, &r->reply_code) ||
        !take_u32(in, &r->concurrency) || !record_take_i64(in, &r->lifetime_ms) ||
        !record_take_i64(in, &r->warn_after_ms) || !take_schedule(in, &r->retry) ||
        !take_lstr(in, &r->domain) || !take_lstr(in, &r->auth) || !take_lstr(in, &r->queue) ||
        !take_lstr(in, &r->source) || !take_lstr(in, &r->reason) || !take_lstr(in, &r->reply_text))
        return false;
    if (flags & HAS_HOURS &&
        (!take_u16(in, &r->hours.from) || !take_u16(in, &r->hours.to) || !hours_valid(&r->hours)))
        return false;
    if (flags & HAS_RATE && (!take_u32(in, &r->rate.count) || !take_u32(in, &r->rate.burst) ||
                             !record_take_i64(in, &r->rate.period_ms) || !r->rate.count))
        return false;
    r->kind = (enum route_kind)kind;
    r->balance = (enum route_balance)balance;
    r->tls = (enum route_tls)tls;
    r->below_self = flags & BELOW_SELF;
    r->when_best_defer = flags & WHEN_BEST_DEFER;
    r->host_failure_forever = flags & HOST_FAILURE_FOREVER;
    r->no_sts = flags & NO_STS;
    if (more && !take_more(in, r))
        return false;
    for (size_t i = 0; i < r->n_targets; i++)
        if (!take_target(in, &r->targets[i]))
            return false;
    *ret_fallback = flags & HAS_FALLBACK;
    if (in->n && r->kind == ROUTE_HOLD && !take_hold(in, &r->hold))
        return false;
    return str_empty(*in) && r->queue.n && valid_route(r);
}

static int decode_one(struct str *in, struct route **ret, bool *ret_fallback)
{
    struct str body;
    uint8_t version;
    uint16_t n;

    if (!take_u8(in, &version) || version < ROUTE_VERSION || version > ROUTE_VERSION_MORE ||
        !take_lstr(in, &body) || !take_u16(&body, &n) || n > ROUTE_MAX_TARGETS ||
        (size_t)n * MIN_TARGET > body.n)
        return -EBADMSG;
    size_t fixed = sizeof(struct route) + n * sizeof(struct route_target);
    struct route *r = malloc(fixed + body.n);
    if (!r)
        return -ENOMEM;
    memset(r, 0, fixed);
    atomic_init(&r->refs, 1);
    arena_init(&r->arena, 0);
    r->n_targets = n;
    r->targets = n ? (struct route_target *)(r + 1) : NULL;
    if (body.n)
        memcpy((char *)r + fixed, body.p, body.n);
    body.p = (char *)r + fixed;
    if (!take_body(&body, r, version == ROUTE_VERSION_MORE, ret_fallback)) {
        free(r);
        return -EBADMSG;
    }
    *ret = r;
    return 0;
}

int route_decode(struct str *in, struct route **ret)
{
    struct route *first = NULL, **at = &first;
    bool more = true;

    for (size_t depth = 0; more; depth++) {
        int e = depth <= ROUTE_MAX_DEPTH ? decode_one(in, at, &more) : -EBADMSG;
        if (e < 0) {
            route_unref(first);
            return e;
        }
        at = &(*at)->fallback;
    }
    *ret = first;
    return 0;
}

struct route *route_in_queue(const struct route *r, struct str queue)
{
    struct route *copy = NULL;
    struct buf b;

    buf_init(&b, 0);
    if (route_encode(r, &b) == 0) {
        struct str octets = buf_str(&b);
        (void)route_decode(&octets, &copy);
    }
    buf_done(&b);
    if (copy)
        copy->queue = arena_str(&copy->arena, queue);
    return copy && copy->queue.p ? copy : route_unref(copy);
}

struct route *route_tls_optional(struct route *r)
{
    static const char behind[] = " (TLS-Required: No)";
    char name[ROUTE_MAX_QUEUE + 1];
    struct str queue = str_first(r->queue, ROUTE_MAX_QUEUE - (sizeof(behind) - 1));

    if ((r->kind != ROUTE_MX && r->kind != ROUTE_HOSTS) || str_ends(r->queue, str_of(behind)))
        return r;
    snprintf(name, sizeof(name), STR_FMT "%s", STR_ARG(queue), behind);
    struct route *apart = route_in_queue(r, str_of(name));
    route_unref(r);
    return apart;
}

bool route_same(const struct route *a, const struct route *b)
{
    struct buf x, y;

    if (a == b || !a || !b)
        return a == b;
    if (a->kind != b->kind || !str_eq(a->queue, b->queue) || a->n_targets != b->n_targets)
        return false;
    buf_init(&x, 0);
    buf_init(&y, 0);
    bool same =
        route_encode(a, &x) == 0 && route_encode(b, &y) == 0 && str_eq(buf_str(&x), buf_str(&y));
    buf_done(&x);
    buf_done(&y);
    return same;
}

enum route_tls route_target_tls(const struct route *r, const struct route_target *t)
{
    return t->own_tls ? t->tls : r->tls;
}

struct str route_target_auth(const struct route *r, const struct route_target *t)
{
    return t->auth.n ? t->auth : r->auth;
}

/* For people */

static const char *const tls_words[] = { "opportunistic", "none", "require", "verify", "dane" };

/* "a, b | c (tls verify, auth user)": groups between bars. */
static void describe_targets(const struct route *r, struct buf *out)
{
    for (size_t i = 0; i < r->n_targets; i++) {
        const struct route_target *t = &r->targets[i];
        buf_add_str(out, i == 0 ? STR("") : t->new_group ? STR(" | ") : STR(", "));
        buf_add_str(out, t->text);
        if (t->own_tls || t->auth.n)
            buf_printf(out, " (%s%s%s%s" STR_FMT ")", t->own_tls ? "tls " : "",
                       t->own_tls ? tls_words[t->tls] : "", t->own_tls && t->auth.n ? ", " : "",
                       t->auth.n ? "auth " : "", STR_ARG(credentials_user(t->auth)));
    }
}

static void describe_kind(const struct route *r, struct buf *out)
{
    switch (r->kind) {
    case ROUTE_MX:
        buf_printf(out, "mx " STR_FMT "%s", STR_ARG(r->domain), r->below_self ? " below self" : "");
        break;
    case ROUTE_HOSTS:
        buf_add_str(out, STR("hosts "));
        describe_targets(r, out);
        break;
    case ROUTE_HOLD: buf_printf(out, "hold " STR_FMT, STR_ARG(r->queue)); break;
    case ROUTE_DISCARD: buf_add_str(out, STR("discard")); break;
    case ROUTE_BOUNCE:
        buf_printf(out, "bounce %u " STR_FMT, r->reply_code, STR_ARG(r->reply_text));
        break;
    }
}

static void describe_sources(const struct route *r, struct buf *out)
{
    struct str rest = r->source, one;

    buf_add_str(out, STR(", source "));
    for (const char *lead = ""; rest.n && str_cut(&rest, ' ', &one); lead = " or ")
        buf_printf(out, "%s" STR_FMT, lead, STR_ARG(one));
}

static void describe_options(const struct route *r, struct buf *out)
{
    static const char *const balance[] = { "", ", balance random", ", balance round_robin" };
    char hours[HOURS_TEXT], rate[RATE_TEXT];

    if (r->kind == ROUTE_HOSTS)
        buf_add_str(out, str_of(balance[r->balance]));
    if (r->tls != ROUTE_TLS_OPPORTUNISTIC)
        buf_printf(out, ", tls %s", tls_words[r->tls]);
    if (r->auth.n)
        buf_printf(out, ", auth " STR_FMT, STR_ARG(credentials_user(r->auth)));
    if (r->certificate.n)
        buf_printf(out, ", certificate " STR_FMT, STR_ARG(r->certificate));
    if (r->source.n)
        describe_sources(r, out);
    if (r->rate.count)
        buf_printf(out, ", rate %s", rate_text(&r->rate, rate));
    if (hours_given(&r->hours))
        buf_printf(out, ", hours %s", hours_text(&r->hours, hours));
}

void route_describe_one(const struct route *r, struct buf *out)
{
    describe_kind(r, out);
    describe_options(r, out);
}

void route_describe(const struct route *r, struct buf *out)
{
    for (const char *lead = ""; r; r = r->fallback, lead = "; fallback ") {
        buf_add_str(out, str_of(lead));
        route_describe_one(r, out);
    }
}
