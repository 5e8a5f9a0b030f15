/* queue_status.c - what a queue tells of itself to people, and what it remembers of its failures.
 * See queue.h. */
#include "engine/queue_impl.h"

/* Beyond, in all queues of a worker, each remembers little of its failures. */
enum { HISTORIES_IN_MEMORY = 16 * 1024 * 1024 };

void queue_note_failure(struct queue *q, struct history_attempt *a, const struct history_plan *plan)
{
    struct queues *all = q->all;
    size_t max = all->histories > HISTORIES_IN_MEMORY ? HISTORY_SMALL : HISTORY_MAX;
    struct arena scratch;
    struct buf b;
    if (q->delivering > 1 || (q->failures && q->retry_at > engine_now(all->engine)))
        return; /* several attempts fail at once: one failure, and only if nothing works */
    arena_init(&scratch, 0);
    buf_init(&b, 0);
    a->number = q->failures + 1;
    if (history_add(&scratch, str_make(q->history, q->history_n), a, plan, max, &b) == 0) {
        struct str bytes = buf_str(&b);
        char *p = bytes.p ? realloc(q->history, bytes.n) : NULL;
        if (p) {
            memcpy(p, bytes.p, bytes.n);
            all->histories += bytes.n - q->history_n;
            q->history = p;
            q->history_n = bytes.n;
        }
    }
    buf_done(&b);
    arena_done(&scratch);
}

int queue_history(struct queues *all, struct str name, struct buf *ret)
{
    const struct queue *q = queue_find(all, name);
    return q && q->history_n ? buf_add(ret, q->history, q->history_n) : 0;
}

enum job_place queue_job_place(struct queues *all, struct str name, const struct msgid *id,
                               uint32_t n)
{
    const struct queue *q = queue_find(all, name);
    const struct job *j = q ? job_find(all, q, id) : NULL;
    for (size_t i = 0; j && i < j->n; i++)
        if (j->recipients[i].n == n)
            return j->mode == JOB_LOCKED  ? JOB_BEING_CHANGED
                   : list_empty(&j->link) ? JOB_UNDER_WAY
                   : j->parked            ? JOB_PARKED
                                          : JOB_READY;
    return JOB_NOT_HERE;
}

static enum queue_gate gate_of(const struct queue *q)
{
    bool ready = !list_empty(&q->ready) || !list_empty(&q->fresh);
    if (q->n_jobs <= q->active)
        return GATE_OPEN;
    return !q->gate && !ready && !list_empty(&q->parked) ? GATE_SOURCE : q->gate;
}

bool queue_status(struct queues *all, struct str name, struct queue_status *ret)
{
    struct queue *q = queue_find(all, name);
    if (!q)
        return false;
    int64_t now = engine_now(all->engine);
    *ret = (struct queue_status){
        .gate = gate_of(q),
        .gate_in_ms = q->gate == GATE_OPEN || q->gate_at == INT64_MAX
                          ? -1
                          : MAX(q->gate_at - now, INT64_C(0)),
        .active = q->active,
        .in_memory = (uint32_t)q->n_jobs,
        .concurrency = q->pace.limit,
        .ceiling = q->pace.ceiling,
        .retry_in_ms = queue_waits(q) ? queue_waits_until(q) - now : -1,
        .failures = q->failures,
        .failing_since_ms = q->failing_since_ms,
        .released_ms = q->released ? MAX(q->released_until - now, (int64_t)0) : 0,
        .starving = !list_empty(&q->starving),
        .unproven = !q->proven,
        .held = q->held,
        .released = q->released,
    };
    struct host_limit at;
    if (hosts_place_status(all->engine->hosts, &q->place, &at)) {
        char text[NET_ADDR_TEXT];
        str_copy(str_of(net_addr_text(&at.addr, text)), ret->host, sizeof ret->host);
        ret->host_connections = at.in_use;
        ret->host_limit = at.limit;
        ret->host_line = at.line;
    }
    str_copy(str_of(q->last_error), ret->last_error, sizeof ret->last_error);
    return true;
}
