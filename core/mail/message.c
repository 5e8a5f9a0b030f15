/* message.c - accepted messages and their recipients as values and as records.
 *
 * Layer: mail. Interface: message.h. A decoded message is one heap block: the struct and a copy of
 * the record, which the strings point into; its arena stays empty.
 *
 * What version 1 of a message has no room for stands behind it in version 2: fields, each with its number and its
 * length, in the order of their numbers. There is at least one, and one that says nothing is not written.
 */
#include "mail/message.h"

#include "mail/record.h"

enum { MESSAGE_VERSION = 1, MESSAGE_WITH_FIELDS = 2 };
enum { RECIPIENT_VERSION = 1, RECIPIENT_WITH_HISTORY = 2 };
/* Of the first byte of flags; of all. */
enum { MESSAGE_FLAGS = 127, MESSAGE_ALL_FLAGS = 511, NOTIFY_FLAGS = 15 };
/* Further fields of a message, in this order. */
enum {
    FIELD_FLAGS = 1,   /* u32: those beyond MESSAGE_FLAGS */
    FIELD_CHANGES = 2, /* of its header: mail/changes.h */
    FIELD_TIMES = 3,   /* struct message_times */
};
enum { TIMES_BYTES = 1 + 8 + 8 + 4 + 1 };
enum { CLIENT_TLS = 1 };
enum { BY_MODE = 3, BY_TRACE = 4 };
enum { WARNED = 1, HOST_FAILURE = 2, HAS_ROUTE = 4 };
/* How the normal form of a domain is written: not at all when it is as in the text. */
enum { DOMAIN_AS_WRITTEN = 1 };

struct message *message_new(void)
{
    struct message *m = calloc(1, sizeof(*m));

    if (!m)
        return NULL;
    atomic_init(&m->refs, 1);
    arena_init(&m->arena, 0);
    return m;
}

struct message *message_ref(struct message *m)
{
    if (m)
        atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

struct message *message_unref(struct message *m)
{
    if (!m || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
        return NULL;
    body_unref(m->body);
    arena_done(&m->arena);
    free(m);
    return NULL;
}

static struct str written_domain(const struct address *a)
{
    return str_from(a->text, a->local.n + 1);
}

static int encode_address(const struct address *a, struct buf *out)
{
    bool same = str_eq(written_domain(a), a->domain);

    if (!str_starts(a->text, a->local) || a->local.n > UINT16_MAX)
        return -EINVAL;
    buf_add_lstr(out, a->text);
    buf_add_u16(out, (uint16_t)a->local.n);
    buf_add_u8(out, same ? DOMAIN_AS_WRITTEN : 0);
    return same ? out->failed : buf_add_lstr(out, a->domain);
}

static bool take_address(struct str *in, struct address *a)
{
    uint16_t local;
    uint8_t form;

    if (!take_lstr(in, &a->text) || !take_u16(in, &local) || local > a->text.n ||
        !take_u8(in, &form) || form > DOMAIN_AS_WRITTEN)
        return false;
    a->local = str_first(a->text, local);
    if (form == DOMAIN_AS_WRITTEN)
        a->domain = written_domain(a);
    else if (!take_lstr(in, &a->domain) || str_eq(a->domain, written_domain(a)))
        return false; /* one address has one record */
    return true;
}

static bool says_times(const struct message_times *t)
{
    return t->by != SMTP_BY_NONE || t->hold_ms || t->priority;
}

static int encode_times(const struct message_times *t, struct buf *out)
{
    buf_add_u8(out, (uint8_t)((unsigned)t->by | (t->by_trace ? BY_TRACE : 0)));
    buf_add_u64(out, (uint64_t)t->by_ms);
    buf_add_u64(out, (uint64_t)t->hold_ms);
    buf_add_u32(out, t->hold_s);
    return buf_add_u8(out, (uint8_t)(t->priority + SMTP_PRIORITY_MOST));
}

static bool take_times(struct str *in, struct message_times *t)
{
    uint8_t by, priority;

    if (!take_u8(in, &by) || by > (BY_MODE | BY_TRACE) || (by & BY_MODE) > SMTP_BY_RETURN ||
        !record_take_i64(in, &t->by_ms) || !record_take_i64(in, &t->hold_ms) ||
        !take_u32(in, &t->hold_s) || !take_u8(in, &priority) || priority > 2 * SMTP_PRIORITY_MOST)
        return false;
    t->by = (enum smtp_by_mode)(by & BY_MODE);
    t->by_trace = by & BY_TRACE;
    t->priority = (int8_t)(priority - SMTP_PRIORITY_MOST);
    return says_times(t); /* one message has one record */
}

static uint32_t further_flags(const struct message *m)
{
    return m->flags & ~(uint32_t)MESSAGE_FLAGS;
}

static bool has_fields(const struct message *m)
{
    return further_flags(m) || m->changes.n || says_times(&m->times);
}

static int encode_fields(const struct message *m, struct buf *out)
{
    if (further_flags(m)) {
        buf_add_u8(out, FIELD_FLAGS);
        buf_add_u32(out, sizeof(uint32_t));
        buf_add_u32(out, further_flags(m));
    }
    if (m->changes.n) {
        buf_add_u8(out, FIELD_CHANGES);
        buf_add_lstr(out, m->changes);
    }
    if (says_times(&m->times)) {
        buf_add_u8(out, FIELD_TIMES);
        buf_add_u32(out, TIMES_BYTES);
        encode_times(&m->times, out);
    }
    return out->failed;
}

struct smtp_by message_by(const struct message *m, int64_t now_ms)
{
    const struct message_times *t = &m->times;
    int64_t left = t->by_ms - now_ms;
    /* Rounded down, as time that has gone by counts; what is over a little is over. */
    int64_t seconds = left >= 0 ? left / 1000 : -((999 - left) / 1000);

    if (t->by == SMTP_BY_NONE)
        return (struct smtp_by){ .mode = SMTP_BY_NONE };
    seconds = MIN(MAX(seconds, (int64_t)-SMTP_BY_MOST), (int64_t)SMTP_BY_MOST);
    return (struct smtp_by){ .mode = t->by, .trace = t->by_trace, .seconds = (int32_t)seconds };
}

int message_encode(const struct message *m, struct buf *out)
{
    buf_add_u8(out, has_fields(m) ? MESSAGE_WITH_FIELDS : MESSAGE_VERSION);
    buf_add_u8(out, (uint8_t)(m->flags & MESSAGE_FLAGS));
    buf_add_u8(out, m->client_tls ? CLIENT_TLS : 0);
    buf_add_u64(out, (uint64_t)m->received_ms);
    buf_add_u64(out, m->size);
    buf_add_u32(out, m->n_chunks);
    buf_add_u32(out, m->n_recipients);
    int r = encode_address(&m->sender, out);
    if (r < 0)
        return r;
    record_add_addr(out, &m->client);
    buf_add_lstr(out, m->helo);
    buf_add_lstr(out, m->identity);
    buf_add_lstr(out, m->service);
    buf_add_lstr(out, m->envid);
    return encode_fields(m, out);
}

static bool take_flags(struct str value, struct message *m)
{
    uint32_t flags;

    if (!take_u32(&value, &flags) || !str_empty(value) || flags == 0 || flags & MESSAGE_FLAGS ||
        flags > MESSAGE_ALL_FLAGS)
        return false;
    m->flags |= flags;
    return true;
}

static bool take_field(uint8_t number, struct str value, struct message *m)
{
    switch (number) {
    case FIELD_FLAGS: return take_flags(value, m);
    case FIELD_CHANGES: m->changes = value; return value.n > 0;
    case FIELD_TIMES: return take_times(&value, &m->times) && str_empty(value);
    default: return false;
    }
}

static bool take_fields(struct str *in, struct message *m)
{
    uint8_t before = 0, number;
    struct str value;

    do {
        if (!take_u8(in, &number) || number <= before || !take_lstr(in, &value) ||
            !take_field(number, value, m))
            return false;
        before = number;
    } while (!str_empty(*in));
    return true;
}

static bool take_message(struct str *in, struct message *m)
{
    uint8_t version, flags, client;

    if (!take_u8(in, &version) || version < MESSAGE_VERSION || version > MESSAGE_WITH_FIELDS ||
        !take_u8(in, &flags) || flags > MESSAGE_FLAGS || !take_u8(in, &client) ||
        client > CLIENT_TLS || !record_take_i64(in, &m->received_ms) || !take_u64(in, &m->size) ||
        !take_u32(in, &m->n_chunks) || !take_u32(in, &m->n_recipients) ||
        !take_address(in, &m->sender) || !record_take_addr(in, &m->client) ||
        !take_lstr(in, &m->helo) || !take_lstr(in, &m->identity) || !take_lstr(in, &m->service) ||
        !take_lstr(in, &m->envid))
        return false;
    m->flags = flags;
    m->client_tls = client == CLIENT_TLS;
    return version == MESSAGE_WITH_FIELDS ? take_fields(in, m) : str_empty(*in);
}

bool message_may_say_times(struct str record)
{
    return record.n > 0 && record.p[0] == MESSAGE_WITH_FIELDS;
}

int message_decode(const struct msgid *id, struct str in, struct message **ret)
{
    struct message *m = malloc(sizeof(*m) + in.n);

    if (!m)
        return -ENOMEM;
    memset(m, 0, sizeof(*m));
    atomic_init(&m->refs, 1);
    arena_init(&m->arena, 0);
    m->id = *id;
    if (in.n)
        memcpy(m + 1, in.p, in.n);
    in.p = (const char *)(m + 1);
    if (!take_message(&in, m)) {
        free(m);
        return -EBADMSG;
    }
    *ret = m;
    return 0;
}

const char *recipient_state_name(enum recipient_state s)
{
    static const char *const names[] = {
        [RECIPIENT_READY] = "ready",
        [RECIPIENT_DEFERRED] = "deferred",
        [RECIPIENT_HELD] = "held",
        [RECIPIENT_WAITING] = "waiting",
    };

    return (unsigned)s < ARRAY_LEN(names) ? names[s] : "unknown";
}

/* The route comes first, so that decoding copies only what is behind it. */
int recipient_encode(const struct recipient *r, struct buf *out)
{
    buf_add_u8(out, r->history.n ? RECIPIENT_WITH_HISTORY : RECIPIENT_VERSION);
    buf_add_u8(out, (uint8_t)((r->warned ? WARNED : 0) | (r->host_failure ? HOST_FAILURE : 0) |
                              (r->route ? HAS_ROUTE : 0)));
    if (r->route)
        route_encode(r->route, out);
    buf_add_u8(out, (uint8_t)r->state);
    buf_add_u8(out, r->notify);
    buf_add_u32(out, r->attempts);
    buf_add_u64(out, (uint64_t)r->due_ms);
    buf_add_u64(out, r->policy);
    buf_add_u64(out, (uint64_t)r->last_ms);
    int e = encode_address(&r->address, out);
    if (e < 0)
        return e;
    buf_add_lstr(out, r->orcpt);
    buf_add_lstr(out, r->decided_by);
    buf_add_lstr(out, r->last_host);
    buf_add_lstr(out, r->last_reply);
    return r->history.n ? buf_add_lstr(out, r->history) : out->failed;
}

static bool take_recipient(struct str *in, uint8_t version, struct recipient *r)
{
    uint8_t state;

    if (!take_u8(in, &state) || state > RECIPIENT_WAITING || !take_u8(in, &r->notify) ||
        r->notify > NOTIFY_FLAGS || !take_u32(in, &r->attempts) ||
        !record_take_i64(in, &r->due_ms) || !take_u64(in, &r->policy) ||
        !record_take_i64(in, &r->last_ms) || !take_address(in, &r->address) ||
        !take_lstr(in, &r->orcpt) || !take_lstr(in, &r->decided_by) ||
        !take_lstr(in, &r->last_host) || !take_lstr(in, &r->last_reply))
        return false;
    r->state = (enum recipient_state)state;
    if (version == RECIPIENT_WITH_HISTORY && (!take_lstr(in, &r->history) || !r->history.n))
        return false;
    return str_empty(*in);
}

int recipient_decode(struct arena *a, uint32_t n, struct str in, struct recipient *ret)
{
    struct recipient r = { .n = n };
    uint8_t version, flags;

    if (!take_u8(&in, &version) || version < RECIPIENT_VERSION ||
        version > RECIPIENT_WITH_HISTORY || !take_u8(&in, &flags) ||
        flags > (WARNED | HOST_FAILURE | HAS_ROUTE))
        return -EBADMSG;
    r.warned = flags & WARNED;
    r.host_failure = flags & HOST_FAILURE;
    int e = flags & HAS_ROUTE ? route_decode(&in, &r.route) : 0;
    if (e < 0)
        return e;
    struct str copy = arena_str(a, in);
    if (in.n && !copy.p)
        e = -ENOMEM;
    else if (!take_recipient(&copy, version, &r))
        e = -EBADMSG;
    if (e < 0) {
        route_unref(r.route);
        return e;
    }
    *ret = r;
    return 0;
}

void recipient_done(struct recipient *r)
{
    r->route = route_unref(r->route);
}
