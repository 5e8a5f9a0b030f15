/* history.c - the record of attempts as bytes. Layer: mail. Interface: history.h. */
#include "mail/history.h"

#include "mail/record.h"

enum { HISTORY_VERSION = 1, ATTEMPTS_MAX = HISTORY_FIRST + HISTORY_LAST };

const char *history_fate_name(enum history_fate f)
{
    static const char *const names[] = {
        [HISTORY_DEFERRED] = "deferred",
        [HISTORY_REROUTED] = "rerouted",
        [HISTORY_HOST_FAILED] = "host_failed",
    };

    return (unsigned)f < ARRAY_LEN(names) ? names[f] : "unknown";
}

/* ---- writing ---------------------------------------------------------------------------------- */

/* Not in the middle of a character. */
static void add_text(struct buf *out, struct str s, size_t max)
{
    size_t n = MIN(s.n, max);

    while (n < s.n && n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80)
        n--;
    buf_add_lstr(out, str_first(s, n));
}

static void encode_try(const struct history_try *t, struct buf *out)
{
    add_text(out, t->host, HISTORY_NAME);
    add_text(out, t->tls, HISTORY_NAME);
    add_text(out, t->stage, HISTORY_NAME);
    buf_add_u16(out, t->reply.code);
    buf_add_u8(out, t->reply.enhanced.class_);
    buf_add_u16(out, t->reply.enhanced.subject);
    buf_add_u16(out, t->reply.enhanced.detail);
    add_text(out, t->reply.text, HISTORY_TEXT);
}

/* Of more tries than there is room for, the last one counts. */
static void encode_attempt(const struct history_attempt *a, struct buf *out)
{
    size_t n = MIN(a->n_tries, (size_t)HISTORY_TRIES);

    buf_add_u64(out, (uint64_t)a->at_ms);
    buf_add_u32(out, a->took_ms);
    buf_add_u32(out, a->number);
    buf_add_u8(out, (uint8_t)a->fate);
    add_text(out, a->decided_by, HISTORY_NAME);
    buf_add_u8(out, (uint8_t)n);
    for (size_t i = 0; i < n; i++)
        encode_try(&a->tries[i + 1 == n ? a->n_tries - 1 : i], out);
}

static void encode_plan(const struct history_plan *p, struct buf *out)
{
    size_t hops = MIN(p->n_hops, (size_t)HISTORY_HOPS);
    size_t discarded = MIN(p->n_discarded, (size_t)HISTORY_HOPS);

    buf_add_u64(out, (uint64_t)p->at_ms);
    buf_add_u8(out, (uint8_t)hops);
    for (size_t i = 0; i < hops; i++) {
        buf_add_u32(out, p->hops[i].preference);
        add_text(out, p->hops[i].host, HISTORY_NAME);
    }
    buf_add_u8(out, (uint8_t)discarded);
    for (size_t i = 0; i < discarded; i++) {
        add_text(out, p->discarded[i].what, HISTORY_NAME);
        add_text(out, p->discarded[i].reason, HISTORY_NAME);
    }
}

static int encode(const struct history *h, struct buf *out)
{
    buf_add_u8(out, HISTORY_VERSION);
    buf_add_u32(out, h->left_out);
    buf_add_u8(out, (uint8_t)h->n);
    for (size_t i = 0; i < h->n; i++)
        encode_attempt(&h->attempts[i], out);
    encode_plan(&h->plan, out);
    return out->failed;
}

/* ---- reading ---------------------------------------------------------------------------------- */

static bool take_try(struct str *in, struct history_try *t)
{
    return take_lstr(in, &t->host) && take_lstr(in, &t->tls) && take_lstr(in, &t->stage) &&
           take_u16(in, &t->reply.code) && take_u8(in, &t->reply.enhanced.class_) &&
           take_u16(in, &t->reply.enhanced.subject) && take_u16(in, &t->reply.enhanced.detail) &&
           take_lstr(in, &t->reply.text);
}

static int take_attempt(struct arena *a, struct str *in, struct history_attempt *ret)
{
    uint8_t fate, n;

    if (!record_take_i64(in, &ret->at_ms) || !take_u32(in, &ret->took_ms) ||
        !take_u32(in, &ret->number) || !take_u8(in, &fate) || fate > HISTORY_HOST_FAILED ||
        !take_lstr(in, &ret->decided_by) || !take_u8(in, &n) || n > HISTORY_TRIES)
        return -EBADMSG;
    struct history_try *tries = ARENA_ARRAY(a, struct history_try, n);
    if (n && !tries)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        if (!take_try(in, &tries[i]))
            return -EBADMSG;
    ret->fate = (enum history_fate)fate;
    ret->tries = tries;
    ret->n_tries = n;
    return 0;
}

static int take_plan(struct arena *a, struct str *in, struct history_plan *p)
{
    struct history_hop *hops = ARENA_ARRAY(a, struct history_hop, HISTORY_HOPS);
    struct history_discarded *discarded = ARENA_ARRAY(a, struct history_discarded, HISTORY_HOPS);
    uint8_t n;

    if (!hops || !discarded)
        return -ENOMEM;
    if (!record_take_i64(in, &p->at_ms) || !take_u8(in, &n) || n > HISTORY_HOPS)
        return -EBADMSG;
    for (size_t i = 0; i < n; i++)
        if (!take_u32(in, &hops[i].preference) || !take_lstr(in, &hops[i].host))
            return -EBADMSG;
    p->hops = hops;
    p->n_hops = n;
    if (!take_u8(in, &n) || n > HISTORY_HOPS)
        return -EBADMSG;
    for (size_t i = 0; i < n; i++)
        if (!take_lstr(in, &discarded[i].what) || !take_lstr(in, &discarded[i].reason))
            return -EBADMSG;
    p->discarded = discarded;
    p->n_discarded = n;
    return str_empty(*in) ? 0 : -EBADMSG;
}

int history_decode(struct arena *a, struct str in, struct history *ret)
{
    struct history h = { 0 };
    uint8_t version, n;

    if (str_empty(in)) {
        *ret = h;
        return 0;
    }
    struct str copy = arena_str(a, in);
    h.attempts = ARENA_ARRAY(a, struct history_attempt, ATTEMPTS_MAX + 1); /* one to be added */
    if (!copy.p || !h.attempts)
        return -ENOMEM;
    if (!take_u8(&copy, &version) || version != HISTORY_VERSION || !take_u32(&copy, &h.left_out) ||
        !take_u8(&copy, &n) || n > ATTEMPTS_MAX)
        return -EBADMSG;
    for (h.n = 0; h.n < n; h.n++) {
        int e = take_attempt(a, &copy, &h.attempts[h.n]);
        if (e < 0)
            return e;
    }
    int e = take_plan(a, &copy, &h.plan);
    if (e == 0)
        *ret = h;
    return e;
}

/* ---- adding ----------------------------------------------------------------------------------- */

/* The oldest but those that are kept: false when there is none. */
static bool let_one_go(struct history *h)
{
    size_t at = h->n > HISTORY_FIRST + 1 ? HISTORY_FIRST : 0;

    if (h->n < 2)
        return false;
    memmove(&h->attempts[at], &h->attempts[at + 1], (h->n - at - 1) * sizeof(*h->attempts));
    h->n--;
    h->left_out++;
    return true;
}

int history_add(struct arena *a, struct str old, const struct history_attempt *attempt,
                const struct history_plan *plan, size_t max, struct buf *out)
{
    struct history h = { 0 };
    struct history_attempt alone[1];
    struct buf b;
    int e = history_decode(a, old, &h);

    if (e == -ENOMEM)
        return e; /* the old one stays */
    if (e < 0 || !h.attempts)
        h = (struct history){ .attempts = alone };
    h.attempts[h.n++] = *attempt;
    if (plan && plan->at_ms)
        h.plan = *plan;
    while (h.n > ATTEMPTS_MAX)
        let_one_go(&h);
    buf_init(&b, max);
    while ((e = encode(&h, &b)) == -EMSGSIZE) {
        if (!let_one_go(&h)) {
            if (h.plan.at_ms)
                h.plan = (struct history_plan){ 0 };
            else if (h.attempts[0].n_tries)
                h.attempts[0].n_tries = 0;
            else
                break;
        }
        buf_clear(&b);
    }
    if (e == 0)
        e = buf_add_str(out, buf_str(&b));
    buf_done(&b);
    return e;
}
