/* See watch.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "watch.h"

#include <stdio.h>

#include "engine/context.h"
#include "engine/queue.h"
#include "engine/sources.h"

enum {
    LOOK_MS = 20,      /* limits are looked at that often, when anything happens */
    CONSERVE_MS = 100, /* the same for queues that could start something */
    SCAN_MS = 1000,    /* and for the spool as a whole */
    PAGE = 512,
    SLACK_MS = 5000, /* names, commits, hooks */
};

static int64_t now_of(const struct watch *w)
{
    return sim_world_clock(w->f->w)->now;
}

static void violated(const struct watch *w, const char *property, const struct watch_queue *q,
                     const char *what)
{
    fail_msg("%s: seed %lu, after %ld ms, queue %s: %s", property, (unsigned long)w->seed,
             (long)now_of(w), q ? q->name : "-", what);
}

static struct queues *queues_of(const struct watch *w, const struct watch_queue *q)
{
    return sim_world_engine(w->f->w, q->worker)->queues;
}

void watch_init(struct watch *w, struct fixture *f, uint64_t seed, uint32_t connections)
{
    *w = (struct watch){ .f = f,
                         .seed = seed,
                         .connections = connections,
                         .connections_next = connections,
                         .attempt_ms = 60 * SIM_SECOND,
                         .transaction_ms = 10 * SIM_SECOND };
    w->q = calloc(WATCH_QUEUES, sizeof *w->q);
    CHECK(w->q != NULL);
    for (int i = 0; i < SIM_MAX_WORKERS; i++)
        w->over_since[i] = -1;
}

void watch_done(struct watch *w)
{
    free(w->q);
    w->q = NULL;
}

struct watch_queue *watch_add(struct watch *w, const char *domain, const char *addr,
                              uint32_t concurrency, uint32_t most)
{
    CHECK(w->n < WATCH_QUEUES);
    struct watch_queue *q = &w->q[w->n++];
    *q = (struct watch_queue){ .concurrency = concurrency,
                               .limit = concurrency ? concurrency : most,
                               .works = true,
                               .over_since = -1,
                               .wasted_since = -1,
                               .able_since = -1,
                               .parked_since = -1 };
    q->limit_next = q->limit;
    CHECK(str_copy(str_of(domain), q->name, sizeof q->name));
    q->host = sim_world_host(w->f->w, addr);
    q->worker = engine_queue_owner(str_of(domain), sim_world_workers(w->f->w));
    return q;
}

void watch_source(struct watch *w, size_t i, const char *addr, uint32_t concurrency)
{
    CHECK(i < WATCH_SOURCES);
    w->source[i] = (struct watch_source){ .concurrency = concurrency, .over_since = -1 };
    CHECK(net_addr_parse_ip(str_of(addr), &w->source[i].addr) == 0);
}

void watch_limits(struct watch *w, uint32_t most, uint32_t connections)
{
    int64_t from = now_of(w) + w->attempt_ms;
    w->connections_next = connections;
    w->connections = MAX(w->connections, connections);
    w->connections_from = from;
    for (size_t i = 0; i < w->n; i++) {
        struct watch_queue *q = &w->q[i];
        q->limit_next = q->concurrency ? q->concurrency : most;
        q->limit = MAX(q->limit, q->limit_next);
        q->limit_from = from;
    }
}

void watch_forget(struct watch *w)
{
    for (size_t i = 0; i < w->n; i++)
        w->q[i].over_since = w->q[i].able_since = w->q[i].wasted_since = w->q[i].parked_since = -1;
    for (size_t i = 0; i < WATCH_SOURCES; i++)
        w->source[i].over_since = -1;
    for (int i = 0; i < SIM_MAX_WORKERS; i++)
        w->over_since[i] = -1;
    w->looked = w->conserved = w->scanned = now_of(w);
}

/* ---- limits ----------------------------------------------------------------------------------- */

static void check_over(struct watch *w, const struct watch_queue *q, int64_t *since, size_t busy,
                       uint32_t limit, const char *property)
{
    char text[96];
    w->most_busy = MAX(w->most_busy, busy);
    if (busy <= limit) {
        *since = -1;
        return;
    }
    if (*since < 0)
        *since = now_of(w);
    if (now_of(w) - *since <= WATCH_GRACE_MS)
        return;
    snprintf(text, sizeof text, "%zu connections in use where %u are allowed", busy, limit);
    violated(w, property, q, text);
}

static void check_limits(struct watch *w)
{
    size_t busy[SIM_MAX_WORKERS] = { 0 };
    if (now_of(w) >= w->connections_from)
        w->connections = w->connections_next;
    for (size_t i = 0; i < w->n; i++) {
        struct watch_queue *q = &w->q[i];
        size_t here = sim_host_busy(q->host);
        if (now_of(w) >= q->limit_from)
            q->limit = q->limit_next;
        check_over(w, q, &q->over_since, here, q->limit, "limit of a queue");
        busy[q->worker] += here;
    }
    for (int i = 0; i < sim_world_workers(w->f->w); i++)
        check_over(w, NULL, &w->over_since[i], busy[i], w->connections, "queue.connections");
    for (size_t k = 0; k < WATCH_SOURCES && w->source[k].concurrency; k++) {
        size_t from_it = 0; /* of those that have no other */
        for (size_t i = 0; i < w->n; i++)
            from_it += w->q[i].sources == 1u << k ? sim_host_busy(w->q[i].host) : 0;
        check_over(w, NULL, &w->source[k].over_since, from_it, w->source[k].concurrency,
                   "limit of a source");
    }
}

/* ---- work conserving -------------------------------------------------------------------------- */

/* What is due in a queue, without what is under way. */
struct due {
    size_t ready; /* recipients in memory that could go */
    size_t parked;
    size_t
        unseen; /* recipients that are only in the spool, and not of a message that is under way */
    int64_t oldest; /* wall: of those; INT64_MAX: none */
    bool whole;     /* all that is due was seen */
};

static bool under_way(struct queues *all, struct str name, const struct spool_due *d)
{
    enum job_place p = queue_job_place(all, name, &d->id, d->n);
    return p == JOB_UNDER_WAY || p == JOB_BEING_CHANGED;
}

/* The messages of a page of which something is under way: what else they have there waits for that. */
static size_t messages_under_way(struct queues *all, struct str name, const struct spool_due *page,
                                 int n, struct msgid ids[PAGE])
{
    size_t found = 0;
    for (int i = 0; i < n; i++)
        if ((found == 0 || msgid_cmp(&ids[found - 1], &page[i].id)) &&
            under_way(all, name, &page[i]))
            ids[found++] = page[i].id;
    return found;
}

static bool is_one_of(const struct msgid *id, const struct msgid *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (msgid_cmp(id, &ids[i]) == 0)
            return true;
    return false;
}

static struct due look_for_due(const struct watch *w, const struct watch_queue *q)
{
    static struct spool_due page[PAGE];
    static struct msgid busy[PAGE];
    struct due ret = { .oldest = INT64_MAX };
    struct queues *all = queues_of(w, q);
    struct port_spool *spool = sim_world_ports(w->f->w, q->worker)->spool;
    struct str name = str_of(q->name);
    int64_t until = sim_wall(sim_world_clock(w->f->w)) - 2;
    int n = spool->scan_due(spool, name, SPOOL_SCHEDULED, NULL, until, page, PAGE);
    CHECK(n >= 0);
    size_t n_busy = messages_under_way(all, name, page, n, busy);
    for (int i = 0; i < n; i++) {
        if (is_one_of(&page[i].id, busy, n_busy))
            continue;
        enum job_place place = queue_job_place(all, name, &page[i].id, page[i].n);
        if (place == JOB_READY)
            ret.ready++;
        else if (place == JOB_PARKED)
            ret.parked++;
        else
            ret.unseen++;
        ret.oldest = MIN(ret.oldest, page[i].due_ms);
    }
    ret.whole = n < PAGE;
    return ret;
}

/* Nothing but a free connection is missing. */
static bool could_start(const struct watch *w, const struct watch_queue *q,
                        struct queue_status *status)
{
    if (!queue_status(queues_of(w, q), str_of(q->name), status))
        return false;
    uint32_t allowed = status->concurrency;
    if (q->concurrency)
        allowed = MIN(allowed, q->concurrency);
    return !status->held && status->retry_in_ms < 0 && status->active < allowed &&
           !status->host[0]; /* else it stands in line for a host */
}

/* What could start in that queue; nothing: all is as it should be. */
static struct due could_have_started(const struct watch *w, const struct watch_queue *q,
                                     struct queue_status *status)
{
    struct due none = { .oldest = INT64_MAX };
    uint32_t room = w->f->settings->queue.connections;
    if (!could_start(w, q, status))
        return none;
    if (status->unproven) /* half of them at least is for these */
        room -= room / 2;
    if (queues_active(queues_of(w, q)) >= room)
        return none;
    struct due due = look_for_due(w, q);
    if (due.ready == 0 && (!due.whole || due.parked || status->in_memory >= QUEUE_WINDOW))
        return none; /* what is behind may hold it up */
    return due;
}

static void check_work_conserving(struct watch *w)
{
    char text[128];
    for (size_t i = 0; i < w->n; i++) {
        struct watch_queue *q = &w->q[i];
        struct queue_status status;
        struct due due = could_have_started(w, q, &status);
        if (due.ready + due.unseen == 0)
            q->wasted_since = -1;
        else if (q->wasted_since < 0)
            q->wasted_since = now_of(w);
        /* A command of an operator may hold it up for as long as its commit takes. */
        if (q->wasted_since < 0 || now_of(w) - q->wasted_since < WATCH_GRACE_MS)
            continue;
        snprintf(text, sizeof text,
                 "%zu recipients are ready and %zu due in the spool, %u of %u are active, and %zu "
                 "of %u connections",
                 due.ready, due.unseen, status.active, status.concurrency,
                 queues_active(queues_of(w, q)), w->f->settings->queue.connections);
        violated(w, "work conserving", q, text);
    }
}

/* Nothing that is due is out of sight: a queue that is not in memory has nothing that is due. */
static void check_out_of_sight(struct watch *w, const struct watch_queue *q, const struct due *due)
{
    struct queue_status status;
    char text[96];
    if (due->oldest == INT64_MAX || queue_status(queues_of(w, q), str_of(q->name), &status))
        return;
    snprintf(text, sizeof text, "%zu recipients are due, and the queue is forgotten", due->unseen);
    violated(w, "out of sight", q, text);
}

/* ---- parked ----------------------------------------------------------------------------------- */

static bool one_is_free(const struct watch *w, unsigned sources)
{
    for (size_t k = 0; k < WATCH_SOURCES; k++) {
        if (!(sources & 1u << k))
            continue;
        const struct source *s =
            sources_get(sim_world_shared(w->f->w)->sources, &w->source[k].addr);
        if (!s || !w->source[k].concurrency || atomic_load(&s->open) < w->source[k].concurrency)
            return true;
    }
    return false;
}

/* Four of those that wait are woken when something ends, and each second. */
static void check_parked(struct watch *w, struct watch_queue *q, const struct due *due)
{
    struct queue_status status;
    char text[96];
    w->found_parked += due->parked > 0;
    bool idle = due->parked && one_is_free(w, q->sources) && could_start(w, q, &status) &&
                queues_active(queues_of(w, q)) < w->f->settings->queue.connections / 2;
    if (!idle)
        q->parked_since = -1;
    else if (q->parked_since < 0)
        q->parked_since = now_of(w);
    if (q->parked_since < 0 || now_of(w) - q->parked_since < 3000 + (int64_t)w->n * 250)
        return;
    snprintf(text, sizeof text,
             "%zu recipients are parked, and one of their sources is free for %ld ms", due->parked,
             (long)(now_of(w) - q->parked_since));
    violated(w, "parked", q, text);
}

/* ---- starvation ------------------------------------------------------------------------------- */

/* While connections are short each queue gets one in its turn, so it waits at most until each other queue of its
 * worker has had one: that many rounds of the longest attempt. */
static int64_t rounds(const struct watch *w, const struct watch_queue *q)
{
    size_t here = 1; /* of the notifications */
    for (size_t i = 0; i < w->n; i++)
        here += w->q[i].worker == q->worker;
    uint32_t least = MAX(MIN(w->connections, w->connections_next), 1u);
    return (int64_t)((here + least - 1) / least);
}

int64_t watch_bound(const struct watch *w, const struct watch_queue *q)
{
    return (rounds(w, q) + 1) * w->attempt_ms + SLACK_MS;
}

/* What was in memory when it became due goes first, at worst one after the other; and new mail may have every other
 * turn. Urgent mail is due before it came, and goes before others that came up to that much earlier. */
int64_t watch_bound_of_oldest(const struct watch *w, const struct watch_queue *q)
{
    int64_t turns = rounds(w, q);
    int64_t each = turns > 1 ? turns * w->attempt_ms : w->transaction_ms;
    return watch_bound(w, q) + 2 * QUEUE_WINDOW * each + w->head_start_ms;
}

/* Attempts show at the host, which works. */
static void note_progress(const struct watch *w, struct watch_queue *q)
{
    uint64_t seen = sim_host_sessions(q->host) + sim_host_inbox(q->host) + sim_host_rsets(q->host);
    if (seen != q->seen)
        q->progress = now_of(w);
    q->seen = seen;
}

static void check_starvation(struct watch *w, struct watch_queue *q, const struct due *due)
{
    struct queue_status s;
    char text[96];
    int64_t now = now_of(w), wall = sim_wall(sim_world_clock(w->f->w));
    bool known = queue_status(queues_of(w, q), str_of(q->name), &s);
    bool able = q->works && !(known && (s.held || s.retry_in_ms >= 0)) && !due->parked;
    if (!able)
        q->able_since = -1;
    else if (q->able_since < 0)
        q->able_since = now;
    if (known && s.active)
        q->progress = now;
    if (!able || due->oldest == INT64_MAX)
        return;
    w->found_due++;
    int64_t since = MAX(now - (wall - due->oldest), q->able_since);
    int64_t none = now - MAX(since, q->progress);
    bool idle = none > watch_bound(w, q);
    if (!idle && now - since <= watch_bound_of_oldest(w, q))
        return;
    snprintf(text, sizeof text, "due for %ld ms, and %s for %ld ms", (long)(now - since),
             idle ? "no attempt at all" : "others go first", (long)(idle ? none : now - since));
    violated(w, "starvation", q, text);
}

static void scan(struct watch *w)
{
    for (size_t i = 0; i < w->n; i++) {
        note_progress(w, &w->q[i]);
        struct due due = look_for_due(w, &w->q[i]);
        check_out_of_sight(w, &w->q[i], &due);
        check_parked(w, &w->q[i], &due);
        check_starvation(w, &w->q[i], &due);
    }
}

/* ---- time ------------------------------------------------------------------------------------- */

/* Nothing more happens at this moment. */
static void look(struct watch *w)
{
    int64_t now = now_of(w);
    if (!sim_world_running(w->f->w) || now - w->looked < LOOK_MS)
        return;
    w->looked = now;
    w->looks++;
    check_limits(w);
    if (now - w->conserved >= CONSERVE_MS) {
        w->conserved = now;
        check_work_conserving(w);
    }
    if (now - w->scanned >= SCAN_MS) {
        w->scanned = now;
        scan(w);
    }
}

void watch_advance(struct watch *w, int64_t ms)
{
    struct sim_clock *clock = sim_world_clock(w->f->w);
    int64_t end = clock->now + ms;
    for (;;) {
        sim_world_advance(w->f->w, 0);
        look(w);
        int64_t next = MAX(timer_heap_next(&clock->timers), clock->now + 1);
        if (next > end || clock->now >= end)
            break;
        sim_world_advance(w->f->w, next - clock->now);
    }
    sim_world_advance(w->f->w, end - clock->now);
    look(w);
}
