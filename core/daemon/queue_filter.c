/* queue_filter.c - which recipients an operator means. Layer: daemon. Interface: queue_filter.h. */
#include "daemon/queue_filter.h"

#include <stdio.h>

#include "base/glob.h"
#include "base/units.h"
#include "daemon/args.h"
#include "mail/history.h"

const char *const queue_filter_names[] = { "queue", "destination", "sender",  "recipient", "older",
                                           "newer", "larger",      "smaller", "state",     "reply",
                                           "route", "policy",      NULL };

void queue_filter_init(struct queue_filter *f)
{
    *f = (struct queue_filter){ .older_ms = -1, .newer_ms = -1, .smaller = UINT64_MAX };
    arena_init(&f->arena, 0);
}

void queue_filter_done(struct queue_filter *f)
{
    arena_done(&f->arena);
}

/* ---- reading ---------------------------------------------------------------------------------- */

PRINTF_LIKE(2, 3) static int bad(char *error, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(error, QUEUE_FILTER_ERROR, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

static int no_memory(char *error)
{
    bad(error, "out of memory");
    return -ENOMEM;
}

/* A value as it stands in an error: not too much of it. */
#define SHOWN(s) STR_ARG(str_first((s), 80))

static int keep(struct queue_filter *f, struct str value, struct str *ret, char *error)
{
    *ret = arena_str(&f->arena, value);
    return ret->p ? 0 : no_memory(error);
}

/* An address literal in its normal form. */
static int set_literal(struct queue_filter *f, const char *name, struct str value, struct str *ret,
                       char *error)
{
    struct smtp_mailbox box = { STR("postmaster"), value };
    struct address address;
    int e = address_make(&f->arena, &box, &address);

    if (e == -ENOMEM)
        return no_memory(error);
    if (e < 0)
        return bad(error,
                   "'%s': '" STR_FMT
                   "' is no address literal such as [192.0.2.1] or [IPv6:2001:db8::1]",
                   name, SHOWN(value));
    *ret = address.domain;
    return 0;
}

/* A domain in its normal form; a pattern as it is. */
static int set_domain(struct queue_filter *f, const char *name, struct str value, struct str *ret,
                      char *error)
{
    char domain[DOMAIN_TEXT];

    if (str_empty(value))
        return bad(error, "'%s' has an empty domain", name);
    if (glob_is_pattern(value))
        return keep(f, value, ret, error);
    if (*value.p == '[')
        return set_literal(f, name, value, ret, error);
    ptrdiff_t n = *value.p == '.' ? -EINVAL : domain_normalize(value, domain, sizeof(domain));
    if (n == -ENOMEM)
        return no_memory(error);
    if (n < 0)
        return bad(error,
                   "'%s': '" STR_FMT
                   "' is no name of a domain (for subdomains write *.example.com)",
                   name, SHOWN(value));
    return keep(f, str_make(domain, (size_t)n), ret, error);
}

static int set_queue(struct queue_filter *f, struct str value, char *error)
{
    if (value.n > SPOOL_MAX_QUEUE_NAME)
        return bad(error, "'queue' is longer than any name of a queue (%d octets)",
                   SPOOL_MAX_QUEUE_NAME);
    f->queue_is_pattern = glob_is_pattern(value);
    return keep(f, value, &f->queue, error);
}

/* Behind the last '@'. */
static int set_address(struct queue_filter *f, const char *name, struct str value,
                       struct filter_address *ret, char *error)
{
    ptrdiff_t at = str_rchr(value, '@');

    if (at == 0) {
        ret->kind = FILTER_DOMAIN;
        return set_domain(f, name, str_from(value, 1), &ret->text, error);
    }
    if (glob_is_pattern(value)) {
        ret->kind = FILTER_GLOB;
        return keep(f, value, &ret->text, error);
    }
    if (at < 0 && !str_caseeq(value, STR("postmaster")))
        return bad(error,
                   "'%s': '" STR_FMT
                   "' is no address; write user@example.com, @example.com for all "
                   "of a domain, or a pattern such as *@*.example.com",
                   name, SHOWN(value));
    ret->kind = FILTER_ADDRESS;
    int e = keep(f, at < 0 ? value : str_first(value, (size_t)at), &ret->local, error);
    if (e < 0 || at < 0)
        return e;
    return set_domain(f, name, str_from(value, (size_t)at + 1), &ret->text, error);
}

static int set_sender(struct queue_filter *f, struct str value, char *error)
{
    if (!str_eq(value, STR("<>")))
        return set_address(f, "sender", value, &f->sender, error);
    f->sender.kind = FILTER_NULL_SENDER;
    return 0;
}

static int set_duration(const char *name, struct str value, int64_t *ret, char *error)
{
    if (duration_parse(value, ret) == 0)
        return 0;
    return bad(error, "'%s' must be a duration such as 30m, 2h or 5d, not '" STR_FMT "'", name,
               SHOWN(value));
}

static int set_size(const char *name, struct str value, uint64_t *ret, char *error)
{
    if (size_parse(value, ret) == 0)
        return 0;
    return bad(error, "'%s' must be a size such as 4096, 100K or 5M, not '" STR_FMT "'", name,
               SHOWN(value));
}

static int set_state(struct queue_filter *f, struct str value, char *error)
{
    static const char *const names[] = {
        [FILTER_READY] = "ready",       [FILTER_ACTIVE] = "active",
        [FILTER_DEFERRED] = "deferred", [FILTER_SCHEDULED] = "scheduled",
        [FILTER_WAITING] = "waiting",   [FILTER_HELD] = "held",
    };

    for (size_t i = FILTER_READY; i < ARRAY_LEN(names); i++)
        if (str_eq(value, str_of(names[i]))) {
            f->state = (enum queue_filter_state)i;
            return 0;
        }
    return bad(error,
               "'state' must be ready, active, deferred, scheduled (these three), waiting or held, "
               "not '" STR_FMT "'",
               SHOWN(value));
}

static bool is_x(char c)
{
    return c == 'x' || c == 'X';
}

/* "451", "45x", "4xx". */
static bool take_code(struct str s, struct filter_reply *ret)
{
    if (s.n != 3 || s.p[0] < '2' || s.p[0] > '5')
        return false;
    for (size_t i = 0; i < 3; i++) {
        if (!ascii_digit(s.p[i]) && !is_x(s.p[i]))
            return false;
        ret->part[i] = is_x(s.p[i]) ? -1 : s.p[i] - '0';
    }
    ret->kind = FILTER_CODE;
    return true;
}

/* "4.7.1", "4.7.x". */
static bool take_enhanced(struct str s, struct filter_reply *ret)
{
    struct str part;
    size_t n = 0;

    for (; n < 3 && str_cut(&s, '.', &part); n++) {
        uint64_t number = 0;
        bool any = part.n == 1 && is_x(*part.p) && n > 0;
        if (!any && (str_to_u64(part, &number) < 0 || number > 999))
            return false;
        ret->part[n] = any ? -1 : (int)number;
    }
    if (n != 3 || s.p || (ret->part[0] != 2 && ret->part[0] != 4 && ret->part[0] != 5))
        return false;
    ret->kind = FILTER_ENHANCED;
    return true;
}

static int set_reply(struct queue_filter *f, struct str value, char *error)
{
    if (take_code(value, &f->reply) || take_enhanced(value, &f->reply))
        return 0;
    f->reply.kind = FILTER_TEXT;
    return keep(f, value, &f->reply.text, error);
}

static int set_text(struct queue_filter *f, struct str value, struct str *ret, char *error)
{
    return keep(f, value, ret, error);
}

static int set(struct queue_filter *f, size_t which, struct str value, char *error)
{
    switch (which) {
    case 0: return set_queue(f, value, error);
    case 1: return set_domain(f, "destination", value, &f->destination, error);
    case 2: return set_sender(f, value, error);
    case 3: return set_address(f, "recipient", value, &f->recipient, error);
    case 4: return set_duration("older", value, &f->older_ms, error);
    case 5: return set_duration("newer", value, &f->newer_ms, error);
    case 6: return set_size("larger", value, &f->larger, error);
    case 7: return set_size("smaller", value, &f->smaller, error);
    case 8: return set_state(f, value, error);
    case 9: return set_reply(f, value, error);
    case 10: return set_text(f, value, &f->route, error);
    default: return set_text(f, value, &f->policy, error);
    }
}

static int unknown_name(struct str name, char *error)
{
    char word[64];
    size_t n = 0;

    str_copy(name, word, sizeof(word));
    while (queue_filter_names[n])
        n++;
    const char *near = nearest_name(word, queue_filter_names, n);
    bad(error, "there is no condition '%s'%s%s%s", word, near ? "; did you mean '" : "",
        near ? near : "", near ? "'?" : "");
    return -ENOENT;
}

int queue_filter_set(struct queue_filter *f, struct str name, struct str value, char *error)
{
    size_t which = 0;

    while (queue_filter_names[which] && !str_eq(name, str_of(queue_filter_names[which])))
        which++;
    if (!queue_filter_names[which])
        return unknown_name(name, error);
    if (f->n & 1u << which) {
        bad(error, "'" STR_FMT "' is given twice", STR_ARG(name));
        return -EEXIST;
    }
    if (str_empty(value))
        return bad(error, "'" STR_FMT "' is empty", STR_ARG(name));
    if (value.n > QUEUE_FILTER_TEXT)
        return bad(error, "'" STR_FMT "' is longer than %d octets", STR_ARG(name),
                   QUEUE_FILTER_TEXT);
    int e = set(f, which, value, error);
    if (e == 0)
        f->n |= 1u << which;
    return e;
}

int queue_filter_check(const struct queue_filter *f, char *error)
{
    char a[32], b[32];

    if (f->older_ms >= 0 && f->newer_ms >= 0 && f->older_ms >= f->newer_ms)
        return bad(error, "nothing is older than %s and newer than %s",
                   duration_text(f->older_ms, a), duration_text(f->newer_ms, b));
    if (f->larger && f->smaller != UINT64_MAX && f->larger >= f->smaller)
        return bad(error, "nothing is larger than %llu and smaller than %llu octets",
                   (unsigned long long)f->larger, (unsigned long long)f->smaller);
    return 0;
}

/* ---- keys and rows ---------------------------------------------------------------------------- */

bool queue_filter_class(const struct queue_filter *f, enum spool_class c)
{
    switch (f->state) {
    case FILTER_ANY_STATE: return true;
    case FILTER_ACTIVE: return c != SPOOL_HELD; /* a release delivers what waits */
    case FILTER_READY:
    case FILTER_DEFERRED:
    case FILTER_SCHEDULED: return c == SPOOL_SCHEDULED;
    case FILTER_WAITING: return c == SPOOL_WAITING;
    case FILTER_HELD: return c == SPOOL_HELD;
    }
    return false;
}

bool queue_filter_queue(const struct queue_filter *f, struct str queue)
{
    if (!f->queue.p)
        return true;
    return f->queue_is_pattern ? glob_match(f->queue, queue) : str_eq(f->queue, queue);
}

int64_t queue_filter_first_ms(const struct queue_filter *f, int64_t now_ms)
{
    return f->newer_ms >= 0 && f->newer_ms < now_ms ? now_ms - f->newer_ms : 0;
}

int64_t queue_filter_last_ms(const struct queue_filter *f, int64_t now_ms)
{
    if (f->older_ms > 0)
        return now_ms - MIN(f->older_ms, now_ms);
    /* The clock may have been set back since: where no age is asked for, ids of the future are as good as any. */
    return f->older_ms == 0 || f->newer_ms >= 0 ? now_ms : INT64_MAX;
}

bool queue_filter_key(const struct queue_filter *f, enum spool_class c, int64_t due_ms,
                      const struct msgid *id, int64_t now_ms)
{
    int64_t came = msgid_time(id);

    if (!queue_filter_class(f, c) || came < queue_filter_first_ms(f, now_ms) ||
        came > queue_filter_last_ms(f, now_ms))
        return false;
    if (f->state == FILTER_READY)
        return due_ms <= now_ms;
    return f->state != FILTER_DEFERRED || due_ms > now_ms;
}

bool queue_filter_size(const struct queue_filter *f, uint64_t size)
{
    return (f->larger == 0 || size > f->larger) && (f->smaller == UINT64_MAX || size < f->smaller);
}

/* ---- records ---------------------------------------------------------------------------------- */

static bool domain_fits(struct str wanted, struct str domain)
{
    return glob_is_pattern(wanted) ? glob_match(wanted, domain) : str_caseeq(wanted, domain);
}

static bool address_fits(const struct filter_address *f, const struct address *a)
{
    switch (f->kind) {
    case FILTER_NO_ADDRESS: return true;
    case FILTER_NULL_SENDER: return str_empty(a->text);
    case FILTER_DOMAIN: return a->domain.n && domain_fits(f->text, a->domain);
    case FILTER_ADDRESS: return str_caseeq(f->local, a->local) && str_caseeq(f->text, a->domain);
    case FILTER_GLOB: return a->text.n && glob_match(f->text, a->text);
    }
    return false;
}

bool queue_filter_sender(const struct queue_filter *f, const struct address *sender)
{
    return address_fits(&f->sender, sender);
}

static bool part_fits(int wanted, unsigned is)
{
    return wanted < 0 || (unsigned)wanted == is;
}

static bool codes_fit(const struct filter_reply *f, const struct smtp_reply *r)
{
    if (f->kind == FILTER_CODE)
        return r->code && part_fits(f->part[0], r->code / 100u) &&
               part_fits(f->part[1], r->code / 10u % 10u) && part_fits(f->part[2], r->code % 10u);
    return r->enhanced.class_ && part_fits(f->part[0], r->enhanced.class_) &&
           part_fits(f->part[1], r->enhanced.subject) && part_fits(f->part[2], r->enhanced.detail);
}

/* As a log shows it: "451 4.7.1 try later". */
static bool line_fits(const struct filter_reply *f, const struct smtp_reply *r,
                      struct arena *scratch)
{
    char enhanced[16];
    struct str line = arena_printf(scratch, "%u %s" STR_FMT, r->code,
                                   smtp_enhanced_text(r->enhanced, enhanced), STR_ARG(r->text));

    return glob_finds(f->text, line);
}

/* The last answer stands in the record as its text; its codes are in the history. */
static bool reply_fits(const struct filter_reply *f, const struct recipient *r,
                       struct arena *scratch)
{
    struct history h;

    if (f->kind == FILTER_NO_REPLY)
        return true;
    if (!r->last_ms)
        return false;
    if (f->kind == FILTER_TEXT && glob_finds(f->text, r->last_reply))
        return true;
    if (history_decode(scratch, r->history, &h) < 0 || h.n == 0 || h.attempts[h.n - 1].n_tries == 0)
        return false;
    const struct history_attempt *last = &h.attempts[h.n - 1];
    const struct smtp_reply *reply = &last->tries[last->n_tries - 1].reply;
    if (f->kind == FILTER_TEXT)
        return reply->code && line_fits(f, reply, scratch);
    return codes_fit(f, reply);
}

static bool route_fits(struct str wanted, const struct route *route)
{
    struct buf text;

    if (!wanted.p)
        return true;
    if (!route)
        return false;
    buf_init(&text, 0);
    route_describe(route, &text);
    bool fits = glob_finds(wanted, buf_str(&text));
    buf_done(&text);
    return fits;
}

bool queue_filter_needs_recipient(const struct queue_filter *f)
{
    return f->destination.p || f->recipient.kind || f->reply.kind || f->route.p || f->policy.p;
}

bool queue_filter_recipient(const struct queue_filter *f, const struct recipient *r,
                            struct arena *scratch)
{
    if (f->destination.p && !domain_fits(f->destination, r->address.domain))
        return false;
    return address_fits(&f->recipient, &r->address) &&
           (!f->policy.p || glob_finds(f->policy, r->decided_by)) &&
           route_fits(f->route, r->route) && reply_fits(&f->reply, r, scratch);
}
