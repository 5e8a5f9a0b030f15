/* queue_arrive.c - new mail on its way to its queue: told to the queue's owner, and there into the window, among
 * the fresh ones, or left to the disk. See queue.h. */
#include "base/hash.h"
#include "engine/held.h"
#include "engine/queue_impl.h"

static bool copy(struct arena *a, struct str *s)
{
    struct str from = *s;
    *s = arena_str(a, from);
    return s->n == from.n;
}

/* All of it, or nothing: what is missing in memory would be missing on disk with the next change. False: out of
 * memory. */
static bool copy_recipient(struct arena *a, const struct recipient *from, struct recipient *to)
{
    *to = *from;
    to->route = NULL;
    struct str *texts[] = {
        &to->address.text, &to->address.local, &to->address.domain, &to->orcpt,
        &to->decided_by,   &to->last_host,     &to->last_reply,     &to->history
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (!copy(a, texts[i]))
            return false;
    to->route = route_ref(from->route);
    return true;
}

/* ---- arrival ---------------------------------------------------------------------------------- */

/* Its hosts are left alone; a pause of our own is short, or concerns others. */
static bool backs_off(const struct queue *q)
{
    return q->retry_at > engine_now(q->all->engine);
}

/* May it go from memory? What is on disk is older and goes first; what has no room waits there, too. */
static bool has_room(const struct queue *q, const struct job *j)
{
    const struct queues *all = q->all;
    uint64_t budget = all->engine->snapshot->settings->limits.memory;
    return !q->on_disk && !q->held && !all->stopping && !backs_off(q) &&
           queue_jobs(q) < queue_window(q) && all->warm + j->warm <= budget;
}

/* Its sender wants it to wait: on disk, as what has failed does. */
static bool is_held_back(const struct queue *q, const struct job *j)
{
    int64_t now = engine_wall(q->all->engine);
    return j->message->times.hold_ms > now && j->recipients[0].due_ms > now;
}

/* ---- order -------------------------------------------------------------------------------------- */

static int64_t order_at(const struct list *it)
{
    return LIST_ENTRY(it, struct job, link)->order;
}

/* From the end, where an arrival belongs as a rule; an urgent one also goes before big jobs, which stand there though
 * they are older. */
void queue_put_ready(struct queue *q, struct job *j)
{
    struct list *at = &q->ready;
    if (j->priority > 0) {
        at = q->ready.next;
        while (at != &q->ready && order_at(at) <= j->order)
            at = at->next;
    } else {
        while (at->prev != &q->ready && order_at(at->prev) > j->order)
            at = at->prev;
    }
    list_push(at, &j->link); /* in front of it */
}

/* Does it go before some that have been read from disk already? Then it takes the place of the last of them, which
 * stays there, where it would not be read in time itself. */
static bool overtakes(struct queue *q, const struct job *j)
{
    struct queues *all = q->all;
    uint64_t budget = all->engine->snapshot->settings->limits.memory;
    struct job *last = list_empty(&q->ready) ? NULL : LIST_ENTRY(q->ready.prev, struct job, link);
    if (j->priority <= 0 || j->class_ != SPOOL_SCHEDULED || !last || last->order <= j->order ||
        last->class_ != SPOOL_SCHEDULED || q->held || q->unread || all->stopping || backs_off(q) ||
        all->warm + j->warm > budget)
        return false;
    if (queue_jobs(q) >= queue_window(q))
        queue_call_off(q, last);
    return true;
}

/* ---- fresh ones -------------------------------------------------------------------------------- */

static size_t of_sender(const struct queue *q, uint64_t sender)
{
    size_t n = 0;
    LIST_FOREACH(it, &q->fresh)
    {
        n += LIST_ENTRY(it, struct job, link)->sender == sender;
    }
    return n;
}

/* Of the highest priority among them; in one of four turns of any. */
struct job *queue_next_fresh(const struct queue *q)
{
    struct job *next = NULL;
    size_t fewest = SIZE_MAX;
    bool any = q->fresh_taken % 4 == 3;
    LIST_FOREACH(it, &q->fresh)
    {
        struct job *j = LIST_ENTRY(it, struct job, link);
        size_t n = of_sender(q, j->sender);
        bool higher = next && !any && j->priority > next->priority;
        bool lower = next && !any && j->priority < next->priority;
        if (higher || (n < fewest && !lower)) {
            fewest = n;
            next = j;
        }
    }
    return next;
}

/* A place among them: a free one, or the last one of whoever has most of them, of the lowest priority. False: the arrival
 * would be one too many itself. */
static bool make_fresh_room(struct queue *q, const struct job *j)
{
    size_t n = 0, most = 0, mine = of_sender(q, j->sender);
    struct job *last = NULL;
    if (mine >= QUEUE_FRESH / 2)
        return false;
    LIST_FOREACH(it, &q->fresh)
    {
        struct job *other = LIST_ENTRY(it, struct job, link);
        size_t has = of_sender(q, other->sender);
        bool lower = last && other->priority < last->priority;
        if (lower || (has >= most && (!last || other->priority == last->priority))) {
            most = has;
            last = other;
        }
        n++;
    }
    if (n < QUEUE_FRESH)
        return true;
    if (j->priority < last->priority || (j->priority == last->priority && mine + 1 >= most))
        return false;
    queue_call_off(q, last);
    return true;
}

/* Older mail waits on disk, or the window is full: may it go from memory all the same, by turns? */
static bool is_fresh(struct queue *q, const struct job *j)
{
    const struct queues *all = q->all;
    uint64_t budget = all->engine->snapshot->settings->limits.memory;
    return j->class_ == SPOOL_SCHEDULED && !q->held && !q->unread && !all->stopping &&
           !backs_off(q) && all->warm + j->warm <= budget && queue_window(q) == QUEUE_WINDOW &&
           make_fresh_room(q, j);
}

/* ---- arrival at the owner ---------------------------------------------------------------------- */

/* Takes the job into the window, or remembers that it is on disk. */
static void take_arrival(struct queues *all, struct job *j)
{
    bool known = queue_find(all, str_of(j->name)) != NULL;
    struct queue *q = queue_get(all, str_of(j->name));
    if (!q) {
        job_free(j);
        queues_look_again(all, false);
        return;
    }
    /* A queue that was just made found this very mail in the spool, and perhaps no other. */
    if (!known && !q->unread && all->row.scheduled <= j->n)
        q->on_disk = false;
    if (j->class_ == SPOOL_WAITING && j->route)
        held_arrived(all->engine->held, queue_name(q), j->route, message_start(j->message));
    queue_note_by(q, j->message);
    if (is_held_back(q, j)) {
        if (j->class_ == SPOOL_SCHEDULED)
            queue_note_due(q, j->recipients[0].due_ms);
        job_free(j);
        queue_run_soon(q);
        return;
    }
    bool released = q->released && !q->release_over;
    bool wanted = (j->class_ == SPOOL_SCHEDULED || released) && !job_find(all, q, &j->id);
    struct list *place = NULL;
    if (wanted && has_room(q, j))
        place = &q->ready;
    else if (wanted && overtakes(q, j))
        place = &q->ready;
    else if (wanted && is_fresh(q, j))
        place = &q->fresh;
    if (place && job_register(all, q, j)) {
        if (place == &q->ready)
            queue_put_ready(q, j);
        else
            list_push(place, &j->link);
        j->fresh = place == &q->fresh;
    } else {
        q->on_disk |= j->class_ == SPOOL_SCHEDULED;
        q->waiting_left |= j->class_ == SPOOL_WAITING;
        job_free(j);
    }
    queue_run_soon(q);
}

static void arrival_run(struct engine *e, struct worker_message *m)
{
    take_arrival(e->queues, CONTAINER_OF(m, struct job, wm));
}

static struct job *arrival_job(struct message *m, const struct recipient *const *group, size_t n)
{
    const struct route *route = group[0]->route;
    struct job *j = job_new(route->queue, n);
    if (!j)
        return NULL;
    j->id = m->id;
    j->arrived = j->is_new = true;
    j->sender = hash_bytes(m->sender.text.p, m->sender.text.n);
    j->priority = m->times.priority;
    j->order = group[0]->due_ms + MAX(-j->priority, 0) * (int64_t)QUEUE_HEAD_START_MS;
    j->warm = m->body ? body_memory(m->body) : 0;
    j->message = message_ref(m);
    j->route = route_ref((struct route *)route);
    j->class_ = route->kind == ROUTE_HOLD ? SPOOL_WAITING : SPOOL_SCHEDULED;
    j->wm.run = arrival_run;
    for (size_t i = 0; i < n; i++, j->n++)
        if (!copy_recipient(&j->arena, group[i], &j->recipients[i]))
            return job_free(j);
    return j;
}

static int by_queue(const void *a, const void *b)
{
    const struct recipient *const *x = a, *const *y = b;
    int c = str_cmp((*x)->route->queue, (*y)->route->queue);
    return c ? c : ((*x)->n > (*y)->n) - ((*x)->n < (*y)->n);
}

/* ---- sending to owners ------------------------------------------------------------------------ */

static void send_group(struct engine *e, struct message *m, const struct recipient *const *group,
                       size_t n)
{
    struct port_workers *workers = e->ports.workers;
    int owner = engine_queue_owner(group[0]->route->queue, workers->count);
    struct job *j = arrival_job(m, group, n);
    if (!j) {
        queues_look_again(e->queues, owner != workers->self);
        return;
    }
    if (owner == workers->self)
        take_arrival(e->queues, j);
    else
        workers->post(workers, owner, &j->wm);
}

void queues_arrived(struct engine *e, struct message *m, const struct recipient *recipients,
                    size_t n)
{
    const struct recipient *few[16], **sorted = few;
    AUTO_FREE const struct recipient **many = NULL;
    size_t most = MAX(e->snapshot->settings->queue.recipients, 1u);
    if (n > ARRAY_LEN(few)) {
        sorted = many = malloc(n * sizeof *many);
        if (!many) {
            queues_look_again(e->queues, true);
            return;
        }
    }
    for (size_t i = 0; i < n; i++)
        sorted[i] = &recipients[i];
    if (n > 1)
        qsort(sorted, n, sizeof *sorted, by_queue);
    for (size_t i = 0, k; i < n; i = k) {
        for (k = i + 1; k < n && k - i < most; k++)
            if (!str_eq(sorted[k]->route->queue, sorted[i]->route->queue) ||
                !route_same(sorted[k]->route, sorted[i]->route))
                break;
        send_group(e, m, sorted + i, k - i);
    }
}
