/* tls_reports.c - counts of TLS sessions, on their way into the spool. Layer: engine. Interface: tls_reports.h.
 *
 * An entry is a row with counts that the spool has not got. It waits in a list, the oldest first, is written (the row is
 * read, the counts are added), and is gone, unless something has been counted meanwhile. */
#include "engine/tls_reports.h"

#include <stdio.h>

#include "base/table.h"
#include "base/units.h"
#include "engine/context.h"

enum {
    DAY_TEXT = 10, /* "2026-11-30" */
    DAY_MS = 24 * 60 * 60 * 1000,
    KEY_MAX = DAY_TEXT + 1 + DNS_MAX_NAME + 1 + 10,
    BATCH = 64, /* rows written in one turn */
};

struct entry {
    UT_hash_handle hh; /* by key */
    struct list link;  /* tls_reports.waiting, when there is something fresh, and no write */
    struct tls_reports *all;
    struct tls_report *fresh; /* not given to the spool; NULL: nothing */
    struct write *write;      /* under way; NULL: none */
    int64_t since_ms;         /* the first of what is fresh was counted */
    int64_t expires_ms;       /* wall */
    size_t key_n;
    char key[KEY_MAX];
};

/* A row on its way. Outlives its entry when the engine ends. */
struct write {
    struct spool_op op;
    struct spool_change change;
    struct entry *entry;       /* NULL: the engine has gone */
    struct tls_report *counts; /* for when it fails */
    struct buf value;
    char key[KEY_MAX];
};

struct tls_reports {
    struct engine *engine;
    struct entry *entries;
    struct list waiting;
    struct list flushes; /* they wait until nothing waits any more, and nothing is under way */
    bool hurry;          /* nothing of `waiting` waits for its time */
    size_t writing;
    struct timer timer;
    bool stopping;
    /* how many domains have a row of this worker's, on that day: kept in the row of the others */
    char day[DAY_TEXT + 1];
    uint32_t domains;
};

static void on_timer(struct timer *t);

struct tls_reports *tls_reports_new(struct engine *e)
{
    struct tls_reports *all = calloc(1, sizeof(*all));

    if (!all)
        return NULL;
    all->engine = e;
    list_init(&all->waiting);
    list_init(&all->flushes);
    timer_init(&all->timer, on_timer);
    return all;
}

static void write_free(struct write *w)
{
    tls_report_free(w->counts);
    buf_done(&w->value);
    free(w);
}

static void entry_free(struct entry *x)
{
    HASH_DEL(x->all->entries, x);
    list_remove(&x->link);
    tls_report_free(x->fresh);
    if (x->write)
        x->write->entry = NULL; /* it frees itself */
    free(x);
}

struct tls_reports *tls_reports_free(struct tls_reports *all)
{
    struct entry *x, *next;

    if (!all)
        return NULL;
    engine_timer_stop(all->engine, &all->timer);
    HASH_ITER(hh, all->entries, x, next)
        entry_free(x);
    free(all);
    return NULL;
}

bool tls_reports_pending(const struct tls_reports *all)
{
    return !list_empty(&all->waiting) || all->writing;
}

bool tls_reports_key_take(struct str key, struct tls_reports_key *ret)
{
    ptrdiff_t end = str_rchr(key, ' ');

    if (key.n < DAY_TEXT + 4 || key.p[DAY_TEXT] != ' ' || end <= DAY_TEXT + 1)
        return false;
    ret->day = str_first(key, DAY_TEXT);
    ret->domain = str_from(str_first(key, (size_t)end), DAY_TEXT + 1);
    return true;
}

/* ---- counting --------------------------------------------------------------------------------- */

/* Goes on when there is something to be done. */
static void arm(struct tls_reports *all)
{
    const struct list *first = list_first(&all->waiting);
    int64_t now = engine_now(all->engine), at = now;

    if (!first)
        return;
    if (!all->stopping && !all->hurry)
        at = MAX(now, LIST_ENTRY(first, struct entry, link)->since_ms + TLS_REPORTS_WRITE_MS);
    if (!timer_armed(&all->timer) || all->timer.at > at)
        engine_timer(all->engine, &all->timer, at - now);
}

static void await(struct entry *x)
{
    x->since_ms = engine_now(x->all->engine);
    list_remove(&x->link);
    list_push(&x->all->waiting, &x->link);
    arm(x->all);
}

static bool make_key(char *dst, size_t *ret_n, const char *day, struct str domain, int worker)
{
    int n = snprintf(dst, KEY_MAX, "%s " STR_FMT " %d", day, STR_ARG(domain), worker);

    *ret_n = (size_t)n;
    return n > 0 && n < KEY_MAX;
}

/* The entry of that row, with room for counts. NULL: too many, or out of memory. */
static struct entry *entry_for(struct tls_reports *all, const char *day, int64_t day_ends_ms,
                               struct str domain, size_t most)
{
    struct entry *x = NULL;
    char key[KEY_MAX];
    size_t n;

    if (!make_key(key, &n, day, domain, all->engine->ports.workers->self))
        return NULL;
    HASH_FIND(hh, all->entries, key, n, x);
    if (!x && HASH_COUNT(all->entries) < most && (x = calloc(1, sizeof(*x)))) {
        x->all = all;
        list_init(&x->link);
        memcpy(x->key, key, n + 1);
        x->key_n = n;
        x->expires_ms = day_ends_ms + (int64_t)TLS_REPORTS_DAYS * DAY_MS;
        HASH_ADD(hh, all->entries, key, x->key_n, x);
        if (!x->hh.tbl) {
            free(x);
            return NULL;
        }
    }
    if (x && !x->fresh) {
        x->fresh = tls_report_new();
        if (!x->fresh) {
            if (!x->write)
                entry_free(x);
            return NULL;
        }
        if (!x->write)
            await(x);
    }
    return x;
}

void tls_reports_count(struct engine *e, struct str domain, const struct tls_policy *p,
                       const struct tls_session *s)
{
    struct tls_reports *all = e->tls_reports;
    int64_t wall = engine_wall(e), ends = (wall / DAY_MS + 1) * DAY_MS;
    char text[32], day[DAY_TEXT + 1];

    str_copy(str_first(str_of(date_iso8601(wall, text)), DAY_TEXT), day, sizeof(day));
    struct entry *x = entry_for(all, day, ends, domain, TLS_REPORTS_PENDING);
    if (!x) /* one more than that is there always */
        x = entry_for(all, day, ends, STR(TLS_REPORTS_OTHER), SIZE_MAX);
    if (x)
        tls_report_add(x->fresh, p, s);
    if (s->result == TLS_RESULT_SUCCESS)
        COUNT(e, tls_out_sessions, 1);
    else
        COUNT(e, tls_out_failures, 1);
}

/* ---- writing ---------------------------------------------------------------------------------- */

static void tell_flushes(struct tls_reports *all)
{
    if (all->hurry || all->writing)
        return;
    for (struct list *it; (it = list_pop(&all->flushes));) {
        struct tls_reports_flush *f = LIST_ENTRY(it, struct tls_reports_flush, link);
        f->done(f);
    }
}

/* What could not be written is to be written later. */
static void put_back(struct entry *x, struct tls_report *counts)
{
    if (!x->fresh) {
        x->fresh = counts;
        return;
    }
    tls_report_merge(x->fresh, counts);
    tls_report_free(counts);
}

static void on_written(struct spool_op *op)
{
    struct write *w = CONTAINER_OF(op, struct write, op);
    struct entry *x = w->entry;

    if (x) {
        struct tls_reports *all = x->all;
        all->writing--;
        x->write = NULL;
        if (op->result < 0) { /* nobody waits for the disk of who ends, or hurries */
            all->hurry = false;
            if (!all->stopping)
                put_back(x, TAKE(w->counts));
        }
        if (x->fresh)
            await(x);
        else
            entry_free(x);
        tell_flushes(all);
    }
    write_free(w);
}

/* What the row holds. 0 with NULL: nothing, or nothing that can be read. -EIO, -ENOMEM: not known. */
static int read_row(struct tls_reports *all, struct str key, struct tls_report **ret)
{
    struct port_spool *spool = all->engine->ports.spool;
    int64_t expires_ms;
    struct buf row;

    *ret = NULL;
    buf_init(&row, 0);
    int r = spool->kv_read(spool, STR(TLS_REPORTS_KV), key, &expires_ms, &row);
    if (r == 0)
        r = tls_report_decode(buf_str(&row), ret);
    buf_done(&row);
    return r == -ENOENT || r == -EBADMSG ? 0 : r;
}

static bool is_other(const struct entry *x)
{
    struct tls_reports_key k;

    return tls_reports_key_take(str_make(x->key, x->key_n), &k) &&
           str_eq(k.domain, STR(TLS_REPORTS_OTHER));
}

/* The entry of the others of x's day. */
static struct entry *others_of(struct entry *x)
{
    char day[DAY_TEXT + 1];

    str_copy(str_make(x->key, DAY_TEXT), day, sizeof(day));
    return entry_for(x->all, day, x->expires_ms - (int64_t)TLS_REPORTS_DAYS * DAY_MS,
                     STR(TLS_REPORTS_OTHER), SIZE_MAX);
}

/* How many domains there are on x's day. 0, or that of reading. */
static int begin_day(struct tls_reports *all, const struct entry *x)
{
    char day[DAY_TEXT + 1], key[KEY_MAX];
    struct tls_report *row;
    size_t n;

    str_copy(str_make(x->key, DAY_TEXT), day, sizeof(day));
    if (strcmp(day, all->day) == 0)
        return 0;
    CHECK(make_key(key, &n, day, STR(TLS_REPORTS_OTHER), all->engine->ports.workers->self));
    int r = read_row(all, str_make(key, n), &row);
    if (r < 0)
        return r;
    memcpy(all->day, day, sizeof(day));
    all->domains = row ? row->domains : 0;
    tls_report_free(row);
    return 0;
}

/* A domain that has no row yet may have one: 1. 0: its counts have gone to the others. -ENOMEM. */
static int may_begin(struct entry *x)
{
    struct tls_reports *all = x->all;
    struct entry *others = others_of(x);

    if (!others)
        return -ENOMEM;
    if (all->domains < TLS_REPORTS_DOMAINS) {
        all->domains++; /* which the row of the others, written after this one, remembers */
        return 1;
    }
    tls_report_merge(others->fresh, x->fresh);
    return 0;
}

/* row: taken over. -ENOMEM. */
static int submit(struct entry *x, struct tls_report *row)
{
    struct port_spool *spool = x->all->engine->ports.spool;
    struct write *w = calloc(1, sizeof(*w));

    if (w) {
        buf_init(&w->value, SPOOL_KV_MAX_VALUE);
        if (is_other(x) && str_eq(str_make(x->key, DAY_TEXT), str_of(x->all->day)))
            row->domains = x->all->domains;
    }
    if (!w || tls_report_encode(row, &w->value) < 0) {
        tls_report_free(row);
        if (w)
            write_free(w);
        return -ENOMEM;
    }
    tls_report_free(row);
    memcpy(w->key, x->key, sizeof(w->key));
    w->entry = x;
    w->counts = TAKE(x->fresh);
    list_remove(&x->link);
    x->write = w;
    x->all->writing++;
    w->change.type = SPOOL_KV_SET;
    w->change.kv = (struct spool_kv_change){ .name = STR(TLS_REPORTS_KV),
                                             .key = str_make(w->key, x->key_n),
                                             .value = buf_str(&w->value),
                                             .now_ms = engine_wall(x->all->engine),
                                             .expires_ms = x->expires_ms,
                                             .max = TLS_REPORTS_KEPT };
    w->op = (struct spool_op){
        .changes = &w->change, .n_changes = 1, .done = on_written, .patient = true
    };
    spool->submit(spool, &w->op);
    return 0;
}

/* x waits. Afterwards it does not, or is gone; else -errno. */
static int write_one(struct entry *x)
{
    struct tls_reports *all = x->all;
    struct tls_report *row = NULL;

    int r = begin_day(all, x);
    if (r == 0)
        r = read_row(all, str_make(x->key, x->key_n), &row);
    if (r == 0 && !row && !is_other(x)) {
        r = may_begin(x);
        if (r == 0) {
            entry_free(x);
            return 0;
        }
    }
    if (r >= 0 && !row)
        row = tls_report_new();
    if (r < 0 || !row)
        return r < 0 ? r : -ENOMEM;
    tls_report_merge(row, x->fresh);
    return submit(x, row);
}

/* It cannot be written now: later; or never, by who ends. */
static void postpone(struct entry *x)
{
    x->all->hurry = false;
    if (x->all->stopping)
        entry_free(x);
    else
        await(x);
}

static void on_timer(struct timer *t)
{
    struct tls_reports *all = CONTAINER_OF(t, struct tls_reports, timer);
    int64_t now = engine_now(all->engine);

    for (int i = 0; i < BATCH; i++) {
        struct list *first = list_first(&all->waiting);
        struct entry *x = first ? LIST_ENTRY(first, struct entry, link) : NULL;
        if (!x || (!all->stopping && !all->hurry && now - x->since_ms < TLS_REPORTS_WRITE_MS))
            break;
        if (write_one(x) < 0)
            postpone(x);
    }
    all->hurry &= !list_empty(&all->waiting);
    arm(all);
    tell_flushes(all);
}

void tls_reports_flush(struct engine *e, struct tls_reports_flush *f)
{
    struct tls_reports *all = e->tls_reports;

    all->hurry = true;
    list_init(&f->link);
    list_push(&all->flushes, &f->link);
    engine_timer(e, &all->timer, 0); /* also when there is nothing to be written */
}

void tls_reports_stop(struct tls_reports *all)
{
    all->stopping = true;
    arm(all);
}
